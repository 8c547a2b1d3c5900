"""ChatRouteLLM: a chat model that sends each call to a strong or a weak chat model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.runnables.utils import get_unique_config_specs
from pydantic import PrivateAttr

from langchain_routellm.dispatch import CONFIG_SPECS, KEY, Dispatch, flat
from langchain_routellm.messages import as_messages, chat_needs, chat_texts, chat_tokens
from langchain_routellm.options import (
    RoutingOptions,
    bound_kwargs,
    chat_model_of,
    check_names,
    checked_chat_side,
    checked_options,
    model_name_of,
    profile_of,
    replaced_model,
    with_fields,
)
from langchain_routellm.switching import adapted
from routellm_core import RoutingDecision, RoutingPolicy
from routellm_core.checks import Side
from routellm_core.errors import ConfigurationError
from routellm_core.policy.capability import STRUCTURED_OUTPUT, TOOL_CALLING, capability_gap

if TYPE_CHECKING:
    from langchain_core.language_models.model_profile import ModelProfile

    from langchain_routellm.runnable import RouteLLMRunnable

# fields of every chat model that hold for the side that answers, when they are set on the wrapper
_PASSED_ON = frozenset({"disable_streaming", "output_version", "rate_limiter"})


class ChatRouteLLM(RoutingOptions, BaseChatModel):
    """A chat model that sends each call to a strong or a weak chat model.

    A router predicts P(the strong model's answer beats the weak model's | prompt); the call goes to the strong model
    when that is at least the threshold. The chosen model runs as itself, once, with its own cache, retries and
    callbacks; the answer carries the decision in ``response_metadata["routellm"]`` (see `routing_decision`), and on a
    stream the first chunk does. It stands wherever a chat model can: chains, agents, structured output, batches (one
    router call for the whole batch).

    A call that the weak model's profile says it cannot serve (images, tools, structured output, too long a prompt)
    goes to the strong one without asking the router. When a conversation moves to another provider's model, thinking
    blocks and signatures that it would refuse are left out. One call can be steered through its config::

        llm.invoke(prompt, config={"configurable": {"routellm_threshold": 0.5}})
        llm.invoke(prompt, config={"configurable": {"routellm_force": "strong"}})

    Args:
        strong: The expensive chat model, or its name for `init_chat_model`, such as ``"openai:gpt-4.1"``.
        weak: The cheap one, likewise.
        policy: A ready `RoutingPolicy`; then none of the next four.
        router: A router or its name; None is the bundled one.
        calibration: Distribution of the router's win rates on prompts like yours, for `strong_fraction`.
        threshold: Strong when win rate >= threshold; a number in [0, 1].
        strong_fraction: Wanted share of strong calls in [0, 1]. Give this or `threshold`.
        failover: When the chosen model fails before its first token with an error that the other could survive (a
            time-out, a rate limit, a server error; not a refused key or request), the other answers.
        lookback: How many human turns to look at; the hardest decides, so that "continue" is not an easy prompt.
        route_on: A function from the messages to the text, or texts, to route on.
        sticky: Keep a conversation strong once it was: True (by ``thread_id``), the name of another configurable
            key, or a `Stickiness`.
        **kwargs: Fields of any chat model (``callbacks``, ``tags``, ``metadata``, ``disable_streaming``,
            ``output_version``, ``rate_limiter``, ...): they hold for whichever side answers. Arguments of a
            provider (``temperature``, ``api_key``, ...) belong on the two models; here they have no effect.

    Raises:
        ConfigurationError: An option is not allowed, or ``cache`` is given: a cache belongs on the two models.
        MissingExtraError: A model is given by name and ``langchain`` is not installed.
    """

    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]

    # what the bound tools ask of a model, for the capability guard
    _needs: tuple[str, ...] = PrivateAttr(default=())
    # of a copy with tools bound: the sides as they were, so that binding again starts from them
    _unbound: tuple[Any, Any] | None = PrivateAttr(default=None)

    def __init__(
        self,
        *,
        strong: BaseChatModel | Runnable[Any, Any] | str,
        weak: BaseChatModel | Runnable[Any, Any] | str,
        policy: RoutingPolicy | None = None,
        router: Any = None,
        calibration: Any = None,
        threshold: float | None = None,
        strong_fraction: float | None = None,
        failover: bool = False,
        lookback: int = 1,
        route_on: Callable[[list[BaseMessage]], str | Sequence[str]] | None = None,
        sticky: Any = None,
        **kwargs: Any,
    ) -> None:
        check_names(kwargs, type(self).model_fields, strict=False)
        # checked here and not in validators: pydantic would wrap the error and bury the remedy
        if kwargs.get("cache") is not None:
            raise ConfigurationError(
                f"cache={kwargs['cache']!r:.80}: the router keeps no answers; set cache= on the strong and the weak "
                "model, where it is looked up as usual"
            )
        options = {
            "policy": policy,
            "router": router,
            "calibration": calibration,
            "threshold": threshold,
            "strong_fraction": strong_fraction,
            "failover": failover,
            "lookback": lookback,
            "route_on": route_on,
            "sticky": sticky,
        }
        sides: dict[str, Any] = {"strong": checked_chat_side(strong, "strong"), "weak": checked_chat_side(weak, "weak")}
        super().__init__(**sides, **checked_options(options), **kwargs)
        self._policy  # noqa: B018  # made now, so that a wrong option fails here

    # --- what it is ---

    @property
    def _llm_type(self) -> str:
        return "routellm-chat"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        policy = self.routing_policy
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
        params = LangSmithParams(ls_provider="routellm", ls_model_type="chat", ls_model_name=name)
        if stop:
            params["ls_stop"] = stop
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        """What both models can do: where either lacks something or says nothing, nothing is promised."""
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
        return cast("ModelProfile", common)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True: with models that serialize and options that are plain numbers and names, it round-trips."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where `load` finds the class."""
        return ["langchain_routellm", "chat_model"]

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Stickiness serializes as the name of its key; the conversations it holds stay here."""
        return {} if self.sticky is None else {"sticky": self.sticky.key}

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """Per-call settings: the router's own, and those of both models."""
        return get_unique_config_specs([*CONFIG_SPECS, *self.strong.config_specs, *self.weak.config_specs])

    # --- routing ---

    def _new_dispatch(self) -> Dispatch:
        strong, weak = self.strong, self.weak
        if not _PASSED_ON.isdisjoint(self.model_fields_set):
            passed_on = {name: getattr(self, name) for name in _PASSED_ON & self.model_fields_set}
            strong, weak = with_fields(strong, passed_on), with_fields(weak, passed_on)
        return Dispatch(
            self.name or "ChatRouteLLM",
            strong,
            weak,
            self._policy,
            self._texts,
            self._gap,
            self.failover,
            self.sticky,
            self._adapt,
            cast("Any", self.callbacks),
            self.tags,
            self.metadata,
        )

    def _texts(self, value: Any) -> tuple[str, ...]:
        return chat_texts(value, self.lookback, self.route_on)

    def _adapt(self, side: Side, value: Any) -> Any:
        ours, other = (self.strong, self.weak) if side == "strong" else (self.weak, self.strong)
        if isinstance(value, str) or type(chat_model_of(ours)) is type(chat_model_of(other)):
            return value
        messages = as_messages(value) or []
        fitting = adapted(messages, side, ours, other)
        return value if all(a is b for a, b in zip(messages, fitting, strict=True)) else fitting

    def _gap(self, value: Any, kwargs: Mapping[str, Any]) -> str | None:
        weak = profile_of(self.weak)
        if not weak:
            return None
        needs = [*self._needs, *chat_needs(value, {**bound_kwargs(self.weak), **kwargs})]
        return capability_gap(needs, weak, profile_of(self.strong), lambda: chat_tokens(value))

    # --- calls ---

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        """Route one call; the answer is the chosen model's, with the decision in its response metadata."""
        return cast("AIMessage", self._dispatch.invoke(input, config, _with_stop(stop, kwargs)))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AIMessage:
        """Async twin of `invoke`."""
        return cast("AIMessage", await self._dispatch.ainvoke(input, config, _with_stop(stop, kwargs)))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Route one call and stream the chosen model; the first chunk carries the decision."""
        yield from self._dispatch.stream(input, config, _with_stop(stop, kwargs))

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Async twin of `stream`."""
        async with aclosing(self._dispatch.astream(input, config, _with_stop(stop, kwargs))) as stream:
            async for chunk in stream:
                yield chunk

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Route a batch with one call of the router; order and exceptions are kept as usual."""
        return self._dispatch.batch(list(inputs), config, return_exceptions, kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Async twin of `batch`."""
        return await self._dispatch.abatch(list(inputs), config, return_exceptions, kwargs)

    def batch_as_completed(  # the base spells it as two overloads
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Route a batch with one call of the router and yield (index, answer) as they come."""
        yield from self._dispatch.batch_as_completed(inputs, config, return_exceptions, kwargs)

    async def abatch_as_completed(  # the base spells it as two overloads
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""
        async for item in self._dispatch.abatch_as_completed(inputs, config, return_exceptions, kwargs):
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
        plan = dispatch.plan(messages, configs, kwargs, False)

        def call(side: Any, item: list[BaseMessage], config: RunnableConfig) -> LLMResult:
            arguments = {**bound_kwargs(side), **kwargs}
            return cast(
                "LLMResult", chat_model_of(side).generate([item], stop, **_generate_arguments(config), **arguments)
            )

        return _joined(
            [
                dispatch.run(m, config, kwargs, call, planned)
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
        plan = await dispatch.aplan(messages, configs, kwargs, False)

        async def call(side: Any, item: list[BaseMessage], config: RunnableConfig) -> LLMResult:
            arguments = {**bound_kwargs(side), **kwargs}
            return cast(
                "LLMResult",
                await chat_model_of(side).agenerate([item], stop, **_generate_arguments(config), **arguments),
            )

        return _joined(
            await asyncio.gather(
                *(
                    dispatch.arun(m, config, kwargs, call, planned)
                    for m, config, planned in zip(messages, configs, plan, strict=True)
                )
            )
        )

    # --- typed event streams (stream_events and astream_events with version="v3") ---

    def _chat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> ChatModelStream:
        """The chosen model's own typed stream; its ``message-finish`` event and message carry the decision."""
        arguments = _with_stop(stop, kwargs)
        stream = ChatModelStream()
        events = self._dispatch.stream(
            input,
            config,
            arguments,
            lambda side, item, child, decision: _events_of(side, item, child, decision, arguments),
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
            return True

        stream.bind_pump(pump)
        return stream

    async def _achat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, stop: Any = None, **kwargs: Any
    ) -> AsyncChatModelStream:
        """Async twin of `_chat_model_stream_v3`."""
        arguments = _with_stop(stop, kwargs)
        stream = AsyncChatModelStream()
        events = self._dispatch.astream(
            input,
            config,
            arguments,
            lambda side, item, child, decision: _aevents_of(side, item, child, decision, arguments),
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
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools to both models, each by its own `bind_tools`; every call is still routed."""
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        strong, weak = self._unbound or (self.strong, self.weak)
        bound = self.model_copy(
            update={
                "strong": _changed(strong, "strong", "bind tools", lambda model: model.bind_tools(tools, **kwargs)),
                "weak": _changed(weak, "weak", "bind tools", lambda model: model.bind_tools(tools, **kwargs)),
            }
        )
        bound._unbound = (strong, weak)
        bound._needs = (TOOL_CALLING,) if tools else ()
        return RunnableBinding(bound=bound, kwargs={}, config={})

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> RouteLLMRunnable:
        """Both models' own structured output, routed per call; all their arguments (``method=``, ...) pass through.

        With ``include_raw=True`` the raw message carries the decision.
        """
        from langchain_routellm.runnable import RouteLLMRunnable

        need = {"function_calling": (TOOL_CALLING,), "json_mode": ()}.get(
            str(kwargs.get("method")), (STRUCTURED_OUTPUT,)
        )

        def structured(model: Any) -> Any:
            return model.with_structured_output(schema, include_raw=include_raw, **kwargs)

        strong, weak = self._unbound or (self.strong, self.weak)
        return RouteLLMRunnable._of_chat_model(
            self,
            strong=_changed(strong, "strong", "give structured output", structured),
            weak=_changed(weak, "weak", "give structured output", structured),
            needs=need,
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


def _with_stop(stop: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    return kwargs if stop is None else {"stop": stop, **kwargs}


def _events_of(
    side: Any, value: Any, config: RunnableConfig, decision: RoutingDecision, kwargs: dict[str, Any]
) -> Iterator[Any]:
    for event in side.stream_events(value, config, version="v3", **kwargs):
        yield _with_decision(event, decision)


async def _aevents_of(
    side: Any, value: Any, config: RunnableConfig, decision: RoutingDecision, kwargs: dict[str, Any]
) -> AsyncIterator[Any]:
    # closed on the way out: the model's stream is a task of its own, which would run on
    async with await side.astream_events(value, config, version="v3", **kwargs) as stream:
        async for event in stream:
            yield _with_decision(event, decision)


def _with_decision(event: Any, decision: RoutingDecision) -> Any:
    if event.get("event") != "message-finish":
        return event
    return {**event, "metadata": {**(event.get("metadata") or {}), KEY: flat(decision)}}


def _changed(side: Any, name: str, what: str, change: Callable[[Any], Any]) -> Runnable[Any, Any]:
    try:
        return cast("Runnable[Any, Any]", replaced_model(side, change))
    except NotImplementedError as exc:
        exc.add_note(f"the {name} model, {model_name_of(side)}, cannot {what}")
        raise


def _generate_configs(
    count: int, callbacks: Any, tags: Any, metadata: Any, run_name: str | None, run_id: Any
) -> list[RunnableConfig]:
    given = {"callbacks": callbacks, "tags": tags, "metadata": metadata, "run_name": run_name}
    config = cast("RunnableConfig", {key: value for key, value in given.items() if value is not None})
    configs = [ensure_config(config) for _ in range(count)]
    if run_id is not None and configs:
        configs[0]["run_id"] = run_id  # ids are unique: as for any chat model, the first run gets it
    return configs


def _generate_arguments(config: RunnableConfig) -> dict[str, Any]:
    return {name: config.get(name) for name in ("callbacks", "tags", "metadata")}


def _joined(results: Sequence[LLMResult]) -> LLMResult:
    if len(results) == 1:
        return results[0]
    runs = [run for result in results for run in result.run or ()]
    return LLMResult(
        generations=[answers for result in results for answers in result.generations],
        # each model has its own form of it; they are not added up, and usage stands on the messages
        llm_output={},
        run=runs or None,
    )
