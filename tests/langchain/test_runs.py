"""Callbacks and traces: one model run a call, usage once, each token once, the decision where it can be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.tracers.base import BaseTracer
from langgraph.graph import START, MessagesState, StateGraph

from langchain_routellm import ChatRouteLLM
from routellm_core import Price, SpendLimit
from routellm_core.errors import EmptyAnswerError
from tests.langchain.conftest import Pair, Recorder
from tests.support.fakes_langchain import ScriptedChatModel


def _chain(pair: Pair) -> Runnable[Any, Any]:
    return ChatPromptTemplate.from_messages([("user", "{text}")]) | pair.llm() | StrOutputParser()


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


CALLS: dict[str, Callable[[Pair, Any], Any]] = {
    "invoke": lambda pair, config: pair.llm().invoke("p=0.9 one two", config),
    "stream": lambda pair, config: list(pair.llm().stream("p=0.9 one two", config)),
    "chain": lambda pair, config: _chain(pair).invoke({"text": "p=0.9 one two"}, config),
    "chain stream": lambda pair, config: list(_chain(pair).stream({"text": "p=0.9 one two"}, config)),
    "batch": lambda pair, config: pair.llm().batch(["p=0.9 one two"], config),
    "chain batch": lambda pair, config: _chain(pair).batch([{"text": "p=0.9 one two"}], config),
    "as completed": lambda pair, config: list(pair.llm().batch_as_completed(["p=0.9 one two"], config)),
    "generate": lambda pair, config: pair.llm().generate_prompt(
        [ChatPromptTemplate.from_messages([("user", "p=0.9 one two")]).invoke({})], callbacks=config["callbacks"]
    ),
    "v3": lambda pair, config: list(pair.llm().stream_events("p=0.9 one two", config, version="v3")),
}
ACALLS: dict[str, Callable[[Pair, Any], Any]] = {
    "ainvoke": lambda pair, config: pair.llm().ainvoke("p=0.9 one two", config),
    "astream": lambda pair, config: _drain(pair.llm().astream("p=0.9 one two", config)),
    "chain ainvoke": lambda pair, config: _chain(pair).ainvoke({"text": "p=0.9 one two"}, config),
    "chain astream": lambda pair, config: _drain(_chain(pair).astream({"text": "p=0.9 one two"}, config)),
    "abatch": lambda pair, config: pair.llm().abatch(["p=0.9 one two"], config),
    "v2 events": lambda pair, config: _drain(pair.llm().astream_events("p=0.9 one two", config, version="v2")),
}


def _check_one_run(pair: Pair, recorder: Recorder, usage: UsageMetadataCallbackHandler, streamed: bool) -> None:
    assert len(pair.strong.calls) == 1
    assert pair.weak.calls == []
    assert recorder.names("on_chat_model_start") == ["ScriptedChatModel"]
    assert recorder.names("on_llm_end") == ["ScriptedChatModel"]
    (counted,) = usage.usage_metadata.values()
    assert list(usage.usage_metadata) == ["strong-model"]
    assert (counted["input_tokens"], counted["output_tokens"]) == (3, 5)
    tokens = "".join(recorder.names("on_llm_new_token"))
    assert tokens in (("strong-model answers: p=0.9 one two",) if streamed else ("",))
    (start,) = recorder.details("on_chat_model_start")
    assert start["metadata"]["routellm"]["model"] == "strong"
    assert "routellm:strong" in start["tags"]
    assert start["metadata"]["ls_model_name"] == "strong-model"
    router = next(
        d
        for name, d in zip(recorder.names("on_chain_start"), recorder.details("on_chain_start"), strict=True)
        if name == "ChatRouteLLM"
    )
    assert start["parent_run_id"] == router["run_id"]


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("way", CALLS)
def test_one_model_run_usage_once_tokens_once(pair: Pair, way: str) -> None:
    recorder, usage = Recorder(), UsageMetadataCallbackHandler()
    CALLS[way](pair, {"callbacks": [recorder, usage]})
    if way == "v3":  # typed streams report events, not tokens
        recorder.events = [e for e in recorder.events if e[0] != "on_llm_new_token"]
    _check_one_run(pair, recorder, usage, "stream" in way)


@pytest.mark.parametrize("way", ACALLS)
async def test_async_one_model_run_usage_once_tokens_once(pair: Pair, way: str) -> None:
    recorder, usage = Recorder(), UsageMetadataCallbackHandler()
    await ACALLS[way](pair, {"callbacks": [recorder, usage]})
    _check_one_run(pair, recorder, usage, "stream" in way or "events" in way)


def test_a_batch_has_one_model_run_per_item(pair: Pair) -> None:
    recorder, usage = Recorder(), UsageMetadataCallbackHandler()
    _chain(pair).batch([{"text": f"p=0.{i} x"} for i in range(10)], {"callbacks": [recorder, usage]})
    assert len(recorder.names("on_chat_model_start")) == 10
    assert recorder.names("on_chain_start").count("ChatRouteLLM") == 10
    assert {name: u["input_tokens"] for name, u in usage.usage_metadata.items()} == {
        "strong-model": 6,
        "weak-model": 14,
    }


def _graph(pair: Pair) -> Any:
    llm = pair.llm()

    def answer(state: MessagesState) -> Any:
        return {"messages": [llm.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    return graph.compile()


async def test_a_graph_that_streams_messages_shows_each_token_once(pair: Pair) -> None:
    recorder, usage = Recorder(), UsageMetadataCallbackHandler()
    config: Any = {"callbacks": [recorder, usage]}
    got = list(_graph(pair).stream({"messages": [("user", "p=0.9 one two")]}, config, stream_mode="messages"))
    assert "".join(chunk.content for chunk, _ in got) == "strong-model answers: p=0.9 one two"
    assert {metadata["routellm"]["model"] for _, metadata in got} == {"strong"}
    assert len({chunk.id for chunk, _ in got}) == 1
    _check_one_run(pair, recorder, usage, True)

    async def answer(state: MessagesState) -> Any:
        return {"messages": [await pair.llm().ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    parts = [
        chunk.content
        async for chunk, _ in graph.compile().astream({"messages": [("user", "p=0.1 one")]}, stream_mode="messages")  # type: ignore[call-overload]
    ]
    assert "".join(parts) == "weak-model answers: p=0.1 one"


def test_a_model_as_a_node_of_a_graph_gives_one_message(pair: Pair) -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": pair.llm().invoke(state["messages"])})
    graph.add_edge(START, "answer")
    got = list(graph.compile().stream({"messages": [("user", "p=0.9 x")]}, stream_mode=["messages", "values"]))  # type: ignore[call-overload]
    final = [part for mode, part in got if mode == "values"][-1]["messages"]
    assert [m.type for m in final] == ["human", "ai"]
    tokens = "".join(part[0].content for mode, part in got if mode == "messages")
    assert tokens == "strong-model answers: p=0.9 x"


class _Tree(BaseTracer):
    """Finished runs, outermost only, as a tracing service would be sent them."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.roots.append(run)


