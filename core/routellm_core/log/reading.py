"""What is asked of a traffic log, as queries: in pages of short transactions, or as sums of the database's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Integer, Select, and_, cast, exists, func, not_, or_, select
from sqlalchemy.sql.elements import ColumnElement

from routellm_core.checks import Side
from routellm_core.log.rows import (
    SKIPPED_SHADOWS,
    Day,
    Feedback,
    Label,
    LoggedAnswer,
    LoggedCall,
    LoggedOutcome,
    LoggedPair,
    Observed,
    SideSummary,
    Spending,
    Total,
    TotalBy,
    TrafficSummary,
)
from routellm_core.log.schema import answers, calls, meta
from routellm_core.log.schema import discarded as discarded_table
from routellm_core.log.schema import feedback as feedback_table
from routellm_core.log.schema import labels as labels_table
from routellm_core.policy.savings import Price, price_of

# Rows of a transaction: a reader held open would let SQLite's journal grow without end.
_PAGE = 2000
# Values of an IN list; SQLite allows 32,766 parameters.
_MOST_VALUES = 500
_SIDES: tuple[Side, Side] = ("strong", "weak")
# keys of the meta table that count what was lost, by cause
DROPPED = "dropped:"

Opened = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` on and before `until`, in seconds since 1970; None is open."""

    since: float | None = None
    until: float | None = None

    def holds(self, column: Any) -> ColumnElement[bool]:
        """The condition on a column of times."""
        bounds = []
        if self.since is not None:
            bounds.append(column >= self.since)
        if self.until is not None:
            bounds.append(column < self.until)
        return and_(True, *bounds)


# --- rows ---


def calls_of(
    opened: Opened, where: ColumnElement[bool], *, newest_first: bool = False, limit: int | None = None
) -> Iterator[list[LoggedCall]]:
    """Pages of the calls that a condition holds for, by time."""
    order = (calls.c.created.desc(), calls.c.id.desc()) if newest_first else (calls.c.created, calls.c.id)
    last: LoggedCall | None = None
    left = limit
    while left is None or left > 0:
        query = select(calls).where(where).order_by(*order).limit(_PAGE if left is None else min(left, _PAGE))
        if last is not None:
            query = query.where(_after(last, newest_first=newest_first))
        with opened() as connection:
            page = [_call(row) for row in connection.execute(query)]
        if not page:
            return
        yield page
        last = page[-1]
        left = None if left is None else left - len(page)


def _after(last: LoggedCall, *, newest_first: bool) -> ColumnElement[bool]:
    """Beyond the last call of a page; the first condition lets the index be used."""
    created, call = calls.c.created, calls.c.id
    if newest_first:
        return (created <= last.created) & or_(created < last.created, call < last.id)
    return (created >= last.created) & or_(created > last.created, call > last.id)


def _call(row: Any) -> LoggedCall:
    # the columns of the table are the attributes, in their order
    call = LoggedCall(*row)
    if call.vector is None:
        return call
    return replace(call, vector=np.frombuffer(row.vector, dtype="<f2").astype(np.float32))


def calls_in(
    opened: Opened, period: Period, *, app: str | None, newest_first: bool, limit: int | None
) -> Iterator[LoggedCall]:
    """The calls of a period, one by one."""
    where = period.holds(calls.c.created)
    if app is not None:
        where = where & (calls.c.app == app)
    for page in calls_of(opened, where, newest_first=newest_first, limit=limit):
        yield from page


def pairs(opened: Opened, period: Period, *, without_label: bool, labeller: str | None) -> Iterator[LoggedPair]:
    """The pairs of a period, one by one."""
    shadow = answers.alias()
    condition = exists().where(shadow.c.call_id == calls.c.id, *_makes_a_pair(shadow))
    where = period.holds(calls.c.created) & condition
    if without_label:
        where = where & ~_has_label(calls.c.id, labeller)
    for page in calls_of(opened, where):
        by_call = _answers(opened, [call.id for call in page])
        for call in page:
            both = by_call[call.id]
            yield LoggedPair(call, both["strong"], both["weak"])


def _makes_a_pair(shadow: Any) -> tuple[ColumnElement[bool], ...]:
    """Conditions on a shadow answer: it and the answer that the user got are none of them failures."""
    other = answers.alias()
    routed = exists().where(other.c.call_id == shadow.c.call_id, other.c.side != shadow.c.side, other.c.error.is_(None))
    return shadow.c.kind == "shadow", shadow.c.error.is_(None), routed


