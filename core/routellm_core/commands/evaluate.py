"""`routellm evaluate`: routers on benchmarks or on outcomes of your own; table, JSON, figures and one HTML page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.checks import same_file
from routellm_core.commands.progress import progress_bar
from routellm_core.commands.records import SkipBad, told_bad
from routellm_core.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from routellm_core.evaluation.benchmarks import Benchmark
    from routellm_core.routers.base import Router

_BATCH = 512
_RESULTS, _REPORT = "results.json", "report.html"


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
            help='Your own results, "prompt" and "scores" {model: number}: JSON lines, JSON, CSV (with columns prompt, '
            "scores.MODEL, ...) or parquet.",
        ),
    ] = None,
    strong: Annotated[
        str | None,
        typer.Option(
            help="Strong (dear) model, as the data names it.", show_default="of two in --outcomes, the better scored"
        ),
    ] = None,
    weak: Annotated[str | None, typer.Option(help="Weak (cheap) model, as the data names it.")] = None,
    split: Annotated[str, typer.Option(help="Rows of a benchmark: test, gold or all.")] = "test",
    strong_price: Annotated[float | None, typer.Option(help="Money per million tokens of the strong model.")] = None,
    weak_price: Annotated[float | None, typer.Option(help="Money per million tokens of the weak model.")] = None,
    tokens: Annotated[
        float | None, typer.Option(help="Mean tokens of a call, with the prices.", show_default="1000")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=NUMBER: price of a further model of the outcomes, an alternative for the verdict."),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for results.json, report.html and the figures (made when needed).")
    ] = Path("evaluation"),
    draws: Annotated[int, typer.Option(help="Bootstrap draws.", min=10)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, for a program.")] = False,
) -> None:
    """Measure routers where the answers' scores are known: PGR, APGR, CPT, cost, and a verdict.

    Example: routellm evaluate --router mf --router random --benchmark mmlu --benchmark gsm8k --data RouteLLM/

    Example: routellm evaluate --outcomes results.jsonl --strong gpt-4.1 --weak gpt-4.1-mini --strong-price 8
    --weak-price 1.6
    """
    from routellm_core.calibration.targets import call_cost
    from routellm_core.data.files import SkippedRows
    from routellm_core.evaluation.benchmarks import STRONG, WEAK, load_benchmark, load_outcomes
    from routellm_core.report.figures import save_figures
    from routellm_core.report.page import render_html
    from routellm_core.report.rendering import check_templates
    from routellm_core.report.results import evaluate_benchmark

    check_templates()  # before minutes of work
    benchmarks = _several(benchmark)
    files = list({file.resolve(): file for file in outcomes or []}.values())
    if not benchmarks and not files:
        raise ConfigurationError("nothing to evaluate on: give --benchmark NAME --data PATH, or --outcomes FILE")
    if benchmarks and data is None:
        raise ConfigurationError(
            f"--benchmark {benchmarks[0]} needs --data: tidy JSON lines or a checkout of lm-sys/RouteLLM"
        )
    if (strong_price is None) != (weak_price is None):
        missing = "--strong-price" if strong_price is None else "--weak-price"
        raise ConfigurationError(f"{missing} is missing: costs need the price per million tokens of both models")
    prices = _prices(price or [])
    if strong_price is None or weak_price is None:
        for option, given in (("--price", price), ("--tokens", tokens)):
            if given:
                raise ConfigurationError(f"{option} needs --strong-price and --weak-price beside it")
    elif not 0.0 <= weak_price < strong_price:
        raise ConfigurationError(
            f"--strong-price {strong_price:g}, --weak-price {weak_price:g}: the strong model is not dearer, so there "
            "is nothing to save by routing; expected 0 <= weak price < strong price"
        )
    mean_tokens = 1000.0 if tokens is None else tokens
    if not 0.0 < mean_tokens < float("inf"):
        raise ConfigurationError(f"--tokens {mean_tokens:g}: expected the mean number of tokens of a call, above 0")
    loaded = [
        load_benchmark(name, data or "", strong=strong or STRONG, weak=weak or WEAK, split=split) for name in benchmarks
    ]
    bad = SkippedRows() if skip_bad else None
    loaded += _told_apart(files, [load_outcomes(file, strong=strong, weak=weak, skip_bad=bad) for file in files])
    if bad is not None:
        told_bad(bad)
    others = {name: float(call_cost(amount, mean_tokens)) for name, amount in prices.items()}
    costs: dict[str, Any] = {}
    if strong_price is not None and weak_price is not None:
        costs = {"strong_cost": call_cost(strong_price, mean_tokens), "weak_cost": call_cost(weak_price, mean_tokens)}
    unknown = sorted(set(others).difference(*(found.scores for found in loaded)))
    if unknown:
        raise ConfigurationError(
            f"--price {unknown[0]}=...: no outcomes have scores of this model in every row; they have: "
            f"{', '.join(dict.fromkeys(model for found in loaded for model in found.scores))}"
        )

    if taken := [m for m in others if any(m in (found.strong, found.weak) for found in loaded)]:
        raise ConfigurationError(
            f"--price {taken[0]}=...: this is the strong or the weak model; use --strong-price and --weak-price"
        )
    for file in (*files, *([data] if data is not None else [])):
        for name in (_RESULTS, _REPORT):
            if same_file(output / name, file):
                raise ConfigurationError(f"--output {output} would replace {file}: give another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)  # before minutes of work: it may not be allowed
    except OSError as exc:
        raise ConfigurationError(f"--output {output}: no folder can be made there ({exc.strerror})") from exc
    sources, routers = _routers(_several(router) or ["mf"])
    results = []
    for found in loaded:
        rates = _win_rates(routers, found)
        results.append(
            evaluate_benchmark(found, rates, **costs, other_costs=others, sources=sources, draws=draws, seed=seed)
        )

    text = json.dumps(results, indent=1, allow_nan=False)
    (output / _RESULTS).write_text(text + "\n", encoding="utf-8")
    (output / _REPORT).write_text(render_html(results), encoding="utf-8")
    written = f"{output / _REPORT}, {output / _RESULTS}"
    try:
        save_figures(results, output)
        written += " and the figures beside them"
    except MissingExtraError as exc:
        print(f"routellm: no figures written. {exc}", file=sys.stderr)
    if as_json:
        print(text)
    else:
        guessed = len(benchmarks) if strong is None and files else len(results)
        _print(results, written, guessed=guessed)


def _several(values: Sequence[str] | None) -> list[str]:
    """Options given again or with commas, each once, in order."""
    return list(dict.fromkeys(part.strip() for value in values or [] for part in value.split(",") if part.strip()))


def _told_apart(files: Sequence[Path], loaded: Sequence[Benchmark]) -> list[Benchmark]:
    """Outcomes under their files' names; with as many folders before it as tell apart what is called the same."""
    paths = [[*file.resolve().parent.parts[1:], found.name] for file, found in zip(files, loaded, strict=True)]
    out = []
    for path, found in zip(paths, loaded, strict=True):
        same = [other for other in paths if other is not path]
        length = next((n for n in range(1, len(path)) if all(o[-n:] != path[-n:] for o in same)), len(path))
        out.append(replace(found, name="/".join(path[-length:])))
    return out


