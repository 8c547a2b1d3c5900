"""Exploration: a fair coin decides some calls instead of the threshold, and the decision records the probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.checks import Side, checked_fraction, is_number, shown
from routellm_core.errors import ConfigurationError

_DRAWS = 16**8


@dataclass(frozen=True, slots=True)
class Exploration:
    """Which calls a fair coin decides.

    Attributes:
        chance: Chance in (0, 1] that a call is explored.
        low: Lowest win rate that is explored.
        high: Highest win rate that is explored.
    """

    chance: float
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, explore: Any, band: Any) -> Exploration | None:
        """Build the exploration that the options ``explore=`` and ``explore_band=`` describe; None explores nothing.

        Raises:
            ConfigurationError: A value is not allowed, or a band is set without a chance to explore.
        """
        chance = checked_fraction(explore, "explore")
        if band is None:
            return cls(chance) if chance else None
        sound = isinstance(band, tuple | list) and len(band) == 2 and all(is_number(v) and 0 <= v <= 1 for v in band)
        if not sound or band[0] > band[1]:
            raise ConfigurationError(
                f"explore_band={shown(band)}: expected two win rates (low, high) with 0 <= low <= high <= 1"
            )
        if not chance:
            raise ConfigurationError(f"explore_band={band!r:.80} says where to explore: give explore= too")
        return cls(chance, float(band[0]), float(band[1]))

    def drawn(self, decision_id: str, win_rate: float, side: Side) -> tuple[Side, bool, float]:
        """Decide whether the coin chooses the side of one call, and toss it.

        The random numbers are digits of the decision's id, so repeating a call with the same id gives the same result.

        Args:
            decision_id: Random hex digits.
            win_rate: The call's win rate.
            side: The side that the threshold chose.

        Returns:
            The side that answers, whether the coin chose it, and the probability of the strong side beforehand.
        """
        by_threshold = float(side == "strong")
        if not self.low <= win_rate <= self.high:
            return side, False, by_threshold
        p_strong = self.chance / 2.0 + (1.0 - self.chance) * by_threshold
        if int(decision_id[:8], 16) >= self.chance * _DRAWS:
            return side, False, p_strong
        return ("strong" if int(decision_id[8:16], 16) * 2 >= _DRAWS else "weak"), True, p_strong

    def p_strong(self, win_rates: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.float64]:
        """Probability of the strong side for each of n win rates, float64 (n,)."""
        by_threshold = (win_rates >= threshold).astype(np.float64)
        explored = self.chance / 2.0 + (1.0 - self.chance) * by_threshold
        return np.where((win_rates >= self.low) & (win_rates <= self.high), explored, by_threshold)

    def threshold(self, calibration: Calibration, strong_fraction: float) -> float:
        """The threshold whose share of strong calls, explored ones included, is closest to the wanted one.

        Raises:
            ConfigurationError: The coin alone sends more, or fewer, calls to the strong model.
        """
        values, counts = calibration.values, calibration.counts / calibration.count
        explored = counts * ((values >= self.low) & (values <= self.high))
        # share of the calls at or above each value; the last entry is the empty share, 0
        above = np.append(np.cumsum(counts[::-1])[::-1], 0.0)
        explored_above = np.append(np.cumsum(explored[::-1])[::-1], 0.0)
        shares = above + self.chance * (explored.sum() / 2.0 - explored_above)
        least, most = float(shares[-1]), float(shares[0])
        if not least - 1e-9 <= strong_fraction <= most + 1e-9:
            raise ConfigurationError(
                f"strong_fraction={strong_fraction} with explore={self.chance}: the coin alone keeps the share "
                f"between {least:.3g} and {most:.3g}; explore less, or choose a share in that range"
            )
        return calibration.threshold(strong_fraction=float(above[int(np.argmin(np.abs(shares - strong_fraction)))]))
