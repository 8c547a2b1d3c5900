"""Ready-made checks of weak answers."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from routellm_core import ConfigurationError
from routellm_core.policy import answer_checks as checks
from routellm_core.policy.acceptance import Acceptance, Cascade, RefusedAnswerError, WeakAnswer


class Person(BaseModel):
    name: str
    age: int


def passes(check, answer, messages="What is 6 * 7?", threshold=0.5) -> bool:
    """As a route asks it."""
    acceptance = Acceptance.of(check, threshold=threshold)
    try:
        Cascade(acceptance, lambda given: given, messages).examine(answer)  # type: ignore[arg-type]
    except RefusedAnswerError as exc:
        if exc.detail is not None:  # the check itself failed
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("check", "answer", "good"),
    [
        (checks.not_empty, WeakAnswer("a"), True),
        (checks.not_empty, WeakAnswer(" \n"), False),
        (checks.not_empty, WeakAnswer("", (("f", {}),)), True),
        (checks.not_cut_off, WeakAnswer("a", finish_reason="stop"), True),
        (checks.not_cut_off, WeakAnswer("a"), True),
        (checks.not_cut_off, WeakAnswer("a", finish_reason="length"), False),
        (checks.not_cut_off, WeakAnswer("a", finish_reason="MAX_TOKENS"), False),
        (checks.no_refusal, WeakAnswer("The capital is Paris."), True),
        (checks.no_refusal, WeakAnswer("I'm sorry, but I can't help with that."), False),
        (checks.no_refusal, WeakAnswer("I cannot answer.", (("search", {}),)), True),
        (checks.valid_json, WeakAnswer('{"a": 1}'), True),
        (checks.valid_json, WeakAnswer('```json\n{"a": 1}\n```'), True),
        (checks.valid_json, WeakAnswer("null"), True),
        (checks.valid_json, WeakAnswer('Here it is: {"a": 1}'), False),
        (checks.valid_json, WeakAnswer("[" * 100_000), False),
        (checks.valid_schema(Person), WeakAnswer('{"name": "A", "age": 3}'), True),
        (checks.valid_schema(Person), WeakAnswer('{"name": "A"}'), False),
        (checks.confident(), WeakAnswer("It is 42."), True),
        (checks.confident(), WeakAnswer("I am not entirely sure, but 42."), False),
        (checks.confident(), WeakAnswer("42. Confidence: 90%"), True),
        (checks.confident(), WeakAnswer("42. Confidence: 0.4"), False),
        (checks.confident(0.4), WeakAnswer("42. **Confidence:** 0.4"), True),
        (checks.confident(), WeakAnswer("confidence 6/10"), False),
        (checks.mean_logprob(), WeakAnswer("a", logprobs=(-0.1, -0.2)), True),
        (checks.mean_logprob(), WeakAnswer("a", logprobs=(-0.1, -2.0)), False),
        (checks.mean_logprob(), WeakAnswer("a"), False),
    ],
)
def test_a_check(check, answer, good):
    assert passes(check, answer) is good


def test_a_json_schema():
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema
    check = checks.valid_schema({"type": "object", "required": ["a"]})
    assert passes(check, WeakAnswer('{"a": 1}'))
    assert not passes(check, WeakAnswer("{}"))


def test_two_samples_agree_or_do_not():
    assert passes(checks.agrees_with(lambda messages: "The answer is 42."), WeakAnswer("the answer is 42"))
    assert not passes(checks.agrees_with(lambda messages: "The answer is 43."), WeakAnswer("The answer is 42."))
    assert not passes(checks.agrees_with(lambda messages: "Birds can fly."), WeakAnswer("Stones fall down."))

    async def again(messages):
        return "The answer is 42."

    assert passes(checks.agrees_with(again), WeakAnswer("The answer is 42."))


def test_a_judge_gives_a_score():
    asked = []

    def judge(text):
        asked.append(text)
        return " 8"

    check = checks.judged_by(judge, lambda messages: messages)
    assert passes(check, WeakAnswer("42 {question}"), "What is 6 * 7? {answer}", threshold=0.8)
    assert not passes(check, WeakAnswer("42"), threshold=0.9)
    assert "What is 6 * 7?" in asked[0]
    assert "42 {question}" in asked[0]
    assert "{answer}" in asked[0]

    async def ajudge(text):
        return "10/10"

    assert passes(checks.judged_by(ajudge, str), WeakAnswer("42"))
    acceptance = Acceptance.of(checks.judged_by(lambda text: "fine", str))
    with pytest.raises(RefusedAnswerError) as refused:
        acceptance.examine(WeakAnswer("42"), "q")  # type: ignore[union-attr]
    assert refused.value.detail == "ValueError"


def test_all_of_several_ends_at_the_first_that_fails():
    asked = []

    def last(answer):
        asked.append(answer)
        return 0.9

    check = checks.all_of(checks.not_empty, checks.no_refusal, last)
    assert passes(check, WeakAnswer("fine"))
    assert not passes(check, WeakAnswer(""))
    assert len(asked) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: checks.confident(2),
        lambda: checks.mean_logprob(0.5),
        lambda: checks.valid_schema(3),  # type: ignore[arg-type]
        lambda: checks.all_of(),
        lambda: checks.agrees_with(str, at_least=-1),
    ],
)
def test_arguments_are_checked(make):
    with pytest.raises(ConfigurationError):
        make()
