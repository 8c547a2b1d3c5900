"""OnlineCalibration: the share stays on target while traffic changes, and the change is told."""

import json
import math
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routellm_core import Calibration, CheckpointError, CheckpointNotFoundError, ConfigurationError, RoutingPolicy
from routellm_core.calibration import OnlineCalibration
from tests.support.routers import ScriptedRouter
from tests.support.shared import needs_data, rows


def strong_share(online, win_rates):
    thresholds = np.array(online.observe_batch(win_rates.tolist()))
    return (win_rates >= thresholds).mean(), win_rates >= thresholds


@pytest.mark.slow
def test_share_holds_while_traffic_turns_from_chat_to_maths():
    rng = np.random.default_rng(0)
    n = 100_000
    maths = rng.random(n) < np.linspace(0, 1, n)
    win_rates = np.where(maths, rng.beta(6, 3, n), rng.beta(2, 5, n))
    calibration = Calibration.from_win_rates(rng.beta(2, 5, 5000))
    online = OnlineCalibration(calibration, 0.3)
    share, chosen = strong_share(online, win_rates)
    fixed = (win_rates >= calibration.threshold(strong_fraction=0.3)).mean()
    assert abs(fixed - 0.3) > 0.10
    assert abs(share - 0.3) < 0.02
    # not only on the whole: in every stretch of 5,000 too
    assert np.abs(chosen.reshape(20, -1).mean(axis=1) - 0.3).max() < 0.02
    assert online.drift.drifted
    assert abs(online.drift.fixed_share - 0.3) > 0.10
    assert online.realised == pytest.approx(share)


def made_up_prompts(kind):
    """Prompts of one kind that the bundled router tells from the other."""
    rng = np.random.default_rng(1)
    if kind == "chat":
        frames = ["hi, {}?", "thanks, and {}", "Do you like {}", "tell me about {}", "Write a poem on {} for my aunt"]
        things = ["cats", "rain", "Sunday lunch", "the seaside", "old films", "jazz", "my new bike"]
    else:
        frames = [
            "Find the sum of all positive integers n such that {} divides n^2 + 1.",
            "Let f(x) = x^3 - {}x + 1. How many real roots has f(f(x)) = 0?",
            "Prove that there are infinitely many primes congruent to {} modulo 4.",
        ]
        things = [str(n) for n in range(3, 40)]
    return [rng.choice(frames).format(rng.choice(things)) for _ in range(1000)]


@pytest.mark.slow
@pytest.mark.parametrize("prompts", ["made up", pytest.param("real", marks=needs_data)])
def test_share_holds_while_prompts_turn_from_chat_to_maths(prompts):
    from routellm_core import load_router

    router = load_router()
    if prompts == "real":
        chat = router.win_rates([r["turns"][0] for _, r in zip(range(3000), rows("preferences/arena"), strict=False)])
        maths = router.win_rates([r["prompt"] for r in rows("outcomes/math_l5")])
    else:
        chat, maths = (router.win_rates(made_up_prompts(kind)) for kind in ("chat", "maths"))
    rng = np.random.default_rng(0)
    turned = rng.random(100_000) < np.linspace(0, 1, 100_000)
    win_rates = np.where(turned, rng.choice(maths, 100_000), rng.choice(chat, 100_000))
    calibration = Calibration.fit(router, ["x"]).from_win_rates(chat)
    fixed = (win_rates >= calibration.threshold(strong_fraction=0.3)).mean()
    share, _ = strong_share(OnlineCalibration(calibration, 0.3), win_rates)
    assert abs(fixed - 0.3) > 0.10
    assert abs(share - 0.3) < 0.02


@pytest.mark.slow
def test_share_holds_after_a_sudden_change():
    rng = np.random.default_rng(1)
    win_rates = np.concatenate([rng.beta(2, 5, 5000), rng.beta(8, 2, 5000)])
    online = OnlineCalibration(rng.beta(2, 5, 3000), 0.3, window=1000)
    _, chosen = strong_share(online, win_rates)
    assert abs(chosen[5000:].mean() - 0.3) < 0.02


@pytest.mark.slow
@given(
    st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.5000001, 1.0]), min_size=400, max_size=400),
    st.sampled_from([0.1, 0.3, 0.5]),
)
@settings(max_examples=30)
def test_share_holds_with_few_distinct_win_rates(values, wanted):
    win_rates = np.array(values)
    # with a win rate of exactly 1, no threshold can make the prompt weak
    if (win_rates == 1.0).mean() > wanted - 0.02:
        return
    online = OnlineCalibration(win_rates, wanted, window=50)
    share, _ = strong_share(online, np.tile(win_rates, 5))
    assert abs(share - wanted) < 0.03


