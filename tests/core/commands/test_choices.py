"""`routellm evaluate` beyond one pair: the right models at a budget, and whether a cascade pays."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from routellm_core import ConfigurationError, DataError
from routellm_core.commands.evaluate import evaluate
from tests.support.examples import ROOT
from tests.support.shared import DATA, needs_data

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(evaluate)


def run(*args, error=None):
    result = CliRunner().invoke(app, [str(a) for a in args])
    if error is not None:
        with pytest.raises(error) as caught:
            raise result.exception  # type: ignore[misc]
        return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def outcomes(tmp_path):
    """Long prompts are hard: `big` answers all, `small` the short ones, `poor` few."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(200):
        hard = i % 2
        scores = {
            "big": float(rng.random() < 0.95),
            "small": float(rng.random() < (0.1 if hard else 0.95)),
            "poor": float(rng.random() < 0.2),
        }
        prompt = f"question {i} " + "prove that theorem of algebra " * (20 * hard)
        rows.append({"prompt": prompt, "scores": scores, "accepted": bool(scores["small"])})
    return written(tmp_path / "mine.jsonl", rows)


@pytest.fixture
def longest(tmp_path, monkeypatch):
    """A router of one's own that sends long prompts to the strong model."""
    (tmp_path / "by_length.py").write_text(
        "from routellm_core import Router\n"
        "class ByLength(Router):\n"
        "    name = 'by_length'\n"
        "    def _win_rates(self, prompts):\n"
        "        return [min(len(p) / 1000, 1.0) for p in prompts]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "by_length:ByLength"


PRICES = ("--price", "big=10", "--price", "small=1", "--price", "poor=.5")


def test_the_best_pair_at_a_budget(outcomes, longest, tmp_path):
    out = tmp_path / "out"
    shown = run("-d", outcomes, "-r", longest, *PRICES, "--budget", "6", "--out", out, "--draws", "100")
    assert "use a pair: 56% big + 44% small" in shown
    assert re.search(r"best single model +small +1\.00 ", shown)
    assert re.search(r"best pair +56% big", shown)
    assert "prompts are ordered by the router by_length" in shown
    assert sorted(p.name for p in out.iterdir()) == ["mine.png", "mine.svg", "report.html", "results.json"]
    (result,) = json.loads((out / "results.json").read_text())
    assert result["recommended"] == 2
    assert [choice["size"] for choice in result["choices"]] == [1, 2, 3]
    pair = result["choices"][1]
    assert pair["models"] == ["big", "small"]
    assert pair["quality"]["low"] < pair["quality"]["value"] < pair["quality"]["high"]
    assert pair["gain"]["low"] > 0
    assert pair["cost"] <= 6
    page = (out / "report.html").read_text()
    assert "56% big + 44% small" in page
    assert "<svg" in page
    assert "At other budgets" in page


def test_the_budget_for_programs_is_money_for_a_thousand_calls(outcomes, longest, tmp_path):
    (result,) = json.loads(
        run(
            "-d",
            outcomes,
            "-r",
            longest,
            *PRICES,
            "--budget",
            "1",
            "--out",
            tmp_path / "out",
            "--draws",
            "50",
            "--json",
        )
    )
    assert {model["name"]: model["cost"] for model in result["models"]} == {"big": 10.0, "small": 1.0, "poor": 0.5}
    assert result["choices"][0]["models"] == ["small"]
    assert all(a["cost"] < b["cost"] for a, b in zip(result["hull"], result["hull"][1:], strict=False))


def test_routers_trained_on_the_other_folds(outcomes, tmp_path):
    shown = run("-d", outcomes, *PRICES, "--budget", "6", "--folds", "3", "--out", tmp_path / "out", "--draws", "50")
    assert "use a pair: 56% big + 44% small" in shown
    assert "each trained on the other 2 of 3 folds" in shown


def test_prices_from_a_file_and_rows_that_lack_a_model(outcomes, longest, tmp_path):
    with outcomes.open("a") as file:
        file.write(json.dumps({"prompt": "another", "scores": {"big": 1.0, "small": 1.0}}) + "\n")
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"big": [5, 15], "small": 1, "poor": [0.5]}))
    shown = run(
        "-d", outcomes, "-r", longest, "--price", prices, "--budget", "6", "--out", tmp_path / "o", "--draws", "50"
    )
    assert "1 row was left out: it lacks a score of one of these models; first: line 201" in shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--budget", "6", "--strong", "big", "--weak", "small"), "leave one of them out"),
        (("--budget", "6", "--benchmark", "mmlu"), "leave --benchmark mmlu out"),
        (("--budget", "6", "-r", "random", "-r", "mf"), "one --router"),
        (("--budget", "6", "--folds", "3", "-r", "mf"), "--folds 3 --router mf"),
        (("--budget", "6", "--folds", "1"), "2 folds or more"),
        (("--budget", "0.1", "-r", "random"), "even poor, the cheapest model, costs 0.5 for as many calls"),
        (("--budget", "-1", "-r", "random"), "budget=-1.0: expected a cost, a number > 0"),
        (("--folds", "3"), "--folds needs --budget"),
        (("--budget", "6", "--price", "other=1"), "other"),
        (("--price", "missing.json", "--budget", "6"), "cannot be read"),
        (("--accept-band", "0.5", "--strong", "big", "--weak", "small"), "LOW/HIGH"),
        (("--accept-band", "0.5/0.2", "--strong", "big", "--weak", "small"), "LOW/HIGH"),
    ],
)
def test_what_has_no_meaning_is_refused(outcomes, tmp_path, args, words):
    assert words in run("-d", outcomes, *PRICES, "--out", tmp_path / "out", *args, error=ConfigurationError)


