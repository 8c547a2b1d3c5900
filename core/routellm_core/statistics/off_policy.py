"""What another policy would have scored, from logs that mostly show one answer a call.

A score of a side exists where that side was called, or where a shadow call fetched it, and it was scored. Where the
chance of that is known for every row and each side, the scores that exist speak for those that do not. All estimates
here are doubly robust: an outcome model predicts what is missing, and what exists corrects it, weighted by one over its
chance. Dudik, Langford and Li, Doubly Robust Policy Evaluation and Learning (2011); Open Bandit Pipeline calls it DR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from routellm_core.errors import DataError
from routellm_core.statistics.intervals import Estimate
from routellm_core.statistics.metrics import Floats

Bools = npt.NDArray[np.bool_]

LEAST_DEVIATIONS = 30
LEAST_SCORED = 5_000
LEAST_EXPLORE = 0.05
# The ridge penalty of the outcome models; their features have variance 1.
_RIDGE = 30.0
# Below so many scores a side is modelled by its mean.
_LEAST_FIT = 30
_FOLDS = 2
# Chance alone moves the share of strong answers this many standard errors from the probabilities in one of 16,000 logs.
_MISMATCH = 4.0


@dataclass(frozen=True)
class SideScores:
    """The scores of one side's answers, on the rows of a log.

    Attributes:
        exists: Bools (n,): whether the answer exists and has a score.
        chance: Floats (n,): the probability, before the call, that this would be so.
        score: Floats (n,); what stands where no score exists is not looked at.
    """

    exists: Bools
    chance: Floats
    score: Floats

    def __post_init__(self) -> None:
        arrays = np.asarray(self.exists, bool), np.asarray(self.chance, float), np.asarray(self.score, float)
        if len({a.shape for a in arrays}) != 1 or arrays[0].ndim != 1:
            raise DataError(f"exists, chance and score of shapes {[a.shape for a in arrays]}: expected one shape (n,)")
        exists, chance, score = arrays
        if not ((chance >= 0) & (chance <= 1)).all():
            raise DataError("chance: expected probabilities in [0, 1]")
        if not np.isfinite(score[exists]).all():
            raise DataError("score: expected finite numbers where a score exists")
        if (exists & (chance <= 0)).any():
            raise DataError(
                "an answer exists whose probability is 0: the log's probabilities are not those of its calls"
            )
        for name, value in zip(("exists", "chance", "score"), arrays, strict=True):
            object.__setattr__(self, name, value)


def answer_chances(p_strong: npt.ArrayLike, p_shadow: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Chances (n,) that the strong and the weak answer of a call exist: it was called, or a shadow call fetched it.

    Args:
        p_strong: (n,) final probability of strong, exploration included.
        p_shadow: (n,) probability that the other side answers, too, drawn independently.
    """
    p, shadow = np.asarray(p_strong, dtype=np.float64), np.asarray(p_shadow, dtype=np.float64)
    return p + (1.0 - p) * shadow, (1.0 - p) + p * shadow


@dataclass(frozen=True, slots=True)
class Difference:
    """A target policy against the policy in use, on one log.

    Attributes:
        refusal: Why no figure can be shown, and what to switch on; None where the estimate stands.
        difference: Score of the target minus that of the policy in use; None where it is refused.
        quality: Mean score of the target; None where it is refused.
        effective_deviations: How many answers, weighing alike, the estimate rests on; see `effective_size`.
        deviating: Share of the rows on which the two policies differ.
        count: Number of rows.
    """

    refusal: str | None
    difference: Estimate | None
    quality: Estimate | None
    effective_deviations: float
    deviating: float
    count: int


def effective_size(weights: Floats) -> float:
    """Number of observations of equal weight that say as much: ``(sum w)^2 / sum w^2``; 0 without any weight."""
    squared = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squared if squared > 0 else 0.0


