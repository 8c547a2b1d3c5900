"""Chat models of services and frameworks: replies, errors and keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from routellm_core import ConfigurationError
from routellm_core.labelling import (
    CallError,
    LLMChatModel,
    OpenAIChatModel,
)
from routellm_core.labelling.chat_models import Reply
from tests.core.labelling.services import KEY, model_at
from tests.support.openai_server import ChatReply, Failure, OpenAIServer


async def test_replies_of_frameworks_and_their_errors_are_read_alike(tmp_path: Path) -> None:
    class Message:
        content = ({"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "[[A]]"}, "!")
        usage_metadata: ClassVar = {"input_tokens": 3, "output_tokens": 4}

    class Model:
        model_name = "mine"

        async def ainvoke(self, messages: Any) -> Any:
            if messages[-1][1] == "fail":
                raise RuntimeError(f"cannot answer {messages} with {KEY}")
            return Message()

    model = LLMChatModel(Model())
    assert model.name == "mine"
    assert await model.ask("s", "u") == Reply("[[A]]!", 3, 4)
    with pytest.raises(CallError) as caught:
        await model.ask(None, "fail")
    assert str(caught.value) == "mine: RuntimeError"
    with pytest.raises(ConfigurationError, match="ainvoke"):
        LLMChatModel(object())


def test_a_model_without_a_key_says_which_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIChatModel("gpt")


def test_the_key_is_looked_for_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="MY_KEY is not set"):
        OpenAIChatModel("gpt", key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", KEY)
    assert OpenAIChatModel("gpt", key_env="MY_KEY", temperature=0).settings == {"temperature": 0}
    with pytest.raises(ConfigurationError, match="model="):
        OpenAIChatModel("", api_key=KEY)


async def test_replies_say_what_served_them_and_whether_they_are_whole(server: OpenAIServer) -> None:
    server.reply_next(
        ChatReply("whole", usage=(3, 4)),
        ChatReply("cut o", model="other.gguf", finish_reason="length"),
        ChatReply(None),
    )
    async with model_at(server, "m") as model:
        assert await model.ask(None, "u") == Reply("whole", 3, 4, served_by="m")
        assert await model.ask("s", "u") == Reply("cut o", 10, 5, served_by="other.gguf", truncated=True)
        assert (await model.ask(None, "u")).text == ""


@pytest.mark.parametrize(("status", "retry", "fatal"), [(400, False, False), (401, False, True), (429, True, False)])
async def test_failures_are_told_apart_by_what_follows_from_them(
    server: OpenAIServer, status: int, retry: bool, fatal: bool
) -> None:
    server.fail_always(Failure(status=status, retry_after="7", message="{input} " + KEY))
    async with model_at(server, "m") as model:
        with pytest.raises(CallError) as caught:
            await model.ask(None, "private question")
    assert (caught.value.retry, caught.value.fatal, caught.value.wait) == (retry, fatal, 7)
    assert str(status) in str(caught.value)
    assert "private" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "retry"),
    [
        (Failure(raw="<html>Welcome</html>", content_type="text/html"), False),
        (Failure(raw='{"error": {"message": "overloaded", "code": 502}}'), True),
    ],
    ids=["a page", "an error with status 200"],
)
async def test_what_is_no_chat_completion_is_no_empty_reply(
    server: OpenAIServer, failure: Failure, retry: bool
) -> None:
    server.fail_always(failure)
    async with model_at(server, "m") as model:
        with pytest.raises(CallError, match="no chat completion; is the URL") as caught:
            await model.ask(None, "private question")
    assert caught.value.retry == retry


async def test_the_waiting_time_is_read_in_all_its_forms() -> None:
    class Refused(Exception):
        status_code = 429

        def __init__(self, **headers: str) -> None:
            self.response = SimpleNamespace(headers={k.replace("_", "-"): v for k, v in headers.items()})

    class Model:
        def __init__(self, headers: dict[str, str]) -> None:
            self.headers = headers

        async def ainvoke(self, messages: Any) -> Any:
            raise Refused(**self.headers)

    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    cases: list[tuple[dict[str, str], float | None]] = [
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "2.5"}, 2.5),
        ({"retry_after": "-1"}, 0.0),
        ({"retry_after": past}, 0.0),
        ({"retry_after": "soon"}, None),
        ({}, None),
    ]
    for headers, wait in cases:
        with pytest.raises(CallError) as caught:
            await LLMChatModel(Model(headers)).ask(None, "u")
        assert (caught.value.wait, caught.value.retry) == (wait, True)


async def test_a_model_closes_its_connections_and_opens_them_again(server: OpenAIServer) -> None:
    server.chat = lambda body: ChatReply("hello")
    model = OpenAIChatModel("m", base_url=server.base_url, api_key=KEY)
    for _ in range(2):
        await model.ask(None, "u")
        await model.aclose()
    await model.aclose()  # twice does no harm
    assert len(server.requests) == 2


def test_one_model_serves_several_event_loops(server: OpenAIServer) -> None:
    server.chat = lambda body: ChatReply("hello")
    model = OpenAIChatModel("m", base_url=server.base_url, api_key=KEY)
    for _ in range(2):
        asyncio.run(model.ask(None, "u"))  # the loop closes its connections
    assert len(server.requests) == 2
