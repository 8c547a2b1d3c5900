"""A side that has failed is passed over for a while."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from routellm_core import ConfigurationError, RoutingDecision
from routellm_core.errors import EmptyAnswerError
from routellm_core.policy.cooldown import Cooldown
from routellm_core.policy.route import Route


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _route(cooldown: Cooldown, reason: Any = "win_rate", **options: Any) -> Route[str]:
    options = {"failover": True, **options}
    return Route(RoutingDecision("weak", 0.4, 0.5, "test", reason), cooldown=cooldown, **options)


def _dead(side: str) -> str:
    if side == "weak":
        raise TimeoutError("slow")
    return side


def test_a_failed_side_is_passed_over_until_a_probe_succeeds() -> None:
    clock = Clock()
    cooldown = Cooldown(5, clock=clock)
    first = _route(cooldown)
    assert first.run(_dead) == "strong"
    assert first.decision.detail == "TimeoutError"
    called: list[str] = []
    second = _route(cooldown)
    assert second.run(lambda side: called.append(side) or side) == "strong"
    assert (second.decision.failover, second.decision.detail, called) == ("weak", "cooldown", ["strong"])
    clock.now = 5.0
    probe, beside = _route(cooldown), _route(cooldown)
    assert (probe.side, beside.side) == ("weak", "strong")
    assert probe.run(lambda side: side) == "weak"
    assert _route(cooldown).side == "weak"


@pytest.mark.parametrize("reason", ["forced", "capability", "limit"])
def test_some_calls_are_never_passed_over(reason: str) -> None:
    cooldown = Cooldown(5)
    cooldown.failed("weak")
    assert _route(cooldown, reason).side == "weak"


def test_a_call_that_a_limit_sent_to_weak_stays_there() -> None:
    cooldown = Cooldown(5)
    with pytest.raises(TimeoutError):
        _route(cooldown, "limit").run(_dead)
    assert _route(cooldown, "limit").side == "weak"


def test_without_failover_it_has_no_say() -> None:
    cooldown = Cooldown(5)
    cooldown.failed("weak")
    assert _route(cooldown, failover=False).side == "weak"


def test_both_sides_failed() -> None:
    cooldown = Cooldown(5)
    cooldown.failed("weak")
    cooldown.failed("strong")
    assert _route(cooldown).side == "weak"


def test_the_side_that_was_passed_over_is_tried_when_the_other_one_fails() -> None:
    cooldown = Cooldown(5)
    cooldown.failed("weak")

    def call(side: str) -> str:
        if side == "strong":
            raise TimeoutError("slow")
        return side

    assert _route(cooldown).run(call) == "weak"


def test_a_mistake_of_the_caller_cools_nothing() -> None:
    cooldown = Cooldown(5)

    def call(side: str) -> str:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        _route(cooldown).run(call)
    assert _route(cooldown).side == "weak"


@pytest.mark.parametrize("made", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_another_process_starts_without_failures(made: Any) -> None:
    cooldown = Cooldown(5)
    cooldown.failed("weak")
    assert made(cooldown).allows("weak")


def test_what_may_be_given() -> None:
    assert Cooldown.of(None) is Cooldown.of(0) is None
    cooldown = Cooldown.of(2)
    assert cooldown is not None
    assert (cooldown.seconds, Cooldown.of(cooldown)) == (2, cooldown)
    for wrong in (-1, True, "5", float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="cooldown="):
            Cooldown.of(wrong)


@pytest.mark.parametrize("pieces", [[], ["", ""]])
async def test_a_stream_without_content_is_a_failure(pieces: list[str]) -> None:
    def open_(side: str) -> Any:
        return iter(pieces if side == "weak" else ["ok"])

    decision = RoutingDecision("weak", 0.4, 0.5, "test")
    route: Route[str] = Route(decision, failover=True, is_broken=lambda piece: not piece)
    assert list(route.stream(open_, lambda piece: not piece)) == ["ok"]
    assert route.decision.detail == "EmptyAnswerError"
    alone: Route[str] = Route(decision, is_broken=lambda piece: not piece)
    with pytest.raises(EmptyAnswerError, match="the weak model"):
        list(alone.stream(open_, lambda piece: not piece))
