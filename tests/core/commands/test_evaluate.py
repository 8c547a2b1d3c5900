"""The commands evaluate, calibrate and explain, as a person and as a program call them."""

import gzip
import json
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from routellm_core import Calibration, ConfigurationError, DataError, load_router
from routellm_core.commands.calibrate import calibrate
from routellm_core.commands.evaluate import evaluate
from routellm_core.commands.explain import explain
from routellm_core.data.seen_prompts import SeenPrompts
from tests.support.routers import ScriptedRouter

app = typer.Typer(pretty_exceptions_enable=False)
for command in (evaluate, calibrate, explain):
    app.command()(command)


def run(*args, error=None):
    result = CliRunner().invoke(app, [str(a) for a in args])
    if error is not None:
        with pytest.raises(error) as caught:
            raise result.exception  # type: ignore[misc]
        return str(caught.value)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def outcomes(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "mine.jsonl"
    with file.open("w") as out:
        for i in range(120):
            scores = {
                "big": float(rng.random() < 0.9),
                "small": float(rng.random() < 0.6),
                "mid": float(rng.random() < 0.7),
            }
            out.write(json.dumps({"prompt": f"question {i}", "scores": scores}) + "\n")
    return file


def test_evaluate_prints_a_table_and_writes_everything(outcomes, tmp_path):
    folder = tmp_path / "out"
    result = run(
        "evaluate", "-r", "random", "--data", outcomes, "--strong", "big", "--weak", "small",
        "--out", folder, "--draws", "50",
    )  # fmt: skip
    assert re.search(r"mine, 120 prompts: strong big \d\d\.\d%, weak small \d\d\.\d%", result.stdout)
    for name in ("random", "prompt length", "oracle", "APGR", "CPT(50%)"):
        assert name in result.stdout
    assert "Routing " in result.stdout
    for policy in ("routed, ", "always small", "always big", "static mix of the same cost"):
        assert policy in result.stdout
    assert "skipped in the comparison (no --price given): mid" in result.stdout
    assert "was taken as the strong model" not in result.stdout
    assert sorted(p.name for p in folder.iterdir()) == ["mine.png", "mine.svg", "report.html", "results.json"]
    (saved,) = json.loads((folder / "results.json").read_text())
    assert saved["count"] == 120


def test_evaluate_json_for_programs(outcomes, tmp_path):
    result = run(
        "evaluate", "-r", "random", "-d", outcomes, "--strong", "big", "--weak", "small", "--json", "--draws", "50",
        "--price", "big=10", "--price", "small=1", "--price", "mid=2", "--out", tmp_path / "out",
    )  # fmt: skip
    (found,) = json.loads(result.stdout)
    assert result.stderr == ""
    assert found["priced"]
    assert found["routers"][0]["verdict"]["best_single"] in {"big", "small", "mid"}
    assert found["routers"][0]["thresholds"][0]["cost"] < 0.01


def test_evaluate_several_routers_and_benchmarks(tmp_path):
    rows = [{"prompt": f"p{i}", "scores": {"s": i % 5 != 0, "w": i % 3 == 0}} for i in range(40)]
    for name in ("mmlu", "gsm8k"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    load_router("random", seed=1).save_pretrained(tmp_path / "one")
    load_router("random", seed=2).save_pretrained(tmp_path / "two")
    result = run(
        "evaluate", "-r", f"{tmp_path / 'one'},{tmp_path / 'two'}", "-b", "mmlu", "-b", "gsm8k", "--data", tmp_path,
        "--strong", "s", "--weak", "w", "--json", "--draws", "30", "--out", tmp_path / "out",
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert [f["benchmark"] for f in found] == ["mmlu", "gsm8k"]
    assert [r["name"] for r in found[0]["routers"]] == ["random (one)", "random (two)"]
    assert len(found[0]["comparisons"]) == 3  # the pair, and each against prompt length


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ([], ConfigurationError, "there is nothing to evaluate on"),
        (["-d", "OUTCOMES"], ConfigurationError, "--strong and --weak"),
        (["-b", "mmlu"], ConfigurationError, "needs --data"),
        (["-b", "mmlu", "--data", "nowhere"], DataError, "no mmlu data"),
        (["-d", "nowhere.jsonl"], DataError, "no such file"),
        (
            ["-d", "OUTCOMES", "--strong", "big", "--weak", "small", "--price", "big=3"],
            ConfigurationError,
            "--price small=IN/OUT is missing",
        ),
        (
            ["-d", "OUTCOMES", "--strong", "big", "--weak", "small", "--price", "mid"],
            ConfigurationError,
            "expected MODEL=IN/OUT",
        ),
        (
            ["-d", "OUTCOMES", "--strong", "big", "--weak", "small", "--price", "mid=1"],
            ConfigurationError,
            "big=IN/OUT is missing",
        ),
        (["-d", "OUTCOMES", "--strong", "big", "--weak", "x"], ConfigurationError, "weak='x'"),
        (
            ["-d", "OUTCOMES", "--strong", "big", "--weak", "small", "--tokens", "9"],
            ConfigurationError,
            "--tokens is of use with prices only",
        ),
        (
            ["-d", "OUTCOMES", "--price", "big=2", "--price", "small=1", "--tokens", "0"],
            ConfigurationError,
            "--tokens '0'",
        ),
    ],
)
def test_evaluate_names_what_is_wrong(args, error, words, outcomes, tmp_path):
    args = [str(outcomes) if a == "OUTCOMES" else a for a in args]
    message = run("evaluate", "-r", "random", "--out", tmp_path / "out", *args, error=error)
    assert re.search(words, message)


def test_a_strong_model_that_is_cheaper_is_judged_and_pointed_out(outcomes, tmp_path):
    prices = ["--price", "big=1", "--price", "small=2"]
    pair = ["--strong", "big", "--weak", "small"]
    command = ["evaluate", "-r", "random", "-d", outcomes, *pair, *prices, "--draws", "50", "--out", tmp_path / "out"]
    text = " ".join(run(*command).stdout.split())
    assert "Do not route: always big is cheaper and scores no worse than small (" in text
    assert "A call of big costs less than one of small, although big is named as the strong model" in text


def test_costs_of_rows_are_used_and_what_is_assumed_is_said(tmp_path):
    file = tmp_path / "costs.jsonl"
    with file.open("w") as out:
        for i in range(60):
            row = {"prompt": f"p{i}", "scores": {"big": float(i % 5 != 0), "small": float(i % 3 == 0)}}
            row["costs"] = {"big": 0.02 if i % 2 else 0.04}
            row["tokens"] = {"small": {"input": 100, "output": 100 * (1 + i % 2)}} if i < 50 else {}
            out.write(json.dumps(row) + "\n")
    pair = ["--strong", "big", "--weak", "small", "--draws", "50", "--out", tmp_path / "out"]
    command = ["evaluate", "-r", "random", "-d", file, *pair, "--price", "small=10", "--currency", "USD"]
    (found,) = json.loads(run(*command, "--json").stdout)
    big, small = found["models"][:2]
    assert big["cost"] == pytest.approx(0.03)
    assert small["cost"] == pytest.approx(0.0025)  # 100 in and 150 out on average, at 10 per million
    text = run(*command).stdout
    assert "cost of big: measured for 60 of 60 prompts" in text
    assert "cost of small: price 10 in / 10 out USD per million tokens; measured for 50 of 60 prompts; for the" in text
    assert "estimated from its price and 100 + 150 tokens a call" in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "cost of 1,000 calls, USD" in page
    assert "measured for 50 of 60 prompts" in page
    # without a price, the costs of one model alone are of no use
    assert not json.loads(run("evaluate", "-r", "random", "-d", file, *pair, "--json").stdout)[0]["priced"]


def test_the_report_says_where_its_numbers_come_from(outcomes, tmp_path):
    pair = ["--strong", "big", "--weak", "small", "--draws", "50", "--out", tmp_path / "out"]
    result = run("evaluate", "-d", outcomes, *pair)
    assert result.stdout.splitlines()[0] == "no --router given: this judges the bundled router (mf_vote)"
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"<li>Date: \d{4}-\d\d-\d\d</li>", page)
    assert "<li>Command: " in page
    assert re.search(r"<li>Router mf_vote: trained on [\d,]+ prompts</li>", page)
    assert "The router was trained on none of them." in page
    first_use = page.index(">Metrics<")
    assert page.index("APGR: the mean share of the gap") < page.index('<th scope="col">APGR')
    assert first_use < page.index("APGR: the mean share of the gap")
    for words in ("APGR: mean share of the gap", "CPT(50%): share of strong calls that recovers half"):
        assert words in " ".join(result.stdout.split())


