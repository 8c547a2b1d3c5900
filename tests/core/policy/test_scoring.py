"""One bad prompt, routers that hang, and what is left of the program when they do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from routellm_core import DeadlineError, Router, RouterError, RoutingPolicy
from routellm_core.breaker import Breaker
from routellm_core.policy.scoring import Scoring
from routellm_core.workers import Workers, workers_of
from tests.support.waiting import LIMIT


class Picky(Router):
    """Fails on every batch that holds the word "bad"."""

    name = "picky"

    def __init__(self, bad: str = "bad") -> None:
        self.bad = bad
        self.calls: list[int] = []

    def _win_rates(self, prompts: list[str]) -> Any:
        self.calls.append(len(prompts))
        if any(self.bad in prompt for prompt in prompts):
            raise ValueError("cannot read: a secret prompt")
        return np.full(len(prompts), 0.75)


class Hanging(Router):
    """Waits until it is let go."""

    name = "hanging"

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def _win_rates(self, prompts: list[str]) -> Any:
        self.go_on.wait()
        return np.full(len(prompts), 0.75)


async def decided(policy: RoutingPolicy, prompts: list[str], way: str) -> list[Any]:
    return policy.decide_batch(prompts) if way == "sync" else await policy.adecide_batch(prompts)


BOTH_WAYS = pytest.mark.parametrize("way", ["sync", "async"])


@BOTH_WAYS
@pytest.mark.parametrize("places", [[0], [63], [31], [5, 6, 40]])
@pytest.mark.parametrize("deadline", [None, 60.0])
async def test_only_the_bad_prompts_carry_an_error(way: str, places: list[int], deadline: float | None) -> None:
    router = Picky()
    policy = RoutingPolicy(router, threshold=0.5, on_error="weak", deadline=deadline)
    prompts = [f"bad {i}" if i in places else f"good {i}" for i in range(64)]
    decisions = await decided(policy, prompts, way)
    assert [i for i, d in enumerate(decisions) if d.reason == "error"] == places
    assert {d.error for d in decisions} == {None, "ValueError"}
    assert {(d.model, d.win_rate) for d in decisions if d.reason == "win_rate"} == {("strong", 0.75)}
    assert len(router.calls) <= 2 * 7 * len(places)
    # what was scored is kept
    router.calls.clear()
    await decided(policy, [p for p in prompts if "good" in p], way)
    assert router.calls == []


@BOTH_WAYS
async def test_a_router_that_is_down_is_not_asked_for_every_prompt(way: str) -> None:
    router = Picky(bad="")
    policy = RoutingPolicy(router, threshold=0.5)
    decisions = await decided(policy, [f"{i}" for i in range(1000)], way)
    assert {d.reason for d in decisions} == {"error"}
    assert len(router.calls) < 40


@BOTH_WAYS
async def test_an_error_that_is_raised_quotes_no_prompt(way: str) -> None:
    policy = RoutingPolicy(Picky(), threshold=0.5, on_error="raise")
    with pytest.raises(RouterError, match="ValueError") as raised:
        await decided(policy, ["a", "bad"], way)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@BOTH_WAYS
async def test_the_deadline_is_that_of_all_calls_together(way: str) -> None:
    class Slow(Picky):
        def _win_rates(self, prompts: list[str]) -> Any:
            time.sleep(0.05)
            return super()._win_rates(prompts)

    router = Slow()
    policy = RoutingPolicy(router, threshold=0.5, deadline=0.12)
    decisions = await decided(policy, [f"bad {i}" for i in range(64)], way)
    assert {d.reason for d in decisions} <= {"deadline", "error"}
    assert len(router.calls) < 8


def test_missed_deadlines_leave_few_threads_and_are_told_at_once() -> None:
    router = Hanging()
    policy = RoutingPolicy(router, threshold=0.5, deadline=0.02, on_error="weak")
    before = threading.active_count()
    reasons = {policy.decide(f"{i}").reason for i in range(200)}
    assert reasons == {"deadline"}
    assert threading.active_count() - before <= 5
    assert workers_of(router)._outstanding <= 20  # the others did not ask, and so did not wait
    router.go_on.set()


async def test_a_router_that_answers_again_is_asked_again() -> None:
    router = Hanging()
    scoring = Scoring(router, 0.02)
    clock = [0.0]
    scoring.breaker = Breaker(failures=3, wait=1.0, longest=60.0, clock=lambda: clock[0])
    for _ in range(3):
        assert isinstance(scoring.score(["a"])[0], DeadlineError)
    router.go_on.set()
    assert isinstance(scoring.score(["a"])[0], DeadlineError)
    assert isinstance((await scoring.ascore(["a"]))[0], DeadlineError)
    clock[0] = 1.5
    scoring.deadline = 60.0
    assert scoring.score(["a"]) == [0.75]
    assert not scoring.breaker.is_open
    assert await scoring.ascore(["a"]) == [0.75]


def test_a_program_with_a_hung_router_ends() -> None:
    code = """
