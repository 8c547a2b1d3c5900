"""Agents of others around a routed model: langgraph's, supervisor, swarm, deepagents, trustcall, langmem."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, routing_decision
from tests.langchain.third_party.services import service
from tests.support.loopback import ChatReply, LoopbackServer
from tests.support.routers import ScriptedRouter

with warnings.catch_warnings():  # the first has moved to langchain.agents, and still what many run
    warnings.simplefilter("ignore")
    from deepagents import create_deep_agent
    from langgraph.prebuilt import create_react_agent
    from langgraph_supervisor import create_supervisor
    from langgraph_swarm import create_handoff_tool, create_swarm
    from langmem.short_term import SummarizationNode
    from trustcall import create_extractor

pytestmark = [
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
    pytest.mark.filterwarnings("ignore:(?s).*(`thinking`|thinking is enabled):UserWarning"),
]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def other(a: int) -> int:
    """Another tool."""
    return a


class Answer(BaseModel):
    """An answer."""

    text: str


@dataclass
class Pair:
    """A strong model of Anthropic's that thinks and a weak one of OpenAI's, as one routed model."""

    strong: LoopbackServer
    weak: LoopbackServer
    strong_model: BaseChatModel
    weak_model: BaseChatModel
    router: ScriptedRouter

    def llm(self, **options: Any) -> ChatRouteLLM:
        return ChatRouteLLM(**self.sides, router=self.router, threshold=0.7, **options)

    def middleware(self, **options: Any) -> RouteLLMMiddleware:
        return RouteLLMMiddleware(**self.sides, router=self.router, threshold=0.7, **options)

    @property
    def sides(self) -> dict[str, Any]:
        return {"strong": self.strong_model, "weak": self.weak_model}

    @property
    def asked(self) -> tuple[int, int]:
        return len(self.strong.requests), len(self.weak.requests)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with service("anthropic") as (strong, strong_model), service("openai") as (weak, weak_model):
        yield Pair(strong, weak, strong_model, weak_model, ScriptedRouter())


CALL = ChatReply(tool_calls=[("add", {"a": 2, "b": 3})], thinking="add them")


@pytest.mark.parametrize("side", ["strong", "weak"])
async def test_the_prebuilt_react_agent(pair: Pair, side: str) -> None:
    server = getattr(pair, side)
    agent: Any = create_react_agent(pair.llm(), [add])
    for call in (agent.invoke, agent.ainvoke):
        server.reply_next(CALL, ChatReply("it is 5", thinking="done"))
        state = call({"messages": [HumanMessage(f"p={0.9 if side == 'strong' else 0.1} add")]})
        state = state if isinstance(state, dict) else await state
        assert state["messages"][-1].text == "it is 5"
        assert state["messages"][-2].content == "5"
    assert pair.asked == ((4, 0) if side == "strong" else (0, 4))


def test_tools_bound_before_keep_their_options(pair: Pair) -> None:
    bound: Any = pair.llm().bind_tools([add], parallel_tool_calls=False, strict=True)
    pair.weak.reply_next(CALL)
    create_react_agent(bound, [add]).invoke({"messages": [HumanMessage("p=0.1 add")]})
    body = pair.weak.requests[0].body
    assert body["parallel_tool_calls"] is False
    assert body["tools"][0]["function"]["strict"] is True
    with pytest.raises(ValueError, match="Number of tools"):
        create_react_agent(bound, [add, other])
    with pytest.raises(ValueError, match="Missing tools"):
        create_react_agent(bound, [other])


def test_the_prebuilt_agent_with_a_schema(pair: Pair) -> None:
    pair.weak.reply_next(ChatReply("it is 5"), ChatReply('{"text": "five"}'))
    state = create_react_agent(pair.llm(), [add], response_format=Answer).invoke(
        {"messages": [HumanMessage("p=0.1 add")]}
    )
    assert state["structured_response"] == Answer(text="five")


@pytest.mark.parametrize("names", ["inline", None])
def test_a_supervisor(pair: Pair, names: Any) -> None:
    worker: Any = create_react_agent(pair.llm(), [add], name="adder")
    pair.weak.reply_next(
        ChatReply(tool_calls=[("transfer_to_adder", {})]), CALL, ChatReply("it is 5"), ChatReply("all done")
    )
    team = create_supervisor([worker], model=pair.llm(), include_agent_name=names).compile()
    state = team.invoke({"messages": [HumanMessage("p=0.1 add")]})
    assert state["messages"][-1].content == "all done"
    # one handoff at a time: the supervisor asks for that where a model's bind_tools names the option
    assert pair.weak.requests[0].body["parallel_tool_calls"] is False
    assert pair.strong.requests == []


def test_a_swarm(pair: Pair) -> None:
    first: Any = create_react_agent(pair.llm(), [create_handoff_tool(agent_name="second")], name="first")
    second: Any = create_react_agent(pair.llm(), [add], name="second")
    pair.strong.reply_next(
        ChatReply(tool_calls=[("transfer_to_second", {})], thinking="hand over"), CALL, ChatReply("it is 5")
    )
    swarm = create_swarm([first, second], default_active_agent="first").compile()
    state = swarm.invoke({"messages": [HumanMessage("p=0.9 add")]})
    assert state["messages"][-1].text == "it is 5"
    assert pair.asked == (3, 0)


def test_trustcall(pair: Pair) -> None:
    pair.weak.reply_next(ChatReply(tool_calls=[("Answer", {"text": "yes"})]))
    extractor = create_extractor(pair.llm(), tools=[Answer], tool_choice="Answer")
    assert extractor.invoke({"messages": [HumanMessage("p=0.1 yes")]})["responses"] == [Answer(text="yes")]
    assert pair.weak.requests[0].body["tool_choice"]["function"]["name"] == "Answer"


def test_langmem_summaries_inside_a_loop_hold_the_side(pair: Pair) -> None:
    pair.weak.reply_next(CALL)
    question = HumanMessage("p=0.1 add", id="1")
    call = pair.llm().bind_tools([add]).invoke([question])
    assert isinstance(call, AIMessage)
    result = ToolMessage("5", tool_call_id=call.tool_calls[0]["id"], id="3")
    pair.weak.reply_next(ChatReply("p=0.9 they add"))
    node = SummarizationNode(
        token_counter=len, model=pair.weak_model, max_tokens=3, max_tokens_before_summary=1, max_summary_tokens=1
    )
    summarized = node.invoke({"messages": [question, call, result], "context": {}})["summarized_messages"]
    assert "they add" in str(summarized[0].content)
    decision = routing_decision(pair.llm().invoke([*summarized, call, result]))
    assert decision is not None
    assert (decision.model, decision.reason) == ("weak", "sticky")


# --- deepagents, and what Anthropic's prompt cache needs ---


@pytest.fixture
def claudes() -> Iterator[Pair]:
    quiet: dict[str, Any] = {"model": "claude-opus-4-6", "thinking": None}
    with service("anthropic", **quiet) as (strong, strong_model), service("anthropic") as (weak, model):
        yield Pair(strong, weak, strong_model, model, ScriptedRouter())


def _markers(server: LoopbackServer) -> list[int]:
    """Prompt-cache markers of each request."""
    return [str(request.body).count("cache_control") for request in server.requests]


def test_the_middleware_keeps_the_prompt_cache_markers(claudes: Pair) -> None:
    bare: Any = create_deep_agent(model=claudes.weak_model, tools=[add])
    bare.invoke({"messages": [HumanMessage("p=0.1 hi")]})
    agent: Any = create_deep_agent(model=claudes.weak_model, tools=[add], middleware=[claudes.middleware()])
    agent.invoke({"messages": [HumanMessage("p=0.1 hi")]})
    agent.invoke({"messages": [HumanMessage("p=0.9 hi")]})
    marked, routed = _markers(claudes.weak)
    assert marked == routed == _markers(claudes.strong)[0] >= 2


def test_a_routed_model_says_once_that_the_markers_are_missing(claudes: Pair, pair: Pair, caplog: Any) -> None:
    llm = claudes.llm()
    with caplog.at_level(logging.WARNING, logger="langchain_routellm"):
        for _ in range(2):
            create_deep_agent(model=llm, tools=[add]).invoke({"messages": [HumanMessage("p=0.1 hi")]})
        create_deep_agent(model=pair.llm(), tools=[add]).invoke({"messages": [HumanMessage("p=0.1 hi")]})
        claudes.llm().bind_tools([add]).invoke("p=0.1 no agent")
    assert [record.message for record in caplog.records if "prompt cache" in record.message] == [
        "both sides are Anthropic's, and AnthropicPromptCachingMiddleware knows no ChatRouteLLM: nothing is "
        "marked for their prompt cache; give the agent one of the two models and a RouteLLMMiddleware"
    ]


TASK = ChatReply(
    tool_calls=[("task", {"description": "p=0.9 add them", "subagent_type": "adder"})], thinking="delegate"
)


@pytest.mark.parametrize("how", ["own model", "middleware", "routed model"])
def test_deepagents_subagents_are_routed_by_middleware_or_model_of_their_own(pair: Pair, how: str) -> None:
    """The middleware of the agent is not theirs: without one they call the model of the agent."""
    adder: Any = {"name": "adder", "description": "adds", "system_prompt": "Add.", "tools": [add]}
    if how == "middleware":
        adder["middleware"] = [pair.middleware()]
    elif how == "routed model":
        adder["model"] = pair.llm()
    agent: Any = create_deep_agent(model=pair.weak_model, middleware=[pair.middleware()], subagents=[adder])
    sub = pair.weak if how == "own model" else pair.strong
    pair.weak.reply_next(TASK)
    sub.reply_next(CALL, ChatReply("it is 5"))
    pair.weak.reply_next(ChatReply("all done"))
    state = agent.invoke({"messages": [HumanMessage("p=0.1 add")]})
    assert state["messages"][-1].text == "all done"
    assert pair.asked == ((0, 4) if how == "own model" else (2, 2))
