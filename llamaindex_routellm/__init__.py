"""RouteLLM for LlamaIndex: an LLM and a selector that send each call to a strong or a weak side.

>>> from llamaindex_routellm import RouteLLM
>>> llm = RouteLLM(strong=strong_llm, weak=weak_llm, strong_fraction=0.3)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from routellm_core.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as exc:
    if exc.name not in ("llama_index", "llama_index.core"):
        raise  # llama_index is there and something that it needs is not: its own message is the better one
    raise MissingExtraError("llamaindex_routellm", "llamaindex") from None

from llamaindex_routellm.events import RouteLLMDecisionEvent, SavingsEventHandler
from llamaindex_routellm.llm import RouteLLM
from llamaindex_routellm.question import Retrieval
from llamaindex_routellm.selector import RouteLLMSelector

if TYPE_CHECKING:
    from llamaindex_routellm.embeddings import LlamaIndexEmbedder

__all__ = [
    "LlamaIndexEmbedder",
    "Retrieval",
    "RouteLLM",
    "RouteLLMDecisionEvent",
    "RouteLLMSelector",
    "SavingsEventHandler",
]


def __getattr__(name: str) -> Any:
    if name == "LlamaIndexEmbedder":
        from llamaindex_routellm.embeddings import LlamaIndexEmbedder

        return LlamaIndexEmbedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
