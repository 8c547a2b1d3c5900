"""OpenTelemetry spans (OTLP JSON, Tempo, the console exporter) with the attributes of common instrumentations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from routellm_core.data.chats import content_text, parsed, routed, texts_of_call
from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form

# Fields that hold the spans of a record: OTLP, Tempo, OTLP before 1.0, results of a search in Tempo.
_BUNDLES = (
    "trace",
    "traces",
    "spanSets",
    "resourceSpans",
    "resource_spans",
    "batches",
    "scopeSpans",
    "scope_spans",
    "instrumentationLibrarySpans",
    "spans",
)
# Attributes that say whether a span is a model call (GenAI, OpenInference, OpenLLMetry); the first one present decides.
_SPAN_KINDS = ("gen_ai.operation.name", "openinference.span.kind", "llm.request.type")
_MODEL_SPANS = {"chat", "text_completion", "generate_content", "llm", "completion"}
_INDEXED = re.compile(
    r"^(?:gen_ai\.prompt|llm\.input_messages)\.([0-9]{1,9})\.(?:message\.)?"
    r"(?:(role|content)|contents\.([0-9]{1,9})\.message_content\.(type|text))$"
)
_DEEPEST = 8
_NESTED = {"arrayValue", "array_value", "kvlistValue", "kvlist_value"}


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
        or not row.keys().isdisjoint(_BUNDLES[1:])
        or any(name.startswith("attributes.") for name in row)
        or (isinstance(trace := row.get("trace"), dict) and not trace.keys().isdisjoint(_BUNDLES))
        for row in rows
    )


def spans_of(record: Row) -> Iterator[Row]:
    """The spans that a record bundles; itself if it is one."""
    for name in _BUNDLES:
        value = record.get(name)
        inner = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
        if inner := [item for item in inner if isinstance(item, dict)]:
            for item in inner:
                yield from spans_of(item)
            return
    yield record


def _prompts(record: Row) -> list[str]:
    return [text for span in spans_of(record) for text in texts_of_span(span)]


def _of_span(span: dict[str, Any]) -> str | None:
    """Return the routing text of an OpenTelemetry span, by the attribute names of the three common instrumentations.

    Spans of agents, chains and tools repeat the prompt of the call that they lead to, so None is returned for them.
    """
    attributes = attributes_of(span)
    kind = next((str(attributes[name]) for name in _SPAN_KINDS if attributes.get(name) is not None), None)
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
        inner = _attributes(event.get("attributes"))
        if event.get("name") == "gen_ai.user.message":
            return content_text(parsed(inner.get("content")))
        if (text := routed(parsed(inner.get("gen_ai.prompt")))) is not None:
            return text
    return None


def attributes_of(span: Row) -> dict[str, Any]:
    """Return the attributes of a span by their dotted names, be they nested, or columns of a table."""
    attributes = _attributes(parsed(span.get("attributes")))
    for name, value in span.items():
        if name.startswith("attributes."):
            attributes = {**attributes, name.removeprefix("attributes."): parsed(value)}
    flat: dict[str, Any] = {}
    _flatten(attributes, "", flat)
    return flat


def _flatten(value: dict[str, Any], prefix: str, into: dict[str, Any]) -> None:
    """Nested attributes under their dotted names: Phoenix writes {"llm": {"input_messages": [...]}}."""
    for name, inner in value.items():
        if isinstance(inner, dict) and prefix.count(".") < _DEEPEST:
            into[prefix + name] = inner
            _flatten(inner, f"{prefix}{name}.", into)
        else:
            into[prefix + name] = inner


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


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of a span as a mapping; OTLP writes them as a list of keys and typed values."""
    if isinstance(value, dict):
        return value
    listed = value if isinstance(value, list) else []
    return {
        str(item["key"]): _otlp_value(item.get("value")) for item in listed if isinstance(item, dict) and "key" in item
    }


def _otlp_value(typed: Any) -> Any:
    """Strip the type from a value of OTLP JSON, recursively: ``{"stringValue": "x"}`` becomes ``"x"``."""
    if not isinstance(typed, dict):
        return typed
    kind, value = next(iter(typed.items()), ("", None))
    if kind not in _NESTED:
        return value
    values = value.get("values") if isinstance(value, dict) else None  # an empty list has none
    if kind.startswith("kvlist"):
        return _attributes(values or [])
    return [_otlp_value(item) for item in values] if isinstance(values, list) else []


OPENTELEMETRY = Form(
    name="opentelemetry",
    title="OpenTelemetry spans of model calls with GenAI, OpenLLMetry or OpenInference attributes (OTLP JSON, Tempo)",
    fields=(
        "attributes",
        "attributes.llm.input_messages",
        "attributes.input.value",
        "attributes.openinference.span.kind",
        *_BUNDLES,
    ),
    matches=_matches,
    holds=("prompts",),
    prompts=_prompts,
)
