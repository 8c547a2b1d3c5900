"""One tool loop, one side: human turns that no human wrote do not move it, on real clients."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_routellm import RouteLLMMiddleware, RouteLLMRunnable, routing_decision
from routellm_core import Stickiness
from routellm_core.errors import ConfigurationError
from tests.langchain.conftest import Pair, Services
from tests.support.openai_server import ChatReply


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _answered_by(side: str, **fields: Any) -> AIMessage:
    decision = {"model": side, "win_rate": 0.5, "threshold": 0.7, "router": "scripted"}
    return AIMessage(response_metadata={"routellm": decision}, **fields)


CALL: Any = {"tool_calls": [{"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"}]}


@pytest.mark.parametrize("door", ["model", "run", "call"])
@pytest.mark.parametrize("side", ["strong", "weak"])
def test_a_summary_inside_a_tool_loop_does_not_move_it(services: Services, side: str, door: Any) -> None:
    """The summary of a hard task may read easy, and that of an easy one hard."""
    asked, misleading = ("p=0.9", "p=0.1") if side == "strong" else ("p=0.1", "p=0.9")
    calls = 0

    def chat(body: dict[str, Any]) -> ChatReply:
        nonlocal calls
        if "<role>" in str(body["messages"][0]["content"]):
            return ChatReply(f"{misleading} they added numbers")
        calls += 1
        return ChatReply(tool_calls=[("add", {"a": calls, "b": 1})]) if calls < 6 else ChatReply("done")

    services.strong.chat = services.weak.chat = chat
    summarizer = services.client("weak")
    summaries = SummarizationMiddleware(model=summarizer, trigger=("messages", 4), keep=("messages", 2))
    if door == "model":
        agent: Any = create_agent(services.llm(), [add], middleware=[summaries])
    else:
        sides: dict[str, Any] = {"strong": services.client("strong"), "weak": services.client("weak")}
        routing = RouteLLMMiddleware(**sides, router=services.router, threshold=0.7, scope=door)
        agent = create_agent(services.client("weak"), [add], middleware=[summaries, routing])
    state = agent.invoke({"messages": [HumanMessage(f"{asked} add many numbers")]})
    assert state["messages"][-1].content == "done"
    assert any("lc_source" in message.additional_kwargs for message in state["messages"])
    bodies = [r.body for r in (services.strong if side == "strong" else services.weak).requests]
    assert len([b for b in bodies if "<role>" not in str(b["messages"][0]["content"])]) == 6
    assert all(misleading not in prompt for prompt in services.router.prompts)


@pytest.mark.parametrize("side", ["strong", "weak"])
@pytest.mark.parametrize(
    "synthetic",
    [
        HumanMessage("p=0.5 a summary", additional_kwargs={"lc_source": "summarization"}),
        HumanMessage("p=0.5 try harder", additional_kwargs={"lc_source": "rubric_grader"}),
        HumanMessage("Here is a summary of the conversation to date:\n\np=0.5 they talked"),
        HumanMessage("<system-reminder>p=0.5 be quick</system-reminder>"),
        HumanMessage([{"type": "text", "text": " <system-reminder>p=0.5 never closed"}]),
        HumanMessage("TOOL RESPONSE: \n---\np=0.5 it is 3"),
        HumanMessage([{"type": "tool_result", "tool_use_id": "1", "content": "p=0.5 it is 3"}]),
        HumanMessage("[cron] p=0.5 it is noon"),
    ],
    ids=lambda message: str(message.content)[:24],
)
def test_human_turns_that_no_human_wrote_are_passed_over(pair: Pair, synthetic: HumanMessage, side: str) -> None:
    llm = pair.llm(synthetic_markers=["[cron]"])
    asked = HumanMessage(f"p={0.9 if side == 'strong' else 0.1} the question")
    loop = [_answered_by(side, content="", **CALL), ToolMessage("3", tool_call_id="1")]
    decision = routing_decision(llm.invoke([asked, *loop, synthetic]))
    assert decision is not None
    assert (decision.model, decision.reason) == (side, "win_rate")
    # no question is left: the decision on the last answer holds
    decision = routing_decision(llm.invoke([synthetic, *loop]))
    assert decision is not None
    assert (decision.model, decision.reason) == (side, "sticky")
    assert pair.router.prompts == [asked.content]


def test_what_a_human_wrote_beside_a_reminder_counts(pair: Pair) -> None:
    text = (
        "<system-reminder>p=0.1 x</system-reminder>p=0.9 the question<system-reminder>p=0.2</system-reminder> and more"
    )
    pair.llm().invoke([HumanMessage(text)])
    assert pair.router.prompts == ["p=0.9 the question and more"]


def test_without_human_messages_the_last_decision_holds(pair: Pair) -> None:
    talk = [
        SystemMessage("p=0.9 summary"),
        _answered_by("weak", content="", **CALL),
        ToolMessage("3", tool_call_id="1"),
    ]
    assert routing_decision(pair.llm().invoke(talk)).model == "weak"  # type: ignore[union-attr]
    route: Any = RouteLLMRunnable(strong=pair.strong, weak=pair.weak, router=pair.router, threshold=0.7)
    assert routing_decision(route.invoke(talk)).model == "weak"  # type: ignore[union-attr]
    assert pair.router.prompts == []


@pytest.mark.parametrize("value", ["<reminder>", [""], [1], None])
def test_markers_that_are_none_are_refused(pair: Pair, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="synthetic_markers="):
        pair.llm(synthetic_markers=value)


# --- sticky without an id ---


def _first_turn(messages: list[BaseMessage]) -> str:
    return next(m.text for m in messages if m.type == "human")


async def test_a_function_of_the_messages_names_the_conversation(services: Services) -> None:
    llm = services.llm(sticky=Stickiness(_first_turn, release_after=None))
    talk: list[BaseMessage] = [HumanMessage("p=0.9 prove it")]
    talk += [llm.invoke(talk), HumanMessage("p=0.1 thanks")]
    assert routing_decision(llm.invoke(talk)).reason == "sticky"  # type: ignore[union-attr]
    assert routing_decision(await llm.ainvoke(talk)).reason == "sticky"  # type: ignore[union-attr]
    assert [routing_decision(a).reason for a in llm.batch([talk, "p=0.1 hi"])] == ["sticky", "win_rate"]  # type: ignore[union-attr]
    # an id that the call carries comes first
    config: Any = {"configurable": {"thread_id": "other"}}
    assert routing_decision(llm.invoke(talk, config)).reason == "win_rate"  # type: ignore[union-attr]


def test_the_middleware_takes_such_a_function_too(services: Services) -> None:
    sides: dict[str, Any] = {"strong": services.client("strong"), "weak": services.client("weak")}
    routing = RouteLLMMiddleware(**sides, router=services.router, threshold=0.7, sticky=_first_turn)
    agent: Any = create_agent(services.client("weak"), middleware=[routing], checkpointer=InMemorySaver())
    for text in ("p=0.9 prove it", "p=0.1 thanks"):
        state = agent.invoke({"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": text}})
        assert state["routellm"]["model"] == ("strong" if "0.9" in text else "weak")  # two threads, two first turns
    state = agent.invoke({"messages": [HumanMessage("p=0.1 more")]}, {"configurable": {"thread_id": "p=0.9 prove it"}})
    assert state["routellm"]["model"] == "strong"
    assert services.weak.requests[-1].body["messages"][0]["content"] == "p=0.1 thanks"


def test_sticky_without_anything_that_names_a_conversation_warns_once(pair: Pair, caplog: Any) -> None:
    llm = pair.llm(sticky="session")
    with caplog.at_level(logging.WARNING):
        llm.batch(["p=0.9 a", "p=0.9 b"])
        llm.bind_tools([add]).invoke("p=0.9 c")
        llm.invoke("p=0.9 d", {"configurable": {"thread_id": "1"}})
    warnings = [record.message for record in caplog.records if "sticky" in record.message]
    assert len(warnings) == 1
    assert "'session'" in warnings[0]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        pair.llm(sticky=True).invoke("p=0.9", {"configurable": {"thread_id": "1"}})
        pair.llm().invoke("p=0.9")
    assert "sticky" not in caplog.text
