"""EmbeddingRouter: what the routers share that read nothing of a prompt but its embedding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from routellm_core.embedders import embedder_identity, load_embedder
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings
from routellm_core.errors import ConfigurationError
from routellm_core.routers.base import Router, WinRates
from routellm_core.workers import in_background


class EmbeddingRouter(Router, ABC):
    """A router whose win rate is a function of the prompt's embedding.

    A subclass sets `embedder` and `dimension` and implements `_of_embeddings`.

    Attributes:
        embedder: Maps prompts to vectors of length `dimension`.
        dimension: Length of a vector.
    """

    embedder: Embedder
    dimension: int
    # prompts per embed call: bounds the embedding matrix to some megabytes, however long the batch
    _chunk: ClassVar[int] = 4096
    # whether `_of_embeddings` takes so long that an event loop must not wait for it
    _slow: ClassVar[bool] = False

    @abstractmethod
    def _of_embeddings(self, matrix: FloatMatrix) -> WinRates:
        """Win rates (n,) of embeddings (n, dimension); each row's must not depend on the others, to the bit."""

    def _win_rates(self, prompts: list[str]) -> WinRates:
        return _joined([self._rates(self.embedder.embed(part), len(part)) for part in self._parts(prompts)])

    async def _awin_rates(self, prompts: list[str]) -> WinRates:
        return _joined([await self._arates(part) for part in self._parts(prompts)])

    async def _arates(self, prompts: list[str]) -> WinRates:
        embeddings = await self.embedder.aembed(prompts)
        if self._slow:
            return await in_background(self, lambda: self._rates(embeddings, len(prompts)))
        return self._rates(embeddings, len(prompts))

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {**super()._fingerprint_parts(), "embedder": embedder_identity(self.embedder)}

    def _parts(self, prompts: list[str]) -> Iterator[list[str]]:
        return (prompts[i : i + self._chunk] for i in range(0, len(prompts), self._chunk))

    def _rates(self, embeddings: Any, count: int) -> WinRates:
        return self._of_embeddings(checked_embeddings(embeddings, count, self.dimension, type(self.embedder).__name__))


def _joined(parts: list[WinRates]) -> WinRates:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def saved_embedder(path: Path, config: dict[str, Any]) -> Embedder:
    """The embedder that a saved router's config describes.

    Raises:
        ConfigurationError: The router was saved with one that no config can rebuild.
    """
    if not config.get("embedder"):
        raise ConfigurationError(
            f"{path} was saved with an embedder that cannot be rebuilt from its config: pass embedder=, the one that "
            "the router was made with; on the command line, give --router module:NAME, where the module loads it so"
        )
    return load_embedder(config["embedder"])
