"""Recording: one routed call on its way into the log, and its shadow."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from routellm_core.checks import Side, other_side
from routellm_core.policy.decision import RoutingDecision
from routellm_core.policy.savings import CallCost, Discarded, Price, Spent, price_of
from routellm_core.policy.shadow import Shadow

if TYPE_CHECKING:
    from routellm_core.log.traffic_log import TrafficLog

# Calls that a router or the lack of one decided; a side that was settled otherwise has nothing to be compared with.
_COMPARABLE = ("win_rate", "explored", "observed", "sticky", "no_text", "error", "deadline")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an adapter makes of an answer for the log.

    Attributes:
        text: Its text; calls of tools as JSON.
        model: Name of the model that gave it.
        input_tokens: As the provider reports them; None when it does not.
        output_tokens: Likewise.
        error: Class name of what went wrong; None for an answer.
        cost: Money, where it is known; else it follows from tokens and price.
    """

    text: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Runs:
    """Ids under which a call is traced; None where it is not."""

    run: str | None = None
    parent: str | None = None
    trace: str | None = None


def cost_of(answer: Answer, side: str, prices: Mapping[str, Price] | None) -> float | None:
    """Money that an answer cost; None where its tokens or the price are unknown."""
    if answer.cost is not None:
        return answer.cost
    if prices is None or answer.input_tokens is None or answer.output_tokens is None:
        return None
    price = price_of(prices, answer.model, side)
    return None if price is None else price.cost(answer.input_tokens, answer.output_tokens)


class SideSpent:
    """What the other side uses while it answers for the log alone; where it is a routed model, with what that refuses.

    Args:
        side: The side.
        prices: As for `price_of`; None without.
    """

    def __init__(self, side: Side, prices: Mapping[str, Price] | None) -> None:
        self._side = side
        self._cost = CallCost(prices)

    def add(self, read: int | None, written: int | None, model: str | None) -> None:
        """Count a model run."""
        self._cost.add(self._side, model, read, written)

    def on(self, answer: Answer) -> Answer:
        """The answer with all that was used for it; as it is where no model run was seen, as of a function."""
        if self._cost.answer is None and not self._cost.discarded:
            return answer
        return _using(answer, self._cost.whole(self._side))


def _using(answer: Answer, used: Spent) -> Answer:
    """The answer with what was used for it; its own name of the model wins."""
    return replace(
        answer, model=answer.model or used.model, input_tokens=used.input_tokens, output_tokens=used.output_tokens,
        cost=used.cost,
    )  # fmt: skip