def test_rows_without_both_scores_are_counted_and_do_not_end_the_run(outcomes, tmp_path):
    lines = outcomes.read_text().splitlines()
    lines[16] = json.dumps({"prompt": "ragged", "scores": {"big": 1.0, "mid": 0.0}})
    lines[30] = json.dumps({"prompt": "ragged too", "scores": {"mid": 0.0}})
    outcomes.write_text("\n".join(lines) + "\n")
    pair = ["--strong", "big", "--weak", "small", "--draws", "50", "--out", tmp_path / "out"]
    text = " ".join(run("evaluate", "-r", "random", "-d", outcomes, *pair).stdout.split())
    assert "mine, 118 prompts" in text
    assert "2 rows were left out for lack of a score of big or small; first: line 17" in text
    assert "2 rows were left out for lack of" in (tmp_path / "out" / "report.html").read_text()


def test_prompts_that_a_router_was_trained_on_are_left_out(outcomes, tmp_path):
    router = load_router("random", seed=3)
    router.trained_on = SeenPrompts.of(f"Question {i}!" for i in range(50))  # the same but for case and punctuation
    router.save_pretrained(tmp_path / "mine")
    pair = ["--strong", "big", "--weak", "small", "--draws", "50", "--out", tmp_path / "out"]
    command = ["evaluate", "-r", tmp_path / "mine", "-d", outcomes, *pair]
    text = " ".join(run(*command).stdout.split())
    assert "mine, 70 prompts" in text
    assert "50 prompts were left out because the router random was trained on them" in text
    assert "50 prompts were left out" in (tmp_path / "out" / "report.html").read_text()
    router.trained_on = SeenPrompts.of(f"question {i}" for i in range(100))
    router.save_pretrained(tmp_path / "mine")
    message = run(*command, error=DataError)
    assert "was trained on 100 of these 120 prompts, and on the 20 others alone there is no verdict" in message


