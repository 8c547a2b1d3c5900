"""Batches: one decision call for all inputs, and each side's share as one batch of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, get_config_list, get_executor_for_config

from langchain_routellm.answers import is_broken, stamped
from routellm_core import RoutingDecision, RoutingRequest
from routellm_core.checks import Side
from routellm_core.errors import EmptyAnswerError
from routellm_core.policy.acceptance import RefusedAnswerError
from routellm_core.policy.route import Route
from routellm_core.policy.routing import CallSettings, Decided

if TYPE_CHECKING:
    from langchain_routellm.dispatch import Dispatch, Planned
    from langchain_routellm.recording import CallRecord


class Plan:
    """What a batch asks of the policy, and the result: for each input its decision, or the error that prevented one.

    Args:
        dispatch: Decides.
        values: The inputs.
        configs: One config an input.
        kwargs: Arguments of every call.
        keep_errors: Whether an input that cannot be decided keeps its error in its place; else the error is raised.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        values: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any],
        *,
        keep_errors: bool,
    ) -> None:
        self._routing = dispatch.routing
        self._asked: list[tuple[RoutingRequest | str, CallSettings] | Exception] = []
        for value, config in zip(values, configs, strict=True):
            try:
                self._asked.append(dispatch.asked(value, config, kwargs))
            except Exception as exc:
                if not keep_errors:
                    raise
                self._asked.append(exc)
        self._keep_errors = keep_errors
        self.requests = [asked[0] for asked in self._asked if not isinstance(asked, Exception)]

    def decided(self, decisions: Sequence[RoutingDecision]) -> list[Planned]:
        """The decisions in the places of their inputs."""
        ready = iter(decisions)
        return [asked if isinstance(asked, Exception) else self._noted(next(ready), *asked) for asked in self._asked]

    def failed(self, exc: Exception) -> list[Planned]:
        """The plan after the policy raised `exc`: calls that are settled without the router keep their decisions."""
        if not self._keep_errors:
            raise exc
        return [
            asked
            if isinstance(asked, Exception)
            else exc
            if isinstance(asked[0], str) or asked[0].force is None
            else self._noted(self._routing.policy.decide(asked[0]), *asked)
            for asked in self._asked
        ]

    def _noted(self, decision: RoutingDecision, asked: RoutingRequest | str, settings: CallSettings) -> Decided:
        if not isinstance(asked, str):
            decision = self._routing.noted(asked, decision, settings)
        return Decided(decision, asked, settings)


# the indices of the calls, the runnable to call, its inputs and configs, and the arguments that all of them share
_Share: TypeAlias = tuple[list[int], Runnable[Any, Any], list[Any], list[Any], Mapping[str, Any]]


