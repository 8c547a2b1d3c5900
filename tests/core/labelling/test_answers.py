"""Answers of several models, each paid for once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from routellm_core.data import AnsweredPrompt
from routellm_core.labelling import (
    generate_answers,
)
from tests.core.labelling.services import model_at
from tests.support.openai_server import ChatReply, Failure, OpenAIServer


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
