"""Candidates of several models in a list: UltraFeedback's completions, Nectar's ranked answers, and the like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, row_by_row
from routellm_core.data.forms.values import (
    ANSWER_NAMES,
    COST_NAMES,
    GOLD_NAMES,
    MODEL_NAMES,
    amount_of,
    first_of,
    first_of_transcript,
    id_of,
    kept,
    most,
    name_of,
    name_text,
    prompt_of,
    score_of,
    shown,
    text_of,
    tokens_of,
)

_LISTS = ("completions", "answers", "responses", "candidates", "generations", "outputs", "results", "scores", "models")
_SCORES = ("overall_score", "score", "rating", "reward", "performance", "correct", "quality", "fine-grained_score")
_RANKS = ("rank", "ranking")
# Lists beside a list of models' names, and what an item of each is.
_PARALLEL = {
    "scores": "score",
    "ratings": "score",
    "rewards": "score",
    "correct": "score",
    "ranks": "rank",
    "responses": "response",
    "answers": "response",
    "completions": "response",
    "outputs": "response",
    "generations": "response",
}
# Lists of models' names beside those; distilabel calls its own generation_models.
_MODELS = ("models", "generation_models", "model_names")


def _model_names(field: str) -> tuple[str, ...]:
    """Fields of a candidate that name its model; in a list of models, also ``name``."""
    return (*MODEL_NAMES, "name") if field == "models" else tuple(MODEL_NAMES)


def _candidates(row: Row) -> str | None:
    for name in _LISTS:
        value = parsed(row.get(name))
        names = _model_names(name)
        if isinstance(value, list) and value and all(isinstance(v, dict) and name_of(v, names) for v in value):
            return name
    return None


def _matches(rows: Sequence[Row]) -> bool:
    def is_one(row: Row) -> bool:
        try:
            return _candidates(_zipped(row)) is not None
        except BadRowError:
            return True  # recognised, so that its own message says what is wrong with it

    return most(rows, is_one)


def _zipped(row: Row) -> Row:
    """A row of parallel lists, {"models": [a, b], "scores": [1, 0]}, as one with a list of candidates.

    Raises:
        BadRowError: A list has another length than that of the models' names.
    """
    field = next((name for name in _MODELS if name in row), _MODELS[0])
    names = parsed(row.get(field))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return row
    beside = {
        name: value
        for name in (*_PARALLEL, *(f"{name}s" for name in COST_NAMES))
        if isinstance(value := parsed(row.get(name)), list) and not any(isinstance(v, dict | list) for v in value)
    }
    if not beside:
        return row
    for name, value in beside.items():
        if len(value) != len(names):
            raise BadRowError(f"field {name!r}: expected one for each of {len(names)} models, got {len(value)}")
    columns = {_PARALLEL.get(name, name.removesuffix("s")): value for name, value in beside.items()}
    models = [
        {"model": model, **{name: column[i] for name, column in columns.items()}} for i, model in enumerate(names)
    ]
    return {**{name: value for name, value in row.items() if name not in (field, *beside)}, "models": models}


def _translated(row: Row) -> Row:
    row = _zipped(row)
    field = _candidates(row)
    if field is None:
        lists = next((name for name in _LISTS if name in row), _LISTS[0])
        if parsed(row.get(lists)) == []:
            return {"prompt": first_of_transcript(prompt_of(row)), **kept(row)}  # of no model is anything known
        raise BadRowError(
            f"field {lists!r}: expected a list of objects with a model each, got {kind_of(row.get(lists))}"
        )
    prompt = prompt_of({name: value for name, value in row.items() if name != field})
    out: Row = {"prompt": first_of_transcript(prompt), "scores": {}, "answers": {}, "costs": {}, "tokens": {}}
    for number, item in enumerate(parsed(row[field])):
        place = f"{field}.{number}"
        model = name_text(first_of(item, _model_names(field)), f"{place}.model")
        for into, name, read in (
            ("scores", name_of(item, _SCORES), score_of),
            ("answers", name_of(item, ANSWER_NAMES), text_of),
            ("costs", name_of(item, COST_NAMES), amount_of),
        ):
            if name is not None and (value := read(item[name], f"{place}.{name}")) is not None:
                out[into][model] = value
        if model not in out["scores"] and (score := _score(item, place)) is not None:
            out["scores"][model] = score
        if tokens := tokens_of(item):
            out["tokens"][model] = tokens
    if (name := id_of(row)) is not None:
        out["id"] = name
    if (gold := first_of(row, GOLD_NAMES)) is not None:
        out["gold"] = gold
    out |= kept(row)
    return {name: value for name, value in out.items() if value != {}}


def _score(item: dict[str, Any], place: str) -> float | None:
    """A rank turned around, so that more is better; or the mean of the ratings of single aspects."""
    if (name := name_of(item, _RANKS)) is not None:
        rank = score_of(item[name], f"{place}.{name}")
        return None if rank is None else -rank
    aspects = item.get("annotations")
    if not isinstance(aspects, dict):
        return None
    ratings = [
        score_of(aspect["Rating"], f"{place}.annotations.{shown(name)}")
        for name, aspect in aspects.items()
        if isinstance(aspect, dict) and "Rating" in aspect
    ]
    found = [rating for rating in ratings if rating is not None]
    return sum(found) / len(found) if found else None


ULTRAFEEDBACK = Form(
    name="ultrafeedback",
    title="a list of candidates, each with a model and a score, a rating or a rank (UltraFeedback, Nectar); or a "
    "list of models beside one of scores",
    fields=("instruction", "completions", "models"),
    matches=_matches,
    holds=("prompts", "answers", "scores", "costs"),
    rows=row_by_row(_translated),
)
