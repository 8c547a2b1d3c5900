"""VectorStoreBattles over LangChain's in-memory store, and over stores whose scores mean something else."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from langchain_routellm import VectorStoreBattles
from langchain_routellm.stores import store_records
from routellm_core import ConfigurationError, RoutingPolicy
from routellm_core.routers import KNNRouter, SimilarityWeightedRouter
from tests.support.battles import ExactStore, WordsEmbedder, battles, outcomes, prompts

PROMPTS = [*prompts(10, seed=99), "no numbers"]
OPTIONS: dict[str, Any] = {"strong": "large", "weak": "small", "num_tiers": 3, "base": 1000.0, "nearest": 50}
RECORDS = battles(200)


class Words(Embeddings):
    """`WordsEmbedder` as LangChain's embeddings; what has no numbers is a vector of ones."""

    calls = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls += 1
        rows = WordsEmbedder().embed(texts)
        rows[~rows.any(axis=1)] = 1.0
        found: list[list[float]] = rows.tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def written(records: Any = RECORDS) -> InMemoryVectorStore:
    store = InMemoryVectorStore(Words())
    store_records(records, store)
    return store


def test_win_rates_are_those_of_the_battles_in_memory() -> None:
    router = SimilarityWeightedRouter.from_store(VectorStoreBattles(written()), **OPTIONS)
    plain = SimilarityWeightedRouter.from_store(ExactStore(RECORDS), **OPTIONS)
    rates = router.win_rates(PROMPTS[:-1])
    assert rates == pytest.approx(plain.win_rates(PROMPTS[:-1]), abs=1e-6)
    assert (asyncio.run(router.awin_rates(PROMPTS[:-1])) == rates).all()
    pair: dict[str, Any] = {"strong": "large", "weak": "small"}
    voted = KNNRouter.from_store(VectorStoreBattles(written(outcomes(200))), **pair)
    assert voted.win_rates(PROMPTS[:-1]) == pytest.approx(
        KNNRouter.from_store(ExactStore(outcomes(200)), **pair).win_rates(PROMPTS[:-1]), abs=1e-6
    )


class Scored(InMemoryVectorStore):
    """An in-memory store with scores of another meaning."""

    def __init__(self, score: Any) -> None:
        super().__init__(Words())
        self.score = score

    def similarity_search_with_score_by_vector(self, embedding: Any, k: int = 4, **kwargs: Any) -> Any:  # type: ignore[override]
        found = super().similarity_search_with_score_by_vector(embedding, k, **kwargs)
        return [(document, self.score(cosine)) for document, cosine in found]


@pytest.mark.parametrize(
    ("score", "scale"),
    [
        (lambda c: c, "cosine similarity"),
        (lambda c: 1 - c, "cosine distance, 1 - cos"),
        (lambda c: (1 + c) / 2, "relevance, (1 + cos) / 2"),
        (lambda c: 2 - 2 * c, "squared distance, 2 - 2 cos"),
        (lambda c: math.exp(c - 1), "exp(-(1 - cos))"),
        (lambda c: math.exp(2 * c - 2), "exp(-(2 - 2 cos))"),
    ],
)
@pytest.mark.parametrize("count", [1, 200])
def test_what_the_scores_mean_is_measured(score: Any, scale: str, count: int) -> None:
    store = Scored(score)
    store_records(RECORDS[:count], store)
    wrapped = VectorStoreBattles(store)
    assert wrapped.scale == scale
    (vector,) = WordsEmbedder().embed(PROMPTS[:1])
    (near,) = wrapped.search((vector / (vector @ vector) ** 0.5)[None], 3)
    (wanted,) = ExactStore(RECORDS[:count]).search((vector / (vector @ vector) ** 0.5)[None], 3)
    assert [n.similarity for n in near] == pytest.approx([n.similarity for n in wanted], abs=1e-6)


def test_a_score_that_is_no_function_of_the_cosine_is_refused() -> None:
    for score in (lambda c: 3 * c, lambda c: math.sqrt(max(0, 2 - 2 * c)), lambda c: 0.5):
        store = Scored(score)
        store_records(RECORDS, store)
        with pytest.raises(ConfigurationError, match="cosine metric"):
            VectorStoreBattles(store)
    other = written()
    other.embedding = type(
        "Reversed", (Words,), {"embed_documents": lambda s, t: [r[::-1] for r in Words().embed_documents(t)]}
    )()
    with pytest.raises(ConfigurationError, match="embedding model that its vectors come from"):
        VectorStoreBattles(other)


