"""The code for local models in the README and in the guide runs as written, but for the addresses of the servers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llamaindex_routellm import routing_decision
from tests.llamaindex.clients import CLIENTS, close
from tests.support.openai_server import OpenAIServer

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("page", ["README.md", "docs/llamaindex.md"])
async def test_two_local_models(page: str) -> None:
    CLIENTS["openai-like"].skip_unless_installed()
    (block,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
        if "openai_like" in block
    ]
    names: dict[str, Any] = {}
    with OpenAIServer() as strong, OpenAIServer() as weak:
        for address, server in (("http://localhost:8001/v1", strong), ("http://localhost:8002/v1", weak)):
            assert address in block
            block = block.replace(address, server.base_url)
        exec(compile(block, page, "exec"), names)
        llm = names["llm"]
        for text in ("hi", "Prove that the square root of 2 is irrational."):
            assert routing_decision(llm.complete(text)) is not None
        assert [request.body["model"] for request in weak.requests] == ["qwen3-1.7b"]
        assert [request.body["model"] for request in strong.requests] == ["qwen3-32b"]
        # not LlamaIndex's completion models with their small window
        assert {request.path for request in [*weak.requests, *strong.requests]} == {"/v1/chat/completions"}
        assert llm.metadata.is_function_calling_model
        assert llm.metadata.context_window == 32_000
        for model in (llm.strong, llm.weak):
            await close(model)
