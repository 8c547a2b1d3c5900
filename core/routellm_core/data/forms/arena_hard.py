"""Judgments of Arena-hard: a model against the baseline in two games, the second with the sides exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, rows_of_model
from routellm_core.data.forms.judgments import question_in
from routellm_core.data.forms.values import empty, id_of, name_text, prompt_of

# How much the first side of a game wins by.
_VERDICTS = {"A>>B": 2, "A>B": 1, "A=B": 0, "B=A": 0, "B>A": -1, "B>>A": -2, "A<B": -1, "A<<B": -2}
# The judgments do not say what model the baseline was.
BASELINE = "baseline"


def _matches(rows: Sequence[Row]) -> bool:
    return any("games" in row and "model" in row for row in rows)


def _translated(row: Row, model: str | None) -> Row:
    games = parsed(row.get("games"))
    if not isinstance(games, list) or not games or not all(game is None or isinstance(game, dict) for game in games):
        raise BadRowError(f"field 'games': expected a list of objects, got {kind_of(games)}")
    # the baseline is A in the first game and B in the second; a game of which the judge gave no verdict counts nothing
    leads = [
        (1 if i % 2 == 0 else -1) * _verdict(game, i)
        for i, game in enumerate(games)
        if game is not None and not empty(game.get("score"))
    ]
    games = [game for game in games if game is not None]
    lead = sum(leads)
    winner = ("model_a" if lead > 0 else "model_b" if lead < 0 else "tie") if leads else None
    prompt = prompt_of(row, ("prompt", "question"))
    baseline = row.get("baseline")
    out = {
        "prompt": prompt or next((text for game in games if (text := _question(game))), None),
        "id": id_of(row, ("question_id", "uid", "id")),
        "model_a": BASELINE if baseline is None else name_text(baseline, "baseline"),
        "model_b": model or name_text(row.get("model"), "model"),
        "winner": winner,
    }
    return {name: value for name, value in out.items() if value is not None}


def _question(game: dict[str, Any]) -> str | None:
    return question_in(game.get("user_prompt")) or question_in(game.get("prompt"))


def _verdict(game: dict[str, Any], number: int) -> int:
    score = game.get("score")
    if isinstance(score, str) and score.strip("[] ") in _VERDICTS:
        return _VERDICTS[score.strip("[] ")]
    got = repr(score) if isinstance(score, str) and len(score) < 20 else kind_of(score)
    raise BadRowError(f"field 'games.{number}.score': expected a verdict such as A>>B, got {got}")


ARENA_HARD = Form(
    name="arena_hard",
    title="Arena-hard judgments: a model against the baseline, which is called 'baseline', in two games",
    fields=("question_id", "model", "judge", "games"),
    matches=_matches,
    holds=("prompts", "preferences"),
    rows=rows_of_model(_translated),
    joins=True,
    needs="the file of questions, where the judge's prompts are cut",
)
