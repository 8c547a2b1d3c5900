"""The ways in which an LLM is asked; each gives the answer, or its last piece."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

PROMPT = PromptTemplate("Context: {context_str} Query: {query_str}")

Way = Callable[[LLM, str], Awaitable[Any]]


class Passages(BaseRetriever):
    """Finds the same passages for every question."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = texts

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=text), score=0.8) for text in self.texts]


def engine(llm: LLM, *texts: str, mode: ResponseMode = ResponseMode.COMPACT, streaming: bool = False) -> Any:
    """A query engine that answers from these passages."""
    synthesizer = get_response_synthesizer(llm=llm, response_mode=mode, streaming=streaming)
    return RetrieverQueryEngine(Passages(*(texts or ("Four.",))), synthesizer)


async def chat(llm: LLM, text: str) -> Any:
    return llm.chat([ChatMessage(content=text)])


async def achat(llm: LLM, text: str) -> Any:
    return await llm.achat([ChatMessage(content=text)])


async def stream_chat(llm: LLM, text: str) -> Any:
    return list(llm.stream_chat([ChatMessage(content=text)]))[-1]


async def astream_chat(llm: LLM, text: str) -> Any:
    return [piece async for piece in await llm.astream_chat([ChatMessage(content=text)])][-1]


async def complete(llm: LLM, text: str) -> Any:
    return llm.complete(text)


async def acomplete(llm: LLM, text: str) -> Any:
    return await llm.acomplete(text)


async def stream_complete(llm: LLM, text: str) -> Any:
    return list(llm.stream_complete(text))[-1]


async def astream_complete(llm: LLM, text: str) -> Any:
    return [piece async for piece in await llm.astream_complete(text)][-1]


async def predict(llm: LLM, text: str) -> Any:
    return llm.predict(PROMPT, context_str="", query_str=text)


async def apredict(llm: LLM, text: str) -> Any:
    return await llm.apredict(PROMPT, context_str="", query_str=text)


async def stream(llm: LLM, text: str) -> Any:
    return list(llm.stream(PROMPT, context_str="", query_str=text))[-1]


async def astream(llm: LLM, text: str) -> Any:
    return [token async for token in await llm.astream(PROMPT, context_str="", query_str=text)][-1]


async def query(llm: LLM, text: str) -> Any:
    return engine(llm).query(text)


async def aquery(llm: LLM, text: str) -> Any:
    return await engine(llm).aquery(text)


async def streamed_query(llm: LLM, text: str) -> Any:
    return list(engine(llm, streaming=True).query(text).response_gen)[-1]


async def astreamed_query(llm: LLM, text: str) -> Any:
    response = await engine(llm, streaming=True).aquery(text)
    return [token async for token in response.response_gen][-1]


# those whose answers have a place for a decision
ANSWERS: list[Way] = [chat, achat, stream_chat, astream_chat, complete, acomplete, stream_complete, astream_complete]
QUERIES: list[Way] = [query, aquery, streamed_query, astreamed_query]
WAYS: list[Way] = [*ANSWERS, predict, apredict, stream, astream, *QUERIES]

ways = pytest.mark.parametrize("ask", WAYS, ids=lambda ask: ask.__name__)
