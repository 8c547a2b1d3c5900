"""Long tables: one row per prompt and model, with a score, an answer or both."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form, rows_of_model
from routellm_core.data.forms.routerbench import listed
from routellm_core.data.forms.values import (
    ANSWER_NAMES,
    COST_NAMES,
    GOLD_NAMES,
    MODEL_NAMES,
    PROMPT_NAMES,
    SCORE_NAMES,
    amount_of,
    first_of,
    has_any,
    id_of,
    kept,
    model_of,
    most,
    name_of,
    one_models_row,
    prompt_of,
    score_of,
    text_of,
    tokens_of,
)

_ROUTERBENCH = {"sample_id", "eval_name", "prompt"}
_OWN = {"scores", "answers", "winner", "model_a", "model_b"}


def _plain(rows: Sequence[Row]) -> bool:
    return not any(_OWN & row.keys() for row in rows)


def _has(row: Row, *names: Sequence[str]) -> bool:
    return all(name_of(row, some) is not None for some in names)


def _has_scores(rows: Sequence[Row]) -> bool:
    return _plain(rows) and most(rows, lambda row: _has(row, PROMPT_NAMES, MODEL_NAMES, SCORE_NAMES))


def _has_answers(rows: Sequence[Row]) -> bool:
    return _plain(rows) and most(rows, lambda row: _has(row, PROMPT_NAMES, MODEL_NAMES, ANSWER_NAMES))


def _is_of_one(rows: Sequence[Row]) -> bool:
    """Rows with a score under a usual name, whose model only the user knows."""
    return (
        _plain(rows)
        and most(rows, lambda row: _has(row, PROMPT_NAMES) or id_of(row) is not None)
        and most(rows, lambda row: _has(row, SCORE_NAMES[:-1]))
        and not any(has_any(row, MODEL_NAMES) for row in rows)
    )


def of_one_model(row: Row, model: str | None) -> Row:
    """A row of a long table as what is known about one model."""
    score, answer, cost = (name_of(row, names) for names in (SCORE_NAMES, ANSWER_NAMES, COST_NAMES))
    # RouterBench has its table also in this form, with prompts that are lists in text
    prompt = listed(row["prompt"]) if row.keys() >= _ROUTERBENCH else prompt_of(row)
    rest = {"prompt": prompt, "id": id_of(row), "gold": first_of(row, GOLD_NAMES)}
    return one_models_row(
        rest | kept(row),
        model_of(row, model),
        score=None if score is None else score_of(row[score], score),
        answer=None if answer is None else text_of(row[answer], answer),
        cost=None if cost is None else amount_of(row[cost], cost),
        tokens=tokens_of(row),
    )


LONG = Form(
    name="long",
    title="one row per prompt and model, with its score (LLMRouter's routing data, EmbedLLM, your own)",
    fields=("prompt", "model", "score"),
    matches=_has_scores,
    holds=("prompts", "answers", "scores", "costs"),
    rows=rows_of_model(of_one_model),
    joins=True,
)
ANSWERS = Form(
    name="long_answers",
    title="one row per prompt and model, with its answer",
    fields=("prompt", "model", "response"),
    matches=_has_answers,
    holds=("prompts", "answers", "costs"),
    rows=rows_of_model(of_one_model),
    joins=True,
    plain=True,
)
ONE_MODEL = Form(
    name="one_model",
    title="one row per prompt with the score of one model, which NAME= before the file names",
    fields=("prompt", "score"),
    matches=_is_of_one,
    holds=("prompts", "answers", "scores", "costs"),
    rows=rows_of_model(of_one_model),
    joins=True,
    plain=True,
    needs="--data NAME=FILE for each model",
)
