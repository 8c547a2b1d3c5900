"""RouteLLM as an LLM: every way of calling it gives one answer, of one model, with one decision, counted once."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CompletionResponse,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import (
    ChatPromptTemplate,
    PromptTemplate,
    RichPromptTemplate,
    SelectorPromptTemplate,
)
from llama_index.core.types import PydanticProgramMode
from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags
from pydantic import BaseModel, Field

from llamaindex_routellm import RouteLLM, routing_decision
from routellm_core import (
    Calibration,
    ConfigurationError,
    PromptError,
    RouterError,
    RoutingDecision,
    RoutingPolicy,
    Stickiness,
)
from routellm_core.errors import EmptyAnswerError
from routellm_core.policy import RoutingRequest
from tests.llamaindex.conftest import Recorder, SpanRecorder
from tests.support.fakes_llamaindex import FakeLLM, RefusedError, Reply, SurvivableError
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 What is two plus two?", "p=0.9 Prove that there are infinitely many primes."


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


async def collect(stream: Any) -> list[Any]:
    return [piece async for piece in stream]


# One way to call it each: (llm, text, kwargs) -> the pieces of the answer; a plain answer is one piece.
async def chat(llm: Any, text: str, **kwargs: Any) -> list[Any]:
    return [llm.chat([user(text)], **kwargs)]


async def achat(llm: Any, text: str, **kwargs: Any) -> list[Any]:
    return [await llm.achat([user(text)], **kwargs)]


async def stream_chat(llm: Any, text: str, **kwargs: Any) -> list[Any]:
    return list(llm.stream_chat([user(text)], **kwargs))


async def astream_chat(llm: Any, text: str, **kwargs: Any) -> list[Any]:
    return await collect(await llm.astream_chat([user(text)], **kwargs))


async def complete(llm: Any, text: str, **kwargs: Any) -> list[Any]:
    return [llm.complete(text, **kwargs)]


async def acomplete(llm: Any, text: str, **kwargs: Any) -> list[Any]:
    return [await llm.acomplete(text, **kwargs)]


async def stream_complete(llm: Any, text: str, **kwargs: Any) -> list[Any]:
    return list(llm.stream_complete(text, **kwargs))


async def astream_complete(llm: Any, text: str, **kwargs: Any) -> list[Any]:
    return await collect(await llm.astream_complete(text, **kwargs))


WAYS = [chat, achat, stream_chat, astream_chat, complete, acomplete, stream_complete, astream_complete]
STREAMS = [stream_chat, astream_chat, stream_complete, astream_complete]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
streams = pytest.mark.parametrize("way", STREAMS, ids=lambda way: way.__name__)
Way = Callable[..., Any]


def text_of(pieces: list[Any]) -> str:
    last = pieces[-1]
    return last.text if isinstance(last, CompletionResponse) else last.message.content


class TestEveryWay:
    @ways
    @pytest.mark.parametrize(("text", "side"), [(EASY, "weak"), (HARD, "strong")])
    async def test_one_model_answers_once_and_every_piece_tells_the_decision(
        self, way: Way, text: str, side: str, llm: RouteLLM, strong: FakeLLM, weak: FakeLLM, events: Recorder
    ) -> None:
        pieces = await way(llm, text, temperature=0.3)
        expected = {
            "model": side,
            "win_rate": 0.1 if side == "weak" else 0.9,
            "threshold": 0.5,
            "router": "scripted",
            "reason": "win_rate",
            "failover": None,
            "error": None,
            "detail": None,
            "escalated": False,
            "p_strong": float(side == "strong"),
            "router_version": llm.policy.router.fingerprint[:12],
            "cost": None,
            "inner": None,
        }
        ids = {piece.additional_kwargs["routellm"]["id"] for piece in pieces} | {d["id"] for d in events.decisions}
        assert len(ids) == 1
        expected["id"] = ids.pop()
        assert [piece.additional_kwargs["routellm"] for piece in pieces] == [expected] * len(pieces)
        assert text_of(pieces) == f"{side}: {text}"
        chosen, other = (strong, weak) if side == "strong" else (weak, strong)
        assert [seen.method for seen in chosen.seen] == [way.__name__]
        assert chosen.seen[0].kwargs.pop("formatted", False) is False
        assert chosen.seen[0].kwargs == {"temperature": 0.3}
        assert other.seen == []
        assert events.decisions == [expected]

    @ways
    async def test_the_model_has_its_own_events_and_the_router_adds_one(
        self, way: Way, llm: RouteLLM, events: Recorder, spans: SpanRecorder
    ) -> None:
        pieces = await way(llm, EASY)
        kind = "Chat" if "chat" in way.__name__ else "Completion"
        assert events.count(f"LLM{kind}StartEvent") == 1
        assert events.count(f"LLM{kind}EndEvent") == 1
        if len(pieces) > 1:
            assert events.count(f"LLM{kind}InProgressEvent") == len(pieces)
        other = "Completion" if kind == "Chat" else "Chat"
        assert events.of(f"LLM{other}StartEvent", f"LLM{other}EndEvent") == []
        for event in events.of(f"LLM{kind}StartEvent", f"LLM{kind}InProgressEvent", f"LLM{kind}EndEvent"):
            assert event.tags["routellm"]["model"] == "weak"
        assert spans.names == [f"RouteLLM.{way.__name__}", f"FakeLLM.{way.__name__}"]
        assert spans.parent(f"FakeLLM.{way.__name__}") == f"RouteLLM.{way.__name__}"
        (decision,) = events.of("RouteLLMDecisionEvent")
        assert decision.span_id is not None
        assert decision.span_id.startswith(f"RouteLLM.{way.__name__}-")

    @ways
    async def test_tokens_are_counted_once(
        self, way: Way, counted: RouteLLM, counter: TokenCountingHandler, weak: FakeLLM
    ) -> None:
        await way(counted, EASY)
        assert counter.prompt_llm_token_count == 10
        assert counter.completion_llm_token_count == 5
        assert len(counter.llm_token_counts) == 1

    @ways
    async def test_a_call_may_set_its_threshold_and_its_side(
        self, way: Way, llm: RouteLLM, strong: FakeLLM, weak: FakeLLM
    ) -> None:
        (decision,) = {
            json.dumps(p.additional_kwargs["routellm"]) for p in await way(llm, HARD, routellm_threshold=0.95)
        }
        assert json.loads(decision)["model"] == "weak"
        assert json.loads(decision)["threshold"] == 0.95
        pieces = await way(llm, EASY, routellm_force="strong")
        assert pieces[0].additional_kwargs["routellm"]["reason"] == "forced"
        assert pieces[0].additional_kwargs["routellm"]["win_rate"] is None
        assert all(not any(k.startswith("routellm") for k in s.kwargs) for s in (*strong.seen, *weak.seen))
        assert len(strong.seen) == len(weak.seen) == 1

    @ways
    async def test_the_models_error_is_raised_as_it_is(
        self, way: Way, llm: RouteLLM, weak: FakeLLM, strong: FakeLLM, events: Recorder
    ) -> None:
        error = SurvivableError("down")
        weak.reply_next(error)
        with pytest.raises(SurvivableError) as caught:
            await way(llm, EASY)
        assert caught.value is error
        assert strong.seen == []
        assert [d["model"] for d in events.decisions] == ["weak"]

    @ways
    async def test_failover_answers_from_the_other_side_and_says_so(
        self, way: Way, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        weak.reply_next(Reply("never seen", error=SurvivableError("down"), empty_first=True))
        pieces = await way(llm, EASY)
        assert text_of(pieces) == f"strong: {EASY}"
        assert "never" not in "".join(getattr(p, "delta", None) or "" for p in pieces)
        for piece in pieces:
            decision = piece.additional_kwargs["routellm"]
            assert (decision["model"], decision["failover"], decision["detail"]) == (
                "strong",
                "weak",
                "SurvivableError",
            )
            assert (decision["reason"], decision["win_rate"]) == ("win_rate", 0.1)
        assert events.decisions == [pieces[0].additional_kwargs["routellm"]]

    @ways
    async def test_failover_leaves_errors_that_the_other_would_meet_too(
        self, way: Way, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        weak.reply_next(RefusedError("bad"))
        with pytest.raises(RefusedError):
            await way(llm, EASY)
        assert strong.seen == []
        assert [(d["model"], d["failover"]) for d in events.decisions] == [("weak", None)]

    @ways
    async def test_when_both_fail_the_second_error_is_raised(
        self, way: Way, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        weak.reply_next(SurvivableError("first"))
        strong.reply_next(SurvivableError("second"))
        with pytest.raises(SurvivableError, match="second"):
            await way(llm, EASY)
        assert len(events.decisions) == 1

    @ways
    async def test_a_failing_router_is_handled_by_the_policy(
        self, way: Way, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        broken = ScriptedRouter(error=RuntimeError("broken"))
        llm = RouteLLM(strong=strong, weak=weak, router=broken, threshold=0.5)
        decision = (await way(llm, EASY))[0].additional_kwargs["routellm"]
        assert (decision["model"], decision["reason"], decision["error"]) == ("strong", "error", "RuntimeError")
        llm = RouteLLM(strong=strong, weak=weak, policy=RoutingPolicy(broken, threshold=0.5, on_error="raise"))
        with pytest.raises(RouterError):
            await way(llm, EASY)

    @ways
    async def test_with_failover_on_and_no_failure_nothing_else_changes(
        self, way: Way, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        weak.reply_next(Reply("a b c", empty_first=True))
        pieces = await way(llm, EASY)
        assert text_of(pieces) == "a b c"
        if len(pieces) > 1:
            assert [p.delta for p in pieces] == ["", "a", " b", " c"]
        assert len(events.decisions) == 1


class TestStreams:
    def test_between_two_pieces_the_callers_tags_are_as_they_were(self, llm: RouteLLM, weak: FakeLLM) -> None:
        weak.reply_next("one two")
        with instrument_tags({"user": "ann"}):
            for _ in llm.stream_chat([user(EASY)]):
                assert active_instrument_tags.get() == {"user": "ann"}

    @streams
    async def test_deltas_add_up_to_the_answer(self, way: Way, llm: RouteLLM, weak: FakeLLM) -> None:
        weak.reply_next("one two three four")
        pieces = await way(llm, EASY)
        assert [p.delta for p in pieces] == ["one", " two", " three", " four"]
        assert text_of(pieces) == "one two three four"

    @streams
    @pytest.mark.parametrize("failover", [False, True])
    async def test_after_a_token_an_error_is_final(
        self, way: Way, failover: bool, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=failover)
        weak.reply_next(Reply("one two three", error=SurvivableError("cut"), error_after=1))
        with pytest.raises(SurvivableError):
            await way(llm, EASY)
        assert strong.seen == []

    def test_closing_a_stream_closes_the_models(self, llm: RouteLLM, weak: FakeLLM) -> None:
        weak.reply_next("one two three")
        stream = llm.stream_chat([user(EASY)])
        assert next(stream).delta == "one"
        stream.close()
        assert weak.closed == 1

    async def test_closing_an_async_stream_closes_the_models(self, strong: FakeLLM, router: ScriptedRouter) -> None:
        class Plain(FakeLLM):
            # without LlamaIndex's callback around it, which leaves the closing to the garbage collector
            async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
                return self._astreamed("astream_chat", messages, kwargs)

        weak = Plain("weak", "one two three")  # type: ignore[arg-type, call-arg]
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5)
        stream = await llm.astream_chat([user(EASY)])
        assert (await anext(stream)).delta == "one"
        await stream.aclose()
        assert weak.closed == 1

    async def test_a_model_that_streams_by_another_kind_of_iterator(
        self, strong: FakeLLM, router: ScriptedRouter
    ) -> None:
        class Pieces:
            def __init__(self, pieces: list[ChatResponse]) -> None:
                self.pieces = pieces

            def __iter__(self) -> Pieces:
                return self

            def __next__(self) -> ChatResponse:
                if not self.pieces:
                    raise StopIteration
                return self.pieces.pop(0)

            def __aiter__(self) -> Pieces:
                return self

            async def __anext__(self) -> ChatResponse:
                if not self.pieces:
                    raise StopAsyncIteration
                return self.pieces.pop(0)

        class Odd(FakeLLM):
            def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
                return Pieces([ChatResponse(message=assistant("a"), delta="a")])

            async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
                return Pieces([ChatResponse(message=assistant("a"), delta="a")])

        llm = RouteLLM(strong=strong, weak=Odd("weak"), router=router, threshold=0.5)  # type: ignore[arg-type, call-arg]
        for way in (stream_chat, astream_chat):
            (piece,) = await way(llm, EASY)
            assert (piece.delta, piece.additional_kwargs["routellm"]["model"]) == ("a", "weak")

    # not with stream_complete: LlamaIndex's own callback cannot end an empty stream of completions
    @pytest.mark.parametrize("way", [stream_chat, astream_chat], ids=lambda way: way.__name__)
    async def test_an_empty_stream_is_a_failure(
        self, way: Way, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        weak.reply_next(Reply(""), Reply(""))
        with pytest.raises(EmptyAnswerError):
            await way(RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5), EASY)
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        assert await way(llm, EASY)
        assert [(d["model"], d["failover"]) for d in events.decisions] == [("weak", None), ("strong", "weak")]


class TestAnswers:
    @ways
    async def test_routing_decision_reads_every_answer(self, way: Way, llm: RouteLLM, events: Recorder) -> None:
        pieces = await way(llm, HARD)
        assert {type(routing_decision(piece)) for piece in pieces} == {RoutingDecision}
        (told,) = events.decisions
        assert {routing_decision(piece) for piece in pieces} == {RoutingDecision.from_dict(told)}

    def test_what_was_not_routed_has_no_decision(self, weak: FakeLLM) -> None:
        unrouted: list[Any] = [weak.chat([user(EASY)]), weak.complete(EASY), assistant("x"), "text", None, Album]
        unrouted += [ChatResponse(message=assistant("x"), additional_kwargs={"routellm": "weak"})]
        assert [routing_decision(answer) for answer in unrouted] == [None] * 7

    def test_the_decision_is_never_in_the_message(self, llm: RouteLLM) -> None:
        assert "routellm" not in llm.chat([user(EASY)]).message.additional_kwargs

    def test_the_models_own_answer_is_not_written_to(self, strong: FakeLLM, router: ScriptedRouter) -> None:
        shared = ChatResponse(message=assistant("cached"), additional_kwargs={"prompt_tokens": 3})

        class Cached(FakeLLM):
            def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
                return shared

        llm = RouteLLM(strong=strong, weak=Cached("weak"), router=router, threshold=0.5)  # type: ignore[arg-type, call-arg]
        first, second = llm.chat([user(EASY)]), llm.chat([user("p=0.2 other")])
        assert first.additional_kwargs["routellm"]["win_rate"] == 0.1
        assert second.additional_kwargs["routellm"]["win_rate"] == 0.2
        assert first.additional_kwargs["prompt_tokens"] == 3
        assert shared.additional_kwargs == {"prompt_tokens": 3}

    def test_formatted_is_passed_on(self, llm: RouteLLM, weak: FakeLLM) -> None:
        llm.complete(EASY, formatted=True)
        assert weak.seen[0].kwargs == {"formatted": True}


class TestWhatIsRoutedOn:
    def test_the_last_thing_that_the_person_said(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        llm.chat([ChatMessage(role="system", content="p=1 sys"), user(HARD), assistant("p=1 answer"), user(EASY)])
        assert router.prompts == [EASY]

    def test_lookback_takes_the_hardest_of_the_last_turns(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, lookback=2)
        talk = [user(HARD), assistant("So ..."), user("p=0.2 continue")]
        assert llm.chat(talk).additional_kwargs["routellm"]["win_rate"] == 0.9
        talk += [assistant("Thus ..."), user("p=0.1 thanks")]
        assert llm.chat(talk).additional_kwargs["routellm"]["win_rate"] == 0.2

    def test_without_a_user_message_the_last_text_counts(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        llm.chat([ChatMessage(role="system", content=HARD)])
        assert router.prompts == [HARD]

    @pytest.mark.parametrize(
        ("hook", "prompts"),
        [
            (lambda messages: messages[0].content, ["p=0.7 first"]),
            (lambda messages, retrieval: f"p=0.6 {retrieval}", ["p=0.6 None"]),
            (lambda *both: f"p=0.6 {len(both)}", ["p=0.6 2"]),
            (lambda messages: [m.content for m in messages], ["p=0.7 first", "p=0.3 second"]),
        ],
        ids=["messages", "messages and retrieval", "any arguments", "several texts"],
    )
    def test_route_on(
        self, hook: Any, prompts: list[str], strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, route_on=hook)
        answer = llm.chat([user("p=0.7 first"), user("p=0.3 second")])
        assert router.prompts == prompts
        assert answer.additional_kwargs["routellm"]["model"] == "strong"

    def test_route_on_may_settle_the_call(self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter) -> None:
        llm = RouteLLM(
            strong=strong,
            weak=weak,
            router=router,
            threshold=0.5,
            route_on=lambda messages: RoutingRequest((), force="strong"),
        )
        assert llm.chat([user(EASY)]).additional_kwargs["routellm"]["reason"] == "forced"
        assert router.prompts == []

    def test_route_on_must_give_text(self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, route_on=lambda messages: 3)  # type: ignore[arg-type]
        with pytest.raises(PromptError, match="route_on returned int: expected a str"):
            llm.chat([user(EASY)])

    def test_route_on_may_force_no_side_that_is_none(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        settled: Any = RoutingRequest((), force="medium")  # type: ignore[arg-type]
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, route_on=lambda messages: settled)
        with pytest.raises(ConfigurationError, match="force='medium': expected 'strong' or 'weak'"):
            llm.chat([user(EASY)])


class TestPrompts:
    """predict and structured_predict: delegated as they are, routed on the question."""

    QA = PromptTemplate("Context: {context_str}\nQuery: {query_str}\nAnswer: ")

    async def all_ways(self, llm: RouteLLM, prompt: Any, **kwargs: Any) -> list[str]:
        return [
            llm.predict(prompt, **kwargs),
            await llm.apredict(prompt, **kwargs),
            "".join(llm.stream(prompt, **kwargs)),
            "".join(await collect(await llm.astream(prompt, **kwargs))),
        ]

    async def test_routed_on_the_question_and_asked_in_full(
        self, llm: RouteLLM, router: ScriptedRouter, weak: FakeLLM, strong: FakeLLM, events: Recorder
    ) -> None:
        answers = await self.all_ways(llm, self.QA, context_str="p=0.99 a long text", query_str=EASY)
        full = f"Context: p=0.99 a long text\nQuery: {EASY}\nAnswer: "
        assert answers == [f"weak: {full}"] * 4
        assert set(router.prompts) == {EASY}
        assert strong.seen == []
        assert [d["win_rate"] for d in events.decisions] == [0.1] * 4
        assert events.count("LLMPredictStartEvent") == 4

    async def test_a_partial_prompt_holds_the_question_too(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        await self.all_ways(llm, self.QA.partial_format(query_str=HARD), context_str="p=0 text")
        assert set(router.prompts) == {HARD}

    async def test_without_a_question_the_filled_prompt_counts(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        await self.all_ways(llm, PromptTemplate("{win} Name a {thing}."), win="p=0.9", thing="cat")
        assert set(router.prompts) == {"p=0.9 Name a cat."}

    async def test_the_models_own_system_prompt_and_templates_hold(self, router: ScriptedRouter) -> None:
        weak = FakeLLM("weak", system_prompt="Be brief.")
        llm = RouteLLM(strong=FakeLLM("strong"), weak=weak, router=router, threshold=0.5)
        await self.all_ways(llm, self.QA, context_str="text", query_str=EASY)
        assert all(seen.messages[0].content == "Be brief." for seen in weak.seen)

    async def test_a_completion_model_is_asked_to_complete(self, router: ScriptedRouter) -> None:
        weak = FakeLLM("weak", is_chat=False)
        llm = RouteLLM(strong=FakeLLM("strong"), weak=weak, router=router, threshold=0.5)
        await self.all_ways(llm, self.QA, context_str="text", query_str=EASY)
        assert {seen.method for seen in weak.seen} == {"complete", "acomplete", "stream_complete", "astream_complete"}

    async def test_per_call_options_are_no_variables_of_the_prompt(self, llm: RouteLLM, strong: FakeLLM) -> None:
        kwargs = {"context_str": "text", "query_str": EASY, "routellm_force": "strong"}
        assert len(await self.all_ways(llm, self.QA, **kwargs)) == 4
        assert len(strong.seen) == 4

    @pytest.mark.parametrize("kind", ["text", "chat", "selector", "rich", "condition"])
    @pytest.mark.parametrize("failover", [False, True])
    async def test_a_prompt_that_finds_its_examples_pays_for_them_once(
        self, kind: str, failover: bool, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        asked: list[dict[str, Any]] = []

        def examples(**kwargs: Any) -> str:
            asked.append(kwargs)
            return f"examples for {kwargs['query_str']} ({len(asked)})"

        text, mappings = "{examples} then {query_str}", {"examples": examples}
        plain: Any = PromptTemplate(text, function_mappings=mappings)
        prompt = {
            "text": plain,
            "chat": ChatPromptTemplate.from_messages([("user", text)], function_mappings=mappings),
            "selector": SelectorPromptTemplate(plain),
            "condition": SelectorPromptTemplate(PromptTemplate("none"), conditionals=[(lambda llm: True, plain)]),
            "rich": RichPromptTemplate("{{ examples }} then {{ query_str }}", function_mappings=mappings),
        }[kind]
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=failover)
        if failover:
            weak.reply_next(*[SurvivableError("down")] * 4)
        answers = await self.all_ways(llm, prompt, query_str=EASY)
        side = "strong" if failover else "weak"
        assert answers == [f"{side}: examples for {EASY} ({i}) then {EASY}" for i in (1, 2, 3, 4)]
        assert asked == [{"query_str": EASY}] * 4
        assert plain.format(query_str=EASY) == f"examples for {EASY} (5) then {EASY}"  # the user's own is as it was

    async def test_failover(self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        weak.reply_next(*[SurvivableError("down")] * 4)
        answers = await self.all_ways(llm, self.QA, context_str="text", query_str=EASY)
        assert all(answer.startswith("strong: ") for answer in answers)
        assert [d["failover"] for d in events.decisions] == ["weak"] * 4


class Album(BaseModel):
    """A record."""

    title: str
    year: int


class TestStructuredOutput:
    PROMPT = PromptTemplate("Extract an album. {query_str}")
    CALL = Reply(tools=[("Album", {"title": "Blue", "year": 1971})])

    async def all_ways(self, llm: RouteLLM, **kwargs: Any) -> list[Any]:
        astream = await llm.astream_structured_predict(Album, self.PROMPT, **kwargs)
        return [
            llm.structured_predict(Album, self.PROMPT, **kwargs),
            await llm.astructured_predict(Album, self.PROMPT, **kwargs),
            list(llm.stream_structured_predict(Album, self.PROMPT, **kwargs))[-1],
            (await collect(astream))[-1],
        ]

    async def test_by_the_chosen_models_tools(
        self, llm: RouteLLM, weak: FakeLLM, strong: FakeLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        weak.reply_next(*[self.CALL] * 4)
        assert await self.all_ways(llm, query_str=EASY) == [Album(title="Blue", year=1971)] * 4
        assert strong.seen == []
        assert all("tools_for_weak" in seen.kwargs for seen in weak.seen)
        assert set(router.prompts) == {EASY}
        assert len(events.decisions) == 4
        assert events.count("LLMStructuredPredictStartEvent") == 4

    async def test_options_in_llm_kwargs(self, llm: RouteLLM, strong: FakeLLM) -> None:
        strong.reply_next(*[self.CALL] * 4)
        given = {"routellm_force": "strong", "seed": 1}
        await self.all_ways(llm, query_str=EASY, llm_kwargs=given)
        assert given == {"routellm_force": "strong", "seed": 1}
        assert [seen.kwargs["seed"] for seen in strong.seen] == [1] * 4

    @pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # LlamaIndex's StructuredLLM calls it
    async def test_as_structured_llm(self, llm: RouteLLM, weak: FakeLLM, events: Recorder) -> None:
        structured = llm.as_structured_llm(Album)
        weak.reply_next(*[self.CALL] * 5)
        assert structured.chat([user(EASY)]).raw == Album(title="Blue", year=1971)
        assert (await structured.achat([user(EASY)])).raw == Album(title="Blue", year=1971)
        assert list(structured.stream_chat([user(EASY)]))[-1].raw == Album(title="Blue", year=1971)
        assert (await collect(await structured.astream_chat([user(EASY)])))[-1].raw.title == "Blue"
        assert structured.complete(EASY).raw == Album(title="Blue", year=1971)
        assert [d["model"] for d in events.decisions] == ["weak"] * 5

    async def test_a_model_without_tools_answers_in_text(self, router: ScriptedRouter) -> None:
        # not streamed: llama-index-core 0.14.16 cannot stream objects of such a model
        weak = FakeLLM("weak", *['{"title": "Blue", "year": 1971}'] * 2, has_tools=False)
        llm = RouteLLM(strong=FakeLLM("strong", self.CALL), weak=weak, router=router, threshold=0.5)
        assert llm.structured_predict(Album, self.PROMPT, query_str=EASY) == Album(title="Blue", year=1971)
        assert await llm.astructured_predict(Album, self.PROMPT, query_str=EASY) == Album(title="Blue", year=1971)
        assert llm.structured_predict(Album, self.PROMPT, query_str=HARD) == Album(title="Blue", year=1971)

    def test_a_chat_prompt(self, llm: RouteLLM, strong: FakeLLM, router: ScriptedRouter) -> None:
        strong.reply_next(self.CALL)
        prompt = ChatPromptTemplate.from_messages([ChatMessage(role="system", content="p=0 x"), user(HARD)])
        assert llm.structured_predict(Album, prompt).year == 1971  # type: ignore[arg-type]
        assert router.prompts == [HARD]


class TestTools:
    @staticmethod
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    @staticmethod
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    @pytest.fixture
    def tools(self) -> list[Any]:
        from llama_index.core.tools import FunctionTool

        return [FunctionTool.from_defaults(self.add), FunctionTool.from_defaults(self.shout)]

    async def all_ways(self, llm: RouteLLM, tools: list[Any], text: str, **kwargs: Any) -> list[ChatResponse]:
        astream = await llm.astream_chat_with_tools(tools, chat_history=[user(text)], **kwargs)
        return [
            llm.chat_with_tools(tools, user_msg=text, **kwargs),
            await llm.achat_with_tools(tools, user(text), [user("p=1 before"), assistant("yes")], **kwargs),
            list(llm.stream_chat_with_tools(tools, chat_history=[user(text)], **kwargs))[-1],
            (await collect(astream))[-1],
        ]

    @pytest.mark.parametrize(("text", "side"), [(EASY, "weak"), (HARD, "strong")])
    async def test_tools_in_the_chosen_models_form_parsed_by_it(
        self, text: str, side: str, llm: RouteLLM, strong: FakeLLM, weak: FakeLLM, tools: list[Any], events: Recorder
    ) -> None:
        chosen = strong if side == "strong" else weak
        chosen.reply_next(*[Reply(tools=[("add", {"a": 1, "b": 2}), ("shout", {"text": "hi"})])] * 4)
        responses = await self.all_ways(llm, tools, text, allow_parallel_tool_calls=True, tool_choice="auto")
        for response in responses:
            assert response.additional_kwargs["routellm"]["model"] == side
            calls = llm.get_tool_calls_from_response(response)
            assert [(c.tool_name, c.tool_kwargs) for c in calls] == [
                ("add", {"a": 1, "b": 2}),
                ("shout", {"text": "hi"}),
            ]
        for seen in chosen.seen:
            assert seen.kwargs[f"tools_for_{side}"] == ["add", "shout"]
            assert seen.kwargs["parallel"] is True
            assert seen.kwargs["tool_choice"] == "auto"
        assert [d["model"] for d in events.decisions] == [side] * 4

    async def test_after_a_failover_the_model_that_answered_parses(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, tools: list[Any]
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        weak.reply_next(*[SurvivableError("down")] * 4)
        strong.reply_next(*[Reply(tools=[("add", {"a": 1, "b": 2})])] * 4)
        for response in await self.all_ways(llm, tools, EASY):
            assert llm.get_tool_calls_from_response(response)[0].tool_id.startswith("strong-")

    @pytest.mark.parametrize("gave", ["strong", "weak"])
    @pytest.mark.parametrize("error_on_no_tool_call", [True, False])
    def test_an_answer_without_its_decision_is_parsed_by_who_can(
        self, gave: str, error_on_no_tool_call: bool, router: ScriptedRouter
    ) -> None:
        class Other(FakeLLM):
            def get_tool_calls_from_response(self, response: Any, error_on_no_tool_call: bool = True, **_: Any) -> Any:
                if error_on_no_tool_call:
                    raise ValueError("none")
                return []

        models = {side: (FakeLLM if side == gave else Other)(side) for side in ("strong", "weak")}  # type: ignore[arg-type, call-arg]
        llm = RouteLLM(**models, router=router, threshold=0.5)  # type: ignore[arg-type]
        models[gave].reply_next(Reply(tools=[("add", {"a": 1, "b": 2})]))
        bare = ChatResponse(message=models[gave].chat([user("x")]).message)
        calls = llm.get_tool_calls_from_response(bare, error_on_no_tool_call=error_on_no_tool_call)
        assert [c.tool_id for c in calls] == [f"{gave}-0"]
        without = ChatResponse(message=assistant(""))
        assert llm.get_tool_calls_from_response(without, error_on_no_tool_call=False) == []
        with pytest.raises(ValueError, match=r"none|no tool call"):
            llm.get_tool_calls_from_response(without)

    def test_predict_and_call(self, llm: RouteLLM, weak: FakeLLM, tools: list[Any]) -> None:
        weak.reply_next(Reply(tools=[("add", {"a": 1, "b": 2})]))
        assert llm.predict_and_call(tools, user_msg=EASY).response == "3"

    async def test_apredict_and_call_in_parallel(self, llm: RouteLLM, strong: FakeLLM, tools: list[Any]) -> None:
        strong.reply_next(Reply(tools=[("add", {"a": 1, "b": 2}), ("shout", {"text": "hi"})]))
        answer = await llm.apredict_and_call(tools, user_msg=HARD, allow_parallel_tool_calls=True)
        assert answer.response == "3\n\nHI"

    def test_a_weak_model_without_tools_leaves_them_to_the_strong(
        self, strong: FakeLLM, router: ScriptedRouter, tools: list[Any]
    ) -> None:
        llm = RouteLLM(strong=strong, weak=FakeLLM("weak", has_tools=False), router=router, threshold=0.5)
        decision = llm.chat_with_tools(tools, user_msg=EASY).additional_kwargs["routellm"]
        assert (decision["model"], decision["reason"], decision["detail"]) == ("strong", "capability", "tool_calling")
        assert router.prompts == []

    def test_a_provider_s_own_form_only_where_both_share_it(
        self, llm: RouteLLM, router: ScriptedRouter, tools: list[Any]
    ) -> None:
        assert llm._prepare_chat_with_tools(tools, user_msg="x")["tools_for_strong"] == ["add", "shout"]

        class Derived(FakeLLM):
            def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
                return super()._prepare_chat_with_tools(*args, **kwargs)

        class Other(FakeLLM):
            def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
                return {}

        for strong in (FakeLLM("strong"), Derived("strong")):  # type: ignore[arg-type, call-arg]
            related = RouteLLM(strong=strong, weak=Derived("weak"), router=router, threshold=0.5)  # type: ignore[arg-type, call-arg]
            assert related._prepare_chat_with_tools(tools, user_msg="x")["tools_for_strong"] == ["add", "shout"]
        mixed = RouteLLM(strong=Other("strong"), weak=Derived("weak"), router=router, threshold=0.5)  # type: ignore[arg-type, call-arg]
        with pytest.raises(NotImplementedError, match=r"Other and Derived take tools in different forms.*: use chat_w"):
            mixed._prepare_chat_with_tools(tools)


class TestCapability:
    @pytest.mark.parametrize(
        ("block", "detail"),
        [
            (ImageBlock(image=b"\x89PNG"), "image_inputs"),
            (AudioBlock(audio=b"RIFF"), "audio_inputs"),
            (DocumentBlock(data=b"%PDF"), "pdf_inputs"),
            (CitableBlock(title="t", source="s", content=[ImageBlock(image=b"\x89PNG")]), "image_inputs"),
        ],
        ids=["image", "audio", "document", "image to cite from"],
    )
    def test_media_go_to_the_strong_model_unless_the_weak_one_is_known_to_read_them(
        self, block: Any, detail: str, llm: RouteLLM, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        messages = [ChatMessage(role="user", blocks=[block, TextBlock(text=EASY)]), assistant("ok"), user(EASY)]
        decision = llm.chat(messages).additional_kwargs["routellm"]
        assert (decision["model"], decision["reason"], decision["detail"]) == ("strong", "capability", detail)
        assert router.prompts == []
        able = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, weak_profile={detail: True})
        assert able.chat(messages).additional_kwargs["routellm"]["model"] == "weak"

    def test_a_message_of_an_image_alone(self, llm: RouteLLM) -> None:
        decision = llm.chat([ChatMessage(role="user", blocks=[ImageBlock(image=b"\x89PNG")])])
        assert decision.additional_kwargs["routellm"]["reason"] == "capability"

    def test_a_prompt_beyond_the_weak_window(self, strong: FakeLLM, router: ScriptedRouter) -> None:
        weak = FakeLLM("weak", window=1000, num_output=200)
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5)
        fits, spills = "p=0.1 " + "word " * 780, "p=0.1 " + "word " * 820
        assert llm.complete(fits).additional_kwargs["routellm"]["model"] == "weak"
        decision = llm.complete(spills).additional_kwargs["routellm"]
        assert (decision["reason"], decision["detail"]) == ("capability", "max_input_tokens")

    @pytest.mark.parametrize("stated", [{"window": -1}, {"window": 0}, {"window": 100, "num_output": 100}], ids=str)
    def test_a_model_that_states_no_room_takes_any_prompt(
        self, stated: dict[str, int], strong: FakeLLM, router: ScriptedRouter
    ) -> None:
        llm = RouteLLM(strong=strong, weak=FakeLLM("weak", **stated), router=router, threshold=0.5)  # type: ignore[arg-type]
        assert llm.complete("p=0.1 " + "word " * 3000).additional_kwargs["routellm"]["model"] == "weak"

    @pytest.mark.parametrize("num_output", [-1, 0])
    def test_an_answer_of_unknown_length_takes_nothing_of_the_window(
        self, num_output: int, strong: FakeLLM, router: ScriptedRouter
    ) -> None:
        llm = RouteLLM(
            strong=strong, weak=FakeLLM("weak", window=1000, num_output=num_output), router=router, threshold=0.5
        )
        assert llm.complete("p=0.1 " + "word " * 980).additional_kwargs["routellm"]["model"] == "weak"
        assert llm.complete("p=0.1 " + "word " * 1000).additional_kwargs["routellm"]["detail"] == "max_input_tokens"

    def test_structured_output_that_the_weak_model_is_known_to_lack(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        profile = {"structured_output": False}
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, weak_profile=profile)
        strong.reply_next(Reply(tools=[("Album", {"title": "Blue", "year": 1971})]))
        llm.structured_predict(Album, PromptTemplate("{query_str}"), query_str=EASY)
        llm.chat([user(EASY)], response_format={"type": "json_object"})
        llm.chat([user(EASY)])
        assert [(d["model"], d["detail"]) for d in events.decisions] == [
            ("strong", "structured_output"),
            ("strong", "structured_output"),
            ("weak", None),
        ]

    def test_a_forced_side_is_the_callers_word(self, llm: RouteLLM) -> None:
        message = ChatMessage(role="user", blocks=[ImageBlock(image=b"\x89PNG")])
        assert llm.chat([message], routellm_force="weak").additional_kwargs["routellm"]["model"] == "weak"

    def test_no_failover_to_a_model_that_cannot(self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, failover=True)
        strong.reply_next(SurvivableError("down"))
        with pytest.raises(SurvivableError):
            llm.chat([ChatMessage(role="user", blocks=[ImageBlock(image=b"\x89PNG")])])
        assert weak.seen == []


class TestConversations:
    def test_once_strong_stays_strong_for_its_thread(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, sticky=True)

        def side(text: str, **kwargs: Any) -> tuple[str, str]:
            decision = llm.chat([user(text)], **kwargs).additional_kwargs["routellm"]
            return decision["model"], decision["reason"]

        assert side(EASY, routellm_thread_id="a") == ("weak", "win_rate")
        assert side(HARD, routellm_thread_id="a") == ("strong", "win_rate")
        assert side(EASY, routellm_thread_id="a") == ("strong", "sticky")
        assert side(EASY, routellm_thread_id="b") == ("weak", "win_rate")
        assert side(EASY) == ("weak", "win_rate")
        assert side(EASY, routellm_thread_id="a", routellm_force="weak") == ("weak", "forced")
        assert side(EASY, routellm_thread_id="a") == ("weak", "win_rate")

    def test_instrument_tags_name_the_thread_and_come_back_down(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        sticky = Stickiness("session", release_after=2)
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, sticky=sticky)
        with instrument_tags({"session": 7}):
            models = [llm.complete(t).additional_kwargs["routellm"]["model"] for t in (HARD, EASY, EASY, EASY)]
        assert models == ["strong", "strong", "weak", "weak"]

    def test_an_image_keeps_a_conversation_strong_only_while_it_is_sent(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, sticky=True)
        picture = ChatMessage(role="user", blocks=[ImageBlock(image=b"\x89PNG"), TextBlock(text=EASY)])
        talk: list[ChatMessage] = []
        sides = []
        for said in (picture, user("p=0.1 And this?"), user("p=0.1 Thanks."), user("p=0.1 Bye.")):
            talk = [*talk, said][-3:]  # a memory of three
            decision = routing_decision(llm.chat(talk, routellm_thread_id="ann"))
            assert decision is not None
            sides.append((decision.model, decision.reason))
        assert sides == [("strong", "capability")] * 3 + [("weak", "win_rate")]

    def test_instrument_tags_set_options_where_no_arguments_pass(self, llm: RouteLLM) -> None:
        with instrument_tags({"routellm_force": "strong", "user": "ann"}):
            assert llm.complete(EASY).additional_kwargs["routellm"]["reason"] == "forced"
            assert llm.complete(EASY, routellm_force="weak").additional_kwargs["routellm"]["model"] == "weak"
        with instrument_tags({"routellm_threshold": 0.05}):
            assert llm.complete(EASY).additional_kwargs["routellm"]["model"] == "strong"
        assert llm.complete(EASY).additional_kwargs["routellm"]["model"] == "weak"

    def test_tags_of_the_caller_stay_on_the_models_events(self, llm: RouteLLM, events: Recorder) -> None:
        with instrument_tags({"user": "ann"}):
            llm.complete(EASY)
        assert all(e.tags["user"] == "ann" for e in events.of("LLMCompletionStartEvent", "RouteLLMDecisionEvent"))


class TestAsAnLLM:
    def test_is_a_function_calling_llm(self, llm: RouteLLM) -> None:
        assert isinstance(llm, FunctionCallingLLM)
        assert BaseLLM in type(llm).__mro__
        assert llm.class_name() == "RouteLLM"

    def test_metadata_is_what_holds_for_both(self, router: ScriptedRouter) -> None:
        strong = FakeLLM("big", window=128_000, num_output=4096)
        weak = FakeLLM("small", window=8192, num_output=8000, has_tools=False)
        metadata = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5).metadata
        assert (metadata.context_window, metadata.num_output) == (8192, 8000)
        assert metadata.is_chat_model
        assert metadata.is_function_calling_model  # such a call goes to the strong model
        assert metadata.model_name == "RouteLLM(strong=big, weak=small)"
        assert not RouteLLM(strong=weak, weak=strong, router=router, threshold=0.5).metadata.is_function_calling_model
        both = RouteLLM(strong=strong, weak=FakeLLM("x", is_chat=False), router=router, threshold=0.5).metadata
        assert not both.is_chat_model
        assert both.is_function_calling_model

    def test_settings_llm(self, llm: RouteLLM, weak: FakeLLM, counter: TokenCountingHandler) -> None:
        Settings.llm = llm
        assert Settings.llm is llm
        Settings.callback_manager = CallbackManager([counter])
        Settings.llm.complete(EASY)
        assert counter.total_llm_token_count == 15
        assert weak.callback_manager is not llm.callback_manager
        assert weak.callback_manager.handlers == []

    def test_a_models_own_handlers_are_left_alone(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, counter: TokenCountingHandler
    ) -> None:
        own = CallbackManager([LlamaDebugHandler(print_trace_on_end=False)])
        weak.callback_manager = own
        llm = RouteLLM(
            strong=strong, weak=weak, router=router, threshold=0.5, callback_manager=CallbackManager([counter])
        )
        llm.complete(EASY)
        llm.complete(HARD)
        assert weak.callback_manager is own
        assert len(own.handlers[0].get_event_pairs(CBEventType.LLM)) == 1  # type: ignore[attr-defined]
        assert len(counter.llm_token_counts) == 1

    def test_handlers_of_settings_are_no_models_own_when_settings_change_before_the_first_call(
        self, router: ScriptedRouter, counter: TokenCountingHandler
    ) -> None:
        at_start = TokenCountingHandler(tokenizer=str.split)
        Settings.callback_manager = CallbackManager([at_start])
        strong, weak = FakeLLM("big"), FakeLLM("small")
        for model in (strong, weak):  # as provider classes do that are given none
            model.callback_manager = CallbackManager([])
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5)
        Settings.callback_manager = CallbackManager([counter])  # those of one request
        llm.callback_manager = Settings.callback_manager  # as a query engine does
        for prompt in (EASY, HARD):
            llm.complete(prompt)
        assert len(counter.llm_token_counts) == 2
        assert at_start.llm_token_counts == []

    def test_the_models_follow_when_the_manager_is_replaced(
        self, llm: RouteLLM, weak: FakeLLM, counter: TokenCountingHandler
    ) -> None:
        llm.callback_manager = CallbackManager([counter])
        llm.complete(EASY)
        second = TokenCountingHandler(tokenizer=str.split)
        llm.callback_manager = CallbackManager([second])
        llm.complete(EASY)
        assert len(counter.llm_token_counts) == len(second.llm_token_counts) == 1

    def test_nothing_is_set_on_a_model(
        self, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter, counter: TokenCountingHandler
    ) -> None:
        shared, before = CallbackManager([counter]), strong.callback_manager
        weak.callback_manager = shared
        llm = RouteLLM(strong=strong, weak=weak, router=router, threshold=0.5, callback_manager=shared)
        llm.complete(EASY)
        llm.complete(HARD)
        assert len(counter.llm_token_counts) == 2
        llm.callback_manager = CallbackManager([])  # as a query engine without one does
        llm.complete(EASY)
        llm.complete(HARD)
        assert weak.callback_manager is shared
        assert strong.callback_manager is before
        assert before.handlers == []
        assert len(counter.llm_token_counts) == 3

    def test_the_dict_holds_no_secret_at_any_depth(self, router: ScriptedRouter) -> None:
        class Remote(FakeLLM):
            api_base: str = "http://joe:sesame@host/v1"
            default_headers: dict[str, str] = Field({"Authorization": "Bearer sesame"})
            extra: dict[str, Any] = Field({"nested": [{"api_token": "sesame"}], "max_tokens": 7})

        llm = RouteLLM(
            strong=Remote("big", api_key="sesame"),  # type: ignore[arg-type, call-arg]
            weak=Remote("small", api_key="sesame"),  # type: ignore[arg-type, call-arg]
            router=router,
            threshold=0.5,
        )
        nested = RouteLLM(strong=llm, weak=llm.weak, router=router, threshold=0.9)
        for form in (
            llm.to_dict(),
            llm.model_dump(),
            llm.dict(),
            llm.json(),
            repr(llm),
            str(llm),
            nested.to_json(),
            llm.as_structured_llm(Album).to_dict(),
            repr(llm.to_payload()) if hasattr(llm, "to_payload") else "",
        ):
            assert "sesame" not in str(form)
        data = llm.to_dict()
        assert data["class_name"] == "RouteLLM"
        assert (data["router"], data["threshold"], data["lookback"], data["failover"]) == ("scripted", 0.5, 1, False)
        assert data["strong"]["name"] == "big"
        assert data["weak"]["api_base"] == "http://host/v1"
        assert data["weak"]["extra"]["max_tokens"] == 7
        assert json.loads(llm.to_json()) == json.loads(json.dumps(data))

    def test_the_key_is_in_no_event(self, router: ScriptedRouter, events: Recorder) -> None:
        llm = RouteLLM(strong=FakeLLM("s"), weak=FakeLLM("w", api_key="sesame"), router=router, threshold=0.5)
        llm.complete(EASY)
        assert "sesame" not in repr(events.of("RouteLLMDecisionEvent"))

    def test_copies_route_alike(self) -> None:
        from llama_index.core.llms import MockLLM

        llm = RouteLLM(strong=MockLLM(), weak=MockLLM(), policy=RoutingPolicy(ScriptedRouter(), threshold=0.5))
        for other in (copy.copy(llm), copy.deepcopy(llm), llm.model_copy()):
            assert other.complete(HARD).additional_kwargs["routellm"]["model"] == "strong"

    def test_pickles(self, caplog: pytest.LogCaptureFixture) -> None:
        from llama_index.core.llms import MockLLM

        llm = RouteLLM(strong=MockLLM(), weak=MockLLM(max_tokens=1), router="random", strong_fraction=0.5)
        other = pickle.loads(pickle.dumps(llm))
        prompts = [f"prompt {i}" for i in range(20)]
        expected = [routing_decision(llm.complete(p)) for p in prompts]
        assert None not in expected
        assert [routing_decision(other.complete(p)) for p in prompts] == expected
        assert caplog.records == []

    def test_pickles_with_the_memory_of_conversations(self, caplog: pytest.LogCaptureFixture) -> None:
        from llama_index.core.llms import MockLLM

        llm = RouteLLM(
            strong=MockLLM(), weak=MockLLM(), router="random", strong_fraction=0.5, sticky=True, failover=True
        )
        llm.complete("x", routellm_force="strong", routellm_thread_id="ann")
        other = pickle.loads(pickle.dumps(llm))
        assert other.to_dict()["failover"] is True
        # what was held stays in the process that held it
        fresh = routing_decision(llm.complete("easy?", routellm_thread_id="bob"))
        assert fresh is not None
        assert routing_decision(other.complete("easy?", routellm_thread_id="ann")) == fresh
        assert caplog.records == []

    def test_program_mode_and_system_prompt_that_both_share_are_the_wrappers_too(self, router: ScriptedRouter) -> None:
        models = [FakeLLM(n, system_prompt="S", pydantic_program_mode=PydanticProgramMode.LLM) for n in "ab"]
        llm = RouteLLM(strong=models[0], weak=models[1], router=router, threshold=0.5)
        assert (llm.system_prompt, llm.pydantic_program_mode) == ("S", PydanticProgramMode.LLM)
        models[1].system_prompt = "T"
        assert RouteLLM(strong=models[0], weak=models[1], router=router, threshold=0.5).system_prompt is None

    def test_three_tiers(self, llm: RouteLLM, weak: FakeLLM, events: Recorder) -> None:
        outer = RouteLLM(strong=llm, weak=FakeLLM("tiny"), router=ScriptedRouter(), threshold=0.05)
        answer = outer.chat([user(EASY)])
        assert answer.message.content == f"weak: {EASY}"
        assert answer.additional_kwargs["routellm"]["threshold"] == 0.05
        assert [(d["threshold"], d["inner"]["threshold"]) for d in events.decisions] == [(0.05, 0.5)]


class TestBadInput:
    @ways
    async def test_names_that_are_not_known(self, way: Way, llm: RouteLLM) -> None:
        with pytest.raises(ConfigurationError, match="routellm_treshold"):
            await way(llm, EASY, routellm_treshold=0.3)
        with pytest.raises(ConfigurationError, match=r"routellm_threshold=1\.5"):
            await way(llm, EASY, routellm_threshold=1.5)
        with pytest.raises(ConfigurationError, match="routellm_force='big'"):
            await way(llm, EASY, routellm_force="big")

    async def test_no_messages(self, llm: RouteLLM, strong: FakeLLM, weak: FakeLLM) -> None:
        with pytest.raises(PromptError, match="messages is empty"):
            llm.chat([])
        with pytest.raises(PromptError, match="messages is empty"):
            await llm.achat([])
        with pytest.raises(PromptError, match="messages is empty"):
            llm.chat_with_tools([])
        # by type alone: an error is no place for what a prompt says
        with pytest.raises(PromptError, match=r"^messages is str: expected a sequence of ChatMessage$"):
            llm.chat("hello")  # type: ignore[arg-type]
        with pytest.raises(PromptError, match="messages is list_iterator: expected a sequence"):
            llm.chat(iter([user(EASY)]))  # type: ignore[arg-type]
        with pytest.raises(PromptError, match=r"^messages is a list of dict, str: expected a sequence of ChatMessage$"):
            llm.chat([user(EASY), "hello", {"role": "user", "content": "hello"}])  # type: ignore[list-item]
        with pytest.raises(PromptError, match="NoneType"):
            llm.complete(None)  # type: ignore[arg-type]
        assert strong.seen == weak.seen == []

    @pytest.mark.parametrize(
        "text", ["", " ", "\x00", "\u202eabc\u200b", "\ud800 lone", "a" * 1_000_000, "多言語"], ids=range(7)
    )
    def test_any_text_gets_a_decision(self, text: str, router: ScriptedRouter) -> None:
        strong = FakeLLM("s", window=10_000_000)
        weak = FakeLLM("w", window=10_000_000)
        llm = RouteLLM(strong=strong, weak=weak, router="random", strong_fraction=0.5)
        reason = "win_rate" if text.strip() else "no_text"
        assert llm.chat([user(text)]).additional_kwargs["routellm"]["reason"] == reason
        assert llm.complete(text).additional_kwargs["routellm"]["reason"] == reason

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"budget": 5}, "budget=: RouteLLM has no such option"),
            ({"fail_over": True}, "did you mean failover=?"),
            ({"system_prompt": "Be brief."}, "system_prompt=: belongs to the models; set it on strong and weak"),
            ({"deadline": 0}, "deadline=0"),
            ({"on_error": "ask"}, "on_error='ask'"),
            ({"cache_size": -1}, "cache_size=-1"),
            ({"online": 1}, "online=1"),
            ({"strong": "gpt-4o"}, "strong='gpt-4o': expected a LlamaIndex LLM"),
            ({"weak": None}, "weak=None: expected a LlamaIndex LLM"),
            ({"failover": "yes"}, "failover='yes'"),
            ({"lookback": 0}, "lookback=0"),
            ({"lookback": True}, "lookback=True"),
            ({"route_on": "question"}, "route_on='question'"),
            ({"sticky": 3}, "sticky=3"),
            ({"weak_profile": ["image_inputs"]}, "weak_profile="),
            ({"weak_profile": {"images": True}}, "with True or False for image_inputs"),
            ({"threshold": None}, "neither threshold nor strong_fraction"),
            ({"strong_fraction": 0.3}, "both given"),
            ({"threshold": float("nan")}, "threshold=nan"),
            ({"policy": RoutingPolicy("random", threshold=0.5)}, "policy= and router=, threshold= are both given"),
            ({"router": "gpt"}, "gpt"),
            ({"calibration": Calibration.from_win_rates([0.1, 0.2], fingerprint="another")}, "two routers"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_what_is_configured_wrongly_fails_at_construction(
        self, change: dict[str, Any], message: str, strong: FakeLLM, weak: FakeLLM, router: ScriptedRouter
    ) -> None:
        options = {"strong": strong, "weak": weak, "router": router, "threshold": 0.5, **change}
        with pytest.raises(ConfigurationError) as caught:
            RouteLLM(**{k: v for k, v in options.items() if v is not None or k in ("strong", "weak")})
        assert message in str(caught.value)

    def test_a_model_without_tools_says_so(self, router: ScriptedRouter) -> None:
        from llama_index.core.llms import MockLLM

        llm = RouteLLM(strong=MockLLM(), weak=MockLLM(), router=router, threshold=0.5)
        with pytest.raises(ValueError, match=r"MockLLM \(.*\) does not support calling tools"):
            llm.chat_with_tools([], user_msg=EASY)
