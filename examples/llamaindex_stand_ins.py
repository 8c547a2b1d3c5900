"""What the LlamaIndex examples run on: real models where there is a key or a server, else stand-ins, which say so.

With ``OPENAI_API_KEY``, or the address of a server that speaks OpenAI's protocol (Ollama, vLLM, llama.cpp), `models`
gives real models: ``ROUTELLM_STRONG_URL`` and ``ROUTELLM_WEAK_URL``, or ``OPENAI_BASE_URL`` for both;
``ROUTELLM_STRONG`` and ``ROUTELLM_WEAK`` name the models, ``ROUTELLM_STRONG_KEY`` and ``ROUTELLM_WEAK_KEY`` hold keys
of their own. Without, it gives stand-ins: no models, but a few rules that quote the given text, so that everything
around them can be seen to work. The routing is the real thing either way.
"""

from __future__ import annotations

import os
import re
from binascii import crc32
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
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
from llama_index.core.llms import LLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from server_errors import explain_server_errors


def models() -> tuple[LLM, LLM]:
    """The strong and the weak model; which they are is printed."""
    names = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ROUTELLM_STRONG_URL", "ROUTELLM_WEAK_URL")
    if any(os.environ.get(name) for name in names):
        strong, weak = _openai("STRONG", "gpt-4.1"), _openai("WEAK", "gpt-4.1-mini")
        print(f"Real models: strong {strong.metadata.model_name}, weak {weak.metadata.model_name}\n")
        explain_server_errors()
        return strong, weak
    print("No OPENAI_API_KEY: STAND-INS answer, by quoting what they are given. The routing is real.\n")
    return StandInLLM(name="strong"), StandInLLM(name="weak")


def _openai(side: str, default: str) -> LLM:
    return compatible(
        model=os.environ.get(f"ROUTELLM_{side}", default),
        # a local server wants no key, the client does
        api_key=os.environ.get(f"ROUTELLM_{side}_KEY") or os.environ.get("OPENAI_API_KEY") or "none",
        api_base=os.environ.get(f"ROUTELLM_{side}_URL") or os.environ.get("OPENAI_BASE_URL"),
        # tokens of streamed answers, for the savings
        additional_kwargs={"stream_options": {"include_usage": True}},
    )


def compatible(**options: Any) -> LLM:
    """A model of any server that speaks OpenAI's protocol; the options are those of LlamaIndex's `OpenAI`."""
    from llama_index.llms.openai import OpenAI

    class Compatible(OpenAI):
        """Any model that speaks OpenAI's protocol: OpenAI's class knows the abilities of OpenAI's own only."""

        @property
        def metadata(self) -> LLMMetadata:
            try:
                return super().metadata
            except ValueError:
                return LLMMetadata(
                    context_window=8192,
                    num_output=self.max_tokens or -1,
                    is_chat_model=True,
                    is_function_calling_model=True,
                    model_name=self.model,
                )

    return Compatible(**options)


class WordEmbedding(BaseEmbedding):
    """Which words a text has, hashed into 1024 places: no real embedding, but local and enough for a few pages."""

    model_name: str = "words"

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * 1024
        for word in _content(text):
            vector[crc32(word.encode()) % 1024] += 1.0
        return vector if any(vector) else [1.0] * 1024

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


