"""Training: fits each trainable router from preference data; every trainer loads when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routellm_core.training.battles import BattleArrays
    from routellm_core.training.bert import train_bert
    from routellm_core.training.causal_llm import train_causal_llm
    from routellm_core.training.correction import correct_router
    from routellm_core.training.embedding_routers import train_embedding_router
    from routellm_core.training.knn import fit_knn
    from routellm_core.training.learning import learn
    from routellm_core.training.mf import fit_mf, fit_pair, pair_router
    from routellm_core.training.options import FineTuning
    from routellm_core.training.sgd import SGD
    from routellm_core.training.summary import TrainingSummary

_MODULES = {
    "BattleArrays": "battles",
    "FineTuning": "options",
    "SGD": "sgd",
    "TrainingSummary": "summary",
    "correct_router": "correction",
    "fit_knn": "knn",
    "fit_mf": "mf",
    "fit_pair": "mf",
    "learn": "learning",
    "pair_router": "mf",
    "train_bert": "bert",
    "train_causal_llm": "causal_llm",
    "train_embedding_router": "embedding_routers",
}

__all__ = [
    "SGD",
    "BattleArrays",
    "FineTuning",
    "TrainingSummary",
    "correct_router",
    "fit_knn",
    "fit_mf",
    "fit_pair",
    "learn",
    "pair_router",
    "train_bert",
    "train_causal_llm",
    "train_embedding_router",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
