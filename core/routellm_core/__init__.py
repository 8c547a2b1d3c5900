"""RouteLLM's routers, calibration, training and evaluation; nothing here knows a framework.

>>> from routellm_core import load_router
>>> load_router().win_rates(["hi", "Prove that there are infinitely many primes."])  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routellm_core.calibration import Calibration
from routellm_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigurationError,
    DataError,
    DeadlineError,
    LimitError,
    MissingExtraError,
    PromptError,
    RouteLLMError,
    RouterError,
)
from routellm_core.policy import RoutingDecision, RoutingPolicy, RoutingRequest
from routellm_core.routers import Router, RouterFolder, load_router

if TYPE_CHECKING:
    from routellm_core.calibration import OnlineCalibration
    from routellm_core.log import TrafficLog
    from routellm_core.policy import Price, Shadow, ShareLimit, SpendLimit, Stickiness
    from routellm_core.routers.bulk import WinRates

__all__ = [
    "Calibration",
    "CheckpointError",
    "CheckpointNotFoundError",
    "ConfigurationError",
    "DataError",
    "DeadlineError",
    "LimitError",
    "MissingExtraError",
    "OnlineCalibration",
    "Price",
    "PromptError",
    "RouteLLMError",
    "Router",
    "RouterError",
    "RouterFolder",
    "RoutingDecision",
    "RoutingPolicy",
    "RoutingRequest",
    "Shadow",
    "ShareLimit",
    "SpendLimit",
    "Stickiness",
    "TrafficLog",
    "WinRates",
    "load_router",
]
__version__ = "0.1.0"

# loaded when first used: most decisions need none of them
_ROOMS = {
    "OnlineCalibration": "calibration",
    "Price": "policy",
    "Shadow": "policy",
    "ShareLimit": "policy",
    "SpendLimit": "policy",
    "Stickiness": "policy",
    "TrafficLog": "log",
    "WinRates": "routers.bulk",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
