"""The verdict: right about gains and losses, silent without evidence, and never promising a saving that may be none."""

import json
import re
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routellm_core import ConfigurationError, DataError
from routellm_core.evaluation.router_evaluation import evaluate_router
from routellm_core.evaluation.verdict import _highest_rate, round_up, verdict
from routellm_core.statistics.metrics import complementary


def outcomes(n, skill, seed=0, gap=0.15):
    rng = np.random.default_rng(seed)
    win_rates = rng.random(n)
    strong = (rng.random(n) < 0.8).astype(float)
    weak = (rng.random(n) < np.clip(0.8 - gap - skill * (win_rates - 0.5), 0, 1)).astype(float)
    return win_rates, strong, weak


def test_a_router_that_knows_gains():
    found = verdict(*outcomes(3000, 0.5), strong_cost=30, weak_cost=1, strong="big", weak="small")
    assert found.outcome == "gains"
    assert found.gain.low > 0
    assert found.saving is not None
    assert found.saving.low > 0
    assert found.sentence.startswith("Routing gains: at threshold 0.")
    assert "less than the static mix of the same quality" in found.sentence
    assert "below always big" in found.sentence
    assert found.sentence.count(". ") == 0  # one sentence
    assert 0 < found.worst_loss < 0.1
    assert set(found.differences) == {"always_weak", "always_strong", "best_single", "static_mix"}
    assert found.differences["always_weak"].low > 0
    assert found.best_single == "big"
    assert found.needed is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_without_prices_the_sentence_speaks_of_calls_and_not_of_cost_saved():
    sentence = verdict(*outcomes(3000, 0.5)).sentence
    assert "fewer strong calls than the static mix of the same quality" in sentence
    assert "costs" not in sentence


def test_a_router_that_has_it_backwards_loses():
    found = verdict(*outcomes(3000, -0.5))
    assert found.outcome == "loses"
    assert found.saving is None
    assert "do not route" in found.sentence


@pytest.mark.slow
def test_a_router_that_knows_nothing_is_rarely_called_otherwise():
    """Choosing the threshold is no gain: about 2.5 % of routers that guess are called gains, as many losses."""
    outcomes_found = [verdict(*outcomes(300, 0.0, seed=i), draws=200, seed=i).outcome for i in range(300)]
    assert outcomes_found.count("gains") <= 15
    assert outcomes_found.count("loses") <= 15


@pytest.mark.slow
def test_the_interval_covers_the_true_gain():
    """The truth: what the very thresholds give on fresh prompts; the mean over many verdicts must agree."""
    found = [verdict(*outcomes(400, 0.4, seed=i), draws=200, seed=i) for i in range(150)]
    win_rates, strong, weak = outcomes(400_000, 0.4, seed=999)
    covered = 0
    for v in found:
        chosen = win_rates >= v.threshold
        share = chosen.mean()
        truth = np.where(chosen, strong, weak).mean() - (weak.mean() + share * (strong.mean() - weak.mean()))
        covered += v.gain.low <= truth <= v.gain.high
    assert covered / 150 >= 0.90


def test_the_intervals_cover_where_a_handful_of_prompts_is_strong():
    """A better weak model: the chosen threshold sends a few of 60 prompts away from it, on half of which they differ.

    A plain bootstrap cannot draw what those few do not show: 83 to 88 % of such intervals held.
    """
    covered = dict.fromkeys(("gain", "weak"), 0)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rates = rng.random(60)
        strong, weak = (rng.random(60) < p for p in (0.6 + 0.4 * (rates - 0.5), 0.7))
        found = verdict(rates, strong.astype(float), weak.astype(float), strong_cost=5, weak_cost=5, draws=400)
        # the mean rate of the prompts from t upwards is (1 + t) / 2
        above = [(1 - t) * (0.6 + 0.4 * ((1 + t) / 2 - 0.5) - 0.7) for t in found.measured_thresholds]
        truth = sum(above) / 2
        covered["gain"] += found.gain.low <= truth <= found.gain.high
        covered["weak"] += found.differences["always_weak"].low <= truth <= found.differences["always_weak"].high
    assert min(covered.values()) / 200 >= 0.92, covered


