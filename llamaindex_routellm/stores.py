"""VectorStoreBattles: battles or outcomes in any LlamaIndex vector store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryResult

from llamaindex_routellm.embeddings import LlamaIndexEmbedder
from routellm_core.errors import ConfigurationError
from routellm_core.routers.stores import (
    DEFAULT_BATCH,
    StoreReport,
    StoreRow,
    embedded,
    number_of,
    rows_of,
    write_rows,
)
from routellm_core.routers.wrapped_store import Found, Version, WrappedStore

if TYPE_CHECKING:
    from routellm_core.checks import Progress

logger = logging.getLogger(__name__)


class VectorStoreBattles(WrappedStore):
    """Battles or outcomes in a LlamaIndex vector store, for ``from_store`` of a router.

    Each node's metadata has ``model_a``, ``model_b`` and ``winner``, or ``scores`` (a mapping or its JSON) and perhaps
    ``weight``; its text is the prompt. `store_records` writes them so. What the scores mean is measured at
    construction, see `WrappedStore`. Asynchronous calls use the store's own ``aquery``, or a thread if it only has that
    of the base class, which blocks.

    Args:
        store: The vector store.
        embed_model: Produced the stored vectors.
        docstore: Contains the nodes of a store that returns only their ids. A `SimpleVectorStore` is not such a case:
            it keeps the metadata itself.
        version: Text or number that changes whenever the collection does, or a function that returns it. A
            `SimpleVectorStore` counts by itself.
        native_async: False to run asynchronous calls in a thread, for a store that has only a synchronous client.

    Raises:
        ConfigurationError: The store is empty, returns ids only and there is no `docstore`, or has scores that follow
            none of the known scales.
    """

    def __init__(
        self,
        store: BasePydanticVectorStore,
        embed_model: BaseEmbedding,
        *,
        docstore: BaseDocumentStore | None = None,
        version: Version = None,
        native_async: bool = True,
    ) -> None:
        if not isinstance(store, BasePydanticVectorStore):
            raise ConfigurationError(f"store is a {type(store).__name__}: expected a LlamaIndex vector store")
        self.store, self.docstore = store, docstore
        self._native_async = native_async and type(store).aquery is not BasePydanticVectorStore.aquery
        if version is None and isinstance(store, SimpleVectorStore):
            version = lambda: len(store.data.embedding_dict)  # noqa: E731
        super().__init__(LlamaIndexEmbedder(embed_model), version)

    def records(self) -> Iterator[Mapping[str, Any]]:
        """Yield all records of a `SimpleVectorStore`, or of the docstore; other stores cannot list theirs.

        Raises:
            ConfigurationError: It is another store.
        """
        if self.docstore is not None:
            yield from [node.metadata for node in self.docstore.docs.values()]
        elif isinstance(self.store, SimpleVectorStore):
            yield from list(self.store.data.metadata_dict.values())
        else:
            yield from super().records()

    def _query(self, vector: list[float], k: int) -> list[Found]:
        return self._found(self.store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=k)))

    async def _aquery(self, vector: list[float], k: int) -> list[Found]:
        if not self._native_async:
            return await super()._aquery(vector, k)
        return self._found(await self.store.aquery(VectorStoreQuery(query_embedding=vector, similarity_top_k=k)))

    def _name(self) -> str:
        return type(self.store).__name__

    def _found(self, result: VectorStoreQueryResult) -> list[Found]:
        scores = result.similarities or []
        if result.nodes is not None:
            return [_of_node(score, node) for score, node in zip(scores, result.nodes, strict=True)]
        ids = result.ids or []
        if self.docstore is not None:
            return [_of_node(score, node) for score, node in zip(scores, self.docstore.get_nodes(ids), strict=True)]
        if isinstance(self.store, SimpleVectorStore) and self.store.data.metadata_dict:
            data = self.store.data
            return [
                Found(score, data.metadata_dict[name], vector=data.embedding_dict[name])
                for score, name in zip(scores, ids, strict=True)
            ]
        if not ids:
            return []
        raise ConfigurationError(
            f"{self._name()} returns ids without nodes: pass docstore=, which contains the nodes of its index"
        )


def store_records(
    records: Iterable[Any],
    store: BasePydanticVectorStore,
    embed_model: BaseEmbedding,
    *,
    docstore: BaseDocumentStore | None = None,
    batch: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> StoreReport:
    """Write battles or outcomes to a LlamaIndex vector store, as nodes whose text is the prompt.

    Every record has an id that depends on its content, so a run that was interrupted can be repeated: records that
    ``get_nodes`` returns are left out. If that method is missing or fails, a warning is logged and they are written
    again under the same ids, which stores that only append (LanceDB) then hold twice.

    Args:
        records: Battles, or outcomes, such as those of `routellm_core.data.read_preferences`.
        store: The vector store.
        embed_model: Embeds the prompts.
        docstore: Also gets the nodes, for a store that keeps ids only.
        batch: Records that are embedded and written at a time.
        progress: Called after each batch with the records done so far and their number; 0 if that is unknown.

    Raises:
        DataError: The records are of two kinds, or a prompt has no direction.
    """
    embedder = LlamaIndexEmbedder(embed_model)

    def present(ids: list[str]) -> set[str]:
        if isinstance(store, SimpleVectorStore):
            return store.data.embedding_dict.keys() & ids
        try:
            return {node.node_id for node in store.get_nodes(node_ids=ids)}
        except Exception as exc:  # each store has an error of its own for a collection that does not exist yet
            logger.warning(
                "%s cannot tell which records it has (%s), so all are written: that is right if its collection is new",
                type(store).__name__,
                type(exc).__name__,
            )
            return set()

    def add(rows: list[StoreRow]) -> None:
        nodes = [_node(row, vector) for row, vector in zip(rows, embedded(embedder, rows).tolist(), strict=True)]
        if docstore is not None:
            docstore.add_documents(nodes)
        store.add(nodes)

    return write_rows(
        rows_of(records), present=present, add=add, batch=batch, total=number_of(records), progress=progress
    )


def _node(row: StoreRow, vector: list[float]) -> TextNode:
    # only the prompt is embedded, also by an index that reads the node again
    hidden = list(row.record)
    return TextNode(
        id_=row.id,
        text=row.prompt,
        metadata=row.record,
        embedding=vector,
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=hidden,
    )


def _of_node(score: float, node: BaseNode) -> Found:
    return Found(score, node.metadata, node.get_content(MetadataMode.EMBED), node.embedding)
