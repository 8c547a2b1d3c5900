"""What a routed call leaves in the log: its answer in the log's words, and the other side's, which nobody sees."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms.llm import LLM
from llama_index_instrumentation.dispatcher import Dispatcher
from pydantic import BaseModel

from llamaindex_routellm.answers import named_model, tool_calls
from llamaindex_routellm.events import DECISION_KEY, used_tokens
from llamaindex_routellm.side import SideMetadata, under_manager
from llamaindex_routellm.tracing import Stamp
from routellm_core import RoutingDecision
from routellm_core.log import Answer, Recording, Runs, SideSpent
from routellm_core.policy.route import Route
from routellm_core.policy.savings import CallCost

logger = logging.getLogger("llamaindex_routellm")

_Sink = Callable[[BaseEvent], None]
# Where the events of a shadow call go, in its context; None elsewhere.
_SHADOW: ContextVar[_Sink | None] = ContextVar("routellm_shadow", default=None)


class CallRecord:
    """One call on its way into the log. Whatever goes wrong here, the call goes on.

    Attributes:
        model_span: Id of the chosen model's span.

    Args:
        recording: The log's own record of the call.
        span_id: Of the routed call.
        parent_id: Of the span around it.
        ask: Calls a side with the same request, without the user's run.
        is_async: Whether `ask` is a coroutine function.
    """

    def __init__(self, recording: Recording, span_id: str, parent_id: str | None, ask: Any, *, is_async: bool) -> None:
        self.model_span: str | None = None
        self._recording = recording
        self._span_id = span_id
        self._trace = _trace() or parent_id or span_id
        self._ask = ask if recording.is_drawn else None
        self._is_async = is_async

    def answered(self, model: LLM, name: str, output: Any, decision: RoutingDecision, spent: CallCost | None) -> None:
        """Log the answer; have the other side answer where the call is drawn.

        Args:
            model: Gave the answer.
            name: Its name.
            output: The answer, or the pieces of a stream.
            decision: The decision as it stands now.
            spent: What the call has used.
        """
        try:
            self._recording.runs = self._runs()
            answer = Answer(text_of(output, model), name)
            if self._is_async:
                self._recording.answered_async(answer, decision, spent=spent, other=self._ask)
            else:
                self._recording.answered(answer, decision, spent=spent, other=self._ask)
        except Exception as exc:
            _warn(exc)

    def failed(self, error: BaseException, route: Route[Any]) -> None:
        """Log the error that ended the call."""
        try:
            self._recording.runs = self._runs()
            self._recording.failed(error, route.priced(), spent=route.cost)
        except Exception as exc:
            _warn(exc)

    def _runs(self) -> Runs:
        return Runs(self.model_span or self._span_id, self._span_id, self._trace)


def _warn(exc: Exception) -> None:
    logger.warning("a call could not be logged (%s)", type(exc).__name__)


def _trace() -> str | None:
    """The id of the current OpenTelemetry trace, by which exporters such as Langfuse and Phoenix know it."""
    trace = sys.modules.get("opentelemetry.trace")
    context = None if trace is None else trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context is not None and context.is_valid else None


def text_of(output: Any, model: LLM) -> str | None:
    """The text of an answer; what is no text, such as calls of tools or an object, as JSON."""
    if isinstance(output, list):  # the pieces of a stream: texts, or what has grown to the answer
        if all(isinstance(piece, str) for piece in output):
            return "".join(output) or None
        return text_of(output[-1], model) if output else None
    if isinstance(output, ChatResponse):
        calls = [{"name": name, "args": arguments} for name, arguments in tool_calls(output, model)]
        parts = [output.message.content or "", json.dumps({"tool_calls": calls}, default=str) if calls else ""]
        return "\n".join(filter(None, parts)) or None
    if isinstance(output, CompletionResponse):
        return output.text
    if isinstance(output, BaseModel):
        return output.model_dump_json()
    return output if isinstance(output, str) else None if output is None else str(output)


# --- the other side, outside of the user's run ---


def whole(method: str) -> str:
    """The method that answers at once what `method` may stream."""
    plain = {"stream": "predict", "astream": "apredict"}
    return plain.get(method) or method.replace("stream_", "")


def ask(
    model: LLM,
    name_of: Callable[[Any], str],
    method: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    spent: SideSpent,
) -> Answer:
    """Call a model as nobody's run; for a thread with an empty context.

    Args:
        model: The model.
        name_of: Its name, by what an answer of it carries as a decision.
        method: Name of the method.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        spent: Counts what the call uses.
    """
    with _unseen(model, spent):
        silent = _silent(model)
        output = getattr(silent, method)(*args, **kwargs)
    return spent.on(Answer(text_of(output, silent), name_of(_decision_on(output))))


async def aask(
    model: LLM,
    name_of: Callable[[Any], str],
    method: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    spent: SideSpent,
) -> Answer:
    """Async twin of `ask`, for a task with an empty context."""
    with _unseen(model, spent):
        silent = _silent(model)
        output = await getattr(silent, method)(*args, **kwargs)
    return spent.on(Answer(text_of(output, silent), name_of(_decision_on(output))))


def _decision_on(output: Any) -> Any:
    """What an answer carries as the decision of the routed model that gave it."""
    return (getattr(output, "additional_kwargs", None) or {}).get(DECISION_KEY)


def _silent(model: LLM) -> LLM:
    manager = CallbackManager([])
    manager.handlers = []  # the constructor adds the global one
    return under_manager(model, manager)


@contextmanager
def _unseen(model: LLM, spent: SideSpent) -> Any:
    """Keep the events and spans of this context from every handler; count the tokens that models report in it."""
    decision: dict[str, Any] = {}

    def sink(event: BaseEvent) -> None:
        stamp = event.tags.get(DECISION_KEY)
        used = used_tokens(event, stamp if isinstance(stamp, Stamp) else decision)
        if used is None:
            return
        metadata = stamp.metadata if isinstance(stamp, Stamp) else None
        name = named_model(getattr(event, "response", None))
        spent.add(*used, name or (SideMetadata(model) if metadata is None else metadata).name)

    token = _SHADOW.set(sink)
    try:
        yield
    finally:
        _SHADOW.reset(token)


def hide_shadows() -> None:
    """Have LlamaIndex's dispatchers pass over shadow calls from now on; again is no change.

    Handlers hang on the dispatchers of modules and on the root, and LlamaIndex has no way to leave a call out.
    """
    if getattr(Dispatcher.event, "_routellm_hides", False):
        return
    plain: Any = Dispatcher
    event, aevent = Dispatcher.event, Dispatcher.aevent

    @wraps(event)
    def hidden_event(self: Dispatcher, event_: BaseEvent, **kwargs: Any) -> None:
        sink = _SHADOW.get()
        if sink is None:
            event(self, event_, **kwargs)
        else:
            sink(event_)

    @wraps(aevent)
    async def hidden_aevent(self: Dispatcher, event_: BaseEvent, **kwargs: Any) -> None:
        sink = _SHADOW.get()
        if sink is None:
            await aevent(self, event_, **kwargs)
        else:
            sink(event_)

    def hidden(method: Any) -> Any:
        @wraps(method)
        def hidden_method(self: Dispatcher, *args: Any, **kwargs: Any) -> Any:
            return method(self, *args, **kwargs) if _SHADOW.get() is None else None

        return hidden_method

    plain.aevent = hidden_aevent
    for name in ("span_enter", "span_exit", "span_drop"):
        setattr(plain, name, hidden(getattr(Dispatcher, name)))
    hidden_event._routellm_hides = True  # type: ignore[attr-defined]
    plain.event = hidden_event
