"""The traffic log under load: what a call waits for it, how much it writes, and what trouble costs.

    python benchmarks/traffic_log.py [--postgres URL] [--rows 1000000] [--only enqueue,sustained,trouble,kill,large]

SQLite is measured in a temporary folder. A PostgreSQL address needs an empty database that may be written to.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from routellm_core import RoutingDecision, TrafficLog
from routellm_core.log import Answer, TrafficDatabase
from routellm_core.log.cleaning import clean

PROMPT, TEXT = "p" * 600, "a" * 1500


def record(log: TrafficLog) -> None:
    """One call with its answer, as an adapter records it."""
    decision = RoutingDecision("weak", 0.4, 0.5, "mf", router_version="0123456789ab")
    log.recording(decision, prompt=PROMPT).answered(Answer(TEXT, "mini", 150, 380))


def in_threads(work: Callable[[], None], threads: int) -> None:
    """Run `work` in several threads at once."""
    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def enqueue(url: str, threads: int = 8, calls: int = 2000) -> str:
    """Quantiles of what a call waits for, with all threads recording at the pace of 1,000 calls a second in all."""
    log, waits = TrafficLog(url), []
    record(log)
    log.flush()

    def work() -> None:
        own = []
        for _ in range(calls // threads):
            begun = time.perf_counter()
            record(log)
            own.append(time.perf_counter() - begun)
            time.sleep(threads / 1000)
        waits.extend(own)

    in_threads(work, threads)
    log.close()
    p50, p99 = np.quantile(waits, (0.5, 0.99)) * 1e6
    return (
        f"{threads} threads: p50 {p50:.0f} us, p99 {p99:.0f} us, longest {1e3 * max(waits):.1f} ms; lost {log.dropped}"
    )


def sustained(url: str, calls: int = 20_000) -> str:
    """Calls a second into the database, with texts."""
    log = TrafficLog(url, queue_size=calls)
    record(log)
    log.flush()
    begun = time.perf_counter()
    for _ in range(calls):
        record(log)
    log.flush()
    seconds = time.perf_counter() - begun
    log.close()
    return f"{calls / seconds:,.0f} calls a second; lost {log.dropped}"


def trouble(name: str, url: str, begin: Callable[[], None], end: Callable[[], None]) -> str:
    """The longest wait of a call while the database does not work, and what is lost."""
    log = TrafficLog(url, flush_seconds=0.05)
    record(log)
    log.flush()
    begin()
    longest = 0.0
    until = time.monotonic() + 3.0
    calls = 0
    while time.monotonic() < until:
        begun = time.perf_counter()
        record(log)
        longest = max(longest, time.perf_counter() - begun)
        calls += 1
        time.sleep(0.001)
    end()
    log.close()
    return f"{name}: longest wait {1e3 * longest:.2f} ms in {calls:,} calls; lost {log.dropped}"


def locked(folder: Path) -> str:
    """Another process holds the file."""
    file = folder / "locked.db"
    other: list[sqlite3.Connection] = []

    def begin() -> None:
        other.append(sqlite3.connect(file, isolation_level=None))
        other[0].execute("BEGIN EXCLUSIVE")

    return trouble("locked", f"sqlite:///{file}", begin, lambda: other[0].execute("COMMIT").close())


def full(folder: Path) -> str:
    """No file may grow any more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    return trouble(
        "disk full",
        f"sqlite:///{folder}/full.db",
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)),
    )


def dead() -> str:
    """A server that nobody answers for."""
    log = TrafficLog("postgresql://nobody@127.0.0.1:1/none", flush_seconds=0.05)
    longest = 0.0
    for _ in range(2000):
        begun = time.perf_counter()
        record(log)
        longest = max(longest, time.perf_counter() - begun)
        time.sleep(0.001)
    return f"dead server: longest wait {1e3 * longest:.2f} ms; lost {log.dropped}, {log._writer._put:,} waiting"


