"""All metrics of one router with intervals, beside random routing, prompt length and the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.scoring import RouterLike, Scorer, is_router_like
from routellm_core.checks import checked_fraction
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.routers.base import Router
from routellm_core.statistics.intervals import BLOCK_CELLS, LEVELS, Estimate, Resampling, bootstrap, has_clear_gap
from routellm_core.statistics.metrics import (
    Curve,
    Floats,
    checked_rows,
    complementary,
    curve,
    curve_metrics,
    gains,
    point_metrics,
    prompt_length,
    ratio,
    tolerance,
)

# Metrics that divide by the gap between the models.
_RATIOS = ("apgr", "cpt_", "saving_", "pgr")


@dataclass(frozen=True)
class RouterEvaluation:
    """The result of `evaluate_router`.

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
        notes: Remarks for a reader.
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
        """Everything as JSON values; the curves are sampled at `points` evenly spaced shares."""
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


def evaluate_router(
    router: RouterLike | npt.ArrayLike,
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

    Where the strong model is not clearly better than the weak one on these prompts (see `has_clear_gap`), PGR has no
    meaning: the metrics that need it are NaN, and `notes` says so; quality and shares are still computed.

    Args:
        router: A router or the name of one, an object with ``win_rates(prompts)``, a function ``list[str] -> numbers``,
            or the win rates (n,) themselves.
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
    how = Resampling(draws, confidence, seed)
    if threshold is not None and strong_fraction is not None:
        raise ConfigurationError(f"threshold={threshold!r}, strong_fraction={strong_fraction!r}: pass at most one")
    win_rates: Any = router
    if is_router_like(router):
        if prompts is None:
            raise ConfigurationError("prompts=None: a router needs the prompts; only win rates work without them")
        scorer = Scorer(router)
        name, win_rates = name or scorer.name, scorer.win_rates(prompts)
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    n = rates.size
    if prompts is not None and len(prompts) != n:
        raise DataError(f"prompts has {len(prompts)} items but there are {n} scores; expected one prompt per score")
    levels = [checked_fraction(level, "levels") for level in levels]

    seen = 0
    if prompts is not None and isinstance(router, Router) and router.trained_on is not None:
        seen = int(router.trained_on.marks(prompts).sum())
    orders = {"router": rates, "oracle": strong - weak}
    if prompts is not None:
        orders["prompt_length"] = prompt_length(prompts)
    measured: dict[str, dict[str, Estimate]] = {}
    for key, order in orders.items():
        samples = bootstrap(order, strong, weak, levels=levels, draws=draws, seed=seed)
        points = point_metrics(order, strong, weak, levels)
        measured[key] = {m: how.interval(samples[m], points[m]) for m in points}
    metrics = measured.pop("router")
    baselines = {"random": _random_baseline(strong, weak, levels, how), **measured}
    if threshold is not None:
        metrics |= _policy_metrics((rates >= threshold).astype(np.float64), strong, weak, how)
    elif strong_fraction is not None:
        chance = strong_chance(rates, checked_fraction(strong_fraction, "strong_fraction"))
        metrics |= _policy_metrics(chance, strong, weak, how)
    if not has_clear_gap(strong, weak, confidence):
        metrics, *others = (_without_ratios(found) for found in (metrics, *baselines.values()))
        baselines = dict(zip(baselines, others, strict=True))
    return RouterEvaluation(
        name=name or "router",
        count=n,
        strong_quality=float(strong.mean()),
        weak_quality=float(weak.mean()),
        metrics=metrics,
        baselines={k: baselines[k] for k in ("random", "prompt_length", "oracle") if k in baselines},
        curve=curve(rates, strong, weak),
        oracle=curve(strong - weak, strong, weak),
        length=curve(prompt_length(prompts), strong, weak) if prompts is not None else None,
        notes=(*_seen_note(seen, n), *_notes(rates, strong, weak, confidence)),
        confidence=confidence,
    )


def _seen_note(seen: int, count: int) -> tuple[str, ...]:
    if not seen:
        return ()
    return (
        f"The router was trained on {seen:,} of these {count:,} prompts, so the numbers flatter it: leave them out "
        "(leave_out_seen).",
    )


def _without_ratios(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Metrics with NaN for those that divide by the gap between the models."""
    undefined = Estimate(np.nan, np.nan, np.nan)
    return {name: undefined if name.startswith(_RATIOS) else found for name, found in metrics.items()}


def _notes(rates: Floats, strong: Floats, weak: Floats, confidence: float) -> tuple[str, ...]:
    notes = []
    if rates.size < 30:
        notes.append(f"Only {rates.size} prompts: the intervals are too narrow to trust below about 30.")
    if np.unique(rates).size == 1:
        notes.append("Every prompt has the same win rate: this router cannot tell prompts apart.")
    gap = strong.mean() - weak.mean()
    undefined = "PGR, APGR and CPT are ratios over the gap between the models, so they are not shown."
    if abs(gap) <= tolerance(strong, weak):
        notes.append(f"Strong and weak score the same on average. {undefined}")
    elif complementary(strong, weak):
        notes.append(
            "Strong and weak score nearly the same on average, although each does well where the other fails. "
            f"{undefined} What counts is the gain over the better single model."
        )
    elif gap < 0:
        notes.append(
            f"The weak model scores higher than the strong one. {undefined} Use the weak model alone, or name it as "
            "the strong one if it is the more expensive."
        )
    elif not has_clear_gap(strong, weak, confidence):
        notes.append(
            f"The strong model is not clearly better on these prompts: the {confidence:.0%} interval of the gap "
            f"includes zero. {undefined}"
        )
    return tuple(notes)


def _policy_metrics(chance: Floats, strong: Floats, weak: Floats, how: Resampling) -> dict[str, Estimate]:
    """Share, quality and PGR of one fixed policy, in which each prompt is strong with its probability in `chance`."""
    columns = np.stack([chance, weak + chance * (strong - weak), chance * (strong - weak), strong - weak], axis=1)
    point = columns.mean(axis=0)
    sampled = np.concatenate([counts @ columns for counts in how.resample(chance.size)]) / chance.size
    values = {
        "strong_fraction": (point[0], sampled[:, 0]),
        "quality": (point[1], sampled[:, 1]),
        "pgr": (ratio(point[2:3], point[3:4])[0], ratio(sampled[:, 2], sampled[:, 3])),
    }
    return {name: how.interval(draws, float(value)) for name, (value, draws) in values.items()}


def strong_chance(win_rates: Floats, strong_fraction: float) -> Floats:
    """Probability (n,) that each prompt is strong when exactly this share is, tied prompts drawn at random."""
    wanted = strong_fraction * win_rates.size
    edge = np.sort(win_rates)[::-1][min(win_rates.size - 1, int(np.floor(wanted)))]
    above, tied = win_rates > edge, win_rates == edge
    chance = np.where(tied, np.clip((wanted - above.sum()) / tied.sum(), 0.0, 1.0), 0.0)
    return np.asarray(np.where(above, 1.0, chance), dtype=np.float64)


def _random_baseline(strong: Floats, weak: Floats, levels: Sequence[float], how: Resampling) -> dict[str, Estimate]:
    """Expected metrics of random routing, and the range in which guessing routers fall on these prompts."""
    n = strong.size
    gain = gains(strong, weak)
    rng = how.rng(1)
    rows = max(1, BLOCK_CELLS // n)
    parts = []
    for start in range(0, how.draws, rows):
        block = min(rows, how.draws - start)
        shuffled = rng.permuted(np.broadcast_to(gain, (block, n)), axis=1)
        parts.append(curve_metrics(np.ones((block, n)), shuffled, np.full(block, weak.mean()), levels))
    sampled = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    expected = point_metrics(np.zeros(n), strong, weak, levels)
    return {name: how.interval(sampled[name], expected[name]) for name in expected}
