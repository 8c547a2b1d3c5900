"""Win rates from Qdrant and LanceDB through LlamaIndex's integrations are those of the battles in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from llamaindex_routellm import VectorStoreBattles
from llamaindex_routellm.stores import store_records
from routellm_core.routers import SimilarityWeightedRouter
from tests.llamaindex.test_stores import Words
from tests.support.battles import ExactStore, battles, prompts

qdrant_client = pytest.importorskip("qdrant_client")
qdrant = pytest.importorskip("llama_index.vector_stores.qdrant")
lancedb = pytest.importorskip("llama_index.vector_stores.lancedb")

RECORDS, PROMPTS = battles(200), prompts(8, seed=99)
OPTIONS: dict[str, Any] = {"strong": "large", "weak": "small", "num_tiers": 3, "base": 1000.0, "nearest": 50}


def assert_same(store: VectorStoreBattles) -> None:
    wanted = SimilarityWeightedRouter.from_store(ExactStore(RECORDS), **OPTIONS).win_rates(PROMPTS)
    router = SimilarityWeightedRouter.from_store(store, battles=RECORDS, **OPTIONS)
    assert router.win_rates(PROMPTS) == pytest.approx(wanted, abs=1e-6)
    assert asyncio.run(router.awin_rates(PROMPTS)) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_qdrant() -> None:
    client = qdrant_client.QdrantClient(":memory:")
    store = qdrant.QdrantVectorStore(collection_name="battles", client=client)
    store_records(RECORDS, store, Words())
    count = lambda: client.count("battles").count  # noqa: E731
    wrapped = VectorStoreBattles(store, Words(), version=count, native_async=False)
    assert_same(wrapped)
    before = wrapped.fingerprint
    again = store_records([*RECORDS, *battles(5, seed=4)], store, Words())
    assert (again.written, again.present) == (5, 200)
    assert wrapped.fingerprint != before


@pytest.mark.filterwarnings("ignore:table_names:DeprecationWarning")
def test_lancedb(tmp_path: Path) -> None:
    store = lancedb.LanceDBVectorStore(uri=str(tmp_path / "lance"), mode="create")
    store_records(RECORDS, store, Words())
    wrapped = VectorStoreBattles(store, Words())
    assert wrapped.scale == "exp(-(2 - 2 cos))"  # what LlamaIndex makes of LanceDB's squared distances
    assert_same(wrapped)
