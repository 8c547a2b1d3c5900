"""Training of the matrix factorization router, for one pair of models or any number of them; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.embedders.base import Embedder
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.routers.mf import MatrixFactorizationRouter

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
OnStep = Callable[[dict[str, Any]], None]

# Strength of the L2 penalty in units of the mean squared entry of the (weighted) training vectors, from almost none to
# almost nothing but the intercept.
L2_GRID = tuple(float(x) for x in 10.0 ** np.arange(-3.0, 2.01, 0.5))
_FOLDS = 5
# Rows times squared columns, the cost of a Newton step, from which one fold is enough.
_MUCH_DATA = 2e10


@dataclass(frozen=True)
class BattleArrays:
    """Battles as arrays: on prompt ``prompt[i]``, model ``model_a[i]`` beat ``model_b[i]`` with label ``label[i]``.

    Attributes:
        prompt: int (n,), row of the embeddings.
        model_a: int (n,), position in the list of models.
        model_b: int (n,), likewise; another one than `model_a`.
        label: float (n,) in [0, 1]: 1 where a won, 0 where b won, 0.5 for a tie; any number between is a soft label.
        weight: float (n,), >= 0, not all 0; None weighs all alike.

    Raises:
        DataError: Arrays of different lengths, none at all, or a value out of its range; the message names the row.
    """

    prompt: npt.ArrayLike
    model_a: npt.ArrayLike
    model_b: npt.ArrayLike
    label: npt.ArrayLike
    weight: npt.ArrayLike | None = None

    def __post_init__(self) -> None:
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name in ("prompt", "model_a", "model_b"):
            raw = np.asarray(getattr(self, name))
            if raw.ndim != 1 or (raw.size and not np.issubdtype(raw.dtype, np.integer)):
                raise DataError(f"{name}: expected whole numbers of shape (n,), got {raw.dtype} of shape {raw.shape}")
            arrays[name] = raw.astype(np.int64)
        arrays["label"] = np.asarray(self.label, dtype=np.float64)
        given = np.ones(arrays["label"].shape) if self.weight is None else self.weight
        arrays["weight"] = np.asarray(given, dtype=np.float64)
        shapes = {name: array.shape for name, array in arrays.items()}
        if len(set(shapes.values())) != 1 or len(shapes["label"]) != 1 or not arrays["label"].size:
            raise DataError(f"battles: expected arrays of one shape (n,) with n >= 1, got {shapes}")
        checks = {
            "prompt": (arrays["prompt"] < 0, "a row number >= 0"),
            "model_a": (
                (arrays["model_a"] < 0) | (arrays["model_a"] == arrays["model_b"]),
                "a model other than model_b",
            ),
            "model_b": (arrays["model_b"] < 0, "a model's position >= 0"),
            "label": (~((arrays["label"] >= 0) & (arrays["label"] <= 1)), "a number in [0, 1]"),
            "weight": (~((arrays["weight"] >= 0) & np.isfinite(arrays["weight"])), "a finite number >= 0"),
        }
        for name, (bad, wanted) in checks.items():
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise DataError(f"battles: {name}[{row}]={arrays[name][row]}: expected {wanted}")
        if not arrays["weight"].any():
            raise DataError("battles: all weights are 0; give at least one battle a weight")
        for name, array in arrays.items():
            object.__setattr__(self, name, array)


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
    dim: int = 64,
    epochs: int = 30,
    learning_rate: float = 1e-2,
    batch_size: int = 256,
    weight_decay: float = 1e-5,
    noise: float = 0.1,
    validation: float = 0.1,
    patience: int = 4,
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
        battles: Who beat whom on which of those prompts.
        models: Names, at the positions that `battles` uses; two or more, none twice.
        strong: The strong model of the pair that the router starts with; one of `models`.
        weak: The weak one, another of `models`.
        embedder: Gives vectors of dimension d; kept by the router.
        method: ``"auto"``, ``"pair"`` or ``"sgd"``. ``"pair"`` with more than two models uses the battles between
            `strong` and `weak` only.
        l2: Strength of the penalty of *pair*, > 0, in units of the mean squared entry of the embeddings; None:
            cross-validation over `L2_GRID`.
        dim: Length of a model vector of *sgd*, >= 1.
        epochs: Most passes over the battles, >= 1.
        learning_rate: Adam's, > 0; it falls to zero along a half cosine.
        batch_size: Battles a step, >= 1.
        weight_decay: Decoupled decay of the projection and output, >= 0, per unit of learning rate.
        noise: Standard deviation of the noise on an entry of a prompt vector, in units of that entry's own standard
            deviation; 0 for none.
        validation: Share of prompts held out for early stopping, in [0, 0.5]; 0 trains for all `epochs`.
        patience: Epochs without a better validation loss before the fit stops, >= 1.
        seed: Of the split, the start values, the order and the noise.
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
    for name, value, lowest in (
        ("dim", dim, 1),
        ("epochs", epochs, 1),
        ("batch_size", batch_size, 1),
        ("patience", patience, 1),
    ):
        if value < lowest:
            raise ConfigurationError(f"{name}={value}: expected a whole number >= {lowest}")
    for name, number in (("weight_decay", weight_decay), ("noise", noise)):
        if not (math.isfinite(number) and number >= 0):
            raise ConfigurationError(f"{name}={number}: expected a finite number >= 0")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ConfigurationError(f"learning_rate={learning_rate}: expected a finite number > 0")
    if not 0 <= validation <= 0.5:
        raise ConfigurationError(f"validation={validation}: expected a share in [0, 0.5]")
    p, w1, w2 = _fit_sgd(
        matrix,
        battles,
        len(names),
        dim=dim,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        weight_decay=weight_decay,
        noise=noise,
        validation=validation,
        patience=patience,
        seed=seed,
        on_step=on_step,
    )
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
    column that is constant (the bias feature) is an intercept and bears no penalty.

    Args:
        vectors: Finite floats (n, d), one row a labelled prompt.
        labels: Floats (n,) in [0, 1]: share of a win of the strong model.
        weights: Floats (n,) >= 0; None weighs all alike.
        groups: Ints (n,): rows of one group stay in one fold of the cross-validation; None: each row its own.
        l2: The strength, > 0; None chooses it from `L2_GRID` by cross-validated loss.
        seed: Of the folds.
        on_step: Called after each strength with ``{"l2", "loss"}``.

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
        l2 = _choose_l2(x, y, w, group, seed, on_step)
    return _solve(x, y, w, l2, np.zeros(x.shape[1]))


def pair_router(vector: npt.ArrayLike, *, strong: str, weak: str, embedder: Embedder) -> MatrixFactorizationRouter:
    """The matrix factorization router of dimension 1 whose win rate is sigmoid(vector . e).

    The models sit at +1 and -1, so that swapping `strong` and `weak` turns every win rate p into 1 - p.
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
            f"models: {len(names)} names, {len(set(names))} distinct; expected two or more, none twice"
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


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def _loss(z: Floats, y: Floats) -> Floats:
    """Logistic loss of logits z against soft labels y, without overflow."""
    return np.asarray(np.logaddexp(0.0, z) - y * z)


