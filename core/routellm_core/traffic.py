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
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, get_args

from routellm_core.errors import ConfigurationError, DataError

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
_INDEXED = re.compile(r"^(?:gen_ai\.prompt|llm\.input_messages)\.(\d+)\.(?:message\.)?(role|content)$")


class PromptReader:
    """Iterates over the prompts of a file; see `read_prompts`.

    Attributes:
        path: The file.
        total_bytes: Its size on disk.
        skipped: Records passed over so far because they hold no prompt (steps of a trace that are no model call,
            blank ones).
    """

    def __init__(self, path: str | Path, *, format: TrafficFormat = "auto", field: str | None = None) -> None:
        if format not in get_args(TrafficFormat):
            raise ConfigurationError(f"format={format!r}: expected one of {', '.join(get_args(TrafficFormat))}")
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"no file {str(self.path)!r}: give a file of prompts (text, JSON lines, CSV or an export)")
        self.format = format
        self.field = field
        self.total_bytes = self.path.stat().st_size
        self.skipped = 0
        self._raw: IO[bytes] | None = None

    @property
    def bytes_read(self) -> int:
        """How far the file has been read, in bytes on disk: for a progress bar."""
        return self._raw.tell() if self._raw is not None and not self._raw.closed else 0

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
        reader = {"jsonl": _json_lines, "json": _json_items, "csv": _csv_rows}[kind]
        for place, record in reader(stream, self.path):
            found = False
            for prompt in self._of_record(record, place):
                found = True
                yield prompt
            self.skipped += not found

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

    def _of_record(self, record: Any, place: str) -> Iterator[str]:
        if self.field is not None:
            value: Any = record
            for key in self.field.split("."):
                if not isinstance(value, dict) or key not in value:
                    names = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
                    raise DataError(f"{self.path}, {place}: no field {self.field!r}; it has: {names:.200}")
                value = value[key]
            text = routed_text(value)
            if text:
                yield text
            return
        yield from prompts_of_record(record)


def read_prompts(path: str | Path, *, format: TrafficFormat = "auto", field: str | None = None) -> PromptReader:
    """Stream the prompts of a file of traffic.

    Recorded calls may be objects with a ``prompt``, ``question``, ``text``, ``input`` or ``messages`` field, runs of a
    LangSmith export, observations or traces of a Langfuse export, or spans of OpenTelemetry (OTLP JSON or the console
    exporter; the GenAI, OpenLLMetry and OpenInference attribute names). In an export only calls of a model count.

    Args:
        path: The file, plain or gzip, UTF-8.
        format: ``"text"`` (one prompt a line), ``"jsonl"``, ``"json"`` (an array, or objects one after another),
            ``"csv"`` (with a header), or ``"auto"`` by name and content.
        field: Dotted name of the field or column that holds the prompt, such as ``"inputs.question"``.

    Returns:
        An iterable of str, each time from the start; it knows how far it has read.

    Raises:
        DataError: No such file; and while reading, a record that is malformed or lacks `field`, with its place.
        ConfigurationError: Unknown `format`.
    """
    return PromptReader(path, format=format, field=field)


def prompts_of_record(record: Any) -> Iterator[str]:
    """The routing texts in one parsed record: none or one, or several where it bundles spans."""
    if isinstance(record, dict):
        for bundle in ("resourceSpans", "resource_spans", "scopeSpans", "scope_spans", "spans", "runs", "observations"):
            if isinstance(record.get(bundle), list) and record[bundle]:
                for inner in record[bundle]:
                    yield from prompts_of_record(inner)
                return
        kind = record.get("run_type") or (record.get("type") if "traceId" in record or "trace_id" in record else None)
        if isinstance(kind, str) and kind.lower() not in _MODEL_CALL_TYPES:
            return
        if "attributes" in record:
            text = _of_span(record)
            if text:
                yield text
            return
        for holder in ("inputs", "input"):
            if record.get(holder) not in (None, "", [], {}):
                text = routed_text(_parsed(record[holder]))
                if text:
                    yield text
                return
    text = routed_text(_parsed(record))
    if text:
        yield text


