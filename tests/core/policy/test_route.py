"""Route: what comes after a decision, without any framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from routellm_core import RoutingDecision
from routellm_core.policy.route import Route

SURVIVABLE = TimeoutError("slow")
REFUSED = ValueError("a mistake of the caller's")


def decided(model: Any = "weak", reason: Any = "win_rate") -> RoutingDecision:
    return RoutingDecision(model, 0.4, 0.5, "test", reason)


class Sides:
    """Two sides with a script each: the pieces that a side streams, an exception where it fails."""

    def __init__(self, weak: list[Any], strong: list[Any]) -> None:
        self.scripts = {"weak": weak, "strong": strong}
        self.called: list[str] = []
        self.closed: list[str] = []

    def answer(self, side: str) -> Any:
        self.called.append(side)
        first = self.scripts[side][0]
        if isinstance(first, BaseException):
            raise first
        return first

    async def aanswer(self, side: str) -> Any:
        return self.answer(side)

    def open(self, side: str) -> Iterator[Any]:
        self.called.append(side)
        return self._pieces(side)

    def _pieces(self, side: str) -> Iterator[Any]:
        try:
            for piece in self.scripts[side]:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.closed.append(side)

    async def aopen(self, side: str) -> AsyncIterator[Any]:
        self.called.append(side)
        return self._apieces(side)

    async def _apieces(self, side: str) -> AsyncIterator[Any]:
        try:
            for piece in self.scripts[side]:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.closed.append(side)


async def walked(route: Route[Any], sides: Sides, way: str) -> Any:
    """The answer of a route by one of its four ways; a stream's is the list of its pieces."""
    if way == "run":
        return route.run(sides.answer)
    if way == "arun":
        return await route.arun(sides.aanswer)
    if way == "stream":
        return list(route.stream(sides.open, lambda piece: piece == ""))
    return [piece async for piece in route.astream(sides.aopen, lambda piece: piece == "")]


EVERY_WAY = pytest.mark.parametrize("way", ["run", "arun", "stream", "astream"])


@EVERY_WAY
async def test_the_chosen_side_answers_and_the_decision_is_settled_once(way: str) -> None:
    settled: list[RoutingDecision] = []
    route: Route[Any] = Route(decided(), failover=True, on_settled=settled.append)
    assert not settled
    sides = Sides(["a"], ["b"])
    assert await walked(route, sides, way) in ("a", ["a"])
    assert sides.called == ["weak"]
    assert settled == [route.decision]
    assert route.decision.failover is None


@EVERY_WAY
async def test_after_a_failure_that_another_model_survives_the_other_side_answers(way: str) -> None:
    settled: list[RoutingDecision] = []
    sides = Sides([SURVIVABLE], ["b"])
    route: Route[Any] = Route(decided(), failover=True, on_settled=settled.append)
    assert await walked(route, sides, way) in ("b", ["b"])
    assert sides.called == ["weak", "strong"]
    assert (route.decision.model, route.decision.failover, route.decision.detail) == ("strong", "weak", "TimeoutError")
    assert settled == [route.decision]
    assert settled[0].failover == "weak"


@EVERY_WAY
@pytest.mark.parametrize(
    ("failure", "failover", "reason"),
    [
        (REFUSED, True, "win_rate"),
        (SURVIVABLE, False, "win_rate"),
        (SURVIVABLE, True, "capability"),
        (KeyboardInterrupt(), True, "win_rate"),
        (asyncio.CancelledError(), True, "win_rate"),
    ],
    ids=["a caller's mistake", "no failover", "nowhere to go", "interrupted", "cancelled"],
)
async def test_what_is_raised_reaches_the_caller_unchanged(
    way: str, failure: BaseException, failover: bool, reason: str
) -> None:
    settled: list[RoutingDecision] = []
    sides = Sides([failure], ["b"])
    route: Route[Any] = Route(decided(reason=reason), failover=failover, on_settled=settled.append)
    with pytest.raises(type(failure)) as raised:
        await walked(route, sides, way)
    assert raised.value is failure
    assert sides.called == ["weak"]
    assert len(settled) == 1


