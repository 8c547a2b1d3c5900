"""Reading and writing preference data: JSON lines (plain or gzip), CSV and parquet, one row at a time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from routellm_core.data.records import AnsweredPrompt, Battle, Outcome
from routellm_core.errors import ConfigurationError, DataError, MissingExtraError

Row = dict[str, Any]
Record = TypeVar("Record", bound=BaseModel)
Format = Literal["jsonl", "csv", "parquet"]

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_ARENA_FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")
_PARQUET_ROWS = 1024
_MAX_CELL = 1 << 28


@dataclass
class SkippedRows:
    """Rows that were left out because they are malformed.

    Attributes:
        count: How many.
        first: Messages of the first few, each with file, line and field.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Count a row and keep its message while there are few."""
        self.count += 1
        if len(self.first) < 5:
            self.first.append(message)


def read_outcomes(path: str | Path, *, skip_bad: SkippedRows | None = None) -> Iterator[Outcome]:
    """Read outcomes, one at a time, so that a file may be larger than memory.

    JSON lines: ``{"prompt": "...", "scores": {"model": number, ...}}``. CSV and parquet: columns ``prompt`` and
    ``scores`` (JSON text; in parquet also a map or a struct), or one column ``scores.MODEL`` for each model, empty
    where it has no score. Optional fields: ``id`` (or ``prompt_id``), ``source``, ``weight``. Chats given as ``turns``
    are read as their first turn.

    Args:
        path: A .jsonl, .ndjson, .csv (each may end in .gz) or .parquet file.
        skip_bad: Where to count malformed rows; None raises at the first.

    Raises:
        DataError: No such file, an unreadable one, or a malformed row: the message names file, line and field.
        MissingExtraError: A parquet file, and pyarrow is not installed.
    """
    return _records(Path(path), _outcome, skip_bad)


def read_battles(path: str | Path, *, skip_bad: SkippedRows | None = None) -> Iterator[Battle]:
    """Read battles, one at a time, so that a file may be larger than memory.

    Rows have ``prompt``, ``model_a``, ``model_b`` and ``winner`` (``"model_a"``, ``"model_b"`` or ``"tie"``); or the
    published Arena form: the prompt a JSON list of user turns, of which the first counts, and flags
    ``winner_model_a``, ``winner_model_b`` and ``winner_tie``, one of which is 1. Optional fields, arguments and errors
    as for `read_outcomes`.
    """
    return _records(Path(path), _battle, skip_bad)


def read_preferences(path: str | Path, *, skip_bad: SkippedRows | None = None) -> Iterator[Battle | Outcome]:
    """Read battles or outcomes, whichever each row is; arguments and errors as for `read_outcomes`."""
    return _records(Path(path), _either, skip_bad)


def read_answers(path: str | Path, *, skip_bad: SkippedRows | None = None) -> Iterator[AnsweredPrompt]:
    """Read prompts with answers, which wait for a label.

    Rows have ``prompt``, ``answers`` (``{"model": "text", ...}``, or columns ``answers.MODEL``; may be absent where
    they are to be generated) and, for gold labels, ``gold``. Arguments and errors as for `read_outcomes`.
    """
    return _records(Path(path), _answered, skip_bad)


def write_records(path: str | Path, records: Iterable[BaseModel]) -> int:
    """Write records in the form that the readers take back, by the suffix of `path`.

    The file appears whole or not at all. Fields at their default (no id, weight 1) are left out of JSON lines.

    Returns:
        Number of rows.

    Raises:
        DataError: An unknown suffix.
        MissingExtraError: A parquet file, and pyarrow is not installed.
    """
    target = Path(path)
    writer = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}[format_of(target)]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        count = writer(part, records, target.suffix == ".gz")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return count


def format_of(path: Path) -> Format:
    """The format that the file's name says.

    Raises:
        DataError: An unknown suffix.
    """
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    kind = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if kind is None or (kind == "parquet" and path.suffix == ".gz"):
        raise DataError(f"{path}: expected a file named .jsonl, .ndjson or .csv (each also with .gz), or .parquet")
    return kind


def _records(path: Path, parse: Callable[[Row], Record], skipped: SkippedRows | None) -> Iterator[Record]:
    kind = format_of(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    rows = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}[kind](path)
    # checked when called, not when first advanced
    return _parsed(path, rows, parse, skipped)


def _parsed(
    path: Path, rows: Iterator[tuple[str, Row | str]], parse: Callable[[Row], Record], skipped: SkippedRows | None
) -> Iterator[Record]:
    try:
        for place, row in rows:
            try:
                # a str is what the reader found wrong with the row
                problem = row if isinstance(row, str) else None
                record = None if isinstance(row, str) else parse(row)
            except ValidationError as exc:
                problem, record = _first_problem(exc), None
            except _BadRowError as exc:
                problem, record = str(exc), None
            if record is not None:
                yield record
                continue
            message = f"{path}: {place}: {problem}"
            if skipped is None:
                raise DataError(f"{message} (--skip-bad, or skip_bad=, leaves such rows out and counts them)")
            skipped.add(message)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as exc:
        # gzip reports a cut-off file as EOFError, a damaged one as one of the others
        raise DataError(f"{path}: cannot be read: {type(exc).__name__}: {exc}") from exc


class _BadRowError(ValueError):
    """What is wrong with a row, in words."""


def _first_problem(exc: ValidationError) -> str:
    error = exc.errors(include_url=False)[0]
    place = ".".join(str(part) for part in error["loc"]) or "row"
    if error["type"] == "missing":
        return f"field {place!r}: missing"
    text = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    # prompts and answers are private: their text never enters a message
    shown = type(value).__name__ if place.split(".")[0] in ("prompt", "answers", "turns") else f"{value!r:.60}"
    return f"field {place!r}: {text} (got {shown})"


def _outcome(row: Row) -> Outcome:
    return Outcome.model_validate(_common(row, "scores"))


def _battle(row: Row) -> Battle:
    return Battle.model_validate(_arena(row) if any(flag in row for flag in _ARENA_FLAGS) else _common(row))


def _either(row: Row) -> Battle | Outcome:
    if "winner" in row or any(flag in row for flag in _ARENA_FLAGS):
        return _battle(row)
    if "scores" in row or any(key.startswith("scores.") for key in row):
        return _outcome(row)
    raise _BadRowError("neither an outcome (field 'scores') nor a battle (fields 'model_a', 'model_b', 'winner')")


def _answered(row: Row) -> AnsweredPrompt:
    return AnsweredPrompt.model_validate(_common(row, "answers"))


def _common(row: Row, mapping: str | None = None) -> Row:
    """Rename what other tools call otherwise, and gather the columns of a mapping."""
    out = {key: value for key, value in row.items() if value is not None}
    if "id" not in out and "prompt_id" in out:
        out["id"] = out["prompt_id"]
    if "prompt" not in out and isinstance(out.get("turns"), list) and out["turns"]:
        out["prompt"] = out["turns"][0]
    if mapping is not None:
        value = out.get(mapping)
        if isinstance(value, str):
            try:
                out[mapping] = json.loads(value)
            except ValueError as exc:
                raise _BadRowError(f"field {mapping!r}: not a JSON object: {exc}") from None
        elif isinstance(value, list):
            try:
                out[mapping] = dict(value)  # a parquet map arrives as pairs
            except (TypeError, ValueError):
                raise _BadRowError(f"field {mapping!r}: expected an object (got a list)") from None
        elif value is None:
            columns = {k.removeprefix(f"{mapping}."): v for k, v in out.items() if k.startswith(f"{mapping}.")}
            if columns:
                out[mapping] = {k: v for k, v in columns.items() if v != ""}
    return out


def _arena(row: Row) -> Row:
    out = _common(row)
    prompt = out.get("prompt")
    if isinstance(prompt, str):
        try:
            prompt = json.loads(prompt)
        except ValueError:
            raise _BadRowError("field 'prompt': expected a JSON list of user turns, as in the Arena files") from None
    if not isinstance(prompt, list) or not prompt:
        raise _BadRowError("field 'prompt': expected a JSON list of at least one user turn")
    out["prompt"] = prompt[0]
    flags = {}
    for name in _ARENA_FLAGS:
        value = out.get(name, 0)
        if value not in (0, 1, "0", "1", "", "0.0", "1.0"):  # True and 1.0 equal 1
            raise _BadRowError(f"field {name!r}: expected 0 or 1 (got {value!r:.60})")
        flags[name] = value in (1, "1", "1.0")
    won = [name for name, flag in flags.items() if flag]
    if len(won) != 1:
        raise _BadRowError(f"fields {', '.join(_ARENA_FLAGS)}: expected exactly one of them to be 1 (got {len(won)})")
    out["winner"] = won[0].removeprefix("winner_")
    return out


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        # by content: files renamed on download are common
        if raw.read(2) == b"\x1f\x8b":
            raw.seek(0)
            with gzip.open(raw, "rb") as unpacked:
                yield unpacked  # type: ignore[misc]  # GzipFile reads bytes like any file
        else:
            raw.seek(0)
            yield raw


def _read_jsonl(path: Path) -> Iterator[tuple[str, Row | str]]:
    with _opened(path) as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            place = f"line {number}"
            try:
                row = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                yield place, "not UTF-8 text"
            except ValueError as exc:
                # the message of a JSON error holds a position, no text
                yield place, f"not JSON: {exc}"
            except RecursionError:
                yield place, "not JSON: nested too deeply"
            else:
                yield place, row if isinstance(row, dict) else f"expected a JSON object (got {type(row).__name__})"


def _read_csv(path: Path) -> Iterator[tuple[str, Row | str]]:
    # the csv module's limit of 128 KiB a cell is a setting of the process; long chats need more
    if csv.field_size_limit() < _MAX_CELL:
        csv.field_size_limit(_MAX_CELL)
    with _opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        header = next(reader, None)
        if not header:
            raise DataError(f"{path}: line 1: no header; the first line names the columns")
        if len(header) == 1 and (found := next((c for c in ";\t" if c in header[0]), None)):
            raise DataError(f"{path}: line 1: the columns are separated by {found!r}; separate them by commas")
        while True:
            first = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if not cells:
                continue
            if len(cells) != len(header):
                yield f"line {first}", f"{len(cells)} cells for {len(header)} columns"
                continue
            row = dict(zip(header, cells, strict=True))
            yield f"line {first}", {k: v for k, v in row.items() if v != "" or k == "prompt"}


def _read_parquet(path: Path) -> Iterator[tuple[str, Row | str]]:
    parquet = _pyarrow("Reading a parquet file")[1]
    number = 0
    try:
        file = parquet.ParquetFile(path)
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except OSError as exc:  # pyarrow's ArrowInvalid is a ValueError, its I/O errors are OSErrors
        raise DataError(f"{path}: cannot be read: {exc}") from exc
    except ValueError as exc:
        if isinstance(exc, DataError | ValidationError):
            raise
        raise DataError(f"{path}: not a readable parquet file: {exc}") from exc


def _pyarrow(what: str) -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError(what, "parquet") from None
    return pyarrow, pyarrow.parquet


def _write_jsonl(part: Path, records: Iterable[BaseModel], packed: bool) -> int:
    count = 0
    # mtime 0: equal records give equal bytes
    with part.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) if packed else raw as file:
        for record in records:
            file.write(json.dumps(record.model_dump(exclude_defaults=True), ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def _flat(record: BaseModel) -> Row:
    row = record.model_dump(exclude_none=True)
    return {k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | tuple) else v for k, v in row.items()}


def _write_csv(part: Path, records: Iterable[BaseModel], packed: bool) -> int:
    count = 0
    with part.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) if packed else raw as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        iterator = iter(records)
        first = next(iterator, None)
        if first is not None:
            writer = csv.DictWriter(text, list(type(first).model_fields))
            writer.writeheader()
            for record in chain([first], iterator):
                writer.writerow(_flat(record))
                count += 1
        text.flush()
        text.detach()
    return count


def _write_parquet(part: Path, records: Iterable[BaseModel], packed: bool) -> int:
    arrow, parquet = _pyarrow("Writing a parquet file")
    count, writer = 0, None
    batch: list[Row] = []

    def flush() -> None:
        nonlocal writer
        table = arrow.Table.from_pylist(batch, schema=schema)
        if writer is None:
            writer = parquet.ParquetWriter(part, schema)
        writer.write_table(table)
        batch.clear()

    schema: Any = None
    try:
        for record in records:
            if schema is None:
                kinds = {"weight": arrow.float64()}
                schema = arrow.schema([(n, kinds.get(n, arrow.string())) for n in type(record).model_fields])
            batch.append(_flat(record))
            count += 1
            if len(batch) == _PARQUET_ROWS:
                flush()
        if schema is None:
            raise ConfigurationError("no record to write: a parquet file needs one to know its columns")
        if batch:
            flush()
    finally:
        if writer is not None:
            writer.close()
    return count
