"""A cascade: which weak answers are checked, what a check may do, and what the route does after a refusal."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from routellm_core import ConfigurationError, RoutingDecision
from routellm_core.errors import EmptyAnswerError
from routellm_core.policy.acceptance import Acceptance, Cascade, WeakAnswer
from routellm_core.policy.cooldown import Cooldown
from routellm_core.policy.route import Route
from routellm_core.policy.savings import CallCost
from tests.support.waiting import LIMIT

WEAK = RoutingDecision("weak", 0.2, 0.5, "r")
STRONG = RoutingDecision("strong", 0.8, 0.5, "r")


def answer_of(given: Any) -> WeakAnswer:
    return WeakAnswer("".join(given) if isinstance(given, list) else given, raw=given)


def hangs(_: WeakAnswer) -> bool:
    threading.Event().wait(LIMIT)
    return True


async def hangs_async(_: WeakAnswer) -> bool:
    await asyncio.sleep(LIMIT)
    return True


def fails(_: WeakAnswer) -> bool:
    raise KeyError("the check is broken")


async def async_no(_: WeakAnswer) -> bool:
    return False


async def async_yes(_: WeakAnswer, messages: Any) -> float:
    return 0.6 if messages == "asked" else 0.0


CHECKS = [
    (lambda a: True, True, None),
    (lambda a: False, False, None),
    (lambda a: 0.5, True, None),
    (lambda a: 0.49, False, None),
    (lambda a, messages: messages == "asked", True, None),
    (async_yes, True, None),
    (async_no, False, None),
    (fails, False, "KeyError"),
    (hangs, False, "deadline"),
    (hangs_async, False, "deadline"),
    (lambda a: "yes", False, "str is not a verdict"),
    (lambda a: None, False, "NoneType is not a verdict"),
    (lambda a: float("nan"), False, "float is not a verdict"),
]


class Call:
    """Both sides, plain and streamed; what was asked of them is counted."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed: list[str] = []

    def __call__(self, side: str) -> str:
        self.asked.append(side)
        return f"{side} says this"

    async def acall(self, side: str) -> str:
        return self(side)

    def open(self, side: str) -> Iterator[str]:
        self.asked.append(side)
        try:
            yield from (side, " says", " this")
        finally:
            self.closed.append(side)

    async def aopen(self, side: str) -> AsyncIterator[str]:
        async def pieces() -> AsyncIterator[str]:
            for word in self.open(side):
                yield word

        return pieces()


def route_of(check: Any, decision: RoutingDecision = WEAK, **options: Any) -> Route[Any]:
    more = {name: options.pop(name) for name in ("band", "after", "threshold") if name in options}
    acceptance = Acceptance.of(check, deadline=0.2 if check in (hangs, hangs_async) else LIMIT, **more)
    assert acceptance is not None
    return Route(decision, cascade=Cascade(acceptance, answer_of, "asked"), **options)


def walk(route: Route[Any], call: Call, way: str) -> str:
    """The answer that a user sees."""
    if way == "run":
        return route.run(call)
    if way == "arun":
        return asyncio.run(route.arun(call.acall))
    if way == "stream":
        return "".join(route.stream(call.open, lambda piece: not piece))

    async def read() -> str:
        return "".join([piece async for piece in route.astream(call.aopen, lambda piece: not piece)])

    return asyncio.run(read())


@pytest.mark.parametrize("way", ["run", "arun", "stream", "astream"])
@pytest.mark.parametrize("failover", [False, True])
@pytest.mark.parametrize(("check", "accepted", "detail"), CHECKS, ids=range(len(CHECKS)))
def test_one_answer_whatever_the_check_does(way, failover, check, accepted, detail):
    settled: list[RoutingDecision] = []
    call = Call()
    route = route_of(check, failover=failover, on_settled=settled.append, cost=CallCost())
    said = walk(route, call, way)
    assert said == ("weak says this" if accepted else "strong says this")
    assert call.asked == (["weak"] if accepted else ["weak", "strong"])
    assert settled == [route.decision]
    assert (route.decision.escalated, route.decision.failover) == (not accepted, None)
    assert route.decision.detail == detail
    assert [(kind, spent.side) for kind, spent in route.cost.discarded] == ([] if accepted else [("refused", "weak")])  # type: ignore[union-attr]
    if "stream" in way:
        assert call.closed == call.asked


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("accepted", [False, True])
def test_a_stream_can_be_judged_on_its_beginning(way, accepted):
    seen: list[WeakAnswer] = []

    def check(answer: WeakAnswer) -> bool:
        seen.append(answer)
        return accepted

    call = Call()
    said = walk(route_of(check, after=5), call, way)
    assert said == ("weak says this" if accepted else "strong says this")
    assert [(answer.text, answer.is_complete) for answer in seen] == [("weak says", False)]


