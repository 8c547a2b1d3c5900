"""Three tiers by nesting, in every way of calling: shares of all calls, one router call, every level's decision."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langchain_routellm import (
    ChatRouteLLM,
    RouteLLMMiddleware,
    RouteLLMRunnable,
    SavingsCallbackHandler,
    routing_decision,
    routing_decisions,
)
from routellm_core import ConfigurationError, Price, ShareLimit, TrafficLog
from tests.support.fakes_langchain import ScriptedChatModel
from tests.support.routers import ScriptedRouter


def evenly(count: int) -> list[str]:
    """Prompts whose win rates are spread evenly, in a random order."""
    rates = np.random.default_rng(0).permutation((np.arange(count) + 0.5) / count)
    return [f"p={rate:.4f} question {i}" for i, rate in enumerate(rates)]


# one prompt for each tier
TOP, MIDDLE, LOW = "p=0.95 prove it", "p=0.7 explain it", "p=0.1 hello"
PATHS = {TOP: ("strong",), MIDDLE: ("weak", "strong"), LOW: ("weak", "weak")}
MODELS = {TOP: "top", MIDDLE: "middle", LOW: "low"}


class Unavailable(Exception):
    status_code = 503


class Tiers:
    """Three models in two routed ones, with one router."""

    def __init__(self, **options: Any) -> None:
        self.router = ScriptedRouter()
        self.top, self.middle, self.low = (ScriptedChatModel(model=name) for name in ("top", "middle", "low"))
        common: dict[str, Any] = {"router": self.router, "cache_size": 0}
        own = {name.removeprefix("inner_"): v for name, v in options.items() if name.startswith("inner_")}
        outer = {name: v for name, v in options.items() if not name.startswith("inner_")}
        self.inner = ChatRouteLLM(strong=self.middle, weak=self.low, **common, **{"strong_fraction": 0.3} | own)
        self.llm = ChatRouteLLM(strong=self.top, weak=self.inner, **common, **{"strong_fraction": 0.1} | outer)


@pytest.fixture
def tiers() -> Tiers:
    return Tiers()


def merged(chunks: list[Any]) -> Any:
    return chunks[0] + chunks[1:]


async def answers(llm: Any, way: str, prompts: list[str]) -> list[Any]:
    if way == "batch":
        return list(llm.batch(prompts))
    if way == "abatch":
        return list(await llm.abatch(prompts))
    if way == "batch_as_completed":
        return [answer for _, answer in sorted(llm.batch_as_completed(prompts), key=lambda item: item[0])]
    if way == "abatch_as_completed":
        found = [item async for item in llm.abatch_as_completed(prompts)]
        return [answer for _, answer in sorted(found, key=lambda item: item[0])]
    if way in ("generate", "agenerate"):
        messages = [[HumanMessage(prompt)] for prompt in prompts]
        result = llm.generate(messages) if way == "generate" else await llm.agenerate(messages)
        return [generations[0].message for generations in result.generations]
    if way == "invoke":
        return [llm.invoke(prompt) for prompt in prompts]
    if way == "gather":
        return list(await asyncio.gather(*(llm.ainvoke(prompt) for prompt in prompts)))
    if way == "ainvoke":
        return [await llm.ainvoke(prompt) for prompt in prompts]
    if way == "stream":
        return [merged(list(llm.stream(prompt))) for prompt in prompts]
    if way == "astream":
        return [merged([chunk async for chunk in llm.astream(prompt)]) for prompt in prompts]
    if way == "stream_events":
        return [llm.stream_events(prompt, version="v3").output for prompt in prompts]
    assert way == "astream_events"
    return [await (await llm.astream_events(prompt, version="v3")).output for prompt in prompts]


BATCHES = ["batch", "abatch", "batch_as_completed", "abatch_as_completed", "generate", "agenerate"]
SINGLES = ["invoke", "ainvoke", "gather", "stream", "astream", "stream_events", "astream_events"]


def check(found: list[Any], prompts: list[str]) -> None:
    """Every answer names the model that gave it, and the decisions that led there, with the win rate of each."""
    for answer, prompt in zip(found, prompts, strict=True):
        win_rate = float(prompt.split()[0][2:])
        decisions = routing_decisions(answer)
        assert decisions[0] == routing_decision(answer)
        assert [decision.win_rate for decision in decisions] == [win_rate] * len(decisions)
        path = ("strong",) if win_rate >= 0.9 else ("weak", "strong" if win_rate >= 0.6 else "weak")
        assert decisions[0].path == path
        name = {("strong",): "top", ("weak", "strong"): "middle", ("weak", "weak"): "low"}[path]
        assert answer.response_metadata["model_name"] == name
        assert answer.text == f"{name} answers: {prompt}"


@pytest.mark.parametrize("way", BATCHES)
async def test_a_batch_has_the_shares_of_all_calls_and_one_router_call(tiers: Tiers, way: str) -> None:
    count = 1000 if way in ("batch", "abatch") else 100
    prompts = evenly(count)
    found = await answers(tiers.llm, way, prompts)
    check(found, prompts)
    models = Counter(answer.response_metadata["model_name"] for answer in found)
    assert models == {"top": count / 10, "middle": count * 3 / 10, "low": count * 6 / 10}
    assert [len(call) for call in tiers.router.calls] == [count]


@pytest.mark.parametrize("way", SINGLES)
async def test_a_call_asks_the_router_once(tiers: Tiers, way: str) -> None:
    prompts = [TOP, MIDDLE, LOW]
    check(await answers(tiers.llm, way, prompts), prompts)
    assert sorted(tiers.router.prompts) == sorted(prompts)


async def test_a_stream_carries_each_decision_once(tiers: Tiers) -> None:
    chunks = list(tiers.llm.stream(MIDDLE))
    assert ["routellm" in chunk.response_metadata for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
    assert merged(chunks).response_metadata["routellm"] == chunks[0].response_metadata["routellm"]


def test_the_inner_model_by_itself_is_what_it_was(tiers: Tiers) -> None:
    tiers.llm.batch(evenly(20))  # type: ignore[arg-type]
    assert tiers.inner.policy.threshold == pytest.approx(0.7)
    answer = tiers.inner.invoke("p=0.65 x")
    assert (answer.response_metadata["model_name"], len(routing_decisions(answer))) == ("low", 1)
    assert tiers.llm.weak is tiers.inner
    assert tiers.llm.invoke("p=0.65 x").response_metadata["model_name"] == "middle"


def test_shares_that_cannot_hold_together_are_refused(tiers: Tiers) -> None:
    common: dict[str, Any] = {"router": tiers.router}
    with pytest.raises(ConfigurationError, match=r"strong_fraction=0\.3 .*strong_fraction=0\.8"):
        ChatRouteLLM(strong=tiers.top, weak=tiers.inner, strong_fraction=0.8, **common)
    with pytest.raises(ConfigurationError, match=r"strong_fraction=0\.3 .*strong_fraction=0\.2"):
        RouteLLMRunnable(strong=tiers.inner.with_retry(), weak=tiers.low, strong_fraction=0.2, **common)
    with pytest.raises(ConfigurationError, match=r"only 0\.2 of all calls are left"):  # three levels deep
        ChatRouteLLM(strong=tiers.top, weak=tiers.llm, strong_fraction=0.7, **common)
    for weak, share in ((tiers.inner, 0.8), (tiers.llm, 0.7)):
        with pytest.raises(ConfigurationError, match="are left for the inner one"):
            RouteLLMMiddleware(strong=tiers.top, weak=weak, strong_fraction=share, **common)


@pytest.mark.parametrize("around", ["retry", "binding", "fallbacks", "config"])
async def test_what_stands_around_the_inner_model_changes_nothing(tiers: Tiers, around: str) -> None:
    inner: Any = {  # type: ignore[operator]
        "retry": tiers.inner.with_retry,
        "binding": lambda: tiers.inner.bind(stop=["never"]),
        "fallbacks": lambda: tiers.inner.with_fallbacks([tiers.low]),
        "config": lambda: tiers.inner.with_config(tags=["mine"]),
    }[around]()
    llm = ChatRouteLLM(strong=tiers.top, weak=inner, router=tiers.router, strong_fraction=0.1, cache_size=0)
    for way in ("batch", "abatch", "invoke", "ainvoke", "stream", "astream"):
        tiers.router.calls.clear()
        check(await answers(llm, way, [TOP, MIDDLE, LOW]), [TOP, MIDDLE, LOW])
        assert len(tiers.router.prompts) == 3


async def test_runnables_as_sides(tiers: Tiers) -> None:
    common: dict[str, Any] = {"router": tiers.router, "cache_size": 0}
    inner = RouteLLMRunnable(strong=tiers.middle, weak=tiers.low, strong_fraction=0.3, **common)
    chain = RouteLLMRunnable(strong=tiers.top, weak=inner, strong_fraction=0.1, **common)
    for way in ("batch", "abatch", "invoke", "ainvoke", "stream", "astream", "batch_as_completed"):
        tiers.router.calls.clear()
        check(await answers(chain, way, [TOP, MIDDLE, LOW]), [TOP, MIDDLE, LOW])
        assert len(tiers.router.prompts) == 3
    texts = RouteLLMRunnable(
        strong=tiers.top | StrOutputParser(),
        weak=RouteLLMRunnable(strong=lambda x: "middle", weak=lambda x: "low", strong_fraction=0.3, **common),
        strong_fraction=0.1,
        **common,
    )
    assert texts.batch([MIDDLE, LOW]) == ["middle", "low"]


class Sum(BaseModel):
    """A sum."""

    a: int
    b: int


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output(tiers: Tiers, method: str) -> None:
    structured = tiers.llm.with_structured_output(Sum, include_raw=True, method=method)
    for prompt in (TOP, MIDDLE, LOW):
        tiers.router.calls.clear()
        found = [structured.invoke(prompt), await structured.ainvoke(prompt), structured.batch([prompt])[0]]
        found.append(next(chunk for chunk in structured.stream(prompt) if "raw" in chunk))
        for answer in found:
            assert routing_decisions(answer)[0].path == PATHS[prompt]
        assert isinstance(found[0]["parsed"], Sum)
        assert [len(call) for call in tiers.router.calls] == [1, 1, 1, 1]
    assert isinstance(tiers.llm.with_structured_output(Sum, method=method).invoke(LOW), Sum)


def test_a_level_gives_structured_output_as_a_level(tiers: Tiers) -> None:
    """What other middleware of an agent may ask of a model that is a side of a `RouteLLMMiddleware`."""
    level = tiers.llm._dispatch.weak
    structured = level.with_structured_output(Sum)  # type: ignore[attr-defined]
    assert (level._routing.level, structured._routing.level) == (1, 1)  # type: ignore[attr-defined]
    assert structured.policy is level.policy  # type: ignore[attr-defined]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_tools(tiers: Tiers) -> None:
    bound = tiers.llm.bind_tools([add])
    for prompt in (TOP, MIDDLE, LOW):
        for answer in (bound.invoke(prompt), await bound.ainvoke(prompt), merged(list(bound.stream(prompt)))):
            assert routing_decisions(answer)[0].path == PATHS[prompt]
            assert answer.tool_calls[0]["name"] == "add"


@pytest.mark.parametrize("kind", ["model", "run", "call"])
async def test_agents(tiers: Tiers, kind: Any) -> None:
    if kind == "model":
        agent = create_agent(model=tiers.llm, tools=[add])
    else:
        common: dict[str, Any] = {"router": tiers.router, "cache_size": 0, "strong_fraction": 0.1}
        middleware = RouteLLMMiddleware(strong=tiers.top, weak=tiers.inner, scope=kind, **common)
        agent = create_agent(model=tiers.low, tools=[add], middleware=[middleware])
    for prompt in (TOP, MIDDLE, LOW):
        for is_async in (False, True):
            given: Any = {"messages": [HumanMessage(prompt)]}
            state = await agent.ainvoke(given) if is_async else agent.invoke(given)
            said = [message for message in state["messages"] if isinstance(message, AIMessage)]
            assert len(said) == 2
            for message in said:
                assert routing_decisions(message)[0].path == PATHS[prompt]
                assert message.response_metadata["model_name"] == MODELS[prompt]
            if kind != "model":
                assert routing_decisions(state)[0].path == PATHS[prompt]


class Runs(BaseCallbackHandler):
    """What the model runs of a call have in their metadata."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, metadata: Any = None, **kwargs: Any) -> None:
        self.found.append(metadata)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch", "stream", "astream"])
