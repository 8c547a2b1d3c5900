"""Prompts out of files of traffic: text, JSON lines, CSV, and exports of LangSmith, Langfuse and OpenTelemetry.

Files are read as a stream, plain or gzip, so memory is bounded by the longest record and not by the file. What is
taken of a recorded call is the text that would be routed on: the last message of the user.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

from routellm_core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from routellm_core.data.files import SkippedRows

TrafficFormat = Literal["auto", "text", "jsonl", "json", "csv"]

# A record above this is not a prompt but a file in the wrong format; it is refused before it fills the memory.
MAX_RECORD_CHARS = 32 * 1024 * 1024
_CHUNK = 1 << 20
_HEAD = 4096
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_PROMPT_KEYS = (
    "prompt",
    "question",
    "query",
    "instruction",
    "text",
    "input",
    "content",
    "turns",
    "messages",
    "prompts",
)
# Fields that hold the prompt itself: a prompt that happens to be JSON is left as it is.
_VERBATIM_KEYS = frozenset({"prompt", "question", "query", "instruction", "text"})
_USER_ROLES = {"user", "human"}
_ROLES = {*_USER_ROLES, "system", "developer", "assistant", "ai", "tool", "function"}
# What an export marks calls of a model with; other steps of a trace would count the same prompt again.
_MODEL_CALL_TYPES = {"llm", "chat_model", "generation"}
# Where exports keep the records that one holds: OTLP, Tempo and OTLP before 1.0, LangSmith, Langfuse.
_BUNDLES = (
    "resourceSpans",
    "resource_spans",
    "batches",
    "scopeSpans",
    "scope_spans",
    "instrumentationLibrarySpans",
    "spans",
    "runs",
    "child_runs",
    "observations",
    "data",
)
_BUNDLE_NAMES = frozenset(_BUNDLES)
# "data" is a common name: it is a page of an API only where nothing but the page's own description stands beside it.
_PAGE_KEYS = {"data", "meta", "cursor", "cursors"}
# What says whether a span is a call of a model (GenAI, OpenInference, OpenLLMetry); the first that a span has decides.
_SPAN_KINDS = ("gen_ai.operation.name", "openinference.span.kind", "llm.request.type")
_MODEL_SPANS = {"chat", "text_completion", "generate_content", "llm", "completion"}
_INDEXED = re.compile(
    r"^(?:gen_ai\.prompt|llm\.input_messages)\.(\d+)\.(?:message\.)?"
    r"(?:(role|content)|contents\.(\d+)\.message_content\.(type|text))$"
)
_TOOL_RESULTS = {"tool_result", "tool_call_response", "function_call_output"}
# Columns that make a CSV file an export, whose rows are told apart by more than the column of the prompt.
_EXPORT_COLUMNS = {"run_type", "inputs", "traceid", "trace_id", "attributes", "observations"}
_OTLP_NESTED = {"arrayValue", "array_value", "kvlistValue", "kvlist_value"}
# Takes the words for a malformed record and what raised them: raises them, or counts the record.
_Refuse = Callable[[str, Exception | None], None]
_TEXT_HINT = "for plain text give --format text (in Python format='text') or name the file .txt"


class PromptReader:
    """Iterates over the prompts of a file; see `read_prompts`.

    Attributes:
        path: The file.
        total_bytes: Its size on disk.
        skipped: Records passed over so far because they hold no prompt (steps of a trace that are no model call,
            blank ones).
    """

    def __init__(
        self,
        path: str | Path,
        *,
        format: TrafficFormat = "auto",
        field: str | None = None,
        skip_bad: SkippedRows | None = None,
    ) -> None:
        if format not in get_args(TrafficFormat):
            raise ConfigurationError(f"format={format!r}: expected one of {', '.join(get_args(TrafficFormat))}")
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"no file {str(self.path)!r}: give a file of prompts (text, JSON lines, CSV or an export)")
        self.format = format
        self.field = field
        self.skip_bad = skip_bad
        self.total_bytes = self.path.stat().st_size
        self.skipped = 0
        self._raw: IO[bytes] | None = None

    @property
    def bytes_read(self) -> int:
        """Bytes on disk read so far, for a `Progress`: 0 before the first prompt, `total_bytes` after the last."""
        if self._raw is None:
            return 0
        return self.total_bytes if self._raw.closed else self._raw.tell()

    def __iter__(self) -> Iterator[str]:
        self.skipped = 0
        with self.path.open("rb") as raw:
            self._raw = raw
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            binary = gzip.GzipFile(fileobj=raw) if zipped else raw
            try:
                kind = self.format if self.format != "auto" else self._guess(binary.peek(_HEAD))
                with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as stream:
                    yield from self._prompts(stream, kind)
            except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
                raise DataError(f"{self.path} is a damaged gzip file: {exc}") from exc
            except UnicodeDecodeError as exc:
                raise DataError(f"{self.path} is not UTF-8 ({exc.reason} at byte {exc.start}); convert it") from exc

    def _prompts(self, stream: io.TextIOWrapper, kind: str) -> Iterator[str]:
        if kind == "text":
            for line in _lines(stream, self.path):
                text = line.rstrip("\r\n")
                if text.strip():
                    yield text
                else:
                    self.skipped += 1
            return
        if kind == "csv":
            records = _csv_rows(stream, self.path, self.field, self._refuse)
        elif kind == "jsonl":
            records = _json_lines(stream, self.path, self._refuse)
        else:
            records = _json_items(stream, self.path)
        for place, record in records:
            found = False
            texts = self._of_record(record, place)
            if texts is None:
                continue
            for prompt in texts:
                found = True
                yield prompt
            self.skipped += not found

    def _refuse(self, message: str, cause: Exception | None = None) -> None:
        if self.skip_bad is None:
            raise DataError(message) from cause
        self.skip_bad.add(message)

    def _guess(self, head: bytes) -> str:
        """The format by the file's name, or by its first character."""
        suffixes = [s.lower() for s in self.path.suffixes if s.lower() != ".gz"]
        suffix = suffixes[-1] if suffixes else ""
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
        first = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        if first == b"[" or suffix == ".json":
            return "json"
        return "jsonl" if first in {b"{", b'"'} else "text"

    def _of_record(self, record: Any, place: str) -> Iterator[str] | None:
        if self.field is None:
            return prompts_of_record(record)
        # a name may hold a dot itself, as the columns of a flattened table do
        whole = isinstance(record, dict) and self.field in record
        path = [self.field] if whole else self.field.split(".")
        value: Any = record
        for key in path:
            if not isinstance(value, dict) or key not in value:
                names = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
                self._refuse(f"{self.path}, {place}: no field {self.field!r}; it has: {names:.200}")
                return None
            value = value[key]
        return _routed_texts({"prompts": value} if path[-1] == "prompts" else value)


