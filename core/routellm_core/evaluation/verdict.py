"""The verdict: should this traffic be routed at all, at which threshold, and what does it gain or risk.

The bar is not always strong but the cost-matched static mix: sending the same share of calls to the strong model
blindly costs the same, so a router is worth its place only where it scores above that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.calibration.targets import checked_rates, cut, mean_interval, share_interval
from routellm_core.checks import checked_fraction
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.statistics.intervals import Estimate, check_bootstrap, interval, resample, shown_digits
from routellm_core.statistics.metrics import (
    Curve,
    Floats,
    check_costs,
    checked_scores,
    curve,
    static_hull,
)

Outcome = Literal["gains", "loses", "undecided"]

MIN_PROMPTS = 30
# Each half is measured with a threshold that leans towards what pays on the other half, so the two errors are a little
# alike and the plain bootstrap is too sure: by 5 % where a router knows nothing (simulated; less where it does).
# More folds make it worse: 15 % at five folds, 30 % at ten.
_CROSS_FIT_WIDENING = 1.1
# Shares that differ by more than this are of policies that should not be taken for one another.
_DISAGREE = 0.05
# A saving below this would be shown as none.
_LEAST_SAVING = 0.0005
# Thresholds that send nearly everything one way are a static policy by another name.
_SHARES = (0.05, 0.95)


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
        quality: Mean score of the routed policy, measured so.
        gain: Quality of the routed policy minus that of the best static mix of the same cost.
        saving: Share of cost saved against the cheapest static mix of the same quality. None unless the outcome is
            ``"gains"`` and the whole interval shows one: no saving is promised that may be none.
        saving_vs_strong: Share of cost saved against always strong, whatever the quality.
        worst_loss: With the confidence of `confidence` (one-sided), the routed policy loses at most this much quality
            against always strong; 0 when it loses none. Losses that are too rare for the sample to show are allowed
            for: no prompt lost out of n still bounds their rate by about 3 / n at 95 %.
        differences: Quality of the routed policy minus that of ``always_weak``, ``always_strong``, ``best_single``
            and ``static_mix``, with intervals; and of ``"always NAME"`` for each further model.
        best_single: Name of the single model with the best mean score; the cheaper one of equals.
        instead: The best single model where it is the answer whatever the router: cheaper than the strong one, and
            no sign that routing beats it. Else None.
        count: Number of prompts.
        needed: Prompts after which a gain of this size could be told from none; None when it can be already, or when
            there is no sign of a gain.
        confidence: Level of the intervals.
        notes: What a reader must know besides.
    """

    outcome: Outcome
    sentence: str
    threshold: float
    strong_fraction: Estimate
    measured_at: Estimate
    quality: Estimate
    gain: Estimate
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
    strong_cost: npt.ArrayLike = 1.0,
    weak_cost: npt.ArrayLike = 0.0,
    others: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | None = None,
    threshold: float | None = None,
    strong: str = "strong",
    weak: str = "weak",
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Verdict:
    """Compare the routed policy with always weak, always strong, the best single model and the cost-matched mix.

    The threshold is the one that gains most over the static mix. So that luck in choosing it does not count as a
    gain, it is cross-fitted: each random half of the prompts is routed with the threshold chosen on the other. The
    intervals are bootstrapped over prompts, and widened by a tenth for what the halves share. With `threshold` given
    there is nothing to choose and all prompts measure it.

    Args:
        win_rates: (n,) win rates in [0, 1].
        strong_scores: (n,) scores of the strong model, higher is better.
        weak_scores: (n,) scores of the weak model.
        strong_cost: Cost of a call of the strong model, a mean or (n,), in any currency. The default counts strong
            calls alone.
        weak_cost: The same of the weak model.
        others: Further single models: name -> (scores (n,), cost); they too can be part of a static mix.
        threshold: Judge this threshold instead of choosing one.
        strong: Name of the strong model in the sentence.
        weak: Name of the weak model.
        confidence: Level of the intervals, and of the one-sided bound on quality.
        draws: Bootstrap draws.
        seed: Seed of the draws and folds.

    Raises:
        DataError: Malformed arrays or costs that are not one a prompt.
        ConfigurationError: The strong model is not dearer than the weak one, or a parameter is not allowed.
    """
    rates = checked_rates(win_rates)
    n = rates.size
    table = {
        strong: _column(strong, strong_scores, strong_cost, n),
        weak: _column(weak, weak_scores, weak_cost, n),
        **{name: _column(name, *_scores_and_cost(name, given), n) for name, given in (others or {}).items()},
    }
    if strong == weak or len(table) != 2 + len(others or {}):
        raise ConfigurationError(
            f"strong={strong!r}, weak={weak!r} and others={list(others or {})} must differ in name"
        )
    (s, cs), (w, cw) = table[strong], table[weak]
    check_costs(float(cs.mean()), float(cw.mean()))
    if threshold is not None:
        checked_fraction(threshold, "threshold")
    check_bootstrap(draws, confidence, seed)
    if not 0.5 < confidence < 1.0:
        raise ConfigurationError(f"confidence={confidence!r}: expected a number between 0.5 and 1, such as 0.95")

    def choose(rows: npt.NDArray[np.intp]) -> float:
        points = [(float(c[rows].mean()), float(q[rows].mean())) for q, c in table.values()]
        return _best_threshold(rates[rows], s[rows], w[rows], cs[rows], cw[rows], points)

    chosen = threshold if threshold is not None else choose(np.arange(n))
    is_strong = rates >= chosen
    if threshold is None and n > 1:
        half = np.random.default_rng([seed, 3]).permutation(n) % 2 == 0
        for inside in (half, ~half):
            is_strong[inside] = rates[inside] >= choose(np.flatnonzero(~inside))

    columns = [is_strong, np.where(is_strong, s, w), np.where(is_strong, cs, cw)]
    for quality, cost in table.values():
        columns += [quality, cost]
    rows = np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)
    point = _compare(rows.mean(axis=0)[None], list(table))
    blocks = [counts @ rows for counts in resample(n, draws, np.random.default_rng(seed))]
    sampled = _compare(np.concatenate(blocks) / n, list(table))
    # The best single model is settled on the sample: a draw compares with that one and not with its own favourite.
    means = {name: (float(q.mean()), float(c.mean())) for name, (q, c) in table.items()}
    best = max(means, key=lambda m: (means[m][0], -means[m][1]))
    widen = 1.0 if threshold is not None else _CROSS_FIT_WIDENING
    for values in (point, sampled):
        values["best_single"] = values[f"vs:{best}"]
    sampled = {k: point[k] + (values - point[k]) * widen for k, values in sampled.items()}
    estimates = {k: interval(sampled[k], float(point[k][0]), confidence) for k in point}
    gain = estimates["gain"]
    outcome: Outcome = "undecided"
    if n >= MIN_PROMPTS:
        # An interval that touches zero, as that of a policy which is a static one in disguise, decides nothing.
        outcome = "gains" if gain.low > 0 else "loses" if gain.high < 0 else "undecided"
    saving: Estimate | None = estimates["saving"]
    if outcome != "gains" or not estimates["saving"].low >= _LEAST_SAVING:
        saving = None
    # of the policy that was measured and of the one to be used, which sends other prompts to the weak model
    span = float(np.ptp([s, w]))
    worst = max(-float(np.quantile(sampled[f"vs:{strong}"], 1.0 - confidence)), 0.0)
    for policy in (is_strong, rates >= chosen):
        worst = max(worst, _worst_loss(np.where(policy, 0.0, s - w), policy, span, confidence, seed))
    half = (gain.high - gain.low) / 2.0
    # The size at which the interval around the present gain would just leave out zero.
    needed = int(np.ceil(n * (half / gain.value) ** 2)) if outcome == "undecided" and gain.value > 0 else None
    needed = needed if needed is None or needed <= 10_000_000 else None
    # not where more prompts may still tell that routing beats the best single model
    settled = outcome == "loses" or (outcome == "undecided" and needed is None and n >= MIN_PROMPTS)
    result = Verdict(
        outcome=outcome,
        sentence="",
        threshold=chosen,
        strong_fraction=share_interval(Calibration.from_win_rates(rates), chosen, confidence=confidence, seed=seed),
        measured_at=estimates["measured_at"],
        quality=estimates["quality"],
        gain=gain,
        saving=saving,
        saving_vs_strong=estimates["saving_vs_strong"],
        worst_loss=min(worst, span),
        differences={
            "always_weak": estimates[f"vs:{weak}"],
            "always_strong": estimates[f"vs:{strong}"],
            "best_single": estimates["best_single"],
            "static_mix": gain,
            **{f"always {name}": estimates[f"vs:{name}"] for name in others or {}},
        },
        best_single=best,
        instead=best if settled and means[best][1] < means[strong][1] else None,
        count=n,
        needed=needed,
        confidence=confidence,
        notes=(
            *_notes(rates, float((rates >= chosen).mean()), float(is_strong.mean())),
            *_better_weak(weak, means, list(others or {})),
        ),
    )
    # With the default costs nothing but strong calls is counted, and the sentence must not speak of money.
    priced = not (np.ndim(strong_cost) == np.ndim(weak_cost) == 0 and strong_cost == 1.0 and weak_cost == 0.0)
    as_shares = all(is_share(q) for q, _ in table.values())
    text = _sentence(result, strong, weak, means, priced, as_shares, threshold_text(chosen, rates))
    object.__setattr__(result, "sentence", text)
    return result


