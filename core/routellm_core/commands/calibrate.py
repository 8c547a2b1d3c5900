"""`routellm calibrate`: win rates of your own traffic, and the thresholds that they give."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routellm_core.checks import same_file
from routellm_core.commands.options import (
    AsJson,
    From,
    Limit,
    Prices,
    RouterName,
    SkipBad,
    TokensOfACall,
    console_for_tables,
    parse_prices,
    parse_tokens,
    report_bad,
)
from routellm_core.commands.progress import progress_bar
from routellm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from routellm_core.calibration.distribution import Calibration
    from routellm_core.calibration.targets import Target

_SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def calibrate(
    parts: Annotated[
        list[Path] | None, typer.Argument(help="With --merge: calibration files.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="Traffic, plain or gzip: JSON lines, CSV, text, or any of 'routellm data forms'.",
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Merge calibrations of one router, such as those of several machines, instead."),
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Calibration file to write.")] = Path("calibration.json"),
    router: RouterName = "mf_vote",
    format: Annotated[str, typer.Option(help="auto, text, jsonl, json, csv or parquet.")] = "auto",
    field: Annotated[
        str | None, typer.Option(help="Field or column that holds the prompt, such as inputs.text.")
    ] = None,
    strong_fraction: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of strong calls to give a threshold for; may be given again.",
            show_default=", ".join(map(str, _SHARES)),
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Money for --calls calls; needs --price strong=IN/OUT, --price weak=IN/OUT and, unless the rows have "
            "tokens, --tokens."
        ),
    ] = None,
    calls: Annotated[float | None, typer.Option(help="How many calls the budget is for.", show_default="1")] = None,
    price: Prices = None,
    tokens: TokensOfACall = None,
    limit: Limit = None,
    precision: Annotated[float, typer.Option(help="Wanted precision of a share: 0.02 is ±2 points.")] = 0.02,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew instead of continuing an interrupted run.")
    ] = False,
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Calibrate a router on your own prompts.

    Shows the thresholds for a share of strong calls or a budget, and writes a calibration file. The prompts are read
    as a stream. When a run is stopped, the same command goes on where it was.

    Example: routellm calibrate --data traffic.jsonl --strong-fraction 0.3 --out calibration.json

    Example: routellm calibrate --merge part-*.json --out calibration.json
    """
    from routellm_core.calibration.distribution import Calibration
    from routellm_core.calibration.resumable import ResumableCalibration
    from routellm_core.data.files import SkippedRows
    from routellm_core.data.prompts import read_prompts
    from routellm_core.routers import load_router

    prices, mean_tokens = parse_prices(price), parse_tokens(tokens)
    if unknown := sorted(prices.keys() - {"strong", "weak"}):
        raise ConfigurationError(f"--price {unknown[0]}=...: a calibration knows no models, only strong and weak")
    if budget is not None and mean_tokens is None and data is not None and str(data) != "-":
        from routellm_core.data.usage import mean_tokens as tokens_of

        if (known := tokens_of(data, form=form)) is not None:
            mean_tokens = known.input, known.output
            usual = f"{known.input:,.0f} + {known.output:,.0f}"
            print(f"tokens of a call: {usual}, the mean of {known.calls:,} calls in {data}", file=sys.stderr)
    money = {
        "--price strong=IN/OUT": prices.get("strong"),
        "--price weak=IN/OUT": prices.get("weak"),
        "--tokens": mean_tokens,
    }
    if budget is None:
        alone = [name for name, value in {**money, "--calls": calls}.items() if value is not None]
        if alone:
            raise ConfigurationError(f"{', '.join(alone)} without --budget: give --budget too, or leave them out")
    elif lacking := [name for name, value in money.items() if value is None]:
        raise ConfigurationError(f"--budget needs {', '.join(lacking)} too")

    budget_calls = 1.0 if calls is None else calls

    def targets_of(fitted: Calibration) -> list[Target]:
        found = [fitted.share_target(share, precision=precision) for share in strong_fraction or _SHARES]
        if budget is not None:
            found.append(
                fitted.budget_target(
                    budget,
                    calls=budget_calls,
                    strong_price=prices["strong"],
                    weak_price=prices["weak"],
                    tokens=mean_tokens,
                )
            )
        return found

    if merge or parts:
        if not merge or data is not None or not parts:
            raise ConfigurationError("--merge takes calibration files and no --data: --merge part-*.json --out FILE")
        fitted = Calibration.merge([Calibration.load(part) for part in parts])
        if any(same_file(out, part) for part in parts):
            raise ConfigurationError(f"--out {out} is one of the parts: give another file")
        fitted.save(out)
        _show(targets_of(fitted), fitted, out, budget_calls, as_json=as_json, parts=len(parts))
        return
    if data is None:
        raise ConfigurationError("--data is missing: give a file of prompts, or --merge with calibration files")
    # what is wrong is better told before a million prompts are scored than after
    targets_of(Calibration.from_win_rates([0.5]))
    bad = SkippedRows() if skip_bad else None
    reader = read_prompts(data, format=format, field=field, form=form, skip_bad=bad)  # type: ignore[arg-type]  # checked there

    def going_on(count: int) -> None:
        less = "" if limit is None or limit >= count else f", of which --limit takes the first {limit:,}"
        print(f"routellm: going on after {count:,} prompts{less}; --restart starts anew", file=sys.stderr)

    run = ResumableCalibration(reader, out, limit=limit, restart=restart)
    try:
        with run:
            found = load_router(router)
            with progress_bar("calibrating", percent=True) as progress:
                fitted = run.fit(found, progress=progress, on_resume=going_on)
    except KeyboardInterrupt:
        if run.scored:
            how = "The same command without --restart" if restart else "The same command"
            print(f"routellm: stopped, {run.scored:,} prompts are scored. {how} goes on from there", file=sys.stderr)
            raise typer.Exit(130) from None
        raise
    finally:
        if bad is not None:
            report_bad(bad)
    more = {"skipped": reader.skipped, "malformed": bad.count if bad is not None else 0}
    skipped = f", {reader.skipped:,} records without a prompt passed over" if reader.skipped else ""
    what = f"{fitted.count:,} prompts" if fitted.count != limit else f"the first {limit:,} prompts (--limit)"
    _show(targets_of(fitted), fitted, out, budget_calls, as_json=as_json, what=what + skipped, **more)


