"""Traces as others read them: one LLM span a call, with the model, its tokens and the decision."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index_instrumentation import get_dispatcher

from llamaindex_routellm import RouteLLM
from routellm_core import Price
from tests.llamaindex.clients import CLIENTS, sides
from tests.llamaindex.clients.ways import ANSWERS, ways
from tests.support.loopback import Failure
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 What is two plus two?", "p=0.9 Prove it."
# LlamaIndex swallows what a handler raises, and warnings are errors here: OpenInference still calls pydantic's json()
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NEEDS = "opentelemetry.sdk.trace.export.in_memory_span_exporter"


@pytest.fixture
def exporter() -> Any:
    return pytest.importorskip(NEEDS, reason="needs pip install opentelemetry-sdk").InMemorySpanExporter()


@pytest.fixture
def provider(exporter: Any) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> Iterator[None]:
    """OpenInference ends a span when its stream is collected; all that was imported need not be looked at each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    root = get_dispatcher()
    before = list(root.span_handlers), list(root.event_handlers)
    yield
    root.span_handlers, root.event_handlers = before


@pytest.fixture
def openinference(provider: Any) -> Iterator[None]:
    package = "openinference.instrumentation.llama_index"
    module = pytest.importorskip(package, reason="needs pip install openinference-instrumentation-llama-index")
    instrumentor = module.LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
    yield
    instrumentor.uninstrument()


@pytest.fixture
def llama_index_otel(provider: Any) -> None:
    package = "llama_index.observability.otel"
    module = pytest.importorskip(package, reason="needs pip install llama-index-observability-otel")
    handlers = pytest.importorskip(f"{package}.base")
    assert module.LlamaIndexOpenTelemetry
    spans = handlers.OTelCompatibleSpanHandler(tracer=provider.get_tracer("test"), tracer_provider=provider)
    root = get_dispatcher()
    root.add_span_handler(spans)
    root.add_event_handler(handlers.OTelCompatibleEventHandler(span_handler=spans))


def decision_on(span: Any) -> dict[str, Any]:
    return {k.removeprefix("routellm."): v for k, v in span.attributes.items() if k.startswith("routellm.")}


def expected(text: str) -> dict[str, Any]:
    side, win_rate = ("weak", 0.1) if text == EASY else ("strong", 0.9)
    return {"model": side, "win_rate": win_rate, "threshold": 0.5, "reason": "win_rate", "router": "scripted"}


