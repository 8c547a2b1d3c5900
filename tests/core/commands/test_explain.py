"""`routellm explain` claims no more than it knows: ranks in small calibrations, summands, random win rates."""

import json
import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from routellm_core import Calibration, load_router
from routellm_core.commands.explain import explain
from tests.support.routers import ScriptedRouter

app = typer.Typer()
app.command()(explain)


@pytest.fixture
def shown(monkeypatch):
    """What the command prints for a prompt with win rate 0.6, ranked in given win rates, in one line."""
    router = ScriptedRouter()
    monkeypatch.setattr("routellm_core.routers.load_router", lambda *a, **k: router)

    def call(win_rates):
        router.calibration = None if win_rates is None else Calibration.from_win_rates(win_rates)
        result = CliRunner().invoke(app, ["p=0.6"])
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    return call


def test_the_rank_in_few_prompts_is_told_as_a_count_with_what_it_leaves_open(shown):
    found = re.search(
        r"higher than 3 of 5 calibration prompts \(95% interval (\d+)% to (\d+)%\)",
        shown([0.1, 0.2, 0.3, 0.7, 0.8]),
    )
    exact = np.quantile(np.random.default_rng(9).beta(3.5, 2.5, 1_000_000), [0.025, 0.975])
    assert np.array(found.groups(), dtype=float) / 100 == pytest.approx(exact, abs=0.02)  # type: ignore[union-attr]
    assert "higher than 1 of 1 calibration prompts" in shown([0.1])
    assert "higher than 0 of 2 calibration prompts" in shown([0.6, 0.6])  # equal is not higher
    assert "higher" not in shown(None)


def test_the_rank_in_many_prompts_is_a_share(shown):
    assert "higher than 60% of 10,000 calibration prompts (95% interval 59% to 61%)" in shown(
        (np.arange(10_000) + 0.5) / 10_000
    )
    assert "higher than 99.95% of 2,000 calibration prompts" in shown([*np.linspace(0, 0.5, 1999), 0.9])
    few = shown([0.1, *np.linspace(0.7, 1, 1999)])
    assert "higher than 0.05% of 2,000 calibration prompts" in few
    assert re.search(r"\(95% interval 0\.0\d+% to 0\.\d+%\)", few)  # neither is 0 %
    assert "higher than 100% of 2,000 calibration prompts" in shown(np.linspace(0, 0.5, 2000))


def test_no_word_is_shown_for_a_random_win_rate():
    result = CliRunner().invoke(app, ["Prove that it is irrational", "-r", "random"])
    assert "what leaving one out" not in result.stdout
    assert "does not depend on its words" in result.stdout


def test_features_are_told_as_summands_of_the_logit():
    result = CliRunner().invoke(app, ["Prove that the square root of 2 is irrational."])
    text = " ".join(result.stdout.split())
    assert "summands of the win rate's logit" in text
    assert "share of the logit" not in text
    found = json.loads(CliRunner().invoke(app, ["Prove that 2 is prime.", "--json", "--top", "999"]).stdout)
    constant = load_router().head.vector[-1]  # type: ignore[attr-defined]
    logit = np.log(found["win_rate"] / (1 - found["win_rate"]))
    assert constant + sum(f["logit"] for f in found["features"]) == pytest.approx(logit, abs=1e-4)