def _has_label(call_id: Any, labeller: str | None) -> ColumnElement[bool]:
    found = exists().where(labels_table.c.call_id == call_id)
    return found if labeller is None else found.where(labels_table.c.labeller == labeller)


def count_pairs(connection: Connection, period: Period, *, without_label: bool, labeller: str | None) -> int:
    """How many pairs there are, by the index of shadow answers."""
    shadow = answers.alias()
    query = select(func.count()).select_from(shadow).where(*_makes_a_pair(shadow))
    if period != Period():
        query = query.join(calls, calls.c.id == shadow.c.call_id).where(period.holds(calls.c.created))
        # no answer comes before its call, and answers have an index by time
        query = query.where(Period(period.since).holds(shadow.c.created))
    if without_label:
        query = query.where(not_(_has_label(shadow.c.call_id, labeller)))
    return connection.scalar(query) or 0


def outcomes(
    opened: Opened, period: Period, *, key: str, source: str | None, labeller: str | None
) -> Iterator[LoggedOutcome]:
    """The calls of a period with their answers and scores, one by one."""
    external = _external_scores(opened, key, source)
    for page in calls_of(opened, period.holds(calls.c.created)):
        ids = [call.id for call in page]
        given = _answers(opened, ids)
        scored = _scores(opened, ids, key, source)
        labelled = _labels_of(opened, ids, labeller)
        for call in page:
            label = labelled.get(call.id)
            if label is not None:
                scores: dict[Side, float] = {"strong": label.strong_score, "weak": label.weak_score}
            else:
                told = defaultdict(list)
                for side, score in [*scored.get(call.id, ()), *external.get(call.id, ())]:
                    told[side or call.side].append(score)
                scores = {side: sum(values) / len(values) for side, values in told.items()}
            yield LoggedOutcome(call, given.get(call.id, {}), scores)


def _answers(opened: Opened, ids: Sequence[str]) -> dict[str, dict[Side, LoggedAnswer]]:
    out: dict[str, dict[Side, LoggedAnswer]] = defaultdict(dict)
    # up to version 1.2 of the tables an answer that a check refused stands here, for its cost alone
    for row in _by_values(opened, select(answers).where(answers.c.kind != "refused"), answers.c.call_id, ids):
        answer = LoggedAnswer(*row)
        out[answer.call_id][answer.side] = answer
    return out


def _scores(
    opened: Opened, ids: Sequence[str], key: str, source: str | None
) -> dict[str, list[tuple[Side | None, float]]]:
    table = feedback_table
    query = select(table.c.call_id, table.c.side, table.c.score).where(table.c.key == key)
    if source is not None:
        query = query.where(table.c.source == source)
    out: dict[str, list[tuple[Side | None, float]]] = defaultdict(list)
    for call_id, side, score in _by_values(opened, query, table.c.call_id, ids):
        out[call_id].append((side, score))
    return out


def _labels_of(opened: Opened, ids: Sequence[str], labeller: str | None) -> dict[str, Label]:
    """One label of each call: of the labeller that is named, else gold before any other."""
    query = select(labels_table)
    if labeller is not None:
        query = query.where(labels_table.c.labeller == labeller)
    out: dict[str, Label] = {}
    for row in _by_values(opened, query, labels_table.c.call_id, ids):
        label = Label(*row)
        before = out.get(label.call_id)
        if before is None or _rank(label) < _rank(before):
            out[label.call_id] = label
    return out


def _rank(label: Label) -> tuple[bool, float]:
    return label.labeller != "gold", -label.created


def labels(opened: Opened, labeller: str | None) -> Iterator[Label]:
    """All labels, by call."""
    table = labels_table
    query = select(table).order_by(table.c.call_id, table.c.labeller)
    if labeller is not None:
        query = query.where(table.c.labeller == labeller)
    for row in _paged(opened, query, (table.c.call_id, table.c.labeller)):
        yield Label(*row)


def feedback(opened: Opened, period: Period) -> Iterator[Feedback]:
    """All feedback, by its id; what came with a foreign id has that of its call where there is one."""
    table = feedback_table
    query = select(
        table.c.id, table.c.score, table.c.key, table.c.source, table.c.call_id, table.c.external_id, table.c.side,
        table.c.created,
    ).where(period.holds(table.c.created)).order_by(table.c.id)  # fmt: skip
    for page in _pages(opened, query, (table.c.id,)):
        rows = [Feedback(*row) for row in page]
        known = known_calls(opened, {row.call_id for row in rows if row.call_id})
        joined = _calls_of_runs(opened, {r.external_id for r in rows if r.call_id not in known and r.external_id})
        for row in rows:
            call = None if row.call_id in known else joined.get(row.external_id or "")
            yield row if call is None else replace(row, call_id=call)


