"""Real OpenAI clients of LlamaIndex over real HTTP: two servers, two keys, neither sent to the other side."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from llamaindex_routellm import RouteLLM, SavingsEventHandler
from routellm_core import Price
from tests.llamaindex.conftest import Recorder
from tests.support.fakes_llamaindex import FakeLLM, Reply
from tests.support.openai_server import ChatReply, Failure, OpenAIServer
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 What is two plus two?", "p=0.9 Prove it."
KEYS = {"strong": "sk-strong-side", "weak": "sk-weak-side"}


@pytest.fixture
def servers() -> Iterator[dict[str, OpenAIServer]]:
    with OpenAIServer() as strong, OpenAIServer() as weak:
        yield {"strong": strong, "weak": weak}


@pytest.fixture
async def clients(servers: dict[str, OpenAIServer]) -> AsyncIterator[dict[str, Any]]:
    made = {
        side: OpenAI(
            model={"strong": "gpt-4o", "weak": "gpt-4o-mini"}[side],
            api_base=servers[side].base_url,
            api_key=KEYS[side],
            max_retries=0,
            additional_kwargs={"stream_options": {"include_usage": True}},
        )
        for side in ("strong", "weak")
    }
    yield made
    for client in made.values():
        client._get_client().close()
        if client._aclient is not None:
            await client._aclient.close()


@pytest.fixture
def llm(clients: dict[str, Any], router: ScriptedRouter) -> RouteLLM:
    return RouteLLM(**clients, router=router, threshold=0.5)


@pytest.fixture(autouse=True)
def _each_key_stays_on_its_side(servers: dict[str, OpenAIServer]) -> Iterator[None]:
    yield
    for side, server in servers.items():
        other = KEYS["weak" if side == "strong" else "strong"]
        for request in server.requests:
            assert request.authorization == f"Bearer {KEYS[side]}"
            assert other not in json.dumps([request.headers, request.body])
            assert "routellm" not in json.dumps([request.headers, request.body])


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


class TestCalls:
    @pytest.mark.parametrize(("text", "side"), [(EASY, "weak"), (HARD, "strong")])
    async def test_every_way(self, text: str, side: str, llm: RouteLLM, servers: dict[str, OpenAIServer]) -> None:
        chat = [user(text)]
        answers = [llm.chat(chat), await llm.achat(chat), list(llm.stream_chat(chat))[-1]]
        answers.append([piece async for piece in await llm.astream_chat(chat)][-1])
        model = llm.strong.metadata.model_name if side == "strong" else llm.weak.metadata.model_name
        assert [a.message.content for a in answers] == [f"answer of {model}"] * 4
        completions = [llm.complete(text), await llm.acomplete(text), list(llm.stream_complete(text))[-1]]
        completions.append([piece async for piece in await llm.astream_complete(text)][-1])
        assert [c.text for c in completions] == [f"answer of {model}"] * 4
        assert {a.additional_kwargs["routellm"]["model"] for a in [*answers, *completions]} == {side}  # type: ignore[attr-defined]
        assert answers[0].additional_kwargs["prompt_tokens"] == 10
        assert len(servers[side].requests) == 8
        other = "weak" if side == "strong" else "strong"
        assert servers[other].requests == []

    async def test_tokens_and_events_once(self, llm: RouteLLM, counter: TokenCountingHandler, events: Recorder) -> None:
        llm.callback_manager = CallbackManager([counter])
        llm.chat([user(EASY)])
        await llm.acomplete(HARD)
        list(llm.stream_chat([user(EASY)]))
        assert counter.total_llm_token_count == 3 * 15
        assert events.count("LLMChatEndEvent") == 2
        assert events.count("LLMCompletionEndEvent") == 1
        assert [d["model"] for d in events.decisions] == ["weak", "strong", "weak"]

    def test_an_answer_sent_back_carries_no_decision(self, llm: RouteLLM, servers: dict[str, OpenAIServer]) -> None:
        first = llm.chat([user(EASY)])
        llm.chat([user(EASY), first.message, user(HARD)])
        # the fixture looks through both bodies for "routellm"
        assert [m["role"] for m in servers["strong"].requests[0].body["messages"]] == ["user", "assistant", "user"]

    def test_predict_and_structured_predict(
        self, llm: RouteLLM, servers: dict[str, OpenAIServer], router: ScriptedRouter
    ) -> None:
        class Sum(BaseModel):
            """A sum."""

            value: int

        prompt = PromptTemplate("Context: {context_str} Query: {query_str}")
        assert llm.predict(prompt, context_str="p=1 x", query_str=EASY) == "answer of gpt-4o-mini"
        servers["strong"].reply_next(ChatReply('{"value": 4}'))
        assert llm.structured_predict(Sum, prompt, context_str="p=0 x", query_str=HARD) == Sum(value=4)
        # the provider's own way of structured output, not a tool call
        assert servers["strong"].requests[0].body["response_format"]["type"] == "json_schema"
        assert router.prompts == [EASY, HARD]

    def test_the_dict_holds_neither_key(self, llm: RouteLLM) -> None:
        dumped = llm.to_json()
        assert not any(key in dumped for key in KEYS.values())
        assert json.loads(dumped)["weak"]["model"] == "gpt-4o-mini"


class TestTools:
    @staticmethod
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @pytest.mark.parametrize("streaming", [True, False])
    async def test_parallel_calls(self, streaming: bool, llm: RouteLLM, servers: dict[str, OpenAIServer]) -> None:
        tools = [FunctionTool.from_defaults(self.add)]
        calls = [("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})]
        servers["weak"].reply_next(ChatReply(tool_calls=calls))
        if streaming:
            stream = await llm.astream_chat_with_tools(tools, EASY, allow_parallel_tool_calls=True)
            response = [piece async for piece in stream][-1]
        else:
            response = await llm.achat_with_tools(tools, EASY, allow_parallel_tool_calls=True)
        parsed = llm.get_tool_calls_from_response(response)
        assert [(c.tool_name, c.tool_kwargs) for c in parsed] == calls

    @pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated")  # LlamaIndex's workflows look at it
    @pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
    @pytest.mark.parametrize(("text", "side"), [(EASY, "weak"), (HARD, "strong")])
    async def test_an_agent_loop(
        self, text: str, side: str, llm: RouteLLM, servers: dict[str, OpenAIServer], router: ScriptedRouter
    ) -> None:
        servers[side].reply_next(ChatReply(tool_calls=[("add", {"a": 1, "b": 2})]), ChatReply("three"))
        agent = FunctionAgent(llm=llm, tools=[self.add], system_prompt="Use tools.")
        memory = ChatMemoryBuffer.from_defaults(token_limit=3000, tokenizer_fn=str.split)
        assert str(await agent.run(text, memory=memory)) == "three"
        second = servers[side].requests[1].body["messages"]
        assert [m["role"] for m in second] == ["system", "user", "assistant", "tool"]
        assert second[-1]["content"] == "3"
        assert set(router.prompts) == {text}

    def test_with_a_model_of_another_provider(
        self, clients: dict[str, Any], servers: dict[str, OpenAIServer], router: ScriptedRouter
    ) -> None:
        weak = FakeLLM("weak", Reply(tools=[("add", {"a": 5, "b": 6})]))
        llm = RouteLLM(strong=clients["strong"], weak=weak, router=router, threshold=0.5)
        servers["strong"].reply_next(ChatReply(tool_calls=[("add", {"a": 1, "b": 2})]))
        tools = [FunctionTool.from_defaults(self.add)]
        for text, expected in ((EASY, {"a": 5, "b": 6}), (HARD, {"a": 1, "b": 2})):
            response = llm.chat_with_tools(tools, user_msg=text)
            assert llm.get_tool_calls_from_response(response)[0].tool_kwargs == expected
        assert "tools_for_weak" in weak.seen[0].kwargs
        assert "tools_for_weak" not in servers["strong"].requests[0].body


class TestFailures:
    @pytest.fixture
    def safe(self, clients: dict[str, Any], router: ScriptedRouter) -> RouteLLM:
        return RouteLLM(**clients, router=router, threshold=0.5, failover=True)

    async def ask(self, llm: RouteLLM, way: str, text: str) -> Any:
        if way == "chat":
            return llm.chat([user(text)])
        if way == "achat":
            return await llm.achat([user(text)])
        if way == "stream_chat":
            return list(llm.stream_chat([user(text)]))[-1]
        return [piece async for piece in await llm.astream_chat([user(text)])][-1]

    @pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
    @pytest.mark.parametrize(
        "failure",
        [Failure(status=503), Failure(status=429), Failure(status=500), Failure(cut=True)],
        ids=["503", "429", "500", "cut"],
    )
    async def test_failover(
        self, way: str, failure: Failure, safe: RouteLLM, servers: dict[str, OpenAIServer], events: Recorder
    ) -> None:
        servers["weak"].fail_always(failure)
        answer = await self.ask(safe, way, EASY)
        assert answer.message.content == "answer of gpt-4o"
        decision = answer.additional_kwargs["routellm"]
        assert (decision["model"], decision["failover"]) == ("strong", "weak")
        assert events.decisions == [decision]

    @pytest.mark.parametrize("way", ["stream_chat", "astream_chat"])
    async def test_a_stream_cut_before_its_first_token(
        self, way: str, safe: RouteLLM, servers: dict[str, OpenAIServer]
    ) -> None:
        # one event has gone out, and it said no more than "assistant"
        servers["weak"].fail_next(Failure(cut=True, cut_after=1))
        answer = await self.ask(safe, way, EASY)
        assert answer.message.content == "answer of gpt-4o"
        assert answer.additional_kwargs["routellm"]["failover"] == "weak"

    @pytest.mark.parametrize("way", ["stream_chat", "astream_chat"])
    async def test_a_stream_cut_after_a_token(self, way: str, safe: RouteLLM, servers: dict[str, OpenAIServer]) -> None:
        servers["weak"].fail_next(Failure(cut=True, cut_after=3))
        with pytest.raises(Exception, match=r".") as caught:
            await self.ask(safe, way, EASY)
        assert "incomplete" in str(caught.value) or isinstance(caught.value, openai.APIError)
        assert servers["strong"].requests == []

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    async def test_refusals_are_not_retried(
        self, status: int, safe: RouteLLM, servers: dict[str, OpenAIServer]
    ) -> None:
        servers["weak"].fail_next(Failure(status=status))
        with pytest.raises(openai.APIStatusError) as caught:
            safe.chat([user(EASY)])
        assert caught.value.status_code == status
        assert servers["strong"].requests == []

    async def test_without_failover_the_clients_error(self, llm: RouteLLM, servers: dict[str, OpenAIServer]) -> None:
        servers["weak"].fail_next(Failure(status=503))
        with pytest.raises(openai.InternalServerError):
            llm.chat([user(EASY)])
        assert servers["strong"].requests == []

    def test_the_clients_own_retries_stay(
        self, servers: dict[str, OpenAIServer], clients: dict[str, Any], router: ScriptedRouter
    ) -> None:
        clients["weak"].max_retries = 2
        servers["weak"].fail_next(Failure(status=503, retry_after="0"))
        llm = RouteLLM(**clients, router=router, threshold=0.5, failover=True)
        answer = llm.chat([user(EASY)])
        assert answer.additional_kwargs["routellm"]["failover"] is None
        assert len(servers["weak"].requests) == 2


async def test_usage_and_savings(llm: RouteLLM, servers: dict[str, OpenAIServer]) -> None:
    savings = SavingsEventHandler({"strong": Price(10, 30), "weak": Price(1, 2)})
    root = get_dispatcher()
    before = list(root.event_handlers)
    root.add_event_handler(savings)
    try:
        servers["weak"].reply_next(*[ChatReply("ok", usage=(1000, 100))] * 3)
        servers["strong"].reply_next(ChatReply("ok", usage=(2000, 200)))
        llm.chat([user(EASY)])
        await llm.acomplete(EASY)
        list(llm.stream_chat([user(EASY)]))
        llm.predict(PromptTemplate("{query_str}"), query_str=HARD)
        # not routed, so not counted
        llm.weak.chat([user("direct")])
    finally:
        root.event_handlers = before
    summary = savings.summary()
    assert (summary.weak.calls, summary.weak.input_tokens, summary.weak.output_tokens) == (3, 3000, 300)
    assert (summary.strong.calls, summary.strong.input_tokens, summary.strong.output_tokens) == (1, 2000, 200)
    assert summary.cost == pytest.approx((3000 * 1 + 300 * 2 + 2000 * 10 + 200 * 30) / 1e6)
    assert summary.saved == pytest.approx((3000 * 9 + 300 * 28) / 1e6)
    assert "strong share 25.0%" in summary.table()
