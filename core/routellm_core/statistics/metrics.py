"""Metrics of a router on prompts whose strong and weak scores are known.

Everything here follows from one curve: prompts are sent to the strong model in descending order of win rate, and the
mean score is plotted against the share of strong calls. Prompts with equal win rates go together, in random order, so
the curve is a straight line between the ends of such a group. Definitions: RouteLLM (arXiv 2406.18665), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_fraction, is_number
from routellm_core.errors import ConfigurationError, DataError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Mean score against the share of strong calls, in ascending order of share.

    Attributes:
        strong_fraction: (k,) shares in [0, 1]; starts at 0 and ends at 1.
        quality: (k,) mean score at each share, in the unit of the scores.
        threshold: (k,) a prompt is strong when its win rate is >= this; infinite if no prompt is strong.
    """

    strong_fraction: Floats
    quality: Floats
    threshold: Floats

    def quality_at(self, strong_fraction: float) -> float:
        """Mean score at a share of strong calls, interpolated linearly between the points."""
        return float(np.interp(strong_fraction, self.strong_fraction, self.quality))

    def auc(self) -> float:
        """Area under the curve over the shares that it spans (trapezoidal rule)."""
        return _trapezoid(self.quality, self.strong_fraction)

    def apgr(self, strong_quality: float, weak_quality: float) -> float:
        """APGR of this curve between the two models' mean scores."""
        span = float(self.strong_fraction[-1] - self.strong_fraction[0])
        return (self.auc() - weak_quality * span) / ((strong_quality - weak_quality) * span)


