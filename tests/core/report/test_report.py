"""The report: complete, self-contained, redrawn from JSON, and safe whatever the names are."""

import io
import json
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import typer

from routellm_core import ConfigurationError, MissingExtraError
from routellm_core.cli import build_app, main
from routellm_core.evaluation.benchmarks import Benchmark
from routellm_core.report.chart import draw
from routellm_core.report.escaping import printable
from routellm_core.report.figures import save_figures
from routellm_core.report.page import render_html
from routellm_core.report.results import (
    HEADER,
    alternatives,
    best_router,
    evaluate_benchmark,
    gap_text,
    markdown_table,
    table_rows,
    use_text,
)
from tests.core.report.test_escaping import NASTY


def benchmark(name="mmlu", n=300, unit=1.0, seed=0):
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    strong = (rng.random(n) < 0.95 - 0.2 * hard) * unit
    weak = (rng.random(n) < 0.9 - 0.6 * hard) * unit
    prompts = tuple("x" * int(10 + 500 * h) for h in hard)
    return Benchmark(name, prompts, {"big": strong, "small": weak}, "big", "small", "test", 2), hard


@pytest.fixture(scope="module")
def results():
    found, hard = benchmark()
    other, hard2 = benchmark("mt-bench", n=60, unit=10.0, seed=1)
    rng = np.random.default_rng(99)
    return [
        evaluate_benchmark(found, {"skilled": hard, "guess": rng.random(300)}, strong_cost=30, weak_cost=1, draws=60),
        evaluate_benchmark(other, {"skilled": hard2}, draws=60),
    ]


@pytest.fixture(scope="module")
def priced():
    found, hard = benchmark("mine", n=60)
    more = {**found.scores, "mid": np.maximum(found.strong_scores, found.weak_scores), "unpriced": found.weak_scores}
    rates = {"skilled": hard, "guess": np.random.default_rng(99).random(60)}
    found = Benchmark("mine", found.prompts, more, "big", "small")
    return [evaluate_benchmark(found, rates, strong_cost=3.0, weak_cost=1.0, other_costs={"mid": 2.0}, draws=20)]


class Tags(HTMLParser):
    """Checks that tags nest, and collects what a browser would fetch."""

    void = frozenset({"meta", "line", "polyline", "polygon", "circle", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.requests, self.text, self.ids, self.links, self.seen = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.seen.append((tag, sorted(named), named.get("class")))
        self.requests += [named[k] for k in ("src", "xlink:href", "action", "poster", "data") if k in named]
        if tag in {"link", "script", "img", "iframe", "object"}:
            self.requests.append(tag)
        if tag == "a":
            self.links.append(named["href"])
        if "id" in named:
            self.ids.append(named["id"])
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, sorted(dict(attrs))))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_results_are_json_and_complete(results):
    first = json.loads(json.dumps(results, allow_nan=False))[0]
    assert [r["name"] for r in first["routers"]] == ["skilled", "guess"]
    assert first["contaminated_left_out"] == 2
    assert set(first["baselines"]) == {"random", "prompt_length", "oracle"}
    skilled = first["routers"][0]
    assert skilled["verdict"]["outcome"] == "gains"
    assert skilled["verdict"]["sentence"].startswith("Routing gains")
    assert first["routers"][1]["verdict"]["outcome"] == "undecided"
    asked = [row for row in skilled["thresholds"] if row["wanted"] is not None]
    assert [row["wanted"] for row in asked] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert [row["threshold"] for row in skilled["thresholds"]].count(skilled["verdict"]["threshold"]) == 1
    middle = asked[4]
    assert middle["strong_fraction"]["value"] == pytest.approx(0.5, abs=0.01)
    assert middle["cost"] == pytest.approx(1 + 29 * middle["strong_fraction"]["value"])
    pairs = [(c["first"], c["second"]) for c in first["comparisons"]]
    assert pairs == [("skilled", "guess"), ("skilled", "prompt length"), ("guess", "prompt length")]
    assert first["comparisons"][0]["difference"]["low"] > 0
    assert "mf, Arena" in first["published"]
    for row in skilled["thresholds"]:
        chosen = np.array(benchmark()[1]) >= row["threshold"]
        found, _ = benchmark()
        assert row["quality"] == pytest.approx(np.where(chosen, found.strong_scores, found.weak_scores).mean())
        assert row["strong_fraction"]["value"] == pytest.approx(chosen.mean())
        mix = np.interp(row["cost"], [1, 30], [first["weak_quality"], first["strong_quality"]])
        assert row["over_mix"] == pytest.approx(row["quality"] - mix)


