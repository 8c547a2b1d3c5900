"""A traffic log as those read it who learn from it; on both kinds of database."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy

from routellm_core.errors import ConfigurationError, DataError
from routellm_core.log import Feedback, Label, TrafficDatabase, is_database_url
from routellm_core.log.schema import NewerSchemaError, discarded, put_meta
from tests.core.log.rows import a_call, a_discarded, an_answer, call_id, fill


def test_what_is_written_comes_back(database: TrafficDatabase) -> None:
    vector = np.array([0.5, -1.0, 2.0], dtype="<f2")
    row = a_call(1, run_id="r", parent_run_id="p", trace_id="t", conversation="c", app="shop", vector=vector.tobytes())
    database.write({"calls": [row], "answers": [an_answer(1, cost=0.25, error=None)]})
    (call,) = database.calls()
    np.testing.assert_array_equal(call.vector, [0.5, -1.0, 2.0])
    assert {name: getattr(call, name) for name in call.__slots__ if name != "vector"} == {
        name: value for name, value in row.items() if name != "vector"
    }
    (outcome,) = database.outcomes()
    assert outcome.answers["weak"].cost == 0.25
    assert outcome.scores == {}


def test_pages_lose_and_repeat_no_call(database: TrafficDatabase) -> None:
    # many of one moment: the page ends between them
    database.write({"calls": [a_call(i, created=1000.0 + i // 900) for i in range(4500)]})
    ids = [call.id for call in database.calls()]
    assert ids == [call_id(i) for i in range(4500)]
    assert [call.id for call in database.calls(newest_first=True)] == ids[::-1]
    assert [call.id for call in database.calls(newest_first=True, limit=2100)] == ids[::-1][:2100]
    assert len(list(database.calls(since=1001.0, until=1003.0))) == 1800
    assert len(list(database.calls(since=datetime.fromtimestamp(1004, UTC)))) == 900
    with pytest.raises(DataError, match="since='yesterday'"):
        list(database.calls(since="yesterday"))  # type: ignore[arg-type]


def test_a_pair_is_a_call_that_both_sides_have_answered(database: TrafficDatabase) -> None:
    fill(database, 40, pair_every=4)
    database.write({"answers": [an_answer(1, "strong", "shadow", error="TimeoutError")]})  # a failed shadow
    database.write({"calls": [a_call(99)], "answers": [an_answer(99, error="APIError")]})  # a failed call
    database.write({"answers": [an_answer(99, "strong", "shadow")]})
    pairs = list(database.pairs())
    assert [pair.call.id for pair in pairs] == [call_id(i) for i in range(0, 40, 4)]
    assert {(pair.strong.kind, pair.weak.kind) for pair in pairs} == {("shadow", "routed")}
    assert database.count_pairs() == 10
    assert database.count_pairs(since=1020.0) == len(list(database.pairs(since=1020.0))) == 5


def test_pairs_without_a_label(database: TrafficDatabase) -> None:
    fill(database, 40, pair_every=4)
    assert database.add_labels([Label(call_id(0), "gold", 1.0, 0.0), Label(call_id(4), "judge:m:1", 0.5, 0.5)]) == 2
    # never twice, and the first one stays
    assert database.add_labels([Label(call_id(0), "gold", 0.0, 0.0)]) == 0
    assert [label.strong_score for label in database.labels(labeller="gold")] == [1.0]
    for labeller, left in ((None, 8), ("gold", 9), ("judge:m:1", 9), ("other", 10)):
        assert database.count_pairs(without_label=True, labeller=labeller) == left
        assert len(list(database.pairs(without_label=True, labeller=labeller))) == left


def test_scores_of_outcomes(database: TrafficDatabase) -> None:
    fill(database, 6, pair_every=2)
    database.add_labels([Label(call_id(0), "judge:m:1", 0.0, 1.0), Label(call_id(0), "gold", 1.0, 0.25)])
    database.add_feedback(
        [
            Feedback("1", 0.0, call_id=call_id(1)),
            Feedback("2", 1.0, call_id=call_id(1), source="grader"),
            Feedback("3", 1.0, call_id=call_id(1), key="length"),
            Feedback("4", 0.75, call_id=call_id(2), side="strong"),
            Feedback("5", 0.5, call_id=call_id(0)),
        ]
    )

    def scores(**asked: str) -> list[dict[str, float]]:
        return [dict(outcome.scores) for outcome in database.outcomes(**asked)]  # type: ignore[arg-type]

    # gold before a judge, a label before feedback, the mean over sources, the side that answered unless one is named
    assert scores() == [{"strong": 1.0, "weak": 0.25}, {"weak": 0.5}, {"strong": 0.75}, {}, {}, {}]
    assert scores(labeller="judge:m:1")[0] == {"strong": 0.0, "weak": 1.0}
    assert scores(source="grader")[1] == {"weak": 1.0}
    assert scores(key="length", labeller="none")[:2] == [{}, {"weak": 1.0}]


def test_feedback_finds_its_call_by_the_run_around_it(database: TrafficDatabase) -> None:
    rows = [a_call(i, run_id=f"run{i}", parent_run_id=f"parent{i // 2}", trace_id="trace") for i in range(4)]
    database.add_feedback(  # before its call
        [Feedback(name, 1.0, external_id=name) for name in ("run1", "parent1", "trace", "unknown")]
    )
    assert {row.call_id for row in database.feedback()} == {None}
    database.write({"calls": rows})
    found = {row.external_id: row.call_id for row in database.feedback()}
    # of several calls in one run it is the last that the run ended with
    assert found == {"run1": call_id(1), "parent1": call_id(3), "trace": call_id(3), "unknown": None}
    assert [len(outcome.scores) for outcome in database.outcomes()] == [0, 1, 0, 1]


def test_feedback_can_be_imported_again(database: TrafficDatabase) -> None:
    rows = [Feedback(str(i), 0.5, call_id=call_id(i)) for i in range(3)]
    assert database.add_feedback(rows) == 3
    assert database.add_feedback([replace(row, score=1.0) for row in rows]) == 0
    assert {row.score for row in database.feedback()} == {1.0}
    for wrong in (Feedback("x", 1.5, call_id="a"), Feedback("x", 1.0), Feedback("", 1.0, call_id="a")):
        with pytest.raises(DataError, match="feedback: "):
            database.add_feedback([wrong])


def test_summary(database: TrafficDatabase) -> None:
    fill(database, 40, pair_every=4)
    strong = [a_call(i, side="strong", reason="forced") for i in range(100, 110)]
    failed = [an_answer(i, "strong", error="APIError", latency=9.0) for i in range(100, 102)]
    answered = [an_answer(i, "strong", cost=0.5) for i in range(102, 110)]
    database.write({"calls": strong, "answers": [*failed, *answered]})
    database.add_labels([Label(call_id(0), "gold", 1.0, 0.0)])
    database.count_dropped({"queue full": 2})
    database.count_dropped({"queue full": 3, "a bad row": 1})
    whole = database.summary().to_dict()
    assert whole["calls"] == 50
    assert whole["strong_fraction"] == 0.2
    assert (whole["pairs"], whole["pairs_without_label"], whole["labels"]) == (10, 9, 1)
    assert whole["dropped"] == 6
    assert whole["reasons"] == {"win_rate": 40, "forced": 10}
    assert whole["sides"]["strong"]["cost"] == 4.0
    assert (whole["sides"]["strong"]["errors"], whole["sides"]["strong"]["shadows"]) == (2, 10)
    assert whole["sides"]["strong"]["latency"] == (0.5, 0.5, 0.5)
    assert whole["sides"]["weak"]["cost"] is None
    late = database.summary(since=1100.0)
    assert (late.calls, late.strong_fraction, late.pairs) == (10, 1.0, 0)
    assert (late.first, late.last) == (1100.0, 1109.0)
    assert database.summary(since=5000.0).strong_fraction is None


def test_a_retried_call_takes_the_place_of_its_failure(database: TrafficDatabase) -> None:
    database.write({"answers": [an_answer(1, error="APIError"), an_answer(2, text="first")]})
    database.write({"answers": [an_answer(1, text="at last"), an_answer(2, text="second")]})
    database.write({"answers": [an_answer(1, error="APIError")]})
    database.write({"calls": [a_call(1), a_call(2)]})
    assert [outcome.answers["weak"].text for outcome in database.outcomes()] == ["at last", "first"]


def test_what_is_old_is_deleted_with_all_that_belongs_to_it(database: TrafficDatabase) -> None:
    fill(database, 30, pair_every=3)
    database.add_labels([Label(call_id(0), "gold", 1.0, 0.0), Label(call_id(27), "gold", 1.0, 0.0)])
    database.add_feedback([Feedback("1", 1.0, call_id=call_id(1)), Feedback("2", 1.0, external_id="x", created=5.0)])
    assert database.moment_of(10) == 1019.0
    assert database.moment_of(30) is None
    database.write({"discarded": [a_discarded(99, "d", created=5.0)]})  # an older version has deleted its call
    while database.delete_before(1020.0, limit=7):
        pass
    with database.writing() as connection:
        assert connection.execute(sqlalchemy.select(discarded)).all() == []
    assert len(list(database.calls())) == 10
    assert [label.call_id for label in database.labels()] == [call_id(27)]
    assert list(database.feedback()) == []
    assert database.summary().sides["weak"].calls == 10


def test_state(database: TrafficDatabase) -> None:
    assert database.load_state("looks") is None
    database.save_state("looks", {"count": 2})
    database.save_state("looks", {"count": 3})
    assert database.load_state("looks") == {"count": 3}
    with database.writing() as connection:
        put_meta(connection, "state:looks", "[1, 2")
    with pytest.raises(DataError, match="'looks' is not a JSON object"):
        database.load_state("looks")


def test_columns_that_an_older_version_lacks_are_added(database: TrafficDatabase, url: str) -> None:
    database.write({"calls": [a_call(1)]})
    with database.writing() as connection:
        for statement in (
            "DROP INDEX routellm_calls_trace_id", "ALTER TABLE routellm_calls DROP COLUMN trace_id",
            "DROP TABLE routellm_labels", "UPDATE routellm_meta SET value = '0.9' WHERE key = 'schema'",
        ):  # fmt: skip
            connection.execute(sqlalchemy.text(statement))
    with TrafficDatabase(url) as newer:
        newer.write({"calls": [a_call(2, trace_id="t")]})
        assert [call.trace_id for call in newer.calls()] == [None, "t"]
        assert newer.add_labels([Label(call_id(1), "gold", 1.0, 0.0)]) == 1


def test_columns_that_were_shorter_in_an_older_version_take_longer_texts(database: TrafficDatabase, url: str) -> None:
    with database.writing() as connection:
        if connection.dialect.name == "postgresql":  # as version 1.0 made it
            connection.execute(sqlalchemy.text("ALTER TABLE routellm_answers ALTER COLUMN kind TYPE VARCHAR(6)"))
        put_meta(connection, "schema", "1.0")
    with TrafficDatabase(url) as newer:
        newer.write({"calls": [a_call(1)], "answers": [an_answer(1, "weak")]})
        with newer.writing() as connection:
            connection.execute(sqlalchemy.text("UPDATE routellm_answers SET kind = 'refused'"))
        assert newer.summary().sides["weak"].refused == 1


def test_refused_answers_of_an_older_version_count_beside_newer_ones(database: TrafficDatabase, url: str) -> None:
    database.write({"calls": [a_call(1)], "answers": [an_answer(1, "weak", cost=1.0)]})
    with database.writing() as connection:
        for statement in (  # as version 1.2 left it
            "DROP TABLE routellm_discarded", "UPDATE routellm_answers SET kind = 'refused'",
            "UPDATE routellm_meta SET value = '1.2' WHERE key = 'schema'",
        ):  # fmt: skip
            connection.execute(sqlalchemy.text(statement))
    with TrafficDatabase(url) as newer:
        assert newer.summary().sides["weak"].refused == 1
        newer.write({"discarded": [a_discarded(1, "a"), a_discarded(1, "b"), a_discarded(1, "c", kind="failed")]})
        weak = newer.summary().sides["weak"]
        assert (weak.calls, weak.refused, weak.cost, weak.input_tokens) == (0, 3, 7.0, 40)
        for by in ("side", "model", "user", "day"):
            (total,) = newer.totals(by)
            assert (total.answers, total.refused, total.cost, total.without_cost) == (0, 3, 7.0, 0)
        assert {(row.kind, row.answers, row.cost) for row in newer.spending()} == {
            ("refused", 1, 1.0), ("refused", 2, 4.0), ("failed", 1, 2.0)
        }  # fmt: skip
        assert next(iter(newer.outcomes())).answers == {}
        newer.delete_before(1e9, limit=10)
        assert newer.totals("side") == []


def test_what_is_thrown_away_is_written_once_however_often_it_comes(database: TrafficDatabase) -> None:
    rows = {"calls": [a_call(1)], "discarded": [a_discarded(1, "a"), a_discarded(1, "b")]}
    database.write(rows)
    database.write(rows)
    assert database.summary().sides["weak"].refused == 2


@pytest.mark.parametrize("version", ["2.0", "nonsense"])
def test_tables_of_a_later_version_are_left_alone(database: TrafficDatabase, url: str, version: str) -> None:
    with database.writing() as connection:
        put_meta(connection, "schema", version)
    with pytest.raises(NewerSchemaError if version == "2.0" else DataError, match=f"schema '?{version}"):
        TrafficDatabase(url, create=True)


def test_a_later_minor_version_is_read(database: TrafficDatabase, url: str) -> None:
    with database.writing() as connection:
        put_meta(connection, "schema", "1.7")
    with TrafficDatabase(url) as again:
        assert list(again.calls()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("traffic.db", "for a file write 'sqlite:///traffic.db'"),
        ("sqlite:///:memory:", "a log needs a file"),
        ("sqlite://", "a log needs a file"),
        ("mysql://me:secret@host/db", r"mysql://me:\*\*\*@host/db"),
        ("sqlite:////no/such/folder/traffic.db", "no folder '/no/such/folder'"),
        (7, "url='7'"),
    ],
)
def test_an_address_that_is_none(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refusal:
        TrafficDatabase(url)
    assert "secret" not in str(refusal.value)


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no traffic log .* an app writes one with log=TrafficLog"):
        TrafficDatabase(f"sqlite:///{tmp_path}/traffic.db")
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (id)")
    connection.close()
    with pytest.raises(DataError, match="holds no traffic log"):
        TrafficDatabase(f"sqlite:///{other}")
    (tmp_path / "text.db").write_text("This is a text and no database, however long it is. " * 100)
    with pytest.raises(DataError, match="file is not a database"):
        TrafficDatabase(f"sqlite:///{tmp_path}/text.db", create=True)


def test_the_password_of_a_server_is_not_shown() -> None:
    with pytest.raises(DataError) as refusal:
        TrafficDatabase("postgresql://me:secret@127.0.0.1:1/db")
    assert "me:***@127.0.0.1" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_an_address_is_told_from_a_file_name() -> None:
    assert is_database_url("sqlite:///traffic.db")
    assert is_database_url("postgresql+psycopg://host/db")
    assert not is_database_url("traffic.jsonl")
    assert not is_database_url("https://host/db")
