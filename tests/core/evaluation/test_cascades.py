"""Whether a cascade pays against routing alone and the static mix, with the cost of both calls."""

from __future__ import annotations

import json

import numpy as np
import pytest

from routellm_core import ConfigurationError, DataError, RoutingDecision
from routellm_core.evaluation.cascades import evaluate_cascade
from routellm_core.policy.acceptance import Acceptance


def planted(count=3000, seed=0, *, check=0.95, router=0.5):
    """The weak model answers 60 % of the prompts; the check is right with probability `check`, the router's win rates
    are partly noise."""
    rng = np.random.default_rng(seed)
    weak = (rng.random(count) < 0.6).astype(float)
    strong = np.maximum(weak, (rng.random(count) < 0.85).astype(float))
    hard = 1.0 - weak
    rates = np.clip(router * hard + (1 - router) * rng.random(count), 0, 1)
    accepted = np.where(rng.random(count) < check, weak, 1.0 - weak).astype(bool)
    return rates, accepted, strong, weak


def test_a_good_check_beside_a_poor_router_pays():
    rates, accepted, strong, weak = planted(router=0.1)
    found = evaluate_cascade(rates, accepted, strong, weak, strong_cost=10.0, weak_cost=1.0)
    assert found.outcome == "pays"
    assert found.over_routing.low > 0
    assert found.over_mix.low > 0
    assert found.sentence.startswith("The cascade pays")
    assert found.accepted_quality > 0.85 > 0.2 > found.refused_quality


def test_a_check_that_guesses_does_not_pay_beside_a_good_router():
    rates, _, strong, weak = planted(router=0.6)
    guess = np.random.default_rng(1).random(rates.size) < 0.5
    found = evaluate_cascade(rates, guess, strong, weak, strong_cost=2.0, weak_cost=1.0, accept_band=(0.0, 1.0))
    assert found.outcome == "does_not_pay"
    assert found.over_routing.high < 0


def test_both_calls_of_a_refused_answer_are_paid():
    rng = np.random.default_rng(0)
    rates, strong, weak = np.full(200, 0.3), np.ones(200), np.zeros(200)
    weak[:100] = 1.0
    order = rng.permutation(200)
    strong, weak = strong[order], weak[order]
    found = evaluate_cascade(rates, weak, strong, weak, strong_cost=10.0, weak_cost=1.0)
    assert found.threshold > 0.3
    assert found.quality.value == 1.0
    assert found.cost.value == pytest.approx(1.0 + 0.5 * 10.0)
    assert (found.strong_fraction, found.checked, found.escalated) == (0.0, 1.0, 0.5)


def test_the_band_is_used_as_it_is_given():
    rates, accepted, strong, weak = planted(router=0.4)
    found = evaluate_cascade(rates, accepted, strong, weak, strong_cost=10, weak_cost=1, accept_band=(0.2, 0.4))
    assert found.accept_band == (0.2, 0.4)
    inside = (rates >= 0.2) & (rates < 0.4) & (rates < found.threshold)
    assert found.checked == pytest.approx(inside.mean())
    assert found.escalated == pytest.approx((inside & ~accepted).mean())


def test_edges_are_chosen_by_what_a_policy_with_them_does_at_a_win_rate_of_1():
    """Checking the prompts at 1 would gain most, but every threshold sends them to the strong model at once."""
    rates = np.repeat([0.2, 0.6, 1.0], [60, 60, 280])
    strong, weak = np.ones(400), np.concatenate([np.ones(60), np.zeros(60), np.tile([1.0, 0.0], 140)])
    accepted = np.where(rates == 0.6, 1.0, weak)
    order = np.random.default_rng(0).permutation(400)
    columns = (column[order] for column in (rates, accepted, strong, weak))
    found = evaluate_cascade(*columns, strong_cost=10.0, weak_cost=1.0, draws=200)
    assert (found.threshold, found.accept_band, found.strong_fraction) == (0.6, (0.0, 0.6), 0.85)
    assert found.over_mix.value == pytest.approx(0.075)
    check = Acceptance(lambda answer: True, band=found.accept_band)
    asked = [rate for rate in np.unique(rates) if check.concerns(RoutingDecision("weak", rate, found.threshold, "mf"))]
    assert asked == [0.2]


@pytest.mark.parametrize("accepts", [True, False])
def test_a_check_that_never_says_the_other_thing_has_no_score_of_it_in_json(accepts):
    rates, _, strong, weak = planted(200)
    found = evaluate_cascade(rates, np.full(200, accepts), strong, weak, strong_cost=10.0, weak_cost=1.0, draws=50)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["refused_quality" if accepts else "accepted_quality"] is None
    assert values["accepted_quality" if accepts else "refused_quality"] == weak.mean()


def test_a_score_is_compared_with_the_threshold():
    rates, accepted, strong, weak = planted()
    scores = np.where(accepted, 0.8, 0.4)
    plain = evaluate_cascade(rates, accepted, strong, weak, strong_cost=10, weak_cost=1, draws=50)
    assert evaluate_cascade(rates, scores, strong, weak, strong_cost=10, weak_cost=1, draws=50) == plain
    none = evaluate_cascade(rates, scores, strong, weak, strong_cost=10, weak_cost=1, draws=50, accept_threshold=0.9)
    assert none.escalated == none.checked


def test_the_edges_are_chosen_on_other_rows_than_they_are_measured_on():
    """A check and a router that know nothing: over many samples, a cascade is as often below zero as above it."""
    gains = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        weak, strong = (rng.random(300) < 0.5).astype(float), (rng.random(300) < 0.7).astype(float)
        found = evaluate_cascade(
            rng.random(300), rng.random(300) < 0.5, strong, weak, strong_cost=5, weak_cost=1, draws=30, seed=seed
        )
        gains.append(found.over_routing.value)
    assert np.mean(gains) < 0.005


@pytest.mark.slow
def test_a_cascade_that_gains_nothing_seldom_pays():
    said = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        weak, strong = (rng.random(300) < 0.5).astype(float), (rng.random(300) < 0.7).astype(float)
        rates, accepted = rng.random(300), rng.random(300) < 0.5
        said += evaluate_cascade(rates, accepted, strong, weak, strong_cost=5, weak_cost=1, draws=200).outcome == "pays"
    assert said <= 5


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"accepted": [True] * 5}, DataError, "for each of"),
        ({"accepted": np.full(3000, np.nan)}, DataError, "missing"),
        ({"accepted": ["yes"] * 3000}, DataError, "true, false or a score"),
        ({"accept_band": (0.5, 0.2)}, ConfigurationError, "accept_band"),
        ({"accept_threshold": "high"}, ConfigurationError, "accept_threshold"),
        ({"strong_cost": -1}, DataError, "below 0"),
    ],
)
def test_arguments_are_checked(change, error, words):
    rates, accepted, strong, weak = planted()
    columns = {"win_rates": rates, "accepted": accepted, "strong_scores": strong, "weak_scores": weak}
    given = {**columns, "strong_cost": 10.0, "weak_cost": 1.0, **change}
    with pytest.raises(error, match=words):
        evaluate_cascade(**given)


def test_too_few_prompts():
    with pytest.raises(DataError, match="too few"):
        evaluate_cascade(*(column[:20] for column in planted()))
