"""One model with two reasoning efforts as the two sides: real OpenAI clients, history kept whole, no warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ThinkingBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses

from llamaindex_routellm import RouteLLM, routing_decision
from tests.support.openai_server import ChatReply, OpenAIServer
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 easy", "p=0.9 hard"
ADD = FunctionTool.from_defaults(lambda a, b: a + b, name="add", description="Add two numbers.")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def side(server: OpenAIServer, api: str, effort: str) -> Any:
    common: dict[str, Any] = {"model": "gpt-5", "api_base": server.base_url, "api_key": "sk-test", "max_retries": 0}
    if api == "responses":
        return OpenAIResponses(**common, reasoning_options={"effort": effort}, store=True)
    if api == "chat":
        return OpenAI(**common, reasoning_effort=effort)  # type: ignore[arg-type]
    return OpenAI(**common, additional_kwargs={"reasoning_effort": effort})


@pytest.fixture(params=["chat", "responses", "additional_kwargs"])
def api(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def llm(server: OpenAIServer, api: str) -> Iterator[RouteLLM]:
    sides = {"strong": side(server, api, "high"), "weak": side(server, api, "low")}
    yield RouteLLM(**sides, router=ScriptedRouter(), threshold=0.5)
    for model in sides.values():
        model._get_client().close() if hasattr(model, "_get_client") else model._client.close()


def effort_of(body: Any) -> str:
    return body.get("reasoning_effort") or body["reasoning"]["effort"]


def turns_of(body: Any) -> Any:
    return body.get("messages") or body["input"]


@pytest.mark.parametrize("way", ["chat", "stream_chat"])
def test_each_call_has_the_effort_of_its_side_and_the_history_is_that_of_one_model(
    way: str, api: str, llm: RouteLLM, server: OpenAIServer, caplog: Any
) -> None:
    talk: list[ChatMessage] = []
    with caplog.at_level(logging.WARNING):
        for i, text in enumerate((HARD, EASY, HARD, EASY)):
            server.reply_next(ChatReply(f"answer {i}", thinking=f"thought {i}"))
            talk.append(ChatMessage(role="user", content=text))
            answer = llm.chat(talk) if way == "chat" else list(llm.stream_chat(talk))[-1]
            assert routing_decision(answer).model == ("strong" if text == HARD else "weak")  # type: ignore[union-attr]
            talk.append(answer.message)
    bodies = [request.body for request in server.requests]
    assert [effort_of(body) for body in bodies] == ["high", "low", "high", "low"]
    assert not [record for record in caplog.records if "routellm" in record.name]
    # what the model by itself would be sent for the same conversation
    llm.strong.chat([*talk, ChatMessage(role="user", content="end")])
    llm.chat([*talk, ChatMessage(role="user", content=EASY)])
    alone, routed = (turns_of(request.body) for request in server.requests[-2:])
    assert routed[:-1] == alone[:-1]
    if api == "responses":
        assert any(isinstance(block, ThinkingBlock) for message in talk for block in message.blocks)
        assert sum(item.get("type") == "reasoning" for item in routed) == 4


def test_tools_are_sent_with_either_effort(llm: RouteLLM, server: OpenAIServer) -> None:
    for text, effort in ((HARD, "high"), (EASY, "low")):
        server.reply_next(ChatReply(tool_calls=[("add", {"a": 2, "b": 3})], thinking="add"))
        answer = llm.chat_with_tools([ADD], text)
        (call,) = llm.get_tool_calls_from_response(answer)
        assert call.tool_kwargs == {"a": 2, "b": 3}
        assert effort_of(server.requests[-1].body) == effort
        assert server.requests[-1].body["tools"]
