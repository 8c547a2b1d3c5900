"""The best single model, pair and triple at a budget, and what is sure of it."""

from __future__ import annotations

import json
from itertools import combinations, pairwise

import numpy as np
import pytest

from routellm_core import ConfigurationError, DataError, load_router
from routellm_core.evaluation.pairs import best_models
from tests.support.examples import ROOT
from tests.support.shared import needs_data
from tests.support.shared import rows as shared_rows

# Money per million tokens, input and output alike, near what hosts asked for these models at the end of 2024.
PRICES = json.loads((ROOT / "docs" / "mmlu_pro_prices.json").read_text(encoding="utf-8"))


def planted(count: int = 2000, seed: int = 0):
    """Hard prompts only `big` answers, `middle` does the middling ones, `small` the easy half; win rates tell a bit."""
    rng = np.random.default_rng(seed)
    hardness = rng.random(count)
    win_rates = 0.7 * hardness + 0.3 * rng.random(count)
    scores = {
        "big": (rng.random(count) < 0.9).astype(float),
        "middle": (rng.random(count) < np.where(hardness < 0.7, 0.85, 0.3)).astype(float),
        "small": (rng.random(count) < np.where(hardness < 0.4, 0.85, 0.1)).astype(float),
        "bad": (rng.random(count) < 0.2).astype(float),
    }
    return win_rates, scores, {"big": 10.0, "middle": 3.0, "small": 1.0, "bad": 2.0}


def test_the_best_pair_is_that_of_brute_force():
    win_rates, scores, costs = planted(400)
    found = best_models(win_rates, scores, costs, 4.0).pair.mix  # type: ignore[union-attr]
    order = np.argsort(-win_rates)
    best = (-1.0, ())
    for one, other in combinations(costs, 2):
        high, low = sorted((one, other), key=lambda m: -costs[m])
        share = min((4.0 - costs[low]) / (costs[high] - costs[low]), 1.0)
        cut = int(share * 400)
        quality = (scores[high][order[:cut]].sum() + scores[low][order[cut:]].sum()) / 400
        best = max(best, (quality, (high, low)))
    assert found.models == best[1]
    assert found.quality == pytest.approx(best[0])
    assert found.cost == pytest.approx(4.0)


def test_a_third_model_is_recommended_where_it_helps():
    win_rates, scores, costs = planted(6000)
    found = best_models(win_rates, scores, costs, 4.5, draws=200)
    assert found.recommended is found.triple
    assert found.triple.mix.models == ("big", "middle", "small")
    assert found.triple.gain.low > 0  # type: ignore[union-attr]
    assert found.triple.mix.cost <= 4.5 + 1e-9


def test_nothing_is_recommended_that_chance_alone_favours():
    """28 models of one kind: the best pair of the rows at hand is no better than any other."""
    rng = np.random.default_rng(3)
    scores = {f"m{i}": (rng.random(1000) < 0.5).astype(float) for i in range(28)}
    found = best_models(rng.random(1000), scores, {name: 1.0 + i for i, name in enumerate(scores)}, 14.0)
    assert found.pair.mix.quality > 0.53  # type: ignore[union-attr]  # what a look at the chosen rows would promise
    assert found.pair.quality.low < 0.5 < found.pair.quality.high  # type: ignore[union-attr]
    assert found.recommended is found.single
    assert found.pair.agreement < 1  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_interval_of_the_chosen_pair_covers_its_true_quality():
    covered = 0
    for seed in range(100):
        win_rates, scores, costs = planted(500, seed)
        found = best_models(win_rates, scores, costs, 4.0, draws=300)
        big = planted(40_000, 10_000)
        truth = best_models(big[0], {m: big[1][m] for m in found.pair.mix.models}, big[2], 4.0, draws=10).pair.mix  # type: ignore[union-attr]
        covered += found.pair.quality.low <= truth.quality <= found.pair.quality.high  # type: ignore[union-attr]
    assert covered >= 88


def test_the_hull_rises():
    win_rates, scores, costs = planted()
    hull = best_models(win_rates, scores, costs, 4.0, draws=200).hull
    assert all(a.mix.cost < b.mix.cost and a.mix.quality < b.mix.quality for a, b in pairwise(hull))
    assert hull[0].mix.models == ("small",)
    assert all(a.mix.cost <= a.budget + 1e-9 and a.quality.low < a.mix.quality for a in hull)


def test_a_model_that_costs_nothing_is_the_cheap_side():
    win_rates, scores, costs = planted()
    found = best_models(win_rates, scores, {**costs, "small": 0.0}, 2.0, draws=50)
    assert found.pair.mix.models[1] == "small"  # type: ignore[union-attr]
    assert found.hull[0].mix.cost == 0.0
    free = best_models(win_rates, scores, dict.fromkeys(costs, 0.0), 1.0, draws=50)
    assert free.single.mix.models == ("big",)
    assert len(free.hull) == 1


def test_order_of_models_and_rows_changes_nothing():
    win_rates, scores, costs = planted(500)
    a = best_models(win_rates, scores, costs, 4.0)
    b = best_models(win_rates, dict(reversed(scores.items())), dict(reversed(costs.items())), 4.0)
    assert a == b
    turn = np.random.default_rng(1).permutation(500)
    c = best_models(win_rates[turn], {m: s[turn] for m, s in scores.items()}, costs, 4.0)
    assert c.pair.mix == a.pair.mix  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"budget": 0.5}, ConfigurationError, "even small"),
        ({"budget": -1}, ConfigurationError, "budget=-1"),
        ({"costs": {"big": -1}}, ConfigurationError, "big=-1"),
        ({"costs": {"other": 1}}, ConfigurationError, "none of other"),
        ({"win_rates": np.ones(3)}, DataError, "as many scores"),
        ({"win_rates": np.full(2000, np.nan)}, DataError, "finite"),
    ],
)
def test_arguments_are_checked(change, error, words):
    win_rates, scores, costs = planted()
    given = {"win_rates": win_rates, "scores": scores, "costs": costs, "budget": 4.0, **change}
    with pytest.raises(error, match=words):
        best_models(**given)


def test_too_few_rows():
    win_rates, scores, costs = planted(20)
    with pytest.raises(DataError, match="too few"):
        best_models(win_rates, scores, costs, 4.0)


@pytest.mark.slow
@needs_data
def test_on_held_out_halves_of_mmlu_pro_the_chosen_pair_is_near_the_best_in_hindsight():
    rows = [row for row in shared_rows("outcomes/mmlu_pro") if row["scores"].keys() >= PRICES.keys()]
    win_rates = load_router().win_rates([row["prompt"] for row in rows])
    scores = {model: np.array([row["scores"][model] for row in rows], dtype=float) for model in PRICES}
    losses = []
    for seed in range(6):
        half = np.random.default_rng(seed).permutation(len(rows)) % 2 == 0
        for budget in (0.15, 0.3, 0.6, 1.2):
            kept = {model: s[half] for model, s in scores.items()}
            other = {model: s[~half] for model, s in scores.items()}
            chosen = best_models(win_rates[half], kept, PRICES, budget, draws=10, folds=2).pair.mix.models  # type: ignore[union-attr]
            best = best_models(win_rates[~half], other, PRICES, budget, draws=10, folds=2).pair.mix.quality  # type: ignore[union-attr]
            got = best_models(win_rates[~half], {m: other[m] for m in chosen}, PRICES, budget, draws=10, folds=2)
            losses.append(best - got.pair.mix.quality)  # type: ignore[union-attr]
    assert np.mean(losses) < 0.003