def test_nothing_is_given_out_before_the_check_is_asked():
    order: list[str] = []

    def check(answer: WeakAnswer) -> bool:
        order.append(f"checked {answer.text}")
        return True

    for piece in route_of(check).stream(Call().open, lambda piece: not piece):
        order.append(piece)
    assert order == ["checked weak says this", "weak", " says", " this"]


@pytest.mark.parametrize(
    "decision",
    [
        STRONG,
        RoutingDecision("weak", None, 0.5, "r", "forced"),
        RoutingDecision("weak", 0.9, 0.5, "r", "limit"),
        RoutingDecision("weak", 0.9, 0.5, "r", "observed"),
        RoutingDecision("weak", 0.9, 0.5, "r", failover="strong"),
    ],
)
def test_what_was_decided_on_purpose_is_not_checked(decision):
    call = Call()
    walk(route_of(lambda answer: False, decision), call, "run")
    assert call.asked == [decision.model]


@pytest.mark.parametrize(("win_rate", "checked"), [(0.1, False), (0.2, True), (0.3, True), (0.4, False), (None, False)])
def test_a_band_checks_what_lies_in_it(win_rate, checked):
    reason = "error" if win_rate is None else "win_rate"
    call = Call()
    walk(
        route_of(lambda answer: False, RoutingDecision("weak", win_rate, 0.5, "r", reason), band=(0.2, 0.4)),  # type: ignore[arg-type]
        call,
        "run",
    )
    assert call.asked == (["weak", "strong"] if checked else ["weak"])


def test_a_weak_side_that_fails_is_a_failover_and_not_an_escalation():
    def call(side: str) -> str:
        if side == "weak":
            raise ConnectionError
        return side

    route = route_of(lambda answer: False, failover=True)
    assert route.run(call) == "strong"
    assert (route.decision.failover, route.decision.escalated) == ("weak", False)


@pytest.mark.parametrize("way", ["run", "arun", "stream", "astream"])
@pytest.mark.parametrize("failover", [False, True])
def test_a_strong_side_that_fails_after_a_refusal_is_an_error(way, failover):
    class Failing(Call):
        def __call__(self, side: str) -> str:
            if side == "strong":
                raise ConnectionError("strong is down")
            return super().__call__(side)

        def open(self, side: str) -> Iterator[str]:
            if side == "strong":
                raise ConnectionError("strong is down")
            return super().open(side)

    with pytest.raises(ConnectionError, match="strong is down"):
        walk(route_of(lambda answer: False, failover=failover), Failing(), way)


def test_an_empty_weak_answer_is_broken_before_it_is_checked():
    asked: list[WeakAnswer] = []
    route = route_of(asked.append, is_broken=lambda answer: not answer)
    with pytest.raises(EmptyAnswerError):
        route.run(lambda side: "")
    assert asked == []


def test_while_strong_cools_down_the_weak_answer_stands():
    cooldown = Cooldown(60)
    cooldown.failed("strong")
    call = Call()
    assert walk(route_of(lambda answer: False, failover=True, cooldown=cooldown), call, "run") == "weak says this"
    assert call.asked == ["weak"]


def test_a_reader_that_leaves_while_an_answer_is_held_closes_it():
    call = Call()

    async def leave() -> None:
        checked = asyncio.Event()

        async def check(_: WeakAnswer) -> bool:
            checked.set()
            return await hangs_async(_)

        stream = route_of(check).astream(call.aopen, lambda piece: not piece)
        task = asyncio.ensure_future(anext(stream))
        await checked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()

    asyncio.run(leave())
    assert call.asked == ["weak"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accept": 1}, "accept=1"),
        ({"accept": None, "threshold": 0.9}, "accept_threshold=0.9 has no check"),
        ({"accept": None, "after": 9}, "accept_after=9 has no check"),
        ({"accept": fails, "threshold": 2}, "accept_threshold=2"),
        ({"accept": fails, "band": (0.5, 0.5)}, "accept_band"),
        ({"accept": fails, "band": 0.5}, "accept_band"),
        ({"accept": fails, "after": 0}, "accept_after=0"),
        ({"accept": fails, "deadline": None}, "accept_deadline=None"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(ConfigurationError, match=words):
        Acceptance.of(**options)


@pytest.mark.parametrize(("band", "checked"), [((0.2, 1.0), True), ((0.2, 0.9), False), (None, True)])
def test_a_band_up_to_one_holds_a_win_rate_of_one_that_the_coin_sent_to_weak(
    band: tuple[float, float] | None, checked: bool
) -> None:
    explored = RoutingDecision("weak", 1.0, 0.5, "r", "explored", p_strong=0.95)
    acceptance = Acceptance.of(fails, band=band)
    assert acceptance is not None
    assert acceptance.concerns(explored) is checked
