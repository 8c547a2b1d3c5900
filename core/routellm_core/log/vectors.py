"""Whose vectors a log holds: a sample of what its embedder does, kept beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from routellm_core.embedders import Embedder

EMBEDDER_STATE = "embedder"
_TEXT = "How many of these 12 questions does the smaller model answer as well as the larger one?"
# float16, other machines and other libraries change a vector by less than this
_SAME = 0.999


def probe(embedder: Embedder) -> list[float]:
    """The vector of one fixed text."""
    return [float(value) for value in np.asarray(embedder.embed([_TEXT]), dtype=np.float64)[0]]


def is_same_embedder(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two probes are of one embedder."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    sizes = np.linalg.norm(a), np.linalg.norm(b)
    alike = bool(a @ b >= _SAME * sizes[0] * sizes[1] > 0)
    return alike and bool(np.isclose(sizes[0], sizes[1], rtol=1 - _SAME))
