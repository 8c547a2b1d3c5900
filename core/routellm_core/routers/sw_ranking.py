"""SimilarityWeightedRouter: Bradley-Terry ratings with battles weighted by the similarity of their prompts."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, checked_prompts, is_number
from routellm_core.data.published import (
    MIN_PROMPT_CHARACTERS,
    PUBLISHED_BATTLES,
    PUBLISHED_EMBEDDING_MODEL,
    PUBLISHED_EMBEDDINGS,
    read_published_battles,
    read_published_embeddings,
)
from routellm_core.embedders import embedder_config, embedder_identity
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings, require_dimension
from routellm_core.errors import CheckpointError, ConfigurationError, DataError, RouterError
from routellm_core.routers.base import WEIGHTS_FILE, WinRateArray
from routellm_core.routers.embedding import EmbeddingRouter, saved_embedder
from routellm_core.routers.sw_storage import DTYPES, BattleStore, Storage
from routellm_core.statistics.bradley_terry import (
    EncodedBattles,
    FloatArray,
    bradley_terry_ratings,
    encode_battles,
    is_bounded,
    solve_bradley_terry,
)
from routellm_core.statistics.tiers import compute_tiers

if TYPE_CHECKING:
    from routellm_core.data.records import Battle
    from routellm_core.routers.stores import Neighbor, PreferenceStore, StoreSearch

logger = logging.getLogger(__name__)

SameTier = Literal["ignore", "routellm"]
Backend = Literal["numpy", "torch"]
# indexed by the last digit of a kind's key
_OUTCOMES: tuple[Literal["lost", "tied", "won"], ...] = ("lost", "tied", "won")

# Prompts per chunk: limits the similarities to some tens of megabytes, whatever the size of the batch.
_TABLES = 64
# No battle weighs less than this share of the heaviest one, so each rating has a finite optimum whatever the base.
_LEAST_WEIGHT = 1e-9
# The tie that keeps the ratings finite counts as half a win and half a loss.
_HALF_TIE = 0.5
# Cosines that differ by less may be equal: they are rounded in several ways, by up to a few 1e-7.
_SAME_COSINE = 1e-6
# Neighbours for a router whose battles are in a vector store: with base 1000, about as good as all battles.
DEFAULT_NEAREST = 200
_CONFIG = ("strong", "weak", "num_tiers", "dimension", "ratings", "tiers")


@dataclass(frozen=True, slots=True)
class _Ranking:
    """The models' unweighted ratings, and the tier of each out of `num_tiers`; 0 is best."""

    ratings: dict[str, float]
    tiers: dict[str, int]
    num_tiers: int

    @classmethod
    def of(cls, coded: EncodedBattles, num_tiers: int, same_tier: SameTier) -> _Ranking:
        """Rate the models by their battles."""
        if same_tier not in ("ignore", "routellm"):
            raise ConfigurationError(f"same_tier={same_tier!r}: expected 'ignore' or 'routellm'")
        for model in coded.models:
            if not isinstance(model, str):
                raise DataError(f"battles name a model {model!r}, a {type(model).__name__}; expected str")
        ratings: dict[str, float] = bradley_terry_ratings(coded, same_model=same_tier)
        return cls(ratings, compute_tiers(ratings, num_tiers), num_tiers)

    def kinds(self, coded: EncodedBattles) -> npt.NDArray[np.intp]:
        """Return the key (n,) of each battle's kind: (tier of the first model * num_tiers + of the second) * 3 + 0..2.

        Of a battle between tiers, the winner comes first, or the lower tier in a tie, and 2 means won, 1 tied. Within
        a tier, 2, 1 and 0 mean that model_a won, tied and lost, which only "routellm" distinguishes.
        """
        tier = np.array([self.tiers[model] for model in coded.models])
        a, b, score = tier[coded.first], tier[coded.second], (2.0 * coded.score).astype(np.intp)
        swap = (a != b) & ((score == 0) | ((score == 1) & (a > b)))
        first, second = np.where(swap, b, a), np.where(swap, a, b)
        return np.asarray((first * self.num_tiers + second) * 3 + np.where(swap, 2 - score, score), dtype=np.intp)

    def every_kind(self) -> npt.NDArray[np.intp]:
        """Return the keys of all kinds of battle between the tiers in use, ascending."""
        used = np.unique(list(self.tiers.values()))
        pairs = (used[:, None] * self.num_tiers + used).ravel()
        return np.asarray((pairs[:, None] * 3 + np.arange(3)).ravel(), dtype=np.intp)


