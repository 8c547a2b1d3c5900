"""Seeing decisions: on answers, as a LlamaIndex event, and as usage per side, counted from LlamaIndex's events."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.callbacks.token_counting import get_tokens_from_response
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from pydantic import PrivateAttr

from routellm_core.policy import RoutingDecision
from routellm_core.policy.savings import Price, SavingsLedger, SavingsSummary

# Key of the decision in an answer's additional_kwargs and in the tags of every event that the chosen model emits.
DECISION_KEY = "routellm"


def routing_decision(answer: Any) -> RoutingDecision | None:
    """The decision that an answer carries.

    Args:
        answer: A `ChatResponse` or `CompletionResponse`, whole or a streamed piece; the response of a query engine or
            a chat engine, or the output of an agent: the decision of the model that answered last; the result of a
            `RouteLLMSelector`; or a `RouteLLMDecisionEvent`.

    Returns:
        The decision, or None if the answer was not routed or carries none.
    """
    for holder in (getattr(answer, "additional_kwargs", None), getattr(answer, "metadata", None)):
        if isinstance(holder, Mapping):
            selected = getattr(holder.get("selector_result"), "decision", None)
            return RoutingDecision.from_dict(holder.get(DECISION_KEY, selected))
    return RoutingDecision.from_dict(getattr(answer, "decision", getattr(answer, DECISION_KEY, None)))


def routing_decisions(answer: Any) -> list[RoutingDecision]:
    """Every decision on the way to an answer, outermost first; several where a `RouteLLM` is a side of another.

    Args:
        answer: As for `routing_decision`.

    Returns:
        The decisions, none if the answer was not routed or carries none.
    """
    decision = routing_decision(answer)
    return [] if decision is None else list(decision.levels)


class RouteLLMDecisionEvent(BaseEvent):
    """A routing decision; one for each call of a `RouteLLM` and each choice of a `RouteLLMSelector`.

    Where a `RouteLLM` is a side of another, there is one event for the call, with the decisions of both.

    Emitted as soon as the decision is final: before the model runs, or with ``failover=True`` when the first part of
    an answer, or the error, is there.

    Attributes:
        decision: The decision as a dict of JSON scalars (see `routellm_core.RoutingDecision`).
    """

    decision: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        """Name of the event in exported traces."""
        return "RouteLLMDecisionEvent"


# The latest answer that was counted in this context: its decision, its event's id and the answer.
_COUNTED: ContextVar[tuple[Any, str, Any] | None] = ContextVar("routellm_counted", default=None)


class SavingsEventHandler(BaseEventHandler):
    """Counts calls, tokens and money per side from the events of routed models; add it to a dispatcher once.

    >>> from llama_index.core.instrumentation import get_dispatcher
    >>> savings = SavingsEventHandler()
    >>> get_dispatcher().add_event_handler(savings)  # doctest: +SKIP
    >>> print(savings.summary().table())  # doctest: +SKIP

    It counts each answer of a model of a `RouteLLM`, with the tokens that the provider reports in the raw answer
    (``usage``); an answer without them counts as a call only. Streamed answers are counted when they end; OpenAI
    reports their tokens with ``additional_kwargs={"stream_options": {"include_usage": True}}``. Models whose class
    emits no LlamaIndex events are not counted. Thread-safe.

    Args:
        prices: ``{"strong": Price(...), "weak": Price(...)}``, or the `Price` of each model by its name, which nested
            models need; without it, money is None.
        strong_fraction: The wanted share of strong calls; the summary then says what to do when it is missed by far.
    """

    _ledger: SavingsLedger = PrivateAttr()

    def __init__(self, prices: Mapping[str, Price] | None = None, *, strong_fraction: float | None = None) -> None:
        super().__init__()
        self._ledger = SavingsLedger(prices, strong_fraction=strong_fraction)

    @classmethod
    def class_name(cls) -> str:
        """Name of the handler."""
        return "RouteLLMSavingsEventHandler"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        """Count the end of a routed model's answer; other events pass."""
        stamp = event.tags.get(DECISION_KEY)
        if not isinstance(stamp, dict) or (used := used_tokens(event, stamp)) is None:
            return
        decision = RoutingDecision.from_dict(stamp)
        if decision is not None:
            metadata = getattr(stamp, "metadata", None)
            self._ledger.record(
                decision.model,
                *used,
                failover=any(level.failover is not None for level in decision.levels),
                model=None if metadata is None else metadata.name,
                is_top=set(decision.path) == {"strong"},
            )

    def summary(self) -> SavingsSummary:
        """A snapshot of the counts so far."""
        return self._ledger.summary()


def used_tokens(event: BaseEvent, decision: dict[str, Any]) -> tuple[int | None, int | None] | None:
    """Tokens read and written for an answer, each None if the provider reports none; None for any other event.

    Args:
        event: An event of the chosen model.
        decision: The decision in its tags. A model whose methods call one another, such as `chat` of LlamaIndex's
            `CustomLLM`, which calls `complete`, reports one answer from each of them; only the first report counts.
    """
    if not isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent) or event.response is None:
        return None
    last = _COUNTED.get()
    # several handlers may ask about the same event
    if last is not None and last[0] is decision and last[1] != event.id_ and _is_same(last[2], event.response):
        return None
    _COUNTED.set((decision, event.id_, event.response))
    try:
        read, written = get_tokens_from_response(event.response)
    except (TypeError, ValueError, AttributeError):  # a raw answer of some other form than LlamaIndex expects
        return None, None
    return (read, written) if read or written else (None, None)


def _is_same(first: ChatResponse | CompletionResponse, second: ChatResponse | CompletionResponse) -> bool:
    """Whether both hold one answer of a provider: the raw answer of it, or its text where there is no raw one."""
    if first.raw is not None or second.raw is not None:
        return first.raw is second.raw
    return _text(first) == _text(second)


def _text(answer: ChatResponse | CompletionResponse) -> str:
    return answer.text if isinstance(answer, CompletionResponse) else answer.message.content or ""
