"""RouteLLM: two LlamaIndex models as one, each call answered by the strong or the weak one."""

# mypy: disable-error-code="empty-body"
# The methods that @routed replaces are declared without a body.

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, Unpack

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import Model, TokenAsyncGen, TokenGen
from pydantic import (
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
)

from llamaindex_routellm.asks import (
    MEDIA_INPUTS,
    Ask,
    asked_for_object,
    asked_in_messages,
    asked_in_prompt,
    asked_in_text,
    asked_with_tools,
    media_needs,
)
from llamaindex_routellm.calls import Call, routed, with_tools
from llamaindex_routellm.events import DECISION_KEY
from llamaindex_routellm.question import routed_on
from llamaindex_routellm.side import (
    SideMetadata,
    count_tokens,
    has_own_handlers,
    joint_metadata,
    profile,
    under_manager,
)
from llamaindex_routellm.state import Levels, described_model, described_routing, restored, why_not_pickled
from llamaindex_routellm.tracing import RoutingSpan, watch_models
from llamaindex_routellm.watch import watch
from routellm_core.checks import Side
from routellm_core.errors import ConfigurationError
from routellm_core.policy import RoutingPolicy
from routellm_core.policy.capability import MAX_INPUT_TOKENS
from routellm_core.policy.decision import RoutingRequest
from routellm_core.policy.options import RoutingOptions
from routellm_core.policy.routing import Routing
from routellm_core.policy.tiers import abilities_of_either, tier

# here as well as in the constructor, which unpickling does not call
watch()
watch_models()


