"""TrafficLog: nothing that is recorded is lost without being counted, and nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import Price, RoutingDecision, Shadow, SpendLimit, TrafficLog
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.log import Answer, TrafficDatabase
from routellm_core.log.schema import put_meta
from routellm_core.log.vectors import EMBEDDER_STATE, probe
from routellm_core.policy.routing import CallSettings, Decided, Routing
from tests.support.waiting import LIMIT, wait_until


@pytest.fixture
def log(url: str) -> Iterator[TrafficLog]:
    log = TrafficLog(url, flush_seconds=0.02)
    yield log
    log.close()


def decision(side: Any = "weak", **changes: Any) -> RoutingDecision:
    return RoutingDecision(side, 0.4, 0.5, "mf", router_version="0123456789ab", **changes)


def record(log: TrafficLog, prompt: str | None = "hi", answer: Answer | None = None, **options: Any) -> str:
    made = options.pop("decision", None) or decision()
    other = options.pop("other", None)
    recording = log.recording(made, prompt=prompt, **options)
    recording.answered(answer or Answer("hello", "mini", 10, 20), other=other)
    return made.id


def counted(url: str) -> int:
    with TrafficDatabase(url) as database:
        return database.summary().calls


# --- what is written ---


def test_a_hostile_batch_costs_no_other_row(log: TrafficLog, url: str) -> None:
    log._writer.flush_seconds = 60.0  # all in one batch
    ids = [record(log, f"prompt {i}") for i in range(195)]
    twice = decision()
    hostile = [
        record(log, "a NUL \0 in it", Answer("\0", "m\0")),
        record(log, "a lone surrogate \ud800", Answer("\udfff", "m\ud800")),
        record(log, "a huge integer", Answer("a", "m", 10**30, -1)),
        record(log, decision=twice),
        record(log, decision=twice),
    ]
    log.put((("calls", {"id": object()}), ("answers", {"call_id": None})))  # no call at all
    assert log.flush()
    with TrafficDatabase(url) as database:
        calls = {call.id: call for call in database.calls()}
        assert set(calls) == {*ids, *hostile}
        assert calls[hostile[0]].prompt == "a NUL � in it"
        assert calls[hostile[1]].prompt == "a lone surrogate ?"
        answers = {outcome.call.id: outcome.answers["weak"] for outcome in database.outcomes()}
        assert answers[hostile[2]].input_tokens is None
        assert len(answers) == 199
        assert database.summary().dropped == log.dropped != {}


def test_a_row_that_only_the_database_refuses_is_dropped_alone(log: TrafficLog, url: str, monkeypatch: Any) -> None:
    from routellm_core.log import traffic_log
    from routellm_core.log.cleaning import clean

    def lax(table: str, row: Any) -> dict[str, Any]:
        # what the cleaning does not know: a call without a reason, which no column of the table allows
        return {**clean(table, row), **({"reason": None} if table == "calls" and row["prompt"] == "bad" else {})}

    monkeypatch.setattr(traffic_log, "clean", lax)
    for i in range(60):
        record(log, "bad" if i in (0, 31, 59) else "good")
    assert log.flush()
    with TrafficDatabase(url) as database:
        assert [call.prompt for call in database.calls()] == ["good"] * 57
        assert database.summary().dropped == {"refused": 3}


@pytest.mark.parametrize("texts", ["all", "pairs", "none"])
def test_which_texts_are_stored(url: str, texts: Any) -> None:
    with TrafficLog(url, texts=texts, redact=lambda text: text.replace("4711", "***")) as log:
        log.shadows.known(0, 0.0)
        record(log, "card 4711")
        record(log, "card 4711", shadow=Shadow(1.0), other=lambda side: Answer("shadow of 4711", "gpt"))
    with TrafficDatabase(url) as database:
        plain, drawn = database.outcomes()
    stored = {"all": (True, True), "pairs": (False, True), "none": (False, False)}[texts]
    assert (plain.call.prompt, drawn.call.prompt) == tuple("card ***" if kept else None for kept in stored)
    assert (plain.answers["weak"].text is not None, drawn.answers["weak"].text is not None) == stored
    assert drawn.answers["strong"].text == ("shadow of ***" if stored[1] else None)
    # what is hashed is what was stored: a hash of the secret could be guessed
    assert plain.call.prompt_hash == drawn.call.prompt_hash
    with TrafficLog(url) as log:
        record(log, "card ***")
    with TrafficDatabase(url) as database:
        assert {call.prompt_hash for call in database.calls()} == {plain.call.prompt_hash}


def test_a_text_that_cannot_be_redacted_is_not_stored(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with TrafficLog(url, redact=lambda text: 1 / 0) as log:  # type: ignore[arg-type, return-value]
        record(log, "secret")
        record(log, "secret")
    with TrafficDatabase(url) as database:
        assert {(call.prompt, call.prompt_hash) for call in database.calls()} == {(None, None)}
    assert caplog.text.count("redact= failed (ZeroDivisionError)") == 1


def test_vectors_and_costs(url: str) -> None:
    class Lengths:
        dimension = 2

        def embed(self, texts: Any) -> Any:
            return np.array([[len(text), 1] for text in texts], dtype=np.float32)

    prices = {"mini": Price(1.0, 2.0), "strong": Price(10.0, 10.0)}
    with TrafficLog(url, texts="none", embedder=Lengths(), prices=prices, app="shop") as log:  # type: ignore[arg-type]
        record(log, "four", Answer("a", "mini", 100, 100), conversation="7")
        record(log, None, Answer("a", "other", 100, 100))
        record(log, "seventh", Answer("a", "other", 100, 100), decision=decision("strong"))
    with TrafficDatabase(url) as database:
        first, second, third = database.outcomes()
        assert list(database.calls(app="nobody")) == []
        state = database.load_state(EMBEDDER_STATE)
    assert state == {"sample": probe(Lengths()), "since": 0.0}  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.call.vector, [4, 1])
    assert second.call.vector is None
    np.testing.assert_array_equal(third.call.vector, [7, 1])
    assert first.call.prompt is None
    assert first.call.conversation not in (None, "7")
    assert [o.answers[o.call.side].cost for o in (first, second, third)] == [pytest.approx(0.0003), None, 0.002]


def test_vectors_of_a_new_embedder_begin_when_it_came(url: str) -> None:
    class Constant:
        dimension = 2

        def __init__(self, *values: float) -> None:
            self.values = values

        def embed(self, texts: Any) -> Any:
            return np.array([self.values] * len(texts), dtype=np.float32)

    for embedder, changes in ((Constant(1, 0), False), (Constant(1, 0), False), (Constant(0, 1), True)):
        begun = time.time()
        with TrafficLog(url, texts="none", embedder=embedder) as log:  # type: ignore[arg-type]
            record(log, "four")
        with TrafficDatabase(url) as database:
            state = database.load_state(EMBEDDER_STATE)
        assert state is not None
        assert state["sample"] == list(embedder.values)
        assert (state["since"] >= begun) is changes


def test_what_is_old_or_too_much_is_deleted(url: str) -> None:
    with TrafficLog(url, retention_days=1) as log:
        old = record(log)
    with TrafficDatabase(url) as database, database.writing() as connection:
        from sqlalchemy import text

        connection.execute(text("UPDATE routellm_calls SET created = created - 90000"))
    with TrafficLog(url, retention_days=1) as log:
        new = record(log)
    with TrafficDatabase(url) as database:
        assert [call.id for call in database.calls()] == [new] != [old]
    with TrafficLog(url, max_rows=5) as log:
        ids = [record(log, decision=decision(), step=0) for _ in range(20)]
    with TrafficDatabase(url) as database:
        assert [call.id for call in database.calls()] == ids[-5:]
        assert database.summary().sides["weak"].calls == 5


def test_feedback_and_labels_return_at_once_and_may_come_first(log: TrafficLog, url: str) -> None:
    made = decision()
    log.feedback(made.id, 0.0)
    log.feedback(made.id, 0.5)  # thought better of it
    log.feedback(made.id, 1.0, source="grader", key="length")
    log.label(made.id, strong=1.0, weak=0.0)
    record(log, decision=made)
    log.flush()
    with TrafficDatabase(url) as database:
        (outcome,) = database.outcomes(labeller="nobody")
        assert outcome.scores == {"weak": 0.5}
        assert len(list(database.feedback())) == 2
        assert [label.strong_score for label in database.labels()] == [1.0]
    for wrong in ({"score": 1.5}, {"score": True}, {"score": 1.0, "side": "left"}, {"score": 1.0, "key": ""}):
        with pytest.raises(ConfigurationError):
            log.feedback(made.id, **wrong)
    with pytest.raises(ConfigurationError):
        log.label(made.id, strong=2, weak=0)


@pytest.mark.parametrize(
    "options",
    [
        {"texts": "some"}, {"redact": "x"}, {"embedder": 1}, {"prices": {"a": 1}}, {"retention_days": 0},
        {"max_rows": 0}, {"flush_seconds": 0}, {"queue_size": 0}, {"app": ""},
    ],
)  # fmt: skip
def test_what_a_log_cannot_be_made_with(tmp_path: Path, options: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(options))}="):
        TrafficLog(f"sqlite:///{tmp_path}/traffic.db", **options)


def test_limits_count_on_in_the_log(log: TrafficLog, url: str) -> None:
    prices = {"strong": Price(1e6, 1e6), "weak": Price(1.0, 1.0)}
    limit = SpendLimit(100.0, prices=prices, store=log)
    limit.spent("", "strong", 3, 4)
    assert limit._saver is not None
    limit._saver.write()
    log.flush()
    assert SpendLimit(100.0, prices=prices, store=TrafficLog(url)).spending() == 7.0


# --- when the database does not work ---


def test_calls_wait_for_no_lock_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path}/traffic.db"
    log = TrafficLog(url, flush_seconds=0.02, queue_size=400)
    record(log)
    assert log.flush()
    other = sqlite3.connect(tmp_path / "traffic.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: record(log), range(1000)))
    wait_until(lambda: "cannot be written" in caplog.text)
    other.execute("COMMIT")
    other.close()
    assert log.flush(LIMIT)
    log.close()
    with TrafficDatabase(url) as database:
        summary = database.summary()
    assert summary.calls + summary.dropped["queue full"] == 1001
    assert summary.calls >= 400
    assert [r.message.split(" (")[0].split(" ")[-3:] for r in caplog.records] == [
        ["cannot", "be", "written"], ["is", "written", "again"]
    ]  # fmt: skip


def test_a_later_schema_turns_the_log_off(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with TrafficDatabase(url, create=True) as database, database.writing() as connection:
        put_meta(connection, "schema", "2.0")
    log = TrafficLog(url, flush_seconds=0.02)
    for _ in range(3):
        record(log)
    log.flush()
    for _ in range(3):
        record(log)
    log.close()
    assert log.dropped == {"log off": 6}
    assert caplog.text.count("nothing is written") == 1


def test_a_dead_server_costs_nothing_but_what_is_counted(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    url = server.url()
    log = TrafficLog(url, flush_seconds=0.02)
    record(log)
    assert log.flush()
    server.stop()
    try:
        for _ in range(500):
            record(log)
        wait_until(lambda: "cannot be written" in caplog.text)
        assert not log.flush(0.5)
    finally:
        server.start()
    assert log.flush(LIMIT)
    log.close()
    assert counted(url) == 501
    assert log.dropped == {}


def test_what_a_closed_log_could_not_write_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = TrafficLog(f"sqlite:///{tmp_path}/traffic.db", flush_seconds=0.02)
    record(log)
    assert log.flush()
    other = sqlite3.connect(tmp_path / "traffic.db", isolation_level=None)
    other.execute("begin exclusive")
    for _ in range(250):  # more than a batch
        record(log)
    log.close()
    log.close()  # as a `with` block does after a call by hand
    other.execute("rollback")
    other.close()
    assert log.dropped == {"not written": 250}
    assert caplog.text.count("250 entries of the traffic log") == 1
    assert counted(log.url) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    program = f"""
