"""RouteLLM: two LlamaIndex models as one, each call answered by the strong or the weak one."""

# mypy: disable-error-code="empty-body"
# The methods that @_routed replaces are declared without a body.

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast

from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    DocumentBlock,
    ImageBlock,
    LLMMetadata,
    MessageRole,
    TextBlock,
    VideoBlock,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import Model, TokenAsyncGen, TokenGen
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import (
    DISPATCHER_SPAN_DECORATED_ATTR,
    active_instrument_tags,
    instrument_tags,
)
from pydantic import (
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
)

from llamaindex_routellm.events import DECISION_KEY, RouteLLMDecisionEvent
from llamaindex_routellm.question import (
    Retrieval,
    call_settings,
    mapped_once,
    retrieval_of_messages,
    retrieval_of_prompt,
    routed_on,
)
from llamaindex_routellm.side import (
    SideMetadata,
    count_tokens,
    has_own_handlers,
    joint_metadata,
    profile,
    under_manager,
)
from llamaindex_routellm.state import described_model, described_routing, restored, why_not_pickled
from llamaindex_routellm.tracing import RoutingSpan, Stamp, watch_models
from llamaindex_routellm.watch import show_decision, watch
from routellm_core.checks import Side
from routellm_core.errors import ConfigurationError, PromptError
from routellm_core.policy import RoutingPolicy
from routellm_core.policy.capability import (
    AUDIO_INPUTS,
    IMAGE_INPUTS,
    MAX_INPUT_TOKENS,
    PDF_INPUTS,
    STRUCTURED_OUTPUT,
    TOOL_CALLING,
    VIDEO_INPUTS,
)
from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.options import RoutingOptions
from routellm_core.policy.route import Route
from routellm_core.policy.routing import CallSettings, Decided, Routing

if TYPE_CHECKING:
    from llamaindex_routellm.recording import CallRecord

dispatcher = get_dispatcher(__name__)
# here, too: an unpickled model is made by no constructor
watch()
watch_models()

T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Any])

_BLOCK_NEEDS = {
    ImageBlock: IMAGE_INPUTS,
    AudioBlock: AUDIO_INPUTS,
    VideoBlock: VIDEO_INPUTS,
    DocumentBlock: PDF_INPUTS,
}
# why an answer ended, as the providers' clients name it
_FINISH_REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "finishReason", "status", "done")
_ARGUMENT_NEEDS = {"tools": TOOL_CALLING, "response_format": STRUCTURED_OUTPUT}


