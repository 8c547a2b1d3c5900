"""Replay: what another router, threshold or rule would have scored and cost on the logged traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from routellm_core.calibration.distribution import Calibration
from routellm_core.calibration.online import DriftReport, OnlineCalibration
from routellm_core.checks import Side, checked_fraction, checked_win_rates
from routellm_core.embedders import bundled_embedder
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.log.rows import LoggedAnswer, LoggedOutcome
from routellm_core.routers.base import Router, WinRateArray
from routellm_core.statistics.intervals import Estimate
from routellm_core.statistics.metrics import Floats
from routellm_core.statistics.off_policy import (
    Bools,
    SideScores,
    check_probabilities,
    policy_difference,
    principal_features,
)

# The calls that a win rate decides; all others would have gone where they went whatever the router and threshold.
DECIDED = frozenset({"win_rate", "explored", "observed"})
# Shadow answers do not fail at random: long and hard prompts fail more.
_MOST_FAILED = 0.10
_FEW_SCORED = 0.9
_CHUNK = 4096
# The drift of the win rates within the period, as `OnlineCalibration` measures it.
_LEAST_DRIFT = 50


@dataclass(frozen=True)
class Replay:
    """What another policy would have given on logged traffic.

    Attributes:
        refusal: Why no figure is shown, and what to switch on; None where the estimates stand.
        quality: Mean score of the other policy, estimated; None where it is refused.
        difference: Its score minus that of the policy in use.
        effective_deviations: How many scores, weighing alike, the estimate rests on; 30 are needed.
        strong_fraction: Share of strong calls of the other policy on these calls.
        in_use_fraction: Share of the policy in use, without exploration.
        threshold: Threshold of the other policy; None for a rule.
        cost: Money of one call under the other policy; None where costs are not logged.
        cost_difference: That minus the money of the policy in use.
        calls: Calls that the estimate is about.
        left_out: Calls that it is not about, by cause: those that no win rate decided, that failed, that were observed
            without a chance of a shadow answer, or without a text.
        scored: Share of the answers that users got that have a score.
        since: When the first of the calls was decided, in seconds since 1970.
        until: When the last one was.
        drift: How far the win rates of the later half of the period are from those of the earlier half; None with few
            calls. The estimate is right for the mixture of the period, which drift makes another one than tomorrow's.
        notes: What a reader must know.
    """

    refusal: str | None
    quality: Estimate | None
    difference: Estimate | None
    effective_deviations: float
    strong_fraction: float
    in_use_fraction: float
    threshold: float | None
    cost: Estimate | None
    cost_difference: Estimate | None
    calls: int
    left_out: Mapping[str, int]
    scored: float
    since: float
    until: float
    drift: DriftReport | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; intervals are ``{"value", "low", "high"}``."""
        out = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, value in out.items():
            if isinstance(value, Estimate | DriftReport):
                out[name] = value.to_dict()
        return {**out, "left_out": dict(self.left_out), "notes": list(self.notes)}


