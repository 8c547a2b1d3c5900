"""Exploration, observation and replacing what decides."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from routellm_core import Calibration, ConfigurationError, RoutingPolicy, RoutingRequest
from tests.support.routers import ScriptedRouter


def prompts(count: int, seed: int = 0) -> list[str]:
    """Prompts with uniform win rates, as the scripted router's calibration has them."""
    return [f"p={rate:.6f} {i}" for i, rate in enumerate(np.random.default_rng(seed).random(count))]


@pytest.mark.slow
@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize(("explore", "band"), [(0.05, None), (0.1, None), (0.3, (0.6, 0.8)), (0.5, (0.1, 0.2))])
def test_the_share_stays_as_wanted(online: bool, explore: float, band: Any) -> None:
    policy = RoutingPolicy(
        ScriptedRouter(), strong_fraction=0.3, online=online, explore=explore, explore_band=band, cache_size=0
    )
    decisions = policy.decide_batch(prompts(50_000))
    assert np.mean([d.model == "strong" for d in decisions]) == pytest.approx(0.3, abs=0.006)
    # the probabilities that were written down are those that held, in each bin of them: within six standard errors,
    # for the ids of decisions draw the coins anew in each run
    p = np.array([d.p_strong for d in decisions])
    strong = np.array([d.model == "strong" for d in decisions])
    for value in np.unique(p):
        same = p == value
        error = max(1e-9, float(np.sqrt(value * (1 - value) / same.sum())))
        assert abs(strong[same].mean() - value) <= 6 * error
    inside = np.array([band is None or band[0] <= (d.win_rate or 0.0) <= band[1] for d in decisions])
    explored = np.array([d.reason == "explored" for d in decisions])
    error = float(np.sqrt(explore * (1 - explore) / inside.sum()))
    assert explored[inside].mean() == pytest.approx(explore, abs=6 * error)
    assert not explored[~inside].any()
    assert set(p[~inside]) <= {0.0, 1.0}


def test_what_is_settled_is_not_explored() -> None:
    policy = RoutingPolicy(ScriptedRouter(), threshold=0.5, explore=1.0)
    requests = [RoutingRequest((), force="weak", reason="capability")] * 50
    assert {(d.model, d.reason, d.p_strong) for d in policy.decide_batch(requests)} == {("weak", "capability", 0.0)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"explore": 1.5}, "explore=1.5"),
        ({"explore": 0.1, "explore_band": (0.8, 0.2)}, r"explore_band=\(0.8, 0.2\)"),
        ({"explore": 0.1, "explore_band": 0.2}, "explore_band=0.2"),
        ({"explore_band": (0.2, 0.8)}, "give explore= too"),
        ({"observe": "both"}, "observe='both'"),
        ({"limits": 5}, "limits=5"),
    ],
)
def test_what_is_wrong_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RoutingPolicy(ScriptedRouter(), threshold=0.5, **options)


def test_a_share_that_the_coin_alone_exceeds_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the coin alone"):
        RoutingPolicy(ScriptedRouter(), strong_fraction=0.1, explore=0.5)


@pytest.mark.parametrize("side", ["strong", "weak"])
def test_observing_records_what_would_have_been_decided(side: Any) -> None:
    policy = RoutingPolicy(ScriptedRouter(), strong_fraction=0.3, observe=side, online=True, explore=0.2)
    decisions = policy.decide_batch(prompts(300))
    assert {(d.model, d.reason, d.p_strong) for d in decisions} == {(side, "observed", float(side == "strong"))}
    would = np.mean([d.win_rate >= d.threshold for d in decisions])  # type: ignore[operator]
    assert 0.2 < would < 0.4
    assert policy.decide("x", force="weak").model == "weak"


def test_a_failing_router_does_not_change_who_is_observed() -> None:
    policy = RoutingPolicy(ScriptedRouter(error=ValueError()), threshold=0.5, observe="weak")
    assert policy.decide("x").model == "weak"


def test_replacing_changes_router_calibration_and_threshold_at_one_moment() -> None:
    first, second = ScriptedRouter(0.5), ScriptedRouter(0.9)
    second.calibration = Calibration.from_win_rates(np.linspace(0.8, 1.0, 101))
    policy = RoutingPolicy(first, strong_fraction=0.5, online=True)
    policy.decide("a")
    online = policy.online
    policy.replace(router=second)
    assert policy.router is second
    assert policy.calibration is second.calibration
    assert policy.threshold == pytest.approx(0.9, abs=0.01)
    assert policy.online is not None
    assert policy.online is not online
    assert policy.decide("a").win_rate == 0.9
    policy.replace(threshold=0.95)
    assert (policy.threshold, policy.strong_fraction, policy.online) == (0.95, None, None)  # type: ignore[comparison-overlap]
    assert policy.decide("a").model == "weak"
    with pytest.raises(ConfigurationError, match="cannot be compared"):
        policy.replace(calibration=Calibration.from_win_rates([0.5], router="x", fingerprint="another"))
    assert policy.threshold == 0.95


def test_calls_end_with_what_they_began_with() -> None:
    """No decision mixes the router of one moment with the threshold of another."""
    routers = [ScriptedRouter(0.25), ScriptedRouter(0.75)]
    policy = RoutingPolicy(routers[0], threshold=0.2)
    stop = threading.Event()
    mixed: list[Any] = []

    def decide() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            decision = policy.decide(f"{step}")
            if (decision.win_rate, decision.threshold) not in ((0.25, 0.2), (0.75, 0.7)):
                mixed.append(decision)

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(300):
        policy.replace(router=routers[turn % 2], threshold=(0.2, 0.7)[turn % 2])
    stop.set()
    for thread in threads:
        thread.join()
    assert mixed == []
