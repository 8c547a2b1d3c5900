"""Tiers: a routed model as a side of another. One win rate serves all levels, and shares are shares of all calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.checks import Side
from routellm_core.errors import ConfigurationError
from routellm_core.policy.capability import MAX_INPUT_TOKENS
from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.policy import RoutingPolicy, _Serving
from routellm_core.policy.routing import THRESHOLD_SETTING, CallSettings, Decided, RoutedOn, Routing
from routellm_core.policy.share import ShareWatch

logger = logging.getLogger("routellm_core")

# Shares that sum to 1 may miss it by what floating point makes of them.
_ROUNDING = 1e-9
# Counts are whole numbers; of win rates that are explored, fractions of the calls get to a side.
_SCALE = 1000

Floats = npt.NDArray[np.float64]


class TierPolicy(RoutingPolicy):
    """The policy of a routed model while it is a side of another one; the model's own policy stays as it is.

    Its `strong_fraction` is a share of all calls, not of those that get to this level. With the same router at both
    levels, the threshold is the quantile of the win rates that get here: outside 0.1 and inside, on the weak side, 0.3
    mean that the 10 % of all calls with the highest win rates go to the top, and the next 30 % to the strong side here.
    With different routers, the share of the calls that get here counts, as if the two routers' win rates were
    independent; a warning says so, unless ``online=True`` keeps the share. A `threshold` that was given stays what it
    is. With ``online=``, this level has an online calibration of its own, which sees the calls that get here.

    A policy that is replaced at either level, or follows a `RouterFolder`, takes effect here with the next call.

    Args:
        outer: The policy of the model around it.
        side: The side of that model.
        inner: The model's own policy.

    Raises:
        ConfigurationError: The shares of both levels cannot hold together.
    """

    def __init__(self, outer: RoutingPolicy, side: Side, inner: RoutingPolicy) -> None:
        # the options, which never change; limits are shared, since money is money wherever it is spent
        self.__dict__.update(inner.__dict__)
        self._outer = outer
        self._side: Side = side
        self._inner = inner
        self._following = None
        self._tiers = {}
        self._renew_lock()
        self._basis = (outer._current(), inner._current())
        self._serving = self._derived(*self._basis)
        self._warn()

    def _current(self) -> _Serving:
        outer, inner = self._outer._current(), self._inner._current()
        if not self._stands_on(outer, inner):
            with self._replacing:
                if not self._stands_on(outer, inner):
                    self._serving = self._renewed(outer, inner)
                    self._basis = (outer, inner)
        return self._serving

    def _stands_on(self, outer: _Serving, inner: _Serving) -> bool:
        return self._basis[0] is outer and self._basis[1] is inner

    def _renewed(self, outer: _Serving, inner: _Serving) -> _Serving:
        """Like `_derived`, in a running app: it goes on where the shares cannot hold together any more."""
        try:
            return self._derived(outer, inner)
        except ConfigurationError as exc:
            logger.warning("%s; until then, the nested model decides as it does by itself", exc)
            return inner

    @property
    def available(self) -> float | None:
        """Share of all calls that are meant to get to this level; None where nothing says it."""
        above = self._outer.available if isinstance(self._outer, TierPolicy) else 1.0
        strong = self._outer.strong_fraction
        if strong is None:
            calibration = self._outer.calibration
            if above is None or calibration is None:
                return None
            strong = above * calibration.strong_fraction(threshold=self._outer.threshold)
        if self._side == "strong":
            return strong
        return None if above is None else max(0.0, above - strong)

    def reach(self, win_rates: Floats, inner: _Serving) -> Floats:
        """Share of the calls with each of n win rates of `inner`'s router that get to this level, float64 (n,)."""
        outer = self._outer
        above = outer.reach(win_rates, inner) if isinstance(outer, TierPolicy) else np.ones(len(win_rates))
        serving = outer._serving
        if not serving.has_router_of(inner):
            return above * self._part_of_outer()
        if outer.exploration is None:
            strong = (win_rates >= serving.threshold).astype(np.float64)
        else:
            strong = outer.exploration.p_strong(win_rates, serving.threshold)
        return above * (strong if self._side == "strong" else 1.0 - strong)

    def _part_of_outer(self) -> float:
        """The part of the outer level's calls that get here, whatever their win rates; 1 where nothing says it."""
        above = self._outer.available if isinstance(self._outer, TierPolicy) else 1.0
        here = self.available
        return 1.0 if here is None or not above else min(1.0, here / above)

    def _derived(self, outer: _Serving, inner: _Serving) -> _Serving:
        """What decides at this level, where the levels above decide by `outer`."""
        share, calibration = inner.strong_fraction, inner.calibration
        cache = outer.cache if outer.has_router_of(inner) else inner.cache
        if share is None or calibration is None:
            return inner._replace(cache=cache)
        self._check_sum(share)
        weights = self.reach(calibration.values, inner)
        reached = float(weights @ calibration.counts) / calibration.count
        part = _part(calibration, weights)
        wanted = min(1.0, share / reached) if reached > 0.0 else float(share > 0.0)
        threshold = (
            part.threshold(strong_fraction=wanted)
            if self.exploration is None
            else self.exploration.threshold(part, wanted)
        )
        online = None
        if inner.online is not None:
            online = type(inner.online)(part, wanted, window=inner.online.window)
        watch = None if online is not None else ShareWatch(wanted, "calls that reached the nested model")
        return inner._replace(calibration=part, threshold=threshold, online=online, cache=cache, watch=watch)

    def _check_sum(self, share: float) -> None:
        outer, available = self._outer.strong_fraction, self.available
        if outer is None or available is None or share <= available + _ROUNDING:
            return
        if self._side == "strong":
            raise ConfigurationError(
                f"strong_fraction={share} of the routed model on the strong side and strong_fraction={outer} of the "
                "model around it: both are shares of all calls, so the inner one must not be larger than the outer one"
            )
        raise ConfigurationError(
            f"strong_fraction={share} of the routed model on the weak side and strong_fraction={outer} of the model "
            f"around it: both are shares of all calls, and only {available:.4g} of all calls are left for the inner "
            "one; lower one of them, so that all shares sum to at most 1"
        )

    def _warn(self) -> None:
        """Say once where a share cannot be what it is meant to be."""
        share = self._serving.strong_fraction
        if share is None:
            return
        same = self._outer._serving.has_router_of(self._serving)
        if not same and self.available is None:
            logger.warning(
                "strong_fraction=%s of the nested model is a share of the calls that get to it, not of all calls: the "
                "model around it has a threshold and no calibration; give it strong_fraction=, or calibration=",
                share,
            )
        elif not same and self.online is None:
            logger.warning(
                "strong_fraction=%s of the nested model is a share of all calls only as far as the routers of the two "
                "levels, %r and %r, are independent of each other; give both levels one router, or the nested model "
                "online=True",
                share,
                self._outer.router.name,
                self.router.name,
            )


