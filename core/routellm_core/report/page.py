"""The evaluation as one self-contained HTML page: verdict, curves, tables and thresholds, readable on a phone.

It asks nothing of the network: styles and curves are inline.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from routellm_core.report.figures import SHARE_LABEL, Line, chart_lines, chart_models, cost_at
from routellm_core.report.results import (
    COST_LABEL,
    HEADER,
    PAPER,
    alternatives,
    alternatives_header,
    best_router,
    cost_texts,
    gap_text,
    gap_unit,
    notes_of,
    score_text,
    table_rows,
    threshold_cost,
    unpriced_models,
    use_text,
    with_gap_unit,
)
from routellm_core.statistics.intervals import number_text


def render_html(results: Sequence[Mapping[str, Any]], *, title: str = "Router evaluation") -> str:
    """One self-contained page: verdict, curves, table and thresholds of each benchmark.

    Args:
        results: What `evaluate_benchmark` gave, or the same read back from JSON.
        title: Heading of the page.
    """
    sections = "\n".join(_section(result, i) for i, result in enumerate(results))
    summary = _summary(results) if sum(len(result["routers"]) for result in results) > 1 else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1>{summary}{sections}{_FOOT}</main></body></html>\n"
    )


def _summary(results: Sequence[Mapping[str, Any]]) -> str:
    """One line for each router on each benchmark, so that the answer stands first however long the page is."""
    names = ("router", "routing", "over a static mix", "strong calls", "threshold")
    body = []
    for i, result in enumerate(results):
        link = f'<a href="#b{i}">{html.escape(result["title"])}</a>'
        body.append(f'<tr class="group"><th scope="colgroup" colspan="{len(names)}">{link}</th></tr>')
        for j, router in enumerate(result["routers"]):
            found = router["verdict"]
            gain, kind = found["gain"], _kind(found)
            word = {"gains": "gains", "loses": "loses", "no": "do not", "undecided": "not known"}[kind]
            best = ' class="ours"' if j == best_router(result) and kind == "gains" else ""
            spread = f"{gap_text(result, gain['low'])} – {gap_text(result, gain['high'])}"
            over = f"{gap_text(result, gain['value'])} {gap_unit(result)}"
            body.append(
                f'<tr{best}><th scope="row">{html.escape(router["name"])}</th><td><b class="{kind}">{word}</b></td>'
                f"<td>{over}<small>{spread}</small></td>"
                f"<td>{found['strong_fraction']['value']:.0%}</td><td>{number_text(found['threshold'])}</td></tr>"
            )
    return f'<h2 class="first">In short</h2>{_wide("summary", names, body)}'


def _section(result: Mapping[str, Any], index: int) -> str:
    routers = result["routers"]
    told = [notes_of(r) for r in routers]
    common = [note for note in told[0] if all(note in notes for notes in told)] if told else []
    parts = [
        f'<section id="b{index}"><h2>{html.escape(result["title"])}</h2>',
        _facts(result),
        *(
            _verdict_box(result, r, [n for n in notes if n not in common])
            for r, notes in zip(routers, told, strict=True)
        ),
        _notes(common),
        _chart(result),
        _metric_table(result),
        _comparison_list(result),
        *(_threshold_table(result, r) for r in routers if _kind(r["verdict"]) != "no"),
        "</section>",
    ]
    return "\n".join(p for p in parts if p)


def _facts(result: Mapping[str, Any]) -> str:
    """The models with what is known of them, and what was left out."""
    items = []
    priced = [m for m in result["models"] if m["cost"] is not None]
    costs = dict(zip((m["name"] for m in priced), cost_texts([1000 * m["cost"] for m in priced]), strict=True))
    for model in result["models"]:
        if model["role"] == "other" and model["name"] not in costs:
            continue
        cost = f", {costs[model['name']]} for 1,000 calls" if model["name"] in costs else ""
        role = "" if model["role"] == "other" else f"{model['role']}: "
        score = f"mean score {score_text(result, model['quality'])}"
        items.append(f"{role}<b>{html.escape(model['name'])}</b>, {score}{cost}")
    if unpriced := unpriced_models(result):
        listed = ", ".join(unpriced[:4]) + (", ..." if len(unpriced) > 4 else "")
        items.append(
            f"not compared with, for want of a price ({html.escape('--price MODEL=NUMBER')}): {html.escape(listed)}"
        )
    if result["contaminated_left_out"]:
        items.append(f"{result['contaminated_left_out']} contaminated prompts left out")
    return f'<ul class="facts">{"".join(f"<li>{item}</li>" for item in items)}</ul>'


def _kind(found: Mapping[str, Any]) -> str:
    """ "gains", "loses", "undecided", or "no": the answer is a single model, whatever the router."""
    return "no" if found["instead"] is not None else str(found["outcome"])


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)


def _verdict_box(result: Mapping[str, Any], router: Mapping[str, Any], notes: Sequence[str]) -> str:
    found, single = router["verdict"], len(result["routers"]) == 1
    lead, colon, rest = found["sentence"].partition(":")
    name = "" if single else f'<p class="tag">{html.escape(router["name"])}</p>'
    use = ""
    if call := use_text(router):
        cost = threshold_cost(result, router)
        use = f'<p class="use">To use it: <code>{html.escape(call)}</code>{f"; {cost}" if cost else ""}</p>'
    return (
        f'<div class="verdict {_kind(found)}">{name}<p><b>{html.escape(lead)}</b>{html.escape(colon + rest)}</p>'
        f"{use}{_notes(notes)}</div>{_alternatives(result, router, opened=single)}"
    )


def _alternatives(result: Mapping[str, Any], router: Mapping[str, Any], *, opened: bool) -> str:
    """The routed policy beside the single models and the static mix of the same cost."""
    body = []
    for name, score, cost, (gap, low, high) in alternatives(result, router):
        spread = f"<small>{low} – {high}</small>" if low else ""
        kind = "" if gap else ' class="ours"'
        data = f"<td>{score}</td><td>{cost}</td><td>{gap}{spread}</td>"
        body.append(f'<tr{kind}><th scope="row">{html.escape(name)}</th>{data}</tr>')
    label = f"what it is compared with: {router['name']}, {result['title']}"
    table = _wide(label, alternatives_header(result), body)
    return (
        f"<details{' open' if opened else ''}><summary>Compared with</summary>{table}"
        '<p class="hint">Measured on prompts that the thresholds were not chosen on.</p></details>'
    )


def _metric_table(result: Mapping[str, Any]) -> str:
    if all(router["metrics"]["apgr"]["value"] is None for router in result["routers"]):
        return ""  # no gap between the models: nothing but dashes
    ours = len(result["routers"])
    body: list[str] = []
    for i, row in enumerate(table_rows(result)):
        published = row[0].startswith(PAPER)
        if published and not any("group" in line for line in body):
            body.append(
                f'<tr class="group"><th scope="colgroup" colspan="{len(HEADER)}">published, arXiv 2406.18665</th></tr>'
            )
        cells = []
        for cell in row[1:]:
            value, _, rest = cell.partition(" [")
            spread = f"<small>{html.escape(rest.rstrip(']').replace(', ', ' – '))}</small>" if rest else ""
            cells.append(f"<td>{html.escape(value)}{spread}</td>")
        kind = "ours" if i < ours else "paper" if published else "base"
        name = html.escape(row[0].removeprefix(PAPER))
        body.append(f'<tr class="{kind}"><th scope="row">{name}</th>{"".join(cells)}</tr>')
    below = f"Below each value its {100 * result['confidence']:g}% interval; for random routing, the range of guesses."
    if result["published"]:
        below += " The published results are of other routers and embeddings, on all rows of the benchmark."
    table = _wide(f"metrics: {result['title']}", HEADER, body)
    return f'<h3>Metrics</h3>{table}<p class="hint">{below}</p>'


def _wide(label: str, names: Sequence[str], body: Sequence[str]) -> str:
    """A table that a narrow screen scrolls sideways on its own, without the page."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    return (
        f'<div class="wide" role="region" aria-label="{html.escape(label)}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _comparison_list(result: Mapping[str, Any]) -> str:
    if not result["comparisons"]:
        return ""
    best = result["routers"][best_router(result)]["name"]
    first: list[str] = []
    rest: list[str] = []
    for c in result["comparisons"]:
        d = c["difference"]
        told = "" if d["low"] > 0 or d["high"] < 0 else ": cannot be told apart"
        values = f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]".replace("-", "−")
        item = f"<li>{html.escape(c['first'])} − {html.escape(c['second'])}: {values}{told}</li>"
        (first if best in (c["first"], c["second"]) else rest).append(item)
    more = ""
    if rest:
        more = f'<details><summary>{len(rest)} more</summary><ul class="plain">{"".join(rest)}</ul></details>'
    many = '<p class="hint">With so many comparisons some stand out by chance.</p>' if len(rest) > 2 else ""
    return f'<h3>Difference in APGR, paired</h3><ul class="plain">{"".join(first)}</ul>{more}{many}'


