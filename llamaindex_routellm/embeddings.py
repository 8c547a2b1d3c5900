"""LlamaIndexEmbedder: any LlamaIndex embedding model as a router's embedder."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from routellm_core.embedders.base import WrappedEmbedder
from routellm_core.errors import ConfigurationError


class LlamaIndexEmbedder(WrappedEmbedder):
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
        super().__init__(embed_model)
        self.embed_model = embed_model

    def _embed(self, texts: list[str]) -> Any:
        return self.embed_model.get_text_embedding_batch(texts)

    async def _aembed(self, texts: list[str]) -> Any:
        return await self.embed_model.aget_text_embedding_batch(texts)
