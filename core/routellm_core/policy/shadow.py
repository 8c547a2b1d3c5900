"""Shadow: which share of the calls the other side answers, too, and where that ends."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

from routellm_core.checks import (
    checked_count,
    checked_fraction,
    checked_seconds,
    is_number,
    refuses_unknown_options,
    shown,
)
from routellm_core.errors import ConfigurationError

# Enough to learn a correction of the router and to give a verdict.
MAX_PAIRS = 2000


@refuses_unknown_options
@dataclass(frozen=True, slots=True)
class Shadow:
    """Has the other side answer a share of the calls in the background, for pairs to learn from.

    Nobody gets these answers, and no call waits for them. They end at `max_pairs` or `budget`, whichever comes first.

    Attributes:
        fraction: Share of the calls, in [0, 1].
        max_pairs: Pairs in the log at which it ends; None goes on.
        budget: Money for all shadow answers in the log, by the log's ``prices=``, at which it ends; None sets no limit.
        concurrency: Shadow calls that run at the same time.
        timeout: Seconds after which a shadow call counts as failed.
    """

    fraction: float
    max_pairs: int | None = MAX_PAIRS
    budget: float | None = None
    concurrency: int = 4
    timeout: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", checked_fraction(self.fraction, "Shadow(fraction)"))
        if self.max_pairs is not None:
            checked_count(self.max_pairs, "Shadow(max_pairs)", unit="pairs")
        if self.budget is not None and (not is_number(self.budget) or not self.budget > 0):
            raise ConfigurationError(f"Shadow(budget={shown(self.budget)}): expected money, a number > 0, or None")
        checked_count(self.concurrency, "Shadow(concurrency)", unit="calls")
        if checked_seconds(self.timeout, "Shadow(timeout)", without="is not allowed here") is None:
            raise ConfigurationError("Shadow(timeout=None): expected a number of seconds > 0")

    @classmethod
    def of(cls, shadow: Any) -> Self | None:
        """What ``shadow=`` means: a share, or itself; None where it is 0."""
        if isinstance(shadow, cls):
            return shadow if shadow.fraction else None
        fraction = checked_fraction(shadow, "shadow")
        return cls(fraction) if fraction else None

    def draws(self, call: str) -> bool:
        """Whether the call of this id is one of the share: by a hash, so that a retry does not draw again."""
        drawn = blake2b(call.encode("utf-8", "surrogatepass"), digest_size=8, person=b"shadow").digest()
        return int.from_bytes(drawn) < self.fraction * 2.0**64
