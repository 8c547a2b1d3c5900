"""Router: the base class of all routers, its input and output checks, and its saved form."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from inspect import Parameter, iscoroutinefunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.checks import check_format, checked_prompts, checked_win_rates, damage_named, read_json_object, shown
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError
from routellm_core.routers.background import run_sync

if TYPE_CHECKING:
    from routellm_core.data.seen_prompts import SeenPrompts

logger = logging.getLogger(__name__)

WinRateArray = npt.NDArray[np.float64]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CALIBRATION_FILE = "calibration.json"
TRAINED_ON_FILE = "trained_on.safetensors"
FORMAT = 1


class WeightsError(ConfigurationError):
    """The arrays of a router do not fit together or contain NaN; for a saved router, its file is damaged."""


class _ClassName:
    """The default of `Router.name`: the name of the class, unless the class sets or inherits another one."""

    def __get__(self, instance: Any, owner: type) -> str:
        return owner.__name__


class Router:
    """Predicts the win rate: P(the strong model's answer beats the weak model's | prompt).

    To write your own router, subclass this class and define one method: ``_win_rates(self, prompts)`` or, if it waits
    for a service, ``async def _awin_rates(self, prompts)``. The method receives n >= 1 checked strings and returns n
    numbers in [0, 1]. Each of the two has a default that calls the other, so the router works in synchronous and in
    asynchronous code. A subclass may also define `name`, `version`, and ``_save`` and ``_load`` for a saved form.

    A router holds no mutable state after construction, so one instance serves any number of threads and event loops.

    Attributes:
        name: Short name for decisions and messages, by default the name of the class. A router that an installed
            package registers carries the name under which `load_router` knows it.
        version: Text or number that changes whenever the win rate of any prompt may change, such as the version of its
            weights or the arguments of its constructor. It is part of the default `fingerprint`.
        calibration: Distribution of this router's win rates on a sample of prompts, used by ``strong_fraction=``; None
            if there is none.
        trained_on: Fingerprints of the prompts that it was trained on, so that no evaluation counts them as new; None
            if unknown.

    Raises:
        ConfigurationError: The class defines neither of the two methods.
    """

    name: str = _ClassName()  # type: ignore[assignment]  # a str on every class and instance
    version: str | int | float | None = None
    calibration: Calibration | None = None
    trained_on: SeenPrompts | None = None
    # Returns the class that a saved config names, if it is registered. Set by the registry, which imports this module.
    _saved_class: ClassVar[Callable[[str], type[Router] | None]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls._win_rates is Router._win_rates and cls._awin_rates is Router._awin_rates:
            raise ConfigurationError(
                f"{cls.__name__} cannot route: a router needs a method _win_rates(self, prompts), or async def "
                "_awin_rates(self, prompts), that returns one number in [0, 1] for each prompt"
            )
        if iscoroutinefunction(cls._win_rates):
            raise ConfigurationError(f"{cls.__name__}._win_rates is async: rename that method to _awin_rates")
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError(f"{cls.__name__}() takes no arguments")  # object checks this only for its own __new__
        return super().__new__(cls)

    def win_rates(self, prompts: Sequence[str]) -> WinRateArray:
        """Return the win rates of a batch of prompts; each depends on its prompt alone.

        Args:
            prompts: n >= 1 strings. Any string is allowed: empty, very long, lone surrogates, any language.

        Returns:
            float64 array (n,), each in [0, 1].

        Raises:
            PromptError: `prompts` is empty, a bare string, or contains something that is not a str.
            RouterError: The router failed, or its output is not a win rate.
        """
        checked = checked_prompts(prompts)
        return checked_win_rates(self._win_rates(list(checked)), len(checked), self.name)

    async def awin_rates(self, prompts: Sequence[str]) -> WinRateArray:
        """Like `win_rates`, without blocking the event loop: computes in a thread or awaits the service."""
        checked = checked_prompts(prompts)
        return checked_win_rates(await self._awin_rates(list(checked)), len(checked), self.name)

    def _win_rates(self, prompts: list[str]) -> Any:
        """Return the win rates of n >= 1 checked prompts: n real numbers in [0, 1], as a list, a tuple or an array."""
        return run_sync(self._awin_rates(prompts))

    async def _awin_rates(self, prompts: list[str]) -> Any:
        """Like `_win_rates`, without blocking the event loop."""
        from routellm_core.workers import in_background

        return await in_background(self, lambda: self._win_rates(prompts))

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes whenever the win rate of any prompt could; it ties a calibration to its router."""
        return fingerprint_of(self._fingerprint_parts())

    def _fingerprint_parts(self) -> dict[str, Any]:
        """Return what determines the win rates, as JSON values and numpy arrays.

        The default is the qualified name of the class and its `version`. A router whose arguments change its win rates
        includes them in `version`, or returns them here.
        """
        cls = type(self)
        return identity_parts(f"{cls.__module__}.{cls.__qualname__}", self.version)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the router to `directory` as config.json + safetensors, never a pickle.

        `calibration` and `trained_on`, if the router has them, are written to files beside these.

        The router that `from_pretrained` loads has the same win rates, bit for bit.

        Raises:
            ConfigurationError: The class does not define how it is saved.
        """
        import json

        _require_saved_form(type(self))
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        config = {"router": self.name, "format": FORMAT, **self._save(path)}
        (path / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if self.calibration is not None:
            self.calibration.save(path / CALIBRATION_FILE)
        if self.trained_on:
            self.trained_on.save(path / TRAINED_ON_FILE)

    @classmethod
    def from_pretrained(cls, directory: str | Path, **options: Any) -> Self:
        """Load a router that `save_pretrained` wrote, or that was published in the authors' form.

        Called on `Router` itself, the class is taken from the saved config.

        Args:
            directory: Directory with config.json and the weights.
            **options: Options of the router, such as ``embedder``, ``strong``, ``weak`` or ``device``.

        Raises:
            CheckpointNotFoundError: The directory does not exist, or contains no config.json.
            CheckpointError: A file is corrupt, or the directory holds another kind of router.
        """
        path = Path(directory)
        config = read_config(path)
        saved = config.get("router")
        if saved is not None:
            if not isinstance(saved, str):
                raise CheckpointError(f"{path / CONFIG_FILE}: router={shown(saved)}: expected the name of a router")
            if "format" in config:  # a config written by hand may lack it
                check_format(config, FORMAT, f"{path / CONFIG_FILE}: router")
        target: type[Router] = cls
        if cls is Router or getattr(cls, "__abstractmethods__", None):
            if saved is None:
                raise CheckpointError(
                    f"{path / CONFIG_FILE} does not say which router it is; call load_router(NAME, {str(path)!r})"
                )
            named = Router._saved_class(saved)
            if named is None or not issubclass(named, cls):
                raise CheckpointError(
                    f"{path} holds a {saved!r} router, and no {cls.__name__} with this name is registered: install the "
                    f"package that provides it, or name its class, load_router('package.module:Class', {str(path)!r})"
                )
            target = named
        elif saved is not None and saved != cls.name:
            raise CheckpointError(f"{path} holds a {saved!r} router, not {cls.name!r}")
        _require_saved_form(target)
        allowed = checked_options(target._load, options, target.__name__)
        with damage_named(path, f"does not hold a readable {target.name} router"):
            router = target._load(path, config, **allowed)
        calibration = path / CALIBRATION_FILE
        if os.path.lexists(calibration):
            saved_calibration = Calibration.load(calibration)
            # Another pair or embedder than the saved one changes the win rates, so the calibration does not apply; a
            # store may have grown.
            if (not options and "store" not in config) or saved_calibration.fingerprint in (None, router.fingerprint):
                router.calibration = saved_calibration
            elif "store" in config:
                logger.warning(
                    "%s: the calibration was fitted on another state of the store, so it is not used: fit it again",
                    path,
                )
        if os.path.lexists(path / TRAINED_ON_FILE):
            from routellm_core.data.seen_prompts import SeenPrompts

            router.trained_on = SeenPrompts.load(path / TRAINED_ON_FILE)
        return router  # type: ignore[return-value]  # on Router itself, target is the subclass the config names

    def _save(self, path: Path) -> dict[str, Any]:
        """Write the weights below `path` and return what config.json should contain beside the router's name."""
        raise NotImplementedError  # save_pretrained rejects a class without it

    @classmethod
    def _load(cls, path: Path, config: dict[str, Any], **options: Any) -> Router:
        """Build the router from its directory and parsed config."""
        raise NotImplementedError  # from_pretrained rejects a class without it


