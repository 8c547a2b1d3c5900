"""Router: what every router is, the checks around it, and its saved form."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.checks import checked_prompts, checked_win_rates
from routellm_core.errors import CheckpointError, CheckpointNotFoundError

WinRates = npt.NDArray[np.float64]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CALIBRATION_FILE = "calibration.json"


class Router(ABC):
    """Predicts the win rate: P(the strong model's answer beats the weak model's | prompt).

    A router holds no mutable state after construction, so one instance serves any number of threads and event
    loops. A subclass implements `_win_rates` and, where it waits for a service, `_awin_rates`; and the pair
    `_save` / `_load` for its saved form.

    Attributes:
        name: Short name, the key of `load_router`.
        calibration: Distribution of this router's win rates on a prompt sample, used by ``strong_fraction=``;
            None when the router was saved without one.
    """

    name: ClassVar[str]
    calibration: Calibration | None = None

    def win_rates(self, prompts: Sequence[str]) -> WinRates:
        """Win rates of a batch of prompts; each row depends on its prompt alone.

        Args:
            prompts: n >= 1 strings. Any string is allowed: empty, very long, lone surrogates, any language.

        Returns:
            float64 array (n,), each in [0, 1].

        Raises:
            PromptError: `prompts` is empty, a bare string, or holds something that is not a str.
            RouterError: The router failed, or its output is not a win rate.
        """
        checked = checked_prompts(prompts)
        return checked_win_rates(self._win_rates(checked), len(checked), self.name)

    async def awin_rates(self, prompts: Sequence[str]) -> WinRates:
        """Like `win_rates`, without blocking the event loop: computes in a thread or awaits the service."""
        checked = checked_prompts(prompts)
        return checked_win_rates(await self._awin_rates(checked), len(checked), self.name)

    @abstractmethod
    def _win_rates(self, prompts: list[str]) -> WinRates:
        """Win rates (n,) of n >= 1 checked prompts."""

    async def _awin_rates(self, prompts: list[str]) -> WinRates:
        import asyncio  # loaded wherever this runs; at the top it would be most of what importing this package costs

        return await asyncio.to_thread(self._win_rates, prompts)

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes when the win rates of any prompt could change; ties a calibration to its router."""
        return fingerprint_of(self._fingerprint_parts())

    @abstractmethod
    def _fingerprint_parts(self) -> dict[str, Any]:
        """What determines the win rates: JSON values and numpy arrays."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the router to `directory` as config.json + safetensors (+ calibration.json), never a pickle.

        `from_pretrained` gives back a router with bit for bit the same win rates.
        """
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        config = {"router": self.name, "format": 1, **self._save(path)}
        (path / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if self.calibration is not None:
            self.calibration.save(path / CALIBRATION_FILE)

    @classmethod
    def from_pretrained(cls, directory: str | Path, **options: Any) -> Self:
        """Load a router that `save_pretrained` wrote, or that was published in the authors' form.

        Called on `Router` itself, the class is taken from the saved config.

        Args:
            directory: Directory with config.json and the weights.
            **options: Passed to the router: ``embedder``, ``strong``, ``weak``, ``device``, ... as far as it has them.

        Raises:
            CheckpointNotFoundError: No such directory, or no config.json in it.
            CheckpointError: A file is corrupt, or the directory holds another kind of router.
        """
        path = Path(directory)
        config = read_config(path)
        saved = config.get("router")
        target: type[Router] = cls
        if "name" not in cls.__dict__:
            from routellm_core.routers import router_class  # the registry imports this module

            if saved is None:
                raise CheckpointError(
                    f"{path / CONFIG_FILE} does not say which router it is; call load_router(NAME, {str(path)!r})"
                )
            target = router_class(str(saved))
        elif saved is not None and saved != cls.name:
            raise CheckpointError(f"{path} holds a {saved!r} router, not {cls.name!r}")
        router = target._load(path, config, **options)
        calibration = path / CALIBRATION_FILE
        if calibration.is_file():
            saved_calibration = Calibration.load(calibration)
            # with another pair or embedder than it was saved with, the win rates are others and it does not hold
            if not options or saved_calibration.fingerprint in (None, router.fingerprint):
                router.calibration = saved_calibration
        return router  # type: ignore[return-value]  # on Router itself, target is the subclass the config names

    @abstractmethod
    def _save(self, path: Path) -> dict[str, Any]:
        """Write the weights below `path`; return what config.json has to say beyond the router's name."""

    @classmethod
    @abstractmethod
    def _load(cls, path: Path, config: dict[str, Any], **options: Any) -> Router:
        """Build the router from its directory and parsed config."""


def read_config(path: Path) -> dict[str, Any]:
    """Parse ``config.json`` of a saved router or embedder."""
    file = path / CONFIG_FILE
    if not path.is_dir():
        raise CheckpointNotFoundError(f"no directory {str(path)!r}: give a directory that save_pretrained wrote")
    if not file.is_file():
        raise CheckpointNotFoundError(f"no {CONFIG_FILE} in {str(path)!r}: not a saved router")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as exc:
        raise CheckpointError(f"{file} is not readable JSON: {exc}") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds a {type(config).__name__}, expected an object")
    return config


def read_tensors(file: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Read `names` from a safetensors file.

    Raises:
        CheckpointNotFoundError: No such file; a pickled one beside it is named and refused.
        CheckpointError: The file is corrupt or lacks one of `names`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not file.is_file():
        pickled = sorted(p.name for p in file.parent.glob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"})
        hint = (
            f" {', '.join(pickled)} lies there, but pickled weights can run code when opened and are refused; "
            "convert them to safetensors"
            if pickled
            else ""
        )
        raise CheckpointNotFoundError(f"no {file.name} in {str(file.parent)!r}.{hint}")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, TypeError) as exc:
        raise CheckpointError(f"{file} is not a readable safetensors file: {exc}") from exc
    missing = [name for name in names if name not in tensors]
    if missing:
        raise CheckpointError(f"{file} lacks {', '.join(missing)}; it holds {', '.join(sorted(tensors)) or 'nothing'}")
    return {name: tensors[name] for name in names}


def fingerprint_of(parts: dict[str, Any]) -> str:
    """SHA-256 (first 32 hex digits) over sorted names with JSON values or array dtype, shape and bytes."""
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
