"""RouteLLM for LlamaIndex: an LLM and a selector that send each call to a strong or a weak side.

>>> from llamaindex_routellm import RouteLLM
>>> llm = RouteLLM(strong=strong_llm, weak=weak_llm, strong_fraction=0.3)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routellm_core.errors import MissingExtraError

if TYPE_CHECKING:
    from llamaindex_routellm.embeddings import LlamaIndexEmbedder
    from llamaindex_routellm.events import (
        RouteLLMDecisionEvent,
        SavingsEventHandler,
        routing_decision,
        routing_decisions,
    )
    from llamaindex_routellm.llm import RouteLLM
    from llamaindex_routellm.question import Retrieval
    from llamaindex_routellm.selector import RouteLLMSelector
    from llamaindex_routellm.stores import VectorStoreBattles

__all__ = [
    "LlamaIndexEmbedder",
    "Retrieval",
    "RouteLLM",
    "RouteLLMDecisionEvent",
    "RouteLLMSelector",
    "SavingsEventHandler",
    "VectorStoreBattles",
    "routing_decision",
    "routing_decisions",
]

# name -> module; a module, and LlamaIndex with it, is imported when its name is asked for
_MODULES = {
    "LlamaIndexEmbedder": "embeddings",
    "Retrieval": "question",
    "RouteLLM": "llm",
    "RouteLLMDecisionEvent": "events",
    "RouteLLMSelector": "selector",
    "SavingsEventHandler": "events",
    "VectorStoreBattles": "stores",
    "routing_decision": "events",
    "routing_decisions": "events",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as exc:
        if exc.name not in ("llama_index", "llama_index.core", "llama_index_instrumentation"):
            raise  # LlamaIndex is there and something that it needs is not: its own message is the better one
        raise MissingExtraError(f"{__name__}.{name}", "llamaindex") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