async def test_traces_have_one_model_run_with_every_decision(tiers: Tiers, way: str) -> None:
    runs = Runs()
    (answer,) = await answers(tiers.llm.with_config(callbacks=[runs]), way, [MIDDLE])
    (metadata,) = runs.found
    assert metadata["ls_model_name"] == "middle"
    assert metadata["routellm"] == answer.response_metadata["routellm"]


def test_a_model_with_callbacks_of_its_own_is_told_of_every_level(tiers: Tiers) -> None:
    runs = Runs()
    tiers.middle.callbacks = [runs]
    answer = tiers.llm.invoke(MIDDLE)
    assert runs.found[0]["routellm"] == answer.response_metadata["routellm"]


@pytest.mark.parametrize("way", ["batch", "stream", "agents"])
async def test_savings_count_each_model_by_its_name_and_price(tiers: Tiers, way: str) -> None:
    savings = SavingsCallbackHandler({"top": Price(10, 10), "middle": Price(3, 3), "low": Price(1, 1)})
    prompts = [TOP, MIDDLE, LOW, LOW]
    if way == "agents":
        middleware = RouteLLMMiddleware(
            strong=tiers.top, weak=tiers.inner, router=tiers.router, strong_fraction=0.1, cache_size=0
        )
        agent = create_agent(model=tiers.low, middleware=[middleware])
        for prompt in prompts:
            await agent.ainvoke({"messages": [HumanMessage(prompt)]}, {"callbacks": [savings]})
    else:
        await answers(tiers.llm.with_config(callbacks=[savings]), way, prompts)
    summary = savings.summary()
    assert {name: usage.calls for name, usage in summary.models.items()} == {"top": 1, "middle": 1, "low": 2}
    assert (summary.strong.calls, summary.weak.calls) == (1, 3)
    tokens = {name: usage.input_tokens + usage.output_tokens for name, usage in summary.models.items()}
    assert summary.cost == pytest.approx((10 * tokens["top"] + 3 * tokens["middle"] + tokens["low"]) / 1e6)
    assert summary.cost_always_strong == pytest.approx(10 * sum(tokens.values()) / 1e6)


