"""`routellm label`: prompts -> answers (answer), and answers -> outcomes (gold) or battles (judge)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from routellm_core.checks import same_file
from routellm_core.commands.label_answers import answer, check_prices, warn
from routellm_core.commands.options import (
    AsJson,
    Command,
    From,
    Prices,
    Shard,
    SkipBad,
    check_output,
    console_for_tables,
    parse_prices,
    report_bad,
    report_joined,
    shard_of,
)
from routellm_core.commands.paid import (
    Concurrency,
    DryRun,
    JournalFile,
    Retries,
    Timeout,
    Tries,
    Yes,
    chat_model,
    confirmed,
    journal_of,
    money,
)
from routellm_core.commands.progress import progress_bar
from routellm_core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from routellm_core.data.records import AnsweredPrompt, Battle
    from routellm_core.labelling import AnswerReport, GoldReport, JudgeReport, OpenAIChatModel
    from routellm_core.labelling.paid_calls import CallLimits

app = typer.Typer(
    name="label",
    help="Get answers of models, and label them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command(cls=Command)(answer)

Data = Annotated[
    list[Path],
    typer.Option(
        "--data",
        "-d",
        help='Rows with "prompt" and "answers" {model: text}, or columns MODEL_response: JSON lines, JSON, CSV or '
        "parquet; may be given again. MODEL=FILE for a file that does not name its model.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write: .jsonl, .csv (also .gz) or .parquet.")]
# How the table after gold labelling heads a count, and what it means; a count that is 0 for all has no column.
_GOLD_COUNTS = {
    "says_more": ("says more", "right, with more text than the right answer alone"),
    "mentions_gold": (
        "wrong, has gold",
        "counted as wrong although the right answer occurs in them: read some of them",
    ),
    "refused": ("refuses", "counted as wrong because they refuse"),
    "unreadable": ("no answer", "counted as wrong because they contain no recognisable answer"),
    "ungraded": ("no score", "left out because the grader gave them no score"),
}


@app.command(cls=Command)
def gold(
    data: Data,
    out: Out,
    grader: Annotated[
        str,
        typer.Option(
            "--grader",
            "--kind",
            help="How to compare with gold: choice, yes_no, number, date, text, exact, or auto (by its form); "
            "or a function of your own as package.module:function.",
        ),
    ] = "auto",
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Score answers 1 or 0 against the right one in the file. Reads the field "gold"; writes outcomes.

    Example: routellm label gold --data answers.jsonl --out outcomes.jsonl

    Example: routellm label gold --data code.jsonl --grader my_tests:passes --out outcomes.jsonl
    """
    from routellm_core.data import SkippedRows, read_answers, write_records
    from routellm_core.data.joining import JoinReport
    from routellm_core.labelling import GoldReport, gold_outcomes
    from routellm_core.labelling.reading.forms import GoldKind

    check_output(out, data)
    own = ":" in grader
    if not own and grader not in get_args(GoldKind):
        raise ConfigurationError(
            f"--grader {grader!r}: expected one of {', '.join(get_args(GoldKind))}, or package.module:function"
        )
    report, bad = GoldReport(), SkippedRows()
    joined = JoinReport()
    rows = read_answers(data, form=form, skip_bad=bad if skip_bad else None, joined=joined)
    how: dict[str, Any] = {"grader": grader} if own else {"kind": grader}
    write_records(out, gold_outcomes(rows, **how, report=report))
    report_bad(bad)
    report_joined(joined)
    if as_json:
        print(json.dumps({**report.to_dict(), "skipped": bad.count, "out": str(out)}))
        return
    _print_gold(report)
    print(f"{report.rows} rows labelled -> {out}")


