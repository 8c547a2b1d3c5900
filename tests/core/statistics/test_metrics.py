"""Metrics: golden curves, a brute-force twin for each, the laws they obey, and their intervals."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from routellm_core import ConfigurationError, DataError
from routellm_core.evaluation import (
    Curve,
    apgr,
    bootstrap,
    compare_routers,
    cost_saving_ratio,
    cpt,
    curve,
    evaluate_router,
    hull_area,
    pgr,
    prompt_length,
)
from routellm_core.evaluation.router_evaluation import strong_chance
from routellm_core.statistics.intervals import curve_band
from routellm_core.statistics.metrics import static_hull
from tests.support.shared import GOLDEN, golden_json, needs_golden


def outcomes(n=400, seed=0, skill=1.0):
    """Win rates that know something of a gap of about 0.2."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    strong = (rng.random(n) < 0.95 - 0.2 * hard).astype(float)
    weak = (rng.random(n) < 0.9 - 0.6 * hard).astype(float)
    return np.clip(0.5 + skill * (hard - 0.5) + 0.1 * rng.normal(size=n), 0, 1), strong, weak


# Few distinct values, so that ties are common; thirds of scores are not exact in binary.
prompt = st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3))


@st.composite
def problems(draw, size=14):
    rows = draw(st.lists(prompt, min_size=1, max_size=size))
    rates, strong, weak = (np.array(c, dtype=float) for c in zip(*rows, strict=True))
    assume(strong.sum() > weak.sum())
    return rates / 5, strong / 3, weak / 3


# --- brute-force twins: the definitions, written out ---


def slow_points(rates, strong, weak):
    """(share, PGR) at the ends of the groups of equal win rate, from the definition of a threshold."""
    gap = np.mean(strong) - np.mean(weak)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(rates), reverse=True):
        routed = [s if r >= threshold else w for r, s, w in zip(rates, strong, weak, strict=True)]
        share = sum(r >= threshold for r in rates) / len(rates)
        points.append((share, (np.mean(routed) - np.mean(weak)) / gap))
    return points


def slow_apgr(rates, strong, weak):
    points = slow_points(rates, strong, weak)
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


def slow_cpt(rates, strong, weak, level):
    points = slow_points(rates, strong, weak)
    if level <= 0:
        return 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if y1 >= level - 1e-12:
            return x0 + (x1 - x0) * min(1.0, (level - y0) / (y1 - y0))
    raise AssertionError("the curve ends at 1")


@given(problems())
def test_apgr_equals_its_definition(problem):
    assert apgr(*problem) == pytest.approx(slow_apgr(*problem), abs=1e-9)


@given(problems(), st.sampled_from([0.0, 0.01, 0.2, 1 / 3, 0.5, 0.8, 0.999, 1.0]))
def test_cpt_equals_its_definition(problem, level):
    assert cpt(*problem, level=level) == pytest.approx(slow_cpt(*problem, level), abs=1e-7)  # type: ignore[call-arg, misc]


@given(problems(), st.floats(0, 1))
def test_pgr_at_a_threshold_equals_its_definition(problem, threshold):
    rates, strong, weak = problem
    routed = [s if r >= threshold else w for r, s, w in zip(rates, strong, weak, strict=True)]
    expected = (np.mean(routed) - np.mean(weak)) / (np.mean(strong) - np.mean(weak))
    assert pgr(*problem, threshold=threshold) == pytest.approx(expected, abs=1e-9)


@given(problems(size=7), st.integers(0, 7))
@settings(max_examples=40)
def test_ties_go_to_the_strong_model_in_random_order(problem, calls):
    """The curve between the ends of a group is the mean over all orders of the tied prompts."""
    rates, strong, weak = problem
    calls = min(calls, len(rates))
    scores = []
    for order in permutations(range(len(rates))):
        if any(rates[a] < rates[b] for a, b in pairwise(order)):
            continue
        scores.append(sum(strong[i] for i in order[:calls]) + sum(weak[i] for i in order[calls:]))
    expected = (np.mean(scores) / len(rates) - weak.mean()) / (strong.mean() - weak.mean())
    assert pgr(*problem, strong_fraction=calls / len(rates)) == pytest.approx(expected, abs=1e-9)