def test_evaluate_says_which_model_it_took_as_the_strong_one(tmp_path):
    file = tmp_path / "pair.jsonl"
    rows = [{"prompt": f"p{i}", "scores": {"a": i % 2, "b": i % 3 != 0}} for i in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate", "-r", "random", "-d", file, "--draws", "20", "--out", tmp_path / "out"]
    assert "b was taken as the strong model, by the mean scores" in run(*command).stdout
    assert "was taken" not in run(*command, "--strong", "a", "--weak", "b").stdout


def test_evaluate_tells_apart_what_is_called_the_same(outcomes, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.jsonl").write_bytes(outcomes.read_bytes())
    load_router("mf").save_pretrained(tmp_path / "copy")
    result = run(
        "evaluate", "-r", "mf", "-r", tmp_path / "copy", "-d", outcomes, "-d", tmp_path / "other" / "mine.jsonl",
        "--strong", "big", "--weak", "small", "--draws", "20", "--json", "--out", tmp_path / "out",
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert [f["benchmark"] for f in found] == [f"{tmp_path.name}/mine", "other/mine"]
    assert [r["name"] for r in found[0]["routers"]] == ["mf_vote (bundled)", "mf_vote (copy)"]
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_evaluate_tells_an_output_that_cannot_be_before_it_scores_anything(outcomes, tmp_path, monkeypatch):
    monkeypatch.setattr("routellm_core.routers.load_router", lambda *a, **k: pytest.fail("a router was loaded"))
    (tmp_path / "file").write_text("mine")
    command = ["evaluate", "-d", outcomes, "--strong", "big", "--weak", "small"]
    message = run(*command, "--out", tmp_path / "file", error=ConfigurationError)
    assert f"--out {tmp_path / 'file'}" in message
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["results.json", "report.html"])
def test_evaluate_never_replaces_the_outcomes(name, outcomes, tmp_path):
    mine = tmp_path / name
    mine.write_bytes(outcomes.read_bytes())
    command = ["evaluate", "-r", "random", "-d", mine, "--strong", "big", "--weak", "small", "--draws", "20"]
    assert f"would replace {mine}" in run(*command, "--out", tmp_path, error=ConfigurationError)
    assert mine.read_bytes() == outcomes.read_bytes()


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (["--price", "big=3"], "big has a price already"),
        (["--price", "mid=1/2/3"], "'mid=1/2/3'"),
        (["--price", "mid=3", "--price", "mid=30"], "mid has a price already"),
        (["--price", "mid=-3"], "'mid=-3'"),
    ],
)
def test_evaluate_refuses_prices_that_cannot_be_meant(prices, words, outcomes, tmp_path):
    command = ["evaluate", "-r", "random", "-d", outcomes, "--strong", "big", "--weak", "small"]
    message = run(
        *command, "--price", "big=8", "--price", "small=1", *prices, "--out", tmp_path / "out",
        error=ConfigurationError,
    )  # fmt: skip
    assert re.search(words, message)


