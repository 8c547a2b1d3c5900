"""A loopback server that speaks Ollama's API: chat (whole or as JSON lines), show and tags (see `loopback`).

::

    with OllamaServer({"small": 8192}) as server:
        client = ollama.Client(host=server.origin)

A model that it does not hold is a 404, as in the real one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.support import wire
from tests.support.loopback import Exchange, Failure, LoopbackServer, RecordedRequest

_TIME = "2026-01-01T00:00:00Z"


class OllamaServer(LoopbackServer):
    """The server.

    Args:
        models: Context window of each model that it holds.
    """

    def __init__(self, models: Mapping[str, int]) -> None:
        self.models = dict(models)
        super().__init__()

    def error_body(self, status: int, message: str) -> dict[str, Any]:
        return {"error": message}

    def respond(self, exchange: Exchange, request: RecordedRequest, failure: Failure) -> None:
        body = request.body
        if request.path == "/api/tags":
            listed = [{"name": name, "model": name, "modified_at": _TIME, "size": 1} for name in self.models]
            exchange.send_json(200, {"models": listed})
        elif request.path not in ("/api/show", "/api/chat"):
            exchange.send_failure(404, f"no such path: {request.path}")
        elif (name := str(body.get("model") or body.get("name"))) not in self.models:
            exchange.send_failure(404, f"model '{name}' not found")
        elif request.path == "/api/show":
            info = {"general.architecture": "llama", "llama.context_length": self.models[name]}
            exchange.send_json(200, {"model_info": info, "capabilities": ["completion", "tools"], "details": {}})
        else:
            self._chat(exchange, body, failure)

    def _chat(self, exchange: Exchange, body: dict[str, Any], failure: Failure) -> None:
        refusal = wire.ollama_refusal(body) if self.strict else None
        if refusal is not None:
            exchange.send_failure(400, refusal)
            return
        reply = self.reply(body)
        head = {"model": body.get("model"), "created_at": _TIME}
        calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in reply.tool_calls]
        counts = {"prompt_eval_count": reply.usage[0], "eval_count": reply.usage[1], "total_duration": 1}
        end = {"done": True, "done_reason": reply.finish_reason or "stop", **counts}
        message: dict[str, Any] = {"role": "assistant", "content": reply.content or ""}
        if calls:
            message["tool_calls"] = calls
        if reply.thinking is not None:
            message["thinking"] = reply.thinking
        if not body.get("stream"):
            exchange.send_json(200, {**head, "message": message, **end})
            return
        pieces: list[dict[str, Any]] = [{"content": word} for word in reply.words]
        if reply.thinking is not None:
            pieces.insert(0, {"content": "", "thinking": reply.thinking})
        if calls:
            pieces.append({"content": "", "tool_calls": calls})
        events = [{**head, "message": {"role": "assistant", **piece}, "done": False} for piece in pieces]
        events.append({**head, "message": {"role": "assistant", "content": ""}, **end})
        exchange.send_pieces("application/x-ndjson", [json.dumps(event) + "\n" for event in events], failure)