def _threshold_table(result: Mapping[str, Any], router: Mapping[str, Any]) -> str:
    found = router["verdict"]
    weak = {"quality": result["weak_quality"], "cost": result["models"][1]["cost"], "pgr": 0.0}
    strong = {"quality": result["strong_quality"], "cost": result["models"][0]["cost"], "pgr": 1.0}
    rows: list[Mapping[str, Any]] = [weak, *router["thresholds"], strong]
    spent = cost_texts([1000 * row["cost"] for row in rows]) if result["priced"] else [""] * len(rows)
    gap = result["strong_quality"] > result["weak_quality"]
    body = []
    for row, cost in zip(rows, spent, strict=True):
        if "threshold" in row:
            kind = "ours" if row["threshold"] == found["threshold"] else ""
            name, at = number_text(row["threshold"]), row["strong_fraction"]
            share = f"{at['value']:.1%}<small>{at['low']:.1%} – {at['high']:.1%}</small>"
            over = gap_text(result, row["over_mix"])
        else:
            kind, over = "base", ""
            name, share = ("always weak", "0%") if row is weak else ("always strong", "100%")
        recovered = f"{row['pgr']:.0%}" if gap and row["pgr"] is not None else "–"
        cells = [share, score_text(result, row["quality"]), over, recovered, *([cost] if cost else [])]
        data = "".join(f"<td>{cell}</td>" for cell in cells)
        body.append(f'<tr class="{kind}"><th scope="row">{name}</th>{data}</tr>')
    names = ["threshold", "strong calls", "mean score", with_gap_unit(result, "over a static mix"), "PGR"]
    names += [COST_LABEL] if result["priced"] else []
    gains = found["outcome"] == "gains"
    opened = " open" if gains and router is result["routers"][best_router(result)] else ""
    hint = "Sending the same share of calls to the strong model at random saves as much. "
    if gains:
        hint = "In bold the threshold of the verdict. Scores here are of the prompts that it was chosen on. "
    table = _wide(f"thresholds: {router['name']}, {result['title']}", names, body)
    return (
        f"<details{opened}><summary><h3>Thresholds: {html.escape(router['name'])}</h3></summary>{table}"
        f'<p class="hint">{hint}Shares are of prompts like these; for other traffic calibrate first: '
        "<code>routellm calibrate --prompts FILE</code>.</p></details>"
    )


