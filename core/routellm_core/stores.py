"""Battles and outcomes in a vector store that you already run: what `routellm_core.routers` uses of it.

>>> from routellm_core.stores import MilvusBattles
>>> SimilarityWeightedRouter.from_store(MilvusBattles("./battles.db"), strong="a", weak="b")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from routellm_core.routers.stores import Neighbor, PreferenceStore, StoreReport

if TYPE_CHECKING:
    from routellm_core.routers.milvus import MilvusBattles, store_records

__all__ = ["MilvusBattles", "Neighbor", "PreferenceStore", "StoreReport", "store_records"]


def __getattr__(name: str) -> Any:
    if name in ("MilvusBattles", "store_records"):
        from routellm_core.routers import milvus

        return getattr(milvus, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
