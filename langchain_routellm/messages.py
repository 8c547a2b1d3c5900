"""What a call is routed on, and what it asks of a model, read from any input that LangChain accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue

from routellm_core.errors import ConfigurationError, PromptError
from routellm_core.policy.capability import (
    AUDIO_INPUTS,
    IMAGE_INPUTS,
    PDF_INPUTS,
    STRUCTURED_OUTPUT,
    TOOL_CALLING,
    VIDEO_INPUTS,
    estimated_tokens,
)

RouteOn = Callable[[Any], str | Sequence[str]]

# where chains conventionally keep the question of a dict input, most telling first
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
    "media": PDF_INPUTS,  # Google's, for every kind: its mime type tells which
    "file": PDF_INPUTS,
    "input_file": PDF_INPUTS,
    "document": PDF_INPUTS,
}
_MIME_NEEDS = {"image": IMAGE_INPUTS, "audio": AUDIO_INPUTS, "video": VIDEO_INPUTS}
_TOOL_RESULT_NEEDS = {IMAGE_INPUTS: "image_tool_message", PDF_INPUTS: "pdf_tool_message"}


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


def human_texts(messages: Sequence[BaseMessage], lookback: int) -> tuple[str, ...]:
    """Texts of the last `lookback` human turns, newest first; without any, the text of the last message.

    The last human turn stays the same while an agent calls tools, and so does the route.
    """
    texts = []
    for message in reversed(messages):
        if message.type == "human":
            texts.append(message_text(message))
            if len(texts) == lookback:
                break
    if texts:
        return tuple(texts)
    return (message_text(messages[-1]),) if messages else ("",)


def chat_texts(value: Any, lookback: int, route_on: RouteOn | None) -> tuple[str, ...]:
    """Texts that a call of a chat model is routed on.

    Raises:
        PromptError: `value` is no input of a chat model, or `route_on` returned no text.
    """
    if route_on is None:
        if isinstance(value, str):
            return (value,)
        if isinstance(value, StringPromptValue):
            return (value.text,)
    messages = as_messages(value)
    if messages is None:
        raise PromptError(
            f"input is {type(value).__name__}: expected a str, a prompt value or a list of messages, as for any chat "
            "model"
        )
    if route_on is None:
        return human_texts(messages, lookback)
    return _chosen(route_on(messages), "route_on")


def input_texts(value: Any, lookback: int, route_on: RouteOn | str | None) -> tuple[str, ...]:
    """Texts that a call of any runnable is routed on; see `RouteLLMRunnable` for the rule.

    Raises:
        PromptError: No text is found in `value`, or `route_on` returned none.
    """
    if isinstance(route_on, str):
        if not isinstance(value, Mapping) or route_on not in value:
            raise PromptError(f"route_on={route_on!r}: the input is {_described(value)} and has no such key")
        value = value[route_on]
    elif route_on is not None:
        return _chosen(route_on(value), "route_on")
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping):
        return _dict_texts(value, lookback)
    if isinstance(value, PromptValue | BaseMessage) or _looks_like_messages(value):
        messages = as_messages(value)
        if messages:
            return human_texts(messages, lookback)
    raise PromptError(
        f"input is {_described(value)}: no text to route on; give route_on=, a function from the input to its text"
    )


def chat_needs(value: Any, kwargs: Mapping[str, Any]) -> Iterable[str]:
    """Profile keys that a call of a chat model needs; a generator, so that nothing is scanned that nobody asks for."""
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
                yield "image_url_inputs"
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


def _dict_texts(value: Mapping[str, Any], lookback: int) -> tuple[str, ...]:
    messages = value.get("messages")
    if messages is not None and (found := as_messages(messages)):
        return human_texts(found, lookback)
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


def _chosen(value: Any, parameter: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if texts and all(isinstance(text, str) for text in texts):
        return texts
    # its type alone: the value may hold prompt text
    what = f"an empty {type(value).__name__}" if value in ([], ()) else type(value).__name__
    raise PromptError(f"{parameter} returned {what}: expected a str, or a non-empty list of str")


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with keys {', '.join(map(repr, list(value)[:8]))}" if value else "an empty dict"
    return f"{type(value).__name__}"


def checked_route_on(value: Any, *, key: bool = False) -> Any:
    """Return `value` if it can be a ``route_on=``, or raise a `ConfigurationError`."""
    if value is None or callable(value) or (key and isinstance(value, str) and value):
        return value
    allowed = "a function of the input, the key of a dict input, or None" if key else "a function of the messages"
    raise ConfigurationError(f"route_on={value!r:.80}: expected {allowed}")


def checked_lookback(value: Any) -> int:
    """Return `value` if it can be a ``lookback=``, or raise a `ConfigurationError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"lookback={value!r:.80}: expected how many human turns to look at, an integer >= 1")
    return value
