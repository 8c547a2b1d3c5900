"""`routellm learn`: from a traffic log to a router of your own, with proof."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.commands.options import AsJson, Prices, parse_prices
from routellm_core.commands.progress import progress_bar
from routellm_core.commands.traffic import Since, Url, parse_moment
from routellm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from routellm_core.log.database import TrafficDatabase
    from routellm_core.training.learning import Learned

# The exit code that says: nothing to use yet.
NOT_YET = 3


def learn(
    data: Url,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of router versions, for a new one where it is recommended."),
    ],
    judge: Annotated[
        str | None, typer.Option(help="Model that labels pairs without a label, as its service names it.")
    ] = None,
    grader: Annotated[
        str | None, typer.Option(help="Your own grader, package.module:function of (answer, gold, prompt=...).")
    ] = None,
    router: Annotated[
        str | None,
        typer.Option(
            "--router",
            "-r",
            help="The router in use: a name, a directory, or package.module:Class.",
            show_default="the one at --out, or the bundled one",
        ),
    ] = None,
    strong_fraction: Annotated[
        float | None, typer.Option(help="Share of strong calls to measure at.", show_default="that of the log")
    ] = None,
    since: Since = None,
    key: Annotated[str, typer.Option(help="Feedback of this key counts.")] = "score",
    base_url: Annotated[
        str | None, typer.Option(help="URL of the judge's service.", show_default="OPENAI_BASE_URL, or OpenAI")
    ] = None,
    key_env: Annotated[str, typer.Option(help="Environment variable with the judge's API key.")] = "OPENAI_API_KEY",
    timeout: Annotated[float, typer.Option(help="Seconds for one call of the judge.")] = 120.0,
    journal: Annotated[
        Path | None, typer.Option(help="File that keeps what the judge was paid for.", show_default="OUT.journal")
    ] = None,
    price: Prices = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds.", min=0)] = 0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before money is spent.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what the judge would cost and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Learn a router from logged traffic, with proof.

    It labels what has no label, trains, and says whether the result is better. Exits 3 with "not yet".

    Example: routellm learn --data sqlite:///traffic.db --judge gpt-4.1 --out my-router

    From 100 labelled pairs on there is a correction of the router in use, from 400 on a verdict, at doublings of the
    pairs; from 800 on routers from nothing are tried, too. What was paid for is never paid for again.
    """
    from routellm_core.labelling import OpenAIChatModel
    from routellm_core.log import TrafficDatabase
    from routellm_core.routers import load_router
    from routellm_core.training import learn as run

    moment = parse_moment(since, "--since")
    kept = journal or out.with_name(out.name + ".journal")
    with TrafficDatabase(data) as database:
        options: dict[str, Any] = {
            "router": None if router is None else load_router(router),
            "strong_fraction": strong_fraction,
            "since": moment,
            "key": key,
            "grader": grader,
            "journal": kept,
            "seed": seed,
        }
        if judge is not None:
            estimate = _estimate(database, judge, moment, kept, price)
            if dry_run:
                if as_json:
                    print(json.dumps(estimate))
                return
            if estimate["calls"] and not yes:
                if not sys.stdin.isatty():
                    raise ConfigurationError(
                        "stdin is not a terminal: pass --yes to confirm, or --dry-run for the estimate alone"
                    )
                typer.confirm("Go on?", abort=True, err=True)
            # without a call to make, the journal has every reply, and no key is needed
            api_key = None if estimate["calls"] else "unused"
            options["judge"] = OpenAIChatModel(
                judge, base_url=base_url, api_key=api_key, key_env=key_env, timeout=timeout
            )
        elif dry_run or price:
            raise ConfigurationError(f"{'--dry-run' if dry_run else '--price'} is about the judge: give --judge MODEL")
        with progress_bar("judging") as progress:
            learned = run(database, out, **options, progress=progress)
    if as_json:
        print(json.dumps(learned.to_dict()))
    else:
        _print(learned, data)
    if learned.outcome != "gains":
        raise typer.Exit(NOT_YET)


def _estimate(
    database: TrafficDatabase, judge: str, since: float | None, journal: Path, price: list[str] | None
) -> dict[str, Any]:
    """What the judge will cost, printed to stderr."""
    from routellm_core.training.learning import estimate_labels

    prices = parse_prices(price)
    if unknown := sorted(prices.keys() - {judge}):
        raise ConfigurationError(f"--price {unknown[0]}=...: only the judge, {judge}, is asked")
    estimate = estimate_labels(database, judge=judge, since=since, journal=journal, price=prices.get(judge))
    known = f" ({estimate.remembered} more are in {journal})" if estimate.remembered else ""
    cost = "" if estimate.cost is None else f", about {estimate.cost:.2f} at this price"
    print(
        f"judge: {estimate.rows} pairs without a label, {estimate.calls} calls{known}, about "
        f"{estimate.prompt_tokens:,} + {estimate.completion_tokens:,} tokens{cost}",
        file=sys.stderr,
    )
    return estimate.to_dict()


def _print(learned: Learned, data: str) -> None:
    from routellm_core.log.urls import shown_url
    from routellm_core.routers import RouterFolder

    print(learned.sentence)
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in learned.counts.items() if count)
    print(f"pairs: {counts or 'none'}")
    for note in learned.notes:
        print(f"- {note}")
    if learned.out is not None:
        folder = RouterFolder(learned.out)
        version = folder.version_path() if folder.versions else learned.out
        print(f"in use from now on: {version} (report: {version / 'evaluation' / 'report.html'})")
        argv = ["routellm", "replay", "--data", shown_url(data), "--router", str(learned.out)]
        print(f"try it on the log: {shlex.join([*argv, '--strong-fraction', f'{learned.strong_fraction:.2g}'])}")
