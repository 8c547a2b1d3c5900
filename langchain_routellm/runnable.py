"""RouteLLMRunnable: routes between any two runnables, such as chains, retrievers or agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack, cast

from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.utils import get_unique_config_specs
from pydantic import PrivateAttr

from langchain_routellm import batches
from langchain_routellm.dispatch import CONFIG_SPECS, Dispatch, RunSettings
from langchain_routellm.options import RoutedFields, RunnableOptions, option_fields
from langchain_routellm.readers import AnyReader, ChatReader
from langchain_routellm.sides import checked_side
from routellm_core.policy.routing import POLICY_OPTIONS

if TYPE_CHECKING:
    from langchain_routellm.chat_model import ChatRouteLLM


class RouteLLMRunnable(RoutedFields, RunnableSerializable[Any, Any]):
    """Routes each input to a strong or a weak runnable: chains, retrievers, agents, anything.

    Decisions, per-call settings, batches and failover are those of `ChatRouteLLM`. What is routed on: a str itself;
    the last human message of a prompt value or a list of messages; of a dict its ``"messages"``, else its
    ``"question"``, ``"query"``, ``"input"``, ``"prompt"`` or ``"text"``, else its only str; for anything else give
    `route_on`. Where the answer is a message it carries the decision; otherwise the decision is in the metadata of
    the runs below.

    Args:
        strong: The expensive way to answer: a runnable, a function, or a dict of them.
        weak: The cheap way.
        **options: As for `ChatRouteLLM`, see `RoutingOptions`; ``route_on=`` is a function of the input, or the key of
            a dict input. Also fields of any runnable (``name``).

    Raises:
        ConfigurationError: An option is unknown or not allowed.
    """

    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]

    # set when it stands for a chat model with a schema: what its input is and needs, and what the router's run carries
    _chat_reader: ChatReader | None = PrivateAttr(default=None)
    _run_settings: RunSettings | None = PrivateAttr(default=None)

    def __init__(self, *, strong: Any, weak: Any, **options: Unpack[RunnableOptions]) -> None:
        sides: dict[str, Any] = {"strong": checked_side(strong, "strong"), "weak": checked_side(weak, "weak")}
        fields, routing = option_fields(type(self), options)
        if routing.shadow is not None:
            from langchain_routellm.recording import check_side

            for name, side in sides.items():
                check_side(side, name)
        super().__init__(**sides, **fields)
        self.__dict__["_routing"] = routing
        self._check_levels()

    @classmethod
    def _of_chat_model(
        cls, chat: ChatRouteLLM, *, strong: Runnable[Any, Any], weak: Runnable[Any, Any], reader: ChatReader
    ) -> RouteLLMRunnable:
        """The same routing as a chat model's, over what its two models were turned into."""
        options: Any = {"name": chat.name or "ChatRouteLLM", "policy": chat.policy}
        own = chat._options()
        options.update({name: own[name] for name in own if name not in POLICY_OPTIONS})
        made = cls(strong=strong, weak=weak, **options)
        if chat._routing.level:
            made.__dict__["_routing"] = chat._routing  # its options alone would make that of an outermost model
        made._chat_reader = reader
        made._run_settings = RunSettings(options["name"], cast("Any", chat.callbacks), chat.tags, chat.metadata)
        return made

    @classmethod
    def _takes_keys(cls) -> bool:
        return True

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
        """Options that hold state serialize as they were set; conversations and failures stay here."""
        return self._serialized_options()

    @property
    def InputType(self) -> Any:
        """Same as the strong side's."""
        return self.strong.InputType

    @property
    def OutputType(self) -> Any:
        """Same as the strong side's."""
        return self.strong.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """Same as the strong side's."""
        return self.strong.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """Same as the strong side's."""
        return self.strong.get_output_schema(config)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """Per-call settings: the router's own, and those of both sides."""
        return get_unique_config_specs([*CONFIG_SPECS, *self.strong.config_specs, *self.weak.config_specs])

    def _new_dispatch(self) -> Dispatch:
        reader = (
            AnyReader(self._routing, self.strong, self.weak)
            if self._chat_reader is None
            else replace(self._chat_reader, routing=self._routing)
        )
        settings = self._run_settings or RunSettings(self.name or "RouteLLMRunnable")
        return Dispatch(self.strong, self.weak, self._routing, reader, settings)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Route one input."""
        return self._dispatch.run(input, config, kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Async twin of `invoke`."""
        return await self._dispatch.arun(input, config, kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Route one input and stream the chosen side."""
        return self._dispatch.stream(input, config, kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Async twin of `stream`."""
        return self._dispatch.astream(input, config, kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Route a batch with one call of the router; each side gets its share as one batch."""
        return batches.batch(self._dispatch, list(inputs), config, kwargs, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Async twin of `batch`."""
        return await batches.abatch(self._dispatch, list(inputs), config, kwargs, return_exceptions=return_exceptions)

    def batch_as_completed(  # the base spells it as two overloads
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Route a batch with one call of the router and yield (index, answer) as they come."""
        yield from batches.batch_as_completed(
            self._dispatch, inputs, config, kwargs, return_exceptions=return_exceptions
        )

    async def abatch_as_completed(  # the base spells it as two overloads
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""
        async for item in batches.abatch_as_completed(
            self._dispatch, inputs, config, kwargs, return_exceptions=return_exceptions
        ):
            yield item
