"""The chart of cost against quality: its lines, for every figure, and its shapes, for the HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from routellm_core.report.results import bar_text, best_router, cost_label, cost_texts
from routellm_core.statistics.metrics import static_hull

SHARE_LABEL = "share of strong calls"
GRAY = "#767676"
_BROWN = "#8a6d3b"
# Each stands out from white and from black by 3:1 or more; where two look alike to a reader, the markers differ.
_COLORS = ("#0f7fc4", "#d55e00", "#00936b", "#b0609a", "#a47a00", "#5f7fb8")
_MANY = 2  # bands of more routers than this hide one another
# The dot at the policy of the verdict: matplotlib's name of the marker, and its outline in an SVG.
_MARKERS = {
    "o": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z",
    "s": "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "^": "M0,-5.5L5.5,4.5H-5.5Z",
    "D": "M0,-6L6,0L0,6L-6,0Z",
    "v": "M0,5.5L5.5,-4.5H-5.5Z",
    "P": "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
}

# The drawing is 480 units wide; its margins leave room for the larger type that it has on a phone.
_WIDTH, _PLOT, _RIGHT, _TOP = 480, 290, 26, 30
_TYPE = 17
_LABEL_CHARS = 32


@dataclass(frozen=True)
class Line:
    """One line of the chart.

    Attributes:
        name: The name in the legend.
        x: Shares of strong calls, ascending.
        y: Mean scores.
        color: ``#rrggbb``.
        dash: Lengths of strokes and gaps; empty for a solid line.
        main: Whether it is a router's.
        band: (shares, lower ends, upper ends) of the interval, or None.
        dot: (share, score) of the policy of the verdict, or None.
        marker: Shape of the dot, by matplotlib's name.
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

    @property
    def outline(self) -> str:
        """The dot's shape as an SVG path around the origin."""
        return _MARKERS[self.marker]


class Model(NamedTuple):
    """A further priced model as a point of the chart.

    Attributes:
        name: The model.
        x: The share of strong calls that costs as much.
        y: Its mean score.
        above: Whether the name stands above the point; it stands below where another model is close above.
    """

    name: str
    x: float
    y: float
    above: bool

    @property
    def right(self) -> bool:
        """Whether the point is so far to the right that its name stands to the left of it."""
        return self.x > 0.6


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
                marker=list(_MARKERS)[i % len(_MARKERS)],
            )
        )
    if routers:
        curves = routers[0]["curves"]
        lines.append(_bar(result))
        if "prompt_length" in curves:
            lines.append(Line("prompt length", curves["strong_fraction"], curves["prompt_length"], _BROWN, (2, 2)))
        lines.append(Line("oracle", curves["strong_fraction"], curves["oracle"], GRAY, (8, 3, 2, 3)))
    return lines


