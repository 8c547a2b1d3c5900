"""Off-policy estimates: unbiased, with intervals that cover, and refused where the log cannot carry them."""

from __future__ import annotations

import numpy as np
import pytest

from routellm_core.errors import DataError
from routellm_core.statistics.off_policy import (
    SideScores,
    answer_chances,
    check_probabilities,
    effective_size,
    one_sided_differences,
    one_sided_refusal,
    policy_difference,
    principal_features,
    t_quantile,
)


class App:
    """Calls of an app whose truth is known: strong is better where x is high; the policy in use sees x with noise."""

    def __init__(self, n: int, *, explore: float, shadow: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=n)
        self.strong = (rng.random(n) < 0.8).astype(float)
        self.weak = (rng.random(n) < 1.0 / (1.0 + np.exp(2.0 * x - 1.0))).astype(float)
        self.in_use = x + rng.normal(size=n) > 1.0
        self.target = x > 0.8
        p = self.in_use * (1 - explore / 2) + ~self.in_use * explore / 2
        self.p, self.is_strong = p, rng.random(n) < p
        self.shadowed = rng.random(n) < shadow
        chances = answer_chances(p, np.full(n, shadow))
        self.sides = (
            SideScores(self.is_strong | self.shadowed, chances[0], self.strong),
            SideScores(~self.is_strong | self.shadowed, chances[1], self.weak),
        )
        self.features = x[:, None]
        # what 200,000 such calls say
        self.score = np.where(self.is_strong, self.strong, self.weak)


def _true_difference() -> float:
    app = App(400_000, explore=0.0, shadow=0.0, seed=99)
    return float(((app.target.astype(float) - app.in_use) * (app.strong - app.weak)).mean())


TRUE = _true_difference()


@pytest.mark.parametrize(("explore", "shadow"), [(0.1, 0.0), (0.0, 0.1), (0.05, 0.05)])
def test_intervals_hold_the_true_difference(explore: float, shadow: float) -> None:
    covered = values = 0.0
    runs = 120
    for seed in range(runs):
        app = App(4000, explore=explore, shadow=shadow, seed=seed)
        found = policy_difference(app.target, app.in_use, *app.sides, features=app.features, seed=seed)
        assert found.refusal is None
        assert found.difference is not None
        covered += found.difference.low <= TRUE <= found.difference.high
        values += found.difference.value
    assert covered / runs >= 0.90
    assert values / runs == pytest.approx(TRUE, abs=0.006)


def test_a_full_log_needs_no_estimate() -> None:
    app = App(2000, explore=0.1, shadow=1.0, seed=0)
    found = policy_difference(app.target, app.in_use, *app.sides, features=app.features)
    exact = ((app.target.astype(float) - app.in_use) * (app.strong - app.weak)).mean()
    assert found.difference is not None
    assert found.quality is not None
    assert found.difference.value == pytest.approx(exact, abs=1e-12)
    assert found.quality.value == pytest.approx(np.where(app.target, app.strong, app.weak).mean(), abs=1e-12)


def test_few_deviations_are_refused_whatever_the_ordinary_sample_size() -> None:
    app = App(400, explore=0.05, shadow=0.05, seed=1)
    found = policy_difference(app.target, app.in_use, *app.sides, features=app.features)
    assert found.refusal is not None
    assert "effective deviations, at least 30 are needed" in found.refusal
    assert found.difference is None
    assert found.quality is None


@pytest.mark.parametrize("side", [0, 1])
def test_rows_that_nobody_could_see_are_refused(side: int) -> None:
    app = App(5000, explore=0.1, shadow=0.05, seed=2)
    deviating = np.flatnonzero(app.target != app.in_use)[0]
    sides = list(app.sides)
    exists, chance = sides[side].exists.copy(), sides[side].chance.copy()
    exists[deviating], chance[deviating] = False, 0.0
    sides[side] = SideScores(exists, chance, sides[side].score)
    found = policy_difference(app.target, app.in_use, *sides, features=app.features)
    assert found.refusal is not None
    assert "no weighting can see what never happens" in found.refusal


