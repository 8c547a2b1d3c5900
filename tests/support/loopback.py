"""What the scripted servers of the tests share: real HTTP on 127.0.0.1, standard library only, no framework.

A server records every request, fails on demand, and answers by script. Point any client at it::

    server.requests[-1].body["model"]; server.requests[-1].authorization       # what came in, in order of arrival
    server.fail_next(Failure(status=429, retry_after="0"), Failure(cut=True))    # the next two matching requests
    server.fail_always(Failure(status=500, model="strong")); server.heal()       # every request for one model
    server.reply_next(ChatReply("hi"), ChatReply(tool_calls=[("add", {"a": 1})]))  # the next chat answers, in order
    server.chat = lambda body: ChatReply(body["messages"][-1]["content"].upper())  # or a function of the request

Without a script a chat answer is ``"answer of MODEL"``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Failure:
    """One way in which a request goes wrong; several fields may be set together.

    Attributes:
        status: Answer with this HTTP status and an error body instead of a result.
        retry_after: Value of the Retry-After header sent with `status`.
        raw: Answer with this body as it stands, whatever was asked for, with status 200 unless `status` says otherwise.
        content_type: Of `raw`.
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
    raw: str | None = None
    content_type: str = "application/json"
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
        finish_reason: None: what the service says of an answer that is complete, or that calls tools.
        thinking: What the model thought before it answered, in the form of the service; None: it did not think.
        model: Name of the model that answers; None: the name that was asked for, whatever it is.
        server_tool: (query, result) of a tool of the provider's own that ran before the answer; where it has one.
    """

    content: str | None = None
    tool_calls: Sequence[tuple[str, dict[str, Any]]] = ()
    usage: tuple[int, int] = (10, 5)
    finish_reason: str | None = None
    thinking: str | None = None
    model: str | None = None
    server_tool: tuple[str, str] | None = None

    @property
    def words(self) -> list[str]:
        """The pieces in which the text is streamed."""
        words = self.content.split(" ") if self.content else []
        return [word if i == 0 else f" {word}" for i, word in enumerate(words)]


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived; header names are lower case, and the path is without its query."""

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


class LoopbackServer:
    """A server; a context manager, started by the constructor and safe to use from any thread.

    A subclass says in `respond` what it answers, and in `error_body` what its errors look like.

    Attributes:
        strict: Whether chat requests are held against the provider's published schema and rules (see `wire`).
    """

    strict = False

    def __init__(self) -> None:
        self.chat: Callable[[dict[str, Any]], ChatReply] = lambda body: ChatReply(f"answer of {body.get('model')}")
        self.requests: list[RecordedRequest] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._failures: list[Failure] = []
        self._always: list[Failure] = []
        self._replies: list[ChatReply] = []
        self._httpd = _Server(("127.0.0.1", 0), Exchange)
        self._httpd.owner = self
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def respond(self, exchange: Exchange, request: RecordedRequest, failure: Failure) -> None:
        """Answer a request that no failure ends."""
        raise NotImplementedError

    def error_body(self, status: int, message: str) -> dict[str, Any]:
        """The JSON of an error."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def new_id(self) -> str:
        """Names an answer among all servers: its request's number, and which server it was."""
        return f"{len(self.requests)}_{self._httpd.server_address[1]}"

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

    def reply(self, body: dict[str, Any]) -> ChatReply:
        """The next chat answer."""
        with self._lock:
            if self._replies:
                return self._replies.pop(0)
        return self.chat(body)

    def _take(self, request: RecordedRequest) -> Failure:
        with self._lock:
            self.requests.append(request)
            for i, failure in enumerate(self._failures):
                if failure.matches(request.path, request.body):
                    return self._failures.pop(i)
            return next((f for f in self._always if f.matches(request.path, request.body)), Failure())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # the default of 5 drops connections of a client that opens many at once; they come back a second later
    request_queue_size = 128
    # A handler thread may sit in a kept-alive connection that the client never closes: never wait for it.
    block_on_close = False
    owner: LoopbackServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests; print nothing."""


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve(json.loads(raw or b"{}"))

    def _serve(self, body: dict[str, Any]) -> None:
        owner = self.server.owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = RecordedRequest(urlsplit(self.path).path, headers, body)
        failure = owner._take(request)
        if failure.stall:
            owner._released.wait(failure.stall)
        if failure.cut and not (failure.cut_after and body.get("stream")):
            self.hang_up()
        elif failure.raw is not None:
            self.send_raw(failure.status or 200, failure.raw.encode(), failure.content_type)
        elif failure.status is not None:
            text = failure.message.replace("{input}", json.dumps(body.get("input", body.get("messages"))))
            self.send_failure(failure.status, text, failure.retry_after)
        else:
            owner.respond(self, request, failure)

    def send_failure(self, status: int, message: str, retry_after: str | None = None) -> None:
        extra = {} if retry_after is None else {"Retry-After": retry_after}
        self.send_json(status, self.server.owner.error_body(status, message), extra)

    def send_json(self, status: int, payload: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.send_raw(status, json.dumps(payload).encode(), "application/json", headers)

    def send_raw(self, status: int, data: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def send_events(self, events: Iterable[dict[str, Any] | str], failure: Failure, *, named: bool = False) -> None:
        """Send server-sent events; with `named`, each is called by its ``type``, as the newer services do."""
        lines = []
        for event in events:
            name = f"event: {event['type']}\n" if named and isinstance(event, dict) else ""
            lines.append(f"{name}data: {event if isinstance(event, str) else json.dumps(event)}\n\n")
        self.send_pieces("text/event-stream", lines, failure)

    def send_pieces(self, content_type: str, pieces: Iterable[str], failure: Failure) -> None:
        """Send an answer in pieces, or hang up after those that `failure` lets through."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i, piece in enumerate(pieces):
            if failure.cut and i == failure.cut_after:
                self.hang_up()
                return
            data = piece.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)
