"""LangChainEmbedder: a LangChain embedding model behind the embedder protocol."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from langchain_routellm.embeddings import LangChainEmbedder
from routellm_core.embedders.base import Embedder, require_dimension
from routellm_core.errors import ConfigurationError, RouterError


class Scripted(Embeddings):
    model = "scripted-1"

    def __init__(self, vectors: object) -> None:
        self.vectors = vectors
        self.calls: list[tuple[str, list[str]]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("sync", texts))
        return self.vectors  # type: ignore[return-value]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("async", texts))
        return self.vectors  # type: ignore[return-value]

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError("a batch is one call")


def test_a_batch_is_one_call_in_order_and_async_is_the_models_own() -> None:
    inner = Scripted([[1.0, 2.0], [3.0, 4.0]])
    embedder = LangChainEmbedder(inner)
    assert isinstance(embedder, Embedder)
    assert embedder.dimension is None
    got = embedder.embed(("a", "b"))
    np.testing.assert_array_equal(got, np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert got.dtype == np.float32
    assert embedder.dimension == 2
    np.testing.assert_array_equal(asyncio.run(embedder.aembed(["a", "b"])), got)
    assert inner.calls == [("sync", ["a", "b"]), ("async", ["a", "b"])]
    assert embedder.model_name == "Scripted:scripted-1"


def test_batch_equals_single_and_threads_agree() -> None:
    embedder = LangChainEmbedder(DeterministicFakeEmbedding(size=16))
    texts = [f"t{i}" for i in range(20)]
    want = embedder.embed(texts)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda t: embedder.embed([t])[0], texts))
    np.testing.assert_array_equal(rows, want)


@pytest.mark.parametrize(
    "vectors", [[[1.0, 2.0]], [[1.0], [2.0, 3.0]], [[1.0, float("nan")]] * 2, [[1.0, float("inf")]] * 2, None, []]
)
def test_a_wrong_answer_is_an_error(vectors: object) -> None:
    with pytest.raises(RouterError, match="LangChainEmbedder"):
        LangChainEmbedder(Scripted(vectors)).embed(["a", "b"])


def test_another_length_than_before_is_an_error() -> None:
    inner = Scripted([[1.0, 2.0]])
    embedder = LangChainEmbedder(inner)
    embedder.embed(["a"])
    inner.vectors = [[1.0, 2.0, 3.0]]
    with pytest.raises(RouterError, match=r"\(1, 3\)"):
        embedder.embed(["a"])
    with pytest.raises(ConfigurationError, match="2 dimensions"):
        require_dimension(embedder, 3, "the router")


def test_what_is_no_embedding_model_fails_at_construction() -> None:
    with pytest.raises(ConfigurationError, match="str"):
        LangChainEmbedder("text-embedding-3-small")  # type: ignore[arg-type]
