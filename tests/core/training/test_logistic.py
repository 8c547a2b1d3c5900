"""Penalised logistic regression: the optimum from any start, and a strength chosen without looking at repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from routellm_core.training import SGD, BattleArrays, fit_mf
from routellm_core.training.logistic import group_folds, solve
from tests.support.embedders import TableEmbedder, with_bias

PROMPTS, COPIES = 60, 6


def coins(columns: int = 30) -> tuple[Any, Any]:
    """Vectors and labels of prompts whose outcome is a coin toss: all there is to learn is the prompts by heart."""
    rng = np.random.default_rng(4)
    return with_bias(rng.standard_normal((PROMPTS, columns))), rng.integers(0, 2, PROMPTS).astype(float)


def test_a_group_is_in_one_fold_and_folds_are_even() -> None:
    groups = np.random.default_rng(0).integers(0, 50, 2000)
    fold = group_folds(groups, 5, seed=1)
    of_group = [set(fold[groups == g]) for g in range(50)]
    assert all(len(folds) == 1 for folds in of_group)
    assert np.bincount([folds.pop() for folds in of_group], minlength=5).tolist() == [10] * 5
    assert (fold != group_folds(groups, 5, seed=2)).any()


def test_battles_of_one_prompt_do_not_choose_the_penalty() -> None:
    x, y = coins()
    prompt = np.repeat(np.arange(PROMPTS), COPIES)
    zeros, ones = np.zeros(len(prompt), dtype=int), np.ones(len(prompt), dtype=int)
    steps: list[dict[str, Any]] = []
    fit_mf(
        x,
        BattleArrays(prompt, zeros, ones, y[prompt]),
        models=["s", "w"],
        strong="s",
        weak="w",
        embedder=TableEmbedder(x),
        on_step=steps.append,
    )
    assert next(step["l2"] for step in steps if step["chosen"]) >= 1.0


def test_battles_of_one_prompt_do_not_stop_the_fit_late() -> None:
    x, y = coins()
    prompt = np.repeat(np.arange(PROMPTS), COPIES)
    zeros, ones = np.zeros(len(prompt), dtype=int), np.ones(len(prompt), dtype=int)
    steps: list[dict[str, Any]] = []
    fit_mf(
        x,
        BattleArrays(prompt, zeros, ones, y[prompt]),
        models=["s", "w"],
        strong="s",
        weak="w",
        embedder=TableEmbedder(x),
        method="sgd",
        sgd=SGD(epochs=60, patience=60, noise=0.0, validation=0.3, learning_rate=3e-2, batch_size=32),
        on_step=steps.append,
    )
    assert steps[-1]["loss"] < 0.3  # learned by heart
    assert min(step["validation_loss"] for step in steps) > 0.6  # a coin has 0.69; 0.4 if repeats were on both sides


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_optimum_is_found_from_a_start_that_whole_newton_steps_leave_for_good(scale: float) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((200, 4))
    y, w = (x[:, 0] + rng.standard_normal(200) > 0).astype(float), np.ones(200)
    near = solve(x, y, w, 1e-3, np.zeros(4))
    far = solve(x, y, w, 1e-3, scale * np.array([-3.0, 2.0, 2.0, -2.0]))
    assert far == pytest.approx(near, abs=1e-6)