def _penalty(x: npt.NDArray[Any], l2: float) -> Floats:
    constant = np.ptp(x, axis=0) == 0
    # a trace on the intercept keeps the problem strictly convex when all labels agree
    free = ~constant
    scale = float(np.mean(np.square(x[:, free], dtype=np.float64))) if free.any() else 1.0
    return np.where(constant, 1e-6, l2 * max(scale, 1e-12))


def _solve(x: npt.NDArray[Any], y: Floats, w: Floats, l2: float, start: Floats, tolerance: float = 1e-9) -> Floats:
    """Newton's method with a halved step where a whole one would not do: exact, in some five steps."""
    x = np.asarray(x, dtype=np.float64)
    w = w / w.sum()
    penalty = _penalty(x, l2)

    def value(v: Floats) -> float:
        return float(w @ _loss(x @ v, y) + 0.5 * penalty @ (v * v))

    v = start.copy()
    now = value(v)
    for _ in range(50):
        p = _sigmoid(x @ v)
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


def _choose_l2(
    x: npt.NDArray[Any], y: Floats, w: Floats, group: npt.NDArray[Any], seed: int, on_step: OnStep | None
) -> float:
    ids, position = np.unique(group, return_inverse=True)
    if len(ids) < 2 * _FOLDS:
        return 1.0  # too few prompts to choose by; a strong penalty is the safe end
    fold = (np.random.default_rng(seed).permutation(len(ids)) % _FOLDS)[position]
    losses = np.zeros(len(L2_GRID))
    # on much data one held-out fifth tells as much as five do on little, in a fifth of the time
    folds = 1 if len(x) * x.shape[1] ** 2 > _MUCH_DATA else _FOLDS
    for k in range(folds):
        train, held = fold != k, fold == k
        if not w[train].any():
            continue
        x_train = x[train].astype(np.float64)
        v = np.zeros(x.shape[1])
        # from the strongest penalty to the weakest, each started at the solution before it
        for i in reversed(range(len(L2_GRID))):
            v = _solve(x_train, y[train], w[train], L2_GRID[i], v, tolerance=1e-6)
            losses[i] += float(w[held] @ _loss(x[held] @ v, y[held])) / w.sum()
    best = int(np.argmin(losses))
    if on_step is not None:
        for strength, loss in zip(L2_GRID, losses, strict=True):
            on_step({"l2": strength, "loss": float(loss), "chosen": strength == L2_GRID[best]})
    return L2_GRID[best]


