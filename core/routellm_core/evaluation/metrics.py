"""Metrics of a router on prompts whose strong and weak scores are known, with bootstrap intervals.

Everything here follows from one curve: prompts are sent to the strong model in descending order of win rate, and the
mean score is drawn against the share of strong calls. Prompts with one win rate go together, in random order, so the
curve is a straight line between the ends of such a group. Definitions: RouteLLM (arXiv 2406.18665), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from routellm_core.errors import ConfigurationError, DataError

Floats = npt.NDArray[np.float64]

LEVELS = (0.5, 0.8)
# Cells of one block of bootstrap draws: bounds the memory of any call to some tens of MB.
_BLOCK_CELLS = 1 << 21


class HasWinRates(Protocol):
    """What `evaluate_router` needs of a router."""

    def win_rates(self, prompts: Sequence[str]) -> Floats:
        """Win rates (n,) of n prompts."""


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
        """The three numbers as JSON scalars; a NaN becomes None."""
        return {name: _json_number(getattr(self, name)) for name in ("value", "low", "high")}


@dataclass(frozen=True, slots=True)
class Curve:
    """Mean score against the share of strong calls, in ascending order of share.

    Attributes:
        strong_fraction: (k,) shares in [0, 1]; starts at 0 and ends at 1.
        quality: (k,) mean score at each share, in the unit of the scores.
        threshold: (k,) a prompt is strong when its win rate is >= this; infinite where none is.
    """

    strong_fraction: Floats
    quality: Floats
    threshold: Floats

    def quality_at(self, strong_fraction: float) -> float:
        """Mean score at a share of strong calls, linear between the points."""
        return float(np.interp(strong_fraction, self.strong_fraction, self.quality))

    def auc(self) -> float:
        """Area under the score over the shares that the curve spans (trapezoid)."""
        return _trapezoid(self.quality, self.strong_fraction)

    def apgr(self, strong_quality: float, weak_quality: float) -> float:
        """APGR of this curve between the two models' mean scores."""
        span = float(self.strong_fraction[-1] - self.strong_fraction[0])
        return (self.auc() - weak_quality * span) / ((strong_quality - weak_quality) * span)


@dataclass(frozen=True)
class RouterEvaluation:
    """What `evaluate_router` found.

    Attributes:
        name: Name of the router.
        count: Number of prompts.
        strong_quality: Mean score of always strong.
        weak_quality: Mean score of always weak.
        metrics: The router's metrics by name: ``apgr``, ``cpt_50``, ``cpt_80``, ``saving_50``, ``saving_80``
            (random's strong calls / the router's), ``auc`` (mean quality over the share), ``hull_area``; with a
            threshold or share also ``strong_fraction``, ``quality`` and ``pgr`` of that policy.
        baselines: The same metrics for ``random``, ``prompt_length`` (longer is stronger; absent without prompts)
            and ``oracle``. The interval of ``random`` is the range of a router that guesses on these prompts.
        curve: The router's exact curve.
        oracle: The curve of the best possible order.
        length: The curve of the prompt-length baseline; None without prompts.
        notes: What a reader must know, in words.
        confidence: Level of the intervals.
    """

    name: str
    count: int
    strong_quality: float
    weak_quality: float
    metrics: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]]
    curve: Curve
    oracle: Curve
    length: Curve | None = None
    notes: tuple[str, ...] = ()
    confidence: float = 0.95

    def to_dict(self, points: int = 201) -> dict[str, Any]:
        """Everything as JSON values; the curves are given at `points` evenly spaced shares."""
        shares = np.linspace(0.0, 1.0, points)
        curves = {
            name: np.interp(shares, line.strong_fraction, line.quality).tolist()
            for name, line in (("router", self.curve), ("oracle", self.oracle), ("prompt_length", self.length))
            if line is not None
        }
        return {
            "name": self.name,
            "count": self.count,
            "strong_quality": self.strong_quality,
            "weak_quality": self.weak_quality,
            "confidence": self.confidence,
            "metrics": {k: v.to_dict() for k, v in self.metrics.items()},
            "baselines": {b: {k: v.to_dict() for k, v in m.items()} for b, m in self.baselines.items()},
            "curves": {"strong_fraction": shares.tolist(), **curves},
            "notes": list(self.notes),
        }


