"""What LangChain wraps around a routed model, and what may stand around its sides: real clients on loopback."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import langchain_routellm
from langchain_routellm import ChatRouteLLM, routing_decision
from tests.langchain.conftest import Services
from tests.support.openai_server import ChatReply, Failure, OpenAIServer
from tests.support.routers import ScriptedRouter

HARD, EASY = "p=0.9 hi", "p=0.1 hi"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Answer(BaseModel):
    """An answer."""

    text: str


class CountingLimiter(BaseRateLimiter):
    """Lets everything through and counts it."""

    def __init__(self) -> None:
        self.asked = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.asked += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


# --- wrapped and rebuilt ---


@pytest.mark.parametrize("name", langchain_routellm.__all__)
def test_annotations_of_public_methods_resolve_at_run_time(name: str) -> None:
    """LangChain's fallbacks read the return type of any method they are asked for."""
    if name == "RouteLLMDecisionModel":
        pytest.importorskip("langchain_core.decisions")  # since 1.8
    public = getattr(langchain_routellm, name)
    members = [public] if inspect.isfunction(public) else [m for n, m in vars(public).items() if not n.startswith("_")]
    for member in members:
        function = getattr(member, "__func__", getattr(member, "fget", member))
        if inspect.isfunction(function) and function.__module__.startswith("langchain_routellm"):
            typing.get_type_hints(function)


async def test_fallbacks_around_it_give_structured_output_and_tools(services: Services) -> None:
    llm = services.llm().with_fallbacks([services.client("strong")])
    services.weak.fail_always(Failure(status=401))
    services.strong.chat = lambda body: ChatReply('{"text": "yes"}')
    assert llm.with_structured_output(Answer).invoke(EASY) == Answer(text="yes")
    services.strong.chat = lambda body: ChatReply(tool_calls=[("add", {"a": 1, "b": 2})])
    assert (await llm.bind_tools([add]).ainvoke(EASY)).tool_calls[0]["name"] == "add"


def test_configurable_fields_keep_the_settings_of_the_sides_and_one_policy(services: Services) -> None:
    limiter = CountingLimiter()
    strong = services.client("strong", rate_limiter=limiter, disable_streaming=True)
    llm = ChatRouteLLM(
        strong=strong, weak=services.client("weak"), router=services.router, threshold=0.7, sticky="session"
    ).configurable_fields(threshold=ConfigurableField(id="bar"))
    for _ in range(3):
        assert routing_decision(llm.invoke(HARD, {"configurable": {"bar": 0.8}})).threshold == 0.8  # type: ignore[union-attr]
    assert limiter.asked == 3
    assert services.router.prompts == [HARD]  # the win rate came from the cache of one policy
    list(llm.stream(HARD, {"configurable": {"bar": 0.85}}))
    assert not services.strong.requests[-1].body.get("stream")
    # the setting that the model was made with is the policy that it was made with
    policy = llm.default.policy  # type: ignore[attr-defined]
    rebuilt = llm.prepare({"configurable": {"bar": 0.7}})[0]  # type: ignore[attr-defined]
    assert rebuilt.policy is policy


async def test_fields_of_the_wrapper_hold_for_structured_output(services: Services) -> None:
    limiter = CountingLimiter()
    llm = services.llm(rate_limiter=limiter, disable_streaming=True).with_structured_output(Answer)
    services.weak.chat = lambda body: ChatReply('{"text": "yes"}')
    assert llm.invoke(EASY) == Answer(text="yes")
    assert [part async for part in llm.astream(EASY)] == [Answer(text="yes")]
    assert limiter.asked == 2
    assert not services.weak.requests[-1].body.get("stream")


# --- wrappers around a side ---


async def _every_way(llm: Any) -> list[str]:
    """An answer of every way that a chain, new or old, calls a chat model."""
    messages, prompt = [HumanMessage(HARD)], StringPromptValue(text=HARD)
    results = [
        llm.generate([messages]),
        await llm.agenerate([messages]),
        llm.generate_prompt([prompt]),
        await llm.agenerate_prompt([prompt]),
    ]
    return [
        llm.invoke(messages).content,
        (await llm.ainvoke(messages)).content,
        *[result.generations[0][0].text for result in results],
    ]


async def test_a_side_keeps_its_retries_in_every_way_of_calling(services: Services) -> None:
    strong = services.client("strong").with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    llm = ChatRouteLLM(strong=strong, weak=services.client("weak"), router=services.router, threshold=0.7)
    for way in ("invoke", "ainvoke", "generate", "agenerate", "generate_prompt", "agenerate_prompt"):
        services.strong.fail_next(Failure(status=500))
        argument: Any = HARD if "invoke" in way else [[HumanMessage(HARD)]]
        argument = [StringPromptValue(text=HARD)] if "prompt" in way else argument
        answer = getattr(llm, way)(argument)
        answer = await answer if way.startswith("a") else answer
        text = answer.content if "invoke" in way else answer.generations[0][0].text
        assert text == "answer of strong-model", way


