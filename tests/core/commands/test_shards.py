"""Scoring in parts: shards of a file and merged calibrations give what one machine gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from routellm_core import Calibration, load_router
from routellm_core.cli import main

PROMPTS = [f"Question {i}: what is {i} times {i * i}?" for i in range(50)]


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return file


def routed(capsys, *words) -> list[dict]:
    with pytest.raises(SystemExit) as ended:
        main(["route", *map(str, words), "--json"])
    assert ended.value.code == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_shards_of_a_file_are_the_file(prompts, capsys):
    whole = routed(capsys, "--data", prompts)
    parts = [row for k in (1, 2, 3) for row in routed(capsys, "--data", prompts, "--shard", f"{k}/3")]
    assert [len(parts), len(whole)] == [50, 50]
    by_index = {row["index"]: (row["prompt"], row["win_rate"]) for row in parts}
    assert by_index == {row["index"]: (row["prompt"], row["win_rate"]) for row in whole}


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0"])
def test_a_shard_that_does_not_exist(prompts, shard, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["route", "--data", str(prompts), f"--shard={shard}"])
    assert ended.value.code == 2
    assert "--shard" in capsys.readouterr().err


def test_merged_parts_are_the_calibration_of_all(tmp_path, capsys):
    router = load_router()
    for k in range(3):
        Calibration.fit(router, PROMPTS[k::3]).save(tmp_path / f"part-{k}.json")
    out = tmp_path / "all.json"
    parts = [str(tmp_path / f"part-{k}.json") for k in range(3)]
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--merge", *parts, "--out", str(out), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["count"] == 50
    whole, merged = Calibration.fit(router, PROMPTS), Calibration.load(out)
    np.testing.assert_array_equal(merged.values, whole.values)
    np.testing.assert_array_equal(merged.counts, whole.counts)


def test_parts_of_two_routers_are_refused(tmp_path, capsys):
    Calibration.fit(load_router(), PROMPTS).save(tmp_path / "a.json")
    Calibration.fit(load_router("random"), PROMPTS).save(tmp_path / "b.json")
    out = tmp_path / "c.json"
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--merge", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--out", str(out)])
    assert ended.value.code == 2
    assert "two routers" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("words", [["--merge"], ["part.json"], ["--merge", "--data", "x", "a.json"], []])
def test_merge_or_data(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", *words])
    assert ended.value.code == 2
    assert "--merge" in capsys.readouterr().err


def test_condensed_parts_lose_little():
    """64 parts at 512 values each, of traffic that differs from part to part."""
    rng = np.random.default_rng(0)
    rates = [rng.beta(2 + k % 5, 5, size=3000) for k in range(64)]
    parts = [Calibration.from_win_rates(part).condensed(512) for part in rates]
    merged, every = Calibration.merge(parts), np.concatenate(rates)
    for share in (0.05, 0.1, 0.3, 0.5, 0.9):
        realised = float(np.mean(every >= merged.threshold(strong_fraction=share)))
        assert abs(realised - share) <= 1 / 512
