"""Prices by model and side, and what the answers of one call cost together."""

from __future__ import annotations

from typing import ClassVar

import pytest

from routellm_core import ConfigurationError, Price, RoutingDecision
from routellm_core.policy.route import Route
from routellm_core.policy.routing import CallSettings, Routing
from routellm_core.policy.savings import CallCost, checked_prices, price_of

BIG, SMALL, SIDE = Price(10, 20), Price(1, 2), Price(5, 5)


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-4.1", BIG),
        ("gpt-4.1-2025-04-14", BIG),
        ("gpt-4.1-20250414", BIG),
        ("gpt-4.1-latest", BIG),
        ("openai/gpt-4.1", BIG),
        ("openai/gpt-4.1-2025-04-14", BIG),
        ("models/openai/gpt-4.1-mini-latest", SMALL),
        ("gpt-4.1-mini", SMALL),
        ("gpt-4.1-mini-2025-04-14", SMALL),
        ("gpt-4.1-nano", SIDE),
        ("gpt-4.15", SIDE),
        ("", SIDE),
        (None, SIDE),
    ],
)
def test_a_price_is_that_of_the_model_with_or_without_its_version_else_that_of_the_side(model, price):
    assert price_of({"gpt-4.1": BIG, "gpt-4.1-mini": SMALL, "weak": SIDE}, model, "weak") is price


def test_a_price_with_the_provider_wins_over_one_without():
    prices = {"azure/gpt-4.1": SMALL, "gpt-4.1": BIG}
    assert price_of(prices, "azure/gpt-4.1-2025-04-14", "weak") is SMALL


def test_an_unknown_model_has_no_price_without_one_of_its_side():
    assert price_of({"gpt-4.1": BIG, "strong": BIG}, "other", "weak") is None


def test_pairs_of_numbers_are_prices():
    assert checked_prices({"a": (1, 2), "b": [3, 4], "c": BIG}) == {"a": Price(1, 2), "b": Price(3, 4), "c": BIG}
    assert checked_prices(None) is None


@pytest.mark.parametrize("wrong", [{"a": 1}, {1: BIG}, [("a", BIG)], {"a": (1,)}, "free", {"a": (1, -2)}])
def test_prices_are_checked(wrong):
    with pytest.raises(ConfigurationError):
        checked_prices(wrong)


def test_a_cost_is_known_where_every_answer_s_is():
    cost = CallCost({"weak": SMALL, "strong": BIG})
    assert cost.total is None
    cost.add("weak", None, 100, 10)
    assert cost.total == pytest.approx(0.00012)
    cost.add("strong", "big", 100, None)
    assert cost.total == pytest.approx(0.00112)
    cost.add("strong", None, None, None)
    assert cost.total is None


def test_a_free_model_costs_nothing_which_is_known():
    cost = CallCost({"weak": Price(0, 0)})
    cost.add("weak", None, 100, 10)
    assert cost.total == 0.0


def test_a_route_without_prices_leaves_the_decision_as_it_is():
    decision = RoutingDecision("weak", 0.2, 0.5, "mf")
    assert Route(decision).priced() is decision


def test_the_user_of_a_call_is_read_where_a_log_asks():
    class Log:
        user_key = "account"
        prices = None

        def recording(self, *args, **kwargs):
            raise AssertionError

    logged = Routing.of({"router": "random", "threshold": 0.5, "log": Log()}, owner="Model")
    assert logged.settings({"account": 7}).user == "7"
    assert logged.settings({"user_id": 7}).user is None
    assert Routing.of({"router": "random", "threshold": 0.5}, owner="Model").settings({"user_id": 7}) == CallSettings()


def test_prices_of_the_log_count_where_none_are_given():
    class Log:
        prices: ClassVar = {"weak": SMALL, "strong": BIG}
        recording = None

    assert Routing.of({"router": "random", "threshold": 0.5, "log": Log()}, owner="Model").prices == Log.prices
    given = Routing.of({"router": "random", "threshold": 0.5, "log": Log(), "prices": {"a": (1, 1)}}, owner="Model")
    assert given.prices == {"a": Price(1, 1)}
