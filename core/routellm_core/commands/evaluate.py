"""`routellm evaluate`: routers on benchmarks or on outcomes of your own; table, JSON, figures and one HTML page."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.commands.progress import progress_bar
from routellm_core.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from routellm_core.evaluation.benchmarks import Benchmark
    from routellm_core.routers.base import Router

_BATCH = 512


def evaluate(
    router: Annotated[
        list[str] | None,
        typer.Option("--router", "-r", help="Router: a name or a directory; may be given again.", show_default="mf"),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="mmlu, gsm8k or mt-bench; may be given again. Needs --data."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Tidy JSON lines, a folder of them, or a checkout of lm-sys/RouteLLM.")
    ] = None,
    outcomes: Annotated[
        list[Path] | None,
        typer.Option(
            "--outcomes",
            "-o",
            help='Your own results, "prompt" and "scores" {model: number}: .jsonl, .csv or .parquet.',
        ),
    ] = None,
    strong: Annotated[str | None, typer.Option(help="Strong model, as the data names it.")] = None,
    weak: Annotated[str | None, typer.Option(help="Weak model, as the data names it.")] = None,
    split: Annotated[str, typer.Option(help="Rows of a benchmark: test, gold or all.")] = "test",
    strong_price: Annotated[float | None, typer.Option(help="Money per million tokens of the strong model.")] = None,
    weak_price: Annotated[float | None, typer.Option(help="Money per million tokens of the weak model.")] = None,
    tokens: Annotated[float, typer.Option(help="Mean tokens of a call, with the prices.")] = 1000.0,
    price: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=NUMBER: price of a further model of the outcomes, an alternative for the verdict."),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for results.json, report.html and the figures (made when needed).")
    ] = Path("evaluation"),
    draws: Annotated[int, typer.Option(help="Bootstrap draws.", min=10)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, for a program.")] = False,
) -> None:
    """Measure routers where the answers' scores are known: PGR, APGR, CPT, cost, and a verdict.

    Example: routellm evaluate --router mf --router random --benchmark mmlu --benchmark gsm8k --data RouteLLM/

    Example: routellm evaluate --outcomes results.jsonl --strong-price 10 --weak-price 0.5
    """
    from routellm_core.evaluation.benchmarks import STRONG, WEAK, load_benchmark, load_outcomes
    from routellm_core.evaluation.plots import save_figures
    from routellm_core.evaluation.report import render_html
    from routellm_core.evaluation.results import evaluate_benchmark
    from routellm_core.evaluation.targets import call_cost

    benchmarks, files = _several(benchmark), outcomes or []
    if not benchmarks and not files:
        raise ConfigurationError("nothing to evaluate on: give --benchmark NAME --data PATH, or --outcomes FILE")
    if benchmarks and data is None:
        raise ConfigurationError(
            f"--benchmark {benchmarks[0]} needs --data: tidy JSON lines or a checkout of lm-sys/RouteLLM"
        )
    if (strong_price is None) != (weak_price is None):
        missing = "--strong-price" if strong_price is None else "--weak-price"
        raise ConfigurationError(f"{missing} is missing: costs need the price per million tokens of both models")
    loaded = [
        load_benchmark(name, data or "", strong=strong or STRONG, weak=weak or WEAK, split=split) for name in benchmarks
    ]
    loaded += [load_outcomes(file, strong=strong, weak=weak) for file in files]
    others = {name: float(call_cost(amount, tokens)) for name, amount in _prices(price or []).items()}
    costs: dict[str, Any] = {}
    if strong_price is not None and weak_price is not None:
        costs = {"strong_cost": call_cost(strong_price, tokens), "weak_cost": call_cost(weak_price, tokens)}
    elif others:
        raise ConfigurationError("--price needs --strong-price and --weak-price beside it")

    unknown = sorted(set(others).difference(*(found.scores for found in loaded)))
    if unknown:
        raise ConfigurationError(
            f"--price {unknown[0]}=...: no outcomes have scores of this model in every row; they have: "
            f"{', '.join(dict.fromkeys(model for found in loaded for model in found.scores))}"
        )

    routers = _routers(_several(router) or ["mf"])
    results = []
    for found in loaded:
        rates = _win_rates(routers, found)
        results.append(evaluate_benchmark(found, rates, **costs, other_costs=others, draws=draws, seed=seed))

    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False)
    (output / "results.json").write_text(text + "\n", encoding="utf-8")
    (output / "report.html").write_text(render_html(results), encoding="utf-8")
    written = f"{output / 'report.html'}, {output / 'results.json'}"
    try:
        save_figures(results, output)
        written += " and the figures beside them"
    except MissingExtraError as exc:
        print(f"routellm: no figures written. {exc}", file=sys.stderr)
    if as_json:
        print(text)
    else:
        _print(results, written)


def _several(values: Sequence[str] | None) -> list[str]:
    """Options given again or with commas, each once, in order."""
    return list(dict.fromkeys(part.strip() for value in values or [] for part in value.split(",") if part.strip()))


def _prices(values: Sequence[str]) -> dict[str, float]:
    out = {}
    for value in values:
        model, sep, amount = value.rpartition("=")
        try:
            out[model] = float(amount)
        except ValueError:
            sep = ""
        if not sep or not model:
            raise ConfigurationError(f"--price {value!r}: expected MODEL=NUMBER, such as gpt-4o=2.5")
    return out


def _routers(specs: Sequence[str]) -> dict[str, Router]:
    """Routers under names that tell them apart: the router's own, else that of its directory."""
    from routellm_core.routers import load_router

    loaded = [(spec, load_router(spec)) for spec in specs]
    names = [r.name for _, r in loaded]
    out: dict[str, Router] = {}
    for spec, found in loaded:
        name = found.name if names.count(found.name) == 1 else f"{found.name} ({Path(spec).name})"
        out[name if name not in out else f"{found.name} ({spec})"] = found
    return out


