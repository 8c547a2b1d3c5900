"""`routellm learn` and `routellm replay`: arguments in, exit codes and JSON out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from routellm_core.cli import main
from routellm_core.commands.learn import _print
from routellm_core.routers.folder import RouterFolder
from routellm_core.training.learning import Learned
from tests.core.training.test_learning import Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        main(list(argv))
    told = capsys.readouterr()
    return int(exited.value.code or 0), told.out, told.err


def test_not_yet_is_exit_code_3_and_says_how_many_more(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.calls(130).label()
    out = tmp_path / "mine"
    code, told, _ = run(capsys, "learn", "--data", log.url, "--out", str(out))
    assert code == 3
    assert "not yet: about" in told
    assert "more pairs would tell" in told
    assert not out.exists()


def test_not_yet_comes_before_the_share_to_measure_at(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its first days an app may have sent all calls one way: that is no mistake of whoever asks."""
    log.calls(12, threshold=1.0).label()
    code, told, _ = run(capsys, "learn", "--data", log.url, "--out", str(tmp_path / "mine"))
    assert (code, told.splitlines()[0][:42]) == (3, "not yet: about 388 more pairs would tell. ")


def test_a_gain_is_exit_code_0_and_replay_takes_what_was_learned(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.calls(430).label()
    out = tmp_path / "mine"
    code, told, _ = run(capsys, "learn", "--data", log.url, "--out", str(out), "--json")
    assert code == 0
    learned: dict[str, Any] = json.loads(told)
    assert learned["outcome"] == "gains"
    assert learned["gain"]["low"] > 0
    assert RouterFolder(out).versions
    code, told, _ = run(capsys, "replay", "--data", log.url, "--router", str(out), "--strong-fraction", "0.3", "--json")
    assert code == 0
    replayed: dict[str, Any] = json.loads(told)
    for name in ("quality", "difference"):
        assert replayed[name]["low"] <= replayed[name]["value"] <= replayed[name]["high"]
    assert replayed["effective_deviations"] > 30
    assert replayed["strong_fraction"] == pytest.approx(0.3, abs=0.02)
    code, told, _ = run(capsys, "replay", "--data", log.url, "--threshold", "0.1")
    assert "quality: " in told
    assert "cost of 1,000 calls" in told


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("sqlite:////tmp/my logs/traffic.db", "sqlite:////tmp/my logs/traffic.db"),
        ("postgresql://app:secret@host/logs", "postgresql://app:***@host/logs"),
    ],
)
def test_the_last_line_of_a_gain_can_be_copied_and_shows_no_password(
    data: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my router"
    _print(Learned("gains", "Use it.", pairs=400, needed=None, strong_fraction=0.3, out=out), data)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("try it on the log: ")
    argv = shlex.split(last.removeprefix("try it on the log: "))
    assert argv == ["routellm", "replay", "--data", shown, "--router", str(out), "--strong-fraction", "0.3"]


def test_a_refused_replay_is_exit_code_3_without_a_figure(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.calls(200, shadow=0.0).label()
    code, told, _ = run(capsys, "replay", "--data", log.url, "--strong-fraction", "0.5")
    assert code == 3
    assert "no estimate: " in told
    assert "quality" not in told


def test_the_judge_is_estimated_before_anything_is_spent(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.calls(20)
    start = ("learn", "--data", log.url, "--out", str(tmp_path / "mine"), "--judge", "gpt-4.1")
    main_args = (*start, "--dry-run", "--json", "--price", "gpt-4.1=2/8")
    code, told, err = run(capsys, *main_args)
    assert code == 0
    assert json.loads(told)["calls"] == 40
    assert "20 pairs without a label, 40 calls" in err
    code, _, err = run(capsys, *start)
    assert code == 2
    assert "pass --yes to confirm" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["learn", "--dry-run"], "--dry-run is about the judge"),
        (["learn", "--judge", "x", "--dry-run", "--price", "y=1/2"], "only the judge, x, is asked"),
        (["learn", "--since", "yesterday"], "expected a day or a moment"),
        (["replay"], "needs one of strong_fraction="),
    ],
)
def test_mistakes_are_exit_code_2(
    argv: list[str], message: str, log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.calls(10)
    out = ["--out", str(tmp_path / "mine")] if argv[0] == "learn" else []
    code, _, err = run(capsys, *argv, "--data", log.url, *out)
    assert code == 2
    assert message in err
