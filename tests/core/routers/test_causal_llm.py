"""CausalLLMRouter: golden values, plain text in prompts, the shared prefix, other bases, and refused checkpoints."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError
from routellm_core.routers import CausalLLMRouter, load_router
from routellm_core.routers.base import Router
from routellm_core.routers.causal_llm import LABELS, RatingPrompt
from tests.support.prompts import MARKS, PROMPTS
from tests.support.shared import GOLDEN, golden_json, needs_golden
from tests.support.tiny_models import published_causal_llm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_causal_llm(tmp_path_factory.mktemp("causal_llm"))


@pytest.fixture(scope="module")
def router(checkpoint: Path) -> CausalLLMRouter:
    return CausalLLMRouter.from_pretrained(checkpoint)


def tokenizer(checkpoint: Path, template: str | None = None) -> Any:
    found = transformers.AutoTokenizer.from_pretrained(checkpoint)
    if template is not None:
        found.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
        found.chat_template = template
    return found


def base_model(checkpoint: Path) -> Any:
    """A model without rows for the label tokens."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    config.vocab_size -= len(LABELS)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def plainly(router: CausalLLMRouter, prompt: str) -> float:
    """The definition, without cache or early stop: the whole text at each step, six steps."""
    ids, _ = router.prompt.encode(prompt)
    for _ in range(6):
        with torch.no_grad():
            logits = router.model(input_ids=torch.tensor([ids])).logits[0, -1].float()
        token = int(logits.argmax())
        if token in router.prompt.label_ids:
            chances = torch.softmax(logits[router.prompt.label_ids], dim=0)
            return 1.0 - float(chances[3] + chances[4])
        ids = [*ids, token]
    return 1.0


@needs_golden
def test_golden_win_rates() -> None:
    router = CausalLLMRouter.from_pretrained(GOLDEN / "causal_tiny")
    prompts: list[str] = golden_json("prompts.json")
    golden = golden_json("router_outputs.json")["causal_llm"]
    assert router.prompt.label_ids == [golden["orig_vocab_size"] + i for i in range(5)]
    assert [router.prompt.encode(p)[0] for p in prompts[:3]] == golden["input_ids_first3"]
    off = np.abs(router.win_rates(prompts) - golden["win_rate"])
    ordinary = [i for i, prompt in enumerate(prompts) if not any(mark in prompt for mark in MARKS)]
    assert len(ordinary) >= 49
    assert np.median(off[ordinary]) < 1e-3
    assert (off[ordinary] > 5e-3).sum() <= 3


def test_float32_agrees_with_the_definition(checkpoint: Path) -> None:
    exact = CausalLLMRouter.from_pretrained(checkpoint, dtype="float32")
    rates = exact.win_rates(PROMPTS)
    np.testing.assert_allclose(rates, [plainly(exact, prompt) for prompt in PROMPTS], atol=1e-5)
    assert np.ptp(rates) > 0.5
    assert 0 < (rates == 1.0).sum() < 5  # some get no rating


def test_text_of_a_prompt_is_never_a_special_token(router: CausalLLMRouter) -> None:
    own = set(router.tokenizer.get_added_vocab().values())
    around = [token for token in router.prompt.encode("")[0] if token in own]
    for prompt in [*MARKS, "a [[3]] b<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n[[1]]", " [[2]]\n"]:
        ids, _ = router.prompt.encode(prompt)
        assert [token for token in ids if token in own] == around
        assert prompt.strip() in router.tokenizer.decode(ids)


def test_batch_equals_single_sync_async_and_threads(router: CausalLLMRouter) -> None:
    sample = [*PROMPTS[:12], "", "[[1]]"]
    together = router.win_rates(sample)
    np.testing.assert_array_equal([router.win_rates([prompt])[0] for prompt in sample], together)
    np.testing.assert_array_equal(router.win_rates(sample[::-1]), together[::-1])
    np.testing.assert_array_equal(asyncio.run(router.awin_rates(sample)), together)
    with ThreadPoolExecutor(4) as pool:
        for rates in pool.map(router.win_rates, [sample] * 6):
            np.testing.assert_array_equal(rates, together)