def test_a_trace_shows_router_then_model_with_the_decision(pair: Pair) -> None:
    tree = _Tree()
    pair.llm().invoke("p=0.9 hi", {"callbacks": [tree], "run_name": "my call", "tags": ["mine"]})
    (root,) = tree.roots
    assert (root.name, root.run_type, root.tags) == ("my call", "chain", ["mine"])
    message: AIMessage = root.outputs["output"]
    assert message.response_metadata["routellm"]["model"] == "strong"
    (child,) = root.child_runs
    assert (child.run_type, child.name) == ("llm", "ScriptedChatModel")
    assert child.extra["metadata"]["routellm"]["win_rate"] == 0.9
    assert set(child.tags) == {"mine", "routellm:strong"}


def test_a_run_id_is_the_routers(pair: Pair) -> None:
    from uuid import uuid4

    tree, wanted = _Tree(), uuid4()
    pair.llm().invoke("p=0.9", {"callbacks": [tree], "run_id": wanted})
    assert tree.roots[0].id == wanted
    assert tree.roots[0].child_runs[0].id != wanted


@pytest.mark.parametrize("way", ["invoke", "stream", "batch"])
async def test_errors_close_both_runs(pair: Pair, way: str) -> None:
    pair.strong.error = ValueError("refused")
    for call in (
        lambda config: {"invoke": pair.llm().invoke, "batch": lambda p, c: pair.llm().batch([p], c)}.get(  # type: ignore[operator]
            way, lambda p, c: list(pair.llm().stream(p, c))
        )("p=0.9", config),
    ):
        recorder = Recorder()
        with pytest.raises(ValueError, match="refused"):
            call({"callbacks": [recorder]})
        assert recorder.names("on_llm_error") == ["ScriptedChatModel"]
        assert recorder.names("on_chain_error") == ["ChatRouteLLM"]
    recorder = Recorder()
    with pytest.raises(ValueError, match="refused"):
        await {
            "invoke": lambda: pair.llm().ainvoke("p=0.9", {"callbacks": [recorder]}),
            "batch": lambda: pair.llm().abatch(["p=0.9"], {"callbacks": [recorder]}),
            "stream": lambda: _drain(pair.llm().astream("p=0.9", {"callbacks": [recorder]})),
        }[way]()
    assert recorder.names("on_chain_error") == ["ChatRouteLLM"]
    assert recorder.names("on_chain_end") == []


def test_what_is_set_on_the_wrapper_holds_for_router_and_model(pair: Pair) -> None:
    recorder, usage = Recorder(), UsageMetadataCallbackHandler()
    llm = pair.llm(callbacks=[recorder, usage], tags=["own"], metadata={"team": "a"}, name="front door")
    llm.invoke("p=0.9 one two")
    assert recorder.names("on_chain_start") == ["front door"]
    for event in ("on_chain_start", "on_chat_model_start"):
        (details,) = recorder.details(event)
        assert "own" in details["tags"]
        assert details["metadata"]["team"] == "a"
    assert usage.usage_metadata["strong-model"]["output_tokens"] == 5
    llm.invoke("p=0.9 again", {"callbacks": [recorder]})
    assert len(recorder.names("on_chat_model_start")) == 2  # given twice, called once


