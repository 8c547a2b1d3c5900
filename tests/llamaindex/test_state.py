"""State that outlives a call: caches tell two models apart, dicts come back, pickles say what they lack."""

from __future__ import annotations

import json
import logging
import pickle
import threading
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode
from llama_index.core.workflow import Context, JsonSerializer

from llamaindex_routellm import RouteLLM, routing_decision
from routellm_core import Calibration, ConfigurationError, Price, RoutingPolicy, SpendLimit, Stickiness
from routellm_core.policy import RoutingRequest
from routellm_core.policy.acceptance import WeakAnswer
from routellm_core.policy.routing import ROUTING_OPTIONS
from tests.support.fakes_llamaindex import FakeLLM
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 What is two plus two?", "p=0.9 Prove it."


def strong_always(messages: Any) -> RoutingRequest:
    """A hook at the top level of a module, as one that is pickled has to be."""
    return RoutingRequest((), force="strong")


def long_enough(answer: WeakAnswer) -> bool:
    return len(answer.text) > 3


def mock(**options: Any) -> RouteLLM:
    given = {"strong": MockLLM(), "weak": MockLLM(max_tokens=1), "router": "random", "threshold": 0.5, **options}
    return RouteLLM(**{name: value for name, value in given.items() if value is not None})


PRICES = {"strong": Price(10, 30), "weak": Price(1, 2)}
NOT_IN_A_DICT = ("limits", "route_on", "online", "accept")
# each of these may give another answer than the model without it
CHANGES: dict[str, dict[str, Any]] = {
    "threshold": {"threshold": 0.0},
    "share": {"threshold": None, "strong_fraction": 0.5},
    "router": {"router": "mf"},
    "a router of the same name": {"router": ScriptedRouter(0.1)},
    "another of the same name": {"router": ScriptedRouter(0.2)},
    "online": {"threshold": None, "strong_fraction": 0.5, "online": True},
    "on_error": {"on_error": "weak"},
    "deadline": {"deadline": 1.5},
    "explore": {"explore": 0.1},
    "explore_band": {"explore": 0.1, "explore_band": (0.2, 0.6)},
    "observe": {"observe": "weak"},
    "limits": {"limits": [SpendLimit(5, prices=PRICES)]},
    "lookback": {"lookback": 3},
    "synthetic_markers": {"synthetic_markers": ["[cron]"]},
    "a sticky function": {"sticky": strong_always},
    "allow_overrides": {"allow_overrides": False},
    "route_on": {"route_on": strong_always},
    "sticky": {"sticky": True},
    "another sticky": {"sticky": Stickiness("session", release_after=2)},
    "failover": {"failover": True},
    "cooldown": {"failover": True, "cooldown": 1.0},
    "accept": {"accept": long_enough},
    "accept_threshold": {"accept": long_enough, "accept_threshold": 0.9},
    "accept_band": {"accept": long_enough, "accept_band": (0.2, 0.6)},
    "accept_after": {"accept": long_enough, "accept_after": 80},
    "accept_deadline": {"accept": long_enough, "accept_deadline": 2.0},
    "weak_profile": {"weak_profile": {"image_inputs": True}},
    "prices": {"prices": PRICES},
    "models": {"weak": MockLLM(max_tokens=2)},
}


