"""Thresholds for a target (a share of strong calls, a budget, a quality level), each with what to expect of it.

A threshold is read off a sample, so it will do somewhat differently on the traffic to come. Every target therefore
carries the interval of its realised value, its value on a held-out half of the sample, and whether the sample is large
enough for the wanted precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.thresholds import WinRateDistribution, threshold_after
from routellm_core.checks import checked_fraction, is_number, shown
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.statistics.intervals import (
    FEWEST,
    Estimate,
    Resampling,
    mean_interval,
    number_text,
    ratio_interval,
    shown_digits,
)
from routellm_core.statistics.metrics import Floats, checked_rates, checked_rows

TargetKind = Literal["strong_fraction", "budget", "quality", "pgr"]
Rows = npt.NDArray[np.intp]


@runtime_checkable
class TokenPrice(Protocol):
    """Money per million input and output tokens; `routellm_core.Price` is one."""

    @property
    def input(self) -> float: ...

    @property
    def output(self) -> float: ...


PriceLike = TokenPrice | float | tuple[float, float]
Tokens = npt.ArrayLike | tuple[npt.ArrayLike, npt.ArrayLike]


@dataclass(frozen=True)
class Target:
    """A threshold for a target, and what to expect of it.

    Attributes:
        kind: ``"strong_fraction"``, ``"budget"`` (money per call), ``"quality"`` (mean score) or ``"pgr"``.
        wanted: The wanted value, in the unit of `kind`.
        threshold: Send a prompt to the strong model when its win rate is >= this.
        threshold_interval: Where the threshold of another sample of this size would lie: (low, high).
        strong_fraction: Share of strong calls at the threshold, with its interval.
        realised: What the threshold gives on prompts like the sample, with its interval. For quality and PGR the value
            is cross-fitted: each half is measured with the threshold chosen on the other.
        held_out: The value on one random half of the threshold chosen on the other; None with a single prompt.
        count: Number of prompts.
        precision: Wanted half-width of the interval of `realised`.
        needed: Number of prompts that would give this precision.
        reached: False when no threshold meets the target on the sample; `threshold` is then the closest one.
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
        """The threshold with at least four digits, and more where it is known more precisely."""
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
            text += f", {self.held_out:.4g} on a held-out half"
        if not self.reached:
            text += f"; no threshold reaches {self.wanted:.4g}, this is the closest"
        if not self.enough:
            text += f"; too few prompts for ±{self.precision:.3g}: about {self.needed:,} are needed"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "enough": self.enough, "message": self.message}


_WORDS = {"strong_fraction": "strong share", "budget": "cost per call", "quality": "quality", "pgr": "PGR"}


