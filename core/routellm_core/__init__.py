"""RouteLLM's routers, calibration, training and evaluation; nothing here knows a framework.

>>> from routellm_core import load_router
>>> load_router().win_rates(["hi", "Prove that there are infinitely many primes."])  # doctest: +SKIP
"""

from routellm_core.calibration import Calibration, OnlineCalibration
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
from routellm_core.log import TrafficLog
from routellm_core.policy import (
    Price,
    RoutingDecision,
    RoutingPolicy,
    RoutingRequest,
    Shadow,
    ShareLimit,
    SpendLimit,
    Stickiness,
)
from routellm_core.routers import Router, load_router

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
    "RoutingDecision",
    "RoutingPolicy",
    "RoutingRequest",
    "Shadow",
    "ShareLimit",
    "SpendLimit",
    "Stickiness",
    "TrafficLog",
    "load_router",
]
__version__ = "0.1.0"
