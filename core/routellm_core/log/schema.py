"""The tables of a traffic log. Importing this needs SQLAlchemy, which takes over a second: import it where it is used.

Other programs may read the tables: a column is only ever added or widened, and then the minor version of `VERSION`
rises.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from routellm_core.errors import DataError

VERSION = (1, 3)
# names the lock under which PostgreSQL creates the tables: the letters "routellm" as a number
_CREATION_LOCK = 0x726F7574656C6C6D

metadata = MetaData()

meta = Table("routellm_meta", metadata, Column("key", String(200), primary_key=True), Column("value", Text))

calls = Table(
    "routellm_calls",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("created", Double, nullable=False),
    Column("app", String(200)),
    Column("run_id", String(200)),
    Column("parent_run_id", String(200)),
    Column("trace_id", String(200)),
    Column("conversation", String(32)),
    Column("prompt_hash", String(32)),
    Column("prompt", Text),
    Column("vector", LargeBinary),
    Column("router", String(200), nullable=False),
    Column("win_rate", Double),
    Column("threshold", Double, nullable=False),
    Column("reason", String(20), nullable=False),
    Column("failover", String(6)),
    Column("p_strong", Double, nullable=False),
    Column("p_shadow", Double, nullable=False),
    Column("side", String(6), nullable=False),
    Column("user_id", String(200)),
    Column("cost", Double),
)
Index("routellm_calls_created", calls.c.created, calls.c.side, calls.c.reason)
for _name in ("run_id", "parent_run_id", "trace_id"):
    # partial: an app without traces pays nothing for them
    _present = calls.c[_name].is_not(None)
    Index(f"routellm_calls_{_name}", calls.c[_name], sqlite_where=_present, postgresql_where=_present)

answers = Table(
    "routellm_answers",
    metadata,
    Column("call_id", String(36), primary_key=True),
    Column("side", String(6), primary_key=True),
    Column("created", Double, nullable=False),
    Column("kind", String(10), nullable=False),
    Column("model", String(200)),
    Column("text", Text),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost", Double),
    Column("latency", Double),
    Column("error", String(200)),
)
# covers what a summary asks for: no look at the table, and no join with the calls
Index(
    "routellm_answers_created",
    *(answers.c[name] for name in ("created", "kind", "side", "error", "cost", "latency")),
    *(answers.c[name] for name in ("input_tokens", "output_tokens")),
)
_is_shadow = answers.c.kind == "shadow"
Index("routellm_answers_shadow", answers.c.call_id, sqlite_where=_is_shadow, postgresql_where=_is_shadow)

# Answers that were paid for and that nobody got: a check refused them, or the attempt failed. Of one side there may be
# several, where routed models are nested. Up to version 1.2 a refused one is an answer, of kind "refused".
discarded = Table(
    "routellm_discarded",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("call_id", String(36), nullable=False, index=True),
    Column("side", String(6), nullable=False),
    Column("created", Double, nullable=False, index=True),
    Column("kind", String(10), nullable=False),
    Column("model", String(200)),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost", Double),
)

# no foreign keys: feedback and labels may come before the call that they are about is written
feedback = Table(
    "routellm_feedback",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("call_id", String(36), index=True),
    Column("external_id", String(200)),
    Column("side", String(6)),
    Column("key", String(200), nullable=False),
    Column("score", Double, nullable=False),
    Column("source", String(200), nullable=False),
    Column("created", Double, nullable=False),
)

labels = Table(
    "routellm_labels",
    metadata,
    Column("call_id", String(36), primary_key=True),
    Column("labeller", String(200), primary_key=True),
    Column("strong_score", Double, nullable=False),
    Column("weak_score", Double, nullable=False),
    Column("created", Double, nullable=False),
)

TABLES: dict[str, Table] = {
    "calls": calls,
    "answers": answers,
    "discarded": discarded,
    "feedback": feedback,
    "labels": labels,
}


class NewerSchemaError(DataError):
    """The database was written by a later version of this package, whose tables this one does not know."""


def insert(connection: Connection, table: Table) -> Any:
    """An insert that leaves a row as it is where one with its key exists.

    There are two exceptions: an answer takes the place of a failure, for a call that was tried again, and feedback
    that of what the same source thought earlier.
    """
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table)
    new = statement.excluded
    if table is answers:
        changed = [column.name for column in answers.columns if not column.primary_key]
        return statement.on_conflict_do_update(
            index_elements=["call_id", "side"],
            set_={name: new[name] for name in changed},
            where=answers.c.error.is_not(None) & new.error.is_(None),
        )
    if table is feedback:
        return statement.on_conflict_do_update(index_elements=["id"], set_={"score": new.score, "created": new.created})
    return statement.on_conflict_do_nothing()


def prepare(connection: Connection) -> None:
    """Create what is missing: all tables of a new database, what an older version's columns lack.

    Any number of processes may do so at once.

    Raises:
        NewerSchemaError: The tables are those of a later major version.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})"))
    connection.execute(CreateTable(meta, if_not_exists=True))
    version = connection.execute(select(meta.c.value).where(meta.c.key == "schema")).scalar()
    if version is not None:
        major, minor = _parsed(version)
        if major > VERSION[0]:
            raise NewerSchemaError(
                f"the traffic log has schema {version}, this version of routellm-adapters knows {VERSION[0]}.x: "
                "update the package"
            )
        if (major, minor) >= VERSION:
            return
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
    _update_columns(connection)
    for table in metadata.sorted_tables:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index, if_not_exists=True))
    put_meta(connection, "schema", ".".join(map(str, VERSION)))


def put_meta(connection: Connection, key: str, value: str) -> None:
    """Set an entry of the meta table."""
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(meta).values(key=key, value=value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"value": statement.excluded.value})
    )


def _update_columns(connection: Connection) -> None:
    """Add the columns that tables of an earlier version lack, all of which may be empty, and widen those for texts."""
    found = inspect(connection)
    for table in metadata.sorted_tables:
        present = {column["name"]: column["type"] for column in found.get_columns(table.name)}
        for column in table.columns:
            kind = column.type.compile(connection.dialect)
            if column.name not in present:
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))
            elif _is_narrower(present[column.name], column.type) and connection.dialect.name == "postgresql":
                connection.execute(text(f"ALTER TABLE {table.name} ALTER COLUMN {column.name} TYPE {kind}"))


def _is_narrower(old: Any, new: Any) -> bool:
    """Whether a column of texts takes shorter ones than it has to; SQLite takes any length."""
    return isinstance(new, String) and bool(old.length and new.length) and old.length < new.length


def _parsed(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    try:
        return int(major), int(minor or 0)
    except ValueError:
        raise DataError(f"the traffic log has schema {version!r:.40}: expected a version such as 1.0") from None