class StandInLLM(FunctionCallingLLM):
    """No model: quotes the sentence of its prompt that shares most words with the question, and says so.

    Given tools, it calls those whose name stands in the task, with numbers and names found in the text, and then
    quotes their results.
    """

    name: str

    @classmethod
    def class_name(cls) -> str:
        return "StandInLLM"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=32_000,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=f"stand-in-{self.name}",
        )

    # -- the rules --

    def _say(self, messages: Sequence[ChatMessage]) -> str:
        tail = list(messages)
        while tail and tail[-1].role == MessageRole.TOOL:
            tail.pop()
        results = [m.content or "" for m in messages[len(tail) :]]
        if results:
            return f"[stand-in for the {self.name} model] {' '.join(results)}"
        text = next((m.content or "" for m in reversed(messages) if m.role == MessageRole.USER), "")
        question = re.search(r"(?:Query|Question): (.*)", text)
        asked = question.group(1) if question else text
        context = text.split("---------------------")[1] if text.count("---------------------") >= 2 else ""
        context = re.sub(r"(?m)^(?:\w+: |#).*$", "", context)  # metadata and headings
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", context) if s.strip()]
        if not sentences:
            return f"[stand-in for the {self.name} model] You said: {asked.strip()[:200]}"
        words = _content(asked)
        best = max(sentences, key=lambda s: (len(words & _content(s)), -len(s)))
        return f"[stand-in for the {self.name} model] {' '.join(best.split())}"

    def _calls(self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]], must: bool) -> list[Any]:
        if messages and messages[-1].role == MessageRole.TOOL:
            return []
        text = next((m.content or "" for m in reversed(messages) if m.role == MessageRole.USER), "")
        named = [t for t in tools if must or set(_words(t["name"].replace("_", " "))) & set(_words(text))]
        return [{"id": f"call_{i}", "name": t["name"], "args": _arguments(t, text)} for i, t in enumerate(named)]

    def _answer(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[dict[str, Any]] = (),
        tool_required: bool = False,
        **_: Any,
    ) -> ChatResponse:
        calls = self._calls(messages, tools, tool_required)
        text = "" if calls else self._say(messages)
        extra = {"tool_calls": calls} if calls else {}
        message = ChatMessage(role=MessageRole.ASSISTANT, content=text, additional_kwargs=extra)
        read = sum(len(_words(m.content or "")) for m in messages)
        usage = {"prompt_tokens": read, "completion_tokens": len(_words(text)) + 10 * len(calls)}
        return ChatResponse(message=message, raw={"usage": usage})

    # -- the public face of an LLM --

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages, **kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages, **kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        return self._stream(self._answer(messages, **kwargs))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        async def pieces() -> ChatResponseAsyncGen:
            for piece in self._stream(self._answer(messages, **kwargs)):
                yield piece

        return pieces()

    @staticmethod
    def _stream(answer: ChatResponse) -> ChatResponseGen:
        text = ""
        for delta in re.findall(r"\S+\s*", answer.message.content or "") or [""]:
            text += delta
            message = answer.message.model_copy(update={"blocks": []})
            message.content = text
            yield answer.model_copy(update={"message": message, "delta": delta})

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(self._answer([ChatMessage(content=prompt)]))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(self._answer([ChatMessage(content=prompt)]))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        pieces = self._stream(self._answer([ChatMessage(content=prompt)]))

        def completions() -> CompletionResponseGen:
            for piece in pieces:
                yield _completion(piece)

        return completions()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        async def completions() -> CompletionResponseAsyncGen:
            for piece in self._stream(self._answer([ChatMessage(content=prompt)])):
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
            messages.append(user_msg if isinstance(user_msg, ChatMessage) else ChatMessage(content=user_msg))
        described = [{"name": t.metadata.name, **t.metadata.get_parameters_dict()} for t in tools]
        return {"messages": messages, "tools": described, "tool_required": tool_required}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        calls = response.message.additional_kwargs.get("tool_calls", [])
        if not calls and error_on_no_tool_call:
            raise ValueError("the stand-in called no tool")
        return [ToolSelection(tool_id=c["id"], tool_name=c["name"], tool_kwargs=c["args"]) for c in calls]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


_COMMON = frozenset(
    _words("a an and are as at be by do does for from how in is it of on one or that the they to was what when with")
)


def _content(text: str) -> set[str]:
    """The words of a text that say something, in the singular."""
    return {word.rstrip("s") for word in _words(text) if word not in _COMMON}


def _arguments(tool: dict[str, Any], text: str) -> dict[str, Any]:
    """Numbers of the text for the numbers that a tool wants, its names for the strings, in order."""
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]
    names = re.findall(r"\b[A-Z]\w+(?: [A-Z]\w+)+", text)
    found: dict[str, Any] = {}
    for name, schema in tool.get("properties", {}).items():
        kind = schema.get("type")
        if kind in ("integer", "number") and numbers:
            number = numbers.pop(0)
            found[name] = int(number) if kind == "integer" else number
        elif kind == "string":
            found[name] = names.pop(0) if names else text
    return found


def _completion(answer: ChatResponse) -> CompletionResponse:
    return CompletionResponse(text=answer.message.content or "", delta=answer.delta, raw=answer.raw)