def test_a_verdict_names_the_thresholds_that_it_measured():
    chosen = verdict(*outcomes(300, 0.3), draws=50)
    assert len(chosen.measured_thresholds) == 2
    assert verdict(*outcomes(300, 0.3), threshold=0.4, draws=50).measured_thresholds == (0.4,)
    single = verdict([0.3], [1.0], [0.0], draws=50)
    assert single.measured_thresholds == (single.threshold,)


def test_undecided_says_how_many_prompts_would_tell_and_promises_nothing():
    found = verdict(*outcomes(300, 0.1, seed=3))
    assert found.outcome == "undecided"
    assert found.saving is None
    assert "cannot be told apart" in found.sentence
    assert "less than" not in found.sentence
    if found.gain.value > 0:
        assert found.needed > 300  # type: ignore[operator]
        told = int(re.search(r"about ([\d,]+) prompts would settle it", found.sentence)[1].replace(",", ""))  # type: ignore[index]
        assert found.needed <= told <= 1.1 * found.needed  # type: ignore[operator]


@given(st.integers(0, 10_000), st.sampled_from([30, 60, 200]), st.sampled_from([-0.6, 0.0, 0.3, 0.8]))
@settings(max_examples=40)
def test_a_saving_is_promised_only_when_its_whole_interval_is_one(seed, n, skill):
    found = verdict(*outcomes(n, skill, seed=seed), strong_cost=10, weak_cost=1, draws=100)
    if found.saving is not None:
        assert found.outcome == "gains"
        assert found.saving.low > 0
        assert found.gain.low > 0
    else:
        assert "than the static mix" not in found.sentence
    assert (found.outcome == "gains") == (found.gain.low > 0)


def complementary_pair(n, seed=0, skill=0.1, right=(0.55, 0.53)):
    """Two models that are right on one kind of prompts each, and win rates that know a little about the kind."""
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 0.5
    rates = np.clip(np.where(first, 0.5 + skill, 0.5 - skill) + rng.normal(0, 0.25, n), 0.001, 0.999)
    a = (rng.random(n) < np.where(first, right[0], 0.15)).astype(float)
    b = (rng.random(n) < np.where(first, 0.15, right[1])).astype(float)
    return rates, a, b


def test_of_complementary_models_the_better_single_one_is_the_bar():
    rates, a, b = complementary_pair(3000)
    assert abs(a.mean() - b.mean()) < 0.05
    assert np.maximum(a, b).mean() > max(a.mean(), b.mean()) + 0.1
    found = verdict(rates, a, b, strong="a", weak="b")
    best = max((a.mean(), "a"), (b.mean(), "b"))[1]
    assert (found.outcome, found.basis, found.best_single) == ("gains", "best_single", best)
    assert found.gain.value == pytest.approx(found.quality.value - max(a.mean(), b.mean()))
    assert found.gain.low > 0
    assert re.search(rf"over always {best}, the better single model \(\d\d\.\d%\)", found.sentence)
    assert found.saving is None or "static mix" not in found.sentence
    guessing = verdict(np.random.default_rng(0).random(3000), a, b, strong="a", weak="b")
    assert guessing.outcome in {"undecided", "loses"}
    if guessing.instead is not None:
        assert re.search(rf"Do not route: always {best} .* against it\.", guessing.sentence)
        assert "interval" in guessing.sentence


@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([40, 150]),
    right=st.sampled_from([(0.55, 0.53), (0.53, 0.55), (0.9, 0.3), (0.5, 0.5)]),
    costs=st.sampled_from([None, (10.0, 1.0), (1.0, 10.0), (2.0, 2.0)]),
    threshold=st.sampled_from([None, 0.37]),
)
@settings(max_examples=30)
def test_swapping_the_names_changes_nothing(seed, n, right, costs, threshold):
    rates, a, b = complementary_pair(n, seed, right=right)
    if costs is None and not complementary(a, b):
        return  # without prices, the names say which model's calls are to be saved
    options = {"draws": 50, "threshold": threshold}
    there = verdict(rates, a, b, strong="a", weak="b", **options, **priced(costs))
    turned = None if threshold is None else 1.0 - threshold
    back = verdict(
        1.0 - rates, b, a, strong="b", weak="a", **{**options, "threshold": turned}, **priced(costs and costs[::-1])
    )
    assert (there.outcome, there.basis, there.best_single) == (back.outcome, back.basis, back.best_single)
    assert (there.instead, there.needed) == (back.instead, back.needed)
    for part in ("quality", "gain", "cost"):
        first, second = getattr(there, part), getattr(back, part)
        np.testing.assert_allclose([*vars_of(first)], [*vars_of(second)], atol=1e-9)
    assert there.measured_at.value == pytest.approx(1.0 - back.measured_at.value)
    assert there.sentence.split(":")[0] == back.sentence.split(":")[0]


