"""Real clients of providers, pointed at loopback servers; the tests of one that is not installed are skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
from llama_index.core.llms.llm import LLM

from tests.support.anthropic_server import AnthropicServer
from tests.support.loopback import LoopbackServer
from tests.support.ollama_server import OllamaServer
from tests.support.openai_server import OpenAIServer


@dataclass(frozen=True)
class Client:
    """A client class, and how to point an object of it at a server.

    Attributes:
        module: Where the class is; its distribution is what `pip install` takes.
        cls: Name of the class.
        server: Starts a server that speaks with it.
        arguments: Arguments for the class: of the server and the name of a model.
        models: Names of a strong and a weak model that the client knows.
        streams_usage: Whether a stream ends with its tokens.
    """

    module: str
    cls: str
    server: Callable[[], LoopbackServer]
    arguments: Callable[[Any, str], dict[str, Any]]
    models: tuple[str, str]
    streams_usage: bool = True

    def make(self, server: LoopbackServer, model: str, **options: Any) -> LLM:
        made: LLM = getattr(import_module(self.module), self.cls)(**self.arguments(server, model), **options)
        return made

    def skip_unless_installed(self) -> None:
        distribution = self.module.replace("llama_index.", "llama-index-").replace(".", "-").replace("_", "-")
        pytest.importorskip(self.module, reason=f"needs a real client: pip install {distribution}")


def _openai(server: OpenAIServer, model: str) -> dict[str, Any]:
    usage = {"stream_options": {"include_usage": True}}
    return {
        "model": model,
        "api_base": server.base_url,
        "api_key": f"sk-{model}",
        "max_retries": 0,
        "additional_kwargs": usage,
    }


CLIENTS = {
    "openai": Client("llama_index.llms.openai", "OpenAI", OpenAIServer, _openai, ("gpt-4.1", "gpt-4.1-mini")),
    "responses": Client(
        "llama_index.llms.openai",
        "OpenAIResponses",
        OpenAIServer,
        lambda server, model: {**_openai(server, model), "additional_kwargs": {}},
        ("gpt-4.1", "gpt-4.1-mini"),
    ),
    "openai-like": Client(
        "llama_index.llms.openai_like",
        "OpenAILike",
        OpenAIServer,
        lambda server, model: {
            **_openai(server, model),
            "is_chat_model": True,
            "is_function_calling_model": True,
            "context_window": 32_000,
        },
        ("qwen-large", "qwen-small"),
    ),
    "azure": Client(
        "llama_index.llms.azure_openai",
        "AzureOpenAI",
        OpenAIServer,
        lambda server, model: {
            "model": model,
            "engine": model,
            "azure_endpoint": server.origin,
            "api_version": "2025-01-01",
            "api_key": f"sk-{model}",
            "max_retries": 0,
            "additional_kwargs": {"stream_options": {"include_usage": True}},
        },
        ("gpt-4.1", "gpt-4.1-mini"),
    ),
    "anthropic": Client(
        "llama_index.llms.anthropic",
        "Anthropic",
        AnthropicServer,
        lambda server, model: {
            "model": model,
            "base_url": server.origin,
            "api_key": f"sk-ant-{model}",
            "max_retries": 0,
        },
        ("claude-opus-4-5", "claude-haiku-4-5"),
    ),
    "ollama": Client(
        "llama_index.llms.ollama",
        "Ollama",
        lambda: OllamaServer({"qwen3:8b": 32_000, "qwen3:1b": 8000}),
        lambda server, model: {"model": model, "base_url": server.origin},
        ("qwen3:8b", "qwen3:1b"),
    ),
}


@asynccontextmanager
async def serving(strong: str, weak: str) -> AsyncIterator[tuple[Callable[[], dict[str, Any]], dict[str, Any]]]:
    """What makes models by side, each of the client of that name, and their servers; all closed at the end."""
    kinds = {"strong": CLIENTS[strong], "weak": CLIENTS[weak]}
    for kind in kinds.values():
        kind.skip_unless_installed()
    servers = {side: kind.server() for side, kind in kinds.items()}
    made: list[LLM] = []

    def make() -> dict[str, Any]:
        models = {side: kind.make(servers[side], kind.models[side == "weak"]) for side, kind in kinds.items()}
        made.extend(models.values())
        return models

    try:
        yield make, servers
    finally:
        for model in made:
            await close(model)
        for server in servers.values():
            server.close()


@asynccontextmanager
async def sides(strong: str, weak: str) -> AsyncIterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Models and servers by side, each side of the client of that name; closed at the end."""
    async with serving(strong, weak) as (make, servers):
        yield make(), servers


async def close(model: LLM) -> None:
    """Close the connections of a client: an open one warns when it is collected, and warnings are errors."""
    for name in ("_client", "_aclient", "_async_client"):
        client = getattr(model, name, None)
        client = getattr(client, "_client", client) if type(client).__module__.startswith("ollama") else client
        for method in ("aclose", "close"):
            closing = getattr(client, method, None)
            if closing is not None:
                waiting = closing()
                if hasattr(waiting, "__await__"):
                    await waiting
                break
