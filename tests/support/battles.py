"""Battles whose prompts' vectors a test chooses, for the routers that search a vector store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from routellm_core.data.records import Battle, Outcome
from routellm_core.routers.stores import Neighbor, embedded, rows_of

MODELS = ("large", "medium", "small", "tiny")
DIMENSION = 12


class WordsEmbedder:
    """Maps a prompt of numbers ("0.5 -1 ...") to their vector, and anything else to the zero vector."""

    dimension = DIMENSION

    def embed(self, texts: Sequence[str]) -> Any:
        rows = [text.split() for text in texts]
        return np.array([list(map(float, row)) if len(row) == DIMENSION else [0.0] * DIMENSION for row in rows], "f4")

    async def aembed(self, texts: Sequence[str]) -> Any:
        return self.embed(texts)


def prompts(n: int, seed: int) -> list[str]:
    """Prompts whose vectors point in all directions."""
    points = np.random.default_rng(seed).normal(size=(n, DIMENSION)).round(4)
    return [" ".join(map(str, row)) for row in points.tolist()]


def battles(n: int = 400, seed: int = 0) -> list[Battle]:
    """Battles of four models; who wins depends on the first two numbers of the prompt."""
    rng = np.random.default_rng(seed)
    out = []
    for prompt in prompts(n, seed + 1):
        a, b = rng.choice(4, 2, replace=False)
        x, y = map(float, prompt.split()[:2])
        edge = (b - a) * (0.6 + x) + 0.4 * y + rng.normal(scale=0.5)
        winner = "tie" if abs(edge) < 0.2 else "model_a" if edge > 0 else "model_b"
        out.append(Battle(prompt=prompt, model_a=MODELS[a], model_b=MODELS[b], winner=winner))  # type: ignore[arg-type]
    return out


def outcomes(n: int = 300, seed: int = 0) -> list[Outcome]:
    """Outcomes of three models, some without a score of the weak one, with weights."""
    rng = np.random.default_rng(seed)
    out = []
    for i, prompt in enumerate(prompts(n, seed + 2)):
        x = float(prompt.split()[0])
        scores = {"large": float(x > -0.5), "small": float(x > 0.5 or i % 5 == 0), "other": 0.5}
        if i % 11 == 0:
            del scores["small"]
        out.append(Outcome(prompt=prompt, scores=scores, weight=float(rng.integers(0, 3))))
    return out


def triples(records: Sequence[Battle]) -> list[tuple[str, str, str]]:
    """The battles as `SimilarityWeightedRouter` takes them."""
    return [(b.model_a, b.model_b, b.winner) for b in records]


class ExactStore:
    """A store in memory that compares a vector with all of its own; it counts its calls.

    Args:
        records: What it holds.
        known: Whether it can list its records and knows their embedder.
    """

    def __init__(self, records: Sequence[Battle | Outcome], *, known: bool = True) -> None:
        self._rows = list(rows_of(records))
        self.vectors = embedded(WordsEmbedder(), self._rows)
        self.dimension = DIMENSION
        self.calls: list[tuple[str, int, int]] = []
        if known:
            self.records = lambda: (row.record for row in self._rows)
            self.embedder = WordsEmbedder()

    @property
    def fingerprint(self) -> str:
        return str(len(self._rows))

    def grow(self, records: Sequence[Battle | Outcome]) -> None:
        rows = list(rows_of(records))
        self._rows += rows
        self.vectors = np.concatenate([self.vectors, embedded(WordsEmbedder(), rows)])

    def search(self, vectors: Any, k: int) -> list[list[Neighbor]]:
        self.calls.append(("search", len(vectors), k))
        return self._found(vectors, k)

    async def asearch(self, vectors: Any, k: int) -> list[list[Neighbor]]:
        self.calls.append(("asearch", len(vectors), k))
        return self._found(vectors, k)

    def _found(self, vectors: Any, k: int) -> list[list[Neighbor]]:
        cosines = np.asarray(vectors) @ self.vectors.T
        order = np.argsort(-cosines, axis=1)[:, :k]
        return [
            [Neighbor(float(row[i]), self._rows[i].record) for i in near]
            for row, near in zip(cosines, order, strict=True)
        ]
