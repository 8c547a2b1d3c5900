"""RouteLLMDecisionModel: a router in the place of LangChain's classifiers (langchain-core 1.8 and later)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Unpack

from langchain_core.runnables.config import ensure_config
from pydantic import PrivateAttr

try:
    from langchain_core.decisions import (  # type: ignore[import-not-found,unused-ignore]
        BaseDecisionModel,
        Choice,
        ChoiceAnswer,
        ClassifierResponse,
        Noul,
        NoulAnswer,
    )
except ModuleNotFoundError as exc:
    if exc.name != "langchain_core.decisions":
        raise
    raise ImportError(
        f"RouteLLMDecisionModel needs langchain-core 1.8 or later, and {version('langchain-core')} is installed. "
        "Install it with: pip install 'langchain-core>=1.8'"
    ) from exc

from langchain_routellm.dispatch import call_settings
from langchain_routellm.messages import input_texts
from routellm_core import RoutingDecision, RoutingPolicy, RoutingRequest
from routellm_core.errors import ConfigurationError
from routellm_core.policy.options import DecisionOptions
from routellm_core.policy.routing import DECISION_OPTIONS, CallSettings, Routing


class RouteLLMDecisionModel(BaseDecisionModel):  # type: ignore[misc,unused-ignore]
    """A router as a decision model; it drives LangChain's `ModelRouterMiddleware`.

    A `Choice` between the two labels is answered by the policy: the strong label when win rate >= threshold. The
    probabilities are the win rate and its complement, so with a threshold other than 0.5 the chosen label need not be
    the likelier one; that is what the threshold is for. A `Noul` (yes or no) is answered with the win rate: is the
    strong model worth asking? The question's wording is not read. ::

        classifier = RouteLLMDecisionModel(strong="powerful", weak="fast", strong_fraction=0.3)
        ModelRouterMiddleware(choices={"fast": ..., "powerful": ...}, instructions="", classifier=classifier)

    Args:
        strong: Label of the strong model among the choices.
        weak: Label of the weak one.
        **options: What decides, see `DecisionOptions`; ``route_on=`` is a function of the state, or the key of a dict
            state. Also fields of any runnable (``name``).

    Raises:
        ConfigurationError: An option is unknown or not allowed; or, in a call, the choices are not the two labels or
            the question is of another kind.
        PromptError: In a call, the state holds no text to route on.
    """

    model: str = "routellm"

    _strong: str = PrivateAttr()
    _weak: str = PrivateAttr()
    _routing: Routing = PrivateAttr()

    def __init__(self, *, strong: str = "strong", weak: str = "weak", **options: Unpack[DecisionOptions]) -> None:
        for name, label in (("strong", strong), ("weak", weak)):
            if not isinstance(label, str) or not label:
                raise ConfigurationError(f"{name}={label!r:.80}: expected the label of a choice, a non-empty str")
        if strong == weak:
            raise ConfigurationError(f"strong={strong!r} and weak={weak!r}: expected two different labels")
        given: dict[str, Any] = dict(options)
        fields = {name: given.pop(name) for name in type(self).model_fields if name in given}
        routing = Routing.of(given, owner="RouteLLMDecisionModel", known=DECISION_OPTIONS, key_allowed=True)
        super().__init__(**{"model": f"routellm-{routing.policy.router.name}", **fields})
        self._strong, self._weak, self._routing = strong, weak, routing

    @property
    def policy(self) -> RoutingPolicy:
        """The policy in force."""
        return self._routing.policy

    @property
    def _provider(self) -> str:
        return "routellm"

    def _classify(self, state: Any, questions: dict[str, Any]) -> ClassifierResponse:
        self._check(questions)
        settings = call_settings(ensure_config(), self._routing, state)
        return self._response(questions, self._routing.decide(self._request(state, settings), settings))

    async def _aclassify(self, state: Any, questions: dict[str, Any]) -> ClassifierResponse:
        self._check(questions)
        settings = call_settings(ensure_config(), self._routing, state)
        return self._response(questions, await self._routing.adecide(self._request(state, settings), settings))

    def _request(self, state: Any, settings: CallSettings) -> RoutingRequest:
        return self._routing.request(settings, gap=lambda: None, texts=lambda: input_texts(state, self._routing))

    def _check(self, questions: Mapping[str, Any]) -> None:
        for name, question in questions.items():
            if isinstance(question, Choice):
                if set(question.criteria) != {self._strong, self._weak}:
                    raise ConfigurationError(
                        f"question {name!r} offers {len(question.criteria)} labels, "
                        f"{', '.join(map(repr, question.criteria))}: expected the two labels {self._strong!r} and "
                        f"{self._weak!r}; name them by strong= and weak="
                    )
            elif not isinstance(question, Noul):
                raise ConfigurationError(
                    f"question {name!r} is a {type(question).__name__}: a router answers a Choice between its two "
                    "labels, or a Noul"
                )

    def _response(self, questions: Mapping[str, Any], decision: RoutingDecision) -> ClassifierResponse:
        # without a win rate (the router failed) the policy's rule chose, and nothing is known
        strong = decision.win_rate if decision.win_rate is not None else float(decision.model == "strong")
        answers: dict[str, Any] = {}
        for name, question in questions.items():
            if isinstance(question, Noul):
                answers[name] = NoulAnswer(type="noul", noul=strong)
                continue
            confidence = 0.0 if decision.win_rate is None else strong if decision.model == "strong" else 1.0 - strong
            answers[name] = ChoiceAnswer(
                type="choice",
                choice=self._strong if decision.model == "strong" else self._weak,
                probabilities={self._strong: strong, self._weak: 1.0 - strong},
                confidence=confidence,
            )
        return ClassifierResponse(model=self.model, answers=answers)
