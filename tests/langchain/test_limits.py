"""Limits on money: they see what each call used, whatever the way of calling."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from pydantic import BaseModel

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, RouteLLMRunnable
from routellm_core import Price, RoutingRequest, SpendLimit
from tests.langchain.conftest import Pair

TOKEN = 1e6  # a price per million: one token costs one
PROMPT = "p=0.1 one two"
COST = 3 + 5  # the model counts a token a word, and answers "weak-model answers: PROMPT"
CONFIG: Any = {"configurable": {"user_id": "ann"}}


class Answer(BaseModel):
    """An answer."""

    text: str


def a_limit(**options: Any) -> SpendLimit:
    prices = {"strong": Price(10 * TOKEN, 10 * TOKEN), "weak": Price(TOKEN, TOKEN)}
    return SpendLimit(1e9, prices=prices, key="user_id", **options)


Way = Callable[[Any, Any], Awaitable[Any]]


async def invoke(runnable: Any, value: Any) -> Any:
    return runnable.invoke(value, CONFIG)


async def ainvoke(runnable: Any, value: Any) -> Any:
    return await runnable.ainvoke(value, CONFIG)


async def stream(runnable: Any, value: Any) -> Any:
    return list(runnable.stream(value, CONFIG))


async def astream(runnable: Any, value: Any) -> Any:
    return [piece async for piece in runnable.astream(value, CONFIG)]


async def batch(runnable: Any, value: Any) -> Any:
    return runnable.batch([value], CONFIG)


async def abatch(runnable: Any, value: Any) -> Any:
    return await runnable.abatch([value], CONFIG)


WAYS = pytest.mark.parametrize("way", [invoke, ainvoke, stream, astream, batch, abatch], ids=lambda way: way.__name__)


def doors(pair: Pair, limit: SpendLimit) -> dict[str, tuple[Any, Any]]:
    """Each way into the routed models, with an input for it."""
    sides: dict[str, Any] = {"strong": pair.strong, "weak": pair.weak}
    options: dict[str, Any] = {"router": pair.router, "threshold": 0.7, "limits": [limit]}
    chat = ChatRouteLLM(**sides, **options)
    chains: dict[str, Any] = {side: model | StrOutputParser() for side, model in sides.items()}
    agents: dict[str, Any] = {
        scope: create_agent(model=pair.weak, middleware=[RouteLLMMiddleware(**sides, **options, scope=scope)])
        for scope in ("run", "call")
    }
    messages = {"messages": [HumanMessage(PROMPT)]}
    return {
        "chat": (chat, PROMPT),
        "tools": (chat.bind_tools([]), PROMPT),
        "runnable": (RouteLLMRunnable(**sides, **options), PROMPT),
        "chains": (RouteLLMRunnable(**chains, **options), PROMPT),
        "nested": (ChatRouteLLM(strong=pair.strong, weak=pair.llm(), **options), PROMPT),
        "agent, a decision a run": (agents["run"], messages),
        "agent, a decision a call": (agents["call"], messages),
    }


DOORS = list(doors(Pair(), a_limit()))


@pytest.mark.parametrize("door", DOORS)
@WAYS
async def test_every_door_tells_what_a_call_used(pair: Pair, way: Way, door: str) -> None:
    limit = a_limit()
    runnable, value = doors(pair, limit)[door]
    await way(runnable, value)
    assert limit.spending("ann") == pytest.approx(COST)
    assert limit.spending("") == 0.0


async def test_other_ways_of_calling_a_chat_model(pair: Pair) -> None:
    limit = a_limit()
    llm = pair.llm(limits=[limit])
    list(llm.batch_as_completed([PROMPT], CONFIG))
    assert limit.spending("ann") == pytest.approx(COST)
    for event in llm.stream_events(PROMPT, CONFIG, version="v3"):
        assert event
    assert limit.spending("ann") == pytest.approx(2 * COST)
    llm.generate([[HumanMessage(PROMPT)]])
    assert limit.spending("") == pytest.approx(COST)
    llm.with_structured_output(Answer, method="function_calling").invoke(PROMPT, CONFIG)
    assert limit.spending("ann") > 2 * COST


def test_the_side_that_answered_is_paid_for(pair: Pair) -> None:
    limit = a_limit()
    pair.weak.error = ConnectionError("down")
    pair.llm(limits=[limit], failover=True).invoke(PROMPT, CONFIG)
    assert limit.spending("ann") == pytest.approx(10 * COST)


def test_a_reached_limit_sends_calls_to_weak(pair: Pair) -> None:
    limit = a_limit()
    limit.money = 50.0
    llm = pair.llm(limits=[limit])
    hard = "p=0.9 one two"
    reasons = [llm.invoke(hard, CONFIG).response_metadata["routellm"]["reason"] for _ in range(2)]
    assert reasons == ["win_rate", "limit"]
    with get_usage_metadata_callback() as usage:  # nothing is counted twice by others
        llm.invoke(hard, CONFIG)
    assert sum(used["total_tokens"] for used in usage.usage_metadata.values()) == COST


def test_a_model_without_usage_is_warned_about_once(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    limit = a_limit()
    weak = FakeListChatModel(responses=["an answer"])
    llm = ChatRouteLLM(strong=pair.strong, weak=weak, router=pair.router, threshold=0.7, limits=[limit])
    with caplog.at_level(logging.WARNING, logger="routellm_core"):
        for _ in range(3):
            llm.invoke(PROMPT, CONFIG)
    (record,) = caplog.records
    assert "the weak model reports no usage" in record.getMessage()
    assert limit.spending("ann") == 0.0


def test_who_only_decides_has_to_be_told(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    decisions = pytest.importorskip("langchain_core.decisions", reason="langchain-core < 1.8")
    from langchain_routellm.decision_model import RouteLLMDecisionModel

    limit = a_limit(on_reached="weak")
    model = RouteLLMDecisionModel(router=pair.router, threshold=0.7, limits=[limit])
    assert "policy.spent(" in caplog.text
    limit.money = 1.0
    question = {"model": decisions.Choice(instructions="", criteria={"strong": "hard", "weak": "easy"})}
    assert model._classify("p=0.9", question).answers["model"].choice == "strong"  # type: ignore[union-attr]
    model.policy.spent(RoutingRequest((), keys={}), "strong", 10, 10)
    assert model._classify("p=0.9", question).answers["model"].choice == "weak"  # type: ignore[union-attr]
