"""A loopback server that speaks Google's Gemini API: plain, streamed, with tools and thoughts (see `loopback`).

::

    with GoogleServer() as server:
        model = ChatGoogleGenerativeAI(model="gemini-2.5-flash", base_url=server.origin, api_key="test")

The model stands in the path; recorded bodies have it under ``"model"`` as for the other servers.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import Any

from tests.support.loopback import ChatReply, Exchange, Failure, LoopbackServer, RecordedRequest
from tests.support.wire import google_refusal

_PATH = re.compile(r"/v1(?:beta|alpha)?/models/([^:]+):(generateContent|streamGenerateContent)$")


class GoogleServer(LoopbackServer):
    """The server."""

    def error_body(self, status: int, message: str) -> dict[str, Any]:
        return {"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}

    def respond(self, exchange: Exchange, request: RecordedRequest, failure: Failure) -> None:
        found = _PATH.search(request.path)
        if found is None:
            exchange.send_failure(404, f"no such path: {request.path}")
            return
        refusal = google_refusal(request.body)
        if refusal is not None:
            exchange.send_failure(400, refusal)
            return
        request.body["model"] = found[1]
        reply = self.reply(request.body)
        answer = {
            "candidates": [{"content": {"role": "model", "parts": _parts(reply)}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {
                "promptTokenCount": reply.usage[0],
                "candidatesTokenCount": reply.usage[1],
                "totalTokenCount": sum(reply.usage),
            },
            "modelVersion": reply.model or found[1],
            "responseId": f"google_{self.new_id()}",
        }
        if found[2] == "generateContent":
            exchange.send_json(200, answer)
            return
        pieces = [_parts(replace(reply, content=None, tool_calls=()))] if reply.thinking is not None else []
        pieces += [[{"text": word}] for word in reply.words]
        if reply.tool_calls:
            pieces.append(_parts(replace(reply, content=None, thinking=None)))
        events: list[dict[str, Any] | str] = [
            {**answer, "candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}]} for parts in pieces
        ]
        ending = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP", "index": 0}
        events.append({**answer, "candidates": [ending]})
        exchange.send_events(events, failure)


def _parts(reply: ChatReply) -> list[dict[str, Any]]:
    signature = base64.b64encode(f"signed:{reply.thinking}".encode()).decode()
    parts: list[dict[str, Any]] = []
    if reply.thinking is not None:
        parts.append({"text": reply.thinking, "thought": True})
    if reply.content is not None:
        parts.append({"text": reply.content})
    for name, arguments in reply.tool_calls:
        part: dict[str, Any] = {"functionCall": {"name": name, "args": arguments}}
        if reply.thinking is not None:
            part["thoughtSignature"] = signature
        parts.append(part)
    if reply.server_tool is not None:
        query, result = reply.server_tool
        parts.insert(0, {"executableCode": {"language": "PYTHON", "code": query}})
        parts.insert(1, {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": result}})
    return parts or [{"text": ""}]
