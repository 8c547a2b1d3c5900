"""The traffic of an app as one HTML page: calls, money, latency, quality, drift, and what was learned when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from routellm_core.checks import Side
from routellm_core.log.rows import Day, LoggedPair, SideSummary, Spending, Total
from routellm_core.policy.savings import Price, price_of
from routellm_core.report.page import Cell, Row
from routellm_core.report.rendering import render

if TYPE_CHECKING:
    from routellm_core.log.database import TrafficDatabase

_SIDES: tuple[Side, Side] = ("strong", "weak")
# Failed shadow answers are not random: from this share on, pairs say little of the calls that lack one.
_MOST_FAILED = 0.10
# Users in the table, those who cost most first.
_USERS = 20
# The distance between two distributions of win rates that matters, and a test that it is not chance (at 1 %).
_DISTANCE, _KS = 0.1, 1.63


class Saving(NamedTuple):
    """Money saved against always strong.

    Attributes:
        value: For all calls of the period.
        low: Lower end of the 95 % interval; None for an estimate.
        high: Upper end.
        pairs: Calls of the weak model that it was measured on; 0 for an estimate.
    """

    value: float
    low: float | None = None
    high: float | None = None
    pairs: int = 0


def measured_saving(database: TrafficDatabase, prices: Mapping[str, Price], **period: Any) -> Saving | None:
    """What routing has saved against always strong, from calls of the weak model that strong has answered, too.

    Such pairs stand for all calls that the weak model answered, each by the inverse of its chance to be a pair. Calls
    that the strong model answered save nothing, whether or not they had a chance of a shadow answer, and lose what a
    weak answer that a check refused, or that failed, has cost before.

    Args:
        database: The log.
        prices: Prices by model or side, where the log has no costs of its own.
        **period: ``since`` and ``until``.

    Returns:
        The saving with its interval; None where fewer than two of these pairs have the costs of both answers, or
        the cost of such answers is not known.
    """
    spending = database.spending(**period)
    in_vain = [cost_of(row, prices) for row in spending if row.side == "weak" and row.kind in ("refused", "failed")]
    # failed answers saved nothing, and make no pair
    calls = sum(row.answers for row in spending if row.side == "weak" and row.kind == "routed")
    if None in in_vain:
        return None
    pairs = (pair for pair in database.pairs(**period) if pair.call.side == "weak")
    return _saving(pairs, calls, prices, lost=sum(cost for cost in in_vain if cost is not None))


def observed_saving(database: TrafficDatabase, prices: Mapping[str, Price], **period: Any) -> Saving | None:
    """What routing would have saved on calls that ``observe=`` sent to one side, measured on their pairs.

    Args:
        database: The log.
        prices: Prices by model or side, where the log has no costs of its own.
        **period: ``since`` and ``until``.

    Returns:
        The saving with its interval; None where fewer than two pairs of calls that would have been weak have the costs
        of both answers.
    """
    observed = database.summary(**period).observed
    if observed is None:
        return None
    pairs = (
        pair
        for pair in database.pairs(**period)
        if pair.call.reason == "observed" and pair.call.win_rate is not None
        and pair.call.win_rate < pair.call.threshold
    )  # fmt: skip
    return _saving(pairs, observed.calls - observed.strong, prices)


def _saving(
    pairs: Iterable[LoggedPair], calls: int, prices: Mapping[str, Price], *, lost: float = 0.0
) -> Saving | None:
    """What weak answers to so many calls save, by pairs that are a sample of them, less what was spent in vain."""
    saved, weights = [], []
    for pair in pairs:
        costs = {}
        for answer in (pair.strong, pair.weak):
            price = price_of(prices, answer.model, answer.side)
            if price is not None and answer.input_tokens is not None and answer.output_tokens is not None:
                costs[answer.side] = price.cost(answer.input_tokens, answer.output_tokens)
            elif answer.cost is not None:
                costs[answer.side] = answer.cost
        if len(costs) == 2 and pair.call.p_shadow > 0:
            saved.append(costs["strong"] - costs["weak"])
            weights.append(1 / pair.call.p_shadow)
    if len(saved) < 2:
        return None
    x, w = np.asarray(saved), np.asarray(weights)
    mean = float((w * x).sum() / w.sum())
    error = sqrt(float((w**2 * (x - mean) ** 2).sum())) / float(w.sum())
    value, low, high = (calls * (mean + end * error) - lost for end in (0.0, -1.96, 1.96))
    return Saving(value, low, high, len(saved))


def estimated_saving(spending: Sequence[Spending], prices: Mapping[str, Price]) -> Saving | None:
    """What routing would have saved if the strong model used the same tokens: only an estimate of its answers."""
    strong = next(
        (price for row in spending if row.side == "strong" and (price := price_of(prices, row.model, "strong"))),
        prices.get("strong"),
    )
    if strong is None:
        return None
    value = 0.0
    for row in spending:
        if row.side == "weak" and row.kind != "shadow":
            cost = cost_of(row, prices)
            if cost is None:
                return None
            # an answer that a check refused saves nothing: the strong model's is paid for, too
            instead = strong.cost(row.input_tokens, row.output_tokens) if row.kind == "routed" else 0.0
            value += instead - cost
    return Saving(value)


def unused_prices(prices: Mapping[str, Price], spending: Sequence[Spending]) -> list[str]:
    """The names among prices that no answer goes by: misspelt, or of models that did not answer."""
    models = {(row.model, row.side) for row in spending}
    return [
        name for name, price in prices.items() if all(price_of({name: price}, *answer) is None for answer in models)
    ]


def cost_of(row: Spending, prices: Mapping[str, Price]) -> float | None:
    """Money, by a price that is given, else as the log has it."""
    price = price_of(prices, row.model, row.side)
    return row.cost if price is None else price.cost(row.input_tokens, row.output_tokens)


def drift_sentence(days: Sequence[Day]) -> str | None:
    """Whether the win rates of the last quarter of the days differ from those before; None for too little traffic."""
    if len(days) < 4:
        return None
    cut = len(days) - max(1, len(days) // 4)
    before, after = (np.sum([day.win_rates for day in part], axis=0) for part in (days[:cut], days[cut:]))
    n, m = int(before.sum()), int(after.sum())
    if min(n, m) < 200:
        return None
    distance = float(np.abs(np.cumsum(before) / n - np.cumsum(after) / m).max())
    since = _day(days[cut].start)
    if distance >= _DISTANCE and distance > _KS * sqrt((n + m) / (n * m)):
        return (
            f"The win rates since {since} differ from those before (largest distance {distance:.2f}): calibrate on "
            "the latest traffic, and learn again."
        )
    return f"The win rates since {since} are like those before (largest distance {distance:.2f})."


def traffic_page(
    database: TrafficDatabase,
    *,
    prices: Mapping[str, Price] | None = None,
    currency: str = "",
    key: str = "score",
    **period: Any,
) -> str:
    """The traffic of a log as one self-contained HTML page.

    Args:
        database: The log.
        prices: Prices by model or by ``"strong"`` and ``"weak"``; without, costs are those that the log has stored.
        currency: Unit of the prices and costs, such as ``"USD"``.
        key: Which feedback is quality.
        **period: ``since`` and ``until``.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    prices = prices or {}
    summary, days = database.summary(**period), database.days(**period)
    spending = database.spending(**period)
    scores = database.scores_by_day(key=key, **period)
    learned = (database.load_state("learn") or {}).get("history", [])
    shadows = sum(side.shadows for side in summary.sides.values())
    failed = sum(side.shadow_errors for side in summary.sides.values())
    measured, estimated = measured_saving(database, prices, **period), estimated_saving(spending, prices)

    def amount(value: float) -> str:
        return f"{_money(value)} {currency}".rstrip()

    return render(
        "traffic.html.jinja",
        title="Traffic report",
        summary=summary,
        first=None if summary.first is None else _day(summary.first),
        last=None if summary.last is None else _day(summary.last),
        failed=f"{failed / shadows:.0%}" if shadows and failed / shadows > _MOST_FAILED else None,
        amount=amount,
        currency=currency,
        cost=f"cost, {currency}" if currency else "cost",
        measured=measured,
        observed=observed_saving(database, prices, **period),
        estimated=estimated,
        saving_bars=_saving_bars(spending, prices, measured or estimated, amount),
        money=_money_rows(spending, prices),
        users=_user_rows(database.totals("user", prices=prices or None, **period)),
        sides=[_side_row(side, summary.sides[side]) for side in _SIDES],
        bars=_bars(days),
        days=_day_rows(days, spending, scores, prices),
        drift=drift_sentence(days),
        versions=[
            Row(name, [Cell(f"{count:,}"), Cell(_day(begun)), Cell(_day(ended))])
            for name, count, begun, ended in database.versions(**period)
        ],
        learned=[_learned_row(entry) for entry in learned if isinstance(entry, Mapping)],
        dropped=sorted(summary.dropped.items()),
    )


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def _money(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _side_row(side: Side, used: SideSummary) -> Row:
    latency = [Cell(_seconds(value)) for value in used.latency] if used.latency else [Cell("–")] * 3
    return Row(
        side, [Cell(f"{used.calls:,}"), Cell(f"{used.errors:,}"), *latency, Cell(f"{used.shadows:,}"),
               Cell(f"{used.shadow_errors:,}")],
    )  # fmt: skip


def _money_rows(spending: Sequence[Spending], prices: Mapping[str, Price]) -> list[Row]:
    sums: dict[tuple[str, str, str], list[Any]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for row in spending:
        total = sums[row.side, row.model or "unknown", row.kind]
        cost = cost_of(row, prices)
        total[0] += row.answers
        total[1] += row.input_tokens
        total[2] += row.output_tokens
        total[3] = None if cost is None or total[3] is None else total[3] + cost
    return [
        Row(
            f"{side}: {model}",
            [
                Cell(kind),
                *(Cell(f"{n:,}") for n in (count, read, written)),
                Cell(_money(cost)),
            ],
        )
        for (side, model, kind), (count, read, written, cost) in sorted(sums.items())
    ]


def _user_rows(totals: Sequence[Total]) -> list[Row]:
    """The users who cost most; empty where no user is known."""
    if all(total.key is None for total in totals):
        return []
    rows = [
        Row(
            total.key or "unknown",
            [Cell(f"{n:,}") for n in (total.answers, total.refused, total.input_tokens, total.output_tokens)]
            + [Cell(_money(total.cost))],
        )
        for total in totals[:_USERS]
    ]
    rest = totals[_USERS:]
    if rest:
        costs = [total.cost for total in rest if total.cost is not None]
        sums = [sum(getattr(t, n) for t in rest) for n in ("answers", "refused", "input_tokens", "output_tokens")]
        cells = [Cell(f"{n:,}") for n in sums] + [Cell(_money(sum(costs) if costs else None))]
        rows.append(Row(f"{len(rest):,} others", cells))
    return rows


def _day_rows(
    days: Sequence[Day],
    spending: Sequence[Spending],
    scores: Sequence[tuple[float, Side, float, int]],
    prices: Mapping[str, Price],
) -> list[Row]:
    costs: dict[float, float | None] = defaultdict(float)
    for used in spending:
        cost, before = cost_of(used, prices), costs[used.start]
        costs[used.start] = None if cost is None or before is None else before + cost
    quality = {(start, side): (mean, count) for start, side, mean, count in scores}
    rows = []
    for day in days:
        cells = [Cell(f"{day.calls:,}"), Cell(f"{day.strong / day.calls:.0%}")]
        cost = costs[day.start]
        cells.append(Cell(_money(cost)))
        for side in _SIDES:
            found = quality.get((day.start, side))
            cells.append(Cell(f"{found[0]:.2f}", f"{found[1]:,} scores") if found else Cell("–"))
        rows.append(Row(_day(day.start), cells))
    return rows


def _bars(days: Sequence[Day]) -> dict[str, Any] | None:
    """Calls by day as bars, the strong ones at the bottom."""
    if not days:
        return None
    width, height, most = 480.0, 120.0, max(day.calls for day in days)
    step = width / len(days)
    bars = []
    for i, day in enumerate(days):
        whole, strong = (height * count / most for count in (day.calls, day.strong))
        bars.append(
            {
                "x": f"{i * step:.1f}", "width": f"{max(1.0, 0.8 * step):.1f}",
                "weak_y": f"{height - whole:.1f}", "weak_height": f"{whole - strong:.1f}",
                "strong_y": f"{height - strong:.1f}", "strong_height": f"{strong:.1f}",
                "words": f"{_day(day.start)}: {day.calls:,} calls, {day.strong / day.calls:.0%} strong",
            }
        )  # fmt: skip
    return {"bars": bars, "first": _day(days[0].start), "last": _day(days[-1].start), "most": f"{most:,}"}


def _saving_bars(
    spending: Sequence[Spending], prices: Mapping[str, Price], saving: Saving | None, amount: Callable[[float], str]
) -> dict[str, str] | None:
    """What the routed calls have cost beside what the strong model alone would have; None without all costs.

    Shadow answers are left out: they are the price of learning, and no part of routing.
    """
    paid = dict.fromkeys(_SIDES, 0.0)
    for row in spending:
        if row.kind != "shadow":
            cost = cost_of(row, prices)
            if cost is None:
                return None
            paid[row.side] += cost
    routed = sum(paid.values())
    if saving is None or routed + saving.value <= 0:
        return None
    always = routed + saving.value
    ends = [] if saving.low is None or saving.high is None else [routed + saving.low, routed + saving.high]
    scale = 479.0 / max(routed, always, *ends)
    basis = "measured" if saving.pairs else "estimated"
    low, high = (f"{max(0.0, scale * end):.1f}" for end in ends) if ends else ("", "")
    return {
        "routed": amount(routed),
        "always": amount(always),
        "basis": basis,
        "words": f"cost as routed {amount(routed)}, always strong {amount(always)}, {basis}",
        "strong_width": f"{scale * paid['strong']:.1f}",
        "weak_width": f"{scale * paid['weak']:.1f}",
        "always_width": f"{scale * always:.1f}",
        "low": low,
        "high": high,
    }


def _learned_row(entry: Mapping[str, Any]) -> Row:
    moment = entry.get("at")
    pairs = entry.get("pairs")
    return Row(
        _day(float(moment)) if isinstance(moment, int | float) else "–",
        [Cell(f"{pairs:,}" if isinstance(pairs, int) else "–"), Cell(str(entry.get("sentence") or ""))],
        kind="prose",
    )
