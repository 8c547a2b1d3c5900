"""A child forked while other threads decide can decide, too."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from routellm_core import OnlineCalibration, Price, RoutingPolicy, ShareLimit, SpendLimit, Stickiness
from routellm_core.forks import fork_safe_lock
from routellm_core.policy.decision import new_id
from routellm_core.policy.routing import Routing
from routellm_core.policy.savings import SavingsLedger
from routellm_core.workers import Workers, workers_of
from tests.support.routers import ScriptedRouter

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PRICES = {"strong": Price(1.0, 1.0), "weak": Price(1.0, 1.0)}
# Far more than a child needs on a busy machine; a hung one would wait for ever.
_PATIENCE = 60.0


def runs_in_child(work: Callable[[], Any]) -> bool:
    """Whether `work` comes to its end in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


@contextmanager
def busy(work: Callable[[int], Any], threads: int = 8) -> Iterator[None]:
    """Threads that work without a pause."""
    stop = threading.Event()

    def run(number: int) -> None:
        step = number
        while not stop.is_set():
            work(step)
            step += threads

    running = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join()


def test_a_child_draws_ids_of_its_own() -> None:
    new_id()  # the parent has drawn ahead
    reader, writer = os.pipe()
    assert runs_in_child(lambda: os.write(writer, "".join(new_id() for _ in range(100)).encode()))
    os.close(writer)
    with open(reader) as pipe:
        drawn = pipe.read()
    childs = {drawn[start : start + 32] for start in range(0, len(drawn), 32)}
    assert len(childs) == 100
    assert childs.isdisjoint(new_id() for _ in range(100))


@pytest.mark.slow
def test_no_child_hangs_on_what_decides() -> None:
    routing = Routing.of(
        {
            "router": ScriptedRouter(),
            "strong_fraction": 0.3,
            "online": True,
            "sticky": Stickiness(release_after=2),
            "limits": [ShareLimit("user_id", strong_fraction=0.3), SpendLimit(1e9, prices=PRICES, key="user_id")],
            "cache_size": 64,
            "deadline": _PATIENCE,
            "failover": True,
        },
        owner="Model",
    )

    def decide(step: int) -> None:
        settings = routing.settings({"thread_id": step % 100, "user_id": step % 50})
        request = routing.request(settings, gap=lambda: None, texts=lambda: f"p=0.{step % 97} {step % 500}")
        route = routing.route(request, routing.decide(request, settings), is_broken=lambda _: False)
        route.run(lambda side: side)
        routing.policy.spent(request, route.side, 10, 10)
        if step % 50 == 0:
            routing.policy.replace(strong_fraction=0.3)

    with busy(decide):
        ended = [runs_in_child(lambda: [decide(n) for n in range(5)]) for _ in range(160)]
    assert ended == [True] * 160


def test_a_child_has_workers_of_its_own() -> None:
    router = ScriptedRouter()
    workers_of(router).submit(lambda: None).result(_PATIENCE)
    policy = RoutingPolicy(router, threshold=0.5, deadline=_PATIENCE)
    assert runs_in_child(lambda: [policy.decide("p=0.9") for _ in range(3)])


def test_a_child_finds_what_a_lock_guards_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routellm_core.forks._PATIENCE", _PATIENCE)  # locks are not fair, and the machine may be busy

    class Pair:
        def __init__(self) -> None:
            self.left = self.right = 0
            self.lock = fork_safe_lock(self, "lock")

        def step(self, _: int) -> None:
            with self.lock:
                self.left += 1
                time.sleep(0.0001)
                self.right += 1
            time.sleep(0.0001)

    pair = Pair()

    def check() -> None:
        assert pair.left == pair.right
        pair.step(0)

    with busy(pair.step, threads=4):
        assert all(runs_in_child(check) for _ in range(20))


def test_a_lock_that_is_held_for_long_is_renewed_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routellm_core.forks._PATIENCE", 0.01)
    ledger = SavingsLedger()
    with ledger._lock:
        assert runs_in_child(ledger.summary)
    ledger.summary()  # and the parent's own is free again


def test_what_such_a_lock_guards_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routellm_core.forks._PATIENCE", 0.01)
    online = OnlineCalibration([i / 1000 for i in range(1000)], 0.3, window=100)

    def go_on() -> None:
        assert len(online._sorted) == len(online._recent) == 100
        assert online.observe(0.5) == pytest.approx(0.7, abs=0.05)

    with online._lock:  # in the middle of `observe`
        del online._sorted[10]
        online._recent.popleft()
        assert runs_in_child(go_on)


def test_no_fork_waits_for_a_router_that_is_loading() -> None:
    policy = RoutingPolicy(ScriptedRouter(), threshold=0.5)
    with policy._replacing:
        began = time.monotonic()
        assert runs_in_child(lambda: policy.replace(threshold=0.6))
        assert time.monotonic() - began < _PATIENCE


def test_what_has_gone_is_not_kept_for_forks() -> None:
    from routellm_core import forks

    gc.collect()  # what earlier tests have left would go in between
    before = len(forks._locks), len(forks._renewals)
    for _ in range(100):
        Workers("short-lived")
    assert (len(forks._locks), len(forks._renewals)) == before
