"""What the LangChain examples run on: real models where there is a key or a server, else stand-ins, which say so.

With ``OPENAI_API_KEY``, or the address of a server that speaks OpenAI's protocol (Ollama, vLLM, llama.cpp), `models`
gives real models: ``ROUTELLM_STRONG_URL`` and ``ROUTELLM_WEAK_URL``, or ``OPENAI_BASE_URL`` for both;
``ROUTELLM_STRONG`` and ``ROUTELLM_WEAK`` name the models, ``ROUTELLM_STRONG_KEY`` and ``ROUTELLM_WEAK_KEY`` hold keys
of their own. Without, it gives stand-ins: no models, but a few rules that quote the given text, so that everything
around them can be seen to work. The routing is the real thing either way.
"""

from __future__ import annotations

import json
import os
import re
import sys
from binascii import crc32
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from server_errors import explain_server_errors


def models() -> tuple[BaseChatModel, BaseChatModel]:
    """The strong and the weak model; which they are is printed."""
    if is_real():
        strong, weak = _real("STRONG", "gpt-4.1"), _real("WEAK", "gpt-4.1-mini")
        print(f"Real models: strong {strong.model_name}, weak {weak.model_name}\n")
        explain_server_errors()
        return strong, weak
    print("No OPENAI_API_KEY: STAND-INS answer, by quoting what they are given. The routing is real.\n")
    return StandInChatModel(side="strong"), StandInChatModel(side="weak")


def is_real() -> bool:
    """Whether real models are to answer."""
    names = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ROUTELLM_STRONG_URL", "ROUTELLM_WEAK_URL")
    return any(os.environ.get(name) for name in names)


def _real(side: str, default: str) -> Any:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    # a local server wants no key, the client does
    key = os.environ.get(f"ROUTELLM_{side}_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
    return ChatOpenAI(
        model=os.environ.get(f"ROUTELLM_{side}", default),
        base_url=os.environ.get(f"ROUTELLM_{side}_URL") or os.environ.get("OPENAI_BASE_URL"),
        api_key=SecretStr(key),
        stream_usage=True,  # tokens of streamed answers, for the savings
    )


class Progress(BaseCallbackHandler):
    """Says on a terminal how many answers are there: a small machine may take minutes for a batch.

    Args:
        total: How many answers are awaited.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Count an answer."""
        self._done += 1
        if sys.stderr.isatty():
            end = "\n" if self._done == self._total else ""
            print(f"\r{self._done} of {self._total} answers", end=end, file=sys.stderr, flush=True)


class StandInChatModel(BaseChatModel):
    """No model: quotes the sentence of its context that shares most words with the question, and says so.

    Given tools, it calls the one whose name stands in the question (or the one it must call), with numbers and names
    found there, and then quotes the result.
    """

    side: str

    @property
    def _llm_type(self) -> str:
        return "stand-in"

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(
            tools=[convert_to_openai_tool(tool)["function"] for tool in tools], must_call=bool(tool_choice)
        )

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages, **kwargs))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._answer(messages, **kwargs)
        chunks = [AIMessageChunk(content=piece) for piece in re.findall(r"\S+\s*", answer.text)]
        for i, call in enumerate(answer.tool_calls):
            part = ToolCallChunk(
                name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=i, type="tool_call_chunk"
            )
            chunks.append(AIMessageChunk(content="", tool_call_chunks=[part]))
        chunks.append(
            AIMessageChunk(content="", usage_metadata=answer.usage_metadata, response_metadata=answer.response_metadata)
        )
        for chunk in chunks:
            yield ChatGenerationChunk(message=chunk)

    def _answer(
        self, messages: list[BaseMessage], tools: Sequence[dict[str, Any]] = (), must_call: bool = False, **_: Any
    ) -> AIMessage:
        question = next((m.text for m in reversed(messages) if m.type == "human"), "")
        calls = [] if isinstance(messages[-1], ToolMessage) else _calls(question, tools, must_call)
        text = "" if calls else f"[stand-in for the {self.side} model] {_reply(messages, question)}"
        read, written = sum(len(_words(m.text)) for m in messages), len(_words(text)) + 10 * len(calls)
        return AIMessage(
            text,
            tool_calls=calls,
            usage_metadata=UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written),
            response_metadata={"model_name": f"stand-in-{self.side}"},
        )


class WordEmbeddings(Embeddings):
    """Which words a text has, hashed into 1024 places: no real embedding, but local and enough for a few pages."""

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * 1024
        for word in _content(text):
            vector[crc32(word.encode()) % 1024] += 1.0
        return vector if any(vector) else [1.0] * 1024

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def _reply(messages: list[BaseMessage], question: str) -> str:
    results = [m.text for m in messages if isinstance(m, ToolMessage)]
    if isinstance(messages[-1], ToolMessage):
        return results[-1]
    context = "\n".join(m.text.partition("Context:")[2] for m in messages if m.type == "system")
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", context) if s.strip()]
    if not sentences:
        return f"You said: {question.strip()[:200]}"
    words = _content(question)
    return " ".join(max(sentences, key=lambda s: (len(words & _content(s)), -len(s))).split())


def _calls(question: str, tools: Sequence[dict[str, Any]], must: bool) -> list[ToolCall]:
    asked = _content(question)
    named = [tool for tool in tools if asked & _content(tool["name"].replace("_", " "))] or (
        list(tools) if must else []
    )
    return [
        ToolCall(name=tool["name"], args=_arguments(tool, question), id=f"call_{i}", type="tool_call")
        for i, tool in enumerate(named[:1])
    ]


def _arguments(tool: dict[str, Any], question: str) -> dict[str, Any]:
    """Numbers of the question for the numbers that a tool wants, its names for the strings, in order."""
    numbers = iter(re.findall(r"\d+(?:\.\d+)?", question))
    names = iter(re.findall(r"\b(?!What|How|Please|Send)[A-Z]\w+(?: [A-Z]\w+)*", question))
    found: dict[str, Any] = {}
    for name, schema in tool.get("parameters", {}).get("properties", {}).items():
        if schema.get("type") in ("integer", "number"):
            number = float(next(numbers, "0"))
            found[name] = int(number) if schema["type"] == "integer" else number
        else:
            found[name] = next(names, question)
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


_COMMON = frozenset(
    _words("a an and are as at be by do does for from how in is it of on one or that the they to was what when with")
)


def _content(text: str) -> set[str]:
    """The words of a text that say something, in the singular."""
    return {word.rstrip("s") for word in _words(text) if word not in _COMMON}
