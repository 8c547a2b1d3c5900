"""OnlineCalibration: keeps the share of strong calls on target while traffic changes, and reports the change."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration, HasFingerprint
from routellm_core.calibration.thresholds import between
from routellm_core.checks import (
    MAX_COUNT,
    MAX_STATE_BYTES,
    checked_count,
    checked_fraction,
    damage_named,
    is_number,
    read_json_object,
    shown,
    write_json,
)
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError
from routellm_core.forks import fork_safe_lock

FORMAT = 1
# A change of this size matters: with it, any threshold's share can be off by 10 points.
_MIN_DISTANCE = 0.10
# One false alarm in a thousand looks at unchanged traffic.
_ALARM = 1e-3
_MIN_OBSERVED = 200
_FIELDS = ("format", "strong_fraction", "window", "observed", "strong", "owed", "recent", "calibration")
_ANEW = "start over with OnlineCalibration(calibration, strong_fraction)"


@dataclass(frozen=True, slots=True)
class DriftReport:
    """How far recent prompts are from those of the calibration.

    Attributes:
        drifted: Whether the difference is larger than chance makes it, and large enough to matter (a distance of 0.1,
            which is what the share of strong calls at a fixed threshold can be off by).
        distance: Kolmogorov-Smirnov distance of the two distributions of win rates, in [0, 1].
        p_value: Probability of such a distance or a larger one when nothing has changed.
        fixed_share: Share of the recent prompts that the threshold of the calibration would send to the strong model.
        observed: Number of recent prompts that were compared.
    """

    drifted: bool
    distance: float
    p_value: float
    fixed_share: float
    observed: int

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


class OnlineCalibration:
    """A threshold that follows the traffic, so that the share of strong calls stays on target.

    The threshold is the wanted quantile of the last `window` win rates. The share that it aims at is corrected by
    what has been sent too much or too little so far, so the long-run share holds through changes of traffic, with
    tied win rates, and from the first call on. A threshold never depends on the very prompt it is used for.

    Memory is bounded by `window`. One instance may be shared by any number of threads; each call of `observe` is
    atomic. It is meant for one stream of traffic: two policies that share one see each other's prompts.

    Args:
        calibration: A `Calibration`, or win rates (n,): where the threshold starts, and what drift is measured from.
        strong_fraction: Wanted share of strong calls in [0, 1].
        window: How many recent win rates to go by. Shorter follows faster, longer is steadier.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    def __init__(self, calibration: Calibration | npt.ArrayLike, strong_fraction: float, *, window: int = 2000) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 50:
            raise ConfigurationError(f"window={shown(window)}: expected an integer >= 50")
        if not isinstance(calibration, Calibration):
            calibration = Calibration.from_win_rates(calibration)
        self.calibration = calibration.condensed()
        self.strong_fraction = checked_fraction(strong_fraction, "strong_fraction")
        self.window = window
        self._file: Path | None = None
        self._lock = fork_safe_lock(self, "_lock", repair=OnlineCalibration._repair)
        self._fixed = self.calibration.threshold(strong_fraction=self.strong_fraction)
        self._observed = 0
        self._strong = 0
        self._owed = 0.0
        # Until traffic fills the window, evenly spaced quantiles of the calibration stand in for it.
        upto = np.cumsum(self.calibration.counts)
        ranks = (np.arange(window) + 0.5) / window * self.calibration.count
        seeds = self.calibration.values[np.searchsorted(upto, ranks, side="left")]
        # They leave the window in an order that keeps what remains spread out.
        self._fill(np.random.default_rng(0).permutation(seeds).tolist())

    def _fill(self, values: list[float]) -> None:
        self._recent = deque(values)
        self._sorted = sorted(values)

    def _repair(self) -> None:
        """Restore the window in a child process that was forked in the middle of `observe`."""
        recent = list(self._recent)[-self.window :]
        self._fill(recent + recent[: self.window - len(recent)])

    @property
    def threshold(self) -> float:
        """The threshold for the next prompt: it is strong when its win rate is >= this."""
        with self._lock:
            return self._threshold()

    @property
    def observed(self) -> int:
        """Number of prompts observed."""
        return self._observed

    @property
    def realised(self) -> float:
        """Share of the observed prompts that the thresholds sent to the strong model; NaN before the first."""
        with self._lock:
            return self._strong / self._observed if self._observed else math.nan

    def observe(self, win_rate: float) -> float:
        """Record the win rate of the next prompt and return the threshold that decides it.

        Args:
            win_rate: Its win rate in [0, 1].

        Returns:
            The threshold that held before this prompt was seen; strong when ``win_rate >= threshold``.

        Raises:
            ConfigurationError: Not a number in [0, 1].
        """
        value = checked_fraction(win_rate, "win_rate")
        with self._lock:
            threshold = self._threshold()
            strong = value >= threshold
            self._observed += 1
            self._strong += strong
            # Capped, so that thousands of later calls need not make up for a stretch of traffic that left no choice.
            cap = self.window / 2.0
            self._owed = min(cap, max(-cap, self._owed + self.strong_fraction - strong))
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._recent.append(value)
            insort(self._sorted, value)
            return threshold

    def correct(self, strong: int) -> None:
        """Note that a call did not go where its threshold said: +1 where it went to the strong model instead, else -1.

        Exploration and sticky conversations cause this; the share on target is that of the sides that answer.
        """
        with self._lock:
            cap = self.window / 2.0
            self._strong += strong
            self._owed = min(cap, max(-cap, self._owed - strong))

    def observe_batch(self, win_rates: Iterable[float]) -> list[float]:
        """`observe` for each of several prompts, in order."""
        return [self.observe(value) for value in win_rates]

    def _threshold(self) -> float:
        if self.strong_fraction in (0.0, 1.0):
            return self._fixed
        # What is owed is paid back over a tenth of a window, so the share over any longer stretch is on target.
        aim = self.strong_fraction + self._owed / max(20.0, self.window / 10.0)
        strong = round(min(1.0, max(0.0, aim)) * self.window)
        if strong <= 0:
            return min(1.0, math.nextafter(self._sorted[-1], 2.0))
        if strong >= self.window:
            return 0.0
        high, low = self._sorted[self.window - strong], self._sorted[self.window - strong - 1]
        if high > low:
            return between(low, high)
        # The cut falls among tied win rates, which go together: strong while calls are owed, else weak.
        return high if self._owed >= 0 else min(1.0, math.nextafter(high, 2.0))

    @property
    def drift(self) -> DriftReport:
        """Compare the recent prompts with those of the calibration.

        With fewer than 200 observed prompts, `drifted` is always False.
        """
        with self._lock:
            count = min(self._observed, self.window)
            recent = np.sort(np.fromiter(self._recent, dtype=np.float64, count=self.window)[self.window - count :])
        if count == 0:
            return DriftReport(False, 0.0, 1.0, math.nan, 0)
        reference = self.calibration
        at = np.union1d(reference.values, recent)
        upto = np.concatenate(([0], np.cumsum(reference.counts)))
        expected = upto[np.searchsorted(reference.values, at, side="right")] / reference.count
        seen = np.searchsorted(recent, at, side="right") / count
        distance = float(np.abs(expected - seen).max())
        p_value = _ks_p_value(distance, count * reference.count / (count + reference.count))
        return DriftReport(
            drifted=count >= _MIN_OBSERVED and p_value < _ALARM and distance >= _MIN_DISTANCE,
            distance=distance,
            p_value=p_value,
            fixed_share=float((recent >= self._fixed).mean()),
            observed=count,
        )

    def check_router(self, router: HasFingerprint) -> None:
        """Refuse to serve a router that the calibration was not fitted on; see `Calibration.check_router`."""
        try:
            self.calibration.check_router(router)
        except ConfigurationError as exc:
            where = "" if self._file is None else f"{self._file}: "
            raise ConfigurationError(f"{where}online {exc}, and {_ANEW}") from None

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values; `from_dict` goes on from exactly here."""
        with self._lock:
            return {
                "format": FORMAT,
                "strong_fraction": self.strong_fraction,
                "window": self.window,
                "observed": self._observed,
                "strong": self._strong,
                "owed": self._owed,
                "recent": list(self._recent),
                "calibration": self.calibration.to_dict(),
            }

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The state that `to_dict` described.

        Raises:
            CheckpointError: `data` does not have the form that `to_dict` returns.
        """
        if not isinstance(data, dict):
            raise CheckpointError(f"not a saved online calibration but a {type(data).__name__}; {_ANEW}")
        if "values" in data and "counts" in data:
            raise CheckpointError(
                f"not a saved online calibration: it is a Calibration, read it with Calibration.load and {_ANEW}"
            )
        version = data.get("format", FORMAT)
        if type(version) is not int or version != FORMAT:
            raise CheckpointError(
                f"online calibration format {shown(version)}: this version reads {FORMAT}; update the package, "
                f"or {_ANEW}"
            )
        lacking = [name for name in _FIELDS if name not in data]
        if lacking:
            raise CheckpointError(f"not a saved online calibration: it has no {lacking[0]!r}; {_ANEW}")
        if not isinstance(data["recent"], list):
            raise CheckpointError(
                f"not a saved online calibration: recent={shown(data['recent'])} is not a list; {_ANEW}"
            )
        try:
            recent = [checked_fraction(v, "recent") for v in data["recent"]]
            if len(recent) != data["window"]:  # before so much memory is taken for the window
                raise ValueError(
                    f"{len(recent)} recent win rates with window={shown(data['window'])}, expected as many"
                )
            out = cls(Calibration.from_dict(data["calibration"]), data["strong_fraction"], window=data["window"])
            observed = checked_count(data["observed"], "observed", least=0, unit="prompts")
            strong = checked_count(data["strong"], "strong", least=0, unit="prompts")
        except ValueError as exc:
            raise CheckpointError(f"not a saved online calibration: {exc}; {_ANEW}") from exc
        owed = data["owed"]
        # `observe` never lets it grow beyond half a window
        if strong > observed or observed > MAX_COUNT or not is_number(owed) or abs(owed) > out.window / 2.0:
            raise CheckpointError(
                f"not a saved online calibration: observed={shown(observed)}, strong={shown(strong)}, "
                f"owed={shown(owed)} contradict each other, or the window of {out.window}; {_ANEW}"
            )
        out._fill(recent)
        out._observed, out._strong, out._owed = observed, strong, float(owed)
        return out

    def save(self, path: str | Path) -> None:
        """Write the state to `path` as JSON; the file is written completely or not at all."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a state that `save` wrote.

        Raises:
            CheckpointNotFoundError: No such file.
            CheckpointError: The file is not a saved state.
        """
        file = Path(path)
        missing = f"pass the file that OnlineCalibration.save wrote, or {_ANEW}"
        try:
            data = read_json_object(file, missing, max_bytes=MAX_STATE_BYTES)
        except CheckpointNotFoundError:
            raise
        except CheckpointError as exc:
            raise CheckpointError(f"{exc}; {_ANEW}") from exc
        try:
            with damage_named(file, "is not a saved online calibration"):
                out = cls.from_dict(data)
        except CheckpointError as exc:
            raise CheckpointError(f"{file}: {exc}") from exc
        out._file = file
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        # the lock cannot be copied to another process; the state can
        return type(self).from_dict, (self.to_dict(),)

    def __repr__(self) -> str:
        return (
            f"OnlineCalibration(strong_fraction={self.strong_fraction}, window={self.window}, observed={self.observed})"
        )


def _ks_p_value(distance: float, effective: float) -> float:
    """Kolmogorov's limit law with Stephens' correction for finite samples; conservative where win rates are tied."""
    root = math.sqrt(effective)
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return 1.0  # the series converges slowly there, and the answer is 1 to twelve digits
    terms = (2.0 * (-1.0) ** (k - 1) * math.exp(-2.0 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))
