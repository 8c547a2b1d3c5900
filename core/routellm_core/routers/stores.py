"""Stores: battles and outcomes in a vector store, searched for those whose prompts are most similar to a prompt."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast
from uuid import UUID

import numpy as np

from routellm_core.breaker import Breaker
from routellm_core.checks import checked_count, is_number, shown
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings
from routellm_core.errors import ConfigurationError, DataError, RouteLLMError, RouterError

if TYPE_CHECKING:
    from routellm_core.checks import Progress
    from routellm_core.data.records import Battle, Outcome

# Neighbours beyond the k nearest that are asked for, because they may tie with the last of these.
_EXTRA = 32
# By how much a cosine from a store may lie outside [-1, 1], and that of a vector with itself differ from 1.
COSINE_TOLERANCE = 1e-3
DEFAULT_BATCH = 1000
# Failures in a row after which a store counts as down, and seconds until it is searched again, at first and at most.
_DOWN_AFTER = 5
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0

BATTLE_FIELDS = ("model_a", "model_b", "winner")
OUTCOME_FIELDS = ("scores", "weight")


class Neighbor(NamedTuple):
    """A stored battle or outcome that is similar to a prompt.

    Attributes:
        similarity: Cosine similarity of the two prompts' vectors, in [-1, 1].
        record: A battle with ``model_a``, ``model_b`` and ``winner``; or an outcome with ``scores``, which maps models
            to numbers or is the JSON text of such a mapping, and ``weight``, which may be absent.
    """

    similarity: float
    record: Mapping[str, Any]


class PreferenceStore(Protocol):
    """A vector store with battles or outcomes, each under the embedding of its prompt.

    A store may also have ``records()``, which yields the record of every battle or outcome in it, and `embedder`, the
    one that its vectors come from; without these, they are passed to ``from_store``. Both search methods raise when
    the store fails; they never return a partial result.
    """

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that changes whenever the result of a search may change, such as when the collection grows."""
        ...

    def search(self, vectors: FloatMatrix, k: int) -> Sequence[Sequence[Neighbor]]:
        """Return the k nearest neighbours of each vector (n, dimension) by cosine similarity, in any order.

        They are fewer than k only if the store holds fewer.
        """
        ...

    async def asearch(self, vectors: FloatMatrix, k: int) -> Sequence[Sequence[Neighbor]]:
        """Like `search`, without blocking the event loop."""
        ...


