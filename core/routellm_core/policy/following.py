"""Following: a policy takes over the version of a router that is put into use while it runs."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from routellm_core.forks import renew_in_child
from routellm_core.routers.folder import RouterFolder

if TYPE_CHECKING:
    from routellm_core.policy.policy import RoutingPolicy

logger = logging.getLogger("routellm_core")

# Seconds between two looks at the folder.
_LOOK_EVERY = 1.0


class Following:
    """Looks at a folder now and then, and loads a new version in a thread; no call waits for it.

    Args:
        folder: Where the versions are.
        version: The one that is loaded.
    """

    def __init__(self, folder: RouterFolder, version: str) -> None:
        self.folder = folder
        self.version = version
        self._next_look = time.monotonic() + _LOOK_EVERY
        self._loading = False
        self._refused: str | None = None
        renew_in_child(self, Following._without_thread)

    def _without_thread(self) -> None:
        self._loading = False

    def look(self, policy: RoutingPolicy) -> None:
        """Begin to load another version where one is in use now; returns at once."""
        now = time.monotonic()
        if now < self._next_look or self._loading:
            return
        self._next_look = now + _LOOK_EVERY
        self._loading = True
        threading.Thread(target=self._load, args=(policy,), name="routellm-version", daemon=True).start()

    def _load(self, policy: RoutingPolicy) -> None:
        version = None
        try:
            version = self.folder.current
            if version not in (self.version, self._refused):
                policy.replace(router=self.folder.load(version))
                self.version = version
                logger.info("router version %s of %s is in use", version, self.folder.path)
        except Exception as exc:  # the router in use goes on
            if version is None or version != self._refused:
                logger.warning(
                    "version %s of %s cannot be used (%s: %.200s); the router in use goes on",
                    version, self.folder.path, type(exc).__name__, exc,
                )  # fmt: skip
            self._refused = version
        finally:
            self._loading = False
