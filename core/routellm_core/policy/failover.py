"""Failover: which errors of one model another model could survive."""

from __future__ import annotations

# HTTP statuses of a provider that say: this side, now. 400, 401, 403, 404, 413 and 422 say: this request, or this key.
_SURVIVABLE_STATUS = frozenset({408, 409, 425, 429, 498, 499}) | frozenset(range(500, 600))
# mistakes in the calling program; another model would meet the same one
_PROGRAMMING_ERRORS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NameError,
    ImportError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    MemoryError,
)
# of this machine's files, not of the line to a model
_LOCAL_FILE_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_REFUSED_BY_NAME = ("Authentication", "PermissionDenied", "BadRequest", "InvalidRequest", "Unauthorized", "Forbidden")
# how LangGraph pauses a graph or leaves it for another: raised like an error, and none
_CONTROL_FLOW_BY_NAME = ("GraphBubbleUp",)
_SURVIVABLE_BY_NAME = ("Timeout", "Connection", "Connect", "RateLimit", "Overloaded", "Unavailable", "InternalServer")


def is_survivable(exc: BaseException) -> bool:
    """Whether the other model may answer after the chosen one failed with `exc` before its first token.

    By the HTTP status that provider clients put on their errors where there is one: time-outs, conflicts, rate
    limits and server errors yes; authentication, permission, not found and bad requests no. Else by class: lost
    connections and time-outs yes, programming errors (`TypeError`, `ValueError`, ...) and missing local files no, any
    other `Exception` yes. Cancellation and interrupts never, nor what a graph raises to pause.
    """
    if not isinstance(exc, Exception):
        return False
    status = _status(exc)
    if status is not None:
        return status in _SURVIVABLE_STATUS
    names = [cls.__name__ for cls in type(exc).__mro__ if cls is not object]
    if isinstance(exc, _LOCAL_FILE_ERRORS):
        return False
    if any(part in name for name in names for part in (*_REFUSED_BY_NAME, *_CONTROL_FLOW_BY_NAME)):
        return False
    if isinstance(exc, OSError) or any(part in name for name in names for part in _SURVIVABLE_BY_NAME):
        return True
    return not isinstance(exc, _PROGRAMMING_ERRORS)


def _status(exc: Exception) -> int | None:
    for holder in (exc, getattr(exc, "response", None)):
        for attribute in ("status_code", "http_status", "status", "code"):
            value = getattr(holder, attribute, None)
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
                return value
    return None