@pytest.mark.parametrize("low", [0.3, 0.5, 0.0])
def test_neighbouring_win_rates_are_told_apart(low):
    online = OnlineCalibration([low, math.nextafter(low, 1)], 0.5, window=50)
    assert low < online.threshold <= math.nextafter(low, 1)


def test_constant_traffic_is_split_to_the_share():
    share, _ = strong_share(OnlineCalibration([0.5], 0.3), np.full(5000, 0.5))
    assert share == pytest.approx(0.3, abs=0.005)


def test_unchanged_traffic_keeps_the_threshold_and_is_no_drift():
    rng = np.random.default_rng(2)
    reference = rng.beta(2, 5, 5000)
    online = OnlineCalibration(reference, 0.3)
    start = online.threshold
    assert start == pytest.approx(Calibration.from_win_rates(reference).threshold(strong_fraction=0.3), abs=0.005)
    strong_share(online, rng.beta(2, 5, 20_000))
    assert online.threshold == pytest.approx(start, abs=0.05)
    assert not online.drift.drifted
    assert online.drift.observed == 2000


def test_drift_p_value_is_uniform_when_nothing_changed():
    rng = np.random.default_rng(3)
    below = 0
    for _ in range(200):
        online = OnlineCalibration(rng.random(2000), 0.3, window=300)
        online.observe_batch(rng.random(300).tolist())
        below += online.drift.p_value < 0.1
    assert 0.04 <= below / 200 <= 0.17


def test_drift_needs_enough_prompts():
    online = OnlineCalibration(np.linspace(0, 0.5, 1000), 0.3)
    assert online.drift.to_dict()["observed"] == 0
    online.observe_batch([0.99] * 100)
    assert not online.drift.drifted
    online.observe_batch([0.99] * 100)
    assert online.drift.drifted
    assert online.drift.distance == pytest.approx(1.0)


def test_threshold_does_not_depend_on_the_prompt_it_is_used_for():
    online = OnlineCalibration(np.linspace(0, 1, 1000), 0.3)
    before = online.threshold
    assert online.observe(0.01) == before
    before = online.threshold
    assert online.observe(0.99) == before


@pytest.mark.parametrize("wanted", [0.0, 1.0])
def test_always_and_never_stay_so(wanted):
    share, _ = strong_share(
        OnlineCalibration(np.linspace(0, 0.9, 100), wanted), np.random.default_rng(0).random(500) * 0.9
    )
    assert share == wanted


def test_state_goes_on_exactly_after_a_restart(tmp_path):
    rng = np.random.default_rng(4)
    online = OnlineCalibration(rng.random(500), 0.3, window=100)
    online.observe_batch(rng.random(250).tolist())
    online.save(tmp_path / "state.json")
    restored = OnlineCalibration.load(tmp_path / "state.json")
    more = rng.random(300).tolist()
    assert restored.observe_batch(more) == online.observe_batch(more)
    assert restored.to_dict() == online.to_dict()
    assert restored.drift == online.drift
    assert "observed=550" in repr(restored)


def test_state_goes_to_another_process():
    online = OnlineCalibration([0.2, 0.4, 0.9], 0.3, window=50)
    online.observe_batch([0.1, 0.8, 0.5])
    copied = pickle.loads(pickle.dumps(online))
    assert copied.to_dict() == online.to_dict()
    copied.observe(0.7)
    assert (online.observed, copied.observed) == (3, 4)


def test_state_is_bounded():
    online = OnlineCalibration(np.random.default_rng(0).random(50_000), 0.3, window=200)
    online.observe_batch(np.random.default_rng(1).random(5000).tolist())
    state = online.to_dict()
    assert len(state["recent"]) == 200
    assert len(state["calibration"]["values"]) <= 10_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("recent"),
        lambda d: d.update(format=99),
        lambda d: d.update(recent=[0.5]),
        lambda d: d["recent"].__setitem__(0, 7.0),
        lambda d: d.update(strong=10**9),
        lambda d: d.update(owed=float("nan")),
        lambda d: d.update(observed=float("inf")),
        lambda d: d.update(calibration=None),
    ],
)
def test_damaged_state_is_refused(tmp_path, damage):
    data = OnlineCalibration([0.1, 0.9], 0.5, window=50).to_dict()
    damage(data)
    with pytest.raises(CheckpointError):
        OnlineCalibration.from_dict(data)
    (tmp_path / "bad.json").write_text(json.dumps(data)[:-3])
    with pytest.raises(CheckpointError, match="JSON"):
        OnlineCalibration.load(tmp_path / "bad.json")
    with pytest.raises(CheckpointNotFoundError):
        OnlineCalibration.load(tmp_path / "none.json")


