"""One model with two reasoning efforts as the two sides: real OpenAI clients, history kept whole, no warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, RouteLLMRunnable, routing_decision
from langchain_routellm.switching import adapted
from tests.support.openai_server import ChatReply, OpenAIServer
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 easy", "p=0.9 hard"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.strict = True
        yield server


def client(server: OpenAIServer, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-5", base_url=server.base_url, api_key="sk-test", max_retries=0, **options)  # type: ignore[arg-type]


def pairs(server: OpenAIServer, api: str) -> tuple[Any, Any]:
    """The two sides by `bind` and by the constructor, for one of OpenAI's two APIs."""
    if api == "chat":
        model = client(server)
        return model.bind(reasoning_effort="high"), model.bind(reasoning_effort="low")
    if api == "chat, constructed":
        return client(server, reasoning_effort="high"), client(server, reasoning_effort="low")
    responses = client(server, use_responses_api=True)
    if api == "responses":
        return responses.bind(reasoning={"effort": "high"}), responses.bind(reasoning={"effort": "low"})
    made = [client(server, use_responses_api=True, reasoning={"effort": effort}) for effort in ("high", "low")]
    return made[0], made[1]


APIS = ("chat", "chat, constructed", "responses", "responses, constructed")


def effort_of(body: Any) -> str:
    return body.get("reasoning_effort") or body["reasoning"]["effort"]


def turns_of(body: Any) -> Any:
    return body.get("messages") or body["input"]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_each_call_has_the_effort_of_its_side_and_the_history_is_that_of_one_model(api, way, server, caplog):
    strong, weak = pairs(server, api)
    llm = ChatRouteLLM(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5)
    talk: list[Any] = []
    with caplog.at_level(logging.WARNING):
        for i, text in enumerate((HARD, EASY, HARD, EASY)):
            server.reply_next(ChatReply(f"answer {i}", thinking=f"thought {i}"))
            talk.append(HumanMessage(text))
            if way == "invoke":
                talk.append(llm.invoke(talk))
            else:
                chunks = list(llm.stream(talk))
                talk.append(chunks[0] + chunks[1:])
    bodies = [request.body for request in server.requests]
    assert [effort_of(body) for body in bodies] == ["high", "low", "high", "low"]
    assert not caplog.records
    # what the model by itself would be sent for the same conversation
    server.reply_next(ChatReply("last"), ChatReply("last"))
    strong.invoke([*talk, HumanMessage("end")])
    llm.invoke([*talk, HumanMessage(f"{HARD} end")])
    alone, routed = (turns_of(request.body) for request in server.requests[-2:])
    assert routed[:-1] == alone[:-1]
    if api.startswith("responses"):
        assert sum(item.get("type") == "reasoning" for item in routed) == 4


@pytest.mark.parametrize("api", APIS)
def test_no_message_is_changed_between_two_efforts(api, server):
    strong, weak = pairs(server, api)
    llm = ChatRouteLLM(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5)
    server.reply_next(ChatReply("answer", thinking="thought"))
    answer = llm.invoke(HARD)
    for side, model, other in (("strong", strong, weak), ("weak", weak, strong)):
        (kept,) = adapted([answer], side, model, other)  # type: ignore[arg-type]
        assert kept is answer


def test_another_model_s_answer_is_still_adapted(server):
    strong, weak = pairs(server, "responses")
    llm = ChatRouteLLM(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5)
    server.reply_next(ChatReply("answer", thinking="thought"))
    answer = llm.invoke(HARD)
    other = client(server, use_responses_api=True).model_copy(update={"model_name": "gpt-4.1"})
    (changed,) = adapted([answer], "weak", other, strong)
    assert "reasoning" not in {block.get("type") for block in changed.content}  # type: ignore[union-attr]
    elsewhere = ChatOpenAI(model="gpt-5", base_url="http://127.0.0.1:9/v1", api_key="sk", use_responses_api=True)  # type: ignore[arg-type]
    (changed,) = adapted([answer], "weak", elsewhere, strong)  # another server has not signed it
    assert "reasoning" not in {block.get("type") for block in changed.content}  # type: ignore[union-attr]


@pytest.mark.parametrize("api", APIS)
def test_tools_are_bound_to_both_efforts(api, server):
    strong, weak = pairs(server, api)
    llm = ChatRouteLLM(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5).bind_tools([add])
    for text, effort in ((HARD, "high"), (EASY, "low")):
        server.reply_next(ChatReply(tool_calls=[("add", {"a": 2, "b": 3})], thinking="add"))
        assert llm.invoke(text).tool_calls[0]["args"] == {"a": 2, "b": 3}
        body = server.requests[-1].body
        assert effort_of(body) == effort
        assert body["tools"]


@pytest.mark.parametrize("api", ["chat, constructed", "responses, constructed"])
@pytest.mark.parametrize("scope", ["run", "call"])
def test_an_agent_keeps_its_loop_whole(api, scope, server, caplog):
    strong, weak = pairs(server, api)
    middleware = RouteLLMMiddleware(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5, scope=scope)
    agent = create_agent(model=weak, tools=[add], middleware=[middleware])
    state: dict[str, Any] = {"messages": []}
    with caplog.at_level(logging.WARNING):
        for text in (HARD, EASY, HARD):
            server.reply_next(
                ChatReply(tool_calls=[("add", {"a": 2, "b": 3})], thinking="add"), ChatReply("5", thinking="done")
            )
            state = agent.invoke({"messages": [*state["messages"], HumanMessage(text)]})
    assert [effort_of(r.body) for r in server.requests] == ["high", "high", "low", "low", "high", "high"]
    assert not caplog.records
    if api.startswith("responses"):
        items = server.requests[-1].body["input"]
        assert sum(item.get("type") == "reasoning" for item in items) == 5
    assert routing_decision(state["messages"][-1]).model == "strong"  # type: ignore[union-attr]


def test_the_runnable_takes_two_efforts(server):
    strong, weak = pairs(server, "chat")
    chain = RouteLLMRunnable(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5)
    chain.invoke(EASY)
    chain.invoke(HARD)
    assert [effort_of(r.body) for r in server.requests] == ["low", "high"]
