"""Broken replies: every way of calling, on real OpenAI clients, against a service that answers with faults.

Each fault has one outcome, whatever the kind of model and the way of calling. `OTHER`: with failover the strong model
answers, without it an error is raised. `ERROR`: an error is raised, with failover as well. `ANSWER`: the weak model
answers. There is no fourth outcome; above all, no empty answer without a reason for it.
"""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import openai
import pytest
import pytest_asyncio
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, RouteLLMRunnable, routing_decision
from llamaindex_routellm import RouteLLM
from routellm_core import RoutingDecision
from routellm_core.errors import EmptyAnswerError
from tests.support.openai_server import ChatReply, Failure, OpenAIServer
from tests.support.routers import ScriptedRouter
from tests.support.waiting import LIMIT, wait_until

# one loop and one set of clients for all cells: a client costs more than a hundred calls
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

EASY = "p=0.1 What is two plus two?"
MODELS = {"strong": "gpt-4o", "weak": "gpt-4o-mini"}
KINDS = ("chat", "runnable", "middleware", "llm")
WAYS = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")
# streams of LlamaIndex's completions end in another way than those of its chats
COMPLETIONS = ("stream completions", "astream completions")
CELLS = [*((kind, way) for kind in KINDS for way in WAYS), *(("llm", way) for way in COMPLETIONS)]

Outcome = Literal["OTHER", "ERROR", "ANSWER"]


@dataclass(frozen=True)
class Fault:
    """What the weak model's service does, and what is to come of it.

    Attributes:
        failure: What it sends.
        outcome: See above.
        raises: Class of the error, where an error is raised.
    """

    failure: Failure | None
    outcome: Outcome = "OTHER"
    raises: type[Exception] = Exception
    reply: ChatReply = field(default_factory=ChatReply)


def _completion(**fields: Any) -> Fault:
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
    return Fault(Failure(raw=json.dumps({**head, **fields})))


def _events(*events: str) -> Fault:
    return Fault(Failure(raw="".join(f"data: {event}\n\n" for event in events), content_type="text/event-stream"))


