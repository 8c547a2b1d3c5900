"""RouterBench: a wide table with ``MODEL|model_response`` and ``MODEL|total_cost``; a prompt is a list in text."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, Located, Problem
from routellm_core.data.forms.values import opening
from routellm_core.data.forms.wide import wide_rows


def listed(value: object, field: str = "prompt") -> str:
    """The first turn of a prompt that is a list, or a list in text as JSON or Python write it; a text itself.

    Raises:
        BadRowError: It is neither, or holds no text.
    """
    if isinstance(value, str) and (written := value.strip()).startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            with suppress(ValueError, SyntaxError, MemoryError):  # else it is a text that begins with a bracket
                value = ast.literal_eval(written)
    text = opening(value)
    if text is None:
        raise BadRowError(f"field {field!r}: expected a text or a list of turns, got {kind_of(value)}")
    return text


def _matches(rows: Sequence[Row]) -> bool:
    return any(name.endswith(("|model_response", "|total_cost")) for row in rows for name in row)


def _rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
    for where, row in wide_rows(lambda row: listed(row.get("prompt")))(located, model):
        if not isinstance(row, Problem) and "answers" in row:
            row = {**row, "answers": {name: _first_answer(text) for name, text in row["answers"].items()}}
        yield where, row


def _first_answer(text: str) -> str:
    """An answer out of a list in text."""
    if not text.startswith(("['", '["')):
        return text
    try:
        return listed(text)
    except BadRowError:
        return text


ROUTERBENCH = Form(
    name="routerbench",
    title="RouterBench: one column of scores per model, beside MODEL|model_response and MODEL|total_cost",
    fields=("sample_id", "prompt", "eval_name", "oracle_model_to_route_to"),
    matches=_matches,
    holds=("prompts", "answers", "scores", "costs"),
    rows=_rows,
)