def _worst_loss(lost: Floats, is_strong: npt.NDArray[np.bool_], span: float, confidence: float, seed: int) -> float:
    """One-sided upper bound of the mean loss (n,) against always strong, where losses are few as where they are many.

    A bootstrap is blind to losses that the sample lacks. So the rate of losing prompts is bounded too, as Clopper and
    Pearson do, by a quantile of Beta(k + 1, n - k); each costs what those of the sample lost on average, or, if none
    did, the whole range of the scores. The larger of the two bounds holds.
    """
    n, losing = lost.size, lost > 0
    if is_strong.all():
        return 0.0
    k = int(losing.sum())
    rng = np.random.default_rng([seed, 4])
    rate = float(np.quantile(rng.beta(k + 1, n - k, size=200_000), confidence)) if k < n else 1.0
    rare = rate * (float(lost[losing].mean()) if k else span) + float(lost[~losing].sum()) / n
    return max(rare, mean_interval(lost, 2.0 * confidence - 1.0, 1000, seed).high)


def is_share(scores: Floats) -> bool:
    """Whether scores lie in [0, 1], so that a reader wants percent."""
    return bool((scores >= 0.0).all() and (scores <= 1.0).all())


def threshold_text(threshold: float, rates: Floats) -> str:
    """A threshold in as few digits, at least four, as send the same prompts to the strong model."""
    sent = int((rates >= threshold).sum())
    texts = (f"{threshold:.{digits}f}" for digits in range(4, 17))
    return next((text for text in texts if int((rates >= float(text)).sum()) == sent), repr(threshold))