def curve(
    win_rates: npt.ArrayLike, strong_scores: npt.ArrayLike, weak_scores: npt.ArrayLike, *, bins: int | None = None
) -> Curve:
    """Mean score against the share of strong calls.

    Args:
        win_rates: (n,) win rates; only their order matters, so any finite numbers will do.
        strong_scores: (n,) scores of the strong model's answers, higher is better.
        weak_scores: (n,) scores of the weak model's answers to the same prompts.
        bins: None for the exact curve, one point per distinct win rate. A number for the form of the authors'
            package: the bins + 1 edges of so many quantile bins are the thresholds (``>=``; ``>`` at the last edge).

    Returns:
        The curve; its ends are always weak and always strong.

    Raises:
        DataError: Not one finite number per prompt, or no prompts.
        ConfigurationError: `bins` is not a positive integer.
    """
    rates, strong, weak = _checked(win_rates, strong_scores, weak_scores)
    n = rates.size
    if bins is None:
        ranked = _Ranked(rates)
        size, gain = ranked.grouped(np.ones((1, n)), _gains(strong, weak))
        share = np.concatenate(([0.0], np.cumsum(size[0]) / n))
        quality = (weak.sum() + np.concatenate(([0.0], np.cumsum(gain[0])))) / n
        share[-1] = 1.0
        return Curve(share, quality, np.concatenate(([np.inf], ranked.values)))
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise ConfigurationError(f"bins={bins!r}: expected a positive integer, or None for the exact curve")
    edges = np.quantile(rates, np.linspace(0.0, 1.0, int(bins) + 1))
    # The lowest edge is the minimum by definition, but interpolation may land one rounding step above it.
    edges[0], edges[-1] = rates.min(), rates.max()
    order = np.argsort(rates, kind="stable")
    ascending = rates[order]
    # Sent to weak below each edge: the prompts before the edge's position in ascending order.
    below = np.searchsorted(ascending, edges, side="left")
    below[-1] = n
    weak_sum = np.concatenate(([0.0], np.cumsum(weak[order])))
    strong_sum = np.concatenate(([0.0], np.cumsum(strong[order])))
    quality = (weak_sum[below] + strong_sum[-1] - strong_sum[below]) / n
    return Curve((1.0 - below / n)[::-1], quality[::-1], edges[::-1])


def pgr(
    win_rates: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    threshold: float | None = None,
    strong_fraction: float | None = None,
) -> float:
    """Performance gap recovered: (quality - weak quality) / (strong quality - weak quality).

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        threshold: Prompts with ``win_rate >= threshold`` go to the strong model.
        strong_fraction: Instead of a threshold, the share of strong calls; tied prompts are split at random, so the
            expected value is given.

    Returns:
        0 for always weak, 1 for always strong; above 1 and below 0 are possible.

    Raises:
        ConfigurationError: Not exactly one of `threshold` and `strong_fraction`, or a share outside [0, 1].
        DataError: Malformed arrays, or the strong model is not better than the weak one on them.
    """
    rates, strong, weak = _checked(win_rates, strong_scores, weak_scores)
    gap = _gap(strong, weak)
    if (threshold is None) == (strong_fraction is None):
        raise ConfigurationError(
            f"threshold={threshold!r}, strong_fraction={strong_fraction!r}: give exactly one of the two"
        )
    if threshold is not None:
        if np.isnan(threshold):
            raise ConfigurationError("threshold=nan: expected a number")
        return float(np.where(rates >= threshold, strong - weak, 0.0).mean() / gap)
    share = _fraction("strong_fraction", strong_fraction)
    return (curve(rates, strong, weak).quality_at(share) - float(weak.mean())) / gap


