"""RouteLLMMiddleware: routes the model calls of an agent made by `create_agent`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired, get_args
from weakref import WeakKeyDictionary

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    OmitFromSchema,
)
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langgraph.types import Command

from langchain_routellm.dispatch import KEY, Dispatch, TokenWatch, recalled, stamped
from langchain_routellm.messages import chat_needs, chat_texts, chat_tokens
from langchain_routellm.options import checked_chat_side, checked_options, profile_of
from langchain_routellm.switching import adapted, drops_cache_markers, tool_without_cache_markers, without_cache_markers
from routellm_core import RoutingDecision, RoutingPolicy
from routellm_core.errors import ConfigurationError
from routellm_core.policy.capability import capability_gap

logger = logging.getLogger("langchain_routellm")

Scope = Literal["run", "call"]


class RouteLLMState(AgentState[Any]):
    """Agent state with the decision in force, as `RoutingDecision.to_dict` gives it."""

    routellm: NotRequired[Annotated[dict[str, Any], OmitFromSchema(input=True, output=False)]]


class RouteLLMMiddleware(AgentMiddleware[RouteLLMState, Any, Any]):
    """Sends an agent's model calls to a strong or a weak chat model.

    With ``scope="run"`` it decides once, when the agent starts, on the last human message, and every model call of
    the run goes to that side: tool loops are not torn between providers, and a provider's prompt cache keeps
    working. With ``scope="call"`` it decides before each model call (on the same human message as long as tools are
    running, so the route changes only with the conversation, the settings or the need). The decision stands in the
    agent's state and result as ``"routellm"``, in the metadata and tags of the model's run, and on each answer (see
    `routing_decision`).

    When a conversation moves to another provider's model, what that provider would refuse is left out: thinking
    blocks and signatures of the other's answers, and prompt-cache markers where the model does not read them.

    Order: list it before `ModelFallbackMiddleware` and other middleware that sets the model (the first is the
    outermost), so that fallbacks stand in for the model chosen here. Listed after, it would set the model again; it
    notices when a call comes back with another model after a failure, and leaves that model alone.

    A failure of the router follows the policy's ``on_error``. A failure of the chosen model is raised, unless
    ``failover=True``, when the other side answers as for `ChatRouteLLM`, and goes on answering for the run.

    Args:
        strong: The expensive chat model, or its name for `init_chat_model`; tools are bound by the agent.
        weak: The cheap one, likewise. The agent's own ``model`` is never called.
        scope: ``"run"`` or ``"call"``.
        policy, router, calibration, threshold, strong_fraction, failover, lookback, route_on, sticky: As for
            `ChatRouteLLM`; ``sticky`` by the agent's ``thread_id`` needs no checkpointer.

    Raises:
        ConfigurationError: An option is not allowed, or a model has arguments bound.
    """

    state_schema = RouteLLMState

    def __init__(
        self,
        *,
        strong: BaseChatModel | str,
        weak: BaseChatModel | str,
        scope: Scope = "run",
        policy: RoutingPolicy | None = None,
        router: Any = None,
        calibration: Any = None,
        threshold: float | None = None,
        strong_fraction: float | None = None,
        failover: bool = False,
        lookback: int = 1,
        route_on: Callable[[list[BaseMessage]], str | Sequence[str]] | None = None,
        sticky: Any = None,
    ) -> None:
        super().__init__()
        if scope not in get_args(Scope):
            raise ConfigurationError(f"scope={scope!r:.80}: expected 'run' (decide once a run) or 'call'")
        options = checked_options(
            {"failover": failover, "lookback": lookback, "route_on": route_on, "sticky": sticky},
        )
        self.scope = scope
        self._lookback: int = options["lookback"]
        self._route_on = options["route_on"]
        # step of a graph -> model that its request came with when it failed; forgotten with the step
        self._failed: WeakKeyDictionary[BaseCallbackManager, int] = WeakKeyDictionary()
        self._dispatch = Dispatch(
            "RouteLLMMiddleware",
            _unbound(checked_chat_side(strong, "strong"), "strong"),
            _unbound(checked_chat_side(weak, "weak"), "weak"),
            RoutingPolicy.of(
                policy, router=router, calibration=calibration, threshold=threshold, strong_fraction=strong_fraction
            ),
            lambda messages: chat_texts(messages, self._lookback, self._route_on),
            self._gap,
            failover=failover,
            sticky=options["sticky"],
        )

    # --- deciding ---

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """With ``scope="run"``, decide for the run; the decision goes into the state."""
        if self.scope != "run":
            return None
        decision = self._dispatch.decide(state["messages"], ensure_config(), {})
        return {KEY: decision.to_dict()}

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Async twin of `before_agent`."""
        if self.scope != "run":
            return None
        decision = await self._dispatch.adecide(state["messages"], ensure_config(), {})
        return {KEY: decision.to_dict()}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Run one model call on the side decided on."""
        if self._overruled(request):
            return handler(request)
        arguments = _arguments(request)
        decision = self._of_run(request, arguments)
        if decision is None:
            decision = self._dispatch.decide(request.messages, ensure_config(), arguments)
        routed, watch = self._routed(request, decision)
        try:
            try:
                response = handler(routed)
            except Exception as exc:
                decision = self._dispatch.second(decision, exc, watch)
                response = handler(self._routed(request, decision)[0])
        except Exception:
            self._note_failure(request)
            raise
        return self._response(request, response, decision)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Async twin of `wrap_model_call`."""
        if self._overruled(request):
            return await handler(request)
        arguments = _arguments(request)
        decision = self._of_run(request, arguments)
        if decision is None:
            decision = await self._dispatch.adecide(request.messages, ensure_config(), arguments)
        routed, watch = self._routed(request, decision)
        try:
            try:
                response = await handler(routed)
            except Exception as exc:
                decision = self._dispatch.second(decision, exc, watch)
                response = await handler(self._routed(request, decision)[0])
        except Exception:
            self._note_failure(request)
            raise
        return self._response(request, response, decision)

    def _gap(self, messages: Any, arguments: Mapping[str, Any]) -> str | None:
        weak = profile_of(self._dispatch.weak)
        if not weak:
            return None
        needs = chat_needs(messages, arguments)
        return capability_gap(needs, weak, profile_of(self._dispatch.strong), lambda: chat_tokens(messages))

    def _of_run(self, request: ModelRequest[Any], arguments: Mapping[str, Any]) -> RoutingDecision | None:
        """The decision of the run, unless each call has its own or the run has none (yet)."""
        decision = recalled(request.state.get(KEY)) if self.scope == "run" else None
        if decision is None:
            return None
        # tools, schema and tool results are known only now
        if decision.model == "weak" and decision.reason != "forced" and decision.failover is None:
            gap = self._gap(request.messages, arguments)
            if gap is not None:
                decision = replace(decision, model="strong", reason="capability", detail=gap)
                return self._dispatch.noted(decision, ensure_config())
        return decision

    def _note_failure(self, request: ModelRequest[Any]) -> None:
        step = _step()
        if step is not None:
            self._failed[step] = id(request.model)

    def _overruled(self, request: ModelRequest[Any]) -> bool:
        """Whether the same step comes back with another model after a failure: a fallback outside set it."""
        step = _step()
        if step is None or self._failed.get(step, id(request.model)) == id(request.model):
            return False
        logger.info("a fallback listed before RouteLLMMiddleware set the model after a failure; it is left alone")
        return True

    # --- running ---

    def _routed(
        self, request: ModelRequest[Any], decision: RoutingDecision
    ) -> tuple[ModelRequest[Any], TokenWatch | None]:
        dispatch = self._dispatch
        model: Any = dispatch.side(decision.model)
        other = dispatch.weak if decision.model == "strong" else dispatch.strong
        overrides: dict[str, Any] = {}
        if drops_cache_markers(model, other):
            if request.system_message is not None:
                overrides["system_message"] = without_cache_markers(request.system_message)
            overrides["tools"] = [tool_without_cache_markers(tool) for tool in request.tools]
            overrides["model_settings"] = {k: v for k, v in request.model_settings.items() if k != "cache_control"}
        overrides["messages"] = adapted(request.messages, decision.model, model, other)
        watch = TokenWatch() if dispatch.failover else None
        if isinstance(model, BaseChatModel):
            # the agent opens the model's run itself: what the run shall carry has to be on the model
            update: dict[str, Any] = {
                "metadata": {**(model.metadata or {}), KEY: decision.to_dict()},
                "tags": [*(model.tags or ()), f"{KEY}:{decision.model}"],
            }
            if watch is not None:
                own = model.callbacks
                update["callbacks"] = [*((own.handlers if isinstance(own, BaseCallbackManager) else own) or ()), watch]
            model = model.model_copy(update=update)
        return request.override(model=model, **overrides), watch

    def _response(
        self, request: ModelRequest[Any], response: ModelResponse[Any], decision: RoutingDecision
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        result = [stamped(m, decision) if m.type == "ai" else m for m in response.result]
        response = ModelResponse(result=result, structured_response=response.structured_response)
        state = decision.to_dict()
        if request.state.get(KEY) == state:
            return response
        return ExtendedModelResponse(model_response=response, command=Command(update={KEY: state}))


def _step() -> BaseCallbackManager | None:
    """What stands for the running step of the graph: its callback manager, which lives as long as the step."""
    callbacks = (var_child_runnable_config.get() or {}).get("callbacks")
    return callbacks if isinstance(callbacks, BaseCallbackManager) else None


def _arguments(request: ModelRequest[Any]) -> dict[str, Any]:
    """What a model call asks of a model, in the words that a chat model's arguments have for it."""
    return {
        "tools": request.tools or None,
        # a schema that the agent fills through a tool call is a matter of tools
        "response_format": isinstance(request.response_format, ProviderStrategy) or None,
    }


def _unbound(model: Any, parameter: str) -> Any:
    if isinstance(model, RunnableBindingBase):
        raise ConfigurationError(
            f"{parameter}={model!r:.80}: an agent binds its tools itself and drops what is bound already; give the "
            "chat model alone, with its arguments in its constructor"
        )
    return model