def _scores_and_cost(name: str, given: object) -> tuple[npt.ArrayLike, npt.ArrayLike]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"others[{name!r}] is of type {type(given).__name__}; expected (scores, cost)")
    return given[0], given[1]


def _column(name: str, scores: npt.ArrayLike, cost: npt.ArrayLike, count: int) -> tuple[Floats, Floats]:
    quality = checked_scores(f"{name} scores", scores)
    if quality.size != count:
        raise DataError(f"{name} has {quality.size} scores for {count} win rates; expected one a prompt")
    try:
        price = np.asarray(cost, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"the cost of {name} is {cost!r:.80}; expected a number or ({count},) of them") from None
    if price.ndim and price.shape != (count,):
        raise DataError(f"the cost of {name} has shape {price.shape}; expected one number or ({count},)")
    if not bool((np.isfinite(price) & (price >= 0)).all()):
        raise DataError(f"the cost of {name} holds a number that is not finite or below 0")
    return quality, np.broadcast_to(price, (count,))


def _best_threshold(
    rates: Floats, s: Floats, w: Floats, cs: Floats, cw: Floats, points: list[tuple[float, float]]
) -> float:
    """The threshold whose policy lies highest above the static mix of its cost, on these rows."""
    quality: Curve = curve(rates, s, w)
    cost: Curve = curve(rates, cs, cw)  # the same order of prompts, so cost is a curve over the same shares
    hull_cost, hull_quality = static_hull(points)
    above = quality.quality - np.interp(cost.quality, hull_cost, hull_quality)
    inside = (quality.strong_fraction >= _SHARES[0]) & (quality.strong_fraction <= _SHARES[1])
    inside = inside if inside.any() else np.ones_like(inside)
    index = int(np.argmax(np.where(inside, above, -np.inf)))
    return cut(quality.threshold[1:], index)


def _compare(means: Floats, names: list[str]) -> dict[str, Floats]:
    """Comparisons (b,) from means (b, 3 + 2 * models): share, routed score and cost, then score and cost of each."""
    share, quality, cost = means[:, 0], means[:, 1], means[:, 2]
    model_quality, model_cost = means[:, 3::2], means[:, 4::2]
    mix, mix_cost = np.empty_like(quality), np.empty_like(quality)
    for i in range(len(means)):
        corner_cost, corner_quality = static_hull(list(zip(model_cost[i], model_quality[i], strict=True)))
        mix[i] = np.interp(cost[i], corner_cost, corner_quality)
        # Cheapest mix of the routed quality; where none reaches it, the best one there is (in favour of the mix).
        mix_cost[i] = np.interp(quality[i], corner_quality, corner_cost)
    out = {
        "measured_at": share,
        "quality": quality,
        "gain": quality - mix,
        "saving": 1.0 - cost / np.where(mix_cost > 0, mix_cost, np.nan),
        "saving_vs_strong": 1.0 - cost / model_cost[:, 0],
    }
    for j, name in enumerate(names):
        out[f"vs:{name}"] = quality - model_quality[:, j]
    # A difference of rounding is none: without this a policy that IS a static mix could seem to gain 1e-17.
    speck = 1e-12 * (np.abs(quality) + np.abs(model_quality).max(axis=1))
    out["gain"] = np.where(np.abs(out["gain"]) < speck, 0.0, out["gain"])
    return out


