"""Which errors another model could survive."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import urllib.error
from types import SimpleNamespace
from typing import Any

import pytest

from routellm_core.policy.failover import is_survivable


def _named(name: str, *bases: type[Exception], **attributes: Any) -> Exception:
    exc = type(name, bases or (Exception,), {})("message")
    for key, value in attributes.items():
        setattr(exc, key, value)
    return exc


@pytest.mark.parametrize("status", [408, 409, 425, 429, 498, 499, 500, 502, 503, 504, 529, 599])
def test_statuses_of_a_side_in_trouble(status: int) -> None:
    assert is_survivable(_named("APIError", status_code=status))
    assert is_survivable(_named("APIError", response=SimpleNamespace(status_code=status)))
    assert is_survivable(_named("HttpError", ValueError, code=status))


@pytest.mark.parametrize("status", [100, 300, 400, 401, 402, 403, 404, 413, 422])
def test_statuses_of_a_refused_key_or_request(status: int) -> None:
    assert not is_survivable(_named("RateLimitError", status_code=status))
    assert not is_survivable(_named("APIError", http_status=status))


@pytest.mark.parametrize(
    "exc",
    [
        TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        OSError("unreachable"),
        socket.gaierror(),
        ssl.SSLError(),
        urllib.error.URLError("x"),
        _named("APIConnectionError"),
        _named("ReadTimeout"),
        _named("ServiceUnavailable"),
        _named("OverloadedError"),
        _named("RateLimitError"),
        _named("RemoteProtocolError"),
        RuntimeError("anything else"),
        subprocess.SubprocessError(),
        _named("Timeout", ValueError),
    ],
    ids=lambda e: type(e).__name__,
)
def test_lost_connections_and_unknown_failures(exc: Exception) -> None:
    assert is_survivable(exc)


@pytest.mark.parametrize(
    "exc",
    [
        TypeError(),
        ValueError(),
        KeyError(),
        AttributeError(),
        NotImplementedError(),
        ImportError(),
        AssertionError(),
        RecursionError(),
        MemoryError(),
        FileNotFoundError(),
        PermissionError(),
        _named("AuthenticationError"),
        _named("PermissionDeniedError"),
        _named("BadRequestError"),
        _named("InvalidRequestError"),
        _named("GraphBubbleUp"),
        _named("ParentCommand", type("GraphBubbleUp", (Exception,), {})),
        KeyboardInterrupt(),
        SystemExit(),
        GeneratorExit(),
        asyncio.CancelledError(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_mistakes_refusals_pauses_and_cancellation(exc: BaseException) -> None:
    assert not is_survivable(exc)


@pytest.mark.parametrize("value", [True, "429", 7, 99, 600, 6000, None, SimpleNamespace(value=429)])
def test_what_is_no_http_status_is_not_taken_for_one(value: Any) -> None:
    assert is_survivable(_named("APIError", code=value))
    assert not is_survivable(_named("APIError", ValueError, code=value))
