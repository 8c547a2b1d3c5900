"""The registry: which class a router's name refers to, and how `load_router` loads it."""

from __future__ import annotations

import copy
import logging
import re
from functools import cache
from importlib import import_module
from inspect import signature
from os.path import isdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routellm_core.checks import imported_object
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError, MissingExtraError
from routellm_core.routers.base import TRAINED_ON_FILE, Router, read_config
from routellm_core.routers.folder import followed

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)

# name -> (module, class); a module is imported when its router is requested
BUILT_IN = {
    "random": ("random", "RandomRouter"),
    "mf": ("mf", "MatrixFactorizationRouter"),
    "sw_ranking": ("sw_ranking", "SimilarityWeightedRouter"),
    "bert": ("bert", "BERTRouter"),
    "causal_llm": ("causal_llm", "CausalLLMRouter"),
    "knn": ("knn", "KNNRouter"),
    "mf_vote": ("mf_vote", "HeadAndVoteRouter"),
    "corrected": ("corrected", "CorrectedRouter"),
}
# the bundled router is an mf with a vote beside it; without a source, both names mean this one
_BUNDLED = ("mf", "mf_vote")
ENTRY_POINT_GROUP = "routellm.routers"
# patterns, compiled when first used
_IMPORT_PATH = r"[^\W\d][\w.]*:[^\W\d][\w.]*"
_HUB_ID = r"[\w.-]+/[\w.-]+"
# weights, configs, tokenizers and prompt templates; never a pickle
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.parquet", "*.npy"]


def router_names() -> tuple[str, ...]:
    """Return the names that `load_router` knows: those of this package, then those of installed packages."""
    return (*BUILT_IN, *sorted(_plugins()))


def router_class(name: str) -> type[Router]:
    """Return the class of the router called `name`, or the class that ``"package.module:Class"`` names.

    Raises:
        ConfigurationError: No router has this name, it cannot be imported, or it is not a subclass of `Router`.
    """
    found = _find(name)
    if found is None:
        raise _unknown_name(name)
    if isinstance(found, Router):
        raise ConfigurationError(f"router {name!r} is a router object, not a class: it takes no source and no options")
    return found


def load_router(
    name: str | Path = "mf", source: str | Path | None = None, *, revision: str | None = None, **options: Any
) -> Router:
    """Load a router by name from a directory or a hub id; without arguments, the bundled one.

    The bundled router is a start until you have outcomes of your own: it tells easy from hard in exam questions and
    other tasks that have a right answer, and has no skill on general chat.

    Every call returns a new object, so changing an attribute of it affects nobody else.

    Args:
        name: ``"random"``, ``"mf"``, ``"mf_vote"``, ``"sw_ranking"``, ``"bert"``, ``"causal_llm"`` or ``"knn"``; a
            name that an installed package registers in the entry-point group ``routellm.routers``;
            ``"package.module:Class"`` for a class of your own (the module is also searched for in the working
            directory); or a directory that `Router.save_pretrained` wrote, whose config names the router, or a
            `RouterFolder`.
        source: Directory, or hub id ``owner/name`` (needs the ``hub`` extra, and a network on first use). Only
            safetensors weights are loaded. None loads the bundled router for ``"mf"`` and ``"mf_vote"``, and constructs
            ``"random"`` and classes of your own with the options.
        revision: Branch, tag or commit of a hub id.
        **options: Options of the router, such as ``embedder``, ``strong``, ``weak``, ``device``, ``dtype`` or ``seed``.

    Raises:
        ConfigurationError: The name or an option is unknown, the router cannot be imported, or the embedder does not
            fit.
        CheckpointNotFoundError: `source` does not exist, or contains only pickled weights.
        CheckpointError: The checkpoint is corrupt or holds another router.
        MissingExtraError: An optional dependency is missing; the message gives the install command.
    """
    if name in _BUNDLED and source is None and not options:
        return _copied(_bundled())
    if not isinstance(name, str | Path) or not str(name):
        raise ConfigurationError(f"router name {name!r:.80}: expected {_expected()}")
    if source is not None:
        cls, path = router_class(str(name)), _directory(source, revision)
        if name == "mf" and read_config(path).get("router") == "mf_vote":
            cls = router_class("mf_vote")  # what the same name loads without a source, saved
        return cls.from_pretrained(path, **options)
    found = None if isinstance(name, Path) else _find(name)
    if found is None:
        if isdir(name):
            return Router.from_pretrained(followed(name), **options)
        raise _unknown_name(str(name))
    if isinstance(found, Router):
        if options:
            raise ConfigurationError(f"router {name!r} is a router object: it takes no options ({', '.join(options)})")
        return found
    if name in _BUNDLED:
        return router_class("mf_vote").from_pretrained(_bundled_directory(), **options)
    if name in BUILT_IN and name != "random":
        raise ConfigurationError(
            f"router {name!r} is not bundled: pass its checkpoint, load_router({str(name)!r}, DIRECTORY_OR_HUB_ID)"
        )
    return _constructed(str(name), found, options)


@cache
def _bundled() -> Router:
    """The bundled router, loaded once. Callers only get copies, which share its arrays."""
    return router_class("mf_vote").from_pretrained(_bundled_directory())


