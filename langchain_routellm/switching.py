"""What a conversation must lose when it moves to a model of another provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage

from langchain_routellm.answers import KEY
from langchain_routellm.sides import chat_model_of, provider_of
from routellm_core.checks import Side

# A provider signs or encrypts its model's reasoning, and refuses what it has not signed.
_REASONING_BLOCKS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
_SIGNATURES = ("signature", "thought_signature", "thoughtSignature", "encrypted_content")
_REASONING_KWARGS = (
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "thinking",
    "signature",
    "__gemini_function_call_thought_signatures__",
)
_CACHE_MARKERS = ("cache_control",)
# models that read cache markers in the place where their middleware puts them
_READS_CACHE_MARKERS = frozenset({"anthropic-chat", "anthropic-bedrock-chat", "anthropic-chat-vertexai"})

M = TypeVar("M", bound=BaseMessage)


def reads_cache_markers(model: Any) -> bool:
    """Whether ``cache_control`` in messages means something to this model, rather than being refused."""
    return getattr(chat_model_of(model), "_llm_type", None) in _READS_CACHE_MARKERS


def drops_cache_markers(model: Any, other: Any) -> bool:
    """Whether cache markers in a conversation were meant for `other` and would be refused by `model`."""
    return reads_cache_markers(other) and not reads_cache_markers(model)


def adapted(messages: Sequence[BaseMessage], side: Side, model: Any, other: Any) -> list[BaseMessage]:
    """The messages as `model` takes them, in a conversation that `other` may have taken part in.

    Thinking blocks and signatures are dropped from the answers that another provider's model gave, and cache markers
    from every message when only the other model reads them. Nothing else changes, no message is written to, and
    messages that need no change are passed on as they are.

    Args:
        messages: The conversation.
        side: The side that `model` is on.
        model: Answers now.
        other: The model of the other side.
    """
    provider = provider_of(model)
    foreign = provider != provider_of(other)
    drop_markers = drops_cache_markers(model, other)
    out: list[BaseMessage] = []
    for message in messages:
        if foreign and isinstance(message, AIMessage) and _gave(message, side, provider) is False:
            message = _without_reasoning(message)
        out.append(without_cache_markers(message) if drop_markers else message)
    return out


def without_cache_markers(message: M) -> M:
    """The message without prompt-cache markers, or itself when it has none."""
    if isinstance(message.content, str):
        return message
    content = [_without(block, _CACHE_MARKERS, ("extras", "metadata")) for block in message.content]
    return message if content == message.content else message.model_copy(update={"content": content})


def tool_without_cache_markers(tool: Any) -> Any:
    """A tool, or its schema, without prompt-cache markers; itself when it has none."""
    if isinstance(tool, dict):
        return _without(tool, _CACHE_MARKERS, ("extras",))
    extras = getattr(tool, "extras", None)
    if isinstance(extras, dict) and extras.keys() & set(_CACHE_MARKERS):
        return tool.model_copy(update={"extras": _without(extras, _CACHE_MARKERS) or None})
    return tool


def _gave(message: AIMessage, side: Side, provider: str | None) -> bool | None:
    """Whether this side gave the answer; None when nothing tells."""
    decision = message.response_metadata.get(KEY)
    if isinstance(decision, Mapping):
        return decision.get("model") == side
    author = message.response_metadata.get("model_provider")
    return None if author is None or provider is None else author == provider


def _without_reasoning(message: AIMessage) -> AIMessage:
    update: dict[str, Any] = {}
    if not isinstance(message.content, str):
        content = [
            _without(block, _SIGNATURES, ("extras",))
            for block in message.content
            if not (isinstance(block, dict) and block.get("type") in _REASONING_BLOCKS)
        ]
        if content != message.content:
            update["content"] = content or ""
    if message.additional_kwargs.keys() & set(_REASONING_KWARGS):
        update["additional_kwargs"] = _without(message.additional_kwargs, _REASONING_KWARGS)
    return message.model_copy(update=update) if update else message


def _without(value: Any, keys: Sequence[str], nested: Sequence[str] = ()) -> Any:
    """A dict without these keys, here and in the dicts under `nested`; itself when it has none."""
    if not isinstance(value, dict):
        return value
    out = {k: v for k, v in value.items() if k not in keys}
    for name in nested:
        if isinstance(out.get(name), dict):
            out[name] = _without(out[name], keys)
    return value if out == value else out
