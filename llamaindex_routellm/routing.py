"""The options that RouteLLM and RouteLLMSelector share, and how they make a decision."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index_instrumentation.dispatcher import active_instrument_tags

from llamaindex_routellm.question import Retrieval, human_turns
from routellm_core import Stickiness
from routellm_core.calibration import Calibration
from routellm_core.checks import Side, checked_fraction, checked_side
from routellm_core.errors import ConfigurationError, PromptError
from routellm_core.policy import RoutingPolicy, RoutingRequest
from routellm_core.policy.decision import RoutingDecision
from routellm_core.routers.base import Router

RouteOn = Callable[..., str | Sequence[str] | RoutingRequest]

_PREFIX = "routellm_"
_OPTIONS = ("routellm_threshold", "routellm_force", "routellm_thread_id")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What holds for one call alone.

    Attributes:
        threshold: Threshold of this call.
        force: Side that this call goes to.
        conversation: Identifies the conversation, for `sticky`.
    """

    threshold: float | None = None
    force: Side | None = None
    conversation: str | None = None

    @classmethod
    def take(cls, *sources: dict[str, Any] | None, key: str = "thread_id") -> Self:
        """Take the ``routellm_*`` entries out of a call's keyword arguments; what is left goes to the model.

        Engines, chat engines and agents pass no keyword arguments on. Around those, LlamaIndex's own
        ``instrument_tags({"routellm_force": "strong", "thread_id": "42"})`` says the same.

        Raises:
            ConfigurationError: An unknown ``routellm_*`` name, or a value that is not allowed.
        """
        tags = active_instrument_tags.get()
        given = {name: tags[name] for name in _OPTIONS if tags.get(name) is not None}
        for source in sources:
            for name in [name for name in source or () if name.startswith(_PREFIX)]:
                assert source is not None
                if name not in _OPTIONS:
                    raise ConfigurationError(f"{name}={source[name]!r:.80}: expected one of {', '.join(_OPTIONS)}")
                value = source.pop(name)
                if value is not None:
                    given[name] = value
        threshold, force = given.get("routellm_threshold"), given.get("routellm_force")
        conversation = given.get("routellm_thread_id", tags.get(key))
        return cls(
            None if threshold is None else checked_fraction(threshold, "routellm_threshold"),
            None if force is None else checked_side(force, "routellm_force"),
            None if conversation is None else str(conversation),
        )


class Routing:
    """Policy and options of a `RouteLLM` or `RouteLLMSelector`, checked; holds no state of a call.

    Args:
        policy: A ready `RoutingPolicy`; or one is made of the next four.
        router: A router or its name; None is the bundled one.
        calibration: Distribution of the router's win rates on prompts like yours.
        threshold: Win rate from which a call goes to the strong side.
        strong_fraction: Wanted share of strong calls.
        lookback: How many of the last things that the person said count; the hardest decides.
        route_on: What to route on instead: called with the messages and, if it takes a second argument, with the
            `Retrieval` (None outside query engines); returns a text, several of which the hardest decides, or a
            `RoutingRequest`.
        sticky: Keep a conversation strong once it was: True, or a `Stickiness`.

    Raises:
        ConfigurationError: A value is not allowed; the message names it and the fix.
    """

    def __init__(
        self,
        *,
        policy: RoutingPolicy | None = None,
        router: Router | str | None = None,
        calibration: Calibration | None = None,
        threshold: float | None = None,
        strong_fraction: float | None = None,
        lookback: int = 1,
        route_on: RouteOn | None = None,
        sticky: bool | str | Stickiness | None = None,
    ) -> None:
        if isinstance(lookback, bool) or not isinstance(lookback, int) or lookback < 1:
            raise ConfigurationError(f"lookback={lookback!r}: expected how many human turns count, an integer >= 1")
        if route_on is not None and not callable(route_on):
            raise ConfigurationError(
                f"route_on={route_on!r:.80}: expected a function of the messages (and of a Retrieval) that returns "
                "the text to route on"
            )
        self.policy = RoutingPolicy.of(
            policy, router=router, calibration=calibration, threshold=threshold, strong_fraction=strong_fraction
        )
        self.lookback = lookback
        self.sticky = Stickiness.of(sticky)
        self.route_on = route_on
        self._with_retrieval = route_on is not None and _takes_two(route_on)

    def options(self, *sources: dict[str, Any] | None) -> CallOptions:
        """The options of one call, taken out of its keyword arguments."""
        return CallOptions.take(*sources, key=self.sticky.key if self.sticky else "thread_id")

    def request(
        self, messages: Sequence[ChatMessage], retrieval: Retrieval | None, options: CallOptions, gap: str | None = None
    ) -> RoutingRequest:
        """What the policy is asked: settled where the call forces a side or the weak model lacks `gap`."""
        if options.force is not None:
            return RoutingRequest((), options.threshold, options.force)
        if gap is not None:
            return RoutingRequest((), options.threshold, "strong", "capability", gap)
        if self.sticky is not None:
            held = self.sticky.before(options.conversation, RoutingRequest((), options.threshold))
            if held.force is not None:
                return held
        if self.route_on is not None:
            # the hook, too, sees the question of a query engine and not the prompt around it
            seen = messages if retrieval is None else [ChatMessage(role=MessageRole.USER, content=retrieval.question)]
            return _as_request(self.route_on(seen, retrieval) if self._with_retrieval else self.route_on(seen), options)
        if retrieval is not None:
            return RoutingRequest((retrieval.question,), options.threshold)
        return RoutingRequest(tuple(human_turns(messages)[-self.lookback :]), options.threshold)

    def decide(self, request: RoutingRequest, options: CallOptions) -> RoutingDecision:
        """The decision, with stickiness applied."""
        return self._noted(self.policy.decide(request), options)

    async def adecide(self, request: RoutingRequest, options: CallOptions) -> RoutingDecision:
        """Like `decide`, without blocking the event loop."""
        return self._noted(await self.policy.adecide(request), options)

    def _noted(self, decision: RoutingDecision, options: CallOptions) -> RoutingDecision:
        return decision if self.sticky is None else self.sticky.after(options.conversation, decision)


def _as_request(chosen: Any, options: CallOptions) -> RoutingRequest:
    if isinstance(chosen, RoutingRequest):
        if chosen.force is not None:
            checked_side(chosen.force, "force")
        return chosen if options.threshold is None else replace(chosen, threshold=options.threshold)
    texts = (chosen,) if isinstance(chosen, str) else tuple(chosen) if isinstance(chosen, list | tuple) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        # its type alone: the value may hold prompt text
        what = f"an empty {type(chosen).__name__}" if chosen in ([], ()) else type(chosen).__name__
        raise PromptError(f"route_on returned {what}: expected a str, a non-empty list of str, or a RoutingRequest")
    return RoutingRequest(texts, options.threshold)


def _takes_two(function: RouteOn) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in callables have no signature
        return False
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    required = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return len(required) == 2
