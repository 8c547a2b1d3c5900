"""CachedEmbedder: stores the vectors of another embedder in an SQLite file."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings
from routellm_core.errors import CheckpointError, ConfigurationError
from routellm_core.workers import in_background

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS embeddings (
    model TEXT NOT NULL, dimension INTEGER NOT NULL, text_hash BLOB NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (model, text_hash, dimension)
) WITHOUT ROWID
"""
# SQLite does not enforce column types; a damaged row is skipped before its vector is read.
_SELECT = """
SELECT text_hash, vector FROM embeddings
WHERE typeof(vector) = 'blob' AND dimension > 0 AND length(vector) = 4 * dimension AND model = ? AND text_hash IN
"""
# A call waits for other processes no longer than this, which is about what calling the embedder costs.
_BUSY_SECONDS = 0.25
# Lower than the smallest limit on variables per statement that SQLite has ever been built with.
_VARIABLES = 900
_FLOAT = np.dtype("<f4")


class CachedEmbedder:
    """Calls `embedder` only for texts that are not in the file, once per batch and once per distinct text.

    Vectors are keyed by model, dimension and the SHA-256 of the text; no text is stored. Any number of threads and
    processes may share the file. If the file fails later on (a full disk, damage, a lock held for over a quarter of a
    second), the call does not fail: a warning is logged and the embedder is called. It is also called if a stored
    vector is damaged, or has another length than those that the embedder returns.

    Args:
        embedder: The embedder whose vectors to store.
        path: The SQLite file; it and its directory are created if they do not exist.
        model: Name under which vectors are stored. None uses the embedder's ``config()`` or, without one, its class and
            its ``model`` or ``model_name``. Pass a name if these are the same for two models.

    Raises:
        ConfigurationError: `embedder` is not an Embedder.
        CheckpointError: `path` cannot be opened as a cache.
    """

    def __init__(self, embedder: Embedder, path: str | Path, *, model: str | None = None) -> None:
        if not callable(getattr(embedder, "embed", None)):
            raise ConfigurationError(f"embedder={embedder!r} has no embed(texts) method; see routellm_core.embedders")
        self.embedder = embedder
        self.path = Path(path)
        self.model = model or _model_key(embedder)
        self._dimension: int | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                # Readers and a writer do not block each other; the file remembers this mode.
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(_SCHEMA)
                connection.execute("SELECT model, dimension, text_hash, vector FROM embeddings LIMIT 1")
        except (sqlite3.Error, OSError, ValueError) as exc:  # ValueError: a NUL in the path
            if getattr(exc, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                logger.warning("embedding cache %s is locked by another process; later calls try again", self.path)
                return
            raise CheckpointError(f"path={str(path)!r} cannot be used as an embedding cache: {exc}") from exc

    @property
    def dimension(self) -> int | None:
        """Length of a vector: the embedder's own dimension, or that of the last call."""
        known: int | None = self.embedder.dimension
        return self._dimension if known is None else known

    @property
    def config(self) -> Callable[[], dict[str, Any]] | None:
        """The embedder's own ``config``: a saved router stores the embedder, not the cache of one machine."""
        found = getattr(self.embedder, "config", None)
        return found if callable(found) else None

    def __repr__(self) -> str:
        return f"CachedEmbedder({self.embedder!r}, {str(self.path)!r})"

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed n texts as a float32 matrix (n, dimension).

        Raises:
            RouterError: The embedder did not return one finite vector for each text.
        """
        hashes = [_hash(text) for text in texts]
        known = self._read(hashes)
        while misses := self._misses(texts, hashes, known):
            found = self.embedder.embed(list(misses.values()))
            known = self._added(known, list(misses), found)
        return self._matrix(hashes, known)

    async def aembed(self, texts: Sequence[str]) -> FloatMatrix:
        """Like `embed`, but reads and writes the file in a thread and awaits the embedder."""
        hashes = [_hash(text) for text in texts]
        known = await in_background(self, lambda: self._read(hashes))
        while misses := self._misses(texts, hashes, known):
            found = await self.embedder.aembed(list(misses.values()))
            known = await in_background(self, partial(self._added, known, list(misses), found))
        return self._matrix(hashes, known)

    def _misses(self, texts: Sequence[str], hashes: list[bytes], known: dict[bytes, FloatMatrix]) -> dict[bytes, str]:
        return {key: text for key, text in zip(hashes, texts, strict=True) if key not in known}

    def _added(
        self, known: dict[bytes, FloatMatrix], missed: list[bytes], found: FloatMatrix
    ) -> dict[bytes, FloatMatrix]:
        """Merge cached vectors with those of a call; cached vectors of another length are dropped."""
        fresh = checked_embeddings(found, len(missed), self.dimension, type(self.embedder).__name__)
        self._write(missed, fresh)
        # from here on every call must return vectors of this length, so a batch is embedded at most twice
        self._dimension = fresh.shape[1]
        fitting = {key: vector for key, vector in known.items() if vector.shape == fresh.shape[1:]}
        return {**fitting, **dict(zip(missed, fresh, strict=True))}

    def _matrix(self, hashes: list[bytes], known: dict[bytes, FloatMatrix]) -> FloatMatrix:
        if not hashes:
            return np.zeros((0, self.dimension or 0), dtype=np.float32)
        matrix = np.stack([known[key] for key in hashes])
        self._dimension = matrix.shape[1]
        return matrix

    def _read(self, hashes: list[bytes]) -> dict[bytes, FloatMatrix]:
        """Valid cached vectors by hash, all of the same length; empty if the file cannot be read."""
        wanted, dimension = list(dict.fromkeys(hashes)), self.dimension
        rows: list[tuple[bytes, bytes]] = []
        try:
            with closing(self._connect()) as connection:
                for start in range(0, len(wanted), _VARIABLES):
                    part = wanted[start : start + _VARIABLES]
                    marks = ",".join("?" * len(part))
                    rows += connection.execute(f"{_SELECT} ({marks})", [self.model, *part])
        except sqlite3.Error as exc:
            logger.warning("embedding cache %s cannot be read (%s); calling the embedder", self.path, exc)
            return {}
        vectors = [(key, np.frombuffer(vector, dtype=_FLOAT).astype(np.float32)) for key, vector in rows]
        vectors = [(key, vector) for key, vector in vectors if np.isfinite(vector).all()]
        if dimension is None and vectors:
            # The embedder does not know its dimension yet; assume that of most vectors.
            dimension = Counter(len(vector) for _, vector in vectors).most_common(1)[0][0]
        return {key: vector for key, vector in vectors if len(vector) == dimension}

    def _write(self, hashes: list[bytes], vectors: FloatMatrix) -> None:
        rows = [
            (self.model, vectors.shape[1], key, vector.astype(_FLOAT).tobytes())
            for key, vector in zip(hashes, vectors, strict=True)
        ]
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as exc:
            logger.warning("embedding cache %s cannot be written (%s); continuing without it", self.path, exc)

    def _connect(self) -> sqlite3.Connection:
        # One connection per call is cheap compared with an embedding, and nothing is shared between threads or forks.
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
        # In WAL mode a power failure then loses at most the last vectors, never the file.
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _model_key(embedder: Embedder) -> str:
    config = getattr(embedder, "config", None)
    if callable(config):
        return json.dumps(config(), sort_keys=True)
    cls = type(embedder)
    model = getattr(embedder, "model", None) or getattr(embedder, "model_name", None)
    return json.dumps({"type": f"{cls.__module__}.{cls.__qualname__}", "model": str(model) if model else None})