PRICES = {"top": Price(10, 10), "middle": Price(3, 3), "low": Price(1, 1)}


@pytest.mark.parametrize("way", [*BATCHES, *SINGLES])
async def test_each_level_says_what_its_call_has_cost(way: str) -> None:
    """The outer level pays for all that is answered below it, an answer that a check refused included."""
    both = Tiers(prices=PRICES, inner_prices=PRICES, inner_accept=lambda answer: answer.text.startswith("middle"))
    for prompt, priced in ((TOP, ["top"]), (MIDDLE, ["middle"]), (LOW, ["low", "middle"])):
        (answer,) = await answers(both.llm, way, [prompt])
        tokens = answer.usage_metadata["total_tokens"]
        expected = sum(PRICES[name].cost(tokens, 0) for name in priced)
        assert [d.cost for d in routing_decisions(answer)] == [pytest.approx(expected)] * len(PATHS[prompt])
    for options, where in (({"prices": PRICES}, [True, False]), ({"inner_prices": PRICES}, [False, True])):
        (answer,) = await answers(Tiers(**options).llm, way, [MIDDLE])
        assert [d.cost is not None for d in routing_decisions(answer)] == where


# --- level by level ---


async def test_a_forced_call_goes_all_the_way_and_a_threshold_is_the_outermost_ones(tiers: Tiers) -> None:
    def configured(**settings: Any) -> Any:
        return {"configurable": settings}

    answer = tiers.llm.invoke(TOP, configured(routellm_force="weak"))
    assert (answer.response_metadata["model_name"], routing_decision(answer).path) == ("low", ("weak", "weak"))  # type: ignore[union-attr]
    assert tiers.router.calls == []
    assert tiers.llm.invoke(LOW, configured(routellm_force="strong")).response_metadata["model_name"] == "top"
    answers = await tiers.llm.abatch(["p=0.55 x", "p=0.45 x"], configured(routellm_threshold=0.5))
    assert [a.response_metadata["model_name"] for a in answers] == ["top", "low"]
    answer = tiers.llm.invoke("p=0.95 x", configured(routellm_threshold=0.97))
    assert [d.threshold for d in routing_decisions(answer)] == pytest.approx([0.97, 0.6])


