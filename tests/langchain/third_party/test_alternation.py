"""Conversations that go back and forth between two providers for twelve turns, by every ordered pair of five.

Each server holds what it is sent against its provider's published schema and rules, and refuses the rest; the tests
look at what arrives, so that nothing is left out that the next model could have read.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, message_chunk_to_message
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_routellm import ChatRouteLLM, routing_decision
from tests.langchain.third_party.services import KINDS, service
from tests.support.loopback import ChatReply, LoopbackServer
from tests.support.routers import ScriptedRouter

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
IMAGES: tuple[Any, ...] = (
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
    {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Answer(BaseModel):
    """An answer."""

    text: str


class Conversation:
    """A conversation with a routed model, whose turns go to the side that is asked for."""

    def __init__(self, llm: ChatRouteLLM, servers: dict[str, LoopbackServer]) -> None:
        self.llm = llm
        self.servers = servers
        self.messages: list[BaseMessage] = []
        self.turn = 0

    def ask(self, side: str, images: list[Any] | None = None) -> None:
        text = f"p={0.9 if side == 'strong' else 0.1} question {self.turn}."
        self.messages.append(HumanMessage([{"type": "text", "text": text}, *images] if images else text))

    def answer(self, side: str, reply: ChatReply, model: Any = None, **configurable: Any) -> AIMessage:
        """The next answer, which must come from `side`; every second turn is streamed."""
        self.servers[side].reply_next(reply)
        before = {name: len(server.requests) for name, server in self.servers.items()}
        model = model or self.llm
        config: Any = {"configurable": configurable}
        if self.turn // 2 % 2:
            chunks = list(model.stream(self.messages, config))
            message: Any = message_chunk_to_message(chunks[0] + chunks[1:])
        else:
            message = model.invoke(self.messages, config)
        asked = {name: len(server.requests) - before[name] for name, server in self.servers.items()}
        assert asked == {"strong": int(side == "strong"), "weak": int(side == "weak")}
        decision = routing_decision(message)
        assert decision is not None
        assert decision.model == side
        self.messages.append(message)
        return message  # type: ignore[no-any-return]

    def results(self, message: AIMessage) -> None:
        assert message.tool_calls
        for call in message.tool_calls:
            self.messages.append(ToolMessage(f"result {self.turn}.", tool_call_id=call["id"], name=call["name"]))

    def wire(self, side: str) -> str:
        """The last request that a side was sent."""
        return json.dumps(self.servers[side].requests[-1].body, ensure_ascii=False)


def _other(side: str) -> str:
    return "weak" if side == "strong" else "strong"


def _play(talk: Conversation) -> None:
    """Twelve turns: two of each kind, one for each side."""
    bound = talk.llm.bind_tools([add])
    for kind, side in product(("thinking", "tools", "server tool", "image", "schema", "switch"), ("strong", "weak")):
        turn = talk.turn
        says = ChatReply(f"answer {turn}.", thinking=f"thought {turn}.")
        calls = ChatReply(f"calling {turn}.", tool_calls=[("add", {"a": turn, "b": 1})], thinking=f"thought {turn}.")
        talk.ask(side, [IMAGES[turn % 4], IMAGES[(turn + 2) % 4]] if kind == "image" else None)
        if kind == "tools":
            talk.results(talk.answer(side, calls, bound))
            talk.answer(side, says, bound)
        elif kind == "server tool":
            talk.answer(side, ChatReply(f"answer {turn}.", server_tool=(f"query {turn}.", f"found {turn}.")))
        elif kind == "schema":
            form = ChatReply(tool_calls=[("Answer", {"text": f"answer {turn}."})], thinking=f"thought {turn}.")
            structured: Any = talk.llm.with_structured_output(Answer, method="function_calling", include_raw=True)
            talk.servers[side].reply_next(form)
            found = structured.invoke(talk.messages)
            assert found["parsed"] == Answer(text=f"answer {turn}.")
            talk.messages.append(found["raw"])
            talk.results(found["raw"])
        elif kind == "switch":  # the other side takes over inside the tool loop, and gives it back
            talk.results(talk.answer(side, calls, bound))
            talk.results(talk.answer(_other(side), calls, bound, routellm_force=_other(side)))
            talk.answer(side, says, bound)
        else:
            talk.answer(side, says)
        talk.turn += 1


# clients warn: Anthropic's that a schema cannot force its tool while the model thinks, Google's that code output varies
@pytest.mark.filterwarnings("ignore:(?s).*(`thinking`|Output may vary):UserWarning")
@pytest.mark.parametrize(("strong", "weak"), list(product(KINDS, KINDS)), ids=str)
def test_twelve_turns(strong: str, weak: str) -> None:
    with service(strong) as (strong_server, strong_model), service(weak) as (weak_server, weak_model):
        llm = ChatRouteLLM(strong=strong_model, weak=weak_model, router=ScriptedRouter(), threshold=0.7)
        talk = Conversation(llm, {"strong": strong_server, "weak": weak_server})
        _play(talk)
        for side in ("strong", "weak"):
            talk.ask(side)
            talk.answer(side, ChatReply("the end"))
        kinds = {"strong": strong, "weak": weak}
        for side in ("strong", "weak"):
            wire = talk.wire(side)
            for turn in range(12):
                assert f"question {turn}." in wire
                assert f"answer {turn}." in wire
            for turn in (2, 3, 10, 11):
                assert f"calling {turn}." in wire
            for turn in (2, 3, 8, 9, 10, 11):
                assert f"result {turn}." in wire
            assert wire.count(PIXEL) == 4
            _check_thinking_and_server_tools(side, kinds, wire)


# APIs that are sent their own model's thinking again, and those that have tools of their own
KEEPS_THINKING = {"anthropic", "responses", "ollama"}
HAS_SERVER_TOOLS = {"anthropic", "responses", "google"}


def _check_thinking_and_server_tools(side: str, kinds: dict[str, str], wire: str) -> None:
    ours, theirs = ({0, 2, 6, 8}, {1, 3, 7, 9}) if side == "strong" else ({1, 3, 7, 9}, {0, 2, 6, 8})
    for turn in theirs:
        assert f"thought {turn}." not in wire
    if kinds[side] in KEEPS_THINKING:
        for turn in ours:
            assert f"thought {turn}." in wire
    for turn, asked in ((4, "strong"), (5, "weak")):
        if kinds[asked] in HAS_SERVER_TOOLS:
            assert f"query {turn}." in wire
            assert f"found {turn}." in wire
