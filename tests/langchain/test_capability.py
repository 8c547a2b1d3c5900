"""The capability guard: what the weak model's profile lacks goes to the strong one, without asking the router."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel

from langchain_routellm import ChatRouteLLM, RouteLLMRunnable, routing_decision
from routellm_core import RoutingDecision
from tests.langchain.conftest import Pair

FULL: dict[str, Any] = {
    "image_inputs": True,
    "image_url_inputs": True,
    "audio_inputs": True,
    "video_inputs": True,
    "pdf_inputs": True,
    "image_tool_message": True,
    "pdf_tool_message": True,
    "tool_calling": True,
    "structured_output": True,
    "max_input_tokens": 100_000,
}


class Schema(BaseModel):
    """A schema."""

    text: str


def _block(**block: Any) -> list[Any]:
    return [HumanMessage([{"type": "text", "text": "p=0.0 what is this?"}, block])]


CALLS: list[tuple[str, Any]] = [
    ("image_inputs", _block(type="image", base64="aa", mime_type="image/png")),
    ("image_inputs", _block(type="image_url", image_url={"url": "data:image/png;base64,aa"})),
    ("image_inputs", _block(type="input_image", image_url="data:image/png;base64,aa")),
    ("image_inputs", _block(type="file", base64="aa", mime_type="image/png")),
    ("image_url_inputs", _block(type="image", url="https://example.org/a.png")),
    ("image_url_inputs", _block(type="image_url", image_url={"url": "https://example.org/a.png"})),
    ("audio_inputs", _block(type="audio", base64="aa", mime_type="audio/wav")),
    ("audio_inputs", _block(type="input_audio", input_audio={"data": "aa", "format": "wav"})),
    ("video_inputs", _block(type="video", base64="aa", mime_type="video/mp4")),
    ("pdf_inputs", _block(type="file", base64="aa", mime_type="application/pdf")),
    ("pdf_inputs", _block(type="file", file={"file_data": "x"})),
    ("pdf_inputs", _block(type="document", source={})),
    ("image_inputs", _block(type="media", mime_type="image/png", data="aa")),
    ("audio_inputs", _block(type="media", mime_type="audio/mpeg", file_uri="gs://a/b")),
    ("video_inputs", _block(type="video_url", video_url={"url": "https://example.org/a.mp4"})),
    (
        "image_tool_message",
        [
            HumanMessage("p=0.0"),
            AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
            ToolMessage([{"type": "image", "base64": "aa", "mime_type": "image/png"}], tool_call_id="1"),
        ],
    ),
    ("max_input_tokens", "p=0.0 " + "word " * 100_000),
    ("max_input_tokens", [HumanMessage("long " * 100_000), AIMessage("ok"), HumanMessage("p=0.0 short")]),
]


def _pair(pair: Pair, lacking: str | None) -> ChatRouteLLM:
    pair.strong.profile = {**FULL, "max_input_tokens": 1_000_000}  # type: ignore[assignment]
    weak: dict[str, Any] = dict(FULL)
    if lacking is not None and lacking != "max_input_tokens":
        weak[lacking] = False
    pair.weak.profile = weak  # type: ignore[assignment]
    return pair.llm()


@pytest.mark.parametrize(("need", "value"), CALLS, ids=lambda v: v if isinstance(v, str) and len(v) < 30 else "")
async def test_what_the_weak_model_lacks_goes_to_the_strong_one(pair: Pair, need: str, value: Any) -> None:
    llm = _pair(pair, need)
    expected = RoutingDecision("strong", None, 0.7, "scripted", "capability", detail=need)
    assert routing_decision(llm.invoke(value)) == expected
    assert routing_decision(await llm.ainvoke(value)) == expected
    assert routing_decision(llm.batch([value])[0]) == expected
    assert routing_decision(next(llm.stream(value))) == expected
    assert pair.router.calls == []


@pytest.mark.parametrize(("need", "value"), CALLS[:-2], ids=lambda v: v if isinstance(v, str) and len(v) < 30 else "")
def test_what_it_has_or_says_nothing_about_is_the_routers_matter(pair: Pair, need: str, value: Any) -> None:
    assert routing_decision(_pair(pair, None).invoke(value)).model == "weak"  # type: ignore[union-attr]
    pair.weak.profile = {"max_output_tokens": 5}
    assert routing_decision(pair.llm().invoke(value)).model == "weak"  # type: ignore[union-attr]
    pair.weak.profile = None
    assert routing_decision(pair.llm().invoke(value)).model == "weak"  # type: ignore[union-attr]


def test_where_both_lack_it_the_router_decides(pair: Pair) -> None:
    llm = _pair(pair, "image_inputs")
    pair.strong.profile["image_inputs"] = False  # type: ignore[index]
    assert routing_decision(llm.invoke(CALLS[0][1])).reason == "win_rate"  # type: ignore[union-attr]


def test_tools_however_they_come(pair: Pair) -> None:
    def f() -> str:
        """A tool."""
        return ""

    llm = _pair(pair, "tool_calling")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    expected = RoutingDecision("strong", None, 0.7, "scripted", "capability", detail="tool_calling")
    assert routing_decision(llm.bind_tools([f]).invoke("p=0.0")) == expected
    assert routing_decision(llm.bind(tools=tools).invoke("p=0.0")) == expected
    assert routing_decision(llm.invoke("p=0.0", tools=tools)) == expected
    assert routing_decision(llm.bind_tools([]).invoke("p=0.0")).model == "weak"  # type: ignore[union-attr]
    prepared = ChatRouteLLM(
        strong=pair.strong.bind_tools([f]), weak=pair.weak.bind_tools([f]), router=pair.router, threshold=0.7
    )
    assert routing_decision(prepared.invoke("p=0.0")) == expected
    assert pair.router.prompts == ["p=0.0"]


@pytest.mark.parametrize(
    ("method", "lacking", "reason"),
    [
        (None, "structured_output", "capability"),
        ("json_schema", "structured_output", "capability"),
        ("function_calling", "structured_output", "win_rate"),
        ("function_calling", "tool_calling", "capability"),
        ("json_mode", "structured_output", "win_rate"),
        ("json_schema", "tool_calling", "win_rate"),
    ],
)
def test_structured_output_by_its_method(pair: Pair, method: str | None, lacking: str, reason: str) -> None:
    arguments = {} if method is None else {"method": method}
    routed = _pair(pair, lacking).with_structured_output(Schema, include_raw=True, **arguments)
    decision = routing_decision(routed.invoke("p=0.0"))
    assert decision is not None
    assert decision.reason == reason
    assert decision.model == ("strong" if reason == "capability" else "weak")


def test_forcing_comes_before_the_guard_and_the_guard_before_stickiness(pair: Pair) -> None:
    llm = _pair(pair, "image_inputs")
    forced = llm.invoke(CALLS[0][1], {"configurable": {"routellm_force": "weak"}})
    assert routing_decision(forced).reason == "forced"  # type: ignore[union-attr]
    sticky = pair.llm(sticky=True)
    config: Any = {"configurable": {"thread_id": "a"}}
    sticky.invoke("p=0.9", config)
    assert routing_decision(sticky.invoke(CALLS[0][1], config)).reason == "capability"  # type: ignore[union-attr]


def test_the_guard_works_between_plain_models_in_a_runnable(pair: Pair) -> None:
    _pair(pair, "image_inputs")
    route = RouteLLMRunnable(strong=pair.strong, weak=pair.weak, router=pair.router, threshold=0.7)
    assert routing_decision(route.invoke(CALLS[0][1])).reason == "capability"  # type: ignore[union-attr]


def test_bindings_and_retries_keep_their_models_profile(pair: Pair) -> None:
    _pair(pair, "image_inputs")
    llm = ChatRouteLLM(
        strong=pair.strong.with_retry(), weak=pair.weak.bind(stop=["x"]), router=pair.router, threshold=0.7
    )
    assert routing_decision(llm.invoke(CALLS[0][1])).reason == "capability"  # type: ignore[union-attr]