def _prices(values: Sequence[str]) -> dict[str, float]:
    out: dict[str, float] = {}
    for value in values:
        model, sep, amount = value.rpartition("=")
        try:
            number = float(amount)
        except ValueError:
            sep, number = "", 0.0
        if not sep or not model or not 0.0 <= number < float("inf"):
            raise ConfigurationError(f"--price {value!r}: expected MODEL=NUMBER, such as gpt-4o=2.5")
        if model in out:
            raise ConfigurationError(f"--price {value!r}: {model} has the price {out[model]:g} already")
        out[model] = number
    return out


def _routers(specs: Sequence[str]) -> tuple[dict[str, str], dict[str, Router]]:
    """What was asked for, and its router, under names that tell routers apart: with their folders' or "bundled"."""
    from routellm_core.routers import load_router

    loaded = [(spec, load_router(spec)) for spec in specs]
    names = [r.name for _, r in loaded]
    sources: dict[str, str] = {}
    out: dict[str, Router] = {}
    for spec, found in loaded:
        place = Path(spec).resolve().name if Path(spec).exists() else "bundled"
        name = found.name if names.count(found.name) == 1 else f"{found.name} ({place})"
        name = name if name not in out else f"{found.name} ({spec})"
        out[name], sources[name] = found, spec
    return sources, out


