"""Training of mf: the optimum for a pair, planted truth for many models, the same numbers for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from routellm_core.errors import ConfigurationError, DataError
from routellm_core.routers.mf import MatrixFactorizationRouter
from routellm_core.training import SGD, BattleArrays, fit_mf, fit_pair, pair_router
from routellm_core.training.logistic import logistic_loss
from routellm_core.training.sgd import logits, loss_and_gradients
from tests.support.embedders import TableEmbedder, with_bias


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def pair_battles(labels: np.ndarray, weight: np.ndarray | None = None) -> BattleArrays:
    n = len(labels)
    return BattleArrays(np.arange(n), np.zeros(n, dtype=int), np.ones(n, dtype=int), labels, weight)


def test_a_pair_is_solved_to_the_optimum() -> None:
    rng = np.random.default_rng(0)
    x = with_bias(rng.standard_normal((300, 5))).astype(np.float64)
    y, w = rng.random(300), rng.random(300)
    v = fit_pair(x, y, weights=w, l2=0.1)
    penalty = 0.1 * np.mean(x[:, :-1] ** 2)
    gradient = x.T @ (w / w.sum() * (sigmoid(x @ v) - y)) + np.append(np.full(5, penalty), 1e-6) * v
    assert np.abs(gradient).max() < 1e-8


def test_the_intercept_bears_no_penalty() -> None:
    x = with_bias(np.random.default_rng(0).standard_normal((500, 3)))
    v = fit_pair(x, np.full(500, 0.9), l2=100.0)
    assert sigmoid(x @ v).mean() == pytest.approx(0.9, abs=1e-3)


def test_more_columns_than_rows() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((20, 100))
    v = fit_pair(x, (x[:, 0] > 0).astype(float), l2=0.01)
    assert np.isfinite(v).all()
    assert ((x @ v > 0) == (x[:, 0] > 0)).all()


def test_cross_validation_finds_the_signal_and_refuses_the_noise() -> None:
    rng = np.random.default_rng(2)
    x = with_bias(rng.standard_normal((600, 20)))
    told: list[dict[str, Any]] = []
    fit_pair(x, (rng.random(600) < sigmoid(3 * x[:, 0])).astype(float), on_step=told.append)
    strong_signal = next(t["l2"] for t in told if t["chosen"])
    told.clear()
    v = fit_pair(x, (rng.random(600) < 0.3).astype(float), on_step=told.append)
    assert next(t["l2"] for t in told if t["chosen"]) > strong_signal
    assert np.ptp(sigmoid(x @ v)) < 0.15


@pytest.mark.slow
def test_planted_pair_is_recovered_as_data_grows() -> None:
    rng = np.random.default_rng(3)
    truth = np.append(rng.standard_normal(8), 0.4)
    held = with_bias(rng.standard_normal((2000, 8)))
    errors = []
    for n in (200, 2000, 20000):
        x = with_bias(rng.standard_normal((n, 8)))
        y = (rng.random(n) < sigmoid(x @ truth)).astype(float)
        router = fit_mf(
            x, pair_battles(y), models=["s", "w"], strong="s", weak="w", embedder=TableEmbedder(held), l2=1.0 / n
        )
        errors.append(np.abs(router.win_rates([str(i) for i in range(2000)]) - sigmoid(held @ truth)).mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("ties", [False, True])
def test_planted_ratings_and_prompt_effects_of_many_models_are_recovered(ties: bool) -> None:
    rng = np.random.default_rng(4)
    n_models, d = 6, 4
    strength = np.column_stack([0.7 * rng.standard_normal((n_models, d)), np.linspace(1.5, -1.5, n_models)])
    held = with_bias(rng.standard_normal((500, d)))
    true = sigmoid(held @ (strength[0] - strength[4]))
    errors = []
    for n in (400, 20000):
        x = with_bias(rng.standard_normal((n // 2, d)))
        prompt = rng.integers(0, len(x), n)
        a = rng.integers(0, n_models, n)
        b = (a + rng.integers(1, n_models, n)) % n_models
        p = sigmoid(np.einsum("nd,nd->n", x[prompt], strength[a] - strength[b]))
        # ties take as much from a win as from a loss, so that the mean of the label stays p
        tie = np.minimum(p, 1 - p) if ties else np.zeros(n)
        draw = rng.random(n)
        label = np.where(draw < p - tie / 2, 1.0, np.where(draw < p + tie / 2, 0.5, 0.0))
        router = fit_mf(
            x,
            BattleArrays(prompt, a, b, label),
            models=[f"m{i}" for i in range(n_models)],
            strong="m0",
            weak="m4",
            embedder=TableEmbedder(held),
            sgd=SGD(dim=16, noise=0.0, learning_rate=1e-2),
            seed=1,
        )
        errors.append(np.abs(router.win_rates([str(i) for i in range(500)]) - true).mean())
    assert errors[1] < errors[0]
    assert errors[1] < 0.03


def test_any_pair_of_the_models_can_be_routed() -> None:
    rng = np.random.default_rng(5)
    x = with_bias(rng.standard_normal((300, 3)))
    a = rng.integers(0, 3, 2000)
    b = (a + rng.integers(1, 3, 2000)) % 3
    # m0 beats m1 beats m2, always
    battles = BattleArrays(rng.integers(0, 300, 2000), a, b, (a < b).astype(float))
    router = fit_mf(
        x, battles, models=["m0", "m1", "m2"], strong="m0", weak="m2", embedder=TableEmbedder(x), sgd=SGD(dim=8)
    )
    best, other = (
        MatrixFactorizationRouter(
            router.model_vectors,
            router.projection,
            router.output,
            models=router.models,
            strong=strong,
            weak=weak,
            embedder=router.embedder,
        ).win_rates(["0"])[0]
        for strong, weak in (("m0", "m1"), ("m2", "m1"))
    )
    assert best > 0.7 > 0.3 > other


def test_gradients_are_those_of_the_loss() -> None:
    rng = np.random.default_rng(6)
    params = {"p": rng.standard_normal((4, 3)), "w1": rng.standard_normal((3, 5)), "w2": rng.standard_normal(3)}
    e, a, b = rng.standard_normal((7, 5)), np.array([0, 1, 2, 3, 0, 1, 2]), np.array([1, 2, 3, 0, 2, 3, 0])
    y, w = rng.random(7), rng.random(7) + 0.5

    def value() -> float:
        return float(w @ logistic_loss(logits(params, e, a, b), y)) / 7

    _, gradients = loss_and_gradients(params, e, a, b, y, w)
    for name, array in params.items():
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + 1e-6
            up = value()
            array[at] = kept - 1e-6
            down = value()
            array[at] = kept
            assert gradients[name][at] == pytest.approx((up - down) / 2e-6, abs=1e-6)


@pytest.mark.parametrize("method", ["pair", "sgd"])
def test_the_same_seed_gives_the_same_bits(method: str) -> None:
    rng = np.random.default_rng(7)
    x = with_bias(rng.standard_normal((80, 6)))
    y = rng.random(80)

    def vector(seed: int) -> bytes:
        router = fit_mf(
            x,
            pair_battles(y),
            models=["s", "w"],
            strong="s",
            weak="w",
            embedder=TableEmbedder(x),
            method=method,
            sgd=SGD(epochs=3),
            seed=seed,
        )
        return router.vector.tobytes()

    assert vector(1) == vector(1)
    if method == "sgd":
        assert vector(1) != vector(2)


def test_swapped_sides_mirror_the_win_rate() -> None:
    x = with_bias(np.random.default_rng(8).standard_normal((50, 3)))
    embedder = TableEmbedder(x)
    v = np.array([0.5, -1.0, 0.2, 0.1])
    prompts = [str(i) for i in range(50)]
    forward = pair_router(v, strong="s", weak="w", embedder=embedder)
    backward = MatrixFactorizationRouter(
        forward.model_vectors,
        forward.projection,
        forward.output,
        models=forward.models,
        strong="w",
        weak="s",
        embedder=embedder,
    )
    assert forward.vector == pytest.approx(v)
    assert forward.win_rates(prompts) == pytest.approx(1 - backward.win_rates(prompts))


def test_battles_told_from_the_other_side_count_the_same() -> None:
    x = with_bias(np.random.default_rng(9).standard_normal((60, 3)))
    y = np.random.default_rng(10).random(60)
    zeros, ones = np.zeros(60, dtype=int), np.ones(60, dtype=int)
    options: dict[str, Any] = {
        "models": ["s", "w"],
        "strong": "s",
        "weak": "w",
        "embedder": TableEmbedder(x),
        "l2": 0.1,
    }
    forward = fit_mf(x, BattleArrays(np.arange(60), zeros, ones, y), **options)
    backward = fit_mf(x, BattleArrays(np.arange(60), ones, zeros, 1 - y), **options)
    assert forward.vector == pytest.approx(backward.vector)


def test_a_weight_of_two_is_a_row_given_twice() -> None:
    rng = np.random.default_rng(11)
    x, y = rng.standard_normal((40, 3)), rng.random(40)
    weights = np.ones(40)
    weights[:10] = 2
    twice = np.concatenate([np.arange(40), np.arange(10)])
    # the penalty is in units of the rows' scale, so give both the same
    one = fit_pair(x, y, weights=weights, l2=0.1 / np.mean(x**2))  # type: ignore[arg-type]
    two = fit_pair(x[twice], y[twice], l2=0.1 / np.mean(x[twice] ** 2))
    assert one == pytest.approx(two, abs=1e-7)


def test_early_stopping_keeps_the_best_epoch() -> None:
    rng = np.random.default_rng(12)
    x = with_bias(rng.standard_normal((60, 30)))
    told: list[dict[str, Any]] = []
    fit_mf(
        x,
        pair_battles((rng.random(60) < 0.5).astype(float)),
        models=["s", "w"],
        strong="s",
        weak="w",
        embedder=TableEmbedder(x),
        method="sgd",
        sgd=SGD(epochs=200, learning_rate=3e-2, noise=0.0, validation=0.3, patience=3),
        on_step=told.append,
    )
    # pure noise: the held-out loss cannot fall for long
    assert len(told) < 200
    losses = [t["validation_loss"] for t in told]
    assert min(losses[-3:]) > min(losses)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": [0.5]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"model_a": [1]}, "model_a"),
        ({"model_b": [-1]}, "model_b"),
        ({"label": [1.5]}, "label"),
        ({"label": [float("nan")]}, "label"),
        ({"weight": [-1.0]}, "weight"),
        ({"weight": [0.0]}, "weights are 0"),
        ({"label": [0.5, 0.5]}, "one shape"),
    ],
)
def test_malformed_battles_are_named(fields: dict[str, Any], named: str) -> None:
    good: dict[str, Any] = {"prompt": [0], "model_a": [0], "model_b": [1], "label": [1.0], "weight": [1.0]}
    with pytest.raises(DataError, match=named):
        BattleArrays(**{**good, **fields})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"strong": "x"}, "strong"),
        ({"weak": "s"}, "both"),
        ({"models": ["s"]}, "models"),
        ({"models": ["s", "s"]}, "models"),
        ({"method": "magic"}, "method"),
        ({"l2": 0.0}, "l2"),
        ({"l2": float("nan")}, "l2"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], named: str) -> None:
    x = with_bias(np.zeros((2, 1)))
    good: dict[str, Any] = {"models": ["s", "w"], "strong": "s", "weak": "w", "embedder": TableEmbedder(x)}
    with pytest.raises(ConfigurationError, match=named):
        fit_mf(x, pair_battles(np.array([1.0, 0.0])), **{**good, **options})


@pytest.mark.parametrize(
    "option",
    [
        {"dim": 0},
        {"epochs": 0},
        {"batch_size": True},
        {"patience": 0},
        {"noise": -1.0},
        {"weight_decay": float("nan")},
        {"learning_rate": 0.0},
        {"validation": 0.9},
    ],
)
def test_wrong_options_of_sgd_are_named(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        SGD(**option)


def test_embeddings_that_do_not_fit_are_refused() -> None:
    x = with_bias(np.zeros((2, 1)))
    options: dict[str, Any] = {"models": ["s", "w"], "strong": "s", "weak": "w", "embedder": TableEmbedder(x)}
    with pytest.raises(DataError, match="rows of embeddings"):
        fit_mf(x, pair_battles(np.ones(3)), **options)
    x[1, 0] = np.nan
    with pytest.raises(DataError, match="row 1"):
        fit_mf(x, pair_battles(np.ones(2)), **options)
    with pytest.raises(DataError, match="embeddings"):
        fit_mf(np.zeros(3), pair_battles(np.ones(2)), **options)
    with pytest.raises(DataError, match="no battle between"):
        fit_mf(
            with_bias(np.zeros((1, 1))),
            BattleArrays([0], [0], [2], [1.0]),
            models=["s", "w", "t"],
            strong="s",
            weak="w",
            embedder=TableEmbedder(x),
            method="pair",
        )
