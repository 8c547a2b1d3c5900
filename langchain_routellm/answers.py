"""What an answer carries: the decision that it is stamped with, and whether a piece of it holds a token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables.utils import AddableDict
from pydantic import BaseModel

from langchain_routellm.sides import model_name_on
from routellm_core import RoutingDecision
from routellm_core.policy.acceptance import WeakAnswer
from routellm_core.policy.route import Route
from routellm_core.policy.tiers import with_inner

KEY = "routellm"
# why an answer ended, as the providers' clients name it in an answer's metadata
_FINISH_REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "finishReason", "status", "done")
# the keys of what with_structured_output(include_raw=True) returns
_WITH_RAW = frozenset({"raw", "parsed", "parsing_error"})


def routing_decision(answer: Any) -> RoutingDecision | None:
    """The decision that an answer carries.

    Args:
        answer: A message or message chunk; also the dict that ``with_structured_output(include_raw=True)`` gives, and
            the final state of an agent with `RouteLLMMiddleware`.

    Returns:
        The decision, or None when the answer was not routed.
    """
    if isinstance(answer, Mapping):
        stored = answer.get(KEY)
        if stored is not None:
            return RoutingDecision.from_dict(stored)
        answer = answer.get("raw")
    return RoutingDecision.from_dict(getattr(answer, "response_metadata", {}).get(KEY))


def routing_decisions(answer: Any) -> list[RoutingDecision]:
    """Every decision on the way to an answer, outermost first; several where routed models are nested.

    Args:
        answer: As for `routing_decision`.

    Returns:
        The decisions; an empty list when the answer was not routed.
    """
    decision = routing_decision(answer)
    return [] if decision is None else list(decision.levels)


def stamped(output: Any, decision: RoutingDecision) -> Any:
    """A copy of an output that carries the decision, where it has a place for one; never the output changed.

    A cache hands the same message to many calls, so it must not be written to.
    """
    if isinstance(output, BaseMessage):
        metadata = output.response_metadata
        if KEY in metadata:  # of the routed model that is the side
            decision = with_inner(decision, metadata[KEY])
        # what model_copy(update=...) does, in two thirds of its time
        copied = output.__copy__()
        copied.__dict__["response_metadata"] = {**metadata, KEY: decision.to_dict()}
        copied.model_fields_set.add("response_metadata")
        return copied
    # include_raw=True; a stream of it opens with the raw message alone
    if isinstance(output, dict) and isinstance(output.get("raw"), BaseMessage) and output.keys() <= _WITH_RAW:
        return {**output, "raw": stamped(output["raw"], decision)}
    if isinstance(output, LLMResult):
        generations = [
            [
                g.model_copy(update={"message": stamped(g.message, decision)}) if isinstance(g, ChatGeneration) else g
                for g in answers
            ]
            for answers in output.generations
        ]
        return output.model_copy(update={"generations": generations})
    return output


def named_model(output: Any) -> str | None:
    """The model name that an output, or the pieces of a stream, states; None if there is no name.

    An answer that carries a decision already comes from a routed model inside of a side, which has two of its own.
    """
    if isinstance(output, list):
        return next(filter(None, map(named_model, reversed(output))), None)
    if isinstance(output, LLMResult):
        first = output.generations[0][0] if output.generations and output.generations[0] else None
        output = getattr(first, "message", None)
    elif isinstance(output, dict) and output.keys() <= _WITH_RAW:
        output = output.get("raw")
    if not isinstance(output, AIMessage) or KEY in output.response_metadata:
        return None
    return model_name_on(output)


def cost_chunk(given: Sequence[Any], cost: float) -> Any:
    """An empty chunk that puts the cost of a call on the decision of its stream; None where it has no place for one.

    The piece of a model that does not stream has its cost already, see `is_whole`.
    """
    pieces = [piece for piece in given if isinstance(piece, AIMessageChunk)]
    raw = [piece["raw"] for piece in given if isinstance(piece, dict) and isinstance(piece.get("raw"), AIMessageChunk)]
    if not pieces and not raw:
        return None
    chunk = AIMessageChunk(content="", id=(pieces or raw)[-1].id, response_metadata={KEY: {"cost": cost}})
    return chunk if pieces else AddableDict({"raw": chunk})


def is_whole(piece: Any) -> bool:
    """Whether a piece of a stream is a whole message, from a model that does not stream.

    Such a message cannot take a further chunk: the sum of the two would be a prompt.
    """
    message = piece.get("raw") if isinstance(piece, dict) else piece
    return isinstance(message, AIMessage) and not isinstance(message, AIMessageChunk)


def of_inner(chunk: Any) -> Any:
    """A later chunk of a side that is a routed model: what it adds to its own decision belongs to the inner one."""
    if isinstance(chunk, AIMessageChunk) and KEY in chunk.response_metadata:
        metadata = {**chunk.response_metadata, KEY: {"inner": chunk.response_metadata[KEY]}}
        return chunk.model_copy(update={"response_metadata": metadata})
    if isinstance(chunk, dict) and isinstance(chunk.get("raw"), AIMessageChunk):
        return AddableDict({**chunk, "raw": of_inner(chunk["raw"])})
    return chunk


class TokenWatch(BaseCallbackHandler):
    """Settles a route as soon as a token has gone out through the callbacks of a run.

    Somebody may be reading tokens from the callbacks of an invoke; from then on no other side may answer.
    """

    run_inline = True

    def __init__(self, route: Route[Any]) -> None:
        self._route = route

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        """Settle the route at the first token, not at a provider's empty opening chunk."""
        message = getattr(chunk, "message", None)
        if token or (message is not None and not is_empty(message)):
            self._route.answered()

    def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        """Settle the route at the first piece of content of a typed event stream."""
        if event.get("event") == "content-block-delta":
            self._route.answered()


