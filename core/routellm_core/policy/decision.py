"""RoutingRequest and RoutingDecision: what is asked of a policy, and which side a call goes to and why."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Self

from routellm_core.checks import Side

if TYPE_CHECKING:
    from random import Random

# nobody nests as many models; a state that was stored elsewhere may hold anything
_MOST_LEVELS = 32

Reason = Literal[
    "win_rate",
    "forced",
    "capability",
    "sticky",
    "limit",
    "no_text",
    "explored",
    "observed",
    "error",
    "deadline",
]


@cache
def _generator() -> Random:
    """The source of ids: seeded by the system, and anew in a forked child.

    It is not the generator of the module `random`, which a program may seed and so repeat its ids; and it costs half of
    what asking the system for every id does.
    """
    from random import Random  # takes longer to load than most modules that routing needs

    generator = Random()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=generator.seed)
        os.register_at_fork(after_in_child=_ids.clear)
    return generator


# ids for the next decisions: drawing many at once takes less time for each
_ids: list[str] = []
_DRAWN_AT_ONCE = 64


def new_id() -> str:
    """A new id of a decision, 32 random hex digits."""
    try:
        return _ids.pop()
    except IndexError:
        drawn = _generator().randbytes(16 * _DRAWN_AT_ONCE).hex()
        _ids.extend(drawn[start : start + 32] for start in range(32, len(drawn), 32))
        return drawn[:32]


@dataclass(frozen=True)
class RoutingDecision:
    """What was decided for one call, and why.

    Attributes:
        model: The side that the call goes to.
        win_rate: P(the strong model's answer beats the weak one's | prompt), in [0, 1]; None when no router ran.
        threshold: The call is strong when ``win_rate >= threshold``; in [0, 1].
        router: Name of the router that the policy holds.
        reason: Why: ``"win_rate"``, compared with the threshold; ``"forced"`` by the caller; ``"capability"``, the weak
            model cannot serve the call; ``"sticky"``, an earlier decision of the conversation holds; ``"limit"``, a
            limit is reached; ``"no_text"``, there was no text to judge; ``"explored"``, a coin decided; ``"observed"``,
            one side answers every call for now; ``"error"`` or ``"deadline"``, the router failed and the policy's
            ``on_error`` rule decided.
        failover: The side that was decided on but failed, or had failed shortly before, so that the other one answered;
            else None.
        error: For ``"error"`` and ``"deadline"``: the class name of what went wrong (never a message: it could
            hold prompt text).
        detail: For ``"capability"``: what the weak model lacks; for ``"limit"``: the class of the limit; for a
            failover: the class name of its error, or ``"cooldown"`` for a side that was passed over.
        escalated: Whether the weak model answered first, and a check refused its answer, so that the strong one
            answered; `detail` then tells what was wrong with the check itself, if anything.
        p_strong: Probability that the call went to the strong side, exploration included; 0.0 or 1.0 where nothing was
            left to chance.
        router_version: The first digits of the router's fingerprint, which tell one version of it from another; None
            when unknown.
        id: Names the call in traces and logs; 32 hex digits. It, `p_strong`, `router_version` and `cost` are left out
            of comparisons.
        cost: Money that the call cost, a refused answer included; None where no price is given or no usage known yet.
        inner: Where the side that answers is itself a routed model: what that one decided; else None.
    """

    model: Side
    win_rate: float | None
    threshold: float
    router: str
    reason: Reason = "win_rate"
    failover: Side | None = None
    error: str | None = None
    detail: str | None = None
    escalated: bool = False
    # by default from the side, see __post_init__
    p_strong: float = field(default=None, compare=False)  # type: ignore[assignment]
    router_version: str | None = field(default=None, compare=False)
    id: str = field(default_factory=new_id, compare=False)
    cost: float | None = field(default=None, compare=False)
    inner: RoutingDecision | None = None

    def __post_init__(self) -> None:
        if self.p_strong is None:
            object.__setattr__(self, "p_strong", 1.0 if self.model == "strong" else 0.0)

    @classmethod
    def by_win_rate(cls, win_rate: float, threshold: float, router: str, router_version: str) -> Self:
        """The decision of a call that only its win rate and the threshold decide, as they do most calls.

        Args:
            win_rate: P(the strong model's answer beats the weak one's | prompt), in [0, 1].
            threshold: The call is strong when ``win_rate >= threshold``; in [0, 1].
            router: Name of the router.
            router_version: The first digits of its fingerprint.
        """
        # past __init__: that of a frozen dataclass takes longer than everything else that such a call needs here
        decision = cls.__new__(cls)
        values = decision.__dict__
        is_strong = win_rate >= threshold
        values["model"] = "strong" if is_strong else "weak"
        values["win_rate"] = win_rate
        values["threshold"] = threshold
        values["router"] = router
        values["reason"] = "win_rate"
        values["failover"] = None
        values["error"] = None
        values["detail"] = None
        values["escalated"] = False
        values["p_strong"] = 1.0 if is_strong else 0.0
        values["router_version"] = router_version
        values["id"] = new_id()
        values["cost"] = None
        values["inner"] = None
        return decision

    @property
    def levels(self) -> tuple[RoutingDecision, ...]:
        """This decision and those below it, outermost first; several only where routed models are nested."""
        return (self,) if self.inner is None else (self, *self.inner.levels)

    @property
    def path(self) -> tuple[Side, ...]:
        """The sides that lead to the model that answers, outermost first, such as ``("weak", "strong")``."""
        return tuple(decision.model for decision in self.levels)

    def to_dict(self) -> dict[str, Any]:
        """The decision as a dict of JSON scalars, always with the same keys; `inner` is a dict like this, or None."""
        values = self.__dict__.copy()
        if self.inner is not None:
            values["inner"] = self.inner.to_dict()
        return values

    @classmethod
    def from_dict(cls, found: Any) -> Self | None:
        """The decision that `to_dict` described; None when `found` does not describe one.

        Messages and agent states outlive a version of this package: unknown keys are ignored, and a decision that was
        stored without an id has an empty one.
        """
        levels: list[dict[str, Any]] = []
        while isinstance(found, Mapping) and len(levels) < _MOST_LEVELS:
            levels.append({"id": "", **{name: found[name] for name in cls.__dataclass_fields__ if name in found}})
            found = found.get("inner")
        decision: Self | None = None
        for values in reversed(levels):
            try:
                decision = cls(**{**values, "inner": decision})
            except TypeError:  # a required key is missing
                decision = None
        return decision


@dataclass(frozen=True)
class RoutingRequest:
    """One call to decide on, where a plain prompt does not say enough.

    Attributes:
        prompts: Texts to score; the call is as hard as the hardest, so its win rate is the highest of theirs.
        threshold: Threshold of this call alone; None takes the policy's.
        force: Side that is settled already, so that no router runs.
        reason: Why it is settled: ``"forced"``, ``"capability"`` or ``"sticky"``.
        detail: Passed on to the decision.
        keys: Whose call it is, by the names that limits ask for, such as ``{"user_id": "42"}``; None when unknown.
        win_rate: Win rate of the call where it is known already, so that no router runs; else None.
    """

    prompts: tuple[str, ...]
    threshold: float | None = None
    force: Side | None = None
    reason: Reason = "forced"
    detail: str | None = None
    keys: Mapping[str, str] | None = None
    win_rate: float | None = None

    @classmethod
    def of_texts(
        cls, prompts: tuple[str, ...], threshold: float | None = None, keys: Mapping[str, str] | None = None
    ) -> Self:
        """A call that its texts decide, as they do most calls.

        Args:
            prompts: Texts to score.
            threshold: Threshold of this call alone; None takes the policy's.
            keys: Whose call it is.
        """
        request = cls.__new__(cls)  # past __init__, as in `RoutingDecision.by_win_rate`
        values = request.__dict__
        values["prompts"] = prompts
        values["threshold"] = threshold
        values["force"] = None
        values["reason"] = "forced"
        values["detail"] = None
        values["keys"] = keys
        values["win_rate"] = None
        return request
