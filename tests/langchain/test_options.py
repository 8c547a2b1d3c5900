"""Every routed class takes the same options, by the same names, and refuses the others alike."""

from __future__ import annotations

import copy
import typing
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, RouteLLMRunnable, routing_decision
from routellm_core import ConfigurationError, RoutingPolicy, RoutingRequest
from routellm_core.policy.routing import ROUTING_OPTIONS
from tests.langchain.conftest import Pair
from tests.support.routers import ScriptedRouter

CLASSES = [ChatRouteLLM, RouteLLMRunnable, RouteLLMMiddleware]


def made(cls: Any, pair: Pair, **options: Any) -> Any:
    return cls(strong=pair.strong, weak=pair.weak, **options)


def asked(routed: Any, text: str) -> Any:
    """The decision that a routed object of any class makes on a text."""
    if isinstance(routed, RouteLLMMiddleware):
        agent: Any = create_agent(model=routed._dispatch.weak, tools=[], middleware=[routed])  # type: ignore[call-overload]
        return routing_decision(agent.invoke({"messages": [HumanMessage(text)]})["messages"][-1])
    return routing_decision(routed.invoke(text))


@pytest.mark.parametrize("cls", CLASSES)
def test_policy_is_the_one_in_force(cls: Any, pair: Pair) -> None:
    policy = RoutingPolicy(pair.router, threshold=0.5)
    assert made(cls, pair, policy=policy).policy is policy
    built = made(cls, pair, router=pair.router, threshold=0.25, on_error="weak", deadline=3, cache_size=9).policy
    assert (built.router, built.threshold, built.on_error, built.deadline, built.cache_size) == (
        pair.router,
        0.25,
        "weak",
        3.0,
        9,
    )


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 5}, "budget=: {} has no such option"),
        ({"thresold": 0.5}, "thresold=: {} has no such option; did you mean threshold="),
        ({"deadline": "1"}, "deadline='1'"),
        ({"online": "yes"}, "online='yes'"),
    ],
)
def test_what_is_wrong_is_refused_by_every_class(cls: Any, pair: Pair, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words.format(cls.__name__)):
        made(cls, pair, **{"threshold": 0.5, "router": pair.router, **options})


@pytest.mark.parametrize("cls", CLASSES)
def test_a_failing_router_follows_on_error_everywhere(cls: Any, pair: Pair) -> None:
    broken = ScriptedRouter(error=RuntimeError("broken"))
    decision = asked(made(cls, pair, router=broken, threshold=0.5, on_error="weak"), "hi")
    assert (decision.model, decision.reason) == ("weak", "error")


@pytest.mark.parametrize("cls", CLASSES)
def test_online_moves_the_threshold_everywhere(cls: Any, pair: Pair) -> None:
    routed = made(cls, pair, router=pair.router, strong_fraction=0.3, online=True)
    asked(routed, "p=0.9")
    assert routed.policy.online.observed == 1


@pytest.mark.parametrize("cls", CLASSES)
def test_route_on_may_return_a_request(cls: Any, pair: Pair) -> None:
    def settle(_: Any) -> RoutingRequest:
        return RoutingRequest(("p=0.6",), threshold=0.55)

    decision = asked(made(cls, pair, router=pair.router, threshold=0.9, route_on=settle), "p=0.1")
    assert (decision.model, decision.win_rate, decision.threshold) == ("strong", 0.6, 0.55)


@pytest.mark.parametrize("cls", CLASSES)
def test_weak_profile_says_what_the_weak_model_can_do(cls: Any, pair: Pair) -> None:
    routed = made(cls, pair, router=pair.router, threshold=0.9, weak_profile={"max_input_tokens": 10})
    assert asked(routed, "p=0.1 short").model == "weak"
    long = asked(routed, "p=0.1 " + "long " * 20)
    assert (long.model, long.reason, long.detail) == ("strong", "capability", "max_input_tokens")


@pytest.mark.parametrize("cls", CLASSES)
def test_annotations_resolve_at_run_time(cls: Any) -> None:
    hints = typing.get_type_hints(cls.__init__)
    assert {"strong", "weak", "options"} <= hints.keys()
    assert set(typing.get_type_hints(typing.get_args(hints["options"])[0])) >= ROUTING_OPTIONS


def test_arguments_of_a_provider_are_told_to_have_no_effect(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    made(ChatRouteLLM, pair, router=pair.router, threshold=0.5, temperature=0, max_tokens=10)
    assert "max_tokens=, temperature= without effect on ChatRouteLLM" in caplog.text


def test_a_model_rebuilt_with_every_field_is_the_same_model(pair: Pair) -> None:
    policy = RoutingPolicy(pair.router, threshold=0.7)
    limiter = InMemoryRateLimiter(requests_per_second=1e9)
    pair.strong.rate_limiter = limiter
    llm: Any = made(ChatRouteLLM, pair, policy=policy).configurable_fields(tags=ConfigurableField(id="tags"))
    rebuilt, _ = llm._prepare({"configurable": {"tags": ["x"]}})
    assert rebuilt.policy is policy
    assert rebuilt._dispatch.strong.rate_limiter is limiter
    assert rebuilt.tags == ["x"]


def test_the_policy_can_be_replaced_like_any_option(pair: Pair) -> None:
    llm = made(ChatRouteLLM, pair, router=pair.router, threshold=0.7)
    other = RoutingPolicy(pair.router, threshold=0.95)
    with pytest.raises(ConfigurationError, match="policy= and router=, threshold= are both given"):
        llm.model_copy(update={"policy": other}).invoke("p=0.9")
    replaced = llm.model_copy(update={"policy": other, "router": None, "threshold": None})
    assert replaced.policy is other
    assert asked(replaced, "p=0.9").model == "weak"
    assert asked(llm, "p=0.9").model == "strong"
    assert copy.deepcopy(replaced).policy is other


def test_any_runnable_may_stand_on_a_side(pair: Pair) -> None:
    routed = RouteLLMRunnable(
        strong=RunnableLambda(lambda x: "s"), weak=lambda x: "w", router=pair.router, threshold=0.5, route_on="q"
    )
    assert routed.invoke({"q": "p=0.9", "other": "x"}) == "s"
    assert routed.policy.router is pair.router
