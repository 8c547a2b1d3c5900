"""EmbeddingRouter: the base class of routers that see only the embedding of a prompt."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from routellm_core.embedders import embedder_identity, load_embedder
from routellm_core.embedders.base import Embedder, FloatMatrix, checked_embeddings
from routellm_core.errors import ConfigurationError
from routellm_core.routers.base import Router, WinRateArray
from routellm_core.workers import in_background

if TYPE_CHECKING:
    from routellm_core.routers.stores import Neighbor, StoreSearch

# Longer prompts are also read in windows. Up to this length, the static embedder reads the whole prompt.
_WHOLE_CHARS = 1200
# Wide windows hold what is hard by its length and its context. They overlap: a sentence of up to 300 characters lies
# within one.
_WIDE_CHARS, _WIDE_STRIDE = 1000, 700
# A short question is diluted by what stands around it, so the sentences and lines in a wide window are read alone, too.
# Shorter ones than this are remnants; of longer ones, or where nothing ends a sentence, narrow windows are read.
_REMNANT = 20
_NARROW_CHARS, _NARROW_STRIDE = 300, 200
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


class EmbeddingRouter(Router, ABC):
    """A router whose win rate is a function of the prompt's embedding.

    A subclass sets `embedder` and `dimension` and implements `_of_embeddings`. With `windows`, the win rate of a
    prompt of more than 1,200 characters is the highest of its own and those of its windows: wide ones of 1,000
    characters that start at most 700 apart, and within them each sentence or line of at least 20 characters, in
    windows of 300 where it is longer than that. If the prompt takes more than `windows` wide ones, this many are spread
    evenly over it. The middle of a long prompt then counts as well, and padding hardly ever hides it, at a bounded
    cost.

    Attributes:
        embedder: Maps prompts to vectors of length `dimension`.
        dimension: Length of a vector.
        windows: Maximum number of wide windows of a long prompt; 0 reads only the prompt as a whole.
    """

    embedder: Embedder
    dimension: int
    windows: int = 0
    # texts per embed call: limits the embedding matrix to some megabytes, whatever the size of the batch
    _chunk: ClassVar[int] = 4096
    # whether `_of_embeddings` takes too long to run on an event loop
    _slow: ClassVar[bool] = False
    # set by a router whose neighbours are in a vector store
    _search: StoreSearch | None = None

    @abstractmethod
    def _of_embeddings(self, matrix: FloatMatrix) -> WinRateArray:
        """Return the win rates (n,) of embeddings (n, dimension); each must depend on its row alone, bit for bit."""

    def _of_neighbors(self, found: list[list[Neighbor]]) -> WinRateArray:
        """Return the win rates of n embeddings from the neighbours of each, for a router that sets `_search`."""
        raise NotImplementedError

    def texts_of(self, prompt: str) -> list[str]:
        """Return the texts whose highest win rate is that of the prompt: the prompt itself, then its windows."""
        if not self.windows or len(prompt) <= _WHOLE_CHARS:
            return [prompt]
        wide = list(_windows(prompt, _WIDE_CHARS, _WIDE_STRIDE, self.windows))
        return [prompt, *wide, *dict.fromkeys(part for window in wide for part in _sentences(window))]

    def _win_rates(self, prompts: list[str]) -> WinRateArray:
        parts = self._parts(prompts)
        return _joined([_highest(self._rates(self.embedder.embed(texts), len(texts)), first) for texts, first in parts])

    async def _awin_rates(self, prompts: list[str]) -> WinRateArray:
        return _joined([_highest(await self._arates(texts), first) for texts, first in self._parts(prompts)])

    async def _arates(self, texts: list[str]) -> WinRateArray:
        embeddings = await self.embedder.aembed(texts)
        if self._search is not None:
            found = await self._search.afind(self._checked(embeddings, len(texts)))
            return await in_background(self, lambda: self._of_neighbors(found))
        if self._slow:
            return await in_background(self, lambda: self._rates(embeddings, len(texts)))
        return self._rates(embeddings, len(texts))

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {**super()._fingerprint_parts(), **self._reading_parts()}

    def _reading_parts(self) -> dict[str, Any]:
        """Return the parts of the fingerprint that determine how prompts are read."""
        parts: dict[str, Any] = {"embedder": embedder_identity(self.embedder)}
        if self.windows:
            parts["windows"] = [
                self.windows,
                _WHOLE_CHARS,
                *(_WIDE_CHARS, _WIDE_STRIDE),
                *(_REMNANT, _NARROW_CHARS, _NARROW_STRIDE),
            ]
        return parts

    def _parts(self, prompts: list[str]) -> Iterator[tuple[list[str], list[int]]]:
        """Yield the texts of a chunk of prompts, and the index at which those of each prompt begin."""
        texts: list[str] = []
        first: list[int] = []
        for prompt in prompts:
            first.append(len(texts))
            texts += self.texts_of(prompt)
            if len(texts) >= self._chunk:
                yield texts, first
                texts, first = [], []
        if first:
            yield texts, first

    def _rates(self, embeddings: Any, count: int) -> WinRateArray:
        matrix = self._checked(embeddings, count)
        if self._search is not None:
            return self._of_neighbors(self._search.find(matrix))
        return self._of_embeddings(matrix)

    def _checked(self, embeddings: Any, count: int) -> FloatMatrix:
        return checked_embeddings(embeddings, count, self.dimension, type(self.embedder).__name__)


def _windows(prompt: str, chars: int, stride: int, most: int | None = None) -> Iterator[str]:
    """Parts of a prompt from end to end, at most `stride` apart unless that takes more than `most` of them."""
    beyond = len(prompt) - chars
    steps = math.ceil(beyond / stride)
    if most is not None:
        steps = min(most - 1, steps)
    for i in range(steps + 1):
        start = i * beyond // steps
        yield prompt[start : start + chars]


def _sentences(text: str) -> Iterator[str]:
    """The sentences and lines of a text but for remnants; of long ones, narrow windows."""
    for part in _SENTENCE_ENDS.split(text):
        if len(part) > _NARROW_CHARS:
            yield from _windows(part, _NARROW_CHARS, _NARROW_STRIDE)
        elif len(part) >= _REMNANT:
            yield part


def _highest(rates: WinRateArray, first: list[int]) -> WinRateArray:
    """The highest win rate among each prompt's texts."""
    return rates if len(rates) == len(first) else np.maximum.reduceat(rates, first)


def _joined(parts: list[WinRateArray]) -> WinRateArray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def saved_embedder(config: dict[str, Any], given: Embedder | None = None, store: object = None) -> Embedder:
    """Return the embedder for a saved router: the one that is passed, else its store's, else that of its config.

    Args:
        config: What the router was saved with.
        given: The caller's embedder.
        store: The opened store that the router searches, if any; it may know the embedder of its vectors.

    Raises:
        ConfigurationError: The router was saved with an embedder that cannot be rebuilt from a config.
    """
    known: Embedder | None = getattr(store, "embedder", None) if given is None else given
    if known is not None:
        return known
    if not config.get("embedder"):
        raise ConfigurationError(
            "the router was saved with an embedder that cannot be rebuilt from its config: pass embedder=, the same "
            "embedder as in training; on the command line, use --router module:NAME, where the module loads it that way"
        )
    return load_embedder(config["embedder"])
