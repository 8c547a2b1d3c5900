"""What the server says itself: errors in OpenAI's form, and the headers that tell a decision."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from routellm_core.policy.decision import RoutingDecision

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]


class RequestError(Exception):
    """A request that the server refuses, or cannot serve, with the reply that says so.

    Args:
        status: HTTP status.
        message: What is wrong and what to do; never a prompt or a key.
        code: OpenAI's word for it, such as ``"model_not_found"``.
        kind: OpenAI's class of error.
        param: Name of the parameter that is wrong.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


async def reply(
    send: Send,
    status: int,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
    content_type: bytes = b"application/json",
) -> None:
    """Send a whole reply."""
    about = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": body})


def decision_headers(decision: RoutingDecision, model: str, note: str | None = None) -> Headers:
    """The headers of a routed reply.

    Args:
        decision: As it stands when the reply begins, with those of the levels below where there are any.
        model: Name of the model that answers, as its server calls it.
        note: Something that the caller should know about the model's name that it used.
    """
    told: dict[str, str] = {
        "model": decision.model,
        "upstream-model": model,
        "reason": decision.reason,
        "threshold": f"{decision.threshold:.6g}",
        "router": decision.router,
        "decision-id": decision.id,
    }
    levels = decision.levels
    win_rate = next((level.win_rate for level in levels if level.win_rate is not None), None)
    if win_rate is not None:
        told["win-rate"] = f"{win_rate:.6f}"
    for name, value in (
        ("path", "/".join(decision.path) if len(levels) > 1 else None),
        ("failover", next((level.failover for level in levels if level.failover is not None), None)),
        ("escalated", "true" if any(level.escalated for level in levels) else None),
        ("detail", next((level.detail for level in levels if level.detail is not None), None)),
        ("error", decision.error),
        ("cost", None if decision.cost is None else f"{decision.cost:.9g}"),
        ("note", note),
    ):
        if value is not None:
            told[name] = value
    return [(f"x-routellm-{name}".encode(), _header_value(value)) for name, value in told.items()]


def _header_value(text: str) -> bytes:
    """A header holds printable ASCII; a model's or router's name may be anything."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).encode()
