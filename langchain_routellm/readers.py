"""How the wrappers read their inputs: what a call is routed on, what it needs, and how a side takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from langchain_core.prompt_values import StringPromptValue
from langchain_core.runnables import Runnable

from langchain_routellm.messages import as_messages, chat_needs, chat_tokens, human_texts, input_texts
from langchain_routellm.sides import abilities_of, bound_kwargs, profiled_model_of, routed_in
from langchain_routellm.switching import (
    adapted,
    arguments_without_cache_markers,
    drops_cache_markers,
    must_not_think,
    without_thinking,
)
from routellm_core.checks import Side
from routellm_core.errors import PromptError
from routellm_core.policy.routing import RoutedOn, Routing

_CACHE_ARGUMENTS = frozenset({"cache_control"})


@dataclass(frozen=True)
class _Reader:
    routing: Routing
    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]
    needs: tuple[str, ...] = ()

    @cached_property
    def _weak_model(self) -> Any:
        """The model whose profile says what the weak side can do; None for a side that no single profile describes."""
        return profiled_model_of(self.weak) if routed_in(self.weak) is None else None

    def gap(self, value: Any, kwargs: Mapping[str, Any]) -> str | None:
        """What the weak model lacks for an input and its call arguments."""
        model = self._weak_model
        known = abilities_of(self.weak) if model is None else getattr(model, "profile", None)
        if not known and not self.routing.weak_profile:  # as usual, and found out at little cost
            return None
        needs = [*self.needs, *chat_needs(value, {**bound_kwargs(self.weak), **kwargs})]
        return self.routing.gap(needs, abilities_of(self.weak), abilities_of(self.strong), lambda: chat_tokens(value))


@dataclass(frozen=True)
class ChatReader(_Reader):
    """Reads the inputs of chat models.

    Attributes:
        routing: The options of the wrapper.
        strong: The strong chat model, as far as its profile and provider go.
        weak: The weak one.
        needs: What every call needs beyond its input, such as tools that are bound.
    """

    def texts(self, value: Any) -> RoutedOn:
        """The texts of the last human turns, or what ``route_on=`` returns.

        Raises:
            PromptError: `value` is not an input of a chat model.
        """
        route_on = self.routing.route_on
        if route_on is None:
            if isinstance(value, str):
                return value
            if isinstance(value, StringPromptValue):
                return value.text
        messages = as_messages(value)
        if messages is None:
            raise PromptError(
                f"input is {type(value).__name__}: expected a str, a prompt value or a list of messages, as for any "
                "chat model"
            )
        if route_on is None:
            return human_texts(messages, self.routing)
        found: RoutedOn = route_on(messages)
        return found

    def fitting(
        self, side: Side, runnable: Runnable[Any, Any], value: Any, arguments: Mapping[str, Any]
    ) -> tuple[Runnable[Any, Any], Any, Mapping[str, Any]]:
        """The call without what the side's model would refuse; what needs no change stays what it was."""
        if not arguments and isinstance(value, str):  # nothing in it can be refused
            return runnable, value, arguments
        ours, other = (self.strong, self.weak) if side == "strong" else (self.weak, self.strong)
        if not _CACHE_ARGUMENTS.isdisjoint(arguments) and drops_cache_markers(ours, other):
            arguments = arguments_without_cache_markers(arguments)
        if isinstance(value, str):
            return runnable, value, arguments
        messages = as_messages(value) or []
        fitting = adapted(messages, side, ours, other, self.routing.level)
        if must_not_think(fitting, ours):
            runnable = without_thinking(runnable)
        changed = any(a is not b for a, b in zip(messages, fitting, strict=True))
        return runnable, fitting if changed else value, arguments


@dataclass(frozen=True)
class AnyReader(_Reader):
    """Reads the inputs of any two runnables: a text, a chat input, or a dict that holds one.

    Attributes:
        routing: The options of the wrapper.
        strong: The strong side.
        weak: The weak side.
    """

    def texts(self, value: Any) -> RoutedOn:
        """The text in the input by the rule of `RouteLLMRunnable`, or what ``route_on=`` returns."""
        return input_texts(value, self.routing)

    def gap(self, value: Any, kwargs: Mapping[str, Any]) -> str | None:
        """What the weak side lacks, where it is a chat model or begins with one."""
        return None if isinstance(value, Mapping) else super().gap(value, kwargs)

    def fitting(
        self, side: Side, runnable: Runnable[Any, Any], value: Any, arguments: Mapping[str, Any]
    ) -> tuple[Runnable[Any, Any], Any, Mapping[str, Any]]:
        """The call unchanged."""
        return runnable, value, arguments
