"""Chooses the router for the amount of data: sw_ranking, mf or knn, by cross-validation inside the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from routellm_core.data.convert import scores_of
from routellm_core.data.records import Record
from routellm_core.statistics.metrics import Floats
from routellm_core.training import knn, mf, sw_ranking
from routellm_core.training.embedding_task import EmbeddingTask, FittedRouter
from routellm_core.training.proof import out_of_fold_win_rates

OPTIONS = ()

# The base of the weights of sw_ranking: the paper's 10 is for large embeddings, and for fewer than 50 rows.
BASES = (10.0, 1e2, 1e3, 1e4, 1e5, 1e6)
_FOLDS = 5


@dataclass(frozen=True)
class Candidate:
    """A router that may be chosen.

    Attributes:
        kind: Name of the router.
        options: Its options.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name with its options, for a table."""
        return " ".join([self.kind, *(f"{name}={value:g}" for name, value in self.options.items())])

    def fit(self, records: Sequence[Record], task: EmbeddingTask) -> FittedRouter:
        """Fit it to records."""
        trainer = {"mf": mf, "knn": knn, "sw_ranking": sw_ranking}[self.kind]
        return trainer.fit_records(records, replace(task, options=self.options))


# From what depends least on single rows to what depends most: of candidates that are as good but for chance, the first.
CANDIDATES = (*(Candidate("sw_ranking", {"base": base}) for base in BASES), Candidate("mf"), Candidate("knn"))


def fit_records(records: Sequence[Record], task: EmbeddingTask) -> FittedRouter:
    """Fit the chosen router to all records; see `train_embedding_router`."""
    chosen, scores = choose(records, task)
    fitted = chosen.fit(records, task)
    settings = {
        "chosen": chosen.title,
        "area_over_random": {title: round(score, 5) for title, score in scores.items()},
        **fitted.settings,
        **chosen.options,
    }
    return FittedRouter(fitted.router, settings)


def choose(records: Sequence[Record], task: EmbeddingTask) -> tuple[Candidate, dict[str, float]]:
    """Cross-validate the candidates and choose by the one-standard-error rule.

    A candidate's score is the area between its curve (mean score over share of strong calls) and that of random
    routing, of win rates by routers that were not trained on the prompt. The chosen one is the first in `CANDIDATES`
    whose score is within one standard error of the best: the error of the paired difference, prompt by prompt.

    Args:
        records: The training rows.
        task: As for the trainers; its options are not used.

    Returns:
        The candidate, and the scores by title.
    """
    areas = []
    for candidate in CANDIDATES:
        fit = partial(_router, candidate, task)
        rates = out_of_fold_win_rates(fit, records, folds=_FOLDS, seed=task.seed)
        areas.append(_contributions(rates, records, task))
    best = max(areas, key=lambda area: float(area.mean()))
    chosen = next(i for i, area in enumerate(areas) if _is_within_one_error(area, best))
    scores = {candidate.title: float(area.mean()) for candidate, area in zip(CANDIDATES, areas, strict=True)}
    return CANDIDATES[chosen], scores


def _router(candidate: Candidate, task: EmbeddingTask, records: list[Record]) -> Any:
    return candidate.fit(records, task).router


def _is_within_one_error(area: Floats, best: Floats) -> bool:
    behind = best - area
    return bool(behind.mean() <= behind.std() / np.sqrt(behind.size))


def _contributions(rates: Mapping[str, float], records: Sequence[Record], task: EmbeddingTask) -> Floats:
    """What each record (n,) adds to the area over random routing: its gain, by how early it becomes a strong call."""
    scored = [(rates[record.prompt], scores_of(record), record.weight) for record in records]
    pairs = [(rate, s[task.strong] - s[task.weak], w) for rate, s, w in scored if {task.strong, task.weak} <= s.keys()]
    rate, gain, weight = np.array(pairs, dtype=np.float64).T
    order = np.argsort(-rate, kind="stable")
    _, group = np.unique(-rate[order], return_inverse=True)
    middle = np.bincount(group, weights=np.arange(rate.size) + 0.5) / np.bincount(group)
    place = np.empty(rate.size)
    place[order] = middle[group] / rate.size
    return weight / weight.mean() * gain * (0.5 - place)
