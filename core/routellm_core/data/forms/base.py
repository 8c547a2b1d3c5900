"""What a foreign form is: how rows that another tool wrote become the project's own rows, or prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from routellm_core.data.files import Row

# Names under which objects hold rows, the likeliest first; another name counts only if it has the only list of objects.
_BUNDLES = ("rows", "data", "records", "items", "examples", "outcomes", "battles", "results")


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
Translation = Callable[[Iterable[Located]], Iterator[tuple[str, Row | Problem]]]


@dataclass(frozen=True)
class Form:
    """A form in which another tool writes its rows. Each form has a file in this folder and an entry in `FORMS`.

    A form only translates: it does not open files and does not check values. What `rows` yields is validated like the
    project's own rows, so a form can leave wrong values as they are.

    Attributes:
        name: The name that users write, as in ``--from arena``.
        title: A one-line description for lists of forms.
        fields: Names of fields that are typical of the form; a CSV header is recognised by any of them.
        matches: Whether the first rows of a file (1 to 16) have this form. A form of traffic must decide by the names
            of the fields alone, since rows with the same field names are treated as the same form.
        rows: Translates rows with places into the project's own rows: ``prompt`` with ``scores``; or ``model_a``,
            ``model_b`` and ``winner``; or ``answers`` and ``gold``. It iterates over all rows of a file, so it can
            combine several rows into one; `row_by_row` builds it from a function of one row. None if the form holds no
            labels.
        prompts: Returns the routing texts of one row of traffic: none, one or several. None if the form is not traffic;
            the prompts then come from `rows`.
    """

    name: str
    title: str
    fields: tuple[str, ...]
    matches: Callable[[Sequence[Row]], bool]
    rows: Translation | None = None
    prompts: Callable[[Row], list[str]] | None = None


def bundled(row: Row) -> tuple[str, list[Row]] | None:
    """Return the field that holds rows, and the rows: a file may wrap its rows, as in ``{"rows": [...]}``."""
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
    """Build the `rows` of a form from a function that translates one row, and raises `BadRowError` if it cannot."""

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
