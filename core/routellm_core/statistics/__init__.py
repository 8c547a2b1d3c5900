"""Statistics of routing: numbers in, numbers out; no files, no routers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routellm_core.statistics.intervals import Comparison, Estimate, bootstrap, compare_routers
from routellm_core.statistics.metrics import Curve, apgr, cost_saving_ratio, cpt, curve, hull_area, pgr, prompt_length

if TYPE_CHECKING:
    from routellm_core.statistics.bradley_terry import bradley_terry_ratings
    from routellm_core.statistics.tiers import compute_tiers

__all__ = [
    "Comparison",
    "Curve",
    "Estimate",
    "apgr",
    "bootstrap",
    "bradley_terry_ratings",
    "compare_routers",
    "compute_tiers",
    "cost_saving_ratio",
    "cpt",
    "curve",
    "hull_area",
    "pgr",
    "prompt_length",
]

_MODULES = {"bradley_terry_ratings": "bradley_terry", "compute_tiers": "tiers"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
