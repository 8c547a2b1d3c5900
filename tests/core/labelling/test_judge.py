"""Judge labels: both orders, ties, estimates, and judges of every framework."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from routellm_core import DataError, Price
from routellm_core.data import AnsweredPrompt, write_records
from routellm_core.evaluation import evaluate_router
from routellm_core.evaluation.benchmarks import load_outcomes
from routellm_core.labelling import (
    LLMChatModel,
    OpenAIChatModel,
    estimate_answers,
    estimate_judging,
    generate_answers,
    judge_battles,
)
from routellm_core.labelling.judge import read_preference
from tests.core.labelling.services import GOOD, KEY, fair_judge, model_at, questions, rows_of
from tests.support.openai_server import ChatReply, OpenAIServer


def test_verdicts() -> None:
    assert read_preference("Fine. [[A]]") == "A"
    assert read_preference("[[ B ]] as I said, [[B]]") == "B"
    assert read_preference("[[A]] or [[B]]") is None
    assert read_preference("A") is None
    assert read_preference("") is None


async def test_both_orders_are_asked_and_give_the_label(server: OpenAIServer, tmp_path: Path) -> None:
    rows = rows_of(6)
    done: list[tuple[int, int]] = []
    async with model_at(server) as judge:
        battles, report = await judge_battles(
            rows,
            judge,
            strong="big",
            weak="small",
            journal=tmp_path / "j",
            concurrency=3,
            progress=lambda a, b: done.append((a, b)),
        )
    assert [b.winner for b in battles] == ["model_a", "model_b", "tie"] * 2
    assert [b.id for b in battles] == list("012345")
    assert {(b.model_a, b.model_b, b.source) for b in battles} == {("big", "small", "judge")}
    assert (report.strong_wins, report.weak_wins, report.ties, report.disagreements) == (2, 2, 2, 0)
    assert (report.calls.asked, report.calls.prompt_tokens, report.calls.completion_tokens) == (12, 1200, 84)
    assert done == [(i, 12) for i in range(1, 13)]
    assert len(set(questions(server))) == 12
    sent = server.requests[0].body
    assert set(sent) == {"model", "messages"}
    assert sent["messages"][0]["role"] == "system"


async def test_a_judge_that_prefers_a_position_labels_nothing_but_ties(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = lambda body: ChatReply("[[A]]")
    async with model_at(server) as judge:
        battles, report = await judge_battles(rows_of(5), judge, strong="big", weak="small", journal=tmp_path / "j")
    assert [b.winner for b in battles] == ["tie"] * 5
    assert report.disagreements == 5


async def test_equal_rows_are_asked_once(server: OpenAIServer, tmp_path: Path) -> None:
    rows = rows_of(1) * 5
    async with model_at(server) as judge:
        battles, report = await judge_battles(rows, judge, strong="big", weak="small", journal=tmp_path / "j")
    assert len(battles) == 5
    assert report.strong_wins == 5
    assert len(server.requests) == 2


async def test_equal_answers_are_a_tie_that_costs_nothing(server: OpenAIServer, tmp_path: Path) -> None:
    rows = [AnsweredPrompt(prompt="p", answers={"big": "42", "small": "42"}), *rows_of(1)]
    assert estimate_judging(rows, strong="big", weak="small").calls == 2
    async with model_at(server) as judge:
        battles, report = await judge_battles(rows, judge, strong="big", weak="small", journal=tmp_path / "j")
    assert [b.winner for b in battles] == ["tie", "model_a"]
    assert (report.ties, report.strong_wins, len(server.requests)) == (1, 1, 2)


async def test_a_missing_answer_is_an_error_that_shows_no_prompt(server: OpenAIServer, tmp_path: Path) -> None:
    async with model_at(server) as judge:
        with pytest.raises(DataError, match="no answer of 'huge'") as caught:
            await judge_battles(rows_of(1), judge, strong="huge", weak="small", journal=tmp_path / "j")
    assert "private" not in str(caught.value)


def test_the_estimate_counts_what_is_still_to_pay(server: OpenAIServer, tmp_path: Path) -> None:
    rows = rows_of(6)

    async def judge_two() -> None:
        async with model_at(server) as judge:
            await judge_battles(rows[:2], judge, strong="big", weak="small", journal=tmp_path / "j")

    fresh = estimate_judging(rows, strong="big", weak="small", judge="judge", price=Price(2, 10))
    assert (fresh.rows, fresh.calls, fresh.remembered) == (6, 12, 0)
    assert fresh.cost == pytest.approx((fresh.prompt_tokens * 2 + fresh.completion_tokens * 10) / 1e6)
    asyncio.run(judge_two())
    rest = estimate_judging(rows, strong="big", weak="small", judge="judge", journal=tmp_path / "j")
    assert (rest.calls, rest.remembered, rest.cost) == (8, 4, None)
    assert rest.prompt_tokens < fresh.prompt_tokens
    big = OpenAIChatModel("big", api_key=KEY)
    answering = estimate_answers([AnsweredPrompt(prompt="x" * 400)], {"big": big})["big"]
    assert (answering.calls, answering.prompt_tokens, answering.completion_tokens) == (1, 100, 400)


async def test_a_langchain_model_judges(server: OpenAIServer, tmp_path: Path) -> None:
    chat_models = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    judge = LLMChatModel(chat_models.FakeListChatModel(responses=["[[A]]", "Reason. [[B]]"]), name="fake")
    battles, _ = await judge_battles(
        rows_of(1), judge, strong="big", weak="small", journal=tmp_path / "j", concurrency=1
    )
    assert battles[0].winner == "model_a"


async def test_a_llamaindex_llm_judges(tmp_path: Path) -> None:
    mock = pytest.importorskip("llama_index.core.llms.mock")
    seen: list[str] = []

    class Judge(mock.MockLLM):  # type: ignore[misc, name-defined]
        async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            seen.append(prompt)
            return self.complete("[[C]]")

    battles, report = await judge_battles(
        rows_of(1), LLMChatModel(Judge()), strong="big", weak="small", journal=tmp_path / "j"
    )
    assert battles[0].winner == "tie"
    assert report.ties == 1
    assert "[[A]] if answer A is better" in seen[0]


def test_the_journal_holds_no_prompt_and_no_answer_of_the_judged(server: OpenAIServer, tmp_path: Path) -> None:
    async def judge() -> None:
        async with model_at(server) as model:
            await judge_battles(rows_of(3), model, strong="big", weak="small", journal=tmp_path / "j")

    asyncio.run(judge())
    text = (tmp_path / "j").read_text()
    assert "private" not in text
    assert GOOD not in text
    assert all(set(json.loads(line)) == {"key", "value", "tokens"} for line in text.splitlines())


async def test_the_estimate_covers_both_orders_when_both_answers_are_to_come(
    server: OpenAIServer, tmp_path: Path
) -> None:
    def chat(body: dict[str, Any]) -> ChatReply:
        return fair_judge(body) if body["model"] == "judge" else ChatReply(f"{body['model']}, at length")

    server.chat = chat
    bare = [AnsweredPrompt(prompt=f"q{i}") for i in range(5)]
    for rows in (bare, [AnsweredPrompt(prompt=r.prompt, answers={"big": "given"}) for r in bare], rows_of(5)):
        before = len(server.requests)
        journal = tmp_path / f"j{before}"
        async with model_at(server, "maxi") as maxi, model_at(server, "mini") as mini, model_at(server) as judge:
            writers = {"big": maxi, "small": mini}
            estimates = estimate_answers(rows, writers, journal=journal)
            estimates["judge"] = estimate_judging(rows, strong="big", weak="small", judge="judge", journal=journal)
            answered, report = await generate_answers(rows, writers, journal=journal)
            _, judged = await judge_battles(answered, judge, strong="big", weak="small", journal=journal)
        paid = {**{name: tally.asked for name, tally in report.calls.items()}, "judge": judged.calls.asked}
        assert {name: estimate.calls for name, estimate in estimates.items()} == paid
        assert len(server.requests) - before == sum(paid.values())
        assert paid["judge"] == 10


async def test_a_judge_that_answers_nonsense_is_shown_and_kept(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = lambda body: ChatReply("Both answers are lovely. " + "x" * 1000, usage=(100, 7))
    async with model_at(server) as judge:
        battles, report = await judge_battles(rows_of(4), judge, strong="big", weak="small", journal=tmp_path / "j")
    assert battles == []
    assert (report.invalid, report.failed, report.labelled, report.unusable) == (4, 0, 0, True)
    assert report.invalid_example is not None
    assert report.invalid_example.startswith("Both answers are lovely.")
    assert len(report.invalid_example) == 300
    assert report.to_dict()["unusable"] is True
    entries = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert len(entries) == 16  # both orders, twice
    assert all(entry["value"] is None and entry["text"].endswith("xxx") for entry in entries)
    rest = estimate_judging(rows_of(4), strong="big", weak="small", judge="judge", journal=tmp_path / "j", tries=3)
    assert (rest.calls, rest.most_calls, rest.completion_tokens) == (8, 8, 56)


async def test_a_judge_that_does_not_understand_is_not_paid_for_ever(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = lambda body: ChatReply("What?")
    rows = [*rows_of(200), AnsweredPrompt(prompt="same", answers={"big": "a", "small": "a"})]
    async with model_at(server) as judge:
        _, report = await judge_battles(rows, judge, strong="big", weak="small", journal=tmp_path / "j")
    assert len(server.requests) <= 60
    assert (report.labelled, report.rows, report.unusable) == (1, 201, True)
    assert report.invalid >= 10
    assert list(report.calls.errors) == ["judge: no usable reply to 20 questions; the others are not asked"]


async def test_a_few_unparseable_replies_do_not_make_a_judge_unusable(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = lambda body: ChatReply("What?") if "question 3" in str(body["messages"]) else fair_judge(body)
    async with model_at(server) as judge:
        battles, report = await judge_battles(rows_of(6), judge, strong="big", weak="small", journal=tmp_path / "j")
    assert (len(battles), report.invalid, report.unusable, report.invalid_example) == (5, 1, False, "What?")


async def test_the_labels_of_a_judge_can_be_evaluated(server: OpenAIServer, tmp_path: Path) -> None:
    async with model_at(server) as judge:
        battles, _ = await judge_battles(rows_of(6), judge, strong="big", weak="small", journal=tmp_path / "j")
    write_records(tmp_path / "battles.jsonl", battles)
    found = load_outcomes(tmp_path / "battles.jsonl", strong="big", weak="small")
    assert list(found.strong_scores) == [1, 0, 0.5] * 2
    assert list(found.weak_scores) == [0, 1, 0.5] * 2
    measured = evaluate_router([0.9, 0.1, 0.5] * 2, found.prompts, found.strong_scores, found.weak_scores, draws=20)
    assert measured.strong_quality == measured.weak_quality == 0.5
    assert measured.count == 6
