"""A traffic log for tests of the adapters."""

from __future__ import annotations

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