def priced(costs):
    return {} if costs is None else {"strong_cost": costs[0], "weak_cost": costs[1]}


def vars_of(estimate):
    return estimate.value, estimate.low, estimate.high


@pytest.mark.parametrize("n", [40, 2000])
def test_ratios_over_a_gap_that_may_be_none_are_not_shown(n):
    rates, a, b = complementary_pair(n)
    found = evaluate_router(rates, None, a, b, draws=50)
    assert all(np.isnan(found.metrics[name].value) for name in ("apgr", "cpt_50", "cpt_80", "saving_50", "saving_80"))
    assert np.isfinite(found.metrics["auc"].value)
    assert any("ratios over the gap between the models, so they are not shown" in note for note in found.notes)
    rates, strong, weak = outcomes(2000, 0.3)
    clear = evaluate_router(rates, None, strong, weak, draws=50)
    assert np.isfinite(clear.metrics["apgr"].value)


def test_a_bound_that_allows_everything_is_not_printed():
    rates = np.linspace(0, 1, 40)
    found = verdict(rates, np.ones(40), np.zeros(40), threshold=1.0)  # always weak, which is always wrong
    assert found.worst_loss == 1.0
    assert "100.0 points below" not in found.sentence


@pytest.mark.slow
@pytest.mark.parametrize(("n", "costs"), [(80, None), (300, None), (80, (10.0, 1.0))])
def test_the_interval_covers_the_gain_over_the_better_model(n, costs):
    """Complementary and equally good models: the hard case, because which one is better is chance.

    All samples count, also those whose means differ so much that the basis is a static mix, for every mix of equally
    good models is as good as either. Of 400 samples of 80 prompts without costs 97.0 % cover the gain; of those with
    the basis best_single alone it is 98.7 %, because there the two means are close.
    """
    to_a = [1.0 - NormalDist(mean, 0.25).cdf(0.45) for mean in (0.6, 0.4)]  # on the prompts of either kind
    truth = (to_a[0] * 0.54 + (1 - to_a[0]) * 0.15 + to_a[1] * 0.15 + (1 - to_a[1]) * 0.54) / 2 - (0.54 + 0.15) / 2
    covered = 0
    for seed in range(100):
        rates, a, b = complementary_pair(n, seed, right=(0.54, 0.54))
        found = verdict(rates, a, b, draws=100, seed=seed, threshold=0.45, **priced(costs))
        covered += found.gain.low <= truth <= found.gain.high
    assert covered / 100 >= 0.92 - 0.05  # 0.92, less two standard errors of 100 samples


def test_a_given_threshold_is_judged_as_it_is():
    win_rates, strong, weak = outcomes(1000, 0.5)
    found = verdict(win_rates, strong, weak, threshold=0.6)
    chosen = win_rates >= 0.6
    assert found.threshold == 0.6
    assert found.strong_fraction.value == pytest.approx(chosen.mean())
    quality = np.where(chosen, strong, weak).mean()
    assert found.quality.value == pytest.approx(quality)
    mix = weak.mean() + chosen.mean() * (strong.mean() - weak.mean())
    assert found.gain.value == pytest.approx(quality - mix)
    # the static mix of this quality costs the share at which its line reaches it
    same = (quality - weak.mean()) / (strong.mean() - weak.mean())
    priced = verdict(win_rates, strong, weak, threshold=0.6, strong_cost=11.0, weak_cost=1.0)
    assert priced.saving.value == pytest.approx(1 - (1 + 10 * chosen.mean()) / (1 + 10 * same))  # type: ignore[union-attr]
    assert priced.saving_vs_strong.value == pytest.approx(1 - (1 + 10 * chosen.mean()) / 11)