def test_evaluate_takes_a_file_once_and_tells_apart_what_lies_deeper(outcomes, tmp_path):
    for folder in ("a", "b/a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.jsonl").write_bytes(outcomes.read_bytes())
    files = [tmp_path / "a" / "x.jsonl", tmp_path / "b" / "a" / "x.jsonl", tmp_path / "b" / ".." / "a" / "x.jsonl"]
    result = run(
        "evaluate", "-r", "random", *(part for file in files for part in ("-d", file)), "--strong", "big", "--weak",
        "small", "--draws", "20", "--json", "--out", tmp_path / "out",
    )  # fmt: skip
    assert [f["benchmark"] for f in json.loads(result.stdout)] == [f"{tmp_path.name}/a/x", "b/a/x"]


@pytest.mark.parametrize("score", ["1" + "0" * 50, "1" + "0" * 400, "NaN", "true", "null"])
def test_odd_scores_are_numbers_or_named(score, tmp_path):
    file = tmp_path / "odd.jsonl"
    file.write_text(f'{{"prompt": "a", "scores": {{"b": {score}, "c": 1}}}}\n' * 3)
    command = ["evaluate", "-r", "random", "-d", file, "--draws", "20", "--out", tmp_path / "out"]
    if score in {"1" + "0" * 50, "true"}:
        run(*command)
    else:
        message = run(*command, error=DataError)
        assert "odd.jsonl, line 1: field 'scores.b': expected a" in message or "every row: c; at least 2" in message


def test_outcomes_in_csv_are_refused_without_advice_that_does_not_apply(tmp_path):
    (tmp_path / "c.csv").write_text("prompt,answer\na,b\n")
    message = run("evaluate", "-d", tmp_path / "c.csv", "--out", tmp_path / "out", error=DataError)
    assert "scores" in message
    assert "skip" not in message


def test_a_narrow_terminal_gets_intervals_on_a_line_of_their_own(outcomes, tmp_path, monkeypatch):
    from rich.console import Console

    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setattr(Console, "width", 80)
    command = ["evaluate", "-r", "random", "-d", outcomes, "--strong", "big", "--weak", "small", "--draws", "20"]
    lines = run(*command, "--out", tmp_path / "out").stdout.splitlines()
    assert any(re.fullmatch(r"( +\[[^\[\]]+, [^\[\]]+\]){4}\s*", line) for line in lines)