def test_table_names_routers_then_baselines_then_the_paper(results):
    rows = table_rows(results[0])
    names = [row[0] for row in rows]
    assert names[:5] == ["skilled", "guess", "random routing", "prompt length", "oracle"]
    assert all(name.startswith("paper: ") for name in names[5:])
    assert all(len(row) == len(HEADER) for row in rows)
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, \d\.\d{3}\]", rows[0][1])
    assert rows[2][1].startswith("0.500 [")
    assert markdown_table(results[0]).count("\n") == len(rows) + 1


def test_page_is_self_contained_and_well_formed(results):
    page = render_html(results)
    tags = parsed(page)
    assert tags.requests == []
    assert not re.search(r"url\(|@import|https?://", page)
    assert all(link.removeprefix("#") in tags.ids for link in tags.links)
    assert "width=device-width" in page
    text = " ".join(tags.text)
    for result in results:
        assert result["title"] in text
        for router in result["routers"]:
            verdict = router["verdict"]["sentence"]
            assert verdict in " ".join("".join(tags.text).split()) or verdict[20:] in "".join(tags.text)
            for row in router["thresholds"]:
                assert f"{row['threshold']:.4f}" in text
    assert page.count('class="chart"') == 2


def test_page_says_how_to_use_what_gains_and_what_it_was_compared_with(results):
    page = render_html(results)
    text = " ".join("".join(parsed(page).text).split())
    threshold = results[0]["routers"][0]["verdict"]["threshold"]
    assert f"RoutingPolicy(router, threshold={threshold})" in text
    own = next(r for r in results[0]["routers"][0]["thresholds"] if r["threshold"] == threshold)
    assert f"1,000 calls cost {1000 * own['cost']:,.2f}" in text
    assert page.count("To use it") == sum(r["verdict"]["outcome"] == "gains" for f in results for r in f["routers"])
    assert "In short" in text
    assert "In short" not in render_html([results[1]])  # one router on one benchmark: the verdict is the summary
    assert "always small" in text
    assert "static mix of the same cost" in text


def test_page_shows_the_interval_of_each_number_and_which_differences_are_clear(results):
    text = " ".join("\n".join(parsed(render_html(results)).text).split())
    for result in results:
        for router in result["routers"]:
            apgr, gain = router["metrics"]["apgr"], router["verdict"]["gain"]
            assert f"{apgr['value']:.3f} {apgr['low']:.3f} – {apgr['high']:.3f}" in text
            assert f"{gap_text(result, gain['low'])} – {gap_text(result, gain['high'])}" in text
    for comparison in [c for r in results for c in r["comparisons"]]:
        low, high = (f"{comparison['difference'][end]:+.3f}".replace("-", "−") for end in ("low", "high"))
        unclear = comparison["difference"]["low"] <= 0 <= comparison["difference"]["high"]
        assert (f"[{low}, {high}]: no clear difference" in text) == unclear


def test_the_commands_on_the_page_exist(results):
    commands = re.findall(r"<code>routellm (\w+) (--\w+) FILE</code>", render_html(results))
    assert commands
    known = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    for command, option in commands:
        assert any(option in parameter.opts for parameter in known[command].params)


def test_alternatives_are_the_measured_policy_against_each_way_to_do_without_it():
    found, hard = benchmark()
    better = Benchmark(
        "mine",
        found.prompts,
        {**found.scores, "mid": np.maximum(found.strong_scores, found.weak_scores)},
        "big",
        "small",
    )
    plain = evaluate_benchmark(found, {"skilled": hard}, draws=60)
    rows = {name: (score, cost, gap) for name, score, cost, gap in alternatives(plain, plain["routers"][0])}
    verdict = plain["routers"][0]["verdict"]
    share = f"{verdict['measured_at']['value']:.0%}"
    at = f"{verdict['strong_fraction']['value']:.0%}"
    assert at != share
    routed = f"routed, {share} strong calls ({at} at the threshold)"
    assert list(rows) == [routed, "always small", "always big", "static mix of the same cost"]
    # the shares of the sentence, the table and the marked point agree, or each says what the other is
    assert f"({at} strong calls, measured at {share})" in verdict["sentence"]
    assert draw(plain).legend[0].dot[0] == verdict["measured_at"]["value"]  # type: ignore[index, union-attr]
    assert [cost for _, cost, _ in rows.values()] == [share, "0%", "100%", share]
    assert rows["always small"][0] == f"{found.weak_scores.mean():.1%}"
    assert rows["static mix of the same cost"][2][0] == f"{100 * verdict['gain']['value']:+.1f}"
    priced = evaluate_benchmark(
        better, {"skilled": hard}, strong_cost=0.03, weak_cost=0.001, other_costs={"mid": 0.01}, draws=60
    )
    rows = {name: (score, cost, gap) for name, score, cost, gap in alternatives(priced, priced["routers"][0])}
    assert rows["always mid, the best single model"][1] == "10.00"
    assert rows["always big"][1] == "30.00"
    assert rows["always mid, the best single model"][2][0].startswith("-")