class BatchWork:
    """The state of one batch call: which inputs go to which side, and their outputs."""

    def __init__(
        self,
        dispatch: Dispatch,
        values: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None,
        started: Sequence[tuple[RunnableConfig, Any]],
        kwargs: Mapping[str, Any],
        *,
        is_async: bool,
    ) -> None:
        self._dispatch = dispatch
        self._values = values
        self._kwargs = kwargs
        self._is_async = is_async
        self._given = config if isinstance(config, Sequence) else [config] * len(values)
        self.configs = [whole for whole, _ in started]
        self.runs = [run for _, run in started]
        self.outputs: list[Any] = [None] * len(values)
        self._decided: dict[int, Decided] = {}
        self._routes: dict[int, Route[Any]] = {}
        self._records: dict[int, CallRecord] = {}  # of calls that have not ended, where there is a log
        self._again: list[int] = []

    def rounds(self, plan: list[Planned]) -> Iterator[list[tuple[Side, list[int]]]]:
        """First the calls as planned, grouped by side; then those that failed and may go to the other side."""
        for i, planned in enumerate(plan):
            if isinstance(planned, Exception):
                self.outputs[i] = planned
                continue
            self._decided[i] = planned
            record = self._dispatch.record(planned, self._values[i], self._kwargs, is_async=self._is_async)
            if record is not None:
                if len(self._values) > 1:
                    record.untimed()
                self._records[i] = record
        todo = list(self._decided)
        while todo:
            sides: dict[Side, list[int]] = {}
            for i in todo:
                sides.setdefault(self._decision(i).model, []).append(i)
            self._again = []
            yield list(sides.items())
            todo = self._again

    def _decision(self, i: int) -> RoutingDecision:
        return self._decided[i].decision if self._dispatch.is_straight else self._route(i).decision

    def _route(self, i: int) -> Route[Any]:
        """The route of a call, made when it is first needed: that of a straight call only when the call fails."""
        route = self._routes.get(i)
        if route is None:
            route = self._routes[i] = self._dispatch.route(self._decided[i], self._values[i], self.runs[i])
        return route

    def at_once(self, groups: list[tuple[Side, list[int]]]) -> bool:
        """Whether both sides may run at the same time: two batches at once would be twice the allowed concurrency."""
        return len(groups) == 2 and not self.configs[0].get("max_concurrency")

    def run(self, group: tuple[Side, list[int]]) -> dict[int, Any]:
        """Run one side's share as one batch; a failure of the batch as a whole is the failure of each of its calls.

        Returns:
            The answer or the error of each call.
        """
        outputs: dict[int, Any] = {}
        for indices, side, values, configs, arguments in self._shares(*group):
            try:
                with self._dispatch.handed_down(self._decided[i] for i in indices):
                    answers = side.batch(values, configs, return_exceptions=True, **arguments)
            except Exception as exc:
                answers = [exc] * len(indices)
            outputs.update(zip(indices, answers, strict=True))
        return outputs

    async def arun(self, group: tuple[Side, list[int]]) -> dict[int, Any]:
        """Async twin of `run`."""
        outputs: dict[int, Any] = {}
        for indices, side, values, configs, arguments in self._shares(*group):
            try:
                with self._dispatch.handed_down(self._decided[i] for i in indices):
                    answers = await side.abatch(values, configs, return_exceptions=True, **arguments)
            except Exception as exc:
                answers = [exc] * len(indices)
            outputs.update(zip(indices, answers, strict=True))
        return outputs

    def _shares(self, side: Side, indices: list[int]) -> Iterator[_Share]:
        """The calls of one side; those whose model must be called in another way than the rest come by themselves."""
        model = self._dispatch.side(side)
        calls = [(i, *self._dispatch.fitting(side, self._values[i], self._kwargs)) for i in indices]
        usual = [call for call in calls if call[1] is model]
        for share in (usual, *([call] for call in calls if call[1] is not model)):
            if share:
                numbers, values = [call[0] for call in share], [call[2] for call in share]
                configs = [
                    self._dispatch.child(
                        self._given[i], self.runs[i], self._decision(i), self._routes.get(i), self._records.get(i)
                    )
                    for i in numbers
                ]
                yield numbers, share[0][1], values, configs, share[0][3]

    async def check_held(self, results: Sequence[dict[int, Any]]) -> None:
        """Check the answers that are held back at the same time; a refused one is replaced by its error."""
        held = [
            (outputs, i)
            for outputs in results
            for i, output in outputs.items()
            if i in self._routes and self._routes[i].is_held and not isinstance(output, BaseException)
        ]
        checks = (self._routes[i].achecked(outputs[i]) for outputs, i in held)
        for (outputs, i), checked in zip(held, await asyncio.gather(*checks, return_exceptions=True), strict=True):
            outputs[i] = checked

    def collect(self, results: Sequence[dict[int, Any]]) -> None:
        """Check and store the answers of the sides, and note the failed calls that the other side may answer."""
        for outputs in results:
            for i, output in outputs.items():
                if isinstance(output, BaseException):
                    self._failed(i, output)
                elif self._dispatch.is_straight and not is_broken(output):
                    self._answered(i, output, self._decided[i].decision)
                else:
                    self._checked(i, output)

    def _checked(self, i: int, output: Any) -> None:
        route = self._route(i)
        try:
            route.checked(output)
        except (EmptyAnswerError, RefusedAnswerError) as exc:
            self._failed(i, exc)
            return
        route.answered()
        self._answered(i, output, route.priced())
        if i in self._records:
            self._records.pop(i).answered(output, route)

    def _answered(self, i: int, output: Any, decision: RoutingDecision) -> None:
        self._dispatch.answered(output, decision)
        self.outputs[i] = stamped(output, decision)

    def _failed(self, i: int, exc: BaseException) -> None:
        try:
            self._route(i).failed(exc)
        except BaseException:
            self.outputs[i] = exc
            self._log_failure(i, exc)
        else:
            self._again.append(i)

    def broken_off(self, exc: BaseException) -> None:
        """Log the calls that an error of the batch as a whole has ended."""
        for i in list(self._records):
            self._log_failure(i, exc)

    def _log_failure(self, i: int, exc: BaseException) -> None:
        if i in self._records:
            self._records.pop(i).failed(exc, self._route(i))

    def result(self, *, return_exceptions: bool) -> list[Any]:
        """The outputs in order; the first error is raised unless they are returned."""
        if not return_exceptions:
            for output in self.outputs:
                if isinstance(output, BaseException):
                    raise output
        return self.outputs


