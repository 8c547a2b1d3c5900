"""A loopback OpenAI-compatible server for tests: real HTTP on 127.0.0.1, standard library only.

It answers ``POST /v1/embeddings`` and ``POST /v1/chat/completions`` (plain and as a server-sent event stream, with
tool calls), records every request, and fails on demand. Point any client at it::

    with OpenAIServer() as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0)

    server.requests[-1].body["model"]; server.requests[-1].authorization       # what came in, in order of arrival
    server.fail_next(Failure(status=429, retry_after="0"), Failure(cut=True))    # the next two matching requests
    server.fail_always(Failure(status=500, model="strong")); server.heal()       # every request for one model
    server.reply_next(ChatReply("hi"), ChatReply(tool_calls=[("add", {"a": 1})]))  # the next chat answers, in order
    server.chat = lambda body: ChatReply(body["messages"][-1]["content"].upper())  # or a function of the request

Without a script a chat answer is ``"answer of MODEL"`` and an embedding is a unit vector drawn from the text's hash
(`embedding_of`), so equal texts have equal vectors. Like the real service it refuses empty inputs and more than 2,048
of them with status 400.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Failure:
    """One way in which a request goes wrong; several fields may be set together.

    Attributes:
        status: Answer with this HTTP status and an error body instead of a result.
        retry_after: Value of the Retry-After header sent with `status`.
        message: Text of the error body; ``"{input}"`` in it is replaced by the request's own text, the way some
            services quote what they refuse.
        stall: Seconds to wait before anything is sent (ends early when the server is released or closes).
        cut: Close the connection without an answer; in a chat stream, after `cut_after` events.
        cut_after: Events of a chat stream that are sent before the cut.
        vectors: Return this many embeddings whatever was asked for.
        dimension: Return vectors of this length.
        value: Put this number (for example NaN) in the first place of the first vector.
        path: Only requests whose path ends with this ("embeddings", "chat/completions").
        model: Only requests for this model.
    """

    status: int | None = None
    retry_after: str | None = None
    message: str = "scripted failure"
    stall: float = 0.0
    cut: bool = False
    cut_after: int = 0
    vectors: int | None = None
    dimension: int | None = None
    value: float | None = None
    path: str | None = None
    model: str | None = None

    def matches(self, path: str, body: dict[str, Any]) -> bool:
        return (self.path is None or path.endswith(self.path)) and (
            self.model is None or body.get("model") == self.model
        )


@dataclass(frozen=True)
class ChatReply:
    """One chat answer.

    Attributes:
        content: The text; streamed word by word.
        tool_calls: (function name, arguments) pairs.
        usage: (prompt tokens, completion tokens).
        finish_reason: None: "tool_calls" when there are some, else "stop".
    """

    content: str | None = None
    tool_calls: Sequence[tuple[str, dict[str, Any]]] = ()
    usage: tuple[int, int] = (10, 5)
    finish_reason: str | None = None


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived; header names are lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    time: float = field(default_factory=time.monotonic)

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def inputs(self) -> list[str]:
        """The texts of an embedding request."""
        given = self.body.get("input", [])
        return [given] if isinstance(given, str) else list(given)


def embedding_of(text: str, dimension: int) -> list[float]:
    """Unit vector that depends on the text alone."""
    rng = random.Random(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    vector = [rng.gauss(0.0, 1.0) for _ in range(dimension)]
    norm = sum(x * x for x in vector) ** 0.5
    return [x / norm for x in vector]


class OpenAIServer:
    """The server; a context manager, started by the constructor and safe to use from any thread.

    Args:
        dimension: Length of embedding vectors when the request names none.
        shuffle: Return embeddings out of order (their ``index`` still says which is which).
    """

    def __init__(self, dimension: int = 8, *, shuffle: bool = False) -> None:
        self.dimension = dimension
        self.shuffle = shuffle
        self.chat: Callable[[dict[str, Any]], ChatReply] = lambda body: ChatReply(f"answer of {body.get('model')}")
        self.requests: list[RecordedRequest] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._failures: list[Failure] = []
        self._always: list[Failure] = []
        self._replies: list[ChatReply] = []
        self._httpd = _Server(("127.0.0.1", 0), _Handler)
        self._httpd.owner = self
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._httpd.server_address[1]}/v1"

    def fail_next(self, *failures: Failure) -> None:
        """Use up these failures, in order, on the next requests they match."""
        with self._lock:
            self._failures.extend(failures)

    def fail_always(self, failure: Failure) -> None:
        """Fail every matching request until `heal`."""
        with self._lock:
            self._always.append(failure)

    def heal(self) -> None:
        """Forget all failures."""
        with self._lock:
            self._failures.clear()
            self._always.clear()

    def release(self) -> None:
        """End all stalls, also those to come."""
        self._released.set()

    def reply_next(self, *replies: ChatReply) -> None:
        """Use these chat answers, in order, before `chat` is asked again."""
        with self._lock:
            self._replies.extend(replies)

    def requests_for(self, path: str = "", model: str | None = None) -> list[RecordedRequest]:
        """Recorded requests whose path ends with `path`, for one model if named."""
        with self._lock:
            return [r for r in self.requests if r.path.endswith(path) and model in (None, r.body.get("model"))]

    def close(self) -> None:
        self.release()
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, request: RecordedRequest) -> Failure:
        with self._lock:
            self.requests.append(request)
            for i, failure in enumerate(self._failures):
                if failure.matches(request.path, request.body):
                    return self._failures.pop(i)
            return next((f for f in self._always if f.matches(request.path, request.body)), Failure())

    def _reply(self, body: dict[str, Any]) -> ChatReply:
        with self._lock:
            if self._replies:
                return self._replies.pop(0)
        return self.chat(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # the default of 5 drops connections of a client that opens many at once; they come back a second later
    request_queue_size = 128
    # A handler thread may sit in a kept-alive connection that the client never closes: never wait for it.
    block_on_close = False
    owner: OpenAIServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests; print nothing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw or b"{}")
        owner = self.server.owner
        request = RecordedRequest(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        failure = owner._take(request)
        if failure.stall:
            owner._released.wait(failure.stall)
        if failure.cut and not (failure.cut_after and body.get("stream")):
            self._hang_up()
        elif failure.status is not None:
            text = failure.message.replace("{input}", json.dumps(body.get("input", body.get("messages"))))
            self._send_error(failure.status, text, failure.retry_after)
        elif self.path.endswith("/embeddings"):
            self._embeddings(request, failure)
        elif self.path.endswith("/chat/completions"):
            self._chat(body, failure)
        else:
            self._send_error(404, f"no such path: {self.path}")

    def _embeddings(self, request: RecordedRequest, failure: Failure) -> None:
        owner, texts, body = self.server.owner, request.inputs, request.body
        if not texts or len(texts) > 2048 or any(text == "" for text in texts):
            self._send_error(400, "'$.input' is invalid: 1 to 2048 non-empty inputs")
            return
        dimension = failure.dimension or body.get("dimensions") or owner.dimension
        count = len(texts) if failure.vectors is None else failure.vectors
        data: list[dict[str, Any]] = [
            {"object": "embedding", "index": i, "embedding": embedding_of(texts[i % len(texts)], dimension)}
            for i in range(count)
        ]
        if failure.value is not None and data:
            data[0]["embedding"][0] = failure.value
        if owner.shuffle:
            random.Random(0).shuffle(data)
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        self._send_json(200, {"object": "list", "data": data, "model": body.get("model"), "usage": usage})

    def _chat(self, body: dict[str, Any], failure: Failure) -> None:
        reply = self.server.owner._reply(body)
        calls = [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for i, (name, arguments) in enumerate(reply.tool_calls)
        ]
        reason = reply.finish_reason or ("tool_calls" if calls else "stop")
        asked, answered = reply.usage
        usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        head = {"id": "chatcmpl-test", "created": 1, "model": body.get("model")}
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": reply.content}
            if calls:
                message["tool_calls"] = calls
            choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
            self._send_json(200, {**head, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        words = (reply.content or "").split(" ") if reply.content else []
        deltas += [{"content": word if i == 0 else f" {word}"} for i, word in enumerate(words)]
        for i, call in enumerate(calls):
            # As the service does: name first, then the arguments in pieces.
            function = call["function"]
            deltas.append(
                {"tool_calls": [{**call, "index": i, "function": {"name": function["name"], "arguments": ""}}]}
            )
            text = function["arguments"]
            half = len(text) // 2
            deltas += [{"tool_calls": [{"index": i, "function": {"arguments": t}}]} for t in (text[:half], text[half:])]
        events: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
        ]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append({"choices": [], "usage": usage})
        lines = [json.dumps({**head, "object": "chat.completion.chunk", **event}) for event in events]
        self._send_events([*lines, "[DONE]"], failure.cut_after if failure.cut else None)

    def _send_events(self, events: list[str], cut_after: int | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i, event in enumerate(events):
            if i == cut_after:
                self._hang_up()
                return
            data = f"data: {event}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _send_error(self, status: int, message: str, retry_after: str | None = None) -> None:
        extra = {} if retry_after is None else {"Retry-After": retry_after}
        error = {"message": message, "type": "scripted", "param": None, "code": None}
        self._send_json(status, {"error": error}, extra)

    def _send_json(self, status: int, payload: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)
