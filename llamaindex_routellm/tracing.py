"""Routed calls in traces: a span that does not count as a model's, and the decision on the span of the model."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.events.span import SpanDropEvent
from llama_index_instrumentation.span import active_span_id

from llamaindex_routellm.answers import named_model
from llamaindex_routellm.events import DECISION_KEY, used_tokens
from llamaindex_routellm.side import SideMetadata
from routellm_core.policy.decision import RoutingDecision

dispatcher = get_dispatcher(__name__)


class RoutingSpan:
    """A span around a routed call.

    LlamaIndex's own span would belong to the `RouteLLM`, and tools that trace LLMs would count it as a model call
    without tokens. This one belongs to no object.

    Args:
        name: Class and method.
        arguments: Arguments of the method.
    """

    __slots__ = ("_arguments", "_token", "id", "parent", "result")

    def __init__(self, name: str, arguments: inspect.BoundArguments) -> None:
        self.id = f"{name}-{uuid4()}"
        self.parent = active_span_id.get()
        self.result: Any = None
        self._arguments = arguments

    def __enter__(self) -> Self:
        self._token = active_span_id.set(self.id)
        tags = active_instrument_tags.get()
        dispatcher.span_enter(id_=self.id, bound_args=self._arguments, parent_id=self.parent, tags=tags)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            dispatcher.span_exit(id_=self.id, bound_args=self._arguments, result=self.result)
        else:
            dispatcher.event(SpanDropEvent(span_id=self.id, err_str=str(error)))
            dispatcher.span_drop(id_=self.id, bound_args=self._arguments, err=error)
        active_span_id.reset(self._token)


class Stamp(dict[str, Any]):
    """The decision in the tags of the chosen model's events, and who is notified of them.

    Args:
        decision: The decision as a dict.
        spent: Called after an answer with the tokens read and written, each None if the model does not report it, and
            with the name of the model.
        refused: For a routed model below, to say that its check refused an answer of that many model runs.
        begun: Called with the id of the model's span.
        named: Called after an answer with the name of the model that it states.
        metadata: Of the model, for its name.
        settled: Where the model is a routed one: called with its decision once that is final.
    """

    __slots__ = ("begun", "cost", "metadata", "named", "refused", "settled", "spans", "spent")

    def __init__(
        self,
        decision: dict[str, Any],
        spent: Callable[[int | None, int | None, str | None], None] | None = None,
        begun: Callable[[str | None], None] | None = None,
        named: Callable[[str | None], None] | None = None,
        metadata: SideMetadata | None = None,
        settled: Callable[[RoutingDecision], None] | None = None,
        refused: Callable[[int], None] | None = None,
        cost: Callable[[], float | None] | None = None,
    ) -> None:
        super().__init__(decision)
        self.spent = spent
        self.begun = begun
        self.named = named
        self.metadata = metadata
        self.settled = settled
        self.refused = refused
        self.cost = cost
        self.spans: list[Any] = []  # of the model, in OpenTelemetry; two where its methods call one another


class _ModelWatch(BaseEventHandler):
    """Puts the decision on the OpenTelemetry span of the chosen model, and reports what the model used."""

    @classmethod
    def class_name(cls) -> str:
        return "RouteLLMModelWatch"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        stamp = event.tags.get(DECISION_KEY)
        if not isinstance(stamp, Stamp):
            return
        if isinstance(event, LLMChatStartEvent | LLMCompletionStartEvent):
            _mark_span(stamp)
            if stamp.begun is not None:
                stamp.begun(event.span_id)
            return
        if stamp.named is not None and isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            stamp.named(named_model(event.response))
        if stamp.spent is not None and (used := used_tokens(event, stamp)) is not None:
            name = named_model(getattr(event, "response", None))
            stamp.spent(*used, name if name or stamp.metadata is None else stamp.metadata.name)
            _mark_cost(stamp)


def _mark_span(stamp: Stamp) -> None:
    """Set the decision as attributes of the current OpenTelemetry span, which is that of the model.

    Exporters for LlamaIndex (its own, and OpenInference, which Phoenix and Langfuse build on) mirror each of its spans
    and make it current; they read neither tags nor events of other packages.
    """
    trace = sys.modules.get("opentelemetry.trace")  # not imported: there is no exporter
    if trace is not None:
        span = trace.get_current_span()
        span.set_attributes(dict(_attributes(DECISION_KEY, stamp)))
        stamp.spans.append(span)


def _mark_cost(stamp: Stamp) -> None:
    """Put what the call has cost by now, an answer included that was refused before, on the tags and on the span."""
    if stamp.cost is None:
        return
    stamp["cost"] = cost = stamp.cost()  # for handlers that see the model's last event after this one
    for span in stamp.spans:
        if cost is not None and span.is_recording():
            span.set_attribute(f"{DECISION_KEY}.cost", cost)


def _attributes(prefix: str, decision: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of a decision and of those within it; an attribute of a span is a single value."""
    for name, value in decision.items():
        if isinstance(value, dict):
            yield from _attributes(f"{prefix}.{name}", value)
        elif value is not None:
            yield f"{prefix}.{name}", value


_MODEL_WATCH = _ModelWatch()


def watch_models() -> None:
    """Start observing the chosen models; calling it again changes nothing."""
    reporting = get_dispatcher("llama_index.core.llms.callbacks")
    if not any(handler is _MODEL_WATCH for handler in reporting.event_handlers):
        reporting.add_event_handler(_MODEL_WATCH)