def read_prompts(
    path: str | Path,
    *,
    format: TrafficFormat = "auto",
    field: str | None = None,
    skip_bad: SkippedRows | None = None,
) -> PromptReader:
    """Stream the prompts of a file of traffic.

    Recorded calls may be objects with a ``prompt``, ``question``, ``text``, ``input`` or ``messages`` field, runs of a
    LangSmith export, observations or traces of a Langfuse export, or spans of OpenTelemetry (OTLP JSON or the console
    exporter; the GenAI, OpenLLMetry and OpenInference attribute names). In an export only calls of a model count.

    Args:
        path: The file, plain or gzip, UTF-8.
        format: ``"text"`` (one prompt a line), ``"jsonl"``, ``"json"`` (an array, or objects one after another),
            ``"csv"`` (with a header; separated by commas, semicolons or tabs), or ``"auto"`` by name and content.
        field: Name of the field or column that holds the prompt; where there is none of that name, dots in it are a
            path, as in ``"inputs.question"``.
        skip_bad: Leave malformed lines and rows out and note them here, instead of raising. Items of a JSON array
            cannot be left out: where a broken one ends is not known.

    Returns:
        An iterable of str, each time from the start; it knows how far it has read.

    Raises:
        DataError: No such file; and while reading, a record that is malformed or lacks `field`, with its place.
        ConfigurationError: Unknown `format`.
    """
    return PromptReader(path, format=format, field=field, skip_bad=skip_bad)


def prompts_of_record(record: Any) -> Iterator[str]:
    """The routing texts in one parsed record: none or one, or several where it bundles spans, runs or calls."""
    if isinstance(record, dict):
        kind = record.get("run_type") or (record.get("type") if "traceId" in record or "trace_id" in record else None)
        kind = kind.lower() if isinstance(kind, str) else ""
        # What a call of a model holds is the same call once more: a wrapper around the client, say.
        if kind not in _MODEL_CALL_TYPES:
            if not _BUNDLE_NAMES.isdisjoint(record) and (inner := _bundled(record)):
                for item in inner:
                    yield from prompts_of_record(item)
                return
            if kind:
                return
        if record.get("attributes") not in (None, ""):  # a table of runs leaves the cell empty
            text = _of_span(record)
            if text:
                yield text
            return
        for holder in ("inputs", "input"):
            if record.get(holder) not in (None, "", [], {}):
                yield from _routed_texts(_parsed(record[holder]))
                return
    for call in _calls(record):
        text = _routed(call)
        if text:
            yield text


