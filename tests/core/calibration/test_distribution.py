"""Calibration: thresholds and shares, exact with ties, and its file."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routellm_core import (
    Calibration,
    CheckpointError,
    CheckpointNotFoundError,
    ConfigurationError,
    PromptError,
    load_router,
)
from routellm_core.calibration.thresholds import threshold_after
from tests.support.shared import golden_json, needs_golden

win_rates = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])), min_size=1, max_size=60)
fractions = st.floats(0, 1)


@given(win_rates, fractions)
def test_realised_share_is_the_closest_possible(values, wanted):
    calibration = Calibration.from_win_rates(values)
    threshold = calibration.threshold(strong_fraction=wanted)
    assert 0.0 <= threshold <= 1.0
    realised = np.mean(np.asarray(values) >= threshold)
    assert realised == calibration.strong_fraction(threshold=threshold)
    assert realised == calibration.realised_fraction(strong_fraction=wanted)
    # every share that any threshold in [0, 1] can reach
    possible = {float(np.mean(np.asarray(values) >= t)) for t in [0.0, 1.0, *values]}
    possible |= {float(np.mean(np.asarray(values) >= math.nextafter(v, 2))) for v in values if v < 1}
    assert abs(realised - wanted) == min(abs(p - wanted) for p in possible)


@given(win_rates, fractions, fractions)
def test_a_larger_share_never_raises_the_threshold(values, a, b):
    calibration = Calibration.from_win_rates(values)
    low, high = sorted((a, b))
    assert calibration.threshold(strong_fraction=high) <= calibration.threshold(strong_fraction=low)
    assert calibration.strong_fraction(threshold=low) >= calibration.strong_fraction(threshold=high)


# halfway between neighbours, some round down to the lower one (0.5, 0.0) and some up (0.3)
neighbours = st.floats(0, 1, exclude_max=True).map(lambda low: (low, math.nextafter(low, 2)))


@given(neighbours | st.sampled_from([(low, math.nextafter(low, 2)) for low in (0.0, 0.25, 0.3, 0.5, 5e-324)]))
@example((0.5, math.nextafter(0.5, 2)))
@example((0.0, 5e-324))
def test_neighbouring_floats_are_told_apart(pair):
    low, high = pair
    calibration = Calibration.from_win_rates([low, high])
    threshold = calibration.threshold(strong_fraction=0.5)
    assert low < threshold <= high
    assert calibration.strong_fraction(threshold=threshold) == 0.5
    assert threshold_after(np.array([high, low]), 1) == threshold


def test_extremes():
    calibration = Calibration.from_win_rates([0.2, 0.4, 0.4, 0.9])
    assert calibration.threshold(strong_fraction=1.0) == 0.0
    assert calibration.threshold(strong_fraction=0.0) == 1.0
    assert calibration.realised_fraction(strong_fraction=0.5) == 0.25  # 0.25 and 0.75 are equally close: the cheaper
    assert Calibration.from_win_rates([1.0, 1.0]).realised_fraction(strong_fraction=0.0) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0]))
def test_never_further_from_the_wanted_share_than_the_quantile_of_the_paper(values, wanted):
    calibration = Calibration.from_win_rates(values)
    quantile = float(np.quantile(values, 1.0 - wanted))
    theirs = np.mean(np.array(values) >= quantile)
    assert calibration.strong_fraction(threshold=quantile) == pytest.approx(theirs)
    assert abs(calibration.realised_fraction(strong_fraction=wanted) - wanted) <= abs(theirs - wanted) + 1e-12


@needs_golden
def test_never_further_from_the_wanted_share_than_the_authors_quantile():
    cases = [c for c in golden_json("calibrate.json") if c["values"]]
    assert cases
    for case in cases:
        wanted = case["strong_model_pct"]
        calibration = Calibration.from_win_rates(case["values"])
        ours = abs(calibration.realised_fraction(strong_fraction=wanted) - wanted)
        assert calibration.strong_fraction(threshold=case["threshold"]) == pytest.approx(case["realised_pct"])
        assert ours <= abs(case["realised_pct"] - wanted) + 1e-12


def test_percentile_counts_half_of_the_ties():
    calibration = Calibration.from_win_rates([0.1, 0.2, 0.2, 0.3])
    assert calibration.percentile(0.2) == 0.5
    assert calibration.percentile(0.0) == 0.0
    assert calibration.percentile(1.0) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300), st.integers(2, 40))
def test_condensed_moves_no_share_by_more_than_a_step(values, size):
    full = Calibration.from_win_rates(values)
    small = full.condensed(size)
    assert small.count == full.count
    assert len(small.values) <= max(size, 1)
    for threshold in [0.0, 0.5, 1.0, *values]:
        difference = abs(small.strong_fraction(threshold=threshold) - full.strong_fraction(threshold=threshold))
        largest_tie = full.counts.max() / full.count
        assert difference <= 1 / size + largest_tie + 1e-9


def test_fit_reads_a_generator_in_batches():
    router = load_router("random")
    prompts = [f"prompt {i}" for i in range(2500)]
    calibration = Calibration.fit(router, (p for p in prompts), batch_size=100)
    assert calibration == Calibration.from_win_rates(
        router.win_rates(prompts), router="random", fingerprint=router.fingerprint
    )


@given(st.lists(win_rates, min_size=1, max_size=5), fractions)
def test_merged_parts_are_the_calibration_on_all_prompts(parts, wanted):
    together = Calibration.from_win_rates([v for part in parts for v in part], router="mf", fingerprint="abc")
    fitted = [Calibration.from_win_rates(part, router="mf", fingerprint="abc") for part in parts]
    merged = Calibration.merge(iter(fitted))
    assert merged == together
    assert merged.threshold(strong_fraction=wanted) == together.threshold(strong_fraction=wanted)
    assert [part.count for part in fitted] == [len(part) for part in parts]  # the parts are as they were


def test_parts_of_two_routers_are_not_merged():
    one = Calibration.fit(load_router("random", seed=1), ["a", "b"])
    assert Calibration.merge([one, one]).count == 4
    for other in (
        Calibration.fit(load_router("random", seed=2), ["a"]),
        Calibration.from_win_rates([0.5]),
        Calibration.from_win_rates([0.5], router="mf", fingerprint=one.fingerprint),
    ):
        with pytest.raises(ConfigurationError, match=r"parts\[1\] is a calibration of router .*two routers"):
            Calibration.merge([one, other])
    # two of which nothing is known may be of one router
    assert Calibration.merge([Calibration.from_win_rates([0.5]), Calibration.from_win_rates([0.5])]).count == 2


@pytest.mark.parametrize(("parts", "words"), [([], "parts is empty"), ([0.5], r"parts\[0\] is a float")])
def test_bad_parts_are_named(parts, words):
    with pytest.raises(ConfigurationError, match=words):
        Calibration.merge(parts)


def test_another_router_is_refused():
    calibration = Calibration.fit(load_router("random", seed=1), ["a", "b"])
    calibration.check_router(load_router("random", seed=1))
    with pytest.raises(ConfigurationError, match=r"Calibration\.fit"):
        calibration.check_router(load_router("random", seed=2))


def test_file_round_trip_is_exact(tmp_path):
    values = np.random.default_rng(0).random(1000)
    calibration = Calibration.from_win_rates(values, router="mf", fingerprint="abc")
    calibration.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    assert again == calibration
    assert (again.router, again.fingerprint, again.count) == ("mf", "abc", 1000)
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 9, "values": [0.1], "counts": [1]}',
             '{"format": 1, "values": [2.0], "counts": [1]}', '{"format": 1, "values": ["x"], "counts": [1]}']
)  # fmt: skip
def test_a_corrupt_file_is_one_clear_error(tmp_path, text):
    file = tmp_path / "c.json"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=r"c\.json"):
        Calibration.load(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"nothing\.json"):
        Calibration.load(tmp_path / "nothing.json")
    with pytest.raises(FileNotFoundError):
        Calibration.load(tmp_path / "nothing.json")


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, math.inf, "0.3", None, True, [0.3]])
def test_targets_outside_their_range_are_refused(bad):
    calibration = Calibration.from_win_rates([0.1, 0.9])
    with pytest.raises(ConfigurationError, match="strong_fraction="):
        calibration.threshold(strong_fraction=bad)
    with pytest.raises(ConfigurationError, match="threshold="):
        calibration.strong_fraction(threshold=bad)


@pytest.mark.parametrize("bad", [[], [math.nan], [1.5], [[0.1]], ["x"], None])
def test_bad_win_rates_are_refused(bad):
    with pytest.raises(ConfigurationError):
        Calibration.from_win_rates(bad)


@pytest.mark.parametrize("bad", [None, 3, [], "one string", b"bytes", [None], [1]])
def test_bad_prompts_are_refused(bad):
    with pytest.raises(PromptError):
        Calibration.fit(load_router("random"), bad)


def test_its_json_is_plain():
    data = json.loads(json.dumps(Calibration.from_win_rates([0.5, 0.5, 0.1]).to_dict()))
    assert data["values"] == [0.1, 0.5]
    assert data["counts"] == [1, 2]