async def test_capability_goes_level_by_level() -> None:
    image = HumanMessage([{"type": "text", "text": LOW}, {"type": "image", "url": "data:image/png;base64,AAAA"}])
    plain, seeing = {"image_inputs": False}, {"image_inputs": True}

    def answered(top: Any, middle: Any, low: Any, **options: Any) -> tuple[str, ...]:
        tiers = Tiers(**options)
        models = {"top": (tiers.top, top), "middle": (tiers.middle, middle), "low": (tiers.low, low)}
        for model, profile in models.values():
            model.profile = profile
        decisions = routing_decisions(tiers.llm.invoke([image]))
        return (*decisions[0].path, *(d.reason for d in decisions))

    # the weak side as a whole can see, by its middle model
    assert answered(seeing, seeing, plain) == ("weak", "strong", "win_rate", "capability")
    assert answered(seeing, plain, plain) == ("strong", "capability")
    assert answered(seeing, plain, None) == ("weak", "weak", "win_rate", "win_rate")
    assert answered(seeing, plain, plain, inner_weak_profile=seeing) == ("weak", "weak", "win_rate", "win_rate")


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch", "abatch", "stream", "astream", "generate"])
async def test_failover_goes_level_by_level(way: str) -> None:
    tiers = Tiers(failover=True, inner_failover=True, cooldown=None, inner_cooldown=None)
    tiers.low.error = Unavailable()
    (answer,) = await answers(tiers.llm, way, [LOW])
    outer, inner = routing_decisions(answer)
    assert (outer.path, outer.failover, inner.failover) == (("weak", "strong"), None, "weak")
    tiers.middle.error = Unavailable()
    (answer,) = await answers(tiers.llm, way, [LOW])
    (outer,) = routing_decisions(answer)
    assert (outer.model, outer.failover, outer.detail) == ("strong", "weak", "Unavailable")
    tiers.top.error = Unavailable()
    with pytest.raises(Unavailable):
        await answers(tiers.llm, way, [LOW])


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch", "stream", "astream"])
async def test_cascades_at_each_level(way: str) -> None:
    tiers = Tiers(inner_accept=lambda answer: answer.text.startswith("middle"))
    (answer,) = await answers(tiers.llm, way, [LOW])
    outer, inner = routing_decisions(answer)
    assert (outer.path, outer.escalated, inner.escalated) == (("weak", "strong"), False, True)
    # one check of what the weak side as a whole answers
    tiers = Tiers(accept=lambda answer: answer.text.startswith("top"))
    (answer,) = await answers(tiers.llm, way, [MIDDLE])
    (outer,) = routing_decisions(answer)
    assert (outer.model, outer.escalated, answer.text) == ("strong", True, f"top answers: {MIDDLE}")


