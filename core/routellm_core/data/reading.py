"""From files to records: outcomes, battles and answers, in the project's own rows or in a foreign form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from routellm_core.data.chats import parsed, texts_of_call
from routellm_core.data.files import OWN_COLUMNS, OWN_PREFIXES, FileReader, Row, SkippedRows, kind_of, shown_names
from routellm_core.data.forms import FIRST_ROWS, Form, find_form, form_of_labels, form_of_traffic, known_columns
from routellm_core.data.forms.base import BadRowError, Located, Problem, bundled
from routellm_core.data.forms.values import PROMPT_NAMES, SCORE_NAMES, UNNAMED, id_of, opening
from routellm_core.data.joining import Joiner, JoinReport
from routellm_core.data.records import AnsweredPrompt, Battle, Outcome
from routellm_core.data.refusals import Seen, incomplete, nameless, prompts_at_least, refusal, traffic_only
from routellm_core.data.sources import Data, Source, sources_of
from routellm_core.errors import DataError

Parsed = TypeVar("Parsed", bound=BaseModel)


def read_outcomes(
    data: Data, *, form: str | None = None, skip_bad: SkippedRows | None = None, joined: JoinReport | None = None
) -> Iterator[Outcome]:
    """Read outcomes, one at a time, so that a file may be larger than memory.

    Rows have ``prompt`` and ``scores`` (``{"model": number, ...}``; in CSV and parquet also JSON text, a map or a
    struct), or one field ``scores.MODEL`` per model, empty if that model has no score. Optional fields: ``id`` (or
    ``prompt_id``), ``source``, ``weight``, ``costs`` (``{"model": number}``, or ``costs.MODEL``), ``tokens``
    (``{"model": {"input": number, "output": number}}``) and ``accepted`` (what a check says of the weak model's answer:
    true, false or a score). Of a chat in ``turns``, the first turn is the prompt. Rows of
    a foreign form are translated, see `routellm_core.data.forms.FORMS`. File formats are those of `read_rows`.

    Rows about one model each, in one file or in several, are joined by prompt or id, and held in memory for that.
    Other rows of several files follow one another.

    Args:
        data: A file, or several; or ``{model: file}`` (also ``"MODEL=FILE"``) for files that do not name their model.
        form: Name of the foreign form; None recognises it by the content.
        skip_bad: Counts malformed rows, which are then skipped; None raises at the first one.
        joined: Notes how rows about one model each were joined.

    Raises:
        DataError: The file does not exist, cannot be read, is empty or has another form, or a row is malformed; the
            message names file, place and field. Or the files are about one model only, do not name it, or have no
            prompts; the message says which file or option completes them.
        ConfigurationError: `form` is unknown.
        MissingExtraError: The file is parquet and pyarrow is not installed.
    """
    return _records(data, _OUTCOMES, form, skip_bad, joined)


def read_battles(
    data: Data, *, form: str | None = None, skip_bad: SkippedRows | None = None, joined: JoinReport | None = None
) -> Iterator[Battle]:
    """Read battles, one at a time, so that a file may be larger than memory.

    Rows have ``prompt``, ``model_a``, ``model_b`` and ``winner`` (``"model_a"``, ``"model_b"`` or ``"tie"``). Optional
    fields, arguments and errors as for `read_outcomes`.
    """
    return _records(data, _BATTLES, form, skip_bad, joined)


def read_preferences(
    data: Data, *, form: str | None = None, skip_bad: SkippedRows | None = None, joined: JoinReport | None = None
) -> Iterator[Battle | Outcome]:
    """Read battles or outcomes, whichever each row is; arguments and errors as for `read_outcomes`."""
    return _records(data, _PREFERENCES, form, skip_bad, joined)


def read_answers(
    data: Data, *, form: str | None = None, skip_bad: SkippedRows | None = None, joined: JoinReport | None = None
) -> Iterator[AnsweredPrompt]:
    """Read prompts with answers that are yet to be labelled.

    Rows have ``prompt``, ``answers`` (``{"model": "text", ...}``, or fields ``answers.MODEL``; may be absent if the
    answers are to be generated) and, for gold labels, ``gold``. Of traffic, the prompts are read. Optional fields,
    arguments and errors as for `read_outcomes`.
    """
    return _records(data, _ANSWERS, form, skip_bad, joined)


def preferences_of(
    data: Data,
    *,
    form: str | None = None,
    skip_bad: SkippedRows | None = None,
    joined: JoinReport | None = None,
    keep: Callable[[Row], bool] | None = None,
) -> Iterator[tuple[str, Battle | Outcome]]:
    """Like `read_preferences`, but yields each record with its place, for callers that report on rows.

    Args:
        data: As for `read_preferences`, likewise `form`, `skip_bad` and `joined`.
        form: See there.
        skip_bad: See there.
        joined: See there.
        keep: Decides, from a row as it stands in the file, whether to read it; None reads all.
    """
    return _located(
        sources_of(data), _PREFERENCES, _Options(None if form is None else find_form(form), skip_bad, joined, keep)
    )


def joined_together(data: Data, *, form: str | None = None) -> list[list[Source]]:
    """Group files by whether their rows are about one model each: those are read together, each other one by itself.

    Args:
        data: As for `read_preferences`.
        form: See there.

    Raises:
        DataError: As `read_preferences` does, for the first rows of each file.
    """
    sources = sources_of(data)
    options = _Options(None if form is None else find_form(form), SkippedRows(), None)
    together: list[Source] = []
    groups: list[list[Source]] = []
    for source in sources if len(sources) > 1 else ():
        file = FileReader(source.path, skip_bad=options.skip_bad, columns=_columns())
        with closing(file.rows()) as rows:
            if not _Part(source, file, rows, _PREFERENCES, options, several=True).joins:
                groups.append([source])
                continue
        if not together:
            groups.append(together)
        together.append(source)
    return groups or [sources]


class _Kind(NamedTuple, Generic[Parsed]):
    """What a reader looks for.

    Attributes:
        parse: How a row becomes a record.
        known: Whether a row has the fields that it is known by.
        name: What it is called, with its fields.
        wanted: What a joined row must hold.
        least: For how many models.
    """

    parse: Callable[[Row], Parsed]
    known: Callable[[Row], bool]
    name: str
    wanted: tuple[str, ...]
    least: int


class _Options(NamedTuple):
    """What the caller said about the reading."""

    form: Form | None
    skip_bad: SkippedRows | None
    joined: JoinReport | None
    keep: Callable[[Row], bool] | None = None


def _records(
    data: Data, kind: _Kind[Parsed], form: str | None, skip_bad: SkippedRows | None, joined: JoinReport | None
) -> Iterator[Parsed]:
    sources = sources_of(data)
    options = _Options(None if form is None else find_form(form), skip_bad, joined)
    for source in sources:
        FileReader(source.path)  # checked when called, not when first advanced
    return (record for _, record in _located(sources, kind, options))


def _located(sources: Sequence[Source], kind: _Kind[Parsed], options: _Options) -> Iterator[tuple[str, Parsed]]:
    report = options.joined or JoinReport()
    joiner = Joiner(report, least=kind.least, fields=kind.wanted)
    parts: list[_Part] = []
    for source in sources:
        file = FileReader(source.path, skip_bad=options.skip_bad, columns=_columns())
        # closed explicitly: an error that someone holds on to must not leave the file open
        with closing(file.rows()) as rows:
            part = _Part(source, file, rows, kind, options, several=len(sources) > 1)
            parts.append(part)
            for where, row in part.rows:
                if isinstance(row, Problem):
                    file.refuse(where, row.text)
                elif part.joins:
                    try:
                        joiner.add(file, where, _named(_gathered(row)))
                    except BadRowError as exc:
                        file.refuse(where, str(exc))
                elif part.seen.form is not None and kind is not _ANSWERS and not (_is_battle(row) or _is_outcome(row)):
                    report.unlabelled += 1
                else:
                    yield from _parsed(kind, file, where, row)
    found = False
    for file, where, row in joiner.rows():
        found = True
        yield from _parsed(kind, file, where, row)
    if not found and any(part.joins for part in parts):
        seen = [part.seen for part in parts if part.joins]
        raise incomplete(seen, report, joiner.answered(), answers=kind is _ANSWERS)


def _parsed(kind: _Kind[Parsed], file: FileReader, where: str, row: Row) -> Iterator[tuple[str, Parsed]]:
    try:
        record = kind.parse(row)
    except ValidationError as exc:
        file.refuse(where, _first_problem(exc))
    except (BadRowError, RecursionError) as exc:
        file.refuse(where, "nested too deeply" if isinstance(exc, RecursionError) else str(exc))
    else:
        yield where, record


def _columns() -> frozenset[str]:
    return known_columns() | {*PROMPT_NAMES, *SCORE_NAMES}


class _Part:
    """The rows of a file, or of the only object in it, translated from the form that the first rows have.

    Attributes:
        rows: The rows of the project's own, with their places.
        joins: Whether they are about one model each, or lack the prompt.
        seen: What is known about the file, for refusals.
    """

    def __init__(
        self,
        source: Source,
        file: FileReader,
        rows: Iterator[Located],
        kind: _Kind[Any],
        options: _Options,
        *,
        several: bool,
    ) -> None:
        rows, first, form = _recognised(file, rows, kind, options.form)
        self.seen = Seen(source, [row for _, row in first], form)
        if options.keep is not None:
            keep = options.keep
            rows = ((where, row) for where, row in rows if keep(row))
        translated = rows if form is None else self._translated(form, rows, kind)
        peeked = list(islice(translated, FIRST_ROWS))
        read = [row for _, row in peeked if not isinstance(row, Problem)]
        self.joins = form is not None and form.joins
        if not self.joins and read and several:
            self.joins = all(_is_partial(row, kind) for row in read)
        elif form is not None and form.plain and read and kind is not _ANSWERS:
            self.joins = all(len(_models_of(row)) == 1 for row in read)  # which nothing completes: it is refused
        if peeked:
            self._check(file, kind, peeked, read, strict=options.skip_bad is None)
        self.rows: Iterator[tuple[str, Row | Problem]] = chain(peeked, translated)

    def _translated(self, form: Form, rows: Iterable[Located], kind: _Kind[Any]) -> Iterator[tuple[str, Row | Problem]]:
        if form.rows is not None:
            return form.rows(rows, self.seen.source.model)
        if kind is not _ANSWERS or form.prompts is None:
            raise traffic_only(self.seen)
        return _prompts_of(form.prompts, rows)

    def _check(
        self,
        file: FileReader,
        kind: _Kind[Any],
        peeked: Sequence[tuple[str, Row | Problem]],
        read: Sequence[Row],
        *,
        strict: bool,
    ) -> None:
        """Refuse a file whose first rows are not what is looked for; of those, `read` are not malformed."""
        where, first = peeked[0]
        if not read:
            if strict and isinstance(first, Problem):
                file.refuse(where, f"{first.text}; fields seen: {self.seen.fields()}{prompts_at_least(self.seen)}")
        elif self.joins:
            if all(UNNAMED in _models_of(row) for row in read):
                raise nameless(self.seen)
        elif len(read) == len(peeked) and not any(_has_prompt(row) and kind.known(row) for row in read):
            raise refusal(f"{file.path}, {where}", kind.name, self.seen, read)
        if self.seen.form is None and (model := self.seen.source.model) is not None:
            raise DataError(f"{file.path}: its rows name their models; give it without {model}= before it")


def _recognised(
    file: FileReader, rows: Iterator[Located], kind: _Kind[Any], form: Form | None
) -> tuple[Iterator[Located], list[Located], Form | None]:
    """All rows of a file, or of the only object in it; the first of them; and their form, if it is a foreign one."""
    skipped = file.skip_bad.count if file.skip_bad else 0
    first = list(islice(rows, FIRST_ROWS))
    if not first and skipped == (file.skip_bad.count if file.skip_bad else 0):
        raise DataError(f"{file.path}: is empty; expected {kind.name}")
    rows = chain(first, rows)
    if file.columns is not None:
        renamed = _own_names(file)
        first = list(_table_rows(first, renamed))
        rows = _table_rows(rows, renamed)
    form = form or form_of_labels([row for _, row in first])
    alone = len(first) == 1 and file.columns is None and (not kind.known(first[0][1]) or _is_table(first[0][1]))
    if form is None and alone and (inner := bundled(first[0][1])):
        located = [(f"item {i} of {inner[0]!r}", row) for i, row in enumerate(inner[1], 1)]
        first, rows = located[:FIRST_ROWS], iter(located)
        form = form_of_labels([row for _, row in first])
    if form is None and kind is _ANSWERS and first and not _has_prompt(first[0][1]):
        form = form_of_traffic(first[0][1]) or _usual_traffic(first[0][1])
    return rows, first, form


def _is_table(row: Row) -> bool:
    """Whether the only row of a file has columns in the place of a prompt and its scores."""
    return isinstance(row.get("prompt"), dict) or isinstance(row.get("scores"), list)


def _usual_traffic(row: Row) -> Form | None:
    """Records of calls without a form of their own, as in {"messages": [...]}."""
    try:
        found = texts_of_call(row)
    except RecursionError:
        return None
    title = "records of calls with messages, an input or a text"
    usual = Form("traffic", title, ("messages", "input"), lambda rows: False, ("prompts",), prompts=texts_of_call)
    return usual if found else None


def _prompts_of(read: Callable[[Row], list[str]], rows: Iterable[Located]) -> Iterator[tuple[str, Row | Problem]]:
    """A row for each prompt of traffic."""
    for where, row in rows:
        try:
            texts = read(row)
        except RecursionError:
            yield where, Problem("nested too deeply")
        else:
            yield from ((where, {"prompt": text}) for text in texts)


def _is_partial(row: Row, kind: _Kind[Any]) -> bool:
    """Whether a row needs another one: it is about one model, or lacks the prompt, or has it for the rows of others."""
    if not _has_prompt(row):
        return id_of(row) is not None
    models = _models_of(row)
    return "winner" not in row and (len(models) == 1 or (not models and (kind is _ANSWERS or id_of(row) is not None)))


def _models_of(row: Row) -> set[str]:
    """The models that a row has scores or answers of."""
    try:
        row = _gathered(row)
    except BadRowError:
        return set()
    return {name for field in ("scores", "answers") if isinstance(row.get(field), dict) for name in row[field]}


def _named(row: Row) -> Row:
    """The row itself, whose models all have names."""
    if UNNAMED in _models_of(row):
        raise BadRowError("names no model, as other rows do")
    return row


def _own_names(file: FileReader) -> dict[str, str]:
    """Columns that match the project's own except for case: spreadsheets often write ``Prompt``, for example."""
    renamed: dict[str, str] = {}
    for name in file.columns or ():
        lowered = name.lower()
        prefix = next((prefix for prefix in OWN_PREFIXES if lowered.startswith(prefix)), "")
        own = (
            lowered if lowered in (*OWN_COLUMNS, "id", "source", "weight", "accepted") else prefix + name[len(prefix) :]
        )
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


