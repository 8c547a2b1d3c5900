"""Logs of Inspect (.eval and .json): the samples of a run of one model, with the scores of their scorers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, Located, Problem, rows_of_model, unwrapped
from routellm_core.data.forms.values import (
    UNNAMED,
    amount_of,
    first_of,
    name_text,
    one_models_row,
    opening,
    score_of,
    text_of,
)

# Correct, incorrect, partly right and no answer, as the scorers write them.
_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


def _is_log(row: Row) -> bool:
    return isinstance(row.get("eval"), dict) and ("samples" in row or "status" in row or "plan" in row)


def _matches(rows: Sequence[Row]) -> bool:
    return any(_is_log(row) or {"epoch", "input", "target", "scores"} <= row.keys() for row in rows)


def _rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
    for where, row in located:
        head = row.get("eval")
        named = model
        if named is None and isinstance(head, dict) and isinstance(head.get("model"), str):
            named = head["model"]
        if _is_log(row) and not isinstance(row.get("samples"), list):
            yield where, Problem("holds no samples: a log without them, or of a run that failed before the first")
            continue
        yield from rows_of_model(_translated)(unwrapped([(where, row)], ("samples",)), named)


def _translated(row: Row, model: str | None) -> Row | None:
    scores = row.get("scores")
    if scores is None and row.get("score") is not None:
        scores = {"score": row["score"]}
    if row.get("error") is not None:
        return None  # the sample failed: nothing was said about its answer
    if scores is not None and not isinstance(scores, dict):
        raise BadRowError(f"field 'scores': expected an object of scorers, got {kind_of(scores)}")
    scorer, score = next(iter(scores.items())) if scores else ("", None)  # a run can do without scorers
    value = score.get("value") if isinstance(score, dict) else score
    output = row.get("output")
    output = output if isinstance(output, dict) else {}
    name = row.get("id")
    return one_models_row(
        {
            "prompt": _prompt(row),
            "id": str(name) if isinstance(name, str | int) else None,
            "gold": row["target"] if isinstance(row.get("target"), str) else None,
        },
        model or _model(output),
        score=_value(value, f"scores.{scorer}.value"),
        answer=_answer(output),
        tokens=_tokens(row, output, model),
    )


def _model(output: dict[str, Any]) -> str:
    return UNNAMED if output.get("model") is None else name_text(output["model"], "output.model")


def _prompt(row: Row) -> str:
    text = opening(row.get("input"))
    if text is None:
        raise BadRowError(f"field 'input': expected a text or messages, got {kind_of(row.get('input'))}")
    return text


def _value(value: Any, field: str) -> float | None:
    if isinstance(value, str) and value in _LETTERS:
        return _LETTERS[value]
    if isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        return _value(value, f"{field}.{name}") if not isinstance(value, dict) else score_of(value, field)
    return score_of(value, field)


def _answer(output: dict[str, Any]) -> str | None:
    if isinstance(output.get("completion"), str):
        return output["completion"] or None
    choices = output.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return text_of(message.get("content"), "output.choices") if isinstance(message, dict) else None


def _tokens(row: Row, output: dict[str, Any], model: str | None) -> dict[str, float]:
    """Tokens of the sample's model: other models in it, such as a grader's, are not counted."""
    usage = row.get("model_usage")
    used = usage.get(model) if isinstance(usage, dict) and model is not None else None
    used = used if isinstance(used, dict) else output.get("usage")
    if not isinstance(used, dict):
        return {}
    counts = {
        side: amount_of(first_of(used, (f"{side}_tokens",)), f"model_usage.{side}_tokens")
        for side in ("input", "output")
    }
    return {side: count for side, count in counts.items() if count is not None}


INSPECT = Form(
    name="inspect",
    title="Inspect logs (.eval, or .json of one run of a model): samples with scores",
    fields=("eval", "samples", "epoch"),
    matches=_matches,
    holds=("prompts", "answers", "scores"),
    rows=_rows,
    joins=True,
    needs="a log for each model",
)
