"""What the commands share that read and write records: malformed rows, and an output that must not be the data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from routellm_core.checks import same_file
from routellm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from routellm_core.data.files import SkippedRows

SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave malformed rows out, count and report them.")]


def told_bad(bad: SkippedRows) -> None:
    """Say on stderr which rows were left out, if any."""
    if bad.count:
        print(f"left out {bad.count} malformed rows; the first:", file=sys.stderr)
        for message in bad.first:
            print(f"  {message}", file=sys.stderr)


def check_output(out: Path, data: Path) -> None:
    """Refuse an output that could not be written, or that would replace the data it is made from."""
    from routellm_core.data.writing import format_of

    format_of(out)
    if same_file(out, data):
        raise ConfigurationError(f"--out {out} is the data themselves: give another file")