def test_costs_prompt_by_prompt():
    """A router that sends short prompts to the strong model pays less than its share suggests."""
    rng = np.random.default_rng(0)
    win_rates = rng.random(2000)
    tokens = 100 + 1900 * (1 - win_rates)
    strong, weak = np.ones(2000), (rng.random(2000) < 0.6).astype(float)
    flat = verdict(win_rates, strong, weak, strong_cost=10, weak_cost=1, threshold=0.5)
    priced = verdict(win_rates, strong, weak, strong_cost=10 * tokens, weak_cost=tokens, threshold=0.5)
    assert flat.outcome == "undecided"
    assert priced.outcome == "gains"


def test_a_third_model_can_be_the_better_mix():
    win_rates, strong, weak = outcomes(2000, 0.4)
    alone = verdict(win_rates, strong, weak, strong_cost=10, weak_cost=1)
    middle = np.maximum(strong, weak)
    found = verdict(win_rates, strong, weak, strong_cost=10, weak_cost=1, others={"middle": (middle, 2.0)})
    assert alone.outcome == "gains"
    assert found.outcome == "loses"
    assert found.best_single == "middle"
    assert found.differences["best_single"].high < 0


def test_weak_better_than_strong_is_said():
    win_rates, strong, weak = outcomes(500, 0.0)
    found = verdict(win_rates, weak, strong)  # swapped
    assert found.outcome in {"loses", "undecided"}
    assert found.sentence.startswith("Do not route: always weak is cheaper and scores no worse than strong (")
    assert found.best_single == "weak"


def test_a_further_model_that_is_cheaper_and_better_is_the_answer():
    win_rates, strong, weak = outcomes(500, 0.2)
    best = np.maximum(strong, weak)
    found = verdict(win_rates, strong, weak, strong_cost=10, weak_cost=2, others={"new": (best, 1.0)})
    assert found.sentence.startswith("Do not route: always new is cheaper and scores no worse than strong (")
    assert any("new costs no more than weak" in note for note in found.notes)
    assert found.differences["always new"] == found.differences["best_single"]
    dear = verdict(win_rates, strong, weak, strong_cost=10, weak_cost=2, others={"new": (best, 20.0)})
    assert not dear.sentence.startswith("Do not route")
    assert (found.instead, dear.instead) == ("new", None)
    assert not any("new" in note for note in dear.notes)


def equal_scores(n=200):
    """Win rates and three columns of scores with the same mean, that differ prompt by prompt."""
    rng = np.random.default_rng(4)
    scores = np.arange(n) % 2 / 1.0
    return rng.random(n), scores, rng.permutation(scores), rng.permutation(scores)


@pytest.mark.parametrize("cost", [0.5, 5.0, 20.0])
def test_of_equally_good_models_the_cheapest_is_best(cost):
    rates, strong, weak, third = equal_scores()
    found = verdict(rates, strong, weak, strong_cost=10, weak_cost=1, others={"third": (third, cost)}, threshold=0.5)
    assert found.best_single == ("third" if cost < 1 else "weak")
    assert (
        found.differences["best_single"]
        == found.differences["always third" if found.best_single == "third" else "always_weak"]
    )


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_an_equally_good_model_at_a_higher_cost_changes_nothing(threshold):
    """Were it part of the static mix, the mix of the routed quality would seem to cost more, and routing to save it."""
    rng = np.random.default_rng(3)
    rates = rng.random(2000)
    strong = (rng.random(2000) < np.where(rates > 0.5, 0.9, 0.6)).astype(float)
    weak = (rng.random(2000) < np.where(rates > 0.5, 0.3, 0.9)).astype(float)
    costs = {"strong_cost": 10, "weak_cost": 1, "threshold": threshold, "draws": 300}
    alone = verdict(rates, strong, weak, **costs)
    assert alone.outcome == "gains"
    assert alone.quality.value > strong.mean()
    found = verdict(rates, strong, weak, **costs, others={"twin": (strong, 20.0)})
    assert (found.threshold, found.gain, found.saving) == (alone.threshold, alone.gain, alone.saving)
    assert found.best_single == "strong"


