"""The records of preference data: battles, outcomes, and answers that wait for a label."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, field_validator

Winner = Literal["model_a", "model_b", "tie"]
# What the versions of the Arena call a tie of two bad answers.
_TIES = {"tie", "tie (bothbad)", "both_bad", "bothbad", "tie (both bad)", "both bad", "tie (inconsistent)"}
_SURROGATE = re.compile("[\ud800-\udfff]").search


def _text(value: Any) -> Any:
    """Accept numbers as text: identifiers and gold answers are often written that way. Booleans are not converted."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _accepted(value: Any) -> Any:
    """Read true and false as answers, and the JSON text of a list as that list: a CSV cell can hold only text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and value.startswith("["):
        try:
            items = json.loads(value)
        except ValueError:
            return value
        # [1, 2] may be an answer itself
        return items if isinstance(items, list) and items and all(isinstance(item, str) for item in items) else value
    return value


def _well_formed(value: Any) -> Any:
    # Published chats contain halves of surrogate pairs. Two matching halves are joined and a lone one becomes U+FFFD,
    # so that every text can be written as UTF-8.
    if isinstance(value, str) and not value.isascii() and _SURROGATE(value):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _without_missing(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _verdict(value: Any) -> Any:
    """Read the words true and false, which a CSV cell holds, as verdicts."""
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


String = Annotated[StrictStr, BeforeValidator(_well_formed)]
Model = Annotated[String, Field(min_length=1)]
Text = Annotated[String, BeforeValidator(_text)]
Prompt = Annotated[String, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Money = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
TokenCount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Tokens(BaseModel):
    """Tokens of one call.

    Attributes:
        input: Tokens that went in; None where it is not known.
        output: Tokens that came out; None where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    input: TokenCount | None = None
    output: TokenCount | None = None


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    prompt: Prompt
    id: Text | None = None
    source: String | None = None
    weight: Weight = 1.0
    costs: Annotated[dict[Model, Money], BeforeValidator(_without_missing)] = Field(default_factory=dict)
    tokens: Annotated[dict[Model, Tokens], BeforeValidator(_without_missing)] = Field(default_factory=dict)

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank")
        return value


class Battle(_Record):
    """Two models answered one prompt; one answer was preferred, or neither was.

    Attributes:
        prompt: What was asked: a non-blank string.
        model_a: Name of the first model.
        model_b: Name of the second model; it must differ from `model_a`.
        winner: ``"model_a"``, ``"model_b"`` or ``"tie"`` (also ``"tie (bothbad)"`` and the like, as the Arena writes; a
            winner may also be the name of its model).
        id: Identifier of the row, for reports.
        source: Where the row comes from; training can weight sources.
        weight: How much the row counts, >= 0.
        costs: What the call of each model cost, in one currency for all; only models whose cost is known.
        tokens: Tokens that the call of each model used, if known.
    """

    model_a: Model
    model_b: Model
    winner: Winner

    @field_validator("winner", mode="before")
    @classmethod
    def _side(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, str) or value in ("model_a", "model_b"):
            return value
        if value.strip().lower() in _TIES:
            return "tie"
        return next((side for side in ("model_a", "model_b") if value == info.data.get(side)), value)

    @field_validator("model_b")
    @classmethod
    def _another_model(cls, value: str, info: Any) -> str:
        if value == info.data.get("model_a"):
            raise ValueError("is the same as model_a: a model does not battle itself")
        return value


class Outcome(_Record):
    """How well each of several models answered one prompt.

    Attributes:
        prompt: What was asked: a non-blank string.
        scores: Score of each model, at least one. Higher is better; any unit will do, as long as all scores share it.
            true and false count as 1 and 0, and null as unknown.
        id: Identifier of the row, for reports.
        source: Where the row comes from; training can weight sources.
        weight: How much the row counts, >= 0.
        costs: What the call of each model cost, in one currency for all; only models whose cost is known.
        tokens: Tokens that the call of each model used, if known.
        accepted: What a check says of the weak model's answer, for the evaluation of a cascade: a score, true counting
            as 1 and false as 0; None if it is not known.
    """

    scores: Annotated[dict[Model, Number], BeforeValidator(_without_missing), Field(min_length=1)]
    accepted: Annotated[Number | None, BeforeValidator(_verdict)] = None


class AnsweredPrompt(_Record):
    """A prompt with the models' answers (and, for gold labels, the correct one) that is yet to be labelled.

    Attributes:
        prompt: What was asked: a non-blank string.
        answers: Answer of each model; may be empty if the labeller is to generate them.
        gold: The correct answer: a letter, a number, a date or a text; or several accepted ones (in a file a list, or
            the JSON text of a list of strings).
        id: Identifier of the row, for reports.
        source: Where the row comes from.
        weight: Passed on to the label.
        costs: What the call of each model cost, in one currency for all; only models whose cost is known.
        tokens: Tokens that the call of each model used, if known.
    """

    answers: Annotated[dict[Model, String], BeforeValidator(_without_missing)] = Field(default_factory=dict)
    gold: Annotated[Text | tuple[Text, ...], BeforeValidator(_accepted)] | None = None


Record: TypeAlias = Battle | Outcome