@dataclass(frozen=True, slots=True)
class _Ask:
    """One call as it came in.

    Attributes:
        settings: What holds for this call alone.
        messages: What the model is to read.
        retrieval: The question of a query engine that asks, if one does.
        needs: Profile keys of what the call needs beyond reading its messages.
        args: Positional arguments for the chosen model.
        kwargs: Keyword arguments for the chosen model.
    """

    settings: CallSettings
    messages: Sequence[ChatMessage]
    retrieval: Retrieval | None
    needs: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Call:
    """One decided call: how its chosen model is run, and how its decision shows on everything that comes of it."""

    __slots__ = ("_ask", "_llm", "_method", "_record", "_span_id", "_stamp", "route")

    def __init__(
        self,
        llm: RouteLLM,
        method: str,
        ask: _Ask,
        request: RoutingRequest,
        decision: RoutingDecision,
        span: RoutingSpan,
    ) -> None:
        self._llm = llm
        self._method = method
        self._ask = ask
        self._stamp = Stamp({})
        self._span_id = span.id
        self._record = self._recorded(decision, request, span)
        # an object that is filled in may well be empty
        is_broken = _is_never_broken if "structured" in method else _is_broken
        self.route: Route[Any] = llm._routing.route(request, decision, is_broken=is_broken, on_settled=self._tell)

    def _tell(self, decision: RoutingDecision) -> None:
        told = decision.to_dict()
        dispatcher.event(RouteLLMDecisionEvent(decision=told, span_id=self._span_id))
        retrieval = self._ask.retrieval
        show_decision(told, None if retrieval is None else retrieval.question)

    def _run(self, side: Side) -> Any:
        """Call the method on the model of `side`, within tags that put the decision on each of its events."""
        # once, not for every streamed piece
        self._stamp = Stamp(self.route.decision.to_dict(), self._spent(side), self._begun if self._record else None)
        model = self._llm._model(side)
        method = getattr(_with_tools(model) if self._method.endswith("with_tools") else model, self._method)
        with self._tags():
            return method(*self._ask.args, **self._ask.kwargs)

    def _spent(self, side: Side) -> Callable[[int | None, int | None], None] | None:
        """Who wants to know what the model of `side` uses: limits, and the log."""
        record, on_usage = self._record, self.route.on_usage
        to_limits = None if on_usage is None else partial(on_usage, side)
        if record is None or to_limits is None:
            return to_limits if record is None else record.spent

        def spent(read: int | None, written: int | None) -> None:
            record.spent(read, written)
            to_limits(read, written)

        return spent

    # what the log is to know

    def _recorded(self, decision: RoutingDecision, request: RoutingRequest, span: RoutingSpan) -> CallRecord | None:
        routing = self._llm._routing
        recording = routing.recording(Decided(decision, request, self._ask.settings))
        if recording is None:
            return None
        from llamaindex_routellm.recording import CallRecord, aask, ask, hide_shadows, whole

        is_async = inspect.iscoroutinefunction(getattr(type(self._llm), self._method))
        method = whole(self._method)
        # as they are now: a caller may add to a list of messages before the other side reads it
        args = [list(value) if isinstance(value, list) else value for value in self._ask.args]
        kwargs = {name: list(v) if isinstance(v, list) else v for name, v in self._ask.kwargs.items()}

        def of_side(side: Side) -> Any:
            hide_shadows()
            model = self._llm.strong if side == "strong" else self._llm.weak
            return (aask if is_async else ask)(model, self._llm._metadata[side].name, method, args, kwargs)

        return CallRecord(recording, span.id, span.parent, of_side, is_async=is_async)

    def _begun(self, span_id: str | None) -> None:
        if self._record is not None:
            self._record.model_span = span_id

    def ended(self, output: Any) -> None:
        """Log the answer."""
        if self._record is not None:
            side = self.route.decision.model
            name = self._llm._metadata[side].name
            self._record.answered(self._llm._model(side), name, output, self.route.decision)

    def failed(self, error: BaseException) -> None:
        """Log the error that ended the call."""
        if self._record is not None:
            self._record.failed(error, self.route.decision)

    def watched(self, stream: Generator[Any]) -> Generator[Any]:
        """A stream of answers that is logged when it ends."""
        return stream if self._record is None else self._watched(stream)

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

    def awatched(self, stream: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
        """Async twin of `watched`."""
        return stream if self._record is None else self._awatched(stream)

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

    def _tags(self) -> Any:
        return instrument_tags({**active_instrument_tags.get(), DECISION_KEY: self._stamp})

    def _stamped(self, answer: T) -> T:
        """The answer with the decision on it, as a copy: the model may hold on to its own."""
        if isinstance(answer, ChatResponse | CompletionResponse):
            stamped = {**answer.additional_kwargs, DECISION_KEY: self._stamp.copy()}
            return cast(T, answer.model_copy(update={"additional_kwargs": stamped}))
        return answer

    # what the route calls: one answer or a stream of pieces, of one side

    def answer(self, side: Side) -> Any:
        return self._stamped(self._run(side))

    async def aanswer(self, side: Side) -> Any:
        running = self._run(side)
        with self._tags():
            return self._stamped(await running)

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
                yield self._stamped(piece)
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()


def _routed(find: Callable[..., _Ask]) -> Callable[[M], M]:
    """Make a declared method one that decides, then calls the method of this name on the chosen model.

    What is declared gives the name, the signature and the docstring. The name and the kind say how it answers: with
    "stream" in the name by pieces, with ``async def`` as a coroutine.

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
        setattr(routed_method, DISPATCHER_SPAN_DECORATED_ATTR, True)  # it has its span
        return cast(M, routed_method)

    return routed


def _keep(pieces: list[Any], piece: Any) -> None:
    """Keep the pieces of a stream for the log: of texts each, of what grows only the last."""
    if not isinstance(piece, str):
        pieces.clear()
    pieces.append(piece)


def _answered(call: _Call) -> Any:
    try:
        answer = call.route.run(call.answer)
    except BaseException as exc:
        call.failed(exc)
        raise
    call.ended(answer)
    return answer


async def _aanswered(call: _Call) -> Any:
    try:
        answer = await call.route.arun(call.aanswer)
    except BaseException as exc:
        call.failed(exc)
        raise
    call.ended(answer)
    return answer


def _streamed(call: _Call) -> Any:
    try:
        source = call.route.attempt(call.open)
    except BaseException as exc:
        call.failed(exc)
        raise
    return call.watched(call.route.stream(call.open, _is_empty, source))


async def _astreamed(call: _Call) -> Any:
    try:
        source = await call.route.aattempt(call.aopen)
    except BaseException as exc:
        call.failed(exc)
        raise
    return call.awatched(call.route.astream(call.aopen, _is_empty, source))


# -- what a call asks, one function for each family of methods --


def _asked_in_messages(llm: RouteLLM, messages: Sequence[ChatMessage], **kwargs: Any) -> _Ask:
    settings = call_settings(llm._routing, kwargs)
    _check_messages(messages)
    needs = tuple(need for name, need in _ARGUMENT_NEEDS.items() if kwargs.get(name))
    return _Ask(settings, messages, retrieval_of_messages(messages), needs, (messages,), kwargs)


def _asked_in_text(llm: RouteLLM, prompt: str, formatted: bool = False, **kwargs: Any) -> _Ask:
    settings = call_settings(llm._routing, kwargs)
    if not isinstance(prompt, str):
        raise PromptError(f"prompt is {type(prompt).__name__}, expected str")
    messages = [ChatMessage(role=MessageRole.USER, content=prompt)]
    kwargs["formatted"] = formatted
    return _Ask(settings, messages, retrieval_of_messages(messages), (), (prompt,), kwargs)


def _asked_with_tools(
    llm: RouteLLM,
    tools: Sequence[BaseTool],
    user_msg: str | ChatMessage | None = None,
    chat_history: list[ChatMessage] | None = None,
    *args: Any,
    **kwargs: Any,
) -> _Ask:
    settings = call_settings(llm._routing, kwargs)
    messages = list(chat_history or ())
    if user_msg is not None:
        given = user_msg if isinstance(user_msg, ChatMessage) else ChatMessage(role=MessageRole.USER, content=user_msg)
        messages.append(given)
    _check_messages(messages)
    # as the caller gave them: a model's own method need not know every argument that LlamaIndex has added since
    args = (tools, user_msg, chat_history, *args)
    return _Ask(settings, messages, retrieval_of_messages(messages), (TOOL_CALLING,), args, kwargs)


def _asked_in_prompt(llm: RouteLLM, prompt: BasePromptTemplate, **prompt_args: Any) -> _Ask:
    settings = call_settings(llm._routing, prompt_args)
    prompt = mapped_once(prompt)
    messages = prompt.format_messages(llm=llm, **prompt_args)
    retrieval = retrieval_of_prompt(prompt, prompt_args) or retrieval_of_messages(messages)
    return _Ask(settings, messages, retrieval, (), (prompt,), prompt_args)


def _asked_for_object(
    llm: RouteLLM,
    output_cls: type[Model],
    prompt: PromptTemplate,
    llm_kwargs: dict[str, Any] | None = None,
    **prompt_args: Any,
) -> _Ask:
    llm_kwargs = dict(llm_kwargs or {})
    settings = call_settings(llm._routing, prompt_args, llm_kwargs)
    prompt = mapped_once(prompt)
    messages = prompt.format_messages(llm=llm, **prompt_args)
    retrieval = retrieval_of_prompt(prompt, prompt_args) or retrieval_of_messages(messages)
    args = (output_cls, prompt, llm_kwargs)
    return _Ask(settings, messages, retrieval, (STRUCTURED_OUTPUT,), args, prompt_args)


def _check_messages(messages: Any) -> None:
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise PromptError(f"messages is {type(messages).__name__}: expected a sequence of ChatMessage")
    kinds = {type(m).__name__ for m in messages if not isinstance(m, ChatMessage)}
    if kinds:
        what = f"a {type(messages).__name__} of {', '.join(sorted(kinds))}"
        raise PromptError(f"messages is {what}: expected a sequence of ChatMessage")
    if not messages:
        raise PromptError("messages is empty: give at least one ChatMessage")


class RouteLLM(FunctionCallingLLM):
    """A LlamaIndex LLM that sends each call to a strong or a weak model; put it wherever an LLM goes.

    The router predicts from the question whether the strong model's answer would beat the weak one's, and the call
    goes to the strong model when that win rate reaches the threshold. The question is what the person asked: the
    query of a query engine (never the prompt with the retrieved context), the last user message of a chat, the task of
    an agent, through all of its steps.

    The chosen model runs once and as itself: its own events, callbacks, retries, templates and system prompt. Errors
    of the model are raised as they are; a failing router is handled by the policy's ``on_error``. The decision stands
    in ``additional_kwargs["routellm"]`` of every `ChatResponse` and `CompletionResponse` (also of each streamed one),
    in the tags of every event that the chosen model emits, and in one `RouteLLMDecisionEvent` per call.

    For one call: ``llm.chat(messages, routellm_threshold=0.5)`` or ``routellm_force="strong"``, and
    ``routellm_thread_id`` for `sticky`; around engines and agents, which pass no such arguments on, LlamaIndex's
    ``instrument_tags({"routellm_force": "strong", "thread_id": "42"})``.

    Images, audio, video, documents, tools or a prompt beyond its context window go to the strong model when the weak
    one lacks them (``reason="capability"``). Whether it does is read from its ``metadata``, which says nothing of
    media, so these count as lacking unless `weak_profile` says otherwise: a router judges text, not pictures.

    Args:
        strong: The strong (expensive) model.
        weak: The weak (cheap) model.
        callback_manager: Handed on to the models that have no handlers of their own; else `Settings` gives its.
        **options: What decides, on what, and what may follow: `routellm_core.policy.RoutingOptions` describes each. A
            ``route_on`` function is called with the messages (in a query engine: the question as a message) and, if it
            takes a second argument, with the `Retrieval`.

    Raises:
        ConfigurationError: An option does not exist or has a value that is not allowed.
    """

    strong: SerializeAsAny[LLM] = Field(frozen=True, description="The strong (expensive) model.")
    weak: SerializeAsAny[LLM] = Field(frozen=True, description="The weak (cheap) model.")

    _routing: Routing = PrivateAttr()
    _metadata: dict[Side, SideMetadata] = PrivateAttr()

    def __init__(
        self,
        *,
        strong: LLM,
        weak: LLM,
        callback_manager: CallbackManager | None = None,
        **options: Unpack[RoutingOptions],
    ) -> None:
        for name, model in (("strong", strong), ("weak", weak)):
            if not isinstance(model, LLM):
                raise ConfigurationError(
                    f"{name}={model!r:.80}: expected a LlamaIndex LLM, such as OpenAI(model=...) of "
                    "llama_index.llms.openai"
                )
        of_the_models = sorted(set(options) & set(LLM.model_fields))
        if of_the_models:
            raise ConfigurationError(f"{', '.join(of_the_models)}=: belongs to the models; set it on strong and weak")
        routing = Routing.of(options, owner=type(self).__name__)
        super().__init__(
            strong=strong,
            weak=weak,
            callback_manager=callback_manager or CallbackManager([]),
            # programs ask the LLM that they are given for these two; they hold where both models agree
            system_prompt=strong.system_prompt if strong.system_prompt == weak.system_prompt else None,
            **(
                {"pydantic_program_mode": strong.pydantic_program_mode}
                if strong.pydantic_program_mode == weak.pydantic_program_mode
                else {}
            ),
        )
        self._routing = routing
        self._metadata = {"strong": SideMetadata(strong), "weak": SideMetadata(weak)}
        watch()
        watch_models()

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized form and in traces."""
        return "RouteLLM"

    def __repr__(self) -> str:
        # not pydantic's, which would spell out the keys of both models
        return f"RouteLLM(strong={type(self.strong).__name__}, weak={type(self.weak).__name__}, policy={self.policy!r})"

    __str__ = __repr__

    @property
    def policy(self) -> RoutingPolicy:
        """The policy that decides."""
        return self._routing.policy

    @property
    def metadata(self) -> LLMMetadata:
        """What holds whichever model answers: a prompt that fits both, and abilities that every call finds.

        A model that cannot say what it is, such as that of a local server that is down, counts as unknown. Where both
        are, the error is the strong model's.
        """
        joint = joint_metadata(self._metadata["strong"], self._metadata["weak"])
        return self.strong.metadata if joint is None else joint

    # -- state that outlives the process --

    @field_serializer("strong", "weak")
    def _without_secrets(self, model: LLM) -> dict[str, Any]:
        return described_model(model)

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Both models and the routing; in a component that holds this model, too, so that a cache tells two apart."""
        return {**handler(self), **described_routing(self._routing), "class_name": self.class_name()}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Build the model that `to_dict` described. Keys and headers come from the environment, as each client has it.

        Args:
            data: What `to_dict` gave.
            **kwargs: Arguments of the class in place of what the dict says or cannot hold: a model, a router of your
                own, `route_on`, `limits`, `online`, a `policy`.

        Raises:
            ConfigurationError: The dict cannot hold something that is not given; the message says what to pass.
        """
        return cls(**restored(data, kwargs, cls.__name__))

    def __getstate__(self) -> dict[str, Any]:
        before = dict(self.__dict__)
        try:
            state: dict[str, Any] = super().__getstate__()
            state["__dict__"] = dict(state["__dict__"])
        finally:
            # LlamaIndex drops what cannot be pickled, also from the model that is being pickled
            self.__dict__.update(before)
        for name in ("strong", "weak"):
            if name not in state["__dict__"]:
                raise ConfigurationError(f"{name}={type(before[name]).__name__} cannot be pickled")
        if "_routing" not in state["__pydantic_private__"]:
            raise ConfigurationError(why_not_pickled(self._routing))
        state["__dict__"].setdefault("callback_manager", CallbackManager([]))
        return state

    # -- every way into a model; what `_routed` is given finds the question --

    @_routed(_asked_in_messages)
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation; routed on what the person said last."""

    @_routed(_asked_in_messages)
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like `chat`, without blocking the event loop."""

    @_routed(_asked_in_messages)
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Like `chat`, piece by piece; every piece carries the decision."""

    @_routed(_asked_in_messages)
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Like `stream_chat`, without blocking the event loop."""

    @_routed(_asked_in_text)
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt; routed on the prompt."""

    @_routed(_asked_in_text)
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Like `complete`, without blocking the event loop."""

    @_routed(_asked_in_text)
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Like `complete`, piece by piece; every piece carries the decision."""

    @_routed(_asked_in_text)
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Like `stream_complete`, without blocking the event loop."""

    # a provider's own form of tools can be made only once the model is chosen

    @_routed(_asked_with_tools)
    def chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer a conversation, or call tools; routed as `chat`."""

    @_routed(_asked_with_tools)
    async def achat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Like `chat_with_tools`, without blocking the event loop."""

    @_routed(_asked_with_tools)
    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Like `chat_with_tools`, piece by piece; every piece carries the decision."""

    @_routed(_asked_with_tools)
    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Like `stream_chat_with_tools`, without blocking the event loop."""

    # query engines come in by these, with the question among the arguments

    @_routed(_asked_in_prompt)
    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in a prompt and answer it; routed on the question that it is filled with."""

    @_routed(_asked_in_prompt)
    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Like `predict`, without blocking the event loop."""

    @_routed(_asked_in_prompt)
    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Like `predict`, piece by piece."""

    @_routed(_asked_in_prompt)
    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Like `stream`, without blocking the event loop."""

    @_routed(_asked_for_object)
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Like `predict`, as an object of `output_cls`, in the chosen model's own way of structured output."""

    @_routed(_asked_for_object)
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Like `structured_predict`, without blocking the event loop."""

    @_routed(_asked_for_object)
    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """Like `structured_predict`, as objects that fill up."""

    @_routed(_asked_for_object)
    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        """Like `stream_structured_predict`, without blocking the event loop."""

    # -- tools, once a model has answered --

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Parse an answer's tool calls with the model that gave it."""
        decision = response.additional_kwargs.get(DECISION_KEY)
        if decision is not None:
            model = _with_tools(self._model(decision["model"]))
            return model.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call, **kwargs)
        # an answer that was taken apart and put together again: whoever can read it gave it
        models = [m for m in (self.strong, self.weak) if isinstance(m, FunctionCallingLLM)]
        for model in models[:-1]:
            calls = model.get_tool_calls_from_response(response, error_on_no_tool_call=False, **kwargs)
            if calls:
                return calls
        return _with_tools(models[-1] if models else self.weak).get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def _prepare_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Keyword arguments for `chat`, when both models are of one provider and so take the same ones."""
        strong, weak = _with_tools(self.strong), _with_tools(self.weak)
        forms = {type(model)._prepare_chat_with_tools for model in (strong, weak)}
        if len(forms) > 1 and not (isinstance(strong, type(weak)) or isinstance(weak, type(strong))):
            raise NotImplementedError(
                f"{type(strong).__name__} and {type(weak).__name__} take tools in different forms, so they cannot be "
                "prepared before one of them is chosen: use chat_with_tools"
            )
        return strong._prepare_chat_with_tools(tools, *args, **kwargs)

    # -- deciding a call --

    def _decided(self, method: str, ask: _Ask, span: RoutingSpan) -> _Call:
        request = self._request(ask)
        return _Call(self, method, ask, request, self._routing.decide(request, ask.settings), span)

    async def _adecided(self, method: str, ask: _Ask, span: RoutingSpan) -> _Call:
        request = self._request(ask)
        return _Call(self, method, ask, request, await self._routing.adecide(request, ask.settings), span)

    def _request(self, ask: _Ask) -> RoutingRequest:
        return self._routing.request(
            ask.settings,
            gap=lambda: self._gap(ask),
            texts=lambda: routed_on(self._routing, ask.messages, ask.retrieval),
        )

    def _gap(self, ask: _Ask) -> str | None:
        """What the weak model lacks for this call, if anything is known to be lacking."""
        # metadata says nothing of media, and a router judges text, not pictures
        weak = {**dict.fromkeys(_BLOCK_NEEDS.values(), False), **profile(self._metadata["weak"]())}
        blocks = [block for message in ask.messages for block in _flat(message.blocks)]
        needs = [
            *ask.needs,
            *(need for block in blocks for kind, need in _BLOCK_NEEDS.items() if isinstance(block, kind)),
        ]
        limit = {**weak, **self._routing.weak_profile}.get(MAX_INPUT_TOKENS)
        if not needs and (limit is None or count_tokens(ask.messages, limit) <= limit):
            return None  # and so the strong model need not be asked what it is
        strong = profile(self._metadata["strong"]())
        return self._routing.gap(needs, weak, strong, lambda: count_tokens(ask.messages, limit or 0))

    def _model(self, side: Side) -> LLM:
        """The model of a side, as a call finds it: under the callback manager of this one, unless it has its own."""
        model = self.strong if side == "strong" else self.weak
        return model if has_own_handlers(model) else under_manager(model, self.callback_manager)


# pydantic's would list the fields of LlamaIndex's base class, which belong to the models
RouteLLM.__signature__ = inspect.signature(RouteLLM.__init__.__get__(object()))


def _flat(blocks: Sequence[Any]) -> Iterator[Any]:
    """Content blocks, and those inside of them: a document to cite from may hold images."""
    for block in blocks:
        yield block
        inner = getattr(block, "content", None) or getattr(block, "cited_content", None)
        if isinstance(inner, list):
            yield from _flat(inner)
        elif inner is not None and not isinstance(inner, str):
            yield inner


def _with_tools(model: LLM) -> FunctionCallingLLM:
    if not isinstance(model, FunctionCallingLLM):
        name = SideMetadata(model).name
        raise ValueError(f"{type(model).__name__} ({name}) does not support calling tools")
    return model


def _is_empty(piece: Any) -> bool:
    """Whether a streamed piece holds nothing that a caller could have used."""
    if isinstance(piece, ChatResponse):
        blocks = piece.message.blocks
        text_only = all(isinstance(block, TextBlock) and not block.text for block in blocks)
        return text_only and not piece.delta and not piece.message.additional_kwargs.get("tool_calls")
    if isinstance(piece, CompletionResponse):
        return not piece.text and not piece.delta
    return isinstance(piece, str) and not piece


def _is_broken(answer: Any) -> bool:
    """Whether an answer, or a piece of a stream, has no content, no tool call and no finish reason; None: no piece."""
    if not isinstance(answer, ChatResponse | CompletionResponse):
        return answer is None
    return _is_empty(answer) and not any(
        _finish(holder) for holder in (answer.raw, answer.additional_kwargs, getattr(answer, "message", None))
    )


def _is_never_broken(answer: Any) -> bool:
    return False


def _finish(holder: Any) -> Any:
    """Why an answer ended, wherever its provider's own form of it says so; else None."""
    if holder is None or isinstance(holder, str):
        return None
    fields = holder if isinstance(holder, Mapping) else getattr(holder, "__dict__", {})
    inner = [fields.get(name) for name in ("additional_kwargs", "response", "choices", "candidates")]
    reasons = [fields.get(name) for name in _FINISH_REASONS]
    return next(filter(None, reasons), None) or next(
        filter(None, (_finish(item) for value in inner for item in (value if isinstance(value, list) else [value]))),
        None,
    )
