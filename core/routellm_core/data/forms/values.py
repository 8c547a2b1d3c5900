"""What the forms share: the usual names of fields, and how the values under them are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from routellm_core.data.chats import content_text, parsed, routed, user_turns
from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError

# Names of a question, which no other field has.
QUESTION_NAMES = (
    "question",
    "query",
    "origin_query",
    "instruction",
    "user_prompt",
    "user_input",
    "user_query",
    "user_message",
    "prompt_text",
    "problem",
)
# LLMRouterBench has both: the question as it was asked, and the prompt that was made of it.
PROMPT_NAMES = ("origin_query", "prompt", *QUESTION_NAMES, "input", "text", "turns", "messages", "conversation")
ID_NAMES = (
    "id",
    "prompt_id",
    "question_id",
    "sample_id",
    "instance_id",
    "global_index",
    "custom_id",
    "doc_id",
    "uid",
    "example_id",
    "idx",
    "index",
    "key",
)
MODEL_NAMES = (
    "model",
    "model_name",
    "llm",
    "llm_name",
    "llm_selected",
    "model_id",
    "model_slug",
    "generator",
    "provider_model",
    "deployment",
)
SCORE_NAMES = (
    "score",
    "performance",
    "correct",
    "is_correct",
    "correctness",
    "accuracy",
    "acc",
    "exact_match",
    "reward",
    "quality",
    "rating",
    "grade",
    "eval_score",
    "passed",
    "label",
)
ANSWER_NAMES = (
    "response",
    "answer",
    "output",
    "completion",
    "generated_answer",
    "generation",
    "prediction",
    "model_response",
    "model_answer",
    "model_output",
    "raw_output",
)
GOLD_NAMES = (
    "gold",
    "ground_truth",
    "golden_answer",
    "gold_answer",
    "correct_answer",
    "reference_answer",
    "expected_answer",
    "expected_output",
    "expected",
    "target",
    "reference",
    "solution",
)
COST_NAMES = ("cost", "total_cost", "inference_cost", "cost_usd", "total_price", "price", "spend")
INPUT_TOKEN_NAMES = ("input_tokens", "prompt_tokens", "num_input_tokens", "n_input_tokens", "tokens_in")
OUTPUT_TOKEN_NAMES = ("output_tokens", "completion_tokens", "num_output_tokens", "n_output_tokens", "tokens_out")

_Item = TypeVar("_Item")
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
# The name of a model that neither its rows nor the user says.
UNNAMED = ""

_WORDS = {
    **dict.fromkeys(("true", "yes", "correct", "right", "pass", "passed"), 1.0),
    **dict.fromkeys(("false", "no", "incorrect", "wrong", "fail", "failed"), 0.0),
}
_COMMA = re.compile(r"[+-]?\d+,\d+")
_MONEY = re.compile(r"(?:US)?[$€£¥] ?([\d.eE+-]+)|([\d.eE+-]+) ?(?:[$€£¥]|USD|EUR|GBP)")
_MISSING = ("", "null", "none", "n/a", "na", "-")


def empty(value: Any) -> bool:
    """Whether a field says nothing: null, an empty text or cell, or an empty list or object."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def name_of(row: Row, names: Iterable[str]) -> str | None:
    """The first of some names under which a row has a value; capitals, spaces and hyphens do not count."""
    for name in names:
        if name in row and not empty(row[name]):
            return name
    usual = {_usual(key): key for key in row}
    return next((usual[name] for name in names if name in usual and not empty(row[usual[name]])), None)


