"""Penalised logistic regression on soft labels, solved to the optimum; numpy only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
OnStep: TypeAlias = Callable[[dict[str, Any]], None]

# Strength of the L2 penalty in units of the mean squared entry of the training vectors, from almost no penalty to
# almost nothing left but the intercept.
L2_GRID = tuple(float(x) for x in 10.0 ** np.arange(-3.0, 2.01, 0.5))
_FOLDS = 5
# Rows times squared columns, the cost of a Newton step, from which one fold is enough.
_MUCH_DATA = 2e10


def sigmoid(z: Floats) -> Floats:
    """1 / (1 + exp(-z)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def logistic_loss(z: Floats, y: Floats) -> Floats:
    """Logistic loss of logits z against labels y in [0, 1], without overflow."""
    return np.asarray(np.logaddexp(0.0, z) - y * z)


def solve(x: npt.NDArray[Any], y: Floats, w: Floats, l2: float, start: Floats, tolerance: float = 1e-9) -> Floats:
    """The vector v, float64 (d,), that minimises ``sum_i w_i loss(x_i . v, y_i) / sum_i w_i + l2 * s / 2 * ||v||^2``.

    s is the mean squared entry of `x`; a constant column is an intercept, which is neither counted in s nor
    penalised. Newton's method with a step that is halved until it decreases the objective; it takes about five steps.

    Args:
        x: Finite floats (n, d).
        y: Floats (n,) in [0, 1].
        w: Floats (n,) >= 0, not all 0.
        l2: Strength of the penalty, > 0.
        start: Floats (d,) to start from, such as the solution under a similar penalty.
        tolerance: Largest entry of the gradient at which to stop.
    """
    x = np.asarray(x, dtype=np.float64)
    w = w / w.sum()
    penalty = _penalty(x, l2)

    def value(v: Floats) -> float:
        return float(w @ logistic_loss(x @ v, y) + 0.5 * penalty @ (v * v))

    v = start.copy()
    now = value(v)
    for _ in range(50):
        p = sigmoid(x @ v)
        gradient = x.T @ (w * (p - y)) + penalty * v
        if float(np.abs(gradient).max()) < tolerance:
            break
        hessian = x.T @ (x * (w * p * (1.0 - p))[:, None]) + np.diag(penalty)
        step = np.linalg.solve(hessian, -gradient)
        slope = float(gradient @ step)
        size = 1.0
        while size > 1e-6 and value(v + size * step) > now + 1e-4 * size * slope:
            size /= 2.0
        v = v + size * step
        now = value(v)
    return v


def choose_l2(
    x: npt.NDArray[Any], y: Floats, w: Floats, groups: npt.NDArray[Any], seed: int, on_step: OnStep | None = None
) -> float:
    """The strength from `L2_GRID` with the smallest cross-validated loss.

    Args:
        x: Finite floats (n, d).
        y: Floats (n,) in [0, 1].
        w: Floats (n,) >= 0, not all 0.
        groups: Ints (n,): rows of one group stay in one fold.
        seed: Seed of the folds.
        on_step: Called after all folds, once for each strength, with ``{"l2", "loss", "chosen"}``.
    """
    if len(np.unique(groups)) < 2 * _FOLDS:
        return 1.0  # with so few prompts any choice is noise, and a strong penalty is safe
    fold = group_folds(groups, _FOLDS, seed)
    losses = np.zeros(len(L2_GRID))
    # one held-out fifth of much data says as much as all five of little data, in a fifth of the time
    folds = 1 if len(x) * x.shape[1] ** 2 > _MUCH_DATA else _FOLDS
    for k in range(folds):
        train, held = fold != k, fold == k
        if not w[train].any():
            continue
        x_train = x[train].astype(np.float64)
        v = np.zeros(x.shape[1])
        # from the strongest penalty to the weakest, each started at the solution before it
        for i in reversed(range(len(L2_GRID))):
            v = solve(x_train, y[train], w[train], L2_GRID[i], v, tolerance=1e-6)
            losses[i] += float(w[held] @ logistic_loss(x[held] @ v, y[held])) / w.sum()
    best = int(np.argmin(losses))
    if on_step is not None:
        for strength, loss in zip(L2_GRID, losses, strict=True):
            on_step({"l2": strength, "loss": float(loss), "chosen": strength == L2_GRID[best]})
    return L2_GRID[best]


def group_folds(groups: npt.NDArray[Any], folds: int, seed: int) -> Ints:
    """The fold, int (n,) from 0 to folds - 1, of each row: random, of equal size in groups, a group in one fold."""
    names, position = np.unique(groups, return_inverse=True)
    fold: Ints = (np.random.default_rng(seed).permutation(len(names)) % folds)[position]
    return fold


def _penalty(x: npt.NDArray[Any], l2: float) -> Floats:
    constant = np.ptp(x, axis=0) == 0
    # a trace of a penalty on the intercept keeps the problem strictly convex when all labels agree
    free = ~constant
    scale = float(np.mean(np.square(x[:, free], dtype=np.float64))) if free.any() else 1.0
    return np.where(constant, 1e-6, l2 * max(scale, 1e-12))
