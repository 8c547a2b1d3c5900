"""Makes the similarity-weighted ranking router of battles; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

from routellm_core.data.records import Record
from routellm_core.routers.sw_ranking import SimilarityWeightedRouter
from routellm_core.training.battles import battles_of
from routellm_core.training.embedding_task import EmbeddingTask, FittedRouter, positions

OPTIONS = ("num_tiers", "same_tier", "dtype", "base", "nearest")


def fit_records(records: Sequence[Record], task: EmbeddingTask) -> FittedRouter:
    """Make the router of the records' battles; see `train_embedding_router`."""
    every_pair = task.all_models is not False
    battles = battles_of(records, strong=task.strong, weak=task.weak, tie_margin=task.tie_margin, every_pair=every_pair)
    prompts, position = positions(battles)
    router = SimilarityWeightedRouter(
        [(b.model_a, b.model_b, b.winner) for b in battles],
        task.vectors(prompts)[position],
        embedder=task.embedder,
        strong=task.strong,
        weak=task.weak,
        **task.options,
    )
    return FittedRouter(router, {"battles": len(battles), "prompts": len(prompts)})