def _part(calibration: Calibration, weights: Floats) -> Calibration:
    """The calibration of the calls that get to a level: `weights` says which part of each win rate's do."""
    if np.ptp(weights) == 0.0:  # as many of all, or none
        return calibration
    whole = bool(np.all((weights == 0.0) | (weights == 1.0)))
    counts = np.rint(calibration.counts * weights * (1 if whole else _SCALE)).astype(np.int64)
    found = counts > 0
    return Calibration(
        calibration.values[found], counts[found], router=calibration.router, fingerprint=calibration.fingerprint
    )


@dataclass(frozen=True, slots=True)
class TierRouting(Routing):
    """The routing of a nested model: its own options, with what the levels above decide for all.

    Attributes:
        logs: Logs of the levels above: a call stands in each log once, in the row of its outermost level.
    """

    logs: tuple[Any, ...] = ()

    # not super(): a dataclass with slots is another class than the one that its methods were defined in

    def settings(self, given: Mapping[str, Any], messages: Callable[[], Any] | None = None) -> CallSettings:
        """The settings of a call, with those of the level above; a threshold is that of the outermost level alone."""
        own = Routing.settings(self, {n: value for n, value in given.items() if n != THRESHOLD_SETTING}, messages)
        handed = _HANDED.get()
        if handed is None or handed.settings is None:
            return own
        above = handed.settings
        keys = {**(above.keys or {}), **(own.keys or {})}
        return CallSettings(
            None, own.force or above.force, own.conversation or above.conversation, keys or None, own.user or above.user
        )

    def request(
        self, settings: CallSettings, *, gap: Callable[[], str | None], texts: Callable[[], RoutedOn]
    ) -> RoutingRequest:
        """What the policy is asked, with the win rate where the level above knows it for the same texts."""
        request = Routing.request(self, settings, gap=gap, texts=texts)
        handed = _HANDED.get()
        if handed is None or request.force is not None or not handed.serving.has_router_of(self.policy._current()):
            return request
        decision = handed.decisions.get(tuple(request.prompts))
        if decision is None:
            return request
        if decision.win_rate is not None:
            return replace(request, win_rate=decision.win_rate)
        if decision.error is not None and self.policy.on_error != "raise":
            side = self.policy.observe or self.policy.on_error
            return replace(request, force=side, reason=decision.reason, detail=decision.error)
        return request


