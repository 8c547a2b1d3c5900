"""Real langchain-openai clients against a loopback server: two addresses, two keys, streams, tools, failures."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from langchain_routellm import RouteLLMMiddleware, SavingsCallbackHandler, routing_decision
from routellm_core import Price
from tests.langchain.conftest import STRONG_KEY, Services
from tests.support.openai_server import ChatReply, Failure


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Answer(BaseModel):
    """An answer."""

    text: str


async def test_each_call_goes_to_its_own_address_with_its_own_key(services: Services) -> None:
    llm = services.llm()
    assert llm.invoke("p=0.9 hi").content == "answer of strong-model"
    assert (await llm.ainvoke("p=0.1 hi")).content == "answer of weak-model"
    assert [a.content for a in llm.batch(["p=0.9", "p=0.1", "p=0.8"])] == [
        "answer of strong-model",
        "answer of weak-model",
        "answer of strong-model",
    ]
    assert (len(services.strong.requests), len(services.weak.requests)) == (3, 2)


async def test_streams_and_usage(services: Services) -> None:
    usage = UsageMetadataCallbackHandler()
    savings = SavingsCallbackHandler({"strong": Price(10, 10), "weak": Price(1, 1)})
    config: Any = {"callbacks": [usage, savings]}
    llm = services.llm()
    chunks = list(llm.stream("p=0.9 hi", config))
    total = chunks[0] + chunks[1:]
    assert total.content == "answer of strong-model"
    assert routing_decision(total).model == "strong"  # type: ignore[union-attr]
    assert total.usage_metadata["total_tokens"] == 15  # type: ignore[index]
    assert total.response_metadata["model_name"] == "strong-model"
    parts = [c.content async for c in llm.astream("p=0.1 hi", config)]
    assert "".join(map(str, parts)) == "answer of weak-model"
    assert services.strong.requests[0].body["stream"] is True
    assert {name: u["total_tokens"] for name, u in usage.usage_metadata.items()} == {
        "strong-model": 15,
        "weak-model": 15,
    }
    assert savings.summary().cost == pytest.approx(165 / 1e6)


async def test_tools(services: Services) -> None:
    call = ChatReply(tool_calls=[("add", {"a": 2, "b": 3})])
    bound = services.llm().bind_tools([add])
    services.strong.reply_next(call)
    assert bound.invoke("p=0.9 add").tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert services.strong.requests[0].body["tools"][0]["function"]["name"] == "add"
    services.weak.reply_next(call)
    chunks = [c async for c in bound.astream("p=0.1 add")]
    assert (chunks[0] + chunks[1:]).tool_calls[0]["args"] == {"a": 2, "b": 3}  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(services: Services, method: Any) -> None:
    reply = (
        ChatReply(tool_calls=[("Answer", {"text": "yes"})])
        if method == "function_calling"
        else ChatReply('{"text": "yes"}')
    )
    services.weak.reply_next(reply)
    raw = services.llm().with_structured_output(Answer, method=method, include_raw=True).invoke("p=0.1 json please")
    assert raw["parsed"] == Answer(text="yes")
    assert routing_decision(raw).model == "weak"  # type: ignore[union-attr]
    body = services.weak.requests[0].body
    assert ("tools" in body) == (method == "function_calling")
    assert ("response_format" in body) == (method != "function_calling")


@pytest.mark.parametrize("failure", [Failure(status=429), Failure(status=500), Failure(status=503), Failure(cut=True)])
async def test_failover_on_what_another_service_survives(services: Services, failure: Failure) -> None:
    services.strong.fail_always(failure)
    llm = services.llm(failover=True, cooldown=0)
    answers: list[Any] = [llm.invoke("p=0.9 a"), await llm.ainvoke("p=0.9 b"), *llm.batch(["p=0.9 c"])]
    chunks = list(llm.stream("p=0.9 d"))
    answers.append(chunks[0] + chunks[1:])
    chunks = [c async for c in llm.astream("p=0.9 e")]
    answers.append(chunks[0] + chunks[1:])
    for answer in answers:
        assert answer.content == "answer of weak-model"
        assert routing_decision(answer).failover == "strong"  # type: ignore[union-attr]
    assert (len(services.strong.requests), len(services.weak.requests)) == (5, 5)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_refused_key_or_request_does_not_fail_over(services: Services, status: int) -> None:
    services.strong.fail_always(Failure(status=status))
    llm = services.llm(failover=True)
    with pytest.raises(Exception, match="scripted failure"):
        llm.invoke("p=0.9")
    with pytest.raises(Exception, match="scripted failure"):
        list(llm.stream("p=0.9"))
    with pytest.raises(Exception, match="scripted failure"):
        await llm.ainvoke("p=0.9")
    assert services.weak.requests == []


async def test_a_stream_cut_after_its_first_token_is_not_answered_twice(services: Services) -> None:
    llm = services.llm(failover=True)
    services.strong.fail_next(Failure(cut=True, cut_after=3), Failure(cut=True, cut_after=3))
    with pytest.raises(Exception):  # noqa: B017, PT011  # the client's own error for a lost connection
        list(llm.stream("p=0.9"))
    with pytest.raises(Exception):  # noqa: B017, PT011
        [c async for c in llm.astream("p=0.9")]
    assert services.weak.requests == []


async def test_a_stream_cut_before_its_first_token_is_answered_by_the_other(services: Services) -> None:
    llm = services.llm(failover=True)
    services.strong.fail_next(Failure(cut=True, cut_after=1), Failure(cut=True, cut_after=1))
    assert "".join(str(c.content) for c in llm.stream("p=0.9")) == "answer of weak-model"
    assert "".join([str(c.content) async for c in llm.astream("p=0.9")]) == "answer of weak-model"


@pytest.mark.parametrize("door", ["model", "run", "call"])
async def test_agents_with_tools_streaming_schema_and_memory(services: Services, door: Any) -> None:
    def chat(body: dict[str, Any]) -> ChatReply:
        if body["messages"][-1]["role"] == "tool":
            return ChatReply(
                tool_calls=[("Answer", {"text": f"{body['model']} says {body['messages'][-1]['content']}"})]
            )
        return ChatReply(tool_calls=[("add", {"a": 2, "b": 3})])

    services.strong.chat = services.weak.chat = chat
    options: dict[str, Any] = {"tools": [add], "response_format": Answer, "checkpointer": InMemorySaver()}
    if door == "model":
        agent: Any = create_agent(model=services.llm(), **options)
    else:
        middleware = RouteLLMMiddleware(
            strong=services.client("strong"),
            weak=services.client("weak"),
            router=services.router,
            threshold=0.7,
            scope=door,
        )
        agent = create_agent(model=services.client("weak"), middleware=[middleware], **options)
    config: Any = {"configurable": {"thread_id": "1"}}
    out = agent.invoke({"messages": [HumanMessage("p=0.9 what is 2 + 3?")]}, config)
    assert out["structured_response"] == Answer(text="strong-model says 5")
    assert services.weak.requests == []
    out = await agent.ainvoke({"messages": [HumanMessage("p=0.1 and now?")]}, config)
    assert out["structured_response"] == Answer(text="weak-model says 5")
    assert len(services.weak.requests) == 2
    parts = list(agent.stream({"messages": [HumanMessage("p=0.8 again")]}, config, stream_mode="messages"))
    sides = {metadata["routellm"]["model"] for chunk, metadata in parts if chunk.type == "AIMessageChunk"}
    assert sides == {"strong"}
    assert services.router.prompts == ["p=0.9 what is 2 + 3?", "p=0.1 and now?", "p=0.8 again"]


def test_tokens_of_errors_and_logs_hold_no_key(services: Services) -> None:
    services.strong.fail_always(Failure(status=500))
    with pytest.raises(Exception, match="scripted") as failure:
        services.llm().invoke("p=0.9")
    assert STRONG_KEY not in str(failure.value)
    assert STRONG_KEY not in repr(services.llm())
