"""The verdict: should this traffic be routed at all, at which threshold, and what does it gain or risk.

The bar is not always strong but the cost-matched static mix: sending the same share of calls to the strong model
blindly costs the same, so a router is worth its place only where it scores above that. Where no other model is cheaper
than the better one, the mix is that model alone, and the bar is the better single model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.targets import share_interval
from routellm_core.calibration.thresholds import WinRateDistribution, threshold_after
from routellm_core.checks import checked_fraction
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.statistics.intervals import (
    Estimate,
    Resampling,
    mean_interval,
    middle,
    opposite_scores,
    resampled_means,
    shown_digits,
)
from routellm_core.statistics.metrics import (
    Floats,
    checked_rates,
    checked_scores,
    complementary,
    curve,
    static_hull,
)

Finding = Literal["gains", "loses", "undecided"]
Basis = Literal["static_mix", "best_single"]
Name = TypeVar("Name", str, int)

MIN_PROMPTS = 30
# Each half is measured with a threshold that leans towards what pays on the other half, so their errors are correlated
# and the plain bootstrap is too narrow: by 5 % where a router knows nothing (simulated; less where it does).
# More folds make it worse: 15 % at five folds, 30 % at ten.
CROSS_FIT_WIDENING = 1.05
# A saving below this would be shown as 0.0 %.
_LEAST_SAVING = 0.0005
# Thresholds that send nearly everything one way are a static policy by another name.
_SHARES = (0.05, 0.95)
# Beyond this many prompts, "more prompts would settle it" is not a useful answer.
_MOST_NEEDED = 10_000_000


@dataclass(frozen=True)
class Verdict:
    """Whether routing beats the cost-matched static mix on prompts with known outcomes.

    Attributes:
        outcome: ``"gains"``, ``"loses"`` or ``"undecided"`` (the interval of `gain` includes zero).
        sentence: The verdict in one sentence.
        threshold: The threshold to use, chosen on all rows.
        strong_fraction: Share of strong calls at this threshold.
        measured_at: Share of strong calls at which `quality`, `gain` and the rest were measured: each half of the
            prompts with the threshold chosen on the other. Far from `strong_fraction` where the halves disagree.
        measured_thresholds: The thresholds of the two halves; the one threshold, if it was passed in.
        quality: Mean score of the routed policy, measured so.
        cost: Mean cost of one of its calls, measured so.
        gain: Quality of the routed policy minus that of the best static mix of the same cost.
        basis: What that mix is: ``"best_single"`` where no model is cheaper than the one with the best mean score, so
            that the best mix is this model alone; else ``"static_mix"``.
        saving: Share of cost saved against the cheapest static mix of the same quality. None unless the outcome is
            ``"gains"`` and the whole interval shows one: a saving that may not exist is not promised.
        saving_vs_strong: Share of cost saved against always strong, whatever the quality; NaN where that costs nothing.
        worst_loss: With the confidence of `confidence` (one-sided), the routed policy loses at most this much quality
            against always strong; 0 when it cannot lose any. Losses too rare to appear in the sample are allowed for:
            with no lost prompt among n, their rate may still be about 3 / n (at 95 %).
        differences: Quality of the routed policy minus that of ``always_weak``, ``always_strong``, ``best_single``
            and ``static_mix``, with intervals; and of ``"always NAME"`` for each further model.
        best_single: Name of the single model with the best mean score; the cheaper one of equals.
        instead: The best single model, where it is cheaper than the strong one, or no model is cheaper than it, and
            nothing suggests that routing beats it: use it alone. Else None.
        count: Number of prompts.
        needed: Number of prompts that would distinguish a gain of this size from zero; None when these already do, or
            when there is no sign of a gain.
        confidence: Level of the intervals.
        notes: Further remarks for a reader.
    """

    outcome: Finding
    sentence: str
    threshold: float
    strong_fraction: Estimate
    measured_at: Estimate
    measured_thresholds: tuple[float, ...]
    quality: Estimate
    cost: Estimate
    gain: Estimate
    basis: Basis
    saving: Estimate | None
    saving_vs_strong: Estimate
    worst_loss: float
    differences: Mapping[str, Estimate]
    best_single: str
    instead: str | None
    count: int
    needed: int | None
    confidence: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)


def verdict(
    win_rates: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    strong_cost: npt.ArrayLike | None = None,
    weak_cost: npt.ArrayLike | None = None,
    others: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | None = None,
    threshold: float | None = None,
    strong: str = "strong",
    weak: str = "weak",
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Verdict:
    """Compare the routed policy with always weak, always strong, the best single model and the cost-matched mix.

    Nothing depends on which model is called strong, except without costs: then calls of the strong model are what is
    saved. Of `complementary` models neither is the strong one; without costs a call of either counts as much, and the
    better single model is what routing has to beat.

    The threshold is the one that gains most over the static mix. So that luck in choosing it does not count as a
    gain, it is cross-fitted: each random half of the prompts is routed with the threshold chosen on the other. The
    intervals are bootstrapped over prompts, corrected for small samples (`resampled_means`), and widened by a twentieth
    because the halves are not independent. A `threshold` that is passed in is judged on all prompts, without that.

    Args:
        win_rates: (n,) win rates in [0, 1].
        strong_scores: (n,) scores of the strong model, higher is better.
        weak_scores: (n,) scores of the weak model.
        strong_cost: Cost of a call of the strong model, a mean or (n,), in any currency. None for both models counts
            strong calls.
        weak_cost: The same for the weak model.
        others: Further single models: name -> (scores (n,), cost); they too can be part of a static mix.
        threshold: Judge this threshold instead of choosing one.
        strong: Name of the strong model in the sentence.
        weak: Name of the weak model.
        confidence: Level of the intervals, and of the one-sided bound on quality.
        draws: Bootstrap draws.
        seed: Seed of the draws and folds.

    Raises:
        DataError: Malformed arrays or costs that are not one per prompt.
        ConfigurationError: A parameter is not allowed.
    """
    how = Resampling(draws, confidence, seed)
    if confidence <= 0.5:
        raise ConfigurationError(f"confidence={confidence!r}: expected a number between 0.5 and 1, such as 0.95")
    if threshold is not None:
        checked_fraction(threshold, "threshold")
    rates = checked_rates(win_rates)
    # without costs the sentence speaks of strong calls and not of money
    priced = strong_cost is not None or weak_cost is not None
    counted: tuple[npt.ArrayLike, npt.ArrayLike] = (
        1.0 if strong_cost is None else strong_cost,
        0.0 if weak_cost is None else weak_cost,
    )
    given = {strong: (strong_scores, counted[0]), weak: (weak_scores, counted[1]), **(others or {})}
    if len(given) != 2 + len(others or {}):
        raise ConfigurationError(
            f"strong={strong!r}, weak={weak!r} and others={list(others or {})} must differ in name"
        )
    models = {name: scores_and_costs(name, pair, rates.size) for name, pair in given.items()}
    if not priced and not others:
        counted = costs_in_calls(models[strong][0], models[weak][0])
        models = {
            m: scores_and_costs(m, (models[m][0], c), rates.size) for m, c in zip((strong, weak), counted, strict=True)
        }
    case = _Case(rates, models, strong, weak)

    chosen, halves, is_strong = case.policy(threshold, how)
    estimates = case.estimates(is_strong, how, widen=CROSS_FIT_WIDENING if threshold is None else 1.0)
    outcome, needed = _outcome(estimates["gain"], rates.size)
    saving = estimates["saving"] if outcome == "gains" and estimates["saving"].low >= _LEAST_SAVING else None
    best = case.best_single
    # not where more prompts may still show that routing beats the best single model
    settled = outcome == "loses" or (outcome == "undecided" and needed is None and rates.size >= MIN_PROMPTS)
    cheaper = case.means[best][1] < case.means[strong][1] or case.basis == "best_single"
    result = Verdict(
        outcome=outcome,
        sentence="",
        threshold=chosen,
        strong_fraction=share_interval(
            WinRateDistribution.from_win_rates(rates), chosen, confidence=confidence, seed=seed
        ),
        measured_at=estimates["measured_at"],
        measured_thresholds=halves,
        quality=estimates["quality"],
        cost=estimates["cost"],
        gain=estimates["gain"],
        basis=case.basis,
        saving=saving,
        saving_vs_strong=estimates["saving_vs_strong"],
        worst_loss=case.worst_loss((is_strong, rates >= chosen), how),
        differences={
            "always_weak": estimates[f"vs:{weak}"],
            "always_strong": estimates[f"vs:{strong}"],
            "best_single": estimates[f"vs:{best}"],
            "static_mix": estimates["gain"],
            **{f"always {name}": estimates[f"vs:{name}"] for name in others or {}},
        },
        best_single=best,
        instead=best if settled and cheaper else None,
        count=rates.size,
        needed=needed,
        confidence=confidence,
        notes=(
            *_notes(rates, float((rates >= chosen).mean()), float(is_strong.mean())),
            *_cheaper_strong(case),
            *_better_weak(weak, case.means, list(others or {})),
        ),
    )
    return replace(result, sentence=_sentence(result, case, priced=priced))


@dataclass(frozen=True)
class _Case:
    """Prompts with the scores and costs of every model, and the pair to route between.

    Attributes:
        rates: Win rates (n,).
        models: Name -> scores (n,) and costs (n,); the strong model first, then the weak one.
        strong: Name of the strong model.
        weak: Name of the weak model.
    """

    rates: Floats
    models: Mapping[str, tuple[Floats, Floats]]
    strong: str
    weak: str

    @cached_property
    def means(self) -> dict[str, tuple[float, float]]:
        """Name -> mean score and mean cost."""
        return {name: (float(q.mean()), float(c.mean())) for name, (q, c) in self.models.items()}

    @property
    def best_single(self) -> str:
        """The model with the best mean score; the cheaper one of equals, and then the first by name."""
        return min(self.means, key=lambda name: (-self.means[name][0], self.means[name][1], name))

    @property
    def basis(self) -> Basis:
        """What the best static mix is made of."""
        corners, _ = static_hull([(cost, quality) for quality, cost in self.means.values()])
        return "best_single" if len(corners) == 1 else "static_mix"

    @property
    def as_shares(self) -> bool:
        """Whether all scores lie in [0, 1]."""
        return all(is_share(quality) for quality, _ in self.models.values())

    def choose(self, rows: npt.NDArray[np.intp]) -> float:
        """The threshold whose policy lies highest above the static mix of its cost, on these rows."""
        (s, cs), (w, cw) = (tuple(column[rows] for column in self.models[m]) for m in (self.strong, self.weak))
        quality = curve(self.rates[rows], s, w)
        cost = curve(self.rates[rows], cs, cw)  # the same order of prompts, so cost is a curve over the same shares
        hull_cost, hull_quality = static_hull(
            [(float(c[rows].mean()), float(q[rows].mean())) for q, c in self.models.values()]
        )
        above = quality.quality - np.interp(cost.quality, hull_cost, hull_quality)
        inside = (quality.strong_fraction >= _SHARES[0]) & (quality.strong_fraction <= _SHARES[1])
        inside = inside if inside.any() else np.ones_like(inside)
        above = np.where(inside, above, -np.inf)
        # of equals the cheapest, and then one that does not depend on which model is called strong
        equal = np.flatnonzero(above >= above.max() - 1e-12 * np.abs(quality.quality).max())
        to_first = quality.strong_fraction if self.strong < self.weak else 1.0 - quality.strong_fraction
        at = min(equal, key=lambda i: (round(float(cost.quality[i]), 12), to_first[i]))
        return threshold_after(quality.threshold[1:], int(at))

    def policy(
        self, threshold: float | None, how: Resampling
    ) -> tuple[float, tuple[float, ...], npt.NDArray[np.bool_]]:
        """The threshold to use, those of the policy that is measured, and which prompts (n,) are strong in it.

        The two policies differ where the threshold is chosen here: then each half of the prompts is measured with the
        threshold that the other half chooses.
        """
        n = self.rates.size
        chosen = threshold if threshold is not None else self.choose(np.arange(n))
        is_strong = self.rates >= chosen
        if threshold is not None or n == 1:
            return chosen, (chosen,), is_strong
        half = how.rng(3).permutation(n) % 2 == 0
        thresholds = []
        for inside in (half, ~half):
            thresholds.append(self.choose(np.flatnonzero(~inside)))
            is_strong[inside] = self.rates[inside] >= thresholds[-1]
        return chosen, tuple(thresholds), is_strong

    def estimates(self, is_strong: npt.NDArray[np.bool_], how: Resampling, *, widen: float) -> dict[str, Estimate]:
        """Every comparison of `_compare` with its interval, from draws that are spread by `widen`."""
        (s, cs), (w, cw) = self.models[self.strong], self.models[self.weak]
        columns = [is_strong, np.where(is_strong, s, w), np.where(is_strong, cs, cw)]
        for quality, cost in self.models.values():
            columns += [quality, cost]
        rows = np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)
        names = list(self.models)
        means = rows.mean(axis=0)[None]
        drawn = resampled_means(rows, self._half_prompts(), how, widen=widen)
        point, sampled = _compare(means, names), _compare(drawn, names)
        found = {k: how.interval(sampled[k], float(point[k][0])) for k in point}
        over = zip(gains_over_mixes(means, means[0]), gains_over_mixes(drawn, means[0]), strict=True)
        found["gain"] = least_gain([(float(value[0]), draws) for value, draws in over], how)
        return found

    def _half_prompts(self) -> Floats:
        """The imagined rows for `resampled_means`: a call of each model of the pair, where it is better and worse.

        A further model scores as that one of the pair does whose scores are the more like its own.
        """
        high, low = opposite_scores(self.models[self.strong][0], self.models[self.weak][0])
        pair = sorted((self.strong, self.weak))  # so that the draws do not depend on which is called strong
        like = {name: nearest(q, {m: self.models[m][0] for m in pair}) for name, (q, _) in self.models.items()}
        costs = {name: middle(cost) for name, (_, cost) in self.models.items()}
        rows = []
        for called in pair:
            for better in pair:
                row = [float(called == self.strong), high if called == better else low, costs[called]]
                for name in self.models:
                    row += [high if like[name] == better else low, costs[name]]
                rows.append(row)
        return np.array(rows)

    def worst_loss(self, policies: Sequence[npt.NDArray[np.bool_]], how: Resampling) -> float:
        """The bound on the loss against always strong: of the policy that was measured, and of the one to be used.

        Args:
            policies: Which prompts (n,) are strong in each policy.
            how: Level and seed.
        """
        s, w = self.models[self.strong][0], self.models[self.weak][0]
        span = float(np.ptp([s, w]))
        return min(max(_worst_loss(np.where(policy, 0.0, s - w), policy, span, how) for policy in policies), span)


def _outcome(gain: Estimate, count: int) -> tuple[Finding, int | None]:
    """What the interval of the gain says, and after how many prompts it would say more."""
    if count >= MIN_PROMPTS:
        # An interval that touches zero, as that of a policy which is a static one in disguise, decides nothing.
        if gain.low > 0:
            return "gains", None
        if gain.high < 0:
            return "loses", None
    if not gain.value > 0:
        return "undecided", None
    # The size at which the interval around the present gain would just leave out zero.
    needed = int(np.ceil(count * ((gain.high - gain.low) / 2.0 / gain.value) ** 2))
    return "undecided", needed if needed <= _MOST_NEEDED else None


def _worst_loss(lost: Floats, is_strong: npt.NDArray[np.bool_], span: float, how: Resampling) -> float:
    """One-sided upper bound of the mean loss (n,) against always strong, for few losses as well as for many.

    A bootstrap is blind to losses that the sample lacks. So the rate of losing prompts is bounded too; each costs what
    those of the sample lost on average, or, if none did, the whole range of the scores. The larger of the two bounds
    holds.
    """
    n, losing = lost.size, lost > 0
    if is_strong.all():
        return 0.0
    k = int(losing.sum())
    rate = _highest_rate(k, n, how.confidence)
    rare = rate * (float(lost[losing].mean()) if k else span) + float(lost[~losing].sum()) / n
    return max(rare, mean_interval(lost, Resampling(1000, 2.0 * how.confidence - 1.0, how.seed)).high, 0.0)


def _highest_rate(k: int, n: int, confidence: float) -> float:
    """The upper bound of a rate of which k of n were seen, as Clopper and Pearson set it: so few have that chance."""
    if k == n:
        return 1.0
    seen = np.arange(k + 1)
    log_ways = np.concatenate([[0.0], np.cumsum(np.log((n - seen[1:] + 1) / seen[1:]))])
    low, high = k / n, 1.0
    for _ in range(50):
        rate = (low + high) / 2.0
        chance = float(np.exp(log_ways + seen * np.log(rate) + (n - seen) * np.log1p(-rate)).sum())
        low, high = (rate, high) if chance > 1.0 - confidence else (low, rate)
    return high


def costs_in_calls(strong: Floats, weak: Floats) -> tuple[float, float]:
    """What a call of the strong and the weak model counts as where no costs are known.

    Strong calls are counted; of `complementary` models, calls of either, because neither is the strong one.
    """
    return (1.0, 1.0) if complementary(strong, weak) else (1.0, 0.0)


def nearest(scores: Floats, models: Mapping[Name, Floats]) -> Name:
    """Which of the models has scores (n,) like these."""
    return min(models, key=lambda name: float(np.abs(models[name] - scores).mean()))


def is_share(scores: Floats) -> bool:
    """Whether scores lie in [0, 1], so that a reader wants percent."""
    return bool((scores >= 0.0).all() and (scores <= 1.0).all())


def threshold_text(threshold: float, rates: Floats) -> str:
    """A threshold in as few digits, at least four, as send the same prompts to the strong model."""
    sent = int((rates >= threshold).sum())
    texts = (f"{threshold:.{digits}f}" for digits in range(4, 17))
    return next((text for text in texts if int((rates >= float(text)).sum()) == sent), repr(threshold))


def scores_and_costs(name: str, given: object, count: int) -> tuple[Floats, Floats]:
    """Checked scores (n,) and costs (n,) of one model."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"others[{name!r}] is of type {type(given).__name__}; expected (scores, cost)")
    scores, cost = given
    quality = checked_scores(f"{name} scores", scores)
    if quality.size != count:
        raise DataError(f"{name} has {quality.size} scores for {count} win rates; expected one per prompt")
    try:
        price = np.asarray(cost, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"the cost of {name} is {cost!r:.80}; expected a number or ({count},) of them") from None
    if price.ndim and price.shape != (count,):
        raise DataError(f"the cost of {name} has shape {price.shape}; expected one number or ({count},)")
    if not bool((np.isfinite(price) & (price >= 0)).all()):
        raise DataError(f"the cost of {name} holds a number that is not finite or below 0")
    return quality, np.broadcast_to(price, (count,))


