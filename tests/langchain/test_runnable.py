"""RouteLLMRunnable: any two runnables, routed like the two models of ChatRouteLLM."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langgraph.graph import START, MessagesState, StateGraph

from langchain_routellm import RouteLLMRunnable, routing_decision
from routellm_core import Stickiness
from routellm_core.errors import ConfigurationError, PromptError
from tests.langchain.conftest import Pair, Recorder


def _route(pair: Pair, strong: Any = None, weak: Any = None, **options: Any) -> RouteLLMRunnable:
    options.setdefault("threshold", 0.7)
    return RouteLLMRunnable(
        strong=strong or (lambda x: f"S {x}"), weak=weak or (lambda x: f"W {x}"), router=pair.router, **options
    )


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ("p=0.9", {}),
        (HumanMessage("p=0.9"), {}),
        ([("system", "p=0.1"), ("user", "p=0.9")], {}),
        (ChatPromptTemplate.from_messages([("user", "p=0.9")]).invoke({}), {}),
        ({"messages": [("user", "p=0.9"), ("ai", "p=0.1")], "other": "p=0.1"}, {}),
        ({"question": "p=0.9", "context": "p=0.1", "chat_history": []}, {}),
        ({"input": "p=0.9", "context": "p=0.1"}, {}),
        ({"topic": "p=0.9", "count": 3}, {}),
        ({"a": "p=0.1", "b": "p=0.9"}, {"route_on": "b"}),
        ({"a": "p=0.1", "b": {"question": "p=0.9"}}, {"route_on": "b"}),
        ({"a": "p=0.1", "b": "p=0.9"}, {"route_on": lambda value: value["b"]}),
        ({"a": "p=0.1", "b": "p=0.9"}, {"route_on": lambda value: [value["a"], value["b"]]}),
        (Document("p=0.9"), {"route_on": lambda value: value.page_content}),
    ],
)
async def test_what_an_input_is_routed_on(pair: Pair, value: Any, options: dict[str, Any]) -> None:
    route = _route(pair, RunnableLambda(lambda x: "S"), RunnableLambda(lambda x: "W"), **options)
    assert route.invoke(value) == await route.ainvoke(value) == "S"
    assert route.batch([value]) == ["S"]
    assert list(route.stream(value)) == ["S"]


@pytest.mark.parametrize(
    "answer",
    [
        {"raw": AIMessage("an answer"), "sources": ["a page"]},
        {"raw": AIMessage("an answer"), "parsed": None, "parsing_error": None, "attempts": 2},
        {"message": AIMessage("an answer")},
        {"raw": "a text"},
    ],
    ids=lambda answer: " ".join(answer),
)
def test_a_dict_of_the_users_own_comes_out_as_it_is(pair: Pair, answer: dict[str, Any]) -> None:
    """Only what with_structured_output(include_raw=True) gives has a place for the decision."""
    route = _route(pair, strong=lambda _: answer)
    assert route.invoke("p=0.9") is answer
    assert list(route.stream("p=0.9")) == [answer]
    assert all(not getattr(value, "response_metadata", None) for value in answer.values())


def test_what_structured_output_gives_with_the_raw_message_carries_the_decision(pair: Pair) -> None:
    raw = AIMessage("an answer")
    answer = {"raw": raw, "parsed": {"a": 1}, "parsing_error": None}
    out = _route(pair, strong=lambda _: answer).invoke("p=0.9")
    assert routing_decision(out).model == "strong"  # type: ignore[union-attr]
    assert raw.response_metadata == {}


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ({"a": "x", "b": "y"}, {}, "a dict with keys 'a', 'b': which of it is the question.*route_on='KEY'"),
        ({}, {}, "an empty dict: which of it"),
        ({"a": 1}, {"route_on": "b"}, "route_on='b': the input is a dict with keys 'a' and has no such key"),
        ("text", {"route_on": "b"}, "route_on='b': the input is str"),
        (Document("x"), {}, "input is Document: no text to route on; give route_on="),
        (7, {}, "input is int"),
        (None, {}, "input is NoneType"),
        ([], {}, "input is list"),
        ({"a": 1}, {"route_on": "a"}, "input is int"),
        ("x", {"route_on": lambda value: 3}, "route_on returned int: expected a str"),
    ],
)
def test_an_input_without_a_question_is_named(pair: Pair, value: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        _route(pair, **options).invoke(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strong": 3}, "strong=3: expected a runnable"),
        (
            {"route_on": 3},
            "route_on=3: expected a function .* the key of a dict input",
        ),
        ({"threshold": 2}, "threshold=2"),
        ({"lookback": 0}, "lookback=0"),
        ({"temperature": 0}, "temperature=: RouteLLMRunnable has no such option"),
        ({"route_onn": "x"}, "route_onn=: RouteLLMRunnable has no such option; did you mean route_on="),
    ],
)
def test_a_wrong_option_is_named(pair: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _route(pair, **options)


def _chain(model: Any) -> Any:
    return ChatPromptTemplate.from_messages([("user", "{question}")]) | model | StrOutputParser()


async def test_chains_are_routed_and_stream_token_by_token(pair: Pair) -> None:
    route = _route(pair, _chain(pair.strong), _chain(pair.weak))
    chain = RunnablePassthrough() | route | RunnableLambda(str.upper)
    assert chain.invoke({"question": "p=0.9 hi"}) == "STRONG-MODEL ANSWERS: P=0.9 HI"
    assert [c for c in route.stream({"question": "p=0.1 hi"}) if c] == ["weak-model", " answers:", " p=0.1", " hi"]
    assert "".join([c async for c in route.astream({"question": "p=0.1 hi"})]) == "weak-model answers: p=0.1 hi"
    out = await route.abatch([{"question": f"p=0.{i}"} for i in range(10)])
    assert out == [f"{'strong' if i >= 7 else 'weak'}-model answers: p=0.{i}" for i in range(10)]
    assert len(pair.router.calls) == 3  # two prompts, and the eight of the batch that were new


def test_the_decision_stands_in_the_runs_below(pair: Pair) -> None:
    recorder = Recorder()
    _route(pair, _chain(pair.strong), _chain(pair.weak)).invoke({"question": "p=0.9"}, {"callbacks": [recorder]})
    (model,) = recorder.details("on_chat_model_start")
    assert model["metadata"]["routellm"]["model"] == "strong"
    assert recorder.names("on_chain_start")[0] == "RouteLLMRunnable"
    chain = recorder.details("on_chain_start")[1]
    assert "routellm:strong" in chain["tags"]


def test_messages_carry_the_decision(pair: Pair) -> None:
    answer = _route(pair, pair.strong, pair.weak).invoke("p=0.9 hi")
    assert routing_decision(answer).model == "strong"  # type: ignore[union-attr]


def test_an_inner_router_tells_its_own_decision_to_the_runs_below_it(pair: Pair) -> None:
    recorder = Recorder()
    inner = _chain(pair.llm(threshold=0.95))
    route = _route(pair, inner, _chain(pair.weak), threshold=0.7)
    assert route.invoke({"question": "p=0.9"}, {"callbacks": [recorder]}).startswith("weak-model")
    (model,) = recorder.details("on_chat_model_start")
    assert (model["metadata"]["routellm"]["model"], model["metadata"]["routellm"]["threshold"]) == ("weak", 0.95)


class _Shelf(BaseRetriever):
    """A retriever that finds its own name."""

    shelf: str

    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
        return [Document(f"{self.shelf}: {query}")]


def test_retrievers_and_completion_models_are_routed(pair: Pair) -> None:
    deep = _route(pair, _Shelf(shelf="deep"), _Shelf(shelf="quick"))
    assert deep.invoke("p=0.9")[0].page_content == "deep: p=0.9"
    words = _route(pair, FakeListLLM(responses=["S"] * 3), FakeListLLM(responses=["W"] * 3))
    assert words.batch(["p=0.9", "p=0.1"]) == ["S", "W"]


def test_graphs_are_routed_on_their_messages(pair: Pair) -> None:
    def graph(model: Any) -> Any:
        builder = StateGraph(MessagesState)
        builder.add_node("n", lambda state: {"messages": [model.invoke(state["messages"])]})
        builder.add_edge(START, "n")
        return builder.compile()

    route = _route(pair, graph(pair.strong), graph(pair.weak))
    out = route.invoke({"messages": [("user", "p=0.9 hi")]})
    assert out["messages"][-1].content == "strong-model answers: p=0.9 hi"


def test_functions_and_dicts_become_runnables(pair: Pair) -> None:
    route = _route(pair, {"a": lambda x: x, "b": lambda x: "S"}, lambda x: "W")
    assert route.invoke("p=0.9") == {"a": "p=0.9", "b": "S"}
    assert route.invoke("p=0.1") == "W"


async def test_settings_of_a_call_reach_it_through_a_chain(pair: Pair) -> None:
    chain = RunnablePassthrough() | _route(pair)
    config: Any = {"configurable": {"routellm_force": "strong"}}
    assert chain.invoke("p=0.1", config) == await chain.ainvoke("p=0.1", config) == "S p=0.1"
    assert chain.invoke("p=0.5", {"configurable": {"routellm_threshold": 0.4}}) == "S p=0.5"
    assert {"routellm_threshold", "routellm_force"} <= {spec.id for spec in chain.config_specs}


def test_stickiness_and_failover_as_for_models(pair: Pair) -> None:
    def down(x: Any) -> Any:
        raise ConnectionError("down")

    assert _route(pair, down, failover=True).invoke("p=0.9") == "W p=0.9"
    route = _route(pair, sticky=True)
    config: Any = {"configurable": {"thread_id": "t"}}
    assert [route.invoke(p, config) for p in ("p=0.1", "p=0.9", "p=0.2")] == ["W p=0.1", "S p=0.9", "S p=0.2"]


def test_schemas_are_the_strong_sides(pair: Pair) -> None:
    route = _route(pair, pair.strong, pair.weak)
    assert route.InputType == pair.strong.InputType
    assert route.OutputType == pair.strong.OutputType
    assert route.get_input_schema().model_json_schema() == pair.strong.get_input_schema().model_json_schema()  # type: ignore[union-attr]
    assert route.get_output_schema() is not None


def test_it_serializes(pair: Pair) -> None:
    route = RouteLLMRunnable(
        strong=pair.strong,
        weak=pair.weak,
        router="random",
        threshold=0.5,
        sticky=Stickiness("user", release_after=None),
    )
    saved = dumpd(route)
    assert saved["id"] == ["langchain_routellm", "runnable", "RouteLLMRunnable"]
    assert saved["kwargs"]["threshold"] == 0.5
    assert saved["kwargs"]["sticky"] == {
        "key": "user",
        "release_after": None,
        "ttl": None,
        "max_conversations": 10_000,
    }
    again = _route(pair, sticky=saved["kwargs"]["sticky"])
    assert dumpd(again)["kwargs"]["sticky"] == saved["kwargs"]["sticky"]


def test_it_can_be_drawn(pair: Pair) -> None:
    assert (RunnablePassthrough() | _route(pair)).get_graph().nodes