class StoreSearch:
    """Searches a store for a router: one call for all prompts of a batch, and a check of everything that comes back.

    After several failures in a row, searches fail at once, without the store, while single ones try whether it answers
    again: what a client does about a server that is gone can take longer than a decision may.

    Args:
        store: The store.
        k: Number of neighbours.
        extra: Whether to ask for some more, which may tie with the last.

    Raises:
        ConfigurationError: `store` is not a `PreferenceStore`, or `k` is not an int >= 1.
    """

    def __init__(self, store: PreferenceStore, k: int, *, extra: bool = False) -> None:
        if not all(callable(getattr(store, method, None)) for method in ("search", "asearch")):
            raise ConfigurationError(
                f"store is a {type(store).__name__}, not a PreferenceStore: it needs search(vectors, k), "
                "asearch(vectors, k), dimension and fingerprint (see routellm_core.stores)"
            )
        self.store = store
        self.dimension = checked_count(store.dimension, f"{type(store).__name__}.dimension")
        self._k = checked_count(k, "k") + (_EXTRA if extra else 0)
        self.breaker = Breaker(failures=_DOWN_AFTER, wait=_FIRST_WAIT, longest=_LONGEST_WAIT)

    def with_k(self, k: int) -> StoreSearch:
        """Return a search of the same store for another number of neighbours."""
        return StoreSearch(self.store, k)

    def find(self, matrix: FloatMatrix) -> list[list[Neighbor]]:
        """Return the neighbours of each vector, the most similar first; none for the zero vector.

        Raises:
            RouterError: The store failed, or what it returned is not one list of neighbours for each vector.
        """
        units, rows = directions(matrix)
        if not len(units):
            return [[] for _ in matrix]
        with self._watched():
            found = self.store.search(units, self._k)
        return self._checked(found, rows, len(matrix))

    async def afind(self, matrix: FloatMatrix) -> list[list[Neighbor]]:
        """Like `find`, without blocking the event loop."""
        units, rows = directions(matrix)
        if not len(units):
            return [[] for _ in matrix]
        with self._watched():
            found = await self.store.asearch(units, self._k)
        return self._checked(found, rows, len(matrix))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Around one search: refused while the store keeps failing; how it ends counts."""
        name = type(self.store).__name__
        if not self.breaker.allows():
            raise RouterError(f"{name} failed {_DOWN_AFTER} times in a row; it is searched again after a while")
        try:
            yield
        except RouteLLMError:
            self.breaker.failed()
            raise
        except Exception as exc:
            self.breaker.failed()
            raise RouterError(f"{name} failed to search: {type(exc).__name__}") from exc
        self.breaker.succeeded()

    def _checked(self, found: Any, rows: Sequence[int], count: int) -> list[list[Neighbor]]:
        name = type(self.store).__name__
        if not isinstance(found, Sequence) or len(found) != len(rows):
            what = f"{len(found)} lists" if isinstance(found, Sequence) else f"a {type(found).__name__}"
            raise RouterError(f"{name}.search returned {what} for {len(rows)} vectors; expected a list for each")
        out: list[list[Neighbor]] = [[] for _ in range(count)]
        for row, neighbors in zip(rows, found, strict=True):
            if not neighbors:
                raise RouterError(f"{name}.search found no neighbour of a vector: is the collection empty?")
            try:
                pairs = [Neighbor(*item) for item in neighbors]
            except TypeError:
                raise RouterError(
                    f"{name}.search returned something else than pairs of a cosine and a record"
                ) from None
            for similarity, _ in pairs:
                if not is_number(similarity) or abs(similarity) > 1.0 + COSINE_TOLERANCE:
                    raise RouterError(
                        f"{name}.search returned the similarity {shown(similarity)}; expected a cosine in [-1, 1]"
                    )
            out[row] = sorted(pairs, key=lambda pair: -pair.similarity)
        return out


def directions(matrix: FloatMatrix) -> tuple[FloatMatrix, list[int]]:
    """Return the rows that are not zero, scaled to length 1, and their positions."""
    norms = np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=1))
    rows = np.flatnonzero(norms > 0.0)
    return (matrix[rows] / norms[rows, None]).astype(np.float32), rows.tolist()


def battle_of(record: Any) -> tuple[str, str, str]:
    """Return (model_a, model_b, winner) of a battle in any form: a tuple, a mapping or an object with attributes.

    Raises:
        DataError: It is not a battle.
    """
    if isinstance(record, tuple) and len(record) == 3:
        found: Sequence[Any] = record
    elif isinstance(record, Mapping):
        found = [record.get(name) for name in BATTLE_FIELDS]
    else:
        found = [getattr(record, name, None) for name in BATTLE_FIELDS]
    if not all(isinstance(value, str) for value in found):
        raise DataError(
            f"a stored record is not a battle: expected model_a, model_b and winner, got {_shape(record)}; for "
            "outcomes, use KNNRouter.from_store"
        )
    return found[0], found[1], found[2]


def outcome_of(record: Any) -> tuple[Mapping[str, float], float]:
    """Return (scores, weight) of an outcome in any form: a mapping or an object with attributes.

    Raises:
        DataError: It is not an outcome.
    """
    if isinstance(record, Mapping):
        scores, weight = record.get("scores"), record.get("weight")
    else:
        scores, weight = getattr(record, "scores", None), getattr(record, "weight", None)
    if isinstance(scores, str):
        try:
            scores = json.loads(scores)
        except ValueError:
            scores = None
    weight = 1.0 if weight is None else weight
    if not isinstance(scores, Mapping) or not is_number(weight) or weight < 0:
        raise DataError(
            "a stored record is not an outcome: expected scores, a mapping of models to numbers, and perhaps weight, a "
            f"number >= 0; got {_shape(record)}; for battles, use SimilarityWeightedRouter.from_store"
        )
    for model, score in scores.items():
        if score is not None and not is_number(score):
            raise DataError(f"a stored outcome has the score {shown(score)} for {model!r}; expected a number or null")
    return scores, float(weight)


def _shape(record: Any) -> str:
    """The fields of a record: never its values, which may hold a prompt."""
    if isinstance(record, Mapping):
        return f"the fields {', '.join(sorted(map(str, record)))[:200] or '(none)'}"
    return f"a {type(record).__name__}"


def records_of(store: PreferenceStore, given: Iterable[Any] | None, parameter: str) -> Iterable[Any]:
    """Return the records that are passed, or else those that the store can list.

    Raises:
        ConfigurationError: The store cannot list its records, and none are passed.
    """
    if given is not None:
        return given
    listing = getattr(store, "records", None)
    if not callable(listing):
        raise ConfigurationError(
            f"{type(store).__name__} cannot list what it holds: pass {parameter}=, the records that were written to it "
            "(without their vectors), such as those of read_preferences(file)"
        )
    return cast("Iterable[Any]", listing())


def embedder_of(store: PreferenceStore, given: Embedder | None) -> Embedder:
    """Return the embedder that is passed, or else the one that the store's vectors come from.

    Raises:
        ConfigurationError: Neither is known.
    """
    embedder = getattr(store, "embedder", None) if given is None else given
    if embedder is None:
        raise ConfigurationError(
            f"{type(store).__name__} does not know the embedder that its vectors come from: pass embedder="
        )
    return cast(Embedder, embedder)


def store_config(store: PreferenceStore) -> dict[str, Any] | None:
    """Return what a saved router keeps about its store; None if the store cannot be opened from a config."""
    config = getattr(store, "config", None)
    return dict(config()) if callable(config) else None


class StoreRow(NamedTuple):
    """A battle or outcome as it is written to a store.

    Attributes:
        id: A UUID that depends on the prompt, the record and how often they came before; writing it again changes
            nothing.
        prompt: What was asked.
        record: `BATTLE_FIELDS`, or `OUTCOME_FIELDS` with the scores as JSON text: flat, as every store accepts it.
    """

    id: str
    prompt: str
    record: dict[str, Any]


def number_of(records: Iterable[Any]) -> int:
    """Return the number of records if it is known without reading them, and 0 if not."""
    return len(records) if isinstance(records, Sized) else 0


def rows_of(records: Iterable[Battle | Outcome]) -> Iterator[StoreRow]:
    """Yield the rows to write; all of them are battles, or all are outcomes.

    Raises:
        DataError: The records are of two kinds.
    """
    before: Counter[bytes] = Counter()
    fields: tuple[str, ...] | None = None
    for number, record in enumerate(records, 1):
        scores = getattr(record, "scores", None)
        if scores is None:
            payload: dict[str, Any] = {name: getattr(record, name) for name in BATTLE_FIELDS}
        else:
            payload = {"scores": json.dumps(scores, sort_keys=True, ensure_ascii=False), "weight": record.weight}
        if fields is not None and fields != tuple(payload):
            raise DataError(
                f"record {number} is of another kind than those before it: a collection holds battles or outcomes; "
                "write them to two collections"
            )
        fields = tuple(payload)
        digest = hashlib.sha256(json.dumps([record.prompt, payload], sort_keys=True).encode()).digest()
        before[digest] += 1
        named = hashlib.sha256(digest + str(before[digest]).encode()).digest()
        yield StoreRow(str(UUID(bytes=named[:16])), record.prompt, payload)


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What `write_rows` did.

    Attributes:
        written: Rows that were embedded and written.
        present: Rows that an earlier run had written.
    """

    written: int
    present: int


