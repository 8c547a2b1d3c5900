"""Tiers: against golden values and against every possible split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routellm_core.errors import ConfigurationError, DataError
from routellm_core.statistics.tiers import compute_tiers
from tests.support.shared import golden_json, needs_golden


def cost(ratings: dict[str, float], tiers: dict[str, int]) -> float:
    """Sum of the variances of the tiers."""
    groups: dict[int, list[float]] = {}
    for name, tier in tiers.items():
        groups.setdefault(tier, []).append(ratings[name])
    return float(sum(np.var(group) for group in groups.values()))


@needs_golden
def test_golden_tiers() -> None:
    golden = golden_json("elo_tiers.json")
    count = 0
    for case in golden["elo"]:
        ratings = dict(zip(case["order"], case["ratings"], strict=True))
        for num_tiers, want in case["tiers"].items():
            assert compute_tiers(ratings, int(num_tiers)) == want, (case["name"], num_tiers)
            count += 1
    for case in golden["tiers"]:
        ratings = {f"m{i}": rating for i, rating in enumerate(case["ratings"])}
        assert compute_tiers(ratings, case["num_tiers"]) == case["tiers"], (case["name"], case["num_tiers"])
        count += 1
    assert count > 40


@settings(max_examples=60)
@given(st.lists(st.floats(500, 1500), min_size=1, max_size=8), st.integers(1, 6))
def test_no_other_split_is_better(values: list[float], num_tiers: int) -> None:
    ratings = {f"m{i}": value for i, value in enumerate(values)}
    tiers = compute_tiers(ratings, num_tiers)
    ordered = [ratings[name] for name in tiers]
    assert ordered == sorted(values, reverse=True)
    assert list(tiers.values()) == sorted(tiers.values())
    assert set(tiers.values()) <= set(range(num_tiers))
    assert tiers[next(iter(tiers))] == 0
    n = len(values)
    best = min(
        sum(float(np.var(ordered[i:j])) for i, j in itertools.pairwise((0, *splits, n)))
        for splits in itertools.combinations(range(1, n), min(num_tiers, n) - 1)
    )
    assert cost(ratings, tiers) == pytest.approx(best, abs=1e-6)


@settings(max_examples=30)
@given(st.permutations(range(9)))
def test_order_of_the_models_does_not_matter(order: list[int]) -> None:
    ratings = {f"m{i}": 1000.0 - 10.0 * (i // 2) for i in range(9)}
    assert compute_tiers({f"m{i}": ratings[f"m{i}"] for i in order}, 3) == compute_tiers(ratings, 3)


def test_fewer_models_than_tiers_are_each_alone() -> None:
    tiers = compute_tiers({"a": 1100.0, "b": 1000.0, "c": 900.0}, 10)
    assert tiers == {"a": 0, "b": 8, "c": 9}
    assert compute_tiers({"a": 1.0}, 10) == {"a": 0}


@pytest.mark.parametrize("num_tiers", [0, -1, 2.0, True, None])
def test_num_tiers_must_be_a_positive_int(num_tiers: object) -> None:
    with pytest.raises(ConfigurationError, match="num_tiers"):
        compute_tiers({"a": 1.0}, num_tiers)  # type: ignore[arg-type]


def test_ratings_must_be_finite() -> None:
    with pytest.raises(DataError, match="empty"):
        compute_tiers({}, 2)
    with pytest.raises(DataError, match="'b'"):
        compute_tiers({"a": 1.0, "b": float("nan")}, 2)
