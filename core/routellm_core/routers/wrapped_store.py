"""WrappedStore: a framework's vector store as a `PreferenceStore`, once it is known what its scores mean."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from routellm_core.checks import is_number, shown
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings
from routellm_core.errors import ConfigurationError, RouteLLMError, RouterError
from routellm_core.routers.stores import COSINE_TOLERANCE, Neighbor, directions
from routellm_core.workers import in_background

# Stored prompts whose scores are compared with their cosines at construction.
_PROBES = 16
# What the score of a store may be, and how to turn it into a cosine; vectors of length 1 where a distance is squared.
_SCALES: Mapping[str, Callable[[float], float]] = {
    "cosine similarity": lambda score: score,
    "cosine distance, 1 - cos": lambda score: 1.0 - score,
    "relevance, (1 + cos) / 2": lambda score: 2.0 * score - 1.0,
    "squared distance, 2 - 2 cos": lambda score: 1.0 - score / 2.0,
    "exp(-(1 - cos))": lambda score: 1.0 + _log(score),
    "exp(-(2 - 2 cos))": lambda score: 1.0 + _log(score) / 2.0,
}

Version = str | int | Callable[[], str | int] | None


class Found(NamedTuple):
    """What a framework's store returned for one stored battle or outcome.

    Attributes:
        score: A similarity or a distance, by the store's own scale.
        record: The fields of the battle or outcome.
        text: The text that was embedded; None if the store does not keep it.
        vector: Its vector, if the store returns it.
    """

    score: float
    record: Mapping[str, Any]
    text: str | None = None
    vector: Sequence[float] | None = None


class WrappedStore(ABC):
    """Searches a framework's vector store for battles or outcomes.

    At construction, it finds out what the store's scores mean: for several stored prompts, it compares the scores with
    the cosines of their vectors, since a score may be a similarity, a distance or something made of one, and it
    searches one of them to verify that its similarity with itself is 1. Each vector is a call of its own, because the
    frameworks' interfaces take one; asynchronous calls run concurrently.

    Args:
        embedder: Produced the stored vectors.
        version: Text or number that changes whenever the collection does, or a function that returns it, such as one
            that counts its rows; part of `fingerprint`. None if the collection never changes.

    Raises:
        ConfigurationError: The collection is empty, or its scores follow none of the known scales.
    """

    def __init__(self, embedder: Embedder, version: Version) -> None:
        self.embedder = embedder
        self._version = version
        self.dimension = int(np.asarray(embedder.embed(["a prompt"])).shape[1])
        self.scale = self._measured()
        self._cosine = _SCALES[self.scale]

    @abstractmethod
    def _query(self, vector: list[float], k: int) -> list[Found]:
        """Return the k nearest stored records of a vector."""

    async def _aquery(self, vector: list[float], k: int) -> list[Found]:
        """Like `_query`, without blocking the event loop."""
        return await in_background(self, lambda: self._query(vector, k))

    @property
    def fingerprint(self) -> str:
        """Changes with the version, which is asked for now, and with the store's class and dimension."""
        version = self._version() if callable(self._version) else self._version
        parts = [self._name(), self.dimension, version]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def records(self) -> Iterator[Mapping[str, Any]]:
        """Yield all records, where the store can list them.

        Raises:
            ConfigurationError: It cannot.
        """
        raise ConfigurationError(
            f"{self._name()} cannot list what it holds: pass battles= or outcomes=, the records that were written to "
            "it, such as those of read_preferences(file)"
        )

    def search(self, vectors: FloatMatrix, k: int) -> list[list[Neighbor]]:
        """Return the k nearest neighbours of each vector (n, dimension) by cosine similarity.

        Raises:
            RouterError: A score is not a number.
        """
        return [self._neighbors(self._query(vector, k)) for vector in vectors.tolist()]

    async def asearch(self, vectors: FloatMatrix, k: int) -> list[list[Neighbor]]:
        """Like `search`, with the store's asynchronous method, or in a thread if it has none."""
        found = await asyncio.gather(*(self._aquery(vector, k) for vector in vectors.tolist()))
        return [self._neighbors(items) for items in found]

    def _name(self) -> str:
        """The class of the wrapped store."""
        return type(self).__name__

    def _neighbors(self, found: list[Found]) -> list[Neighbor]:
        for item in found:
            if not is_number(item.score):
                raise RouterError(f"{self._name()} returned the score {shown(item.score)}; expected a number")
        return [Neighbor(self._cosine(float(item.score)), item.record) for item in found]

    def _measured(self) -> str:
        """Return the scale that turns the scores of stored prompts into their cosines with a vector between them."""
        noise = np.random.default_rng(0).standard_normal((2, self.dimension)).astype(np.float32)
        try:
            first = self._query(directions(noise[:1])[0][0].tolist(), _PROBES)
            if not first:
                raise ConfigurationError(f"{self._name()} found nothing: write battles or outcomes to it first")
            stored = self._vectors(first[:1])
            near = directions(stored + 0.5 * directions(noise[1:])[0])[0]
            found = self._query(near[0].tolist(), _PROBES)
            cosines = self._vectors(found) @ near[0]
            itself = self._query(stored[0].tolist(), 1)
        except RouteLLMError:
            raise
        except Exception as exc:
            raise ConfigurationError(f"{self._name()} cannot be searched: {type(exc).__name__}: {exc!s:.200}") from exc
        scores = [item.score for item in found]
        for name, cosine in _SCALES.items():
            as_cosines = np.array([cosine(float(score)) for score in scores])
            if np.abs(as_cosines - cosines).max() <= COSINE_TOLERANCE:
                if itself and abs(cosine(float(itself[0].score)) - 1.0) <= COSINE_TOLERANCE:
                    return name
                raise ConfigurationError(
                    f"{self._name()} does not find a stored vector when that vector is searched: its index misses the "
                    "nearest"
                )
        raise ConfigurationError(
            f"{self._name()} gives the score {scores[0]:.4f} where the cosine similarity is {cosines[0]:.4f}, and "
            f"{scores[-1]:.4f} where it is {cosines[-1]:.4f}: use a collection with the cosine metric, and the "
            "embedding model that its vectors come from"
        )

    def _vectors(self, found: list[Found]) -> FloatMatrix:
        """Return the vectors (n, dimension) of what was found, of length 1, embedded again if the store keeps none."""
        vectors: Any
        if all(item.vector is not None for item in found):
            vectors = [item.vector for item in found]
        else:
            texts = [item.text for item in found if item.text]
            if len(texts) < len(found):
                raise ConfigurationError(
                    f"{self._name()} returns neither texts nor vectors, so what its scores mean cannot be verified"
                )
            vectors = self.embedder.embed(texts)
        return directions(checked_embeddings(vectors, len(found), self.dimension, type(self.embedder).__name__))[0]


def _log(score: float) -> float:
    return math.log(score) if score > 0.0 else -math.inf
