"""Gold labels from right answers, and judge labels from a service that fails, stalls and answers nonsense."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from routellm_core import ConfigurationError, DataError, Price
from routellm_core.data import AnsweredPrompt
from routellm_core.labelling import (
    CallError,
    GoldReport,
    LLMChatModel,
    OpenAIChatModel,
    estimate_answers,
    estimate_judging,
    generate_answers,
    gold_outcomes,
    grade,
    judge_battles,
)
from routellm_core.labelling.chat_models import Reply
from routellm_core.labelling.gold import extract_choice, extract_number
from routellm_core.labelling.journal import Journal
from routellm_core.labelling.judge import judge_question, read_preference
from tests.support.openai_server import ChatReply, Failure, OpenAIServer
from tests.support.waiting import LIMIT

KEY = "sk-very-secret"
GOOD, BAD = "a good answer", "a poor answer"


def rows_of(count: int) -> list[AnsweredPrompt]:
    """Rows whose better answer is the strong one, the weak one, or neither, in turn."""
    pairs = [(GOOD, BAD), (BAD, GOOD), (BAD, "another poor answer")]
    return [
        AnsweredPrompt(prompt=f"private question {i}", answers={"big": s, "small": w}, id=str(i))
        for i, (s, w) in ((i, pairs[i % 3]) for i in range(count))
    ]


def fair_judge(body: dict[str, Any]) -> ChatReply:
    """Prefers the good answer wherever it stands."""
    text = body["messages"][-1]["content"]
    a = re.search(r"<answer_a>\n(.*?)\n</answer_a>", text, re.DOTALL)
    b = re.search(r"<answer_b>\n(.*?)\n</answer_b>", text, re.DOTALL)
    assert a is not None
    assert b is not None
    verdict = "A" if a[1] == GOOD else "B" if b[1] == GOOD else "C"
    return ChatReply(f"Because. [[{verdict}]]", usage=(100, 7))


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        running.chat = fair_judge
        yield running


@asynccontextmanager
async def model_at(server: OpenAIServer, name: str = "judge", timeout: float = LIMIT) -> AsyncIterator[OpenAIChatModel]:
    model = OpenAIChatModel(name, base_url=server.base_url, api_key=KEY, timeout=timeout)
    try:
        yield model
    finally:
        await model.aclose()


def questions(server: OpenAIServer) -> list[str]:
    return [r.body["messages"][-1]["content"] for r in server.requests]


def test_choice_letters() -> None:
    cases = {
        "B": "B",
        "B.": "B",
        "(c)": "C",
        "D) because it is": "D",
        "The answer is (B).": "B",
        "the answer is **D**": "D",
        "Answer: A": "A",
        r"so \boxed{C}": "C",
        "A is wrong, B is wrong. The correct answer is C": "C",
        "I first thought the answer is A. But no: the answer is B": "B",
        "Let me think.\n\nB": "B",
        "The answer is a bit unclear": None,
        "I do not know": None,
        "": None,
        "The answer is Z": None,
    }
    assert {text: extract_choice(text) for text in cases} == cases


def test_numbers() -> None:
    cases = {
        "#### 42": 42,
        "There are 3 + 4 = 7 apples": 7,
        "It costs $1,234.50.": 1234.5,
        r"\boxed{-3}": -3,
        "The answer is 12. I checked it 2 times": 12,
        "about 1e3": 1000,
        "18.00": 18,
        "\u22125 degrees": -5,
        "no number": None,
        "model v2": None,
        "": None,
    }
    found = {text: extract_number(text) for text in cases}
    assert {text: n if n is None else float(n) for text, n in found.items()} == cases


@pytest.mark.parametrize(
    ("answer", "gold", "kind", "right"),
    [
        ("The answer is B", "B", "auto", True),
        ("The answer is A", "(B)", "auto", False),
        ("no idea", "B", "auto", None),
        ("so 18.0 dollars", "18", "auto", True),
        ("#### 1,000", "long reasoning #### 1000", "auto", True),
        ("17", "18", "number", False),
        ("none", "18", "number", None),
        ("Paris!", "paris", "auto", True),
        ("It is Paris", "Paris", "exact", False),
        ("B", "42", "exact", False),
        ("…", "…", "exact", True),
    ],
)
def test_grading(answer: str, gold: str, kind: Any, right: bool | None) -> None:
    assert grade(answer, gold, kind) is right


def test_gold_of_the_wrong_form_is_an_error() -> None:
    with pytest.raises(DataError, match="gold"):
        grade("A", "forty two", "number")
    with pytest.raises(DataError, match="gold"):
        grade("A", "AB", "choice")
    with pytest.raises(ConfigurationError, match="kind"):
        grade("A", "A", "fuzzy")  # type: ignore[arg-type]


def test_gold_outcomes_account_for_every_row() -> None:
    rows = [
        AnsweredPrompt(prompt="1", answers={"big": "B", "small": "C"}, gold="B", id="x", weight=2),
        AnsweredPrompt(prompt="2", answers={"big": "who knows", "small": "B"}, gold="B"),
        AnsweredPrompt(prompt="3", answers={"big": "B"}),
        AnsweredPrompt(prompt="4", gold="B"),
    ]
    report = GoldReport()
    got = list(gold_outcomes(rows, report=report))
    assert [(o.scores, o.source, o.weight) for o in got] == [
        ({"big": 1, "small": 0}, "gold", 2),
        ({"big": 0, "small": 1}, "gold", 1),
    ]
    assert report == GoldReport(rows=2, unreadable={"big": 1}, without_gold=1, without_answers=1)


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


async def test_a_line_cut_off_by_a_crash_is_dropped(server: OpenAIServer, tmp_path: Path) -> None:
    journal = tmp_path / "j"
    async with model_at(server) as judge:
        first, _ = await judge_battles(rows_of(4), judge, strong="big", weak="small", journal=journal)
        whole = journal.read_bytes()
        journal.write_bytes(whole[:-20])
        second, report = await judge_battles(rows_of(4), judge, strong="big", weak="small", journal=journal)
    assert second == first
    assert (report.calls.asked, report.calls.remembered) == (1, 7)
    assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_journal_refuses_other_files_and_a_second_writer(tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"prompt": "p"}\n')
    with pytest.raises(DataError, match="line 1"):
        Journal(tmp_path / "other")
    assert (tmp_path / "other").read_text() == '{"prompt": "p"}\n'
    with Journal(tmp_path / "j"), pytest.raises(DataError, match="another run"):
        Journal(tmp_path / "j")


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


async def test_answers_are_generated_once_and_kept(server: OpenAIServer, tmp_path: Path) -> None:
    calls: Counter[tuple[str, str]] = Counter()

    def chat(body: dict[str, Any]) -> ChatReply:
        prompt = body["messages"][-1]["content"]
        calls[body["model"], prompt] += 1
        empty = body["model"] == "mini" and prompt == "q2"
        return ChatReply("" if empty else f"{body['model']} says {prompt}")

    server.chat = chat
    rows = [AnsweredPrompt(prompt=f"q{i}", answers={"big": "given"} if i == 0 else {}) for i in range(4)]
    async with model_at(server, "maxi") as maxi, model_at(server, "mini") as mini:
        models = {"big": maxi, "small": mini}
        server.fail_next(Failure(status=429, retry_after="0"), Failure(cut=True))
        got, report = await generate_answers(rows, models, journal=tmp_path / "j", backoff=0.01)
        again, second = await generate_answers(rows, models, journal=tmp_path / "j")
    assert [r.answers for r in got] == [
        {"big": "given", "small": "mini says q0"},
        {"big": "maxi says q1", "small": "mini says q1"},
        {"big": "maxi says q2"},
        {"big": "maxi says q3", "small": "mini says q3"},
    ]
    assert again == got
    assert calls[("mini", "q2")] == 2  # asked again as the answer was empty, then left
    assert {name: tally.asked for name, tally in report.calls.items()} == {"big": 3, "small": 5}
    assert {name: tally.remembered for name, tally in second.calls.items()} == {"big": 3, "small": 4}
    assert sum(tally.asked for tally in second.calls.values()) == 0
    assert report.missing == second.missing == {"big": 0, "small": 1}
    assert rows[1].answers == {}


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


async def test_replies_of_frameworks_and_their_errors_are_read_alike(tmp_path: Path) -> None:
    class Message:
        content = ({"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "[[A]]"}, "!")
        usage_metadata: ClassVar = {"input_tokens": 3, "output_tokens": 4}

    class Model:
        model_name = "mine"

        async def ainvoke(self, messages: Any) -> Any:
            if messages[-1][1] == "fail":
                raise RuntimeError(f"cannot answer {messages} with {KEY}")
            return Message()

    model = LLMChatModel(Model())
    assert model.name == "mine"
    assert await model.ask("s", "u") == Reply("[[A]]!", 3, 4)
    with pytest.raises(CallError) as caught:
        await model.ask(None, "fail")
    assert str(caught.value) == "mine: RuntimeError"
    with pytest.raises(ConfigurationError, match="ainvoke"):
        LLMChatModel(object())


def test_a_model_without_a_key_says_which_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIChatModel("gpt")


async def test_bad_limits_are_refused(server: OpenAIServer, tmp_path: Path) -> None:
    async with model_at(server) as judge:
        for option in ({"concurrency": 0}, {"tries": 0}, {"retries": -1}):
            with pytest.raises(ConfigurationError, match=next(iter(option))):
                await judge_battles(rows_of(1), judge, strong="big", weak="small", journal=tmp_path / "j", **option)
    assert server.requests == []


def test_the_journal_holds_no_prompt_and_no_answer_of_the_judged(server: OpenAIServer, tmp_path: Path) -> None:
    async def judge() -> None:
        async with model_at(server) as model:
            await judge_battles(rows_of(3), model, strong="big", weak="small", journal=tmp_path / "j")

    asyncio.run(judge())
    text = (tmp_path / "j").read_text()
    assert "private" not in text
    assert GOOD not in text
    assert all(set(json.loads(line)) == {"key", "value", "tokens"} for line in text.splitlines())
