"""Training of the causal_llm router on a tiny random LLM: LoRA and full, it learns, it resumes, it routes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import ConfigurationError, load_router
from routellm_core.training.options import FineTuning
from tests.support.tiny_models import labelled_outcomes, tiny_llm

pytest.importorskip("peft")
pytest.importorskip("transformers")

# peft reads a name that transformers 5 is about to give up
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

HARD = ["w1 hard w7 w3", "w9 w2 w30 hard w11 w5"]
EASY = ["w1 easy w7 w3", "w9 w2 w30 easy w11 w5"]
TEXTS: dict[str, Any] = {"system": "rate", "template": "{question} rating"}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm(tmp_path_factory.mktemp("llm"))


def train(llm: Path, out: Path, **options: Any) -> Any:
    from routellm_core.training.causal_llm import train_causal_llm

    rows = labelled_outcomes(300)
    rate = 5e-3 if options.get("lora", 16) is None else 1e-2
    fast = FineTuning(max_steps=140, epochs=60, batch_size=16, learning_rate=rate, evaluations=6, patience=20)
    defaults: dict[str, Any] = {"strong": "big", "weak": "small", "how": fast, "draws": 50, **TEXTS}
    return train_causal_llm(lambda: iter(rows), out, base=llm, **{**defaults, **options})


@pytest.mark.parametrize("lora", [8, None])
def test_it_learns_and_the_saved_router_moves_the_right_way(llm: Path, tmp_path: Path, lora: int | None) -> None:
    summary = train(llm, tmp_path / "r", lora=lora)
    losses = summary.settings["train_loss"]
    assert losses[-1] < 0.3 * losses[0]
    router = load_router(tmp_path / "r")
    assert router.name == "causal_llm"
    assert router.win_rates(HARD).min() > 0.8
    assert router.win_rates(EASY).max() < 0.2
    assert summary.evaluation.metrics["apgr"].value > 0.9
    assert (tmp_path / "r" / "system_ft_v5.txt").read_text() == "rate"
    assert not list((tmp_path / "r").glob("adapter*"))
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_bfloat16_learns_too_and_keeps_what_it_learned_in_float32(llm: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    how = FineTuning(max_steps=140, epochs=60, learning_rate=5e-3, evaluations=6, patience=20, bf16=True)
    summary = train(llm, tmp_path / "r", lora=None, how=how)
    assert summary.settings["bf16"] is True
    router = load_router(tmp_path / "r")
    assert router.win_rates(HARD).min() > router.win_rates(EASY).max() + 0.5
    assert {str(w.dtype) for w in load_file(tmp_path / "r" / "model.safetensors").values()} == {"float32"}


@pytest.mark.parametrize("value", ["yes", 2])
def test_bfloat16_is_asked_for_or_not(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="bf16="):
        FineTuning(bf16=value)


def test_lora_leaves_the_rest_as_it_was_even_with_tied_embeddings(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    base = tiny_llm(tmp_path / "base", tied=True)
    how = FineTuning(max_steps=4, batch_size=4, learning_rate=1e-2)
    train(base, tmp_path / "r", lora=4, how=how)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "r" / "model.safetensors")
    name = "model.embed_tokens.weight"
    assert np.array_equal(before[name], after[name][: len(before[name])])
    assert not np.array_equal(after["lm_head.weight"], after[name])
    assert not np.array_equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    assert json.loads((tmp_path / "r" / "config.json").read_text())["tie_word_embeddings"] is False
    load_router(tmp_path / "r").win_rates(HARD)


def test_an_interrupted_run_goes_on_where_it_was(llm: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file
    from transformers import TrainerCallback

    class Crash(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 9:
                raise RuntimeError("power cut")

    how = FineTuning(max_steps=12, epochs=20, batch_size=8, learning_rate=1e-3, evaluations=4, patience=20)
    whole = train(llm, tmp_path / "whole", how=how, lora=4)
    with pytest.raises(RuntimeError, match="power cut"):
        train(llm, tmp_path / "cut", how=how, lora=4, callbacks=[Crash()])
    resumed = train(llm, tmp_path / "cut", how=how, lora=4)
    assert resumed.settings["resumed_at_step"] == 9 - 9 % 3
    assert resumed.settings["validation_loss"] == whole.settings["validation_loss"]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_the_ratings_are_those_asked_for(llm: Path, tmp_path: Path) -> None:
    how = FineTuning(max_steps=140, epochs=60, batch_size=16, learning_rate=5e-3)
    train(llm, tmp_path / "r", lora=None, how=how, ratings=(5, 4, 1), validation=0.0)
    router = load_router(tmp_path / "r")
    assert router.win_rates(HARD).max() < 0.2
    assert router.win_rates(EASY).min() > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": 0}, "lora"),
        ({"ratings": (1, 2, 6)}, "ratings"),
        ({"max_length": 3}, "max_length"),
        ({"max_length": 9999}, "max_length"),
    ],
)
def test_what_does_not_fit_is_refused(llm: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(llm, tmp_path / "r", **options)
