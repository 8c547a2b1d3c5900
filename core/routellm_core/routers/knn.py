"""KNNRouter: win rates from the models' scores on the most similar known prompts; numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, checked_names, checked_prompts, is_number, read_tensors, shown
from routellm_core.embedders import embedder_config, embedder_identity
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings, require_dimension
from routellm_core.errors import CheckpointError, ConfigurationError, DataError, RouterError
from routellm_core.routers.base import WEIGHTS_FILE, WeightsError, WinRateArray
from routellm_core.routers.embedding import EmbeddingRouter, saved_embedder

if TYPE_CHECKING:
    from routellm_core.data.records import Outcome
    from routellm_core.routers.stores import Neighbor, PreferenceStore

Floats = npt.NDArray[np.float64]

DEFAULT_NEIGHBORS = 40
_EMBEDDINGS, _SCORES, _WEIGHTS = "embeddings", "scores", "weights"
# what the label of a stored prompt says was right
_SIDES = {1.0: "strong", 0.5: "neither", 0.0: "weak"}
# Weight of the overall win rate, in neighbours of similarity 1; a prompt unlike all others gets the overall win rate.
_PRIOR = 1.0


@dataclass(frozen=True)
class StoredOutcome:
    """A stored prompt that is similar to another prompt: how similar, and how the two models scored on it.

    Attributes:
        similarity: Cosine similarity after the mean vector is subtracted, in [-1, 1].
        strong_score: Score of the strong model.
        weak_score: Score of the weak model.
        speaks_for: "strong" or "weak", the side with the higher score; "neither" within the tie margin.
    """

    similarity: float
    strong_score: float
    weak_score: float
    speaks_for: str


@dataclass(frozen=True)
class PairOutcomes:
    """The stored outcomes of one pair of models, ready to vote on a prompt.

    Attributes:
        rows: int (m,), positions of the outcomes among all stored prompts.
        center: float32 (d,), the mean of their vectors.
        directions: float32 (m, d), their vectors minus the center, scaled to length 1.
        labels: Floats (m,): 1 if the strong model scored higher, 0 if lower, 1/2 within the tie margin.
        weights: Floats (m,) > 0.
        prior: The weighted mean of the labels.
    """

    rows: npt.NDArray[np.intp]
    center: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]
    labels: Floats
    weights: Floats
    prior: float

    @classmethod
    def of(cls, embeddings: npt.NDArray[np.float32], gap: Floats, weights: Floats, tie_margin: float) -> PairOutcomes:
        """Select the prompts that can vote; there must be at least one.

        Args:
            embeddings: float32 (n, d).
            gap: Floats (n,), score of the strong model minus that of the weak one; NaN if one has no score.
            weights: Floats (n,) >= 0; a prompt of weight 0 does not vote.
            tie_margin: Gaps of at most this size are ties.
        """
        rows = np.flatnonzero(np.isfinite(gap) & (weights > 0))
        center = embeddings[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
        labels = np.where(np.abs(gap[rows]) <= tie_margin, 0.5, (gap[rows] > 0).astype(np.float64))
        prior = float(weights[rows] @ labels / weights[rows].sum())
        return cls(rows, center, unit_rows(embeddings[rows] - center), labels, weights[rows], prior)

    def directions_of(self, matrix: FloatMatrix) -> npt.NDArray[np.float32]:
        """Return the directions (k, d) of vectors (k, d); their product with `directions` is the cosine similarity."""
        return unit_rows(matrix - self.center)

    def win_rates(self, similarity: npt.NDArray[Any], neighbors: int) -> Floats:
        """Return win rates (...) from similarities (..., m), by the votes of the `neighbors` most similar prompts."""
        k = min(neighbors, similarity.shape[-1])
        nearest = np.argpartition(-similarity, k - 1, axis=-1)[..., :k]
        # sorted by position: the sum must not depend on the order after partitioning, bit for bit
        nearest = np.sort(nearest, axis=-1)
        near = np.clip(np.take_along_axis(similarity, nearest, axis=-1), 0.0, None) * self.weights[nearest]
        return _vote(near, self.labels[nearest], self.prior)


class KNNRouter(EmbeddingRouter):
    """k nearest neighbours over outcomes: the share of similar prompts on which the strong model did better.

    ``win rate = (sum_i s_i w_i y_i + prior) / (sum_i s_i w_i + 1)`` over the `neighbors` stored prompts with the
    highest cosine similarity, where s_i is that similarity (0 if negative), w_i the prompt's weight, y_i is 1 if the
    strong model scored higher, 1/2 for equal scores and 0 if it scored lower, and prior is the mean of y over all
    prompts. The mean vector is subtracted first, so that what all prompts share does not count as similarity. Any two
    models with scores can be the pair.

    Nothing is trained; a prompt costs one pass over the stored vectors (n * d multiplications).

    Args:
        embeddings: Float (n, d), the embeddings of the stored prompts by `embedder`.
        scores: Float (n, n_models), higher is better; NaN if a model has no score.
        models: The n_models names, in the order of the columns.
        strong: Name of the strong model.
        weak: Name of the weak model.
        embedder: Maps prompts to vectors of dimension d.
        weights: Float (n,), >= 0; None weighs all prompts equally.
        neighbors: Number of neighbours that vote, >= 1; if there are fewer prompts, all vote.
        tie_margin: Scores that differ by at most this count as equal.

    Raises:
        ConfigurationError: Shapes do not fit, a value is not finite, a name is unknown or repeated, no stored prompt
            has scores of both models, or the dimension of the embedder is different.
    """

    name = "knn"
    _slow: ClassVar[bool] = True
    # set only if the outcomes are in a vector store; then there are no embeddings, scores, weights, models and pair
    _votes: _Votes
    _prior: float

    def __init__(
        self,
        embeddings: npt.ArrayLike,
        scores: npt.ArrayLike,
        *,
        models: Sequence[str],
        strong: str,
        weak: str,
        embedder: Embedder,
        weights: npt.ArrayLike | None = None,
        neighbors: int = DEFAULT_NEIGHBORS,
        tie_margin: float = 0.0,
    ) -> None:
        with np.errstate(over="ignore"):  # infinite values are rejected below
            stored, table = np.asarray(embeddings, dtype=np.float32), np.asarray(scores, dtype=np.float64)
        weight = np.ones(len(stored)) if weights is None else np.asarray(weights, dtype=np.float64)
        self.models = checked_names(models, "models")
        if (
            stored.ndim != 2
            or not stored.size
            or table.shape != (len(stored), len(self.models))
            or weight.shape != (len(stored),)
        ):
            raise WeightsError(
                f"embeddings {stored.shape}, scores {table.shape}, weights {weight.shape}, {len(self.models)} models: "
                "expected (n, d), (n, n_models), (n,) with n >= 1"
            )
        if not np.isfinite(stored).all() or np.isinf(table).any():
            raise WeightsError("embeddings or scores hold NaN or infinite values")
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise WeightsError("weights: expected finite numbers >= 0")
        neighbors = checked_count(neighbors, "neighbors")
        self.strong, self.weak = strong, weak
        self.neighbors, self.tie_margin = neighbors, _checked_pair(strong, weak, self.models, tie_margin)
        self.dimension = int(stored.shape[1])
        require_dimension(embedder, self.dimension, "the knn router")
        self.embedder = embedder
        self.embeddings, self.scores, self.weights = stored, table, weight

        difference = table[:, self.models.index(strong)] - table[:, self.models.index(weak)]
        if not (np.isfinite(difference) & (weight > 0)).any():
            raise ConfigurationError(f"no stored prompt has scores of both {strong!r} and {weak!r}")
        self.pair = PairOutcomes.of(stored, difference, weight, self.tie_margin)

    def nearest_outcomes(self, prompt: str, k: int = 8) -> list[StoredOutcome]:
        """Return the k stored prompts most similar to `prompt`, the most similar first; its win rate depends on these.

        Raises:
            PromptError: `prompt` is not a str.
            ConfigurationError: `k` is not an int >= 1.
        """
        checked_count(k, "k")
        embeddings = self.embedder.embed(checked_prompts([prompt]))
        matrix = checked_embeddings(embeddings, 1, self.dimension, type(self.embedder).__name__)
        if self._search is not None:
            return [
                StoredOutcome(similarity, float(scores[self.strong]), float(scores[self.weak]), _SIDES[label])
                for similarity, _, scores, label in self._voting(self._search.with_k(k).find(matrix)[0])[:k]
            ]
        similarity = self.pair.directions @ self.pair.directions_of(matrix)[0]
        nearest = np.argsort(-similarity, kind="stable")[:k]
        pair = self.scores[self.pair.rows[nearest]][:, [self.models.index(self.strong), self.models.index(self.weak)]]
        return stored_outcomes(similarity[nearest], pair, self.pair.labels[nearest])

    @classmethod
    def from_store(
        cls,
        store: PreferenceStore,
        *,
        strong: str,
        weak: str,
        embedder: Embedder | None = None,
        outcomes: Iterable[Mapping[str, Any] | Outcome] | None = None,
        neighbors: int = DEFAULT_NEIGHBORS,
        tie_margin: float = 0.0,
    ) -> KNNRouter:
        """Build a router whose outcomes stay in a vector store, which is searched once for each batch of prompts.

        Similarities are those of the store's vectors as they are: no mean vector is subtracted, because a store cannot
        do that, so win rates differ from those of the class a little (APGR on MMLU's 1,500 gold rows by
        cross-validation: .644 against .637). Outcomes among the `neighbors` nearest that lack a score of one of the
        two models, or have weight 0, do not vote. New outcomes take part in a search as soon as the store returns
        them; `fingerprint` changes with the store's, so a calibration that was fitted before the collection grew is
        refused when a policy is built.

        A store that fails raises an error, which a policy handles by its ``deadline`` and ``on_error``.

        Args:
            store: Contains the outcomes, each under the embedding of its prompt.
            strong: Name of the strong model.
            weak: Name of the weak model.
            embedder: Produced the store's vectors. The default is the one that the store knows.
            outcomes: All outcomes in the store, without their vectors, for the overall win rate. The default asks the
                store.
            neighbors: Number of outcomes that the store is searched for, >= 1.
            tie_margin: Scores that differ by at most this count as equal.

        Raises:
            ConfigurationError: A value is not allowed, no outcome has scores of both models, or the store cannot list
                its outcomes and none are passed.
            DataError: An outcome is malformed.
            RouterError: The store failed.
        """
        from routellm_core.routers.stores import embedder_of, outcome_of, records_of

        votes = _Votes(strong, weak, _checked_pair(strong, weak, None, tie_margin))
        total = for_strong = 0.0
        models: set[str] = set()
        for record in records_of(store, outcomes, "outcomes"):
            scores, weight = outcome_of(record)
            models.update(scores)
            label = votes.label(scores)
            if label is not None:
                total += weight
                for_strong += weight * label
        if not total > 0.0:
            raise ConfigurationError(
                f"no stored outcome has scores of both {strong!r} and {weak!r}; it has scores of: "
                f"{', '.join(sorted(models)[:12]) or '(no model)'}"
            )
        return cls._of_store(store, votes, for_strong / total, neighbors, embedder_of(store, embedder))

    @classmethod
    def _of_store(
        cls, store: PreferenceStore, votes: _Votes, prior: float, neighbors: int, embedder: Embedder
    ) -> KNNRouter:
        from routellm_core.routers.stores import StoreSearch

        router = cls.__new__(cls)
        router.neighbors = checked_count(neighbors, "neighbors")
        router._search = StoreSearch(store, router.neighbors)
        router.dimension = router._search.dimension
        require_dimension(embedder, router.dimension, "the knn router")
        router.strong, router.weak, router.tie_margin = votes.strong, votes.weak, votes.tie_margin
        router._votes, router._prior, router.embedder = votes, prior, embedder
        return router

    def _of_neighbors(self, found: list[list[Neighbor]]) -> WinRateArray:
        out = np.empty(len(found))
        for i, neighbors in enumerate(found):
            voting = self._voting(neighbors)
            near = np.array([max(0.0, similarity) * weight for similarity, weight, *_ in voting])
            out[i] = _vote(near, np.array([label for *_, label in voting]), self._prior)
        return out

    def _voting(self, neighbors: list[Neighbor]) -> list[tuple[float, float, Mapping[str, float], float]]:
        """Return (similarity, weight, scores, label) of the neighbours that have scores of both models.

        Raises:
            RouterError: A record is not an outcome.
        """
        from routellm_core.routers.stores import outcome_of

        out = []
        for similarity, record in neighbors:
            try:
                scores, weight = outcome_of(record)
            except DataError as exc:
                raise RouterError(str(exc)) from exc
            label = self._votes.label(scores)
            if label is not None and weight > 0:
                out.append((similarity, weight, scores, label))
        return out

    def _of_embeddings(self, matrix: FloatMatrix) -> WinRateArray:
        # one product per prompt, not one for all: BLAS rounds a row differently in another batch
        similarities = (self.pair.directions @ row for row in self.pair.directions_of(matrix))
        return np.array([float(self.pair.win_rates(similarity, self.neighbors)) for similarity in similarities])

    def _fingerprint_parts(self) -> dict[str, Any]:
        if self._search is not None:
            return {
                "router": self.name,
                "store": self._search.store.fingerprint,
                "pair": [self.strong, self.weak, self.tie_margin],
                "prior": self._prior,
                "neighbors": self.neighbors,
                "embedder": embedder_identity(self.embedder),
            }
        return {
            "router": self.name,
            "unit": self.pair.directions,
            "center": self.pair.center,
            "labels": self.pair.labels,
            "weight": self.pair.weights,
            "neighbors": self.neighbors,
            "embedder": embedder_identity(self.embedder),
        }

    def _save(self, path: Path) -> dict[str, Any]:
        config = {
            "strong": self.strong,
            "weak": self.weak,
            "neighbors": self.neighbors,
            "tie_margin": self.tie_margin,
            "embedder": embedder_config(self.embedder),
        }
        if self._search is not None:
            from routellm_core.routers.stores import store_config

            return {**config, "prior": self._prior, "store": store_config(self._search.store)}
        from safetensors.numpy import save_file

        tensors = {_EMBEDDINGS: self.embeddings, _SCORES: self.scores, _WEIGHTS: self.weights}
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path / WEIGHTS_FILE)
        return {**config, "models": list(self.models)}

    @classmethod
    def _load_stored(
        cls,
        path: Path,
        config: dict[str, Any],
        store: PreferenceStore | None,
        embedder: Embedder | None,
        neighbors: int | None,
    ) -> KNNRouter:
        from routellm_core.routers.milvus import saved_store

        prior, strong, weak = config.get("prior"), config.get("strong"), config.get("weak")
        if (
            not isinstance(prior, float)
            or not 0.0 <= prior <= 1.0
            or not isinstance(strong, str)
            or not isinstance(weak, str)
        ):
            raise CheckpointError(f"{path / 'config.json'}: not the config of a knn router: the checkpoint is damaged")
        opened = saved_store(config["store"], store)
        votes = _Votes(strong, weak, float(config["tie_margin"]))
        if neighbors is None:
            neighbors = config.get("neighbors", DEFAULT_NEIGHBORS)
        return cls._of_store(
            opened,
            votes,
            prior,
            neighbors,
            saved_embedder(config, embedder, opened),
        )

    @classmethod
    def _load(  # type: ignore[override]  # each router has options of its own; from_pretrained checks them
        cls,
        path: Path,
        config: dict[str, Any],
        *,
        embedder: Embedder | None = None,
        strong: str | None = None,
        weak: str | None = None,
        neighbors: int | None = None,
        store: PreferenceStore | None = None,
    ) -> KNNRouter:
        if not is_number(config.get("tie_margin")):
            raise CheckpointError(
                f"{path / 'config.json'}: tie_margin={shown(config.get('tie_margin'))}: expected a number"
            )
        if "store" in config:
            if strong is not None or weak is not None:
                raise ConfigurationError(
                    f"strong={strong!r}, weak={weak!r}: {path} keeps the overall win rate of its own pair only; build "
                    "another router with KNNRouter.from_store"
                )
            return cls._load_stored(path, config, store, embedder, neighbors)
        if store is not None:
            raise ConfigurationError(f"store=...: the outcomes of {path} are in its own file; load it without store=")
        tensors = read_tensors(path / WEIGHTS_FILE, (_EMBEDDINGS, _SCORES, _WEIGHTS))
        embedder = saved_embedder(config, embedder)
        try:
            return cls(
                tensors[_EMBEDDINGS],
                tensors[_SCORES],
                models=config["models"],
                strong=config["strong"] if strong is None else strong,
                weak=config["weak"] if weak is None else weak,
                embedder=embedder,
                weights=tensors[_WEIGHTS],
                neighbors=config["neighbors"] if neighbors is None else neighbors,
                tie_margin=config["tie_margin"],
            )
        except (KeyError, TypeError) as exc:
            raise CheckpointError(f"{path / 'config.json'}: not the config of a knn router: {exc}") from exc
        except WeightsError as exc:
            raise CheckpointError(f"{path / WEIGHTS_FILE} is damaged: {exc}") from exc


@dataclass(frozen=True, slots=True)
class _Votes:
    """For which side an outcome speaks."""

    strong: str
    weak: str
    tie_margin: float

    def label(self, scores: Mapping[str, float | None]) -> float | None:
        """Return 1 if the strong model scored higher, 0 if lower, 1/2 for a tie; None if one of them has no score."""
        strong, weak = scores.get(self.strong), scores.get(self.weak)
        if strong is None or weak is None:
            return None
        return 0.5 if abs(strong - weak) <= self.tie_margin else float(strong > weak)


def _checked_pair(strong: str, weak: str, models: Sequence[str] | None, tie_margin: Any) -> float:
    """Check the pair (against `models`, if they are known) and return the tie margin as float."""
    if not is_number(tie_margin) or tie_margin < 0.0:
        raise ConfigurationError(f"tie_margin={tie_margin!r}: expected a number >= 0")
    for parameter, name in (("strong", strong), ("weak", weak)):
        if models is not None and name not in models:
            raise ConfigurationError(
                f"{parameter}={shown(name)} is not a model of this router; it has: {', '.join(models[:12])}"
            )
    if strong == weak:
        raise ConfigurationError(f"strong and weak are both {strong!r}: pass two different models")
    return float(tie_margin)


def _vote(near: Floats, labels: Floats, prior: float) -> Floats:
    """Return win rates (...) from the similarity times weight (..., k) of the voting outcomes and their labels."""
    rates = ((near * labels).sum(axis=-1) + _PRIOR * prior) / (near.sum(axis=-1) + _PRIOR)
    return np.asarray(np.clip(rates, 0.0, 1.0), dtype=np.float64)


def unit_rows(rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Rows scaled to length 1, float32; a row of zeros stays as it is."""
    matrix = np.asarray(rows, dtype=np.float64)
    norm = np.sqrt((matrix**2).sum(axis=1, keepdims=True))
    return np.asarray(matrix / np.maximum(norm, 1e-12), dtype=np.float32)


def stored_outcomes(similarities: npt.ArrayLike, scores: npt.ArrayLike, labels: npt.ArrayLike) -> list[StoredOutcome]:
    """Stored prompts as a person reads them: similarities (k,), scores (k, 2) of strong and weak, labels (k,)."""
    rows = zip(*(np.asarray(values).tolist() for values in (similarities, scores, labels)), strict=True)
    return [StoredOutcome(similarity, strong, weak, _SIDES[label]) for similarity, (strong, weak), label in rows]
