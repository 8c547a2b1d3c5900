"""The model card: the README.md beside a trained router, and the table of metrics that the terminal shows too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from routellm_core.report.rendering import render
from routellm_core.report.results import estimate_text

_METRICS = {"apgr": "APGR", "cpt_50": "CPT(50%)", "cpt_80": "CPT(80%)"}
_BASELINES = {"prompt_length": "prompt length", "random": "random", "oracle": "oracle"}


def model_card(metrics: Mapping[str, Any]) -> str:
    """The README.md of a trained router: counts and numbers, no prompt.

    Args:
        metrics: What the router's metrics.json holds.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    table = metrics_table(metrics)
    return render(
        "model_card.md.jinja",
        **metrics,
        counts={part: f"{metrics['rows'].get(part, 0):,}" for part in ("train", "validation", "held_out")},
        named_sources=[(name, f"{count:,}") for name, count in sorted(metrics["sources"].items())],
        named_settings=[(name, json.dumps(value)) for name, value in metrics["settings"].items()],
        table=table,
        measured_on=measured_on(metrics),
    )


def metrics_table(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of a trained router's metrics beside the bundled router's and the baselines'.

    Args:
        metrics: What the router's metrics.json holds.

    Returns:
        Rows of texts; empty where nothing was measured.
    """
    held_out = metrics["held_out"]
    if held_out is None:
        return []
    measured = {"this router": held_out["metrics"]}
    if metrics["bundled_default"] is not None:
        measured["bundled default"] = metrics["bundled_default"]
    measured |= {title: held_out["baselines"][key] for key, title in _BASELINES.items() if key in held_out["baselines"]}
    header = [f"{metrics['folds']}-fold cross-validated" if metrics["folds"] else "held-out prompts"]
    return [[*header, *_METRICS.values()]] + [
        [title, *(estimate_text(values[metric]) for metric in _METRICS)] for title, values in measured.items()
    ]


def measured_on(metrics: Mapping[str, Any]) -> str:
    """What the metrics of a trained router were measured on, in words; empty where nothing was measured.

    Args:
        metrics: What the router's metrics.json holds.
    """
    if metrics["held_out"] is None:
        return ""
    count = metrics["held_out"]["count"]
    if metrics["folds"]:
        return (
            f"{count:,} prompts, each scored by a router that was not trained on it "
            f"({metrics['folds']}-fold cross-validation); the saved router is trained on all of them"
        )
    return f"{count:,} held-out prompts"
