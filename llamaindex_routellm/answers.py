"""What an answer holds: whether a piece of it is empty or all of it broken, and how a check of weak answers sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse, TextBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from pydantic import BaseModel

from routellm_core.policy.acceptance import WeakAnswer

# why an answer ended, as the providers' clients name it
_FINISH_REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "finishReason", "status", "done")


def is_empty(piece: Any) -> bool:
    """Whether a streamed piece holds nothing that a caller could have used."""
    if isinstance(piece, ChatResponse):
        blocks = piece.message.blocks
        text_only = all(isinstance(block, TextBlock) and not block.text for block in blocks)
        return text_only and not piece.delta and not piece.message.additional_kwargs.get("tool_calls")
    if isinstance(piece, CompletionResponse):
        return not piece.text and not piece.delta
    return isinstance(piece, str) and not piece


def is_broken(answer: Any) -> bool:
    """Whether an answer, or a piece of a stream, has no content, no tool call and no finish reason; None: no piece."""
    if not isinstance(answer, ChatResponse | CompletionResponse):
        return answer is None
    return is_empty(answer) and not any(
        finish_of(holder) for holder in (answer.raw, answer.additional_kwargs, getattr(answer, "message", None))
    )


def is_never_broken(answer: Any) -> bool:
    return False


def named_model(answer: Any) -> str | None:
    """The name of the model that an answer states, in the form of its provider; None where it states none."""
    raw = getattr(answer, "raw", None)
    name = raw.get("model") if isinstance(raw, Mapping) else getattr(raw, "model", None)
    return name if isinstance(name, str) else None


def finish_of(holder: Any) -> Any:
    """Why an answer ended, wherever its provider's own form of it says so; else None."""
    if holder is None or isinstance(holder, str):
        return None
    fields = holder if isinstance(holder, Mapping) else getattr(holder, "__dict__", {})
    inner = [fields.get(name) for name in ("additional_kwargs", "response", "choices", "candidates")]
    reasons = [fields.get(name) for name in _FINISH_REASONS]
    return next(filter(None, reasons), None) or next(
        filter(None, (finish_of(item) for value in inner for item in (value if isinstance(value, list) else [value]))),
        None,
    )


def weak_answer(given: Any, model: LLM) -> WeakAnswer:
    """An answer of the weak model, or the pieces of one that was streamed, as a check sees it.

    Args:
        given: A response, a text or an object that was filled in; of a stream a list of pieces: texts, or responses
            each of which holds all that came before.
        model: The model that gave it.
    """
    last = given
    if isinstance(given, list):
        texts = [piece for piece in given if isinstance(piece, str)]
        last = "".join(texts) if texts else given[-1] if given else None
    if not isinstance(last, ChatResponse | CompletionResponse):
        text = last.model_dump_json() if isinstance(last, BaseModel) else "" if last is None else str(last)
        return WeakAnswer(text, raw=given)
    is_chat = isinstance(last, ChatResponse)
    reason = next(
        filter(None, map(finish_of, (last.raw, last.additional_kwargs, getattr(last, "message", None)))), None
    )
    probabilities = [options[0].logprob for options in last.logprobs or () if options]
    return WeakAnswer(
        (last.message.content or "") if isinstance(last, ChatResponse) else last.text,
        tuple(tool_calls(last, model)) if is_chat else (),
        None if reason is None else str(reason),
        tuple(probabilities) or None,
        raw=given,
    )


def tool_calls(response: Any, model: LLM) -> list[tuple[str, Any]]:
    """Name and arguments of the tools that a chat response calls."""
    if not isinstance(model, FunctionCallingLLM):
        return []
    try:
        found = model.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    except Exception:  # a model that has no tools need not know how
        return []
    return [(call.tool_name, call.tool_kwargs) for call in found]
