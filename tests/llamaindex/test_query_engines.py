"""Query and chat engines: the router sees what the person asked, never what was put around it."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import PydanticResponse
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import CustomQueryEngine, RetrieverQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import Document, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import BaseModel

from llamaindex_routellm import Retrieval, RouteLLM, routing_decision
from routellm_core import RoutingDecision
from routellm_core.policy import RoutingRequest
from tests.llamaindex.conftest import Recorder
from tests.support.fakes_llamaindex import FakeLLM, Reply, SurvivableError, fake
from tests.support.routers import ScriptedRouter

QUESTION = "p=0.1 When did the bridge open?"
# a win rate in each passage: the router would follow it if the passages reached the router
PASSAGES = ["p=0.97 The bridge opened in 1932. " + "Steel. " * 40, "p=0.98 It carries trains. " + "Rails. " * 40]
WITH_LLM = [
    ResponseMode.COMPACT,
    ResponseMode.REFINE,
    ResponseMode.TREE_SUMMARIZE,
    ResponseMode.SIMPLE_SUMMARIZE,
    ResponseMode.GENERATION,
    ResponseMode.ACCUMULATE,
    ResponseMode.COMPACT_ACCUMULATE,
]
STREAMED = [mode for mode in WITH_LLM if "accumulate" not in mode.value]  # LlamaIndex streams no others
modes = pytest.mark.parametrize("mode", WITH_LLM, ids=lambda mode: mode.value)


class Passages(BaseRetriever):
    """Finds the same passages for every question."""

    def __init__(self, texts: list[str] | None = None) -> None:
        self.texts = PASSAGES if texts is None else texts
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=t), score=0.8 - i / 10) for i, t in enumerate(self.texts)]


def engine(llm: RouteLLM, mode: ResponseMode, **options: Any) -> RetrieverQueryEngine:
    # small windows, so that compact, refine and tree_summarize need several calls
    helper = PromptHelper(context_window=700, num_output=50, tokenizer=str.split)
    synthesizer = get_response_synthesizer(llm=llm, response_mode=mode, prompt_helper=helper, **options)
    return RetrieverQueryEngine(Passages(), synthesizer, callback_manager=Settings.callback_manager)


def assert_routed_on(question: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder) -> None:
    """Only the question was scored, and every call of a model had one decision and one pair of events."""
    assert set(router.prompts) == {question}
    calls = len(fake(llm.weak).seen) + len(fake(llm.strong).seen)
    assert calls >= 1
    assert len(events.decisions) == calls
    assert events.count("LLMChatStartEvent") == events.count("LLMChatEndEvent") == calls
    assert events.count("LLMCompletionStartEvent") == 0


class TestResponseModes:
    @modes
    @pytest.mark.parametrize("way", ["query", "aquery"])
    async def test_the_router_sees_the_question_alone(
        self, mode: ResponseMode, way: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        asked = engine(llm, mode)
        response = asked.query(QUESTION) if way == "query" else await asked.aquery(QUESTION)
        assert "weak" in str(response)
        assert_routed_on(QUESTION, llm, router, events)
        assert fake(llm.strong).seen == []
        if mode in (ResponseMode.REFINE, ResponseMode.ACCUMULATE):
            assert len(fake(llm.weak).seen) == len(PASSAGES)
        if mode != ResponseMode.GENERATION:
            assert any("The bridge opened in 1932" in (seen.messages[-1].content or "") for seen in fake(llm.weak).seen)

    @pytest.mark.parametrize("mode", STREAMED, ids=lambda mode: mode.value)
    @pytest.mark.parametrize("way", ["query", "aquery"])
    async def test_streaming(
        self, mode: ResponseMode, way: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        asked = engine(llm, mode, streaming=True)
        if way == "query":
            text = "".join(asked.query(QUESTION).response_gen)  # type: ignore[arg-type, union-attr]
        else:
            text = "".join([token async for token in (await asked.aquery(QUESTION)).response_gen])  # type: ignore[union-attr]
        assert text.startswith("weak:")
        assert_routed_on(QUESTION, llm, router, events)

    @modes
    async def test_tokens_counted_once(self, mode: ResponseMode, llm: RouteLLM, counter: TokenCountingHandler) -> None:
        Settings.callback_manager = CallbackManager([counter])
        engine(llm, mode).query(QUESTION)
        assert counter.total_llm_token_count == 15 * len(fake(llm.weak).seen)

    @modes
    def test_a_hard_question_goes_to_the_strong_model(self, mode: ResponseMode, llm: RouteLLM) -> None:
        engine(llm, mode).query("p=0.9 Why does it not fall down?")
        assert fake(llm.weak).seen == []
        assert fake(llm.strong).seen

    @modes
    def test_options_of_one_query(self, mode: ResponseMode, llm: RouteLLM) -> None:
        with instrument_tags({"routellm_force": "strong"}):
            engine(llm, mode).query(QUESTION)
        assert fake(llm.weak).seen == []

    @pytest.mark.parametrize("mode", [ResponseMode.NO_TEXT, ResponseMode.CONTEXT_ONLY], ids=lambda mode: mode.value)
    def test_modes_that_ask_no_model_ask_no_router(
        self, mode: ResponseMode, llm: RouteLLM, router: ScriptedRouter
    ) -> None:
        Settings.llm = llm  # these two take no other
        engine(llm, mode).query(QUESTION)
        assert router.prompts == []
        assert fake(llm.weak).seen == fake(llm.strong).seen == []

    @pytest.mark.parametrize("way", ["query", "aquery"])
    async def test_tree_summarize_with_use_async(
        self, way: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        fake(llm.weak).reply_next(*["weak: in short"] * 200)
        helper = PromptHelper(context_window=300, num_output=50, tokenizer=str.split)
        synthesizer = get_response_synthesizer(
            llm=llm, response_mode=ResponseMode.TREE_SUMMARIZE, use_async=way == "aquery", prompt_helper=helper
        )
        asked = RetrieverQueryEngine(Passages(PASSAGES * 40), synthesizer)
        _ = asked.query(QUESTION) if way == "query" else await asked.aquery(QUESTION)
        assert_routed_on(QUESTION, llm, router, events)


class Answer(BaseModel):
    """An answer."""

    year: int


ANSWER = Reply(tools=[("Answer", {"year": 1932})])


class TestStructuredAnswers:
    @pytest.mark.parametrize(
        "mode", [ResponseMode.COMPACT, ResponseMode.REFINE, ResponseMode.TREE_SUMMARIZE], ids=lambda mode: mode.value
    )
    @pytest.mark.parametrize("way", ["query", "aquery"])
    async def test_output_cls(
        self, mode: ResponseMode, way: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        fake(llm.weak).reply_next(*[ANSWER] * 8)
        asked = engine(llm, mode, output_cls=Answer)
        response = asked.query(QUESTION) if way == "query" else await asked.aquery(QUESTION)
        assert isinstance(response, PydanticResponse)
        assert response.response == Answer(year=1932)
        assert_routed_on(QUESTION, llm, router, events)

    @pytest.mark.parametrize("way", ["query", "aquery"])
    async def test_structured_answer_filtering(
        self, way: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        # this one hands the LLM finished messages, with the question somewhere in the last
        found = Reply(tools=[("StructuredRefineResponse", {"answer": "1932", "query_satisfied": True})])
        fake(llm.weak).reply_next(*[found] * 8)
        asked = engine(llm, ResponseMode.REFINE, structured_answer_filtering=True)
        response = asked.query(QUESTION) if way == "query" else await asked.aquery(QUESTION)
        assert str(response) == "1932"
        assert_routed_on(QUESTION, llm, router, events)

    def test_a_program_in_text(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        fake(llm.weak).reply_next('{"year": 1932}')
        program = LLMTextCompletionProgram.from_defaults(
            output_parser=PydanticOutputParser(output_cls=Answer), prompt_template_str="{q}", llm=llm
        )
        assert program(q=QUESTION) == Answer(year=1932)
        assert router.prompts[0].startswith(QUESTION)

    def test_a_structured_llm_in_an_engine(self, llm: RouteLLM, router: ScriptedRouter, events: Recorder) -> None:
        fake(llm.weak).reply_next(ANSWER)
        synthesizer = get_response_synthesizer(llm=llm.as_structured_llm(Answer), response_mode="simple_summarize")  # type: ignore[arg-type]
        response = RetrieverQueryEngine(Passages(), synthesizer).query(QUESTION)
        assert response.response == Answer(year=1932)  # type: ignore[union-attr]
        assert set(router.prompts) == {QUESTION}


class TestRetrievalSignal:
    def hooked(self, llm: RouteLLM, router: ScriptedRouter, **options: Any) -> tuple[RouteLLM, list[Any]]:
        seen: list[Any] = []

        def route_on(messages: list[ChatMessage], retrieval: Retrieval | None) -> Any:
            seen.append(([m.content for m in messages], retrieval))
            if retrieval is not None and retrieval.best_score is not None and retrieval.best_score < 0.5:
                return RoutingRequest((), force="strong")
            return messages[-1].content

        return RouteLLM(strong=llm.strong, weak=llm.weak, router=router, threshold=0.5, route_on=route_on), seen

    @pytest.mark.parametrize(
        ("mode", "streaming"),
        [(mode, False) for mode in WITH_LLM] + [(mode, True) for mode in STREAMED],
        ids=lambda value: value.value if isinstance(value, ResponseMode) else str(value),
    )
    def test_best_score_and_context_length_reach_the_hook(
        self, mode: ResponseMode, streaming: bool, llm: RouteLLM, router: ScriptedRouter
    ) -> None:
        hooked, seen = self.hooked(llm, router)
        response = engine(hooked, mode, streaming=streaming).query(QUESTION)
        if streaming:
            assert "".join(response.response_gen)  # type: ignore[arg-type, union-attr]
        assert seen
        for messages, retrieval in seen:
            assert messages == [QUESTION]
            assert retrieval.question == QUESTION
            assert retrieval.best_score == pytest.approx(0.8)
            if mode == ResponseMode.GENERATION:
                assert retrieval.context_length is None
            else:
                assert 200 < retrieval.context_length < 1000

    async def test_async(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        hooked, seen = self.hooked(llm, router)
        await engine(hooked, ResponseMode.COMPACT).aquery(QUESTION)
        assert seen[0][1].best_score == pytest.approx(0.8)

    async def test_queries_at_once_do_not_mix(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        class Scored(Passages):
            async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
                await asyncio.sleep(0)
                number = int(query_bundle.query_str.split()[-1])
                return [NodeWithScore(node=TextNode(text="x" * number), score=0.5 + number / 100)]

        hooked, seen = self.hooked(llm, router)
        asked = RetrieverQueryEngine(Scored(), get_response_synthesizer(llm=hooked))
        answers = await asyncio.gather(*(asked.aquery(f"p=0.{i % 10} number {i}") for i in range(40)))
        assert [str(a).split(":")[0] for a in answers] == [("weak", "strong")[i % 10 >= 5] for i in range(40)]
        for _, retrieval in seen:
            number = int(retrieval.question.split()[-1])
            assert retrieval.best_score == pytest.approx(0.5 + number / 100)

    def test_the_signal_may_decide(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        class Unsure(Passages):
            def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
                return [NodeWithScore(node=TextNode(text="?"), score=0.2), NodeWithScore(node=TextNode(text="??"))]

        hooked, _ = self.hooked(llm, router)
        synthesizer = get_response_synthesizer(llm=hooked, response_mode="compact")  # type: ignore[arg-type]
        RetrieverQueryEngine(Unsure(), synthesizer).query(QUESTION)
        assert len(fake(llm.strong).seen) == 1

    def test_a_later_chat_knows_nothing_of_it(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        hooked, seen = self.hooked(llm, router)
        engine(hooked, ResponseMode.COMPACT).query(QUESTION)
        hooked.chat([ChatMessage(content=f"p=0.9 You said: {QUESTION} Why?")])
        hooked.predict(PromptTemplate("{query_str}"), query_str="p=0.2 something else")
        assert seen[-2][1] is None
        assert seen[-1][1] == Retrieval("p=0.2 something else")
        assert router.prompts[-2].startswith("p=0.9 You said")

    def test_a_failed_query_leaves_nothing_behind(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        hooked, seen = self.hooked(llm, router)
        fake(llm.weak).reply_next(RuntimeError("down"))
        with pytest.raises(RuntimeError, match="down"):
            engine(hooked, ResponseMode.TREE_SUMMARIZE).query(QUESTION)
        hooked.chat([ChatMessage(content=f"{QUESTION} Why?")])
        assert seen[-1][1] is None

    def test_watching_is_set_up_once(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        before = len(get_dispatcher().span_handlers)
        for _ in range(3):
            RouteLLM(strong=llm.strong, weak=llm.weak, router=router, threshold=0.5)
        assert len(get_dispatcher().span_handlers) == before

    @pytest.mark.parametrize("way", ["query", "aquery"])
    async def test_in_an_engine_of_the_users_own(self, way: str, llm: RouteLLM, router: ScriptedRouter) -> None:
        hooked, seen = self.hooked(llm, router)
        engine = Own(llm=hooked)
        assert str(engine.query(QUESTION) if way == "query" else await engine.aquery(QUESTION)).startswith("weak")
        ((messages, retrieval),) = seen
        assert messages == [QUESTION]
        assert (retrieval.question, retrieval.best_score) == (QUESTION, pytest.approx(0.8))
        assert retrieval.context_length > 300

    def test_in_a_process_that_only_unpickles_the_model(self, tmp_path: Path) -> None:
        llm = RouteLLM(
            strong=MockLLM(), weak=MockLLM(max_tokens=1), router="random", threshold=0.99, route_on=strong_if_unsure
        )
        file = tmp_path / "llm.pickle"
        file.write_bytes(pickle.dumps(llm))
        code = f"""
