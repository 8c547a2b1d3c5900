"""Shared by the overhead benchmarks: a router that costs nothing, and a fair timing of several runners."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from routellm_core import Router

Runner = Callable[[int], float]


class ConstantRouter(Router):
    """Returns 0.5 for every prompt, at no cost."""

    name = "constant"

    def _win_rates(self, prompts: list[str]) -> list[float]:
        return [0.5] * len(prompts)

    async def _awin_rates(self, prompts: list[str]) -> list[float]:
        return self._win_rates(prompts)


def sync_runner(call: Callable[[str], Any]) -> Runner:
    """Time one call with the i-th of a hundred prompts."""

    def run(i: int) -> float:
        prompt = f"prompt {i % 100}"
        start = time.perf_counter()
        call(prompt)
        return time.perf_counter() - start

    return run


def async_runner(call: Callable[[str], Awaitable[Any]], loop: asyncio.AbstractEventLoop) -> Runner:
    """Like `sync_runner`, for a coroutine function on an event loop."""

    async def timed(i: int) -> float:
        prompt = f"prompt {i % 100}"
        start = time.perf_counter()
        await call(prompt)
        return time.perf_counter() - start

    return lambda i: loop.run_until_complete(timed(i))


def quartiles(runners: dict[str, Runner], calls: int) -> dict[str, float]:
    """Lower quartile of the seconds of each runner, which a busy machine moves less than the median.

    They take turns, so that a slow moment of the machine affects all of them, in an order that is drawn anew for each
    round: the runner before leaves the processor's caches full of what it has used itself.
    """
    times: dict[str, list[float]] = {name: [] for name in runners}
    for i in range(calls // 10):
        for run in runners.values():
            run(i)
    order, random = list(runners), Random(0)
    gc.collect()
    gc.disable()
    try:
        for i in range(calls):
            random.shuffle(order)
            for name in order:
                times[name].append(runners[name](i))
    finally:
        gc.enable()
    return {name: statistics.quantiles(values, n=4)[0] for name, values in times.items()}
