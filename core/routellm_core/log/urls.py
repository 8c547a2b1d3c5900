"""Database addresses: which are allowed, and how they are shown without their password."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from routellm_core.errors import ConfigurationError, MissingExtraError

_SCHEME = re.compile(r"(sqlite|postgres|postgresql)(\+\w+)?://")
_PASSWORD = re.compile(r"(://[^:/@]*):[^@]*@")
_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


def is_database_url(text: str) -> bool:
    """Whether a text is the address of a database rather than the name of a file."""
    return _SCHEME.match(text) is not None


def checked_url(url: str, parameter: str = "url") -> str:
    """Return the address as SQLAlchemy takes it, with the driver that this package uses and an absolute path.

    Args:
        url: ``"sqlite:///traffic.db"`` or ``"postgresql://user:password@host/database"``.
        parameter: Its name in messages.

    Raises:
        ConfigurationError: It is not such an address, or the folder of the file does not exist.
        MissingExtraError: SQLAlchemy or psycopg is not installed.
    """
    match = _SCHEME.match(url) if isinstance(url, str) else None
    if match is None:
        shown = shown_url(url) if isinstance(url, str) else f"{url!r:.80}"
        hint = f"; for a file write 'sqlite:///{url}'" if isinstance(url, str) and "://" not in url else ""
        raise ConfigurationError(
            f"{parameter}={shown!r}: expected 'sqlite:///FILE' or 'postgresql://USER:PASSWORD@HOST/DATABASE'{hint}"
        )
    rest = url[match.end() :]
    kind = match[1]
    if kind == "sqlite":
        path, question, query = rest.removeprefix("/").partition("?")
        if not rest.startswith("/") or path in ("", ":memory:") or query:
            raise ConfigurationError(
                f"{parameter}={url!r}: expected sqlite:///FILE; a log needs a file, which outlives the process"
            )
        file = Path(path).absolute()
        if not file.parent.is_dir():
            raise ConfigurationError(f"{parameter}={url!r}: no folder {str(file.parent)!r}; create it first")
        rest = f"/{file}{question}{query}"
    if not _is_installed("sqlalchemy"):
        raise MissingExtraError("A traffic log", "log")
    if kind != "sqlite" and not _is_installed("psycopg"):
        raise MissingExtraError("A traffic log in PostgreSQL", "log-postgres")
    return f"{_DRIVERS[kind]}://{rest}"


def _is_installed(package: str) -> bool:
    """Whether a package is there, without the second or more that importing it may take."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def file_of(url: str) -> Path | None:
    """The file of a checked SQLite address; None for a server."""
    prefix = f"{_DRIVERS['sqlite']}:///"
    return Path(url.removeprefix(prefix)) if url.startswith(prefix) else None


def shown_url(url: str) -> str:
    """The address as a user writes it, without its password, for messages."""
    return _PASSWORD.sub(r"\1:***@", url).replace("+pysqlite://", "://").replace("+psycopg://", "://")