def _gathered(row: Row) -> Row:
    """A row as the records have it, with its id and all that it holds for each model."""
    out = _normalised(row, *(name for name in ("scores", "answers") if name in row or _has_columns(row, name)))
    return out if (name := id_of(row)) is None else {**out, "id": name}


def _has_columns(row: Row, mapping: str) -> bool:
    return any(key.startswith(f"{mapping}.") for key in row)


def _normalised(row: Row, *mappings: str) -> Row:
    """Name fields as the records do and gather the fields of mappings; an empty cell counts as missing."""
    out = {key: value for key, value in row.items() if value is not None and (value != "" or key == "prompt")}
    if "prompt" not in out and "turns" in out:
        turns = _json("turns", out["turns"]) if isinstance(out["turns"], str) else out["turns"]
        if isinstance(turns, list) and turns:
            out["prompt"] = turns[0]  # a conversation is routed by its first turn
            if isinstance(turns[0], dict):
                out["prompt"] = opening(turns) or turns[0]
    elif isinstance(out.get("prompt"), list):
        out["prompt"] = opening(out["prompt"]) or out["prompt"]
    if "id" not in out and "prompt_id" in out:
        out["id"] = out["prompt_id"]
    for name in (*mappings, "costs", "tokens"):
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
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    with suppress(RecursionError):
        if not isinstance(written := parsed(value), str):
            return written
    raise BadRowError(f"field {name!r}: expected JSON text, got text that is not JSON")


