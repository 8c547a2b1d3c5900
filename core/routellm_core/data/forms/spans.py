"""Spans of a trace: where a record bundles them, and their attributes by dotted names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row

# Fields that hold the spans of a record: OTLP, Tempo, OTLP before 1.0, results of a search in Tempo.
BUNDLES = (
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
_DEEPEST = 8
_NESTED = {"arrayValue", "array_value", "kvlistValue", "kvlist_value"}


def spans_of(record: Row) -> Iterator[Row]:
    """The spans that a record bundles; itself if it is one."""
    for name in BUNDLES:
        value = record.get(name)
        inner = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
        if inner := [item for item in inner if isinstance(item, dict)]:
            for item in inner:
                yield from spans_of(item)
            return
    yield record


def attributes_of(span: Row) -> dict[str, Any]:
    """Return the attributes of a span by their dotted names, be they nested, or columns of a table."""
    attributes = otlp_attributes(parsed(span.get("attributes")))
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


def otlp_attributes(value: Any) -> dict[str, Any]:
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
        return otlp_attributes(values or [])
    return [_otlp_value(item) for item in values] if isinstance(values, list) else []
