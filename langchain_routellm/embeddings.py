"""LangChainEmbedder: any LangChain embedding model as a router's embedder."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.embeddings import Embeddings

from routellm_core.embedders.base import FloatMatrix, checked_embeddings
from routellm_core.errors import ConfigurationError


class LangChainEmbedder:
    """Embeds prompts by a LangChain ``Embeddings`` object; it may be shared between threads if that object may.

    A whole batch goes into one ``embed_documents`` call; async calls go to ``aembed_documents``. What the object raises
    passes through.

    Args:
        embeddings: The embedding model, the one whose vectors the router was trained on.

    Raises:
        ConfigurationError: `embeddings` is not a LangChain ``Embeddings``.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        if not callable(getattr(embeddings, "embed_documents", None)):
            raise ConfigurationError(
                f"embeddings is a {type(embeddings).__name__} without embed_documents; expected a LangChain Embeddings"
            )
        self.embeddings = embeddings
        self._dimension: int | None = None

    @property
    def dimension(self) -> int | None:
        """Length of a vector; None before the first call."""
        return self._dimension

    @property
    def model_name(self) -> str:
        """Class and, where it says one, model of the wrapped object; tells caches of two models apart."""
        model = getattr(self.embeddings, "model", None) or getattr(self.embeddings, "model_name", None)
        name = type(self.embeddings).__qualname__
        return f"{name}:{model}" if isinstance(model, str) else name

    def __repr__(self) -> str:
        return f"LangChainEmbedder({self.model_name})"

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed n texts as a float32 matrix (n, dimension).

        Raises:
            RouterError: Other than one finite vector a text came back, or vectors of another length than before.
        """
        return self._checked(self.embeddings.embed_documents(list(texts)), len(texts))

    async def aembed(self, texts: Sequence[str]) -> FloatMatrix:
        """Like `embed`, without blocking the event loop."""
        return self._checked(await self.embeddings.aembed_documents(list(texts)), len(texts))

    def _checked(self, vectors: list[list[float]], count: int) -> FloatMatrix:
        matrix = checked_embeddings(vectors, count, self._dimension, repr(self))
        # Threads that come here at once write the same number.
        self._dimension = int(matrix.shape[1])
        return matrix
