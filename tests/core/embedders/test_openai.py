"""OpenAIEmbedder against a loopback server: what is sent, what comes back, and how each failure ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import traceback
from collections.abc import Iterator

import numpy as np
import pytest

from routellm_core.embedders import OpenAIEmbedder, embedder_config, load_embedder
from routellm_core.embedders import openai as module
from routellm_core.errors import ConfigurationError, RouterError
from tests.support.openai_server import Failure, OpenAIServer, embedding_of
from tests.support.waiting import LIMIT, until

KEY = "sk-not-to-be-seen"
SECRET = "the patient's name is Ada"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(dimension=8) as running:
        yield running


def embedder(server: OpenAIServer, **options: object) -> OpenAIEmbedder:
    return OpenAIEmbedder("m", base_url=server.base_url, api_key=KEY, **{"max_retries": 0, "timeout": LIMIT, **options})  # type: ignore[arg-type]


def run_both(embed: OpenAIEmbedder, texts: list[str]) -> np.ndarray:
    one = embed.embed(texts)
    other = asyncio.run(embed.aembed(texts))
    np.testing.assert_array_equal(one, other)
    return one


def test_vectors_in_order_of_the_texts(server: OpenAIServer) -> None:
    server.shuffle = True
    texts = [f"text {i}" for i in range(7)]
    got = run_both(embedder(server, dimensions=5), texts)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [embedding_of(t, 5) for t in texts], atol=1e-6)
    request = server.requests[0]
    assert request.authorization == f"Bearer {KEY}"
    assert request.body == {"model": "m", "input": texts, "encoding_format": "float", "dimensions": 5}
    assert len(server.requests) == 2


def test_dimension_is_known_for_openai_and_learned_elsewhere(server: OpenAIServer) -> None:
    assert OpenAIEmbedder(api_key=KEY).dimension == 1536
    assert OpenAIEmbedder("text-embedding-3-large", api_key=KEY).dimension == 3072
    assert OpenAIEmbedder("text-embedding-3-large", api_key=KEY, dimensions=256).dimension == 256
    learning = embedder(server)
    assert learning.dimension is None
    learning.embed(["a"])
    assert learning.dimension == 8
    server.fail_next(Failure(dimension=9))
    with pytest.raises(RouterError, match=r"\(1, 9\)"):
        learning.embed(["a"])


def test_splits_by_count_and_by_tokens(server: OpenAIServer) -> None:
    texts = [f"{i}" for i in range(2 * module.MAX_INPUTS + 1)]
    got = embedder(server).embed(texts)
    assert [len(r.inputs) for r in server.requests] == [2048, 2048, 1]
    np.testing.assert_allclose(got[[0, 2048, 4096]], [embedding_of(texts[i], 8) for i in (0, 2048, 4096)], atol=1e-6)
    server.requests.clear()
    heavy = ["é" * 2500] * 130  # 5,000 bytes each
    run_both(embedder(server), heavy)
    assert [len(r.inputs) for r in server.requests] == [60, 60, 10] * 2
    assert all(sum(len(t.encode()) for t in r.inputs) <= module.MAX_REQUEST_TOKENS for r in server.requests)


def test_empty_and_unsendable_texts(server: OpenAIServer) -> None:
    got = run_both(embedder(server), ["", "a\ud800b", "\x00"])
    assert server.requests[0].inputs == [" ", "a?b", "\x00"]
    assert np.isfinite(got).all()
    assert embedder(server).embed([]).shape == (0, 0)


def test_long_texts_are_cut_alone_until_accepted(server: OpenAIServer, caplog: pytest.LogCaptureFixture) -> None:
    embed = embedder(server, max_input_tokens=10)
    with caplog.at_level(logging.WARNING):
        embed.embed([SECRET * 10, "short"])
    assert server.requests[0].inputs == [(SECRET * 10)[:40], "short"]
    assert len(caplog.records) == 1
    assert SECRET not in caplog.text
    server.requests.clear()
    refused = Failure(status=400)
    server.fail_next(refused)
    assert embed.embed(["é" * 30, "short"]).shape == (2, 8)
    assert [r.inputs for r in server.requests] == [["é" * 20, "short"], ["short"], ["é" * 20]]
    server.requests.clear()
    server.fail_next(refused, refused)
    embed.embed(["é" * 30])
    assert [r.inputs for r in server.requests] == [["é" * 20], ["é" * 10], ["é" * 5]]
    server.fail_next(refused)
    with pytest.raises(RouterError, match="400"):
        embed.embed(["short"])


@pytest.mark.parametrize(
    "failure",
    [Failure(status=429, retry_after="1"), Failure(status=500), Failure(status=503), Failure(cut=True)],
    ids=["429", "500", "503", "cut"],
)
def test_passing_failures_are_tried_again(server: OpenAIServer, failure: Failure) -> None:
    server.fail_next(failure)
    got = embedder(server, max_retries=1).embed(["a"])
    assert len(server.requests) == 2
    np.testing.assert_allclose(got, [embedding_of("a", 8)], atol=1e-6)
    if failure.retry_after:
        assert server.requests[1].time - server.requests[0].time > 0.9


def test_time_out_is_tried_again(server: OpenAIServer) -> None:
    server.fail_next(Failure(stall=LIMIT))
    # The other retries are for a busy machine, on which an answer may be late as well
    assert embedder(server, max_retries=5, timeout=0.5).embed(["a"]).shape == (1, 8)
    assert len(server.requests) >= 2


FAILURES = {
    "429": (Failure(status=429), "429"),
    "500": (Failure(status=500, message="cannot embed {input}"), "500"),
    "401": (Failure(status=401, message=f"bad key {KEY}"), "API key"),
    "400": (Failure(status=400, message="bad input {input}"), "400"),
    "404": (Failure(status=404), "base_url"),
    "stall": (Failure(stall=LIMIT), "no answer within 0.3 s"),
    "cut": (Failure(cut=True), "connection failed"),
    "too few": (Failure(vectors=1), "1 vectors for 2 texts"),
    "too many": (Failure(vectors=3), "3 vectors for 2 texts"),
    "none": (Failure(vectors=0), "0 vectors for 2 texts"),
    "dimension": (Failure(dimension=7), "7"),
    "nan": (Failure(value=float("nan")), "NaN"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_lasting_failures_raise_and_tell_no_secret(
    server: OpenAIServer, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    failure, words = FAILURES[name]
    server.fail_always(failure)
    embed = embedder(server, dimensions=8, timeout=0.3 if failure.stall else LIMIT)
    texts = [SECRET, "b"]
    call = embed.embed if how == "sync" else lambda given: asyncio.run(embed.aembed(given))
    with caplog.at_level(logging.DEBUG), pytest.raises(RouterError, match=words) as caught:
        call(texts)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    said = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(embed)
    assert SECRET not in said
    assert KEY not in said


def test_success_logs_no_prompt_but_other_clients_still_log(
    server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    import openai

    with caplog.at_level(logging.DEBUG):
        run_both(embedder(server), [SECRET])
        assert SECRET not in caplog.text
        with openai.OpenAI(base_url=server.base_url, api_key="x") as other:
            other.embeddings.create(model="m", input=["in the open"])
    assert "in the open" in caplog.text


def test_one_embedder_serves_many_event_loops_and_closes_its_connections(server: OpenAIServer) -> None:
    embed = embedder(server)

    async def many() -> list[np.ndarray]:
        return await asyncio.gather(*(embed.aembed([f"{i}"]) for i in range(8)))

    for _ in range(3):
        got = asyncio.run(many())
        np.testing.assert_allclose(got[5], [embedding_of("5", 8)], atol=1e-6)
        assert not embed._async_clients
    gc.collect()  # a connection left open would warn here, and warnings are errors


async def test_an_async_call_does_not_block_the_loop(server: OpenAIServer) -> None:
    server.fail_next(Failure(stall=LIMIT))
    call = asyncio.ensure_future(embedder(server).aembed(["a"]))
    await until(lambda: server.requests)  # a call that blocked the loop would not let this end
    assert not call.done()
    server.release()
    assert (await call).shape == (1, 8)


def test_threads_share_one_embedder(server: OpenAIServer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    embed = embedder(server)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda i: embed.embed([f"{i}"])[0], range(32)))
    np.testing.assert_allclose(rows, [embedding_of(f"{i}", 8) for i in range(32)], atol=1e-6)


def test_config_round_trip_holds_no_secret_and_trusts_no_address(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    config = embedder_config(OpenAIEmbedder("text-embedding-3-large", dimensions=256))
    assert config == {"type": "openai", "model": "text-embedding-3-large", "dimensions": 256, "base_url": None}
    again = load_embedder(config)
    assert isinstance(again, OpenAIEmbedder)
    assert (again.model, again.dimension) == ("text-embedding-3-large", 256)
    elsewhere = OpenAIEmbedder("m", base_url="http://user:pass@127.0.0.1:9/v1?token=t", api_key="k")
    config = elsewhere.config()
    assert config["base_url"] == "http://127.0.0.1:9/v1"
    assert "pass" not in repr(elsewhere)
    with pytest.raises(ConfigurationError, match="base_url"):
        load_embedder(config)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    assert load_embedder({**config, "base_url": server.base_url}).embed(["a"]).shape == (1, 8)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"model": ""}, "model"),
        ({"dimensions": 0}, "dimensions"),
        ({"timeout": 0}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_input_tokens": True}, "max_input_tokens"),
    ],
)
def test_wrong_options_fail_at_construction(options: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        OpenAIEmbedder(**{"api_key": KEY, **options})  # type: ignore[arg-type]


def test_a_missing_key_fails_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIEmbedder()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"routellm-adapters\[openai\]"):
        OpenAIEmbedder(api_key=KEY)
