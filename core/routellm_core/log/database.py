"""TrafficDatabase: a traffic log opened to be read, labelled and cleared up.

Importing this loads SQLAlchemy, and raises a `MissingExtraError` where it is not installed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self, get_args

from routellm_core.checks import MAX_STATE_BYTES, Side
from routellm_core.errors import ConfigurationError, DataError, MissingExtraError

try:
    from sqlalchemy import Connection, Engine, Integer, String, cast, create_engine, delete, event, exc, func, select
except ModuleNotFoundError:
    raise MissingExtraError("A traffic log", "log") from None

from routellm_core.log import reading, schema
from routellm_core.log.cleaning import Unwritable, clean
from routellm_core.log.rows import (
    Day,
    Feedback,
    Label,
    LoggedCall,
    LoggedOutcome,
    LoggedPair,
    Spending,
    Total,
    TotalBy,
    TrafficSummary,
)
from routellm_core.log.urls import checked_url, file_of, shown_url
from routellm_core.policy.savings import Price

# What a row can make a database refuse; anything else is the database's own trouble, which may pass.
ROW_ERRORS = (exc.DataError, exc.IntegrityError, UnicodeError, OverflowError)
_STATE = "state:"
Moment = float | int | datetime


class TrafficDatabase:
    """A traffic log, opened by whoever learns from it.

    Unlike `TrafficLog`, which an app writes to, it does what it is asked before it returns, and raises what goes wrong.
    Everything that it gives is read in short transactions, so that it never keeps the app's file from shrinking; calls
    that come in meanwhile may or may not be among the rows.

    Args:
        url: ``"sqlite:///FILE"`` or ``"postgresql://USER:PASSWORD@HOST/DATABASE"``.
        create: Whether to make the database's tables (and the file) where there are none.
        busy_seconds: How long to wait for another process that writes.

    Raises:
        ConfigurationError: `url` is not such an address.
        DataError: There is no traffic log, or it cannot be opened.
        MissingExtraError: SQLAlchemy or psycopg is not installed.
    """

    def __init__(self, url: str, *, create: bool = False, busy_seconds: float = 10.0) -> None:
        self.url = checked_url(url)
        self._engine = _engine(self.url, busy_seconds)
        file = file_of(self.url)
        if not create and file is not None and not file.is_file():
            raise DataError(f"no traffic log {str(file)!r}: an app writes one with log=TrafficLog({url!r})")
        try:
            with self.writing() as connection:
                if not create and not _has_tables(connection):
                    raise DataError(f"{shown_url(self.url)} holds no traffic log: no table routellm_calls")
                schema.prepare(connection)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TrafficDatabase({shown_url(self.url)!r})"

    # --- transactions ---

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; what the database refuses is raised as a `DataError`."""
        with self._named(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._named(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            # the first line: the rest may quote a row
            reason = (str(cause).splitlines() or [""])[0][:200]
            raise DataError(f"{shown_url(self.url)}: {type(cause).__name__}: {reason}") from error

    # --- reading ---

    def calls(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        app: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[LoggedCall]:
        """The calls of a period, by time.

        Args:
            since: From this moment on, in seconds since 1970 or as a datetime.
            until: Before this moment.
            app: Of this app alone.
            newest_first: Whether the last call comes first.
            limit: At most this many.
        """
        period = _period(since, until)
        return reading.calls_in(self._reading, period, app=app, newest_first=newest_first, limit=limit)

    def pairs(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        without_label: bool = False,
        labeller: str | None = None,
    ) -> Iterator[LoggedPair]:
        """The calls that both sides have answered, by time; a failed answer makes no pair.

        Args:
            since: From this moment on.
            until: Before this moment.
            without_label: Only pairs that have no label (of `labeller`, where one is named).
            labeller: With `without_label`: whose label counts.
        """
        return reading.pairs(self._reading, _period(since, until), without_label=without_label, labeller=labeller)

    def count_pairs(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        without_label: bool = False,
        labeller: str | None = None,
    ) -> int:
        """How many `pairs` there are."""
        with self._reading() as connection:
            return reading.count_pairs(
                connection, _period(since, until), without_label=without_label, labeller=labeller
            )

    def outcomes(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        key: str = "score",
        source: str | None = None,
        labeller: str | None = None,
    ) -> Iterator[LoggedOutcome]:
        """Every call of a period with its answers and what is known of how good they are.

        Args:
            since: From this moment on.
            until: Before this moment.
            key: Feedback of this key counts.
            source: Feedback of this source alone; None takes the mean over all sources.
            labeller: Whose labels count; None takes gold labels before any other. A label counts before feedback.
        """
        return reading.outcomes(self._reading, _period(since, until), key=key, source=source, labeller=labeller)

    def feedback(self, *, since: Moment | None = None) -> Iterator[Feedback]:
        """All feedback by time; with the id of its call where that is known by now."""
        return reading.feedback(self._reading, _period(since, None))

    def known_calls(self, ids: Iterable[str]) -> set[str]:
        """Which of these are ids of calls of the log."""
        return reading.known_calls(self._reading, set(ids))

    def labels(self, *, labeller: str | None = None) -> Iterator[Label]:
        """All labels, or those of one labeller."""
        return reading.labels(self._reading, labeller)

    def summary(self, *, since: Moment | None = None, until: Moment | None = None) -> TrafficSummary:
        """What the log holds of a period, without reading every call."""
        with self._reading() as connection:
            return reading.summary(connection, _period(since, until))

    def days(self, *, since: Moment | None = None, until: Moment | None = None) -> list[Day]:
        """The calls of each day of a period, the oldest first."""
        with self._reading() as connection:
            return reading.days(connection, _period(since, until))

    def spending(self, *, since: Moment | None = None, until: Moment | None = None) -> list[Spending]:
        """What each model's answers used on each day of a period."""
        with self._reading() as connection:
            return reading.spending(connection, _period(since, until))

    def totals(
        self,
        by: TotalBy,
        *,
        prices: Mapping[str, Price] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> list[Total]:
        """Answers, tokens and money by side, model, user or day, the most expensive first; days in their order.

        Args:
            by: ``"side"``, ``"model"``, ``"user"`` or ``"day"``.
            prices: Prices by model, or by ``"strong"`` and ``"weak"``; for others, costs are as the log has them.
            since: Only answers from then on.
            until: Only answers before.

        Raises:
            ConfigurationError: `by` is something else.
        """
        if by not in get_args(TotalBy):
            raise ConfigurationError(f"by={by!r:.80}: expected one of {', '.join(get_args(TotalBy))}")
        with self._reading() as connection:
            return reading.totals(connection, _period(since, until), by, prices)

    def scores_by_day(
        self, *, since: Moment | None = None, until: Moment | None = None, key: str = "score"
    ) -> list[tuple[float, Side, float, int]]:
        """Beginning of the day, side, mean and number of the scores that came in on it."""
        with self._reading() as connection:
            return reading.scores_by_day(connection, _period(since, until), key)

    def versions(
        self, *, since: Moment | None = None, until: Moment | None = None
    ) -> list[tuple[str, int, float, float]]:
        """Router, number of calls, first and last call of each version that has decided."""
        with self._reading() as connection:
            return reading.versions(connection, _period(since, until))

    # --- writing ---

    def add_labels(self, labels: Iterable[Label]) -> int:
        """Add labels; one that a labeller has given to a call already stays as it is. Returns how many are new."""
        return self._add("labels", labels)

    def add_feedback(self, rows: Iterable[Feedback]) -> int:
        """Add feedback; one of an id that is there already takes its place. Returns how many are new."""
        return self._add("feedback", rows)

    def _add(self, table: str, rows: Iterable[Any]) -> int:
        items = [{name: getattr(row, name) for name in row.__slots__} for row in rows]
        now = time.time()
        try:
            cleaned = [clean(table, {**item, "created": item["created"] or now}) for item in items]
        except Unwritable as error:
            raise DataError(f"{table}: {error}") from None
        target = schema.TABLES[table]
        with self.writing() as connection:
            before = connection.scalar(select(func.count()).select_from(target)) or 0
            if cleaned:
                connection.execute(schema.insert(connection, target), cleaned)
            return (connection.scalar(select(func.count()).select_from(target)) or 0) - before

    def write(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
        """Write cleaned rows by table in one transaction; where one of them is refused, write the others.

        Returns:
            How many rows the database refused.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: The database cannot be written to; nothing was.
        """
        try:
            self._write(rows)
        except ROW_ERRORS:
            halves = _halves(rows)
            if halves is None:
                return sum(map(len, rows.values()))
            return sum(self.write(half) for half in halves)
        return 0

    def _write(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        with self._engine.begin() as connection:
            for name, table in schema.TABLES.items():
                if rows.get(name):
                    connection.execute(schema.insert(connection, table), list(rows[name]))
            for row in rows.get("states", ()):
                schema.put_meta(connection, _STATE + row["name"], json.dumps(row["state"]))

    def count_dropped(self, causes: Mapping[str, int]) -> None:
        """Add to the counts of what could not be logged, by cause."""
        with self._engine.begin() as connection:
            for cause, count in causes.items():
                key = reading.DROPPED + cause
                present = connection.execute(
                    schema.meta.update()
                    .where(schema.meta.c.key == key)
                    .values(value=cast(cast(schema.meta.c.value, Integer) + count, String(200)))
                ).rowcount
                if not present:
                    schema.put_meta(connection, key, str(count))

    def delete_before(self, moment: float, *, limit: int) -> int:
        """Delete up to `limit` of the calls before a moment, with all that belongs to them; returns how many."""
        calls = schema.calls
        with self._engine.begin() as connection:
            oldest = select(calls.c.id).where(calls.c.created < moment).order_by(calls.c.created).limit(limit)
            ids = list(connection.scalars(oldest))
            for table, column in (
                (schema.answers, "call_id"),
                (schema.discarded, "call_id"),
                (schema.feedback, "call_id"),
                (schema.labels, "call_id"),
                (calls, "id"),
            ):
                connection.execute(delete(table).where(table.c[column].in_(ids)))
            if not ids:  # what belongs to no call that is known goes by its own age
                # discarded answers, where an older version has deleted the calls
                for table in (schema.feedback, schema.discarded):
                    connection.execute(delete(table).where(table.c.created < moment))
            return len(ids)

    def moment_of(self, newest: int) -> float | None:
        """When the call was made that has `newest` calls after it; None where there are not that many."""
        created = schema.calls.c.created
        with self._engine.connect() as connection:
            return connection.scalar(select(created).order_by(created.desc()).limit(1).offset(newest))

    def shadows_so_far(self) -> tuple[int, float]:
        """How many shadow answers there are, and the money that they cost as far as it is known."""
        a = schema.answers.c
        query = select(func.count(), func.sum(a.cost)).where(a.kind == "shadow", a.error.is_(None))
        with self._engine.connect() as connection:
            count, cost = connection.execute(query).one()
            return count, cost or 0.0

    # --- state: what was learned when, how often a verdict was looked for, counts of limits ---

    def load_state(self, name: str) -> dict[str, Any] | None:
        """The state that was saved under `name`, or None.

        Raises:
            DataError: It is not a JSON object.
        """
        with self._reading() as connection:
            value = connection.scalar(select(schema.meta.c.value).where(schema.meta.c.key == _STATE + name))
        if value is None:
            return None
        try:
            state = json.loads(value) if len(value) <= MAX_STATE_BYTES else None
        except (ValueError, RecursionError):
            state = None
        if not isinstance(state, dict):
            raise DataError(f"{shown_url(self.url)}: the state {name!r} is not a JSON object: remove it")
        return state

    def save_state(self, name: str, state: dict[str, Any]) -> None:
        """Save JSON values under `name`."""
        with self.writing() as connection:
            schema.put_meta(connection, _STATE + name, json.dumps(state))


def _engine(url: str, busy_seconds: float) -> Engine:
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": busy_seconds})
        event.listen(engine, "connect", _set_up_sqlite)
        return engine
    # others may be making the tables
    milliseconds = max(2000, round(1000 * busy_seconds))
    # bounded, so that a server that hangs holds nobody up for long
    return create_engine(
        url,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 2,
            "tcp_user_timeout": 5000,
            "options": f"-c lock_timeout={milliseconds} -c statement_timeout={3 * milliseconds}",
        },
    )


def _set_up_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA journal_size_limit=67108864")
    # what retention deletes is overwritten, not only forgotten
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _has_tables(connection: Connection) -> bool:
    return connection.dialect.has_table(connection, schema.calls.name)


def _halves(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[dict[str, Sequence[Mapping[str, Any]]], dict[str, Sequence[Mapping[str, Any]]]] | None:
    """The rows in two parts; None for a single row."""
    flat = [(table, row) for table, items in rows.items() for row in items]
    if len(flat) < 2:
        return None
    middle = len(flat) // 2
    parts: list[dict[str, Any]] = [{}, {}]
    for i, (table, row) in enumerate(flat):
        parts[i >= middle].setdefault(table, []).append(row)
    return parts[0], parts[1]


def _period(since: Moment | None, until: Moment | None) -> reading.Period:
    return reading.Period(_seconds(since, "since"), _seconds(until, "until"))


def _seconds(moment: Moment | None, parameter: str) -> float | None:
    if moment is None:
        return None
    if isinstance(moment, datetime):
        return moment.timestamp()
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        raise DataError(f"{parameter}={moment!r:.80}: expected seconds since 1970 or a datetime")
    return float(moment)
