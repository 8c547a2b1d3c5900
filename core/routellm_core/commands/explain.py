"""`routellm explain`: why a prompt gets the win rate that it gets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routellm_core.commands.options import AsJson, RouterName, console_for_tables
from routellm_core.report.escaping import printable

if TYPE_CHECKING:
    from routellm_core.evaluation.explanation import Explanation

# From so many prompts on a percent is within three points of what further prompts would say.
_MANY = 1000


def explain(
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    router: RouterName = "mf_vote",
    calibration: Annotated[Path | None, typer.Option(help="Calibration file.", show_default="the router's own")] = None,
    top: Annotated[int, typer.Option(help="How many words and features to show.", min=1)] = 8,
    as_json: AsJson = False,
) -> None:
    """Say what a prompt's win rate is, how it ranks, and why.

    Shows which shares of strong calls send it to the strong model, and what in it speaks for that.

    Example: routellm explain "Prove that the square root of 2 is irrational."
    """
    from routellm_core.calibration.distribution import Calibration
    from routellm_core.evaluation.explanation import explain_prompt
    from routellm_core.routers import load_router

    found = load_router(router)
    fitted = found.calibration if calibration is None else Calibration.load(calibration)
    if fitted is not None:
        fitted.check_router(found)
    result = explain_prompt(found, prompt, fitted, top=top)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        _print(result)


def _print(result: Explanation) -> None:
    from rich.table import Table
    from rich.text import Text

    console = console_for_tables()
    console.print(Text(printable(f"win rate {result.win_rate:.4f} ({result.router}){_rank(result)}")))

    def show(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        if not rows:
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console.print(Text(f"\n{title}", "italic"))
        console.print(table)

    show(
        "where it goes for a wanted share of strong calls",
        ("strong calls", "threshold", "goes to"),
        [(f"{t.strong_fraction:.0%}", f"{t.threshold:.4f}", t.model) for t in result.targets],
    )
    show(
        "words: what leaving one out takes from the win rate",
        ("word", "effect"),
        [(w.word, f"{w.effect:+.4f}") for w in result.words],
    )
    show(
        "features: the largest summands of the win rate's logit, beside a constant",
        ("feature", "summand"),
        [(f.feature, f"{f.logit:+.3f}") for f in result.features],
    )
    show(
        "nearest battles (tier 0 is best)",
        ("battle", "similarity", "speaks for"),
        [
            (f"tier {b.first_tier} {b.outcome} against tier {b.second_tier}", f"{b.similarity:.3f}", b.speaks_for)
            for b in result.battles
        ],
    )
    show(
        "nearest of the prompts that it was trained on",
        ("similarity", "strong scored", "weak scored", "speaks for"),
        [
            (f"{o.similarity:.3f}", f"{o.strong_score:.4g}", f"{o.weak_score:.4g}", o.speaks_for)
            for o in result.outcomes
        ],
    )
    if result.router == "random":
        console.print(Text("\nthe win rate is random: it does not depend on its words", "italic"))
    if not result.targets:
        console.print(Text("no calibration: fit one with routellm calibrate, or give --calibration FILE", "yellow"))


def _rank(result: Explanation) -> str:
    """How the win rate ranks: a count where a percent would claim more than so few prompts give."""
    if result.percentile is None or result.percentile_interval is None or result.calibrated_on is None:
        return ""
    count = result.calibrated_on
    share = f"{round(result.percentile * count)}" if count < _MANY else _percent(result.percentile)
    low, high = result.percentile_interval
    return f", higher than {share} of {count:,} calibration prompts (95% interval {_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    """Whole percent, but next to 0 % and 100 % as exact as it takes: neither is shown where it is not exact."""
    if 0.0 < share < 0.01:
        return f"{100 * share:.2g}%"
    return f"{100 - float(f'{100 * (1 - share):.2g}'):g}%" if 0.99 < share < 1.0 else f"{share:.0%}"
