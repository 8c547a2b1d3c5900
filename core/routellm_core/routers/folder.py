"""RouterFolder: a folder of versions of a router, one of them in use; running apps follow it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from routellm_core.checks import read_json_object, write_json
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError
from routellm_core.routers.base import Router

CURRENT_FILE = "current.json"
_VERSIONS = "versions"
_NAME = r"\d{4,}(-[0-9a-f]+)?"  # compiled when first used
_MISSING = "a folder of router versions has a file that names the one in use"


class RouterFolder:
    """Versions of a router in a folder, each a whole saved router, and which of them is in use.

    Give it to a policy, or to a routed model, in the place of a router: a version that is put into use later is loaded
    in the background and takes over between two calls. ::

        llm = ChatRouteLLM(strong=gpt, weak=mini, router=RouterFolder("my-router"), strong_fraction=0.3)
        RouterFolder("my-router").back()  # in any process: the version before is in use again

    `load_router` opens the version in use, too. A version appears whole or not at all.

    Args:
        path: The folder; made by the first `new_version`.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path) or not str(path):
            raise ConfigurationError(f"path={path!r:.80}: expected a folder")
        self.path = Path(path)

    @property
    def versions(self) -> list[str]:
        """Names of all versions, the oldest first."""
        try:
            names = os.listdir(self.path / _VERSIONS)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if re.fullmatch(_NAME, name))

    @property
    def current(self) -> str:
        """Name of the version in use.

        Raises:
            CheckpointNotFoundError: There is none yet.
            CheckpointError: The file that names it is damaged.
        """
        return self._state()["version"]  # type: ignore[no-any-return]

    def version_path(self, version: str | None = None) -> Path:
        """The folder of a version; by default of the one in use."""
        return self.path / _VERSIONS / (self.current if version is None else version)

    def load(self, version: str | None = None) -> Router:
        """The router of a version; by default of the one in use."""
        return Router.from_pretrained(self.version_path(version))

    def use(self, version: str) -> None:
        """Put a version into use; apps that follow the folder pick it up.

        Raises:
            ConfigurationError: There is no such version.
        """
        if version not in self.versions:
            raise ConfigurationError(
                f"version={version!r:.80}: {self.path} has {', '.join(self.versions) or 'no versions'}"
            )
        try:
            state = self._state()
            history = [*state["history"], state["version"]]
        except CheckpointNotFoundError:
            history = []
        self._write(version, history)

    def back(self) -> str:
        """Put the version that was in use before the current one into use again; returns its name.

        Raises:
            ConfigurationError: There was none.
        """
        state = self._state()
        if not state["history"]:
            raise ConfigurationError(f"{self.path}: {state['version']} is the first version that was in use")
        *history, version = state["history"]
        self._write(version, history)
        return version  # type: ignore[no-any-return]

    @contextmanager
    def new_version(self) -> Iterator[Path]:
        """A folder to save a router in (and what belongs to it); when the block ends without an error, it is in use."""
        import shutil  # here, since every app imports this module
        import tempfile

        place = self.path / _VERSIONS
        place.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="part-", dir=place))
        try:
            yield part
            fingerprint = Router.from_pretrained(part).fingerprint  # what cannot be loaded must not be used
            number = 1 + max((int(name.partition("-")[0]) for name in self.versions), default=0)
            version = f"{number:04d}-{fingerprint[:8]}"
            part.chmod(0o755)  # that of the apps may be another user
            part.rename(place / version)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        self.use(version)

    def __repr__(self) -> str:
        return f"RouterFolder({str(self.path)!r})"

    def _state(self) -> dict[str, Any]:
        state = read_json_object(self.path / CURRENT_FILE, f"{_MISSING}; {self.path} has none")
        version, history = state.get("version"), state.get("history", [])
        names = [version, *(history if isinstance(history, list) else [None])]
        # a name leads to a folder, and must not lead out of this one
        if not all(isinstance(name, str) and re.fullmatch(_NAME, name) for name in names):
            raise CheckpointError(f"{self.path / CURRENT_FILE}: expected the names of versions, such as 0001-89abcdef")
        return {"version": version, "history": history}

    def _write(self, version: str, history: list[str]) -> None:
        write_json(self.path / CURRENT_FILE, {"version": version, "history": history})


def followed(path: str | Path) -> Path:
    """The folder of the version in use where `path` is a folder of versions; else `path` itself."""
    path = Path(path)
    return RouterFolder(path).version_path() if (path / CURRENT_FILE).is_file() else path
