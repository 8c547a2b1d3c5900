"""Paid calls: estimated before, made concurrently within the limits of the services, and each paid for once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from routellm_core.checks import checked_count, is_number
from routellm_core.errors import ConfigurationError
from routellm_core.labelling.chat_models import CallError, ChatModel, Reply
from routellm_core.labelling.journal import Entry, Journal, valid_value

if TYPE_CHECKING:
    from routellm_core.checks import Progress
    from routellm_core.policy.savings import Price

# After so many calls in a row that failed in spite of all retries the service is down: the rest would wait in vain.
# After so many questions without one usable reply the model does not understand: the rest would be paid for in vain.
_GIVE_UP_AFTER = 20
# A service that has not answered once and cannot be reached is most likely not running: no use to wait a minute for it.
_FIRST_CONTACT_RETRIES = 2
_MAX_WAIT = 300.0


class CallLimits(TypedDict, total=False):
    """Options of everything that makes paid calls.

    Attributes:
        concurrency: Calls under way at a time, for each model; default 8.
        tries: How often a question is asked in all when the replies cannot be used (no verdict in them, or empty);
            each of these replies is paid for. Default 2.
        retries: Further attempts, for each call, after a failure that may pass (a rate limit, a broken connection);
            default 6.
        backoff: Seconds before the first of them when the service names no time; doubles with each. Default 1.
    """

    concurrency: int
    tries: int
    retries: int
    backoff: float


@dataclass(frozen=True)
class _Limits:
    concurrency: int = 8
    tries: int = 2
    retries: int = 6
    backoff: float = 1.0

    def __post_init__(self) -> None:
        checked_count(self.concurrency, "concurrency")
        checked_count(self.tries, "tries")
        checked_count(self.retries, "retries", least=0)
        if not is_number(self.backoff) or self.backoff < 0:
            raise ConfigurationError(f"backoff={self.backoff!r}: expected a number of seconds >= 0")


@dataclass
class CallTally:
    """Totals of the calls to one model.

    Attributes:
        asked: Replies paid for in this run.
        remembered: Questions whose reply was in the journal already.
        failed: Calls that failed for good.
        retries: Attempts that failed and were repeated.
        prompt_tokens: Tokens of the questions paid for in this run, as far as the service reported them.
        completion_tokens: Tokens of the replies, likewise.
        errors: How often each kind of failure ended a call.
    """

    asked: int = 0
    remembered: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def metered(self) -> bool:
        """Whether the service reported tokens, or nothing was asked."""
        return not self.asked or bool(self.prompt_tokens or self.completion_tokens)

    def cost(self, price: Price | None) -> float | None:
        """What the calls of this run cost; None without a price, or when the service reported no tokens."""
        return price.cost(self.prompt_tokens, self.completion_tokens) if price is not None and self.metered else None

    def to_dict(self) -> dict[str, Any]:
        """All counts as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class CallEstimate:
    """What calls will take, before anything is paid.

    Attributes:
        rows: Rows to label or to answer.
        calls: Calls still to make when every reply can be used.
        remembered: Questions that the journal has answered already.
        prompt_tokens: Estimated tokens of the questions of these calls; see `estimated_tokens`.
        completion_tokens: Estimated tokens of their replies.
        cost: Estimated cost of these calls in the currency of the price; None without a price.
        most_calls: Calls when no reply can be used and every question is asked as often as `tries` allows.
        most_cost: Cost of so many calls, with replies as long as the model's token limit allows where it has one; None
            without a price.
    """

    rows: int
    calls: int
    remembered: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    most_calls: int
    most_cost: float | None

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ReplyLength:
    """How long replies are, in tokens.

    Attributes:
        usual: What an estimate reckons with.
        most: The longest reply there can be, or what is taken for it.
    """

    usual: int
    most: int


