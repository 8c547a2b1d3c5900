"""`routellm replay`: what another router or threshold would have given on logged traffic."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from routellm_core.commands.learn import NOT_YET
from routellm_core.commands.options import AsJson
from routellm_core.commands.traffic import Since, Until, Url, parse_moment

if TYPE_CHECKING:
    from routellm_core.evaluation.replay import Replay
    from routellm_core.statistics.intervals import Estimate


def replay(
    data: Url,
    router: Annotated[
        str | None,
        typer.Option(
            "--router",
            "-r",
            help="Router to try: a name, a directory, or package.module:Class.",
            show_default="the logged win rates",
        ),
    ] = None,
    strong_fraction: Annotated[float | None, typer.Option(help="Share of strong calls to try.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Threshold to try, instead.")] = None,
    since: Since = None,
    until: Until = None,
    key: Annotated[str, typer.Option(help="Feedback of this key counts.")] = "score",
    source: Annotated[str | None, typer.Option(help="Feedback of this source alone.")] = None,
    labeller: Annotated[
        str | None, typer.Option(help="Labels of this labeller alone.", show_default="gold before judges")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Estimate another router or threshold on logged calls.

    Says what its quality and cost would have been, without trying it on users.

    Example: routellm replay --data sqlite:///traffic.db --router my-router --strong-fraction 0.2

    It takes exploration or shadow calls, and labels or feedback. Exits 3 where the log cannot carry an estimate.
    """
    from routellm_core.evaluation import replay as run
    from routellm_core.log import TrafficDatabase
    from routellm_core.routers import load_router

    with TrafficDatabase(data) as database:
        outcomes = database.outcomes(
            since=parse_moment(since, "--since"),
            until=parse_moment(until, "--until"),
            key=key,
            source=source,
            labeller=labeller,
        )
        found = run(
            outcomes,
            router=None if router is None else load_router(router),
            strong_fraction=strong_fraction,
            threshold=threshold,
            seed=seed,
        )
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        _print(found)
    if found.refusal is not None:
        raise typer.Exit(NOT_YET)


def _print(found: Replay) -> None:
    days = [datetime.fromtimestamp(moment, UTC).date() for moment in (found.since, found.until)]
    print(f"{found.calls:,} calls from {days[0]} to {days[1]}; {found.scored:.0%} of the answers have a score")
    if found.left_out:
        print("left out: " + ", ".join(f"{count:,} {cause}" for cause, count in found.left_out.items()))
    at = "" if found.threshold is None else f" (threshold {found.threshold:.4f})"
    print(f"strong calls: {found.strong_fraction:.1%}{at}, in use {found.in_use_fraction:.1%}")
    if found.quality is None or found.difference is None:
        print(f"no estimate: {found.refusal}")
    else:
        print(f"quality: {found.quality}; against the policy in use {_signed(found.difference)}")
        if found.cost is not None and found.cost_difference is not None:
            print(f"cost of 1,000 calls: {_thousand(found.cost)}; against the policy in use "
                  f"{_thousand(found.cost_difference)}")  # fmt: skip
    print(f"effective deviations: {found.effective_deviations:.0f}")
    if found.drift is not None:
        word = "drifted" if found.drift.drifted else "no proof of a drift"
        print(f"win rates of the later half of the period: {word} (distance {found.drift.distance:.2f})")
    for note in found.notes:
        print(f"- {note}")


def _signed(e: Estimate) -> str:
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def _thousand(e: Estimate) -> str:
    return f"{1000 * e.value:.4g} [{1000 * e.low:.4g}, {1000 * e.high:.4g}]"
