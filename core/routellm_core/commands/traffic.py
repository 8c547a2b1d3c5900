"""`routellm traffic`: plan what logging and shadow calls cost, and see what a log holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from routellm_core.commands.options import (
    AsJson,
    Command,
    Currency,
    Prices,
    TokensOfACall,
    console_for_tables,
    parse_prices,
    parse_tokens,
)
from routellm_core.errors import ConfigurationError
from routellm_core.report.escaping import printable

if TYPE_CHECKING:
    from routellm_core.log import TrafficDatabase
    from routellm_core.log.rows import TotalBy
    from routellm_core.policy.savings import Price

app = typer.Typer(
    name="traffic",
    help="Plan, sum up and report what an app has logged.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Url = Annotated[
    str, typer.Option("--data", "-d", help="The log: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.")
]
Since = Annotated[str | None, typer.Option("--since", help="Calls from this day or moment on, such as 2026-11-01.")]
Until = Annotated[str | None, typer.Option("--until", help="Calls before this day or moment.")]


@app.command(cls=Command)
def plan(
    calls_per_day: Annotated[int, typer.Option(help="Calls of the app in a day.", min=1)],
    price: Prices = None,
    tokens: TokensOfACall = None,
    shadow: Annotated[float, typer.Option(help="Share of the calls that the other model answers, too.")] = 0.05,
    strong_fraction: Annotated[float, typer.Option(help="Share of strong calls.")] = 0.3,
    judge: Annotated[
        str | None, typer.Option(help="Model of --price that labels the pairs.", show_default="the strong model")
    ] = None,
    gain: Annotated[float, typer.Option(help="Gain over the static mix to show, in scores.")] = 0.02,
    flips: Annotated[float, typer.Option(help="Share of pairs that the judge labels the wrong way round.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Say what shadow calls cost, and when to expect a verdict.

    Example: routellm traffic plan --calls-per-day 5000 --price gpt=2/8 --price mini=.4/1.6

    Of the two prices the higher one is the strong model's. It adds what labels by a judge cost, in both orders.
    """
    from routellm_core.log.plan import plan_traffic

    prices = parse_prices(price)
    used = parse_tokens(tokens) or (220.0, 310.0)
    by_cost = sorted(prices, key=lambda model: prices[model].cost(round(used[0]), round(used[1])))
    models = [model for model in by_cost if model != judge or len(prices) == 2]
    if len(models) not in (0, 2):
        raise ConfigurationError(
            f"--price is given for {len(models)} models: expected two, the strong and the weak one, and a third with "
            "--judge"
        )
    if judge is not None and judge not in prices:
        raise ConfigurationError(f"--judge {judge!r} has no price: add --price {judge}=IN/OUT")
    weak, strong = (prices[model] for model in models) if models else (None, None)
    made = plan_traffic(
        calls_per_day,
        shadow=shadow,
        strong_fraction=strong_fraction,
        tokens=used,
        strong=strong,
        weak=weak,
        judge=strong if judge is None else prices[judge],
        gain=gain,
        flips=flips,
    )
    if as_json:
        print(json.dumps(made.to_dict()))
        return
    from rich.table import Table

    console = console_for_tables()
    console.print(f"{made.pairs_a_day:,.0f} pairs a day from {shadow:.0%} of {calls_per_day:,} calls")
    if made.routed is not None and made.shadow is not None:
        share = f"{made.shadow / made.routed:+.1%}" if made.routed else "-"
        console.print(f"routed calls cost {made.routed:.2f} a day, shadow calls {made.shadow:.2f} ({share})")
        if made.judge is not None:
            both = f"{(made.shadow + made.judge) / made.routed:+.1%}" if made.routed else "-"
            console.print(
                f"labels by a judge in both orders cost {made.judge:.2f} a day ({both} with the shadow calls)"
            )
    table = Table("enough for", "pairs", "after days", "cost")
    for milestone in made.milestones:
        days = "never" if milestone.days is None else f"{milestone.days:.1f}"
        table.add_row(milestone.name, f"{milestone.pairs:,}", days, _money(milestone.cost))
    console.print(table)
    console.print("Out of fold, routers are a little worse than in the end: plan 800 to 1,000 pairs.")


