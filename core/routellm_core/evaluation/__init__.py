"""Evaluation of routers: metrics with intervals, benchmarks, targets, and a verdict.

Importing this package needs numpy only; the report and its figures load matplotlib when they are drawn.
"""

from __future__ import annotations

from routellm_core.evaluation.metrics import (
    Comparison,
    Curve,
    Estimate,
    RouterEvaluation,
    apgr,
    bootstrap,
    compare_routers,
    cost_saving_ratio,
    cpt,
    curve,
    evaluate_router,
    hull_area,
    pgr,
    prompt_length,
)

__all__ = [
    "Comparison",
    "Curve",
    "Estimate",
    "RouterEvaluation",
    "apgr",
    "bootstrap",
    "compare_routers",
    "cost_saving_ratio",
    "cpt",
    "curve",
    "evaluate_router",
    "hull_area",
    "pgr",
    "prompt_length",
]
