"""How a request becomes a decision: names, headers, limits, stickiness, and what happens when a side fails."""

from __future__ import annotations

import logging

import pytest

from routellm_core import Price, RoutingPolicy, ShareLimit, SpendLimit, Stickiness
from routellm_core.serve.names import Names
from tests.serve.conftest import EASY, HARD, chat
from tests.support.loopback import ChatReply, Failure
from tests.support.routers import ScriptedRouter
from tests.support.serving import post

PATH = "/v1/chat/completions"
MIDDLE = "p=0.6 in between"


@pytest.mark.parametrize(
    ("model", "text", "side", "reason", "threshold"),
    [
        ("routellm", MIDDLE, "strong", "win_rate", 0.5),
        ("routellm-30pct", MIDDLE, "weak", "win_rate", 0.7),
        ("routellm-100pct", EASY, "strong", "win_rate", 0.0),
        ("router-scripted-0.65", MIDDLE, "weak", "win_rate", 0.65),
        ("strong", EASY, "strong", "forced", 0.5),
        ("weak", HARD, "weak", "forced", 0.5),
        ("big", EASY, "strong", "forced", 0.5),
        ("small", HARD, "weak", "forced", 0.5),
    ],
)
def test_names(place, model, text, side, reason, threshold):
    reply = post(place.origin, PATH, chat(text, model=model))
    assert reply.header("x-routellm-model") == side
    assert reply.header("x-routellm-reason") == reason
    assert float(reply.header("x-routellm-threshold")) == pytest.approx(threshold, abs=2e-3)  # type: ignore[arg-type]


def test_the_authors_form_says_what_a_threshold_is_here(place, caplog):
    with caplog.at_level(logging.WARNING, logger="routellm_core"):
        replies = [post(place.origin, PATH, chat(HARD, model="router-scripted-0.3")) for _ in range(3)]
    assert "70%" in replies[0].header("x-routellm-note")  # type: ignore[operator]
    assert sum("threshold" in record.message for record in caplog.records) == 1


def test_the_bundled_router_goes_by_the_authors_name():
    names = Names(RoutingPolicy(strong_fraction=0.3), {"strong": "big", "weak": "small"}, overrides=True)
    for router in ("mf", "mf_vote"):
        asked = names.meaning(f"router-{router}-0.11593")
        assert asked.threshold == 0.11593
        assert asked.note is not None
        assert any(name.startswith(f"router-{router}-0.") for name in names.listed())


