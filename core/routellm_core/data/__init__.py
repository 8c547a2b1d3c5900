"""Data: from files to records and back, conversion, and cleaning.

Parts load when they are first used: records need pydantic, parquet files pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routellm_core.data.cleaning import CleaningReport, clean_records
    from routellm_core.data.contamination import ContaminationIndex, DuplicateFinder
    from routellm_core.data.convert import label_pair, outcomes_to_battles, pair_scores
    from routellm_core.data.files import SkippedRows, read_rows
    from routellm_core.data.joining import JoinReport
    from routellm_core.data.prompts import prompts_of_record, read_prompts, routed_text
    from routellm_core.data.reading import read_answers, read_battles, read_outcomes, read_preferences
    from routellm_core.data.records import AnsweredPrompt, Battle, Outcome, Record, Tokens
    from routellm_core.data.writing import write_records

_MODULES = {
    "AnsweredPrompt": "records",
    "Battle": "records",
    "CleaningReport": "cleaning",
    "ContaminationIndex": "contamination",
    "DuplicateFinder": "contamination",
    "JoinReport": "joining",
    "Outcome": "records",
    "Record": "records",
    "SkippedRows": "files",
    "Tokens": "records",
    "clean_records": "cleaning",
    "label_pair": "convert",
    "outcomes_to_battles": "convert",
    "pair_scores": "convert",
    "prompts_of_record": "prompts",
    "read_answers": "reading",
    "read_battles": "reading",
    "read_outcomes": "reading",
    "read_preferences": "reading",
    "read_prompts": "prompts",
    "read_rows": "files",
    "routed_text": "prompts",
    "write_records": "writing",
}
__all__ = [  # the keys of _MODULES, written out for type checkers
    "AnsweredPrompt",
    "Battle",
    "CleaningReport",
    "ContaminationIndex",
    "DuplicateFinder",
    "JoinReport",
    "Outcome",
    "Record",
    "SkippedRows",
    "Tokens",
    "clean_records",
    "label_pair",
    "outcomes_to_battles",
    "pair_scores",
    "prompts_of_record",
    "read_answers",
    "read_battles",
    "read_outcomes",
    "read_preferences",
    "read_prompts",
    "read_rows",
    "routed_text",
    "write_records",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