def _compare(means: Floats, names: list[str]) -> dict[str, Floats]:
    """Comparisons (b,) from means (b, 3 + 2 * models): share, routed score and cost, then score and cost of each."""
    share, quality, cost = means[:, 0], means[:, 1], means[:, 2]
    model_quality, model_cost = means[:, 3::2], means[:, 4::2]
    mix, mix_cost = _best_mix(quality, cost, model_quality, model_cost)
    out = {
        "measured_at": share,
        "quality": quality,
        "cost": cost,
        "gain": quality - mix,
        "saving": 1.0 - cost / np.where(mix_cost > 0, mix_cost, np.nan),
        "saving_vs_strong": 1.0 - cost / np.where(model_cost[:, 0] > 0, model_cost[:, 0], np.nan),
    }
    for j, name in enumerate(names):
        out[f"vs:{name}"] = quality - model_quality[:, j]
    # Rounding is not a difference: without this, a policy that IS a static mix could seem to gain 1e-17.
    speck = 1e-12 * (np.abs(quality) + np.abs(model_quality).max(axis=1))
    out["gain"] = np.where(np.abs(out["gain"]) < speck, 0.0, out["gain"])
    return out


def _best_mix(quality: Floats, cost: Floats, models: Floats, prices: Floats) -> tuple[Floats, Floats]:
    """Score of the best static mix that costs as much, and cost of the cheapest one that scores as much, (b,) each.

    Where no mix is so cheap, the cheapest model counts; where none reaches the score, the best mix, which favours it.

    Args:
        quality: Scores (b,) of the routed policy.
        cost: Its costs (b,).
        models: Mean scores (b, m) of the models.
        prices: Mean costs (b, m) of the models.
    """
    spent, reached = np.maximum(cost, prices.min(axis=1)), np.minimum(quality, models.max(axis=1))
    best = np.where(prices <= spent[:, None], models, -np.inf).max(axis=1)
    least = np.where(models >= reached[:, None], prices, np.inf).min(axis=1)
    for i in range(prices.shape[1]):
        for j in range(prices.shape[1]):
            low, high, cheap, better = prices[:, i], prices[:, j], models[:, i], models[:, j]
            rising = (low < high) & (cheap < better)
            share = (spent - low) / np.where(rising, high - low, 1.0)
            best = np.where(
                rising & (share >= 0) & (share <= 1), np.maximum(best, cheap + share * (better - cheap)), best
            )
            share = (reached - cheap) / np.where(rising, better - cheap, 1.0)
            least = np.where(rising & (share >= 0) & (share <= 1), np.minimum(least, low + share * (high - low)), least)
    return best, least


