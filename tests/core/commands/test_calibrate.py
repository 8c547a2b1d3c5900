"""`routellm calibrate` replaces no file of the user's; runs that end early or meet say so and mix nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import routellm_core.calibration.resumable as module
from routellm_core import Calibration, OnlineCalibration, load_router
from routellm_core.cli import main
from tests.support.routers import ScriptedRouter

ROOT = Path(__file__).parents[3]


@pytest.fixture
def routellm(capsys, monkeypatch):
    """The command as the shell calls it: exit code, stdout and stderr."""
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def call(*args):
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in args])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code, out=out, err=err)

    return call


@pytest.fixture
def traffic(tmp_path):
    file = tmp_path / "traffic.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p=0.{i:03}"}) + "\n" for i in range(500)))
    return file


@pytest.fixture
def router(monkeypatch):
    """The router that the command loads, in batches of 100; its `before` is called with each batch."""

    class Watched(ScriptedRouter):
        def _win_rates(self, prompts):
            self.before(prompts)  # type: ignore[attr-defined]
            return super()._win_rates(prompts)

    found = Watched()
    found.before = lambda prompts: None  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "_BATCH", 100)
    monkeypatch.setattr("routellm_core.routers.load_router", lambda *a, **k: found)
    return found


def stop_after(router, batches):
    """Ctrl-C in the batch after so many."""

    def before(prompts):
        if len(router.calls) == batches:
            raise KeyboardInterrupt

    router.before = before


def refused(result, *words):
    assert result.code == 2, result
    assert len(result.err.strip().splitlines()) == 1, result.err
    for word in words:
        assert str(word) in result.err
    return True


# --- the output


@pytest.mark.parametrize("name", ["traffic.jsonl", "link.json", "hard.json", "sub/../traffic.jsonl"])
def test_prompts_are_not_overwritten(name, routellm, router, traffic, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.json").symlink_to(traffic)
    os.link(traffic, tmp_path / "hard.json")
    before = traffic.read_bytes()
    result = routellm("calibrate", "-d", traffic, "-o", tmp_path / name)
    assert refused(result, f"out={tmp_path / name}", "the prompts", "another file")
    assert traffic.read_bytes() == before
    assert router.calls == []


@pytest.mark.parametrize("suffix", [".part", ".scores.part", ".header.part"])
def test_prompts_are_not_taken_for_a_file_of_an_unfinished_run(suffix, routellm, router, traffic, tmp_path):
    prompts = traffic.rename(tmp_path / f"c.json{suffix}")
    before = prompts.read_bytes()
    result = routellm("calibrate", "-d", prompts, "--format", "jsonl", "-o", tmp_path / "c.json")
    assert refused(result, f"out={tmp_path / 'c.json'}", "the prompts")
    assert prompts.read_bytes() == before


def test_a_file_that_is_no_calibration_is_not_overwritten(routellm, router, traffic, tmp_path):
    out = tmp_path / "notes.txt"
    OnlineCalibration([0.5], 0.3, window=50).save(tmp_path / "state.json")
    for text in ("my notes\n", '{"prompt": "a"}\n', "\x00\xff", (tmp_path / "state.json").read_text()):
        out.write_text(text, encoding="utf-8")
        result = routellm("calibrate", "-d", traffic, "-o", out)
        assert refused(result, f"out={out}", "not a calibration", "another file")
        assert out.read_text(encoding="utf-8") == text
    assert router.calls == []


def test_a_calibration_is_overwritten_also_a_damaged_or_an_empty_one(routellm, router, traffic, tmp_path):
    out = tmp_path / "c.json"
    expected = Calibration.fit(ScriptedRouter(), router_prompts(500))
    Calibration.fit(load_router("random"), ["a"]).save(out)
    old = out.read_text()
    for text in (old, json.dumps(json.loads(old), indent=2), old[: len(old) // 2], ""):
        out.write_text(text)
        assert routellm("calibrate", "-d", traffic, "-o", out).code == 0
        assert Calibration.load(out) == expected


def router_prompts(count):
    return [f"p=0.{i:03}" for i in range(count)]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("folder", "is a folder"),
        ("traffic.jsonl/c.json", "cannot be written"),
        ("traffic.jsonl/deep/c.json", "cannot be written"),
        ("blocked.json", "cannot be written"),
        ("x" * 300, "cannot be written"),
        ("pipe", "not a regular file"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_anything_is_scored(
    output, said, routellm, router, traffic, tmp_path, monkeypatch
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "blocked.json.scores.part").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("routellm_core.routers.load_router", lambda *a, **k: pytest.fail("a router was loaded"))
    assert refused(routellm("calibrate", "-d", traffic, "-o", tmp_path / output), "out=", output, said)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root, or Windows, may write anywhere")
def test_a_folder_without_permission_is_told_before_anything_is_scored(routellm, router, traffic, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    result = routellm("calibrate", "-d", traffic, "-o", tmp_path / "closed" / "c.json")
    assert refused(result, "out=", "Permission denied")
    assert router.calls == []


def test_a_router_that_does_not_load_leaves_nothing_behind(routellm, traffic, tmp_path):
    out = tmp_path / "out" / "c.json"
    assert refused(routellm("calibrate", "-d", traffic, "-o", out, "-r", "nope"), "'nope'")
    assert list(out.parent.iterdir()) == []


def test_a_full_disk_is_one_line_and_the_run_can_go_on(routellm, traffic, tmp_path):
    out = tmp_path / "c.json"
    command = [sys.executable, "-m", "routellm_core.cli", "calibrate", "-d", traffic, "-r", "random", "-o", out]
    limited = ["bash", "-c", 'ulimit -f 2; exec "$@"', "-", *map(str, command)]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert refused(SimpleNamespace(code=done.returncode, err=done.stderr), "c.json.scores.part", "too large")
    assert not out.exists()
    result = routellm("calibrate", "-d", traffic, "-r", "random", "-o", out)
    assert "going on after 256 prompts" in result.err  # 2,048 bytes of 8 each
    assert Calibration.load(out) == Calibration.fit(load_router("random"), router_prompts(500))


# --- runs that end early


def test_ctrl_c_says_that_the_same_command_goes_on(routellm, router, traffic, tmp_path):
    out = tmp_path / "c.json"
    stop_after(router, 2)
    result = routellm("calibrate", "-d", traffic, "-o", out)
    assert result.code == 130
    assert "200 prompts" in result.err
    assert "same command goes on" in result.err
    assert "Traceback" not in result.err
    stop_after(router, 3)
    again = routellm("calibrate", "-d", traffic, "-o", out, "--restart")
    assert "100 prompts" in again.err
    assert "without --restart" in again.err
    stop_after(router, -1)
    last = routellm("calibrate", "-d", traffic, "-o", out)
    assert "going on after 100 prompts" in last.err
    assert Calibration.load(out) == Calibration.fit(ScriptedRouter(), router_prompts(500))


def test_ctrl_c_before_the_first_score_promises_nothing(routellm, router, traffic, tmp_path):
    stop_after(router, 0)
    result = routellm("calibrate", "-d", traffic, "-o", tmp_path / "c.json")
    assert result.code == 130
    assert "goes on" not in result.err
    assert [p.name for p in tmp_path.iterdir()] == ["traffic.jsonl"]


def test_ctrl_c_after_the_last_score_keeps_the_scores(routellm, router, traffic, tmp_path, monkeypatch):
    out = tmp_path / "c.json"

    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_distribution", stopped)
        result = routellm("calibrate", "-d", traffic, "-o", out)
    assert result.code == 130
    assert "500 prompts" in result.err
    assert routellm("calibrate", "-d", traffic, "-o", out).code == 0
    assert len(router.prompts) == 500


_DEATH = """
import os, signal, sys
from pathlib import Path
import routellm_core.calibration.resumable as module
import routellm_core.routers
from routellm_core.cli import main
from tests.support.routers import ScriptedRouter