def chart_models(result: Mapping[str, Any], lines: Sequence[Line]) -> list[Model]:
    """The further priced models that lie within the chart."""
    places = [(m["name"], _share_of_cost(result, m["cost"]), m["quality"]) for m in _priced_others(result)]
    inside = [(name, share, quality) for name, share, quality in places if 0.0 <= share <= 1.0]
    scores = [score for line in lines for score in line.y]
    near = 0.1 * (max(scores) - min(scores)) if scores else 0.0
    return [
        Model(name, x, y, not any(n != name and abs(a - x) < 0.25 and 0.0 <= b - y < near for n, a, b in inside))
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
    return float((cost - weak) / (strong - weak)) if strong != weak else float("nan")


def _bar(result: Mapping[str, Any]) -> Line:
    """What routing has to beat: the best single model, the best static mix, or a random mix of the pair."""
    judged = result["routers"][0]["verdict"]
    if judged["basis"] == "best_single":
        best = next(model["quality"] for model in result["models"] if model["name"] == judged["best_single"])
        return Line(bar_text(result), [0.0, 1.0], [best, best], GRAY, (6, 3))
    mix = _mix(result)
    return Line("static mix of the models" if mix else "random routing", *(mix or _ends(result)), GRAY, (6, 3))


def _ends(result: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    return [0.0, 1.0], [result["weak_quality"], result["strong_quality"]]


def _mix(result: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]] | None:
    """The best static mix over the share that costs as much, where further models are part of it."""
    if not _priced_others(result):
        return None
    priced = [m for m in result["models"] if m["cost"] is not None]
    costs, qualities = static_hull([(m["cost"], m["quality"]) for m in priced])
    shares = [_share_of_cost(result, cost) for cost in costs]
    at = sorted({0.0, 1.0, *(share for share in shares if 0.0 < share < 1.0)})
    return at, np.interp(at, shares, qualities).tolist()


class CostAxis:
    """Costs of 1,000 calls on an axis of equal ratios, as places from 0 to 1.

    Args:
        costs: What has to fit, >= 0; costs of nothing stand at the left end.
    """

    def __init__(self, costs: Sequence[float]) -> None:
        paid = [cost for cost in costs if cost > 0] or [1.0]
        self._low, self._high = min(paid), max(paid)
        if min(costs) <= 0:
            self._low /= 3.0
        if self._low == self._high:
            self._low, self._high = self._low / 2.0, self._high * 2.0

    def place(self, cost: float) -> float:
        """Where a cost stands."""
        return math.log(max(cost, self._low) / self._low) / math.log(self._high / self._low)

    def ticks(self) -> list[float]:
        """Round costs within the axis, three for each power of ten; of many powers only these."""
        powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
        steps = (1.0, 2.0, 5.0) if len(powers) <= 4 else (1.0,)
        ticks = [step * 10.0**power for power in powers for step in steps]
        return [tick for tick in ticks if self._low * 0.999 <= tick <= self._high * 1.001]


def choice_axis(result: Mapping[str, Any]) -> CostAxis:
    """The axis on which all models of a choice stand."""
    return CostAxis([model["cost"] for model in result["models"]])


def choice_chart(result: Mapping[str, Any]) -> tuple[Line, list[Model]]:
    """The hull of a choice as a line with its interval, and its single models as points; named where they stand out.

    Args:
        result: What `choose_models` returned.
    """
    axis = choice_axis(result)
    hull = result["hull"]
    x = [axis.place(point["cost"]) for point in hull]
    best = next(choice for choice in result["choices"] if choice["size"] == result["recommended"])
    line = Line(
        "best single model or pair",
        x,
        [point["quality"]["value"] for point in hull],
        _COLORS[0],
        main=True,
        band=(x, [point["quality"]["low"] for point in hull], [point["quality"]["high"] for point in hull]),
        dot=(axis.place(best["cost"]), best["quality"]["value"]),
        marker="o",
    )
    named = {name for point in hull for name in point["models"]} | set(best["models"])
    models = [
        Model(model["name"] if model["name"] in named else "", axis.place(model["cost"]), model["quality"], False)
        for model in result["models"]
    ]
    return line, models


def draw_choice(result: Mapping[str, Any]) -> Drawing:
    """The chart of a choice."""
    line, models = choice_chart(result)
    ticks, labels, low, high = _score_axis(result, _scores([line], models))
    scale = _Scale(12 + round(0.6 * _TYPE * max(map(len, labels))), low, high)
    scores = [_text(scale.left - 6, scale.y(tick) + 5, words, "end") for tick, words in zip(ticks, labels, strict=True)]
    axis, middle, height = choice_axis(result), (scale.left + _WIDTH - _RIGHT) / 2, _TOP + _PLOT + 46
    costs = [_text(scale.x(axis.place(tick)), _TOP + _PLOT + 22, f"{tick:g}") for tick in axis.ticks()]
    places = [(scale.x(model.x), scale.y(model.y), model) for model in models]
    assert line.band is not None
    assert line.dot is not None
    return Drawing(
        label=f"Mean score against cost on {result['title']}",
        width=_WIDTH,
        height=height,
        grid=[(_unit(scale.left), _unit(_WIDTH - _RIGHT), _unit(scale.y(tick))) for tick in ticks],
        texts=[_text(0, 16, "mean score", "start"), *scores, *costs, _text(middle, height - 4, cost_label(result))],
        bands=[(scale.band(*line.band), line)],
        lines=[(scale.points(line.x, line.y), line)],
        crosses=[(_unit(x - 5), _unit(y - 5)) for x, y, _ in places],
        names=[_name(x, y, model) for x, y, model in places if model.name],
        dots=[(_unit(scale.x(line.dot[0])), _unit(scale.y(line.dot[1])), line)],
        legend=[line],
    )


class Text(NamedTuple):
    """Words in a drawing; `anchor` says which end of them is at x: ``"start"``, ``"middle"`` or ``"end"``."""

    x: str
    y: str
    words: str
    anchor: str = "middle"


class Drawing(NamedTuple):
    """A chart as the HTML page draws it; coordinates are texts with one decimal, as SVG has them.

    Attributes:
        label: What the chart shows, for readers who cannot see it.
        width: Width in units of the coordinates.
        height: Height.
        grid: Horizontal lines: ``(x1, x2, y)``.
        texts: The words at the axes.
        bands: Corners and line of each band.
        lines: Points of each line, in the order in which they are drawn.
        crosses: The points of single models.
        names: Their names.
        dots: Place and line of each dot.
        legend: The lines, in the order of the legend.
    """

    label: str
    width: int
    height: int
    grid: list[tuple[str, str, str]]
    texts: list[Text]
    bands: list[tuple[str, Line]]
    lines: list[tuple[str, Line]]
    crosses: list[tuple[str, str]]
    names: list[Text]
    dots: list[tuple[str, str, Line]]
    legend: list[Line]


def draw(result: Mapping[str, Any]) -> Drawing | None:
    """The chart of a result; None without routers."""
    lines = chart_lines(result)
    if not lines:
        return None
    models = chart_models(result, lines)
    ticks, labels, low, high = _score_axis(result, _scores(lines, models))
    scale = _Scale(12 + round(0.6 * _TYPE * max(map(len, labels))), low, high)
    scores = [_text(scale.left - 6, scale.y(tick) + 5, words, "end") for tick, words in zip(ticks, labels, strict=True)]
    shares, height = _share_axis(result, scale)
    places = [(scale.x(model.x), scale.y(model.y), model) for model in models]
    return Drawing(
        label=f"Mean score against the {SHARE_LABEL} on {result['title']}",
        width=_WIDTH,
        height=height,
        grid=[(_unit(scale.left), _unit(_WIDTH - _RIGHT), _unit(scale.y(tick))) for tick in ticks],
        texts=[_text(0, 16, "mean score", "start"), *scores, *shares],
        bands=[(scale.band(*line.band), line) for line in lines if line.band is not None],
        lines=[(scale.points(line.x, line.y), line) for line in reversed(lines)],  # routers last, on top
        crosses=[(_unit(x - 5), _unit(y - 5)) for x, y, _ in places],
        names=[_name(x, y, model) for x, y, model in places],
        dots=[(_unit(scale.x(line.dot[0])), _unit(scale.y(line.dot[1])), line) for line in lines if line.dot],
        legend=lines,
    )


@dataclass(frozen=True)
class _Scale:
    """Shares of strong calls and scores as places in the drawing."""

    left: int
    low: float
    high: float

    def x(self, share: float) -> float:
        return self.left + share * (_WIDTH - self.left - _RIGHT)

    def y(self, score: float) -> float:
        return float(_TOP + (self.high - score) / ((self.high - self.low) or 1.0) * _PLOT)

    def points(self, shares: Sequence[float], scores: Sequence[float]) -> str:
        return " ".join(f"{_unit(self.x(x))},{_unit(self.y(y))}" for x, y in zip(shares, scores, strict=True))

    def band(self, shares: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> str:
        return self.points([*shares, *reversed(shares)], [*lows, *reversed(highs)])


def _unit(value: float) -> str:
    return f"{value:.1f}"


def _text(x: float, y: float, words: str, anchor: str = "middle") -> Text:
    return Text(_unit(x), _unit(y), words, anchor)


def _name(x: float, y: float, model: Model) -> Text:
    side, anchor = (-9, "end") if model.right else (9, "start")
    return _text(x + side, y + (-8 if model.above else 18), model.name[:_LABEL_CHARS], anchor)


def _scores(lines: Sequence[Line], models: Sequence[Model]) -> list[float]:
    """Every score that the chart has to hold."""
    values = [y for line in lines for y in line.y] + [model.y for model in models]
    values += [y for line in lines if line.band for y in (*line.band[1], *line.band[2])]
    return values + [line.dot[1] for line in lines if line.dot]


def _score_axis(result: Mapping[str, Any], values: Sequence[float]) -> tuple[list[float], list[str], float, float]:
    """Ticks of the scores, their labels, and the ends of the axis."""
    ticks = _ticks(min(values), max(values))
    unit = 100.0 if result["shares"] else 1.0
    if result["shares"]:
        # no share lies above 100 %; where all are that, the axis begins below it
        ticks = [t for t in ticks if t <= 1.0 + 1e-9] if ticks[1] <= 1.0 + 1e-9 else [2 * ticks[0] - ticks[1], ticks[0]]
    step = (ticks[1] - ticks[0]) * unit
    digits = next((d for d in range(9) if abs(round(step, d) - step) < 1e-9 * step), 9)
    labels = [f"{t * unit + 0.0:.{digits}f}%" if result["shares"] else f"{t + 0.0:,.{digits}f}" for t in ticks]
    return ticks, labels, min(ticks[0], *values), max(ticks[-1], *values)


def _share_axis(result: Mapping[str, Any], scale: _Scale) -> tuple[list[Text], int]:
    """The axis of the shares, with what 1,000 calls cost at them where prices are known; and the chart's height."""
    at = [0.0, 0.25, 0.5, 0.75, 1.0]
    middle = (scale.left + _WIDTH - _RIGHT) / 2
    texts = [_text(scale.x(tick), _TOP + _PLOT + 22, f"{tick:.0%}") for tick in at]
    height = _TOP + _PLOT + 46
    texts.append(_text(middle, height - 4, SHARE_LABEL))
    costs = cost_at(result, at)
    if costs:
        every = 1 if max(map(len, costs)) <= 7 else 2
        for share, cost in list(zip(at, costs, strict=True))[::every]:
            inside = _WIDTH - 0.3 * _TYPE * len(cost)  # half of a long number would stick out on the right
            texts.append(_text(min(scale.x(share), inside), height + 22, cost))
        height += 46
        texts.append(_text(middle, height - 4, cost_label(result)))
    return texts, height


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that span the values."""
    span = (high - low) or max(abs(high), 1.0) * 0.1
    raw = span / 5.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]
