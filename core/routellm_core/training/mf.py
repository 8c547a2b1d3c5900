"""Training of the matrix factorization router, for one pair of models or any number of them; numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.data.records import Record
from routellm_core.embedders.base import Embedder
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.routers.mf import MatrixFactorizationRouter
from routellm_core.training.battles import LABELS, BattleArrays, battles_of
from routellm_core.training.embedding_task import EmbeddingTask, FittedRouter, positions
from routellm_core.training.logistic import Floats, Ints, OnStep, choose_l2, solve
from routellm_core.training.sgd import SGD, fit_model_vectors

OPTIONS = ("method", "l2", *(field.name for field in fields(SGD)))


def fit_records(records: Sequence[Record], task: EmbeddingTask) -> FittedRouter:
    """Fit the router to records; see `train_embedding_router`."""
    every_pair = bool(task.all_models)
    battles = battles_of(records, strong=task.strong, weak=task.weak, tie_margin=task.tie_margin, every_pair=every_pair)
    prompts, position = positions(battles)
    models = sorted({m for b in battles for m in (b.model_a, b.model_b)} | {task.strong, task.weak})
    at = {name: i for i, name in enumerate(models)}
    arrays = BattleArrays(
        prompt=position,
        model_a=np.array([at[b.model_a] for b in battles]),
        model_b=np.array([at[b.model_b] for b in battles]),
        label=np.array([LABELS[b.winner] for b in battles]),
        weight=np.array([b.weight for b in battles]),
    )
    options = dict(task.options)
    sgd = SGD(**{field.name: options.pop(field.name) for field in fields(SGD) if field.name in options})
    steps: list[dict[str, Any]] = []
    router = fit_mf(
        task.vectors(prompts),
        arrays,
        models=models,
        strong=task.strong,
        weak=task.weak,
        embedder=task.embedder,
        sgd=sgd,
        seed=task.seed,
        on_step=steps.append,
        **options,
    )
    settings: dict[str, Any] = {"models": len(models), "battles": len(battles), "prompts": len(prompts)}
    chosen = [step["l2"] for step in steps if step.get("chosen")]
    if chosen:
        settings["l2"] = chosen[0]
    if steps and "epoch" in steps[-1]:
        settings["epochs_run"] = steps[-1]["epoch"]
    return FittedRouter(router, settings)


def fit_mf(
    embeddings: npt.ArrayLike,
    battles: BattleArrays,
    *,
    models: Sequence[str],
    strong: str,
    weak: str,
    embedder: Embedder,
    method: str = "auto",
    l2: float | None = None,
    sgd: SGD | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> MatrixFactorizationRouter:
    """Fit a matrix factorization router to battles between any number of models.

    Minimises the weighted pairwise logistic loss ``-label log p - (1 - label) log(1 - p)`` with
    ``p = sigmoid(delta(a, q) - delta(b, q))`` (RouteLLM, section 4.2); a tie is a label of one half.

    *pair* (the default for two models): the loss is convex in the one vector that a pair folds into, so it is solved to
    the optimum under an L2 penalty whose strength is chosen by 5-fold cross-validation over prompts. *sgd* (the default
    for more): Adam with Gaussian noise on the prompt vectors, stopped early on held-out prompts. Both give the same
    numbers for the same `seed` on the same machine.

    Args:
        embeddings: Finite floats (n_prompts, d), the prompts as `embedder` maps them.
        battles: Which model beat which, on which of those prompts.
        models: Two or more distinct names, at the positions that `battles` uses.
        strong: The strong model of the pair that the router starts with; one of `models`.
        weak: The weak one, another of `models`.
        embedder: Maps prompts to vectors of dimension d; the router keeps it.
        method: ``"auto"``, ``"pair"`` or ``"sgd"``. ``"pair"`` with more than two models uses the battles between
            `strong` and `weak` only.
        l2: Strength of the penalty of *pair*, > 0, in units of the mean squared entry of the embeddings; None:
            cross-validation over `L2_GRID`.
        sgd: Sizes and rates of *sgd*; None: the defaults.
        seed: Seed of the folds and, for *sgd*, of the split, the start values, the order and the noise.
        on_step: Called with a dict of JSON scalars after each cross-validated strength or epoch.

    Returns:
        The router for (`strong`, `weak`), without a calibration.

    Raises:
        ConfigurationError: A parameter is out of its range, or a model name is unknown.
        DataError: Embeddings are not finite or do not fit `battles`, or no battle is left to learn from.
    """
    matrix = _checked_embeddings(embeddings)
    names = tuple(models)
    _check_models(names, strong, weak)
    _check_battles(battles, len(matrix), len(names))
    if method not in ("auto", "pair", "sgd"):
        raise ConfigurationError(f"method={method!r}: expected 'auto', 'pair' or 'sgd'")
    if method == "pair" or (method == "auto" and len(names) == 2):
        index, labels, weights = _pair_battles(battles, names.index(strong), names.index(weak))
        if not weights.any():
            raise DataError(f"no battle between strong={strong!r} and weak={weak!r}; use method='sgd' for all models")
        vector = fit_pair(matrix[index], labels, weights=weights, groups=index, l2=l2, seed=seed, on_step=on_step)
        return pair_router(vector, strong=strong, weak=weak, embedder=embedder)
    p, w1, w2 = fit_model_vectors(matrix, battles, len(names), sgd or SGD(), seed=seed, on_step=on_step)
    return MatrixFactorizationRouter(p, w1, w2, models=names, strong=strong, weak=weak, embedder=embedder)


def fit_pair(
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    weights: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    l2: float | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Floats:
    """Fit the one vector v of a pair: win rate = sigmoid(v . e), under an L2 penalty, to the optimum.

    Minimises ``sum_i w_i loss_i / sum_i w_i + l2 * s / 2 * ||v||^2`` with s the mean squared entry of `vectors`. A
    column that is constant (the bias feature) is an intercept and is not penalised.

    Args:
        vectors: Finite floats (n, d), one row for each labelled prompt.
        labels: Floats (n,) in [0, 1]: 1 where the strong model won, 0 where it lost, 0.5 for a tie.
        weights: Floats (n,) >= 0; None weighs all alike.
        groups: Ints (n,): rows of one group stay in one fold of the cross-validation; None: each row its own.
        l2: The strength, > 0; None chooses it from `L2_GRID` by cross-validated loss.
        seed: Seed of the folds.
        on_step: Called for each cross-validated strength with ``{"l2", "loss", "chosen"}``.

    Returns:
        v, float64 (d,).

    Raises:
        ConfigurationError: `l2` is not a finite number > 0.
        DataError: Shapes do not fit, or a value is out of its range.
    """
    x = _checked_embeddings(vectors)
    y = np.asarray(labels, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    group = np.arange(len(x)) if groups is None else np.asarray(groups)
    if not (y.shape == w.shape == group.shape == (len(x),)):
        raise DataError(f"labels {y.shape}, weights {w.shape}, groups {group.shape}: expected ({len(x)},) each")
    if not ((y >= 0) & (y <= 1)).all():
        raise DataError("labels: expected numbers in [0, 1]")
    if not (np.isfinite(w) & (w >= 0)).all() or not w.any():
        raise DataError("weights: expected finite numbers >= 0, not all 0")
    if l2 is not None and not (math.isfinite(l2) and l2 > 0):
        raise ConfigurationError(f"l2={l2}: expected a finite number > 0, or None for cross-validation")
    if l2 is None:
        l2 = choose_l2(x, y, w, group, seed, on_step)
    return solve(x, y, w, l2, np.zeros(x.shape[1]))


def pair_router(
    vector: npt.ArrayLike, *, strong: str, weak: str, embedder: Embedder, windows: int = 0
) -> MatrixFactorizationRouter:
    """The matrix factorization router of dimension 1 whose win rate is sigmoid(vector . e).

    The models sit at +1 and -1, so that without `windows`, swapping `strong` and `weak` turns every win rate p into
    1 - p.
    """
    v = np.asarray(vector, dtype=np.float64)
    return MatrixFactorizationRouter(
        np.array([[1.0], [-1.0]]),
        v[None, :] / 2.0,
        np.ones(1),
        models=(strong, weak),
        strong=strong,
        weak=weak,
        embedder=embedder,
        windows=windows,
    )


def _checked_embeddings(embeddings: npt.ArrayLike) -> npt.NDArray[Any]:
    matrix = np.asarray(embeddings)
    if matrix.ndim != 2 or not matrix.size or not np.issubdtype(matrix.dtype, np.floating):
        raise DataError(f"embeddings: expected floats of shape (n, d), got {matrix.dtype} of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise DataError(f"embeddings: row {row} holds NaN or infinite values")
    return matrix


def _check_models(names: tuple[str, ...], strong: str, weak: str) -> None:
    if len(names) < 2 or len(set(names)) != len(names):
        raise ConfigurationError(
            f"models: {len(names)} names, {len(set(names))} distinct; expected two or more distinct names"
        )
    for parameter, name in (("strong", strong), ("weak", weak)):
        if name not in names:
            raise ConfigurationError(f"{parameter}={name!r} is not one of models: {', '.join(names[:8])}")
    if strong == weak:
        raise ConfigurationError(f"strong and weak are both {strong!r}; expected two models")


def _check_battles(battles: BattleArrays, n_prompts: int, n_models: int) -> None:
    prompt, a, b = (np.asarray(x) for x in (battles.prompt, battles.model_a, battles.model_b))
    if prompt.max() >= n_prompts:
        raise DataError(f"battles: prompt {prompt.max()} with {n_prompts} rows of embeddings")
    if max(a.max(), b.max()) >= n_models:
        raise DataError(f"battles: model {max(a.max(), b.max())} with {n_models} models")


def _pair_battles(battles: BattleArrays, strong: int, weak: int) -> tuple[Ints, Floats, Floats]:
    a, b, y = (np.asarray(x) for x in (battles.model_a, battles.model_b, battles.label))
    forward, backward = (a == strong) & (b == weak), (a == weak) & (b == strong)
    used = forward | backward
    return np.asarray(battles.prompt)[used], np.where(forward, y, 1.0 - y)[used], np.asarray(battles.weight)[used]
