"""Figures as files: cost against quality, drawn by matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routellm_core.errors import MissingExtraError
from routellm_core.report.chart import (
    GRAY,
    SHARE_LABEL,
    Line,
    Model,
    chart_lines,
    chart_models,
    choice_axis,
    choice_chart,
    cost_at,
)
from routellm_core.report.escaping import printable
from routellm_core.report.results import cost_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save_figures(results: Sequence[Mapping[str, Any]], directory: str | Path) -> list[Path]:
    """Draw cost against quality for each benchmark, as PNG and SVG.

    Args:
        results: What `evaluate_benchmark` or `choose_models` returned, or the same read back from JSON.
        directory: Folder to write to; it is made when needed.

    Returns:
        The files written: ``<benchmark>.png`` and ``<benchmark>.svg`` each; a name that repeats gets a number.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("Drawing figures", "plot") from None
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for result in results:
        figure = Figure(layout="constrained")
        (_draw_choice if "choices" in result else _draw)(figure, result)
        name = _unused(_slug(result["benchmark"]), {file.stem for file in written})
        for canvas, ending, extra in (
            (FigureCanvasAgg(figure), "png", {"dpi": 150}),
            (FigureCanvasSVG(figure), "svg", {"metadata": {"Date": None}}),
        ):
            target = folder / f"{name}.{ending}"
            canvas.print_figure(target, format=ending, **extra)
            written.append(target)
    return written


def _draw(figure: Figure, result: Mapping[str, Any]) -> None:
    from matplotlib.ticker import PercentFormatter

    lines = chart_lines(result)
    legend_rows = -(-len(lines) // 3)
    figure.set_size_inches(7.2, 4.6 + 0.25 * legend_rows)
    axes = figure.add_subplot()
    for line in lines:
        _plot_line(axes, line)
    for model in chart_models(result, lines):
        _plot_model(axes, model)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    if result["shares"]:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(SHARE_LABEL)
    if result["priced"]:
        ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        top = axes.secondary_xaxis("top")
        top.set_xticks(ticks, cost_at(result, ticks))
        top.set_xlabel(cost_label(result))
    axes.set_ylabel("mean score")
    heading = (result["title"], f"strong {result['strong']}, weak {result['weak']}")
    axes.set_title("\n".join(_wrapped(part, 80) for part in heading), loc="left", fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["right"] if result["priced"] else ["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=9)


def _draw_choice(figure: Figure, result: Mapping[str, Any]) -> None:
    line, models = choice_chart(result)
    axis = choice_axis(result)
    figure.set_size_inches(7.2, 4.8)
    axes = figure.add_subplot()
    _plot_line(axes, line)
    for model in models:
        _plot_model(axes, model)
    at = axis.place(result["budget"])
    if 0.0 <= at <= 1.0:
        axes.axvline(at, color=GRAY, lw=1, ls=(0, (2, 2)), label=f"budget {result['budget']:g}")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([axis.place(tick) for tick in axis.ticks()], [f"{tick:g}" for tick in axis.ticks()])
    if result["shares"]:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(cost_label(result))
    axes.set_ylabel("mean score")
    axes.set_title(_wrapped(result["title"], 80), loc="left", fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=9)


def _plot_line(axes: Axes, line: Line) -> None:
    axes.plot(
        line.x, line.y, label=_wrapped(line.name, 28), color=line.color, lw=2.2 if line.main else 1.4,
        ls=(0, line.dash) if line.dash else "-", zorder=3 if line.main else 2, marker=line.marker, markevery=[],
        ms=7, mfc="white", mew=2,
    )  # fmt: skip
    if line.band is not None:
        axes.fill_between(*line.band, color=line.color, alpha=0.15, lw=0)
    if line.dot is not None:
        axes.plot(*line.dot, line.marker, ms=7, mfc="white", mec=line.color, mew=2, zorder=4)


def _plot_model(axes: Axes, model: Model) -> None:
    axes.plot(model.x, model.y, "x", ms=7, mew=2, color=GRAY, zorder=4)
    axes.annotate(
        _wrapped(model.name, 28), (model.x, model.y), (-5 if model.right else 5, 4 if model.above else -4), fontsize=8,
        textcoords="offset points", ha="right" if model.right else "left", va="bottom" if model.above else "top",
    )  # fmt: skip


def _wrapped(text: str, width: int) -> str:
    """A name in lines, cut where it would take the room of the figure."""
    lines = textwrap.fill(printable(text), width, break_on_hyphens=True, max_lines=3, placeholder=" ...")
    return lines.replace("$", r"\$")  # a dollar sign would begin a formula


def _slug(name: str) -> str:
    """A file name of at most 60 characters, which is within 255 bytes in any script."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-")[:60] or "outcomes"


def _unused(name: str, taken: set[str]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
