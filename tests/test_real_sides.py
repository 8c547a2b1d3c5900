"""What a person reads when a server is down, has no such model, or is the same for both sides: both adapters."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import openai
import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, RouteLLMRunnable
from llamaindex_routellm import RouteLLM
from routellm_core.policy.setups import FailureNote
from tests.support.examples import run_failing_example
from tests.support.openai_server import ChatReply, Failure, OpenAIServer
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 What is two plus two?", "p=0.9 Prove it."
NAMES = {"strong": "gpt-4o", "weak": "gpt-4o-mini"}
CLOSED = "http://127.0.0.1:9/v1"  # the discard port: nothing listens there


def langchain_model(name: str, url: str, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=url, api_key="k", max_retries=0, **settings)  # type: ignore[arg-type]


def llamaindex_model(name: str, url: str, **settings: Any) -> OpenAI:
    return OpenAI(model=name, api_base=url, api_key="k", max_retries=0, **settings)


Sides = dict[str, Any]


def ways(urls: dict[str, str], names: dict[str, str] = NAMES, **options: Any) -> dict[str, Any]:
    """Every kind of routed model over these servers, by the way it is called: a function of questions each."""
    options = {"router": ScriptedRouter(), "threshold": 0.5, **options}
    prompt = ChatPromptTemplate.from_messages([("human", "{q}")])
    template = PromptTemplate("{query_str}")

    def sides(of: Any, **settings: Any) -> Sides:
        return {side: of(names[side], urls[side], **settings) for side in ("strong", "weak")}

    def chat(**settings: Any) -> ChatRouteLLM:
        return ChatRouteLLM(**sides(langchain_model, **settings), **options)

    def chain() -> RouteLLMRunnable:
        chains = {side: prompt | model for side, model in sides(langchain_model).items()}
        return RouteLLMRunnable(**chains, route_on="q", **options)

    def agent() -> Any:
        models = sides(langchain_model)
        return create_agent(model=models["weak"], tools=[], middleware=[RouteLLMMiddleware(**models, **options)])

    def llm(**settings: Any) -> RouteLLM:
        return RouteLLM(**sides(llamaindex_model, **settings), **options)

    def each(routed: Any, call: Any) -> Any:
        return lambda questions: [call(routed, question) for question in questions]

    def each_async(make: Any, client: str, call: Any) -> Any:
        async def ask(questions: list[str]) -> None:
            async with httpx.AsyncClient() as connections:
                routed = make(**{client: connections})
                for question in questions:
                    await call(routed, question)

        return lambda questions: asyncio.run(ask(questions))

    async def read(routed: ChatRouteLLM, question: str) -> None:
        async for _ in routed.astream(question):
            pass

    return {
        "invoke": each(chat(), lambda m, q: m.invoke(q)),
        "ainvoke": each_async(chat, "http_async_client", lambda m, q: m.ainvoke(q)),
        "stream": each(chat(), lambda m, q: list(m.stream(q))),
        "astream": each_async(chat, "http_async_client", read),
        "batch": each(chat(), lambda m, q: m.batch([q])),
        "chain": each(chain(), lambda m, q: m.invoke({"q": q})),
        "agent": each(agent(), lambda m, q: m.invoke({"messages": [HumanMessage(q)]})),
        "chat": each(llm(), lambda m, q: m.chat([ChatMessage(q)])),
        "stream_chat": each(llm(), lambda m, q: list(m.stream_chat([ChatMessage(q)]))),
        "achat": each_async(llm, "async_http_client", lambda m, q: m.achat([ChatMessage(q)])),
        "predict": each(llm(), lambda m, q: m.predict(template, query_str=q)),
        "complete": each(llm(), lambda m, q: m.complete(q)),
    }


WAYS = list(ways({"strong": CLOSED, "weak": CLOSED}))


def note_of(call: Any, question: str, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        call([question])
    (note,) = [note for note in caught.value.__notes__ if isinstance(note, FailureNote)]
    return note


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_down_is_named(way):
    call = ways({"strong": CLOSED, "weak": CLOSED})[way]
    note = note_of(call, EASY, openai.APIConnectionError)
    assert note == (
        f"the server of the weak model 'gpt-4o-mini' at {CLOSED} cannot be reached: is it running, and is the address "
        "right?"
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_is_not_there_is_named(way):
    with OpenAIServer() as server:
        server.fail_next(Failure(status=404))
        note = note_of(ways({"strong": server.base_url, "weak": server.base_url})[way], HARD, openai.NotFoundError)
    assert note.startswith(
        f"the server of the strong model at {server.base_url} has no model 'gpt-4o' (HTTP status 404)"
    )


def test_a_side_that_is_passed_over_is_named_once(caplog):
    with OpenAIServer() as server, caplog.at_level(logging.WARNING, "routellm_core"):
        call = ways({"strong": server.base_url, "weak": CLOSED}, failover=True)["invoke"]
        call([EASY, EASY, EASY])
    (said,) = [record.getMessage() for record in caplog.records]
    assert (
        f"the weak model fails (OpenAIConnectionError: the server of the weak model 'gpt-4o-mini' at {CLOSED}" in said
    )


@pytest.mark.parametrize("way", WAYS)
def test_one_model_behind_both_names_is_warned_of_once(way, caplog):
    with OpenAIServer() as server, caplog.at_level(logging.WARNING, "routellm_core"):
        server.chat = lambda body: ChatReply("four", model="small.gguf")
        call = ways({"strong": server.base_url, "weak": server.base_url})[way]
        call([EASY, EASY, HARD, EASY, HARD])
    (said,) = [r.getMessage() for r in caplog.records if "name the same model" in r.getMessage()]
    assert "small.gguf, but strong is set up as 'gpt-4o' at" in said


@pytest.mark.parametrize("way", WAYS)
def test_two_models_are_not_warned_of(way, caplog):
    with OpenAIServer() as server, caplog.at_level(logging.WARNING, "routellm_core"):
        server.chat = lambda body: ChatReply("four", model=f"{body['model']}-2024-07-18")
        call = ways({"strong": server.base_url, "weak": server.base_url})[way]
        call([EASY, HARD, EASY])
    assert caplog.records == []


def test_one_model_with_two_settings_or_addresses_is_meant(caplog):
    options: dict[str, Any] = {"router": ScriptedRouter(), "threshold": 0.5}
    with OpenAIServer() as one, OpenAIServer() as other, caplog.at_level(logging.WARNING, "routellm_core"):
        a, b = one.base_url, other.base_url
        routed: list[Any] = [
            ChatRouteLLM(
                strong=langchain_model("gpt-4o", a, temperature=0), weak=langchain_model("gpt-4o", a), **options
            ),
            ChatRouteLLM(strong=langchain_model("gpt-4o", a), weak=langchain_model("gpt-4o", b), **options),
            ChatRouteLLM(
                strong=langchain_model("gpt-4o", a).bind(seed=1), weak=langchain_model("gpt-4o", a), **options
            ),
            ChatRouteLLM(  # a fallback of the strong side is the weak model
                strong=langchain_model("gpt-4o", CLOSED).with_fallbacks([langchain_model("gpt-4o-mini", a)]),
                weak=langchain_model("gpt-4o-mini", a),
                **options,
            ),
            ChatRouteLLM(  # tiers: the strong side routes between two of its own
                strong=ChatRouteLLM(
                    strong=langchain_model("gpt-4o", a), weak=langchain_model("gpt-4o-mini", a), router="random",
                    threshold=1.0,
                ),
                weak=langchain_model("gpt-4o-mini", a),
                **options,
            ),
            RouteLLMRunnable(  # one model under two instructions
                strong=ChatPromptTemplate.from_messages([("system", "think"), ("human", "{q}")])
                | langchain_model("gpt-4o", a),
                weak=ChatPromptTemplate.from_messages([("human", "{q}")]) | langchain_model("gpt-4o", a),
                route_on="q",
                **options,
            ),
            RouteLLMRunnable(  # texts name no model
                strong=langchain_model("big", a) | StrOutputParser(),
                weak=langchain_model("small", a) | StrOutputParser(),
                **options,
            ),
        ]  # fmt: skip
        for model in routed:
            is_chain = isinstance(model, RouteLLMRunnable) and model._routing.route_on == "q"
            for question in (EASY, HARD):
                model.invoke({"q": question} if is_chain else question)
        for strong, weak in (
            (llamaindex_model("gpt-4o", a, temperature=1), llamaindex_model("gpt-4o", a)),
            (llamaindex_model("gpt-4o", a), llamaindex_model("gpt-4o", b)),
        ):
            llm = RouteLLM(strong=strong, weak=weak, **options)
            for question in (EASY, HARD):
                llm.chat([ChatMessage(question)])
    assert caplog.records == []


def test_the_same_twice_is_warned_of(caplog):
    with OpenAIServer() as server, caplog.at_level(logging.WARNING, "routellm_core"):
        url = server.base_url
        names = {"strong": "gpt-4o", "weak": "gpt-4o"}
        for way in ("invoke", "chat", "chain"):
            call = ways({"strong": url, "weak": url}, names)[way]
            call([EASY, HARD])
    assert len(caplog.records) == 3


@pytest.mark.parametrize("script", ["langchain_chain.py", "llamaindex_rag.py"])
def test_an_example_ends_with_one_line(script, tmp_path):
    said = run_failing_example(script, cwd=tmp_path, ROUTELLM_STRONG_URL=CLOSED, ROUTELLM_WEAK_URL=CLOSED)
    last = said.splitlines()[-1]
    assert "Traceback" not in said
    assert "Error: the server of the " in last
    assert last.endswith(f"at {CLOSED} cannot be reached: is it running, and is the address right?")
