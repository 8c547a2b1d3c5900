"""The evaluation as one HTML page: verdict, curves, tables and thresholds, readable on a phone.

The page loads nothing: styles and curves are inline. What it shows comes from here and from `results`, how it looks
from the templates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from routellm_core.report.chart import draw
from routellm_core.report.rendering import render
from routellm_core.report.results import (
    HEADER,
    PAPER,
    alternatives,
    alternatives_header,
    bar_text,
    best_router,
    cascade_notes,
    cascade_rows,
    cascade_use,
    cost_label,
    cost_notes,
    cost_texts,
    difference_text,
    gap_text,
    gap_unit,
    is_clear,
    left_out_notes,
    notes_of,
    score_text,
    table_rows,
    threshold_cost,
    unpriced_note,
    use_text,
    with_gap_unit,
)
from routellm_core.statistics.intervals import number_text


class Cell(NamedTuple):
    """A cell of a table on a page.

    Attributes:
        text: What it says.
        below: A second line in small type, such as an interval.
        kind: Class of the style sheet for the text, such as ``"gains"``.
    """

    text: str
    below: str = ""
    kind: str = ""


class Row(NamedTuple):
    """A row of a table on a page.

    Attributes:
        name: Its heading.
        cells: What follows.
        kind: Class of the style sheet: ``"ours"`` for what the table is about, ``"paper"`` for published results,
            ``"prose"`` where the last cell holds sentences, or ``"group"`` for a heading of the rows below it.
        link: Where the name of a group leads.
    """

    name: str
    cells: Sequence[Cell] = ()
    kind: str = ""
    link: str = ""


def render_html(results: Sequence[Mapping[str, Any]], *, title: str = "Router evaluation") -> str:
    """One self-contained page: verdict, curves, table and thresholds of each benchmark.

    Args:
        results: What `evaluate_benchmark` returned, or the same read back from JSON.
        title: Heading of the page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    several = sum(len(result["routers"]) for result in results) > 1
    return render(
        "evaluation.html.jinja",
        title=title,
        about=_about(results),
        summary=_summary(results) if several else None,
        sections=[_section(result, f"b{i}") for i, result in enumerate(results)],
    )


def _summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One line for each router on each benchmark, so that the answer comes first however long the page is."""
    rows = []
    for i, result in enumerate(results):
        rows.append(Row(result["title"], kind="group", link=f"#b{i}"))
        for j, router in enumerate(result["routers"]):
            verdict = router["verdict"]
            kind = _kind(verdict)
            word = {"gains": "gains", "loses": "loses", "no": "do not route", "undecided": "undecided"}[kind]
            low, value, high = (gap_text(result, verdict["gain"][end]) for end in ("low", "value", "high"))
            cells = [
                Cell(word, kind=kind),
                Cell(f"{value} {gap_unit(result)}", f"{low} – {high}"),
                Cell(f"{verdict['strong_fraction']['value']:.0%}"),
                Cell(number_text(verdict["threshold"])),
            ]
            rows.append(Row(router["name"], cells, "ours" if kind == "gains" and j == best_router(result) else ""))
    return {"header": ("router", "verdict", "gain", "strong calls", "threshold"), "rows": rows}


def _section(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One benchmark: the values that the template shows of it."""
    routers = result["routers"]
    notes = [notes_of(router) for router in routers]
    common = [note for note in notes[0] if all(note in of_router for of_router in notes)] if notes else []
    drawing = draw(result)
    banded = [line.name for line in drawing.legend if line.band is not None] if drawing else []
    return {
        "id": name,
        "title": result["title"],
        "models": _models(result),
        "facts": _facts(result),
        "verdicts": [
            _verdict_box(result, router, [note for note in of_router if note not in common])
            for router, of_router in zip(routers, notes, strict=True)
        ],
        "cascades": [_cascade_box(result, router) for router in routers if router.get("cascade") is not None],
        "notes": common,
        "drawing": drawing,
        "baseline": drawing.legend[len(routers)].name if drawing else "",
        "banded": banded[0] if len(banded) < len(routers) else "",
        "level": f"{100 * result['confidence']:g}%",
        "metrics": _metrics(result),
        "published": result["published"],
        "comparisons": _comparisons(result),
        "thresholds": [_thresholds(result, router) for router in routers if _kind(router["verdict"]) != "no"],
    }