def routed_text(value: Any) -> str | None:
    """The text to route on in a recorded input: a str itself, of messages the last one of the user; None if none."""
    return _routed(value) or None


def _bundled(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The records inside one. Langfuse lists observations by their ids alone in places; those are no records."""
    for name in _BUNDLES:
        value = record.get(name)
        if isinstance(value, list) and (name != "data" or record.keys() <= _PAGE_KEYS):
            inner = [item for item in value if isinstance(item, dict)]
            if inner:
                return inner
    return []


def _routed_texts(value: Any) -> Iterator[str]:
    """As `routed_text`, of each call that a recorded input holds."""
    for call in _calls(value):
        text = _routed(call)
        if text:
            yield text


def _calls(value: Any) -> list[Any]:
    """A recorded input as the only one, or those of a batch: LangSmith keeps calls made together in one run."""
    name, inner = "", value
    if isinstance(value, dict):
        name = "messages" if value.get("messages") else "prompts"
        inner = value.get(name)
    if isinstance(inner, list) and inner:
        # a message may be a list too, of its role and its content
        if isinstance(inner[0], list) and all(isinstance(i, list) and _message(i)[0] not in _ROLES for i in inner):
            return inner
        if isinstance(inner[0], str) and name == "prompts":
            return inner
    return [value]


def _routed(value: Any) -> str | None:
    """As `routed_text`, but "" where the user's last message has no text: nothing else may stand in for an image."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            return _routed(value[0])  # turns of a conversation, or prompts of one call: the first is the opening
        if len(value) == 1 and isinstance(value[0], list) and _message(value[0])[0] not in _ROLES:
            return _routed(value[0])  # LangSmith keeps a batch of conversations
        for item in reversed(value):
            role, content = _message(item)
            if role in _USER_ROLES and not _of_tools(content):
                return _content(content) or ""
        return None
    if isinstance(value, dict):
        role, content = _message(value)
        if role is not None:
            return (_content(content) or "") if role in _USER_ROLES else None
        for key in ("messages", *_PROMPT_KEYS):
            if value.get(key) not in (None, "", []):
                text = _routed(_parsed_field(key, value[key]))
                if text is not None:
                    return text
        strings = [v for v in value.values() if isinstance(v, str) and v.strip()]
        return strings[0] if len(strings) == 1 and len(value) == 1 else None
    return None


def _message(item: Any) -> tuple[str | None, Any]:
    """Role and content of a message in the forms that LangChain, OpenAI and OpenTelemetry write."""
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str):
        return item[0].lower(), item[1]
    if not isinstance(item, dict):
        return None, None
    if "message" in item and isinstance(item["message"], dict):
        item = item["message"]
    body = item.get("kwargs") if isinstance(item.get("kwargs"), dict) else item.get("data")
    if isinstance(body, dict) and "content" in body:  # LangChain: constructor form, or the older type + data form
        kind = item["id"][-1] if isinstance(item.get("id"), list) and item["id"] else item.get("type", "")
        return str(kind).lower().removesuffix("chunk").removesuffix("message"), body["content"]
    role = item.get("role") or (item.get("type") if "content" in item else None)
    content = item.get("content", item.get("parts"))
    return (str(role).lower(), content) if role is not None and content is not None else (None, None)


def _content(content: Any) -> str | None:
    """Text of a message content: a str, or the text parts of a list."""
    if isinstance(content, list):
        parts = [
            part if isinstance(part, str) else str(part.get("text") or part.get("content") or "")
            for part in content
            if isinstance(part, str) or (isinstance(part, dict) and part.get("type", "text") in {"text", "input_text"})
        ]
        content = "\n".join(p for p in parts if p)
    return content if isinstance(content, str) and content.strip() else None


