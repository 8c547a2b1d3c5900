"""Chatbot Arena battles as published in 33k, 55k, 100k and 140k rows: turns as lists, the winner as name or flags."""

from __future__ import annotations

import json
from collections.abc import Sequence

from routellm_core.data.chats import parsed, user_turns
from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, row_by_row
from routellm_core.data.forms.values import id_of

_FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")
_CONVERSATIONS = ("conversation_a", "conversation_b", "full_conversation")
_UNLABELLED = ("prompt", "response_a", "response_b")
_BATTLE = ("model_a", "model_b", "winner")


def _matches(rows: Sequence[Row]) -> bool:
    return any(_is_arena(row) for row in rows)


def _is_arena(row: Row) -> bool:
    return (
        any(flag in row for flag in _FLAGS)
        or ("conversation_a" in row and "model_a" in row)
        # the unlabelled half of the 55k rows
        or (all(_is_list(row.get(name)) for name in _UNLABELLED) and "winner" not in row)
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.startswith('["'))


def _translated(row: Row) -> Row:
    if not _is_arena(row):
        return row
    out: Row = {"prompt": _prompt(row)}
    if (name := id_of(row)) is not None:
        out["id"] = name
    out |= {name: row[name] for name in (*_BATTLE, "source", "weight") if name in row}
    if any(flag in row for flag in _FLAGS):
        won = [name for name in _FLAGS if _flag(name, row.get(name))]
        if len(won) != 1:
            raise BadRowError(f"fields {', '.join(_FLAGS)}: expected exactly one of them to be 1, got {len(won)}")
        out["winner"] = won[0].removeprefix("winner_")
    return out


def _prompt(row: Row) -> str:
    """The first turn of the user, wherever the rows of a version have it."""
    if "prompt" not in row:
        name = next((name for name in _CONVERSATIONS if row.get(name)), None)
        if name is None:
            raise BadRowError("field 'prompt': missing")
        value = parsed(row[name])
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, dict) and "user" in first:  # full_conversation of the 140k rows
            value = [first["user"]]
        if not (turns := user_turns(value)):
            raise BadRowError(f"field {name!r}: expected messages with one of the user, got {kind_of(value)}")
        return turns[0]
    prompt = row["prompt"]
    if isinstance(prompt, str):
        try:
            prompt = json.loads(prompt)
        except (ValueError, RecursionError):
            raise BadRowError("field 'prompt': expected a JSON list of user turns, as in the Arena files") from None
    if not isinstance(prompt, list) or not prompt:
        raise BadRowError(
            f"field 'prompt': expected a list of at least one user turn, as in the Arena files, got {kind_of(prompt)}"
        )
    if not isinstance(prompt[0], str):
        raise BadRowError(f"field 'prompt': expected a text as the first turn, got {kind_of(prompt[0])}")
    return prompt[0]


def _flag(name: str, value: object) -> bool:
    if value not in (None, 0, 1, "0", "1", "", "0.0", "1.0"):  # True and 1.0 equal 1
        got = f"{value!r:.40}" if isinstance(value, str | int | float) else kind_of(value)
        raise BadRowError(f"field {name!r}: expected 0 or 1, got {got}")
    return value in (1, "1", "1.0")


ARENA = Form(
    name="arena",
    title="Chatbot Arena battles (lmsys 33k, 55k, 100k and 140k rows): turns as lists, the winner as name or flags",
    fields=(*_FLAGS, "conversation_a", "conversation_b", "response_a", "response_b"),
    matches=_matches,
    holds=("prompts", "preferences"),
    rows=row_by_row(_translated),
)
