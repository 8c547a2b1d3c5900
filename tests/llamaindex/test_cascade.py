"""A cascade: the weak model answers first, a check looks at it, and the user sees one answer."""

from __future__ import annotations

import threading

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import Document
from pydantic import BaseModel

from llamaindex_routellm import RouteLLM, routing_decision
from routellm_core import Price, SpendLimit
from routellm_core.policy.acceptance import WeakAnswer
from routellm_core.policy.answer_checks import no_refusal, valid_json
from tests.support.fakes_llamaindex import FakeLLM, Reply, fake
from tests.support.routers import ScriptedRouter
from tests.support.waiting import LIMIT

EASY = "p=0.1 hello"
ASKED = [ChatMessage(role="user", content=EASY)]


def hangs(answer: WeakAnswer) -> bool:
    threading.Event().wait(LIMIT)
    return True


def fails(answer: WeakAnswer) -> bool:
    raise KeyError


CHECKS = {
    "accepted": (lambda answer: True, True),
    "refused": (lambda answer, messages: messages != ASKED, False),
    "fails": (fails, False),
    "hangs": (hangs, False),
    "after": (lambda answer: False, False),
}
WAYS = ["chat", "complete", "stream_chat", "stream_complete", "achat", "acomplete", "astream_chat", "astream_complete"]


def memory() -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(token_limit=3000, tokenizer_fn=str.split)


def sides() -> tuple[FakeLLM, FakeLLM]:
    return FakeLLM("strong", respond=lambda _: "strong says this"), FakeLLM("weak", respond=lambda _: "weak says this")


def routed(accept, **options) -> RouteLLM:
    strong, weak = sides()
    options = {"accept": accept, "accept_deadline": 0.3 if accept is hangs else LIMIT, **options}
    return RouteLLM(strong=strong, weak=weak, router=ScriptedRouter(), threshold=0.5, **options)


async def ask(llm: RouteLLM, way: str):
    """The last piece of the answer, and the pieces that were streamed."""
    given = ASKED if "chat" in way else EASY
    found = getattr(llm, way)(given)
    if way.startswith("a"):
        found = await found
    if "stream" not in way:
        return found, []
    pieces = [p async for p in found] if way.startswith("a") else list(found)
    return pieces[-1], [piece.delta for piece in pieces]


def text_of(answer) -> str:
    return answer.message.content if hasattr(answer, "message") else answer.text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CHECKS)
async def test_one_answer_in_every_way(way, name):
    check, accepted = CHECKS[name]
    llm = routed(check, **({"accept_after": 3} if name == "after" else {}))
    answer, deltas = await ask(llm, way)
    said = "weak says this" if accepted else "strong says this"
    assert text_of(answer) == said
    assert "".join(d or "" for d in deltas) in ("", said)
    assert (len(fake(llm.weak).seen), len(fake(llm.strong).seen)) == (1, 0 if accepted else 1)
    decision = routing_decision(answer)
    assert (decision.model, decision.escalated) == ("weak" if accepted else "strong", not accepted)  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
async def test_both_answers_are_paid(way):
    limit = SpendLimit(1e9, prices={"strong": Price(1e6, 1e6), "weak": Price(1e4, 1e4)})
    llm = routed(lambda answer: False, limits=[limit])
    await ask(llm, way)
    assert limit.spending() == pytest.approx(15 + 0.15)


def test_a_check_sees_tools_and_reasons():
    seen: list[WeakAnswer] = []
    llm = routed(lambda answer: seen.append(answer) or True)
    fake(llm.weak).reply_next(Reply(tools=[("add", {"a": 1})]))
    llm.chat(ASKED)
    assert seen[0].tool_calls == (("add", {"a": 1}),)
    assert seen[0].raw.message.role == "assistant"


def test_ready_made_checks():
    llm = routed(no_refusal)
    fake(llm.weak).reply_next("I'm sorry, I can't help with that.", "It is four.")
    assert [text_of(llm.chat(ASKED)) for _ in range(2)] == ["strong says this", "It is four."]
    assert text_of(routed(valid_json).complete(EASY)) == "strong says this"


def test_a_query_engine_gives_one_answer():
    index = VectorStoreIndex.from_documents([Document(text="Facts.")], embed_model=MockEmbedding(embed_dim=4))
    llm = routed(lambda answer: False)
    response = index.as_query_engine(llm=llm).query(EASY)
    assert str(response) == "strong says this"
    assert response.metadata["routellm"]["escalated"] is True  # type: ignore[index]


def test_history_holds_the_answer_that_was_given():
    engine = SimpleChatEngine.from_defaults(llm=routed(lambda answer: False), memory=memory())
    assert str(engine.chat(EASY)) == "strong says this"
    assert "".join(engine.stream_chat(EASY).response_gen) == "strong says this"
    assert [m.content for m in engine.chat_history if m.role == "assistant"] == ["strong says this"] * 2


@pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated")  # LlamaIndex's workflows look at it
@pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
@pytest.mark.filterwarnings("ignore:is_running called from within a step")
async def test_an_agent_streams_the_accepted_answer_alone():
    agent = FunctionAgent(llm=routed(lambda answer: False), tools=[])
    handler = agent.run(EASY, memory=memory())
    deltas = [event.delta async for event in handler.stream_events() if hasattr(event, "delta")]
    assert str(await handler) == "strong says this"
    assert "weak" not in "".join(d or "" for d in deltas)


def test_structured_answers_are_checked_as_json():
    class Number(BaseModel):
        value: int

    seen: list[WeakAnswer] = []
    llm = routed(lambda answer: seen.append(answer) or True)
    fake(llm.weak).reply_next(Reply(tools=[("Number", {"value": 3})]))
    found = llm.structured_predict(Number, PromptTemplate("{question}"), question=EASY)
    assert found == Number(value=3)
    assert seen[0].text == '{"value":3}'
