"""Readiness: whether the models' servers answer, for a load balancer or an orchestrator that asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from routellm_core.serve.levels import Levels
from routellm_core.serve.upstream import Upstreams

# How long an answer holds: whoever asks, and nobody needs a key to, causes no more requests than this.
_SECONDS = 5.0


class Readiness:
    """Asks each model's server whether it is there.

    The traffic alone would not do: where the answer "not ready" keeps all requests away, no request could find out that
    the servers are back.

    Args:
        levels: The levels of the server, which have its cooldowns.
        upstreams: The models' servers.
    """

    def __init__(self, levels: Levels, upstreams: Upstreams) -> None:
        self._levels = levels
        self._upstreams = upstreams
        self._asking: asyncio.Task[dict[str, bool]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked_at = 0.0

    async def state(self) -> tuple[bool, dict[str, Any]]:
        """Whether a request could be answered now, and what is known of each model's server.

        Returns:
            Ready where at least one server answers; then, by model, whether it answers, and whether it is passed over
            after a failure (None without failover).
        """
        loop = asyncio.get_running_loop()
        if self._asking is None or self._loop is not loop or time.monotonic() - self._asked_at > _SECONDS:
            self._asking, self._loop, self._asked_at = loop.create_task(self._ask()), loop, time.monotonic()
        answers = await asyncio.shield(self._asking)
        models = {
            name: {"answers": answers[name], "cooling_down": self._is_cooling(place)}
            for place, name in enumerate(self._levels.names)
        }
        is_ready = any(answers.values())
        return is_ready, {"status": "ready" if is_ready else "not ready", "models": models}

    async def _ask(self) -> dict[str, bool]:
        names = self._levels.names
        return dict(zip(names, await asyncio.gather(*map(self._upstreams.is_there, names)), strict=True))

    def _is_cooling(self, place: int) -> bool | None:
        """Whether a model is passed over; the cheapest one is the weak side of the innermost level."""
        level = min(place, len(self._levels) - 1)
        cooldown = self._levels[level].cooldown if self._levels[level].failover else None
        return None if cooldown is None else cooldown.is_cooling("strong" if place == level else "weak")
