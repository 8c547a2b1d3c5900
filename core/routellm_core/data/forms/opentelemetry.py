"""OpenTelemetry spans (OTLP JSON, Tempo, the console exporter) with the attributes of common instrumentations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from routellm_core.data.chats import content_text, parsed, routed, texts_of_call
from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form
from routellm_core.data.forms.spans import BUNDLES, attributes_of, otlp_attributes, spans_of
from routellm_core.data.forms.vercel import VercelCalls

# Attributes that say whether a span is a model call (GenAI, OpenInference, OpenLLMetry); the first one present decides.
_SPAN_KINDS = ("gen_ai.operation.name", "openinference.span.kind", "llm.request.type")
_MODEL_SPANS = {"chat", "text_completion", "generate_content", "llm", "completion"}
_OPENINFERENCE_KINDS = (
    "LLM", "CHAIN", "AGENT", "TOOL", "RETRIEVER", "EMBEDDING", "RERANKER", "GUARDRAIL", "EVALUATOR", "PROMPT", "UNKNOWN"
)  # fmt: skip
_INDEXED = re.compile(
    r"^(?:gen_ai\.prompt|llm\.input_messages)\.([0-9]{1,9})\.(?:message\.)?"
    r"(?:(role|content)|contents\.([0-9]{1,9})\.message_content\.(type|text))$"
)


def texts_of_span(record: Row) -> list[str]:
    """Return the routing text of a span; a record with empty attributes is read as a recorded call."""
    # a table of runs leaves the cell empty
    if record.get("attributes") in (None, "") and not any(name.startswith("attributes.") for name in record):
        return texts_of_call(record)
    text = _of_span(record)
    return [text] if text else []


def _matches(rows: Sequence[Row]) -> bool:
    return any(
        "attributes" in row
        or not row.keys().isdisjoint(BUNDLES[1:])
        or any(name.startswith("attributes.") for name in row)
        or (isinstance(trace := row.get("trace"), dict) and not trace.keys().isdisjoint(BUNDLES))
        for row in rows
    )


class _File:
    """The spans of one file: of the calls and steps of the Vercel AI SDK the prompt counts once."""

    def __init__(self) -> None:
        self._calls = VercelCalls()

    def prompts(self, record: Row) -> list[str]:
        out: list[str] = []
        for span in spans_of(record):
            taken = self._calls.prompts(span)
            out += texts_of_span(span) if taken is None else taken
        return out


def _start() -> Callable[[Row], list[str]]:
    return _File().prompts


def _of_span(span: dict[str, Any]) -> str | None:
    """Return the routing text of an OpenTelemetry span, by the attribute names of the three common instrumentations.

    Spans of agents, chains and tools repeat the prompt of the call that they lead to, so None is returned for them.
    """
    attributes = attributes_of(span)
    kind = next((str(attributes[name]) for name in _SPAN_KINDS if attributes.get(name) is not None), None)
    if kind is None and span.get("span_kind") in _OPENINFERENCE_KINDS:  # a table of Phoenix
        kind = str(span["span_kind"])
    if kind is not None and kind.lower() not in _MODEL_SPANS:
        return None
    # Messages come first: "input.value" may be a rendering of them that begins with the system message.
    if (text := routed(parsed(attributes.get("gen_ai.input.messages")))) is not None:
        return text
    if (text := routed(_indexed_messages(attributes))) is not None:
        return text
    if (text := routed(parsed(attributes.get("llm.input_messages")))) is not None:
        return text
    for name in ("gen_ai.prompt", "input.value"):
        if (text := routed(parsed(attributes.get(name)))) is not None:
            return text
    events = span.get("events")
    for event in reversed(events) if isinstance(events, list) else ():
        if not isinstance(event, dict):
            continue
        inner = otlp_attributes(event.get("attributes"))
        if event.get("name") == "gen_ai.user.message":
            return content_text(parsed(inner.get("content")))
        if (text := routed(parsed(inner.get("gen_ai.prompt")))) is not None:
            return text
    return None


def _indexed_messages(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """Collect messages from attributes that each hold a role, a content or a part, numbered by message and part."""
    messages: dict[int, dict[str, Any]] = {}
    parts: dict[int, dict[int, dict[str, Any]]] = {}
    for name, value in attributes.items():
        if match := _INDEXED.match(name):
            index, key, part, part_key = match.groups()
            if part is None:
                messages.setdefault(int(index), {})[key] = value
            else:
                parts.setdefault(int(index), {}).setdefault(int(part), {})[part_key] = value
    for number, found in parts.items():
        messages.setdefault(number, {})["content"] = [found[i] for i in sorted(found)]
    return [messages[i] for i in sorted(messages)]


OPENTELEMETRY = Form(
    name="opentelemetry",
    title="OpenTelemetry spans of model calls with GenAI, OpenLLMetry or OpenInference attributes (OTLP JSON, Tempo)",
    fields=(
        "attributes",
        "attributes.llm.input_messages",
        "attributes.input.value",
        "attributes.openinference.span.kind",
        *BUNDLES,
    ),
    matches=_matches,
    holds=("prompts",),
    prompts=lambda record: _File().prompts(record),
    start=_start,
)