class TestDicts:
    def test_every_option_is_looked_at(self) -> None:
        changed = {name for options in CHANGES.values() for name in options}
        # a policy is the sum of its options, a calibration sets the threshold, and no log or cache changes an answer
        assert set(ROUTING_OPTIONS) - changed == {"policy", "calibration", "cache_size", "log", "shadow"}

    def test_whatever_may_change_an_answer_is_in_the_dict_and_in_what_holds_the_model(self) -> None:
        def forms(llm: RouteLLM) -> list[str]:
            nested = RouteLLM(strong=MockLLM(), weak=llm, router="random", threshold=0.5)
            return [llm.to_json(), SummaryExtractor(llm=llm).to_json(), nested.to_json(), llm.model_dump_json()]

        every = [forms(mock(**options)) for options in ({}, *CHANGES.values())]
        for one in zip(*every, strict=True):
            assert len(set(one)) == len(CHANGES) + 1
        # and nothing in it changes by itself
        assert [forms(mock(**options)) for options in ({}, *CHANGES.values())] == every

    async def test_an_ingestion_cache_tells_two_thresholds_apart(self) -> None:
        cache = IngestionCache()
        models = {side: FakeLLM(side, respond=lambda messages, side=side: side) for side in ("strong", "weak")}  # type: ignore[misc]

        async def summary(threshold: float) -> Any:
            llm = RouteLLM(**models, router=ScriptedRouter(), threshold=threshold)  # type: ignore[arg-type]
            pipeline = IngestionPipeline(transformations=[SummaryExtractor(llm=llm, show_progress=False)], cache=cache)
            node = TextNode(text="p=0.4 The bridge opened in 1932.", id_="1")
            return (await pipeline.arun(nodes=[node]))[0].metadata["section_summary"]

        assert [await summary(t) for t in (0.5, 0.0, 0.5, 0.0)] == ["weak", "strong", "weak", "strong"]
        assert len(models["weak"].seen) == len(models["strong"].seen) == 1

    def test_a_transformation_with_an_equal_model_is_the_same(self) -> None:
        node = [TextNode(text="x", id_="1")]
        hashes = {get_transformation_hash(node, SummaryExtractor(llm=mock(lookback=n))) for n in (1, 1, 2)}
        assert len(hashes) == 2


class Hosted(MockLLM):
    """A model with settings of a provider."""

    api_token: str = "sk-1"
    tokenizer: str = "words"
    settings: Any = Field(
        default={"X-Auth-Key": "sk-2", "credentials": {"id": "sk-3"}, "default_headers": {"x": "sk-4"}}
    )


def test_a_dict_leaves_out_what_is_secret_and_keeps_what_only_sounds_like_it() -> None:
    described = json.dumps(mock(weak=Hosted(max_tokens=9)).to_dict())
    assert "sk-" not in described
    assert '"tokenizer": "words"' in described
    assert '"max_tokens": 9' in described


