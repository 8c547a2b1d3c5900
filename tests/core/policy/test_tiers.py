"""Tiers: shares of all calls at every level, one win rate for all of them, and the decisions of all levels."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core import (
    Calibration,
    ConfigurationError,
    OnlineCalibration,
    RouterError,
    RoutingDecision,
    RoutingPolicy,
)
from routellm_core.policy.capability import IMAGE_INPUTS, MAX_INPUT_TOKENS, TOOL_CALLING
from routellm_core.policy.decision import RoutingRequest
from routellm_core.policy.routing import CallSettings, Decided, Routing
from routellm_core.policy.tiers import (
    TierRouting,
    abilities_of_either,
    at_level,
    beneath,
    handed_down,
    tier,
    with_inner,
)
from tests.support.routers import ScriptedRouter

WIN_RATES = (np.arange(1000) + 0.5) / 1000
PROMPTS = [f"p={rate:.4f} question {i}" for i, rate in enumerate(np.random.default_rng(0).permutation(WIN_RATES))]


class OtherRouter(ScriptedRouter):
    """Another router: its win rates have nothing to do with those of `ScriptedRouter`."""

    name = "other"

    def _win_rates(self, prompts: list[str]) -> Any:
        self.calls.append(list(prompts))
        return np.array([(hash_of(prompt) % 1000 + 0.5) / 1000 for prompt in prompts])


class StoreRouter(ScriptedRouter):
    """Its fingerprint asks a store over the network, which may be down."""

    down = False

    @property
    def fingerprint(self) -> str:
        if self.down:
            raise RouterError("the store is down")
        return super().fingerprint


def hash_of(prompt: str) -> int:
    return int.from_bytes(prompt.encode()[-3:], "big") * 2654435761 % 2**32 >> 8


def routing(router: Any, **options: Any) -> Routing:
    return Routing.of({"router": router, **options}, owner="test")


def decide_all(prompts: list[str], levels: dict[Any, Any], at: Routing) -> list[tuple[str, ...]]:
    """The paths of prompts through levels, as an adapter walks them: a batch at each level, then at its sides."""
    settings = CallSettings()
    requests = [at.request(settings, gap=lambda: None, texts=lambda p=p: p) for p in prompts]  # type: ignore[misc]
    decisions = at.policy.decide_batch(requests)
    paths: list[tuple[str, ...]] = [(decision.model,) for decision in decisions]
    decided = [Decided(d, r, settings) for d, r in zip(decisions, requests, strict=True)]
    for side, (inner, below) in levels.items():
        mine = [i for i, decision in enumerate(decisions) if decision.model == side]
        if mine:
            with handed_down(at, [decided[i] for i in mine]):
                found = decide_all([prompts[i] for i in mine], below, tier(at, side, inner))
            for i, path in zip(mine, found, strict=True):
                paths[i] = (side, *path)
    return paths


def shares(prompts: list[str], levels: dict[Any, Any], at: Routing) -> dict[tuple[str, ...], float]:
    paths = decide_all(prompts, levels, at)
    return {path: paths.count(path) / len(paths) for path in sorted(set(paths))}


def test_shares_are_those_of_all_calls_and_the_router_is_asked_once():
    router = ScriptedRouter()
    inner = routing(router, strong_fraction=0.3, cache_size=0)
    found = shares(PROMPTS, {"weak": (inner, {})}, routing(router, strong_fraction=0.1, cache_size=0))
    assert found == {("strong",): 0.1, ("weak", "strong"): 0.3, ("weak", "weak"): 0.6}
    assert [len(call) for call in router.calls] == [1000]


def test_a_model_on_the_strong_side_takes_its_share_from_that_of_the_outer_one():
    router = ScriptedRouter()
    inner = routing(router, strong_fraction=0.1)
    found = shares(PROMPTS, {"strong": (inner, {})}, routing(router, strong_fraction=0.4))
    assert found == {("strong", "strong"): 0.1, ("strong", "weak"): 0.3, ("weak",): 0.6}


def test_four_models_in_a_row_and_in_a_tree():
    router = ScriptedRouter()
    row = {"weak": (routing(router, strong_fraction=0.2), {"weak": (routing(router, strong_fraction=0.3), {})})}
    found = shares(PROMPTS, row, routing(router, strong_fraction=0.1))
    assert list(found.values()) == [0.1, 0.2, 0.3, 0.4]
    tree = {
        "strong": (routing(router, strong_fraction=0.1), {}),
        "weak": (routing(router, strong_fraction=0.25), {}),
    }
    found = shares(PROMPTS, tree, routing(router, strong_fraction=0.3))
    assert found == {
        ("strong", "strong"): 0.1,
        ("strong", "weak"): 0.2,
        ("weak", "strong"): 0.25,
        ("weak", "weak"): 0.45,
    }


@given(outer=st.integers(0, 100), inner=st.integers(0, 100), side=st.sampled_from(["strong", "weak"]))
def test_shares_that_can_hold_do_and_others_are_refused(outer: int, inner: int, side: Any):
    router = ScriptedRouter()
    above, below = routing(router, strong_fraction=outer / 100), routing(router, strong_fraction=inner / 100)
    available = outer if side == "strong" else 100 - outer
    if inner > available:
        with pytest.raises(ConfigurationError, match=f"strong_fraction={inner / 100}.*strong_fraction={outer / 100}"):
            tier(above, side, below)
        return
    found = shares(PROMPTS, {side: (below, {})}, above)
    assert found.get((side, "strong"), 0.0) == pytest.approx(inner / 100, abs=0.002)
    assert found.get((side, "weak"), 0.0) == pytest.approx((available - inner) / 100, abs=0.002)


def test_an_impossible_sum_is_refused_three_levels_deep():
    router = ScriptedRouter()
    middle = tier(routing(router, strong_fraction=0.5), "weak", routing(router, strong_fraction=0.3))
    tier(middle, "weak", routing(router, strong_fraction=0.2))
    with pytest.raises(ConfigurationError, match=r"only 0\.2 of all calls are left"):
        tier(middle, "weak", routing(router, strong_fraction=0.21))


def test_the_models_own_policy_stays_as_it_is():
    router = ScriptedRouter()
    inner = routing(router, strong_fraction=0.3)
    level = tier(routing(router, strong_fraction=0.1), "weak", inner)
    assert (inner.policy.threshold, level.policy.threshold) == pytest.approx((0.7, 0.6))
    assert level.policy.strong_fraction == 0.3
    assert inner.policy.decide("p=0.65 x").model == "weak"
    assert level.policy.decide("p=0.65 x").model == "strong"


def test_thresholds_that_are_given_stay_what_they_are():
    router = ScriptedRouter()
    assert tier(routing(router, strong_fraction=0.1), "weak", routing(router, threshold=0.45)).policy.threshold == 0.45
    # the share that the outer threshold means, by the calibration: 20 % of all calls
    level = tier(routing(router, threshold=0.8), "weak", routing(router, strong_fraction=0.3))
    assert level.policy.threshold == pytest.approx(0.5)
    # more than is left: all of it
    assert tier(routing(router, threshold=0.2), "weak", routing(router, strong_fraction=0.3)).policy.threshold == 0.0


def test_tied_win_rates_go_together():
    calibration = Calibration.from_win_rates(np.repeat([0.2, 0.5, 0.8], [500, 300, 200]))
    tied = [f"p={rate} question {i}" for i, rate in enumerate(np.repeat([0.2, 0.5, 0.8], [500, 300, 200]))]
    router = ScriptedRouter()
    router.calibration = calibration
    found = shares(tied, {"weak": (routing(router, strong_fraction=0.3), {})}, routing(router, strong_fraction=0.2))
    assert found == {("strong",): 0.2, ("weak", "strong"): 0.3, ("weak", "weak"): 0.5}


def test_different_routers_count_as_independent_and_a_warning_says_so(caplog):
    router, other = ScriptedRouter(), OtherRouter()
    levels = {"weak": (routing(other, strong_fraction=0.3), {})}
    with caplog.at_level(logging.WARNING):
        found = shares(PROMPTS, levels, routing(router, strong_fraction=0.1))
    assert found[("weak", "strong")] == pytest.approx(0.3, abs=0.05)
    assert "'scripted' and 'other'" in caplog.text
    assert [len(call) for call in other.calls] == [900]


def test_a_share_of_which_nothing_is_known_is_that_of_the_calls_that_get_there(caplog):
    router = ScriptedRouter()
    router.calibration = None
    with caplog.at_level(logging.WARNING):
        level = tier(routing(router, threshold=0.5), "weak", routing(OtherRouter(), strong_fraction=0.3))
    assert level.policy.threshold == pytest.approx(0.7)
    assert "not of all calls" in caplog.text


@pytest.mark.parametrize("inner_router", [ScriptedRouter, OtherRouter])
def test_online_shares_hold_while_traffic_changes(inner_router: Any, caplog):
    router = ScriptedRouter()
    other = router if inner_router is ScriptedRouter else inner_router()
    above = routing(router, strong_fraction=0.1, online=True)
    inner = routing(other, strong_fraction=0.3, online=True)
    # everything is twice as easy as in the calibration
    rates = np.random.default_rng(1).random(6000) / 2
    prompts = [f"p={rate:.6f} question {i}" for i, rate in enumerate(rates)]
    with caplog.at_level(logging.WARNING):
        found = shares(prompts, {"weak": (inner, {})}, above)
    assert found[("strong",)] == pytest.approx(0.1, abs=0.01)
    assert found[("weak", "strong")] == pytest.approx(0.3, abs=0.02)
    assert not caplog.text
    assert inner.policy.online is not None
    assert inner.policy.online.observed == 0  # used by itself it has seen nothing


def test_copies_of_a_model_share_an_online_calibration_and_its_window():
    router = ScriptedRouter()
    above = routing(router, strong_fraction=0.1)
    online = OnlineCalibration(router.calibration, 0.3, window=500)  # type: ignore[arg-type]
    inner = routing(router, strong_fraction=0.3, online=online)
    first, second = (tier(above, "weak", inner).policy.online for _ in range(2))
    assert first is second
    assert first is not online
    assert (first.window, online.window) == (500, 500)  # type: ignore[union-attr]


def test_explored_shares_are_those_of_all_calls():
    router = ScriptedRouter()
    prompts = [f"p={rate:.6f} question {i}" for i, rate in enumerate(np.random.default_rng(2).random(20_000))]
    above = routing(router, strong_fraction=0.2, explore=0.2)
    found = shares(prompts, {"weak": (routing(router, strong_fraction=0.3, explore=0.1), {})}, above)
    # ids of decisions draw the coins: an interval that cannot miss
    assert found[("strong",)] == pytest.approx(0.2, abs=0.03)
    assert found[("weak", "strong")] == pytest.approx(0.3, abs=0.03)


def test_a_policy_that_is_replaced_takes_effect_at_the_level_below(caplog):
    router = ScriptedRouter()
    above, inner = routing(router, strong_fraction=0.1), routing(router, strong_fraction=0.3)
    level = tier(above, "weak", inner)
    above.policy.replace(strong_fraction=0.2)
    assert level.policy.decide("p=0.1").threshold == pytest.approx(0.5)
    inner.policy.replace(strong_fraction=0.1)
    assert level.policy.decide("p=0.1").threshold == pytest.approx(0.7)
    above.policy.replace(strong_fraction=0.95)
    with caplog.at_level(logging.WARNING):
        assert level.policy.decide("p=0.1").threshold == inner.policy.threshold
    assert "lower one of them" in caplog.text


def test_a_level_is_pickled_with_the_models_around_it():
    router = ScriptedRouter()
    level = tier(routing(router, strong_fraction=0.1), "weak", routing(router, strong_fraction=0.3))
    copy = pickle.loads(pickle.dumps(level))
    assert copy.policy.threshold == level.policy.threshold
    assert copy.policy.decide("p=0.65").model == "strong"


# --- what is handed down ---


def handed(above: Routing, level: Routing, decision: RoutingDecision, texts: Any, settings: Any = None) -> Any:
    asked = RoutingRequest((texts,) if isinstance(texts, str) else tuple(texts))
    with handed_down(above, [Decided(decision, asked, settings or CallSettings())]):
        own = level.settings({})
        request = level.request(own, gap=lambda: None, texts=lambda: texts)
        return request, own, level.decide(request, own)


@pytest.fixture
def two() -> tuple[ScriptedRouter, Routing, TierRouting]:
    router = ScriptedRouter()
    above = routing(router, strong_fraction=0.1, cache_size=0)
    return router, above, tier(above, "weak", routing(router, strong_fraction=0.3, cache_size=0))


def test_the_win_rate_of_the_same_texts_is_handed_down(two):
    router, above, level = two
    decision = above.policy.decide("p=0.65 x")
    router.calls.clear()
    assert handed(above, level, decision, "p=0.65 x")[2].win_rate == 0.65
    assert router.calls == []
    with handed_down(above, [Decided(decision, RoutingRequest(("p=0.65 x",)), CallSettings())]):
        other = level.request(CallSettings(), gap=lambda: None, texts=lambda: "p=0.2 y")
    assert level.policy.decide(other).win_rate == 0.2  # another text is scored
    assert router.calls == [["p=0.2 y"]]


@pytest.mark.parametrize("same_object", [True, False])
def test_calls_never_read_the_fingerprint_of_a_router(same_object: bool):
    router = StoreRouter()
    other = router if same_object else StoreRouter()
    above = routing(router, strong_fraction=0.1)
    inner = routing(other, strong_fraction=0.3), routing(other, threshold=0.6)
    levels = [tier(above, "weak", each) for each in inner]
    router.down = other.down = True
    for level in levels:
        assert handed(above, level, above.policy.decide("p=0.65 x"), "p=0.65 x")[2].model == "strong"
    assert router.prompts == ["p=0.65 x"]
    assert other is router or other.prompts == []
    # another threshold above, without a check of its calibration, which reads the fingerprint
    above.policy._serving = above.policy._serving._replace(threshold=0.8)
    assert levels[0].policy.decide("p=0.65 x").threshold < 0.6


def test_a_win_rate_is_not_handed_to_a_level_whose_router_was_replaced():
    router, other = ScriptedRouter(), OtherRouter()
    above, inner = routing(router, strong_fraction=0.1), routing(router, threshold=0.3)
    level = tier(above, "weak", inner)
    decision = above.policy.decide("p=0.65 x")
    inner.policy.replace(router=other)
    assert handed(above, level, decision, "p=0.65 x")[2].router == "other"
    assert other.prompts == ["p=0.65 x"]


def test_the_hardest_of_several_texts_is_not_the_win_rate_of_one(two):
    _, above, level = two
    texts = ("p=0.2 x", "p=0.7 y")
    decision = above.policy.decide(RoutingRequest(texts))
    with handed_down(above, [Decided(decision, RoutingRequest(texts), CallSettings())]):
        assert level.request(CallSettings(), gap=lambda: None, texts=lambda: texts).win_rate == 0.7
        assert level.request(CallSettings(), gap=lambda: None, texts=lambda: "p=0.2 x").win_rate is None


@pytest.mark.parametrize("on_error", ["strong", "weak"])
def test_a_router_that_failed_above_is_not_asked_again(on_error: Any):
    router = ScriptedRouter(error=ValueError("down"))
    above = routing(router, strong_fraction=0.1, on_error="weak")
    level = tier(above, "weak", routing(router, strong_fraction=0.3, on_error=on_error))
    decision = above.policy.decide("x")
    asked = len(router.calls)
    found = handed(above, level, decision, "x")[2]
    assert (found.model, found.reason, found.error, found.detail) == (on_error, "error", "ValueError", None)
    assert len(router.calls) == asked


def test_settings_are_handed_down_except_for_a_threshold(two):
    _, above, level = two
    settings = CallSettings(threshold=0.9, force="weak", conversation="c", keys={"user_id": "42"})
    decision = above.policy.decide("x", force="weak")
    _, own, found = handed(above, level, decision, "x", settings)
    assert own == CallSettings(None, "weak", "c", {"user_id": "42"})
    assert (found.model, found.reason) == ("weak", "forced")
    assert level.settings({"routellm_threshold": 0.9}).threshold is None


def test_calls_in_tasks_and_after_a_call_know_nothing_of_each_other(two):
    _, above, level = two

    async def ask(rate: float) -> float | None:
        text = f"p={rate} x"
        decision = await above.policy.adecide(text)
        with handed_down(above, [Decided(decision, RoutingRequest((text,)), CallSettings())]):
            await asyncio.sleep(0)
            return level.request(CallSettings(), gap=lambda: None, texts=lambda: text).win_rate

    async def both() -> list[float | None]:
        return list(await asyncio.gather(ask(0.2), ask(0.3)))

    assert asyncio.run(both()) == [0.2, 0.3]
    assert level.request(CallSettings(), gap=lambda: None, texts=lambda: "p=0.2 x").win_rate is None


def test_a_known_win_rate_needs_no_router():
    router = ScriptedRouter()
    policy = RoutingPolicy(router, threshold=0.5)
    assert policy.decide(RoutingRequest(("anything",), win_rate=0.7)).model == "strong"
    assert [d.model for d in policy.decide_batch([RoutingRequest((), win_rate=0.2), "p=0.9 x"])] == ["weak", "strong"]
    assert router.calls == [["p=0.9 x"]]
    with pytest.raises(ConfigurationError, match=r"win_rate=1\.5"):
        policy.decide(RoutingRequest(("x",), win_rate=1.5))


# --- the log ---


class Log:
    def recording(self, *args: Any, **kwargs: Any) -> Any:
        return args


def test_a_call_stands_once_in_a_log_that_levels_share(caplog):
    router = ScriptedRouter()
    shared, own = Log(), Log()
    above = routing(router, strong_fraction=0.1, log=shared)
    middle = tier(above, "weak", routing(router, strong_fraction=0.3, log=shared))
    assert middle.log is None
    assert tier(middle, "weak", routing(router, strong_fraction=0.1, log=shared)).log is None
    assert tier(middle, "weak", routing(router, strong_fraction=0.1, log=own)).log is own
    with caplog.at_level(logging.WARNING):
        shadowed = tier(above, "weak", routing(router, strong_fraction=0.2, log=shared, shadow=0.5))
    assert shadowed.shadow is None
    assert "a log of its own" in caplog.text


# --- decisions within decisions ---


def test_decisions_of_all_levels_as_dicts_and_back():
    policy = RoutingPolicy(ScriptedRouter(), threshold=0.5)
    top, middle, low = (policy.decide(f"p={rate}") for rate in (0.2, 0.7, 0.1))
    whole = beneath(with_inner(top, middle.to_dict()).to_dict(), low)
    assert whole.path == ("weak", "strong", "weak")
    assert [decision.id for decision in whole.levels] == [top.id, middle.id, low.id]
    assert RoutingDecision.from_dict(whole.to_dict()) == whole
    assert at_level(whole.to_dict(), 2)["id"] == low.id
    assert at_level(whole.to_dict(), 3) is None
    assert with_inner(top, None) == with_inner(top, "nothing") == top
    assert top.levels == (top,)
    hostile: Any = top.to_dict()
    for _ in range(10_000):
        hostile = {**top.to_dict(), "inner": hostile}
    assert len(RoutingDecision.from_dict(hostile).levels) < 100  # type: ignore[union-attr]
    assert RoutingDecision.from_dict({**top.to_dict(), "inner": {"model": "weak"}}) == top
    assert top.to_dict()["inner"] is None


# --- abilities ---


def test_a_nested_model_can_what_one_of_its_sides_can():
    strong = {IMAGE_INPUTS: True, TOOL_CALLING: False, MAX_INPUT_TOKENS: 1000}
    weak = {IMAGE_INPUTS: False, TOOL_CALLING: False, MAX_INPUT_TOKENS: 100}
    assert abilities_of_either(strong, weak) == {IMAGE_INPUTS: True, TOOL_CALLING: False, MAX_INPUT_TOKENS: 1000}
    # where one says nothing, only what the other can is known
    assert abilities_of_either(strong, None) == {IMAGE_INPUTS: True}
    assert abilities_of_either(None, weak) == {}