def _has_prompt(row: Row) -> bool:
    return "prompt" in row or "turns" in row


def _is_outcome(row: Row) -> bool:
    return "scores" in row or _has_columns(row, "scores")


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
        "neither an outcome (field 'scores') nor a battle (fields 'model_a', 'model_b', 'winner'); "
        + (f"it has: {shown_names(row)}" if row else "the row is empty")
    )


def _answered(row: Row) -> AnsweredPrompt:
    return AnsweredPrompt.model_validate(_normalised(row, "answers"))


_OUTCOMES: _Kind[Outcome] = _Kind(_outcome, _is_outcome, "outcomes (fields 'prompt' and 'scores')", ("scores",), 2)
_BATTLES: _Kind[Battle] = _Kind(
    _battle, _is_battle, "battles (fields 'prompt', 'model_a', 'model_b' and 'winner')", ("scores",), 2
)
_PREFERENCES: _Kind[Battle | Outcome] = _Kind(
    _preference,
    lambda row: _is_battle(row) or _is_outcome(row),
    "outcomes (fields 'prompt' and 'scores') or battles (fields 'prompt', 'model_a', 'model_b' and 'winner')",
    ("scores",),
    2,
)
_ANSWERS: _Kind[AnsweredPrompt] = _Kind(
    _answered,
    _has_prompt,
    "prompts with answers (fields 'prompt' and 'answers', for gold labels also 'gold')",
    ("answers",),
    0,  # answers may be generated later
)