def test_an_index_that_misses_the_nearest_is_refused() -> None:
    class Missing(InMemoryVectorStore):
        def similarity_search_with_score_by_vector(self, embedding: Any, k: int = 4, **kwargs: Any) -> Any:  # type: ignore[override]
            found = super().similarity_search_with_score_by_vector(embedding, k + 1, **kwargs)
            return found[1:] if found[0][1] > 0.99 else found[:k]

    store = Missing(Words())
    store_records(RECORDS, store)
    with pytest.raises(ConfigurationError, match="misses the nearest"):
        VectorStoreBattles(store)


def test_what_cannot_serve_is_named() -> None:
    class ByText(VectorStore):
        def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> Any: ...

        @classmethod
        def from_texts(cls, texts: Any, embedding: Any, metadatas: Any = None, **kwargs: Any) -> Any: ...

    class Down(Scored):
        def similarity_search_with_score_by_vector(self, embedding: Any, k: int = 4, **kwargs: Any) -> Any:  # type: ignore[override]
            raise ConnectionRefusedError

    class Nameless(InMemoryVectorStore):
        @property
        def embeddings(self) -> Any:
            return None

    for store, message in (
        (object(), "expected a LangChain VectorStore"),
        (ByText(), "no method similarity_search_with_score_by_vector"),
        (InMemoryVectorStore(Words()), "write battles or outcomes to it first"),
        (Down(None), "cannot be searched: ConnectionRefusedError"),
        (Nameless(Words()), "pass embeddings="),
    ):
        with pytest.raises(ConfigurationError, match=message):
            VectorStoreBattles(store)  # type: ignore[arg-type]


def test_a_store_that_cannot_list_its_records_is_told_them() -> None:
    class Remote(VectorStore):
        """Only what LangChain's interface promises, and the search by vector."""

        def __init__(self, inner: InMemoryVectorStore) -> None:
            self.inner = inner

        embeddings = property(lambda self: self.inner.embeddings)

        def similarity_search_with_score_by_vector(self, embedding: Any, k: int = 4) -> Any:
            return self.inner.similarity_search_with_score_by_vector(embedding, k)

        async def asimilarity_search_with_score_by_vector(self, embedding: Any, k: int = 4) -> Any:
            await asyncio.sleep(0)
            self.awaited = getattr(self, "awaited", 0) + 1
            return self.similarity_search_with_score_by_vector(embedding, k)

        def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> Any: ...

        @classmethod
        def from_texts(cls, texts: Any, embedding: Any, metadatas: Any = None, **kwargs: Any) -> Any: ...

    inner = written()
    store = Remote(inner)
    wrapped = VectorStoreBattles(store, version=lambda: len(inner.store))
    with pytest.raises(ConfigurationError, match="pass battles="):
        SimilarityWeightedRouter.from_store(wrapped, **OPTIONS)
    router = SimilarityWeightedRouter.from_store(wrapped, battles=RECORDS, **OPTIONS)
    asyncio.run(router.awin_rates(PROMPTS[:4]))
    assert store.awaited == 4  # its own asynchronous method
    before = wrapped.fingerprint
    store_records(battles(1, seed=5), inner)
    assert wrapped.fingerprint != before


def test_writing_again_adds_nothing_and_growth_changes_the_fingerprint() -> None:
    store = written()
    assert (len(store.store), store_records(RECORDS, store).written) == (200, 0)
    wrapped = VectorStoreBattles(store)
    before = wrapped.fingerprint
    report = store_records([*RECORDS, *battles(20, seed=5)], store, batch=64)
    assert (report.written, report.present) == (20, 200)
    assert wrapped.fingerprint != before
    assert SimilarityWeightedRouter.from_store(wrapped, **OPTIONS).tiers.keys() == {"large", "medium", "small", "tiny"}


def test_a_store_that_fails_leaves_the_decision_to_on_error(monkeypatch: pytest.MonkeyPatch) -> None:
    store = written()
    policy = RoutingPolicy(
        SimilarityWeightedRouter.from_store(VectorStoreBattles(store), **OPTIONS), threshold=0.5, on_error="weak"
    )
    monkeypatch.setattr(store, "store", None)
    decision = policy.decide(PROMPTS[0])
    assert (decision.model, decision.reason, decision.win_rate) == ("weak", "error", None)