def gains_over_mixes(means: Floats, sample: Floats) -> list[Floats]:
    """The routed score minus that of every static mix, (b,) each, that may be the best one of the routed cost.

    These are the single models that cost no more, and of each cheaper with each more expensive model the mix that costs
    as much.

    Args:
        means: As for `_compare`.
        sample: The means of the sample (3 + 2 * models,), which decide which mixes these are.
    """
    quality, cost = means[:, 1], means[:, 2]
    models = list(zip(means[:, 3::2].T, means[:, 4::2].T, strict=True))
    prices = sample[4::2]
    spent = max(sample[2], prices.min()) * (1.0 + 1e-12)
    mixes = [q for (q, _), price in zip(models, prices, strict=True) if price <= spent]
    for (cheap, low), price in zip(models, prices, strict=True):
        for (expensive, high), other in zip(models, prices, strict=True):
            if price <= spent < other:
                share = np.clip((cost - low) / np.where(high > low, high - low, np.inf), 0.0, 1.0)
                mixes.append(cheap + share * (expensive - cheap))
    return [quality - mix for mix in mixes]


def least_gain(gains: Sequence[tuple[float, Floats]], how: Resampling) -> Estimate:
    """The least of several gains: that over the best static mix, where chance decides which one that is.

    The best mix of each draw would seem better than any is, so each gain has its own interval, and the ends are the
    least of theirs; the upper ones allow for as many chances (Bonferroni) as there are mixes that may be the best.

    Args:
        gains: Value and draws (b,) of the gain over each mix.
        how: Level of the interval.
    """
    each = [how.interval(draws, value) for value, draws in gains]
    least = min(each, key=lambda e: e.value)
    rivals = [gain for gain, e in zip(gains, each, strict=True) if e.low <= least.high]
    wider = replace(how, confidence=1.0 - (1.0 - how.confidence) / len(rivals))
    return Estimate(
        least.value, min(e.low for e in each), min(wider.interval(draws, value).high for value, draws in rivals)
    )


