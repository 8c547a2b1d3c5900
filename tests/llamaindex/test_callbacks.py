"""Callback handlers count a routed call exactly as a call of the bare model, whoever set them, wherever and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import llama_index.core
import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llamaindex_routellm import RouteLLM
from tests.llamaindex.clients import CLIENTS, serving
from tests.support.routers import ScriptedRouter

TEXT = "p=0.1 What is two plus two?"
PROMPT = PromptTemplate("Context: {context_str} Query: {query_str}")


class Passage(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="Four."), score=0.8)]


async def chat(llm: LLM) -> None:
    llm.chat([ChatMessage(content=TEXT)])


async def achat(llm: LLM) -> None:
    await llm.achat([ChatMessage(content=TEXT)])


async def stream_chat(llm: LLM) -> None:
    for _ in llm.stream_chat([ChatMessage(content=TEXT)]):
        pass


async def astream_chat(llm: LLM) -> None:
    async for _ in await llm.astream_chat([ChatMessage(content=TEXT)]):
        pass


async def complete(llm: LLM) -> None:
    llm.complete(TEXT)


async def astream_complete(llm: LLM) -> None:
    async for _ in await llm.astream_complete(TEXT):
        pass


async def predict(llm: LLM) -> None:
    llm.predict(PROMPT, context_str="", query_str=TEXT)


async def astream(llm: LLM) -> None:
    async for _ in await llm.astream(PROMPT, context_str="", query_str=TEXT):
        pass


async def query(llm: LLM) -> None:
    RetrieverQueryEngine(Passage(), get_response_synthesizer(llm=llm)).query(TEXT)


async def aquery(llm: LLM) -> None:
    await RetrieverQueryEngine(Passage(), get_response_synthesizer(llm=llm)).aquery(TEXT)


async def streamed_query(llm: LLM) -> None:
    engine = RetrieverQueryEngine(Passage(), get_response_synthesizer(llm=llm, streaming=True))
    for _ in engine.query(TEXT).response_gen:  # type: ignore[union-attr]
        pass


Ask = Callable[[LLM], Awaitable[None]]
ASKS = [chat, achat, stream_chat, astream_chat, complete, astream_complete, predict, astream]
ASKS += [query, aquery, streamed_query]
asks = pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)

# Makes the LLM that is asked of models that exist already: the bare weak model, or a RouteLLM.
Wrap = Callable[[dict[str, LLM]], LLM]


def bare(models: dict[str, LLM]) -> LLM:
    return models["weak"]


def routed(models: dict[str, LLM]) -> LLM:
    return RouteLLM(strong=models["strong"], weak=models["weak"], router=ScriptedRouter(), threshold=0.5)


def nested(models: dict[str, LLM]) -> LLM:
    return RouteLLM(strong=models["strong"], weak=routed(models), router=ScriptedRouter(), threshold=0.9)


def manager(*handlers: TokenCountingHandler) -> CallbackManager:
    return CallbackManager(list(handlers))


class Counters(list[TokenCountingHandler]):
    """Counting handlers, each with what it has counted."""

    def make(self) -> TokenCountingHandler:
        self.append(TokenCountingHandler(tokenizer=str.split))
        return self[-1]

    @property
    def counted(self) -> list[tuple[int, int, int]]:
        return [(len(c.llm_token_counts), c.prompt_llm_token_count, c.completion_llm_token_count) for c in self]


@pytest.fixture(autouse=True)
def _global_handler() -> Iterator[None]:
    before = llama_index.core.global_handler
    yield
    llama_index.core.global_handler = before


# -- who sets a handler, and when; each gives what its counters have counted --
Making = Callable[[], dict[str, LLM]]


async def settings_of_each_request(make: Making, wrap: Wrap, ask: Ask) -> Any:
    counters = Counters()
    Settings.llm = wrap(make())
    for _ in range(2):
        Settings.callback_manager = manager(counters.make())
        await ask(Settings.llm)
    return counters.counted


async def settings_before_the_models(make: Making, wrap: Wrap, ask: Ask) -> Any:
    counters = Counters()
    Settings.callback_manager = manager(counters.make())
    models = make()
    for _ in range(2):
        Settings.llm = wrap(models)
        await ask(Settings.llm)
        Settings.callback_manager = manager(counters.make())
    Settings.llm = wrap(models)
    await ask(Settings.llm)
    return counters.counted


async def set_on_the_llm(make: Making, wrap: Wrap, ask: Ask) -> Any:
    counters = Counters()
    llm = wrap(make())
    for _ in range(2):
        llm.callback_manager = manager(counters.make())
        await ask(llm)
    llm.callback_manager = manager()
    await ask(llm)
    return counters.counted


async def a_new_wrapper_for_each_request(make: Making, wrap: Wrap, ask: Ask) -> Any:
    counters = Counters()
    models = make()
    for _ in range(2):
        llm = wrap(models)
        llm.callback_manager = manager(counters.make())
        await ask(llm)
    return counters.counted


async def a_global_handler(make: Making, wrap: Wrap, ask: Ask) -> Any:
    counters = Counters()
    llama_index.core.global_handler = counters.make()
    llm = wrap(make())
    await ask(llm)
    await ask(llm)
    return counters.counted


async def a_global_handler_that_comes_later(make: Making, wrap: Wrap, ask: Ask) -> Any:
    counters = Counters()
    Settings.llm = wrap(make())
    llama_index.core.global_handler = counters.make()
    await ask(Settings.llm)
    _ = Settings.callback_manager  # made when it is asked for
    await ask(Settings.llm)
    return counters.counted


async def a_global_handler_and_settings(make: Making, wrap: Wrap, ask: Ask) -> Any:
    counters = Counters()

    class Global(TokenCountingHandler):
        """Another class: LlamaIndex takes no two handlers of one."""

    counters.append(Global(tokenizer=str.split))
    llama_index.core.global_handler = counters[0]
    Settings.llm = wrap(make())
    for _ in range(2):
        Settings.callback_manager = manager(counters.make())
        await ask(Settings.llm)
    return counters.counted


async def no_handler(make: Making, wrap: Wrap, ask: Ask) -> Any:
    llm = wrap(make())
    await ask(llm)
    return llm.callback_manager.handlers


async def requests_at_once(make: Making, wrap: Wrap, ask: Ask) -> Any:
    """Each with a wrapper of its own; the models are shared by the routed ones alone, which a bare model cannot be."""
    counters = Counters()
    shared = make()

    async def request() -> None:
        llm = wrap(make() if wrap is bare else shared)
        llm.callback_manager = manager(counters.make())
        await ask(llm)
        await asyncio.sleep(0)
        await ask(llm)

    await asyncio.gather(*(request() for _ in range(3)))
    return counters.counted


SCENES = [
    settings_of_each_request,
    settings_before_the_models,
    set_on_the_llm,
    a_new_wrapper_for_each_request,
    a_global_handler,
    a_global_handler_that_comes_later,
    a_global_handler_and_settings,
    no_handler,
    requests_at_once,
]
scenes = pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)


async def counted(client: str, scene: Any, wrap: Wrap, ask: Ask) -> Any:
    Settings._callback_manager = llama_index.core.global_handler = None
    async with serving(client, client) as (make, _):
        return await scene(make, wrap, ask)


@asks
@scenes
@pytest.mark.parametrize("wrap", [routed, nested], ids=lambda wrap: wrap.__name__)
async def test_as_with_the_bare_model(scene: Any, ask: Ask, wrap: Wrap) -> None:
    expected = await counted("openai", scene, bare, ask)
    assert await counted("openai", scene, wrap, ask) == expected
    # a response synthesizer puts the manager of `Settings` on its LLM, so it sees no other
    if scene is not no_handler and ask not in (query, aquery, streamed_query):
        assert any(count for count, _, _ in expected)


@scenes
@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "openai"])
async def test_of_every_client(client: str, scene: Any) -> None:
    for ask in (achat, stream_chat, query):
        assert await counted(client, scene, routed, ask) == await counted(client, scene, bare, ask), ask.__name__
