"""MilvusBattles: battles or outcomes in Milvus, either in a file (Milvus Lite, the default) or on a cluster."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from routellm_core.checks import checked_seconds, shown
from routellm_core.embedders import embedder_config, embedder_identity, load_embedder
from routellm_core.errors import ConfigurationError, DataError, DeadlineError, MissingExtraError, RouterError
from routellm_core.forks import fork_safe_lock, renew_in_child
from routellm_core.loop_clients import LoopClients
from routellm_core.routers.stores import (
    BATTLE_FIELDS,
    COSINE_TOLERANCE,
    DEFAULT_BATCH,
    OUTCOME_FIELDS,
    Neighbor,
    PreferenceStore,
    StoreReport,
    StoreRow,
    embedded,
    number_of,
    rows_of,
    write_rows,
)
from routellm_core.workers import in_background

if TYPE_CHECKING:
    from pymilvus import AsyncMilvusClient, MilvusClient  # type: ignore[import-untyped]

    from routellm_core.checks import Progress
    from routellm_core.data.records import Battle, Outcome
    from routellm_core.embedders.base import Embedder, FloatMatrix

DEFAULT_URI, DEFAULT_COLLECTION = "./battles.db", "battles"
DEFAULT_TIMEOUT = 2.0
# The property of a collection that names the embedder of its vectors.
_EMBEDDER = "routellm.embedder"
_SCAN_ROWS = 5000
_EVERY_ROW = 1 << 40
# Milvus's longest VARCHAR
_MAX_TEXT = 65_535


class MilvusBattles:
    """A Milvus collection of battles or outcomes, as a `PreferenceStore`.

    The collection is one that `store_records` (`routellm data store`) wrote, or one of your own with a single float
    vector field, the metric COSINE, and the fields ``model_a``, ``model_b`` and ``winner``, or ``scores`` (JSON) and
    perhaps ``weight``. Opening it loads it, reads all of its records once, without the vectors, and searches a stored
    vector to verify that its similarity with itself is 1.

    A batch is one search. A search that fails raises an error at once or after `timeout`; it never returns part of a
    result. May be shared between threads and event loops; a forked process and a pickled copy, which leaves the token
    out, connect anew. Only one process at a time can open a file of Milvus Lite.

    Args:
        uri: A file whose name ends in ``.db``, or the address of a server, such as ``"http://localhost:19530"``;
            without a password.
        collection: Name of the collection.
        embedder: Produced the stored vectors. The default is the one that `store_records` noted in the collection.
        token: ``"user:password"`` or the API key of a server. The default is the environment variable MILVUS_TOKEN.
        search_params: What an approximate index takes for a search, such as ``{"ef": 256}`` for HNSW.
        timeout: Seconds that the search for one prompt may take; that for a batch of n gets (1 + n / 20) times as long.

    Raises:
        ConfigurationError: The store cannot be opened, is in use by another process, does not have this collection, or
            the collection is empty or unsuitable.
        MissingExtraError: pymilvus is not installed.
    """

    _client: MilvusClient | None
    _async_clients: LoopClients[AsyncMilvusClient]

    def __init__(
        self,
        uri: str | Path = DEFAULT_URI,
        *,
        collection: str = DEFAULT_COLLECTION,
        embedder: Embedder | None = None,
        token: str | None = None,
        search_params: Mapping[str, Any] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.uri, self.collection = _checked_uri(uri), collection
        seconds = checked_seconds(timeout, "timeout", without="to wait")
        if seconds is None:
            raise ConfigurationError("timeout=None: expected a number of seconds > 0; a search must end some time")
        self.timeout = seconds
        self.search_params = dict(search_params or {})
        self._token = token
        if is_file(self.uri) and not Path(self.uri).exists():
            raise ConfigurationError(
                f"uri={self.uri!r}: no such file; write one with `routellm data store --data battles.jsonl --to "
                f"milvus:{self.uri}`"
            )
        self._set_up_clients()
        with _as_configuration(f"uri={self.uri!r}, collection={collection!r}"):
            client = self._connected()
            if not client.has_collection(collection):
                raise ConfigurationError(
                    f"collection={collection!r}: {self.uri} has none of this name; it has: "
                    f"{', '.join(sorted(client.list_collections())) or '(none)'}"
                )
            described = client.describe_collection(collection)
            self._vector_field, self.dimension = _vector_field(described)
            self._key = next(field["name"] for field in described["fields"] if field.get("is_primary"))
            self._fields = _record_fields(described)
            self._check_index(client)
            # a collection that was opened again is not loaded, and cannot be searched
            client.load_collection(collection)
            self._count, self._digest, self._records = self._scanned(client)
            if not self._count:
                raise ConfigurationError(f"collection={collection!r} is empty: write battles or outcomes to it first")
            self._check_metric(client)
        noted = described.get("properties", {}).get(_EMBEDDER)
        self.embedder = embedder if embedder is not None or noted is None else _noted_embedder(noted)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MilvusBattles:
        """Open the collection that `config` of an earlier object describes."""
        return cls(
            config["uri"],
            collection=config["collection"],
            search_params=config.get("search_params"),
            timeout=config.get("timeout", DEFAULT_TIMEOUT),
        )

    def config(self) -> dict[str, Any]:
        """What a saved router keeps, from which `from_config` opens the collection; without the token."""
        return {
            "type": "milvus",
            "uri": self.uri,
            "collection": self.collection,
            "search_params": self.search_params,
            "timeout": self.timeout,
        }

    def __repr__(self) -> str:
        return f"MilvusBattles({self.uri!r}, collection={self.collection!r})"

    def __len__(self) -> int:
        """Number of records when the collection was opened."""
        return self._count

    @property
    def fingerprint(self) -> str:
        """Changes when records are added or replaced; a collection that grows while it is open counts as changed.

        Raises:
            RouterError: The store did not answer.
        """
        try:
            rows = self._connected().query(
                self.collection, filter="", output_fields=["count(*)"], timeout=self.timeout, consistency_level="Strong"
            )
        except Exception as exc:
            raise self._failed(exc) from exc
        return f"{self._digest}:{rows[0]['count(*)']}"

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records that were in the collection when it was opened, in no particular order."""
        for values in self._records.elements():
            yield dict(zip(self._fields, values, strict=True))

    def search(self, vectors: FloatMatrix, k: int) -> list[list[Neighbor]]:
        """Return the k nearest neighbours of each vector (n, dimension) by cosine similarity, in one call.

        Raises:
            DeadlineError: The store did not answer within `timeout`.
            RouterError: The store failed.
        """
        try:
            found = self._connected().search(data=list(vectors), limit=k, **self._options(len(vectors)))
        except Exception as exc:
            raise self._failed(exc) from exc
        return _neighbors(found)

    async def asearch(self, vectors: FloatMatrix, k: int) -> list[list[Neighbor]]:
        """Like `search`, with Milvus's asynchronous client."""
        try:
            if self._client is None:  # in a new process, and after `close`; connecting blocks
                await in_background(self, self._connected)
            client = await self._async_clients.get()
            found = await client.search(data=list(vectors), limit=k, **self._options(len(vectors)))
        except Exception as exc:
            raise self._failed(exc) from exc
        return _neighbors(found)

    def close(self) -> None:
        """Close the connection; the next search opens it again. Event loops close their own when they end."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _options(self, count: int) -> dict[str, Any]:
        return {
            "collection_name": self.collection,
            "anns_field": self._vector_field,
            "output_fields": list(self._fields),
            "search_params": {"params": self.search_params},
            "timeout": self.timeout * (1.0 + count / 20.0),
        }

    def _failed(self, exc: Exception) -> RouterError:
        code = getattr(exc, "code", None)  # a number of Milvus, a status of gRPC, or a method that returns one
        status = code() if callable(code) else code
        name = getattr(status, "name", status)
        if name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            # pymilvus repeats a search that meets no server until the time is up
            return DeadlineError(f"{self!r} did not answer within timeout={self.timeout} s ({name})")
        return RouterError(f"{self!r} failed: {type(exc).__name__}, code {name}")

    def _connected(self) -> MilvusClient:
        client = self._client  # without the lock: the way of every search
        if client is None:
            with self._lock:
                if self._client is None:
                    self._client = connect(self.uri, self._token)
                client = self._client
        return client

    def _async_client(self) -> AsyncMilvusClient:
        from pymilvus import AsyncMilvusClient

        self._connected()  # checks what is installed, and starts the server of a file
        return AsyncMilvusClient(self.uri, token=_token(self._token), dedicated=True, timeout=self.timeout)

    def _set_up_clients(self) -> None:
        self._lock = fork_safe_lock(self, "_lock")
        self._renew()
        renew_in_child(self, MilvusBattles._renew)

    def _renew(self) -> None:
        # In a forked child, a client is not closed: its connection is the parent's.
        self._client = None
        self._async_clients = LoopClients(self._async_client)

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_client", "_async_clients", "_lock")
        return {name: value for name, value in vars(self).items() if name not in left_out} | {"_token": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._set_up_clients()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # in this process, which has the token; nothing changes after construction

    def _check_index(self, client: MilvusClient) -> None:
        index = next(
            (
                found
                for name in client.list_indexes(self.collection)
                if (found := client.describe_index(self.collection, name))["field_name"] == self._vector_field
            ),
            None,
        )
        if index is None:
            raise ConfigurationError(
                f"collection={self.collection!r} has no index on {self._vector_field}: create one with "
                "metric_type='COSINE'"
            )
        if index["metric_type"] != "COSINE":
            raise ConfigurationError(
                f"collection={self.collection!r} has metric_type={index['metric_type']!r}, but win rates need cosine "
                "similarities: create its index with metric_type='COSINE'"
            )
        if is_file(self.uri) and index["index_type"] == "AUTOINDEX":
            raise ConfigurationError(
                f"collection={self.collection!r} has index_type='AUTOINDEX', which is not exact in a file once another "
                "process has written it: drop the index and create one with index_type='FLAT'"
            )

    def _check_metric(self, client: MilvusClient) -> None:
        (row, *_) = client.query(self.collection, filter="", limit=1, output_fields=[self._vector_field])
        vector = np.asarray([row[self._vector_field]], dtype=np.float32)
        # Twice the vector: its inner product with itself would be twice as large, and its distance not zero.
        (found,) = self.search(2.0 * vector, 1)
        if not found or abs(found[0].similarity - 1.0) > COSINE_TOLERANCE:
            got = shown(found[0].similarity) if found else "nothing"
            raise ConfigurationError(
                f"collection={self.collection!r}: the similarity of a stored vector with itself is {got}, not 1: its "
                "index is not one of cosine similarities, or misses the nearest vector"
            )

    def _scanned(self, client: MilvusClient) -> tuple[int, str, Counter[tuple[Any, ...]]]:
        """Return the number of rows, a digest that does not depend on their order, and their records."""
        count = digest = 0
        records: Counter[tuple[Any, ...]] = Counter()
        for row in self._rows(client):
            values = tuple(_scalar(row.get(name)) for name in self._fields)
            records[values] += 1
            named = hashlib.sha256(json.dumps([row[self._key], values]).encode()).digest()
            digest += int.from_bytes(named[:16])
            count += 1
        return count, f"{digest % (1 << 128):032x}", records

    def _rows(self, client: MilvusClient) -> Iterator[dict[str, Any]]:
        fields = [self._key, *self._fields]
        if is_file(self.uri):  # which has no limit of rows, and whose iterator logs a warning
            yield from client.query(self.collection, filter="", limit=_EVERY_ROW, output_fields=fields)
            return
        iterator = client.query_iterator(self.collection, batch_size=_SCAN_ROWS, filter="", output_fields=fields)
        try:
            while rows := iterator.next():
                yield from rows
        finally:
            iterator.close()


def store_records(
    records: Iterable[Battle | Outcome],
    uri: str | Path = DEFAULT_URI,
    *,
    embedder: Embedder,
    collection: str = DEFAULT_COLLECTION,
    token: str | None = None,
    index: str = "FLAT",
    batch: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> StoreReport:
    """Write battles or outcomes to a Milvus collection, which is created if it does not exist.

    Vectors and labels are written, never the text of a prompt. Records that are there are left out before they are
    embedded, so a run that was interrupted can simply be repeated, and a file that has grown be written again.

    Args:
        records: Battles, or outcomes.
        uri: A file whose name ends in ``.db``, or the address of a server.
        embedder: Maps prompts to vectors.
        collection: Name of the collection.
        token: ``"user:password"`` or the API key of a server. The default is the environment variable MILVUS_TOKEN.
        index: Type of the index of a new collection: ``"FLAT"`` is exact; on a server, ``"HNSW"`` and others are faster
            for millions of rows.
        batch: Records that are embedded and written at a time.
        progress: Called after each batch with the records done so far and their number; 0 if that is unknown.

    Raises:
        ConfigurationError: The store cannot be opened, or the collection has vectors of another embedder.
        DataError: The records are of two kinds, or a prompt has no direction.
        MissingExtraError: pymilvus is not installed.
    """
    address = _checked_uri(uri)
    with _as_configuration(f"uri={address!r}, collection={collection!r}"):
        client = connect(address, token)
        try:
            target = _Target(client, collection, embedder, index)
            return write_rows(
                rows_of(records),
                present=target.present,
                add=target.add,
                batch=batch,
                total=number_of(records),
                progress=progress,
            )
        finally:
            client.close()


class _Target:
    """The collection that `store_records` writes to."""

    def __init__(self, client: MilvusClient, collection: str, embedder: Embedder, index: str) -> None:
        self.client, self.collection, self.embedder, self.index = client, collection, embedder, index
        self.exists = client.has_collection(collection)
        self.fields: tuple[str, ...] | None = None
        if self.exists:
            described = client.describe_collection(collection)
            noted = described.get("properties", {}).get(_EMBEDDER)
            if noted is None:
                raise ConfigurationError(
                    f"collection={collection!r} was not written by `routellm data store`: choose another name"
                )
            if json.loads(noted)["identity"] != embedder_identity(embedder):
                raise ConfigurationError(
                    f"collection={collection!r} has vectors of another embedder, which cannot be compared with those "
                    f"of {type(embedder).__name__}: pass the same embedder, or another name"
                )
            self.fields = _record_fields(described)
            client.load_collection(collection)

    def present(self, ids: list[str]) -> set[str]:
        if not self.exists:
            return set()
        return {row["id"] for row in self.client.get(self.collection, ids=ids, output_fields=["id"])}

    def add(self, rows: list[StoreRow]) -> None:
        fields = tuple(rows[0].record)
        if self.fields is not None and fields != self.fields:
            raise DataError(
                f"collection={self.collection!r} holds {', '.join(self.fields)}, not {', '.join(fields)}: write "
                "battles and outcomes to two collections"
            )
        vectors = embedded(self.embedder, rows)
        if not self.exists:
            self._create(rows[0], vectors.shape[1])
        self.client.insert(
            self.collection,
            [{"id": row.id, "vector": vector, **row.record} for row, vector in zip(rows, vectors, strict=True)],
        )

    def _create(self, row: StoreRow, dimension: int) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=36)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        for name, value in row.record.items():
            if isinstance(value, str):
                schema.add_field(name, DataType.VARCHAR, max_length=_MAX_TEXT)
            else:
                schema.add_field(name, DataType.DOUBLE)
        index = MilvusClient.prepare_index_params()
        index.add_index("vector", index_type=self.index, metric_type="COSINE")
        noted = {"identity": embedder_identity(self.embedder), "config": embedder_config(self.embedder)}
        self.client.create_collection(
            self.collection, schema=schema, index_params=index, properties={_EMBEDDER: json.dumps(noted)}
        )
        self.exists, self.fields = True, tuple(row.record)


@contextmanager
def _as_configuration(what: str) -> Iterator[None]:
    """Turn what Milvus raises inside into a `ConfigurationError` that begins with `what`."""
    try:
        yield
    except Exception as exc:
        if not type(exc).__module__.startswith(("pymilvus.", "grpc")):
            raise
        raise ConfigurationError(f"{what}: {getattr(exc, 'message', type(exc).__name__)!s:.300}") from exc


def saved_store(config: Any, given: PreferenceStore | None) -> PreferenceStore:
    """Return the store that is passed, or else the one that a saved router's config describes.

    Raises:
        ConfigurationError: The store cannot be opened from the config.
        MissingExtraError: Its client is not installed.
    """
    if given is not None:
        return given
    if isinstance(config, dict) and config.get("type") == "milvus":
        return MilvusBattles.from_config(config)
    raise ConfigurationError("the router was saved with a store that cannot be opened from its config: pass store=")


def is_file(uri: str) -> bool:
    """Whether a URI names a file of Milvus Lite."""
    return "://" not in uri and not uri.startswith("unix:")


def connect(uri: str, token: str | None) -> MilvusClient:
    """Connect to Milvus, or open a file.

    Raises:
        ConfigurationError: The file cannot be opened, for example because another process has it open.
        MissingExtraError: pymilvus, or for a file milvus-lite, is not installed.
    """
    try:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import ConnectionConfigException  # type: ignore[import-untyped]
    except ModuleNotFoundError as exc:
        raise MissingExtraError("MilvusBattles", "milvus") from exc
    if is_file(uri):
        if not uri.endswith(".db"):
            raise ConfigurationError(f"uri={uri!r}: expected a file name that ends in .db, or an address with http://")
        try:
            import milvus_lite  # type: ignore[import-untyped]  # noqa: F401
        except ModuleNotFoundError as exc:
            raise MissingExtraError("A file of Milvus Lite", "milvus") from exc
    try:
        return MilvusClient(uri, token=_token(token), dedicated=True)
    except ConnectionConfigException as exc:
        if not is_file(uri):
            raise
        raise ConfigurationError(
            f"uri={uri!r} cannot be opened: is another process using it? Only one at a time can use a file of Milvus "
            "Lite; for several, run a Milvus server and pass its address"
        ) from exc


def _checked_uri(uri: str | Path) -> str:
    """Refuse a password in an address, which stands in saved routers, in logs and in pickles; do not show it."""
    address = str(uri)
    if "@" in address and not address.startswith("unix:") and ("://" in address or not address.endswith(".db")):
        raise ConfigurationError(
            "uri=... contains an @: a user and a password do not belong in the address, which is saved and shown; pass "
            "token='user:password', or set the environment variable MILVUS_TOKEN"
        )
    return address


def _token(given: str | None) -> str:
    return given or os.environ.get("MILVUS_TOKEN", "")


def _vector_field(described: Mapping[str, Any]) -> tuple[str, int]:
    from pymilvus import DataType

    found = [field for field in described["fields"] if field["type"] == DataType.FLOAT_VECTOR]
    if len(found) != 1:
        raise ConfigurationError(
            f"collection={described['collection_name']!r} has {len(found)} float vector fields; expected one"
        )
    return found[0]["name"], int(found[0]["params"]["dim"])


def _record_fields(described: Mapping[str, Any]) -> tuple[str, ...]:
    names = {field["name"] for field in described["fields"]}
    for fields in (BATTLE_FIELDS, OUTCOME_FIELDS, OUTCOME_FIELDS[:1]):
        if names.issuperset(fields):
            return fields
    raise ConfigurationError(
        f"collection={described['collection_name']!r} has the fields {', '.join(sorted(names))}; expected model_a, "
        "model_b and winner for battles, or scores for outcomes"
    )


def _scalar(value: Any) -> Any:
    """A hashable form of a field; JSON fields come as dicts."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _noted_embedder(noted: str) -> Embedder | None:
    config = json.loads(noted).get("config")
    return None if config is None else load_embedder(config)


def _neighbors(found: Sequence[Sequence[Any]]) -> list[list[Neighbor]]:
    return [[Neighbor(float(hit["distance"]), hit["entity"]) for hit in hits] for hits in found]
