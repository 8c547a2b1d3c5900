"""An evaluation as files: the results as JSON, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from routellm_core.report.page import render_html

RESULTS_FILE, REPORT_FILE = "results.json", "report.html"


def save_evaluation(results: Sequence[Mapping[str, Any]], directory: str | Path) -> list[Path]:
    """Write results.json and report.html to a folder, which is made when needed.

    Args:
        results: What `evaluate_benchmark` returned.
        directory: The folder; files of these names in it are replaced.

    Returns:
        The files written.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return write_evaluation(results, render_html(results), directory)


def write_evaluation(results: Sequence[Mapping[str, Any]], page: str, directory: str | Path) -> list[Path]:
    """Write results with the page that shows them; as `save_evaluation`, which makes the page itself."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / REPORT_FILE).write_text(page, encoding="utf-8")
    return [folder / REPORT_FILE, folder / RESULTS_FILE]
