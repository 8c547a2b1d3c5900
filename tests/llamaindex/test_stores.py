"""VectorStoreBattles over LlamaIndex's in-memory store, and over stores that return nodes, or ids only."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQueryResult

from llamaindex_routellm import VectorStoreBattles
from llamaindex_routellm.stores import store_records
from routellm_core import ConfigurationError
from routellm_core.routers import KNNRouter, SimilarityWeightedRouter
from tests.support.battles import ExactStore, WordsEmbedder, battles, outcomes, prompts

PROMPTS = prompts(8, seed=99)
OPTIONS: dict[str, Any] = {"strong": "large", "weak": "small", "num_tiers": 3, "base": 1000.0, "nearest": 50}
RECORDS = battles(200)


class Words(BaseEmbedding):
    """`WordsEmbedder` as LlamaIndex's embedding; what has no numbers is a vector of ones."""

    def _get_text_embedding(self, text: str) -> list[float]:
        (row,) = WordsEmbedder().embed([text]).tolist()
        return row if any(row) else [1.0] * len(row)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class IdsOnly(SimpleVectorStore):
    """A store whose metadata is in a docstore."""

    def add(self, nodes: Any, **kwargs: Any) -> list[str]:
        names = super().add(nodes, **kwargs)
        self.data.metadata_dict.clear()
        return names


class Nodes(SimpleVectorStore):
    """A store that returns whole nodes, without their vectors, and has an asynchronous client."""

    def add(self, nodes: Any, **kwargs: Any) -> list[str]:
        self._nodes = {
            **getattr(self, "_nodes", {}),
            **{n.node_id: n.model_copy(update={"embedding": None}) for n in nodes},
        }
        return super().add(nodes, **kwargs)

    def query(self, query: Any, **kwargs: Any) -> VectorStoreQueryResult:
        found = super().query(query, **kwargs)
        return VectorStoreQueryResult([self._nodes[name] for name in found.ids or []], found.similarities, found.ids)

    async def aquery(self, query: Any, **kwargs: Any) -> VectorStoreQueryResult:
        self._awaited = getattr(self, "_awaited", 0) + 1
        return self.query(query, **kwargs)


@pytest.mark.parametrize("kind", [SimpleVectorStore, IdsOnly, Nodes])
def test_win_rates_are_those_of_the_battles_in_memory(kind: Any) -> None:
    store, docstore = kind(), SimpleDocumentStore() if kind is IdsOnly else None
    report = store_records(RECORDS, store, Words(), docstore=docstore, batch=64)
    assert (report.written, report.present) == (200, 0)
    wrapped = VectorStoreBattles(store, Words(), docstore=docstore)
    assert wrapped.scale == "cosine similarity"
    router = SimilarityWeightedRouter.from_store(wrapped, **OPTIONS)
    rates = router.win_rates(PROMPTS)
    plain = SimilarityWeightedRouter.from_store(ExactStore(RECORDS), **OPTIONS)
    assert rates == pytest.approx(plain.win_rates(PROMPTS), abs=1e-6)
    assert (asyncio.run(router.awin_rates(PROMPTS)) == rates).all()
    assert getattr(store, "_awaited", None) == (8 if kind is Nodes else None)
    if kind is Nodes:
        threaded = VectorStoreBattles(store, Words(), native_async=False)
        asyncio.run(SimilarityWeightedRouter.from_store(threaded, **OPTIONS).awin_rates(PROMPTS))
        assert store._awaited == 8
    before = wrapped.fingerprint
    again = store_records([*RECORDS, *battles(10, seed=4)], store, Words(), docstore=docstore)
    assert (again.written, again.present) == (10, 200)
    assert wrapped.fingerprint != before


def test_a_knn_router_votes_by_outcomes_in_the_store() -> None:
    store = SimpleVectorStore()
    store_records(outcomes(200), store, Words())
    pair: dict[str, Any] = {"strong": "large", "weak": "small"}
    router = KNNRouter.from_store(VectorStoreBattles(store, Words()), **pair)
    wanted = KNNRouter.from_store(ExactStore(outcomes(200)), **pair).win_rates(PROMPTS)
    assert router.win_rates(PROMPTS) == pytest.approx(wanted, abs=1e-6)


def test_what_cannot_serve_is_named() -> None:
    written = IdsOnly()
    store_records(RECORDS, written, Words())
    for store, message in (
        (object(), "expected a LlamaIndex vector store"),
        (SimpleVectorStore(), "write battles or outcomes to it first"),
        (written, "pass docstore="),
    ):
        with pytest.raises(ConfigurationError, match=message):
            VectorStoreBattles(store, Words())  # type: ignore[arg-type]
