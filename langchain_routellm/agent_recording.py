"""What an agent's model call leaves in the log: the agent calls the model itself, so the request is read off it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain.agents.structured_output import AutoStrategy, OutputToolBinding, ProviderStrategy, ToolStrategy
from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import ensure_config

from langchain_routellm.recording import CallRecord, ModelWatch, aask, ask, silenced
from routellm_core import Price
from routellm_core.checks import Side
from routellm_core.log import Recording, SideSpent
from routellm_core.policy.route import Route


class AgentCallRecord(CallRecord):
    """One model call of an agent on its way into the log.

    The other side answers exactly what the chosen one was asked, the changes of middleware between the router and the
    model included. It is asked for an answer only: calls of tools in it are written down and never run.

    Args:
        recording: The log's own record of the call.
        request: What the agent asks.
        prices: Prices by model or side; None without.
        for_side: The request as a side takes it, with these messages where they are given.
        is_async: Whether the agent runs asynchronously.
    """

    def __init__(
        self,
        recording: Recording,
        request: ModelRequest[Any],
        prices: Mapping[str, Price] | None,
        for_side: Callable[[Side, Sequence[BaseMessage] | None], ModelRequest[Any]],
        *,
        is_async: bool,
    ) -> None:
        super().__init__(recording, self._ask_side, is_async=is_async)
        self._prices = prices
        self._for_side = for_side
        self._watch = ModelWatch()
        self._sent: list[BaseMessage] = []
        self._manager = ensure_config().get("callbacks")

    def watching(self, routed: ModelRequest[Any]) -> ModelWatch:
        """Note what the chosen model is to be asked; the handler sees what it was asked in the end."""
        self.calls(routed.model)
        self._sent = _with_system(routed)
        return self._watch

    def answered(self, output: ModelResponse[Any], route: Route[Any]) -> None:
        """Log the model's message, the first one of the response."""
        if self._watch.run_id is not None:
            manager: Any = self._manager if hasattr(self._manager, "handlers") else None
            self.ran_as(self._watch.run_id, self._watch.parent, manager)
        super().answered(next((message for message in output.result if message.type == "ai"), None), route)

    def _ask_side(self, side: Side) -> Any:
        seen = self._watch.messages
        request = self._for_side(side, None)
        messages = _with_system(request)
        if seen is not None and seen != self._sent:  # middleware behind the router changed them
            messages = list(self._for_side(side, seen).messages)
        bound = _bound(silenced(request.model), request)
        return (aask if self._is_async else ask)(bound, messages, {}, SideSpent(side, self._prices))


def _with_system(request: ModelRequest[Any]) -> list[BaseMessage]:
    return [*([] if request.system_message is None else [request.system_message]), *request.messages]


def _bound(model: Any, request: ModelRequest[Any]) -> Any:
    """The model with the tools and the schema of a request, as an agent binds them."""
    wanted = request.response_format
    tools, settings, choice = list(request.tools), dict(request.model_settings), request.tool_choice
    if wanted is not None and not isinstance(wanted, AutoStrategy | ToolStrategy | ProviderStrategy):
        wanted = AutoStrategy(schema=wanted)
    if isinstance(wanted, AutoStrategy):
        structured = bool((getattr(model, "profile", None) or {}).get("structured_output"))
        wanted = ProviderStrategy(wanted.schema) if structured else ToolStrategy(wanted.schema)
    if isinstance(wanted, ProviderStrategy):
        return model.bind_tools(tools, **wanted.to_model_kwargs(), **settings)
    if isinstance(wanted, ToolStrategy):
        tools += [OutputToolBinding.from_schema_spec(spec).tool for spec in wanted.schema_specs]
        choice = "any"
    return model.bind_tools(tools, tool_choice=choice, **settings) if tools else model.bind(**settings)
