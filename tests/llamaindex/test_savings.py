"""Usage per side from LlamaIndex's events: each answer once, whichever way it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import BaseModel

from llamaindex_routellm import RouteLLM, SavingsEventHandler, routing_decision
from routellm_core import ConfigurationError, LimitError, Price, SpendLimit, TrafficLog
from tests.support.fakes_llamaindex import FakeLLM, Reply, SurvivableError, fake
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 When?", "p=0.9 Why?"
PRICES = {"strong": Price(10, 30), "weak": Price(1, 2)}


@pytest.fixture
def savings() -> Iterator[SavingsEventHandler]:
    root = get_dispatcher()
    before = list(root.event_handlers)
    handler = SavingsEventHandler(PRICES)
    root.add_event_handler(handler)
    yield handler
    root.event_handlers = before


class Sum(BaseModel):
    """A sum."""

    value: int


def ask_chat(llm: RouteLLM) -> None:
    llm.chat([ChatMessage(content=EASY)])


def ask_stream(llm: RouteLLM) -> None:
    list(llm.stream_complete(EASY))


def ask_async(llm: RouteLLM) -> None:
    asyncio.run(llm.achat([ChatMessage(content=EASY)]))


def ask_predict(llm: RouteLLM) -> None:
    llm.predict(PromptTemplate("{query_str}"), query_str=EASY)


def ask_streamed_prompt(llm: RouteLLM) -> None:
    list(llm.stream(PromptTemplate("{query_str}"), query_str=EASY))


def ask_object(llm: RouteLLM) -> None:
    fake(llm.weak).reply_next(Reply(tools=[("Sum", {"value": 1})]))
    llm.as_structured_llm(Sum).chat([ChatMessage(content=EASY)])


def ask_tools(llm: RouteLLM) -> None:
    fake(llm.weak).reply_next(Reply(tools=[("add", {"a": 1, "b": 2})]))
    llm.predict_and_call([FunctionTool.from_defaults(lambda a, b: a + b, name="add", description="x")], EASY)


@pytest.mark.parametrize(
    "ask",
    [ask_chat, ask_stream, ask_async, ask_predict, ask_streamed_prompt, ask_object, ask_tools],
    ids=lambda ask: ask.__name__,
)
def test_one_answer_counts_once(ask: Any, llm: RouteLLM, savings: SavingsEventHandler) -> None:
    ask(llm)
    summary = savings.summary()
    assert (summary.weak.calls, summary.weak.input_tokens, summary.weak.output_tokens) == (1, 10, 5)
    assert summary.strong.calls == 0
    assert summary.cost == pytest.approx((10 * 1 + 5 * 2) / 1e6)
    assert summary.cost_always_strong == pytest.approx((10 * 10 + 5 * 30) / 1e6)


def test_a_model_that_completes_through_its_chat_counts_once(
    strong: FakeLLM, router: ScriptedRouter, savings: SavingsEventHandler
) -> None:
    class Chatty(FakeLLM):
        @llm_completion_callback()
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            answer = self.chat([ChatMessage(content=prompt)])
            return CompletionResponse(text=answer.message.content or "", raw=answer.raw)

    llm = RouteLLM(strong=strong, weak=Chatty("weak"), router=router, threshold=0.5)  # type: ignore[arg-type, call-arg]
    llm.complete(EASY)
    llm.complete(EASY)
    assert savings.summary().weak.calls == 2
    assert savings.summary().weak.input_tokens == 20


def test_answers_that_share_their_raw_form_all_count(
    strong: FakeLLM, router: ScriptedRouter, savings: SavingsEventHandler
) -> None:
    raw = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}

    class Canned(FakeLLM):
        def _raw(self, reply: Reply) -> dict[str, Any]:
            return raw

    llm = RouteLLM(strong=strong, weak=Canned("weak"), router=router, threshold=0.5)  # type: ignore[arg-type, call-arg]
    for _ in range(3):
        llm.chat([ChatMessage(content=EASY)])
        llm.complete(EASY)
    assert savings.summary().weak.calls == 6


@pytest.mark.parametrize(
    "ask",
    [ask_chat, ask_stream, ask_async, ask_predict, ask_streamed_prompt, ask_object, ask_tools],
    ids=lambda ask: ask.__name__,
)
def test_a_limit_on_money_sees_what_each_call_used(ask: Any, strong: FakeLLM, router: ScriptedRouter) -> None:
    # 10 tokens read and 5 written of the weak model cost 20 millionths: two calls reach the cap, the first does not
    limit = SpendLimit(30e-6, prices=PRICES, key="user", on_reached="raise")
    llm = RouteLLM(strong=strong, weak=FakeLLM("weak"), router=router, threshold=0.5, limits=[limit])
    for user in ("ann", "bob"):
        with instrument_tags({"user": user}):
            ask(llm)
            ask(llm)
            with pytest.raises(LimitError):
                ask(llm)
    ask(llm)  # of nobody's


def test_a_failover_counts_for_the_side_that_answered(
    strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, savings: SavingsEventHandler
) -> None:
    llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
    weak.reply_next(SurvivableError("down"), Reply("x", error=SurvivableError("down")))
    llm.chat([ChatMessage(content=EASY)])
    list(llm.stream_chat([ChatMessage(content=EASY)]))
    summary = savings.summary()
    assert (summary.strong.calls, summary.weak.calls, summary.failovers) == (2, 0, 2)


def test_unreported_usage_and_models_that_are_not_routed(llm: RouteLLM, savings: SavingsEventHandler) -> None:
    fake(llm.weak).reply_next(Reply("x", usage=None))
    llm.chat([ChatMessage(content=EASY)])
    llm.weak.chat([ChatMessage(content="direct")])
    summary = savings.summary()
    assert (summary.weak.calls, summary.weak.without_usage, summary.weak.input_tokens) == (1, 1, 0)


def test_a_raw_answer_of_another_form(strong: FakeLLM, router: ScriptedRouter, savings: SavingsEventHandler) -> None:
    class Odd(FakeLLM):
        def _raw(self, reply: Reply) -> Any:
            return 42

    RouteLLM(strong=strong, weak=Odd("weak"), router=router, threshold=0.5).complete(EASY)  # type: ignore[arg-type, call-arg]
    assert savings.summary().weak.without_usage == 1


def test_without_prices_money_is_unknown(llm: RouteLLM) -> None:
    handler = SavingsEventHandler()
    assert handler.summary().cost is None
    assert handler.summary().strong_fraction is None
    with pytest.raises(ConfigurationError, match="prices="):
        SavingsEventHandler({"strong": Price(1, 1)})


class OwnLLM(CustomLLM):
    """A model as LlamaIndex's documents make one: its other methods are `CustomLLM`'s, which call these two."""

    reports: bool = True

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="own")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0}
        return CompletionResponse(text="yes", raw={"usage": usage} if self.reports else None)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def pieces() -> Any:
            yield self.complete(prompt)

        return pieces()


async def _last(stream: Any) -> Any:
    return [piece async for piece in await stream][-1]


@pytest.mark.parametrize("reports", [True, False])
@pytest.mark.parametrize(
    "ask",
    [
        lambda llm: llm.complete(EASY),
        lambda llm: asyncio.run(llm.acomplete(EASY)),
        lambda llm: llm.chat([ChatMessage(content=EASY)]),
        lambda llm: asyncio.run(llm.achat([ChatMessage(content=EASY)])),
        lambda llm: list(llm.stream_complete(EASY))[-1],
        lambda llm: list(llm.stream_chat([ChatMessage(content=EASY)]))[-1],
        lambda llm: asyncio.run(_last(llm.astream_complete(EASY))),
        lambda llm: asyncio.run(_last(llm.astream_chat([ChatMessage(content=EASY)]))),
    ],
    ids=["complete", "acomplete", "chat", "achat", "stream", "stream_chat", "astream", "astream_chat"],
)
def test_a_model_whose_methods_call_one_another_is_counted_once(
    ask: Any, reports: bool, savings: SavingsEventHandler, tmp_path: Path
) -> None:
    limit = SpendLimit(100.0, prices=PRICES)
    with TrafficLog(f"sqlite:///{tmp_path / 't.db'}") as log:
        llm = RouteLLM(
            strong=OwnLLM(reports=reports), weak=OwnLLM(reports=reports), router=ScriptedRouter(), threshold=0.5,
            prices=PRICES, limits=[limit], log=log,
        )  # fmt: skip
        decisions = [routing_decision(ask(llm)) for _ in range(2)]
    usage = savings.summary().weak
    with log.database() as database:
        logged = database.summary().sides["weak"].input_tokens
    assert usage.calls == 2
    if reports:
        assert [decision.cost for decision in decisions] == [1.0, 1.0]  # type: ignore[union-attr]
        assert (usage.input_tokens, logged, limit.spending()) == (2_000_000, 2_000_000, 2.0)
