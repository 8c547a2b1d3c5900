"""What a call is routed on, and what it asks of a model, read from any input that LangChain accepts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from langchain_routellm.answers import routing_decisions
from routellm_core import RoutingRequest
from routellm_core.errors import PromptError
from routellm_core.policy.capability import (
    AUDIO_INPUTS,
    IMAGE_INPUTS,
    IMAGE_TOOL_MESSAGE,
    IMAGE_URL_INPUTS,
    PDF_INPUTS,
    PDF_TOOL_MESSAGE,
    STRUCTURED_OUTPUT,
    TOOL_CALLING,
    VIDEO_INPUTS,
    estimated_tokens,
)
from routellm_core.policy.routing import RoutedOn, Routing

# where chains conventionally keep the question of a dict input, the most specific first
_QUESTION_KEYS = ("question", "query", "input", "prompt", "text")
# block type -> what a model must accept: LangChain's own types, then those of the providers
_BLOCK_NEEDS = {
    "image": IMAGE_INPUTS,
    "image_url": IMAGE_INPUTS,
    "input_image": IMAGE_INPUTS,
    "audio": AUDIO_INPUTS,
    "input_audio": AUDIO_INPUTS,
    "video": VIDEO_INPUTS,
    "video_url": VIDEO_INPUTS,
    "media": PDF_INPUTS,  # Google's, for every kind: its mime type says which
    "file": PDF_INPUTS,
    "input_file": PDF_INPUTS,
    "document": PDF_INPUTS,
}
_MIME_NEEDS = {"image": IMAGE_INPUTS, "audio": AUDIO_INPUTS, "video": VIDEO_INPUTS}
_TOOL_RESULT_NEEDS = {IMAGE_INPUTS: IMAGE_TOOL_MESSAGE, PDF_INPUTS: PDF_TOOL_MESSAGE}


def as_messages(value: Any) -> list[BaseMessage] | None:
    """The messages of a chat model's input (str, prompt value, list of message-likes, message); None for others."""
    if isinstance(value, str):
        return [HumanMessage(value)]
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return convert_to_messages(value)
    return None


def message_text(message: BaseMessage) -> str:
    """The text of a message: its content, or its text blocks joined by newlines; images and the like are left out."""
    content = message.content
    if isinstance(content, str):
        return content
    texts = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict) and isinstance(block.get("text"), str):
            texts.append(block["text"])
    return "\n".join(texts)


def conversation_of(value: Any) -> Any:
    """The messages of an input, also of a dict with messages; an input without messages is returned unchanged."""
    if isinstance(value, Mapping):
        value = value.get("messages", value)
    if isinstance(value, str | PromptValue | BaseMessage) or _looks_like_messages(value):
        return as_messages(value)
    return value


def human_texts(messages: Sequence[BaseMessage], routing: Routing) -> RoutedOn:
    """Texts of the last human turns that have text, newest first, as many as ``lookback=`` says.

    The last human turn stays the same while an agent calls tools, and so does the route. A message that repeats the
    human message before it, with no answer in between, is the same turn. Human messages that no human wrote, such as
    summaries, are passed over; when no other one is left, the decision on the last answer holds. A conversation
    without a human message gives the text of its last message that has some, tool results aside; an empty text says
    that there is none to judge.
    """
    texts: list[str] = []
    human = is_answered = False
    later: str | None = None  # the human message after this one
    for message in reversed(messages):
        if message.type == "human" and not is_synthetic(message):
            whole = message_text(message)
            text = routing.human_part(whole)
            human = human or bool(text) or not whole
            if text.strip() and (text != later or is_answered):
                texts.append(text)
                if len(texts) == routing.lookback:
                    break
            later, is_answered = text, False
        else:
            is_answered = is_answered or message.type == "ai"
    if texts or human:
        return tuple(texts) or ("",)
    last = next((message for message in reversed(messages) if message.type == "ai"), None)
    levels = routing_decisions(last)
    if len(levels) > routing.level:
        standing = levels[routing.level]
        return RoutingRequest((), force=standing.model, reason="sticky")
    others = (message_text(message) for message in reversed(messages) if message.type != "tool")
    return (next((text for text in others if text.strip()), ""),)


