"""The project's own rows with the prompt, the scores or the answers under another name, such as question + scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form, row_by_row
from routellm_core.data.forms.values import (
    GOLD_NAMES,
    PROMPT_NAMES,
    first_of,
    id_of,
    kept,
    most,
    name_of,
    opening,
    prompt_of,
    score_of,
    text_of,
)
from routellm_core.data.forms.wide import put_object

_SCORES = ("scores", "model_scores", "performances", "results", "ratings", "rewards")
_ANSWERS = ("answers", "responses", "model_responses", "model_answers", "outputs", "completions", "generations")
_BATTLE = {"model_a", "model_b", "winner"}


def _mapping(row: Row, names: Sequence[str]) -> str | None:
    name = name_of(row, names)
    if name is None:
        return None
    value = parsed(row[name])
    return name if isinstance(value, dict) and all(isinstance(key, str) for key in value) else None


def _is_about_models(values: dict[str, Any]) -> bool:
    """Whether each model has an object of its own: {"gpt-4o": {"score": 1, "cost": 0.1}}."""
    return most(list(values.values()), lambda value: isinstance(value, dict))


def _matches(rows: Sequence[Row]) -> bool:
    def renamed(row: Row) -> bool:
        held = _mapping(row, _SCORES) or _mapping(row, _ANSWERS)
        own = "prompt" in row or "turns" in row
        if row.keys() >= _BATTLE:
            return not own and name_of(row, PROMPT_NAMES) is not None
        if held is None or name_of(row, PROMPT_NAMES) is None:
            return False
        if isinstance(row.get("prompt"), dict) and opening(row["prompt"]) is None:
            return False  # a table in one object
        return not (own and held in ("scores", "answers")) or _is_about_models(parsed(row[held]))

    return most(rows, renamed)


def _translated(row: Row) -> Row:
    out = kept(row, "costs", "tokens", *_BATTLE)
    out["prompt"] = prompt_of(row)
    if (name := id_of(row)) is not None:
        out["id"] = name
    if (gold := first_of(row, GOLD_NAMES)) is not None:
        out["gold"] = gold
    if (field := _mapping(row, _SCORES)) is not None:
        scores = parsed(row[field])
        if _is_about_models(scores):
            held: Row = {"scores": {}, "answers": {}, "costs": {}, "tokens": {}}
            for model, value in scores.items():
                put_object(held, model, value)
            out |= {name: value for name, value in held.items() if name == "scores" or value}
        else:
            found = {model: score_of(value, f"{field}.{model}") for model, value in scores.items()}
            out["scores"] = {model: score for model, score in found.items() if score is not None}
    if (field := _mapping(row, _ANSWERS)) is not None:
        texts = {model: text_of(value, f"{field}.{model}") for model, value in parsed(row[field]).items()}
        out["answers"] = {model: text for model, text in texts.items() if text is not None}
    return out


RENAMED = Form(
    name="renamed",
    title="scores, answers or battles in the project's form, with the prompt under another name (question + scores), "
    "or an object per model",
    fields=("question", "scores"),
    matches=_matches,
    holds=("prompts", "answers", "scores", "preferences", "costs"),
    rows=row_by_row(_translated),
    plain=True,
)
