"""A cascade: the weak model answers first, a check looks at it, and the user sees one answer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from pydantic import BaseModel

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, RouteLLMRunnable, routing_decision
from langchain_routellm.answers import weak_answer
from routellm_core import Price, SpendLimit
from routellm_core.policy.acceptance import WeakAnswer
from routellm_core.policy.answer_checks import mean_logprob, no_refusal
from tests.support.fakes_langchain import ScriptedChatModel
from tests.support.routers import ScriptedRouter
from tests.support.waiting import LIMIT

EASY, HARD = "p=0.1 hello", "p=0.9 prove it"


def hangs(answer: WeakAnswer) -> bool:
    threading.Event().wait(LIMIT)
    return True


def fails(answer: WeakAnswer) -> bool:
    raise KeyError


async def async_no(answer: WeakAnswer) -> bool:
    return False


CHECKS: dict[str, tuple[Any, bool]] = {
    "accepted": (lambda answer: answer.text.startswith("weak"), True),
    "refused": (lambda answer, messages: False, False),
    "async": (async_no, False),
    "fails": (fails, False),
    "hangs": (hangs, False),
    "after": (lambda answer: False, False),
}


def options(accept: Any, **more: Any) -> dict[str, Any]:
    deadline = 0.3 if accept is hangs else LIMIT
    return {"router": ScriptedRouter(), "threshold": 0.5, "accept": accept, "accept_deadline": deadline, **more}


def sides() -> dict[str, Any]:
    return {side: ScriptedChatModel(model=side) for side in ("strong", "weak")}


def routed(accept: Any, **more: Any) -> ChatRouteLLM:
    return ChatRouteLLM(**sides(), **options(accept, **more))


async def ask(llm: Any, way: str, given: str) -> tuple[str, Any]:
    """Text of the answer, and something that carries its decision."""
    if way in ("invoke", "ainvoke"):
        answer = llm.invoke(given) if way == "invoke" else await llm.ainvoke(given)
        return str(answer.text), answer
    if way in ("stream", "astream"):
        chunks = list(llm.stream(given)) if way == "stream" else [c async for c in llm.astream(given)]
        return "".join(str(c.text) for c in chunks), chunks[0]
    if way in ("batch", "abatch"):
        found = llm.batch([given, HARD]) if way == "batch" else await llm.abatch([given, HARD])
        assert str(found[1].text).startswith("strong")
        return str(found[0].text), found[0]
    messages = [[HumanMessage(given)]]
    result = llm.generate(messages) if way == "generate" else await llm.agenerate(messages)
    return result.generations[0][0].text, result.generations[0][0].message


WAYS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "generate", "agenerate"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", ["chat", "runnable"])
async def test_one_answer_in_every_way(way, name, kind):
    check, accepted = CHECKS[name]
    more = {"accept_after": 3} if name == "after" else {}
    if kind == "runnable" and "generate" in way:
        pytest.skip("a runnable does not generate")
    models: dict[str, Any] = sides()
    make = ChatRouteLLM if kind == "chat" else RouteLLMRunnable
    text, carrier = await ask(make(**models, **options(check, **more)), way, EASY)
    side = "weak" if accepted else "strong"
    assert text == f"{side} answers: {EASY}"
    assert len(models["weak"].calls) == 1
    decision = routing_decision(carrier)
    assert (decision.model, decision.escalated) == (side, not accepted)  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
async def test_both_answers_are_paid_and_counted(way):
    limit = SpendLimit(1e9, prices={"strong": Price(0, 0), "weak": Price(1e6, 1e6)})
    usage = UsageMetadataCallbackHandler()
    llm = routed(lambda answer: False, limits=[limit]).with_config(callbacks=[usage])
    llm = llm if "generate" not in way else routed(lambda answer: False, limits=[limit], callbacks=[usage])
    await ask(llm, way, EASY)
    assert set(usage.usage_metadata) == {"strong", "weak"}
    assert limit.spending() == usage.usage_metadata["weak"]["total_tokens"]


async def test_events_of_a_refused_answer_are_not_streamed():
    said = ""
    async for event in routed(lambda answer: False).astream_events(EASY, version="v2"):
        chunk = event["data"].get("chunk")
        said += f"{event['data'].get('output')} {getattr(chunk, 'content', chunk)}"
    assert "weak answers" not in said
    assert "strong" in said


def agent_with(accept: Any, scope: str) -> tuple[Any, dict[str, Any]]:
    models: dict[str, Any] = sides()
    middleware = RouteLLMMiddleware(**models, scope=scope, **options(accept))  # type: ignore[arg-type]
    return create_agent(model=ScriptedChatModel(model="unused"), tools=[], middleware=[middleware]), models


@pytest.mark.parametrize("scope", ["run", "call"])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("accepted", [False, True])
async def test_an_agent_keeps_the_accepted_answer_alone(scope, is_async, accepted):
    agent, models = agent_with(lambda answer: accepted, scope)
    given = {"messages": [("user", EASY)]}
    state = await agent.ainvoke(given) if is_async else agent.invoke(given)
    side = "weak" if accepted else "strong"
    assert [m.text for m in state["messages"] if m.type == "ai"] == [f"{side} answers: {EASY}"]
    assert routing_decision(state).escalated is not accepted  # type: ignore[union-attr]
    assert len(models["weak"].calls) == 1


@pytest.mark.parametrize("accepted", [False, True])
def test_a_graph_streams_the_accepted_answer_alone(accepted):
    agent, _ = agent_with(lambda answer: accepted, "call")
    pieces = agent.stream({"messages": [("user", EASY)]}, stream_mode="messages")
    said = "".join(str(message.text) for message, _ in pieces if message.type in ("ai", "AIMessageChunk"))
    assert said == f"{'weak' if accepted else 'strong'} answers: {EASY}"


def test_structured_output_is_checked_as_json():
    class Number(BaseModel):
        value: int

    seen: list[WeakAnswer] = []
    llm = routed(lambda answer: seen.append(answer) or True).with_structured_output(Number)
    assert isinstance(llm.invoke(f"{EASY} 3"), Number)
    assert '"value":' in seen[0].text or seen[0].tool_calls


def test_a_chain_as_a_side_is_checked_by_its_text():
    models: dict[str, Any] = {side: model | StrOutputParser() for side, model in sides().items()}
    seen: list[WeakAnswer] = []
    chain = RouteLLMRunnable(**models, **options(lambda answer: seen.append(answer) or False))
    assert chain.invoke(EASY) == f"strong answers: {EASY}"
    assert "".join(chain.stream(EASY)) == f"strong answers: {EASY}"
    assert [answer.text for answer in seen] == [f"weak answers: {EASY}"] * 2


def test_what_a_check_sees():
    message = AIMessage(
        [{"type": "text", "text": "fine"}],
        tool_calls=[{"name": "add", "args": {"a": 1}, "id": "1"}],
        response_metadata={"finish_reason": "stop", "logprobs": {"content": [{"logprob": -0.1}]}},
    )
    seen = weak_answer(message)
    assert (seen.text, seen.tool_calls, seen.finish_reason) == ("fine", (("add", {"a": 1}),), "stop")
    assert mean_logprob()(seen)


def test_ready_made_checks():
    refusing = ScriptedChatModel(model="weak", reply=lambda messages: "I'm sorry, I can't help with that.")
    llm = ChatRouteLLM(strong=ScriptedChatModel(model="strong"), weak=refusing, **options(no_refusal))
    assert llm.invoke(EASY).text == f"strong answers: {EASY}"


def test_a_band_leaves_plainly_easy_prompts_alone():
    llm = routed(lambda answer: False, accept_band=(0.2, 0.5))
    assert llm.invoke(EASY).text.startswith("weak")
    assert llm.invoke("p=0.3 middling").text.startswith("strong")


def test_an_error_of_strong_after_a_refusal_is_raised():
    models: dict[str, Any] = sides()
    models["strong"].error = ConnectionError("strong is down")
    llm = ChatRouteLLM(**models, **options(lambda answer: False, failover=True))
    with pytest.raises(ConnectionError, match="strong is down"):
        llm.invoke(EASY)
    assert len(models["weak"].calls) == 1
