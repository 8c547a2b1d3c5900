"""One model of Anthropic's with two thinking budgets as the two sides, with LlamaIndex's own client."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

pytest.importorskip("llama_index.llms.anthropic", reason="Anthropic's client is in the environment of the clients")
from llama_index.llms.anthropic import Anthropic

from llamaindex_routellm import RouteLLM
from tests.support.anthropic_server import AnthropicServer
from tests.support.loopback import ChatReply
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 easy", "p=0.9 hard"


@pytest.mark.parametrize("way", ["chat", "stream_chat"])
def test_thinking_stays_in_the_history_whichever_budget_it_had(way: str, caplog: Any) -> None:
    with AnthropicServer() as server, caplog.at_level(logging.WARNING):
        sides: Any = {
            side: Anthropic(
                model="claude-sonnet-4-5",
                base_url=server.origin,
                api_key="sk-ant-test",
                max_tokens=8192,
                max_retries=0,
                thinking_dict={"type": "enabled", "budget_tokens": budget},
            )
            for side, budget in (("strong", 4096), ("weak", 1024))
        }
        llm = RouteLLM(**sides, router=ScriptedRouter(), threshold=0.5)
        talk: list[ChatMessage] = []
        for i, text in enumerate((HARD, EASY, HARD, EASY)):
            server.reply_next(ChatReply(f"answer {i}", thinking=f"thought {i}"))
            talk.append(ChatMessage(role="user", content=text))
            answer = llm.chat(talk) if way == "chat" else list(llm.stream_chat(talk))[-1]
            talk.append(answer.message)
        bodies = [request.body for request in server.requests]
        assert [body["thinking"]["budget_tokens"] for body in bodies] == [4096, 1024, 4096, 1024]
        assert not [record for record in caplog.records if "routellm" in record.name]
        # what the model by itself would be sent for the same conversation
        llm.weak.chat([*talk, ChatMessage(role="user", content="end")])
        llm.chat([*talk, ChatMessage(role="user", content=HARD)])
        alone, routed = (request.body["messages"] for request in server.requests[-2:])
        assert routed[:-1] == alone[:-1]
        thoughts = [b["thinking"] for m in routed for b in m["content"] if isinstance(b, dict) and "thinking" in b]
        assert thoughts == [f"thought {i}" for i in range(4)]
        for model in sides.values():
            model._client.close()
