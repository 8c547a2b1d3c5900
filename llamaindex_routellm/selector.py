"""RouteLLMSelector: picks the strong or the weak one of two query engines, tools or retrievers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata
from llama_index_instrumentation import get_dispatcher

from llamaindex_routellm.events import RouteLLMDecisionEvent
from llamaindex_routellm.question import Retrieval
from llamaindex_routellm.routing import CallOptions, RouteOn, Routing
from routellm_core import Stickiness
from routellm_core.calibration import Calibration
from routellm_core.errors import ConfigurationError
from routellm_core.policy import RoutingPolicy, RoutingRequest
from routellm_core.policy.decision import RoutingDecision
from routellm_core.routers.base import Router

dispatcher = get_dispatcher(__name__)


class RouteLLMSelectorResult(SelectorResult):
    """The selection, with the decision behind it.

    Attributes:
        decision: The decision as a dict of JSON scalars (see `routellm_core.RoutingDecision`).
    """

    decision: dict[str, Any]


class RouteLLMSelector(BaseSelector):
    """Chooses between a weak and a strong query engine, tool or retriever by the query's win rate.

    For `RouterQueryEngine` and `RouterRetriever`, where the two choices are whole pipelines: say, a small model over
    two passages and a large one over twenty. It asks no model and keeps no state of a call. The result is in
    ``response.metadata["selector_result"]``, with its ``decision``; one `RouteLLMDecisionEvent` is emitted.

    Args:
        weak: Which choice is the weak one: its index, or the name in its tool metadata.
        strong: Which one is the strong one, likewise.
        policy: A ready `RoutingPolicy`; or one is made of the next four.
        router: A router or its name; None is the bundled one.
        calibration: Distribution of the router's win rates on queries like yours.
        threshold: Win rate from which a query goes to the strong choice.
        strong_fraction: Wanted share of strong choices, in place of `threshold`.
        route_on: What to route on instead of the query: called with the query as a list of one message and, if it
            takes a second argument, with a `Retrieval`; returns a text or a `RoutingRequest`.
        sticky: Keep a conversation strong once it was: True, or a `Stickiness`; LlamaIndex's
            ``instrument_tags({"thread_id": "42"})`` tells which one it is.

    Raises:
        ConfigurationError: A value is not allowed; when selecting, other than two choices or a name that none has.
    """

    def __init__(
        self,
        *,
        weak: int | str = 0,
        strong: int | str = 1,
        policy: RoutingPolicy | None = None,
        router: Router | str | None = None,
        calibration: Calibration | None = None,
        threshold: float | None = None,
        strong_fraction: float | None = None,
        route_on: RouteOn | None = None,
        sticky: bool | str | Stickiness | None = None,
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
        self._routing = Routing(
            policy=policy,
            router=router,
            calibration=calibration,
            threshold=threshold,
            strong_fraction=strong_fraction,
            route_on=route_on,
            sticky=sticky,
        )

    @property
    def policy(self) -> RoutingPolicy:
        """The policy that decides."""
        return self._routing.policy

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """There are none."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        indices = self._indices(choices)
        request, options = self._request(query)
        return _result(indices, self._routing.decide(request, options))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        indices = self._indices(choices)
        request, options = self._request(query)
        return _result(indices, await self._routing.adecide(request, options))

    def _request(self, query: QueryBundle) -> tuple[RoutingRequest, CallOptions]:
        options = self._routing.options()
        message = ChatMessage(role=MessageRole.USER, content=query.query_str)
        return self._routing.request([message], Retrieval(query.query_str), options), options

    def _indices(self, choices: Sequence[ToolMetadata]) -> dict[str, int]:
        """Where the weak and the strong choice stand."""
        names = [choice.name for choice in choices]
        if len(choices) != 2:
            raise ConfigurationError(
                f"RouteLLMSelector got {len(choices)} choices ({', '.join(map(str, names)) or 'none'}): it wants "
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
                    f"RouteLLMSelector got 2 choices named {names[0]!r} and {names[1]!r}: it wants one of them to be "
                    f"{side}={choice!r}"
                )
        if found["weak"] == found["strong"]:
            raise ConfigurationError(
                f"weak={self.weak!r} and strong={self.strong!r} are both choice {found['weak']} "
                f"({names[found['weak']]!r}): RouteLLMSelector wants 2 different ones"
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
