"""Feedback as rows: of one call, and from files that graders and tracing services export."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any

from routellm_core.checks import checked_fraction, checked_side
from routellm_core.errors import ConfigurationError

_OUR_ID = re.compile(r"[0-9a-f]{32}(-\d{1,3})?")


def is_call_id(text: str) -> bool:
    """Whether an id is one of our calls, rather than a run of a framework."""
    return _OUR_ID.fullmatch(text) is not None


def feedback_row(id: Any, score: Any, *, key: Any, source: Any, side: Any) -> dict[str, Any]:
    """One score as a row of the log.

    Raises:
        ConfigurationError: A value is not allowed.
    """
    call = checked_name(id, "id")
    key, source = checked_name(key, "key"), checked_name(source, "source")
    side = None if side is None else checked_side(side, "side")
    return {
        "id": feedback_id(call, key, source, side),
        # traces of OpenTelemetry and Langfuse have ids of our form: such a one may be either
        "call_id": call if is_call_id(call) else None,
        "external_id": call,
        "score": checked_fraction(score, "score"),
        "key": key,
        "source": source,
        "side": side,
    }


def feedback_id(call: str, key: str, source: str, side: str | None) -> str:
    """The id of the score that there is one of for each call, key, source and side."""
    parts = "\0".join((call, key, source, side or "")).encode("utf-8", "surrogatepass")
    return blake2b(parts, digest_size=16).hexdigest()


def checked_name(value: Any, parameter: str) -> str:
    """Return a short text, or raise a `ConfigurationError` that names the parameter."""
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise ConfigurationError(f"{parameter}={value!r:.80}: expected a text of 1 to 200 characters")
    return value
