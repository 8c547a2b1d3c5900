"""Three tiers by nesting, in every way of calling: shares of all calls, one router call, every level's decision."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import Document
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import BaseModel

from llamaindex_routellm import RouteLLM, SavingsEventHandler, routing_decision, routing_decisions
from llamaindex_routellm.tracing import _attributes
from routellm_core import ConfigurationError, Price, ShareLimit, SpendLimit, TrafficLog
from routellm_core.errors import RouterError
from tests.llamaindex.conftest import Recorder
from tests.support.fakes_llamaindex import FakeLLM, Reply, SurvivableError
from tests.support.routers import ScriptedRouter

# one prompt for each tier
TOP, MIDDLE, LOW = "p=0.95 prove it", "p=0.7 explain it", "p=0.1 hello"
PATHS = {TOP: ("strong",), MIDDLE: ("weak", "strong"), LOW: ("weak", "weak")}
MODELS = {TOP: "top", MIDDLE: "middle", LOW: "low"}
WAYS = ["chat", "complete", "stream_chat", "stream_complete", "achat", "acomplete", "astream_chat", "astream_complete"]


class Tiers:
    """Three models in two routed ones, with one router."""

    def __init__(self, **options: Any) -> None:
        self.router = ScriptedRouter()
        self.top, self.middle, self.low = FakeLLM("top"), FakeLLM("middle"), FakeLLM("low")
        common: dict[str, Any] = {"router": self.router, "cache_size": 0}
        own = {name.removeprefix("inner_"): v for name, v in options.items() if name.startswith("inner_")}
        outer = {name: v for name, v in options.items() if not name.startswith("inner_")}
        self.inner = RouteLLM(strong=self.middle, weak=self.low, **common, **{"strong_fraction": 0.3} | own)
        self.llm = RouteLLM(strong=self.top, weak=self.inner, **common, **{"strong_fraction": 0.1} | outer)


@pytest.fixture
def tiers() -> Tiers:
    return Tiers()


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


async def pieces_of(llm: Any, way: str, prompt: str) -> list[Any]:
    """The answer, or all pieces of one that is streamed."""
    found = getattr(llm, way)(user(prompt) if "chat" in way else prompt)
    if way.startswith("a"):
        found = await found
    if "stream" not in way:
        return [found]
    return [piece async for piece in found] if way.startswith("a") else list(found)


def text_of(answer: Any) -> str:
    return str(answer.message.content if hasattr(answer, "message") else answer.text)


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_of_calling(tiers: Tiers, way: str, events: Recorder) -> None:
    for prompt in (TOP, MIDDLE, LOW):
        tiers.router.calls.clear()
        events._events.clear()
        pieces = await pieces_of(tiers.llm, way, prompt)
        assert text_of(pieces[-1]) == f"{MODELS[prompt]}: {prompt}"
        for piece in pieces:
            decisions = routing_decisions(piece)
            assert decisions[0] == routing_decision(piece)
            assert decisions[0].path == PATHS[prompt]
            assert {decision.win_rate for decision in decisions} == {float(prompt.split()[0][2:])}
        assert len(tiers.router.prompts) == 1
        # one event for the call, and every decision in the tags of the model's own
        assert events.decisions == [pieces[-1].additional_kwargs["routellm"]]
        ends = events.of("LLMChatEndEvent", "LLMCompletionEndEvent")
        assert {event.tags["routellm"]["id"] for event in ends} == {decisions[0].id}
        assert [event.tags["routellm"] for event in ends] == [pieces[-1].additional_kwargs["routellm"]] * len(ends)


async def test_a_thousand_calls_at_once_have_the_shares_of_all_calls_and_one_router_call(tiers: Tiers) -> None:
    rates = np.random.default_rng(0).permutation((np.arange(1000) + 0.5) / 1000)
    prompts = [f"p={rate:.4f} question {i}" for i, rate in enumerate(rates)]
    found = await asyncio.gather(*(tiers.llm.acomplete(prompt) for prompt in prompts))
    assert Counter(answer.text.split(":")[0] for answer in found) == {"top": 100, "middle": 300, "low": 600}
    assert [len(call) for call in tiers.router.calls] == [1000]
    for answer, rate in zip(found, rates, strict=True):
        decisions = routing_decisions(answer)
        assert [decision.win_rate for decision in decisions] == [pytest.approx(rate, abs=1e-4)] * len(decisions)
        assert len(decisions) == (1 if rate >= 0.9 else 2)


def test_the_inner_model_by_itself_is_what_it_was(tiers: Tiers, events: Recorder) -> None:
    tiers.llm.complete(MIDDLE)
    assert tiers.inner.policy.threshold == pytest.approx(0.7)
    answer = tiers.inner.complete("p=0.65 x")
    assert (answer.text, len(routing_decisions(answer))) == ("low: p=0.65 x", 1)
    assert tiers.llm.weak is tiers.inner
    assert tiers.llm.complete("p=0.65 x").text == "middle: p=0.65 x"
    assert len(events.decisions) == 3


def test_shares_that_cannot_hold_together_are_refused(tiers: Tiers) -> None:
    common: dict[str, Any] = {"router": tiers.router}
    with pytest.raises(ConfigurationError, match=r"strong_fraction=0\.3 .*strong_fraction=0\.8"):
        RouteLLM(strong=tiers.top, weak=tiers.inner, strong_fraction=0.8, **common)
    with pytest.raises(ConfigurationError, match=r"strong_fraction=0\.3 .*strong_fraction=0\.2"):
        RouteLLM(strong=tiers.inner, weak=tiers.low, strong_fraction=0.2, **common)
    with pytest.raises(ConfigurationError, match=r"only 0\.2 of all calls are left"):
        RouteLLM(strong=tiers.top, weak=tiers.llm, strong_fraction=0.7, **common)


class Sum(BaseModel):
    """A sum."""

    value: int


async def test_prompts_and_objects(tiers: Tiers, events: Recorder) -> None:
    prompt = PromptTemplate("Answer: {query_str}")
    for question in (TOP, MIDDLE, LOW):
        tiers.router.calls.clear()
        name = MODELS[question]
        assert tiers.llm.predict(prompt, query_str=question).startswith(name)
        assert (await tiers.llm.apredict(prompt, query_str=question)).startswith(name)
        assert "".join(tiers.llm.stream(prompt, query_str=question)).startswith(name)
        model = getattr(tiers, name)
        for _ in range(2):
            model.reply_next(Reply(tools=[("Sum", {"value": 3})]))
        assert tiers.llm.structured_predict(Sum, prompt, query_str=question) == Sum(value=3)
        assert await tiers.llm.astructured_predict(Sum, prompt, query_str=question) == Sum(value=3)
        assert [len(call) for call in tiers.router.calls] == [1] * 5
    assert len(events.decisions) == 15
    paths = Counter((d["model"], (d["inner"] or {}).get("model")) for d in events.decisions)
    assert paths == {("strong", None): 5, ("weak", "strong"): 5, ("weak", "weak"): 5}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated")  # LlamaIndex's workflows look at it
@pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
@pytest.mark.filterwarnings("ignore:is_running called from within a step")
@pytest.mark.parametrize("prompt", [TOP, MIDDLE, LOW])
async def test_tools_and_agents(tiers: Tiers, prompt: str) -> None:
    tool = FunctionTool.from_defaults(add)
    model = getattr(tiers, MODELS[prompt])
    model.reply_next(Reply(tools=[("add", {"a": 1, "b": 2})]))
    answer = tiers.llm.chat_with_tools([tool], user_msg=prompt)
    # parsed by the model that gave it: the fakes refuse to parse the calls of another
    (call,) = tiers.llm.get_tool_calls_from_response(answer)
    assert (call.tool_id, call.tool_kwargs) == (f"{model.name}-0", {"a": 1, "b": 2})
    model.reply_next(Reply(tools=[("add", {"a": 1, "b": 2})]), "three")
    agent = FunctionAgent(llm=tiers.llm, tools=[tool], streaming=False)
    output: Any = await agent.run(user_msg=prompt)
    assert output.response.content == "three"
    assert routing_decisions(output)[0].path == PATHS[prompt]


@pytest.mark.parametrize("prompt", [TOP, MIDDLE, LOW])
@pytest.mark.parametrize("streaming", [False, True])
def test_query_engines_carry_every_decision(tiers: Tiers, prompt: str, streaming: bool) -> None:
    index = VectorStoreIndex.from_documents([Document(text="context")], embed_model=MockEmbedding(4))
    response = index.as_query_engine(llm=tiers.llm, streaming=streaming).query(prompt)
    assert str(response)
    assert routing_decisions(response)[0].path == PATHS[prompt]
    assert tiers.router.prompts == [prompt]


def test_savings_limits_and_callbacks_count_each_model(tiers: Tiers) -> None:
    limit = SpendLimit(1e9, prices={"strong": Price(1e6, 0), "weak": Price(1e5, 0)})
    inner_limit = SpendLimit(1e9, prices={"strong": Price(1e6, 0), "weak": Price(1e5, 0)})
    tiers = Tiers(limits=[limit], inner_limits=[inner_limit])
    counter = TokenCountingHandler(tokenizer=str.split)
    tiers.llm.callback_manager = CallbackManager([counter])
    root, before = get_dispatcher(), list(get_dispatcher().event_handlers)
    savings = SavingsEventHandler({"top": Price(10, 10), "middle": Price(3, 3), "low": Price(1, 1)})
    root.add_event_handler(savings)
    try:
        for prompt in (TOP, MIDDLE, LOW, LOW):
            tiers.llm.chat(user(prompt))
    finally:
        root.event_handlers = before
    summary = savings.summary()
    assert {name: usage.calls for name, usage in summary.models.items()} == {"top": 1, "middle": 1, "low": 2}
    assert summary.cost == pytest.approx((10 + 3 + 1 + 1) * 15 / 1e6)
    assert summary.cost_always_strong == pytest.approx(40 * 15 / 1e6)
    # ten tokens read by each: the outer limit sees one strong and three weak calls, the inner one its own three
    assert limit.spending() == pytest.approx(10 + 3)
    assert inner_limit.spending() == pytest.approx(10 + 2)
    assert len(counter.llm_token_counts) == 4


@pytest.mark.parametrize("way", WAYS)
async def test_each_level_says_what_its_call_has_cost(way: str) -> None:
    """The outer level pays for all that is answered below it, an answer that a check refused included."""
    prices = {"strong": Price(3, 3), "weak": Price(1, 1)}
    tiers = Tiers(prices=prices, inner_prices=prices, inner_accept=lambda answer: answer.text.startswith("middle"))
    for prompt, costs in ((TOP, [3]), (MIDDLE, [1, 3]), (LOW, [2, 4])):
        answer = (await pieces_of(tiers.llm, way, prompt))[-1]
        assert [d.cost for d in routing_decisions(answer)] == [pytest.approx(15e-6 * cost) for cost in costs]


# --- level by level ---


def test_a_forced_call_goes_all_the_way_and_a_threshold_is_the_outermost_ones(tiers: Tiers) -> None:
    assert tiers.llm.complete(TOP, routellm_force="weak").text == f"low: {TOP}"
    with instrument_tags({"routellm_force": "strong"}):
        assert tiers.llm.complete(LOW).text == f"top: {LOW}"
    assert tiers.router.calls == []
    assert tiers.llm.complete("p=0.55 x", routellm_threshold=0.5).text.startswith("top")
    with instrument_tags({"routellm_threshold": 0.97}):
        answer = tiers.llm.complete("p=0.95 x")
    assert [d.threshold for d in routing_decisions(answer)] == pytest.approx([0.97, 0.6])
    assert answer.text.startswith("middle")


def test_a_conversation_is_known_at_every_level() -> None:
    tiers = Tiers(inner_sticky=True)
    tiers.llm.complete(MIDDLE, routellm_thread_id="1")
    held = routing_decisions(tiers.llm.complete(LOW, routellm_thread_id="1"))
    assert [(d.model, d.reason) for d in held] == [("weak", "win_rate"), ("strong", "sticky")]


def test_a_limit_of_an_inner_level_knows_whose_call_it_is() -> None:
    limit = ShareLimit("user_id", strong_fraction=0.0, window=10)
    tiers = Tiers(inner_limits=[limit])
    mine = [tiers.llm.complete(f"{MIDDLE} {i}", routellm_user_id="42").text.split(":")[0] for i in range(3)]
    assert mine == ["middle", "middle", "low"]
    assert tiers.llm.complete(MIDDLE, routellm_user_id="43").text.startswith("middle")


def test_capability_goes_level_by_level() -> None:
    def path(top: Any, middle: Any, low: Any, ask: Any, **options: Any) -> tuple[str, ...]:
        tiers = Tiers(**options)
        tiers.llm = RouteLLM(
            strong=FakeLLM("top", **top),
            weak=RouteLLM(
                strong=FakeLLM("middle", **middle),
                weak=FakeLLM("low", **low),
                router=tiers.router,
                strong_fraction=0.3,
                weak_profile=options.get("inner_weak_profile"),
            ),
            router=tiers.router,
            strong_fraction=0.1,
            weak_profile=options.get("weak_profile"),
        )
        return routing_decisions(ask(tiers.llm))[0].path

    def tools(llm: RouteLLM) -> Any:
        return llm.chat_with_tools([FunctionTool.from_defaults(add)], user_msg=LOW)

    def long(llm: RouteLLM) -> Any:
        return llm.complete(f"{LOW} {'word ' * 1500}")

    def image(llm: RouteLLM) -> Any:
        blocks = [TextBlock(text=LOW), ImageBlock(image=b"abcd", image_mimetype="image/png")]
        return llm.chat([ChatMessage(role="user", blocks=blocks)])

    lacks, small, sees = {"has_tools": False}, {"window": 1000}, {"image_inputs": True}
    assert path({}, {}, lacks, tools) == ("weak", "strong")
    assert path({}, lacks, lacks, tools) == ("strong",)
    assert path({}, {}, small, long) == ("weak", "strong")
    assert path({}, small, small, long) == ("strong",)
    assert path({}, {}, {}, image) == ("strong",)
    assert path({}, {}, {}, image, weak_profile=sees) == ("weak", "strong")
    assert path({}, {}, {}, image, inner_weak_profile=sees) == ("weak", "weak")


@pytest.mark.parametrize("way", WAYS)
async def test_failover_goes_level_by_level(way: str, events: Recorder) -> None:
    tiers = Tiers(failover=True, inner_failover=True, cooldown=None, inner_cooldown=None)
    tiers.low.reply_next(SurvivableError())
    answer = (await pieces_of(tiers.llm, way, LOW))[-1]
    outer, inner = routing_decisions(answer)
    assert (outer.path, outer.failover, inner.failover) == (("weak", "strong"), None, "weak")
    tiers.low.reply_next(SurvivableError())
    tiers.middle.reply_next(SurvivableError())
    answer = (await pieces_of(tiers.llm, way, LOW))[-1]
    (outer,) = routing_decisions(answer)
    assert (outer.model, outer.failover, outer.detail) == ("strong", "weak", "SurvivableError")
    assert text_of(answer).startswith("top")
    for model in (tiers.low, tiers.middle, tiers.top):
        model.reply_next(SurvivableError())
    with pytest.raises(SurvivableError):
        await pieces_of(tiers.llm, way, LOW)
    # one event a call
    assert [(d["model"], d["failover"]) for d in events.decisions] == [
        ("weak", None),
        ("strong", "weak"),
        ("strong", "weak"),
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_cascades_at_each_level(way: str) -> None:
    tiers = Tiers(inner_accept=lambda answer: answer.text.startswith("middle"))
    outer, inner = routing_decisions((await pieces_of(tiers.llm, way, LOW))[-1])
    assert (outer.path, outer.escalated, inner.escalated) == (("weak", "strong"), False, True)
    tiers = Tiers(accept=lambda answer: answer.text.startswith("top"))
    answer = (await pieces_of(tiers.llm, way, MIDDLE))[-1]
    (outer,) = routing_decisions(answer)
    assert (outer.model, outer.escalated, text_of(answer)) == ("strong", True, f"top: {MIDDLE}")


def test_a_check_sees_the_tools_that_a_nested_model_calls() -> None:
    seen: list[Any] = []
    tiers = Tiers(accept=lambda answer: seen.append(answer) or True)
    tiers.middle.reply_next(Reply(tools=[("add", {"a": 1})]))
    tiers.llm.chat(user(MIDDLE))
    assert seen[0].tool_calls == (("add", {"a": 1}),)


def test_a_nested_model_that_cannot_decide_leaves_one_event(events: Recorder) -> None:
    tiers = Tiers(on_error="weak", inner_on_error="raise")
    tiers.router.error = ValueError("down")
    with pytest.raises(RouterError):
        tiers.llm.complete(LOW)
    assert [(d["model"], d["reason"], d["inner"]) for d in events.decisions] == [("weak", "error", None)]


async def test_a_call_is_logged_once_with_the_model_that_answered(tmp_path: Path) -> None:
    with TrafficLog(f"sqlite:///{tmp_path}/a.db") as log:
        tiers = Tiers(log=log, inner_log=log)
        for way in WAYS:
            for prompt in (TOP, MIDDLE, LOW):
                await pieces_of(tiers.llm, way, prompt)
        with log.database() as database:
            assert len(list(database.calls())) == 3 * len(WAYS)
            given = {(row.side, row.model): (row.answers, row.input_tokens) for row in database.spending()}
    count = len(WAYS)
    assert given == {
        ("strong", "top"): (count, 10 * count),
        ("weak", "middle"): (count, 10 * count),
        ("weak", "low"): (count, 10 * count),
    }


def test_a_shadow_names_the_model_that_answered(tmp_path: Path) -> None:
    with TrafficLog(f"sqlite:///{tmp_path}/a.db") as log:
        tiers = Tiers(log=log, shadow=1.0)
        tiers.llm.complete(TOP)
        log.flush()
        with log.database() as database:
            (pair,) = database.pairs()
    assert (pair.strong.model, pair.weak.model) == ("top", "middle")


def test_pickles_copies_and_dicts(tiers: Tiers) -> None:
    common: dict[str, Any] = {"router": tiers.router}
    inner = RouteLLM(strong=MockLLM(), weak=MockLLM(), strong_fraction=0.3, **common)
    llm = RouteLLM(strong=MockLLM(), weak=inner, strong_fraction=0.1, **common)
    for copied in (pickle.loads(pickle.dumps(llm)), copy.deepcopy(llm), copy.copy(llm)):
        assert routing_decision(copied.complete("p=0.65 x")).path == PATHS[MIDDLE]  # type: ignore[union-attr]
        assert copied.weak.policy.threshold == pytest.approx(0.7)  # type: ignore[union-attr]
    built = RouteLLM(
        strong=FakeLLM("top"),
        weak=RouteLLM(strong=FakeLLM("middle"), weak=FakeLLM("low"), router="random", strong_fraction=0.3),
        router="random",
        strong_fraction=0.1,
    )
    again = RouteLLM.from_dict(built.to_dict())
    assert again._nested["weak"].policy.threshold == built._nested["weak"].policy.threshold


def test_attributes_of_a_span_are_single_values(tiers: Tiers) -> None:
    answer = tiers.llm.complete(MIDDLE)
    attributes = dict(_attributes("routellm", answer.additional_kwargs["routellm"]))
    assert (attributes["routellm.model"], attributes["routellm.inner.model"]) == ("weak", "strong")
    assert all(isinstance(value, str | int | float | bool) for value in attributes.values())
