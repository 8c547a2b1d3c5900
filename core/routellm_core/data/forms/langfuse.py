"""Observations and traces of a Langfuse export; of the steps of a trace, only the generations are read."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form
from routellm_core.data.forms.opentelemetry import texts_of_span


def _is_observation(row: Row) -> bool:
    return "type" in row and ("traceId" in row or "trace_id" in row)


def _matches(rows: Sequence[Row]) -> bool:
    return any(_is_observation(row) or "observations" in row for row in rows)


def _prompts(row: Row) -> list[str]:
    kind = row["type"] if _is_observation(row) else ""
    kind = kind.lower() if isinstance(kind, str) else ""
    if kind != "generation":  # other steps would count the same prompt again
        observations = row.get("observations")
        # lists of traces give only the ids of their observations; the trace itself is read then
        inner = [item for item in observations if isinstance(item, dict)] if isinstance(observations, list) else []
        if inner:
            return [text for item in inner for text in _prompts(item)]
        if kind:
            return []
    return texts_of_span(row)


LANGFUSE = Form(
    name="langfuse",
    title="Langfuse observations of type GENERATION, or traces",
    fields=("traceId", "trace_id", "observations"),
    matches=_matches,
    holds=("prompts",),
    prompts=_prompts,
)
