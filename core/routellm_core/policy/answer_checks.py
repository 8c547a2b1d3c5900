"""Ready-made checks of a weak answer, for ``accept=``: each is called with a `WeakAnswer`, or makes such a function."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from typing import Any, TypeAlias

from routellm_core.checks import checked_count, checked_fraction, is_number, shown
from routellm_core.errors import ConfigurationError, MissingExtraError
from routellm_core.policy.acceptance import Acceptance, RefusedAnswerError, WeakAnswer
from routellm_core.policy.refusals import refuses

Check: TypeAlias = Callable[[WeakAnswer], Any]
CheckWithMessages: TypeAlias = Callable[[WeakAnswer, Any], Any]

# OpenAI, Anthropic, Google, Ollama and others; upper case in some
_CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "incomplete", "model_length"})
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL | re.IGNORECASE)
_UNSURE = re.compile(
    r"\b(?:i(?:\s+am|['’]m)\s+(?:really\s+)?(?:not\s+(?:entirely\s+|completely\s+|really\s+|quite\s+)?|un)(?:sure|certain)"
    r"|i\s+(?:do\s+not|don['’]t)\s+(?:really\s+)?know|i\s+might\s+be\s+wrong|i\s+could\s+be\s+wrong"
    r"|i(?:['’]m|\s+am)\s+(?:just\s+)?guessing|my\s+best\s+guess|hard\s+to\s+say|no\s+idea)\b",
    re.IGNORECASE,
)
_CONFIDENCE = re.compile(r"\bconfidence\b[^\d\n]{0,20}(\d+(?:\.\d+)?|\.\d+)\s*(%|/\s*(\d+))?", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_SCORE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)(?![\d.]*\d)")
_PLACE = re.compile(r"\{question\}|\{answer\}")
_JUDGE = """Does the answer below answer the question correctly and completely? Reply with one number from 0 (no) to \
10 (yes, fully) and nothing else.

Question:
{question}