def test_the_models_own_callbacks_tags_and_metadata_stay(pair: Pair) -> None:
    recorder = Recorder()
    pair.strong.callbacks, pair.strong.tags, pair.strong.metadata = [recorder], ["strong-own"], {"k": 1}
    pair.llm().invoke("p=0.9")
    (start,) = recorder.details("on_chat_model_start")
    assert {"strong-own", "routellm:strong"} <= set(start["tags"])
    assert start["metadata"]["k"] == 1
    assert start["metadata"]["routellm"]["model"] == "strong"


def test_structured_output_is_one_run_too(pair: Pair) -> None:
    recorder = Recorder()
    schema = {"title": "Answer", "type": "object", "properties": {"text": {"type": "string"}}, "description": "d"}
    routed = pair.llm(callbacks=[recorder]).with_structured_output(schema)
    assert routed.invoke("p=0.9 'x'", {"callbacks": []}) == {"text": "x"}
    assert len(recorder.names("on_chat_model_start")) == 1
    (start,) = recorder.details("on_chat_model_start")
    assert start["metadata"]["routellm"]["model"] == "strong"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("config", [None, {"tags": ["of the call"], "run_name": "named"}], ids=["bare", "configured"])
@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("prompt", ["p=0.9 hard", "p=0.1 easy"])
async def test_a_straight_call_is_like_one_with_a_route(
    pair: Pair, prompt: str, seen: bool, config: Any, asynchronous: bool
) -> None:
    found = []
    for straight in (True, False):
        llm, recorder = pair.llm(), Recorder()
        assert llm._dispatch.is_straight
        llm._dispatch.is_straight = straight
        given = {**(config or {}), "callbacks": [recorder]} if seen else config
        answer = await llm.ainvoke(prompt, given) if asynchronous else llm.invoke(prompt, given)  # type: ignore[arg-type]
        decision = {**answer.response_metadata["routellm"], "id": None}
        (start,) = recorder.details("on_chat_model_start") if seen else ({"tags": None, "metadata": {}},)
        told = {**start["metadata"].get("routellm", {}), "id": None}
        events = [(event, label) for event, label, *_ in recorder.events]
        found.append((answer.content, decision, start["tags"], told, events))
    assert found[0] == found[1]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("straight", [True, False], ids=["straight", "route"])
async def test_an_empty_answer_is_an_error_with_and_without_a_route(
    pair: Pair, straight: bool, asynchronous: bool
) -> None:
    llm = ChatRouteLLM(strong=_Empty(), weak=pair.weak, router=pair.router, threshold=0.7)
    llm._dispatch.is_straight = straight
    with pytest.raises(EmptyAnswerError, match="the strong model gave an empty answer"):
        await llm.ainvoke("p=0.9 hard") if asynchronous else llm.invoke("p=0.9 hard")


class _Empty(ScriptedChatModel):
    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(""))])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("fault", ["none", "error", "empty"])
async def test_a_straight_batch_is_like_one_with_routes(pair: Pair, fault: str, asynchronous: bool) -> None:
    found = []
    for straight in (True, False):
        weak = _Empty() if fault == "empty" else ScriptedChatModel(error=OSError("down") if fault == "error" else None)
        llm, recorder = ChatRouteLLM(strong=pair.strong, weak=weak, router=pair.router, threshold=0.7), Recorder()
        llm._dispatch.is_straight = straight
        prompts: list[Any] = ["p=0.9 hard", "p=0.1 easy", "p=0.8 hard", "p=0.2 easy", ""]
        config: Any = {"callbacks": [recorder], "tags": ["of the call"], "max_concurrency": 1}
        if asynchronous:
            answers = await llm.abatch(prompts, config, return_exceptions=True)
        else:
            answers = llm.batch(prompts, config, return_exceptions=True)
        shown = [
            repr(a) if isinstance(a, Exception) else (a.content, {**a.response_metadata["routellm"], "id": None})
            for a in answers
        ]
        starts = [
            (start["tags"], {**start["metadata"]["routellm"], "id": None})
            for start in recorder.details("on_chat_model_start")
        ]
        routers = [start["run_id"] for start in recorder.details("on_chain_start")]
        parents = [routers.index(start["parent_run_id"]) for start in recorder.details("on_chat_model_start")]
        events = [(event, label) for event, label, *_ in recorder.events]
        found.append((shown, starts, parents, events))
    assert found[0] == found[1]
    assert sum(isinstance(answer, str) for answer in found[0][0]) == (0 if fault == "none" else 2)


_PRICES = {"strong": Price(2.0, 8.0), "weak": Price(0.1, 0.4)}


@pytest.mark.parametrize(
    "options",
    [
        {"failover": True},
        {"accept": lambda answer: True},
        {"limits": [SpendLimit(1.0, prices=_PRICES)]},
        {"prices": _PRICES},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_call_that_something_follows_takes_a_route(pair: Pair, options: dict[str, Any]) -> None:
    assert not pair.llm(**options)._dispatch.is_straight