@given(problems())
def test_hull_area_of_two_models_equals_the_gain_over_the_random_line(problem):
    _, strong, weak = problem
    expected = (slow_apgr(*problem) - 0.5) * (strong.mean() - weak.mean())
    assert hull_area(*problem) == pytest.approx(expected, abs=1e-9)


@given(problems(), st.floats(0.05, 1))
def test_cost_saving_ratio_equals_its_definition(problem, level):
    share = slow_cpt(*problem, level)  # type: ignore[call-arg]
    assert cost_saving_ratio(*problem, level) == pytest.approx(level / share, rel=1e-6)  # type: ignore[call-arg]
    priced = cost_saving_ratio(*problem, level, strong_cost=10.0, weak_cost=1.0)  # type: ignore[misc]
    assert priced == pytest.approx((1 + 9 * level) / (1 + 9 * share), rel=1e-6)


@given(problems(), st.integers(1, 12))
def test_binned_curve_equals_the_authors_rule(problem, bins):
    rates, strong, weak = problem
    edges = np.quantile(rates, np.linspace(0, 1, bins + 1))
    edges[0], edges[-1] = rates.min(), rates.max()
    points = []
    for i, edge in enumerate(edges):
        chosen = rates >= edge if i < bins else rates > edge
        points.append((chosen.mean(), np.where(chosen, strong, weak).mean()))
    found = curve(*problem, bins=bins)
    expected = points[::-1]
    np.testing.assert_allclose(found.strong_fraction, [p[0] for p in expected], atol=1e-12)
    np.testing.assert_allclose(found.quality, [p[1] for p in expected], atol=1e-12)


# --- laws ---


@given(problems())
def test_no_order_is_above_the_oracle(problem):
    rates, strong, weak = problem
    best = curve(strong - weak, strong, weak)
    found = curve(rates, strong, weak)
    at = np.union1d(best.strong_fraction, found.strong_fraction)
    high = np.interp(at, best.strong_fraction, best.quality)
    assert (high >= np.interp(at, found.strong_fraction, found.quality) - 1e-9).all()
    assert apgr(strong - weak, strong, weak) >= apgr(*problem) - 1e-9


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(problem, random):
    order = list(range(len(problem[0])))
    random.shuffle(order)
    shuffled = [column[order] for column in problem]
    assert apgr(*shuffled) == pytest.approx(apgr(*problem), abs=1e-9)
    assert apgr(*shuffled, bins=10) == pytest.approx(apgr(*problem, bins=10), abs=1e-9)
    assert cpt(*shuffled, level=0.5) == pytest.approx(cpt(*problem, level=0.5), abs=1e-7)  # type: ignore[misc]


@given(problems(), st.floats(0.1, 50), st.floats(-50, 50))
def test_the_unit_of_the_scores_does_not_matter(problem, scale, shift):
    rates, strong, weak = problem
    moved = (rates, scale * strong + shift, scale * weak + shift)
    assert apgr(*moved) == pytest.approx(apgr(*problem), abs=1e-6)
    assert cpt(*moved, level=0.5) == pytest.approx(cpt(*problem, level=0.5), abs=1e-6)  # type: ignore[misc]
    assert pgr(*moved, threshold=0.5) == pytest.approx(pgr(*problem, threshold=0.5), abs=1e-6)


@given(problems())
def test_only_the_order_of_win_rates_matters(problem):
    rates, strong, weak = problem
    assert apgr(rates**3 - 7, strong, weak) == pytest.approx(apgr(*problem), abs=1e-12)