# The figure is drawn 480 units wide; its margins hold the larger type that a phone gives it.
_WIDTH, _PLOT, _RIGHT, _TOP = 480, 290, 26, 30
_TYPE = 17
_PATHS = {
    "o": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z",
    "s": "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "^": "M0,-5.5L5.5,4.5H-5.5Z",
    "D": "M0,-6L6,0L0,6L-6,0Z",
    "v": "M0,5.5L5.5,-4.5H-5.5Z",
    "P": "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
}


def _chart(result: Mapping[str, Any]) -> str:
    lines = chart_lines(result)
    if not lines:
        return ""
    models = chart_models(result, lines)
    values = [y for line in lines for y in line.y] + [y for _, _, y, _ in models]
    values += [y for line in lines if line.band for y in (*line.band[1], *line.band[2])]
    values += [line.dot[1] for line in lines if line.dot]
    ticks = _ticks(min(values), max(values))
    if result["shares"]:
        # no share lies above 100 %; where all are that, the axis begins below it
        ticks = [t for t in ticks if t <= 1.0 + 1e-9] if ticks[1] <= 1.0 + 1e-9 else [2 * ticks[0] - ticks[1], ticks[0]]
    low, high = min(ticks[0], min(values)), max(ticks[-1], max(values))
    step = (ticks[1] - ticks[0]) * (100.0 if result["shares"] else 1.0)
    digits = next((d for d in range(9) if abs(round(step, d) - step) < 1e-9 * step), 9)
    labels = [f"{t * 100 + 0.0:.{digits}f}%" if result["shares"] else f"{t + 0.0:,.{digits}f}" for t in ticks]
    left = 12 + round(0.6 * _TYPE * max(map(len, labels)))
    bottom = _TOP + _PLOT

    def x_of(value: float) -> float:
        return left + value * (_WIDTH - left - _RIGHT)

    def y_of(value: float) -> float:
        return float(_TOP + (high - value) / ((high - low) or 1.0) * _PLOT)

    def path(xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in zip(xs, ys, strict=True))

    def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'

    out = [text(0, 16, "mean score", "start")]
    for tick, label in zip(ticks, labels, strict=True):
        y = y_of(tick)
        out.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(text(left - 6, y + 5, label, "end"))
    at = [0.0, 0.25, 0.5, 0.75, 1.0]
    out += [text(x_of(tick), bottom + 22, f"{tick:.0%}") for tick in at]
    height = bottom + 46
    out.append(text((left + _WIDTH - _RIGHT) / 2, height - 4, SHARE_LABEL))
    costs = cost_at(result, at)
    if costs:
        every = 1 if max(map(len, costs)) <= 7 else 2
        out += [text(x_of(x), height + 22, cost) for x, cost in list(zip(at, costs, strict=True))[::every]]
        height += 46
        out.append(text((left + _WIDTH - _RIGHT) / 2, height - 4, COST_LABEL))
    for line in lines:
        if line.band is not None:
            xs, lows, highs = line.band
            corners = path([*xs, *reversed(xs)], [*lows, *reversed(highs)])
            out.append(f'<polygon points="{corners}" fill="{line.color}" opacity="0.16"/>')
    for line in reversed(lines):  # routers last, on top
        width = 2.6 if line.main else 1.6
        out.append(
            f'<polyline points="{path(line.x, line.y)}" fill="none" stroke="{line.color}" '
            f'stroke-width="{width}"{_dash(line)}/>'
        )
    for name, share, quality, above in models:
        x, y = x_of(share), y_of(quality)
        out.append(f'<path class="model" d="M{x - 5:.1f},{y - 5:.1f}l10,10m0,-10l-10,10"/>')
        right = share > 0.6
        out.append(text(x + (-9 if right else 9), y + (-8 if above else 18), name[:32], "end" if right else "start"))
    for line in lines:
        if line.dot is not None:
            out.append(_dot(line, x_of(line.dot[0]), y_of(line.dot[1])))
    label = html.escape(f"Mean score against the {SHARE_LABEL} on {result['title']}")
    box = f'class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}"'
    banded = [line.name for line in lines if line.band is not None]
    of = f" of {html.escape(banded[0])}" if len(banded) < len(result["routers"]) else ""
    baseline = html.escape(lines[len(result["routers"])].name)
    return (
        f"<figure><figcaption>Mean score against the {SHARE_LABEL}. Above the line of {baseline}, routing by prompt "
        f"pays; the band{of} is the {100 * result['confidence']:g}% interval of the gain over a mix of the two models. "
        "The marked point is the verdict's measurement, on prompts that its thresholds were not chosen on, so it may "
        "lie off the curve.</figcaption>"
        f'<svg {box}>{"".join(out)}</svg><ul class="legend">{"".join(map(_legend, lines))}</ul></figure>'
    )


