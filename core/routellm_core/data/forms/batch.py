"""Batch files of OpenAI and Anthropic: requests with their prompts, results with their answers, joined by custom_id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routellm_core.data.chats import is_no_chat, parsed, routed
from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, rows_of_model
from routellm_core.data.forms.values import UNNAMED, name_text, one_models_row, text_of, tokens_of

_REQUESTS = ("body", "params")
_RESULTS = ("response", "result")


def _matches(rows: Sequence[Row]) -> bool:
    return any("custom_id" in row and row.keys() & {*_REQUESTS, *_RESULTS} for row in rows)


def _translated(row: Row, model: str | None) -> Row | None:
    known: Row = {"id": str(row["custom_id"])} if isinstance(row.get("custom_id"), str | int) else {}
    field = next((name for name in _REQUESTS if row.get(name) is not None), None)
    if field is not None:
        request = parsed(row[field])
        if not isinstance(request, dict):
            raise BadRowError(f"field {field!r}: expected an object, got {kind_of(request)}")
        return None if is_no_chat(row.get("url")) else {**known, "prompt": _prompt(request)}
    message = _message(row)
    if message is None:
        return None  # the request failed: nothing was answered
    usage = message.get("usage")
    named = message.get("model") if model is None else model
    return one_models_row(
        known,
        UNNAMED if named is None else name_text(named, "model"),
        answer=_answer(message),
        tokens=tokens_of(usage) if isinstance(usage, dict) else {},
    )


def _prompt(request: dict[str, Any]) -> str | None:
    """The text of a request to chat completions, responses, completions or messages; embeddings have none."""
    return next((text for name in ("messages", "input", "prompt") if (text := routed(request.get(name)))), None)


def _message(row: Row) -> dict[str, Any] | None:
    """The answer of the service, out of what a batch puts around it."""
    result = parsed(row.get("result"))
    if isinstance(result, dict):
        message = result.get("message")
    else:
        response = parsed(row.get("response"))
        message = response.get("body") if isinstance(response, dict) else None
    return message if isinstance(message, dict) and "error" not in message else None


def _answer(message: dict[str, Any]) -> str | None:
    choices = message.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return text_of(choices[0].get("message", choices[0].get("text")), "choices")
    content = message.get("content")
    if content is None and isinstance(output := message.get("output"), list):  # the responses API
        content = [part for item in output if isinstance(item, dict) for part in item.get("content") or ()]
        content = [{**part, "type": "text"} for part in content if isinstance(part, dict) and "text" in part]
    return text_of(content, "content")


def _prompts(row: Row) -> list[str]:
    if is_no_chat(row.get("url")):
        return []
    for name in _REQUESTS:
        request = parsed(row.get(name))
        if isinstance(request, dict) and (text := _prompt(request)) is not None:
            return [text]
    return []


BATCH = Form(
    name="batch",
    title="OpenAI and Anthropic batch files: requests, and with the results also the answers",
    fields=("custom_id", "body", "params"),
    matches=_matches,
    holds=("prompts", "answers"),
    rows=rows_of_model(_translated),
    prompts=_prompts,
    joins=True,
    needs="for label: the results beside the requests",
)