def apgr(
    win_rates: npt.ArrayLike, strong_scores: npt.ArrayLike, weak_scores: npt.ArrayLike, *, bins: int | None = None
) -> float:
    """Average performance gap recovered: the area under PGR over the share of strong calls, 0 to 1.

    A random router has 0.5 in expectation, and so has a constant win rate. Values above 1 are possible where an order
    beats always strong.

    Args:
        win_rates: (n,) win rates; only their order matters.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        bins: None for the exact curve. 10 for the number that the authors' package prints: trapezoid over the 11
            edges of 10 quantile bins; see `curve`.

    Raises:
        DataError: Malformed arrays, or the strong model is not better than the weak one on them.
    """
    rates, strong, weak = _checked(win_rates, strong_scores, weak_scores)
    _gap(strong, weak)
    return curve(rates, strong, weak, bins=bins).apgr(float(strong.mean()), float(weak.mean()))


def cpt(
    win_rates: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    level: float = 0.5,
    *,
    bins: int | None = None,
) -> float:
    """Call-performance threshold: the smallest share of strong calls at which PGR first reaches `level`.

    Linear between the points of the curve, so it never falls when `level` rises. A random router has CPT = level in
    expectation.

    Args:
        win_rates: (n,) win rates; only their order matters.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        level: Wanted PGR in [0, 1].
        bins: None for the exact curve, a number for the coarse curve of the authors' package. (Their own CPT
            interpolates over a curve that need not be monotone; the two agree where it is.)

    Raises:
        ConfigurationError: `level` is outside [0, 1].
        DataError: Malformed arrays, or the strong model is not better than the weak one on them.
    """
    rates, strong, weak = _checked(win_rates, strong_scores, weak_scores)
    wanted = _fraction("level", level)
    _gap(strong, weak)
    line = curve(rates, strong, weak, bins=bins)
    size = np.diff(line.strong_fraction)[None, :]
    gain = np.diff(line.quality)[None, :]
    return float(_first_reach(size, gain, wanted)[0])


def cost_saving_ratio(
    win_rates: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    level: float = 0.5,
    *,
    strong_cost: float = 1.0,
    weak_cost: float = 0.0,
) -> float:
    """How many times more a random mix costs than the router, both reaching PGR `level`.

    With the default costs this is the paper's ratio: random's strong calls / the router's, ``level / cpt(level)``.

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        level: Wanted PGR in (0, 1].
        strong_cost: Mean cost of one call of the strong model, in any currency.
        weak_cost: Mean cost of one call of the weak model, in the same.

    Raises:
        ConfigurationError: `level` is outside (0, 1], or the costs are not 0 <= weak_cost < strong_cost.
        DataError: Malformed arrays, or the strong model is not better than the weak one on them.
    """
    check_costs(strong_cost, weak_cost)
    if level == 0:
        raise ConfigurationError("level=0: always weak reaches it at no strong call; give a level in (0, 1]")
    share = cpt(win_rates, strong_scores, weak_scores, level)
    return (weak_cost + level * (strong_cost - weak_cost)) / (weak_cost + share * (strong_cost - weak_cost))


def hull_area(
    win_rates: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    strong_cost: float = 1.0,
    weak_cost: float = 0.0,
    others: Mapping[str, tuple[float, float]] | None = None,
) -> float:
    """Mean quality above the best static mix of the same cost, over all costs from always weak to always strong.

    A static mix sends each call to a model drawn at random, whatever the prompt. The best one for a cost lies on the
    upper convex hull of (cost, quality) of the single models. Positive: routing by prompt gains over mixing blindly.
    With two models it is ``(apgr - 0.5) * (strong quality - weak quality)``.

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        strong_cost: Mean cost of one call of the strong model.
        weak_cost: Mean cost of one call of the weak model.
        others: Further single models by name: (mean cost of a call, mean score).

    Returns:
        In the unit of the scores.

    Raises:
        ConfigurationError: The costs are not 0 <= weak_cost < strong_cost.
        DataError: Malformed arrays.
    """
    check_costs(strong_cost, weak_cost)
    rates, strong, weak = _checked(win_rates, strong_scores, weak_scores)
    line = curve(rates, strong, weak)
    cost = weak_cost + line.strong_fraction * (strong_cost - weak_cost)
    points = [(weak_cost, float(weak.mean())), (strong_cost, float(strong.mean())), *(others or {}).values()]
    hull_cost, hull_quality = static_hull(points)
    # Both lines are straight between the union of their corners, so the trapezoid over it is exact.
    at = np.unique(np.concatenate((cost, hull_cost[(hull_cost > weak_cost) & (hull_cost < strong_cost)])))
    above = np.interp(at, cost, line.quality) - np.interp(at, hull_cost, hull_quality)
    return _trapezoid(above, at) / (strong_cost - weak_cost)


