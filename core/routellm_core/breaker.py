"""Breaker: stops using something that keeps failing, and lets one call at a time try it again later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from routellm_core.forks import fork_safe_lock


class Breaker:
    """Opens after several failures in a row. While it is open, only one call per waiting time may try, as a probe.

    A success closes it. While probes keep failing, the waiting time doubles, up to `longest`. Safe for threads; a
    forked child and a copy in another process start with a closed breaker of their own.

    Args:
        failures: How many failures in a row open it.
        wait: Seconds until the first probe.
        longest: Seconds that the wait may grow to.
        clock: Seconds, monotonic; for tests.
    """

    def __init__(
        self, *, failures: int, wait: float, longest: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.failures = failures
        self.wait = wait
        self.longest = longest
        self._clock = clock
        self._lock = fork_safe_lock(self, "_lock")
        self._in_a_row = 0
        self._probes = 0
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it is open, also when a probe is due."""
        return self._in_a_row >= self.failures

    def allows(self) -> bool:
        """Whether the caller may try; while open, the first caller after each wait may, as a probe."""
        if self._in_a_row < self.failures:  # without the lock: the way of every call
            return True
        with self._lock:
            if self._in_a_row < self.failures:
                return True
            now = self._clock()
            if now < self._next_probe:
                return False
            # a probe that never returns must not prevent the next one
            self._probes += 1
            self._next_probe = now + self._patience()
            return True

    def failed(self) -> None:
        """Record a failure."""
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row == self.failures:
                self._probes = 0
                self._next_probe = self._clock() + self.wait

    def succeeded(self) -> None:
        """Record a success, which closes the breaker."""
        if self._in_a_row:
            with self._lock:
                self._in_a_row = 0

    def _patience(self) -> float:
        return min(self.longest, self.wait * 2.0**self._probes)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_in_a_row", "_probes", "_next_probe")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = fork_safe_lock(self, "_lock")
        self._in_a_row = self._probes = 0
        self._next_probe = 0.0
