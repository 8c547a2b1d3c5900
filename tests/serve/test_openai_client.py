"""openai-python against the server: everything that it does with the service itself works, and is routed."""

from __future__ import annotations

import asyncio
import json
import threading

import openai
import pytest
from pydantic import BaseModel

from routellm_core.serve import create_app
from tests.serve.conftest import EASY, HARD, chat
from tests.support.loopback import ChatReply, Failure
from tests.support.routers import ScriptedRouter
from tests.support.serving import RawUpstream, http_answer, serving
from tests.support.waiting import LIMIT, until, wait_until

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture
def client(place):
    with openai.OpenAI(base_url=place.url, api_key="client-key", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("text", "model"), [(HARD, "big"), (EASY, "small")])
def test_chat_is_routed_and_says_how(client, place, text, model):
    raw = client.chat.completions.with_raw_response.create(**chat(text))
    assert raw.parse().choices[0].message.content == f"answer of {model}"
    assert raw.headers["x-routellm-model"] == ("strong" if model == "big" else "weak")
    assert raw.headers["x-routellm-upstream-model"] == model
    assert raw.headers["x-routellm-reason"] == "win_rate"
    assert float(raw.headers["x-routellm-win-rate"]) == pytest.approx(0.9 if model == "big" else 0.1)
    assert float(raw.headers["x-routellm-threshold"]) == 0.5
    assert len(raw.headers["x-routellm-decision-id"]) == 32
    asked, other = (place.strong, place.weak) if model == "big" else (place.weak, place.strong)
    assert [request.body["model"] for request in asked.requests] == [model]
    assert other.requests == []


def test_a_stream_comes_in_pieces_with_its_usage(client):
    stream = client.chat.completions.create(**chat(HARD), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "answer of big"
    assert chunks[-1].usage.total_tokens == 15


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, place, stream):
    place.strong.reply_next(ChatReply(tool_calls=[("add", {"a": 1})]))
    if stream:
        with client.chat.completions.stream(**chat(HARD), tools=[TOOL]) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(**chat(HARD), tools=[TOOL]).choices[0].message
    assert message.tool_calls[0].function.name == "add"
    assert json.loads(message.tool_calls[0].function.arguments) == {"a": 1}
    assert place.strong.requests[0].body["tools"][0] == TOOL


def test_a_tool_loop_is_routed_on_the_question_and_not_on_the_tools_result(client, place):
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": EASY},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "p=0.99 a very hard result"},
    ]
    client.chat.completions.create(model="routellm", messages=messages)
    assert len(place.weak.requests) == 1


def test_structured_output(client, place):
    class Answer(BaseModel):
        number: int

    place.weak.reply_next(ChatReply('{"number": 7}'))
    parsed = client.chat.completions.parse(**chat(EASY), response_format=Answer)
    assert parsed.choices[0].message.parsed == Answer(number=7)


@pytest.mark.parametrize("stream", [False, True])
def test_responses(client, stream):
    if stream:
        with client.responses.stream(model="routellm", input=HARD) as events:
            response = events.get_final_response()
    else:
        response = client.responses.create(model="routellm", input=[{"role": "user", "content": HARD}])
    assert response.output_text == "answer of big"


def test_a_stored_response_is_continued_where_it_is(client, place):
    first = client.responses.create(model="routellm", input=HARD)
    raw = client.responses.with_raw_response.create(model="routellm", input=EASY, previous_response_id=first.id)
    assert raw.parse().output_text == "answer of big"
    assert (raw.headers["x-routellm-reason"], raw.headers["x-routellm-detail"]) == ("sticky", "previous_response_id")
    assert place.weak.requests == []


def test_completions_and_several_prompts(client, place):
    assert client.completions.create(model="routellm", prompt=EASY).choices[0].text == "answer of small"
    assert client.completions.create(model="routellm", prompt=[EASY, HARD]).choices[0].text == "answer of big"
    assert client.completions.create(model="routellm", prompt=[1, 2, 3]).choices[0].text == "answer of big"
    assert place.strong.requests[-1].body["prompt"] == [1, 2, 3]


