"""log= and shadow= of the LlamaIndex adapter: what is written, and that nothing of a shadow call is seen anywhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel, PrivateAttr

from llamaindex_routellm import RouteLLM, SavingsEventHandler, routing_decision
from routellm_core import Shadow
from routellm_core.errors import ConfigurationError
from tests.support.fakes_llamaindex import FakeLLM, Reply
from tests.support.routers import ScriptedRouter
from tests.support.traffic import Log

WEAK = "p=0.1 say hello"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(f"sqlite:///{tmp_path}/traffic.db") as log:
        yield log


def routed(strong: FakeLLM | None = None, weak: FakeLLM | None = None, **options: Any) -> RouteLLM:
    return RouteLLM(
        strong=strong or FakeLLM("strong"), weak=weak or FakeLLM("weak"), router=ScriptedRouter(), threshold=0.7,
        **options,
    )  # fmt: skip


class Everything(BaseEventHandler):
    """Every event that reaches the root dispatcher."""

    _seen: list[BaseEvent] = PrivateAttr(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self._seen.append(event)


class Spans(BaseSpanHandler[Any]):
    """Every span that reaches the root dispatcher."""

    _seen: list[str] = PrivateAttr(default_factory=list)

    def new_span(self, id_: str, *args: Any, **kwargs: Any) -> None:
        self._seen.append(id_)

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None: ...

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None: ...


@pytest.fixture
def watched() -> Iterator[tuple[Everything, Spans]]:
    root = get_dispatcher()
    events, spans = list(root.event_handlers), list(root.span_handlers)
    everything, all_spans = Everything(), Spans()
    root.add_event_handler(everything)
    root.add_span_handler(all_spans)
    yield everything, all_spans
    root.event_handlers, root.span_handlers = events, spans


MESSAGES = [ChatMessage(content=WEAK)]
TEMPLATE = PromptTemplate("{query_str}")
WAYS: dict[str, Callable[[RouteLLM], Any]] = {
    "chat": lambda llm: llm.chat(MESSAGES),
    "stream_chat": lambda llm: list(llm.stream_chat(MESSAGES)),
    "complete": lambda llm: llm.complete(WEAK),
    "stream_complete": lambda llm: list(llm.stream_complete(WEAK)),
    "predict": lambda llm: llm.predict(TEMPLATE, query_str=WEAK),
    "stream": lambda llm: list(llm.stream(TEMPLATE, query_str=WEAK)),
}


async def _all(stream: Any) -> list[Any]:
    return [piece async for piece in await stream]


ASYNC_WAYS: dict[str, Callable[[RouteLLM], Any]] = {
    "achat": lambda llm: llm.achat(MESSAGES),
    "astream_chat": lambda llm: _all(llm.astream_chat(MESSAGES)),
    "acomplete": lambda llm: llm.acomplete(WEAK),
    "astream_complete": lambda llm: _all(llm.astream_complete(WEAK)),
    "apredict": lambda llm: llm.apredict(TEMPLATE, query_str=WEAK),
    "astream": lambda llm: _all(llm.astream(TEMPLATE, query_str=WEAK)),
}


@pytest.mark.parametrize("way", [*WAYS, *ASYNC_WAYS])
@pytest.mark.parametrize("shadow", [0.0, 1.0])
async def test_each_way_of_calling_leaves_a_row(
    log: Log, way: str, shadow: float, watched: tuple[Everything, Spans]
) -> None:
    everything, spans = watched
    savings = SavingsEventHandler()
    get_dispatcher().add_event_handler(savings)
    counted = TokenCountingHandler()
    strong = FakeLLM("strong", callback_manager=CallbackManager([counted]))
    llm = routed(strong, log=log, shadow=shadow)
    if way in WAYS:
        await asyncio.to_thread(WAYS[way], llm)
    else:
        await ASYNC_WAYS[way](llm)
    assert await log.aflush()
    (outcome,) = log.outcomes()
    call, answer = outcome.call, outcome.answers["weak"]
    assert (call.prompt, call.side, call.reason, call.win_rate) == (WEAK, "weak", "win_rate", 0.1)
    assert (call.p_strong, call.p_shadow) == (0.0, shadow)
    assert (answer.text, answer.model, answer.kind) == (f"weak: {WEAK}", "weak", "routed")
    assert (answer.input_tokens, answer.output_tokens) == (10, 5)
    assert call.run_id is not None
    assert call.run_id in spans._seen
    assert (call.parent_run_id or "").startswith(f"RouteLLM.{way}-")
    assert len(outcome.answers) == 1 + bool(shadow)
    if shadow:
        other = outcome.answers["strong"]
        assert (other.text, other.model, other.kind) == (f"strong: {WEAK}", "strong", "shadow")
        assert (other.input_tokens, other.output_tokens) == (10, 5)
    assert len(strong.seen) == bool(shadow)
    # nobody sees anything of it
    assert "strong: " not in repr(everything._seen)
    assert sum("StartEvent" in event.class_name() for event in everything._seen) in (1, 2, 3)
    assert savings.summary().strong.calls == 0
    assert savings.summary().weak.calls == 1
    assert counted.total_llm_token_count == 0


def test_feedback_by_the_decision_and_by_a_span(log: Log) -> None:
    llm = routed(log=log)
    first = routing_decision(llm.complete(WEAK))
    llm.complete("p=0.9 again", routellm_thread_id="7")
    assert first is not None
    log.feedback(first.id, 1.0)
    one, two = log.outcomes()
    log.feedback(two.call.run_id or "", 0.25)
    assert [outcome.scores for outcome in log.outcomes()] == [{"weak": 1.0}, {"strong": 0.25}]
    assert (one.call.conversation is None, two.call.conversation is None) == (True, False)


async def test_a_thousand_calls_wait_for_no_shadow(log: Log) -> None:
    release = threading.Event()

    def respond(messages: list[ChatMessage]) -> str:
        release.wait()
        return "late"

    strong = FakeLLM("strong", respond=respond)
    llm = routed(strong, log=log, shadow=Shadow(1.0, concurrency=2))
    try:
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda i: llm.complete(f"{WEAK} {i}"), range(1000)))
        assert len({answer.text for answer in answers}) == 1000  # no shadow has ended yet
        assert len(strong.seen) <= 4
    finally:
        release.set()
    slow = FakeLLM("strong", delay=1000.0)
    llm = routed(slow, log=log, shadow=1.0)
    answers = await asyncio.gather(*(llm.acomplete(f"{WEAK} {i}") for i in range(1000)))
    assert len({answer.text for answer in answers}) == 1000
    assert len(slow.seen) <= 4


def test_failures_are_written_down(log: Log) -> None:
    llm = routed(FakeLLM("strong", TimeoutError("secret")), log=log, shadow=1.0)
    assert llm.complete(WEAK).text == f"weak: {WEAK}"
    broken = routed(weak=FakeLLM("weak", TimeoutError("no"), Reply("a b c", error=TimeoutError("no"), error_after=1)),
                    log=log, shadow=1.0)  # fmt: skip
    with pytest.raises(TimeoutError):
        broken.complete(WEAK)
    with pytest.raises(TimeoutError):
        list(broken.stream_complete(WEAK))
    left = routed(log=log, shadow=1.0)
    stream = left.stream_complete(WEAK)
    next(iter(stream))
    stream.close()
    errors = [{side: answer.error for side, answer in outcome.answers.items()} for outcome in log.outcomes()]
    assert errors == [
        {"weak": None, "strong": "TimeoutError"}, {"weak": "TimeoutError"}, {"weak": "TimeoutError"},
        {"weak": "GeneratorExit"},
    ]  # fmt: skip
    assert log.pairs() == []


def test_the_shadow_reads_the_request_as_it_was(log: Log) -> None:
    gate = threading.Event()
    strong = FakeLLM("strong", respond=lambda messages: "yes" if gate.wait(60) else "no")
    messages = [ChatMessage(content=WEAK)]
    messages.append(routed(strong, log=log, shadow=1.0).chat(messages, temperature=0.5).message)
    gate.set()
    log.flush()
    (seen,) = strong.seen
    assert [message.content for message in seen.messages] == [WEAK]
    assert seen.kwargs["temperature"] == 0.5


class Total(BaseModel):
    """The total."""

    total: int


def test_an_object_is_logged_as_json(log: Log) -> None:
    reply = Reply(tools=[("Total", {"total": 5})])
    llm = routed(
        FakeLLM("strong", reply), FakeLLM("weak", reply), log=log, shadow=1.0, weak_profile={"structured_output": True}
    )
    assert llm.structured_predict(Total, TEMPLATE, query_str=WEAK) == Total(total=5)
    (made,) = log.pairs()
    assert made.strong.text == made.weak.text == '{"total":5}'


@pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated:pydantic.warnings.PydanticDeprecatedSince20")
@pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
@pytest.mark.filterwarnings("ignore:is_running called from within a step")
async def test_an_agent_runs_no_tool_of_a_shadow(log: Log) -> None:
    ran: list[int] = []

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        ran.append(a + b)
        return a + b

    called = Reply(tools=[("add", {"a": 2, "b": 3})])
    strong = FakeLLM("strong", Reply(tools=[("add", {"a": 20, "b": 30})]), "fifty")
    llm = routed(strong, FakeLLM("weak", called, "five"), log=log, shadow=1.0)
    agent = FunctionAgent(llm=llm, tools=[FunctionTool.from_defaults(add)], streaming=False)
    output = await agent.run(WEAK)
    assert str(output) == "five"
    await log.aflush()
    assert ran == [5]
    first, second = log.pairs()
    assert '"a": 20' in (first.strong.text or "")
    assert '"a": 2,' in (first.weak.text or "")
    assert (second.strong.text, second.weak.text) == ("fifty", "five")


def test_a_dict_says_what_of_the_log_to_pass(log: Log) -> None:
    llm = routed(log=log, shadow=0.5)
    with pytest.raises(ConfigurationError, match=r"pass .*log=, shadow="):
        RouteLLM.from_dict(llm.to_dict(), router=ScriptedRouter())
    again = RouteLLM.from_dict(llm.to_dict(), router=ScriptedRouter(), log=log, shadow=0.5)
    assert again._routing.shadow == Shadow(0.5)
