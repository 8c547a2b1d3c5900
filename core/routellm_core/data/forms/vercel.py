"""Spans of the Vercel AI SDK (``ai.*``): of a call and its steps in one trace, the prompt counts once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from routellm_core.data.chats import parsed, routed
from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form
from routellm_core.data.forms.spans import attributes_of, spans_of

_PROMPTS = ("ai.prompt.messages", "ai.prompt")
_STEPS = (".doGenerate", ".doStream")


class VercelCalls:
    """The calls of one file so far: each is a span of its own, and so is each of its steps, in either order."""

    def __init__(self) -> None:
        self._calls: set[Any] = set()  # calls whose prompt was taken
        self._steps: dict[str, set[int]] = {}  # calls of whose steps prompts were taken, and the hashes of those

    def prompts(self, span: Row) -> list[str] | None:
        """Return the routing texts of a span; None if it is not one of the SDK."""
        attributes = attributes_of(span) or span
        if not any(name in attributes for name in _PROMPTS):
            return None
        text = next((text for name in _PROMPTS if (text := routed(parsed(attributes.get(name))))), None)
        if text is None:
            return []
        operation = attributes.get("ai.operationId", span.get("name"))
        if isinstance(operation, str) and operation.endswith(_STEPS):
            call = _id(span, "parentSpanId", "parent_span_id", "parent_id", "parentId")
            if call is None:
                return [text]
            taken = self._steps.setdefault(call, set())
            if call in self._calls or hash(text) in taken:
                return []
            taken.add(hash(text))
            return [text]
        call = _id(span, "spanId", "span_id", "id")
        if call is not None and call in self._steps:
            return []
        self._calls.add(call)
        return [text]


def _id(span: Row, *names: str) -> str | None:
    context = span.get("context")
    places = (span, context) if isinstance(context, dict) else (span,)
    return next((v for place in places for name in names if isinstance(v := place.get(name), str) and v), None)


def _start() -> Callable[[Row], list[str]]:
    calls = VercelCalls()
    return lambda row: [text for span in spans_of(row) for text in calls.prompts(span) or ()]


def _matches(rows: Sequence[Row]) -> bool:
    return any(
        name in attributes
        for row in rows
        for span in spans_of(row)
        for attributes in (attributes_of(span), span)
        for name in _PROMPTS
    )


VERCEL = Form(
    name="vercel",
    title="Vercel AI SDK spans (ai.prompt, ai.prompt.messages)",
    fields=_PROMPTS,
    matches=_matches,
    holds=("prompts",),
    prompts=lambda row: _start()(row),
    start=_start,
)
