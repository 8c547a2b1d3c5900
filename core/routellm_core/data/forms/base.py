"""What a foreign form is: how rows that another tool wrote become the project's own rows, or prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from routellm_core.data.chats import PROMPT_FIELDS
from routellm_core.data.files import Row

# Names under which objects hold rows, the likeliest first; another name counts only if it has the only list of objects.
_BUNDLES = ("rows", "data", "records", "items", "examples", "outcomes", "battles", "results")

# Fields that rows have and messages do not.
_OF_ROWS = frozenset(PROMPT_FIELDS) - {"content", "contents", "text"}

Holding = Literal["prompts", "answers", "scores", "preferences", "costs"]


class BadRowError(ValueError):
    """A row is malformed; the message says why without repeating its texts."""


@dataclass(frozen=True)
class Problem:
    """Takes the place of a malformed row.

    Attributes:
        text: What is wrong with the row, what is allowed and what to do, without file and place.
    """

    text: str


Located = tuple[str, Row]
# Rows with their places, and the name of the model that the user gave to the file (None: none).
Translation = Callable[[Iterable[Located], str | None], Iterator[tuple[str, Row | Problem]]]


@dataclass(frozen=True)
class Form:
    """A form in which another tool writes its rows. Each form has a file in this folder and an entry in `FORMS`.

    A form only translates: it does not open files. What `rows` yields is validated like the project's own rows, so a
    form can leave wrong values as they are; but scores, costs and tokens of rows that are joined it has to check.

    Attributes:
        name: The name that users write, as in ``--from arena``.
        title: A one-line description for lists of forms.
        fields: Names of fields that are typical of the form; a CSV header is recognised by any of them.
        matches: Whether the first rows of a file (1 to 16) have this form. A form of traffic must decide by the names
            of the fields alone, since rows with the same field names are treated as the same form.
        holds: What a file of this form can hold.
        rows: Translates rows with places into the project's own rows: ``prompt`` with ``scores``; or ``model_a``,
            ``model_b`` and ``winner``; or ``answers`` and ``gold``. It iterates over all rows of a file, so it can
            combine several rows into one; `row_by_row` builds it from a function of one row. Its second argument is
            the model that the file is about, if the user named one. None if the form holds no labels.
        prompts: Returns the routing texts of one row of traffic: none, one or several. None if the form is not traffic;
            the prompts then come from `rows`.
        start: Builds `prompts` for one file, for forms in which the records of a file depend on each other.
        plain: Whether the prompts have their usual field names, so that a file of prompts is read without the form.
        joins: Whether a row is about one model or lacks the prompt: rows of one or several files are then joined by
            prompt or id.
        needs: What a file of this form lacks by itself, for lists of forms.
    """

    name: str
    title: str
    fields: tuple[str, ...]
    matches: Callable[[Sequence[Row]], bool]
    holds: tuple[Holding, ...]
    rows: Translation | None = None
    prompts: Callable[[Row], list[str]] | None = None
    start: Callable[[], Callable[[Row], list[str]]] | None = None
    plain: bool = False
    joins: bool = False
    needs: str = ""

    @property
    def uses(self) -> tuple[str, ...]:
        """The commands that a file of this form is for."""
        labels = not {"scores", "preferences"}.isdisjoint(self.holds)
        return (
            *(("train", "evaluate", "data convert") if labels else ()),
            *(("label",) if "answers" in self.holds or (self.rows is not None and not labels) else ()),
            *(("calibrate", "route") if "prompts" in self.holds else ()),
        )


def bundled(row: Row) -> tuple[str, list[Row]] | None:
    """Return the field that holds rows, and the rows: a file may wrap its rows, as in ``{"rows": [...]}``.

    A table as one object, as in ``{"prompt": {"0": ...}, "scores": {"0": ...}}``, is turned into its rows.
    """
    lists = {
        name: value
        for name, value in row.items()
        if isinstance(value, list)
        and value
        and all(isinstance(item, dict) for item in value)
        # messages and turns are no rows
        and (name not in PROMPT_FIELDS or not all(_OF_ROWS.isdisjoint(item) for item in value))
    }
    name = next((name for name in _BUNDLES if name in lists), None)
    if name is None:
        table = _table(row)
        if table is not None or len(lists) != 1:
            return table
        name = next(iter(lists))
    return name, lists[name]


def _table(row: Row) -> tuple[str, list[Row]] | None:
    """The rows of a table in one object: of rows by their ids, or of columns, which are lists or objects of cells."""
    values = list(row.values())
    if len(values) < 2:
        return None
    if all(isinstance(value, dict) and not value.keys().isdisjoint(PROMPT_FIELDS) for value in values):
        return "rows by id", values
    if row.keys().isdisjoint(PROMPT_FIELDS):
        return None
    if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        # what pandas writes unless told otherwise
        return "columns", [{name: column[key] for name, column in row.items()} for key in values[0]]
    if all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        return "columns", [dict(zip(row, cells, strict=True)) for cells in zip(*values, strict=True)]
    return None


def row_by_row(translate: Callable[[Row], Row]) -> Translation:
    """Build the `rows` of a form from a function that translates one row, and raises `BadRowError` if it cannot.

    The rows of the form name their models, so a model that the user named for the file is an error of each row.
    """

    def translated(row: Row, model: str | None) -> Row:
        if model is not None:
            raise BadRowError("names its models itself; give the file without NAME= before it")
        return translate(row)

    return rows_of_model(translated)


def rows_of_model(translate: Callable[[Row, str | None], Row | None]) -> Translation:
    """Like `row_by_row`, for rows about one model, whose name is the second argument; None skips the row."""

    def rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
        for where, row in located:
            try:
                out: Row | Problem | None = translate(row, model)
            except BadRowError as exc:
                out = Problem(str(exc))
            except RecursionError:
                out = Problem("nested too deeply")
            if out is not None:
                yield where, out

    return rows


def unwrapped(located: Iterable[Located], path: Sequence[str]) -> Iterator[Located]:
    """Rows of which one may be an object that holds the others under a path of fields, such as results.results."""
    for where, row in located:
        value: object = row
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, list):
            yield where, row
            continue
        for number, item in enumerate(value, 1):
            place = f"{where}, item {number} of {'.'.join(path)!r}"
            yield place, item if isinstance(item, dict) else {}
