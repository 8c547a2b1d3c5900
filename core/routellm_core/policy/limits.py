"""Limits: a cap on spending, and a share of strong calls for each user that other users cannot take away."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import re
import threading
import time
import weakref
from abc import ABC
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, get_args

from routellm_core.calibration.distribution import Calibration
from routellm_core.checks import (
    MAX_STATE_BYTES,
    Side,
    checked_count,
    checked_fraction,
    is_number,
    read_json_object,
    refuses_unknown_options,
    shown,
    write_json,
)
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError, LimitError
from routellm_core.forks import fork_safe_lock, renew_in_child
from routellm_core.policy.savings import Price, checked_prices, price_of

logger = logging.getLogger("routellm_core")

Period: TypeAlias = Literal["minute", "hour", "day", "month"]
FORMAT = 1
# Seconds between two writes of a limit's state.
_SAVE_EVERY = 1.0
# Names that mean the same file on every system; others are hashed. Upper case would not, where case does not count.
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,80}")


class LimitStore(Protocol):
    """Where the state of a limit outlives the process."""

    def load_state(self, name: str) -> dict[str, Any] | None:
        """The state that was saved under `name`, or None."""

    def save_state(self, name: str, state: dict[str, Any]) -> None:
        """Save `state` under `name`."""


class FileStore:
    """States in a folder, one JSON file each, which appear whole or not at all.

    Args:
        folder: Created when it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def load_state(self, name: str) -> dict[str, Any] | None:
        """The state that was saved under `name`, or None.

        Raises:
            CheckpointError: The file is not one that `save_state` wrote.
        """
        file = self._file(name)
        if not os.path.lexists(file):
            return None
        try:
            return read_json_object(file, "expected the state of a limit", max_bytes=MAX_STATE_BYTES)
        except CheckpointNotFoundError:
            if file.is_dir():  # nothing could be saved there
                raise
            return None

    def save_state(self, name: str, state: dict[str, Any]) -> None:
        """Save `state` under `name`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._file(name), state)

    def _file(self, name: str) -> Path:
        if not _FILE_NAME.fullmatch(name):  # the key of a limit is in it, and may hold anything
            name = f"state-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
        return self.folder / f"{name}.json"

    def __repr__(self) -> str:
        return f"FileStore({str(self.folder)!r})"


class Limit(ABC):
    """A rule that may turn a strong call into a weak one; see `SpendLimit` and `ShareLimit`.

    Args:
        key: Name of the call setting that tells whose call it is, such as ``"user_id"``; None counts all calls
            together. Calls without that setting are counted together, as those of one more user.
        store: Where the counts outlive the process: a folder, or a `LimitStore` such as a `TrafficLog`.
        max_keys: How many users are remembered; the one unused for longest is forgotten.
    """

    # whether it depends on what calls use, which the adapters then report to `spent`
    needs_usage: ClassVar[bool] = False
    _name: str

    def __init__(self, *, key: str | None, store: str | Path | LimitStore | None, max_keys: int) -> None:
        if key is not None and (not isinstance(key, str) or not key):
            raise ConfigurationError(
                f"key={shown(key)}: expected the name of a call setting, such as 'user_id', or None"
            )
        if store is not None and not isinstance(store, str | Path) and not hasattr(store, "save_state"):
            raise ConfigurationError(f"store={shown(store)}: expected a folder, a TrafficLog, or None")
        self.key = key
        self.max_keys = checked_count(max_keys, "max_keys", unit="users")
        self.store: LimitStore | None = FileStore(store) if isinstance(store, str | Path) else store
        self._counts: OrderedDict[str, float] = OrderedDict()
        self._lock = fork_safe_lock(self, "_lock")
        self._saver: _Saver | None = None

    def settled(self, user: str) -> Side | None:
        """The side that a call must go to because of this limit, before any router runs; None leaves it open.

        Raises:
            LimitError: The limit is reached and refuses calls.
        """
        return None

    def allows(self, user: str, win_rate: float, calibration: Calibration | None) -> bool:
        """Whether a call that is strong by its win rate may go to the strong model."""
        return True

    def decided(self, user: str, side: Side) -> None:  # noqa: B027  # a limit notes what it goes by
        """Record which side a call of `user` goes to."""

    def turned_to_strong(self, user: str) -> None:  # noqa: B027
        """Record that a call of `user` that was decided weak goes to the strong model after all."""

    def spent(  # noqa: B027
        self, user: str, side: Side, input_tokens: int, output_tokens: int, *, model: str | None = None
    ) -> None:
        """Record what a call of `user` used."""

    # --- counts by user ---

    def _restore(self) -> None:
        if self.store is None:
            return
        state = self.store.load_state(self._name)
        if state is not None:
            try:
                self._load(state)
            except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError):
                raise CheckpointError(
                    f"the state {self._name!r} in {self.store!r:.400} is not one of a {type(self).__name__} with these "
                    "settings: remove it, or give another store="
                ) from None
        self._saver = _Saver(self)

    def _load(self, state: Mapping[str, Any]) -> None:
        if type(state["format"]) is not int or state["format"] != FORMAT:
            raise ValueError(state["format"])
        counts = state["counts"].items()
        if not all(isinstance(user, str) and is_number(value) for user, value in counts):
            raise ValueError("not numbers by user")
        self._counts = OrderedDict((user, float(value)) for user, value in counts)

    def _state(self) -> dict[str, Any]:
        return {"format": FORMAT, "counts": dict(self._counts)}

    def _set(self, user: str, value: float) -> None:
        """Keep a count; the lock is held."""
        self._counts[user] = value
        self._counts.move_to_end(user)
        while len(self._counts) > self.max_keys:
            self._counts.popitem(last=False)

    def _changed(self) -> None:
        if self._saver is not None:
            self._saver.changed()

    def snapshot(self) -> dict[str, Any]:
        """The counts as JSON values."""
        with self._lock:
            return self._state()

    def __getstate__(self) -> dict[str, Any]:
        # in another process: the same rule, with counts of its own (or those of the store)
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_saver", "_counts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._counts = OrderedDict()
        self._lock = fork_safe_lock(self, "_lock")
        self._saver = None
        self._restore()

    def __deepcopy__(self, memo: dict[int, Any]) -> Limit:
        # a copied model is the same model, with the same users
        return self


@refuses_unknown_options
class SpendLimit(Limit):
    """A cap on spending: once the money of the period is spent, every call goes to the weak model, or is refused.

    It counts what the calls used, as their providers report it, at the given prices; what is under way when the limit
    is reached is still paid for, and so are weak calls beyond it. Calls without reported usage cost nothing here; a
    warning says so. The counts start anew with each period, in UTC. Safe for threads; each process counts for itself.

    Args:
        money: The cap for one period, in the currency of `prices`; > 0.
        per: ``"minute"``, ``"hour"``, ``"day"`` or ``"month"``.
        prices: `Price` by model name, or by ``"strong"`` and ``"weak"``. A model without a price counts at the highest
            of these prices, so that a cap never counts less than what is spent.
        key: Name of the call setting that tells whose call it is; each user then has this cap. None is one cap for all.
        on_reached: ``"weak"``, or ``"raise"``, which refuses a call with a `LimitError`.
        store: Where the counts outlive the process: a folder, or a `TrafficLog`; None forgets them.
        max_keys: How many users are remembered; the one unused for longest is forgotten.
        clock: Seconds since 1970; for tests.

    Raises:
        ConfigurationError: A value is not allowed.
        CheckpointError: The store holds something else under the name of this limit.
    """

    needs_usage = True

    def __init__(
        self,
        money: float,
        *,
        per: Period = "day",
        prices: Mapping[str, Price | tuple[float, float]],
        key: str | None = None,
        on_reached: Literal["weak", "raise"] = "weak",
        store: str | Path | LimitStore | None = None,
        max_keys: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(key=key, store=store, max_keys=max_keys)
        if not is_number(money) or money <= 0:
            raise ConfigurationError(f"money={shown(money)}: expected the cap for one period, a number > 0")
        if per not in get_args(Period):
            raise ConfigurationError(f"per={shown(per)}: expected one of {', '.join(map(repr, get_args(Period)))}")
        if on_reached not in ("weak", "raise"):
            raise ConfigurationError(f"on_reached={shown(on_reached)}: expected 'weak' or 'raise'")
        known = checked_prices(prices)
        if not known or known.keys() in ({"strong"}, {"weak"}):
            raise ConfigurationError(
                f"prices={shown(prices)}: expected {{'strong': Price(input, output), 'weak': Price(input, output)}}, "
                "or prices by model name"
            )
        self.money = float(money)
        self.per: Period = per
        self.prices = known
        self.on_reached = on_reached
        self._clock = clock
        self._period = self._now()
        self._name = f"spend-{per}" if key is None else f"spend-{per}-{key}"
        self._restore()

    def spending(self, user: str = "") -> float:
        """What has been spent in this period, by one user or, without `key`, by all."""
        with self._lock:
            self._turn()
            return self._counts.get(user, 0.0)

    def settled(self, user: str) -> Side | None:
        """Weak once the money is spent."""
        if self.spending(user) < self.money:
            return None
        if self.on_reached == "raise":
            whose = "" if self.key is None else f" of this {self.key}"
            raise LimitError(
                f"the spending limit{whose} of {self.money:g} per {self.per} is reached; calls are answered again in "
                f"the next {self.per}"
            )
        return "weak"

    def spent(self, user: str, side: Side, input_tokens: int, output_tokens: int, *, model: str | None = None) -> None:
        """Add what a call used."""
        read, written = max(0, input_tokens), max(0, output_tokens)
        price = price_of(self.prices, model, side)
        prices = self.prices.values() if price is None else (price,)
        cost = max(price.cost(read, written) for price in prices)
        with self._lock:
            self._turn()
            self._set(user, self._counts.get(user, 0.0) + cost)
        self._changed()

    def _now(self) -> str:
        layout = {"minute": "%Y-%m-%dT%H:%M", "hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}[self.per]
        return time.strftime(layout, time.gmtime(self._clock()))

    def _turn(self) -> None:
        """Start anew with a new period; the lock is held."""
        now = self._now()
        if now > self._period:
            self._counts.clear()
        self._period = now  # setting the clock back does not reset the counts

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "period": self._period}

    def _load(self, state: Mapping[str, Any]) -> None:
        super()._load(state)
        if any(value < 0 for value in self._counts.values()):
            raise ValueError("negative")
        if not isinstance(state["period"], str):
            raise ValueError("no period")
        self._period = state["period"]

    def __repr__(self) -> str:
        return f"SpendLimit({self.money:g} per {self.per}, key={self.key!r}, on_reached={self.on_reached!r})"


@refuses_unknown_options
class ShareLimit(Limit):
    """A share of strong calls for each user: making every prompt look hard raises only one's own threshold.

    Each user may exceed the share by a tenth of `window` calls. Beyond that the user's own threshold rises above that
    of the policy, so that the hardest of their prompts stay strong and the share falls back; it never falls below the
    policy's. Where the policy has no calibration, strong calls are refused until the share is kept again. With
    ``online=``, refused calls count as weak ones, so that they do not move the threshold of the others. Beyond the
    share, calls that would be strong for another reason than their win rate (a held conversation, no text, a failed
    router) are refused, too; forced calls and those that the weak model cannot serve are only counted. Safe for
    threads; each process counts for itself. Memory is one number a user.

    Args:
        key: Name of the call setting that tells whose call it is, such as ``"user_id"``.
        strong_fraction: Largest share of strong calls of each user, in [0, 1].
        window: About how many calls of a user the share is measured over.
        store: Where the counts outlive the process: a folder, or a `TrafficLog`; None forgets them.
        max_keys: How many users are remembered; the one unused for longest is forgotten.

    Raises:
        ConfigurationError: A value is not allowed.
        CheckpointError: The store holds something else under the name of this limit.
    """

    def __init__(
        self,
        key: str,
        *,
        strong_fraction: float,
        window: int = 100,
        store: str | Path | LimitStore | None = None,
        max_keys: int = 100_000,
    ) -> None:
        super().__init__(key=key, store=store, max_keys=max_keys)
        if key is None:
            raise ConfigurationError("key=None: expected the name of a call setting that tells users apart")
        self.strong_fraction = checked_fraction(strong_fraction, "strong_fraction")
        self.window = checked_count(window, "window", least=10, unit="calls")
        self._slack = self.window / 10.0
        self._name = f"share-{key}"
        self._restore()

    def allows(self, user: str, win_rate: float, calibration: Calibration | None) -> bool:
        """Whether a call that is strong by the policy's threshold is strong by the user's own, too."""
        with self._lock:
            owed = self._counts.get(user, 0.0)
        over = -owed - self._slack
        if over <= 0:
            return True
        if calibration is None:
            return False
        aim = max(0.0, self.strong_fraction - over / self._slack)
        return win_rate >= calibration.threshold(strong_fraction=aim)

    def decided(self, user: str, side: Side) -> None:
        """Count a call; strong ones take from the user's share, every one adds to it."""
        self._owe(user, self.strong_fraction - (side == "strong"))

    def turned_to_strong(self, user: str) -> None:
        """Count a call that was counted as a weak one as a strong one."""
        self._owe(user, -1.0)

    def _owe(self, user: str, more: float) -> None:
        with self._lock:
            owed = self._counts.get(user, 0.0) + more
            # unused calls are not saved up, and overuse beyond half a window is forgotten
            self._set(user, min(0.0, max(-self.window / 2.0, owed)))
        self._changed()

    def _load(self, state: Mapping[str, Any]) -> None:
        super()._load(state)
        # `decided` lets no count out of this range; an earlier run may have had a longer window
        if any(value > 0 for value in self._counts.values()):
            raise ValueError("shares saved up")
        for user, value in self._counts.items():
            self._counts[user] = max(-self.window / 2.0, value)

    def __repr__(self) -> str:
        return f"ShareLimit({self.key!r}, strong_fraction={self.strong_fraction}, window={self.window})"


