"""From records to files: JSON lines, CSV and parquet, written completely or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Literal, cast

from pydantic import BaseModel

from routellm_core.data.files import Row, import_pyarrow, inert_cell
from routellm_core.errors import DataError

Format = Literal["jsonl", "csv", "parquet"]

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_PARQUET_ROWS = 1024


def write_records(path: str | Path, records: Iterable[BaseModel]) -> int:
    """Write records in a format that the readers can read back; the suffix of `path` selects it.

    The file is written completely or not at all: if writing fails or there is nothing to write, an existing file stays
    unchanged. JSON lines omit fields that have their default value (no id, weight 1). CSV and parquet have columns, so
    all records must be of one kind there. In CSV, a text that a spreadsheet would run as a formula is preceded by an
    apostrophe, which the readers remove again.

    Args:
        path: A .jsonl, .ndjson or .csv file (each may end in .gz), or a .parquet file; folders are created as needed.
        records: Battles, outcomes or answers; read once.

    Returns:
        Number of rows.

    Raises:
        DataError: The suffix is unknown, there is no record, or a file with columns would get two kinds of records.
        MissingExtraError: The file is parquet and pyarrow is not installed.
    """
    target = Path(path)
    writer = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}[format_of(target)]
    if writer is _write_parquet:
        import_pyarrow("Writing a parquet file")  # before the records cost anything
    iterator = iter(records)
    first = next(iterator, None)  # before anything on disk is touched
    if first is None:
        kept = "; the existing file is unchanged" if target.exists() else ""
        raise DataError(f"{target}: there is no row to write{kept}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as raw:
            # mtime 0: equal records give equal bytes
            packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if target.suffix.lower() == ".gz" else None
            with packed or raw as file:
                count = writer(cast("IO[bytes]", file), type(first), _of_one_kind(target, first, iterator))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return count


def format_of(path: Path) -> Format:
    """Return the format that the name of an output file selects.

    Raises:
        DataError: The suffix is unknown.
    """
    suffixes = [s.lower() for s in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    if packed:
        suffixes.pop()
    kind = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if kind is None or (kind == "parquet" and packed):
        raise DataError(f"{path}: expected a file named .jsonl, .ndjson or .csv (each also with .gz), or .parquet")
    return kind


def _of_one_kind(target: Path, first: BaseModel, rest: Iterator[BaseModel]) -> Iterator[BaseModel]:
    columns = format_of(target) != "jsonl"
    for number, record in enumerate(chain([first], rest), 1):
        if columns and type(record) is not type(first):
            raise DataError(
                f"{target}: record {number} ({type(record).__name__}) is of another kind than the first "
                f"({type(first).__name__}), and a file with columns holds one kind; write JSON lines (.jsonl)"
            )
        yield record


def _write_jsonl(file: IO[bytes], kind: type[BaseModel], records: Iterable[BaseModel]) -> int:
    count = 0
    for record in records:
        file.write(json.dumps(record.model_dump(exclude_defaults=True), ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


def _flat(record: BaseModel) -> Row:
    row = {k: v for k, v in record.model_dump(exclude_none=True).items() if v != {}}
    return {k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | tuple) else v for k, v in row.items()}


def _write_csv(file: IO[bytes], kind: type[BaseModel], records: Iterable[BaseModel]) -> int:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, list(kind.model_fields))
    writer.writeheader()
    count = 0
    for record in records:
        writer.writerow({k: inert_cell(v) if isinstance(v, str) else v for k, v in _flat(record).items()})
        count += 1
    text.flush()
    text.detach()
    return count


def _write_parquet(file: IO[bytes], kind: type[BaseModel], records: Iterable[BaseModel]) -> int:
    arrow, parquet = import_pyarrow("Writing a parquet file")
    numbers = {"weight": arrow.float64(), "accepted": arrow.float64()}
    schema = arrow.schema([(name, numbers.get(name, arrow.string())) for name in kind.model_fields])
    count = 0
    batch: list[Row] = []
    with parquet.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
            batch.clear()

        for record in records:
            batch.append(_flat(record))
            count += 1
            if len(batch) == _PARQUET_ROWS:
                flush()
        if batch:
            flush()
    return count
