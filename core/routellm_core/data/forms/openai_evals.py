"""Records of OpenAI evals: a run of one model, whose events say what was sampled and whether it was right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, Located, Problem
from routellm_core.data.forms.values import (
    UNNAMED,
    first_of,
    name_of,
    name_text,
    one_models_row,
    opening,
    prompt_of,
    score_of,
    text_of,
    tokens_of,
)

_SCORES = ("correct", "score", "accuracy", "metascore", "choice_score")


def _matches(rows: Sequence[Row]) -> bool:
    return any("spec" in row or {"sample_id", "type", "data"} <= row.keys() or _is_item(row) for row in rows)


def _is_item(row: Row) -> bool:
    """Whether a row is an output item of the Evals API."""
    return row.get("object") == "eval.run.output_item"


def _rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
    run = _Run(model)
    for where, row in located:
        try:
            out = run.take(row)
        except (BadRowError, RecursionError) as exc:
            yield where, Problem("nested too deeply" if isinstance(exc, RecursionError) else str(exc))
        else:
            if out is not None:
                yield where, out


class _Run:
    """The events of a run so far: a sample's events come one after another, the sampling first."""

    def __init__(self, model: str | None) -> None:
        self._given = model
        self._model = UNNAMED if model is None else model
        self._sampled: dict[Any, tuple[str | None, str | None]] = {}

    def take(self, row: Row) -> Row | None:
        if _is_item(row):
            return _item(row, self._given)
        spec = row.get("spec")
        if isinstance(spec, dict) and self._given is None:
            functions = spec.get("completion_fns") or first_of(spec, ("model_name", "model"))
            self._model = name_text(functions[0] if isinstance(functions, list) else functions, "spec.completion_fns")
        kind = row.get("type")
        if not isinstance(kind, str):
            return None
        data = row.get("data")
        if not isinstance(data, dict):
            raise BadRowError(f"field 'data': expected an object, got {kind_of(data)}")
        sample = f"{row.get('run_id')} {row.get('sample_id')}"
        if kind in ("sampling", "raw_sample"):
            prompt = opening(data.get("prompt"))
            known, answer = self._sampled.get(sample, (None, None))
            self._sampled[sample] = (known or prompt, answer or text_of(data.get("sampled"), "data.sampled"))
            return None
        name = name_of(data, _SCORES)
        if name is None:
            return None
        prompt, answer = self._sampled.pop(sample, (None, None))
        sample_id = row.get("sample_id")
        return one_models_row(
            {
                "prompt": prompt or opening(data.get("prompt")),
                "id": str(sample_id) if isinstance(sample_id, str | int) else None,
                "gold": data["expected"] if isinstance(data.get("expected"), str) else None,
            },
            self._model,
            score=score_of(data[name], f"data.{name}"),
            answer=answer,
        )


def _item(row: Row, model: str | None) -> Row | None:
    """An output item of the Evals API: the mean of what its graders said."""
    sample, graded = row.get("sample"), row.get("results")
    if not isinstance(sample, dict) or not isinstance(graded, list):
        raise BadRowError("fields 'sample' and 'results': expected an object and a list")
    if sample.get("error") is not None:
        return None  # the call failed
    named = sample.get("model") if model is None else model
    scores = [
        score
        for i, grade in enumerate(graded)
        if isinstance(grade, dict)
        and (name := name_of(grade, ("score", "passed"))) is not None
        and (score := score_of(grade[name], f"results.{i}.{name}")) is not None
    ]
    usage = sample.get("usage")
    return one_models_row(
        {"prompt": opening(sample.get("input")) or prompt_of(_object(row.get("datasource_item")))},
        UNNAMED if named is None else name_text(named, "sample.model"),
        score=sum(scores) / len(scores) if scores else None,
        answer=text_of(sample.get("output"), "sample.output"),
        tokens=tokens_of(_object(usage)),
    )


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


OPENAI_EVALS = Form(
    name="openai_evals",
    title="OpenAI evals records (oaieval): the events of a run of one model",
    fields=("spec", "run_id", "event_id", "sample_id", "type", "data"),
    matches=_matches,
    holds=("prompts", "answers", "scores"),
    rows=_rows,
    joins=True,
    needs="a file for each model",
)
