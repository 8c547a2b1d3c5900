"""Broken replies: every way of calling, on real OpenAI clients, against a service that answers with faults.

The rule for every cell of the matrix: with failover the strong model answers, and the decision says that the weak one
failed; without it an error is raised. There is no third outcome, and above all no empty answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, RouteLLMRunnable, routing_decision
from llamaindex_routellm import RouteLLM
from routellm_core import RoutingDecision
from routellm_core.errors import EmptyAnswerError
from tests.support.openai_server import ChatReply, Failure, OpenAIServer
from tests.support.routers import ScriptedRouter

EASY = "p=0.1 What is two plus two?"


def _completion(**fields: Any) -> Failure:
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
    return Failure(raw=json.dumps({**head, **fields}))


def _events(*events: str) -> Failure:
    return Failure(raw="".join(f"data: {event}\n\n" for event in events), content_type="text/event-stream")


def _chunk(**fields: Any) -> str:
    return json.dumps(
        {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": [], **fields}
    )


def _choice(part: str, **fields: Any) -> dict[str, Any]:
    return {"index": 0, part: {"role": "assistant", "content": ""}, "finish_reason": None, **fields}


ALWAYS = {
    "malformed JSON": Failure(raw='{"id": "x", "choices": ['),
    "a page": Failure(raw="<!DOCTYPE html><html><body>Sign in</body></html>", content_type="text/html"),
    "an empty body": Failure(raw=""),
    "a list": Failure(raw="[]"),
    "empty choices": _completion(choices=[]),
    "no choices": _completion(),
    "null choices": _completion(choices=None),
    "a null message": _completion(choices=[_choice("message") | {"message": None}]),
    "an answer without anything": _completion(choices=[_choice("message")]),
    "an error object": Failure(raw=json.dumps({"error": {"message": "overloaded", "type": "server_error"}})),
    "only [DONE]": _events("[DONE]"),
    "an empty stream": _events(),
    "a stream cut in its JSON": _events('{"id": "x", "cho', "[DONE]"),
    "an error in the stream": _events(json.dumps({"error": {"message": "overloaded", "type": "server_error"}})),
    "a stream without choices": _events(_chunk(), "[DONE]"),
    "a stream with null choices": _events(_chunk(choices=None), "[DONE]"),
    "a stream that only opens": _events(_chunk(choices=[_choice("delta")]), "[DONE]"),
    "a number in the stream": _events("5", "[DONE]"),
    "503": Failure(status=503),
    "429": Failure(status=429),
    "a cut line": Failure(cut=True),
}


@dataclass
class Services:
    """Two services; the strong one is well."""

    strong: OpenAIServer
    weak: OpenAIServer

    def langchain(self, **options: Any) -> dict[str, ChatOpenAI]:
        return {
            side: ChatOpenAI(model=model, base_url=server.base_url, api_key="sk-test", max_retries=0, **options)
            for side, model, server in self.both()
        }

    def llamaindex(self) -> dict[str, OpenAI]:
        return {
            side: OpenAI(model=model, api_base=server.base_url, api_key="sk-test", max_retries=0)
            for side, model, server in self.both()
        }

    def both(self) -> Iterator[tuple[str, str, OpenAIServer]]:
        yield "strong", "gpt-4o", self.strong
        yield "weak", "gpt-4o-mini", self.weak


@pytest.fixture
def services() -> Iterator[Services]:
    with OpenAIServer() as strong, OpenAIServer() as weak:
        yield Services(strong, weak)


Answered = tuple[str, RoutingDecision | None]


def _message(message: Any) -> Answered:
    return message.text, routing_decision(message)


def _llama(response: Any) -> Answered:
    text = getattr(response, "text", None) or response.message.content
    return text, RoutingDecision.from_dict(response.additional_kwargs.get("routellm"))


async def _listed(stream: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in stream]


async def _langchain(llm: Any, way: str) -> Answered:
    if way == "invoke":
        return _message(llm.invoke(EASY))
    if way == "ainvoke":
        return _message(await llm.ainvoke(EASY))
    if way == "batch":
        return _message(llm.batch([EASY])[0])
    if way == "abatch":
        return _message((await llm.abatch([EASY]))[0])
    chunks = list(llm.stream(EASY)) if way == "stream" else await _listed(llm.astream(EASY))
    return _message(chunks[0] + chunks[1:])


async def _agent(agent: Any, way: str) -> Answered:
    asked: Any = {"messages": [HumanMessage(EASY)]}
    if way == "invoke":
        return _message(agent.invoke(asked)["messages"][-1])
    if way == "ainvoke":
        return _message((await agent.ainvoke(asked))["messages"][-1])
    modes: Any = ["messages", "values"]
    parts = list(agent.stream(asked, stream_mode=modes)) if way == "stream" else None
    parts = parts or await _listed(agent.astream(asked, stream_mode=modes))
    return _message([part for mode, part in parts if mode == "values"][-1]["messages"][-1])


async def _llamaindex(llm: Any, way: str) -> Answered:
    chat = [ChatMessage(role="user", content=EASY)]
    if way == "invoke":
        return _llama(llm.chat(chat))
    if way == "ainvoke":
        return _llama(await llm.achat(chat))
    if way == "batch":
        return _llama(llm.complete(EASY))
    if way == "abatch":
        return _llama(await llm.acomplete(EASY))
    pieces = list(llm.stream_chat(chat)) if way == "stream" else await _listed(await llm.astream_chat(chat))
    return _llama(pieces[-1]) if pieces else ("", None)


async def ask(services: Services, kind: str, way: str, **options: Any) -> Answered:
    """One easy call on a fresh model of a kind."""
    options = {"router": ScriptedRouter(), "threshold": 0.5, **options}
    if kind == "llm":
        return await _llamaindex(RouteLLM(**services.llamaindex(), **options), way)
    sides = services.langchain()
    if kind == "middleware":
        agent = create_agent(model=sides["weak"], middleware=[RouteLLMMiddleware(**sides, **options)])
        return await _agent(agent, way)
    made: Any = ChatRouteLLM if kind == "chat" else RouteLLMRunnable
    return await _langchain(made(**sides, **options), way)


CELLS = [
    (kind, way)
    for kind in ("chat", "runnable", "middleware", "llm")
    for way in ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")
    if not (kind == "middleware" and "batch" in way)
]


@pytest.mark.parametrize("fault", ALWAYS)
@pytest.mark.parametrize(("kind", "way"), CELLS)
async def test_a_broken_reply_is_a_failure(services: Services, kind: str, way: str, fault: str) -> None:
    services.weak.fail_always(ALWAYS[fault])
    text, decision = await ask(services, kind, way, failover=True)
    assert text == "answer of gpt-4o"
    assert decision is not None
    assert (decision.model, decision.failover) == ("strong", "weak")
    assert len(services.weak.requests) == 1
    with pytest.raises(Exception, match=r"."):
        await ask(services, kind, way)
    assert len(services.strong.requests) == 1


@pytest.mark.parametrize(("kind", "way"), CELLS)
async def test_an_answer_that_ends_empty_for_a_reason_is_an_answer(services: Services, kind: str, way: str) -> None:
    services.weak.chat = lambda body: ChatReply("", finish_reason="content_filter")
    for failover in (True, False):
        text, decision = await ask(services, kind, way, failover=failover)
        assert not text
        assert decision is not None
        assert decision.model == "weak"
    assert services.strong.requests == []


def _refused(code: str | None, message: str, status: int = 400) -> Failure:
    error = {"message": message, "type": "invalid_request_error", "param": "messages", "code": code}
    return Failure(status=status, raw=json.dumps({"error": error}))


TOO_LONG = [
    _refused("context_length_exceeded", "This model's maximum context length is 8192 tokens."),
    _refused(None, "prompt is too long: 201002 tokens > 200000 maximum"),
]


@pytest.mark.parametrize("failure", TOO_LONG, ids=["code", "message"])
@pytest.mark.parametrize(("kind", "way"), CELLS)
async def test_a_prompt_too_long_for_weak_goes_to_strong(
    services: Services, kind: str, way: str, failure: Failure
) -> None:
    services.weak.fail_always(failure)
    text, decision = await ask(services, kind, way, failover=True)
    assert text == "answer of gpt-4o"
    assert decision is not None
    assert decision.failover == "weak"


@pytest.mark.parametrize(
    "failure",
    [
        _refused("content_filter", "The prompt was filtered."),
        _refused("content_filter", "filtered: prompt is too long"),
    ],
)
@pytest.mark.parametrize(("kind", "way"), CELLS)
async def test_a_content_filter_does_not(services: Services, kind: str, way: str, failure: Failure) -> None:
    services.weak.fail_always(failure)
    with pytest.raises(Exception, match="filtered"):
        await ask(services, kind, way, failover=True)
    assert services.strong.requests == []


@pytest.mark.parametrize("kind", ["chat", "runnable", "llm"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_prompt_too_long_for_strong_stays_its_error(services: Services, kind: str, way: str) -> None:
    services.strong.fail_always(TOO_LONG[0])
    with pytest.raises(Exception, match="maximum context length"):
        await ask(services, kind, way, failover=True, threshold=0.0)
    assert services.weak.requests == []


async def test_a_mistake_of_the_caller_is_raised(services: Services) -> None:
    chat = ChatRouteLLM(**services.langchain(), router=ScriptedRouter(), threshold=0.5, failover=True)
    for mistake in (
        lambda: chat.invoke(EASY, no_such_argument=1),
        lambda: chat.invoke(EASY, logit_bias=object()),
        lambda: list(chat.stream(EASY, no_such_argument=1)),
        lambda: chat.invoke(EASY, callbacks=[]),
    ):
        with pytest.raises(TypeError):
            mistake()
    llm = RouteLLM(**services.llamaindex(), router=ScriptedRouter(), threshold=0.5, failover=True)
    for mistake in (
        lambda: llm.chat([ChatMessage(role="user", content=EASY)], no_such_argument=1),
        lambda: list(llm.stream_complete(EASY, logit_bias=object())),
    ):
        with pytest.raises(TypeError):
            mistake()
    assert services.weak.requests == services.strong.requests == []


async def test_the_error_of_an_empty_answer_says_which_model(services: Services) -> None:
    services.weak.fail_always(ALWAYS["an answer without anything"])
    with pytest.raises(EmptyAnswerError, match="the weak model gave an empty answer"):
        await ask(services, "chat", "invoke")
    services.weak.heal()
    services.weak.fail_always(ALWAYS["only [DONE]"])
    with pytest.raises(EmptyAnswerError, match="the weak model gave an empty answer"):
        await ask(services, "llm", "stream")


def test_copies_pass_over_a_side_that_failed(services: Services) -> None:
    llm = ChatRouteLLM(**services.langchain(), router=ScriptedRouter(), threshold=0.5, failover=True, cooldown=60)
    services.weak.fail_always(Failure(status=503))
    llm.invoke(EASY)
    for copy in (llm, llm.bind_tools([]), llm.model_copy(update={"threshold": 0.6})):
        decision = routing_decision(copy.invoke(EASY))
        assert decision is not None
        assert (decision.model, decision.failover, decision.detail) == ("strong", "weak", "cooldown")
    assert len(services.weak.requests) == 1
