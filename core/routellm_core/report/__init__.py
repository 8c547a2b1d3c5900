"""Reports: what a person reads of an evaluation or a trained router, as texts, HTML page, figures and model card.

Pages and cards load jinja2 when they are rendered (extra ``report``), figures matplotlib (extra ``plot``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routellm_core.report.figures import save_figures
    from routellm_core.report.files import save_evaluation
    from routellm_core.report.page import render_html
    from routellm_core.report.results import evaluate_benchmark, evaluate_priced, markdown_table

_MODULES = {
    "evaluate_benchmark": "results",
    "evaluate_priced": "results",
    "markdown_table": "results",
    "render_html": "page",
    "save_evaluation": "files",
    "save_figures": "figures",
}
__all__ = [  # the keys of _MODULES, written out for type checkers
    "evaluate_benchmark",
    "evaluate_priced",
    "markdown_table",
    "render_html",
    "save_evaluation",
    "save_figures",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