import pickle
from pathlib import Path
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index_instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler

class Finds(BaseRetriever):
    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(text="Steel."), score=0.1)]

class Tells(BaseEventHandler):
    def handle(self, event, **kwargs):
        if event.class_name() == "RouteLLMDecisionEvent":
            print(event.decision["model"], event.decision["reason"])

llm = pickle.loads(Path({str(file)!r}).read_bytes())
get_dispatcher().add_event_handler(Tells())
RetrieverQueryEngine(Finds(), get_response_synthesizer(llm=llm)).query("Why?")
"""
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "core"), str(root), *sys.path])}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.stdout.split() == ["strong", "forced"], done.stderr

    def test_an_engine_within_an_engine(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        hooked, seen = self.hooked(llm, router)
        inner, asked = engine(hooked, ResponseMode.COMPACT), "p=0.3 And the materials?"

        class Outer(CustomQueryEngine):
            def custom_query(self, query_str: str) -> str:
                before = hooked.complete(f"About: {query_str}").text
                found = str(inner.query(asked))
                return before + found + hooked.complete(f"So, {query_str} {found}").text

        Outer().query(QUESTION)
        assert router.prompts == [QUESTION, asked]  # the third is known already
        assert list(dict.fromkeys(r.question for _, r in seen[:-1])) == [QUESTION, asked]
        assert seen[-1][1].question == QUESTION

    def test_a_prompt_of_its_own_within_an_engine(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        class Outer(CustomQueryEngine):
            def custom_query(self, query_str: str) -> str:
                step = llm.predict(PromptTemplate("Name the river: {text}"), text="p=0.6 steps")
                return step + llm.complete("p=0.7 And now something else.").text

        Outer().query(QUESTION)
        # a template is a step of the engine; a text without the question speaks for itself
        assert router.prompts == [QUESTION, "p=0.7 And now something else."]

    async def test_engines_at_once_do_not_mix(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        class Slow(CustomQueryEngine):
            def custom_query(self, query_str: str) -> str:
                raise AssertionError("asked in the wrong way")

            async def acustom_query(self, query_str: str) -> str:
                await asyncio.sleep(0)
                return str(await llm.acomplete(f"p=0.99 Context. {query_str} Answer:"))

        questions = [f"p=0.{i % 10} number {i}." for i in range(40)]
        await asyncio.gather(*(Slow().aquery(question) for question in questions))
        assert sorted(router.prompts) == sorted(questions)


class Own(CustomQueryEngine):
    """As the guides write an engine: a retriever, and a completed prompt."""

    llm: Any

    def custom_query(self, query_str: str) -> str:
        context = "\n".join(node.text for node in Passages().retrieve(query_str))
        return str(self.llm.complete(f"Context: {context}\nQuestion: {query_str}\nAnswer: "))


def strong_if_unsure(messages: list[ChatMessage], retrieval: Retrieval | None) -> Any:
    """The hook of the guide; here, since it is pickled by its name."""
    if retrieval is not None and retrieval.best_score is not None and retrieval.best_score < 0.2:
        return RoutingRequest((), force="strong")
    return messages[-1].content


def memory() -> ChatMemoryBuffer:
    # LlamaIndex's default keeps a database connection that it does not close
    return ChatMemoryBuffer.from_defaults(token_limit=3000, tokenizer_fn=str.split)


class TestChatEngines:
    FIRST, SECOND = "p=0.9 Explain the arch.", "p=0.2 And who paid?"

    async def talk(self, chat_engine: Any, way: str, text: str) -> str:
        if way == "chat":
            return str(chat_engine.chat(text))
        if way == "achat":
            return str(await chat_engine.achat(text))
        if way == "stream_chat":
            return "".join(chat_engine.stream_chat(text).response_gen)
        stream = await chat_engine.astream_chat(text)
        return "".join([token async for token in stream.async_response_gen()])

    @pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
    async def test_simple(self, way: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder) -> None:
        chat_engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory(), system_prompt="p=1 system")
        assert await self.talk(chat_engine, way, self.FIRST) == f"strong: {self.FIRST}"
        assert await self.talk(chat_engine, way, self.SECOND) == f"weak: {self.SECOND}"
        assert router.prompts == [self.FIRST, self.SECOND]
        assert [d["model"] for d in events.decisions] == ["strong", "weak"]
        assert "routellm" not in str([m.additional_kwargs for m in fake(llm.weak).seen[0].messages])

    @pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
    async def test_context(self, way: str, llm: RouteLLM, router: ScriptedRouter) -> None:
        Settings.llm = llm
        chat_engine = ContextChatEngine.from_defaults(retriever=Passages(), llm=llm, memory=memory())
        assert (await self.talk(chat_engine, way, self.FIRST)).startswith("strong:")
        assert (await self.talk(chat_engine, way, self.SECOND)).startswith("weak:")
        assert set(router.prompts) == {self.FIRST, self.SECOND}

    @pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
    async def test_condense_plus_context(self, way: str, llm: RouteLLM, router: ScriptedRouter) -> None:
        Settings.llm = llm
        chat_engine = CondensePlusContextChatEngine.from_defaults(retriever=Passages(), llm=llm, memory=memory())
        assert (await self.talk(chat_engine, way, self.FIRST)).startswith("strong:")
        fake(llm.weak).reply_next("p=0.3 Who paid for the bridge?")
        await self.talk(chat_engine, way, self.SECOND)
        # to rewrite it is as hard as what the person asked; then what it became is answered
        asked = list(dict.fromkeys(router.prompts))
        assert asked[:2] == [self.FIRST, self.SECOND]
        assert set(asked[2:]) <= {"p=0.3 Who paid for the bridge?"}
        assert not any("Standalone" in prompt or "p=0.97" in prompt for prompt in router.prompts)

    @pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
    async def test_condense_question(self, way: str, llm: RouteLLM, router: ScriptedRouter) -> None:
        Settings.llm = llm
        synthesizer = get_response_synthesizer(llm=llm, response_mode="compact", streaming="stream" in way)  # type: ignore[arg-type]
        query_engine = RetrieverQueryEngine(Passages(), synthesizer)
        chat_engine = CondenseQuestionChatEngine.from_defaults(query_engine=query_engine, llm=llm, memory=memory())
        await self.talk(chat_engine, way, self.FIRST)
        fake(llm.weak).reply_next("p=0.3 Who paid for the bridge?")
        await self.talk(chat_engine, way, self.SECOND)
        assert set(router.prompts) <= {self.FIRST, self.SECOND, "p=0.3 Who paid for the bridge?"}
        assert self.SECOND in router.prompts

    def test_sticky_through_a_chat_engine(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        sticky = RouteLLM(strong=llm.strong, weak=llm.weak, router=router, threshold=0.5, sticky=True)
        chat_engine = SimpleChatEngine.from_defaults(llm=sticky, memory=memory())
        with instrument_tags({"thread_id": "ann"}):
            answers = [str(chat_engine.chat(t)) for t in (self.SECOND, self.FIRST, self.SECOND)]
        assert [a.split(":")[0] for a in answers] == ["weak", "strong", "strong"]


WORDS = {
    "latin": "The bridge was opened by the premier of the state on a rainy morning in March. ",
    "cyrillic": "Мост был открыт премьером штата дождливым утром в марте под звуки оркестра. ",
    "chinese": "大桥在三月一个下雨的早晨由州长宣布通车，乐队奏乐，成千上万的人前来观看。",
    "code": "for (i = 0; i < n; ++i) { a[i] = b[i] << 2; }  // 0x7f\n",
}


class TestDecisionsOnAnswers:
    """What LlamaIndex gives back tells the decision of the model that answered last, where it has a place for it."""

    @modes
    @pytest.mark.parametrize("way", ["query", "aquery"])
    async def test_a_response(self, mode: ResponseMode, way: str, llm: RouteLLM, events: Recorder) -> None:
        asked = engine(llm, mode)
        for question in (QUESTION, "p=0.9 Why does it not fall down?"):
            response = asked.query(question) if way == "query" else await asked.aquery(question)
            assert response.metadata["routellm"] == events.decisions[-1]  # type: ignore[index]
            assert routing_decision(response) == RoutingDecision.from_dict(events.decisions[-1])
            if mode == ResponseMode.COMPACT:
                assert len(response.metadata) > 1  # type: ignore[arg-type]  # what LlamaIndex tells of the nodes is still there

    @pytest.mark.parametrize("mode", STREAMED, ids=lambda mode: mode.value)
    @pytest.mark.parametrize("way", ["query", "aquery"])
    @pytest.mark.parametrize("failover", [False, True])
    async def test_a_streamed_response(
        self, mode: ResponseMode, way: str, failover: bool, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        safe = RouteLLM(strong=llm.strong, weak=llm.weak, router=router, threshold=0.5, failover=failover)
        if failover:
            fake(llm.weak).reply_next(SurvivableError("down"))
        asked = engine(safe, mode, streaming=True)
        if way == "query":
            response = asked.query(QUESTION)
            assert "".join(response.response_gen)  # type: ignore[arg-type, union-attr]
        else:
            response = await asked.aquery(QUESTION)
            assert "".join([token async for token in response.response_gen])  # type: ignore[union-attr]
        decision = routing_decision(response)
        assert decision == RoutingDecision.from_dict(events.decisions[-1])
        # a later call is not of this response
        safe.complete("p=0.9 Something else.")
        safe.complete(QUESTION)
        assert routing_decision(response) == decision

    def test_of_an_engine_of_the_users_own_and_of_one_within_it(self, llm: RouteLLM, events: Recorder) -> None:
        answers: list[Any] = []

        class Outer(CustomQueryEngine):
            def custom_query(self, query_str: str) -> str:
                answers.append(engine(llm, ResponseMode.COMPACT).query("p=0.9 And the materials?"))
                return llm.complete(f"{query_str} {answers[0]}").text

        response = Outer().query(QUESTION)
        assert [routing_decision(a).model for a in (response, *answers)] == ["weak", "strong"]  # type: ignore[union-attr]

    def test_without_a_routed_model_there_is_nothing_to_tell(self, llm: RouteLLM) -> None:
        response = RetrieverQueryEngine(Passages(), get_response_synthesizer(llm=llm.weak)).query(QUESTION)
        assert "routellm" not in (response.metadata or {})
        assert routing_decision(response) is None
        assert Own(llm=llm.weak).query(QUESTION).metadata is None

    @pytest.mark.parametrize("way", ["chat", "achat"])
    async def test_a_chat_engines_answer(self, way: str, llm: RouteLLM) -> None:
        chat_engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory())
        for text, side in ((QUESTION, "weak"), ("p=0.9 Why?", "strong")):
            answer = chat_engine.chat(text) if way == "chat" else await chat_engine.achat(text)
            decision = routing_decision(answer)
            assert decision is not None
            assert decision.model == side


class TestPacking:
    """A prompt that LlamaIndex made to fit is never beyond the weak model's window."""

    @pytest.mark.parametrize("kind", WORDS)
    @pytest.mark.parametrize(
        ("strong", "weak"),
        [((128_000, 4096), (2000, 256)), ((4000, 100), (2500, 1500)), ((128_000, -1), (2000, -1))],
        ids=str,
    )
    @pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE], ids=lambda mode: mode.value)
    def test_of_any_text(
        self,
        kind: str,
        strong: tuple[int, int],
        weak: tuple[int, int],
        mode: ResponseMode,
        router: ScriptedRouter,
        events: Recorder,
    ) -> None:
        models = {
            side: FakeLLM(side, window=window, num_output=num_output, respond=lambda messages: "in short")
            for side, (window, num_output) in (("strong", strong), ("weak", weak))
        }
        llm = RouteLLM(**models, router=router, threshold=0.5)  # type: ignore[arg-type]
        passages = Passages([f"{i}. {WORDS[kind] * 30}" for i in range(12)])
        RetrieverQueryEngine(passages, get_response_synthesizer(llm=llm, response_mode=mode)).query(QUESTION)
        assert len(events.decisions) > 3
        assert {(d["model"], d["reason"]) for d in events.decisions} == {("weak", "win_rate")}

    def test_a_prompt_that_nobody_fitted_goes_where_it_fits(self, router: ScriptedRouter, events: Recorder) -> None:
        llm = RouteLLM(
            strong=FakeLLM("strong", window=128_000), weak=FakeLLM("weak", window=2000), router=router, threshold=0.5
        )
        prompt = PromptTemplate("{context_str} {query_str}")
        llm.predict(prompt, context_str=WORDS["cyrillic"] * 100, query_str=QUESTION)
        assert (events.decisions[0]["model"], events.decisions[0]["detail"]) == ("strong", "max_input_tokens")


