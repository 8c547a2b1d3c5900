"""The policy: from a win rate to a decision, and to what comes after it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.policy import RoutingPolicy

if TYPE_CHECKING:
    from routellm_core.policy.limits import ShareLimit, SpendLimit
    from routellm_core.policy.options import RoutingOptions
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

# loaded when first used: most decisions need none of them
_MODULES = {
    "Price": "savings",
    "RoutingOptions": "options",
    "Shadow": "shadow",
    "ShareLimit": "limits",
    "SpendLimit": "limits",
    "Stickiness": "stickiness",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