def _notes(rates: Floats, share: float, measured: float) -> tuple[str, ...]:
    notes = []
    if rates.size >= MIN_PROMPTS and share_text(share) != share_text(measured):
        notes.append(
            f"Each half of the prompts was routed with the threshold that the other half chose, so that luck in "
            f"choosing it does not count. That made {share_text(measured)} strong calls, at which the gain was "
            f"measured; the threshold that all prompts choose makes {share_text(share)}."
        )
    if rates.size < MIN_PROMPTS:
        notes.append(f"A verdict needs at least {MIN_PROMPTS} prompts; 500 or more are better.")
    if np.unique(rates).size == 1:
        notes.append("Every prompt has the same win rate: this router cannot tell prompts apart.")
    return tuple(notes)


def _cheaper_strong(case: _Case) -> tuple[str, ...]:
    """A note where the names of the pair seem to be swapped."""
    if case.means[case.strong][1] >= case.means[case.weak][1]:
        return ()
    return (
        f"A call of {case.strong} costs less than one of {case.weak}, although {case.strong} is named as the strong "
        "model.",
    )


def _better_weak(weak: str, means: Mapping[str, tuple[float, float]], others: Sequence[str]) -> tuple[str, ...]:
    """A note where a further model is the better weak one; of several the best scored."""
    better = [m for m in others if means[m][0] > means[weak][0] and means[m][1] <= means[weak][1]]
    if not better:
        return ()
    best = max(better, key=lambda m: means[m][0])
    return (f"{best} costs no more than {weak} and scores higher: route between it and the strong model.",)