def tier(above: Routing, side: Side, inner: Routing) -> TierRouting:
    """The routing of a model while it is a side of another one.

    Args:
        above: Routing of the model around it.
        side: The side of that model.
        inner: The model's own routing, which stays as it is.

    Raises:
        ConfigurationError: The shares of both levels cannot hold together.
    """
    logs = (*above.logs, above.log) if isinstance(above, TierRouting) else (above.log,)
    own = {field.name: getattr(inner, field.name) for field in fields(Routing)}
    if inner.log is not None and any(inner.log is log for log in logs):
        if inner.shadow is not None:
            logger.warning(
                "shadow=%r of a nested model has no effect: its log is that of the model around it, where a call "
                "stands once; give the nested model a log of its own",
                inner.shadow,
            )
        own |= {"log": None, "shadow": None}
    # the outermost level decides whether a call may be steered
    own |= {"policy": _tier_policy(above.policy, side, inner.policy), "allow_overrides": True}
    return TierRouting(**{**own, "level": above.level + 1}, logs=logs)


def _tier_policy(outer: RoutingPolicy, side: Side, inner: RoutingPolicy) -> RoutingPolicy:
    """One for each pair of policies, so that all copies of a model share its online calibration."""
    key = (side, id(inner))
    found = outer._tiers.get(key)
    return found if found is not None else outer._tiers.setdefault(key, TierPolicy(outer, side, inner))


# --- from one level to the next ---


@dataclass(frozen=True, slots=True)
class _Handed:
    """What a level knows of the calls that it hands down.

    Attributes:
        serving: What it decided with.
        decisions: Its decisions by the texts that they were made on.
        settings: Settings of the call, where it is one.
    """

    serving: _Serving
    decisions: Mapping[tuple[str, ...], RoutingDecision]
    settings: CallSettings | None


_HANDED: ContextVar[_Handed | None] = ContextVar("routellm_handed_down", default=None)


@contextmanager
def handed_down(routing: Routing, decided: Sequence[Decided]) -> Iterator[None]:
    """Within this, a routed model that is a side knows the win rates of these calls, and need not ask the router.

    Args:
        routing: The level that has decided.
        decided: Its calls; of a single one, the settings are handed down, too.
    """
    decisions = {tuple(one.request.prompts): one.decision for one in decided if one.request.prompts}
    settings = decided[0].settings if len(decided) == 1 else None
    token = _HANDED.set(_Handed(routing.policy._serving, decisions, settings))
    try:
        yield
    finally:
        _HANDED.reset(token)


def with_inner(decision: RoutingDecision, below: Any) -> RoutingDecision:
    """A decision with what the side that answered has decided itself.

    Args:
        decision: The decision.
        below: The side's decision as `RoutingDecision.to_dict` gives it; anything else counts as none.
    """
    inner = RoutingDecision.from_dict(below) if below is not None else None
    return decision if inner is None else replace(decision, inner=inner)


def beneath(above: Any, decision: RoutingDecision) -> RoutingDecision:
    """The decisions of the levels above, as `to_dict` gives them, with `decision` as the innermost one."""
    outer = RoutingDecision.from_dict(above)
    if outer is None:
        return decision
    return replace(outer, inner=decision if outer.inner is None else beneath(outer.inner.to_dict(), decision))


def at_level(stored: Any, level: int) -> Any:
    """The decision of one level among those that an answer carries as dicts; None where there is none."""
    for _ in range(level):
        stored = stored.get("inner") if isinstance(stored, Mapping) else None
    return stored


def abilities_of_either(strong: Mapping[str, Any] | None, weak: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a nested model can do as a side, by the profiles of its own sides: what one of them can, it can.

    It lacks what both state that they lack; where one of them says nothing, nothing is known.
    """
    strong, weak = strong or {}, weak or {}
    found: dict[str, Any] = {}
    for key in strong.keys() | weak.keys():
        stated = [profile[key] for profile in (strong, weak) if profile.get(key) is not None]
        if key == MAX_INPUT_TOKENS:
            if len(stated) == 2:
                found[key] = max(stated)
        elif True in stated:
            found[key] = True
        elif len(stated) == 2 and all(value is False for value in stated):
            found[key] = False
    return found