def routed_text(value: Any) -> str | None:
    """The text to route on in a recorded input: a str itself, of messages the last one of the user; None if none."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            return routed_text(value[0])  # turns of a conversation, or prompts of one call: the first is the opening
        if len(value) == 1 and isinstance(value[0], list) and _message(value[0])[0] not in _ROLES:
            return routed_text(value[0])  # LangSmith keeps a batch of conversations
        for item in reversed(value):
            role, content = _message(item)
            if role in _USER_ROLES and (text := _content(content)):
                return text
        return None
    if isinstance(value, dict):
        role, content = _message(value)
        if role is not None:
            return _content(content) if role in _USER_ROLES else None
        for key in ("messages", *_PROMPT_KEYS):
            if value.get(key) not in (None, "", []) and (text := routed_text(_parsed_field(key, value[key]))):
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


def _of_span(span: dict[str, Any]) -> str | None:
    """Routing text of an OpenTelemetry span, by the attribute names of the three common instrumentations."""
    attributes = _attributes(span.get("attributes"))
    for name in ("gen_ai.input.messages", "gen_ai.prompt", "input.value"):
        if name in attributes and (text := routed_text(_parsed(attributes[name]))):
            if name == "input.value" and attributes.get("openinference.span.kind", "LLM") != "LLM":
                return None
            return text
    messages: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        if match := _INDEXED.match(key):
            messages.setdefault(int(match[1]), {})[match[2]] = value
    if messages and (text := routed_text([messages[i] for i in sorted(messages)])):
        return text
    for event in reversed(span.get("events") or []):
        inner = _attributes(event.get("attributes"))
        if event.get("name") == "gen_ai.user.message" and (text := _content(_parsed(inner.get("content")))):
            return text
        if "gen_ai.prompt" in inner and (text := routed_text(_parsed(inner["gen_ai.prompt"]))):
            return text
    return None


def _attributes(value: Any) -> dict[str, Any]:
    """Attributes of a span: a mapping, or OTLP's list of key and typed value."""
    if isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict) and "key" in item:
            typed = item.get("value")
            out[str(item["key"])] = next(iter(typed.values()), None) if isinstance(typed, dict) else typed
    return out


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


def _json_lines(stream: io.TextIOWrapper, path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_lines(stream, path), 1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise DataError(f"{path}, line {number}: not JSON ({exc}); for plain text give format='text'") from exc


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
            return
        if start < len(buffer):
            try:
                item, end = decoder.raw_decode(buffer, start)
            except (ValueError, RecursionError) as exc:
                if ended:
                    raise DataError(f"{path}, item {number + 1}: not JSON ({exc})") from exc
            else:
                # A number at the very end of the buffer may go on in the next chunk; an object or string can not.
                if end < len(buffer) or ended or isinstance(item, dict | list | str):
                    number += 1
                    start = end
                    yield f"item {number}", item
                    continue
        elif ended:
            if in_array:
                raise DataError(f"{path} ends inside its array, after item {number}: the file is cut off")
            return
        if len(buffer) - start > MAX_RECORD_CHARS:
            raise DataError(f"{path}, item {number + 1}: longer than {MAX_RECORD_CHARS:,} characters, or not JSON")
        # Grow in proportion to what is pending, so that one large item is not parsed again every chunk.
        chunk = stream.read(max(_CHUNK, len(buffer) - start))
        ended = not chunk
        buffer, start = buffer[start:] + chunk, 0


def _csv_rows(stream: io.TextIOWrapper, path: Path) -> Iterator[tuple[str, Any]]:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    csv.field_size_limit(MAX_RECORD_CHARS)
    reader = csv.DictReader(_lines(stream, path), delimiter=delimiter)
    try:
        for row in reader:
            record = {k: _parsed_field(k, v) for k, v in row.items() if k is not None and v}
            lowered = {k.strip().lower(): v for k, v in record.items()}
            yield f"line {reader.line_num}", {**lowered, **record}
    except csv.Error as exc:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({exc})") from exc