def _of_tools(content: Any) -> bool:
    """Whether a message holds nothing but results of tools, which some providers have the user say."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, dict) and part.get("type") in _TOOL_RESULTS for part in content)
    )


def _of_span(span: dict[str, Any]) -> str | None:
    """Routing text of an OpenTelemetry span, by the attribute names of the three common instrumentations.

    Spans of agents, chains and tools repeat the prompt of the call that they lead to, so they have none.
    """
    attributes = _attributes(span.get("attributes"))
    kind = next((str(attributes[name]) for name in _SPAN_KINDS if attributes.get(name) is not None), None)
    if kind is not None and kind.lower() not in _MODEL_SPANS:
        return None
    # Messages come first: "input.value" may be a rendering of them that begins with the system's.
    if (text := _routed(_parsed(attributes.get("gen_ai.input.messages")))) is not None:
        return text
    if (text := _routed(_indexed_messages(attributes))) is not None:
        return text
    for name in ("gen_ai.prompt", "input.value"):
        if (text := _routed(_parsed(attributes.get(name)))) is not None:
            return text
    events = span.get("events")
    for event in reversed(events) if isinstance(events, list) else ():
        if not isinstance(event, dict):
            continue
        inner = _attributes(event.get("attributes"))
        if event.get("name") == "gen_ai.user.message":
            return _content(_parsed(inner.get("content")))
        if (text := _routed(_parsed(inner.get("gen_ai.prompt")))) is not None:
            return text
    return None


def _indexed_messages(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages out of attributes that hold a role, a content or a part each, numbered by message and part."""
    messages: dict[int, dict[str, Any]] = {}
    parts: dict[int, dict[int, dict[str, Any]]] = {}
    for name, value in attributes.items():
        if match := _INDEXED.match(name):
            index, key, part, part_key = match.groups()
            if part is None:
                messages.setdefault(int(index), {})[key] = value
            else:
                parts.setdefault(int(index), {}).setdefault(int(part), {})[part_key] = value
    for number, found in parts.items():
        messages.setdefault(number, {})["content"] = [found[i] for i in sorted(found)]
    return [messages[i] for i in sorted(messages)]


def _attributes(value: Any) -> dict[str, Any]:
    """Attributes of a span: a mapping, or OTLP's list of key and typed value."""
    if isinstance(value, dict):
        return value
    listed = value if isinstance(value, list) else []
    return {
        str(item["key"]): _otlp_value(item.get("value")) for item in listed if isinstance(item, dict) and "key" in item
    }


def _otlp_value(typed: Any) -> Any:
    """A value of OTLP JSON without its type: ``{"stringValue": "x"}`` is ``"x"``, lists and mappings likewise."""
    if not isinstance(typed, dict):
        return typed
    kind, value = next(iter(typed.items()), ("", None))
    if kind not in _OTLP_NESTED:
        return value
    values = value.get("values") if isinstance(value, dict) else None  # an empty list has none
    if kind.startswith("kvlist"):
        return _attributes(values or [])
    return [_otlp_value(item) for item in values] if isinstance(values, list) else []


def _parsed(value: Any) -> Any:
    """A str that holds a JSON object or array, parsed: exports often keep inputs that way."""
    if isinstance(value, str) and value[:1] in "[{" and value.strip():
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _parsed_field(name: str, value: Any) -> Any:
    return value if name.strip().lower() in _VERBATIM_KEYS else _parsed(value)


def _lines(stream: io.TextIOWrapper, path: Path) -> Iterator[str]:
    number = 0
    while line := stream.readline(MAX_RECORD_CHARS + 1):
        number += 1
        if len(line) > MAX_RECORD_CHARS:
            raise DataError(
                f"{path}, line {number}: longer than {MAX_RECORD_CHARS:,} characters; is it one record a line?"
            )
        yield line