where, default, *arguments = sys.argv[1:]
module._BATCH = 100
router = ScriptedRouter(default=float(default))
routellm_core.routers.load_router = lambda *a, **k: router

def dies_after(owner, name, applies):
    original = getattr(owner, name)
    def call(self, *args, **kwargs):
        if where == "third batch" and applies(self, args) and len(router.calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, *args, **kwargs)
        if where == name and applies(self, args):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, call)

dies_after(ScriptedRouter, "_win_rates", lambda self, args: True)
for name in ("write_text", "replace", "open", "unlink"):
    dies_after(Path, name, lambda self, args: ".part" in self.name)
main(arguments)
"""


def killed(where, default, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", _DEATH, where, str(default), *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_killed_run_blocks_no_other_and_is_gone_on_with(routellm, router, traffic, tmp_path):
    out = tmp_path / "c.json"
    killed("third batch", 0.5, "calibrate", "-d", traffic, "-o", out)
    result = routellm("calibrate", "-d", traffic, "-o", out)
    assert result.code == 0
    assert "going on after 200 prompts" in result.err
    assert len(router.prompts) == 300
    assert Calibration.load(out) == Calibration.fit(ScriptedRouter(), router_prompts(500))


@pytest.mark.parametrize("where", ["open", "write_text", "replace"])
def test_scores_of_another_run_are_never_taken_for_those_of_a_new_one(where, routellm, router, tmp_path):
    out, prompts = tmp_path / "c.json", tmp_path / "plain.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"word {i}"}) + "\n" for i in range(500)))
    killed("third batch", 0.9, "calibrate", "-d", prompts, "-o", out)  # another router leaves 200 scores
    killed(where, 0.5, "calibrate", "-d", prompts, "-o", out, "--restart")  # the new run dies while it begins
    assert routellm("calibrate", "-d", prompts, "-o", out).code == 0
    assert Calibration.load(out).values.tolist() == [0.5]


def test_a_second_run_with_the_same_output_is_refused_while_the_first_goes_on(routellm, router, traffic, tmp_path):
    out = tmp_path / "c.json"
    seen = []

    def before(prompts):
        if len(router.calls) == 2 and not seen:
            seen.append(routellm("calibrate", "-d", traffic, "-o", out, "--restart"))

    router.before = before
    result = routellm("calibrate", "-d", traffic, "-o", out)
    assert refused(seen[0], f"out={out}", "another run", "another file")
    assert result.code == 0
    assert len(router.prompts) == 500
    assert Calibration.load(out) == Calibration.fit(ScriptedRouter(), router_prompts(500))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.json", "traffic.jsonl"]


def test_a_run_that_begins_as_another_ends_writes_to_a_file_that_is_there(
    routellm, router, traffic, tmp_path, monkeypatch
):
    fcntl = pytest.importorskip("fcntl")
    out, original, removed = tmp_path / "c.json", fcntl.flock, []

    def flock(file, how):
        if not removed:  # the other run removes its file between our opening and our locking it
            removed.append(True)
            (tmp_path / "c.json.scores.part").unlink()
        original(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    stop_after(router, 2)
    assert "200 prompts" in routellm("calibrate", "-d", traffic, "-o", out).err
    assert (tmp_path / "c.json.scores.part").stat().st_size == 200 * 8


# --- what is told


def test_limit_says_which_prompts_were_used(routellm, router, traffic, tmp_path):
    limited = routellm("calibrate", "-d", traffic, "-o", tmp_path / "c.json", "--limit", "150")
    assert "the first 150 prompts" in limited.out
    assert "--limit" in limited.out
    whole = routellm("calibrate", "-d", traffic, "-o", tmp_path / "c.json", "--limit", "1000")
    assert "500 prompts" in whole.out
    assert "first" not in whole.out


def test_a_limit_below_what_an_earlier_run_scored_is_told_as_it_is(routellm, router, tmp_path):
    prompts = tmp_path / "mixed.jsonl"
    rows = [{"prompt": text} for text in router_prompts(200)] + [{"prompt": ""}] * 7
    rows += [{"prompt": text} for text in router_prompts(200)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stop_after(router, 3)
    routellm("calibrate", "-d", prompts, "-o", tmp_path / "c.json")
    result = routellm("calibrate", "-d", prompts, "-o", tmp_path / "c.json", "--limit", "150", "--json")
    assert "--limit takes the first 150" in result.err
    found = json.loads(result.out)
    assert (found["count"], found["skipped"]) == (150, 0)
    assert Calibration.load(tmp_path / "c.json") == Calibration.fit(ScriptedRouter(), router_prompts(150))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--tokens", "500"], "--tokens"),
        (["--calls", "1"], "--calls"),
        (["--price", "strong=10", "--price", "weak=0"], "--price strong=IN/OUT, --price weak=IN/OUT"),
    ],
)
def test_options_of_the_budget_without_a_budget_are_refused(options, named, routellm, router, traffic, tmp_path):
    result = routellm("calibrate", "-d", traffic, "-o", tmp_path / "c.json", *options)
    assert refused(result, named, "--budget")
    assert router.calls == []


def test_the_budget_is_for_one_call_unless_told_otherwise(routellm, router, traffic, tmp_path):
    money = ("--price", "strong=10", "--price", "weak=0", "--tokens", "1000", "--json")
    one = routellm("calibrate", "-d", traffic, "-o", tmp_path / "c.json", "--budget", "0.005", *money)
    many = routellm("calibrate", "-d", traffic, "-o", tmp_path / "c.json", "--budget", "5", "--calls", "1000", *money)
    targets = [json.loads(r.out)["targets"][-1] for r in (one, many)]
    assert targets[0] == targets[1]
    assert targets[0]["wanted"] == 0.005
    assert np.isclose(targets[0]["realised"]["value"], 0.005)


def test_skip_bad_goes_on_where_a_malformed_row_stopped_the_run(routellm, router, traffic, tmp_path):
    lines = traffic.read_text().splitlines()
    traffic.write_text("\n".join([*lines[:250], "{not json", *lines[250:]]))
    out = tmp_path / "calibration.json"
    stopped = routellm("calibrate", "-d", traffic, "-o", out)
    assert stopped.code == 2
    assert "line 251: not JSON" in stopped.err
    assert not out.exists()
    found = routellm("calibrate", "-d", traffic, "-o", out, "--skip-bad", "--json")
    assert found.code == 0, found.err
    assert "going on after 200 prompts" in found.err
    assert "left out 1 malformed rows" in found.err
    told = json.loads(found.out)
    assert (told["count"], told["malformed"]) == (500, 1)
    assert Calibration.load(out).count == 500


def unfinished_and_other(routellm, router, traffic, tmp_path):
    """The output of a run that was stopped after 200 prompts, and another file of two prompts."""
    out, other = tmp_path / "calibration.json", tmp_path / "other.txt"
    other.write_text("p=0.1\np=0.2\n")
    stop_after(router, 2)
    assert routellm("calibrate", "-d", traffic, "-o", out).code == 130
    router.before = lambda prompts: None
    return out, other


def test_the_work_of_another_run_is_dropped_only_when_asked(routellm, router, traffic, tmp_path):
    out, other = unfinished_and_other(routellm, router, traffic, tmp_path)
    refused = routellm("calibrate", "-d", other, "-o", out)
    assert refused.code == 2
    assert f"200 prompts are scored there by an unfinished run of {traffic}" in refused.err
    assert "going on after 200 prompts" in routellm("calibrate", "-d", traffic, "-o", out).err
    assert Calibration.load(out).count == 500


def test_restart_drops_the_work_of_another_run(routellm, router, traffic, tmp_path):
    out, other = unfinished_and_other(routellm, router, traffic, tmp_path)
    assert routellm("calibrate", "-d", other, "-o", out, "--restart").code == 0
    assert Calibration.load(out).count == 2


def test_a_small_share_is_not_shown_as_none(routellm, router, traffic, tmp_path):
    found = routellm("calibrate", "-d", traffic, "-o", tmp_path / "c.json", "--strong-fraction", "0.004")
    assert "0.4% strong" in found.out
