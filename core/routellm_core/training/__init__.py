"""Training: fits each trainable router from preference data; every trainer loads when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {"BattleArrays": "mf", "fit_mf": "mf", "fit_pair": "mf", "pair_router": "mf"}

__all__ = ["BattleArrays", "fit_mf", "fit_pair", "pair_router"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
