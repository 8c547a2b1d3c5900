"""KNNRouter: its vote, its pairs, its saved form, and the choice of the number of neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import CheckpointError, ConfigurationError
from routellm_core.routers.knn import KNNRouter
from routellm_core.training.knn import fit_knn


class Planar:
    """Embeds "x,y" as the vector (x, y, 1): the constant part must not count as similarity."""

    dimension = 3

    def embed(self, texts: Sequence[str]) -> Any:
        return np.array([[*map(float, t.split(",")), 1.0] for t in texts], dtype=np.float32)

    async def aembed(self, texts: Sequence[str]) -> Any:
        return self.embed(texts)


def cloud(n: int, seed: int = 0) -> tuple[Any, list[str]]:
    """Scores and prompts of points in the plane: strong wins to the right, weak to the left; a third wins above."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 2)).round(3)
    scores = np.zeros((n, 3))
    scores[:, 0] = points[:, 0] > 0
    scores[:, 1] = points[:, 0] < 0
    scores[:, 2] = points[:, 1] > 0
    return scores, [f"{x},{y}" for x, y in points]


def router_of(n: int = 60, **options: Any) -> KNNRouter:
    scores, prompts = cloud(n)
    return KNNRouter(
        Planar().embed(prompts),
        scores,
        **{"models": ["s", "w", "t"], "strong": "s", "weak": "w", "embedder": Planar(), "neighbors": 10, **options},
    )


PROMPTS = ["2,0.1", "-2,0", "0,0", "0.01,3", "1e6,5", "0,-1"]


def test_similar_prompts_vote() -> None:
    rates = router_of().win_rates(["2,0", "-2,0", "0,2"])
    assert rates[0] > 0.9
    assert rates[1] < 0.1
    assert 0.2 < rates[2] < 0.8


def test_nearest_outcomes_are_those_of_the_pair_by_similarity() -> None:
    scores, prompts = cloud(60)
    scores[7, 0] = np.nan  # not an outcome of the pair
    router = KNNRouter(
        Planar().embed(prompts), scores, models=["s", "w", "t"], strong="s", weak="t", embedder=Planar(), tie_margin=0.1
    )
    near = router.nearest_outcomes("1,2", k=1000)
    assert len(near) == 59
    kept = np.delete(np.arange(60), 7)
    points = np.array([[float(x) for x in p.split(",")] for p in prompts])
    centre = points[kept].mean(axis=0)
    directions = (points - centre) / np.linalg.norm(points - centre, axis=1, keepdims=True)
    wanted = (np.array([1.0, 2.0]) - centre) / np.linalg.norm(np.array([1.0, 2.0]) - centre)
    order = kept[np.argsort(-(directions[kept] @ wanted), kind="stable")]
    assert [n.similarity for n in near] == pytest.approx(list(directions[order] @ wanted), abs=1e-5)
    assert [(n.strong_score, n.weak_score) for n in near] == [(scores[i, 0], scores[i, 2]) for i in order]
    sides = {1: "strong", -1: "weak", 0: "neither"}
    assert [n.speaks_for for n in near] == [sides[int(np.sign(scores[i, 0] - scores[i, 2]))] for i in order]
    for k in (0, True, 2.0):
        with pytest.raises(ConfigurationError, match="k="):
            router.nearest_outcomes("1,2", k=k)  # type: ignore[arg-type]


def test_the_vote_is_the_formula() -> None:
    rng = np.random.default_rng(1)
    stored, scores = rng.normal(size=(30, 3)), rng.integers(0, 3, (30, 2)).astype(float)
    weights = rng.uniform(0, 2, 30)
    router = KNNRouter(
        stored, scores, models=["s", "w"], strong="s", weak="w", embedder=Planar(), weights=weights, neighbors=7
    )
    query = np.array([0.3, -0.2, 1.0])
    center = stored.mean(axis=0)
    unit = (stored - center) / np.linalg.norm(stored - center, axis=1, keepdims=True)
    cosine = unit @ ((query - center) / np.linalg.norm(query - center))
    y = np.where(scores[:, 0] > scores[:, 1], 1.0, np.where(scores[:, 0] < scores[:, 1], 0.0, 0.5))
    near = np.argsort(-cosine)[:7]
    s = np.clip(cosine[near], 0, None) * weights[near]
    prior = weights @ y / weights.sum()
    wanted = ((s * y[near]).sum() + prior) / (s.sum() + 1)
    assert router.win_rates(["0.3,-0.2"])[0] == pytest.approx(wanted, abs=1e-6)


async def test_a_batch_gives_what_its_prompts_give_alone() -> None:
    router = router_of()
    batch = router.win_rates(PROMPTS)
    assert batch.tolist() == [router.win_rates([p])[0] for p in PROMPTS]
    assert (await router.awin_rates(PROMPTS)).tolist() == batch.tolist()
    assert router.win_rates(PROMPTS[::-1]).tolist() == batch[::-1].tolist()