def _show(
    targets: list[Target],
    fitted: Calibration,
    out: Path,
    calls: float,
    *,
    as_json: bool,
    what: str | None = None,
    **more: int,
) -> None:
    """Print the thresholds, as a table or as JSON with `more` in it."""
    if as_json:
        found = {"calibration": str(out), "router": fitted.router, "count": fitted.count, **more}
        print(json.dumps({**found, "targets": [t.to_dict() for t in targets]}))
    else:
        _print(targets, what or f"{fitted.count:,} prompts of {more['parts']} calibrations", out, calls)


def _print(targets: list[Target], what: str, output: Path, calls: float) -> None:
    from rich.table import Table
    from rich.text import Text

    console = console_for_tables()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "threshold", "strong share", "interval", "held-out half"):
        table.add_column(name, justify="left" if name == "target" else "right")
    for target in (t for t in targets if t.kind != "budget"):
        table.add_row(
            f"{100 * target.wanted:.4g}% strong",
            target.threshold_text,
            f"{target.strong_fraction.value:.1%}",
            f"{target.realised.low:.1%} to {target.realised.high:.1%}",
            "–" if target.held_out is None else f"{target.held_out:.1%}",
        )
    console.print(table)
    for target in (t for t in targets if t.kind == "budget"):
        spent = [f"{calls * value:,.4g}" for value in (target.wanted, *astuple(target.realised))]
        for_calls = f"{calls:,g} calls" if calls != 1 else "a call"
        text = (
            f"a budget of {spent[0]} for {for_calls}: threshold {target.threshold_text}, "
            f"{target.strong_fraction.value:.1%} strong, costs {spent[1]} (interval {spent[2]} to {spent[3]})"
        )
        if target.threshold == 0.0 and target.reached:
            text += "; it pays for always strong"
        console.print(Text(text))
    console.print(Text(f"{what}; written: {output}"))
    for message in dict.fromkeys(_warnings(targets)):
        console.print(Text(message, "yellow"))


def _warnings(targets: list[Target]) -> Iterator[str]:
    yield from (target.message for target in targets if not target.reached)
    needed = max((t.needed for t in targets if t.reached), default=0)  # the message of the others says it already
    if needed > targets[0].count:
        yield f"Too few prompts for the wanted precision: about {needed:,} would do."
