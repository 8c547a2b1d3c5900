"""The progress bars of the long commands: on stderr where a person watches, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from routellm_core.report.escaping import printable

if TYPE_CHECKING:
    from routellm_core.checks import Progress


@contextmanager
def progress_bar(label: str, *, percent: bool = False) -> Iterator[Progress]:
    """Yield a `Progress` that is drawn as a bar with counts or, for bytes and the like, in percent."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:  # a disabled bar of rich 14.2 and older still ends with an empty line
        yield lambda done, total: None
        return
    amount = progress.TextColumn("{task.percentage:.0f}%") if percent else progress.MofNCompleteColumn()
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        amount,
        progress.TimeElapsedColumn(),  # moves while a slow model still works on its first answers
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
