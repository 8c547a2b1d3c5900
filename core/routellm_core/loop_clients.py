"""LoopClients: one async client of a service per event loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Generic, Protocol, TypeVar


class AsyncClient(Protocol):
    """A client whose connections belong to an event loop."""

    async def close(self) -> object:
        """Close its connections."""
        ...


Client = TypeVar("Client", bound=AsyncClient)


class LoopClients(Generic[Client]):
    """One async client per event loop: its connections belong to the loop and must not outlive it.

    Safe for threads. A loop closes its client before it is closed itself, as `asyncio.run` does with its loop.

    Args:
        make: Creates a client.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[Client, AsyncGenerator[Client, None]]
        ] = weakref.WeakKeyDictionary()

    def __len__(self) -> int:
        """Number of loops that have a client."""
        return len(self._clients)

    async def get(self) -> Client:
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

    async def _held(self) -> AsyncGenerator[Client, None]:
        loop = asyncio.get_running_loop()
        client = self._make()
        try:
            yield client
        finally:
            with self._lock:
                self._clients.pop(loop, None)
            await client.close()
