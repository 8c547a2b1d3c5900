"""The routing server as its users run it: the app under uvicorn, on a loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tests.support.waiting import LIMIT, wait_until


@dataclass
class Reply:
    """A reply as it came off the wire; header names are lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known == name), None)

    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI app; yields its origin."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", lifespan="on", ws="none",
        access_log=False, server_header=False, date_header=False, timeout_graceful_shutdown=2, **options,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    assert thread.is_alive(), "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(LIMIT)
        assert not thread.is_alive(), "the server did not end"


def send_raw(origin: str, raw: bytes, *, timeout: float = LIMIT) -> Reply:
    """Send bytes as they are, ask for the connection's end, and return the reply."""
    host, port = origin.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as line:
        line.sendall(raw)
        received = b""
        while chunk := line.recv(65536):
            received += chunk
    return parse_reply(received)


def post(origin: str, path: str, body: Any, headers: dict[str, str] | None = None, *, method: str = "POST") -> Reply:
    """One request without any client library in between."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"host: {origin.removeprefix('http://')}", "connection: close"]
    lines += [f"content-length: {len(data)}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return send_raw(origin, "\r\n".join([*lines, "", ""]).encode("latin1") + data)


def parse_reply(received: bytes) -> Reply:
    """A reply from its bytes; a chunked body is put together."""
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    if ("transfer-encoding", "chunked") in headers:
        body = _joined(body)
    return Reply(int(first.split()[1]), headers, body)


def _joined(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return b"".join(parts)
        parts.append(body[:length])
        body = body[length + 2 :]
    raise AssertionError("a chunked body without its end: the reply broke off")


@dataclass
class RawUpstream:
    """A server that answers every request with the same bytes, and records what came in byte for byte."""

    answer: bytes
    received: list[bytes] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    stall: float = 0.0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with line:
            line.settimeout(LIMIT)
            raw = b""
            while b"\r\n\r\n" not in raw:
                more = line.recv(65536)
                if not more:
                    return
                raw += more
            head, _, body = raw.partition(b"\r\n\r\n")
            length = next(
                (
                    int(part.split(b":")[1])
                    for part in head.lower().split(b"\r\n")
                    if part.startswith(b"content-length")
                ),
                0,
            )
            while len(body) < length:
                body += line.recv(65536)
            self.received.append(head + b"\r\n\r\n" + body)
            self._waiting(line, self.stall)
            try:
                line.sendall(self.answer)
                for piece in self.pieces:
                    if self._waiting(line, 0.05):
                        return
                    line.sendall(piece)
            except OSError:
                self.hung_up.set()

    def _waiting(self, line: socket.socket, seconds: float) -> bool:
        """Wait; whether the other side hung up meanwhile."""
        if not seconds:
            return False
        line.settimeout(seconds)
        try:
            if line.recv(1) == b"":
                self.hung_up.set()
                return True
        except TimeoutError:
            pass
        except OSError:
            self.hung_up.set()
            return True
        return False


def http_answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer with its length, and the connection ends."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