def _legend(line: Line) -> str:
    stroke = f'stroke="{line.color}" stroke-width="{3 if line.main else 2}"{_dash(line)}'
    dot = _dot(line, 17, 8) if line.dot is not None else ""
    return (
        f'<li><svg class="key" width="34" height="16" aria-hidden="true"><line x1="1" x2="33" y1="8" y2="8" {stroke}/>'
        f"{dot}</svg>{html.escape(line.name)}</li>"
    )


def _dash(line: Line) -> str:
    return f' stroke-dasharray="{" ".join(map(str, line.dash))}"' if line.dash else ""


def _dot(line: Line, x: float, y: float) -> str:
    return f'<path class="dot" transform="translate({x:.1f},{y:.1f})" stroke="{line.color}" d="{_PATHS[line.marker]}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that span the values."""
    span = (high - low) or max(abs(high), 1.0) * 0.1
    raw = span / 5.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


_FOOT = """<footer><h2>How to read this</h2><dl>
<dt>Strong calls, threshold</dt><dd>A prompt goes to the strong model when the router's win rate for it is at or above
the threshold; the share of prompts for which it is, is the share of strong calls.</dd>
<dt>Static mix</dt><dd>Sending calls to the models at random in fixed shares, whatever the prompt. The best such mix of
the same cost is what a router has to beat: being cheaper than always strong is no achievement.</dd>
<dt>PGR, APGR</dt><dd>Performance gap recovered: 0% scores like always weak, 100% like always strong; more and less are
possible. APGR is its average over the share of strong calls. Random routing has 0.5.</dd>
<dt>CPT(50%), CPT(80%)</dt><dd>The smallest share of strong calls at which that much of the gap is recovered. Less is
better; random routing needs 50% and 80%.</dd>
<dt>Saving at CPT(50%)</dt><dd>How many times more strong calls random routing needs to recover half of the gap.</dd>
<dt>Random routing, prompt length, oracle</dt><dd>Guessing; sending the longest prompts to the strong model; knowing
beforehand which prompts gain most. A router that is worth its place lies above the first two.</dd>
<dt>Verdict</dt><dd>Measured against the static mix, on prompts that the threshold was not chosen on. A saving is stated
only where its whole interval is above none.</dd></dl></footer>"""

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
h2{font-size:1.2rem;margin:2rem 0 .25rem;line-height:1.3;overflow-wrap:anywhere}h2.first{margin-top:1rem}
h3{font-size:1rem;margin:1.75rem 0 .5rem}
section{border-top:1px solid var(--rule);margin-top:2rem}
h1+section{border-top:0;margin-top:0}
a{color:inherit}
.facts,.hint,.note,figcaption{color:var(--soft);font-size:.875rem;margin:.25rem 0}
.facts{list-style:none;padding:0}.facts b{font-weight:600;overflow-wrap:anywhere}
.verdict{border-left:4px solid var(--open);background:var(--box);padding:.6rem .9rem;margin:.9rem 0}
.verdict p{margin:0}.verdict .tag{font-weight:600;font-size:.875rem;color:var(--soft)}.verdict b{color:var(--open)}
.verdict p,.verdict .tag{overflow-wrap:anywhere}.verdict .use,.verdict .note{margin-top:.4rem;font-size:.875rem}
.verdict.gains{border-color:var(--good)}.verdict.gains b,b.gains{color:var(--good)}
.verdict.loses,.verdict.no{border-color:var(--bad)}.verdict.loses b,.verdict.no b,b.loses,b.no{color:var(--bad)}
b.undecided{color:var(--open)}
figure{margin:1.25rem 0 0}
.chart{display:block;width:100%;height:auto;margin-top:.5rem}
.chart text{font-size:12px;fill:var(--soft)}.chart .dot,.key .dot{fill:var(--bg);stroke-width:2.5}
.chart .model{stroke:var(--fg);stroke-width:2;fill:none}
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
summary{cursor:pointer;margin-top:1rem;font-size:.875rem;color:var(--soft)}
summary h3{display:inline;margin:0;color:var(--fg)}summary+.wide{margin-top:.5rem}
ul.plain{padding-left:1.1rem;margin:.25rem 0}
code{font-size:.9em;overflow-wrap:anywhere}
footer{margin-top:2.5rem;border-top:1px solid var(--rule);font-size:.875rem}
dt{font-weight:600;margin-top:.6rem}dd{margin:0;color:var(--soft)}
@media(max-width:30rem){.chart text{font-size:17px}th,td{padding:.35rem .25rem}table{font-size:.8125rem}
td small{font-size:.6875rem;white-space:normal}
th:first-child{min-width:4.6rem;overflow-wrap:anywhere}}
@media print{details::details-content{content-visibility:visible}summary{list-style:none}
.verdict,figure,tr,dt{break-inside:avoid}dt,h2,h3,summary{break-after:avoid}}
"""