@given(problems(), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_level_never_needs_fewer_calls(problem, a, b):
    low, high = sorted([a, b])
    assert cpt(*problem, level=low) <= cpt(*problem, level=high) + 1e-9  # type: ignore[misc]


@given(problems())
def test_ends_of_the_curve_are_the_single_models(problem):
    _, strong, weak = problem
    assert pgr(*problem, threshold=0.0) == pytest.approx(1.0)
    assert pgr(*problem, threshold=1.1) == 0.0
    assert pgr(*problem, strong_fraction=0.0) == pytest.approx(0.0, abs=1e-12)
    assert cpt(*problem, level=0.0) == 0.0  # type: ignore[misc]
    for bins in (None, 10):
        found = curve(*problem, bins=bins)
        assert found.quality[0] == pytest.approx(weak.mean())
        assert found.quality[-1] == pytest.approx(strong.mean())


def test_random_routing_is_one_half():
    _, strong, weak = outcomes(300)
    rng = np.random.default_rng(1)
    found = [apgr(rng.random(300), strong, weak) for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)
    assert apgr(np.full(300, 0.7), strong, weak) == pytest.approx(0.5, abs=1e-12)
    assert cpt(np.full(300, 0.7), strong, weak, level=0.8) == pytest.approx(0.8, abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_chance_of_strong_adds_up_to_the_share(share):
    rates = np.array([0.2, 0.2, 0.2, 0.9, 0.5])
    chance = strong_chance(rates, share)
    assert chance.sum() == pytest.approx(share * 5)
    assert chance[3] == pytest.approx(min(1.0, share * 5))


def test_static_hull_skips_models_that_no_mix_wants():
    cost, quality = static_hull([(0, 0.5), (1, 0.6), (2, 0.9), (3, 0.8), (4, 1.0), (0, 0.4)])
    assert cost.tolist() == [0, 2, 4]
    assert quality.tolist() == [0.5, 0.9, 1.0]
    cost, quality = static_hull([(1, 0.5), (2, 0.5), (3, 0.7), (4, 0.7)])  # as good and more expensive
    assert cost.tolist() == [1, 3]
    assert quality.tolist() == [0.5, 0.7]
    cost, _ = static_hull([(0, 0.0), (1, 0.5), (2, 1.0)])  # on the line between two others: no corner
    assert cost.tolist() == [0, 2]


def test_hull_area_with_a_better_model_between():
    rates, strong, weak = np.array([0.9, 0.1]), np.array([1.0, 1.0]), np.array([0.0, 1.0])
    # router: 0.5 -> 1 at half cost -> 1; line: 0.5 -> 1; area between: 0.125
    assert hull_area(rates, strong, weak) == pytest.approx(0.125)
    # a third model with score 1 at half of the cost does what the router does
    assert hull_area(rates, strong, weak, others={"mid": (0.5, 1.0)}) == pytest.approx(0.0)


def test_prompt_length_orders_by_characters():
    found = prompt_length(["", "aaa", "b" * 100_000])
    assert found[0] == 0.0
    assert found[0] < found[1] < found[2] < 1.0


# --- golden values of the authors' package ---


def golden_benchmarks():
    if not GOLDEN.is_dir():
        return []
    return [(b, key) for b, found in golden_json("eval.json")["benchmarks"].items() for key in found["routers"]]


def golden_case(benchmark, key):
    found = golden_json("eval.json")["benchmarks"][benchmark]["routers"][key]
    name, bins = key.split("/")
    with np.load(GOLDEN / f"bench_{benchmark}.npz") as data:
        rates = data[f"wr_{name}"]
        if benchmark == "mt-bench":
            return found, int(bins), 1.0, rates, data["strong_t1t2"].mean(axis=1), data["weak_t1t2"].mean(axis=1)
        return found, int(bins), 100.0, rates, data["strong"].astype(float), data["weak"].astype(float)


@needs_golden
@pytest.mark.parametrize(("task", "key"), golden_benchmarks())
def test_binned_form_equals_the_authors_package(task, key):
    expected, bins, unit, rates, strong, weak = golden_case(task, key)
    found = curve(rates, strong, weak, bins=bins)
    if "error" in expected:  # the package refuses repeated edges; they are no problem here
        assert 0.0 < apgr(rates, strong, weak, bins=bins) < 1.0
        return
    points = sorted(expected["curve"], key=lambda p: p["strong_percentage"])
    np.testing.assert_allclose(found.strong_fraction * 100, [p["strong_percentage"] for p in points], atol=1e-9)
    np.testing.assert_allclose(found.quality * unit, [p["accuracy"] for p in points], atol=1e-9)
    assert found.auc() * unit == pytest.approx(expected["AUC"], abs=1e-9)
    assert apgr(rates, strong, weak, bins=bins) == pytest.approx(expected["APGR"], abs=1e-9)
    if (np.diff(found.quality) >= 0).all():  # elsewhere the package's CPT is arbitrary
        for level, percent in zip((0.2, 0.5, 0.8), expected["cpt_20_50_80"], strict=True):
            assert cpt(rates, strong, weak, level=level, bins=bins) * 100 == pytest.approx(percent, abs=1e-9)


@needs_golden
@pytest.mark.parametrize("index", range(8))
def test_area_of_a_given_curve_equals_the_authors_package(index):
    case = golden_json("eval.json")["metric_cases"][index]
    order = np.argsort(case["strong_percentage"], kind="stable")
    shares = np.array(case["strong_percentage"], dtype=float)[order] / 100
    line = Curve(shares, np.array(case["accuracy"], dtype=float)[order], np.zeros(len(order)))
    assert line.auc() == pytest.approx(case["AUC"], abs=1e-9)
    assert line.apgr(case["strong_accuracy"], case["weak_accuracy"]) == pytest.approx(case["APGR"], abs=1e-9)


@needs_golden
@pytest.mark.parametrize("task", ["gsm8k", "mmlu"])
def test_oracle_equals_the_authors_optimum(task):
    _, _, unit, _, strong, weak = golden_case(task, "hash/10")
    best = curve(strong - weak, strong, weak)
    optimum = golden_json("eval.json")["benchmarks"][task]["optimal"]
    for percent, expected in optimum.items():
        # theirs may always stop before calls that do harm; the curve must spend its share
        reached = max(best.quality_at(x) for x in np.linspace(0, int(percent) / 100, 101))
        assert reached * unit == pytest.approx(expected, abs=1e-9)


# --- bootstrap ---


def test_bootstrap_equals_resampling_rows_one_draw_at_a_time():
    rates, strong, weak = outcomes(60)
    rates = np.round(rates, 1)
    found = bootstrap(rates, strong, weak, draws=20, seed=5, levels=(0.5,))
    picked = np.random.default_rng(5).integers(0, 60, size=(20, 60))
    for draw, rows in enumerate(picked):
        s, w = strong[rows], weak[rows]
        if s.sum() <= w.sum():
            assert math.isnan(found["apgr"][draw])
            continue
        # a prompt drawn twice is tied with itself, which is what grouping by win rate gives
        assert found["apgr"][draw] == pytest.approx(apgr(rates[rows], s, w), abs=1e-9)
        assert found["cpt_50"][draw] == pytest.approx(cpt(rates[rows], s, w, level=0.5), abs=1e-9)
        assert found["hull_area"][draw] == pytest.approx(hull_area(rates[rows], s, w), abs=1e-9)


def test_bootstrap_of_the_hull_area_holds_where_weak_wins():
    """The best static mix is then always weak, whatever the cost: the area is above that, not above a falling line."""
    rates, strong, weak = outcomes(40)
    rates = np.round(rates, 1)
    for s, w in ((weak, strong), (strong, np.roll(strong, 1)), (strong, weak)):
        found = bootstrap(rates, s, w, draws=40, seed=5)["hull_area"]
        picked = np.random.default_rng(5).integers(0, 40, size=(40, 40))
        expected = [hull_area(rates[rows], s[rows], w[rows]) for rows in picked]
        np.testing.assert_allclose(found, expected, atol=1e-12)
    losing = [weak[rows].mean() <= strong[rows].mean() for rows in picked]
    assert np.mean(losing) > 0.8  # of the swapped pair, nearly every draw has the weak model ahead


def test_bootstrap_blocks_do_not_change_the_draws(monkeypatch):
    from routellm_core.statistics import intervals

    rates, strong, weak = outcomes(50)
    whole = bootstrap(rates, strong, weak, draws=30, seed=1)["apgr"]
    monkeypatch.setattr(intervals, "BLOCK_CELLS", 50 * 7)
    assert [len(block) for block in intervals.resample(50, 30, np.random.default_rng(1))] == [7, 7, 7, 7, 2]
    parts = bootstrap(rates, strong, weak, draws=30, seed=1)["apgr"]
    np.testing.assert_allclose(np.sort(whole), np.sort(parts), atol=1e-12)


@pytest.mark.slow
def test_intervals_of_apgr_cover_the_truth():
    """Draw samples of a large population; 95 % intervals cover its APGR about 95 % of the time."""
    rates, strong, weak = outcomes(20_000, seed=3)
    truth = apgr(rates, strong, weak)
    rng = np.random.default_rng(4)
    covered = 0
    for i in range(200):
        rows = rng.integers(0, 20_000, size=300)
        found = np.quantile(bootstrap(rates[rows], strong[rows], weak[rows], draws=300, seed=i)["apgr"], [0.025, 0.975])
        covered += found[0] <= truth <= found[1]
    assert 0.90 <= covered / 200 <= 0.99


def test_paired_comparison_is_tighter_than_two_intervals():
    rates, strong, weak = outcomes(500)
    rng = np.random.default_rng(0)
    close = np.clip(rates + 0.02 * rng.normal(size=500), 0, 1)
    found = compare_routers(rates, close, strong, weak, draws=400)
    single = np.quantile(bootstrap(rates, strong, weak, draws=400)["apgr"], [0.025, 0.975])
    assert found.difference.high - found.difference.low < (single[1] - single[0]) / 2
    assert not found.significant
    clear = compare_routers(rates, 1 - rates, strong, weak, draws=400)
    assert clear.significant
    assert clear.difference.low > 0
    assert clear.p_value < 0.01
    assert found.p_value > 0.05
    same = compare_routers(rates, rates, strong, weak, metric="cpt_50", draws=50)
    assert (same.difference.value, same.p_value) == (0.0, 1.0)


def test_band_is_zero_at_the_ends_and_holds_the_curve():
    rates, strong, weak = outcomes(800)
    shares = np.linspace(0, 1, 11)
    low, high = curve_band(rates, strong, weak, shares, draws=200)
    line = curve(rates, strong, weak)
    above = np.interp(shares, line.strong_fraction, line.quality)
    above -= weak.mean() + shares * (strong.mean() - weak.mean())
    assert low[0] == high[0] == 0.0
    assert low[-1] == pytest.approx(0.0, abs=1e-12)
    assert ((low - 1e-9 <= above) & (above <= high + 1e-9)).all()


# --- evaluate_router ---


class Lengths:
    name = "lengths"

    def win_rates(self, prompts):
        return prompt_length(prompts)


def test_evaluate_router_reports_metrics_intervals_and_baselines():
    rates, strong, weak = outcomes(300)
    prompts = ["x" * int(1000 * r) for r in rates]
    found = evaluate_router(Lengths(), prompts, strong, weak, strong_fraction=0.4, draws=200)
    assert found.name == "lengths"
    assert found.count == 300
    assert list(found.baselines) == ["random", "prompt_length", "oracle"]
    # this router IS the baseline, so they agree in every metric and every draw
    for metric in found.baselines["prompt_length"]:
        assert found.metrics[metric] == found.baselines["prompt_length"][metric]
    gain = found.metrics["apgr"]
    assert gain.low < gain.value < gain.high
    assert gain.value == pytest.approx(apgr(prompt_length(prompts), strong, weak))
    assert found.metrics["strong_fraction"].value == pytest.approx(0.4)
    assert found.metrics["pgr"].value == pytest.approx(
        pgr(prompt_length(prompts), strong, weak, strong_fraction=0.4), abs=1e-9
    )
    assert found.baselines["random"]["apgr"].value == pytest.approx(0.5)
    assert found.baselines["random"]["apgr"].low < 0.5 < found.baselines["random"]["apgr"].high
    assert found.baselines["oracle"]["apgr"].value > gain.value
    import json

    json.dumps(found.to_dict(), allow_nan=False)


def test_evaluate_router_takes_win_rates_without_prompts():
    rates, strong, weak = outcomes(100)
    found = evaluate_router(rates, None, strong, weak, threshold=0.5, draws=50)
    assert "prompt_length" not in found.baselines
    assert found.metrics["strong_fraction"].value == pytest.approx((rates >= 0.5).mean())
    assert found.metrics["quality"].value == pytest.approx(np.where(rates >= 0.5, strong, weak).mean())


def test_evaluate_router_takes_a_function():
    _, strong, weak = outcomes(50)
    prompts = ["x" * i for i in range(50)]
    found = evaluate_router(prompt_length, prompts, strong, weak, draws=20)
    assert found.name == "prompt_length"
    assert found.metrics == evaluate_router(Lengths(), prompts, strong, weak, draws=20).metrics


@pytest.mark.parametrize(
    ("strong", "weak", "words"),
    [
        (np.ones(40), np.ones(40), "same on average"),
        (np.zeros(40), np.ones(40), "weak model scores higher"),
        (np.full(40, 0.1 + 0.2), np.full(40, 0.3), "same on average"),  # equal but for rounding
    ],
)
def test_without_a_gap_evaluation_says_so_and_gives_no_number(strong, weak, words):
    found = evaluate_router(np.linspace(0, 1, 40), None, strong, weak, draws=20)
    assert any(words in note for note in found.notes)
    assert math.isnan(found.metrics["apgr"].value)
    assert found.to_dict()["metrics"]["apgr"]["value"] is None


def test_constant_win_rates_and_few_prompts_are_noted():
    found = evaluate_router([0.5] * 10, None, [1.0] * 10, [0.0] * 10, draws=20)
    assert any("same win rate" in note for note in found.notes)
    assert any("Only 10 prompts" in note for note in found.notes)
    assert found.metrics["apgr"].value == pytest.approx(0.5)


def test_one_prompt_does_not_crash():
    found = evaluate_router([0.3], ["hi"], [1.0], [0.0], draws=20)
    assert found.metrics["apgr"].value == pytest.approx(0.5)


# --- bad input ---


@pytest.mark.parametrize("metric", [apgr, cpt, lambda *a: pgr(*a, threshold=0.5)])
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (([], [], []), "win_rates is empty"),
        (([0.1, 0.2], [1, 0], [0]), "weak_scores 1"),
        (([0.1, float("nan")], [1, 0], [0, 0]), r"win_rates\[1\] is nan"),
        (([0.1, 0.2], [1, float("nan")], [0, 0]), r"strong_scores\[1\] is nan"),
        (([0.1, 0.2], [1, 0], [0, float("inf")]), r"weak_scores\[1\] is inf"),
        (([0.1, 0.2], ["a", "b"], [0, 0]), "strong_scores contains something that is not a number"),
        (([[0.1, 0.2]], [1, 0], [0, 0]), r"win_rates has shape \(1, 2\)"),
        (([0.1, 0.2], [1, 0], [0, 1]), "same mean"),
        (([0.1, 0.2], [0, 0], [0, 1]), "swap strong_scores and weak_scores"),
    ],
)
def test_malformed_arrays_are_named(metric, args, words):
    with pytest.raises(DataError, match=words):
        metric(*args)