def _print_gold(report: GoldReport) -> None:
    """A row for each model and source with its mean score, what its answers do besides, and what is left out."""
    from rich.table import Table

    from routellm_core.report.escaping import printable

    tallies = [(model, source, tally) for model, sources in report.tallies.items() for source, tally in sources.items()]
    several = len({source for _, source, _ in tallies}) > 1
    totals = {name: sum(getattr(tally, name) for _, _, tally in tallies) for name in _GOLD_COUNTS}
    shown = {name: _GOLD_COUNTS[name] for name, total in totals.items() if total}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "source")[: 1 + several]:
        table.add_column(title)
    for title in ("answers", "mean", *(heading for heading, _ in shown.values())):
        table.add_column(title, justify="right")
    for model, source, tally in sorted(tallies, key=lambda row: row[:2]):
        names = (printable(model), printable(source))[: 1 + several]
        mean = f"{tally.mean:.3f}" if tally.answers else "-"
        table.add_row(*names, str(tally.answers), mean, *(str(getattr(tally, name)) for name in shown))
    console_for_tables().print(table)
    for name, (heading, meaning) in shown.items():
        print(f"{heading}: {totals[name]} answers, {meaning}")
    for count, what in (
        (report.without_gold, "no usable right answer"),
        (report.without_answers, "no answers"),
        (report.ungraded, "the grader gave no score"),
    ):
        if count:
            print(f"{count} rows left out: {what}")
    if report.kinds:
        kinds = ", ".join(f"{kind} {count}" for kind, count in report.kinds.items())
        print(f"right answers read as: {kinds}")


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
    journal: JournalFile = None,
    answer_strong: Annotated[
        str | None,
        typer.Option(help="Model to write missing answers of the strong model with, as its service names it."),
    ] = None,
    answer_weak: Annotated[str | None, typer.Option(help="Likewise for the weak model.")] = None,
    strong_url: Annotated[str | None, typer.Option(help="URL of the strong model's service.")] = None,
    weak_url: Annotated[str | None, typer.Option(help="URL of the weak model's service.")] = None,
    strong_key_env: Annotated[str, typer.Option(help="Variable with its API key.")] = "OPENAI_API_KEY",
    weak_key_env: Annotated[str, typer.Option(help="Variable with its API key.")] = "OPENAI_API_KEY",
    answers_out: Annotated[
        Path | None, typer.Option(help="File to write the answers to, for label gold or another judge.")
    ] = None,
    price: Prices = None,
    concurrency: Concurrency = 8,
    retries: Retries = 6,
    tries: Tries = 2,
    timeout: Timeout = 120.0,
    shard: Shard = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Let a chat model compare the two answers. It sees them in both orders. A crashed run goes on where it was.

    Example: routellm label judge --data answers.jsonl --strong gpt-4o --weak gpt-4o-mini --judge gpt-4.1 --out b.jsonl

    Rows without answers: --answer-strong and --answer-weak let the models write them first.

    On several machines: --shard 1/4 to 4/4, each with an --out of its own; then bring the journals together (label
    merge).
    """
    from routellm_core.data import SkippedRows, read_answers, write_records
    from routellm_core.data.joining import JoinReport
    from routellm_core.labelling import estimate_answers, estimate_judging, recall_answers

    if strong == weak:
        raise ConfigurationError(f"--strong and --weak are both {strong!r}: a model is not compared with itself")
    check_output(out, data)  # before anything is paid
    if answers_out is not None:
        check_output(answers_out, data)
        if same_file(answers_out, out):
            raise ConfigurationError(f"--answers-out {answers_out} is the file of the labels: give another file")
    prices = parse_prices(price)
    check_prices(prices, [judge, strong, weak, *filter(None, (answer_strong, answer_weak))])
    bad = SkippedRows()
    joined = JoinReport()
    rows = shard_of(list(read_answers(data, form=form, skip_bad=bad if skip_bad else None, joined=joined)), shard)
    report_joined(joined)
    if not rows:
        raise DataError(f"{', '.join(map(str, data))}: no rows to label")
    report_bad(bad)
    kept = journal_of(out, journal)
    sides = {
        strong: (answer_strong, strong_url, strong_key_env),
        weak: (answer_weak, weak_url, weak_key_env),
    }
    # an estimate needs no key; before anybody is asked to confirm, every key must be there
    writers = {
        name: chat_model(model, url, variable, timeout, need_key=not dry_run)
        for name, (model, url, variable) in sides.items()
        if model is not None
    }
    referee = chat_model(judge, base_url, key_env, timeout, need_key=not dry_run)
    rows = recall_answers(rows, writers, journal=kept)
    missing = {name: sum(name not in row.answers for row in rows) for name in sides}
    for side, name in zip(("strong", "weak"), sides, strict=True):
        if missing[name] and name not in writers:
            raise DataError(
                f"{missing[name]} of {len(rows)} rows have no answer of {name!r}: give --answer-{side} MODEL to write "
                "them"
            )
    amounts = {name: prices.get(name) or prices.get(model.name) for name, model in writers.items()}
    known = {name: amount for name, amount in amounts.items() if amount is not None}
    answers = estimate_answers(rows, writers, journal=kept, tries=tries, prices=known)
    estimates = {f"answers of {name}": answers[name] for name in writers if missing[name]}
    estimates["judge"] = estimate_judging(
        rows, strong=strong, weak=weak, judge=judge, journal=kept, tries=tries, price=prices.get(judge)
    )
    if not confirmed(estimates, kept, yes=yes, dry_run=dry_run, as_json=as_json):
        return
    limits: CallLimits = {"concurrency": concurrency, "retries": retries, "tries": tries}
    rows, battles, report, answered = asyncio.run(_judged(rows, referee, writers, (strong, weak), kept, limits))
    if answered is not None:
        warn(answered, kept)
    if answers_out is not None:
        write_records(answers_out, rows)
    if battles or not report.unusable:  # without any label, write_records keeps an older file and says so
        write_records(out, battles)
    result = {
        **report.to_dict(),
        "cost": report.calls.cost(prices.get(judge)),
        "answers": None if answered is None else answered.to_dict(),
        "skipped": bad.count,
        "out": str(out),
    }
    if as_json:
        print(json.dumps(result))
    else:
        _print_judging(result, out, kept, metered=report.calls.metered)
    if report.unusable:
        _explain_unusable(report, judge, kept)
        raise typer.Exit(2)


@app.command(cls=Command)
def merge(
    journals: Annotated[list[Path], typer.Argument(help="Journals of runs, such as those of all shards.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Journal to add their replies to; made where absent.")],
    as_json: AsJson = False,
) -> None:
    """Merge the journals of several runs, such as shards.

    Example: routellm label merge part-*.jsonl.journal --out labels.jsonl.journal

    Run the same command over all rows then, with this journal: it asks only what no shard has asked.
    """
    from routellm_core.labelling import merge_journals

    added = merge_journals(journals, out)
    if as_json:
        print(json.dumps({"journals": len(journals), "added": added, "out": str(out)}))
    else:
        print(
            f"{added} replies of {len(journals)} journals -> {out}; run the command over all rows with --journal {out}"
        )


async def _judged(
    rows: list[AnsweredPrompt],
    referee: OpenAIChatModel,
    writers: Mapping[str, OpenAIChatModel],
    pair: tuple[str, str],
    journal: Path,
    limits: CallLimits,
) -> tuple[list[AnsweredPrompt], list[Battle], JudgeReport, AnswerReport | None]:
    """The rows with their answers, the labels, and what was done for both."""
    from routellm_core.labelling import generate_answers, judge_battles

    strong, weak = pair
    answered: AnswerReport | None = None
    try:
        if writers:
            with progress_bar("answering") as progress:
                rows, answered = await generate_answers(rows, writers, journal=journal, progress=progress, **limits)
        complete = [row for row in rows if strong in row.answers and weak in row.answers]
        with progress_bar("judging") as progress:
            battles, report = await judge_battles(
                complete, referee, strong=strong, weak=weak, journal=journal, progress=progress, **limits
            )
        report.failed += len(rows) - len(complete)
        return rows, battles, report, answered
    finally:
        for model in (referee, *writers.values()):
            await model.aclose()


def _explain_unusable(report: JudgeReport, judge: str, journal: Path) -> None:
    """Say on stderr that the judge does not understand its task, with one of its replies."""
    from routellm_core.report.escaping import printable

    print(
        f"the judge {judge} does not say [[A]], [[B]] or [[C]]: {report.invalid} rows have no label because of it. "
        f"Its replies are in {journal}; one begins:",
        file=sys.stderr,
    )
    print(f"  {printable(report.invalid_example or '(an empty reply)')}", file=sys.stderr)
    print("Give another model as --judge.", file=sys.stderr)


def _print_judging(result: dict[str, Any], out: Path, journal: Path, *, metered: bool) -> None:
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
    cost = "" if result["cost"] is None else f", cost {money(result['cost'])} at these prices"
    used = f"{calls['prompt_tokens']:,} + {calls['completion_tokens']:,} tokens" if metered else "tokens not reported"
    console.print(
        f"{result['labelled']} of {result['rows']} rows labelled -> {out}\n"
        f"{calls['asked']} calls paid now ({used}{cost}), "
        f"{calls['remembered']} from {journal}; {result['invalid_replies']} unparseable replies in all",
        markup=False,
        soft_wrap=True,
    )
    for kind, count in calls["errors"].items():
        console.print(f"{count} x {kind}", markup=False)
    if result["failed"]:
        console.print("run the command again to ask for the failed rows", markup=False)
