"""Evaluation of routers: metrics with intervals, benchmarks, targets, and a verdict.

Importing this package needs numpy only; the report and its figures load matplotlib when they are drawn.
"""

from __future__ import annotations

from routellm_core.calibration.targets import Target, budget_target, quality_target, share_target
from routellm_core.evaluation.benchmarks import Benchmark, load_benchmark, load_outcomes, load_scores
from routellm_core.evaluation.cascades import CascadeEvaluation, evaluate_cascade
from routellm_core.evaluation.explanation import Explanation, explain_prompt
from routellm_core.evaluation.overlap import leave_out_seen
from routellm_core.evaluation.pairs import Choices, best_models
from routellm_core.evaluation.replay import Replay, replay
from routellm_core.evaluation.router_evaluation import RouterEvaluation, evaluate_router
from routellm_core.evaluation.verdict import Verdict, verdict
from routellm_core.statistics.intervals import Comparison, Estimate, bootstrap, compare_routers
from routellm_core.statistics.metrics import Curve, apgr, cost_saving_ratio, cpt, curve, hull_area, pgr, prompt_length

__all__ = [
    "Benchmark",
    "CascadeEvaluation",
    "Choices",
    "Comparison",
    "Curve",
    "Estimate",
    "Explanation",
    "Replay",
    "RouterEvaluation",
    "Target",
    "Verdict",
    "apgr",
    "best_models",
    "bootstrap",
    "budget_target",
    "compare_routers",
    "cost_saving_ratio",
    "cpt",
    "curve",
    "evaluate_cascade",
    "evaluate_router",
    "explain_prompt",
    "hull_area",
    "leave_out_seen",
    "load_benchmark",
    "load_outcomes",
    "load_scores",
    "pgr",
    "prompt_length",
    "quality_target",
    "replay",
    "share_target",
    "verdict",
]
