"""Long prompts in windows: what is read, what counts, and what stays as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routellm_core import load_router
from routellm_core.embedders.static import bundled_embedder
from routellm_core.errors import CheckpointError, ConfigurationError
from routellm_core.evaluation import explain_prompt
from routellm_core.routers.mf import MatrixFactorizationRouter
from routellm_core.routers.mf_vote import HeadAndVoteRouter
from routellm_core.training.mf import pair_router

QUESTION = "Prove that every bounded sequence of real numbers has a convergent subsequence."
CHATTER = "Thank you so much for your help with my letter, it was lovely and my sister enjoyed reading the story. "


class Counting:
    """An embedder that counts the texts and characters it is given; a text's vector is its number of x."""

    dimension = 2

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return np.array([[float(text.count("x")), 1.0] for text in texts], dtype=np.float32)

    async def aembed(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed(texts)


def counting_router(windows: int) -> tuple[MatrixFactorizationRouter, Counting]:
    embedder = Counting()
    return pair_router([0.01, -1.0], strong="s", weak="w", embedder=embedder, windows=windows), embedder


@pytest.fixture(scope="module")
def plain() -> MatrixFactorizationRouter:
    """The bundled head without windows."""
    bundled = load_router()
    assert isinstance(bundled, HeadAndVoteRouter)
    return pair_router(bundled.head.vector, strong="s", weak="w", embedder=bundled.embedder)


@pytest.fixture(scope="module")
def router(plain: MatrixFactorizationRouter) -> MatrixFactorizationRouter:
    return pair_router(plain.vector, strong="s", weak="w", embedder=plain.embedder, windows=16)


@settings(max_examples=200)
@given(st.integers(1201, 60_000), st.integers(2, 40))
def test_windows_cover_a_prompt_from_end_to_end_and_never_outnumber_the_cap(length: int, cap: int) -> None:
    router, _ = counting_router(cap)
    # no sentence ends: the wide windows are read in narrow ones, which lie within them
    prompt = "".join(chr(65 + i % 50) + f"{i:04d}"[:3] for i in range(length // 4 + 1))[:length]
    whole, *windows = router.texts_of(prompt)
    assert whole == prompt
    found = [window for window in windows if len(window) == 1000]
    assert 2 <= len(found) <= cap
    assert found[0] == prompt[:1000]
    assert found[-1] == prompt[-1000:]
    starts = [i * (length - 1000) // (len(found) - 1) for i in range(len(found))]
    assert [prompt[s : s + 1000] for s in starts] == found
    if length <= 700 * (cap - 1) + 1000:  # no gap
        assert max(np.diff(starts)) <= 700
    narrow = [wide[s : s + 300] for wide in found for s in (0, 175, 350, 525, 700)]
    assert [window for window in windows if len(window) == 300] == list(dict.fromkeys(narrow))
    assert {len(window) for window in windows} == {1000, 300}


def test_the_hardest_window_counts() -> None:
    router, embedder = counting_router(16)
    prompt = "x" * 50 + "-" * 2000 + "x" * 400 + "-" * 2000
    # the whole prompt has more x than any window, and the highest of all counts
    assert router.win_rates([prompt])[0] == pytest.approx(1 / (1 + np.exp(1 - 4.5)), rel=1e-6)
    assert embedder.texts == router.texts_of(prompt)


def test_a_question_in_the_middle_of_chatter_is_seen(
    router: MatrixFactorizationRouter, plain: MatrixFactorizationRouter
) -> None:
    padded = CHATTER * 9 + "\n" + QUESTION + "\n" + CHATTER * 5
    alone = float(router.win_rates([QUESTION])[0])
    assert plain.win_rates([padded])[0] < plain.win_rates([QUESTION])[0]
    assert router.win_rates([padded])[0] > plain.win_rates([padded])[0]
    assert router.win_rates([QUESTION])[0] == alone == plain.win_rates([QUESTION])[0]


@pytest.mark.parametrize("between", [" ", "\n", "\n\n"])
@pytest.mark.parametrize(
    "question", [QUESTION, "请证明每一个有界无穷数列都有一个收敛的子数列，并说明理由。", "Why is e transcendental?"]
)
def test_a_sentence_is_read_alone(question: str, between: str) -> None:
    router, _ = counting_router(16)
    chatter = CHATTER.strip()
    before, after = between.join([chatter] * 9), between.join([chatter] * 5)
    assert question in router.texts_of(f"{before}{between}{question}{between}{after}")
    # remnants say nothing, and of a long one windows are read
    parts = router.texts_of(f"{before}{between}Why? No.{between}{'x' * 301}{between}{after}")
    assert not {"Why?", "No.", "x" * 301} & set(parts)
    assert "x" * 300 in parts


def test_the_cost_of_many_sentences_is_bounded() -> None:
    router, embedder = counting_router(8)
    router.win_rates([" ".join(f"Sentence {i} of many." for i in range(100_000))])
    assert sum(map(len, embedder.texts[1:])) <= 2 * 8 * 1000


@settings(max_examples=100)
@given(st.text(max_size=1200))
def test_a_prompt_that_was_read_whole_keeps_its_win_rate_bit_for_bit(text: str) -> None:
    vector = np.random.default_rng(0).standard_normal(bundled_embedder().dimension) / 10
    rates = [
        pair_router(vector, strong="s", weak="w", embedder=bundled_embedder(), windows=n).win_rates([text])[0]
        for n in (0, 16)
    ]
    assert rates[0] == rates[1]


def test_a_batch_equals_its_prompts_sync_and_async(router: MatrixFactorizationRouter) -> None:
    prompts = ["hi", CHATTER * 40, QUESTION, "", CHATTER * 12 + QUESTION + CHATTER * 12, "x" * 1201, CHATTER * 2000]
    alone = [float(router.win_rates([prompt])[0]) for prompt in prompts]
    assert router.win_rates(prompts).tolist() == alone
    assert asyncio.run(router.awin_rates(prompts)).tolist() == alone
    # more prompts than one embed call takes
    assert router.win_rates(prompts * 60).tolist() == alone * 60


def test_the_cost_of_any_prompt_is_bounded() -> None:
    router, embedder = counting_router(8)
    router.win_rates(["-" * 3_000_000])
    assert sum(map(len, embedder.texts[1:])) <= 8 * (1000 + 5 * 300)


def test_the_setting_is_saved_and_part_of_the_fingerprint(router: MatrixFactorizationRouter, tmp_path: Path) -> None:
    router.save_pretrained(tmp_path)
    again = load_router("mf", tmp_path)
    assert again.windows == 16  # type: ignore[attr-defined]
    assert again.fingerprint == router.fingerprint
    without = load_router("mf", tmp_path, windows=0)
    assert without.fingerprint != router.fingerprint
    long = [CHATTER * 12 + QUESTION + CHATTER * 12]
    assert again.win_rates(long)[0] == router.win_rates(long)[0] != without.win_rates(long)[0]


def test_a_router_saved_before_there_were_windows_loads_as_it_was(
    plain: MatrixFactorizationRouter, tmp_path: Path
) -> None:
    plain.save_pretrained(tmp_path)
    assert "windows" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert load_router("mf", tmp_path).fingerprint == plain.fingerprint


@pytest.mark.parametrize("value", [1, -1, 2.5, "many", True, None, [16]])
def test_what_is_no_number_of_windows_is_refused(
    plain: MatrixFactorizationRouter, tmp_path: Path, value: object
) -> None:
    with pytest.raises(ConfigurationError, match="windows="):
        pair_router(plain.vector, strong="s", weak="w", embedder=plain.embedder, windows=value)  # type: ignore[arg-type]
    plain.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "windows": value}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="windows="):
        load_router("mf", tmp_path)


def test_an_explanation_is_of_the_window_that_sets_the_win_rate(router: MatrixFactorizationRouter) -> None:
    prompt = CHATTER * 12 + "\n" + QUESTION + "\n" + CHATTER * 12
    found = explain_prompt(router, prompt, top=1000)
    constant = float(router.vector[-1])
    logit = sum(feature.logit for feature in found.features) + constant
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(found.win_rate, rel=1e-6)
