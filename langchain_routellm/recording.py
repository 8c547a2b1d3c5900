"""What a routed call leaves in the log: its answer in the log's words, and the other side's, which nobody sees."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import BaseTool
from langchain_core.utils.uuid import uuid7
from langsmith.run_helpers import tracing_context
from pydantic import BaseModel

from langchain_routellm.answers import KEY
from langchain_routellm.sides import chat_model_of, leaf_of, model_name_of
from langchain_routellm.usage import UsageWatch, used_tokens
from routellm_core.errors import ConfigurationError
from routellm_core.log import Answer, Recording, Runs, SideSpent
from routellm_core.policy.route import Route

logger = logging.getLogger("langchain_routellm")

# Fields by which a model does more than answer: it informs handlers, prints, caches, or waits.
_OF_THE_USER = {"callbacks": None, "verbose": False, "cache": False, "rate_limiter": None}
_DEEPEST = 20


class CallRecord:
    """One call on its way into the log. Whatever goes wrong here, the call goes on.

    Args:
        recording: The log's own record of the call.
        ask: Calls a side with the request that the chosen one sees, without the user's run; None where it cannot be.
        is_async: Whether `ask` is a coroutine function.
    """

    def __init__(self, recording: Recording, ask: Any, *, is_async: bool) -> None:
        self._recording = recording
        self._ask = ask if recording.is_drawn else None
        self._is_async = is_async
        self._side: Any = None

    def runs_under(self, side: Any, manager: BaseCallbackManager) -> UUID:
        """Note the run that the chosen side will have; its id is returned, for the side to take."""
        run_id = uuid7()
        parent = manager.parent_run_id
        self._recording.runs = Runs(str(run_id), _text(parent), _text(_trace_of(manager, parent)))
        self.calls(side)
        return run_id

    def calls(self, side: Any) -> None:
        """Note the runnable that is called."""
        self._side = side

    def ran_as(self, run_id: UUID, parent: UUID | None, manager: BaseCallbackManager | None) -> None:
        """Note the run that a model had which somebody else called."""
        trace = parent if manager is None else _trace_of(manager, parent)
        self._recording.runs = Runs(str(run_id), _text(parent), _text(trace))

    def untimed(self) -> None:
        """Log no latency: the call is one of a batch, whose answers come together."""
        self._recording.is_timed = False

    def answered(self, output: Any, route: Route[Any]) -> None:
        """Log the answer; have the other side answer where the call is drawn.

        Args:
            output: The answer.
            route: The way that led to it.
        """
        try:
            answer = answer_of(output, self._side)
            if self._is_async:
                self._recording.answered_async(answer, route.decision, spent=route.cost, other=self._ask)
            else:
                self._recording.answered(answer, route.decision, spent=route.cost, other=self._ask)
        except Exception as exc:
            _warn(exc)

    def failed(self, error: BaseException, route: Route[Any]) -> None:
        """Log the error that ended the call."""
        try:
            self._recording.failed(error, route.priced(), spent=route.cost)
        except Exception as exc:
            _warn(exc)


def _warn(exc: Exception) -> None:
    logger.warning("a call could not be logged (%s)", type(exc).__name__)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _trace_of(manager: BaseCallbackManager, run: UUID | None) -> UUID | None:
    """The root of a run's trace, where a tracer knows it; else the outermost run that is known."""
    for handler in manager.handlers:
        known = getattr(handler, "order_map", None)
        if isinstance(known, Mapping) and run in known:
            return known[run][0]  # type: ignore[no-any-return]
    return run