def test_evaluate_reads_the_outcomes_that_training_reads(outcomes, tmp_path):
    from routellm_core.data import read_outcomes, write_records

    found = {}
    for file in (outcomes, tmp_path / "mine.csv", tmp_path / "mine.csv.gz", tmp_path / "mine.parquet"):
        if file != outcomes:
            write_records(file, read_outcomes(outcomes))
        command = [
            "evaluate",
            "-r",
            "random",
            "--data",
            file,
            "--strong",
            "big",
            "--weak",
            "small",
            "--draws",
            "50",
        ]
        found[file.name] = json.loads(run(*command, "--out", tmp_path / "out", "--json").stdout)
    assert found["mine.csv"] == found["mine.csv.gz"] == found["mine.parquet"] == found["mine.jsonl"]
    assert found["mine.jsonl"][0]["title"] == "mine, 120 prompts"


def test_evaluate_refuses_a_price_of_a_model_that_is_not_there(outcomes, tmp_path):
    command = ["evaluate", "-r", "random", "--data", outcomes, "--strong", "big", "--weak", "small"]
    prices = ["--price", "big=10", "--price", "small=1", "--price", "middle=3"]
    message = run(*command, *prices, "--out", tmp_path / "out", error=ConfigurationError)
    assert "middle" in message
    assert "big, small, mid" in message
    assert not (tmp_path / "out").exists()


@pytest.fixture
def traffic(tmp_path):
    file = tmp_path / "traffic.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"prompt {i}"}) + "\n" for i in range(500)))
    return file


def test_calibrate_writes_what_fit_would(traffic, tmp_path):
    out = tmp_path / "deep" / "calibration.json"
    result = run("calibrate", "-d", traffic, "-r", "random", "-o", out, "--strong-fraction", "0.3", "--json")
    found = json.loads(result.stdout)
    router = load_router("random")
    expected = Calibration.fit(router, [f"prompt {i}" for i in range(500)])
    assert Calibration.load(out) == expected
    assert found["count"] == 500
    (target,) = found["targets"]
    assert target["threshold"] == expected.threshold(strong_fraction=0.3)
    assert "too few prompts" in target["message"]
    assert [p.name for p in out.parent.iterdir()] == ["calibration.json"]


def test_calibrate_goes_on_where_it_was_stopped(traffic, tmp_path, monkeypatch):
    import routellm_core.calibration.resumable as module

    monkeypatch.setattr(module, "_BATCH", 100)
    router = ScriptedRouter()
    seen = router.calls
    monkeypatch.setattr("routellm_core.routers.load_router", lambda *a, **k: router)
    out = tmp_path / "calibration.json"
    original = ScriptedRouter._win_rates

    def stop_at_third(self, prompts):
        if len(self.calls) == 2:
            raise KeyboardInterrupt
        return original(self, prompts)

    monkeypatch.setattr(ScriptedRouter, "_win_rates", stop_at_third)
    result = CliRunner().invoke(app, ["calibrate", "-d", str(traffic), "-o", str(out)])
    assert result.exit_code != 0
    assert not out.exists()
    assert len(seen) == 2
    # half a number at the end, as a killed process may leave it
    with (tmp_path / "calibration.json.scores.part").open("ab") as file:
        file.write(b"\x00\x01")
    monkeypatch.setattr(ScriptedRouter, "_win_rates", original)
    result = run("calibrate", "-d", traffic, "-o", out)
    assert "going on after 200 prompts" in result.stderr
    assert sum(len(call) for call in seen) == 500  # none was scored twice
    assert Calibration.load(out).count == 500
    # another file is another run, whatever lies there
    run("calibrate", "-d", traffic, "-o", out, "--limit", "50")
    assert Calibration.load(out).count == 50


