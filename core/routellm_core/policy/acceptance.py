"""Acceptance: whether the weak model's answer will do, or the strong model has to answer after all (a cascade)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from routellm_core.checks import checked_count, checked_fraction, checked_seconds, is_number, shown
from routellm_core.errors import ConfigurationError
from routellm_core.policy.decision import RoutingDecision
from routellm_core.routers.function import awaited, is_async
from routellm_core.workers import Workers

DEFAULT_SECONDS = 30.0
# Decisions for weak that nobody made on purpose; a forced, observed or limited one is to stay.
_OPEN = frozenset({"win_rate", "explored", "error", "deadline"})
# A check that hangs must use up no thread that anything else needs.
_workers = Workers("routellm-accept", 16)


@dataclass(frozen=True, slots=True)
class WeakAnswer:
    """An answer of the weak model, in the same form from both frameworks and the server.

    Attributes:
        text: Its text.
        tool_calls: Name and arguments of each tool that it calls.
        finish_reason: Why it ended, as the provider says it: ``"stop"``, ``"length"``, ...; None when unknown.
        logprobs: Log-probability of each token (natural logarithm), where the provider gives them; else None.
        is_complete: False where a stream is judged on its beginning, see ``accept_after``.
        raw: The framework's own answer: a message, a response, the JSON object of the server's reply; a list of
            pieces where it was streamed.
    """

    text: str
    tool_calls: tuple[tuple[str, Any], ...] = ()
    finish_reason: str | None = None
    logprobs: tuple[float, ...] | None = None
    is_complete: bool = True
    raw: Any = None


Accept: TypeAlias = Callable[..., Any]


class RefusedAnswerError(Exception):
    """The weak model's answer will not do. It never leaves a route, which turns to the strong model.

    Attributes:
        detail: What went wrong with the check; None for a plain refusal.
    """

    def __init__(self, detail: str | None = None) -> None:
        super().__init__("the weak model's answer was refused")
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The check of weak answers, and which of them it is asked about.

    Attributes:
        check: Gets the `WeakAnswer` and, where it takes two arguments, the messages of the call; returns True or
            False, or a score for which `threshold` decides; may be a coroutine function.
        threshold: A score of at least this is accepted.
        band: Win rates ``(low, high)``, from the first to below the second, within which weak answers are checked; up
            to 1 includes 1. None checks all.
        after: Characters of a stream after which its beginning is judged and, once accepted, passed on; None holds
            a stream until it is complete.
        deadline: Seconds that the check may take; a check that takes longer, or fails, accepts nothing.
    """

    check: Accept
    threshold: float = 0.5
    band: tuple[float, float] | None = None
    after: int | None = None
    deadline: float = DEFAULT_SECONDS
    _wants_messages: bool = field(default=False, repr=False)

    @classmethod
    def of(
        cls,
        accept: Accept | None,
        *,
        threshold: float = 0.5,
        band: Sequence[float] | None = None,
        after: int | None = None,
        deadline: float = DEFAULT_SECONDS,
    ) -> Acceptance | None:
        """What the options ``accept=`` and ``accept_...=`` mean.

        Raises:
            ConfigurationError: A value is not allowed, or an option has no check to go with.
        """
        if accept is None:
            for name, value, default in (
                ("accept_threshold", threshold, 0.5),
                ("accept_band", band, None),
                ("accept_after", after, None),
                ("accept_deadline", deadline, DEFAULT_SECONDS),
            ):
                if value != default:
                    raise ConfigurationError(f"{name}={shown(value)} has no check to go with: give accept=, too")
            return None
        if not callable(accept):
            raise ConfigurationError(
                f"accept={shown(accept)}: expected a function of the weak answer (and the messages) that returns True, "
                "False or a score"
            )
        seconds = checked_seconds(deadline, "accept_deadline", without="is not allowed here")
        if seconds is None:
            raise ConfigurationError("accept_deadline=None: expected a number of seconds > 0")
        return cls(
            accept,
            checked_fraction(threshold, "accept_threshold"),
            checked_band(band),
            None if after is None else checked_count(after, "accept_after", unit="characters"),
            seconds,
            _takes_two(accept),
        )

    def concerns(self, decision: RoutingDecision) -> bool:
        """Whether the answer to a call is to be checked."""
        if decision.model != "weak" or decision.reason not in _OPEN or decision.failover is not None:
            return False
        if self.band is None:
            return True
        low, high = self.band
        # exploration sends even a win rate of 1 to the weak model, and no band could hold it otherwise
        return decision.win_rate is not None and low <= decision.win_rate and (decision.win_rate < high or high == 1.0)

    def examine(self, answer: WeakAnswer, messages: Any) -> None:
        """Check an answer, within the deadline.

        Raises:
            RefusedAnswerError: It will not do, or the check failed or hangs.
        """
        import asyncio

        def work() -> Any:
            found = self._ask(answer, messages)
            return asyncio.run(awaited(found)) if inspect.isawaitable(found) else found

        future = _workers.submit(work)
        try:
            result = future.result(self.deadline)
        except TimeoutError as exc:
            raise RefusedAnswerError("deadline" if not future.done() else type(exc).__name__) from None
        except Exception as exc:
            raise RefusedAnswerError(type(exc).__name__) from None
        self._judge(result)

    async def aexamine(self, answer: WeakAnswer, messages: Any) -> None:
        """Like `examine`, without blocking the event loop; a coroutine function runs in the loop itself."""
        import asyncio

        try:
            async with asyncio.timeout(self.deadline) as limit:
                if is_async(self.check):
                    result = self._ask(answer, messages)
                else:
                    result = await asyncio.wrap_future(_workers.submit(lambda: self._ask(answer, messages)))
                if inspect.isawaitable(result):
                    # with a context of its own: a model that judges must not appear among the runs of the user's call
                    result = await asyncio.create_task(awaited(result), context=Context())
        except Exception as exc:
            raise RefusedAnswerError("deadline" if limit.expired() else type(exc).__name__) from None
        self._judge(result)

    def _ask(self, answer: WeakAnswer, messages: Any) -> Any:
        return self.check(answer, messages) if self._wants_messages else self.check(answer)

    def _judge(self, result: Any) -> None:
        """Turn what the check returned into a verdict."""
        if isinstance(result, bool):
            accepted = result
        elif is_number(result):
            accepted = result >= self.threshold
        else:
            raise RefusedAnswerError(f"{type(result).__name__} is not a verdict")
        if not accepted:
            raise RefusedAnswerError


