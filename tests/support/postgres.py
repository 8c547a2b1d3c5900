"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, run by an unprivileged user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path


def binaries() -> Path | None:
    """The folder of the newest server that is installed; None without one, or where no user is here to run it."""
    if _user() is None:
        return None
    folders = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").is_file()]
    if folders:
        return max(folders, key=lambda folder: float(folder.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Server:
    """A running cluster, reached by a socket in its folder."""

    def __init__(self, folder: Path, run: list[str], user: str) -> None:
        self.folder = folder
        self._binaries = binaries()
        self._run = run
        self._user = user
        self._numbers = count()

    def url(self) -> str:
        """The address of a new, empty database."""
        name = f"test{next(self._numbers)}"
        self.command("createdb", "-h", str(self.folder), "-U", self._user, name)
        return f"postgresql://{self._user}@/{name}?host={self.folder}"

    def start(self) -> None:
        """Start the server; returns when it answers."""
        # no TCP port: nothing to collide with; no fsync: the tests' data may be lost with the machine
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self.command(
            "pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-o", options, "-w", "start"
        )

    def stop(self) -> None:
        """Stop it, as a crash would as far as clients can see."""
        self.command("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def command(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the cluster's user."""
        assert self._binaries is not None
        # a file and no pipe: a started server would hold the pipe open
        with (self.folder / "out").open("w+") as out:
            done = subprocess.run(
                [*self._run, str(self._binaries / name), *arguments],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False, cwd=self.folder,
            )  # fmt: skip
            out.seek(0)
            if done.returncode:
                raise RuntimeError(f"{name} failed: {out.read()}")


@contextmanager
def running() -> Iterator[Server]:
    """A server for as long as the block lasts."""
    user = _user()
    assert user is not None
    run: list[str] = []
    # a short path: that of a socket may have 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.getuid() == 0:
        run = ["runuser", "-u", user, "--"]
        shutil.chown(folder, user)
    server = Server(folder, run, user)
    try:
        server.command(
            "initdb", "-D", str(folder / "data"), "-A", "trust", "-U", user, "-E", "UTF8", "--locale=C", "--no-sync"
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str | None:
    """Who runs the server: this user, or one without rights in root's place, whom the server refuses."""
    if os.getuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()} if shutil.which("runuser") else set()
        return next((name for name in ("postgres", "nobody") if name in known), None)
    return next((entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == os.getuid()), None)
