"""What a call cost, on its decision: in every way of calling, with the refused answer, in the log and by user."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, RouteLLMRunnable, routing_decision
from routellm_core import ConfigurationError, Price, TrafficLog
from tests.support.traffic import booked

PRICES = {"big": Price(10.0, 20.0), "small": Price(1.0, 2.0)}
BIG, SMALL = 0.0013, 0.00013  # of 100 tokens read and 15 written


class Metered(GenericFakeChatModel):
    """A model that reports its name and usage; a stream does so in its last chunk."""

    messages: Any = None
    name_: str = "small"
    text: str = "an answer"
    fails: bool = False

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_model_type": "chat", "ls_model_name": self.name_}

    @property
    def _usage(self) -> Any:
        return {"input_tokens": 100, "output_tokens": 15, "total_tokens": 115}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        if self.fails:
            raise TimeoutError
        message = AIMessage(self.text, response_metadata={"model_name": self.name_}, usage_metadata=self._usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        if self.fails:
            raise TimeoutError
        for i, word in enumerate(self.text.split()):
            last = i == len(self.text.split()) - 1
            chunk = AIMessageChunk(  # type: ignore[call-arg]
                word,
                response_metadata={"model_name": self.name_} if last else {},
                usage_metadata=self._usage if last else None,
            )
            yield ChatGenerationChunk(message=chunk)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools)

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> Any:
        from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough

        parsed = RunnablePassthrough.assign(parsed=lambda found: found["raw"].content)
        return RunnableParallel(raw=self) | parsed if include_raw else self | RunnableLambda(lambda m: m.content)


def routed(threshold: float = 1.0, **options: Any) -> ChatRouteLLM:
    big, small = Metered(name_="big"), Metered(name_="small")
    options = {"prices": PRICES, "router": lambda prompts: [0.5] * len(prompts), **options}
    return ChatRouteLLM(
        strong=options.pop("strong", big), weak=options.pop("weak", small), threshold=threshold, **options
    )


def streamed(model: Any) -> Any:
    total = None
    for chunk in model.stream("hi"):
        total = chunk if total is None else total + chunk
    return total


async def astreamed(model: Any) -> Any:
    total = None
    async for chunk in model.astream("hi"):
        total = chunk if total is None else total + chunk
    return total


WAYS = {
    "invoke": lambda model: model.invoke("hi"),
    "ainvoke": lambda model: asyncio.run(model.ainvoke("hi")),
    "stream": streamed,
    "astream": lambda model: asyncio.run(astreamed(model)),
    "batch": lambda model: model.batch(["hi", "you"])[1],
    "abatch": lambda model: asyncio.run(model.abatch(["hi", "you"]))[1],
    "generate": lambda model: model.generate([[HumanMessage("hi")]]).generations[0][0].message,
    "events": lambda model: model.stream_events("hi", version="v3").output,
    "structured": lambda model: model.with_structured_output(dict, include_raw=True).invoke("hi"),
    "structured stream": lambda model: streamed(model.with_structured_output(dict, include_raw=True)),
    "bound": lambda model: model.bind_tools([]).invoke("hi"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("threshold", "cost"), [(1.0, SMALL), (0.0, BIG)])
def test_every_way_of_calling_says_what_it_cost(way, threshold, cost):
    decision = routing_decision(WAYS[way](routed(threshold)))
    assert decision.cost == pytest.approx(cost)  # type: ignore[union-attr]
    assert decision.model == ("weak" if threshold else "strong")  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_answer_is_paid_for_too(way):
    answer = WAYS[way](routed(accept=lambda answer: False))
    decision = routing_decision(answer)
    assert decision.escalated  # type: ignore[union-attr]
    assert decision.cost == pytest.approx(SMALL + BIG)  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_failed_costs_nothing(way):
    decision = routing_decision(WAYS[way](routed(weak=Metered(name_="small", fails=True), failover=True)))
    assert decision.failover == "weak"  # type: ignore[union-attr]
    assert decision.cost == pytest.approx(BIG)  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
def test_without_prices_there_is_no_cost_and_no_further_chunk(way):
    assert routing_decision(WAYS[way](routed(prices=None))).cost is None  # type: ignore[union-attr]
    assert all(chunk.content or chunk.chunk_position for chunk in routed(prices=None).stream("hi"))


def test_the_last_chunk_of_a_stream_brings_the_cost():
    *_, last = routed().stream("hi")
    assert last.content == ""
    assert last.response_metadata["routellm"] == {"cost": pytest.approx(SMALL)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("refuses", [False, True])
def test_a_model_that_does_not_stream_says_what_it_cost(way, refuses):
    models: dict[str, Any] = {
        side: Metered(name_=name, disable_streaming=True) for side, name in (("strong", "big"), ("weak", "small"))
    }
    answer = WAYS[way](routed(**models, accept=(lambda answer: False) if refuses else None))
    assert routing_decision(answer).cost == pytest.approx(SMALL + BIG if refuses else SMALL)  # type: ignore[union-attr]


def test_prices_by_side_by_pair_and_with_a_version():
    assert routing_decision(routed(prices={"strong": (10, 20), "weak": (1, 2)}).invoke("hi")).cost == pytest.approx(  # type: ignore[union-attr]
        SMALL
    )
    dated = Metered(name_="small-2025-04-14")
    assert routing_decision(routed(weak=dated).invoke("hi")).cost == pytest.approx(SMALL)  # type: ignore[union-attr]
    assert routing_decision(routed(weak=Metered(name_="smaller")).invoke("hi")).cost is None  # type: ignore[union-attr]


def test_a_model_without_usage_has_no_cost():
    class Silent(Metered):
        @property
        def _usage(self) -> Any:
            return None

    assert routing_decision(routed(weak=Silent()).invoke("hi")).cost is None  # type: ignore[union-attr]
    half = routed(weak=Silent(), accept=lambda answer: False).invoke("hi")
    assert routing_decision(half).cost is None  # type: ignore[union-attr]  # what is known of it would be too little


def test_any_two_runnables():
    chain = RouteLLMRunnable(
        strong=Metered(name_="big") | (lambda m: m), weak=Metered() | (lambda m: m), threshold=1.0, prices=PRICES,
        router=lambda prompts: [0.5] * len(prompts),
    )  # fmt: skip
    assert routing_decision(chain.invoke("hi")).cost == pytest.approx(SMALL)  # type: ignore[union-attr]


def test_tiers_are_priced_by_the_model_that_answers():
    inner = routed(0.3, strong=Metered(name_="middle"), prices=None)
    outer = routed(weak=inner, prices={**PRICES, "middle": Price(5.0, 5.0)})
    for way in ("invoke", "ainvoke", "stream", "astream", "batch"):
        decision = routing_decision(WAYS[way](outer))
        assert decision.path == ("weak", "strong")  # type: ignore[union-attr]
        assert decision.cost == pytest.approx(115 * 5e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("scope", ["run", "call"])
@pytest.mark.parametrize("accept", [None, lambda answer: False])
def test_agents(scope, accept):
    middleware = RouteLLMMiddleware(
        strong=Metered(name_="big"), weak=Metered(), threshold=1.0, scope=scope, prices=PRICES, accept=accept,
        router=lambda prompts: [0.5] * len(prompts),
    )  # fmt: skip
    agent = create_agent(model=Metered(), tools=[], middleware=[middleware])
    cost = SMALL if accept is None else SMALL + BIG
    for state in (
        agent.invoke({"messages": [HumanMessage("hi")]}),
        asyncio.run(agent.ainvoke({"messages": [HumanMessage("hi")]})),
    ):
        assert routing_decision(state["messages"][-1]).cost == pytest.approx(cost)  # type: ignore[union-attr]


def test_the_cost_stands_in_the_output_of_the_traced_run():
    from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

    runs = RunCollectorCallbackHandler()
    routed().invoke("hi", config={"callbacks": [runs]})
    list(routed().stream("hi", config={"callbacks": [runs]}))
    for run in runs.traced_runs:
        message = run.outputs["output"]  # type: ignore[index]
        assert message.response_metadata["routellm"]["cost"] == pytest.approx(SMALL)


def test_the_log_has_the_cost_of_each_call_its_user_and_the_refused_answer(tmp_path):
    url = f"sqlite:///{tmp_path}/traffic.db"
    with TrafficLog(url, prices=PRICES) as log:
        plain, checked = routed(prices=None, log=log), routed(prices=None, log=log, accept=lambda answer: False)
        for user, model in (("ann", plain), ("ann", checked), ("bob", plain)):
            model.invoke("hi", config={"configurable": {"user_id": user}})
        list(checked.stream("hi", config={"configurable": {"user_id": "bob"}}))
        with log.database() as database:
            costs = {}
            for call in database.calls():
                costs.setdefault(call.user_id, []).append(call.cost)
            assert {user: sorted(paid) for user, paid in costs.items()} == {
                user: [pytest.approx(SMALL), pytest.approx(SMALL + BIG)] for user in ("ann", "bob")
            }
            by_user = database.totals("user")
            assert {total.key: total.cost for total in by_user} == {
                user: pytest.approx(2 * SMALL + BIG) for user in ("ann", "bob")
            }
            by_side = {total.key: total for total in database.totals("side")}
    assert by_side["strong"].cost == pytest.approx(2 * BIG)
    assert by_side["weak"].cost == pytest.approx(4 * SMALL)
    assert (by_side["weak"].answers, by_side["weak"].refused) == (2, 2)


def test_prices_that_are_none_are_refused():
    with pytest.raises(ConfigurationError, match="prices="):
        routed(prices={"big": 3})


MIDDLE = 115 * 5e-6


def three_models(log: TrafficLog, refuses: str) -> Any:
    """Small below middle below big, of which the checks refuse the named ones."""
    prices = {**PRICES, "middle": Price(5.0, 5.0)}

    def accept(answer: Any) -> bool:
        return not any(name in answer.text for name in refuses.split())

    inner = routed(strong=Metered(name_="middle", text="of middle"), weak=Metered(text="of small"), prices=None,
                   accept=accept)  # fmt: skip
    return routed(weak=inner, strong=Metered(name_="big", text="of big"), prices=prices, log=log, accept=accept)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch"])
@pytest.mark.parametrize(
    ("refuses", "cost", "models"),
    [
        ("none", SMALL, {"small": (1, 0)}),
        ("small", SMALL + MIDDLE, {"small": (0, 1), "middle": (1, 0)}),
        ("small middle", SMALL + MIDDLE + BIG, {"small": (0, 1), "middle": (0, 1), "big": (1, 0)}),
    ],
)
def test_answers_that_levels_refuse_are_in_the_log_one_by_one(tmp_path, way, refuses, cost, models):
    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db") as log:
        model = three_models(log, refuses)
        decision = routing_decision(model.batch(["hi"])[0] if way == "batch" else WAYS[way](model))
        assert decision.cost == pytest.approx(cost)  # type: ignore[union-attr]
        logged, sums, found = booked(log)
    assert logged == pytest.approx(cost)
    assert sums == dict.fromkeys(sums, pytest.approx(cost))
    assert found == models


def test_a_refusal_on_the_strong_side_has_room_beside_the_answer(tmp_path):
    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices=PRICES) as log:
        inner = routed(strong=Metered(name_="big"), accept=lambda answer: False, prices=None)
        model = routed(0.0, strong=inner, prices=None, log=log)
        assert routing_decision(model.invoke("hi")).cost == pytest.approx(SMALL + BIG)  # type: ignore[union-attr]
        _, sums, models = booked(log)
    assert sums == dict.fromkeys(sums, pytest.approx(SMALL + BIG))
    assert models == {"small": (0, 1), "big": (1, 0)}


def test_a_refusal_inside_a_chain_is_in_the_log_of_the_model_around_it(tmp_path):
    from langchain_core.runnables import RunnableLambda

    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices={**PRICES, "middle": Price(5.0, 5.0)}) as log:
        inner = routed(strong=Metered(name_="middle"), accept=lambda answer: False, prices=None)
        chain = RouteLLMRunnable(
            strong=Metered(name_="big"), weak=RunnableLambda(lambda text: text) | inner, threshold=1.0, log=log,
            router=lambda prompts: [0.5] * len(prompts),
        )  # fmt: skip
        assert routing_decision(chain.invoke("hi")).cost == pytest.approx(SMALL + MIDDLE)  # type: ignore[union-attr]
        cost, sums, models = booked(log)
    assert cost == pytest.approx(SMALL + MIDDLE)
    assert sums == dict.fromkeys(sums, pytest.approx(cost))
    assert models == {"small": (0, 1), "middle": (1, 0)}


def test_a_call_that_fails_after_a_refusal_has_cost_what_it_has_cost(tmp_path):
    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices=PRICES) as log:
        model = routed(strong=Metered(name_="big", fails=True), accept=lambda answer: False, log=log, prices=None)
        with pytest.raises(TimeoutError):
            model.invoke("hi")
        cost, sums, models = booked(log)
    assert cost == pytest.approx(SMALL)
    assert sums == dict.fromkeys(sums, pytest.approx(SMALL))
    assert models == {"small": (0, 1)}


def test_a_chain_that_fails_after_a_model_was_paid_has_cost_that_model(tmp_path):
    from langchain_core.runnables import RunnableLambda

    def fails(message: Any) -> Any:
        raise TimeoutError

    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices=PRICES) as log:
        chain = RouteLLMRunnable(
            strong=Metered(name_="big"), weak=Metered() | RunnableLambda(fails), threshold=1.0, log=log, failover=True,
            router=lambda prompts: [0.5] * len(prompts),
        )  # fmt: skip
        assert routing_decision(chain.invoke("hi")).cost == pytest.approx(SMALL + BIG)  # type: ignore[union-attr]
        cost, sums, models = booked(log)
    assert cost == pytest.approx(SMALL + BIG)
    assert sums == dict.fromkeys(sums, pytest.approx(SMALL + BIG))
    assert models == {"small": (0, 0), "big": (1, 0)}


def test_a_shadow_that_refuses_an_answer_of_its_own_costs_both(tmp_path):
    prices = {**PRICES, "middle": Price(5.0, 5.0)}
    with TrafficLog(f"sqlite:///{tmp_path}/traffic.db", prices=prices) as log:
        inner = routed(strong=Metered(name_="middle"), accept=lambda answer: False, prices=None)
        routed(0.0, weak=inner, strong=Metered(name_="big"), prices=None, log=log, shadow=1.0).invoke("hi")
        log.flush()
        with log.database() as database:
            totals = {total.key: total.shadow_cost for total in database.totals("side")}
    assert totals == {"strong": None, "weak": pytest.approx(SMALL + MIDDLE)}
