"""What LlamaIndex's own spans reveal: the question being answered, and the answer that can carry the decision."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.question_gen.types import BaseQuestionGenerator
from llama_index.core.response_synthesizers.base import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from llamaindex_routellm.events import DECISION_KEY

# Classes that answer a question and may hand an LLM a finished prompt, with the question somewhere inside.
_ASKED = (
    BaseQueryEngine,
    BaseChatEngine,
    BaseSynthesizer,
    BaseRetriever,
    BaseNodePostprocessor,
    BaseSelector,
    BaseQueryTransform,
    BaseQuestionGenerator,
)
# The names of the question among the arguments of their methods.
_QUESTION_ARGUMENTS = ("query", "query_bundle", "str_or_query_bundle", "query_str", "message")
# Their results that have a place for a decision.
_WITH_METADATA = (Response, PydanticResponse, StreamingResponse, AsyncStreamingResponse, AgentChatResponse)


def _is_of_agent(answer: Any) -> bool:
    """Whether an agent gave an answer; the agents are not loaded to ask, since that takes longer than all the rest."""
    events = sys.modules.get("llama_index.core.agent.workflow.workflow_events")
    return events is not None and isinstance(answer, events.AgentOutput)


@dataclass(slots=True)
class _Shown:
    """The decision of the latest call, and the answer that carries it once there is one."""

    decision: dict[str, Any] | None = None
    answer: Any = None

    def show(self) -> None:
        if self.decision is None:
            return
        if _is_of_agent(self.answer):
            self.answer[DECISION_KEY] = self.decision.copy()
        elif isinstance(self.answer, _WITH_METADATA):
            self.answer.metadata = {**(self.answer.metadata or {}), DECISION_KEY: self.decision.copy()}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that a part of LlamaIndex is working on, or was the last to work on, in this context.

    Attributes:
        question: The question; "" for the step of an agent, which has none.
        best_score: Highest score of the nodes that were passed in or retrieved.
        span_id: Span of the call.
        outer: The question during which this one came up.
        ended: The question that came up last within this one. A streaming answer calls the LLM after all of its parts
            have ended.
        running: Whether the call is still running.
        shown: The answer, and the decision that goes on it.
    """

    question: str
    best_score: float | None
    span_id: str
    outer: Asked | None
    ended: Asked | None = None
    running: bool = True
    shown: _Shown = field(default_factory=_Shown)


_CURRENT: ContextVar[Asked | None] = ContextVar("routellm_asked", default=None)


def running() -> Asked | None:
    """The innermost question that is still being answered."""
    asked = _CURRENT.get()
    return asked if asked is None or asked.running else asked.outer


def best_score_for(question: str) -> float | None:
    """Highest score of the nodes for a question; if several calls have it, that of the innermost."""
    call = _CURRENT.get()
    while call is not None:
        asked: Asked | None = call
        while asked is not None:
            if asked.question == question and asked.best_score is not None:
                return asked.best_score
            asked = asked.ended
        call = call.outer
    return None


def show_decision(decision: dict[str, Any], question: str | None) -> None:
    """Put a decision on the answers to all the questions that are being worked on.

    Args:
        decision: The decision as a dict.
        question: What the call was routed on, if that is an engine's question. An engine that streams has returned its
            answer before the model is called.
    """
    last, asked = _CURRENT.get(), running()
    places = [last.shown] if last is not None and last is not asked and last.question == question else []
    while asked is not None:
        places.append(asked.shown)
        asked = asked.outer
    for shown in places:
        shown.decision = decision
        shown.show()


@lru_cache(maxsize=1024)
def _is_asked(cls: type) -> bool:
    return issubclass(cls, _ASKED)


class _Watch(BaseSpanHandler[BaseSpan]):
    """Observes the questions, the retrieved nodes and the answers of LlamaIndex's components; keeps no spans."""

    @classmethod
    def class_name(cls) -> str:
        return "RouteLLMWatch"

    def span_enter(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        given = bound_args.arguments
        if _is_asked(instance.__class__):
            query = next((given[name] for name in _QUESTION_ARGUMENTS if name in given), None)
            question = query.query_str if isinstance(query, QueryBundle) else query
            if not isinstance(question, str):
                return
        elif instance is None and "ev" in given:  # the step of a workflow
            question = ""
        else:
            return
        _CURRENT.set(Asked(question, _best_score(given.get("nodes")), id_, running()))

    def span_exit(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        result: Any = None,
        **kwargs: Any,
    ) -> None:
        last, asked = _CURRENT.get(), running()
        if asked is None or asked.span_id != id_:
            return
        score = _best_score(result) if isinstance(instance, BaseRetriever) else asked.best_score
        ended = None if last is asked else last
        # not removed yet: a streaming answer calls the LLM after its synthesizer has returned
        _CURRENT.set(replace(asked, best_score=score, ended=ended, running=False))
        asked.shown.answer = result
        asked.shown.show()

    def span_drop(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        err: BaseException | None = None,
        **kwargs: Any,
    ) -> None:
        self.span_exit(id_, bound_args)

    def new_span(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None:
        """Nothing was kept, so there is nothing to do."""

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None:
        """Nothing was kept, so there is nothing to do."""


_WATCH = _Watch()


def watch() -> None:
    """Start observing; calling it again changes nothing.

    A user's own classes use the dispatcher of their own module, so only the root dispatcher sees all of them.
    """
    root = get_dispatcher()
    if not any(handler is _WATCH for handler in root.span_handlers):
        root.add_span_handler(_WATCH)


def _best_score(nodes: Any) -> float | None:
    if not isinstance(nodes, Sequence):
        return None
    scores = [node.score for node in nodes if isinstance(node, NodeWithScore) and node.score is not None]
    return max(scores, default=None)
