"""The registry: which class a router's name means, and how `load_router` opens one."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError, MissingExtraError
from routellm_core.routers.base import Router

# name -> (module, class); a module is imported when its router is asked for
BUILT_IN = {
    "random": ("random", "RandomRouter"),
    "mf": ("mf", "MatrixFactorizationRouter"),
    "sw_ranking": ("sw_ranking", "SimilarityWeightedRouter"),
    "bert": ("bert", "BERTRouter"),
    "causal_llm": ("causal_llm", "CausalLLMRouter"),
    "knn": ("knn", "KNNRouter"),
}
_BUNDLED = Path(__file__).resolve().parent.parent / "pretrained" / "mf"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# weights, configs, tokenizers and prompt templates; never a pickle
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.parquet", "*.npy"]


def router_names() -> tuple[str, ...]:
    """The names that `load_router` knows."""
    return tuple(BUILT_IN)


def router_class(name: str) -> type[Router]:
    """The class of the router called `name`.

    Raises:
        ConfigurationError: No router has this name.
    """
    if name not in BUILT_IN:
        raise ConfigurationError(f"router name {name!r}: expected one of {', '.join(BUILT_IN)}")
    module, attribute = BUILT_IN[name]
    found: type[Router] = getattr(import_module(f"routellm_core.routers.{module}"), attribute)
    return found


def load_router(
    name: str | Path = "mf", source: str | Path | None = None, *, revision: str | None = None, **options: Any
) -> Router:
    """Load a router by name from a directory or a hub id; without a source, the bundled default.

    Args:
        name: ``"random"``, ``"mf"``, ``"sw_ranking"``, ``"bert"``, ``"causal_llm"`` or ``"knn"``; or a directory that
            `Router.save_pretrained` wrote, whose config names the router.
        source: Directory, or hub id ``owner/name`` (needs the ``hub`` extra and network on first use). Only
            safetensors weights are opened. None: the bundled checkpoint (``"mf"`` and ``"random"`` only).
        revision: Branch, tag or commit of a hub id.
        **options: For the router: ``embedder``, ``strong``, ``weak``, ``device``, ``dtype``, ``seed``, ...

    Raises:
        ConfigurationError: Unknown name or option, or an embedder that does not fit.
        CheckpointNotFoundError: Nothing there, or only pickled weights.
        CheckpointError: The checkpoint is corrupt or holds another router.
        MissingExtraError: An optional dependency is missing; the message gives the install command.
    """
    if not isinstance(name, str | Path) or not str(name):
        raise ConfigurationError(f"router name {name!r:.80}: expected one of {', '.join(BUILT_IN)}, or a directory")
    if source is None and str(name) not in BUILT_IN:
        if Path(name).is_dir():
            return _with_options(Router, Path(name), options)
        raise ConfigurationError(
            f"router name {str(name)!r}: expected one of {', '.join(BUILT_IN)}, or a directory, and there is none of "
            "this name"
        )
    cls = router_class(str(name))
    if source is not None:
        return _with_options(cls, _directory(source, revision), options)
    if name == "random":
        return _checked(cls, options)
    if name != "mf":
        raise ConfigurationError(
            f"router {name!r} is not bundled: give its checkpoint, load_router({str(name)!r}, DIRECTORY_OR_HUB_ID)"
        )
    return _with_options(cls, _BUNDLED, options) if options else _bundled()


@cache
def _bundled() -> Router:
    # shared: a router holds no mutable state
    return router_class("mf").from_pretrained(_BUNDLED)


def _with_options(cls: type[Router], path: Path, options: dict[str, Any]) -> Router:
    try:
        return cls.from_pretrained(path, **options)
    except TypeError as exc:
        raise _unknown_option(cls, options, exc) from exc


def _checked(cls: type[Router], options: dict[str, Any]) -> Router:
    try:
        return cls(**options)
    except TypeError as exc:
        raise _unknown_option(cls, options, exc) from exc


def _unknown_option(cls: type[Router], options: dict[str, Any], exc: TypeError) -> Exception:
    if "unexpected keyword argument" not in str(exc):
        return exc
    return ConfigurationError(f"load_router option not known to {cls.__name__}: {exc}; given were {', '.join(options)}")


def _directory(source: str | Path, revision: str | None) -> Path:
    path = Path(source)
    if path.is_dir():
        return path
    if isinstance(source, Path) or not _HUB_ID.fullmatch(source) or source.startswith("."):
        raise CheckpointNotFoundError(
            f"source={str(source)!r}: no such directory, and not a hub id of the form owner/name"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError(f"source={source!r} is no local directory; loading it from the hub", "hub") from None
    try:
        fetched = Path(snapshot_download(source, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as exc:  # the hub client has a dozen error classes, and all mean: not to be had
        raise CheckpointNotFoundError(
            f"source={source!r}: no such local directory, and the hub did not give it ({type(exc).__name__}: {exc})"
        ) from exc
    if not any(fetched.glob("*.safetensors")) and not any(fetched.glob("*.npy")):
        raise CheckpointError(
            f"source={source!r} has no safetensors weights. Pickled weights can run code when opened, so they are "
            "never fetched; ask its author for safetensors or convert a copy that you trust"
        )
    return fetched


Router._class_named = staticmethod(router_class)
