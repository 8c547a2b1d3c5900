"""HeadAndVoteRouter: a matrix factorization, and for one kind of prompt a vote of stored outcomes; numpy only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, checked_prompts, is_number, read_only, read_tensors, shown
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings
from routellm_core.errors import CheckpointError, ConfigurationError
from routellm_core.routers.base import WEIGHTS_FILE, WeightsError, WinRateArray
from routellm_core.routers.embedding import EmbeddingRouter
from routellm_core.routers.knn import StoredOutcome, stored_outcomes, unit_rows
from routellm_core.routers.mf import MatrixFactorizationRouter

_HEAD = "head"
_EMBEDDINGS, _SCORES = "embeddings", "scores"
# Win rates of exactly 0 and 1 have no logit.
_CLIP = 1e-6
_NUMBERS = ("above", "base", "head_slope", "vote_slope", "intercept")


def vote(
    directions: npt.NDArray[np.float32], labels: npt.NDArray[np.float32], query: npt.NDArray[np.float32], base: float
) -> float:
    """Win rate by a similarity-weighted vote: outcome i weighs ``base ** (cos_i / max_j cos_j)``.

    Where no stored prompt is similar (the highest cosine is not above 0), all weigh the same.

    Args:
        directions: float32 (n, d), the stored vectors with length 1.
        labels: float32 (n,), 1 where only the strong model was right, 0 where only the weak one was, 1/2 otherwise.
        query: float32 (d,), a vector of any length.
        base: Base of the weights, > 1.
    """
    similarity = directions @ query
    highest = float(similarity.max())
    if not highest > 0.0:
        return float(labels.mean())
    similarity *= math.log(base) / highest
    similarity -= math.log(base)  # the highest weight is 1, so that no base overflows
    weights = np.exp(similarity, out=similarity)
    return min(float(weights @ labels) / float(weights.sum()), 1.0)


def _logit(win_rate: float) -> float:
    p = min(max(win_rate, _CLIP), 1.0 - _CLIP)
    return math.log(p / (1.0 - p))


class HeadAndVoteRouter(EmbeddingRouter):
    """A router made of two: an mf, the head, and for prompts of one kind a vote of stored outcomes beside it.

    A prompt is of that kind if component `feature` of its embedding is above `above`; with the bundled embedder, a
    question with options. Its win rate is ``sigmoid(vote_slope * logit(vote) + head_slope * logit(head) +
    intercept)``, with the vote of `vote`; the three factors put both on the scale of the head, so that one threshold
    serves all prompts. Every other prompt has the head's win rate. Prompts are read in the head's windows.

    Args:
        head: The matrix factorization router.
        embeddings: int8 (n, d), the stored prompts' embeddings, each row in a scale of its own.
        scores: Floats (n, 2), scores of the strong and of the weak model; higher is better.
        feature: Position of the component, in [0, d).
        above: Value above which the outcomes vote.
        base: Base of the vote's weights, > 1.
        head_slope: Factor on the head's logit, >= 0.
        vote_slope: Factor on the vote's logit, > 0.
        intercept: Added to the logit.

    Raises:
        ConfigurationError: Shapes do not fit together, or a number is out of its range.
    """

    name = "mf_vote"

    def __init__(
        self,
        head: MatrixFactorizationRouter,
        embeddings: npt.NDArray[np.int8],
        scores: npt.ArrayLike,
        *,
        feature: int,
        above: float,
        base: float,
        head_slope: float,
        vote_slope: float,
        intercept: float,
    ) -> None:
        if not isinstance(head, MatrixFactorizationRouter):
            raise ConfigurationError(f"head={head!r:.80}: expected a MatrixFactorizationRouter")
        stored, table = np.asarray(embeddings), np.asarray(scores, dtype=np.float32)
        if stored.dtype != np.int8 or stored.ndim != 2 or not len(stored) or stored.shape[1] != head.dimension:
            raise WeightsError(
                f"embeddings of type {stored.dtype} and shape {stored.shape}: expected int8 (n, {head.dimension}) with "
                "n >= 1"
            )
        if table.shape != (len(stored), 2) or not np.isfinite(table).all():
            raise WeightsError(f"scores of shape {table.shape}: expected finite numbers ({len(stored)}, 2)")
        feature = checked_count(feature, "feature", least=0)
        if feature >= head.dimension:
            raise ConfigurationError(f"feature={feature}: expected a position below {head.dimension}")
        numbers = dict(zip(_NUMBERS, (above, base, head_slope, vote_slope, intercept), strict=True))
        for label, value in numbers.items():
            if not is_number(value):
                raise ConfigurationError(f"{label}={shown(value)}: expected a finite number")
        if base <= 1.0 or head_slope < 0.0 or vote_slope <= 0.0:
            raise ConfigurationError(
                f"base={base}, head_slope={head_slope}, vote_slope={vote_slope}: expected > 1, >= 0 and > 0"
            )
        self.head, self.embedder, self.windows = head, head.embedder, head.windows
        self.strong, self.weak, self.dimension = head.strong, head.weak, head.dimension
        self.embeddings, self.scores = read_only(stored), read_only(table)
        self.feature = feature
        self.above, self.base = float(above), float(base)
        self.head_slope, self.vote_slope, self.intercept = float(head_slope), float(vote_slope), float(intercept)
        self._directions = read_only(unit_rows(stored))
        self._labels = read_only((1.0 + np.sign(table[:, 0] - table[:, 1])) / 2.0)

    def _of_embeddings(self, matrix: FloatMatrix) -> WinRateArray:
        rates = self.head._of_embeddings(matrix)
        for i in np.flatnonzero(matrix[:, self.feature] > self.above):
            # one prompt at a time: BLAS rounds a row differently in another batch
            voted = vote(self._directions, self._labels, matrix[i].astype(np.float32, copy=False), self.base)
            z = self.vote_slope * _logit(voted) + self.head_slope * _logit(float(rates[i])) + self.intercept
            rates[i] = 0.5 * (1.0 + math.tanh(0.5 * z))
        return rates

    def deciding_text(self, prompt: str) -> tuple[str, bool]:
        """The text, the prompt or one of its windows, that sets the win rate, and whether outcomes vote on it.

        Raises:
            PromptError: `prompt` is not a str.
        """
        texts = self.texts_of(checked_prompts([prompt])[0])
        matrix = self._matrix(texts)
        i = int(self._of_embeddings(matrix).argmax())
        return texts[i], bool(matrix[i, self.feature] > self.above)

    def nearest_outcomes(self, text: str, k: int = 8) -> list[StoredOutcome]:
        """The k stored outcomes whose prompts are the most similar to `text`, the most similar first.

        Raises:
            PromptError: `text` is not a str.
            ConfigurationError: `k` is not an int >= 1.
        """
        checked_count(k, "k")
        similarity = self._directions @ unit_rows(self._matrix(checked_prompts([text])))[0]
        nearest = np.argsort(-similarity, kind="stable")[:k]
        return stored_outcomes(similarity[nearest], self.scores[nearest], self._labels[nearest])

    def _matrix(self, texts: list[str]) -> FloatMatrix:
        name = type(self.embedder).__name__
        return checked_embeddings(self.embedder.embed(texts), len(texts), self.dimension, name)

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {
            "router": self.name,
            "head": self.head.fingerprint,
            "embeddings": self.embeddings,
            "scores": self.scores,
            **self._settings(),
        }

    def _settings(self) -> dict[str, Any]:
        return {"feature": self.feature, **{name: getattr(self, name) for name in _NUMBERS}}

    def _save(self, path: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        save_file({_EMBEDDINGS: self.embeddings, _SCORES: self.scores}, path / WEIGHTS_FILE)
        self.head.save_pretrained(path / _HEAD)
        return {"strong": self.strong, "weak": self.weak, **self._settings(), "head_fingerprint": self.head.fingerprint}

    @classmethod
    def _load(  # type: ignore[override]  # each router has options of its own; from_pretrained checks them
        cls,
        path: Path,
        config: dict[str, Any],
        *,
        embedder: Embedder | None = None,
        windows: int | None = None,
    ) -> HeadAndVoteRouter:
        options = {"embedder": embedder, "windows": windows}
        head = MatrixFactorizationRouter.from_pretrained(
            path / _HEAD, **{name: value for name, value in options.items() if value is not None}
        )
        # another reading of the prompts is the caller's wish; other weights are a damaged directory
        if embedder is None and windows is None and config.get("head_fingerprint") != head.fingerprint:
            raise CheckpointError(f"{path / _HEAD} is not the head that {path} was saved with: a file was changed")
        tensors = {
            **read_tensors(path / WEIGHTS_FILE, [_EMBEDDINGS], kinds="i"),
            **read_tensors(path / WEIGHTS_FILE, [_SCORES]),
        }
        try:
            return cls(
                head,
                tensors[_EMBEDDINGS],
                tensors[_SCORES],
                feature=config.get("feature"),  # type: ignore[arg-type]  # checked by the constructor
                **{name: config.get(name) for name in _NUMBERS},  # type: ignore[arg-type]
            )
        except WeightsError as exc:
            raise CheckpointError(f"{path / WEIGHTS_FILE} is damaged: {exc}") from exc
