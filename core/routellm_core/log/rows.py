"""The rows of a traffic log as values: what is written to it and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.checks import Side

Kind = Literal["routed", "shadow"]
# with what was paid for and thrown away
PaidKind = Literal["routed", "shadow", "refused", "failed"]
TotalBy = Literal["side", "model", "user", "day"]
# What is counted beside rows that could not be logged: shadow calls that were given up.
SKIPPED_SHADOWS = "shadow skipped"


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One routed call.

    Attributes:
        id: Id of the decision; of a later step of an agent's run that is decided once, ``"<id>-<step>"``.
        created: When it was decided, in seconds since 1970.
        app: Name that the log was opened with; None without one.
        run_id: The chosen model's run: a UUID in LangChain, a span id in LlamaIndex.
        parent_run_id: The run around it.
        trace_id: The outermost run.
        conversation: Hash of what identifies the conversation; None when unknown. Calls of one depend on each other.
        prompt_hash: Hash of the text that was routed on; None where there was none.
        prompt: That text; None where texts are not stored.
        vector: float32 (d,), its embedding; None unless the log has an embedder.
        router: Name of the router and, behind a colon, the first digits of its fingerprint.
        win_rate: In [0, 1]; None where no router ran.
        threshold: The call is strong when ``win_rate >= threshold``.
        reason: Why it went where it went, as `RoutingDecision.reason`; ``"escalated"`` where a check refused the weak
            answer.
        failover: The side that was decided on but failed.
        p_strong: Probability that the call went to the strong side, exploration included.
        p_shadow: Probability that the other side was to answer, too.
        side: The side that answered.
        user_id: Whose call it was; None when unknown.
        cost: Money that the call cost, an answer included that a check refused; None where it is not known.
    """

    id: str
    created: float
    app: str | None
    run_id: str | None
    parent_run_id: str | None
    trace_id: str | None
    conversation: str | None
    prompt_hash: str | None
    prompt: str | None
    vector: npt.NDArray[np.float32] | None
    router: str
    win_rate: float | None
    threshold: float
    reason: str
    failover: Side | None
    p_strong: float
    p_shadow: float
    side: Side
    user_id: str | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """One side's answer to a call.

    Attributes:
        call_id: The call.
        side: Who answered.
        created: When the answer was complete, in seconds since 1970.
        kind: ``"routed"``, which the user got, ``"shadow"``, which nobody did.
        model: Name of the model; None when unknown.
        text: The answer; None where texts are not stored.
        input_tokens: As the provider reports them; None when it does not.
        output_tokens: Likewise.
        cost: Money, where the log has the model's price.
        latency: Seconds from asking to the complete answer; None for calls of a batch, whose answers come together.
        error: Class name of what went wrong; None for an answer.
    """

    call_id: str
    side: Side
    created: float
    kind: Kind
    model: str | None = None
    text: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    latency: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedPair:
    """A call that both sides have answered."""

    call: LoggedCall
    strong: LoggedAnswer
    weak: LoggedAnswer


