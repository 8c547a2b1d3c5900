"""Foreign forms: what other tools write, translated into the project's own rows or into prompts; one file per form."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.files import Row
from routellm_core.data.forms.arena import ARENA
from routellm_core.data.forms.base import Form
from routellm_core.data.forms.langfuse import LANGFUSE
from routellm_core.data.forms.langsmith import LANGSMITH
from routellm_core.data.forms.opentelemetry import OPENTELEMETRY
from routellm_core.errors import ConfigurationError

__all__ = ["FIRST_ROWS", "FORMS", "Form", "find_form", "form_of_labels", "form_of_traffic", "known_columns"]

# If several match, the first one is used.
FORMS: tuple[Form, ...] = (ARENA, LANGSMITH, LANGFUSE, OPENTELEMETRY)
# Number of rows at the start of a file by which its form is recognised.
FIRST_ROWS = 16


def find_form(name: str) -> Form:
    """Return the form with this name.

    Raises:
        ConfigurationError: There is no such form.
    """
    for form in FORMS:
        if form.name == name:
            return form
    raise ConfigurationError(f"form={name!r}: expected one of {', '.join(form.name for form in FORMS)}")


def form_of_labels(rows: Sequence[Row]) -> Form | None:
    """Recognise the form of a file with labels by its first rows; None if they are the project's own or unknown."""
    return next((form for form in FORMS if form.rows is not None and rows and form.matches(rows)), None)


def form_of_traffic(row: Row) -> Form | None:
    """Recognise the form of a row of traffic by the names of its fields; None if it is unknown."""
    return next((form for form in FORMS if form.prompts is not None and form.matches((row,))), None)


def known_columns() -> frozenset[str]:
    """Names of columns by which a table is recognised."""
    return frozenset(field for form in FORMS for field in form.fields)
