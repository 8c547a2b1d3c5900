"""Costs that rise in silence: usage that is missing, markers that are, and answers that others gave. Real clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, SummarizationMiddleware
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_openai import ChatOpenAI

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, SavingsCallbackHandler, routing_decision
from routellm_core import Price
from tests.langchain.conftest import Pair, Services
from tests.support.openai_server import ChatReply, Failure, OpenAIServer

PRICES = {"strong": Price(10, 10), "weak": Price(1, 1)}


def test_the_provider_is_stated_when_both_sides_share_it(services: Services, pair: Pair) -> None:
    assert services.llm()._get_ls_params()["ls_provider"] == "openai"
    mixed = ChatRouteLLM(strong=services.client("strong"), weak=pair.weak, router=pair.router, threshold=0.7)
    assert mixed._get_ls_params()["ls_provider"] == "routellm"


def test_summarization_by_tokens_fires(services: Services) -> None:
    """It trusts the tokens that an answer reports only when the answer is of the model's own provider."""
    services.weak.chat = lambda body: ChatReply("short", usage=(5000, 5))
    summaries = SummarizationMiddleware(model=services.llm(), trigger=("tokens", 4000), keep=("messages", 1))
    agent: Any = create_agent(services.llm(), middleware=[summaries])
    state = agent.invoke({"messages": [HumanMessage("p=0.1 a")]})
    state = agent.invoke({"messages": [*state["messages"], HumanMessage("p=0.1 b")]})
    assert any("lc_source" in message.additional_kwargs for message in state["messages"])


async def test_usage_of_several_prompts_is_added_up(services: Services) -> None:
    prompts = [StringPromptValue(text="p=0.1 a"), StringPromptValue(text="p=0.9 b")]
    llm = services.llm()
    for result in (llm.generate_prompt(prompts), await llm.agenerate_prompt(prompts)):  # type: ignore[arg-type]
        usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
        assert (result.llm_output or {})["token_usage"] == usage


def test_a_stream_without_usage_is_not_free(services: Services) -> None:
    """A client with an address of its own asks for no usage by default."""
    sides: dict[str, Any] = {
        side: services.client(side).model_copy(update={"stream_usage": False}) for side in ("strong", "weak")
    }
    llm = ChatRouteLLM(**sides, router=services.router, threshold=0.7)
    savings = SavingsCallbackHandler(PRICES)
    for _ in range(3):
        list(llm.stream("p=0.9 hi", {"callbacks": [savings]}))
    summary = savings.summary()
    assert summary.strong.without_usage == 3
    assert summary.cost is None
    assert "3 calls reported no usage, set stream_usage=True" in savings.table()
    assert "0.00" not in savings.table()
    llm.invoke("p=0.1 hi", {"callbacks": [savings]})
    llm.invoke("p=0.9 hi", {"callbacks": [savings]})
    assert savings.summary().cost == pytest.approx(165 / 1e6)
    assert "3 calls reported no usage" in savings.table()


@pytest.mark.parametrize("fallback", ["weak", "third"])
@pytest.mark.parametrize("is_async", [False, True])
def test_the_answer_of_a_fallback_says_who_gave_it(services: Services, fallback: str, is_async: bool) -> None:
    with OpenAIServer() as third:
        spare = ChatOpenAI(model="third-model", base_url=third.base_url, api_key="sk-test", max_retries=0)  # type: ignore[arg-type]
        services.strong.fail_always(Failure(status=401))
        routing = RouteLLMMiddleware(
            strong=services.client("strong"), weak=services.client("weak"), router=services.router, threshold=0.7
        )
        stand_in = services.client("weak") if fallback == "weak" else spare
        agent: Any = create_agent(spare, middleware=[routing, ModelFallbackMiddleware(stand_in)])
        savings = SavingsCallbackHandler(PRICES)
        if fallback == "weak":  # so that its name is known
            services.llm().invoke("p=0.1 hi", {"callbacks": [savings]})
        question: Any = {"messages": [HumanMessage("p=0.9 hi")]}
        config: Any = {"callbacks": [savings]}
        state = asyncio.run(agent.ainvoke(question, config)) if is_async else agent.invoke(question, config)
        answer = state["messages"][-1]
        assert isinstance(answer, AIMessage)
        assert answer.content == f"answer of {fallback}-model"
        decision = routing_decision(answer)
        assert decision is not None
        assert decision.failover == "strong"
        assert decision.detail == f"{fallback}-model"
        assert decision.model == ("weak" if fallback == "weak" else "strong")
        summary = savings.summary()
        assert summary.strong.calls == 0
        if fallback == "weak":
            assert (summary.weak.calls, summary.failovers) == (2, 1)
        else:
            assert (summary.other.calls, summary.other.input_tokens) == (1, 10)
            assert "other" in savings.table()


def test_an_answer_of_the_chosen_model_stays_its_own(services: Services) -> None:
    services.strong.fail_next(Failure(status=500))
    routing = RouteLLMMiddleware(
        strong=services.client("strong"),
        weak=services.client("weak"),
        router=services.router,
        threshold=0.7,
        failover=True,
    )
    agent: Any = create_agent(
        services.client("weak"), middleware=[routing, ModelFallbackMiddleware(services.client("strong"))]
    )
    state = agent.invoke({"messages": [HumanMessage("p=0.9 hi")]})
    decision = routing_decision(state["messages"][-1])
    assert decision is not None
    assert decision.model == "strong"
