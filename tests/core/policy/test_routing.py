"""Routing: the options of a model, checked, and the order in which they settle a call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_type_hints

import pytest

from routellm_core import (
    ConfigurationError,
    PromptError,
    RoutingPolicy,
    RoutingRequest,
    ShareLimit,
    SpendLimit,
    Stickiness,
    TrafficLog,
)
from routellm_core.policy.cooldown import Cooldown
from routellm_core.policy.options import DecisionOptions, PolicyOptions, RoutingOptions
from routellm_core.policy.policy import POLICY_DEFAULTS
from routellm_core.policy.routing import (
    DECISION_OPTIONS,
    OPTION_DEFAULTS,
    ROUTING_OPTIONS,
    CallSettings,
    Decided,
    Routing,
)
from routellm_core.policy.shadow import Shadow
from tests.support.routers import ScriptedRouter


def routing(**options: Any) -> Routing:
    return Routing.of({"router": ScriptedRouter(), "threshold": 0.5, **options}, owner="Model")


def never() -> Any:
    raise AssertionError("asked for nothing")


def nothing() -> None:
    return None


def test_every_option_is_described_once_and_has_a_default() -> None:
    assert set(get_type_hints(PolicyOptions)) == {"policy", *POLICY_DEFAULTS}
    assert set(get_type_hints(RoutingOptions)) == set(OPTION_DEFAULTS) == ROUTING_OPTIONS
    assert set(get_type_hints(DecisionOptions)) == DECISION_OPTIONS < ROUTING_OPTIONS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 5}, "budget=: Model has no such option"),
        ({"fail_over": True}, "did you mean failover="),
        ({"deadlines": 1}, "did you mean deadline="),
        ({"failover": 1}, "failover=1: expected True or False"),
        ({"lookback": 0}, "lookback=0: expected a number of human turns"),
        ({"lookback": True}, "lookback=True"),
        ({"route_on": 5}, "route_on=5: expected a function"),
        ({"route_on": "question"}, "route_on='question': expected a function"),
        ({"sticky": 5}, "sticky=5"),
        ({"weak_profile": {"images": True}}, "image_inputs"),
        ({"weak_profile": {"image_inputs": "yes"}}, "image_inputs"),
        ({"weak_profile": {"max_input_tokens": -1}}, "max_input_tokens"),
        ({"weak_profile": []}, r"weak_profile=\[\]"),
        ({"deadline": -1}, "deadline=-1"),
        ({"on_error": "ask"}, "on_error='ask'"),
        ({"cache_size": -1}, "cache_size=-1"),
        ({"online": 1}, "online=1"),
        ({"strong_fraction": 0.3}, "both given"),
    ],
)
def test_an_option_that_is_wrong_or_does_not_exist_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        routing(**options)


def test_a_class_refuses_the_options_that_it_does_not_have() -> None:
    with pytest.raises(ConfigurationError, match="failover=: Selector has no such option"):
        Routing.of({"threshold": 0.5, "failover": True}, owner="Selector", known=DECISION_OPTIONS)


def test_options_at_their_defaults_count_as_absent() -> None:
    policy = RoutingPolicy(ScriptedRouter(), threshold=0.5)
    rebuilt = Routing.of({**OPTION_DEFAULTS, "policy": policy}, owner="Model")
    assert rebuilt.policy is policy
    with pytest.raises(ConfigurationError, match="policy= and deadline="):
        Routing.of({"policy": policy, "deadline": 1.0}, owner="Model")


def test_the_policys_own_options_reach_it() -> None:
    made = routing(deadline=2, on_error="weak", cache_size=7).policy
    assert (made.deadline, made.on_error, made.cache_size) == (2, "weak", 7)


def test_a_key_as_route_on_where_inputs_are_dicts() -> None:
    options = {"router": ScriptedRouter(), "threshold": 0.5, "route_on": "question"}
    assert Routing.of(options, owner="Model", key_allowed=True).route_on == "question"
    with pytest.raises(ConfigurationError, match="the key of a dict input"):
        Routing.of({**options, "route_on": ""}, owner="Model", key_allowed=True)


def test_force_then_capability_then_the_conversation_then_the_texts() -> None:
    sticky = Stickiness(release_after=None)
    r = routing(sticky=sticky)
    forced = r.request(CallSettings(0.2, "weak", "c"), gap=never, texts=never)
    assert (forced.force, forced.reason, forced.threshold) == ("weak", "forced", 0.2)
    lacking = r.request(CallSettings(conversation="c"), gap=lambda: "image_inputs", texts=never)
    assert (lacking.force, lacking.reason, lacking.detail) == ("strong", "capability", "image_inputs")
    assert not sticky.held("c")
    asked = r.request(CallSettings(conversation="c"), gap=nothing, texts=lambda: "p=0.9")
    assert asked.prompts == ("p=0.9",)
    assert r.decide(asked, CallSettings(conversation="c")).model == "strong"
    held = r.request(CallSettings(conversation="c"), gap=nothing, texts=never)
    assert (held.force, held.reason) == ("strong", "sticky")


@pytest.mark.parametrize("found", ["a", ["a", "b"], ("a",), RoutingRequest(("a",), 0.9)])
async def test_what_may_be_routed_on(found: Any) -> None:
    r = routing()
    request = r.request(CallSettings(0.25), gap=nothing, texts=lambda: found)
    assert request.threshold == 0.25
    assert r.decide(request, CallSettings()) == await r.adecide(request, CallSettings())


@pytest.mark.parametrize("found", [None, [], (), ["a", 5], 5, b"a"])
def test_what_is_no_text_is_refused_by_its_type_alone(found: Any) -> None:
    with pytest.raises(PromptError, match="route_on returned"):
        routing().request(CallSettings(), gap=nothing, texts=lambda: found)


def test_settings_are_checked_by_the_names_that_callers_use() -> None:
    r = routing(sticky="chat", limits=[ShareLimit("user_id", strong_fraction=0.3)])
    given = {"routellm_threshold": 1, "routellm_force": "strong", "chat": 42, "user_id": 7, "thread_id": "x"}
    assert r.settings(given) == CallSettings(1.0, "strong", "42", {"user_id": "7"})
    assert r.settings({}) == CallSettings()
    with pytest.raises(ConfigurationError, match="routellm_threshold=2"):
        r.settings({"routellm_threshold": 2})
    with pytest.raises(ConfigurationError, match="routellm_force='big'"):
        r.settings({"routellm_force": "big"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [("routellm_forc", "routellm_force"), ("routellm_forced", "routellm_force"), ("routellm_treshold", "routellm_thr")],
)
def test_a_misspelt_setting_of_a_call_is_refused(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is set .* did you mean {meant}"):
        routing().settings({name: "strong"})


def test_names_that_are_no_settings_are_left_alone() -> None:
    r = routing(limits=[ShareLimit("routellm_forced", strong_fraction=0.3)])
    assert r.settings({"routellm_team": "a", "routellm_forced": "b", "force": "c"}).keys == {"routellm_forced": "b"}


@pytest.mark.parametrize("given", [{"routellm_threshold": 0.1}, {"routellm_force": "weak"}])
def test_overrides_are_refused_where_clients_could_set_them(given: dict[str, Any]) -> None:
    r = routing(allow_overrides=False)
    with pytest.raises(ConfigurationError, match="allow_overrides=False"):
        r.settings(given)
    assert r.settings({"thread_id": "x"}).force is None


@pytest.mark.parametrize("found", ["", " \n", ["", "\t"]])
def test_no_text_is_not_an_easy_prompt(found: Any) -> None:
    r = routing()
    decision = r.decide(r.request(CallSettings(), gap=nothing, texts=lambda: found), CallSettings())
    assert (decision.model, decision.reason, decision.win_rate) == ("strong", "no_text", None)


def test_the_users_profile_of_the_weak_model_comes_before_its_own() -> None:
    r = routing(weak_profile={"image_inputs": True, "max_input_tokens": 10})
    assert r.gap(["image_inputs"], {"image_inputs": False}, {}) is None
    assert r.gap([], {"max_input_tokens": 1000}, {"max_input_tokens": 1000}, lambda: 50) == "max_input_tokens"
    assert routing().gap(["image_inputs"], {"image_inputs": False}, None) == "image_inputs"


def test_what_is_observed_without_a_log_is_said_to_be_recorded_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    routing(observe="strong")
    (record,) = caplog.records
    assert "Model: observe='strong' without log=" in record.getMessage()


@pytest.mark.parametrize(
    ("made", "option", "nearest"),
    [
        (partial(RoutingPolicy, strong_fraction=0.3), "treshold", "threshold"),
        (partial(TrafficLog, "sqlite:///never.db"), "text", "texts"),
        (partial(Shadow, 0.1), "max_pair", "max_pairs"),
        (partial(SpendLimit, 1.0), "price", "prices"),
        (partial(ShareLimit, "user_id", strong_fraction=0.5), "windows", "window"),
        (Cooldown, "second", "seconds"),
        (Stickiness, "release_afer", "release_after"),
    ],
)
def test_an_option_that_does_not_exist_is_named_with_the_nearest_one(
    made: Callable[..., Any], option: str, nearest: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"{option}=: \w+ has no such option; did you mean {nearest}=\?"):
        made(**{option: 1})


@pytest.mark.parametrize("asked", ["a text", RoutingRequest(("a text",), threshold=0.5)])
def test_what_was_asked_is_a_request_whatever_form_it_was_asked_in(asked: str | RoutingRequest) -> None:
    decision = RoutingPolicy(ScriptedRouter(), threshold=0.5).decide("p=0.7")
    request = Decided(decision, asked, CallSettings()).request
    assert request.prompts == ("a text",)
    assert request.threshold == (None if isinstance(asked, str) else 0.5)
