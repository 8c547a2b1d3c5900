"""Training of the bert router on a tiny random encoder: it learns, it resumes, and what it saves routes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import ConfigurationError, DataError, load_router
from routellm_core.data import Battle, Outcome, write_records
from routellm_core.training.finetune import class_weights, label_stream, survey
from routellm_core.training.options import FineTuning
from routellm_core.training.processes import is_launched, warn_of_missing_processes
from routellm_core.training.proof import Split
from tests.support.tiny_models import labelled_outcomes, tiny_encoder

pytest.importorskip("accelerate")
pytest.importorskip("transformers")

HARD = ["w1 hard w7 w3", "w9 w2 w30 hard w11 w5"]
EASY = ["w1 easy w7 w3", "w9 w2 w30 easy w11 w5"]
FAST = FineTuning(max_steps=150, epochs=50, batch_size=16, learning_rate=2e-3, evaluations=6, patience=20)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def train(encoder: Path, out: Path, **options: Any) -> Any:
    from routellm_core.training.bert import train_bert

    rows = options.pop("rows", None) or labelled_outcomes(300)
    return train_bert(
        lambda: iter(rows), out, base=encoder, **{"strong": "big", "weak": "small", "how": FAST, "draws": 50, **options}
    )


def test_it_learns_and_the_saved_router_moves_the_right_way(encoder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    summary = train(encoder, tmp_path / "r", progress=lambda a, b: steps.append((a, b)))
    losses = summary.settings["train_loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert summary.settings["validation_loss"][-1] < summary.settings["validation_loss"][0]
    assert steps == [(i, 150) for i in range(1, 151)]
    router = load_router(tmp_path / "r")
    assert router.name == "bert"
    hard, easy = router.win_rates(HARD), router.win_rates(EASY)
    assert hard.min() > 0.7
    assert easy.max() < 0.2
    assert summary.evaluation.metrics["apgr"].value > 0.9
    assert router.calibration is not None
    saved = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert saved["router"] == "bert"
    assert saved["settings"]["labels"].keys() == {"strong wins", "tie", "weak wins"}
    assert "held-out prompts" in (tmp_path / "r" / "README.md").read_text()
    assert not (tmp_path / "r" / "checkpoints").exists()
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["id2label"] == {"0": "strong wins", "1": "tie", "2": "weak wins"}


def weights(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(path / "model.safetensors")


def test_an_interrupted_run_goes_on_where_it_was(encoder: Path, tmp_path: Path) -> None:
    from transformers import TrainerCallback

    class Crash(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 17:
                raise RuntimeError("power cut")

    how = FineTuning(max_steps=24, epochs=20, batch_size=8, learning_rate=1e-3, evaluations=4, patience=20)
    whole = train(encoder, tmp_path / "whole", how=how)
    with pytest.raises(RuntimeError, match="power cut"):
        train(encoder, tmp_path / "cut", how=how, callbacks=[Crash()])
    assert not (tmp_path / "cut" / "config.json").exists()
    resumed = train(encoder, tmp_path / "cut", how=how)
    assert resumed.settings["resumed_at_step"] == 12
    assert resumed.settings["steps"] == whole.settings["steps"] == 24
    assert resumed.settings["validation_loss"] == whole.settings["validation_loss"]
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(np.array_equal(one[name], two[name]) for name in one)


# Trains in each process, and writes down what the process had in the end.
_DISTRIBUTED = """
import hashlib, json, os, sys
from transformers import TrainerCallback
from routellm_core.data import read_outcomes
from routellm_core.routers.base import Router
from routellm_core.training.bert import train_bert
from routellm_core.training.finetune import FineTuning

rows, base, out = sys.argv[1:]
saves = []
save = Router.save_pretrained
Router.save_pretrained = lambda self, path: (saves.append(str(path)), save(self, path))

class Weights(TrainerCallback):
    def on_train_end(self, args, state, control, model, **kwargs):
        parts = sorted((name.removeprefix("module."), value) for name, value in model.state_dict().items())
        self.digest = hashlib.sha256(b"".join(value.numpy().tobytes() for _, value in parts)).hexdigest()

weights = Weights()
how = FineTuning(epochs=2, batch_size=4, learning_rate=1e-3, evaluations=3)
summary = train_bert(lambda: read_outcomes(rows), out, base=base, strong="big", weak="small", how=how, draws=50,
                     callbacks=[weights])
