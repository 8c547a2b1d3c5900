"""The routers, by class and by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routellm_core.routers.base import Router
from routellm_core.routers.folder import RouterFolder
from routellm_core.routers.function import FunctionRouter, as_router
from routellm_core.routers.registry import BUILT_IN, load_router, router_class, router_names

if TYPE_CHECKING:
    from routellm_core.routers.bert import BERTRouter
    from routellm_core.routers.causal_llm import CausalLLMRouter
    from routellm_core.routers.knn import KNNRouter
    from routellm_core.routers.mf import MatrixFactorizationRouter
    from routellm_core.routers.mf_vote import HeadAndVoteRouter
    from routellm_core.routers.random import RandomRouter
    from routellm_core.routers.sw_ranking import SimilarityWeightedRouter

__all__ = [
    "BERTRouter",
    "CausalLLMRouter",
    "FunctionRouter",
    "HeadAndVoteRouter",
    "KNNRouter",
    "MatrixFactorizationRouter",
    "RandomRouter",
    "Router",
    "RouterFolder",
    "SimilarityWeightedRouter",
    "as_router",
    "load_router",
    "router_class",
    "router_names",
]


def __getattr__(name: str) -> Any:
    for module, attribute in BUILT_IN.values():
        if attribute == name:
            return getattr(import_module(f"{__name__}.{module}"), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