def _notes(rates: Floats, share: float, measured: float) -> tuple[str, ...]:
    notes = []
    if rates.size >= MIN_PROMPTS and abs(share - measured) > _DISAGREE:
        notes.append(
            f"The halves of the prompts chose other thresholds than all of them together: what is said of the gain was "
            f"measured at {measured:.0%} strong calls, and the threshold for {share:.0%} is a rough one."
        )
    if rates.size < MIN_PROMPTS:
        notes.append(f"A verdict needs at least {MIN_PROMPTS} prompts, better 500.")
    if np.unique(rates).size == 1:
        notes.append("Every prompt has the same win rate: this router cannot tell prompts apart.")
    return tuple(notes)


def _better_weak(weak: str, means: Mapping[str, tuple[float, float]], others: Sequence[str]) -> tuple[str, ...]:
    """A note where a further model is the better weak one; of several the best scored."""
    better = [m for m in others if means[m][0] > means[weak][0] and means[m][1] <= means[weak][1]]
    if not better:
        return ()
    best = max(better, key=lambda m: means[m][0])
    return (f"{best} costs no more than {weak} and scores higher: route between it and the strong model.",)


def _sentence(
    v: Verdict,
    strong: str,
    weak: str,
    means: Mapping[str, tuple[float, float]],
    priced: bool,
    as_shares: bool,
    threshold: str,
) -> str:
    # Digits by the width of the interval, so that no finding is rounded away; of shares, percentage points.
    unit, name = (100.0, " points") if as_shares else (1.0, "")
    digits = shown_digits((v.gain.high - v.gain.low) * unit, least=1 if as_shares else 3)

    def number(value: float, form: str = "") -> str:
        return f"{value * unit + 0.0:{form}.{digits}f}"

    level = f"{100 * v.confidence:g}%"
    gain = f"{number(v.gain.value, '+')}{name} (interval {number(v.gain.low, '+')} to {number(v.gain.high, '+')})"
    risk = (
        f"at {level} confidence it scores at most {number(v.worst_loss)}{name} below always {strong}"
        if v.worst_loss > 0
        else f"at {level} confidence it scores no lower than always {strong}"
    )
    at = f"at threshold {threshold} ({v.strong_fraction.value:.0%} strong calls)"
    if v.outcome == "gains":
        saves = ""
        if v.saving is not None:
            form = ".0%" if v.saving.low >= 0.01 else ".1%"
            less = f"{v.saving.value:{form}}"
            less = f"costs {less} less" if priced else f"needs {less} fewer strong calls"
            saves = (
                f" and {less} than the static mix of the same quality "
                f"(interval {v.saving.low:{form}} to {v.saving.high:{form}})"
            )
        return f"Routing gains: {at} it scores {gain} over a static mix of the same cost{saves}; {risk}."
    if v.count < MIN_PROMPTS:
        prompts = "1 prompt is" if v.count == 1 else f"{v.count} prompts are"
        return f"Routing cannot be judged: {prompts} too few, at least {MIN_PROMPTS} are needed."
    if v.instead is not None:
        both = (f"{means[m][0]:.1%}" if as_shares else f"{means[m][0]:.4g}" for m in (v.instead, strong))
        lost = " and routing loses against a static mix" if v.outcome == "loses" else ""
        return (
            f"Do not route: always {v.instead} is cheaper and scores no worse than {strong} ({' against '.join(both)})"
            f"{lost}."
        )
    if v.outcome == "loses":
        return (
            f"Routing loses: {at} it scores {gain} against a static mix of the same cost, so do not route with this "
            f"router; {risk}."
        )
    needed = ""
    if v.needed is not None:
        needed = f"; about {round_up(v.needed):,} prompts would tell, if the gain is what it seems"
    return (
        f"Routing cannot be told apart from a static mix of the same cost: {at} the difference is {gain}{needed}; "
        f"{risk}."
    )


def round_up(count: int) -> int:
    """A number of prompts to two digits, rounded up: it is itself an estimate."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step
