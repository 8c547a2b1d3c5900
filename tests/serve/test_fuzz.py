"""Hostile requests: a 4xx in OpenAI's form or passed through, and the server lives."""

from __future__ import annotations

import json
import random

import pytest

from tests.serve.conftest import EASY, chat
from tests.support.serving import post, send_raw
from tests.support.waiting import LIMIT

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses"]
FIXED = [
    b"", b"null", b"[]", b"1", b'"routellm"', b"{", b"{}", b'{"model":', b'{"model": 1}', b'{"model": ""}',
    b'{"model": []}',
    b'{"model": "routellm"}', b'{"model": "routellm", "messages": 1}', b'{"model": "routellm", "messages": {}}',
    b'{"model": "routellm", "messages": [1, null, [], {}], "input": [1, null], "prompt": [null, {}]}',
    b'{"model": "routellm", "messages": [{"role": 1, "content": 2}]}',
    b'{"model": "routellm", "messages": [{"role": "user", "content": [1, {"type": []}, {"text": 1}]}]}',
    b'{"mod\\u0065l": "routellm", "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": "routellm", "messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"model": "routellm", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    json.dumps({"model": "routellm", "messages": []}).encode("utf-16"),
    b"\xef\xbb\xbf" + json.dumps(chat(EASY)).encode(),
    b'{"model": "routellm", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"model": "routellm", "x": ' + b"9" * 100_000 + b"}",
    b'{"model": "routellm", "model": "weak", "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": "routellm", "x": NaN, "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": "routellm", "safety_identifier": {}, "user": [], "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": "routellm", "tools": 1, "response_format": 1, "text": 1, "messages": [{"role": "user"}]}',
    b'{"model": "routellm", "previous_response_id": "nope", "input": "a", "prompt": "a", "messages": []}',
]  # fmt: skip
LINES = [
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: nan\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-routellm-threshold: \xff\r\n\r\n",
    b"POST /v1/responses HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nz\r\nab\r\n",
]


def _is_sound(reply) -> bool:
    """Passed through, or refused in OpenAI's form."""
    if reply.status == 200:
        return True
    error = reply.json()["error"]
    return 400 <= reply.status < 500 and set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", PATHS)
def test_bodies_of_all_kinds(start, path):
    place = start(weak_profile={"image_inputs": False, "max_input_tokens": 10})
    for body in FIXED:
        reply = post(place.origin, path, body)
        assert _is_sound(reply), (body[:80], reply.status, reply.body[:200])
    assert post(place.origin, path, json.dumps({**chat(EASY), "prompt": EASY, "input": EASY}).encode()).status == 200


@pytest.mark.parametrize("raw", LINES)
def test_broken_http_is_refused(place, raw):
    assert 200 <= send_raw(place.origin, raw).status < 500
    assert post(place.origin, PATHS[0], chat(EASY)).status == 200


@pytest.mark.slow
def test_ten_thousand_mutated_requests(start):
    """Straight into the app, which is what a web server would call."""
    import asyncio

    place = start(max_body=20_000)
    rng = random.Random(0)
    seeds = [json.dumps({**chat(EASY), "prompt": EASY, "input": EASY, "tools": [], "user": "u"}).encode(), *FIXED[:20]]
    names = [b"x-routellm-threshold", b"x-routellm-force", b"x-routellm-lookback", b"x-routellm-strong-fraction"]
    seen: dict[int, int] = {}

    async def one() -> None:
        body = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(body) + 1)
            kind = rng.randrange(3)
            if kind == 0:
                body[at:at] = rng.choice([b"{", b"]", b'"', b"\\", b"\x00", b"\xff", b",", b"null", b"1e999"])
            elif kind == 1:
                del body[at : at + rng.randrange(8)]
            else:
                body[at : at + 1] = bytes([rng.randrange(256)])
        headers = [(rng.choice(names), rng.randbytes(rng.randrange(6)))] if rng.random() < 0.3 else []
        sent: list[dict] = []
        messages = [{"type": "http.request", "body": bytes(body)}]

        async def receive():
            if messages:
                return messages.pop()
            await asyncio.sleep(LIMIT)
            raise AssertionError("it waits for more")

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": rng.choice(PATHS), "headers": headers, "query_string": b"",
        }  # fmt: skip
        scope["raw_path"] = scope["path"].encode()  # type: ignore[attr-defined]
        await place.app(scope, receive, send)
        status = sent[0]["status"]
        seen[status] = seen.get(status, 0) + 1
        if status != 200:
            error = json.loads(b"".join(m.get("body", b"") for m in sent))["error"]
            assert 400 <= status < 500, (status, bytes(body), error)
            assert set(error) == {"message", "type", "param", "code"}

    async def all_of_them() -> None:
        for _ in range(10_000):
            await one()
        await place.app.close()

    asyncio.run(all_of_them())
    assert seen[200] > 300
    assert seen[400] > 3000