def test_limits_and_stickiness_of_each_level() -> None:
    tiers = Tiers(limits=[ShareLimit("user_id", strong_fraction=0.0, window=10)], inner_sticky=True)
    config: Any = {"configurable": {"thread_id": "1", "user_id": "42"}}
    first = [routing_decisions(tiers.llm.invoke(TOP, config)) for _ in range(3)][-1]
    assert [(d.model, d.reason) for d in first] == [("weak", "limit"), ("strong", "win_rate")]
    held = routing_decisions(tiers.llm.invoke(LOW, config))
    assert [(d.model, d.reason) for d in held] == [("weak", "win_rate"), ("strong", "sticky")]


def test_a_router_that_fails_is_asked_once() -> None:
    tiers = Tiers(on_error="weak", inner_on_error="strong")
    tiers.router.error = ValueError("down")
    decisions = routing_decisions(tiers.llm.invoke(LOW))
    assert [(d.model, d.reason, d.error) for d in decisions] == [
        ("weak", "error", "ValueError"),
        ("strong", "error", "ValueError"),
    ]
    assert len(tiers.router.calls) == 1


def test_a_conversation_goes_back_to_the_model_that_gave_it(tiers: Tiers) -> None:
    """Answers without a human turn stay where they were, at every level."""
    answer = tiers.llm.invoke(MIDDLE)
    summary = HumanMessage("Here is a summary of the conversation to date: ...", additional_kwargs={"lc_source": "s"})
    again = routing_decisions(tiers.llm.invoke([summary, answer]))
    assert [(d.model, d.reason) for d in again] == [("weak", "sticky"), ("strong", "sticky")]


