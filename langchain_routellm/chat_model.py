"""ChatRouteLLM: a chat model that sends each call to a strong or a weak chat model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.runnables.utils import get_unique_config_specs
from pydantic import PrivateAttr

from langchain_routellm import batches
from langchain_routellm.answers import KEY
from langchain_routellm.dispatch import CONFIG_SPECS, Dispatch, RunSettings
from langchain_routellm.options import ChatModelOptions, RoutedFields, logger, option_fields
from langchain_routellm.readers import ChatReader
from langchain_routellm.runnable import RouteLLMRunnable
from langchain_routellm.sides import (
    chat_model_of,
    checked_chat_side,
    generating,
    model_name_of,
    options_taken,
    profile_of,
    provider_of,
    replaced_model,
    shown_tools,
    structured_output_need,
    with_fields,
    with_tools,
)
from langchain_routellm.switching import reads_cache_markers
from langchain_routellm.usage import used_tokens
from routellm_core import RoutingDecision
from routellm_core.errors import ConfigurationError
from routellm_core.policy.capability import TOOL_CALLING
from routellm_core.policy.route import Route
from routellm_core.policy.tiers import with_inner

# fields of every chat model that hold for the side that answers, when they are set on the wrapper
_PASSED_ON = frozenset({"disable_streaming", "output_version", "rate_limiter"})


class ChatRouteLLM(RoutedFields, BaseChatModel):
    """A chat model that sends each call to a strong or a weak chat model.

    A router predicts P(the strong model's answer beats the weak model's | prompt); the call goes to the strong model
    when that is at least the threshold. The chosen model runs as itself, once, with its own cache, retries and
    callbacks; the answer carries the decision in ``response_metadata["routellm"]`` (see `routing_decision`), and on a
    stream the first chunk does. It can be used wherever a chat model can: chains, agents, structured output, batches
    (one router call for the whole batch).

    A call that the weak model's profile says it cannot serve (images, tools, structured output, too long a prompt)
    goes to the strong one without asking the router. When a conversation moves to another model, what that model would
    refuse (thinking, signatures, ids, blocks of another provider's tools) is left out. One call can be steered through
    its config::

        llm.invoke(prompt, config={"configurable": {"routellm_threshold": 0.5}})
        llm.invoke(prompt, config={"configurable": {"routellm_force": "strong"}})

    Args:
        strong: The expensive chat model, or its name for `init_chat_model`, such as ``"openai:gpt-4.1"``.
        weak: The cheap one, likewise.
        **options: How it routes, see `RoutingOptions`: ``strong_fraction=0.3`` or ``threshold=0.6``, ``router=``,
            ``calibration=``, ``policy=``, ``failover=``, ``lookback=``, ``route_on=`` (a function of the messages),
            ``sticky=`` and more. Also fields of any chat model (``callbacks``, ``tags``, ``metadata``,
            ``disable_streaming``, ``output_version``, ``rate_limiter``, ...): they hold for whichever side answers.
            Arguments of a provider (``temperature``, ``api_key``, ...) belong on the two models; here they have no
            effect, and a warning says so.

    Raises:
        ConfigurationError: An option is unknown or not allowed, or ``cache`` is given: a cache belongs on the two
            models.
        MissingExtraError: A model is given by name and ``langchain`` is not installed.
    """

    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]

    # what the bound tools ask of a model, for the capability guard
    _needs: tuple[str, ...] = PrivateAttr(default=())
    # of a copy with tools bound: the sides as they were, so that binding again starts from them
    _unbound: tuple[Any, Any] | None = PrivateAttr(default=None)
    # warnings that this model or a copy of it has logged already
    _warned: set[str] = PrivateAttr(default_factory=set)
    # of a copy with tools bound: arguments that its binding shows; both sides have them, each in its own form
    _shown: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(
        self,
        *,
        strong: BaseChatModel | Runnable[Any, Any] | str,
        weak: BaseChatModel | Runnable[Any, Any] | str,
        **options: Unpack[ChatModelOptions],
    ) -> None:
        given: dict[str, Any] = dict(options)
        # checked here and not in validators: pydantic would wrap the error and bury the remedy
        if given.get("cache") is not None:
            raise ConfigurationError(
                f"cache={given['cache']!r:.80}: the router keeps no answers; set cache= on the strong and the weak "
                "model, where it is looked up as usual"
            )
        sides: dict[str, Any] = {"strong": checked_chat_side(strong, "strong"), "weak": checked_chat_side(weak, "weak")}
        fields, routing = option_fields(type(self), given, is_chat_model=True)
        super().__init__(**sides, **fields)
        self.__dict__["_routing"] = routing
        self._check_levels()

    # --- what it is ---

    @property
    def _llm_type(self) -> str:
        return "routellm-chat"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        policy = self.policy
        return {
            "strong": model_name_of(self.strong),
            "weak": model_name_of(self.weak),
            "router": policy.router.name,
            "threshold": policy.threshold,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        name = kwargs.get("model")
        if not isinstance(name, str):
            name = f"{model_name_of(self.strong)}|{model_name_of(self.weak)}"
        # summarization and other middleware compare it with the provider that an answer names
        provider = provider_of(self.strong)
        provider = provider if provider and provider == provider_of(self.weak) else "routellm"
        params = LangSmithParams(ls_provider=provider, ls_model_type="chat", ls_model_name=name)
        if stop:
            params["ls_stop"] = stop
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        """What both models can do; an ability that either model lacks or does not state is left out."""
        strong, weak = profile_of(self.strong), profile_of(self.weak)
        if not strong or not weak:
            return None
        common: dict[str, Any] = {}
        for key in strong.keys() & weak.keys():
            a, b = strong[key], weak[key]
            if isinstance(a, bool) and isinstance(b, bool):
                common[key] = a and b
            elif isinstance(a, int) and isinstance(b, int):
                common[key] = min(a, b)
            elif a == b:
                common[key] = a
        return cast(ModelProfile, common)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True: with models that serialize and options that are plain numbers and names, it round-trips."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """The module path by which `load` imports the class."""
        return ["langchain_routellm", "chat_model"]

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Options that hold state serialize as they were set; conversations and failures stay here."""
        return self._serialized_options()

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """Per-call settings: the router's own, and those of both models."""
        return get_unique_config_specs([*CONFIG_SPECS, *self.strong.config_specs, *self.weak.config_specs])

    # --- routing ---

    def _new_dispatch(self) -> Dispatch:
        strong, weak = self._with_passed_on(self.strong), self._with_passed_on(self.weak)
        # LangChain puts its versions on every chat model, for traces of model runs; the chosen model brings its own
        metadata = {name: value for name, value in (self.metadata or {}).items() if name != "lc_versions"}
        run_settings = RunSettings(self.name or "ChatRouteLLM", cast("Any", self.callbacks), self.tags, metadata)
        return Dispatch(strong, weak, self._routing, self._reader(self._needs), run_settings, self._shown)

    def _with_passed_on(self, side: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """A side with the fields that were set on this wrapper and hold for whichever side answers."""
        passed_on = {name: getattr(self, name) for name in _PASSED_ON if self._differs(name)}
        return cast("Runnable[Any, Any]", with_fields(side, passed_on)) if passed_on else side

    def _differs(self, field: str) -> bool:
        """Whether a field differs from its default; frameworks rebuild their models with every field passed."""
        return bool(getattr(self, field) != type(self).model_fields[field].get_default(call_default_factory=True))

    def _reader(self, needs: tuple[str, ...]) -> ChatReader:
        return ChatReader(self._routing, self.strong, self.weak, needs)

    def _arguments(self, kwargs: dict[str, Any], stop: Any = None) -> dict[str, Any]:
        """The arguments of a call for its side, which has the bound tools already."""
        shown = self._dispatch.shown
        if shown:
            kwargs = {k: v for k, v in kwargs.items() if k not in shown or shown[k] != v}
        return kwargs if stop is None else {"stop": stop, **kwargs}

    # --- calls ---

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        """Route one call; the answer is the chosen model's, with the decision in its response metadata."""
        answer: AIMessage = self._dispatch.run(input, config, self._arguments(kwargs, stop))
        return answer

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        """Async twin of `invoke`."""
        answer: AIMessage = await self._dispatch.arun(input, config, self._arguments(kwargs, stop))
        return answer

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Route one call and stream the chosen model; the first chunk carries the decision."""
        return self._dispatch.stream(input, config, self._arguments(kwargs, stop))

    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Async twin of `stream`."""
        return self._dispatch.astream(input, config, self._arguments(kwargs, stop))

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Route a batch with one call of the router; order and exceptions are handled as for any chat model."""
        arguments = self._arguments(kwargs)
        return batches.batch(self._dispatch, list(inputs), config, arguments, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Async twin of `batch`."""
        arguments = self._arguments(kwargs)
        return await batches.abatch(
            self._dispatch, list(inputs), config, arguments, return_exceptions=return_exceptions
        )

    def batch_as_completed(  # the base spells it as two overloads
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Route a batch with one call of the router and yield (index, answer) as they come."""
        yield from batches.batch_as_completed(
            self._dispatch, inputs, config, self._arguments(kwargs), return_exceptions=return_exceptions
        )

    async def abatch_as_completed(  # the base spells it as two overloads
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""
        async for item in batches.abatch_as_completed(
            self._dispatch, inputs, config, self._arguments(kwargs), return_exceptions=return_exceptions
        ):
            yield item

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Route each list of messages to the chosen model's own `generate`."""
        dispatch = self._dispatch
        configs = _generate_configs(len(messages), callbacks, tags, metadata, run_name, run_id)
        plan = dispatch.plan(messages, configs, kwargs, keep_errors=False)

        arguments = self._arguments(kwargs, stop)

        return _joined(
            [
                dispatch.run(m, config, arguments, planned, _generate)
                for m, config, planned in zip(messages, configs, plan, strict=True)
            ]
        )

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Async twin of `generate`; the lists run at the same time, as for any chat model."""
        dispatch = self._dispatch
        configs = _generate_configs(len(messages), callbacks, tags, metadata, run_name, run_id)
        plan = await dispatch.aplan(messages, configs, kwargs, keep_errors=False)

        arguments = self._arguments(kwargs, stop)

        return _joined(
            await asyncio.gather(
                *(
                    dispatch.arun(m, config, arguments, planned, _agenerate)
                    for m, config, planned in zip(messages, configs, plan, strict=True)
                )
            )
        )

    # --- typed event streams (stream_events and astream_events with version="v3") ---

    def _chat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> ChatModelStream:
        """The chosen model's own typed stream; its ``message-finish`` event and message carry the decision."""
        arguments = self._arguments(kwargs, stop)
        stream = ChatModelStream()
        events = self._dispatch.stream(
            input,
            config,
            arguments,
            _events_of,
            lambda _: stream.output_message,
        )

        def pump() -> bool:
            try:
                event = next(events, None)
            except BaseException as exc:
                stream.fail(exc)  # raised to the consumer by the stream
                return False
            if event is None:
                return False
            stream.dispatch(event)
            if event.get("event") == "message-finish":
                # once the message is complete nobody calls pump again, and the run has to end
                for event in events:
                    stream.dispatch(event)
            return True

        stream.bind_pump(pump)
        return stream

    async def _achat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AsyncChatModelStream:
        """Async twin of `_chat_model_stream_v3`."""
        arguments = self._arguments(kwargs, stop)
        stream = AsyncChatModelStream()
        events = self._dispatch.astream(
            input,
            config,
            arguments,
            _aevents_of,
            lambda _: stream.output_message,
        )

        async def produce() -> None:
            try:
                async for event in events:
                    stream.dispatch(event)
            except asyncio.CancelledError as exc:
                stream.fail(exc)
                raise
            except BaseException as exc:
                stream.fail(exc)

        async def start() -> None:
            if stream._producer_task is None:
                stream._producer_task = asyncio.get_running_loop().create_task(produce())

        stream.set_start(start)
        return stream

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        # every public method goes to a side; running one from in here would open a second model run
        raise NotImplementedError("ChatRouteLLM has no generation of its own: call invoke, stream, batch or generate")

    # --- tools and structured output ---

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: Any = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools to both models, each by its own `bind_tools`; every call is still routed.

        The binding shows the tools and their options in its ``kwargs``, as that of any chat model, for agents that
        look there.

        Args:
            tools: Tools in any form that both models take.
            tool_choice: Which tool to call, in any form that both models take.
            parallel_tool_calls: Whether one answer may call several tools. Models of Ollama and Google are called
                without this option, which their APIs refuse.
            strict: Whether arguments must match the schema of their tool; likewise.
            **kwargs: Passed on to the `bind_tools` of both models.

        Raises:
            ConfigurationError: One of the models cannot take these tools; the message says which.
        """
        self._warn_of_missing_cache_markers(kwargs)
        options = {"parallel_tool_calls": parallel_tool_calls, "strict": strict}
        options = {name: value for name, value in options.items() if value is not None}
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice

        def bound(model: Any) -> Any:
            return with_tools(model, tools, {**kwargs, **options_taken(model, options)})

        strong, weak = self._unbound or (self.strong, self.weak)
        copy = self.model_copy(
            update={
                "strong": _changed(strong, "strong", "bind tools", bound),
                "weak": _changed(weak, "weak", "bind tools", bound),
            }
        )
        copy._unbound = (strong, weak)
        copy._needs = (TOOL_CALLING,) if tools else ()
        copy._shown = {"tools": shown_tools(tools), **kwargs, **options}
        return RunnableBinding(bound=copy, kwargs=copy._shown, config={})

    def _warn_of_missing_cache_markers(self, arguments: Mapping[str, Any]) -> None:
        """Say once that an agent's middleware marks nothing for Anthropic's prompt cache on this model.

        It asks for an instance of their client, which a routed model is not.
        """
        if "cache_markers" in self._warned or "cache_control" in arguments:
            return
        in_agent = "langgraph_node" in (ensure_config().get("metadata") or {})
        if in_agent and reads_cache_markers(self.strong) and reads_cache_markers(self.weak):
            self._warned.add("cache_markers")
            logger.warning(
                "both sides are Anthropic's, and AnthropicPromptCachingMiddleware knows no ChatRouteLLM: nothing is "
                "marked for their prompt cache; give the agent one of the two models and a RouteLLMMiddleware"
            )

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> RouteLLMRunnable:
        """Both models' own structured output, routed per call; all their arguments (``method=``, ...) pass through.

        With ``include_raw=True`` the raw message carries the decision.

        Raises:
            ConfigurationError: One of the models cannot give this output; the message says which.
        """

        def structured(model: Any) -> Any:
            return model.with_structured_output(schema, include_raw=include_raw, **kwargs)

        strong, weak = (self._with_passed_on(side) for side in self._unbound or (self.strong, self.weak))
        weak = _changed(weak, "weak", "give structured output", structured)
        return RouteLLMRunnable._of_chat_model(
            self,
            strong=_changed(strong, "strong", "give structured output", structured),
            weak=weak,
            reader=self._reader(structured_output_need(weak)),
        )

    # --- tokens ---

    def get_token_ids(self, text: str) -> list[int]:
        """Tokens by the strong model's tokenizer."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return cast("list[int]", chat_model_of(self.strong).get_token_ids(text))

    def get_num_tokens(self, text: str) -> int:
        """Number of tokens by the strong model's tokenizer."""
        if self.custom_get_token_ids is not None:
            return len(self.custom_get_token_ids(text))
        return cast("int", chat_model_of(self.strong).get_num_tokens(text))

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Number of tokens of messages by the strong model's tokenizer."""
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(messages, tools)
        arguments = {} if tools is None else {"tools": tools}
        return cast("int", chat_model_of(self.strong).get_num_tokens_from_messages(messages, **arguments))


def _generate(side: Any, value: Any, config: RunnableConfig | None, arguments: Mapping[str, Any]) -> Any:
    return generating(side).invoke(value, config, **arguments)


def _agenerate(side: Any, value: Any, config: RunnableConfig | None, arguments: Mapping[str, Any]) -> Awaitable[Any]:
    return generating(side).ainvoke(value, config, **arguments)


def _events_of(
    side: Any, value: Any, config: RunnableConfig | None, arguments: Mapping[str, Any], route: Route[Any]
) -> Iterator[Any]:
    finish = None
    for event in side.stream_events(value, config, version="v3", **arguments):
        if route.cost is not None and event.get("event") == "message-finish":
            finish = event  # the cost is known only once the model has ended
        else:
            yield _with_decision(event, route.decision)
    if finish is not None:
        yield _with_decision(finish, route.priced())


async def _aevents_of(
    side: Any, value: Any, config: RunnableConfig | None, arguments: Mapping[str, Any], route: Route[Any]
) -> AsyncIterator[Any]:
    finish = None
    # closed at the end: the model's stream is a separate task, which would keep running
    async with await side.astream_events(value, config, version="v3", **arguments) as stream:
        async for event in stream:
            if route.cost is not None and event.get("event") == "message-finish":
                finish = event
            else:
                yield _with_decision(event, route.decision)
    if finish is not None:
        yield _with_decision(finish, route.priced())


def _with_decision(event: Any, decision: RoutingDecision) -> Any:
    if event.get("event") != "message-finish":
        return event
    metadata = event.get("metadata") or {}
    return {**event, "metadata": {**metadata, KEY: with_inner(decision, metadata.get(KEY)).to_dict()}}


def _changed(side: Any, name: str, what: str, change: Callable[[Any], Any]) -> Runnable[Any, Any]:
    try:
        return cast("Runnable[Any, Any]", replaced_model(side, change))
    except NotImplementedError as exc:
        exc.add_note(f"the {name} model, {model_name_of(side)}, cannot {what}")
        raise
    except Exception as exc:
        raise ConfigurationError(
            f"the {name} model, {model_name_of(side)}, cannot {what} ({type(exc).__name__}: {exc}); give both models "
            "something that each of them takes"
        ) from exc


def _generate_configs(
    count: int, callbacks: Any, tags: Any, metadata: Any, run_name: str | None, run_id: Any
) -> list[RunnableConfig]:
    given = {"callbacks": callbacks, "tags": tags, "metadata": metadata, "run_name": run_name}
    config = cast("RunnableConfig", {key: value for key, value in given.items() if value is not None})
    configs = [ensure_config(config) for _ in range(count)]
    if run_id is not None and configs:
        configs[0]["run_id"] = run_id  # ids are unique: as for any chat model, the first run gets it
    return configs


def _joined(results: Sequence[LLMResult]) -> LLMResult:
    if len(results) == 1:
        return results[0]
    runs = [run for result in results for run in result.run or ()]
    usage = _joined_usage(results) if results else {}
    return LLMResult(
        generations=[answers for result in results for answers in result.generations],
        llm_output={"token_usage": usage} if usage else {},
        run=runs or None,
    )


def _joined_usage(results: Sequence[LLMResult]) -> dict[str, int]:
    """Total tokens of all results, under the keys that older chains read; empty if a model reported none.

    Each model has its own form of ``llm_output``, so the usage on the messages is what can be added up.
    """
    used = [used_tokens(result) for result in results]
    if any(read is None and written is None for read, written in used):
        return {}
    read, written = (sum(tokens or 0 for tokens in column) for column in zip(*used, strict=True))
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
