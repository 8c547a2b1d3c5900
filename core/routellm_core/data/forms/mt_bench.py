"""Judgments of MT-Bench (FastChat): scores of single answers, or two games of a pair of models."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.files import Row
from routellm_core.data.forms.base import BadRowError, Form, rows_of_model
from routellm_core.data.forms.judgments import question_in
from routellm_core.data.forms.values import id_of, name_text, one_models_row, score_of

# Of an answer in which no verdict was found, FastChat writes "error", and of a score -1; it leaves both out itself.
_WINNERS = {"model_1": "model_a", "model_2": "model_b", "tie": "tie", "error": None}
_NO_SCORE = -1


def _matches(rows: Sequence[Row]) -> bool:
    return any(
        ("judgment" in row and "model" in row and "score" in row) or {"model_1", "model_2", "g1_winner"} <= row.keys()
        for row in rows
    )


def _translated(row: Row, model: str | None) -> Row | None:
    # the second turn's prompt holds both; a router sees the first
    asked = question_in(row.get("user_prompt")) or question_in(row.get("g1_user_prompt"))
    known = {"prompt": asked, "id": id_of(row, ("question_id",))}
    if "g1_winner" in row or "model_1" in row:
        won = [_winner(row, field) for field in ("g1_winner", "g2_winner")]
        sides = {
            "model_a": name_text(row.get("model_1"), "model_1"),
            "model_b": name_text(row.get("model_2"), "model_2"),
        }
        verdict = None if None in won else won[0] if won[0] == won[1] else "tie"
        battle = {**known, **sides, "winner": verdict}
        return {name: value for name, value in battle.items() if value is not None}
    score = score_of(row.get("score"), "score")
    if score == _NO_SCORE:
        score = None
    return one_models_row(known, model or name_text(row.get("model"), "model"), score=score)


def _winner(row: Row, field: str) -> str | None:
    value = row.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or value not in _WINNERS:
        raise BadRowError(f"field {field!r}: expected model_1, model_2, tie or error")
    return _WINNERS[value]


MT_BENCH = Form(
    name="mt_bench",
    title="MT-Bench judgments: a score of each answer (the mean of the turns counts), or pairs in two games",
    fields=("question_id", "model", "judge", "judgment", "score", "model_1", "model_2", "g1_winner"),
    matches=_matches,
    holds=("prompts", "scores", "preferences"),
    rows=rows_of_model(_translated),
    joins=True,
    needs="the file of questions, where the judge's prompts are cut; both models",
)
