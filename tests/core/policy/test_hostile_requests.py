"""Hostile prompts, requests and routers: a decision or an error of this package, and nothing else, in good time."""

from __future__ import annotations

import asyncio
import json
import random
import traceback
from typing import Any

import numpy as np
import pytest

from routellm_core import (
    Calibration,
    OnlineCalibration,
    Price,
    RouteLLMError,
    RoutingPolicy,
    RoutingRequest,
    ShareLimit,
    SpendLimit,
    Stickiness,
)

SECRET = "a secret prompt"


class Text(str):
    """A str that is not one of Python's own."""


HOSTILE: list[Any] = [
    *("", " ", "\0", "\ud800", "a" * 100_000, "é" * 3000, Text("x")),
    *(None, 5, b"bytes", [], ("a",), {}, object(), float("nan"), True),
    *(RoutingRequest(prompts) for prompts in (("a",), ("a", "b"), ("\ud800",), ["a"])),  # type: ignore[arg-type]
    *(RoutingRequest(prompts) for prompts in ((), "abc", None, (1,), {"a"}, iter(["a"]))),  # type: ignore[arg-type]
    *(RoutingRequest(("a",), threshold=value) for value in (0.5, 2, "0.5", float("nan"), True)),  # type: ignore[arg-type]
    *(RoutingRequest((), force=value) for value in ("strong", "sideways", True)),  # type: ignore[arg-type]
    *(
        RoutingRequest(("a",), keys=keys)  # type: ignore[arg-type]
        for keys in ({"user_id": "u"}, {"user_id": 5}, {"user_id": None}, {"user_id": ["x"]}, {5: 6}, 5, [("a", "b")])
    ),
    RoutingRequest(("a",), keys={"user_id": "\ud800" * 10**6}),
]
THRESHOLDS: list[Any] = [None, None, None, 0, 1, 0.5, np.float64(0.3), True, float("inf"), -1, "0.5", [], 10**400]
FORCES: list[Any] = [None, None, None, "strong", "weak", "STRONG", 1, True, "", []]
ERRORS = (
    *(ValueError, KeyError, RuntimeError, MemoryError, RecursionError, StopIteration, StopAsyncIteration),
    *(TimeoutError, AssertionError, OSError, EOFError, ZeroDivisionError),
)