def replay(
    outcomes: Iterable[LoggedOutcome],
    *,
    router: Router | None = None,
    strong_fraction: float | None = None,
    threshold: float | None = None,
    rule: Callable[[LoggedOutcome], Side] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Replay:
    """Estimate what another policy would have scored on logged calls, with an interval or a refusal.

    Doubly robust on the difference to the policy in use, with the chance that each side's score exists:
    ``p + (1 - p) * p_shadow`` of a strong answer, times the share of such answers that are scored. So it takes
    exploration (``explore=``) or shadow calls (``shadow=``), and scores: labels, or feedback. See
    `routellm_core.statistics.off_policy.policy_difference` for what is refused.

    Args:
        outcomes: What the log holds of a period: ``TrafficDatabase(url).outcomes(since=...)``.
        router: The router to try; None takes the logged win rates, and tries another threshold alone.
        strong_fraction: Share of strong calls to try: the threshold that gives it on these calls.
        threshold: The threshold to try, instead.
        rule: Any other policy, instead of both: returns the side of a call.
        confidence: Level of the intervals.
        seed: Seed of the folds of the outcome models.

    Raises:
        ConfigurationError: Other than one of `strong_fraction`, `threshold` and `rule` is given.
        DataError: No logged call was decided by a win rate, the router needs texts that are not stored, or the logged
            win rates are from several routers, so that one threshold means nothing.
    """
    if sum(value is not None for value in (strong_fraction, threshold, rule)) != 1:
        raise ConfigurationError("replay needs one of strong_fraction=, threshold= and rule=: the policy to try")
    if rule is not None and router is not None:
        raise ConfigurationError("rule= decides by itself: leave router= out")
    for name, value in (("strong_fraction", strong_fraction), ("threshold", threshold)):
        if value is not None:
            checked_fraction(value, name)
    rows, left_out = _decided(outcomes, needs_text=router is not None)
    if len(rows) < 2:
        raise DataError(
            f"{len(rows)} calls to replay; left out: {_counted(left_out) or 'none'}. Replay needs calls that a win "
            "rate decided (with observe=, those that had a chance of a shadow answer: shadow=0.05), and with router= "
            "their texts (TrafficLog(texts='all'))"
        )
    at = threshold
    if rule is not None:
        target = np.array([rule(row) == "strong" for row in rows])
    else:
        rates = _logged_rates(rows) if router is None else _win_rates(router, rows)
        if at is None:
            assert strong_fraction is not None
            at = Calibration.from_win_rates(rates).threshold(strong_fraction=strong_fraction)
        target = rates >= at
    return _estimated(rows, target, at, left_out, confidence=confidence, seed=seed)


def _estimated(
    rows: Sequence[LoggedOutcome],
    target: Bools,
    threshold: float | None,
    left_out: Mapping[str, int],
    *,
    confidence: float,
    seed: int,
) -> Replay:
    p = np.array([row.call.p_strong for row in rows])
    is_strong = np.array([row.call.side == "strong" for row in rows])
    in_use = np.array([_without_chance(row) for row in rows])
    names = {name: i for i, name in enumerate({_cluster(row): None for row in rows})}
    groups = np.array([names[_cluster(row)] for row in rows])
    features = _features(rows)
    failed, mismatch = _failed_shadows(rows), check_probabilities(is_strong, p)
    refusal = mismatch
    if refusal is None and failed > _MOST_FAILED:
        refusal = (
            f"{failed:.0%} of the shadow answers failed, and failures are not random: find out why they fail, and "
            "replay calls made after that"
        )
    strong, weak = (_side(rows, side, lambda row, side: row.scores.get(side)) for side in ("strong", "weak"))
    found = policy_difference(
        target, in_use, strong, weak, features=features, groups=groups, confidence=confidence, seed=seed
    )
    refusal = refusal or found.refusal
    costs = [_side(rows, side, _cost) for side in ("strong", "weak")]
    money = None
    if refusal is None and all(side.exists.any() for side in costs):
        money = policy_difference(target, in_use, *costs, features=features, groups=groups, confidence=confidence)
    scored = float(np.mean([row.call.side in row.scores for row in rows]))
    times = [row.call.created for row in rows]
    return Replay(
        refusal=refusal,
        quality=None if refusal else found.quality,
        difference=None if refusal else found.difference,
        effective_deviations=found.effective_deviations,
        strong_fraction=float(target.mean()),
        in_use_fraction=float(in_use.mean()),
        threshold=threshold,
        cost=None if money is None else money.quality,
        cost_difference=None if money is None else money.difference,
        calls=len(rows),
        left_out=dict(left_out),
        scored=scored,
        since=min(times),
        until=max(times),
        drift=_drift(rows),
        notes=_notes(rows, scored),
    )


def _decided(outcomes: Iterable[LoggedOutcome], *, needs_text: bool) -> tuple[list[LoggedOutcome], Counter[str]]:
    """The calls that a win rate decided and that were answered, and how many others there are, by cause."""
    rows, left_out = [], Counter[str]()
    for row in outcomes:
        call = row.call
        answer = row.answers.get(call.side)
        if call.failover is not None:
            left_out["failover"] += 1
        elif call.reason not in DECIDED or call.win_rate is None:
            left_out[call.reason] += 1
        elif answer is not None and answer.error is not None:
            left_out["failed"] += 1
        elif call.reason == "observed" and call.p_shadow == 0:
            # nothing was left to chance in that phase, and it is no part of the policy in use
            left_out["observed without a shadow"] += 1
        elif needs_text and call.prompt is None:
            left_out["without a stored text"] += 1
        else:
            rows.append(row)
    return rows, left_out


def _without_chance(row: LoggedOutcome) -> bool:
    """Whether the policy in use sends the call to strong, leaving the coin aside."""
    call = row.call
    if call.reason == "observed":
        return call.side == "strong"
    assert call.win_rate is not None
    return call.win_rate >= call.threshold


def _cluster(row: LoggedOutcome) -> str:
    """Rows of one conversation, or of one decision of an agent, depend on each other."""
    return row.call.conversation or row.call.id.partition("-")[0]


def _logged_rates(rows: Sequence[LoggedOutcome]) -> WinRateArray:
    versions = Counter(row.call.router for row in rows)
    if len(versions) > 1:
        raise DataError(
            f"the calls were decided by {len(versions)} routers ({', '.join(sorted(versions)[:4])}), whose win rates "
            "cannot be compared with one threshold: pass router=, or since= when the last of them came into use"
        )
    return np.array([row.call.win_rate for row in rows], dtype=np.float64)


def _win_rates(router: Router, rows: Sequence[LoggedOutcome]) -> WinRateArray:
    prompts = [row.call.prompt or "" for row in rows]
    parts = [router.win_rates(prompts[i : i + _CHUNK]) for i in range(0, len(prompts), _CHUNK)]
    return checked_win_rates(np.concatenate(parts), len(prompts), router.name)


def _features(rows: Sequence[LoggedOutcome]) -> Floats:
    """What the outcome models predict scores from: the prompts where all are stored, and the logged win rates."""
    rates = np.array([row.call.win_rate for row in rows], dtype=np.float64)
    columns = [((rates - rates.mean()) / (rates.std() or 1.0))[:, None]]
    if all(row.call.prompt is not None for row in rows):
        columns.append(principal_features(bundled_embedder().embed([row.call.prompt or "" for row in rows])))
    elif all(row.call.vector is not None for row in rows):
        columns.append(principal_features(np.stack([np.asarray(row.call.vector) for row in rows])))
    return np.concatenate(columns, axis=1)


def _side(
    rows: Sequence[LoggedOutcome], side: Side, value_of: Callable[[LoggedOutcome, Side], float | None]
) -> SideScores:
    """What is known of one side's answers, and the chance that it would be.

    An answer that exists need not have a score. It has one with the share of its kind that has: routed alone, routed
    with a shadow beside it, or itself the shadow. So a log whose pairs alone are labelled is weighted by the chance of
    a pair.
    """
    p = np.array([row.call.p_strong if side == "strong" else 1.0 - row.call.p_strong for row in rows])
    shadow = np.array([row.call.p_shadow for row in rows]) * (1.0 - _failed_shadows(rows))
    routed = np.array([row.call.side == side for row in rows])
    paired = np.array([_shadow(row) is not None for row in rows])
    values = [value_of(row, side) for row in rows]
    exists = np.array([value is not None for value in values]) & (routed | paired)
    share = {
        kind: float(exists[of].mean()) if of.any() else 0.0
        for kind, of in (("alone", routed & ~paired), ("beside", routed & paired), ("shadow", ~routed & paired))
    }
    chance = p * ((1.0 - shadow) * share["alone"] + shadow * share["beside"]) + (1.0 - p) * shadow * share["shadow"]
    # an answer outside the recorded probabilities, such as one imported later, is not evidence
    exists &= chance > 0
    return SideScores(exists, chance, np.array([0.0 if value is None else float(value) for value in values]))


def _shadow(row: LoggedOutcome) -> LoggedAnswer | None:
    """The shadow answer of a call, where it did not fail."""
    return next((a for a in row.answers.values() if a.kind == "shadow" and a.error is None), None)


def _failed_shadows(rows: Sequence[LoggedOutcome]) -> float:
    shadows = [a for row in rows for a in row.answers.values() if a.kind == "shadow"]
    return sum(a.error is not None for a in shadows) / len(shadows) if shadows else 0.0


def _cost(row: LoggedOutcome, side: Side) -> float | None:
    answer = row.answers.get(side)
    return None if answer is None or answer.error is not None else answer.cost


def _drift(rows: Sequence[LoggedOutcome]) -> DriftReport | None:
    latest = rows[-1].call.router
    at_hand = sorted((row.call for row in rows if row.call.router == latest), key=lambda call: call.created)
    rates = [call.win_rate for call in at_hand if call.win_rate is not None]
    half = len(rates) // 2
    if half < _LEAST_DRIFT:
        return None
    online = OnlineCalibration(Calibration.from_win_rates(rates[:half]), 0.5, window=len(rates) - half)
    online.observe_batch(rates[half:])
    return online.drift


def _notes(rows: Sequence[LoggedOutcome], scored: float) -> tuple[str, ...]:
    notes = []
    # where pairs alone are scored, their labels are of a random sample
    alone = [row for row in rows if _shadow(row) is None]
    share = float(np.mean([row.call.side in row.scores for row in alone])) if alone else 0.0
    if 0.0 < share < _FEW_SCORED:
        notes.append(
            f"{scored:.0%} of the answers that users got have a score, and they are taken for a random sample. "
            "Feedback that unhappy users click more often says how those who clicked felt, not how good answers are."
        )
    return tuple(notes)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {cause}" for cause, count in counts.items())
