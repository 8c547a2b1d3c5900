"""Callback handlers count a routed call exactly as a call of the bare model, whoever set them, wherever and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import llama_index.core
import pytest
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms.llm import LLM

from llamaindex_routellm import RouteLLM
from tests.llamaindex.clients import CLIENTS, serving
from tests.llamaindex.clients.ways import QUERIES, Way, achat, astream_chat, chat, query, stream_chat, ways
from tests.support.routers import ScriptedRouter

TEXT = "p=0.1 What is two plus two?"
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


async def settings_of_each_request(make: Making, wrap: Wrap, ask: Way) -> Any:
    counters = Counters()
    Settings.llm = wrap(make())
    for _ in range(2):
        Settings.callback_manager = manager(counters.make())
        await ask(Settings.llm, TEXT)
    return counters.counted


async def settings_before_the_models(make: Making, wrap: Wrap, ask: Way) -> Any:
    counters = Counters()
    Settings.callback_manager = manager(counters.make())
    models = make()
    for _ in range(2):
        Settings.llm = wrap(models)
        await ask(Settings.llm, TEXT)
        Settings.callback_manager = manager(counters.make())
    Settings.llm = wrap(models)
    await ask(Settings.llm, TEXT)
    return counters.counted


async def set_on_the_llm(make: Making, wrap: Wrap, ask: Way) -> Any:
    counters = Counters()
    llm = wrap(make())
    for _ in range(2):
        llm.callback_manager = manager(counters.make())
        await ask(llm, TEXT)
    llm.callback_manager = manager()
    await ask(llm, TEXT)
    return counters.counted


async def a_new_wrapper_for_each_request(make: Making, wrap: Wrap, ask: Way) -> Any:
    counters = Counters()
    models = make()
    for _ in range(2):
        llm = wrap(models)
        llm.callback_manager = manager(counters.make())
        await ask(llm, TEXT)
    return counters.counted


async def a_global_handler(make: Making, wrap: Wrap, ask: Way) -> Any:
    counters = Counters()
    llama_index.core.global_handler = counters.make()
    llm = wrap(make())
    await ask(llm, TEXT)
    await ask(llm, TEXT)
    return counters.counted


async def a_global_handler_that_comes_later(make: Making, wrap: Wrap, ask: Way) -> Any:
    counters = Counters()
    Settings.llm = wrap(make())
    llama_index.core.global_handler = counters.make()
    await ask(Settings.llm, TEXT)
    _ = Settings.callback_manager  # made when it is asked for
    await ask(Settings.llm, TEXT)
    return counters.counted


async def a_global_handler_and_settings(make: Making, wrap: Wrap, ask: Way) -> Any:
    counters = Counters()

    class Global(TokenCountingHandler):
        """Another class: LlamaIndex takes no two handlers of one."""

    counters.append(Global(tokenizer=str.split))
    llama_index.core.global_handler = counters[0]
    Settings.llm = wrap(make())
    for _ in range(2):
        Settings.callback_manager = manager(counters.make())
        await ask(Settings.llm, TEXT)
    return counters.counted


async def no_handler(make: Making, wrap: Wrap, ask: Way) -> Any:
    llm = wrap(make())
    await ask(llm, TEXT)
    return llm.callback_manager.handlers


async def requests_at_once(make: Making, wrap: Wrap, ask: Way) -> Any:
    """Each with a wrapper of its own; the models are shared by the routed ones alone, which a bare model cannot be."""
    counters = Counters()
    shared = make()

    async def request() -> None:
        llm = wrap(make() if wrap is bare else shared)
        llm.callback_manager = manager(counters.make())
        await ask(llm, TEXT)
        await asyncio.sleep(0)
        await ask(llm, TEXT)

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


async def counted(client: str, scene: Any, wrap: Wrap, ask: Way) -> Any:
    Settings._callback_manager = llama_index.core.global_handler = None
    async with serving(client, client) as (make, _):
        return await scene(make, wrap, ask)


@ways
@scenes
async def test_as_with_the_bare_model(scene: Any, ask: Way) -> None:
    expected = await counted("openai", scene, bare, ask)
    assert await counted("openai", scene, routed, ask) == expected
    # a response synthesizer puts the manager of `Settings` on its LLM, so it sees no other
    if scene is not no_handler and ask not in QUERIES:
        assert any(count for count, _, _ in expected)


@scenes
async def test_of_a_routed_model_within_another(scene: Any) -> None:
    for ask in (chat, astream_chat, query):
        assert await counted("openai", scene, nested, ask) == await counted("openai", scene, bare, ask), ask.__name__


@scenes
@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "openai"])
async def test_of_every_client(client: str, scene: Any) -> None:
    for ask in (achat, stream_chat, query):
        assert await counted(client, scene, routed, ask) == await counted(client, scene, bare, ask), ask.__name__
