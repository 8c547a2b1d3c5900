"""What the LlamaIndex tests share: every event and span of a test, and settings as they were."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index_instrumentation import get_dispatcher
from pydantic import PrivateAttr

from llamaindex_routellm import RouteLLM, RouteLLMDecisionEvent
from tests.support.fakes_llamaindex import FakeLLM
from tests.support.routers import ScriptedRouter


class Recorder(BaseEventHandler):
    """Keeps every event."""

    _events: list[BaseEvent] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Recorder"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self._events.append(event)

    def of(self, *classes: str) -> list[BaseEvent]:
        """Events of these classes, in order."""
        return [event for event in self._events if event.class_name() in classes]

    def count(self, name: str) -> int:
        return len(self.of(name))

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return [event.decision for event in self._events if isinstance(event, RouteLLMDecisionEvent)]


class SpanRecorder(BaseSpanHandler[BaseSpan]):
    """Keeps (id, parent id) of every span entered, and how many were left."""

    _entered: list[tuple[str, str | None]] = PrivateAttr(default_factory=list)

    def new_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> BaseSpan:
        self._entered.append((id_, parent_span_id))
        return BaseSpan(id_=id_, parent_id=parent_span_id)

    def prepare_to_exit_span(self, id_: str, *args: Any, **kwargs: Any) -> BaseSpan | None:
        return self.open_spans.get(id_)

    def prepare_to_drop_span(self, id_: str, *args: Any, **kwargs: Any) -> BaseSpan | None:
        return self.open_spans.get(id_)

    @property
    def names(self) -> list[str]:
        """Class and method of each span, in order."""
        return [id_.split("-")[0] for id_, _ in self._entered]

    def parent(self, name: str) -> str | None:
        """Class and method of the span that the first span called `name` lies in."""
        parent = next(parent for id_, parent in self._entered if id_.split("-")[0] == name)
        return None if parent is None else parent.split("-")[0]


@pytest.fixture
def events() -> Iterator[Recorder]:
    root = get_dispatcher()
    recorder, before = Recorder(), list(root.event_handlers)
    root.add_event_handler(recorder)
    yield recorder
    root.event_handlers = before


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    root = get_dispatcher()
    recorder, before = SpanRecorder(), list(root.span_handlers)
    root.add_span_handler(recorder)
    yield recorder
    root.span_handlers = before


@pytest.fixture(autouse=True, scope="session")
def _no_event_loop() -> None:
    """LlamaIndex's synchronous methods create an event loop for the thread and leave it open, unless it has been unset.

    Only the first tests of a process would find none unset, so the warning would depend on their order.
    """
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    names = ("_llm", "_embed_model", "_callback_manager", "_prompt_helper")
    before = {name: getattr(Settings, name) for name in names}
    yield
    for name, value in before.items():
        setattr(Settings, name, value)


@pytest.fixture
def counter() -> TokenCountingHandler:
    return TokenCountingHandler(tokenizer=str.split)


@pytest.fixture
def router() -> ScriptedRouter:
    return ScriptedRouter()


@pytest.fixture
def strong() -> FakeLLM:
    return FakeLLM("strong")


@pytest.fixture
def weak() -> FakeLLM:
    return FakeLLM("weak")


@pytest.fixture
def llm(strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter) -> RouteLLM:
    """Threshold 0.5; a prompt says its win rate: ``p=0.9 ...``."""
    return RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5)


@pytest.fixture
def counted(llm: RouteLLM, counter: TokenCountingHandler) -> RouteLLM:
    llm.callback_manager = CallbackManager([counter])
    return llm