def test_calibrate_is_limited_to_fewer_prompts_than_an_earlier_run_scored(traffic, tmp_path, monkeypatch):
    import routellm_core.calibration.resumable as module

    monkeypatch.setattr(module, "_BATCH", 100)
    original, out = ScriptedRouter._win_rates, tmp_path / "c.json"
    router = ScriptedRouter()
    monkeypatch.setattr("routellm_core.routers.load_router", lambda *a, **k: router)

    def stop_at_fourth(self, prompts):
        if len(self.calls) == 3:
            raise KeyboardInterrupt
        return original(self, prompts)

    monkeypatch.setattr(ScriptedRouter, "_win_rates", stop_at_fourth)
    assert CliRunner().invoke(app, ["calibrate", "-d", str(traffic), "-o", str(out)]).exit_code != 0
    result = run("calibrate", "-d", traffic, "-o", out, "--limit", "150")
    assert "going on after 300 prompts" in result.stderr
    assert Calibration.load(out) == Calibration.fit(ScriptedRouter(), [f"prompt {i}" for i in range(150)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strong-fraction", "3"], "strong_fraction=3.0"),
        (["--precision", "0"], "precision=0.0"),
        (["--budget", "-1", "--price", "strong=2", "--price", "weak=1", "--tokens", "9"], "budget=-1.0"),
        (["--budget", "1", "--price", "strong=1", "--price", "weak=2", "--tokens", "9"], "not more expensive"),
    ],
)
def test_calibrate_tells_a_wrong_option_before_it_scores_anything(options, said, traffic, tmp_path, monkeypatch):
    monkeypatch.setattr("routellm_core.routers.load_router", lambda *a, **k: pytest.fail("a router was loaded"))
    assert said in run("calibrate", "-d", traffic, "-o", tmp_path / "c.json", *options, error=ConfigurationError)


def test_calibrate_says_once_that_a_share_is_out_of_reach(tmp_path):
    file = tmp_path / "same.jsonl"
    file.write_text('{"prompt": "the same"}\n' * 50)
    result = run("calibrate", "-d", file, "-r", "random", "-o", tmp_path / "c.json", "--strong-fraction", "0.3")
    assert "no threshold reaches 0.3" in " ".join(result.stdout.split())
    assert result.stdout.count("oo few prompts") == 1


def test_calibrate_reads_gzip_exports_and_a_budget(tmp_path):
    file = tmp_path / "runs.jsonl.gz"
    rows = [{"run_type": "llm", "inputs": {"messages": [{"role": "user", "content": f"q{i}"}]}} for i in range(80)]
    rows += [{"run_type": "chain", "inputs": {"input": "x"}}]
    file.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    result = run(
        "calibrate", "-d", file, "-r", "random", "-o", tmp_path / "c.json", "--budget", "5", "--calls", "1000",
        "--price", "strong=10", "--price", "weak=0.5", "--tokens", "1000",
    )  # fmt: skip
    assert "80 prompts, 1 records without a prompt passed over" in result.stdout
    assert re.search(r"a budget of 5 for 1,000 calls: threshold 0\.\d+, \d+\.\d% strong, costs 4\.\d+", result.stdout)
    assert "Too few prompts" in result.stdout


def test_calibrate_names_what_is_wrong(traffic, tmp_path):
    out = ("-o", tmp_path / "c.json")
    assert "no such file" in run("calibrate", "-d", tmp_path / "none", *out, error=DataError)
    (tmp_path / "empty.jsonl").write_text("")
    assert "contains no prompt" in run(
        "calibrate", "-d", tmp_path / "empty.jsonl", "-r", "random", *out, error=DataError
    )
    assert "--tokens" in run("calibrate", "-d", traffic, "--budget", "5", *out, error=ConfigurationError)
    assert "format='xml'" in run("calibrate", "-d", traffic, "--format", "xml", *out, error=ConfigurationError)
    assert "no field 'q'" in run("calibrate", "-d", traffic, "-r", "random", "--field", "q", *out, error=DataError)
    assert not any(tmp_path.glob("c.json"))


def test_explain_prints_for_people_and_programs():
    result = run("explain", "Prove [bold]it[/bold]", "-r", "random")
    assert "win rate 0." in result.stdout
    assert "goes to" in result.stdout
    found = json.loads(run("explain", "Prove it", "-r", "random", "--json").stdout)
    assert found["router"] == "random"
    assert len(found["targets"]) == 6


