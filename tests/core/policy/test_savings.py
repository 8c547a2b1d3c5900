"""Savings: the sums, the table, and counting from many threads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core.errors import ConfigurationError
from routellm_core.policy.savings import Price, SavingsLedger

PRICES = {"strong": Price(10.0, 30.0), "weak": Price(1.0, 2.0)}
CALLS = st.lists(
    st.tuples(st.sampled_from(["strong", "weak"]), st.integers(0, 10_000), st.integers(0, 10_000)), max_size=30
)


def test_a_price_is_per_million_tokens() -> None:
    assert Price(2.0, 8.0).cost(1_000_000, 500_000) == 6.0
    assert Price(0, 0).cost(5, 5) == 0


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True])
def test_a_wrong_price_is_named(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Price\(input="):
        Price(value, 1)
    with pytest.raises(ConfigurationError, match=r"Price\(output="):
        Price(1, value)


@pytest.mark.parametrize(
    "prices", [{}, {"strong": Price(1, 1)}, {"strong": 1, "weak": 2}, {**PRICES, "x": Price(1, 1)}]
)
def test_wrong_prices_are_named(prices: Any) -> None:
    with pytest.raises(ConfigurationError, match="prices="):
        SavingsLedger(prices)


def test_an_empty_ledger() -> None:
    summary = SavingsLedger(PRICES).summary()
    assert summary.strong_fraction is None
    assert (summary.cost, summary.saved, summary.saved_fraction) == (0, 0, None)
    assert SavingsLedger().summary().cost is None
    assert "cost" in summary.table()


def test_the_sums() -> None:
    ledger = SavingsLedger(PRICES)
    ledger.record("strong", 1_000_000, 0)
    ledger.record("weak", 1_000_000, 1_000_000, failover=True)
    ledger.record("weak", None, None)
    summary = ledger.summary()
    assert summary.cost == 10 + 3
    assert summary.cost_always_strong == 10 + 40
    assert summary.saved == 37
    assert summary.saved_fraction == pytest.approx(37 / 50)
    assert (summary.weak.calls, summary.weak.without_usage, summary.failovers) == (2, 1, 1)
    assert summary.strong_fraction == pytest.approx(1 / 3)
    assert json.loads(json.dumps(summary.to_dict()))["weak"]["calls"] == 2


def test_one_known_number_of_tokens_counts() -> None:
    ledger = SavingsLedger()
    ledger.record("weak", 5, None)
    weak = ledger.summary().weak
    assert (weak.input_tokens, weak.output_tokens, weak.without_usage) == (5, 0, 0)


@given(CALLS)
def test_the_sums_agree_with_a_plain_count(calls: list[tuple[Any, int, int]]) -> None:
    ledger = SavingsLedger(PRICES)
    for side, read, written in calls:
        ledger.record(side, read, written)
    summary = ledger.summary()
    spent = sum(PRICES[side].cost(read, written) for side, read, written in calls)
    always = sum(PRICES["strong"].cost(read, written) for _, read, written in calls)
    assert summary.cost == pytest.approx(spent)
    assert summary.cost_always_strong == pytest.approx(always)
    assert summary.saved == pytest.approx(always - spent)
    assert summary.saved >= -1e-12  # type: ignore[operator]  # the weak model is the cheaper one here


def test_a_weak_model_that_costs_more_shows_a_loss() -> None:
    ledger = SavingsLedger({"strong": Price(1, 1), "weak": Price(2, 2)})
    ledger.record("weak", 1_000_000, 0)
    assert ledger.summary().saved == -1


def test_the_table_lines_up() -> None:
    ledger = SavingsLedger(PRICES)
    ledger.record("strong", 1_000_000, 10)
    ledger.record("weak", 7, 8, failover=True)
    lines = ledger.summary().table().splitlines()
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[0].split() == ["side", "calls", "input", "tokens", "output", "tokens", "cost"]
    assert lines[1].split() == ["strong", "1", "1000000", "10", "10.0003"]
    assert lines[3] == "strong share 50.0%, failovers 1"
    assert lines[4].startswith("always strong 10.0")
    plain = SavingsLedger()
    plain.record("weak", 1, 1)
    assert plain.summary().table().splitlines()[2].split() == ["weak", "1", "1", "1", "-"]


def test_a_summary_is_a_snapshot() -> None:
    ledger = SavingsLedger()
    before = ledger.summary()
    ledger.record("weak", 1, 1)
    assert before.weak.calls == 0


def test_threads_lose_nothing() -> None:
    ledger = SavingsLedger(PRICES)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: ledger.record("strong" if i % 4 == 0 else "weak", 1, 2), range(4000)))
    summary = ledger.summary()
    assert (summary.strong.calls, summary.weak.calls) == (1000, 3000)
    assert (summary.strong.input_tokens, summary.weak.output_tokens) == (1000, 6000)


BY_NAME = {"opus": Price(10.0, 50.0), "sonnet": Price(3.0, 15.0), "haiku": Price(1.0, 5.0)}


def test_each_model_counts_by_its_name_and_price() -> None:
    ledger = SavingsLedger(BY_NAME)
    ledger.record("strong", 1_000_000, 0, model="opus", is_top=True)
    ledger.record("weak", 1_000_000, 0, model="sonnet", is_top=False)
    ledger.record("weak", 2_000_000, 0, model="haiku", is_top=False)
    summary = ledger.summary()
    assert {name: (usage.calls, usage.cost) for name, usage in summary.models.items()} == {
        "opus": (1, 10),
        "sonnet": (1, 3),
        "haiku": (1, 2),
    }
    assert (summary.strong.cost, summary.weak.cost, summary.cost) == (10, 5, 15)
    assert (summary.cost_always_strong, summary.saved, summary.estimated) == (40, 25, True)
    assert "  sonnet" in summary.table()
    assert json.loads(json.dumps(summary.to_dict()))["models"]["haiku"]["input_tokens"] == 2_000_000


def test_always_strong_is_the_top_model_and_not_the_strong_side_of_nested_ones() -> None:
    ledger = SavingsLedger(BY_NAME)
    ledger.record("strong", 1_000_000, 0, model="sonnet", is_top=False)
    ledger.record("weak", 1_000_000, 0, model="haiku", is_top=False)
    # the top model has not answered yet: the most expensive one that is priced
    assert ledger.summary().cost_always_strong == 20
    ledger.record("strong", 1_000_000, 0, model="opus", is_top=True)
    assert ledger.summary().cost_always_strong == 30


def test_a_version_that_a_provider_appends_is_of_the_same_price() -> None:
    ledger = SavingsLedger(BY_NAME)
    ledger.record("weak", 1_000_000, 0, model="haiku-20260101")
    assert ledger.summary().weak.cost == 1


def test_a_model_without_a_price_leaves_the_cost_unknown() -> None:
    ledger = SavingsLedger(BY_NAME)
    ledger.record("weak", 1_000_000, 0, model="haiku")
    ledger.record("strong", 1_000_000, 0, model="another")
    summary = ledger.summary()
    assert (summary.cost, summary.saved, summary.models["haiku"].cost) == (None, None, 1)
