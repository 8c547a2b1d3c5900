"""Labelling: from answers to labels, by a gold answer or by a judge.

Parts load when they are first used: the judge needs the openai package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routellm_core.labelling.judge import (
        JudgeReport,
        estimate_judging,
        generate_answers,
        gold_outcomes,
        grade,
        judge_battles,
    )
    from routellm_core.labelling.paid_calls import ChatModel, LLMChatModel, OpenAIChatModel

_MODULES = {
    "ChatModel": "paid_calls",
    "JudgeReport": "judge",
    "LLMChatModel": "paid_calls",
    "OpenAIChatModel": "paid_calls",
    "estimate_judging": "judge",
    "generate_answers": "judge",
    "gold_outcomes": "judge",
    "grade": "judge",
    "judge_battles": "judge",
}
__all__ = [  # the keys of _MODULES, written out for type checkers
    "ChatModel",
    "JudgeReport",
    "LLMChatModel",
    "OpenAIChatModel",
    "estimate_judging",
    "generate_answers",
    "gold_outcomes",
    "grade",
    "judge_battles",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
