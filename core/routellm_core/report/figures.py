"""Cost against quality: the lines of the chart, for the HTML page too, and the figures that matplotlib draws."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from routellm_core.errors import MissingExtraError
from routellm_core.report.results import COST_LABEL, best_router, cost_texts
from routellm_core.statistics.metrics import static_hull

# Each stands out from white and from black by 3:1 or more; where two look alike to a reader, the markers differ.
_COLORS = ("#0f7fc4", "#d55e00", "#00936b", "#b0609a", "#a47a00", "#5f7fb8")
# Shape of the dot at the policy of the verdict, by the names of matplotlib.
MARKERS = ("o", "s", "^", "D", "v", "P")
_GRAY, _BROWN = "#767676", "#8a6d3b"
_MANY = 2  # bands of more routers than this hide one another
SHARE_LABEL = "share of strong calls"


@dataclass(frozen=True)
class Line:
    """One line of the chart.

    Attributes:
        name: As the legend gives it.
        x: Shares of strong calls, ascending.
        y: Mean scores.
        color: ``#rrggbb``.
        dash: Lengths of strokes and gaps; empty for a whole line.
        main: Whether it is a router's.
        band: (shares, lower ends, upper ends) of the interval, or None.
        dot: (share, score) of the policy of the verdict, or None.
        marker: Shape of the dot, one of `MARKERS`.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    dash: tuple[int, ...] = ()
    main: bool = False
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None
    dot: tuple[float, float] | None = None
    marker: str = ""


def chart_lines(result: Mapping[str, Any]) -> list[Line]:
    """The lines of a result, routers first, in the order of the legend."""
    lines: list[Line] = []
    routers = result["routers"]
    for i, router in enumerate(routers):
        band, at = router["band"], router["verdict"]
        shown = len(routers) <= _MANY or i == best_router(result)
        lines.append(
            Line(
                router["name"],
                router["curves"]["strong_fraction"],
                router["curves"]["router"],
                _COLORS[i % len(_COLORS)],
                dash=() if i < len(_COLORS) else (9, 2),
                main=True,
                band=(band["strong_fraction"], band["low"], band["high"]) if shown else None,
                dot=(at["measured_at"]["value"], at["quality"]["value"]),
                marker=MARKERS[i % len(MARKERS)],
            )
        )
    if routers:
        curves = routers[0]["curves"]
        mix = _mix(result)
        lines.append(
            Line("static mix of the models" if mix else "random routing", *(mix or _ends(result)), _GRAY, (6, 3))
        )
        if "prompt_length" in curves:
            lines.append(Line("prompt length", curves["strong_fraction"], curves["prompt_length"], _BROWN, (2, 2)))
        lines.append(Line("oracle", curves["strong_fraction"], curves["oracle"], _GRAY, (8, 3, 2, 3)))
    return lines


def chart_models(result: Mapping[str, Any], lines: Sequence[Line]) -> list[tuple[str, float, float, bool]]:
    """Further priced models within the chart.

    Returns:
        Name, the share of strong calls that costs as much, mean score, and whether the name stands above the point:
        below it where another model is close above.
    """
    found = [(m["name"], _share_of_cost(result, m["cost"]), m["quality"]) for m in _priced_others(result)]
    inside = [(name, share, quality) for name, share, quality in found if 0.0 <= share <= 1.0]
    scores = [score for line in lines for score in line.y]
    near = 0.1 * (max(scores) - min(scores)) if scores else 0.0
    return [
        (name, x, y, not any(n != name and abs(a - x) < 0.25 and 0.0 <= b - y < near for n, a, b in inside))
        for name, x, y in inside
    ]


def cost_at(result: Mapping[str, Any], shares: Sequence[float]) -> list[str]:
    """What 1,000 calls cost at these shares of strong calls, as text; empty without prices."""
    if not result["priced"]:
        return []
    strong, weak = result["models"][0]["cost"], result["models"][1]["cost"]
    return cost_texts([1000.0 * (weak + share * (strong - weak)) for share in shares])