def is_empty(chunk: Any) -> bool:
    """Whether a piece of a stream holds nothing that a reader could have used.

    Providers open a stream with an empty chunk that only says "assistant".
    """
    if isinstance(chunk, AIMessageChunk):
        return not (
            _has_content(chunk.content) or chunk.tool_call_chunks or chunk.tool_calls or chunk.additional_kwargs
        )
    if isinstance(chunk, str):  # that chunk behind a StrOutputParser
        return not chunk
    if isinstance(chunk, Mapping) and "event" in chunk:
        return not str(chunk["event"]).startswith("content-block")
    return False


def is_broken(answer: Any) -> bool:
    """Whether a model's answer, or a piece of its stream, has no content, no tool call and no finish reason.

    None stands for a stream in which every piece was broken. Only a model's own message can be broken: the output of a
    parser or any other runnable may well be empty, and `ReplyWatch` sees the reply of the model behind it.
    """
    if answer is None:
        return True
    if isinstance(answer, AIMessage):
        if _has_content(answer.content):  # most answers: the rest costs more than this
            return False
        calls = answer.tool_calls or answer.invalid_tool_calls or getattr(answer, "tool_call_chunks", None)
        return not (calls or any(answer.additional_kwargs.values()) or _is_finished(answer.response_metadata))
    if isinstance(answer, LLMResult):
        return any(
            all(is_broken(g.message) if isinstance(g, ChatGeneration) else False for g in answers)
            for answers in answer.generations
        )
    if isinstance(answer, Mapping) and "event" in answer:
        name = str(answer["event"])
        finished = name == "message-finish" and _is_finished(answer.get("metadata") or {})
        return not (name.startswith("content-block") or finished)
    return False


class ReplyWatch(BaseCallbackHandler):
    """Says whether the answer of a chain is broken: it is empty, and so was the last reply of a model in the chain.

    Call it like `is_broken`; as a callback of the chain's run it sees the replies.
    """

    run_inline = True

    def __init__(self) -> None:
        self._is_running = self._is_broken = False

    def __call__(self, answer: Any) -> bool:
        if isinstance(answer, Mapping) and isinstance(answer.get("raw"), BaseMessage) and answer.keys() <= _WITH_RAW:
            answer = answer["raw"]
        if isinstance(answer, BaseMessage):
            return is_broken(answer)
        if isinstance(answer, BaseException):  # such as a parser's that had nothing to parse
            return self._is_broken
        # while the model is running, an empty piece of a stream proves nothing
        return _is_nothing(answer) and (self._is_running or self._is_broken)

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        """Note that a model has been asked."""
        self._is_running, self._is_broken = True, False

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        """Note that a model has been asked."""
        self._is_running, self._is_broken = True, False

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Note whether a reply is broken."""
        self._is_running, self._is_broken = False, is_broken(response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """Note that the model has ended."""
        self._is_running = False


def _is_nothing(answer: Any) -> bool:
    return answer is None or (isinstance(answer, str | list | dict | tuple) and not answer)


def _is_finished(metadata: Mapping[str, Any]) -> bool:
    return any(metadata.get(name) for name in _FINISH_REASONS)


def _has_content(content: str | list[Any]) -> bool:
    # a text block is opened empty, too
    if isinstance(content, str):
        return bool(content)
    return any(not (isinstance(b, dict) and b.get("type") == "text" and not b.get("text")) for b in content if b)


def weak_answer(output: Any, raw: Any = None) -> WeakAnswer:
    """An answer of the weak model as a check sees it.

    Args:
        output: A message, a model's result, a text, or whatever a chain returns, which is written as JSON.
        raw: What the check gets as ``raw``; None is the output.
    """
    raw = output if raw is None else raw
    message = output
    if isinstance(message, LLMResult):
        first = message.generations[0][0] if message.generations and message.generations[0] else None
        message = getattr(first, "message", None)
    elif isinstance(message, Mapping) and message.keys() <= _WITH_RAW:
        message = message.get("raw")
    if not isinstance(message, AIMessage):
        return WeakAnswer(_plain_text(output), raw=raw)
    metadata = message.response_metadata
    reason = next((metadata[name] for name in _FINISH_REASONS if metadata.get(name)), None)
    return WeakAnswer(
        str(message.text),
        tuple((call["name"], call["args"]) for call in message.tool_calls),
        None if reason is None else str(reason),
        _log_probabilities(metadata.get("logprobs")),
        raw=raw,
    )


def _plain_text(output: Any) -> str:
    if output is None or isinstance(output, str):
        return output or ""
    if isinstance(output, BaseModel):
        return output.model_dump_json()
    try:
        return json.dumps(output, default=str)
    except (TypeError, ValueError):
        return str(output)


def _log_probabilities(found: Any) -> tuple[float, ...] | None:
    """Those of an answer's tokens, in the form of OpenAI's API."""
    content = found.get("content") if isinstance(found, Mapping) else None
    values = [token.get("logprob") for token in content if isinstance(token, Mapping)] if content else []
    return tuple(value for value in values if isinstance(value, int | float)) or None


def merged(chunks: list[Any]) -> Any:
    """The sum of the chunks, or the last one when they do not add up."""
    if not chunks:
        return None
    if all(isinstance(chunk, AIMessageChunk) for chunk in chunks):
        return chunks[0] + chunks[1:] if len(chunks) > 1 else chunks[0]
    try:
        total = chunks[0]
        for chunk in chunks[1:]:
            total = total + chunk
    except TypeError:
        return chunks[-1]
    return total
