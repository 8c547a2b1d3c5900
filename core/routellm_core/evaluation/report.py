"""Results of an evaluation as one dict of JSON values, and as a self-contained HTML page, figures, and table rows.

The page is drawn from the dict alone, so a report can be drawn again from the saved JSON. It asks nothing of the
network: styles and curves are inline.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.calibration import Calibration
from routellm_core.errors import MissingExtraError
from routellm_core.evaluation.benchmarks import PUBLISHED, Benchmark
from routellm_core.evaluation.intervals import compare_routers, curve_band
from routellm_core.evaluation.metrics import prompt_length
from routellm_core.evaluation.router_evaluation import evaluate_router
from routellm_core.evaluation.targets import share_interval
from routellm_core.evaluation.verdict import verdict

FORMAT = 1
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PAPER = "paper: "
_BASELINES = {"random": "random routing", "prompt_length": "prompt length", "oracle": "oracle"}
# After Okabe and Ito: told apart by every kind of colour vision; the blue is lightened, to stand on black too.
_COLORS = ("#0f7fc4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def evaluate_benchmark(
    benchmark: Benchmark,
    win_rates: Mapping[str, npt.ArrayLike],
    *,
    strong_cost: npt.ArrayLike | None = None,
    weak_cost: npt.ArrayLike | None = None,
    other_costs: Mapping[str, float] | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate routers on one benchmark: everything that the table, the figure and the page show.

    Args:
        benchmark: The prompts with their scores.
        win_rates: Name of each router -> its win rates (n,) of the prompts.
        strong_cost: Mean cost of a call of the strong model, or (n,); None counts strong calls alone.
        weak_cost: The same of the weak model.
        other_costs: Costs of further models of the benchmark, which then stand as alternatives in the verdict.
        draws: Bootstrap draws.
        confidence: Level of the intervals.
        seed: Seed of the draws.

    Returns:
        JSON values; the key ``"format"`` names the version of this form.

    Raises:
        DataError: Malformed win rates or costs.
        ConfigurationError: The strong model is not dearer than the weak one.
    """
    strong, weak = benchmark.strong_scores, benchmark.weak_scores
    priced = strong_cost is not None and weak_cost is not None
    costs: dict[str, Any] = {"strong_cost": strong_cost, "weak_cost": weak_cost} if priced else {}
    others = {m: (benchmark.scores[m], cost) for m, cost in (other_costs or {}).items() if m in benchmark.scores}
    shares = np.linspace(0.0, 1.0, 41)
    routers = []
    for name, rates in win_rates.items():
        found = evaluate_router(
            rates, benchmark.prompts, strong, weak, name=name, draws=draws, confidence=confidence, seed=seed
        )
        judged = verdict(
            rates, strong, weak, **costs, others=others, strong=benchmark.strong, weak=benchmark.weak,
            confidence=confidence, draws=draws, seed=seed,
        )  # fmt: skip
        low, high = curve_band(rates, strong, weak, shares, confidence=confidence, seed=seed)
        line = found.weak_quality + shares * (found.strong_quality - found.weak_quality)
        entry = found.to_dict()
        baselines = entry.pop("baselines")
        entry["band"] = {
            "strong_fraction": shares.tolist(),
            "low": (line + low).tolist(),
            "high": (line + high).tolist(),
        }
        entry["thresholds"] = _threshold_rows(np.asarray(rates, dtype=np.float64), strong, weak, strong_cost, weak_cost)
        entry["verdict"] = judged.to_dict()
        routers.append(entry)
    plain_lengths = {_BASELINES["prompt_length"]: prompt_length(benchmark.prompts)}
    comparisons = []
    if float(strong.mean()) > float(weak.mean()):
        # Each router against those after it, and against the baseline that costs nothing to run.
        for (a, first), (b, second) in combinations({**win_rates, **plain_lengths}.items(), 2):
            c = compare_routers(first, second, strong, weak, draws=draws, confidence=confidence, seed=seed)
            pair = {"first": a, "second": b, "metric": c.metric, "difference": c.difference.to_dict()}
            comparisons.append({**pair, "p_value": c.p_value})
    plain: dict[str, Any] = _plain(
        {
            "format": FORMAT,
            "benchmark": benchmark.name,
            "title": benchmark.title,
            "split": benchmark.split,
            "count": len(benchmark.prompts),
            "contaminated_left_out": benchmark.dropped,
            "strong": benchmark.strong,
            "weak": benchmark.weak,
            "strong_quality": float(strong.mean()),
            "weak_quality": float(weak.mean()),
            "confidence": confidence,
            "draws": draws,
            "priced": priced,
            "routers": routers,
            "baselines": baselines if routers else {},
            "comparisons": comparisons,
            "published": {
                name: {"cpt_50": c50, "cpt_80": c80, "apgr": area}
                for name, (c50, c80, area) in PUBLISHED.get(benchmark.name, {}).items()
            },
        }
    )
    return plain


