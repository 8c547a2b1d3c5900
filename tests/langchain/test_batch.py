"""Batches: one call of the router, order, exceptions and concurrency as any runnable's."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from langchain_routellm import ChatRouteLLM, RouteLLMRunnable, routing_decision
from routellm_core import RoutingPolicy
from routellm_core.errors import ConfigurationError, RouterError
from tests.langchain.conftest import Pair

PROMPTS: list[Any] = [f"p=0.{i % 10} number {i}" for i in range(40)]
ANSWERS = [f"{'strong' if i % 10 >= 7 else 'weak'}-model answers: {prompt}" for i, prompt in enumerate(PROMPTS)]


def test_a_batch_keeps_order_and_asks_the_router_once(pair: Pair) -> None:
    assert [a.content for a in pair.llm().batch(PROMPTS)] == ANSWERS
    assert len(pair.router.calls) == 1
    assert len(pair.strong.calls) == 12


async def test_abatch_keeps_order_and_asks_the_router_once(pair: Pair) -> None:
    assert [a.content for a in await pair.llm().abatch(PROMPTS)] == ANSWERS
    assert len(pair.router.calls) == 1


def test_equal_prompts_are_scored_once(pair: Pair) -> None:
    pair.llm().batch(["p=0.9 same"] * 5)
    assert pair.router.prompts == ["p=0.9 same"]
    assert len(pair.strong.calls) == 5


@pytest.mark.parametrize("inputs", [[], ()])
async def test_an_empty_batch_is_an_empty_list(pair: Pair, inputs: Any) -> None:
    llm = pair.llm()
    assert llm.batch(inputs) == []
    assert await llm.abatch(inputs) == []
    assert list(llm.batch_as_completed(inputs)) == []
    assert [item async for item in llm.abatch_as_completed(inputs)] == []
    assert pair.router.calls == []


async def test_an_lcel_chain_routes_its_batch_at_once(pair: Pair) -> None:
    chain = ChatPromptTemplate.from_messages([("user", "{text}")]) | pair.llm() | StrOutputParser()
    inputs = [{"text": prompt} for prompt in PROMPTS]
    assert chain.batch(inputs) == ANSWERS
    assert len(pair.router.calls) == 1
    pair.router.calls.clear()
    assert await (chain | RunnableLambda(str.upper)).abatch([{"text": f"x{p}"} for p in PROMPTS])
    assert len(pair.router.calls) == 1


@pytest.mark.parametrize("wrap", ["bind", "retry", "fallbacks", "map", "with_config"])
def test_wrapped_models_route_their_batch_at_once(pair: Pair, wrap: str) -> None:
    llm: Any = pair.llm()
    wrapped = {
        "bind": lambda: llm.bind(stop=["never"]),
        "retry": lambda: llm.with_retry(),
        "fallbacks": lambda: llm.with_fallbacks([pair.weak]),
        "map": lambda: llm.map(),
        "with_config": lambda: llm.with_config(tags=["x"]),
    }[wrap]()
    out = wrapped.invoke(PROMPTS) if wrap == "map" else wrapped.batch(PROMPTS)
    assert [a.content for a in out] == ANSWERS
    assert len(pair.router.calls) == 1


def test_tools_bound_route_their_batch_at_once(pair: Pair) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    out: Any = pair.llm().bind_tools([add]).batch(PROMPTS[:20])
    assert all(a.tool_calls for a in out)
    assert len(pair.router.calls) == 1


def test_each_config_steers_its_own_call(pair: Pair) -> None:
    configs: list[Any] = [{"configurable": {"routellm_force": side}} for side in ("strong", "weak", "strong")]
    out = pair.llm().batch(["a", "b", "c"], configs)
    assert [a.content for a in out] == ["strong-model answers: a", "weak-model answers: b", "strong-model answers: c"]
    assert pair.router.calls == []


def _fails_on_even(messages: list[Any]) -> Any:
    text = messages[-1].text
    return ValueError(text) if int(text.split()[-1]) % 2 == 0 else text


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_exceptions_are_returned_in_their_place(pair: Pair, way: str) -> None:
    pair.strong.reply = _fails_on_even
    llm = pair.llm()
    if way == "batch":
        out: list[Any] = llm.batch(PROMPTS, return_exceptions=True)
    else:
        out = await llm.abatch(PROMPTS, return_exceptions=True)
    failed = [i for i, item in enumerate(out) if isinstance(item, Exception)]
    assert failed == [i for i in range(40) if i % 10 >= 7 and i % 2 == 0]
    assert [str(out[i]) for i in failed] == [PROMPTS[i] for i in failed]
    assert [a.content for i, a in enumerate(out) if i % 10 < 7] == [ANSWERS[i] for i in range(40) if i % 10 < 7]


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_the_first_exception_is_raised(pair: Pair, way: str) -> None:
    pair.strong.reply = _fails_on_even
    with pytest.raises(ValueError, match="number 8"):
        pair.llm().batch(PROMPTS) if way == "batch" else await pair.llm().abatch(PROMPTS)


def test_one_wrong_item_does_not_spoil_the_others(pair: Pair) -> None:
    configs: list[Any] = [{}, {"configurable": {"routellm_threshold": 7}}, {}]
    out: list[Any] = pair.llm().batch(["p=0.9", "p=0.9", "p=0.1"], configs, return_exceptions=True)
    assert isinstance(out[1], ConfigurationError)
    assert [out[0].content, out[2].content] == ["strong-model answers: p=0.9", "weak-model answers: p=0.1"]
    with pytest.raises(ConfigurationError, match="routellm_threshold=7"):
        pair.llm().batch(["p=0.9", "p=0.9", "p=0.1"], configs)


async def test_a_failed_router_is_every_items_exception_if_asked_for(pair: Pair) -> None:
    pair.router.error = RuntimeError("down")
    llm = pair.llm(policy=RoutingPolicy(pair.router, threshold=0.7, on_error="raise"))
    out: list[Any] = llm.batch(["a", "b"], return_exceptions=True)
    assert [type(item) for item in out] == [RouterError, RouterError]
    assert [type(x) for x in await llm.abatch(["c", "d"], return_exceptions=True)] == [RouterError, RouterError]  # type: ignore[comparison-overlap]
    with pytest.raises(RouterError):
        llm.batch(["e", "f"])
    assert [type(x) for _, x in llm.batch_as_completed(["g", "h"], return_exceptions=True)] == [RouterError] * 2


async def test_a_failed_router_takes_no_call_along_that_needs_none(pair: Pair) -> None:
    pair.router.error = RuntimeError("down")
    llm = pair.llm(policy=RoutingPolicy(pair.router, threshold=0.7, on_error="raise"))
    configs: list[Any] = [{"configurable": {"routellm_force": "strong"}}, {}]
    for out in (
        llm.batch(["a", "b"], configs, return_exceptions=True),
        await llm.abatch(["a", "b"], configs, return_exceptions=True),
        [x for _, x in sorted(llm.batch_as_completed(["a", "b"], configs, return_exceptions=True))],
    ):
        forced, scored = cast("list[Any]", out)
        assert routing_decision(forced).reason == "forced"  # type: ignore[union-attr]
        assert isinstance(scored, RouterError)


def test_as_completed_gives_index_and_answer(pair: Pair) -> None:
    out = dict(pair.llm().batch_as_completed(PROMPTS))
    assert [out[i].content for i in range(40)] == ANSWERS
    assert routing_decision(out[9]).model == "strong"  # type: ignore[union-attr]
    assert len(pair.router.calls) == 1


async def test_abatch_as_completed_gives_index_and_answer(pair: Pair) -> None:
    out = {i: answer async for i, answer in pair.llm().abatch_as_completed(PROMPTS)}
    assert [out[i].content for i in range(40)] == ANSWERS
    assert len(pair.router.calls) == 1


def test_as_completed_returns_exceptions_if_asked_for(pair: Pair) -> None:
    pair.strong.error = ValueError("no")
    out = dict(pair.llm().batch_as_completed(["p=0.9", "p=0.1"], return_exceptions=True))
    assert isinstance(out[0], ValueError)
    assert out[1].content == "weak-model answers: p=0.1"
    with pytest.raises(ValueError, match="no"):
        list(pair.llm().batch_as_completed(["p=0.9", "p=0.1"]))


class _Gauge:
    """How many calls run at the same time."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()

    def sync(self, text: str) -> str:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.gate.wait(0.01)
        with self.lock:
            self.now -= 1
        return text

    async def run(self, text: str) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.005)
        self.now -= 1
        return text


