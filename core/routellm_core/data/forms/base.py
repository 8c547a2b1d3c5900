"""What a foreign form is: how rows that another tool wrote become the project's own rows, or prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from routellm_core.data.files import Row

# Names under which objects hold rows, the likeliest first; any other one counts where it is the only list of objects.
_BUNDLES = ("rows", "data", "records", "items", "examples", "outcomes", "battles", "results")


class BadRowError(ValueError):
    """What is wrong with one row, in words that do not repeat its texts."""


@dataclass(frozen=True)
class Problem:
    """Stands for a row that is malformed.

    Attributes:
        text: What is wrong with it, what is allowed and what to do, without file and place.
    """

    text: str


Located = tuple[str, Row]
Translation = Callable[[Iterable[Located]], Iterator[tuple[str, Row | Problem]]]


@dataclass(frozen=True)
class Form:
    """A form in which other tools write their rows. Each has a file in this folder and a place in `FORMS`.

    A form translates; it neither opens files nor checks values: what comes out of `rows` is validated like a row of the
    project's own, so a form may leave wrong values as they are.

    Attributes:
        name: What the user calls it, as in ``--from arena``.
        title: What it is, for lists of forms: one line.
        fields: Names of fields that are typical of it; a CSV header with one of them is recognised by it.
        matches: Whether the first rows of a file (1 to 16) are of this form. A form of traffic must decide by the names
            of the fields alone, since rows with the same names are taken for the same form.
        rows: Translates rows with places into own rows: ``prompt`` with ``scores``; or ``model_a``, ``model_b`` and
            ``winner``; or ``answers`` and ``gold``. It is an iterator over all rows of a file, so that it may put
            several rows together; `row_by_row` makes one of a function of a row. None if the form holds no labels.
        prompts: The routing texts in one row of traffic: none, one or several. None if the form is not traffic; then
            the prompts of its `rows` are taken.
    """

    name: str
    title: str
    fields: tuple[str, ...]
    matches: Callable[[Sequence[Row]], bool]
    rows: Translation | None = None
    prompts: Callable[[Row], list[str]] | None = None


def bundled(row: Row) -> tuple[str, list[Row]] | None:
    """The rows that an object holds, and the name of the field: a file may wrap its rows, as in ``{"rows": [...]}``."""
    lists = {
        name: value
        for name, value in row.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
    name = next((name for name in _BUNDLES if name in lists), None)
    if name is None and len(lists) == 1:
        name = next(iter(lists))
    return None if name is None else (name, lists[name])


def row_by_row(translate: Callable[[Row], Row]) -> Translation:
    """Make the `rows` of a form out of a function that translates one row and raises `BadRowError` if it cannot."""

    def rows(located: Iterable[Located]) -> Iterator[tuple[str, Row | Problem]]:
        for where, row in located:
            try:
                out: Row | Problem = translate(row)
            except BadRowError as exc:
                out = Problem(str(exc))
            except RecursionError:
                out = Problem("nested too deeply")
            yield where, out

    return rows
