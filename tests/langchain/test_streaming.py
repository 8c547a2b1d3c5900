"""Streams: chunks, events of every version, early ends and failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import PrivateAttr

from langchain_routellm import ChatRouteLLM, RouteLLMRunnable, routing_decision
from tests.langchain.conftest import Pair, Recorder
from tests.support.fakes_langchain import ScriptedChatModel
from tests.support.routers import ScriptedRouter
from tests.support.waiting import until

TEXT = "strong-model answers: p=0.9 one two"
V3 = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


async def test_stream_and_astream_give_the_models_chunks(pair: Pair) -> None:
    llm = pair.llm()
    sync = [c.content for c in llm.stream("p=0.9 one two")]
    assert sync == ["", "strong-model", " answers:", " p=0.9", " one", " two", ""]
    assert [c.content async for c in llm.astream("p=0.9 one two")] == sync
    assert sync == [c.content for c in pair.strong.stream("p=0.9 one two")]


async def test_a_chain_streams_token_by_token(pair: Pair) -> None:
    chain = ChatPromptTemplate.from_messages([("user", "p=0.9 {x}")]) | pair.llm() | StrOutputParser()
    assert [c for c in chain.stream({"x": "one two"}) if c] == [
        "strong-model",
        " answers:",
        " p=0.9",
        " one",
        " two",
    ]
    assert "".join([c async for c in chain.astream({"x": "one two"})]) == TEXT


async def test_transform_routes_what_has_been_collected(pair: Pair) -> None:
    llm = pair.llm()
    assert "".join(str(c.content) for c in llm.transform(iter(["p=0.9 one two"]))) == TEXT

    async def parts() -> Any:
        yield "p=0.9 one two"

    assert "".join([str(c.content) async for c in llm.atransform(parts())]) == TEXT


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.filterwarnings("ignore:astream_events version='v1'")
async def test_events_show_each_token_of_the_model_once(pair: Pair, version: Any) -> None:
    events = [e async for e in pair.llm().astream_events("p=0.9 one two", version=version)]
    kinds = [e["event"] for e in events]
    assert kinds.count("on_chat_model_start") == kinds.count("on_chat_model_end") == 1
    tokens = [e["data"]["chunk"].content for e in events if e["event"] == "on_chat_model_stream"]
    assert "".join(tokens) == TEXT
    start = next(e for e in events if e["event"] == "on_chat_model_start")
    assert start["metadata"]["routellm"]["model"] == "strong"
    assert "routellm:strong" in start["tags"]
    assert events[0]["name"] == "ChatRouteLLM"


@V3
def test_typed_events_come_from_the_model_and_carry_the_decision(pair: Pair) -> None:
    stream = pair.llm().stream_events("p=0.9 one two", version="v3", stop=["nothing"])
    assert pair.strong.calls == []  # nothing runs before somebody looks
    assert "".join(stream.text) == TEXT
    message = stream.output
    assert isinstance(message, AIMessage)
    assert routing_decision(message).model == "strong"  # type: ignore[union-attr]
    assert message.usage_metadata is not None
    assert message.response_metadata["model_name"] == "strong-model"
    assert pair.strong.calls[0]["stop"] == ["nothing"]


@V3
async def test_typed_async_events_come_from_the_model_and_carry_the_decision(pair: Pair) -> None:
    stream = await pair.llm().astream_events("p=0.9 one two", version="v3")
    assert "".join([t async for t in stream.text]) == TEXT
    assert routing_decision(await stream).model == "strong"  # type: ignore[union-attr]
    assert len(pair.strong.calls) == 1


@V3
def test_typed_events_of_bound_tools(pair: Pair) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    stream: Any = pair.llm().bind_tools([add]).stream_events("p=0.9 add 2", version="v3")
    assert stream.output.tool_calls[0]["name"] == "add"


@V3
async def test_a_failure_reaches_who_reads_typed_events(pair: Pair) -> None:
    pair.strong.error = ValueError("refused")
    with pytest.raises(ValueError, match="refused"):
        list(pair.llm().stream_events("p=0.9", version="v3"))
    stream = await pair.llm().astream_events("p=0.9", version="v3")
    with pytest.raises(ValueError, match="refused"):
        await stream.output


@V3
async def test_closing_typed_async_events_cancels_the_model(pair: Pair) -> None:
    pair.strong.delay = 30
    async with await pair.llm().astream_events("p=0.9", version="v3") as stream:
        reader = asyncio.ensure_future(stream.output._await_impl())
        await until(lambda: pair.strong.calls)
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert pair.strong.cancelled == 1


def test_a_stream_left_early_ends_the_run_without_an_error(pair: Pair) -> None:
    recorder = Recorder()
    stream = pair.llm().stream("p=0.9 one two", {"callbacks": [recorder]})
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert recorder.names("on_chain_error") == []
    assert recorder.names("on_chain_end") == ["ChatRouteLLM"]


async def test_an_async_stream_left_early_ends_the_run_without_an_error(pair: Pair) -> None:
    recorder = Recorder()
    stream: Any = pair.llm().astream("p=0.9 one two", {"callbacks": [recorder]})
    await anext(stream)
    await stream.aclose()
    assert recorder.names("on_chain_error") == []
    assert recorder.names("on_chain_end") == ["ChatRouteLLM"]


class Closable(ScriptedChatModel):
    """A model that sees when its stream is closed, and needs the event loop for it."""

    _closed: list[bool] = PrivateAttr(default_factory=list)

    async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async for chunk in super().astream(*args, **kwargs):
                yield chunk
        finally:
            await asyncio.sleep(0)
            self._closed.append(True)


@pytest.mark.parametrize("wrapper", [ChatRouteLLM, RouteLLMRunnable])
@pytest.mark.parametrize("failover", [False, True])
async def test_closing_an_async_stream_closes_the_sides_at_once(wrapper: Any, failover: bool) -> None:
    strong, weak = Closable(model="strong-model"), Closable(model="weak-model")
    llm = wrapper(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.7, failover=failover)
    stream = llm.astream("p=0.9 one two")
    await anext(stream)
    await stream.aclose()
    assert strong._closed == [True]  # and not only when the garbage is collected
    assert weak._closed == []


def test_a_failure_in_the_middle_is_raised_after_what_came_before(pair: Pair) -> None:
    pair.strong.error, pair.strong.error_after = ConnectionError("cut"), 2
    got: list[Any] = []

    def read() -> None:
        for chunk in pair.llm().stream("p=0.9 one two"):
            got.append(chunk.content)

    with pytest.raises(ConnectionError, match="cut"):
        read()
    assert got == ["", "strong-model", " answers:"]
