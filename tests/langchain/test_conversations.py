"""Conversations: which turn is routed on, staying strong, and changing provider on the way."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_routellm import ChatRouteLLM, routing_decision
from langchain_routellm.switching import adapted, tool_without_cache_markers, without_cache_markers
from routellm_core import Stickiness
from routellm_core.errors import ConfigurationError, PromptError
from tests.langchain.conftest import Pair
from tests.support.fakes_langchain import ScriptedChatModel

TALK = [HumanMessage("p=0.9 hard question"), AIMessage("long answer"), HumanMessage("p=0.1 continue")]


def _side(answer: Any) -> str:
    decision = routing_decision(answer)
    assert decision is not None
    return decision.model


# --- what is routed on ---


def test_the_last_human_message_decides(pair: Pair) -> None:
    assert _side(pair.llm().invoke(TALK)) == "weak"
    assert pair.router.prompts == ["p=0.1 continue"]


def test_lookback_takes_the_hardest_of_the_last_turns(pair: Pair) -> None:
    decision = routing_decision(pair.llm(lookback=2).invoke(TALK))
    assert decision is not None
    assert (decision.model, decision.win_rate) == ("strong", 0.9)
    assert sorted(pair.router.prompts) == ["p=0.1 continue", "p=0.9 hard question"]
    assert len(pair.router.calls) == 1
    later = [*TALK, AIMessage("more"), HumanMessage("p=0.2 thanks")]
    assert _side(pair.llm(lookback=2).invoke(later)) == "weak"
    assert _side(pair.llm(lookback=3).invoke(later)) == "strong"
    assert _side(pair.llm(lookback=99).invoke(later)) == "strong"


def test_lookback_in_a_batch_is_still_one_call_of_the_router(pair: Pair) -> None:
    pair.llm(lookback=2).batch([TALK, TALK[:1], "p=0.3"])
    assert len(pair.router.calls) == 1


def test_the_route_does_not_change_while_tools_run(pair: Pair) -> None:
    call = {"name": "f", "args": {}, "id": "1", "type": "tool_call"}
    loop: list[BaseMessage] = [HumanMessage("p=0.9 do it")]
    llm = pair.llm()
    sides = [_side(llm.invoke(loop))]
    for i in range(3):
        loop += [AIMessage("", tool_calls=[call]), ToolMessage(f"p=0.0{i} result", tool_call_id="1")]
        sides.append(_side(llm.invoke(loop)))
    assert sides == ["strong"] * 4
    assert pair.router.prompts == ["p=0.9 do it"]  # the rest came from the policy's cache


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([SystemMessage("p=0.8 only a system message")], "p=0.8 only a system message"),
        ([SystemMessage("x"), AIMessage("p=0.8 an answer")], "p=0.8 an answer"),
        (
            [HumanMessage("p=0.8 asked"), HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])],
            "p=0.8 asked",
        ),
        ([HumanMessage("p=0.8 asked"), AIMessage("x"), HumanMessage(" ")], "p=0.8 asked"),
    ],
)
def test_without_human_text_it_routes_on_what_there_is(pair: Pair, messages: Any, text: str) -> None:
    pair.llm().invoke(messages)
    assert pair.router.prompts == [text]


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])],
        [HumanMessage("")],
        [SystemMessage("p=0.1 be brief"), HumanMessage(" ")],
        [ToolMessage("p=0.1 a result", tool_call_id="1")],
    ],
)
def test_no_text_is_not_an_easy_prompt(pair: Pair, messages: Any) -> None:
    decision = routing_decision(pair.llm().invoke(messages))
    assert decision is not None
    assert (decision.model, decision.reason) == ("strong", "no_text")
    assert pair.router.prompts == []


def test_route_on_chooses_the_text_or_texts(pair: Pair) -> None:
    assert _side(pair.llm(route_on=lambda messages: messages[0].text).invoke(TALK)) == "strong"
    assert _side(pair.llm(route_on=lambda messages: [m.text for m in messages]).invoke(TALK)) == "strong"
    assert _side(pair.llm(route_on=lambda messages: messages[-1].text).invoke("p=0.1 a str is a message too")) == "weak"


@pytest.mark.parametrize("value", [None, 3, [], [1], b"x"])
def test_a_route_on_without_text_is_named(pair: Pair, value: Any) -> None:
    with pytest.raises(PromptError, match="route_on returned"):
        pair.llm(route_on=lambda messages: value).invoke("hi")


def test_an_error_does_not_quote_the_prompt(pair: Pair) -> None:
    with pytest.raises(PromptError, match="route_on returned HumanMessage: expected a str") as caught:
        pair.llm(route_on=lambda messages: messages[-1]).invoke("my secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "\x00", "\ud800", "x" * 1_000_000, "\u202eabc", "日本語"])
def test_any_text_is_routed(pair: Pair, text: str) -> None:
    assert _side(pair.llm(router="random").invoke(text)) in ("strong", "weak")


# --- staying strong ---


def _in(thread: str, **configurable: Any) -> Any:
    return {"configurable": {"thread_id": thread, **configurable}}


def test_once_strong_a_thread_stays_strong(pair: Pair) -> None:
    llm = pair.llm(sticky=True)
    assert _side(llm.invoke("p=0.1", _in("a"))) == "weak"
    assert _side(llm.invoke("p=0.9", _in("a"))) == "strong"
    held = routing_decision(llm.invoke("p=0.1", _in("a")))
    assert held is not None
    assert (held.model, held.reason, held.win_rate) == ("strong", "sticky", 0.1)
    assert _side(llm.invoke("p=0.1", _in("b"))) == "weak"
    assert _side(llm.invoke("p=0.1")) == "weak"


async def test_stickiness_holds_in_every_way_of_calling(pair: Pair) -> None:
    llm: Any = pair.llm(sticky=Stickiness(release_after=None))
    llm.invoke("p=0.9", _in("a"))
    assert _side(await llm.ainvoke("p=0.1", _in("a"))) == "strong"
    assert _side(next(llm.stream("p=0.1", _in("a")))) == "strong"
    assert _side(await anext(llm.astream("p=0.1", _in("a")))) == "strong"
    assert [_side(m) for m in llm.batch(["p=0.1", "p=0.1"], [_in("a"), _in("b")])] == ["strong", "weak"]
    assert _side(llm.bind_tools([]).invoke("p=0.1", _in("a"))) == "strong"


def test_forcing_weak_lets_a_thread_come_down(pair: Pair) -> None:
    llm = pair.llm(sticky=True)
    llm.invoke("p=0.9", _in("a"))
    assert _side(llm.invoke("x", _in("a", routellm_force="weak"))) == "weak"
    assert _side(llm.invoke("p=0.1", _in("a"))) == "weak"


def test_a_run_of_easy_turns_lets_a_thread_come_down(pair: Pair) -> None:
    llm = pair.llm(sticky=Stickiness(release_after=2))
    llm.invoke("p=0.9", _in("a"))
    assert [_side(llm.invoke(f"p=0.1 {i}", _in("a"))) for i in range(3)] == ["strong", "weak", "weak"]


def test_a_key_of_ones_own_identifies_the_conversation(pair: Pair) -> None:
    llm = pair.llm(sticky="session")
    llm.invoke("p=0.9", {"configurable": {"session": 7}})
    assert _side(llm.invoke("p=0.1", {"configurable": {"session": 7}})) == "strong"
    assert _side(llm.invoke("p=0.1", _in("7"))) == "weak"


def test_an_outage_of_the_router_does_not_pin_a_thread(pair: Pair) -> None:
    llm = pair.llm(sticky=True)
    pair.router.error = RuntimeError("down")
    assert _side(llm.invoke("p=0.1", _in("a"))) == "strong"
    pair.router.error = None
    assert _side(llm.invoke("p=0.1", _in("a"))) == "weak"


def test_a_sticky_that_is_nothing_is_refused(pair: Pair) -> None:
    with pytest.raises(ConfigurationError, match="key=''"):
        pair.llm(sticky="")


# --- changing provider ---


class Claude(ScriptedChatModel):
    """Stands for Anthropic's: its answers carry signed thinking, and it reads cache markers."""

    @property
    def _llm_type(self) -> str:
        return "anthropic-chat"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "anthropic", "ls_model_name": self.model, "ls_model_type": "chat"}


