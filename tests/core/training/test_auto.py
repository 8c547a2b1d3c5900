"""`auto`: chooses by cross-validation inside the training rows, and prefers the steadier of what is equally good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import load_router
from routellm_core.data.records import Battle, Outcome
from routellm_core.statistics.metrics import hull_area
from routellm_core.training import auto, train_embedding_router
from routellm_core.training.embedding_task import EmbeddingTask, PromptVectors
from routellm_core.training.proof import fold_of
from tests.support.embedders import TableEmbedder, with_bias


def task_of(matrix: np.ndarray) -> EmbeddingTask:
    embedder = TableEmbedder(with_bias(matrix))
    vectors = PromptVectors(embedder, [str(i) for i in range(len(matrix))])
    return EmbeddingTask(strong="big", weak="small", embedder=embedder, vectors=vectors)


def test_the_score_is_the_area_over_random_routing() -> None:
    rng = np.random.default_rng(0)
    rates = np.round(rng.random(200), 1)  # with ties
    strong, weak = rng.random(200), rng.random(200)
    records = [Outcome(prompt=str(i), scores={"big": strong[i], "small": weak[i]}) for i in range(200)]
    found = auto._contributions({str(i): rates[i] for i in range(200)}, records, task_of(rng.random((200, 2))), folds=1)
    assert found.mean() == pytest.approx(hull_area(rates, strong, weak))
    battles = [
        Battle(prompt=str(i), model_a="small", model_b="big", winner="model_b" if i % 2 else "tie") for i in range(200)
    ]
    gains = np.arange(200) % 2
    found = auto._contributions({str(i): rates[i] for i in range(200)}, battles, task_of(rng.random((200, 2))), folds=1)
    assert found.mean() == pytest.approx(hull_area(rates, gains * 1.0, gains * 0.0))


def test_of_candidates_that_are_as_good_but_for_chance_the_steadiest_is_taken() -> None:
    best = np.random.default_rng(1).normal(0, 1, 400)
    best = (best - best.mean()) / best.std()  # the standard error of its mean is 1 / 20
    for lag, is_within in ((0.04, True), (0.06, False)):
        assert auto._first_within_error([best - 0.2, best - lag, best], paired=False) == (1 if is_within else 2)
        assert auto._first_within_error([best, best + lag], paired=False) == (0 if is_within else 1)
    noise = np.roll(best, 1)
    for lag, is_within in ((0.04, True), (0.06, False)):
        assert auto._first_within_error([2 * best - lag + noise, 2 * best], paired=True) == (0 if is_within else 1)
    assert auto._first_within_error([best - 0.001, best], paired=True) == 1  # a constant difference is no noise


@pytest.mark.parametrize(("shape", "kinds"), [("linear", {"mf"}), ("local", {"sw_ranking", "knn"})])
def test_the_router_that_fits_the_data_is_chosen(shape: str, kinds: set[str]) -> None:
    """A win rate that is linear in many columns is mf's; one that turns with the place on a ring is the neighbours'."""
    rng = np.random.default_rng(2)
    if shape == "linear":
        matrix = rng.standard_normal((500, 12))
        logits = matrix @ np.where(np.arange(12) % 2, 1.2, -1.2)
    else:
        angle = rng.random(500) * 2 * np.pi
        matrix = np.column_stack([np.cos(angle), np.sin(angle)])
        logits = 4.0 * np.sign(np.sin(4 * angle))
    won = rng.random(500) < 1 / (1 + np.exp(-logits))
    records = [Outcome(prompt=str(i), scores={"big": float(w), "small": 1.0 - w}) for i, w in enumerate(won)]
    chosen, scores = auto.choose(records, task_of(matrix))
    assert chosen.kind in kinds
    assert scores.keys() == {candidate.title for candidate in auto.CANDIDATES}


@pytest.mark.parametrize(("rows", "base"), [(30, 10.0), (120, 1e3)])
def test_where_nothing_can_be_told_apart_the_number_of_rows_sets_the_base(rows: int, base: float) -> None:
    records = [Outcome(prompt=str(i), scores={"big": 1.0, "small": float(i % 2)}) for i in range(rows)]
    chosen, _ = auto.choose(records, task_of(np.ones((rows, 3))))
    assert (chosen.kind, chosen.options) == ("sw_ranking", {"base": base})


def test_prompts_that_measure_decide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = [
        Outcome(prompt=f"question {i} about {'sums' if i % 2 else 'verse'}", scores={"big": 1.0, "small": float(i % 2)})
        for i in rng.permutation(120)
    ]
    seen: list[int] = []
    original = auto.choose

    def counted(records: Any, task: Any) -> Any:
        seen.append(len(records))
        return original(records, task)

    monkeypatch.setattr(auto, "choose", counted)
    monkeypatch.setattr(auto, "CANDIDATES", auto.CANDIDATES[:1] + auto.CANDIDATES[-1:])
    summary = train_embedding_router("auto", rows, tmp_path / "r", strong="big", weak="small", draws=20)
    assert seen == [summary.rows["train"]]
    assert summary.rows["train"] < 120
    kind = summary.settings["chosen"].split()[0]
    assert load_router(tmp_path / "r").name == summary.router == kind
    assert any("Under about 200" in note for note in summary.notes)
    assert "Under about 200" in (tmp_path / "r" / "README.md").read_text()


def test_the_levels_of_the_folds_routers_do_not_count() -> None:
    """A router that knows nothing but the mean of its rows ranks each fold below the others where strong wins often."""
    rng = np.random.default_rng(4)
    won = rng.random(400) < 0.5
    records = [Outcome(prompt=str(i), scores={"big": float(w), "small": 1.0 - w}) for i, w in enumerate(won)]
    fold = np.array([fold_of(str(i), 5, 0) for i in range(400)])
    rates = {str(i): float(won[fold != fold[i]].mean()) for i in range(400)}
    task = task_of(rng.random((400, 2)))
    assert auto._contributions(rates, records, task).mean() == pytest.approx(0.0)
    assert auto._contributions(rates, records, task, folds=1).mean() < -0.002