def _json_lines(stream: io.TextIOWrapper, path: Path, refuse: _Refuse) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_lines(stream, path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as exc:
            refuse(
                f"{path}, line {number}: not JSON ({exc}); for JSON over several lines give --format json, "
                f"{_TEXT_HINT}",
                exc,
            )
        else:
            yield f"line {number}", record


def _json_items(stream: io.TextIOWrapper, path: Path) -> Iterator[tuple[str, Any]]:
    """Items of a top-level array, or top-level values one after another, without holding the whole file."""
    decoder = json.JSONDecoder()
    buffer, number, ended, in_array, start = "", 0, False, None, 0
    while True:
        while start < len(buffer) and buffer[start] in " \t\r\n,":
            start += 1
        if start < len(buffer) and in_array is None:
            in_array = buffer[start] == "["
            start += in_array
            continue
        if in_array and start < len(buffer) and buffer[start] == "]":
            rest = buffer[start + 1 :]
            while not rest.strip() and (rest := stream.read(_CHUNK)):
                pass
            if rest.strip():
                raise DataError(
                    f"{path}, after item {number}: the array ends, but more follows; for JSON lines give --format "
                    f"jsonl, {_TEXT_HINT}"
                )
            return
        if start < len(buffer):
            try:
                item, end = decoder.raw_decode(buffer, start)
            except (ValueError, RecursionError) as exc:
                if ended:
                    raise DataError(f"{path}, item {number + 1}: not JSON ({exc}); {_TEXT_HINT}") from exc
            else:
                # A number at the very end of the buffer may go on in the next chunk; an object or string can not.
                if end < len(buffer) or ended or isinstance(item, dict | list | str):
                    number += 1
                    start = end
                    yield f"item {number}", item
                    continue
        elif ended:
            if in_array:
                raise DataError(f"{path} ends inside its array, after item {number}: the file is cut off; {_TEXT_HINT}")
            return
        if len(buffer) - start > MAX_RECORD_CHARS:
            raise DataError(
                f"{path}, item {number + 1}: longer than {MAX_RECORD_CHARS:,} characters, or not JSON; {_TEXT_HINT}"
            )
        # Grow in proportion to what is pending, so that one large item is not parsed again every chunk.
        chunk = stream.read(max(_CHUNK, len(buffer) - start))
        ended = not chunk
        buffer, start = buffer[start:] + chunk, 0


def _csv_rows(stream: io.TextIOWrapper, path: Path, field: str | None, refuse: _Refuse) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(MAX_RECORD_CHARS)
    lines = _lines(stream, path)
    first = _first_lines(lines)
    delimiter = _delimiter(first, field, "\t" if ".tsv" in path.suffixes else ",")
    reader = csv.reader(chain(first, lines), delimiter=delimiter)
    try:
        header = _header(reader)
        width = len(header)
        columns = [(name, i, name.lower() in _VERBATIM_KEYS) for name, i in _columns(header, field).items()]
        for row in reader:
            if len(row) < width:
                row += [""] * (width - len(row))
            elif any(map(str.strip, row[width:])):
                refuse(
                    f"{path}, line {reader.line_num}: {len(row)} cells, but the header names {width} columns; put "
                    f"cells that hold the separator {delimiter!r} in quotes",
                    None,
                )
                continue
            record = {name: row[i] if verbatim else _parsed(row[i]) for name, i, verbatim in columns}
            yield f"line {reader.line_num}", record
    except csv.Error as exc:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({exc}); {_TEXT_HINT}") from exc


def _first_lines(lines: Iterator[str]) -> list[str]:
    """Lines up to the end of the header, which goes on over line ends while a quote is open."""
    first: list[str] = []
    size = quotes = 0
    for line in lines:
        first.append(line)
        size += len(line)
        quotes += line.count('"')
        if (line.strip() and quotes % 2 == 0) or size > _HEAD:
            break
    return first


def _header(reader: Iterator[list[str]]) -> list[str]:
    return next((row for row in reader if any(cell.strip() for cell in row)), [])


def _delimiter(first: list[str], field: str | None, usual: str) -> str:
    """The separator under which the header has a column that prompts are taken from, or else the most columns."""
    wanted = {"messages", *_PROMPT_KEYS, *_EXPORT_COLUMNS} if field is None else {field, field.split(".")[0]}

    def fit(delimiter: str) -> tuple[bool, int, bool]:
        header = _header(csv.reader(first, delimiter=delimiter))
        names = _names(header)
        return not wanted.isdisjoint({*names, *map(str.lower, names)}), len(header), delimiter == usual

    return max(",;\t", key=fit)


def _names(header: list[str]) -> dict[str, int]:
    """Names of columns and where they stand; one without a name is an index, or what an ending separator leaves."""
    return {name.strip(): i for i, name in enumerate(header) if name.strip()}


def _columns(header: list[str], field: str | None) -> dict[str, int]:
    """The columns that the prompt is looked for in: decided once for a file, so that no cell stands in for another."""
    names = _names(header)
    lowered = {name.lower(): i for name, i in names.items()}
    if field is not None:
        asked = {name: i for name, i in lowered.items() if field == name or field.startswith(name + ".")}
        return {**asked, **names}
    if not _EXPORT_COLUMNS.isdisjoint(lowered):
        return {**lowered, **names}
    prompt = next((key for key in ("messages", *_PROMPT_KEYS) if key in lowered), None)
    return lowered if prompt is None else {prompt: lowered[prompt]}
