"""Paid calls to chat models: concurrent, rate-limit aware, and written down so that none is paid twice.

No message of an error of a service is passed on: it may quote the prompt or the key. What is told is the class of the
error and the HTTP status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from routellm_core.checks import Progress
from routellm_core.errors import ConfigurationError, DataError, MissingExtraError, RouterError

# Rows in a row that fail after all their retries: then the service is down, and the rest would only wait in vain.
_GIVE_UP_AFTER = 20
_MAX_WAIT = 300.0
_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# Wrong key, no right to the model, no such model or path: every further call would fail alike.
_FATAL_STATUS = frozenset({401, 402, 403, 404})


@dataclass(frozen=True)
class Reply:
    """A chat model's answer.

    Attributes:
        text: The text.
        prompt_tokens: Tokens of the question as the service counted them; 0 when it did not.
        completion_tokens: Tokens of the answer, likewise.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatModel(Protocol):
    """A model that answers one message.

    `ask` raises `CallError` when it fails; other exceptions are taken for errors that another try may mend.
    """

    name: str

    async def ask(self, system: str | None, user: str) -> Reply:
        """The answer to `user`, under the instructions `system`."""
        ...


class CallError(RouterError):
    """A call to a chat model failed.

    Attributes:
        retry: Whether the same call may succeed later.
        fatal: Whether every further call would fail alike (a wrong key, an unknown model).
        wait: Seconds after which the service wants to be asked again, or None.
    """

    def __init__(self, message: str, *, retry: bool, fatal: bool = False, wait: float | None = None) -> None:
        super().__init__(message)
        self.retry, self.fatal, self.wait = retry, fatal, wait


class OpenAIChatModel:
    """A model behind any OpenAI-compatible service.

    Only ``model`` and ``messages`` are sent, which every such service takes, and what `options` adds.

    Args:
        model: Name of the model at the service.
        base_url: Its URL; None: the environment variable OPENAI_BASE_URL, or OpenAI itself.
        api_key: Its key; None: the environment variable OPENAI_API_KEY. Services without keys take any text.
        timeout: Seconds for one call.
        **options: Further fields of the request, such as ``temperature`` or ``max_tokens``.

    Raises:
        ConfigurationError: No key.
        MissingExtraError: openai is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        **options: Any,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise MissingExtraError("Calling an OpenAI-compatible model", "openai") from None
        self.name = model
        self._openai = openai
        key = api_key or os.environ.get("OPENAI_API_KEY")
        if not key:
            raise ConfigurationError(
                f"no API key for model {model!r}: set OPENAI_API_KEY or pass api_key= (any text where none is needed)"
            )
        # the client's own retries are off: waiting for a rate limit has to hold back all workers, not one call
        self._make: Callable[[], Any] = partial(
            openai.AsyncOpenAI, base_url=base_url, api_key=key, timeout=timeout, max_retries=0
        )
        self._clients: dict[Hashable, Any] = {}
        self._options = options

    async def ask(self, system: str | None, user: str) -> Reply:
        """The answer to `user`; see `ChatModel`."""
        openai = self._openai
        loop = asyncio.get_running_loop()
        # connections belong to an event loop; a model may be used from one asyncio.run after another
        client = self._clients.get(loop)
        if client is None:
            self._clients = {loop: (client := self._make())}
        messages: list[Any] = [{"role": "user", "content": user}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        from routellm_core.embedders.openai import _unlogged

        try:
            with _unlogged():  # the client's debug records hold whole requests
                answer = await client.chat.completions.create(model=self.name, messages=messages, **self._options)
        except openai.APIStatusError as exc:
            status = exc.status_code
            raise CallError(
                f"{self.name}: HTTP status {status} ({type(exc).__name__})",
                retry=status in _RETRIED_STATUS,
                fatal=status in _FATAL_STATUS,
                wait=_retry_after(exc.response.headers),
            ) from None
        except openai.APIError as exc:
            raise CallError(f"{self.name}: {type(exc).__name__}", retry=True) from None
        text = answer.choices[0].message.content if answer.choices else None
        usage = answer.usage
        return Reply(text or "", *((usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)))

    async def aclose(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()


class LLMChatModel:
    """A LangChain chat model (anything with ``ainvoke``) or a LlamaIndex LLM (``acomplete``) as a `ChatModel`.

    Neither framework is imported: LangChain models take (role, text) pairs, LlamaIndex LLMs a text.

    Args:
        llm: The model.
        name: Its name in the journal and reports; None: what it calls itself.

    Raises:
        ConfigurationError: `llm` has neither method.
    """

    def __init__(self, llm: Any, name: str | None = None) -> None:
        self._llm = llm
        self._kind = next((m for m in ("ainvoke", "acomplete") if callable(getattr(llm, m, None))), None)
        if self._kind is None:
            raise ConfigurationError(
                f"llm={type(llm).__name__}: expected a LangChain chat model (with ainvoke) or a LlamaIndex LLM "
                "(with acomplete)"
            )
        own = next((v for a in ("model_name", "model") if isinstance(v := getattr(llm, a, None), str) and v), None)
        self.name = name or own or type(llm).__name__

    async def ask(self, system: str | None, user: str) -> Reply:
        """The answer to `user`; see `ChatModel`."""
        try:
            if self._kind == "ainvoke":
                messages = [("user", user)] if system is None else [("system", system), ("user", user)]
                return _langchain_reply(await self._llm.ainvoke(messages))
            answer = await self._llm.acomplete(user if system is None else f"{system}\n\n{user}")
            return Reply(str(answer.text))
        except Exception as exc:
            status = getattr(exc, "status_code", None)
            headers = getattr(getattr(exc, "response", None), "headers", None)
            raise CallError(
                f"{self.name}: {type(exc).__name__}" + (f" (HTTP status {status})" if isinstance(status, int) else ""),
                retry=not isinstance(status, int) or status in _RETRIED_STATUS,
                fatal=status in _FATAL_STATUS,
                wait=None if headers is None else _retry_after(headers),
            ) from None


def _langchain_reply(message: Any) -> Reply:
    content = getattr(message, "content", message)
    if not isinstance(content, str):  # content blocks: reasoning and the like are left out
        parts = (b if isinstance(b, str) else b.get("text", "") for b in content if isinstance(b, str | dict))
        content = "".join(part for part in parts if isinstance(part, str))
    usage = getattr(message, "usage_metadata", None) or {}
    return Reply(content, int(usage.get("input_tokens", 0)), int(usage.get("output_tokens", 0)))


def _retry_after(headers: Any) -> float | None:
    """Seconds that the service wants us to wait: from its milliseconds, seconds, or date form."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000.0)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


