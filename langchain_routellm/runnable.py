"""RouteLLMRunnable: routes between any two runnables, such as chains, retrievers or agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.utils import get_unique_config_specs
from pydantic import PrivateAttr

from langchain_routellm.dispatch import CONFIG_SPECS, Dispatch
from langchain_routellm.messages import (
    chat_needs,
    chat_texts,
    chat_tokens,
    input_texts,
)
from langchain_routellm.options import (
    RoutingOptions,
    bound_kwargs,
    check_names,
    checked_options,
    checked_side,
    profile_of,
)
from routellm_core import RoutingPolicy
from routellm_core.policy.capability import capability_gap

if TYPE_CHECKING:
    from langchain_routellm.chat_model import ChatRouteLLM


class RouteLLMRunnable(RoutingOptions, RunnableSerializable[Any, Any]):
    """Routes each input to a strong or a weak runnable: chains, retrievers, agents, anything.

    Decisions, per-call settings, batches and failover are those of `ChatRouteLLM`. What is routed on: a str itself;
    the last human message of a prompt value or a list of messages; of a dict its ``"messages"``, else its
    ``"question"``, ``"query"``, ``"input"``, ``"prompt"`` or ``"text"``, else its only str; for anything else give
    `route_on`. Where the answer is a message it carries the decision; otherwise the decision is in the metadata of
    the runs below.

    Args:
        strong: The expensive way to answer: a runnable, a function, or a dict of them.
        weak: The cheap way.
        route_on: Key of a dict input, or a function from the input to the text, or texts, to route on.
        policy, router, calibration, threshold, strong_fraction, failover, lookback, sticky: As for `ChatRouteLLM`.
        **kwargs: Fields of any runnable (``name``).

    Raises:
        ConfigurationError: An option is not allowed.
    """

    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]

    # set when it stands for a chat model with a schema: then its input is a chat input, and the guard knows the models
    _chat: ChatRouteLLM | None = PrivateAttr(default=None)
    _needs: tuple[str, ...] = PrivateAttr(default=())

    def __init__(
        self,
        *,
        strong: Any,
        weak: Any,
        policy: RoutingPolicy | None = None,
        router: Any = None,
        calibration: Any = None,
        threshold: float | None = None,
        strong_fraction: float | None = None,
        failover: bool = False,
        lookback: int = 1,
        route_on: str | Callable[[Any], str | Sequence[str]] | None = None,
        sticky: Any = None,
        **kwargs: Any,
    ) -> None:
        check_names(kwargs, type(self).model_fields, strict=True)
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
        sides: dict[str, Any] = {"strong": checked_side(strong, "strong"), "weak": checked_side(weak, "weak")}
        super().__init__(**sides, **checked_options(options, key_allowed=True), **kwargs)
        self._policy  # noqa: B018  # made now, so that a wrong option fails here

    @classmethod
    def _of_chat_model(
        cls, chat: ChatRouteLLM, *, strong: Runnable[Any, Any], weak: Runnable[Any, Any], needs: tuple[str, ...]
    ) -> RouteLLMRunnable:
        """The same routing as a chat model's, over what its two models were turned into."""
        made = cls(
            strong=strong,
            weak=weak,
            policy=chat.routing_policy,
            failover=chat.failover,
            lookback=chat.lookback,
            route_on=chat.route_on,
            sticky=chat.sticky,
            name=chat.name or "ChatRouteLLM",
        )
        made._chat, made._needs = chat, needs
        return made

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True: with sides that serialize and options that are plain numbers and names, it round-trips."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where `load` finds the class."""
        return ["langchain_routellm", "runnable"]

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Stickiness serializes as the name of its key."""
        return {} if self.sticky is None else {"sticky": self.sticky.key}

    @property
    def InputType(self) -> Any:
        """That of the strong side."""
        return self.strong.InputType

    @property
    def OutputType(self) -> Any:
        """That of the strong side."""
        return self.strong.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """That of the strong side."""
        return self.strong.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """That of the strong side."""
        return self.strong.get_output_schema(config)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """Per-call settings: the router's own, and those of both sides."""
        return get_unique_config_specs([*CONFIG_SPECS, *self.strong.config_specs, *self.weak.config_specs])

    def _new_dispatch(self) -> Dispatch:
        chat = self._chat
        return Dispatch(
            self.name or "RouteLLMRunnable",
            self.strong,
            self.weak,
            self._policy,
            self._texts,
            self._gap,
            self.failover,
            self.sticky,
            *(() if chat is None else (chat._adapt, cast("Any", chat.callbacks), chat.tags, chat.metadata)),
        )

    def _texts(self, value: Any) -> tuple[str, ...]:
        if self._chat is not None:
            return chat_texts(value, self.lookback, self.route_on)
        return input_texts(value, self.lookback, self.route_on)

    def _gap(self, value: Any, kwargs: Mapping[str, Any]) -> str | None:
        strong, weak = (self.strong, self.weak) if self._chat is None else (self._chat.strong, self._chat.weak)
        profile = profile_of(weak)
        if not profile or isinstance(value, Mapping):
            return None
        needs = [*self._needs, *chat_needs(value, {**bound_kwargs(weak), **kwargs})]
        return capability_gap(needs, profile, profile_of(strong), lambda: chat_tokens(value))

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Route one input."""
        return self._dispatch.invoke(input, config, kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Async twin of `invoke`."""
        return await self._dispatch.ainvoke(input, config, kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Route one input and stream the chosen side."""
        yield from self._dispatch.stream(input, config, kwargs)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Async twin of `stream`."""
        async with aclosing(self._dispatch.astream(input, config, kwargs)) as stream:
            async for chunk in stream:
                yield chunk

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Route a batch with one call of the router; each side gets its share as one batch."""
        return self._dispatch.batch(list(inputs), config, return_exceptions, kwargs)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
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
