"""Calibration: the distribution of a router's win rates on a prompt sample, and thresholds for a target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.scoring import RouterLike, Scorer
from routellm_core.calibration.thresholds import WinRateDistribution, distinct
from routellm_core.checks import (
    MAX_STATE_BYTES,
    check_format,
    checked_count,
    damage_named,
    read_json_object,
    shown,
    write_json,
)
from routellm_core.errors import CheckpointError, ConfigurationError, PromptError

if TYPE_CHECKING:
    from routellm_core.calibration.targets import Target

FORMAT = 1


class HasFingerprint(Protocol):
    """What ties a router to the calibrations that were fitted on it."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


class Calibration(WinRateDistribution):
    """The distribution of a router's win rates over a sample of prompts, and the thresholds that follow from it.

    Tied prompts always go together, so the shares of strong calls that can be reached are those of the distinct win
    rates; the closest one is taken.

    Attributes:
        values: Distinct win rates, ascending, float64 (m,).
        counts: How many prompts had each, int64 (m,).
        count: Number of prompts.
        router: Name of the router they come from, or None.
        fingerprint: Its fingerprint, or None when unknown (then any router is accepted).
    """

    __slots__ = ("fingerprint", "router")

    def __init__(
        self,
        values: npt.ArrayLike,
        counts: npt.ArrayLike,
        *,
        router: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(values, counts)
        self.router = router
        self.fingerprint = fingerprint

    @classmethod
    def fit(cls, router: RouterLike, prompts: Iterable[str], *, batch_size: int = 1024) -> Self:
        """Score `prompts` with `router` and keep the distribution of the win rates.

        The prompts are read once, batch by batch, so a generator over a large file works; memory grows by 8 bytes per
        prompt. `routellm_core.calibration.calibrate_file` does the same for a file, and can be stopped and continued.

        Args:
            router: A router or the name of one, any object with a method ``win_rates(prompts)``, or any function
                ``list[str] -> numbers``, also an asynchronous one.
            prompts: One or more prompts like those that will be routed.
            batch_size: Prompts per call of the router.

        Raises:
            PromptError: There is no prompt, or one that is not a str.
            RouterError: The router failed, or returned something that is not a win rate per prompt.
            ConfigurationError: `router` cannot score prompts, or `batch_size` is not an integer >= 1.
        """
        if isinstance(prompts, str | bytes) or not isinstance(prompts, Iterable):
            raise PromptError(
                f"prompts={type(prompts).__name__}: expected several strings; wrap a single one in a list"
            )
        scorer = Scorer(router)
        size = checked_count(batch_size, "batch_size")
        iterator = iter(prompts)
        parts = []
        while batch := list(islice(iterator, size)):
            parts.append(scorer.win_rates(batch))
        if not parts:
            raise PromptError("prompts is empty: pass at least one prompt to calibrate on")
        return cls.from_win_rates(np.concatenate(parts), router=scorer.name, fingerprint=scorer.fingerprint)

    @classmethod
    def merge(cls, parts: Iterable[Calibration]) -> Self:
        """The calibration on all prompts of several calibrations of one router, such as those of several machines.

        The result equals one fitted on all prompts together, unless a part was `condensed`.

        Args:
            parts: One or more calibrations with the same router name and fingerprint.

        Raises:
            ConfigurationError: There is no part, one that is not a Calibration, or parts of different routers.
        """
        given = list(parts)
        if not given:
            raise ConfigurationError("parts is empty: pass at least one Calibration")
        for i, part in enumerate(given):
            if not isinstance(part, Calibration):
                raise ConfigurationError(f"parts[{i}] is a {type(part).__name__}, not a Calibration")
            if (part.router, part.fingerprint) != (given[0].router, given[0].fingerprint):
                raise ConfigurationError(
                    f"parts[{i}] is a calibration of {part._owner()}, but parts[0] of {given[0]._owner()}: win rates "
                    "of two routers cannot be merged; fit both on one router"
                )
        values, where = np.unique(np.concatenate([part.values for part in given]), return_inverse=True)
        counts = np.zeros(values.size, dtype=np.int64)
        np.add.at(counts, where, np.concatenate([part.counts for part in given]))
        return cls(values, counts, router=given[0].router, fingerprint=given[0].fingerprint)

    @classmethod
    def from_win_rates(
        cls, win_rates: npt.ArrayLike, *, router: str | None = None, fingerprint: str | None = None
    ) -> Self:
        """The calibration of win rates (n,), n >= 1, that were computed before."""
        return cls(*distinct(win_rates), router=router, fingerprint=fingerprint)

    def share_target(self, strong_fraction: float, **options: Any) -> Target:
        """The threshold for a share of strong calls, with its interval, its held-out value and the sample size needed.

        Args:
            strong_fraction: Wanted share of strong calls, in [0, 1].
            **options: Further arguments of `routellm_core.evaluation.share_target`.
        """
        from routellm_core.calibration.targets import share_target

        return share_target(self, strong_fraction, **options)

    def budget_target(self, budget: float, **options: Any) -> Target:
        """The threshold that spends a budget on prompts like the sample, with its interval and held-out value.

        Args:
            budget: Money for ``calls`` calls (default 1).
            **options: ``strong_price``, ``weak_price`` and ``tokens``, and further arguments of
                `routellm_core.evaluation.budget_target`.
        """
        from routellm_core.calibration.targets import budget_target

        return budget_target(self, budget, **options)

    def quality_target(
        self, win_rates: npt.ArrayLike, strong_scores: npt.ArrayLike, weak_scores: npt.ArrayLike, **options: Any
    ) -> Target:
        """The threshold for a quality level, and the share of strong calls that it takes on the prompts of the sample.

        The sample has win rates only, so prompts with known outcomes say which threshold reaches the quality.

        Args:
            win_rates: Float (n,), win rates that the same router gave to the prompts with outcomes.
            strong_scores: Float (n,), scores of the strong model, higher is better.
            weak_scores: Float (n,), scores of the weak model.
            **options: ``pgr`` or ``quality``, and further arguments of `routellm_core.evaluation.quality_target`.
        """
        from routellm_core.calibration.targets import quality_target, share_interval

        found = quality_target(win_rates, strong_scores, weak_scores, **options)
        level = {name: options[name] for name in ("confidence", "seed") if name in options}
        return replace(found, strong_fraction=share_interval(self, found.threshold, **level))

    def condensed(self, max_values: int = 10_000) -> Self:
        """The same distribution with at most `max_values` distinct win rates, each share moved by < 1 / max_values.

        It makes a small file of a calibration on very many prompts, and returns one that is small enough unchanged.
        """
        if len(self.values) <= max_values:
            return self
        # the first value whose cumulated count reaches each of max_values equal steps stands for its step
        upto = np.cumsum(self.counts)
        ends = np.unique(np.searchsorted(upto, np.linspace(0, self.count, max_values + 1)[1:], side="left"))
        counts = np.diff(np.append(0, upto[ends]))
        return type(self)(self.values[ends], counts, router=self.router, fingerprint=self.fingerprint)

    def check_router(self, router: HasFingerprint) -> None:
        """Refuse to serve a router that this calibration was not fitted on.

        Raises:
            ConfigurationError: The fingerprints differ.
        """
        if self.fingerprint is not None and self.fingerprint != router.fingerprint:
            raise ConfigurationError(
                f"calibration of {self._owner()} used with router "
                f"{router.name!r} (fingerprint {router.fingerprint[:8]}): win rates of two routers cannot be compared; "
                "fit one for this router: routellm calibrate --router DIR, or Calibration.fit(router, prompts)"
            )

    def _owner(self) -> str:
        """The router that this calibration belongs to, in words."""
        known = "unknown fingerprint" if self.fingerprint is None else f"fingerprint {self.fingerprint[:8]}"
        return f"router {self.router!r} ({known})"

    def to_dict(self) -> dict[str, Any]:
        """The calibration as JSON values; `from_dict` returns an equal one."""
        return {
            "format": FORMAT,
            "router": self.router,
            "fingerprint": self.fingerprint,
            "count": self.count,
            "values": self.values.tolist(),
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The calibration that `to_dict` described.

        Raises:
            CheckpointError: `data` does not have the form that `to_dict` returns.
        """
        check_format(data if isinstance(data, dict) else {}, FORMAT, "calibration")
        for name in ("values", "counts"):
            if not isinstance(data.get(name), list):
                raise CheckpointError(f"not a calibration: {name} is not a list of numbers")
        for name in ("router", "fingerprint"):
            if not isinstance(data.get(name), str | None):
                raise CheckpointError(f"not a calibration: {name}={shown(data[name])}, expected a text or null")
        try:
            out = cls(data["values"], data["counts"], router=data.get("router"), fingerprint=data.get("fingerprint"))
        except ConfigurationError as exc:
            raise CheckpointError(f"not a calibration: {exc}") from exc
        if data.get("count", out.count) != out.count:
            raise CheckpointError(
                f"not a calibration: count={shown(data['count'])} contradicts the counts, whose sum is {out.count}"
            )
        return out

    def save(self, path: str | Path) -> None:
        """Write the calibration to `path` as JSON; the file is written completely or not at all."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a calibration that `save` wrote.

        Raises:
            CheckpointNotFoundError: No such file.
            CheckpointError: The file is not a calibration.
        """
        file = Path(path)
        data = read_json_object(
            file, "expected a calibration; write one with Calibration.save(path)", max_bytes=MAX_STATE_BYTES
        )
        try:
            with damage_named(file, "is not a calibration"):
                return cls.from_dict(data)
        except CheckpointError as exc:
            raise CheckpointError(f"{file}: {exc}") from exc

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Calibration) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # compared by value, so not hashable

    def __repr__(self) -> str:
        return f"Calibration(router={self.router!r}, count={self.count}, distinct={len(self.values)})"
