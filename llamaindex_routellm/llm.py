"""RouteLLM: two LlamaIndex models as one, each call answered by the strong or the weak one."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

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
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import Model, TokenAsyncGen, TokenGen
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags
from llama_index_instrumentation.span import active_span_id
from pydantic import Field, PrivateAttr, SerializeAsAny, field_serializer

from llamaindex_routellm.events import DECISION_KEY, RouteLLMDecisionEvent
from llamaindex_routellm.question import Retrieval, retrieval_of_messages, retrieval_of_prompt, watch_engines
from llamaindex_routellm.routing import CallOptions, RouteOn, Routing
from routellm_core import Stickiness
from routellm_core.calibration import Calibration
from routellm_core.checks import Side, other_side
from routellm_core.errors import ConfigurationError, PromptError
from routellm_core.policy import RoutingPolicy, RoutingRequest
from routellm_core.policy.capability import (
    AUDIO_INPUTS,
    IMAGE_INPUTS,
    MAX_INPUT_TOKENS,
    PDF_INPUTS,
    STRUCTURED_OUTPUT,
    TOOL_CALLING,
    VIDEO_INPUTS,
    capability_gap,
    estimated_tokens,
)
from routellm_core.policy.decision import RoutingDecision
from routellm_core.policy.failover import is_survivable
from routellm_core.routers.base import Router

if TYPE_CHECKING:
    from llama_index.core.program.utils import FlexibleModel
    from llama_index.core.tools.types import BaseTool

dispatcher = get_dispatcher(__name__)

T = TypeVar("T")
_BLOCK_NEEDS = {
    ImageBlock: IMAGE_INPUTS,
    AudioBlock: AUDIO_INPUTS,
    VideoBlock: VIDEO_INPUTS,
    DocumentBlock: PDF_INPUTS,
}
_ARGUMENT_NEEDS = {"tools": TOOL_CALLING, "response_format": STRUCTURED_OUTPUT}
_PROFILE_KEYS = (*_BLOCK_NEEDS.values(), TOOL_CALLING, STRUCTURED_OUTPUT, MAX_INPUT_TOKENS)
_USER_INFO = re.compile(r"://[^/@\s]+@")
_SECRET = ("key", "token", "secret", "password", "credential", "auth", "header", "cookie")


@dataclass(frozen=True, slots=True)
class _Ask:
    """What one call is routed on."""

    options: CallOptions
    messages: Sequence[ChatMessage]
    retrieval: Retrieval | None
    needs: tuple[str, ...] = ()


class _Call:
    """One call on its way: its decision, which is told exactly once, when it is final."""

    def __init__(self, decision: RoutingDecision, may_fail_over: bool) -> None:
        self.may_fail_over = may_fail_over
        self._span_id = active_span_id.get()
        self._told = False
        self._decide(decision)

    def _decide(self, decision: RoutingDecision) -> None:
        self.decision = decision
        self._stamp = decision.to_dict()  # once, not for every streamed piece

    def tell(self) -> None:
        if not self._told:
            self._told = True
            dispatcher.event(RouteLLMDecisionEvent(decision=self._stamp.copy(), span_id=self._span_id))

    def answered(self) -> None:
        """The chosen model has begun to answer: from here on nothing changes the decision."""
        self.may_fail_over = False
        self.tell()

    def fail(self, exc: BaseException) -> None:
        """Turn to the other side, or raise `exc` again."""
        survives = self.may_fail_over and is_survivable(exc)
        if survives:
            side = self.decision.model
            self._decide(replace(self.decision, model=other_side(side), failover=side, detail=type(exc).__name__))
        self.answered()
        if not survives:
            raise exc

    def running(self) -> AbstractContextManager[None]:
        """Around the chosen model: every event that it emits carries the decision among its tags."""
        return instrument_tags({**active_instrument_tags.get(), DECISION_KEY: self._stamp})

    def stamped(self, answer: T) -> T:
        """The answer with the decision on it, as a copy: the model may hold on to its own."""
        if isinstance(answer, ChatResponse | CompletionResponse):
            stamped = {**answer.additional_kwargs, DECISION_KEY: self._stamp.copy()}
            return cast(T, answer.model_copy(update={"additional_kwargs": stamped}))
        return answer


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
        policy: A ready `RoutingPolicy`; or one is made of the next four.
        router: A router or its name; None is the bundled one.
        calibration: Distribution of the router's win rates on prompts like yours.
        threshold: Win rate in [0, 1] from which a call goes to the strong model.
        strong_fraction: Wanted share of strong calls, in place of `threshold`.
        failover: When the chosen model fails before its first token with an error that another model could survive,
            the other one answers, and the decision says so.
        lookback: How many of the last things that the person said count; the hardest decides.
        route_on: What to route on instead: called with the messages (in a query engine: the question as a message)
            and, if it takes a second argument, with the `Retrieval`; returns a text or a `RoutingRequest`.
        sticky: Keep a conversation strong once it was: True, or a `Stickiness`.
        weak_profile: What the weak model can do beyond its metadata, by the keys of `routellm_core.policy.capability`,
            such as ``{"image_inputs": True}``.
        callback_manager: Handed on to the models that have no handlers of their own; else `Settings` gives its.

    Raises:
        ConfigurationError: A value is not allowed; the message names it and the fix.
    """

    strong: SerializeAsAny[LLM] = Field(frozen=True, description="The strong (expensive) model.")
    weak: SerializeAsAny[LLM] = Field(frozen=True, description="The weak (cheap) model.")
    failover: bool = Field(frozen=True, description="Whether the other model answers when the chosen one fails.")

    _routing: Routing = PrivateAttr()
    _weak_profile: dict[str, Any] = PrivateAttr()
    _handed_on: dict[Side, CallbackManager] = PrivateAttr(default_factory=dict)

    def __init__(
        self,
        *,
        strong: LLM,
        weak: LLM,
        policy: RoutingPolicy | None = None,
        router: Router | str | None = None,
        calibration: Calibration | None = None,
        threshold: float | None = None,
        strong_fraction: float | None = None,
        failover: bool = False,
        lookback: int = 1,
        route_on: RouteOn | None = None,
        sticky: bool | str | Stickiness | None = None,
        weak_profile: Mapping[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        for name, model in (("strong", strong), ("weak", weak)):
            if not isinstance(model, LLM):
                raise ConfigurationError(
                    f"{name}={model!r:.80}: expected a LlamaIndex LLM, such as OpenAI(model=...) of "
                    "llama_index.llms.openai"
                )
        if not isinstance(failover, bool):
            raise ConfigurationError(f"failover={failover!r:.80}: expected True or False")
        if weak_profile is not None and not (
            isinstance(weak_profile, Mapping) and set(weak_profile) <= {*_PROFILE_KEYS}
        ):
            raise ConfigurationError(
                f"weak_profile={weak_profile!r:.80}: expected a mapping such as {{'image_inputs': True}}, with keys "
                f"among {', '.join(_PROFILE_KEYS)}"
            )
        routing = Routing(
            policy=policy,
            router=router,
            calibration=calibration,
            threshold=threshold,
            strong_fraction=strong_fraction,
            lookback=lookback,
            route_on=route_on,
            sticky=sticky,
        )
        super().__init__(
            strong=strong,
            weak=weak,
            failover=failover,
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
        self._weak_profile = dict(weak_profile or {})
        watch_engines()

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
        """What holds whichever model answers: the smaller window, and abilities that both have."""
        strong, weak = self.strong.metadata, self.weak.metadata
        return LLMMetadata(
            context_window=min(strong.context_window, weak.context_window),
            num_output=min(strong.num_output, weak.num_output),
            is_chat_model=strong.is_chat_model and weak.is_chat_model,
            is_function_calling_model=strong.is_function_calling_model and weak.is_function_calling_model,
            model_name=f"RouteLLM(strong={strong.model_name}, weak={weak.model_name})",
            system_role=strong.system_role if strong.system_role == weak.system_role else MessageRole.SYSTEM,
        )

    @field_serializer("strong", "weak")
    def _without_secrets(self, model: LLM) -> dict[str, Any]:
        public: dict[str, Any] = _public(model.to_dict())
        return public

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Both models and the routing as a dict, without keys, headers and other secrets of the models."""
        routing = {
            "router": self.policy.router.name,
            "threshold": self.policy.threshold,
            "strong_fraction": self.policy.strong_fraction,
            "lookback": self._routing.lookback,
        }
        return {**super().to_dict(**kwargs), **routing}

    # -- chat and complete --

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation; routed on what the person said last."""
        return self._run(self._of_messages(messages, kwargs), lambda llm: llm.chat(messages, **kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like `chat`, without blocking the event loop."""
        return await self._arun(self._of_messages(messages, kwargs), lambda llm: llm.achat(messages, **kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Like `chat`, piece by piece; every piece carries the decision."""
        return self._stream(self._of_messages(messages, kwargs), lambda llm: llm.stream_chat(messages, **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Like `stream_chat`, without blocking the event loop."""
        ask = self._of_messages(messages, kwargs)
        return await self._astream(ask, lambda llm: llm.astream_chat(messages, **kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt; routed on the prompt."""
        ask = self._of_text(prompt, kwargs)
        return self._run(ask, lambda llm: llm.complete(prompt, formatted=formatted, **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Like `complete`, without blocking the event loop."""
        ask = self._of_text(prompt, kwargs)
        return await self._arun(ask, lambda llm: llm.acomplete(prompt, formatted=formatted, **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Like `complete`, piece by piece; every piece carries the decision."""
        ask = self._of_text(prompt, kwargs)
        return self._stream(ask, lambda llm: llm.stream_complete(prompt, formatted=formatted, **kwargs))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Like `stream_complete`, without blocking the event loop."""
        ask = self._of_text(prompt, kwargs)
        return await self._astream(ask, lambda llm: llm.astream_complete(prompt, formatted=formatted, **kwargs))

    # -- tools: a provider's own form of them can be made only once the model is chosen --

    def chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer a conversation, or call tools; routed as `chat`."""
        ask = self._of_tools(user_msg, chat_history, kwargs)
        return self._run(
            ask, lambda llm: _with_tools(llm).chat_with_tools(tools, user_msg, chat_history, *args, **kwargs)
        )

    async def achat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponse:
        """Like `chat_with_tools`, without blocking the event loop."""
        ask = self._of_tools(user_msg, chat_history, kwargs)
        return await self._arun(
            ask, lambda llm: _with_tools(llm).achat_with_tools(tools, user_msg, chat_history, *args, **kwargs)
        )

    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Like `chat_with_tools`, piece by piece; every piece carries the decision."""
        ask = self._of_tools(user_msg, chat_history, kwargs)
        return self._stream(
            ask, lambda llm: _with_tools(llm).stream_chat_with_tools(tools, user_msg, chat_history, *args, **kwargs)
        )

    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Like `stream_chat_with_tools`, without blocking the event loop."""
        ask = self._of_tools(user_msg, chat_history, kwargs)
        return await self._astream(
            ask, lambda llm: _with_tools(llm).astream_chat_with_tools(tools, user_msg, chat_history, *args, **kwargs)
        )

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
        if type(self.strong) is not type(self.weak):
            raise NotImplementedError(
                f"{type(self.strong).__name__} and {type(self.weak).__name__} take tools in different forms, so they "
                "cannot be prepared before one of them is chosen: use chat_with_tools"
            )
        return _with_tools(self.strong)._prepare_chat_with_tools(tools, *args, **kwargs)

    # -- prompt templates: query engines come in by these, with the question among the arguments --

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in a prompt and answer it; routed on the question that it is filled with."""
        return self._run(self._of_prompt(prompt, prompt_args), lambda llm: llm.predict(prompt, **prompt_args))

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Like `predict`, without blocking the event loop."""
        return await self._arun(self._of_prompt(prompt, prompt_args), lambda llm: llm.apredict(prompt, **prompt_args))

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Like `predict`, piece by piece."""
        return self._stream(self._of_prompt(prompt, prompt_args), lambda llm: llm.stream(prompt, **prompt_args))

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Like `stream`, without blocking the event loop."""
        ask = self._of_prompt(prompt, prompt_args)
        return await self._astream(ask, lambda llm: llm.astream(prompt, **prompt_args))

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Like `predict`, as an object of `output_cls`, in the chosen model's own way of structured output."""
        llm_kwargs = dict(llm_kwargs or {})
        ask = self._of_prompt(prompt, prompt_args, llm_kwargs)
        answer: Model = self._run(
            ask, lambda llm: llm.structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        )
        return answer

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Like `structured_predict`, without blocking the event loop."""
        llm_kwargs = dict(llm_kwargs or {})
        ask = self._of_prompt(prompt, prompt_args, llm_kwargs)
        return await self._arun(ask, lambda llm: llm.astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args))

    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """Like `structured_predict`, as objects that fill up."""
        llm_kwargs = dict(llm_kwargs or {})
        ask = self._of_prompt(prompt, prompt_args, llm_kwargs)
        return self._stream(
            ask, lambda llm: llm.stream_structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        )

    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        """Like `stream_structured_predict`, without blocking the event loop."""
        llm_kwargs = dict(llm_kwargs or {})
        ask = self._of_prompt(prompt, prompt_args, llm_kwargs)
        return await self._astream(
            ask, lambda llm: llm.astream_structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        )

    # -- what a call is routed on --

    def _of_messages(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], needs: tuple[str, ...] = ()
    ) -> _Ask:
        if isinstance(messages, str) or not isinstance(messages, Sequence):
            raise PromptError(f"messages is {type(messages).__name__}: expected a sequence of ChatMessage")
        kinds = {type(m).__name__ for m in messages if not isinstance(m, ChatMessage)}
        if kinds:
            what = f"a {type(messages).__name__} of {', '.join(sorted(kinds))}"
            raise PromptError(f"messages is {what}: expected a sequence of ChatMessage")
        if not messages:
            raise PromptError("messages is empty: give at least one ChatMessage")
        options = self._routing.options(kwargs)
        needs += tuple(need for name, need in _ARGUMENT_NEEDS.items() if kwargs.get(name))
        return _Ask(options, messages, retrieval_of_messages(messages), needs)

    def _of_text(self, prompt: str, kwargs: dict[str, Any]) -> _Ask:
        if not isinstance(prompt, str):
            raise PromptError(f"prompt is {type(prompt).__name__}, expected str")
        messages = [ChatMessage(role=MessageRole.USER, content=prompt)]
        return _Ask(self._routing.options(kwargs), messages, retrieval_of_messages(messages))

    def _of_tools(
        self, user_msg: str | ChatMessage | None, chat_history: list[ChatMessage] | None, kwargs: dict[str, Any]
    ) -> _Ask:
        messages = list(chat_history or ())
        if user_msg is not None:
            given = user_msg if isinstance(user_msg, ChatMessage) else ChatMessage(role="user", content=user_msg)
            messages.append(given)
        return self._of_messages(messages, kwargs, (TOOL_CALLING,))

    def _of_prompt(
        self, prompt: BasePromptTemplate, prompt_args: dict[str, Any], llm_kwargs: dict[str, Any] | None = None
    ) -> _Ask:
        options = self._routing.options(prompt_args, llm_kwargs)
        messages = prompt.format_messages(llm=self, **prompt_args)
        retrieval = retrieval_of_prompt(prompt, prompt_args) or retrieval_of_messages(messages)
        return _Ask(options, messages, retrieval, () if llm_kwargs is None else (STRUCTURED_OUTPUT,))

    def _gap(self, ask: _Ask) -> str | None:
        """What the weak model lacks for this call, if anything is known to be lacking."""
        strong, weak = (_profile(model.metadata) for model in (self.strong, self.weak))
        weak = {**dict.fromkeys(_BLOCK_NEEDS.values(), False), **weak, **self._weak_profile}
        blocks = [block for message in ask.messages for block in _flat(message.blocks)]
        needs = [
            *ask.needs,
            *(need for block in blocks for kind, need in _BLOCK_NEEDS.items() if isinstance(block, kind)),
        ]
        return capability_gap(needs, weak, strong, lambda: sum(estimated_tokens(m.content or "") for m in ask.messages))

    def _model(self, side: Side) -> LLM:
        model = self.strong if side == "strong" else self.weak
        # Settings and query engines set the manager of the LLM that they hold, which is this one; a manager with
        # handlers that the model did not get from here is the user's choice for that model
        ours, its = self.callback_manager, model.callback_manager
        if its is not ours and (its is self._handed_on.get(side) or (ours.handlers and not its.handlers)):
            model.callback_manager = self._handed_on[side] = ours
        return model

    # -- decide, then run --

    def _called(self, decision: RoutingDecision) -> _Call:
        # a call that the weak model cannot serve has nowhere to go
        call = _Call(decision, self.failover and decision.reason != "capability")
        if not call.may_fail_over:
            call.tell()
        return call

    def _request(self, ask: _Ask) -> RoutingRequest:
        gap = self._gap(ask) if ask.options.force is None else None
        return self._routing.request(ask.messages, ask.retrieval, ask.options, gap)

    def _decide(self, ask: _Ask) -> _Call:
        return self._called(self._routing.decide(self._request(ask), ask.options))

    async def _adecide(self, ask: _Ask) -> _Call:
        return self._called(await self._routing.adecide(self._request(ask), ask.options))

    def _answer(self, call: _Call, run: Callable[[LLM], T]) -> T:
        """Start the chosen model, or on a failure that it survives the other one."""
        try:
            with call.running():
                return run(self._model(call.decision.model))
        except BaseException as exc:
            call.fail(exc)
        return self._answer(call, run)

    async def _aanswer(self, call: _Call, run: Callable[[LLM], Awaitable[T]]) -> T:
        try:
            with call.running():
                return await run(self._model(call.decision.model))
        except BaseException as exc:
            call.fail(exc)
        return await self._aanswer(call, run)

    def _run(self, ask: _Ask, run: Callable[[LLM], T]) -> T:
        call = self._decide(ask)
        answer = self._answer(call, run)
        call.answered()
        return call.stamped(answer)

    async def _arun(self, ask: _Ask, run: Callable[[LLM], Awaitable[T]]) -> T:
        call = await self._adecide(ask)
        answer = await self._aanswer(call, run)
        call.answered()
        return call.stamped(answer)

    def _stream(self, ask: _Ask, run: Callable[[LLM], Generator[T, None, None]]) -> Generator[T, None, None]:
        call = self._decide(ask)
        # started here and not at the first piece, so that the model's span lies within this one
        return self._relay(call, self._answer(call, run), run)

    async def _astream(
        self, ask: _Ask, run: Callable[[LLM], Awaitable[AsyncGenerator[T, None]]]
    ) -> AsyncGenerator[T, None]:
        call = await self._adecide(ask)
        return self._arelay(call, await self._aanswer(call, run), run)

    def _relay(
        self, call: _Call, stream: Generator[T, None, None], run: Callable[[LLM], Generator[T, None, None]]
    ) -> Generator[T, None, None]:
        held: list[T] = []  # pieces without a token, kept back while the other model may still step in
        try:
            while True:
                try:
                    with call.running():
                        piece = next(stream)
                except StopIteration:
                    break
                except BaseException as exc:
                    call.fail(exc)
                    held.clear()
                    stream = self._answer(call, run)
                    continue
                if call.may_fail_over and _is_empty(piece):
                    held.append(piece)
                    continue
                call.answered()
                held.append(piece)
                yield from map(call.stamped, held)
                held.clear()
            call.answered()
            yield from map(call.stamped, held)
        finally:
            if isinstance(stream, Generator):  # some models stream by another kind of iterator
                stream.close()

    async def _arelay(
        self,
        call: _Call,
        stream: AsyncGenerator[T, None],
        run: Callable[[LLM], Awaitable[AsyncGenerator[T, None]]],
    ) -> AsyncGenerator[T, None]:
        held: list[T] = []
        try:
            while True:
                try:
                    with call.running():
                        piece = await anext(stream)
                except StopAsyncIteration:
                    break
                except BaseException as exc:
                    call.fail(exc)
                    held.clear()
                    stream = await self._aanswer(call, run)
                    continue
                if call.may_fail_over and _is_empty(piece):
                    held.append(piece)
                    continue
                call.answered()
                held.append(piece)
                for ready in held:
                    yield call.stamped(ready)
                held.clear()
            call.answered()
            for ready in held:
                yield call.stamped(ready)
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()


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
        raise ValueError(f"{type(model).__name__} ({model.metadata.model_name}) does not support calling tools")
    return model


def _profile(metadata: LLMMetadata) -> dict[str, Any]:
    profile: dict[str, Any] = {TOOL_CALLING: metadata.is_function_calling_model}
    # the window holds prompt and answer; some models state -1 where they do not know either
    room = metadata.context_window - max(metadata.num_output, 0)
    if room > 0:
        profile[MAX_INPUT_TOKENS] = room
    return profile


def _is_empty(piece: Any) -> bool:
    """Whether a streamed piece holds nothing that a caller could have used."""
    if isinstance(piece, ChatResponse):
        blocks = piece.message.blocks
        text_only = all(isinstance(block, TextBlock) and not block.text for block in blocks)
        return text_only and not piece.delta and not piece.message.additional_kwargs.get("tool_calls")
    if isinstance(piece, CompletionResponse):
        return not piece.text and not piece.delta
    return isinstance(piece, str) and not piece


def _public(value: Any) -> Any:
    """A serialized model without its secrets, at any depth."""
    if isinstance(value, Mapping):
        return {
            name: _public(item)
            for name, item in value.items()
            if not any(word in str(name).lower() for word in _SECRET) or isinstance(item, bool | int | float)
        }
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    return _USER_INFO.sub("://", value) if isinstance(value, str) else value