import asyncio, threading
from routellm_core import Router, RoutingPolicy
class Hung(Router):
    name = "hung"
    def _win_rates(self, prompts):
        threading.Event().wait()
policy = RoutingPolicy(Hung(), threshold=0.5, deadline=0.1)
for _ in range(2):
    assert asyncio.run(policy.adecide("x")).reason == "deadline"
assert policy.decide("x").reason == "deadline"
async def many():
    decisions = await asyncio.gather(*(policy.adecide(str(i)) for i in range(100)))
    assert {d.reason for d in decisions} == {"deadline"}
    await asyncio.to_thread(lambda: None)  # the default executor is everybody's, and free
asyncio.run(many())
print("ended")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "ended\n", done.stderr


def test_workers_are_bounded_and_replace_what_hangs() -> None:
    workers = Workers("test", limit=2, stuck_after=0.05)
    release, hanging = threading.Event(), threading.Semaphore(0)

    def hang() -> bool:
        hanging.release()
        return release.wait(LIMIT)

    def two_that_hang() -> list[Any]:
        futures = [workers.submit(hang) for _ in range(2)]
        assert all(hanging.acquire(timeout=LIMIT) for _ in futures)
        return futures

    hung = two_that_hang()
    time.sleep(0.1)  # longer than stuck_after
    assert workers.submit(lambda: 7).result(LIMIT) == 7
    hung += two_that_hang()
    waiting = [workers.submit(lambda: 8) for _ in range(20)]
    time.sleep(0.1)
    waiting.append(workers.submit(lambda: 8))
    assert workers._threads <= 4
    release.set()
    assert [future.result(LIMIT) for future in waiting] == [8] * 21
    assert all(future.result(LIMIT) for future in hung)


def test_what_work_raises_is_the_futures() -> None:
    with pytest.raises(ZeroDivisionError):
        Workers("test").submit(lambda: 1 // 0).result(LIMIT)


def test_a_breaker_opens_probes_and_closes() -> None:
    clock = [0.0]
    breaker = Breaker(failures=2, wait=1.0, longest=3.0, clock=lambda: clock[0])
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allows()
    waits = []
    for _ in range(4):
        start = clock[0]
        while not breaker.allows():
            clock[0] += 0.25
        waits.append(clock[0] - start)
        assert not breaker.allows()  # one probe at a time
        breaker.failed()
    assert waits == [1.0, 2.0, 3.0, 3.0]
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()


async def test_tasks_that_share_a_call_do_not_share_a_bad_prompt() -> None:
    policy = RoutingPolicy(Picky(), threshold=0.5, on_error="weak")
    decisions = await asyncio.gather(*(policy.adecide("bad" if i == 3 else f"good {i}") for i in range(20)))
    assert [i for i, d in enumerate(decisions) if d.reason == "error"] == [3]
