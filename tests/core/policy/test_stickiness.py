"""Stickiness: what holds a conversation, and what lets it go."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from routellm_core import RoutingDecision, RoutingRequest, Stickiness
from routellm_core.errors import ConfigurationError

STRONG = RoutingDecision("strong", 0.9, 0.5, "r")
WEAK = RoutingDecision("weak", 0.1, 0.5, "r")
REQUEST = RoutingRequest(("text",))


def _reason(reason: str, model: str = "strong") -> RoutingDecision:
    return RoutingDecision(model, None, 0.5, "r", reason)  # type: ignore[arg-type]


def _go(sticky: Stickiness, key: str | None, decision: RoutingDecision) -> RoutingDecision:
    """One call: what the policy would say is `decision`, unless the request is settled before."""
    request = sticky.before(key, REQUEST)
    made = RoutingDecision(request.force, None, 0.5, "r", request.reason) if request.force else decision
    return sticky.after(key, made)


def test_held_for_good_it_stays_strong_without_asking_the_router() -> None:
    sticky = Stickiness(release_after=None)
    assert _go(sticky, "a", WEAK) == WEAK
    assert _go(sticky, "a", STRONG) == STRONG
    assert sticky.held("a")
    request = sticky.before("a", REQUEST)
    assert (request.force, request.reason) == ("strong", "sticky")
    assert _go(sticky, "a", WEAK) == _reason("sticky")
    assert _go(sticky, "b", WEAK) == WEAK


@pytest.mark.parametrize("sticky", [True, "session"])
def test_one_hard_prompt_does_not_buy_strong_answers_for_ever(sticky: Any) -> None:
    held = Stickiness.of(sticky)
    assert held is not None
    sides = [_go(held, "a", d).model for d in (STRONG, *[WEAK] * 500)]
    assert sides == ["strong"] * 3 + ["weak"] * 498


def test_without_a_key_nothing_is_held() -> None:
    sticky = Stickiness()
    assert _go(sticky, None, STRONG) == STRONG
    assert _go(sticky, None, WEAK) == WEAK
    assert not sticky.held(None)


@pytest.mark.parametrize("reason", ["error", "deadline", "capability"])
def test_what_says_nothing_about_the_conversation_does_not_hold_it(reason: str) -> None:
    sticky = Stickiness()
    _go(sticky, "a", _reason(reason))
    assert not sticky.held("a")


def test_other_strong_decisions_hold() -> None:
    sticky = Stickiness()
    _go(sticky, "a", _reason("forced"))
    assert sticky.held("a")


def test_a_held_conversation_stays_held_through_a_call_that_the_weak_model_cannot_serve() -> None:
    sticky = Stickiness()
    _go(sticky, "a", STRONG)
    assert sticky.after("a", _reason("capability")).reason == "capability"
    assert sticky.held("a")


def test_a_call_forced_to_weak_lets_go() -> None:
    sticky = Stickiness()
    _go(sticky, "a", STRONG)
    forced = RoutingRequest(("x",), force="weak")
    assert sticky.before("a", forced) is forced
    assert sticky.after("a", _reason("forced", "weak")).model == "weak"
    assert _go(sticky, "a", WEAK) == WEAK


def test_release_lets_go() -> None:
    sticky = Stickiness()
    _go(sticky, "a", STRONG)
    sticky.release("a")
    sticky.release("never held")
    assert _go(sticky, "a", WEAK) == WEAK


def test_easy_calls_in_a_row_let_go_and_a_hard_one_starts_the_count_again() -> None:
    sticky = Stickiness(release_after=3)
    _go(sticky, "a", STRONG)
    assert sticky.before("a", REQUEST) is REQUEST  # the router's view is needed
    sides = [_go(sticky, "a", d).model for d in (WEAK, WEAK, STRONG, WEAK, WEAK, WEAK, WEAK)]
    assert sides == ["strong", "strong", "strong", "strong", "strong", "weak", "weak"]
    assert not sticky.held("a")
    held = Stickiness(release_after=2)
    _go(held, "a", STRONG)
    kept = _go(held, "a", WEAK)
    assert (kept.reason, kept.win_rate) == ("sticky", 0.1)


def test_an_unused_hold_ends_after_ttl() -> None:
    now = [0.0]
    sticky = Stickiness(ttl=10, clock=lambda: now[0])
    _go(sticky, "a", STRONG)
    now[0] = 9
    assert sticky.held("a")  # which is a use
    now[0] = 18
    assert _go(sticky, "a", WEAK).model == "strong"
    now[0] = 29
    assert _go(sticky, "a", WEAK) == WEAK


def test_memory_is_bounded_by_the_conversation_unused_for_longest() -> None:
    sticky = Stickiness(max_conversations=2)
    for key in ("a", "b"):
        _go(sticky, key, STRONG)
    assert sticky.held("a")
    _go(sticky, "c", STRONG)
    assert [sticky.held(key) for key in ("a", "b", "c")] == [True, False, True]


def test_threads_do_not_lose_holds() -> None:
    sticky = Stickiness(max_conversations=10_000)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: _go(sticky, str(i), STRONG), range(2000)))
    assert all(sticky.held(str(i)) for i in range(2000))


def test_pickling_keeps_the_rules_and_not_the_holds() -> None:
    sticky = Stickiness("user", release_after=2)
    _go(sticky, "a", STRONG)
    back = pickle.loads(pickle.dumps(sticky))
    assert (back.key, back.release_after, back.held("a")) == ("user", 2, False)
    assert _go(back, "a", STRONG) == STRONG
    assert back.held("a")


def test_of() -> None:
    own = Stickiness("user")
    assert Stickiness.of(None) is Stickiness.of(False) is None
    assert Stickiness.of(own) is own
    assert Stickiness.of(True).key == "thread_id"  # type: ignore[union-attr]
    assert Stickiness.of("user").key == "user"  # type: ignore[union-attr]
    with pytest.raises(ConfigurationError, match="sticky=3: expected None, True"):
        Stickiness.of(3)
    assert copy.deepcopy(own) is own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, "key=''"),
        ({"key": 3}, "key=3"),
        ({"release_after": 0}, "release_after=0: expected an integer >= 1"),
        ({"release_after": True}, "release_after=True"),
        ({"max_conversations": 0}, "max_conversations=0"),
        ({"ttl": 0}, "ttl=0: expected a number of seconds > 0"),
        ({"ttl": "x"}, "ttl='x'"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Stickiness(**options)