@dataclass(frozen=True, slots=True)
class LoggedOutcome:
    """A call with all that is known of how good its answers were.

    Attributes:
        call: The call.
        answers: The answers by side; failed ones are among them.
        scores: Score in [0, 1] by side, for sides that have one.
    """

    call: LoggedCall
    answers: Mapping[Side, LoggedAnswer]
    scores: Mapping[Side, float]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody thought of an answer.

    Attributes:
        id: Id of the source's own, so that an import can be repeated.
        score: In [0, 1].
        key: What was judged.
        source: Who judged.
        call_id: The call, by our id; None where only the source's id of the run is known.
        external_id: Id of a run or trace that the call belongs to.
        side: Which of a pair's two answers; None is the one that the user got.
        created: Seconds since 1970.
    """

    id: str
    score: float
    key: str = "score"
    source: str = "user"
    call_id: str | None = None
    external_id: str | None = None
    side: Side | None = None
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Label:
    """Scores of both answers of a pair.

    Attributes:
        call_id: The pair's call.
        labeller: ``"gold"``, or a judge as ``"judge:MODEL:INSTRUCTIONS"``.
        strong_score: In [0, 1].
        weak_score: In [0, 1].
        created: Seconds since 1970.
    """

    call_id: str
    labeller: str
    strong_score: float
    weak_score: float
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Day:
    """The calls of one day.

    Attributes:
        start: Its beginning in UTC, in seconds since 1970.
        calls: Routed calls.
        strong: Those that the strong side answered.
        win_rates: Calls by win rate, in 20 intervals of equal width.
    """

    start: float
    calls: int
    strong: int
    win_rates: Sequence[int]


@dataclass(frozen=True, slots=True)
class Spending:
    """What one model's answers to the calls of one day used.

    Attributes:
        start: The beginning of the day in UTC, in seconds since 1970.
        side: The model's side.
        model: Its name; None where it is unknown.
        kind: ``"routed"``, ``"shadow"``, ``"refused"`` by a check, or ``"failed"`` after a model had been paid.
        answers: Answers, or attempts that failed.
        input_tokens: Tokens read, as far as reported.
        output_tokens: Tokens written, likewise.
        cost: Money, as far as the log had prices; None without.
    """

    start: float
    side: Side
    model: str | None
    kind: PaidKind
    answers: int
    input_tokens: int
    output_tokens: int
    cost: float | None


@dataclass(frozen=True, slots=True)
class Total:
    """What the answers of one side, model, user or day used.

    Attributes:
        key: The side, the model, the user, or the day as YYYY-MM-DD in UTC; None where it is unknown.
        answers: Answers that users got.
        refused: Weak answers that a check refused.
        shadows: Answers that nobody got.
        input_tokens: Tokens read for all of these and for attempts that failed, as far as reported.
        output_tokens: Tokens written, likewise.
        cost: Money for the same without shadows, as far as it is known; None where none of it is.
        shadow_cost: Money for shadow answers, likewise.
        without_cost: Answers whose cost is not known, of all three kinds.
    """

    key: str | None
    answers: int = 0
    refused: int = 0
    shadows: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    shadow_cost: float | None = None
    without_cost: int = 0


@dataclass(frozen=True, slots=True)
class SideSummary:
    """What one side did in a period.

    Attributes:
        calls: Answers that users got from it.
        shadows: Answers that nobody got.
        errors: Failures among the former.
        shadow_errors: Failures among the latter.
        refused: Answers that a check refused.
        input_tokens: Tokens read for answers that users got, for refused ones and for attempts that failed, as far as
            reported.
        output_tokens: Tokens written, likewise.
        cost: Money for the same; None where nothing is priced.
        shadow_cost: Money of shadow calls, likewise.
        latency: Quantiles .5, .9 and .99 of successful routed calls in seconds; None where no call has a latency.
    """

    calls: int = 0
    shadows: int = 0
    errors: int = 0
    shadow_errors: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    shadow_cost: float | None = None
    latency: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What ``observe=`` kept from being decided: calls that one side answered whatever their win rate.

    Attributes:
        calls: These calls.
        strong: Those of them whose win rate would have sent them to the strong side.
    """

    calls: int
    strong: int


@dataclass(frozen=True, slots=True)
class TrafficSummary:
    """What a log holds of a period.

    Attributes:
        calls: Routed calls.
        strong_fraction: Share that the strong side answered; None without calls.
        pairs: Calls that both sides have answered.
        pairs_without_label: Pairs that nobody has labelled.
        labels: Labels.
        feedback: Scores that users and graders gave.
        sides: What each side did.
        observed: What would have been decided with ``observe=``; None without such calls.
        reasons: Calls by reason.
        skipped_shadows: Shadow calls that were given up when their program ended, since the log exists.
        dropped: What could not be logged since the log exists, by cause.
        first: When the first call of the period was decided, in seconds since 1970; None without calls.
        last: Likewise the last one.
    """

    calls: int
    strong_fraction: float | None
    pairs: int
    pairs_without_label: int
    labels: int
    feedback: int
    sides: Mapping[Side, SideSummary]
    observed: Observed | None
    reasons: Mapping[str, int]
    skipped_shadows: int
    dropped: Mapping[str, int]
    first: float | None
    last: float | None

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON values; ``dropped`` is the sum, ``dropped_by_cause`` says more."""
        sides = {
            side: {name: getattr(usage, name) for name in SideSummary.__slots__} for side, usage in self.sides.items()
        }
        told = {name: getattr(self, name) for name in self.__slots__}
        return {
            **told,
            "sides": sides,
            "observed": None if self.observed is None else asdict(self.observed),
            "reasons": dict(self.reasons),
            "dropped": sum(self.dropped.values()),
            "dropped_by_cause": dict(self.dropped),
        }