def _sentence(v: Verdict, case: _Case, *, priced: bool) -> str:
    """The verdict in one sentence; with `priced`, it speaks of cost, else of strong calls."""
    if v.outcome != "gains" and v.count < MIN_PROMPTS:
        prompts = "1 prompt is" if v.count == 1 else f"{v.count} prompts are"
        return f"Routing cannot be judged: {prompts} too few, at least {MIN_PROMPTS} are needed."
    # Digits by the width of the interval, so that no finding is rounded away; of shares, percentage points.
    unit, name = (100.0, " points") if case.as_shares else (1.0, "")
    digits = shown_digits((v.gain.high - v.gain.low) * unit, least=1 if case.as_shares else 3)

    def number(value: float, form: str = "") -> str:
        return f"{value * unit + 0.0:{form}.{digits}f}"

    def difference(estimate: Estimate) -> str:
        value, low, high = (number(part, "+") for part in (estimate.value, estimate.low, estimate.high))
        return f"{value}{name} (interval {low} to {high})"

    def mean(model: str) -> str:
        return f"{case.means[model][0]:.1%}" if case.as_shares else f"{case.means[model][0]:.4g}"

    if v.instead is not None:
        other = case.strong if v.instead != case.strong else case.weak
        saved = case.means[v.instead][1] < case.means[other][1]
        cheaper = "is cheaper and scores no worse" if saved else "scores no worse"
        against = v.differences["best_single"] if v.basis == "static_mix" else v.gain
        return (
            f"Do not route: always {v.instead} {cheaper} than {other} ({mean(v.instead)} against {mean(other)}), and "
            f"routing scores {difference(against)} against it."
        )
    if v.basis == "best_single":
        bar = f"always {v.best_single}, the better single model ({mean(v.best_single)})"
    else:
        bar = "a static mix of the same cost"
    share, measured = share_text(v.strong_fraction.value), share_text(v.measured_at.value)
    calls = f"{share} strong calls" + (f", measured at {measured}" if share != measured else "")
    at = f"at threshold {threshold_text(v.threshold, case.rates)} ({calls})"
    risk = _risk_text(v, case, number, name)
    if v.outcome == "gains":
        saves = _saving_text(v.saving, priced=priced) if v.saving is not None and v.basis == "static_mix" else ""
        return f"Routing gains: {at} it scores {difference(v.gain)} over {bar}{saves}{risk}."
    if v.outcome == "loses":
        return (
            f"Routing loses: {at} it scores {difference(v.gain)} against {bar}, so do not route with this router{risk}."
        )
    needed = ""
    if v.needed is not None:
        needed = f"; about {round_up(v.needed):,} prompts would settle it, if the gain is as large as it seems"
    return f"Routing cannot be told apart from {bar}: {at} the difference is {difference(v.gain)}{needed}{risk}."


