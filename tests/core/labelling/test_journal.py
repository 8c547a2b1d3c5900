"""The journal of paid calls: crashes, other files, and who may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from routellm_core import DataError
from routellm_core.labelling import (
    judge_battles,
)
from routellm_core.labelling.journal import Journal, merge_journals, read_journal
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


def test_journals_of_shards_become_one(tmp_path: Path) -> None:
    answer, empty = {"text": "yes"}, None
    with Journal(tmp_path / "1") as one, Journal(tmp_path / "2") as two:
        one.add("a", value=empty, tokens=[1, 0])
        one.add("a", value=empty, tokens=[1, 0])  # asked again, and paid again
        one.add("b", value=answer)
        two.add("b", value=answer)
        two.add("c", value=answer)
    with (tmp_path / "2").open("ab") as file:
        file.write(b'{"key": "d", "va')  # cut off by a crash
    assert merge_journals([tmp_path / "1", tmp_path / "2"], tmp_path / "all") == 4
    merged = read_journal(tmp_path / "all")
    assert {key: [entry["value"] for entry in entries] for key, entries in merged.items()} == {
        "a": [empty, empty],
        "b": [answer],
        "c": [answer],
    }
    assert merge_journals([tmp_path / "2", tmp_path / "all", tmp_path / "1"], tmp_path / "all") == 0
    assert read_journal(tmp_path / "all") == merged


def test_only_journals_are_merged(tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"prompt": "p"}\n')
    for part, message in (("other", "line 1"), ("absent", "no such file")):
        with pytest.raises(DataError, match=message):
            merge_journals([tmp_path / part], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    with Journal(tmp_path / "1"), Journal(tmp_path / "all"), pytest.raises(DataError, match="another run"):
        merge_journals([tmp_path / "1"], tmp_path / "all")