def estimate_calls(
    questions: Iterable[tuple[str, int]],
    journal: Mapping[str, Sequence[Entry]],
    *,
    rows: int,
    reply: ReplyLength,
    tries: int,
    price: Price | None,
) -> CallEstimate:
    """Estimate what questions will take that `make_calls` is going to ask.

    Args:
        questions: Key and tokens of each question; a key that comes again counts once.
        journal: The entries of earlier runs by key. The mean length of their replies to these questions replaces the
            usual one.
        rows: Number of rows, for the report.
        reply: Length of a reply.
        tries: See `CallLimits`.
        price: Price of the model, or None.
    """
    calls = remembered = read = most_calls = most_read = 0
    lengths: list[int] = []
    for key, tokens in dict(questions).items():
        entries = journal.get(key, ())
        lengths += [entry["tokens"][1] for entry in entries if any(entry.get("tokens", ()))]
        if _is_settled(entries, tries):
            remembered += 1
            continue
        left = tries - len(entries)
        calls, read = calls + 1, read + tokens
        most_calls, most_read = most_calls + left, most_read + left * tokens
    usual = round(sum(lengths) / len(lengths)) if lengths else reply.usual
    written = calls * usual
    return CallEstimate(
        rows=rows,
        calls=calls,
        remembered=remembered,
        prompt_tokens=read,
        completion_tokens=written,
        cost=None if price is None else price.cost(read, written),
        most_calls=most_calls,
        most_cost=None if price is None else price.cost(most_read, most_calls * max(usual, reply.most)),
    )


def total_cost(estimates: Iterable[CallEstimate]) -> tuple[float, float] | None:
    """The estimated and the greatest cost of several parts; None when a part that makes calls has no price."""
    cost = most = 0.0
    for estimate in estimates:
        if not estimate.calls:
            continue
        if estimate.cost is None or estimate.most_cost is None:
            return None
        cost, most = cost + estimate.cost, most + estimate.most_cost
    return cost, most


def estimated_tokens(text: str) -> int:
    """Tokens of a text, roughly: one for every four ASCII characters and one for every other character."""
    other = 0 if text.isascii() else sum(c > "\x7f" for c in text)
    return (len(text) - other + 3) // 4 + other


def _is_settled(entries: Sequence[Entry], tries: int) -> bool:
    """Whether a question has a usable reply, or as many unusable ones as are asked for."""
    return len(entries) >= tries or valid_value(entries) is not None


@dataclass(frozen=True)
class Call:
    """One question to one model.

    Attributes:
        key: Names the question in the journal; equal questions have equal keys and are asked once.
        model: The model to ask.
        system: Instructions, or None.
        user: The question.
        label: Name under which the call is tallied; calls with one label share a rate limit.
    """

    key: str
    model: ChatModel
    system: str | None
    user: str
    label: str


async def make_calls(
    calls: Iterable[Call],
    journal: Journal,
    *,
    read: Callable[[Reply], dict[str, Any] | None],
    progress: Progress | None = None,
    **limits: Unpack[CallLimits],
) -> tuple[dict[str, dict[str, Any] | None], dict[str, CallTally]]:
    """Ask every question once, whatever fails, and write each reply to the journal before it is used.

    A rate limit (429) or an overloaded service holds back all calls of that label for as long as the service asks, else
    for a time that doubles. When the run is cancelled (Ctrl-C) or a fatal error ends it, no further call starts; those
    under way are waited for and written down, because they are paid for. A label that gets no usable reply to its first
    twenty questions is asked no further, which its tally says under `errors`.

    Args:
        calls: The questions.
        journal: Where the replies are kept; questions that it answers are not asked again.
        read: Turns a reply into the JSON values to keep, or None when it cannot be used; the journal then keeps its
            text.
        progress: Called with the numbers of calls done and in all.
        **limits: See `CallLimits`.

    Returns:
        What `read` made of each reply, by key: None where no reply could be used; questions that failed or were not
        asked are absent. And the totals of the calls, by label.

    Raises:
        CallError: Every further call would fail in the same way, or too many in a row failed. All replies that arrived
            are in the journal.
        ConfigurationError: A limit is out of range.
    """
    wanted = {call.key: call for call in calls}
    run = _Run(journal, read, _Limits(**limits), progress, len(wanted))
    lanes: dict[str, _Lane] = {}
    todo: dict[str, list[Call]] = {}
    for call in wanted.values():
        lane = lanes.setdefault(call.label, _Lane(run))
        if run.settled(call.key):
            lane.tally.remembered += 1
            run.step()
        else:
            todo.setdefault(call.label, []).append(call)
    workers = []
    for label, waiting in todo.items():
        queue = iter(waiting)
        workers += [
            asyncio.create_task(lanes[label].work(queue)) for _ in range(min(run.limits.concurrency, len(waiting)))
        ]
    try:
        await _all_ended(workers)
    except asyncio.CancelledError:
        run.stop.set()
        await _all_ended(workers)
        raise
    for worker in workers:
        worker.result()  # re-raises unexpected errors
    if run.fatal is not None:
        raise run.fatal
    return run.results, {label: lane.tally for label, lane in lanes.items()}


