"""The chat APIs of five providers on loopback, each with the real LangChain client that speaks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from tests.support.anthropic_server import AnthropicServer
from tests.support.google_server import GoogleServer
from tests.support.loopback import LoopbackServer
from tests.support.ollama_server import OllamaServer
from tests.support.openai_server import OpenAIServer

KINDS = ("openai", "responses", "anthropic", "ollama", "google")


@contextmanager
def service(kind: str, **options: Any) -> Iterator[tuple[LoopbackServer, BaseChatModel]]:
    """A strict server of a kind, and a client of it that thinks where its API has thinking."""
    server: Any
    with _SERVERS[kind]() as server:
        server.strict = True
        yield server, _CLIENTS[kind](server, options)


def _openai(server: OpenAIServer, options: dict[str, Any]) -> BaseChatModel:
    settings: dict[str, Any] = {"model": "gpt-4.1", "base_url": server.base_url, "api_key": "sk-test"}
    return ChatOpenAI(**settings | {"max_retries": 0, "stream_usage": True} | options)


def _responses(server: OpenAIServer, options: dict[str, Any]) -> BaseChatModel:
    settings: dict[str, Any] = {"model": "gpt-5", "use_responses_api": True}
    return _openai(server, settings | {"reasoning": {"effort": "low", "summary": "auto"}} | options)


def _anthropic(server: AnthropicServer, options: dict[str, Any]) -> BaseChatModel:
    settings: dict[str, Any] = {"model": "claude-sonnet-4-6", "base_url": server.origin, "api_key": "sk-ant-test"}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    return ChatAnthropic(**settings | {"thinking": thinking, "max_tokens": 4096, "max_retries": 0} | options)


def _ollama(server: OllamaServer, options: dict[str, Any]) -> BaseChatModel:
    settings: dict[str, Any] = {"model": "llama", "base_url": server.origin, "reasoning": True}
    return ChatOllama(**settings | options)


def _google(server: GoogleServer, options: dict[str, Any]) -> BaseChatModel:
    settings: dict[str, Any] = {"model": "gemini-2.5-flash", "base_url": server.origin, "api_key": "test"}
    return ChatGoogleGenerativeAI(**settings | {"include_thoughts": True, "max_retries": 1} | options)


_CLIENTS: dict[str, Any] = {
    "openai": _openai,
    "responses": _responses,
    "anthropic": _anthropic,
    "ollama": _ollama,
    "google": _google,
}
_SERVERS: dict[str, Any] = {
    "openai": OpenAIServer,
    "responses": OpenAIServer,
    "anthropic": AnthropicServer,
    "ollama": lambda: OllamaServer({"llama": 8192}),
    "google": GoogleServer,
}
