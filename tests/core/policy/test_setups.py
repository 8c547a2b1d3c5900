"""What is said of the two sides' models: a server that is down, a model that is not there, one model on both sides."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import openai
import pytest

from routellm_core.policy.setups import (
    FailureNote,
    ModelNames,
    Setup,
    explain,
    failure_note,
    is_on_purpose,
    shown_address,
    without_user_info,
)

REQUEST = httpx.Request("POST", "http://127.0.0.1:8001/v1/chat/completions")
SETUP = Setup("small", "http://user:secret@127.0.0.1:8001/v1?key=secret")


class ResponseError(Exception):  # as Ollama's client has it
    status_code = 404


def status_error(status: int) -> openai.APIStatusError:
    return openai.APIStatusError("prompt text", response=httpx.Response(status, request=REQUEST), body=None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (openai.APIConnectionError(request=REQUEST), "cannot be reached: is it running"),
        (ConnectionError("prompt text"), "cannot be reached: is it running"),
        (httpx.ConnectError("prompt text"), "cannot be reached: is it running"),
        (openai.APITimeoutError(REQUEST), "did not answer in time"),
        (TimeoutError(), "did not answer in time"),
        (httpx.ReadTimeout("prompt text"), "did not answer in time"),
        (status_error(404), "has no model 'small' (HTTP status 404)"),
        (ResponseError(), "has no model 'small' (HTTP status 404)"),
        (status_error(401), "refuses the key"),
        (status_error(403), "refuses the key"),
    ],
)
def test_a_failure_is_explained_by_its_class(error, words):
    note = failure_note(error, "weak", SETUP)
    assert note is not None
    assert words in note
    assert "the weak model" in note or "the server of the weak model" in note
    assert "at http://127.0.0.1:8001/v1" in note
    assert "secret" not in note
    assert "prompt text" not in note
    assert failure_note(error, "strong", None) is not None  # without name and address


@pytest.mark.parametrize(
    "error", [status_error(400), status_error(429), status_error(500), ValueError("x"), KeyError()]
)
def test_other_failures_speak_for_themselves(error):
    assert failure_note(error, "weak", SETUP) is None


def test_an_error_is_explained_once_by_the_innermost():
    error = ConnectionError()
    error.add_note("somebody else's")
    first = explain(error, "weak", lambda _: SETUP)
    assert explain(error, "strong", lambda _: Setup("outer")) is first
    assert [note for note in error.__notes__ if isinstance(note, FailureNote)] == [first]


@pytest.mark.parametrize(
    ("served", "one", "other", "on_purpose"),
    [
        # one model with two efforts, at two addresses
        ("gpt-5-2025-08-07", Setup("gpt-5", None, "high"), Setup("gpt-5", None, "low"), True),
        ("org/qwen3", Setup("qwen3", "http://a"), Setup("qwen3", "http://b"), True),
        # the same twice
        ("gpt-5", Setup("gpt-5", None, "high"), Setup("gpt-5", None, "high"), False),
        # two names, one model
        ("small.gguf", Setup("big", "http://a"), Setup("small", "http://a"), False),
        ("small.gguf", Setup("big", "http://a"), Setup("small", "http://b"), False),
        # a name that says nothing of the model
        ("small.gguf", Setup("default", "http://a"), Setup("default", "http://b"), False),
        ("m", Setup(None), Setup(None), False),
    ],
)
def test_one_model_on_both_sides_may_be_meant(served, one, other, on_purpose):
    assert is_on_purpose(served, one, other) is on_purpose
    assert is_on_purpose(served, other, one) is on_purpose


def warnings_of(caplog: Any, answers: list[tuple[Any, str | None]], setups: Any) -> list[str]:
    names = ModelNames()
    with caplog.at_level(logging.WARNING, "routellm_core"):
        for side, name in answers:
            names.answered(side, name, setups)
    return [record.getMessage() for record in caplog.records]


def test_one_model_on_both_sides_is_warned_of_once(caplog):
    setups = {"strong": Setup("big", "http://k:s@a/v1"), "weak": Setup("small", "http://a/v1")}
    answers = [("strong", "m"), ("strong", "m"), ("weak", None), ("weak", "m"), ("weak", "m"), ("strong", "m")]
    (said,) = warnings_of(caplog, answers, setups.__getitem__)
    assert "m, but strong is set up as 'big' at http://a/v1 and weak as 'small' at http://a/v1" in said


@pytest.mark.parametrize("answers", [[("strong", "a"), ("weak", "b"), ("weak", "a")], [("weak", "m"), ("weak", "m")]])
def test_two_models_are_not(caplog, answers):
    assert warnings_of(caplog, answers, lambda _: Setup("x")) == []


def test_after_many_answers_without_a_name_nobody_looks_any_more():
    names = ModelNames()
    for _ in range(999):
        names.answered("weak", None, lambda _: None)
    assert not names.is_settled
    names.answered("weak", None, lambda _: None)
    assert names.is_settled


def test_a_side_that_others_may_answer_for_is_not(caplog):
    assert warnings_of(caplog, [("strong", "m"), ("weak", "m")], lambda side: None) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://k:s@a/v1?key=s", "http://a/v1"),
        ("http://k:s@cret@a/v1", "http://a/v1"),
        ("http://k@a", "http://a"),
        ("http://a/@b", "http://a/@b"),
        ("//k:s@a/v1", "//a/v1"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url, shown):
    assert shown_address(url) == shown


def test_user_and_password_leave_every_url_of_a_text():
    text = "http://k:s@a/v1, see http://b?mail=x@y # //not a user@c"
    assert without_user_info(text) == "http://a/v1, see http://b?mail=x@y # //not a user@c"
