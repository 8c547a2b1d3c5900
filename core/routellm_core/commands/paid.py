"""What the commands share that pay for calls: their options, the estimate that they show, and the confirmation."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from routellm_core.labelling import CallEstimate, OpenAIChatModel

JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", help="File that keeps what has been paid for.", show_default="OUT.journal"),
]
Concurrency = Annotated[int, typer.Option(help="Calls under way at a time, for each model.", min=1)]
Retries = Annotated[int, typer.Option(help="Further tries after a failure that may pass.", min=0)]
Tries = Annotated[
    int, typer.Option(help="How often a question is asked in all when the reply is empty or cannot be parsed.", min=1)
]
Timeout = Annotated[float, typer.Option(help="Seconds for one call.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before money is spent.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the estimate and stop.")]


def journal_of(out: Path, journal: Path | None) -> Path:
    """The journal of a command: the one that was named, or the one beside the output."""
    return journal or out.with_name(out.name + ".journal")


def chat_model(
    name: str, url: str | None, key_env: str, timeout: float, *, need_key: bool, **settings: Any
) -> OpenAIChatModel:
    """A model behind an OpenAI-compatible service; an estimate alone needs no key.

    Raises:
        ConfigurationError: `need_key`, and the environment variable is not set.
    """
    from routellm_core.labelling import OpenAIChatModel

    key = None if need_key else "no call is made"
    return OpenAIChatModel(name, base_url=url, api_key=key, key_env=key_env, timeout=timeout, **settings)


def confirmed(estimates: Mapping[str, CallEstimate], journal: Path, *, yes: bool, dry_run: bool, as_json: bool) -> bool:
    """Show what the calls will take, and return whether to make them.

    Args:
        estimates: The estimate of each part, by what it is for.
        journal: Where earlier replies come from.
        yes: Whether the user has confirmed already.
        dry_run: Whether the estimate is all that the user wants.
        as_json: Whether to print it as JSON then.

    Raises:
        ConfigurationError: There is something to pay for, and nobody who could confirm it.
    """
    _show(estimates, journal)
    if dry_run:
        if as_json:
            print(json.dumps({what: estimate.to_dict() for what, estimate in estimates.items()}))
        return False
    if any(estimate.calls for estimate in estimates.values()) and not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                "stdin is not a terminal: pass --yes to confirm, or --dry-run for the estimate alone"
            )
        typer.confirm("Go on?", abort=True, err=True)
    return True


def _show(estimates: Mapping[str, CallEstimate], journal: Path) -> None:
    from routellm_core.labelling import total_cost

    for what, estimate in estimates.items():
        known = f" ({estimate.remembered} more are in {journal})" if estimate.remembered else ""
        cost = "" if estimate.cost is None else f", about {money(estimate.cost)} at these prices"
        print(
            f"{what}: {estimate.calls} calls{known}, about {estimate.prompt_tokens:,} + {estimate.completion_tokens:,} "
            f"tokens{cost}",
            file=sys.stderr,
        )
    calls = sum(estimate.calls for estimate in estimates.values())
    if not calls:
        return
    most_calls = sum(estimate.most_calls for estimate in estimates.values())
    total = total_cost(estimates.values())
    cost, most = ("", "") if total is None else (f", about {money(total[0])}", f", about {money(total[1])}")
    print(
        f"in all: {calls} calls{cost}; at most {most_calls} calls{most}, if every reply has to be asked for again",
        file=sys.stderr,
    )


def money(amount: float) -> str:
    """An amount with two decimals, and more where it is below 1."""
    return f"{amount:.2f}" if amount >= 1 or amount == 0 else f"{amount:.4f}"
