"""RouteLLM's routers, calibration, training and evaluation; nothing here knows a framework.

>>> from routellm_core import load_router
>>> load_router().win_rates(["hi", "Prove that there are infinitely many primes."])  # doctest: +SKIP
"""

from routellm_core.calibration import Calibration
from routellm_core.decision import RoutingDecision
from routellm_core.drift import OnlineCalibration
from routellm_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigurationError,
    DataError,
    DeadlineError,
    MissingExtraError,
    PromptError,
    RouteLLMError,
    RouterError,
)
from routellm_core.policy import RoutingPolicy, RoutingRequest
from routellm_core.routers import Router, load_router

__all__ = [
    "Calibration",
    "CheckpointError",
    "CheckpointNotFoundError",
    "ConfigurationError",
    "DataError",
    "DeadlineError",
    "MissingExtraError",
    "OnlineCalibration",
    "PromptError",
    "RouteLLMError",
    "Router",
    "RouterError",
    "RoutingDecision",
    "RoutingPolicy",
    "RoutingRequest",
    "load_router",
]
__version__ = "0.1.0"
