"""A traffic log for tests of the adapters."""

from __future__ import annotations

from typing import Any

from routellm_core import TrafficLog
from routellm_core.log import LoggedOutcome, LoggedPair


class Log(TrafficLog):
    """A log whose rows can be looked at."""

    def outcomes(self) -> list[LoggedOutcome]:
        with self.database() as database:
            return list(database.outcomes())

    def pairs(self) -> list[LoggedPair]:
        with self.database() as database:
            return list(database.pairs())


def booked(log: TrafficLog) -> Any:
    """The cost of a log's one call, all that was paid by every sum of it, and for each model (answers, refused)."""
    with log.database() as database:
        (call,) = database.calls()
        totals = {by: database.totals(by) for by in ("side", "model", "user", "day")}
        sums = {by: sum(total.cost for total in found) for by, found in totals.items()}  # type: ignore[misc]
        sums["summary"] = sum(side.cost or 0.0 for side in database.summary().sides.values())  # type: ignore[misc]
        sums["spending"] = sum(row.cost for row in database.spending())  # type: ignore[misc]
        return call.cost, sums, {total.key: (total.answers, total.refused) for total in totals["model"]}
