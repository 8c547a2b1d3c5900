"""Rows to fill a traffic log with."""

from __future__ import annotations

from typing import Any

from routellm_core.log import TrafficDatabase
from routellm_core.log.cleaning import clean


def call_id(number: int) -> str:
    return f"{number:032x}"


def a_call(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": call_id(number), "created": 1000.0 + number, "router": "mf:0123456789ab", "win_rate": 0.4,
        "threshold": 0.5, "reason": "win_rate", "p_strong": 0.0, "p_shadow": 0.0, "side": "weak", "prompt": "hi",
        "prompt_hash": "0" * 32,
    }  # fmt: skip
    return clean("calls", {**row, **changes})


def an_answer(number: int, side: str = "weak", kind: str = "routed", **changes: Any) -> dict[str, Any]:
    row = {
        "call_id": call_id(number), "side": side, "kind": kind, "created": 1000.5 + number, "model": f"the-{side}-one",
        "text": "hello", "input_tokens": 10, "output_tokens": 20, "latency": 0.5,
    }  # fmt: skip
    return clean("answers", {**row, **changes})


def a_discarded(number: int, id: str, **changes: Any) -> dict[str, Any]:
    row = {
        "id": id, "call_id": call_id(number), "side": "weak", "kind": "refused", "created": 1000.5 + number,
        "model": "the-weak-one", "input_tokens": 10, "output_tokens": 20, "cost": 2.0,
    }  # fmt: skip
    return clean("discarded", {**row, **changes})


def fill(database: TrafficDatabase, calls: int, *, pair_every: int = 0) -> None:
    """Weak calls, every so many of them a pair."""
    answers = [an_answer(i) for i in range(calls)]
    if pair_every:
        answers += [an_answer(i, "strong", "shadow") for i in range(0, calls, pair_every)]
    assert database.write({"calls": [a_call(i) for i in range(calls)], "answers": answers}) == 0
