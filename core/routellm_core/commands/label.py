"""`routellm label`: answers of two models -> outcomes (gold) or battles (judge)."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.commands.options import AsJson, Command, Prices, SkipBad, check_output, parse_prices, report_bad
from routellm_core.commands.progress import progress_bar
from routellm_core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from routellm_core.data.records import AnsweredPrompt
    from routellm_core.labelling import AnswerReport, CallEstimate, OpenAIChatModel

app = typer.Typer(
    name="label",
    help="Label answers: by the known right answer (gold), or by a chat model that compares two (judge).",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Data = Annotated[
    Path,
    typer.Option(
        "--data", "-d", help='Rows with "prompt" and "answers" {model: text}: JSON lines, JSON, CSV or parquet.'
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write: .jsonl, .csv (also .gz) or .parquet.")]


@app.command(cls=Command)
def gold(
    data: Data,
    out: Out,
    kind: Annotated[
        str, typer.Option(help='Form of "gold": choice (letter), number, exact, or auto: by what it looks like.')
    ] = "auto",
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Score answers 1 or 0 against the right one in the field "gold"; writes outcomes.

    Example: routellm label gold --data answers.jsonl --out outcomes.jsonl
    """
    from routellm_core.data import SkippedRows, read_answers, write_records
    from routellm_core.labelling import GoldReport, gold_outcomes

    check_output(out, data)
    report, bad = GoldReport(), SkippedRows()
    rows = read_answers(data, skip_bad=bad if skip_bad else None)
    write_records(out, gold_outcomes(rows, kind=kind, report=report))  # type: ignore[arg-type]  # checked by grade
    report_bad(bad)
    if as_json:
        print(json.dumps({**report.to_dict(), "skipped": bad.count, "out": str(out)}))
        return
    print(f"{report.rows} rows labelled -> {out}")
    for model, count in report.unreadable.items():
        print(f"{count} answers of {model} contain no recognisable answer: counted as wrong")
    for count, what in ((report.without_gold, "usable right answer"), (report.without_answers, "answers")):
        if count:
            print(f"{count} rows left out: no {what}")