@pytest.mark.parametrize(("costs", "between"), [((10, 1), (0.5, 0.9)), ((1, 10), (0.1, 0.5))])
def test_of_equally_good_thresholds_the_cheapest_is_chosen(costs, between):
    """The middle prompts gain what the average prompt does, so with them or without, the policy gains as much."""
    rates = np.repeat([0.9, 0.5, 0.1], 40)
    strong = np.concatenate([np.ones(40), np.arange(40) % 2, np.zeros(40)])
    found = verdict(rates, strong, np.full(120, 0.25), strong_cost=costs[0], weak_cost=costs[1])
    assert between[0] < found.threshold <= between[1]


def test_an_equally_good_further_model_is_no_better_weak_one():
    rates, strong, weak, third = equal_scores()
    for cost in (0.5, 1.0):
        found = verdict(rates, strong, weak, strong_cost=10, weak_cost=1, others={"third": (third, cost)})
        assert not any("route between" in note for note in found.notes)
    better = np.maximum(weak, third)
    same_cost = verdict(rates, strong, weak, strong_cost=10, weak_cost=1, others={"third": (better, 1.0)})
    assert any("third costs no more than weak" in note for note in same_cost.notes)


def test_the_better_single_model_is_the_answer_only_where_it_is_cheaper():
    rates, strong, weak, _ = equal_scores()
    best = np.ones(200)
    for cost, instead in ((9.99, "third"), (10.0, None), (10.01, None)):
        others = {"third": (best, cost)}
        found = verdict(rates, strong, weak, strong_cost=10, weak_cost=1, others=others, draws=100)
        assert (found.best_single, found.instead) == ("third", instead)


def test_not_to_route_is_not_said_where_more_prompts_may_tell_otherwise():
    rng = np.random.default_rng(10)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        win_rates = rng.random(60)
        strong = (rng.random(60) < np.where(win_rates > 0.5, 0.9, 0.5)).astype(float)
        weak = (rng.random(60) < np.where(win_rates > 0.5, 0.6, 0.9)).astype(float)
        found = verdict(win_rates, strong, weak, draws=200)
        if found.outcome == "undecided" and found.needed and weak.mean() >= strong.mean():
            break
    else:
        pytest.fail("no such sample among 200")
    assert not found.sentence.startswith("Do not route")
    assert f"about {round_up(found.needed):,} prompts would settle it" in found.sentence


@pytest.mark.parametrize(("confidence", "level"), [(0.995, "99.5%"), (0.975, "97.5%"), (0.9, "90%")])
def test_the_level_is_told_as_it_is(confidence, level):
    assert f"at {level} confidence" in verdict(*outcomes(300, 0.3), confidence=confidence, draws=200).sentence


def test_equal_models_and_constant_routers_decide_nothing():
    win_rates, strong, _ = outcomes(200, 0.0)
    same = verdict(win_rates, strong, strong)
    assert same.outcome == "undecided"
    assert same.gain.value == 0.0
    assert "always weak is cheaper" in same.sentence
    constant = verdict(np.full(200, 0.5), *outcomes(200, 0.3)[1:])
    assert constant.outcome == "undecided"
    assert any("same win rate" in note for note in constant.notes)


@pytest.mark.parametrize("n", [1, 2, 29])
def test_few_prompts_get_no_verdict(n):
    found = verdict(np.linspace(0, 1, n), np.ones(n), np.zeros(n), draws=50)
    assert found.outcome == "undecided"
    assert f"{n} prompt{'s are' if n > 1 else ' is'} too few" in found.sentence


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 50, 300])
@pytest.mark.parametrize("rate", [0.01, 0.03, 0.1])
def test_the_bound_on_quality_holds_where_losses_are_too_rare_to_be_seen(n, rate):
    """Of 200 samples, 5 % may have a true loss beyond the bound; 9 % is what chance makes of that once in 100 times."""
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        win_rates = rng.random(n)
        weak = (rng.random(n) < np.where(win_rates < 0.5, 1 - rate, 0.3)).astype(float)
        found = verdict(win_rates, np.ones(n), weak, threshold=0.5, draws=200, seed=seed)
        missed += found.worst_loss < 0.5 * rate
    assert missed <= 0.09 * 200