def _threshold_rows(
    rates: npt.NDArray[np.float64],
    strong: npt.NDArray[np.float64],
    weak: npt.NDArray[np.float64],
    strong_cost: npt.ArrayLike | None,
    weak_cost: npt.ArrayLike | None,
) -> list[dict[str, Any]]:
    """What each of nine shares takes and gives on these prompts."""
    fitted = Calibration.from_win_rates(rates)
    gap = float(strong.mean() - weak.mean())
    rows = []
    for wanted in _SHARES:
        threshold = fitted.threshold(strong_fraction=wanted)
        chosen = rates >= threshold
        quality = float(np.where(chosen, strong, weak).mean())
        row = {
            "wanted": wanted,
            "threshold": threshold,
            "strong_fraction": share_interval(fitted, threshold).to_dict(),
            "quality": quality,
            "pgr": (quality - float(weak.mean())) / gap if gap > 0 else None,
        }
        if strong_cost is not None and weak_cost is not None:
            dear, cheap = np.asarray(strong_cost, dtype=np.float64), np.asarray(weak_cost, dtype=np.float64)
            paid = float(np.where(chosen, dear, cheap).mean())
            row["cost"] = paid
            row["saving_vs_strong"] = 1.0 - paid / float(dear.mean())
        rows.append(row)
    return rows


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the one table, as `HEADER` names its columns; the published results come last."""
    rows: list[tuple[str, ...]] = []
    entries = [(r["name"], r["metrics"]) for r in result["routers"]]
    entries += [(_BASELINES.get(k, k), m) for k, m in result["baselines"].items()]
    for name, metrics in entries:
        rows.append(
            (
                name,
                _interval(metrics["apgr"], "{:.3f}"),
                _interval(metrics["cpt_50"], "{:.1%}"),
                _interval(metrics["cpt_80"], "{:.1%}"),
                _interval(metrics["saving_50"], "{:.2f}×"),
            )
        )
    for name, found in result["published"].items():
        saving = f"{0.5 / found['cpt_50']:.2f}×"
        rows.append(
            (f"paper: {name}", f"{found['apgr']:.3f}", f"{found['cpt_50']:.1%}", f"{found['cpt_80']:.1%}", saving)
        )
    return rows


HEADER = ("router", "APGR", "CPT(50%)", "CPT(80%)", "saving")


def _interval(found: Mapping[str, float | None], form: str) -> str:
    if found["value"] is None:
        return "–"
    text = form.format(found["value"])
    if found["low"] is None or found["high"] is None:
        return text
    return f"{text} [{form.format(found['low'])}, {form.format(found['high'])}]"


def markdown_table(result: Mapping[str, Any]) -> str:
    """`table_rows` as a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in table_rows(result)]
    return "\n".join(lines)


