"""Preference data: records, files, conversion, cleaning, ratings, tiers, and labelling.

Parts load when they are first used: the records need pydantic, parquet files pyarrow, the judge openai.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routellm_core.preference.bradley_terry import bradley_terry_ratings
    from routellm_core.preference.contamination import ContaminationIndex, DuplicateFinder
    from routellm_core.preference.convert import label_pair, outcomes_to_battles, pair_scores
    from routellm_core.preference.files import (
        SkippedRows,
        read_answers,
        read_battles,
        read_outcomes,
        read_preferences,
        write_records,
    )
    from routellm_core.preference.labelling import (
        JudgeReport,
        estimate_judging,
        generate_answers,
        gold_outcomes,
        grade,
        judge_battles,
    )
    from routellm_core.preference.paid_calls import ChatModel, LLMChatModel, OpenAIChatModel
    from routellm_core.preference.records import AnsweredPrompt, Battle, Outcome
    from routellm_core.preference.tiers import compute_tiers

_MODULES = {
    "AnsweredPrompt": "records",
    "Battle": "records",
    "ChatModel": "paid_calls",
    "ContaminationIndex": "contamination",
    "DuplicateFinder": "contamination",
    "JudgeReport": "labelling",
    "LLMChatModel": "paid_calls",
    "OpenAIChatModel": "paid_calls",
    "Outcome": "records",
    "SkippedRows": "files",
    "bradley_terry_ratings": "bradley_terry",
    "compute_tiers": "tiers",
    "estimate_judging": "labelling",
    "generate_answers": "labelling",
    "gold_outcomes": "labelling",
    "grade": "labelling",
    "judge_battles": "labelling",
    "label_pair": "convert",
    "outcomes_to_battles": "convert",
    "pair_scores": "convert",
    "read_answers": "files",
    "read_battles": "files",
    "read_outcomes": "files",
    "read_preferences": "files",
    "write_records": "files",
}
__all__ = [  # the keys of _MODULES, written out for type checkers
    "AnsweredPrompt",
    "Battle",
    "ChatModel",
    "ContaminationIndex",
    "DuplicateFinder",
    "JudgeReport",
    "LLMChatModel",
    "OpenAIChatModel",
    "Outcome",
    "SkippedRows",
    "bradley_terry_ratings",
    "compute_tiers",
    "estimate_judging",
    "generate_answers",
    "gold_outcomes",
    "grade",
    "judge_battles",
    "label_pair",
    "outcomes_to_battles",
    "pair_scores",
    "read_answers",
    "read_battles",
    "read_outcomes",
    "read_preferences",
    "write_records",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
