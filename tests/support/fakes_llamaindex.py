"""A LlamaIndex LLM for tests that behaves as a provider's does: events, tools in its own form, streams, failures."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from pydantic import PrivateAttr


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: Streamed word by word.
        tools: (name, arguments) of the tools it calls, all at once.
        error: Raised in place of the answer; in a stream after `error_after` pieces.
        error_after: Pieces that a stream gives before `error`.
        usage: (input tokens, output tokens); None: the model reports none.
        empty_first: A stream opens with a piece without a token, as OpenAI's do.
    """

    text: str = ""
    tools: Sequence[tuple[str, dict[str, Any]]] = ()
    error: BaseException | None = None
    error_after: int = 0
    usage: tuple[int, int] | None = (10, 5)
    empty_first: bool = False


@dataclass(frozen=True)
class Seen:
    """One call as it reached the model."""

    method: str
    messages: list[ChatMessage] = field(default_factory=list)
    prompt: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


class FakeLLM(FunctionCallingLLM):
    """Answers by script: the next of `replies`, else what `respond` says, else ``"NAME: last user message"``.

    Its tool calls are marked as its own, and it refuses to parse those of another, so that a test sees who parsed what.
    With `window`, `is_chat` and `has_tools` it plays models of other abilities.
    """

    name: str
    window: int = 4096
    num_output: int = 256
    is_chat: bool = True
    has_tools: bool = True
    api_key: str | None = None
    delay: float = 0.0

    _replies: list[Reply] = PrivateAttr()
    _respond: Callable[[list[ChatMessage]], Reply | str] | None = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _seen: list[Seen] = PrivateAttr(default_factory=list)
    _cancelled: int = PrivateAttr(default=0)
    _closed: int = PrivateAttr(default=0)

    def __init__(
        self,
        name: str = "fake",
        *replies: Reply | str | BaseException,
        respond: Callable[[list[ChatMessage]], Reply | str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(name=name, **fields)
        self._replies = [_reply(r) for r in replies]
        self._respond = respond

    @classmethod
    def class_name(cls) -> str:
        return "FakeLLM"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=self.window,
            num_output=self.num_output,
            is_chat_model=self.is_chat,
            is_function_calling_model=self.has_tools,
            model_name=self.name,
        )

    @property
    def seen(self) -> list[Seen]:
        """Every call so far, in order of arrival."""
        with self._lock:
            return list(self._seen)

    @property
    def cancelled(self) -> int:
        """Calls that were cancelled while they waited."""
        return self._cancelled

    @property
    def closed(self) -> int:
        """Streams that were closed before their end."""
        return self._closed

    def reply_next(self, *replies: Reply | str | BaseException) -> None:
        with self._lock:
            self._replies += [_reply(r) for r in replies]

    # -- the model --

    def _next(self, seen: Seen) -> Reply:
        with self._lock:
            self._seen.append(seen)
            if self._replies:
                return self._replies.pop(0)
        if self._respond is not None:
            return _reply(self._respond(seen.messages))
        asked = [m.content or "" for m in seen.messages if m.role == MessageRole.USER]
        return Reply(f"{self.name}: {asked[-1] if asked else ''}")

    def _chat_response(self, reply: Reply, text: str, delta: str | None = None) -> ChatResponse:
        extra: dict[str, Any] = {}
        if reply.tools:
            extra["tool_calls"] = [
                {"of": self.name, "id": f"{self.name}-{i}", "name": name, "args": args}
                for i, (name, args) in enumerate(reply.tools)
            ]
        message = ChatMessage(role=MessageRole.ASSISTANT, content=text, additional_kwargs=extra)
        return ChatResponse(message=message, delta=delta, raw=self._raw(reply))

    def _raw(self, reply: Reply) -> dict[str, Any]:
        if reply.usage is None:
            return {"model": self.name}
        read, written = reply.usage
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return {"model": self.name, "usage": usage}

    def _pieces(self, reply: Reply) -> Generator[ChatResponse, None, None]:
        words = reply.text.split(" ") if reply.text else []
        if reply.empty_first:
            yield self._chat_response(Reply(usage=None), "", "")
        text = ""
        for i, word in enumerate(words):
            if reply.error is not None and i >= reply.error_after:
                raise reply.error
            delta = word if i == 0 else f" {word}"
            text += delta
            last = i == len(words) - 1
            yield self._chat_response(reply if last else Reply(usage=None), text, delta)
        if reply.error is not None:
            raise reply.error
        if reply.tools and not words:
            yield self._chat_response(reply, "", "")

    def _chat(self, method: str, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        reply = self._next(Seen(method, list(messages), kwargs=kwargs))
        if self.delay:
            time.sleep(self.delay)
        if reply.error is not None:
            raise reply.error
        return self._chat_response(reply, reply.text)

    async def _achat(self, method: str, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        reply = self._next(Seen(method, list(messages), kwargs=kwargs))
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        if reply.error is not None:
            raise reply.error
        return self._chat_response(reply, reply.text)

    def _streamed(
        self, method: str, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> Generator[ChatResponse, None, None]:
        reply = self._next(Seen(method, list(messages), kwargs=kwargs))
        try:
            yield from self._pieces(reply)
        except GeneratorExit:
            self._closed += 1
            raise

    async def _astreamed(
        self, method: str, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> AsyncGenerator[ChatResponse, None]:
        reply = self._next(Seen(method, list(messages), kwargs=kwargs))
        try:
            for piece in self._pieces(reply):
                await asyncio.sleep(self.delay)
                yield piece
        except (GeneratorExit, asyncio.CancelledError):
            self._closed += 1
            raise

    # -- its public face --

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._chat("chat", messages, kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return await self._achat("achat", messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        return self._streamed("stream_chat", messages, kwargs)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        return self._astreamed("astream_chat", messages, kwargs)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(self._chat("complete", [_user(prompt)], {"formatted": formatted, **kwargs}))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(await self._achat("acomplete", [_user(prompt)], {"formatted": formatted, **kwargs}))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        pieces = self._streamed("stream_complete", [_user(prompt)], {"formatted": formatted, **kwargs})

        def completions() -> CompletionResponseGen:
            for piece in pieces:
                yield _completion(piece)

        return completions()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        pieces = self._astreamed("astream_complete", [_user(prompt)], {"formatted": formatted, **kwargs})

        async def completions() -> CompletionResponseAsyncGen:
            async for piece in pieces:
                yield _completion(piece)

        return completions()

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages.append(user_msg if isinstance(user_msg, ChatMessage) else _user(user_msg))
        form = {f"tools_for_{self.name}": [t.metadata.name for t in tools]}
        return {"messages": messages, **form, "parallel": allow_parallel_tool_calls, **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        calls = response.message.additional_kwargs.get("tool_calls", [])
        foreign = [c["of"] for c in calls if c["of"] != self.name]
        assert not foreign, f"{self.name} was given the tool calls of {foreign[0]} to parse"
        if not calls and error_on_no_tool_call:
            raise ValueError(f"{self.name} found no tool call")
        return [ToolSelection(tool_id=c["id"], tool_name=c["name"], tool_kwargs=c["args"]) for c in calls]


class SurvivableError(Exception):
    """Says by its status that another model could answer."""

    status_code = 503


class RefusedError(Exception):
    """Says by its status that the request is at fault."""

    status_code = 400


def _reply(given: Reply | str | BaseException) -> Reply:
    if isinstance(given, Reply):
        return given
    return Reply(error=given) if isinstance(given, BaseException) else Reply(given)


def _user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def _completion(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(text=response.message.content or "", delta=response.delta, raw=response.raw)


def fake(model: LLM) -> FakeLLM:
    """A side of a routed model as the fake that it is, which types cannot know."""
    assert isinstance(model, FakeLLM)
    return model
