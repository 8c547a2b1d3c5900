"""Shared by all users of the ``openai`` client: no request in a log, and one async client per event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openai import AsyncOpenAI

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


class LoopClients:
    """One async client per event loop: its connections belong to the loop and must not outlive it.

    Safe for threads. A loop closes its client before it is closed itself, as `asyncio.run` does with its loop.

    Args:
        make: Creates a client.
    """

    def __init__(self, make: Callable[[], AsyncOpenAI]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[AsyncOpenAI, AsyncGenerator[AsyncOpenAI, None]]
        ] = weakref.WeakKeyDictionary()

    def __len__(self) -> int:
        """Number of loops that have a client."""
        return len(self._clients)

    async def get(self) -> AsyncOpenAI:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._clients.get(loop)
        if found is None:
            # An async generator, because a loop closes its open generators before it closes itself, and this one then
            # closes the connections. Its first step awaits nothing, so no other task can interfere.
            holder = self._held()
            found = (await anext(holder), holder)
            with self._lock:
                self._clients[loop] = found
        return found[0]

    async def aclose(self) -> None:
        """Close the client of the running loop, if it has one."""
        with self._lock:
            found = self._clients.get(asyncio.get_running_loop())
        if found is not None:
            await found[1].aclose()

    async def _held(self) -> AsyncGenerator[AsyncOpenAI, None]:
        loop = asyncio.get_running_loop()
        client = self._make()
        try:
            yield client
        finally:
            with self._lock:
                self._clients.pop(loop, None)
            await client.close()