def save_figures(results: Sequence[Mapping[str, Any]], directory: str | Path) -> list[Path]:
    """Draw cost against quality for each benchmark, as PNG and SVG.

    Returns:
        The files written: ``<benchmark>.png`` and ``<benchmark>.svg`` each.

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
    written = []
    for result in results:
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.add_subplot()
        for line in _lines_of(result):
            axes.plot(
                line["x"], line["y"], label=line["name"], color=line["color"], lw=2.2 if line["main"] else 1.4,
                ls="-" if line["main"] else (0, line["dash"]), zorder=3 if line["main"] else 2,
            )  # fmt: skip
            if line["band"] is not None:
                axes.fill_between(*line["band"], color=line["color"], alpha=0.15, lw=0)
            if line["dot"] is not None:
                axes.plot(*line["dot"], "o", ms=7, mfc="white", mec=line["color"], mew=2, zorder=4)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        if _is_share(result):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(f"calls to {result['strong']}")
        axes.set_ylabel("mean score")
        axes.set_title(result["title"], loc="left", fontsize=11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right", fontsize=9)
        for canvas, ending, extra in (
            (FigureCanvasAgg(figure), "png", {"dpi": 150}),
            (FigureCanvasSVG(figure), "svg", {"metadata": {"Date": None}}),
        ):
            target = folder / f"{_slug(result['benchmark'])}.{ending}"
            canvas.print_figure(target, format=ending, **extra)
            written.append(target)
    return written


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-") or "outcomes"


def _is_share(result: Mapping[str, Any]) -> bool:
    """Whether the scores are shares (accuracy), so that a reader wants percent."""
    tops = [max(r["curves"]["oracle"]) for r in result["routers"]] + [result["strong_quality"], result["weak_quality"]]
    return bool(min(result["strong_quality"], result["weak_quality"]) >= 0.0 and max(tops) <= 1.0)


def _lines_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of the figure, routers first, in the order of the legend."""
    lines: list[dict[str, Any]] = []
    for i, router in enumerate(result["routers"]):
        band = router["band"]
        lines.append(
            {
                "name": router["name"],
                "x": router["curves"]["strong_fraction"],
                "y": router["curves"]["router"],
                "color": _COLORS[i % len(_COLORS)],
                "main": True,
                "dash": (),
                "band": (band["strong_fraction"], band["low"], band["high"]),
                "dot": (router["verdict"]["strong_fraction"]["value"], router["verdict"]["quality"]["value"]),
            }
        )
    if result["routers"]:
        curves = result["routers"][0]["curves"]
        ends = [result["weak_quality"], result["strong_quality"]]
        extra: list[tuple[str, Any, Any, tuple[int, ...]]] = [("random routing", [0.0, 1.0], ends, (6, 3))]
        if "prompt_length" in curves:
            extra.append(("prompt length", curves["strong_fraction"], curves["prompt_length"], (2, 2)))
        extra.append(("oracle", curves["strong_fraction"], curves["oracle"], (8, 3, 2, 3)))
        grays = {"random routing": "#767676", "prompt length": "#8a6d3b", "oracle": "#767676"}
        lines += [
            {"name": n, "x": x, "y": y, "color": grays[n], "main": False, "dash": d, "band": None, "dot": None}
            for n, x, y, d in extra
        ]
    return lines


def render_html(results: Sequence[Mapping[str, Any]], *, title: str = "Router evaluation") -> str:
    """One self-contained page: verdict, curves, table and thresholds of each benchmark.

    Args:
        results: What `evaluate_benchmark` gave, or the same read back from JSON.
        title: Heading of the page.
    """
    sections = "\n".join(_section(result, i) for i, result in enumerate(results))
    contents = ""
    if len(results) > 1:
        links = "".join(f'<li><a href="#b{i}">{html.escape(r["title"])}</a></li>' for i, r in enumerate(results))
        contents = f"<nav><ul>{links}</ul></nav>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1>{contents}{sections}{_FOOT}</main></body></html>\n"
    )


