"""Capability guard: what is stated counts, what is unknown does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core.policy.capability import MAX_INPUT_TOKENS, capability_gap, estimated_tokens

CASES: list[tuple[dict[str, Any] | None, dict[str, Any] | None, str | None]] = [
    ({"image_inputs": False}, {"image_inputs": True}, "image_inputs"),
    ({"image_inputs": False}, {}, "image_inputs"),
    ({"image_inputs": False}, None, "image_inputs"),
    ({"image_inputs": False}, {"image_inputs": False}, None),
    ({"image_inputs": True}, {"image_inputs": True}, None),
    ({"image_inputs": None}, {"image_inputs": True}, None),
    ({}, {"image_inputs": True}, None),
    (None, {"image_inputs": True}, None),
]


@pytest.mark.parametrize(("weak", "strong", "gap"), CASES)
def test_only_a_stated_lack_of_the_weak_model_is_a_gap(weak: Any, strong: Any, gap: str | None) -> None:
    assert capability_gap(["image_inputs"], weak, strong) == gap
    assert capability_gap([], weak, strong) is None


def test_the_first_lack_is_named() -> None:
    weak = {"tool_calling": False, "image_inputs": False}
    assert capability_gap(["pdf_inputs", "tool_calling", "image_inputs"], weak, None) == "tool_calling"


@pytest.mark.parametrize(
    ("weak", "strong", "tokens", "gap"),
    [
        (100, 1000, 101, MAX_INPUT_TOKENS),
        (100, None, 101, MAX_INPUT_TOKENS),
        (100, 1000, 100, None),
        (100, 100, 101, None),
        (100, 50, 101, None),
        (None, 1000, 101, None),
        (0, 1000, 101, None),
    ],
)
def test_too_long_a_prompt_is_a_gap_where_the_strong_model_takes_more(
    weak: int | None, strong: int | None, tokens: int, gap: str | None
) -> None:
    weaker, stronger = ({} if limit is None else {MAX_INPUT_TOKENS: limit} for limit in (weak, strong))
    weaker["tool_calling"] = True
    assert capability_gap([], weaker, stronger, lambda: tokens) == gap


def test_tokens_are_counted_only_when_the_weak_model_states_a_limit() -> None:
    def count() -> int:
        raise AssertionError("counted for nothing")

    assert capability_gap([], {"tool_calling": True}, {}, count) is None
    assert capability_gap(["x"], {"x": False, MAX_INPUT_TOKENS: 1}, {}, count) == "x"


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本", 2), ("abcd日", 2), ("\ud800", 1)]
)
def test_estimate(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_estimate_is_a_quarter_of_ascii_and_all_of_the_rest(text: str) -> None:
    other = sum(ord(c) > 127 for c in text)
    assert estimated_tokens(text) == -(-(len(text) - other) // 4) + other


@given(st.text(), st.text())
def test_estimate_grows_with_the_text(a: str, b: str) -> None:
    assert (
        max(estimated_tokens(a), estimated_tokens(b))
        <= estimated_tokens(a + b)
        <= estimated_tokens(a) + estimated_tokens(b)
    )
