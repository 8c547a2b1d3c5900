"""Coalescer: prompts that many tasks ask for at once become one call of the router."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from weakref import WeakKeyDictionary

from routellm_core.forks import fork_safe_lock
from routellm_core.routers.base import WinRateArray

_Ask: TypeAlias = "tuple[list[str], asyncio.Future[WinRateArray]]"


class Coalescer:
    """Joins what concurrent tasks ask for in one pass of their event loop into one scoring call.

    A router is many times cheaper per prompt in a batch, and a thousand single calls at once would hold the event
    loop up. When a joint call fails, each of its tasks is scored alone, so that one task's prompt cannot spoil
    another's decision. Each event loop has calls of its own; safe for loops in several threads.

    Args:
        score: Awaitable win rates (n,) of n prompts, each of which does not depend on the others.
    """

    def __init__(self, score: Callable[[list[str]], Awaitable[WinRateArray]]) -> None:
        self._score = score
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Ask]] = WeakKeyDictionary()
        self._lock = fork_safe_lock(self, "_lock")
        self._running: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly

    async def __call__(self, prompts: list[str]) -> WinRateArray:
        """Win rates (n,) of n prompts."""
        loop = asyncio.get_running_loop()
        ask: _Ask = (prompts, loop.create_future())
        with self._lock:
            asks = self._waiting.setdefault(loop, [])
            asks.append(ask)
        if len(asks) == 1:
            loop.call_soon(self._start, loop)  # after every task that is ready now has had its turn
        return await ask[1]

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            asks = self._waiting.pop(loop)
        task = loop.create_task(self._answer(asks))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, asks: list[_Ask]) -> None:
        asks = [ask for ask in asks if not ask[1].done()]  # its task was cancelled
        if not asks:
            return
        try:
            win_rates = await self._score([prompt for prompts, _ in asks for prompt in prompts])
        except Exception as exc:
            if len(asks) > 1:
                await asyncio.gather(*(self._answer([ask]) for ask in asks))
            elif not asks[0][1].done():
                asks[0][1].set_exception(exc)
            return
        except BaseException:
            for _, future in asks:
                future.cancel()
            raise
        start = 0
        for prompts, future in asks:
            if not future.done():
                future.set_result(win_rates[start : start + len(prompts)])
            start += len(prompts)
