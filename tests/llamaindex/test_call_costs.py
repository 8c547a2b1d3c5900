"""What a call cost, on its decision: in every way of calling, with the refused answer, in the log and by user."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import Document, SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation.dispatcher import instrument_tags

from llamaindex_routellm import RouteLLM, routing_decision
from routellm_core import Price, TrafficLog
from tests.support.fakes_llamaindex import FakeLLM, Reply, SurvivableError
from tests.support.traffic import booked

PRICES = {"big": Price(10.0, 20.0), "small": Price(1.0, 2.0)}
BIG, SMALL = 0.0002, 0.00002  # of 10 tokens read and 5 written
HI = [ChatMessage(content="hi")]


def routed(threshold: float = 1.0, **options: Any) -> RouteLLM:
    given = {"strong": FakeLLM("big"), "weak": FakeLLM("small"), "prices": PRICES, "threshold": threshold, **options}
    return RouteLLM(router=lambda prompts: [0.5] * len(prompts), **given)


async def last(stream: Any) -> Any:
    return [piece async for piece in await stream][-1]


TOOL = FunctionTool.from_defaults(lambda a: a, name="echo", description="x")
WAYS = {
    "chat": lambda llm: llm.chat(HI),
    "achat": lambda llm: asyncio.run(llm.achat(HI)),
    "stream_chat": lambda llm: list(llm.stream_chat(HI))[-1],
    "astream_chat": lambda llm: asyncio.run(last(llm.astream_chat(HI))),
    "complete": lambda llm: llm.complete("hi"),
    "acomplete": lambda llm: asyncio.run(llm.acomplete("hi")),
    "stream_complete": lambda llm: list(llm.stream_complete("hi"))[-1],
    "astream_complete": lambda llm: asyncio.run(last(llm.astream_complete("hi"))),
    "chat_with_tools": lambda llm: llm.chat_with_tools([TOOL], "hi"),
    "stream_chat_with_tools": lambda llm: list(llm.stream_chat_with_tools([TOOL], "hi"))[-1],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("threshold", "cost"), [(1.0, SMALL), (0.0, BIG)])
def test_every_way_of_calling_says_what_it_cost(way, threshold, cost):
    decision = routing_decision(WAYS[way](routed(threshold)))
    assert decision.cost == pytest.approx(cost)  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_answer_is_paid_for_too(way):
    decision = routing_decision(WAYS[way](routed(accept=lambda answer: False)))
    assert decision.escalated  # type: ignore[union-attr]
    assert decision.cost == pytest.approx(SMALL + BIG)  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_failed_costs_nothing(way):
    llm = routed(weak=FakeLLM("small", SurvivableError()), failover=True)
    decision = routing_decision(WAYS[way](llm))
    assert decision.failover == "weak"  # type: ignore[union-attr]
    assert decision.cost == pytest.approx(BIG)  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
def test_without_prices_there_is_no_cost_and_no_further_piece(way):
    assert routing_decision(WAYS[way](routed(prices=None))).cost is None  # type: ignore[union-attr]
    plain, priced = list(routed(prices=None).stream_chat(HI)), list(routed().stream_chat(HI))
    assert len(priced) == len(plain) + 1


def test_the_last_piece_of_a_stream_is_the_answer_with_its_cost():
    *pieces, end = routed(accept=lambda answer: False).stream_chat(HI)
    assert all(routing_decision(piece).cost is None for piece in pieces)  # type: ignore[union-attr]
    assert end.delta == ""
    assert end.message.content == pieces[-1].message.content


def test_a_model_without_usage_has_no_cost():
    llm = routed(weak=FakeLLM("small", Reply("yes", usage=None)))
    assert routing_decision(llm.chat(HI)).cost is None  # type: ignore[union-attr]


def test_tiers_are_priced_by_the_model_that_answers():
    inner = routed(0.3, strong=FakeLLM("middle"), prices=None)
    outer = routed(weak=inner, prices={**PRICES, "middle": (5.0, 5.0)})
    for way in WAYS:
        decision = routing_decision(WAYS[way](outer))
        assert decision.path == ("weak", "strong")  # type: ignore[union-attr]
        assert decision.cost == pytest.approx(15 * 5e-6)  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated:pydantic.warnings.PydanticDeprecatedSince20")
@pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
def test_an_agent_s_answer_says_what_it_cost():
    async def run() -> Any:
        return await FunctionAgent(llm=routed(), tools=[TOOL]).run("hi")

    assert routing_decision(asyncio.run(run())).cost == pytest.approx(SMALL)  # type: ignore[union-attr]


def test_an_engine_s_answer_says_what_it_cost():
    engine = SummaryIndex.from_documents([Document(text="some text")]).as_query_engine(llm=routed())
    assert routing_decision(engine.query("hi")).cost == pytest.approx(SMALL)  # type: ignore[union-attr]


def test_the_tags_of_the_model_s_last_event_have_the_cost(events):
    routed().chat(HI)
    (event,) = events.of("LLMChatEndEvent")
    assert event.tags["routellm"]["cost"] == pytest.approx(SMALL)


def test_the_log_has_the_cost_of_each_call_its_user_and_the_refused_answer(tmp_path):
    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices=PRICES) as log:
        plain, checked = routed(prices=None, log=log), routed(prices=None, log=log, accept=lambda answer: False)
        plain.chat(HI, routellm_user_id="ann")
        with instrument_tags({"user_id": "ann"}):
            checked.chat(HI)
        list(checked.stream_complete("hi", routellm_user_id="bob"))
        with log.database() as database:
            assert {total.key: total.cost for total in database.totals("user")} == {
                "ann": pytest.approx(2 * SMALL + BIG), "bob": pytest.approx(SMALL + BIG)
            }  # fmt: skip
            by_model = {total.key: total for total in database.totals("model")}
            calls = sorted(call.cost for call in database.calls())  # type: ignore[type-var]
    assert by_model["big"].cost == pytest.approx(2 * BIG)
    assert (by_model["small"].answers, by_model["small"].refused) == (1, 2)
    assert calls == [pytest.approx(SMALL), pytest.approx(SMALL + BIG), pytest.approx(SMALL + BIG)]


def test_prices_survive_a_dict():
    again = RouteLLM.from_dict(
        routed().to_dict(), strong=FakeLLM("big"), weak=FakeLLM("small"), router=lambda prompts: [0.5] * len(prompts)
    )
    assert routing_decision(again.chat(HI)).cost == pytest.approx(SMALL)  # type: ignore[union-attr]


MIDDLE = 15 * 5e-6


@pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat", "stream_complete", "chat_with_tools"])
@pytest.mark.parametrize(
    ("refuses", "cost", "models"),
    [
        ("none", SMALL, {"small": (1, 0)}),
        ("small", SMALL + MIDDLE, {"small": (0, 1), "middle": (1, 0)}),
        ("small middle", SMALL + MIDDLE + BIG, {"small": (0, 1), "middle": (0, 1), "big": (1, 0)}),
    ],
)
def test_answers_that_levels_refuse_are_in_the_log_one_by_one(tmp_path, way, refuses, cost, models):
    def accept(answer: Any) -> bool:
        return not any(name in answer.text for name in refuses.split())

    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices={**PRICES, "middle": Price(5.0, 5.0)}) as log:
        inner = routed(strong=FakeLLM("middle", Reply("of middle")), weak=FakeLLM("small", Reply("of small")),
                       prices=None, accept=accept)  # fmt: skip
        outer = routed(weak=inner, prices=None, log=log, accept=accept)
        assert routing_decision(WAYS[way](outer)).cost == pytest.approx(cost)  # type: ignore[union-attr]
        logged, sums, found = booked(log)
    assert logged == pytest.approx(cost)
    assert sums == dict.fromkeys(sums, pytest.approx(cost))
    assert found == models


def test_a_call_that_fails_after_a_refusal_has_cost_what_it_has_cost(tmp_path):
    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices=PRICES) as log:
        llm = routed(strong=FakeLLM("big", SurvivableError()), accept=lambda answer: False, log=log, prices=None)
        with pytest.raises(SurvivableError):
            llm.chat(HI)
        cost, sums, models = booked(log)
    assert cost == pytest.approx(SMALL)
    assert sums == dict.fromkeys(sums, pytest.approx(SMALL))
    assert models == {"small": (0, 1)}


def test_a_shadow_that_refuses_an_answer_of_its_own_costs_both(tmp_path):
    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices={**PRICES, "middle": Price(5.0, 5.0)}) as log:
        inner = routed(strong=FakeLLM("middle"), accept=lambda answer: False, prices=None)
        routed(0.0, weak=inner, prices=None, log=log, shadow=1.0).chat(HI)
        log.flush()
        with log.database() as database:
            totals = {total.key: total.shadow_cost for total in database.totals("side")}
    assert totals == {"strong": None, "weak": pytest.approx(SMALL + MIDDLE)}
