"""Prompts from files of traffic: text, tables, JSON, and exports of other tools.

The prompt of a recorded call is the text that it would be routed on: the last user message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routellm_core.data.chats import (
    PROMPT_FIELDS,
    VERBATIM_FIELDS,
    parsed,
    routed_text,
    texts_of_call,
    texts_of_input,
)
from routellm_core.data.files import FileReader, Row, kind_of, shown_names
from routellm_core.data.forms import FIRST_ROWS, Form, find_form, form_of_labels, form_of_traffic, known_columns
from routellm_core.data.forms.base import Problem, bundled
from routellm_core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from routellm_core.data.files import FileFormat, SkippedRows

__all__ = ["PromptReader", "prompts_of_record", "read_prompts", "routed_text"]

# Columns that mark a table as an export; its rows need more than the prompt column to be understood.
_EXPORT_COLUMNS = {
    "run_type", "inputs", "traceid", "trace_id", "attributes", "observations", "proxy_server_request", "request_body",
    "custom_id",
}  # fmt: skip
# "data" is a common name: an object is a page of an API only if it has no fields but these.
_PAGE_FIELDS = {"data", "meta", "cursor", "cursors"}
# Fields that take precedence over a prompt beside them: inputs of a recorded call, or a message itself.
_COMPETING = frozenset({"inputs", "input", "messages", "prompts", "role", "type", "message", "kwargs", "data"})
# The form is remembered for this many sets of field names; a file with more uses data as field names.
_MAX_SHAPES = 1000


class PromptReader:
    """Iterates over the prompts of a file; see `read_prompts`.

    Attributes:
        path: The file.
        total_bytes: Its size on disk.
        skipped: Records skipped so far because they hold no prompt (blank records, and steps of a trace that are not
            model calls).
    """

    def __init__(
        self,
        path: str | Path,
        *,
        format: FileFormat = "auto",
        field: str | None = None,
        form: str | None = None,
        skip_bad: SkippedRows | None = None,
    ) -> None:
        if form is not None and field is not None:
            raise ConfigurationError(
                f"form={form!r}, field={field!r}: a form knows where its prompts are; use only one of the two"
            )
        self._form = None if form is None else find_form(form)
        columns = {*PROMPT_FIELDS, *known_columns(), *(() if field is None else (field, field.split(".")[0]))}
        self._file = FileReader(path, format=format, skip_bad=skip_bad, text=True, columns=columns)
        self.path = self._file.path
        self.format = format
        self.field = field
        self.form = form
        self.skip_bad = skip_bad
        self.total_bytes = self._file.total_bytes
        self.skipped = 0
        self._first: list[Any] = []
        self._read_as: Form | None = None

    @property
    def bytes_read(self) -> int:
        """How far the file has been read, in bytes on disk: for a progress bar."""
        return self._file.bytes_read

    def no_prompt(self) -> DataError:
        """Return the error for a file in which no prompt was found; it names the fields that were seen."""
        if not self.skipped:
            return DataError(f"{self.path}: contains no prompt; it has no records")
        names = dict.fromkeys(name for value in self._first if isinstance(value, dict) for name in value)
        seen = f" (fields seen: {shown_names(names)})" if names else ""
        rows = [value for value in self._first if isinstance(value, dict)]
        form = self._read_as or next((form for row in rows if (form := form_of_traffic(row))), None)
        if form is not None:
            needs = f"; needs {form.needs}" if form.needs else ""
            seen += f"; it was read as {form.name!r} ({form.title}{needs})"
        return DataError(
            f"{self.path}: contains no prompt in its {self.skipped:,} records{seen}; name the field of the prompt with "
            "--field (in Python field=), or the format of the file with --format (format=)"
        )

    def __iter__(self) -> Iterator[str]:
        self.skipped = 0
        # closed explicitly: an error that someone holds on to must not leave the file open
        with closing(iter(self._file)) as values:
            first = list(islice(values, FIRST_ROWS))
            self._first = [value for _, value in first]
            numbered = chain(first, values)
            if self._file.kind == "text":
                for _, text in numbered:
                    if text.strip():
                        yield text
                    else:
                        self.skipped += 1
                return
            for texts in self._found(numbered):
                self.skipped += not texts
                yield from texts

    def _found(self, numbered: Iterator[tuple[int | str, Any]]) -> Iterator[Sequence[str]]:
        """The texts of each record, read in the form that the first records have."""
        form = self._form
        if self.field is None and form is None:
            form = form_of_labels([value for value in self._first if isinstance(value, dict)])
            alone = len(self._first) == 1 and self._file.columns is None
            if form is None and alone and (inside := _inside(self._first[0])):
                numbered = iter(inside)
                form = form_of_labels([row for _, row in inside[:FIRST_ROWS]])
        if form is not None and form.plain and self._form is None and self._has_usual_names():
            form = None  # its prompts stand where those of any file do
        self._read_as = form
        if form is not None and form.prompts is None:
            return self._of_labels(form, numbered)
        return self._texts(numbered, form)

    def _has_usual_names(self) -> bool:
        """Whether the first records have a prompt under a usual name; columns of tables are found in any case."""
        first = self._first[0] if self._first else None
        return (
            self._file.columns is not None or not isinstance(first, dict) or not first.keys().isdisjoint(PROMPT_FIELDS)
        )

    def _of_labels(self, form: Form, numbered: Iterable[tuple[int | str, Any]]) -> Iterator[list[str]]:
        """Prompts of rows that are labels in a foreign form; where a row is about one model, each prompt once."""
        assert form.rows is not None
        seen: set[bytes] = set()
        for where, row in form.rows(self._rows(numbered), None):
            if isinstance(row, Problem):
                self._file.refuse(where, row.text)
                continue
            texts = texts_of_call({"prompt": row.get("prompt")})
            if form.joins and texts:
                key = hashlib.blake2b(texts[0].encode("utf-8", "surrogatepass"), digest_size=16).digest()
                if key in seen:
                    continue
                seen.add(key)
            yield texts

    def _rows(self, numbered: Iterable[tuple[int | str, Any]]) -> Iterator[tuple[str, Row]]:
        for where, value in numbered:
            if isinstance(value, dict):
                yield self._file.place(where) if isinstance(where, int) else where, value
            else:
                self._file.refuse(where, f"expected an object, got {kind_of(value)}")

    def _texts(self, numbered: Iterable[tuple[int | str, Any]], form: Form | None) -> Iterator[Sequence[str]]:
        """The texts of each record: none, one or several."""
        columns = None if self._file.columns is None else self._columns()
        shapes: dict[tuple[str, ...], _Shape] = {}
        read = _FormReader()
        for where, value in numbered:
            try:
                if columns is not None:
                    value = {key: value[name] if whole else parsed(value[name]) for key, name, whole in columns}
                if self.field is not None:
                    texts = self._of_field(value, where)
                    if texts is None:
                        continue
                elif form is not None and form.prompts is not None:
                    texts = read.texts(value, form) if isinstance(value, dict) else []
                elif isinstance(value, dict):
                    names = tuple(value)
                    shape = shapes.get(names)
                    if shape is None:
                        shape = _Shape(value)
                        if len(shapes) < _MAX_SHAPES:
                            shapes[names] = shape
                    text = value[shape.field] if shape.field is not None else None
                    if isinstance(text, str) and not text.isspace() and text:
                        yield (text,)
                        continue
                    texts = read.texts(value, shape.form)
                else:
                    texts = texts_of_call(value)
            except RecursionError as exc:
                self._file.refuse(where, "nested too deeply", exc)
                continue
            yield texts

    def _columns(self) -> list[tuple[str, str, bool]]:
        """Choose the columns to look for the prompt in, once per table, so that no other cell replaces an empty one.

        Returns:
            For each column the name to look it up by, its name in the table, and whether its text is the prompt itself.
        """
        names = self._file.columns or []
        lowered = {name.lower(): name for name in names} | {name: name for name in names if name == name.lower()}
        whole = {name: name for name in names}
        if self.field is not None:
            chosen = {key: name for key, name in lowered.items() if f"{self.field}.".startswith(f"{key}.")} | whole
        elif not _EXPORT_COLUMNS.isdisjoint(lowered):
            chosen = lowered | whole
        else:
            prompt = next((key for key in PROMPT_FIELDS if key in lowered), None)
            chosen = lowered if prompt is None else {prompt: lowered[prompt]}
        return [(key, name, key.lower() in VERBATIM_FIELDS) for key, name in chosen.items()]

    def _of_field(self, record: Any, where: int | str) -> list[str] | None:
        assert self.field is not None
        # a name may contain a dot itself, like the columns of a flattened table
        whole = isinstance(record, dict) and self.field in record
        path = [self.field] if whole else self.field.split(".")
        value: Any = record
        for key in path:
            if not isinstance(value, dict) or key not in value:
                has = f"it has: {shown_names(value)}" if isinstance(value, dict) else f"it is {kind_of(value)}"
                self._file.refuse(where, f"there is no field {self.field!r}; {has}")
                return None
            value = value[key]
        return texts_of_input({"prompts": value} if path[-1] == "prompts" else value)


def read_prompts(
    path: str | Path,
    *,
    format: FileFormat = "auto",
    field: str | None = None,
    form: str | None = None,
    skip_bad: SkippedRows | None = None,
) -> PromptReader:
    """Stream the prompts of a file of traffic.

    Recorded calls may be objects with a ``prompt``, ``question``, ``text``, ``input`` or ``messages`` field, runs of a
    LangSmith export, observations or traces of a Langfuse export, or spans of OpenTelemetry (OTLP JSON or the console
    exporter; the GenAI, OpenLLMetry and OpenInference attribute names). Of an export, only model calls are read. Files
    with labels (outcomes, battles) yield their prompts.

    Args:
        path: The file, plain or gzip, UTF-8.
        format: ``"text"`` (one prompt per line), ``"jsonl"``, ``"json"`` (an array, or objects one after another),
            ``"csv"`` (with a header; separated by commas, semicolons or tabs), ``"parquet"``, or ``"auto"``, which goes
            by the content and, if that leaves a choice, by the name.
        field: Name of the field or column that holds the prompt. If there is no field of that name, dots in it are read
            as a path, as in ``"inputs.question"``.
        form: Name of the foreign form (see `routellm_core.data.forms.FORMS`); None recognises it by the content.
        skip_bad: Counts malformed rows, which are then skipped; None raises at the first one.

    Returns:
        An iterable of str that starts from the beginning each time and knows how far it has read.

    Raises:
        DataError: The file does not exist; while reading, a record is malformed or lacks `field`.
        ConfigurationError: `format` or `form` is unknown, or both `field` and `form` are given.
        MissingExtraError: The file is parquet and pyarrow is not installed.
    """
    return PromptReader(path, format=format, field=field, form=form, skip_bad=skip_bad)


def prompts_of_record(record: Any) -> Iterator[str]:
    """Yield the routing texts of one parsed record: none, one, or several if it bundles spans, runs or calls."""
    if isinstance(record, dict):
        labels = form_of_labels([record])
        if labels is not None and labels.rows is not None and labels.prompts is None and not labels.plain:
            rows = [row for _, row in labels.rows([("record", record)], None) if not isinstance(row, Problem)]
            yield from (text for row in rows for text in texts_of_call({"prompt": row.get("prompt")}))
            return
    yield from _FormReader().texts(record, form_of_traffic(record) if isinstance(record, dict) else None)


class _Shape:
    """What all records with the same field names have in common.

    Attributes:
        form: Their foreign form, or None.
        field: The field whose text is the prompt, or None if another field may take precedence over it.
    """

    def __init__(self, record: Row) -> None:
        self.form = form_of_traffic(record)
        plain = self.form is None and _COMPETING.isdisjoint(record)
        self.field = next((name for name in PROMPT_FIELDS if name in record), None) if plain else None
        if self.field not in VERBATIM_FIELDS:
            self.field = None


class _FormReader:
    """Reads the records of one file, each in its own form."""

    def __init__(self) -> None:
        self._started: dict[str, Callable[[Row], list[str]]] = {}

    def texts(self, record: Any, form: Form | None) -> list[str]:
        if form is None or form.prompts is None:
            return _texts_of(record)
        if form.start is None:
            return form.prompts(record)
        if form.name not in self._started:
            self._started[form.name] = form.start()
        return self._started[form.name](record)


def _texts_of(record: Any) -> list[str]:
    if isinstance(record, dict) and "data" in record and record.keys() <= _PAGE_FIELDS:
        page = record["data"]
        items = [item for item in page if isinstance(item, dict)] if isinstance(page, list) else []
        if items:
            return [text for item in items for text in prompts_of_record(item)]
    return texts_of_call(record)


def _inside(value: Any) -> list[tuple[str, Row]] | None:
    """The rows inside the only record of a file, unless that record is a call itself."""
    try:
        if not isinstance(value, dict) or form_of_traffic(value) is not None or any(prompts_of_record(value)):
            return None
    except RecursionError:
        return None
    found = bundled(value)
    return None if found is None else [(f"item {i} of {found[0]!r}", row) for i, row in enumerate(found[1], 1)]