class TestWholeEngines:
    def test_a_vector_index_with_settings(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        Settings.llm = llm
        Settings.embed_model = MockEmbedding(embed_dim=4)
        index = VectorStoreIndex.from_documents([Document(text=p) for p in PASSAGES])
        assert str(index.as_query_engine().query(QUESTION)).startswith("weak:")
        assert str(index.as_chat_engine(chat_mode="context", memory=memory()).chat("p=0.8 Why?")).startswith("strong:")  # type: ignore[arg-type]
        assert set(router.prompts) == {QUESTION, "p=0.8 Why?"}

    @pytest.mark.parametrize("use_async", [False, True])
    def test_sub_questions(self, use_async: bool, llm: RouteLLM, router: ScriptedRouter) -> None:
        Settings.llm = llm
        parts = [{"sub_question": q, "tool_name": "bridge"} for q in ("p=0.8 Why steel?", "p=0.1 When?")]
        fake(llm.strong).reply_next(f"```json\n{json.dumps({'items': parts})}\n```")
        tool = QueryEngineTool.from_defaults(engine(llm, ResponseMode.COMPACT), name="bridge", description="A bridge")
        asked = SubQuestionQueryEngine.from_defaults(
            query_engine_tools=[tool],
            question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
            response_synthesizer=get_response_synthesizer(llm=llm),
            verbose=False,
            use_async=use_async,
        )
        question = "p=0.9 Compare the materials."
        assert str(asked.query(question)).startswith("strong:")
        assert set(router.prompts) == {question, "p=0.8 Why steel?", "p=0.1 When?"}
        assert len(fake(llm.weak).seen) >= 1