def static_hull(points: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    """Corners (cost, quality) of the best static mix for each cost: the upper convex hull, never falling with cost."""
    best: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda p: (p[0], -p[1])):
        if best and quality <= best[-1][1]:
            continue  # a dearer model that is no better has no part in a sensible mix
        while len(best) > 1 and _left_of(best[-2], best[-1], (cost, quality)):
            best.pop()
        best.append((cost, quality))
    corners = np.asarray(best, dtype=np.float64)
    return corners[:, 0], corners[:, 1]


def _left_of(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def prompt_length(prompts: Sequence[str]) -> Floats:
    """The prompt-length baseline as win rates (n,): number of characters, longer prompts go to the strong model.

    Mapped into [0, 1) by ``length / (length + 500)``; only the order matters.
    """
    length = np.fromiter((len(p) for p in prompts), dtype=np.float64)
    return np.asarray(length / (length + 500.0), dtype=np.float64)


def resample(
    count: int, draws: int, rng: np.random.Generator, *, cells: int = _BLOCK_CELLS
) -> Iterator[npt.NDArray[np.int32]]:
    """Bootstrap draws as how often each of `count` rows was drawn: blocks (b, count) with `draws` rows in all."""
    rows = max(1, cells // max(1, count))
    for start in range(0, draws, rows):
        block = min(rows, draws - start)
        picked = rng.integers(0, count, size=(block, count), dtype=np.int64)
        picked += (np.arange(block, dtype=np.int64) * count)[:, None]
        yield np.bincount(picked.ravel(), minlength=block * count).reshape(block, count).astype(np.int32)


def interval(draws: npt.ArrayLike, value: float, confidence: float = 0.95) -> Estimate:
    """Percentile interval of bootstrap draws around an estimate; undefined (NaN) draws are left out."""
    values = np.asarray(draws, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0 or not np.isfinite(value):
        return Estimate(float(value), np.nan, np.nan)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Estimate(float(value), float(low), float(high))


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
        seed: Seed of the draws; the same seed draws the same prompts for every router, so that draws pair up.

    Returns:
        ``apgr``, ``cpt_50``, ``saving_50``, ..., ``auc`` and ``hull_area`` as arrays (draws,); NaN in the draws in
        which the strong model is not better than the weak one.

    Raises:
        DataError: Malformed arrays.
        ConfigurationError: `draws` is not positive or a level is outside [0, 1].
    """
    rates, strong, weak = _checked(win_rates, strong_scores, weak_scores)
    _positive("draws", draws)
    ranked = _Ranked(rates)
    parts: list[dict[str, Floats]] = []
    for counts in resample(rates.size, draws, np.random.default_rng(seed)):
        size, gain = ranked.grouped(counts, _gains(strong, weak))
        parts.append(_metrics(size, gain, counts @ weak / rates.size, levels))
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

    What all prompts have in common moves both and cancels, so the band shows how sure the gain over a random mix is.

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        strong_fractions: (k,) shares at which the band is wanted.
        confidence: Level of the band.
        draws: Bootstrap draws.
        seed: Seed of the draws.

    Returns:
        Lower and upper ends (k,), in the unit of the scores, relative to that line.
    """
    rates, strong, weak = _checked(win_rates, strong_scores, weak_scores)
    at = np.asarray(strong_fractions, dtype=np.float64)
    ranked = _Ranked(rates)
    heights = []
    for counts in resample(rates.size, draws, np.random.default_rng(seed)):
        size, gain = ranked.grouped(counts, _gains(strong, weak))
        share = np.cumsum(size, axis=1) / rates.size
        above = np.cumsum(gain, axis=1) / rates.size
        above -= share * above[:, -1:]
        heights += [np.interp(at, s, a, left=0.0) for s, a in zip(share, above, strict=True)]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.array(heights), [tail, 1.0 - tail], axis=0)
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
        """Whether the interval leaves out zero."""
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

    Both are measured on the same draws, so what makes a prompt hard for both cancels: the interval of the difference
    is much tighter than two separate intervals suggest.

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
        ConfigurationError: Unknown `metric`, `draws` or `confidence` not allowed.
        DataError: Malformed arrays, or the strong model is not better than the weak one on them.
    """
    levels: tuple[float, ...] = ()
    if metric.startswith(("cpt_", "saving_")) and metric.split("_")[1].isdigit():
        levels = (_fraction("metric", int(metric.split("_")[1]) / 100.0),)
    elif metric not in {"apgr", "auc", "hull_area"}:
        raise ConfigurationError(f"metric={metric!r}: expected 'apgr', 'auc', 'hull_area', 'cpt_50' or 'saving_50'")
    check_bootstrap(draws, confidence)
    values, samples = [], []
    for rates in (first, second):
        checked, strong, weak = _checked(rates, strong_scores, weak_scores)
        _gap(strong, weak)
        values.append(_point_metrics(checked, strong, weak, levels)[metric])
        samples.append(bootstrap(checked, strong, weak, levels=levels, draws=draws, seed=seed)[metric])
    difference = samples[0] - samples[1]
    difference = difference[np.isfinite(difference)]
    below = (float((difference <= 0).sum()) + 1.0) / (difference.size + 1.0)
    above = (float((difference >= 0).sum()) + 1.0) / (difference.size + 1.0)
    return Comparison(
        metric, interval(difference, values[0] - values[1], confidence), min(1.0, 2.0 * min(below, above))
    )


def evaluate_router(
    router: HasWinRates | npt.ArrayLike,
    prompts: Sequence[str] | None,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    name: str | None = None,
    levels: Sequence[float] = LEVELS,
    threshold: float | None = None,
    strong_fraction: float | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RouterEvaluation:
    """Metrics of one router with bootstrap intervals, beside random, prompt length and the oracle.

    Where the strong model is not better than the weak one on these prompts, PGR has no meaning: the metrics that
    need it are NaN and `notes` says so; quality and shares are still given.

    Args:
        router: A router, or its win rates (n,).
        prompts: n prompts; may be None when win rates are given (then there is no prompt-length baseline).
        strong_scores: (n,) scores of the strong model, higher is better, any unit.
        weak_scores: (n,) scores of the weak model.
        name: Name in tables; default the router's own.
        levels: PGR levels of the CPT columns.
        threshold: Also measure the policy with this threshold.
        strong_fraction: Or the one with this share of strong calls.
        draws: Bootstrap draws.
        confidence: Level of the intervals.
        seed: Seed of the draws.

    Returns:
        The evaluation; ``to_dict()`` is JSON.

    Raises:
        DataError: Malformed arrays, lengths that differ, a NaN score.
        ConfigurationError: A level or share outside [0, 1], both a threshold and a share, no prompts for a router.
        RouterError: The router failed.
    """
    check_bootstrap(draws, confidence)
    if threshold is not None and strong_fraction is not None:
        raise ConfigurationError(f"threshold={threshold!r}, strong_fraction={strong_fraction!r}: give at most one")
    if hasattr(router, "win_rates"):
        if prompts is None:
            raise ConfigurationError("prompts=None: a router needs the prompts; only win rates can do without")
        win_rates: npt.ArrayLike = router.win_rates(prompts)
    else:
        win_rates = router
    rates, strong, weak = _checked(win_rates, strong_scores, weak_scores)
    n = rates.size
    if prompts is not None and len(prompts) != n:
        raise DataError(f"prompts has {len(prompts)} items but there are {n} scores; give one prompt a score")
    levels = [_fraction("levels", level) for level in levels]

    orders = {"router": rates, "oracle": strong - weak}
    if prompts is not None:
        orders["prompt_length"] = prompt_length(prompts)
    measured: dict[str, dict[str, Estimate]] = {}
    undefined = 0.0
    for key, order in orders.items():
        samples = bootstrap(order, strong, weak, levels=levels, draws=draws, seed=seed)
        points = _point_metrics(order, strong, weak, levels)
        measured[key] = {m: interval(samples[m], points[m], confidence) for m in points}
        undefined = float(np.isnan(samples["apgr"]).mean())
    metrics = measured.pop("router")
    baselines = {"random": _random_baseline(strong, weak, levels, draws, confidence, seed), **measured}
    if threshold is not None or strong_fraction is not None:
        metrics |= _policy_metrics(rates, strong, weak, threshold, strong_fraction, draws, confidence, seed)
    return RouterEvaluation(
        name=name or str(getattr(router, "name", "router")),
        count=n,
        strong_quality=float(strong.mean()),
        weak_quality=float(weak.mean()),
        metrics=metrics,
        baselines={k: baselines[k] for k in ("random", "prompt_length", "oracle") if k in baselines},
        curve=curve(rates, strong, weak),
        oracle=curve(strong - weak, strong, weak),
        length=curve(prompt_length(prompts), strong, weak) if prompts is not None else None,
        notes=_notes(rates, strong, weak, undefined),
        confidence=confidence,
    )


def _notes(rates: Floats, strong: Floats, weak: Floats, undefined: float) -> tuple[str, ...]:
    notes = []
    if rates.size < 30:
        notes.append(f"Only {rates.size} prompts: the intervals are too narrow to trust below about 30.")
    if np.unique(rates).size == 1:
        notes.append("Every prompt has the same win rate: this router cannot tell prompts apart.")
    gap = strong.mean() - weak.mean()
    if abs(gap) <= _tolerance(strong, weak):
        notes.append("Strong and weak score the same on average: PGR, APGR and CPT are undefined.")
    elif gap < 0:
        notes.append("The weak model scores higher than the strong one: there is no gap to recover; swap the pair.")
    elif undefined > 0.01:
        notes.append(
            f"In {undefined:.0%} of the bootstrap draws the strong model is not better; those are left out, "
            "so the intervals of PGR, APGR and CPT are too narrow."
        )
    return tuple(notes)


def _policy_metrics(
    rates: Floats,
    strong: Floats,
    weak: Floats,
    threshold: float | None,
    strong_fraction: float | None,
    draws: int,
    confidence: float,
    seed: int,
) -> dict[str, Estimate]:
    """Share, quality and PGR of one fixed policy: each prompt is strong with a known probability."""
    if threshold is not None:
        chance = (rates >= threshold).astype(np.float64)
    else:
        assert strong_fraction is not None
        chance = strong_chance(rates, _fraction("strong_fraction", strong_fraction))
    columns = np.stack([chance, weak + chance * (strong - weak), chance * (strong - weak), strong - weak], axis=1)
    point = columns.mean(axis=0)
    blocks = resample(rates.size, draws, np.random.default_rng(seed))
    sampled = np.concatenate([counts @ columns for counts in blocks]) / rates.size
    values = {
        "strong_fraction": (point[0], sampled[:, 0]),
        "quality": (point[1], sampled[:, 1]),
        "pgr": (_ratio(point[2:3], point[3:4])[0], _ratio(sampled[:, 2], sampled[:, 3])),
    }
    return {name: interval(draw, float(value), confidence) for name, (value, draw) in values.items()}


def strong_chance(win_rates: Floats, strong_fraction: float) -> Floats:
    """Probability (n,) that each prompt is strong when exactly this share is, tied prompts drawn at random."""
    wanted = strong_fraction * win_rates.size
    edge = np.sort(win_rates)[::-1][min(win_rates.size - 1, int(np.floor(wanted)))]
    above, tied = win_rates > edge, win_rates == edge
    chance = np.where(tied, np.clip((wanted - above.sum()) / tied.sum(), 0.0, 1.0), 0.0)
    return np.asarray(np.where(above, 1.0, chance), dtype=np.float64)


def _random_baseline(
    strong: Floats, weak: Floats, levels: Sequence[float], draws: int, confidence: float, seed: int
) -> dict[str, Estimate]:
    """Expected metrics of random routing, and the range in which guessing routers fall on these prompts."""
    n = strong.size
    gain = _gains(strong, weak)
    rng = np.random.default_rng([seed, 1])
    rows = max(1, _BLOCK_CELLS // n)
    parts = []
    for start in range(0, draws, rows):
        block = min(rows, draws - start)
        shuffled = rng.permuted(np.broadcast_to(gain, (block, n)), axis=1)
        parts.append(_metrics(np.ones((block, n)), shuffled, np.full(block, weak.mean()), levels))
    sampled = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    expected = _point_metrics(np.zeros(n), strong, weak, levels)
    return {name: interval(sampled[name], expected[name], confidence) for name in expected}


def _point_metrics(rates: Floats, strong: Floats, weak: Floats, levels: Sequence[float]) -> dict[str, float]:
    size, gain = _Ranked(rates).grouped(np.ones((1, rates.size)), _gains(strong, weak))
    return {k: float(v[0]) for k, v in _metrics(size, gain, weak.mean()[None], levels).items()}


def _metrics(size: Floats, gain: Floats, weak_quality: Floats, levels: Sequence[float]) -> dict[str, Floats]:
    """Metrics of many curves at once.

    Args:
        size: (b, g) prompts in each group of equal win rate, groups in descending order.
        gain: (b, g) sum of (strong - weak) over each group.
        weak_quality: (b,) mean weak score.
        levels: PGR levels.
    """
    count = size.sum(axis=1)
    reached = np.cumsum(gain, axis=1)
    total = reached[:, -1]
    # Area under the gain curve: each group is a trapezoid of its size, halfway between its two ends.
    area = (size * (reached - gain / 2.0)).sum(axis=1) / count
    # An exact zero gap survives rounding as a speck; the speck is judged by the size of what was added up.
    gap = np.where(total > 1e-12 * np.abs(gain).sum(axis=1), total, np.nan)
    out = {"apgr": area / gap, "auc": weak_quality + area / count, "hull_area": (area - total.clip(0.0) / 2.0) / count}
    for level in levels:
        share = np.where(np.isnan(gap), np.nan, _first_reach(size, gain, level))
        out[f"cpt_{level * 100:g}"] = share
        out[f"saving_{level * 100:g}"] = _ratio(np.full_like(share, level), share)
    return out


def _first_reach(size: Floats, gain: Floats, level: float) -> Floats:
    """Smallest share (b,) at which each cumulative gain first reaches `level` of its total, linear within groups."""
    count = size.sum(axis=1)
    if level <= 0.0:
        return np.zeros(size.shape[0])
    reached = np.cumsum(gain, axis=1)
    target = level * reached[:, -1]
    slack = 1e-12 * np.abs(gain).sum(axis=1)
    first = np.argmax(reached >= (target - slack)[:, None], axis=1)
    row = np.arange(size.shape[0])
    step = gain[row, first]
    before = reached[row, first] - step
    part = np.clip(_ratio(target - before, step), 0.0, 1.0)
    passed = np.cumsum(size, axis=1)[row, first] - size[row, first]
    return np.asarray((passed + np.where(np.isnan(part), 1.0, part) * size[row, first]) / count, dtype=np.float64)


class _Ranked:
    """Prompts grouped by win rate, in descending order: what any weighting of them turns into a curve."""

    def __init__(self, rates: Floats) -> None:
        self.order = np.argsort(-rates, kind="stable")
        ordered = rates[self.order]
        self.starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        self.values = ordered[self.starts]

    def grouped(self, counts: npt.NDArray[Any], gains: Floats) -> tuple[Floats, Floats]:
        """Size and summed gain (b, g) of each group when prompt i counts ``counts[b, i]`` times."""
        size = counts[:, self.order].astype(np.float64)
        gain = size * gains[self.order]
        if self.starts.size < self.order.size:
            size = np.add.reduceat(size, self.starts, axis=1)
            gain = np.add.reduceat(gain, self.starts, axis=1)
        return size, gain


def _trapezoid(y: Floats, x: Floats) -> float:
    """Area under straight lines (numpy's own was renamed between 1.26 and 2)."""
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2.0)


def _gains(strong: Floats, weak: Floats) -> Floats:
    """Strong minus weak score of each prompt; scores that differ by rounding alone (0.1 + 0.2 and 0.3) are equal."""
    gain = strong - weak
    gain[np.abs(gain) <= 1e-14 * (np.abs(strong) + np.abs(weak))] = 0.0
    return gain


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Elementwise quotient; NaN where the divisor is not positive."""
    out: Floats = np.full(np.shape(bottom), np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out


def check_bootstrap(draws: int, confidence: float) -> None:
    """Refuse a number of bootstrap draws or a level of an interval that is none."""
    _positive("draws", draws)
    if not 0.0 < confidence < 1.0:
        raise ConfigurationError(f"confidence={confidence!r}: expected a number between 0 and 1, such as 0.95")


def checked_scores(name: str, values: npt.ArrayLike) -> Floats:
    """`values` as finite float64 (n,), n >= 1, or a `DataError` that names the row."""
    try:
        out = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} holds something that is not a number; give one number a prompt") from None
    if out.ndim != 1:
        raise DataError(f"{name} has shape {out.shape}; expected (n,), one number a prompt")
    if out.size == 0:
        raise DataError(f"{name} is empty: give at least one prompt")
    bad = np.flatnonzero(~np.isfinite(out))
    if bad.size:
        raise DataError(
            f"{name}[{bad[0]}] is {out[bad[0]]} ({bad.size} of {out.size} rows are not finite); "
            "leave out the prompts that have no score"
        )
    return out


def _checked(
    win_rates: npt.ArrayLike, strong_scores: npt.ArrayLike, weak_scores: npt.ArrayLike
) -> tuple[Floats, Floats, Floats]:
    rates = checked_scores("win_rates", win_rates)
    strong = checked_scores("strong_scores", strong_scores)
    weak = checked_scores("weak_scores", weak_scores)
    if not rates.size == strong.size == weak.size:
        raise DataError(
            f"win_rates has {rates.size} rows, strong_scores {strong.size} and weak_scores {weak.size}; "
            "they must be of the same prompts, in the same order"
        )
    return rates, strong, weak


def _tolerance(strong: Floats, weak: Floats) -> float:
    return 1e-12 * float(np.abs(strong).mean() + np.abs(weak).mean())


def _gap(strong: Floats, weak: Floats) -> float:
    """Mean of strong - weak, or a `DataError` where there is no gap to recover."""
    gap = float(strong.mean() - weak.mean())
    if abs(gap) <= _tolerance(strong, weak):
        raise DataError(
            f"strong_scores and weak_scores have the same mean ({strong.mean():.6g}): there is no performance gap, "
            "so PGR is undefined; always use the cheaper model"
        )
    if gap < 0:
        raise DataError(
            f"the weak model scores higher than the strong one ({weak.mean():.6g} > {strong.mean():.6g}): "
            "there is no performance gap to recover; swap strong_scores and weak_scores, or use the weak model alone"
        )
    return gap


def _fraction(name: str, value: float | None) -> float:
    if value is None or isinstance(value, bool) or not 0.0 <= value <= 1.0:
        hint = f"; write {value / 100:g} for {value:g} %" if isinstance(value, int | float) and 1 < value <= 100 else ""
        raise ConfigurationError(f"{name}={value!r}: expected a number from 0 to 1{hint}")
    return float(value)


def _positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigurationError(f"{name}={value!r}: expected a positive integer")


def check_costs(strong_cost: float, weak_cost: float) -> None:
    """Raise a `ConfigurationError` unless 0 <= weak_cost < strong_cost, both finite."""
    if not (np.isfinite(strong_cost) and np.isfinite(weak_cost) and 0.0 <= weak_cost < strong_cost):
        raise ConfigurationError(
            f"strong_cost={strong_cost!r}, weak_cost={weak_cost!r}: expected 0 <= weak_cost < strong_cost; "
            "if the strong model is not dearer there is nothing to save by routing"
        )


def _json_number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
