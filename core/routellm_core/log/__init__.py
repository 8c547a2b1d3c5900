"""The traffic log: calls, answers, feedback and labels in a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from routellm_core.log.recording import Answer, Recording, Runs, SideSpent
from routellm_core.log.rows import (
    Feedback,
    Label,
    LoggedAnswer,
    LoggedCall,
    LoggedOutcome,
    LoggedPair,
    SideSummary,
    Total,
    TrafficSummary,
)
from routellm_core.log.traffic_log import TrafficLog
from routellm_core.log.urls import is_database_url

if TYPE_CHECKING:
    from routellm_core.log.database import TrafficDatabase

__all__ = [
    "Answer",
    "Feedback",
    "Label",
    "LoggedAnswer",
    "LoggedCall",
    "LoggedOutcome",
    "LoggedPair",
    "Recording",
    "Runs",
    "SideSpent",
    "SideSummary",
    "Total",
    "TrafficDatabase",
    "TrafficLog",
    "TrafficSummary",
    "is_database_url",
]


def __getattr__(name: str) -> Any:
    if name == "TrafficDatabase":  # loads SQLAlchemy
        from routellm_core.log.database import TrafficDatabase

        return TrafficDatabase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
