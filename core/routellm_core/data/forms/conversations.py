"""Whole conversations of one model: ShareGPT, LMSYS-Chat-1M, WildChat; each turn of the user was a call."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.chats import parsed, user_turns
from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form

_FIELDS = ("conversations", "conversation")


def _matches(rows: Sequence[Row]) -> bool:
    return any(name in row for row in rows for name in _FIELDS)


def _prompts(row: Row) -> list[str]:
    return next((turns for name in _FIELDS if (turns := user_turns(parsed(row.get(name))))), [])


CONVERSATIONS = Form(
    name="conversations",
    title="whole conversations (ShareGPT, LMSYS-Chat-1M, WildChat): every turn of the user",
    fields=_FIELDS,
    matches=_matches,
    holds=("prompts",),
    prompts=_prompts,
)
