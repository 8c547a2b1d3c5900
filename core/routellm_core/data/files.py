"""Files to rows: one reader for JSON lines, JSON, CSV, TSV, parquet and plain text, each plain or gzip.

The format is recognised by the content; the name decides only if the content leaves a choice. Rows are read one at a
time, so memory is bounded by the longest row rather than by the file. Every reader of records and prompts is built on
this one, so all of them accept the same files and report malformed ones in the same words:
``FILE, PLACE: what is wrong; what to do``.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import tempfile
import zlib
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, cast, get_args

from routellm_core.data.eval_logs import EvalLogError, is_eval_log, samples_of
from routellm_core.errors import ConfigurationError, DataError, MissingExtraError

Row = dict[str, Any]
FileFormat = Literal["auto", "text", "jsonl", "json", "csv", "parquet"]

# A longer record is not a row but a file in the wrong format; it is rejected before it fills the memory.
MAX_RECORD_CHARS = 32 * 1024 * 1024
_UNITS = {"json": "item", "parquet": "row", "eval": "sample"}
_CHUNK = 1 << 20
_HEAD = 1 << 16
_PARQUET_ROWS = 256
# Parquet is compressed already: a file that grows by more than this when unpacked is not a parquet file.
_MAX_GROWTH = 100

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
# Columns of the project's own rows; a header with one of them is recognised whatever the file is called.
OWN_COLUMNS = frozenset({"prompt", "prompt_id", "turns", "scores", "model_a", "model_b", "winner", "answers", "gold"})
OWN_PREFIXES = ("scores.", "answers.", "costs.")
# The headers of the CSV files that `write_records` writes for battles, outcomes and answers. In a file with exactly
# these columns in this order, a cell that a spreadsheet could run as a formula is preceded by an apostrophe.
WRITTEN_HEADERS = frozenset(
    ("prompt", "id", "source", "weight", "costs", "tokens", *own)
    for own in (("model_a", "model_b", "winner"), ("scores", "accepted"), ("answers", "gold"))
)
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_BINARY = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook: save the sheet as CSV"),
    (b"\x1f\x8b", "compressed with gzip twice: unpack it once"),
    (b"\xfd7zXZ", "compressed with xz: unpack it, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it, or use gzip"),
    (b"ARROW1", "an Arrow file: convert it to parquet"),
    (b"Obj\x01", "an Avro file: convert it to parquet or JSON lines"),
    (b"SQLite format 3", "a SQLite database: export the table as CSV"),
    (b"%PDF-", "a PDF document"),
)
# Text in other encodings of Unicode is read if it begins with a byte order mark; that of UTF-32 begins like UTF-16's.
_MARKED = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_ALLOWED = "JSON lines, JSON, CSV, TSV or parquet, plain or gzip, in UTF-8"
_TEXT_HINT = "; for plain text use --format text (in Python format='text') or name the file .txt"
_NOT_UTF8 = "not UTF-8 text; save the file as UTF-8"
# surrogateescape turns bytes that are not UTF-8 into lone surrogates, which valid UTF-8 cannot contain.
_UNDECODED = re.compile("[\udc80-\udcff]")
# Strings and brackets of JSON; a lone quote starts a string that has not ended yet.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}"]', re.DOTALL)
_JSON_BEGINS = re.compile(r'[\[{]\s*["\[\]{}]')
_SCALAR_END = re.compile(r"[\s,\[\]{}]")


@dataclass
class SkippedRows:
    """Rows that were skipped because they are malformed.

    Attributes:
        count: Number of skipped rows.
        first: Messages of the first few, each with file, line and field.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Count a row, and keep its message if it is among the first few."""
        self.count += 1
        if len(self.first) < 5:
            self.first.append(message)


def read_rows(
    path: str | Path, *, format: FileFormat = "auto", skip_bad: SkippedRows | None = None
) -> Iterator[tuple[str, Row]]:
    """Read the rows of a file one at a time, each with its place.

    Reads JSON lines, a JSON array, JSON objects one after another, CSV with a header (separated by commas, semicolons
    or tabs) and parquet; plain or gzip; UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one. CSV cells
    are str; an empty or missing cell is ``""``. Columns without a name and blank lines are skipped.

    Args:
        path: The file.
        format: ``"jsonl"``, ``"json"``, ``"csv"`` or ``"parquet"``; ``"auto"`` recognises it by the content.
        skip_bad: Counts malformed rows, which are then skipped; None raises at the first one.

    Yields:
        ``(where, row)``: the place for messages, such as ``"line 3"``, and the row as a dict.

    Raises:
        DataError: The file does not exist or cannot be read, or a row is malformed; the message names file and place.
        ConfigurationError: `format` is unknown.
        MissingExtraError: The file is parquet and pyarrow is not installed.
    """
    if format == "text":
        raise ConfigurationError("format='text': lines of text are not rows; expected jsonl, json, csv or parquet")
    # checked when called, not when first advanced
    return FileReader(path, format=format, skip_bad=skip_bad).rows()


class FileReader:
    """Iterates over the rows of a file, each with its number, which `place` puts into words; see `read_rows`.

    Args:
        path: The file.
        format: As for `read_rows`; also ``"text"``, one str per line.
        skip_bad: Counts malformed rows, which are then skipped; None raises at the first one.
        text: Whether to read the file as plain text if no other format is recognised or it is named .txt, .text or .md.
        columns: Names of columns by which a table is recognised, in addition to the project's own.
        advice: Whether messages explain how to skip malformed rows: False for callers that offer no such option.

    Attributes:
        path: The file.
        total_bytes: Its size on disk.
        kind: ``"text"``, ``"jsonl"``, ``"json"``, ``"csv"`` or ``"parquet"``, once reading has begun.
        columns: Column names of a table, once reading has begun; None for other formats.

    Raises:
        DataError: The file does not exist.
        ConfigurationError: `format` is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        format: FileFormat = "auto",
        skip_bad: SkippedRows | None = None,
        text: bool = False,
        columns: Collection[str] = (),
        advice: bool = True,
    ) -> None:
        if format not in get_args(FileFormat):
            raise ConfigurationError(f"format={format!r}: expected one of {', '.join(get_args(FileFormat))}")
        self.path = Path(path)
        if not self.path.is_file():
            what = "is a directory; name a file in it" if self.path.is_dir() else "no such file"
            raise DataError(f"{self.path}: {what}")
        self.format: FileFormat = format
        self.skip_bad = skip_bad
        self.total_bytes = self.path.stat().st_size
        self.kind = ""
        self.columns: list[str] | None = None
        self._text = text
        self._advice = "; --skip-bad (in Python skip_bad=) skips such rows" if advice else ""
        self._known = {name.lower() for name in columns} | OWN_COLUMNS
        self._raw: IO[bytes] | None = None
        self._read = 0
        self._number = 0

    @property
    def bytes_read(self) -> int:
        """How far the file has been read, in bytes on disk: for a progress bar."""
        return self._read if self._raw is None else self._raw.tell()

    def rows(self) -> Generator[tuple[str, Row], None, None]:
        """Iterate over the rows; what is not an object or a line of a table is malformed."""
        with closing(iter(self)) as values:
            for number, value in values:
                if isinstance(value, dict):
                    yield self.place(number), value
                else:
                    self.refuse(number, f"expected a JSON object, got {kind_of(value)}")

    def place(self, number: int) -> str:
        """The place of a value for messages, such as ``"line 3"``."""
        return f"{_UNITS.get(self.kind, 'line')} {number}"

    def refuse(self, where: int | str, problem: str, cause: Exception | None = None) -> None:
        """Raise a `DataError` for a malformed row, or count the row if malformed rows are skipped."""
        message = f"{self.path}, {self.place(where) if isinstance(where, int) else where}: {problem}"
        if self.skip_bad is None:
            raise DataError(message + self._advice) from cause
        self.skip_bad.add(message)

    def broken(self, problem: str, number: int | None = None) -> DataError:
        """Return the error for a file that cannot be read any further, whether or not malformed rows are skipped."""
        if number is not None:
            where = f", {self.place(number)}"
        else:
            where = f", after {self.place(self._number)}" if self._number else ""
        return DataError(f"{self.path}{where}: {problem}")

    def __iter__(self) -> Generator[tuple[int, Any], None, None]:
        self.kind, self.columns, self._number, self._read = "", None, 0, 0
        try:
            with self.path.open("rb", buffering=_HEAD) as raw:
                packed = raw.read(2) == b"\x1f\x8b"  # by content: files renamed on download are common
                raw.seek(0)
                # GzipFile's own readline runs in Python; a buffer around it reads lines in C
                file = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=raw)), _HEAD) if packed else raw
                head = file.read(_HEAD)
                file.seek(0)
                if encoding := next((name for mark, name in _MARKED.items() if head.startswith(mark)), None):
                    head = io.BufferedReader(_AsUtf8(file, encoding), _HEAD).read(_HEAD)
                    file.seek(0)
                    file = io.BufferedReader(_AsUtf8(file, encoding), _HEAD)
                self.kind = "eval" if head.startswith(b"PK\x03\x04") and is_eval_log(file) else self._kind(head)
                self._raw = raw
                try:
                    yield from self._parquet(file, packed) if self.kind == "parquet" else self._values(file)
                    self._read = self.total_bytes
                finally:
                    self._raw = None
        except (OSError, EOFError, zlib.error) as exc:
            # gzip reports a truncated file as EOFError, and a damaged one as one of the others
            damaged = isinstance(exc, EOFError | gzip.BadGzipFile | zlib.error)
            what = f"damaged gzip file ({exc}); download it again" if damaged else f"cannot be read ({exc})"
            raise self.broken(what) from exc

    def _eval_log(self, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
        try:
            for number, sample in enumerate(samples_of(file, MAX_RECORD_CHARS), 1):
                self._number = number
                if isinstance(sample, str):
                    self.refuse(number, sample)
                else:
                    yield number, sample
        except EvalLogError as exc:
            raise self.broken(str(exc)) from exc

    def _values(self, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
        if self.kind == "eval":
            yield from self._eval_log(file)
            return
        if self.kind == "jsonl":
            yield from self._json_lines(file)
            return
        # with surrogateescape, a byte that is not UTF-8 makes one row malformed instead of the whole file unreadable
        with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            yield from {"text": self._text_lines, "csv": self._table, "json": self._json_items}[self.kind](stream)

    # What the file is

    def _kind(self, head: bytes) -> str:
        if head.startswith(b"PAR1"):
            if self.format not in ("auto", "parquet"):
                raise self.broken(f"is a parquet file, but format={self.format!r} was requested; leave the format out")
            return "parquet"
        for magic, what in _BINARY:
            if head.startswith(magic):
                raise self.broken(f"is {what}; expected {_ALLOWED}")
        if self.format == "parquet":
            raise self.broken("is not a parquet file, but format='parquet' was requested; leave the format out")
        if head[:4].count(0) in (2, 3):
            raise self.broken(
                "is UTF-16 or UTF-32 text without a byte order mark; save it as UTF-8 (in Excel as 'CSV UTF-8')"
            )
        if b"\0" in head:
            raise self.broken(f"is a binary file; expected {_ALLOWED}")
        if self.format != "auto":
            return self.format
        suffixes = [s for s in map(str.lower, self.path.suffixes) if s != ".gz"]
        named = _SUFFIXES.get(suffixes[-1], "") if suffixes else ""
        if named == "text":
            if self._text:
                return "text"
            named = ""
        text = head.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").lstrip()
        return self._kind_of_text(text, named, whole=len(head) < _HEAD)

    def _kind_of_text(self, text: str, named: str, *, whole: bool) -> str:
        """Recognise the format by the beginning of the text (`whole`: by all of it); if unclear, by the name."""
        if not text:
            return named or "jsonl"
        line, ended, rest = text.partition("\n")
        if text[0] in "{[" and (named != "csv" or _JSON_BEGINS.match(text)):
            if not ended and not whole:
                return "json" if text[0] == "[" else "jsonl"
            return _kind_of_object(line, rest, named) if text[0] == "{" else _kind_of_array(line, rest, named)
        if named == "csv" or self._is_table(text, whole=whole):
            return "csv"
        return named or ("jsonl" if text[0] == '"' else "text" if self._text else "csv")

    def _is_table(self, text: str, *, whole: bool) -> bool:
        """Whether the first line is a header with a known column and the lines after it look like its rows."""
        lines = list(io.StringIO(text, newline=""))
        if not whole:
            lines.pop()  # it may be incomplete
        first = _first_lines(iter(lines))
        delimiter = self._delimiter(first, ",")
        header = _header(first, delimiter)
        if not self._has_known(header):
            return False
        if not self._text or len(header) == 1:
            return True
        # prose may have a comma before a word such as "text", but its lines do not all have the same number of parts
        try:
            widths = [len(row) for row in _csv_reader(lines[len(first) :], delimiter) if row]
        except csv.Error:
            return False
        return bool(widths) and max(widths) <= len(header) and 2 * widths.count(len(header)) >= len(widths)

    def _has_known(self, header: Iterable[str]) -> bool:
        names = [name.strip().lower() for name in header]
        return any(name in self._known or name.startswith(OWN_PREFIXES) for name in names)

    def _delimiter(self, first: list[str], usual: str) -> str:
        """The separator with which the header has a known column, or else the most columns."""

        def fit(delimiter: str) -> tuple[bool, int, bool]:
            header = _header(first, delimiter)
            return self._has_known(header), len(header), delimiter == usual

        return max(",;\t", key=fit)

    # One reader for each format

    def _text_lines(self, stream: IO[str]) -> Iterator[tuple[int, str]]:
        number = 0
        while line := stream.readline(MAX_RECORD_CHARS + 1):
            number += 1
            self._number = number
            if len(line) > MAX_RECORD_CHARS:
                self.refuse(number, f"longer than {MAX_RECORD_CHARS:,} characters; is there one prompt per line?")
                while line and not line.endswith(("\n", "\r")):
                    line = stream.readline(_CHUNK)
            elif not line.isascii() and _UNDECODED.search(line):
                self.refuse(number, _NOT_UTF8)
            else:
                yield number, line.rstrip("\r\n")

    def _json_lines(self, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
        number = 0
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        while line := file.readline(MAX_RECORD_CHARS + 1):
            number += 1
            self._number = number
            if len(line) > MAX_RECORD_CHARS:
                hint = _TEXT_HINT if self._text else ""
                self.refuse(number, f"longer than {MAX_RECORD_CHARS:,} bytes; is there one record per line?{hint}")
                while line and not line.endswith(b"\n"):
                    line = file.readline(_CHUNK)
                continue
            try:
                value = json.loads(line.decode())
            except (ValueError, RecursionError) as exc:
                if not line.isspace():
                    self.refuse(number, self._not_json(exc), exc)
            else:
                yield number, value

    def _not_json(self, exc: Exception) -> str:
        if isinstance(exc, UnicodeDecodeError):
            return _NOT_UTF8
        if isinstance(exc, json.JSONDecodeError):
            what = exc.msg.removesuffix(" at")
            what += f" at character {exc.pos + 1}" if self.kind == "jsonl" else ""
        else:
            what = "nested too deeply" if isinstance(exc, RecursionError) else "a number with thousands of digits"
        hint = "; for JSON over several lines use --format json" if self._text and self.kind == "jsonl" else ""
        return f"not JSON ({what}){hint}{_TEXT_HINT if self._text else ''}"

    def _json_items(self, stream: IO[str]) -> Iterator[tuple[int, Any]]:
        """Items of a top-level array, or top-level values one after another, without loading the whole file."""
        decoder = json.JSONDecoder()
        hint = _TEXT_HINT if self._text else ""
        buffer, number, start, in_array, ended, undecoded = "", 0, 0, False, False, False
        while True:
            while start < len(buffer) and buffer[start] in " \t\r\n,":
                start += 1
            if start < len(buffer):
                if not number and not in_array and buffer[start] == "[":
                    in_array = True
                    start += 1
                    continue
                if in_array and buffer[start] == "]":
                    self._check_rest(buffer[start + 1 :], stream)
                    return
                problem: str | None = None
                end: int | None
                try:
                    item, end = decoder.raw_decode(buffer, start)
                except (ValueError, RecursionError) as exc:
                    end, problem = _end_of_value(buffer, start), self._not_json(exc)
                    if end is None and ended:
                        end, problem = len(buffer), f"not JSON (the file ends inside it){hint}"
                # a number at the very end of the buffer may continue in the next chunk; an object or string cannot
                if end is not None and (end < len(buffer) or ended or buffer[start] in '{["'):
                    self._number = number = number + 1
                    if undecoded and _UNDECODED.search(buffer, start, end):
                        problem = _NOT_UTF8
                    start = end
                    if problem is None:
                        yield number, item
                        continue
                    self.refuse(number, problem)
                    if ended and start == len(buffer):
                        return  # the end of the file has been reported
                    continue
            elif ended:
                if in_array:
                    self.refuse(f"after item {number}", f"the array is not closed: the file is truncated{hint}")
                return
            if len(buffer) - start > MAX_RECORD_CHARS:
                raise self.broken(
                    f"longer than {MAX_RECORD_CHARS:,} characters, or has an unclosed quote or bracket{hint}",
                    number + 1,
                )
            # grow in proportion to what is pending, so that a large item is not parsed again with every chunk
            chunk = stream.read(max(_CHUNK, len(buffer) - start))
            undecoded = undecoded or (not chunk.isascii() and _UNDECODED.search(chunk) is not None)
            ended = not chunk
            buffer, start = buffer[start:] + chunk, 0

    def _check_rest(self, rest: str, stream: IO[str]) -> None:
        while not rest.strip() and (rest := stream.read(_CHUNK)):
            pass
        if rest.strip():
            hint = _TEXT_HINT if self._text else ""
            raise self.broken(f"the array ends, but more follows; for JSON lines use --format jsonl{hint}")

    def _table(self, stream: IO[str]) -> Iterator[tuple[int, Row]]:
        lines = _Lines(stream)
        rest = iter(lines)
        first = _first_lines(rest)
        delimiter = self._delimiter(first, "\t" if {".tsv", ".tab"} & {*map(str.lower, self.path.suffixes)} else ",")
        reader = _csv_reader(chain(first, rest), delimiter)
        names: list[str] | None = None
        unnamed = written = False
        start = 1
        while True:
            try:
                for row in reader:
                    self._number = number = start
                    start = reader.line_num + 1
                    lines.pending = 0
                    if lines.undecoded:
                        lines.undecoded = False
                        if names is None:
                            raise self.broken(_NOT_UTF8, number)
                        self.refuse(number, _NOT_UTF8)
                        continue
                    if names is None:
                        if any(map(str.strip, row)):
                            names = self._header_names(row, number)
                            unnamed = "" in names
                            written = delimiter == "," and tuple(names) in WRITTEN_HEADERS
                        continue
                    width = len(names)
                    if len(row) != width:
                        if not row and width > 1:
                            continue  # a blank line
                        if len(row) < width:
                            row += [""] * (width - len(row))
                        elif any(map(str.strip, row[width:])):
                            self.refuse(
                                number,
                                f"{len(row)} cells, but the header names {width} columns; quote cells that contain the "
                                f"separator {delimiter!r}",
                            )
                            continue
                    if written:
                        row = [cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell for cell in row]
                    record = dict(zip(names, row, strict=False))
                    if unnamed:
                        del record[""]
                    yield number, record
                break
            except csv.Error as exc:
                if lines.too_long:
                    break
                problem = f"not CSV ({exc}); check for a quote that is not closed or not doubled"
                if names is None:
                    raise self.broken(problem, start) from exc
                self.refuse(start, problem, exc)
                start = reader.line_num + 1
        if lines.too_long:
            hint = _TEXT_HINT if self._text else ""
            raise self.broken(
                f"a row of more than {MAX_RECORD_CHARS:,} characters; check for an unclosed quote{hint}", start
            )

    def _header_names(self, header: list[str], number: int | None = None) -> list[str]:
        """Column names; one without a name is an index, or the result of a separator at the end of the line."""
        names = [name.strip() for name in header]
        self.columns = [name for name in names if name]
        if twice := next((name for i, name in enumerate(self.columns) if name in self.columns[:i]), None):
            raise self.broken(f"two columns are named {shown_names([twice])!r}; rename one of them", number)
        return names

    def _parquet(self, file: IO[bytes], packed: bool) -> Iterator[tuple[int, Row]]:
        arrow, parquet = import_pyarrow("Reading a parquet file")
        self._raw = None  # pyarrow reads in its own order, so progress is measured in rows
        number = 0
        try:
            with self._unpacked(file) if packed else file as source:
                table = parquet.ParquetFile(source)
                self._header_names(table.schema_arrow.names)
                for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                    for row in _rows_of_batch(_with_plain_times(batch, arrow)):
                        number += 1
                        self._number = number
                        if isinstance(row, str):
                            self.refuse(number, row)
                        else:
                            yield number, row
                    self._read = self.total_bytes * number // max(table.metadata.num_rows, number)
        except DataError:
            raise
        except (arrow.ArrowException, OSError, ValueError) as exc:
            first_line = str(exc).partition("\n")[0]
            raise self.broken(f"not a readable parquet file ({first_line}); download it again") from exc

    def _unpacked(self, file: IO[bytes]) -> IO[bytes]:
        """Unpack a gzip file into a temporary file, since parquet is read from its end."""
        with ExitStack() as stack:
            out = stack.enter_context(tempfile.TemporaryFile())
            left = _MAX_GROWTH * max(self.total_bytes, _CHUNK)
            while chunk := file.read(_CHUNK):
                out.write(chunk)
                left -= len(chunk)
                if left < 0:
                    raise self.broken(f"unpacks to more than {_MAX_GROWTH} times its size; unpack it yourself")
            out.seek(0)
            stack.pop_all()  # the caller closes it
        return out


class _AsUtf8(io.RawIOBase):
    """The bytes of a text in another encoding as UTF-8, its byte order mark included."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            data = self._file.read(_HEAD)
            try:
                self._pending = self._decoder.decode(data, final=not data).encode()
            except UnicodeError as exc:
                raise OSError(
                    f"it is not the {self._encoding.upper()} text that its byte order mark says; save it as UTF-8"
                ) from exc
            if not data:
                break
        part, self._pending = self._pending[: len(buffer)], self._pending[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class _Lines:
    """Iterates over the lines of a text until a record is too long.

    Attributes:
        pending: Characters read since the reader last reset this to 0, which it does after each record.
        undecoded: Whether a line was not UTF-8 since the reader last reset this to False.
        too_long: Whether iteration ended because a record is too long.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.pending = 0
        self.undecoded = self.too_long = False

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(MAX_RECORD_CHARS + 1):
            self.pending += len(line)
            if self.pending > MAX_RECORD_CHARS:
                self.too_long = True
                return
            if not line.isascii() and _UNDECODED.search(line):
                self.undecoded = True
            yield line


def _first_lines(lines: Iterator[str]) -> list[str]:
    """Lines up to the end of the header, which continues over line ends while a quote is open."""
    first: list[str] = []
    size = quotes = 0
    for line in lines:
        first.append(line)
        size += len(line)
        quotes += line.count('"')
        if (line.strip() and quotes % 2 == 0) or size > _HEAD:
            break
    return first


def inert_cell(text: str) -> str:
    """Escape a text that a spreadsheet would run as a formula; the reader removes one leading apostrophe again."""
    return f"'{text}" if _FORMULA.match(text) else text


def _csv_reader(lines: Iterable[str], delimiter: str) -> Any:
    # the limit of 128 KiB per cell is a setting of the process; long chats need more, and records have our own limit
    if csv.field_size_limit() < MAX_RECORD_CHARS:
        csv.field_size_limit(MAX_RECORD_CHARS)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _header(first: list[str], delimiter: str) -> list[str]:
    try:
        return next((row for row in _csv_reader(first, delimiter) if any(map(str.strip, row))), [])
    except csv.Error:
        return []


def _kind_of_object(line: str, rest: str, named: str) -> str:
    """Tell JSON lines from JSON by a first line that begins with a brace: does the object end on that line?"""
    end = _end_of_value(line, 0)
    if end is not None:
        return "json" if line[end:].lstrip(" \t\r,")[:1] == "{" else "jsonl"
    if named == "jsonl":
        return "jsonl" if rest.lstrip()[:1] in ("", "{") else "json"
    return "json" if named == "json" or line.rstrip()[-1] in "{[:," else "jsonl"


def _kind_of_array(line: str, rest: str, named: str) -> str:
    """Tell JSON lines from JSON by a first line that begins with a bracket: is it one conversation of several?"""
    if named != "json":
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return "json"
        if rest.strip() or (named == "jsonl" and any(isinstance(item, dict) and "role" in item for item in value)):
            return "jsonl"
    return "json"


def _end_of_value(text: str, start: int) -> int | None:
    """Where a JSON value ends judging by quotes and brackets, well-formed or not; None if the text ends before it."""
    if text[start] not in '{["':
        ends = _SCALAR_END.search(text, start + 1)
        return ends.start() if ends else None
    depth = 0
    for token in _TOKEN.finditer(text, start):
        first, end = text[token.start()], token.end()
        if first in "{[":
            depth += 1
        elif first in "]}":
            depth -= 1
        elif end - token.start() == 1:
            return None
        if depth <= 0:
            return end
    return None


def _with_plain_times(batch: Any, arrow: Any) -> Any:
    """A batch with times as text: Python's times have no nanoseconds, and no prompt or label is a time."""
    columns = [
        column.cast(arrow.string())
        if arrow.types.is_timestamp(column.type) or arrow.types.is_time(column.type)
        else column
        for column in batch.columns
    ]
    return arrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _rows_of_batch(batch: Any) -> list[Row | str]:
    """The rows of a batch of a parquet file; a malformed row is replaced by a str that says what is wrong."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError, NotImplementedError):
        if batch.num_rows == 1:
            return ["holds a value that Python cannot represent; is a text not UTF-8, or a time too precise?"]
        return [row for i in range(batch.num_rows) for row in _rows_of_batch(batch.slice(i, 1))]
    return [
        f"holds a text longer than {MAX_RECORD_CHARS:,} characters"
        if any(isinstance(value, str) and len(value) > MAX_RECORD_CHARS for value in row.values())
        else row
        for row in rows
    ]


def import_pyarrow(what: str) -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet, or raise a `MissingExtraError` that says what needs them."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError(what, "parquet") from None
    return pyarrow, pyarrow.parquet


def kind_of(value: Any) -> str:
    """Describe a value for messages by its type, never by its content."""
    if value is None:
        return "null"
    kinds = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


def shown_names(names: Iterable[Any]) -> str:
    """List field names for a message; a long name is data from a file without a header, so it is not shown."""
    listed = [str(name) for name in islice(names, 31)]
    listed = [name if len(name) <= 64 and name.isprintable() else "(a long text)" for name in listed]
    return ", ".join(listed[:30]) + (", ..." if len(listed) > 30 else "") or "none"
