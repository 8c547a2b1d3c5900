"""`routellm label` against a loopback service: estimate, confirmation, answers, verdicts, and a crash in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from routellm_core import ConfigurationError, DataError
from routellm_core.commands import label
from routellm_core.commands.evaluate import evaluate
from routellm_core.data import AnsweredPrompt, read_battles, read_outcomes, write_records
from routellm_core.labelling import CallError
from tests.core.labelling.services import GOOD, KEY, fair_judge, rows_of
from tests.support.openai_server import ChatReply, Failure, OpenAIServer


def run(*arguments: Any, ok: bool = True, stdin: str | None = None) -> Any:
    result = CliRunner().invoke(label.app, list(map(str, arguments)), input=stdin)
    if ok and result.exception is not None:
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        running.chat = fair_judge
        yield running


def judge_command(server: OpenAIServer, folder: Path, *more: Any) -> tuple[Any, ...]:
    files = ("--data", folder / "answers.jsonl", "--out", folder / "battles.jsonl")
    return (
        "judge",
        *files,
        "--strong",
        "big",
        "--weak",
        "small",
        "--judge",
        "ref",
        "--base-url",
        server.base_url,
        *more,
    )


def test_gold_labels_a_file(tmp_path: Path) -> None:
    rows = [
        AnsweredPrompt(prompt="1", answers={"big": "The answer is B", "small": "C"}, gold="B"),
        AnsweredPrompt(prompt="2", answers={"big": "#### 7", "small": "so 8"}, gold="7"),
        AnsweredPrompt(prompt="3", answers={"big": "hm", "small": "A"}, gold="A"),
        AnsweredPrompt(prompt="4", answers={"big": "A"}),
    ]
    write_records(tmp_path / "a.csv", rows)
    command = ("gold", "--data", tmp_path / "a.csv", "--out", tmp_path / "o.jsonl")
    report = json.loads(run(*command, "--json").stdout)
    assert (report["rows"], report["unreadable"], report["without_gold"]) == (3, {"big": 1}, 1)
    assert [o.scores for o in read_outcomes(tmp_path / "o.jsonl")] == [
        {"big": 1, "small": 0},
        {"big": 1, "small": 0},
        {"big": 0, "small": 1},
    ]
    text = run(*command).stdout
    assert "3 rows labelled" in text
    assert "1 rows left out: no usable right answer" in text
    with pytest.raises(ConfigurationError, match="--grader 'odd'"):
        run(*command, "--grader", "odd")


def test_gold_shows_the_mean_of_each_source_and_whatever_may_be_misread(tmp_path: Path) -> None:
    answers = [
        ("geo", "Santiago", "The capital of Chile is Santiago.", "Not Santiago but Lima."),
        ("geo", "Lima", "Lima", "I cannot help with that."),
        ("math", "7", "3 + 4 = 7", "I think so"),
    ]
    rows = [
        AnsweredPrompt(prompt=f"q{i}", answers={"big": big, "small": small}, gold=gold, source=source)
        for i, (source, gold, big, small) in enumerate(answers)
    ]
    write_records(tmp_path / "a.jsonl", rows)
    text = run("gold", "--data", tmp_path / "a.jsonl", "--out", tmp_path / "o.jsonl").stdout
    table = [line.split() for line in text.splitlines()]
    # model, source, answers, mean, says more, wrong but has gold, refuses, no answer
    assert ["big", "geo", "2", "1.000", "1", "0", "0", "0"] in table
    assert ["big", "math", "1", "1.000", "1", "0", "0", "0"] in table
    assert ["small", "geo", "2", "0.000", "0", "1", "1", "0"] in table
    assert ["small", "math", "1", "0.000", "0", "0", "0", "1"] in table
    for count in ("says more: 2 answers", "wrong, has gold: 1 answers", "refuses: 1 answers", "no answer: 1 answers"):
        assert count in text


def test_gold_takes_a_grader_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "label_test_graders.py").write_text(
        "def passes(answer, gold):\n    return None if answer == 'skip' else len(answer) > 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    rows = [
        AnsweredPrompt(prompt="1", answers={"big": "long answer", "small": "no"}),
        AnsweredPrompt(prompt="2", answers={"big": "skip", "small": "skip"}),
    ]
    write_records(tmp_path / "a.jsonl", rows)
    command = ("gold", "--data", tmp_path / "a.jsonl", "--out", tmp_path / "o.jsonl")
    text = run(*command, "--grader", "label_test_graders:passes").stdout
    assert "no score: 2 answers" in text
    assert "1 rows left out: the grader gave no score" in text
    assert [o.scores for o in read_outcomes(tmp_path / "o.jsonl")] == [{"big": 1, "small": 0}]
    with pytest.raises(ConfigurationError, match="no attribute 'fails'"):
        run(*command, "--grader", "label_test_graders:fails")


@pytest.mark.parametrize("command", [("gold",), ("judge", "--strong", "big", "--weak", "small", "--judge", "ref")])
def test_labels_never_replace_the_answers(command: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"prompt": "2+2?", "answers": {"big": "4", "small": "5"}, "gold": 4}\n')
    before = file.read_bytes()
    same = tmp_path / "." / "answers.jsonl"
    with pytest.raises(ConfigurationError, match="is the input file"):
        run(command[0], "--data", file, "--out", same, *command[1:])
    assert file.read_bytes() == before


def test_judge_labels_a_file_and_reports_the_cost(server: OpenAIServer, tmp_path: Path) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(6))
    prices = ("--price", "ref=2/10")
    result = run(*judge_command(server, tmp_path, *prices, "--yes", "--json"))
    assert "judge: 12 calls, about" in result.stderr
    report = json.loads(result.stdout)
    assert (report["strong_wins"], report["weak_wins"], report["ties"], report["rows"]) == (2, 2, 2, 6)
    assert report["cost"] == pytest.approx((1200 * 2 + 84 * 10) / 1e6)
    assert [b.winner for b in read_battles(tmp_path / "battles.jsonl")] == ["model_a", "model_b", "tie"] * 2
    assert all(r.authorization == f"Bearer {KEY}" for r in server.requests)
    # nothing to pay: no question either
    again = run(*judge_command(server, tmp_path))
    assert len(server.requests) == 12
    assert "judge: 0 calls (12 more are in" in again.stderr
    assert "6 of 6 rows labelled" in again.stdout
    assert "0 calls paid now" in again.stdout


def test_money_is_not_spent_unasked(server: OpenAIServer, tmp_path: Path) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(2))
    with pytest.raises(ConfigurationError, match="--yes"):
        run(*judge_command(server, tmp_path))
    estimate = json.loads(run(*judge_command(server, tmp_path, "--dry-run", "--json")).stdout)
    assert estimate["judge"]["calls"] == 4
    with pytest.raises(ConfigurationError, match="expected MODEL=IN/OUT"):
        run(*judge_command(server, tmp_path, "--price", "judge-1", "--yes"))
    with pytest.raises(DataError, match="expected a file named"):
        run(
            "judge",
            "--data",
            tmp_path / "answers.jsonl",
            "--out",
            tmp_path / "b.txt",
            *judge_command(server, tmp_path)[5:],
        )
    assert server.requests == []


def test_a_missing_key_is_told_by_its_variable(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(1))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is not set"):
        run(*judge_command(server, tmp_path, "--yes"))
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is not set"):
        run(*judge_command(server, tmp_path))  # before anybody is asked to confirm
    assert json.loads(run(*judge_command(server, tmp_path, "--dry-run", "--json")).stdout)["judge"]["calls"] == 2
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    run(*judge_command(server, tmp_path, "--yes", "--key-env", "OTHER_KEY"))
    assert server.requests[0].authorization == "Bearer sk-other"


def test_answers_are_written_by_the_users_models_first(server: OpenAIServer, tmp_path: Path) -> None:
    def chat(body: dict[str, Any]) -> ChatReply:
        if body["model"] == "ref":
            return fair_judge(body)
        return ChatReply(GOOD if body["model"] == "maxi" else f"poor, says {body['model']}")

    server.chat = chat
    write_records(tmp_path / "answers.jsonl", [AnsweredPrompt(prompt=f"q{i}") for i in range(3)])
    with pytest.raises(DataError, match="--answer-strong MODEL"):
        run(*judge_command(server, tmp_path, "--yes"))
    writers = (
        "--answer-strong",
        "maxi",
        "--strong-url",
        server.base_url,
        "--answer-weak",
        "mini",
        "--weak-url",
        server.base_url,
    )
    result = run(*judge_command(server, tmp_path, *writers, "--yes", "--json"))
    report = json.loads(result.stdout)
    assert sum(calls["asked"] for calls in report["answers"]["calls"].values()) == 6
    assert report["strong_wins"] == 3
    assert "answers of big: 3 calls" in result.stderr
    asked = Counter(r.body["model"] for r in server.requests)
    assert asked == {"maxi": 3, "mini": 3, "ref": 6}
    again = run(*judge_command(server, tmp_path, *writers, "--json"))
    assert json.loads(again.stdout)["strong_wins"] == 3
    assert len(server.requests) == 12


def test_a_refused_key_ends_in_one_line_without_prompt_or_key(server: OpenAIServer, tmp_path: Path) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(3))
    server.fail_always(Failure(status=401, message="{input} " + KEY))
    with pytest.raises(CallError) as caught:
        run(*judge_command(server, tmp_path, "--yes"))
    assert "\n" not in str(caught.value)
    assert "private" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_rows_that_failed_are_told_and_tried_again(server: OpenAIServer, tmp_path: Path) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(3))
    server.fail_next(Failure(status=400, message="{input}"))
    result = run(*judge_command(server, tmp_path, "--yes", "--concurrency", 1))
    assert "2 of 3 rows labelled" in result.stdout
    assert "1 x ref: HTTP status 400" in result.stdout
    assert "run the command again" in result.stdout
    assert "private" not in result.stdout + result.stderr
    assert "3 of 3 rows labelled" in run(*judge_command(server, tmp_path, "--yes")).stdout
    assert len(server.requests) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a POSIX signal")
def test_a_killed_run_goes_on_without_paying_twice(server: OpenAIServer, tmp_path: Path) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(30))
    halfway, answered = threading.Event(), Counter[str]()
    gate = threading.Semaphore(25)  # the service stops answering after 25 calls, so the kill comes while it runs

    def chat(body: dict[str, Any]) -> ChatReply:
        if not gate.acquire(timeout=0.0):
            halfway.set()
            gate.acquire(timeout=60.0)
        answered[body["messages"][-1]["content"]] += 1
        return fair_judge(body)

    server.chat = chat
    script = "import sys; from routellm_core.commands import label; label.app(sys.argv[1:])"
    arguments = judge_command(server, tmp_path, "--yes", "--concurrency", 4)
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert halfway.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = [json.loads(line)["key"] for line in (tmp_path / "battles.jsonl.journal").read_text().splitlines()]
    assert len(kept) == len(set(kept))
    assert 20 <= len(kept) <= 25
    before = dict(answered)
    for _ in range(200):
        gate.release()
    report = json.loads(run(*judge_command(server, tmp_path, "--yes", "--json")).stdout)
    assert (report["rows"], report["labelled"]) == (30, 30)
    assert report["calls"]["remembered"] == len(kept)
    # what had arrived is not asked again; only the calls that were under way when it died are
    assert len(server.requests) <= 60 + 4 + (25 - len(kept))
    assert len(before) >= len(kept)
    assert len(list(read_battles(tmp_path / "battles.jsonl"))) == 30


def test_the_estimate_covers_both_answers_both_orders_and_what_is_asked_again(
    server: OpenAIServer, tmp_path: Path
) -> None:
    write_records(tmp_path / "answers.jsonl", [AnsweredPrompt(prompt=f"q{i}") for i in range(5)])
    # one model writes both sides, at two services: each answer is paid for
    writers = ("--answer-strong", "same", "--answer-weak", "same", "--price", "same=1/2", "--price", "ref=2/8")
    result = run(*judge_command(server, tmp_path, *writers, "--dry-run", "--json"))
    estimates = json.loads(result.stdout)
    assert {what: e["calls"] for what, e in estimates.items()} == {
        "answers of big": 5,
        "answers of small": 5,
        "judge": 10,
    }
    assert "in all: 20 calls, about" in result.stderr
    assert "at most 40 calls" in result.stderr
    assert server.requests == []
    urls = ("--strong-url", server.base_url, "--weak-url", server.base_url)

    def both(body: dict[str, Any]) -> ChatReply:
        return fair_judge(body) if body["model"] == "ref" else ChatReply("an answer")

    server.chat = both
    paid = json.loads(run(*judge_command(server, tmp_path, *writers, *urls, "--yes", "--json")).stdout)
    assert sum(calls["asked"] for calls in paid["answers"]["calls"].values()) == 10


def test_a_judge_that_talks_nonsense_is_shown_and_ends_the_command(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = lambda body: ChatReply("I prefer \x1b[31mboth of them.")
    write_records(tmp_path / "answers.jsonl", rows_of(30))
    result = run(*judge_command(server, tmp_path, "--yes"), ok=False)
    assert result.exit_code == 2
    assert "I prefer \\x1b[31mboth of them." in result.stderr
    assert "does not say [[A]], [[B]] or [[C]]" in result.stderr
    assert not (tmp_path / "battles.jsonl").exists()
    kept = (tmp_path / "battles.jsonl.journal").read_text()
    assert kept.count("both of them") == len(server.requests) < 120


def test_the_labels_of_a_judge_lead_to_a_verdict(server: OpenAIServer, tmp_path: Path) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(60))
    run(*judge_command(server, tmp_path, "--yes"))
    arguments = ("--data", tmp_path / "battles.jsonl", "--strong", "big", "--weak", "small", "--router", "random")
    main = typer.Typer(pretty_exceptions_enable=False)
    main.command()(evaluate)
    options = [*arguments, "--draws", "30", "--json", "--out", tmp_path / "out"]
    result = CliRunner().invoke(main, list(map(str, options)))
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    assert found["count"] == 60
    assert found["strong_quality"] == found["weak_quality"] == pytest.approx(0.5)  # a third each: 1, 0 and 1/2


@pytest.mark.parametrize("command", ["answer", "gold", "judge", "merge"])
def test_every_help_shows_an_example(command: str) -> None:
    assert f"Example: routellm label {command}" in run(command, "--help").stdout


def test_bad_rows_are_told_by_line_and_never_by_text(server: OpenAIServer, tmp_path: Path) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(1))
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"prompt": "private text", "answers": {"big": 5}}\n')
    with pytest.raises(DataError, match=r"line 2: field 'answers\.big'") as caught:
        run(*judge_command(server, tmp_path, "--yes"))
    assert "private" not in str(caught.value)
    result = run(*judge_command(server, tmp_path, "--yes", "--skip-bad", "--json"))
    assert json.loads(result.stdout)["skipped"] == 1


def test_nothing_to_write_leaves_the_labels_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "q", "answers": {"m": "A"}}\n')
    out = tmp_path / "o.jsonl"
    out.write_text("labels of yesterday\n")
    with pytest.raises(DataError, match="no row could be graded"):
        run("gold", "--data", tmp_path / "a.jsonl", "--out", out)
    assert out.read_text() == "labels of yesterday\n"


def test_judging_in_shards_gives_the_labels_of_one_run(server: OpenAIServer, tmp_path: Path) -> None:
    write_records(tmp_path / "answers.jsonl", rows_of(5))
    for k in (1, 2):
        run(*judge_command(server, tmp_path, "--out", tmp_path / f"part-{k}.jsonl", "--shard", f"{k}/2", "--yes"))
    assert len(server.requests) == 10
    parts = [tmp_path / f"part-{k}.jsonl.journal" for k in (1, 2)]
    run("merge", *parts, "--out", tmp_path / "battles.jsonl.journal")
    run(*judge_command(server, tmp_path))
    assert len(server.requests) == 10
    labels = [battle.winner for k in (1, 2) for battle in read_battles(tmp_path / f"part-{k}.jsonl")]
    assert sorted(battle.winner for battle in read_battles(tmp_path / "battles.jsonl")) == sorted(labels)
