"""The ASGI app: takes a request, decides, sends its bytes to the chosen server and the reply's bytes back."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Unpack
from urllib.parse import unquote

from routellm_core.checks import Side, checked_count, checked_fraction, checked_seconds, checked_side
from routellm_core.errors import ConfigurationError, EmptyAnswerError, LimitError, PromptError
from routellm_core.log import recording
from routellm_core.policy.acceptance import WeakAnswer
from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.options import RoutingOptions
from routellm_core.policy.route import Route
from routellm_core.policy.routing import FORCE_SETTING, THRESHOLD_SETTING, CallSettings, Decided, Routing
from routellm_core.policy.setups import Setup, shown_address
from routellm_core.policy.tiers import handed_down
from routellm_core.serve import requests
from routellm_core.serve.answers import AnswerReader, BrokenReplyError
from routellm_core.serve.levels import Levels, tiers_of
from routellm_core.serve.metrics import CONTENT_TYPE, Metrics
from routellm_core.serve.names import Asked, Names, model_object
from routellm_core.serve.readiness import Readiness
from routellm_core.serve.replies import Headers, Message, Receive, RequestError, Scope, Send, decision_headers, reply
from routellm_core.serve.upstream import (
    Answer,
    RefusalError,
    Upstream,
    UpstreamError,
    Upstreams,
    as_upstream,
    shown_server,
)

logger = logging.getLogger("routellm_core")

Other = Literal["strong", "weak", "none"]
MAX_BODY = 32 << 20
_MAX_REFUSAL = 1 << 20
_MAX_RESPONSE_IDS = 100_000
_PREFIX = "/v1"
# statuses that blame how this server was set up
_MISCONFIGURED = {
    401: "its server refuses the key",
    403: "its server refuses the key, or the model to this key",
    404: "its server has no model of this name, or the address is not the base of its API, which often ends in /v1",
}


def create_app(
    strong: Upstream | Mapping[str, Any] | None = None,
    weak: Upstream | Mapping[str, Any] | None = None,
    *,
    tiers: Sequence[Mapping[str, Any]] | None = None,
    client_keys: Mapping[str, str] | str | None = None,
    other: Other = "strong",
    max_body: int = MAX_BODY,
    body_timeout: float = 60.0,
    connect_timeout: float = 5.0,
    read_timeout: float = 600.0,
    **options: Unpack[RoutingOptions],
) -> App:
    """Make an ASGI app that routes OpenAI-compatible requests to two servers, or more.

    ``/v1/chat/completions``, ``/v1/completions`` and ``/v1/responses`` are routed, ``/v1/models``, ``/health``,
    ``/ready`` and ``/metrics`` answered here, and every other path below ``/v1/`` goes to one side. A request goes on
    byte for byte but for the model's name, and the reply comes back as it is. Mount it where you like: paths count from
    the mount.

    Args:
        strong: The server of the strong model: an `Upstream`, or a mapping such as ``{"model": "gpt-4.1", "key": k}``.
        weak: The server of the weak model.
        tiers: In the place of these two, any number of models, the cheapest first: mappings with the attributes of an
            `Upstream`, with ``share``, the share of all calls that each but the cheapest is to get, and with
            ``profile``, what a model can do where it cannot do all.
        client_keys: What a client must send as ``Authorization: Bearer``: one key, or several by the name of their
            client, which limits may ask for as ``client``; None asks for none.
        other: Where paths go that are not routed, such as ``/v1/embeddings``; ``"none"`` refuses them.
        max_body: Largest body of a request, in bytes.
        body_timeout: Seconds that a client may take to send its body.
        connect_timeout: Seconds until a connection to a server must stand.
        read_timeout: Seconds without a byte after which a server counts as dead.
        **options: Those of every routed model, see `RoutingOptions`; ``route_on`` gets the request's JSON object, and
            ``prices`` need a ``log``, which is where the costs go. With `tiers` they hold at each level, and limits and
            the log count the most expensive model as the strong side.

    Raises:
        ConfigurationError: A value is not allowed.
    """
    if options.get("prices") is not None and options.get("log") is None:
        raise ConfigurationError(
            "prices= is given without log=: the server tells costs in its log alone; pass log=TrafficLog(...), too, or "
            "leave prices= out (a SpendLimit has prices of its own)"
        )
    if tiers is not None:
        if strong is not None or weak is not None:
            raise ConfigurationError("tiers= and strong= or weak= are given: tiers= names all models; give one of them")
        levels, upstreams = tiers_of(tiers, options)
    else:
        levels = Levels((Routing.of(options, owner="create_app"),), ("strong", "weak"))
        upstreams = {"strong": as_upstream(strong, "strong"), "weak": as_upstream(weak, "weak")}
    if other not in ("strong", "weak", "none"):
        raise ConfigurationError(f"other={other!r:.80}: expected 'strong', 'weak' or 'none'")
    seconds = {"body_timeout": body_timeout, "connect_timeout": connect_timeout, "read_timeout": read_timeout}
    for name, value in seconds.items():
        if value is None or checked_seconds(value, name, without="") is None:
            raise ConfigurationError(f"{name}={value!r}: expected seconds > 0")
    return App(
        levels,
        Upstreams(upstreams, connect_timeout=connect_timeout, read_timeout=read_timeout),
        client_keys=_checked_client_keys(client_keys),
        other=None if other == "none" else checked_side(other, "other"),
        max_body=checked_count(max_body, "max_body", unit="bytes"),
        body_timeout=body_timeout,
    )


def _checked_client_keys(given: Mapping[str, str] | str | None) -> dict[str, bytes]:
    keys = {"client": given} if isinstance(given, str) else dict(given or {})
    for name, key in keys.items():
        if not isinstance(key, str) or not key or not key.isascii():
            raise ConfigurationError(f"client_keys={{{name!r}: ...}}: expected a key of ASCII characters, not empty")
    return {name: key.encode() for name, key in keys.items()}


@dataclass(slots=True)
class _Call:
    """A routed request on its way.

    Attributes:
        path: Path after ``/v1``.
        raw: Its bytes, with the client's name for the model.
        body: Their JSON object.
        asked: What the model's name asks for.
        start: When the request was complete.
        client: Name of the client, where they have keys.
        decided: What was decided at each level so far, with what it was made of.
        routes: The way of the call at each level so far.
        settled: Decisions that are final, by level.
        is_counted: Whether the call stands in the metrics.
        reader: Reads the reply that is passed on at the moment, where anybody wants to know.
        paid: Model and reader of each reply so far, also of one that a check refused.
        refusal: Why no reader reads it.
    """

    scope: Scope
    path: str
    raw: bytes
    body: dict[str, Any]
    asked: Asked
    start: float
    client: str | None = None
    decided: dict[int, Decided] = field(default_factory=dict)
    routes: dict[int, Route[_Piece]] = field(default_factory=dict)
    settled: dict[int, RoutingDecision] = field(default_factory=dict)
    is_counted: bool = False
    reader: AnswerReader | None = None
    paid: list[tuple[str, AnswerReader]] = field(default_factory=list)
    refusal: str | None = None

    @property
    def decision(self) -> RoutingDecision:
        """The decision as it stands, with those of the levels below that lead to the model that answers."""
        chain = [self.routes[0].decision]
        while chain[-1].model == "weak" and len(chain) in self.routes:
            chain.append(self.routes[len(chain)].decision)
        decision = chain.pop()
        while chain:
            decision = replace(chain.pop(), inner=decision)
        return decision


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of a reply, and whether a client could use them."""

    answer: Answer
    data: bytes
    is_empty: bool = False


