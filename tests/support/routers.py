"""Routers for tests: win rates that a test can foresee, count and break."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from routellm_core import Calibration, Router
from routellm_core.routers.base import WinRateArray
from tests.support.waiting import LIMIT

_NUMBER = re.compile(r"p=([0-9.]+)")


class ScriptedRouter(Router):
    """The win rate stands in the prompt: ``"p=0.8 What is ...?"``; without one it is `default`.

    Its calibration is uniform, so ``strong_fraction=0.3`` means threshold 0.7. It counts what it is asked.

    Args:
        default: Win rate of a prompt that names none.
        error: Raised by every call.
    """

    name = "scripted"

    def __init__(self, default: float = 0.5, *, error: Exception | None = None) -> None:
        self.default = default
        self.error = error
        self.calls: list[list[str]] = []
        self.calibration = Calibration.from_win_rates((np.arange(1000) + 0.5) / 1000)

    @property
    def prompts(self) -> list[str]:
        """Every prompt that was scored, in order."""
        return [prompt for call in list(self.calls) for prompt in call]

    def _win_rates(self, prompts: list[str]) -> WinRateArray:
        self.calls.append(list(prompts))  # atomic; a lock here could be held while a test forks
        if self.error is not None:
            raise self.error
        found = (_NUMBER.search(prompt) for prompt in prompts)
        return np.array([float(m.group(1).rstrip(".")) if m else self.default for m in found], dtype=np.float64)

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {"router": self.name, "default": self.default}

    def _save(self, path: Path) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def _load(cls, path: Path, config: dict[str, Any], **options: Any) -> ScriptedRouter:
        raise NotImplementedError


class HeldRouter(ScriptedRouter):
    """Computes, blocking its thread, until it is released: a test decides when, not the machine's load."""

    def __init__(self) -> None:
        super().__init__()
        self._started = threading.Event()
        self._released = threading.Event()

    @property
    def started(self) -> bool:
        """Whether it has been asked for a win rate."""
        return self._started.is_set()

    def release(self) -> None:
        """Lets all calls finish, also those to come."""
        self._released.set()

    def _win_rates(self, prompts: list[str]) -> WinRateArray:
        self._started.set()
        if not self._released.wait(LIMIT):
            raise TimeoutError("no test released the router")
        return super()._win_rates(prompts)
