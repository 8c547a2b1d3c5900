"""Many calls at once: no mixed-up answers, a free event loop, and cancellation that reaches the model."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from langchain_routellm import ChatRouteLLM, RouteLLMRunnable, routing_decision
from tests.langchain.conftest import Pair
from tests.support.fakes_langchain import ScriptedChatModel
from tests.support.routers import HeldRouter, ScriptedRouter
from tests.support.waiting import until


def _prompt(i: int) -> str:
    return f"p=0.{i % 10} call {i}"


def _check(i: int, answer: Any) -> None:
    side = "strong" if i % 10 >= 7 else "weak"
    assert answer.text == f"{side}-model answers: {_prompt(i)}"
    decision = routing_decision(answer)
    assert decision is not None
    assert (decision.model, decision.win_rate) == (side, (i % 10) / 10)


async def test_a_thousand_concurrent_calls_are_not_mixed_up(pair: Pair) -> None:
    llm = pair.llm()
    answers = await asyncio.gather(*(llm.ainvoke(_prompt(i)) for i in range(1000)))
    for i, answer in enumerate(answers):
        _check(i, answer)


async def test_a_thousand_concurrent_streams_are_not_mixed_up(pair: Pair) -> None:
    llm = pair.llm()

    async def collect(i: int) -> Any:
        chunks = [c async for c in llm.astream(_prompt(i))]
        return chunks[0] + chunks[1:]

    for i, answer in enumerate(await asyncio.gather(*(collect(i) for i in range(1000)))):
        _check(i, answer)


def test_sixty_four_threads_are_not_mixed_up(pair: Pair) -> None:
    llm = pair.llm(sticky=True, failover=True)
    barrier = threading.Barrier(64)

    def work(worker: int) -> list[Any]:
        barrier.wait()
        config: Any = {"configurable": {"routellm_threshold": 0.7}}
        return [(i, llm.invoke(_prompt(i), config)) for i in range(worker * 10, worker * 10 + 10)]

    with ThreadPoolExecutor(64) as pool:
        for answers in pool.map(work, range(64)):
            for i, answer in answers:
                _check(i, answer)


async def test_settings_of_one_call_do_not_leak_into_another(pair: Pair) -> None:
    llm = pair.llm()
    sides = ["strong", "weak"] * 100
    answers = await asyncio.gather(
        *(llm.ainvoke(f"call {i}", {"configurable": {"routellm_force": side}}) for i, side in enumerate(sides))
    )
    assert [routing_decision(a).model for a in answers] == sides  # type: ignore[union-attr]


async def test_a_router_that_computes_does_not_hold_up_the_loop(pair: Pair, held_router: HeldRouter) -> None:
    llm = pair.llm(router=held_router)
    call = asyncio.ensure_future(llm.ainvoke("p=0.9 hi"))
    await until(lambda: held_router.started)  # a call that blocked the loop would not let this end
    assert not call.done()
    held_router.release()
    assert (await call).text == "strong-model answers: p=0.9 hi"


WAYS: dict[str, Any] = {
    "ainvoke": lambda llm: llm.ainvoke("p=0.9"),
    "astream": lambda llm: anext(llm.astream("p=0.9")),
    "abatch": lambda llm: llm.abatch(["p=0.9", "p=0.8"]),
    "agenerate": lambda llm: llm.agenerate_prompt([_value()]),
    "structured": lambda llm: llm.with_structured_output({"title": "T", "description": "d", "type": "object"}).ainvoke(
        "p=0.9"
    ),
    "runnable": lambda llm: RouteLLMRunnable(strong=llm, weak=llm, router=ScriptedRouter(), threshold=0.5).ainvoke(
        "p=0.9"
    ),
}


def _value() -> Any:
    from langchain_core.prompt_values import StringPromptValue

    return StringPromptValue(text="p=0.9")


@pytest.mark.parametrize("way", WAYS)
async def test_cancellation_reaches_the_model(pair: Pair, way: str) -> None:
    pair.strong.delay = 60
    task = asyncio.ensure_future(WAYS[way](pair.llm(failover=True)))
    await until(lambda: pair.strong.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pair.strong.cancelled == len(pair.strong.calls)
    assert pair.weak.calls == []


async def test_a_time_limit_around_a_call_works(pair: Pair) -> None:
    pair.strong.delay = 60

    async def expire(limit: asyncio.Timeout) -> None:
        await until(lambda: pair.strong.calls)
        limit.reschedule(asyncio.get_running_loop().time())

    async def call() -> None:
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
            group.create_task(expire(limit))
            await pair.llm().ainvoke("p=0.9")

    with pytest.raises(TimeoutError):
        await call()
    assert pair.strong.cancelled == 1


async def test_a_model_without_async_of_its_own_is_called_in_a_thread(pair: Pair) -> None:
    class SyncOnly(ScriptedChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            from langchain_core.runnables.config import run_in_executor

            kwargs.pop("run_manager", None)
            return await run_in_executor(None, self._generate, *args, **kwargs)

    strong = SyncOnly(model="strong-model")
    llm = ChatRouteLLM(strong=strong, weak=pair.weak, router=pair.router, threshold=0.7)
    answers = await asyncio.gather(*(llm.ainvoke(_prompt(i)) for i in range(50)))
    for i, answer in enumerate(answers):
        _check(i, answer)
