"""RandomRouter: the baseline that every router has to beat."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from routellm_core.calibration.distribution import Calibration
from routellm_core.data.seen_prompts import SeenPrompts
from routellm_core.errors import ConfigurationError
from routellm_core.routers.base import Router, WinRateArray


class RandomRouter(Router):
    """Uniform random win rates; for a given seed, each prompt always gets the same one.

    The win rate is a hash of seed and prompt rather than the next number of a generator. A batch therefore gets the
    same win rates as its prompts one by one, in any order, and threads share no state. The calibration is the uniform
    distribution, so a threshold of 1 - x sends the share x to the strong model.

    Args:
        seed: Any integer; another seed gives different win rates.
    """

    name = "random"
    trained_on = SeenPrompts()  # on none

    def __init__(self, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ConfigurationError(f"seed={seed!r}: expected an integer")
        self.seed = seed
        self.calibration = Calibration.from_win_rates(
            (np.arange(1000) + 0.5) / 1000, router=self.name, fingerprint=self.fingerprint
        )

    def _win_rates(self, prompts: list[str]) -> WinRateArray:
        key = str(self.seed).encode()
        digests = (
            hashlib.blake2b(p.encode("utf-8", "surrogatepass"), key=key[:64], digest_size=8).digest() for p in prompts
        )
        # 53 random bits, as in the usual generators of float64 in [0, 1)
        return np.array([int.from_bytes(d, "big") >> 11 for d in digests], dtype=np.float64) / 2.0**53

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {"router": self.name, "seed": self.seed}

    def _save(self, path: Path) -> dict[str, Any]:
        return {"seed": self.seed}

    @classmethod
    def _load(  # type: ignore[override]  # each router has options of its own; from_pretrained checks them
        cls, path: Path, config: dict[str, Any], *, seed: int | None = None
    ) -> RandomRouter:
        return cls(config.get("seed", 0) if seed is None else seed)