def test_explain_shows_the_nearest_outcomes(tmp_path):
    from routellm_core.embedders import bundled_embedder
    from routellm_core.routers import KNNRouter

    embedder = bundled_embedder()
    prompts = ["Prove that 2 is prime.", "hi"]
    pair: dict[str, Any] = {"models": ["big", "small"], "strong": "big", "weak": "small"}
    KNNRouter(embedder.embed(prompts), [[1.0, 0.25], [0.0, 1.0]], **pair, embedder=embedder).save_pretrained(tmp_path)
    shown = " ".join(run("explain", "hi", "-r", str(tmp_path)).stdout.split())
    assert "similarity strong scored weak scored speaks for 1.000 0 1 weak" in shown


def test_explain_refuses_a_calibration_of_another_router(tmp_path):
    Calibration.fit(load_router("random", seed=5), ["a", "b"]).save(tmp_path / "c.json")
    message = run("explain", "hi", "-r", "random", "--calibration", tmp_path / "c.json", error=ConfigurationError)
    assert "fingerprint" in message


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("evaluate", "[default: (mf_vote, the bundled one)]"),
        ("calibrate", "[default: (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)]"),
        ("explain", "[default: (the router's own)]"),
    ],
)
def test_help_shows_the_defaults(name, default, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setenv("TERMINAL_WIDTH", "240")
    assert default in " ".join(run(name, "--help").stdout.split())


@pytest.mark.parametrize("name", ["evaluate", "calibrate", "explain"])
def test_help_shows_an_example(name):
    assert "Example: routellm" in " ".join(run(name, "--help").stdout.split())


def test_importing_evaluation_needs_numpy_only():
    code = (
        "import sys, routellm_core.evaluation, routellm_core.calibration.online; "
        "bad = {'matplotlib', 'pydantic', 'torch', 'typer', 'rich', 'scipy', 'pandas'} & set(sys.modules); "
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_of_evaluation():
    import routellm_core.evaluation as evaluation

    assert {"pgr", "apgr", "cpt", "evaluate_router"} <= set(evaluation.__all__)
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("calibrate.md", ("--data", "--out", "--field", "--strong-fraction"), 5),
        ("evaluation.md", ("--data", "--price", "--benchmark"), 2),
    ],
)
def test_the_code_of_the_documentation_runs(name, options, count):
    from pathlib import Path

    page = (Path(__file__).resolve().parents[3] / "docs" / name).read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) >= count
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    for option in options:
        assert option in page


def test_malformed_rows_of_outcomes_are_left_out_and_counted_where_that_is_asked_for(tmp_path):
    file = tmp_path / "rows.csv"
    rows = "".join(f"prompt {i};{i % 2};{(i + 1) % 2}\n" for i in range(40))
    file.write_text(f"prompt;scores.big;scores.small\n{rows}broken;good;0\n")
    command = ["evaluate", "-r", "random", "-d", file, "--draws", "20", "--out", tmp_path / "out", "--json"]
    assert "rows.csv, line 42: field 'scores.big': expected a number" in run(*command, error=DataError)
    result = run(*command, "--skip-bad")
    assert json.loads(result.stdout)[0]["title"] == "rows, 40 prompts"
    assert "left out 1 malformed rows" in result.stderr


def test_a_budget_takes_the_tokens_that_the_rows_have(tmp_path):
    file = tmp_path / "outcomes.jsonl"
    with file.open("w") as out:
        for i in range(60):
            used = {"big": {"input": 100, "output": 300}, "small": {"input": 100, "output": 100 + i % 2}}
            row = {"prompt": f"prompt {i}", "scores": {"big": 1, "small": 0}, "tokens": used if i < 40 else {}}
            out.write(json.dumps(row) + "\n")
    prices = ["--price", "strong=10", "--price", "weak=1", "--budget", "0.002"]
    command = ["calibrate", "-d", file, "-r", "random", "-o", tmp_path / "c.json", *prices]
    result = run(*command)
    assert "tokens of a call: 100 + 200, the mean of 80 calls" in result.stderr
    assert "a budget of 0.002 for a call: threshold" in result.stdout
    file.write_text("".join(json.dumps({"prompt": f"prompt {i}"}) + "\n" for i in range(60)))
    assert "--budget needs --tokens too" in run(*command, error=ConfigurationError)
