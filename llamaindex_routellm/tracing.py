"""How a routed call shows in traces: a span of its own that is no model's, and the decision on the model's span."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.events.span import SpanDropEvent
from llama_index_instrumentation.span import active_span_id

from llamaindex_routellm.events import DECISION_KEY, used_tokens

dispatcher = get_dispatcher(__name__)


class RoutingSpan:
    """A span around a routed call.

    LlamaIndex would make one by itself, on behalf of the `RouteLLM`, and whoever traces LLMs would count it as a call
    of a model without tokens. This one is on behalf of nobody.

    Args:
        name: Class and method.
        arguments: What the method was called with.
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
    """A decision as it stands in the tags of the chosen model's events, with who wants to know what the call used.

    Args:
        decision: The decision as a dict.
        spent: Called with the tokens read and written, None where the model reports none, after an answer; None where
            nobody asks.
        begun: Called with the id of the model's span; None where nobody asks.
    """

    __slots__ = ("begun", "spent")

    def __init__(
        self,
        decision: dict[str, Any],
        spent: Callable[[int | None, int | None], None] | None = None,
        begun: Callable[[str | None], None] | None = None,
    ) -> None:
        super().__init__(decision)
        self.spent = spent
        self.begun = begun


class _ModelWatch(BaseEventHandler):
    """Puts the decision on the OpenTelemetry span of the model that was chosen, and passes on what it used."""

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
        elif stamp.spent is not None and (used := used_tokens(event, stamp)) is not None:
            stamp.spent(*used)


def _mark_span(decision: dict[str, Any]) -> None:
    """Set the decision as attributes of the current OpenTelemetry span, which is that of the model.

    Exporters for LlamaIndex (its own, OpenInference, and what builds on that, such as Phoenix and Langfuse) make a
    span of each of its spans and keep it current; they read neither tags nor events of others.
    """
    trace = sys.modules.get("opentelemetry.trace")  # where nobody has loaded it, nobody exports
    if trace is not None:
        attributes = {f"{DECISION_KEY}.{name}": value for name, value in decision.items() if value is not None}
        trace.get_current_span().set_attributes(attributes)


_MODEL_WATCH = _ModelWatch()


def watch_models() -> None:
    """See from now on what the chosen models report; again is no change."""
    reporting = get_dispatcher("llama_index.core.llms.callbacks")
    if not any(handler is _MODEL_WATCH for handler in reporting.event_handlers):
        reporting.add_event_handler(_MODEL_WATCH)
