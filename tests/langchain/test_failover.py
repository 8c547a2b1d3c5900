"""Failover: the other side answers, before the first token and after an error that another model could survive."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, MessagesState, StateGraph

from langchain_routellm import RouteLLMRunnable, routing_decision
from routellm_core import RoutingDecision
from tests.langchain.conftest import Pair, Recorder


class RateLimitError(Exception):
    status_code = 429


class AuthenticationError(Exception):
    status_code = 401


class BadRequestError(Exception):
    status_code = 400


SURVIVABLE = [RateLimitError("slow down"), ConnectionError("gone"), TimeoutError("late")]
FATAL = [AuthenticationError("key"), BadRequestError("what"), ValueError("bug"), KeyError("bug")]

WAYS: dict[str, Any] = {
    "invoke": lambda llm: llm.invoke("p=0.9 hi"),
    "stream": lambda llm: _sum(llm.stream("p=0.9 hi")),
    "batch": lambda llm: llm.batch(["p=0.9 hi"])[0],
    "as completed": lambda llm: next(iter(llm.batch_as_completed(["p=0.9 hi"])))[1],
    "generate": lambda llm: llm.generate([[HumanMessage("p=0.9 hi")]]).generations[0][0].message,
    "v3": lambda llm: llm.stream_events("p=0.9 hi", version="v3").output,
}


def _sum(stream: Any) -> Any:
    chunks = list(stream)
    return chunks[0] + chunks[1:]


async def _asum(stream: Any) -> Any:
    chunks = [chunk async for chunk in stream]
    return chunks[0] + chunks[1:]


async def _v3(llm: Any) -> Any:
    return await (await llm.astream_events("p=0.9 hi", version="v3"))


AWAYS: dict[str, Any] = {
    "ainvoke": lambda llm: llm.ainvoke("p=0.9 hi"),
    "astream": lambda llm: _asum(llm.astream("p=0.9 hi")),
    "abatch": lambda llm: llm.abatch(["p=0.9 hi"]),
    "agenerate": lambda llm: llm.agenerate([[HumanMessage("p=0.9 hi")]]),
    "v3": _v3,
}


def _check(answer: Any, error: Exception) -> None:
    assert answer.text == "weak-model answers: p=0.9 hi"
    assert routing_decision(answer) == RoutingDecision(
        "weak", 0.9, 0.7, "scripted", "win_rate", failover="strong", detail=type(error).__name__
    )


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", SURVIVABLE, ids=lambda e: type(e).__name__)
def test_the_other_side_answers(pair: Pair, way: str, error: Exception) -> None:
    pair.strong.error = error
    _check(WAYS[way](pair.llm(failover=True)), error)
    assert (len(pair.strong.calls), len(pair.weak.calls)) == (1, 1)


@pytest.mark.parametrize("way", AWAYS)
async def test_the_other_side_answers_async(pair: Pair, way: str) -> None:
    pair.strong.error = RateLimitError("slow down")
    answer = await AWAYS[way](pair.llm(failover=True))
    answer = answer[0] if way == "abatch" else answer.generations[0][0].message if way == "agenerate" else answer
    _check(answer, pair.strong.error)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", FATAL, ids=lambda e: type(e).__name__)
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_an_error_that_another_model_would_meet_too_is_raised(pair: Pair, way: str, error: Exception) -> None:
    pair.strong.error = error
    with pytest.raises(type(error)):
        WAYS[way](pair.llm(failover=True))
    assert pair.weak.calls == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_without_failover_the_error_is_raised(pair: Pair, way: str) -> None:
    pair.strong.error = RateLimitError("slow down")
    with pytest.raises(RateLimitError):
        WAYS[way](pair.llm())
    assert pair.weak.calls == []


@pytest.mark.parametrize("way", ["stream", "v3"])
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_never_after_a_token_was_given_out(pair: Pair, way: str) -> None:
    pair.strong.error, pair.strong.error_after = ConnectionError("cut"), 1
    llm = pair.llm(failover=True)
    with pytest.raises(ConnectionError, match="cut"):
        WAYS[way](llm)
    with pytest.raises(ConnectionError, match="cut"):
        await AWAYS["a" + way if way == "stream" else way](llm)
    assert pair.weak.calls == []


def test_an_empty_opening_chunk_is_no_token(pair: Pair) -> None:
    class OpensThenFails(type(pair.strong)):  # type: ignore[misc]
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield from list(super()._stream([HumanMessage("x")]))[:1]
            raise ConnectionError("cut after the opening")

    pair.strong = OpensThenFails(model="strong-model")
    chunks = list(pair.llm(failover=True).stream("p=0.9 hi"))
    _check(chunks[0] + chunks[1:], ConnectionError())


@pytest.mark.parametrize("opening", ["", [], [{"type": "text", "text": "", "index": 0}]])
@pytest.mark.parametrize("parsed", [False, True])
def test_nor_is_an_empty_text_block_or_what_a_parser_makes_of_it(pair: Pair, opening: Any, parsed: bool) -> None:
    class OpensThenFails(type(pair.strong)):  # type: ignore[misc]
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield ChatGenerationChunk(message=AIMessageChunk(content=opening))
            raise ConnectionError("cut after the opening")

    pair.strong = OpensThenFails(model="strong-model")
    if not parsed:
        chunks = list(pair.llm(failover=True).stream("p=0.9 hi"))
        _check(chunks[0] + chunks[1:], ConnectionError())
        return
    sides: dict[str, Any] = {"strong": pair.strong | StrOutputParser(), "weak": pair.weak | StrOutputParser()}
    chain = RouteLLMRunnable(**sides, router=pair.router, threshold=0.7, failover=True)
    assert "".join(chain.stream("p=0.9 hi")) == "weak-model answers: p=0.9 hi"


def test_never_after_a_graph_has_streamed_tokens_of_an_invoke(pair: Pair) -> None:
    """In a graph that streams messages the tokens of an invoke go out through callbacks."""
    pair.strong.error, pair.strong.error_after = ConnectionError("cut"), 1
    llm = pair.llm(failover=True)
    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": [llm.invoke(state["messages"])]})
    graph.add_edge(START, "answer")
    app = graph.compile()
    with pytest.raises(ConnectionError, match="cut"):
        list(app.stream({"messages": [("user", "p=0.9 hi")]}, stream_mode="messages"))  # type: ignore[call-overload]
    assert pair.weak.calls == []


def test_before_a_graph_has_streamed_a_token_the_other_side_answers(pair: Pair) -> None:
    pair.strong.error = ConnectionError("down")
    llm = pair.llm(failover=True)
    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": [llm.invoke(state["messages"])]})
    graph.add_edge(START, "answer")
    got = list(graph.compile().stream({"messages": [("user", "p=0.9 hi")]}, stream_mode="messages"))  # type: ignore[call-overload]
    assert "".join(chunk.content for chunk, _ in got) == "weak-model answers: p=0.9 hi"
    assert {m["routellm"]["failover"] for _, m in got} == {"strong"}


def test_when_both_fail_the_second_error_tells_of_the_first(pair: Pair) -> None:
    pair.strong.error, pair.weak.error = RateLimitError("first"), ConnectionError("second")
    with pytest.raises(ConnectionError, match="second") as failure:
        pair.llm(failover=True).invoke("p=0.9")
    assert isinstance(failure.value.__context__, RateLimitError)
    assert (len(pair.strong.calls), len(pair.weak.calls)) == (1, 1)
    out = pair.llm(failover=True).batch(["p=0.9"], return_exceptions=True)
    assert isinstance(out[0], ConnectionError)


def test_weak_fails_over_to_strong_too_and_a_forced_call_as_well(pair: Pair) -> None:
    pair.weak.error = TimeoutError("late")
    llm = pair.llm(failover=True)
    assert routing_decision(llm.invoke("p=0.1")).failover == "weak"  # type: ignore[union-attr]
    forced = routing_decision(llm.invoke("x", {"configurable": {"routellm_force": "weak"}}))
    assert forced == RoutingDecision("strong", None, 0.7, "scripted", "forced", failover="weak", detail="TimeoutError")


def test_a_call_that_only_the_strong_model_can_serve_does_not_fail_over(pair: Pair) -> None:
    pair.weak.profile = {"image_inputs": False}
    pair.strong.error = ConnectionError("down")
    picture = HumanMessage([{"type": "image", "url": "https://example.org/a.png"}])
    with pytest.raises(ConnectionError):
        pair.llm(failover=True).invoke([picture])
    assert pair.weak.calls == []


def test_a_batch_fails_over_item_by_item(pair: Pair) -> None:
    pair.strong.reply = lambda messages: ConnectionError("odd") if "odd" in messages[-1].text else "strong says"
    out = pair.llm(failover=True).batch(["p=0.9 odd", "p=0.9 even", "p=0.1 odd", "p=0.8 odd"])
    assert [a.text for a in out] == [
        "weak-model answers: p=0.9 odd",
        "strong says",
        "weak-model answers: p=0.1 odd",
        "weak-model answers: p=0.8 odd",
    ]
    assert [routing_decision(a).failover for a in out] == ["strong", None, None, "strong"]  # type: ignore[union-attr]
    assert len(pair.router.calls) == 1


def test_the_trace_shows_both_attempts_and_the_failover(pair: Pair) -> None:
    pair.strong.error = ConnectionError("down")
    recorder = Recorder()
    pair.llm(failover=True).invoke("p=0.9 hi", {"callbacks": [recorder]})
    first, second = recorder.details("on_chat_model_start")
    assert first["metadata"]["routellm"]["failover"] is None
    assert second["metadata"]["routellm"]["failover"] == "strong"
    assert second["metadata"]["routellm"]["model"] == "weak"
    assert "routellm:weak" in second["tags"]
    assert first["parent_run_id"] == second["parent_run_id"]
    assert recorder.names("on_chain_error") == []


def test_a_graph_that_pauses_has_not_failed(pair: Pair) -> None:
    def pauses(value: Any) -> Any:
        raise GraphInterrupt

    route = RouteLLMRunnable(strong=pauses, weak=lambda x: "weak", router=pair.router, threshold=0.7, failover=True)
    with pytest.raises(GraphInterrupt):
        route.invoke("p=0.9")


def test_a_watching_handler_sees_no_more_than_without_failover(pair: Pair) -> None:
    class Counting(BaseCallbackHandler):
        starts = 0

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            self.starts += 1

    counting = Counting()
    pair.llm(failover=True).invoke("p=0.9", {"callbacks": [counting]})
    assert counting.starts == 1
