"""RouteLLMMiddleware: routes the model calls of an agent made by `create_agent`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Unpack, get_args
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
from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langgraph.types import Command

from langchain_routellm.answers import KEY, TokenWatch, is_broken, routing_decision, stamped, weak_answer
from langchain_routellm.dispatch import Dispatch, RunSettings
from langchain_routellm.messages import is_synthetic
from langchain_routellm.readers import ChatReader
from langchain_routellm.sides import checked_chat_side, model_name_of, model_name_on
from langchain_routellm.switching import (
    adapted,
    arguments_without_cache_markers,
    drops_cache_markers,
    must_not_think,
    tool_without_cache_markers,
    without_cache_markers,
    without_thinking,
)
from langchain_routellm.usage import UsageWatch
from routellm_core import RoutingDecision, RoutingPolicy, RoutingRequest
from routellm_core.checks import Side, other_side
from routellm_core.errors import ConfigurationError
from routellm_core.policy.acceptance import WeakAnswer
from routellm_core.policy.options import RoutingOptions
from routellm_core.policy.route import Route
from routellm_core.policy.routing import Decided, Routing
from routellm_core.policy.setups import name_likeness

if TYPE_CHECKING:
    from langchain_routellm.agent_recording import AgentCallRecord

logger = logging.getLogger("langchain_routellm")

Scope = Literal["run", "call"]


class RouteLLMState(AgentState[Any]):
    """Agent state with the decision in force, as `RoutingDecision.to_dict` gives it."""

    routellm: NotRequired[Annotated[dict[str, Any], OmitFromSchema(input=True, output=False)]]


class RouteLLMMiddleware(AgentMiddleware[Any, Any, Any]):  # a state of its own would fit no list with others
    """Sends an agent's model calls to a strong or a weak chat model.

    With ``scope="run"`` it decides once, when the agent starts, on the last human message, and every model call of
    the run goes to that side: a tool loop stays with one provider, and the provider's prompt cache keeps working. With
    ``scope="call"`` it decides before each model call, on the same human message as long as tools are running; human
    messages that no human wrote, such as a summary in the middle of a loop, do not change the route. The decision
    is in the agent's state and result as ``"routellm"``, in the metadata and tags of the model's run, and on each
    answer (see `routing_decision`).

    When a conversation moves to another model, what that model would refuse is left out, as for `ChatRouteLLM`;
    prompt-cache markers are kept for the models that read them.

    Order: list it before `ModelFallbackMiddleware` and other middleware that sets the model (the first is the
    outermost), so that fallbacks stand in for the model chosen here. Listed after, it would set the model again; it
    notices when a call comes back with another model after a failure, and leaves that model alone.

    A failure of the router follows the policy's ``on_error``. A failure of the chosen model is raised, unless
    ``failover=True``, when the other side answers as for `ChatRouteLLM`, and goes on answering for the run.

    Args:
        strong: The expensive chat model, or its name for `init_chat_model`; tools are bound by the agent.
        weak: The cheap one, likewise. The agent does not call its own ``model``; sub-agents and middleware without
            one of their own still do.
        scope: ``"run"`` or ``"call"``.
        **options: As for `ChatRouteLLM`, see `RoutingOptions`; ``sticky=`` by the agent's ``thread_id`` needs no
            checkpointer.

    Raises:
        ConfigurationError: An option is unknown or not allowed, or a model has arguments bound.
    """

    state_schema = RouteLLMState

    def __init__(
        self,
        *,
        strong: BaseChatModel | str,
        weak: BaseChatModel | str,
        scope: Scope = "run",
        **options: Unpack[RoutingOptions],
    ) -> None:
        super().__init__()
        if scope not in get_args(Scope):
            raise ConfigurationError(f"scope={scope!r:.80}: expected 'run' (decide once a run) or 'call'")
        self.scope = scope
        # step of a graph -> model that its request came with when it failed; forgotten with the step
        self._failed: WeakKeyDictionary[BaseCallbackManager, int] = WeakKeyDictionary()
        sides: dict[str, Any] = {
            name: _unbound(checked_chat_side(model, name), name) for name, model in (("strong", strong), ("weak", weak))
        }
        routing = Routing.of(options, owner="RouteLLMMiddleware")
        self._dispatch = Dispatch(
            **sides,
            routing=routing,
            reader=ChatReader(routing, **sides),
            run_settings=RunSettings("RouteLLMMiddleware"),
        )

    @property
    def policy(self) -> RoutingPolicy:
        """The policy in force."""
        return self._dispatch.routing.policy

    # --- deciding ---

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """With ``scope="run"``, decide for the run; the decision goes into the state."""
        if self.scope != "run":
            return None
        decision = self._dispatch.decide(state["messages"], ensure_config(), {}).decision
        return {KEY: decision.to_dict()}

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Async twin of `before_agent`."""
        if self.scope != "run":
            return None
        decided = await self._dispatch.adecide(state["messages"], ensure_config(), {})
        return {KEY: decided.decision.to_dict()}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Run one model call on the side decided on."""
        if self._overruled(request):
            return handler(request)
        arguments = _arguments(request)
        decided = self._of_run(request, arguments) or self._dispatch.decide(
            request.messages, ensure_config(), arguments
        )
        route = self._route(decided, request)
        record, outcome = self._record(decided, request, is_async=False), _Outcome()
        try:
            with self._dispatch.handed_down([decided]):
                response = route.run(lambda side: handler(self._routed(request, route, record, outcome)))
        except BaseException as exc:
            if record is not None:
                record.failed(exc, route)
            if isinstance(exc, Exception):
                self._note_failure(request)
            raise
        decision = route.priced()
        if record is not None:
            record.answered(response, route)
        return self._response(request, response, self._answerer(decision, response, outcome))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Async twin of `wrap_model_call`."""
        if self._overruled(request):
            return await handler(request)
        arguments = _arguments(request)
        decided = self._of_run(request, arguments) or await self._dispatch.adecide(
            request.messages, ensure_config(), arguments
        )
        route = self._route(decided, request)
        record, outcome = self._record(decided, request, is_async=True), _Outcome()
        try:
            with self._dispatch.handed_down([decided]):
                response = await route.arun(lambda side: handler(self._routed(request, route, record, outcome)))
        except BaseException as exc:
            if record is not None:
                record.failed(exc, route)
            if isinstance(exc, Exception):
                self._note_failure(request)
            raise
        decision = route.priced()
        if record is not None:
            record.answered(response, route)
        return self._response(request, response, self._answerer(decision, response, outcome))

    def _route(self, decided: Decided, request: ModelRequest[Any]) -> Route[Any]:
        return self._dispatch.routing.route(
            decided.request,
            decided.decision,
            is_broken=_is_broken,
            answer_of=_weak_answer,
            messages=request.messages,
            setups=self._dispatch.setup,
        )

    def _of_run(self, request: ModelRequest[Any], arguments: Mapping[str, Any]) -> Decided | None:
        """The decision of the run; None if every call has its own, or if the run has none yet."""
        decision = RoutingDecision.from_dict(request.state.get(KEY)) if self.scope == "run" else None
        if decision is None:
            return None
        decision = _of_this_loop(request.messages, decision)
        if decision.inner is not None:  # what a nested model decides is of one call
            decision = replace(decision, inner=None)
        settings = self._dispatch.settings(ensure_config(), request.messages)
        asked = RoutingRequest(())
        # limits want to know whose call it is, the log and nested models what it was decided on
        if self.policy.limits or self._dispatch.routing.log is not None or self._dispatch.nested:
            asked = self._dispatch.request(request.messages, settings, arguments, ensure_config())
        # tools, schema and tool results are known only now
        if decision.model == "weak" and decision.reason != "forced" and decision.failover is None:
            gap = self._dispatch.reader.gap(request.messages, arguments)
            if gap is not None:
                decision = replace(decision, model="strong", reason="capability", detail=gap, p_strong=1.0)
                decision = self._dispatch.routing.noted(asked, decision, settings)
        return Decided(decision, asked, settings)

    def _answerer(self, decision: RoutingDecision, response: ModelResponse[Any], outcome: _Outcome) -> RoutingDecision:
        """The decision with the side that answered, in case a fallback listed after this middleware took over."""
        if not outcome.only_failed:
            return decision
        name = next((model_name_on(message) for message in response.result if message.type == "ai"), None) or ""
        failed, other = decision.model, other_side(decision.model)
        likeness = {side: name_likeness(name, model_name_of(self._dispatch.side(side))) for side in (failed, other)}
        answered = other if likeness[other] > likeness[failed] else failed
        return replace(decision, model=answered, failover=failed, detail=name or None)

    # --- recording ---

    def _record(self, decided: Decided, request: ModelRequest[Any], *, is_async: bool) -> AgentCallRecord | None:
        routing, decision = self._dispatch.routing, decided.decision
        if routing.log is None:
            return None
        from langchain_routellm.agent_recording import AgentCallRecord

        # with scope="run" one decision holds for several calls; the earlier ones are in the conversation
        step = 0
        if self.scope == "run":
            step = sum(_decision_id(message) == decision.id for message in request.messages)
        return AgentCallRecord(
            routing.recording(decided, step=step),
            request,
            routing.prices,
            lambda side, messages: self._for_side(request, side, messages),
            is_async=is_async,
        )

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

    def _for_side(
        self, request: ModelRequest[Any], side: Side, messages: Sequence[BaseMessage] | None = None
    ) -> ModelRequest[Any]:
        """The request as a side takes it, with `messages` in the place of its own where they are given."""
        model: Any = self._dispatch.side(side)
        other = self._dispatch.side(other_side(side))
        overrides: dict[str, Any] = {}
        if drops_cache_markers(model, other):
            if request.system_message is not None:
                overrides["system_message"] = without_cache_markers(request.system_message)
            overrides["tools"] = [tool_without_cache_markers(tool) for tool in request.tools]
            overrides["model_settings"] = arguments_without_cache_markers(request.model_settings)
        overrides["messages"] = adapted(request.messages if messages is None else messages, side, model, other)
        if must_not_think(overrides["messages"], model):
            model = without_thinking(model)
        return request.override(model=model, **overrides)

    def _routed(
        self, request: ModelRequest[Any], route: Route[Any], record: AgentCallRecord | None, outcome: _Outcome
    ) -> ModelRequest[Any]:
        decision = route.decision
        routed = self._for_side(request, decision.model)
        model: Any = routed.model
        if isinstance(model, BaseChatModel):
            # the agent opens the model's run itself: what the run shall carry has to be on the model
            update: dict[str, Any] = {
                "metadata": {**(model.metadata or {}), KEY: decision.to_dict()},
                # an answer that may still be refused must not be streamed from the graph
                "tags": [*(model.tags or ()), f"{KEY}:{decision.model}", *(["nostream"] if route.is_held else ())],
            }
            watches: list[BaseCallbackHandler] = [outcome]
            if route.may_turn and not route.is_held:
                watches.append(TokenWatch(route))
            if route.on_usage is not None:
                watches.append(UsageWatch(partial(route.on_usage, decision.model), route.refused_below))
            if record is not None:
                watches.append(record.watching(routed))
            own = model.callbacks
            handlers = (own.handlers if isinstance(own, BaseCallbackManager) else own) or ()
            update["callbacks"] = [*handlers, *watches]
            model = model.model_copy(update=update)
        return routed.override(model=model)

    def _response(
        self, request: ModelRequest[Any], response: ModelResponse[Any], decision: RoutingDecision
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        if decision.failover is None:  # after one by other middleware it is not certain which side this is
            for message in response.result:
                self._dispatch.answered(message, decision)
        result = [stamped(m, decision) if m.type == "ai" else m for m in response.result]
        response = ModelResponse(result=result, structured_response=response.structured_response)
        # with what a nested model has decided
        state = next((m.response_metadata[KEY] for m in result if m.type == "ai"), None) or decision.to_dict()
        if request.state.get(KEY) == state:
            return response
        return ExtendedModelResponse(model_response=response, command=Command(update={KEY: state}))


class _Outcome(BaseCallbackHandler):
    """Whether the model that was chosen for a call has answered it."""

    run_inline = True

    def __init__(self) -> None:
        self._answers = self._errors = 0

    @property
    def only_failed(self) -> bool:
        """Whether the chosen model failed and did not answer, so that another one must have."""
        return bool(self._errors and not self._answers)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Count an answer."""
        self._answers += 1

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """Count a failure."""
        self._errors += 1


def _of_this_loop(messages: Sequence[BaseMessage], decision: RoutingDecision) -> RoutingDecision:
    """The decision that the run's last answer carries, or `decision` before there is one.

    A tool may be an agent of its own with its own decision, which frameworks copy into the state of the agent that
    called it; the answers of this agent carry its own.
    """
    for message in reversed(messages):
        if message.type == "human" and not is_synthetic(message):
            break
        standing = routing_decision(message) if message.type == "ai" else None
        if standing is not None:
            return decision if standing.id == decision.id else standing
    return decision


def _decision_id(message: BaseMessage) -> str | None:
    decision = routing_decision(message)
    return None if decision is None else decision.id


def _is_broken(response: ModelResponse[Any] | BaseException) -> bool:
    """Whether a model call of the agent came back without any answer; an error that it raised speaks for itself."""
    if isinstance(response, BaseException):
        return False
    return response.structured_response is None and all(map(is_broken, response.result))


def _weak_answer(response: ModelResponse[Any]) -> WeakAnswer:
    """What a check sees of a model call: the model's message."""
    message = next((m for m in response.result if m.type == "ai"), response.structured_response)
    return weak_answer(message, response)


def _step() -> BaseCallbackManager | None:
    """What identifies the running step of the graph: its callback manager, which lives as long as the step."""
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
