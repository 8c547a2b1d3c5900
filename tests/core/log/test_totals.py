"""Answers, tokens and money by side, model, user and day; in the command and on the page."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from routellm_core import ConfigurationError, Price, RoutingDecision, TrafficLog
from routellm_core.commands.traffic import app
from routellm_core.log import Answer, TrafficDatabase
from routellm_core.policy.savings import CallCost
from routellm_core.report.traffic import estimated_saving, traffic_page

PRICES = {"big": Price(1e6, 0), "mini": Price(1.0, 1e6)}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'traffic.db'}"


def decided(side, **changes):
    return RoutingDecision(side, 0.4, 0.5, "mf", **changes)


def filled(url, **options):
    """ann: a big call of 3 and a mini one of 5; bob: a refused mini answer of 2 and the big one of 4; a failure."""
    with TrafficLog(url, **options) as log:
        log.recording(decided("strong", cost=3.0), user="ann").answered(Answer("x", "big", 3, 1))
        log.recording(decided("weak", cost=5.0), user="ann").answered(Answer("x", "mini", 0, 5))
        recording = log.recording(decided("strong", escalated=True, cost=6.0), user="bob")
        spent = CallCost(log.prices)
        spent.add("weak", "mini", 0, 2)
        spent.discard("refused", "weak")
        recording.answered(Answer("x", "big", 4, 1), spent=spent)
        log.recording(decided("weak")).failed(TimeoutError())


def test_totals(url):
    filled(url, prices=PRICES)
    with TrafficDatabase(url) as database:
        assert [(t.key, t.answers, t.refused, t.cost) for t in database.totals("side")] == [
            ("strong", 2, 0, 7.0), ("weak", 1, 1, 7.0)
        ]  # fmt: skip
        assert [(t.key, t.cost, t.input_tokens, t.output_tokens) for t in database.totals("model")] == [
            ("big", 7.0, 7, 2), ("mini", 7.0, 0, 7)
        ]  # fmt: skip
        assert {t.key: (t.answers, t.refused, t.cost) for t in database.totals("user")} == {
            "ann": (2, 0, 8.0), "bob": (1, 1, 6.0)
        }  # fmt: skip
        (day,) = database.totals("day")
        assert (len(day.key), day.cost, day.without_cost) == (10, 14.0, 0)  # type: ignore[arg-type]
        assert sorted((c.user_id, c.cost) for c in database.calls() if c.cost is not None) == [
            ("ann", 3.0), ("ann", 5.0), ("bob", 6.0)
        ]  # fmt: skip
        assert database.totals("side", since=4e9) == []
        with pytest.raises(ConfigurationError, match="by='hour'"):
            database.totals("hour")  # type: ignore[arg-type]


def test_a_summary_counts_refused_answers_as_the_totals_by_side_do(url):
    filled(url, prices=PRICES)
    with TrafficDatabase(url) as database:
        sides = database.summary().sides
        for total in database.totals("side"):
            side = sides[total.key]  # type: ignore[index]
            assert (side.cost, side.refused) == (total.cost, total.refused)
            assert (side.input_tokens, side.output_tokens) == (total.input_tokens, total.output_tokens)
    shown = CliRunner().invoke(app, ["summary", "--data", url]).output
    assert [cell for line in shown.splitlines() if "refused" in line for cell in line.split() if cell.isdigit()] == [
        "0", "1"
    ]  # fmt: skip


def test_a_refused_answer_makes_no_pair_and_no_outcome(url):
    filled(url, prices=PRICES)
    with TrafficDatabase(url) as database:
        assert database.summary().pairs == 0
        assert list(database.pairs()) == []
        escalated = [row for row in database.outcomes() if row.call.reason == "escalated"]
        assert [list(row.answers) for row in escalated] == [["strong"]]


def test_prices_that_are_given_count_before_those_of_the_log(url):
    filled(url)
    with TrafficDatabase(url) as database:
        assert [(t.cost, t.without_cost) for t in database.totals("side")] == [(None, 2), (None, 2)]
        priced = database.totals("side", prices={"big": Price(1e6, 0)})
        assert {t.key: (t.cost, t.without_cost) for t in priced} == {"strong": (7.0, 0), "weak": (None, 2)}


def test_what_a_refused_answer_cost_is_no_saving(url):
    filled(url, prices=PRICES)
    with TrafficDatabase(url) as database:
        # always strong: nothing read for the weak call of 5; what was spent on weak answers is lost
        assert estimated_saving(database.spending(), PRICES).value == -7.0  # type: ignore[union-attr]


def test_users_are_hashed_where_no_texts_are_stored_and_left_out_on_request(tmp_path):
    hashed, none = (f"sqlite:///{tmp_path / name}" for name in ("hashed.db", "none.db"))
    filled(hashed, texts="none")
    with TrafficDatabase(hashed) as database:
        users = {t.key for t in database.totals("user")}
        assert len(users) == 2
        assert not users & {"ann", "bob"}
    assert TrafficLog(none, user_key=None).user_key is None
    with pytest.raises(ConfigurationError, match="user_key"):
        TrafficLog(none, user_key=3)  # type: ignore[arg-type]


def test_the_command(url):
    filled(url, prices=PRICES)
    shown = CliRunner().invoke(app, ["summary", "--data", url, "--by", "user"])
    assert shown.exit_code == 0, shown.output
    assert "ann" in shown.stdout
    assert "8.00" in shown.stdout
    found = json.loads(CliRunner().invoke(app, ["summary", "--data", url, "--by", "model", "--json"]).stdout)
    assert found["by"] == "model"
    assert found["totals"][0] == {
        "key": "big", "answers": 2, "refused": 0, "shadows": 0, "input_tokens": 7, "output_tokens": 2, "cost": 7.0,
        "shadow_cost": None, "without_cost": 0,
    }  # fmt: skip
    wrong = CliRunner().invoke(app, ["summary", "--data", url, "--by", "hour"])
    assert isinstance(wrong.exception, ConfigurationError)
    wrong = CliRunner().invoke(app, ["summary", "--data", url, "--price", "big=1"])
    assert "--by" in str(wrong.exception)


def test_answers_without_a_cost_are_counted(url):
    filled(url)
    shown = CliRunner().invoke(app, ["summary", "--data", url, "--by", "side"])
    assert "4 answers have no cost" in shown.stdout
    priced = CliRunner().invoke(
        app, ["summary", "--data", url, "--by", "side", "--price", "big=1", "--price", "mini=2"]
    )
    assert "no cost" not in priced.stdout


def test_the_page(url, tmp_path):
    filled(url, prices=PRICES)
    with TrafficDatabase(url) as database:
        page = traffic_page(database)
        assert "<h2>By user</h2>" in page
        assert "ann" in page
        assert "refused" in page
    with TrafficLog(f"sqlite:///{tmp_path / 'other.db'}") as log:
        log.recording(decided("weak")).answered(Answer("x", "mini", 1, 1))
        with log.database() as database:
            assert "By user" not in traffic_page(database)


def test_many_users_are_summed_up_on_the_page(url):
    with TrafficLog(url, prices=PRICES) as log:
        for i in range(25):
            log.recording(decided("strong"), user=f"user {i}").answered(Answer("x", "big", i, 1))
        with log.database() as database:
            page = traffic_page(database)
    assert "5 others" in page
    assert "user 24" in page
    assert "user 3<" not in page
