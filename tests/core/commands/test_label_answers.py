"""`routellm label answer` against a loopback service: what is asked, paid once, warned about and written."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from routellm_core import ConfigurationError, DataError
from routellm_core.data import AnsweredPrompt, read_answers, read_outcomes, write_records
from routellm_core.data.records import Tokens
from routellm_core.labelling import CallError
from tests.core.commands.test_label import run
from tests.core.labelling.services import KEY, fair_judge
from tests.support.openai_server import ChatReply, Failure, OpenAIServer


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [AnsweredPrompt(prompt=f"question {i}", gold="big" if i % 2 else "small", id=str(i)) for i in range(4)]
    write_records(tmp_path / "prompts.jsonl", rows)
    return tmp_path / "prompts.jsonl"


def command(server: OpenAIServer, prompts: Path, *more: Any, models: tuple[str, ...] = ("big", "small")) -> list[Any]:
    chosen = [part for name in models for part in ("--model", f"{name}={server.base_url}")]
    return ["answer", "--data", prompts, "--out", prompts.with_name("answers.jsonl"), *chosen, *more]


def test_any_number_of_models_answer_once_and_gold_reads_the_file(server: OpenAIServer, prompts: Path) -> None:
    models = ("big", "small", "third")
    prices = ("--price", "big=10/20", "--price", "small=1/2", "--price", "third=0")
    result = run(*command(server, prompts, *prices, "--yes", models=models))
    assert "answers of big: 4 calls, about" in result.stderr
    assert "in all: 12 calls, about" in result.stderr
    assert Counter(r.body["model"] for r in server.requests) == {"big": 4, "small": 4, "third": 4}
    out = prompts.with_name("answers.jsonl")
    rows = list(read_answers(out))
    assert [row.id for row in rows] == list("0123")
    assert rows[0].answers == {name: f"answer of {name}" for name in models}
    assert "4 rows ->" in result.stdout
    # a second run pays nothing and asks nobody, so needs no --yes
    again = run(*command(server, prompts, "--json", models=models))
    assert len(server.requests) == 12
    assert json.loads(again.stdout)["calls"]["big"]["remembered"] == 4
    assert list(read_answers(out)) == rows
    run("gold", "--data", out, "--out", prompts.with_name("o.jsonl"))
    outcomes = list(read_outcomes(prompts.with_name("o.jsonl")))
    scores = [o.scores for o in outcomes]
    # what the answers took goes along, so that an evaluation knows the cost of each call
    assert all(o.tokens[name] == Tokens(input=10, output=5) for o in outcomes for name in models)
    assert scores[:2] == [{"big": 0, "small": 1, "third": 0}, {"big": 1, "small": 0, "third": 0}]


def test_settings_hold_for_all_models_or_for_one(server: OpenAIServer, prompts: Path) -> None:
    settings = (
        "--temperature",
        "0",
        "--temperature",
        "big=0.7",
        "--max-tokens",
        "small=50",
        "--instructions",
        "a=b, c",
    )
    run(*command(server, prompts, *settings, "--instructions", "small=Be brief.", "--yes"))
    asked = {r.body["model"]: r.body for r in server.requests}
    assert (asked["big"]["temperature"], asked["small"]["temperature"]) == (0.7, 0.0)
    assert asked["small"]["max_tokens"] == 50
    assert "max_tokens" not in asked["big"]
    # a text may hold an equals sign; only the name of a model before it means that model
    assert [asked[name]["messages"][0]["content"] for name in ("big", "small")] == ["a=b, c", "Be brief."]
    for option, value in (("--temperature", "hot"), ("--max-tokens", "big=0"), ("--max-tokens", "other=3")):
        with pytest.raises(ConfigurationError, match=f"{option} '{value}': expected VALUE or NAME=VALUE"):
            run(*command(server, prompts, option, value, "--yes"))


def test_one_model_under_two_names_is_asked_twice(server: OpenAIServer, prompts: Path) -> None:
    models = ("--model", f"plain=tiny@{server.base_url}", "--model", f"terse=tiny@{server.base_url}")
    files = ("--data", prompts, "--out", prompts.with_name("a.jsonl"))
    result = run("answer", *files, *models, "--instructions", "terse=Be brief.", "--yes")
    assert {r.body["model"] for r in server.requests} == {"tiny"}
    assert len(server.requests) == 8
    assert "warning" not in result.stderr  # the instructions differ
    result = run("answer", "--data", prompts, "--out", prompts.with_name("b.jsonl"), *models, "--yes")
    assert "the answers of plain and terse all come from the model 'tiny'" in result.stderr


def test_what_is_wrong_with_the_answers_is_said(server: OpenAIServer, prompts: Path) -> None:
    def chat(body: dict[str, Any]) -> ChatReply:
        if body["model"] == "small":
            number = body["messages"][-1]["content"][-1]
            return ChatReply("", model="x") if number == "0" else ChatReply("hm", finish_reason="length", model="x")
        return ChatReply("fine", model="x")

    server.chat = chat
    result = run(*command(server, prompts, "--yes"))
    assert "the answers of big and small all come from the model 'x'. Some servers" in result.stderr
    assert "3 answers of small were cut off at a limit of tokens" in result.stderr
    assert "1 of 4 rows have no answer of small" in result.stderr
    assert [sorted(row.answers) for row in read_answers(prompts.with_name("answers.jsonl"))] == [
        ["big"],
        *[["big", "small"]] * 3,
    ]


def test_a_run_that_goes_on_says_again_that_both_are_one_model(server: OpenAIServer, prompts: Path) -> None:
    server.chat = lambda body: ChatReply("fine", model="x.gguf")
    run(*command(server, prompts, "--yes", models=("big",)))
    for _ in range(2):
        assert "all come from the model 'x.gguf'" in run(*command(server, prompts, "--yes")).stderr


def test_a_server_that_is_down_ends_the_run_with_a_line(server: OpenAIServer, prompts: Path) -> None:
    models = ("--model", f"big={server.base_url}", "--model", "small=http://127.0.0.1:9/v1")
    files = ("--data", prompts, "--out", prompts.with_name("answers.jsonl"))
    with pytest.raises(
        CallError, match=r"^small at http://127.0.0.1:9/v1: the server cannot be reached .*is it running"
    ):
        run("answer", *files, *models, "--yes")


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "the service has no model of this name, or the URL is not the base"), (401, "the service refuses the API")],
)
def test_a_refusal_says_what_to_look_at(server: OpenAIServer, prompts: Path, status: int, words: str) -> None:
    server.fail_next(Failure(status=status, message="{input}"))
    with pytest.raises(CallError, match=f"^big at {server.base_url}: HTTP status {status} .*: {words}"):
        run(*command(server, prompts, "--yes", "--concurrency", 1, models=("big",)))


def test_calls_that_failed_are_named_and_tried_again(server: OpenAIServer, prompts: Path) -> None:
    server.fail_next(Failure(status=400, message="{input}"))
    result = run(*command(server, prompts, "--yes", "--concurrency", 1, models=("big",)))
    assert "1 x big: HTTP status 400" in result.stderr
    assert "run the command again" in result.stderr
    assert "question" not in result.stderr
    assert "warning" not in run(*command(server, prompts, "--yes", models=("big",))).stderr
    assert len(server.requests) == 5


def test_nothing_answered_is_an_error_and_leaves_the_file(server: OpenAIServer, prompts: Path) -> None:
    out = prompts.with_name("answers.jsonl")
    out.write_text("answers of yesterday\n")
    server.chat = lambda body: ChatReply("")
    with pytest.raises(DataError, match=rf"^{re.escape(str(prompts))}: nothing was answered"):
        run(*command(server, prompts, "--yes"))
    assert out.read_text() == "answers of yesterday\n"


def test_money_and_keys_come_before_the_first_call(
    server: OpenAIServer, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="--yes"):
        run(*command(server, prompts))
    estimate = json.loads(run(*command(server, prompts, "--dry-run", "--json")).stdout)
    assert estimate["answers of big"]["calls"] == 4
    with pytest.raises(ConfigurationError, match="no such model is asked"):
        run(*command(server, prompts, "--price", "bgi=1", "--yes"))
    with pytest.raises(ConfigurationError, match="OTHER_KEY is not set"):
        run(*command(server, prompts, "--key-env", "small=OTHER_KEY"))
    assert server.requests == []
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    run(*command(server, prompts, "--key-env", "small=OTHER_KEY", "--yes"))
    keys = {r.body["model"]: r.authorization for r in server.requests}
    assert keys == {"big": f"Bearer {KEY}", "small": "Bearer sk-other"}


@pytest.mark.parametrize("value", ["=http://h/v1", "big=ftp://h", "big=", "big=@"])
def test_a_model_is_a_name_and_a_url(value: str, server: OpenAIServer, prompts: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected NAME, NAME=URL or NAME=MODEL@URL"):
        run(*command(server, prompts, "--model", value, "--yes"))
    with pytest.raises(ConfigurationError, match="big is there already"):
        run(*command(server, prompts, "--model", "big", "--yes"))


def test_answers_that_judging_paid_for_are_used_again(server: OpenAIServer, prompts: Path) -> None:
    def chat(body: dict[str, Any]) -> ChatReply:
        return fair_judge(body) if body["model"] == "ref" else ChatReply(f"answer of {body['model']}")

    server.chat = chat
    folder = prompts.parent
    files = ("--data", prompts, "--out", folder / "battles.jsonl", "--answers-out", folder / "written.jsonl")
    models = ("--strong", "big", "--weak", "small", "--answer-strong", "big", "--answer-weak", "small")
    urls = ("--strong-url", server.base_url, "--weak-url", server.base_url, "--base-url", server.base_url)
    run("judge", *files, *models, *urls, "--judge", "ref", "--yes")
    before = len(server.requests)
    run(*command(server, prompts, "--journal", folder / "battles.jsonl.journal"))
    assert len(server.requests) == before
    answers = [row.answers for row in read_answers(prompts.with_name("answers.jsonl"))]
    assert answers == [{"big": "answer of big", "small": "answer of small"}] * 4
    assert [row.answers for row in read_answers(folder / "written.jsonl")] == answers


def test_shards_pay_once_and_their_journals_give_the_whole_file(server: OpenAIServer, prompts: Path) -> None:
    folder = prompts.parent
    for k in (1, 2, 3):
        run(*command(server, prompts, "--out", folder / f"part-{k}.jsonl", "--shard", f"{k}/3", "--yes"))
    assert [len(list(read_answers(folder / f"part-{k}.jsonl"))) for k in (1, 2, 3)] == [2, 1, 1]
    assert len(server.requests) == 8
    journals = [folder / f"part-{k}.jsonl.journal" for k in (1, 2, 3)]
    result = run("merge", *journals, "--out", folder / "answers.jsonl.journal", "--json")
    assert json.loads(result.stdout)["added"] == 8
    run(*command(server, prompts))  # nothing is left to pay for, so nothing to confirm
    assert len(server.requests) == 8
    rows = list(read_answers(folder / "answers.jsonl"))
    assert [row.id for row in rows] == ["0", "1", "2", "3"]
    assert all(row.answers.keys() == {"big", "small"} for row in rows)
    with pytest.raises(ConfigurationError, match="--shard '4/3'"):
        run(*command(server, prompts, "--shard", "4/3"))
