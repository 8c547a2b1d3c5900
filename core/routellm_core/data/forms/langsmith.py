"""Runs of a LangSmith export, single or as trees; of the steps of a tree, only the model calls are read."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form
from routellm_core.data.forms.opentelemetry import texts_of_span

# Other steps would count the same prompt again.
_MODEL_RUNS = {"llm", "chat_model"}
_BUNDLES = ("runs", "child_runs")


def _matches(rows: Sequence[Row]) -> bool:
    return any("run_type" in row or not row.keys().isdisjoint(_BUNDLES) for row in rows)


def _prompts(run: Row) -> list[str]:
    kind = run.get("run_type")
    kind = kind.lower() if isinstance(kind, str) else ""
    # the children of a model call repeat it, for example when a wrapper and its client are both traced
    if kind not in _MODEL_RUNS:
        for name in _BUNDLES:
            value = run.get(name)
            if isinstance(value, list) and (inner := [item for item in value if isinstance(item, dict)]):
                return [text for item in inner for text in _prompts(item)]
        if kind:
            return []
    return texts_of_span(run)


LANGSMITH = Form(
    name="langsmith",
    title="LangSmith runs, also as trees and batches: those of type llm",
    fields=("run_type", "inputs", *_BUNDLES),
    matches=_matches,
    holds=("prompts",),
    prompts=_prompts,
)