def test_bad_parameters_are_named():
    good = ([0.1, 0.9], [1.0, 1.0], [0.0, 1.0])
    with pytest.raises(ConfigurationError, match=r"level=50.*write 0\.5"):
        cpt(*good, level=50)
    with pytest.raises(ConfigurationError, match=r"level='0\.5'"):
        cpt(*good, level="0.5")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="strong_cost=None"):
        hull_area(*good, strong_cost=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="exactly one"):
        pgr(*good)
    with pytest.raises(ConfigurationError, match="exactly one"):
        pgr(*good, threshold=0.5, strong_fraction=0.5)
    with pytest.raises(ConfigurationError, match=r"strong_fraction=1\.5"):
        pgr(*good, strong_fraction=1.5)
    with pytest.raises(ConfigurationError, match="threshold=nan"):
        pgr(*good, threshold=float("nan"))
    with pytest.raises(ConfigurationError, match="bins=0"):
        apgr(*good, bins=0)
    with pytest.raises(ConfigurationError, match="level=0"):
        cost_saving_ratio(*good, level=0)
    with pytest.raises(ConfigurationError, match="nothing to save"):
        cost_saving_ratio(*good, strong_cost=1.0, weak_cost=1.0)
    with pytest.raises(ConfigurationError, match="metric='f1'"):
        compare_routers(good[0], good[0], *good[1:], metric="f1")
    with pytest.raises(ConfigurationError, match="draws=0"):
        evaluate_router(good[0], None, *good[1:], draws=0)
    with pytest.raises(ConfigurationError, match="needs the prompts"):
        evaluate_router(Lengths(), None, *good[1:])
    with pytest.raises(ConfigurationError, match="at most one"):
        evaluate_router(good[0], None, *good[1:], threshold=0.5, strong_fraction=0.5)
    with pytest.raises(DataError, match="prompts has 1 items"):
        evaluate_router(good[0], ["a"], *good[1:])
