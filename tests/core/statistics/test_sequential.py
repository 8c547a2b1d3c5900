"""The verdict that is asked for again and again as pairs come in."""

from __future__ import annotations

import numpy as np
import pytest

from routellm_core.statistics.sequential import (
    Gain,
    finding,
    gain_over_mix,
    gain_over_router,
    next_look,
    pairs_needed,
    share_saved,
    top_share,
)


def test_the_gain_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    scores, difference = rng.random(500), rng.choice([-1.0, 0.0, 1.0], size=500)
    sent = scores >= np.sort(scores)[-150]
    found = gain_over_mix(scores, difference, 0.3)
    assert found.value == pytest.approx(np.where(sent, difference, 0).mean() - 0.3 * difference.mean())
    assert gain_over_router(scores, scores, difference, 0.3).value == 0.0


def test_the_error_is_that_of_a_random_router() -> None:
    rng = np.random.default_rng(1)
    gains = [gain_over_mix(rng.random(400), rng.random(400) - rng.random(400), 0.3) for _ in range(800)]
    assert np.std([g.value for g in gains]) == pytest.approx(np.mean([g.error for g in gains]), rel=0.08)


def test_a_mean_difference_that_all_share_adds_no_error() -> None:
    scores = np.random.default_rng(2).random(300)
    small = np.random.default_rng(3).normal(scale=0.1, size=300)
    assert gain_over_mix(scores, small + 5.0, 0.3).error == pytest.approx(gain_over_mix(scores, small, 0.3).error)


def test_ties_at_the_edge_are_shared() -> None:
    assert top_share([0.9, 0.5, 0.5, 0.1], 0.5).tolist() == [1.0, 0.5, 0.5, 0.0]
    assert top_share([0.5] * 4, 0.25).tolist() == [0.25] * 4
    assert top_share([0.5, 0.1], 0.0).tolist() == [0.0, 0.0]
    assert top_share([0.5, 0.1], 1.0).tolist() == [1.0, 1.0]
    # a router that cannot tell prompts apart is the static mix
    assert gain_over_mix([0.5] * 40, np.arange(40.0), 0.3).value == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("looks", "due"),
    [((), 400), ((400,), 800), ((730,), 800), ((400, 900), 1600), ((3200, 400), 6400), ((1000,), 1600)],
)
def test_looks_are_at_doublings(looks: tuple[int, ...], due: int) -> None:
    assert next_look(looks) == due


def test_all_looks_together_find_few_gains_that_are_not_there() -> None:
    rng = np.random.default_rng(4)
    found = 0
    runs = 1500
    for _ in range(runs):
        difference = rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.8, 0.15], size=1600)
        scores = rng.random(1600)
        found += any(finding(gain_over_mix(scores[:n], difference[:n], 0.3)) == "gains" for n in (400, 800, 1600))
    assert found / runs <= 0.065


def test_pairs_needed_is_the_formula_of_the_power() -> None:
    gain = Gain(value=0.02, error=0.0125, deviation=0.25, count=400)
    assert pairs_needed(gain) == pytest.approx((2.57 * 0.25 / 0.02) ** 2, abs=1)
    assert pairs_needed(gain, flip_rate=0.1) == pytest.approx((2.57 * 0.25 / 0.02) ** 2 / 0.64, abs=2)
    assert pairs_needed(Gain(-0.01, 0.01, 0.25, 400)) is None
    assert pairs_needed(Gain(1e-5, 0.01, 0.25, 400)) is None
    assert finding(Gain(0.0, 0.0, 0.0, 400)) == "undecided"


def test_the_interval_of_the_share_saved_covers_the_truth() -> None:
    rng = np.random.default_rng(5)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        hard = rng.random(n) < 0.3
        difference = (rng.random(n) < 0.9).astype(float) - (rng.random(n) < np.where(hard, 0.3, 0.85))
        return hard + rng.normal(0, 0.5, n), difference

    scores, difference = sample(400_000)
    truth = share_saved(scores, difference, 0.3)
    assert truth is not None
    assert truth.value > 0.2
    inside = 0
    for _ in range(600):
        found = share_saved(*sample(500), 0.3)
        assert found is not None
        inside += found.low < truth.value < found.high
    assert 0.92 < inside / 600 < 0.98


def test_no_share_is_saved_where_strong_is_not_clearly_better() -> None:
    rng = np.random.default_rng(6)
    assert share_saved(rng.random(400), rng.normal(0.001, 1.0, 400), 0.3) is None
    assert share_saved(rng.random(400), np.full(400, -0.2), 0.3) is None
