"""Whether a cascade pays: the weak answer is checked, and a refused one is paid for beside the strong answer.

A cascade has two edges. Prompts with a win rate from the upper one on go to the strong model at once; below the lower
one, weak answers stand unchecked; between them the check decides. Both edges are chosen on one half of the prompts and
measured on the other, and the cascade has to beat routing alone and the static mix at what it really costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.checks import is_number, shown
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.evaluation.verdict import (
    CROSS_FIT_WIDENING,
    MIN_PROMPTS,
    gains_over_mixes,
    is_share,
    least_gain,
    nearest,
    scores_and_costs,
    threshold_text,
)
from routellm_core.policy.acceptance import checked_band
from routellm_core.statistics.intervals import (
    Estimate,
    Resampling,
    middle,
    number_text,
    opposite_scores,
    resampled_means,
    shown_digits,
)
from routellm_core.statistics.metrics import Floats, checked_rates, static_hull

Outcome = Literal["pays", "does_not_pay", "undecided"]
Bools = npt.NDArray[np.bool_]

# Edges of the band that are tried, by the share of prompts below them.
_EDGES = 41
# A cascade that checks fewer answers than this is routing alone by another name.
_LEAST_CHECKED = 0.05


@dataclass(frozen=True, slots=True)
class CascadeEvaluation:
    """Whether checking weak answers pays on prompts with known outcomes.

    Attributes:
        outcome: ``"pays"`` where the gain is surely above zero over routing alone and over the static mix,
            ``"does_not_pay"`` where it is surely below zero over one of them, else ``"undecided"``.
        sentence: The outcome in one sentence.
        threshold: The threshold to use: prompts from this win rate on go to the strong model at once.
        accept_band: Win rates from ``low`` to below ``high`` within which weak answers are to be checked.
        strong_fraction: Share of prompts that go to the strong model at once.
        checked: Share of prompts whose weak answer is checked.
        escalated: Share of prompts whose weak answer is refused.
        accepted_quality: Mean score of the weak answers that the check accepts, over all prompts; NaN if there are
            none, which `to_dict` gives as None.
        refused_quality: Mean score of those that it refuses, likewise.
        quality: Mean score of the cascade.
        cost: Mean cost of one of its calls; of a refused answer, both calls count.
        over_routing: Quality above the static mix of the same cost, minus that of routing alone at its best threshold
            that costs no more.
        over_mix: Quality minus that of the best static mix of the same cost.
        count: Number of prompts.
        priced: Whether costs are money; else only strong calls count, and a refused weak call costs nothing.
        confidence: Level of the intervals.
    """

    outcome: Outcome
    sentence: str
    threshold: float
    accept_band: tuple[float, float]
    strong_fraction: float
    checked: float
    escalated: float
    accepted_quality: float
    refused_quality: float
    quality: Estimate
    cost: Estimate
    over_routing: Estimate
    over_mix: Estimate
    count: int
    priced: bool
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; NaN becomes None."""
        found = asdict(self)
        for name in ("accepted_quality", "refused_quality"):
            if np.isnan(found[name]):
                found[name] = None
        return found