def test_max_concurrency_holds_over_both_sides(pair: Pair) -> None:
    gauge = _Gauge()
    route = RouteLLMRunnable(strong=gauge.sync, weak=gauge.sync, router=pair.router, threshold=0.5)
    assert route.batch(PROMPTS, {"max_concurrency": 2}) == PROMPTS
    assert gauge.most <= 2


async def test_async_max_concurrency_holds_over_both_sides(pair: Pair) -> None:
    gauge = _Gauge()
    side = RunnableLambda(gauge.run)
    route: Any = RouteLLMRunnable(strong=side, weak=side, router=pair.router, threshold=0.5)
    assert await route.abatch(PROMPTS, {"max_concurrency": 3}) == PROMPTS
    assert gauge.most <= 3


def test_each_side_gets_its_share_as_a_batch_of_its_own(pair: Pair) -> None:
    batches: list[int] = []

    class Batching(RunnableLambda[Any, Any]):
        def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
            batches.append(len(inputs))
            return super().batch(inputs, config, **kwargs)

    side = Batching(lambda text: text)
    RouteLLMRunnable(strong=side, weak=side, router=pair.router, threshold=0.7).batch(PROMPTS)
    assert sorted(batches) == [12, 28]


def test_the_router_is_asked_once_for_both_levels_of_nested_models(pair: Pair) -> None:
    inner = pair.llm(threshold=0.4)
    outer = ChatRouteLLM(strong=pair.strong, weak=inner, router=pair.router, threshold=0.8)
    outer.batch(PROMPTS)
    assert len(pair.router.calls) == 1


def test_a_batch_that_breaks_as_a_whole_is_told(pair: Pair) -> None:
    class Broken(RunnableLambda[Any, Any]):
        def batch(self, *args: Any, **kwargs: Any) -> list[Any]:
            raise OSError("no batch today")

    route = RouteLLMRunnable(strong=Broken(str), weak=lambda x: "weak", router=pair.router, threshold=0.7)
    out = route.batch(["p=0.9", "p=0.1"], return_exceptions=True)
    assert isinstance(out[0], OSError)
    assert out[1] == "weak"
    saved = RouteLLMRunnable(
        strong=Broken(str), weak=lambda x: "weak", router=pair.router, threshold=0.7, failover=True
    )
    assert saved.batch(["p=0.9", "p=0.1"]) == ["weak", "weak"]
