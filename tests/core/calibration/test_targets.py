"""Targets: thresholds for a share, a budget and a quality level, and how far their intervals can be trusted."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core import Calibration, ConfigurationError, DataError, Price
from routellm_core.calibration.targets import budget_target, call_cost, quality_target, share_target


def outcomes(n, seed=0):
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    strong = (rng.random(n) < 0.95 - 0.2 * hard).astype(float)
    weak = (rng.random(n) < 0.9 - 0.6 * hard).astype(float)
    return np.clip(hard + 0.1 * rng.normal(size=n), 0, 1), strong, weak


def beta_2_3_above(x):
    """P(X >= x) of a Beta(2, 3): the true share of strong calls at a threshold."""
    return 1 - (6 * x**2 - 8 * x**3 + 3 * x**4)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [0.1, 0.3, 0.5])
def test_interval_of_the_realised_share_covers_the_truth(wanted):
    """300 simulated calibrations: the 95 % interval holds the share on traffic to come 92 to 98 % of the time."""
    rng = np.random.default_rng(11)
    covered = 0
    for i in range(300):
        found = share_target(rng.beta(2, 3, size=400), wanted, seed=i)
        covered += found.realised.low <= beta_2_3_above(found.threshold) <= found.realised.high
    assert 0.92 <= covered / 300 <= 0.98


@pytest.mark.slow
def test_interval_covers_the_truth_with_discrete_win_rates():
    rng = np.random.default_rng(12)
    levels = np.arange(11) / 10
    chances = np.bincount(np.round(10 * rng.beta(2, 3, size=200_000)).astype(int), minlength=11) / 200_000
    covered = 0
    for i in range(300):
        found = share_target(rng.choice(levels, size=400, p=chances), 0.3, seed=i)
        truth = chances[levels >= found.threshold].sum()
        covered += found.realised.low <= truth <= found.realised.high
    assert 0.92 <= covered / 300 <= 0.98


@pytest.mark.slow
def test_interval_of_the_threshold_covers_the_true_threshold():
    rng = np.random.default_rng(13)
    population = rng.beta(2, 3, size=400_000)
    truth = np.quantile(population, 0.7)
    covered = 0
    for i in range(300):
        low, high = share_target(rng.beta(2, 3, size=400), 0.3, seed=i).threshold_interval
        covered += bool(low <= truth <= high)
    assert 0.91 <= covered / 300 <= 0.99


@pytest.mark.slow
def test_interval_of_the_budget_covers_the_truth():
    rng = np.random.default_rng(14)
    n = 300

    def traffic(count):
        rates = rng.random(count)
        return rates, 200 + 800 * rates * rng.random(count)  # hard prompts are long

    big_rates, big_tokens = traffic(200_000)
    covered = 0
    for i in range(300):
        rates, tokens = traffic(n)
        found = budget_target(rates, 2.0, calls=1000, strong_price=10, weak_price=0.5, tokens=tokens, draws=200, seed=i)
        truth = (np.where(big_rates >= found.threshold, 10, 0.5) * big_tokens).mean() / 1e6
        covered += found.realised.low <= truth <= found.realised.high
    assert 0.92 <= covered / 300 <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 500])
@pytest.mark.parametrize("wanted", [{"quality": 0.8}, {"pgr": 0.7}])
def test_interval_of_quality_covers_the_truth(n, wanted):
    population = outcomes(200_000, seed=1)
    gap = population[1].mean() - population[2].mean()
    rng = np.random.default_rng(15)
    covered = 0
    for i in range(300):
        rows = rng.integers(0, 200_000, size=n)
        rates, strong, weak = (column[rows] for column in population)
        found = quality_target(rates, strong, weak, **wanted, draws=200, seed=i)
        truth = np.where(population[0] >= found.threshold, population[1], population[2]).mean()
        truth = truth if "quality" in wanted else (truth - population[2].mean()) / gap
        covered += found.realised.low <= truth <= found.realised.high
    assert 0.91 <= covered / 300 <= 0.985


@pytest.mark.slow
def test_interval_of_skewed_costs_covers_the_truth():
    """Few prompts cost as much as the others together; the percentiles of a bootstrap cover 0.91 here."""
    rng = np.random.default_rng(16)
    big_rates, big_tokens = rng.random(400_000), np.exp(rng.normal(5, 1, size=400_000))
    covered = 0
    for i in range(300):
        rows = rng.integers(0, 400_000, size=200)
        options: dict[str, Any] = {
            "strong_price": 10,
            "weak_price": 1,
            "tokens": big_tokens[rows],
            "draws": 300,
            "seed": i,
        }
        found = budget_target(big_rates[rows], 1.2, calls=1000, **options)
        truth = (np.where(big_rates >= found.threshold, 10, 1) * big_tokens).mean() / 1e6
        covered += found.realised.low <= truth <= found.realised.high
    assert 0.92 <= covered / 300 <= 0.98


def test_share_target_says_what_it_found():
    found = share_target(np.random.default_rng(0).random(200), 0.3, precision=0.02)
    assert found.count == 200
    assert found.realised.value == pytest.approx(0.3)
    assert found.realised.low < 0.3 < found.realised.high
    assert abs(found.held_out - 0.3) < 0.15  # type: ignore[operator]
    assert found.threshold_interval[0] <= found.threshold <= found.threshold_interval[1]
    # half-width 1.96 * sqrt(0.3 * 0.7 / n) = 0.02 at n = 2017
    assert not found.enough
    assert found.needed == pytest.approx(2017, rel=0.06)
    assert "too few prompts" in found.message
    assert f"about {found.needed:,} are needed" in found.message
    json.dumps(found.to_dict(), allow_nan=False)


def test_many_prompts_are_enough():
    found = share_target(Calibration.from_win_rates(np.random.default_rng(0).random(20_000)), 0.3)
    assert found.enough
    assert "too few" not in found.message


def test_ties_make_a_share_unreachable_and_that_is_said():
    found = share_target([0.5] * 60 + [0.9] * 40, 0.25)
    assert found.realised.value == 0.4
    assert not found.reached
    assert "no threshold reaches 0.25" in found.message
    assert share_target([0.5] * 60 + [0.9] * 40, 0.4).reached


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0, 1))
def test_share_of_a_target_is_the_share_of_its_threshold(values, wanted):
    found = share_target(values, wanted, draws=50)
    assert found.realised.value == np.mean(np.array(values) >= found.threshold)
    assert found.realised.low <= found.realised.value <= found.realised.high
    assert (found.held_out is None) == (len(values) == 1)


def test_shares_of_none_and_all_keep_an_honest_interval():
    found = share_target(np.linspace(0, 0.9, 50), 0.0)
    assert found.realised.value == 0.0
    assert found.realised.high > 0.01  # 50 prompts cannot rule out that a few are strong


def test_a_threshold_of_zero_is_always_strong_whatever_comes():
    found = share_target(np.linspace(0.1, 0.9, 50), 1.0)
    assert found.threshold == 0.0
    assert found.realised == found.strong_fraction
    assert (found.realised.low, found.realised.high) == (1.0, 1.0)
    money = budget_target(np.linspace(0.1, 0.9, 50), 1.0, strong_price=10, weak_price=1, tokens=100)
    assert (money.realised.low, money.realised.high) == pytest.approx((0.001, 0.001))


def test_a_budget_for_mean_tokens_is_as_sure_as_its_share():
    found = budget_target(np.linspace(0, 0.9, 50), 1e-9, strong_price=10, weak_price=1, tokens=1e6)
    assert not found.reached
    assert found.realised.value == 1.0
    assert found.realised.high == pytest.approx(1 + 9 * found.strong_fraction.high)
    assert found.realised.high > 1.1  # 50 prompts cannot rule out that a few are strong


def test_the_message_tells_what_a_half_gave_that_had_no_part_in_the_choice():
    found = share_target(np.random.default_rng(0).random(200), 0.3)
    assert f", {found.held_out:.4g} on a held-out half" in found.message
    assert "half" not in share_target([0.4], 0.5).message


@pytest.mark.parametrize(("low", "width"), [(0.9999, 9e-5), (0.5, 1e-6), (0.0, 1e-6), (0.1, 0.8)])
def test_the_threshold_in_words_sends_about_the_same_share(low, width):
    rates = low + np.random.default_rng(0).random(1000) * width
    found = share_target(rates, 0.3)
    shown = float(found.message.split()[1].rstrip(":"))
    assert (rates >= shown).mean() == pytest.approx(0.3, abs=0.005)
    assert len(share_target(np.array([0.25, 0.75]), 0.5).threshold_text) == len("0.5000")


def test_call_cost():
    assert call_cost(10.0, 1000) == pytest.approx(0.01)
    assert call_cost((2.0, 8.0), (500, 250)) == pytest.approx(0.003)
    np.testing.assert_allclose(call_cost((2.0, 8.0), (np.array([0, 1e6]), 0)), [0.0, 2.0])
    np.testing.assert_allclose(call_cost(1.0, ([1e6, 0], [0, 1e6])), [1.0, 1.0])
    assert call_cost(Price(2.0, 8.0), (500, 250)) == pytest.approx(0.003)
    assert call_cost(Price(10.0, 10.0), 1000) == pytest.approx(0.01)
    with pytest.raises(ConfigurationError, match=r"tokens=\(input, output\)"):
        call_cost(Price(2.0, 8.0), 1000)


@pytest.mark.parametrize("price", [None, "2", True, math.nan, [1, 2], (1, 2, 3), (1, None), np.ones(2), -1])
def test_a_price_is_a_number_a_pair_or_a_price(price):
    with pytest.raises(ConfigurationError, match="price="):
        call_cost(price, (1, 1))


def test_a_budget_takes_prices():
    rates, tokens = np.linspace(0.1, 0.9, 50), (300, 200)
    pairs = budget_target(rates, 0.005, strong_price=(10, 30), weak_price=0.6, tokens=tokens)
    assert budget_target(rates, 0.005, strong_price=Price(10, 30), weak_price=Price(0.6, 0.6), tokens=tokens) == pairs


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=2, max_size=20),
    st.floats(0.1, 20.0),
)
def test_budget_equals_trying_every_threshold(rows, budget):
    rates = np.array([r for r, _ in rows]) / 5
    tokens = np.array([t for _, t in rows]) * 1e6
    found = budget_target(rates, budget, strong_price=4.0, weak_price=1.0, tokens=tokens, draws=20)

    def spent(threshold):
        return float(np.mean(np.where(rates >= threshold, 4.0, 1.0) * tokens / 1e6))

    assert found.realised.value == pytest.approx(spent(found.threshold))
    within = [spent(t) for t in [*rates, 1.0] if spent(t) <= budget * (1 + 1e-12)]
    if within:
        assert spent(found.threshold) == pytest.approx(max(within))
        assert found.reached
    else:
        assert found.strong_fraction.value == 0.0
        assert not found.reached


def test_budget_of_a_month_with_mean_tokens():
    rates = np.random.default_rng(0).random(4000)
    options: dict[str, Any] = {"calls": 100_000, "strong_price": (10, 30), "weak_price": 0.6, "tokens": (300, 200)}
    found = budget_target(rates, 500, **options)
    # per call 0.009 strong, 0.0003 weak; 0.005 buys a share of 0.54
    assert found.wanted == pytest.approx(0.005)
    assert found.strong_fraction.value == pytest.approx(0.54, abs=0.001)
    assert found.realised.value <= 0.005
    # a Calibration does as well when tokens are a mean
    assert budget_target(Calibration.from_win_rates(rates), 500, **options).threshold == found.threshold
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8, 1.0])
def test_quality_target_is_the_smallest_share_that_reaches_it(level):
    rates, strong, weak = outcomes(2000)
    found = quality_target(rates, strong, weak, pgr=level, draws=100)
    goal = weak.mean() + level * (strong.mean() - weak.mean())

    def quality(threshold):
        return np.where(rates >= threshold, strong, weak).mean()

    assert quality(found.threshold) >= goal - 1e-9
    higher = [t for t in np.unique(rates) if t > found.threshold]
    assert all(quality(t) < goal for t in higher[1:])
    assert found.realised.value == pytest.approx(level, abs=0.15)
    assert found.realised.low <= found.realised.value <= found.realised.high
    assert (found.realised.low < found.realised.high) == (found.threshold > 0)  # always strong leaves nothing open
    absolute = quality_target(rates, strong, weak, quality=goal, draws=100)
    assert absolute.threshold == pytest.approx(found.threshold)
    assert absolute.kind == "quality"


def test_quality_out_of_reach_gives_the_best_there_is():
    rates, strong, weak = outcomes(500)
    found = quality_target(rates, strong, weak, quality=0.999, draws=50)
    assert not found.reached
    assert "no threshold reaches" in found.message


def test_one_prompt_is_answered_and_called_too_few():
    found = share_target([0.4], 0.5)
    assert found.held_out is None
    assert not found.enough
    found = quality_target([0.4], [1.0], [0.0], pgr=0.5, draws=20)
    assert math.isfinite(found.threshold)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strong_price": None}, "strong_price missing"),
        ({"weak_price": None, "tokens": None}, "weak_price, tokens missing"),
        ({"budget": -1}, "budget=-1"),
        ({"calls": 0}, "calls=0"),
        ({"strong_price": 0.5, "weak_price": 0.5}, "not more expensive"),
        ({"strong_price": -5}, "price=-5"),
        ({"strong_price": "ten"}, "price='ten'"),
        ({"strong_price": (1, 2)}, r"tokens=\(input, output\)"),
        ({"tokens": float("nan")}, "tokens=nan"),
        ({"tokens": 0}, "tokens=0"),
        ({"tokens": (0, 0)}, r"tokens=\(0, 0\)"),
        ({"precision": 0}, "precision=0"),
    ],
)
def test_bad_budgets_are_named(options, words):
    good = {"budget": 1.0, "strong_price": 10.0, "weak_price": 1.0, "tokens": 100_000}
    with pytest.raises(ConfigurationError, match=words):
        budget_target([0.1, 0.9], **{**good, **options})


def test_tokens_prompt_by_prompt_need_win_rates():
    with pytest.raises(ConfigurationError, match="does not keep the order"):
        budget_target(
            Calibration.from_win_rates([0.1, 0.9]), 1.0, strong_price=10, weak_price=1, tokens=np.array([1, 2])
        )
    with pytest.raises(DataError, match="expected one per prompt"):
        budget_target([0.1, 0.9], 1.0, strong_price=10, weak_price=1, tokens=np.array([1, 2, 3]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confidence": 95}, "confidence=95"),
        ({"confidence": math.nan}, "confidence=nan"),
        ({"confidence": "0.95"}, "confidence='0.95'"),
        ({"draws": 0}, "draws=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, r"seed=0\.5"),
        ({"precision": "tight"}, "precision='tight'"),
    ],
)
def test_bad_intervals_are_named(options, words):
    for target in (
        lambda: share_target([0.1, 0.9], 0.5, **options),
        lambda: budget_target([0.1, 0.9], 1, strong_price=2, weak_price=1, tokens=9, **options),
        lambda: quality_target([0.1, 0.9], [1, 1], [0, 1], pgr=0.5, **options),
    ):
        with pytest.raises(ConfigurationError, match=words):
            target()


def test_a_budget_without_prices_names_what_is_missing():
    with pytest.raises(ConfigurationError, match="strong_price, weak_price, tokens missing"):
        Calibration.from_win_rates([0.1, 0.9]).budget_target(0.003)


@pytest.mark.parametrize("quality", ["0.8", True, math.inf])
def test_a_quality_is_a_number(quality):
    with pytest.raises(ConfigurationError, match="quality="):
        quality_target([0.1, 0.9], [1, 1], [0, 1], quality=quality)


@pytest.mark.parametrize("budget", ["5", None, math.inf, True])
def test_a_budget_is_a_number(budget):
    with pytest.raises(ConfigurationError, match="budget"):
        budget_target([0.1, 0.9], budget, strong_price=2, weak_price=1, tokens=9)


def test_models_that_score_the_same_still_have_a_quality():
    rates, scores = np.linspace(0, 1, 60), np.tile([0.0, 1.0], 30)
    found = quality_target(rates, scores, scores, quality=0.5)
    assert found.reached
    assert (found.realised.value, found.threshold) == (0.5, 1.0)
    assert found.precision == 0.05  # in the unit of the scores: there is no gap
    assert not quality_target(rates, scores, scores, quality=0.6).reached


@pytest.mark.parametrize("count", [1, 2, 29])
def test_a_handful_of_prompts_is_never_enough(count):
    """All of them alike, so that the bootstrap sees no spread at all."""
    rates, ones = np.linspace(0.2, 0.8, count), np.ones(count)
    for found in (
        share_target(rates, 0.5),
        budget_target(rates, 1e9, strong_price=2, weak_price=1, tokens=9),
        quality_target(rates, ones, 0 * ones, pgr=0.5),
    ):
        assert not found.enough
        assert "too few prompts" in found.message


def test_bad_quality_targets_are_named():
    good = ([0.1, 0.9], [1.0, 1.0], [0.0, 1.0])
    with pytest.raises(ConfigurationError, match="exactly one"):
        quality_target(*good)
    with pytest.raises(ConfigurationError, match="pgr=80"):
        quality_target(*good, pgr=80)
    with pytest.raises(ConfigurationError, match="quality=nan"):
        quality_target(*good, quality=float("nan"))
    with pytest.raises(DataError, match="not better"):
        quality_target([0.1, 0.9], [0.0, 0.0], [1.0, 1.0], pgr=0.5)
    with pytest.raises(DataError, match="rows"):
        quality_target([0.1], [0.0, 0.0], [1.0, 1.0], pgr=0.5)
    with pytest.raises(DataError, match=r"win_rates\[1\] is 1\.5"):
        quality_target([0.1, 1.5], [1.0, 1.0], [0.0, 0.0], pgr=0.5)
    with pytest.raises(DataError, match="strong_scores"):
        quality_target([0.1, 0.5], [1.0, float("nan")], [0.0, 0.0], pgr=0.5)


def test_a_calibration_gives_every_kind_of_target():
    rates = np.random.default_rng(3).random(800)
    calibration = Calibration.from_win_rates(rates)
    assert calibration.share_target(0.3, precision=0.01) == share_target(rates, 0.3, precision=0.01)
    money = {"strong_price": 10, "weak_price": 1, "tokens": 1000, "calls": 100}
    found = calibration.budget_target(0.4, **money)
    # the draws of the interval follow the order of the prompts, which a calibration does not keep
    assert (found.threshold, found.realised.value) == pytest.approx(
        (budget_target(rates, 0.4, **money).threshold, 0.004), rel=1e-2
    )

    # the threshold is that of the prompts with outcomes, the share of strong calls that of the calibration's
    hard, strong, weak = outcomes(1500)
    traffic = Calibration.from_win_rates(rates**2)
    direct, found = quality_target(hard, strong, weak, pgr=0.8), traffic.quality_target(hard, strong, weak, pgr=0.8)
    assert (found.threshold, found.realised) == (direct.threshold, direct.realised)
    share = float((rates**2 >= found.threshold).mean())
    assert found.strong_fraction.value == share != direct.strong_fraction.value
    assert found.strong_fraction.low < share < found.strong_fraction.high
