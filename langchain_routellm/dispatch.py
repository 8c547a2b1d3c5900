"""Decide, then run the chosen side as itself: what `ChatRouteLLM`, `RouteLLMRunnable` and the middleware share."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.callbacks.manager import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    CallbackManager,
    CallbackManagerForChainRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    get_config_list,
)
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from langchain_routellm.answers import (
    KEY,
    ReplyWatch,
    TokenWatch,
    cost_chunk,
    is_broken,
    is_empty,
    is_whole,
    merged,
    named_model,
    of_inner,
    stamped,
    weak_answer,
)
from langchain_routellm.batches import Plan
from langchain_routellm.messages import conversation_of
from langchain_routellm.sides import as_level, chat_model_of, routed_in, setup_of
from langchain_routellm.usage import UsageWatch
from routellm_core import RoutingDecision, RoutingRequest
from routellm_core.checks import Side
from routellm_core.policy.route import Route, aclose_stream, close_stream, empty_answer
from routellm_core.policy.routing import (
    FORCE_SETTING,
    NO_SETTINGS,
    THRESHOLD_SETTING,
    CallSettings,
    Decided,
    RoutedOn,
    Routing,
    as_request,
)
from routellm_core.policy.setups import Setup, explain
from routellm_core.policy.tiers import beneath, handed_down

if TYPE_CHECKING:
    from langchain_routellm.recording import CallRecord

CONFIG_SPECS = [
    ConfigurableFieldSpec(
        id=THRESHOLD_SETTING,
        annotation=float,
        name="Routing threshold",
        description="Threshold of this call: the strong model answers when the win rate is at least this.",
        default=None,
    ),
    ConfigurableFieldSpec(
        id=FORCE_SETTING,
        annotation=str,
        name="Forced side",
        description="'strong' or 'weak': this side answers, whatever the win rate.",
        default=None,
    ),
]

# how a side is called: with the side, its input, the config of its run, and the arguments of the call
Call = Callable[[Runnable[Any, Any], Any, RunnableConfig | None, Mapping[str, Any]], Any]
AsyncCall = Callable[[Runnable[Any, Any], Any, RunnableConfig | None, Mapping[str, Any]], Awaitable[Any]]
Source = Callable[[Runnable[Any, Any], Any, RunnableConfig | None, Mapping[str, Any], Route[Any]], Iterator[Any]]
AsyncSource = Callable[
    [Runnable[Any, Any], Any, RunnableConfig | None, Mapping[str, Any], Route[Any]], AsyncIterator[Any]
]
M = TypeVar("M", CallbackManager, AsyncCallbackManager)
QUESTION = "routellm_question"
_END: Any = object()
Planned = Decided | Exception


class Reader(Protocol):
    """How a wrapper reads its inputs."""

    def texts(self, value: Any) -> RoutedOn:
        """What an input is routed on."""

    def gap(self, value: Any, kwargs: Mapping[str, Any]) -> str | None:
        """What the weak side lacks for an input and its call arguments, or None."""

    def fitting(
        self, side: Side, runnable: Runnable[Any, Any], value: Any, arguments: Mapping[str, Any]
    ) -> tuple[Runnable[Any, Any], Any, Mapping[str, Any]]:
        """A side, an input and the arguments of a call in the form that the side's model takes."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the router's run carries: the name, and what the user set on the wrapper for it and for the run below."""

    name: str
    callbacks: list[BaseCallbackHandler] | BaseCallbackManager | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None


@dataclass(slots=True)
class Dispatch:
    """One wrapper's way of deciding and running calls.

    Each call opens a chain run of the router, as `RunnableWithFallbacks` does, and the chosen side runs as its
    child: one model run, the side's own. The decision is in that run's metadata and tags, and on the answer.

    Attributes:
        strong: Answers hard calls.
        weak: Answers easy ones.
        routing: Decides.
        reader: Reads the inputs.
        run_settings: What the router's run carries.
        nested: The sides that are routed models themselves, and so levels of this one.
        shown: Arguments that a binding shows and that both sides have already.
        of_chains: Whether a side is a chain, whose output may well be empty.
        is_straight: Whether a call needs no `Route`, as most do not: the side that is decided on answers, whatever
            happens (no failover, no check of its answer), and nothing counts its tokens: no log, price or limit.
        has_past: Whether a call may be decided in part before it comes: by stickiness, or by a level above.
    """

    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]
    routing: Routing
    reader: Reader
    run_settings: RunSettings = field(default_factory=lambda: RunSettings("RouteLLM"))
    shown: Mapping[str, Any] = field(default_factory=dict)
    nested: frozenset[Side] = field(init=False)
    of_chains: bool = field(init=False)
    is_straight: bool = field(init=False)
    has_past: bool = field(init=False)

    def __post_init__(self) -> None:
        sides: dict[Side, Runnable[Any, Any]] = {"strong": self.strong, "weak": self.weak}
        self.nested = frozenset(side for side, runnable in sides.items() if routed_in(runnable) is not None)
        for side in self.nested:
            setattr(self, side, as_level(sides[side], side, self.routing))
        self.of_chains = chat_model_of(self.strong) is None or chat_model_of(self.weak) is None
        routing = self.routing
        may_turn = routing.failover or routing.acceptance is not None
        is_followed = routing.log is not None or routing.prices is not None or routing.policy.needs_usage
        self.has_past = routing.sticky is not None or routing.level > 0
        self.is_straight = not (may_turn or is_followed or self.of_chains or self.nested)

    def side(self, side: Side) -> Runnable[Any, Any]:
        """The runnable of a side."""
        return self.strong if side == "strong" else self.weak

    def fitting(
        self, side: Side, value: Any, arguments: Mapping[str, Any]
    ) -> tuple[Runnable[Any, Any], Any, Mapping[str, Any]]:
        """A side to call, with the input and the arguments in the form that its model takes."""
        return self.reader.fitting(side, self.side(side), value, arguments)

    # --- deciding ---

    def settings(self, config: RunnableConfig, value: Any) -> CallSettings:
        """The routing settings of a call, from its config."""
        return call_settings(config, self.routing, value)

    def request(
        self, value: Any, settings: CallSettings, kwargs: Mapping[str, Any], config: RunnableConfig
    ) -> RoutingRequest:
        """What the policy is asked for one call."""
        return self.routing.request(
            settings,
            gap=lambda: self.reader.gap(value, kwargs),
            texts=lambda: question_of(config) or self.reader.texts(value),
        )

    def asked(
        self, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> tuple[RoutingRequest | str, CallSettings]:
        """What the policy is asked for one call, as `Decided` has it, with the settings of the call."""
        # most calls: what follows amounts to this, in twice the time
        if not self.has_past and not config.get("configurable") and self.reader.gap(value, kwargs) is None:
            found = question_of(config) or self.reader.texts(value)
            if isinstance(found, str) and found and not found.isspace():
                return found, NO_SETTINGS
            return as_request(found, NO_SETTINGS), NO_SETTINGS
        settings = self.settings(config, value)
        return self.request(value, settings, kwargs, config), settings

    def decide(self, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> Decided:
        """Decide one call."""
        asked, settings = self.asked(value, config, kwargs)
        routing = self.routing
        decision = routing.policy.decide(asked) if isinstance(asked, str) else routing.decide(asked, settings)
        return Decided(decision, asked, settings)

    async def adecide(self, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> Decided:
        """Like `decide`, without blocking the event loop."""
        asked, settings = self.asked(value, config, kwargs)
        routing = self.routing
        deciding = routing.policy.adecide(asked) if isinstance(asked, str) else routing.adecide(asked, settings)
        return Decided(await deciding, asked, settings)

    def plan(
        self,
        values: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any],
        *,
        keep_errors: bool,
    ) -> list[Planned]:
        """Decide a batch with one `win_rates` call; what could not be decided is its exception, or is raised."""
        plan = Plan(self, values, configs, kwargs, keep_errors=keep_errors)
        try:
            return plan.decided(self.routing.policy.decide_batch(plan.requests) if plan.requests else [])
        except Exception as exc:
            return plan.failed(exc)

    async def aplan(
        self,
        values: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any],
        *,
        keep_errors: bool,
    ) -> list[Planned]:
        """Like `plan`, without blocking the event loop."""
        plan = Plan(self, values, configs, kwargs, keep_errors=keep_errors)
        try:
            return plan.decided(await self.routing.policy.adecide_batch(plan.requests) if plan.requests else [])
        except Exception as exc:
            return plan.failed(exc)

    def route(
        self,
        decided: Decided,
        value: Any,
        run: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun,
        output: Callable[[list[Any]], Any] = merged,
    ) -> Route[Any]:
        """The way of one call from its decision on.

        Args:
            decided: The decision.
            value: The input of the call, which a check of weak answers may look at.
            run: The router's run of the call.
            output: What the chunks of a stream amount to.
        """
        if self.is_straight:
            return Route(decided.decision, is_broken=is_broken, setups=self.setup)
        route: Route[Any] = self.routing.route(
            decided.request,
            decided.decision,
            is_broken=ReplyWatch() if self.of_chains else is_broken,
            answer_of=lambda given: weak_answer(output(given) if isinstance(given, list) else given, given),
            messages=value,
            setups=self.setup,
        )
        above = [handler for handler in run.handlers if isinstance(handler, UsageWatch)]
        if above and self.routing.acceptance is not None:
            route.on_refused = partial(_refused, above)
        return route

    def setup(self, side: Side) -> Setup | None:
        """How a side is set up; None for a routed model, which knows its own two."""
        return None if side in self.nested else setup_of(self.side(side))

    def answered(self, output: Any, decision: RoutingDecision) -> None:
        """Note which model an output, or the pieces of a stream, names: a warning is due where both sides are one."""
        names = self.routing.model_names
        if not names.is_settled:
            names.answered(decision.model, named_model(output), self.setup)

    # --- recording ---

    def record(self, decided: Decided, value: Any, kwargs: Mapping[str, Any], *, is_async: bool) -> CallRecord | None:
        """Begin to record a call in the log; None without one."""
        if self.routing.log is None:
            return None
        recording = self.routing.recording(decided)
        from langchain_routellm.recording import CallRecord, aask, ask, silenced, snapshot
        from routellm_core.log import SideSpent

        if not recording.is_drawn:
            return CallRecord(recording, None, is_async=is_async)
        before, arguments = snapshot(value), dict(kwargs)

        def of_side(side: Side) -> Any:
            runnable, item, fitting = self.fitting(side, before, arguments)
            spent = SideSpent(side, self.routing.prices)
            return (aask if is_async else ask)(silenced(runnable), item, fitting, spent)

        return CallRecord(recording, of_side, is_async=is_async)

    # --- running one call ---

    def run(
        self,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        planned: Planned | None = None,
        call: Call | None = None,
    ) -> Any:
        """Decide (unless planned), run the chosen side, and return its answer with the decision.

        The side runs through `call`; by default that is ``side.invoke``.
        """
        call = call or _invoke
        whole, run = self.start(value, config)
        try:
            if isinstance(planned, Exception):
                raise planned
            decided = planned or self.decide(value, whole, kwargs)
            if self.is_straight:  # here and not in a method of its own, which every call would pay for
                decision = decided.decision
                try:
                    runnable, item, arguments = self.fitting(decision.model, value, kwargs)
                    output = call(runnable, item, self.child(config, run, decision), arguments)
                    if is_broken(output):
                        raise empty_answer(decision.model)
                except Exception as exc:
                    explain(exc, decision.model, self.setup)
                    raise
            else:
                output, decision = self._routed(decided, value, config, kwargs, run, call)
            self.answered(output, decision)
            output = stamped(output, decision)
        except BaseException as exc:
            run.on_chain_error(exc)
            raise
        run.on_chain_end(output)
        return output

    def _routed(
        self,
        decided: Decided,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        run: CallbackManagerForChainRun,
        call: Call,
    ) -> tuple[Any, RoutingDecision]:
        """The answer that a route leads to, and its decision in the end."""
        route = self.route(decided, value, run)
        record = self.record(decided, value, kwargs, is_async=False)

        def attempt(side: Side) -> Any:
            runnable, item, arguments = self.fitting(side, value, kwargs)
            child = self.child(config, run, route.decision, route, record)
            if side not in self.nested:
                return call(runnable, item, child, arguments)
            with handed_down(self.routing, [decided]):
                return call(runnable, item, child, arguments)

        try:
            output = route.run(attempt)
        except BaseException as exc:
            self._log_failure(record, route, exc)
            raise
        decision = route.priced()
        if record is not None:
            record.answered(output, route)
        return output, decision

    async def arun(
        self,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        planned: Planned | None = None,
        call: AsyncCall | None = None,
    ) -> Any:
        """Async twin of `run`."""
        call = call or _ainvoke
        whole, run = await self.astart(value, config)
        try:
            if isinstance(planned, Exception):
                raise planned
            decided = planned or await self.adecide(value, whole, kwargs)
            if self.is_straight:  # here and not in a method of its own, which every call would pay for
                decision = decided.decision
                try:
                    runnable, item, arguments = self.fitting(decision.model, value, kwargs)
                    output = await call(runnable, item, self.child(config, run, decision), arguments)
                    if is_broken(output):
                        raise empty_answer(decision.model)
                except Exception as exc:
                    explain(exc, decision.model, self.setup)
                    raise
            else:
                output, decision = await self._arouted(decided, value, config, kwargs, run, call)
            self.answered(output, decision)
            output = stamped(output, decision)
        except BaseException as exc:
            await run.on_chain_error(exc)
            raise
        await run.on_chain_end(output)
        return output

    async def _arouted(
        self,
        decided: Decided,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        run: AsyncCallbackManagerForChainRun,
        call: AsyncCall,
    ) -> tuple[Any, RoutingDecision]:
        """Async twin of `_routed`."""
        route = self.route(decided, value, run)
        record = self.record(decided, value, kwargs, is_async=True)

        def attempt(side: Side) -> Awaitable[Any]:
            runnable, item, arguments = self.fitting(side, value, kwargs)
            child = self.child(config, run, route.decision, route, record)
            if side not in self.nested:
                return call(runnable, item, child, arguments)
            return self._handing(decided, call, runnable, item, child, arguments)

        try:
            output = await route.arun(attempt)
        except BaseException as exc:
            self._log_failure(record, route, exc)
            raise
        decision = route.priced()
        if record is not None:
            record.answered(output, route)
        return output, decision

    # --- streams ---

    def stream(
        self,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        source: Source | None = None,
        output: Callable[[list[Any]], Any] = merged,
    ) -> Generator[Any]:
        """Route one call to ``side.stream`` (or `source`); the first chunk carries the decision.

        Where prices are given, an empty last chunk carries what the call has cost. What the chunks amount to, by
        `output`, is the output of the router's run.
        """
        source = source or _stream
        whole, run = self.start(value, config)
        given: list[Any] = []
        route, record = None, None
        try:
            decided = self.decide(value, whole, kwargs)
            route = self.route(decided, value, run, output)
            record = self.record(decided, value, kwargs, is_async=False)

            def open_(side: Side) -> Iterator[Any]:
                runnable, item, arguments = self.fitting(side, value, kwargs)
                child = self.child(config, run, route.decision, route, record)
                chunks = iter(source(runnable, item, child, arguments, route))
                return self._begun(decided, chunks) if side in self.nested else chunks

            with closing(route.stream(open_, is_empty)) as chunks:
                for chunk in chunks:
                    given.append(chunk if given else stamped(chunk, _decision_for(chunk, route)))
                    yield given[-1]
        except GeneratorExit as exc:  # the reader closed the stream, which is not an error
            self._log_failure(record, route, exc)
            run.on_chain_end(output(given) if run.handlers else None)
            raise
        except BaseException as exc:
            self._log_failure(record, route, exc)
            run.on_chain_error(exc)
            raise
        decision = route.priced()
        self.answered(given, decision)
        if record is not None:
            record.answered(output(given), route)
        last = None if decision.cost is None else cost_chunk(given, decision.cost)
        run.on_chain_end(output([*given, *([] if last is None else [last])]) if run.handlers else None)
        if last is not None:
            yield last

    async def astream(
        self,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        source: AsyncSource | None = None,
        output: Callable[[list[Any]], Any] = merged,
    ) -> AsyncGenerator[Any]:
        """Async twin of `stream`."""
        source = source or _astream
        whole, run = await self.astart(value, config)
        given: list[Any] = []
        route, record = None, None
        try:
            decided = await self.adecide(value, whole, kwargs)
            route = self.route(decided, value, run, output)
            record = self.record(decided, value, kwargs, is_async=True)

            async def open_(side: Side) -> AsyncIterator[Any]:
                runnable, item, arguments = self.fitting(side, value, kwargs)
                child = self.child(config, run, route.decision, route, record)
                chunks = aiter(source(runnable, item, child, arguments, route))
                return self._abegun(decided, chunks) if side in self.nested else chunks

            async with aclosing(route.astream(open_, is_empty)) as chunks:
                async for chunk in chunks:
                    given.append(chunk if given else stamped(chunk, _decision_for(chunk, route)))
                    yield given[-1]
        except GeneratorExit as exc:
            self._log_failure(record, route, exc)
            await run.on_chain_end(output(given) if run.handlers else None)
            raise
        except BaseException as exc:
            self._log_failure(record, route, exc)
            await run.on_chain_error(exc)
            raise
        decision = route.priced()
        self.answered(given, decision)
        if record is not None:
            record.answered(output(given), route)
        last = None if decision.cost is None else cost_chunk(given, decision.cost)
        await run.on_chain_end(output([*given, *([] if last is None else [last])]) if run.handlers else None)
        if last is not None:
            yield last

    # --- calls of a side that is a routed model ---

    def handed_down(self, decided: Iterable[Decided]) -> AbstractContextManager[None]:
        """Within this, a side that is a routed model knows the win rates of these calls."""
        return handed_down(self.routing, list(decided)) if self.nested else nullcontext()

    async def _handing(self, decided: Decided, call: Callable[..., Awaitable[Any]], *call_arguments: Any) -> Any:
        with handed_down(self.routing, [decided]):
            return await call(*call_arguments)

    def _begun(self, decided: Decided, chunks: Iterator[Any]) -> Generator[Any]:
        """A stream whose side decides with its first chunk."""
        try:
            with handed_down(self.routing, [decided]):
                first = next(chunks, _END)
            if first is not _END:
                yield first
                yield from map(of_inner, chunks)
        finally:
            close_stream(chunks)

    async def _abegun(self, decided: Decided, chunks: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        """Async twin of `_begun`."""
        try:
            with handed_down(self.routing, [decided]):
                first = await anext(chunks, _END)
            if first is not _END:
                yield first
                async for chunk in chunks:
                    yield of_inner(chunk)
        finally:
            await aclose_stream(chunks)

    def _log_failure(self, record: CallRecord | None, route: Route[Any] | None, exc: BaseException) -> None:
        if record is not None and route is not None:
            record.failed(exc, route)

    # --- runs ---

    def start(self, value: Any, config: RunnableConfig | None) -> tuple[RunnableConfig, CallbackManagerForChainRun]:
        """Open the router's run of one call; return it with the call's complete config."""
        config = ensure_config(config)
        return config, self._opened(self._labelled(get_callback_manager_for_config(config)), value, config)

    async def astart(
        self, value: Any, config: RunnableConfig | None
    ) -> tuple[RunnableConfig, AsyncCallbackManagerForChainRun]:
        """Async twin of `start`."""
        config = ensure_config(config)
        return config, await self._aopened(self._labelled(get_async_callback_manager_for_config(config)), value, config)

    def start_all(
        self, values: Sequence[Any], config: RunnableConfig | list[RunnableConfig] | None
    ) -> list[tuple[RunnableConfig, CallbackManagerForChainRun]]:
        """Open the router's run of each call of a batch."""
        configs = _configs(config, len(values))
        managers = self._managers(config, configs, get_callback_manager_for_config)
        return [(c, self._opened(m, v, c)) for m, v, c in zip(managers, values, configs, strict=True)]

    async def astart_all(
        self, values: Sequence[Any], config: RunnableConfig | list[RunnableConfig] | None
    ) -> list[tuple[RunnableConfig, AsyncCallbackManagerForChainRun]]:
        """Async twin of `start_all`; the runs open at the same time."""
        configs = _configs(config, len(values))
        managers = self._managers(config, configs, get_async_callback_manager_for_config)
        opened = [self._aopened(m, v, c) for m, v, c in zip(managers, values, configs, strict=True)]
        if any(manager.handlers for manager in managers):
            runs = await asyncio.gather(*opened)
        else:  # there is nothing to wait for, and a task per call would cost more than everything else
            runs = [await run for run in opened]
        return list(zip(configs, runs, strict=True))

    def _managers(
        self,
        config: RunnableConfig | list[RunnableConfig] | None,
        configs: list[RunnableConfig],
        configured: Callable[[RunnableConfig], M],
    ) -> list[M]:
        """The callback managers of a batch; calls that have one config share one, since it opens any number of runs."""
        if isinstance(config, Sequence):
            return [self._labelled(configured(each)) for each in configs]
        return [self._labelled(configured(configs[0]))] * len(configs)

    def _labelled(self, manager: M) -> M:
        """A callback manager with the handlers, tags and metadata that were set on the wrapper.

        The chosen side inherits them: whoever sets them on a chat model expects to see its model run.
        """
        own = self.run_settings.callbacks
        if own is not None:
            for handler in (own.handlers if isinstance(own, BaseCallbackManager) else own) or ():
                manager.add_handler(handler)
        if self.run_settings.tags:
            manager.add_tags(self.run_settings.tags)
        if self.run_settings.metadata:
            manager.add_metadata(self.run_settings.metadata)
        return manager

    def _opened(self, manager: CallbackManager, value: Any, config: RunnableConfig) -> CallbackManagerForChainRun:
        run_id = config.pop("run_id", None)
        if not manager.handlers:
            return cast("CallbackManagerForChainRun", _UnseenRun(manager))
        name = config.get("run_name") or self.run_settings.name
        return manager.on_chain_start(None, value, name=name, run_id=run_id)

    async def _aopened(
        self, manager: AsyncCallbackManager, value: Any, config: RunnableConfig
    ) -> AsyncCallbackManagerForChainRun:
        run_id = config.pop("run_id", None)
        if not manager.handlers:
            return cast("AsyncCallbackManagerForChainRun", _AsyncUnseenRun(manager))
        name = config.get("run_name") or self.run_settings.name
        return await manager.on_chain_start(None, value, name=name, run_id=run_id)

    def child(
        self,
        config: RunnableConfig | None,
        run: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun,
        decision: RoutingDecision,
        route: Route[Any] | None = None,
        record: CallRecord | None = None,
    ) -> RunnableConfig | None:
        """The config of the chosen side's run, which carries the decision in its metadata and tags.

        It is the caller's config, without the name and id of the router's run: the side completes it itself.
        """
        side = self.side(decision.model)
        if record is not None:
            record.calls(side)
        is_watched = not isinstance(run, _UnseenRun) or (
            route is not None
            and (decision.model in self.nested or route.on_usage is not None or isinstance(route.is_broken, ReplyWatch))
        )
        if not is_watched and isinstance(side, BaseChatModel) and side.callbacks is None:
            # neither the call nor the model has a handler, so nobody would see the decision
            return None if config is None else _without_run(config)
        tag = f"{KEY}:{decision.model}"
        if self.routing.level:
            decision = beneath(run.inheritable_metadata.get(KEY), decision)
        manager = _manager_below(run, tag, {KEY: decision.to_dict()})
        if route is not None and not self.is_straight:
            self._watch(manager, route)
        child = _without_run(config or {})
        child["callbacks"] = manager
        if record is not None:
            child["run_id"] = record.runs_under(side, manager)
        return child

    def _watch(self, manager: CallbackManager | AsyncCallbackManager, route: Route[Any]) -> None:
        """Add the handlers by which a route watches the side's run; remove those that must not see a held answer."""
        if route.is_held:
            # the answer may still be refused, so it must not appear in LangGraph's streams or in streams of events
            for handler in [h for h in manager.handlers if isinstance(h, _StreamingCallbackHandler)]:
                manager.remove_handler(handler)
        elif route.may_turn and manager.handlers:
            manager.add_handler(TokenWatch(route))
        if isinstance(route.is_broken, ReplyWatch):
            manager.add_handler(route.is_broken)
        if route.on_usage is not None:
            manager.add_handler(UsageWatch(partial(route.on_usage, route.side), route.refused_below))