def _models(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """The strong and the weak model, and the further ones that have a price."""
    priced = [model for model in result["models"] if model["cost"] is not None]
    costs = dict(zip((m["name"] for m in priced), cost_texts([1000 * m["cost"] for m in priced]), strict=True))
    return [
        {
            "role": "" if model["role"] == "other" else model["role"],
            "name": model["name"],
            "score": score_text(result, model["quality"]),
            "cost": costs.get(model["name"], ""),
        }
        for model in result["models"]
        if model["role"] != "other" or model["name"] in costs
    ]


def _facts(result: Mapping[str, Any]) -> list[str]:
    """What the costs rest on, and what was left out of the evaluation."""
    return list(filter(None, (*cost_notes(result), unpriced_note(result), *left_out_notes(result))))


def _about(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """When and how the evaluation was made, and what each router was trained on."""
    about: Mapping[str, Any] = results[0]["about"] if results else {}
    lines = [("Date", about.get("date", "")), ("Command", about.get("command", ""))]
    lines += [(f"Router {name}", words) for name, words in about.get("trained_on", {}).items()]
    return [line for line in lines if line[1]]


def _kind(verdict: Mapping[str, Any]) -> str:
    """``"gains"``, ``"loses"``, ``"undecided"``, or ``"no"``: the answer is a single model, whatever the router."""
    return "no" if verdict["instead"] is not None else str(verdict["outcome"])


def _verdict_box(result: Mapping[str, Any], router: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """The verdict on one router, and the table of what it was compared with."""
    verdict, single = router["verdict"], len(result["routers"]) == 1
    lead, colon, rest = verdict["sentence"].partition(":")
    use = use_text(router)
    return {
        "kind": _kind(verdict),
        "router": "" if single else router["name"],
        "lead": lead,
        "rest": colon + rest,
        "use": use,
        "cost": threshold_cost(result, router) if use else "",
        "notes": notes,
        "open": single,
        "unseen": router["unseen"],
        "label": f"compared with: {router['name']}, {result['title']}",
        "header": alternatives_header(result),
        "rows": [
            Row(name, [Cell(score), Cell(cost), Cell(gap, f"{low} – {high}" if low else "")], "" if gap else "ours")
            for name, score, cost, (gap, low, high) in alternatives(result, router)
        ],
    }


def _cascade_box(result: Mapping[str, Any], router: Mapping[str, Any]) -> dict[str, Any]:
    """Whether checking weak answers pays with one router, and what that rests on."""
    found = router["cascade"]
    lead, colon, rest = found["sentence"].partition(":")
    return {
        "kind": {"pays": "gains", "does_not_pay": "loses"}.get(found["outcome"], "undecided"),
        "router": "" if len(result["routers"]) == 1 else router["name"],
        "lead": lead,
        "rest": colon + rest,
        "use": cascade_use(router),
        "notes": cascade_notes(result, router),
        "label": f"cascade: {router['name']}, {result['title']}",
        "header": ("cascade", ""),
        "rows": [Row(name, [Cell(text)]) for name, text in cascade_rows(result, router)],
    }


def _metrics(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The table of metrics: the routers, the baselines, and below a heading of their own the published results."""
    if all(router["metrics"]["apgr"]["value"] is None for router in result["routers"]):
        return None  # no gap between the models: nothing but dashes
    rows = [
        Row(name.removeprefix(PAPER), [_estimate(cell) for cell in cells], "paper" if name.startswith(PAPER) else "")
        for name, *cells in table_rows(result)
    ]
    ours = len(result["routers"])
    rows[:ours] = [row._replace(kind="ours") for row in rows[:ours]]
    if result["published"]:
        rows.insert(len(rows) - len(result["published"]), Row("published, arXiv 2406.18665", kind="group"))
    return {"header": HEADER, "rows": rows}


def _estimate(text: str) -> Cell:
    """A value with its interval below it."""
    value, _, interval = text.partition(" [")
    return Cell(value, interval.rstrip("]").replace(", ", " – "))


def _comparisons(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The paired comparisons: those with the best router, and the others."""
    if not result["comparisons"]:
        return None
    best = result["routers"][best_router(result)]["name"]
    first: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for comparison in result["comparisons"]:
        names = comparison["first"], comparison["second"]
        difference = difference_text(comparison["difference"]).replace("-", "−")
        shown = {"first": names[0], "second": names[1], "difference": difference, "undecided": not is_clear(comparison)}
        (first if best in names else rest).append(shown)
    return {"first": first, "rest": rest}


def _thresholds(result: Mapping[str, Any], router: Mapping[str, Any]) -> dict[str, Any]:
    """The table of thresholds to choose from, between always weak and always strong."""
    gains = router["verdict"]["outcome"] == "gains"
    over_mix = with_gap_unit(result, f"over {bar_text(result)}")
    return {
        "router": router["name"],
        "label": f"thresholds: {router['name']}, {result['title']}",
        "open": gains and router is result["routers"][best_router(result)],
        "gains": gains,
        "header": ["threshold", "strong calls", "mean score", over_mix, "PGR"]
        + [cost_label(result)] * result["priced"],
        "rows": list(_threshold_rows(result, router)),
    }


def _threshold_rows(result: Mapping[str, Any], router: Mapping[str, Any]) -> Iterator[Row]:
    strong, weak = result["models"][:2]
    rows = [
        ("always weak", {"share": "0%", "pgr": 0.0, "quality": result["weak_quality"], "cost": weak["cost"]}),
        *((number_text(row["threshold"]), row) for row in router["thresholds"]),
        ("always strong", {"share": "100%", "pgr": 1.0, "quality": result["strong_quality"], "cost": strong["cost"]}),
    ]
    costs = cost_texts([1000 * row["cost"] for _, row in rows]) if result["priced"] else None
    gap = result["strong_quality"] > result["weak_quality"]
    for i, (name, row) in enumerate(rows):
        share, over, kind = Cell(row.get("share", "")), "", ""
        if "threshold" in row:
            at = row["strong_fraction"]
            share = Cell(f"{at['value']:.1%}", f"{at['low']:.1%} – {at['high']:.1%}")
            over = gap_text(result, row["over_mix"])
            kind = "ours" if row["threshold"] == router["verdict"]["threshold"] else ""
        recovered = f"{row['pgr']:.0%}" if gap and row["pgr"] is not None else "–"
        cells = [share, Cell(score_text(result, row["quality"])), Cell(over), Cell(recovered)]
        yield Row(name, cells + ([Cell(costs[i])] if costs else []), kind)
