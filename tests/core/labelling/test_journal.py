"""The journal of paid calls: crashes, other files, and who may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from routellm_core import DataError
from routellm_core.labelling import (
    judge_battles,
)
from routellm_core.labelling.journal import Journal
from tests.core.labelling.services import model_at, rows_of
from tests.support.openai_server import OpenAIServer


async def test_a_line_cut_off_by_a_crash_is_dropped(server: OpenAIServer, tmp_path: Path) -> None:
    journal = tmp_path / "j"
    async with model_at(server) as judge:
        first, _ = await judge_battles(rows_of(4), judge, strong="big", weak="small", journal=journal)
        whole = journal.read_bytes()
        journal.write_bytes(whole[:-20])
        second, report = await judge_battles(rows_of(4), judge, strong="big", weak="small", journal=journal)
    assert second == first
    assert (report.calls.asked, report.calls.remembered) == (1, 7)
    assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_journal_refuses_other_files_and_a_second_writer(tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"prompt": "p"}\n')
    with pytest.raises(DataError, match="line 1"):
        Journal(tmp_path / "other")
    assert (tmp_path / "other").read_text() == '{"prompt": "p"}\n'
    with Journal(tmp_path / "j"), pytest.raises(DataError, match="another run"):
        Journal(tmp_path / "j")
