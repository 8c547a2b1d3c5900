"""A routing server in front of two loopback upstreams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from routellm_core.serve import App, create_app
from tests.support.openai_server import OpenAIServer
from tests.support.routers import ScriptedRouter
from tests.support.serving import serving

HARD, EASY = "p=0.9 prove it", "p=0.1 hello"


@dataclass
class Place:
    """A running server and what stands behind it."""

    origin: str
    app: App
    strong: OpenAIServer
    weak: OpenAIServer

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"


class Start:
    """Starts servers, and ends them with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, *, router: Any = None, **options: Any) -> Place:
        strong, weak = (self._stack.enter_context(OpenAIServer()) for _ in range(2))
        if "policy" not in options and "threshold" not in options and "strong_fraction" not in options:
            options["threshold"] = 0.5
        app = create_app(
            {"model": "big", "url": strong.base_url, "key": "sk-strong"},
            {"model": "small", "url": weak.base_url, "key": "sk-weak"},
            **({} if "policy" in options else {"router": router or ScriptedRouter()}),  # type: ignore[arg-type]
            **options,
        )
        return Place(self._stack.enter_context(serving(app)), app, strong, weak)


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield Start(stack)


@pytest.fixture
def place(start: Start) -> Place:
    return start()


def chat(text: str, model: str = "routellm", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}