def policy_difference(
    target: npt.ArrayLike,
    in_use: npt.ArrayLike,
    strong: SideScores,
    weak: SideScores,
    *,
    features: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Estimate what a target policy would have scored, and its difference to the policy in use.

    The difference is estimated, and not two qualities, because both policies share most rows. It is refused, with no
    interval at all, where the log cannot carry it: a deviating row whose needed answer had no chance to exist, fewer
    than 30 effective deviations, or a direction (weak to strong, or strong to weak) in which no answer of the target's
    side was ever seen. The usual effective sample size counts rows where the policies agree, and misleads.

    Args:
        target: Bools (n,): whether the target policy sends the row to strong.
        in_use: Bools (n,): whether the policy in use did, leaving exploration aside.
        strong: Scores of the strong side.
        weak: Scores of the weak side.
        features: Floats (n, k) for the outcome models, or None to model each side by its mean.
        groups: A label (n,) for each row, such as its conversation: rows of one group are not independent and stay
            together, in the folds of the outcome models as in the error. None: each row its own.
        confidence: Level of the intervals: Student's t with the effective deviations less one as degrees of freedom.
        seed: Seed of the folds.

    Raises:
        DataError: Shapes do not fit, or there are fewer than two rows.
    """
    to, base = np.asarray(target, dtype=bool), np.asarray(in_use, dtype=bool)
    n = to.size
    shapes = {to.shape, base.shape, strong.exists.shape, weak.exists.shape}
    if len(shapes) != 1 or to.ndim != 1 or n < 2:
        raise DataError(f"target, in_use and scores of shapes {sorted(shapes)}: expected one shape (n,) with n >= 2")
    cluster = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    change = to.astype(np.float64) - base
    deviates = change != 0
    effective = min(effective_size(_weights(side)[deviates]) for side in (strong, weak)) if deviates.any() else 0.0
    refusal = _refusal(change, strong, weak, effective)
    share = float(deviates.mean())
    if refusal is not None:
        return Difference(refusal, None, None, effective, share, n)
    d_strong, d_weak = (robust_scores(side, features, cluster, seed=seed) for side in (strong, weak))
    df = max(effective - 1.0, 3.0)
    difference = _mean(change * (d_strong - d_weak), cluster, df, confidence)
    quality = _mean(np.where(to, d_strong, d_weak), cluster, df, confidence)
    return Difference(None, difference, quality, effective, share, n)


def robust_scores(
    side: SideScores, features: npt.ArrayLike | None, groups: npt.NDArray[np.generic], *, seed: int = 0
) -> Floats:
    """Doubly robust scores (n,) of one side: unbiased for the score of every row, also where none exists.

    Args:
        side: What is known.
        features: Floats (n, k), or None.
        groups: Rows of one group are modelled by the same other rows.
        seed: Seed of the folds.
    """
    names, position = np.unique(groups, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(names)) % _FOLDS)[position]
    x = None if features is None else np.asarray(features, dtype=np.float64)
    model = np.zeros(len(fold))
    for k in range(_FOLDS):
        used, held = side.exists & (fold != k), fold == k
        model[held] = _predicted(x, side.score, used, held)
    return np.asarray(model + _weights(side) * np.where(side.exists, side.score - model, 0.0))


def check_probabilities(is_strong: npt.ArrayLike, p_strong: npt.ArrayLike) -> str | None:
    """Why recorded probabilities cannot be those by which the sides were drawn; None where they fit.

    Args:
        is_strong: Bools (n,): whether the strong side was called.
        p_strong: (n,) recorded probabilities.
    """
    p, taken = np.asarray(p_strong, dtype=np.float64), np.asarray(is_strong, dtype=np.float64)
    spread = math.sqrt(float((p * (1.0 - p)).sum()))
    gap = abs(float((taken - p).sum()))
    if gap > _MISMATCH * spread + 1e-6:
        return (
            f"the recorded probabilities expect {p.sum():,.0f} strong calls of {p.size:,}, and {taken.sum():,.0f} were "
            "made: something decides calls that the log does not know of. Log every call by the policy that decides it"
        )
    return None


def one_sided_refusal(is_strong: npt.ArrayLike, p_strong: npt.ArrayLike) -> str | None:
    """Why scores of the answering side alone cannot be learned from; None where they can.

    Args:
        is_strong: Bools (n,), of the scored calls that the win rate or the coin decided.
        p_strong: (n,) final probability of strong; NaN where it was not recorded.
    """
    p = np.asarray(p_strong, dtype=np.float64)
    other = np.minimum(p, 1.0 - p)
    reason = None
    if np.isnan(p).any():
        reason = f"{np.isnan(p).mean():.0%} of the scored calls have no recorded probability of strong"
    elif not (other > 0).any():
        reason = "nothing was explored, so nothing tells what the other side of any call would have scored"
    elif (other <= 0).any():
        never = (other <= 0).mean()
        reason = f"{never:.0%} of the scored calls were not explored (explore was off, or explore_band left them out)"
    elif other.min() < LEAST_EXPLORE / 2.0 - 1e-9:
        reason = f"explore={2 * other.min():.3g} is too little, at least {LEAST_EXPLORE} is needed"
    elif p.size < LEAST_SCORED:
        reason = f"{p.size:,} scored calls, at least {LEAST_SCORED:,} are needed"
    if reason is not None:
        return (
            f"{reason}; set explore={LEAST_EXPLORE} and go on, or shadow=0.05: 250 pairs tell as much as 5,000 scores"
        )
    return check_probabilities(is_strong, p)


def one_sided_differences(
    is_strong: npt.ArrayLike,
    p_strong: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    features: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Floats:
    """Pseudo-outcomes (n,) of one-sided feedback: unbiased for score of strong minus score of weak, row by row.

    They vary far beyond [-1, 1], so they say nothing about a single prompt; a fit over thousands of them does.

    Args:
        is_strong: Bools (n,): which side answered.
        p_strong: (n,) final probability of strong.
        scores: (n,) score of the answer.
        features: Floats (n, k) for the outcome models.
        groups: Rows of one group, such as a conversation.
        seed: Seed of the folds.

    Raises:
        DataError: The log does not carry it; the message says what to switch on.
    """
    strong, p = np.asarray(is_strong, dtype=bool), np.asarray(p_strong, dtype=np.float64)
    refusal = one_sided_refusal(strong, p)
    if refusal is not None:
        raise DataError(f"one-sided feedback: {refusal}")
    score = np.asarray(scores, dtype=np.float64)
    group = np.arange(p.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    d_strong = robust_scores(SideScores(strong, p, score), features, group, seed=seed)
    return d_strong - robust_scores(SideScores(~strong, 1.0 - p, score), features, group, seed=seed)


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t by the Cornish-Fisher expansion; right to three digits from three degrees of freedom on.

    Args:
        probability: Between 0 and 1.
        df: Degrees of freedom, >= 3, not necessarily whole.
    """
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / (4.0 * df)
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * df**2)
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / (384.0 * df**3)
    return z + first + second + third


