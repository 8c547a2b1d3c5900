"""Wide tables: one row per prompt, one column per model, with scores, and also answers, costs and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from routellm_core.data.files import OWN_COLUMNS, OWN_PREFIXES, Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, Located, Problem, Translation, row_by_row
from routellm_core.data.forms.values import (
    ANSWER_NAMES,
    COST_NAMES,
    GOLD_NAMES,
    ID_NAMES,
    INPUT_TOKEN_NAMES,
    MODEL_NAMES,
    OUTPUT_TOKEN_NAMES,
    PROMPT_NAMES,
    SCORE_NAMES,
    amount_of,
    empty,
    first_of,
    id_of,
    is_amount,
    is_score,
    kept,
    most,
    name_of,
    prompt_of,
    score_of,
    shown,
    text_of,
    tokens_of,
)

_FIRST = 16
# What a column may say about a model, beside its name: "gpt-4o_response", "gpt-4o|total_cost", "score_gpt-4o".
_ROLES = {
    "answers": "(?:model_)?(?:response|answer|output|completion|generation|prediction)s?",
    "input": "(?:num_)?(?:input|prompt)_tokens",
    "output": "(?:num_)?(?:output|completion)_tokens",
    "costs": "(?:total_|inference_)?(?:cost|price|spend)(?:_usd)?",
    "scores": "(?:is_|eval_)?(?:score|correct|accuracy|acc|performance|quality|reward|rating|grade|passed|em)",
}
_SEPARATOR = r"\s*[|_.:/ -]\s*"
_PATTERNS = [
    (role, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for role, words in _ROLES.items()
    for pattern in (rf"(?P<model>.+?){_SEPARATOR}{words}", rf"{words}{_SEPARATOR}(?P<model>.+)")
]
# Numbers that tables hold beside the models' scores.
_OTHER = re.compile(
    r"(?:.*[_ ])?(?:ids?|idx|index|no|number|num|n|count|seed|turns?|year|date|day|time|timestamp|created|latency|"
    r"duration|seconds|ms|length|len|chars|words|tokens?|temperature|weight|difficulty|level|split|fold|epoch|step|rank|"
    r"accepted|contaminated|flagged|redacted|users?|category|domain|tokens_.*|num_.*|n_.*|max_.*|min_.*|mean.*|avg.*|total.*)"
    r"|unnamed: ?\d+|level_\d+",  # an index that pandas wrote
    re.IGNORECASE,
)
# Beside one of these, a number is a rating of that answer and no model's score.
_SINGLE_ANSWERS = tuple(name for name in ANSWER_NAMES if name not in ("answer", "output", "prediction"))
_USUAL: frozenset[str] = frozenset().union(
    PROMPT_NAMES, ID_NAMES, MODEL_NAMES, SCORE_NAMES, ANSWER_NAMES, GOLD_NAMES, COST_NAMES, INPUT_TOKEN_NAMES,
    OUTPUT_TOKEN_NAMES,
)  # fmt: skip
# Of a model whose column holds an object, as in {"score": 1, "response": "...", "num_input_tokens": 12}.
_NOT_MODELS = frozenset({"scores", "answers", "costs", "tokens", "metrics", "metadata", "usage", "attributes"})


class _Columns(NamedTuple):
    """Columns by what they hold: {role: {model: column}}, and those that hold an object for a model."""

    roles: dict[str, dict[str, str]]
    objects: tuple[str, ...]

    def models(self) -> set[str]:
        return {*self.roles["scores"], *self.roles["answers"], *self.objects}


def columns_of(rows: Sequence[Row]) -> _Columns:
    """Which columns are about which model, by their names and first values."""
    roles: dict[str, dict[str, str]] = {role: {} for role in _ROLES}
    objects, bare = [], []
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if not empty(row.get(name))]
        if not values or name_of({name: 1}, _USUAL) or name in OWN_COLUMNS or name.startswith(OWN_PREFIXES):
            continue
        if most(values, lambda value: isinstance(value, dict)):
            if name.lower() not in _NOT_MODELS and most(values, _is_about_a_model):
                objects.append(name)
            continue
        numeric = most(values, is_score)
        found = _role_of(name)
        fits = {"answers": True, "costs": numeric or most(values, is_amount)}
        if found is not None and fits.get(found[0], numeric):
            roles[found[0]].setdefault(found[1], name)
        elif numeric and not _OTHER.fullmatch(name):
            bare.append(name)
    # columns of answers name the models, so that a number beside them is no model; else every number is one
    named = {*roles["answers"], *roles["scores"]}
    if any(name_of(row, _SINGLE_ANSWERS) for row in rows):
        bare = [name for name in bare if name in named]
    of_named = [name for name in bare if name in named]
    for name in of_named or bare:
        roles["scores"].setdefault(name, name)
    return _Columns(roles, tuple(objects))


def _is_about_a_model(value: Any) -> bool:
    return isinstance(value, dict) and name_of(value, (*SCORE_NAMES, *ANSWER_NAMES)) is not None


def _role_of(name: str) -> tuple[str, str] | None:
    for role, pattern in _PATTERNS:
        if match := pattern.fullmatch(name):
            return role, match["model"]
    return None


def _matches(rows: Sequence[Row]) -> bool:
    if not most(rows, lambda row: name_of(row, PROMPT_NAMES)) or any(
        {"scores", "answers", "winner", "model_a"} & row.keys() for row in rows
    ):
        return False
    columns = columns_of(rows)
    return len(columns.models()) >= 2 or (len(columns.roles["scores"]) == 1 and not _has_long_fields(rows))


def _has_long_fields(rows: Sequence[Row]) -> bool:
    return any(name_of(row, (*MODEL_NAMES, *SCORE_NAMES, *ANSWER_NAMES)) for row in rows)


def wide_row(row: Row, columns: _Columns, prompt: str | None) -> Row:
    """A row of a wide table as one of the project's own."""
    out: Row = {"prompt": prompt, "scores": {}, "answers": {}, "costs": {}, "tokens": {}}
    for model, name in columns.roles["scores"].items():
        _put(out["scores"], model, score_of(row.get(name), name))
    for model, name in columns.roles["answers"].items():
        _put(out["answers"], model, text_of(row.get(name), name))
    known = columns.models()
    for model, name in columns.roles["costs"].items():
        if model in known:
            _put(out["costs"], model, amount_of(row.get(name), name))
    for side in ("input", "output"):
        for model, name in columns.roles[side].items():
            if model in known and (count := amount_of(row.get(name), name)) is not None:
                out["tokens"].setdefault(model, {})[side] = count
    for model in columns.objects:
        put_object(out, model, row.get(model))
    out = {name: value for name, value in out.items() if value != {}}
    if (gold := first_of(row, GOLD_NAMES)) is not None:
        out["gold"] = gold
    if (row_id := id_of(row)) is not None:
        out["id"] = row_id
    return out | kept(row, "accepted")


