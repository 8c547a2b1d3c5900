"""routellm traffic: plan, summary, feedback and report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from routellm_core import Price
from routellm_core.cli import main
from routellm_core.errors import ConfigurationError
from routellm_core.log import Label, TrafficDatabase
from routellm_core.log.plan import pairs_for, plan_traffic
from routellm_core.report.traffic import drift_sentence, measured_saving, observed_saving
from tests.core.log.rows import a_call, a_discarded, an_answer, call_id, fill


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/traffic.db"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(argv))
    assert end.value.code in (0, None), capsys.readouterr()
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(argv))
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_plan_has_the_costs_of_the_field_notes(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "traffic", "plan", "--calls-per-day", "5000", "--price", "gpt=2/8", "--price", "mini=.4/1.6",
              "--json")  # fmt: skip
    made = json.loads(out)
    assert made["pairs_a_day"] == 250
    assert made["shadow"] / made["routed"] == pytest.approx(0.086, abs=0.001)
    assert made["shadow"] / 250 == pytest.approx(0.0022, abs=0.0001)
    assert made["judge"] / 250 == pytest.approx(0.0051, abs=0.0001)
    assert [m["pairs"] for m in made["milestones"]][:3] == [100, 400, 800]
    table = run(capsys, "traffic", "plan", "--calls-per-day", "5000", "--price", "gpt=2/8", "--price", "mini=.4/1.6")
    assert "shadow calls 0.55 (+8.6%)" in table


def test_plan_without_prices_and_with_wrong_ones(capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(run(capsys, "traffic", "plan", "--calls-per-day", "100", "--json"))
    assert made["routed"] is None
    assert "given for 1 models" in refused(capsys, "traffic", "plan", "--calls-per-day", "9", "--price", "gpt=2/8")
    assert "--judge 'x' has no price" in refused(
        capsys, "traffic", "plan", "--calls-per-day", "9", "--price", "a=2/8", "--price", "b=1", "--judge", "x"
    )
    assert plan_traffic(10, shadow=0.0).milestones[0].days is None
    assert pairs_for(0.026) == pytest.approx((2.57 * 0.26 / 0.026) ** 2, abs=1)
    assert pairs_for(0.02, flips=0.1) == pytest.approx(pairs_for(0.02) / 0.64, rel=0.01)
    for gain, flips in ((0.0, 0.0), (0.1, 0.5)):
        with pytest.raises(ConfigurationError):
            pairs_for(gain, flips=flips)


def test_summary(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert "no traffic log" in refused(capsys, "traffic", "summary", "--data", url)
    with TrafficDatabase(url, create=True) as database:
        fill(database, 100, pair_every=10)
        database.add_labels([Label(call_id(0), "gold", 1.0, 0.0)])
        database.count_dropped({"queue full": 3, "shadow skipped": 2})
    found = json.loads(run(capsys, "traffic", "summary", "--data", url, "--json"))
    assert found["calls"] == 100
    assert found["strong_fraction"] == 0.0
    assert (found["pairs"], found["pairs_without_label"]) == (10, 9)
    assert (found["dropped"], found["skipped_shadows"]) == (3, 2)
    table = run(capsys, "traffic", "summary", "--data", url)
    assert "10 pairs, 9 without a label" in table
    assert "not logged: 3 queue full" in table
    late = json.loads(run(capsys, "traffic", "summary", "--data", url, "--since", "1970-01-01T00:18", "--json"))
    assert late["calls"] == 20
    assert "--since 'soon'" in refused(capsys, "traffic", "summary", "--data", url, "--since", "soon")
    assert "no calls" in run(capsys, "traffic", "summary", "--data", url, "--since", "2020-01-01")


OURS = [{"call_id": call_id(1), "score": 0.5}, {"call_id": call_id(2), "score": 1, "key": "length", "side": "strong"}]
LANGSMITH = [
    {"id": "11111111-0000-4000-8000-000000000000", "run_id": "run-3", "key": "score", "score": True, "value": None,
     "comment": "good", "created_at": "2026-11-01T08:00:00+00:00", "feedback_source": {"type": "api"}},
    {"id": "11111111-0000-4000-8000-000000000001", "run_id": "root-4", "key": "score", "score": 0.25},
    {"id": "11111111-0000-4000-8000-000000000002", "run_id": "run-3", "key": "note", "score": None, "comment": "hm"},
]  # fmt: skip
LANGFUSE = [
    {"id": "s1", "traceId": "0" * 31 + "5", "observationId": "o" * 16, "name": "score", "value": 0.75, "source": "API",
     "timestamp": "2026-11-01T08:00:00.000Z", "metadata": {"routellm": {"id": call_id(5)}}},
    {"id": "s2", "traceId": f"{6:031x}a", "name": "score", "value": "1"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "expected", "known"),
    [
        (OURS, {call_id(1): 0.5}, 2),
        (LANGSMITH, {call_id(3): 1.0, call_id(4): 0.25}, 2),
        (LANGFUSE, {call_id(5): 0.75, call_id(6): 1.0}, 2),
    ],
    ids=["ours", "langsmith", "langfuse"],
)
@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_feedback_from_files(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path, rows: Any, expected: Any, known: int, form: str
) -> None:
    with TrafficDatabase(url, create=True) as database:
        database.write(
            {
                "calls": [
                    a_call(i, run_id=f"run-{i}", parent_run_id=f"parent-{i}", trace_id=f"root-{i}") for i in range(6)
                ]
                + [a_call(6, trace_id=f"{6:031x}a")]
            }
        )
    file = tmp_path / f"scores.{form}"
    file.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    for new in (known, 0):
        out = run(capsys, "traffic", "feedback", "--data", str(file), "--out", url, "--json")
        assert json.loads(out) == {"rows": known, "new": new, "joined": known}
    with TrafficDatabase(url) as database:
        scores = {o.call.id: o.scores["weak"] for o in database.outcomes() if o.scores}
    assert scores == expected


def test_scores_of_ids_that_no_call_has_belong_to_none(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
) -> None:
    with TrafficDatabase(url, create=True) as database:
        database.write({"calls": [a_call(0), a_call(1, run_id="run-1")]})
    named = [{"call_id": call_id(0)}, {"run_id": "run-1"}, {"call_id": call_id(7)}, {"run_id": "run-7"}]
    file = tmp_path / "scores.jsonl"
    file.write_text("\n".join(json.dumps({**row, "score": 1}) for row in named))
    out = run(capsys, "traffic", "feedback", "--data", str(file), "--out", url)
    assert out.strip() == "4 scores, 4 of them new; 2 belong to a call of the log"


def test_feedback_from_a_table_with_a_scale(capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path) -> None:
    with TrafficDatabase(url, create=True) as database:
        fill(database, 3)
    file = tmp_path / "scores.csv"
    file.write_text(f"call_id,rating,source\n{call_id(0)},5,alice\n{call_id(1)},2,\n")
    assert "2 scores, 2 of them new; 2 belong" in run(
        capsys, "traffic", "feedback", "--data", str(file), "--out", url, "--scale", "1/5"
    )
    with TrafficDatabase(url) as database:
        assert {row.source: row.score for row in database.feedback()} == {"alice": 1.0, "import": 0.25}
    assert "score 5 is not from 0 to 1" in refused(capsys, "traffic", "feedback", "--data", str(file), "--out", url)
    assert "--scale '5'" in refused(capsys, "traffic", "feedback", "--data", str(file), "--out", url, "--scale", "5")
    file.write_text("who,score\nme,1\n")
    assert "names no call" in refused(capsys, "traffic", "feedback", "--data", str(file), "--out", url)


def test_report(capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path) -> None:
    day = 86_400.0
    with TrafficDatabase(url, create=True) as database:
        calls, answers = [], []
        for i in range(2000):
            at, side = day * (i // 250), "strong" if i % 4 == 0 else "weak"
            rate = 0.1 + 0.2 * (i >= 1500) + (i % 7) / 20
            calls.append(a_call(i, created=at, side=side, win_rate=rate, p_shadow=0.1))
            answers.append(an_answer(i, side, created=at, input_tokens=1000, output_tokens=1000))
            if i % 10 == 0:
                other = "weak" if side == "strong" else "strong"
                answers.append(an_answer(i, other, "shadow", created=at, input_tokens=1000, output_tokens=2000))
        database.write({"calls": calls, "answers": answers})
        database.count_dropped({"<script>": 1})
        database.save_state("learn", {"history": [{"at": 5 * day, "pairs": 400, "sentence": "It <b>gains</b>."}]})
        prices = {"strong": Price(10.0, 10.0), "weak": Price(1.0, 1.0)}
        saving = measured_saving(database, prices)
        assert saving is not None
        # a weak call with its pair: strong would have cost .03 and weak cost .002; a strong one saves nothing
        assert saving.value == pytest.approx(1500 * 0.028)
        assert saving.pairs == 100
        assert "differ from those before" in (drift_sentence(database.days()) or "")
        assert drift_sentence(database.days(until=3 * day)) is None
    page = tmp_path / "traffic.html"
    run(capsys, "traffic", "report", "--data", url, "--out", str(page), "--price", "strong=10", "--price", "weak=1")
    text = page.read_text()
    # sentences wrap: a table as wide as one of them can be neither read nor printed
    assert re.search(r'<tr class="prose"><th[^>]*>[^<]*</th><td>400</td><td>It &lt;b&gt;gains', text)
    assert "tr.prose td:last-child{white-space:normal" in text
    for words in ("2,000 calls from 1970-01-01 to 1970-01-08", "Measured: 42.00", "Estimated: 27.00", "400",
                  "It &lt;b&gt;gains&lt;/b&gt;.", "&lt;script&gt;", "differ from those before"):  # fmt: skip
        assert words in text
    assert "<script" not in text
    # 500 strong calls at .02, 1,500 weak ones at .002
    assert 'aria-label="cost as routed 13.00, always strong 55.00, measured"' in text
    assert ">cost</th>" in text
    assert "the currency of the prices" in text
    run(capsys, "traffic", "report", "--data", url, "--out", str(page), "--price", "strong=10", "--price", "weak=1",
        "--currency", "USD")  # fmt: skip
    text = page.read_text()
    for words in ("Measured: 42.00 USD", "Estimated: 27.00 USD", "as routed: 13.00 USD", ">cost, USD</th>"):
        assert words in text
    assert "expected an .html file" in refused(capsys, "traffic", "report", "--data", url, "--out", "x.txt")
    run(capsys, "traffic", "report", "--data", url, "--out", str(page), "--since", "2020-01-01")
    assert "no calls in this period" in page.read_text()


@pytest.mark.parametrize("shadows_of", [("strong", "weak"), ("weak",)])
def test_saving_is_measured_over_weak_calls_whatever_had_a_chance_of_a_shadow(url: str, shadows_of: Any) -> None:
    calls, answers = [], []
    saved, failed = 0.0, 0
    for i in range(1200):
        observed = i < 600  # strong answers, and nothing is shadowed
        side = "strong" if observed or i % 3 == 0 else "weak"
        # every sixth call has its shadow for sure, which are the expensive ones; of the others every fifth
        expensive = i % 6 == 1
        p = 0.0 if observed or side not in shadows_of else 1.0 if expensive else 0.2
        costs = {"strong": 0.010 if expensive else 0.002 + 0.001 * (i % 2), "weak": 0.0005}
        error = "TimeoutError" if side == "weak" and i % 50 == 2 else None
        calls.append(a_call(i, side=side, p_shadow=p))
        answers.append(an_answer(i, side, cost=None if error else costs[side], error=error))
        if p == 1.0 or (p and (i // 6) % 5 == 0):
            other = "weak" if side == "strong" else "strong"
            answers.append(an_answer(i, other, "shadow", cost=costs[other]))
        if side == "weak" and not error:
            saved += costs["strong"] - costs["weak"]
        failed += bool(error)
    assert failed
    with TrafficDatabase(url, create=True) as database:
        database.write({"calls": calls, "answers": answers})
        saving = measured_saving(database, {})
    assert saving is not None
    assert saving.low is not None
    assert saving.high is not None
    assert saving.low < saved < saving.high
    assert saving.value == pytest.approx(saved, rel=0.05)


def test_without_pairs_of_weak_calls_no_saving_is_measured(url: str) -> None:
    with TrafficDatabase(url, create=True) as database:
        database.write(
            {
                "calls": [a_call(i, side="strong", p_shadow=1.0) for i in range(10)],
                "answers": [
                    an_answer(i, side, kind, cost=0.1)
                    for i in range(10)
                    for side, kind in (("strong", "routed"), ("weak", "shadow"))
                ],
            }
        )
        assert measured_saving(database, {}) is None


def test_a_saving_is_that_of_the_calls_of_a_period_less_what_refused_answers_cost(url: str) -> None:
    calls = [a_call(i, p_shadow=1.0) for i in range(20)]
    answers = [an_answer(i, cost=0.1) for i in range(20)]
    answers += [an_answer(i, "strong", "shadow", cost=1.0) for i in range(20)]
    for i in (20, 21, 22):
        calls.append(a_call(i, side="strong", reason="escalated"))
        answers.append(an_answer(i, "strong", cost=1.0))
    thrown_away = [a_discarded(i, f"r{i}", cost=0.5) for i in (20, 21, 22)]
    # decided in the period and answered after it, and the other way round
    calls += [a_call(23, p_shadow=1.0), a_call(900)]
    answers += [an_answer(23, created=5000.0, cost=0.1), an_answer(900, created=1010.0, cost=0.1)]
    with TrafficDatabase(url, create=True) as database:
        database.write({"calls": calls, "answers": answers, "discarded": thrown_away})
        saving = measured_saving(database, {}, until=1500.0)
        assert saving is not None
        assert saving.value == pytest.approx(21 * 0.9 - 3 * 0.5)
        assert (saving.low, saving.high) == pytest.approx((saving.value, saving.value))


def test_an_observed_week_says_what_would_have_been_decided_and_saved(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
) -> None:
    calls, answers = [], []
    for i in range(100):
        calls.append(
            a_call(i, side="strong", reason="observed", p_strong=1.0, p_shadow=0.5, win_rate=0.8 if i % 4 else 0.2)
        )
        answers.append(an_answer(i, "strong", cost=1.0))
        if i % 2 == 0:
            answers.append(an_answer(i, "weak", "shadow", cost=0.2))
    with TrafficDatabase(url, create=True) as database:
        database.write({"calls": calls, "answers": answers})
        saving = observed_saving(database, {})
        assert saving is not None
        assert (saving.value, saving.pairs) == (pytest.approx(25 * 0.8), 25)  # type: ignore[comparison-overlap]
    found = json.loads(run(capsys, "traffic", "summary", "--data", url, "--json"))
    assert found["observed"] == {"calls": 100, "strong": 75}
    assert "100 of them only observed: by their win rates, 75.0% would have" in run(
        capsys, "traffic", "summary", "--data", url
    )
    page = tmp_path / "traffic.html"
    run(capsys, "traffic", "report", "--data", url, "--out", str(page))
    assert "75.0% of them would have been strong, and routing would have saved <b>20.00</b>" in page.read_text()


@pytest.mark.parametrize("command", ["report", "summary"])
def test_prices_that_no_answer_goes_by_are_named(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path, command: str
) -> None:
    with TrafficDatabase(url, create=True) as database:
        fill(database, 10)
    options = ["--out", str(tmp_path / "t.html")] if command == "report" else ["--by", "model"]
    priced = ["traffic", command, "--data", url, *options, "--price", "the-weak-one=1"]
    with pytest.raises(SystemExit):
        main([*priced, "--price", "the-waek-one=1"])
    assert (
        "of no use for the-waek-one: no answer of this period is by that name. Models in the log: the-weak-one"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(priced)
    assert capsys.readouterr().err == ""
