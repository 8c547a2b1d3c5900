"""RouterBench: a wide table with ``MODEL|model_response`` and ``MODEL|total_cost``; a prompt is a list in text."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from contextlib import suppress

from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form
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


ROUTERBENCH = Form(
    name="routerbench",
    title="RouterBench: one column of scores per model, beside MODEL|model_response and MODEL|total_cost",
    fields=("sample_id", "prompt", "eval_name", "oracle_model_to_route_to"),
    matches=_matches,
    holds=("prompts", "answers", "scores", "costs"),
    rows=wide_rows(lambda row: listed(row.get("prompt"))),
)
