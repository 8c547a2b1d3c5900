"""A scripted chat model for tests: everything a provider's model does, offline and foreseeable."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCall, ToolCallChunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import Field, PrivateAttr

Reply = str | AIMessage | Exception


class ScriptedChatModel(BaseChatModel):
    """Answers ``"MODEL answers: PROMPT"``, calls the tools it is given, fills the schemas it is given.

    It reports usage (a token a word), streams word by word, cuts at stop words, takes a ``model=`` per call, and
    accepts images, audio and files. A tool is called when the last message is the user's and tools are bound; its
    arguments come from the numbers and the quoted words of the prompt.

    Attributes:
        model: Its name; in ``response_metadata["model_name"]``.
        reply: A function from the messages to the answer, or to an exception that is raised instead.
        error: Raised by every call before the first token.
        error_after: Raise `error` only after this many words (of a stream; an invoke fails at once).
        delay: Seconds before an answer; asyncio sleep in async calls, so that they can be cancelled.
    """

    model: str = "scripted"
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    reply: Callable[[list[BaseMessage]], Reply] | None = Field(default=None, exclude=True)
    error: Exception | None = Field(default=None, exclude=True)
    error_after: int = 0
    delay: float = 0.0

    # shared by copies and bindings of the model: they are the same model
    _log: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _cancelled: list[int] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ScriptedChatModel:
        return self

    @property
    def _llm_type(self) -> str:
        return "scripted-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        name = kwargs.get("model", self.model)
        return LangSmithParams(ls_provider="scripted", ls_model_name=name, ls_model_type="chat")

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        return ["langchain", "chat_models", "scripted"]

    # --- what tests look at ---

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the model was called with, in order: messages, stop and keyword arguments."""
        with self._lock:
            return list(self._log)

    @property
    def cancelled(self) -> int:
        """How many calls were cancelled while they waited."""
        return len(self._cancelled)

    # --- a chat model's methods ---

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=[convert_to_openai_tool(t) for t in tools], **kwargs)

    def with_structured_output(
        self,
        schema: Any,
        *,
        include_raw: bool = False,
        method: str = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if kwargs:
            raise ValueError(f"Received unsupported arguments {kwargs}")
        json_schema = convert_to_json_schema(schema)
        llm = self.bind(
            response_format={"type": method, "json_schema": {"schema": json_schema, "strict": strict}},
            ls_structured_output_format={"kwargs": {"method": method}, "schema": schema},
        )
        is_model = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser: Any = PydanticOutputParser(pydantic_object=schema) if is_model else JsonOutputParser()
        if not include_raw:
            return llm | parser
        parsed = RunnablePassthrough.assign(parsed=lambda d: parser.invoke(d["raw"]), parsing_error=lambda _: None)
        return RunnableMap(raw=llm) | parsed.with_fallbacks(
            [RunnablePassthrough.assign(parsed=lambda _: None)], exception_key="parsing_error"
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._note(messages, stop, kwargs)
        if self.delay:
            time.sleep(self.delay)
        return self._result(self._answer(messages, stop, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._note(messages, stop, kwargs)
        await self._wait()
        return self._result(self._answer(messages, stop, kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self._note(messages, stop, kwargs)
        if self.delay:
            time.sleep(self.delay)
        yield from self._chunks(messages, stop, kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._note(messages, stop, kwargs)
        await self._wait()
        for chunk in self._chunks(messages, stop, kwargs):
            yield chunk
            await asyncio.sleep(0)

    # --- how it answers ---

    def _note(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> None:
        with self._lock:
            self._log.append({"messages": messages, "stop": stop, **kwargs})

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self._cancelled.append(1)
            raise

    def _answer(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], *, failing: bool = True
    ) -> AIMessage:
        if failing and self.error is not None:
            raise self.error
        reply = self.reply(messages) if self.reply is not None else None
        if isinstance(reply, Exception):
            raise reply
        prompt = next((m.text for m in reversed(messages) if m.type == "human"), "")
        calls: list[ToolCall] = []
        text: str
        if isinstance(reply, AIMessage):
            text, calls = reply.text, reply.tool_calls
        elif reply is not None:
            text = reply
        elif kwargs.get("response_format"):
            text = json.dumps(_filled(kwargs["response_format"]["json_schema"]["schema"], prompt))
        elif kwargs.get("tools") and not isinstance(messages[-1], ToolMessage):
            text, calls = "", [_tool_call(kwargs["tools"], kwargs.get("tool_choice"), prompt)]
        else:
            text = f"{self.model} answers: {prompt}"
        for word in stop or self.stop or []:
            text = text.partition(word)[0]
        read = sum(len(m.text.split()) for m in messages)
        written = max(1, len(text.split()))
        usage = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        metadata = {"model_name": kwargs.get("model") or self.model, "model_provider": "scripted"}
        return AIMessage(text, tool_calls=calls, usage_metadata=usage, response_metadata=metadata)

    def _result(self, message: AIMessage) -> ChatResult:
        usage = dict(message.usage_metadata or {})
        return ChatResult(
            generations=[ChatGeneration(message=message)], llm_output={"token_usage": usage, "model_name": self.model}
        )

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        late = self.error is not None and self.error_after > 0
        message = self._answer(messages, stop, kwargs, failing=not late)
        yield _chunk("")  # as providers do: first an empty one that only opens the message
        for i, word in enumerate(re.findall(r"\s*\S+", message.text)):
            if late and i == self.error_after:
                assert self.error is not None
                raise self.error
            yield _chunk(word)
        for i, call in enumerate(message.tool_calls):
            text = json.dumps(call["args"])
            pieces = ["", text[: len(text) // 2], text[len(text) // 2 :]]
            for j, piece in enumerate(pieces):
                name, id_ = (call["name"], call["id"]) if j == 0 else (None, None)
                yield _chunk("", ToolCallChunk(name=name, args=piece, id=id_, index=i, type="tool_call_chunk"))
        last = _chunk("")
        last.message.usage_metadata = message.usage_metadata  # type: ignore[attr-defined]
        last.message.response_metadata = message.response_metadata
        last.message.chunk_position = "last"  # type: ignore[attr-defined]
        yield last


def _chunk(text: str, call: ToolCallChunk | None = None) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=text, tool_call_chunks=[call] if call else []))


def _tool_call(tools: list[dict[str, Any]], choice: Any, prompt: str) -> ToolCall:
    functions = [t["function"] for t in tools]
    if isinstance(choice, dict):
        choice = choice.get("function", choice).get("name")
    named = [f for f in functions if f["name"] == choice] or [f for f in functions if f["name"] in prompt]
    function = (named or functions)[0]
    args = _filled(function.get("parameters", {}), prompt)
    return ToolCall(name=function["name"], args=args, id=f"call_{uuid4().hex[:8]}", type="tool_call")


def _filled(schema: dict[str, Any], prompt: str) -> Any:
    """A value that a JSON schema allows, from the numbers and quoted words of a prompt."""
    numbers = iter([int(n) for n in re.findall(r"-?\d+", prompt)])
    words = iter(re.findall(r"['\"]([^'\"]+)['\"]", prompt))

    def value(part: dict[str, Any]) -> Any:
        if "$ref" in part:
            return value(schema.get("$defs", {})[part["$ref"].rsplit("/", 1)[-1]])
        if "anyOf" in part:
            return value(part["anyOf"][0])
        if "enum" in part:
            return part["enum"][0]
        kind = part.get("type")
        if kind == "object" or "properties" in part:
            return {name: value(item) for name, item in part.get("properties", {}).items()}
        if kind in ("integer", "number"):
            return next(numbers, 1)
        if kind == "array":
            return [value(part.get("items", {"type": "string"}))]
        if kind == "boolean":
            return True
        return next(words, "something")

    return value(schema)
