"""Training from records of the routers over prompt embeddings: what each makes of them, and which options it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core.data import Battle, Outcome
from routellm_core.errors import ConfigurationError
from routellm_core.training import knn, mf, options, sw_ranking, train_embedding_router
from routellm_core.training.embedding_task import EmbeddingTask, PromptVectors
from routellm_core.training.options import EmbeddingRouterOptions, FineTuningOptions
from tests.support.embedders import TableEmbedder


def task_of(count: int, **fields: Any) -> EmbeddingTask:
    """Prompts "0" .. are random vectors."""
    embedder = TableEmbedder(np.random.default_rng(0).standard_normal((count, 8)))
    vectors = PromptVectors(embedder, map(str, range(count)))
    return EmbeddingTask(strong="s", weak="w", embedder=embedder, vectors=vectors, **fields)


def test_repeats_of_a_prompt_do_not_choose_the_number_of_neighbours() -> None:
    rng = np.random.default_rng(3)
    coins = [Outcome(prompt=str(i), scores={"s": float(rng.random() < 0.5), "w": 0.5}) for i in range(60)]
    fitted = knn.fit_records([record for record in coins for _ in range(6)], task_of(60))
    assert fitted.settings["neighbors"] > 5  # a prompt's own repeats would be the best five neighbours


def test_every_prompt_is_embedded_once_and_progress_counts_them() -> None:
    calls: list[tuple[int, int]] = []
    embedder = TableEmbedder(np.arange(2200.0).reshape(1100, 2))
    prompts = [str(i) for i in range(1100)]
    vectors = PromptVectors(embedder, prompts * 2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(512, 1100), (1024, 1100), (1100, 1100)]
    assert vectors(["7", "1099", "7"]).tolist() == embedder.embed(["7", "1099", "7"]).tolist()


def test_battles_and_outcomes_count_alike() -> None:
    outcomes = [Outcome(prompt=str(i), scores={"s": i % 3, "w": 1}, weight=1 + i % 2) for i in range(40)]
    winner = ("model_b", "tie", "model_a")
    battles = [
        Battle(prompt=str(i), model_a="s", model_b="w", winner=winner[i % 3], weight=1 + i % 2)  # type: ignore[arg-type]
        for i in range(40)
    ]
    prompts = [str(i) for i in range(40)]
    for trainer in (mf, knn, sw_ranking):
        one, two = (trainer.fit_records(rows, task_of(40)).router.win_rates(prompts) for rows in (outcomes, battles))
        assert one.tolist() == two.tolist()
        assert np.ptp(one) > 0


def test_an_option_that_does_not_exist_or_is_of_another_router_is_refused(tmp_path: Path) -> None:
    rows = [Outcome(prompt=f"question {i}", scores={"s": 1, "w": i % 2}) for i in range(30)]
    options: dict[str, Any]
    for kind, options, message in (
        ("mf", {"neighbors": 3}, "neighbors=: the training of mf has no such option"),
        ("knn", {"epoch": 3}, "epoch=: the training of knn has no such option"),
        ("sw_ranking", {"bases": 3}, "did you mean base=?"),
        ("knn", {"fold": 3}, "did you mean folds=?"),
        ("bert", {}, "kind='bert': expected one of mf, knn, sw_ranking"),
    ):
        with pytest.raises(ConfigurationError) as failure:
            train_embedding_router(kind, rows, tmp_path / "r", strong="s", weak="w", **options)  # type: ignore[arg-type]
        assert message in str(failure.value)
    assert not (tmp_path / "r").exists()


def test_every_option_is_described_and_every_shared_one_has_a_default() -> None:
    own = {*mf.OPTIONS, *knn.OPTIONS, *sw_ranking.OPTIONS}
    assert EmbeddingRouterOptions.__annotations__.keys() == own | options.EMBEDDING_DEFAULTS.keys()
    assert FineTuningOptions.__annotations__.keys() == options.FINE_TUNING_DEFAULTS.keys() | {"how"}