@pytest.mark.parametrize("own_log", [False, True])
async def test_a_call_is_logged_once_with_the_model_that_answered(tmp_path: Any, own_log: bool) -> None:
    with TrafficLog(f"sqlite:///{tmp_path}/a.db") as log, TrafficLog(f"sqlite:///{tmp_path}/b.db") as other:
        tiers = Tiers(log=log, inner_log=other if own_log else log)
        prompts = [TOP, MIDDLE, LOW]
        for way in ("invoke", "ainvoke", "batch", "abatch", "stream", "astream"):
            await answers(tiers.llm, way, prompts)
        with log.database() as database:
            calls = list(database.calls())
            given = {(row.side, row.model): row.answers for row in database.spending()}
        assert len(calls) == 18
        assert given == {("strong", "top"): 6, ("weak", "middle"): 6, ("weak", "low"): 6}
        with other.database() as database:
            assert Counter(call.side for call in database.calls()) == ({"strong": 6, "weak": 6} if own_log else {})


async def test_a_shadow_names_the_model_that_answered(tmp_path: Any) -> None:
    with TrafficLog(f"sqlite:///{tmp_path}/a.db") as log:
        runs = Runs()
        tiers = Tiers(log=log, inner_log=log, shadow=1.0)
        await tiers.llm.with_config(callbacks=[runs]).ainvoke(TOP)
        await log.aflush()
        with log.database() as database:
            (pair,) = database.pairs()
        assert len(list(runs.found)) == 1
    assert (pair.strong.model, pair.weak.model) == ("top", "middle")


def test_a_routed_model_inside_of_a_chain_tells_its_decision_too(tiers: Tiers) -> None:
    chain = RouteLLMRunnable(
        strong=tiers.top, weak=RunnableLambda(str) | tiers.inner, router=tiers.router, threshold=0.9
    )
    decisions = routing_decisions(chain.invoke(MIDDLE))
    assert [(d.model, d.threshold) for d in decisions] == [("weak", 0.9), ("strong", pytest.approx(0.7))]


async def test_side_answers_that_are_no_messages_are_told_of_in_the_runs_below(tiers: Tiers) -> None:
    seen: list[Any] = []

    def look(value: str, config: Any) -> str:
        seen.append(config["callbacks"].metadata["routellm"])
        return "done"

    common: dict[str, Any] = {"router": tiers.router}
    inner = RouteLLMRunnable(strong=RunnableLambda(look), weak=RunnableLambda(look), strong_fraction=0.3, **common)
    outer = RouteLLMRunnable(strong=tiers.top, weak=inner, strong_fraction=0.1, **common)
    assert await outer.ainvoke(MIDDLE) == "done"
    assert (seen[0]["model"], seen[0]["inner"]["model"]) == ("weak", "strong")
