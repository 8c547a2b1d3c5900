"""What the judgments of Arena-hard and MT-Bench share: the question inside of a judge's prompt."""

from __future__ import annotations

import re
from typing import Any

_QUESTION = re.compile(
    r"(?:<\|User Prompt\|>|\[(?:User )?Question\]|### User:)\s*\n(?P<text>.*?)\n\s*"
    r"(?:<\|The Start of|\[The Start of|### Assistant|\[Reference|<\|The Start)",
    re.DOTALL,
)


def question_in(judge_prompt: Any) -> str | None:
    """The user's question out of the text that a judge was sent; None where it is not there."""
    if isinstance(judge_prompt, list):  # messages: the last one holds the question
        judge_prompt = judge_prompt[-1].get("content") if judge_prompt and isinstance(judge_prompt[-1], dict) else None
    if not isinstance(judge_prompt, str) or (match := _QUESTION.search(judge_prompt)) is None:
        return None
    return match["text"].strip() or None
