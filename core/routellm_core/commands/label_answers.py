"""`routellm label answer`: any number of chat models answer prompts; gold and judge read the file."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from routellm_core.commands.options import (
    AsJson,
    From,
    Limit,
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
    from routellm_core.data.records import AnsweredPrompt
    from routellm_core.labelling import AnswerReport, OpenAIChatModel
    from routellm_core.labelling.paid_calls import CallLimits
    from routellm_core.policy.savings import Price

Value = TypeVar("Value")

_SERVICE = re.compile(r"(?:(?P<model>.+)@)?(?P<url>https?://.+)")
_KEY_VARIABLE = "OPENAI_API_KEY"


class _Service(NamedTuple):
    """Where a model answers: its name there, and the URL; None is OpenAI or what OPENAI_BASE_URL says."""

    model: str
    url: str | None


def answer(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            "-d",
            help="Rows with \"prompt\", or any of 'routellm data forms': JSON lines, JSON, CSV or parquet; may be "
            "given again.",
        ),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="NAME=URL: a model and its OpenAI-compatible service; NAME alone is a model of OpenAI (or of "
            "OPENAI_BASE_URL). NAME=MODEL@URL where the service calls it MODEL. Again for each model.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .jsonl, .csv (also .gz) or .parquet.")],
    temperature: Annotated[
        list[str] | None, typer.Option(help="NUMBER for all models, or NAME=NUMBER.", show_default="the service's")
    ] = None,
    max_tokens: Annotated[
        list[str] | None,
        typer.Option(help="Most tokens of an answer: NUMBER, or NAME=NUMBER.", show_default="the service's"),
    ] = None,
    instructions: Annotated[
        list[str] | None, typer.Option(help="System message: TEXT for all models, or NAME=TEXT.", show_default="none")
    ] = None,
    key_env: Annotated[
        list[str] | None,
        typer.Option(
            help="Environment variable with the API key: VARIABLE for all models, or NAME=VARIABLE.",
            show_default=_KEY_VARIABLE,
        ),
    ] = None,
    price: Prices = None,
    journal: JournalFile = None,
    concurrency: Concurrency = 8,
    retries: Retries = 6,
    tries: Tries = 2,
    timeout: Timeout = 120.0,
    limit: Limit = None,
    shard: Shard = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Let models answer prompts. Each answers at its own service. A crashed run goes on where it was.

    Example: routellm label answer --data prompts.jsonl --model gpt-4.1 --model local=http://localhost:8080/v1 --key-env
    local=LOCAL_KEY --price gpt-4.1=2/8 --out answers.jsonl

    Rows keep the answers that they have. Label the file with label gold or label judge.

    On several machines: --shard 1/4 to 4/4, each with an --out of its own; then bring the journals together (label
    merge).
    """
    from routellm_core.data import SkippedRows, read_answers, write_records
    from routellm_core.data.joining import JoinReport
    from routellm_core.labelling import estimate_answers

    check_output(out, data)  # before anything is paid
    services = _services(model)
    prices = parse_prices(price)
    check_prices(prices, services)
    per_model = _PerModel(list(services))
    manners = per_model.parse("--instructions", instructions, str)
    temperatures = per_model.parse("--temperature", temperature, _number)
    lengths = per_model.parse("--max-tokens", max_tokens, _count)
    variables = per_model.parse("--key-env", key_env, str)
    bad = SkippedRows()
    joined = JoinReport()
    found = read_answers(data, form=form, skip_bad=bad if skip_bad else None, joined=joined)
    rows = shard_of(list(islice(found, limit)), shard)
    if not rows:
        raise DataError(f"{', '.join(map(str, data))}: no rows to answer")
    report_bad(bad)
    report_joined(joined)
    models = {}
    for name, service in services.items():
        chosen = {"temperature": temperatures.get(name), "max_tokens": lengths.get(name)}
        settings = {field: value for field, value in chosen.items() if value is not None}
        variable = variables.get(name, _KEY_VARIABLE)
        # before anybody is asked to confirm, every key must be there
        models[name] = chat_model(service.model, service.url, variable, timeout, need_key=not dry_run, **settings)
    kept = journal_of(out, journal)
    estimates = estimate_answers(rows, models, journal=kept, instructions=manners, tries=tries, prices=prices)
    parts = {f"answers of {name}": estimate for name, estimate in estimates.items()}
    if not confirmed(parts, kept, yes=yes, dry_run=dry_run, as_json=as_json):
        return
    limits: CallLimits = {"concurrency": concurrency, "retries": retries, "tries": tries}
    rows, report = asyncio.run(_answered(rows, models, kept, manners, limits))
    warn(report, kept)
    if not any(row.answers for row in rows):
        reasons = [reason for calls in report.calls.values() for reason in calls.errors] or ["every reply was empty"]
        raise DataError(f"{', '.join(map(str, data))}: nothing was answered ({reasons[0]}); {out} was not written")
    write_records(out, rows)
    if as_json:
        costs = {name: report.calls[name].cost(prices.get(name)) for name in models}
        print(json.dumps({**report.to_dict(), "costs": costs, "skipped": bad.count, "out": str(out)}))
    else:
        _print(rows, report, prices)
        print(f"{len(rows)} rows -> {out}; journal: {kept}")


