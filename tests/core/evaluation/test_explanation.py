"""The explanation of a win rate: its rank, the words, features, battles and outcomes that speak for it."""

import json
from typing import Any

import numpy as np
import pytest

from routellm_core import Calibration, ConfigurationError, PromptError, load_router
from routellm_core.evaluation import Explanation, explain_prompt
from tests.support.routers import ScriptedRouter


def test_the_interval_of_a_rank_holds_the_true_one():
    router, rng = ScriptedRouter(), np.random.default_rng(0)
    for size in (5, 40, 300):
        held = 0
        for _ in range(400):
            low, high = explain_prompt(  # type: ignore[misc]
                router, "p=0.6", Calibration.from_win_rates(rng.random(size))
            ).percentile_interval
            held += low <= 0.6 <= high
        assert held / 400 >= 0.91


def test_the_percentile_is_the_share_of_lower_win_rates():
    found = explain_prompt(ScriptedRouter(), "p=0.6", Calibration.from_win_rates([0.1, 0.6, 0.6, 0.9]))
    assert found.percentile == 0.25
    low, high = found.percentile_interval  # type: ignore[misc]
    assert 0 < low < 0.25 < high < 1
    assert explain_prompt(ScriptedRouter(), "p=0.6").percentile_interval is None


def test_no_word_speaks_for_a_random_win_rate(monkeypatch):
    router: Any = load_router("random")
    asked = []
    monkeypatch.setattr(type(router), "_win_rates", lambda self, prompts: asked.extend(prompts) or np.full(1, 0.3))
    found = explain_prompt(router, "Prove that it is irrational", router.calibration)
    assert found.words == []
    assert found.targets
    assert asked == ["Prove that it is irrational"]


class WordRouter(ScriptedRouter):
    """0.9 with the word "prove", else 0.2."""

    def _win_rates(self, prompts):
        return np.array([0.9 if "prove" in p.lower().split() else 0.2 for p in prompts])


def test_explanation_finds_the_word_that_matters():
    found = explain_prompt(WordRouter(), "Please prove it", WordRouter().calibration)
    assert found.win_rate == 0.9
    assert [w.word for w in found.words] == ["prove"]
    assert found.words[0].effect == pytest.approx(0.7)
    assert found.percentile == pytest.approx(0.9)
    assert {t.model for t in found.targets} == {"strong"}
    easy = explain_prompt(WordRouter(), "Please", WordRouter().calibration)
    assert [t.model for t in easy.targets] == ["weak"] * 4 + ["weak", "strong"]
    assert found.features == []
    assert explain_prompt(WordRouter(), "").win_rate == 0.2
    assert explain_prompt(WordRouter(), "\ud800 prove").win_rate == 0.9


def test_explanation_of_the_bundled_router_adds_up():
    router: Any = load_router()
    prompt = "Prove that the square root of 2 is irrational. Show every step."
    found = explain_prompt(router, prompt, router.calibration, top=1000)
    logit = sum(f.logit for f in found.features)
    constant = router.head.vector[-1]  # the embedding ends with a constant 1
    assert logit + constant == pytest.approx(np.log(found.win_rate / (1 - found.win_rate)), abs=1e-4)
    assert {"words", "log_chars"} <= {f.feature for f in found.features}
    assert len(found.words) > 3


class LetterEmbedder:
    """Counts of three letters."""

    dimension = 3

    def embed(self, texts):
        return np.array([[t.count("a"), t.count("b"), t.count("c")] for t in texts], dtype=np.float32)

    async def aembed(self, texts):
        return self.embed(texts)


def test_explanation_of_ranking_names_the_nearest_battles():
    from routellm_core.routers import SimilarityWeightedRouter

    battles = [
        ("big", "small", "model_a"),
        ("small", "big", "model_a"),
        ("big", "small", "tie"),
        ("big", "small", "model_a"),
    ]
    embeddings = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 1, 0]], dtype=np.float32)
    router = SimilarityWeightedRouter(
        battles, embeddings, embedder=LetterEmbedder(), strong="big", weak="small", num_tiers=2
    )
    best, worst = router.tiers["big"], router.tiers["small"]
    found = explain_prompt(router, "aaa", top=2).battles
    assert [b.similarity for b in found] == pytest.approx([1.0, 3 / np.sqrt(10)], abs=1e-6)
    assert {(b.first_tier, b.second_tier, b.speaks_for) for b in found} == {(best, worst, "strong")}
    assert explain_prompt(router, "bbb", top=1).battles[0].speaks_for == "weak"
    assert explain_prompt(router, "ccc", top=1).battles[0].speaks_for == "neither"


def test_explanation_of_neighbours_names_the_nearest_outcomes():
    from routellm_core.embedders import bundled_embedder
    from routellm_core.routers import KNNRouter

    prompts = ["Prove that 2 is prime.", "hi", "What is the capital of France?"]
    embedder = bundled_embedder()
    scores = [[1.0, 0.25], [0.0, 1.0], [1.0, 1.0]]
    router = KNNRouter(
        embedder.embed(prompts), scores, models=["big", "small"], strong="big", weak="small", embedder=embedder
    )
    for prompt, pair, side in zip(prompts, scores, ["strong", "weak", "neither"], strict=True):
        nearest = explain_prompt(router, prompt, top=2).outcomes
        assert [len(nearest), nearest[0].similarity] == [2, pytest.approx(1.0, abs=1e-5)]
        assert [nearest[0].strong_score, nearest[0].weak_score, nearest[0].speaks_for] == [*pair, side]
    assert explain_prompt(router, "hi").battles == explain_prompt(WordRouter(), "hi").outcomes == []  # type: ignore[comparison-overlap]


def test_an_explanation_is_json_and_at_most_as_long_as_asked():
    router: Any = load_router()
    found = explain_prompt(router, "Prove that the square root of 2 is irrational.", router.calibration, top=2)
    assert isinstance(found, Explanation)
    assert len(found.words) == len(found.features) == 2
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["words"][0] == {"word": found.words[0].word, "effect": found.words[0].effect}
    assert told["targets"][0]["model"] in ("strong", "weak")
    assert told["percentile_interval"] == list(found.percentile_interval)  # type: ignore[arg-type]


def test_a_function_is_explained_as_well():
    found = explain_prompt(lambda prompts: [0.9 if "prove" in p.lower() else 0.2 for p in prompts], "Please prove it")
    assert (found.win_rate, [w.word for w in found.words]) == (0.9, ["prove"])


@pytest.mark.parametrize("top", [0, -1, 2.5, True, None])
def test_top_is_a_positive_count(top):
    with pytest.raises(ConfigurationError, match="top="):
        explain_prompt(ScriptedRouter(), "hi", top=top)


def test_a_prompt_is_a_string():
    with pytest.raises(PromptError):
        explain_prompt(ScriptedRouter(), 3)  # type: ignore[arg-type]
