"""`routellm train` and `routellm data`: from a file of outcomes to a router that loads, and back out of the table."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from routellm_core import ConfigurationError, DataError, RoutingPolicy, load_router
from routellm_core.cli import build_app
from routellm_core.commands import data, train
from routellm_core.data import Battle, Outcome, read_preferences, write_records

app = typer.Typer()
app.add_typer(train.app)
app.add_typer(data.app)

TOPICS = ["capital", "hello", "weather", "colour", "integral", "theorem", "proof", "matrix"]
# log odds that strong beats weak, by topic: the planted truth
TRUTH = dict(zip(TOPICS, [-2.5, -2.0, -1.5, -1.0, 1.0, 1.5, 2.0, 2.5], strict=True))
FILLERS = list("abcdefghijklmnop")


def run(*arguments: Any, ok: bool = True) -> Any:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if ok and result.exception is not None:
        raise result.exception
    return result


def prompt_of(topic: str, rng: random.Random) -> str:
    words = rng.sample(FILLERS, 7)
    words.insert(rng.randrange(8), topic)
    return " ".join(words) + f" {rng.randrange(10**6)}"


def planted(count: int, seed: int = 0) -> list[Outcome]:
    """Outcomes of a pair whose win rate the topic alone decides (no ties)."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        topic = TOPICS[i % len(TOPICS)]
        won = rng.random() < 1 / (1 + math.exp(-TRUTH[topic]))
        # a gap between the models: APGR is defined
        rows.append(
            Outcome(prompt=prompt_of(topic, rng), scores={"big": 1 if won else 0.4, "small": 0.0 if won else 0.5})
        )
    return rows


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "outcomes.jsonl.gz"
    write_records(path, planted(600))
    return path


PAIR = ("--strong", "big", "--weak", "small")


def topic_rates(router: Any) -> tuple[Any, Any]:
    rng = random.Random(99)
    prompts = [prompt_of(topic, rng) for topic in TOPICS for _ in range(25)]
    rates = router.win_rates(prompts).reshape(len(TOPICS), 25)
    return rates.mean(axis=1), np.array([1 / (1 + math.exp(-TRUTH[topic])) for topic in TOPICS])


@pytest.mark.slow
def test_planted_truth_comes_back_through_the_command_line(tmp_path: Path) -> None:
    errors = []
    for count in (200, 4000):
        write_records(tmp_path / f"{count}.jsonl", planted(count))
        run("train", "mf", "--data", tmp_path / f"{count}.jsonl", *PAIR, "--out", tmp_path / str(count))
        learned, true = topic_rates(load_router(tmp_path / str(count)))
        errors.append(float(np.abs(learned - true).mean()))
    assert np.corrcoef(learned, true)[0, 1] > 0.97
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.08


@pytest.mark.parametrize("kind", ["mf", "knn", "sw_ranking"])
def test_outcomes_become_a_router_that_serves(tmp_path: Path, outcomes: Path, kind: str) -> None:
    result = run("train", kind, "--data", outcomes, *PAIR, "--out", tmp_path / "r", "--json")
    report = json.loads(result.stdout)
    assert report["router"] == kind
    assert report["rows"]["train"] + report["rows"]["held_out"] == 600
    apgr = report["held_out"]["metrics"]["apgr"]
    assert 0.55 < apgr["low"] < apgr["value"] < apgr["high"]
    assert report["held_out"]["baselines"].keys() == {"random", "prompt_length", "oracle"}
    gain = report["gain_over_bundled_default"]
    assert gain["low"] < gain["value"] < gain["high"]
    assert {p.name for p in (tmp_path / "r").iterdir()} >= {
        "README.md",
        "calibration.json",
        "config.json",
        "evaluation",
        "metrics.json",
        "model.safetensors",
        "trained_on.safetensors",
    }
    router = load_router(kind, tmp_path / "r")
    learned, true = topic_rates(router)
    # sw_ranking's few-word prompts are all alike to its weights of base 10
    assert np.corrcoef(learned, true)[0, 1] > (0.6 if kind == "sw_ranking" else 0.8)
    share = np.mean([d.model == "strong" for d in _decisions(router)])
    assert abs(share - 0.3) < 0.12
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["held_out"]["metrics"]["apgr"] == apgr
    assert "| this router |" in (tmp_path / "r" / "README.md").read_text()


