"""The levels of a server with more than two models: each decides between one model and all that are cheaper."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routellm_core.checks import Side, checked_fraction
from routellm_core.errors import ConfigurationError
from routellm_core.policy.capability import checked_profile
from routellm_core.policy.cooldown import Cooldown
from routellm_core.policy.options import RoutingOptions
from routellm_core.policy.routing import Routing
from routellm_core.policy.stickiness import Stickiness
from routellm_core.policy.tiers import abilities_of_either, tier
from routellm_core.routers.folder import RouterFolder
from routellm_core.routers.function import as_router
from routellm_core.serve.upstream import Upstream, as_upstream

# of one level, or of the whole server: the others hold for every level
_OF_THE_OUTERMOST = frozenset({"limits", "log", "shadow", "weak_profile"})
_OF_A_PAIR = ("policy", "strong_fraction", "threshold", "weak_profile")


@dataclass(frozen=True, slots=True)
class Levels:
    """The routings of a server, outermost first, and the names of its models, the most expensive first.

    Level i decides between model i and the models after it. With two models there is one level.

    Attributes:
        routings: One a level.
        names: What the server calls its models; one more than there are levels.
    """

    routings: tuple[Routing, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.routings)

    def __getitem__(self, level: int) -> Routing:
        return self.routings[level]

    def is_leaf(self, level: int, side: Side) -> bool:
        """Whether a side of a level is a model, and not the next level."""
        return side == "strong" or level + 1 == len(self.routings)

    def name(self, level: int, side: Side) -> str:
        """The model of a side; of the levels below, the cheapest one."""
        return self.names[level] if side == "strong" else self.names[-1]

    def side(self, level: int, name: str) -> Side:
        """The side of a level that leads to a model."""
        return "strong" if name == self.names[level] else "weak"


def tiers_of(given: Sequence[Mapping[str, Any]], options: RoutingOptions) -> tuple[Levels, dict[str, Upstream]]:
    """The levels that several models make, and where each model is.

    Args:
        given: The models, the cheapest first: attributes of `Upstream`, ``share`` (of all calls) of each but the
            cheapest, and ``profile``, what a model can do.
        options: Those of every routed model. Each level has a stickiness and a cooldown of its own.

    Raises:
        ConfigurationError: A value is not allowed, or the shares sum to more than 1.
    """
    if not isinstance(given, list | tuple) or not all(isinstance(table, Mapping) for table in given) or len(given) < 2:
        raise ConfigurationError(
            "tiers=: expected two models or more, the cheapest first, each as a mapping with model, url and share"
        )
    for name in _OF_A_PAIR:
        if options.get(name) is not None:
            raise ConfigurationError(
                f"{name}= is an option of two models: with tiers=, give each model its share= and profile="
            )
    tables = [dict(table) for table in reversed(given)]
    shares = [table.pop("share", None) for table in tables]
    profiles = [checked_profile(table.pop("profile", None), "tiers: profile") for table in tables]
    upstreams = [as_upstream(table, f"tiers[{len(tables) - 1 - i}]") for i, table in enumerate(tables)]
    names = tuple(upstream.model for upstream in upstreams)
    if len(set(names)) < len(names):
        raise ConfigurationError(f"tiers={', '.join(reversed(names))}: expected models of different names")
    return Levels(_routings(names, shares, profiles, options), names), dict(zip(names, upstreams, strict=True))


def _routings(
    names: Sequence[str], shares: Sequence[Any], profiles: Sequence[dict[str, Any]], options: RoutingOptions
) -> tuple[Routing, ...]:
    if shares[-1] is not None:
        raise ConfigurationError(
            f"share={shares[-1]!r:.80} of the cheapest model, {names[-1]!r}: it takes what the others leave; give the "
            "share of every other model"
        )
    for name, share in zip(names[:-1], shares[:-1], strict=True):
        if share is None:
            raise ConfigurationError(f"share of the model {name!r}: missing; give its share of all calls, such as 0.3")
        checked_fraction(share, f"share of the model {name!r}")
    if sum(shares[:-1]) > 1.0 + 1e-9:
        stated = ", ".join(f"{name}={share}" for name, share in zip(names[:-1], shares[:-1], strict=True))
        raise ConfigurationError(f"shares {stated}: they sum to {sum(shares[:-1]):.4g}, and all calls are 1")
    common = dict(options)
    if not isinstance(common.get("router"), RouterFolder):
        common["router"] = as_router(common.get("router"))  # once, for all levels
    made: list[Routing] = []
    for level, share in enumerate(shares[:-1]):
        own = {name: _own(value) for name, value in common.items() if not (level and name in _OF_THE_OUTERMOST)}
        below = profiles[-1]
        for profile in reversed(profiles[level + 1 : -1]):
            below = abilities_of_either(profile, below)
        routing = Routing.of({**own, "strong_fraction": share, "weak_profile": below or None}, owner="create_app")
        made.append(tier(made[-1], "weak", routing) if made else routing)
    return tuple(made)


def _own(value: Any) -> Any:
    """An option for one level: what notes the sides of one decision cannot serve another's."""
    if isinstance(value, Cooldown):
        return Cooldown(value.seconds)
    return copy.copy(value) if isinstance(value, Stickiness) else value
