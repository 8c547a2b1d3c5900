"""LangChainEmbedder: any LangChain embedding model as a router's embedder."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings

from routellm_core.embedders.base import WrappedEmbedder
from routellm_core.errors import ConfigurationError


class LangChainEmbedder(WrappedEmbedder):
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
        super().__init__(embeddings)
        self.embeddings = embeddings

    def _embed(self, texts: list[str]) -> Any:
        return self.embeddings.embed_documents(texts)

    async def _aembed(self, texts: list[str]) -> Any:
        return await self.embeddings.aembed_documents(texts)
