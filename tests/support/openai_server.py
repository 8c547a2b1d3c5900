"""A loopback OpenAI-compatible server: embeddings, chat, completions and the Responses API (see `loopback`).

It answers ``POST /v1/embeddings``, ``/v1/chat/completions``, ``/v1/completions`` and ``/v1/responses``, plain and as
server-sent events, with tool calls; Azure's paths too::

    with OpenAIServer() as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0)

An embedding is a unit vector drawn from the text's hash (`embedding_of`), so equal texts have equal vectors. Like the
real service it refuses, with status 400: empty embedding inputs and more than 2,048 of them; a ``previous_response_id``
that it did not give; a ``reasoning`` item sent to a model that does not reason (by name: ``o...`` and ``gpt-5...`` do);
an item that was given with a ``reasoning`` item and comes back without it.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from tests.support import wire
from tests.support.loopback import ChatReply, Exchange, Failure, LoopbackServer, RecordedRequest

__all__ = ["ChatReply", "Failure", "OpenAIServer", "RecordedRequest", "embedding_of"]


def embedding_of(text: str, dimension: int) -> list[float]:
    """Unit vector that depends on the text alone."""
    rng = random.Random(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    vector = [rng.gauss(0.0, 1.0) for _ in range(dimension)]
    norm = sum(x * x for x in vector) ** 0.5
    return [x / norm for x in vector]


class OpenAIServer(LoopbackServer):
    """The server.

    Args:
        dimension: Length of embedding vectors when the request names none.
        shuffle: Return embeddings out of order (their ``index`` still says which is which).
    """

    def __init__(self, dimension: int = 8, *, shuffle: bool = False) -> None:
        self.dimension = dimension
        self.shuffle = shuffle
        self._given: dict[str, str | None] = {}  # id of a response or an item -> id of the reasoning it came with
        super().__init__()

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def error_body(self, status: int, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "scripted", "param": None, "code": None}}

    def respond(self, exchange: Exchange, request: RecordedRequest, failure: Failure) -> None:
        if request.path.endswith("/embeddings"):
            self._embeddings(exchange, request, failure)
        elif request.path.endswith("/chat/completions"):
            self._chat(exchange, request.body, failure)
        elif request.path.endswith("/completions"):
            self._completion(exchange, request.body, failure)
        elif request.path.endswith("/responses"):
            self._response(exchange, request.body, failure)
        else:
            exchange.send_failure(404, f"no such path: {request.path}")

    def _embeddings(self, exchange: Exchange, request: RecordedRequest, failure: Failure) -> None:
        texts, body = request.inputs, request.body
        if not texts or len(texts) > 2048 or any(text == "" for text in texts):
            exchange.send_failure(400, "'$.input' is invalid: 1 to 2048 non-empty inputs")
            return
        dimension = failure.dimension or body.get("dimensions") or self.dimension
        count = len(texts) if failure.vectors is None else failure.vectors
        data: list[dict[str, Any]] = [
            {"object": "embedding", "index": i, "embedding": embedding_of(texts[i % len(texts)], dimension)}
            for i in range(count)
        ]
        if failure.value is not None and data:
            data[0]["embedding"][0] = failure.value
        if self.shuffle:
            random.Random(0).shuffle(data)
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        exchange.send_json(200, {"object": "list", "data": data, "model": body.get("model"), "usage": usage})

    # -- chat completions and completions --

    def _chat(self, exchange: Exchange, body: dict[str, Any], failure: Failure) -> None:
        refusal = wire.openai_chat_refusal(body) if self.strict else None
        if refusal is not None:
            exchange.send_failure(400, refusal)
            return
        reply = self.reply(body)
        calls = [
            {
                "id": f"call_{self.new_id()}_{i}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for i, (name, arguments) in enumerate(reply.tool_calls)
        ]
        reason = reply.finish_reason or ("tool_calls" if calls else "stop")
        head = {"id": "chatcmpl-test", "created": 1, "model": reply.model or body.get("model")}
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": reply.content}
            if calls:
                message["tool_calls"] = calls
            choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
            payload = {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(reply)}
            exchange.send_json(200, payload)
            return
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word} for word in reply.words]
        for i, call in enumerate(calls):
            # As the service does: name first, then the arguments in pieces.
            function = call["function"]
            deltas.append(
                {"tool_calls": [{**call, "index": i, "function": {"name": function["name"], "arguments": ""}}]}  # type: ignore[index]
            )
            deltas += [{"tool_calls": [{"index": i, "function": {"arguments": t}}]} for t in _halves(function)]  # type: ignore[arg-type]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
        head["object"] = "chat.completion.chunk"
        self._send_chunks(exchange, body, head, choices, reply, failure)

    def _completion(self, exchange: Exchange, body: dict[str, Any], failure: Failure) -> None:
        reply = self.reply(body)
        head = {"id": "cmpl-test", "created": 1, "model": body.get("model"), "object": "text_completion"}
        reason = reply.finish_reason or "stop"
        if not body.get("stream"):
            choice = {"index": 0, "text": reply.content or "", "finish_reason": reason, "logprobs": None}
            exchange.send_json(200, {**head, "choices": [choice], "usage": _usage(reply)})
            return
        choices = [{"index": 0, "text": word, "finish_reason": None, "logprobs": None} for word in reply.words]
        choices.append({"index": 0, "text": "", "finish_reason": reason, "logprobs": None})
        self._send_chunks(exchange, body, head, choices, reply, failure)

    def _send_chunks(
        self,
        exchange: Exchange,
        body: dict[str, Any],
        head: dict[str, Any],
        choices: list[dict[str, Any]],
        reply: ChatReply,
        failure: Failure,
    ) -> None:
        events: list[dict[str, Any] | str] = [{**head, "choices": [choice]} for choice in choices]
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append({**head, "choices": [], "usage": _usage(reply)})
        exchange.send_events([*events, "[DONE]"], failure)

    # -- the Responses API --

    def _response(self, exchange: Exchange, body: dict[str, Any], failure: Failure) -> None:
        refusal = self._refusal(body) or (wire.openai_responses_refusal(body) if self.strict else None)
        if refusal is not None:
            exchange.send_failure(400, refusal)
            return
        reply = self.reply(body)
        number = self.new_id()
        output: list[dict[str, Any]] = []
        reasoning = None
        if reply.thinking is not None:
            reasoning = f"rs_{number}"
            summary = [{"type": "summary_text", "text": reply.thinking}]
            output.append({"id": reasoning, "type": "reasoning", "summary": summary, "status": "completed"})
        if reply.server_tool is not None:
            query, result = reply.server_tool
            action = {
                "type": "search",
                "query": query,
                "sources": [{"type": "url", "url": f"https://pages.example/{result}"}],
            }
            output.append({"id": f"ws_{number}", "type": "web_search_call", "status": "completed", "action": action})
        if reply.content is not None or not reply.tool_calls:
            text = {"type": "output_text", "text": reply.content or "", "annotations": [], "logprobs": []}
            message = {"id": f"msg_{number}", "type": "message", "role": "assistant"}
            output.append({**message, "status": "completed", "content": [text]})
        output += [
            {
                "id": f"fc_{number}_{i}",
                "type": "function_call",
                "status": "completed",
                "call_id": f"call_{number}_{i}",
                "name": name,
                "arguments": json.dumps(arguments),
            }
            for i, (name, arguments) in enumerate(reply.tool_calls)
        ]
        response = {
            "id": f"resp_{number}",
            "object": "response",
            "created_at": 1,
            "model": body.get("model"),
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "metadata": {},
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": body.get("previous_response_id"),
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": body.get("tools", []),
            "top_p": 1.0,
            "usage": {
                "input_tokens": reply.usage[0],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": reply.usage[1],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sum(reply.usage),
            },
        }
        with self._lock:
            self._given[str(response["id"])] = None
            self._given |= {item["id"]: None if item["type"] == "reasoning" else reasoning for item in output}
        if not body.get("stream"):
            exchange.send_json(200, response)
        else:
            exchange.send_events(_response_events(response, reply), failure, named=True)

    def _refusal(self, body: dict[str, Any]) -> str | None:
        """Why the service would refuse a request; None when it would not."""
        previous = body.get("previous_response_id")
        if previous is not None and previous not in self._given:
            return f"Previous response with id '{previous}' not found."
        items = body["input"] if isinstance(body.get("input"), list) else []
        ids = {item["id"] for item in items if isinstance(item, dict) and item.get("id")}
        reasons = any(isinstance(item, dict) and item.get("type") == "reasoning" for item in items)
        if reasons and not str(body.get("model")).startswith(("o", "gpt-5")):
            return "Reasoning input items can only be provided to a reasoning or computer use model."
        for name in ids:
            if self.strict and name not in self._given:
                return f"Item with id '{name}' not found."
            needed = self._given.get(name)
            if needed is not None and needed not in ids and previous is None:
                return f"Item '{name}' was provided without its required 'reasoning' item: '{needed}'."
        return None


def _usage(reply: ChatReply) -> dict[str, int]:
    asked, answered = reply.usage
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _halves(function: dict[str, Any]) -> tuple[str, str]:
    text = function["arguments"]
    return text[: len(text) // 2], text[len(text) // 2 :]


def _response_events(response: dict[str, Any], reply: ChatReply) -> list[dict[str, Any] | str]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(response["output"]):
        at = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "message":
            part = {**at, "content_index": 0}
            text = item["content"][0]
            started = {**item, "status": "in_progress", "content": []}
            events.append({"type": "response.output_item.added", "output_index": index, "item": started})
            events.append({"type": "response.content_part.added", **part, "part": {**text, "text": ""}})
            events += [
                {"type": "response.output_text.delta", **part, "delta": word, "logprobs": []} for word in reply.words
            ]
            events.append({"type": "response.output_text.done", **part, "text": text["text"], "logprobs": []})
            events.append({"type": "response.content_part.done", **part, "part": text})
        elif item["type"] == "function_call":
            started = {**item, "status": "in_progress", "arguments": ""}
            events.append({"type": "response.output_item.added", "output_index": index, "item": started})
            events += [
                {"type": "response.function_call_arguments.delta", **at, "delta": half} for half in _halves(item)
            ]
            done = {"name": item["name"], "arguments": item["arguments"]}
            events.append({"type": "response.function_call_arguments.done", **at, **done})
        elif item["type"] == "reasoning":
            started = {**item, "status": "in_progress", "summary": []}
            events.append({"type": "response.output_item.added", "output_index": index, "item": started})
            part = {**at, "summary_index": 0}
            thought = item["summary"][0]
            events.append({"type": "response.reasoning_summary_part.added", **part, "part": {**thought, "text": ""}})
            events.append({"type": "response.reasoning_summary_text.delta", **part, "delta": thought["text"]})
            events.append({"type": "response.reasoning_summary_text.done", **part, "text": thought["text"]})
            events.append({"type": "response.reasoning_summary_part.done", **part, "part": thought})
        else:
            started = {**item, "status": "in_progress"}
            events.append({"type": "response.output_item.added", "output_index": index, "item": started})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": response})
    return [{**event, "sequence_number": i} for i, event in enumerate(events)]
