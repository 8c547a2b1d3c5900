"""The servers behind this one: where they are, and one request to them, bytes in and bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from routellm_core.checks import no_key_inside
from routellm_core.errors import ConfigurationError
from routellm_core.policy.setups import shown_address
from routellm_core.serve.replies import Headers, Scope

OPENAI_URL = "https://api.openai.com/v1"
# Seconds to keep an unused connection: uvicorn, and with it vLLM, closes one after five.
_KEEP_ALIVE = 4.0
_PROBE_SECONDS = 2.0
# Of one connection, not of the message (RFC 9110, 7.6.1); `host` and the length are set anew.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_NOT_SENT_ON = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"cookie"}
# What belongs to the account of whoever holds the key.
_OF_THE_KEY = frozenset({b"authorization", b"api-key", b"x-api-key", b"openai-organization", b"openai-project"})


@dataclass(frozen=True, slots=True)
class Upstream:
    """One of the servers.

    Attributes:
        model: Name of the model, as the server calls it.
        url: Base URL of its OpenAI-compatible API, such as ``http://127.0.0.1:8000/v1``.
        key: The key that this server sends it; None sends none.
        pass_client_key: Whether the client's own key and account headers go to it, where `key` is None.
    """

    model: str
    url: str = OPENAI_URL
    key: str | None = field(default=None, repr=False)
    pass_client_key: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigurationError(f"Upstream(model={self.model!r:.80}): expected the name of a model")
        parts = urlsplit(self.url) if isinstance(self.url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ConfigurationError(
                f"Upstream(url={_without_password(self.url)!r:.200}): expected the base URL of an OpenAI-compatible "
                "API, such as http://127.0.0.1:8000/v1"
            )
        if parts.username or parts.password:
            raise ConfigurationError(
                f"Upstream(url={_without_password(self.url)!r:.200}): a key does not belong in the URL; give key="
            )
        if self.key is not None and not (isinstance(self.key, str) and self.key and _is_plain(self.key)):
            raise ConfigurationError("Upstream(key=...): expected printable ASCII without spaces; the key is not shown")
        if self.key is not None and self.pass_client_key:
            raise ConfigurationError(
                "Upstream(key=..., pass_client_key=True): give a key of its own or pass the client's on, not both"
            )

    def __getstate__(self) -> list[Any]:
        no_key_inside({"api_key": self.key}, owner=f"Upstream(model={self.model!r:.80})")
        return [getattr(self, name) for name in self.__slots__]


class UpstreamError(OSError):
    """A server could not be reached, or broke off before its reply began; another one could answer.

    Args:
        server: Which one, in words.
        reason: What happened.
        is_timeout: Whether it was silent for too long.
    """

    def __init__(self, server: str, reason: str, *, is_timeout: bool = False) -> None:
        super().__init__(f"{server} {reason}")
        self.reason = reason
        self.is_timeout = is_timeout


class RefusalError(Exception):
    """A server's reply with an error status, kept whole so that it can be passed on as it came.

    `status_code` and `body` are where the rules of failover look for them.
    """

    def __init__(self, answer: Answer, raw: bytes, body: Any) -> None:
        super().__init__(f"status {answer.status}")
        self.status_code = answer.status
        self.body = body
        self.headers = answer.headers
        self.raw = raw

    def __str__(self) -> str:
        # read by the rules of failover alone: a server's message may quote the prompt
        error = self.body.get("error") if isinstance(self.body, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        return message if isinstance(message, str) else ""


class Answer:
    """One reply of a server: its status and headers are here, its body is still to be read."""

    __slots__ = ("_response", "_upstream", "headers", "side", "status")

    def __init__(self, response: aiohttp.ClientResponse, side: str, upstream: Upstream) -> None:
        self._response = response
        self._upstream = upstream
        self.side = side
        self.status = response.status
        dropped = _HOP_BY_HOP | _named_by_connection(response.raw_headers)
        self.headers: Headers = [
            (name, value)
            for name, value in response.raw_headers
            if (lower := name.lower()) not in dropped and not lower.startswith(b"x-routellm-")
        ]

    def header(self, name: bytes) -> bytes:
        """The value of a header, or b""."""
        return next((value for known, value in self.headers if known.lower() == name), b"")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes in, not decompressed.

        Raises:
            UpstreamError: The server broke off.
        """
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as exc:
            raise _as_upstream_error(exc, self.side, self._upstream) from None

    async def read(self, at_most: int) -> bytes:
        """The body, or its first bytes where it is longer than `at_most`."""
        parts, size = [], 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size >= at_most:
                break
        return b"".join(parts)

    def close(self) -> None:
        """Hang up, unless the reply is complete: then its connection has been given back already."""
        self._response.close()


