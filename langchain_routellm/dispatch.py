"""Decide, then run the chosen side as itself: what `ChatRouteLLM` and `RouteLLMRunnable` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.callbacks.manager import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    get_config_list,
    get_executor_for_config,
)

from routellm_core import RoutingDecision, RoutingPolicy, RoutingRequest, Stickiness
from routellm_core.checks import Side, checked_fraction, checked_side, other_side
from routellm_core.policy.failover import is_survivable

KEY = "routellm"
THRESHOLD_KEY = "routellm_threshold"
FORCE_KEY = "routellm_force"
# what with_structured_output(include_raw=True) gives
_WITH_RAW = frozenset({"raw", "parsed", "parsing_error"})

CONFIG_SPECS = [
    ConfigurableFieldSpec(
        id=THRESHOLD_KEY,
        annotation=float,
        name="Routing threshold",
        description="Threshold of this call: the strong model answers when the win rate is at least this.",
        default=None,
    ),
    ConfigurableFieldSpec(
        id=FORCE_KEY,
        annotation=str,
        name="Forced side",
        description="'strong' or 'weak': this side answers, whatever the win rate.",
        default=None,
    ),
]

Call = Callable[[Runnable[Any, Any], Any, RunnableConfig], Any]
Source = Callable[[Runnable[Any, Any], Any, RunnableConfig, RoutingDecision], Iterator[Any]]
AsyncSource = Callable[[Runnable[Any, Any], Any, RunnableConfig, RoutingDecision], AsyncIterator[Any]]
Planned = RoutingDecision | Exception


def routing_decision(answer: Any) -> RoutingDecision | None:
    """The decision that an answer carries.

    Args:
        answer: A message or message chunk; also the dict that ``with_structured_output(include_raw=True)`` gives.

    Returns:
        The decision, or None when the answer was not routed.
    """
    if isinstance(answer, Mapping):
        answer = answer.get("raw")
    return recalled(getattr(answer, "response_metadata", {}).get(KEY))


def recalled(found: Any) -> RoutingDecision | None:
    """The decision in a stored dict; None when there is none.

    Messages and agent states outlive a version of this package, so what a dict has beyond a decision is passed over.
    """
    if not isinstance(found, Mapping):
        return None
    try:
        return RoutingDecision(**{name: found[name] for name in RoutingDecision.__slots__ if name in found})
    except TypeError:  # too little to be a decision
        return None


def flat(decision: RoutingDecision) -> dict[str, Any]:
    """`RoutingDecision.to_dict`, without the recursion that `dataclasses.asdict` costs on every call."""
    return {name: getattr(decision, name) for name in RoutingDecision.__slots__}


def stamped(output: Any, decision: RoutingDecision) -> Any:
    """A copy of an output that carries the decision, where it has a place for one; never the output changed.

    A cache hands the same message to many calls, so it must not be written to.
    """
    if isinstance(output, BaseMessage):
        return output.model_copy(update={"response_metadata": {**output.response_metadata, KEY: flat(decision)}})
    # include_raw=True; a stream of it opens with the raw message alone
    if isinstance(output, dict) and isinstance(output.get("raw"), BaseMessage) and output.keys() <= _WITH_RAW:
        return {**output, "raw": stamped(output["raw"], decision)}
    if isinstance(output, LLMResult):
        generations = [
            [
                g.model_copy(update={"message": stamped(g.message, decision)}) if isinstance(g, ChatGeneration) else g
                for g in answers
            ]
            for answers in output.generations
        ]
        return output.model_copy(update={"generations": generations})
    return output


@dataclass(slots=True)
class Dispatch:
    """One wrapper's way of deciding and running calls.

    Each call opens a chain run of the router, as `RunnableWithFallbacks` does, and the chosen side runs as its
    child: one model run, the side's own. The decision stands in that run's metadata and tags, and on the answer.

    Attributes:
        name: Name of the router's run.
        strong: Answers hard calls.
        weak: Answers easy ones.
        policy: Decides.
        texts: From an input to the texts that it is routed on.
        gap: From an input and its call arguments to what the weak side lacks for it, or None.
        failover: Whether the other side answers when the chosen one fails before its first token.
        sticky: Conversations that stay strong.
        adapt: From a side and an input to the input as that side takes it; None passes inputs on as they are.
        callbacks, tags, metadata: Of the wrapper; they hold for the router's run and what runs below it.
    """

    name: str
    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]
    policy: RoutingPolicy
    texts: Callable[[Any], tuple[str, ...]]
    gap: Callable[[Any, Mapping[str, Any]], str | None]
    failover: bool = False
    sticky: Stickiness | None = None
    adapt: Callable[[Side, Any], Any] | None = None
    callbacks: list[BaseCallbackHandler] | BaseCallbackManager | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None

    def side(self, side: Side) -> Runnable[Any, Any]:
        """The runnable of a side."""
        return self.strong if side == "strong" else self.weak

    def input(self, side: Side, value: Any) -> Any:
        """An input as a side takes it."""
        return value if self.adapt is None else self.adapt(side, value)

    # --- deciding ---

    def request(self, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> RoutingRequest:
        """What the policy is asked for one call: forced, lacking capability, sticky, or texts to score."""
        configurable = config.get("configurable") or {}
        threshold = configurable.get(THRESHOLD_KEY)
        if threshold is not None:
            threshold = checked_fraction(threshold, THRESHOLD_KEY)
        force = configurable.get(FORCE_KEY)
        if force is not None:
            return RoutingRequest((), threshold, checked_side(force, FORCE_KEY))
        gap = self.gap(value, kwargs)
        if gap is not None:
            return RoutingRequest((), threshold, "strong", "capability", gap)
        request = RoutingRequest(self.texts(value), threshold)
        return request if self.sticky is None else self.sticky.before(self._conversation(config), request)

    def decide(self, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> RoutingDecision:
        """Decide one call."""
        return self.noted(self.policy.decide(self.request(value, config, kwargs)), config)

    async def adecide(self, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> RoutingDecision:
        """Like `decide`, without blocking the event loop."""
        return self.noted(await self.policy.adecide(self.request(value, config, kwargs)), config)

    def plan(
        self, values: Sequence[Any], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any], keep_errors: bool
    ) -> list[Planned]:
        """Decide a batch with one `win_rates` call; what could not be decided is its exception, or is raised."""
        requests = self._requests(values, configs, kwargs, keep_errors)
        sound = [r for r in requests if isinstance(r, RoutingRequest)]
        try:
            decisions = self.policy.decide_batch(sound) if sound else []
        except Exception as exc:
            if not keep_errors:
                raise
            return self._settled(requests, exc, configs)
        return self._planned(requests, decisions, configs)

    async def aplan(
        self, values: Sequence[Any], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any], keep_errors: bool
    ) -> list[Planned]:
        """Like `plan`, without blocking the event loop."""
        requests = self._requests(values, configs, kwargs, keep_errors)
        sound = [r for r in requests if isinstance(r, RoutingRequest)]
        try:
            decisions = await self.policy.adecide_batch(sound) if sound else []
        except Exception as exc:
            if not keep_errors:
                raise
            return self._settled(requests, exc, configs)
        return self._planned(requests, decisions, configs)

    def _requests(
        self, values: Sequence[Any], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any], keep_errors: bool
    ) -> list[RoutingRequest | Exception]:
        requests: list[RoutingRequest | Exception] = []
        for value, config in zip(values, configs, strict=True):
            try:
                requests.append(self.request(value, config, kwargs))
            except Exception as exc:
                if not keep_errors:
                    raise
                requests.append(exc)
        return requests

    def _planned(
        self,
        requests: Sequence[RoutingRequest | Exception],
        decisions: Sequence[RoutingDecision],
        configs: Sequence[RunnableConfig],
    ) -> list[Planned]:
        ready = iter(decisions)
        return [
            self.noted(next(ready), config) if isinstance(request, RoutingRequest) else request
            for request, config in zip(requests, configs, strict=True)
        ]

    def _settled(
        self, requests: Sequence[RoutingRequest | Exception], exc: Exception, configs: Sequence[RunnableConfig]
    ) -> list[Planned]:
        """What is left of a batch whose router raised: calls that are settled without it are not lost with it."""
        return [
            request
            if isinstance(request, Exception)
            else exc
            if request.force is None
            else self.noted(self.policy.decide(request), config)
            for request, config in zip(requests, configs, strict=True)
        ]

    def _conversation(self, config: RunnableConfig) -> str | None:
        assert self.sticky is not None
        found = (config.get("configurable") or {}).get(self.sticky.key)
        return None if found is None else str(found)

    def noted(self, decision: RoutingDecision, config: RunnableConfig) -> RoutingDecision:
        """Let stickiness see a decision, and have its say."""
        return decision if self.sticky is None else self.sticky.after(self._conversation(config), decision)

    # --- running one call ---

    def run(
        self,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        call: Call,
        planned: Planned | None = None,
    ) -> Any:
        """Decide (unless planned), run the chosen side through `call`, and return its answer with the decision."""
        config, run = self._start(value, config)
        try:
            if isinstance(planned, Exception):
                raise planned
            decision = planned or self.decide(value, config, kwargs)
            child, watch = self._child(config, run, decision)
            try:
                output = call(self.side(decision.model), self.input(decision.model, value), child)
            except Exception as exc:
                decision = self.second(decision, exc, watch)
                child, _ = self._child(config, run, decision)
                output = call(self.side(decision.model), self.input(decision.model, value), child)
            output = stamped(output, decision)
        except BaseException as exc:
            run.on_chain_error(exc)
            raise
        run.on_chain_end(output)
        return output

    async def arun(
        self,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        call: Callable[[Runnable[Any, Any], Any, RunnableConfig], Awaitable[Any]],
        planned: Planned | None = None,
    ) -> Any:
        """Async twin of `run`."""
        config, run = await self._astart(value, config)
        try:
            if isinstance(planned, Exception):
                raise planned
            decision = planned or await self.adecide(value, config, kwargs)
            child, watch = self._child(config, run, decision)
            try:
                output = await call(self.side(decision.model), self.input(decision.model, value), child)
            except Exception as exc:
                decision = self.second(decision, exc, watch)
                child, _ = self._child(config, run, decision)
                output = await call(self.side(decision.model), self.input(decision.model, value), child)
            output = stamped(output, decision)
        except BaseException as exc:
            await run.on_chain_error(exc)
            raise
        await run.on_chain_end(output)
        return output

    def invoke(
        self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any], planned: Planned | None = None
    ) -> Any:
        """Route one call to ``side.invoke``."""
        return self.run(value, config, kwargs, lambda side, item, child: side.invoke(item, child, **kwargs), planned)

    async def ainvoke(
        self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any], planned: Planned | None = None
    ) -> Any:
        """Route one call to ``side.ainvoke``."""
        return await self.arun(
            value, config, kwargs, lambda side, item, child: side.ainvoke(item, child, **kwargs), planned
        )

    # --- streams ---

    def stream(
        self,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        source: Source | None = None,
        merged: Callable[[list[Any]], Any] | None = None,
    ) -> Iterator[Any]:
        """Route one call to ``side.stream`` (or `source`); the first chunk carries the decision.

        What the chunks amount to (`merged`) is the output of the router's run.
        """
        merge = merged or _merged
        open_ = source or (lambda side, item, child, _: side.stream(item, child, **kwargs))
        config, run = self._start(value, config)
        given: list[Any] = []
        try:
            decision = self.decide(value, config, kwargs)
            with closing(self._chunks(open_, decision, value, config, run)) as chunks:
                for chunk in chunks:
                    given.append(chunk)
                    yield chunk
        except GeneratorExit:  # the consumer has had enough: not an error
            run.on_chain_end(merge(given) if run.handlers else None)
            raise
        except BaseException as exc:
            run.on_chain_error(exc)
            raise
        run.on_chain_end(merge(given) if run.handlers else None)

    def _chunks(
        self,
        open_: Source,
        decision: RoutingDecision,
        value: Any,
        config: RunnableConfig,
        run: CallbackManagerForChainRun,
    ) -> Generator[Any]:
        child, _ = self._child(config, run, decision)
        stream = iter(open_(self.side(decision.model), self.input(decision.model, value), child, decision))
        held: list[Any] = []
        try:
            for chunk in stream:
                held.append(chunk)
                if not self.failover or _carries_token(chunk):
                    break
        except Exception as exc:
            decision = self.second(decision, exc)
            child, _ = self._child(config, run, decision)
            held, stream = (
                [],
                iter(open_(self.side(decision.model), self.input(decision.model, value), child, decision)),
            )
            held.extend(_first(stream))
        if held:
            yield stamped(held[0], decision)
            yield from held[1:]
        yield from stream

    async def astream(
        self,
        value: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        source: AsyncSource | None = None,
        merged: Callable[[list[Any]], Any] | None = None,
    ) -> AsyncGenerator[Any]:
        """Async twin of `stream`."""
        merge = merged or _merged
        open_ = source or (lambda side, item, child, _: side.astream(item, child, **kwargs))
        config, run = await self._astart(value, config)
        given: list[Any] = []
        try:
            decision = await self.adecide(value, config, kwargs)
            async with aclosing(self._achunks(open_, decision, value, config, run)) as chunks:
                async for chunk in chunks:
                    given.append(chunk)
                    yield chunk
        except GeneratorExit:
            await run.on_chain_end(merge(given) if run.handlers else None)
            raise
        except BaseException as exc:
            await run.on_chain_error(exc)
            raise
        await run.on_chain_end(merge(given) if run.handlers else None)

    async def _achunks(
        self,
        open_: AsyncSource,
        decision: RoutingDecision,
        value: Any,
        config: RunnableConfig,
        run: AsyncCallbackManagerForChainRun,
    ) -> AsyncGenerator[Any]:
        child, _ = self._child(config, run, decision)
        stream = open_(self.side(decision.model), self.input(decision.model, value), child, decision)
        held: list[Any] = []
        try:
            try:
                async for chunk in stream:
                    held.append(chunk)
                    if not self.failover or _carries_token(chunk):
                        break
            except Exception as exc:
                decision = self.second(decision, exc)
                child, _ = self._child(config, run, decision)
                held, stream = [], open_(self.side(decision.model), self.input(decision.model, value), child, decision)
                async for chunk in stream:
                    held.append(chunk)
                    break
            if held:
                yield stamped(held[0], decision)
                for chunk in held[1:]:
                    yield chunk
            async for chunk in stream:
                yield chunk
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    # --- batches ---

    def batch(
        self,
        values: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None,
        return_exceptions: bool,
        kwargs: Mapping[str, Any],
    ) -> list[Any]:
        """Route a batch with one `win_rates` call; each side gets its share as one batch of its own."""
        if not values:
            return []
        started = [
            self._start(v, c) for v, c in zip(values, get_config_list(config, len(values)), strict=True)
        ]  # one router run per input, like RunnableWithFallbacks
        work = _BatchWork(self, values, started, kwargs)
        try:
            plan = self.plan(values, work.configs, kwargs, return_exceptions)
            for groups in work.rounds(plan):
                if len(groups) == 2 and not work.configs[0].get("max_concurrency"):
                    with get_executor_for_config({"max_concurrency": 2}) as executor:
                        results = list(executor.map(lambda group: _batch_of(self, work, *group), groups))
                else:  # one after the other: two batches at once would be twice the allowed concurrency
                    results = [_batch_of(self, work, *group) for group in groups]
                work.collect(groups, results)
        except BaseException as exc:
            for _, run in started:
                run.on_chain_error(exc)
            raise
        for (_, run), output in zip(started, work.outputs, strict=True):
            if isinstance(output, BaseException):
                run.on_chain_error(output)
            else:
                run.on_chain_end(output)
        return work.result(return_exceptions)

    async def abatch(
        self,
        values: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None,
        return_exceptions: bool,
        kwargs: Mapping[str, Any],
    ) -> list[Any]:
        """Async twin of `batch`."""
        if not values:
            return []
        configs = get_config_list(config, len(values))
        started = await asyncio.gather(*(self._astart(v, c) for v, c in zip(values, configs, strict=True)))
        work = _BatchWork(self, values, started, kwargs)
        try:
            plan = await self.aplan(values, work.configs, kwargs, return_exceptions)
            for groups in work.rounds(plan):
                if len(groups) == 2 and not work.configs[0].get("max_concurrency"):
                    results = list(await asyncio.gather(*(_abatch_of(self, work, *group) for group in groups)))
                else:
                    results = [await _abatch_of(self, work, *group) for group in groups]
                work.collect(groups, results)
        except BaseException as exc:
            await asyncio.gather(*(run.on_chain_error(exc) for _, run in started))
            raise
        await asyncio.gather(
            *(
                run.on_chain_error(output) if isinstance(output, BaseException) else run.on_chain_end(output)
                for (_, run), output in zip(started, work.outputs, strict=True)
            )
        )
        return work.result(return_exceptions)

    def batch_as_completed(
        self, values: Sequence[Any], config: Any, return_exceptions: bool, kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[int, Any]]:
        """Route a batch with one `win_rates` call and yield (index, answer) as they come."""
        if values:
            configs = [ensure_config(c) for c in get_config_list(config, len(values))]
            plan = self.plan(values, configs, kwargs, return_exceptions)
            pairs = list(zip(plan, values, strict=True))
            yield from _Decided(self).batch_as_completed(
                pairs,
                configs,
                return_exceptions=return_exceptions,  # type: ignore[call-overload]
                **kwargs,
            )

    async def abatch_as_completed(
        self, values: Sequence[Any], config: Any, return_exceptions: bool, kwargs: Mapping[str, Any]
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""
        if values:
            configs = [ensure_config(c) for c in get_config_list(config, len(values))]
            plan = await self.aplan(values, configs, kwargs, return_exceptions)
            pairs = list(zip(plan, values, strict=True))
            async for item in _Decided(self).abatch_as_completed(
                pairs,
                configs,
                return_exceptions=return_exceptions,  # type: ignore[call-overload]
                **kwargs,
            ):
                yield item

    # --- runs ---

    def _start(self, value: Any, config: RunnableConfig | None) -> tuple[RunnableConfig, CallbackManagerForChainRun]:
        config = ensure_config(config)
        manager = get_callback_manager_for_config(config)
        self._own(manager)
        run_id = config.pop("run_id", None)
        if not manager.handlers:
            return config, cast("CallbackManagerForChainRun", _UnseenRun(manager))
        name = config.get("run_name") or self.name
        return config, manager.on_chain_start(None, value, name=name, run_id=run_id)

    async def _astart(
        self, value: Any, config: RunnableConfig | None
    ) -> tuple[RunnableConfig, AsyncCallbackManagerForChainRun]:
        config = ensure_config(config)
        manager = get_async_callback_manager_for_config(config)
        self._own(manager)
        run_id = config.pop("run_id", None)
        if not manager.handlers:
            return config, cast("AsyncCallbackManagerForChainRun", _AsyncUnseenRun(manager))
        name = config.get("run_name") or self.name
        return config, await manager.on_chain_start(None, value, name=name, run_id=run_id)

    def _own(self, manager: BaseCallbackManager) -> None:
        # inherited by the chosen side: who set them on a chat model expects to see its model run
        own = self.callbacks
        for handler in (own.handlers if isinstance(own, BaseCallbackManager) else own) or ():
            manager.add_handler(handler)
        if self.tags:
            manager.add_tags(self.tags)
        if self.metadata:
            manager.add_metadata(self.metadata)

    def _child(
        self,
        config: RunnableConfig,
        run: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun,
        decision: RoutingDecision,
    ) -> tuple[RunnableConfig, TokenWatch | None]:
        side = self.side(decision.model)
        if isinstance(run, _UnseenRun) and isinstance(side, BaseChatModel) and side.callbacks is None:
            return config, None  # no handler here and none on the model: there is nobody to tell
        manager = run.get_child(f"{KEY}:{decision.model}")
        told = {KEY: flat(decision)}
        manager.metadata = {**manager.metadata, **told}
        manager.inheritable_metadata = {**manager.inheritable_metadata, **told}
        watch = None
        if self.failover and manager.handlers:
            # someone may be reading tokens from the callbacks of an invoke
            watch = TokenWatch()
            manager.add_handler(watch)
        # what patch_config does, for a config that is complete and ours already
        child = config.copy()
        child["callbacks"] = manager
        child.pop("run_name", None)
        return child, watch

    def second(self, decision: RoutingDecision, exc: Exception, watch: TokenWatch | None = None) -> RoutingDecision:
        """The decision after a failure: the other side, or `exc` raised again when that is not to be."""
        if (
            not self.failover
            or (watch is not None and watch.given)
            # a call that the weak model cannot serve has nowhere to go
            or decision.reason == "capability"
            or not is_survivable(exc)
        ):
            raise exc
        other = other_side(decision.model)
        return replace(decision, model=other, failover=decision.model, detail=type(exc).__name__)


class _BatchWork:
    """The state of one batch call: which inputs go where, and what became of them."""

    def __init__(
        self, dispatch: Dispatch, values: list[Any], started: Sequence[tuple[RunnableConfig, Any]], kwargs: Any
    ) -> None:
        self.dispatch = dispatch
        self.values = values
        self.configs = [config for config, _ in started]
        self.runs = [run for _, run in started]
        self.kwargs = kwargs
        self.outputs: list[Any] = [None] * len(values)
        self.decisions: dict[int, RoutingDecision] = {}
        self._watches: dict[int, TokenWatch | None] = {}
        self._again: list[int] = []

    def rounds(self, plan: list[Planned]) -> Iterator[list[tuple[Side, list[int]]]]:
        """First the calls as planned, grouped by side; then those that failed and may go to the other side."""
        for i, planned in enumerate(plan):
            if isinstance(planned, Exception):
                self.outputs[i] = planned
            else:
                self.decisions[i] = planned
        todo = list(self.decisions)
        for last in (False, True):
            sides: dict[Side, list[int]] = {}
            for i in todo:
                sides.setdefault(self.decisions[i].model, []).append(i)
            self._again = []
            if sides:
                yield list(sides.items())
            if last:
                return
            todo = self._again

    def children(self, indices: list[int]) -> list[RunnableConfig]:
        configs = []
        for i in indices:
            child, self._watches[i] = self.dispatch._child(self.configs[i], self.runs[i], self.decisions[i])
            configs.append(child)
        return configs

    def collect(self, groups: list[tuple[Side, list[int]]], results: list[list[Any]]) -> None:
        for (_, indices), outputs in zip(groups, results, strict=True):
            for i, output in zip(indices, outputs, strict=True):
                if isinstance(output, Exception) and self.decisions[i].failover is None:
                    try:
                        self.decisions[i] = self.dispatch.second(self.decisions[i], output, self._watches[i])
                    except Exception:
                        self.outputs[i] = output
                    else:
                        self._again.append(i)
                else:
                    self.outputs[i] = stamped(output, self.decisions[i])

    def result(self, return_exceptions: bool) -> list[Any]:
        if not return_exceptions:
            for output in self.outputs:
                if isinstance(output, BaseException):
                    raise output
        return self.outputs


def _batch_of(dispatch: Dispatch, work: _BatchWork, side: Side, indices: list[int]) -> list[Any]:
    try:
        return dispatch.side(side).batch(
            [dispatch.input(side, work.values[i]) for i in indices],
            work.children(indices),
            return_exceptions=True,
            **work.kwargs,
        )
    except Exception as exc:  # a batch of its own kind failed as a whole
        return [exc] * len(indices)


async def _abatch_of(dispatch: Dispatch, work: _BatchWork, side: Side, indices: list[int]) -> list[Any]:
    try:
        return await dispatch.side(side).abatch(
            [dispatch.input(side, work.values[i]) for i in indices],
            work.children(indices),
            return_exceptions=True,
            **work.kwargs,
        )
    except Exception as exc:
        return [exc] * len(indices)


class _Decided(Runnable[Any, Any]):
    """Runs (decision, input) pairs, so that LangChain's own as-completed machinery can run a planned batch."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        planned, value = input
        return self.dispatch.invoke(value, config, kwargs, planned)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        planned, value = input
        return await self.dispatch.ainvoke(value, config, kwargs, planned)