def _refused(above: Sequence[UsageWatch], runs: int) -> None:
    """Tell the routed calls around a call that its check refused an answer of that many model runs."""
    for watch in above:
        watch.refused(runs)


def _configs(config: RunnableConfig | list[RunnableConfig] | None, count: int) -> list[RunnableConfig]:
    """The complete config of each call of a batch; configs are only read, so calls with the same one share it."""
    if isinstance(config, Sequence) or (config is not None and config.get("run_id") is not None):
        return get_config_list(config, count)
    return [ensure_config(config)] * count


def _manager_below(
    run: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun, tag: str, metadata: Mapping[str, Any]
) -> CallbackManager | AsyncCallbackManager:
    """What ``run.get_child(tag)`` returns, with more metadata, made in one step, which takes a third of the time."""
    if isinstance(run, _UnseenRun):
        return run.get_child(tag, metadata)
    made = CallbackManager if isinstance(run, CallbackManagerForChainRun) else AsyncCallbackManager
    return made(
        handlers=run.inheritable_handlers.copy(),
        inheritable_handlers=run.inheritable_handlers.copy(),
        parent_run_id=run.run_id,
        tags=[*run.inheritable_tags, tag],
        inheritable_tags=run.inheritable_tags.copy(),
        metadata={**run.inheritable_metadata, **metadata},
        inheritable_metadata={**run.inheritable_metadata, **metadata},
    )


