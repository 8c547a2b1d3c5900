"""SavingsCallbackHandler: calls, tokens and money per side, and the saving against always-strong."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult

from langchain_routellm.answers import KEY, named_model
from routellm_core import RoutingDecision
from routellm_core.checks import Side
from routellm_core.policy.savings import Price, SavingsLedger, SavingsSummary

# calls that failed and that no fallback has answered yet
_MOST_FAILED = 1000


class _Running(NamedTuple):
    """A model run that has begun: what its decisions say of it."""

    side: Side | None
    failover: bool
    model: str | None
    is_top: bool


class SavingsCallbackHandler(BaseCallbackHandler):
    """Counts what routed model calls used, per side; give it as a callback to any call, chain or agent.

    It counts each model run once, by the decision in the run's metadata, so it works for `ChatRouteLLM`,
    `RouteLLMRunnable` and `RouteLLMMiddleware` alike, and passes over models that were not routed. Safe for threads
    and event loops; one handler may watch any number of calls at once. An answer from a model's cache counts as a
    call without tokens. ::

        savings = SavingsCallbackHandler({"strong": Price(2.0, 8.0), "weak": Price(0.1, 0.4)})
        chain.batch(questions, config={"callbacks": [savings]})
        print(savings.table())

    Args:
        prices: ``{"strong": Price(input, output), "weak": Price(input, output)}``, in one currency per million
            tokens; or the `Price` of each model by its name, as it stands in traces, which nested routed models need.
            Without it only calls and tokens are counted.
        strong_fraction: The wanted share of strong calls; the summary then says what to do when it is missed by far.

    Raises:
        ConfigurationError: `prices` names neither both sides nor models, or `strong_fraction` is not a share.
    """

    run_inline = True  # takes microseconds: not worth a hop to a thread

    def __init__(self, prices: Mapping[str, Price] | None = None, *, strong_fraction: float | None = None) -> None:
        self._ledger = SavingsLedger(prices, strong_fraction=strong_fraction)
        self._running: dict[UUID, _Running] = {}
        # what a fallback outside of routing is known by: the run that a failed call belongs to, and names of the sides
        self._failed: OrderedDict[UUID, None] = OrderedDict()
        self._by_name: dict[str, _Running] = {}
        self._lock = threading.Lock()

    @property
    def ignore_chain(self) -> bool:
        """Only model runs are of interest."""
        return True

    @property
    def ignore_retriever(self) -> bool:
        """Only model runs are of interest."""
        return True

    @property
    def ignore_agent(self) -> bool:
        """Only model runs are of interest."""
        return True

    def summary(self) -> SavingsSummary:
        """What was counted so far; a snapshot."""
        return self._ledger.summary()

    def table(self) -> str:
        """The summary as a small table for a terminal."""
        return self.summary().table("set stream_usage=True on the model")

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Note which side a model run is on."""
        self._note(run_id, metadata, kwargs.get("parent_run_id"))

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Note which side a model run is on."""
        self._note(run_id, metadata, kwargs.get("parent_run_id"))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Count an answer and what it used."""
        with self._lock:
            started = self._running.pop(run_id, None)
        if started is not None:
            self._ledger.record(
                started.side,
                *used_tokens(response),
                failover=started.failover,
                model=started.model,
                is_top=started.is_top,
            )

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run that failed; another model may answer in its place."""
        parent = kwargs.get("parent_run_id")
        with self._lock:
            if self._running.pop(run_id, None) is not None and parent is not None:
                self._failed[parent] = None
                while len(self._failed) > _MOST_FAILED:
                    self._failed.popitem(last=False)

    def _note(self, run_id: UUID, metadata: dict[str, Any] | None, parent: UUID | None) -> None:
        metadata = metadata or {}
        decision, name = RoutingDecision.from_dict(metadata.get(KEY)), metadata.get("ls_model_name")
        name = name if isinstance(name, str) else None
        with self._lock:
            if decision is not None:
                failover = any(level.failover is not None for level in decision.levels)
                is_top = set(decision.path) == {"strong"}
                self._running[run_id] = _Running(decision.model, failover, name, is_top)
                if name is not None:
                    self._by_name[name] = self._running[run_id]
            elif parent in self._failed:  # a fallback that knows nothing of routing, such as ModelFallbackMiddleware's
                known = self._by_name.get(name or "")
                self._running[run_id] = (
                    _Running(None, True, name, False) if known is None else known._replace(failover=True)
                )


class UsageWatch(BaseCallbackHandler):
    """Tells limits and the cost of a call what the model runs of a side use; its runs below, too, where it is a chain.

    Args:
        spent: Called after each answer with its input and output tokens, None where the model reports none, and the
            name of the model that wrote it.
        refused: For a routed model below, to say that its check refused an answer of that many model runs.
    """

    run_inline = True

    def __init__(
        self,
        spent: Callable[[int | None, int | None, str | None], None],
        refused: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._spent = spent
        self.refused = refused
        self._names: dict[UUID, str] = {}  # of running models, for those whose answers do not state a name

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Note the name of a model that runs."""
        name = (metadata or {}).get("ls_model_name")
        if isinstance(name, str):
            self._names[run_id] = name

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Tell what an answer used."""
        self._tell(response, kwargs.get("run_id"))

    def on_llm_error(self, error: BaseException, *, response: LLMResult | None = None, **kwargs: Any) -> None:
        """Tell what a stream used that was cut off, or left by its reader; a call without any answer cost nothing."""
        if response is not None and any(response.generations):
            self._tell(response, kwargs.get("run_id"))

    def _tell(self, response: LLMResult, run_id: UUID | None) -> None:
        known = None if run_id is None else self._names.pop(run_id, None)
        self._spent(*used_tokens(response), named_model(response) or known)


def used_tokens(response: LLMResult) -> tuple[int | None, int | None]:
    """Input and output tokens of an answer; None where the model did not report them."""
    generation = response.generations[0][0] if response.generations and response.generations[0] else None
    if isinstance(generation, ChatGeneration):
        usage = getattr(generation.message, "usage_metadata", None)
        if usage and usage.get("total_cost") == 0:  # how LangChain marks an answer from the cache
            return 0, 0
        if usage and "input_tokens" in usage:
            return usage["input_tokens"], usage["output_tokens"]
    counted = (response.llm_output or {}).get("token_usage")
    if isinstance(counted, Mapping) and "prompt_tokens" in counted:
        return counted["prompt_tokens"], counted.get("completion_tokens")
    return None, None
