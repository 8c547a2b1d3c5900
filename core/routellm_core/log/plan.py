"""Plans: what shadow calls will cost, and when there will be enough pairs to learn from and to give a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from routellm_core.checks import checked_count, checked_fraction, is_number
from routellm_core.errors import ConfigurationError
from routellm_core.policy.savings import Price

# Pairs from which each pays, by simulations: a correction of the router in use, a verdict, a router from nothing.
CORRECTION, VERDICT, FROM_NOTHING = 100, 400, 800
# A verdict at 80 % power on looks at doublings; the spread of a pair's contribution to the gain over the static mix.
_BOUND, _POWER, _SPREAD = 1.73, 0.84, 0.26
# What a judge reads beside the prompt and both answers, and what it writes, for one order of the answers.
_INSTRUCTIONS, _REASONS = 200, 60


@dataclass(frozen=True, slots=True)
class Milestone:
    """A number of pairs and when it is there.

    Attributes:
        name: What it is enough for.
        pairs: The number.
        days: After how many days of the planned traffic; None where it never comes.
        cost: Money of these pairs, their labels included; None without prices.
    """

    name: str
    pairs: int
    days: float | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """What shadowing costs and brings.

    Attributes:
        pairs_a_day: Pairs that come in.
        routed: Money a day for the routed calls; None without prices.
        shadow: Money a day for the shadow calls.
        judge: Money a day for labels by a judge in both orders.
        milestones: When how many pairs are there.
    """

    pairs_a_day: float
    routed: float | None
    shadow: float | None
    judge: float | None
    milestones: tuple[Milestone, ...]

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        told = {name: getattr(self, name) for name in self.__slots__}
        told["milestones"] = [{name: getattr(m, name) for name in Milestone.__slots__} for m in self.milestones]
        return told


def pairs_for(gain: float, *, flips: float = 0.0) -> int:
    """Pairs that show a gain over the static mix at 80 % power, by the rule of planning 800 at least.

    Args:
        gain: In scores, > 0; .02 is two points.
        flips: Share of the pairs that a judge labels the wrong way round, in [0, .5).
    """
    if not is_number(gain) or not 0 < gain <= 1:
        raise ConfigurationError(f"gain={gain!r:.80}: expected a gain in scores, a number above 0 and up to 1")
    if not is_number(flips) or not 0 <= flips < 0.5:
        raise ConfigurationError(f"flips={flips!r:.80}: expected a share, a number >= 0 and below 0.5")
    return ceil(((_BOUND + _POWER) * _SPREAD / gain) ** 2 / (1 - 2 * flips) ** 2)


def plan_traffic(
    calls_a_day: int,
    *,
    shadow: float = 0.05,
    strong_fraction: float = 0.3,
    tokens: tuple[float, float] = (220.0, 310.0),
    strong: Price | None = None,
    weak: Price | None = None,
    judge: Price | None = None,
    gain: float = 0.02,
    flips: float = 0.0,
) -> TrafficPlan:
    """Plan shadow calls.

    Args:
        calls_a_day: Calls of the app.
        shadow: Share of them that the other side answers, too.
        strong_fraction: Share that the strong side answers.
        tokens: Mean input and output tokens of a call.
        strong: Price of the strong model.
        weak: Price of the weak one; with both, money is planned.
        judge: Price of the model that labels; None plans no labels.
        gain: Gain over the static mix that is to be shown, in scores.
        flips: Share of pairs that the judge labels the wrong way round.
    """
    checked_count(calls_a_day, "calls_a_day", unit="calls")
    shadow, share = checked_fraction(shadow, "shadow"), checked_fraction(strong_fraction, "strong_fraction")
    read, written = tokens
    pairs_a_day = calls_a_day * shadow
    routed = of_pair = of_label = None
    if strong is not None and weak is not None:
        of_strong, of_weak = ((price.input * read + price.output * written) / 1e6 for price in (strong, weak))
        routed = calls_a_day * (share * of_strong + (1 - share) * of_weak)
        of_pair = (1 - share) * of_strong + share * of_weak
    if judge is not None:
        seen = read + 2 * written + _INSTRUCTIONS
        of_label = 2 * (judge.input * seen + judge.output * _REASONS) / 1e6
    milestones = []
    for name, pairs in (
        ("a first correction of the router", CORRECTION),
        ("a first verdict", VERDICT),
        ("a router from nothing", FROM_NOTHING),
        (f"a gain of {100 * gain:g} points shown at 80 % power", max(FROM_NOTHING, pairs_for(gain, flips=flips))),
    ):
        cost = None if of_pair is None else pairs * (of_pair + (of_label or 0.0))
        days = pairs / pairs_a_day if pairs_a_day else inf
        milestones.append(Milestone(name, pairs, None if days == inf else days, cost))
    return TrafficPlan(
        pairs_a_day,
        routed,
        None if of_pair is None else pairs_a_day * of_pair,
        None if of_label is None else pairs_a_day * of_label,
        tuple(milestones),
    )
