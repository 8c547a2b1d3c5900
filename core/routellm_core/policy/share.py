"""A share of strong calls that misses: noticed, and said with what to do about it."""

from __future__ import annotations

import logging
import math

logger = logging.getLogger(__name__)

# Fewer calls say too little about a share.
_FEWEST = 50
# A miss by less than this many points, or by less than chance explains, is no reason to calibrate anew.
_MISS = 0.1
_ERRORS = 4.0
# When a running policy looks at its share; after the last time it counts no more.
_LOOKS = (100, 300, 1000)


def missed_share(wanted: float, strong: int, count: int, calls: str = "calls") -> str | None:
    """What to do where the realised share of strong calls is far from the wanted one; None where it is not.

    Args:
        wanted: The wanted share.
        strong: Strong calls.
        count: All calls.
        calls: What to call them.
    """
    if count < _FEWEST:
        return None
    realised = strong / count
    if abs(realised - wanted) <= max(_MISS, _ERRORS * math.sqrt(wanted * (1.0 - wanted) / count)):
        return None
    return (
        f"{realised:.0%} of {count:,} {calls} were strong, but {wanted:.0%} are wanted: these prompts differ from "
        "those that the router was calibrated on. Calibrate it on them (routellm calibrate --data PROMPTS, then "
        "calibration=), or let the threshold follow the traffic (online=True)"
    )


class ShareWatch:
    """Logs one warning when the share of strong calls of a running policy is far from the wanted one.

    Threads may lose a count to one another; that does not matter here.

    Args:
        wanted: The wanted share.
        calls: What to call the calls that it is a share of.
    """

    def __init__(self, wanted: float, calls: str = "calls") -> None:
        self._wanted = wanted
        self._calls = calls
        self._strong = self._count = 0
        self._done = False

    def note(self, *, strong: bool) -> None:
        """Count a call that the win rate decided."""
        if self._done:
            return
        self._strong += strong
        self._count += 1
        if self._count in _LOOKS:
            message = missed_share(self._wanted, self._strong, self._count, self._calls)
            if message is not None:
                logger.warning("%s", message)
            self._done = message is not None or self._count >= _LOOKS[-1]
