"""LLMRouterBench: one file per model and data set, one object with the model's name and its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form, Located, Problem, rows_of_model, unwrapped
from routellm_core.data.forms.long import of_one_model
from routellm_core.data.forms.values import MODEL_NAMES, most, name_of, name_text

_RECORDS = ("records", "results", "samples", "data")


def _field(row: Row) -> str | None:
    """The field of the records of one model, if that is what an object holds."""
    if name_of(row, MODEL_NAMES) is None:
        return None
    return next(
        (
            name
            for name in _RECORDS
            if isinstance(value := row.get(name), list) and value and isinstance(value[0], dict)
        ),
        None,
    )


def _matches(rows: Sequence[Row]) -> bool:
    return most(rows, _field)


def _rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
    translate = rows_of_model(of_one_model)
    for where, row in located:
        field = _field(row)
        if field is None:
            yield where, Problem("expected an object with a model's name and a list of its 'records'")
            continue
        name = name_of(row, MODEL_NAMES)
        named = model or name_text(row[name], name) if name is not None else model
        yield from translate(unwrapped([(where, row)], (field,)), named)


LLMROUTERBENCH = Form(
    name="llmrouterbench",
    title="LLMRouterBench: one file per model, an object with model_name and records of prompt and score",
    fields=("model_name", "dataset_name", "performance", "records"),
    matches=_matches,
    holds=("prompts", "answers", "scores", "costs"),
    rows=_rows,
    joins=True,
    needs="a file for each model",
)