def _decisions(router: Any) -> Any:
    return RoutingPolicy(router, strong_fraction=0.3).decide_batch([o.prompt for o in planted(400, seed=5)])


def test_the_table_is_for_people(tmp_path: Path, outcomes: Path) -> None:
    text = run("train", "mf", "--data", outcomes, *PAIR, "--out", tmp_path / "r").stdout
    for words in ("this router", "bundled default", "prompt length", "random", "oracle", "CPT(80%)", "load_router("):
        assert words in text
    assert "\x1b[" not in text


def test_a_run_is_reproducible_to_the_bit(tmp_path: Path, outcomes: Path) -> None:
    for name in ("a", "b"):
        run("train", "mf", "--data", outcomes, *PAIR, "--out", tmp_path / name, "--seed", 3)
    for file in ("model.safetensors", "config.json", "calibration.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_all_models_are_learned_at_once(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = []
    for i in range(900):
        topic = TOPICS[i % 8]
        hard = TRUTH[topic] > 0
        skill = {"a": 0.9, "b": 0.6 if hard else 0.9, "c": 0.2 if hard else 0.8}
        rows.append(
            Outcome(prompt=prompt_of(topic, rng), scores={m: float(rng.random() < p) for m, p in skill.items()})
        )
    write_records(tmp_path / "o.csv", rows)
    run("train", "mf", "-d", tmp_path / "o.csv", "--strong", "a", "--weak", "c", "-o", tmp_path / "r", "--all-models")
    router = load_router(tmp_path / "r")
    hard = router.win_rates([prompt_of("proof", rng) for _ in range(50)]).mean()
    easy = router.win_rates([prompt_of("hello", rng) for _ in range(50)]).mean()
    assert hard > easy + 0.15
    other = load_router("mf", tmp_path / "r", strong="b", weak="c")
    assert other.win_rates([prompt_of("proof", rng) for _ in range(50)]).mean() > 0.5


def test_battles_train_too_and_sources_are_weighted(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = []
    for i in range(400):
        topic = TOPICS[i // 2 % 8]
        lies = i % 2 == 1  # the second source says the opposite of the first
        rows.append(
            Battle(
                prompt=prompt_of(topic, rng),
                model_a="small",
                model_b="big",
                winner="model_b" if (TRUTH[topic] > 0) != lies else "model_a",
                source="noise" if lies else "judge",
            )
        )
    write_records(tmp_path / "b.jsonl", rows)
    command = ("train", "mf", "--data", tmp_path / "b.jsonl", *PAIR, "--held-out", 0)
    run(*command, "--out", tmp_path / "r", "--source-weight", "noise=0.05")
    learned, true = topic_rates(load_router(tmp_path / "r"))
    assert np.corrcoef(learned, true)[0, 1] > 0.9
    run(*command, "--out", tmp_path / "lies", "--source-weight", "judge=0.05")
    learned, true = topic_rates(load_router(tmp_path / "lies"))
    assert np.corrcoef(learned, true)[0, 1] < -0.9
    with pytest.raises(ConfigurationError, match="'votes' to weight does not occur"):
        run(*command, "--out", tmp_path / "x", "--source-weight", "votes=2")
    with pytest.raises(ConfigurationError, match="SOURCE=NUMBER"):
        run(*command, "--out", tmp_path / "x", "--source-weight", "votes")


def test_bad_rows_stop_the_run_or_are_counted(tmp_path: Path, outcomes: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "p"}\n{"prompt": "", "scores": {"big": 1}}\n')
    command = ("train", "mf", "--data", outcomes, "--data", bad, *PAIR, "--out", tmp_path / "r")
    with pytest.raises(DataError, match=r"bad\.jsonl, line 1: "):
        run(*command)
    assert not (tmp_path / "r").exists()
    result = run(*command, "--skip-bad", "--json")
    assert json.loads(result.stdout)["rows"]["skipped"] == 2
    assert "left out 2 malformed rows" in result.stderr


def test_mistakes_are_told_before_anything_is_written(tmp_path: Path, outcomes: Path) -> None:
    out = tmp_path / "r"
    cases: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        (("--data", tmp_path / "none.jsonl", *PAIR), DataError, "no such file"),
        (("--data", outcomes, "--strong", "huge", "--weak", "small"), DataError, "models in the data: big, small"),
        (("--data", outcomes, *PAIR, "--method", "magic"), ConfigurationError, "method='magic'"),
        (("--data", outcomes, *PAIR, "--embedder", "word2vec"), ConfigurationError, "word2vec"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            run("train", "mf", *arguments, "--out", out)
        assert not out.exists()
    run("train", "mf", "--data", outcomes, *PAIR, "--out", out)
    with pytest.raises(ConfigurationError, match="--overwrite"):
        run("train", "knn", "--data", outcomes, *PAIR, "--out", out)
    run("train", "mf", "--data", outcomes, *PAIR, "--out", out, "--overwrite")


def test_a_pair_the_wrong_way_round_is_said_to_be_so(tmp_path: Path, outcomes: Path) -> None:
    pair = ("--strong", "small", "--weak", "big")
    result = run("train", "knn", "--data", outcomes, *pair, "--out", tmp_path / "r")
    assert "name it as the strong one" in " ".join(result.stdout.split())
    saved = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert saved["held_out"]["metrics"]["apgr"]["value"] is None
    assert saved["gain_over_bundled_default"] is None


@pytest.mark.parametrize("command", ["mf", "knn", "sw_ranking", "bert", "causal_llm"])
def test_every_help_shows_an_example(command: str) -> None:
    assert f"Example: routellm train {command}" in run("train", command, "--help").stdout.replace("\n", " ")


@pytest.mark.parametrize("kind", ["bert", "causal_llm"])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")
def test_fine_tuning_from_the_command_line(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("peft")
    from tests.support.tiny_models import labelled_outcomes, tiny_encoder, tiny_llm

    write_records(tmp_path / "o.jsonl", labelled_outcomes(80))
    base = (tiny_encoder if kind == "bert" else tiny_llm)(tmp_path / "base")
    options = ("--max-steps", 3, "--batch-size", 4, "--out", tmp_path / "r", "--json")
    result = run("train", kind, "--data", tmp_path / "o.jsonl", *PAIR, "--base", base, *options)
    assert json.loads(result.stdout)["settings"]["steps"] == 3
    assert load_router(tmp_path / "r").name == kind


def test_clean_finds_repeats_and_contamination(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices([f"word{i}" for i in range(900)], k=30)) for _ in range(50)]
    rows: list[Any] = [Battle(prompt=t, model_a="a", model_b="b", winner="tie") for t in texts]
    rows.append(rows[3])  # the same row again
    rows.append(Battle(prompt=texts[4], model_a="a", model_b="b", winner="model_a"))  # another vote: data
    rows.append(Battle(prompt=texts[5] + " indeed", model_a="a", model_b="b", winner="tie"))  # nearly a repeat
    rows.append(Battle(prompt=f"context first. {texts[9].upper()}!", model_a="a", model_b="b", winner="tie"))
    write_records(tmp_path / "train.jsonl", rows)
    write_records(tmp_path / "eval.jsonl", [Outcome(prompt=texts[9], scores={"a": 1})])
    command = ("data", "clean", "--data", tmp_path / "train.jsonl", "--against", tmp_path / "eval.jsonl")
    result = run(*command, "--json", ok=False)
    assert result.exit_code == 1  # contaminated, and nothing written
    report = json.loads(result.stdout)
    assert (report["rows"], report["contaminated"], report["contaminated_exact"]) == (54, 2, 1)
    assert (report["duplicates"], report["duplicates_exact"], report["kept"]) == (2, 1, 50)
    assert [(f["row"], f["kind"], f["of"]) for f in report["found"]] == [
        (9, "contaminated", 0),
        (50, "duplicates", 3),
        (52, "duplicates", 5),
        (53, "contaminated", 0),
    ]
    assert not any(t in result.stdout for t in texts)
    text = run(*command, "--out", tmp_path / "clean.jsonl").stdout
    assert "50 rows left" in text
    kept = list(read_preferences(tmp_path / "clean.jsonl"))
    assert kept == [r for i, r in enumerate(rows) if i not in (9, 50, 52, 53)]
    again = run("data", "clean", "--data", tmp_path / "clean.jsonl", "--against", tmp_path / "eval.jsonl")
    assert again.exit_code == 0
    with pytest.raises(ConfigurationError, match="is the input file"):
        run(*command, "--out", tmp_path / "train.jsonl")


def test_convert_between_formats_and_forms(tmp_path: Path) -> None:
    write_records(tmp_path / "o.csv", planted(10))
    out = run("data", "convert", "--data", tmp_path / "o.csv", "--battles", "--out", tmp_path / "b.parquet", "--json")
    assert json.loads(out.stdout)["rows"] == 10
    battles = list(read_preferences(tmp_path / "b.parquet"))
    assert all(isinstance(b, Battle) for b in battles)
    pair = ("--strong", "small", "--weak", "big")
    run("data", "convert", "-d", tmp_path / "o.csv", "--battles", *pair, "-o", tmp_path / "c.jsonl")
    turned = list(read_preferences(tmp_path / "c.jsonl"))
    assert {(b.model_a, b.model_b) for b in turned} == {("small", "big")}  # type: ignore[union-attr]
    with pytest.raises(ConfigurationError, match="go together"):
        run("data", "convert", "-d", tmp_path / "o.csv", "--strong", "big", "-o", tmp_path / "c.jsonl")
    before = (tmp_path / "o.csv").read_bytes(), (tmp_path / "c.jsonl").read_bytes()
    with pytest.raises(ConfigurationError, match="is the input file"):
        run("data", "convert", "-d", tmp_path / "o.csv", "--battles", "-o", tmp_path / "o.csv")
    typo = ("--strong", "bigg", "--weak", "small")
    with pytest.raises(DataError, match="compares 'bigg' with 'small'"):
        run("data", "convert", "-d", tmp_path / "o.csv", "--battles", *typo, "-o", tmp_path / "c.jsonl")
    assert before == ((tmp_path / "o.csv").read_bytes(), (tmp_path / "c.jsonl").read_bytes())


def test_folds_measure_unseen_prompts_and_train_on_all(tmp_path: Path, outcomes: Path) -> None:
    command = ("train", "knn", "--data", outcomes, *PAIR, "--json")
    report = json.loads(run(*command, "--out", tmp_path / "cv", "--folds", 5).stdout)
    assert (report["rows"]["train"], report["rows"]["held_out"], report["folds"]) == (600, 0, 5)
    assert report["held_out"]["count"] == 600
    run(*command, "--out", tmp_path / "all", "--held-out", 0)
    assert (tmp_path / "cv" / "model.safetensors").read_bytes() == (tmp_path / "all" / "model.safetensors").read_bytes()
    assert "5-fold cross-validation" in (tmp_path / "cv" / "README.md").read_text()
    with pytest.raises(ConfigurationError, match="folds=1"):
        run(*command, "--out", tmp_path / "x", "--folds", 1)


def test_cross_validation_does_not_reward_learning_by_heart(tmp_path: Path) -> None:
    rng = random.Random(4)
    rows = [
        Outcome(prompt=prompt_of(TOPICS[i % 8], rng), scores={"big": float(rng.random() < 0.6), "small": 0.3})
        for i in range(500)
    ]
    write_records(tmp_path / "coins.jsonl", [row for row in rows for _ in range(2)])  # repeats stay in one fold
    command = ("train", "knn", "--data", tmp_path / "coins.jsonl", *PAIR, "--neighbors", 1, "--json")
    unseen = json.loads(run(*command, "--out", tmp_path / "cv", "--folds", 5).stdout)
    assert abs(unseen["held_out"]["metrics"]["apgr"]["value"] - 0.5) < 0.12
    router = load_router("knn", tmp_path / "cv")
    seen = router.win_rates([row.prompt for row in rows])
    won = np.array([row.scores["big"] > 0.5 for row in rows])
    assert seen[won].mean() > seen[~won].mean() + 0.3
    # the calibration is of win rates on unseen prompts, too: those of the training prompts would be more extreme
    assert router.calibration is not None
    assert router.calibration.fingerprint == router.fingerprint


@pytest.mark.parametrize(
    "arguments", [("train", "mf"), ("train", "bert", "--base", "x"), ("data", "clean"), ("label", "gold")]
)
def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    pair = PAIR if arguments[0] == "train" else ()
    command = [*arguments, "--data", "none.jsonl", *pair, "--out", "out.jsonl"]
    result = subprocess.run(
        [sys.executable, "-m", "routellm_core.cli", *command], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "routellm: none.jsonl: no such file\n"
    assert not list(tmp_path.iterdir())


def test_nothing_to_convert_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "", "scores": {"m": 1}}\n')
    out = tmp_path / "o.jsonl"
    out.write_text("yesterday's\n")
    with pytest.raises(DataError, match=r"o\.jsonl: there is no row to write; the existing file is unchanged"):
        run("data", "convert", "--data", tmp_path / "a.jsonl", "--skip-bad", "--out", out)
    assert out.read_text() == "yesterday's\n"


@pytest.mark.parametrize("folds", [0, 5])
def test_training_ends_with_the_verdict_on_prompts_that_were_not_learned(
    tmp_path: Path, outcomes: Path, folds: int
) -> None:
    money = ("--price", f"{PAIR[1]}=10", "--price", f"{PAIR[3]}=1", "--currency", "EUR", "--tokens", "300/200")
    result = run("train", "mf", "--data", outcomes, *PAIR, "--out", tmp_path / "r", "--folds", folds, *money)
    text = " ".join(result.stdout.split())
    count = 600 if folds else json.loads((tmp_path / "r" / "metrics.json").read_text())["held_out"]["count"]
    assert "mf: Routing gains: at threshold" in text
    assert "cost of 1,000 calls, EUR" in text
    assert "static mix of the same cost" in text
    assert "300 + 200 tokens a call" in text
    assert f"report: {tmp_path / 'r' / 'evaluation' / 'report.html'}" in text
    (saved,) = json.loads((tmp_path / "r" / "evaluation" / "results.json").read_text())
    assert saved["count"] == count
    assert saved["title"].startswith("5-fold cross-validation" if folds else "held-out prompts")
    assert saved["routers"][0]["verdict"]["sentence"] in " ".join(result.stdout.split())
    assert saved["about"]["trained_on"]["mf"].startswith("trained on ")
    # the natural next command measures on what is left, or refuses
    again = CliRunner().invoke(
        build_app(),
        [*map(str, ("evaluate", "-r", tmp_path / "r", "-d", outcomes, *PAIR, "--out", tmp_path / "e", "--draws", 20))],
    )
    if folds:
        assert isinstance(again.exception, DataError)
        assert "the router mf was trained on 600 of these 600 prompts" in str(again.exception)
    else:
        assert f"{600 - count} prompts were left out because the router mf was trained on them" in " ".join(
            again.stdout.split()
        )


def test_a_price_of_another_model_is_refused_before_training(tmp_path: Path, outcomes: Path) -> None:
    with pytest.raises(ConfigurationError, match="the router chooses between"):
        run("train", "mf", "--data", outcomes, *PAIR, "--out", tmp_path / "r", "--price", "other=3")
    assert not (tmp_path / "r").exists()