def _usual(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def first_of(row: Row, names: Iterable[str]) -> Any:
    """The value under the first of some names that has one; None if none has."""
    name = name_of(row, names)
    return None if name is None else row[name]


def has_any(row: Row, names: Iterable[str]) -> bool:
    """Whether a row has a field of one of these names, as `name_of` has it, but be it empty or not."""
    return not {_usual(key) for key in row}.isdisjoint(names)


def shown(name: str) -> str:
    """A name of a field for a message."""
    return repr(name if len(name) <= 80 else f"{name[:77]}...")


def most(rows: Iterable[_Item], holds: Callable[[_Item], object]) -> bool:
    """Whether something holds for more than half: one ragged row must not hide what the others are."""
    found = [bool(holds(row)) for row in rows]
    return 2 * sum(found) > len(found)


def is_score(value: Any) -> bool:
    """Whether a value may be a score: a number, true or false, or a cell with the text of one."""
    if isinstance(value, str):
        text = value.strip().lower()
        return text in _WORDS or _as_number(text) is not None or _COMMA.fullmatch(text) is not None
    return isinstance(value, bool | int | float)


def is_amount(value: Any) -> bool:
    """Whether a value may be a cost or a count: a number, or a cell with the text of one, also with a currency."""
    return is_score(_without_currency(value))


def kept(row: Row, *names: str) -> Row:
    """The fields that are kept as they are: these, ``weight``, and ``source``, of several sources the first."""
    found = {name: row[name] for name in ("source", "weight", *names) if not empty(row.get(name))}
    if isinstance(sources := found.get("source"), list):
        found["source"] = sources[0]  # the rows of Nectar list theirs
    return found


def score_of(value: Any, field: str) -> float | None:
    """A score: a finite number, true and false as 1 and 0; None where a cell is empty or null.

    Raises:
        BadRowError: Anything else; the message names the field.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _MISSING:
            return None
        number = _WORDS.get(text)
        number = _as_number(text) if number is None else number
    elif value is None:
        return None
    else:
        number = _as_number(value) if isinstance(value, bool | int | float) else None
    if number is None or not math.isfinite(number):
        raise BadRowError(f"field {shown(field)}: expected a score (a finite number, true or false), got {_got(value)}")
    return number


def amount_of(value: Any, field: str) -> float | None:
    """A cost or a count of tokens: a finite number >= 0; None where a cell is empty or null.

    Raises:
        BadRowError: Anything else; the message names the field.
    """
    number = None if isinstance(value, bool) else score_of(_without_currency(value), field)
    if isinstance(value, bool) or (number is not None and number < 0):
        raise BadRowError(f"field {shown(field)}: expected a number >= 0, got {_got(value)}")
    return number


def text_of(value: Any, field: str) -> str | None:
    """A text, or the text of a message or of the first of several samples; None where there is none.

    Raises:
        BadRowError: It is no text; the message names the field.
    """
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list):
        first = value[0] if value else None
        if isinstance(first, str | list):
            return text_of(first, field)
        if isinstance(first, dict) and "role" not in first:
            return content_text(value)
        spoken = [item for item in value if isinstance(item, dict) and item.get("role") in ("assistant", "ai", "gpt")]
        return content_text(spoken[-1].get("content")) if spoken else None
    if isinstance(value, dict):
        inner = first_of(value, ("content", "text", "value", "output", "message"))
        if inner is not None:
            return text_of(inner, field)
        return None
    raise BadRowError(f"field {shown(field)}: expected a text, got {kind_of(value)}")


def model_of(row: Row, model: str | None, names: Sequence[str] = MODEL_NAMES) -> str:
    """The model that a row is about: as the user names it, else as the row does; `UNNAMED` if neither does.

    Raises:
        BadRowError: What stands there is no name; the message names the field.
    """
    if model is not None:
        return model
    name = name_of(row, names)
    return UNNAMED if name is None else name_text(row[name], name)


def name_text(value: Any, field: str) -> str:
    """The name of a model, also out of an object with its ``id`` or ``name``.

    Raises:
        BadRowError: It is no name; the message names the field.
    """
    if isinstance(value, dict):
        value = first_of(value, ("label", "id", "name", "model"))
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**12:
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise BadRowError(f"field {shown(field)}: expected the name of a model, got {kind_of(value)}")
    return value.strip()


def opening(value: Any) -> str | None:
    """The text that a labelled prompt is routed on: of messages that wait for an answer the last one of the user, of a
    whole conversation or of turns the first; a text itself."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list) and value:
        turns = user_turns(value)
        if turns:
            last = value[-1]
            waiting = isinstance(last, dict) and str(last.get("role", last.get("from"))).lower() in ("user", "human")
            return turns[-1 if waiting and len(value) > len(turns) else 0]
    return routed(value) or None


def is_transcript(value: Any) -> bool:
    """Whether a text is a conversation as Anthropic wrote them: turns after ``Human:`` and ``Assistant:``."""
    return isinstance(value, str) and value.startswith(_HUMAN)


def first_of_transcript(prompt: str | None) -> str | None:
    """The first turn of the user, if a prompt is a transcript; else the prompt itself."""
    if prompt is None or not is_transcript(prompt):
        return prompt
    return prompt.removeprefix(_HUMAN).partition(_ASSISTANT)[0].partition(_HUMAN)[0].strip()


def prompt_of(row: Row, names: Sequence[str] = PROMPT_NAMES) -> str | None:
    """The prompt of a row under its usual names; None if it has none.

    Raises:
        BadRowError: What stands there is no prompt; the message names the field.
    """
    name = name_of(row, names)
    if name is None:
        return None
    value = row[name]
    if name.lower() in ("turns", "messages", "conversation") or not isinstance(value, str):
        value = parsed(value)
    text = opening(value)
    if text is None:
        raise BadRowError(f"field {shown(name)}: expected a text, turns or messages, got {kind_of(value)}")
    return text


def tokens_of(row: Row) -> dict[str, float]:
    """Tokens of one call by their usual names, as the records have them; of those that are known."""
    found = {}
    for side, names in (("input", INPUT_TOKEN_NAMES), ("output", OUTPUT_TOKEN_NAMES)):
        name = name_of(row, names)
        if name is not None and (count := amount_of(row[name], name)) is not None:
            found[side] = count
    return found


def id_of(row: Row, names: Sequence[str] = ID_NAMES) -> str | None:
    """What names the prompt of a row, as a text; None if nothing does."""
    value = first_of(row, names)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)  # a column of integers with gaps arrives as floats
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def one_models_row(
    row: Row,
    model: str,
    *,
    score: float | None = None,
    answer: str | None = None,
    cost: float | None = None,
    tokens: dict[str, float] | None = None,
) -> Row:
    """A row of the project's own with what is known about one model, beside the `row` with its other fields."""
    out = {key: value for key, value in row.items() if value is not None}
    if score is not None:
        out["scores"] = {model: score}
    if answer is not None:
        out["answers"] = {model: answer}
    if cost is not None:
        out["costs"] = {model: cost}
    if tokens:
        out["tokens"] = {model: tokens}
    return out


def _without_currency(value: Any) -> Any:
    """A cell such as "$0.02" or "1.5 USD" as the text of its number."""
    match = _MONEY.fullmatch(value.strip()) if isinstance(value, str) else None
    return (match[1] or match[2]) if match else value


def _as_number(value: Any) -> float | None:
    if isinstance(value, str) and value.endswith("%"):
        number = _as_number(value[:-1])
        return None if number is None else number / 100
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _got(value: Any) -> str:
    if isinstance(value, str):
        if len(value) > 40:
            return "another text"
        return repr(value) + ("; write decimals with a point" if "," in value else "")
    if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10**12):
        return repr(value)
    return "a number beyond any float" if isinstance(value, int) else kind_of(value)