def _bundled_directory() -> Path:
    return Path(__file__).resolve().parent.parent / "pretrained" / "mf_vote"


def _copied(router: Router) -> Router:
    own = object.__new__(type(router))
    own.__dict__.update(router.__dict__)
    own.calibration = copy.copy(router.calibration)
    return own


def _constructed(name: str, cls: type[Router], options: dict[str, Any]) -> Router:
    if cls.__init__ is not object.__init__ or options:
        takes = signature(cls.__init__ if cls.__init__ is not object.__init__ else _takes_nothing)
        try:
            takes.bind(None, **options)
        except TypeError as exc:
            raise ConfigurationError(
                f"router {name!r} cannot be constructed with {', '.join(options) or 'no options'}: {exc}; pass the "
                f"arguments of {cls.__name__} as options, or a directory in which it was saved"
            ) from exc
    return cls(**options)


def _takes_nothing(self: Any) -> None:
    """The signature of a class without a constructor of its own."""


def _find(name: str) -> type[Router] | Router | None:
    """The class or router object that a name or an import path refers to; None if it is neither."""
    if re.fullmatch(_IMPORT_PATH, name) and not isdir(name):
        return _checked(name, imported_object(name, "router"))
    return _registered(name)


def _registered(name: str) -> type[Router] | Router | None:
    """What is registered under `name`. A saved config may name only this, never a module to import."""
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name]
        found: type[Router] = getattr(import_module(f"routellm_core.routers.{module}"), attribute)
        return found
    if "/" in name or "\\" in name:
        return None  # a path, for which searching every installed package is not worthwhile
    entries = _plugins().get(name, [])
    if not entries:
        return None
    if len(entries) > 1:
        raise ConfigurationError(
            f"router {name!r} is registered by several installed packages ({', '.join(map(_origin, entries))}): "
            f"name the class itself, for example load_router({entries[0].value!r})"
        )
    try:
        plugin = entries[0].load()
    except Exception as exc:
        raise ConfigurationError(
            f"router {name!r} ({_origin(entries[0])}) cannot be loaded: {type(exc).__name__}: {exc}"
        ) from exc
    return _checked(name, plugin)


def _saved_class(name: str) -> type[Router] | None:
    found = _registered(name)
    return found if isinstance(found, type) else None


def _checked(name: str, found: Any) -> type[Router] | Router:
    if isinstance(found, Router) or (isinstance(found, type) and issubclass(found, Router)):
        return found
    what = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
    raise ConfigurationError(
        f"router {name!r} is {what}, not a subclass of Router or a Router object; to use a function or another object "
        "with win_rates, define router = as_router(...) in the module and name that"
    )


def _plugins() -> dict[str, list[EntryPoint]]:
    """The entry points of installed packages by name; if one of them is broken, the others remain usable."""
    from importlib.metadata import distributions  # slower to import than everything else that routing needs

    found: dict[str, list[EntryPoint]] = {}
    seen: set[str] = set()
    for distribution in distributions():
        try:
            entries = [entry for entry in distribution.entry_points if entry.group == ENTRY_POINT_GROUP]
            # if a package is on the path twice, the first one is the one that would be imported
            owner = re.sub(r"[-_.]+", "-", distribution.name).lower() if entries else ""
        except Exception as exc:
            logger.warning("the entry points of an installed package cannot be read: %s", type(exc).__name__)
            continue
        if not entries or owner in seen:
            continue
        seen.add(owner)
        for entry in entries:
            if entry.name in BUILT_IN:
                logger.warning("router %r (%s) is ignored: the name is built in", entry.name, _origin(entry))
            else:
                found.setdefault(entry.name, []).append(entry)
    return found


def _origin(entry: EntryPoint) -> str:
    return f"{entry.value} of {entry.dist.name}" if entry.dist is not None else entry.value


def _expected() -> str:
    return f"one of {', '.join(router_names())}, a class as package.module:Class, or a directory"


def _unknown_name(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"router name {name!r}: expected {_expected()}; there is no router and no directory with this name"
    )


def _directory(source: str | Path, revision: str | None) -> Path:
    path = Path(source)
    if path.is_dir():
        return followed(path)
    if isinstance(source, Path) or not re.fullmatch(_HUB_ID, source) or source.startswith("."):
        raise CheckpointNotFoundError(
            f"source={str(source)!r}: no such directory, and not a hub id of the form owner/name"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError(f"source={source!r} is not a local directory; loading it from the hub", "hub") from None
    try:
        fetched = Path(snapshot_download(source, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as exc:  # the hub client has a dozen error classes, and all mean that the download failed
        raise CheckpointNotFoundError(
            f"source={source!r}: no such local directory, and it cannot be downloaded from the hub "
            f"({type(exc).__name__}: {exc})"
        ) from exc
    weights = {file.name for pattern in ("*.safetensors", "*.npy") for file in fetched.glob(pattern)}
    if not weights - {TRAINED_ON_FILE}:
        raise CheckpointError(
            f"source={source!r} has no safetensors weights. Pickled weights can run code when opened, so they are "
            "never fetched; ask its author for safetensors or convert a copy that you trust"
        )
    return fetched


Router._saved_class = staticmethod(_saved_class)
