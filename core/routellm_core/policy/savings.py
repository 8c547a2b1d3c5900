"""Savings: calls, tokens and money per side, and what always-strong would have cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from routellm_core.checks import Side, checked_fraction, is_number, shown
from routellm_core.errors import ConfigurationError
from routellm_core.forks import fork_safe_lock
from routellm_core.policy.share import missed_share


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a model in one currency per million tokens.

    Attributes:
        input: Per million input tokens, >= 0.
        output: Per million output tokens, >= 0.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            value = getattr(self, name)
            if not is_number(value) or value < 0:
                raise ConfigurationError(
                    f"Price({name}={shown(value)}): expected money per million tokens, a number >= 0"
                )

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Money for that many tokens."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


@dataclass(frozen=True, slots=True)
class SideUsage:
    """What one side was used for; `cost` is None when no price is known, or none of its calls reported usage.

    Attributes:
        calls: Answers given by this side.
        input_tokens: Tokens read, of calls whose usage was reported.
        output_tokens: Tokens written, likewise.
        without_usage: Calls whose model reported no usage; they are in `calls` only.
        cost: Money, by the given price.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    without_usage: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class SavingsSummary:
    """Usage of both sides and the saving against always-strong.

    Attributes:
        strong: Usage of the strong side.
        weak: Usage of the weak side.
        strong_fraction: Share of calls answered by the strong side; None before the first call.
        failovers: Calls answered by the side that had not been decided on.
        cost: Money spent; None without prices, or where a side has calls and none of them reported usage.
        cost_always_strong: The same tokens at the strong model's price: an estimate, since the strong model's
            answers may be longer or shorter. None where `cost` is.
        saved: ``cost_always_strong - cost``; negative when routing cost more. None where `cost` is.
        saved_fraction: `saved` as a share of `cost_always_strong`; None where `cost` is, or without spending.
        estimated: Whether `saved` rests on tokens that were assumed: those of weak answers, priced as strong ones.
        wanted: The wanted share of strong calls, where it was named.
        other: Usage of models that answered in the place of both sides, such as a fallback outside of routing; no
            price is known for them.
    """

    strong: SideUsage
    weak: SideUsage
    strong_fraction: float | None
    failovers: int
    cost: float | None
    cost_always_strong: float | None
    saved: float | None
    saved_fraction: float | None
    estimated: bool = False
    wanted: float | None = None
    other: SideUsage = SideUsage()

    @property
    def without_usage(self) -> int:
        """Calls of both sides whose model reported no usage."""
        return self.strong.without_usage + self.weak.without_usage

    def to_dict(self) -> dict[str, Any]:
        """JSON values, nested per side."""
        return asdict(self)

    def table(self, remedy: str = "") -> str:
        """A small table in plain text for a terminal or a log.

        Args:
            remedy: What to do where calls reported no usage; stands behind the line that says how many did not.
        """
        rows = [("side", "calls", "input tokens", "output tokens", "cost")]
        sides = [("strong", self.strong), ("weak", self.weak), *([("other", self.other)] if self.other.calls else [])]
        for name, side in sides:
            rows.append(
                (
                    name,
                    str(side.calls),
                    str(side.input_tokens),
                    str(side.output_tokens),
                    _money(side.cost if side.calls else None),
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        if self.strong_fraction is not None:
            lines.append(f"strong share {self.strong_fraction:.1%}, failovers {self.failovers}")
        if self.saved is not None:
            share = "" if self.saved_fraction is None else f" ({self.saved_fraction:.1%})"
            lines.append(f"always strong {_money(self.cost_always_strong)}, saved {_money(self.saved)}{share}")
            if self.estimated:
                lines.append("estimated: the strong model's answers to the weak calls may be longer or shorter")
        if self.wanted is not None:
            calls = self.strong.calls + self.weak.calls
            lines += filter(None, [missed_share(self.wanted, self.strong.calls, calls)])
        if self.without_usage:
            those = "1 call" if self.without_usage == 1 else f"{self.without_usage} calls"
            lines.append(f"{those} reported no usage{remedy and f', {remedy}'}")
        if self.other.calls:
            lines.append("other: models that answered in the place of both sides; no price is known")
        return "\n".join(lines)


class SavingsLedger:
    """Counts usage per side; both adapters' counters record into one of these. Safe for threads.

    Args:
        prices: ``{"strong": Price(...), "weak": Price(...)}``, both or none; without it, money is None.
        strong_fraction: The wanted share of strong calls; the summary then says what to do when it is missed by far.

    Raises:
        ConfigurationError: `prices` does not name both sides, or `strong_fraction` is not a share.
    """

    def __init__(self, prices: Mapping[str, Price] | None = None, *, strong_fraction: float | None = None) -> None:
        if prices is not None and (
            set(prices) != {"strong", "weak"} or not all(isinstance(p, Price) for p in prices.values())
        ):
            raise ConfigurationError(
                f"prices={shown(prices)}: expected {{'strong': Price(input, output), 'weak': Price(input, output)}}"
            )
        self.prices = dict(prices) if prices is not None else None
        self.strong_fraction = None if strong_fraction is None else checked_fraction(strong_fraction, "strong_fraction")
        self._lock = fork_safe_lock(self, "_lock")
        self._counts = {"strong": [0, 0, 0, 0], "weak": [0, 0, 0, 0], "other": [0, 0, 0, 0]}
        self._failovers = 0

    def record(
        self, side: Side | None, input_tokens: int | None, output_tokens: int | None, *, failover: bool = False
    ) -> None:
        """Count one answer of `side`, or with None of another model; tokens are None when it reported no usage."""
        known = input_tokens is not None or output_tokens is not None
        with self._lock:
            counts = self._counts[side or "other"]
            counts[0] += 1
            counts[1] += input_tokens or 0
            counts[2] += output_tokens or 0
            counts[3] += not known
            self._failovers += failover

    def summary(self) -> SavingsSummary:
        """What was counted so far; a snapshot."""
        with self._lock:
            counts = {side: tuple(values) for side, values in self._counts.items()}
            failovers = self._failovers
        sides = {}
        for side, (calls, read, written, unknown) in counts.items():
            price = (self.prices or {}).get(side)
            cost = None if price is None or (calls and unknown == calls) else price.cost(read, written)
            sides[side] = SideUsage(calls, read, written, unknown, cost)
        strong, weak = sides["strong"], sides["weak"]
        calls = strong.calls + weak.calls
        cost = always = saved = share = None
        if self.prices is not None and strong.cost is not None and weak.cost is not None:
            cost = strong.cost + weak.cost
            always = strong.cost + self.prices["strong"].cost(weak.input_tokens, weak.output_tokens)
            saved = always - cost
            share = saved / always if always else None
        return SavingsSummary(
            strong,
            weak,
            strong.calls / calls if calls else None,
            failovers,
            cost,
            always,
            saved,
            share,
            estimated=saved is not None and weak.calls > 0,
            wanted=self.strong_fraction,
            other=sides["other"],
        )


def _money(value: float | None) -> str:
    if value is None:
        return "-"
    # small sums keep their leading digits: a hundred cheap calls are no 0.0000
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.6f}"
