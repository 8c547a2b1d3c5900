"""Embedders whose vectors a test chooses."""

from __future__ import annotations

from typing import Any

import numpy as np


class TableEmbedder:
    """Maps the prompt "i" to row i of a matrix."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = np.asarray(matrix, dtype=np.float32)

    @property
    def dimension(self) -> int:
        return self.matrix.shape[1]

    def embed(self, texts: Any) -> np.ndarray:
        return self.matrix[[int(t) for t in texts]]

    async def aembed(self, texts: Any) -> np.ndarray:
        return self.embed(texts)


def with_bias(matrix: np.ndarray) -> np.ndarray:
    """The matrix as float32 with a constant last column."""
    return np.column_stack([matrix, np.ones(len(matrix))]).astype(np.float32)
