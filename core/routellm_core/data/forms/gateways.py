"""Logs of gateways: LiteLLM's spend logs and Helicone's exports; each row is a request with its response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routellm_core.data.chats import is_no_chat, parsed, texts_of_call
from routellm_core.data.files import Row
from routellm_core.data.forms.base import Form

_LITELLM = ("spend", "call_type", "proxy_server_request")
_HELICONE = ("request_body", "request_path", "request_created_at")


def _is_litellm(row: Row) -> bool:
    return "proxy_server_request" in row or (
        "spend" in row and bool(row.keys() & {"call_type", "startTime", "request_id"})
    )


def _texts(value: Any) -> list[str]:
    value = parsed(value)
    return texts_of_call(value) if value else []


def _litellm_prompts(row: Row) -> list[str]:
    if is_no_chat(row.get("call_type")):
        return []
    # with messages: {} the prompt is in the request as the proxy took it, where that is kept
    for name in ("messages", "proxy_server_request"):
        value = parsed(row.get(name))
        if isinstance(value, dict) and "body" in value:
            value = value["body"]
        if texts := _texts(value):
            return texts
    return []


def _helicone_prompts(row: Row) -> list[str]:
    if is_no_chat(row.get("request_path")):
        return []
    for name in ("request_body", "request", "signed_body"):
        value = parsed(row.get(name))
        if isinstance(value, dict) and isinstance(inner := parsed(value.get("body", value.get("request"))), dict):
            value = inner
        if texts := _texts(value):
            return texts
    return []


def _matches_litellm(rows: Sequence[Row]) -> bool:
    return any(_is_litellm(row) for row in rows)


def _matches_helicone(rows: Sequence[Row]) -> bool:
    return any(
        "request_body" in row or ("request" in row and row.keys() & {"response", "response_body", "provider"})
        for row in rows
    )


LITELLM = Form(
    name="litellm",
    title="LiteLLM spend logs (the proxy keeps prompts with store_prompts_in_spend_logs: true only)",
    fields=_LITELLM,
    matches=_matches_litellm,
    holds=("prompts",),
    prompts=_litellm_prompts,
)
HELICONE = Form(
    name="helicone",
    title="Helicone exports, and other logs of requests with their responses",
    fields=_HELICONE,
    matches=_matches_helicone,
    holds=("prompts",),
    prompts=_helicone_prompts,
)
