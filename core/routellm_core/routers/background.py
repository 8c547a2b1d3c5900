"""Run a coroutine to completion from synchronous code, whether or not the calling thread runs an event loop."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

T = TypeVar("T")


class _Background:
    """An event loop in a daemon thread, started when it is first needed.

    There is one loop for the whole process rather than one per call: the connections of an asynchronous client belong
    to the loop that opened them, so a router that keeps a client must run on the same loop every time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        import asyncio  # loaded wherever this runs; a top-level import would dominate the import time of this package

        if threading.current_thread() is self._thread:
            from concurrent.futures import ThreadPoolExecutor

            # A coroutine on the loop called synchronous code: waiting here for the loop would wait forever.
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(asyncio.run, coroutine).result()
        loop = self._started()
        future: Future[T] | None = None
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
            return future.result()
        except BaseException:
            if future is not None:
                future.cancel()  # if this thread was interrupted, nobody waits for the answer any more
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                import asyncio
                from concurrent.futures import Future

                ready: Future[asyncio.AbstractEventLoop] = Future()
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._serve(ready)), name="routellm-async", daemon=True
                )
                self._thread.start()
                self._loop = ready.result()
                atexit.register(self._close)
            return self._loop

    async def _serve(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        import asyncio

        self._stop = asyncio.Event()
        ready.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def _close(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=1.0)  # not forever: a coroutine may block the loop

    def forget(self) -> None:
        """Start over: a forked process has the loop of its parent, but not the thread that runs it."""
        atexit.unregister(self._close)
        self.__init__()  # type: ignore[misc]


_background = _Background()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_background.forget)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` on the background loop and return its result, even if this thread runs a loop of its own."""
    return _background.run(coroutine)