def _external_scores(opened: Opened, key: str, source: str | None) -> dict[str, list[tuple[Side | None, float]]]:
    """Scores that came with the id of a run or trace, by the call that this id means."""
    table = feedback_table
    query = (
        select(table.c.id, table.c.external_id, table.c.side, table.c.score)
        .where(table.c.external_id.is_not(None), table.c.key == key)
        .where(~exists().where(calls.c.id == table.c.call_id))
        .order_by(table.c.id)
    )
    if source is not None:
        query = query.where(table.c.source == source)
    out: dict[str, list[tuple[Side | None, float]]] = defaultdict(list)
    for page in _pages(opened, query, (table.c.id,)):
        joined = _calls_of_runs(opened, {row.external_id for row in page})
        for row in page:
            if row.external_id in joined:
                out[joined[row.external_id]].append((row.side, row.score))
    return out


def known_calls(opened: Opened, ids: set[str]) -> set[str]:
    """Which of these are ids of calls."""
    return {row.id for row in _by_values(opened, select(calls.c.id), calls.c.id, sorted(ids))}


def _calls_of_runs(opened: Opened, ids: set[str]) -> dict[str, str]:
    """The call that the id of a run means: its own run, else the run around it, else the whole trace.

    Of several calls in one run it is the last: what was judged is what the run ended with.
    """
    out: dict[str, str] = {}
    for column in (calls.c.run_id, calls.c.parent_run_id, calls.c.trace_id):
        missing = sorted(ids - out.keys())
        query = select(column, calls.c.id, calls.c.created)
        last: dict[str, tuple[float, str]] = {}
        for run, call, created in _by_values(opened, query, column, missing):
            last[run] = max(last.get(run, (created, call)), (created, call))
        out.update({run: call for run, (_, call) in last.items()})
    return out


def _by_values(opened: Opened, query: Select[Any], column: Any, values: Sequence[str]) -> Iterator[Any]:
    for start in range(0, len(values), _MOST_VALUES):
        with opened() as connection:
            rows = connection.execute(query.where(column.in_(values[start : start + _MOST_VALUES]))).all()
        yield from rows


def _paged(opened: Opened, query: Select[Any], keys: tuple[Any, ...]) -> Iterator[Any]:
    for page in _pages(opened, query, keys):
        yield from page


def _pages(opened: Opened, query: Select[Any], keys: tuple[Any, ...]) -> Iterator[Sequence[Any]]:
    """Pages of a query that is ordered by `keys`, which are among its columns and tell its rows apart."""
    page: Sequence[Any] = ()
    while True:
        part = query.limit(_PAGE)
        if page:
            part = part.where(_beyond(keys, page[-1]))
        with opened() as connection:
            page = connection.execute(part).all()
        if not page:
            return
        yield page


def _beyond(keys: tuple[Any, ...], row: Any) -> ColumnElement[bool]:
    first, *rest = keys
    value = getattr(row, first.name)
    after: ColumnElement[bool] = first > value
    return (first >= value) & or_(after, _beyond(tuple(rest), row)) if rest else after


# --- sums ---


def summary(connection: Connection, period: Period) -> TrafficSummary:
    """What the log holds of a period."""
    by_reason: dict[str, int] = defaultdict(int)
    by_side: dict[str, int] = defaultdict(int)
    query = (
        select(calls.c.side, calls.c.reason, func.count(), func.min(calls.c.created), func.max(calls.c.created))
        .where(period.holds(calls.c.created))
        .group_by(calls.c.side, calls.c.reason)
    )
    first = last = None
    for side, reason, count, begun, ended in connection.execute(query):
        by_side[side] += count
        by_reason[reason] += count
        first = begun if first is None else min(first, begun)
        last = ended if last is None else max(last, ended)
    total = sum(by_side.values())
    lost = dropped(connection)
    return TrafficSummary(
        calls=total,
        strong_fraction=by_side["strong"] / total if total else None,
        pairs=count_pairs(connection, period, without_label=False, labeller=None),
        pairs_without_label=count_pairs(connection, period, without_label=True, labeller=None),
        labels=_count(connection, labels_table, period),
        feedback=_count(connection, feedback_table, period),
        sides=_sides(connection, period),
        observed=_observed(connection, period),
        reasons=dict(sorted(by_reason.items(), key=lambda item: -item[1])),
        skipped_shadows=lost.pop(SKIPPED_SHADOWS, 0),
        dropped=lost,
        first=first,
        last=last,
    )