def test_no_loss_seen_is_no_promise_of_none():
    win_rates, ones = np.linspace(0, 1, 60), np.ones(60)
    found = verdict(win_rates, ones, (win_rates < 0.5).astype(float), threshold=0.5)
    assert found.quality.value == 1.0
    assert found.worst_loss == pytest.approx(1 - 0.05 ** (1 / 60), rel=0.02)  # the exact bound for none of 60
    assert "scores at most 4.9 points below always strong" in found.sentence
    always = verdict(win_rates, ones, ones * 0, threshold=0.0)
    assert always.worst_loss == 0.0
    assert "scores no lower than always strong" in always.sentence


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 60), (1, 60), (59, 60), (300, 1000), (60, 60)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_the_highest_rate_is_a_quantile_of_the_beta_distribution(k, n, confidence):
    drawn = np.random.default_rng(0).beta(k + 1, n - k, 400_000) if k < n else np.ones(2)
    assert _highest_rate(k, n, confidence) == pytest.approx(np.quantile(drawn, confidence), abs=2e-3)
    assert _highest_rate(0, n, confidence) == pytest.approx(1 - (1 - confidence) ** (1 / n))


def test_a_bound_that_rounds_to_zero_is_not_shown_as_zero():
    win_rates, strong = np.linspace(0, 1, 1000), np.full(1000, 0.6)
    weak = np.where(win_rates < 0.5, 0.6, 0.1)
    weak[:20], weak[20:42] = 0.5, 0.75  # losses and gains that nearly cancel out
    found = verdict(win_rates, strong, weak, threshold=0.5, draws=100)
    assert 0.0 < found.worst_loss < 0.00005
    assert "scores less than 0.01 points below always strong" in found.sentence


def test_numbers_are_in_the_unit_of_the_scores_and_never_rounded_away():
    win_rates, strong, weak = outcomes(3000, 0.5)
    assert re.search(r"it scores \+\d\.\d points \(interval", verdict(win_rates, strong, weak).sentence)
    assert re.search(
        r"it scores \+0\.0000\d\d \(interval", verdict(win_rates, strong / 1e3 - 1, weak / 1e3 - 1).sentence
    )
    assert re.search(r"it scores \+\d{2}\d?\.\d{3} \(interval", verdict(win_rates, strong * 5e3, weak * 5e3).sentence)


def test_the_threshold_in_words_sends_the_same_prompts():
    rng = np.random.default_rng(0)
    win_rates = 0.123456 + rng.random(500) * 1e-6
    weak = (rng.random(500) > 0.8 * (win_rates - 0.123456) * 1e6).astype(float)
    found = verdict(win_rates, np.ones(500), weak)
    told = re.search(r"at threshold ([\d.]+) ", found.sentence)[1]  # type: ignore[index]
    assert (win_rates >= float(told)).sum() == (win_rates >= found.threshold).sum()


def test_bad_input_is_named():
    rates, strong, weak = outcomes(50, 0.2)
    with pytest.raises(DataError, match="strong scores"):
        verdict(rates, np.append(strong[1:], np.nan), weak)
    with pytest.raises(DataError, match="49 scores for 50"):
        verdict(rates, strong[1:], weak)
    with pytest.raises(DataError, match="cost of strong"):
        verdict(rates, strong, weak, strong_cost=[1, 2])
    with pytest.raises(DataError, match="cost of strong is 'a'"):
        verdict(rates, strong, weak, strong_cost="a")
    with pytest.raises(DataError, match=r"others\['m'\] is of type ndarray; expected \(scores, cost\)"):
        verdict(rates, strong, weak, others={"m": strong})
    with pytest.raises(DataError, match="not finite or below 0"):
        verdict(rates, strong, weak, weak_cost=-1)
    with pytest.raises(ConfigurationError, match="differ in name"):
        verdict(rates, strong, weak, strong="a", weak="a")
    with pytest.raises(ConfigurationError, match="threshold=2"):
        verdict(rates, strong, weak, threshold=2)
    with pytest.raises(ConfigurationError, match="confidence"):
        verdict(rates, strong, weak, confidence=95)
    with pytest.raises(ConfigurationError, match=r"threshold='0\.5'"):
        verdict(rates, strong, weak, threshold="0.5")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="seed=-3"):
        verdict(rates, strong, weak, seed=-3)
    with pytest.raises(ConfigurationError, match="draws=0"):
        verdict(rates, strong, weak, draws=0)