class TestRestoring:
    @pytest.mark.parametrize("change", ["", *CHANGES])
    def test_what_a_dict_can_hold_comes_back(self, change: str) -> None:
        llm = mock(**CHANGES.get(change, {}))
        data = json.loads(llm.to_json())
        given: dict[str, Any] = {}
        if (lost := change.partition("_")[0] if "accept" in change else change) in NOT_IN_A_DICT:
            with pytest.raises(ConfigurationError, match=f"cannot restore {lost}=.*: pass {lost}= to it, or"):
                RouteLLM.from_dict(data)
            given = {lost: CHANGES[change][lost]}
        elif change == "a sticky function":
            with pytest.raises(ConfigurationError, match=r"cannot restore sticky=.*: pass sticky= to it, or"):
                RouteLLM.from_dict(data)
            given = CHANGES[change]
        elif "same name" in change:
            with pytest.raises(ConfigurationError, match=r"cannot restore router='scripted'.*: pass router= to it, or"):
                RouteLLM.from_dict(data)
            given = {"router": CHANGES[change]["router"]}
        other = RouteLLM.from_dict(data, **given)
        assert other.to_dict() == llm.to_dict()
        prompts = [f"prompt {i}" for i in range(20)]
        if "explore" not in change:
            assert [routing_decision(other.complete(p)) for p in prompts] == [
                routing_decision(llm.complete(p)) for p in prompts
            ]

    def test_a_threshold_of_a_calibration_that_is_not_there_comes_back_as_a_number(self) -> None:
        calibration = Calibration.from_win_rates([0.1, 0.2, 0.3, 0.4])
        llm = mock(threshold=None, strong_fraction=0.5, calibration=calibration)
        other = RouteLLM.from_dict(llm.to_dict())
        assert (other.policy.threshold, other.policy.strong_fraction) == (llm.policy.threshold, None)

    def test_a_bundled_router_of_other_weights_is_refused(self) -> None:
        data = {**mock(router="mf").to_dict(), "router_fingerprint": "0" * 32}
        with pytest.raises(ConfigurationError, match="the one of this name gives other win rates"):
            RouteLLM.from_dict(data)

    def test_a_policy_takes_the_place_of_all_of_its_options(self) -> None:
        data = mock(limits=[SpendLimit(5, prices=PRICES)], router=ScriptedRouter(), lookback=2).to_dict()
        policy = RoutingPolicy(ScriptedRouter(), threshold=0.25)
        other = RouteLLM.from_dict(data, policy=policy)
        assert other.policy is policy
        assert other.to_dict()["lookback"] == 2
        assert RouteLLM.from_dict(data, policy=policy, lookback=5).to_dict()["lookback"] == 5
        assert RouteLLM.from_dict(mock().to_dict(), strong_fraction=0.3).policy.strong_fraction == 0.3

    @pytest.mark.parametrize("name", ["os.system", "llama_index.core.schema.TextNode", "no.such.module.LLM", ""])
    def test_only_a_model_is_made(self, name: str) -> None:
        data = mock().to_dict()
        data["weak"]["qualified_name"] = name
        with pytest.raises(ConfigurationError, match="cannot restore weak="):
            RouteLLM.from_dict(data)
        weak = MockLLM(max_tokens=7)
        assert RouteLLM.from_dict(data, weak=weak).weak is weak

    @pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated")  # LlamaIndex's workflows look at it
    @pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
    @pytest.mark.filterwarnings("ignore:Skipping serialization of known unserializable key")
    async def test_a_workflow_context_that_holds_a_model(self) -> None:
        llm = mock(strong=MockLLM(), weak=MockLLM())
        agent = FunctionAgent(llm=FakeLLM("m", "hello", "hello again"), tools=[])
        context = Context(agent)
        await context.store.set("llm", llm)
        memory = ChatMemoryBuffer.from_defaults(token_limit=3000, tokenizer_fn=str.split)
        assert str(await agent.run("hi", ctx=context, memory=memory)) == "hello"
        saved = context.to_dict(serializer=JsonSerializer())
        again = Context.from_dict(agent, json.loads(json.dumps(saved)), serializer=JsonSerializer())
        other = await again.store.get("llm")
        assert isinstance(other, RouteLLM)
        assert other.to_dict() == llm.to_dict()


class Unpicklable(FakeLLM):
    """A model with a state that no pickle takes."""

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a lock")


class Locked(ScriptedRouter):
    """A router that holds what no other process can have."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class TestPickles:
    def test_a_hook_at_the_top_level_of_a_module(self) -> None:
        other = pickle.loads(pickle.dumps(mock(route_on=strong_always)))
        assert routing_decision(other.complete("x")) == routing_decision(mock(route_on=strong_always).complete("x"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"route_on": lambda messages: "x"},
                r"route_on=.*<lambda> cannot be pickled: define the function at the top",
            ),
            ({"router": Locked()}, "router='scripted' cannot be pickled: make the model in the process"),
            ({"weak": Unpicklable("w")}, "weak=Unpicklable cannot be pickled"),  # type: ignore[arg-type, call-arg]
        ],
        ids=["a lambda", "a router with a lock", "a model"],
    )
    def test_what_cannot_be_pickled_is_said_then_and_the_model_stays_whole(
        self, options: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        llm = mock(**options)
        with caplog.at_level(logging.ERROR), pytest.raises(ConfigurationError, match=message):
            pickle.dumps(llm)
        assert routing_decision(llm.complete("x")) is not None

    def test_handlers_that_cannot_be_pickled_stay_behind(self) -> None:
        handler = TokenCountingHandler(tokenizer=lambda text: text.split())
        llm = mock(callback_manager=CallbackManager([handler]))
        other = pickle.loads(pickle.dumps(llm))
        assert llm.callback_manager.handlers == [handler]
        assert other.callback_manager.handlers == []
        assert routing_decision(other.complete("x")) is not None
