"""HeadAndVoteRouter: which prompts are voted on, the vote itself, its saved form and its explanation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import Calibration, CheckpointError, ConfigurationError, load_router
from routellm_core.embedders.static import SURFACE_NAMES, bundled_embedder
from routellm_core.evaluation import explain_prompt
from routellm_core.routers.mf_vote import HeadAndVoteRouter, vote
from routellm_core.training.mf import pair_router

CHOICE = "Which of these is a prime?\nA. 4\nB. 6\nC. 7\nD. 9\nAnswer:"
OPEN = "Prove that there are infinitely many primes."
SETTINGS: dict[str, Any] = {
    "feature": 2,
    "above": 0.5,
    "base": 1000.0,
    "head_slope": 0.5,
    "vote_slope": 2.0,
    "intercept": -0.25,
}


class Written:
    """Embeds "x,y,z" as itself; z says whether outcomes vote."""

    dimension = 3

    def embed(self, texts: Sequence[str]) -> Any:
        return np.array([[float(x) for x in text.split(",")] for text in texts], dtype=np.float32)

    async def aembed(self, texts: Sequence[str]) -> Any:
        return self.embed(texts)


def router_of(n: int = 40, **settings: Any) -> HeadAndVoteRouter:
    rng = np.random.default_rng(0)
    head = pair_router([0.3, -0.2, 0.1], strong="s", weak="w", embedder=Written())
    stored = rng.integers(-127, 128, (n, 3)).astype(np.int8)
    return HeadAndVoteRouter(head, stored, rng.integers(0, 2, (n, 2)), **{**SETTINGS, **settings})


def by_hand(router: HeadAndVoteRouter, prompt: str) -> float:
    """The win rate with loops and math alone."""
    e = [float(x) for x in prompt.split(",")]
    head = 1 / (1 + np.exp(-(0.3 * e[0] - 0.2 * e[1] + 0.1 * e[2])))
    if not e[2] > router.above:
        return float(head)
    rows = router.embeddings.astype(float)
    cosines = [r @ e / np.linalg.norm(r) / np.linalg.norm(e) for r in rows]
    weights = [router.base ** (c / max(cosines)) for c in cosines]
    labels = [0.5 if s == w else float(s > w) for s, w in router.scores]
    voted = sum(w * y for w, y in zip(weights, labels, strict=True)) / sum(weights)
    z = 2.0 * np.log(voted / (1 - voted)) + 0.5 * np.log(head / (1 - head)) - 0.25
    return float(1 / (1 + np.exp(-z)))


@pytest.mark.parametrize("prompt", ["1,2,0", "1,2,0.5", "1,2,0.51", "-3,0.5,1", "0,0,4"])
def test_win_rates_agree_with_the_formula(prompt: str) -> None:
    router = router_of()
    assert router.win_rates([prompt])[0] == pytest.approx(by_hand(router, prompt), abs=1e-6)


def test_the_more_similar_outcome_decides_the_more_the_larger_the_base() -> None:
    directions, labels = np.array([[1, 0], [0, 1]], dtype=np.float32), np.array([1, 0], dtype=np.float32)
    query = np.array([2, 1], dtype=np.float32)
    rates = [vote(directions, labels, query, base) for base in (1.001, 10.0, 1e3, 1e30, 1e300)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(0.5, abs=1e-3)
    assert rates[2] == pytest.approx(1 / (1 + 1000**-0.5), abs=1e-6)
    assert rates[-1] == pytest.approx(1.0)
    assert vote(directions, labels, -query, 1e3) == vote(directions, labels, 0 * query, 1e3) == 0.5


def test_a_batch_equals_its_prompts_sync_and_async_bit_for_bit() -> None:
    router = router_of()
    prompts = [f"{x},{y},{z}" for x in (-2, 0.3, 5) for y in (-1, 0, 2) for z in (0, 0.7, 3)]
    alone = [float(router.win_rates([prompt])[0]) for prompt in prompts]
    assert router.win_rates(prompts).tolist() == alone
    assert asyncio.run(router.awin_rates(prompts)).tolist() == alone


def test_saved_again_it_is_the_same(tmp_path: Path) -> None:
    router = router_of()
    router.calibration = Calibration.fit(router, ["1,2,0", "1,2,3"])
    router.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["router"] == "mf_vote"
    again = load_router("mf_vote", tmp_path, embedder=Written())
    prompts = ["1,2,0", "-1,2,3", "0.5,0.5,0.6"]
    assert again.fingerprint == router.fingerprint
    assert again.win_rates(prompts).tolist() == router.win_rates(prompts).tolist()
    assert again.calibration == router.calibration
    head = load_router("mf", tmp_path / "head", embedder=Written())
    assert head.win_rates(["1,2,0"]) == router.win_rates(["1,2,0"])


def test_everything_that_moves_a_win_rate_moves_the_fingerprint() -> None:
    known = {router_of().fingerprint, router_of(39).fingerprint}
    for name, value in {**SETTINGS, "feature": 1}.items():
        changed = value if name == "feature" else value * 1.01
        known.add(router_of(**{name: changed}).fingerprint)
    assert len(known) == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("feature", value) for value in (3, -1, 1.0, True, None)),
        *(("base", value) for value in (1.0, 0, float("inf"), "1000")),
        *(("above", value) for value in (float("nan"), None)),
        *(("head_slope", value) for value in (-0.1, True)),
        *(("vote_slope", value) for value in (0.0, -1)),
        ("intercept", float("inf")),
    ],
)
def test_a_setting_out_of_its_range_is_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        router_of(**{name: value})  # type: ignore[arg-type]
    saved = bundled_pair()
    saved.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    value = saved.dimension if value == 3 else value
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), name: value}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=name):
        load_router("mf_vote", tmp_path)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    router = router_of()
    for stored, scores in (
        (router.embeddings.astype(np.int16), router.scores),
        (router.embeddings[:, :2], router.scores),
        (router.embeddings[:0], router.scores[:0]),
        (router.embeddings, router.scores[:-1]),
        (router.embeddings, router.scores * np.nan),
    ):
        with pytest.raises(ConfigurationError, match=r"embeddings|scores"):
            HeadAndVoteRouter(router.head, stored, scores, **SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="head="):
        HeadAndVoteRouter(router, router.embeddings, router.scores, **SETTINGS)  # type: ignore[arg-type]


def test_a_head_of_another_router_is_noticed(tmp_path: Path) -> None:
    router = bundled_pair()
    router.save_pretrained(tmp_path)
    pair_router(router.head.vector * 2, strong="s", weak="w", embedder=bundled_embedder()).save_pretrained(
        tmp_path / "head"
    )
    with pytest.raises(CheckpointError, match="head"):
        load_router("mf_vote", tmp_path)


def bundled_pair(windows: int = 16) -> HeadAndVoteRouter:
    """Over the bundled embedder, with made-up numbers."""
    embedder, rng = bundled_embedder(), np.random.default_rng(0)
    head = pair_router(
        rng.normal(size=embedder.dimension) / 20, strong="s", weak="w", embedder=embedder, windows=windows
    )
    prompts = [f"Which of these is {i}?\nA. {i}\nB. {i + 1}\nC. {i + 2}\nD. {i + 3}\nAnswer:" for i in range(30)]
    vectors = embedder.embed(prompts)
    stored = np.rint(127 * vectors / np.abs(vectors).max(axis=1, keepdims=True)).astype(np.int8)
    feature = embedder.text_dimension + SURFACE_NAMES.index("choice")
    return HeadAndVoteRouter(head, stored, rng.integers(0, 2, (30, 2)), **{**SETTINGS, "feature": feature})


def test_a_question_with_options_is_voted_on_and_explained_by_outcomes() -> None:
    router = bundled_pair()
    assert router.win_rates([OPEN]) == router.head.win_rates([OPEN])
    assert router.win_rates([CHOICE]) != router.head.win_rates([CHOICE])
    voted = explain_prompt(router, CHOICE, top=3)
    assert len(voted.outcomes) == 3
    assert not voted.features
    similarities = [outcome.similarity for outcome in voted.outcomes]
    assert similarities == sorted(similarities, reverse=True)
    of_head = explain_prompt(router, OPEN, top=3)
    assert len(of_head.features) == 3
    assert not of_head.outcomes


def test_an_explanation_of_a_long_prompt_is_of_the_window_that_sets_its_win_rate() -> None:
    router = bundled_pair()
    chatter = "Thank you so much for your help with my letter, it was lovely and my sister enjoyed it. " * 12
    prompt = chatter + "\n" + CHOICE + "\n" + chatter + OPEN
    text, voted = router.deciding_text(prompt)
    assert text in router.texts_of(prompt)
    found = explain_prompt(router, prompt, top=1000)
    assert bool(found.outcomes) == voted
    without_windows = bundled_pair(windows=0)
    assert without_windows.win_rates([text])[0] == found.win_rate
    if not voted:
        logit = sum(feature.logit for feature in found.features) + float(router.head.vector[-1])
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(found.win_rate, rel=1e-6)