@dataclass(frozen=True, slots=True)
class Cascade:
    """The check of one call's answer: made for each call by an adapter, used by its `Route`.

    Attributes:
        acceptance: The check.
        answer_of: Turns the framework's answer into a `WeakAnswer`; gets a list of pieces of a stream.
        messages: What was asked, as the check gets it.
    """

    acceptance: Acceptance
    answer_of: Callable[[Any], WeakAnswer]
    messages: Any = None

    def examine(self, given: Any, *, is_complete: bool = True) -> None:
        """Check an answer; see `Acceptance.examine`."""
        self.acceptance.examine(self._answer(given, is_complete), self.messages)

    async def aexamine(self, given: Any, *, is_complete: bool = True) -> None:
        """Async twin of `examine`."""
        await self.acceptance.aexamine(self._answer(given, is_complete), self.messages)

    def is_due(self, pieces: Sequence[Any]) -> bool:
        """Whether a stream is to be judged on the pieces that have come so far."""
        after = self.acceptance.after
        return after is not None and len(self.answer_of(pieces).text) >= after

    def _answer(self, given: Any, is_complete: bool) -> WeakAnswer:
        answer = self.answer_of(given)
        return answer if is_complete else replace(answer, is_complete=False)


def _takes_two(check: Accept) -> bool:
    """Whether a check wants the messages, too."""
    try:
        parameters = inspect.signature(check).parameters.values()
    except (TypeError, ValueError):  # some built-in functions tell nothing
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(required) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def checked_band(band: Any) -> tuple[float, float] | None:
    """The band of ``accept_band=``, or a `ConfigurationError`."""
    if band is None:
        return None
    sound = isinstance(band, list | tuple) and len(band) == 2 and all(is_number(edge) for edge in band)
    if not sound or not 0 <= band[0] < band[1] <= 1:
        raise ConfigurationError(f"accept_band={shown(band)}: expected two win rates (low, high), 0 <= low < high <= 1")
    return cast(tuple[float, float], tuple(map(float, band)))
