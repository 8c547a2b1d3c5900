"""The policy: from a win rate to a decision, and to what comes after it."""

from __future__ import annotations

from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.limits import ShareLimit, SpendLimit
from routellm_core.policy.options import RoutingOptions
from routellm_core.policy.policy import RoutingPolicy
from routellm_core.policy.savings import Price
from routellm_core.policy.shadow import Shadow
from routellm_core.policy.stickiness import Stickiness

__all__ = [
    "Price",
    "RoutingDecision",
    "RoutingOptions",
    "RoutingPolicy",
    "RoutingRequest",
    "Shadow",
    "ShareLimit",
    "SpendLimit",
    "Stickiness",
]
