"""RoutingDecision: which side a call goes to, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Side = Literal["strong", "weak"]
Reason = Literal["win_rate", "forced", "capability", "sticky", "error", "deadline"]


def other_side(side: Side) -> Side:
    """The side that was not chosen."""
    return "weak" if side == "strong" else "strong"


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """What was decided for one call, and why.

    Attributes:
        model: The side that the call goes to.
        win_rate: P(the strong model's answer beats the weak one's | prompt), in [0, 1]; None when no router ran.
        threshold: The call is strong when ``win_rate >= threshold``; in [0, 1].
        router: Name of the router that the policy holds.
        reason: ``"win_rate"`` compared with the threshold; ``"forced"`` by the caller; ``"capability"`` the weak
            model cannot serve the call; ``"sticky"`` an earlier decision of the conversation holds; ``"error"`` or
            ``"deadline"`` the router failed and the policy's ``on_error`` rule decided.
        failover: The side that was decided on but failed, so that the other one answered; else None.
        error: For ``"error"`` and ``"deadline"``: the class name of what went wrong (never a message: it could
            hold prompt text).
        detail: For ``"capability"``: what the weak model lacks; for a failover: the class name of its error.
    """

    model: Side
    win_rate: float | None
    threshold: float
    router: str
    reason: Reason = "win_rate"
    failover: Side | None = None
    error: str | None = None
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The decision as a flat dict of JSON scalars, always with the same keys."""
        return asdict(self)