def _risk_text(v: Verdict, case: _Case, number: Callable[[float], str], unit: str) -> str:
    """The bound on the loss against always strong, where that is a risk to be named, and the bound says something."""
    scores = [case.models[name][0] for name in (case.strong, case.weak)]
    if v.best_single != case.strong or v.worst_loss >= float(np.ptp(scores)):
        return ""
    bound = number(v.worst_loss)
    loss = "no lower than"
    if v.worst_loss > 0:  # where it rounds to 0, the least that these digits show
        loss = f"at most {bound}{unit} below" if float(bound) > 0 else f"less than {bound[:-1]}1{unit} below"
    return f"; at {100 * v.confidence:g}% confidence it scores {loss} always {case.strong}"


def share_text(share: float) -> str:
    """A share of calls as the verdict, the tables and the notes give it."""
    return f"{share:.0%}"


def _saving_text(saving: Estimate, *, priced: bool) -> str:
    form = ".0%" if saving.low >= 0.01 else ".1%"
    less = f"costs {saving.value:{form}} less" if priced else f"needs {saving.value:{form}} fewer strong calls"
    return f" and {less} than the static mix of the same quality (interval {saving.low:{form}} to {saving.high:{form}})"


def round_up(count: int) -> int:
    """A number of prompts to two digits, rounded up: it is itself an estimate."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step