def _fit_sgd(
    x: npt.NDArray[Any],
    battles: BattleArrays,
    n_models: int,
    *,
    dim: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    weight_decay: float,
    noise: float,
    validation: float,
    patience: int,
    seed: int,
    on_step: OnStep | None,
) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    prompt, a, b = (np.asarray(i) for i in (battles.prompt, battles.model_a, battles.model_b))
    y, w = np.asarray(battles.label), np.asarray(battles.weight)
    spread = x.std(axis=0)
    scale = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) or 1.0
    held = np.zeros(len(y), dtype=bool)
    used = np.unique(prompt)
    n_held = round(validation * len(used))
    if n_held:
        held = np.isin(prompt, rng.permutation(used)[:n_held])
    train, valid = np.flatnonzero(~held & (w > 0)), np.flatnonzero(held & (w > 0))
    if not train.size:
        raise DataError("no battle is left to train on; lower validation")
    weight = w / w[train].mean()

    params = {
        "p": rng.standard_normal((n_models, dim)),
        "w1": rng.standard_normal((dim, x.shape[1])) / (scale * math.sqrt(x.shape[1])),
        "w2": np.full(dim, 1.0 / math.sqrt(dim)),
    }
    first = {k: np.zeros_like(v) for k, v in params.items()}
    second = {k: np.zeros_like(v) for k, v in params.items()}
    # a step of Adam is about the learning rate in each entry: in units of the entries' own size
    unit = {"p": 1.0, "w1": 1.0 / (scale * math.sqrt(x.shape[1])), "w2": 1.0 / math.sqrt(dim)}
    total = epochs * math.ceil(len(train) / batch_size)

    def validation_loss() -> float:
        sums = 0.0
        for at in range(0, len(valid), 4096):
            rows = valid[at : at + 4096]
            z = _logits(params, x[prompt[rows]].astype(np.float64), a[rows], b[rows])
            sums += float(weight[rows] @ _loss(z, y[rows]))
        return sums / float(weight[valid].sum())

    best, best_loss, waited, t = {k: v.copy() for k, v in params.items()}, math.inf, 0, 0
    for epoch in range(epochs):
        order = rng.permutation(train)
        seen = 0.0
        for at in range(0, len(order), batch_size):
            rows = order[at : at + batch_size]
            e = x[prompt[rows]].astype(np.float64)
            if noise:
                e = e + rng.standard_normal(e.shape) * (noise * spread)
            loss, gradients = _gradients(params, e, a[rows], b[rows], y[rows], weight[rows])
            seen += loss
            t += 1
            rate = learning_rate * 0.5 * (1.0 + math.cos(math.pi * (t - 1) / total))
            for k, g in gradients.items():
                first[k] += 0.1 * (g - first[k])
                second[k] += 0.001 * (g * g - second[k])
                move = (first[k] / (1 - 0.9**t)) / (np.sqrt(second[k] / (1 - 0.999**t)) + 1e-12)
                if k != "p":
                    params[k] *= 1.0 - rate * weight_decay
                params[k] -= rate * unit[k] * move
        told: dict[str, Any] = {"epoch": epoch + 1, "loss": seen / float(weight[train].sum())}
        if valid.size:
            told["validation_loss"] = validation_loss()
            if told["validation_loss"] < best_loss:
                best, best_loss, waited = {k: v.copy() for k, v in params.items()}, told["validation_loss"], 0
            else:
                waited += 1
        else:
            best = params
        if on_step is not None:
            on_step(told)
        if waited >= patience:
            break
    return best["p"], best["w1"], best["w2"]


def _logits(params: dict[str, Floats], e: Floats, a: Ints, b: Ints) -> Floats:
    unit = params["p"] / np.linalg.norm(params["p"], axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nk->n", (unit[a] - unit[b]) * params["w2"], e @ params["w1"].T))


def _gradients(
    params: dict[str, Floats], e: Floats, a: Ints, b: Ints, y: Floats, w: Floats
) -> tuple[float, dict[str, Floats]]:
    """Summed loss of a batch, and the gradients of its mean."""
    norm = np.linalg.norm(params["p"], axis=1, keepdims=True)
    unit = params["p"] / norm
    h = e @ params["w1"].T
    apart = unit[a] - unit[b]
    z = np.einsum("nk,nk->n", apart * params["w2"], h)
    g = (w * (_sigmoid(z) - y) / len(y))[:, None]
    d_unit = np.zeros_like(unit)
    along = g * h * params["w2"]
    np.add.at(d_unit, a, along)
    np.subtract.at(d_unit, b, along)
    # only the part across the vector moves a direction: the length is normalised away
    d_p = (d_unit - unit * np.einsum("mk,mk->m", unit, d_unit)[:, None]) / norm
    d_h = g * apart * params["w2"]
    return float(w @ _loss(z, y)), {"p": d_p, "w1": d_h.T @ e, "w2": (g * apart * h).sum(axis=0)}
