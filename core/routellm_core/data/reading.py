"""From files to records: outcomes, battles and answers, in the project's own rows or in a foreign form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from routellm_core.data.files import OWN_COLUMNS, OWN_PREFIXES, FileReader, Row, SkippedRows, kind_of, shown_names
from routellm_core.data.forms import FIRST_ROWS, Form, find_form, form_of_labels, known_columns
from routellm_core.data.forms.base import BadRowError, Located, Problem, bundled
from routellm_core.data.records import AnsweredPrompt, Battle, Outcome
from routellm_core.errors import DataError

Record = TypeVar("Record", bound=BaseModel)


def read_outcomes(
    path: str | Path, *, form: str | None = None, skip_bad: SkippedRows | None = None
) -> Iterator[Outcome]:
    """Read outcomes, one at a time, so that a file may be larger than memory.

    Rows have ``prompt`` and ``scores`` (``{"model": number, ...}``; in CSV and parquet also JSON text, a map or a
    struct), or one field ``scores.MODEL`` per model, empty if that model has no score. Optional fields: ``id`` (or
    ``prompt_id``), ``source``, ``weight``, ``costs`` (``{"model": number}``, or ``costs.MODEL``) and ``tokens``
    (``{"model": {"input": number, "output": number}}``). Of a chat in ``turns``, the first turn is the prompt. Rows of
    a foreign form are translated, see `routellm_core.data.forms.FORMS`. File formats are those of `read_rows`.

    Args:
        path: The file.
        form: Name of the foreign form; None recognises it by the content.
        skip_bad: Counts malformed rows, which are then skipped; None raises at the first one.

    Raises:
        DataError: The file does not exist, cannot be read, is empty or has another form, or a row is malformed; the
            message names file, place and field.
        ConfigurationError: `form` is unknown.
        MissingExtraError: The file is parquet and pyarrow is not installed.
    """
    return _records(path, _OUTCOMES, form, skip_bad)


def read_battles(path: str | Path, *, form: str | None = None, skip_bad: SkippedRows | None = None) -> Iterator[Battle]:
    """Read battles, one at a time, so that a file may be larger than memory.

    Rows have ``prompt``, ``model_a``, ``model_b`` and ``winner`` (``"model_a"``, ``"model_b"`` or ``"tie"``). Optional
    fields, arguments and errors as for `read_outcomes`.
    """
    return _records(path, _BATTLES, form, skip_bad)


def read_preferences(
    path: str | Path, *, form: str | None = None, skip_bad: SkippedRows | None = None
) -> Iterator[Battle | Outcome]:
    """Read battles or outcomes, whichever each row is; arguments and errors as for `read_outcomes`."""
    return _records(path, _PREFERENCES, form, skip_bad)


def read_answers(
    path: str | Path, *, form: str | None = None, skip_bad: SkippedRows | None = None
) -> Iterator[AnsweredPrompt]:
    """Read prompts with answers that are yet to be labelled.

    Rows have ``prompt``, ``answers`` (``{"model": "text", ...}``, or fields ``answers.MODEL``; may be absent if the
    answers are to be generated) and, for gold labels, ``gold``. Optional fields, arguments and errors as for
    `read_outcomes`.
    """
    return _records(path, _ANSWERS, form, skip_bad)


def preferences_of(
    file: FileReader, *, form: str | None = None, keep: Callable[[Row], bool] | None = None
) -> Iterator[tuple[str, Battle | Outcome]]:
    """Like `read_preferences`, but yields each record with its place, for callers that report on rows.

    Args:
        file: The file; its `skip_bad` decides about malformed rows.
        form: As for `read_preferences`.
        keep: Decides, from a row as it stands in the file, whether to read it; None reads all.
    """
    return _located(file, _PREFERENCES, None if form is None else find_form(form), keep)


class _Kind(NamedTuple, Generic[Record]):
    """What a reader looks for: how to parse a row, how to recognise one, and what to call the records in messages."""

    parse: Callable[[Row], Record]
    known: Callable[[Row], bool]
    name: str


def _records(path: str | Path, kind: _Kind[Record], form: str | None, skipped: SkippedRows | None) -> Iterator[Record]:
    found = None if form is None else find_form(form)
    file = FileReader(path, skip_bad=skipped, columns=known_columns())
    # checked when called, not when first advanced
    return (record for _, record in _located(file, kind, found, None))


def _located(
    file: FileReader, kind: _Kind[Record], form: Form | None, keep: Callable[[Row], bool] | None
) -> Iterator[tuple[str, Record]]:
    # closed explicitly: an error that someone holds on to must not leave the file open
    with closing(file.rows()) as rows:
        for where, row in _own_rows(file, rows, kind, form, keep):
            if isinstance(row, Problem):
                file.refuse(where, row.text)
                continue
            try:
                record = kind.parse(row)
            except ValidationError as exc:
                file.refuse(where, _first_problem(exc))
            except (BadRowError, RecursionError) as exc:
                file.refuse(where, "nested too deeply" if isinstance(exc, RecursionError) else str(exc))
            else:
                yield where, record


def _own_rows(
    file: FileReader,
    rows: Iterator[Located],
    kind: _Kind[Any],
    form: Form | None,
    keep: Callable[[Row], bool] | None,
) -> Iterator[tuple[str, Row | Problem]]:
    """Rows of a file, or of the only object in it, translated from the form that the first rows have."""
    skipped = file.skip_bad.count if file.skip_bad else 0
    first = list(islice(rows, FIRST_ROWS))
    if not first and skipped == (file.skip_bad.count if file.skip_bad else 0):
        raise DataError(f"{file.path}: is empty; expected {kind.name}")
    rows = chain(first, rows)
    if file.columns is not None:
        renamed = _own_names(file)
        first = list(_table_rows(first, renamed))
        rows = _table_rows(rows, renamed)
    if form is None:
        form = form_of_labels([row for _, row in first])
    alone = len(first) == 1 and file.columns is None and not kind.known(first[0][1])
    if form is None and alone and (inner := bundled(first[0][1])):
        located = [(f"item {i} of {inner[0]!r}", row) for i, row in enumerate(inner[1], 1)]
        first, rows = located[:FIRST_ROWS], iter(located)
        form = form_of_labels([row for _, row in first])
    if keep is not None:
        rows = ((where, row) for where, row in rows if keep(row))
    translated: Iterator[tuple[str, Row | Problem]] = rows if form is None else _translated(form, rows)
    peeked = list(islice(translated, FIRST_ROWS))
    if peeked and not any(isinstance(row, Problem) or (_has_prompt(row) and kind.known(row)) for _, row in peeked):
        names = dict.fromkeys(name for _, row in first for name in row)
        raise DataError(
            f"{file.path}, {peeked[0][0]}: expected {kind.name}; fields seen: {shown_names(names)}; rename the fields, "
            "or convert the rows (in Python with read_rows)"
        )
    return chain(peeked, translated)


def _own_names(file: FileReader) -> dict[str, str]:
    """Columns that match the project's own except for case: spreadsheets often write ``Prompt``, for example."""
    renamed: dict[str, str] = {}
    for name in file.columns or ():
        lowered = name.lower()
        prefix = next((prefix for prefix in OWN_PREFIXES if lowered.startswith(prefix)), "")
        own = lowered if lowered in (*OWN_COLUMNS, "id", "source", "weight") else prefix + name[len(prefix) :]
        if own != name and own not in (file.columns or ()):
            if own in renamed.values():
                raise DataError(f"{file.path}: two columns are named {own!r} except for case; rename one of them")
            renamed[name] = own
    return renamed


