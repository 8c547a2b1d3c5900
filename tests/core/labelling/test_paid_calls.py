"""Paid calls to a service that fails, stalls and answers nonsense."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from routellm_core import ConfigurationError, Price
from routellm_core.data import AnsweredPrompt
from routellm_core.labelling import (
    CallError,
    judge_battles,
)
from routellm_core.labelling.journal import Journal
from routellm_core.labelling.judge import judge_question
from routellm_core.labelling.paid_calls import CallTally
from tests.core.labelling.services import KEY, fair_judge, model_at, rows_of
from tests.support.openai_server import ChatReply, Failure, OpenAIServer
from tests.support.waiting import LIMIT


async def test_a_service_that_fails_and_talks_nonsense(
    server: OpenAIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_of(30)
    answered: Counter[str] = Counter()
    nonsense = {judge_question(rows[i].prompt, *answers(rows[i])) for i in (4, 9)}
    hopeless = judge_question(rows[14].prompt, *answers(rows[14]))

    def chat(body: dict[str, Any]) -> ChatReply:
        text = body["messages"][-1]["content"]
        answered[text] += 1
        if text == hopeless or (text in nonsense and answered[text] == 1):
            return ChatReply("I would rather talk about the weather.", usage=(100, 7))
        return fair_judge(body)

    server.chat = chat
    server.fail_next(
        *[Failure(status=500, message="{input}")] * 4,
        *[Failure(status=429, retry_after="0.05", message="{input}")] * 5,
        *[Failure(cut=True)] * 3,
        *[Failure(status=503, retry_after="nonsense")] * 2,
    )
    caplog.set_level("DEBUG")
    async with model_at(server) as judge:
        battles, report = await judge_battles(
            rows, judge, strong="big", weak="small", journal=tmp_path / "j", concurrency=8, retries=8, backoff=0.01
        )
    # every row has a label but the hopeless one
    assert [b.id for b in battles] == [str(i) for i in range(30) if i != 14]
    assert [b.winner for b in battles] == [["model_a", "model_b", "tie"][i % 3] for i in range(30) if i != 14]
    assert (report.rows, report.labelled, report.invalid, report.failed) == (30, 29, 1, 0)
    # nothing is paid twice: one answer a question, two where the first made no sense
    assert answered == {q: 2 if q in nonsense or q == hopeless else 1 for q in answered}
    assert len(answered) == 60
    assert report.invalid_replies == 4
    assert report.calls.asked == sum(answered.values()) == 63
    assert report.calls.retries == 14
    assert "private question" not in caplog.text
    assert KEY not in caplog.text

    # a second run pays nothing and tells the same
    before = len(server.requests)
    async with model_at(server) as judge:
        again, second = await judge_battles(rows, judge, strong="big", weak="small", journal=tmp_path / "j")
    assert again == battles
    assert len(server.requests) == before
    assert (second.calls.asked, second.calls.remembered, second.invalid, second.invalid_replies) == (0, 60, 1, 4)


async def test_a_call_that_stalls_is_tried_again(server: OpenAIServer, tmp_path: Path) -> None:
    server.fail_next(*[Failure(stall=LIMIT, cut=True)] * 2)  # cut: a reply that comes too late is none
    async with model_at(server, timeout=0.5) as judge:
        battles, report = await judge_battles(
            rows_of(2), judge, strong="big", weak="small", journal=tmp_path / "j", retries=8, backoff=0.01
        )
    assert (len(battles), report.failed) == (2, 0)
    assert report.calls.retries >= 2  # more where the machine is so busy that other answers are late as well


def answers(row: AnsweredPrompt) -> tuple[str, str]:
    return row.answers["big"], row.answers["small"]


async def test_failed_rows_are_tried_again_by_the_next_run(server: OpenAIServer, tmp_path: Path) -> None:
    rows = rows_of(9)
    server.fail_next(*[Failure(status=400, message="{input}")] * 3)  # refused: not worth another try
    async with model_at(server) as judge:
        kept, report = await judge_battles(
            rows, judge, strong="big", weak="small", journal=tmp_path / "j", concurrency=1
        )
        assert (report.failed, report.labelled, len(kept)) == (2, 7, 7)
        assert report.calls.failed == 3
        assert report.calls.errors == {"judge: HTTP status 400 (BadRequestError)": 3}
        everything, report = await judge_battles(rows, judge, strong="big", weak="small", journal=tmp_path / "j")
    assert len(everything) == 9
    assert (report.calls.asked, report.calls.remembered) == (3, 15)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_wrong_key_or_model_stops_the_run_at_once(server: OpenAIServer, tmp_path: Path, status: int) -> None:
    server.fail_always(Failure(status=status, message="{input} " + KEY))
    async with model_at(server) as judge:
        with pytest.raises(CallError) as caught:
            await judge_battles(rows_of(50), judge, strong="big", weak="small", journal=tmp_path / "j", concurrency=4)
    assert str(status) in str(caught.value)
    assert "private" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert len(server.requests) <= 4


async def test_a_service_that_is_down_is_given_up_on(server: OpenAIServer, tmp_path: Path) -> None:
    server.fail_always(Failure(status=500))
    async with model_at(server) as judge:
        with pytest.raises(CallError, match="20 calls in a row"):
            await judge_battles(
                rows_of(100), judge, strong="big", weak="small", journal=tmp_path / "j", retries=1, backoff=0.001
            )
    assert len(server.requests) < 80


async def test_a_rate_limit_holds_back_all_workers(server: OpenAIServer, tmp_path: Path) -> None:
    server.fail_next(Failure(status=429, retry_after="1.5"))
    async with model_at(server) as judge:
        await judge_battles(rows_of(6), judge, strong="big", weak="small", journal=tmp_path / "j", concurrency=2)
    assert len(server.requests) == 13
    times = [r.time for r in server.requests]
    before = 1 + next(i for i, (a, b) in enumerate(pairwise(times)) if b - a > 0.5)
    # Few were under way when the refusal came. One worker alone, were it not held back, would ask all 12 at once
    assert before <= 6


async def test_a_cancelled_run_writes_down_what_is_under_way(server: OpenAIServer, tmp_path: Path) -> None:
    rows = rows_of(20)
    answered: Counter[str] = Counter()
    halfway = asyncio.Event()
    loop = asyncio.get_running_loop()

    def chat(body: dict[str, Any]) -> ChatReply:
        answered[body["messages"][-1]["content"]] += 1
        if len(answered) == 10:
            loop.call_soon_threadsafe(halfway.set)
        return fair_judge(body)

    server.chat = chat
    async with model_at(server) as judge:
        run = asyncio.create_task(
            judge_battles(rows, judge, strong="big", weak="small", journal=tmp_path / "j", concurrency=4)
        )
        await halfway.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        with Journal(tmp_path / "j") as journal:
            assert len(list(journal.keys())) == len(answered) < 40
        battles, _ = await judge_battles(rows, judge, strong="big", weak="small", journal=tmp_path / "j")
    assert len(battles) == 20
    assert set(answered.values()) == {1}


async def test_bad_limits_are_refused(server: OpenAIServer, tmp_path: Path) -> None:
    async with model_at(server) as judge:
        for option in ({"concurrency": 0}, {"tries": 0}, {"retries": -1}):
            with pytest.raises(ConfigurationError, match=next(iter(option))):
                await judge_battles(rows_of(1), judge, strong="big", weak="small", journal=tmp_path / "j", **option)  # type: ignore[arg-type]
    assert server.requests == []


def test_calls_of_a_service_that_reports_no_tokens_have_no_known_cost() -> None:
    price = Price(1, 2)
    assert CallTally(asked=3).cost(price) is None
    assert CallTally(asked=3, prompt_tokens=10**6).cost(None) is None
    assert CallTally(asked=3, prompt_tokens=10**6, completion_tokens=10**6).cost(price) == 3
    assert CallTally(remembered=3).cost(price) == 0
