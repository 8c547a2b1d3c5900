"""A correction of the router in use, learned from a few scored pairs: numpy only, in a fraction of a second.

    logit(win rate) = slope * logit(win rate in use) + intercept + delta . embedding

A hundred pairs say little about hundreds of features, but the router in use already orders the prompts. So the slope is
fitted first, under a prior that the router in use has the skill that routers usually have; then an L2-penalised delta
on the embedding, with the slope held. ``benchmarks/learning_loop.py`` measures on MMLU and MMLU-Pro what this gains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, checked_win_rates
from routellm_core.embedders import bundled_embedder
from routellm_core.embedders.base import Embedder, checked_embeddings
from routellm_core.errors import DataError
from routellm_core.routers.base import Router
from routellm_core.routers.corrected import CorrectedRouter, logits
from routellm_core.routers.embedding import EmbeddingRouter
from routellm_core.routers.mf import MatrixFactorizationRouter
from routellm_core.training.logistic import Floats, Ints, group_folds, sigmoid
from routellm_core.training.mf import pair_router

MIN_PAIRS = 100
# Strengths of the penalty, in units of the standardised features, from weak to strong. The strongest is what nearly
# every hundred pairs choose, so it is the prior of delta: stronger, and a router in use that orders this traffic no
# better than chance is hardly corrected; weaker, and chance in the labels spoils a router that orders it well.
_L2_GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_FOLDS = 5
# The prior of the slope, for logits of variance 1: the bundled router has .10 on MMLU and .06 on MMLU-Pro when both are
# fitted to thousands of pairs. Its precision is that of 160 pairs, so from about 400 on the data decide.
_PRIOR_SLOPE, _PRIOR_PRECISION = 0.2, 40.0
# Up to so many pairs the choice of the penalty errs on the side of the router in use.
_CAUTIOUS_UP_TO = 200
# The logistic loss has at most this curvature, which makes the steps below safe without ever forming a Hessian again.
_CURVATURE = 0.25


@dataclass(frozen=True)
class Correction:
    """What scored pairs add to the router in use.

    Attributes:
        slope: Factor on the logit of the router in use, >= 0.
        intercept: Added to every logit.
        delta: Factors on the embedding, float64 (d,).
        l2: Strength of the penalty that was chosen.
    """

    slope: float
    intercept: float
    delta: Floats
    l2: float

    def logits(self, embeddings: npt.ArrayLike, in_use: npt.ArrayLike) -> Floats:
        """Corrected logits (n,) of embeddings (n, d) and logits (n,) of the router in use."""
        return np.asarray(self.slope * np.asarray(in_use) + self.intercept + np.asarray(embeddings) @ self.delta)


def win_labels(strong_scores: npt.ArrayLike, weak_scores: npt.ArrayLike) -> Floats:
    """Training labels (n,) of scores in [0, 1]: ``(1 + strong - weak) / 2``, the win rate with ties half."""
    return np.asarray((1.0 + np.asarray(strong_scores, np.float64) - np.asarray(weak_scores, np.float64)) / 2.0)


def fit_correction(
    embeddings: npt.ArrayLike,
    in_use: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    traffic: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Correction:
    """Fit a correction to labelled prompts.

    The strength of the penalty is the strongest whose cross-validated loss is within one standard error of the best,
    since with few labels the smallest loss is often chance; beyond 200 pairs, within a part of it that falls as 1 / n.

    Args:
        embeddings: Floats (n, d) of the labelled prompts.
        in_use: Logits (n,) of the router in use.
        labels: Floats (n,), see `win_labels`. Pseudo-outcomes of one-sided feedback may lie outside [0, 1]: the loss is
            linear in the label, so noise around an unbiased label does no harm.
        groups: Rows of one group, such as a conversation, stay in one fold; None: each row its own.
        traffic: Embeddings (m, d) of unlabelled prompts, which say how features vary; None takes `embeddings`.
        seed: Seed of the folds.

    Raises:
        DataError: Shapes do not fit, or a value is not finite.
    """
    x, z, y = (np.asarray(values, dtype=np.float64) for values in (embeddings, in_use, labels))
    if x.ndim != 2 or not len(x) or z.shape != (len(x),) or y.shape != (len(x),):
        raise DataError(
            f"embeddings {x.shape}, in_use {z.shape}, labels {y.shape}: expected (n, d), (n,), (n,), n >= 1"
        )
    if not (np.isfinite(x).all() and np.isfinite(z).all() and np.isfinite(y).all()):
        raise DataError("embeddings, in_use and labels: expected finite numbers")
    group = np.arange(len(x)) if groups is None else np.asarray(groups)
    centre, spread = _scale(x if traffic is None else np.asarray(traffic, dtype=np.float64))
    varies = spread > 0
    features = (x[:, varies] - centre[varies]) / spread[varies]
    slope = _fit_slope(z, y)
    l2 = _choose_l2(features, y, slope * z, group, seed)
    intercept, v = _Ridge(features, y, slope * z).solve(l2)
    delta = np.zeros(x.shape[1])
    delta[varies] = v / spread[varies]
    return Correction(slope, float(intercept - delta @ centre), delta, l2)


def out_of_fold_logits(
    embeddings: npt.ArrayLike,
    in_use: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    traffic: npt.ArrayLike | None = None,
    folds: int = 10,
    seed: int = 0,
) -> Floats:
    """The corrected logit (n,) of every labelled prompt, each by a correction that was fitted without its fold.

    All folds have the intercept of the whole. Their own would spoil the order: where a fold's labels are high, those of
    the other folds are low, and prompts of different folds are compared.

    Args:
        embeddings: As for `fit_correction`; so are `in_use`, `labels`, `groups` and `traffic`.
        in_use: Logits (n,).
        labels: Floats (n,).
        groups: Groups that stay in one fold.
        traffic: Embeddings of unlabelled prompts.
        folds: Number of folds.
        seed: Seed of the folds.
    """
    x, z, y = (np.asarray(values, dtype=np.float64) for values in (embeddings, in_use, labels))
    checked_count(folds, "folds", least=2)
    group = np.arange(len(x)) if groups is None else np.asarray(groups)
    fold = group_folds(group, folds, seed)
    mean, mean_in_use = x.mean(axis=0), float(z.mean())
    out = np.full(len(x), float(logits(np.clip(y.mean(), 0.0, 1.0))))
    for k in range(folds):
        held = fold == k
        if held.any():
            rest = ~held
            fitted = fit_correction(x[rest], z[rest], y[rest], groups=group[rest], traffic=traffic, seed=seed + 1)
            out[held] += fitted.slope * (z[held] - mean_in_use) + (x[held] - mean) @ fitted.delta
    return out


def logits_in_use(router: Router, prompts: Sequence[str], embeddings: npt.ArrayLike) -> Floats:
    """Logits (n,) of the router in use on prompts whose embeddings are known.

    A pair mf is read without its windows: they are for long prompts, and what is learned here is its one vector.
    """
    if isinstance(router, MatrixFactorizationRouter):
        return np.asarray(np.asarray(embeddings, dtype=np.float64) @ router.vector)
    return logits(checked_win_rates(router.win_rates(prompts), len(prompts), router.name))


def correction_embedder(router: Router) -> Embedder:
    """The embedder that a correction of `router` is learned on: its own where it has one, else the bundled one."""
    return router.embedder if isinstance(router, EmbeddingRouter | CorrectedRouter) else bundled_embedder()


def corrected_router(
    router: Router, correction: Correction, embeddings: npt.ArrayLike, *, strong: str, weak: str
) -> Router:
    """The router that a correction on the embedder of `correction_embedder` makes of the router in use.

    Where the router in use is a pair mf, the result is an ordinary mf with the vector ``slope * v0 + delta``, as fast
    as before. Else it is a `CorrectedRouter`, which asks the router in use for every prompt; the correction of a
    corrected router is one correction again.

    Args:
        router: The router in use.
        correction: What was learned.
        embeddings: Floats (n, d) of some prompts. An mf needs a feature among them that is the same for every prompt,
            as the bundled embedder has one, to hold the intercept.
        strong: Name of the strong model, for an mf.
        weak: Name of the weak model.
    """
    embedder = correction_embedder(router)
    slope, intercept, delta = correction.slope, correction.intercept, correction.delta
    if isinstance(router, MatrixFactorizationRouter):
        constant = _constant_feature(np.asarray(embeddings, dtype=np.float64))
        if constant is not None:
            column, value = constant
            vector = slope * router.vector + delta
            vector[column] += intercept / value
            return pair_router(vector, strong=strong, weak=weak, embedder=embedder, windows=router.windows)
    if isinstance(router, CorrectedRouter):
        intercept, delta = intercept + slope * router.intercept, delta + slope * router.delta
        slope, router = slope * router.slope, router.base
    return CorrectedRouter(router, slope=slope, intercept=intercept, delta=delta, embedder=embedder)


def correct_router(
    router: Router,
    prompts: Sequence[str],
    strong_scores: npt.ArrayLike,
    weak_scores: npt.ArrayLike,
    *,
    strong: str = "strong",
    weak: str = "weak",
    seed: int = 0,
) -> Router:
    """Correct the router in use by prompts whose answers of both models are scored.

    `routellm_core.training.learn` does this from a traffic log, and proves the result.

    Args:
        router: The router in use; it is not changed.
        prompts: n labelled prompts; a hundred are enough to start.
        strong_scores: Scores (n,) in [0, 1] of the strong model's answers.
        weak_scores: Scores (n,) of the weak model's.
        strong: Name of the strong model.
        weak: Name of the weak model.
        seed: Seed of the folds that choose the penalty.

    Raises:
        DataError: Lengths differ, or a score is not in [0, 1].
    """
    s, w = np.asarray(strong_scores, dtype=np.float64), np.asarray(weak_scores, dtype=np.float64)
    if s.shape != (len(prompts),) or w.shape != (len(prompts),):
        raise DataError(f"{len(prompts)} prompts, scores of shapes {s.shape} and {w.shape}: expected one for each")
    if not (((s >= 0) & (s <= 1)).all() and ((w >= 0) & (w <= 1)).all()):
        raise DataError("strong_scores and weak_scores: expected numbers in [0, 1]")
    embedder = correction_embedder(router)
    x = checked_embeddings(embedder.embed(list(prompts)), len(prompts), None, type(embedder).__name__)
    correction = fit_correction(x, logits_in_use(router, prompts, x), win_labels(s, w), seed=seed)
    return corrected_router(router, correction, x, strong=strong, weak=weak)


def _constant_feature(x: Floats) -> tuple[int, float] | None:
    """The column and value of a feature that is the same in all rows and not 0; None where there is no such feature."""
    found = np.flatnonzero((np.ptp(x, axis=0) == 0) & (np.abs(x[0]) > 1e-6)) if len(x) > 1 else np.array([], np.int64)
    return (int(found[-1]), float(x[0, found[-1]])) if found.size else None


def _scale(x: Floats) -> tuple[Floats, Floats]:
    """Centre and scale (d,) of features: divided by the root of their spread, so that large components stay larger.

    Of full standardisation, which lets the smallest components of an embedding count as much as the largest, a
    correction on MMLU-Pro gains a tenth less. The scale is 0 for a feature that does not vary.
    """
    spread = x.std(axis=0)
    varies = spread > 1e-9
    if not varies.any():
        return x.mean(axis=0), np.zeros_like(spread)
    # the mean squared scaled feature is 1, which gives the penalty its unit
    return x.mean(axis=0), np.where(varies, np.sqrt(spread) * math.sqrt(float(spread[varies].mean())), 0.0)


def _fit_slope(z: Floats, y: Floats) -> float:
    """Slope of the logistic regression of labels on the logit in use, under the prior; never negative."""
    spread = float(z.std())
    if spread < 1e-9:
        return 0.0
    x = np.column_stack([np.ones(len(z)), (z - z.mean()) / spread])
    precision, prior = np.array([1e-6, _PRIOR_PRECISION]), np.array([0.0, _PRIOR_SLOPE])
    v = np.zeros(2)
    for _ in range(100):
        # the bound on the curvature, as below, keeps every step safe for labels outside [0, 1], too
        hessian = _CURVATURE * x.T @ x + np.diag(precision)
        step = np.linalg.solve(hessian, x.T @ (sigmoid(x @ v) - y) + precision * (v - prior))
        v = v - step
        if np.abs(step).max() < 1e-8:
            break
    return max(float(v[1]), 0.0) / spread


class _Ridge:
    """Penalised logistic regression with an offset, for all strengths of the penalty at the price of one.

    Newton's steps with the Hessian's upper bound ``x.T x / 4`` (Boehning and Lindsay, 1988) instead of the Hessian:
    decomposed once, it serves every strength, and the objective falls with each step. With labels near one half, as
    ties make them, the bound is nearly exact and a few steps are enough.

    Args:
        x: Floats (n, d), about mean 0 and variance 1.
        y: Labels (n,).
        offset: Added to every logit (n,).
    """

    def __init__(self, x: Floats, y: Floats, offset: Floats) -> None:
        self._mean = x.mean(axis=0)
        centred = x - self._mean
        values, self._basis = np.linalg.eigh(centred.T @ centred / len(x) * _CURVATURE)
        self._values = np.maximum(values, 0.0)
        self._z = centred @ self._basis
        self._y, self._offset = y, offset
        self._a, self._b = 0.0, np.zeros(x.shape[1])

    def solve(self, l2: float) -> tuple[float, Floats]:
        """Intercept and factors (d,) under a strength; each solution starts from the one before."""
        n = len(self._y)
        for _ in range(200):
            residual = self._y - sigmoid(self._offset + self._a + self._z @ self._b)
            # a trace of a penalty on the intercept, for labels that all agree
            da = (float(residual.mean()) - 1e-6 * self._a) / _CURVATURE
            db = (self._z.T @ residual / n - l2 * self._b) / (self._values + l2)
            self._a, self._b = self._a + da, self._b + db
            if max(abs(da), float(np.abs(db).max(initial=0.0))) < 1e-4:
                break
        v = self._basis @ self._b
        return self._a - float(self._mean @ v), v


def _choose_l2(x: Floats, y: Floats, offset: Floats, groups: npt.NDArray[np.generic], seed: int) -> float:
    """The strongest penalty whose cross-validated loss is not clearly above the best, see `fit_correction`."""
    if len(np.unique(groups)) < 2 * _FOLDS:
        return _L2_GRID[-1]
    fold: Ints = group_folds(groups, _FOLDS, seed)
    losses = np.zeros((len(y), len(_L2_GRID)))
    for k in range(_FOLDS):
        rest, held = fold != k, fold == k
        ridge = _Ridge(x[rest], y[rest], offset[rest])
        for i in reversed(range(len(_L2_GRID))):  # from strong to weak: each solution starts the next
            intercept, v = ridge.solve(_L2_GRID[i])
            z = offset[held] + intercept + x[held] @ v
            losses[held, i] = np.logaddexp(0.0, z) - y[held] * z
    best = int(np.argmin(losses.mean(axis=0)))
    worse = losses - losses[:, [best]]
    allowed = min(1.0, _CAUTIOUS_UP_TO / len(y)) * worse.std(axis=0) / np.sqrt(len(y))
    within = worse.mean(axis=0) <= allowed
    return _L2_GRID[int(np.flatnonzero(within)[-1])]
