"""What the tests of labelling share: rows to label, a judge that judges fairly, and models at the loopback server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from routellm_core.data import AnsweredPrompt
from routellm_core.labelling import OpenAIChatModel
from tests.support.openai_server import ChatReply, OpenAIServer
from tests.support.waiting import LIMIT

KEY = "sk-very-secret"
GOOD, BAD = "a good answer", "a poor answer"


def rows_of(count: int) -> list[AnsweredPrompt]:
    """Rows whose better answer is the strong one, the weak one, or neither, in turn."""
    pairs = [(GOOD, BAD), (BAD, GOOD), (BAD, "another poor answer")]
    return [
        AnsweredPrompt(prompt=f"private question {i}", answers={"big": s, "small": w}, id=str(i))
        for i, (s, w) in ((i, pairs[i % 3]) for i in range(count))
    ]


def fair_judge(body: dict[str, Any]) -> ChatReply:
    """Prefers the good answer wherever it stands."""
    text = body["messages"][-1]["content"]
    a = re.search(r"<answer_a>\n(.*?)\n</answer_a>", text, re.DOTALL)
    b = re.search(r"<answer_b>\n(.*?)\n</answer_b>", text, re.DOTALL)
    assert a is not None
    assert b is not None
    verdict = "A" if a[1] == GOOD else "B" if b[1] == GOOD else "C"
    return ChatReply(f"Because. [[{verdict}]]", usage=(100, 7))


@asynccontextmanager
async def model_at(
    server: OpenAIServer, name: str = "judge", timeout: float = LIMIT, **options: Any
) -> AsyncIterator[OpenAIChatModel]:
    """A model at the server, closed in the end."""
    model = OpenAIChatModel(name, base_url=server.base_url, api_key=KEY, timeout=timeout, **options)
    try:
        yield model
    finally:
        await model.aclose()


def questions(server: OpenAIServer) -> list[str]:
    return [r.body["messages"][-1]["content"] for r in server.requests]
