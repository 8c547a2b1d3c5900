"""WinRateCache: win rates of recent prompts, by a hash of each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from routellm_core.forks import fork_safe_lock


class WinRateCache:
    """The most recently used win rates. Safe for threads and forks; a copy in another process starts empty.

    Args:
        size: How many win rates to keep; 0 turns the cache off.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._items: OrderedDict[bytes, float] = OrderedDict()
        self._lock = fork_safe_lock(self, "_lock")

    @staticmethod
    def key(prompt: str) -> bytes:
        """Hash a prompt, so that the cache stores neither its text nor megabytes of it."""
        return blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def get(self, prompt: str) -> float | None:
        """The win rate of one prompt, if it is known."""
        key = self.key(prompt)
        # without the lock, which would take as long again: no other thread runs within either of the two steps
        try:
            value = self._items[key]
            self._items.move_to_end(key)
        except KeyError:  # unknown, or dropped between the two steps
            return None
        return value

    def found(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        """The win rates that are known among `keys`."""
        found: dict[bytes, float] = {}
        if self.size:
            with self._lock:
                for key in keys:
                    value = self._items.get(key)
                    if value is not None:
                        self._items.move_to_end(key)
                        found[key] = value
        return found

    def keep(self, items: Mapping[bytes, float]) -> None:
        """Store win rates, and drop the least recently used beyond the size."""
        if self.size:
            with self._lock:
                for key, value in items.items():
                    self._items[key] = value
                    self._items.move_to_end(key)
                while len(self._items) > self.size:
                    self._items.popitem(last=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        WinRateCache.__init__(self, state["size"])
