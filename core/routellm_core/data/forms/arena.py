"""Chatbot Arena battles as published in 55k rows: prompts as JSON lists, the winner as three flags."""

from __future__ import annotations

import json
from collections.abc import Sequence

from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, row_by_row

_FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")


def _matches(rows: Sequence[Row]) -> bool:
    return any(flag in row for row in rows for flag in _FLAGS)


def _translated(row: Row) -> Row:
    if not any(flag in row for flag in _FLAGS):
        return row
    prompt = row.get("prompt")
    if prompt is None:
        raise BadRowError("field 'prompt': missing")
    if isinstance(prompt, str):
        try:
            prompt = json.loads(prompt)
        except (ValueError, RecursionError):
            raise BadRowError("field 'prompt': expected a JSON list of user turns, as in the Arena files") from None
    if not isinstance(prompt, list) or not prompt:
        raise BadRowError(
            f"field 'prompt': expected a list of at least one user turn, as in the Arena files, got {kind_of(prompt)}"
        )
    won = [name for name in _FLAGS if _flag(name, row.get(name))]
    if len(won) != 1:
        raise BadRowError(f"fields {', '.join(_FLAGS)}: expected exactly one of them to be 1, got {len(won)}")
    return {**row, "prompt": prompt[0], "winner": won[0].removeprefix("winner_")}


def _flag(name: str, value: object) -> bool:
    if value not in (None, 0, 1, "0", "1", "", "0.0", "1.0"):  # True and 1.0 equal 1
        got = f"{value!r:.40}" if isinstance(value, str | int | float) else kind_of(value)
        raise BadRowError(f"field {name!r}: expected 0 or 1, got {got}")
    return value in (1, "1", "1.0")


ARENA = Form(
    name="arena",
    title="Chatbot Arena battles with prompts as lists of turns and flags for the winner (lmsys, 55k)",
    fields=_FLAGS,
    matches=_matches,
    rows=row_by_row(_translated),
)