class ModelWatch(BaseCallbackHandler):
    """Sees what a model is called with, and as which run; for a model that an agent calls itself.

    Attributes:
        run_id: Id of the run; None before it has begun.
        parent: Id of the run around it.
        messages: What the model reads.
    """

    run_inline = True

    def __init__(self) -> None:
        self.run_id: UUID | None = None
        self.parent: UUID | None = None
        self.messages: list[BaseMessage] | None = None

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note the run and its messages."""
        self.run_id, self.parent, self.messages = run_id, parent_run_id, list(messages[0])


def answer_of(output: Any, side: Any) -> Answer:
    """An answer in the log's words, with the tokens that it states.

    Args:
        output: The output of a side.
        side: The side.
    """
    message = _message_of(output)
    if message is not None:  # it says which model of a routed side has answered
        side = leaf_of(side, message.response_metadata.get(KEY))
    model = None if message is None else _model_of(message)
    if model is None and chat_model_of(side) is not None:
        model = model_name_of(side)
    tokens: tuple[int | None, int | None] = (None, None)
    if message is not None:
        tokens = used_tokens(LLMResult(generations=[[ChatGeneration(message=message)]]))
    return Answer(text_of(output if message is None else message), model, *tokens)


def _message_of(output: Any) -> AIMessage | None:
    if isinstance(output, LLMResult):
        output = getattr(output.generations[0][0], "message", None) if output.generations else None
    elif isinstance(output, Mapping):  # include_raw=True
        output = output.get("raw")
    return output if isinstance(output, AIMessage) else None


def _model_of(message: BaseMessage) -> str | None:
    metadata = message.response_metadata
    name = metadata.get("model_name") or metadata.get("model")
    return name if isinstance(name, str) else None


def text_of(output: Any) -> str | None:
    """The text of an answer; what is no text, such as calls of tools, as JSON."""
    if isinstance(output, LLMResult):
        return output.generations[0][0].text if output.generations and output.generations[0] else None
    if isinstance(output, BaseMessage):
        calls = [{"name": call["name"], "args": call["args"]} for call in getattr(output, "tool_calls", None) or ()]
        text = str(output.text)
        return "\n".join(filter(None, (text, _json({"tool_calls": calls}) if calls else ""))) or None
    if output is None or isinstance(output, str):
        return output
    return _json(output)


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return text_of(value)
    return value.model_dump() if isinstance(value, BaseModel) else str(value)


# --- the other side, outside of the user's run ---


def ask(runnable: Runnable[Any, Any], value: Any, kwargs: Mapping[str, Any], spent: SideSpent) -> Answer:
    """Call a silenced side outside of any run; for a thread with an empty context.

    Args:
        runnable: The side.
        value: Its input.
        kwargs: Arguments of the call.
        spent: Counts what the call uses.
    """
    with tracing_context(enabled=False):
        output = runnable.invoke(value, {"callbacks": [UsageWatch(spent.add)]}, **kwargs)
    return spent.on(answer_of(output, runnable))


async def aask(runnable: Runnable[Any, Any], value: Any, kwargs: Mapping[str, Any], spent: SideSpent) -> Answer:
    """Async twin of `ask`, for a task with an empty context."""
    with tracing_context(enabled=False):
        output = await runnable.ainvoke(value, {"callbacks": [UsageWatch(spent.add)]}, **kwargs)
    return spent.on(answer_of(output, runnable))


def silenced(runnable: Any, depth: int = 0) -> Any:
    """A copy of a side, and of all that it is made of, without callbacks, caches and rate limiters of the user.

    Callbacks that are set on a model fire for each of its runs, whatever a config says.
    """
    if depth > _DEEPEST or not isinstance(runnable, BaseModel) or not isinstance(runnable, Runnable):
        return runnable
    update: dict[str, Any] = {
        name: value for name, value in _OF_THE_USER.items() if name in type(runnable).model_fields
    }
    for name in type(runnable).model_fields:
        value = getattr(runnable, name, None)
        changed = _silenced_parts(value, depth + 1)
        if changed is not value:
            update[name] = changed
    if isinstance(runnable, RunnableBindingBase):
        update["config"] = {k: v for k, v in runnable.config.items() if k not in ("callbacks", "run_id")}
        update["config_factories"] = []
    return runnable.model_copy(update=update) if update else runnable


def _silenced_parts(value: Any, depth: int) -> Any:
    """The value of a field with the runnables in it silenced; unchanged if it contains none."""
    if isinstance(value, Runnable):
        return silenced(value, depth)
    if isinstance(value, list | tuple) and any(isinstance(item, Runnable) for item in value):
        return type(value)(_silenced_parts(item, depth) for item in value)
    if isinstance(value, dict) and any(isinstance(item, Runnable) for item in value.values()):
        return {key: _silenced_parts(item, depth) for key, item in value.items()}
    return value


def check_side(side: Any, name: str, depth: int = 0) -> None:
    """Refuse a side for ``shadow=`` that does more than answer: agents and tools act, a history remembers.

    Raises:
        ConfigurationError: The side holds such a part.
    """
    acts = isinstance(side, BaseTool | RunnableWithMessageHistory) or any(
        cls.__module__.startswith("langgraph.") or cls.__name__ == "AgentExecutor" for cls in type(side).__mro__
    )
    if acts:
        raise ConfigurationError(
            f"shadow=: the {name} side holds a {type(side).__name__}, which does more than answer (it runs tools, or "
            "writes a history), and so must not run for nobody; leave shadow= out, or give it to the model inside"
        )
    if depth > _DEEPEST or not isinstance(side, BaseModel) or isinstance(side, BaseLanguageModel):
        return
    for field in type(side).model_fields:
        value = getattr(side, field, None)
        parts = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else (value,)
        for part in parts:
            if isinstance(part, Runnable):
                check_side(part, name, depth + 1)


def snapshot(value: Any) -> Any:
    """A copy of an input: a caller may append to its list of messages before the other side reads it."""
    if isinstance(value, list):
        return [snapshot(item) for item in value]
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    return value
