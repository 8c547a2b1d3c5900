"""Savings: calls, tokens and money per side and per model, and what always-strong would have cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, TypeAlias

from routellm_core.checks import Side, checked_fraction, is_number, shown
from routellm_core.errors import ConfigurationError
from routellm_core.forks import fork_safe_lock
from routellm_core.policy.share import missed_share

# Why an answer that was paid for is thrown away: a check refused it, or the attempt failed.
Discarded: TypeAlias = Literal["refused", "failed"]


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


# What providers append to the name of a model in its answers: a date, a short number, or "latest".
_VERSION = re.compile(r"[-@](?:\d{3,4}|\d{8}|\d{4}-\d\d-\d\d|latest)$")


def checked_prices(prices: Any) -> dict[str, Price] | None:
    """The prices of an option ``prices=``; a pair of numbers counts as a `Price`.

    Raises:
        ConfigurationError: They are not prices by model, or by ``"strong"`` and ``"weak"``.
    """
    if prices is None:
        return None
    out: dict[str, Price] = {}
    for model, price in prices.items() if isinstance(prices, Mapping) else ():
        if isinstance(price, list | tuple) and len(price) == 2:
            price = Price(*price)
        if isinstance(model, str) and isinstance(price, Price):
            out[model] = price
    if not isinstance(prices, Mapping) or len(out) != len(prices):
        raise ConfigurationError(
            f"prices={shown(prices)}: expected a Price, such as Price(2.0, 8.0), for each model's name, or for "
            "'strong' and 'weak'"
        )
    return out


def price_of(prices: Mapping[str, Price], model: str | None, side: str) -> Price | None:
    """The price of an answer: that of its model, else of its side.

    A model's name counts with or without the provider before it and the version that providers append.

    Args:
        prices: Prices by model name, or by ``"strong"`` and ``"weak"``.
        model: Name of the model that answered, as the answer states it; None when unknown.
        side: The side that answered.
    """
    if model is None:
        return prices.get(side)
    # the whole name wins over what is left of it without the provider
    for name in (model, model.rpartition("/")[2]):
        found = prices.get(name) or prices.get(_VERSION.sub("", name))
        if found is not None:
            return found
    return prices.get(side)


@dataclass(frozen=True, slots=True)
class Spent:
    """What the model runs behind one answer have used together.

    Attributes:
        side: The side that was called.
        model: Name of the model that wrote the answer; None where it is unknown.
        input_tokens: Tokens read; None where no model reports any.
        output_tokens: Tokens written, likewise.
        cost: Money; None where the price or the tokens of one of the runs are unknown.
    """

    side: Side
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None

    @classmethod
    def sum(cls, side: Side, runs: Sequence[Spent]) -> Self:
        """Several of them as one; the last one has written the answer."""
        costs = [run.cost for run in runs if run.cost is not None]
        return cls(
            side,
            next((run.model for run in reversed(runs) if run.model is not None), None),
            _known_sum(run.input_tokens for run in runs),
            _known_sum(run.output_tokens for run in runs),
            sum(costs) if costs and len(costs) == len(runs) else None,
        )


def _known_sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


class CallCost:
    """What one call uses and costs: the answer that stands, and what was paid for and thrown away.

    Args:
        prices: As for `price_of`; without them, only tokens are counted.

    Attributes:
        discarded: Answers that a check refused, and attempts that failed after a model had been paid, in their order.
    """

    __slots__ = ("_prices", "_runs", "discarded")

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self._prices = prices
        self._runs: list[Spent] = []
        self.discarded: list[tuple[Discarded, Spent]] = []

    def add(self, side: Side, model: str | None, input_tokens: int | None, output_tokens: int | None) -> None:
        """Count a model run; tokens are None where its model reports none."""
        price = None if self._prices is None else price_of(self._prices, model, side)
        cost = None
        if price is not None and not (input_tokens is None and output_tokens is None):
            cost = price.cost(input_tokens or 0, output_tokens or 0)
        self._runs.append(Spent(side, model, input_tokens, output_tokens, cost))

    def discard(self, kind: Discarded, side: Side, *, last: int | None = None, model: str | None = None) -> int:
        """Note that an answer is thrown away.

        Args:
            kind: Why. Nothing is noted of a failure that no model was paid for.
            side: The side that gave it.
            last: How many of the latest model runs were made for it; None is all that are not thrown away yet.
            model: Its model, where the runs do not tell.

        Returns:
            How many model runs were made for it.
        """
        first = 0 if last is None else max(len(self._runs) - last, 0)
        runs = self._runs[first:]
        del self._runs[first : first + len(runs)]  # another thread may add one meanwhile
        if runs or kind == "refused":
            spent = Spent.sum(side, runs)
            self.discarded.append((kind, spent if spent.model else replace(spent, model=model)))
        return len(runs)

    @property
    def answer(self) -> Spent | None:
        """What the answer that stands has used; None where no model run is known."""
        return Spent.sum(self._runs[-1].side, self._runs) if self._runs else None

    def whole(self, side: Side) -> Spent:
        """All that the call has used, as spent by one side."""
        return Spent.sum(side, [*(spent for _, spent in self.discarded), *self._runs])

    @property
    def total(self) -> float | None:
        """Money so far; None where there was no answer yet, or the cost of one is not known."""
        return self.whole("strong").cost


@dataclass(frozen=True, slots=True)
class SideUsage:
    """What a side or a model was used for; `cost` is None when no price is known, or none of its calls reported usage.

    Attributes:
        calls: Answers given.
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
        strong: Usage of the strong side; where routed models are nested, that of the outermost one.
        weak: Usage of the weak side, likewise.
        strong_fraction: Share of calls answered by the strong side; None before the first call.
        failovers: Calls answered by the side that had not been decided on.
        cost: Money spent; None without prices, or where a side has calls and none of them reported usage.
        cost_always_strong: The same tokens at the strong model's price, where routed models are nested the top one's:
            an estimate, since the strong model's answers may be longer or shorter. None where `cost` is.
        saved: ``cost_always_strong - cost``; negative when routing cost more. None where `cost` is.
        saved_fraction: `saved` as a share of `cost_always_strong`; None where `cost` is, or without spending.
        estimated: Whether `saved` rests on tokens that were assumed: those of weak answers, priced as strong ones.
        wanted: The wanted share of strong calls, where it was named.
        other: Usage of models that answered in the place of both sides, such as a fallback outside of routing; no
            price is known for them.
        models: Usage of each model that answered, by its name.
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
    models: Mapping[str, SideUsage] = field(default_factory=dict)

    @property
    def without_usage(self) -> int:
        """Calls of both sides whose model reported no usage."""
        return self.strong.without_usage + self.weak.without_usage

    def to_dict(self) -> dict[str, Any]:
        """JSON values, nested per side and per model."""
        return asdict(self)

    def table(self, remedy: str = "") -> str:
        """A small table in plain text for a terminal or a log.

        Args:
            remedy: What to do where calls reported no usage; stands behind the line that says how many did not.
        """
        rows = [("side", "calls", "input tokens", "output tokens", "cost")]
        sides = [("strong", self.strong), ("weak", self.weak), *([("other", self.other)] if self.other.calls else [])]
        # two models are their two sides
        models = [(f"  {name}", self.models[name]) for name in sorted(self.models)] if len(self.models) > 2 else []
        for name, side in [*sides, *models]:
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