def _without_run(config: RunnableConfig) -> RunnableConfig:
    """A copy of a config without the name and the id of the run that it was meant for."""
    copied = config.copy()
    copied.pop("run_name", None)
    copied.pop("run_id", None)
    return copied


def _decision_for(piece: Any, route: Route[Any]) -> RoutingDecision:
    """The decision for the first piece of a stream; what is whole has cost what it costs, and no chunk follows it."""
    return route.priced() if is_whole(piece) else route.decision


def _invoke(side: Any, value: Any, config: RunnableConfig | None, arguments: Mapping[str, Any]) -> Any:
    return side.invoke(value, config, **arguments)


def _ainvoke(side: Any, value: Any, config: RunnableConfig | None, arguments: Mapping[str, Any]) -> Awaitable[Any]:
    return cast("Awaitable[Any]", side.ainvoke(value, config, **arguments))


def _stream(
    side: Any, value: Any, config: RunnableConfig | None, arguments: Mapping[str, Any], _: Route[Any]
) -> Iterator[Any]:
    return cast("Iterator[Any]", side.stream(value, config, **arguments))


def _astream(
    side: Any, value: Any, config: RunnableConfig | None, arguments: Mapping[str, Any], _: Route[Any]
) -> AsyncIterator[Any]:
    return cast("AsyncIterator[Any]", side.astream(value, config, **arguments))