def _observed(connection: Connection, period: Period) -> Observed | None:
    """What would have been decided where one side answered whatever the win rate."""
    c = calls.c
    query = select(func.count(), func.count().filter(c.win_rate >= c.threshold)).where(
        period.holds(c.created), c.reason == "observed"
    )
    count, strong = connection.execute(query).one()
    return Observed(count, strong) if count else None


def dropped(connection: Connection) -> dict[str, int]:
    """What could not be logged since the log exists, by cause."""
    rows = connection.execute(select(meta.c.key, meta.c.value).where(meta.c.key.like(f"{DROPPED}%")))
    return {key.removeprefix(DROPPED): int(value) for key, value in rows}


def _count(connection: Connection, table: Any, period: Period) -> int:
    return connection.scalar(select(func.count()).select_from(table).where(period.holds(table.c.created))) or 0


def _sums(
    connection: Connection,
    period: Period,
    keys: Callable[[Any], Sequence[Any]],
    *,
    by_user: bool = False,
    by_call: bool = False,
) -> Iterator[Sequence[Any]]:
    """Sums over answers, failures apart, and over what is thrown away, grouped by `keys` of the table's columns.

    Args:
        connection: The database.
        period: When the answers were complete; with `by_call`, when their calls were decided.
        keys: Gives the columns to group by.
        by_user: Whether `keys` takes columns of the calls.
        by_call: Whether the period is one of calls.

    Yields:
        The keys, then counts of rows, of tokens and of costs that are known, then tokens read, written, and money.
    """
    for table in (answers, discarded_table):
        c = table.c
        group = keys(c)
        query = select(
            *group, func.count(), func.count(c.input_tokens), func.count(c.cost), func.sum(c.input_tokens),
            func.sum(c.output_tokens), func.sum(c.cost),
        ).where(period.holds(calls.c.created if by_call else c.created)).group_by(*group)  # fmt: skip
        if table is answers:
            query = query.where(answers.c.error.is_(None))
        if by_user or by_call:
            query = query.join_from(table, calls, calls.c.id == c.call_id)
        yield from connection.execute(query)


def _sides(connection: Connection, period: Period) -> dict[Side, SideSummary]:
    a = answers.c
    errors: dict[tuple[Side, str], int] = {
        (side, kind): count
        for side, kind, count in connection.execute(
            select(a.side, a.kind, func.count())
            .where(period.holds(a.created), a.error.is_not(None))
            .group_by(a.side, a.kind)
        )
    }
    found: dict[Side, dict[str, Any]] = {
        side: defaultdict(int, cost=None, shadow_cost=None, latency=_latency(connection, period, side))
        for side in _SIDES
    }
    for side, kind, count, _, _, read, written, cost in _sums(connection, period, lambda c: (c.side, c.kind)):
        sums = found[side]
        if kind != "failed":
            sums[{"routed": "calls", "shadow": "shadows", "refused": "refused"}[kind]] += count
        if kind == "shadow":
            sums["shadow_cost"] = cost
            continue
        # what is thrown away is paid for, too
        sums["input_tokens"] += int(read or 0)
        sums["output_tokens"] += int(written or 0)
        sums["cost"] = _added(sums["cost"], cost)
    for (side, kind), count in errors.items():
        found[side]["shadows" if kind == "shadow" else "calls"] += count
        found[side]["shadow_errors" if kind == "shadow" else "errors"] += count
    return {side: SideSummary(**sums) for side, sums in found.items()}


def _added(first: Any, second: Any) -> Any:
    """A sum of which each part may be unknown, which SQL says with NULL."""
    return second if first is None else first if second is None else first + second


def _latency(connection: Connection, period: Period, side: Side) -> tuple[float, float, float] | None:
    a = answers.c
    found = connection.scalars(
        select(a.latency).where(
            period.holds(a.created), a.kind == "routed", a.side == side, a.error.is_(None), a.latency.is_not(None)
        )
    ).all()
    if not found:
        return None
    half, most, nearly_all = np.quantile(np.asarray(found), (0.5, 0.9, 0.99))
    return float(half), float(most), float(nearly_all)


# --- by day, for a report ---

_DAY = 86_400
_BINS = 20