THOUGHT = AIMessage(
    [
        {"type": "thinking", "thinking": "hm", "signature": "SIGNED"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "the answer", "extras": {"signature": "SIGNED", "keep": 1}},
    ],
    additional_kwargs={"reasoning_content": "hm", "keep": 1},
    response_metadata={"model_provider": "anthropic"},
)
QUESTION = HumanMessage([{"type": "text", "text": "p=0.1 go on", "cache_control": {"type": "ephemeral"}}])


def _mixed(pair: Pair, **options: Any) -> tuple[Claude, ChatRouteLLM]:
    claude = Claude(model="claude")
    llm = ChatRouteLLM(strong=claude, weak=pair.weak, router=pair.router, threshold=0.7, **options)
    return claude, llm


def test_another_provider_is_not_sent_thinking_or_cache_markers(pair: Pair) -> None:
    _, llm = _mixed(pair)
    llm.invoke([HumanMessage("p=0.9"), THOUGHT, QUESTION])
    (call,) = pair.weak.calls
    _, thought, question = call["messages"]
    assert thought.content == [{"type": "text", "text": "the answer", "extras": {"keep": 1}}]
    assert thought.additional_kwargs == {"keep": 1}
    assert question.content == [{"type": "text", "text": "p=0.1 go on"}]
    assert THOUGHT.additional_kwargs == {"reasoning_content": "hm", "keep": 1}  # the conversation is not written to


