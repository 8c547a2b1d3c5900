"""KNNRouter: win rates from the models' scores on the most similar known prompts; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, checked_names, checked_prompts, is_number, read_tensors, shown
from routellm_core.embedders import embedder_config, embedder_identity
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings, require_dimension
from routellm_core.errors import CheckpointError, ConfigurationError
from routellm_core.routers.base import WEIGHTS_FILE, WeightsError, WinRateArray
from routellm_core.routers.embedding import EmbeddingRouter, saved_embedder

Floats = npt.NDArray[np.float64]

DEFAULT_NEIGHBORS = 40
_EMBEDDINGS, _SCORES, _WEIGHTS = "embeddings", "scores", "weights"
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
        return cls(rows, center, _unit(embeddings[rows] - center), labels, weights[rows], prior)

    def directions_of(self, matrix: FloatMatrix) -> npt.NDArray[np.float32]:
        """Return the directions (k, d) of vectors (k, d); their product with `directions` is the cosine similarity."""
        return _unit(matrix - self.center)

    def win_rates(self, similarity: npt.NDArray[Any], neighbors: int) -> Floats:
        """Return win rates (...) from similarities (..., m), by the votes of the `neighbors` most similar prompts."""
        k = min(neighbors, similarity.shape[-1])
        nearest = np.argpartition(-similarity, k - 1, axis=-1)[..., :k]
        # sorted by position: the sum must not depend on the order after partitioning, bit for bit
        nearest = np.sort(nearest, axis=-1)
        near = np.clip(np.take_along_axis(similarity, nearest, axis=-1), 0.0, None) * self.weights[nearest]
        rates = ((near * self.labels[nearest]).sum(axis=-1) + _PRIOR * self.prior) / (near.sum(axis=-1) + _PRIOR)
        return np.asarray(np.clip(rates, 0.0, 1.0), dtype=np.float64)


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
        if not is_number(tie_margin) or tie_margin < 0.0:
            raise ConfigurationError(f"tie_margin={tie_margin!r}: expected a number >= 0")
        for parameter, name in (("strong", strong), ("weak", weak)):
            if name not in self.models:
                raise ConfigurationError(
                    f"{parameter}={name!r} is not a model of this router; it has: {', '.join(self.models[:12])}"
                )
        if strong == weak:
            raise ConfigurationError(f"strong and weak are both {strong!r}: pass two different models")
        self.strong, self.weak = strong, weak
        self.neighbors, self.tie_margin = neighbors, float(tie_margin)
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
        similarity = self.pair.directions @ self.pair.directions_of(matrix)[0]
        nearest = np.argsort(-similarity, kind="stable")[:k]
        pair = self.scores[self.pair.rows[nearest]][:, [self.models.index(self.strong), self.models.index(self.weak)]]
        sides = {1.0: "strong", 0.5: "neither", 0.0: "weak"}
        return [
            StoredOutcome(float(s), float(scores[0]), float(scores[1]), sides[float(label)])
            for s, scores, label in zip(similarity[nearest], pair, self.pair.labels[nearest], strict=True)
        ]

    def _of_embeddings(self, matrix: FloatMatrix) -> WinRateArray:
        # one product per prompt, not one for all: BLAS rounds a row differently in another batch
        similarities = (self.pair.directions @ row for row in self.pair.directions_of(matrix))
        return np.array([float(self.pair.win_rates(similarity, self.neighbors)) for similarity in similarities])

    def _fingerprint_parts(self) -> dict[str, Any]:
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
        from safetensors.numpy import save_file

        tensors = {_EMBEDDINGS: self.embeddings, _SCORES: self.scores, _WEIGHTS: self.weights}
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path / WEIGHTS_FILE)
        return {
            "models": list(self.models),
            "strong": self.strong,
            "weak": self.weak,
            "neighbors": self.neighbors,
            "tie_margin": self.tie_margin,
            "embedder": embedder_config(self.embedder),
        }

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
    ) -> KNNRouter:
        if not is_number(config.get("tie_margin")):
            raise CheckpointError(
                f"{path / 'config.json'}: tie_margin={shown(config.get('tie_margin'))}: expected a number"
            )
        tensors = read_tensors(path / WEIGHTS_FILE, (_EMBEDDINGS, _SCORES, _WEIGHTS))
        if embedder is None:
            embedder = saved_embedder(config)
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


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norm = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    unit: npt.NDArray[np.float32] = (rows / np.maximum(norm, 1e-12)).astype(np.float32)
    return unit
