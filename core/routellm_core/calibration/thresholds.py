"""From a share of strong calls to a threshold and back, on a sample of win rates, exact with ties."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from routellm_core.checks import MAX_COUNT, checked_fraction, checked_real_numbers, read_only
from routellm_core.errors import ConfigurationError

Floats = npt.NDArray[np.float64]


class WinRateDistribution:
    """How often each win rate occurs in a sample of prompts.

    A call goes to the strong model when its win rate >= threshold, so tied prompts always go together: the shares that
    can be reached are those of the distinct win rates.

    Args:
        values: Distinct win rates in [0, 1], ascending, (m,) with m >= 1.
        counts: How many prompts have each, (m,), all >= 1.

    Attributes:
        values: The same, float64 (m,), not writeable.
        counts: The same, int64 (m,), not writeable.
        count: Number of prompts.

    Raises:
        ConfigurationError: The arrays are not of this form.
    """

    __slots__ = ("_tail", "count", "counts", "values")

    def __init__(self, values: npt.ArrayLike, counts: npt.ArrayLike) -> None:
        self.values = read_only(checked_real_numbers(values, "values"))
        self.counts = read_only(_whole_numbers(counts))
        if self.values.ndim != 1 or self.values.shape != self.counts.shape or not self.values.size:
            raise ConfigurationError(
                f"values of shape {self.values.shape} with counts of shape {self.counts.shape}: "
                "expected two one-dimensional arrays of one length >= 1"
            )
        inside = (self.values >= 0.0) & (self.values <= 1.0)
        if not inside.all():
            raise ConfigurationError(
                f"win rate {self.values[~inside][0]}: expected numbers between 0 and 1; a router must not return NaN"
            )
        if (np.diff(self.values) <= 0).any() or (self.counts < 1).any():
            raise ConfigurationError("values must ascend without repetition and counts be >= 1; use from_win_rates")
        # summed as floats, which do not overflow
        if self.counts.sum(dtype=np.float64) > MAX_COUNT:
            raise ConfigurationError(
                f"counts of {self.counts.sum(dtype=np.float64):g} prompts: at most 2^53 are possible"
            )
        self.count = int(self.counts.sum())
        # _tail[k]: prompts with win rate >= values[k]; nothing is above the last value, hence the 0 at the end
        self._tail = read_only(np.append(np.cumsum(self.counts[::-1])[::-1], 0))

    @classmethod
    def from_win_rates(cls, win_rates: npt.ArrayLike) -> Self:
        """The distribution of win rates (n,), n >= 1, in any order."""
        return cls(*distinct(win_rates))

    def threshold(self, *, strong_fraction: float) -> float:
        """The threshold whose strong share on the sample is closest to the wanted one.

        It lies midway between two neighbouring win rates, so that rounding does not move a prompt. Of two equally close
        shares, the smaller (cheaper) is taken. ``strong_fraction(threshold=...)`` says what is reached.

        Args:
            strong_fraction: Wanted share of strong calls, in [0, 1].

        Returns:
            A threshold in [0, 1].
        """
        wanted = checked_fraction(strong_fraction, "strong_fraction")
        # candidate k sends values[k:] to strong; no threshold reaches k = m, a share of 0, when a win rate is exactly 1
        reachable = self._tail if self.values[-1] < 1.0 else self._tail[:-1]
        distance = np.abs(reachable / self.count - wanted)
        # reversed: of equal distances, argmin then finds the larger k, which is the smaller share
        k = len(reachable) - 1 - int(np.argmin(distance[::-1]))
        return threshold_after(self.values[::-1], len(self.values) - k)

    def strong_fraction(self, *, threshold: float) -> float:
        """The share of the sample with win rate >= threshold."""
        at = checked_fraction(threshold, "threshold")
        return float(self._tail[int(np.searchsorted(self.values, at, side="left"))] / self.count)

    def realised_fraction(self, *, strong_fraction: float) -> float:
        """The strong share on the sample that the threshold for `strong_fraction` reaches: the closest possible."""
        return self.strong_fraction(threshold=self.threshold(strong_fraction=strong_fraction))

    def percentile(self, win_rate: float) -> float:
        """Share of the sample, in [0, 1], whose win rate lies below `win_rate`; tied prompts count half."""
        at = checked_fraction(win_rate, "win_rate")
        below = self.count - self._tail[int(np.searchsorted(self.values, at, side="left"))]
        upto = self.count - self._tail[int(np.searchsorted(self.values, at, side="right"))]
        return float((below + upto) / 2 / self.count)


def distinct(win_rates: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Distinct win rates in ascending order, and how often each occurs, of win rates (n,), n >= 1."""
    values, counts = np.unique(checked_real_numbers(win_rates, "win_rates"), return_counts=True)
    return values, counts.astype(np.int64)


def _whole_numbers(counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    try:
        array = np.asarray(counts)
        whole = array.dtype.kind in "iu" and not (array > np.iinfo(np.int64).max).any()
    except (TypeError, ValueError, OverflowError, RecursionError):
        whole = False
    if not whole:
        raise ConfigurationError("counts: expected whole numbers of prompts, each below 2^63")
    return array.astype(np.int64)


def threshold_after(values: Floats, groups: int) -> float:
    """The threshold in [0, 1] that sends the first `groups` of distinct, descending win rates to the strong model."""
    if groups == 0:
        return 1.0  # a win rate of exactly 1 is strong at every threshold
    if groups == len(values):
        return 0.0
    return between(float(values[groups]), float(values[groups - 1]))


def between(low: float, high: float) -> float:
    """A threshold that separates two win rates: above `low`, not above `high`; midway where floats allow it."""
    middle = low + (high - low) / 2.0
    # of neighbouring floats, the middle rounds to either; rounded down it would send both to the strong model
    return middle if middle > low else high