@dataclass(slots=True)
class _Count:
    """What was counted of one model on one side."""

    calls: int = 0
    read: int = 0
    written: int = 0
    unknown: int = 0
    is_top: bool = False


class SavingsLedger:
    """Counts usage per side and per model; both adapters' counters record into one of these. Safe for threads.

    Args:
        prices: ``{"strong": Price(...), "weak": Price(...)}``, both or none; or a `Price` for each model by its name,
            which nested routed models need. Without it, money is None.
        strong_fraction: The wanted share of strong calls; the summary then says what to do when it is missed by far.

    Raises:
        ConfigurationError: `prices` names neither both sides nor models, or `strong_fraction` is not a share.
    """

    def __init__(self, prices: Mapping[str, Price] | None = None, *, strong_fraction: float | None = None) -> None:
        if prices is not None and not (
            isinstance(prices, Mapping)
            and prices
            and (set(prices) == {"strong", "weak"} or {"strong", "weak"}.isdisjoint(prices))
            and all(isinstance(name, str) and isinstance(price, Price) for name, price in prices.items())
        ):
            raise ConfigurationError(
                f"prices={shown(prices)}: expected {{'strong': Price(input, output), 'weak': Price(input, output)}}, "
                "or a Price for each model by its name"
            )
        self.prices = dict(prices) if prices is not None else None
        self.strong_fraction = None if strong_fraction is None else checked_fraction(strong_fraction, "strong_fraction")
        self._lock = fork_safe_lock(self, "_lock")
        self._counts: dict[tuple[str, str | None], _Count] = {}
        self._failovers = 0

    def record(
        self,
        side: Side | None,
        input_tokens: int | None,
        output_tokens: int | None,
        *,
        failover: bool = False,
        model: str | None = None,
        is_top: bool | None = None,
    ) -> None:
        """Count one answer.

        Args:
            side: The side that answered, of nested routed models that of the outermost one; None is another model.
            input_tokens: Tokens read; None where the model reports none.
            output_tokens: Tokens written, likewise.
            failover: Whether the side was not the one that had been decided on.
            model: Name of the model; None where it is unknown.
            is_top: Whether it is the model that always-strong would use; None where that is the strong side.
        """
        with self._lock:
            count = self._counts.setdefault((side or "other", model), _Count())
            count.calls += 1
            count.read += input_tokens or 0
            count.written += output_tokens or 0
            count.unknown += input_tokens is None and output_tokens is None
            count.is_top = side == "strong" if is_top is None else is_top
            self._failovers += failover

    def summary(self) -> SavingsSummary:
        """What was counted so far; a snapshot."""
        with self._lock:
            counts = {key: replace(count) for key, count in self._counts.items()}
            failovers = self._failovers
        strong, weak, other = (
            self._usage({key: count for key, count in counts.items() if key[0] == side})
            for side in ("strong", "weak", "other")
        )
        names = {name for _, name in counts if name is not None}
        calls = strong.calls + weak.calls
        cost = always = saved = share = None
        if strong.cost is not None and weak.cost is not None:
            cost = strong.cost + weak.cost
            always = self._always_strong({key: count for key, count in counts.items() if key[0] != "other"})
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
            estimated=saved is not None
            and any(count.calls and not count.is_top for (side, _), count in counts.items() if side != "other"),
            wanted=self.strong_fraction,
            other=replace(other, cost=None),
            models={name: self._usage({key: c for key, c in counts.items() if key[1] == name}) for name in names},
        )

    def _price(self, side: str, model: str | None) -> Price | None:
        return price_of(self.prices or {}, model, side)

    def _usage(self, counts: Mapping[tuple[str, str | None], _Count]) -> SideUsage:
        calls, read, written, unknown = (
            sum(getattr(count, name) for count in counts.values()) for name in ("calls", "read", "written", "unknown")
        )
        priced = [(self._price(*key), count) for key, count in counts.items()]
        cost = None
        if self.prices is not None and not (calls and unknown == calls):
            costs = [None if price is None else price.cost(count.read, count.written) for price, count in priced]
            cost = None if None in costs else sum(filter(None, costs))
        return SideUsage(calls, read, written, unknown, cost)

    def _always_strong(self, counts: Mapping[tuple[str, str | None], _Count]) -> float:
        """Money for all tokens at the price of the top model, as far as it is known which one that is."""
        read, written = (sum(getattr(count, name) for count in counts.values()) for name in ("read", "written"))
        prices = self.prices or {}
        tops = [self._price(side, model) for (side, model), count in counts.items() if count.is_top]
        candidates: Iterable[Price | None] = tops or ([prices["strong"]] if "strong" in prices else prices.values())
        return max(price.cost(read, written) for price in candidates if price is not None)


def _money(value: float | None) -> str:
    if value is None:
        return "-"
    # small sums keep their leading digits: a hundred cheap calls are no 0.0000
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.6f}"