def share_target(
    calibration: WinRateDistribution | npt.ArrayLike,
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
        DataError: Win rates that are not numbers in [0, 1].
    """
    if isinstance(calibration, WinRateDistribution):
        fitted = calibration
    else:
        fitted = WinRateDistribution.from_win_rates(checked_rates(calibration))
    wanted = checked_fraction(strong_fraction, "strong_fraction")
    _check_precision(precision)
    how = Resampling(draws, confidence, seed)
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
        held_out=_held_out_share(fitted, wanted, how),
        count=fitted.count,
        precision=precision,
        needed=_needed(fitted.count, spread, precision),
        reached=abs(realised.value - wanted) <= max(0.5 / fitted.count, 0.005),
    )


def share_interval(
    sample: WinRateDistribution, threshold: float, *, confidence: float = 0.95, draws: int = 4000, seed: int = 0
) -> Estimate:
    """Share of traffic with win rate >= threshold, with the interval that a sample of this size leaves.

    Args:
        sample: A `Calibration`, or another distribution of win rates.
        threshold: The threshold, in [0, 1].
        confidence: Level of the interval.
        draws: Bootstrap draws.
        seed: Seed of the draws.

    Raises:
        ConfigurationError: A value is not allowed.
    """
    how = Resampling(draws, confidence, seed)
    share = sample.strong_fraction(threshold=threshold)
    if threshold <= 0.0:
        return Estimate(share, share, share)  # no win rate is below it: whatever comes is strong
    strong = share * sample.count
    found = how.interval(how.rng().beta(strong + 0.5, sample.count - strong + 0.5, size=draws), share)
    return Estimate(share, min(found.low, share), max(found.high, share))


def _held_out_share(sample: WinRateDistribution, wanted: float, how: Resampling) -> float | None:
    """Share on a random half at the threshold that the other half gives for `wanted`."""
    if sample.count < 2:
        return None
    rates = np.repeat(sample.values, sample.counts)
    here, there = _halves(sample.count, how)
    threshold = WinRateDistribution.from_win_rates(rates[here]).threshold(strong_fraction=wanted)
    return float((rates[there] >= threshold).mean())


def call_cost(price: PriceLike, tokens: Tokens) -> Floats:
    """Cost of one call of a model, scalar () or (n,).

    Args:
        price: Money per million tokens: one number for all tokens, (input, output), or a `routellm_core.Price`.
        tokens: Tokens of a call: a mean or (n,) counts; or a pair (input, output) of either.

    Raises:
        ConfigurationError: Separate prices for input and output with a single number of tokens, or a negative or
            missing number.
    """
    read, written = _two_prices(price)
    if isinstance(tokens, tuple):
        if len(tokens) != 2:
            raise ConfigurationError(f"tokens has {len(tokens)} parts: expected (input tokens, output tokens)")
        return np.asarray((read * _amounts(tokens[0]) + written * _amounts(tokens[1])) / 1e6, dtype=np.float64)
    if read != written:
        raise ConfigurationError(
            f"price={price!r} has separate prices for input and output, so tokens needs both: tokens=(input, output)"
        )
    return np.asarray(read * _amounts(tokens) / 1e6, dtype=np.float64)


def _two_prices(price: PriceLike) -> tuple[float, float]:
    """Money per million input and output tokens."""
    if isinstance(price, TokenPrice):
        both: tuple[Any, ...] = (price.input, price.output)
    else:
        both = price if isinstance(price, tuple) else (price, price)
    if len(both) != 2 or not all(is_number(amount) and amount >= 0 for amount in both):
        raise ConfigurationError(f"price={shown(price)}: expected a number >= 0, (input, output) or a Price")
    return float(both[0]), float(both[1])


def budget_target(
    calibration: WinRateDistribution | npt.ArrayLike,
    budget: float,
    *,
    strong_price: PriceLike | None = None,
    weak_price: PriceLike | None = None,
    tokens: Tokens | None = None,
    calls: float = 1.0,
    precision: float = 0.05,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Target:
    """The threshold that spends a budget: the largest strong share whose mean cost on the sample stays within it.

    Args:
        calibration: A `Calibration`, or win rates (n,); win rates are needed when `tokens` has one value per prompt.
        budget: Money for `calls` calls.
        strong_price: Money per million tokens of the strong model: a number, (input, output), or a
            `routellm_core.Price`.
        weak_price: The same for the weak model.
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
        ConfigurationError: A price or the tokens are missing or negative, or the strong model is not more expensive.
        DataError: Win rates that are not numbers in [0, 1], or token counts that are not one per prompt.
    """
    given = {"strong_price": strong_price, "weak_price": weak_price, "tokens": tokens, "budget": budget}
    missing = [name for name, value in given.items() if value is None]
    if strong_price is None or weak_price is None or tokens is None or missing:
        raise ConfigurationError(
            f"{', '.join(missing)} missing: a budget needs the price per million tokens of both models and the tokens "
            "of a call (a mean is enough)"
        )
    _check_precision(precision)
    how = Resampling(draws, confidence, seed)
    if not all(is_number(v) and v > 0 for v in (budget, calls)):
        raise ConfigurationError(f"budget={shown(budget)}, calls={shown(calls)}: expected positive numbers")
    costs = _call_costs(strong_price, weak_price, tokens)
    if isinstance(calibration, WinRateDistribution):
        if costs[0].ndim:
            raise ConfigurationError(
                "tokens has one value per prompt, but a Calibration does not keep the order of prompts: pass the win "
                "rates (n,) instead, or a mean number of tokens"
            )
        rates = np.repeat(calibration.values, calibration.counts)
    else:
        rates = checked_rates(calibration)
    problem = _Budget.of(rates, costs, float(budget) / float(calls))
    threshold = problem.choose(np.arange(rates.size))
    paid = problem.paid(threshold)
    if costs[0].ndim or costs[1].ndim:
        realised = mean_interval(paid, how)
    else:
        # Every call costs one of two sums, so the interval is that of the share, also at a share of 0 or 1.
        sample = WinRateDistribution.from_win_rates(rates)
        share = share_interval(sample, threshold, confidence=confidence, seed=seed)
        strong, weak = costs
        realised = Estimate(*(float(weak + (strong - weak) * s) for s in (share.value, share.low, share.high)))
    return problem.target(
        threshold,
        realised,
        how,
        precision=precision * problem.wanted,
        reached=float(paid.mean()) <= problem.wanted * (1 + 1e-9),
    )


def _call_costs(strong_price: PriceLike, weak_price: PriceLike, tokens: Tokens) -> tuple[Floats, Floats]:
    """Costs of a call of the strong and of the weak model, each scalar () or (n,); the strong one must cost more."""
    strong, weak = call_cost(strong_price, tokens), call_cost(weak_price, tokens)
    parts = tokens if isinstance(tokens, tuple) else (tokens,)
    if not any(float(np.sum(_amounts(part))) for part in parts):
        raise ConfigurationError(f"tokens={shown(tokens)}: expected the tokens of a call, above 0")
    if float(strong.mean()) <= float(weak.mean()):
        raise ConfigurationError(
            f"strong_price={strong_price!r}, weak_price={weak_price!r}: the strong model is not more expensive, so "
            "there is nothing to save; always use it"
        )
    return strong, weak


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
    bootstrap's at the threshold itself (its coverage: tests and docs/calibrate.md).

    Args:
        win_rates: (n,) win rates.
        strong_scores: (n,) scores of the strong model, higher is better.
        weak_scores: (n,) scores of the weak model.
        pgr: Wanted share of the performance gap, in [0, 1].
        quality: Or the wanted mean score, in the unit of the scores.
        precision: Wanted half-width of the interval: in PGR, or for `quality` as a share of the gap (where there is
            no gap, in the unit of the scores).
        confidence: Level of the interval.
        draws: Bootstrap draws.
        seed: Seed of the draws and of the split into halves.

    Raises:
        ConfigurationError: Not exactly one of `pgr` and `quality`, or a value that is not allowed.
        DataError: Malformed arrays, or for `pgr` a strong model that is not better.
    """
    if (pgr is None) == (quality is None):
        raise ConfigurationError(f"pgr={pgr!r}, quality={quality!r}: pass exactly one of the two")
    _check_precision(precision)
    how = Resampling(draws, confidence, seed)
    rates, strong, weak = checked_rows(win_rates, strong_scores, weak_scores)
    checked_rates(rates)
    gap = float((strong - weak).mean())
    if pgr is not None:
        if gap <= 0:
            raise DataError(
                f"the strong model is not better than the weak one (mean {strong.mean():.6g} against "
                f"{weak.mean():.6g}), so PGR is undefined; pass quality=, or always use the weak model"
            )
        problem = _Quality("pgr", checked_fraction(pgr, "pgr"), rates, strong - weak, weak)
    else:
        if not is_number(quality):
            raise ConfigurationError(f"quality={shown(quality)}: expected a finite number")
        problem = _Quality("quality", float(quality or 0.0), rates, strong - weak, weak)
        # without a gap a precision can only be in the unit of the scores
        precision = precision * (abs(gap) or 1.0)
    threshold, reached = problem.choose_and_tell(np.arange(rates.size))
    return problem.target(threshold, problem.realised(threshold, how), how, precision=precision, reached=reached)


@dataclass(frozen=True)
class _Problem(ABC):
    """What a threshold is chosen for on a sample, and how any rows of the sample choose one and measure it.

    Attributes:
        kind: Kind of the target.
        wanted: The wanted value.
        rates: Win rates (n,).
        extra: (n,) what the strong model adds to each prompt: cost or score.
        weak: (n,) what the weak model gives.
    """

    kind: TargetKind
    wanted: float
    rates: Floats
    extra: Floats
    weak: Floats

    @abstractmethod
    def choose(self, rows: Rows) -> float:
        """The threshold that these rows choose."""

    @abstractmethod
    def measure(self, rows: Rows, threshold: float) -> float:
        """The value that a threshold gives on these rows, in the unit of `wanted`."""

    def by_win_rate(self, rows: Rows) -> tuple[Floats, Floats, Floats]:
        """Distinct win rates in descending order, with the number of prompts and the sum of `extra` at each."""
        values, inverse = np.unique(-self.rates[rows], return_inverse=True)
        sums: Floats = np.bincount(inverse, weights=self.extra[rows]).astype(np.float64)
        return -values, np.bincount(inverse).astype(np.float64), sums

    def target(
        self, threshold: float, realised: Estimate, how: Resampling, *, precision: float, reached: bool
    ) -> Target:
        """The target, with everything that follows from its threshold."""
        n = self.rates.size
        here, there = _halves(n, how)
        held_out = self.measure(there, self.choose(here)) if here.size and there.size else None
        sample = WinRateDistribution.from_win_rates(self.rates)
        return Target(
            kind=self.kind,
            wanted=self.wanted,
            threshold=threshold,
            threshold_interval=self._threshold_interval(threshold, how),
            strong_fraction=share_interval(sample, threshold, confidence=how.confidence, seed=how.seed),
            realised=realised,
            held_out=held_out if held_out is None or np.isfinite(held_out) else None,
            count=n,
            precision=precision,
            needed=max(FEWEST, _needed(n, (realised.high - realised.low) / 2.0, precision)),
            reached=reached,
        )

    def _threshold_interval(self, threshold: float, how: Resampling) -> tuple[float, float]:
        n, rng = self.rates.size, how.rng(2)
        # Choosing again is a sort, so the threshold's own spread is drawn from fewer and not too large samples.
        size = min(n, 20_000)
        again = np.array([self.choose(rng.integers(0, n, size=size)) for _ in range(min(how.draws, 200))])
        low, high = threshold + (np.quantile(again, [how.tail, 1.0 - how.tail]) - threshold) * np.sqrt(size / n)
        return float(min(low, threshold)), float(max(high, threshold))


class _Budget(_Problem):
    """The largest strong share whose mean cost stays within the wanted one."""

    @classmethod
    def of(cls, rates: Floats, costs: tuple[Floats, Floats], wanted: float) -> Self:
        """The problem of costs of the strong and the weak model, each scalar () or (n,)."""
        for side, cost in zip(("strong", "weak"), costs, strict=True):
            if cost.ndim and cost.shape != rates.shape:
                raise DataError(
                    f"tokens give {cost.shape} {side} costs for {rates.size} win rates; expected one per prompt"
                )
        strong, weak = (np.broadcast_to(cost, rates.shape) for cost in costs)
        return cls("budget", wanted, rates, strong - weak, weak)

    def paid(self, threshold: float) -> Floats:
        """Cost (n,) of each prompt at a threshold."""
        return self.weak + self.extra * (self.rates >= threshold)

    def choose(self, rows: Rows) -> float:
        values, size, sums = self.by_win_rate(rows)
        spent = self.weak[rows].mean() + np.concatenate(([0.0], np.cumsum(sums))) / size.sum()
        within = np.flatnonzero(spent <= self.wanted * (1 + 1e-12))
        return threshold_after(values, int(within[-1]) if within.size else 0)

    def measure(self, rows: Rows, threshold: float) -> float:
        return float(self.paid(threshold)[rows].mean())


class _Quality(_Problem):
    """The smallest strong share that reaches the wanted mean score, or the wanted share of the gap (PGR)."""

    def choose(self, rows: Rows) -> float:
        return self.choose_and_tell(rows)[0]

    def choose_and_tell(self, rows: Rows) -> tuple[float, bool]:
        """The threshold that these rows choose, and whether it reaches the goal; else it comes closest."""
        values, size, sums = self.by_win_rate(rows)
        reached = np.concatenate(([0.0], np.cumsum(sums)))
        if self.kind == "pgr":
            goal = self.wanted * reached[-1]
        else:
            goal = (self.wanted - float(self.weak[rows].mean())) * size.sum()
        met = np.flatnonzero(reached >= goal - 1e-12 * np.abs(self.extra[rows]).sum())
        return threshold_after(values, int(met[0]) if met.size else int(np.argmax(reached))), bool(met.size)

    def measure(self, rows: Rows, threshold: float) -> float:
        routed = self.extra[rows] * (self.rates[rows] >= threshold)
        if self.kind == "quality":
            return float((self.weak[rows] + routed).mean())
        total = float(self.extra[rows].sum())
        return float(routed.sum() / total) if total > 0 else float("nan")

    def realised(self, threshold: float, how: Resampling) -> Estimate:
        """The cross-fitted value, with the interval of the value at the threshold itself."""
        chosen = np.zeros(self.rates.size, dtype=bool)
        halves = _halves(self.rates.size, how)
        for here, there in (halves, halves[::-1]):
            chosen[there] = self.rates[there] >= (self.choose(here) if here.size and threshold > 0.0 else threshold)
        routed = self.extra * (self.rates >= threshold)
        if self.kind == "quality":
            value, found = float((self.weak + self.extra * chosen).mean()), mean_interval(self.weak + routed, how)
        else:
            value = float((self.extra * chosen).sum() / self.extra.sum())
            found = ratio_interval(routed, self.extra, how)
        return Estimate(value, min(found.low, value), max(found.high, value))


def _halves(count: int, how: Resampling) -> tuple[Rows, Rows]:
    order = how.rng(1).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _needed(count: int, half_width: float, precision: float) -> int:
    """Prompts for the wanted precision: the half-width falls with the root of their number."""
    if not np.isfinite(half_width):
        return max(count * 4, 100)
    return max(1, int(np.ceil(count * (half_width / precision) ** 2 - 1e-9)))


def _check_precision(precision: float) -> None:
    if not is_number(precision) or precision <= 0:
        raise ConfigurationError(
            f"precision={shown(precision)}: expected a positive number, such as 0.02 for ±2 points"
        )


def _amounts(tokens: Any) -> Floats:
    try:
        out = np.asarray(tokens, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigurationError(f"tokens={shown(tokens)}: expected numbers") from None
    if out.ndim > 1 or out.size == 0 or not bool((np.isfinite(out) & (out >= 0)).all()):
        raise ConfigurationError(f"tokens={shown(tokens)}: expected finite numbers >= 0")
    return out
