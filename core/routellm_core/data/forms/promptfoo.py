"""Results of promptfoo: a test and provider each, as JSON (--output x.json) or JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row
from routellm_core.data.forms.base import BadRowError, Form, Located, Problem, rows_of_model, unwrapped
from routellm_core.data.forms.values import amount_of, name_text, one_models_row, opening, prompt_of, score_of, text_of

# Of a result that failed because the provider did, not because its answer is wrong.
_ERROR = 2


def _results(row: Row) -> tuple[str, ...] | None:
    results = row.get("results")
    if isinstance(results, dict) and isinstance(results.get("results"), list):
        return ("results", "results")
    if isinstance(results, list) and results and isinstance(results[0], dict) and _is_result(results[0]):
        return ("results",)
    return None


def _is_result(row: Row) -> bool:
    return "provider" in row and ("vars" in row or "testCase" in row) and ("success" in row or "score" in row)


def _matches(rows: Sequence[Row]) -> bool:
    return any(_results(row) is not None or _is_result(row) for row in rows)


def _rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
    translate = rows_of_model(_translated)
    for where, row in located:
        path = _results(row)
        yield from translate([(where, row)] if path is None else unwrapped([(where, row)], path), model)


def _translated(row: Row, model: str | None) -> Row | None:
    response = row.get("response")
    response = response if isinstance(response, dict) else {}
    if row.get("failureReason") == _ERROR or (row.get("error") and response.get("output") is None):
        return None  # the provider failed: nothing was said about its answer
    usage = response.get("tokenUsage")
    usage = usage if isinstance(usage, dict) else {}
    tokens = {
        side: count
        for side, name in (("input", "prompt"), ("output", "completion"))
        if (count := amount_of(usage.get(name), f"response.tokenUsage.{name}")) is not None
    }
    field = "score" if row.get("score") is not None else "success"
    output = response.get("output")
    return one_models_row(
        {"prompt": _prompt(row), "id": _test(row)},
        model or name_text(row.get("provider"), "provider"),
        score=score_of(row.get(field), field),
        answer=text_of(output, "response.output") if isinstance(output, str) else None,
        cost=amount_of(row.get("cost"), "cost"),
        tokens=tokens,
    )


def _values(row: Row) -> Row:
    test = row.get("testCase")
    values = row.get("vars") or (test.get("vars") if isinstance(test, dict) else None)
    return values if isinstance(values, dict) else {}


def _test(row: Row) -> str | None:
    """What the results of one test have in common, should each provider have a prompt of its own."""
    values = _values(row)
    # hashed: reports and errors show ids, and these are texts of the prompt
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest() if values else None


def _prompt(row: Row) -> str:
    """What the provider was sent, or else the variables of the test."""
    prompt = row.get("prompt")
    sent: Any = prompt.get("raw") if isinstance(prompt, dict) else prompt
    text = opening(parsed(sent))
    if text is None:
        values = _values(row)
        texts = [value for value in values.values() if isinstance(value, str) and value.strip()]
        text = prompt_of(values) or (texts[0] if len(texts) == 1 else None)
    if text is None:
        raise BadRowError("field 'prompt.raw': expected the text that was sent")
    return text


PROMPTFOO = Form(
    name="promptfoo",
    title="promptfoo results: tests with providers, scores and costs",
    fields=("provider", "vars", "testCase", "gradingResult", "promptIdx"),
    matches=_matches,
    holds=("prompts", "answers", "scores", "costs"),
    rows=_rows,
    joins=True,
)
