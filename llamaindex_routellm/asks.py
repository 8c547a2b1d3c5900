"""What a call asks: one function for each family of methods reads it from the arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    VideoBlock,
)
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import Model

from llamaindex_routellm.question import (
    Retrieval,
    call_settings,
    mapped_once,
    retrieval_of_messages,
    retrieval_of_prompt,
)
from routellm_core.errors import PromptError
from routellm_core.policy.capability import (
    AUDIO_INPUTS,
    IMAGE_INPUTS,
    PDF_INPUTS,
    STRUCTURED_OUTPUT,
    TOOL_CALLING,
    VIDEO_INPUTS,
)
from routellm_core.policy.routing import CallSettings

if TYPE_CHECKING:
    from llamaindex_routellm.llm import RouteLLM

_BLOCK_NEEDS = {
    ImageBlock: IMAGE_INPUTS,
    AudioBlock: AUDIO_INPUTS,
    VideoBlock: VIDEO_INPUTS,
    DocumentBlock: PDF_INPUTS,
}
MEDIA_INPUTS = tuple(_BLOCK_NEEDS.values())
_ARGUMENT_NEEDS = {"tools": TOOL_CALLING, "response_format": STRUCTURED_OUTPUT}


@dataclass(frozen=True, slots=True)
class Ask:
    """One call as the caller made it.

    Attributes:
        settings: Settings for this call alone.
        messages: The messages that the model will read.
        retrieval: The question of the query engine that makes the call, if one does.
        needs: Profile keys of what the call needs apart from its messages.
        args: Positional arguments for the chosen model.
        kwargs: Keyword arguments for the chosen model.
    """

    settings: CallSettings
    messages: Sequence[ChatMessage]
    retrieval: Retrieval | None
    needs: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def asked_in_messages(llm: RouteLLM, messages: Sequence[ChatMessage], **kwargs: Any) -> Ask:
    settings = call_settings(llm._routing, kwargs, messages=lambda: messages)
    _check_messages(messages)
    needs = tuple(need for name, need in _ARGUMENT_NEEDS.items() if kwargs.get(name))
    return Ask(settings, messages, retrieval_of_messages(messages), needs, (messages,), kwargs)


def asked_in_text(llm: RouteLLM, prompt: str, formatted: bool = False, **kwargs: Any) -> Ask:
    if not isinstance(prompt, str):
        raise PromptError(f"prompt is {type(prompt).__name__}, expected str")
    messages = [ChatMessage(role=MessageRole.USER, content=prompt)]
    settings = call_settings(llm._routing, kwargs, messages=lambda: messages)
    kwargs["formatted"] = formatted
    return Ask(settings, messages, retrieval_of_messages(messages), (), (prompt,), kwargs)


def asked_with_tools(
    llm: RouteLLM,
    tools: Sequence[BaseTool],
    user_msg: str | ChatMessage | None = None,
    chat_history: list[ChatMessage] | None = None,
    *args: Any,
    **kwargs: Any,
) -> Ask:
    messages = list(chat_history or ())
    if user_msg is not None:
        given = user_msg if isinstance(user_msg, ChatMessage) else ChatMessage(role=MessageRole.USER, content=user_msg)
        messages.append(given)
    settings = call_settings(llm._routing, kwargs, messages=lambda: messages)
    _check_messages(messages)
    # as the caller passed them: a model's own method may not know every argument that LlamaIndex has added since
    args = (tools, user_msg, chat_history, *args)
    return Ask(settings, messages, retrieval_of_messages(messages), (TOOL_CALLING,), args, kwargs)


def asked_in_prompt(llm: RouteLLM, prompt: BasePromptTemplate, **prompt_args: Any) -> Ask:
    prompt = mapped_once(prompt)
    settings = call_settings(llm._routing, prompt_args, messages=lambda: prompt.format_messages(llm=llm, **prompt_args))
    messages = prompt.format_messages(llm=llm, **prompt_args)
    retrieval = retrieval_of_prompt(prompt, prompt_args) or retrieval_of_messages(messages)
    return Ask(settings, messages, retrieval, (), (prompt,), prompt_args)


def asked_for_object(
    llm: RouteLLM,
    output_cls: type[Model],
    prompt: PromptTemplate,
    llm_kwargs: dict[str, Any] | None = None,
    **prompt_args: Any,
) -> Ask:
    llm_kwargs = dict(llm_kwargs or {})
    prompt = mapped_once(prompt)
    settings = call_settings(
        llm._routing, prompt_args, llm_kwargs, messages=lambda: prompt.format_messages(llm=llm, **prompt_args)
    )
    messages = prompt.format_messages(llm=llm, **prompt_args)
    retrieval = retrieval_of_prompt(prompt, prompt_args) or retrieval_of_messages(messages)
    args = (output_cls, prompt, llm_kwargs)
    return Ask(settings, messages, retrieval, (STRUCTURED_OUTPUT,), args, prompt_args)


def _check_messages(messages: Any) -> None:
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise PromptError(f"messages is {type(messages).__name__}: expected a sequence of ChatMessage")
    kinds = {type(m).__name__ for m in messages if not isinstance(m, ChatMessage)}
    if kinds:
        what = f"a {type(messages).__name__} of {', '.join(sorted(kinds))}"
        raise PromptError(f"messages is {what}: expected a sequence of ChatMessage")
    if not messages:
        raise PromptError("messages is empty: give at least one ChatMessage")


# -- media --


def media_needs(messages: Sequence[ChatMessage]) -> Iterator[str]:
    """Profile keys of the media in messages."""
    for message in messages:
        for block in _flat(message.blocks):
            yield from (need for kind, need in _BLOCK_NEEDS.items() if isinstance(block, kind))


def _flat(blocks: Sequence[Any]) -> Iterator[Any]:
    """Content blocks and the blocks inside them: a document to cite from may contain images."""
    for block in blocks:
        yield block
        inner = getattr(block, "content", None) or getattr(block, "cited_content", None)
        if isinstance(inner, list):
            yield from _flat(inner)
        elif inner is not None and not isinstance(inner, str):
            yield inner