class RouteLLM(FunctionCallingLLM):
    """A LlamaIndex LLM that sends each call to a strong or a weak model; use it wherever an LLM goes.

    The router predicts from the question whether the strong model's answer would beat the weak one's, and the call
    goes to the strong model when that win rate reaches the threshold. The question is what the person asked: the
    query of a query engine (never the prompt with the retrieved context), the last user message of a chat, the task of
    an agent, through all of its steps.

    The chosen model runs once and as itself: its own events, callbacks, retries, templates and system prompt. Errors
    of the model are raised as they are; a failing router is handled by the policy's ``on_error``. The decision is
    in ``additional_kwargs["routellm"]`` of every `ChatResponse` and `CompletionResponse` (also of each streamed one),
    in the tags of every event that the chosen model emits, and in one `RouteLLMDecisionEvent` per call.

    For one call: ``llm.chat(messages, routellm_threshold=0.5)`` or ``routellm_force="strong"``, and
    ``routellm_thread_id`` for `sticky`; around engines and agents, which pass no such arguments on, LlamaIndex's
    ``instrument_tags({"routellm_force": "strong", "thread_id": "42"})``.

    Calls with images, audio, video, documents or tools, and prompts beyond its context window, go to the strong model
    when the weak one cannot take them (``reason="capability"``). Its ``metadata`` says whether it can, except for
    media: these it is assumed not to take unless `weak_profile` says otherwise, since a router judges text alone.

    Args:
        strong: The strong (expensive) model.
        weak: The weak (cheap) model.
        callback_manager: Used by the models that have no handlers of their own; by default that of `Settings`.
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
    # the sides that are routed models, each as a level of this one
    _nested: Levels = PrivateAttr()

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
        below = [model._routing.limit_keys for model in (strong, weak) if isinstance(model, RouteLLM)]
        if below:
            routing = replace(routing, keys_below=frozenset().union(*below))
        super().__init__(
            strong=strong,
            weak=weak,
            callback_manager=callback_manager or CallbackManager([]),
            # programs read these two from their LLM; they apply if both models agree
            system_prompt=strong.system_prompt if strong.system_prompt == weak.system_prompt else None,
            **(
                {"pydantic_program_mode": strong.pydantic_program_mode}
                if strong.pydantic_program_mode == weak.pydantic_program_mode
                else {}
            ),
        )
        self._routing = routing
        self._metadata = {"strong": SideMetadata(strong), "weak": SideMetadata(weak)}
        self._nested = self._levels()
        for model in (strong, weak):  # while `Settings` has the handlers that the model may have from there
            has_own_handlers(model)
        watch()
        watch_models()

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized form and in traces."""
        return "RouteLLM"

    def __repr__(self) -> str:
        # pydantic's would show the keys of both models
        return f"RouteLLM(strong={type(self.strong).__name__}, weak={type(self.weak).__name__}, policy={self.policy!r})"

    __str__ = __repr__

    @property
    def policy(self) -> RoutingPolicy:
        """The policy that decides."""
        return self._routing.policy

    @property
    def metadata(self) -> LLMMetadata:
        """What holds whichever model answers: a window that fits both, and only abilities that every call can use.

        If one model's metadata is unknown, as for a local server that is down, this is the other's; if both are, the
        strong model's error is raised.
        """
        joint = joint_metadata(self._metadata["strong"], self._metadata["weak"])
        return self.strong.metadata if joint is None else joint

    # -- dicts and pickles --

    @field_serializer("strong", "weak")
    def _without_secrets(self, model: LLM) -> dict[str, Any]:
        return described_model(model)

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Serialize both models and the routing, also inside a component, so that caches can tell two models apart."""
        return {**handler(self), **described_routing(self._routing), "class_name": self.class_name()}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Build the model that `to_dict` described. Each client takes its keys and headers from the environment.

        Args:
            data: The result of `to_dict`.
            **kwargs: Arguments of the class that replace entries of the dict or that no dict can hold: a model, a
                router of your own, `route_on`, `limits`, `online`, `log`, `shadow`, a `policy`.

        Raises:
            ConfigurationError: Something that no dict can hold is missing; the message says what to pass.
        """
        return cls(**restored(data, kwargs, cls.__name__))

    def __getstate__(self) -> dict[str, Any]:
        before = dict(self.__dict__)
        try:
            state: dict[str, Any] = super().__getstate__()
            state["__dict__"] = dict(state["__dict__"])
        finally:
            # LlamaIndex drops what cannot be pickled from the model itself, too
            self.__dict__.update(before)
        for name in ("strong", "weak"):
            if name not in state["__dict__"]:
                raise ConfigurationError(f"{name}={type(before[name]).__name__} cannot be pickled")
        if "_routing" not in state["__pydantic_private__"]:
            raise ConfigurationError(why_not_pickled(self._routing))
        state["__dict__"].setdefault("callback_manager", CallbackManager([]))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._nested = self._levels()

    # -- every way into a model; the argument of `routed` finds the question --

    @routed(asked_in_messages)
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation; routed on what the person said last."""

    @routed(asked_in_messages)
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like `chat`, without blocking the event loop."""

    @routed(asked_in_messages)
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Like `chat`, piece by piece; every piece carries the decision."""

    @routed(asked_in_messages)
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Like `stream_chat`, without blocking the event loop."""

    @routed(asked_in_text)
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt; routed on the prompt."""

    @routed(asked_in_text)
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Like `complete`, without blocking the event loop."""

    @routed(asked_in_text)
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Like `complete`, piece by piece; every piece carries the decision."""

    @routed(asked_in_text)
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Like `stream_complete`, without blocking the event loop."""

    # tools can be put into a provider's form only once the model is chosen

    @routed(asked_with_tools)
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

    @routed(asked_with_tools)
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

    @routed(asked_with_tools)
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

    @routed(asked_with_tools)
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

    # query engines call these, with the question among the arguments

    @routed(asked_in_prompt)
    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in a prompt and answer it; routed on the question among its arguments."""

    @routed(asked_in_prompt)
    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Like `predict`, without blocking the event loop."""

    @routed(asked_in_prompt)
    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Like `predict`, piece by piece."""

    @routed(asked_in_prompt)
    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Like `stream`, without blocking the event loop."""

    @routed(asked_for_object)
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Like `predict`, as an object of `output_cls`, in the chosen model's own way of structured output."""

    @routed(asked_for_object)
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Like `structured_predict`, without blocking the event loop."""

    @routed(asked_for_object)
    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """Like `structured_predict`, as objects that fill up."""

    @routed(asked_for_object)
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
            side: Side = decision["model"]
            model = with_tools(self._model(side))
            if side in self._nested:  # which finds its own decision where the outermost one stands
                stated = {**response.additional_kwargs, DECISION_KEY: decision.get("inner")}
                response = response.model_copy(update={"additional_kwargs": stated})
            return model.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call, **kwargs)
        # an answer that was rebuilt without the decision: the model that can read its tool calls gave it
        models = [m for m in (self.strong, self.weak) if isinstance(m, FunctionCallingLLM)]
        for model in models[:-1]:
            calls = model.get_tool_calls_from_response(response, error_on_no_tool_call=False, **kwargs)
            if calls:
                return calls
        return with_tools(models[-1] if models else self.weak).get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def _prepare_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Keyword arguments for `chat`, if both models are of related classes and take tools in the same form."""
        strong, weak = with_tools(self.strong), with_tools(self.weak)
        forms = {type(model)._prepare_chat_with_tools for model in (strong, weak)}
        if len(forms) > 1 and not (isinstance(strong, type(weak)) or isinstance(weak, type(strong))):
            raise NotImplementedError(
                f"{type(strong).__name__} and {type(weak).__name__} take tools in different forms, so they cannot be "
                "prepared before one of them is chosen: use chat_with_tools"
            )
        return strong._prepare_chat_with_tools(tools, *args, **kwargs)

    # -- deciding a call --

    def _decided(self, method: str, ask: Ask, span: RoutingSpan) -> Call:
        routing = self._routing  # pydantic finds a private attribute slowly
        request = self._request(ask, routing)
        return Call(self, routing, method, ask, request, routing.decide(request, ask.settings), span)

    async def _adecided(self, method: str, ask: Ask, span: RoutingSpan) -> Call:
        routing = self._routing
        request = self._request(ask, routing)
        return Call(self, routing, method, ask, request, await routing.adecide(request, ask.settings), span)

    def _request(self, ask: Ask, routing: Routing) -> RoutingRequest:
        return routing.request(
            ask.settings,
            gap=lambda: self._gap(ask, routing),
            texts=lambda: routed_on(routing, ask.messages, ask.retrieval),
        )

    def _gap(self, ask: Ask, routing: Routing) -> str | None:
        """Name what the weak model is known to lack for this call, if anything."""
        # metadata says nothing of media, and a router judges text, not pictures
        weak = {**dict.fromkeys(MEDIA_INPUTS, False), **self._abilities("weak")}
        needs = [*ask.needs, *media_needs(ask.messages)]
        limit = {**weak, **routing.weak_profile}.get(MAX_INPUT_TOKENS)
        if not needs and (limit is None or count_tokens(ask.messages, limit) <= limit):
            return None  # without asking the strong model for its metadata
        strong = self._abilities("strong")
        return routing.gap(needs, weak, strong, lambda: count_tokens(ask.messages, limit or 0))

    def _model(self, side: Side) -> LLM:
        """The model of a side for one call: under this model's callback manager, unless it has handlers of its own."""
        model = self._side(side)
        return model if has_own_handlers(model) else under_manager(model, self.callback_manager)

    def _side(self, side: Side) -> LLM:
        return self._nested.get(side) or (self.strong if side == "strong" else self.weak)

    # -- sides that are routed models, and this model as a side --

    def _levels(self) -> Levels:
        sides: dict[Side, LLM] = {"strong": self.strong, "weak": self.weak}
        nested = {side: model for side, model in sides.items() if isinstance(model, RouteLLM)}
        return Levels({side: model._as_level(self._routing, side) for side, model in nested.items()})

    def _as_level(self, above: Routing, side: Side) -> RouteLLM:
        """A copy of this model that is a side of another one: see `policy.tiers`.

        Raises:
            ConfigurationError: The shares of both cannot hold together.
        """
        level = self.model_copy()
        level._routing = tier(above, side, self._routing)
        level._nested = level._levels()
        return level

    def _abilities(self, side: Side) -> dict[str, Any]:
        """What a side can do; of a routed model, which finds the one that can, what either of its sides can."""
        nested = self._nested.get(side)
        if nested is None:
            return profile(self._metadata[side]())
        weak = {**nested._abilities("weak"), **nested._routing.weak_profile}
        return abilities_of_either(nested._abilities("strong"), weak)

    def _name_of(self, side: Side, inner: Any) -> str:
        """Name of the model that answered on a side; `inner` is the decision of a side that is a routed model."""
        nested = self._nested.get(side)
        if nested is None or not isinstance(inner, Mapping):
            return self._metadata[side].name
        name: str = nested._name_of(inner["model"], inner.get("inner"))
        return name

    def _reader(self, side: Side) -> LLM:
        """What can read the tool calls of an answer of a side, which carries the decision of this model."""
        return self if side in self._nested else self._model(side)


# pydantic's would list the fields of LlamaIndex's base class, which belong to the models
RouteLLM.__signature__ = inspect.signature(RouteLLM.__init__.__get__(object()))
