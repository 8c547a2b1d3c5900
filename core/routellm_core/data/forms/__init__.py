"""Foreign forms: what other tools write, translated into the project's own rows or into prompts; one file per form."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.files import Row
from routellm_core.data.forms.alpaca_eval import ALPACA_EVAL
from routellm_core.data.forms.arena import ARENA
from routellm_core.data.forms.arena_hard import ARENA_HARD
from routellm_core.data.forms.base import Form
from routellm_core.data.forms.batch import BATCH
from routellm_core.data.forms.conversations import CONVERSATIONS
from routellm_core.data.forms.gateways import HELICONE, LITELLM
from routellm_core.data.forms.helm import HELM
from routellm_core.data.forms.helpsteer import HELPSTEER
from routellm_core.data.forms.inspect import INSPECT
from routellm_core.data.forms.langfuse import LANGFUSE
from routellm_core.data.forms.langsmith import LANGSMITH
from routellm_core.data.forms.llmrouterbench import LLMROUTERBENCH
from routellm_core.data.forms.lm_eval import LM_EVAL
from routellm_core.data.forms.long import ANSWERS, LONG, ONE_MODEL
from routellm_core.data.forms.mt_bench import MT_BENCH
from routellm_core.data.forms.openai_evals import OPENAI_EVALS
from routellm_core.data.forms.opentelemetry import OPENTELEMETRY
from routellm_core.data.forms.pairs import PAIRS
from routellm_core.data.forms.promptfoo import PROMPTFOO
from routellm_core.data.forms.questions import QUESTIONS
from routellm_core.data.forms.renamed import RENAMED
from routellm_core.data.forms.routerarena import ROUTERARENA
from routellm_core.data.forms.routerbench import ROUTERBENCH
from routellm_core.data.forms.ultrafeedback import ULTRAFEEDBACK
from routellm_core.data.forms.vercel import VERCEL
from routellm_core.data.forms.wide import WIDE
from routellm_core.errors import ConfigurationError

__all__ = ["FIRST_ROWS", "FORMS", "Form", "find_form", "form_of_labels", "form_of_traffic", "known_columns"]

# If several match, the first one is used: forms with names of their own come before those with usual names.
FORMS: tuple[Form, ...] = (
    ARENA,
    ARENA_HARD,
    MT_BENCH,
    ALPACA_EVAL,
    HELPSTEER,
    PAIRS,
    ULTRAFEEDBACK,
    ROUTERBENCH,
    ROUTERARENA,
    LLMROUTERBENCH,
    LM_EVAL,
    INSPECT,
    PROMPTFOO,
    OPENAI_EVALS,
    HELM,
    BATCH,
    RENAMED,
    LONG,
    WIDE,
    ANSWERS,
    ONE_MODEL,
    LITELLM,
    HELICONE,
    LANGSMITH,
    LANGFUSE,
    OPENTELEMETRY,  # reads the spans of VERCEL too, since the names of their fields are the same
    VERCEL,
    CONVERSATIONS,
    QUESTIONS,
)
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
    """The form of a file with labels by its first rows; None if they are the project's own, or of no known form."""
    return next((form for form in FORMS if form.rows is not None and rows and _matches(form, rows)), None)


def form_of_traffic(row: Row) -> Form | None:
    """The form of a row of traffic, by the names of its fields; None if it is of no known form."""
    return next((form for form in FORMS if form.prompts is not None and _matches(form, (row,))), None)


def _matches(form: Form, rows: Sequence[Row]) -> bool:
    try:
        return form.matches(rows)
    except RecursionError:  # a field is nested too deeply: whoever reads it says so
        return False


def known_columns() -> frozenset[str]:
    """Names of columns by which a table is recognised."""
    return frozenset(field for form in FORMS for field in form.fields)