def test_the_prefix_is_computed_once_and_left_alone(router: CausalLLMRouter) -> None:
    assert len(router._prefix) > 100
    assert all(router.prompt.encode(p)[0][: len(router._prefix)] == router._prefix for p in PROMPTS[:5])
    seen: list[int] = []
    hook = router.model.register_forward_pre_hook(
        lambda module, args, options: seen.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        router.win_rates(PROMPTS[:1])
    finally:
        hook.remove()
    assert seen[0] == len(router.prompt.encode(PROMPTS[0])[0]) - len(router._prefix)
    assert set(seen[1:]) <= {1}
    assert len(seen) <= 6
    assert router._prefix_cache.get_seq_length() == len(router._prefix)


def test_a_prompt_that_merges_with_the_template_is_still_right(checkpoint: Path) -> None:
    # "Question:" right before the prompt: its last token may merge with what follows.
    exact = CausalLLMRouter.from_pretrained(checkpoint, dtype="float32", template="Rate this:\n{question} \n")
    prompts = ("\n\n\nx", "   x", "s", "", "\n")
    assert any(exact.prompt.encode(prompt)[0][: len(exact._prefix)] != exact._prefix for prompt in prompts)
    for prompt in prompts:
        assert exact.win_rates([prompt])[0] == pytest.approx(plainly(exact, prompt), abs=1e-5)


def test_no_more_steps_than_needed_and_none_after_the_end(router: CausalLLMRouter, checkpoint: Path) -> None:
    class Scripted:
        """Stands in for the model: writes these tokens."""

        def __init__(self, inner: Any, tokens: list[int]) -> None:
            self.inner, self.tokens, self.steps = inner, tokens, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __call__(self, **options: Any) -> Any:
            output = self.inner(**options)
            output.logits = torch.zeros_like(output.logits)
            output.logits[0, -1, self.tokens[self.steps]] = 5.0
            self.steps += 1
            return output

    other = CausalLLMRouter.from_pretrained(checkpoint)
    four = other.prompt.label_ids[3]
    for tokens, steps, want in (
        ([four], 1, 1.0 - (np.e**5 + 1) / (np.e**5 + 4)),
        ([200, other.prompt.label_ids[0]], 2, 1.0 - 2 / (np.e**5 + 4)),
        ([200] * 6, 6, 1.0),
        ([200, other.tokenizer.eos_token_id, four], 2, 1.0),
    ):
        scripted = Scripted(router.model, tokens)
        other.model = scripted
        assert other.win_rates(["x"])[0] == pytest.approx(want, abs=1e-6)
        assert scripted.steps == steps


def test_long_prompts_lose_their_end(caplog: pytest.LogCaptureFixture, checkpoint: Path) -> None:
    short = CausalLLMRouter.from_pretrained(checkpoint, max_length=200)
    text = "some words that go on " * 60
    with caplog.at_level(logging.WARNING):
        rates = short.win_rates([text, text + " with another end", "x"])
    assert rates[0] == rates[1]
    ids, cut = short.prompt.encode(text, 200)
    assert (len(ids), cut) == (200, True)
    assert ids[-1] == short.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert "Rating:" in short.tokenizer.decode(ids[-12:])
    told = [record for record in caplog.records if "only the beginning" in record.message]
    assert len(told) == 1


def test_any_string_is_a_prompt(router: CausalLLMRouter) -> None:
    rates = router.win_rates(["", " \n ", "\ud800", "\x00", "日本語", "{question}", "{0}", "x" * 5000])
    assert ((rates >= 0.0) & (rates <= 1.0)).all()


@pytest.mark.parametrize("template", [CHATML, NO_SYSTEM], ids=["with system", "without system"])
def test_any_chat_template_model_can_be_the_base(
    template: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, checkpoint: Path
) -> None:
    with caplog.at_level(logging.WARNING):
        made = CausalLLMRouter(
            base_model(checkpoint),
            tokenizer(checkpoint, template),
            system="Be {strict}.",
            template="Q: {question}\nUse {{braces}}.",
            prompt_format="chat_template",
        )
    assert "label tokens" in caplog.text
    text = made.tokenizer.decode(made.prompt.encode(" hi [[1]]<|im_end|> ")[0])
    assert text.endswith("Q:  hi [[1]]<|im_end|> \nUse {braces}.<|im_end|>\n<|im_start|>assistant\n")
    assert "Be {strict}." in text
    assert ("<|im_start|>system" in text) == (template == CHATML)
    ids = made.prompt.encode("hi [[1]]<|im_end|>")[0]
    assert ids.count(made.tokenizer.convert_tokens_to_ids("<|im_end|>")) == (2 if template == CHATML else 1)
    assert not set(ids) & set(made.prompt.label_ids)
    assert made.model.get_input_embeddings().num_embeddings == max(made.prompt.label_ids) + 1
    prompts = ["a", "b [[2]]", "", "\n\nx"]
    rates = made.win_rates(prompts)
    np.testing.assert_allclose(rates, [plainly(made, prompt) for prompt in prompts], atol=1e-5)
    made.save_pretrained(tmp_path)
    again = Router.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.win_rates(prompts), rates)
    assert again.fingerprint == made.fingerprint


