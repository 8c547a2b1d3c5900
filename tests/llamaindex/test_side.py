"""A side of a RouteLLM: a handle under another callback manager is the model itself, and metadata may fail."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.utils import get_tokenizer
from pydantic import PrivateAttr

from llamaindex_routellm import RouteLLM, routing_decision
from llamaindex_routellm.side import SideMetadata, count_tokens, joint_metadata, profile, under_manager
from tests.llamaindex.conftest import Recorder, SpanRecorder
from tests.support.fakes_llamaindex import FakeLLM
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 What is two plus two?", "p=0.9 Prove it."


class Stateful(FakeLLM):
    """Keeps state in a field, in a private attribute and beside both, as clients do that are made when first used."""

    calls: int = 0
    _client: object | None = PrivateAttr(default=None)

    def _chat(self, *args: Any) -> Any:
        self.calls += 1
        self._client = self._client or object()
        self.__dict__.setdefault("cached", object())
        return super()._chat(*args)


@pytest.fixture
def manager(counter: TokenCountingHandler) -> CallbackManager:
    return CallbackManager([counter])


class TestHandles:
    def test_what_a_model_keeps_of_a_call_stays_with_it(
        self, manager: CallbackManager, counter: TokenCountingHandler
    ) -> None:
        model = Stateful("m")  # type: ignore[arg-type, call-arg]
        under_manager(model, manager).chat([ChatMessage(content="x")])
        client, cached = model._client, model.__dict__["cached"]
        under_manager(model, CallbackManager([counter])).chat([ChatMessage(content="y")])
        assert model.calls == len(model.seen) == len(counter.llm_token_counts) == 2
        assert model._client is client is not None
        assert model.__dict__["cached"] is cached
        model.calls = 7
        assert under_manager(model, manager).calls == 7  # type: ignore[attr-defined]

    def test_is_of_the_models_class_by_every_name(self, manager: CallbackManager, spans: SpanRecorder) -> None:
        model = Stateful("m")  # type: ignore[arg-type, call-arg]
        handle = under_manager(model, manager)
        assert handle is not model
        assert isinstance(handle, Stateful)
        assert isinstance(handle, LLM)
        assert type(handle).__name__ == type(handle).__qualname__ == "Stateful"
        assert type(handle).__module__ == __name__
        assert type(under_manager(Stateful("n"), manager)) is type(handle)  # type: ignore[arg-type, call-arg]
        assert handle.to_dict() == model.to_dict()
        assert handle.model_dump() == model.model_dump()
        assert handle.metadata == model.metadata
        assert handle.as_structured_llm(LLMMetadata).llm is handle
        handle.chat([ChatMessage(content="x")])
        assert spans.names == ["Stateful.chat"]

    def test_the_manager_is_the_handles_alone(self, manager: CallbackManager) -> None:
        model = FakeLLM("m")
        before = model.callback_manager
        handle, other = under_manager(model, manager), CallbackManager([])
        handle.callback_manager = other
        assert (handle.callback_manager, model.callback_manager) == (other, before)
        model.callback_manager = manager
        assert (handle.callback_manager, model.callback_manager) == (other, manager)
        assert under_manager(model, manager) is model
        assert under_manager(model, before).callback_manager is before

    def test_without_any_handler_there_is_nothing_to_part(self) -> None:
        model = FakeLLM("m")
        assert under_manager(model, CallbackManager([])) is model

    def test_what_is_made_of_a_handle_is_made_of_the_model(self, manager: CallbackManager) -> None:
        model = MockLLM(max_tokens=3)
        handle = under_manager(model, manager)
        made = [copy.copy(handle), copy.deepcopy(handle), handle.model_copy(), pickle.loads(pickle.dumps(handle))]
        assert {type(other) for other in made} == {MockLLM}
        assert {other.max_tokens for other in made} == {3}

    def test_a_handle_that_is_collected_does_not_close_its_model(self, manager: CallbackManager) -> None:
        closed = []

        class Closing(FakeLLM):
            def __del__(self) -> None:
                closed.append(self.name)

        model = Closing("m")  # type: ignore[arg-type, call-arg]
        under_manager(model, manager).chat([ChatMessage(content="x")])
        gc.collect()
        assert closed == []
        del model
        gc.collect()
        assert closed == ["m"]

    def test_a_routed_model_is_seen_under_its_own_name(
        self, manager: CallbackManager, spans: SpanRecorder, events: Recorder, router: ScriptedRouter
    ) -> None:
        llm = RouteLLM(strong=FakeLLM("s"), weak=Stateful("w"), router=router, threshold=0.5, callback_manager=manager)  # type: ignore[arg-type, call-arg]
        llm.chat([ChatMessage(content=EASY)])
        assert spans.names == ["RouteLLM.chat", "Stateful.chat"]
        assert events.count("LLMChatEndEvent") == 1


class Down(FakeLLM):
    """A model of a server that cannot be reached: it cannot even say what it is."""

    model: str = "qwen3:1b"
    down: bool = True
    _asked: int = PrivateAttr(default=0)

    @property
    def metadata(self) -> LLMMetadata:
        self._asked += 1
        if self.down:
            raise ConnectionError("no server")
        return super().metadata

    def _chat(self, *args: Any) -> Any:
        if self.down:
            raise ConnectionError("no server")
        return super()._chat(*args)


class TestMetadata:
    @pytest.mark.parametrize("side", ["strong", "weak"])
    @pytest.mark.parametrize("text", [EASY, HARD])
    async def test_a_side_that_cannot_say_what_it_is_does_not_stop_a_call(
        self, side: str, text: str, router: ScriptedRouter, events: Recorder
    ) -> None:
        models = {name: Down(name) if name == side else FakeLLM(name) for name in ("strong", "weak")}  # type: ignore[arg-type, call-arg]
        llm = RouteLLM(**models, router=router, threshold=0.5)  # type: ignore[arg-type]
        chosen = "weak" if text == EASY else "strong"
        for answer in (lambda: llm.complete(text), lambda: llm.chat([ChatMessage(content=text)])):
            if chosen == side:
                with pytest.raises(ConnectionError, match="no server"):
                    answer()
            else:
                assert routing_decision(answer()).model == chosen  # type: ignore[union-attr]
        assert [d["model"] for d in events.decisions] == [chosen] * 2

    def test_with_failover_the_other_answers(self, router: ScriptedRouter, events: Recorder) -> None:
        llm = RouteLLM(strong=FakeLLM("s"), weak=Down("w"), router=router, threshold=0.5, failover=True)  # type: ignore[arg-type, call-arg]
        decision = routing_decision(llm.complete(EASY))
        assert decision is not None
        assert (decision.model, decision.failover, decision.detail) == ("strong", "weak", "ConnectionError")

    @pytest.mark.parametrize("side", ["strong", "weak"])
    def test_metadata_is_the_other_sides(self, side: str, router: ScriptedRouter) -> None:
        models = {name: Down(name) if name == side else FakeLLM(name, window=9000) for name in ("strong", "weak")}  # type: ignore[arg-type, call-arg]
        llm = RouteLLM(**models, router=router, threshold=0.5)  # type: ignore[arg-type]
        found = llm.metadata
        assert (found.context_window, found.num_output, found.is_chat_model) == (9000, 256, True)
        assert f"{side}=qwen3:1b" in found.model_name

    def test_where_neither_can_say_the_error_is_a_models(self, router: ScriptedRouter) -> None:
        llm = RouteLLM(strong=Down("s"), weak=Down("w"), router=router, threshold=0.5)  # type: ignore[arg-type, call-arg]
        with pytest.raises(ConnectionError, match="no server"):
            _ = llm.metadata

    def test_a_failure_is_remembered_for_a_while(self, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [1000.0]
        monkeypatch.setattr("llamaindex_routellm.side.time.monotonic", lambda: now[0])
        weak = Down("w")  # type: ignore[arg-type, call-arg]
        llm = RouteLLM(strong=FakeLLM("s"), weak=weak, router=router, threshold=0.5)
        for _ in range(3):
            llm.complete(HARD)
        assert weak._asked == 1
        weak.down, now[0] = False, 1031.0
        llm.complete(HARD)
        llm.complete(HARD)
        assert weak._asked == 3  # asked each time again, as a model is that can say

    @pytest.mark.parametrize("way", ["chat", "achat"])
    async def test_a_server_that_hangs_holds_up_no_call_to_the_other(
        self, way: str, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Hangs(FakeLLM):
            _asked: int = PrivateAttr(default=0)

            @property
            def metadata(self) -> LLMMetadata:
                self._asked += 1
                released.wait()
                return super().metadata

        released, weak = threading.Event(), Hangs("w")  # type: ignore[arg-type, call-arg]
        monkeypatch.setattr("llamaindex_routellm.side._PATIENCE", 0.5)  # enough for the side that does not hang
        monkeypatch.setattr("llamaindex_routellm.side._SILENCE", 3600.0)
        llm = RouteLLM(strong=FakeLLM("s"), weak=weak, router=router, threshold=0.5)
        try:
            for _ in range(3):
                answer: Any = getattr(llm, way)([ChatMessage(content=HARD)])
                decision = routing_decision(answer if way == "chat" else await answer)
                assert decision is not None
                assert (decision.model, decision.reason) == ("strong", "win_rate")
            assert weak._asked == 1
            assert llm.metadata.model_name == "RouteLLM(strong=s, weak=Hangs)"
        finally:
            released.set()

    def test_another_process_asks_again(self) -> None:
        model = MockLLM(max_tokens=3)
        asked = SideMetadata(model)
        asked._silent_until = 1e12
        assert asked() is None
        assert pickle.loads(pickle.dumps(asked))().num_output == 3


def metadata(window: Any, num_output: Any, **more: Any) -> LLMMetadata:
    return LLMMetadata.model_construct(
        **{**LLMMetadata().model_dump(), "context_window": window, "num_output": num_output, **more}
    )


class Says(FakeLLM):
    says: Any = None

    @property
    def metadata(self) -> LLMMetadata:
        found: LLMMetadata = self.says
        return found


ROOMS = [
    ((128_000, 4096), (8192, 8000)),
    ((8192, 4096), (16_000, 256)),
    ((10_000, 9000), (8192, 256)),
    ((128_000, 16_384), (16_000, 1000)),
    ((128_000, -1), (8192, -1)),
    ((128_000, -1), (8192, 4000)),
    ((128_000, 4096), (8192, None)),
    ((128_000, 4096), (-1, -1)),
    ((None, None), (8192, 100)),
    ((0, 0), (None, -1)),
]


class TestRoom:
    @pytest.mark.parametrize(("strong", "weak"), ROOMS)
    def test_what_is_promised_is_in_both(self, strong: Any, weak: Any) -> None:
        sides = [SideMetadata(Says(says=metadata(*stated))) for stated in (strong, weak)]  # type: ignore[call-arg]
        joint = joint_metadata(*sides)
        assert joint is not None
        promised = joint.context_window - joint.num_output
        assert promised > 0
        for stated in (strong, weak):
            room = profile(metadata(*stated)).get("max_input_tokens")
            assert room is None or promised <= room
        windows = [window for window, _ in (strong, weak) if window is not None and window > 0]
        assert joint.context_window == min(windows, default=3900)

    def test_no_more_than_needed_is_held_back(self) -> None:
        sides = [SideMetadata(Says(says=metadata(*stated))) for stated in ((128_000, 16_384), (16_000, 1000))]  # type: ignore[call-arg]
        joint = joint_metadata(*sides)
        assert joint is not None
        assert (joint.context_window, joint.num_output) == (16_000, 1000)

    @pytest.mark.parametrize("text", ["", "a", "word " * 50, "слово " * 50, "\ud800 lone", "😀" * 20, "<|endoftext|>"])
    @pytest.mark.parametrize("limit", [0, 10, 10_000])
    def test_tokens_are_llama_indexs_own(self, text: str, limit: int) -> None:
        messages = [ChatMessage(content=text), ChatMessage(content="more")]
        exact = len(get_tokenizer()(text)) + 1
        counted = count_tokens(messages, limit)
        assert counted == exact or exact <= counted <= limit
        assert (counted > limit) == (exact > limit)
