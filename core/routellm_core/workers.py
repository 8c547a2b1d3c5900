"""Workers: a bounded number of threads per router, which never keep a program from ending."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from routellm_core.forks import fork_safe_lock, renew_in_child

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

# Threads per router. Routers compute in numpy or torch, which use several cores themselves.
LIMIT = 4
# An idle thread ends after this many seconds.
_IDLE_SECONDS = 5.0
# A thread that has worked on one task for this long may be hanging: another one may be started in its place.
_STUCK_SECONDS = 5.0


class Workers:
    """Runs functions in a bounded number of daemon threads.

    Unlike with the executors of the standard library, nothing waits for these threads when the program or an event loop
    ends, so a function that never returns does not block the exit. Threads start on demand and end when they have been
    idle for a while. A thread that seems to hang is replaced, up to twice `limit` threads; beyond that, tasks wait. A
    forked child starts without threads.

    Args:
        name: Name of the threads.
        limit: Number of threads that work at the same time.
        stuck_after: Seconds of work on one task after which a thread counts as hanging.
    """

    def __init__(self, name: str, limit: int = LIMIT, *, stuck_after: float = _STUCK_SECONDS) -> None:
        self.name = name
        self.limit = limit
        self.stuck_after = stuck_after
        self._lock = fork_safe_lock(self, "_lock")
        self._renew()
        renew_in_child(self, Workers._renew)

    def _renew(self) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._threads = 0
        self._outstanding = 0  # tasks that have been submitted and have not ended
        self._since: dict[int, float] = {}  # thread -> when it started its task

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` in a thread and return a future of its result or exception."""
        from concurrent.futures import Future  # imported here because it is slow to import

        future: Future[T] = Future()
        with self._lock:
            self._outstanding += 1
            self._tasks.put((future, work))
            if self._lacks_a_thread():
                self._threads += 1
                threading.Thread(target=self._work, args=(self._tasks,), name=self.name, daemon=True).start()
        return future

    def _lacks_a_thread(self) -> bool:
        if self._threads < min(self._outstanding, self.limit):
            return True
        if not self.limit <= self._threads < 2 * self.limit:
            return False
        longest = time.monotonic() - self.stuck_after
        stuck = sum(since < longest for since in self._since.values())
        return self._threads - stuck < min(self._outstanding - stuck, self.limit)

    def _work(self, tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]]]) -> None:
        me = threading.get_ident()
        while True:
            try:
                future, work = tasks.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if tasks.empty():  # otherwise a task was submitted just now, counting on this thread
                        self._threads -= 1
                        return
                continue
            self._since[me] = time.monotonic()
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except StopIteration as exc:
                    # as in a coroutine (PEP 479): no asyncio future takes one, and who awaits it would wait for ever
                    error = RuntimeError("the work of a thread raised StopIteration")
                    error.__cause__ = exc
                    future.set_exception(error)
                except BaseException as exc:
                    future.set_exception(exc)
                else:
                    future.set_result(result)
                    del result
            del future, work  # an idle thread keeps nothing alive
            with self._lock:
                self._since.pop(me, None)
                self._outstanding -= 1


_of_routers: WeakKeyDictionary[Any, Workers] = WeakKeyDictionary()
_shared = Workers("routellm-router")


def workers_of(router: Any) -> Workers:
    """Return the workers of a router, so that a router that hangs blocks only its own.

    Routers that cannot be a weakly referenced key (they define equality without a hash) share one set of workers.
    """
    try:
        found = _of_routers.get(router)
        if found is None:
            found = _of_routers.setdefault(router, Workers(f"routellm-{getattr(router, 'name', 'router')}"))
    except TypeError:
        return _shared
    return found


async def in_background(router: Any, work: Callable[[], T]) -> T:
    """Run `work` in a worker of `router`, in the context of the calling task, and await its result."""
    import asyncio  # loaded wherever this runs; a top-level import would dominate the import time of this package

    context = copy_context()
    return await asyncio.wrap_future(workers_of(router).submit(lambda: context.run(work)))
