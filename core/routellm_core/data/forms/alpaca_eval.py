"""Annotations of AlpacaEval: two outputs of named generators, and which of them is preferred."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.files import Row
from routellm_core.data.forms.base import BadRowError, Form, rows_of_model
from routellm_core.data.forms.values import first_of, name_text, prompt_of, score_of, text_of

_SIDES = ("1", "2")


def _matches(rows: Sequence[Row]) -> bool:
    return any({"output_1", "output_2"} <= row.keys() and row.keys() & {"preference", "generator_1"} for row in rows)


def _translated(row: Row, model: str | None) -> Row:
    for side in _SIDES:
        if row.get(f"generator_{side}") is None:
            raise BadRowError(f"field 'generator_{side}': missing; a battle needs the names of both models")
    names = [name_text(row[f"generator_{side}"], f"generator_{side}") for side in _SIDES]
    texts = [text_of(row.get(f"output_{side}"), f"output_{side}") for side in _SIDES]
    answers = {name: text for name, text in zip(names, texts, strict=True) if text is not None}
    out = {"prompt": prompt_of(row, ("instruction", "prompt", "question")), "answers": answers}
    if source := first_of(row, ("dataset",)):
        out["source"] = source
    preference = score_of(row.get("preference"), "preference")
    if preference is None:
        return out  # the annotator gave no verdict; AlpacaEval itself leaves such rows out
    if preference and not 1.0 <= preference <= 2.0:
        raise BadRowError(f"field 'preference': expected 1 to 2 (0: a tie), got {preference:g}")
    # 1 to 2: how much the second is preferred; 0 and 1.5 are ties
    winner = "tie" if preference in (0.0, 1.5) else "model_a" if preference < 1.5 else "model_b"
    return {**out, "model_a": names[0], "model_b": names[1], "winner": winner}


ALPACA_EVAL = Form(
    name="alpaca_eval",
    title="AlpacaEval annotations: output_1 and output_2 of two generators, with a preference",
    fields=("output_1", "output_2", "generator_1", "generator_2", "preference"),
    matches=_matches,
    holds=("prompts", "answers", "preferences"),
    rows=rows_of_model(_translated),
)
