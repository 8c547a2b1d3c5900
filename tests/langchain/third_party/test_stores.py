"""Win rates from Qdrant and Milvus through LangChain's integrations are those of the battles in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from langchain_routellm import VectorStoreBattles
from langchain_routellm.stores import store_records
from routellm_core import ConfigurationError
from routellm_core.routers import SimilarityWeightedRouter
from tests.langchain.test_stores import Words
from tests.support.battles import ExactStore, battles, prompts

qdrant_client = pytest.importorskip("qdrant_client")
langchain_qdrant = pytest.importorskip("langchain_qdrant")
langchain_milvus = pytest.importorskip("langchain_milvus")

RECORDS, PROMPTS = battles(200), prompts(8, seed=99)
OPTIONS: dict[str, Any] = {"strong": "large", "weak": "small", "num_tiers": 3, "base": 1000.0, "nearest": 50}


def qdrant(distance: str, records: Any = RECORDS) -> tuple[Any, Any]:
    client = qdrant_client.QdrantClient(":memory:")
    measure = getattr(qdrant_client.models.Distance, distance)
    client.create_collection("battles", vectors_config=qdrant_client.models.VectorParams(size=12, distance=measure))
    store = langchain_qdrant.QdrantVectorStore(client, "battles", Words(), distance=measure)
    store_records(records, store)
    return store, client


def assert_same(store: VectorStoreBattles) -> None:
    wanted = SimilarityWeightedRouter.from_store(ExactStore(RECORDS), **OPTIONS).win_rates(PROMPTS)
    router = SimilarityWeightedRouter.from_store(store, battles=RECORDS, **OPTIONS)
    assert router.win_rates(PROMPTS) == pytest.approx(wanted, abs=1e-6)
    assert asyncio.run(router.awin_rates(PROMPTS)) == pytest.approx(wanted, abs=1e-6)


def test_qdrant() -> None:
    store, client = qdrant("COSINE")
    wrapped = VectorStoreBattles(store, version=lambda: client.count("battles").count)
    assert_same(wrapped)
    before = wrapped.fingerprint
    again = store_records([*RECORDS, *battles(5, seed=4)], store)
    assert (again.written, again.present) == (5, 200)
    assert wrapped.fingerprint != before


@pytest.mark.parametrize("distance", ["DOT", "EUCLID"])
def test_another_metric_of_qdrant_is_refused(distance: str) -> None:
    with pytest.raises(ConfigurationError, match="cosine metric"):
        VectorStoreBattles(qdrant(distance)[0])


def test_milvus_lite(tmp_path: Path) -> None:
    store = langchain_milvus.Milvus(
        Words(),
        connection_args={"uri": str(tmp_path / "battles.db")},
        index_params={"index_type": "FLAT", "metric_type": "COSINE"},
    )
    store_records(RECORDS, store)
    assert_same(VectorStoreBattles(store))