@app.command(cls=Command)
def summary(
    data: Url,
    since: Since = None,
    until: Until = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="Answers, tokens and money by side, model, user or day, in the place of all that the log holds.",
            show_default=False,
        ),
    ] = None,
    price: Prices = None,
    as_json: AsJson = False,
) -> None:
    """Say what a log holds. Calls, pairs, feedback, latency, and what could not be logged.

    Example: routellm traffic summary --data sqlite:///traffic.db

    Example: routellm traffic summary --data sqlite:///traffic.db --by user
    """
    from routellm_core.log import TrafficDatabase

    period = {"since": parse_moment(since, "--since"), "until": parse_moment(until, "--until")}
    if by is not None:
        _totals(data, by, parse_prices(price) or None, period, as_json=as_json)
        return
    if price:
        raise ConfigurationError("--price is of use with --by only: the summary shows the costs that the log has")
    with TrafficDatabase(data) as database:
        found = database.summary(**period)
    if as_json:
        print(json.dumps(found.to_dict()))
        return
    from rich.table import Table

    console = console_for_tables()
    if found.first is not None and found.last is not None and found.strong_fraction is not None:
        console.print(
            f"{found.calls:,} calls from {_day(found.first)} to {_day(found.last)}, {found.strong_fraction:.1%} strong"
        )
    else:
        console.print("no calls")
    if found.observed is not None:
        share = found.observed.strong / found.observed.calls
        console.print(
            f"{found.observed.calls:,} of them only observed: by their win rates, {share:.1%} would have been strong"
        )
    console.print(
        f"{found.pairs:,} pairs, {found.pairs_without_label:,} without a label; {found.labels:,} labels, "
        f"{found.feedback:,} scores of feedback"
    )
    table = Table("", "strong", "weak")
    rows: list[tuple[str, Any]] = [
        ("answers", lambda side: f"{side.calls:,}"),
        ("failures", lambda side: f"{side.errors:,}"),
        ("refused", lambda side: f"{side.refused:,}"),
        ("shadow calls", lambda side: f"{side.shadows:,}"),
        ("shadow failures", lambda side: f"{side.shadow_errors:,}"),
        ("input tokens", lambda side: f"{side.input_tokens:,}"),
        ("output tokens", lambda side: f"{side.output_tokens:,}"),
        ("cost", lambda side: _money(side.cost)),
        ("shadow cost", lambda side: _money(side.shadow_cost)),
        ("latency 50/90/99 %, s", lambda side: "/".join(f"{v:.2f}" for v in side.latency) if side.latency else "-"),
    ]
    for name, of_side in rows:
        table.add_row(name, of_side(found.sides["strong"]), of_side(found.sides["weak"]))
    console.print(table)
    if found.reasons:
        console.print("reasons: " + ", ".join(f"{reason} {count:,}" for reason, count in found.reasons.items()))
    lost = ", ".join(f"{count:,} {cause}" for cause, count in found.dropped.items())
    console.print(f"not logged: {lost or 'nothing'}")
    if found.skipped_shadows:
        console.print(f"shadow calls given up when a program ended: {found.skipped_shadows:,}")


def _totals(
    data: str, by: str, prices: dict[str, Price] | None, period: dict[str, float | None], *, as_json: bool
) -> None:
    """Print answers, tokens and money by one of them."""
    from routellm_core.log import TrafficDatabase

    with TrafficDatabase(data) as database:
        found = database.totals(cast("TotalBy", by), prices=prices, **period)
        _check_prices(database, prices or {}, period)
    if as_json:
        print(json.dumps({"by": by, "totals": [asdict(total) for total in found]}))
        return
    from rich.table import Table
    from rich.text import Text

    console = console_for_tables()
    table = Table(by, "answers", "refused", "shadows", "input tokens", "output tokens", "cost", "shadow cost")
    for total in found:
        counts = (total.answers, total.refused, total.shadows, total.input_tokens, total.output_tokens)
        name = Text(printable(total.key) if total.key is not None else "unknown")
        table.add_row(name, *(f"{n:,}" for n in counts), _cost(total.cost), _cost(total.shadow_cost))
    console.print(table)
    lacking = sum(total.without_cost for total in found)
    if lacking:
        console.print(
            f"{lacking:,} answers have no cost: their tokens or prices are unknown; --price MODEL=IN/OUT gives prices"
        )


