"""Running the server: refuses what would lend somebody's keys to a network, then hands the app to uvicorn."""

from __future__ import annotations

import ipaddress

from routellm_core.errors import ConfigurationError, MissingExtraError
from routellm_core.serve.app import App


def run(app: App, *, host: str = "127.0.0.1", port: int = 6060, max_connections: int | None = 4096) -> None:
    """Serve an app until it is told to stop (SIGINT, SIGTERM).

    Args:
        app: What `create_app` made.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        max_connections: Requests and connections beyond this many are answered 503; None has no limit.

    Raises:
        ConfigurationError: The address is not of this machine alone, the server holds a key, and clients need none.
        MissingExtraError: uvicorn is not installed.
    """
    check_exposure(app, host)
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("The server", "serve") from None
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="info",
        access_log=False,  # paths and queries are the client's
        ws="none",
        lifespan="on",
        server_header=False,  # a reply has the headers of its own server
        date_header=False,
        limit_concurrency=max_connections,
        timeout_graceful_shutdown=30,
    )


def check_exposure(app: App, host: str) -> None:
    """Refuse to listen beyond this machine with a key of ours and no key of the clients.

    Raises:
        ConfigurationError: That is so.
    """
    holds_key = any(upstream.key is not None for upstream in app.upstreams.by_side.values())
    if holds_key and not app.is_locked and not _is_loopback(host):
        raise ConfigurationError(
            f"host={host!r}: everybody who can reach this address could spend on the keys of this server; give "
            "--client-key-env NAME (client_keys= in Python), or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name may mean any address
        return False