class Journal:
    """What has been paid for, on disk before it is used: a line of JSON an answer, flushed to the device.

    After a crash at any moment the journal holds every answer that had arrived, and a line that was cut off is
    dropped. One process writes at a time.

    Args:
        path: The file; made when absent.

    Raises:
        DataError: The file is something else, or another process is writing it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self._file = self.path.open("a+b")
        try:
            _lock(self._file, self.path)
            self._load()
        except BaseException:
            self._file.close()
            raise

    def _load(self) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            try:
                entry = json.loads(line)
                key = entry["key"]
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"{self.path}: line {number}: not a line of a journal of paid calls; give another file"
                ) from None
            self._entries.setdefault(key, []).append(entry)
        self._file.truncate(end)

    def keys(self) -> Iterable[str]:
        """All keys that something has been written under."""
        return self._entries.keys()

    def entries(self, key: str) -> Sequence[dict[str, Any]]:
        """What has been written under `key`, in order."""
        return tuple(self._entries.get(key, ()))

    def add(self, key: str, **values: Any) -> None:
        """Write JSON values down under `key`; when this returns they survive a crash."""
        entry = {"key": key, **values}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._entries.setdefault(key, []).append(entry)

    def close(self) -> None:
        """Close the file and let another process write it."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _lock(file: Any, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: no lock; two runs on one journal are the user's to avoid
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DataError(f"{path}: another run is writing this journal; wait for it or give another file") from None