async def test_the_same_holds_for_every_way_of_calling(pair: Pair) -> None:
    _, llm = _mixed(pair)
    talk = [THOUGHT, QUESTION]
    llm.batch([talk])
    await llm.abatch([talk])
    await llm.ainvoke(talk)
    list(llm.stream(talk))
    [c async for c in llm.astream(talk)]
    llm.generate([talk])
    llm.with_structured_output({"title": "T", "description": "d", "type": "object", "properties": {}}).invoke(talk)
    assert len(pair.weak.calls) == 7
    for call in pair.weak.calls:
        assert call["messages"][0].content == [{"type": "text", "text": "the answer", "extras": {"keep": 1}}]


def test_the_same_provider_gets_its_own_back_unchanged(pair: Pair) -> None:
    claude, llm = _mixed(pair)
    talk = [THOUGHT, HumanMessage("p=0.9 go on")]
    llm.invoke(talk)
    assert claude.calls[0]["messages"] == talk
    pair.llm().invoke(talk)  # both sides of one kind: nothing is looked at
    assert pair.strong.calls[0]["messages"] == talk


def test_the_decision_on_an_answer_tells_who_gave_it(pair: Pair) -> None:
    claude, llm = _mixed(pair)
    ours = THOUGHT.model_copy(update={"response_metadata": {"routellm": {"model": "strong"}}})
    theirs = THOUGHT.model_copy(update={"response_metadata": {"routellm": {"model": "weak"}}})
    out = adapted([ours, theirs], "strong", claude, pair.weak)
    assert out[0] is ours
    assert out[1].content == [{"type": "text", "text": "the answer", "extras": {"keep": 1}}]
    unknown = THOUGHT.model_copy(update={"response_metadata": {}})
    assert adapted([unknown], "weak", pair.weak, claude)[0] is unknown
    assert llm.weak is pair.weak


def test_an_answer_that_was_only_thinking_becomes_empty(pair: Pair) -> None:
    claude, _ = _mixed(pair)
    only = THOUGHT.model_copy(update={"content": THOUGHT.content[:1]})
    assert adapted([only], "weak", pair.weak, claude)[0].content == ""


def test_messages_and_tools_without_markers_are_passed_on_as_they_are() -> None:
    plain = HumanMessage([{"type": "text", "text": "x"}, "y"])
    assert without_cache_markers(plain) is plain
    tool = {"name": "f", "extras": {"a": 1}}
    assert tool_without_cache_markers(tool) is tool
    marked = {"name": "f", "cache_control": {}, "extras": {"cache_control": {}, "a": 1}}
    assert tool_without_cache_markers(marked) == {"name": "f", "extras": {"a": 1}}
