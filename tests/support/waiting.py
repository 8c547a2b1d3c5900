"""Waiting for what another task or thread does, never for a time to pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# Only keeps a broken test from hanging; no test is faster or slower for it.
LIMIT = 60.0


async def until(happened: Callable[[], object]) -> None:
    """Lets the event loop run until `happened()` is true.

    Raises:
        TimeoutError: When it has not happened within `LIMIT` seconds.
    """
    async with asyncio.timeout(LIMIT):
        while not happened():
            await asyncio.sleep(0.001)


def wait_until(happened: Callable[[], object]) -> None:
    """Blocks this thread until `happened()` is true.

    Raises:
        TimeoutError: When it has not happened within `LIMIT` seconds.
    """
    end = time.monotonic() + LIMIT
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"it has not happened within {LIMIT:g} seconds")
        time.sleep(0.001)
