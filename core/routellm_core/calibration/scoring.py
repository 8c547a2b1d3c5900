"""What stands for a router in calibration: an object with `win_rates`, or a function of a list of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isawaitable, iscoroutine
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_prompts, checked_win_rates
from routellm_core.errors import ConfigurationError


@runtime_checkable
class HasWinRates(Protocol):
    """An object that scores prompts; every `Router` is one."""

    def win_rates(self, prompts: list[str]) -> Any:
        """Win rates of n prompts: n numbers in [0, 1]."""


RouterLike: TypeAlias = HasWinRates | Callable[[list[str]], Any]


class Scorer:
    """Scores prompts with whatever stands for a router, and checks what comes back.

    Args:
        router: An object with a method ``win_rates(prompts)``, or a function ``list[str] -> numbers``.

    Attributes:
        name: The router's own name, or that of the function or class.
        fingerprint: The router's fingerprint; None for a router that has none.

    Raises:
        ConfigurationError: `router` is neither.
    """

    def __init__(self, router: RouterLike) -> None:
        method = getattr(router, "win_rates", None)
        score = method if callable(method) else router
        if isinstance(router, type) or not callable(score):
            given = f"the class {router.__name__}" if isinstance(router, type) else f"a {type(router).__name__}"
            raise ConfigurationError(
                f"router is {given}: expected a router, an object with win_rates(prompts), or a function that takes a "
                "list of prompts and returns their win rates; load_router(NAME) loads a router by name"
            )
        self._score: Callable[[list[str]], Any] = score
        name, fingerprint = getattr(router, "name", None), getattr(router, "fingerprint", None)
        self.name = name if isinstance(name, str) else getattr(router, "__name__", type(router).__name__)
        self.fingerprint = fingerprint if isinstance(fingerprint, str) and fingerprint else None

    def win_rates(self, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Win rates (n,) of n >= 1 prompts.

        Raises:
            PromptError: No prompts, or one that is not a str.
            RouterError: What the router returned is not n win rates.
            ConfigurationError: The router is asynchronous.
        """
        checked = checked_prompts(prompts)
        found = self._score(checked)
        if isawaitable(found):
            if iscoroutine(found):
                found.close()
            raise ConfigurationError(
                f"router {self.name!r} is asynchronous, but calibration calls it synchronously: wrap it first, "
                "as_router(router), from routellm_core.routers"
            )
        return checked_win_rates(found, len(checked), self.name)