def test_threads_lose_no_prompt():
    online = OnlineCalibration(np.linspace(0, 1, 1000), 0.3, window=100)
    values = np.random.default_rng(0).random(2000).tolist()
    counts = []

    def work():
        thresholds = online.observe_batch(values)
        counts.append(sum(v >= t for v, t in zip(values, thresholds, strict=True)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert online.observed == 8000
    assert online.realised == sum(counts) / 8000
    assert online.realised == pytest.approx(0.3, abs=0.01)
    assert sorted(online._recent) == online._sorted


def test_bad_values_are_named():
    with pytest.raises(ConfigurationError, match="window=10"):
        OnlineCalibration([0.5], 0.3, window=10)
    with pytest.raises(ConfigurationError, match="strong_fraction"):
        OnlineCalibration([0.5], 30)
    with pytest.raises(ConfigurationError, match="win_rate"):
        OnlineCalibration([0.5], 0.3).observe(float("nan"))


def test_calibration_of_another_router_is_refused():
    router = ScriptedRouter()
    online = OnlineCalibration(Calibration.fit(router, ["p=0.1", "p=0.9"]), 0.5)
    online.check_router(router)
    with pytest.raises(ConfigurationError, match="fingerprint"):
        online.check_router(ScriptedRouter(default=0.4))


def test_a_policy_keeps_its_share_online():
    router = ScriptedRouter()
    policy = RoutingPolicy(router, strong_fraction=0.3, online=True, cache_size=0)
    rng = np.random.default_rng(0)
    prompts = [f"p={value:.4f}" for value in 0.6 + 0.39 * rng.random(4000)]  # far from the uniform calibration
    decisions = policy.decide_batch(prompts)
    assert np.mean([d.model == "strong" for d in decisions]) == pytest.approx(0.3, abs=0.03)


def other_kinds():
    calibration = Calibration.from_win_rates([0.1, 0.9])
    state = OnlineCalibration(calibration, 0.5, window=50).to_dict()
    return {
        "cut.json": (json.dumps(state)[:-3], ["not readable JSON"]),
        "bytes.json": ("\xff\xfe", ["not readable JSON"]),
        "deep.json": ("[" * 100_000, ["not readable JSON"]),
        "calibration.json": (json.dumps(calibration.to_dict()), ["is a Calibration", "Calibration.load"]),
        "list.json": ("[1, 2]", ["a list"]),
        "rows.json": ('{"prompt": "a"}', ["no 'format'"]),
        "later.json": (json.dumps({**state, "format": 2}), ["format 2", "reads 1"]),
        "lacks.json": (json.dumps({k: v for k, v in state.items() if k != "recent"}), ["no 'recent'"]),
        "window.json": (json.dumps({**state, "window": 3}), ["window=3"]),
        "inner.json": (json.dumps({**state, "calibration": {}}), ["calibration format None"]),
        "short.json": (json.dumps({**state, "recent": [0.5]}), ["1 recent win rates", "window=50"]),
    }


@pytest.mark.parametrize("name", list(other_kinds()))
def test_a_file_that_is_no_state_is_named_with_what_is_wrong_and_what_to_do(name, tmp_path):
    text, said = other_kinds()[name]
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError) as caught:
        OnlineCalibration.load(tmp_path / name)
    message = str(caught.value)
    for part in (str(tmp_path / name), *said, "OnlineCalibration(calibration, strong_fraction)"):
        assert part in message
    assert message.count("not a saved online calibration") <= 1
    assert len(message) < 600


def test_a_state_that_is_missing_or_a_folder_is_told(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"none\.json.*OnlineCalibration\.save"):
        OnlineCalibration.load(tmp_path / "none.json")
    with pytest.raises(CheckpointNotFoundError, match="is a folder"):
        OnlineCalibration.load(tmp_path)


def test_a_state_of_another_router_names_its_file_and_what_to_do(tmp_path):
    file = tmp_path / "state.json"
    OnlineCalibration(Calibration.fit(ScriptedRouter(), ["p=0.1", "p=0.9"]), 0.5, window=50).save(file)
    online = OnlineCalibration.load(file)
    online.check_router(ScriptedRouter())
    other = ScriptedRouter(default=0.4)
    with pytest.raises(ConfigurationError, match="fingerprint") as caught:
        RoutingPolicy(other, strong_fraction=0.5, online=online)
    assert str(file) in str(caught.value)
    assert "OnlineCalibration(calibration, strong_fraction)" in str(caught.value)
    assert pickle.loads(pickle.dumps(online)).to_dict() == online.to_dict()
    with pytest.raises(ConfigurationError) as caught:
        OnlineCalibration(Calibration.fit(ScriptedRouter(), ["p=0.1"]), 0.5).check_router(other)
    assert "None" not in str(caught.value)