def checked_limits(value: Any) -> tuple[Limit, ...]:
    """Return the limits of a policy as a tuple, or raise a `ConfigurationError`."""
    limits = tuple(value) if isinstance(value, list | tuple) else (value,)
    for limit in limits:
        if not isinstance(limit, Limit):
            raise ConfigurationError(
                f"limits={shown(value)}: expected a list of SpendLimit(...) and ShareLimit(...) objects"
            )
    return limits


class _Saver:
    """Writes the state of a limit at most once a second, in a daemon thread, and when the program ends."""

    def __init__(self, limit: Limit) -> None:
        self._limit = weakref.ref(limit)
        self._dirty = False
        self._running = False
        self._lock = fork_safe_lock(self, "_lock")
        renew_in_child(self, _Saver._without_thread)
        atexit.register(_write_last, weakref.ref(self))

    def _without_thread(self) -> None:
        self._running = False

    def changed(self) -> None:
        if self._dirty and self._running:
            return
        with self._lock:
            self._dirty = True
            if self._running:
                return
            self._running = True
        # the thread keeps the limit alive until its counts are saved, even if nothing else refers to it
        threading.Thread(target=self._run, args=(self._limit(),), name="routellm-limits", daemon=True).start()

    def _run(self, limit: Limit) -> None:
        while True:
            time.sleep(_SAVE_EVERY)
            with self._lock:
                if not self._dirty:
                    self._running = False
                    return
            self.write()

    def write(self) -> None:
        limit = self._limit()
        if limit is None or limit.store is None or not self._dirty:
            return
        self._dirty = False
        try:
            limit.store.save_state(limit._name, limit.snapshot())
        except Exception as exc:  # a full disk must not make a call fail
            logger.warning("the state of %r cannot be saved (%s)", limit, type(exc).__name__)


def _write_last(reference: weakref.ref[_Saver]) -> None:
    saver = reference()
    if saver is not None:
        saver.write()
