"""Shadows: has the other side answer in the background, bounded in every respect."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from routellm_core.checks import Side
from routellm_core.forks import fork_safe_lock, renew_in_child
from routellm_core.log.recording import Answer
from routellm_core.policy.shadow import Shadow
from routellm_core.workers import Workers

logger = logging.getLogger("routellm_core")

# Shadow calls that may wait for their turn; each holds its request.
_MOST_WAITING = 1000
Done: TypeAlias = Callable[[Side, Answer, float], None]


class Shadows:
    """Runs the shadow calls of a log: a bounded number at once, never where a call would wait for them.

    Each runs with an empty context: nothing that the user's call has set there (callbacks, traces, tags) reaches it.

    Args:
        cost: Money that an answer of a side cost, where it is known.
    """

    def __init__(self, cost: Callable[[Answer, Side], float | None]) -> None:
        self._cost = cost
        self._lock = fork_safe_lock(self, "_lock")
        # pairs of the whole log and the money that they cost, as far as known: those of others and of the time before
        self._others = (0, 0.0)
        self._pairs = 0  # and those of this process
        self._spent = 0.0
        self._renew()
        renew_in_child(self, Shadows._renew)

    def _renew(self) -> None:
        self._others = self._so_far()
        self._pairs, self._spent = 0, 0.0
        self._written = (0, 0.0)  # of these, what the database has
        self._workers: dict[int, Workers] = {}  # by concurrency
        self._turns: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # event loop -> semaphore
        self._tasks: set[Any] = set()
        self._running: dict[int, _Running] = {}
        self._number = 0
        self._finished = threading.Condition(self._lock)
        self._priced = 0  # answers with a cost in this process
        self._unpriced = False
        self.skipped = 0

    # --- how many there may be ---

    def known(self, pairs: int, spent: float) -> None:
        """Take over what the database says, after `written`: pairs and money of shadow answers so far."""
        with self._lock:
            self._others = (pairs - self._written[0], spent - self._written[1])

    def written(self, pairs: int, spent: float) -> None:
        """So many more pairs of this process, and their money, are in the database."""
        with self._lock:
            self._written = (self._written[0] + pairs, self._written[1] + spent)

    def _so_far(self) -> tuple[int, float]:
        return self._others[0] + self._pairs, self._others[1] + self._spent

    def chance(self, shadow: Shadow) -> float:
        """The probability that a call is drawn now: the wanted share, or 0 where there is no room or no money."""
        with self._lock:
            running = len(self._running)
            if running >= _MOST_WAITING:
                return 0.0
            if shadow.max_pairs is not None and self._so_far()[0] + running >= shadow.max_pairs:
                return 0.0
            if shadow.budget is not None and not self._affords(shadow, running):
                return 0.0
            expired = self._expired() if running else []
        for one in expired:
            self.ended(one, Answer(error="TimeoutError"))
        return shadow.fraction

    def _affords(self, shadow: Shadow, running: int) -> bool:
        """Whether the money suffices for one more beside those that run; the lock is held."""
        assert shadow.budget is not None
        if self._unpriced:
            return False
        spent = self._so_far()[1]
        if not self._priced:  # what one costs is known once the first has ended
            return spent < shadow.budget and running < shadow.concurrency
        return spent + (running + 1) * self._spent / self._priced <= shadow.budget

    # --- running them ---

    def run(self, shadow: Shadow, side: Side, work: Callable[[Side], Answer], done: Done) -> None:
        """Run `work` in a thread; `done` gets its answer and the seconds that it took."""
        one = self._begun(shadow, side, done)
        with self._lock:
            workers = self._workers.get(shadow.concurrency)
            if workers is None:
                workers = self._workers[shadow.concurrency] = Workers(
                    "routellm-shadow", shadow.concurrency, stuck_after=shadow.timeout
                )

        def task() -> None:
            one.since = time.perf_counter()
            try:
                answer = Context().run(work, side)
            except BaseException as error:
                answer = Answer(error=type(error).__name__)
            self.ended(one, answer)

        try:
            workers.submit(task)
        except RuntimeError:  # no thread can be started any more: the program is ending
            self.skip(one)

    def start(self, shadow: Shadow, side: Side, work: Callable[[Side], Awaitable[Answer]], done: Done) -> None:
        """Run the coroutine as a task of the running event loop: a client's connections belong to their loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        one = self._begun(shadow, side, done)
        one.loop = loop
        turns = self._turns.setdefault(loop, asyncio.Semaphore(shadow.concurrency))

        async def task() -> None:
            try:
                async with turns:
                    one.since = time.perf_counter()
                    answer = await asyncio.wait_for(work(side), shadow.timeout)
            except asyncio.CancelledError:  # the loop is ending
                self.skip(one)
                raise
            except Exception as error:
                answer = Answer(error=type(error).__name__)
            self.ended(one, answer)

        running = loop.create_task(task(), context=Context(), name="routellm-shadow")
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    def _begun(self, shadow: Shadow, side: Side, done: Done) -> _Running:
        with self._lock:
            self._number += 1
            one = self._running[self._number] = _Running(self._number, shadow, side, done)
            return one

    def _expired(self) -> list[_Running]:
        now = time.perf_counter()
        return [
            one
            for one in self._running.values()
            if one.since is not None and one.loop is None and now - one.since > one.shadow.timeout
        ]

    def skip(self, one: _Running) -> None:
        """Count a shadow call that will not come."""
        if self._claimed(one):
            with self._lock:
                self.skipped += 1
                self._forget(one)

    def ended(self, one: _Running, answer: Answer) -> None:
        """Take an answer in, unless it comes too late."""
        if not self._claimed(one):
            return
        one.done(one.side, answer, time.perf_counter() - (one.since or time.perf_counter()))
        cost = self._cost(answer, one.side) if answer.error is None else None
        with self._lock:
            if answer.error is None:
                self._pairs += 1
            if cost is not None:
                self._spent += cost
                self._priced += 1
            unknown = cost is None and answer.error is None and one.shadow.budget is not None
            warn = unknown and not self._unpriced
            self._unpriced = self._unpriced or unknown
            if not warn:
                self._forget(one)
        if warn:
            logger.warning(
                "shadow calls end: what one costs is unknown, so that budget=%g cannot be kept; the log needs prices= "
                "of both models, and the models have to report their tokens",
                one.shadow.budget,
            )
            with self._lock:
                self._forget(one)

    def _claimed(self, one: _Running) -> bool:
        """Whether the end of a shadow call is the caller's to tell: nobody has told it before."""
        with self._lock:
            if one.is_over or one.number not in self._running:
                return False
            one.is_over = True
            return True

    def _forget(self, one: _Running) -> None:
        """Strike a shadow call out, once all that it leaves is recorded; the lock is held."""
        self._running.pop(one.number, None)
        self._finished.notify_all()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the shadow calls that are under way now and can end while the caller waits.

        Those of the caller's own event loop, and of one that does not run, cannot.

        Args:
            seconds: How long to wait at most; None waits until each has ended or has used up its timeout.
        """
        import asyncio

        try:
            own: Any = asyncio.get_running_loop()
        except RuntimeError:
            own = None
        until = math.inf if seconds is None else time.monotonic() + seconds
        with self._lock:
            newest = self._number  # an app that goes on begins others meanwhile
        while True:
            with self._lock:
                if not any(
                    one.number <= newest and (one.loop is None or (one.loop is not own and one.loop.is_running()))
                    for one in self._running.values()
                ):
                    return
                left = until - time.monotonic()
                if left <= 0:
                    return
                expired = self._expired()
                if not expired:
                    self._finished.wait(min(left, 0.1))
            for one in expired:
                self.ended(one, Answer(error="TimeoutError"))

    async def await_own(self, seconds: float | None = None) -> None:
        """Wait for the shadow calls of the running event loop, each of which has its timeout."""
        import asyncio

        loop = asyncio.get_running_loop()
        own = [task for task in self._tasks if task.get_loop() is loop]
        if own:
            await asyncio.wait(own, timeout=seconds)

    def take_skipped(self, *, all_running: bool = False) -> int:
        """How many were skipped since this was asked last; with `all_running` those that are under way, too."""
        with self._lock:
            if all_running:
                self.skipped += len(self._running)
                self._running.clear()
            skipped, self.skipped = self.skipped, 0
            return skipped


@dataclass(slots=True, eq=False)
class _Running:
    """A shadow call that waits or runs."""

    number: int
    shadow: Shadow
    side: Side
    done: Done
    since: float | None = None  # when it began
    loop: Any = None  # the event loop that it belongs to, if any
    is_over: bool = False
