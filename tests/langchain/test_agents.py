"""Agents made by `create_agent`, through both doors: a routed chat model, and the middleware."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, dynamic_prompt
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from langchain_routellm import ChatRouteLLM, RouteLLMMiddleware, SavingsCallbackHandler, routing_decision
from routellm_core import RoutingPolicy
from routellm_core.errors import ConfigurationError, RouterError
from tests.langchain.conftest import Pair, Recorder
from tests.langchain.test_conversations import THOUGHT, Claude
from tests.support.fakes_langchain import ScriptedChatModel

DOORS = ["model", "run", "call"]


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"p=0.0 {a + b}"


class Answer(BaseModel):
    """An answer."""

    text: str


def _agent(pair: Pair, door: str, *, middleware: list[Any] | None = None, **options: Any) -> Any:
    agent = {name: options.pop(name) for name in ("checkpointer", "response_format", "tools") if name in options}
    agent.setdefault("tools", [add])
    if door == "model":
        return create_agent(model=pair.llm(**options), middleware=middleware or [], **agent)
    if not options.keys() & {"policy", "threshold"}:
        options["threshold"] = 0.7
    if "policy" not in options:
        options["router"] = pair.router
    routing = RouteLLMMiddleware(strong=pair.strong, weak=pair.weak, scope=door, **options)  # type: ignore[arg-type]
    unused = ScriptedChatModel(model="unused", error=AssertionError("the agent's own model is never called"))
    return create_agent(model=unused, middleware=[routing, *(middleware or [])], **agent)


def _ask(text: str) -> Any:
    return {"messages": [("user", text)]}


def _sides(out: Any) -> list[str]:
    decisions = [routing_decision(m) for m in out["messages"] if m.type == "ai"]
    return [d.model if d else "?" for d in decisions]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("prompt", "side"), [("p=0.9 add 2 and 3", "strong"), ("p=0.1 add 2 and 3", "weak")])
async def test_a_tool_loop_stays_on_its_side(pair: Pair, door: str, prompt: str, side: str) -> None:
    agent = _agent(pair, door)
    for out in (agent.invoke(_ask(prompt)), await agent.ainvoke(_ask(prompt))):
        assert [m.type for m in out["messages"]] == ["human", "ai", "tool", "ai"]
        assert _sides(out) == [side, side]
        assert out["messages"][-1].content == f"{side}-model answers: {prompt}"
        if door != "model":
            assert out["routellm"]["model"] == side
    model = pair.strong if side == "strong" else pair.weak
    assert len(model.calls) == 4
    assert all(call["tools"][0]["function"]["name"] == "add" for call in model.calls)
    assert pair.router.prompts == [prompt]


@pytest.mark.parametrize("door", DOORS)
async def test_streaming_shows_each_token_once_with_the_decision(pair: Pair, door: str) -> None:
    agent = _agent(pair, door, tools=[])
    parts = list(agent.stream(_ask("p=0.9 one two"), stream_mode="messages"))
    assert "".join(chunk.content for chunk, _ in parts) == "strong-model answers: p=0.9 one two"
    assert {metadata["routellm"]["model"] for _, metadata in parts} == {"strong"}
    assert all("routellm:strong" in metadata["tags"] for _, metadata in parts)
    text = [c.content async for c, _ in agent.astream(_ask("p=0.1 one"), stream_mode="messages")]
    assert "".join(text) == "weak-model answers: p=0.1 one"


@pytest.mark.parametrize("door", DOORS)
def test_one_model_run_per_step_and_usage_once(pair: Pair, door: str) -> None:
    recorder, usage, savings = Recorder(), UsageMetadataCallbackHandler(), SavingsCallbackHandler()
    _agent(pair, door).invoke(_ask("p=0.9 add 2 and 3"), {"callbacks": [recorder, usage, savings]})
    assert len(recorder.names("on_chat_model_start")) == 2
    assert all(d["metadata"]["routellm"]["model"] == "strong" for d in recorder.details("on_chat_model_start"))
    assert list(usage.usage_metadata) == ["strong-model"]
    summary = savings.summary()
    assert (summary.strong.calls, summary.weak.calls) == (2, 0)
    assert summary.strong.output_tokens == usage.usage_metadata["strong-model"]["output_tokens"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy, None])
async def test_structured_response(pair: Pair, door: str, strategy: Any) -> None:
    schema: Any = Answer if strategy is None else strategy(Answer)
    agent = _agent(pair, door, tools=[], response_format=schema)
    assert agent.invoke(_ask("p=0.9 say 'yes'"))["structured_response"] == Answer(text="yes")
    assert (await agent.ainvoke(_ask("p=0.1 say 'no'")))["structured_response"] == Answer(text="no")
    assert (len(pair.strong.calls), len(pair.weak.calls)) == (1, 1)


@pytest.mark.parametrize("door", DOORS)
def test_a_checkpointed_thread_decides_each_turn_anew(pair: Pair, door: str) -> None:
    agent = _agent(pair, door, checkpointer=InMemorySaver(), tools=[])
    config: Any = {"configurable": {"thread_id": "1"}}
    sides = [_sides(agent.invoke(_ask(p), config))[-1] for p in ("p=0.1 a", "p=0.9 b", "p=0.2 c")]
    assert sides == ["weak", "strong", "weak"]
    if door != "model":
        assert agent.get_state(config).values["routellm"]["win_rate"] == 0.2


@pytest.mark.parametrize("door", DOORS)
def test_sticky_by_thread(pair: Pair, door: str) -> None:
    agent = _agent(pair, door, checkpointer=InMemorySaver(), sticky=True, tools=[])
    config: Any = {"configurable": {"thread_id": "1"}}
    sides = [_sides(agent.invoke(_ask(p), config))[-1] for p in ("p=0.1 a", "p=0.9 b", "p=0.2 c")]
    assert sides == ["weak", "strong", "strong"]
    other: Any = {"configurable": {"thread_id": "2"}}
    assert _sides(agent.invoke(_ask("p=0.2 c"), other)) == ["weak"]
    down: Any = {"configurable": {"thread_id": "1", "routellm_force": "weak"}}
    assert _sides(agent.invoke(_ask("p=0.9 d"), down))[-1] == "weak"
    assert _sides(agent.invoke(_ask("p=0.2 e"), config))[-1] == "weak"


@pytest.mark.parametrize("door", DOORS)
async def test_settings_of_a_call(pair: Pair, door: str) -> None:
    agent = _agent(pair, door, tools=[])
    forced: Any = {"configurable": {"routellm_force": "strong"}}
    assert _sides(agent.invoke(_ask("p=0.1"), forced)) == ["strong"]
    assert _sides(await agent.ainvoke(_ask("p=0.5"), {"configurable": {"routellm_threshold": 0.4}})) == ["strong"]


@pytest.mark.parametrize("door", DOORS)
async def test_failover(pair: Pair, door: str) -> None:
    pair.strong.error = ConnectionError("down")
    agent = _agent(pair, door, failover=True, cooldown=0)
    for out in (agent.invoke(_ask("p=0.9 add 1 and 2")), await agent.ainvoke(_ask("p=0.9 add 1 and 2"))):
        assert _sides(out) == ["weak", "weak"]
        decision = routing_decision(out["messages"][-1])
        assert decision is not None
        assert (decision.failover, decision.detail) == ("strong", "ConnectionError")
    # the middleware's run stays where it went; the chat model tries the strong one at each call
    assert len(pair.strong.calls) == (4 if door != "run" else 2)
    with pytest.raises(ConnectionError):
        _agent(pair, door).invoke(_ask("p=0.9"))


def test_no_failover_after_a_token_was_streamed(pair: Pair) -> None:
    pair.strong.error, pair.strong.error_after = ConnectionError("cut"), 1
    agent = _agent(pair, "run", failover=True, tools=[])
    with pytest.raises(ConnectionError, match="cut"):
        list(agent.stream(_ask("p=0.9 one two"), stream_mode="messages"))
    assert pair.weak.calls == []


def test_the_guard_sees_tools_and_tool_results(pair: Pair) -> None:
    pair.weak.profile = {"tool_calling": False}
    pair.strong.profile = {"tool_calling": True}
    for door in ("run", "call", "model"):
        out = _agent(pair, door).invoke(_ask("p=0.1 add 1 and 2"))
        assert _sides(out) == ["strong", "strong"]
        decision = routing_decision(out["messages"][-1])
        assert decision is not None
        assert (decision.reason, decision.detail) == ("capability", "tool_calling")
        assert _sides(_agent(pair, door, tools=[]).invoke(_ask("p=0.1"))) == ["weak"]

    @tool
    def picture() -> list[dict[str, Any]]:
        """Show a picture."""
        return [{"type": "image", "base64": "aa", "mime_type": "image/png"}]

    pair.weak.profile = {"image_inputs": False}
    pair.strong.profile = {"image_inputs": True}
    out = _agent(pair, "run", tools=[picture]).invoke(_ask("p=0.1 look"))
    assert _sides(out) == ["weak", "strong"]
    assert out["routellm"]["reason"] == "capability"


@pytest.mark.parametrize("scope", ["run", "call"])
async def test_a_failing_router_follows_the_policy(pair: Pair, scope: str) -> None:
    pair.router.error = RuntimeError("down")
    assert _sides(_agent(pair, scope, tools=[]).invoke(_ask("p=0.1"))) == ["strong"]
    strict = _agent(pair, scope, tools=[], policy=RoutingPolicy(pair.router, threshold=0.5, on_error="raise"))
    with pytest.raises(RouterError):
        await strict.ainvoke(_ask("p=0.2"))


def test_scope_call_follows_a_conversation_that_changes_within_a_run(pair: Pair) -> None:
    @tool
    def harder() -> Any:
        """Ask for more."""
        from langgraph.types import Command

        return Command(update={"messages": [ToolMessage("ok", tool_call_id=_id[0]), HumanMessage("p=0.9 now hard")]})

    _id = ["call_1"]
    call = {"name": "harder", "args": {}, "id": "call_1", "type": "tool_call"}

    def reply(messages: Any) -> Any:
        return "done" if messages[-1].text == "p=0.9 now hard" else AIMessage("", tool_calls=[call])

    pair.weak.reply = pair.strong.reply = reply
    assert _sides(_agent(pair, "call", tools=[harder]).invoke(_ask("p=0.1 easy"))) == ["weak", "strong"]
    assert _sides(_agent(pair, "run", tools=[harder]).invoke(_ask("p=0.1 easy"))) == ["weak", "weak"]


def test_listed_first_its_choice_is_what_falls_back(pair: Pair) -> None:
    pair.strong.error = ValueError("refused")
    spare = ScriptedChatModel(model="spare")
    agent = _agent(pair, "run", middleware=[ModelFallbackMiddleware(spare)], tools=[])
    assert agent.invoke(_ask("p=0.9 hi"))["messages"][-1].text == "spare answers: p=0.9 hi"
    assert len(pair.strong.calls) == 1


@pytest.mark.parametrize("scope", ["run", "call"])
async def test_listed_last_it_leaves_the_fallbacks_model_alone(pair: Pair, scope: Any) -> None:
    pair.strong.error = ValueError("refused")
    spare = ScriptedChatModel(model="spare")
    routing = RouteLLMMiddleware(strong=pair.strong, weak=pair.weak, router=pair.router, threshold=0.7, scope=scope)
    agent: Any = create_agent(model=pair.weak, middleware=[ModelFallbackMiddleware(spare), routing])
    assert agent.invoke(_ask("p=0.9 hi"))["messages"][-1].text == "spare answers: p=0.9 hi"
    assert (await agent.ainvoke(_ask("p=0.9 hi")))["messages"][-1].text == "spare answers: p=0.9 hi"
    assert _sides(agent.invoke(_ask("p=0.1 hi"))) == ["weak"]
    assert len(pair.strong.calls) == 2


def test_a_retry_outside_routes_again(pair: Pair) -> None:
    failures = iter([ConnectionError("once"), None])
    pair.strong.reply = lambda messages: next(failures) or "fine"
    routing = RouteLLMMiddleware(strong=pair.strong, weak=pair.weak, router=pair.router, threshold=0.7)
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0, jitter=False)
    agent: Any = create_agent(model=pair.weak, middleware=[retry, routing])
    assert agent.invoke(_ask("p=0.9 hi"))["messages"][-1].text == "fine"
    assert len(pair.strong.calls) == 2


def test_other_middleware_keeps_working(pair: Pair) -> None:
    @dynamic_prompt
    def prompt(request: Any) -> str:
        return "be brief"

    _agent(pair, "run", middleware=[prompt], tools=[]).invoke(_ask("p=0.9 hi"))
    assert pair.strong.calls[0]["messages"][0] == SystemMessage("be brief")


def test_another_providers_model_is_not_sent_what_it_would_refuse(pair: Pair) -> None:
    pair.strong = Claude(model="claude")
    marked = SystemMessage([{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}])
    routing = RouteLLMMiddleware(strong=pair.strong, weak=pair.weak, router=pair.router, threshold=0.7)
    agent: Any = create_agent(model=pair.weak, system_prompt=marked, middleware=[routing])
    agent.invoke({"messages": [("user", "p=0.9"), THOUGHT, ("user", "p=0.1 go on")]})
    system, _, thought, _ = pair.weak.calls[0]["messages"]
    assert system.content == [{"type": "text", "text": "be brief"}]
    assert [block["type"] for block in thought.content] == ["text"]
    agent.invoke({"messages": [THOUGHT, ("user", "p=0.9 go on")]})
    assert pair.strong.calls[0]["messages"][0].content == marked.content
    assert pair.strong.calls[0]["messages"][1].content == THOUGHT.content


def test_the_models_given_are_not_changed(pair: Pair) -> None:
    before = (pair.strong.metadata, pair.strong.tags, pair.strong.callbacks)
    _agent(pair, "run", failover=True).invoke(_ask("p=0.9"))
    assert (pair.strong.metadata, pair.strong.tags, pair.strong.callbacks) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "turn"}, "scope='turn': expected 'run'"),
        ({"failover": 1}, "failover=1"),
        ({"lookback": 0}, "lookback=0"),
        ({"threshold": 3}, "threshold=3"),
        ({"sticky": 3}, "sticky=3"),
        ({"route_on": "key"}, "route_on='key'"),
        ({"strong": None}, "strong=None: expected a chat model"),
    ],
)
def test_a_wrong_option_is_named(pair: Pair, options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"strong": pair.strong, "weak": pair.weak, "router": pair.router, "threshold": 0.5}
    with pytest.raises(ConfigurationError, match=message):
        RouteLLMMiddleware(**{**given, **options})


def test_a_bound_model_is_refused(pair: Pair) -> None:
    with pytest.raises(ConfigurationError, match=r"weak=.*: an agent binds its tools itself"):
        RouteLLMMiddleware(
            strong=pair.strong,
            weak=pair.weak.bind(stop=["x"]),  # type: ignore[arg-type]
            router=pair.router,
            threshold=0.5,
        )


def test_models_by_name(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    routing = RouteLLMMiddleware(strong="openai:gpt-4.1", weak="openai:gpt-4.1-mini", router="random", threshold=0.5)
    assert type(routing._dispatch.strong).__name__ == "ChatOpenAI"


def test_a_routed_model_may_be_the_middlewares_strong_side(pair: Pair) -> None:
    inner = ChatRouteLLM(strong=pair.strong, weak=ScriptedChatModel(model="middle"), router=pair.router, threshold=0.95)
    routing = RouteLLMMiddleware(strong=inner, weak=pair.weak, router=pair.router, threshold=0.7)
    agent: Any = create_agent(model=pair.weak, tools=[add], middleware=[routing])
    assert agent.invoke(_ask("p=0.9 add 1 and 2"))["messages"][-1].text.startswith("middle answers")
