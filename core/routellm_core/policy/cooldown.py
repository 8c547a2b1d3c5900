"""Cooldown: skips a side that has just failed for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from routellm_core.breaker import Breaker
from routellm_core.checks import Side, checked_seconds, refuses_unknown_options

DEFAULT_SECONDS = 5.0


@refuses_unknown_options
class Cooldown:
    """Skips a side that has failed, so that not every call waits for a dead model to time out.

    One failure starts it. After each waiting time one call goes to the side as a probe; an answer ends the cooldown.
    All calls of a routed model and of its copies share it. Safe for threads; a forked child and a copy in another
    process start without failures.

    Args:
        seconds: How long a side is skipped after a failure, and the time between two probes.
        clock: Seconds, monotonic; for tests.
    """

    def __init__(self, seconds: float = DEFAULT_SECONDS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._breakers: dict[Side, Breaker] = {
            "strong": Breaker(failures=1, wait=seconds, longest=seconds, clock=clock),
            "weak": Breaker(failures=1, wait=seconds, longest=seconds, clock=clock),
        }

    @classmethod
    def of(cls, cooldown: Any) -> Self | None:
        """Build what ``cooldown=`` describes: None for None or 0, else a cooldown of that many seconds."""
        if isinstance(cooldown, cls):
            return cooldown
        if not isinstance(cooldown, bool) and cooldown == 0:
            return None
        seconds = checked_seconds(cooldown, "cooldown", without="or 0 to skip nothing")
        return None if seconds is None else cls(seconds)

    def allows(self, side: Side) -> bool:
        """Whether a call may go to `side`: it is not cooling down, or this call is its probe."""
        return self._breakers[side].allows()

    def is_cooling(self, side: Side) -> bool:
        """Whether `side` has failed and has not answered since."""
        return self._breakers[side].is_open

    def failed(self, side: Side) -> None:
        """Record that `side` failed in a way that another model could survive."""
        self._breakers[side].failed()

    def answered(self, side: Side) -> None:
        """Record that `side` answered."""
        self._breakers[side].succeeded()
