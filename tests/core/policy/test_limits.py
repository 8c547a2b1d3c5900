"""SpendLimit and ShareLimit: caps that hold, for each user, over threads and restarts."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import (
    CheckpointError,
    ConfigurationError,
    LimitError,
    Price,
    RoutingDecision,
    RoutingPolicy,
    RoutingRequest,
    ShareLimit,
    SpendLimit,
    Stickiness,
)
from routellm_core.policy.limits import FileStore
from routellm_core.policy.routing import Routing
from tests.support.routers import ScriptedRouter

PRICES = {"strong": Price(10.0, 10.0), "weak": Price(1.0, 1.0)}
DAY = 86_400.0


def of_user(text: str, user: str | None) -> RoutingRequest:
    return RoutingRequest((text,), keys={} if user is None else {"user_id": user})


def test_spending_is_capped_and_comes_back_with_the_period() -> None:
    clock = [10 * DAY]
    limit = SpendLimit(1.0, per="day", prices=PRICES, clock=lambda: clock[0])
    policy = RoutingPolicy(ScriptedRouter(), threshold=0.5, limits=[limit])
    request = RoutingRequest(("p=0.9",))
    assert policy.decide(request).model == "strong"
    policy.spent(request, "strong", 60_000, 30_000)
    assert policy.decide(request).model == "strong"
    policy.spent(request, "weak", 100_000, 0)
    assert limit.spending() == pytest.approx(1.0)
    decision = policy.decide(request)
    assert (decision.model, decision.reason, decision.detail, decision.win_rate) == (
        "weak",
        "limit",
        "SpendLimit",
        None,
    )
    assert policy.decide("p=0.9", force="strong").model == "strong"  # who may force a side may spend
    capable = RoutingRequest((), force="strong", reason="capability")
    assert policy.decide(capable).reason == "limit"
    clock[0] += DAY
    assert policy.decide(request).model == "strong"
    assert limit.spending() == 0.0


def test_a_reached_limit_may_refuse_calls() -> None:
    limit = SpendLimit(0.5, per="month", prices=PRICES, key="user_id", on_reached="raise")
    policy = RoutingPolicy(ScriptedRouter(), threshold=0.5, limits=[limit])
    policy.spent(of_user("x", "a"), "strong", 100_000, 0)
    with pytest.raises(LimitError, match=r"of this user_id of 0.5 per month is reached"):
        policy.decide(of_user("p=0.9", "a"))
    assert policy.decide(of_user("p=0.9", "b")).model == "strong"
    assert policy.decide(of_user("p=0.9", None)).model == "strong"


def test_prices_are_those_of_models_or_of_sides() -> None:
    prices = {"gpt-4.1": Price(2, 8), "small": Price(0.4, 1.6)}
    limit = SpendLimit(100.0, prices=prices)
    policy = RoutingPolicy(ScriptedRouter(), threshold=0.5, limits=[limit])
    request = RoutingRequest(("p=0.9",))
    policy.spent(request, "strong", 1_000_000, 0, model="gpt-4.1-2025-04-14")
    policy.spent(request, "weak", 1_000_000, 0, model="small")
    assert limit.spending() == pytest.approx(2.4)
    policy.spent(request, "weak", 1_000_000, 0, model="another")  # no cap counts less than what is spent
    policy.spent(request, "weak", 0, 1_000_000)
    assert limit.spending() == pytest.approx(12.4)
    by_side = SpendLimit(1.0, prices={"strong": (2, 8), "weak": (0.4, 1.6)})
    by_side.spent("", "weak", 1_000_000, 0, model="small")
    assert by_side.spending() == pytest.approx(0.4)


@pytest.mark.parametrize("per", ["minute", "hour", "day", "month"])
def test_every_period_ends(per: Any) -> None:
    clock = [1_700_000_000.0]
    limit = SpendLimit(1.0, per=per, prices=PRICES, clock=lambda: clock[0])
    limit.spent("", "strong", 1_000_000, 0)
    assert limit.settled("") == "weak"
    clock[0] += {"minute": 60, "hour": 3600, "day": DAY, "month": 31 * DAY}[per]
    assert limit.settled("") is None


def shares(policy: RoutingPolicy, users: list[str], rates: np.ndarray) -> dict[str, float]:
    """Share of strong calls of each user, over the second half of their calls."""
    strong: dict[str, list[bool]] = {}
    for user, rate in zip(users, rates, strict=True):
        decision = policy.decide(of_user(f"p={rate:.6f}", user))
        strong.setdefault(user, []).append(decision.model == "strong")
    return {user: float(np.mean(found[len(found) // 2 :])) for user, found in strong.items()}


@pytest.mark.slow
@pytest.mark.parametrize("online", [False, True])
def test_who_cheats_takes_nothing_from_the_others(online: bool) -> None:
    rng = np.random.default_rng(0)
    users = ["cheat" if rng.random() < 0.3 else f"user {i}" for i in rng.integers(0, 20, 40_000)]
    rates = np.where([user == "cheat" for user in users], 0.9999, rng.random(len(users)))

    def honest_and_cheat(*limits: ShareLimit) -> tuple[float, float]:
        found = shares(
            RoutingPolicy(ScriptedRouter(), strong_fraction=0.3, online=online, limits=limits, cache_size=0),
            users,
            rates,
        )
        return float(np.mean([share for user, share in found.items() if user != "cheat"])), found["cheat"]

    honest, cheat = honest_and_cheat(ShareLimit("user_id", strong_fraction=0.3))
    assert honest == pytest.approx(0.3, abs=0.02)
    assert cheat == pytest.approx(0.3, abs=0.02)
    if online:
        without, taken = honest_and_cheat()
        assert without < 0.2  # the harm that the limit undoes
        assert taken > 0.5


def test_the_hardest_prompts_of_a_user_beyond_the_share_stay_strong() -> None:
    limit = ShareLimit("user_id", strong_fraction=0.2, window=50)
    policy = RoutingPolicy(ScriptedRouter(), strong_fraction=0.2, limits=[limit])
    rates = 0.5 + np.random.default_rng(1).random(3000) / 2
    decisions = [policy.decide(of_user(f"p={rate:.6f}", "a")) for rate in rates]
    late = decisions[1000:]
    assert np.mean([d.model == "strong" for d in late]) == pytest.approx(0.2, abs=0.02)
    mean = {side: np.mean([d.win_rate for d in late if d.model == side]) for side in ("strong", "weak")}
    assert mean["strong"] > mean["weak"] + 0.15  # type: ignore[operator]
    assert {(d.model, d.detail) for d in late if d.reason == "limit"} == {("weak", "ShareLimit")}


def test_without_a_calibration_strong_calls_beyond_the_share_are_refused() -> None:
    router = ScriptedRouter()
    router.calibration = None
    policy = RoutingPolicy(router, threshold=0.5, limits=[ShareLimit("user_id", strong_fraction=0.25)])
    strong = [policy.decide(of_user("p=0.9", "a")).model == "strong" for _ in range(2000)]
    assert np.mean(strong[200:]) == pytest.approx(0.25, abs=0.01)
    assert policy.decide(of_user("p=0.9", "b")).model == "strong"


def test_memory_is_bounded_and_the_user_unused_for_longest_goes() -> None:
    limit = ShareLimit("user_id", strong_fraction=0.1, max_keys=3)
    for user in "abcad":
        limit.decided(user, "strong")
    assert set(limit.snapshot()["counts"]) == {"c", "a", "d"}


def test_threads_lose_no_count() -> None:
    limit = SpendLimit(1e9, prices=PRICES, key="user_id")

    def work() -> None:
        for i in range(1000):
            limit.spent(str(i % 7), "strong", 1_000_000, 0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(limit.spending(str(i)) for i in range(7)) == pytest.approx(80_000)


def test_counts_outlive_the_process(tmp_path: Path) -> None:
    clock = [5 * DAY]
    made = {"prices": PRICES, "key": "user_id", "store": tmp_path, "clock": lambda: clock[0]}
    limit = SpendLimit(1.0, **made)  # type: ignore[arg-type]
    limit.spent("a", "strong", 50_000, 0)
    share = ShareLimit("user_id", strong_fraction=0.3, store=tmp_path)
    share.decided("a", "strong")
    for saved in (limit, share):
        assert saved._saver is not None
        saved._saver.write()
    assert SpendLimit(1.0, **made).spending("a") == pytest.approx(0.5)  # type: ignore[arg-type]
    assert ShareLimit("user_id", strong_fraction=0.3, store=tmp_path).snapshot() == share.snapshot()
    clock[0] += DAY
    assert SpendLimit(1.0, **made).spending("a") == 0.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 2, "counts": {}}', '{"format": 1, "counts": {"a": 1e999}, "period": "x"}',
     '{"format": 1, "counts": {"a": -5}, "period": "x"}', '{"format": 1, "counts": [1], "period": "x"}', "[" * 200_000],
)  # fmt: skip
def test_a_file_that_is_not_a_state_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "spend-day.json").write_text(content)
    with pytest.raises(CheckpointError, match="spend-day"):
        SpendLimit(1.0, prices=PRICES, store=tmp_path)


def test_a_store_that_fails_ends_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("x")
    limit = SpendLimit(1.0, prices=PRICES, store=FileStore(tmp_path / "file" / "below"))
    limit.spent("", "weak", 1, 1)
    assert limit._saver is not None
    limit._saver.write()
    assert "cannot be saved" in caplog.text


def test_limits_travel_with_their_policy() -> None:
    limit = ShareLimit("user_id", strong_fraction=0.3)
    limit.decided("a", "strong")
    policy = RoutingPolicy("random", strong_fraction=0.3, limits=[limit])
    assert copy.deepcopy(policy).limits == (limit,)
    other = pickle.loads(pickle.dumps(policy))
    assert other.limits[0].snapshot() == {"format": 1, "counts": {}}
    json.dumps(limit.snapshot())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SpendLimit(0, prices=PRICES), "money=0"),
        (lambda: SpendLimit(float("nan"), prices=PRICES), "money=nan"),
        (lambda: SpendLimit(1, per="year", prices=PRICES), "per='year'"),  # type: ignore[arg-type]
        (lambda: SpendLimit(1, prices={"strong": Price(1, 1)}), "prices="),
        (lambda: SpendLimit(1, prices=PRICES, on_reached="stop"), "on_reached='stop'"),  # type: ignore[arg-type]
        (lambda: SpendLimit(1, prices=PRICES, key=""), "key=''"),
        (lambda: SpendLimit(1, prices=PRICES, max_keys=0), "max_keys=0"),
        (lambda: SpendLimit(1, prices=PRICES, store=5), "store=5"),  # type: ignore[arg-type]
        (lambda: ShareLimit(None, strong_fraction=0.3), "key=None"),  # type: ignore[arg-type]
        (lambda: ShareLimit("u", strong_fraction=3), "strong_fraction=3"),
        (lambda: ShareLimit("u", strong_fraction=0.3, window=1), "window=1"),
    ],
)
def test_what_is_wrong_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


@pytest.mark.parametrize("key", ["../../outside", "a/b", "C:\\users", "Ann", "x" * 500, "\ud800", "con.", "a\0b"])
def test_a_key_is_never_a_path(key: str, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "states"
    for made in (
        lambda: ShareLimit(key, strong_fraction=0.3, store=folder),
        lambda: SpendLimit(1.0, prices=PRICES, key=key, store=folder),
    ):
        limit = made()
        limit.decided("u", "strong")
        limit.spent("u", "strong", 1, 1)
        assert limit._saver is not None
        limit._saver.write()
        assert made().snapshot() == limit.snapshot()
        assert limit.snapshot()["counts"]
    assert len(list(folder.iterdir())) == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != folder] == []


def beyond_the_share(**options: Any) -> tuple[RoutingPolicy, RoutingRequest]:
    """A policy whose user "cheat" has taken more than the share."""
    limit = ShareLimit("user_id", strong_fraction=0.2, window=10)
    policy = RoutingPolicy(ScriptedRouter(), strong_fraction=0.2, limits=[limit], **options)
    for _ in range(10):
        limit.decided("cheat", "strong")
    return policy, of_user("p=0.1", "cheat")


@pytest.mark.parametrize("reason", ["sticky", "no_text"])
def test_a_share_is_not_left_without_a_win_rate(reason: Any) -> None:
    policy, _ = beyond_the_share()
    settled = RoutingRequest((), force="strong", reason=reason, keys={"user_id": "cheat"})
    decision = policy.decide(settled)
    assert (decision.model, decision.reason, decision.detail) == ("weak", "limit", "ShareLimit")
    honest = RoutingRequest((), force="strong", reason=reason, keys={"user_id": "ann"})
    assert policy.decide(honest).model == "strong"
    for passing in ("forced", "capability"):
        assert policy.decide(RoutingRequest((), force="strong", reason=passing, keys=settled.keys)).model == "strong"


def test_a_share_is_not_left_by_breaking_the_router() -> None:
    policy, _ = beyond_the_share()
    policy.router.error = RuntimeError("down")  # type: ignore[attr-defined]
    assert policy.decide(of_user("a", "ann")).model == "strong"
    decision = policy.decide(of_user("b", "cheat"))
    assert (decision.model, decision.reason) == ("weak", "limit")


@pytest.mark.parametrize("release_after", [None, 3])
def test_a_held_conversation_is_no_way_around_limits(release_after: int | None) -> None:
    limit = ShareLimit("user_id", strong_fraction=0.3, window=20)
    sticky = Stickiness(release_after=release_after)
    options: Any = {"router": ScriptedRouter(), "threshold": 0.5, "limits": [limit], "sticky": sticky}
    routing = Routing.of(options, owner="Model")
    settings = routing.settings({"thread_id": "t", "user_id": "cheat"})
    strong = 0
    for step in range(1000):
        text = "p=0.9" if step % 3 == 0 else "p=0.1"
        request = routing.request(settings, gap=lambda: None, texts=lambda text=text: text)  # type: ignore[misc]
        strong += routing.decide(request, settings).model == "strong"
    assert strong / 1000 == pytest.approx(0.3, abs=0.02)


def test_a_reached_cap_on_money_ends_a_hold() -> None:
    limit = SpendLimit(1.0, prices=PRICES)
    options: Any = {"router": ScriptedRouter(), "threshold": 0.5, "limits": [limit], "sticky": True}
    routing = Routing.of(options, owner="Model")
    settings = routing.settings({"thread_id": "t"})

    def decide(text: str) -> RoutingDecision:
        return routing.decide(routing.request(settings, gap=lambda: None, texts=lambda: text), settings)

    assert (decide("p=0.9").model, decide("p=0.1").reason) == ("strong", "sticky")
    limit.spent("", "strong", 1_000_000, 0)
    assert [decide(text).reason for text in ("p=0.9", "p=0.1")] == ["limit", "limit"]


def test_prompts_too_long_for_weak_count_as_strong_calls() -> None:
    class ContextOverflowError(Exception):
        """As langchain-core calls it."""

        status_code = 400

    limit = ShareLimit("user_id", strong_fraction=0.2, window=10)
    options: Any = {"router": ScriptedRouter(), "threshold": 0.5, "limits": [limit], "failover": True}
    routing = Routing.of(options, owner="Model")
    settings = routing.settings({"user_id": "cheat"})

    def call(side: str) -> str:
        if side == "weak":
            raise ContextOverflowError
        return side

    answers: list[str] = []
    for _ in range(20):
        request = routing.request(settings, gap=lambda: None, texts=lambda: "p=0.1")
        route = routing.route(request, routing.decide(request, settings), is_broken=lambda _: False)
        try:
            answers.append(route.run(call))
        except ContextOverflowError:
            answers.append("refused")
    # each was decided weak, but the strong model answered: as soon as the share is used up, it does so no more
    assert answers[:2] == ["strong", "strong"]
    assert answers.count("refused") >= 10
    assert "refused" in answers[-5:]


def test_a_clock_that_is_set_back_forgives_nothing() -> None:
    clock = [10 * DAY]
    limit = SpendLimit(1.0, prices=PRICES, clock=lambda: clock[0])
    limit.spent("", "strong", 1_000_000, 0)
    for moment in (9 * DAY, 10 * DAY - 1, 9.5 * DAY):
        clock[0] = moment
        assert limit.settled("") == "weak"
    clock[0] = 10 * DAY  # a new day
    assert limit.settled("") is None


def test_no_usage_makes_money() -> None:
    limit = SpendLimit(1.0, prices=PRICES)
    limit.spent("", "strong", 1_000_000, -5_000_000)
    limit.spent("", "strong", -5_000_000, 0)
    assert limit.spending() == pytest.approx(10.0)


def test_what_a_short_program_has_counted_is_saved(tmp_path: Path) -> None:
    program = f"""
from routellm_core import Price, RoutingPolicy, RoutingRequest, ShareLimit, SpendLimit
def main():
    prices = {{"strong": Price(1, 1), "weak": Price(1, 1)}}
    limits = [ShareLimit("user_id", strong_fraction=0.5, store={str(tmp_path)!r}),
              SpendLimit(10.0, prices=prices, store={str(tmp_path)!r})]
    policy = RoutingPolicy(lambda prompts: [0.5] * len(prompts), threshold=0.4, limits=limits)
    request = RoutingRequest(("a",), keys={{"user_id": "ann"}})
    policy.decide(request)
    policy.spent(request, "strong", 1_000_000, 0)
main()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    limit = SpendLimit(10.0, prices={"strong": Price(1, 1), "weak": Price(1, 1)}, store=tmp_path)
    assert limit.spending() == 1.0
    assert ShareLimit("user_id", strong_fraction=0.5, store=tmp_path).snapshot()["counts"] == {"ann": -0.5}