def kill(folder: Path, flush_seconds: float) -> str:
    """Calls that a kill -9 loses at 100 calls a second."""
    file = folder / f"killed-{flush_seconds}.db"
    program = (
        "import time, sys; sys.path.insert(0, sys.argv[2]); from benchmarks.traffic_log import *\n"
        f"log = TrafficLog(sys.argv[1], flush_seconds={flush_seconds})\n"
        "n = 0\nwhile True:\n    record(log); n += 1; print(n, flush=True); time.sleep(.01)\n"
    )
    root = str(Path(__file__).resolve().parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", program, f"sqlite:///{file}", root], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdout is not None
    last = ""
    for last in process.stdout:
        if int(last) >= 500:
            break
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    made = int((rest.split() or [last])[-1])
    with TrafficDatabase(f"sqlite:///{file}") as database:
        found = database.summary().calls
    with sqlite3.connect(file) as connection:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
    return f"kill -9, flush {flush_seconds} s: {made - found} of {made} calls lost; integrity {sound}"


def large(url: str, rows: int) -> str:
    """Many calls without texts: bytes a call, and what a summary takes."""
    with TrafficDatabase(url, create=True) as database:
        for start in range(0, rows, 20_000):
            calls, answers = [], []
            for i in range(start, min(rows, start + 20_000)):
                side = "strong" if i % 3 == 0 else "weak"
                key = f"{i:016x}{i:016x}"
                calls.append(
                    clean("calls", {
                        "id": key, "created": 1e9 + i, "run_id": f"0199{i:032x}", "router": "mf:0123456789ab",
                        "prompt_hash": key, "win_rate": (i % 997) / 997, "threshold": 0.6, "reason": "win_rate",
                        "p_strong": float(side == "strong"), "p_shadow": 0.05, "side": side,
                    })
                )  # fmt: skip
                sides = [(side, "routed"), ("weak" if side == "strong" else "strong", "shadow")]
                for of, kind in sides[: 1 + (i % 20 == 0)]:
                    answers.append(
                        clean("answers", {
                            "call_id": key, "side": of, "created": 1e9 + i, "kind": kind, "model": "gpt-4.1-mini",
                            "input_tokens": 220, "output_tokens": 310, "cost": 0.001, "latency": (i % 1000) / 500,
                        })
                    )  # fmt: skip
            database.write({"calls": calls, "answers": answers})
        times = []
        for work in (
            lambda: database.summary(since=1e9 + 0.9 * rows),
            lambda: database.count_pairs(without_label=True),
            lambda: next(iter(database.pairs(without_label=True))),
        ):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
    file = Path(url.removeprefix("sqlite:///"))
    size = f", {file.stat().st_size / rows:.0f} bytes a call" if file.is_file() else ""
    return (
        f"{rows:,} calls: summary of the last tenth {times[0]:.2f} s, pairs without a label counted {times[1]:.2f} s, "
        f"the first of them read {times[2]:.2f} s{size}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", metavar="URL")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", default="enqueue,sustained,trouble,kill,large")
    options = parser.parse_args()
    only = options.only.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, url in (("sqlite", f"sqlite:///{folder}/traffic.db"), ("postgresql", options.postgres)):
            if url is None:
                continue
            if "enqueue" in only:
                print(f"{kind} enqueue, {enqueue(url)}", flush=True)
            if "sustained" in only:
                print(f"{kind} sustained: {sustained(url)}", flush=True)
            if "large" in only:
                place = f"sqlite:///{folder}/large.db" if kind == "sqlite" else url
                print(f"{kind} {large(place, options.rows)}", flush=True)
        if "trouble" in only:
            for line in (locked(folder), full(folder), dead()):
                print(line, flush=True)
        if "kill" in only:
            for seconds in (0.1, 0.5, 2.0):
                print(kill(folder, seconds), flush=True)


if __name__ == "__main__":
    main()
