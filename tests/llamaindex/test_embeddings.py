"""LlamaIndexEmbedder: a LlamaIndex embedding model behind the embedder protocol."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import Field

from llamaindex_routellm.embeddings import LlamaIndexEmbedder
from routellm_core.embedders.base import Embedder, require_dimension
from routellm_core.errors import ConfigurationError, RouterError


class Scripted(BaseEmbedding):
    model_name: str = "scripted-1"
    size: int = 3
    calls: list[Any] = Field(default_factory=list)

    def _vector(self, text: str) -> list[float]:
        return [float(len(text)), *[1.0] * (self.size - 1)]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("sync", list(texts)))
        return [self._vector(t) for t in texts]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("async", list(texts)))
        return [self._vector(t) for t in texts]

    def _get_query_embedding(self, query: str) -> list[float]:
        raise AssertionError("prompts are embedded as texts, as the router's training prompts were")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        raise AssertionError("prompts are embedded as texts, as the router's training prompts were")


def test_a_batch_goes_in_one_call_in_order_and_async_is_the_models_own() -> None:
    inner = Scripted()
    embedder = LlamaIndexEmbedder(inner)
    assert isinstance(embedder, Embedder)
    assert embedder.dimension is None
    got = embedder.embed(("a", "bb", ""))
    np.testing.assert_array_equal(got, np.array([[1, 1, 1], [2, 1, 1], [0, 1, 1]], dtype=np.float32))
    assert got.dtype == np.float32
    assert embedder.dimension == 3
    np.testing.assert_array_equal(asyncio.run(embedder.aembed(["a", "bb", ""])), got)
    assert inner.calls == [("sync", ["a", "bb", ""]), ("async", ["a", "bb", ""])]
    assert embedder.model_name == "Scripted:scripted-1"


def test_batch_equals_single_and_threads_agree() -> None:
    embedder = LlamaIndexEmbedder(Scripted())
    texts = ["t" * i for i in range(20)]
    want = embedder.embed(texts)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda t: embedder.embed([t])[0], texts))
    np.testing.assert_array_equal(rows, want)


def test_another_length_than_before_is_an_error() -> None:
    inner = Scripted()
    embedder = LlamaIndexEmbedder(inner)
    embedder.embed(["a"])
    inner.size = 4
    with pytest.raises(RouterError, match=r"\(1, 4\)"):
        embedder.embed(["a"])
    with pytest.raises(ConfigurationError, match="3 dimensions"):
        require_dimension(embedder, 4, "the router")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_an_error(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "_vector", lambda self, text: [bad, 1.0])
    with pytest.raises(RouterError, match="LlamaIndexEmbedder"):
        LlamaIndexEmbedder(Scripted()).embed(["a"])


def test_what_is_no_embedding_model_fails_at_construction() -> None:
    with pytest.raises(ConfigurationError, match="str"):
        LlamaIndexEmbedder("text-embedding-3-small")  # type: ignore[arg-type]
