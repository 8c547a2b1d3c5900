"""Spans of the Vercel AI SDK (``ai.*``): of a call and its steps in one trace, the prompt counts once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from routellm_core.data.chats import parsed, routed
from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form
from routellm_core.data.forms.opentelemetry import attributes_of, spans_of

_PROMPTS = ("ai.prompt.messages", "ai.prompt")
_STEPS = (".doGenerate", ".doStream")


def _matches(rows: Sequence[Row]) -> bool:
    return any(
        any(name.startswith("ai.") for name in attributes_of(span)) for row in rows for span in spans_of(row)
    ) or any(name in row for row in rows for name in _PROMPTS)


class _Spans:
    """The spans of one file so far."""

    def __init__(self) -> None:
        self._calls: set[Any] = set()  # calls whose prompt was taken
        self._steps: set[Any] = set()  # calls of whose steps the prompt was taken

    def prompts(self, row: Row) -> list[str]:
        return [text for span in spans_of(row) for text in self._of_span(span)]

    def _of_span(self, span: Row) -> list[str]:
        attributes = attributes_of(span) or span
        text = next((text for name in _PROMPTS if (text := routed(parsed(attributes.get(name))))), None)
        if text is None:
            return []
        operation = attributes.get("ai.operationId", span.get("name"))
        parent = _name(span, "parentSpanId", "parent_span_id", "parent_id", "parentId")
        if isinstance(operation, str) and operation.endswith(_STEPS):
            if parent is not None and parent in self._calls:
                return []
            self._steps.add(parent)
            return [text]
        own = _name(span, "spanId", "span_id", "id")
        if own is not None and own in self._steps:
            return []
        self._calls.add(own)
        return [text]


def _name(span: Row, *names: str) -> str | None:
    context = span.get("context")
    places = (span, context) if isinstance(context, dict) else (span,)
    return next((v for place in places for name in names if isinstance(v := place.get(name), str) and v), None)


def _start() -> Callable[[Row], list[str]]:
    return _Spans().prompts


VERCEL = Form(
    name="vercel",
    title="Vercel AI SDK spans (ai.prompt, ai.prompt.messages)",
    fields=_PROMPTS,
    matches=_matches,
    holds=("prompts",),
    prompts=lambda row: _Spans().prompts(row),
    start=_start,
)
