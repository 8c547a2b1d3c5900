"""Model vectors of matrix factorization for any number of models, by stochastic gradients; numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, is_number
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.training.battles import BattleArrays
from routellm_core.training.logistic import Floats, Ints, OnStep, logistic_loss, sigmoid

_EVALUATION_ROWS = 4096


@dataclass(frozen=True)
class SGD:
    """How the model vectors of the mf router are learned: Adam with noise on the prompt vectors, stopped early.

    Attributes:
        dim: Length of a model vector, >= 1.
        epochs: Most passes over the battles, >= 1.
        learning_rate: Adam's highest learning rate, > 0; it falls to zero along a half cosine.
        batch_size: Battles in one step, >= 1.
        weight_decay: Decoupled decay of the projection and output, >= 0, per unit of learning rate.
        noise: Standard deviation of the noise on an entry of a prompt vector, in units of that entry's own standard
            deviation; 0 adds no noise.
        validation: Share of prompts held out for early stopping, in [0, 0.5]; 0 trains for all `epochs`.
        patience: Epochs without a better validation loss before the fit stops, >= 1.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    dim: int = 64
    epochs: int = 30
    learning_rate: float = 1e-2
    batch_size: int = 256
    weight_decay: float = 1e-5
    noise: float = 0.1
    validation: float = 0.1
    patience: int = 4

    def __post_init__(self) -> None:
        for name in ("dim", "epochs", "batch_size", "patience"):
            checked_count(getattr(self, name), name)
        for name in ("weight_decay", "noise"):
            if not is_number(value := getattr(self, name)) or value < 0:
                raise ConfigurationError(f"{name}={value!r}: expected a finite number >= 0")
        if not is_number(self.learning_rate) or not self.learning_rate > 0:
            raise ConfigurationError(f"learning_rate={self.learning_rate!r}: expected a finite number > 0")
        if not is_number(self.validation) or not 0 <= self.validation <= 0.5:
            raise ConfigurationError(f"validation={self.validation!r}: expected a share in [0, 0.5]")


class _Rows:
    """Battles with their weights scaled to a mean of 1 over the training rows, split by prompt."""

    def __init__(self, x: npt.NDArray[Any], battles: BattleArrays, validation: float, rng: np.random.Generator) -> None:
        self.x = x
        self.prompt, self.a, self.b = (np.asarray(i) for i in (battles.prompt, battles.model_a, battles.model_b))
        self.y = np.asarray(battles.label)
        w = np.asarray(battles.weight)
        held = np.zeros(len(self.y), dtype=bool)
        used = np.unique(self.prompt)
        n_held = round(validation * len(used))
        if n_held:
            held = np.isin(self.prompt, rng.permutation(used)[:n_held])
        self.train, self.valid = np.flatnonzero(~held & (w > 0)), np.flatnonzero(held & (w > 0))
        if not self.train.size:
            raise DataError("no battle is left to train on; lower validation")
        self.weight = w / w[self.train].mean()

    def vectors(self, rows: Ints) -> Floats:
        out: Floats = self.x[self.prompt[rows]].astype(np.float64)
        return out


class _Adam:
    """Adam with decoupled weight decay and a learning rate that falls along a half cosine over `steps` steps."""

    def __init__(self, params: dict[str, Floats], units: dict[str, float], how: SGD, steps: int) -> None:
        self.params, self.units, self.how, self.steps = params, units, how, steps
        self.first = {k: np.zeros_like(v) for k, v in params.items()}
        self.second = {k: np.zeros_like(v) for k, v in params.items()}
        self.t = 0

    def step(self, gradients: dict[str, Floats]) -> None:
        """Change the parameters in place."""
        self.t += 1
        rate = self.how.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (self.t - 1) / self.steps))
        for k, g in gradients.items():
            self.first[k] += 0.1 * (g - self.first[k])
            self.second[k] += 0.001 * (g * g - self.second[k])
            move = (self.first[k] / (1 - 0.9**self.t)) / (np.sqrt(self.second[k] / (1 - 0.999**self.t)) + 1e-12)
            if k != "p":
                self.params[k] *= 1.0 - rate * self.how.weight_decay
            self.params[k] -= rate * self.units[k] * move


