"""What the LangChain tests share."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_openai import ChatOpenAI

from langchain_routellm import ChatRouteLLM
from tests.support.fakes_langchain import ScriptedChatModel
from tests.support.openai_server import OpenAIServer
from tests.support.routers import ScriptedRouter

STRONG_KEY, WEAK_KEY = "sk-strong-secret", "sk-weak-secret"


@dataclass
class Pair:
    """A strong and a weak scripted model and a router whose win rate stands in the prompt (``"p=0.9 ..."``)."""

    strong: ScriptedChatModel = field(default_factory=lambda: ScriptedChatModel(model="strong-model"))
    weak: ScriptedChatModel = field(default_factory=lambda: ScriptedChatModel(model="weak-model"))
    router: ScriptedRouter = field(default_factory=ScriptedRouter)

    def llm(self, **options: Any) -> ChatRouteLLM:
        """The two as one routed model, threshold 0.7."""
        if not options.keys() & {"threshold", "strong_fraction", "policy"}:
            options["threshold"] = 0.7
        if "policy" not in options:
            options.setdefault("router", self.router)
        return ChatRouteLLM(strong=self.strong, weak=self.weak, **options)


@pytest.fixture
def pair() -> Pair:
    return Pair()


@dataclass
class Services:
    """Two services with a client each; nothing of one may ever reach the other."""

    strong: OpenAIServer
    weak: OpenAIServer
    router: ScriptedRouter

    def client(self, side: str, **options: Any) -> ChatOpenAI:
        server, key = (self.strong, STRONG_KEY) if side == "strong" else (self.weak, WEAK_KEY)
        return ChatOpenAI(
            model=f"{side}-model",
            base_url=server.base_url,
            api_key=key,  # type: ignore[arg-type]
            max_retries=0,
            stream_usage=True,
            **options,
        )

    def llm(self, **options: Any) -> ChatRouteLLM:
        return ChatRouteLLM(
            strong=self.client("strong"), weak=self.client("weak"), router=self.router, threshold=0.7, **options
        )

    def check_separation(self) -> None:
        for server, key, model, foreign in (
            (self.strong, STRONG_KEY, "strong-model", WEAK_KEY),
            (self.weak, WEAK_KEY, "weak-model", STRONG_KEY),
        ):
            for request in server.requests:
                assert request.authorization == f"Bearer {key}"
                assert request.body["model"] == model
                assert foreign not in json.dumps([request.headers, request.body])
                # the decision is for the user; a provider is never sent it
                assert "routellm" not in json.dumps([request.headers, request.body])


@pytest.fixture
def services() -> Iterator[Services]:
    with OpenAIServer() as strong, OpenAIServer() as weak:
        both = Services(strong, weak, ScriptedRouter())
        yield both
        both.check_separation()


class Recorder(BaseCallbackHandler):
    """Every event of interest, in order: (event, name or text, details)."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self._names: dict[Any, str] = {}
        self._lock = threading.Lock()

    def _add(self, event: str, label: str, /, **details: Any) -> None:
        with self._lock:
            self.events.append((event, label, details))

    def names(self, event: str) -> list[str]:
        return [name for kind, name, _ in self.events if kind == event]

    def details(self, event: str) -> list[dict[str, Any]]:
        return [details for kind, _, details in self.events if kind == event]

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any, **kwargs: Any) -> None:
        self._names[run_id] = kwargs.get("name") or (serialized or {}).get("name") or "?"
        self._add("on_chain_start", self._names[run_id], run_id=run_id, **kwargs)

    def on_chain_end(self, outputs: Any, *, run_id: Any, **kwargs: Any) -> None:
        self._add("on_chain_end", self._names[run_id], outputs=outputs)

    def on_chain_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
        self._add("on_chain_error", self._names[run_id], error=error)

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **kwargs: Any) -> None:
        self._names[run_id] = kwargs.get("name") or (serialized or {}).get("name") or "?"
        self._add("on_chat_model_start", self._names[run_id], run_id=run_id, **kwargs)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self._add("on_llm_new_token", str(token))

    def on_llm_end(self, response: Any, *, run_id: Any, **kwargs: Any) -> None:
        self._add("on_llm_end", self._names[run_id], response=response)

    def on_llm_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
        self._add("on_llm_error", self._names[run_id], error=error)
