"""Writer: a bounded queue and one thread that writes it to a database in batches; nobody who fills it ever waits."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from routellm_core.forks import fork_safe_lock, renew_in_child
from routellm_core.log.urls import shown_url

if TYPE_CHECKING:
    from routellm_core.log.database import TrafficDatabase

logger = logging.getLogger("routellm_core")

# What is put at once: rows by table as they came, to be prepared and cleaned in the thread.
Entry: TypeAlias = Sequence[tuple[str, Mapping[str, Any]]]
Rows: TypeAlias = dict[str, list[dict[str, Any]]]

BATCH = 200
# Characters of texts that wait; the queue's length alone would not bound the memory.
MAX_WAITING_CHARACTERS = 64 * 2**20
# A thread without work ends after this many seconds.
_IDLE_SECONDS = 5.0
# Seconds without a batch written after which a flush gives up on a database that fails.
_FAILING_SECONDS = 2.0
# Likewise on one that does not fail: on a busy machine with a slow disk it takes long to import SQLAlchemy, to make the
# tables and to write a batch. A server that has vanished fails sooner, by its connection's time-outs.
_WORKING_SECONDS = 60.0
# Seconds between two tries, growing from the first to the second; and at most while somebody waits for what is queued.
_RETRY = (0.05, 1.0)
_HURRIED_RETRY = 0.1
# After the last try, how long `close` waits at most for the thread to count what is lost; mostly it takes a moment.
_COUNTING_SECONDS = 10.0
_NOT_WRITTEN = "not written"
# How long the database may be busy before the thread lets go of it, so that a fork need not wait.
_BUSY_SECONDS = 0.1
# A database that is busy for longer than this is said not to work.
_BUSY_AT_MOST = 1.0
# A fork waits for the thread to leave the database, or the import of its driver.
_FORK_PATIENCE = 30.0
_UPKEEP_SECONDS = 60.0

# Connections that a forked child has from its parent: to close them there would end them for the parent.
_inherited: list[Any] = []


class Writer:
    """Writes entries to a database in the background.

    Whatever happens to the database, `put` returns at once. While it cannot be written to (a lock, a full disk, a
    server that is down) entries wait, and those that find the queue full are counted. A row that the database refuses
    is counted, too, and costs no other row.

    A forked child has a queue and a thread of its own. When the program ends, what is queued is still written.

    Args:
        url: A checked address.
        prepare: Turns entries into cleaned rows by table, and counts what cannot be one by cause; called in the thread.
        upkeep: Called in the thread with the open database once it is open and then about once a minute; returns
            whether it wants to be called again at once.
        flush_seconds: The longest time that an entry waits while the database is well.
        queue_size: Entries that may wait.
        at_exit: Called at the end of the program, before what is queued is written.
    """

    def __init__(
        self,
        url: str,
        prepare: Callable[[Sequence[Entry]], tuple[Rows, dict[str, int]]],
        upkeep: Callable[[TrafficDatabase], bool],
        *,
        flush_seconds: float,
        queue_size: int,
        at_exit: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = url
        self.at_exit = at_exit
        self.flush_seconds = flush_seconds
        self.queue_size = queue_size
        self._prepare = prepare
        self._upkeep = upkeep
        self._lock = fork_safe_lock(self, "_lock")
        # around everything that SQLAlchemy does, its import included: a child that is forked meanwhile would hang
        self._database_lock = fork_safe_lock(self, "_database_lock", patience=_FORK_PATIENCE)
        self._database: TrafficDatabase | None = None
        self._renew()
        renew_in_child(self, Writer._renew)
        atexit.register(_write_last, weakref.ref(self))

    def _renew(self) -> None:
        if self._database is not None:
            _inherited.append(self._database)
            self._database = None
        self._queue: deque[tuple[Entry, int]] = deque()
        self._characters = 0
        self._put = 0  # entries that were put, and those that are written or counted as dropped
        self._done = 0
        self._changed = threading.Condition(self._lock)
        self._running = False
        self._hurry = False  # somebody waits for what is queued
        self._closed = False
        self._stop = threading.Event()  # gives up on a database that does not work
        self._opened_once = False
        self._off: str | None = None  # why nothing is written any more
        self._trouble_since: float | None = None  # when the database began not to work
        self._ill = False  # it has not worked for a while, which was said
        self._next_upkeep = 0.0
        self.dropped: dict[str, int] = {}  # in this process, by cause
        self._uncounted: dict[str, int] = {}  # of these, what the database does not know yet

    # --- the side of the calls ---

    def put(self, entry: Entry, characters: int = 0) -> None:
        """Queue the rows of one event; what finds no room is counted.

        Args:
            entry: Rows by table.
            characters: Length of their texts.
        """
        with self._lock:
            if self._off is not None or self._closed:
                self._drop(self._off or "closed")
                return
            waiting = len(self._queue)
            if waiting >= self.queue_size or self._characters + characters > MAX_WAITING_CHARACTERS:
                self._drop("queue full")
                return
            self._queue.append((entry, characters))
            self._characters += characters
            self._put += 1
            if self._running:
                if waiting == 0 or waiting + 1 == BATCH:
                    self._changed.notify_all()
                return
            self._running = True
        self._start()

    def count(self, cause: str, count: int) -> None:
        """Count what is lost before it could be queued."""
        if count:
            with self._lock:
                self._drop(cause, count)

    def _drop(self, cause: str, count: int = 1) -> None:
        """Count what is lost; the lock is held."""
        for counts in (self.dropped, self._uncounted):
            counts[cause] = counts.get(cause, 0) + count

    def _start(self) -> None:
        _flush_in_child_processes(self)
        try:
            threading.Thread(target=self._run, name="routellm-log", daemon=True).start()
        except RuntimeError:  # the interpreter is ending; what is queued is written by whoever flushes
            with self._lock:
                self._running = False

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything that is queued by now is in the database.

        Args:
            timeout: Seconds to wait at most; None waits as long as batches are being written.

        Returns:
            Whether everything is written or counted; False when the time is over.
        """
        with self._lock:
            wanted = self._put
            if not self._running and self._queue:  # no thread can be started any more: the program is ending
                self._running = True
                self._stop.set()
                inline = True
            else:
                inline = False
        if inline:
            self._run()
        started = time.monotonic()
        with self._lock:
            before, moved = (self._done, self._opened_once), started
            while self._done < wanted and self._running:
                self._hurry = True
                self._changed.notify_all()
                now = time.monotonic()
                if (self._done, self._opened_once) != before:
                    before, moved = (self._done, self._opened_once), now
                patience = _FAILING_SECONDS if self._ill else _WORKING_SECONDS
                left = moved + patience - now if timeout is None else started + timeout - now
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.1))
            return self._done >= wanted

    def close(self) -> bool:
        """Write what is queued and close the database; later entries are counted as dropped.

        Returns:
            Whether everything was written or counted.
        """
        written = self.flush()
        with self._lock:
            was_closed, self._closed = self._closed, True
            self._changed.notify_all()
        self._stop.set()
        with self._database_lock:  # the try that is under way may write what the flush did not wait for
            pass
        with self._lock:
            self._changed.wait_for(lambda: not self._running, _COUNTING_SECONDS)
            lost = self._put - self._done + self.dropped.get(_NOT_WRITTEN, 0)
        if lost and not was_closed:  # said once, where it is closed twice
            logger.warning("%d entries of the traffic log %s are lost: it cannot be written", lost, shown_url(self.url))
        with self._database_lock:
            if self._database is not None:
                self._database.close()
                self._database = None
        return written

    # --- the thread ---

    def _run(self) -> None:
        again = False
        while True:
            with self._lock:
                self._wait_for_a_batch(0.0 if again else _IDLE_SECONDS)
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                self._characters -= sum(characters for _, characters in batch)
                if not batch and not again:
                    self._running = False
                    self._changed.notify_all()
                    return
            if batch:
                self._write([entry for entry, _ in batch])
            again = self._kept_up()

    def _wait_for_a_batch(self, idle_seconds: float) -> None:
        """Wait for entries, and then a little longer for more of them; the lock is held."""
        idle_until = time.monotonic() + idle_seconds
        while not self._queue and not self._closed and (left := idle_until - time.monotonic()) > 0:
            self._hurry = False
            self._changed.wait(left)
        full_at = time.monotonic() + self.flush_seconds
        while 0 < len(self._queue) < BATCH and not self._hurry and not self._closed:
            left = full_at - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _write(self, entries: Sequence[Entry]) -> None:
        """Write a batch, however long the database does not work; only a program's end gives up."""
        rows, lost = self._prepare(entries)
        pause, longest = _RETRY
        while self._off is None:
            try:
                with self._database_lock:
                    refused = self._open().write(rows)
                if refused:
                    lost["refused"] = lost.get("refused", 0) + refused
                self._recovered()
                break
            except Exception as error:  # whatever the database does, no call suffers
                self._failed(error)
            if self._stop.wait(min(pause, _HURRIED_RETRY) if self._hurry else pause):
                lost[_NOT_WRITTEN] = len(entries)
                break
            pause = min(2 * pause, longest)
        else:
            lost = {self._off or "": len(entries)}
        self._settle(len(entries), lost)

    def _open(self) -> TrafficDatabase:
        """The database, opened where it is not; its lock is held."""
        if self._database is None:
            from routellm_core.log.database import TrafficDatabase

            self._database = TrafficDatabase(self.url, create=True, busy_seconds=_BUSY_SECONDS)
            self._opened_once = True
        return self._database

    def _settle(self, entries: int, lost: Mapping[str, int]) -> None:
        """Count what a batch lost, first in the database, so that a flush waits for that, too."""
        with self._lock:
            for cause, count in lost.items():
                self._drop(cause, count)
            uncounted = self._uncounted
            self._uncounted = {}
        # at the end there is no later batch to count them with, and one more try would only take time
        if uncounted and _NOT_WRITTEN not in lost and not self._counted(uncounted):
            with self._lock:
                for cause, count in uncounted.items():
                    self._uncounted[cause] = self._uncounted.get(cause, 0) + count
        with self._lock:
            self._done += entries
            self._changed.notify_all()

    def _counted(self, uncounted: Mapping[str, int]) -> bool:
        try:
            with self._database_lock:
                self._open().count_dropped(uncounted)
        except Exception:  # they are counted with the next batch
            return False
        return True

    def _kept_up(self) -> bool:
        """Do the upkeep where it is due; whether there is more of it to do at once."""
        if self._off is not None or self._ill or time.monotonic() < self._next_upkeep:
            return False
        again = False
        try:
            with self._database_lock:
                again = self._upkeep(self._open())
        except Exception as error:
            logger.debug("upkeep of the traffic log failed (%s)", type(error).__name__)
        if not again:
            self._next_upkeep = time.monotonic() + _UPKEEP_SECONDS
        return again

    def _failed(self, error: Exception) -> None:
        """Say once that the database does not work, or that nothing will be logged at all."""
        shown = shown_url(self.url)
        newer = type(error).__name__ == "NewerSchemaError"  # its class cannot be imported here without SQLAlchemy
        if newer or isinstance(error, ImportError):
            self._off = "log off"
            logger.warning("nothing is written to the traffic log %s: %s", shown, error)
            return
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
        # for a moment it is busy whenever others write to it
        if not self._ill and now - self._trouble_since >= _BUSY_AT_MOST:
            self._ill = True
            logger.warning(
                "the traffic log %s cannot be written (%s); calls go on, and up to %d of them are kept until it can",
                shown,
                _reason(error),
                self.queue_size,
            )

    def _recovered(self) -> None:
        self._trouble_since = None
        if self._ill:
            self._ill = False
            logger.warning("the traffic log %s is written again", shown_url(self.url))


def _reason(error: Exception) -> str:
    """The class and the first line of what the driver says: more could quote a row."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0][:200]}"


def _flush_in_child_processes(writer: Writer) -> None:
    """Have a child of `multiprocessing` write what is queued at its end, where no atexit function runs."""
    util: Any = sys.modules.get("multiprocessing.util")
    process: Any = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(writer, _write_last, args=(weakref.ref(writer),), exitpriority=10)


def _write_last(reference: weakref.ref[Writer]) -> None:
    writer = reference()
    if writer is not None:
        writer.at_exit()
        writer.flush()
