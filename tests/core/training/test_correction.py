"""The correction of the router in use, and the router that it makes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from routellm_core import Router, load_router
from routellm_core.embedders import bundled_embedder
from routellm_core.errors import CheckpointError, ConfigurationError, DataError
from routellm_core.routers.corrected import CorrectedRouter, logits
from routellm_core.routers.function import FunctionRouter
from routellm_core.routers.mf import MatrixFactorizationRouter
from routellm_core.routers.mf_vote import HeadAndVoteRouter
from routellm_core.routers.random import RandomRouter
from routellm_core.statistics.sequential import gain_over_mix
from routellm_core.training.correction import (
    correct_router,
    fit_correction,
    out_of_fold_logits,
    win_labels,
)

# What no router expects, so that only labels can tell: here the weak model fails on what looks easy.
HARD = ("Say hello to {}.", "Translate {} into French.")
EASY = ("Prove that {} is irrational.", "What is the capital of {}?", "Derive the integral of {} step by step.")
WORDS = tuple(
    f"{a}{b}" for a in ("alpha", "beta", "gamma", "delta", "omega") for b in ("root", "field", "wave", "line")
)


def traffic(n: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Prompts on whose hard kinds the weak model mostly fails."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.3
    prompts = [str(rng.choice(HARD if h else EASY)).format(f"{rng.choice(WORDS)} {rng.integers(1000)}") for h in hard]
    strong = (rng.random(n) < 0.9).astype(float)
    weak = (rng.random(n) < np.where(hard, 0.2, 0.88)).astype(float)
    return prompts, strong, weak


@pytest.mark.parametrize("router", [load_router(), RandomRouter(3), FunctionRouter(lambda ps: [0.5] * len(ps))])
def test_a_hundred_pairs_correct_any_router(router: Router) -> None:
    prompts, strong, weak = traffic(120, 0)
    new, s, w = traffic(3000, 1)
    corrected = correct_router(router, prompts, strong, weak)
    before = gain_over_mix(router.win_rates(new), s - w, 0.3)
    after = gain_over_mix(corrected.win_rates(new), s - w, 0.3)
    assert after.value > before.value + 0.03
    assert after.z > 5


def test_labels_of_chance_leave_the_order_of_the_router_in_use() -> None:
    prompts, _, _ = traffic(200, 2)
    rng = np.random.default_rng(3)
    router = load_router()
    x = bundled_embedder().embed(prompts)
    fitted = fit_correction(x, logits(router.win_rates(prompts)), rng.choice([0.0, 0.5, 1.0], size=200))
    shift = np.std(x @ fitted.delta)
    assert shift < 2.0 * fitted.slope * np.std(logits(router.win_rates(prompts))) + 0.1


def test_a_corrected_mf_is_an_ordinary_mf(tmp_path: Path) -> None:
    prompts, strong, weak = traffic(150, 4)
    bundled = load_router()
    assert isinstance(bundled, HeadAndVoteRouter)
    router = bundled.head
    corrected = correct_router(router, prompts, strong, weak, strong="a", weak="b")
    assert isinstance(corrected, MatrixFactorizationRouter)
    assert (corrected.strong, corrected.weak, corrected.windows) == ("a", "b", router.windows)
    x = bundled_embedder().embed(prompts).astype(np.float64)
    fitted = fit_correction(x, x @ router.vector, win_labels(strong, weak))
    assert logits(corrected.win_rates(prompts)) == pytest.approx(fitted.logits(x, x @ router.vector), abs=1e-6)
    corrected.save_pretrained(tmp_path)
    assert (load_router(tmp_path).win_rates(prompts) == corrected.win_rates(prompts)).all()


def test_a_corrected_router_of_another_kind_has_two_parts(tmp_path: Path) -> None:
    prompts, strong, weak = traffic(150, 5)
    corrected = correct_router(RandomRouter(7), prompts, strong, weak)
    assert isinstance(corrected, CorrectedRouter)
    rates = corrected.win_rates(prompts)
    assert (asyncio.run(corrected.awin_rates(prompts)) == rates).all()
    assert [float(corrected.win_rates([p])[0]) for p in prompts[:20]] == rates[:20].tolist()
    corrected.save_pretrained(tmp_path)
    loaded = load_router(tmp_path)
    assert (loaded.win_rates(prompts) == rates).all()
    assert loaded.fingerprint == corrected.fingerprint
    # what changes the win rates changes the fingerprint
    assert correct_router(RandomRouter(8), prompts, strong, weak).fingerprint != corrected.fingerprint


def test_the_correction_of_a_corrected_router_is_one_correction() -> None:
    prompts, strong, weak = traffic(150, 6)
    once = correct_router(RandomRouter(7), prompts, strong, weak)
    twice = correct_router(once, prompts, strong, weak)
    assert isinstance(twice, CorrectedRouter)
    assert isinstance(twice.base, RandomRouter)
    x = bundled_embedder().embed(prompts)
    fitted = fit_correction(x, logits(once.win_rates(prompts)), win_labels(strong, weak))
    expected = fitted.logits(x, logits(once.win_rates(prompts)))
    assert logits(twice.win_rates(prompts)) == pytest.approx(expected, abs=1e-6)


def test_a_base_without_a_saved_form_is_passed_again(tmp_path: Path) -> None:
    prompts, strong, weak = traffic(150, 8)

    def length(texts: list[str]) -> list[float]:
        return [min(len(text) / 100, 1.0) for text in texts]

    corrected = correct_router(FunctionRouter(length), prompts, strong, weak)
    corrected.save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="has no saved form: pass that router as base="):
        load_router(tmp_path)
    loaded = load_router(tmp_path, base=FunctionRouter(length))
    assert (loaded.win_rates(prompts) == corrected.win_rates(prompts)).all()
    with pytest.raises(CheckpointError, match="corrects another version"):
        load_router(tmp_path, base=RandomRouter(1))


def test_out_of_fold_scores_come_from_corrections_without_the_prompt() -> None:
    rng = np.random.default_rng(9)
    found = []
    for _ in range(12):
        x, z = np.column_stack([rng.normal(size=(200, 40)), np.ones(200)]), rng.normal(size=200)
        y = rng.choice([0.0, 0.5, 1.0], size=200)
        found.append(np.corrcoef(out_of_fold_logits(x, z, y), y)[0, 1])
        # rows of one group, here repeats of a row, are left out together
        twice = np.repeat(np.arange(100), 2)
        found.append(np.corrcoef(out_of_fold_logits(x[twice], z[twice], y[twice], groups=twice), y[twice])[0, 1])
    # with a row's own label in its training the correlation would be near .5
    assert abs(np.mean(found)) < 0.08


def test_pseudo_outcomes_outside_the_unit_interval_are_labels() -> None:
    rng = np.random.default_rng(10)
    x = rng.normal(size=(4000, 5))
    y = 0.5 + 0.3 * np.tanh(x[:, 0]) + 5.0 * rng.choice([-1.0, 1.0], size=4000)
    fitted = fit_correction(x, np.zeros(4000), y)
    assert np.corrcoef(x @ fitted.delta, x[:, 0])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("strong", "message"),
    [([1.0], "expected one for each"), ([1.0, 2.0], r"numbers in \[0, 1\]"), ([np.nan, 1.0], "in")],
)
def test_malformed_scores_are_refused(strong: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        correct_router(RandomRouter(), ["a", "b"], strong, [0.0, 0.0])


def test_one_label_for_all_is_no_accident() -> None:
    prompts, _, _ = traffic(120, 11)
    corrected = correct_router(load_router(), prompts, np.ones(120), np.ones(120))
    assert np.isfinite(corrected.win_rates(prompts)).all()
    everything = correct_router(load_router(), prompts, np.ones(120), np.zeros(120))
    assert (everything.win_rates(prompts) > 0.6).mean() > 0.9
