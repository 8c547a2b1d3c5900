"""The right models: of many with prices, the best single one, pair and triple at a budget, and what is sure of that.

A pair is routed by one router's win rates: the hardest prompts go to the more expensive model, as many as the budget
pays for. Who picks the best of hundreds of pairs by the rows that it is then measured on flatters it; so every figure
here comes from rows that had no say in the choice (cross-fitting), and the interval is that of the whole procedure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, is_number
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.statistics.intervals import FEWEST, Estimate, Resampling, mean_interval

Floats: TypeAlias = npt.NDArray[np.float64]

# Shares of the most expensive model of a triple that are tried.
_STEPS = 41
_HULL_POINTS = 21


@dataclass(frozen=True, slots=True)
class Mix:
    """Models that share the prompts, the most expensive first, by win rate.

    Attributes:
        models: Their names.
        shares: Share of the prompts that each gets; they add up to 1.
        cost: Mean of the models' costs, for as many calls as `best_models` was given them for; reports give 1,000.
        quality: Mean score on the rows that it was chosen by: flattering where it was the best of many.
    """

    models: tuple[str, ...]
    shares: tuple[float, ...]
    cost: float
    quality: float

    def __str__(self) -> str:
        parts = (f"{share:.0%} {model}" for model, share in zip(self.models, self.shares, strict=True))
        return " + ".join(parts)


@dataclass(frozen=True, slots=True)
class Choice:
    """The best mix of at most so many models at a budget.

    Attributes:
        budget: Mean cost that is not to be exceeded, for as many calls as the models' costs.
        mix: Chosen by all rows.
        quality: Mean score of what the same procedure chose without the rows that it is measured on, with its
            interval.
        gain: The same, less that of the best choice of one model fewer, on the same rows; None for a single model.
        agreement: Share of the folds in which the same models were chosen.
    """

    budget: float

    mix: Mix
    quality: Estimate
    gain: Estimate | None
    agreement: float


@dataclass(frozen=True, slots=True)
class Choices:
    """What to run at a budget.

    Attributes:
        budget: Mean cost that is not to be exceeded, for as many calls as the models' costs.
        count: Rows.
        models: How many models were looked at.
        single: The best model that the budget pays for on its own.
        pair: The best pair; None with a single model.
        triple: The best three; None with fewer models.
        hull: Over budgets from the cheapest to the most expensive model: the best choice of at most two models, where
            it scores more on all rows than every cheaper one.
    """

    budget: float
    count: int
    models: int
    single: Choice
    pair: Choice | None
    triple: Choice | None
    hull: tuple[Choice, ...]

    @property
    def recommended(self) -> Choice:
        """The smallest choice that no larger one surely beats.

        A pair is recommended over a single model, and a third model over the pair, only where the interval of its
        gain lies above zero.
        """
        best = self.single
        for larger in (self.pair, self.triple):
            if larger is None or larger.gain is None or len(larger.mix.models) <= len(best.mix.models):
                continue
            if larger.gain.low > 0:
                best = larger
        return best

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "recommended": asdict(self.recommended)}


def best_models(
    win_rates: npt.ArrayLike,
    scores: Mapping[str, npt.ArrayLike],
    costs: Mapping[str, float],
    budget: float,
    *,
    folds: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> Choices:
    """Find the best single model, pair and triple at a budget.

    Args:
        win_rates: Array (n,): what orders the prompts, the hardest highest; one router for all pairs.
        scores: Scores of each model, array (n,), in the order of `win_rates`; higher is better.
        costs: Cost of each model, >= 0, for any number of calls: reports take 1,000.
        budget: Cost that is not to be exceeded, for as many calls.
        folds: Parts of the rows for cross-fitting.
        draws: Bootstrap draws of the intervals.
        seed: Of the folds and the draws.

    Returns:
        The choices; intervals cover 95 %.

    Raises:
        ConfigurationError: A cost is not a number >= 0, the budget not one > 0, or the budget pays for no model.
        DataError: Arrays differ in length, hold what is not a number, or there are too few rows.
    """
    problem = _Problem.of(win_rates, scores, costs, budget)
    folds = checked_count(folds, "folds", least=2, unit="parts")
    crossed = _CrossFit(problem, folds, Resampling(draws=draws, seed=seed))
    sizes = [size for size in (1, 2, 3) if size <= len(problem.names)]
    choices = crossed.choices(float(budget), sizes)
    return Choices(
        float(budget),
        problem.count,
        len(problem.names),
        choices[0],
        choices[1] if len(sizes) > 1 else None,
        choices[2] if len(sizes) > 2 else None,
        crossed.hull(),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """Models by index, the most expensive first, and the share of each."""

    models: tuple[int, ...]
    shares: tuple[float, ...]
    quality: float


@dataclass(frozen=True, slots=True)
class _Problem:
    """Scores of all models on rows that are sorted, the hardest first.

    Attributes:
        names: Models, the most expensive first.
        costs: Their costs (m,).
        place: Where each row stands among all, (n,) in (0, 1), the hardest first; no two rows stand at one place.
        scores: (m, n), in the order of `place`.
        above: (m, n + 1): sum of the scores of the k hardest rows.
    """

    names: tuple[str, ...]
    costs: Floats
    place: Floats
    scores: Floats
    above: Floats

    @classmethod
    def of(
        cls,
        win_rates: npt.ArrayLike,
        scores: Mapping[str, npt.ArrayLike],
        costs: Mapping[str, float],
        budget: float,
    ) -> _Problem:
        """Check what was given, and sort the rows."""
        for name, value in costs.items():
            if not is_number(value) or value < 0:
                raise ConfigurationError(f"{name}={value!r:.80}: expected a cost, a number >= 0")
        if not is_number(budget) or budget <= 0:
            raise ConfigurationError(f"budget={budget!r:.80}: expected a cost, a number > 0")
        names = sorted(set(scores) & set(costs), key=lambda name: (-costs[name], name))
        if not names:
            raise ConfigurationError(
                f"costs: none of {', '.join(map(str, costs)) or 'no models'} has scores; there are scores of "
                f"{', '.join(map(str, scores))}"
            )
        if budget < costs[names[-1]]:
            raise ConfigurationError(
                f"budget={budget:g}: even {names[-1]}, the cheapest model, costs {costs[names[-1]]:g} for as many calls"
            )
        rates = np.asarray(win_rates, dtype=np.float64)
        table = np.array([np.asarray(scores[name], dtype=np.float64) for name in names])
        if rates.ndim != 1 or table.shape != (len(names), rates.size):
            raise DataError(f"win_rates {rates.shape} and scores {table.shape}: expected as many scores as win rates")
        if rates.size < FEWEST:
            raise DataError(f"{rates.size} rows are too few to choose a model by: at least {FEWEST} are needed")
        if not np.isfinite(rates).all() or not np.isfinite(table).all():
            raise DataError("win_rates and scores: expected finite numbers")
        # equal win rates in a random order, so that a share cuts anywhere between them
        shuffled = np.random.default_rng(0).permutation(rates.size)
        order = shuffled[np.argsort(-rates[shuffled], kind="stable")]
        place = (np.arange(rates.size) + 0.5) / rates.size
        return cls._sorted(tuple(names), np.array([costs[name] for name in names]), place, table[:, order])

    @classmethod
    def _sorted(cls, names: tuple[str, ...], costs: Floats, place: Floats, scores: Floats) -> _Problem:
        above = np.concatenate([np.zeros((len(names), 1)), np.cumsum(scores, axis=1)], axis=1)
        return cls(names, costs, place, scores, above)

    @property
    def count(self) -> int:
        return self.place.size

    def rows(self, kept: npt.NDArray[np.bool_]) -> _Problem:
        """The same with some of the rows."""
        return self._sorted(self.names, self.costs, self.place[kept], self.scores[:, kept])

    def earned(self, found: _Found, rows: npt.NDArray[np.bool_]) -> Floats:
        """Score of each of some rows, answered by the model of its place."""
        edges = np.cumsum(found.shares)[:-1]
        turn = np.searchsorted(edges, self.place[rows], side="left")
        earned: Floats = self.scores[:, rows][np.array(found.models)[turn], np.arange(turn.size)]
        return earned

    def best(self, size: int, budget: float) -> _Found:
        """The best mix of at most `size` models by all rows."""
        found = self._best_single(budget)
        if size >= 2:
            found = max(found, self._best_pair(budget), key=lambda f: f.quality)
        if size >= 3:
            found = max(found, self._best_triple(budget), key=lambda f: f.quality)
        return found

    def _best_single(self, budget: float) -> _Found:
        quality = np.where(self.costs <= budget, self.above[:, -1] / self.count, -np.inf)
        model = int(np.argmax(quality))
        return _Found((model,), (1.0,), float(quality[model]))

    def _best_pair(self, budget: float) -> _Found:
        pairs = np.array(list(combinations(range(len(self.names)), 2))).reshape(-1, 2)
        high, low = pairs[self.costs[pairs[:, 1]] <= budget].T
        if not high.size:
            return _Found((), (), -np.inf)
        spread = self.costs[high] - self.costs[low]
        share = np.divide(budget - self.costs[low], spread, out=np.ones(high.size), where=spread > 0).clip(0.0, 1.0)
        cut = np.floor(share * self.count + 1e-9).astype(np.intp)
        quality = (self.above[high, cut] + self.above[low, -1] - self.above[low, cut]) / self.count
        at = int(np.argmax(quality))
        return _Found((int(high[at]), int(low[at])), (float(share[at]), 1.0 - float(share[at])), float(quality[at]))

    def _best_triple(self, budget: float) -> _Found:
        triples = np.array(list(combinations(range(len(self.names)), 3))).reshape(-1, 3)
        high, middle, low = triples[self.costs[triples[:, 2]] <= budget].T
        best = _Found((), (), -np.inf)
        if not high.size:
            return best
        cost_high, cost_middle, cost_low = self.costs[high], self.costs[middle], self.costs[low]
        spread = cost_high - cost_low
        most = np.divide(budget - cost_low, spread, out=np.ones(high.size), where=spread > 0).clip(0.0, 1.0)
        for step in np.linspace(0.0, 1.0, _STEPS):
            first = most * step
            left = budget - cost_low - first * spread
            width = cost_middle - cost_low
            second = np.divide(left, width, out=np.ones(high.size), where=width > 0).clip(0.0, 1.0 - first)
            one = np.floor(first * self.count + 1e-9).astype(np.intp)
            two = np.floor((first + second) * self.count + 1e-9).astype(np.intp)
            total = self.above[high, one] + self.above[middle, two] - self.above[middle, one]
            quality = (total + self.above[low, -1] - self.above[low, two]) / self.count
            at = int(np.argmax(quality))
            if quality[at] > best.quality:
                shares = (float(first[at]), float(second[at]), 1.0 - float(first[at] + second[at]))
                best = _Found((int(high[at]), int(middle[at]), int(low[at])), shares, float(quality[at]))
        return best

    def mix(self, found: _Found) -> Mix:
        """What was found, by names; without models that get no prompts."""
        used = [(i, share) for i, share in zip(found.models, found.shares, strict=True) if share > 0]
        cost = float(sum(self.costs[i] * share for i, share in used))
        return Mix(tuple(self.names[i] for i, _ in used), tuple(share for _, share in used), cost, found.quality)


class _CrossFit:
    """Choices of models, each measured on rows that had no say in it.

    Args:
        problem: All rows.
        folds: How many parts they are cut into.
        how: Of the intervals; its seed cuts the rows.
    """

    def __init__(self, problem: _Problem, folds: int, how: Resampling) -> None:
        self._problem = problem
        self._how = how
        parts = np.random.default_rng(how.seed).permutation(problem.count) % folds
        self._folds = [(problem.rows(parts != part), parts == part) for part in range(folds)]

    def choices(self, budget: float, sizes: Sequence[int]) -> list[Choice]:
        """The best choice of each of these sizes, which rise by one from 1."""
        crossed = [self._crossed(size, budget) for size in sizes]
        return [self._choice(budget, at, crossed) for at in range(len(sizes))]

    def hull(self) -> tuple[Choice, ...]:
        """The best choice of at most two models over budgets, each better on all rows than all that are cheaper."""
        problem, out = self._problem, list[Choice]()
        size = min(2, len(problem.names))
        best = -np.inf
        for at in self._budgets():
            quality = problem.best(size, at).quality
            if quality > best:
                best = quality
                crossed = [self._crossed(smaller, at) for smaller in range(1, size + 1)]
                out.append(self._choice(at, size - 1, crossed))
        return tuple(out)

    def _budgets(self) -> list[float]:
        """From the cheapest to the most expensive model, in steps of equal ratio."""
        most, least = map(float, self._problem.costs[[0, -1]])
        if most == least:
            return [least]
        steps = np.geomspace(least or most / 1000, most, _HULL_POINTS)
        return [least, *map(float, steps[1:-1]), most]

    def _crossed(self, size: int, budget: float) -> tuple[_Found, Floats, float]:
        """The best mix by all rows; what each row earns by the choice of the other folds; how often they agree."""
        found = self._problem.best(size, budget)
        earned, agreed = np.empty(self._problem.count), 0
        for rest, part in self._folds:
            of_rest = rest.best(size, budget)
            earned[part] = self._problem.earned(of_rest, part)
            agreed += of_rest.models == found.models
        return found, earned, agreed / len(self._folds)

    def _choice(self, budget: float, at: int, crossed: Sequence[tuple[_Found, Floats, float]]) -> Choice:
        """The choice at a place of `crossed`, which begins with that of a single model."""
        found, earned, agreement = crossed[at]
        gain = mean_interval(earned - crossed[at - 1][1], self._how) if at else None
        return Choice(budget, self._problem.mix(found), mean_interval(earned, self._how), gain, agreement)
