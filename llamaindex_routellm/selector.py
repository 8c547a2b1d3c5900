"""RouteLLMSelector: picks the strong or the weak one of two query engines, tools or retrievers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata
from llama_index_instrumentation import get_dispatcher

from llamaindex_routellm.events import RouteLLMDecisionEvent
from llamaindex_routellm.question import Retrieval, call_settings, routed_on
from routellm_core.errors import ConfigurationError
from routellm_core.policy import RoutingPolicy
from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.options import DecisionOptions
from routellm_core.policy.routing import DECISION_OPTIONS, CallSettings, Routing

dispatcher = get_dispatcher(__name__)


class RouteLLMSelectorResult(SelectorResult):
    """The selection, with the decision behind it.

    Attributes:
        decision: The decision as a dict of JSON scalars (see `routellm_core.RoutingDecision`).
    """

    decision: dict[str, Any]


class RouteLLMSelector(BaseSelector):
    """Chooses between a weak and a strong query engine, tool or retriever by the query's win rate.

    For `RouterQueryEngine` and `RouterRetriever`, where the two choices are whole pipelines: for example, a small model
    over two passages and a large one over twenty. It calls no model and keeps no state between calls. The result is in
    ``response.metadata["selector_result"]``, with its ``decision``; one `RouteLLMDecisionEvent` is emitted.

    Args:
        weak: Which choice is the weak one: its index, or the name in its tool metadata.
        strong: Which choice is the strong one, in the same form.
        **options: What decides, and on what: `routellm_core.policy.options.DecisionOptions` describes each. A
            ``route_on`` function is called with the query as a list of one message and, if it takes a second argument,
            with a `Retrieval`; with ``sticky``, LlamaIndex's ``instrument_tags({"thread_id": "42"})`` names the
            conversation.

    Raises:
        ConfigurationError: An option does not exist or has a value that is not allowed; on selecting, there are not
            exactly two choices, or none of them has the name.
    """

    def __init__(
        self,
        *,
        weak: int | str = 0,
        strong: int | str = 1,
        **options: Unpack[DecisionOptions],
    ) -> None:
        for name, choice in (("weak", weak), ("strong", strong)):
            if isinstance(choice, bool) or not (isinstance(choice, str) or choice in (0, 1)):
                raise ConfigurationError(
                    f"{name}={choice!r:.80}: expected the index 0 or 1 of a choice, or the name of its tool"
                )
        if weak == strong:
            raise ConfigurationError(f"weak={weak!r} and strong={strong!r} are the same choice: name two")
        self.weak = weak
        self.strong = strong
        self._routing = Routing.of(options, owner=type(self).__name__, known=DECISION_OPTIONS)

    @property
    def policy(self) -> RoutingPolicy:
        """The policy that decides."""
        return self._routing.policy

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """The selector has no prompts."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        indices = self._indices(choices)
        return _result(indices, self._routing.decide(*self._request(query)))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        indices = self._indices(choices)
        return _result(indices, await self._routing.adecide(*self._request(query)))

    def _request(self, query: QueryBundle) -> tuple[RoutingRequest, CallSettings]:
        routing = self._routing
        message, retrieval = ChatMessage(role=MessageRole.USER, content=query.query_str), Retrieval(query.query_str)
        settings = call_settings(routing, messages=lambda: [message])
        request = routing.request(settings, gap=lambda: None, texts=lambda: routed_on(routing, [message], retrieval))
        return request, settings

    def _indices(self, choices: Sequence[ToolMetadata]) -> dict[str, int]:
        """Indices of the weak and the strong choice."""
        names = [choice.name for choice in choices]
        if len(choices) != 2:
            raise ConfigurationError(
                f"RouteLLMSelector got {len(choices)} choices ({', '.join(map(str, names)) or 'none'}): it needs "
                "exactly 2, a weak and a strong one"
            )
        found = {}
        for side, choice in (("weak", self.weak), ("strong", self.strong)):
            if isinstance(choice, int):
                found[side] = choice
            elif names.count(choice) == 1:
                found[side] = names.index(choice)
            else:
                raise ConfigurationError(
                    f"RouteLLMSelector got 2 choices named {names[0]!r} and {names[1]!r}: one of them has to be "
                    f"{side}={choice!r}"
                )
        if found["weak"] == found["strong"]:
            raise ConfigurationError(
                f"weak={self.weak!r} and strong={self.strong!r} are both choice {found['weak']} "
                f"({names[found['weak']]!r}): RouteLLMSelector needs 2 different ones"
            )
        return found


def _result(indices: dict[str, int], decision: RoutingDecision) -> RouteLLMSelectorResult:
    dispatcher.event(RouteLLMDecisionEvent(decision=decision.to_dict()))
    if decision.win_rate is None:
        reason = f"{decision.model}: {decision.reason}"
    else:
        sign = ">=" if decision.win_rate >= decision.threshold else "<"
        reason = f"{decision.model}: win rate {decision.win_rate:.3f} {sign} threshold {decision.threshold:.3f}"
    selection = SingleSelection(index=indices[decision.model], reason=reason)
    return RouteLLMSelectorResult(selections=[selection], decision=decision.to_dict())
