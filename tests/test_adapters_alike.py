"""Both adapters decide alike: the same conversation, options and settings of a call give the same decision."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock

import langchain_routellm
import llamaindex_routellm
from langchain_routellm import ChatRouteLLM
from llamaindex_routellm import RouteLLM
from routellm_core import ConfigurationError, Router, RoutingDecision
from routellm_core.routers.base import WinRateArray
from tests.support.fakes_langchain import ScriptedChatModel
from tests.support.fakes_llamaindex import FakeLLM

PIXEL = b"\x89PNG not really"
ROLES = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, in no framework's form."""

    role: str
    texts: tuple[str, ...]
    image: bool

    @property
    def of_langchain(self) -> BaseMessage:
        if len(self.texts) == 1 and not self.image:
            return ROLES[self.role](self.texts[0])
        blocks: list[Any] = [{"type": "text", "text": text} for text in self.texts]
        if self.image:
            data = base64.b64encode(PIXEL).decode()
            blocks.append({"type": "image", "base64": data, "mime_type": "image/png"})
        return ROLES[self.role](blocks)

    @property
    def of_llamaindex(self) -> ChatMessage:
        blocks: list[Any] = [TextBlock(text=text) for text in self.texts]
        if self.image:
            blocks.append(ImageBlock(image=PIXEL, image_mimetype="image/png"))
        return ChatMessage(role=MessageRole(self.role), blocks=blocks)


class ChecksumRouter(Router):
    """A win rate that differs with every character of the prompt; fails on any batch with a prompt that says so."""

    name = "checksum"

    def _win_rates(self, prompts: list[str]) -> WinRateArray:
        if any("break" in prompt for prompt in prompts):
            raise RuntimeError("broken")
        return np.array([zlib.crc32(prompt.encode()) / 2**32 for prompt in prompts])


texts = st.sampled_from(["hi", " and then? ", "prove it", "", "  \n", "go on", "break"])
turns = st.builds(
    Turn,
    st.sampled_from(["system", "user", "user", "assistant"]),
    st.lists(texts, min_size=1, max_size=2).map(tuple),
    st.sampled_from([False, False, False, True]),
)
options = st.fixed_dictionaries(
    {"threshold": st.sampled_from([0.0, 0.3, 0.6, 1.0])},
    optional={
        "lookback": st.integers(1, 3),
        "sticky": st.sampled_from([None, True, "customer"]),
        "on_error": st.sampled_from(["strong", "weak"]),
        "observe": st.sampled_from([None, "strong", "weak"]),
        "weak_profile": st.sampled_from([{"image_inputs": True}, {"image_inputs": False}]),
    },
)
settings_of_calls = st.fixed_dictionaries(
    {},
    optional={
        "routellm_force": st.sampled_from(["strong", "weak"]),
        "routellm_threshold": st.sampled_from([0.0, 0.5, 1.0]),
        "thread_id": st.sampled_from(["a", "b"]),
        "customer": st.sampled_from(["x", "y"]),
    },
)


@given(st.lists(st.tuples(turns, settings_of_calls), min_size=1, max_size=6), options)
@example(  # a repeated message is one turn, unless it was answered
    [(Turn("user", texts, False), {}) for texts in (("hi",), ("prove it",), ("prove it",))],
    {"threshold": 0.0, "lookback": 2},
)
@example(
    [
        (Turn(role, texts, False), {})
        for role, texts in (
            ("user", ("hi",)),
            ("user", ("prove it",)),
            ("assistant", ("go on",)),
            ("system", ("go on",)),
            ("user", ("prove it",)),
        )
    ],
    {"threshold": 0.0, "lookback": 2},
)
def test_both_adapters_decide_alike_on_the_same_conversation(
    conversation: list[tuple[Turn, dict[str, Any]]], options: dict[str, Any]
) -> None:
    """Every turn is followed by a call with all turns so far, as in a chat."""
    # LangChain's models say of images nothing that would count as lacking, LlamaIndex's cannot say anything
    options = {"weak_profile": {"image_inputs": False}, **options}
    chat = ChatRouteLLM(strong=ScriptedChatModel(), weak=ScriptedChatModel(), router=ChecksumRouter(), **options)
    llm = RouteLLM(strong=FakeLLM("strong"), weak=FakeLLM("weak"), router=ChecksumRouter(), **options)
    key = "customer" if options.get("sticky") == "customer" else "thread_id"
    said: list[Turn] = []
    for turn, settings in conversation:
        said.append(turn)
        answer = chat.invoke([t.of_langchain for t in said], {"configurable": dict(settings)})
        named = {k: v for k, v in settings.items() if k.startswith("routellm_")}
        if key in settings:
            named[f"routellm_{key}"] = settings[key]
        response = llm.chat([t.of_llamaindex for t in said], **named)
        decisions = langchain_routellm.routing_decision(answer), llamaindex_routellm.routing_decision(response)
        assert isinstance(decisions[0], RoutingDecision)
        assert decisions[0] == decisions[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 2.0},
        {"strong_fraction": 0.3, "threshold": 0.5},
        {"lookback": 0},
        {"on_error": "maybe"},
        {"deadline": 0},
        {"sticky": 3},
        {"dead_line": 5},
        {"weak_profile": {"image_inputs": "yes"}},
        {"observe": "both"},
        {"explore": 2.0},
        {"cache_size": -1},
        {"failover": "yes"},
    ],
    ids=str,
)
def test_both_adapters_refuse_the_same_options_in_the_same_words(wrong: dict[str, Any]) -> None:
    if "threshold" not in wrong and "strong_fraction" not in wrong:
        wrong = {"threshold": 0.5, **wrong}
    said = []
    for wrapper, model in ((ChatRouteLLM, ScriptedChatModel), (RouteLLM, FakeLLM)):
        with pytest.raises(ConfigurationError) as caught:
            wrapper(strong=model(), weak=model(), router=ChecksumRouter(), **wrong)  # type: ignore[arg-type]
        said.append(str(caught.value).replace(wrapper.__name__, "MODEL"))
    assert said[0] == said[1]