async def _all_ended(workers: list[asyncio.Task[None]]) -> None:
    # wait, unlike gather, leaves the workers running when the waiting is cancelled
    if workers:
        await asyncio.wait(workers)


class _Run:
    """What all workers share: the journal, the results, and whether to stop."""

    def __init__(
        self,
        journal: Journal,
        read: Callable[[Reply], dict[str, Any] | None],
        limits: _Limits,
        progress: Progress | None,
        total: int,
    ) -> None:
        self.journal, self.read, self.limits = journal, read, limits
        self._progress, self._total, self._done = progress, total, 0
        self.results: dict[str, dict[str, Any] | None] = {}
        self.fatal: CallError | None = None
        self.stop = asyncio.Event()

    def step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)

    def settled(self, key: str) -> bool:
        """Whether the journal settles a question; keeps the result then."""
        entries = self.journal.entries(key)
        if not _is_settled(entries, self.limits.tries):
            return False
        self.results[key] = valid_value(entries)
        return True

    def end(self, exc: CallError) -> None:
        """Start no further call, and end with this error unless there is an earlier one."""
        self.stop.set()
        self.fatal = self.fatal or exc


class _Lane:
    """The calls of one label: they share a service, and so its rate limit and its failures."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.tally = CallTally()
        self._resume_at = 0.0
        self._failed_in_a_row = 0
        self._usable = self._unusable = 0

    @property
    def _stopped(self) -> bool:
        return self._run.stop.is_set() or (self._usable == 0 and self._unusable >= _GIVE_UP_AFTER)

    async def work(self, queue: Iterator[Call]) -> None:
        """Make calls from a queue that several workers share until it is empty or the run stops."""
        for call in queue:
            if self._stopped:
                return
            try:
                await self._settle(call)
            except CallError as exc:
                if self._run.stop.is_set() and not exc.fatal:
                    return
                self._note_failure(exc)
            self._run.step()

    def _note_failure(self, exc: CallError) -> None:
        self.tally.failed += 1
        self.tally.errors[str(exc)] = self.tally.errors.get(str(exc), 0) + 1
        self._failed_in_a_row += 1
        if exc.fatal:
            self._run.end(exc)
        elif self._failed_in_a_row >= _GIVE_UP_AFTER:
            what = f"{_GIVE_UP_AFTER} calls in a row failed, the last with {exc}"
            self._run.end(CallError(what, retry=False, fatal=True))

    async def _settle(self, call: Call) -> None:
        while not self._run.settled(call.key):
            reply = await self._reply(call)
            value = self._run.read(reply)
            raw = {} if value is not None else {"text": reply.text}
            self._run.journal.add(call.key, value=value, tokens=[reply.prompt_tokens, reply.completion_tokens], **raw)
            self.tally.asked += 1
            self.tally.prompt_tokens += reply.prompt_tokens
            self.tally.completion_tokens += reply.completion_tokens
            self._failed_in_a_row = 0
        if self._run.results[call.key] is not None:
            self._usable += 1
            return
        self._unusable += 1
        if self._stopped and not self._run.stop.is_set():
            what = f"{call.model.name}: no usable reply to {_GIVE_UP_AFTER} questions; the others are not asked"
            self.tally.errors[what] = 1

    async def _reply(self, call: Call) -> Reply:
        limits = self._run.limits
        for attempt in range(limits.retries + 1):
            await self._turn()
            if self._run.stop.is_set():
                raise CallError("stopped", retry=False)
            try:
                return await call.model.ask(call.system, call.user)
            except CallError as exc:
                failure = exc
            except Exception as exc:
                failure = CallError(f"{call.model.name}: {type(exc).__name__}", retry=True)
            if failure.unreachable and not self.tally.asked and attempt >= _FIRST_CONTACT_RETRIES:
                failure.fatal = True
            if not failure.retry or failure.fatal or attempt == limits.retries:
                raise failure from None
            self.tally.retries += 1
            # up to a quarter more, so that the workers do not come back all at once
            pause = min(limits.backoff * 2.0**attempt, _MAX_WAIT) * random.uniform(1.0, 1.25)
            if failure.wait is not None:
                # the service means all callers, not this call alone
                pause = min(failure.wait, _MAX_WAIT)
                self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + pause)
            await self._sleep(pause)
        raise AssertionError  # the last attempt returned or raised

    async def _turn(self) -> None:
        while (wait := self._resume_at - asyncio.get_running_loop().time()) > 0 and not self._run.stop.is_set():
            await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._run.stop.wait(), seconds)
