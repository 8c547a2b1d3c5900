"""A server with three models: shares of all calls, headers that tell the model, and what happens when one fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from routellm_core import ConfigurationError, Price, SpendLimit, Stickiness, TrafficLog
from routellm_core.cli import main
from routellm_core.serve import create_app
from routellm_core.serve.settings import read_settings, server_of, tier_tables
from tests.serve.conftest import chat
from tests.support.loopback import ChatReply, Failure
from tests.support.openai_server import OpenAIServer
from tests.support.routers import ScriptedRouter
from tests.support.serving import post, serving

PATH = "/v1/chat/completions"
# one prompt for each tier
TOP, MIDDLE, LOW = "p=0.95 prove it", "p=0.7 explain it", "p=0.1 hello"


class Place:
    """A running server, and the three that stand behind it."""

    def __init__(self, stack: ExitStack, *, shares: tuple[float, float] = (0.3, 0.1), **options: Any) -> None:
        self.low, self.middle, self.top = (stack.enter_context(OpenAIServer()) for _ in range(3))
        self.router = ScriptedRouter()
        more = options.pop("more", {})
        self.app = create_app(
            tiers=[
                {"model": "low", "url": self.low.base_url, **more.get("low", {})},
                {"model": "middle", "url": self.middle.base_url, "share": shares[0], **more.get("middle", {})},
                {"model": "top", "url": self.top.base_url, "share": shares[1], "key": "sk-top"},
            ],
            router=self.router,
            **{"cache_size": 0, **options},
        )
        self.origin = stack.enter_context(serving(self.app))

    def ask(self, text: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
        return post(self.origin, PATH, chat(text, **more), headers)


@pytest.fixture
def start() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda **options: Place(stack, **options)


def told(reply: Any) -> tuple[str | None, str | None]:
    return reply.header("x-routellm-upstream-model"), reply.header("x-routellm-path")


@pytest.mark.parametrize("stream", [False, True])
def test_each_request_goes_to_its_tier_and_the_headers_tell_which(start, stream):
    place = start()
    for text, model, path in ((TOP, "top", None), (MIDDLE, "middle", "weak/strong"), (LOW, "low", "weak/weak")):
        server = getattr(place, model)
        place.router.calls.clear()
        reply = place.ask(text, stream=stream)
        assert (reply.status, told(reply)) == (200, (model, path))
        assert float(reply.header("x-routellm-win-rate")) == float(text.split()[0][2:])
        assert server.requests[-1].body["model"] == model
        assert place.router.calls == [[text]]
    assert [len(server.requests) for server in (place.top, place.middle, place.low)] == [1, 1, 1]
    metrics = post(place.origin, "/metrics", b"", method="GET").body.decode()
    for model in ("top", "middle", "low"):
        assert f'routellm_requests_total{{reason="win_rate",side="{model}"}} 1.0' in metrics


def test_shares_are_those_of_all_calls(start):
    place = start()
    rates = np.random.default_rng(0).permutation((np.arange(100) + 0.5) / 100)
    models = Counter(told(place.ask(f"p={rate:.4f} question"))[0] for rate in rates)
    assert models == {"low": 60, "middle": 30, "top": 10}


def test_clients_may_ask_for_a_tier_by_its_name(start):
    place = start()
    names = [entry["id"] for entry in post(place.origin, "/v1/models", b"", method="GET").json()["data"]]
    assert {"low", "middle", "top", "routellm", "weak", "strong"} <= set(names)
    for model in ("low", "middle", "top"):
        for reply in (place.ask(TOP, model=model), place.ask(LOW, {"x-routellm-force": model})):
            assert (told(reply)[0], reply.header("x-routellm-reason")) == (model, "forced")
    assert told(place.ask(TOP, model="weak"))[0] == "low"
    assert told(place.ask(LOW, model="strong"))[0] == "top"
    # a threshold is that of the top model
    assert told(place.ask("p=0.55 x", {"x-routellm-threshold": "0.5"}))[0] == "top"
    assert told(place.ask(MIDDLE, {"x-routellm-threshold": "0.5"}))[0] == "top"
    assert told(place.ask("p=0.95 x", {"x-routellm-threshold": "0.97"}))[0] == "middle"
    assert place.ask(LOW, {"x-routellm-force": "middling"}).status == 400


@pytest.mark.parametrize("stream", [False, True])
def test_failover_goes_level_by_level(start, stream):
    place = start(failover=True, cooldown=None)
    place.low.fail_always(Failure(status=503))
    reply = place.ask(LOW, stream=stream)
    assert (told(reply), reply.header("x-routellm-failover")) == (("middle", "weak/strong"), "weak")
    place.middle.fail_always(Failure(status=503))
    reply = place.ask(LOW, stream=stream)
    assert (told(reply), reply.header("x-routellm-failover")) == (("top", None), "weak")
    metrics = post(place.origin, "/metrics", b"", method="GET").body.decode()
    assert 'routellm_requests_total{reason="win_rate",side="middle"} 1.0' in metrics
    assert 'routellm_requests_total{reason="win_rate",side="top"} 1.0' in metrics
    place.top.fail_always(Failure(status=503))
    assert place.ask(LOW, stream=stream).status == 503
    # a model that was asked for by its name is not stood in for
    assert place.ask(LOW, model="low").status == 503
    assert len(place.top.requests) == 2


def test_without_failover_a_refusal_comes_back_as_it_is(start):
    place = start()
    place.middle.fail_always(Failure(status=429))
    reply = place.ask(MIDDLE)
    assert (reply.status, told(reply)) == (429, ("middle", "weak/strong"))


@pytest.mark.parametrize("stream", [False, True])
def test_a_check_looks_at_the_answer_of_every_level(start, stream):
    place = start(accept=lambda answer: "good" in answer.text)
    place.low.chat = place.middle.chat = lambda body: ChatReply("bad")
    place.top.chat = lambda body: ChatReply("the best")
    reply = place.ask(LOW, stream=stream)
    assert (told(reply)[0], reply.header("x-routellm-escalated")) == ("top", "true")
    assert b"bad" not in reply.body
    place.middle.chat = lambda body: ChatReply("good")
    reply = place.ask(LOW, stream=stream)
    assert (told(reply)[0], reply.header("x-routellm-escalated")) == ("middle", "true")


def test_capability_goes_level_by_level(start):
    image = [{"type": "text", "text": LOW}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    body = {"model": "routellm", "messages": [{"role": "user", "content": image}]}
    lacks = {"profile": {"image_inputs": False}}
    one = start(more={"low": lacks, "middle": {"profile": {"image_inputs": True}}})
    reply = post(one.origin, PATH, body)
    assert (told(reply), reply.header("x-routellm-detail")) == (("middle", "weak/strong"), "image_inputs")
    both = start(more={"low": lacks, "middle": lacks})
    assert told(post(both.origin, PATH, body))[0] == "top"


def test_a_conversation_stays_at_its_tier_or_above(start):
    place = start(sticky=Stickiness("conversation"))
    headers = {"x-routellm-conversation": "1"}
    assert told(place.ask(LOW, headers))[0] == "low"
    assert told(place.ask(MIDDLE, headers))[0] == "middle"
    assert told(place.ask(LOW, headers))[0] == "middle"
    assert told(place.ask(TOP, headers))[0] == "top"
    assert told(place.ask(LOW, headers))[0] == "top"
    assert told(place.ask(LOW, {"x-routellm-conversation": "2"}))[0] == "low"


def test_a_stored_response_is_looked_for_where_it_is(start):
    place = start()
    first = post(place.origin, "/v1/responses", {"model": "routellm", "input": MIDDLE})
    assert told(first)[0] == "middle"
    follow = {"model": "routellm", "input": TOP, "previous_response_id": first.json()["id"]}
    assert told(post(place.origin, "/v1/responses", follow))[0] == "middle"


def test_a_call_is_logged_once_and_limits_count_what_it_used(start, tmp_path):
    with TrafficLog(f"sqlite:///{tmp_path}/a.db", prices={"low": Price(1, 1), "middle": Price(2, 2)}) as log:
        limit = SpendLimit(1e9, prices={"strong": Price(1e6, 0), "weak": Price(1e5, 0)})
        place = start(log=log, shadow=1.0, limits=[limit])
        for text in (TOP, MIDDLE, LOW):
            place.ask(text)
        log.flush()
        with log.database() as database:
            assert len(list(database.calls())) == 3
            given = {(row.side, row.model, row.kind) for row in database.spending()}
    assert {("strong", "top", "routed"), ("weak", "middle", "routed"), ("weak", "low", "routed")} <= given
    # the other side of the call that went to the top is the tier that would have answered it
    assert {("weak", "middle", "shadow"), ("strong", "top", "shadow")} <= given
    assert limit.spending() > 0


def test_other_paths_go_to_the_top_or_the_cheapest(start):
    place = start(other="weak")
    post(place.origin, "/v1/embeddings", {"model": "e", "input": "x"})
    assert len(place.low.requests) == 1


# --- settings ---

TIERS = [{"model": "low"}, {"model": "middle", "share": 0.3}, {"model": "top", "share": 0.1}]


@pytest.mark.parametrize(
    ("tiers", "options", "message"),
    [
        (TIERS[:1], {}, "two models or more"),
        ([{"model": "low", "share": 0.6}, *TIERS[1:]], {}, "it takes what the others leave"),
        ([TIERS[0], {"model": "middle"}, TIERS[2]], {}, "share of the model 'middle': missing"),
        ([TIERS[0], {"model": "middle", "share": 1.5}, TIERS[2]], {}, "share of the model 'middle'=1.5"),
        ([TIERS[0], {"model": "middle", "share": 0.95}, TIERS[2]], {}, "top=0.1, middle=0.95: they sum to 1.05"),
        ([TIERS[0], {"model": "low", "share": 0.3}, TIERS[2]], {}, "different names"),
        (TIERS, {"strong_fraction": 0.3}, "strong_fraction= is an option of two models"),
        (TIERS, {"threshold": 0.3}, "threshold= is an option of two models"),
        (TIERS, {"strong": {"model": "x"}}, "tiers= names all models"),
        ([{"model": "low", "profile": {"sees": 1}}, *TIERS[1:]], {}, "tiers: profile"),
    ],
)
def test_what_is_not_allowed_is_named(tiers, options, message):
    with pytest.raises(ConfigurationError, match=message.replace(".", r"\.")):
        create_app(tiers=tiers, router=ScriptedRouter(), **options)


def test_a_file_of_settings(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text(
        'router = "random"\nfailover = true\n'
        '[[tiers]]\nmodel = "low"\nurl = "http://127.0.0.1:8000/v1"\nprice = "1/2"\nprofile = {image_inputs = false}\n'
        '[[tiers]]\nmodel = "middle"\nshare = 0.3\nprice = "2/4"\n'
        '[[tiers]]\nmodel = "top"\nshare = 0.1\nkey_env = "TOP_KEY"\nprice = "10/20"\n'
        '[[limits]]\nkind = "spend"\nmoney = 5\nper = "day"\n'
    )
    app = server_of(read_settings(file), {"TOP_KEY": "sk-1"}).app
    assert (app.levels.names, len(app.levels)) == (("top", "middle", "low"), 2)
    assert app.upstreams["top"].key == "sk-1"
    assert [level.policy.strong_fraction for level in app.levels.routings] == [0.1, 0.3]
    assert app.levels[1].policy.threshold == pytest.approx(0.6, abs=0.01)
    assert app.policy.limits[0].prices["weak"] == Price(2, 4)  # type: ignore[attr-defined]


def test_tiers_on_the_command_line():
    tables = tier_tables(
        None,
        ["low=http://127.0.0.1:8000/v1?x=y", "middle", "top"],
        ["middle=0.3", "top=.1"],
        ["top=TOP_KEY"],
        ["middle", "strong"],
    )
    assert tables == [
        {"model": "low", "url": "http://127.0.0.1:8000/v1?x=y"},
        {"model": "middle", "share": 0.3, "pass_client_key": True},
        {"model": "top", "share": 0.1, "key_env": "TOP_KEY"},
    ]
    # the file's, with a share of the command line
    assert tier_tables(tables, [], ["middle=0.2"], [], [])[1]["share"] == 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share", "other=0.3"], "--share='other=0.3'"),
        (["--share", "b=many"], "--share='many'"),
        (["--tier-key-env", "KEY"], "--tier-key-env='KEY'"),
        (["--share", "b=0.3", "--strong", "c"], "tiers and strong are given"),
        (["--share", "b=0.3", "--strong-fraction", "0.3"], "give each model its share="),
    ],
)
def test_the_command_names_what_is_wrong(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--tier", "a=http://127.0.0.1:1/v1", "--tier", "b", "--router", "random", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refuses", "models"),
    [
        ("none", {"low": (1, 0)}),
        ("low", {"low": (0, 1), "middle": (1, 0)}),
        ("low middle", {"low": (0, 1), "middle": (0, 1), "top": (1, 0)}),
    ],
)
def test_answers_that_levels_refuse_are_in_the_log_one_by_one(start, tmp_path, stream, refuses, models):
    prices = {"low": Price(1, 1), "middle": Price(2, 3), "top": Price(10, 20)}
    each = {"low": 15e-6, "middle": 35e-6, "top": 200e-6}
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    with TrafficLog(f"sqlite:///{tmp_path / 'traffic.db'}", prices=prices) as log:
        place = start(log=log, accept=lambda answer: not any(name in answer.text for name in refuses.split()))
        assert place.ask(LOW, **more).status == 200
        with log.database() as database:
            (call,) = database.calls()
            cost = sum(each[model] for model in models)
            assert call.cost == pytest.approx(cost)
            for by in ("side", "model", "user", "day"):
                assert sum(total.cost for total in database.totals(by)) == pytest.approx(cost)  # type: ignore[misc]
            assert sum(side.cost or 0.0 for side in database.summary().sides.values()) == pytest.approx(cost)
            assert {total.key: (total.answers, total.refused) for total in database.totals("model")} == models
