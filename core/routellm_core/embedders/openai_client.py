"""Shared by all users of the ``openai`` client: no request in a log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_under_way: ContextVar[bool] = ContextVar("routellm_request_under_way", default=False)


class _NoRequestRecords(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.INFO or not _under_way.get()


_FILTER = _NoRequestRecords()


@contextmanager
def unlogged_request() -> Iterator[None]:
    """Drop the client's debug records of this thread or task, since they contain whole requests; keep all others."""
    for name in ("openai._base_client", "openai._response", "openai._legacy_response"):
        logging.getLogger(name).addFilter(_FILTER)  # adding it again does nothing
    token = _under_way.set(True)
    try:
        yield
    finally:
        _under_way.reset(token)