def test_embeddings_go_to_the_other_side_as_they_are(client, place):
    vectors = client.embeddings.create(model="embedder", input=["a", "b"], encoding_format="float").data
    assert len(vectors) == 2
    assert place.strong.requests[0].body["model"] == "embedder"
    assert place.strong.requests[0].authorization == "Bearer sk-strong"


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert {"routellm", "routellm-30pct", "router-scripted-0.50000", "strong", "weak", "big", "small"} <= set(names)
    assert client.models.retrieve("routellm-30pct").id == "routellm-30pct"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_an_image_alone_goes_to_strong_with_a_reason_of_its_own(client, place):
    raw = client.chat.completions.with_raw_response.create(
        model="routellm", messages=[{"role": "user", "content": [IMAGE]}]
    )
    assert (raw.headers["x-routellm-model"], raw.headers["x-routellm-reason"]) == ("strong", "no_text")
    assert place.strong.requests[0].body["messages"][0]["content"] == [IMAGE]


def test_an_image_that_weak_cannot_see_goes_to_strong(start):
    place = start(weak_profile={"image_inputs": False})
    with openai.OpenAI(base_url=place.url, api_key="x", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="routellm",
            messages=[{"role": "user", "content": [{"type": "text", "text": EASY}, IMAGE]}],  # type: ignore[list-item, misc]
        )
    assert (raw.headers["x-routellm-reason"], raw.headers["x-routellm-detail"]) == ("capability", "image_inputs")


def test_errors_come_back_with_status_and_headers(client, place):
    place.strong.fail_next(Failure(status=429, retry_after="7", message="slow down"))
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**chat(HARD))
    assert refused.value.response.headers["retry-after"] == "7"
    assert refused.value.body["message"] == "slow down"  # type: ignore[index]
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**chat(HARD, model="gpt-9"))
    assert unknown.value.code == "model_not_found"
    assert "routellm-30pct" in unknown.value.message


async def test_64_at_once(place):
    async with openai.AsyncOpenAI(base_url=place.url, api_key="x", max_retries=0) as client:
        texts = [HARD if i % 2 else EASY for i in range(64)]
        answers = await asyncio.gather(*(client.chat.completions.create(**chat(text)) for text in texts))
    expected = ["answer of big" if i % 2 else "answer of small" for i in range(64)]
    assert [answer.choices[0].message.content for answer in answers] == expected


async def test_a_client_that_goes_away_before_the_first_byte_cancels_the_request():
    upstream = RawUpstream(http_answer(b"{}"), stall=LIMIT)
    side = {"model": "m", "url": upstream.url}
    app = create_app(side, side, router=ScriptedRouter(), threshold=0.5)
    with serving(app) as origin:
        async with openai.AsyncOpenAI(base_url=f"{origin}/v1", api_key="x", max_retries=0) as client:
            asked = asyncio.ensure_future(client.chat.completions.create(**chat(HARD)))
            await until(lambda: upstream.received)
            asked.cancel()
            await until(upstream.hung_up.is_set)
    upstream.close()


def test_a_client_that_goes_away_in_a_stream_cancels_the_request():
    frame = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    upstream = RawUpstream(head, pieces=[frame] * 2000)
    side = {"model": "m", "url": upstream.url}
    app = create_app(side, side, router=ScriptedRouter(), threshold=0.5)
    with serving(app) as origin, openai.OpenAI(base_url=f"{origin}/v1", api_key="x", max_retries=0) as client:
        stream = client.chat.completions.create(**chat(HARD), stream=True)
        assert next(stream).choices[0].delta.content == "a"
        stream.close()
        assert upstream.hung_up.wait(LIMIT)
    upstream.close()


def test_threads_share_one_server(place):
    failures = []

    def work():
        with openai.OpenAI(base_url=place.url, api_key="x", max_retries=0) as client:
            for text, model in ((HARD, "big"), (EASY, "small")) * 3:
                answer = client.chat.completions.create(**chat(text)).choices[0].message.content
                if answer != f"answer of {model}":
                    failures.append(answer)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    # a client has its last byte a moment before the server's coroutine ends
    wait_until(lambda: b"routellm_open_requests 0.0" in place.app._metrics.text())
