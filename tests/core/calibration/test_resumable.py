"""Calibrating a file: what `Calibration.fit` gives, in bounded memory, continued after any stop, replacing nothing."""

import json

import numpy as np
import pytest

import routellm_core.calibration.resumable as module
from routellm_core import Calibration, ConfigurationError, DataError, RouterError
from routellm_core.calibration import ResumableCalibration, calibrate_file
from routellm_core.calibration.scoring import Scorer
from routellm_core.data.prompts import read_prompts
from routellm_core.routers import as_router
from tests.support.routers import ScriptedRouter

PROMPTS = [f"p=0.{i:03}" for i in range(500)]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 100)


@pytest.fixture
def traffic(tmp_path):
    file = tmp_path / "traffic.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return file


class Stopping(ScriptedRouter):
    """Raises `error` instead of scoring the batch after so many."""

    def __init__(self, batches, error):
        super().__init__()
        self.batches, self.stop = batches, error

    def _win_rates(self, prompts):
        if len(self.calls) == self.batches:
            raise self.stop
        return super()._win_rates(prompts)


def test_a_calibrated_file_is_what_fit_gives_of_its_prompts(traffic, tmp_path):
    seen = []
    out = tmp_path / "deep" / "calibration.json"
    found = calibrate_file(ScriptedRouter(), traffic, out, progress=lambda done, total: seen.append((done, total)))
    assert found == Calibration.load(out) == Calibration.fit(ScriptedRouter(), PROMPTS)
    assert [p.name for p in out.parent.iterdir()] == ["calibration.json"]
    size = traffic.stat().st_size
    assert [total for _, total in seen] == [size] * 6
    done = [at for at, _ in seen]
    assert done == sorted(done)
    assert done[-1] == size


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RouterError("the service is down"), MemoryError()])
def test_whatever_ends_a_run_the_next_one_continues(error, traffic, tmp_path):
    out = tmp_path / "c.json"
    with pytest.raises(type(error)), ResumableCalibration(traffic, out) as run:
        run.fit(Stopping(3, error))
    assert run.scored == 300
    assert not out.exists()
    router, resumed = ScriptedRouter(), []
    with ResumableCalibration(traffic, out) as run:
        assert run.scored == 300
        found = run.fit(router, on_resume=resumed.append)
    assert resumed == [300]
    assert router.prompts == PROMPTS[300:]
    assert found == Calibration.load(out) == Calibration.fit(ScriptedRouter(), PROMPTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.json", "traffic.jsonl"]


def test_a_new_run_is_not_said_to_continue(traffic, tmp_path):
    resumed = []
    for restart in (False, True):
        with ResumableCalibration(traffic, tmp_path / "c.json", restart=restart) as run:
            run.fit(ScriptedRouter(), on_resume=resumed.append)
    assert resumed == []


def test_restart_scores_everything_again(traffic, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        calibrate_file(Stopping(2, KeyboardInterrupt()), traffic, tmp_path / "c.json")
    router = ScriptedRouter()
    calibrate_file(router, traffic, tmp_path / "c.json", restart=True)
    assert router.prompts == PROMPTS


def test_another_router_or_limit_is_told_from_the_unfinished_run(traffic, tmp_path):
    out = tmp_path / "c.json"
    with pytest.raises(KeyboardInterrupt):
        calibrate_file(Stopping(2, KeyboardInterrupt()), traffic, out)
    with pytest.raises(ConfigurationError, match=r"200 prompts are scored there .*restart=True"):
        calibrate_file(ScriptedRouter(default=0.1), traffic, out)
    # the limit is no part of what a win rate depends on
    assert calibrate_file(ScriptedRouter(), traffic, out, limit=150) == Calibration.fit(ScriptedRouter(), PROMPTS[:150])


def test_a_second_run_is_refused_while_the_first_is_open(traffic, tmp_path):
    pytest.importorskip("fcntl")
    with (
        ResumableCalibration(traffic, tmp_path / "c.json"),
        pytest.raises(ConfigurationError, match="another run"),
        ResumableCalibration(traffic, tmp_path / "c.json"),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["traffic.jsonl"]


def test_a_function_and_a_reader_are_taken_as_well(traffic, tmp_path):
    def shortest_first(prompts):
        return [float(prompt[2:]) for prompt in prompts]

    reader = read_prompts(traffic, field="prompt")
    found = calibrate_file(shortest_first, reader, tmp_path / "c.json")
    assert (found.count, found.router, found.fingerprint) == (
        500,
        "shortest_first",
        as_router(shortest_first).fingerprint,
    )
    np.testing.assert_allclose(found.values, np.arange(500) / 1000)


def test_a_function_with_another_name_does_not_continue_the_run(traffic, tmp_path):
    def first(prompts):
        if "p=0.200" in prompts:
            raise KeyboardInterrupt
        return [0.5] * len(prompts)

    def second(prompts):
        return [0.9] * len(prompts)

    with pytest.raises(KeyboardInterrupt):
        calibrate_file(first, traffic, tmp_path / "c.json")
    with pytest.raises(ConfigurationError, match="another file, router or options"):
        calibrate_file(second, traffic, tmp_path / "c.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"limit": 0}, "limit=0"), ({"limit": True}, "limit=True"), ({"restart": "yes"}, "restart='yes'")],
)
def test_bad_options_are_named(options, words, traffic, tmp_path):
    with pytest.raises(ConfigurationError, match=words):
        ResumableCalibration(traffic, tmp_path / "c.json", **options)


def test_files_of_others_are_refused_before_anything_is_made(traffic, tmp_path):
    (tmp_path / "notes.txt").write_text("my own notes, which no message may quote")
    with pytest.raises(ConfigurationError, match="is not a calibration") as caught:
        ResumableCalibration(traffic, tmp_path / "notes.txt")
    assert "quote" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="would replace the prompts"):
        ResumableCalibration(traffic, traffic)
    with pytest.raises(DataError, match="no such file"):
        ResumableCalibration(tmp_path / "none.jsonl", tmp_path / "deep" / "c.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "traffic.jsonl"]


def test_fit_outside_of_the_context_says_how(traffic, tmp_path):
    with pytest.raises(ConfigurationError, match="with ResumableCalibration"):
        ResumableCalibration(traffic, tmp_path / "c.json").fit(ScriptedRouter())


def test_the_distribution_of_many_win_rates_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 64)
    values = np.random.default_rng(0).random(1000)
    (tmp_path / "scores").write_bytes(values.astype("<f8").tobytes())
    found = module._distribution(tmp_path / "scores", Scorer(ScriptedRouter()), 1000)
    assert found.count == 1000
    assert len(found.values) <= 3 * 64
    exact = Calibration.from_win_rates(values)
    for share in (0.1, 0.5, 0.9):
        assert exact.strong_fraction(threshold=found.threshold(strong_fraction=share)) == pytest.approx(share, abs=0.05)
