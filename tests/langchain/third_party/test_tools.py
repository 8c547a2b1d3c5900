"""Tools bound to two providers' models at once: what each is sent, and what neither can be sent."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_routellm import ChatRouteLLM, routing_decision
from routellm_core.errors import ConfigurationError
from tests.langchain.third_party.services import KINDS, service
from tests.support.loopback import ChatReply
from tests.support.routers import ScriptedRouter


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Answer(BaseModel):
    """An answer."""

    text: str


def routed(strong: Any, weak: Any, **options: Any) -> ChatRouteLLM:
    return ChatRouteLLM(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.7, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_options_of_tools_reach_the_providers_that_take_them(kind: str) -> None:
    with service(kind) as (server, model), service("openai") as (other, other_model):
        bound = routed(model, other_model).bind_tools([add], parallel_tool_calls=False, strict=True)
        assert isinstance(bound, RunnableBinding)
        for side in (server, other):
            side.reply_next(ChatReply(tool_calls=[("add", {"a": 1, "b": 2})]))
        assert bound.invoke("p=0.9 add").tool_calls[0]["args"] == {"a": 1, "b": 2}
        assert bound.invoke("p=0.1 add").tool_calls[0]["args"] == {"a": 1, "b": 2}
        sent = server.requests[-1].body
        assert len(sent["tools"]) == 1
        if kind in ("openai", "responses"):
            assert sent["parallel_tool_calls"] is False
        elif kind == "anthropic":
            assert sent["tool_choice"]["disable_parallel_tool_use"] is True
        else:
            assert "parallel_tool_calls" not in str(sent)
            assert "strict" not in str(sent)


SERVER_TOOLS = {
    "responses": {"type": "web_search"},
    "anthropic": {"type": "web_search_20250305", "name": "web_search", "max_uses": 1},
}


@pytest.mark.parametrize(("owner", "kind"), [(o, k) for o, k in product(SERVER_TOOLS, KINDS) if o != k])
def test_a_tool_that_only_one_provider_runs_is_refused_with_the_name_of_the_side(owner: str, kind: str) -> None:
    if {owner, kind} == {"openai", "responses"}:
        pytest.skip("one client, which takes the same tools")
    with service(owner) as (_, model), service(kind) as (_, other_model):
        name = getattr(other_model, "model_name", None) or getattr(other_model, "model", "")
        with pytest.raises(ConfigurationError, match=rf"the weak model, {name}, cannot bind tools"):
            routed(model, other_model).bind_tools([SERVER_TOOLS[owner]])
        with pytest.raises(ConfigurationError, match=rf"the strong model, {name}, cannot bind tools"):
            routed(other_model, model).bind_tools([SERVER_TOOLS[owner]])
        with service(owner) as (_, second):
            routed(model, second).bind_tools([SERVER_TOOLS[owner], add])


@pytest.mark.parametrize("kind", KINDS)
def test_structured_output_goes_to_a_weak_model_whose_own_way_of_it_is_a_tool_call(kind: str) -> None:
    """A model that cannot fill a schema may well call tools, and some clients do it that way by default."""
    lacking = {"structured_output": False, "tool_calling": True}
    with service("openai") as (other, strong), service(kind, profile=lacking) as (server, weak):
        if kind == "anthropic":
            weak = weak.model_copy(update={"thinking": None})
        for method, side in ((None, "weak" if kind == "anthropic" else "strong"), ("function_calling", "weak")):
            arguments: dict[str, Any] = {} if method is None else {"method": method}
            structured: Any = routed(strong, weak).with_structured_output(Answer, include_raw=True, **arguments)
            server.chat = lambda body: ChatReply(tool_calls=[("Answer", {"text": "weak"})])
            other.chat = lambda body: ChatReply('{"text": "strong"}')
            found = structured.invoke("p=0.1 hi")
            assert found["parsed"] == Answer(text=side)
            assert routing_decision(found).model == side  # type: ignore[union-attr]
