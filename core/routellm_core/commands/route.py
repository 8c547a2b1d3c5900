"""`routellm route`: win rate, threshold and decision for prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.calibration.distribution import Calibration
from routellm_core.commands.options import From, Limit, RouterName, Shard, SkipBad, parse_shard, report_bad
from routellm_core.commands.progress import progress_bar
from routellm_core.data.files import SkippedRows
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.policy.policy import RoutingPolicy
from routellm_core.policy.share import missed_share
from routellm_core.report.escaping import printable
from routellm_core.routers import load_router

if TYPE_CHECKING:
    from routellm_core.policy.decision import RoutingDecision

_BATCH = 1024
_DEFAULT_SHARE = 0.5


def route(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts to route.", show_default=False)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="File of prompts, plain or gzip: JSON lines, CSV, text, or any of 'routellm data forms'; - is "
            "stdin (text).",
        ),
    ] = None,
    field: Annotated[str | None, typer.Option(help="Field or column of the file that holds the prompt.")] = None,
    strong_fraction: Annotated[
        float | None, typer.Option(help="Wanted share of strong calls, 0 to 1.", show_default=str(_DEFAULT_SHARE))
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Threshold itself, instead of a share.")] = None,
    router: RouterName = "mf_vote",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Calibration file, fitted on your own prompts.", show_default="the router's own"),
    ] = None,
    limit: Limit = None,
    shard: Shard = None,
    show: Annotated[int, typer.Option(help="Rows of the table to show; 0 shows all.", min=0)] = 20,
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for a program.")] = False,
) -> None:
    """Score prompts and say which model each goes to.

    Example: routellm route "Prove that the square root of 2 is irrational." --strong-fraction 0.3

    Example: routellm route --data prompts.jsonl --strong-fraction 0.3 --json > decisions.jsonl
    """
    if bool(prompts) == (data is not None):
        raise ConfigurationError(
            "give prompts as arguments or --data FILE, one of them (--data - reads stdin); see routellm route --help"
        )
    if strong_fraction is None and threshold is None:
        strong_fraction = _DEFAULT_SHARE
    policy = RoutingPolicy(
        load_router(router),
        threshold=threshold,
        strong_fraction=strong_fraction,
        calibration=None if calibration is None else Calibration.load(calibration),
        on_error="raise",
        cache_size=0,  # each prompt is scored once
    )
    first, step = parse_shard(shard)
    policy.replace(threshold=policy.threshold)  # the last line says how the share came out, not a warning midway
    output = _JsonLines() if as_json else _Table(show)
    bad = SkippedRows() if skip_bad else None
    source = _Source(prompts or [], data, field, form, limit, bad)
    source.keep(first, step)
    count = strong = 0
    for batch in source.batches(quiet=as_json and sys.stdout.isatty()):
        decisions = policy.decide_batch(batch)
        strong += sum(d.model == "strong" for d in decisions)
        for prompt, decision in zip(batch, decisions, strict=True):
            output.row(first + count * step, prompt, decision)
            count += 1
    if bad is not None:
        report_bad(bad)
    if not count:
        raise source.no_prompt()
    wanted = "" if strong_fraction is None else f", wanted {strong_fraction:.1%} of prompts like the calibration's"
    left_out = f"; {source.skipped} records without a prompt left out" if source.skipped else ""
    remedy = None if strong_fraction is None else missed_share(strong_fraction, strong, count)
    missed = "" if remedy is None else f". {remedy}"
    noun = "prompt" if count == 1 else "prompts"
    output.end(
        f"{count:,} {noun}, {strong:,} strong ({strong / count:.1%}{wanted}), threshold {policy.threshold:.4f}, "
        f"router {policy.router.name}{left_out}{missed}"
    )


class _Source:
    """Prompts from the arguments, a file or stdin, in batches, with a progress bar on a terminal."""

    def __init__(
        self,
        prompts: list[str],
        file: Path | None,
        field: str | None,
        form: str | None,
        limit: int | None,
        bad: SkippedRows | None,
    ) -> None:
        self.name = "the command line" if file is None else ("stdin" if str(file) == "-" else str(file))
        self.skipped = 0
        self._reader: Any = None
        self._items: Iterator[str]
        if file is None:
            self._items = iter(prompts)
        elif str(file) == "-":
            if isinstance(sys.stdin, TextIOWrapper):  # as files are read: on Windows a pipe has another encoding
                sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
            self._items = (line for line in map(str.rstrip, sys.stdin) if line)
        else:
            from routellm_core.data.prompts import read_prompts

            self._reader = read_prompts(file, field=field, form=form, skip_bad=bad)
            self._items = iter(self._reader)
        if limit is not None:
            self._items = islice(self._items, limit)

    def keep(self, first: int, step: int) -> None:
        """Keep one prompt of each `step`, from number `first` on."""
        self._items = islice(self._items, first, None, step)

    def no_prompt(self) -> DataError:
        error: DataError = (
            DataError(f"{self.name} contains no prompt") if self._reader is None else self._reader.no_prompt()
        )
        return error

    def batches(self, *, quiet: bool) -> Iterator[list[str]]:
        if self._reader is None or quiet:
            yield from iter(lambda: list(islice(self._items, _BATCH)), [])
        else:
            with progress_bar("routing", percent=True) as progress:
                while batch := list(islice(self._items, _BATCH)):
                    yield batch
                    progress(self._reader.bytes_read, self._reader.total_bytes)
        if self._reader is not None:
            self.skipped = self._reader.skipped


class _JsonLines:
    """One JSON object a line on stdout; the summary goes to stderr, out of a program's way."""

    def row(self, index: int, prompt: str, decision: RoutingDecision) -> None:
        # ASCII only: prompts may hold lone surrogates, which no terminal or pipe encodes
        print(json.dumps({"index": index, "prompt": prompt, **decision.to_dict()}))

    def end(self, summary: str) -> None:
        print(printable(summary), file=sys.stderr)


class _Table:
    """A table of the first rows, then the summary."""

    def __init__(self, show: int) -> None:
        from rich.console import Console
        from rich.table import Table

        self._show = show
        self._count = 0
        self._console = Console(highlight=False)
        self._width = max(16, self._console.width - 32)  # what the three other columns leave
        self._table = Table("prompt", box=None, pad_edge=False, header_style="bold")
        for name in ("win rate", "threshold", "model"):
            self._table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)

    def row(self, index: int, prompt: str, decision: RoutingDecision) -> None:
        self._count += 1
        if self._show and index >= self._show:
            return
        from rich.text import Text

        # one line of printable characters; Text, because a prompt is not markup
        line = printable(" ".join(prompt[: 8 * self._width].split()))
        text = Text(line or "(empty)", no_wrap=True)
        text.truncate(self._width, overflow="ellipsis")
        color = "magenta" if decision.model == "strong" else "green"
        win_rate = "-" if decision.win_rate is None else f"{decision.win_rate:.4f}"
        self._table.add_row(text, win_rate, f"{decision.threshold:.4f}", Text(decision.model, color))

    def end(self, summary: str) -> None:
        self._console.print(self._table)
        hidden = self._count - self._show if self._show else 0
        if hidden > 0:
            self._console.print(f"... and {hidden} more (--show 0 shows all, --json writes all)", markup=False)
        self._console.print(printable(summary), markup=False, soft_wrap=True)
