"""RouteLLM for LangChain: each call goes to a strong or a weak model, by the win rate that a router predicts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routellm_core.errors import MissingExtraError

if TYPE_CHECKING:
    from langchain_routellm.answers import routing_decision, routing_decisions
    from langchain_routellm.chat_model import ChatRouteLLM
    from langchain_routellm.decision_model import RouteLLMDecisionModel
    from langchain_routellm.embeddings import LangChainEmbedder
    from langchain_routellm.middleware import RouteLLMMiddleware
    from langchain_routellm.runnable import RouteLLMRunnable
    from langchain_routellm.stores import VectorStoreBattles
    from langchain_routellm.usage import SavingsCallbackHandler

__all__ = [
    "ChatRouteLLM",
    "LangChainEmbedder",
    "RouteLLMDecisionModel",
    "RouteLLMMiddleware",
    "RouteLLMRunnable",
    "SavingsCallbackHandler",
    "VectorStoreBattles",
    "routing_decision",
    "routing_decisions",
]

# name -> (module, what must be installed, extra that installs it); imported when first used
_EXPORTS = {
    "ChatRouteLLM": ("chat_model", "langchain_core", "langchain"),
    "LangChainEmbedder": ("embeddings", "langchain_core", "langchain"),
    "RouteLLMDecisionModel": ("decision_model", "langchain_core", "langchain"),
    "RouteLLMMiddleware": ("middleware", "langchain", "agents"),
    "RouteLLMRunnable": ("runnable", "langchain_core", "langchain"),
    "SavingsCallbackHandler": ("usage", "langchain_core", "langchain"),
    "VectorStoreBattles": ("stores", "langchain_core", "langchain"),
    "routing_decision": ("answers", "langchain_core", "langchain"),
    "routing_decisions": ("answers", "langchain_core", "langchain"),
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, needed, extra = _EXPORTS[name]
    try:
        found = getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing in (needed, "langchain_core", "langgraph"):
            raise MissingExtraError(f"langchain_routellm.{name}", extra) from exc
        raise
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
