"""Cleaning of records: repeats of an evaluation set, repeats among themselves, and what is said about them."""

from __future__ import annotations

import json
import random

import pytest

from routellm_core import ConfigurationError
from routellm_core.data import AnsweredPrompt, Battle, CleaningReport, Outcome, clean_records

RNG = random.Random(3)
WORDS = [f"word{i}" for i in range(900)]
TEXTS = [" ".join(RNG.choices(WORDS, k=30)) for _ in range(20)]


def battle(prompt: str, winner: str = "tie", name: str | None = None) -> Battle:
    return Battle(prompt=prompt, model_a="a", model_b="b", winner=winner, id=name)  # type: ignore[arg-type]


def test_repeats_are_left_out_and_other_votes_stay() -> None:
    rows = [battle(text, name=str(i)) for i, text in enumerate(TEXTS)]
    rows.append(battle(TEXTS[3], name="again"))
    rows.append(battle(TEXTS[4], "model_a"))  # another vote on the same prompt
    rows.append(battle(TEXTS[5] + " indeed"))
    rows.append(battle(f"context first. {TEXTS[9].upper()}!"))
    report = CleaningReport()
    left = list(clean_records(rows, against=[TEXTS[9]], report=report))
    assert left == [row for i, row in enumerate(rows) if i not in (9, 20, 22, 23)]
    assert (report.rows, report.kept, report.evaluation_prompts) == (24, 20, 1)
    assert (report.contaminated, report.contaminated_exact) == (2, 1)
    assert (report.duplicates, report.duplicates_exact) == (2, 1)
    assert [(f.row, f.id, f.kind, f.of) for f in report.found] == [
        (9, "9", "contaminated", 0),
        (20, "again", "duplicates", 3),
        (22, None, "duplicates", 5),
        (23, None, "contaminated", 0),
    ]
    assert json.loads(json.dumps(report.to_dict()))["found"][1]["similarity"] == 1.0


def test_a_duplicate_names_the_row_that_it_repeats_although_contaminated_ones_stand_before_it() -> None:
    rows = [battle(TEXTS[0]), battle(TEXTS[1]), battle(TEXTS[1])]
    report = CleaningReport()
    assert list(clean_records(rows, against=TEXTS[:1], report=report)) == [rows[1]]
    assert [(f.row, f.kind, f.of) for f in report.found] == [(0, "contaminated", 0), (2, "duplicates", 1)]


def test_repeats_within_the_records_may_be_left_alone() -> None:
    rows = [battle(TEXTS[0])] * 3
    assert list(clean_records(rows, duplicates=False)) == rows
    assert list(clean_records(rows)) == rows[:1]


def test_the_report_keeps_as_many_findings_as_it_is_asked_to() -> None:
    report = CleaningReport(limit=2)
    list(clean_records([battle(TEXTS[0])] * 5, report=report))
    assert (report.duplicates, len(report.found)) == (4, 2)
    with pytest.raises(ConfigurationError, match="limit=-1"):
        CleaningReport(limit=-1)


def test_every_kind_of_record_is_cleaned_as_a_stream() -> None:
    seen = 0

    def rows():
        nonlocal seen
        for text in TEXTS:
            seen += 1
            yield Outcome(prompt=text, scores={"a": 1})

    left = clean_records(rows())
    assert next(left).prompt == TEXTS[0]
    assert seen == 1
    answers = [AnsweredPrompt(prompt="q", answers={"a": "x"})] * 2
    assert list(clean_records(answers)) == answers[:1]


def test_a_threshold_out_of_range_is_refused_when_called() -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        clean_records([], threshold=2.0)