def assert_told(spans: list[Any], texts: list[str], times: int = 1) -> list[Any]:
    """For each text the first span that tells its decision; once, or `times`."""
    told = [span for span in spans if decision_on(span)]
    assert len(told) == len(texts) * times
    for i, span in enumerate(told):
        assert decision_on(span).items() >= expected(texts[i // times]).items()
    return told[::times]


@pytest.mark.usefixtures("openinference")
class TestOpenInference:
    def kind(self, span: Any) -> Any:
        return span.attributes["openinference.span.kind"]

    @ways
    @pytest.mark.parametrize("client", CLIENTS)
    async def test_one_llm_span_a_call(self, ask: Any, client: str, exporter: Any, router: ScriptedRouter) -> None:
        async with sides(client, client) as (models, _):
            await ask(models["weak"], EASY)
            gc.collect()
            bare = [span for span in exporter.get_finished_spans() if self.kind(span) == "LLM"]
            exporter.clear()
            llm = RouteLLM(**models, router=router, threshold=0.5)
            for text in (EASY, HARD):
                await ask(llm, text)
            gc.collect()
            spans = list(exporter.get_finished_spans())
        # as many as of the bare model: one, and one more where it fills in a prompt or completes through its own chat
        assert [span.name for span in spans if self.kind(span) == "LLM"] == [span.name for span in bare] * 2
        assert [self.kind(span) for span in spans if span.name.startswith("RouteLLM")] == ["CHAIN"] * 2
        twice = client in ("anthropic", "ollama") and "complete" in ask.__name__
        assert len(bare) == 1 or ask not in ANSWERS or client == "openai-like" or twice
        for span, side in zip(assert_told(spans, [EASY, HARD], 1 + twice), ("weak", "strong"), strict=True):
            assert self.kind(span) == "LLM"
            assert span.attributes["llm.model_name"] == models[side].metadata.model_name
            if client == "responses" and "stream" in ask.__name__:
                continue  # LlamaIndex's client does not report them
            assert span.attributes["llm.token_count.prompt"] == 10
            assert span.attributes["llm.token_count.completion"] == 5

    async def test_a_failover_shows_both_models(self, exporter: Any, router: ScriptedRouter) -> None:
        async with sides("openai", "openai") as (models, servers):
            servers["weak"].fail_always(Failure(status=503))
            llm = RouteLLM(**models, router=router, threshold=0.5, failover=True)
            llm.chat([ChatMessage(content=EASY)])
        spans = [span for span in exporter.get_finished_spans() if decision_on(span)]
        assert [(d["model"], d.get("failover")) for d in map(decision_on, spans)] == [
            ("weak", None),
            ("strong", "weak"),
        ]
        assert len({decision_on(span)["id"] for span in spans}) == 1
        assert len({span.parent.span_id for span in spans}) == 1

    async def test_three_tiers_show_the_decisions_of_both_levels(self, exporter: Any, router: ScriptedRouter) -> None:
        async with sides("openai", "openai") as (models, _):
            inner = RouteLLM(**models, router=router, threshold=0.05)
            RouteLLM(strong=models["strong"], weak=inner, router=router, threshold=0.5).complete(EASY)
        (told,) = [span for span in exporter.get_finished_spans() if decision_on(span)]
        shown = decision_on(told)
        assert (shown["threshold"], shown["model"]) == (0.5, "weak")
        assert (shown["inner.threshold"], shown["inner.model"]) == (0.05, "strong")

    async def test_the_cost_of_the_call_is_on_the_span_of_each_model(
        self, exporter: Any, router: ScriptedRouter
    ) -> None:
        async with sides("openai", "openai") as (models, _):
            prices = {"strong": Price(10.0, 10.0), "weak": Price(1.0, 1.0)}
            inner = RouteLLM(**models, router=router, threshold=0.5, accept=lambda answer: False)
            RouteLLM(**models, router=router, threshold=0.5, prices=prices).complete(EASY)
            RouteLLM(strong=models["strong"], weak=inner, router=router, threshold=0.99, prices=prices).complete(EASY)
        told = [decision_on(span) for span in exporter.get_finished_spans() if decision_on(span)]
        # both models of the nested one are on the weak side of the outer one, and each span has the sum so far
        assert [shown["cost"] for shown in told] == pytest.approx([15e-6, 15e-6, 30e-6])


@pytest.mark.usefixtures("llama_index_otel")
class TestLlamaIndexsOwn:
    @ways
    async def test_one_llm_span_a_call(self, ask: Any, exporter: Any, router: ScriptedRouter) -> None:
        async with sides("openai", "openai") as (models, _):
            llm = RouteLLM(**models, router=router, threshold=0.5)
            for text in (EASY, HARD):
                await ask(llm, text)
        spans = exporter.get_finished_spans()
        for span, name in zip(assert_told(spans, [EASY, HARD]), ("gpt-4.1-mini", "gpt-4.1"), strict=True):
            assert span.name.startswith("OpenAI.")
            told = {key: value for event in span.events for key, value in event.attributes.items()}
            # older cores call it by its field
            assert (told.get("model_dict.model_name") or told["model_dict.model"]) == name
            if "stream" not in ask.__name__:  # its span ends before the stream does
                assert told["response.raw.usage.prompt_tokens"] == 10

    async def test_without_an_exporter_nothing_is_set(self, router: ScriptedRouter) -> None:
        get_dispatcher().span_handlers = []
        async with sides("openai", "openai") as (models, _):
            RouteLLM(**models, router=router, threshold=0.5).complete(EASY)
