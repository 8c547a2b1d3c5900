"""The graded prompts that the bundled router learns difficulty from: schema, size, and that length tells nothing."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).resolve().parents[2] / "scripts" / "graded_prompts.jsonl"
FIELDS_OF_A_ROW = {"prompt", "grade", "field", "kind", "language"}
ROWS = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]
ENGLISH = [row for row in ROWS if row["language"] == "en"]
GRADES = range(1, 6)
BUCKETS = ("short", "medium", "long")


def bucket(prompt: str) -> str:
    """The length bucket of a prompt: under 60 characters, up to 400, or more."""
    return "short" if len(prompt) < 60 else "medium" if len(prompt) <= 400 else "long"


def length_correlation(rows: list[dict]) -> float:
    """Pearson's correlation of the logarithm of the length with the grade."""
    lengths = np.log([len(row["prompt"]) for row in rows])
    return float(np.corrcoef(lengths, [row["grade"] for row in rows])[0, 1])


def test_every_row_has_the_schema() -> None:
    for row in ROWS:
        assert set(row) in (FIELDS_OF_A_ROW, FIELDS_OF_A_ROW | {"group"}), row
        assert row["grade"] in GRADES
        assert all(
            isinstance(row[name], str) and row[name].strip() == row[name] != "" for name in row if name != "grade"
        )
        assert re.fullmatch("[a-z]{2}", row["language"])


def test_the_set_is_large_enough_and_mostly_english() -> None:
    assert len(ROWS) >= 1500
    assert 0.7 <= len(ENGLISH) / len(ROWS) <= 0.8
    assert len({row["field"] for row in ROWS}) >= 60


def test_no_prompt_occurs_twice_even_nearly() -> None:
    plain = Counter(re.sub(r"[\W_]+", " ", row["prompt"]).casefold().strip() for row in ENGLISH)
    assert [prompt for prompt, count in plain.items() if count > 1] == []
    assert len({row["prompt"] for row in ROWS}) == len(ROWS)
    words = [frozenset(re.findall(r"\w+", row["prompt"].casefold())) for row in ENGLISH]
    index = {word: i for i, word in enumerate(sorted(frozenset().union(*words)))}
    matrix = np.zeros((len(words), len(index)), dtype=np.float32)
    for i, of_prompt in enumerate(words):
        matrix[i, [index[word] for word in of_prompt]] = 1
    shared = matrix @ matrix.T
    sizes = matrix.sum(axis=1)
    overlap = np.triu(shared / (sizes[:, None] + sizes[None, :] - shared), k=1)
    pairs = [(ENGLISH[i]["prompt"], ENGLISH[j]["prompt"]) for i, j in np.argwhere(overlap >= 0.75)]
    assert pairs == []


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("length", BUCKETS)
def test_every_grade_has_prompts_of_every_length(grade: int, length: str) -> None:
    cell = [row for row in ENGLISH if row["grade"] == grade and bucket(row["prompt"]) == length]
    assert len(cell) >= 60


def test_length_does_not_tell_the_grade() -> None:
    assert abs(length_correlation(ROWS)) <= 0.05
    assert abs(length_correlation(ENGLISH)) <= 0.05
    fields = defaultdict(list)
    for row in ROWS:
        fields[row["field"]].append(row)
    correlations = [length_correlation(rows) for rows in fields.values() if len(rows) >= 15]
    assert np.mean(np.abs(correlations) <= 0.15) >= 0.8


def test_a_group_is_one_request_in_five_languages_with_one_grade() -> None:
    groups = defaultdict(list)
    for row in ROWS:
        if "group" in row:
            groups[row["group"]].append(row)
    assert len(groups) >= 60
    for rows in groups.values():
        assert sorted(row["language"] for row in rows) == ["de", "en", "es", "fr", "zh"]
        assert len({(row["grade"], row["field"], row["kind"]) for row in rows}) == 1
    originals = [row for rows in groups.values() for row in rows if row["language"] == "en"]
    assert min(Counter(row["grade"] for row in originals).values()) >= 10
    assert min(Counter(bucket(row["prompt"]) for row in originals).values()) >= 18