class Upstreams:
    """The servers, and the connections to them.

    Connections belong to the event loop that uses them; a mounted app hears nothing of a start, so they are opened
    with the first request.

    Args:
        by_side: Where each model is: by ``"strong"`` and ``"weak"``, or by its name where there are more than two.
        connect_timeout: Seconds until a connection must stand.
        read_timeout: Seconds without a byte after which a server counts as dead.
    """

    def __init__(self, by_side: Mapping[str, Upstream], *, connect_timeout: float, read_timeout: float) -> None:
        self.by_side = dict(by_side)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_read=read_timeout)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __getitem__(self, side: str) -> Upstream:
        return self.by_side[side]

    @property
    def share_state(self) -> bool:
        """Whether what one server remembers, such as a stored response, is known to the others."""
        return len({(upstream.url.rstrip("/"), upstream.key) for upstream in self.by_side.values()}) == 1

    async def send(self, side: str, scope: Scope, path: str, body: bytes) -> Answer:
        """Send a request to one side; its reply has begun when this returns.

        Args:
            side: Which server.
            scope: The client's request: its method, headers and query go on.
            path: Path after the base URL, as the client wrote it.
            body: The body; its length is told anew.

        Raises:
            UpstreamError: It could not be reached, or broke off.
        """
        upstream = self.by_side[side]
        query = scope["query_string"].decode("latin1")
        url = upstream.url.rstrip("/") + path + (f"?{query}" if query else "")
        try:
            response = await self._connections().request(
                scope["method"],
                URL(url, encoded=True),
                headers=_request_headers(scope["headers"], upstream),
                data=body or None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as exc:
            raise _as_upstream_error(exc, side, upstream) from None
        return Answer(response, side, upstream)

    async def is_there(self, side: str) -> bool:
        """Whether a server answers at all, which an error status of a client's is, too."""
        upstream = self.by_side[side]
        headers = {} if upstream.key is None else {"authorization": f"Bearer {upstream.key}"}
        url = URL(upstream.url.rstrip("/") + "/models", encoded=True)
        try:
            async with self._connections().get(
                url, headers=headers, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=_PROBE_SECONDS)
            ) as response:
                return response.status < 500
        except (aiohttp.ClientError, OSError, ValueError):
            return False

    def _connections(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
                timeout=self._timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                # what aiohttp would add by itself; a client that sends none of these means it
                skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            )
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _request_headers(sent: Iterable[tuple[bytes, bytes]], upstream: Upstream) -> list[tuple[str, str]]:
    dropped = _NOT_SENT_ON | _named_by_connection(sent)
    if not upstream.pass_client_key:
        dropped = dropped | _OF_THE_KEY
    headers, encoded = [], False
    for name, value in sent:
        if name in dropped or name.startswith(b"x-routellm-"):
            continue
        encoded = encoded or name == b"accept-encoding"
        headers.append((name.decode("latin1"), value.decode("latin1")))
    if not encoded:
        headers.append(("accept-encoding", "identity"))  # else aiohttp asks for gzip, which the client did not
    if upstream.key is not None:
        headers.append(("authorization", f"Bearer {upstream.key}"))
    return headers


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that the Connection header declares to be of this connection alone."""
    return frozenset(
        part.strip().lower() for name, value in headers if name.lower() == b"connection" for part in value.split(b",")
    )


def shown_server(side: str, upstream: Upstream) -> str:
    """A model's server in the words of an error: which side, which model, and where."""
    return f"the server of the {side} model ({upstream.model!r} at {shown_address(upstream.url)})"


def _as_upstream_error(exc: Exception, side: str, upstream: Upstream) -> UpstreamError:
    is_timeout = isinstance(exc, TimeoutError)
    what = "did not answer in time" if is_timeout else f"could not be reached or broke off ({type(exc).__name__})"
    return UpstreamError(shown_server(side, upstream), what, is_timeout=is_timeout)


def _is_plain(text: str) -> bool:
    return all("!" <= c <= "~" for c in text)


def _without_password(url: Any) -> Any:
    if not isinstance(url, str) or "@" not in url:
        return url
    return "...@" + url.rpartition("@")[2]


def as_upstream(value: Upstream | Mapping[str, Any] | None, parameter: str) -> Upstream:
    """An `Upstream`, or the mapping of its attributes.

    Raises:
        ConfigurationError: It is neither, or an attribute does not exist or has a value that is not allowed.
    """
    if isinstance(value, Upstream):
        return value
    if not isinstance(value, Mapping) or not set(value) <= set(Upstream.__slots__):
        raise ConfigurationError(
            f"{parameter}=: expected an Upstream, or a mapping with {', '.join(Upstream.__slots__)}"
        )
    if "model" not in value:
        raise ConfigurationError(f"{parameter}=: the name of the model is missing; give model=")
    return Upstream(**value)