def holds_tool_results(message: BaseMessage) -> bool:
    """Whether a message gives a model the results of tools, also as a human turn, which is Anthropic's form."""
    return message.type == "tool" or (
        isinstance(message.content, list)
        and any(isinstance(block, dict) and block.get("type") == "tool_result" for block in message.content)
    )


def is_synthetic(message: BaseMessage) -> bool:
    """Whether middleware wrote a human message, as LangChain's own mark says, or it holds nothing but tool results."""
    return "lc_source" in message.additional_kwargs or (not message_text(message) and holds_tool_results(message))


def input_texts(value: Any, routing: Routing) -> RoutedOn:
    """What a call of any runnable is routed on; see `RouteLLMRunnable` for the rule.

    Raises:
        PromptError: `value` holds no text, or lacks the key that ``route_on=`` names.
    """
    route_on = routing.route_on
    if isinstance(route_on, str):
        if not isinstance(value, Mapping) or route_on not in value:
            raise PromptError(f"route_on={route_on!r}: the input is {_described(value)} and has no such key")
        value = value[route_on]
    elif route_on is not None:
        found: RoutedOn = route_on(value)
        return found
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _dict_texts(value, routing)
    if isinstance(value, PromptValue | BaseMessage) or _looks_like_messages(value):
        messages = as_messages(value)
        if messages:
            return human_texts(messages, routing)
    raise PromptError(
        f"input is {_described(value)}: no text to route on; give route_on=, a function from the input to its text"
    )


def chat_needs(value: Any, kwargs: Mapping[str, Any]) -> Iterable[str]:
    """Profile keys that a call of a chat model needs; a generator, so that messages are scanned only when necessary."""
    if kwargs.get("tools") or kwargs.get("functions"):
        yield TOOL_CALLING
    if kwargs.get("response_format"):
        yield STRUCTURED_OUTPUT
    if isinstance(value, str):
        return
    for message in as_messages(value) or ():
        if isinstance(message.content, str):
            continue
        for block in message.content:
            need = _block_need(block)
            if need is None or not isinstance(block, dict):
                continue
            yield need
            if need == IMAGE_INPUTS and _is_remote(block):
                yield IMAGE_URL_INPUTS
            if isinstance(message, ToolMessage) and need in _TOOL_RESULT_NEEDS:
                yield _TOOL_RESULT_NEEDS[need]


def chat_tokens(value: Any) -> int:
    """Estimate of a chat input's tokens, without a tokenizer; errs upwards."""
    if isinstance(value, str):
        return estimated_tokens(value)
    return sum(estimated_tokens(message_text(message)) + 4 for message in as_messages(value) or ())


def _block_need(block: Any) -> str | None:
    if not isinstance(block, dict):
        return None
    kind = block.get("type")
    need = _BLOCK_NEEDS.get(kind) if isinstance(kind, str) else None
    if need == PDF_INPUTS:
        mime = block.get("mime_type")
        return _MIME_NEEDS.get(str(mime).partition("/")[0], PDF_INPUTS) if mime else PDF_INPUTS
    return need


def _is_remote(block: dict[str, Any]) -> bool:
    url = block.get("url") or block.get("image_url")
    if isinstance(url, dict):
        url = url.get("url")
    return isinstance(url, str) and not url.startswith("data:")


def _dict_texts(value: Mapping[str, Any], routing: Routing) -> RoutedOn:
    messages = value.get("messages")
    if messages is not None and (found := as_messages(messages)):
        return human_texts(found, routing)
    for key in _QUESTION_KEYS:
        if isinstance(value.get(key), str):
            return (value[key],)
    texts = [item for item in value.values() if isinstance(item, str)]
    if len(texts) == 1:
        return (texts[0],)
    raise PromptError(
        f"input is {_described(value)}: which of it is the question? Give route_on='KEY', or a function from the "
        "input to its text"
    )


def _looks_like_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[-1], BaseMessage | tuple | dict)


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with keys {', '.join(map(repr, list(value)[:8]))}" if value else "an empty dict"
    return f"{type(value).__name__}"