@dataclass
class CallTally:
    """What a run of calls did.

    Attributes:
        asked: Answers paid for in this run.
        remembered: Answers that the journal had already.
        failed: Calls given up.
        retries: Tries that failed and were repeated.
        prompt_tokens: Tokens of the questions paid for in this run, as far as the services told.
        completion_tokens: Tokens of the answers, likewise.
        errors: How often each kind of failure ended a call.
    """

    asked: int = 0
    remembered: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One question to one model.

    Attributes:
        key: Names the question in the journal; equal questions have equal keys and are asked once.
        model: Who is asked.
        system: Instructions, or None.
        user: The question.
    """

    key: str
    model: ChatModel
    system: str | None
    user: str


async def make_calls(
    calls: Iterable[Call],
    journal: Journal,
    *,
    read: Callable[[str], dict[str, Any] | None],
    tries: int = 2,
    concurrency: int = 8,
    retries: int = 6,
    backoff: float = 1.0,
    progress: Progress | None = None,
) -> tuple[dict[str, dict[str, Any] | None], CallTally]:
    """Ask every question once, whatever fails, and keep each answer in the journal.

    A rate limit (429) or an overloaded service holds back all workers for as long as the service asks, else for a time
    that doubles. When the run is cancelled (Ctrl-C) or a fatal error ends it, no further call starts, those under way
    are waited for and written down, for they are paid for.

    Args:
        calls: The questions.
        journal: Where the answers are kept; those that it has are not asked again.
        read: Turns an answer's text into the JSON values to keep, or None when it makes no sense.
        tries: How often a question is asked whose answer makes no sense; each is paid and counted.
        concurrency: Calls under way at a time.
        retries: Further tries after a failure that may pass, per call.
        backoff: Seconds before the first of them where the service names none.
        progress: Called with (calls done, calls in all) as they finish.

    Returns:
        What `read` made of each answer, by key: None where no answer made sense; failed calls are absent. And the
        tally.

    Raises:
        CallError: Every further call would fail alike, or too many in a row failed. All answers are in the journal.
        ConfigurationError: `concurrency`, `tries` or `retries` is out of range.
    """
    for name, value, lowest in (("concurrency", concurrency, 1), ("tries", tries, 1), ("retries", retries, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ConfigurationError(f"{name}={value!r}: expected an integer >= {lowest}")
    wanted = {call.key: call for call in calls}
    run = _Run(journal, read, tries, retries, backoff, progress, len(wanted))
    todo = []
    for key, call in wanted.items():
        if run.settled(key):
            run.tally.remembered += 1
            run.step()
        else:
            todo.append(call)
    queue = iter(todo)
    workers = [asyncio.create_task(run.work(queue)) for _ in range(min(concurrency, len(todo)))]
    try:
        await _all_ended(workers)
    except asyncio.CancelledError:
        run.stop.set()
        await _all_ended(workers)
        raise
    for worker in workers:
        worker.result()  # raises what nobody foresaw
    if run.fatal is not None:
        raise run.fatal
    return run.results, run.tally


async def _all_ended(workers: list[asyncio.Task[None]]) -> None:
    # wait, unlike gather, leaves the workers running when the waiting is cancelled
    if workers:
        await asyncio.wait(workers)


class _Run:
    def __init__(
        self,
        journal: Journal,
        read: Callable[[str], dict[str, Any] | None],
        tries: int,
        retries: int,
        backoff: float,
        progress: Progress | None,
        total: int,
    ) -> None:
        self.journal, self.read, self.tries, self.retries, self.backoff = journal, read, tries, retries, backoff
        self.progress, self.total, self.done = progress, total, 0
        self.results: dict[str, dict[str, Any] | None] = {}
        self.tally = CallTally()
        self.fatal: CallError | None = None
        self.stop = asyncio.Event()
        self._resume_at = 0.0
        self._failed_in_a_row = 0

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)

    def settled(self, key: str) -> bool:
        """Whether the journal has an answer, or as many senseless ones as are asked for; then the result is kept."""
        entries = self.journal.entries(key)
        valid = next((e["value"] for e in entries if e["value"] is not None), None)
        if valid is None and len(entries) < self.tries:
            return False
        self.results[key] = valid
        return True

    async def work(self, queue: Iterator[Call]) -> None:
        for call in queue:
            if self.stop.is_set():
                return
            try:
                await self._settle(call)
            except CallError as exc:
                if self.stop.is_set() and not exc.fatal:
                    return
                self.tally.failed += 1
                kind = str(exc)
                self.tally.errors[kind] = self.tally.errors.get(kind, 0) + 1
                self._failed_in_a_row += 1
                if exc.fatal:
                    self._stop(exc)
                elif self._failed_in_a_row >= _GIVE_UP_AFTER:
                    self._stop(
                        CallError(
                            f"{_GIVE_UP_AFTER} calls in a row failed, the last with {exc}", retry=False, fatal=True
                        )
                    )
            self.step()

    def _stop(self, exc: CallError) -> None:
        self.stop.set()
        self.fatal = self.fatal or exc

    async def _settle(self, call: Call) -> None:
        while not self.settled(call.key):
            reply = await self._answer(call)
            value = self.read(reply.text)
            self.journal.add(call.key, value=value, tokens=[reply.prompt_tokens, reply.completion_tokens])
            self.tally.asked += 1
            self.tally.prompt_tokens += reply.prompt_tokens
            self.tally.completion_tokens += reply.completion_tokens
            self._failed_in_a_row = 0

    async def _answer(self, call: Call) -> Reply:
        for attempt in range(self.retries + 1):
            await self._turn()
            if self.stop.is_set():
                raise CallError("stopped", retry=False)
            try:
                return await call.model.ask(call.system, call.user)
            except CallError as exc:
                failure = exc
            except Exception as exc:
                failure = CallError(f"{call.model.name}: {type(exc).__name__}", retry=True)
            if not failure.retry or attempt == self.retries:
                raise failure from None
            self.tally.retries += 1
            # up to a quarter more, so that the workers do not come back all at once
            pause = min(self.backoff * 2.0**attempt, _MAX_WAIT) * random.uniform(1.0, 1.25)
            if failure.wait is not None:
                # the service speaks to all of us
                pause = min(failure.wait, _MAX_WAIT)
                self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + pause)
            await self._sleep(pause)
        raise AssertionError  # the last attempt returned or raised

    async def _turn(self) -> None:
        while (wait := self._resume_at - asyncio.get_running_loop().time()) > 0 and not self.stop.is_set():
            await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)
