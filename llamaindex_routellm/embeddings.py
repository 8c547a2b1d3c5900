"""LlamaIndexEmbedder: any LlamaIndex embedding model as a router's embedder."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.base.embeddings.base import BaseEmbedding

from routellm_core.embedders.base import FloatMatrix, checked_embeddings
from routellm_core.errors import ConfigurationError


class LlamaIndexEmbedder:
    """Embeds prompts by a LlamaIndex ``BaseEmbedding`` object; it may be shared between threads if that object may.

    A whole batch goes into one ``get_text_embedding_batch`` call; async calls go to ``aget_text_embedding_batch``. What
    the object raises passes through.

    Args:
        embed_model: The embedding model, the one whose vectors the router was trained on.

    Raises:
        ConfigurationError: `embed_model` is not a LlamaIndex ``BaseEmbedding``.
    """

    def __init__(self, embed_model: BaseEmbedding) -> None:
        if not callable(getattr(embed_model, "get_text_embedding_batch", None)):
            raise ConfigurationError(
                f"embed_model is a {type(embed_model).__name__} without get_text_embedding_batch; expected a "
                "LlamaIndex BaseEmbedding"
            )
        self.embed_model = embed_model
        self._dimension: int | None = None

    @property
    def dimension(self) -> int | None:
        """Length of a vector; None before the first call."""
        return self._dimension

    @property
    def model_name(self) -> str:
        """Class and, where it says one, model of the wrapped object; tells caches of two models apart."""
        model = getattr(self.embed_model, "model", None) or getattr(self.embed_model, "model_name", None)
        name = type(self.embed_model).__qualname__
        return f"{name}:{model}" if isinstance(model, str) else name

    def __repr__(self) -> str:
        return f"LlamaIndexEmbedder({self.model_name})"

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed n texts as a float32 matrix (n, dimension).

        Raises:
            RouterError: Other than one finite vector a text came back, or vectors of another length than before.
        """
        return self._checked(self.embed_model.get_text_embedding_batch(list(texts)), len(texts))

    async def aembed(self, texts: Sequence[str]) -> FloatMatrix:
        """Like `embed`, without blocking the event loop."""
        return self._checked(await self.embed_model.aget_text_embedding_batch(list(texts)), len(texts))

    def _checked(self, vectors: list[list[float]], count: int) -> FloatMatrix:
        matrix = checked_embeddings(vectors, count, self._dimension, repr(self))
        # Threads that come here at once write the same number.
        self._dimension = int(matrix.shape[1])
        return matrix