def question_of(config: RunnableConfig) -> str | None:
    """The user's question behind a call, if the metadata of its config has one as ``"routellm_question"``.

    Retrievers and other helpers put a template around the question and pass on the metadata of their config.
    """
    found = (config.get("metadata") or {}).get(QUESTION)
    callbacks = config.get("callbacks")
    if found is None and isinstance(callbacks, BaseCallbackManager):
        found = callbacks.metadata.get(QUESTION)
    return found if isinstance(found, str) and found.strip() else None


def call_settings(config: RunnableConfig, routing: Routing, value: Any) -> CallSettings:
    """The routing settings of one call, from the ``configurable`` of its config.

    Raises:
        ConfigurationError: A value is not allowed.
    """
    return routing.settings(config.get("configurable") or {}, lambda: conversation_of(value))


class _UnseenRun:
    """Stands in for a run that no handler watches, and which therefore needs no id and no events."""

    handlers: ClassVar[list[BaseCallbackHandler]] = []

    def __init__(self, manager: BaseCallbackManager) -> None:
        self._manager = manager

    @property
    def inheritable_metadata(self) -> dict[str, Any]:
        return self._manager.inheritable_metadata

    def get_child(self, tag: str, metadata: Mapping[str, Any]) -> BaseCallbackManager:
        child = self._manager.copy()
        child.tags = [*child.tags, tag]
        child.metadata.update(metadata)
        child.inheritable_metadata.update(metadata)
        return child

    def on_chain_end(self, outputs: Any) -> None:
        pass

    def on_chain_error(self, error: BaseException) -> None:
        pass


class _AsyncUnseenRun(_UnseenRun):
    """Async twin of `_UnseenRun`."""

    async def on_chain_end(self, outputs: Any) -> None:  # type: ignore[override]
        pass

    async def on_chain_error(self, error: BaseException) -> None:  # type: ignore[override]
        pass