def days(connection: Connection, period: Period) -> list[Day]:
    """What happened on each day of a period (UTC), the oldest first."""
    day = _bucket(connection, calls.c.created, _DAY)
    out: dict[int, dict[str, Any]] = defaultdict(lambda: {"calls": 0, "strong": 0, "win_rates": [0] * _BINS})
    query = select(day, calls.c.side, func.count()).where(period.holds(calls.c.created)).group_by(day, calls.c.side)
    for number, side, count in connection.execute(query):
        out[number]["calls"] += count
        if side == "strong":
            out[number]["strong"] += count
    place = _bucket(connection, calls.c.win_rate * _BINS, 1)
    rates = select(day, place, func.count()).where(period.holds(calls.c.created), calls.c.win_rate.is_not(None))
    for number, place_of, count in connection.execute(rates.group_by(day, place)):
        out[number]["win_rates"][min(int(place_of), _BINS - 1)] += count
    return [Day(_DAY * number, **found) for number, found in sorted(out.items())]


def spending(connection: Connection, period: Period) -> list[Spending]:
    """Tokens and money by day, side, model and kind of answer; an answer counts where its call does."""
    day_of_call = _bucket(connection, calls.c.created, _DAY)
    rows = _sums(connection, period, lambda c: (day_of_call, c.side, c.model, c.kind), by_call=True)
    found = [
        Spending(_DAY * day, side, model, kind, count, int(read or 0), int(written or 0), cost)
        for day, side, model, kind, count, _, _, read, written, cost in rows
    ]
    return sorted(found, key=lambda row: row.start)


def totals(connection: Connection, period: Period, by: TotalBy, prices: Mapping[str, Price] | None) -> list[Total]:
    """Answers, tokens and money by side, model, user or day; by `prices` where they are given, else as stored."""
    key_of: dict[TotalBy, Callable[[Any], Any]] = {
        "side": lambda c: c.side,
        "model": lambda c: c.model,
        "user": lambda c: calls.c.user_id,
        "day": lambda c: _bucket(connection, c.created, _DAY),
    }
    rows = _sums(connection, period, lambda c: (key_of[by](c), c.side, c.model, c.kind), by_user=by == "user")
    sums: dict[Any, dict[str, Any]] = defaultdict(lambda: defaultdict(int, cost=None, shadow_cost=None))
    for found, side, model, kind, count, counted, costed, read, written, cost in rows:
        total = sums[found]
        price = None if prices is None else price_of(prices, model, side)
        if price is not None:
            costed, cost = counted, price.cost(int(read or 0), int(written or 0)) if counted else None
        total["input_tokens"] += int(read or 0)
        total["output_tokens"] += int(written or 0)
        if kind != "failed":
            total[{"routed": "answers", "refused": "refused", "shadow": "shadows"}[kind]] += count
            total["without_cost"] += count - costed
        if cost is not None:
            name = "shadow_cost" if kind == "shadow" else "cost"
            total[name] = cost + (total[name] or 0.0)
    named = [Total(_day_name(key) if by == "day" else key, **total) for key, total in sums.items()]
    if by == "day":
        return sorted(named, key=lambda total: total.key or "")
    return sorted(named, key=lambda total: (-(total.cost or 0.0), -total.answers, total.key or ""))


def _day_name(number: int) -> str:
    return datetime.fromtimestamp(_DAY * number, UTC).strftime("%Y-%m-%d")


def scores_by_day(connection: Connection, period: Period, key: str) -> list[tuple[float, Side, float, int]]:
    """Day, side, mean and number of the scores of one key."""
    f = feedback_table.c
    day, side = _bucket(connection, f.created, _DAY), func.coalesce(f.side, calls.c.side)
    query = (
        select(day, side, func.avg(f.score), func.count())
        .join_from(feedback_table, calls, calls.c.id == f.call_id)
        .where(period.holds(f.created), f.key == key)
        .group_by(day, side)
        .order_by(day)
    )
    return [(_DAY * number, side, mean, count) for number, side, mean, count in connection.execute(query)]


def versions(connection: Connection, period: Period) -> list[tuple[str, int, float, float]]:
    """Router, calls, first and last call of each version that has decided, by its first call."""
    first = func.min(calls.c.created)
    query = (
        select(calls.c.router, func.count(), first, func.max(calls.c.created))
        .where(period.holds(calls.c.created))
        .group_by(calls.c.router)
        .order_by(first)
    )
    return [tuple(row) for row in connection.execute(query)]


def _bucket(connection: Connection, value: Any, width: int) -> Any:
    """The number of the interval of this width that a value lies in; PostgreSQL's cast alone would round."""
    quotient = value / float(width)
    return cast(quotient if connection.dialect.name == "sqlite" else func.floor(quotient), Integer)