def evaluate_cascade(
    win_rates: npt.ArrayLike,
    accepted: npt.ArrayLike,
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    strong_cost: npt.ArrayLike | None = None,
    weak_cost: npt.ArrayLike | None = None,
    others: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | None = None,
    accept_threshold: float = 0.5,
    accept_band: tuple[float, float] | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> CascadeEvaluation:
    """Measure a cascade against routing alone and against the static mix, with the cost of both calls.

    The upper edge, from which prompts go to the strong model at once, and, unless `accept_band` is given, the lower
    edge, below which weak answers are not checked, are those that gain most over the static mix. They are cross-fitted:
    each random half of the prompts is measured with the edges that the other half chooses, and compared with routing
    alone at the best threshold that costs no more on that other half. As in `verdict`, the intervals are bootstrapped
    over prompts, corrected for small samples, and widened by a twentieth. At least 5 % of the prompts are checked.

    Args:
        win_rates: (n,) win rates in [0, 1].
        accepted: (n,) what the check says of the weak answers: True, False, or a score.
        strong_scores: (n,) scores of the strong model, higher is better.
        weak_scores: (n,) scores of the weak model.
        strong_cost: Cost of a call of the strong model, a mean or (n,). None for both models counts strong calls.
        weak_cost: The same for the weak model.
        others: Further single models: name -> (scores (n,), cost); they can be part of a static mix.
        accept_threshold: A score of at least this is accepted.
        accept_band: Win rates ``(low, high)`` within which weak answers are checked, as for the option of that name;
            None chooses the band.
        confidence: Level of the intervals.
        draws: Bootstrap draws.
        seed: Seed of the draws and halves.

    Raises:
        DataError: Malformed arrays, or fewer than 30 prompts.
        ConfigurationError: A parameter is not allowed.
    """
    how = Resampling(draws, confidence, seed)
    rates = checked_rates(win_rates)
    case = _Case(
        rates,
        _checked_verdicts(accepted, rates.size, accept_threshold),
        scores_and_costs("strong", (strong_scores, 1.0 if strong_cost is None else strong_cost), rates.size),
        scores_and_costs("weak", (weak_scores, 0.0 if weak_cost is None else weak_cost), rates.size),
        [scores_and_costs(name, given, rates.size) for name, given in (others or {}).items()],
        checked_band(accept_band),
    )
    if rates.size < MIN_PROMPTS:
        raise DataError(f"{rates.size} prompts are too few to judge a cascade by: at least {MIN_PROMPTS} are needed")
    return case.evaluated(how, priced=strong_cost is not None or weak_cost is not None)


@dataclass(frozen=True, slots=True)
class _Edges:
    """Where a cascade sends prompts.

    Attributes:
        threshold: Prompts from this win rate on go to the strong model at once.
        band: Weak answers to prompts with win rates from the first to below the second are checked.
    """

    threshold: float
    band: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Case:
    """Prompts with what the check says, and the scores (n,) and costs (n,) of the models."""

    rates: Floats
    accepted: Bools
    strong: tuple[Floats, Floats]
    weak: tuple[Floats, Floats]
    others: Sequence[tuple[Floats, Floats]]
    band: tuple[float, float] | None

    def evaluated(self, how: Resampling, *, priced: bool) -> CascadeEvaluation:
        n = self.rates.size
        chosen = self._short(self._edges(np.arange(n)))
        cascade, routing = np.empty((n, 2)), np.empty((n, 2))
        half = how.rng(3).permutation(n) % 2 == 0
        for inside in (half, ~half):
            rows, others = np.flatnonzero(inside), np.flatnonzero(~inside)
            edges = self._edges(others)
            cascade[rows] = self._of_cascade(edges, rows)
            sent = self.rates[rows] >= self._threshold(others, float(self._of_cascade(edges, others)[:, 1].mean()))
            routing[rows] = np.where(sent[:, None], self._columns(self.strong)[rows], self._columns(self.weak)[rows])
        quality, cost, over_mix, over_routing = self._estimates(cascade, routing, how)
        weak = self.weak[0]
        sent, checked = self._places(chosen, np.arange(n))
        outcome: Outcome = "undecided"
        if over_mix.low > 0 and over_routing.low > 0:
            outcome = "pays"
        elif over_mix.high < 0 or over_routing.high < 0:
            outcome = "does_not_pay"
        found = CascadeEvaluation(
            outcome,
            "",
            chosen.threshold,
            chosen.band,
            float(sent.mean()),
            float(checked.mean()),
            float((checked & ~self.accepted).mean()),
            float(weak[self.accepted].mean()) if self.accepted.any() else np.nan,
            float(weak[~self.accepted].mean()) if not self.accepted.all() else np.nan,
            quality,
            cost,
            over_routing,
            over_mix,
            n,
            priced,
            how.confidence,
        )
        as_shares = all(is_share(scores) for scores, _ in self._models)
        return _with_sentence(found, as_shares=as_shares)

    def _short(self, edges: _Edges) -> _Edges:
        """The edges in as few digits as send the same prompts the same way."""
        threshold = float(threshold_text(edges.threshold, self.rates))
        if self.band is not None:
            return _Edges(threshold, self.band)
        return _Edges(threshold, (float(threshold_text(edges.band[0], self.rates)), threshold))

    # --- one policy ---

    def _places(self, edges: _Edges, rows: npt.NDArray[np.intp]) -> tuple[Bools, Bools]:
        """Which of these rows go to the strong model at once, and of which the weak answer is checked."""
        rates = self.rates[rows]
        sent = rates >= edges.threshold
        return sent, ~sent & (rates >= edges.band[0]) & (rates < edges.band[1])

    def _of_cascade(self, edges: _Edges, rows: npt.NDArray[np.intp]) -> Floats:
        """Score and cost (rows, 2) of the cascade."""
        sent, checked = self._places(edges, rows)
        refused = checked & ~self.accepted[rows]
        (s, cs), (w, cw) = ((q[rows], c[rows]) for q, c in (self.strong, self.weak))
        return np.stack([np.where(sent | refused, s, w), np.where(sent, cs, cw + refused * cs)], axis=1)

    # --- choosing the edges ---

    def _mix(self, rows: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Cost and quality of the best static mixes on these rows."""
        return static_hull([(float(c[rows].mean()), float(q[rows].mean())) for q, c in self._models])

    def _threshold(self, rows: npt.NDArray[np.intp], cost: float) -> float:
        """The threshold of routing alone that costs at most this much and lies highest above the static mix."""
        order = rows[np.argsort(-self.rates[rows], kind="stable")]
        rates = self.rates[order]
        (s, cs), (w, cw) = ((q[order], c[order]) for q, c in (self.strong, self.weak))
        quality, paid = (
            (low.sum() + np.concatenate([[0.0], np.cumsum(high - low)])) / rates.size
            for high, low in ((s, w), (cs, cw))
        )
        ends = np.concatenate([[True], rates[1:] != rates[:-1], [True]])  # equal win rates go together
        above = np.where(ends & (paid <= cost * (1 + 1e-12)), quality - np.interp(paid, *self._mix(rows)), -np.inf)
        count = int(np.argmax(above))
        return float(rates[count - 1]) if count else float(np.inf)

    def _edges(self, rows: npt.NDArray[np.intp]) -> _Edges:
        """The edges whose cascade lies highest above the static mix of its cost, on these rows."""
        rates = self.rates[rows]
        # 1 is the highest threshold that a policy takes; prompts with this win rate are strong in all of them
        uppers = np.unique([*np.quantile(rates, np.linspace(0.0, 1.0, _EDGES), method="higher"), 1.0])
        lowers = [0.0, *uppers[1:-1]] if self.band is None else [self.band[0]]
        mix = self._mix(rows)
        best, found = (False, -np.inf), _Edges(1.0, self.band or (0.0, 1.0))
        for upper in reversed(uppers):
            for lower in lowers:
                if lower >= upper:
                    break
                edges = _Edges(float(upper), self.band or (float(lower), float(upper)))
                quality, cost = self._of_cascade(edges, rows).mean(axis=0)
                checks = bool(self._places(edges, rows)[1].mean() >= _LEAST_CHECKED)
                above = (checks, float(quality - np.interp(cost, *mix)))
                if above[0] > best[0] or (above[0] == best[0] and above[1] > best[1] + 1e-12):
                    best, found = above, edges
        return found

    # --- intervals ---

    @property
    def _models(self) -> list[tuple[Floats, Floats]]:
        """Everything that a static mix can be made of."""
        return [self.strong, self.weak, *self.others]

    @staticmethod
    def _columns(model: tuple[Floats, Floats]) -> Floats:
        return np.stack(model, axis=1)

    def _estimates(
        self, cascade: Floats, routing: Floats, how: Resampling
    ) -> tuple[Estimate, Estimate, Estimate, Estimate]:
        """Quality and cost of the cascade, its gain over the best static mix, and that over routing alone."""
        models = np.concatenate([self._columns(model) for model in self._models], axis=1)
        share = np.zeros((len(cascade), 1))  # what `gains_over_mixes` expects in the first column
        rows = np.concatenate([share, cascade, models, routing], axis=1)
        drawn = resampled_means(rows, self._half_prompts(), how, widen=CROSS_FIT_WIDENING)
        point = rows.mean(axis=0)[None]

        values, over = self._over_routing(point), self._over_routing(drawn)
        mixes = zip(
            gains_over_mixes(point[:, :-2], point[0, :-2]), gains_over_mixes(drawn[:, :-2], point[0, :-2]), strict=True
        )
        return (
            how.interval(drawn[:, 1], float(point[0, 1])),
            how.interval(drawn[:, 2], float(point[0, 2])),
            least_gain([(float(value[0]), draws) for value, draws in mixes], how),
            how.interval(over, float(values[0])),
        )

    def _half_prompts(self) -> Floats:
        """The imagined rows for `resampled_means`: cascade and routing call different models, either the better one."""
        high, low = opposite_scores(self.strong[0], self.weak[0])
        costs = [middle(cost) for _, cost in self._models]
        like = [nearest(scores, {0: self.strong[0], 1: self.weak[0]}) for scores, _ in self._models]
        rows = []
        for called in (0, 1):
            for better in (0, 1):
                scores = [high if model == better else low for model in like]
                models = [part for pair in zip(scores, costs, strict=True) for part in pair]
                other = 1 - called
                rows.append([0.0, scores[called], costs[called], *models, scores[other], costs[other]])
        return np.array(rows)

    @staticmethod
    def _over_routing(means: Floats) -> Floats:
        """The cascade's gain over the static mix of its cost, minus that of routing alone over that of its own (b,)."""
        out = np.empty(len(means))
        for i, row in enumerate(means):
            mix = static_hull(list(zip(row[4:-2:2], row[3:-2:2], strict=True)))
            out[i] = (row[1] - np.interp(row[2], *mix)) - (row[-2] - np.interp(row[-1], *mix))
        return out


def _with_sentence(found: CascadeEvaluation, *, as_shares: bool) -> CascadeEvaluation:
    unit, name = (100.0, " points") if as_shares else (1.0, "")
    width = min(found.over_mix.high - found.over_mix.low, found.over_routing.high - found.over_routing.low)
    digits = shown_digits(width * unit, least=1 if as_shares else 3)

    def difference(estimate: Estimate) -> str:
        value, low, high = (
            f"{part * unit + 0.0:+.{digits}f}" for part in (estimate.value, estimate.low, estimate.high)
        )
        return f"{value}{name} (interval {low} to {high})"

    low, high = found.accept_band
    lead = {
        "pays": "The cascade pays",
        "does_not_pay": "The cascade does not pay",
        "undecided": "The cascade cannot be told apart from going without",
    }[found.outcome]
    sentence = (
        f"{lead}: with weak answers checked at win rates from {number_text(low)} to {number_text(high)} and "
        f"{found.strong_fraction:.0%} of the prompts sent to the strong model at once, it scores "
        f"{difference(found.over_routing)} against routing alone and {difference(found.over_mix)} against a static "
        f"mix of the same cost; {found.checked:.0%} of all calls are checked, and {found.escalated:.0%} are paid twice."
    )
    return replace(found, sentence=sentence)


def _checked_verdicts(accepted: npt.ArrayLike, count: int, threshold: float) -> Bools:
    if not is_number(threshold):
        raise ConfigurationError(f"accept_threshold={shown(threshold)}: expected a number")
    try:
        verdicts = np.asarray(accepted, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("accepted: expected true, false or a score for each prompt") from None
    if verdicts.shape != (count,) or not np.isfinite(verdicts).all():
        raise DataError(
            f"accepted has shape {verdicts.shape}, with {int(np.isnan(verdicts).sum())} values missing; expected true, "
            f"false or a score for each of {count} prompts"
        )
    return verdicts >= threshold