@app.command(cls=Command)
def judge(
    data: Data,
    out: Out,
    strong: Annotated[str, typer.Option(help="Strong model, as the answers name it.")],
    weak: Annotated[str, typer.Option(help="Weak model, as the answers name it.")],
    judge: Annotated[str, typer.Option(help="Model that judges, as its service names it.")],
    base_url: Annotated[
        str | None, typer.Option(help="URL of the judge's service.", show_default="OPENAI_BASE_URL, or OpenAI")
    ] = None,
    key_env: Annotated[str, typer.Option(help="Environment variable with the judge's API key.")] = "OPENAI_API_KEY",
    journal: Annotated[
        Path | None, typer.Option(help="File that keeps what has been paid for.", show_default="OUT.journal")
    ] = None,
    answer_strong: Annotated[
        str | None,
        typer.Option(help="Model to write missing answers of the strong model with, as its service names it."),
    ] = None,
    answer_weak: Annotated[str | None, typer.Option(help="Likewise for the weak model.")] = None,
    strong_url: Annotated[str | None, typer.Option(help="URL of the strong model's service.")] = None,
    weak_url: Annotated[str | None, typer.Option(help="URL of the weak model's service.")] = None,
    strong_key_env: Annotated[str, typer.Option(help="Variable with its API key.")] = "OPENAI_API_KEY",
    weak_key_env: Annotated[str, typer.Option(help="Variable with its API key.")] = "OPENAI_API_KEY",
    price: Prices = None,
    concurrency: Annotated[int, typer.Option(help="Calls under way at a time.", min=1)] = 8,
    retries: Annotated[int, typer.Option(help="Further tries after a failure that may pass.", min=0)] = 6,
    tries: Annotated[
        int, typer.Option(help="How often a question is asked in all when the reply cannot be parsed.", min=1)
    ] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds for one call.")] = 120.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before money is spent.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the estimate and stop.")] = False,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Let a chat model compare the two answers, in both orders; writes battles. A crashed run goes on where it was.

    Example: routellm label judge --data answers.jsonl --strong gpt-4o --weak gpt-4o-mini --judge gpt-4.1 --out b.jsonl

    Rows without answers: --answer-strong and --answer-weak let the models write them first.
    """
    from routellm_core.data import SkippedRows, read_answers, write_records
    from routellm_core.labelling import estimate_answers, estimate_judging, recall_answers

    check_output(out, data)  # before anything is paid
    prices = parse_prices(price)
    asked = {judge, strong, weak} | {model for model in (answer_strong, answer_weak) if model is not None}
    if unknown := sorted(prices.keys() - asked):
        raise ConfigurationError(
            f"--price {unknown[0]}=...: no such model is asked; asked are {', '.join(sorted(asked))}"
        )
    bad = SkippedRows()
    rows = list(read_answers(data, skip_bad=bad if skip_bad else None))
    if not rows:
        raise DataError(f"{data}: no rows to label")
    kept = journal or out.with_name(out.name + ".journal")
    estimates: dict[str, CallEstimate] = {}
    # an estimate needs no key; before anybody is asked to confirm, every key must be there
    writers = {
        name: _model(model, url, variable, timeout, need_key=not dry_run)
        for name, model, url, variable in (
            (strong, answer_strong, strong_url, strong_key_env),
            (weak, answer_weak, weak_url, weak_key_env),
        )
        if model is not None
    }
    referee = _model(judge, base_url, key_env, timeout, need_key=not dry_run)
    rows = recall_answers(rows, writers, journal=kept)
    for name in (strong, weak):
        missing = sum(name not in row.answers for row in rows)
        if missing and name not in writers:
            side = "strong" if name == strong else "weak"
            raise DataError(
                f"{missing} of {len(rows)} rows have no answer of {name!r}: give --answer-{side} MODEL to write them"
            )
        if missing:
            amount = prices.get(name) or prices.get((answer_strong if name == strong else answer_weak) or "")
            estimates[f"answers of {name}"] = estimate_answers(
                rows, {name: writers[name]}, journal=kept, prices={} if amount is None else {name: amount}
            )[name]
    estimates["judge"] = estimate_judging(
        rows, strong=strong, weak=weak, judge=judge, journal=kept, tries=tries, price=prices.get(judge)
    )
    report_bad(bad)
    for what, estimate in estimates.items():
        known = f" ({estimate.remembered} more are in {kept})" if estimate.remembered else ""
        cost = "" if estimate.cost is None else f", about {estimate.cost:.2f} at these prices"
        print(
            f"{what}: {estimate.calls} calls{known}, about {estimate.prompt_tokens:,} + {estimate.completion_tokens:,} "
            f"tokens{cost}",
            file=sys.stderr,
        )
    if dry_run:
        if as_json:
            print(json.dumps({what: asdict(estimate) for what, estimate in estimates.items()}))
        return
    if sum(e.calls for e in estimates.values()) and not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                "stdin is not a terminal: pass --yes to confirm, or --dry-run for the estimate alone"
            )
        typer.confirm("Go on?", abort=True, err=True)
    answering = {name: writers[name] for name in writers if f"answers of {name}" in estimates}
    battles, report, answered = asyncio.run(
        _judged(rows, referee, answering, strong, weak, kept, tries, concurrency, retries)
    )
    write_records(out, battles)
    result = {
        **report.to_dict(),
        "cost": None
        if judge not in prices
        else prices[judge].cost(report.calls.prompt_tokens, report.calls.completion_tokens),
        "answers": None if answered is None else answered.to_dict(),
        "skipped": bad.count,
        "out": str(out),
    }
    if as_json:
        print(json.dumps(result))
    else:
        _print_report(result, out, kept)


async def _judged(
    rows: list[AnsweredPrompt],
    referee: OpenAIChatModel,
    models: dict[str, OpenAIChatModel],
    strong: str,
    weak: str,
    journal: Path,
    tries: int,
    concurrency: int,
    retries: int,
) -> tuple[list[Any], Any, AnswerReport | None]:
    from routellm_core.labelling import generate_answers, judge_battles

    answered: AnswerReport | None = None
    try:
        if models:
            with progress_bar("answering") as progress:
                rows, answered = await generate_answers(
                    rows, models, journal=journal, concurrency=concurrency, retries=retries, progress=progress
                )
        complete = [row for row in rows if strong in row.answers and weak in row.answers]
        with progress_bar("judging") as progress:
            battles, report = await judge_battles(
                complete,
                referee,
                strong=strong,
                weak=weak,
                journal=journal,
                tries=tries,
                concurrency=concurrency,
                retries=retries,
                progress=progress,
            )
        report.failed += len(rows) - len(complete)
        return battles, report, answered
    finally:
        for model in (referee, *models.values()):
            await model.aclose()


def _model(name: str, url: str | None, key_env: str, timeout: float, *, need_key: bool) -> OpenAIChatModel:
    from routellm_core.labelling import OpenAIChatModel

    key = None if need_key else "no call is made"
    return OpenAIChatModel(name, base_url=url, api_key=key, key_env=key_env, timeout=timeout)


def _print_report(result: dict[str, Any], out: Path, journal: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("rows", "count", box=None, pad_edge=False, header_style="bold")
    for name, title in (
        ("strong_wins", "strong wins"),
        ("weak_wins", "weak wins"),
        ("ties", "tie, both orders"),
        ("disagreements", "tie, orders disagree"),
        ("invalid", "no label: unparseable reply"),
        ("failed", "no label: call failed"),
    ):
        table.add_row(title, str(result[name]))
    console.print(table)
    calls = result["calls"]
    cost = "" if result["cost"] is None else f", cost {result['cost']:.2f} at these prices"
    console.print(
        f"{result['labelled']} of {result['rows']} rows labelled -> {out}\n"
        f"{calls['asked']} calls paid now ({calls['prompt_tokens']:,} + {calls['completion_tokens']:,} tokens{cost}), "
        f"{calls['remembered']} from {journal}; {result['invalid_replies']} unparseable replies in all",
        markup=False,
        soft_wrap=True,
    )
    for kind, count in calls["errors"].items():
        console.print(f"{count} x {kind}", markup=False)
    if result["failed"]:
        console.print("run the command again to ask for the failed rows", markup=False)
