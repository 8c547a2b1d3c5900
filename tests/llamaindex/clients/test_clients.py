"""Real clients as sides: each kind of fault that other people's code met, on each client that is installed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from llamaindex_routellm import RouteLLM, SavingsEventHandler, routing_decision
from tests.llamaindex.clients import CLIENTS, close, sides
from tests.llamaindex.clients.ways import ANSWERS, PROMPT, engine
from tests.llamaindex.conftest import Recorder
from tests.support.loopback import ChatReply, Failure
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 What is two plus two?", "p=0.9 Prove it."
SIDES = ((EASY, "weak"), (HARD, "strong"))
clients = pytest.mark.parametrize("client", CLIENTS)


def asked(server: Any) -> int:
    """Requests for an answer, without those in which a client asks its server what a model is."""
    return len([request for request in server.requests if not request.path.endswith(("/api/show", "/api/tags"))])


@clients
@pytest.mark.parametrize("routed_side", ["strong", "weak"])
async def test_next_to_a_client_of_another_provider(client: str, routed_side: str, router: ScriptedRouter) -> None:
    names = {"strong": "openai", "weak": "openai"} | {routed_side: client}
    async with sides(**names) as (models, servers):
        llm = RouteLLM(**models, router=router, threshold=0.5)
        for text, side in SIDES:
            before = {name: asked(server) for name, server in servers.items()}
            answers = [await ask(llm, text) for ask in ANSWERS]
            told = [routing_decision(answer) for answer in answers]
            assert [decision and decision.model for decision in told] == [side] * 8
            assert all(str(answer).endswith(f"answer of {models[side].metadata.model_name}") for answer in answers)
            grown = {name: asked(server) - before[name] for name, server in servers.items()}
            assert grown == {"strong": 0, "weak": 0} | {side: 8}
        assert "routellm" not in json.dumps([request.body for s in servers.values() for request in s.requests])


class TestASideThatIsDown:
    """Some clients ask their server what a model is: neither side's trouble is the other's."""

    @clients
    @pytest.mark.parametrize("down", ["strong", "weak"])
    @pytest.mark.parametrize("failover", [False, True])
    async def test_the_other_answers(
        self, client: str, down: str, failover: bool, router: ScriptedRouter, events: Recorder
    ) -> None:
        async with sides(**({"strong": "openai", "weak": "openai"} | {down: client})) as (models, servers):
            servers[down].close()
            llm = RouteLLM(**models, router=router, threshold=0.5, failover=failover)
            assert llm.metadata.context_window > 0
            for text, side in SIDES:
                messages = [ChatMessage(content=text)]
                if side == down and not failover:
                    with pytest.raises(Exception, match=r"(?i)connect"):
                        llm.chat(messages)
                    with pytest.raises(Exception, match=r"(?i)connect"):
                        await llm.achat(messages)
                else:
                    for answer in (llm.chat(messages), await llm.achat(messages)):
                        decision = routing_decision(answer)
                        assert decision is not None
                        assert decision.model != down
                        assert decision.failover == (down if side == down else None)
        assert len(events.decisions) == 4

    @pytest.mark.parametrize("hung", ["strong", "weak"])
    async def test_a_server_that_hangs(
        self, hung: str, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llamaindex_routellm.side._PATIENCE", 0.5)  # enough for the side that does not hang
        monkeypatch.setattr("llamaindex_routellm.side._SILENCE", 3600.0)
        async with sides(**({"strong": "openai", "weak": "openai"} | {hung: "ollama"})) as (models, servers):
            servers[hung].fail_always(Failure(stall=600))
            llm = RouteLLM(**models, router=router, threshold=0.5)
            assert llm.metadata.context_window > 0
            text = EASY if hung == "strong" else HARD
            for ask in ANSWERS:
                decision = routing_decision(await ask(llm, text))
                assert decision is not None
                assert decision.model != hung
            assert len(servers[hung].requests) == 1

    @pytest.mark.parametrize("unknown", ["strong", "weak"])
    async def test_a_name_that_the_client_does_not_know(
        self, unknown: str, router: ScriptedRouter, events: Recorder
    ) -> None:
        async with sides("openai", "openai") as (models, _):
            models[unknown].model = "qwen3-32b-instruct"  # type: ignore[attr-defined]
            llm = RouteLLM(**models, router=router, threshold=0.5)
            for text, side in SIDES:
                if side == unknown:
                    with pytest.raises(ValueError, match="Unknown model 'qwen3-32b-instruct'"):
                        llm.chat([ChatMessage(content=text)])
                else:
                    assert routing_decision(llm.chat([ChatMessage(content=text)])) is not None
        assert [d["model"] for d in events.decisions] == ["weak", "strong"]


# small windows: how each client is told of its model's
WINDOWS: dict[str, dict[str, Any]] = {
    "openai": {"model": "gpt-4"},
    "openai-like": {"context_window": 8192},
    "azure": {"model": "gpt-4"},
    "ollama": {"context_window": 8192},
}


@pytest.mark.parametrize("client", WINDOWS)
@pytest.mark.parametrize("strong", ["openai", "anthropic"])
@pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE], ids=lambda mode: mode.value)
async def test_a_prompt_that_llama_index_fitted_is_no_capability_gap(
    client: str, strong: str, mode: ResponseMode, router: ScriptedRouter, events: Recorder
) -> None:
    async with sides(strong, client) as (models, servers):
        for name, value in WINDOWS[client].items():
            setattr(models["weak"], name, value)
        llm = RouteLLM(**models, router=router, threshold=0.5)
        texts = [f"{i}. " + "Мост был открыт премьером штата дождливым утром в марте. " * 40 for i in range(40)]
        engine(llm, *texts, mode=mode).query(EASY)
        assert len(events.decisions) > 1
        assert {(d["model"], d["reason"]) for d in events.decisions} == {("weak", "win_rate")}
        assert asked(servers["strong"]) == 0
        assert set(router.prompts) == {EASY}


class Sum(BaseModel):
    """A sum."""

    value: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class TestTools:
    @clients
    @pytest.mark.parametrize("streaming", [True, False])
    # LlamaIndex's workflows look at every attribute of a pydantic model, deprecated ones too
    @pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated")
    @pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
    async def test_an_agent_stays_on_the_side_of_its_task(
        self, client: str, streaming: bool, router: ScriptedRouter
    ) -> None:
        async with sides("openai", client) as (models, servers):
            llm = RouteLLM(**models, router=router, threshold=0.5)
            for text, side in SIDES:
                servers[side].reply_next(ChatReply(tool_calls=[("add", {"a": 2, "b": 3})]), ChatReply("five"))
                agent = FunctionAgent(llm=llm, tools=[add], streaming=streaming)
                memory = ChatMemoryBuffer.from_defaults(token_limit=3000, tokenizer_fn=str.split)
                output: Any = await agent.run(text, memory=memory)
                assert str(output) == "five"
                assert [call.tool_output.content for call in output.tool_calls] == ["5"]
                decision = routing_decision(output)
                assert decision is not None
                assert decision.model == side
            assert set(router.prompts) == {EASY, HARD}

    @pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated")
    @pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
    @pytest.mark.parametrize("client", ["openai-like", "ollama"])
    async def test_an_agent_leaves_a_weak_model_that_cannot_call_functions(
        self, client: str, router: ScriptedRouter, events: Recorder
    ) -> None:
        async with sides("openai", client) as (models, servers):
            models["weak"].is_function_calling_model = False  # type: ignore[attr-defined]
            llm = RouteLLM(**models, router=router, threshold=0.5)
            memory = ChatMemoryBuffer.from_defaults(token_limit=3000, tokenizer_fn=str.split)
            servers["strong"].reply_next(ChatReply(tool_calls=[("add", {"a": 2, "b": 3})]), ChatReply("five"))
            assert str(await FunctionAgent(llm=llm, tools=[add]).run(EASY, memory=memory)) == "five"
            assert [(d["model"], d["detail"]) for d in events.decisions] == [("strong", "tool_calling")] * 2
            assert routing_decision(llm.complete(EASY)).model == "weak"  # type: ignore[union-attr]

    @clients
    @pytest.mark.parametrize("way", ["structured_predict", "astructured_predict"])
    @pytest.mark.filterwarnings("ignore:The 'output_format' parameter is deprecated")  # Anthropic's client, of itself
    async def test_an_object(self, client: str, way: str, router: ScriptedRouter) -> None:
        async with sides("openai", client) as (models, servers):
            llm = RouteLLM(**models, router=router, threshold=0.5)
            by_tool = client == "openai-like"
            reply = ChatReply(tool_calls=[("Sum", {"value": 4})]) if by_tool else ChatReply('{"value": 4}')
            servers["weak"].reply_next(reply)
            made: Any = getattr(llm, way)(Sum, PROMPT, context_str="p=1 x", query_str=EASY)
            assert (await made if way.startswith("a") else made) == Sum(value=4)
            assert router.prompts == [EASY]

    @pytest.mark.parametrize(
        ("strong", "weak"),
        [("openai", "azure"), ("openai", "openai-like"), ("azure", "openai-like"), ("openai-like", "azure")],
    )
    async def test_related_clients_take_tools_in_one_form(self, strong: str, weak: str, router: ScriptedRouter) -> None:
        tool = FunctionTool.from_defaults(add)
        async with sides(strong, weak) as (models, _):
            llm = RouteLLM(**models, router=router, threshold=0.5)
            given = llm._prepare_chat_with_tools([tool], user_msg=EASY)
            assert given == models["weak"]._prepare_chat_with_tools([tool], user_msg=EASY)  # type: ignore[attr-defined]
            answer = llm.chat(given.pop("messages"), **given)
            assert routing_decision(answer) is not None

    @pytest.mark.parametrize(
        ("strong", "weak"), [("openai", "anthropic"), ("ollama", "openai"), ("openai", "responses")]
    )
    async def test_unrelated_clients_do_not(self, strong: str, weak: str, router: ScriptedRouter) -> None:
        async with sides(strong, weak) as (models, _):
            llm = RouteLLM(**models, router=router, threshold=0.5)
            with pytest.raises(NotImplementedError, match="use chat_with_tools"):
                llm._prepare_chat_with_tools([FunctionTool.from_defaults(add)], user_msg=EASY)


@clients
async def test_usage_is_counted_for_each_side(client: str, router: ScriptedRouter) -> None:
    savings, root = SavingsEventHandler(), get_dispatcher()
    before = list(root.event_handlers)
    root.add_event_handler(savings)
    try:
        async with sides("openai", client) as (models, _):
            llm = RouteLLM(**models, router=router, threshold=0.5)
            for ask in ANSWERS:
                await ask(llm, EASY)
            llm.chat([ChatMessage(content=HARD)])
    finally:
        root.event_handlers = before
    summary = savings.summary()
    assert (summary.weak.calls, summary.strong.calls) == (8, 1)
    assert (summary.strong.input_tokens, summary.strong.output_tokens) == (10, 5)
    assert (summary.weak.input_tokens, summary.weak.output_tokens) == ((80, 40) if client != "responses" else (40, 20))


@clients
async def test_a_dict_comes_back_with_the_keys_of_the_environment(
    client: str, monkeypatch: pytest.MonkeyPatch, router: ScriptedRouter
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sk-of-the-environment")
    async with sides(client, client) as (models, servers):
        llm = RouteLLM(**models, router=router, threshold=0.5)
        data = json.loads(llm.to_json())
        assert "sk-" not in json.dumps(data)
        other = RouteLLM.from_dict(data, router=router)
        try:
            for text, side in SIDES:
                decision = routing_decision(other.complete(text))
                assert decision is not None
                assert decision.model == side
        finally:
            for model in (other.strong, other.weak):
                await close(model)
        if client != "ollama":  # it has no keys
            sent = json.dumps([request.headers for s in servers.values() for request in s.requests])
            assert "sk-of-the-environment" in sent


@clients
@pytest.mark.parametrize("way", ["chat", "stream_chat"])
async def test_failover_between_providers(client: str, way: str, router: ScriptedRouter, events: Recorder) -> None:
    async with sides("openai", client) as (models, servers):
        servers["weak"].fail_always(Failure(status=503, path=_answering(client)))
        llm = RouteLLM(**models, router=router, threshold=0.5, failover=True)
        answer: Any = getattr(llm, way)([ChatMessage(content=EASY)])
        decision = routing_decision(answer if way == "chat" else list(answer)[-1])
        assert decision is not None
        assert (decision.model, decision.failover) == ("strong", "weak")
    assert len(events.decisions) == 1


def _answering(client: str) -> str:
    return {"ollama": "/api/chat", "anthropic": "/messages", "responses": "/responses"}.get(client, "/completions")
