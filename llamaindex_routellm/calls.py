"""A routed call: it runs the chosen model, puts the decision on all that comes of it, and leaves a row in the log."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.instrumentation.events.llm import LLMCompletionEndEvent
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import (
    DISPATCHER_SPAN_DECORATED_ATTR,
    active_instrument_tags,
    instrument_tags,
)
from pydantic import ValidationError

from llamaindex_routellm.answers import is_broken, is_empty, is_never_broken, weak_answer
from llamaindex_routellm.asks import Ask
from llamaindex_routellm.events import DECISION_KEY, RouteLLMDecisionEvent
from llamaindex_routellm.side import SideMetadata, setup_of
from llamaindex_routellm.tracing import RoutingSpan, Stamp
from llamaindex_routellm.watch import show_decision
from routellm_core.checks import Side
from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.route import Route
from routellm_core.policy.routing import Decided, Routing
from routellm_core.policy.savings import CallCost
from routellm_core.policy.setups import Setup
from routellm_core.policy.tiers import beneath, handed_down

if TYPE_CHECKING:
    from llamaindex_routellm.llm import RouteLLM
    from llamaindex_routellm.recording import CallRecord

dispatcher = get_dispatcher(__name__)

T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Any])


class Call:
    """One decided call.

    Attributes:
        route: The attempts of the call; it calls `answer`, `open` and their async twins with a side.
    """

    __slots__ = (
        "_above",
        "_ask",
        "_decided",
        "_inner",
        "_is_announced",
        "_llm",
        "_method",
        "_nested",
        "_own",
        "_record",
        "_routing",
        "_settled",
        "_span_id",
        "_stamp",
        "route",
    )

    def __init__(
        self,
        llm: RouteLLM,
        routing: Routing,
        method: str,
        ask: Ask,
        request: RoutingRequest,
        decision: RoutingDecision,
        span: RoutingSpan,
    ) -> None:
        self._llm = llm
        self._routing = routing
        self._nested = llm._nested
        self._method = method
        self._ask = ask
        self._stamp = Stamp({})
        self._own: dict[str, Any] = {}
        # the call of the routed model that this one is a side of
        above = active_instrument_tags.get().get(DECISION_KEY) if routing.level else None
        self._above: Stamp | None = above if isinstance(above, Stamp) else None
        self._settled: RoutingDecision | None = None
        self._inner: dict[Side, RoutingDecision] = {}  # what sides that are routed models have decided
        self._is_announced = False
        self._span_id = span.id
        self._decided = Decided(decision, request, ask.settings)
        self._record = self._recorded(span)
        # an object that is filled in may well be empty
        checks_emptiness = is_never_broken if "structured" in method else is_broken
        self.route: Route[Any] = routing.route(
            request,
            decision,
            is_broken=checks_emptiness,
            answer_of=lambda given: weak_answer(given, llm._reader("weak")),
            messages=ask.messages,
            on_settled=self._settle,
            setups=self._setup,
        )
        if self._above is not None:
            self.route.on_refused = self._above.refused

    def _settle(self, decision: RoutingDecision) -> None:
        self._settled = decision
        if decision.model not in self._nested or decision.model in self._inner:
            self._announce(decision)

    def _inner_settled(self, decision: RoutingDecision) -> None:
        """Note what the called side, which is a routed model, has decided."""
        self._inner[self.route.side] = decision
        if self._settled is not None:
            self._announce(self._settled)

    def _announce(self, decision: RoutingDecision) -> None:
        """Tell once what was decided, with what was decided within it; the outermost call does so for all."""
        if self._is_announced:
            return
        self._is_announced = True
        decision = self._whole(decision)
        if self._above is not None and self._above.settled is not None:
            self._above.settled(decision)
            return
        announced = decision.to_dict()
        dispatcher.event(RouteLLMDecisionEvent(decision=announced, span_id=self._span_id))
        self._show(announced)

    def _show(self, decision: dict[str, Any]) -> None:
        """Put the decision on the answers of the engines and agents around the call."""
        retrieval = self._ask.retrieval
        show_decision(decision, None if retrieval is None else retrieval.question)

    def _whole(self, decision: RoutingDecision) -> RoutingDecision:
        inner = self._inner.get(decision.model)
        return decision if inner is None else replace(decision, inner=inner)

    def _run(self, side: Side) -> Any:
        """Call the method on the model of `side`, within tags that put the decision on each of its events."""
        # once, not for every streamed piece
        self._stamp = self._new_stamp(side)
        model = self._llm._model(side)
        method = getattr(with_tools(model) if self._method.endswith("with_tools") else model, self._method)
        with self._tags():
            return method(*self._ask.args, **self._ask.kwargs)

    def _new_stamp(self, side: Side) -> Stamp:
        decision, above = self.route.decision, self._above
        self._own = decision.to_dict()
        spent: Callable[..., None] | None = None
        if self.route.on_usage is not None:
            spent = partial(self.route.on_usage, side)
        begun = self._begun if self._record else None
        settled = self._inner_settled if side in self._nested else None
        named = None if self._routing.model_names.is_settled else partial(self._named, side)
        metadata = self._llm._metadata[side]
        refused: Callable[[int], None] | None = self.route.refused_below
        if above is None:
            return Stamp(self._own, spent, begun, named, metadata, settled, refused, self._cost if spent else None)
        # the levels above go by what the models below them use
        told = beneath(above, decision).to_dict()
        spent, begun, refused = _both(above.spent, spent), _both(above.begun, begun), _both(above.refused, refused)
        return Stamp(told, spent, begun, named, metadata, settled, refused, above.cost)

    def _named(self, side: Side, name: str | None) -> None:
        """Note which model an answer names."""
        self._routing.model_names.answered(side, name, self._setup)

    def _setup(self, side: Side) -> Setup | None:
        return None if side in self._nested else setup_of(self._llm._side(side))

    def _cost(self) -> float | None:
        return None if self.route.cost is None else self.route.cost.total

    # what the log is to know

    def _recorded(self, span: RoutingSpan) -> CallRecord | None:
        recording = self._routing.recording(self._decided)
        if recording is None:
            return None
        from llamaindex_routellm.recording import CallRecord, aask, ask, hide_shadows, whole
        from routellm_core.log import SideSpent

        is_async = inspect.iscoroutinefunction(getattr(type(self._llm), self._method))
        method = whole(self._method)
        # copied: a caller may append to its list of messages before the other side reads it
        args = [list(value) if isinstance(value, list) else value for value in self._ask.args]
        kwargs = {name: list(v) if isinstance(v, list) else v for name, v in self._ask.kwargs.items()}

        def of_side(side: Side) -> Any:
            hide_shadows()
            name_of, spent = partial(self._llm._name_of, side), SideSpent(side, self._routing.prices)
            return (aask if is_async else ask)(self._llm._side(side), name_of, method, args, kwargs, spent)

        return CallRecord(recording, span.id, span.parent, of_side, is_async=is_async)

    def _begun(self, span_id: str | None) -> None:
        if self._record is not None:
            self._record.model_span = span_id

    def ended(self, output: Any) -> None:
        """Put the cost on the decision, and log the answer."""
        decision = self.route.priced()
        if decision.cost is not None and self._above is None:
            self._show(self._whole(decision).to_dict())
        if self._record is not None:
            decision = self._whole(decision)
            side, inner = decision.model, None if decision.inner is None else decision.inner.to_dict()
            name = self._llm._name_of(side, inner)
            self._record.answered(self._llm._reader(side), name, output, decision, self.route.cost)

    def failed(self, error: BaseException) -> None:
        """Log the error that ended the call."""
        if self._settled is not None:
            self._announce(self._settled)  # a side that is a routed model may have failed before it decided
        if self._record is not None:
            self._record.failed(error, self.route)

    def watched(self, stream: Generator[Any]) -> Generator[Any]:
        """A stream of answers that is logged when it ends, and whose last piece brings the cost where there is one."""
        return stream if self._record is None and self.route.cost is None else self._watched(stream)

    def _watched(self, stream: Generator[Any]) -> Generator[Any]:
        pieces: list[Any] = []
        try:
            with closing(stream):
                for piece in stream:
                    _keep(pieces, piece)
                    yield piece
        except BaseException as exc:
            self.failed(exc)
            raise
        self.ended(pieces)
        if (last := self._priced_piece(pieces)) is not None:
            yield last

    def awatched(self, stream: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
        """Async twin of `watched`."""
        return stream if self._record is None and self.route.cost is None else self._awatched(stream)

    async def _awatched(self, stream: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
        pieces: list[Any] = []
        try:
            async with aclosing(stream):
                async for piece in stream:
                    _keep(pieces, piece)
                    yield piece
        except BaseException as exc:
            self.failed(exc)
            raise
        self.ended(pieces)
        if (last := self._priced_piece(pieces)) is not None:
            yield last

    def _priced_piece(self, pieces: list[Any]) -> Any:
        """The last piece of a stream again, without a delta and with the cost; None where it has no place for it."""
        cost, last = self.route.decision.cost, pieces[-1] if pieces else None
        if cost is None or not isinstance(last, ChatResponse | CompletionResponse):
            return None
        decision = {**last.additional_kwargs[DECISION_KEY], "cost": cost}
        return last.model_copy(
            update={"delta": "", "additional_kwargs": {**last.additional_kwargs, DECISION_KEY: decision}}
        )

    def _tags(self) -> Any:
        tags = instrument_tags({**active_instrument_tags.get(), DECISION_KEY: self._stamp})
        return tags if self._stamp.settled is None else self._handing_down(tags)

    @contextmanager
    def _handing_down(self, tags: Any) -> Iterator[None]:
        """Call a side that is a routed model, which takes over what is known of the call."""
        with handed_down(self._routing, [self._decided]), tags:
            yield

    def _stamped(self, answer: T, cost: CallCost | None = None) -> T:
        """A copy of the answer with the decision on it: the model may keep a reference to its own."""
        if isinstance(answer, ChatResponse | CompletionResponse):
            given, decision = answer.additional_kwargs, self._own.copy()
            if self._stamp.settled is not None and (inner := given.get(DECISION_KEY)):
                decision["inner"] = inner
            if cost is not None:
                decision["cost"] = cost.total
            stamped = {**given, DECISION_KEY: decision}
            return cast(T, answer.model_copy(update={"additional_kwargs": stamped}))
        return answer

    # called by the route: one answer or a stream of pieces, from one side

    def answer(self, side: Side) -> Any:
        return self._stamped(self._run(side), self.route.cost)

    async def aanswer(self, side: Side) -> Any:
        running = self._run(side)
        with self._tags():
            return self._stamped(await running, self.route.cost)

    def open(self, side: Side) -> Iterator[Any]:
        # run here and not at the first piece, so that the model's span lies within that of this call
        return self._pieces(self._run(side))

    async def aopen(self, side: Side) -> AsyncIterator[Any]:
        running = self._run(side)
        with self._tags():
            return self._apieces(await running)

    def _pieces(self, stream: Iterator[Any]) -> Generator[Any]:
        try:
            while True:
                with self._tags():
                    try:
                        piece = next(stream)
                    except StopIteration:
                        return
                    except ValidationError as exc:
                        if _ends_an_empty_stream(exc):
                            return
                        raise
                yield self._stamped(piece)
        finally:
            close = getattr(stream, "close", None)  # some models stream by a plain iterator
            if close is not None:
                close()

    async def _apieces(self, stream: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        try:
            while True:
                with self._tags():
                    try:
                        piece = await anext(stream)
                    except StopAsyncIteration:
                        return
                    except ValidationError as exc:
                        if _ends_an_empty_stream(exc):
                            return
                        raise
                yield self._stamped(piece)
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()


def routed(find: Callable[..., Ask]) -> Callable[[M], M]:
    """Turn a declared method into one that decides and then calls the method of the same name on the chosen model.

    The declaration provides the name, the signature and the docstring. A name with "stream" in it means an answer in
    pieces, ``async def`` a coroutine.

    Args:
        find: Finds what a call asks; called with the arguments of the method.
    """

    def routed(declared: M) -> M:
        name, signature = declared.__name__, inspect.signature(declared)
        # LlamaIndex's spans have no self among their arguments
        bind = signature.replace(parameters=list(signature.parameters.values())[1:]).bind
        method: Callable[..., Any]
        if inspect.iscoroutinefunction(declared):

            async def method(self: RouteLLM, *args: Any, **kwargs: Any) -> Any:
                with RoutingSpan(f"{type(self).__name__}.{name}", bind(*args, **kwargs)) as span:
                    call = await self._adecided(name, find(self, *args, **kwargs), span)
                    span.result = await (_astreamed if "stream" in name else _aanswered)(call)
                    return span.result
        else:

            def method(self: RouteLLM, *args: Any, **kwargs: Any) -> Any:
                with RoutingSpan(f"{type(self).__name__}.{name}", bind(*args, **kwargs)) as span:
                    call = self._decided(name, find(self, *args, **kwargs), span)
                    span.result = (_streamed if "stream" in name else _answered)(call)
                    return span.result

        routed_method: Any = wraps(declared)(method)
        setattr(routed_method, DISPATCHER_SPAN_DECORATED_ATTR, True)  # or LlamaIndex would add a span of its own
        return cast(M, routed_method)

    return routed


def _both(first: Callable[..., None] | None, second: Callable[..., None] | None) -> Callable[..., None] | None:
    if first is None or second is None:
        return first or second

    def both(*args: Any) -> None:
        first(*args)
        second(*args)

    return both


def _ends_an_empty_stream(error: ValidationError) -> bool:
    """Whether LlamaIndex failed to report the end of a stream of completions that held nothing.

    Its event has to have a last piece, and so an empty stream ends with an error about that event.
    """
    return error.title == LLMCompletionEndEvent.__name__


def _keep(pieces: list[Any], piece: Any) -> None:
    """Keep the pieces of a stream for the log: every text, but only the last of answers that grow."""
    if not isinstance(piece, str):
        pieces.clear()
    pieces.append(piece)


def _answered(call: Call) -> Any:
    try:
        answer = call.route.run(call.answer)
    except BaseException as exc:
        call.failed(exc)
        raise
    call.ended(answer)
    return answer


async def _aanswered(call: Call) -> Any:
    try:
        answer = await call.route.arun(call.aanswer)
    except BaseException as exc:
        call.failed(exc)
        raise
    call.ended(answer)
    return answer


def _streamed(call: Call) -> Any:
    try:
        source = call.route.attempt(call.open)
    except BaseException as exc:
        call.failed(exc)
        raise
    return call.watched(call.route.stream(call.open, is_empty, source))


async def _astreamed(call: Call) -> Any:
    try:
        source = await call.route.aattempt(call.aopen)
    except BaseException as exc:
        call.failed(exc)
        raise
    return call.awatched(call.route.astream(call.aopen, is_empty, source))


def with_tools(model: LLM) -> FunctionCallingLLM:
    if not isinstance(model, FunctionCallingLLM):
        name = SideMetadata(model).name
        raise ValueError(f"{type(model).__name__} ({name}) does not support calling tools")
    return model
