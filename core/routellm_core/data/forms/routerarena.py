"""RouterArena: one file per model, with the question, its answer and the evaluation of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, rows_of_model
from routellm_core.data.forms.values import (
    COST_NAMES,
    amount_of,
    first_of,
    id_of,
    model_of,
    name_of,
    one_models_row,
    prompt_of,
    score_of,
    text_of,
    tokens_of,
)

_IDS = ("global_index", "globalindex")
_RESULTS = ("evaluation_result", "evaluation", "generated_result")
_MODELS = ("llm_selected", "prediction", "model_name", "model")


def _matches(rows: Sequence[Row]) -> bool:
    return any(name_of(row, _IDS) and name_of(row, (*_MODELS, *_RESULTS)) for row in rows)


def _object(row: Row, name: str) -> dict[str, Any]:
    value = parsed(row.get(name))
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise BadRowError(f"field {name!r}: expected an object, got {kind_of(value)}")
    return value


def _translated(row: Row, model: str | None) -> Row:
    result, made = _object(row, "evaluation_result"), _object(row, "generated_result")
    usage = _object(made, "token_usage") or _object(row, "token_usage")
    score = next(
        (
            score_of(where[name], f"{prefix}{name}")
            for where, prefix in ((result, "evaluation_result."), (row, ""))
            if (name := name_of(where, ("score", "accuracy"))) is not None
        ),
        None,
    )
    cost = next((where[name] for where in (result, row) if (name := name_of(where, COST_NAMES)) is not None), None)
    answer = first_of(row, ("generated_answer",)) or first_of(made, ("generated_answer",))
    if answer is None and (row.get("success") is False or made.get("success") is False):
        score = None  # the call failed: nothing was said about the model
    return one_models_row(
        {"prompt": prompt_of(row), "id": id_of(row, _IDS), "gold": first_of(result, ("ground_truth",))},
        model_of(row, model, _MODELS),
        score=score,
        answer=text_of(answer, "generated_answer"),
        cost=amount_of(cost, "inference_cost"),
        tokens=tokens_of(usage),
    )


ROUTERARENA = Form(
    name="routerarena",
    title="RouterArena: one file per model, with llm_selected and evaluation_result",
    fields=("global_index", "llm_selected", "generated_answer", "evaluation_result"),
    matches=_matches,
    holds=("prompts", "answers", "scores", "costs"),
    rows=rows_of_model(_translated),
    joins=True,
    needs="a file for each model",
)