def write_rows(
    rows: Iterable[StoreRow],
    *,
    present: Callable[[list[str]], set[str]],
    add: Callable[[list[StoreRow]], object],
    batch: int = DEFAULT_BATCH,
    total: int = 0,
    progress: Progress | None = None,
) -> StoreReport:
    """Write rows in batches, leaving out those that are there; so a run that was interrupted can simply be repeated.

    Args:
        rows: What to write.
        present: Returns which of some ids the store has.
        add: Writes some rows, completely.
        batch: Rows for each call of `present` and `add`.
        total: Number of rows, for `progress`; 0 if unknown.
        progress: Called after each batch with the rows done so far and `total`.
    """
    checked_count(batch, "batch", unit="rows")
    iterator = iter(rows)
    written = already = 0
    while some := list(islice(iterator, batch)):
        there = present([row.id for row in some])
        new = [row for row in some if row.id not in there]
        if new:
            add(new)
        written += len(new)
        already += len(some) - len(new)
        if progress is not None:
            progress(written + already, total)
    return StoreReport(written, already)


def embedded(embedder: Embedder, rows: Sequence[StoreRow]) -> FloatMatrix:
    """Return the vectors (n, d) of rows, scaled to length 1; each prompt is embedded once.

    Raises:
        DataError: A prompt has the zero vector, which has no direction.
    """
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    vectors = checked_embeddings(embedder.embed(prompts), len(prompts), None, type(embedder).__name__)
    units, kept = directions(vectors)
    if len(kept) < len(prompts):
        raise DataError(
            f"{len(prompts) - len(kept)} prompts have a zero vector, which has no direction: leave out prompts without "
            "words"
        )
    position = {prompt: i for i, prompt in enumerate(prompts)}
    return units[[position[row.prompt] for row in rows]]