def _chunk(**fields: Any) -> str:
    return json.dumps(
        {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": [], **fields}
    )


def _choice(part: str, **fields: Any) -> dict[str, Any]:
    return {"index": 0, part: {"role": "assistant", "content": ""}, "finish_reason": None, **fields}


def _refused(code: str | None, message: str) -> Failure:
    error = {"message": message, "type": "invalid_request_error", "param": "messages", "code": code}
    return Failure(status=400, raw=json.dumps({"error": error}))


FAULTS = {
    # replies that no client can read, or that have nothing to read
    "malformed JSON": Fault(Failure(raw='{"id": "x", "choices": [')),
    "a page": Fault(Failure(raw="<!DOCTYPE html><html><body>Sign in</body></html>", content_type="text/html")),
    "an empty body": Fault(Failure(raw="")),
    "a list": Fault(Failure(raw="[]")),
    "null": Fault(Failure(raw="null")),
    "empty choices": _completion(choices=[]),
    "no choices": _completion(),
    "null choices": _completion(choices=None),
    "a null message": _completion(choices=[_choice("message") | {"message": None}]),
    "an answer without anything": _completion(choices=[_choice("message")]),
    "an error object": Fault(Failure(raw=json.dumps({"error": {"message": "overloaded", "type": "server_error"}}))),
    "only [DONE]": _events("[DONE]"),
    "an empty stream": _events(),
    "a stream cut in its JSON": _events('{"id": "x", "cho', "[DONE]"),
    "an error in the stream": _events(json.dumps({"error": {"message": "overloaded", "type": "server_error"}})),
    "a stream without choices": _events(_chunk(), "[DONE]"),
    "a stream with null choices": _events(_chunk(choices=None), "[DONE]"),
    "a stream that only opens": _events(_chunk(choices=[_choice("delta")]), "[DONE]"),
    "a number in the stream": _events("5", "[DONE]"),
    # a service in trouble
    "503": Fault(Failure(status=503), raises=openai.InternalServerError),
    "429": Fault(Failure(status=429), raises=openai.RateLimitError),
    "a cut line": Fault(Failure(cut=True), raises=openai.APIConnectionError),
    "a time-out": Fault(Failure(stall=LIMIT), raises=openai.APITimeoutError),
    # refusals: of a prompt that the strong model may take, and of what it would refuse as well
    "too long, by code": Fault(
        _refused("context_length_exceeded", "This model's maximum context length is 8192 tokens."),
        raises=openai.BadRequestError,
    ),
    "too long, by message": Fault(
        _refused(None, "prompt is too long: 201002 tokens > 200000 maximum"), raises=openai.BadRequestError
    ),
    "a wrong key": Fault(Failure(status=401), "ERROR", openai.AuthenticationError),
    "a filtered prompt": Fault(_refused("content_filter", "The prompt was filtered."), "ERROR", openai.BadRequestError),
    "a filtered prompt that says it is too long": Fault(
        _refused("content_filter", "The prompt was filtered: 'your prompt is too long'"),
        "ERROR",
        openai.BadRequestError,
    ),
    # an answer that says why it has no text
    "a filtered answer": Fault(None, "ANSWER", reply=ChatReply("", finish_reason="content_filter")),
}


@dataclass
class Services:
    """Two services, of which the strong one is well, and the clients of both frameworks.

    Attributes:
        weak_clients: LangChain's and LlamaIndex's for the weak service: those that wait for an answer, and those that
            give up soon, for a service that stalls. On a busy machine the latter would give up on one that is well.
    """

    strong: OpenAIServer
    weak: OpenAIServer
    langchain: dict[str, Any]
    llamaindex: dict[str, Any]
    weak_clients: dict[str, tuple[Any, Any]]

    def begin(self, fault: Fault) -> None:
        stalls = fault.failure is not None and fault.failure.stall
        self.langchain["weak"], self.llamaindex["weak"] = self.weak_clients["hasty" if stalls else "patient"]
        for server in (self.strong, self.weak):
            server.heal()
            server.requests.clear()
        if fault.failure is not None:
            self.weak.fail_always(fault.failure)
        self.weak.chat = lambda body: fault.reply


@pytest.fixture(autouse=True)
def _collected_between_tests() -> Iterator[None]:
    """A test keeps a failed stream alive with the error that it has caught. The garbage collector would close it at any
    moment, also while the client that all tests share holds the lock that closing it needs, which blocks for ever."""
    gc.disable()
    yield
    gc.enable()
    gc.collect(1)  # what the test made is young; all of it would take a quarter of a second


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services() -> AsyncIterator[Services]:
    with OpenAIServer() as strong, OpenAIServer() as weak, httpx.Client() as client:
        async with httpx.AsyncClient() as async_client:

            def clients(side: str, server: OpenAIServer, timeout: float) -> tuple[Any, Any]:
                common: dict[str, Any] = {
                    "model": MODELS[side], "api_key": "sk-test", "max_retries": 0, "timeout": timeout,
                    "http_client": client,
                }  # fmt: skip
                return (
                    ChatOpenAI(base_url=server.base_url, http_async_client=async_client, **common),
                    OpenAI(api_base=server.base_url, async_http_client=async_client, **common),
                )

            langchain, llamaindex = clients("strong", strong, LIMIT)
            weak_clients = {"patient": clients("weak", weak, LIMIT), "hasty": clients("weak", weak, 0.3)}
            yield Services(strong, weak, {"strong": langchain}, {"strong": llamaindex}, weak_clients)


Answered = tuple[str, RoutingDecision | None]


def _message(message: Any) -> Answered:
    return message.text, routing_decision(message)


def _response(response: Any) -> Answered:
    text = (response.message.content if hasattr(response, "message") else response.text) or ""
    return text, RoutingDecision.from_dict(response.additional_kwargs.get("routellm"))


async def _listed(stream: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in stream]


async def _called(runnable: Any, way: str, value: Any, **options: Any) -> Any:
    """What a LangChain runnable gives for one input; a list of pieces for streams."""
    if way == "invoke":
        return runnable.invoke(value)
    if way == "ainvoke":
        return await runnable.ainvoke(value)
    if way == "batch":
        return runnable.batch([value])[0]
    if way == "abatch":
        return (await runnable.abatch([value]))[0]
    return (
        list(runnable.stream(value, **options))
        if way == "stream"
        else await _listed(runnable.astream(value, **options))
    )


async def _llamaindex(llm: RouteLLM, way: str) -> Answered:
    chat = [ChatMessage(role="user", content=EASY)]
    if way == "invoke":
        return _response(llm.chat(chat))
    if way == "ainvoke":
        return _response(await llm.achat(chat))
    if way == "batch":  # LlamaIndex has no batches; these are its other way of asking
        return _response(llm.complete(EASY))
    if way == "abatch":
        return _response(await llm.acomplete(EASY))
    if way == "stream completions":
        return _response(list(llm.stream_complete(EASY))[-1])
    if way == "astream completions":
        return _response((await _listed(await llm.astream_complete(EASY)))[-1])
    pieces = list(llm.stream_chat(chat)) if way == "stream" else await _listed(await llm.astream_chat(chat))
    return _response(pieces[-1])


async def ask(services: Services, kind: str, way: str, **options: Any) -> Answered:
    """One easy call on a fresh model of a kind."""
    options = {"router": ScriptedRouter(), "threshold": 0.5, **options}
    if kind == "llm":
        return await _llamaindex(RouteLLM(**services.llamaindex, **options), way)
    sides: Any = services.langchain
    if kind == "middleware":
        agent: Any = create_agent(model=sides["weak"], middleware=[RouteLLMMiddleware(**sides, **options)])
        states = await _called(agent, way, {"messages": [HumanMessage(EASY)]}, stream_mode="values")
        return _message((states[-1] if "stream" in way else states)["messages"][-1])
    made: Any = ChatRouteLLM if kind == "chat" else RouteLLMRunnable
    answer = await _called(made(**sides, **options), way, EASY)
    return _message(answer[0] + answer[1:] if "stream" in way else answer)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(("kind", "way"), CELLS)
async def test_every_cell(services: Services, kind: str, way: str, name: str) -> None:
    fault = FAULTS[name]
    for failover in (True, False):
        services.begin(fault)
        if fault.outcome == "ERROR" or (fault.outcome == "OTHER" and not failover):
            with pytest.raises(fault.raises):
                await ask(services, kind, way, failover=failover)
            expected = ""
        else:
            text, decision = await ask(services, kind, way, failover=failover)
            assert decision is not None
            assert decision.failover == ("weak" if fault.outcome == "OTHER" else None)
            expected = decision.model
            assert text == ("answer of gpt-4o" if expected == "strong" else "")
        assert expected == {"OTHER": "strong" if failover else "", "ERROR": "", "ANSWER": "weak"}[fault.outcome]
        # nothing is asked twice; who gives up soon may do so before the request has arrived
        wait_until(lambda: services.weak.requests)
        assert len(services.weak.requests) == 1
        assert len(services.strong.requests) == (expected == "strong")


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.outcome == "OTHER"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_chain_hides_no_broken_reply(services: Services, way: str, name: str) -> None:
    for failover in (True, False):
        services.begin(FAULTS[name])
        chains: dict[str, Any] = {side: model | StrOutputParser() for side, model in services.langchain.items()}
        route = RouteLLMRunnable(**chains, router=ScriptedRouter(), threshold=0.5, failover=failover)
        if failover:
            answer = await _called(route, way, EASY)
            assert "".join(answer) == "answer of gpt-4o"
        else:
            with pytest.raises(FAULTS[name].raises):
                await _called(route, way, EASY)
        wait_until(lambda: services.weak.requests)


@pytest.mark.parametrize("way", WAYS)
async def test_an_empty_answer_of_a_chain_with_a_reason_is_one(services: Services, way: str) -> None:
    services.begin(FAULTS["a filtered answer"])
    chains: dict[str, Any] = {side: model | StrOutputParser() for side, model in services.langchain.items()}
    functions: dict[str, Any] = dict.fromkeys(chains, lambda text: "")
    for sides in (chains, functions):
        route = RouteLLMRunnable(**sides, router=ScriptedRouter(), threshold=0.5, failover=True)
        assert "".join(await _called(route, way, EASY)) == ""
        assert services.strong.requests == []


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("include_raw", [False, True])
async def test_structured_output_hides_no_broken_reply(services: Services, method: Any, include_raw: bool) -> None:
    schema = {"title": "Sum", "type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    services.begin(FAULTS["an answer without anything"])
    services.strong.chat = lambda body: ChatReply(
        '{"sum": 4}', tool_calls=[("Sum", {"sum": 4})] if body.get("tools") else ()
    )
    llm = ChatRouteLLM(**services.langchain, router=ScriptedRouter(), threshold=0.5, failover=True)
    answer = llm.with_structured_output(schema, method=method, include_raw=include_raw).invoke(EASY)
    assert (answer["parsed"] if include_raw else answer) == {"sum": 4}
    services.strong.chat = lambda body: ChatReply(f"answer of {body['model']}")


@pytest.mark.parametrize(("kind", "way"), CELLS)
async def test_a_prompt_too_long_for_strong_stays_its_error(services: Services, kind: str, way: str) -> None:
    services.begin(Fault(None))
    services.strong.fail_always(FAULTS["too long, by code"].failure or Failure())
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await ask(services, kind, way, failover=True, threshold=0.0)
    assert services.weak.requests == []


async def test_a_mistake_of_the_caller_is_raised(services: Services) -> None:
    services.begin(Fault(None))
    chat = ChatRouteLLM(**services.langchain, router=ScriptedRouter(), threshold=0.5, failover=True)
    llm = RouteLLM(**services.llamaindex, router=ScriptedRouter(), threshold=0.5, failover=True)
    messages = [ChatMessage(role="user", content=EASY)]
    for mistake in (
        lambda: chat.invoke(EASY, no_such_argument=1),
        lambda: chat.invoke(EASY, logit_bias=object()),
        lambda: list(chat.stream(EASY, no_such_argument=1)),
        lambda: llm.chat(messages, no_such_argument=1),
        lambda: list(llm.stream_chat(messages, logit_bias=object())),
    ):
        with pytest.raises(TypeError):
            mistake()
    assert services.weak.requests == services.strong.requests == []


@pytest.mark.parametrize(
    ("kind", "way", "name"), [("chat", "invoke", "an answer without anything"), ("llm", "stream", "only [DONE]")]
)
async def test_the_error_of_an_empty_answer_says_which_model(
    services: Services, kind: str, way: str, name: str
) -> None:
    services.begin(FAULTS[name])
    with pytest.raises(EmptyAnswerError, match="the weak model gave an empty answer"):
        await ask(services, kind, way)


async def test_copies_pass_over_a_side_that_failed(services: Services) -> None:
    services.begin(FAULTS["503"])
    llm = ChatRouteLLM(**services.langchain, router=ScriptedRouter(), threshold=0.5, failover=True, cooldown=60)
    llm.invoke(EASY)
    copies: list[Any] = [llm, llm.bind_tools([]), llm.model_copy(update={"threshold": 0.6})]
    for copy in copies:
        decision = routing_decision(copy.invoke(EASY))
        assert decision is not None
        assert (decision.model, decision.failover, decision.detail) == ("strong", "weak", "cooldown")
    assert len(services.weak.requests) == 1
