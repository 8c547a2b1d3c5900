"""A loopback server that speaks Anthropic's Messages API: plain, streamed, with tools and thinking (see `loopback`).

::

    with AnthropicServer() as server:
        client = anthropic.Anthropic(base_url=server.origin, api_key="sk-ant-test", max_retries=0)

Like the real service it refuses, with status 400, a turn that holds tool results while thinking is on and does not
begin with the thinking block that it came with, and a thinking block that it did not sign.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support import wire
from tests.support.loopback import ChatReply, Exchange, Failure, LoopbackServer, RecordedRequest

_KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_KINDS |= {413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}


class AnthropicServer(LoopbackServer):
    """The server."""

    def error_body(self, status: int, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": _KINDS.get(status, "api_error"), "message": message}}

    def respond(self, exchange: Exchange, request: RecordedRequest, failure: Failure) -> None:
        body = request.body
        if not request.path.endswith("/v1/messages"):
            exchange.send_failure(404, f"no such path: {request.path}")
            return
        refusal = self._refusal(body) or (wire.anthropic_refusal(body) if self.strict else None)
        if refusal is not None:
            exchange.send_failure(400, refusal)
            return
        reply = self.reply(body)
        content: list[dict[str, Any]] = []
        if reply.thinking is not None:
            content.append({"type": "thinking", "thinking": reply.thinking, "signature": self._signature(reply)})
        if reply.server_tool is not None:
            content += _web_search(*reply.server_tool, name=f"srvtoolu_{self.new_id()}")
        if reply.content is not None or not reply.tool_calls:
            content.append({"type": "text", "text": reply.content or "", "citations": None})
        content += [
            {"type": "tool_use", "id": f"toolu_{self.new_id()}_{i}", "name": name, "input": arguments}
            for i, (name, arguments) in enumerate(reply.tool_calls)
        ]
        message = {
            "id": "msg_test",
            "type": "message",
            "role": "assistant",
            "model": body.get("model"),
            "content": content,
            "stop_reason": reply.finish_reason or ("tool_use" if reply.tool_calls else "end_turn"),
            "stop_sequence": None,
            "usage": {"input_tokens": reply.usage[0], "output_tokens": reply.usage[1]},
        }
        if not body.get("stream"):
            exchange.send_json(200, message)
        else:
            exchange.send_events(_events(message, reply), failure, named=True)

    def _signature(self, reply: ChatReply) -> str:
        return f"signed:{reply.thinking}"

    def _refusal(self, body: dict[str, Any]) -> str | None:
        messages = body.get("messages") or []
        if not messages:
            return "messages: at least one message is required"
        blocks = [m["content"] if isinstance(m["content"], list) else [] for m in messages]
        for content in blocks:
            for block in content:
                if block.get("type") == "thinking" and block.get("signature") != f"signed:{block.get('thinking')}":
                    return "messages: invalid `signature` in `thinking` block"
                if block.get("type") == "web_search_tool_result":
                    found = block["content"]
                    if any(page["encrypted_content"] != f"encrypted:{page['title']}" for page in found):
                        return "messages: invalid `encrypted_content` in `web_search_tool_result` block"
        # with adaptive thinking a turn may begin without
        thinks = (body.get("thinking") or {}).get("type") == "enabled"
        if thinks and any(block.get("type") == "tool_result" for block in blocks[-1]):
            turn = blocks[-2] if len(blocks) > 1 else []
            if not turn or turn[0].get("type") not in ("thinking", "redacted_thinking"):
                return "messages: expected `thinking` or `redacted_thinking`, but found another block"
        return None


def _web_search(query: str, result: str, *, name: str) -> list[dict[str, Any]]:
    page = {
        "type": "web_search_result",
        "url": "https://pages.example/found",
        "title": result,
        "encrypted_content": f"encrypted:{result}",
        "page_age": None,
    }
    return [
        {"type": "server_tool_use", "id": name, "name": "web_search", "input": {"query": query}},
        {"type": "web_search_tool_result", "tool_use_id": name, "content": [page]},
    ]


def _events(message: dict[str, Any], reply: ChatReply) -> list[dict[str, Any] | str]:
    usage = {"input_tokens": reply.usage[0], "output_tokens": 1}
    begun = {**message, "content": [], "stop_reason": None, "usage": usage}
    events: list[dict[str, Any] | str] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(message["content"]):
        deltas: list[dict[str, Any]]
        if block["type"] == "text":
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in reply.words]
        elif block["type"] == "thinking":
            empty = {**block, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "web_search_tool_result":
            empty, deltas = block, []
        else:
            empty = {**block, "input": {}}
            text = json.dumps(block["input"])
            halves = (text[: len(text) // 2], text[len(text) // 2 :])
            deltas = [{"type": "input_json_delta", "partial_json": half} for half in halves]
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": reply.usage[1]}})
    events.append({"type": "message_stop"})
    return events
