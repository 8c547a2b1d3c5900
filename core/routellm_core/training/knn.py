"""Fits the nearest-neighbour router: stores the outcomes and chooses how many neighbours vote."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from routellm_core.data.convert import scores_of
from routellm_core.data.records import Record
from routellm_core.embedders.base import Embedder
from routellm_core.routers.knn import KNNRouter
from routellm_core.training.embedding_task import EmbeddingTask, FittedRouter, positions

OPTIONS = ("neighbors",)

NEIGHBORS_GRID = (5, 10, 20, 40, 80, 160, 320)
_BLOCK = 256
# Leave-one-out over more prompts than this says no more about the number of neighbours.
_MAX_QUERIES = 4000


def fit_records(records: Sequence[Record], task: EmbeddingTask) -> FittedRouter:
    """Fit the router to records; see `train_embedding_router`."""
    prompts, position = positions(records)
    tables = [scores_of(record) for record in records]
    models = sorted({name for table in tables for name in table})
    at = {name: i for i, name in enumerate(models)}
    scores = np.full((len(records), len(models)), np.nan)
    for row, table in enumerate(tables):
        for name, value in table.items():
            scores[row, at[name]] = value
    router = fit_knn(
        task.vectors(prompts)[position],
        scores,
        models=models,
        strong=task.strong,
        weak=task.weak,
        embedder=task.embedder,
        groups=position,
        weights=np.array([record.weight for record in records]),
        tie_margin=task.tie_margin,
        seed=task.seed,
        **task.options,
    )
    return FittedRouter(router, {"models": len(models), "prompts": len(prompts), "neighbors": router.neighbors})


def fit_knn(
    embeddings: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    models: Sequence[str],
    strong: str,
    weak: str,
    embedder: Embedder,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    neighbors: int | None = None,
    tie_margin: float = 0.0,
    seed: int = 0,
) -> KNNRouter:
    """Make a nearest-neighbour router of outcomes.

    Args:
        embeddings: Finite floats (n, d), the prompts as `embedder` maps them.
        scores: Float (n, n_models), NaN where a model has no score.
        models: Names of the columns.
        strong: The strong model of the pair that the router starts with.
        weak: The weak one.
        embedder: Maps prompts to vectors of dimension d; the router keeps it.
        groups: Ints (n,): rows of one group (repeats of a prompt) do not vote on each other while `neighbors` is
            chosen; None: each row its own.
        weights: Floats (n,) >= 0; None weighs all alike.
        neighbors: How many neighbours vote; None chooses it from `NEIGHBORS_GRID` by the leave-one-out squared error
            of the win rate: the largest number whose error is within one standard error of the least.
        tie_margin: Scores that differ by no more than this count as equal.
        seed: Seed of the sample of 4,000 prompts that the choice is made on, if there are more.

    Returns:
        The router, without a calibration.

    Raises:
        ConfigurationError: As `KNNRouter`.
    """
    make = partial(
        KNNRouter,
        embeddings,
        scores,
        models=models,
        strong=strong,
        weak=weak,
        embedder=embedder,
        weights=weights,
        tie_margin=tie_margin,
    )
    if neighbors is not None:
        return make(neighbors=neighbors)
    return make(neighbors=_choose(make(), groups, seed))


def _choose(router: KNNRouter, groups: npt.ArrayLike | None, seed: int) -> int:
    """The number of neighbours, see `fit_knn`."""
    pair = router.pair
    n = len(pair.rows)
    grid = [k for k in NEIGHBORS_GRID if k < n] or [n]
    group = (np.arange(len(router.scores)) if groups is None else np.asarray(groups))[pair.rows]
    queries = np.arange(n)
    if n > _MAX_QUERIES:
        queries = np.sort(np.random.default_rng(seed).permutation(n)[:_MAX_QUERIES])
    losses = np.zeros((len(queries), len(grid)))
    for start in range(0, len(queries), _BLOCK):
        rows = queries[start : start + _BLOCK]
        similarity = pair.directions[rows] @ pair.directions.T
        similarity[group[rows][:, None] == group[None, :]] = -1.0
        for i, k in enumerate(grid):
            rates = pair.win_rates(similarity, k)
            losses[start : start + len(rows), i] = pair.weights[rows] * (rates - pair.labels[rows]) ** 2
    best = int(np.argmin(losses.mean(axis=0)))
    worse = losses - losses[:, [best]]
    # Labels are so noisy that the smallest error is often chance, and the votes of more neighbours vary less.
    within = worse.mean(axis=0) <= worse.std(axis=0) / np.sqrt(len(queries))
    return grid[int(np.flatnonzero(within)[-1])]
