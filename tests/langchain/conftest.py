"""What the LangChain tests share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from langchain_routellm import ChatRouteLLM
from tests.fakes_langchain import ScriptedChatModel
from tests.routers import ScriptedRouter


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