class _UnseenRun:
    """In the place of a run that nobody watches, which needs no id and no events."""

    handlers: ClassVar[list[BaseCallbackHandler]] = []

    def __init__(self, manager: BaseCallbackManager) -> None:
        self._manager = manager

    def get_child(self, tag: str) -> BaseCallbackManager:
        child = self._manager.copy()
        child.tags = [*child.tags, tag]
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


class TokenWatch(BaseCallbackHandler):
    """Notes whether a token has gone out through the callbacks of a run."""

    run_inline = True

    def __init__(self) -> None:
        self.given = False

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        message = getattr(chunk, "message", None)
        if token or (message is not None and _carries_token(message)):
            self.given = True

    def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        if event.get("event") == "content-block-delta":
            self.given = True


def _carries_token(chunk: Any) -> bool:
    # providers open a stream with an empty chunk that only says "assistant"
    if isinstance(chunk, AIMessageChunk):
        return _has_content(chunk.content) or bool(
            chunk.tool_call_chunks or chunk.tool_calls or chunk.additional_kwargs
        )
    if isinstance(chunk, str):  # that chunk behind a StrOutputParser
        return bool(chunk)
    if isinstance(chunk, Mapping) and "event" in chunk:
        return str(chunk["event"]).startswith("content-block")
    return True


def _has_content(content: str | list[Any]) -> bool:
    # a text block is opened empty, too
    if isinstance(content, str):
        return bool(content)
    return any(not (isinstance(b, dict) and b.get("type") == "text" and not b.get("text")) for b in content if b)


def _first(stream: Iterator[Any]) -> Iterator[Any]:
    for chunk in stream:
        yield chunk
        return


def _merged(chunks: list[Any]) -> Any:
    """The sum of the chunks, or the last one when they do not add up."""
    if not chunks:
        return None
    if all(isinstance(chunk, AIMessageChunk) for chunk in chunks):
        return chunks[0] + chunks[1:] if len(chunks) > 1 else chunks[0]
    try:
        total = chunks[0]
        for chunk in chunks[1:]:
            total = total + chunk
    except TypeError:
        return chunks[-1]
    return total
