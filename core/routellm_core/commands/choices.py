"""`routellm evaluate --budget`: the right models for the money, as tables, JSON, figure and page."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from routellm_core.commands.options import command_line, console_for_tables
from routellm_core.errors import ConfigurationError, MissingExtraError
from routellm_core.report.choices import (
    CALLS,
    choice_header,
    choice_notes,
    choice_rows,
    choose_models,
    hull_header,
    hull_rows,
    render_choice,
)
from routellm_core.report.escaping import printable
from routellm_core.report.figures import save_figures
from routellm_core.report.files import write_evaluation

if TYPE_CHECKING:
    from routellm_core.evaluation.benchmarks import Benchmark
    from routellm_core.evaluation.costs import Money


def out_of_fold(benchmark: Benchmark, money: Money, budget: float, folds: int, seed: int) -> npt.NDArray[np.float64]:
    """Win rates (n,) of the best model over the best other one within the budget, by routers trained on other folds."""
    from routellm_core.commands.progress import progress_bar
    from routellm_core.data.records import Outcome
    from routellm_core.embedders.static import bundled_embedder
    from routellm_core.evaluation.costs import call_costs
    from routellm_core.training.embedding_task import EmbeddingTask, PromptVectors
    from routellm_core.training.mf import fit_records
    from routellm_core.training.proof import out_of_fold_win_rates

    costs = {model: CALLS * float(found.costs.mean()) for model, found in call_costs(benchmark, money).items()}
    strong, *others = sorted(costs, key=lambda model: -float(benchmark.scores[model].mean()))
    if not others:
        raise ConfigurationError("--folds needs two models or more with a --price")
    weak = next((model for model in others if costs[model] <= budget), min(others, key=costs.__getitem__))
    records = [
        Outcome(prompt=prompt, scores={strong: of_strong, weak: of_weak})
        for prompt, of_strong, of_weak in zip(
            benchmark.prompts, benchmark.scores[strong], benchmark.scores[weak], strict=True
        )
    ]
    embedder = bundled_embedder()
    with progress_bar(f"prompts of {benchmark.name}") as progress:
        vectors = PromptVectors(embedder, benchmark.prompts, progress)
    task = EmbeddingTask(
        strong=strong, weak=weak, embedder=embedder, vectors=vectors, tie_margin=0.0, all_models=False, seed=seed,
        options={},
    )  # fmt: skip
    found = out_of_fold_win_rates(lambda rows: fit_records(rows, task).router, records, folds=folds, seed=seed)
    return np.array([found[prompt] for prompt in benchmark.prompts])


def choose(
    benchmark: Benchmark,
    win_rates: npt.ArrayLike,
    budget: float,
    money: Money,
    router: str,
    trained_on: str,
    out: Path,
    *,
    draws: int,
    seed: int,
    as_json: bool,
) -> None:
    """Choose among the models of a benchmark, write the results to `out` and print them."""
    result = choose_models(
        benchmark, win_rates, budget, money=money, router=router, trained_on=trained_on, command=command_line(),
        draws=draws, seed=seed,
    )  # fmt: skip
    written = ", ".join(map(str, write_evaluation([result], render_choice(result), out)))
    try:
        save_figures([result], out)
        written += " and the figures beside them"
    except MissingExtraError as exc:
        print(f"routellm: no figures written. {exc}", file=sys.stderr)
    if as_json:
        print(json.dumps([result], indent=1, allow_nan=False))
    else:
        show_choice(result)
        print(f"written: {printable(written)}")


def show_choice(result: dict[str, Any]) -> None:
    """Print the choice at the budget, the hull over other budgets, and what they rest on."""
    console = console_for_tables()
    console.print(Text(printable(result["title"])))
    # a line for each model, so that the table is narrow
    lines = {0: ", ", 1: " + "}
    rows = [
        [printable(cell).replace(lines[i], "\n") if i in lines else printable(cell) for i, cell in enumerate(row)]
        for row in choice_rows(result)
    ]
    _table(console, choice_header(result), rows)
    console.print(Text(printable(result["sentence"])), soft_wrap=not console.is_terminal)
    console.print()
    console.print(Text("at other budgets"))
    _table(console, hull_header(result), [[printable(cell) for cell in row] for row in hull_rows(result)])
    for note in choice_notes(result):
        console.print(Text(f"note: {printable(note)}", "yellow"), soft_wrap=not console.is_terminal)


def _table(console: Any, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        models = name == "models"
        table.add_column(
            name, justify="left" if name in ("choice", "models") else "right", no_wrap=not models, overflow="fold"
        )
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