def _check_prices(database: TrafficDatabase, prices: Mapping[str, Price], period: Mapping[str, float | None]) -> None:
    """Say on stderr which prices no answer goes by: a misspelt name must not look like a model without a price."""
    from routellm_core.report.traffic import unused_prices

    spending = database.spending(**period)
    unused = unused_prices(prices, spending)
    models = sorted({row.model for row in spending if row.model is not None})
    if unused and models:
        print(
            f"--price is of no use for {_named(unused)}: no answer of this period is by that name. Models in the log: "
            f"{_named(models)}; the sides strong and weak have prices, too",
            file=sys.stderr,
        )


def _named(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


@app.command(cls=Command)
def feedback(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            "-d",
            help="CSV, JSON lines, JSON or parquet; also exports of LangSmith feedback and Langfuse scores.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", "--log", help="The log that the scores go to: sqlite:///FILE or a PostgreSQL address."
        ),
    ],
    scale: Annotated[str, typer.Option(help="Lowest and highest score in the file, such as 1/5.")] = "0/1",
    as_json: AsJson = False,
) -> None:
    """Add scores from a file. Adding the same file again changes nothing.

    Example: routellm traffic feedback --data scores.csv --out sqlite:///traffic.db

    A row names its call by call_id (the id of the decision), or by run_id or trace_id of LangChain, LlamaIndex,
    LangSmith or Langfuse, and has a score (or value), and where it likes a key (or name), a source and a side.
    """
    from routellm_core.data.files import read_rows
    from routellm_core.log import TrafficDatabase
    from routellm_core.log.feedback import feedback_of_rows

    ends = scale.split("/")
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise ConfigurationError(f"--scale {scale!r}: expected the lowest and the highest score, such as 1/5") from None
    rows = list(feedback_of_rows(read_rows(data), scale=(low, high)))
    with TrafficDatabase(out) as database:
        new = database.add_feedback(rows)
        call_of = {row.id: row.call_id for row in database.feedback() if row.call_id is not None}
        known = database.known_calls(call_of.values())
    joined = sum(call_of.get(row.id) in known for row in rows)
    if as_json:
        print(json.dumps({"rows": len(rows), "new": new, "joined": joined}))
    else:
        print(f"{len(rows):,} scores, {new:,} of them new; {joined:,} belong to a call of the log")


@app.command(cls=Command)
def report(
    data: Url,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write, an .html file.")],
    price: Prices = None,
    currency: Currency = None,
    since: Since = None,
    until: Until = None,
    key: Annotated[str, typer.Option(help="Which feedback is quality.")] = "score",
    as_json: AsJson = False,
) -> None:
    """Write one HTML page. Calls and money by day, measured savings, latency, feedback, drift, what was learned.

    Example: routellm traffic report --data sqlite:///traffic.db --out traffic.html --price gpt=2/8 --price mini=.4/1.6
    """
    from routellm_core.log import TrafficDatabase
    from routellm_core.report.traffic import traffic_page

    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigurationError(f"--out {out}: expected an .html file")
    period = {"since": parse_moment(since, "--since"), "until": parse_moment(until, "--until")}
    with TrafficDatabase(data) as database:
        prices = parse_prices(price)
        _check_prices(database, prices, period)
        page = traffic_page(database, prices=prices, currency=currency or "", key=key, **period)
    out.write_text(page, encoding="utf-8")
    print(json.dumps({"out": str(out)}) if as_json else out)


def parse_moment(value: str | None, option: str) -> float | None:
    """The moment that an option gives, in seconds since 1970; a day begins in UTC.

    Raises:
        ConfigurationError: It is not a day or a moment.
    """
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigurationError(
            f"{option} {value!r}: expected a day or a moment, such as 2026-11-01 or 2026-11-01T08:00"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def _cost(value: float | None) -> str:
    """Money in as many digits as a small sum needs."""
    if value is None:
        return "-"
    return f"{value:,.2f}" if value == 0 or abs(value) >= 1 else f"{value:.4g}"


def _money(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"