async def _answered(
    rows: Sequence[AnsweredPrompt],
    models: Mapping[str, OpenAIChatModel],
    journal: Path,
    instructions: Mapping[str, str],
    limits: CallLimits,
) -> tuple[list[AnsweredPrompt], AnswerReport]:
    from routellm_core.labelling import generate_answers

    try:
        with progress_bar("answering") as progress:
            return await generate_answers(
                rows,
                models,
                journal=journal,
                instructions=instructions,
                progress=progress,
                **limits,
            )
    finally:
        for model in models.values():
            await model.aclose()


def _services(values: Sequence[str]) -> dict[str, _Service]:
    """The service of each model by the name that its answers get.

    Raises:
        ConfigurationError: A value is not NAME, NAME=URL or NAME=MODEL@URL, or a name comes twice.
    """
    out: dict[str, _Service] = {}
    for value in values:
        name, sep, place = value.partition("=")
        found = _SERVICE.fullmatch(place)
        if not name or (sep and found is None):
            raise ConfigurationError(
                f"--model {value!r}: expected NAME, NAME=URL or NAME=MODEL@URL, such as local=http://localhost:8080/v1"
            )
        if name in out:
            raise ConfigurationError(f"--model {value!r}: {name} is there already; give each model a name of its own")
        out[name] = _Service(name, None) if found is None else _Service(found["model"] or name, found["url"])
    return out


class _PerModel:
    """Reads options that hold a value for all models, or NAME=VALUE for one of them."""

    def __init__(self, models: Sequence[str]) -> None:
        self._models = models

    def parse(self, option: str, values: Sequence[str] | None, read: Callable[[str], Value | None]) -> dict[str, Value]:
        """The value of each model that has one; what is said of one model goes before what is said of all.

        Raises:
            ConfigurationError: A value cannot be read.
        """
        common: dict[str, Value] = {}
        own: dict[str, Value] = {}
        for value in values or ():
            name, sep, rest = value.partition("=")
            one = bool(sep) and name in self._models
            found = read(rest if one else value)
            if found is None:
                raise ConfigurationError(
                    f"{option} {value!r}: expected VALUE or NAME=VALUE, where NAME is one of {', '.join(self._models)}"
                )
            (own if one else common).update(dict.fromkeys([name] if one else self._models, found))
        return common | own


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < float("inf") else None


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) > 0 else None


def check_prices(prices: Mapping[str, Price], asked: Mapping[str, Any] | Sequence[str]) -> None:
    """Refuse a price of a model that is not asked: it is most likely misspelt."""
    if unknown := sorted(prices.keys() - set(asked)):
        raise ConfigurationError(
            f"--price {unknown[0]}=...: no such model is asked; asked are {', '.join(sorted(asked))}"
        )


def warn(report: AnswerReport, journal: Path) -> None:
    """Say on stderr what is wrong with the answers, if anything."""
    for served, names in report.same_model.items():
        print(
            f"warning: the answers of {' and '.join(names)} all come from the model {served!r}. Some servers "
            "(llama.cpp) answer to any name; check the URLs. Nothing is wrong where these names stand for one model "
            "with different settings.",
            file=sys.stderr,
        )
    for name, count in report.truncated.items():
        if count:
            print(
                f"warning: {count} answers of {name} were cut off at a limit of tokens (--max-tokens, or the service's "
                "own); grade them with care",
                file=sys.stderr,
            )
    for name, count in report.missing.items():
        if count:
            print(f"warning: {count} of {report.rows} rows have no answer of {name}", file=sys.stderr)
            for reason, times in report.calls[name].errors.items():
                print(f"  {times} x {reason}", file=sys.stderr)
    if any(calls.failed for calls in report.calls.values()):
        print(f"run the command again to ask for those that failed; the others are in {journal}", file=sys.stderr)


def _print(rows: Sequence[AnsweredPrompt], report: AnswerReport, prices: Mapping[str, Price]) -> None:
    from rich.table import Table

    from routellm_core.report.escaping import printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, title in enumerate(("model", "answers", "missing", "cut off", "calls paid now", "tokens in + out", "cost")):
        table.add_column(title, justify="right" if i else "left")
    for name, calls in report.calls.items():
        cost = calls.cost(prices.get(name))
        table.add_row(
            printable(name),
            str(sum(name in row.answers for row in rows)),
            str(report.missing[name]),
            str(report.truncated[name]),
            str(calls.asked),
            f"{calls.prompt_tokens:,} + {calls.completion_tokens:,}" if calls.metered else "not reported",
            "" if cost is None else money(cost),
        )
    console_for_tables().print(table)
