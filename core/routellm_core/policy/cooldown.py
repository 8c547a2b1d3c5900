"""Cooldown: a side that has just failed is passed over for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from routellm_core.checks import Side, checked_seconds
from routellm_core.policy.breaker import Breaker

DEFAULT_SECONDS = 5.0


class Cooldown:
    """Passes over a side that has failed, so that a dead model does not cost every call its time-out.

    One failure is enough. Each time the wait is over, one call goes to the side as a probe; an answer ends the
    cooldown. All calls of one routed model and of its copies share it. Safe for threads; a forked child, and a copy
    in another process, start without any failure.

    Args:
        seconds: How long a side is passed over after a failure, and from one probe to the next.
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
        """What ``cooldown=`` means: None or 0, no cooldown; a number of seconds; or itself."""
        if isinstance(cooldown, cls):
            return cooldown
        if not isinstance(cooldown, bool) and cooldown == 0:
            return None
        seconds = checked_seconds(cooldown, "cooldown", without="or 0 to pass over nothing")
        return None if seconds is None else cls(seconds)

    def allows(self, side: Side) -> bool:
        """Whether a call may go to `side`: it is not cooling down, or this call is its probe."""
        return self._breakers[side].allows()

    def is_cooling(self, side: Side) -> bool:
        """Whether `side` has failed and has not answered since."""
        return self._breakers[side].is_open

    def failed(self, side: Side) -> None:
        """Note that `side` failed in a way that another model could survive."""
        self._breakers[side].failed()

    def answered(self, side: Side) -> None:
        """Note that `side` answered."""
        self._breakers[side].succeeded()