def batch(
    dispatch: Dispatch,
    values: list[Any],
    config: RunnableConfig | list[RunnableConfig] | None,
    kwargs: Mapping[str, Any],
    *,
    return_exceptions: bool,
) -> list[Any]:
    """Route a batch with one `win_rates` call; each side gets its share as one batch of its own."""
    if not values:
        return []
    # one router run per input, as RunnableWithFallbacks has it
    started = dispatch.start_all(values, config)
    work = BatchWork(dispatch, values, config, started, kwargs, is_async=False)
    try:
        for groups in work.rounds(dispatch.plan(values, work.configs, kwargs, keep_errors=return_exceptions)):
            if work.at_once(groups):
                with get_executor_for_config({"max_concurrency": 2}) as executor:
                    results = list(executor.map(work.run, groups))
            else:
                results = [work.run(group) for group in groups]
            work.collect(results)
    except BaseException as exc:
        work.broken_off(exc)
        for run in work.runs:
            run.on_chain_error(exc)
        raise
    for run, output in zip(work.runs, work.outputs, strict=True):
        if isinstance(output, BaseException):
            run.on_chain_error(output)
        else:
            run.on_chain_end(output)
    return work.result(return_exceptions=return_exceptions)


async def abatch(
    dispatch: Dispatch,
    values: list[Any],
    config: RunnableConfig | list[RunnableConfig] | None,
    kwargs: Mapping[str, Any],
    *,
    return_exceptions: bool,
) -> list[Any]:
    """Async twin of `batch`."""
    if not values:
        return []
    started = await dispatch.astart_all(values, config)
    work = BatchWork(dispatch, values, config, started, kwargs, is_async=True)
    try:
        for groups in work.rounds(await dispatch.aplan(values, work.configs, kwargs, keep_errors=return_exceptions)):
            if work.at_once(groups):
                results = list(await asyncio.gather(*map(work.arun, groups)))
            else:
                results = [await work.arun(group) for group in groups]
            await work.check_held(results)
            work.collect(results)
    except BaseException as exc:
        work.broken_off(exc)
        await asyncio.gather(*(run.on_chain_error(exc) for run in work.runs))
        raise
    await asyncio.gather(
        *(
            run.on_chain_error(output) if isinstance(output, BaseException) else run.on_chain_end(output)
            for run, output in zip(work.runs, work.outputs, strict=True)
            if run.handlers
        )
    )
    return work.result(return_exceptions=return_exceptions)


def batch_as_completed(
    dispatch: Dispatch, values: Sequence[Any], config: Any, kwargs: Mapping[str, Any], *, return_exceptions: bool
) -> Iterator[tuple[int, Any]]:
    """Route a batch with one `win_rates` call and yield (index, answer) as they come."""
    if values:
        configs = [ensure_config(c) for c in get_config_list(config, len(values))]
        plan = dispatch.plan(values, configs, kwargs, keep_errors=return_exceptions)
        yield from _Decided(dispatch).batch_as_completed(
            list(zip(plan, values, strict=True)),
            configs,
            return_exceptions=return_exceptions,  # type: ignore[call-overload]
            **kwargs,
        )


async def abatch_as_completed(
    dispatch: Dispatch, values: Sequence[Any], config: Any, kwargs: Mapping[str, Any], *, return_exceptions: bool
) -> AsyncIterator[tuple[int, Any]]:
    """Async twin of `batch_as_completed`."""
    if values:
        configs = [ensure_config(c) for c in get_config_list(config, len(values))]
        plan = await dispatch.aplan(values, configs, kwargs, keep_errors=return_exceptions)
        async for item in _Decided(dispatch).abatch_as_completed(
            list(zip(plan, values, strict=True)),
            configs,
            return_exceptions=return_exceptions,  # type: ignore[call-overload]
            **kwargs,
        ):
            yield item


class _Decided(Runnable[Any, Any]):
    """Runs (decision, input) pairs, so that LangChain's own as-completed machinery can run a planned batch."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        planned, value = input
        return self._dispatch.run(value, config, kwargs, planned)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        planned, value = input
        return await self._dispatch.arun(value, config, kwargs, planned)