def _put(into: dict[str, Any], model: str, value: Any) -> None:
    if value is not None:
        into[model] = value


def put_object(out: Row, model: str, value: Any) -> None:
    """Put what an object says about a model into a row that has scores, answers, costs and tokens.

    Raises:
        BadRowError: It is not an object, or a value in it is not as expected.
    """
    if value is None:
        return
    if not isinstance(value, dict):
        raise BadRowError(f"field {shown(model)}: expected an object, as in the first rows, got {kind_of(value)}")
    for field, names, read in (
        ("scores", SCORE_NAMES, score_of),
        ("answers", ANSWER_NAMES, text_of),
        ("costs", COST_NAMES, amount_of),
    ):
        if (name := name_of(value, names)) is not None:
            _put(out[field], model, read(value[name], f"{model}.{name}"))
    if tokens := tokens_of(value):
        out["tokens"][model] = tokens


def wide_rows(prompt: Any = prompt_of) -> Translation:
    """The translation of a wide table whose prompts `prompt` reads."""

    def rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
        located = iter(located)
        first = list(islice(located, _FIRST))
        columns = columns_of([row for _, row in first])
        yield from row_by_row(lambda row: wide_row(row, columns, prompt(row)))(chain(first, located), model)

    return rows


WIDE = Form(
    name="wide",
    title="one row per prompt, one column per model: scores, also MODEL_response, MODEL_cost, or an object per model",
    fields=("prompt",),
    matches=_matches,
    holds=("prompts", "answers", "scores", "costs"),
    rows=wide_rows(),
    plain=True,
)