def _section(result: Mapping[str, Any], index: int) -> str:
    strong, weak = html.escape(result["strong"]), html.escape(result["weak"])
    left_out = result["contaminated_left_out"]
    facts = [
        f"strong: <b>{strong}</b>, mean score {_score(result, result['strong_quality'])}",
        f"weak: <b>{weak}</b>, mean score {_score(result, result['weak_quality'])}",
        *([f"{left_out} contaminated prompts left out"] if left_out else []),
    ]
    notes = dict.fromkeys(
        note for r in result["routers"] for note in (*r["notes"], *r["verdict"]["notes"])
    )  # each note once, in order
    parts = [
        f'<section id="b{index}"><h2>{html.escape(result["title"])}</h2>',
        f'<p class="facts">{" · ".join(facts)}</p>',
        *(_verdict_box(r, single=len(result["routers"]) == 1) for r in result["routers"]),
        "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes),
        _chart(result),
        _metric_table(result),
        _comparison_list(result),
        *(_threshold_table(result, r) for r in result["routers"]),
        "</section>",
    ]
    return "\n".join(p for p in parts if p)


def _verdict_box(router: Mapping[str, Any], *, single: bool) -> str:
    found = router["verdict"]
    word = {"gains": "Routing gains", "loses": "Routing loses", "undecided": "Routing cannot be"}[found["outcome"]]
    rest = html.escape(found["sentence"].removeprefix(word))
    name = "" if single else f'<p class="tag">{html.escape(router["name"])}</p>'
    return f'<div class="verdict {found["outcome"]}">{name}<p><b>{word}</b>{rest}</p></div>'


def _metric_table(result: Mapping[str, Any]) -> str:
    head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in HEADER)
    ours = len(result["routers"])
    body: list[str] = []
    for i, row in enumerate(table_rows(result)):
        published = row[0].startswith(_PAPER)
        if published and not any("group" in line for line in body):
            body.append(f'<tr class="group"><th colspan="{len(HEADER)}">published, arXiv 2406.18665</th></tr>')
        cells = []
        for cell in row[1:]:
            value, _, rest = cell.partition(" [")
            spread = f"<small>{html.escape(rest.rstrip(']').replace(', ', ' – '))}</small>" if rest else ""
            cells.append(f"<td>{html.escape(value)}{spread}</td>")
        kind = "ours" if i < ours else "paper" if published else "base"
        name = html.escape(row[0].removeprefix(_PAPER))
        body.append(f'<tr class="{kind}"><th scope="row">{name}</th>{"".join(cells)}</tr>')
    below = f"Below each value its {result['confidence']:.0%} interval; for random routing, the range of guesses."
    if result["published"]:
        below += " The published results are of other routers and embeddings, on all rows of the benchmark."
    return f'<h3>Metrics</h3>{_wide(head, body)}<p class="hint">{below}</p>'


def _wide(head: str, body: Sequence[str]) -> str:
    """A table that a narrow screen scrolls sideways on its own, without the page."""
    rows = "".join(body)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _comparison_list(result: Mapping[str, Any]) -> str:
    if not result["comparisons"]:
        return ""
    items = []
    for c in result["comparisons"]:
        d = c["difference"]
        told = "" if d["low"] > 0 or d["high"] < 0 else ": cannot be told apart"
        items.append(
            f"<li>{html.escape(c['first'])} − {html.escape(c['second'])}: {d['value']:+.3f} "
            f"[{d['low']:+.3f}, {d['high']:+.3f}]{told}</li>"
        )
    return f'<h3>Difference in APGR, paired</h3><ul class="plain">{"".join(items)}</ul>'