@pytest.mark.parametrize("text", ["[1]", "{}", "{", '{"big": "2"}', '{"big": [1, 2, 3]}', '{"big": -1}'])
def test_a_malformed_file_of_prices_is_refused(outcomes, tmp_path, text):
    prices = tmp_path / "prices.json"
    prices.write_text(text)
    assert "prices.json" in run("-d", outcomes, "--price", prices, "--budget", "6", error=ConfigurationError)


def test_a_router_that_has_seen_the_prompts_is_refused_with_the_way_out(outcomes, longest, tmp_path, monkeypatch):
    import by_length

    from routellm_core.data.seen_prompts import SeenPrompts

    seen = SeenPrompts.of(json.loads(line)["prompt"] for line in outcomes.read_text().splitlines())
    monkeypatch.setattr(by_length.ByLength, "trained_on", seen)
    words = run("-d", outcomes, "-r", longest, *PRICES, "--budget", "6", "--out", tmp_path / "out", error=DataError)
    assert "--folds 5" in words


PAIR = ("--strong", "big", "--weak", "small", "--price", "big=10", "--price", "small=1")


def test_a_cascade_that_pays(outcomes, tmp_path):
    out = tmp_path / "out"
    shown = run("-d", outcomes, "-r", "random", *PAIR, "--out", out, "--draws", "200")
    assert "random: The cascade pays" in shown
    assert "to use it: threshold=" in shown
    assert "accept=your_check, accept_band=(" in shown
    assert re.search(r"against routing alone +\+\d", shown)
    assert re.search(r"refused +\d+%: these calls are paid twice", shown)
    page = (out / "report.html").read_text()
    assert "<b>The cascade pays</b>" in page
    assert "Checking the weak answer first" in page
    (result,) = json.loads((out / "results.json").read_text())
    found = result["routers"][0]["cascade"]
    assert found["outcome"] == "pays"
    assert found["over_routing"]["low"] > 0
    assert found["unknown"] == 0


def test_the_options_of_the_check(outcomes, tmp_path):
    rows = [json.loads(line) for line in outcomes.read_text().splitlines()]
    scored = written(tmp_path / "scored.jsonl", [{**r, "accepted": 0.9 if r["accepted"] else 0.6} for r in rows])
    common = ("-r", "random", *PAIR, "--out", tmp_path / "out", "--draws", "50", "--json")
    (plain,), (strict,), (lax,) = (
        json.loads(run("-d", file, *common, *more))
        for file, more in (
            (outcomes, ()),
            (scored, ("--accept-threshold", "0.8")),
            (scored, ("--accept-threshold", "0.1", "--accept-band", "0.2/0.7")),
        )
    )
    assert strict["routers"][0]["cascade"] == plain["routers"][0]["cascade"]
    assert lax["routers"][0]["cascade"]["escalated"] == 0
    assert lax["routers"][0]["cascade"]["accept_band"] == [0.2, 0.7]


def test_rows_that_say_nothing_of_the_check_are_counted(outcomes, tmp_path):
    rows = [json.loads(line) for line in outcomes.read_text().splitlines()]
    for row in rows[:50]:
        del row["accepted"]
    shown = run(
        "-d", written(tmp_path / "some.jsonl", rows), "-r", "random", *PAIR, "--out", tmp_path / "o", "--draws", "50"
    )
    assert "measured on 150 prompts; for 50 others" in shown
    for row in rows:
        row.pop("accepted", None)
    shown = run(
        "-d", written(tmp_path / "none.jsonl", rows), "-r", "random", *PAIR, "--out", tmp_path / "p", "--draws", "50"
    )
    assert "cascade" not in shown


def test_a_table_with_a_column_for_the_check(tmp_path):
    rng = np.random.default_rng(1)
    lines = ["prompt,accepted,big,small"]
    for i in range(60):
        small = int(rng.random() < 0.5)
        lines.append(f"question {i},{bool(small)},1,{small}")
    (tmp_path / "wide.csv").write_text("\n".join(lines))
    shown = run("-d", tmp_path / "wide.csv", "-r", "random", *PAIR, "--out", tmp_path / "out", "--draws", "50")
    assert "weak answers that it accepts score 100.0%, those that it refuses 0.0%" in shown


@pytest.mark.slow
@needs_data
def test_the_table_of_the_docs_is_what_the_command_prints(tmp_path):
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    command, block = re.search(r"\$ routellm (evaluate [^\n]*mmlu_pro[^\n]*)\n(.*?)```", page, re.DOTALL).groups()  # type: ignore[union-attr]
    args = command.split()[1:]
    args[args.index("mmlu_pro.jsonl.gz")] = DATA / "outcomes" / "mmlu_pro.jsonl.gz"  # type: ignore[call-overload]
    args[args.index("docs/mmlu_pro_prices.json")] = ROOT / "docs" / "mmlu_pro_prices.json"  # type: ignore[call-overload]
    shown = [line.rstrip() for line in run(*args, "--out", tmp_path).splitlines()]
    assert shown[:-1] == block.splitlines()
    assert shown[-1].startswith("written: ")
