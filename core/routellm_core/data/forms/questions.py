"""Questions, with the right answers where they are there: rows whose prompt has another name than the project's."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form, row_by_row
from routellm_core.data.forms.values import (
    GOLD_NAMES,
    QUESTION_NAMES,
    first_of,
    id_of,
    kept,
    most,
    name_of,
    prompt_of,
)

_GOLD = (*GOLD_NAMES, "answer", "answers")


def _matches(rows: Sequence[Row]) -> bool:
    return not any("prompt" in row or "turns" in row for row in rows) and most(
        rows, lambda row: name_of(row, QUESTION_NAMES) is not None
    )


def _translated(row: Row) -> Row:
    out: Row = {"prompt": prompt_of(row, QUESTION_NAMES)}
    if (name := id_of(row)) is not None:
        out["id"] = name
    gold = parsed(first_of(row, _GOLD))
    if isinstance(gold, str | int | float) or (isinstance(gold, list) and all(isinstance(item, str) for item in gold)):
        out["gold"] = gold
    return out | kept(row)


QUESTIONS = Form(
    name="questions",
    title="questions, also with the right answers (question + answer): for label, or beside judgments without prompts",
    fields=("question", "answer"),
    matches=_matches,
    holds=("prompts",),
    rows=row_by_row(_translated),
    plain=True,
)