def test_the_line_to_use_names_the_router():
    found, hard = benchmark()
    bundled = (("mf", "load_router()"), ("mf_vote", "load_router()"))
    for source, load in (*bundled, ("./my-router", "load_router('./my-router')")):
        result = evaluate_benchmark(found, {"skilled": hard}, sources={"skilled": source}, draws=60)
        assert use_text(result["routers"][0]).startswith(f"RoutingPolicy({load}, threshold=0.")  # type: ignore[union-attr]
    assert use_text({"verdict": {"outcome": "undecided", "threshold": 0.5}}) is None


def test_every_further_model_with_a_price_is_compared_with():
    found, hard = benchmark()
    more = Benchmark("mine", found.prompts, {**found.scores, "a": found.weak_scores, "b": hard}, "big", "small")
    result = evaluate_benchmark(
        more, {"skilled": hard}, strong_cost=3.0, weak_cost=1.0, other_costs={"a": 2.0, "b": 0.5}, draws=60
    )
    names = [name for name, *_ in alternatives(result, result["routers"][0])]
    assert names[1:] == ["always small", "always big", "always a", "always b", "static mix of the same cost"]


def test_further_models_without_a_price_are_named():
    found, hard = benchmark(n=60)
    more = Benchmark("mine", found.prompts, {**found.scores, "mid": found.weak_scores}, "big", "small")
    assert "skipped in the comparison (no --price given): mid" in render_html(
        [evaluate_benchmark(more, {"a": hard}, draws=20)]
    )
    assert "skipped in the comparison" not in render_html([evaluate_benchmark(found, {"a": hard}, draws=20)])


def test_the_best_router_is_the_one_that_gains_most(results):
    assert best_router(results[0]) == 0


def test_the_shares_of_thresholds_have_the_level_of_the_evaluation():
    found, hard = benchmark()
    wide, narrow = (
        evaluate_benchmark(found, {"a": hard}, draws=20, confidence=level)["routers"][0]["thresholds"]
        for level in (0.99, 0.6)
    )
    widths = [[r["strong_fraction"]["high"] - r["strong_fraction"]["low"] for r in rows] for rows in (wide, narrow)]
    assert all(w > 2 * n for w, n in zip(*widths, strict=False))


def test_costs_have_an_axis_where_prices_are_known(results, tmp_path):
    first, second = (render_html([result]) for result in results)
    assert "cost of 1,000 calls" in first
    assert "cost of 1,000 calls" not in second
    files = save_figures(results, tmp_path)
    assert "<!-- cost of 1,000 calls -->" in files[1].read_text()
    assert "<!-- cost of 1,000 calls -->" not in files[3].read_text()


def test_scores_with_a_small_gap_are_told_apart():
    found, hard = benchmark()
    scores = {name: 0.999 + 0.001 * column for name, column in found.scores.items()}
    result = evaluate_benchmark(Benchmark("mine", found.prompts, scores, "big", "small"), {"a": hard}, draws=60)
    rows = alternatives(result, result["routers"][0])
    assert len({score for _, score, _, _ in rows}) == len(rows)
    assert not any(set(gap) & {"+0.0", "-0.0"} for _, _, _, gap in rows)
    assert gap_text({**result, "strong_quality": 0.9, "weak_quality": 0.5}, -0.0003) == "+0.0"


@pytest.mark.parametrize("costs", [{"other_costs": {"mid": 3.0}}, {"strong_cost": 0.008}, {"weak_cost": 0.1}])
def test_costs_need_those_of_both_models(costs):
    found, hard = benchmark(n=40)
    with pytest.raises(ConfigurationError, match="costs need those of both models"):
        evaluate_benchmark(found, {"a": hard}, draws=20, **costs)


def test_a_router_may_be_named_like_a_baseline():
    found, hard = benchmark()
    result = evaluate_benchmark(found, {"prompt length": 1 - hard, "z": hard}, draws=20)
    apart = [(c["first"], c["second"], c["difference"]["value"]) for c in result["comparisons"]]
    by_name = {r["name"]: r["metrics"]["apgr"]["value"] for r in result["routers"]}
    assert apart[0] == ("prompt length", "z", pytest.approx(by_name["prompt length"] - by_name["z"]))
    assert len(apart) == 3


def test_page_is_redrawn_from_saved_json(results):
    assert render_html(json.loads(json.dumps(results))) == render_html(results)


