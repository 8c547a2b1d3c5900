"""The traffic log behind the server: every call, its answer and, where drawn, the other side's."""

from __future__ import annotations

import pytest

from routellm_core import Price
from routellm_core.log import TrafficLog
from tests.serve.conftest import EASY, HARD, chat
from tests.support.loopback import Failure
from tests.support.serving import post

PATH = "/v1/chat/completions"

pytest.importorskip("sqlalchemy")


@pytest.fixture
def log(tmp_path):
    prices = {"strong": Price(2, 8), "weak": Price(1, 1)}
    with TrafficLog(f"sqlite:///{tmp_path / 'traffic.db'}", flush_seconds=0.05, prices=prices) as log:
        yield log


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_logged_under_the_id_that_its_header_tells(start, log, stream):
    place = start(log=log)
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    reply = post(place.origin, PATH, chat(HARD, **more), {"x-routellm-conversation": "c"})  # type: ignore[arg-type]
    log.feedback(reply.header("x-routellm-decision-id"), 1.0)
    with log.database() as database:
        (call,) = database.calls()
        (outcome,) = database.outcomes()
        assert (call.id, call.prompt, call.side) == (reply.header("x-routellm-decision-id"), HARD, "strong")
        assert call.conversation is not None
        answer = outcome.answers["strong"]
        assert (answer.text, answer.model, answer.input_tokens, answer.output_tokens) == ("answer of big", "big", 10, 5)
        assert answer.cost == pytest.approx((2 * 10 + 8 * 5) / 1e6)
        assert outcome.scores == {"strong": 1.0}


@pytest.mark.parametrize("stream", [False, True])
def test_a_shadow_answers_for_the_log_alone(start, log, stream):
    place = start(log=log, shadow=1.0)
    reply = post(place.origin, PATH, chat(EASY, stream=stream))
    assert b"big" not in reply.body
    with log.database() as database:
        (pair,) = database.pairs()
        assert (pair.weak.text, pair.strong.text) == ("answer of small", "answer of big")
        assert (pair.weak.kind, pair.strong.kind) == ("routed", "shadow")
    text = post(place.origin, "/metrics", b"", method="GET").body
    assert b'routellm_requests_total{reason="win_rate",side="weak"} 1.0' in text
    assert b'side="strong"' not in text


def test_a_hanging_shadow_delays_nobody(start, log):
    place = start(log=log, shadow=1.0)
    place.strong.fail_always(Failure(stall=30))
    for _ in range(3):
        assert post(place.origin, PATH, chat(EASY)).status == 200


@pytest.mark.parametrize(("failure", "error"), [(Failure(status=503), "HTTP503"), (Failure(cut=True), "UpstreamError")])
def test_failures_are_logged_as_such(start, log, failure, error):
    place = start(log=log)
    place.strong.fail_next(failure)
    post(place.origin, PATH, chat(HARD))
    with log.database() as database:
        (outcome,) = database.outcomes()
        assert outcome.answers["strong"].error == error


def test_after_a_failover_the_log_tells_who_answered(start, log):
    place = start(log=log, shadow=1.0, failover=True)
    place.strong.fail_next(Failure(status=503))
    post(place.origin, PATH, chat(HARD))
    with log.database() as database:
        (outcome,) = database.outcomes()
        assert (outcome.call.side, outcome.call.failover) == ("weak", "strong")
        assert outcome.answers["weak"].text == "answer of small"
        assert "strong" not in outcome.answers


def test_the_row_has_the_cost_of_the_call_its_user_and_the_refused_answer(start, log):
    place = start(log=log, accept=lambda answer: "fine" in answer.text)
    for body, headers in (
        (chat(HARD), {"x-routellm-user-id": "ann"}),
        (chat(EASY, user="bob"), {}),
        (chat(EASY, safety_identifier="bob", stream=True, stream_options={"include_usage": True}), {}),
    ):
        assert post(place.origin, PATH, body, headers).status == 200
    strong, weak = (2 * 10 + 8 * 5) / 1e6, (10 + 5) / 1e6
    with log.database() as database:
        costs = sorted((call.user_id, call.cost) for call in database.calls())
        totals = {total.key: total for total in database.totals("side")}
    assert costs == [("ann", pytest.approx(strong))] + [("bob", pytest.approx(strong + weak))] * 2
    assert (totals["weak"].answers, totals["weak"].refused) == (0, 2)
    assert totals["weak"].cost == pytest.approx(2 * weak)


@pytest.mark.parametrize(
    ("options", "text", "more", "cost"),
    [
        ({"failover": True}, HARD, {}, (2 * 10 + 8 * 5) / 1e6),
        ({"failover": True, "accept": lambda answer: False}, EASY, {}, None),
        ({"accept": lambda answer: True}, EASY, {}, 15e-6),
        ({"accept": lambda answer: False}, EASY, {}, None),  # the strong reply goes out as it comes
        ({"accept": lambda answer: True}, EASY, {"stream": True, "stream_options": {"include_usage": True}}, 15e-6),
        ({"failover": True}, HARD, {"stream": True, "stream_options": {"include_usage": True}}, None),
        ({}, HARD, {}, None),
    ],
)
def test_a_reply_that_is_held_until_it_is_complete_tells_its_cost(start, log, options, text, more, cost):
    place = start(log=log, **options)
    told = post(place.origin, PATH, chat(text, **more)).header("x-routellm-cost")
    assert told is None if cost is None else float(told) == pytest.approx(cost)  # type: ignore[arg-type]
    if cost is not None:
        with log.database() as database:
            assert [call.cost for call in database.calls()] == [pytest.approx(cost)]