def test_saved_and_loaded_it_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    router = router_of(weights=np.linspace(0, 1, 60), tie_margin=0.1)
    router.save_pretrained(tmp_path)
    again = KNNRouter.from_pretrained(tmp_path, embedder=Planar())
    assert again.win_rates(PROMPTS).tolist() == router.win_rates(PROMPTS).tolist()
    assert again.fingerprint == router.fingerprint
    with pytest.raises(ConfigurationError, match="embedder"):
        KNNRouter.from_pretrained(tmp_path)
    other = KNNRouter.from_pretrained(tmp_path, embedder=Planar(), strong="t", weak="w", neighbors=3)
    assert (other.strong, other.weak, other.neighbors) == ("t", "w", 3)
    assert other.fingerprint != router.fingerprint


def test_swapping_the_pair_turns_the_win_rate_round() -> None:
    forward, backward = router_of(), router_of(strong="w", weak="s")
    assert forward.win_rates(PROMPTS) == pytest.approx(1 - backward.win_rates(PROMPTS), abs=1e-12)


def test_prompts_without_both_scores_do_not_vote() -> None:
    scores, prompts = cloud(60)
    scores[:20, 1] = np.nan
    part = router_of()
    gaps = KNNRouter(
        Planar().embed(prompts), scores, models=["s", "w", "t"], strong="s", weak="w", embedder=Planar(), neighbors=10
    )
    alone = KNNRouter(
        Planar().embed(prompts[20:]),
        scores[20:],
        models=["s", "w", "t"],
        strong="s",
        weak="w",
        embedder=Planar(),
        neighbors=10,
    )
    assert gaps.win_rates(PROMPTS).tolist() == alone.win_rates(PROMPTS).tolist()
    assert gaps.win_rates(PROMPTS).tolist() != part.win_rates(PROMPTS).tolist()


def test_ties_count_half_and_the_margin_decides_what_is_one() -> None:
    stored = np.random.default_rng(0).normal(size=(8, 3))
    scores = np.array([[1.0, 0.9]] * 8)
    make = lambda margin: KNNRouter(  # noqa: E731
        stored, scores, models=["s", "w"], strong="s", weak="w", embedder=Planar(), tie_margin=margin
    )
    assert make(0.0).win_rates(["1,1"])[0] == pytest.approx(1.0)
    assert make(0.2).win_rates(["1,1"])[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbors": 0}, "neighbors"),
        ({"neighbors": True}, "neighbors"),
        ({"strong": "nobody"}, "strong='nobody'"),
        ({"models": ["s", "w", "w"]}, "distinct"),
        ({"models": ["s", "w"]}, "expected"),
        ({"weights": np.full(60, -1.0)}, "weights"),
        ({"weights": np.zeros(60)}, "no stored prompt"),
        ({"tie_margin": -1}, "tie_margin"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        router_of(**options)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    router_of().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"models": ["s"]}, {"tie_margin": None}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError):
            KNNRouter.from_pretrained(tmp_path, embedder=Planar())
    del config["neighbors"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="neighbors"):
        KNNRouter.from_pretrained(tmp_path, embedder=Planar())


def test_the_number_of_neighbours_follows_the_noise() -> None:
    scores, prompts = cloud(400)
    options: dict[str, Any] = {"models": ["s", "w", "t"], "strong": "s", "weak": "w", "embedder": Planar()}
    embeddings = Planar().embed(prompts)
    clean = fit_knn(embeddings, scores, **options)
    coin = np.random.default_rng(3).integers(0, 2, scores.shape).astype(float)
    noisy = fit_knn(embeddings, coin, **options)
    assert clean.neighbors < noisy.neighbors
    assert fit_knn(embeddings, scores, neighbors=17, **options).neighbors == 17
    assert fit_knn(embeddings, coin, **options).fingerprint == noisy.fingerprint


def test_repeats_of_a_prompt_do_not_vote_on_themselves() -> None:
    _, prompts = cloud(60)
    coin = np.random.default_rng(3).integers(0, 2, (60, 3)).astype(float)
    embeddings = np.repeat(Planar().embed(prompts), 6, axis=0)
    options: dict[str, Any] = {"models": ["s", "w", "t"], "strong": "s", "weak": "w", "embedder": Planar()}
    leaking = fit_knn(embeddings, np.repeat(coin, 6, axis=0), **options)
    grouped = fit_knn(embeddings, np.repeat(coin, 6, axis=0), groups=np.repeat(np.arange(60), 6), **options)
    assert leaking.neighbors == 5
    assert grouped.neighbors > 5


def test_options_of_loading_are_checked_too(tmp_path: Path) -> None:
    router_of().save_pretrained(tmp_path)
    for options, said in (
        ({"neighbors": 0}, "neighbors=0"),
        ({"strong": ""}, "strong=''"),
        ({"weak": "s"}, "both 's'"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            KNNRouter.from_pretrained(tmp_path, embedder=Planar(), **options)
