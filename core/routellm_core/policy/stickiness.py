"""Stickiness: a conversation that went to the strong model stays there, until it has become easy."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from routellm_core.checks import checked_seconds, refuses_unknown_options, shown
from routellm_core.errors import ConfigurationError
from routellm_core.forks import fork_safe_lock
from routellm_core.policy.decision import RoutingDecision, RoutingRequest

logger = logging.getLogger("routellm_core")

_SETTINGS = ("key", "release_after", "ttl", "max_conversations")
# Reasons of a strong decision that say nothing about the conversation, so they must not hold it.
_PASSING = frozenset({"error", "deadline", "observed", "no_text", "capability"})


@dataclass(slots=True)
class _Hold:
    since: float
    weak_in_a_row: int = 0


@refuses_unknown_options
class Stickiness:
    """Remembers which conversations have gone to the strong model, and keeps them there.

    A conversation is held by any strong decision except one that says nothing about it: one that the failure rule made
    (an outage of the router must not pin it), or the capability guard (a call with an image goes to the strong model
    only while the image is in what is sent). It is let go by a call forced to weak, by `release`, after
    `release_after` calls in a row that would have been weak on their own, or `ttl` seconds after its last call. Safe
    for threads; bounded memory: beyond
    `max_conversations` the one unused for longest is forgotten.

    Args:
        key: Name of the ``configurable`` entry (LangChain) that identifies a conversation; or a function that gets the
            messages of a call and returns an id, such as a hash of the first turn, for apps whose calls carry no id.
        release_after: Let go after this many calls in a row below the threshold, so that one hard prompt does not buy
            strong answers for ever; None keeps the hold. With None, held calls do not ask the router at all.
        ttl: Seconds after which an unused hold ends; None never.
        max_conversations: How many holds are remembered.
        clock: Seconds, monotonic; for tests.
    """

    def __init__(
        self,
        key: str | Callable[[Any], str | int | None] = "thread_id",
        *,
        release_after: int | None = 3,
        ttl: float | None = None,
        max_conversations: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not callable(key) and not (isinstance(key, str) and key):
            raise ConfigurationError(
                f"key={shown(key)}: expected the name of a configurable entry, such as 'thread_id', or a function of "
                "the messages"
            )
        for name, value in (("release_after", release_after), ("max_conversations", max_conversations)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigurationError(f"{name}={shown(value)}: expected an integer >= 1")
        self.key = key if isinstance(key, str) else "thread_id"
        self.id_of = key if callable(key) else None
        self._warned = False
        self.release_after = release_after
        self.ttl = checked_seconds(ttl, "ttl", without="to hold without end")
        self.max_conversations = max_conversations
        self._clock = clock
        self._holds: OrderedDict[str, _Hold] = OrderedDict()
        self._lock = fork_safe_lock(self, "_lock")

    @classmethod
    def of(cls, sticky: Any) -> Stickiness | None:
        """What an adapter's ``sticky=`` means: None or False, True (by thread_id), a key or a function, or itself.

        True, a key and a function stand for a `Stickiness` with its defaults; a dict is one that `to_dict` gave.
        """
        if sticky is None or sticky is False:
            return None
        if sticky is True:
            return cls()
        if isinstance(sticky, cls):
            return sticky
        if isinstance(sticky, str) or callable(sticky):
            return cls(sticky)
        if isinstance(sticky, Mapping) and sticky.keys() <= set(_SETTINGS):
            return cls(**sticky)
        raise ConfigurationError(
            f"sticky={shown(sticky)}: expected None, True (holds by thread_id), the name of a configurable key, a "
            "function of the messages, or a Stickiness"
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values; ``sticky=`` takes them back. The conversations that it holds are not in it.

        A key that is a function is only named in it, as ``"function"``: ``sticky=`` refuses such a dict.
        """
        settings = {name: getattr(self, name) for name in _SETTINGS}
        if self.id_of is not None:
            settings["function"] = getattr(self.id_of, "__qualname__", type(self.id_of).__name__)
        return settings

    def conversation(self, given: Mapping[str, Any], messages: Callable[[], Any] | None = None) -> str | None:
        """Identify the conversation of a call.

        Args:
            given: What the caller says of the call; the entry under `key` comes first.
            messages: Gives the call's messages, for a function of them.

        Returns:
            The id, or None when nothing names one: then the call is not held, and the first time a warning says so.
        """
        found = given.get(self.key)
        if found is None and self.id_of is not None and messages is not None:
            found = self.id_of(messages())
        if found is not None:
            return str(found)
        if not self._warned:
            self._warned = True
            how = f"set the call's {self.key!r}, or give sticky= a function of the messages"
            logger.warning("sticky= does nothing for a call that names no conversation: %s", how)
        return None

    def held(self, conversation: str | None) -> bool:
        """Whether this conversation stays with the strong model."""
        with self._lock:
            return self._hold(conversation) is not None

    def before(self, conversation: str | None, request: RoutingRequest) -> RoutingRequest:
        """Settle the request of a held conversation, unless its win rate is needed to release it."""
        if request.force is None and self.release_after is None and self.held(conversation):
            return replace(request, force="strong", reason="sticky")
        return request

    def after(self, conversation: str | None, decision: RoutingDecision) -> RoutingDecision:
        """Take note of a decision; a weak one of a held conversation becomes strong with ``reason="sticky"``."""
        # a limit overrides a hold, and observing must not change any call
        if conversation is None or (decision.model == "weak" and decision.reason in ("limit", "observed")):
            return decision
        with self._lock:
            hold = self._hold(conversation)
            if decision.reason == "forced" and decision.model == "weak":
                self._holds.pop(conversation, None)
                return decision
            if decision.model == "strong":
                if hold is not None:
                    if decision.reason != "sticky":
                        hold.weak_in_a_row = 0
                elif decision.reason not in _PASSING:
                    self._holds[conversation] = _Hold(self._clock())
                    while len(self._holds) > self.max_conversations:
                        self._holds.popitem(last=False)
                return decision
            if hold is None:
                return decision
            hold.weak_in_a_row += 1
            if self.release_after is not None and hold.weak_in_a_row >= self.release_after:
                del self._holds[conversation]
                return decision
            return replace(decision, model="strong", reason="sticky", p_strong=1.0)

    def release(self, conversation: str) -> None:
        """Release a conversation: its next call is decided afresh."""
        with self._lock:
            self._holds.pop(conversation, None)

    def _hold(self, conversation: str | None) -> _Hold | None:
        if conversation is None:
            return None
        hold = self._holds.get(conversation)
        if hold is None:
            return None
        now = self._clock()
        if self.ttl is not None and now - hold.since > self.ttl:
            del self._holds[conversation]
            return None
        hold.since = now
        self._holds.move_to_end(conversation)
        return hold

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_holds"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # in another process: the same rule, with conversations of its own
        self.__dict__.update(state)
        self._holds = OrderedDict()
        self._lock = fork_safe_lock(self, "_lock")

    def __deepcopy__(self, memo: dict[int, Any]) -> Stickiness:
        # a copied model is the same model in the same conversations (and a lock cannot be copied)
        return self
