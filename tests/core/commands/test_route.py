"""`routellm route`, run as a user runs it."""

import gzip
import json
import os
import subprocess
import sys

import pytest

import routellm_core
from routellm_core import Calibration, RoutingPolicy, load_router
from tests.support.tiny_models import published_bert

EASY, HARD = "hi", "Prove that there are infinitely many primes, and explain each step of the argument."


def routellm(*arguments, stdin=None):
    return subprocess.run(
        [sys.executable, "-m", "routellm_core.cli", *map(str, arguments)],
        capture_output=True, text=True, input=stdin, check=False,
        env={**os.environ, "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


def decisions(result):
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_prompts_as_arguments_in_a_table():
    result = routellm("route", EASY, HARD, "--strong-fraction", "0.5")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["prompt", "win", "rate", "threshold", "model"]
    assert lines[1].startswith("hi")
    assert lines[1].split()[-1] == "weak"
    assert "2 prompts" in result.stdout


def test_json_is_the_policys_decision():
    found = decisions(routellm("route", EASY, HARD, "--threshold", "0.15", "--json"))
    expected = [d.to_dict() for d in RoutingPolicy(threshold=0.15).decide_batch([EASY, HARD])]
    assert [row["prompt"] for row in found] == [EASY, HARD]
    assert [{**row, "id": ""} for row in found] == [
        {"index": i, "prompt": prompt, **decision, "id": ""}
        for i, (prompt, decision) in enumerate(zip((EASY, HARD), expected, strict=True))
    ]
    assert len({row["id"] for row in found}) == 2


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "txt"])
def test_a_file_of_prompts(tmp_path, kind):
    prompts = [f"Question {i}: what is {i} plus {i}?" for i in range(3000)]
    file = tmp_path / f"prompts.{kind}"
    text = {
        "jsonl": "".join(json.dumps({"prompt": p}) + "\n" for p in prompts),
        "csv": "prompt\n" + "".join(f'"{p}"\n' for p in prompts),
        "txt": "".join(p + "\n" for p in prompts),
    }[kind.split(".")[0]]
    file.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    result = routellm("route", "--data", file, "--strong-fraction", "0.3", "--json")
    found = decisions(result)
    assert [row["prompt"] for row in found] == prompts
    assert [row["win_rate"] for row in found] == load_router().win_rates(prompts).tolist()
    assert "3,000 prompts" in result.stderr
    assert "█" not in result.stderr
    assert "━" not in result.stderr


def test_a_large_table_is_cut_and_says_so(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("".join(f"prompt {i}\n" for i in range(50)))
    cut = routellm("route", "-d", file)
    assert "... and 30 more" in cut.stdout
    assert "prompt 49" not in cut.stdout
    assert "prompt 49" in routellm("route", "-d", file, "--show", "0").stdout


def test_stdin():
    found = decisions(routellm("route", "--data", "-", "--json", stdin="one\n\ntwo\n"))
    assert [row["prompt"] for row in found] == ["one", "two"]


def test_strange_prompts_reach_the_end(tmp_path):
    strange = ["\x00\x1b[31mred", "\u202eright to left", "[bold]markup[/bold]", "🙂", "日本語", "x" * 100_000, "\ud800"]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in strange))
    assert [row["prompt"] for row in decisions(routellm("route", "-d", file, "--json"))] == strange
    table = routellm("route", "-d", file)
    assert table.returncode == 0, table.stderr
    assert "[bold]markup[/bold]" in table.stdout
    assert "\x1b" not in table.stdout


def test_own_router_and_calibration(tmp_path):
    router = load_router("random", seed=5)
    router.save_pretrained(tmp_path / "router")
    Calibration.fit(router, [f"{i}" for i in range(500)]).save(tmp_path / "c.json")
    found = decisions(
        routellm("route", "a", "--router", tmp_path / "router", "--calibration", tmp_path / "c.json", "--json")
    )
    assert found[0]["router"] == "random"
    assert found[0]["win_rate"] == router.win_rates(["a"])[0]
    refused = routellm("route", "a", "--calibration", tmp_path / "c.json")
    assert refused.returncode == 2
    assert "fingerprint" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give prompts as arguments or --data FILE, one of them (--data - reads stdin)"),
        (("a", "--threshold", "0.5", "--strong-fraction", "0.5"), "threshold=0.5 and strong_fraction=0.5"),
        (("a", "--threshold", "1.5"), "threshold=1.5"),
        (("a", "--strong-fraction", "nan"), "strong_fraction=nan"),
        (("a", "--router", "nope"), "'nope'"),
        (("a", "--router", "bert"), "not bundled"),
        (("--data", "/nowhere/prompts.jsonl"), "/nowhere/prompts.jsonl"),
        (("a", "--calibration", "/nowhere/c.json"), "/nowhere/c.json"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, said):
    result = routellm("route", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_broken_file_names_the_line(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt"\n')
    result = routellm("route", "-d", file)
    assert result.returncode == 2
    assert "line 2" in result.stderr
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert (
        "contains no prompt in its 1 records (fields seen: a, b); name the field of the prompt with --field"
        in routellm("route", "-d", other).stderr
    )
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "contains no prompt" in routellm("route", "-d", empty).stderr


def test_help_shows_the_defaults():
    shown = " ".join(routellm("route", "--help").stdout.replace("│", " ").split())
    assert "[default: (0.5)]" in shown
    assert "[default: (the router's own)]" in shown


def test_a_model_that_loads_shows_no_bar_in_a_pipe(tmp_path):
    pytest.importorskip("transformers")
    config = published_bert(tmp_path) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "router": "bert"}))
    result = routellm("route", "hi", "--router", tmp_path, "--threshold", "0.5", "--json")
    assert decisions(result)[0]["router"] == "bert"
    assert result.stderr == "1 prompt, 0 strong (0.0%), threshold 0.5000, router bert\n"


def test_help_shows_an_example():
    for command in ("route", "calibrate", "evaluate", "explain"):
        result = routellm(command, "--help")
        assert result.returncode == 0, result.stderr
        assert f"routellm {command} " in " ".join(result.stdout.split())


def test_without_the_extra_the_command_says_what_to_install(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('typer')")
    result = subprocess.run(
        [sys.executable, "-m", "routellm_core.cli", "route", "x"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert result.returncode == 2
    assert "pip install 'routellm-adapters[cli]'" in result.stderr


def test_the_version():
    assert routellm("--version").stdout == f"routellm-adapters {routellm_core.__version__}\n"


def test_a_share_that_misses_says_what_to_do(tmp_path):
    file = tmp_path / "math.jsonl"
    hard = "Prove that the integral of x^{} e^-x from 0 to infinity equals the gamma function, step by step."
    file.write_text("".join(json.dumps({"prompt": hard.format(i)}) + "\n" for i in range(80)))
    result = routellm("route", "--data", file, "--strong-fraction", "0.3")
    last = " ".join(result.stdout.split())
    assert "100% of 80 calls were strong, but 30% are wanted" in last
    assert "routellm calibrate --data PROMPTS" in last
    assert "calls were strong" not in routellm("route", "--data", file, "--strong-fraction", "0.9").stdout
    assert result.stderr == ""