async def test_a_side_keeps_its_fallbacks_in_every_way_of_calling(services: Services) -> None:
    with OpenAIServer() as spare:
        spare_model = ChatOpenAI(model="spare-model", base_url=spare.base_url, api_key="sk-test", max_retries=0)  # type: ignore[arg-type]
        model = services.client("strong").with_fallbacks([spare_model])
        llm = ChatRouteLLM(strong=model, weak=services.client("weak"), router=services.router, threshold=0.7)
        services.strong.fail_always(Failure(status=401))
        assert await _every_way(llm) == ["answer of spare-model"] * 6
        assert services.weak.requests == []


async def test_a_side_may_be_configurable(services: Services) -> None:
    strong = services.client("strong").configurable_fields(
        model_name=ConfigurableField(id="strong_name"), temperature=ConfigurableField(id="heat")
    )
    weak = services.client("weak").configurable_alternatives(
        ConfigurableField(id="weak_kind"), default_key="small", smaller=services.client("weak", temperature=0.25)
    )
    llm = ChatRouteLLM(strong=strong, weak=weak, router=services.router, threshold=0.7)
    assert {spec.id for spec in llm.config_specs} >= {"heat", "weak_kind", "routellm_force"}
    settings: Any = {"configurable": {"heat": 0.5, "weak_kind": "smaller"}}

    def sent(body: dict[str, Any]) -> ChatReply:
        return ChatReply(tool_calls=[("Answer", {"text": str(body.get("temperature"))})], content=None)

    services.strong.chat = services.weak.chat = sent
    for bound in (llm.bind_tools([Answer]), llm.bind_tools([add, Answer])):
        assert bound.invoke(HARD, settings).tool_calls[0]["args"] == {"text": "0.5"}
        assert (await bound.ainvoke(EASY, settings)).tool_calls[0]["args"] == {"text": "0.25"}
        assert bound.invoke(HARD).tool_calls[0]["args"] == {"text": "None"}
        chunks = list(bound.stream(EASY, settings))
        assert (chunks[0] + chunks[1:]).tool_calls[0]["args"] == {"text": "0.25"}  # type: ignore[attr-defined]
        assert [m.tool_calls[0]["args"]["text"] for m in bound.batch([HARD, EASY], settings)] == ["0.5", "0.25"]
    structured = llm.with_structured_output(Answer, method="function_calling")
    assert structured.invoke(HARD, settings) == Answer(text="0.5")
    assert llm.generate([[HumanMessage(HARD)]]).generations[0][0].message.tool_calls  # type: ignore[union-attr]


# --- tools that others can see ---


async def test_a_binding_shows_its_tools_and_sends_them_once(services: Services) -> None:
    bound: Any = services.llm().bind_tools([add], parallel_tool_calls=False, strict=True, tool_choice="add")
    assert [t["function"]["name"] for t in bound.kwargs["tools"]] == ["add"]
    assert bound.kwargs["parallel_tool_calls"] is False
    call = ChatReply(tool_calls=[("add", {"a": 2, "b": 3})])
    services.weak.chat = lambda body: call
    bound.invoke(EASY)
    await bound.ainvoke(EASY)
    list(bound.stream(EASY))
    bound.batch([EASY])
    bound.with_config(tags=["x"]).invoke(EASY)
    bound.bind(stop=["."]).invoke(EASY)
    for request in services.weak.requests:
        assert len(request.body["tools"]) == 1
        assert request.body["tools"][0]["function"]["strict"] is True
        assert request.body["parallel_tool_calls"] is False
        assert request.body["tool_choice"]["function"]["name"] == "add"
    # binding again starts from the models as they were
    again: Any = bound.bind_tools([Answer])
    again.invoke(EASY)
    body = services.weak.requests[-1].body
    assert [t["function"]["name"] for t in body["tools"]] == ["Answer"]
    assert "parallel_tool_calls" not in body


def test_tools_that_a_call_brings_stand_in_for_the_bound_ones(services: Services) -> None:
    bound: Any = services.llm().bind_tools([add])
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
    bound.invoke(EASY, tools=[other])
    assert [t["function"]["name"] for t in services.weak.requests[-1].body["tools"]] == ["other"]


def test_options_of_tools_are_named_parameters() -> None:
    """As in the signatures of OpenAI's and Anthropic's clients, where supervisors look for them."""
    named = inspect.signature(ChatRouteLLM.bind_tools).parameters
    assert {"tool_choice", "parallel_tool_calls", "strict"} <= named.keys()


def test_a_routed_model_as_a_side_is_told_everything(services: Services) -> None:
    inner = services.llm()
    router = ScriptedRouter()
    llm = ChatRouteLLM(strong=services.client("strong"), weak=inner, router=router, threshold=0.95)
    bound: Any = llm.bind_tools([add], parallel_tool_calls=False)
    bound.invoke(EASY)
    assert services.weak.requests[-1].body["parallel_tool_calls"] is False