def curve(
    win_rates: npt.ArrayLike, strong_scores: npt.ArrayLike, weak_scores: npt.ArrayLike, *, bins: int | None = None
) -> Curve:
    """Mean score against the share of strong calls.

    Args:
        win_rates: (n,) win rates; only their order matters, so any finite numbers will do.
        strong_scores: (n,) scores of the strong model's answers, higher is better.
        weak_scores: (n,) scores of the weak model's answers to the same prompts.
        bins: None for the exact curve, with one point per distinct win rate. A number for the form of the authors'
            package: the bins + 1 edges of that many quantile bins are the thresholds (``>=``; ``>`` at the last edge).

    Returns:
        The curve from always weak to always strong.

    Raises:
        DataError: An array does not hold one finite number per prompt, or there are no prompts.
        ConfigurationError: `bins` is not a positive integer.
    """
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    n = rates.size
    if bins is None:
        ranked = Ranked(rates)
        size, gain = ranked.grouped(np.ones((1, n)), gains(strong, weak))
        share = np.concatenate(([0.0], np.cumsum(size[0]) / n))
        quality = (weak.sum() + np.concatenate(([0.0], np.cumsum(gain[0])))) / n
        share[-1] = 1.0
        return Curve(share, quality, np.concatenate(([np.inf], ranked.values)))
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise ConfigurationError(f"bins={bins!r}: expected a positive integer, or None for the exact curve")
    edges = np.quantile(rates, np.linspace(0.0, 1.0, int(bins) + 1))
    # The lowest edge is the minimum by definition, but interpolation may end up one rounding step above it.
    edges[0], edges[-1] = rates.min(), rates.max()
    order = np.argsort(rates, kind="stable")
    ascending = rates[order]
    # The prompts below each edge go to weak: those before the edge's position in ascending order.
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
            expected value is returned.

    Returns:
        0 for always weak, 1 for always strong; above 1 and below 0 are possible.

    Raises:
        ConfigurationError: Not exactly one of `threshold` and `strong_fraction` is given, or the share is outside
            [0, 1].
        DataError: The arrays are malformed, or the strong model is not better than the weak one on them.
    """
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    gap = checked_gap(strong, weak)
    if (threshold is None) == (strong_fraction is None):
        raise ConfigurationError(
            f"threshold={threshold!r}, strong_fraction={strong_fraction!r}: pass exactly one of the two"
        )
    if threshold is not None:
        if np.isnan(threshold):
            raise ConfigurationError("threshold=nan: expected a number")
        return float(np.where(rates >= threshold, strong - weak, 0.0).mean() / gap)
    share = checked_fraction(strong_fraction, "strong_fraction")
    return (curve(rates, strong, weak).quality_at(share) - float(weak.mean())) / gap


def apgr(
    win_rates: npt.ArrayLike, strong_scores: npt.ArrayLike, weak_scores: npt.ArrayLike, *, bins: int | None = None
) -> float:
    """Average performance gap recovered: the area under PGR over the share of strong calls, 0 to 1.

    A random router scores 0.5 in expectation, and so does a constant win rate. Values above 1 are possible if an order
    of the prompts beats always strong.

    Args:
        win_rates: (n,) win rates; only their order matters.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        bins: None for the exact curve; 10 for the number that the authors' package prints, the trapezoidal rule over
            the 11 edges of 10 quantile bins; see `curve`.

    Raises:
        DataError: The arrays are malformed, or the strong model is not better than the weak one on them.
    """
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    checked_gap(strong, weak)
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

    The curve is interpolated linearly between its points, so the CPT never decreases as `level` increases. A random
    router has CPT = level in expectation.

    Args:
        win_rates: (n,) win rates; only their order matters.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        level: Target PGR in [0, 1].
        bins: None for the exact curve, a number for the coarse curve of the authors' package. (Their own CPT
            interpolates over a curve that need not be monotone; the two agree if it is.)

    Raises:
        ConfigurationError: `level` is outside [0, 1].
        DataError: The arrays are malformed, or the strong model is not better than the weak one on them.
    """
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    wanted = checked_fraction(level, "level")
    checked_gap(strong, weak)
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
    """How many times more a random mix costs than the router when both reach PGR `level`.

    With the default costs this is the paper's ratio of random's strong calls to the router's, ``level / cpt(level)``.

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        level: Wanted PGR in (0, 1].
        strong_cost: Mean cost of one call of the strong model, in any currency.
        weak_cost: Mean cost of one call of the weak model, in the same currency.

    Raises:
        ConfigurationError: `level` is outside (0, 1], or the costs are not 0 <= weak_cost < strong_cost.
        DataError: The arrays are malformed, or the strong model is not better than the weak one on them.
    """
    check_costs(strong_cost, weak_cost)
    if level == 0:
        raise ConfigurationError("level=0: always weak reaches that without a strong call; pass a level in (0, 1]")
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

    A static mix sends each call to a model drawn at random, whatever the prompt. The best mix for a given cost lies on
    the upper convex hull of (cost, quality) of the single models. A positive value means that routing by prompt beats
    mixing blindly. With two models it is ``(apgr - 0.5) * (strong quality - weak quality)``.

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model.
        weak_scores: (n,) scores of the weak model.
        strong_cost: Mean cost of one call of the strong model.
        weak_cost: Mean cost of one call of the weak model.
        others: Further single models by name: (mean cost of a call, mean score).

    Returns:
        The difference, in the unit of the scores.

    Raises:
        ConfigurationError: The costs are not 0 <= weak_cost < strong_cost.
        DataError: The arrays are malformed.
    """
    check_costs(strong_cost, weak_cost)
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    line = curve(rates, strong, weak)
    cost = weak_cost + line.strong_fraction * (strong_cost - weak_cost)
    points = [(weak_cost, float(weak.mean())), (strong_cost, float(strong.mean())), *(others or {}).values()]
    hull_cost, hull_quality = static_hull(points)
    # Both lines are straight between the union of their corners, so the trapezoidal rule over it is exact.
    at = np.unique(np.concatenate((cost, hull_cost[(hull_cost > weak_cost) & (hull_cost < strong_cost)])))
    above = np.interp(at, cost, line.quality) - np.interp(at, hull_cost, hull_quality)
    return _trapezoid(above, at) / (strong_cost - weak_cost)


def static_hull(points: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    """Corners (cost, quality) of the best static mix for each cost: the upper convex hull, non-decreasing in cost."""
    best: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda p: (p[0], -p[1])):
        if best and quality <= best[-1][1]:
            continue  # a more expensive model that is no better has no place in a sensible mix
        while len(best) > 1 and _left_of(best[-2], best[-1], (cost, quality)):
            best.pop()
        best.append((cost, quality))
    corners = np.asarray(best, dtype=np.float64)
    return corners[:, 0], corners[:, 1]


def _left_of(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def prompt_length(prompts: Sequence[str]) -> Floats:
    """The prompt-length baseline as win rates (n,): longer prompts, in characters, go to the strong model.

    Lengths are mapped into [0, 1) by ``length / (length + 500)``; only the order matters.
    """
    length = np.fromiter((len(p) for p in prompts), dtype=np.float64)
    return np.asarray(length / (length + 500.0), dtype=np.float64)


def point_metrics(rates: Floats, strong: Floats, weak: Floats, levels: Sequence[float]) -> dict[str, float]:
    size, gain = Ranked(rates).grouped(np.ones((1, rates.size)), gains(strong, weak))
    return {k: float(v[0]) for k, v in curve_metrics(size, gain, weak.mean()[None], levels).items()}


def curve_metrics(size: Floats, gain: Floats, weak_quality: Floats, levels: Sequence[float]) -> dict[str, Floats]:
    """Metrics of many curves at once.

    Args:
        size: (b, g) number of prompts in each group of equal win rate; groups are in descending order.
        gain: (b, g) sum of (strong - weak) over each group.
        weak_quality: (b,) mean weak score.
        levels: PGR levels.
    """
    count = size.sum(axis=1)
    reached = np.cumsum(gain, axis=1)
    total = reached[:, -1]
    # Area under the gain curve: each group is a trapezoid of its size, halfway between its two ends.
    area = (size * (reached - gain / 2.0)).sum(axis=1) / count
    # Rounding turns an exact zero gap into a tiny number; how tiny depends on the size of what was added up.
    gap = np.where(total > 1e-12 * np.abs(gain).sum(axis=1), total, np.nan)
    out = {"apgr": area / gap, "auc": weak_quality + area / count, "hull_area": (area - total.clip(0.0) / 2.0) / count}
    for level in levels:
        share = np.where(np.isnan(gap), np.nan, _first_reach(size, gain, level))
        out[f"cpt_{level * 100:g}"] = share
        out[f"saving_{level * 100:g}"] = ratio(np.full_like(share, level), share)
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
    part = np.clip(ratio(target - before, step), 0.0, 1.0)
    passed = np.cumsum(size, axis=1)[row, first] - size[row, first]
    return np.asarray((passed + np.where(np.isnan(part), 1.0, part) * size[row, first]) / count, dtype=np.float64)


class Ranked:
    """Prompts grouped by win rate in descending order; any weighting of the prompts turns them into a curve."""

    def __init__(self, rates: Floats) -> None:
        self.order = np.argsort(-rates, kind="stable")
        ordered = rates[self.order]
        self.starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        self.values = ordered[self.starts]

    def grouped(self, counts: npt.NDArray[Any], gains: Floats) -> tuple[Floats, Floats]:
        """Size and summed gain (b, g) of each group if prompt i counts ``counts[b, i]`` times."""
        size = counts[:, self.order].astype(np.float64)
        gain = size * gains[self.order]
        if self.starts.size < self.order.size:
            size = np.add.reduceat(size, self.starts, axis=1)
            gain = np.add.reduceat(gain, self.starts, axis=1)
        return size, gain


def _trapezoid(y: Floats, x: Floats) -> float:
    """Area under straight lines (numpy renamed its own function between 1.26 and 2)."""
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2.0)


def complementary(strong: Floats, weak: Floats) -> bool:
    """Whether the models differ little on average although each does well where the other fails.

    That is, whether the gap between their mean scores is less than a quarter of what the better answer to each prompt
    scores above the better model. Ratios over such a gap, as PGR, APGR and CPT are, say nothing.
    """
    means = float(strong.mean()), float(weak.mean())
    return bool(abs(means[0] - means[1]) < (float(np.maximum(strong, weak).mean()) - max(means)) / 4.0)


def gains(strong: Floats, weak: Floats) -> Floats:
    """Strong minus weak score of each prompt; scores that differ only by rounding, as 0.1 + 0.2 and 0.3, are equal."""
    gain = strong - weak
    gain[np.abs(gain) <= 1e-14 * (np.abs(strong) + np.abs(weak))] = 0.0
    return gain


def ratio(top: Floats, bottom: Floats) -> Floats:
    """Elementwise quotient, NaN if the divisor is not positive."""
    out: Floats = np.full(np.shape(bottom), np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out


def checked_scores(name: str, values: npt.ArrayLike) -> Floats:
    """`values` as finite float64 (n,), n >= 1, or a `DataError` that names the row."""
    try:
        out = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} contains something that is not a number; expected one number per prompt") from None
    if out.ndim != 1:
        raise DataError(f"{name} has shape {out.shape}; expected (n,), one number per prompt")
    if out.size == 0:
        raise DataError(f"{name} is empty: expected at least one prompt")
    bad = np.flatnonzero(~np.isfinite(out))
    if bad.size:
        raise DataError(
            f"{name}[{bad[0]}] is {out[bad[0]]} ({bad.size} of {out.size} rows are not finite); "
            "remove the prompts that have no score"
        )
    return out


def checked_rates(win_rates: npt.ArrayLike) -> Floats:
    """Win rates (n,) as float64, or a `DataError` that names the row that is not in [0, 1]."""
    rates = checked_scores("win_rates", win_rates)
    outside = np.flatnonzero((rates < 0.0) | (rates > 1.0))
    if outside.size:
        raise DataError(f"win_rates[{outside[0]}] is {rates[outside[0]]}: expected numbers from 0 to 1")
    return rates


def checked_rows(
    win_rates: npt.ArrayLike, strong_scores: npt.ArrayLike, weak_scores: npt.ArrayLike
) -> tuple[Floats, Floats, Floats]:
    rates = checked_scores("win_rates", win_rates)
    strong = checked_scores("strong_scores", strong_scores)
    weak = checked_scores("weak_scores", weak_scores)
    if not rates.size == strong.size == weak.size:
        raise DataError(
            f"win_rates has {rates.size} rows, strong_scores {strong.size} and weak_scores {weak.size}; "
            "they must belong to the same prompts, in the same order"
        )
    return rates, strong, weak


def tolerance(strong: Floats, weak: Floats) -> float:
    return 1e-12 * float(np.abs(strong).mean() + np.abs(weak).mean())


def checked_gap(strong: Floats, weak: Floats) -> float:
    """Mean of strong - weak, or a `DataError` if there is no gap to recover."""
    gap = float(strong.mean() - weak.mean())
    if abs(gap) <= tolerance(strong, weak):
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


def check_costs(strong_cost: float, weak_cost: float) -> None:
    """Raise a `ConfigurationError` unless 0 <= weak_cost < strong_cost, both finite."""
    if not (is_number(strong_cost) and is_number(weak_cost) and 0.0 <= weak_cost < strong_cost):
        raise ConfigurationError(
            f"strong_cost={strong_cost!r}, weak_cost={weak_cost!r}: expected 0 <= weak_cost < strong_cost; "
            "if the strong model is not more expensive, there is nothing to save by routing"
        )
