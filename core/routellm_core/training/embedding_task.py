"""What a router over prompt embeddings is trained on besides records: the pair, the prompts' vectors, its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routellm_core.checks import Progress
from routellm_core.data.records import Record
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings
from routellm_core.routers.base import Router

_CHUNK = 512


class FittedRouter(NamedTuple):
    """A router that has just been fitted.

    Attributes:
        router: The router, without a calibration.
        settings: What was counted and chosen during the fit, for the summary; JSON values.
    """

    router: Router
    settings: dict[str, Any]


class PromptVectors:
    """The embeddings of the data's prompts, computed once, since every fold and every candidate needs them again.

    Args:
        embedder: Maps prompts to vectors.
        prompts: All prompts that will be asked for.
        progress: Called with (prompts embedded, prompts in all).
    """

    def __init__(self, embedder: Embedder, prompts: Iterable[str], progress: Progress | None = None) -> None:
        distinct = list(dict.fromkeys(prompts))
        self._at = {prompt: i for i, prompt in enumerate(distinct)}
        parts = []
        for start in range(0, len(distinct), _CHUNK):
            chunk = distinct[start : start + _CHUNK]
            parts.append(checked_embeddings(embedder.embed(chunk), len(chunk), None, type(embedder).__name__))
            if progress is not None:
                progress(start + len(chunk), len(distinct))
        self._matrix: FloatMatrix = np.concatenate(parts)

    def __call__(self, prompts: Sequence[str]) -> FloatMatrix:
        """Their embeddings, float32 (n, d)."""
        rows: FloatMatrix = self._matrix[[self._at[prompt] for prompt in prompts]]
        return rows


@dataclass(frozen=True)
class EmbeddingTask:
    """How to fit a router over prompt embeddings to records.

    Attributes:
        strong: The strong model.
        weak: The weak model.
        embedder: Maps prompts to vectors; the router keeps it.
        vectors: The vectors of all prompts of the records.
        tie_margin: Scores that differ by no more than this are a tie.
        all_models: Whether to learn from the battles of every pair of models; None: what is usual for the router.
        seed: Seed of whatever is random.
        options: The options that belong to this kind of router.
    """

    strong: str
    weak: str
    embedder: Embedder
    vectors: PromptVectors
    tie_margin: float = 0.0
    all_models: bool | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def positions(records: Sequence[Record]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct prompts, and the position among them (n,) of each record's."""
    index: dict[str, int] = {}
    rows = [index.setdefault(record.prompt, len(index)) for record in records]
    return list(index), np.array(rows, dtype=np.int64)
