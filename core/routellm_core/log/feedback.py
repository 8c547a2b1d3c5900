"""Feedback as rows: of one call, and from files that graders and tracing services export."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from routellm_core.checks import checked_fraction, checked_side, is_number
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.log.rows import Feedback

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


# --- files ---

# Names that exports have for the same thing, in the order in which they are looked for. Ours come first; then
# LangSmith's feedback, and Langfuse's scores, whose metadata may hold our id.
_CALL_IDS = ("call_id", "routellm_id", "decision_id")
_RUN_IDS = ("run_id", "observation_id", "observationId", "span_id", "trace_id", "traceId", "external_id")
_SCORES = ("score", "value", "rating")
_KEYS = ("key", "name")
_SOURCES = ("source", "feedback_source", "feedbackSource", "feedback_source_type")
_TIMES = ("created", "created_at", "createdAt", "timestamp", "modified_at")
_TRUE, _FALSE = ("true", "yes", "up", "good", "1"), ("false", "no", "down", "bad", "0")


def feedback_of_rows(rows: Iterable[tuple[str, Any]], *, scale: tuple[float, float] = (0.0, 1.0)) -> Iterator[Feedback]:
    """Feedback from the rows of a file: of one's own, of LangSmith or of Langfuse.

    A row names its call by ``call_id``, by our id in ``metadata``, or by the run or trace that it belongs to.

    Args:
        rows: Mappings, each with its place for messages.
        scale: The lowest and the highest score of the file, which become 0 and 1.

    Raises:
        DataError: A row names no call, or has no score; the message says which row.
    """
    low, high = scale
    if not low < high:
        raise ConfigurationError(f"scale={scale!r}: expected the lowest and the highest score, such as (1, 5)")
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is a {type(row).__name__}: expected an object")
        call, run = _call_of(row)
        if call is None and run is None:
            raise DataError(f"{where} names no call: expected one of {', '.join((*_CALL_IDS, *_RUN_IDS))}")
        value = _number(_first(row, _SCORES))
        if value is None:
            continue  # a comment, or a score of categories
        score = (value - low) / (high - low)
        if not 0.0 <= score <= 1.0:
            raise DataError(f"{where}: score {value:g} is not from {low:g} to {high:g}; give the scale of the file")
        key, source = str(_first(row, _KEYS) or "score")[:200], _source(row)
        side = row.get("side") or None
        if side not in ("strong", "weak", None):
            raise DataError(f"{where}: side={side!r:.40}: expected 'strong' or 'weak'")
        own = row.get("id")
        yield Feedback(
            id=str(own) if own and str(own) != call else feedback_id(call or run or "", key, source, side),
            score=score,
            key=key,
            source=source,
            call_id=call,
            external_id=run,
            side=side,
            created=_moment(_first(row, _TIMES)),
        )


def _call_of(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Our id of the call, and the id of its run."""
    call = _first(row, _CALL_IDS) or _in_metadata(row.get("metadata"))
    run = _first(row, _RUN_IDS)
    own = row.get("id")
    if call is None and run is None and isinstance(own, str):
        run = own
    run = None if run is None else str(run)
    if call is None and run is not None and is_call_id(run):
        call = run
    return None if call is None else str(call), run


def _in_metadata(metadata: Any) -> str | None:
    if isinstance(metadata, str) and metadata.startswith("{"):  # in a cell of a CSV file
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError):
            return None
    if not isinstance(metadata, Mapping):
        return None
    decision = metadata.get("routellm")
    found = decision.get("id") if isinstance(decision, Mapping) else metadata.get("routellm_id")
    return found if isinstance(found, str) else None


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    if is_number(value):
        return float(value)
    text = str(value).strip().lower() if isinstance(value, str) else ""
    if text in _TRUE or text in _FALSE:
        return float(text in _TRUE)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _source(row: Mapping[str, Any]) -> str:
    source = _first(row, _SOURCES)
    if isinstance(source, Mapping):
        source = source.get("type")
    return str(source or "import")[:200]


def _moment(value: Any) -> float:
    """Seconds since 1970; 0 where the row does not say."""
    if is_number(value):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
