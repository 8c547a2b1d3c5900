"""The authors' controller, called as their own example calls it."""

from __future__ import annotations

import numpy as np
import pytest

from routellm_core.routers import router_names
from routellm_core.serve import ROUTER_CLS, Controller, RoutingError
from tests.support.openai_server import OpenAIServer

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is heavier, a pound of feathers or a kilogram of steel?"},
]


@pytest.fixture
def service():
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def controller(service):
    return Controller(
        routers=["random", "mf"], strong_model="big", weak_model="small", api_base=service.base_url, api_key="sk-test"
    )


def test_completion_in_both_forms(controller, service):
    answer = controller.chat.completions.create(router="mf", threshold=0.0, messages=MESSAGES, temperature=0.7)
    assert (answer.model, answer.choices[0].message.content) == ("big", "answer of big")
    answer = controller.completion(model="router-mf-1.0", messages=MESSAGES)
    assert answer.model == "small"
    assert controller.model_counts["mf"] == {"big": 1, "small": 1}
    assert service.requests[0].body["temperature"] == 0.7


async def test_acompletion(controller):
    answer = await controller.acompletion(router="random", threshold=0.0, messages=MESSAGES)
    assert answer.model == "big"


def test_route_and_win_rates(controller):
    prompts = ["hello", "Prove that there are infinitely many primes."]
    win_rates = controller.batch_calculate_win_rate(prompts, router="mf")
    assert win_rates.shape == (2,)
    for prompt, win_rate in zip(prompts, win_rates, strict=True):
        assert controller.route(prompt, router="mf", threshold=win_rate) == "big"
        assert controller.route(prompt, router="mf", threshold=np.nextafter(win_rate, 1)) == "small"


def test_a_series_stays_a_series(controller):
    class Series:
        def __init__(self, values, index):
            self.values, self.index = list(values), index

        def __iter__(self):
            return iter(self.values)

    found = controller.batch_calculate_win_rate(Series(["a", "b"], [7, 8]), "mf")
    assert (type(found), found.index, len(found.values)) == (Series, [7, 8], 2)


@pytest.mark.parametrize(
    "call",
    [
        {"messages": MESSAGES},
        {"messages": MESSAGES, "router": "mf"},
        {"messages": MESSAGES, "router": "bert", "threshold": 0.5},
        {"messages": MESSAGES, "router": "mf", "threshold": 2},
        {"messages": MESSAGES, "model": "gpt-4"},
        {"messages": MESSAGES, "model": "router-mf-high"},
        {"messages": [], "model": "router-mf-0.5"},
    ],
)
def test_what_it_does_not_know_is_a_routing_error(controller, service, call):
    with pytest.raises(RoutingError):
        controller.completion(**call)
    assert service.requests == []


def test_the_classes_of_routers_by_name():
    assert list(ROUTER_CLS.keys()) == list(router_names())
    assert ROUTER_CLS["random"].__name__ == "RandomRouter"
    assert "nothing" not in ROUTER_CLS
