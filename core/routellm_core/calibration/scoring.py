"""What stands for a router in calibration and evaluation, and what these need of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt


class HasWinRates(Protocol):
    """An object that scores prompts; every `Router` is one."""

    def win_rates(self, prompts: list[str]) -> Any:
        """Win rates of n prompts: n numbers in [0, 1]."""


RouterLike: TypeAlias = HasWinRates | Callable[[list[str]], Any] | str | Path | None


def is_router_like(value: Any) -> TypeGuard[RouterLike]:
    """Whether `value` stands for a router, rather than being win rates."""
    scores = callable(getattr(value, "win_rates", None)) or callable(getattr(value, "awin_rates", None))
    return scores or callable(value) or isinstance(value, str | Path)


class Scorer:
    """Scores prompts with whatever stands for a router, and checks what comes back.

    Args:
        router: Whatever `routellm_core.routers.as_router` accepts: a router or the name of one, an object with a method
            ``win_rates(prompts)``, or a function ``list[str] -> numbers``, also an asynchronous one.

    Attributes:
        name: The router's own name, or that of the function or class.
        fingerprint: The router's fingerprint, which no other router has.

    Raises:
        ConfigurationError: `router` is none of these.
    """

    # Makes a router of what stands for one. The routers are above this room, which therefore cannot import them: their
    # package, which `import routellm_core` loads, sets it.
    as_router: ClassVar[Callable[[Any], Any]]

    def __init__(self, router: RouterLike) -> None:
        self._router = Scorer.as_router(router)
        self.name: str = self._router.name
        self.fingerprint: str = self._router.fingerprint

    def win_rates(self, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Win rates (n,) of n >= 1 prompts.

        Raises:
            PromptError: There are no prompts, or one is not a str.
            RouterError: The router failed, or what it returned is not n win rates.
        """
        rates: npt.NDArray[np.float64] = self._router.win_rates(prompts)
        return rates
