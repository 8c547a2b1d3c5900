"""Preference pairs, chosen and rejected, whose rows name the models that wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.chats import parsed, user_turns
from routellm_core.data.files import Row
from routellm_core.data.forms.base import BadRowError, Form, row_by_row
from routellm_core.data.forms.values import (
    first_of_transcript,
    id_of,
    is_transcript,
    kept,
    most,
    name_of,
    name_text,
    prompt_of,
    score_of,
)

_SIDES = ("chosen", "rejected")


def _names(side: str, what: str) -> tuple[str, ...]:
    return (f"{side}_{what}", f"{side}.{what}", f"{what}_{side}", f"{side}_{what}_name")


def _matches(rows: Sequence[Row]) -> bool:
    return most(rows, lambda row: {"chosen", "rejected"} <= row.keys() or _model_name(row, "chosen") is not None)


def _model_name(row: Row, side: str) -> str | None:
    return name_of(row, _names(side, "model"))


def _model(row: Row, side: str) -> str:
    if (name := _model_name(row, side)) is not None:
        return name_text(row[name], name)
    value = parsed(row.get(side))
    if isinstance(value, dict) and value.get("model") is not None:
        return name_text(value["model"], f"{side}.model")
    raise BadRowError(
        f"field {f'{side}_model'!r}: missing; a router compares two models, so a pair must name who wrote each answer"
    )


def _prompt(row: Row) -> str | None:
    """The prompt, or else the first turn of the user in the chosen conversation, be it messages or a transcript."""
    prompt = prompt_of(row)
    if prompt is None:
        chosen = parsed(row.get("chosen"))
        prompt = chosen if is_transcript(chosen) else next(iter(user_turns(chosen)), None)
    return first_of_transcript(prompt)


def _prompts(row: Row) -> list[str]:
    """Pairs that do not name their models hold prompts nevertheless."""
    try:
        prompt = _prompt(row)
    except BadRowError:
        return []
    return [] if prompt is None else [prompt]


def _translated(row: Row) -> Row:
    chosen, rejected = (_model(row, side) for side in _SIDES)
    prompt = _prompt(row)
    if prompt is None:
        raise BadRowError("field 'prompt': missing")
    ratings = []
    for side in _SIDES:
        names = (*_names(side, "rating"), *_names(side, "score"), f"score_{side}")
        name = name_of(row, names)
        ratings.append(None if name is None else score_of(row[name], name))
    tie = ratings[0] is not None and ratings[0] == ratings[1]
    out = {"prompt": prompt, "model_a": chosen, "model_b": rejected, "winner": "tie" if tie else "model_a"}
    if (name := id_of(row)) is not None:
        out["id"] = name
    return out | kept(row)


PAIRS = Form(
    name="pairs",
    title="preference pairs: chosen and rejected answers with chosen_model and rejected_model",
    fields=("chosen", "rejected", "chosen_model", "rejected_model"),
    matches=_matches,
    holds=("prompts", "preferences"),
    rows=row_by_row(_translated),
    prompts=_prompts,
)
