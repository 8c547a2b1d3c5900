"""TrafficLog: what an app writes its routed calls to, without ever waiting for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from routellm_core.checks import checked_count, checked_fraction, checked_seconds, is_number, refuses_unknown_options
from routellm_core.embedders import Embedder
from routellm_core.errors import ConfigurationError
from routellm_core.log.cleaning import Unwritable, clean
from routellm_core.log.feedback import checked_name, feedback_row
from routellm_core.log.recording import Answer, Recording, cost_of
from routellm_core.log.rows import SKIPPED_SHADOWS
from routellm_core.log.shadowing import Shadows
from routellm_core.log.urls import checked_url, shown_url
from routellm_core.log.vectors import EMBEDDER_STATE, is_same_embedder, probe
from routellm_core.log.writer import Entry, Rows, Writer
from routellm_core.policy.decision import RoutingDecision
from routellm_core.policy.savings import Price, checked_prices
from routellm_core.policy.shadow import Shadow

if TYPE_CHECKING:
    from routellm_core.log.database import TrafficDatabase

logger = logging.getLogger("routellm_core")

Texts = Literal["all", "pairs", "none"]
# Calls that one step of the upkeep deletes, so that none of them takes long.
_DELETED_AT_ONCE = 500
_SECONDS_A_DAY = 86_400.0
# How long a flush, and the end of the program, wait for shadow calls that are under way.
_SHADOW_SECONDS = 10.0
_SHADOW_SECONDS_AT_EXIT = 2.0


@refuses_unknown_options
class TrafficLog:
    """A log of routed calls, answers, feedback and labels in a database, to learn a better router from.

    Give it to a routed model as ``log=``. A call never waits for it and never fails because of it: rows are written by
    a thread in the background, in batches. While the database cannot be written to, up to `queue_size` calls wait;
    those beyond are counted, one warning says why, and ``routellm traffic summary`` shows the count. One log serves
    any number of models, threads, event loops and forked processes; of processes that share a database each opens a
    log of its own, with PostgreSQL or with SQLite on a local disk. What is queued when the program ends is
    still written; a program that is ended by a signal which it does not handle loses up to `flush_seconds`. ::

        log = TrafficLog("sqlite:///traffic.db")
        llm = ChatRouteLLM(strong=gpt, weak=mini, strong_fraction=0.3, log=log, shadow=0.05)
        answer = llm.invoke("...")
        log.feedback(routing_decision(answer).id, 1.0)

    Args:
        url: ``"sqlite:///FILE"`` or ``"postgresql://USER:PASSWORD@HOST/DATABASE"``; tables are made where needed.
        app: Name of the app, where several write to one database.
        texts: ``"all"`` stores the text of prompts and answers, ``"pairs"`` only of calls that the other side is to
            answer, too, and ``"none"`` only hashes of the prompts.
        redact: Changes each text before anything of it is stored, its hash and its vector included; called in the
            background. Where it fails, the text is not stored.
        embedder: Stores the vector of each prompt, so that a router can be learned without texts.
        prices: `Price` by model name, or by ``"strong"`` and ``"weak"``; with them, costs are stored.
        user_key: Name of the call setting that says whose call it is, for totals by user; its value is stored as it is,
            with ``texts="none"`` as a hash. None stores no users.
        retention_days: Calls and all that belongs to them are deleted after so many days; None keeps them.
        max_rows: Only so many of the latest calls are kept; None keeps all.
        flush_seconds: How long a row waits for others to be written with.
        queue_size: Calls that may wait for the database.

    Raises:
        ConfigurationError: A value is not allowed.
        MissingExtraError: SQLAlchemy or the database's driver is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        app: str | None = None,
        texts: Texts = "all",
        redact: Callable[[str], str] | None = None,
        embedder: Embedder | None = None,
        prices: Mapping[str, Price | tuple[float, float]] | None = None,
        user_key: str | None = "user_id",
        retention_days: float | None = None,
        max_rows: int | None = None,
        flush_seconds: float = 0.5,
        queue_size: int = 10_000,
    ) -> None:
        self.url = checked_url(url)
        if app is not None and (not isinstance(app, str) or not app):
            raise ConfigurationError(f"app={app!r:.80}: expected a name or None")
        if texts not in get_args(Texts):
            raise ConfigurationError(f"texts={texts!r:.80}: expected 'all', 'pairs' or 'none'")
        if redact is not None and not callable(redact):
            raise ConfigurationError(f"redact={redact!r:.80}: expected a function from a text to a text, or None")
        if embedder is not None and not hasattr(embedder, "embed"):
            raise ConfigurationError(f"embedder={embedder!r:.80}: expected an Embedder or None")
        if user_key is not None and (not isinstance(user_key, str) or not user_key):
            raise ConfigurationError(f"user_key={user_key!r:.80}: expected the name of a call setting, or None")
        if retention_days is not None and (not is_number(retention_days) or not 0 < retention_days < float("inf")):
            raise ConfigurationError(f"retention_days={retention_days!r:.80}: expected a number > 0, or None")
        self.app = app
        self.texts: Texts = texts
        self.redact = redact
        self.embedder = embedder
        self.prices = checked_prices(prices)
        self.user_key = user_key
        self.retention_days = retention_days
        self.max_rows = None if max_rows is None else checked_count(max_rows, "max_rows", unit="calls")
        flush = checked_seconds(flush_seconds, "flush_seconds", without="is not allowed here")
        if flush is None:
            raise ConfigurationError("flush_seconds=None: expected a number of seconds > 0")
        self._writer = Writer(
            self.url,
            self._prepared,
            self._kept_up,
            flush_seconds=flush,
            queue_size=checked_count(queue_size, "queue_size", unit="calls"),
            at_exit=self._at_exit,
        )
        self.shadows = Shadows(self.cost)
        self._said: set[str] = set()
        self._is_named = False

    # --- what an app calls ---

    def feedback(
        self, id: str, score: float, *, key: str = "score", source: str = "user", side: str | None = None
    ) -> None:
        """Record what somebody thought of an answer; returns at once.

        There is one score for each call, key, source and side; a later one takes its place. It may come before the
        call itself is written.

        Args:
            id: Id of the call's decision, or the id of its run or trace in LangChain, LlamaIndex or LangSmith.
            score: In [0, 1], 1 is best.
            key: What is judged.
            source: Who judges: ``"user"``, the name of a grader, ...
            side: ``"strong"`` or ``"weak"``, for one of a pair's two answers; None is the one that the user got.

        Raises:
            ConfigurationError: A value is not allowed.
        """
        row = feedback_row(id, score, key=key, source=source, side=side)
        self.put((("feedback", {**row, "created": time.time()}),))

    def label(self, id: str, *, strong: float, weak: float, labeller: str = "gold") -> None:
        """Record how good both answers of a pair are; returns at once. The first label of a labeller stays.

        Args:
            id: Id of the call's decision.
            strong: Score of the strong model's answer in [0, 1].
            weak: Score of the weak model's answer in [0, 1].
            labeller: Who labels.

        Raises:
            ConfigurationError: A value is not allowed.
        """
        row = {
            "call_id": checked_name(id, "id"),
            "labeller": checked_name(labeller, "labeller"),
            "strong_score": checked_fraction(strong, "strong"),
            "weak_score": checked_fraction(weak, "weak"),
            "created": time.time(),
        }
        self.put((("labels", row),))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was recorded so far is in the database, with the shadow calls that are under way.

        Shadow calls that run in the event loop of the caller cannot end while this waits; use `aflush` there.

        Args:
            timeout: Seconds to wait at most; None waits until each shadow call has ended or used up its own timeout,
                and as long as the database works.

        Returns:
            Whether everything is written, or counted as dropped.
        """
        started = time.monotonic()
        self.shadows.wait(timeout)
        self._count_skipped(all_running=False)
        return self._writer.flush(_left(timeout, started))

    async def aflush(self, timeout: float | None = None) -> bool:
        """Like `flush`, without blocking the event loop, whose shadow calls are waited for, too."""
        import asyncio

        started = time.monotonic()
        await self.shadows.await_own(timeout)
        return await asyncio.to_thread(self.flush, _left(timeout, started))

    def close(self) -> None:
        """Write what is recorded and close the database; what comes later is counted as dropped."""
        self.shadows.wait(_SHADOW_SECONDS)
        self._count_skipped(all_running=True)
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dropped(self) -> dict[str, int]:
        """What this process could not log so far, by cause."""
        return {cause: count for cause, count in self._writer.dropped.items() if cause != SKIPPED_SHADOWS}

    def database(self) -> TrafficDatabase:
        """The database to read from, with all that was recorded so far; close it after use.

        Shadow calls that are under way are waited for, but no longer than ten seconds.
        """
        from routellm_core.log.database import TrafficDatabase

        self.shadows.wait(_SHADOW_SECONDS)
        self._count_skipped(all_running=False)
        self._writer.flush()
        return TrafficDatabase(self.url, create=True)

    # --- what limits call: their counts outlive the process here ---

    def load_state(self, name: str) -> dict[str, Any] | None:
        """The state that was saved under `name`, or None."""
        from routellm_core.log.database import TrafficDatabase

        with TrafficDatabase(self.url, create=True) as database:
            return database.load_state(name)

    def save_state(self, name: str, state: dict[str, Any]) -> None:
        """Save JSON values under `name`; returns at once."""
        self.put((("states", {"name": name, "state": state}),))

    # --- what adapters call ---

    def recording(
        self,
        decision: RoutingDecision,
        *,
        prompt: str | None = None,
        conversation: str | None = None,
        shadow: Shadow | None = None,
        step: int = 0,
        user: str | None = None,
        prices: Mapping[str, Price] | None = None,
    ) -> Recording:
        """Begin to record a call that was just decided.

        Args:
            decision: The decision.
            prompt: The text that was routed on.
            conversation: What identifies the conversation.
            shadow: Which calls the other side answers, too.
            step: Which call this is of those that one decision holds for.
            user: Whose call it is.
            prices: Prices of the answers; None takes those of the log.
        """
        call_id = f"{decision.id}-{step}" if step else decision.id
        return Recording(
            self, decision, call_id, prompt=prompt, conversation=conversation, shadow=shadow, user=user,
            prices=self.prices if prices is None else prices,
        )  # fmt: skip

    def put(self, entry: Entry, characters: int = 0) -> None:
        """Queue rows by table."""
        self._writer.put(entry, characters)

    def cost(self, answer: Answer, side: str) -> float | None:
        """Money that an answer cost by the log's prices; None where its tokens or the price are unknown."""
        return cost_of(answer, side, self.prices)

    # --- in the writer's thread ---

    def _prepared(self, entries: Sequence[Entry]) -> tuple[Rows, dict[str, int]]:
        rows: Rows = {}
        lost: dict[str, int] = {}
        for entry in entries:
            for table, row in entry:
                try:
                    rows.setdefault(table, []).append(self._row(table, row))
                except Exception as error:
                    cause = "not allowed" if isinstance(error, Unwritable) else type(error).__name__
                    lost[cause] = lost.get(cause, 0) + 1
        if self.embedder is not None:
            self._embed(rows.get("calls", ()))
        pairs = [row["cost"] for row in rows.get("answers", ()) if row["kind"] == "shadow" and row["error"] is None]
        self.shadows.written(len(pairs), sum(cost or 0.0 for cost in pairs))
        return rows, lost

    def _row(self, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
        if table == "states":
            return dict(row)
        if table not in ("calls", "answers"):
            return clean(table, row)
        field = "prompt" if table == "calls" else "text"
        text = self._redacted(row[field])
        out = clean(table, {**row, field: text})
        if table == "calls":
            out["prompt_hash"] = None if text is None else _hashed(text)
            out["conversation"] = None if row["conversation"] is None else _hashed(str(row["conversation"]))
            if self.texts == "none" and out["user_id"] is not None:
                out["user_id"] = _hashed(out["user_id"])
            if self.embedder is not None:
                out["vector"] = text  # for the moment, see `_embed`
        if self.texts == "none" or (self.texts == "pairs" and not row["drawn"]):
            out[field] = None
        return out

    def _redacted(self, text: Any) -> str | None:
        if not isinstance(text, str) or self.redact is None:
            return text if isinstance(text, str) else None
        try:
            redacted = self.redact(text)
            if isinstance(redacted, str):
                return redacted
            reason = f"it returned {type(redacted).__name__}, not str"
        except Exception as error:
            reason = type(error).__name__
        self._say_once("redact", f"redact= failed ({reason}); texts on which it fails are not stored")
        return None

    def _embed(self, calls: Sequence[dict[str, Any]]) -> None:
        """Put vectors in the place of the texts of these rows."""
        assert self.embedder is not None
        texts = [row["vector"] for row in calls if row["vector"] is not None]
        try:
            vectors: Any = np.asarray(self.embedder.embed(texts), dtype="<f2") if texts else ()
            found = iter([vector.tobytes() for vector in vectors])
        except Exception as error:
            self._say_once("embedder", f"embedder= failed ({type(error).__name__}); vectors are missing where it fails")
            found = iter([None] * len(texts))
        for row in calls:
            row["vector"] = None if row["vector"] is None else next(found)

    def _say_once(self, topic: str, message: str) -> None:
        if topic not in self._said:
            self._said.add(topic)
            logger.warning("traffic log %s: %s", shown_url(self.url), message)

    def _kept_up(self, database: TrafficDatabase) -> bool:
        """Delete what is too old or too much, a little at a time; learn how many pairs there are."""
        if self._clear_up(database):
            return True
        self.shadows.known(*database.shadows_so_far())
        if self.embedder is not None and not self._is_named:
            self._name_embedder(database, self.embedder)
        return False

    def _name_embedder(self, database: TrafficDatabase, embedder: Embedder) -> None:
        """Leave a sample of what the embedder does, by which a learner can tell whose the vectors are."""
        try:
            sample = probe(embedder)
        except Exception:
            return  # it fails on prompts, too, and that is said there
        known = database.load_state(EMBEDDER_STATE)
        if known is None or not is_same_embedder(sample, known["sample"]):
            # vectors from before a change are of another embedder
            since = 0.0 if known is None else time.time()
            database.save_state(EMBEDDER_STATE, {"sample": sample, "since": since})
        self._is_named = True

    def _clear_up(self, database: TrafficDatabase) -> bool:
        bounds = []
        if self.retention_days is not None:
            bounds.append(time.time() - _SECONDS_A_DAY * self.retention_days)
        if self.max_rows is not None:
            oldest = database.moment_of(self.max_rows - 1)
            if oldest is not None:
                bounds.append(oldest)
        return bool(bounds) and database.delete_before(max(bounds), limit=_DELETED_AT_ONCE) == _DELETED_AT_ONCE

    def _at_exit(self) -> None:
        self.shadows.wait(_SHADOW_SECONDS_AT_EXIT)
        self._count_skipped(all_running=True)

    def _count_skipped(self, *, all_running: bool) -> None:
        skipped = self.shadows.take_skipped(all_running=all_running)
        self._writer.count(SKIPPED_SHADOWS, skipped)
        if skipped:
            self._say_once(
                "skipped",
                f"{skipped:,} shadow calls were under way when the program or its event loop ended, and are lost; call "
                "flush() on the log before the end, in an event loop await aflush(), to wait for them",
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # frameworks deep-copy their models; copies write to the same log
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # in another process: a log of its own for the same database
        options = ("app", "texts", "redact", "embedder", "prices", "user_key", "retention_days", "max_rows")
        given = {name: getattr(self, name) for name in options}
        given |= {"flush_seconds": self._writer.flush_seconds, "queue_size": self._writer.queue_size}
        return partial(TrafficLog, self.url, **given), ()

    def __repr__(self) -> str:
        return f"TrafficLog({shown_url(self.url)!r})"


def _hashed(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _left(timeout: float | None, started: float) -> float | None:
    """What is left of a time limit."""
    return None if timeout is None else max(0.0, started + timeout - time.monotonic())
