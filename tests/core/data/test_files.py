"""Records of preference data: what is read, what is refused and how it is said, and the way back to disk."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from routellm_core import ConfigurationError, DataError
from routellm_core.data import (
    AnsweredPrompt,
    Battle,
    Outcome,
    SkippedRows,
    label_pair,
    outcomes_to_battles,
    pair_scores,
    read_answers,
    read_battles,
    read_outcomes,
    read_preferences,
    write_records,
)

OUTCOMES = [
    Outcome(prompt="What is 2 + 2?", scores={"big": 1, "small": 1}, id="a"),
    Outcome(prompt='Line one\nline "two", üñï 漢字', scores={"big": 0.75, "small": -2}, source="mine", weight=0.5),
    Outcome(prompt="x" * 200_000, scores={"big": 1.0}),
]
BATTLES = [
    Battle(prompt="hello there", model_a="big", model_b="small", winner="model_a"),
    Battle(prompt="a, b\r\nc", model_a="small", model_b="big", winner="tie", id="7", weight=2.0),
]
SUFFIXES = [".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".csv.gz", ".parquet"]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_records_come_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    outcomes, battles = tmp_path / f"o{suffix}", tmp_path / f"b{suffix}"
    assert write_records(outcomes, OUTCOMES) == 3
    assert write_records(battles, iter(BATTLES)) == 2
    assert list(read_outcomes(outcomes)) == OUTCOMES
    assert list(read_battles(battles)) == BATTLES
    assert list(read_preferences(battles)) == BATTLES
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([outcomes.name, battles.name])


def test_writing_is_reproducible_and_leaves_no_half_file(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_records(tmp_path / name, OUTCOMES)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()

    def broken() -> Any:
        yield OUTCOMES[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_records(tmp_path / "c.jsonl", broken())
    assert not list(tmp_path.glob("*c.jsonl*"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_to_write_is_an_error_and_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"o{suffix}"
    with pytest.raises(DataError, match=r"there is no row to write$"):
        write_records(path, [])
    assert not path.parent.exists()
    write_records(path, OUTCOMES)
    before = path.read_bytes()
    with pytest.raises(DataError, match="no row to write; the existing file is unchanged"):
        write_records(path, iter(()))

    def broken() -> Any:
        yield OUTCOMES[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_records(path, broken())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_hold_one_kind_of_record(tmp_path: Path, suffix: str) -> None:
    mixed: list[Any] = [OUTCOMES[0], BATTLES[0]]
    with pytest.raises(DataError, match=r"record 2 \(Battle\) is of another kind than the first \(Outcome\).*\.jsonl"):
        write_records(tmp_path / f"a{suffix}", mixed)
    assert not list(tmp_path.iterdir())
    write_records(tmp_path / "a.jsonl", mixed)
    assert list(read_preferences(tmp_path / "a.jsonl")) == mixed


def test_a_file_to_write_says_its_format_by_its_name(tmp_path: Path) -> None:
    for name in ("a.xlsx", "a", "a.parquet.gz", "a.json"):
        with pytest.raises(DataError, match=r"expected a file named \.jsonl"):
            write_records(tmp_path / name, OUTCOMES)
    write_records(tmp_path / "A.JSONL.GZ", OUTCOMES)
    assert (tmp_path / "A.JSONL.GZ").read_bytes()[:2] == b"\x1f\x8b"
    assert list(read_outcomes(tmp_path / "A.JSONL.GZ")) == OUTCOMES


def test_halves_of_surrogate_pairs_are_written_wherever_they_stand(tmp_path: Path) -> None:
    half = "x\ud83d"
    rows = [AnsweredPrompt(prompt=half, answers={half: half}, gold=half, id=half, source=half)]
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": half, "answers": {half: half}, "gold": half, "id": half}])
    for suffix in SUFFIXES:
        write_records(tmp_path / f"b{suffix}", rows)
        assert list(read_answers(tmp_path / f"b{suffix}")) == rows
    assert next(read_answers(path)).answers == {"x\ufffd": "x\ufffd"}


def test_csv_with_a_column_per_model(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("prompt,scores.big,scores.small,source\nhi,1,0,s\nbye,0.5,,\n", encoding="utf-8-sig")
    assert list(read_outcomes(path)) == [
        Outcome(prompt="hi", scores={"big": 1, "small": 0}, source="s"),
        Outcome(prompt="bye", scores={"big": 0.5}),
    ]


def test_parquet_with_map_and_struct_columns(tmp_path: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    rows = [
        {"prompt": "hi", "scores": {"big": 1.0, "small": None}},
        {"prompt": "yo", "scores": {"big": 0.0, "small": 1.0}},
    ]
    wanted = [Outcome(prompt="hi", scores={"big": 1}), Outcome(prompt="yo", scores={"big": 0, "small": 1})]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "struct.parquet")
    pairs = [{"prompt": r["prompt"], "scores": list(r["scores"].items())} for r in rows]  # type: ignore[attr-defined]
    schema = pa.schema([("prompt", pa.string()), ("scores", pa.map_(pa.string(), pa.float64()))])
    pq.write_table(pa.Table.from_pylist(pairs, schema=schema), tmp_path / "map.parquet")
    assert list(read_outcomes(tmp_path / "struct.parquet")) == wanted
    assert list(read_outcomes(tmp_path / "map.parquet")) == wanted


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_published_arena_form(tmp_path: Path, suffix: str) -> None:
    flags = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    rows = [
        {
            "id": i,
            "model_a": "big",
            "model_b": "small",
            "prompt": json.dumps([f"first turn {i}", "second turn"]),
            "winner_model_a": a,
            "winner_model_b": b,
            "winner_tie": tie,
        }
        for i, (a, b, tie) in enumerate(flags)
    ]
    path = tmp_path / f"arena{suffix}"
    if suffix == ".jsonl":
        write_lines(path, rows)
    elif suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    got = list(read_battles(path))
    assert [b.winner for b in got] == ["model_a", "model_b", "tie"]
    assert [b.prompt for b in got] == ["first turn 0", "first turn 1", "first turn 2"]
    assert [b.id for b in got] == ["0", "1", "2"]


def test_names_of_other_tools_are_understood(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "x.jsonl",
        [
            {"prompt_id": 5, "turns": ["one", "two"], "scores": {"m": True, "n": None}, "domain": "d"},
            {"prompt": "p", "model_a": "m", "model_b": "n", "winner": "tie (bothbad)"},
            {"prompt": "half a pair: \ud83d end", "scores": {"m": 0}},
        ],
    )
    first, second, third = read_preferences(path)
    assert first == Outcome(prompt="one", scores={"m": 1}, id="5")
    assert isinstance(second, Battle)
    assert second.winner == "tie"
    assert third.prompt == "half a pair: \ufffd end"


SECRET = "the private question"
BAD = [
    ({"scores": {"m": 1}}, "field 'prompt': missing"),
    ({"prompt": " \n", "scores": {"m": 1}}, "field 'prompt': is blank"),
    ({"prompt": 5, "scores": {"m": 1}}, "field 'prompt'"),
    ({"prompt": SECRET, "scores": {}}, "field 'scores'"),
    ({"prompt": SECRET, "scores": {"m": None}}, "field 'scores'"),
    ({"prompt": SECRET, "scores": [1, 2]}, "field 'scores'"),
    ({"prompt": SECRET, "scores": {"m": "good"}}, "field 'scores.m'"),
    ('{"prompt": "the private question", "scores": {"m": NaN}}', "field 'scores.m'"),
    ({"prompt": SECRET, "scores": {"m": 1}, "weight": -1}, "field 'weight'"),
    ({"prompt": SECRET, "model_a": "m", "model_b": "n", "winner": "bob"}, "field 'winner'"),
    ({"prompt": SECRET, "model_a": "m", "model_b": "m", "winner": "tie"}, "field 'model_b'"),
    ({"prompt": SECRET, "model_a": "m", "winner": "tie"}, "field 'model_b': missing"),
    ({"prompt": SECRET, "model_a": "m", "model_b": "n", "winner_model_a": 1, "winner_tie": 1}, "field 'prompt'"),
    ({"prompt": [SECRET], "model_a": "m", "model_b": "n", "winner_model_a": 1, "winner_tie": 1}, "exactly one"),
    ({"prompt": [SECRET], "model_a": "m", "model_b": "n", "winner_model_a": 2}, "field 'winner_model_a'"),
    ({"prompt": SECRET}, "neither an outcome"),
    ("[1, 2]", "expected a JSON object"),
    ('{"prompt": "the private', "not JSON"),
    ("[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize(("row", "message"), BAD, ids=[m for _, m in BAD])
def test_errors_name_file_line_and_field_but_never_the_prompt(tmp_path: Path, row: Any, message: str) -> None:
    good = {"prompt": "fine", "scores": {"m": 1}}
    path = write_lines(tmp_path / "data.jsonl", [good, "", row, good])
    with pytest.raises(DataError) as caught:
        list(read_preferences(path))
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
    skipped = SkippedRows()
    assert len(list(read_preferences(path, skip_bad=skipped))) == 2
    assert skipped.count == 1
    assert "line 3" in skipped.first[0]


def test_lines_of_a_csv_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('prompt,scores.m\n"two\nlines",1\nbad,x\nshort\nfine,0\n')
    with pytest.raises(DataError, match=r"line 4: field 'scores\.m'"):
        list(read_outcomes(path))
    skipped = SkippedRows()
    assert [o.prompt for o in read_outcomes(path, skip_bad=skipped)] == ["two\nlines", "fine"]
    assert skipped.count == 2


def test_unreadable_files_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_outcomes(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a directory"):
        read_outcomes(tmp_path)
    whole = gzip.compress(json.dumps({"prompt": "p", "scores": {"m": 1}}).encode() * 50)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-12])
    (tmp_path / "damaged.jsonl.gz").write_bytes(whole[:30] + b"\xff" * 8 + whole[38:])
    (tmp_path / "not.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "latin.csv").write_bytes(b"prompt,scores.m\ncaf\xe9,1\n")
    for name in ("cut.jsonl.gz", "damaged.jsonl.gz", "not.parquet", "empty.csv", "latin.csv"):
        with pytest.raises(DataError, match=name):
            list(read_outcomes(tmp_path / name))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        list(read_outcomes(tmp_path / "latin.jsonl"))


def test_a_large_file_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl.gz"
    write_records(path, (Outcome(prompt=f"prompt {i}", scores={"m": i}) for i in range(20_000)))
    rows = read_outcomes(path)
    assert next(rows).prompt == "prompt 0"
    assert sum(1 for _ in rows) == 19_999


def test_many_skipped_rows_keep_few_messages() -> None:
    skipped = SkippedRows()
    for i in range(100):
        skipped.add(str(i))
    assert skipped.count == 100
    assert skipped.first == ["0", "1", "2", "3", "4"]


def test_answers_are_read_with_columns_or_none_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,answers.big,answers.small,gold\nq,It is B,C,B\n")
    assert list(read_answers(path)) == [AnsweredPrompt(prompt="q", answers={"big": "It is B", "small": "C"}, gold="B")]
    lines = write_lines(tmp_path / "a.jsonl", [{"prompt": "q", "gold": 42}, {"prompt": "q"}])
    assert list(read_answers(lines)) == [AnsweredPrompt(prompt="q", gold="42"), AnsweredPrompt(prompt="q")]


def test_outcomes_to_battles_of_a_pair_and_of_all() -> None:
    rows = [
        Outcome(prompt="p", scores={"c": 3, "a": 1, "b": 2}, weight=2, source="s", id="i"),
        Outcome(prompt="q", scores={"a": 1}),
    ]
    every = list(outcomes_to_battles(rows))
    assert [(b.model_a, b.model_b, b.winner) for b in every] == [
        ("a", "b", "model_b"),
        ("a", "c", "model_b"),
        ("b", "c", "model_b"),
    ]
    assert every[0] == Battle(prompt="p", id="i", source="s", weight=2, model_a="a", model_b="b", winner="model_b")
    assert [b.winner for b in outcomes_to_battles(rows, pair=("c", "a"))] == ["model_a"]
    assert [b.winner for b in outcomes_to_battles(rows, tie_margin=1.0)] == ["tie", "model_b", "tie"]
    mixed = [rows[0], BATTLES[0], BATTLES[1]]
    assert list(outcomes_to_battles(mixed))[-2:] == BATTLES  # type: ignore[arg-type]  # battles stay as they are
    assert list(outcomes_to_battles(mixed, pair=("small", "big"))) == BATTLES  # type: ignore[arg-type]
    assert [b.model_a for b in outcomes_to_battles(mixed, pair=("a", "b"))] == ["a"]  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="tie_margin"):
        outcomes_to_battles(rows, tie_margin=-1)
    with pytest.raises(ConfigurationError, match="pair"):
        outcomes_to_battles(rows, pair=("a", "a"))


def test_labels_of_a_pair_from_battles_and_outcomes() -> None:
    records: list[Battle | Outcome] = [
        Battle(prompt="1", model_a="s", model_b="w", winner="model_a"),
        Battle(prompt="2", model_a="w", model_b="s", winner="model_a"),
        Battle(prompt="3", model_a="w", model_b="s", winner="tie", weight=3, source="x"),
        Battle(prompt="4", model_a="w", model_b="other", winner="tie"),
        Outcome(prompt="5", scores={"s": 1, "w": 0.5}),
        Outcome(prompt="6", scores={"s": 0, "s2": 1, "w": 0.5}),
        Outcome(prompt="7", scores={"s": 1}),
    ]
    assert [(x.prompt, x.label) for x in label_pair(records, strong="s", weak="w")] == [
        ("1", 0),
        ("2", 2),
        ("3", 1),
        ("5", 0),
        ("6", 2),
    ]
    assert [x.label for x in label_pair(records, strong=["s", "s2"], weak={"w"}, tie_margin=0.5)] == [0, 2, 1, 1, 1, 1]
    third = list(label_pair(records, strong="s", weak="w"))[2]
    assert (third.weight, third.source) == (3, "x")
    with pytest.raises(ConfigurationError, match="strong"):
        label_pair(records, strong="s", weak=["w", "s"])


def test_scores_of_a_pair() -> None:
    records: list[Battle | Outcome] = [
        Outcome(prompt="a", scores={"s": 9, "w": 7}),
        Battle(prompt="b", model_a="w", model_b="s", winner="model_b"),
        Battle(prompt="c", model_a="w", model_b="s", winner="tie"),
        Outcome(prompt="d", scores={"s": 9, "z": 7}),
    ]
    got = pair_scores(records, strong="s", weak="w")
    assert got.prompts == ["a", "b", "c"]
    assert got.strong.tolist() == [9, 1, 0.5]
    assert got.weak.tolist() == [7, 0, 0.5]
    with pytest.raises(DataError, match=r"strong='nope'.*models in the data: s, w, z"):
        pair_scores(records, strong="nope", weak="w")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_with_other_separators_is_read(tmp_path, separator):
    file = tmp_path / "a.csv"
    file.write_text(separator.join(["prompt", "scores.a", "scores.b"]) + "\n" + separator.join(["p", "1", "0"]) + "\n")
    assert list(read_outcomes(file)) == [Outcome(prompt="p", scores={"a": 1, "b": 0})]
