"""Calibration: from win rates to thresholds, for a share, a budget or a quality, fixed or following the traffic."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routellm_core.calibration.distribution import Calibration

if TYPE_CHECKING:
    from routellm_core.calibration.online import DriftReport, OnlineCalibration
    from routellm_core.calibration.resumable import ResumableCalibration, calibrate_file
    from routellm_core.calibration.targets import Target, budget_target, quality_target, share_target

__all__ = [
    "Calibration",
    "DriftReport",
    "OnlineCalibration",
    "ResumableCalibration",
    "Target",
    "budget_target",
    "calibrate_file",
    "quality_target",
    "share_target",
]

# loaded when first used: most decisions need none of them, nor the statistics and the readers of files behind them
_MODULES = {
    "DriftReport": "online",
    "OnlineCalibration": "online",
    "ResumableCalibration": "resumable",
    "Target": "targets",
    "budget_target": "targets",
    "calibrate_file": "resumable",
    "quality_target": "targets",
    "share_target": "targets",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