def _threshold_table(result: Mapping[str, Any], router: Mapping[str, Any]) -> str:
    rows = []
    for row in router["thresholds"]:
        share = row["strong_fraction"]
        recovered = "–" if row["pgr"] is None else f"{row['pgr']:.0%}"
        cost = ""
        if result["priced"]:
            cost = f"<td>{row['cost']:.3g}</td><td>{row['saving_vs_strong']:.0%}</td>"
        rows.append(
            f'<tr><th scope="row">{row["threshold"]:.4f}</th>'
            f"<td>{share['value']:.1%}<small>{share['low']:.1%} – {share['high']:.1%}</small></td>"
            f"<td>{_score(result, row['quality'])}</td><td>{recovered}</td>{cost}</tr>"
        )
    names = ["threshold", "strong calls", "mean score", "PGR"]
    names += ["cost per call", "saved against strong"] if result["priced"] else []
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    opened = " open" if router is result["routers"][0] else ""
    return (
        f"<details{opened}><summary><h3>Thresholds: {html.escape(router['name'])}</h3></summary>{_wide(head, rows)}"
        '<p class="hint">Shares on prompts like these. On your own traffic calibrate first: '
        "<code>routellm calibrate --prompts FILE</code>.</p></details>"
    )


def _score(result: Mapping[str, Any], value: float) -> str:
    return f"{value:.1%}" if _is_share(result) else f"{value:.3f}"


# The figure is drawn 480 units wide, so that its type is still readable when a phone shows it 340 pixels wide.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 350, 50, 24, 14, 46