class Recording:
    """One call, from its decision to its answer; made by `TrafficLog.recording`.

    Attributes:
        runs: Ids of the call's runs; set them before the answer is there.
        is_drawn: Whether the other side is to answer, too.
    """

    __slots__ = (
        "_begun",
        "_call_id",
        "_chance",
        "_conversation",
        "_created",
        "_decision",
        "_log",
        "_prices",
        "_prompt",
        "_shadow",
        "_user",
        "is_drawn",
        "is_timed",
        "runs",
    )

    def __init__(
        self,
        log: TrafficLog,
        decision: RoutingDecision,
        call_id: str,
        *,
        prompt: str | None,
        conversation: str | None,
        shadow: Shadow | None,
        user: str | None,
        prices: Mapping[str, Price] | None,
    ) -> None:
        self._log = log
        self._decision = decision
        self._call_id = call_id
        self._prompt = prompt
        self._conversation = conversation
        self._user = user
        self._prices = prices
        self._created = time.time()
        self._begun = time.perf_counter()
        self._shadow = shadow
        self.runs = Runs()
        self.is_timed = True  # not where calls are answered together, as a batch is: when one ended is unknown
        # before the draw and whatever it will be, so that this is the probability that the other side answers
        self._chance = 0.0
        if shadow is not None and decision.failover is None and decision.reason in _COMPARABLE:
            self._chance = log.shadows.chance(shadow)
        self.is_drawn = shadow is not None and self._chance > 0 and shadow.draws(call_id)

    def failed(
        self, error: BaseException, decision: RoutingDecision | None = None, *, spent: CallCost | None = None
    ) -> None:
        """Log that the call ended in `error`; nothing answers in its place. The arguments are those of `answered`."""
        self._ended(Answer(error=type(error).__name__), decision or self._decision, spent)

    def answered(
        self,
        answer: Answer,
        decision: RoutingDecision | None = None,
        *,
        spent: CallCost | None = None,
        other: Callable[[Side], Answer] | None = None,
    ) -> None:
        """Log the answer that the user gets, and have the other side answer where the call is drawn.

        Args:
            answer: The answer.
            decision: The decision as it stands now, where a failover may have changed it.
            spent: What the call has used, where the adapter counts it; that of discarded answers is logged, too.
            other: Calls a side with the same request, outside of the user's run; runs in a thread.
        """
        decision = decision or self._decision
        if self._ended(answer, decision, spent) and other is not None:
            assert self._shadow is not None
            self._log.shadows.run(self._shadow, other_side(decision.model), other, self._shadowed)

    def answered_async(
        self,
        answer: Answer,
        decision: RoutingDecision | None = None,
        *,
        spent: CallCost | None = None,
        other: Callable[[Side], Awaitable[Answer]] | None = None,
    ) -> None:
        """Like `answered`, with a coroutine function that runs as a task of the running event loop."""
        decision = decision or self._decision
        if self._ended(answer, decision, spent) and other is not None:
            assert self._shadow is not None
            self._log.shadows.start(self._shadow, other_side(decision.model), other, self._shadowed)

    def _ended(self, answer: Answer, decision: RoutingDecision, spent: CallCost | None) -> bool:
        """Log call and answer; whether the other side is to answer, too."""
        discarded: Sequence[tuple[Discarded, Spent]] = ()
        if spent is not None:
            if answer.error is not None:
                spent.discard("failed", decision.model, model=answer.model)
            discarded, used = spent.discarded, spent.answer
            if used is not None:
                answer = _using(answer, used)
        turned = decision.failover is not None or decision.escalated
        version = f":{decision.router_version}" if decision.router_version else ""
        text = answer.text
        call = {
            "id": self._call_id,
            "created": self._created,
            "app": self._log.app,
            "run_id": self.runs.run,
            "parent_run_id": self.runs.parent,
            "trace_id": self.runs.trace,
            "conversation": self._conversation,
            "prompt": self._prompt,
            "router": decision.router + version,
            "win_rate": decision.win_rate,
            "threshold": decision.threshold,
            # the side that answered was not decided on beforehand
            "reason": "escalated" if decision.escalated else decision.reason,
            "failover": decision.failover,
            "p_strong": decision.p_strong,
            "p_shadow": 0.0 if turned else self._chance,
            "side": decision.model,
            "drawn": self.is_drawn,
            "user_id": self._user,
            "cost": decision.cost,
        }
        seconds = time.perf_counter() - self._begun if self.is_timed else None
        row = self._answer_row(answer, decision.model, "routed", seconds)
        thrown_away = [("discarded", self._discarded_row(kind, thrown)) for kind, thrown in discarded]
        self._log.put((("calls", call), *thrown_away, ("answers", row)), len(self._prompt or "") + len(text or ""))
        return self.is_drawn and not turned and answer.error is None

    def _shadowed(self, side: Side, answer: Answer, seconds: float) -> None:
        row = self._answer_row(answer, side, "shadow", seconds)
        self._log.put((("answers", row),), len(answer.text or ""))

    def _discarded_row(self, kind: Discarded, spent: Spent) -> dict[str, object]:
        return {
            "id": uuid4().hex,
            "call_id": self._call_id,
            "side": spent.side,
            "created": time.time(),
            "kind": kind,
            "model": spent.model,
            "input_tokens": spent.input_tokens,
            "output_tokens": spent.output_tokens,
            "cost": spent.cost,
        }

    def _answer_row(self, answer: Answer, side: Side, kind: str, seconds: float | None) -> dict[str, object]:
        return {
            "call_id": self._call_id,
            "side": side,
            "created": time.time(),
            "kind": kind,
            "model": answer.model,
            "text": answer.text,
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "cost": cost_of(answer, side, self._prices),
            "latency": seconds,
            "error": answer.error,
            "drawn": self.is_drawn,
        }
