"""Samples of the lm-evaluation-harness: one file per model and task, which does not name the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, Located, Problem, rows_of_model
from routellm_core.data.forms.values import (
    GOLD_NAMES,
    UNNAMED,
    first_of,
    is_score,
    one_models_row,
    opening,
    prompt_of,
    score_of,
)

# Fields of a sample that are no metric.
_NO_METRICS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
_PROMPTS = (
    "question",
    "query",
    "prompt",
    "problem",
    "instruction",
    "input",
    "goal",
    "ctx",
    "sentence",
    "premise",
    "text",
    "passage",
)


def _matches(rows: Sequence[Row]) -> bool:
    return any("doc" in row and row.keys() & {"doc_id", "resps", "filtered_resps", "arguments"} for row in rows)


def _rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
    chosen: list[Any] = []

    def translated(row: Row, model: str | None) -> Row | None:
        # a task with several filters has each document once a filter: the first counts
        chosen[:] = chosen or [row.get("filter")]
        return None if row.get("filter") != chosen[0] else _translated(row, model)

    yield from rows_of_model(translated)(located, model)


def _translated(row: Row, model: str | None) -> Row:
    doc = parsed(row.get("doc"))
    if not isinstance(doc, dict):
        raise BadRowError(f"field 'doc': expected an object, got {kind_of(doc)}")
    texts = {name: value for name, value in doc.items() if isinstance(value, str)}
    name = _metric(row)
    filtered = row.get("filtered_resps")
    answer = filtered[0] if isinstance(filtered, list) and filtered else None
    target = row.get("target")
    named = row.get("doc_hash") or row.get("doc_id")
    return one_models_row(
        {
            "prompt": prompt_of(texts, _PROMPTS) or _argument(row.get("arguments")),
            "id": str(named) if isinstance(named, str | int) else None,
            "gold": target if isinstance(target, str) else first_of(doc, GOLD_NAMES),
        },
        UNNAMED if model is None else model,
        score=score_of(row[name], name),
        answer=answer if isinstance(answer, str) else None,
    )


def _metric(row: Row) -> str:
    """The metric of a sample: the first that its task names, or the only number that is left."""
    metrics = parsed(row.get("metrics"))
    listed = metrics if isinstance(metrics, list) else []
    names = [name for name in listed if isinstance(name, str) and name in row]
    names = names or [name for name in row if name not in _NO_METRICS and "hash" not in name and is_score(row[name])]
    if not names:
        raise BadRowError("has no metric: expected a field such as exact_match or acc")
    return names[0]


def _argument(value: Any) -> str | None:
    """The text that the model was sent: the first argument of the first request."""
    value = parsed(value)
    for _ in range(3):
        if isinstance(value, dict):
            value = value.get("arg_0", next(iter(value.values()), None))
        elif isinstance(value, list):
            value = value[0] if value else None
    return opening(parsed(value))


LM_EVAL = Form(
    name="lm_eval",
    title="lm-evaluation-harness samples (--log_samples): one file per model",
    fields=("doc_id", "doc", "filtered_resps", "resps", "target"),
    matches=_matches,
    holds=("prompts", "answers", "scores"),
    rows=_rows,
    joins=True,
    needs="--data NAME=FILE for each model",
)
