"""Fork safety: a child process never waits for a lock that a thread of its parent held."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

# Seconds that a fork waits for one lock. After that, the child replaces the lock and repairs what it guards.
_PATIENCE = 1.0


# the owner of a lock, what repairs it, and the seconds that a fork waits for it
_Entry: TypeAlias = "tuple[weakref.ref[Any], Callable[[Any], None] | None, float | None]"

_registry_lock = threading.Lock()
_locks: dict[tuple[int, str], _Entry] = {}
_renewals: dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]] = {}
_held: list[threading.Lock] = []
_missed: list[tuple[int, str]] = []


def fork_safe_lock(
    owner: Any, attribute: str, *, repair: Callable[[Any], None] | None = None, patience: float | None = None
) -> threading.Lock:
    """Return a new lock for ``owner.attribute`` that is acquired around every fork and replaced in the child.

    What the lock guards is therefore consistent in the child, and the child can acquire it. The lock must only be held
    briefly, and nobody may acquire another such lock while holding it.

    Args:
        owner: The object that stores the lock in `attribute`; it is referenced weakly.
        attribute: Name of the attribute.
        repair: Called with `owner` in a child whose parent could not acquire the lock in time (the machine was stalled,
            or the forking thread holds it), because what it guards may be inconsistent. None if that does not matter.
        patience: Seconds that a fork waits for the lock; None waits a second, which suits a lock that is held briefly.
    """
    key = (id(owner), attribute)
    with _registry_lock:
        _locks[key] = (weakref.ref(owner, _forgetting(_locks, key)), repair, patience)
    return threading.Lock()


def renew_in_child(owner: Any, renew: Callable[[Any], None]) -> None:
    """Call ``renew(owner)`` in every forked child, where the threads of the parent do not exist."""
    with _registry_lock:
        _renewals[id(owner)] = (weakref.ref(owner, _forgetting(_renewals, id(owner))), renew)


@cache
def torch_computes() -> None:
    """Say that torch is about to compute, so that it computes in one thread in every child that is forked later.

    The child lacks the threads of torch's OpenMP, and would wait for them for ever. A child whose parent has computed
    nothing starts its own, and keeps them all.
    """
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def _forgetting(registry: dict[Any, Any], key: Any) -> Callable[[Any], None]:
    def forget(_: Any) -> None:
        registry.pop(key, None)  # without the lock: the collector may call this anywhere, and this step is atomic

    return forget


def _before() -> None:
    _registry_lock.acquire()
    for key, (reference, _, patience) in list(_locks.items()):
        lock = getattr(reference(), key[1], None)
        if lock is None:
            continue
        if lock.acquire(timeout=_PATIENCE if patience is None else patience):
            _held.append(lock)
        else:
            _missed.append(key)


def _after_in_parent() -> None:
    while _held:
        _held.pop().release()
    _missed.clear()
    _registry_lock.release()


def _after_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    _held.clear()
    for key, (reference, repair, _) in list(_locks.items()):
        owner = reference()
        if owner is not None:
            setattr(owner, key[1], threading.Lock())
            if repair is not None and key in _missed:
                repair(owner)
    _missed.clear()
    for kept, renew in list(_renewals.values()):
        owner = kept()
        if owner is not None:
            renew(owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
