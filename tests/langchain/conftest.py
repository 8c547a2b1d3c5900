"""What the LangChain tests share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler

from langchain_routellm import ChatRouteLLM
from tests.support.fakes_langchain import ScriptedChatModel
from tests.support.routers import ScriptedRouter


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
