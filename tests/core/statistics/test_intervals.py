"""Bootstrap draws of means, corrected for what a plain bootstrap of few rows lacks."""

import numpy as np
import pytest

from routellm_core.statistics.intervals import Resampling, middle, opposite_scores, resampled_means

# two imagined pairs, either model the better one: half of each counts
HALVES = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])


def test_the_draws_lie_around_the_mean_with_half_a_row_of_each_kind():
    """As Agresti and Min's interval does: (successes + 1) / (n + 2) for each model."""
    rows = np.repeat([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], [30, 18, 12], axis=0)
    drawn = resampled_means(rows, HALVES, Resampling(20_000))
    np.testing.assert_allclose(drawn.mean(axis=0), [(48 + 1) / 62, (30 + 1) / 62], atol=2e-3)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [30, 60, 300])
def test_the_draws_of_a_normal_sample_give_the_interval_of_students_t(n, confidence):
    values = np.random.default_rng(0).normal(size=(n, 1))
    none = np.empty((0, 1))
    drawn = resampled_means(values, none, Resampling(20_000, confidence))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    t = np.quantile(np.random.default_rng(1).standard_t(n - 1, size=400_000), 1.0 - tail)
    assert (high - low) / 2.0 == pytest.approx(t * values.std(ddof=1) / np.sqrt(n), rel=0.04)


def test_a_further_widening_multiplies_the_spread():
    rows = np.random.default_rng(0).random((50, 2))
    plain, wide = (resampled_means(rows, HALVES, Resampling(500), widen=widen) for widen in (1.0, 1.5))
    np.testing.assert_allclose(wide.std(axis=0), 1.5 * plain.std(axis=0))


def test_what_no_row_shows_is_not_ruled_out():
    same = np.ones((60, 2))
    difference = np.diff(resampled_means(same, HALVES, Resampling(2000)), axis=1)
    low, high = np.quantile(difference, [0.025, 0.975])
    assert -3 / 60 < low < 0.0 < high < 3 / 60


@pytest.mark.parametrize(
    ("strong", "weak", "expected"),
    [
        ([1, 0, 1, 1], [0, 1, 1, 0], (1.0, 0.0)),
        ([1, 0.5, 0], [0, 0.5, 1], (1.0, 0.0)),
        ([9, 8, 3], [6, 8, 6], (7.5, 4.5)),
        ([3, 5], [3, 5], (4.0, 4.0)),
    ],
)
def test_opposite_scores_differ_by_as_much_as_the_models_do(strong, weak, expected):
    assert opposite_scores(np.array(strong, float), np.array(weak, float)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0, 0, 1], 0.5), ([10, 2, 2], 6.0), ([1, 2, 3], 2.0), ([0.1, 0.1, 0.1], 0.1), ([0, 0], 0.0), ([5], 5.0)],
)
def test_the_middle_of_two_values_lies_between_them(values, expected):
    assert middle(np.array(values, float)) == pytest.approx(expected)


def test_imagined_rows_in_the_middle_pull_a_mean_as_its_skewness_asks():
    """By the third central moment over the second and n, to the first order, as Johnson's modified t does."""
    costs = np.random.default_rng(0).lognormal(0.0, 0.7, 400)
    drawn = resampled_means(costs[:, None], np.full((4, 1), middle(costs)), Resampling(40_000))
    deviations = costs - costs.mean()
    pull = (deviations**3).mean() / (deviations**2).mean() / costs.size
    assert pull > 0.005
    assert drawn.mean() - costs.mean() == pytest.approx(pull, abs=0.001)
