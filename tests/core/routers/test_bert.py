"""BERTRouter: golden values, padding, truncation, the saved form, and checkpoints that are refused."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError, PromptError
from routellm_core.routers import BERTRouter, load_router
from routellm_core.routers.base import Router
from tests.support.prompts import PROMPTS
from tests.support.shared import GOLDEN, golden_json, needs_golden
from tests.support.tiny_models import published_bert

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def router(checkpoint: Path) -> BERTRouter:
    return BERTRouter.from_pretrained(checkpoint)


@needs_golden
def test_golden_win_rates() -> None:
    router, prompts = BERTRouter.from_pretrained(GOLDEN / "bert_tiny"), golden_json("prompts.json")
    golden = golden_json("router_outputs.json")["bert"]
    assert router.encode(prompts) == golden["input_ids"]
    assert np.abs(router.win_rates(prompts) - golden["win_rate"]).max() < 1e-6


def test_the_win_rate_is_the_chance_of_the_first_label(router: BERTRouter) -> None:
    """As transformers itself tokenises and classifies one prompt."""
    import torch

    def alone(prompt: str) -> tuple[list[int], float]:
        ids = router.tokenizer(prompt, truncation=True, max_length=512)["input_ids"]
        with torch.no_grad():
            logits = router.model(input_ids=torch.tensor([ids])).logits[0]
        return ids, float(torch.softmax(logits, dim=0)[0])

    want = [alone(prompt) for prompt in PROMPTS]
    assert router.encode(PROMPTS) == [ids for ids, _ in want]
    rates = router.win_rates(PROMPTS)
    np.testing.assert_allclose(rates, [rate for _, rate in want], atol=1e-6)
    assert np.ptp(rates) > 0.05


def test_batch_equals_single_in_any_order_sync_and_async(router: BERTRouter) -> None:
    together = router.win_rates(PROMPTS)
    singles = [router.win_rates([prompt])[0] for prompt in PROMPTS]
    np.testing.assert_allclose(singles, together, atol=1e-6)
    np.testing.assert_allclose(router.win_rates(PROMPTS[::-1]), together[::-1], atol=1e-6)
    np.testing.assert_array_equal(asyncio.run(router.awin_rates(PROMPTS)), together)
    with ThreadPoolExecutor(4) as pool:
        for rates in pool.map(router.win_rates, [PROMPTS] * 4):
            np.testing.assert_array_equal(rates, together)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_the_size_of_buckets_does_not_matter(batch_size: int, router: BERTRouter, checkpoint: Path) -> None:
    other = BERTRouter.from_pretrained(checkpoint, batch_size=batch_size)
    np.testing.assert_allclose(other.win_rates(PROMPTS), router.win_rates(PROMPTS), atol=1e-6)


def test_long_prompts_are_judged_by_their_beginning(caplog: pytest.LogCaptureFixture, checkpoint: Path) -> None:
    router = BERTRouter.from_pretrained(checkpoint, max_length=12)
    text = "one two three four five six seven eight nine ten"
    with caplog.at_level(logging.WARNING):
        long = router.win_rates([text, text + " and something else", "short"])
    assert long[0] == long[1]
    assert len(router.encode([text])[0]) == 12
    full = BERTRouter.from_pretrained(checkpoint).encode([text])[0]
    assert router.encode([text])[0] == [*full[:11], full[-1]]
    told = [record for record in caplog.records if record.name.startswith("routellm")]
    assert len(told) == 1
    assert "seven" not in caplog.text


def test_any_string_is_a_prompt(router: BERTRouter) -> None:
    rates = router.win_rates(["", " ", "\ud800", "\x00", "x" * 20_000, "日本語", "</s></s>", "<mask>"])
    assert ((rates > 0.0) & (rates < 1.0)).all()
    with pytest.raises(PromptError):
        router.win_rates([])


def test_saved_form_round_trips_bit_for_bit(router: BERTRouter, tmp_path: Path, checkpoint: Path) -> None:
    router.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert not [f for f in tmp_path.iterdir() if f.suffix in {".bin", ".pt", ".pkl"}]
    for again in (
        BERTRouter.from_pretrained(tmp_path),
        Router.from_pretrained(tmp_path),
        load_router("bert", tmp_path),
    ):
        np.testing.assert_array_equal(again.win_rates(PROMPTS), router.win_rates(PROMPTS))
        assert again.fingerprint == router.fingerprint
    short = BERTRouter.from_pretrained(checkpoint, max_length=20)
    assert short.fingerprint != router.fingerprint
    short.save_pretrained(tmp_path)
    assert BERTRouter.from_pretrained(tmp_path).max_length == 20


def test_half_precision_stays_close(router: BERTRouter, tmp_path: Path, checkpoint: Path) -> None:
    half = BERTRouter.from_pretrained(checkpoint, dtype="bfloat16")
    assert 0 < np.abs(half.win_rates(PROMPTS) - router.win_rates(PROMPTS)).max() < 0.02
    half.save_pretrained(tmp_path)
    assert str(BERTRouter.from_pretrained(tmp_path).model.dtype) == "torch.bfloat16"


def copied(checkpoint: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    target.mkdir()
    for file in checkpoint.iterdir():
        shutil.copyfile(file, target / file.name)
    return target


def test_pickled_weights_are_refused_unopened(tmp_path: Path, checkpoint: Path) -> None:
    import torch

    class Boom:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    path = copied(checkpoint, tmp_path)
    (path / "model.safetensors").unlink()
    torch.save(Boom(), path / "pytorch_model.bin")
    with pytest.raises(CheckpointNotFoundError, match=r"pytorch_model\.bin.*can run code"):
        BERTRouter.from_pretrained(path)
    assert not (tmp_path / "ran").exists()
    (path / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointNotFoundError, match="no safetensors"):
        BERTRouter.from_pretrained(path)


def test_damaged_checkpoints(tmp_path: Path, checkpoint: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = copied(checkpoint, tmp_path)
    weights = path / "model.safetensors"
    tensors, data = load_file(weights), weights.read_bytes()
    weights.write_bytes(data[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        BERTRouter.from_pretrained(path)
    # A missing head would be filled with random numbers.
    save_file({k: v for k, v in tensors.items() if "out_proj" not in k}, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks weights.*classifier\.out_proj"):
        BERTRouter.from_pretrained(path)
    weights.write_bytes(data)
    (path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        BERTRouter.from_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(CheckpointError, match="2 labels"):
        BERTRouter.from_pretrained(path)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_length": 2}, "max_length=2"),
        ({"max_length": 513}, "max_length=513: expected 3 to 512"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"device": "nowhere"}, "device='nowhere'"),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], word: str, checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match=word):
        BERTRouter.from_pretrained(checkpoint, **options)


def test_a_model_with_other_labels_is_refused(router: BERTRouter, checkpoint: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(checkpoint, num_labels=2))
    with pytest.raises(ConfigurationError, match="num_labels=2"):
        BERTRouter(model, router.tokenizer)


FORKED = """
import os, signal, sys
import numpy as np
import torch
from routellm_core.routers.bert import BERTRouter

torch.set_num_threads(2)
router = BERTRouter.from_pretrained(sys.argv[1])
prompts = ["one " * 200] * 64
before = router.win_rates(prompts)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if np.allclose(router.win_rates(prompts), before) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_is_forked_after_its_parent_scored_scores_too(checkpoint: Path) -> None:
    # in a process of its own, which has no other threads
    done = subprocess.run([sys.executable, "-c", FORKED, str(checkpoint)], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "0"


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, routellm_core.routers.bert, routellm_core.routers.causal_llm; print('torch' in sys.modules)"
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "False"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"routellm-adapters\[bert\]"):
        BERTRouter.from_pretrained(checkpoint)
