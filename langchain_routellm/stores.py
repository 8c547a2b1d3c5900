"""VectorStoreBattles: battles or outcomes in any LangChain vector store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from langchain_routellm.embeddings import LangChainEmbedder
from routellm_core.errors import ConfigurationError
from routellm_core.routers.stores import DEFAULT_BATCH, StoreReport, StoreRow, number_of, rows_of, write_rows
from routellm_core.routers.wrapped_store import Found, Version, WrappedStore

if TYPE_CHECKING:
    from routellm_core.checks import Progress

# LangChain's base class has no search by vector that returns scores; its stores call it by one of these names.
_METHODS = ("similarity_search_with_score_by_vector", "similarity_search_by_vector_with_relevance_scores")


class VectorStoreBattles(WrappedStore):
    """Battles or outcomes in a LangChain vector store, for ``from_store`` of a router.

    Each document's metadata has ``model_a``, ``model_b`` and ``winner``, or ``scores`` (a mapping or its JSON) and
    perhaps ``weight``; its content is the prompt. `store_records` writes them so. What the scores mean is measured at
    construction, see `WrappedStore`.

    The store needs ``similarity_search_with_score_by_vector``, which most have; its asynchronous twin is used if there
    is one, and otherwise a thread.

    Args:
        store: The vector store.
        embeddings: Produced the stored vectors. The default is the store's own.
        version: Text or number that changes whenever the collection does, or a function that returns it, such as
            ``lambda: client.count("battles").count``. An `InMemoryVectorStore` counts by itself.

    Raises:
        ConfigurationError: The store has no such method, knows no embeddings and none are passed, is empty, or has
            scores that follow none of the known scales.
    """

    def __init__(self, store: VectorStore, embeddings: Embeddings | None = None, *, version: Version = None) -> None:
        if not isinstance(store, VectorStore):
            raise ConfigurationError(f"store is a {type(store).__name__}: expected a LangChain VectorStore")
        method = next((name for name in _METHODS if callable(getattr(store, name, None))), None)
        if method is None:
            raise ConfigurationError(f"{type(store).__name__} has no method {_METHODS[0]}")
        self.store = store
        self._method: Callable[..., Any] = getattr(store, method)
        self._async_method: Callable[..., Any] | None = getattr(store, f"a{method}", None)
        if version is None and isinstance(store, InMemoryVectorStore):
            version = lambda: len(store.store)  # noqa: E731
        super().__init__(LangChainEmbedder(_embeddings(store, embeddings)), version)

    def records(self) -> Iterator[Mapping[str, Any]]:
        """Yield all records of an `InMemoryVectorStore`; other stores cannot list theirs.

        Raises:
            ConfigurationError: It is another store.
        """
        if not isinstance(self.store, InMemoryVectorStore):
            yield from super().records()
        else:
            yield from [document["metadata"] for document in self.store.store.values()]

    def _query(self, vector: list[float], k: int) -> list[Found]:
        return _found(self._method(vector, k=k))

    async def _aquery(self, vector: list[float], k: int) -> list[Found]:
        if self._async_method is None:
            return await super()._aquery(vector, k)
        return _found(await self._async_method(vector, k=k))

    def _name(self) -> str:
        return type(self.store).__name__


def store_records(
    records: Iterable[Any],
    store: VectorStore,
    *,
    batch: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> StoreReport:
    """Write battles or outcomes to a LangChain vector store, which embeds the prompts and keeps them as content.

    Every record has an id that depends on its content, so a run that was interrupted can be repeated: records that
    ``get_by_ids`` returns are left out, and without that method they are written again under the same ids.

    Args:
        records: Battles, or outcomes, such as those of `routellm_core.data.read_preferences`.
        store: The vector store.
        batch: Records for each call of the store.
        progress: Called after each batch with the records done so far and their number; 0 if that is unknown.

    Raises:
        DataError: The records are of two kinds.
    """

    def present(ids: list[str]) -> set[str]:
        try:
            found = store.get_by_ids(ids)
        except NotImplementedError:
            return set()
        # Qdrant's documents have their id among the metadata
        return {str(document.id or document.metadata.get("_id")) for document in found}

    def add(rows: list[StoreRow]) -> None:
        documents = [Document(page_content=row.prompt, metadata=row.record, id=row.id) for row in rows]
        store.add_documents(documents, ids=[row.id for row in rows])

    return write_rows(
        rows_of(records), present=present, add=add, batch=batch, total=number_of(records), progress=progress
    )


def _embeddings(store: VectorStore, given: Embeddings | None) -> Embeddings:
    embeddings = store.embeddings if given is None else given
    if embeddings is None:
        raise ConfigurationError(
            f"{type(store).__name__} does not know its embeddings: pass embeddings=, the model that its vectors come "
            "from"
        )
    return embeddings


def _found(results: list[tuple[Document, float]]) -> list[Found]:
    return [Found(score, document.metadata, document.page_content) for document, score in results]
