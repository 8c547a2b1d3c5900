"""ChatRouteLLM: construction, decisions on answers, and everything a chat model has."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.base import LanguageModelInput
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableBinding, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_routellm import ChatRouteLLM, RouteLLMRunnable, routing_decision
from routellm_core import Calibration, RoutingDecision, RoutingPolicy
from routellm_core.errors import ConfigurationError, PromptError, RouterError
from tests.langchain.conftest import Pair
from tests.support.fakes_langchain import ScriptedChatModel

FORCE_WEAK: Any = {"configurable": {"routellm_force": "weak"}}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Answer(BaseModel):
    """An answer."""

    text: str
    score: int


# --- decisions ---


def test_the_call_goes_to_strong_when_the_win_rate_reaches_the_threshold(pair: Pair) -> None:
    llm = pair.llm(threshold=0.7)
    assert llm.invoke("p=0.7 a tie").content == "strong-model answers: p=0.7 a tie"
    assert llm.invoke("p=0.69 easier").content == "weak-model answers: p=0.69 easier"


def test_the_answer_carries_the_decision(pair: Pair) -> None:
    answer = pair.llm(strong_fraction=0.3).invoke("p=0.9 hard")
    expected = RoutingDecision("strong", 0.9, pair.router.calibration.threshold(strong_fraction=0.3), "scripted")  # type: ignore[union-attr]
    stored = answer.response_metadata["routellm"]
    version = pair.router.fingerprint[:12]
    assert stored == {**expected.to_dict(), "id": stored["id"], "router_version": version}
    assert routing_decision(answer) == expected
    assert answer.response_metadata["model_name"] == "strong-model"
    assert answer.additional_kwargs == {}
    json.dumps(answer.response_metadata["routellm"])


def test_a_decision_is_read_from_what_another_version_stored() -> None:
    stored = {"model": "weak", "win_rate": 0.1, "threshold": 0.5, "router": "mf", "of_tomorrow": 1}
    found = routing_decision(AIMessage("x", response_metadata={"routellm": stored}))
    assert found == RoutingDecision("weak", 0.1, 0.5, "mf")
    assert routing_decision(AIMessage("x", response_metadata={"routellm": {"model": "weak"}})) is None


def test_an_answer_that_was_not_routed_has_no_decision() -> None:
    assert routing_decision(AIMessage("hi")) is None
    assert routing_decision(None) is None
    assert routing_decision({"raw": AIMessage("hi")}) is None


async def test_async_decides_the_same(pair: Pair) -> None:
    llm = pair.llm()
    assert routing_decision(await llm.ainvoke("p=0.9")) == routing_decision(llm.invoke("p=0.9"))


@pytest.mark.parametrize(
    "value",
    [
        "p=0.9 hard",
        [("system", "p=0.1"), ("user", "p=0.9 hard")],
        [SystemMessage("p=0.1"), HumanMessage("p=0.9 hard"), AIMessage("p=0.1")],
        [{"role": "user", "content": "p=0.9 hard"}],
        ChatPromptTemplate.from_messages([("user", "p=0.9 {x}")]).invoke({"x": "hard"}),
        [HumanMessage([{"type": "text", "text": "p=0.9"}, {"type": "text", "text": "hard"}])],
    ],
)
def test_every_form_of_input_is_routed_on_its_last_human_message(pair: Pair, value: LanguageModelInput) -> None:
    decision = routing_decision(pair.llm().invoke(value))
    assert decision is not None
    assert decision.win_rate == 0.9


def test_the_chosen_model_gets_the_input_and_arguments_unchanged(pair: Pair) -> None:
    messages = [SystemMessage("be brief"), HumanMessage("p=0.9 hi", id="1")]
    pair.llm().invoke(messages, stop=["x"], temperature=0.5)
    (call,) = pair.strong.calls
    assert call == {"messages": messages, "stop": ["x"], "temperature": 0.5}
    assert pair.weak.calls == []


@pytest.mark.parametrize("value", [None, 3, b"bytes", object()])
def test_what_is_no_chat_input_is_one_clear_error(pair: Pair, value: Any) -> None:
    with pytest.raises(PromptError, match="expected a str, a prompt value or a list of messages"):
        pair.llm().invoke(value)


def test_threshold_and_force_per_call(pair: Pair) -> None:
    llm = pair.llm(threshold=0.7)
    assert routing_decision(llm.invoke("p=0.6", {"configurable": {"routellm_threshold": 0.5}})) == RoutingDecision(
        "strong", 0.6, 0.5, "scripted"
    )
    forced = routing_decision(llm.invoke("p=0.9", FORCE_WEAK))
    assert forced == RoutingDecision("weak", None, 0.7, "scripted", "forced")
    chain = ChatPromptTemplate.from_messages([("user", "p=0.1 {x}")]) | llm
    bound = chain.with_config(configurable={"routellm_force": "strong"})
    assert bound.invoke({"x": "y"}).content.startswith("strong-model")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("configurable", "message"),
    [
        ({"routellm_threshold": 1.5}, r"routellm_threshold=1.5: expected a number between 0 and 1"),
        ({"routellm_threshold": float("nan")}, r"routellm_threshold=nan"),
        ({"routellm_threshold": "0.5"}, r"routellm_threshold='0.5'"),
        ({"routellm_force": "medium"}, r"routellm_force='medium': expected 'strong' or 'weak'"),
    ],
)
def test_a_wrong_setting_of_a_call_is_named(pair: Pair, configurable: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        pair.llm().invoke("p=0.9", {"configurable": configurable})
    assert pair.strong.calls == pair.weak.calls == []


def test_the_per_call_settings_are_listed(pair: Pair) -> None:
    ids = {spec.id for spec in pair.llm().config_specs}
    assert {"routellm_threshold", "routellm_force"} <= ids


def test_a_failing_router_follows_the_policy(pair: Pair) -> None:
    pair.router.error = RuntimeError("secret prompt text")
    decision = routing_decision(pair.llm().invoke("p=0.1"))
    assert decision == RoutingDecision("strong", None, 0.7, "scripted", "error", error="RuntimeError")
    strict = pair.llm(policy=RoutingPolicy(pair.router, threshold=0.7, on_error="raise"))
    with pytest.raises(RouterError):
        strict.invoke("p=0.1 other")


# --- construction ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither threshold nor strong_fraction is given"),
        ({"threshold": 0.5, "strong_fraction": 0.3}, "threshold=0.5 and strong_fraction=0.3 are both given"),
        ({"threshold": 2}, "threshold=2: expected a number between 0 and 1"),
        ({"threshold": "0.5"}, "threshold='0.5': expected a number"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"strong_fraction": -0.1}, "strong_fraction=-0.1"),
        ({"threshold": 0.5, "router": "gpt"}, "router name 'gpt': expected one of"),
        ({"threshold": 0.5, "router": 7}, "router=7: expected a Router"),
        ({"policy": "p"}, "policy='p': expected a RoutingPolicy"),
        ({"strong_fraction": 0.5, "calibration": [0.1]}, r"calibration=\[0.1\]: expected a Calibration"),
        ({"threshold": 0.5, "failover": "yes"}, "failover='yes': expected True or False"),
        ({"threshold": 0.5, "lookback": 0}, "lookback=0: expected a number of human turns"),
        ({"threshold": 0.5, "lookback": True}, "lookback=True"),
        ({"threshold": 0.5, "route_on": "question"}, "route_on='question': expected a function of the input"),
        ({"threshold": 0.5, "sticky": 3}, "sticky=3: expected None, True"),
        ({"threshold": 0.5, "failver": True}, "failver=: ChatRouteLLM has no such option; did you mean failover="),
        ({"threshhold": 0.5}, "threshhold=: ChatRouteLLM has no such option; did you mean threshold="),
        ({"threshold": 0.5, "budget": 5}, "budget=: ChatRouteLLM has no such option; its options are"),
        ({"threshold": 0.5, "deadline": 0}, "deadline=0: expected a number of seconds"),
        ({"threshold": 0.5, "on_error": "ask"}, "on_error='ask'"),
        ({"threshold": 0.5, "online": True}, "online= keeps a share on target"),
        ({"threshold": 0.5, "cache_size": -1}, "cache_size=-1"),
        ({"threshold": 0.5, "weak_profile": {"pictures": True}}, "weak_profile=.*image_inputs"),
        ({"threshold": 0.5, "cache": True}, "cache=True: .* set cache= on the strong and the weak"),
        ({"threshold": 0.5, "cache": InMemoryCache()}, "set cache= on the strong and the weak"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_the_fix(pair: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ChatRouteLLM(
            strong=pair.strong,
            weak=pair.weak,
            **{"router": "random", **options} if "policy" not in options else options,
        )


def test_a_policy_and_another_option_exclude_each_other(pair: Pair) -> None:
    policy = RoutingPolicy("random", threshold=0.5)
    assert ChatRouteLLM(strong=pair.strong, weak=pair.weak, policy=policy).policy is policy
    with pytest.raises(ConfigurationError, match="policy= and threshold= are both given"):
        ChatRouteLLM(strong=pair.strong, weak=pair.weak, policy=policy, threshold=0.5)


@pytest.mark.parametrize("value", [None, 5, StrOutputParser(), RunnableLambda(lambda x: x)])
def test_a_side_that_is_no_chat_model_is_named(pair: Pair, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"weak=.*: expected a chat model.*RouteLLMRunnable"):
        ChatRouteLLM(strong=pair.strong, weak=value, threshold=0.5, router="random")


def test_models_by_name_go_through_init_chat_model(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def init_chat_model(name: str) -> ScriptedChatModel:
        asked.append(name)
        return ScriptedChatModel(model=name)

    monkeypatch.setattr("langchain.chat_models.init_chat_model", init_chat_model)
    llm = ChatRouteLLM(strong="openai:large", weak="openai:small", threshold=0.7, router=pair.router)
    assert asked == ["openai:large", "openai:small"]
    assert llm.invoke("p=0.9").response_metadata["model_name"] == "openai:large"


def test_a_real_model_name_makes_a_real_client(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    llm = ChatRouteLLM(strong="openai:gpt-4.1", weak=pair.weak, threshold=0.5, router="random")
    assert type(llm.strong).__name__ == "ChatOpenAI"


def test_a_calibration_of_ones_own_sets_the_threshold(pair: Pair) -> None:
    calibration = Calibration.from_win_rates(np.linspace(0.2, 0.4, 11))
    llm = pair.llm(strong_fraction=0.5, calibration=calibration)
    assert llm.policy.threshold == calibration.threshold(strong_fraction=0.5)
    assert routing_decision(llm.invoke("p=0.35")).model == "strong"  # type: ignore[union-attr]


def test_a_copy_with_another_threshold_routes_by_it(pair: Pair) -> None:
    llm = pair.llm(threshold=0.7)
    other = llm.model_copy(update={"threshold": 0.95})
    assert other.invoke("p=0.9").response_metadata["model_name"] == "weak-model"
    assert llm.invoke("p=0.9").response_metadata["model_name"] == "strong-model"


def test_copies_share_the_router_and_its_policy(pair: Pair) -> None:
    llm = pair.llm(sticky=True)
    llm.invoke("p=0.9")
    for twin in (copy.deepcopy(llm), copy.copy(llm), llm.model_copy()):
        assert twin.router is llm.router  # type: ignore[attr-defined]
        assert twin.policy is llm.policy
        assert twin.sticky is llm.sticky  # type: ignore[attr-defined]
        assert twin.invoke("p=0.9 again").text.startswith("strong-model")


def test_it_can_be_sent_to_another_process() -> None:
    models = [FakeListChatModel(responses=[name] * 20) for name in ("strong", "weak")]
    llm = ChatRouteLLM(strong=models[0], weak=models[1], threshold=0.5, router="random", sticky=True)
    expected = [llm.invoke(prompt).text for prompt in "abcdefgh"]
    back = pickle.loads(pickle.dumps(llm))
    assert [back.invoke(prompt).text for prompt in "abcdefgh"] == expected
    assert set(expected) == {"strong", "weak"}


def test_an_option_that_is_set_later_holds(pair: Pair) -> None:
    llm = pair.llm(threshold=0.7)
    llm.invoke("p=0.9")
    llm.threshold = 0.95
    assert llm.invoke("p=0.9").text.startswith("weak-model")
    with pytest.raises(ConfigurationError, match="threshold=2"):
        llm.model_copy(update={"threshold": 2}).invoke("p=0.9")


# --- what a chat model can do ---


def test_generate_goes_to_each_models_own(pair: Pair) -> None:
    result = pair.llm().generate([[HumanMessage("p=0.9 a")], [HumanMessage("p=0.1 b")]], stop=["z"])
    texts = [answers[0].text for answers in result.generations]
    assert texts == ["strong-model answers: p=0.9 a", "weak-model answers: p=0.1 b"]
    assert [routing_decision(g[0].message).model for g in result.generations] == ["strong", "weak"]  # type: ignore[union-attr]
    assert len(result.run or ()) == 2
    assert pair.strong.calls[0]["stop"] == ["z"]
    assert len(pair.router.calls) == 1


async def test_agenerate_is_its_twin(pair: Pair) -> None:
    result = await pair.llm().agenerate([[HumanMessage("p=0.9 a")], [HumanMessage("p=0.1 b")]])
    assert [g[0].message.response_metadata["model_name"] for g in result.generations] == ["strong-model", "weak-model"]  # type: ignore[union-attr]
    assert len(pair.router.calls) == 1


def test_generate_of_nothing_is_empty(pair: Pair) -> None:
    assert pair.llm().generate([]).generations == []
    assert pair.router.calls == []


def test_generate_prompt_is_routed(pair: Pair) -> None:
    prompt = ChatPromptTemplate.from_messages([("user", "p=0.9")]).invoke({})
    assert pair.llm().generate_prompt([prompt]).generations[0][0].text.startswith("strong-model")


def test_generation_of_its_own_is_refused(pair: Pair) -> None:
    with pytest.raises(NotImplementedError, match="no generation of its own"):
        pair.llm()._generate([HumanMessage("x")])


def test_bind_tools_binds_each_side_by_its_own_method(pair: Pair) -> None:
    bound = pair.llm().bind_tools([add], tool_choice="add", strict=True)
    assert isinstance(bound, RunnableBinding)
    answer = bound.invoke("p=0.9 add 2 and 3")
    assert answer.tool_calls[0]["name"] == "add"
    assert routing_decision(answer).model == "strong"  # type: ignore[union-attr]
    (call,) = pair.strong.calls
    assert call["tool_choice"] == "add"
    assert call["strict"] is True
    assert call["tools"][0]["function"]["name"] == "add"
    assert bound.invoke("p=0.1").response_metadata["model_name"] == "weak-model"


def test_bind_tools_leaves_the_model_as_it_was(pair: Pair) -> None:
    llm = pair.llm()
    llm.bind_tools([add])
    assert llm.invoke("p=0.9").tool_calls == []


def test_tools_bound_twice_are_the_last_ones(pair: Pair) -> None:
    @tool
    def other() -> int:
        """Another."""
        return 1

    bound = pair.llm().bind_tools([add]).bind_tools([other])  # type: ignore[attr-defined]
    assert bound.invoke("p=0.9").tool_calls[0]["name"] == "other"


def test_a_model_that_cannot_bind_tools_is_named(pair: Pair) -> None:
    class Plain(ScriptedChatModel):
        def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    llm = ChatRouteLLM(strong=pair.strong, weak=Plain(model="plain"), threshold=0.5, router="random")
    with pytest.raises(NotImplementedError) as failure:
        llm.bind_tools([add])
    assert failure.value.__notes__ == ["the weak model, plain, cannot bind tools"]


def test_generate_keeps_what_is_bound(pair: Pair) -> None:
    bound: Any = pair.llm().bind_tools([add])
    bound.bound.generate([[HumanMessage("p=0.9 add 1 and 2")]])
    assert pair.strong.calls[0]["tools"][0]["function"]["name"] == "add"


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode", None])
def test_structured_output_by_every_method(pair: Pair, method: str | None) -> None:
    arguments = {} if method is None else {"method": method}
    routed = pair.llm().with_structured_output(Answer, **arguments)  # type: ignore[arg-type]
    assert isinstance(routed, RouteLLMRunnable)
    assert isinstance(routed.invoke("p=0.9 say 'yes' 4 times"), Answer)
    assert len(pair.strong.calls) == 1
    assert len(pair.weak.calls) == 0
    raw = pair.llm().with_structured_output(Answer, include_raw=True, **arguments).invoke("p=0.1 'no' 5")
    assert raw["parsed"].text == "no"
    assert raw["parsing_error"] is None
    assert routing_decision(raw) == routing_decision(raw["raw"])
    assert routing_decision(raw).model == "weak"  # type: ignore[union-attr]


def test_structured_output_passes_every_argument_on(pair: Pair) -> None:
    pair.llm().with_structured_output(Answer, method="json_schema", strict=True).invoke("p=0.9")
    assert pair.strong.calls[0]["response_format"]["json_schema"]["strict"] is True
    with pytest.raises(ValueError, match="unsupported arguments"):
        pair.llm().with_structured_output(Answer, flavour="sweet")


def test_structured_output_in_a_batch_is_one_call_of_the_router(pair: Pair) -> None:
    routed = pair.llm().with_structured_output(Answer)
    answers = routed.batch([f"p={p} 'a{p}'" for p in (0.9, 0.1, 0.8)])
    assert [a.text for a in answers] == ["a0.9", "a0.1", "a0.8"]
    assert len(pair.router.calls) == 1


def test_structured_output_with_tools_bound_before(pair: Pair) -> None:
    bound: Any = pair.llm().bind_tools([add])
    assert isinstance(bound.with_structured_output(Answer).invoke("p=0.9"), Answer)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_streamed_raw_message_carries_the_decision(pair: Pair, method: str) -> None:
    routed = pair.llm().with_structured_output(Answer, include_raw=True, method=method)
    total = None
    for chunk in routed.stream("p=0.9 'no' 5"):
        total = chunk if total is None else total + chunk
    assert isinstance(total["parsed"], Answer)  # type: ignore[index]
    assert routing_decision(total).model == "strong"  # type: ignore[union-attr]


def test_a_parsing_failure_is_the_models_own(pair: Pair) -> None:
    pair.strong.reply = lambda messages: "no json"
    routed = pair.llm().with_structured_output(Answer, include_raw=True)
    raw = routed.invoke("p=0.9")
    assert raw["parsed"] is None
    assert raw["parsing_error"] is not None
    assert routing_decision(raw).model == "strong"  # type: ignore[union-attr]


def test_with_retry_routes_each_attempt(pair: Pair) -> None:
    failures = iter([ConnectionError("once"), None])

    def reply(messages: Any) -> Any:
        return next(failures) or "fine"

    pair.strong.reply = reply
    llm = pair.llm().with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    assert llm.invoke("p=0.9").content == "fine"
    assert len(pair.strong.calls) == 2


def test_with_fallbacks_stands_behind_the_router(pair: Pair) -> None:
    pair.strong.error = ConnectionError("down")
    llm = pair.llm().with_fallbacks([ScriptedChatModel(model="spare")])
    assert llm.invoke("p=0.9 hi").content == "spare answers: p=0.9 hi"


def test_sides_may_be_bound_retried_or_fallen_back(pair: Pair) -> None:
    llm = ChatRouteLLM(
        strong=pair.strong.bind(temperature=0.1),
        weak=pair.weak.with_fallbacks([ScriptedChatModel(model="spare")]).with_retry(),
        router=pair.router,
        threshold=0.7,
    )
    bound = llm.bind_tools([add], tool_choice="any")
    bound.invoke("p=0.9")
    assert pair.strong.calls[0]["tools"]
    assert pair.strong.calls[0]["temperature"] == 0.1  # what was bound before stays
    assert bound.invoke("p=0.1").tool_calls
    bound.bind_tools([add]).invoke("p=0.9 again")  # type: ignore[attr-defined]
    assert "tool_choice" not in pair.strong.calls[1]  # and what was bound by tools goes with them
    llm.with_structured_output(Answer).invoke("p=0.9")
    assert pair.strong.calls[2]["temperature"] == 0.1
    pair.weak.error = ConnectionError("down")
    assert llm.invoke("p=0.1").response_metadata["model_name"] == "spare"


def test_a_routed_model_may_be_a_side_of_another(pair: Pair) -> None:
    middle = ScriptedChatModel(model="middle")
    inner = ChatRouteLLM(strong=middle, weak=pair.weak, threshold=0.4, router=pair.router)
    llm = ChatRouteLLM(strong=pair.strong, weak=inner, threshold=0.8, router=pair.router)
    names = [llm.invoke(f"p={p}").response_metadata["model_name"] for p in (0.9, 0.5, 0.1)]
    assert names == ["strong-model", "middle", "weak-model"]
    assert llm.bind_tools([add]).invoke("p=0.5").tool_calls


def test_the_models_cache_is_theirs_and_its_messages_are_not_written_to(pair: Pair) -> None:
    cache = InMemoryCache()
    strong = ScriptedChatModel(model="strong-model", cache=cache)
    llm = ChatRouteLLM(strong=strong, weak=pair.weak, threshold=0.7, router=pair.router)
    first, second = llm.invoke("p=0.9"), llm.invoke("p=0.9")
    assert len(strong.calls) == 1
    assert routing_decision(first) == routing_decision(second)
    (kept,) = cache._cache.values()
    assert "routellm" not in kept[0].message.response_metadata  # type: ignore[attr-defined]


def test_profile_is_what_both_models_can_do(pair: Pair) -> None:
    pair.strong.profile = {"max_input_tokens": 1000, "tool_calling": True, "image_inputs": True, "name": "s"}
    pair.weak.profile = {"max_input_tokens": 500, "tool_calling": True, "image_inputs": False, "audio_inputs": True}
    assert pair.llm().profile == {"max_input_tokens": 500, "tool_calling": True, "image_inputs": False}
    pair.weak.profile = None
    assert pair.llm().profile is None
    assert pair.llm(profile={"tool_calling": True}).profile == {"tool_calling": True}


def test_tokens_are_counted_by_the_strong_model(pair: Pair) -> None:
    pair.strong.custom_get_token_ids = lambda text: [1] * len(text)
    llm = pair.llm()
    assert llm.get_num_tokens("four") == 4
    assert llm.get_token_ids("ab") == [1, 1]
    expected = pair.strong.get_num_tokens_from_messages([HumanMessage("hi")])
    assert llm.get_num_tokens_from_messages([HumanMessage("hi")]) == expected
    own = pair.llm(custom_get_token_ids=lambda text: [7])
    assert own.get_num_tokens("any length") == 1
    assert own.get_num_tokens_from_messages([HumanMessage("any"), HumanMessage("length")]) == 2


def test_langsmith_parameters(pair: Pair) -> None:
    llm = pair.llm()
    assert llm._get_ls_params(stop=["x"]) == {
        "ls_provider": "scripted",  # of both sides
        "ls_model_type": "chat",
        "ls_model_name": "strong-model|weak-model",
        "ls_stop": ["x"],
    }
    assert llm._get_ls_params(model="m")["ls_model_name"] == "m"
    assert llm._llm_type == "routellm-chat"
    assert llm._identifying_params["threshold"] == 0.7
    assert not hasattr(llm, "model_name")


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_it_round_trips_through_dumpd_and_load() -> None:
    llm = ChatRouteLLM(
        strong=ScriptedChatModel(model="s"),
        weak=ScriptedChatModel(model="w"),
        router="random",
        strong_fraction=0.3,
        failover=True,
        lookback=2,
        sticky=True,
    )
    saved = json.loads(json.dumps(dumpd(llm)))
    names = {
        ("langchain", "chat_models", "scripted", "ScriptedChatModel"): (
            "tests",
            "support",
            "fakes_langchain",
            "ScriptedChatModel",
        )
    }
    back = load(
        saved,
        allowed_objects=[ChatRouteLLM, ScriptedChatModel],
        valid_namespaces=["langchain_routellm", "tests"],
        additional_import_mappings=names,  # type: ignore[arg-type]
    )
    assert isinstance(back, ChatRouteLLM)
    assert dumpd(back) == dumpd(llm)
    assert back.policy.threshold == llm.policy.threshold
    assert (back.failover, back.lookback, back.sticky.key) == (True, 2, "thread_id")  # type: ignore[attr-defined]


def test_the_bundled_router_round_trips() -> None:
    llm = ChatRouteLLM(strong=ScriptedChatModel(model="s"), weak=ScriptedChatModel(model="w"), strong_fraction=0.3)
    assert set(dumpd(llm)["kwargs"]) == {
        "strong",
        "weak",
        "strong_fraction",
        "lookback",
        "on_error",
        "cache_size",
        "allow_overrides",
        "cooldown",
        "accept_deadline",
        "accept_threshold",
    }
    assert llm.invoke("hi").response_metadata["routellm"]["router"] == "mf_vote"


# --- fields of every chat model ---


@pytest.mark.parametrize(
    ("setting", "tools", "chunks"), [(True, False, 1), ("tool_calling", False, 6), ("tool_calling", True, 1)]
)
def test_disable_streaming_holds_for_the_side_that_answers(pair: Pair, setting: Any, tools: bool, chunks: int) -> None:
    llm: Any = pair.llm(disable_streaming=setting)
    if tools:
        llm = llm.bind_tools([add])
    assert len(list(llm.stream("p=0.9 hi"))) == chunks
    assert pair.strong.disable_streaming is False  # the model given is not changed


def test_output_version_holds_for_the_side_that_answers(pair: Pair) -> None:
    answer = pair.llm(output_version="v1").invoke("p=0.9 hi")
    assert answer.content == [{"type": "text", "text": "strong-model answers: p=0.9 hi"}]
    bound = ChatRouteLLM(
        strong=pair.strong.bind(temperature=0), weak=pair.weak, router=pair.router, threshold=0.7, output_version="v1"
    )
    assert isinstance(bound.invoke("p=0.9").content, list)


def test_a_rate_limiter_holds_for_the_side_that_answers(pair: Pair) -> None:
    class Counting(BaseRateLimiter):
        count = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            self.count += 1
            return True

        async def aacquire(self, *, blocking: bool = True) -> bool:
            self.count += 1
            return True

    limiter = Counting()
    pair.llm(rate_limiter=limiter).batch(["p=0.9", "p=0.1"])
    assert limiter.count == 2


def test_configurable_fields_change_the_routing(pair: Pair) -> None:
    from langchain_core.runnables import ConfigurableField

    llm: Any = pair.llm(threshold=0.7, sticky=True).configurable_fields(threshold=ConfigurableField(id="t"))
    assert routing_decision(llm.invoke("p=0.5", {"configurable": {"t": 0.4}})).model == "strong"  # type: ignore[union-attr]
    assert routing_decision(llm.invoke("p=0.5", {"configurable": {"t": 0.6}})).model == "weak"  # type: ignore[union-attr]


def test_chunks_add_up_to_a_message_with_the_decision(pair: Pair) -> None:
    chunks = list(pair.llm().stream("p=0.9 hi"))
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    total = chunks[0] + chunks[1:]
    assert total.content == "strong-model answers: p=0.9 hi"
    assert routing_decision(total) == routing_decision(chunks[0])
    assert [routing_decision(chunk) for chunk in chunks[1:]] == [None] * (len(chunks) - 1)
