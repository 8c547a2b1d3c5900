"""Bradley-Terry ratings: against golden values, a brute-force optimiser, and the cases without a finite optimum."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routellm_core.errors import ConfigurationError, DataError, RouterError
from routellm_core.statistics.bradley_terry import (
    WINNERS,
    bradley_terry_ratings,
    encode_battles,
    is_bounded,
    solve_bradley_terry,
)
from tests.support.shared import golden_json, needs_golden

Battle = tuple[str, str, str]


def random_battles(rng: random.Random, models: int, count: int) -> list[Battle]:
    """Random battles among which each model wins and loses against the next, so that the optimum is finite."""
    names = [f"m{i}" for i in range(models)]
    battles = [(names[i], names[(i + 1) % models], winner) for i in range(models) for winner in ("model_a", "model_b")]
    return battles + [(*rng.sample(names, 2), rng.choice(list(WINNERS))) for _ in range(count)]


@needs_golden
def test_golden_ratings() -> None:
    cases = golden_json("elo_tiers.json")["elo"]
    assert len(cases) == 9
    for case in cases:
        columns = case["battles"]
        battles = list(zip(columns["model_a"], columns["model_b"], columns["winner"], strict=True))
        got = bradley_terry_ratings(battles, case["sample_weight"], same_model="routellm")
        assert [str(name) for name in got] == case["order"], case["name"]
        if "separable" in case["name"]:
            assert all(map(math.isfinite, got.values()))
            continue
        tight = case["tight_ratings"]
        assert max(abs(got[name] - tight[str(name)]) for name in got) < 1e-6, case["name"]
        assert max(abs(a - b) for a, b in zip(got.values(), case["ratings"], strict=True)) < 0.2, case["name"]


@pytest.mark.parametrize("seed", range(5))
def test_gradient_is_zero_at_the_ratings(seed: int) -> None:
    rng = random.Random(seed)
    battles = random_battles(rng, 6, 200)
    weights = [rng.uniform(0.1, 50.0) for _ in battles]
    ratings = bradley_terry_ratings(battles, weights)
    scored, expected = dict.fromkeys(ratings, 0.0), dict.fromkeys(ratings, 0.0)
    for (a, b, winner), weight in zip(battles, weights, strict=True):
        chance = 1.0 / (1.0 + 10.0 ** ((ratings[b] - ratings[a]) / 400.0))
        scored[a] += weight * WINNERS[winner]
        scored[b] += weight * (1.0 - WINNERS[winner])
        expected[a] += weight * chance
        expected[b] += weight * (1.0 - chance)
    assert scored == pytest.approx(expected, rel=1e-10)
    assert np.mean(list(ratings.values())) == pytest.approx(1000.0)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.permutations(range(40)))
def test_order_repetition_and_scale_of_weights_do_not_matter(seed: int, order: list[int]) -> None:
    battles = random_battles(random.Random(seed), 4, 32)
    want = bradley_terry_ratings(battles)
    assert bradley_terry_ratings([battles[i] for i in order]) == pytest.approx(want, abs=1e-7)
    assert bradley_terry_ratings(battles * 3) == pytest.approx(want, abs=1e-7)
    assert bradley_terry_ratings(battles, [7.0] * 40) == pytest.approx(want, abs=1e-7)
    swapped = {"model_a": "model_b", "model_b": "model_a"}
    assert bradley_terry_ratings([(b, a, swapped.get(w, w)) for a, b, w in battles]) == pytest.approx(want, abs=1e-7)


def test_two_models_have_the_closed_form() -> None:
    ratings = bradley_terry_ratings([("a", "b", "model_a")] * 3 + [("a", "b", "model_b"), ("a", "b", "tie")])
    assert ratings["a"] - ratings["b"] == pytest.approx(400.0 * math.log10(3.5 / 1.5))


def test_a_battle_of_a_model_with_itself_is_ignored() -> None:
    battles = random_battles(random.Random(0), 3, 30)
    assert bradley_terry_ratings([*battles, ("m0", "m0", "model_a")]) == bradley_terry_ratings(battles)
    moved = bradley_terry_ratings([*battles, ("m0", "m0", "model_a")], same_model="routellm")
    assert moved["m0"] < bradley_terry_ratings(battles)["m0"]
    assert list(bradley_terry_ratings([("a", "a", "tie")])) == ["a"]


def test_a_model_that_never_won_is_last_and_finite() -> None:
    battles = [*random_battles(random.Random(1), 4, 60), *[("m0", "loser", "model_a")] * 5]
    ratings = bradley_terry_ratings(battles)
    assert list(ratings)[-1] == "loser"
    assert 0.0 < ratings["loser"] < 1000.0
    only = bradley_terry_ratings([("x", "y", "model_a")])
    assert list(only) == ["x", "y"]
    assert only["x"] - 1000.0 == pytest.approx(1000.0 - only["y"])
    assert bradley_terry_ratings([("x", "y", "model_a")] * 10)["x"] > only["x"]


def test_models_that_never_met_are_named() -> None:
    with pytest.raises(DataError, match=r"2 groups .*\(a, b; c, d\)"):
        bradley_terry_ratings([("a", "b", "tie"), ("c", "d", "tie")])
    # A battle of weight zero connects nothing.
    with pytest.raises(DataError, match="2 groups"):
        bradley_terry_ratings([("a", "b", "tie"), ("c", "d", "tie"), ("b", "c", "tie")], [1.0, 1.0, 0.0])


def test_the_anchor_shifts_all_ratings() -> None:
    battles = [("llama-2-70b-chat", "b", "model_a"), ("llama-2-70b-chat", "b", "model_b")]
    assert bradley_terry_ratings(battles) == {"b": 1082.0, "llama-2-70b-chat": 1082.0}
    assert bradley_terry_ratings(battles, anchor=None)["b"] == pytest.approx(1000.0)
    assert bradley_terry_ratings(battles, anchor=("b", 5.0))["llama-2-70b-chat"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("battles", "words"),
    [
        ([], "empty"),
        ([("a", "b", "model_a"), ("a", "b", "both")], r"battles\[1\].*'both'.*tie"),
        ([("a", "b", "model_a"), ("a", "b", None)], r"battles\[1\]"),
        ([("a", "b", "model_a"), ("a", "b")], r"battles\[1\]"),
        (["abc"], r"battles\[0\]"),
        ([1], r"battles\[0\]"),
    ],
)
def test_malformed_battles(battles: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        bradley_terry_ratings(battles)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, math.nan], [math.inf, 1.0], [0.0, 0.0]])
def test_malformed_weights(weights: list[float]) -> None:
    with pytest.raises(DataError, match="weights"):
        bradley_terry_ratings([("a", "b", "model_a"), ("a", "b", "model_b")], weights)


def test_unknown_option() -> None:
    with pytest.raises(ConfigurationError, match="same_model"):
        bradley_terry_ratings([("a", "b", "tie")], same_model="drop")  # type: ignore[arg-type]


def test_encoding_keeps_the_order_of_appearance() -> None:
    coded = encode_battles([("b", "a", "tie"), ("a", "c", "model_b")])
    assert coded.models == ["b", "a", "c"]
    assert (coded.first.tolist(), coded.second.tolist(), coded.score.tolist()) == ([0, 1], [1, 2], [0.5, 0.0])


def test_a_batch_of_tables_gives_what_each_gives_alone() -> None:
    rng = np.random.default_rng(0)
    wins = rng.uniform(0.01, 5.0, (40, 7, 7)) ** rng.integers(1, 6, (40, 1, 1))
    fixed = np.zeros((40, 2, 7))
    fixed[::2] = rng.uniform(0.1, 2.0, (20, 2, 7))
    together = solve_bradley_terry(wins, fixed)
    for i in range(40):
        np.testing.assert_array_equal(solve_bradley_terry(wins[i : i + 1], fixed[i : i + 1])[0], together[i])
    # and the start does not move the optimum
    started = solve_bradley_terry(wins, fixed, rng.normal(size=7))
    np.testing.assert_allclose(
        started - started.mean(1, keepdims=True), together - together.mean(1, keepdims=True), atol=1e-7
    )


@pytest.mark.parametrize("far", [3.0, 5.0, 8.0, 12.0])
def test_a_start_on_the_wrong_side_does_not_throw_the_solver_off(far: float) -> None:
    """Far from the optimum the likelihood is nearly flat, so a full Newton step would leave for infinity."""
    wins = np.array([[[0.0, 3.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    found = solve_bradley_terry(wins, np.zeros((2, 2, 2)), np.array([-far, far]))
    np.testing.assert_allclose(found[:, 0] - found[:, 1], [math.log(3.0), 0.0], atol=1e-6)
    fixed = np.full((1, 2, 2), 1.0)
    np.testing.assert_allclose(solve_bradley_terry(wins[1:], fixed, np.array([-far, far])), 0.0, atol=1e-6)


def test_weights_of_very_different_size_converge_from_nothing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        p = int(rng.integers(2, 6))
        wins = 10.0 ** rng.uniform(-6.0, 3.0, (1, p, p))
        theta = solve_bradley_terry(wins, np.zeros((1, 2, p)))[0]
        games = wins[0] + wins[0].T
        chance = 1.0 / (1.0 + np.exp(theta[None, :] - theta[:, None]))
        np.fill_diagonal(games, 0.0)
        gradient = (wins[0] * (1.0 - np.eye(p)) - games * chance).sum(axis=1)
        assert np.abs(gradient).max() <= 1e-7 * wins.sum()


def test_an_infinite_optimum_is_an_error_of_the_solver_and_seen_before() -> None:
    wins = np.array([[[0.0, 1.0], [0.0, 0.0]]])
    assert not is_bounded(wins[0], np.zeros((2, 2)))
    assert is_bounded(wins[0], np.ones((2, 2)))
    with pytest.raises(RouterError, match="finite optimum"):
        solve_bradley_terry(np.array([[[0.0, 0.0], [0.0, 0.0]]]), np.zeros((1, 2, 2)))
