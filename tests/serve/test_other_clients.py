"""Clients other than openai-python: openai-node, curl, LangChain's ChatOpenAI, LlamaIndex's OpenAILike."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serve.conftest import EASY, HARD
from tests.support.waiting import LIMIT

NODE_MODULES = os.environ.get("ROUTELLM_NODE_MODULES", "")


@pytest.mark.skipif(
    not (shutil.which("node") and Path(NODE_MODULES, "openai").is_dir()),
    reason="needs node, and ROUTELLM_NODE_MODULES=DIR/node_modules after `npm install --prefix DIR openai`",
)
def test_openai_node(place):
    script = Path(__file__).with_name("client.cjs")
    words = ["node", str(script), NODE_MODULES, place.url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout.strip() == "ok", done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(place):
    body = f'{{"model": "routellm", "messages": [{{"role": "user", "content": "{HARD}"}}]}}'
    words = ["curl", "-sS", "-i", f"{place.url}/chat/completions", "-H", "content-type: application/json", "-d", body]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=True)
    assert "answer of big" in done.stdout
    assert "x-routellm-model: strong" in done.stdout


def test_langchain(place):
    from langchain_openai import ChatOpenAI

    llm = ChatOpenAI(model="routellm", base_url=place.url, api_key="x", max_retries=0, stream_usage=True)  # type: ignore[arg-type]
    assert llm.invoke(EASY).content == "answer of small"
    chunks = list(llm.stream(HARD))
    assert "".join(chunk.content for chunk in chunks) == "answer of big"  # type: ignore[misc]
    assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) == 15


def test_llamaindex(place):
    openai_like = pytest.importorskip("llama_index.llms.openai_like")
    llm = openai_like.OpenAILike(
        model="routellm", api_base=place.url, api_key="x", is_chat_model=True, max_retries=0, context_window=8000
    )
    assert llm.complete(EASY).text == "answer of small"
    assert "".join(chunk.delta or "" for chunk in llm.stream_complete(HARD)) == "answer of big"
