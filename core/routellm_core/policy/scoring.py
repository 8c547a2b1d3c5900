"""Scoring: asks a router for win rates within a deadline, and keeps one bad prompt from spoiling the others."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from routellm_core.breaker import Breaker
from routellm_core.errors import DeadlineError
from routellm_core.routers.base import Router

if TYPE_CHECKING:
    from routellm_core.policy.coalescing import Coalescer
    from routellm_core.routers.base import WinRateArray

# Prompts of one batch that fail one by one, before any other was scored, until the router counts as down.
_GIVE_UP_AFTER = 8
# Missed deadlines in a row after which a router counts as hung.
_HUNG_AFTER = 3
# Seconds until a hung router is tried again, at first and at most.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0

Scores: TypeAlias = "list[float | Exception]"
_Plan: TypeAlias = "Generator[list[str], WinRateArray, Scores]"


class Scoring:
    """Scores prompts with a router for one policy.

    All prompts go into one call. When it fails, the batch is halved until each prompt that the router fails on stands
    alone; the others keep their win rates. When only failures come back, the router counts as down and the rest
    is not tried. With a deadline, the router computes in its own bounded workers; a router that misses three deadlines
    in a row counts as hung, and then every prompt fails at once, while single calls find out whether it answers again.

    Args:
        router: Scores prompts.
        deadline: Seconds for all that one call of `score` or `ascore` asks of the router; None waits.
    """

    def __init__(self, router: Router, deadline: float | None) -> None:
        self.router = router
        self.deadline = deadline
        self.breaker = Breaker(failures=_HUNG_AFTER, wait=_FIRST_WAIT, longest=_LONGEST_WAIT)
        self._joint: Coalescer | None = None

    def score(self, prompts: list[str]) -> Scores:
        """The win rate of each of n >= 1 prompts, or the exception that the router raised for it."""
        end = self._end()
        try:
            found: Scores = self._ask(prompts, end).tolist()
            return found
        except Exception as exc:
            plan = _isolating(prompts, exc)
        try:
            asked = next(plan)
            while True:
                try:
                    win_rates = self._ask(asked, end)
                except Exception as exc:
                    asked = plan.throw(exc)
                else:
                    asked = plan.send(win_rates)
        except StopIteration as stop:
            isolated: Scores = stop.value
            return isolated

    async def ascore(self, prompts: list[str]) -> Scores:
        """Async twin of `score`; concurrent calls share one call of the router."""
        end = self._end()
        try:
            found: Scores = (await self._aask(prompts, end)).tolist()
            return found
        except Exception as exc:
            plan = _isolating(prompts, exc)
        try:
            asked = next(plan)
            while True:
                try:
                    win_rates = await self._aask(asked, end)
                except Exception as exc:
                    asked = plan.throw(exc)
                else:
                    asked = plan.send(win_rates)
        except StopIteration as stop:
            isolated: Scores = stop.value
            return isolated

    def _end(self) -> float:
        return 0.0 if self.deadline is None else time.monotonic() + self.deadline

    def _ask(self, prompts: list[str], end: float) -> WinRateArray:
        if self.deadline is None:
            return self.router.win_rates(prompts)
        from concurrent.futures import wait  # at the top it would be a good part of what importing this costs

        from routellm_core.workers import workers_of

        self._enter()
        future = workers_of(self.router).submit(lambda: self.router.win_rates(prompts))
        try:
            done, _ = wait([future], timeout=max(0.0, end - time.monotonic()))
        except BaseException:
            future.cancel()
            raise
        if not done:
            future.cancel()
            raise self._missed()
        self.breaker.succeeded()
        return future.result()

    async def _aask(self, prompts: list[str], end: float) -> WinRateArray:
        if self._joint is None:
            # loads asyncio: loaded wherever this runs, and at the top most of what importing this package costs
            from routellm_core.policy.coalescing import Coalescer

            self._joint = Coalescer(self.router.awin_rates)
        if self.deadline is None:
            return await self._joint(prompts)
        import asyncio

        self._enter()
        # not wait_for: it would also turn a TimeoutError of the router itself into a missed deadline
        task = asyncio.ensure_future(self._joint(prompts))
        try:
            done, _ = await asyncio.wait({task}, timeout=max(0.0, end - time.monotonic()))
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            raise self._missed()
        self.breaker.succeeded()
        return task.result()

    def _enter(self) -> None:
        if not self.breaker.allows():
            raise DeadlineError(
                f"router {self.router.name!r} missed deadline={self.deadline} s several times in a row; it is asked "
                "again after a while"
            )

    def _missed(self) -> DeadlineError:
        self.breaker.failed()
        return DeadlineError(f"router {self.router.name!r} did not answer within deadline={self.deadline} s")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_joint": None}


def _isolating(prompts: Sequence[str], failure: Exception) -> _Plan:
    """The calls that find each prompt's win rate or error after one call for all failed.

    It yields prompts to score and is sent their win rates; an error is thrown in where a call failed. A missed deadline
    ends the plan: it is that of all calls together.
    """
    found: list[Any] = [None] * len(prompts)
    todo = [(0, len(prompts))]
    alone = 0  # prompts that failed by themselves before any call succeeded
    exc: Exception | None = failure
    while todo:
        start, stop = todo.pop()
        if exc is None:
            try:
                win_rates = yield list(prompts[start:stop])
            except Exception as raised:
                exc = raised
            else:
                found[start:stop] = win_rates.tolist()
                alone = -len(prompts)  # it works: whatever fails now is the prompt's own fault
                continue
        error, exc = exc, None
        if stop - start > 1 and not isinstance(error, DeadlineError):
            middle = (start + stop) // 2
            todo += [(middle, stop), (start, middle)]
            continue
        found[start:stop] = [error] * (stop - start)
        alone += 1
        if isinstance(error, DeadlineError) or alone == _GIVE_UP_AFTER:
            for left, right in todo:
                found[left:right] = [error] * (right - left)
            break
    return found
