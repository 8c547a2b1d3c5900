"""One reader: the same rows from every container, whatever the file is called, and words for hostile files."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from routellm_core import ConfigurationError, DataError, RouteLLMError
from routellm_core.data import (
    Outcome,
    SkippedRows,
    outcomes_to_battles,
    read_answers,
    read_battles,
    read_outcomes,
    read_preferences,
    read_prompts,
    read_rows,
    write_records,
)
from routellm_core.evaluation import load_outcomes

Rows = list[dict[str, Any]]
TEXTS = [
    "What is 2 + 2?",
    'a, b; c\td "quoted"',
    "two\nlines",
    "üñï 漢字 \N{GRINNING FACE}",
    "[1] is a footnote",
    "{x}",
]
OUTCOMES: Rows = [
    {"prompt": text, "scores": {"big": 1.0, "small": i / 8}, "id": f"r{i}", "source": "mine"}
    for i, text in enumerate(TEXTS)
]
BATTLES: Rows = [
    {"prompt": text, "model_a": "big", "model_b": "small", "winner": winner}
    for text, winner in zip(TEXTS, ("model_a", "model_b", "tie") * 2, strict=True)
]
ANSWERS: Rows = [{"prompt": text, "answers": {"big": "It is B.", "small": "No,\nA"}, "gold": "B"} for text in TEXTS]
ARENA: Rows = [
    {
        "id": i,
        "model_a": "big",
        "model_b": "small",
        "prompt": json.dumps([text, "a second turn"]),
        "winner_model_a": int(i % 2 == 0),
        "winner_model_b": int(i % 2 == 1),
        "winner_tie": 0,
    }
    for i, text in enumerate(TEXTS)
]


def table(rows: Rows, separator: str, end: str = "\r\n", quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    flat = [
        {
            name: value
            for key, cell in row.items()
            for name, value in (
                {f"{key}.{k}": v for k, v in cell.items()}.items() if isinstance(cell, dict) else [(key, cell)]
            )
        }
        for row in rows
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(flat[0]), delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


CONTAINERS: dict[str, tuple[str, Callable[[Rows], bytes]]] = {
    "JSON lines": (".jsonl", jsonl),
    "JSON lines with blank ones": (".jsonl", lambda rows: b"\n" + jsonl(rows).replace(b"\n", b"\r\n\r\n")),
    "array": (".json", lambda rows: json.dumps(rows).encode()),
    "indented array": (".json", lambda rows: json.dumps(rows, indent=2, ensure_ascii=False).encode()),
    "objects one after another": (".json", lambda rows: "\n".join(json.dumps(r, indent=1) for r in rows).encode()),
    "bundle": (".json", lambda rows: json.dumps({"meta": {"page": 1}, "rows": rows}, indent=1).encode()),
    "bundle on a line": (".json", lambda rows: json.dumps({"total": 6, "data": rows}).encode()),
    "CSV with commas": (".csv", lambda rows: table(rows, ",")),
    "CSV with semicolons": (".csv", lambda rows: table(rows, ";", "\n")),
    "CSV with tabs": (".csv", lambda rows: table(rows, "\t")),
    "CSV of an old Mac": (".csv", lambda rows: table(rows, ",", "\r", csv.QUOTE_ALL)),
    "TSV": (".tsv", lambda rows: table(rows, "\t")),
    "parquet": (".parquet", parquet),
}
NAMES = ["right", "data", "data.gz", "data.bin", "data.csv", "data.tsv", "data.jsonl", "data.json", "data.parquet"]


def benchmark_rows(path: Path) -> list[Any]:
    found = load_outcomes(path, strong="big", weak="small")
    return [found.prompts, found.strong_scores.tolist(), found.weak_scores.tolist()]


READERS: dict[str, tuple[Rows, Callable[[Path], list[Any]]]] = {
    "read_outcomes": (OUTCOMES, lambda path: list(read_outcomes(path))),
    "read_battles": (BATTLES, lambda path: list(read_battles(path))),
    "read_battles of the Arena": (ARENA, lambda path: list(read_battles(path))),
    "read_preferences": (OUTCOMES, lambda path: list(read_preferences(path))),
    "read_preferences of battles": (BATTLES, lambda path: list(read_preferences(path))),
    "read_answers": (ANSWERS, lambda path: list(read_answers(path))),
    "read_prompts": (OUTCOMES, lambda path: list(read_prompts(path))),
    "read_prompts of answers": (ANSWERS, lambda path: list(read_prompts(path))),
    "read_prompts of the Arena": (ARENA, lambda path: list(read_prompts(path))),
    "read_prompts of a field": (BATTLES, lambda path: list(read_prompts(path, field="model_a"))),
    "load_outcomes": (OUTCOMES, benchmark_rows),
    "load_outcomes of battles": (BATTLES, benchmark_rows),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_reader_takes_every_container_by_its_content(tmp_path: Path, reader: str, container: str) -> None:
    rows, read = READERS[reader]
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(jsonl(rows))
    wanted = read(plain)
    assert len(wanted) == len(rows) or reader.startswith("load_outcomes")
    if reader == "read_prompts of a field" and container.startswith("bundle"):
        pytest.skip("a field is one of the whole record")
    suffix, encode = CONTAINERS[container]
    data = encode(rows)
    variants = [data] if suffix == ".parquet" else [data, codecs.BOM_UTF8 + data]
    for variant in [*variants, *map(gzip.compress, variants)]:
        for name in NAMES:
            path = tmp_path / (f"data{suffix}" if name == "right" else name)
            path.write_bytes(variant)
            assert read(path) == wanted, (name, variant[:2] == b"\x1f\x8b")
            path.unlink()


@pytest.mark.parametrize("container", [name for name in CONTAINERS if not name.startswith("bundle")])
def test_rows_come_with_their_places(tmp_path: Path, container: str) -> None:
    suffix, encode = CONTAINERS[container]
    path = tmp_path / f"data{suffix}"
    path.write_bytes(encode(BATTLES))
    found = list(read_rows(path))
    assert [row for _, row in found] == BATTLES
    unit = {".json": "item", ".parquet": "row"}.get(suffix, "line")
    places = [where for where, _ in found]
    assert all(where.startswith(f"{unit} ") for where in places)
    if container == "CSV with commas":  # the header is line 1, and the third row has two lines
        assert places == ["line 2", "line 3", "line 4", "line 6", "line 7", "line 8"]
    elif unit != "line":
        assert places == [f"{unit} {i}" for i in range(1, 7)]


def test_what_is_no_row_and_no_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, 2, {"a": 3}]')
    with pytest.raises(DataError, match="item 2: expected a JSON object, got a number"):
        list(read_rows(path))
    skipped = SkippedRows()
    assert [row for _, row in read_rows(path, skip_bad=skipped)] == [{"a": 1}, {"a": 3}]
    assert skipped.count == 1
    for unknown in ("xml", "text"):
        with pytest.raises(ConfigurationError, match=f"format='{unknown}'"):
            read_rows(path, format=unknown)  # type: ignore[arg-type]


# Malformed rows


def lines_of(bad: str) -> bytes:
    return f'{{"prompt": "one", "scores": {{"m": 1}}}}\n{bad}\n{{"prompt": "two", "scores": {{"m": 0}}}}\n'.encode()


def items_of(bad: str) -> bytes:
    return f'[{{"prompt": "one", "scores": {{"m": 1}}}},\n {bad},\n {{"prompt": "two", "scores": {{"m": 0}}}}]'.encode()


BAD_JSON = {
    "a missing value": '{"prompt": "x", "scores": }',
    "a comma at the end": '{"prompt": "x", "scores": {"m": 1,}}',
    "single quotes": "{'prompt': 'x', 'scores': {'m': 1}}",
    "Python's names": '{"prompt": "x", "scores": {"m": None}}',
    "a stray escape": '{"prompt": "\\x", "scores": {"m": 1}}',
    "deep nesting": '{"prompt": "x", "scores": ' + '{"a": ' * 20_000 + "1" + "}" * 20_001,
    "a huge number": '{"prompt": "x", "scores": {"m": ' + "9" * 5000 + "}}",
    "a large number": '{"prompt": "x", "scores": {"m": ' + "9" * 400 + "}}",
    "a number alone": "17",
    "a word": "oops",
    "a list": "[1, 2]",
    "a blank prompt": '{"prompt": " ", "scores": {"m": 1}}',
    "no prompt": '{"scores": {"m": 1}}',
    "an infinite score": '{"prompt": "x", "scores": {"m": Infinity}}',
    "a score of words": '{"prompt": "x", "scores": {"m": "the private answer that was given to the question"}}',
}


@pytest.mark.parametrize("bad", BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize(("name", "encode", "place"), [("a.jsonl", lines_of, "line 2"), ("a.json", items_of, "item 2")])
def test_a_malformed_row_is_named_and_can_be_left_out(
    tmp_path: Path, bad: str, name: str, encode: Callable[[str], bytes], place: str
) -> None:
    for packed in (False, True):
        path = tmp_path / name
        path.write_bytes(gzip.compress(encode(bad)) if packed else encode(bad))
        for read in (read_outcomes, read_preferences):
            with pytest.raises(DataError) as caught:
                list(read(path))
            assert str(caught.value).startswith(f"{path}, {place}: ")
            assert "skip_bad=" in str(caught.value)
            assert "private" not in str(caught.value)
            assert len(str(caught.value)) < 500
            skipped = SkippedRows()
            assert [row.prompt for row in read(path, skip_bad=skipped)] == ["one", "two"]
            assert skipped.count == 1
            assert skipped.first[0].startswith(f"{path}, {place}: ")
        skipped = SkippedRows()
        found = load_rows(path, skipped)
        assert found[0] == "one"
        assert found[-1] == "two"


def load_rows(path: Path, skipped: SkippedRows) -> list[str]:
    return list(read_prompts(path, skip_bad=skipped))


BAD_CELLS = {
    "too many cells": ("x,1,surplus", "3 cells, but the header names 2 columns"),
    "text after a quote": ('"x"y,1', "not CSV"),
    "a word for a number": ("x,good", "field 'scores.m': expected a number, got 'good'"),
    "a decimal comma": ('x,"0,5"', "expected a number, got '0,5'; write decimals with a point"),
    "a huge number": ("x," + "9" * 5000, "field 'scores.m': expected a"),
    "no prompt": (",1", "field 'prompt'"),
    "no score": ("x,", "field 'scores': missing"),
    "a row cut short": ("x", "field 'scores': missing"),
}


@pytest.mark.parametrize(("bad", "words"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_a_malformed_row_of_a_table_is_named_and_can_be_left_out(tmp_path: Path, bad: str, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"prompt,scores.m\none,1\n{bad}\ntwo,0\n")
    with pytest.raises(DataError) as caught:
        list(read_outcomes(path))
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    skipped = SkippedRows()
    assert [row.prompt for row in read_outcomes(path, skip_bad=skipped)] == ["one", "two"]
    assert skipped.count == 1
    assert load_outcomes_of(path) == ["one", "two"]


def load_outcomes_of(path: Path) -> list[str]:
    """Prompts that `load_outcomes` takes of a file of one model, told by its error."""
    skipped = SkippedRows()
    with pytest.raises(DataError, match="models with a score in every row: m; at least 2"):
        load_outcomes(path, skip_bad=skipped)
    return [row.prompt for row in read_outcomes(path, skip_bad=SkippedRows())] if skipped.count == 1 else []


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("a.jsonl", b'{"prompt": "one"}\n{"prompt": "caf\xe9"}\n{"prompt": "two"}\n', "line 2"),
        ("a.json", b'[{"prompt": "one"}, {"prompt": "caf\xe9"}, {"prompt": "two"}]', "item 2"),
        ("a.csv", b"prompt,n\none,1\ncaf\xe9,2\ntwo,3\n", "line 3"),
        ("a.txt", b"one\ncaf\xe9\ntwo\n", "line 2"),
    ],
)
def test_a_byte_that_is_not_utf_8_spoils_one_row(tmp_path: Path, name: str, data: bytes, place: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{place}: not UTF-8 text"):
        list(read_prompts(path))
    skipped = SkippedRows()
    assert list(read_prompts(path, skip_bad=skipped)) == ["one", "two"]
    assert skipped.count == 1
    if not name.endswith("txt"):
        assert [row.prompt for row in read_answers(path, skip_bad=skipped)] == ["one", "two"]


def test_a_row_that_a_cut_off_file_ends_in_can_be_left_out(tmp_path: Path) -> None:
    for name, data in (("a.jsonl", b'{"prompt": "one"}\n{"prom'), ("a.json", b'[{"prompt": "one"}, {"prom')):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError, match="2: not JSON"):
            list(read_answers(path))
        skipped = SkippedRows()
        assert [row.prompt for row in read_answers(path, skip_bad=skipped)] == ["one"]
        assert skipped.count == 1


def test_nesting_in_cells_and_in_traffic_is_refused_in_words(tmp_path: Path) -> None:
    deep = "[" * 50_000
    table_file, lines_file = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table_file.write_text(f"id,messages\n1,{deep}\n2,hello\n")
    with pytest.raises(DataError, match="line 2: nested too deeply"):
        list(read_prompts(table_file))
    skipped = SkippedRows()
    assert list(read_prompts(table_file, skip_bad=skipped)) == ["hello"]
    arena = {**ARENA[0], "prompt": deep}
    lines_file.write_bytes(jsonl([arena, ARENA[1]]))
    with pytest.raises(DataError, match="line 1: field 'prompt': expected a JSON list"):
        list(read_battles(lines_file))
    lines_file.write_bytes(jsonl([{"prompt": "x", "scores": deep}, OUTCOMES[0]]))
    with pytest.raises(DataError, match="line 1: field 'scores': expected JSON text"):
        list(read_outcomes(lines_file))
    # just deep enough to be read, and too deep to be walked
    for depth in (200, 400, 600, 800, 900, 950):
        spans = '{"spans": [' * depth + '{"prompt": "x"}' + "]}" * depth
        lines_file.write_text(spans + '\n{"prompt": "next"}\n')
        skipped = SkippedRows()
        assert list(read_prompts(lines_file, skip_bad=skipped))[-1] == "next"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rows", [2, 9000])  # within the head that decides on the format, and far beyond it
def test_a_file_in_utf_16_or_32_is_read_if_it_begins_with_a_byte_order_mark(
    tmp_path: Path, mark: bytes, encoding: str, packed: bool, rows: int
) -> None:
    prompts = [f"Où est le café {number}? \U0001f600" for number in range(rows)]
    texts = {
        "a.jsonl": "".join(f"{json.dumps({'prompt': p}, ensure_ascii=False)}\r\n" for p in prompts),
        "a.json": json.dumps([{"prompt": p} for p in prompts], ensure_ascii=False, indent=1),
        "a.csv": "id,prompt\r\n" + "".join(f"{number},{p}\r\n" for number, p in enumerate(prompts)),
        "a.txt": "\n".join(prompts),
    }
    for name, text in texts.items():
        content = mark + text.encode(encoding)
        (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
        assert list(read_prompts(tmp_path / name)) == prompts, name


# Hostile files


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("prompt,scores.m\nx,1\n".encode("utf-16-le"), "UTF-16"),
        ("prompt,scores.m\nx,1\n".encode("utf-16-be"), "UTF-16"),
        ('{"prompt": "x"}\n'.encode("utf-32-le"), "UTF-16 or UTF-32 text without a byte order mark; save it as UTF-8"),
        (
            codecs.BOM_UTF16_LE + '{"prompt": "x"}\n'.encode("utf-16-le")[:-1],
            "not the UTF-16-LE text that its byte order mark says; save it as UTF-8",
        ),
        (b"PK\x03\x04\x14\x00\x06\x00", "Excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel"),
        (b"\x28\xb5\x2f\xfd\x04\x58", "zstd"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"%PDF-1.7\n", "PDF"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"BZh91AY&SY\x00\x00", "binary"),
        (gzip.compress(gzip.compress(b'{"prompt": "x"}', mtime=0), mtime=0), "compressed with gzip twice"),
        (b'{"prompt": "x\x00y"}\n', "binary"),
    ],
)
def test_files_of_other_kinds_are_refused_with_what_they_are(tmp_path: Path, data: bytes, words: str) -> None:
    for name in ("a.jsonl", "a.csv", "a", "a.txt", "a.parquet"):
        for content in {data, gzip.compress(data)} if "inside" not in words else {data}:
            path = tmp_path / name
            path.write_bytes(content)
            for read in readers():
                with pytest.raises(DataError, match=words) as caught:
                    read(path, SkippedRows())
                assert str(path) in str(caught.value)


def readers() -> list[Callable[[Path, SkippedRows | None], list[Any]]]:
    return [
        lambda path, skip: list(read_rows(path, skip_bad=skip)),
        lambda path, skip: list(read_outcomes(path, skip_bad=skip)),
        lambda path, skip: list(read_battles(path, skip_bad=skip)),
        lambda path, skip: list(read_preferences(path, skip_bad=skip)),
        lambda path, skip: list(read_answers(path, skip_bad=skip)),
        lambda path, skip: list(read_prompts(path, skip_bad=skip)),
        lambda path, skip: [load_outcomes(path, skip_bad=skip)],
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(separator.join(["prompt", "scores.m", " scores.m"]) + "\n" + separator.join("x10") + "\n")
    for read in readers():
        with pytest.raises(DataError, match=r"a\.csv, line 1: two columns are named 'scores\.m'"):
            read(path, SkippedRows())


def test_two_columns_that_differ_in_capitals_alone_are_refused_where_neither_is_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("PROMPT,Prompt,scores.m\nx,y,1\n")
    with pytest.raises(DataError, match="two columns are named 'prompt' except for case"):
        list(read_outcomes(path))
    path.write_text("prompt,Prompt,scores.m\nx,y,1\n")
    assert [row.prompt for row in read_outcomes(path)] == list(read_prompts(path)) == ["x"]


def test_an_open_quote_is_named_where_it_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,scores.m\none,1\n"never closed,0\ntwo,1\nthree,1\n')
    with pytest.raises(DataError, match=r"line 3: not CSV .*check for a quote that is not closed"):
        list(read_outcomes(path))
    skipped = SkippedRows()
    assert [row.prompt for row in read_outcomes(path, skip_bad=skipped)] == ["one"]
    assert skipped.count == 1


def repeated(content: bytes, times: int, head: bytes = b"") -> bytes:
    """A gzip file of a head and a content many times over, without packing it many times."""
    return gzip.compress(head) + gzip.compress(content) * times


LONG = {
    "a.jsonl.gz": b'{"prompt": "',
    "a.json.gz": b'[{"prompt": "ok"}, {"prompt": "',
    "a.csv.gz": b'prompt,id\nok,1\n"',
    "lines.csv.gz": b"prompt,id\nok,",
    "a.txt.gz": b"",
}


@pytest.mark.parametrize("name", LONG)
def test_a_line_of_400_megabytes_in_a_small_file_does_not_fill_the_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(repeated(b"x" * (1 << 20), 400, LONG[name]))
    assert path.stat().st_size < 2e6
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"(line|item) [0-9]: .*33,554,432"):
            list(read_prompts(path))
        if not name.startswith("a.txt"):
            with pytest.raises(DataError, match=r"(line|item) [0-9]: .*33,554,432"):
                list(read_answers(path))
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.gz"])
def test_a_line_that_is_too_long_can_be_left_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rest = {"a.jsonl.gz": b'\n{"prompt": "next"}\n', "a.txt.gz": b"\nnext\n"}[name]
    path.write_bytes(repeated(b"x" * (1 << 20), 70, LONG[name]) + gzip.compress(rest))
    skipped = SkippedRows()
    assert list(read_prompts(path, skip_bad=skipped)) == ["next"]
    assert skipped.count == 1


def test_a_gzip_file_that_unpacks_to_far_more_than_parquet_can_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routellm_core.data.files._MAX_GROWTH", 2)
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(repeated(bytes(1 << 20), 8, b"PAR1"))
    with pytest.raises(DataError, match=r"unpacks to more than 2 times its size"):
        list(read_rows(path))


def test_a_cell_of_a_parquet_file_has_the_limit_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routellm_core.data.files.MAX_RECORD_CHARS", 1000)
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet([{"prompt": "ok"}, {"prompt": "x" * 2000}, {"prompt": "two"}]))
    with pytest.raises(DataError, match="row 2: holds a text longer than 1,000 characters"):
        list(read_answers(path))
    assert [row.prompt for row in read_answers(path, skip_bad=SkippedRows())] == ["ok", "two"]


def test_parquet_columns_that_nobody_asks_for_do_no_harm(tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    moment = pa.array([1_700_000_000_123_456_789, 1_700_000_000_000_000_000], pa.timestamp("ns", "UTC"))
    day = pa.array([datetime.date(2024, 1, 2)] * 2)
    columns = {"prompt": pa.array(["one", "two"]), "tstamp": moment, "day": day, "raw": pa.array([b"\xff", b""])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert [row.prompt for row in read_answers(tmp_path / "a.parquet")] == ["one", "two"]
    assert list(read_prompts(tmp_path / "a.parquet")) == ["one", "two"]


def test_a_text_of_a_parquet_file_that_is_not_utf_8_spoils_one_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.array([b"one", b"caf\xe9", b"two"]).cast(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"prompt": broken}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 2: "):
        list(read_answers(tmp_path / "a.parquet"))
    skipped = SkippedRows()
    assert [row.prompt for row in read_answers(tmp_path / "a.parquet", skip_bad=skipped)] == ["one", "two"]
    assert skipped.count == 1


PIECES = [b'"', b"\0", b"\xff", b"[", b"{", b"]", b"}", b",", b";", b"\n", b"\r", b"[[" * 9000, b"9" * 5000, b"NaN"]
PIECES += [b"-", b"\\ud800", b"\\u12", b"null", b"\xed\xa0\x80", b'"prompt":', b'"scores":', b"[]", b"\xef\xbb\xbf"]


def damaged(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        start = rng.randrange(len(out) + 1)
        end = min(len(out), start + rng.choice([0, 1, 5, 40]))
        out[start:end] = rng.choice([*PIECES, b"", b"", bytes([rng.randrange(256)])])
        if rng.random() < 0.1:
            del out[start:]
    return bytes(out)


@pytest.mark.parametrize("container", CONTAINERS)
def test_damaged_files_are_read_or_refused_and_never_crash(tmp_path: Path, container: str) -> None:
    rng = random.Random(container)
    suffix, encode = CONTAINERS[container]
    for rows in (OUTCOMES, ARENA, ANSWERS, BATTLES):
        whole = encode(rows)
        for packed in (False, False, True):
            data = damaged(whole, rng)
            data = damaged(gzip.compress(data), rng) if packed else data
            path = tmp_path / rng.choice([f"data{suffix}", "data", "data.csv"])
            path.write_bytes(data)
            for read in readers():
                for skip in (None, SkippedRows()):
                    message = message_of(read, path, skip)
                    assert message is None or (str(path) in message and len(message) < 1000)


def message_of(read: Callable[[Path, SkippedRows | None], Any], path: Path, skip: SkippedRows | None) -> str | None:
    try:
        read(path, skip)
    except RouteLLMError as exc:
        return str(exc)
    return None


# Streams


def test_a_million_rows_are_not_held(tmp_path: Path) -> None:
    def peak(read: Callable[[Path], Iterator[Any]], path: Path) -> float:
        tracemalloc.start()
        assert sum(1 for _ in read(path)) == 3_000
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    rows = [{"prompt": "x" * 10_000, "scores": {"big": 1, "small": 0}}] * 3_000
    for suffix, encode in (CONTAINERS[name] for name in ("JSON lines", "array", "CSV with commas", "parquet")):
        path = tmp_path / f"many{suffix}.gz"
        path.write_bytes(gzip.compress(encode(rows), 1))
        assert peak(read_preferences, path) < 10e6
        assert peak(lambda p: iter(read_prompts(p)), path) < 10e6


def test_an_empty_file_of_records_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", b""), ("a.json", b"[]"), ("a.csv", b"prompt,scores.m\n"), ("b.csv", b"\n\n")):
        (tmp_path / name).write_bytes(content)
        for read in (read_outcomes, read_battles, read_preferences, read_answers):
            with pytest.raises(DataError, match=f"{name}: is empty; expected"):
                list(read(tmp_path / name))
        assert list(read_prompts(tmp_path / name)) == []


def test_spreadsheets_head_columns_with_capitals_and_leave_empty_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "Prompt ; Scores.Big;scores.small;;Source\nhi;1;0;;s\n;;;;\nbye;0;1;;\n;;;;\n", encoding="utf-8-sig"
    )
    found = list(read_outcomes(path))
    assert [(row.prompt, row.scores, row.source) for row in found] == [
        ("hi", {"Big": 1, "small": 0}, "s"),
        ("bye", {"Big": 0, "small": 1}, None),
    ]
    assert list(read_prompts(path)) == ["hi", "bye"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Summarize this, text, please\nAnd this one\n", ["Summarize this, text, please", "And this one"]),
        ("Rewrite the prompt; text\nwords, and more, words\n", ["Rewrite the prompt; text", "words, and more, words"]),
        ("Prompt:\nhello\n", ["Prompt:", "hello"]),
    ],
)
def test_prose_is_not_taken_for_a_table(tmp_path: Path, content: str, expected: list[str]) -> None:
    for name in ("prompts", "prompts.txt", "prompts.log"):
        (tmp_path / name).write_text(content)
        assert list(read_prompts(tmp_path / name)) == expected


def test_costs_and_tokens_of_a_row_are_read_and_come_back_from_every_format(tmp_path):
    rows = [
        {
            "prompt": "Solve it",
            "scores": {"big": 1.0, "small": 0.0},
            "costs": {"big": 0.02, "small": None},
            "tokens": {"big": {"input": 12, "output": 40}, "small": {"output": 7}},
        },
        {"prompt": "Explain it", "scores": {"big": 1.0, "small": 1.0}},
    ]
    source = tmp_path / "outcomes.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    records = list(read_outcomes(source))
    assert records[0].costs == {"big": 0.02}
    assert records[0].tokens["big"].output == 40
    assert records[0].tokens["small"].input is None
    assert records[1].costs == {}
    assert records[1].tokens == {}
    for name in ("back.jsonl", "back.csv", "back.csv.gz", "back.parquet"):
        write_records(tmp_path / name, records)
        assert list(read_outcomes(tmp_path / name)) == records


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("costs", {"big": -1}),
        ("costs", {"big": "much"}),
        ("costs", [1, 2]),
        ("costs", {"big": 10**400}),
        ("tokens", {"big": 12}),
        ("tokens", {"big": {"input": -1}}),
    ],
)
def test_a_cost_that_is_no_number_is_an_error_of_its_row(tmp_path, field, value):
    path = tmp_path / "outcomes.jsonl"
    path.write_text(json.dumps({"prompt": "x", "scores": {"big": 1}, field: value}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"outcomes\.jsonl, line 1: field '{field}"):
        list(read_outcomes(path))


def test_battles_of_an_outcome_keep_the_costs_of_their_models():
    outcome = Outcome(prompt="x", scores={"a": 1, "b": 0, "c": 0}, costs={"a": 1.0, "c": 2.0})
    assert [battle.costs for battle in outcomes_to_battles([outcome])] == [{"a": 1.0}, {"a": 1.0, "c": 2.0}, {"c": 2.0}]