def _win_rates(routers: Mapping[str, Router], benchmark: Benchmark) -> dict[str, npt.NDArray[np.float64]]:
    import numpy as np

    prompts = benchmark.prompts
    out = {}
    for name, router in routers.items():
        with progress_bar(f"{name} on {benchmark.name}") as progress:
            parts = []
            for start in range(0, len(prompts), _BATCH):
                batch = prompts[start : start + _BATCH]
                parts.append(router.win_rates(batch))
                progress(start + len(batch), len(prompts))
        out[name] = np.concatenate(parts)
    return out


def _print(results: Sequence[Mapping[str, Any]], written: str, *, guessed: int) -> None:
    """Tables and verdicts; of the results from number `guessed` on, the scores said which model is the strong one."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from routellm_core.report.escaping import printable
    from routellm_core.report.results import (
        HEADER,
        PAPER,
        alternatives,
        alternatives_header,
        difference_text,
        notes_of,
        score_text,
        table_rows,
        threshold_cost,
        unpriced_note,
        use_text,
    )

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)  # a pipe has no width; wrapped tables are no use in it

    def show(words: str, style: str = "", *, wrap: bool = True) -> None:
        console.print(Text(printable(words), style), soft_wrap=not wrap)

    def table_of(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], title: str | None = None) -> None:
        table = Table(
            title=None if title is None else Text(printable(title)), title_justify="left", box=None, pad_edge=False,
            header_style="bold",
        )  # fmt: skip
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i else "left")
        for style, row in rows:
            # an interval on a line of its own, rather than broken anywhere, where there is no room
            cells = [cell if console.width >= 100 else cell.replace(" [", "\n[") for cell in map(printable, row)]
            table.add_row(*(Text(cell, style) for cell in cells))
        console.print(table)

    for i, result in enumerate(results):
        strong, weak = (
            f"{side} {result[side]} {score_text(result, result[f'{side}_quality'])}" for side in ("strong", "weak")
        )
        ours = len(result["routers"])
        rows = [
            ("bold" if j < ours else "dim" if row[0].startswith(PAPER) else "", row)
            for j, row in enumerate(table_rows(result))
        ]
        table_of(HEADER, rows, f"{result['title']}: {strong}, {weak}")
        for c in result["comparisons"]:
            show(f"APGR, {c['first']} minus {c['second']}, paired: {difference_text(c['difference'])}")
        for router in result["routers"]:
            show(f"{router['name']}: {router['verdict']['sentence']}", wrap=console.is_terminal)
            if use := use_text(router):
                cost = threshold_cost(result, router)
                show(f"to use it: {use}{f'; {cost}' if cost else ''}", wrap=False)
            for note in notes_of(router):
                show(f"note: {note}", "yellow")
        if ours == 1:  # of several routers, the page shows it for each
            compared = [
                (name, score, cost, f"{gap} [{low}, {high}]" if gap else "")
                for name, score, cost, (gap, low, high) in alternatives(result, result["routers"][0])
            ]
            table_of(alternatives_header(result), [("", row) for row in compared])
        if i >= guessed:
            show(
                f"note: {result['strong']} was taken as the strong model, by the mean scores; "
                "--strong and --weak say which is which",
                "yellow",
            )
        if unpriced := unpriced_note(result):
            show(f"note: {unpriced}", "yellow")
        console.print()
    show(f"written: {written}")