class App:
    """The app that `create_app` makes; its arguments are checked there.

    Attributes:
        levels: The options and the policy of each level; with two models there is one.
        routing: Those of the outermost level, and its policy (`App.policy`).
    """

    def __init__(
        self,
        levels: Levels,
        upstreams: Upstreams,
        *,
        client_keys: Mapping[str, bytes],
        other: Side | None,
        max_body: int,
        body_timeout: float,
    ) -> None:
        self.levels = levels
        self.routing = levels[0]
        self.policy = self.routing.policy
        self.upstreams = upstreams
        self.is_locked = bool(client_keys)
        self._client_keys = client_keys
        self._other = other
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._metrics = Metrics()
        self._readiness = Readiness(levels, upstreams)
        self._warned: set[str] = set()
        models = {name: upstreams[name].model for name in levels.names}
        self._names = Names(self.policy, models, overrides=self.routing.allow_overrides)
        # which model's server holds a stored response, where they are different ones
        self._holders: OrderedDict[str, str] | None = None if upstreams.share_state else OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI asks."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            begun = False

            async def sending(message: Message) -> None:
                nonlocal begun
                begun = True
                await send(message)

            try:
                await self._serve(scope, receive, sending)
            except RequestError as error:
                self._metrics.refused(error.status)
                await reply(send, error.status, error.body)
            except requests.ClientGoneError:
                pass
            except Exception as exc:
                # by its class alone: a message may hold text of the prompt
                logger.error("A request failed in this server: %s.", type(exc).__name__)
                logger.debug("The failure:", exc_info=True)
                if not begun:
                    failure = RequestError(500, f"this server failed ({type(exc).__name__})", kind="api_error")
                    self._metrics.refused(failure.status)
                    await reply(send, failure.status, failure.body)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def close(self) -> None:
        """Close the connections to the servers; where no server tells the app of its end."""
        await self.upstreams.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, raw_path = _paths(scope)
        if path == "/health":
            await reply(send, 200, b'{"status":"ok"}')
            return
        if path == "/ready":
            is_ready, state = await self._readiness.state()
            await reply(send, 200 if is_ready else 503, json.dumps(state).encode())
            return
        if path == "/metrics":
            await reply(send, 200, self._metrics.text(), content_type=CONTENT_TYPE)
            return
        client = self._client(scope)
        if not path.startswith(_PREFIX + "/") or _climbs(raw_path):
            raise RequestError(404, "no such path; the base URL of a client ends in /v1")
        path, raw_path = path[len(_PREFIX) :], raw_path[len(_PREFIX) :]
        if scope["method"] == "GET" and (path == "/models" or path.startswith("/models/")):
            await reply(send, 200, self._models(path))
            return
        last: list[Message] = []

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                last.append(message)
            else:
                await send(message)

        self._metrics.open.inc()
        try:
            raw = await requests.read_body(receive, at_most=self._max_body, seconds=self._body_timeout)
            if scope["method"] == "POST" and path in requests.ROUTED:
                work = self._routed(scope, path, raw, client, sending)
            else:
                work = self._passed_on(scope, path, raw_path, raw, sending)
            await _while_connected(work, receive)
        finally:
            self._metrics.open.dec()
            # A reply ends last of all: whoever has read its end finds metrics, limits and log as this call leaves them.
            # Where a limit or the log has failed, the answer is whole all the same.
            for message in last:
                await send(message)

    def _client(self, scope: Scope) -> str | None:
        """The name of the client that asks.

        Raises:
            RequestError: A key is required, and the client's is missing or wrong.
        """
        if not self._client_keys:
            return None
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        key = sent[7:].strip() if sent[:7].lower() == b"bearer " else b""
        found = None
        for name, known in self._client_keys.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(key, known):
                found = name
        if found is None:
            raise RequestError(401, "the client's key is missing or wrong", "invalid_api_key")
        return found

    def _models(self, path: str) -> bytes:
        names = self._names.listed()
        if path == "/models":
            return json.dumps({"object": "list", "data": [model_object(name) for name in names]}).encode()
        name = unquote(path.removeprefix("/models/"))
        self._names.meaning(name)
        return json.dumps(model_object(name)).encode()

    # --- what is not routed ---

    async def _passed_on(self, scope: Scope, path: str, raw_path: str, raw: bytes, send: Send) -> None:
        side = self._holder_of(path.removeprefix("/responses/").partition("/")[0])
        if side is None and self._other is not None:
            side = self.levels.names[0 if self._other == "strong" else -1]
        if side is None:
            raise RequestError(404, f"only {', '.join(sorted(requests.ROUTED))} are served here below /v1")
        start = time.perf_counter()
        try:
            answer = await self.upstreams.send(side, scope, raw_path, raw)
        except UpstreamError as exc:
            self._metrics.failed(side, _reason_of(exc))
            raise _unreachable(exc, side) from None
        self._metrics.answered(side, time.perf_counter() - start)
        try:
            await _start(send, answer)
            async for chunk in answer.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except UpstreamError as exc:
            logger.warning("A reply of the %s model's server broke off: %s.", side, exc)
            return
        finally:
            answer.close()
        await send({"type": "http.response.body", "body": b""})

    # --- what is routed ---

    async def _routed(self, scope: Scope, path: str, raw: bytes, client: str | None, send: Send) -> None:
        start = time.perf_counter()
        body = requests.parse_body(raw)
        call = _Call(scope, path, raw, body, self._names.meaning(body["model"]), start, client)
        decided = await self._decided(call, 0)
        self._metrics.decided(decided.decision, time.perf_counter() - start)
        route = self._route(call, 0, decided)
        record = self.routing.recording(decided)
        pieces = route.astream(partial(self._opened, call, 0), _is_empty)
        try:
            await self._send_on(call, pieces, send)
        except RefusalError as exc:
            call.refusal = _status_name(exc.status_code)
            told = self._told(call)
            await send({"type": "http.response.start", "status": exc.status_code, "headers": [*exc.headers, *told]})
            await send({"type": "http.response.body", "body": exc.raw})
        except (UpstreamError, EmptyAnswerError, BrokenReplyError) as exc:
            call.refusal = type(exc).__name__
            name = self._name_of(call)
            error = _unreachable(exc, shown_server(name, self.upstreams[name]))
            await reply(send, error.status, error.body, self._told(call))
        except asyncio.CancelledError:
            call.refusal = "ClientGone"
            raise
        finally:
            self._account(call)
            if record is not None:
                answer = self._logged(call, self._name_of(call))
                other = partial(self._shadow, call)
                record.answered_async(answer, route.priced(), spent=route.cost, other=other)

    def _paid(self, name: str, reader: AnswerReader) -> recording.Answer:
        """A reply of a model as the log takes it."""
        read, written = reader.usage or (None, None)
        return recording.Answer(reader.text, self.upstreams[name].model, read, written)

    def _name_of(self, call: _Call) -> str:
        """What the server calls the model that answers a call."""
        path = call.decision.path
        return self.levels.name(len(path) - 1, path[-1])

    async def _decided(self, call: _Call, level: int) -> Decided:
        """Decide a call at one level; the levels above have decided for the weak side."""
        headers = {name: value.decode("latin1") for name, value in call.scope["headers"] if name[:11] == b"x-routellm-"}
        routing = self.levels[level]
        try:
            settings = self._settings(call, headers, level)
            lookback = self._lookback(headers)
            holder = self._holder_of(call.body.get("previous_response_id"))
            if holder is not None and settings.force is None:
                side = self.levels.side(level, holder)
                request = RoutingRequest(
                    (), force=side, reason="sticky", detail="previous_response_id", keys=settings.keys
                )
            else:
                request = routing.request(
                    settings, gap=lambda: self._gap(call, level), texts=lambda: self._texts(call, lookback)
                )
            decided = Decided(await routing.adecide(request, settings), request, settings)
        except LimitError as exc:
            raise RequestError(429, str(exc), "insufficient_quota", kind="insufficient_quota") from None
        except (ConfigurationError, PromptError) as exc:
            raise RequestError(400, str(exc)) from None
        call.decided[level] = decided
        return decided

    def _route(self, call: _Call, level: int, decided: Decided) -> Route[_Piece]:
        on_settled = partial(self._settled, call, level)
        route: Route[_Piece]
        if call.asked.is_model:
            route = Route(decided.decision, on_settled=on_settled)
        else:
            route = self.levels[level].route(
                decided.request,
                decided.decision,
                is_broken=_nothing_is,
                answer_of=lambda pieces: _weak_answer(call.reader, pieces),
                messages=call.body.get("messages", call.body.get("input", call.body.get("prompt"))),
                on_settled=on_settled,
            )
        route.on_refused = partial(self._refused, call, level)
        call.routes[level] = route
        return route

    def _refused(self, call: _Call, level: int, runs: int) -> None:
        """Tell the levels above that the check of this one refused an answer."""
        for above in range(level):
            call.routes[above].refused_below(runs)

    def _used(self, call: _Call, name: str, reader: AnswerReader) -> None:
        """Count what a reply has used, at every level that it was given for."""
        read, written = reader.usage or (None, None)
        for level, route in call.routes.items():
            if route.cost is not None:
                route.cost.add(self.levels.side(level, name), self.upstreams[name].model, read, written)

    def _settled(self, call: _Call, level: int, decision: RoutingDecision) -> None:
        """Count a call as soon as it is certain which model answers, or that none does."""
        call.settled[level] = decision
        last = 0
        while last in call.settled and not self.levels.is_leaf(last, call.settled[last].model):
            last += 1
        if call.is_counted or last not in call.settled:
            return
        call.is_counted = True
        self._metrics.settled(self.levels.name(last, call.settled[last].model), call.settled[0])
        for at in range(last + 1):
            failed = call.settled[at].failover
            if failed is not None:
                self._metrics.failed_over(self.levels.name(at, failed))

    def _settings(self, call: _Call, headers: Mapping[bytes, str], level: int) -> CallSettings:
        """What the headers, the body and the model's name say of this call; a header wins over the name."""
        threshold, share = headers.get(b"x-routellm-threshold"), headers.get(b"x-routellm-strong-fraction")
        force = headers.get(b"x-routellm-force", call.asked.name or call.asked.force)
        given: dict[str, Any] = {
            THRESHOLD_SETTING: call.asked.threshold,
            FORCE_SETTING: self.levels.side(level, force) if force in self.levels.names else force,
            "client": call.client,
            "user_id": call.body.get("safety_identifier") or call.body.get("user"),
        }
        if threshold is not None and share is not None:
            raise RequestError(400, "x-routellm-threshold and x-routellm-strong-fraction are both set; send one")
        if threshold is not None:
            given[THRESHOLD_SETTING] = _number(threshold, "x-routellm-threshold")
        if share is not None:
            fraction = checked_fraction(_number(share, "x-routellm-strong-fraction"), "x-routellm-strong-fraction")
            given[THRESHOLD_SETTING] = self._names.threshold_of(fraction, "x-routellm-strong-fraction")
        sticky = self.levels[level].sticky
        given["thread_id" if sticky is None else sticky.key] = headers.get(b"x-routellm-conversation")
        user_key = self.routing.user_key
        for key in self.levels[level].policy.limit_keys | ({user_key} if user_key else set()):
            told = headers.get(b"x-routellm-" + key.replace("_", "-").encode())
            if told is not None and key != "client":
                given[key] = told
        return self.levels[level].settings(given)

    def _lookback(self, headers: Mapping[bytes, str]) -> int:
        told = headers.get(b"x-routellm-lookback")
        if told is None:
            return self.routing.lookback
        if not told.isascii() or not told.isdigit() or not 1 <= int(told[:9]) <= 1000:
            raise RequestError(400, "x-routellm-lookback: expected a number of user messages, 1 to 1000")
        return int(told)

    def _gap(self, call: _Call, level: int) -> str | None:
        routing = self.levels[level]
        if not routing.weak_profile:
            return None
        return routing.gap(
            requests.needs(call.path, call.body), None, None, lambda: requests.input_tokens(call.path, call.body)
        )

    def _texts(self, call: _Call, lookback: int) -> Any:
        if callable(self.routing.route_on):
            return self.routing.route_on(call.body)
        return requests.routing_texts(call.path, call.body, lookback) or ""

    # --- the reply ---

    async def _sent(self, call: _Call, side: str) -> Answer:
        """Send the request to one side, with the name that its model has there."""
        model = self.upstreams[side].model
        raw = call.raw if call.body["model"] == model else requests.with_model(call.raw, model)
        return await self.upstreams.send(side, call.scope, call.path, raw)

    async def _opened(self, call: _Call, level: int, chosen: Side) -> AsyncIterator[_Piece]:
        """Send the request to one side of a level, and return its reply's pieces once it has begun.

        Raises:
            UpstreamError: The server could not be reached.
            RefusalError: It refused, and the other side may answer; or it refused where an answer was to be checked.
        """
        if not self.levels.is_leaf(level, chosen):
            with handed_down(self.levels[level], [call.decided[level]]):
                decided = await self._decided(call, level + 1)
            return self._route(call, level + 1, decided).astream(partial(self._opened, call, level + 1), _is_empty)
        side = self.levels.name(level, chosen)
        fails_over = self.routing.failover and not call.asked.is_model
        start = time.perf_counter()
        try:
            answer = await self._sent(call, side)
        except UpstreamError as exc:
            self._metrics.failed(side, _reason_of(exc))
            self._warn(side, f"its server {exc.reason}: is it running, and is the address right?")
            raise
        self._metrics.answered(side, time.perf_counter() - start)
        if answer.status < 300:
            self._warned.discard(side)
        if answer.status >= 400:
            self._metrics.failed(side, str(answer.status))
            if answer.status in _MISCONFIGURED:
                self._warn(side, _MISCONFIGURED[answer.status])
            if fails_over or any(route.is_held for route in call.routes.values()):
                raise await _refusal(answer)
        call.reader = None
        call.refusal = _status_name(answer.status) if answer.status >= 400 else None
        wanted = (
            fails_over
            or self.policy.limits
            or self.routing.log is not None
            or self.routing.acceptance is not None
            or (self._holders is not None and call.path == requests.RESPONSES)
            or not self.routing.model_names.is_settled
        )
        if answer.status < 300 and wanted:
            call.reader = _reader_of(answer)
            call.paid.append((side, call.reader))
        return self._pieces(call, answer, fails_over=fails_over)

    async def _pieces(self, call: _Call, answer: Answer, *, fails_over: bool) -> AsyncGenerator[_Piece]:
        reader = uncounted = call.reader
        try:
            async for chunk in answer.chunks():
                if reader is None:
                    yield _Piece(answer, chunk)
                    continue
                try:
                    reader.feed(chunk)
                except BrokenReplyError:
                    if fails_over:
                        raise
                yield _Piece(answer, chunk, is_empty=not reader.begun)
            if reader is not None:
                try:
                    reader.end()
                except (BrokenReplyError, EmptyAnswerError):
                    if fails_over:
                        raise
                # before the last piece: a reply that is held back until it is complete can tell its cost
                self._used(call, answer.side, reader)
                uncounted = None
            yield _Piece(answer, b"")  # a reply without a body has to begin, too
        except (BrokenReplyError, EmptyAnswerError, UpstreamError) as exc:
            self._metrics.failed(answer.side, _reason_of(exc))
            raise
        finally:
            answer.close()
            if uncounted is not None:
                self._used(call, answer.side, uncounted)

    async def _send_on(self, call: _Call, pieces: AsyncGenerator[_Piece], send: Send) -> None:
        """Pass a reply on; where it breaks off after it began, so does what the client gets."""
        begun = False
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if not begun:
                        begun = True
                        await _start(send, piece.answer, self._told(call))
                    if piece.data:
                        await send({"type": "http.response.body", "body": piece.data, "more_body": True})
        except (UpstreamError, EmptyAnswerError, BrokenReplyError) as exc:
            if not begun:
                raise
            # the client has to see a broken reply: where its end is missing, the web server cuts the connection
            logger.warning("A reply of the %s model broke off: %s.", self._name_of(call), exc)
            return
        await send({"type": "http.response.body", "body": b""})

    def _warn(self, side: str, what: str) -> None:
        """Say once that a side does not work, and again only after it has answered in between."""
        if side not in self._warned:
            self._warned.add(side)
            upstream = self.upstreams[side]
            at = shown_address(upstream.url)
            logger.warning("The %s model %r at %s fails: %s", side, upstream.model, at, what)

    def _told(self, call: _Call) -> Headers:
        decision, cost = call.decision, call.routes[0].cost
        if cost is not None and cost.answer is not None:  # not what a refused answer alone has cost
            decision = replace(decision, cost=cost.total)
        return decision_headers(decision, self.upstreams[self._name_of(call)].model, call.asked.note)

    def _account(self, call: _Call) -> None:
        """Tell the limits what a call used, and remember who holds a stored response."""
        if self.policy.limits:
            for side, paid in call.paid:
                read, written = paid.usage or (requests.input_tokens(call.path, call.body), paid.output_tokens)
                if written or paid.usage is not None:
                    top = self.levels.side(0, side)
                    self.policy.spent(call.decided[0].request, top, read, written, model=paid.model)
        if len(self.levels) == 1:
            for side, paid in call.paid:
                self.routing.model_names.answered(self.levels.side(0, side), paid.model, self._setup)
        reader = call.reader
        if self._holders is not None and reader is not None and reader.response_id is not None:
            self._holders[reader.response_id] = self._name_of(call)
            while len(self._holders) > _MAX_RESPONSE_IDS:
                self._holders.popitem(last=False)

    def _setup(self, side: Side) -> Setup:
        upstream = self.upstreams[side]
        return Setup(upstream.model, upstream.url)

    def _logged(self, call: _Call, side: str) -> recording.Answer:
        """An answer as the log takes it."""
        reader, model = call.reader, self.upstreams[side].model
        if reader is None or call.refusal is not None:
            return recording.Answer(model=model, error=call.refusal or "UnreadReply")
        return self._paid(side, reader)

    async def _shadow(self, call: _Call, side: Side) -> recording.Answer:
        """Have the other side answer, for the log alone; of the levels below, the model that they decide for."""
        level = 0
        while not self.levels.is_leaf(level, side):
            with handed_down(self.levels[level], [call.decided[level]]):
                side = (await self._decided(call, level + 1)).decision.model
            level += 1
        name = self.levels.name(level, side)
        answer = await self._sent(call, name)
        try:
            reader = _reader_of(answer)
            async for chunk in answer.chunks():
                reader.feed(chunk)
            if answer.status < 400:
                reader.end()
        finally:
            answer.close()
        other = replace(call, reader=reader, refusal=_status_name(answer.status) if answer.status >= 400 else None)
        return self._logged(other, name)

    def _holder_of(self, response_id: Any) -> str | None:
        return self._holders.get(response_id) if self._holders and isinstance(response_id, str) else None