def fit_model_vectors(
    x: npt.NDArray[Any], battles: BattleArrays, n_models: int, how: SGD, *, seed: int, on_step: OnStep | None
) -> tuple[Floats, Floats, Floats]:
    """Fit ``p(a beats b on e) = sigmoid(w2 . ((p_a - p_b) * (w1 e)))``, the rows of p scaled to length 1.

    Args:
        x: Finite floats (n_prompts, d), the prompt vectors e.
        battles: Which model beat which, on which of those prompts.
        n_models: Number of models.
        how: Sizes and rates.
        seed: Seed of the split, the start values, the order and the noise.
        on_step: Called after each epoch with ``{"epoch", "loss"}`` and, with validation, ``"validation_loss"``.

    Returns:
        p (n_models, dim), w1 (dim, d) and w2 (dim,) of the best epoch; of the last one without validation.

    Raises:
        DataError: No battle is left to train on.
    """
    rng = np.random.default_rng(seed)
    spread = x.std(axis=0)
    scale = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) or 1.0
    rows = _Rows(x, battles, how.validation, rng)
    params = {
        "p": rng.standard_normal((n_models, how.dim)),
        "w1": rng.standard_normal((how.dim, x.shape[1])) / (scale * math.sqrt(x.shape[1])),
        "w2": np.full(how.dim, 1.0 / math.sqrt(how.dim)),
    }
    # a step of Adam is about the learning rate in each entry: in units of the entries' own size
    units = {"p": 1.0, "w1": 1.0 / (scale * math.sqrt(x.shape[1])), "w2": 1.0 / math.sqrt(how.dim)}
    adam = _Adam(params, units, how, how.epochs * math.ceil(len(rows.train) / how.batch_size))

    best, best_loss, waited = {k: v.copy() for k, v in params.items()}, math.inf, 0
    for epoch in range(how.epochs):
        seen = 0.0
        for batch in _batches(rng.permutation(rows.train), how.batch_size):
            e = rows.vectors(batch)
            if how.noise:
                e = e + rng.standard_normal(e.shape) * (how.noise * spread)
            loss, gradients = loss_and_gradients(
                params, e, rows.a[batch], rows.b[batch], rows.y[batch], rows.weight[batch]
            )
            seen += loss
            adam.step(gradients)
        step: dict[str, Any] = {"epoch": epoch + 1, "loss": seen / float(rows.weight[rows.train].sum())}
        if rows.valid.size:
            step["validation_loss"] = _validation_loss(params, rows)
            if step["validation_loss"] < best_loss:
                best, best_loss, waited = {k: v.copy() for k, v in params.items()}, step["validation_loss"], 0
            else:
                waited += 1
        else:
            best = params
        if on_step is not None:
            on_step(step)
        if waited >= how.patience:
            break
    return best["p"], best["w1"], best["w2"]


def _batches(order: Ints, size: int) -> Iterator[Ints]:
    for at in range(0, len(order), size):
        yield order[at : at + size]


def _validation_loss(params: dict[str, Floats], rows: _Rows) -> float:
    sums = 0.0
    for batch in _batches(rows.valid, _EVALUATION_ROWS):
        z = logits(params, rows.vectors(batch), rows.a[batch], rows.b[batch])
        sums += float(rows.weight[batch] @ logistic_loss(z, rows.y[batch]))
    return sums / float(rows.weight[rows.valid].sum())


def logits(params: dict[str, Floats], e: Floats, a: Ints, b: Ints) -> Floats:
    """Logits (n,) that model a[i] beats b[i] on prompt vector e[i]."""
    unit = params["p"] / np.linalg.norm(params["p"], axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nk->n", (unit[a] - unit[b]) * params["w2"], e @ params["w1"].T))


def loss_and_gradients(
    params: dict[str, Floats], e: Floats, a: Ints, b: Ints, y: Floats, w: Floats
) -> tuple[float, dict[str, Floats]]:
    """Summed loss of a batch, and the gradients of its mean."""
    norm = np.linalg.norm(params["p"], axis=1, keepdims=True)
    unit = params["p"] / norm
    h = e @ params["w1"].T
    apart = unit[a] - unit[b]
    z = np.einsum("nk,nk->n", apart * params["w2"], h)
    g = (w * (sigmoid(z) - y) / len(y))[:, None]
    d_unit = np.zeros_like(unit)
    along = g * h * params["w2"]
    np.add.at(d_unit, a, along)
    np.subtract.at(d_unit, b, along)
    # only the part across the vector moves a direction: the length is normalised away
    d_p = (d_unit - unit * np.einsum("mk,mk->m", unit, d_unit)[:, None]) / norm
    d_h = g * apart * params["w2"]
    return float(w @ logistic_loss(z, y)), {"p": d_p, "w1": d_h.T @ e, "w2": (g * apart * h).sum(axis=0)}
