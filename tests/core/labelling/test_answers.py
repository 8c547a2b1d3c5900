"""Answers of several models, each paid for once."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from routellm_core import ConfigurationError, Price
from routellm_core.data import AnsweredPrompt, read_answers, write_records
from routellm_core.labelling import (
    LLMChatModel,
    OpenAIChatModel,
    estimate_answers,
    generate_answers,
    gold_outcomes,
    judge_battles,
    recall_answers,
    total_cost,
)
from routellm_core.labelling.journal import call_key
from tests.core.labelling.services import KEY, fair_judge, model_at
from tests.support.openai_server import ChatReply, Failure, OpenAIServer
from tests.support.waiting import LIMIT


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


def asked(server: OpenAIServer) -> list[tuple[str, str]]:
    """The models that were asked, each with its prompt, in order."""
    return [(r.body["model"], r.body["messages"][-1]["content"]) for r in server.requests]


def echo(body: dict[str, Any]) -> ChatReply:
    return ChatReply(f"{body['model']} says {body['messages'][-1]['content']}", usage=(7, 3))


async def test_one_file_of_answers_serves_gold_and_judge(server: OpenAIServer, tmp_path: Path) -> None:
    def chat(body: dict[str, Any]) -> ChatReply:
        if body["model"] == "judge":
            return fair_judge(body)
        return ChatReply("a good answer" if body["model"] == "maxi" else f"poor, says {body['model']}")

    server.chat = chat
    rows = [AnsweredPrompt(prompt=f"q{i}", gold="a good answer", id=str(i), source="mine") for i in range(3)]
    async with model_at(server, "maxi") as maxi, model_at(server, "mini") as mini, model_at(server, "nano") as nano:
        models = {"big": maxi, "middle": mini, "small": nano}
        answered, report = await generate_answers(rows, models, journal=tmp_path / "j")
    assert report.rows == 3
    write_records(tmp_path / "answers.jsonl", answered)
    kept = list(read_answers(tmp_path / "answers.jsonl"))
    assert kept == answered
    assert [o.scores for o in gold_outcomes(kept)] == [{"big": 1, "middle": 0, "small": 0}] * 3
    async with model_at(server) as judge:
        battles, _ = await judge_battles(kept, judge, strong="big", weak="small", journal=tmp_path / "j")
    assert [(b.winner, b.id, b.source) for b in battles] == [("model_a", str(i), "mine") for i in range(3)]


async def test_settings_and_instructions_reach_the_model_and_change_the_answers(
    server: OpenAIServer, tmp_path: Path
) -> None:
    server.chat = lambda body: ChatReply(f"{body.get('temperature')} {len(body['messages'])}")
    rows = [AnsweredPrompt(prompt="q")]

    async def answer(instructions: Any = None, **options: Any) -> str:
        async with model_at(server, "m", **options) as model:
            got, _ = await generate_answers(rows, {"a": model}, journal=tmp_path / "j", instructions=instructions)
        return got[0].answers["a"]

    assert await answer() == "None 1"
    assert await answer(temperature=0.5) == "0.5 1"
    assert await answer("Be brief.", temperature=0.5) == "0.5 2"
    assert await answer({"a": "Be brief."}, temperature=0.5) == "0.5 2"
    assert len(server.requests) == 3  # the last was known
    sent = server.requests[2].body
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    # options in another order are the same options
    both = {"temperature": 0, "max_tokens": 5}
    await answer(**both)
    await answer(**dict(reversed(both.items())))
    assert len(server.requests) == 4
    with pytest.raises(ConfigurationError, match="instructions: 'b' is not one of the models: 'a'"):
        await answer({"b": "Be brief."})


async def test_one_model_under_two_instructions_is_two_models(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = lambda body: ChatReply(body["messages"][0]["content"])
    rows = [AnsweredPrompt(prompt="q")]
    async with model_at(server, "m") as model:
        models = {"terse": model, "wordy": model}
        got, report = await generate_answers(
            rows, models, journal=tmp_path / "j", instructions={"terse": "short", "wordy": "long"}
        )
        assert got[0].answers == {"terse": "short", "wordy": "long"}
        assert report.same_model == {}  # on purpose
        # without a difference nothing but the name of the answers tells them apart
        got, report = await generate_answers(rows, models, journal=tmp_path / "k")
    assert report.same_model == {"m": ["terse", "wordy"]}
    assert len(server.requests) == 4


async def test_two_servers_that_answer_to_any_name_are_told_apart_and_reported(tmp_path: Path) -> None:
    rows = [AnsweredPrompt(prompt=f"q{i}") for i in range(3)]
    with OpenAIServer() as one, OpenAIServer() as other:
        one.chat = lambda body: ChatReply("one", model="smollm.gguf")
        other.chat = lambda body: ChatReply("other", model="smollm.gguf")
        async with model_at(one, "default") as big, model_at(other, "default") as small:
            got, report = await generate_answers(rows, {"big": big, "small": small}, journal=tmp_path / "j")
    assert [r.answers for r in got] == [{"big": "one", "small": "other"}] * 3
    assert report.served_by == {"big": {"smollm.gguf": 3}, "small": {"smollm.gguf": 3}}
    assert report.same_model == {"smollm.gguf": ["big", "small"]}


async def test_answers_that_judging_wrote_are_used_again(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = echo
    old = [
        {"key": call_key("answer", "maxi", "q0"), "value": {"text": "an old answer"}, "tokens": [1, 2]},
        {"key": call_key("judge", "judge", "x", "q0", "a", "b"), "value": {"verdict": "A"}, "tokens": [1, 2]},
    ]
    (tmp_path / "b.jsonl.journal").write_text("".join(json.dumps(entry) + "\n" for entry in old))
    rows = [AnsweredPrompt(prompt="q0"), AnsweredPrompt(prompt="q1")]
    async with model_at(server, "maxi") as maxi:
        recalled = recall_answers(rows, {"big": maxi}, journal=tmp_path / "b.jsonl.journal")
        assert [r.answers for r in recalled] == [{"big": "an old answer"}, {}]
        got, _ = await generate_answers(rows, {"big": maxi}, journal=tmp_path / "b.jsonl.journal")
    assert [r.answers["big"] for r in got] == ["an old answer", "maxi says q1"]
    assert asked(server) == [("maxi", "q1")]
    assert recall_answers(rows, {"big": maxi}, journal=tmp_path / "none") == rows
    assert not (tmp_path / "none").exists()


async def test_answers_that_were_cut_off_are_counted(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = lambda body: ChatReply("and so on and", finish_reason="length")
    rows = [AnsweredPrompt(prompt="q0"), AnsweredPrompt(prompt="q1", answers={"a": "whole"})]
    async with model_at(server, "m") as model:
        for _ in range(2):  # the journal knows it, too
            _, report = await generate_answers(rows, {"a": model}, journal=tmp_path / "j")
            assert report.truncated == {"a": 1}
    assert len(server.requests) == 1
    assert report.to_dict()["truncated"] == {"a": 1}


async def test_a_slow_service_does_not_hold_back_the_others(tmp_path: Path) -> None:
    rows = [AnsweredPrompt(prompt=f"q{i}") for i in range(12)]
    with OpenAIServer() as fast, OpenAIServer() as slow:
        fast.chat = echo

        def wait_for_the_other(body: dict[str, Any]) -> ChatReply:
            deadline = time.monotonic() + LIMIT
            while len(fast.requests) < 12 and time.monotonic() < deadline:
                time.sleep(0.01)
            return echo(body)

        slow.chat = wait_for_the_other
        slow.fail_next(Failure(status=429, retry_after="0.2"))
        async with model_at(fast, "f") as one, model_at(slow, "s") as other:
            # with one queue for both, two workers would wait at the slow service for the fast one's last call
            got, report = await generate_answers(rows, {"s": other, "f": one}, journal=tmp_path / "j", concurrency=2)
    assert all(set(r.answers) == {"s", "f"} for r in got)
    assert (report.calls["s"].retries, report.calls["f"].retries) == (1, 0)


async def test_a_model_that_says_nothing_is_not_asked_for_ever(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = lambda body: ChatReply("" if body["model"] == "mute" else "hello")
    rows = [AnsweredPrompt(prompt=f"q{i}") for i in range(100)]
    async with model_at(server, "mute") as mute, model_at(server, "m") as model:
        got, report = await generate_answers(rows, {"a": mute, "b": model}, journal=tmp_path / "j", concurrency=4)
    assert all(r.answers == {"b": "hello"} for r in got)
    assert report.missing == {"a": 100, "b": 0}
    assert 40 <= report.calls["a"].asked <= 48
    assert list(report.calls["a"].errors) == ["mute: no usable reply to 20 questions; the others are not asked"]
    assert report.calls["b"].errors == {}


async def test_the_estimate_is_what_is_paid(server: OpenAIServer, tmp_path: Path) -> None:
    server.chat = echo
    rows = [AnsweredPrompt(prompt=f"q{i % 4}", answers={"big": "given"} if i == 0 else {}) for i in range(6)]
    prices = {"big": Price(10, 30), "small": Price(1, 2)}
    async with model_at(server, "maxi") as maxi, model_at(server, "mini") as mini:
        models = {"big": maxi, "small": mini}
        before = estimate_answers(rows, models, journal=tmp_path / "j", prices=prices)
        _, report = await generate_answers(rows, models, journal=tmp_path / "j")
        after = estimate_answers(rows, models, journal=tmp_path / "j", prices=prices)
    assert (
        {n: e.calls for n, e in before.items()}
        == {n: t.asked for n, t in report.calls.items()}
        == {"big": 4, "small": 4}
    )
    assert {n: (e.calls, e.remembered, e.cost) for n, e in after.items()} == {"big": (0, 4, 0), "small": (0, 4, 0)}
    big, small = before["big"], before["small"]
    assert big.cost is not None
    assert small.cost is not None
    assert big.cost == pytest.approx((big.prompt_tokens * 10 + big.completion_tokens * 30) / 1e6)
    assert (big.most_calls, big.most_cost) == (8, pytest.approx(2 * big.cost))  # type: ignore[comparison-overlap]
    both = big.cost + small.cost
    assert total_cost(before.values()) == pytest.approx((both, 2 * both))

    assert total_cost([*before.values(), estimate_answers(rows, models)["big"]]) is None
    assert total_cost(after.values()) == (0, 0)
    # what the journal has tells how long the answers are
    more = [AnsweredPrompt(prompt=f"q{i}") for i in range(10)]
    assert estimate_answers(more, {"big": maxi}, journal=tmp_path / "j")["big"].completion_tokens == 6 * 3


def test_a_limit_of_tokens_bounds_the_estimate() -> None:
    rows = [AnsweredPrompt(prompt="x" * 400)]
    price = {"a": Price(1, 1)}

    def estimate(**options: Any) -> Any:
        model = OpenAIChatModel("m", api_key=KEY, **options)
        return estimate_answers(rows, {"a": model}, prices=price, instructions="y" * 40, tries=3)["a"]

    assert (estimate().prompt_tokens, estimate().completion_tokens) == (110, 400)
    assert estimate(max_tokens=50).completion_tokens == 50
    assert estimate(max_completion_tokens=1000).completion_tokens == 400
    assert estimate(max_tokens=1000).most_cost == pytest.approx(3 * (110 + 1000) / 1e6)
    with pytest.raises(ConfigurationError, match="prices: 'b' is not one of the models"):
        estimate_answers(rows, {"a": OpenAIChatModel("m", api_key=KEY)}, prices={"b": Price(1, 1)})


async def test_models_of_frameworks_answer(tmp_path: Path) -> None:
    chat_models = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    rows = [AnsweredPrompt(prompt="q")]
    models = {name: LLMChatModel(chat_models.FakeListChatModel(responses=[name])) for name in ("big", "small")}
    got, _ = await generate_answers(rows, models, journal=tmp_path / "j")
    assert got[0].answers == {"big": "big", "small": "small"}  # though both call themselves alike