def _require_saved_form(cls: type[Router]) -> None:
    if cls._save is Router._save or cls._load.__func__ is Router._load.__func__:  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"{cls.__name__} cannot be saved or loaded: it needs a method _save(self, path) that writes its weights "
            "below path and returns its other settings as a dict of JSON values, and a class method _load(cls, path, "
            "config, **options) that builds the router from both"
        )


def checked_options(function: Callable[..., Any], options: dict[str, Any], owner: str) -> dict[str, Any]:
    """Return `options` if `function` accepts all of them, or raise a `ConfigurationError` that names the others."""
    parameters = signature(function).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return options
    known = [parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigurationError(
            f"{owner} has no option {', '.join(unknown)}; it takes {', '.join(known) or 'no options'}"
        )
    return options


def read_config(path: Path) -> dict[str, Any]:
    """Parse ``config.json`` of a saved router or embedder."""
    with damage_named(path, "cannot be opened"):
        if not path.is_dir():
            raise CheckpointNotFoundError(f"no directory {str(path)!r}: pass a directory that save_pretrained wrote")
    return read_json_object(path / CONFIG_FILE, f"{str(path)!r} is not a saved router")


def identity_parts(qualified_name: str, version: Any) -> dict[str, Any]:
    """Return the parts of a fingerprint that consists only of a qualified name and a version."""
    if not isinstance(version, str | int | float | None):
        raise ConfigurationError(
            f"version={version!r:.80} of {qualified_name}: expected a string or a number that changes whenever the win "
            "rates may change, or None"
        )
    return {"class": qualified_name, "version": version}


def fingerprint_of(parts: dict[str, Any]) -> str:
    """Return a SHA-256 (its first 32 hex digits) of sorted names with JSON values or array dtype, shape and bytes."""
    import hashlib
    import json

    digest = hashlib.sha256()
    for key in sorted(parts):
        value = parts[key]
        digest.update(key.encode() + b"\0")
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(json.dumps(value, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]
