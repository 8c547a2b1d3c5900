"""Whether a router beats the static mix, asked again and again as labelled pairs come in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_fraction
from routellm_core.errors import DataError
from routellm_core.statistics.intervals import Estimate
from routellm_core.statistics.metrics import Floats

# Twenty looks at 1.645 find a gain that is not there in 22 % of all cases. Looks at doublings alone, with this bound,
# keep all of them together near 5 %.
BOUND = 2.11
FIRST_LOOK = 400
# Below so many pairs the bound is higher. Folds of few pairs learn from each other's noise, so that the error of a gain
# out of fold is understated: of shuffled labels, 4 % passed the ordinary bound at 400 pairs, and 2.5 % at 1,600.
_EARLY, _EARLY_BOUND = 800, 2.5
# Of a study planned for power .8: the quantile of a bound that several looks share, and that of the power.
_PLANNED, _POWER = 1.73, 0.84
# Beyond so many pairs, "more pairs would tell" is not a useful answer.
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Gain:
    """What a router gains over a policy that costs the same, on pairs that it was not trained on.

    Attributes:
        value: Mean difference of the scores.
        error: Its standard error.
        deviation: Standard deviation of one pair's contribution.
        count: Number of pairs.
    """

    value: float
    error: float
    deviation: float
    count: int

    @property
    def z(self) -> float:
        """The difference in standard errors; 0 where there is nothing to tell apart."""
        return self.value / self.error if self.error > 0 else 0.0

    def estimate(self, confidence: float = 0.95) -> Estimate:
        """The difference with its normal interval."""
        half = NormalDist().inv_cdf((1.0 + confidence) / 2.0) * self.error
        return Estimate(self.value, self.value - half, self.value + half)


def top_share(scores: npt.ArrayLike, strong_fraction: float) -> Floats:
    """1.0 for the round(strong_fraction * n) prompts with the highest scores, 0.0 for the others; ties share.

    Prompts that are tied at the edge all have the same number between 0 and 1, so that their order decides nothing.
    """
    values = np.asarray(scores, dtype=np.float64)
    k = round(checked_fraction(strong_fraction, "strong_fraction") * values.size)
    if not 0 < k < values.size:
        return np.full(values.size, float(k > 0))
    edge = np.partition(values, values.size - k)[values.size - k]
    sent, tied = (values > edge).astype(np.float64), values == edge
    sent[tied] = (k - sent.sum()) / tied.sum()
    return np.asarray(sent)


def gain_over_mix(scores: npt.ArrayLike, differences: npt.ArrayLike, strong_fraction: float) -> Gain:
    """Gain of routing by `scores` over the static mix of the same share of strong calls.

    The static mix sends every prompt to strong with the same probability, costs the same and knows nothing. The gain is
    the covariance of being sent and of what the strong model is better by; so the mean difference of the models, which
    every policy of that share has in common, adds nothing to the error.

    Args:
        scores: (n,) win rates or logits by routers that were not trained on the prompt; only their order matters.
        differences: (n,) score of the strong model minus that of the weak one.
        strong_fraction: Share of strong calls.
    """
    sent = top_share(scores, strong_fraction)
    return _mean_gain(sent - sent.mean(), np.asarray(differences, dtype=np.float64))


def gain_over_router(
    scores: npt.ArrayLike, other: npt.ArrayLike, differences: npt.ArrayLike, strong_fraction: float
) -> Gain:
    """Gain of routing by `scores` over routing by `other`, at the same share of strong calls, paired by prompt."""
    change = top_share(scores, strong_fraction) - top_share(other, strong_fraction)
    return _mean_gain(change, np.asarray(differences, dtype=np.float64))


def share_saved(
    scores: npt.ArrayLike, differences: npt.ArrayLike, strong_fraction: float, *, confidence: float = 0.95
) -> Estimate | None:
    """Share of all calls that the static mix must send to strong beyond `strong_fraction` for the same quality.

    The quality that routing adds to weak's, divided by what strong adds on every prompt, less the share. A ratio over a
    difference that the pairs do not show to be positive says nothing.

    Args:
        scores: (n,) win rates or logits by routers that were not trained on the prompt; only their order matters.
        differences: (n,) score of the strong model minus that of the weak one.
        strong_fraction: Share of strong calls.
        confidence: Confidence of the interval, by the delta method.

    Returns:
        The share with its interval; None where strong is not better by two standard errors.
    """
    sent, d = top_share(scores, strong_fraction), np.asarray(differences, dtype=np.float64)
    root = math.sqrt(d.size)
    better = float(d.mean())
    if better <= 2.0 * float(d.std(ddof=1)) / root:
        return None
    reached = float((sent * d).mean()) / better
    deviation = float(((sent - reached) * d).std(ddof=1)) / better
    return Gain(reached - float(sent.mean()), deviation / root, deviation, d.size).estimate(confidence)


def _mean_gain(weight: Floats, differences: Floats) -> Gain:
    if weight.shape != differences.shape or weight.ndim != 1 or weight.size < 2:
        raise DataError(f"scores {weight.shape}, differences {differences.shape}: expected one shape (n,), n >= 2")
    contribution = weight * (differences - differences.mean())
    deviation = float(contribution.std(ddof=1))
    return Gain(float(contribution.mean()), deviation / math.sqrt(weight.size), deviation, weight.size)


def next_look(looks: Sequence[int] = (), *, first: int = FIRST_LOOK) -> int:
    """The number of pairs at which the next verdict is due: `first`, or the doubling of it beyond the last look.

    Args:
        looks: Numbers of pairs at the looks so far.
        first: Fewest pairs of a verdict.
    """
    due = first
    while due <= max(looks, default=0):
        due *= 2
    return due


Finding = Literal["gains", "loses", "undecided"]


def finding(gain: Gain) -> Finding:
    """What a look says: whether the gain differs from zero by the bound that several looks need."""
    bound = BOUND if gain.count >= _EARLY else _EARLY_BOUND
    return "gains" if gain.z >= bound else "loses" if gain.z <= -bound else "undecided"


def pairs_needed(gain: Gain, *, flip_rate: float = 0.0) -> int | None:
    """Pairs in all that would find a gain of this size with 80 % power; None without a sign of a gain.

    Optimistic: the measured gain is as likely too high as too low, and few pairs find a worse router than many.

    Args:
        gain: As measured so far.
        flip_rate: Share of labels that a judge turns round and that the gain was not measured with.
    """
    if not gain.value > 0 or not gain.deviation > 0:
        return None
    needed = ((_PLANNED + _POWER) * gain.deviation / gain.value) ** 2 / (1.0 - 2.0 * flip_rate) ** 2
    return math.ceil(needed) if needed <= _MOST else None
