"""Samples of the lm-evaluation-harness: one file per model and task, which does not name the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from routellm_core.data.chats import parsed
from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, Located, Problem, rows_of_model
from routellm_core.data.forms.values import (
    GOLD_NAMES,
    UNNAMED,
    first_of,
    is_score,
    one_models_row,
    opening,
    prompt_of,
    score_of,
)

# Fields of a sample that are no metric.
_NO_METRICS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
# The metric of a sample that has several, the likeliest first; then the others that say whether an answer is right.
_METRICS = ("exact_match", "acc", "prompt_level_strict_acc", "pass@1", "pass_at_1", "f1", "em")
_RIGHT = re.compile(r"(.*_)?(acc|accuracy|em|exact_match|pass@?1)(_.*)?|exact_match,.*", re.IGNORECASE)
# Metrics that are better when they are lower, or that depend on the length of the text.
_NOT_QUALITY = re.compile(
    r".*(perplexity|bits_per_byte|likelihood|loss|latency|time|length)|brier.*|(.*_)?(wer|cer|ter)"
)
# The filter whose answers count where a task has several, the likeliest first; else the first of the file.
_FILTERS = ("strict-match", "none", "remove_whitespace")
# Fields of a document that a question is about: without them, different documents have the same question.
_CONTEXTS = ("passage", "context", "article", "story", "paragraph", "support", "premise", "sentence1")
_PROMPTS = (
    "question",
    "question_stem",
    "hypothesis",
    "sentence2",
    "query",
    "prompt",
    "problem",
    "instruction",
    "input",
    "goal",
    "ctx",
    "sentence",
    "premise",
    "text",
    "passage",
)


def _matches(rows: Sequence[Row]) -> bool:
    return any("doc" in row and row.keys() & {"doc_id", "resps", "filtered_resps", "arguments"} for row in rows)


def _rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
    # a task with several filters has each document once a filter, in any order
    translate = rows_of_model(_translated)
    by_filter: dict[str, list[tuple[str, Row | Problem]]] = {}
    for where, row in located:
        by_filter.setdefault(str(row.get("filter")), []).extend(translate([(where, row)], model))
    chosen = next((name for name in _FILTERS if name in by_filter), next(iter(by_filter), None))
    yield from by_filter.get(chosen or "", ())


def _translated(row: Row, model: str | None) -> Row:
    doc = parsed(row.get("doc"))
    if not isinstance(doc, dict):
        raise BadRowError(f"field 'doc': expected an object, got {kind_of(doc)}")
    texts = {name: value for name, value in doc.items() if isinstance(value, str)}
    name = _metric(row)
    target = row.get("target")
    named = row.get("doc_hash") or row.get("doc_id")
    return one_models_row(
        {
            "prompt": _prompt(texts) or _argument(row.get("arguments")),
            "id": str(named) if isinstance(named, str | int) else None,
            "gold": target if isinstance(target, str) else first_of(doc, GOLD_NAMES),
        },
        UNNAMED if model is None else model,
        score=score_of(row[name], name),
        answer=_answer(row.get("resps")) or _answer(row.get("filtered_resps")),
    )


def _prompt(texts: Row) -> str | None:
    question = prompt_of(texts, _PROMPTS)
    context = first_of(texts, _CONTEXTS)
    return question if question is None or context is None else f"{context}\n\n{question}"


def _answer(responses: Any) -> str | None:
    """The first response as the model gave it; of a choice between given texts there are only likelihoods."""
    responses = parsed(responses)
    for _ in range(2):
        responses = responses[0] if isinstance(responses, list) and responses else responses
    return responses if isinstance(responses, str) and responses else None


def _metric(row: Row) -> str:
    """The metric of a sample: of those that its task names, or of the numbers that are left, the one that says most."""
    metrics = parsed(row.get("metrics"))
    listed = metrics if isinstance(metrics, list) else []
    names = [name for name in listed if isinstance(name, str) and name in row and not isinstance(row[name], list)]
    names = names or [name for name in row if name not in _NO_METRICS and "hash" not in name and is_score(row[name])]
    names = [name for name in names if not _NOT_QUALITY.fullmatch(name)]
    if not names:
        raise BadRowError("has no metric: expected a field such as exact_match or acc")
    right = (name for name in names if _RIGHT.fullmatch(name))
    return next((name for name in _METRICS if name in names), next(right, names[0]))


def _argument(value: Any) -> str | None:
    """The text that the model was sent: the first argument of the first request."""
    value = parsed(value)
    for _ in range(3):
        if isinstance(value, dict):
            value = value.get("arg_0", next(iter(value.values()), None))
        elif isinstance(value, list):
            value = value[0] if value else None
    return opening(parsed(value))


LM_EVAL = Form(
    name="lm_eval",
    title="lm-evaluation-harness samples (--log_samples): one file per model",
    fields=("doc_id", "doc", "filtered_resps", "resps", "target"),
    matches=_matches,
    holds=("prompts", "answers", "scores"),
    rows=_rows,
    joins=True,
    needs="--data NAME=FILE for each model",
)
