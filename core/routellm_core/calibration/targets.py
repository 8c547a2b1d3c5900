"""Thresholds for a target (share of strong calls, budget, quality), each with what it will really give.

A threshold is read off a sample, so what it gives on the traffic to come differs. Every target therefore carries the
interval of its realised value, the value on a half of the sample that the threshold was not chosen on, and whether the
sample is large enough for the wanted precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.checks import checked_fraction, is_number
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.statistics.intervals import Estimate, check_bootstrap, number_text, resample, shown_digits
from routellm_core.statistics.metrics import Floats, checked_scores

TargetKind = Literal["strong_fraction", "budget", "quality", "pgr"]
Price = float | tuple[float, float]
Tokens = npt.ArrayLike | tuple[npt.ArrayLike, npt.ArrayLike]

# Above this many rows the bootstrap of a mean is normal in every digit that is shown, and is drawn as such.
_NORMAL_FROM = 50_000
# Below this many rows a bootstrap of a mean sees too little of the spread to say how many rows would do.
_FEWEST = 30


@dataclass(frozen=True)
class Target:
    """A threshold for a target, and what it gives.

    Attributes:
        kind: ``"strong_fraction"``, ``"budget"`` (money a call), ``"quality"`` (mean score) or ``"pgr"``.
        wanted: The wanted value, in the unit of `kind`.
        threshold: Send a prompt to the strong model when its win rate is >= this.
        threshold_interval: Where the threshold could have come out on another sample of this size: (low, high).
        strong_fraction: Share of strong calls at the threshold, with its interval.
        realised: What the threshold gives on prompts like the sample, with its interval. For quality and PGR the value
            is cross-fitted: each half is measured with the threshold chosen on the other.
        held_out: What a threshold chosen on one random half gave on the other half; None with a single prompt.
        count: Number of prompts.
        precision: Wanted half-width of the interval of `realised`.
        needed: Number of prompts that would give this precision.
        reached: False when no threshold meets the target on the sample; then the closest one is given.
    """

    kind: TargetKind
    wanted: float
    threshold: float
    threshold_interval: tuple[float, float]
    strong_fraction: Estimate
    realised: Estimate
    held_out: float | None
    count: int
    precision: float
    needed: int
    reached: bool = True

    @property
    def enough(self) -> bool:
        """Whether the sample is large enough for the wanted precision."""
        return self.count >= self.needed

    @property
    def threshold_text(self) -> str:
        """The threshold with so many digits, at least four, that what is left out does not matter."""
        low, high = self.threshold_interval
        if low == high:
            return number_text(self.threshold)
        return f"{self.threshold:.{shown_digits((high - low) / 10.0, least=4)}f}"

    @property
    def message(self) -> str:
        """The finding in words."""
        text = (
            f"threshold {self.threshold_text}: {_WORDS[self.kind]} {self.realised.value:.4g} "
            f"(interval {self.realised.low:.4g} to {self.realised.high:.4g}) on {self.count:,} prompts"
        )
        if self.held_out is not None:
            text += f", {self.held_out:.4g} on a half that it was not chosen on"
        if not self.reached:
            text += f"; no threshold reaches {self.wanted:.4g}, this is the closest"
        if not self.enough:
            text += f"; too few prompts for ±{self.precision:.3g}: about {self.needed:,} would do"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "enough": self.enough, "message": self.message}


_WORDS = {"strong_fraction": "strong share", "budget": "cost per call", "quality": "quality", "pgr": "PGR"}


def share_target(
    calibration: Calibration | npt.ArrayLike,
    strong_fraction: float,
    *,
    precision: float = 0.02,
    confidence: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Target:
    """The threshold for a share of strong calls.

    Tied win rates go together, so with few distinct win rates the wanted share may be out of reach; the closest
    reachable one is taken. The interval is of the share on traffic to come at this very threshold; its draws are those
    of the Bayesian bootstrap (Rubin 1981) of a share, a Beta(strong + 1/2, weak + 1/2).

    Args:
        calibration: A `Calibration`, or win rates (n,).
        strong_fraction: Wanted share in [0, 1].
        precision: Wanted half-width of the interval, as a share.
        confidence: Level of the interval.
        draws: Bootstrap draws.
        seed: Seed of the draws and of the split into halves.

    Raises:
        ConfigurationError: A value is not allowed.
    """
    fitted = _calibration(calibration)
    wanted = checked_fraction(strong_fraction, "strong_fraction")
    _check_precision(precision)
    check_bootstrap(draws, confidence, seed)
    threshold = fitted.threshold(strong_fraction=wanted)
    realised = share_interval(fitted, threshold, confidence=confidence, draws=draws, seed=seed)
    spread = (realised.high - realised.low) / 2.0
    # Where another sample's threshold would lie: at the shares that this one might as well have had.
    ends = [fitted.threshold(strong_fraction=min(1.0, max(0.0, s))) for s in (realised.high, realised.low)]
    return Target(
        kind="strong_fraction",
        wanted=wanted,
        threshold=threshold,
        threshold_interval=(min(*ends, threshold), max(*ends, threshold)),
        strong_fraction=realised,
        realised=realised,
        held_out=_held_out_share(fitted, wanted, seed),
        count=fitted.count,
        precision=precision,
        needed=_needed(fitted.count, spread, precision),
        reached=abs(realised.value - wanted) <= max(0.5 / fitted.count, 0.005),
    )


def share_interval(
    calibration: Calibration, threshold: float, *, confidence: float = 0.95, draws: int = 4000, seed: int = 0
) -> Estimate:
    """Share of traffic with win rate >= threshold, with the interval that a sample of this size leaves."""
    share = calibration.strong_fraction(threshold=threshold)
    if threshold <= 0.0:
        return Estimate(share, share, share)  # no win rate is below it: whatever comes is strong
    strong = share * calibration.count
    rng = np.random.default_rng(seed)
    drawn = rng.beta(strong + 0.5, calibration.count - strong + 0.5, size=draws)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Estimate(share, min(float(low), share), max(float(high), share))


def call_cost(price: Price, tokens: Tokens) -> Floats:
    """Money of one call, scalar () or (n,), of a model.

    Args:
        price: Money per million tokens: one number for all tokens, or (input, output).
        tokens: Tokens of a call: a mean or (n,) counts; or a pair (input, output) of either.

    Raises:
        ConfigurationError: A price for input and output without tokens of both, or a negative or missing number.
    """
    if isinstance(tokens, tuple):
        pair = tuple(_amounts("tokens", part) for part in tokens)
        if len(pair) != 2:
            raise ConfigurationError(f"tokens has {len(pair)} parts: expected (input tokens, output tokens)")
        both = price if isinstance(price, tuple) else (price, price)
        if len(both) != 2:
            raise ConfigurationError(f"price={price!r}: expected one number or (input, output)")
        return np.asarray(
            (_amounts("price", both[0]) * pair[0] + _amounts("price", both[1]) * pair[1]) / 1e6, dtype=np.float64
        )
    if isinstance(price, tuple):
        raise ConfigurationError(
            f"price={price!r} tells input from output, but tokens does not: give tokens=(input, output)"
        )
    return np.asarray(_amounts("price", price) * _amounts("tokens", tokens) / 1e6, dtype=np.float64)


def budget_target(
    calibration: Calibration | npt.ArrayLike,
    budget: float,
    *,
    strong_price: Price | None = None,
    weak_price: Price | None = None,
    tokens: Tokens | None = None,
    calls: float = 1.0,
    precision: float = 0.05,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Target:
    """The threshold that spends a budget: the largest strong share whose mean cost on the sample stays within it.

    Args:
        calibration: A `Calibration`, or win rates (n,); the latter are needed when tokens are given prompt by prompt.
        budget: Money for `calls` calls.
        strong_price: Money per million tokens of the strong model: a number, or (input, output).
        weak_price: The same of the weak model.
        tokens: Tokens of a call: a mean, (n,) counts, or a pair (input, output) of either.
        calls: How many calls the budget is for, such as a month's.
        precision: Wanted half-width of the interval as a share of the budget.
        confidence: Level of the interval.
        draws: Bootstrap draws.
        seed: Seed of the draws and of the split into halves.

    Returns:
        The target in money per call (`wanted` is ``budget / calls``). `reached` is False when even always weak costs
        more than the budget.

    Raises:
        ConfigurationError: A price or the tokens are missing, negative, or the strong model is not dearer.
        DataError: Token counts that are not one a prompt.
    """
    missing = [
        n
        for n, v in (("strong_price", strong_price), ("weak_price", weak_price), ("tokens", tokens), ("budget", budget))
        if v is None
    ]
    if strong_price is None or weak_price is None or tokens is None or missing:
        raise ConfigurationError(
            f"{', '.join(missing)} missing: a budget needs the price per million tokens of both models and the tokens "
            "of a call (a mean will do)"
        )
    _check_precision(precision)
    check_bootstrap(draws, confidence, seed)
    if not all(is_number(v) and v > 0 for v in (budget, calls)):
        raise ConfigurationError(f"budget={budget!r}, calls={calls!r}: expected positive numbers")
    wanted = float(budget) / float(calls)
    strong_cost, weak_cost = call_cost(strong_price, tokens), call_cost(weak_price, tokens)
    if not any(
        float(np.sum(_amounts("tokens", part))) for part in (tokens if isinstance(tokens, tuple) else (tokens,))
    ):
        raise ConfigurationError(f"tokens={tokens!r:.80}: expected the tokens of a call, above 0")
    if float(strong_cost.mean()) <= float(weak_cost.mean()):
        raise ConfigurationError(
            f"strong_price={strong_price!r}, weak_price={weak_price!r}: the strong model is not dearer, so there is "
            "nothing to save; always use it"
        )
    if isinstance(calibration, Calibration):
        if strong_cost.ndim:
            raise ConfigurationError(
                "tokens are given prompt by prompt, but a Calibration keeps no order of prompts: give the win rates "
                "(n,) instead, or the mean number of tokens"
            )
        rates = np.repeat(calibration.values, calibration.counts)
    else:
        rates = checked_rates(calibration)
    n = rates.size
    costs = []
    for side, cost in (("strong", strong_cost), ("weak", weak_cost)):
        if cost.ndim and cost.shape != (n,):
            raise DataError(f"tokens give {cost.shape} {side} costs for {n} win rates; expected one a prompt")
        costs.append(np.broadcast_to(cost, (n,)))
    extra = costs[0] - costs[1]

    def choose(rows: npt.NDArray[np.intp]) -> float:
        values, size, sums = _by_win_rate(rates[rows], extra[rows])
        spent = costs[1][rows].mean() + np.concatenate(([0.0], np.cumsum(sums))) / size.sum()
        within = np.flatnonzero(spent <= wanted * (1 + 1e-12))
        return cut(values, int(within[-1]) if within.size else 0)

    threshold = choose(np.arange(n))
    paid = costs[1] + extra * (rates >= threshold)
    if strong_cost.ndim or weak_cost.ndim:
        realised = mean_interval(paid, confidence, draws, seed)
    else:
        # every call costs one of two sums: the interval is that of the share, none and all included
        share = share_interval(Calibration.from_win_rates(rates), threshold, confidence=confidence, seed=seed)
        ends = [float(weak_cost + (strong_cost - weak_cost) * s) for s in (share.value, share.low, share.high)]
        realised = Estimate(*ends)
    return _finish(
        "budget",
        wanted,
        rates,
        threshold,
        realised,
        choose,
        lambda rows, t: float((costs[1][rows] + extra[rows] * (rates[rows] >= t)).mean()),
        precision * wanted,
        confidence,
        draws,
        seed,
        reached=float(paid.mean()) <= wanted * (1 + 1e-9),
    )


def quality_target(
    win_rates: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    pgr: float | None = None,
    quality: float | None = None,
    precision: float = 0.05,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Target:
    """The threshold for a quality level: the smallest strong share that reaches it on prompts with known outcomes.

    The first share that reaches a level on a sample is, by luck, often too small. So the realised value is
    cross-fitted: each random half is measured with the threshold chosen on the other half. The interval is the
    bootstrap's at the threshold itself (its coverage: tests and docs/evaluation.md).

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model, higher is better.
        weak_scores: (n,) scores of the weak model.
        pgr: Wanted share of the performance gap, in [0, 1].
        quality: Or the wanted mean score, in the unit of the scores.
        precision: Wanted half-width of the interval: in PGR, or for `quality` as a share of the gap (where there is
            none, in the unit of the scores).
        confidence: Level of the interval.
        draws: Bootstrap draws.
        seed: Seed of the draws and of the split into halves.

    Raises:
        ConfigurationError: Not exactly one of `pgr` and `quality`, or a value that is not allowed.
        DataError: Malformed arrays, or for `pgr` a strong model that is not better.
    """
    if (pgr is None) == (quality is None):
        raise ConfigurationError(f"pgr={pgr!r}, quality={quality!r}: give exactly one of the two")
    _check_precision(precision)
    check_bootstrap(draws, confidence, seed)
    rates = checked_rates(win_rates)
    strong = checked_scores("strong_scores", strong_scores)
    weak = checked_scores("weak_scores", weak_scores)
    if not rates.size == strong.size == weak.size:
        raise DataError(f"win_rates, strong_scores, weak_scores have {rates.size}, {strong.size}, {weak.size} rows")
    gain = strong - weak
    gap = float(gain.mean())
    if gap <= 0 and pgr is not None:
        raise DataError(
            f"the strong model is not better than the weak one (mean {strong.mean():.6g} against {weak.mean():.6g}), "
            "so PGR is undefined; give quality=, or always use the weak model"
        )
    level = None if pgr is None else checked_fraction(pgr, "pgr")
    if quality is not None and not is_number(quality):
        raise ConfigurationError(f"quality={quality!r}: expected a finite number")
    best_reachable = True

    def choose(rows: npt.NDArray[np.intp]) -> float:
        nonlocal best_reachable
        values, size, sums = _by_win_rate(rates[rows], gain[rows])
        reached = np.concatenate(([0.0], np.cumsum(sums)))
        if level is not None:
            goal = level * reached[-1]
        else:
            assert quality is not None
            goal = (quality - float(weak[rows].mean())) * size.sum()
        met = np.flatnonzero(reached >= goal - 1e-12 * np.abs(gain[rows]).sum())
        best_reachable = bool(met.size)
        return cut(values, int(met[0]) if met.size else int(np.argmax(reached)))

    def measure(rows: npt.NDArray[np.intp], threshold: float) -> float:
        routed = gain[rows] * (rates[rows] >= threshold)
        if level is None:
            return float((weak[rows] + routed).mean())
        total = float(gain[rows].sum())
        return float(routed.sum() / total) if total > 0 else float("nan")

    threshold = choose(np.arange(rates.size))
    reached_on_sample = best_reachable
    chosen = np.zeros(rates.size, dtype=bool)
    halves = _halves(rates.size, seed)
    for here, there in (halves, halves[::-1]):
        chosen[there] = rates[there] >= (choose(here) if here.size and threshold > 0.0 else threshold)
    routed = gain * (rates >= threshold)
    if level is None:
        value, found = float((weak + gain * chosen).mean()), mean_interval(weak + routed, confidence, draws, seed)
        # without a gap a precision can only be in the unit of the scores
        wanted, width = float(quality or 0.0), precision * (abs(gap) or 1.0)
    else:
        value, found = float((gain * chosen).sum() / gain.sum()), _ratio_interval(routed, gain, confidence, draws, seed)
        wanted, width = level, precision
    realised = Estimate(value, min(found.low, value), max(found.high, value))
    return _finish(
        "quality" if level is None else "pgr",
        wanted, rates, threshold, realised, choose, measure, width, confidence, draws, seed, reached=reached_on_sample,
    )  # fmt: skip


def _finish(
    kind: TargetKind,
    wanted: float,
    rates: Floats,
    threshold: float,
    realised: Estimate,
    choose: Callable[[npt.NDArray[np.intp]], float],
    measure: Callable[[npt.NDArray[np.intp], float], float],
    width: float,
    confidence: float,
    draws: int,
    seed: int,
    *,
    reached: bool,
) -> Target:
    """What every target reports once its threshold is chosen."""
    n = rates.size
    here, there = _halves(n, seed)
    held_out = measure(there, choose(here)) if here.size and there.size else None
    rng = np.random.default_rng([seed, 2])
    # Choosing again is a sort, so the threshold's own spread is drawn from fewer and not too large samples.
    size = min(n, 20_000)
    again = np.array([choose(rng.integers(0, n, size=size)) for _ in range(min(draws, 200))])
    scale = np.sqrt(size / n)
    tail = (1.0 - confidence) / 2.0
    low, high = threshold + (np.quantile(again, [tail, 1.0 - tail]) - threshold) * scale
    fitted = Calibration.from_win_rates(rates)
    return Target(
        kind=kind,
        wanted=wanted,
        threshold=threshold,
        threshold_interval=(float(min(low, threshold)), float(max(high, threshold))),
        strong_fraction=share_interval(fitted, threshold, confidence=confidence, seed=seed),
        realised=realised,
        held_out=held_out if held_out is None or np.isfinite(held_out) else None,
        count=n,
        precision=width,
        needed=max(_FEWEST, _needed(n, (realised.high - realised.low) / 2.0, width)),
        reached=reached,
    )


def _by_win_rate(rates: Floats, extra: Floats) -> tuple[Floats, Floats, Floats]:
    """Distinct win rates in descending order, with the number of prompts and the sum of `extra` at each."""
    values, inverse = np.unique(-rates, return_inverse=True)
    sums: Floats = np.bincount(inverse, weights=extra).astype(np.float64)
    return -values, np.bincount(inverse).astype(np.float64), sums


def cut(values: Floats, groups: int) -> float:
    """A threshold in [0, 1] that sends the first `groups` of descending win rates to the strong model."""
    if groups == 0:
        return 1.0  # a win rate of exactly 1 is strong at every threshold
    if groups == values.size:
        return 0.0
    high, low = float(values[groups - 1]), float(values[groups])
    middle = low + (high - low) / 2.0
    return middle if middle > low else high


def mean_interval(values: Floats, confidence: float, draws: int, seed: int) -> Estimate:
    """Bootstrap interval of a mean, studentized: costs and losses are skewed, and percentiles would cover too little.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 12.5. With a handful of rows it is the
    percentile interval, as too many draws have no spread then.
    """
    rng = np.random.default_rng(seed)
    n, mean, spread = values.size, float(values.mean()), float(values.std())
    tails = [(1.0 + confidence) / 2.0, (1.0 - confidence) / 2.0]
    if n > _NORMAL_FROM:
        low, high = mean - spread / np.sqrt(n) * np.quantile(rng.normal(size=draws), tails)
    else:
        both = np.stack([values, (values - mean) ** 2], axis=1)
        drawn = np.concatenate([counts @ both for counts in resample(n, draws, rng)]) / n
        spreads = np.sqrt(np.maximum(drawn[:, 1] - (drawn[:, 0] - mean) ** 2, 0.0))
        usable = spreads > 1e-9 * spread
        if n >= _FEWEST and usable.any():
            low, high = mean - spread * np.quantile((drawn[usable, 0] - mean) / spreads[usable], tails)
        else:
            low, high = np.quantile(drawn[:, 0], tails[::-1])
    return Estimate(mean, float(min(low, mean)), float(max(high, mean)))


def _ratio_interval(top: Floats, bottom: Floats, confidence: float, draws: int, seed: int) -> Estimate:
    """Bootstrap interval of sum(top) / sum(bottom), over draws in which the divisor is positive."""
    n = top.size
    both = np.stack([top, bottom], axis=1)
    drawn = np.concatenate([counts @ both for counts in resample(n, draws, np.random.default_rng(seed))])
    drawn = drawn[drawn[:, 1] > 0]
    value = float(top.sum() / bottom.sum())
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [tail, 1.0 - tail]) if len(drawn) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high))


def _held_out_share(calibration: Calibration, wanted: float, seed: int) -> float | None:
    """Share on a random half at the threshold that the other half gives for `wanted`."""
    n = calibration.count
    if n < 2:
        return None
    rates = np.repeat(calibration.values, calibration.counts)
    here, there = _halves(n, seed)
    threshold = Calibration.from_win_rates(rates[here]).threshold(strong_fraction=wanted)
    return float((rates[there] >= threshold).mean())


def _halves(count: int, seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    order = np.random.default_rng([seed, 1]).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _needed(count: int, half_width: float, precision: float) -> int:
    """Prompts for the wanted precision: the half-width falls with the root of their number."""
    if not np.isfinite(half_width):
        return max(count * 4, 100)
    return max(1, int(np.ceil(count * (half_width / precision) ** 2 - 1e-9)))


def _calibration(value: Calibration | npt.ArrayLike) -> Calibration:
    return value if isinstance(value, Calibration) else Calibration.from_win_rates(checked_rates(value))


def checked_rates(value: npt.ArrayLike) -> Floats:
    rates = checked_scores("win_rates", value)
    outside = np.flatnonzero((rates < 0.0) | (rates > 1.0))
    if outside.size:
        raise DataError(f"win_rates[{outside[0]}] is {rates[outside[0]]}: expected numbers from 0 to 1")
    return rates


def _check_precision(precision: float) -> None:
    if not is_number(precision) or precision <= 0:
        raise ConfigurationError(f"precision={precision!r}: expected a positive number, such as 0.02 for ±2 points")


def _amounts(name: str, value: Any) -> Floats:
    try:
        out = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name}={value!r:.80}: expected numbers") from None
    if out.ndim > 1 or out.size == 0 or not bool((np.isfinite(out) & (out >= 0)).all()):
        raise ConfigurationError(f"{name}={value!r:.80}: expected finite numbers >= 0")
    return out