def test_saved_form_round_trips_bit_for_bit(router: CausalLLMRouter, tmp_path: Path) -> None:
    router.save_pretrained(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "system_ft_v5.txt", "classifier_ft_v5.txt"} <= names
    again = load_router("causal_llm", tmp_path)
    assert isinstance(again, CausalLLMRouter)
    assert again.prompt.label_ids == router.prompt.label_ids
    assert again.model.dtype == torch.bfloat16
    np.testing.assert_array_equal(again.win_rates(PROMPTS), router.win_rates(PROMPTS))
    assert again.fingerprint == router.fingerprint


def copied(checkpoint: Path, tmp_path: Path, *without: str) -> Path:
    target = tmp_path / "copy"
    target.mkdir()
    for file in checkpoint.iterdir():
        if file.name not in without:
            shutil.copyfile(file, target / file.name)
    return target


def test_refused_checkpoints(tmp_path: Path, checkpoint: Path) -> None:
    path = copied(checkpoint, tmp_path, "system_ft_v5.txt")
    with pytest.raises(CheckpointNotFoundError, match=r"system_ft_v5\.txt.*system="):
        CausalLLMRouter.from_pretrained(path)
    assert CausalLLMRouter.from_pretrained(path, system="s").prompt.system == "s"
    (path / "system_ft_v5.txt").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="UTF-8"):
        CausalLLMRouter.from_pretrained(path)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(CheckpointNotFoundError, match=r"pytorch_model\.bin.*can run code"):
        CausalLLMRouter.from_pretrained(path, system="s")


@pytest.mark.parametrize("template", ["no place", "{question} {question}", "{other}", "{question", "{}"])
def test_templates_need_one_question(template: str, checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="template"):
        CausalLLMRouter.from_pretrained(checkpoint, template=template)


def test_prompt_formats_that_do_not_fit(checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="prompt_format='alpaca'"):
        CausalLLMRouter.from_pretrained(checkpoint, prompt_format="alpaca")
    with pytest.raises(ConfigurationError, match="chat template"):
        CausalLLMRouter.from_pretrained(checkpoint, prompt_format="chat_template")
    for broken in ("{{ 1 / 0 }}", "always the same", "{{ messages[-1]['content'] }}{{ messages[-1]['content'] }}"):
        with pytest.raises(ConfigurationError, match="chat template cannot be used"):
            RatingPrompt(
                tokenizer(checkpoint, broken), system="s", template="{question}", prompt_format="chat_template"
            )


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_length": 10}, "max_length=10"),
        ({"max_length": 10**6}, "max_length=1000000"),
        ({"dtype": "float64"}, "dtype='float64'"),
        ({"device": "nowhere"}, "device='nowhere'"),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, Any], word: str, checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match=word):
        CausalLLMRouter.from_pretrained(checkpoint, **options)


def test_labels_that_the_tokenizer_has_are_used_as_they_are(checkpoint: Path) -> None:
    known = tokenizer(checkpoint)
    known.add_tokens(list(LABELS))  # not as special tokens
    prompt = RatingPrompt(known, system="s", template="{question}")
    assert prompt.added == 0
    assert not set(prompt.encode("[[1]] [[5]]")[0]) & set(prompt.label_ids)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"routellm-adapters\[bert\]"):
        CausalLLMRouter.from_pretrained(checkpoint)
