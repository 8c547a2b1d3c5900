"""A share of strong calls that misses says so once, with the remedy; one that is off by chance says nothing."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core import Calibration, ConfigurationError, Price, RoutingPolicy
from routellm_core.policy.savings import SavingsLedger
from routellm_core.policy.share import missed_share
from tests.support.routers import ScriptedRouter

UNIFORM = Calibration.from_win_rates((np.arange(1000) + 0.5) / 1000)


def policy_of(rate: float, **options: object) -> RoutingPolicy:
    router = ScriptedRouter(rate)
    options = {"strong_fraction": 0.3, "calibration": UNIFORM, **options}
    return RoutingPolicy(router, **options)  # type: ignore[arg-type]


@given(st.floats(0.0, 1.0), st.integers(1, 5000), st.floats(0.0, 1.0))
def test_only_a_clear_miss_is_one(wanted: float, count: int, share: float) -> None:
    strong = round(share * count)
    missed = missed_share(wanted, strong, count)
    off = abs(strong / count - wanted)
    if count < 50 or off <= 0.1 or off <= 4 * math.sqrt(wanted * (1 - wanted) / count):
        assert missed is None
    else:
        assert missed is not None
        assert "routellm calibrate" in missed
        assert "online=True" in missed


@pytest.mark.parametrize("batched", [False, True])
def test_a_running_policy_warns_once(batched: bool, caplog: pytest.LogCaptureFixture) -> None:
    policy = policy_of(0.99)
    prompts = [f"prompt {i}" for i in range(1200)]
    with caplog.at_level(logging.WARNING, logger="routellm_core.policy.share"):
        if batched:
            policy.decide_batch(prompts)
        else:
            for prompt in prompts:
                policy.decide(prompt)
    (record,) = caplog.records
    assert "100% of 100 calls were strong, but 30% are wanted" in record.getMessage()
    assert "prompt 1" not in record.getMessage()


@pytest.mark.parametrize("options", [{"strong_fraction": None, "threshold": 0.5}, {"online": True}])
def test_without_a_wanted_share_or_with_one_that_is_followed_nothing_is_said(
    options: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(0.99, **options)
    policy.decide_batch([f"prompt {i}" for i in range(400)])
    assert not caplog.records


def test_calls_with_a_threshold_of_their_own_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    policy_of(0.99).decide_batch([f"prompt {i}" for i in range(400)], threshold=0.1)
    assert not caplog.records


def test_the_savings_name_the_remedy_and_what_is_estimated() -> None:
    ledger = SavingsLedger({"strong": Price(10, 10), "weak": Price(1, 1)}, strong_fraction=0.3)
    for i in range(100):
        ledger.record("strong" if i < 90 else "weak", 100, 100)
    table = ledger.summary().table()
    assert "90% of 100 calls were strong, but 30% are wanted" in table
    assert "routellm calibrate" in table
    assert "estimated: the strong model's answers to the weak calls may be longer or shorter" in table
    strong_only = SavingsLedger({"strong": Price(10, 10), "weak": Price(1, 1)})
    strong_only.record("strong", 100, 100)
    assert not strong_only.summary().estimated
    assert "estimated" not in strong_only.summary().table()
    with pytest.raises(ConfigurationError, match="strong_fraction"):
        SavingsLedger(strong_fraction=3)
