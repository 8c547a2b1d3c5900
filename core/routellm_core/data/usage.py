"""Tokens that the calls of labelled data took."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from routellm_core.data.files import SkippedRows
from routellm_core.data.reading import read_preferences
from routellm_core.errors import DataError


class MeanTokens(NamedTuple):
    """Mean tokens of a call.

    Attributes:
        input: Mean input tokens.
        output: Mean output tokens.
        calls: Number of calls whose tokens are known.
    """

    input: float
    output: float
    calls: int


def mean_tokens(path: str | Path, *, form: str | None = None) -> MeanTokens | None:
    """The mean tokens of the calls in a file of outcomes or battles, of all models together.

    Malformed rows are skipped.

    Args:
        path: The file.
        form: Name of the foreign form of its rows; None finds it out by the content.

    Returns:
        The means; None where no row has tokens, or the file holds no outcomes or battles.
    """
    calls, read, written = 0, 0.0, 0.0
    try:
        for record in read_preferences(path, form=form, skip_bad=SkippedRows()):
            for used in record.tokens.values():
                if used.input is not None and used.output is not None:
                    calls, read, written = calls + 1, read + used.input, written + used.output
    except DataError:  # traffic, without labels
        return None
    return MeanTokens(read / calls, written / calls, calls) if calls and read + written > 0 else None
