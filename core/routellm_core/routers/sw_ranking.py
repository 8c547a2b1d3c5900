"""SimilarityWeightedRouter: Bradley-Terry ratings weighted by how similar each past battle's prompt is; no training."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_prompts
from routellm_core.embedders import embedder_config, embedder_identity
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings, require_dimension
from routellm_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigurationError,
    DataError,
    MissingExtraError,
)
from routellm_core.routers.base import WEIGHTS_FILE, WinRates
from routellm_core.routers.embedding import EmbeddingRouter, saved_embedder
from routellm_core.statistics.bradley_terry import (
    FloatArray,
    bradley_terry_ratings,
    encode_battles,
    is_bounded,
    solve_bradley_terry,
)
from routellm_core.statistics.tiers import compute_tiers

logger = logging.getLogger(__name__)

SameTier = Literal["ignore", "routellm"]
Storage = Literal["float32", "float16", "int8"]
# by the last digit of a kind's key
_OUTCOMES: tuple[Literal["lost", "tied", "won"], ...] = ("lost", "tied", "won")

PUBLISHED_BATTLES = ("lmsys/lmsys-arena-human-preference-55k", "routellm/gpt4_judge_battles")
PUBLISHED_EMBEDDINGS = ("routellm/arena_battles_embeddings", "routellm/gpt4_judge_battles_embeddings")
PUBLISHED_EMBEDDING_MODEL = "text-embedding-3-small"
# The published embeddings hold exactly the battles whose first turn has this many characters after strip.
MIN_PROMPT_CHARACTERS = 16

# Numbers of the rows that a product takes at once: as float32 1.8 MB, which stay in cache while each prompt of a batch
# is multiplied with them. Products take two prompts each: for those of up to a million multiplications numpy's BLAS has
# a kernel that reads the rows where they lie, half as dear for each prompt as a product with one. Both numbers are part
# of the result, since the rounding of a product depends on its shape.
_BLOCK_NUMBERS = 450_000
_TOGETHER = 2
# Prompts at once: bounds the similarities to some tens of megabytes, however long the batch.
_TABLES = 64
# No battle weighs less than this share of the heaviest one: whatever the base, each rating keeps a finite optimum.
_LEAST_WEIGHT = 1e-9
# A float16 row is an array of pairs, see `_paired`.
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<u4"), "int8": np.dtype("i1")}
_SAFETENSORS_DTYPES = {"F32": "<f4", "U32": "<u4", "I8": "|i1", "I64": "<i8"}


@dataclass(frozen=True, slots=True)
class StoredBattle:
    """A battle that a router keeps, as seen from a prompt.

    Attributes:
        similarity: Cosine of its prompt with the prompt, in [-1, 1].
        first_tier: Tier of one model; 0 is best.
        second_tier: Tier of the other one.
        outcome: How the first did: ``"won"`` or ``"tied"``; ``"lost"`` only where both are of one tier.
    """

    similarity: float
    first_tier: int
    second_tier: int
    outcome: Literal["won", "tied", "lost"]


class SimilarityWeightedRouter(EmbeddingRouter):
    """Rates model tiers anew for each prompt, from battles weighted by the similarity of their prompts.

    Battle i weighs ``base * base^S_i`` with ``S_i = cos(e, e_i) / max_j cos(e, e_j)``; the Bradley-Terry ratings of
    the tiers are solved to the optimum under these weights, and the win rate is
    ``1 - 1 / (1 + 10^((R_s - R_w) / 400))`` (RouteLLM, section 4.2). Each win rate depends on its prompt alone: a
    batch gives, bit for bit, what its prompts give one by one (with one and the same number of BLAS threads).

    Cases that have no weighting of their own: where no stored prompt is similar (max cos <= 0, for example the zero
    vector of an empty prompt) all battles weigh the same. Where some tier never won or never lost among the battles,
    or with `nearest`, each tier is given one more tie, of the weight of an average battle, against a player rated 1000;
    so each win rate is finite. Strong and weak in one tier give 0.5 for every prompt, which is logged as a warning.

    Args:
        battles: n records (model_a, model_b, winner); winner is "model_a", "model_b", "tie" or "tie (bothbad)".
        embeddings: (n, d) embedding of each battle's prompt, any scale; rows are normalised once.
        embedder: Maps prompts to vectors of dimension d, in the space of `embeddings`.
        strong: Strong model, one of the battles' models.
        weak: Weak model, another one of them.
        num_tiers: Number of tiers, see `compute_tiers`.
        same_tier: A battle within one tier carries no information and is ignored; "routellm" lets it act as the
            authors' package does, for holders of thresholds from there (it moves win rates by up to 0.02).
        dtype: Storage of the embeddings: "float32"; "float16", half the memory, moves win rates by less than 1e-4 (in
            the bfloat16 form, the upper half of a float32: numpy converts the other form too slowly to gain by it); or
            "int8" with one scale a row, a quarter, by less than 1e-3.
        base: Base of the weights, > 1. 10 is the paper's; greater ones follow the similar battles more sharply, which
            small embeddings need.
        nearest: Use only the battles of the k greatest similarities (and what ties with the last). None: all.

    Raises:
        ConfigurationError: A parameter has a value that is not allowed, or the embedder has another dimension.
        DataError: A malformed battle; an embedding that is zero, NaN or infinite; groups of models that never met.
    """

    name = "sw_ranking"
    _slow: ClassVar[bool] = True

    def __init__(
        self,
        battles: Sequence[tuple[str, str, str]],
        embeddings: npt.ArrayLike,
        *,
        embedder: Embedder,
        strong: str,
        weak: str,
        num_tiers: int = 10,
        same_tier: SameTier = "ignore",
        dtype: Storage = "float32",
        base: float = 10.0,
        nearest: int | None = None,
    ) -> None:
        if same_tier not in ("ignore", "routellm"):
            raise ConfigurationError(f"same_tier={same_tier!r}: expected 'ignore' or 'routellm'")
        if dtype not in _DTYPES:
            raise ConfigurationError(f"dtype={dtype!r}: expected one of {', '.join(_DTYPES)}")
        coded = encode_battles(battles)
        for model in coded.models:
            if not isinstance(model, str):
                raise DataError(f"battles name a model {model!r}, a {type(model).__name__}; expected str")
        matrix = np.asarray(embeddings)
        n = len(coded.first)
        if matrix.ndim != 2 or len(matrix) != n or matrix.shape[1] == 0 or matrix.dtype.kind not in "fiu":
            raise DataError(
                f"embeddings has shape {matrix.shape}, dtype {matrix.dtype}: expected numbers ({n}, d), a row a battle"
            )
        ratings: dict[str, float] = bradley_terry_ratings(coded, same_model=same_tier)
        tiers = compute_tiers(ratings, num_tiers)
        # One key a kind of battle. Battles of two tiers: winner first (or lower tier first) and 2 = won, 1 = tie.
        # Battles within a tier: 2, 1, 0 = model_a won, tie, model_a lost, which only "routellm" tells apart.
        tier = np.array([tiers[model] for model in coded.models])
        a, b, score = tier[coded.first], tier[coded.second], (2.0 * coded.score).astype(np.intp)
        swap = (a != b) & ((score == 0) | ((score == 1) & (a > b)))
        first, second = np.where(swap, b, a), np.where(swap, a, b)
        key = (first * num_tiers + second) * 3 + np.where(swap, 2 - score, score)
        order = np.argsort(key, kind="stable")
        keys, counts = np.unique(key, return_counts=True)
        rows, scales = _stored(matrix, order, dtype)
        self._set_up(
            matrix.shape[1],
            rows,
            scales,
            keys,
            counts,
            ratings,
            tiers,
            num_tiers,
            strong,
            weak,
            same_tier,
            base,
            nearest,
            embedder,
        )

    def _set_up(
        self,
        dimension: int,
        rows: npt.NDArray[Any],
        scales: npt.NDArray[np.float32] | None,
        keys: npt.NDArray[Any],
        counts: npt.NDArray[Any],
        ratings: dict[str, float],
        tiers: dict[str, int],
        num_tiers: int,
        strong: str,
        weak: str,
        same_tier: SameTier,
        base: float,
        nearest: int | None,
        embedder: Embedder,
    ) -> None:
        if same_tier not in ("ignore", "routellm"):
            raise ConfigurationError(f"same_tier={same_tier!r}: expected 'ignore' or 'routellm'")
        if not isinstance(base, int | float) or not math.isfinite(base) or base <= 1.0:
            raise ConfigurationError(f"base={base!r}: expected a finite number > 1; the paper has 10")
        if nearest is not None and (isinstance(nearest, bool) or not isinstance(nearest, int) or nearest < 1):
            raise ConfigurationError(f"nearest={nearest!r}: expected an int >= 1, or None for all battles")
        for parameter, model in (("strong", strong), ("weak", weak)):
            if model not in tiers:
                some = ", ".join(list(tiers)[:8]) + (", ..." if len(tiers) > 8 else "")
                raise ConfigurationError(f"{parameter}={model!r} took part in no battle; known models: {some}")
        if strong == weak:
            raise ConfigurationError(f"strong and weak are both {strong!r}: give two models")
        self.dimension = int(dimension)
        require_dimension(embedder, self.dimension, "the sw_ranking router")
        if tiers[strong] == tiers[weak]:
            logger.warning(
                "strong=%r and weak=%r are in one tier of %d: the win rate is 0.5 for every prompt; raise num_tiers or "
                "choose models further apart",
                strong,
                weak,
                num_tiers,
            )
        self.strong, self.weak, self.embedder = strong, weak, embedder
        self.ratings, self.tiers, self.num_tiers = ratings, tiers, num_tiers
        self.same_tier, self.base, self.nearest = same_tier, float(base), nearest
        self._rows, self._scales, self._keys, self._counts = rows, scales, keys, counts
        self._starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
        # Tiers in use, numbered without gaps.
        used = np.unique(list(tiers.values()))
        first, second = np.searchsorted(used, np.divmod(keys // 3, num_tiers))
        self._strong_row, self._weak_row = np.searchsorted(used, [tiers[strong], tiers[weak]])
        self._size = len(used)
        self._cells = _cells(first, second, keys % 3, len(used), own=same_tier == "routellm")
        wins, fixed = self._tables(counts[None].astype(np.float64))
        self._prior = nearest is not None or not is_bounded(wins[0], fixed[0])
        if self._prior:
            fixed = fixed + 0.5
        # Every prompt starts from the unweighted optimum: a few steps from its own, and the same in any batch.
        self._start = solve_bradley_terry(wins, fixed)[0]

    @property
    def dtype(self) -> str:
        """Storage of the embeddings."""
        return next(name for name, dtype in _DTYPES.items() if dtype == self._rows.dtype)

    def nearest_battles(self, prompt: str, k: int = 8) -> list[StoredBattle]:
        """The k stored battles with the most similar prompts, the most similar first: what the win rate rests on most.

        Raises:
            PromptError: `prompt` is not a str.
            ConfigurationError: `k` is not an int >= 1.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigurationError(f"k={k!r}: expected an int >= 1")
        embeddings = self.embedder.embed(checked_prompts([prompt]))
        cosines = self._similarities(checked_embeddings(embeddings, 1, self.dimension, type(self.embedder).__name__))[0]
        nearest = np.argsort(-cosines, kind="stable")[:k]
        # battles are kept sorted by kind
        keys = self._keys[np.searchsorted(self._starts, nearest, side="right") - 1]
        out = []
        for cosine, key in zip(cosines[nearest].tolist(), keys.tolist(), strict=True):
            first, second = divmod(key // 3, self.num_tiers)
            out.append(StoredBattle(cosine, first, second, _OUTCOMES[key % 3]))
        return out

    def _of_embeddings(self, matrix: FloatMatrix) -> WinRates:
        parts = [self._chunk_rates(matrix[i : i + _TABLES]) for i in range(0, len(matrix), _TABLES)]
        return np.concatenate(parts)

    def _chunk_rates(self, embeddings: FloatMatrix) -> WinRates:
        similarities = self._similarities(embeddings)
        sums = np.empty((len(embeddings), len(self._keys)))
        average = np.empty(len(embeddings))
        for i, row in enumerate(similarities):
            weights, number = self._weights(row)
            # A zero weight may stand beside others in a cell, so cells are summed, never skipped.
            sums[i] = np.add.reduceat(weights, self._starts)
            average[i] = sums[i].sum() / number
        wins, fixed = self._tables(sums)
        if self._prior:
            fixed += 0.5 * average[:, None, None]
        theta = solve_bradley_terry(wins, fixed, self._start)
        return np.asarray(1.0 / (1.0 + np.exp(theta[:, self._weak_row] - theta[:, self._strong_row])))

    def _similarities(self, embeddings: FloatMatrix) -> npt.NDArray[np.float32]:
        """Cosines (b, n) of b prompts with the stored rows.

        Blocks of rows by pairs of prompts, not one great product: the rounding of a cosine then does not depend on how
        many prompts came together, and a block crosses the memory bus once for all of them.
        """
        count, n = len(embeddings), len(self._rows)
        norms = np.sqrt((embeddings.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        padded = -(-count // _TOGETHER) * _TOGETHER
        queries = np.zeros((padded, self.dimension + self.dimension % 2), dtype=np.float32)
        queries[:count, : self.dimension] = embeddings / np.where(norms > 0.0, norms, 1.0)
        halves = self._rows.dtype == _DTYPES["float16"]
        parts = [queries[:, 1::2], queries[:, 0::2]] if halves else [queries[:, : self.dimension]]
        parts = [np.ascontiguousarray(part).reshape(-1, _TOGETHER, part.shape[1]) for part in parts]
        out = np.empty((padded, n), dtype=np.float32)
        pairs = out.reshape(-1, _TOGETHER, n)
        for start, blocks in self._blocks():
            # One product a pair: matmul does not join those of a stack.
            product = np.matmul(parts[0], blocks[0].T)
            if halves:
                product += np.matmul(parts[1], blocks[1].T)
            pairs[:, :, start : start + len(blocks[0])] = product
        if self._scales is not None:
            out *= self._scales
        return out[:count]

    def _blocks(self) -> Iterator[tuple[int, list[npt.NDArray[np.float32]]]]:
        """Blocks of rows as float32; where they have to be made they share one buffer.

        float16 rows come as two: their odd components, which are the rows themselves read as float32, and the even.
        """
        rows = self._rows
        height = _block_rows(rows.shape[1])
        made = rows.dtype != _DTYPES["float32"]
        buffer = np.empty((min(height, len(rows)) if made else 0, rows.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), height):
            part = np.asarray(rows[start : start + height])
            block = buffer[: len(part)]
            if not made:
                # Reading it once in order brings the block into cache a third faster than the kernel does, which
                # follows many rows at a time.
                part.max()
                yield start, [part]
            elif rows.dtype == _DTYPES["float16"]:
                np.left_shift(part, 16, out=block.view(np.uint32))
                yield start, [part.view(np.float32), block]
            else:
                np.copyto(block, part)
                yield start, [block]

    def _weights(self, cosines: npt.NDArray[np.float32]) -> tuple[FloatArray, int]:
        """Weight (n,) of each battle, up to the common factor base^2, and the number that is not zero."""
        number = len(cosines)
        top = cosines.max()
        if top <= 0.0:
            return np.ones(number), number
        weights = cosines / top
        weights -= 1.0
        weights *= math.log(self.base)
        np.maximum(weights, math.log(_LEAST_WEIGHT), out=weights)
        np.exp(weights, out=weights)
        if self.nearest is not None and self.nearest < number:
            near = cosines >= np.partition(cosines, number - self.nearest)[number - self.nearest]
            weights *= near
            number = int(np.count_nonzero(near))
        return weights.astype(np.float64), number

    def _tables(self, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weight of each kind of battle (b, m) -> wins (b, t, t) and results against the fixed player (b, 2, t)."""
        flat = np.zeros((len(sums), self._size * (self._size + 2)))
        for kinds, cells, share in self._cells:
            flat[:, cells] += share * sums[:, kinds]
        wins, fixed = flat[:, : self._size**2], flat[:, self._size**2 :]
        return wins.reshape(-1, self._size, self._size), fixed.reshape(-1, 2, self._size)

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for array in (self._rows, self._scales, self._keys, self._counts):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:32]

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {
            "router": self.name,
            "data": self._digest,
            "pair": [self.tiers[self.strong], self.tiers[self.weak]],
            "num_tiers": self.num_tiers,
            "same_tier": self.same_tier,
            "base": self.base,
            "nearest": self.nearest,
            "embedder": embedder_identity(self.embedder),
        }

    def _save(self, path: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        tensors = {
            "embeddings": self._rows,
            "keys": self._keys.astype(np.int64),
            "counts": self._counts.astype(np.int64),
        }
        if self._scales is not None:
            tensors["scales"] = self._scales
        # A new file in place of the old one: this router, or another process, may have the old one mapped.
        partial = path / f".{WEIGHTS_FILE}.{os.getpid()}.tmp"
        try:
            save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, partial)
            partial.replace(path / WEIGHTS_FILE)
        finally:
            partial.unlink(missing_ok=True)
        return {
            "strong": self.strong,
            "weak": self.weak,
            "num_tiers": self.num_tiers,
            "same_tier": self.same_tier,
            "dtype": self.dtype,
            "dimension": self.dimension,
            "base": self.base,
            "nearest": self.nearest,
            "ratings": self.ratings,
            "tiers": self.tiers,
            "digest": self._digest,
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
        same_tier: SameTier | None = None,
        base: float | None = None,
        nearest: int | None = None,
    ) -> SimilarityWeightedRouter:
        missing = [key for key in ("strong", "weak", "num_tiers", "dimension", "ratings", "tiers") if key not in config]
        if missing:
            raise CheckpointError(
                f"{path} is no saved sw_ranking router: its config lacks {', '.join(missing)}. The published data sets "
                "are read by SimilarityWeightedRouter.from_battles"
            )
        tensors = _mapped_tensors(path / WEIGHTS_FILE)
        rows, keys, counts = (tensors.get(name) for name in ("embeddings", "keys", "counts"))
        scales = tensors.get("scales")
        tiers, num_tiers, dimension = config["tiers"], config["num_tiers"], config["dimension"]
        if (
            not isinstance(num_tiers, int)
            or not isinstance(dimension, int)
            or num_tiers < 1
            or rows is None
            or keys is None
            or counts is None
            or rows.ndim != 2
            or rows.dtype not in _DTYPES.values()
            or rows.shape[1] != (-(-dimension // 2) if rows.dtype == _DTYPES["float16"] else dimension)
            or keys.shape != counts.shape
            or counts.sum() != len(rows)
            or (scales is None) != (rows.dtype != _DTYPES["int8"])
            or (scales is not None and scales.shape != (len(rows),))
            or not isinstance(tiers, dict)
            or not set(np.concatenate(np.divmod(keys // 3, num_tiers)).tolist()) <= set(tiers.values())
        ):
            raise CheckpointError(f"{path / WEIGHTS_FILE} does not fit its config.json: the checkpoint is damaged")
        if embedder is None:
            embedder = saved_embedder(path, config)
        router = cls.__new__(cls)
        router._set_up(
            dimension,
            rows,
            scales,
            np.array(keys),
            np.array(counts),
            config["ratings"],
            tiers,
            num_tiers,
            config["strong"] if strong is None else strong,
            config["weak"] if weak is None else weak,
            config.get("same_tier", "ignore") if same_tier is None else same_tier,
            config.get("base", 10.0) if base is None else base,
            config.get("nearest") if nearest is None else nearest,
            embedder,
        )
        if isinstance(config.get("digest"), str):
            # Hashing the rows would read them all; the file was hashed when it was written.
            router.__dict__["_digest"] = config["digest"]
        return router

    @classmethod
    def from_battles(
        cls,
        battles: str | Path | Sequence[str | Path] = PUBLISHED_BATTLES,
        embeddings: str | Path | Sequence[str | Path] = PUBLISHED_EMBEDDINGS,
        *,
        embedder: Embedder | None = None,
        strong: str = "gpt-4-1106-preview",
        weak: str = "mixtral-8x7b-instruct-v0.1",
        **options: Any,
    ) -> SimilarityWeightedRouter:
        """Build the router from the published data sets, or others of their form.

        Battles have the columns prompt (a JSON list of turns), model_a, model_b, winner_model_a, winner_model_b,
        winner_tie; those whose first turn has under 16 characters after strip are left out. Embeddings have the column
        ``embeddings``, one row for each battle that is kept.

        Args:
            battles: Data sets in order: a parquet or csv file, a directory of such, or a hub id.
            embeddings: Their embeddings, in the same order.
            embedder: Default: OpenAI's text-embedding-3-small, which made the published embeddings.
            strong: Strong model.
            weak: Weak model.
            **options: Further arguments of the class: num_tiers, same_tier, dtype, base, nearest.

        Raises:
            MissingExtraError: pyarrow, or for a hub id huggingface_hub, is not installed.
            CheckpointNotFoundError: A file or data set is not there.
            DataError: A column or value is malformed, or the numbers of battles and embeddings differ.
        """
        records = [record for source in _listed(battles) for record in _read_battles(source)]
        parts = [part for source in _listed(embeddings) for part in _read_embeddings(source)]
        if len({part.shape[1] for part in parts}) > 1:
            raise DataError(f"embeddings have different dimensions: {sorted({part.shape[1] for part in parts})}")
        matrix = np.concatenate(parts)
        if len(matrix) != len(records):
            raise DataError(
                f"{len(records)} battles have a first turn of {MIN_PROMPT_CHARACTERS} or more characters, but there "
                f"are {len(matrix)} embeddings; give both for the same data sets in the same order"
            )
        if embedder is None:
            from routellm_core.embedders.openai import OpenAIEmbedder

            embedder = OpenAIEmbedder(PUBLISHED_EMBEDDING_MODEL)
        return cls(records, matrix, embedder=embedder, strong=strong, weak=weak, **options)


def _block_rows(width: int) -> int:
    return max(1, _BLOCK_NUMBERS // width)


def _cells(
    first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], outcome: npt.NDArray[Any], size: int, *, own: bool
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], float]]:
    """Where each kind of battle counts: (kinds, cells of the flat table, share), no cell twice in one entry.

    The flat table is wins (size, size), then wins and losses (2, size) against the fixed player.
    """
    there, back = first * size + second, second * size + first
    cross, within = first != second, (first == second) & own
    won, tied, lost = outcome == 2, outcome == 1, outcome == 0
    # Within a tier the package scores model_b against the fixed player: what model_a won is a loss there.
    wins, losses = size * size + first, size * size + size + first
    plan = [
        (cross & won, there, 1.0),
        (cross & tied, there, 0.5),
        (cross & tied, back, 0.5),
        (within & lost, wins, 1.0),
        (within & tied, wins, 0.5),
        (within & tied, losses, 0.5),
        (within & won, losses, 1.0),
    ]
    return [(np.flatnonzero(kinds), cells[kinds], share) for kinds, cells, share in plan if kinds.any()]


def _stored(
    matrix: npt.NDArray[Any], order: npt.NDArray[np.intp], dtype: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """Unit rows in `order` as `dtype`, block by block: no second copy of the matrix."""
    n, dimension = matrix.shape
    rows: npt.NDArray[Any] = np.empty((n, -(-dimension // 2) if dtype == "float16" else dimension), _DTYPES[dtype])
    scales = np.empty(n, dtype=np.float32) if dtype == "int8" else None
    height = _block_rows(dimension)
    for start in range(0, n, height):
        index = order[start : start + height]
        block = matrix[index].astype(np.float64)
        # Scaled first: the square of a tiny or huge component would leave the range of a float.
        largest = np.abs(block).max(axis=1, keepdims=True)
        bad = ~np.isfinite(largest[:, 0]) | (largest[:, 0] == 0.0)
        if bad.any():
            i = int(index[bad][0])
            kind = "is a zero vector, which has no direction" if not matrix[i].any() else "holds NaN or infinite values"
            raise DataError(f"embeddings[{i}] {kind}: embed this battle's prompt again or drop the battle")
        block /= largest
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        if scales is not None:
            scale = np.abs(block).max(axis=1) / 127.0
            scales[start : start + len(index)] = scale
            block = np.rint(block / scale[:, None])
        rows[start : start + len(index)] = _paired(block) if dtype == "float16" else block
    return rows, scales


def _paired(block: FloatArray) -> npt.NDArray[np.uint32]:
    """Two components a word, as bfloat16: the even one in the lower half, the odd one in the upper.

    Read as a float32 a word is the odd component, with the bits of the even one as the end of its mantissa. The upper
    half is rounded with those bits in place, so the whole is as close to the component as a bfloat16 comes, and the
    rows serve as odd components without any conversion.
    """
    width = block.shape[1]
    single = np.zeros((len(block), width + width % 2), dtype=np.float32)
    single[:, :width] = block
    bits = single.view(np.uint32).astype(np.int64)
    lower = (bits[:, 0::2] + 0x8000) >> 16
    odd = bits[:, 1::2]
    sign, magnitude = odd & 0x80000000, odd & 0x7FFFFFFF
    upper = np.maximum((magnitude - lower + 0x8000) >> 16, 0) << 16
    return np.asarray(sign | upper | lower, dtype=np.uint32)


def _mapped_tensors(file: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file as read-only maps of it: nothing is read before it is used."""
    if not file.is_file():
        raise CheckpointNotFoundError(f"no {file.name} in {str(file.parent)!r}: not a saved sw_ranking router")
    size = file.stat().st_size
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(length)) if length <= size - 8 else None
        if not isinstance(header, dict):
            raise ValueError("no header")
        tensors: dict[str, npt.NDArray[Any]] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, shape = np.dtype(_SAFETENSORS_DTYPES[entry["dtype"]]), tuple(map(int, entry["shape"]))
            begin, end = entry["data_offsets"]
            if end - begin != math.prod(shape) * dtype.itemsize or begin < 0 or 8 + length + end > size:
                raise ValueError(f"tensor {name} lies outside the file")
            tensors[name] = np.memmap(file, dtype, "r", 8 + length + begin, shape)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{file} is not a readable safetensors file of a sw_ranking router: {exc}") from exc
    return tensors


def _listed(source: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [source] if isinstance(source, str | Path) else list(source)


def _read_battles(source: str | Path) -> Iterator[tuple[str, str, str]]:
    columns = ["prompt", "model_a", "model_b", "winner_model_a", "winner_model_b"]
    for file, table in _tables_of(source, columns):
        rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        for i, (prompt, model_a, model_b, won_a, won_b) in enumerate(rows):
            try:
                turns = json.loads(prompt)
                first = turns[0] or ""
                kept = len(first.strip()) >= MIN_PROMPT_CHARACTERS
            except (TypeError, ValueError, LookupError, AttributeError):
                raise DataError(f"{file}, row {i}: prompt is not a JSON list of strings") from None
            if kept:
                yield model_a, model_b, "model_a" if won_a == 1 else "model_b" if won_b == 1 else "tie"


def _read_embeddings(source: str | Path) -> Iterator[npt.NDArray[np.float32]]:
    for file, table in _tables_of(source, ["embeddings"]):
        for chunk in table.column("embeddings").chunks:
            if not len(chunk):
                continue
            try:
                flat = chunk.flatten().to_numpy(zero_copy_only=False)
                lengths = set(chunk.value_lengths().to_pylist())
            except (AttributeError, TypeError, ValueError) as exc:
                raise DataError(f"{file}: column embeddings is not a column of lists of numbers") from exc
            if len(lengths) != 1 or chunk.null_count or flat.dtype.kind != "f":
                raise DataError(f"{file}: column embeddings must hold lists of numbers, all of one length")
            yield flat.reshape(len(chunk), -1).astype(np.float32)


def _tables_of(source: str | Path, columns: list[str]) -> Iterator[tuple[Path, Any]]:
    """Each file of a data set, in order of name, as a pyarrow table of some columns."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import csv, parquet
    except ImportError:
        raise MissingExtraError("Reading battle data sets", "parquet") from None
    path = Path(source)
    if not path.exists():
        path = _downloaded(source)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in {".parquet", ".csv"})
    if not files:
        raise CheckpointNotFoundError(f"no parquet or csv file in {str(path)!r}")
    for file in files:
        try:
            if file.suffix == ".csv":
                table = csv.read_csv(
                    file,
                    parse_options=csv.ParseOptions(newlines_in_values=True),
                    convert_options=csv.ConvertOptions(include_columns=columns),
                )
            else:
                table = parquet.read_table(file, columns=columns)
        except (pyarrow.ArrowException, KeyError, OSError) as exc:
            raise DataError(f"{file} cannot be read with columns {', '.join(columns)}: {exc}") from exc
        lacking = [name for name in columns if name not in table.column_names]
        if lacking:
            raise DataError(f"{file} lacks the columns {', '.join(lacking)}")
        yield file, table


def _downloaded(source: str | Path) -> Path:
    if isinstance(source, Path) or source.count("/") != 1 or source.startswith((".", "/")):
        raise CheckpointNotFoundError(f"{str(source)!r}: no such file or directory, and not a hub id owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError(f"{source!r} is no local path; loading it from the hub", "hub") from None
    try:
        # The hub keeps a parquet form of every data set, whatever its owner uploaded, on this branch.
        return Path(
            snapshot_download(
                source, repo_type="dataset", revision="refs/convert/parquet", allow_patterns=["*/train/*.parquet"]
            )
        )
    except Exception as exc:  # the hub client has a dozen error classes, and all mean: not to be had
        raise CheckpointNotFoundError(
            f"{source!r}: no such local path, and the hub did not give it ({type(exc).__name__}: {exc})"
        ) from exc
