"""Labelling: from answers to labels, by a gold answer or by a judge.

Parts load when they are first used: records need pydantic, calls to an OpenAI-compatible service the openai package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routellm_core.labelling.answers import AnswerReport, estimate_answers, generate_answers, recall_answers
    from routellm_core.labelling.chat_models import CallError, ChatModel, LLMChatModel, OpenAIChatModel
    from routellm_core.labelling.gold import GoldReport, gold_outcomes, grade
    from routellm_core.labelling.journal import merge_journals
    from routellm_core.labelling.judge import JudgeReport, estimate_judging, judge_battles
    from routellm_core.labelling.paid_calls import CallEstimate, CallTally, total_cost

_MODULES = {
    "AnswerReport": "answers",
    "CallError": "chat_models",
    "CallEstimate": "paid_calls",
    "CallTally": "paid_calls",
    "ChatModel": "chat_models",
    "GoldReport": "gold",
    "JudgeReport": "judge",
    "LLMChatModel": "chat_models",
    "OpenAIChatModel": "chat_models",
    "estimate_answers": "answers",
    "estimate_judging": "judge",
    "generate_answers": "answers",
    "gold_outcomes": "gold",
    "grade": "gold",
    "judge_battles": "judge",
    "merge_journals": "journal",
    "recall_answers": "answers",
    "total_cost": "paid_calls",
}
__all__ = [  # the keys of _MODULES, written out for type checkers
    "AnswerReport",
    "CallError",
    "CallEstimate",
    "CallTally",
    "ChatModel",
    "GoldReport",
    "JudgeReport",
    "LLMChatModel",
    "OpenAIChatModel",
    "estimate_answers",
    "estimate_judging",
    "generate_answers",
    "gold_outcomes",
    "grade",
    "judge_battles",
    "merge_journals",
    "recall_answers",
    "total_cost",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