def renamed(value, names):
    """A result with other names in every text, as if models, routers and files had been called so."""
    if isinstance(value, dict):
        return {renamed(key, names): renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    if isinstance(value, str):
        for plain, evil in names.items():
            value = re.sub(rf"\b{plain}\b", lambda _, evil=evil: evil, value)  # type: ignore[misc]
    return value


@pytest.mark.parametrize("evil", NASTY)
def test_no_name_changes_the_structure_of_the_page(priced, evil):
    names = {"skilled": evil + "r", "guess": evil + "g", "big": evil + "s", "small": evil + "w", "mid": evil + "o",
             "mine": evil + "t", "unpriced": evil + "u"}  # fmt: skip
    page, plain = render_html(renamed(priced, names), title=evil), render_html(priced)
    tags, expected = parsed(page), parsed(plain)
    assert tags.seen == expected.seen
    assert tags.requests == []
    assert all(line.isprintable() for line in page.split("\n"))
    text = "".join(tags.text)
    for name in names.values():
        assert printable(name)[:32] in text


@pytest.mark.parametrize("evil", NASTY)
def test_no_name_breaks_the_markdown_table(results, evil):
    table = markdown_table(renamed(results[0], {"skilled": evil + "r"}))
    assert table.count("\n") == markdown_table(results[0]).count("\n")
    assert all(line.isprintable() for line in table.split("\n"))


def test_no_name_commands_a_terminal(tmp_path, monkeypatch):
    evil = "".join(NASTY).replace("\ud800", "")  # a reader of files replaces lone surrogates
    strong, weak, other = evil + "s", evil + "w", evil + "o"
    file = tmp_path / "\x1b[31mmine.jsonl"
    rows = [{"prompt": f"p{i}", "scores": {strong: 1.0, weak: float(i % 2), other: 0.5}} for i in range(40)]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    argv = ["evaluate", "--data", str(file), "--out", str(tmp_path / "\x9bout"), "--draws", "20"]
    printed, error = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    monkeypatch.setattr(sys, "stderr", error)
    with pytest.raises(SystemExit) as exit:
        main([*argv, "--strong", strong, "--weak", weak])
    assert (exit.value.code, error.getvalue()) == (0, "")
    assert printable(strong)[:20] in printed.getvalue()
    with pytest.raises(SystemExit) as exit:
        main([*argv, "--strong", strong, "--weak", evil])
    assert exit.value.code == 2
    for line in (*printed.getvalue().split("\n"), *error.getvalue().split("\n")):
        assert line.isprintable()


def test_figures_show_any_name(priced, tmp_path):
    evil = "".join(NASTY)
    names = {"skilled": evil + "r", "big": evil + "s", "small": evil + "w", "mid": evil + "o", "mine": evil + "t"}
    (_, drawn) = save_figures(renamed(priced, names), tmp_path)
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")


def test_the_page_without_jinja2_names_the_extra(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"routellm-adapters\[report\]"):
        render_html(results)


def test_long_costs_stay_within_the_chart(results):
    costs = draw(results[0]).texts[-4:-1]  # type: ignore[union-attr]
    assert [text.words for text in costs] == ["1,000.00", "15,500.00", "30,000.00"]
    assert all(float(text.x) + 0.3 * 17 * len(text.words) <= draw(results[0]).width for text in costs)  # type: ignore[union-attr]


def test_figures_are_written_as_png_and_svg(results, tmp_path):
    files = save_figures(results, tmp_path / "figures")
    assert [f.name for f in files] == ["mmlu.png", "mmlu.svg", "mt-bench.png", "mt-bench.svg"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in files[1].read_bytes()
    again = save_figures(results, tmp_path / "again")
    assert files[0].read_bytes() == again[0].read_bytes()


def test_figures_of_equal_names_do_not_replace_one_another(results, tmp_path):
    named = [{**results[1], "benchmark": name} for name in ("a/b", "a b", "../..")]
    files = save_figures(named, tmp_path)
    assert [f.name for f in files[::2]] == ["a-b.png", "a-b-2.png", "outcomes.png"]
    assert all(f.parent == tmp_path for f in files)


def test_figures_without_matplotlib_name_the_extra(results, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"routellm-adapters\[plot\]"):
        save_figures(results, tmp_path)


@pytest.mark.parametrize(
    ("strong", "weak"),
    [
        ([1.0] * 30, [1.0] * 30),  # equal
        ([0.0] * 30, [1.0] * 30),  # weak better
        ([-5.0, 3.0] * 15, [-7.0, 2.0] * 15),  # negative scores
        ([1.0], [0.0]),  # one prompt
    ],
)
def test_degenerate_outcomes_are_drawn_without_a_crash(strong, weak, tmp_path):
    n = len(strong)
    scores = {"big": np.array(strong), "small": np.array(weak)}
    found = Benchmark("mine", ("p",) * n, scores, "big", "small")
    result = evaluate_benchmark(found, {"a": np.linspace(0, 1, n), "b": np.full(n, 0.5)}, draws=20)
    json.dumps(result, allow_nan=False)
    page = render_html([result])
    parsed(page)
    assert "nan" not in re.sub(r"<style>.*</style>", "", page.lower())
    assert len(save_figures([result], tmp_path)) == 2
