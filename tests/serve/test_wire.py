"""What goes over the wire: bytes that stay as they are, keys that stay where they belong, paths and headers."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from typing import Any

import pytest

from routellm_core import Price, SpendLimit, TrafficLog
from routellm_core.serve import create_app
from tests.serve.conftest import EASY, HARD, chat
from tests.support.loopback import Failure
from tests.support.openai_server import OpenAIServer
from tests.support.routers import ScriptedRouter
from tests.support.serving import RawUpstream, http_answer, post, send_raw, serving
from tests.support.waiting import LIMIT

ANSWER = b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'


@pytest.fixture
def raw():
    """A server whose two sides are one recording upstream."""
    upstream = RawUpstream(http_answer(ANSWER, "X-Request-Id: 7", "Set-Cookie: a=b", "Content-Type: application/json"))
    sides = [{"model": name, "url": upstream.url, "key": f"sk-{name}"} for name in ("big", "small")]
    app = create_app(*sides, router=ScriptedRouter(), threshold=0.5)
    with serving(app) as origin:
        yield origin, upstream
    upstream.close()


def test_only_the_models_own_name_changes_in_the_bytes(raw):
    origin, upstream = raw
    body = (
        b'{ "temperature" : 1e2,\t"metadata":{"model":"routellm"},"model" :  "routellm" , "unknown":[{"model":"x"}],'
        b'"messages":[{"role":"user","content":"p=0.9 \\u00e9 \\"model\\": \\"y\\""}], "model":"routellm"}'
    )
    assert post(origin, "/v1/chat/completions", body).body == ANSWER
    sent = upstream.received[0].partition(b"\r\n\r\n")[2]
    assert sent == body.replace(b'"model" :  "routellm"', b'"model" :  "big"').replace(
        b'"model":"routellm"}', b'"model":"big"}'
    ).replace(b'{"model":"big"}', b'{"model":"routellm"}')


def test_a_real_models_request_goes_on_unchanged(raw):
    origin, upstream = raw
    body = json.dumps(chat(EASY, model="big")).encode()
    reply = post(origin, "/v1/chat/completions", body)
    assert reply.header("x-routellm-reason") == "forced"
    assert upstream.received[0].endswith(b"\r\n\r\n" + body)


def test_reply_headers_come_back_and_the_servers_own_stay_out(raw):
    origin, _ = raw
    reply = post(origin, "/v1/chat/completions", chat(HARD))
    assert reply.header("x-request-id") == "7"
    assert reply.header("content-length") == str(len(ANSWER))
    assert [name for name, _ in reply.headers].count("content-length") == 1
    assert reply.header("server") is None


def test_stream_frames_are_those_of_the_upstream(place):
    body = {**chat(HARD), "stream": True}
    through = post(place.origin, "/v1/chat/completions", body)
    direct = post(place.strong.origin, "/v1/chat/completions", {**body, "model": "big"})
    assert through.body == direct.body
    assert through.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("failover", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_frames_stay_whole_with_and_without_failover(start, path, failover):
    place = start(failover=failover)
    body = {"model": "routellm", "stream": True, "messages": [], "prompt": HARD, "input": HARD}
    body["messages"] = chat(HARD)["messages"]
    through = post(place.origin, path, body).body
    direct = post(place.strong.origin, path, {**body, "model": "big"}).body
    assert _without_numbers(through) == _without_numbers(direct)


def _without_numbers(body: bytes) -> bytes:
    return body.replace(b"_1", b"_N").replace(b"_2", b"_N")  # ids of responses count the requests


def test_keys_cookies_and_own_headers_do_not_cross(raw):
    origin, upstream = raw
    headers = {
        "authorization": "Bearer client-secret", "cookie": "session=1", "api-key": "client-secret",
        "openai-organization": "org", "x-routellm-threshold": "0.5", "x-mine": "kept", "connection": "close, x-hop",
        "x-hop": "1",
    }  # fmt: skip
    post(origin, "/v1/chat/completions", chat(HARD), headers)
    post(origin, "/v1/chat/completions", chat(EASY), headers)
    for sent, key in zip(upstream.received, (b"sk-big", b"sk-small"), strict=True):
        head = sent.partition(b"\r\n\r\n")[0].lower()
        assert b"authorization: bearer " + key in head
        assert b"x-mine: kept" in head
        for absent in (b"client-secret", b"cookie", b"organization", b"x-routellm", b"x-hop"):
            assert absent not in head


def test_a_clients_key_is_passed_on_only_where_told():
    upstream = RawUpstream(http_answer(ANSWER))
    app = create_app(
        {"model": "big", "url": upstream.url, "pass_client_key": True}, {"model": "small", "url": upstream.url},
        router=ScriptedRouter(), threshold=0.5,
    )  # fmt: skip
    with serving(app) as origin:
        for text in (HARD, EASY):
            post(origin, "/v1/chat/completions", chat(text), {"authorization": "Bearer mine"})
    upstream.close()
    assert b"Bearer mine" in upstream.received[0]
    assert b"Bearer mine" not in upstream.received[1]


def test_encoding_is_the_clients_choice(raw):
    origin, upstream = raw
    post(origin, "/v1/chat/completions", chat(HARD))
    post(origin, "/v1/chat/completions", chat(HARD), {"accept-encoding": "gzip"})
    heads = [sent.partition(b"\r\n\r\n")[0].lower() for sent in upstream.received]
    assert b"accept-encoding: identity" in heads[0]
    assert b"accept-encoding: gzip" in heads[1]
    assert b"identity" not in heads[1]


@pytest.mark.parametrize("failover", [False, True])
def test_a_compressed_reply_stays_compressed(failover):
    packed = gzip.compress(ANSWER)
    upstream = RawUpstream(http_answer(packed, "Content-Encoding: gzip", "Content-Type: application/json"))
    side = {"model": "m", "url": upstream.url}
    app = create_app(side, side, router=ScriptedRouter(), threshold=0.5, failover=failover)
    with serving(app) as origin:
        reply = post(origin, "/v1/chat/completions", chat(HARD), {"accept-encoding": "gzip"})
    upstream.close()
    assert reply.body == packed
    assert reply.header("content-encoding") == "gzip"


def test_a_redirect_is_passed_on():
    upstream = RawUpstream(http_answer(b"", "Location: http://127.0.0.1:9/else", status="307 Temporary Redirect"))
    side = {"model": "m", "url": upstream.url, "key": "sk-secret"}
    with serving(create_app(side, side, router=ScriptedRouter(), threshold=0.5)) as origin:
        reply = post(origin, "/v1/chat/completions", chat(HARD))
    upstream.close()
    assert (reply.status, reply.header("location")) == (307, "http://127.0.0.1:9/else")


def test_paths_and_queries_stay_as_they_were_sent(raw):
    origin, upstream = raw
    post(origin, "/v1/files/a%2Fb%20c?x=%7E&y=1+2", b"", method="GET")
    assert upstream.received[0].startswith(b"GET /v1/files/a%2Fb%20c?x=%7E&y=1+2 HTTP/1.1\r\n")


@pytest.mark.parametrize("path", ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/%252e%252e/x", "/v1/..%5cx", "/admin", "/"])
def test_a_path_that_climbs_goes_nowhere(raw, path):
    origin, upstream = raw
    assert post(origin, path, b"", method="GET").status == 404
    assert upstream.received == []


def test_other_paths_can_be_refused_or_sent_to_weak(start):
    nowhere = start(other="none")
    assert post(nowhere.origin, "/v1/embeddings", {"model": "e", "input": "a"}).status == 404
    place = start(other="weak")
    assert post(place.origin, "/v1/embeddings", {"model": "e", "input": "a"}).status == 200
    assert len(place.weak.requests) == 1


def test_a_mounted_app_counts_its_paths_from_there(place):
    async def mounted(scope, receive, send):
        if scope["type"] == "lifespan":  # most frameworks do not tell what is mounted in them
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await place.app.close()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await place.app({**scope, "root_path": "/llm"}, receive, send)

    with serving(mounted) as origin:
        assert post(origin, "/llm/v1/chat/completions", chat(EASY)).json()["model"] == "small"
        assert post(origin, "/llm/health", b"", method="GET").status == 200


def test_a_client_key_is_asked_for(start):
    place = start(client_keys={"app": "sk-client", "other": "sk-other"})
    for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sk-client"}):
        reply = post(place.origin, "/v1/chat/completions", chat(EASY), header)
        assert (reply.status, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    for key in ("sk-client", "sk-other"):
        assert post(place.origin, "/v1/chat/completions", chat(EASY), {"authorization": f"Bearer {key}"}).status == 200
    assert post(place.origin, "/health", b"", method="GET").status == 200
    assert len(place.weak.requests) == 2


def test_a_large_body_is_refused_and_a_slow_one_given_up(start):
    place = start(max_body=1000, body_timeout=0.2)
    assert post(place.origin, "/v1/chat/completions", chat("x" * 2000)).status == 413
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\n{"
    assert send_raw(place.origin, head).status == 408
    assert place.weak.requests == place.strong.requests == []


def test_slow_clients_do_not_hold_the_others(place):
    import socket

    host, port = place.origin.removeprefix("http://").split(":")
    lines = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        for line in lines:
            line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n{")
        assert post(place.origin, "/v1/chat/completions", chat(EASY)).status == 200
    finally:
        for line in lines:
            line.close()


def test_a_reply_that_breaks_off_breaks_off_for_the_client():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream = RawUpstream(head + b'10\r\ndata: {"a": 1}\n\n\r\n')  # and no last chunk
    side = {"model": "m", "url": upstream.url}
    with (
        serving(create_app(side, side, router=ScriptedRouter(), threshold=0.5)) as origin,
        pytest.raises(AssertionError, match="broke off"),
    ):
        post(origin, "/v1/chat/completions", {**chat(HARD), "stream": True})
    upstream.close()


def test_a_dead_upstream_is_502_and_a_silent_one_504():
    with OpenAIServer() as gone:
        url = gone.base_url
    silent = RawUpstream(http_answer(ANSWER), stall=LIMIT)
    app = create_app(
        {"model": "big", "url": url}, {"model": "small", "url": silent.url},
        router=ScriptedRouter(), threshold=0.5, read_timeout=0.2,
    )  # fmt: skip
    with serving(app) as origin:
        dead = post(origin, "/v1/chat/completions", chat(HARD))
        late = post(origin, "/v1/chat/completions", chat(EASY))
    silent.close()
    assert (dead.status, dead.json()["error"]["code"]) == (502, "upstream_unavailable")
    assert (late.status, late.json()["error"]["code"]) == (504, "upstream_timeout")
    assert dead.header("x-routellm-model") == "strong"
    assert f"strong model ('big' at {gone.base_url})" in dead.json()["error"]["message"]
    assert f"weak model ('small' at {silent.url})" in late.json()["error"]["message"]


def test_a_broken_reply_names_the_server(start):
    place = start(failover=True)
    for server in (place.strong, place.weak):
        server.fail_always(Failure(raw=""))
    reply = post(place.origin, "/v1/chat/completions", chat(HARD))
    assert reply.status == 502
    assert f"weak model ('small' at {place.weak.base_url})" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "encoding", "passes"),
    [
        (b"\x1f\x8bgarbage", "gzip", False),
        (b"plain words", "gzip", False),
        (gzip.compress(ANSWER)[:-20], "gzip", False),
        (zlib.compress(ANSWER, wbits=-15), "deflate", True),  # without zlib's header, as many servers send it
    ],
    ids=["garbage", "not packed", "cut off", "raw deflate"],
)
def test_a_reply_that_nobody_can_unpack_is_broken(body, encoding, passes):
    upstream = RawUpstream(http_answer(body, f"Content-Encoding: {encoding}", "Content-Type: application/json"))
    with OpenAIServer() as strong:
        app = create_app(
            {"model": "big", "url": strong.base_url}, {"model": "small", "url": upstream.url},
            router=ScriptedRouter(), threshold=0.5, failover=True,
        )  # fmt: skip
        with serving(app) as origin:
            reply = post(origin, "/v1/chat/completions", chat(EASY))
    upstream.close()
    assert (reply.status, reply.header("x-routellm-failover")) == (200, None if passes else "weak")
    if passes:
        assert reply.body == body


def test_health_says_that_this_server_lives_and_ready_whether_a_model_s_does(start, monkeypatch):
    monkeypatch.setattr("routellm_core.serve.readiness._SECONDS", 0.0)
    monkeypatch.setattr("routellm_core.serve.upstream._PROBE_SECONDS", LIMIT)
    place = start(failover=True, cooldown=60, client_keys="sk-client")

    def ready() -> Any:
        reply = post(place.origin, "/ready", b"", method="GET")
        models = reply.json()["models"]
        return reply.status, *((models[side]["answers"], models[side]["cooling_down"]) for side in ("strong", "weak"))

    assert ready() == (200, (True, False), (True, False))
    place.strong.fail_always(Failure(status=503))
    post(place.origin, "/v1/chat/completions", chat(HARD), {"authorization": "Bearer sk-client"})
    assert ready() == (200, (False, True), (True, False))
    place.weak.fail_always(Failure(cut=True))
    assert ready() == (503, (False, True), (False, False))
    assert post(place.origin, "/health", b"", method="GET").status == 200
    place.weak.heal()
    assert ready()[0] == 200


def test_ready_asks_the_servers_once_in_a_while(start, monkeypatch):
    monkeypatch.setattr("routellm_core.serve.readiness._SECONDS", 3600.0)
    monkeypatch.setattr("routellm_core.serve.upstream._PROBE_SECONDS", LIMIT)
    place = start()
    for _ in range(20):
        assert post(place.origin, "/ready", b"", method="GET").json()["models"]["weak"] == {
            "answers": True, "cooling_down": None
        }  # fmt: skip
    assert len(place.weak.requests) <= 1


def test_metrics_count_and_hold_nothing_of_a_prompt(place):
    for text in (HARD, EASY, EASY):
        post(place.origin, "/v1/chat/completions", chat(text + " secret words"))
    post(place.origin, "/v1/chat/completions", b"{")
    text = post(place.origin, "/metrics", b"", method="GET").body.decode()
    assert 'routellm_requests_total{reason="win_rate",side="strong"} 1.0' in text
    assert 'routellm_requests_total{reason="win_rate",side="weak"} 2.0' in text
    assert 'routellm_refused_total{status="400"} 1.0' in text
    assert "routellm_win_rate_count 3.0" in text
    assert 'routellm_upstream_seconds_count{side="weak"} 2.0' in text
    assert "secret" not in text
    assert "sk-" not in text


def test_big_bodies_are_searched_in_no_time():
    from routellm_core.serve.requests import with_model

    content = '\\"' * 500_000 + "x" * 20_000_000
    raw = b'{"messages":[{"role":"user","content":"' + content.encode() + b'"}],"model":"routellm"}'
    start = time.process_time()
    assert with_model(raw, "big").endswith(b',"model":"big"}')
    assert time.process_time() - start < 10  # backtracking would take for ever


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_reply_ends_when_all_that_it_changes_is_changed(start, tmp_path, path, stream):
    pytest.importorskip("sqlalchemy")
    limit = SpendLimit(1e9, prices={"strong": Price(1e6, 1e6), "weak": Price(0, 0)})
    with TrafficLog(f"sqlite:///{tmp_path / 'traffic.db'}") as log:
        place = start(limits=[limit], log=log)
        found = []

        async def receive() -> dict[str, Any]:
            if request:
                return request.pop()
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                is_open = b"routellm_open_requests 0.0" not in place.app._metrics.text()
                found.append((is_open, limit.spending() > 0, log._writer._put))

        body = {**chat(HARD, model="routellm"), "input": "a", "stream": stream}
        request = [{"type": "http.request", "body": json.dumps(body).encode()}]
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        await place.app(scope, receive, send)
        await place.app.close()
    assert found == [(False, path != "/v1/embeddings", int(path != "/v1/embeddings"))]