def _priced_others(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [m for m in result["models"] if m["role"] == "other" and m["cost"] is not None]


def _share_of_cost(result: Mapping[str, Any], cost: float) -> float:
    strong, weak = result["models"][0]["cost"], result["models"][1]["cost"]
    return float((cost - weak) / (strong - weak))


def _ends(result: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    return [0.0, 1.0], [result["weak_quality"], result["strong_quality"]]


def _mix(result: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]] | None:
    """The best static mix over the share that costs as much, where further models have a part in it."""
    if not _priced_others(result):
        return None
    priced = [m for m in result["models"] if m["cost"] is not None]
    costs, qualities = static_hull([(m["cost"], m["quality"]) for m in priced])
    shares = [_share_of_cost(result, cost) for cost in costs]
    at = sorted({0.0, 1.0, *(share for share in shares if 0.0 < share < 1.0)})
    return at, np.interp(at, shares, qualities).tolist()


def save_figures(results: Sequence[Mapping[str, Any]], directory: str | Path) -> list[Path]:
    """Draw cost against quality for each benchmark, as PNG and SVG.

    Returns:
        The files written: ``<benchmark>.png`` and ``<benchmark>.svg`` each; a name that repeats gets a number.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError:
        raise MissingExtraError("Drawing figures", "plot") from None
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for result in results:
        lines = chart_lines(result)
        rows = -(-len(lines) // 3)
        figure = Figure(figsize=(7.2, 4.6 + 0.25 * rows), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            axes.plot(
                line.x, line.y, label=_wrapped(line.name, 28), color=line.color, lw=2.2 if line.main else 1.4,
                ls=(0, line.dash) if line.dash else "-", zorder=3 if line.main else 2, marker=line.marker, markevery=[],
                ms=7, mfc="white", mew=2,
            )  # fmt: skip
            if line.band is not None:
                axes.fill_between(*line.band, color=line.color, alpha=0.15, lw=0)
            if line.dot is not None:
                axes.plot(*line.dot, line.marker, ms=7, mfc="white", mec=line.color, mew=2, zorder=4)
        for name, share, quality, above in chart_models(result, lines):
            axes.plot(share, quality, "x", ms=7, mew=2, color=_GRAY, zorder=4)
            right = share > 0.6
            axes.annotate(
                _wrapped(name, 28), (share, quality), (-5 if right else 5, 4 if above else -4), fontsize=8,
                textcoords="offset points", ha="right" if right else "left", va="bottom" if above else "top",
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        if result["shares"]:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(SHARE_LABEL)
        if result["priced"]:
            ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
            top = axes.secondary_xaxis("top")
            top.set_xticks(ticks, cost_at(result, ticks))
            top.set_xlabel(COST_LABEL)
        axes.set_ylabel("mean score")
        pair = f"{result['title']}\nstrong {result['strong']}, weak {result['weak']}"
        axes.set_title("\n".join(_wrapped(part, 80) for part in pair.split("\n")), loc="left", fontsize=10)
        axes.grid(alpha=0.25)
        axes.spines[["right"] if result["priced"] else ["top", "right"]].set_visible(False)
        figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=9)
        name = _unused(_slug(result["benchmark"]), {file.stem for file in written})
        for canvas, ending, extra in (
            (FigureCanvasAgg(figure), "png", {"dpi": 150}),
            (FigureCanvasSVG(figure), "svg", {"metadata": {"Date": None}}),
        ):
            target = folder / f"{name}.{ending}"
            canvas.print_figure(target, format=ending, **extra)
            written.append(target)
    return written


def _wrapped(text: str, width: int) -> str:
    # a dollar sign would begin a formula
    return textwrap.fill(text, width, break_on_hyphens=True).replace("$", r"\$")


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-") or "outcomes"


def _unused(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found
