"""A cascade behind the server: one reply, the right counts, and nothing of a refused answer in it."""

from __future__ import annotations

import json

import pytest

from routellm_core import Price, SpendLimit
from routellm_core.policy.answer_checks import valid_json
from tests.serve.conftest import EASY, HARD, chat
from tests.support.loopback import ChatReply, Failure
from tests.support.serving import post

PATHS = {
    "/v1/chat/completions": chat(EASY),
    "/v1/completions": {"model": "routellm", "prompt": EASY},
    "/v1/responses": {"model": "routellm", "input": EASY},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("accepted", [False, True])
def test_the_strong_model_answers_after_a_refusal(start, path, stream, accepted):
    seen = []

    def check(answer, messages):
        seen.append((answer.text, messages))
        return accepted

    place = start(accept=check)
    reply = post(place.origin, path, {**PATHS[path], "stream": stream})
    side, other = (place.weak, "big") if accepted else (place.strong, "small")
    model = "small" if accepted else "big"
    direct = post(side.origin, path, {**PATHS[path], "model": model, "stream": stream})
    assert reply.body.replace(b"_1", b"_N") == direct.body.replace(b"_2", b"_N")
    assert f"answer of {other}".encode() not in reply.body
    assert reply.header("x-routellm-model") == ("weak" if accepted else "strong")
    assert reply.header("x-routellm-escalated") == (None if accepted else "true")
    assert [text for text, _ in seen] == ["answer of small"]
    assert EASY in json.dumps(seen[0][1])


def test_a_hard_prompt_goes_strong_at_once(start):
    place = start(accept=lambda answer: False)
    post(place.origin, "/v1/chat/completions", chat(HARD))
    assert place.weak.requests == []


def test_the_beginning_of_a_stream_can_decide(start):
    place = start(accept=lambda answer: answer.text.startswith("fine"), accept_after=4)
    place.weak.reply_next(ChatReply("bad and so on and so on"), ChatReply("fine and so on"))
    replies = [post(place.origin, "/v1/chat/completions", {**chat(EASY), "stream": True}) for _ in range(2)]
    assert [reply.header("x-routellm-model") for reply in replies] == ["strong", "weak"]
    assert b"bad" not in replies[0].body


def test_a_ready_made_check(start):
    place = start(accept=valid_json)
    place.weak.reply_next(ChatReply("{}"), ChatReply("{"))
    models = [post(place.origin, "/v1/chat/completions", chat(EASY)).json()["model"] for _ in range(2)]
    assert models == ["small", "big"]


def test_both_answers_are_paid(start):
    limit = SpendLimit(1e9, prices={"strong": Price(1e6, 1e6), "weak": Price(1e4, 1e4)})
    place = start(accept=lambda answer: False, limits=[limit])
    post(place.origin, "/v1/chat/completions", chat(EASY))
    assert limit.spending() == pytest.approx(15 + 0.15)


def test_an_error_of_weak_is_an_error_and_not_an_answer(start):
    place = start(accept=lambda answer: False)
    place.weak.fail_next(Failure(status=503, retry_after="4"))
    reply = post(place.origin, "/v1/chat/completions", chat(EASY))
    assert (reply.status, reply.header("retry-after")) == (503, "4")
    assert place.strong.requests == []
    turning = start(accept=lambda answer: True, failover=True)
    turning.weak.fail_next(Failure(status=503))
    assert post(turning.origin, "/v1/chat/completions", chat(EASY)).header("x-routellm-failover") == "weak"


def test_an_error_of_strong_after_a_refusal_is_passed_on(start):
    place = start(accept=lambda answer: False, failover=True)
    place.strong.fail_next(Failure(status=500, message="strong is down"))
    reply = post(place.origin, "/v1/chat/completions", chat(EASY))
    assert (reply.status, reply.json()["error"]["message"]) == (500, "strong is down")


def test_tools_and_probabilities_are_seen(start):
    seen = []
    place = start(accept=lambda answer: seen.append(answer) or True)
    place.weak.reply_next(ChatReply(tool_calls=[("add", {"a": 1})]), ChatReply(tool_calls=[("add", {"a": 1})]))
    for stream in (False, True):
        post(place.origin, "/v1/chat/completions", {**chat(EASY), "stream": stream})
    for answer in seen:
        assert answer.tool_calls == (("add", '{"a": 1}'),)
        assert answer.finish_reason == "tool_calls"