@pytest.mark.parametrize(("side", "way"), [(0, "from weak to strong"), (1, "from strong to weak")])
def test_a_direction_without_any_answer_is_refused(side: int, way: str) -> None:
    app = App(5000, explore=0.1, shadow=0.0, seed=3)
    moved = (app.target & ~app.in_use) if side == 0 else (~app.target & app.in_use)
    sides = list(app.sides)
    sides[side] = SideScores(sides[side].exists & ~moved, sides[side].chance, sides[side].score)
    found = policy_difference(app.target, app.in_use, *sides, features=app.features)
    assert found.refusal is not None
    assert way in found.refusal


def test_equal_policies_have_nothing_to_compare() -> None:
    app = App(500, explore=0.1, shadow=0.1, seed=4)
    found = policy_difference(app.in_use, app.in_use, *app.sides)
    assert found.refusal is not None
    assert "alike" in found.refusal


def test_conversations_widen_the_interval() -> None:
    app = App(3000, explore=0.1, shadow=0.1, seed=5)
    repeat = np.repeat(np.arange(600), 5)
    rows = np.repeat(np.arange(600), 5)
    sides = [SideScores(s.exists[rows], s.chance[rows], s.score[rows]) for s in app.sides]

    def width(groups: np.ndarray | None) -> float:
        found = policy_difference(app.target[rows], app.in_use[rows], *sides, groups=groups)
        assert found.difference is not None
        return found.difference.high - found.difference.low

    assert width(repeat) > 2.0 * width(None)


def test_an_answer_that_had_no_chance_is_an_error() -> None:
    with pytest.raises(DataError, match="whose probability is 0"):
        SideScores(np.array([True]), np.array([0.0]), np.array([1.0]))


def test_probabilities_that_do_not_fit_the_calls_are_named() -> None:
    rng = np.random.default_rng(0)
    p = np.full(4000, 0.3)
    assert check_probabilities(rng.random(4000) < p, p) is None
    assert "does not know of" in (check_probabilities(rng.random(4000) < 0.4, p) or "")
    assert check_probabilities([True, False], [1.0, 0.0]) is None
    assert check_probabilities([False, False], [1.0, 0.0]) is not None


REFUSALS = [
    (np.full(6000, np.nan), "no recorded probability"),
    (np.ones(6000), "nothing was explored"),
    (np.where(np.arange(6000) % 3 == 0, 1.0, 0.95), "were not explored"),
    (np.full(6000, 0.99), "explore=0.02 is too little"),
    (np.full(1000, 0.95), "1,000 scored calls, at least 5,000"),
    (np.full(6000, 0.5), "does not know of"),
    (np.array([]), "nothing was explored"),
]


@pytest.mark.parametrize(("p", "reason"), REFUSALS, ids=[reason for _, reason in REFUSALS])
def test_one_sided_feedback_is_refused(p: np.ndarray, reason: str) -> None:
    is_strong = np.ones(p.size, bool)
    refusal = one_sided_refusal(is_strong, p)
    assert refusal is not None
    assert reason in refusal
    with pytest.raises(DataError, match=reason):
        one_sided_differences(is_strong, p, np.ones(p.size))


def test_pseudo_outcomes_are_unbiased() -> None:
    app = App(100_000, explore=0.1, shadow=0.0, seed=6)
    tau = one_sided_differences(app.is_strong, app.p, app.score, features=app.features)
    for part in (app.target, ~app.target):
        error = tau[part].std() / np.sqrt(part.sum())
        assert tau[part].mean() == pytest.approx((app.strong - app.weak)[part].mean(), abs=4 * error)


def test_effective_size_counts_equal_weights() -> None:
    assert effective_size(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert effective_size(np.zeros(3)) == 0.0


@pytest.mark.parametrize(("df", "expected"), [(5, 2.570582), (10, 2.228139), (29, 2.045230)])
def test_quantiles_of_student(df: int, expected: float) -> None:
    assert t_quantile(0.975, df) == pytest.approx(expected, rel=0.005)


def test_principal_features_leave_out_what_does_not_vary() -> None:
    x = np.random.default_rng(0).normal(size=(300, 5))
    x[:, 3], x[:, 4] = 1.0, x[:, 0]
    features = principal_features(x)
    assert features.shape == (300, 3)
    assert features.std(axis=0) == pytest.approx(np.ones(3))