def _win_rates(routers: Mapping[str, Router], benchmark: Benchmark) -> dict[str, npt.NDArray[np.float64]]:
    import numpy as np

    prompts = benchmark.prompts
    out = {}
    for name, router in routers.items():
        with progress_bar(f"{name} on {benchmark.name}", len(prompts)) as advance:
            parts = []
            for start in range(0, len(prompts), _BATCH):
                batch = prompts[start : start + _BATCH]
                parts.append(router.win_rates(batch))
                advance(len(batch))
        out[name] = np.concatenate(parts)
    return out


def _print(results: Sequence[Mapping[str, Any]], written: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from routellm_core.evaluation.results import HEADER, table_rows

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)  # a pipe has no width; wrapped tables are no use in it
    for result in results:
        title = (
            f"{result['title']}: {result['strong']} {result['strong_quality']:.3f}, "
            f"{result['weak']} {result['weak_quality']:.3f}"
        )
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
        table.add_column(HEADER[0])
        for name in HEADER[1:]:
            table.add_column(name, justify="right")
        for i, row in enumerate(table_rows(result)):
            style = "bold" if i < len(result["routers"]) else "dim" if row[0].startswith("paper: ") else ""
            table.add_row(*(Text(cell, style) for cell in row))
        console.print(table)
        for c in result["comparisons"]:
            d = c["difference"]
            span = f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
            console.print(Text(f"APGR, {c['first']} minus {c['second']}, paired: {span}"))
        for router in result["routers"]:
            console.print(Text(f"{router['name']}: {router['verdict']['sentence']}"), soft_wrap=not console.is_terminal)
            for note in dict.fromkeys((*router["notes"], *router["verdict"]["notes"])):
                console.print(Text(f"note: {note}", "yellow"))
        console.print()
    console.print(Text(f"written: {written}"))
