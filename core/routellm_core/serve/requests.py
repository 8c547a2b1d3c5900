"""The client's request: its body, the texts in it, what it needs of a model, and the model's name put in its place."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from routellm_core.data.chats import content_text
from routellm_core.policy.capability import (
    AUDIO_INPUTS,
    IMAGE_INPUTS,
    PDF_INPUTS,
    STRUCTURED_OUTPUT,
    TOOL_CALLING,
    estimated_tokens,
)
from routellm_core.serve.replies import Receive, RequestError

CHAT, COMPLETIONS, RESPONSES = "/chat/completions", "/completions", "/responses"
ROUTED = frozenset({CHAT, COMPLETIONS, RESPONSES})

# A string, or a bracket. Possessive: a string of a hundred megabytes is passed over at once, and nothing backtracks.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_NESTING = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}

_NEEDS = {
    "image_url": IMAGE_INPUTS,
    "input_image": IMAGE_INPUTS,
    "input_audio": AUDIO_INPUTS,
    "file": PDF_INPUTS,
    "input_file": PDF_INPUTS,
}


class ClientGoneError(Exception):
    """The client went away before its request was complete."""


async def read_body(receive: Receive, *, at_most: int, seconds: float) -> bytes:
    """Read the body of a request.

    Args:
        receive: The ASGI callable.
        at_most: Largest body, in bytes.
        seconds: How long a client may take to send it.

    Raises:
        RequestError: It is larger, or does not arrive in time.
        ClientGoneError: The client hung up.
    """
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part = message.get("body", b"")
                size, more = size + len(part), message.get("more_body", False)
                if size > at_most:
                    raise RequestError(413, f"the body is larger than {at_most} bytes", "request_too_large")
                parts.append(part)
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {seconds:g} s", "request_timeout") from None
    return b"".join(parts)


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object that a request's body holds.

    Raises:
        RequestError: It is not a JSON object in UTF-8 with the name of a model.
    """
    try:
        # decoded here: the parser would take UTF-16 for JSON, too, and the name could not be replaced in that
        body = json.loads(raw.decode())
    except UnicodeDecodeError:
        raise RequestError(400, "the body is not UTF-8; send JSON in UTF-8, not compressed") from None
    except (ValueError, RecursionError) as exc:
        raise RequestError(400, f"the body is not JSON that can be read ({type(exc).__name__})") from None
    if not isinstance(body, dict):
        raise RequestError(400, "expected a JSON object")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError(400, "model: expected the name of a model, such as routellm", param="model")
    return body


def with_model(raw: bytes, model: str) -> bytes:
    """The bytes of a JSON object with the value of its own "model" replaced, and nothing else.

    To parse it and write it again would turn 1e2 into 100.0. A "model" further inside, in metadata or a tool's schema,
    stays as it is.

    Raises:
        RequestError: The key is written with escapes.
    """
    out, depth, at = [], 0, 0
    for token in _TOKEN.finditer(raw):
        depth += _NESTING.get(token[0], 0)
        found = _MODEL.match(raw, token.start()) if depth == 1 and token[0] == b'"model"' else None
        if found:
            out += [raw[at : found.start(1)], json.dumps(model).encode()]
            at = found.end(1)
    if not out:
        raise RequestError(400, 'write the key "model" without escapes', param="model")
    return b"".join([*out, raw[at:]])


def routing_texts(path: str, body: dict[str, Any], lookback: int) -> list[str]:
    """What a request is routed on: the newest texts of the user, or the prompts of a completion.

    Args:
        path: One of `ROUTED`.
        body: The request.
        lookback: How many user messages with a text to look at.

    Returns:
        The texts, the newest first; none where there is no text of the user.

    Raises:
        RequestError: The messages are not in a list.
    """
    if path == COMPLETIONS:
        prompt = body.get("prompt")
        prompts = prompt if isinstance(prompt, list) else [prompt]
        return [text for text in prompts if isinstance(text, str) and text.strip()]
    messages = _messages(path, body)
    if isinstance(messages, str):
        return [messages] if messages.strip() else []
    texts: list[str] = []
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            text = content_text(message.get("content"))
            if text is not None:
                texts.append(text)
                if len(texts) == lookback:
                    break
    return texts


def needs(path: str, body: dict[str, Any]) -> set[str]:
    """What a request needs of a model, by the names of its profile."""
    found = {
        _NEEDS[kind] for part in _parts(path, body) if isinstance(kind := part.get("type"), str) and kind in _NEEDS
    }
    if body.get("tools") or body.get("functions"):
        found.add(TOOL_CALLING)
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        found.add(STRUCTURED_OUTPUT)
    return found


def input_tokens(path: str, body: dict[str, Any]) -> int:
    """About how many tokens the texts of a request have."""
    if path == COMPLETIONS:
        return sum(map(estimated_tokens, routing_texts(path, body, 1)))
    messages = _messages(path, body)
    if isinstance(messages, str):
        return estimated_tokens(messages)
    contents = (content_text(message.get("content")) for message in messages if isinstance(message, dict))
    return sum(estimated_tokens(text) for text in contents if text)


def _messages(path: str, body: dict[str, Any]) -> list[Any] | str:
    name = "messages" if path == CHAT else "input"
    messages = body.get(name)
    if isinstance(messages, str) and path == RESPONSES:
        return messages
    if not isinstance(messages, list):
        if path == RESPONSES and messages is None:  # a stored prompt, or the conversation so far
            return []
        raise RequestError(400, f"{name}: expected a list of messages", param=name)
    return messages


def _parts(path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if path == COMPLETIONS:
        return
    messages = _messages(path, body)
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            yield from (part for part in content if isinstance(part, dict))
