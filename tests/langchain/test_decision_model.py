"""RouteLLMDecisionModel: needs langchain-core 1.8; on an older one, an import error that says so."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage

from routellm_core import RoutingPolicy
from routellm_core.errors import ConfigurationError, PromptError
from tests.langchain.conftest import Pair, Recorder
from tests.support.routers import ScriptedRouter

HAS_DECISIONS = importlib.util.find_spec("langchain_core.decisions") is not None
needs_decisions = pytest.mark.skipif(not HAS_DECISIONS, reason="needs langchain-core 1.8 (langchain_core.decisions)")


@pytest.mark.skipif(HAS_DECISIONS, reason="langchain_core.decisions is here")
def test_an_older_langchain_core_is_named_with_the_command() -> None:
    import langchain_routellm

    with pytest.raises(ImportError, match=r"needs langchain-core 1.8 or later.*pip install 'langchain-core>=1.8'"):
        langchain_routellm.RouteLLMDecisionModel  # noqa: B018


def _model(**options: Any) -> Any:
    from langchain_routellm import RouteLLMDecisionModel

    options.setdefault("router", ScriptedRouter())
    options.setdefault("threshold", 0.7)
    return RouteLLMDecisionModel(**{"strong": "powerful", "weak": "fast", **options})


def _choice(*labels: str) -> Any:
    from langchain_core.decisions import Choice  # type: ignore[import-not-found,unused-ignore]

    return {"q": Choice(instructions="which?", criteria=dict.fromkeys(labels or ("fast", "powerful"), "x"))}


@needs_decisions
@pytest.mark.parametrize(
    ("state", "label", "rate"),
    [
        ("p=0.9", "powerful", 0.9),
        ("p=0.7", "powerful", 0.7),
        ("p=0.6", "fast", 0.6),
        (HumanMessage("p=0.9"), "powerful", 0.9),
        ([HumanMessage("p=0.9"), AIMessage("p=0.1")], "powerful", 0.9),
        ({"messages": [HumanMessage("p=0.9")]}, "powerful", 0.9),
        ({"question": "p=0.1"}, "fast", 0.1),
    ],
)
async def test_a_choice_is_answered_by_the_policy(state: Any, label: str, rate: float) -> None:
    request = {"state": state, "questions": _choice()}
    model = _model()
    for response in (model.invoke(request), await model.ainvoke(request)):
        answer = response.choices["q"]
        assert answer.choice == label
        assert answer.probabilities == pytest.approx({"powerful": rate, "fast": 1 - rate})
        assert answer.confidence == pytest.approx(rate if label == "powerful" else 1 - rate)
        assert response.model == "routellm-scripted"


@needs_decisions
def test_yes_or_no_is_answered_with_the_win_rate() -> None:
    from langchain_core.decisions import Noul  # type: ignore[import-not-found,unused-ignore]

    response = _model().invoke({"state": "p=0.9", "questions": {"n": Noul(instructions="strong?"), **_choice()}})
    assert response.choices["q"].choice == "powerful"
    assert _model().invoke({"state": "p=0.3", "questions": {"n": Noul(instructions="?")}}).nouls["n"].noul == 0.3


@needs_decisions
def test_other_labels_and_other_questions_are_named() -> None:
    from langchain_core.decisions import Score  # type: ignore[import-not-found,unused-ignore]

    with pytest.raises(ConfigurationError, match="offers 3 labels, 'a', 'b', 'c': expected the two labels 'powerful'"):
        _model().invoke({"state": "x", "questions": _choice("a", "b", "c")})
    with pytest.raises(ConfigurationError, match="offers 2 labels"):
        _model().invoke({"state": "x", "questions": _choice("a", "b")})
    score = Score(instructions="?", criteria=["a", "b"])
    with pytest.raises(ConfigurationError, match="is a Score"):
        _model().invoke({"state": "x", "questions": {"q": score}})
    with pytest.raises(PromptError):
        _model().invoke({"state": {"a": 1}, "questions": _choice()})


@needs_decisions
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strong": ""}, "strong=''"),
        ({"strong": "fast"}, "two different labels"),
        ({"threshold": 2}, "threshold=2"),
        ({"lookback": 0}, "lookback=0"),
        ({"route_on": 3}, "route_on=3"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _model(**options)


@needs_decisions
def test_a_failed_router_follows_the_policy_and_claims_no_confidence() -> None:
    router = ScriptedRouter(error=RuntimeError("down"))
    model = _model(policy=RoutingPolicy(router, threshold=0.7), router=None, threshold=None)
    answer = model.invoke({"state": "x", "questions": _choice()}).choices["q"]
    assert (answer.choice, answer.confidence) == ("powerful", 0.0)


@needs_decisions
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_it_drives_langchains_own_model_router(pair: Pair) -> None:
    from langchain.agents.middleware import (  # type: ignore[attr-defined,unused-ignore]
        ModelChoice,
        ModelRouterMiddleware,
    )

    router = ModelRouterMiddleware(
        choices={
            "fast": ModelChoice(model=pair.weak, criteria="easy"),
            "powerful": ModelChoice(model=pair.strong, criteria="hard"),
        },
        instructions="Choose the least costly model suited to the task.",
        classifier=_model(router=pair.router),
    )
    agent: Any = create_agent(model=pair.weak, middleware=[router])
    recorder = Recorder()
    out = agent.invoke({"messages": [("user", "p=0.9 hi")]}, {"callbacks": [recorder]})
    assert out["messages"][-1].text == "strong-model answers: p=0.9 hi"
    out = await agent.ainvoke({"messages": [("user", "p=0.1 hi")]})
    assert out["messages"][-1].text == "weak-model answers: p=0.1 hi"
