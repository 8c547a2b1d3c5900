"""Rows as every database takes them: whatever a provider or a user put into a field, it does not cost the row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

# of a text; longer ones are cut
MAX_TEXT = 1_000_000
_MAX_INTEGER = 2**31 - 1


class Unwritable(ValueError):
    """A row lacks what it needs, or holds it in a form that means nothing."""


def clean_text(value: Any, length: int = MAX_TEXT) -> str | None:
    """A text without what PostgreSQL (NUL) or UTF-8 (a lone surrogate) refuses; None where it is not a text."""
    if not isinstance(value, str):
        return None
    text = value[:length].replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_INTEGER:
        return None
    return int(value)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def _short(value: Any) -> str | None:
    return clean_text(value, 200)


def _id(value: Any) -> str | None:
    # not cut: two ids could become one
    return clean_text(value) if isinstance(value, str) and 0 < len(value) <= 36 else None


def _side(value: Any) -> str | None:
    return value if value in ("strong", "weak") else None


def _fraction(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and 0.0 <= number <= 1.0 else None


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None


_COLUMNS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "calls": {
        "id": _id,
        "created": _number,
        "app": _short,
        "run_id": _short,
        "parent_run_id": _short,
        "trace_id": _short,
        "conversation": lambda value: clean_text(value, 32),
        "prompt_hash": lambda value: clean_text(value, 32),
        "prompt": clean_text,
        "vector": _bytes,
        "router": _short,
        "win_rate": _fraction,
        "threshold": _fraction,
        "reason": lambda value: clean_text(value, 20),
        "failover": _side,
        "p_strong": _fraction,
        "p_shadow": _fraction,
        "user_id": _short,
        "cost": _number,
        "side": _side,
    },
    "answers": {
        "call_id": _id,
        "side": _side,
        "created": _number,
        "kind": lambda value: value if value in ("routed", "shadow") else None,
        "model": _short,
        "text": clean_text,
        "input_tokens": _integer,
        "output_tokens": _integer,
        "cost": _number,
        "latency": _number,
        "error": _short,
    },
    "discarded": {
        "id": _id,
        "call_id": _id,
        "side": _side,
        "created": _number,
        "kind": lambda value: value if value in ("refused", "failed") else None,
        "model": _short,
        "input_tokens": _integer,
        "output_tokens": _integer,
        "cost": _number,
    },
    "feedback": {
        "id": lambda value: clean_text(value) if isinstance(value, str) and 0 < len(value) <= 200 else None,
        "call_id": _id,
        "external_id": _short,
        "side": _side,
        "key": _short,
        "score": _fraction,
        "source": _short,
        "created": _number,
    },
    "labels": {
        "call_id": _id,
        "labeller": _short,
        "strong_score": _fraction,
        "weak_score": _fraction,
        "created": _number,
    },
}
_NEEDED = {
    "calls": ("id", "created", "router", "threshold", "reason", "p_strong", "p_shadow", "side"),
    "answers": ("call_id", "side", "created", "kind"),
    "discarded": ("id", "call_id", "side", "created", "kind"),
    "feedback": ("id", "key", "score", "source", "created"),
    "labels": ("call_id", "labeller", "strong_score", "weak_score", "created"),
}


def clean(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the table takes it: what has no meaning in its column becomes empty.

    Raises:
        Unwritable: A column that may not be empty would be; the message names it and no value.
    """
    out = {name: cleaned(row.get(name)) for name, cleaned in _COLUMNS[table].items()}
    for name in _NEEDED[table]:
        if out[name] is None:
            raise Unwritable(f"{name} is missing or not allowed")
    if table == "feedback" and out["call_id"] is None and out["external_id"] is None:
        raise Unwritable("neither call_id nor external_id is given")
    return out
