"""log= and shadow= of the LangChain adapter: what is written, and that nothing of a shadow call is seen anywhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import dynamic_prompt
from langchain.agents.structured_output import ToolStrategy
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langsmith.run_helpers import get_tracing_context
from pydantic import BaseModel

from langchain_routellm import RouteLLMMiddleware, RouteLLMRunnable, SavingsCallbackHandler, routing_decision
from routellm_core import Price, Shadow, TrafficLog
from routellm_core.errors import ConfigurationError
from tests.langchain.conftest import Pair, Recorder
from tests.support.fakes_langchain import ScriptedChatModel
from tests.support.traffic import Log

WEAK, STRONG = "p=0.1 say hello", "p=0.9 say hello"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(f"sqlite:///{tmp_path}/traffic.db") as log:
        yield log


def _consume(stream: Any) -> Any:
    total = None
    for chunk in stream:
        total = chunk if total is None else total + chunk
    return total


async def _aconsume(stream: Any) -> None:
    async for _ in stream:
        pass


async def _asynced(llm: Any, prompt: str, how: str) -> None:
    if how == "ainvoke":
        await llm.ainvoke(prompt)
    elif how == "astream":
        await _aconsume(llm.astream(prompt))
    elif how == "abatch":
        await llm.abatch([prompt])
    elif how == "agenerate":
        await llm.agenerate([[HumanMessage(prompt)]])
    else:
        async with await llm.astream_events(prompt, version="v3") as stream:
            await _aconsume(stream)


WAYS: dict[str, Callable[[Any, str], Any]] = {
    "invoke": lambda llm, prompt: llm.invoke(prompt),
    "stream": lambda llm, prompt: _consume(llm.stream(prompt)),
    "batch": lambda llm, prompt: llm.batch([prompt]),
    "batch_as_completed": lambda llm, prompt: list(llm.batch_as_completed([prompt])),
    "generate": lambda llm, prompt: llm.generate([[HumanMessage(prompt)]]),
    "stream_events": lambda llm, prompt: list(llm.stream_events(prompt, version="v3")),
}
ASYNC_WAYS = ["ainvoke", "astream", "abatch", "agenerate", "astream_events"]


async def _call(llm: Any, prompt: str, way: str, log: TrafficLog) -> None:
    if way in WAYS:
        await asyncio.to_thread(WAYS[way], llm, prompt)
    else:
        await _asynced(llm, prompt, way)
    assert await log.aflush()


@pytest.mark.parametrize("way", [*WAYS, *ASYNC_WAYS])
@pytest.mark.parametrize("shadow", [0.0, 1.0])
async def test_each_way_of_calling_leaves_a_row(pair: Pair, log: Log, way: str, shadow: float) -> None:
    seen = Recorder()
    llm = pair.llm(log=log, shadow=shadow, callbacks=[seen])
    await _call(llm, WEAK, way, log)
    (outcome,) = log.outcomes()
    call, answer = outcome.call, outcome.answers["weak"]
    assert (call.prompt, call.side, call.reason, call.win_rate) == (WEAK, "weak", "win_rate", 0.1)
    assert (call.p_strong, call.p_shadow) == (0.0, shadow)
    assert call.router.startswith("scripted:")
    assert (answer.text, answer.model, answer.kind) == (f"weak-model answers: {WEAK}", "weak-model", "routed")
    assert (answer.input_tokens, answer.output_tokens) == (3, 5)
    assert answer.latency is not None
    assert answer.latency > 0
    if shadow:
        other = outcome.answers["strong"]
        assert (other.text, other.model, other.kind) == (f"strong-model answers: {WEAK}", "strong-model", "shadow")
        assert (other.input_tokens, other.output_tokens) == (3, 5)
    assert len(outcome.answers) == 1 + bool(shadow)
    assert len(pair.strong.calls) == bool(shadow)
    assert len(pair.weak.calls) == 1


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_the_calls_of_a_batch_have_no_latency(pair: Pair, log: Log, way: str) -> None:
    """Their answers come together: the seconds of the whole batch are those of none of them."""
    llm = pair.llm(log=log)
    prompts: list[Any] = [WEAK, STRONG, f"{WEAK} again"]
    await (asyncio.to_thread(llm.batch, prompts) if way == "batch" else llm.abatch(prompts))
    assert await log.aflush()
    answers = [answer for outcome in log.outcomes() for answer in outcome.answers.values()]
    assert [answer.latency for answer in answers] == [None] * 3
    with log.database() as database:
        assert database.summary().sides["weak"].latency is None


async def test_the_row_has_the_ids_of_the_runs(pair: Pair, log: Log) -> None:
    class Ids(BaseCallbackHandler):
        def __init__(self) -> None:
            self.runs: list[tuple[str, str, str | None]] = []

        def on_chain_start(self, *_: Any, run_id: Any, parent_run_id: Any = None, **__: Any) -> None:
            self.runs.append(("chain", str(run_id), parent_run_id and str(parent_run_id)))

        def on_chat_model_start(self, *_: Any, run_id: Any, parent_run_id: Any = None, **__: Any) -> None:
            self.runs.append(("model", str(run_id), parent_run_id and str(parent_run_id)))

    ids = Ids()
    (pair.llm(log=log) | RunnableLambda(lambda m: m)).invoke(WEAK, {"callbacks": [ids]})
    (outcome,) = log.outcomes()
    (model,) = [run for run in ids.runs if run[0] == "model"]
    assert outcome.call.run_id == model[1]
    assert outcome.call.parent_run_id == model[2]
    # feedback that came with the id of the model's run finds the call
    log.feedback(model[1], 0.25)
    assert log.outcomes()[0].scores == {"weak": 0.25}


def test_feedback_by_the_decision_of_an_answer(pair: Pair, log: Log) -> None:
    answer = pair.llm(log=log).invoke(STRONG)
    decision = routing_decision(answer)
    assert decision is not None
    log.feedback(decision.id, 1.0)
    (outcome,) = log.outcomes()
    assert (outcome.call.id, outcome.scores) == (decision.id, {"strong": 1.0})


async def test_nothing_of_a_shadow_reaches_callbacks_usage_or_traces(pair: Pair, log: Log) -> None:
    on_model, on_wrapper, on_call = Recorder(), Recorder(), Recorder()
    traced: list[Any] = []

    def reply(messages: list[Any]) -> str:
        traced.append(get_tracing_context()["enabled"])
        return "strong"

    pair.strong = ScriptedChatModel(model="strong-model", callbacks=[on_model], reply=reply, verbose=True)
    savings = SavingsCallbackHandler({"strong": Price(2, 8), "weak": Price(0.4, 1.6)})
    llm = pair.llm(log=log, shadow=1.0, callbacks=[on_wrapper])
    with get_usage_metadata_callback() as usage:
        for _ in range(3):
            llm.invoke(WEAK, {"callbacks": [on_call, savings]})
            await llm.ainvoke(WEAK, {"callbacks": [on_call, savings]})
        await log.aflush()
    assert len(log.pairs()) == 6
    assert len(pair.strong.calls) == 6
    assert traced == [False] * 6
    assert on_model.events == []
    for recorder in (on_wrapper, on_call):
        assert "strong-model" not in repr(recorder.events)
        assert sum("chat_model_start" in repr(event) for event in recorder.events) in (0, 6)
    assert list(usage.usage_metadata) == ["weak-model"]
    assert savings.summary().strong.calls == 0


def test_a_thousand_calls_wait_for_no_shadow_that_hangs(pair: Pair, log: Log) -> None:
    release = threading.Event()

    def reply(messages: list[Any]) -> str:
        release.wait()
        return "late"

    pair.strong = ScriptedChatModel(model="strong-model", reply=reply)
    llm = pair.llm(log=log, shadow=Shadow(1.0, concurrency=2))
    try:
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda i: llm.invoke(f"{WEAK} {i}"), range(1000)))
        assert len(answers) == 1000  # and none of them has waited: no shadow has ended yet
        assert len(pair.strong.calls) <= 4
    finally:
        release.set()


async def test_a_thousand_tasks_wait_for_no_shadow(pair: Pair, log: Log) -> None:
    pair.strong = ScriptedChatModel(model="strong-model", delay=1000.0)
    llm = pair.llm(log=log, shadow=1.0)
    answers = await asyncio.gather(*(llm.ainvoke(f"{WEAK} {i}") for i in range(1000)))
    assert len({answer.text for answer in answers}) == 1000
    assert len(pair.strong.calls) <= 4  # so many run at once
    assert await asyncio.to_thread(log._writer.flush)
    with log.database() as database:
        summary = database.summary()
    assert (summary.calls, summary.pairs) == (1000, 0)


def test_a_shadow_without_a_model_run_has_the_tokens_that_its_answer_states(pair: Pair, log: Log) -> None:
    used = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    client = RunnableLambda(lambda _: AIMessage("from a client", usage_metadata=used))
    prices = {"strong": Price(1, 2)}
    routed = RouteLLMRunnable(
        strong=client, weak=pair.weak, threshold=0.7, router=pair.router, log=log, shadow=1.0, prices=prices
    )
    routed.invoke(WEAK)
    (outcome,) = log.outcomes()
    other = outcome.answers["strong"]
    assert (other.kind, other.input_tokens, other.output_tokens, other.cost) == ("shadow", 3, 5, Price(1, 2).cost(3, 5))


def test_a_shadow_that_fails_is_written_down_and_fails_nothing(pair: Pair, log: Log) -> None:
    pair.strong = ScriptedChatModel(model="strong-model", error=TimeoutError("secret prompt"))
    assert pair.llm(log=log, shadow=1.0).invoke(WEAK).text == f"weak-model answers: {WEAK}"
    (outcome,) = log.outcomes()
    assert (outcome.answers["strong"].error, outcome.answers["strong"].text) == ("TimeoutError", None)
    assert log.pairs() == []


@pytest.mark.parametrize("how", ["invoke", "stream", "batch"])
def test_a_call_that_fails_is_written_down_and_has_no_shadow(pair: Pair, log: Log, how: str) -> None:
    pair.weak = ScriptedChatModel(model="weak-model", error=TimeoutError("no"))
    with pytest.raises(TimeoutError):
        WAYS[how](pair.llm(log=log, shadow=1.0), WEAK)
    (outcome,) = log.outcomes()
    assert {side: answer.error for side, answer in outcome.answers.items()} == {"weak": "TimeoutError"}
    assert pair.strong.calls == []


def test_after_a_failover_the_side_that_answered_is_logged(pair: Pair, log: Log) -> None:
    pair.weak = ScriptedChatModel(model="weak-model", error=TimeoutError("no"))
    pair.llm(log=log, shadow=1.0, failover=True).invoke(WEAK)
    (outcome,) = log.outcomes()
    assert (outcome.call.side, outcome.call.failover, outcome.call.p_shadow) == ("strong", "weak", 0.0)
    assert list(outcome.answers) == ["strong"]


def test_a_stream_that_is_left_has_no_pair(pair: Pair, log: Log) -> None:
    stream = pair.llm(log=log, shadow=1.0).stream(WEAK)
    next(stream)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    (outcome,) = log.outcomes()
    assert outcome.answers["weak"].error == "GeneratorExit"
    assert pair.strong.calls == []


def test_the_shadow_reads_the_request_as_it_was(pair: Pair, log: Log) -> None:
    gate = threading.Event()
    pair.strong = ScriptedChatModel(model="strong-model", reply=lambda messages: (gate.wait(60) and "yes") or "no")
    messages: list[Any] = [HumanMessage(WEAK)]
    messages.append(pair.llm(log=log, shadow=1.0).invoke(messages, stop=["x"]))
    gate.set()
    log.flush()
    assert [m.text for m in pair.strong.calls[0]["messages"]] == [WEAK]
    assert pair.strong.calls[0]["stop"] == ["x"]


def test_calls_that_were_forced_have_no_shadow(pair: Pair, log: Log) -> None:
    pair.llm(log=log, shadow=1.0).invoke(WEAK, {"configurable": {"routellm_force": "strong", "thread_id": "7"}})
    (outcome,) = log.outcomes()
    assert (outcome.call.reason, outcome.call.p_shadow) == ("forced", 0.0)
    assert outcome.call.conversation is not None
    assert pair.weak.calls == []


def test_the_log_of_a_dead_database_costs_no_call(pair: Pair, tmp_path: Path, caplog: Any) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    log = TrafficLog(f"sqlite:///{place}/traffic.db", flush_seconds=0.01)
    place.rmdir()
    llm = pair.llm(log=log, shadow=1.0)
    for _ in range(20):
        assert llm.invoke(WEAK).text
    log.close()
    assert sum("calls go on" in record.message for record in caplog.records) == 1


# --- chains and other runnables ---


def test_a_chain_is_logged_with_what_its_models_used(pair: Pair, log: Log) -> None:
    seen = Recorder()
    pair.strong = ScriptedChatModel(model="strong-model", callbacks=[seen])
    text = RunnableLambda(lambda message: message.text)
    chain = RouteLLMRunnable(
        strong=pair.strong | text, weak=pair.weak | text, threshold=0.7, router=pair.router, log=log, shadow=1.0
    )
    assert chain.invoke({"question": WEAK} and WEAK) == f"weak-model answers: {WEAK}"
    (made,) = log.pairs()
    for answer, name in ((made.strong, "strong-model"), (made.weak, "weak-model")):
        assert (answer.text, answer.model) == (f"{name} answers: {WEAK}", name)
        assert (answer.input_tokens, answer.output_tokens) == (3, 5)
    assert seen.events == []


def test_structured_output_is_logged_as_json(pair: Pair, log: Log) -> None:
    class Sum(BaseModel):
        a: int

    llm = pair.llm(log=log, shadow=1.0).with_structured_output(Sum)
    assert llm.invoke("p=0.1 take 4") == Sum(a=0)
    (made,) = log.pairs()
    assert made.weak.text == made.strong.text == '{"a": 0}'
    assert made.strong.model == "strong-model"


def test_a_side_that_acts_is_refused_for_shadows(pair: Pair, log: Log) -> None:
    agent = create_agent(model=pair.strong, tools=[])
    with pytest.raises(ConfigurationError, match="the strong side holds a CompiledStateGraph, which does more"):
        RouteLLMRunnable(strong=agent, weak=pair.weak, threshold=0.5, router=pair.router, log=log, shadow=0.1).invoke(
            "a"
        )
    with pytest.raises(ConfigurationError, match="the weak side holds a StructuredTool"):
        RouteLLMRunnable(
            strong=pair.strong, weak=RunnableLambda(str) | add, threshold=0.5, router=pair.router, log=log, shadow=0.1
        )
    assert RouteLLMRunnable(strong=agent, weak=pair.weak, threshold=0.5, router=pair.router, log=log)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shadow": 0.1}, r"shadow=0.1 needs a log .* log=TrafficLog"),
        ({"log": "traffic.db"}, r"log='traffic.db': expected a TrafficLog"),
        ({"shadow": "much"}, "shadow='much': expected a number between 0 and 1"),
        ({"shadow": 1.5}, "shadow=1.5: expected a number between 0 and 1"),
    ],
)
def test_options_that_cannot_be(pair: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(
        ConfigurationError, match=message.split(":")[0] if "log" in options and "shadow" in options else message
    ):
        pair.llm(**options)


# --- agents ---

ran: list[int] = []


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    ran.append(a + b)
    return f"p=0.0 {a + b}"


def _agent(pair: Pair, scope: str, log: TrafficLog, middleware: list[Any] | None = None, **options: Any) -> Any:
    routing = RouteLLMMiddleware(
        strong=pair.strong,
        weak=pair.weak,
        scope=scope,  # type: ignore[arg-type]
        threshold=0.7,
        router=pair.router,
        log=log,
        shadow=1.0,
    )
    unused = ScriptedChatModel(model="unused", error=AssertionError("never called"))
    return create_agent(model=unused, tools=[add], middleware=[routing, *(middleware or [])], **options)


@dynamic_prompt
def _late_prompt(request: Any) -> str:
    return "Be brief."


@pytest.mark.parametrize("scope", ["run", "call"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_agent(pair: Pair, log: Log, scope: str, is_async: bool) -> None:
    ran.clear()
    seen = Recorder()
    pair.strong = ScriptedChatModel(model="strong-model", callbacks=[seen])
    agent = _agent(pair, scope, log, [_late_prompt], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    question = {"messages": [("user", "p=0.1 add 2 and 3")]}
    out = await agent.ainvoke(question, config) if is_async else agent.invoke(question, config)
    await log.aflush()
    # nothing of the shadow in the answer, the history or the callbacks, and the tool has run once
    assert [m.type for m in out["messages"]] == ["human", "ai", "tool", "ai"]
    assert [m.type for m in agent.get_state(config).values["messages"]] == ["human", "ai", "tool", "ai"]
    assert len(list(agent.get_state_history(config))) > 0
    assert len(ran) == 1
    assert seen.events == []
    first, second = log.pairs()
    decisions = [routing_decision(m) for m in out["messages"] if m.type == "ai"]
    if scope == "run":
        assert second.call.id == f"{first.call.id}-1"
        assert {decision.id for decision in decisions if decision} == {first.call.id}
    else:
        assert [decision.id for decision in decisions if decision] == [first.call.id, second.call.id]
    assert first.call.conversation == second.call.conversation is not None
    assert first.call.prompt == second.call.prompt == "p=0.1 add 2 and 3"
    assert first.call.run_id != second.call.run_id
    # the other side was asked the same: the late prompt and the tools are there
    for ours, theirs in zip(pair.weak.calls, pair.strong.calls, strict=True):
        assert [m.text for m in theirs["messages"]] == [m.text for m in ours["messages"]]
        assert theirs["messages"][0].text == "Be brief."
        assert theirs["tools"] == ours["tools"]
    assert '"name": "add"' in (first.strong.text or "")
    assert second.strong.text == "strong-model answers: p=0.1 add 2 and 3"


async def test_an_agent_with_a_schema(pair: Pair, log: Log) -> None:
    class Total(BaseModel):
        """The total."""

        total: int

    agent = _agent(pair, "run", log, response_format=ToolStrategy(Total))
    pair.weak.reply = pair.strong.reply = lambda messages: AIMessage(
        "", tool_calls=[{"name": "Total", "args": {"total": 5}, "id": "1", "type": "tool_call"}]
    )
    out = agent.invoke({"messages": [("user", "p=0.1 add 2 and 3")]})
    assert out["structured_response"] == Total(total=5)
    (made,) = log.pairs()
    assert made.strong.text == made.weak.text
    (ours,), (theirs,) = pair.weak.calls, pair.strong.calls
    assert {k: v for k, v in ours.items() if k != "messages"} == {k: v for k, v in theirs.items() if k != "messages"}
