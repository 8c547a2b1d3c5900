"""The progress bars of the long commands: on stderr where a person watches, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar in percent for an amount that is known before; yields the function that advances it by so much."""
    from rich.progress import TextColumn

    with _bar(label, total, TextColumn("{task.percentage:.0f}%")) as update:
        yield lambda amount: update(advance=amount)


@contextmanager
def counted_progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with counts for work that says how far it is itself; yields the function that takes (done, total)."""
    from rich.progress import MofNCompleteColumn

    with _bar(label, None, MofNCompleteColumn()) as update:
        yield lambda done, total: update(completed=done, total=total)


@contextmanager
def _bar(label: str, total: int | None, amount: ProgressColumn) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield partial(progress.update, progress.add_task(label, total=total))