found = {"weights": weights.digest, "saves": saves, "summary": summary is not None}
open(f"{out}-{os.environ['RANK']}.json", "w").write(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_train_one_model_in_half_the_steps(encoder: Path, tmp_path: Path) -> None:
    rows = labelled_outcomes(100)
    write_records(tmp_path / "rows.jsonl", rows)
    (tmp_path / "train.py").write_text(_DISTRIBUTED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [tmp_path / "train.py", tmp_path / "rows.jsonl", encoder, tmp_path / "two"]
    subprocess.run([*launcher, *map(str, arguments)], check=True, capture_output=True, timeout=300)
    ranks = [json.loads((tmp_path / f"two-{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert [rank["saves"] for rank in ranks] == [[str(tmp_path / "two")], []]
    assert [rank["summary"] for rank in ranks] == [True, False]
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())["settings"]
    how = FineTuning(epochs=2, batch_size=4, learning_rate=1e-3, evaluations=3)
    alone = train(encoder, tmp_path / "alone", rows=rows, how=how).settings
    assert (alone["world_size"], two["world_size"]) == (1, 2)
    assert two["steps"] == math.ceil(alone["steps"] / 2)
    # two processes of 4 rows each are one of 8; dropout is drawn by each for itself, so the runs are alike, not equal
    how = FineTuning(epochs=2, batch_size=8, learning_rate=1e-3, evaluations=3)
    one = train(encoder, tmp_path / "one", rows=rows, how=how).settings
    assert two["steps"] == one["steps"]
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=0.05)


def ends_with_a_bad_row(encoder: Path, folder: Path, python: list[str], *options: str) -> tuple[int, list[str]]:
    """Train on rows whose last is malformed; return the exit code and the lines on stderr."""
    write_records(folder / "rows.jsonl", labelled_outcomes(30))
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"prompt": 5}\n')
    command = [*python, "-m", "routellm_core.cli", "train", "bert", "--strong", "big", "--weak", "small", *options]
    files = ["--data", str(folder / "rows.jsonl"), "--base", str(encoder), "--out", str(folder / "r")]
    ended = subprocess.run([*command, *files], check=False, capture_output=True, timeout=300)
    return ended.returncode, ended.stderr.decode().splitlines()


@pytest.mark.slow
def test_an_error_in_the_data_is_the_last_line_of_several_processes(encoder: Path, tmp_path: Path) -> None:
    code, lines = ends_with_a_bad_row(encoder, tmp_path, [sys.executable], "--processes", "2")
    assert code == 2
    assert [line for line in lines if "rows.jsonl" in line] == lines[-1:]
    assert ", line 31: " in lines[-1]


@pytest.mark.slow
def test_an_error_in_the_data_is_the_last_line_of_torchruns_report(encoder: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    code, lines = ends_with_a_bad_row(encoder, tmp_path, torchrun)
    assert code == 1
    *_, last, border = [line for line in lines if line]
    assert set(border) == {"="}
    assert "rows.jsonl, line 31: " in last


@pytest.mark.parametrize(
    ("environment", "launched"),
    [
        ({}, False),
        ({"WORLD_SIZE": "1"}, False),  # a container or a cluster may set it for every process
        ({"WORLD_SIZE": "2"}, True),
        ({"WORLD_SIZE": "1", "OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"WORLD_SIZE": ""}, False),
    ],
)
def test_a_launcher_has_started_several_processes(
    environment: dict[str, str], launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_launched() is launched


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({"MASTER_ADDR": "127.0.0.1", "ACCELERATE_MIXED_PRECISION": "no"}, "several"),  # accelerate launch --cpu
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "4"),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, None),  # accelerate launch of one process
        ({"WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_MIXED_PRECISION": "no"}, None),
        ({}, None),
    ],
)
def test_fewer_processes_than_asked_for(
    environment: dict[str, str], asked: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("MASTER_ADDR", "ACCELERATE_MIXED_PRECISION", "WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    warn_of_missing_processes(1)
    assert [f"asked for {asked} processes, but 1 trains" in text for text in caplog.messages] == [True] * bool(asked)


def test_without_resume_old_checkpoints_are_dropped(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "r" / "checkpoints" / "checkpoint-7").mkdir(parents=True)
    how = FineTuning(max_steps=2, batch_size=4)
    summary = train(encoder, tmp_path / "r", how=how, resume=False, validation=0.0, held_out=0.0)
    assert summary.settings["resumed_at_step"] == 0
    assert summary.evaluation is None
    assert "no prompts were held out" in (tmp_path / "r" / "README.md").read_text()


def test_early_stopping_keeps_the_best(encoder: Path, tmp_path: Path) -> None:
    rows = labelled_outcomes(60)
    how = FineTuning(max_steps=400, epochs=400, batch_size=8, learning_rate=0.5, evaluations=40, patience=2)
    summary = train(encoder, tmp_path / "r", how=how, rows=rows)
    assert summary.settings["steps"] < 400


def test_a_tier_stands_for_a_model(encoder: Path, tmp_path: Path) -> None:
    rows: list[Any] = [
        Battle(prompt=o.prompt, model_a="big", model_b="tiny", winner="model_a" if o.scores["big"] else "model_b")
        for o in labelled_outcomes(60)
    ]
    how = FineTuning(max_steps=2, batch_size=4)
    summary = train(encoder, tmp_path / "r", rows=rows, weak=["small", "tiny"], how=how)
    assert summary.rows["train"] > 30
    assert summary.evaluation is None  # no held-out row compares the pair itself


def test_what_cannot_be_trained_is_said(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="models in the data: big, small"):
        train(encoder, tmp_path / "a", strong="nobody")
    with pytest.raises(DataError, match="too few distinct prompts to split"):
        train(encoder, tmp_path / "b", rows=labelled_outcomes(1))
    with pytest.raises(
        ConfigurationError, match="'votes' to weight does not occur in the data; it has: easy, hard, what"
    ):
        train(encoder, tmp_path / "b", source_weights={"votes": 2.0})
    with pytest.raises(ConfigurationError, match="weight -1"):
        train(encoder, tmp_path / "b", source_weights={"easy": -1})
    with pytest.raises(ConfigurationError, match="not a usable encoder"):
        train(tmp_path / "nowhere", tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="--overwrite"):
        train(encoder, tmp_path / "d")
    for option in ({"epochs": 0}, {"max_steps": 0}, {"learning_rate": float("nan")}, {"batch_size": True}):
        with pytest.raises(ConfigurationError, match=next(iter(option))):
            FineTuning(**option)


def test_the_stream_repeats_and_shuffles() -> None:
    rows = labelled_outcomes(50)
    passes = 0

    def source() -> Iterator[Outcome]:
        nonlocal passes
        passes += 1
        return iter(rows)

    split = Split(validation=0.0, held_out=0.0)
    options: dict[str, Any] = {"strong": ["big"], "weak": ["small"], "tie_margin": 0.0, "seed": 1}
    first = [x.prompt for x in islice(label_stream(source, split, **options), 150)]
    assert passes == 3
    assert sorted(first[:50]) == sorted(first[50:100]) == sorted(r.prompt for r in rows)
    assert first[:50] != first[50:100]
    assert [x.prompt for x in islice(label_stream(source, split, **options), 150)] == first
    other = [x.prompt for x in islice(label_stream(source, split, **{**options, "seed": 2}), 50)]
    assert other != first[:50]


def test_class_weights_balance_the_labels() -> None:
    rows = [Outcome(prompt=f"p{i}", scores={"big": 1, "small": int(i % 4 > 0)}, weight=2.0) for i in range(400)]
    found = survey(lambda: rows, Split(0.0, 0.0), strong=["big"], weak=["small"], tie_margin=0.0)
    strong, tie, weak = class_weights(found, balance=True)
    assert strong * 2 * 100 == pytest.approx(200)
    assert tie * 2 * 300 == pytest.approx(200)
    assert weak == 0
    assert class_weights(found, balance=False) == [0.5] * 3


def test_a_split_keeps_repeats_together_and_its_shares() -> None:
    split = Split(validation=0.1, held_out=0.3, seed=3)
    parts = [split.part(f"prompt number {i}") for i in range(4000)]
    assert abs(parts.count("held_out") / 4000 - 0.3) < 0.03
    assert abs(parts.count("validation") / 4000 - 0.1) < 0.02
    assert split.part("Prompt, number 7!") == split.part("prompt number 7")
    assert [Split(seed=4).part(f"{i}") for i in range(50)] != [Split(seed=5).part(f"{i}") for i in range(50)]
    for bad in ({"held_out": 1.0}, {"validation": -0.1}, {"held_out": 0.9, "validation": 0.1}):
        with pytest.raises(ConfigurationError):
            Split(**bad)  # type: ignore[arg-type]