def _table_rows(rows: Iterable[Located], renamed: dict[str, str]) -> Iterator[Located]:
    """Rows of a table under the project's own names, without the empty rows that spreadsheets leave."""
    for where, row in rows:
        if any(value is not None and value != "" for value in row.values()):
            yield where, {renamed.get(name, name): value for name, value in row.items()} if renamed else row


def _translated(form: Form, rows: Iterable[Located]) -> Iterator[tuple[str, Row | Problem]]:
    if form.rows is None:
        raise DataError(f"form={form.name!r} is a form of traffic without labels; use it with calibrate and route")
    return form.rows(rows)


_ALLOWED = {
    "dict_type": "expected an object {model: value}",
    "finite_number": "expected a finite number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "greater_than_equal": "expected a number >= 0",
    "literal_error": "expected model_a, model_b or tie",
    "string_too_short": "expected a text that is not empty",
    "string_type": "expected a text",
    "too_short": "expected at least one model",
}
# The texts of these fields are private and never appear in a message.
_PRIVATE = {"prompt", "answers", "gold"}


def _first_problem(exc: ValidationError) -> str:
    error = exc.errors(include_url=False)[0]
    parts = [str(part) for part in error["loc"] if part != "[key]"]
    place = f"field {'.'.join(parts)[:80]!r}" if parts else "row"
    if error["type"] == "missing":
        return f"{place}: missing"
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{place}: {text}"
    value = error.get("input")
    got = kind_of(value)
    if not parts or parts[0] not in _PRIVATE:
        if isinstance(value, str) and len(value) <= 40:
            got = repr(value) + ("; write decimals with a point" if re.fullmatch(r"[+-]?\d+,\d+", value) else "")
        elif isinstance(value, int) and error["type"] == "float_type":
            got = "a number too large for a float"
        elif isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10**12):
            got = repr(value)
    return f"{place}: {_ALLOWED.get(error['type'], text)}, got {got}"


