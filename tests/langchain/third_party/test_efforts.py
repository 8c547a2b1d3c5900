"""One model of Anthropic's with two thinking budgets, or with and without thinking, as the two sides."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware
from tests.langchain.third_party.services import service
from tests.support.loopback import ChatReply
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 easy", "p=0.9 hard"
BUDGETS = {"type": "enabled", "budget_tokens": 4096}, {"type": "enabled", "budget_tokens": 1024}

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*(`thinking`|thinking is enabled):UserWarning")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _sides(model: Any, how: str) -> tuple[Any, Any]:
    if how == "bound":
        plain = model.model_copy(update={"thinking": None, "max_tokens": 8192})
        return plain.bind(thinking=BUDGETS[0]), plain.bind(thinking=BUDGETS[1])
    strong, weak = (model.model_copy(update={"thinking": t, "max_tokens": 8192}) for t in BUDGETS)
    return strong, weak if how == "constructed" else weak.model_copy(update={"thinking": None})


def _thoughts(body: Any) -> list[str]:
    blocks = [b for m in body["messages"] if isinstance(m["content"], list) for b in m["content"]]
    return [block["thinking"] for block in blocks if block.get("type") == "thinking"]


@pytest.mark.parametrize("how", ["constructed", "bound", "without thinking"])
def test_thinking_stays_in_the_history_whichever_budget_it_had(how: str, caplog: Any) -> None:
    with service("anthropic") as (server, model), caplog.at_level(logging.WARNING):
        strong, weak = _sides(model, how)
        llm = ChatRouteLLM(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5)
        talk: list[Any] = []
        for i, text in enumerate((HARD, EASY, HARD, EASY)):
            thinks = how != "without thinking" or text == HARD
            server.reply_next(ChatReply(f"answer {i}", thinking=f"thought {i}" if thinks else None))
            talk.append(HumanMessage(text))
            talk.append(llm.invoke(talk))
        bodies = [request.body for request in server.requests]
        budgets = [(body.get("thinking") or {}).get("budget_tokens") for body in bodies]
        assert budgets == [4096, None if how == "without thinking" else 1024] * 2
        kept = ["thought 0", "thought 2"] if how == "without thinking" else ["thought 0", "thought 1", "thought 2"]
        assert _thoughts(bodies[-1]) == kept
        assert not caplog.records


@pytest.mark.parametrize("how", ["constructed", "without thinking"])
@pytest.mark.parametrize("scope", ["run", "call"])
def test_an_agent_s_loop_is_taken(how: str, scope: Any) -> None:
    with service("anthropic") as (server, model):
        strong, weak = _sides(model, how)
        middleware = RouteLLMMiddleware(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5, scope=scope)
        agent: Any = create_agent(model=weak, tools=[add], middleware=[middleware])
        state: dict[str, Any] = {"messages": []}
        for text in (HARD, EASY, HARD):
            thought = "add them" if how == "constructed" or text == HARD else None
            server.reply_next(
                ChatReply(tool_calls=[("add", {"a": 2, "b": 3})], thinking=thought), ChatReply("5", thinking=thought)
            )
            state = agent.invoke({"messages": [*state["messages"], HumanMessage(text)]})
        assert len(server.requests) == 6
        assert len(_thoughts(server.requests[-1].body)) == (5 if how == "constructed" else 3)
