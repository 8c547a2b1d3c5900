"""Forks: a child process never waits for a lock that a thread of its parent held."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

# A lock that somebody holds for longer than this at the moment of a fork is renewed in the child all the same.
_PATIENCE = 1.0

_registry_lock = threading.Lock()
_locks: dict[tuple[int, str], weakref.ref[Any]] = {}
_renewals: dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]] = {}
_patience: dict[tuple[int, str], float] = {}
_held: list[threading.Lock] = []


def fork_safe_lock(owner: Any, attribute: str, *, patience: float = _PATIENCE) -> threading.Lock:
    """Return a new lock for ``owner.attribute`` that is taken around every fork and new in the child.

    So what the lock guards is whole in the child, and the child can take it. The lock must be held for moments only,
    and nobody may take another such lock while holding it.

    Args:
        owner: The object that keeps the lock in `attribute`; it is referenced weakly.
        attribute: Name of the attribute.
        patience: Seconds that a fork waits for the lock, where it is held for longer than moments.
    """
    key = (id(owner), attribute)
    with _registry_lock:
        _locks[key] = weakref.ref(owner, _forgetting(_locks, key))
        if patience != _PATIENCE:
            _patience[key] = patience
        else:
            _patience.pop(key, None)
    return threading.Lock()


def renew_in_child(owner: Any, renew: Callable[[Any], None]) -> None:
    """Call ``renew(owner)`` in every forked child, where the threads of the parent do not exist."""
    with _registry_lock:
        _renewals[id(owner)] = (weakref.ref(owner, _forgetting(_renewals, id(owner))), renew)


def _forgetting(registry: dict[Any, Any], key: Any) -> Callable[[Any], None]:
    def forget(_: Any) -> None:
        registry.pop(key, None)  # without the lock: the collector may call this anywhere, and this step is atomic

    return forget


def _before() -> None:
    _registry_lock.acquire()
    for key, reference in list(_locks.items()):
        lock = getattr(reference(), key[1], None)
        if lock is not None and lock.acquire(timeout=_patience.get(key, _PATIENCE)):
            _held.append(lock)


def _after_in_parent() -> None:
    while _held:
        _held.pop().release()
    _registry_lock.release()


def _after_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    _held.clear()
    for (_, attribute), reference in list(_locks.items()):
        owner = reference()
        if owner is not None:
            setattr(owner, attribute, threading.Lock())
    for kept, renew in list(_renewals.values()):
        owner = kept()
        if owner is not None:
            renew(owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
