"""Bootstrap intervals of the metrics, and the paired comparison of two routers.

Prompts are drawn with replacement. A draw is stored as how often each prompt was drawn, so all draws of a metric are
a few operations on matrices, in blocks of bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, checked_fraction, is_number
from routellm_core.errors import ConfigurationError
from routellm_core.statistics.metrics import (
    Floats,
    Ranked,
    checked_gap,
    checked_rows,
    complementary,
    curve_metrics,
    gains,
    point_metrics,
    tolerance,
)

LEVELS = (0.5, 0.8)
# Cells of one block of bootstrap draws: bounds the memory of any call to some tens of MB.
BLOCK_CELLS = 1 << 21
# With fewer rows than this, a bootstrap of a mean underestimates the spread.
FEWEST = 30
# With more rows than this, the bootstrap of a mean is normal in every digit shown, so it is drawn from a normal.
_NORMAL_FROM = 50_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: The estimate on the sample; NaN where it is undefined.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, float | None]:
        """Return the three numbers as JSON scalars; NaN becomes None."""
        return {name: _json_number(getattr(self, name)) for name in ("value", "low", "high")}


@dataclass(frozen=True, slots=True)
class Resampling:
    """How the intervals of one result are drawn.

    Args:
        draws: Number of bootstrap draws, >= 1.
        confidence: Level of the intervals, between 0 and 1.
        seed: Seed of all draws and splits, >= 0.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    draws: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        checked_count(self.draws, "draws")
        checked_count(self.seed, "seed", least=0)
        if not is_number(self.confidence) or not 0.0 < self.confidence < 1.0:
            raise ConfigurationError(
                f"confidence={self.confidence!r:.80}: expected a number between 0 and 1, such as 0.95"
            )

    @property
    def tail(self) -> float:
        """The probability below the interval, which is also that above it."""
        return (1.0 - self.confidence) / 2.0

    def rng(self, stream: int | None = None) -> np.random.Generator:
        """A generator of random numbers; each `stream` is independent."""
        return np.random.default_rng(self.seed if stream is None else [self.seed, stream])

    def resample(self, count: int) -> Iterator[npt.NDArray[np.int32]]:
        """Bootstrap draws of `count` rows; see the function `resample`."""
        return resample(count, self.draws, self.rng())

    def interval(self, draws: npt.ArrayLike, value: float) -> Estimate:
        """Percentile interval of bootstrap draws around an estimate; undefined (NaN) draws are ignored."""
        values = np.asarray(draws, dtype=np.float64)
        values = values[np.isfinite(values)]
        if values.size == 0 or not np.isfinite(value):
            return Estimate(float(value), np.nan, np.nan)
        low, high = np.quantile(values, [self.tail, 1.0 - self.tail])
        # the draws of `resampled_means` lie around a mean that is pulled in a little
        return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def resample(count: int, draws: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int32]]:
    """Bootstrap draws as counts of how often each of `count` rows was drawn: blocks (b, count), `draws` rows in all."""
    rows = max(1, BLOCK_CELLS // max(1, count))
    for start in range(0, draws, rows):
        block = min(rows, draws - start)
        picked = rng.integers(0, count, size=(block, count), dtype=np.int64)
        picked += (np.arange(block, dtype=np.int64) * count)[:, None]
        yield np.bincount(picked.ravel(), minlength=block * count).reshape(block, count).astype(np.int32)


def resampled_means(rows: Floats, halves: Floats, how: Resampling, *, widen: float = 1.0) -> Floats:
    """Bootstrap draws (b, k) of the means of rows (n, k), corrected for what a plain bootstrap of few rows lacks.

    It is blind to what is too rare to be among the rows: if two models differ on 2 of the 4 prompts that a policy sends
    to one of them, many draws have no difference at all, and 85 % of 95 % intervals hold. So imagined rows, `halves`,
    join the sample and count half each, as Agresti and Min add half a pair to each cell of the table of two paired
    proportions ("Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24,
    2005). It is also too narrow: its variance is short by (n - 1) / n, and its quantiles are the normal ones where
    those of Student's t are meant (here to the first order), so the draws are spread by as much, by 3 % for 60 rows
    and 1 % for 300: Hesterberg's expanded percentile interval ("What teachers should know about the bootstrap", The
    American Statistician 69, 2015).

    Args:
        rows: One row for each prompt.
        halves: The imagined rows (m, k); see `opposite_scores` and `middle`.
        how: Number of draws, level and seed.
        widen: A further factor of the spread.
    """
    freedom = max(len(rows) - 1, 1)
    z = NormalDist().inv_cdf(1.0 - how.tail)
    widen *= math.sqrt(len(rows) / freedom) * (1.0 + (z * z + 1.0) / (4.0 * freedom))
    weights = np.repeat([1.0, 0.5], [len(rows), len(halves)])
    weighted = np.concatenate([rows, halves]) * weights[:, None]
    weighted = np.concatenate([weighted, weights[:, None]], axis=1)
    drawn = np.concatenate([counts @ weighted for counts in how.resample(len(weighted))])
    centre = weighted.sum(axis=0)
    means, mean = drawn[:, :-1] / drawn[:, -1:], centre[:-1] / centre[-1]
    return np.asarray(mean + (means - mean) * widen, dtype=np.float64)


def opposite_scores(strong: Floats, weak: Floats) -> tuple[float, float]:
    """A high and a low score that differ by as much as the models do where they do: 1 and 0, if scores are these.

    Their difference is the root mean square of the differences, and their mean that of all scores of these prompts.
    Without any difference, both are the mean score.
    """
    differ = strong != weak
    if not differ.any():
        return float(strong.mean()), float(strong.mean())
    middle = float((strong[differ] + weak[differ]).mean()) / 2.0
    half = float(np.sqrt(((strong[differ] - weak[differ]) ** 2).mean())) / 2.0
    return middle + half, middle - half


def middle(values: Floats) -> float:
    """The middle between what is frequent and what is rare: of two different values that between them.

    It is the mean plus half the third central moment over the second, so that imagined rows with it pull a mean by as
    much as its skewness asks: without that, intervals of costs, most of which are small, end too low.
    """
    deviations = values - values.mean()
    variance = float((deviations**2).mean())
    # costs that are all the same differ by rounding alone
    if variance <= 1e-24 * float(values.mean()) ** 2:
        return float(values.mean())
    return float(values.mean() + (deviations**3).mean() / variance / 2.0)


def mean_interval(values: Floats, how: Resampling) -> Estimate:
    """Studentized bootstrap interval of a mean: costs and losses are skewed, and percentiles would cover too little.

    See Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 12.5. With a handful of rows the
    percentile interval is used, because too many draws would have no spread.
    """
    rng = how.rng()
    n, mean, spread = values.size, float(values.mean()), float(values.std())
    tails = [(1.0 + how.confidence) / 2.0, (1.0 - how.confidence) / 2.0]
    if n > _NORMAL_FROM:
        low, high = mean - spread / np.sqrt(n) * np.quantile(rng.normal(size=how.draws), tails)
    else:
        both = np.stack([values, (values - mean) ** 2], axis=1)
        drawn = np.concatenate([counts @ both for counts in resample(n, how.draws, rng)]) / n
        spreads = np.sqrt(np.maximum(drawn[:, 1] - (drawn[:, 0] - mean) ** 2, 0.0))
        usable = spreads > 1e-9 * spread
        if n >= FEWEST and usable.any():
            low, high = mean - spread * np.quantile((drawn[usable, 0] - mean) / spreads[usable], tails)
        else:
            low, high = np.quantile(drawn[:, 0], tails[::-1])
    return Estimate(mean, float(min(low, mean)), float(max(high, mean)))


def ratio_interval(top: Floats, bottom: Floats, how: Resampling) -> Estimate:
    """Bootstrap interval of sum(top) / sum(bottom), over the draws in which the divisor is positive."""
    both = np.stack([top, bottom], axis=1)
    drawn = np.concatenate([counts @ both for counts in how.resample(top.size)])
    drawn = drawn[drawn[:, 1] > 0]
    return how.interval(drawn[:, 0] / drawn[:, 1], float(top.sum() / bottom.sum()))


def has_clear_gap(strong: Floats, weak: Floats, confidence: float) -> bool:
    """Whether the strong model is better by so much that ratios over the gap (PGR, APGR, CPT) say something.

    The gap's interval has to leave out zero, and the models must not be `complementary`.

    Args:
        strong: (n,) scores of the strong model.
        weak: (n,) scores of the weak model.
        confidence: Level of the interval.
    """
    gap = gains(strong, weak)
    error = NormalDist().inv_cdf((1.0 + confidence) / 2.0) * float(gap.std()) / math.sqrt(gap.size)
    return bool(gap.mean() > max(error, tolerance(strong, weak))) and not complementary(strong, weak)


def bootstrap(
    win_rates: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    levels: Sequence[float] = LEVELS,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Floats]:
    """Bootstrap distribution of the metrics of one router: prompts are drawn with replacement.

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        levels: PGR levels of the CPT columns.
        draws: Number of draws.
        seed: Seed of the draws; the same seed draws the same prompts for every router, so that draws are paired.

    Returns:
        ``apgr``, ``cpt_50``, ``saving_50``, ..., ``auc`` and ``hull_area`` as arrays (draws,); NaN in draws in which
        the strong model is not better than the weak one.

    Raises:
        DataError: The arrays are malformed.
        ConfigurationError: `draws` is not positive or a level is outside [0, 1].
    """
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    how = Resampling(draws=draws, seed=seed)
    ranked = Ranked(rates)
    parts: list[dict[str, Floats]] = []
    for counts in how.resample(rates.size):
        size, gain = ranked.grouped(counts, gains(strong, weak))
        parts.append(curve_metrics(size, gain, counts @ weak / rates.size, levels))
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def curve_band(
    win_rates: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    strong_fractions: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    draws: int = 300,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Pointwise bootstrap band of the curve's height above the straight line from always weak to always strong.

    Variation that all prompts share moves both and cancels, so the band shows how certain the gain over a random mix
    is.

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        strong_fractions: (k,) shares at which to compute the band.
        confidence: Level of the band.
        draws: Bootstrap draws.
        seed: Seed of the draws.

    Returns:
        Lower and upper ends (k,), in the unit of the scores, relative to that line.
    """
    how = Resampling(draws, confidence, seed)
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    at = np.asarray(strong_fractions, dtype=np.float64)
    ranked = Ranked(rates)
    heights = []
    for counts in how.resample(rates.size):
        size, gain = ranked.grouped(counts, gains(strong, weak))
        share = np.cumsum(size, axis=1) / rates.size
        above = np.cumsum(gain, axis=1) / rates.size
        above -= share * above[:, -1:]
        heights += [np.interp(at, s, a, left=0.0) for s, a in zip(share, above, strict=True)]
    low, high = np.quantile(np.array(heights), [how.tail, 1.0 - how.tail], axis=0)
    return low, high


@dataclass(frozen=True, slots=True)
class Comparison:
    """Difference of two routers on the same prompts.

    Attributes:
        metric: Name of the metric.
        difference: First router minus second, with its paired bootstrap interval.
        p_value: Two-sided: twice the smaller share of draws on one side of zero, at least 2 / (draws + 1).
    """

    metric: str
    difference: Estimate
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return not (self.difference.low <= 0.0 <= self.difference.high)


def compare_routers(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    metric: str = "apgr",
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap comparison of two routers on the same prompts.

    Both are measured on the same draws, so the difficulty of a prompt that both share cancels: the interval of the
    difference is much narrower than two separate intervals suggest.

    Args:
        first: (n,) win rates of the first router.
        second: (n,) win rates of the second router, for the same prompts.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        metric: ``"apgr"``, ``"auc"``, ``"hull_area"`` or ``"cpt_50"`` (any whole percent; smaller is better there).
        draws: Number of bootstrap draws.
        confidence: Level of the interval.
        seed: Seed of the draws.

    Raises:
        ConfigurationError: `metric` is unknown, or `draws` or `confidence` is not allowed.
        DataError: The arrays are malformed, or the strong model is not better than the weak one on them.
    """
    levels: tuple[float, ...] = ()
    if metric.startswith(("cpt_", "saving_")) and metric.split("_")[1].isdigit():
        levels = (checked_fraction(int(metric.split("_")[1]) / 100.0, "metric"),)
    elif metric not in {"apgr", "auc", "hull_area"}:
        raise ConfigurationError(f"metric={metric!r}: expected 'apgr', 'auc', 'hull_area', 'cpt_50' or 'saving_50'")
    how = Resampling(draws, confidence, seed)
    values, samples = [], []
    for rates in (first, second):
        checked, strong, weak = checked_rows(rates, strong_scores, weak_scores)
        checked_gap(strong, weak)
        values.append(point_metrics(checked, strong, weak, levels)[metric])
        samples.append(bootstrap(checked, strong, weak, levels=levels, draws=draws, seed=seed)[metric])
    difference = samples[0] - samples[1]
    difference = difference[np.isfinite(difference)]
    below = (float((difference <= 0).sum()) + 1.0) / (difference.size + 1.0)
    above = (float((difference >= 0).sum()) + 1.0) / (difference.size + 1.0)
    return Comparison(metric, how.interval(difference, values[0] - values[1]), min(1.0, 2.0 * min(below, above)))


def shown_digits(width: float, *, least: int) -> int:
    """Number of decimals, at least `least`, that shows the first two significant digits of a number of this size."""
    if not 0.0 < width < math.inf:
        return least
    return int(min(12, max(least, 1 - math.floor(math.log10(width)))))


def number_text(threshold: float) -> str:
    """Format a threshold with all its decimals, and at least four."""
    return np.format_float_positional(threshold, min_digits=4)


def _json_number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
