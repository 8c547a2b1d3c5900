"""The seam of foreign forms: found by content or named, one translation for every reader, refusals that list fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from routellm_core import ConfigurationError, DataError
from routellm_core.data import (
    SkippedRows,
    forms,
    prompts_of_record,
    read_answers,
    read_battles,
    read_outcomes,
    read_preferences,
    read_prompts,
)
from routellm_core.data.forms.base import Form, Problem, bundled
from routellm_core.evaluation import load_outcomes

ARENA = [
    {
        "id": 0,
        "model_a": "big",
        "model_b": "small",
        "prompt": '["first turn", "second turn"]',
        "winner_model_a": 1,
        "winner_model_b": 0,
        "winner_tie": 0,
    },
    {
        "id": 1,
        "model_a": "big",
        "model_b": "small",
        "prompt": '["another"]',
        "winner_model_a": 0,
        "winner_model_b": 0,
        "winner_tie": 1,
    },
]


def put(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_form_has_a_name_of_its_own_and_says_what_it_is() -> None:
    names = [form.name for form in forms.FORMS]
    assert len(set(names)) == len(names)
    for form in forms.FORMS:
        assert forms.find_form(form.name) is form
        assert len(form.title) > 20
        assert form.fields
        assert form.holds
        assert form.uses
        assert form.rows is not None or form.prompts is not None
        assert (form.rows is not None) >= bool({"scores", "preferences", "answers"} & {*form.holds})
    with pytest.raises(ConfigurationError, match="form='arenas': expected one of arena, "):
        forms.find_form("arenas")


def test_the_arena_is_read_alike_by_all(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", ARENA)
    assert [(row.prompt, row.winner) for row in read_battles(path)] == [("first turn", "model_a"), ("another", "tie")]
    assert list(read_preferences(path)) == list(read_battles(path, form="arena"))
    assert list(read_prompts(path)) == list(read_prompts(path, form="arena")) == ["first turn", "another"]
    assert [row.prompt for row in read_answers(path)] == ["first turn", "another"]
    found = load_outcomes(path, form="arena")
    assert (found.prompts, found.strong, found.weak) == (("first turn", "another"), "big", "small")
    assert found.strong_scores.tolist() == [1.0, 0.5]


def test_a_broken_row_of_a_foreign_form_is_one_for_every_reader(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", [ARENA[0], {**ARENA[1], "winner_tie": 0}, {**ARENA[1], "prompt": "no list"}])
    for read in (read_preferences, read_prompts):
        with pytest.raises(DataError, match=r"a\.jsonl, line 2: fields winner_model_a, .* exactly one"):
            list(read(path))
        skipped = SkippedRows()
        assert len(list(read(path, skip_bad=skipped))) == 1
        assert skipped.count == 2


def test_a_form_of_traffic_holds_no_labels(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", [{"run_type": "llm", "inputs": {"prompts": ["one"]}}])
    assert list(read_prompts(path, form="langsmith")) == ["one"]
    with pytest.raises(DataError, match="form='langsmith' is a form of traffic"):
        list(read_outcomes(path, form="langsmith"))
    with pytest.raises(ConfigurationError, match="form='x'"):
        read_outcomes(path, form="x")
    with pytest.raises(ConfigurationError, match="form='x'"):
        read_prompts(path, form="x")
    with pytest.raises(ConfigurationError, match="form='arena', field='prompt'"):
        read_prompts(path, form="arena", field="prompt")


def long_table() -> Form:
    """A form that puts several rows together: one row a prompt and model."""

    def rows(located: Iterable[tuple[str, Any]], model: str | None) -> Iterator[tuple[str, Any]]:
        scores: dict[str, dict[str, Any]] = {}
        first: dict[str, str] = {}
        for where, row in located:
            if "llm" not in row:
                yield where, Problem("no model")
                continue
            first.setdefault(row["ask"], where)
            scores.setdefault(row["ask"], {})[row["llm"]] = row["points"]
        for ask, found in scores.items():
            yield first[ask], {"prompt": ask, "scores": found}

    return Form(
        name="my_long",
        title="rows of a prompt, a model and a score",
        fields=("ask", "llm", "points"),
        matches=lambda rows: all({"ask", "points"} <= row.keys() for row in rows),
        holds=("prompts", "scores"),
        rows=rows,
    )


def test_a_new_form_is_one_entry_for_every_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [
        {"ask": "q1", "llm": "big", "points": 1},
        {"ask": "q1", "llm": "small", "points": 0},
        {"ask": "q2", "llm": "big", "points": 1},
        {"ask": "q2", "points": 7},
        {"ask": "q2", "llm": "small", "points": 1},
    ]
    path = put(tmp_path / "a.jsonl", table)
    with pytest.raises(DataError, match="fields seen: ask, llm, points"):
        list(read_outcomes(path))
    monkeypatch.setattr(forms, "FORMS", (*forms.FORMS, long_table()))
    with pytest.raises(DataError, match="line 4: no model"):
        list(read_outcomes(path))
    csv_path = tmp_path / "data"  # the header of a table is recognised by the form's fields
    csv_path.write_text("note;ask;llm;points\n;q1;big;1\n;q1;small;0\n;q2;big;1\n;q2;small;1\n")
    for file in (path, csv_path):
        skip = SkippedRows()
        assert [(row.prompt, row.scores) for row in read_outcomes(file, skip_bad=skip)] == [
            ("q1", {"big": 1, "small": 0}),
            ("q2", {"big": 1, "small": 1}),
        ]
        assert list(read_prompts(file, skip_bad=skip)) == ["q1", "q2"]
        assert load_outcomes(file, skip_bad=skip).prompts == ("q1", "q2")
        assert skip.count == (3 if file == path else 0)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"rows": [{"a": 1}], "features": [{"b": 1}]}, "rows"),
        ({"meta": {}, "mine": [{"a": 1}], "n": 3}, "mine"),
        ({"one": [{"a": 1}], "two": [{"a": 1}]}, None),
        ({"data": [1, 2]}, None),
        ({"data": []}, None),
        ({}, None),
        ({"prompt": {"0": "a"}, "big": {"0": 1}}, "columns"),
        ({"prompt": ["a"], "big": [1]}, "columns"),
        ({"prompt": ["a"], "big": [1, 0]}, None),
        ({"prompt": {"0": "a"}, "big": {"1": 1}}, None),
        ({"big": [1], "small": [0]}, None),
        ({"q1": {"question": "a"}, "q2": {"question": "b"}}, "rows by id"),
        ({"prompt": ["a", "b"], "scores": [{"big": 1}, {"big": 0}]}, "columns"),
        ({"prompts": [{"prompt": "a", "big": 1}]}, "prompts"),
        ({"turns": [{"role": "user", "content": "a"}]}, None),
        ({"messages": [{"role": "user", "content": "a"}], "model": "big"}, None),
    ],
)
def test_bundles(row: dict[str, Any], wanted: str | None) -> None:
    found = bundled(row)
    assert (found and found[0]) == wanted


@pytest.mark.parametrize("cells", [list, lambda values: dict(zip("01", values, strict=True))])
def test_outcomes_by_columns_in_one_object(cells: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    scores = [{"m": 1, "n": 0}, {"m": 0, "n": 1}]
    path.write_text(json.dumps({"prompt": cells(["one", "two"]), "scores": cells(scores)}))
    assert [(row.prompt, row.scores["m"]) for row in read_outcomes(path)] == [("one", 1), ("two", 0)]


def test_the_only_object_of_a_file_may_hold_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"prompt": "one", "scores": {"m": 1}}, {"prompt": "two", "scores": {"m": "x"}}]
    path.write_text(json.dumps({"total": 2, "rows": rows}))
    with pytest.raises(DataError, match=r"a\.json, item 2 of 'rows': field 'scores\.m': expected a number, got 'x'"):
        list(read_outcomes(path))
    assert [row.prompt for row in read_outcomes(path, skip_bad=SkippedRows())] == ["one"]
    assert list(read_prompts(path)) == ["one", "two"]
    # an object that is a row itself is no bundle, and of several none is
    path.write_text(json.dumps({"prompt": "mine", "scores": {"m": 1}, "rows": rows}))
    assert [row.prompt for row in read_outcomes(path)] == ["mine"]
    assert list(read_prompts(path)) == ["mine"]
    path.write_text(json.dumps({"documents": [{"text": "no prompt"}]}) + "\n" + json.dumps({"prompt": "mine"}))
    assert list(read_prompts(path)) == ["mine"]


def test_the_only_row_of_a_table_is_no_bundle(tmp_path: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    turns = [{"role": "user", "content": "hi"}]
    for name, wanted in (("dialogue", []), ("messages", ["hi"])):
        pq.write_table(pa.Table.from_pylist([{"id": 1, name: turns}]), tmp_path / "a.parquet")
        assert list(read_prompts(tmp_path / "a.parquet")) == wanted
        with pytest.raises(DataError, match=f"row 1: expected outcomes .*fields seen: id, {name}"):
            list(read_outcomes(tmp_path / "a.parquet"))


@pytest.mark.parametrize("read", [read_outcomes, read_battles, read_preferences, read_answers])
def test_rows_of_no_known_form_are_refused_with_the_fields_seen(tmp_path: Path, read: Any) -> None:
    path = put(tmp_path / "a.jsonl", [{"request": "x", "reply": "y"}] * 40)
    for skip in (None, SkippedRows()):  # that would leave out all of them
        with pytest.raises(DataError) as caught:
            list(read(path, skip_bad=skip))
        assert str(caught.value).startswith(f"{path}, line 1: expected ")
        assert "fields seen: request, reply" in str(caught.value)
    reader = read_prompts(path)
    assert list(reader) == []
    assert (
        "contains no prompt in its 40 records (fields seen: request, reply); name the field of the prompt with --field"
        in str(reader.no_prompt())
    )


def test_texts_in_place_of_a_header_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{'my private question ' * 5},answer\nsomething else,x\n")
    with pytest.raises(DataError, match=r"fields seen: \(a long text\), answer") as caught:
        list(read_outcomes(path))
    assert "private" not in str(caught.value)


def test_records_with_other_fields_in_one_file_are_each_read_by_their_own_form(tmp_path: Path) -> None:
    rows = [
        {"prompt": "plain"},
        {"run_type": "llm", "inputs": {"prompts": ["a run"]}},
        {"id": "1", "traceId": "t", "type": "SPAN", "input": "a step"},
        {"id": "2", "traceId": "t", "type": "GENERATION", "input": "a generation"},
        {"name": "chat", "attributes": {"gen_ai.prompt": "a span"}},
        {"prompt": "plain again", "input": "an input"},
    ]
    reader = read_prompts(put(tmp_path / "a.jsonl", rows))
    assert list(reader) == ["plain", "a run", "a generation", "a span", "an input"]
    assert reader.skipped == 1
    assert [text for row in rows for text in prompts_of_record(row)] == list(reader)


def test_a_field_that_names_vary_in_does_not_fill_the_memory(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", f"field {i}": 1} for i in range(1500)]
    assert list(read_prompts(put(tmp_path / "a.jsonl", rows))) == [f"p{i}" for i in range(1500)]


@pytest.mark.parametrize(
    "row",
    [
        {"results": {"big": {"score": 1, "response": "x", "cost": 0.5}, "small": {"score": 0, "response": "y"}}},
        {"scores": {"big": {"score": True, "answer": "x", "cost": 0.5}, "small": {"score": False, "answer": "y"}}},
        {
            "models": [
                {"name": "big", "score": 1, "output": "x", "cost": 0.5},
                {"name": "small", "score": 0, "output": "y"},
            ]
        },
        {"models": ["big", "small"], "scores": [1, 0], "responses": ["x", "y"], "costs": [0.5, None]},
        {"models": ["big", "small"], "correct": [True, False], "outputs": ["x", "y"], "total_costs": [0.5, None]},
    ],
)
@pytest.mark.parametrize("name", ["prompt", "question"])
def test_what_a_row_says_of_its_models_may_be_nested_or_in_parallel_lists(
    row: dict[str, Any], name: str, tmp_path: Path
) -> None:
    file = put(tmp_path / "a.jsonl", [{"id": i, name: f"question {i}", **row} for i in range(3)])
    (first, *others) = read_outcomes(file)
    assert len(others) == 2
    assert (first.prompt, first.scores, first.costs) == ("question 0", {"big": 1.0, "small": 0.0}, {"big": 0.5})
    assert next(iter(read_answers(file))).answers == {"big": "x", "small": "y"}


@pytest.mark.parametrize("wrong", [[0], [2], [0, 1, 2]])
@pytest.mark.parametrize("field", ["scores", "responses", "costs"])
def test_parallel_lists_of_other_lengths_are_refused(tmp_path: Path, wrong: list[int], field: str) -> None:
    """Also in the first row or in all, where the form is still to be recognised, and beside lists that fit."""
    rows = [
        {"question": f"q {i}", "models": ["big", "small"], "scores": [1, 0], "responses": ["x", "y"], "costs": [2, 1]}
        for i in range(3)
    ]
    for i in wrong:
        rows[i][field] = [*rows[i][field], rows[i][field][0]]
    message = rf"line {wrong[0] + 1}: field '{field}': expected one for each of 2 models, got 3"
    with pytest.raises(DataError, match=message):
        list(read_outcomes(put(tmp_path / "a.jsonl", rows)))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "scores": {"big": 1, "small": 0}},
        {"prompt": "p", "model_a": "big", "model_b": "small", "winner": "model_a"},
    ],
)
def test_an_empty_row_is_called_empty(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"line 3: .*; the row is empty"):
        list(read_preferences(put(tmp_path / "a.jsonl", [row, row, {}])))