async def _while_connected(work: Any, receive: Receive) -> None:
    """Run `work` until it ends or the client goes away, which cancels it."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
    if not working.cancelled():
        working.result()


async def _gone(receive: Receive) -> None:
    """Wait until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, answer: Answer, told: Headers | None = None) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, *(told or ())]})


async def _refusal(answer: Answer) -> RefusalError:
    """The error for a reply with an error status; what cannot be read whole keeps its status."""
    try:
        raw = await answer.read(_MAX_REFUSAL)
    finally:
        answer.close()
    try:
        body = json.loads(raw.decode())
    except (ValueError, RecursionError):
        body = None
    return RefusalError(answer, raw, body)


def _unreachable(exc: Exception, server: str) -> RequestError:
    if isinstance(exc, UpstreamError):
        code = "upstream_timeout" if exc.is_timeout else "upstream_unavailable"
        return RequestError(504 if exc.is_timeout else 502, str(exc), code, kind="api_error")
    return RequestError(502, f"{server} gave no answer: {exc}", "upstream_broken", kind="api_error")


def _reason_of(exc: Exception) -> str:
    if isinstance(exc, UpstreamError):
        return "timeout" if exc.is_timeout else "connection"
    return "empty" if isinstance(exc, EmptyAnswerError) else "broken"


