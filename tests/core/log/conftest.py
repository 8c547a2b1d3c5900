from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from routellm_core.log import TrafficDatabase
from tests.support import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    if postgres.binaries() is None:
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    with postgres.running() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/traffic.db"
    server: postgres.Server = request.getfixturevalue("server")
    return server.url()


@pytest.fixture
def database(url: str) -> Iterator[TrafficDatabase]:
    with TrafficDatabase(url, create=True) as database:
        yield database
