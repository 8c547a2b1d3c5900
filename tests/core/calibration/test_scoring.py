"""What stands for a router in calibration: objects with `win_rates` and functions, checked as routers are."""

import asyncio
import functools

import numpy as np
import pytest

from routellm_core import Calibration, ConfigurationError, PromptError, RouterError
from routellm_core.calibration.scoring import Scorer
from tests.support.routers import ScriptedRouter


def lengths(prompts):
    return [len(prompt) / 10 for prompt in prompts]


class Mine:
    def win_rates(self, prompts):
        return tuple(lengths(prompts))


class Known(Mine):
    name = "known"
    fingerprint = "abc"


@pytest.mark.parametrize(
    ("router", "name", "fingerprint"),
    [
        (lengths, "lengths", None),
        (Mine(), "Mine", None),
        (Known(), "known", "abc"),
        (lambda prompts: np.array(lengths(prompts), dtype=np.float32), "<lambda>", None),
        (functools.partial(lengths), "partial", None),
        (Mine().win_rates, "win_rates", None),
    ],
)
def test_fit_takes_functions_and_objects(router, name, fingerprint):
    found = Calibration.fit(router, (p for p in ["a", "bbb", "a"]), batch_size=2)
    np.testing.assert_allclose(found.values, [0.1, 0.3], rtol=1e-6)
    assert found.counts.tolist() == [2, 1]
    assert (found.router, found.fingerprint) == (name, fingerprint)


def test_a_calibration_without_a_fingerprint_serves_every_router():
    found = Calibration.fit(lengths, ["a", "bbb"])
    found.check_router(ScriptedRouter())
    assert Calibration.from_dict(found.to_dict()) == found


def test_a_router_keeps_its_name_and_fingerprint():
    found = Calibration.fit(ScriptedRouter(), ["p=0.2"])
    assert (found.router, found.fingerprint) == ("scripted", ScriptedRouter().fingerprint)


@pytest.mark.parametrize("router", ["mf", None, 3, Mine, object()])
def test_what_cannot_score_is_refused(router):
    with pytest.raises(ConfigurationError, match=r"router is .*win_rates\(prompts\).*load_router"):
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


def test_an_asynchronous_router_is_told_to_be_wrapped():
    async def service(prompts):
        return lengths(prompts)

    with pytest.raises(ConfigurationError, match=r"'service' is asynchronous.*as_router"):
        Scorer(service).win_rates(["a"])

    async def in_a_loop():
        return asyncio.get_running_loop().create_future()

    waiting = asyncio.run(in_a_loop())
    with pytest.raises(ConfigurationError, match="asynchronous"):
        Scorer(lambda prompts: waiting).win_rates(["a"])
