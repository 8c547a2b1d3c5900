"""Many calls at once: no answer goes to another's question, and a cancelled call stops its model."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index_instrumentation import get_dispatcher

from llamaindex_routellm import RouteLLM, SavingsEventHandler
from tests.llamaindex.conftest import Recorder
from tests.support.fakes_llamaindex import FakeLLM, Reply
from tests.support.routers import HeldRouter, ScriptedRouter
from tests.support.waiting import until


def question(i: int) -> str:
    return f"p=0.{i % 10} question number {i}"


def expected(i: int) -> tuple[str, float, str]:
    side = "strong" if i % 10 >= 5 else "weak"
    return f"{side}: {question(i)}", i % 10 / 10, side


def told(response: Any) -> tuple[str, float, str]:
    decision = response.additional_kwargs["routellm"]
    return response.message.content, decision["win_rate"], decision["model"]


class TestManyAtOnce:
    async def test_500_achat(self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder) -> None:
        strong.delay = weak.delay = 0.01
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5)
        answers = await asyncio.gather(*(llm.achat([ChatMessage(content=question(i))]) for i in range(500)))
        assert [told(a) for a in answers] == [expected(i) for i in range(500)]
        assert len(events.decisions) == 500
        for event in events.of("LLMChatEndEvent"):
            asked = event.messages[-1].content  # type: ignore[attr-defined]
            assert event.tags["routellm"]["model"] == expected(int(asked.split()[-1]))[2]

    async def test_200_streams_interleaved(self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)

        async def one(i: int) -> Any:
            last = None
            async for piece in await llm.astream_chat([ChatMessage(content=question(i))]):
                assert piece.additional_kwargs["routellm"]["model"] == expected(i)[2]
                last = piece
            return told(last)

        assert await asyncio.gather(*map(one, range(200))) == [expected(i) for i in range(200)]

    def test_64_threads_on_one_instance(self, llm: RouteLLM) -> None:
        def one(i: int) -> Any:
            if i % 2:
                return told(llm.chat([ChatMessage(content=question(i))]))
            return told(list(llm.stream_chat([ChatMessage(content=question(i))]))[-1])

        with ThreadPoolExecutor(64) as pool:
            assert list(pool.map(one, range(640))) == [expected(i) for i in range(640)]

    def test_one_instance_in_many_event_loops(self, llm: RouteLLM) -> None:
        async def several(start: int) -> list[Any]:
            asked = range(start, start + 10)
            return [
                told(a) for a in await asyncio.gather(*(llm.achat([ChatMessage(content=question(i))]) for i in asked))
            ]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda start: asyncio.run(several(start)), range(0, 80, 10)))
        assert [a for some in answers for a in some] == [expected(i) for i in range(80)]

    async def test_savings_count_each_once(self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5)
        savings, root = SavingsEventHandler(), get_dispatcher()
        before = list(root.event_handlers)
        root.add_event_handler(savings)
        try:
            await asyncio.gather(*(llm.achat([ChatMessage(content=question(i))]) for i in range(200)))
        finally:
            root.event_handlers = before
        summary = savings.summary()
        assert (summary.strong.calls, summary.weak.calls) == (100, 100)
        assert summary.strong.input_tokens == 1000


class TestCancellation:
    async def test_reaches_the_model(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        weak.delay = 60
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        call = asyncio.ensure_future(llm.achat([ChatMessage(content=question(1))]))
        await until(lambda: weak.seen)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert weak.cancelled == 1
        assert strong.seen == []
        assert len(events.decisions) == 1

    async def test_reaches_a_stream(self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter) -> None:
        weak.delay = 60
        weak.reply_next(Reply("one two three"))
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)

        async def read() -> None:
            async for _ in await llm.astream_chat([ChatMessage(content=question(1))]):
                pass

        call = asyncio.ensure_future(read())
        await until(lambda: weak.seen)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert weak.closed == 1
        assert strong.seen == []

    async def test_while_the_router_thinks(self, strong: FakeLLM, weak: FakeLLM, held_router: HeldRouter) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=held_router, threshold=0.5)
        call = asyncio.ensure_future(llm.achat([ChatMessage(content=question(1))]))
        await until(lambda: held_router.started)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert strong.seen == weak.seen == []

    async def test_the_loop_runs_on_while_the_router_computes(
        self, strong: FakeLLM, weak: FakeLLM, held_router: HeldRouter
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=held_router, threshold=0.5)
        call = asyncio.ensure_future(llm.achat([ChatMessage(content=question(1))]))
        await until(lambda: held_router.started)  # a call that blocked the loop would not let this end
        assert not call.done()
        held_router.release()
        await call
        assert len(strong.seen) + len(weak.seen) == 1
