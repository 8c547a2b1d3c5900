"""The progress bar of the commands: drawn on a terminal from the calls of a `Progress`, absent from a pipe."""

from __future__ import annotations

import re
from typing import Any

import pytest

from routellm_core.commands.progress import progress_bar


@pytest.mark.parametrize(("percent", "shown"), [(False, "3/12"), (True, "25%")])
def test_a_terminal_shows_how_far_the_work_is(
    percent: bool, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with progress_bar("training", percent=percent) as progress:
        progress(3, 12)
    out, err = capsys.readouterr()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)
    assert re.search(rf"training .*\b{shown}", plain)
    assert out == ""


def test_a_pipe_shows_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with progress_bar("training") as progress:
        progress(1, 2)
        progress(2, 2)
    assert capsys.readouterr() == ("", "")