def _weak_answer(reader: AnswerReader | None, pieces: list[_Piece]) -> WeakAnswer:
    """What a check gets to see of a reply."""
    if reader is None:  # a redirect
        return WeakAnswer("", raw=pieces)
    return WeakAnswer(
        reader.text, reader.tool_calls, reader.finish_reason, tuple(reader.logprobs) or None, raw=reader.body or pieces
    )


def _reader_of(answer: Answer) -> AnswerReader:
    return AnswerReader(answer.header(b"content-type"), answer.header(b"content-encoding"))


def _status_name(status: int) -> str:
    """An error status in the place of an error's class."""
    return f"HTTP{status}"


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RequestError(400, f"{name}: expected a number between 0 and 1") from None


def _paths(scope: Scope) -> tuple[str, str]:
    """The path from where the app is mounted, decoded and as it was sent."""
    path, root = scope["path"], scope.get("root_path", "")
    raw = scope.get("raw_path")
    raw_path = path if raw is None else raw.decode("latin1")
    if root and path.startswith(root + "/"):
        path = path[len(root) :]
        if raw_path.startswith(root + "/"):
            raw_path = raw_path[len(root) :]
    return path, raw_path


def _climbs(raw_path: str) -> bool:
    """Whether a path leads upwards once it is decoded, as often as anybody may decode it."""
    path, decoded = raw_path, unquote(raw_path)
    while decoded != path:
        path, decoded = decoded, unquote(decoded)
    return any(part in ("..", ".") for part in path.replace("\\", "/").split("/"))


def _is_empty(piece: _Piece) -> bool:
    return piece.is_empty


def _nothing_is(_: Any) -> bool:
    """What is broken is found while it is read, see `AnswerReader`."""
    return False