@EVERY_WAY
async def test_never_back_and_never_twice(way: str) -> None:
    second = ConnectionError("also down")
    sides = Sides([SURVIVABLE], [second])
    route: Route[Any] = Route(decided(), failover=True)
    with pytest.raises(ConnectionError) as raised:
        await walked(route, sides, way)
    assert raised.value is second
    assert sides.called == ["weak", "strong"]


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_empty_pieces_wait_for_a_token_and_go_with_the_failed_side(way: str) -> None:
    sides = Sides(["", "", SURVIVABLE], ["", "x", "", "y"])
    route: Route[Any] = Route(decided(), failover=True)
    assert await walked(route, sides, way) == ["", "x", "", "y"]
    assert sides.closed == ["weak", "strong"]


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_after_the_first_token_no_other_side_steps_in(way: str) -> None:
    sides = Sides(["", "x", SURVIVABLE], ["y"])
    route: Route[Any] = Route(decided(), failover=True)
    with pytest.raises(TimeoutError):
        await walked(route, sides, way)
    assert sides.called == ["weak"]
    assert route.decision.failover is None


def test_pieces_go_out_as_they_come_and_not_at_the_end() -> None:
    seen: list[str] = []

    def pieces(side: str) -> Iterator[str]:
        for piece in ("", "a", "b"):
            seen.append(f"made {piece}")
            yield piece

    route: Route[str] = Route(decided(), failover=True)
    for piece in route.stream(pieces, lambda piece: piece == ""):
        seen.append(f"got {piece}")
    assert seen == ["made ", "made a", "got ", "got a", "made b", "got b"]


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_only_empty_pieces_are_given_at_the_end(way: str) -> None:
    settled: list[RoutingDecision] = []
    route: Route[Any] = Route(decided(), failover=True, on_settled=settled.append)
    assert await walked(route, Sides(["", ""], ["x"]), way) == ["", ""]
    assert len(settled) == 1


def test_a_reader_who_stops_closes_the_side() -> None:
    sides = Sides(["a", "b"], [])
    stream = Route[Any](decided(), failover=True).stream(sides.open, lambda piece: False)
    assert next(stream) == "a"
    stream.close()
    assert sides.closed == ["weak"]


async def test_a_reader_who_stops_closes_the_async_side() -> None:
    sides = Sides(["a", "b"], [])
    stream = Route[Any](decided(), failover=True).astream(sides.aopen, lambda piece: False)
    assert await anext(stream) == "a"
    await stream.aclose()
    assert sides.closed == ["weak"]


@pytest.mark.parametrize("failover", [True, False])
async def test_a_reader_who_is_closed_while_it_waits_is_not_made_to_wait_again(failover: bool) -> None:
    class Stalled:
        """Waits for its first piece for ever, and takes its time to close."""

        async def __anext__(self) -> str:
            await asyncio.Event().wait()
            return ""

        def __aiter__(self) -> Stalled:
            return self

        async def aclose(self) -> None:
            await asyncio.sleep(1)

    async def open_(side: str) -> AsyncIterator[str]:
        return Stalled()

    settled: list[RoutingDecision] = []
    route: Route[str] = Route(decided(), failover=failover, on_settled=settled.append)

    reading = route.astream(open_, lambda piece: False).__anext__()
    reading.send(None)
    with pytest.raises(GeneratorExit):  # and no RuntimeError, which a further await would be
        reading.throw(GeneratorExit())
    assert settled == [decided()]


async def test_a_stream_that_was_opened_before_is_read_on() -> None:
    sides = Sides(["a"], ["b"])
    route: Route[Any] = Route(decided(), failover=True)
    source = route.attempt(sides.open)
    assert route.may_turn
    assert list(route.stream(sides.open, lambda piece: False, source)) == ["a"]
    other: Route[Any] = Route(decided(), failover=True)
    opened = await other.aattempt(sides.aopen)
    assert [piece async for piece in other.astream(sides.aopen, lambda piece: False, opened)] == ["a"]
    assert sides.called == ["weak", "weak"]


def test_a_side_may_stream_by_a_plain_iterator() -> None:
    route: Route[Any] = Route(decided(), failover=True)
    assert list(route.stream(lambda side: iter(["a"]), lambda piece: False)) == ["a"]


def test_a_token_that_went_out_another_way_settles_the_decision() -> None:
    route: Route[Any] = Route(decided(), failover=True)
    route.answered()
    with pytest.raises(TimeoutError):
        route.failed(SURVIVABLE)
    assert route.decision.failover is None


def test_without_failover_the_decision_is_settled_at_once() -> None:
    settled: list[RoutingDecision] = []
    route: Route[Any] = Route(decided(), on_settled=settled.append)
    assert settled == [route.decision]
    assert not route.may_turn
