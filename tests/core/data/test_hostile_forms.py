"""Foreign files with wrong, huge or hostile values: an error that names file and row, or the row is skipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from routellm_core import RouteLLMError
from routellm_core.data import SkippedRows, read_answers, read_preferences, read_prompts
from tests.core.data.foreign_files import STAND_INS, put

DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
HOSTILE: dict[str, Any] = {
    "deep": DEEP,
    "deep text": "[" * 50_000,
    "huge": 10**400,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "null": None,
    "true": True,
    "text": "\x1b[2J\x1b]0;pwned\x07",
    "empty": "",
    "list": [1, {"a": 2}],
    "object": {"\x1b[31m": 1},
    "negative": -1,
    "surrogate": "\ud800",
}


def damaged(value: Any, hostile: Any) -> Iterator[Any]:
    """Copies of a value, in each of which one inner value is replaced; of lists the first two items."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {**value, key: hostile}
            yield from ({**value, key: changed} for changed in damaged(inner, hostile))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:2]):
            yield [*value[:i], hostile, *value[i + 1 :]]
            yield from ([*value[:i], changed, *value[i + 1 :]] for changed in damaged(inner, hostile))


def readers(data: list[str]) -> Iterator[tuple[str, Any]]:
    for skipped in (None, SkippedRows()):
        yield data[0], lambda s=skipped: read_preferences(data, skip_bad=s)
        yield data[0], lambda s=skipped: read_answers(data, skip_bad=s)
        for item in data:
            path = item.rpartition("=")[2]
            yield path, lambda p=path, s=skipped: read_prompts(p, skip_bad=s)


@pytest.mark.parametrize("name", STAND_INS)
def test_a_hostile_value_anywhere_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    stand_in = STAND_INS[name]
    first, rows = next(iter(stand_in.files.items()))
    bodies = [
        [*rows[:1], changed, *rows[2:]] if isinstance(rows, list) else changed
        for hostile in HOSTILE.values()
        for changed in damaged(rows[1] if isinstance(rows, list) else rows, hostile)
    ]
    for body in bodies[:: max(1, len(bodies) // 60)]:
        try:
            data = put(tmp_path, type(stand_in)(stand_in.form, {**stand_in.files, first: body}, stand_in.models))
        except (RecursionError, UnicodeEncodeError, TypeError):
            continue  # the test's own writing
        for path, read in readers(data):
            try:
                list(read())
            except RouteLLMError as exc:
                message = str(exc)
                assert any(item.rpartition("=")[2] in message for item in data), (path, message)
                assert message.isprintable(), message
                assert "Faust" not in message
                assert len(message) < 2500


PLACE = r"(line|item|sample) \d+"


@pytest.mark.parametrize(
    ("name", "path", "value", "field"),
    [
        ("wide", (BIG := "acme/big-1.5",), float("nan"), BIG),
        ("wide", (BIG,), 10**400, BIG),
        ("long", ("performance",), "good", "performance"),
        ("long", ("cost",), -1, "cost"),
        ("long", ("input_tokens",), "many", "input_tokens"),
        ("long", ("model_name",), {"a": 1}, "model_name"),
        ("routerarena", ("evaluation_result", "score"), [1], "evaluation_result.score"),
        ("routerarena", ("evaluation_result",), "x", "evaluation_result"),
        ("lm_eval", ("exact_match",), {"a": 1}, "exact_match"),
        ("lm_eval", ("doc",), 7, "doc"),
        ("promptfoo, lines", ("provider",), [1], "provider"),
        ("ultrafeedback", ("completions",), 3, "completions"),
        ("pairs", ("chosen-model",), 1.5e300 * 1e300, "chosen-model"),
        ("alpaca_eval", ("preference",), 7, "preference"),
        ("arena, 33k", ("winner",), "me", "winner"),
        ("arena_hard", ("games",), {}, "games"),
        ("openai_evals", ("data",), [1], "data"),
    ],
)
def test_a_wrong_value_is_named_by_file_row_and_field(
    tmp_path: Path, name: str, path: tuple[str, ...], value: Any, field: str
) -> None:
    stand_in = STAND_INS[name]
    first, rows = next(iter(stand_in.files.items()))
    assert isinstance(rows, list)
    row = json.loads(json.dumps(rows[2]))
    inner = row
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    body = [*rows[:2], row, *rows[3:]]
    data = put(tmp_path, type(stand_in)(stand_in.form, {**stand_in.files, first: body}, stand_in.models))
    place = rf"{re.escape(Path(first).name)}, {PLACE[:-4]} 3: .*{re.escape(field)}"
    with pytest.raises(RouteLLMError, match=place):
        list(read_preferences(data))
    skipped = SkippedRows()
    list(read_preferences(data, skip_bad=skipped))
    assert skipped.count == 1
    assert re.search(place, skipped.first[0])