import resource, signal, time
from routellm_core import RoutingDecision, TrafficLog
from routellm_core.log import Answer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = TrafficLog("sqlite:///{tmp_path}/traffic.db", flush_seconds=0.02)
def record():
    log.recording(RoutingDecision("weak", .4, .5, "mf"), prompt="x" * 2000).answered(Answer("y" * 2000))
record()
assert log.flush()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
for _ in range(1000):
    record()
until = time.monotonic() + {LIMIT}
while not log._writer._ill:
    assert time.monotonic() < until
    time.sleep(.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert log.flush({LIMIT})
log.close()
assert log.dropped == {{}}, log.dropped
"""
    _run(program)
    assert counted(f"sqlite:///{tmp_path}/traffic.db") == 1001


# --- processes ---

_PROGRAM = """
import os, sys, time
from routellm_core import RoutingDecision, TrafficLog
from routellm_core.log import Answer
log = TrafficLog(sys.argv[1])
def record(count):
    for i in range(count):
        log.recording(RoutingDecision("weak", .4, .5, "mf"), prompt=str(i)).answered(Answer("hello"))
"""


def _run(program: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done


@pytest.mark.parametrize(
    "end",
    [
        "", "sys.exit(0)", "raise SystemExit", "1 / 0", "import atexit; atexit.register(lambda: record(0))",
        "time.sleep(1); record(300)",
    ],
)  # fmt: skip
def test_a_normal_exit_loses_nothing(url: str, end: str) -> None:
    _run(f"{_PROGRAM}\nrecord(1200)\n{end}", url, check=False)
    assert counted(url) == 1200 + 300 * ("300" in end)


def test_a_child_of_multiprocessing_loses_nothing(url: str) -> None:
    program = """
import multiprocessing as mp
if __name__ == "__main__":
    record(100)
    context = mp.get_context("fork")
    children = [context.Process(target=record, args=(100,)) for _ in range(3)]
    for child in children: child.start()
    for child in children: child.join(60); assert child.exitcode == 0
"""
    _run(_PROGRAM + program, url)
    assert counted(url) == 400


@pytest.mark.slow
def test_four_processes_into_one_database(url: str) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", f"{_PROGRAM}\nrecord(800)", url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in running:  # they create the tables at the same time, too
        _, errors = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, errors
        assert errors == b""
    assert counted(url) == 3200
    with TrafficDatabase(url) as database:
        assert len({call.id for call in database.calls()}) == 3200


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("moment", ["importing", "writing"])
def test_children_forked_at_any_moment_write_all_rows_once(url: str, moment: str) -> None:
    wait = (
        ""
        if moment == "importing"
        else "log.flush(); import threading; stop = []\n"
        + (
            "def busy():\n    while not stop: record(5); time.sleep(.001)\n"
            "thread = threading.Thread(target=busy); thread.start()\n"
        )
    )
    program = f"""
record(50)
{wait}
children = []
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        own = log
        record(50)
        os._exit(0 if own.flush() else 1)
    children.append(pid)
    time.sleep(.05)
until = time.monotonic() + {LIMIT}
for pid in children:
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < until, "a child hangs"
        time.sleep(.01)
    assert os.waitstatus_to_exitcode(done[1]) == 0
if {moment == "writing"}:
    stop.append(1)
    thread.join()
log.close()
print(log._writer._done)
"""
    done = _run(_PROGRAM + program, url)
    assert counted(url) == int(done.stdout) + 300


@pytest.mark.slow
def test_kill_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/traffic.db"
    program = """
n = 0
while True:
    record(1)
    n += 1
    print(n, flush=True)
    time.sleep(.01)
"""
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM + program, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 400:
            break
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    made = int((rest.split() or [line])[-1])
    assert 0 < counted(url) <= made
    connection = sqlite3.connect(tmp_path / "traffic.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


# --- shadow calls ---


def test_where_shadows_end(url: str) -> None:
    with TrafficLog(url, prices={"gpt": Price(1e6, 0.0), "mini": Price(1.0, 1.0)}) as log:
        log.shadows.known(0, 0.0)
        few = Shadow(1.0, max_pairs=3)
        for _ in range(10):
            record(log, shadow=few, other=lambda side: Answer("a", "gpt", 1, 1))
            log.shadows.wait(LIMIT)
        # three cost 1 each; the budget has room for two more
        cheap = Shadow(1.0, budget=5.0)
        for _ in range(10):
            record(log, shadow=cheap, other=lambda side: Answer("a", "gpt", 1, 1))
            log.shadows.wait(LIMIT)
    with TrafficDatabase(url) as database:
        assert database.summary().pairs == 5
        assert [call.p_shadow for call in database.calls()] == [1.0] * 3 + [0.0] * 7 + [1.0] * 2 + [0.0] * 8
    with TrafficLog(url) as log:  # another process goes on from there
        record(log)
        wait_until(lambda: not log.shadows.chance(few))
        assert log.shadows.chance(Shadow(0.5, max_pairs=6)) == 0.5


def test_pairs_that_still_wait_to_be_written_count(url: str) -> None:
    with TrafficLog(url, prices={"gpt": Price(1e6, 0.0), "mini": Price(1.0, 1.0)}, flush_seconds=60.0) as log:
        pairs, money = Shadow(1.0, max_pairs=2), Shadow(1.0, budget=2.0)

        def one_more() -> None:
            record(log, shadow=pairs, other=lambda side: Answer("a", "gpt", 1, 0))
            log.shadows.wait(LIMIT)

        one_more()
        assert log.flush()
        wait_until(lambda: not log._writer._hurry)  # the next one waits for others to be written with
        one_more()
        with TrafficDatabase(url) as database:
            assert database.shadows_so_far() == (1, 1.0)
            log._kept_up(database)  # as the writer's thread does once a minute
        assert log.shadows.chance(pairs) == log.shadows.chance(money) == 0.0


def test_flush_waits_for_each_shadow_call_that_is_under_way(
    log: TrafficLog, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script of 900 calls lost most of its pairs at the end, without a word."""
    monkeypatch.setattr("routellm_core.log.traffic_log._SHADOW_SECONDS", 0.0)
    waits, goes_on = threading.Event(), threading.Event()
    wait = log.shadows._finished.wait

    def waiting(seconds: float) -> bool:
        waits.set()
        return wait(seconds)

    monkeypatch.setattr(log.shadows._finished, "wait", waiting)

    def slow(side: Any) -> Answer:
        assert waits.wait(LIMIT)
        return Answer("a", "gpt")

    def later(side: Any) -> Answer:
        assert goes_on.wait(LIMIT)
        return Answer("later", "gpt")

    def last(side: Any) -> Answer:
        assert waits.wait(LIMIT)
        record(log, shadow=Shadow(1.0, concurrency=2), other=later)  # the app goes on: nobody waits for this one
        return Answer("a", "gpt")

    one_at_a_time = Shadow(1.0, concurrency=1)
    for other in (slow, slow, slow, last):
        record(log, shadow=one_at_a_time, other=other)
    assert log.flush()
    with TrafficDatabase(url) as database:
        assert database.summary().pairs == 4
    goes_on.set()
    assert log.flush()
    with TrafficDatabase(url) as database:
        assert database.summary().pairs == 5


def test_flush_waits_no_longer_than_a_shadow_call_may_take(log: TrafficLog, url: str) -> None:
    released = threading.Event()
    hanging = Shadow(1.0, timeout=0.05)
    record(log, shadow=hanging, other=lambda side: Answer("late") if released.wait(LIMIT) else Answer("never"))
    assert log.flush()
    released.set()
    with TrafficDatabase(url) as database:
        assert next(database.outcomes()).answers["strong"].error == "TimeoutError"


def test_shadow_calls_that_end_with_the_program_are_said_once(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("routellm_core.log.traffic_log._SHADOW_SECONDS", 0.0)
    released = threading.Event()
    log = TrafficLog(url)
    for _ in range(3):
        record(log, shadow=Shadow(1.0), other=lambda side: Answer("a") if released.wait(LIMIT) else Answer("b"))
    log.close()
    released.set()
    (said,) = [record.message for record in caplog.records if "shadow calls" in record.message]
    assert "3 shadow calls were under way" in said
    assert "flush()" in said
    assert "aflush()" in said


def test_an_unknown_cost_ends_shadows_with_a_budget(log: TrafficLog, caplog: pytest.LogCaptureFixture) -> None:
    limited = Shadow(1.0, budget=5.0)
    record(log, shadow=limited, other=lambda side: Answer("a", "gpt"))
    log.shadows.wait(LIMIT)
    assert log.shadows.chance(limited) == 0.0
    assert "budget=5 cannot be kept" in caplog.text


def test_a_shadow_that_hangs_counts_as_failed(log: TrafficLog, url: str) -> None:
    release = threading.Event()
    hanging = Shadow(1.0, concurrency=1, timeout=0.05)

    def hang(side: str) -> Answer:
        release.wait(LIMIT)
        return Answer("late")

    def later_call() -> bool:
        log.shadows.chance(hanging)  # any notices
        return not log.shadows._running

    record(log, shadow=hanging, other=hang)
    wait_until(later_call)
    release.set()
    log.flush()
    with TrafficDatabase(url) as database:
        (outcome,) = database.outcomes()
    assert outcome.answers["strong"].error == "TimeoutError"


def test_draws_are_independent_of_the_coin_and_the_same_again() -> None:
    ids = [decision().id for _ in range(20_000)]
    shadow = Shadow(0.2)
    drawn = np.array([shadow.draws(call) for call in ids])
    assert drawn.mean() == pytest.approx(0.2, abs=0.015)
    assert [shadow.draws(call) for call in ids[:50]] == list(drawn[:50])
    coin = np.array([int(call[:8], 16) < 0.2 * 16**8 for call in ids])
    assert drawn[coin].mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("reason", ["forced", "capability", "limit"])
def test_calls_without_a_choice_have_no_shadow(log: TrafficLog, reason: Any) -> None:
    recording = log.recording(decision(reason=reason), shadow=Shadow(1.0))
    assert not recording.is_drawn


def test_the_options_are_one_for_all(log: TrafficLog) -> None:
    routing = Routing.of({"threshold": 0.5, "router": "random", "log": log, "shadow": 0.25}, owner="x")
    request = routing.request(CallSettings(), gap=lambda: None, texts=lambda: ["one", "two"])
    routing.recording(Decided(decision(), request, CallSettings(conversation="c"))).answered(Answer("a"))
    log.flush()
    with log.database() as database:
        (call,) = database.calls()
    assert (call.prompt, call.p_shadow) == ("one\n\ntwo", 0.25)
    with pytest.raises(ConfigurationError, match="a budget needs prices"):
        Routing.of({"threshold": 0.5, "log": log, "shadow": Shadow(0.1, budget=1.0)}, owner="x")
    assert logging.getLogger("routellm_core")
    with pytest.raises(DataError):
        TrafficDatabase("postgresql://nobody@127.0.0.1:1/none")


def test_a_flushs_timeout_is_for_shadow_calls_and_database_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = TrafficLog(f"sqlite:///{tmp_path}/traffic.db")
    left: list[float | None] = []
    monkeypatch.setattr(log.shadows, "wait", lambda seconds: time.sleep(0.05))
    monkeypatch.setattr(log._writer, "flush", left.append)
    log.flush(0.05)
    asyncio.run(log.aflush(0.05))
    log.flush()
    assert left == [0.0, 0.0, None]
