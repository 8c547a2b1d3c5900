"""RoutingPolicy: decisions, failure rule, cache, deadline; single equals batch, sync equals async."""

import asyncio
import copy
import json
import logging
import math
import pickle
import threading
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core import (
    Calibration,
    ConfigurationError,
    DeadlineError,
    OnlineCalibration,
    PromptError,
    Router,
    RouterError,
    RoutingDecision,
    RoutingPolicy,
    RoutingRequest,
    load_router,
)
from routellm_core.policy.decision import new_id
from tests.support.waiting import until


class LengthRouter(Router):
    """Win rate = length / 100, capped; counts its calls and can fail."""

    name = "length"

    def __init__(self, failure=None):
        self.calls = []
        self.failure = failure

    def _win_rates(self, prompts):
        self.calls.append(list(prompts))
        if self.failure is not None:
            raise self.failure
        return np.minimum(np.array([len(p) for p in prompts]) / 100, 1.0)

    def _fingerprint_parts(self):
        return {"router": self.name}

    def _save(self, path):
        return {}

    @classmethod
    def _load(cls, path, config, **options):
        return cls(**options)


class BrokenRouter(LengthRouter):
    """Returns whatever it is told."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def _win_rates(self, prompts):
        return self.output


def test_a_tie_goes_to_strong():
    policy = RoutingPolicy(LengthRouter(), threshold=0.5)
    assert policy.decide("x" * 50) == RoutingDecision("strong", 0.5, 0.5, "length", "win_rate")
    assert policy.decide("x" * 49).model == "weak"


def test_the_decision_is_json_scalars():
    decision = RoutingPolicy(LengthRouter(), threshold=0.5).decide("x" * 50)
    as_dict = decision.to_dict()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert as_dict == {field.name: getattr(decision, field.name) for field in fields(decision)}
    assert all(v is None or isinstance(v, str | float | int) for v in as_dict.values())


def test_share_goes_through_the_calibration():
    router = LengthRouter()
    calibration = Calibration.from_win_rates(np.arange(100) / 100)
    policy = RoutingPolicy(router, calibration=calibration, strong_fraction=0.3)
    assert policy.threshold == pytest.approx(0.695)
    assert sum(d.model == "strong" for d in policy.decide_batch(["x" * n for n in range(100)])) == 30


def test_default_router_needs_nothing():
    policy = RoutingPolicy(strong_fraction=0.3)
    assert policy.router.fingerprint == load_router().fingerprint
    easy, hard = policy.decide_batch(["hi", "Prove that there are infinitely many primes."])
    assert easy.win_rate < hard.win_rate  # type: ignore[operator]
    assert easy.model == "weak"


def test_a_batch_is_one_call_without_repeats():
    router = LengthRouter()
    policy = RoutingPolicy(router, threshold=0.02)
    decisions = policy.decide_batch(["aa", "b", "aa", "ccc"])
    assert router.calls == [["aa", "b", "ccc"]]
    assert [d.model for d in decisions] == ["strong", "weak", "strong", "strong"]
    policy.decide_batch(["b", "dddd"])
    assert router.calls[1:] == [["dddd"]]


def test_cache_is_bounded_and_least_recently_used_goes():
    router = LengthRouter()
    policy = RoutingPolicy(router, threshold=0.5, cache_size=2)
    for prompt in ["a", "bb", "a", "ccc", "a", "bb"]:
        policy.decide(prompt)
    assert router.calls == [["a"], ["bb"], ["ccc"], ["bb"]]
    without = RoutingPolicy(LengthRouter(), threshold=0.5, cache_size=0)
    without.decide("a")
    without.decide("a")
    assert len(without.router.calls) == 2  # type: ignore[attr-defined]


def test_the_cache_holds_no_prompt_text():
    policy = RoutingPolicy(LengthRouter(), threshold=0.5)
    policy.decide("a secret prompt")
    assert b"secret" not in pickle.dumps(list(policy._serving.cache.__dict__))


def test_per_call_threshold_and_force():
    router = LengthRouter()
    policy = RoutingPolicy(router, threshold=0.5)
    assert policy.decide("x" * 40, threshold=0.3).model == "strong"
    assert policy.decide("x" * 40, threshold=0.3).threshold == 0.3
    router.calls.clear()
    forced = policy.decide("never scored", force="strong")
    assert (forced.model, forced.reason, forced.win_rate) == ("strong", "forced", None)
    assert router.calls == []


def test_the_hardest_text_of_a_request_decides():
    policy = RoutingPolicy(LengthRouter(), threshold=0.5)
    request = RoutingRequest(("short", "x" * 80))
    assert policy.decide(request).win_rate == 0.8
    settled = RoutingRequest(("x",), force="strong", reason="capability", detail="image_inputs")
    decision = policy.decide(settled)
    assert (decision.reason, decision.detail) == ("capability", "image_inputs")


@pytest.mark.parametrize(("on_error", "side"), [("strong", "strong"), ("weak", "weak")])
@pytest.mark.parametrize("failure", [ValueError("secret prompt"), RouterError("x"), TimeoutError("its own time-out")])
async def test_failure_rule(on_error, side, failure, caplog):
    policy = RoutingPolicy(LengthRouter(failure), threshold=0.5, on_error=on_error)
    with caplog.at_level(logging.WARNING, "routellm_core"):
        decisions = [policy.decide("x"), await policy.adecide("x")]
    for decision in decisions:
        assert (decision.model, decision.win_rate, decision.reason) == (side, None, "error")
        assert decision.error == type(failure).__name__
    assert "secret" not in caplog.text
    assert type(failure).__name__ in caplog.text


async def test_on_error_raise():
    policy = RoutingPolicy(LengthRouter(KeyError("x")), threshold=0.5, on_error="raise")
    with pytest.raises(RouterError, match="KeyError"):
        policy.decide("x")
    with pytest.raises(RouterError, match="KeyError"):
        await policy.adecide("x")


def test_prompts_known_already_survive_a_failure():
    router = LengthRouter()
    policy = RoutingPolicy(router, threshold=0.5, on_error="weak")
    policy.decide("x" * 90)
    router.failure = RuntimeError()
    known, unknown = policy.decide_batch(["x" * 90, "y" * 90])
    assert (known.model, known.reason) == ("strong", "win_rate")
    assert (unknown.model, unknown.reason) == ("weak", "error")


@pytest.mark.parametrize("output", [[math.nan], [1.5], [-0.1], [0.1, 0.2], [], [[0.1]], ["x"], None])
def test_what_is_no_win_rate_is_never_a_silent_route(output):
    router = BrokenRouter(output)
    with pytest.raises((RouterError, ValueError, TypeError)):
        router.win_rates(["x"])
    decision = RoutingPolicy(router, threshold=0.5, on_error="weak").decide("x")
    assert decision.reason == "error"


async def test_deadline(held_router):
    policy = RoutingPolicy(held_router, threshold=0.5, deadline=0.02, on_error="weak")
    for decision in (policy.decide("a"), await policy.adecide("b")):
        assert (decision.model, decision.reason, decision.error) == ("weak", "deadline", "DeadlineError")
    strict = RoutingPolicy(held_router, threshold=0.5, deadline=0.02, on_error="raise")
    with pytest.raises(DeadlineError, match=r"deadline=0\.02"):
        strict.decide("c")
    with pytest.raises(TimeoutError):
        await strict.adecide("d")
    patient = RoutingPolicy(LengthRouter(), threshold=0.5, deadline=60)
    assert patient.decide("x" * 60).model == "strong"
    assert (await patient.adecide("x" * 60)).model == "strong"


async def test_cancellation_passes_through(held_router):
    policy = RoutingPolicy(held_router, threshold=0.5, deadline=60)
    task = asyncio.create_task(policy.adecide("x"))
    await until(lambda: held_router.started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@given(st.lists(st.text(max_size=120), min_size=1, max_size=20), st.floats(0, 1))
def test_single_equals_batch_and_sync_equals_async(prompts, threshold):
    def policy():
        return RoutingPolicy(LengthRouter(), threshold=threshold)

    batch = policy().decide_batch(prompts)
    assert batch == [policy().decide(p) for p in prompts]
    assert batch == asyncio.run(policy().adecide_batch(prompts))


@given(st.floats(0, 1), st.floats(0, 1), st.text(max_size=120))
def test_a_higher_threshold_never_turns_weak_into_strong(a, b, prompt):
    low, high = sorted((a, b))
    router = LengthRouter()
    if RoutingPolicy(router, threshold=high).decide(prompt).model == "strong":
        assert RoutingPolicy(router, threshold=low).decide(prompt).model == "strong"


def test_one_policy_in_many_threads():
    policy = RoutingPolicy(LengthRouter(), threshold=0.5, cache_size=16)
    wrong = []

    def work(start):
        for n in range(start, start + 200):
            length = n % 100
            if policy.decide("x" * length).win_rate != length / 100:
                wrong.append(length)

    threads = [threading.Thread(target=work, args=(i * 7,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(policy._serving.cache.__dict__) <= 16


def test_copies_share_and_pickles_work():
    policy = RoutingPolicy(load_router("random"), threshold=0.5)
    policy.decide("x")
    assert copy.deepcopy(policy) is policy
    again = pickle.loads(pickle.dumps(policy))
    assert again.decide("x") == policy.decide("x")


def test_of_takes_a_policy_or_options():
    policy = RoutingPolicy(LengthRouter(), threshold=0.5)
    assert RoutingPolicy.of(policy, threshold=None, router=None) is policy
    assert RoutingPolicy.of(None, router=LengthRouter(), threshold=0.2).threshold == 0.2
    with pytest.raises(ConfigurationError, match="threshold="):
        RoutingPolicy.of(policy, threshold=0.2)
    with pytest.raises(ConfigurationError, match="policy="):
        RoutingPolicy.of("mf", threshold=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "strong_fraction"),
        ({"threshold": 0.5, "strong_fraction": 0.5}, "both"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"threshold": -0.1}, "threshold=-0.1"),
        ({"threshold": math.nan}, "threshold=nan"),
        ({"threshold": "0.5"}, "threshold='0.5'"),
        ({"threshold": True}, "threshold=True"),
        ({"strong_fraction": 30}, "strong_fraction=30"),
        ({"strong_fraction": math.nan}, "strong_fraction=nan"),
        ({"threshold": 0.5, "on_error": "ignore"}, "on_error='ignore'"),
        ({"threshold": 0.5, "deadline": 0}, "deadline=0"),
        ({"threshold": 0.5, "deadline": "1"}, "deadline='1'"),
        ({"threshold": 0.5, "deadline": math.nan}, "deadline=nan"),
        ({"threshold": 0.5, "cache_size": -1}, "cache_size=-1"),
        ({"threshold": 0.5, "cache_size": 1.5}, "cache_size=1.5"),
        ({"threshold": 0.5, "router": 7}, "router=7"),
        ({"threshold": 0.5, "router": "nope"}, "'nope'"),
        ({"threshold": 0.5, "calibration": "file.json"}, "calibration='file.json'"),
        ({"strong_fraction": 0.5, "router": LengthRouter()}, "calibration"),
        ({"strong_fraction": 0.5, "calibration": Calibration([0.5], [1], fingerprint="x")}, "fingerprint"),
    ],
)
def test_wrong_options_fail_at_construction(options, named):
    with pytest.raises(ConfigurationError) as caught:
        RoutingPolicy(**{"router": load_router("random"), **options})
    assert named in str(caught.value)


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["a", None], [b"x"], [], "a bare string", [["x"]]])
async def test_what_is_no_prompt_raises_whatever_the_failure_rule(bad):
    policy = RoutingPolicy(LengthRouter(), threshold=0.5, on_error="weak")
    with pytest.raises(PromptError):
        policy.decide_batch(bad)
    with pytest.raises(PromptError):
        await policy.adecide_batch(bad)
    if not isinstance(bad, str):
        with pytest.raises(PromptError):
            policy.decide(bad)


@pytest.mark.parametrize("bad", [2, math.nan, "0.5"])
def test_bad_per_call_settings(bad):
    policy = RoutingPolicy(LengthRouter(), threshold=0.5)
    with pytest.raises(ConfigurationError, match="threshold"):
        policy.decide("x", threshold=bad)
    with pytest.raises(ConfigurationError, match="force"):
        policy.decide("x", force=bad)
    with pytest.raises(ConfigurationError, match="threshold"):
        policy.decide(RoutingRequest(("x",), threshold=bad))
    with pytest.raises(ConfigurationError, match="force"):
        policy.decide(RoutingRequest(("x",), force="medium"))  # type: ignore[arg-type]
    with pytest.raises(PromptError):
        policy.decide(RoutingRequest(()))


def test_online_keeps_the_share_while_traffic_changes():
    router = LengthRouter()
    calibration = Calibration.from_win_rates(np.arange(100) / 100)
    policy = RoutingPolicy(router, calibration=calibration, strong_fraction=0.3, online=True)
    lengths = np.random.default_rng(0).integers(50, 100, 6000)  # harder than what was calibrated on
    decisions = policy.decide_batch(["x" * int(n) for n in lengths])
    assert abs(np.mean([d.model == "strong" for d in decisions]) - 0.3) < 0.02
    assert np.mean(lengths / 100 >= policy.threshold) > 0.55  # the fixed threshold would have sent twice as many
    assert all((d.win_rate >= d.threshold) == (d.model == "strong") for d in decisions)  # type: ignore[operator]
    assert policy.online.drift.drifted  # type: ignore[union-attr]
    observed = policy.online.observed  # type: ignore[union-attr]
    policy.decide("x", threshold=0.5)
    policy.decide("x", force="weak")
    assert policy.online.observed == observed  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.5, "online": True},
        {"strong_fraction": 0.5, "online": "yes"},
        {"strong_fraction": 0.5, "online": OnlineCalibration([0.1, 0.9], 0.3)},
        {"strong_fraction": 0.5, "online": True, "router": LengthRouter()},
    ],
)
def test_online_refuses_what_does_not_fit(options):
    with pytest.raises(ConfigurationError, match="online="):
        RoutingPolicy(**{"router": load_router("random"), **options})


async def test_concurrent_tasks_share_one_call_of_the_router():
    router = LengthRouter()
    policy = RoutingPolicy(router, threshold=0.5)
    decisions = await asyncio.gather(*(policy.adecide("x" * n) for n in range(100)))
    assert [d.win_rate for d in decisions] == [n / 100 for n in range(100)]
    assert len(router.calls) == 1
    await asyncio.gather(policy.adecide("y"), policy.adecide_batch(["z", "zz"]))
    assert router.calls[1:] == [["y", "z", "zz"]]


class RefusingRouter(LengthRouter):
    """Fails on any batch that holds the one prompt that it cannot bear."""

    def _win_rates(self, prompts):
        rates = super()._win_rates(prompts)
        if "unbearable" in prompts:
            raise RuntimeError
        return rates


async def test_one_tasks_failure_is_not_anothers():
    policy = RoutingPolicy(RefusingRouter(), threshold=0.5, on_error="weak")
    good, bad, other = await asyncio.gather(*(policy.adecide(p) for p in ("x" * 60, "unbearable", "x" * 70)))
    assert (good.win_rate, other.win_rate) == (0.6, 0.7)
    assert bad.reason == "error"


async def test_a_cancelled_task_takes_no_other_with_it(held_router):
    policy = RoutingPolicy(held_router, threshold=0.5)
    tasks = [asyncio.create_task(policy.adecide(f"p={rate}")) for rate in (0.1, 0.2, 0.3)]
    await until(lambda: held_router.started)
    tasks[1].cancel()
    held_router.release()
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first.win_rate, third.win_rate) == (0.1, 0.3)  # type: ignore[union-attr]
    assert isinstance(second, asyncio.CancelledError)


def test_loops_in_many_threads_share_a_policy():
    policy = RoutingPolicy(LengthRouter(), threshold=0.5, cache_size=0)
    wrong = []

    async def ask():
        return await asyncio.gather(*(policy.adecide("x" * n) for n in range(1, 60)))

    def work():
        for _ in range(10):
            wrong.extend(d for n, d in enumerate(asyncio.run(ask()), 1) if d.win_rate != n / 100)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_request_and_the_settings_of_the_call_both_hold():
    policy = RoutingPolicy(LengthRouter(), threshold=0.5)
    request = RoutingRequest(("x" * 40,))
    assert policy.decide(request, threshold=0.3) == policy.decide("x" * 40, threshold=0.3)
    assert policy.decide(request, force="strong").reason == "forced"
    assert policy.decide(RoutingRequest((), force="weak"), force="weak").model == "weak"
    own = RoutingRequest(("x" * 40,), threshold=0.9)
    assert [d.model for d in policy.decide_batch([own, request], threshold=0.9)] == ["weak", "weak"]
    with pytest.raises(ConfigurationError, match=r"threshold=0.3 is given beside a RoutingRequest with threshold=0.9"):
        policy.decide(own, threshold=0.3)
    with pytest.raises(ConfigurationError, match="force='strong' is given beside"):
        policy.decide(RoutingRequest((), force="weak"), force="strong")


@pytest.mark.parametrize("prompts", [(), "a secret", ("a", 5), None])
def test_a_request_without_texts_is_refused_without_quoting_it(prompts):
    policy = RoutingPolicy(LengthRouter(), threshold=0.5)
    with pytest.raises(PromptError) as refused:
        policy.decide(RoutingRequest(prompts))
    assert "secret" not in str(refused.value)


def test_decisions_have_ids_of_their_own_and_survive_storage():
    policy = RoutingPolicy(LengthRouter(), threshold=0.5)
    first, second = policy.decide_batch(["a", "a"])
    assert first.id != second.id
    assert len(first.id) == 32
    assert first == second
    stored = json.loads(json.dumps(first.to_dict()))
    restored = RoutingDecision.from_dict(stored)
    assert restored == first
    assert restored.id == first.id
    older = {k: v for k, v in stored.items() if k != "id"}
    assert RoutingDecision.from_dict({**older, "later": 1}).id == ""  # type: ignore[union-attr]
    assert RoutingDecision.from_dict({"model": "weak"}) is None
    assert RoutingDecision.from_dict("weak") is None


@pytest.mark.parametrize(("win_rate", "side", "p_strong"), [(0.5, "strong", 1.0), (0.4, "weak", 0.0)])
def test_the_short_way_to_a_decision_sets_every_field(win_rate, side, p_strong):
    short = RoutingDecision.by_win_rate(win_rate, 0.5, "length", "v1")
    long = RoutingDecision(side, win_rate, 0.5, "length", p_strong=p_strong, router_version="v1", id=short.id)
    assert list(vars(short)) == [field.name for field in fields(RoutingDecision)]
    assert short.to_dict() == long.to_dict()
    assert (short, hash(short), repr(short)) == (long, hash(long), repr(long))
    assert pickle.loads(pickle.dumps(short)).to_dict() == short.to_dict()
    with pytest.raises(FrozenInstanceError):
        short.model = "weak"  # type: ignore[misc]


def test_the_short_way_to_a_request_sets_every_field():
    short, long = (
        RoutingRequest.of_texts(("a",), 0.5, {"user_id": "1"}),
        RoutingRequest(("a",), 0.5, keys={"user_id": "1"}),
    )
    assert list(vars(short)) == [field.name for field in fields(RoutingRequest)]
    assert (short, repr(short)) == (long, repr(long))
    assert RoutingRequest.of_texts(("a",)) == RoutingRequest(("a",))


def test_ids_are_never_repeated():
    count = 1000
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.extend(new_id() for _ in range(count))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 4 * count
    assert {len(id_) for id_ in ids} == {32}
    assert set("".join(ids)) == set("0123456789abcdef")
