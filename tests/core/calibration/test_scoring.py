"""What stands for a router in calibration: objects with `win_rates` and functions, checked as routers are."""

import functools

import numpy as np
import pytest

from routellm_core import Calibration, ConfigurationError, PromptError, RouterError
from routellm_core.evaluation import evaluate_router
from routellm_core.routers import as_router, load_router
from tests.support.routers import ScriptedRouter


def lengths(prompts):
    return [len(prompt) / 10 for prompt in prompts]


async def service(prompts):
    return lengths(prompts)


class Mine:
    def win_rates(self, prompts):
        return tuple(lengths(prompts))


class Known(Mine):
    name = "known"
    fingerprint = "abc"


class Service:
    async def awin_rates(self, prompts):
        return lengths(prompts)


@pytest.mark.parametrize(
    ("router", "name"),
    [
        (lengths, "lengths"),
        (service, "service"),
        (Mine(), "Mine"),
        (Known(), "known"),
        (Service(), "Service"),
        (lambda prompts: np.array(lengths(prompts), dtype=np.float32), "<lambda>"),
        (lambda prompts: service(prompts), "<lambda>"),
        (functools.partial(lengths), "lengths"),
        (Mine().win_rates, "win_rates"),
        (as_router(lengths), "lengths"),
    ],
)
def test_fit_takes_functions_and_objects(router, name):
    found = Calibration.fit(router, (p for p in ["a", "bbb", "a"]), batch_size=2)
    np.testing.assert_allclose(found.values, [0.1, 0.3], rtol=1e-6)
    assert found.counts.tolist() == [2, 1]
    assert (found.router, found.fingerprint) == (name, as_router(router).fingerprint)
    found.check_router(as_router(router))
    with pytest.raises(ConfigurationError, match="fingerprint"):
        found.check_router(ScriptedRouter())
    measured, direct = (evaluate_router(r, ["a", "bbb"], [1, 1], [1, 0], draws=10) for r in (router, [0.1, 0.3]))
    assert measured.metrics == direct.metrics


async def test_fit_works_where_a_loop_runs():
    assert Calibration.fit(service, ["a", "bbb"]).values.tolist() == [0.1, 0.3]


def test_a_router_may_have_a_fingerprint_of_its_own():
    assert Calibration.fit(Known(), ["a"]).fingerprint == "abc"


def test_fit_takes_the_name_of_a_router():
    for router in (None, "mf"):
        assert Calibration.fit(router, ["hi"]).fingerprint == load_router().fingerprint


def test_a_calibration_without_a_fingerprint_serves_every_router():
    found = Calibration.from_win_rates([0.1, 0.3], router="lengths")
    found.check_router(ScriptedRouter())
    assert Calibration.from_dict(found.to_dict()) == found


def test_a_router_keeps_its_name_and_fingerprint():
    found = Calibration.fit(ScriptedRouter(), ["p=0.2"])
    assert (found.router, found.fingerprint) == ("scripted", ScriptedRouter().fingerprint)


@pytest.mark.parametrize("router", [3, Mine, object()])
def test_what_cannot_score_is_refused(router):
    with pytest.raises(ConfigurationError, match=r"router=.*(win_rates\(prompts\)|instance)"):
        Calibration.fit(router, ["a"])


@pytest.mark.parametrize(
    "values", [[0.5], [0.5, 1.5], [0.5, float("nan")], [[0.5], [0.5]], None, 0.5, ["a", "b"], [None, 0.5], "ab"]
)
def test_what_is_not_win_rates_is_an_error_of_the_router(values):
    with pytest.raises(RouterError, match="'<lambda>'"):
        Calibration.fit(lambda prompts: values, ["a", "b"])


@pytest.mark.parametrize("prompts", [["a", None], [3]])
def test_a_function_is_asked_about_strings_only(prompts):
    with pytest.raises(PromptError):
        Calibration.fit(lengths, prompts)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_batch_size_is_a_count(size):
    with pytest.raises(ConfigurationError, match="batch_size="):
        Calibration.fit(lengths, ["a"], batch_size=size)
