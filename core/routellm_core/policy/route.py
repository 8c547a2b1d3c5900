"""Route: the decision of one call and what may come after it; the same rules for both adapters."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, Generic, TypeAlias, TypeVar, cast

from routellm_core.checks import Side, other_side
from routellm_core.errors import EmptyAnswerError
from routellm_core.policy.acceptance import Cascade, RefusedAnswerError
from routellm_core.policy.cooldown import Cooldown
from routellm_core.policy.decision import RoutingDecision
from routellm_core.policy.failover import is_overflow, is_survivable
from routellm_core.policy.savings import CallCost, Discarded
from routellm_core.policy.setups import Setups, explain

A = TypeVar("A")
T = TypeVar("T")
OnUsage: TypeAlias = Callable[[Side, int | None, int | None, str | None], None]

logger = logging.getLogger("routellm_core")

_END: Any = object()


class Route(Generic[T]):
    """The ordered attempts of one call: the chosen side; after a failure that another model could survive, the other;
    after a weak answer that a check refuses, the strong one.

    Never back, and never twice. Until the first token of an answer the other side may still step in; from then on the
    decision is settled. A broken answer, such as a stream that ends without any content, is a failure too. A side that
    is cooling down after a failure is passed over from the start, unless the other one is cooling down as well, or the
    caller forced the side; should the other side then fail, the one that was passed over is tried after all. A weak
    answer that is to be checked is held back until it is accepted.

    An adapter hands in how a side is called and how an empty piece of a stream looks; `run`,
    `arun`, `stream` and `astream` walk the route. One that cannot hand its calls in (a batch, an agent's handler)
    walks it by hand: it calls `side`, then reports `failed` or `answered`.

    Attributes:
        decision: The decision as it stands; after a failover or a refused answer it names the side that answers.
        on_usage: For the adapter to call with what each model run has used, where it is not None.
        on_refused: Called with the number of model runs behind an answer that the check has refused; for the adapter to
            set where a level above has to know of it.
        cost: What the call has used and cost so far; None where nobody asks. `priced` puts the cost on the decision.

    Args:
        decision: What the policy decided.
        failover: Whether the other side may answer. Two kinds of calls have nowhere to go: one that the weak model
            cannot serve, and one that a limit sent to the weak model, which nobody may leave by making that model fail.
        cooldown: Which sides have failed recently; ignored without `failover`.
        is_broken: Whether an answer, or a piece of a stream, has no content, tool call or finish reason; asked with
            None at the end of a stream all of whose pieces are broken, or that has none; and with what a side raised:
            whether a broken answer is behind it. By default nothing is.
        cascade: The check of a weak answer; it has no say in calls that it does not concern, nor while the strong side
            is cooling down.
        on_settled: Called once with the decision as soon as it is settled: at the first token, at the end of an
            answer, or at the error that ends the call.
        to_strong: Called with the decision when a prompt is too long for the weak model, and says whether the strong
            one may answer; by default it may. Called as well when a check has refused the weak answer.
        on_usage: Called after each answer with its side, the tokens that its model has read and written (None where it
            reports none), and the model's name (None where it is unknown); None where nobody asks.
        cost: Counts what `on_usage` is called with.
        setups: How a side is set up, for the note that an error gets when its server is down or has no such model.
    """

    __slots__ = (
        "_begun",
        "_cascade",
        "_cooldown",
        "_failure",
        "_held",
        "_is_broken",
        "_may_turn",
        "_on_settled",
        "_settled",
        "_setups",
        "_sound",
        "_to_strong",
        "cost",
        "decision",
        "on_refused",
        "on_usage",
    )

    def __init__(
        self,
        decision: RoutingDecision,
        *,
        failover: bool = False,
        cooldown: Cooldown | None = None,
        is_broken: Callable[[Any], bool] = lambda _: False,
        cascade: Cascade | None = None,
        on_settled: Callable[[RoutingDecision], None] | None = None,
        to_strong: Callable[[RoutingDecision], bool] = lambda _: True,
        on_usage: OnUsage | None = None,
        cost: CallCost | None = None,
        setups: Setups | None = None,
    ) -> None:
        self.decision = decision
        self._setups = setups
        self._cooldown = cooldown if failover else None
        self._is_broken = is_broken
        # whether the stream that is being read has brought a sound piece; None before its first piece
        self._sound: bool | None = None
        self._may_turn = failover and decision.reason not in ("capability", "limit")
        self._on_settled = on_settled
        self._to_strong = to_strong
        self.on_usage = on_usage
        self.on_refused: Callable[[int], object] | None = None
        self.cost = cost
        self._settled = False
        self._begun = False
        self._held: list[T] = []
        self._failure: BaseException | None = None
        if self._may_turn and self._cooldown is not None and decision.reason != "forced":
            side, other = decision.model, other_side(decision.model)
            if not self._cooldown.is_cooling(other) and not self._cooldown.allows(side):
                self.decision = replace(decision, model=other, failover=side, detail="cooldown")
        # None from the moment on at which there is nothing left to check
        self._cascade: Cascade | None = None
        if cascade is not None and cascade.acceptance.concerns(self.decision):
            self._cascade = None if self._cooldown is not None and self._cooldown.is_cooling("strong") else cascade
        if not self._may_turn and self._cascade is None:
            self._settle()

    def priced(self) -> RoutingDecision:
        """The decision, with what the call has cost by now where prices are given."""
        if self.cost is not None:
            self.decision = replace(self.decision, cost=self.cost.total)
        return self.decision

    @property
    def side(self) -> Side:
        """The side to call."""
        return self.decision.model

    @property
    def is_broken(self) -> Callable[[Any], bool]:
        """What says whether an answer is broken, as it was passed in."""
        return self._is_broken

    @property
    def may_turn(self) -> bool:
        """Whether the other side may still answer."""
        return self._may_turn

    @property
    def is_held(self) -> bool:
        """Whether the answer of the called side is held back until a check accepts it."""
        return self._cascade is not None

    def answered(self, *_: Any) -> None:
        """Settle the decision: the called side has begun to answer, and nobody has to accept it."""
        if self._cascade is not None:
            return
        self._begun = True
        # its traceback holds this route and the stream that failed, which is to be freed now: the garbage collector
        # would close the stream at any moment, and in the middle of its client's work that can block for ever
        self._failure = None
        if self._cooldown is not None:
            self._cooldown.answered(self.side)
        self._settle()

    def _settle(self) -> None:
        self._may_turn = False
        if not self._settled:
            self._settled = True
            if self._on_settled is not None:
                self._on_settled(self.decision)

    def failed(self, exc: BaseException) -> None:
        """Turn to the other side after `exc`, or settle the decision and raise `exc` again."""
        self._cascade = None
        if isinstance(exc, RefusedAnswerError):
            self._discard("refused")
            self._to_strong(self.decision)
            self._turned(escalated=True, detail=exc.detail)
            return
        self._discard("failed")
        # a side whose answer was cut off is not dead
        survivable = is_survivable(exc) or self._is_broken(exc)
        what = self._explain(exc)
        if self._cooldown is not None and not self._begun and survivable:
            if not self._cooldown.is_cooling(self.side):
                logger.warning("the %s model fails (%s); it is passed over until it answers again", self.side, what)
            self._cooldown.failed(self.side)
        if not (self._may_turn and (survivable or self._overflowed(exc))):
            self._settle()
            first, self._failure = self._failure, None
            if exc.__context__ is None and exc is not first:
                exc.__context__ = first  # a traceback shows the failure of both sides
            raise exc
        self._failure = exc
        self._turned(failover=self.decision.model, detail=type(exc).__name__)

    def _discard(self, kind: Discarded) -> None:
        """Note that what the called side was paid for is thrown away."""
        runs = 0
        if self.cost is not None:
            setup = None if self._setups is None else self._setups(self.side)
            runs = self.cost.discard(kind, self.side, model=None if setup is None else setup.name)
        if kind == "refused" and self.on_refused is not None:
            self.on_refused(runs)

    def refused_below(self, runs: int) -> None:
        """Note that a routed model within the called side has refused an answer of that many model runs."""
        if self.cost is not None:
            self.cost.discard("refused", self.side, last=runs)

    def _explain(self, exc: BaseException) -> str:
        """Add to an error what to look at, where there is something to say; its class and that for a message."""
        note = None
        if self._setups is not None and isinstance(exc, Exception):
            note = explain(exc, self.side, self._setups)
        return type(exc).__name__ + ("" if note is None else f": {note}")

    def _turned(self, **changes: Any) -> None:
        """Turn to the other side, for good."""
        self._held.clear()
        self._sound = None
        self.decision = replace(self.decision, model=other_side(self.decision.model), **changes)
        self._settle()

    def _overflowed(self, exc: BaseException) -> bool:
        """Whether the prompt was too long for the weak model, and the strong one may answer."""
        return self.side == "weak" and is_overflow(exc) and self._to_strong(self.decision)

    def checked(self, answer: A) -> A:
        """Return an answer, or raise where it is broken, or where the check refuses it.

        Raises:
            EmptyAnswerError: It is broken.
            RefusedAnswerError: The check refuses it; `failed` turns to the strong side.
        """
        if self._is_broken(answer):
            raise empty_answer(self.side)
        if self._cascade is not None:
            self._cascade.examine(answer)
            self._cascade = None
        return answer

    async def achecked(self, answer: A) -> A:
        """Async twin of `checked`."""
        if self._is_broken(answer):
            raise empty_answer(self.side)
        if self._cascade is not None:
            await self._cascade.aexamine(answer)
            self._cascade = None
        return answer

    # --- one answer ---

    def run(self, call: Callable[[Side], T]) -> T:
        """Call the chosen side, and the other one where the rules say so; return the answer."""
        if self._settled and self._cooldown is None:
            try:
                return self.checked(call(self.decision.model))
            except Exception as exc:
                self._explain(exc)
                raise
        answer = self.attempt(lambda side: self.checked(call(side)))
        self.answered()
        return answer

    async def arun(self, call: Callable[[Side], Awaitable[T]]) -> T:
        """Async twin of `run`."""
        if self._settled and self._cooldown is None:
            try:
                return self.checked(await call(self.decision.model))
            except Exception as exc:
                self._explain(exc)
                raise

        async def checked(side: Side) -> T:
            return await self.achecked(await call(side))

        answer = await self.aattempt(checked)
        self.answered()
        return answer

    def attempt(self, call: Callable[[Side], A]) -> A:
        """Like `run`, but success does not settle the decision: what `call` returns is only the start of an answer."""
        while True:
            try:
                return call(self.side)
            except BaseException as exc:
                self.failed(exc)

    async def aattempt(self, call: Callable[[Side], Awaitable[A]]) -> A:
        """Async twin of `attempt`."""
        while True:
            try:
                return await call(self.side)
            except BaseException as exc:
                self.failed(exc)

    # --- a stream of pieces ---

    def stream(
        self,
        open_: Callable[[Side], Iterator[T]],
        is_empty: Callable[[T], bool],
        source: Iterator[T] | None = None,
    ) -> Generator[T]:
        """Stream the chosen side; hold its pieces back until one carries a token, while the other may step in.

        Args:
            open_: Opens the stream of a side; may fail, as any piece of the stream may.
            is_empty: Whether a piece holds nothing that a reader could have used.
            source: The stream of `side` where it is open already, by ``attempt(open_)``.
        """
        try:
            if source is None:
                source = self.attempt(open_)
            while not self._flows:
                try:
                    piece = next(source, _END)
                    if piece is _END:
                        self._check_end()
                        if self._cascade is not None:
                            self._cascade.examine(self._held[:])
                            self._cascade = None
                        break
                    self._take(cast(T, piece))
                    if self._cascade is not None and self._cascade.is_due(self._held):
                        self._cascade.examine(self._held[:], is_complete=False)
                        self._cascade = None
                except BaseException as exc:
                    close_stream(source)
                    self.failed(exc)
                    source = self.attempt(open_)
                else:
                    yield from self._released(cast(T, piece), is_empty)
            else:
                for piece in source:
                    yield piece
            yield from self._rest()
        finally:
            close_stream(source)

    async def astream(
        self,
        open_: Callable[[Side], Awaitable[AsyncIterator[T]]],
        is_empty: Callable[[T], bool],
        source: AsyncIterator[T] | None = None,
    ) -> AsyncGenerator[T]:
        """Async twin of `stream`."""
        closed = False
        try:
            if source is None:
                source = await self.aattempt(open_)
            while not self._flows:
                try:
                    try:
                        piece = await anext(source)
                    except StopAsyncIteration:
                        piece = _END
                    if piece is _END:
                        self._check_end()
                        if self._cascade is not None:
                            await self._cascade.aexamine(self._held[:])
                            self._cascade = None
                        break
                    self._take(piece)
                    if self._cascade is not None and self._cascade.is_due(self._held):
                        await self._cascade.aexamine(self._held[:], is_complete=False)
                        self._cascade = None
                except GeneratorExit:  # the reader is closed while it waits here: nothing may be awaited any more
                    closed = True
                    self._settle()
                    raise
                except BaseException as exc:
                    await aclose_stream(source)
                    self.failed(exc)
                    source = await self.aattempt(open_)
                else:
                    for ready in self._released(piece, is_empty):
                        yield ready
            else:
                while True:
                    try:
                        piece = await anext(source)
                    except StopAsyncIteration:
                        break
                    except GeneratorExit:
                        closed = True
                        raise
                    yield piece
            for ready in self._rest():
                yield ready
        finally:
            if not closed:
                await aclose_stream(source)

    @property
    def _flows(self) -> bool:
        """Whether the rest of a stream goes out as it comes: its side answers for good, with a sound piece."""
        return self._begun and bool(self._sound)

    def _take(self, piece: T) -> None:
        """Hold a piece that has come."""
        if not self._sound:
            self._sound = not self._is_broken(piece)
        self._held.append(piece)

    def _released(self, piece: T, is_empty: Callable[[T], bool]) -> list[T]:
        """The pieces that may go out now that `piece`, the last of them, is held."""
        return [] if self._cascade is not None or (self._may_turn and is_empty(piece)) else self._rest()

    def _check_end(self) -> None:
        """Raise where the stream that has ended was broken as a whole."""
        if not self._sound and self._is_broken(None):
            self._sound = None
            raise empty_answer(self.side)

    def _rest(self) -> list[T]:
        """The pieces that were held back; the decision is settled."""
        if not self._begun:
            self.answered()
        held, self._held = self._held, []
        return held


def empty_answer(side: Side) -> EmptyAnswerError:
    """The error of a broken answer."""
    return EmptyAnswerError(
        f"the {side} model gave an empty answer, without any content, tool call or finish reason; look at what its "
        "service sent, or set failover=True so that the other model answers"
    )


def close_stream(source: Any) -> None:
    """Close a stream where it can be closed; some models stream by a plain iterator."""
    close = getattr(source, "close", None)
    if close is not None:
        close()


async def aclose_stream(source: Any) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