Answer:
{answer}"""


def not_empty(answer: WeakAnswer) -> bool:
    """Whether an answer has text or calls a tool."""
    return bool(answer.text.strip() or answer.tool_calls)


def not_cut_off(answer: WeakAnswer) -> bool:
    """Whether an answer has not run into its limit of tokens."""
    return (answer.finish_reason or "").lower() not in _CUT_OFF


def no_refusal(answer: WeakAnswer) -> bool:
    """Whether an answer does not say that its author cannot or will not answer; a call of a tool never does."""
    return bool(answer.tool_calls) or not refuses(answer.text)


def valid_json(answer: WeakAnswer) -> bool:
    """Whether the text is JSON, in a fence of Markdown or without one."""
    return _parsed(answer.text) is not _NOTHING


def valid_schema(schema: Mapping[str, Any] | type) -> Check:
    """Make a check that the text is JSON of a schema.

    Args:
        schema: A pydantic model, or a JSON schema (needs the package ``jsonschema``).
    """
    validate = getattr(schema, "model_validate", None)
    if validate is not None:
        return lambda answer: (found := _parsed(answer.text)) is not _NOTHING and _passes(validate, found)
    if not isinstance(schema, Mapping):
        raise ConfigurationError(f"valid_schema({shown(schema)}): expected a pydantic model or a JSON schema")
    try:
        import jsonschema  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise MissingExtraError("valid_schema with a JSON schema", "schema") from None
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    made = validator(schema)
    return lambda answer: (found := _parsed(answer.text)) is not _NOTHING and bool(made.is_valid(found))


def confident(at_least: float = 0.7) -> Check:
    """Make a check of what the model says of its own certainty.

    A line such as ``Confidence: 80 %`` (or 0.8, or 8/10) counts as it stands, so ask for one in the prompt; without
    one, words such as "I'm not sure" count as 0, and their absence as 1.

    Args:
        at_least: Least confidence, in [0, 1].
    """
    least = checked_fraction(at_least, "at_least")

    def check(answer: WeakAnswer) -> bool:
        stated = _CONFIDENCE.findall(answer.text)
        if not stated:
            return _UNSURE.search(answer.text) is None
        number, unit, of = stated[-1]
        value = float(number)
        if unit == "%" or (not unit and value > 1):
            value /= 100
        elif of:
            value /= float(of) or 1.0
        return value >= least

    return check


def mean_logprob(at_least: float = -0.5) -> Check:
    """Make a check of the mean log-probability of the answer's tokens, where the provider gives them.

    Ask for them (``logprobs=True`` with OpenAI's API); an answer without any is not accepted.

    Args:
        at_least: Least mean, natural logarithm; -0.5 is a geometric mean probability of .61.
    """
    if not is_number(at_least) or at_least > 0:
        raise ConfigurationError(f"at_least={shown(at_least)}: expected a mean log-probability <= 0")
    return lambda answer: bool(answer.logprobs) and sum(answer.logprobs) / len(answer.logprobs) >= at_least  # type: ignore[arg-type]


def agrees_with(sample: Callable[..., Any], at_least: float = 0.6) -> CheckWithMessages:
    """Make a check that asks once more: two samples that agree are right more often than two that do not.

    Args:
        sample: Gets the messages and returns another answer's text, such as ``lambda m: weak.invoke(m).content``; may
            be a coroutine function. It costs another weak call.
        at_least: Least agreement, in [0, 1]: the share of words, in order, that the two texts have in common. Numbers
            at their ends that differ count as no agreement.
    """
    least = checked_fraction(at_least, "at_least")

    def judge(first: str, second: str) -> bool:
        ends = [_SCORE.findall(text)[-1:] for text in (first, second)]
        if ends[0] and ends[1] and float(ends[0][0]) != float(ends[1][0]):
            return False
        words = [_WORD.findall(text.lower()) for text in (first, second)]
        return bool(SequenceMatcher(None, words[0], words[1], autojunk=False).ratio() >= least)

    async def later(answer: WeakAnswer, found: Any) -> bool:
        return judge(answer.text, str(await found))

    def check(answer: WeakAnswer, messages: Any) -> Any:
        found = sample(messages)
        return later(answer, found) if inspect.isawaitable(found) else judge(answer.text, str(found))

    return check


def judged_by(
    ask: Callable[[str], Any], question_of: Callable[[Any], str], *, prompt: str = _JUDGE
) -> CheckWithMessages:
    """Make a check that another model does: its score, 0 to 10, as a number in [0, 1] for ``accept_threshold``.

    Args:
        ask: Sends a text to the judge and returns the text of its answer; may be a coroutine function.
        question_of: Finds the question in the messages, such as ``lambda m: m[-1].content``.
        prompt: What the judge is asked, with ``{question}`` and ``{answer}``.
    """

    async def later(found: Any) -> float:
        return _score(str(await found))

    def check(answer: WeakAnswer, messages: Any) -> Any:
        parts = {"{question}": question_of(messages), "{answer}": answer.text}
        found = ask(_PLACE.sub(lambda place: parts[place[0]], prompt))  # at once: a part may hold such a place itself
        return later(found) if inspect.isawaitable(found) else _score(str(found))

    return check


def all_of(*checks: Callable[..., Any], threshold: float = 0.5) -> CheckWithMessages:
    """Make a check that is passed when all of several are, asked in order; the first that fails ends it.

    Args:
        *checks: The checks, the cheap ones first, synchronous or not.
        threshold: A score of at least this passes.
    """
    checked_count(len(checks), "the number of checks")
    parts = [Acceptance.of(check, threshold=threshold) for check in checks]

    async def check(answer: WeakAnswer, messages: Any) -> bool:
        try:
            for part in parts:
                assert part is not None
                await part.aexamine(answer, messages)
        except RefusedAnswerError:
            return False
        return True

    return check


_NOTHING = object()


def _parsed(text: str) -> Any:
    fenced = _FENCE.match(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return _NOTHING


def _passes(validate: Callable[[Any], Any], value: Any) -> bool:
    try:
        validate(value)
    except ValueError:
        return False
    return True


def _score(text: str) -> float:
    found = _SCORE.search(text)
    if found is None:
        raise ValueError("the judge gave no number")
    return min(float(found[1]) / 10, 1.0)