def _chart(result: Mapping[str, Any]) -> str:
    lines = _lines_of(result)
    if not lines:
        return ""
    values = [y for line in lines for y in line["y"]]
    ticks = _ticks(min(values), max(values))
    low, high = min(ticks[0], min(values)), max(ticks[-1], max(values))

    def x_of(value: float) -> float:
        return _LEFT + value * (_WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        return float(_TOP + (high - value) / ((high - low) or 1.0) * (_HEIGHT - _TOP - _BOTTOM))

    def path(xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in zip(xs, ys, strict=True))

    out = []
    share = _is_share(result)
    step = (ticks[1] - ticks[0]) * (100.0 if share else 1.0)
    digits = next((d for d in range(9) if abs(round(step, d) - step) < 1e-9 * step), 9)
    for tick in ticks:
        y = y_of(tick)
        label = f"{tick * 100:.{digits}f}%" if share else f"{tick:.{digits}f}"
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{y + 4.5:.1f}" text-anchor="end">{label}</text>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(f'<text x="{x_of(tick):.1f}" y="{_HEIGHT - _BOTTOM + 19}" text-anchor="middle">{tick:.0%}</text>')
    out.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">share of strong calls</text>'
    )
    for line in lines:
        if line["band"] is not None:
            xs, lows, highs = line["band"]
            corners = path([*xs, *reversed(xs)], [*lows, *reversed(highs)])
            out.append(f'<polygon points="{corners}" fill="{line["color"]}" opacity="0.16"/>')
    for line in reversed(lines):  # routers last, on top
        dash = "" if line["main"] else f' stroke-dasharray="{" ".join(map(str, line["dash"]))}"'
        width = 2.6 if line["main"] else 1.6
        out.append(
            f'<polyline points="{path(line["x"], line["y"])}" fill="none" stroke="{line["color"]}" '
            f'stroke-width="{width}"{dash}/>'
        )
    for line in lines:
        if line["dot"] is not None:
            x, y = line["dot"]
            out.append(f'<circle class="dot" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="5" stroke="{line["color"]}"/>')
    legend = "".join(
        '<li><svg width="30" height="10" aria-hidden="true"><line x1="1" x2="29" y1="5" y2="5" '
        f'stroke="{line["color"]}" stroke-width="{3 if line["main"] else 2}" '
        f'stroke-dasharray="{" ".join(map(str, line["dash"]))}"/></svg>'
        f"{html.escape(line['name'])}</li>"
        for line in lines
    )
    label = html.escape(f"Mean score against the share of strong calls on {result['title']}")
    box = f'class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}"'
    return (
        "<figure><figcaption>Mean score against the share of strong calls. Above the random line, routing by prompt "
        f"pays; the band is the {result['confidence']:.0%} interval of that gain, the dot the policy of the verdict."
        "</figcaption>"
        f'<svg {box}>{"".join(out)}</svg><ul class="legend">{legend}</ul></figure>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that span the values."""
    span = (high - low) or max(abs(high), 1.0) * 0.1
    raw = span / 5.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _plain(value: Any) -> Any:
    """Numbers as JSON has them: NaN and infinities become None, numpy scalars and tuples plain ones."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_FOOT = """<footer><h2>How to read this</h2><dl>
<dt>APGR</dt><dd>Average performance gap recovered: the area under the curve between always weak (0) and always strong
(1) over the share of strong calls. Random routing has 0.5.</dd>
<dt>CPT(50%)</dt><dd>The smallest share of strong calls at which half of the gap is recovered. Less is better; random
needs 50%.</dd>
<dt>Saving</dt><dd>How many times more strong calls a random mix needs to recover half of the gap.</dd>
<dt>Verdict</dt><dd>Measured against a static mix of the same cost, on prompts that the threshold was not chosen on. A
saving is stated only where its whole interval is above none.</dd></dl></footer>"""

_STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--rule:#d8dee4;--box:#f6f8fa;
--good:#1a7f37;--bad:#b42318;--open:#8a6100}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9aa4af;--rule:#30363d;--box:#161b22;
--good:#4ac26b;--bad:#ff7b72;--open:#d9a62e}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:46rem;margin:0 auto;padding:1rem 1rem 3rem}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0 1rem}
h2{font-size:1.2rem;margin:2rem 0 .25rem;line-height:1.3}
h3{font-size:1rem;margin:1.75rem 0 .5rem}
section{border-top:1px solid var(--rule);margin-top:2rem}
nav+section,h1+section{border-top:0;margin-top:0}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;padding:0;margin:0}
a{color:inherit}
.facts,.hint,.note,figcaption{color:var(--soft);font-size:.875rem;margin:.25rem 0}
.facts b{font-weight:600;overflow-wrap:anywhere}
.verdict{border-left:4px solid var(--open);background:var(--box);padding:.6rem .9rem;margin:.9rem 0}
.verdict p{margin:0}.verdict .tag{font-weight:600;font-size:.875rem;color:var(--soft)}.verdict b{color:var(--open)}
.verdict.gains{border-color:var(--good)}.verdict.gains b{color:var(--good)}
.verdict.loses{border-color:var(--bad)}.verdict.loses b{color:var(--bad)}
figure{margin:1.25rem 0 0}
.chart{display:block;width:100%;max-width:37rem;height:auto;margin-top:.5rem}
.chart text{font-size:13px;fill:var(--soft)}.chart .dot{fill:var(--bg);stroke-width:2.5}
.chart .grid{stroke:var(--rule);stroke-width:1}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;padding:0;margin:.4rem 0 0;font-size:.875rem}
.legend li{display:flex;align-items:center;gap:.4rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.875rem}
th,td{padding:.4rem .5rem;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top;white-space:nowrap}
thead th{font-weight:600;color:var(--soft);vertical-align:bottom;white-space:normal}
th:first-child{text-align:left;font-weight:500;padding-left:0;white-space:normal}
td small{display:block;color:var(--soft);font-size:.75rem}
tr.ours th:first-child,tr.ours td{font-weight:600}tr.ours small{font-weight:400}
tr.paper{color:var(--soft)}tr.group th{color:var(--soft);font-size:.75rem;padding-top:1rem}
summary{cursor:pointer;margin-top:1.5rem}summary h3{display:inline;margin:0}summary+.wide{margin-top:.5rem}
ul.plain{padding-left:1.1rem;margin:.25rem 0}
code{font-size:.9em;overflow-wrap:anywhere}
footer{margin-top:2.5rem;border-top:1px solid var(--rule);font-size:.875rem}
dt{font-weight:600;margin-top:.6rem}dd{margin:0;color:var(--soft)}
@media(max-width:30rem){th,td{padding:.35rem .25rem}table{font-size:.8125rem}
td small{font-size:.6875rem;white-space:normal}
th:first-child{min-width:4.6rem;overflow-wrap:break-word}}
"""
