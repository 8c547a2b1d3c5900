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
from routellm_core.training.proof import fold_of, out_of_fold_win_rates

OPTIONS = ()

# The base of the weights of sw_ranking: the usual one first, then outwards from it. The paper's 10 is for large
# embeddings; with the bundled one it suits fewer than _FEW_ROWS rows only.
BASES = (1e3, 1e4, 1e2, 1e5, 10.0, 1e6)
_FEW_ROWS = 50
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
        fitted: FittedRouter = trainer.fit_records(records, replace(task, options=self.options))
        return fitted


# In the order of preference, which decides between candidates that are as good but for chance: for six pairs of models
# on MMLU-Pro, sw_ranking with a base of 1,000 was the best, or nearly so, at 200, 400 and 800 rows.
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
    routing, of win rates by routers that were not trained on the prompt. The base comes first: the usual one, or the
    nearest to it whose score is within one standard error of the best base's. That is the error of the score itself:
    bases rank prompts nearly alike, so that by the error of their difference the luckiest of six would seem to be
    better. Then the kinds: the first in `CANDIDATES` that is within one standard error of the best, by the error of
    the paired difference, prompt by prompt. With fewer than 50 rows, a smaller base is preferred.

    Args:
        records: The training rows.
        task: As for the trainers; its options are not used.

    Returns:
        The candidate, and the scores by title.
    """
    areas = {}
    for candidate in CANDIDATES:
        fit = partial(_router, candidate, task)
        rates = out_of_fold_win_rates(fit, records, folds=_FOLDS, seed=task.seed)
        areas[candidate.title] = _contributions(rates, records, task)
    bases = [candidate for candidate in CANDIDATES if "base" in candidate.options]
    if len(records) < _FEW_ROWS:
        bases.sort(key=lambda candidate: float(candidate.options["base"]))
    base = bases[_first_within_error([areas[candidate.title] for candidate in bases], paired=False)]
    kinds = [base, *(candidate for candidate in CANDIDATES if "base" not in candidate.options)]
    chosen = kinds[_first_within_error([areas[candidate.title] for candidate in kinds], paired=True)]
    return chosen, {title: float(area.mean()) for title, area in areas.items()}


def _router(candidate: Candidate, task: EmbeddingTask, records: list[Record]) -> Any:
    return candidate.fit(records, task).router


def _first_within_error(areas: Sequence[Floats], *, paired: bool) -> int:
    """Position of the first whose mean is within one standard error of the best: of the best one's, or paired."""
    best = max(areas, key=lambda area: float(area.mean()))
    behind = [best - area for area in areas]
    errors = [(lag if paired else best).std() / np.sqrt(best.size) for lag in behind]
    return next(i for i, (lag, error) in enumerate(zip(behind, errors, strict=True)) if lag.mean() <= error)


def _contributions(
    rates: Mapping[str, float], records: Sequence[Record], task: EmbeddingTask, *, folds: int = _FOLDS
) -> Floats:
    """What each record (n,) adds to the area over random routing: its gain, by how early it becomes a strong call.

    Prompts are ranked within their fold: each fold's router has a level of its own, which is the lower the more often
    the strong model wins in the fold that it has not seen, so that a rank among all prompts would be the wrong way on.
    """
    scored = [(record, scores_of(record)) for record in records]
    pairs = [(record, s[task.strong] - s[task.weak]) for record, s in scored if {task.strong, task.weak} <= s.keys()]
    rate = np.array([rates[record.prompt] for record, _ in pairs])
    fold = np.array([fold_of(record.prompt, folds, task.seed) for record, _ in pairs])
    weight = np.array([record.weight for record, _ in pairs])
    early = np.empty(rate.size)
    for k in np.unique(fold):
        early[fold == k] = 0.5 - _places(rate[fold == k])
    gain = np.array([gain for _, gain in pairs])
    return np.asarray(gain * early * weight / weight.mean(), dtype=np.float64)


def _places(rates: Floats) -> Floats:
    """The place of each prompt (n,) in descending order of win rate, in (0, 1); equal ones share one place."""
    ordered, group = np.unique(-rates, return_inverse=True)
    counts = np.bincount(group, minlength=ordered.size)
    middle = np.cumsum(counts) - counts / 2.0
    return np.asarray(middle[group] / rates.size, dtype=np.float64)
