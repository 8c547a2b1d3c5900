"""HelpSteer, HelpSteer2 and HelpSteer3: ratings of answers, or preferences between two, of models without names."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.chats import parsed, texts_of_call
from routellm_core.data.files import Row
from routellm_core.data.forms.base import BadRowError, Form, row_by_row
from routellm_core.data.forms.values import MODEL_NAMES, has_any, kept, name_of, name_text, prompt_of, score_of

# How much the second answer is preferred, from -3 to 3; 0 is a tie.
_PREFERENCES = ("overall_preference", "preference_strength")
_RATINGS = {"helpfulness", "coherence", "verbosity"}
_PROMPTS = ("prompt", "context")


def _answer(row: Row, side: int) -> str | None:
    return next((name for name in (f"response{side}", f"response_{side}") if name in row), None)


def _is_preference(row: Row) -> bool:
    return _answer(row, 1) is not None and _answer(row, 2) is not None and not row.keys().isdisjoint(_PREFERENCES)


def _matches(rows: Sequence[Row]) -> bool:
    return any(_is_preference(row) or _is_rating(row) for row in rows)


def _is_rating(row: Row) -> bool:
    # with the name of its model, a rated answer is a row of a long table
    return "response" in row and row.keys() >= _RATINGS and not has_any(row, MODEL_NAMES)


def _translated(row: Row) -> Row:
    if not _is_preference(row):
        raise BadRowError("rates a single answer, and does not name the model that wrote it")
    models = [_model(row, side) for side in (1, 2)]
    field = name_of(row, _PREFERENCES)
    lead = None if field is None else score_of(row[field], field)
    out = {"prompt": prompt_of(row, _PROMPTS), **kept(row)}
    if lead is None:
        return out
    winner = "model_a" if lead < 0 else "model_b" if lead > 0 else "tie"
    return {**out, "model_a": models[0], "model_b": models[1], "winner": winner}


def _model(row: Row, side: int) -> str:
    names = [f"{what}{sep}{side}" for what in ("model", "model_name", "generator") for sep in ("", "_")]
    name = name_of(row, [*names, f"response{side}_model", f"response_{side}_model"])
    if name is None:
        raise BadRowError(
            f"field 'model_{side}': missing; a router compares two models, so a row must name who wrote each answer"
        )
    return name_text(row[name], name)


def _prompts(row: Row) -> list[str]:
    return next((texts for name in _PROMPTS if (texts := texts_of_call({"messages": parsed(row.get(name))}))), [])


HELPSTEER = Form(
    name="helpsteer",
    title="HelpSteer ratings and preferences: response1 and response2 with overall_preference",
    fields=("response1", "response2", "response_1", "response_2", *_PREFERENCES, "helpfulness", "verbosity"),
    matches=_matches,
    holds=("prompts", "preferences"),
    rows=row_by_row(_translated),
    prompts=_prompts,
    needs="fields model_1 and model_2 for labels: the published rows do not name the models",
)
