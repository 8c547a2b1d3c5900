"""Embedders turn prompts into vectors. The bundled static embedder needs only numpy."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routellm_core.checks import imported_object
from routellm_core.embedders.base import Embedder
from routellm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from routellm_core.embedders.cached import CachedEmbedder
    from routellm_core.embedders.openai import OpenAIEmbedder
    from routellm_core.embedders.static import StaticEmbedder, bundled_embedder

__all__ = [
    "CachedEmbedder",
    "Embedder",
    "OpenAIEmbedder",
    "StaticEmbedder",
    "bundled_embedder",
    "embedder_config",
    "embedder_from_name",
    "embedder_identity",
    "load_embedder",
]

_MODULES = {
    "CachedEmbedder": "cached",
    "OpenAIEmbedder": "openai",
    "StaticEmbedder": "static",
    "bundled_embedder": "static",
}


def embedder_config(embedder: Embedder) -> dict[str, Any] | None:
    """Return what a saved router stores about its embedder; None if it cannot be rebuilt from a config."""
    config = getattr(embedder, "config", None)
    return dict(config()) if callable(config) else None


def embedder_identity(embedder: Embedder) -> dict[str, Any]:
    """Return what identifies an embedder in a router's fingerprint: its own fingerprint, its config, or its class."""
    fingerprint = getattr(embedder, "fingerprint", None)
    if isinstance(fingerprint, str):
        return {"fingerprint": fingerprint}  # not the config, which may contain the path it was loaded from
    config = embedder_config(embedder)
    if config is not None:
        return config
    cls = type(embedder)
    return {"type": f"{cls.__module__}.{cls.__qualname__}", "dimension": getattr(embedder, "dimension", None)}


def load_embedder(config: Any) -> Embedder:
    """Build the embedder that a config from `embedder_config` describes.

    Raises:
        ConfigurationError: The embedder cannot be built from the config.
        MissingExtraError: Its optional dependency is missing.
    """
    kind = config.get("type") if isinstance(config, dict) else None
    if kind == "static":
        from routellm_core.embedders.static import StaticEmbedder

        return StaticEmbedder.from_config(config)
    if kind == "openai":
        from routellm_core.embedders.openai import OpenAIEmbedder

        return OpenAIEmbedder.from_config(config)
    raise ConfigurationError(f"embedder type {kind!r}: expected 'static' or 'openai'; pass embedder= for another one")


def embedder_from_name(name: str) -> Embedder:
    """Return the embedder with this name, as in the ``--embedder`` option of the command line.

    Args:
        name: ``"bundled"``; ``"openai:MODEL"``; a directory that a static embedder was saved in; or
            ``"package.module:Class"`` for one of your own, which is constructed without arguments (if it names an
            object, that object is used).

    Raises:
        ConfigurationError: `name` is not one of these, or it does not name an embedder.
        MissingExtraError: The optional dependency of the embedder is missing.
    """
    if name == "bundled":
        from routellm_core.embedders.static import bundled_embedder

        return bundled_embedder()
    if name.startswith("openai:"):
        from routellm_core.embedders.openai import OpenAIEmbedder

        return OpenAIEmbedder(name.removeprefix("openai:"))
    if Path(name).is_dir():
        from routellm_core.embedders.static import StaticEmbedder

        return StaticEmbedder.from_pretrained(name)
    if ":" not in name:
        raise ConfigurationError(
            f"embedder={name!r}: expected bundled, openai:MODEL, the directory of a saved static embedder, or your own "
            "class as package.module:Class"
        )
    found = imported_object(name, "embedder")
    if isinstance(found, type):
        try:
            found = found()
        except TypeError as exc:
            raise ConfigurationError(
                f"embedder={name!r} cannot be constructed without arguments: {exc}; construct it in the module and "
                "name the object instead"
            ) from exc
    if not isinstance(found, Embedder):
        raise ConfigurationError(
            f"embedder={name!r} is a {type(found).__name__}, not an Embedder: it needs embed(texts), async "
            "aembed(texts) and dimension"
        )
    return found


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