def principal_features(embeddings: npt.ArrayLike, count: int = 32) -> Floats:
    """The first principal components (n, k) of embeddings, each of variance 1, for outcome models."""
    x = np.asarray(embeddings, dtype=np.float64)
    centred = x - x.mean(axis=0)
    values, basis = np.linalg.eigh(centred.T @ centred / max(len(x), 1))
    largest = np.argsort(-values)[:count]
    largest = largest[values[largest] > 1e-12]
    return np.asarray(centred @ basis[:, largest] / np.sqrt(values[largest]))


def _weights(side: SideScores) -> Floats:
    return np.where(side.exists, 1.0 / np.maximum(side.chance, 1e-9), 0.0)


def _refusal(change: Floats, strong: SideScores, weak: SideScores, effective: float) -> str | None:
    deviates = change != 0
    if not deviates.any():
        return "the two policies decide every call alike, so there is nothing to compare"
    blind = float((deviates & ((strong.chance <= 0) | (weak.chance <= 0))).mean())
    more = "set shadow=0.05 (or explore=0.05) and replay calls made since"
    if blind:
        return (
            f"on {blind:.1%} of the calls the two policies differ where one side's score had no chance to exist, and "
            f"no weighting can see what never happens: {more}"
        )
    for side, direction, way in ((strong, 1, "from weak to strong"), (weak, -1, "from strong to weak")):
        rows = change == direction
        if rows.any() and not (side.exists & rows).any():
            return f"calls would move {way}, and no answer of the side that they would move to was ever scored: {more}"
    if effective < LEAST_DEVIATIONS:
        return (
            f"{effective:.0f} effective deviations, at least {LEAST_DEVIATIONS} are needed: too few scores of the side "
            f"that calls would move to. Replay a longer period, or {more}"
        )
    return None


def _predicted(x: Floats | None, score: Floats, used: Bools, held: Bools) -> Floats | float:
    """The outcome model of the `held` rows, fitted on the `used` ones."""
    count = int(used.sum())
    if x is None or count < _LEAST_FIT:
        return float(score[used].mean()) if count else 0.5
    mean, y = x[used].mean(axis=0), score[used]
    z = x[used] - mean
    factors = np.linalg.solve(z.T @ z + _RIDGE * np.eye(x.shape[1]), z.T @ (y - y.mean()))
    return np.asarray(np.clip((x[held] - mean) @ factors + y.mean(), y.min(), y.max()))


def _mean(values: Floats, groups: npt.NDArray[np.generic], df: float, confidence: float) -> Estimate:
    """Mean of rows in clusters, with its t interval."""
    n, mean = values.size, float(values.mean())
    sums = np.bincount(groups, weights=values - mean)
    count = sums.size
    if count < 2:
        return Estimate(mean, -math.inf, math.inf)
    error = math.sqrt(float((sums**2).sum()) * count / (count - 1)) / n
    half = t_quantile((1.0 + confidence) / 2.0, df) * error
    return Estimate(mean, mean - half, mean + half)