@dataclass(frozen=True, slots=True)
class StoredBattle:
    """A stored battle, compared with a prompt.

    Attributes:
        similarity: Cosine similarity of the two prompts, in [-1, 1].
        first_tier: Tier of one model; 0 is best.
        second_tier: Tier of the other model.
        outcome: The result of the first model: ``"won"`` or ``"tied"``; ``"lost"`` only if both are in the same tier.
    """

    similarity: float
    first_tier: int
    second_tier: int
    outcome: Literal["won", "tied", "lost"]


class SimilarityWeightedRouter(EmbeddingRouter):
    """Computes new ratings of model tiers for each prompt, from battles weighted by the similarity of their prompts.

    Battle i has the weight ``base * base^S_i`` with ``S_i = cos(e, e_i) / max_j cos(e, e_j)``; the Bradley-Terry
    ratings of the tiers are solved to the optimum under these weights, and the win rate is
    ``1 - 1 / (1 + 10^((R_s - R_w) / 400))`` (RouteLLM, section 4.2). Each win rate depends on its prompt alone: a batch
    gives the same win rates as its prompts one by one, bit for bit (with the same number of BLAS threads). There is no
    training.

    Special cases: If no stored prompt is similar (max cos <= 0, for example for the zero vector of an empty prompt),
    all battles weigh the same. If some tier never won or never lost among the battles, or with `nearest`, each tier
    gets one more tie, with the weight of an average battle, against a player rated 1000, so that every win rate is
    finite. If strong and weak are in the same tier, every win rate is 0.5, and a warning is logged.

    Args:
        battles: n records (model_a, model_b, winner); winner is "model_a", "model_b", "tie" or "tie (bothbad)".
        embeddings: (n, d) embedding of each battle's prompt, in any scale; rows are normalised once.
        embedder: Maps prompts to vectors of dimension d, in the space of `embeddings`.
        strong: Strong model, one of the battles' models.
        weak: Weak model, another of the battles' models.
        num_tiers: Number of tiers, see `compute_tiers`.
        same_tier: "ignore" drops battles within a tier, which carry no information; "routellm" treats them as the
            authors' package does, for thresholds that were chosen there (this moves win rates by up to 0.02).
        dtype: Storage of the embeddings: "float32"; "float16", with half the memory, which moves win rates by less than
            1e-4 (stored as bfloat16, the upper half of a float32, because numpy converts IEEE half precision too
            slowly); or "int8" with one scale per row and a quarter of the memory, by less than 1e-3.
        base: Base of the weights, > 1. The paper uses 10; larger bases concentrate on similar battles, which small
            embeddings need.
        nearest: Use only the battles with the k highest similarities, and those whose similarity is within 1e-6 of the
            last of these. None uses all.
        backend: What compares a prompt with the battles: "numpy", or "torch", whose compiled product takes about a
            third of the time for a single prompt. It costs 2 bytes of memory per component, which processes do not
            share, and a second per 100 million components when the router is made. torch multiplies in half
            precision, so that win rates move: by less than 1e-4 with a `base` of 10, by about 1e-3 with a larger one,
            and by more with `nearest`, where another battle may be the last. An option of loading too; a saved router
            does not contain it.

    Raises:
        ConfigurationError: A value is not allowed, or the dimension of the embedder is different.
        MissingExtraError: `backend` is "torch", which is not installed.
        DataError: A battle is malformed; an embedding is zero, NaN or infinite; or groups of models never met.
    """

    name = "sw_ranking"
    _slow: ClassVar[bool] = True
    # not set if the battles are in a vector store
    store: BattleStore
    _compare: Callable[[FloatMatrix], npt.NDArray[np.float32]]

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
        backend: Backend = "numpy",
    ) -> None:
        if dtype not in DTYPES:
            raise ConfigurationError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
        coded = encode_battles(battles)
        matrix = np.asarray(embeddings)
        n = len(coded.first)
        if matrix.ndim != 2 or len(matrix) != n or matrix.shape[1] == 0 or matrix.dtype.kind not in "fiu":
            raise DataError(
                f"embeddings has shape {matrix.shape}, dtype {matrix.dtype}: expected numbers ({n}, d), one row per "
                "battle"
            )
        ranking = _Ranking.of(coded, num_tiers, same_tier)
        self.store = BattleStore.of(matrix, ranking.kinds(coded), dtype)
        self._set_up(
            ranking,
            self.store.keys,
            self.store.counts,
            self.store.dimension,
            strong=strong,
            weak=weak,
            same_tier=same_tier,
            base=base,
            nearest=nearest,
            embedder=embedder,
        )
        self._compare_by(backend)

    def _compare_by(self, backend: Backend) -> None:
        if backend not in ("numpy", "torch"):
            raise ConfigurationError(f"backend={backend!r}: expected 'numpy' or 'torch'")
        if backend == "torch":
            from routellm_core.routers.sw_torch import TorchProduct

            self._compare = TorchProduct(self.store).similarities
        else:
            self._compare = self.store.similarities

    def _set_up(
        self,
        ranking: _Ranking,
        keys: npt.NDArray[np.integer[Any]],
        counts: npt.NDArray[np.integer[Any]],
        dimension: int,
        *,
        strong: str,
        weak: str,
        same_tier: SameTier,
        base: float,
        nearest: int | None,
        embedder: Embedder,
    ) -> None:
        tiers, num_tiers = ranking.tiers, ranking.num_tiers
        if same_tier not in ("ignore", "routellm"):
            raise ConfigurationError(f"same_tier={same_tier!r}: expected 'ignore' or 'routellm'")
        if not is_number(base) or base <= 1.0:
            raise ConfigurationError(f"base={base!r}: expected a finite number > 1; the paper uses 10")
        if nearest is not None:
            nearest = checked_count(nearest, "nearest", unit="battles")
        for parameter, model in (("strong", strong), ("weak", weak)):
            if model not in tiers:
                some = ", ".join(list(tiers)[:8]) + (", ..." if len(tiers) > 8 else "")
                raise ConfigurationError(f"{parameter}={model!r} took part in no battle; known models: {some}")
        if strong == weak:
            raise ConfigurationError(f"strong and weak are both {strong!r}: pass two different models")
        self.dimension = dimension
        require_dimension(embedder, self.dimension, "the sw_ranking router")
        if tiers[strong] == tiers[weak]:
            logger.warning(
                "strong=%r and weak=%r are in the same tier (num_tiers=%d), so the win rate is 0.5 for every prompt; "
                "increase num_tiers or choose models further apart",
                strong,
                weak,
                num_tiers,
            )
        self._ranking = ranking
        self.strong, self.weak, self.embedder = strong, weak, embedder
        self.ratings, self.tiers, self.num_tiers = ranking.ratings, tiers, num_tiers
        self.same_tier, self.base, self.nearest = same_tier, float(base), nearest
        self._keys, self._counts = keys, counts
        # Tiers in use, numbered without gaps.
        used = np.unique(list(tiers.values()))
        first, second = np.searchsorted(used, np.divmod(keys // 3, num_tiers))
        self._strong_row, self._weak_row = np.searchsorted(used, [tiers[strong], tiers[weak]])
        self._size = len(used)
        self._cells = _cells(first, second, keys % 3, len(used), own=same_tier == "routellm")
        wins, fixed = self._tables(counts[None].astype(np.float64))
        self._needs_tie = nearest is not None or not is_bounded(wins[0], fixed[0])
        if self._needs_tie:
            fixed = fixed + _HALF_TIE
        # Every prompt starts from the unweighted optimum: it is a few steps away, and the same in any batch.
        self._start = solve_bradley_terry(wins, fixed)[0]

    @property
    def dtype(self) -> str | None:
        """Storage of the embeddings; None if they are in a vector store."""
        return self.store.dtype if self._search is None else None

    def nearest_battles(self, prompt: str, k: int = 8) -> list[StoredBattle]:
        """Return the k stored battles with the most similar prompts, the most similar first; they weigh most.

        Raises:
            PromptError: `prompt` is not a str.
            ConfigurationError: `k` is not an int >= 1.
        """
        checked_count(k, "k")
        embeddings = self.embedder.embed(checked_prompts([prompt]))
        matrix = checked_embeddings(embeddings, 1, self.dimension, type(self.embedder).__name__)
        if self._search is None:
            cosines = self._compare(matrix)[0]
            nearest = np.argsort(-cosines, kind="stable")[:k]
            cosines, keys = cosines[nearest], self.store.keys_at(nearest)
        else:
            cosines, kinds = self._compared(self._search.with_k(k).find(matrix)[0][:k])
            keys = self._keys[kinds]
        out = []
        for cosine, key in zip(cosines.tolist(), keys.tolist(), strict=True):
            first, second = divmod(key // 3, self.num_tiers)
            out.append(StoredBattle(cosine, first, second, _OUTCOMES[key % 3]))
        return out

    def _of_embeddings(self, matrix: FloatMatrix) -> WinRateArray:
        parts = [self._chunk_rates(matrix[i : i + _TABLES]) for i in range(0, len(matrix), _TABLES)]
        return np.concatenate(parts)

    def _chunk_rates(self, embeddings: FloatMatrix) -> WinRateArray:
        similarities = self._compare(embeddings)
        sums = np.empty((len(embeddings), len(self._keys)))
        average = np.empty(len(embeddings))
        for i, row in enumerate(similarities):
            weights, number = self._weights(row)
            # A zero weight may share a cell with others, so cells are summed, never skipped.
            sums[i] = np.add.reduceat(weights, self.store.starts)
            average[i] = sums[i].sum() / number
        return self._solved(sums, average)

    def _of_neighbors(self, found: list[list[Neighbor]]) -> WinRateArray:
        sums = np.empty((len(found), len(self._keys)))
        average = np.empty(len(found))
        for i, neighbors in enumerate(found):
            cosines, kinds = self._compared(neighbors)
            if not len(cosines) or cosines[0] <= 0.0:  # no battle is similar, so all of them weigh the same
                sums[i], average[i] = self._counts, 1.0
                continue
            weights, number = self._weights(cosines)
            sums[i] = np.bincount(kinds, weights, len(self._keys))
            average[i] = sums[i].sum() / number
        return self._solved(sums, average)

    def _compared(self, neighbors: list[Neighbor]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
        """Return the cosines (m,) of a prompt's neighbours, and the position of each one's kind among `_keys`.

        Battles of models that had none when the router was built have no tier, so they are left out.

        Raises:
            RouterError: A record is not a battle, or all are of models that are new.
        """
        from routellm_core.routers.stores import battle_of

        cosines: list[float] = []
        battles: list[tuple[str, str, str]] = []
        try:
            for similarity, record in neighbors:
                battle = battle_of(record)
                if battle[0] in self.tiers and battle[1] in self.tiers:
                    cosines.append(similarity)
                    battles.append(battle)
            if neighbors and not battles:
                raise RouterError(
                    "all similar battles in the store are of models that had none when the router was built; build it "
                    "again"
                )
            kinds = self._ranking.kinds(encode_battles(battles)) if battles else np.empty(0, dtype=np.intp)
        except DataError as exc:
            raise RouterError(str(exc)) from exc
        return np.array(cosines, dtype=np.float32), np.searchsorted(self._keys, kinds)

    def _solved(self, sums: FloatArray, average: FloatArray) -> WinRateArray:
        """Return the win rates (b,) from the weights (b, m) of all kinds of battle and of an average battle (b,)."""
        wins, fixed = self._tables(sums)
        if self._needs_tie:
            fixed += _HALF_TIE * average[:, None, None]
        theta = solve_bradley_terry(wins, fixed, self._start)
        return np.asarray(1.0 / (1.0 + np.exp(theta[:, self._weak_row] - theta[:, self._strong_row])))

    def _weights(self, cosines: npt.NDArray[np.float32]) -> tuple[FloatArray, int]:
        """Return the weight (n,) of each battle, up to the common factor base^2, and how many are not zero."""
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
            near = cosines >= np.partition(cosines, number - self.nearest)[number - self.nearest] - _SAME_COSINE
            weights *= near
            number = int(np.count_nonzero(near))
        return weights.astype(np.float64), number

    def _tables(self, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Turn the weight of each kind of battle (b, m) into wins (b, t, t) and fixed-player results (b, 2, t)."""
        flat = np.zeros((len(sums), self._size * (self._size + 2)))
        for kinds, cells, share in self._cells:
            flat[:, cells] += share * sums[:, kinds]
        wins, fixed = flat[:, : self._size**2], flat[:, self._size**2 :]
        return wins.reshape(-1, self._size, self._size), fixed.reshape(-1, 2, self._size)

    def _fingerprint_parts(self) -> dict[str, Any]:
        data: Any = self.store.digest if self._search is None else self._stored_parts(self._search)
        return {
            "router": self.name,
            "data": data,
            "pair": [self.tiers[self.strong], self.tiers[self.weak]],
            "num_tiers": self.num_tiers,
            "same_tier": self.same_tier,
            "base": self.base,
            "nearest": self.nearest,
            "embedder": embedder_identity(self.embedder),
        }

    def _stored_parts(self, search: StoreSearch) -> dict[str, Any]:
        """What determines the win rates of a router whose battles are in a vector store, apart from its settings."""
        return {"store": search.store.fingerprint, "tiers": self.tiers, "counts": self._counts.tolist()}

    def _save(self, path: Path) -> dict[str, Any]:
        config = {
            "strong": self.strong,
            "weak": self.weak,
            "num_tiers": self.num_tiers,
            "same_tier": self.same_tier,
            "dimension": self.dimension,
            "base": self.base,
            "nearest": self.nearest,
            "ratings": self.ratings,
            "tiers": self.tiers,
            "embedder": embedder_config(self.embedder),
        }
        if self._search is not None:
            from routellm_core.routers.stores import store_config

            return {**config, "counts": self._counts.tolist(), "store": store_config(self._search.store)}
        self.store.save(path / WEIGHTS_FILE)
        return {**config, "dtype": self.dtype, "digest": self.store.digest}

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
        store: PreferenceStore | None = None,
        backend: Backend = "numpy",
    ) -> SimilarityWeightedRouter:
        missing = [key for key in _CONFIG if key not in config]
        if missing:
            raise CheckpointError(
                f"{path} is not a saved sw_ranking router: its config lacks {', '.join(missing)}. To use the published "
                "data sets, call SimilarityWeightedRouter.from_battles"
            )
        stored = "store" in config
        if store is not None and not stored:
            raise ConfigurationError(f"store=...: the battles of {path} are in its own file; load it without store=")
        if stored and backend != "numpy":
            raise ConfigurationError(
                f"backend={backend!r}: the battles of {path} are in a vector store, which compares"
            )
        battles = None if stored else BattleStore.mapped(path / WEIGHTS_FILE, config["dimension"], config.get("digest"))
        ranking = _saved_ranking(path, config, None if battles is None else battles.keys)
        options: dict[str, Any] = {
            "strong": config["strong"] if strong is None else strong,
            "weak": config["weak"] if weak is None else weak,
            "same_tier": config.get("same_tier", "ignore") if same_tier is None else same_tier,
            "base": config.get("base", 10.0) if base is None else base,
            "nearest": config.get("nearest") if nearest is None else nearest,
        }
        if battles is None:
            from routellm_core.routers.milvus import saved_store

            opened = saved_store(config["store"], store)
            embedder = saved_embedder(config, embedder, opened)
            return cls._of_store(opened, ranking, _saved_counts(path, config, ranking), embedder=embedder, **options)
        router = cls.__new__(cls)
        router.store = battles
        embedder = saved_embedder(config, embedder)
        router._set_up(ranking, battles.keys, battles.counts, battles.dimension, embedder=embedder, **options)
        router._compare_by(backend)
        return router

    @classmethod
    def from_store(
        cls,
        store: PreferenceStore,
        *,
        strong: str,
        weak: str,
        embedder: Embedder | None = None,
        battles: Iterable[tuple[str, str, str] | Mapping[str, Any] | Battle] | None = None,
        num_tiers: int = 10,
        same_tier: SameTier = "ignore",
        base: float = 10.0,
        nearest: int = DEFAULT_NEAREST,
    ) -> SimilarityWeightedRouter:
        """Build a router whose battles stay in a vector store, which is searched once for each batch of prompts.

        Where the store is exact, win rates are those of the class with the same battles and `nearest`, up to 1e-6.
        With an approximate index they move as its recall falls. Ratings and tiers are computed now, from all battles;
        new battles of known models take part in a search as soon as the store returns them, and those of new models
        when the router is built again. `fingerprint` changes with the store's, so a calibration that was fitted
        before the collection grew is refused when a policy is built.

        A store that fails raises an error, which a policy handles by its ``deadline`` and ``on_error``.

        Args:
            store: Contains the battles, each under the embedding of its prompt.
            strong: Strong model, one of the battles' models.
            weak: Weak model, another of the battles' models.
            embedder: Produced the store's vectors. The default is the one that the store knows.
            battles: All battles in the store, without their vectors, in any order. The default asks the store.
            num_tiers: Number of tiers, see `compute_tiers`.
            same_tier: See the class.
            base: Base of the weights, > 1.
            nearest: Number of battles that the store is searched for, see the class.

        Raises:
            ConfigurationError: A value is not allowed, or the store cannot list its battles and none are passed.
            DataError: A battle is malformed, or groups of models never met.
            RouterError: The store failed.
        """
        from routellm_core.routers.stores import battle_of, embedder_of, records_of

        coded = encode_battles([battle_of(record) for record in records_of(store, battles, "battles")])
        ranking = _Ranking.of(coded, num_tiers, same_tier)
        positions = np.searchsorted(ranking.every_kind(), ranking.kinds(coded))
        counts = np.bincount(positions, minlength=len(ranking.every_kind()))
        return cls._of_store(
            store,
            ranking,
            counts,
            embedder=embedder_of(store, embedder),
            strong=strong,
            weak=weak,
            same_tier=same_tier,
            base=base,
            nearest=nearest,
        )

    @classmethod
    def _of_store(
        cls,
        store: PreferenceStore,
        ranking: _Ranking,
        counts: npt.NDArray[np.integer[Any]],
        *,
        nearest: int,
        **options: Any,
    ) -> SimilarityWeightedRouter:
        from routellm_core.routers.stores import StoreSearch

        search = StoreSearch(store, checked_count(nearest, "nearest", unit="battles"), extra=True)
        router = cls.__new__(cls)
        router._search = search
        router._set_up(ranking, ranking.every_kind(), counts, search.dimension, nearest=nearest, **options)
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
        """Build the router from the published data sets, or from others of the same form.

        Battles have the columns prompt (a JSON list of turns), model_a, model_b, winner_model_a, winner_model_b,
        winner_tie; those whose first turn has fewer than 16 characters after strip are skipped. Embeddings have the
        column ``embeddings``, with one row for each of the other battles.

        Args:
            battles: Data sets in order; each is a parquet or csv file, a directory of such files, or a hub id.
            embeddings: Their embeddings, in the same order.
            embedder: The default is OpenAI's text-embedding-3-small, which produced the published embeddings.
            strong: Strong model.
            weak: Weak model.
            **options: Further arguments of the class: num_tiers, same_tier, dtype, base, nearest, backend.

        Raises:
            MissingExtraError: pyarrow, or for a hub id huggingface_hub, is not installed.
            CheckpointNotFoundError: A file or data set does not exist.
            DataError: A column or value is malformed, or the numbers of battles and embeddings differ.
        """
        records = read_published_battles(battles)
        matrix = read_published_embeddings(embeddings)
        if len(matrix) != len(records):
            raise DataError(
                f"{len(records)} battles have a first turn of {MIN_PROMPT_CHARACTERS} or more characters, but there "
                f"are {len(matrix)} embeddings; pass both for the same data sets in the same order"
            )
        if embedder is None:
            from routellm_core.embedders.openai import OpenAIEmbedder

            embedder = OpenAIEmbedder(PUBLISHED_EMBEDDING_MODEL)
        return cls(records, matrix, embedder=embedder, strong=strong, weak=weak, **options)


def _saved_ranking(path: Path, config: dict[str, Any], keys: npt.NDArray[np.integer[Any]] | None) -> _Ranking:
    """Return the ranking of a saved router, whose battles are of the kinds `keys`; None for those of a vector store."""
    tiers, ratings, num_tiers = config["tiers"], config["ratings"], config["num_tiers"]
    if (
        type(num_tiers) is not int
        or num_tiers < 1
        or not isinstance(tiers, dict)
        or not all(type(tier) is int and 0 <= tier < num_tiers for tier in tiers.values())
        or not isinstance(ratings, dict)
        or ratings.keys() != tiers.keys()
        or not all(map(is_number, ratings.values()))
        or (
            keys is not None
            and not set(np.concatenate(np.divmod(keys // 3, num_tiers)).tolist()) <= set(tiers.values())
        )
    ):
        raise CheckpointError(f"{path / WEIGHTS_FILE} does not fit its config.json: the checkpoint is damaged")
    return _Ranking(ratings, tiers, num_tiers)


def _saved_counts(path: Path, config: dict[str, Any], ranking: _Ranking) -> npt.NDArray[np.integer[Any]]:
    counts = config.get("counts")
    if (
        not isinstance(counts, list)
        or len(counts) != len(ranking.every_kind())
        or not all(type(count) is int and 0 <= count < 1 << 53 for count in counts)
    ):
        raise CheckpointError(f"{path / 'config.json'}: counts do not fit the tiers: the checkpoint is damaged")
    return np.array(counts, dtype=np.int64)


def _cells(
    first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], outcome: npt.NDArray[Any], size: int, *, own: bool
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], float]]:
    """Where each kind of battle counts: (kinds, cells of the flat table, share), with no cell twice in an entry.

    The flat table consists of wins (size, size), then wins and losses (2, size) against the fixed player.
    """
    there, back = first * size + second, second * size + first
    cross, within = first != second, (first == second) & own
    won, tied, lost = outcome == 2, outcome == 1, outcome == 0
    # Within a tier the package scores model_b against the fixed player, so a win of model_a is a loss there.
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
