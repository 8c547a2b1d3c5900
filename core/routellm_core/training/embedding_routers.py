"""Training of the routers over prompt embeddings, from records to a saved router: mf, knn and sw_ranking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.checks import Progress
from routellm_core.data.contamination import prompt_key
from routellm_core.data.convert import check_margin, outcomes_to_battles
from routellm_core.data.records import Battle, Outcome
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings
from routellm_core.errors import ConfigurationError
from routellm_core.routers.base import Router
from routellm_core.training.mf import BattleArrays, fit_mf
from routellm_core.training.summary import (
    Record,
    Split,
    TrainingData,
    TrainingSummary,
    check_output,
    finish_training,
    fold_of,
)

EmbeddingRouter = Literal["mf", "knn", "sw_ranking"]

_CHUNK = 512


def train_embedding_router(
    kind: EmbeddingRouter,
    records: Iterable[Record],
    directory: str | Path,
    *,
    strong: str,
    weak: str,
    embedder: Embedder | None = None,
    all_models: bool | None = None,
    tie_margin: float = 0.0,
    held_out: float = 0.2,
    folds: int = 0,
    source_weights: Mapping[str, float] | None = None,
    skipped: Callable[[], int] = lambda: 0,
    overwrite: bool = False,
    seed: int = 0,
    draws: int = 1000,
    progress: Progress | None = None,
    **options: Any,
) -> TrainingSummary:
    """Train a router on outcomes or battles, measure it on held-out prompts, and save it.

    The split is by prompt. What a setting is chosen by (cross-validation, early stopping) happens inside the training
    part, so the held-out prompts decide nothing.

    Args:
        kind: ``"mf"``, ``"knn"`` or ``"sw_ranking"``.
        records: Outcomes, battles, or both; read once.
        directory: Where to save the router, with its calibration, metrics and model card.
        strong: The strong model.
        weak: The weak model.
        embedder: Maps prompts to vectors; None: the bundled one (no key, no network).
        all_models: Learn from the battles of every pair of models, not of this pair alone; None: mf no, sw_ranking
            yes. (knn keeps all scores and votes by the pair's.)
        tie_margin: Scores that differ by no more than this are a tie.
        held_out: Share of prompts for the metrics; 0 for none.
        folds: Measure by so many folds of cross-validation instead, and train the saved router on everything: the
            choice for a few hundred rows, where every one counts. 0 holds prompts out.
        source_weights: Factor on the weight of records by their source.
        skipped: Called at the end: how many malformed rows were left out, for the report.
        overwrite: Whether to replace a router that is there already.
        seed: Of the split, and of what is random in training.
        draws: Bootstrap draws of the intervals.
        progress: Called with (prompts embedded, prompts in all).
        **options: For `fit_mf`, `fit_knn` or `SimilarityWeightedRouter`.

    Returns:
        The summary.

    Raises:
        ConfigurationError: An option is not allowed, or the directory holds a router.
        DataError: No record compares the pair, or too few rows to split.
    """
    started = time.monotonic()
    if kind not in _FITS:
        raise ConfigurationError(f"kind={kind!r}: expected one of {', '.join(_FITS)}")
    check_margin(tie_margin)
    path = check_output(directory, overwrite=overwrite)
    if folds and (isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= 100):
        raise ConfigurationError(f"folds={folds!r}: expected 0 (hold prompts out) or 2 to 100")
    split = Split(validation=0.0, held_out=0.0 if folds else held_out, seed=seed)
    data = TrainingData.of(records, split, strong=strong, weak=weak, source_weights=source_weights)
    if embedder is None:
        from routellm_core.embedders import bundled_embedder

        embedder = bundled_embedder()
    recalled = _Recalled(embedder, progress)
    recalled.read([record.prompt for record in (*data.train, *data.held_out)])

    def fitted(rows: Sequence[Record]) -> tuple[Router, dict[str, Any]]:
        return _FITS[kind](rows, embedder, recalled, strong, weak, tie_margin, all_models, seed, options)

    try:
        router, settings = fitted(data.train)
    except TypeError as exc:
        if "unexpected keyword argument" not in str(exc):
            raise
        raise ConfigurationError(f"option not known to the training of {kind}: {exc}") from exc
    unseen: dict[str, float] | None = None
    if folds:
        unseen = {}
        fold = [fold_of(record.prompt, folds, seed) for record in data.train]
        for k in range(folds):
            prompts = list({r.prompt: None for r, f in zip(data.train, fold, strict=True) if f == k})
            if prompts:
                part, _ = fitted([r for r, f in zip(data.train, fold, strict=True) if f != k])
                unseen.update(zip(prompts, part.win_rates(prompts).tolist(), strict=True))
    measured = data.train if folds else data.held_out
    return finish_training(
        router,
        path,
        strong=strong,
        weak=weak,
        held_out=measured,
        calibrate_on=distinct_prompts(measured or data.train),
        rows={"train": len(data.train), "held_out": len(data.held_out), "skipped": skipped()},
        sources=data.sources,
        settings={
            "embedder": type(embedder).__name__,
            "dimension": embedder.dimension,
            "tie_margin": tie_margin,
            "seed": seed,
            **settings,
            **options,
        },
        started=started,
        draws=draws,
        unseen=unseen,
        folds=folds,
    )


class _Recalled:
    """Embeddings of the data's prompts, made once: each fold asks for them again."""

    def __init__(self, embedder: Embedder, progress: Progress | None) -> None:
        self._embedder, self._progress = embedder, progress
        self._at: dict[str, int] = {}
        self._matrix: FloatMatrix = np.empty((0, 0), np.float32)

    def read(self, prompts: Iterable[str]) -> None:
        """Embed the prompts, each once."""
        distinct = list(dict.fromkeys(prompts))
        self._at = {prompt: i for i, prompt in enumerate(distinct)}
        self._matrix = embed_prompts(self._embedder, distinct, self._progress)

    def __call__(self, prompts: Sequence[str]) -> FloatMatrix:
        """Their embeddings (n, d)."""
        rows: FloatMatrix = self._matrix[[self._at[prompt] for prompt in prompts]]
        return rows


def distinct_prompts(records: Iterable[Record]) -> list[str]:
    """The prompts of records, each once (but for case, punctuation and spacing), in order."""
    return list({prompt_key(record.prompt): record.prompt for record in records}.values())


def embed_prompts(embedder: Embedder, prompts: Sequence[str], progress: Progress | None = None) -> FloatMatrix:
    """Embed prompts in chunks: float32 (n, d)."""
    parts = []
    for start in range(0, len(prompts), _CHUNK):
        chunk = prompts[start : start + _CHUNK]
        parts.append(checked_embeddings(embedder.embed(chunk), len(chunk), None, type(embedder).__name__))
        if progress is not None:
            progress(start + len(chunk), len(prompts))
    return np.concatenate(parts)


def _positions(records: Sequence[Record]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct prompts, and the position among them (n,) of each record's."""
    index: dict[str, int] = {}
    rows = [index.setdefault(record.prompt, len(index)) for record in records]
    return list(index), np.array(rows, dtype=np.int64)


def _as_battles(records: Sequence[Record], strong: str, weak: str, tie_margin: float, every_pair: bool) -> list[Battle]:
    pair = None if every_pair else (strong, weak)
    battles: list[Battle] = []
    for record in records:
        if isinstance(record, Outcome):
            battles.extend(outcomes_to_battles([record], pair=pair, tie_margin=tie_margin))
        elif every_pair or {record.model_a, record.model_b} == {strong, weak}:
            battles.append(record)
    if not battles:
        raise ConfigurationError(f"no training row compares {strong!r} with {weak!r}; hold fewer out")
    return battles


def _fit_mf(
    records: Sequence[Record],
    embedder: Embedder,
    embed: _Recalled,
    strong: str,
    weak: str,
    tie_margin: float,
    all_models: bool | None,
    seed: int,
    options: dict[str, Any],
) -> tuple[Router, dict[str, Any]]:
    battles = _as_battles(records, strong, weak, tie_margin, bool(all_models))
    prompts, position = _positions(battles)
    models = sorted({m for b in battles for m in (b.model_a, b.model_b)} | {strong, weak})
    at = {name: i for i, name in enumerate(models)}
    arrays = BattleArrays(
        prompt=position,
        model_a=np.array([at[b.model_a] for b in battles]),
        model_b=np.array([at[b.model_b] for b in battles]),
        label=np.array([{"model_a": 1.0, "tie": 0.5, "model_b": 0.0}[b.winner] for b in battles]),
        weight=np.array([b.weight for b in battles]),
    )
    told: list[dict[str, Any]] = []
    router = fit_mf(
        embed(prompts),
        arrays,
        models=models,
        strong=strong,
        weak=weak,
        embedder=embedder,
        seed=seed,
        on_step=told.append,
        **options,
    )
    settings: dict[str, Any] = {"models": len(models), "battles": len(battles), "prompts": len(prompts)}
    chosen = [row["l2"] for row in told if row.get("chosen")]
    if chosen:
        settings["l2"] = chosen[0]
    if told and "epoch" in told[-1]:
        settings["epochs_run"] = told[-1]["epoch"]
    return router, settings


def _fit_knn(
    records: Sequence[Record],
    embedder: Embedder,
    embed: _Recalled,
    strong: str,
    weak: str,
    tie_margin: float,
    all_models: bool | None,
    seed: int,
    options: dict[str, Any],
) -> tuple[Router, dict[str, Any]]:
    from routellm_core.training.knn import fit_knn

    prompts, position = _positions(records)
    tables = [_scores_of(record) for record in records]
    models = sorted({name for table in tables for name in table})
    at = {name: i for i, name in enumerate(models)}
    scores = np.full((len(records), len(models)), np.nan)
    for row, table in enumerate(tables):
        for name, value in table.items():
            scores[row, at[name]] = value
    router = fit_knn(
        embed(prompts)[position],
        scores,
        models=models,
        strong=strong,
        weak=weak,
        embedder=embedder,
        groups=position,
        weights=np.array([record.weight for record in records]),
        tie_margin=tie_margin,
        seed=seed,
        **options,
    )
    return router, {"models": len(models), "prompts": len(prompts), "neighbors": router.neighbors}


def _scores_of(record: Record) -> dict[str, float]:
    if isinstance(record, Outcome):
        return record.scores
    a = {"model_a": 1.0, "tie": 0.5, "model_b": 0.0}[record.winner]
    return {record.model_a: a, record.model_b: 1.0 - a}


def _fit_sw_ranking(
    records: Sequence[Record],
    embedder: Embedder,
    embed: _Recalled,
    strong: str,
    weak: str,
    tie_margin: float,
    all_models: bool | None,
    seed: int,
    options: dict[str, Any],
) -> tuple[Router, dict[str, Any]]:
    from routellm_core.routers.sw_ranking import SimilarityWeightedRouter

    battles = _as_battles(records, strong, weak, tie_margin, all_models is not False)
    prompts, position = _positions(battles)
    router = SimilarityWeightedRouter(
        [(b.model_a, b.model_b, b.winner) for b in battles],
        embed(prompts)[position],
        embedder=embedder,
        strong=strong,
        weak=weak,
        **options,
    )
    return router, {"battles": len(battles), "prompts": len(prompts)}


_FITS: dict[str, Callable[..., tuple[Router, dict[str, Any]]]] = {
    "mf": _fit_mf,
    "knn": _fit_knn,
    "sw_ranking": _fit_sw_ranking,
}