class HostileRouter:
    """Gives anything but win rates, every second time."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def win_rates(self, prompts: list[str]) -> Any:
        count = len(prompts)
        if self._rng.random() < 0.5:
            return [0.5] * count
        if self._rng.random() < 0.5:
            raise self._rng.choice(ERRORS)(SECRET)
        return self._rng.choice(
            [[float("nan")] * count, [0.5] * (count + 1), [], None, [-0.1] * count, ["a"] * count, [1e308] * count, 0.5]
        )


def a_policy(rng: random.Random) -> RoutingPolicy:
    options: dict[str, Any] = {"threshold": rng.choice([0, 0.3, 1])}
    if rng.random() < 0.5:
        calibration = Calibration.from_win_rates(np.linspace(0, 1, 100))
        options = {"strong_fraction": rng.choice([0.3, 0.5]), "calibration": calibration, "online": rng.random() < 0.5}
    if rng.random() < 0.5:
        prices = {"strong": Price(1, 1), "weak": Price(1, 1)}
        options["limits"] = [
            ShareLimit("user_id", strong_fraction=0.3, window=10),
            SpendLimit(1, prices=prices, key="user_id", on_reached=rng.choice(["weak", "raise"])),
        ]
    return RoutingPolicy(
        HostileRouter(rng),
        on_error=rng.choice(["strong", "weak", "raise"]),
        cache_size=rng.choice([0, 2, 100]),
        deadline=rng.choice([None, 5.0]),
        explore=rng.choice([0.0, 0.2]),
        observe=rng.choice([None, None, "strong", "weak"]),
        **options,
    )


async def decided(policy: RoutingPolicy, rng: random.Random) -> None:
    """One call by one of the four doors."""
    items = [rng.choice(HOSTILE) if rng.random() < 0.5 else f"p {rng.random()}" for _ in range(rng.choice([1, 1, 3]))]
    options = {"threshold": rng.choice(THRESHOLDS), "force": rng.choice(FORCES)}
    batch: Any = items if rng.random() < 0.9 else rng.choice([None, "text", 5, [], (), {}])
    try:
        match rng.randrange(4):
            case 0:
                decisions = [policy.decide(items[0], **options)]
            case 1:
                decisions = policy.decide_batch(batch, **options)
            case 2:
                decisions = [await policy.adecide(items[0], **options)]
            case _:
                decisions = await policy.adecide_batch(batch, **options)
    except RouteLLMError as exc:
        decisions, shown = [], "".join(traceback.format_exception(exc))
    else:
        shown = ""
    assert SECRET not in shown
    for decision in decisions:
        json.dumps(decision.to_dict())
        assert decision.model in ("strong", "weak")
        assert decision.win_rate is None or 0.0 <= decision.win_rate <= 1.0
        assert 0.0 <= decision.threshold <= 1.0
        assert 0.0 <= decision.p_strong <= 1.0


@pytest.mark.parametrize("seed", range(20))
async def test_only_decisions_and_errors_of_this_package_come_out(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        policy = a_policy(rng)
        for _ in range(10):
            await asyncio.wait_for(decided(policy, rng), timeout=30)


def test_memory_of_users_is_bounded_by_their_number_and_not_by_their_names() -> None:
    limit = ShareLimit("user_id", strong_fraction=0.3)
    policy = RoutingPolicy(lambda prompts: [0.5] * len(prompts), threshold=0.4, limits=[limit])
    for user in ("x" * 10**6, "y" * 10**6, None):
        policy.decide(RoutingRequest(("a",), keys={"user_id": user}))  # type: ignore[dict-item]
    users = limit.snapshot()["counts"]
    assert sorted(map(len, users)) == [0, 64, 64]


HUGE = 10**5000  # Python refuses to write so many digits
PRICES = {"strong": Price(1, 1), "weak": Price(1, 1)}


@pytest.mark.parametrize("value", [HUGE, -HUGE, float("nan"), float("inf"), -1, [], object()], ids=type)
@pytest.mark.parametrize(
    "made",
    [
        lambda value: RoutingPolicy(HostileRouter(random.Random(0)), threshold=value),
        lambda value: RoutingPolicy(HostileRouter(random.Random(0)), threshold=0.5, deadline=value),
        lambda value: RoutingPolicy(HostileRouter(random.Random(0)), threshold=0.5, explore=value),
        lambda value: RoutingPolicy(HostileRouter(random.Random(0)), threshold=0.5, observe=value),
        lambda value: RoutingPolicy(HostileRouter(random.Random(0)), threshold=0.5, online=value),
        lambda value: RoutingPolicy(HostileRouter(random.Random(0)), threshold=0.5, limits=[value]),
        lambda value: RoutingPolicy(HostileRouter(random.Random(0)), threshold=0.5).decide("a", threshold=value),
        lambda value: RoutingPolicy(HostileRouter(random.Random(0)), threshold=0.5).decide("a", force=value),
        lambda value: SpendLimit(value, prices=PRICES),
        lambda value: SpendLimit(1, prices=value),
        lambda value: SpendLimit(1, prices=PRICES, per=value),
        lambda value: SpendLimit(1, prices=PRICES, key=value),
        lambda value: ShareLimit("user_id", strong_fraction=value),
        lambda value: Price(value, 1),
        lambda value: Stickiness(ttl=value),
        lambda value: Stickiness(value),
        lambda value: OnlineCalibration([0.1, 0.5], value),
    ],
)
def test_no_value_breaks_a_message(made: Any, value: Any) -> None:
    with pytest.raises(RouteLLMError) as caught:
        made(value)
    assert len(str(caught.value)) < 600