def _normalised(row: Row, mapping: str | None = None) -> Row:
    """Name fields as the records do and gather the fields of a mapping; an empty cell counts as missing."""
    out = {key: value for key, value in row.items() if value is not None and (value != "" or key == "prompt")}
    if "prompt" not in out and "turns" in out:
        turns = _json("turns", out["turns"]) if isinstance(out["turns"], str) else out["turns"]
        if isinstance(turns, list) and turns:
            out["prompt"] = turns[0]  # a conversation is routed by its first turn
    if "id" not in out and "prompt_id" in out:
        out["id"] = out["prompt_id"]
    for name in ("costs", "tokens") if mapping is None else (mapping, "costs", "tokens"):
        value = out.get(name)
        if value is None:
            prefix = f"{name}."
            if columns := {key.removeprefix(prefix): value for key, value in out.items() if key.startswith(prefix)}:
                out[name] = columns
        elif not isinstance(value, dict):
            out[name] = _mapping(name, value)
    return out


def _mapping(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _json(name, value)
    if isinstance(value, list):
        try:
            return dict(value)  # pyarrow returns a map as a list of pairs
        except (TypeError, ValueError):
            pass
    return value


def _json(name: str, value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRowError(f"field {name!r}: expected JSON text, got text that is not JSON") from None


def _has_prompt(row: Row) -> bool:
    return "prompt" in row or "turns" in row


def _is_outcome(row: Row) -> bool:
    return "scores" in row or any(key.startswith("scores.") for key in row)


def _is_battle(row: Row) -> bool:
    return "winner" in row


def _outcome(row: Row) -> Outcome:
    return Outcome.model_validate(_normalised(row, "scores"))


def _battle(row: Row) -> Battle:
    return Battle.model_validate(_normalised(row))


def _preference(row: Row) -> Battle | Outcome:
    if _is_battle(row):
        return _battle(row)
    if _is_outcome(row):
        return _outcome(row)
    raise BadRowError(
        "neither an outcome (field 'scores') nor a battle (fields 'model_a', 'model_b', 'winner'); it has: "
        + shown_names(row)
    )


def _answered(row: Row) -> AnsweredPrompt:
    return AnsweredPrompt.model_validate(_normalised(row, "answers"))


_OUTCOMES: _Kind[Outcome] = _Kind(_outcome, _is_outcome, "outcomes (fields 'prompt' and 'scores')")
_BATTLES: _Kind[Battle] = _Kind(_battle, _is_battle, "battles (fields 'prompt', 'model_a', 'model_b' and 'winner')")
_PREFERENCES: _Kind[Battle | Outcome] = _Kind(
    _preference,
    lambda row: _is_battle(row) or _is_outcome(row),
    "outcomes (fields 'prompt' and 'scores') or battles (fields 'prompt', 'model_a', 'model_b' and 'winner')",
)
_ANSWERS: _Kind[AnsweredPrompt] = _Kind(
    _answered,
    _has_prompt,
    "prompts with answers (fields 'prompt' and 'answers', for gold labels also 'gold')",
)
