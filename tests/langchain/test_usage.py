"""SavingsCallbackHandler: calls, tokens and money per side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langchain_routellm import RouteLLMRunnable, SavingsCallbackHandler
from langchain_routellm.usage import used_tokens
from routellm_core.errors import ConfigurationError
from routellm_core.policy.savings import Price, SavingsSummary
from tests.langchain.conftest import Pair

PRICES = {"strong": Price(10.0, 30.0), "weak": Price(1.0, 2.0)}


def _config(handler: SavingsCallbackHandler) -> Any:
    return {"callbacks": [handler]}


def _calls(summary: SavingsSummary) -> tuple[int, int]:
    return summary.strong.calls, summary.weak.calls


def test_money_and_saving_are_what_the_tokens_cost(pair: Pair) -> None:
    savings = SavingsCallbackHandler(PRICES)
    pair.llm().batch(["p=0.9 one two", "p=0.1 one two", "p=0.2 one two"], _config(savings))
    summary = savings.summary()
    assert _calls(summary) == (1, 2)
    assert (summary.weak.input_tokens, summary.weak.output_tokens) == (6, 10)
    assert summary.cost == pytest.approx((3 * 10 + 5 * 30 + 6 * 1 + 10 * 2) / 1e6)
    assert summary.saved == pytest.approx((6 * 9 + 10 * 28) / 1e6)
    assert summary.strong_fraction == pytest.approx(1 / 3)
    assert savings.table() == summary.table()
    assert "strong share 33.3%" in savings.table()


def test_without_prices_calls_and_tokens_are_counted(pair: Pair) -> None:
    savings = SavingsCallbackHandler()
    pair.llm().invoke("p=0.9", _config(savings))
    assert savings.summary().cost is None
    assert savings.summary().strong.output_tokens == 3


@pytest.mark.parametrize("way", ["stream", "astream", "ainvoke", "generate", "structured"])
async def test_every_way_of_calling_is_counted_once(pair: Pair, way: str) -> None:
    savings, llm = SavingsCallbackHandler(PRICES), pair.llm()
    if way == "stream":
        list(llm.stream("p=0.9 x", _config(savings)))
    elif way == "astream":
        [c async for c in llm.astream("p=0.9 x", _config(savings))]
    elif way == "ainvoke":
        await llm.ainvoke("p=0.9 x", _config(savings))
    elif way == "generate":
        llm.generate([[HumanMessage("p=0.9 x")]], callbacks=[savings])
    else:
        schema = {"title": "T", "description": "d", "type": "object", "properties": {}}
        llm.with_structured_output(schema).invoke("p=0.9 x", _config(savings))
    assert _calls(savings.summary()) == (1, 0)
    assert savings.summary().strong.input_tokens == 2
    assert savings.summary().strong.without_usage == 0


def test_models_that_were_not_routed_are_passed_over(pair: Pair) -> None:
    savings = SavingsCallbackHandler(PRICES)
    pair.strong.invoke("p=0.9", _config(savings))
    assert _calls(savings.summary()) == (0, 0)
    assert savings.summary().strong_fraction is None


def test_a_failed_call_is_not_counted_and_a_failover_is(pair: Pair) -> None:
    savings = SavingsCallbackHandler(PRICES)
    pair.strong.error = ConnectionError("down")
    pair.llm(failover=True).invoke("p=0.9", _config(savings))
    summary = savings.summary()
    assert (_calls(summary), summary.failovers) == ((0, 1), 1)
    with pytest.raises(ConnectionError):
        pair.llm().invoke("p=0.9", _config(savings))
    assert _calls(savings.summary()) == (0, 1)
    assert savings._running == {}


def test_an_answer_from_the_cache_costs_nothing(pair: Pair) -> None:
    pair.strong.cache = InMemoryCache()
    savings = SavingsCallbackHandler(PRICES)
    for _ in range(2):
        pair.llm().invoke("p=0.9 x", _config(savings))
    summary = savings.summary()
    assert summary.strong.calls == 2
    assert summary.strong.output_tokens == 4


def test_a_model_that_reports_no_usage_is_counted_as_such(pair: Pair) -> None:
    savings = SavingsCallbackHandler(PRICES)
    weak = FakeListLLM(responses=["hi"] * 3)
    RouteLLMRunnable(strong=pair.strong, weak=weak, router=pair.router, threshold=0.7).invoke("p=0.1", _config(savings))
    assert savings.summary().weak.without_usage == 1


def test_usage_of_older_models_stands_in_the_llm_output() -> None:
    output = {"token_usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    answer = ChatGeneration(message=AIMessage("x"))
    assert used_tokens(LLMResult(generations=[[answer]], llm_output=output)) == (7, 2)
    assert used_tokens(LLMResult(generations=[])) == (None, None)


def test_one_handler_watches_many_threads(pair: Pair) -> None:
    savings, llm = SavingsCallbackHandler(PRICES), pair.llm()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: llm.invoke(f"p=0.{i % 10} x", _config(savings)), range(400)))
    summary = savings.summary()
    assert _calls(summary) == (120, 280)
    assert summary.strong.input_tokens == 240
    assert savings._running == {}


def test_wrong_prices_are_named() -> None:
    with pytest.raises(ConfigurationError, match="prices="):
        SavingsCallbackHandler({"strong": Price(1, 1)})