@pytest.mark.parametrize("model", ["router-mf-0.5", "routellm-101pct", "router-scripted-1.5", "gpt-9", "ROUTELLM"])
def test_unknown_names_are_404(place, model):
    reply = post(place.origin, PATH, chat(HARD, model=model))
    assert (reply.status, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert place.strong.requests == place.weak.requests == []


@pytest.mark.parametrize(
    ("headers", "side"),
    [
        ({"x-routellm-threshold": "0.7"}, "weak"),
        ({"x-routellm-strong-fraction": "0.3"}, "weak"),
        ({"x-routellm-strong-fraction": "0.5"}, "strong"),
        ({"x-routellm-force": "weak"}, "weak"),
    ],
)
def test_headers_choose(place, headers, side):
    assert post(place.origin, PATH, chat(MIDDLE), headers).header("x-routellm-model") == side
    named = post(place.origin, PATH, chat(MIDDLE, model="router-scripted-0.99"), headers)
    assert named.header("x-routellm-model") == side  # a header wins over the name


@pytest.mark.parametrize(
    "headers",
    [
        {"x-routellm-threshold": "1.5"},
        {"x-routellm-threshold": "nan"},
        {"x-routellm-threshold": "high"},
        {"x-routellm-strong-fraction": "-1"},
        {"x-routellm-force": "medium"},
        {"x-routellm-lookback": "0"},
        {"x-routellm-lookback": "many"},
        {"x-routellm-threshold": "0.5", "x-routellm-strong-fraction": "0.5"},
    ],
)
def test_headers_that_say_nothing_are_400(place, headers):
    reply = post(place.origin, PATH, chat(MIDDLE), headers)
    assert reply.status == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_overrides_can_be_refused(start):
    place = start(allow_overrides=False)
    assert post(place.origin, PATH, chat(HARD)).status == 200
    for model in ("strong", "big", "routellm-90pct", "router-scripted-0.1"):
        assert post(place.origin, PATH, chat(EASY, model=model)).status == 403
    for header in ({"x-routellm-force": "strong"}, {"x-routellm-threshold": "0"}):
        assert post(place.origin, PATH, chat(EASY), header).status == 400
    names = post(place.origin, "/v1/models", b"", method="GET").json()["data"]
    assert [name["id"] for name in names] == ["routellm"]


def test_lookback_by_header(place):
    messages = [{"role": "user", "content": HARD}, {"role": "user", "content": "p=0.1 continue"}]
    body = {"model": "routellm", "messages": messages}
    assert post(place.origin, PATH, body).header("x-routellm-model") == "weak"
    assert post(place.origin, PATH, body, {"x-routellm-lookback": "2"}).header("x-routellm-model") == "strong"


def test_a_conversation_sticks_by_its_header(start):
    place = start(sticky=Stickiness("conversation"))
    mine, other = {"x-routellm-conversation": "1"}, {"x-routellm-conversation": "2"}
    assert post(place.origin, PATH, chat(HARD), mine).header("x-routellm-model") == "strong"
    assert post(place.origin, PATH, chat(EASY), mine).header("x-routellm-reason") == "sticky"
    assert post(place.origin, PATH, chat(EASY), other).header("x-routellm-model") == "weak"


def test_route_on_gets_the_request(start):
    place = start(route_on=lambda body: body["metadata"]["question"])
    reply = post(place.origin, PATH, chat(EASY, metadata={"question": HARD}))
    assert reply.header("x-routellm-model") == "strong"


def test_a_spending_limit_counts_what_is_used(start):
    prices = {"strong": Price(1e6, 1e6), "weak": Price(0, 0)}
    place = start(limits=[SpendLimit(20, prices=prices)])  # an answer costs 15
    reasons = [post(place.origin, PATH, chat(HARD)).header("x-routellm-reason") for _ in range(3)]
    assert reasons == ["win_rate", "win_rate", "limit"]


def test_a_stream_without_usage_is_counted_by_its_text(start):
    prices = {"strong": Price(0, 1e6), "weak": Price(0, 0)}
    limit = SpendLimit(1e9, prices=prices)
    place = start(limits=[limit])
    place.strong.reply_next(ChatReply("word " * 100))
    post(place.origin, PATH, {**chat(HARD), "stream": True})
    assert 100 <= limit.spending() <= 200


def test_a_limit_that_raises_is_429(start):
    prices = {"strong": Price(1e6, 1e6), "weak": Price(1e6, 1e6)}
    place = start(limits=[SpendLimit(1, prices=prices, on_reached="raise")])
    assert post(place.origin, PATH, chat(HARD)).status == 200
    assert post(place.origin, PATH, chat(HARD)).status == 429


@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_that_cannot_count_costs_nobody_the_answer(start, monkeypatch, caplog, stream):
    limit = SpendLimit(1e9, prices={"strong": Price(1, 1), "weak": Price(1, 1)})
    place = start(limits=[limit])
    monkeypatch.setattr(limit, "spent", lambda *args, **kwargs: 1 / 0)
    reply = post(place.origin, PATH, {**chat(HARD), "stream": stream})
    assert reply.status == 200
    assert b"answer" in reply.body
    assert "A request failed in this server: ZeroDivisionError." in caplog.text


def test_limits_by_client_key_and_by_user(start):
    prices = {"strong": Price(1e6, 1e6), "weak": Price(0, 0)}
    place = start(client_keys={"a": "ka", "b": "kb"}, limits=[SpendLimit(10, key="client", prices=prices)])
    a, b = {"authorization": "Bearer ka"}, {"authorization": "Bearer kb"}
    assert post(place.origin, PATH, chat(HARD), a).header("x-routellm-reason") == "win_rate"
    assert post(place.origin, PATH, chat(HARD), {**a, "x-routellm-client": "b"}).header("x-routellm-reason") == "limit"
    assert post(place.origin, PATH, chat(HARD), b).header("x-routellm-reason") == "win_rate"
    users = start(limits=[ShareLimit("user_id", strong_fraction=0.0, window=10)])
    seen = [post(users.origin, PATH, chat(HARD, user="u")).header("x-routellm-reason") for _ in range(5)]
    assert seen[-1] == "limit"
    assert post(users.origin, PATH, chat(HARD, user="v")).header("x-routellm-reason") == "win_rate"


# --- when a side fails ---

BROKEN = [
    Failure(status=500),
    Failure(status=503, retry_after="1"),
    Failure(status=429),
    Failure(cut=True),
    Failure(raw="<html>oops</html>", content_type="text/html"),
    Failure(raw="{"),
    Failure(raw='{"choices": []}'),
    Failure(raw=""),
    Failure(raw='{"error": {"message": "overloaded"}}'),
    Failure(raw='{"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": null}]}'),
]
BROKEN_STREAMS = [
    Failure(status=500),
    Failure(cut=True),
    Failure(raw="data: [DONE]\n\n", content_type="text/event-stream"),
    Failure(raw="", content_type="text/event-stream"),
    Failure(raw='data: {"error": {"message": "overloaded"}}\n\n', content_type="text/event-stream"),
    Failure(raw='data: {"choices": []}\n\ndata: [DONE]\n\n', content_type="text/event-stream"),
    Failure(cut=True, cut_after=1),
]


@pytest.mark.parametrize("failure", BROKEN, ids=repr)
def test_failover_answers_with_the_other_side(start, failure):
    place = start(failover=True)
    place.strong.fail_next(failure)
    reply = post(place.origin, PATH, chat(HARD))
    assert (reply.status, reply.json()["model"]) == (200, "small")
    assert (reply.header("x-routellm-model"), reply.header("x-routellm-failover")) == ("weak", "strong")
    assert (len(place.strong.requests), len(place.weak.requests)) == (1, 1)


@pytest.mark.parametrize("failure", BROKEN_STREAMS, ids=repr)
def test_failover_in_a_stream_before_its_first_token(start, failure):
    place = start(failover=True)
    place.strong.fail_next(failure)
    reply = post(place.origin, PATH, {**chat(HARD), "stream": True})
    direct = post(place.weak.origin, PATH, {**chat(HARD, model="small"), "stream": True})
    assert reply.body == direct.body
    assert reply.header("x-routellm-failover") == "strong"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_the_callers_mistake_is_no_failure(start, status):
    place = start(failover=True)
    place.strong.fail_next(Failure(status=status, message="yours"))
    reply = post(place.origin, PATH, chat(HARD))
    assert (reply.status, reply.json()["error"]["message"]) == (status, "yours")
    assert place.weak.requests == []


def test_a_prompt_too_long_for_weak_goes_to_strong(start):
    place = start(failover=True)
    long = {"error": {"message": "This model's maximum context length is 8192", "code": "context_length_exceeded"}}
    import json

    place.weak.fail_next(Failure(status=400, raw=json.dumps(long)))
    assert post(place.origin, PATH, chat(EASY)).json()["model"] == "big"


@pytest.mark.parametrize("failure", [*BROKEN, Failure(status=418)], ids=repr)
def test_without_failover_replies_come_as_they_are(place, failure):
    place.strong.fail_next(failure)
    through = post(place.origin, PATH, chat(HARD))
    place.strong.fail_next(failure)
    if failure.cut:
        assert through.status == 502
        return
    direct = post(place.strong.origin, PATH, chat(HARD, model="big"))
    assert (through.status, through.body) == (direct.status, direct.body)
    assert through.header("retry-after") == direct.header("retry-after")
    assert place.weak.requests == []


def test_where_both_fail_the_last_answer_is_passed_on(start):
    place = start(failover=True)
    place.strong.fail_next(Failure(status=500))
    place.weak.fail_next(Failure(status=503, message="both", retry_after="9"))
    reply = post(place.origin, PATH, chat(HARD))
    assert (reply.status, reply.json()["error"]["message"], reply.header("retry-after")) == (503, "both", "9")


def test_a_real_models_name_never_fails_over(start):
    place = start(failover=True)
    place.strong.fail_next(Failure(status=500))
    assert post(place.origin, PATH, chat(HARD, model="big")).status == 500
    assert place.weak.requests == []


def test_a_side_that_failed_is_passed_over(start):
    place = start(failover=True, cooldown=60)
    place.strong.fail_next(Failure(status=500))
    for _ in range(3):
        assert post(place.origin, PATH, chat(HARD)).json()["model"] == "small"
    assert len(place.strong.requests) == 1


def test_a_failing_router_goes_by_on_error(start):
    place = start(router=ScriptedRouter(error=RuntimeError("down")), on_error="weak")
    reply = post(place.origin, PATH, chat(HARD))
    assert (reply.header("x-routellm-model"), reply.header("x-routellm-reason")) == ("weak", "error")
    raising = start(router=ScriptedRouter(error=RuntimeError("p=secret")), on_error="raise")
    reply = post(raising.origin, PATH, chat(HARD))
    assert (reply.status, reply.json()["error"]["type"]) == (500, "api_error")
    assert b"secret" not in reply.body


def test_a_failing_route_on_is_500_in_the_same_form(start, caplog):
    place = start(route_on=lambda body: 1 / 0 if "secret" in body["messages"][0]["content"] else "")
    reply = post(place.origin, PATH, chat("secret"))
    assert (reply.status, reply.json()["error"]["message"]) == (500, "this server failed (ZeroDivisionError)")
    assert "secret" not in caplog.text


def warnings_of(caplog, place, texts):
    with caplog.at_level(logging.WARNING, logger="routellm_core"):
        for text in texts:
            post(place.origin, PATH, chat(text))
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("stream", [False, True])
def test_one_model_behind_both_servers_is_warned_of_once(place, caplog, stream):
    for server in (place.strong, place.weak):
        server.chat = lambda body: ChatReply("four", model="small.gguf")
    with caplog.at_level(logging.WARNING, logger="routellm_core"):
        for text in (EASY, HARD, EASY, HARD):
            assert post(place.origin, PATH, chat(text, stream=stream)).status == 200
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"small.gguf, but strong is set up as 'big' at {place.strong.base_url}" in said


def test_two_models_are_not_warned_of(place, caplog):
    assert warnings_of(caplog, place, [EASY, HARD, EASY]) == []


def test_a_model_that_is_not_there_is_warned_of_until_it_answers(place, caplog):
    place.weak.fail_next(Failure(status=404), Failure(status=404))
    said = warnings_of(caplog, place, [EASY, EASY])
    assert len(said) == 1
    assert f"The weak model 'small' at {place.weak.base_url} fails: its server has no model of this name" in said[0]
    caplog.clear()
    assert warnings_of(caplog, place, [EASY]) == []
    place.weak.fail_next(Failure(status=404))
    assert len(warnings_of(caplog, place, [EASY])) == 1


def test_a_server_that_is_down_is_warned_of(start, caplog):
    place = start()
    place.weak.close()
    (said,) = warnings_of(caplog, place, [EASY, EASY])
    assert said.startswith(f"The weak model 'small' at {place.weak.base_url} fails: its server could")
    assert said.endswith("is it running, and is the address right?")
