"""From a traffic log to a proved router: what is labelled, learned, written, refused and counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import Calibration, load_router
from routellm_core.data.seen_prompts import prompt_fingerprint
from routellm_core.embedders import Embedder, bundled_embedder
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.evaluation import replay
from routellm_core.labelling.chat_models import Reply
from routellm_core.log import Feedback, Label, TrafficDatabase
from routellm_core.log.schema import calls as calls_table
from routellm_core.log.vectors import EMBEDDER_STATE, probe
from routellm_core.routers.base import Router
from routellm_core.routers.folder import RouterFolder
from routellm_core.statistics.sequential import Gain
from routellm_core.training import correct_router, learn
from routellm_core.training.learning import advice
from tests.core.log.rows import a_call, an_answer, call_id
from tests.core.training.test_correction import traffic

SHARE = 0.3
COSTS = {"strong": 0.003, "weak": 0.0004}


class Log:
    """A log of simulated calls; the truth is in `strong` and `weak`."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}/traffic.db"
        self.database = TrafficDatabase(self.url, create=True)
        self.router = load_router()
        self.count = 0
        self.strong: list[float] = []
        self.weak: list[float] = []
        self.prompts: list[str] = []

    def calls(
        self,
        n: int,
        *,
        seed: int = 0,
        shadow: float = 1.0,
        explore: float = 0.0,
        router: Router | None = None,
        truth: Callable[..., tuple[list[str], np.ndarray, np.ndarray]] = traffic,
        model: str | None = None,
        **changes: Any,
    ) -> Log:
        """Add n calls that `router` decides at 30 % strong; `model` answers on both sides where it is named."""
        named = {} if model is None else {"model": model}
        rng = np.random.default_rng(1000 + seed)
        router = router or self.router
        prompts, strong, weak = truth(n, seed)
        rates = router.win_rates(prompts)
        threshold = Calibration.from_win_rates(rates).threshold(strong_fraction=SHARE)
        p = np.where(rates >= threshold, 1 - explore / 2, explore / 2)
        is_strong = rng.random(n) < p
        rows: dict[str, list[dict[str, Any]]] = {"calls": [], "answers": []}
        for i in range(n):
            number, side = self.count + i, "strong" if is_strong[i] else "weak"
            rows["calls"].append(
                a_call(
                    number,
                    **{
                        "prompt": prompts[i],
                        "prompt_hash": None,
                        "win_rate": float(rates[i]),
                        "threshold": float(threshold),
                        "router": f"{router.name}:{router.fingerprint[:12]}",
                        "p_strong": float(p[i]),
                        "p_shadow": shadow,
                        "side": side,
                        **changes,
                    },
                )
            )
            rows["answers"].append(an_answer(number, side, cost=COSTS[side], text=f"{side} {number}", **named))
            if rng.random() < shadow:
                other = "weak" if is_strong[i] else "strong"
                rows["answers"].append(
                    an_answer(number, other, "shadow", cost=COSTS[other], text=f"{other} {number}", **named)
                )
        assert self.database.write(rows) == 0
        self.count += n
        self.prompts += prompts
        self.strong += strong.tolist()
        self.weak += weak.tolist()
        return self

    def label(self, first: int = 0, last: int | None = None) -> Log:
        """Gold labels of some calls."""
        numbers = range(first, self.count if last is None else last)
        self.database.add_labels(Label(call_id(i), "gold", self.strong[i], self.weak[i]) for i in numbers)
        return self

    def grader(self, answer: str, gold: None) -> float:
        """Knows the truth of the answers that `calls` wrote."""
        side, number = answer.split()
        return (self.strong if side == "strong" else self.weak)[int(number)]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


class Judge:
    """Prefers the answer that is truly better; a tie where neither is."""

    name = "referee"
    settings: dict[str, Any] = {}  # noqa: RUF012 - as the protocol has it

    def __init__(self, log: Log) -> None:
        self.log, self.asked = log, 0

    async def ask(self, system: str | None, user: str) -> Reply:
        self.asked += 1
        await asyncio.sleep(0)
        first, second = (user.split(f"<answer_{letter}>\n")[1].split("\n</answer")[0] for letter in "ab")
        difference = self.log.grader(first, None) - self.log.grader(second, None)
        return Reply("[[A]]" if difference > 0 else "[[B]]" if difference < 0 else "[[C]]", 100, 5)


def chance(n: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Traffic on which nothing can be learned."""
    prompts, strong, weak = traffic(n, seed)
    rows = np.random.default_rng(seed).permutation(n)
    return prompts, strong[rows], weak[rows]


def test_a_gain_is_proved_and_everything_an_app_needs_is_written(log: Log, tmp_path: Path) -> None:
    log.calls(450).label()
    learned = learn(log.url, tmp_path / "mine", draws=100)
    assert learned.outcome == "gains"
    assert learned.sentence.startswith("Use it:")
    assert learned.looked
    assert learned.gain is not None
    assert learned.in_use_gain is not None
    assert learned.over_in_use is not None
    assert learned.gain.value > learned.in_use_gain.value
    assert learned.over_in_use.value >= 0
    router = load_router(tmp_path / "mine")
    assert router.calibration is not None
    prompts, strong, weak = traffic(2000, 77)
    sent = router.win_rates(prompts) >= router.calibration.threshold(strong_fraction=SHARE)
    assert sent.mean() == pytest.approx(SHARE, abs=0.06)
    truth = ((sent - sent.mean()) * (strong - weak)).mean()
    # the interval, out of fold, is about routers from nine tenths of the pairs
    assert learned.gain.estimate().low < truth < learned.gain.estimate().high + 0.02
    version = RouterFolder(tmp_path / "mine").version_path()
    told = json.loads((version / "verdict.json").read_text())
    assert told["outcome"] == "gains"
    assert "</html>" in (version / "evaluation" / "report.html").read_text()
    assert "traffic log" in (version / "README.md").read_text()
    for text in log.prompts[:50]:
        assert text not in (version / "verdict.json").read_text()


def without_texts(log: Log, embedder: Embedder, since: float = 0.0) -> str:
    """The log as one with ``texts="none"`` and an embedder would hold it."""
    for call in list(log.database.calls()):
        if call.prompt is None:
            continue
        vector = np.asarray(embedder.embed([call.prompt])[0], dtype="<f2").tobytes()
        with log.database.writing() as connection:
            connection.execute(
                calls_table.update()
                .where(calls_table.c.id == call.id)
                .values(prompt=None, vector=vector, prompt_hash=f"{prompt_fingerprint(call.prompt):032x}")
            )
    log.database.save_state(EMBEDDER_STATE, {"sample": probe(embedder), "since": since})
    return log.url


def test_one_model_on_both_sides_is_told_apart_by_side(log: Log, tmp_path: Path) -> None:
    learned = learn(log.calls(450, model="the-one").label().url, tmp_path / "mine", draws=20)
    assert learned.outcome == "gains"
    page = (RouterFolder(tmp_path / "mine").version_path() / "evaluation" / "report.html").read_text()
    assert "the-one" not in page


def test_vectors_teach_what_texts_do(log: Log, tmp_path: Path) -> None:
    log.calls(420).label()
    with_texts = learn(log.url, tmp_path / "texts", draws=50)
    log.database.save_state("learn", {})
    learned = learn(without_texts(log, bundled_embedder()), tmp_path / "vectors", draws=50)
    assert learned.outcome == with_texts.outcome == "gains"
    assert learned.gain is not None
    assert with_texts.gain is not None
    assert learned.gain.value == pytest.approx(with_texts.gain.value, abs=0.01)
    fresh = traffic(300, 9)[0]
    rates = [load_router(tmp_path / folder).win_rates(fresh) for folder in ("texts", "vectors")]
    assert np.corrcoef(*rates)[0, 1] > 0.99  # type: ignore[call-overload]
    calibrations = [load_router(tmp_path / folder).calibration for folder in ("texts", "vectors")]
    assert calibrations[0] is not None
    assert calibrations[1] is not None
    wanted = calibrations[0].threshold(strong_fraction=SHARE)
    assert calibrations[1].threshold(strong_fraction=SHARE) == pytest.approx(wanted, abs=0.02)
    # next week's run is about what is new, by the hashes
    new = load_router(tmp_path / "vectors")
    log.calls(150, seed=1, router=new).label(420)
    again = learn(without_texts(log, bundled_embedder()), tmp_path / "vectors", draws=50)
    assert again.counts["seen"] == learned.pairs
    assert again.counts["labelled"] + again.counts["duplicates"] == 570 - learned.pairs
    assert "without_text" not in again.counts


class Other:
    """Another embedder of the same dimension."""

    dimension = bundled_embedder().dimension

    def embed(self, texts: Any) -> Any:
        return np.asarray(bundled_embedder().embed([text[::-1] for text in texts]))


@pytest.mark.parametrize(("embedder", "since"), [(Other(), 0.0), (bundled_embedder(), 4e9)])
def test_vectors_of_another_embedder_are_passed_over_and_counted(
    log: Log, tmp_path: Path, embedder: Embedder, since: float
) -> None:
    log.calls(120).label()
    learned = learn(without_texts(log, embedder, since), tmp_path / "mine", draws=50)
    assert learned.outcome == "not yet"
    assert learned.counts["without_text"] == 120
    assert any("embedder=" in note for note in learned.notes)


def test_savings_are_those_of_the_static_mix_of_the_same_quality(log: Log, tmp_path: Path) -> None:
    learned = learn(log.calls(420).label().url, tmp_path / "mine", draws=50)
    assert learned.gain is not None
    assert learned.saved_share is not None
    assert learned.saving is not None
    better = np.mean(np.array(log.strong) - np.array(log.weak))
    assert learned.saved_share.value == pytest.approx(learned.gain.value / better, rel=0.05)
    more = COSTS["strong"] - COSTS["weak"]
    for end in ("value", "low", "high"):
        assert getattr(learned.saving, end) == pytest.approx(getattr(learned.saved_share, end) * more)
    assert learned.to_dict()["saving"] == learned.saving.to_dict()


@pytest.mark.parametrize(("pairs", "needed"), [(0, 400), (60, 340), (250, 150)])
def test_too_few_pairs_say_how_many_more(log: Log, tmp_path: Path, pairs: int, needed: int) -> None:
    log.calls(300, shadow=0.0 if not pairs else 1.0).label(0, pairs)
    learned = learn(log.url, tmp_path / "mine", draws=50)
    assert learned.outcome == "not yet"
    assert learned.needed is not None
    assert learned.needed >= needed - 20  # duplicates are dropped
    assert f"about {learned.needed:,} more pairs would tell" in learned.sentence
    assert not learned.looked
    assert not (tmp_path / "mine").exists()


def test_where_nothing_can_be_learned_nothing_is_recommended(log: Log, tmp_path: Path) -> None:
    learned = learn(log.calls(450, truth=chance).label().url, tmp_path / "mine", draws=50)
    assert learned.outcome == "not yet"
    assert learned.looked
    assert not (tmp_path / "mine").exists()


@pytest.mark.slow
def test_looks_are_counted_in_the_log_and_due_at_doublings(log: Log, tmp_path: Path) -> None:
    log.calls(450, truth=chance).label()
    assert learn(log.url, tmp_path / "mine").looked
    again = learn(log.url, tmp_path / "mine")
    assert not again.looked
    assert "next look is due at" in again.sentence
    log.calls(100, seed=1, truth=chance).label(450)
    assert not learn(log.url, tmp_path / "mine").looked
    log.calls(400, seed=2, truth=chance).label(550)
    assert learn(log.url, tmp_path / "mine").looked
    state = log.database.load_state("learn")
    assert state is not None
    assert [len(looks) for looks in state["looks"].values()] == [2]
    assert [entry["outcome"] for entry in state["history"]] == ["not yet", "not yet"]


def test_a_router_of_your_own_without_a_saved_form_is_corrected(log: Log, tmp_path: Path) -> None:
    class Length(Router):
        name = "length"

        def _win_rates(self, prompts: list[str]) -> list[float]:
            return [min(len(prompt) / 200, 1.0) for prompt in prompts]

    learned = learn(log.calls(430, router=Length()).label().url, tmp_path / "mine", router=Length(), draws=50)
    assert learned.outcome == "gains"
    assert "has no saved form: load the new one with load_router(" in " ".join(learned.notes)
    loaded = load_router(tmp_path / "mine", base=Length())
    assert loaded.win_rates(log.prompts).std() > 0


def test_a_better_router_in_use_is_kept(log: Log, tmp_path: Path) -> None:
    """One that learned from ten thousand pairs of the same traffic."""
    prompts, strong, weak = traffic(8000, 500)
    much = correct_router(load_router(), prompts, strong, weak)
    learned = learn(log.calls(420, router=much).label().url, tmp_path / "mine", router=much, draws=50)
    assert learned.over_in_use is not None
    assert (learned.outcome == "gains") == (learned.over_in_use.value >= 0)
    if learned.outcome == "keep":
        assert learned.sentence.startswith("Keep the router in use")
        assert not (tmp_path / "mine").exists()


def test_what_is_better_by_nothing_is_no_gain_over_the_router_in_use() -> None:
    """The two rules of a recommendation, on numbers."""
    sure, worse = Gain(0.05, 0.01, 0.2, 400), Gain(-0.001, 0.01, 0.2, 400)
    assert advice(sure, worse, looked=True) == "keep"
    assert advice(sure, Gain(0.0, 0.0, 0.0, 400), looked=True) == "gains"
    assert advice(sure, sure, looked=False) == "not yet"
    assert advice(Gain(0.01, 0.01, 0.2, 400), sure, looked=True) == "not yet"


def test_the_router_in_use_must_be_the_one_that_decided(log: Log, tmp_path: Path) -> None:
    log.calls(120, router=load_router("random"))
    with pytest.raises(ConfigurationError, match=r"decided by the router random:\w+, and .*pass router="):
        learn(log.url, tmp_path / "mine")
    assert learn(log.url, tmp_path / "mine", router=load_router("random")).outcome == "not yet"


def test_a_log_that_another_bundled_router_decided_says_how_to_learn_from_it(log: Log, tmp_path: Path) -> None:
    log.calls(120)
    with log.database.writing() as connection:
        connection.execute(calls_table.update().values(router=f"{log.router.name}:0123456789ab"))
    with pytest.raises(ConfigurationError, match=r"save it there with load_router.*--router bundled; or .*--since"):
        learn(log.url, tmp_path / "mine")


def test_a_grader_labels_what_has_no_label_and_once(log: Log, tmp_path: Path) -> None:
    log.calls(430).label(0, 30)
    graded = []

    def grader(answer: str, gold: None) -> float:
        graded.append(answer)
        return log.grader(answer, gold)

    learned = learn(log.url, tmp_path / "mine", grader=grader, draws=50)
    assert learned.outcome == "gains"
    assert learned.counts["new_labels"] == len(graded) / 2
    assert not any(int(answer.split()[1]) < 30 for answer in graded)
    before = len(graded)
    learn(log.url, tmp_path / "mine", grader=grader)
    assert len(graded) == before


def test_a_judge_is_asked_in_both_orders_and_paid_once(log: Log, tmp_path: Path) -> None:
    log.calls(150)
    judge = Judge(log)
    learned = learn(log.url, tmp_path / "mine", judge=judge)
    assert judge.asked == 2 * learned.counts["new_labels"] > 250
    labels = list(log.database.labels())
    assert {label.labeller.rpartition(":")[0] for label in labels} == {"judge:referee"}
    for label in labels:
        number = int(label.call_id, 16)
        assert label.strong_score - label.weak_score == log.strong[number] - log.weak[number]
    (tmp_path / "mine.journal").unlink()  # the labels are in the log
    before = judge.asked
    assert learn(log.url, tmp_path / "mine", judge=judge).counts["new_labels"] == 0
    assert judge.asked == before


def test_feedback_on_both_answers_is_a_label(log: Log, tmp_path: Path) -> None:
    log.calls(430)
    sides = [
        Feedback(f"{i}-{side}", score, call_id=call_id(i), side=side)  # type: ignore[arg-type]
        for i in range(430)
        for side, score in (("strong", log.strong[i]), ("weak", log.weak[i]))
    ]
    log.database.add_feedback(sides)
    learned = learn(log.url, tmp_path / "mine", draws=50)
    assert learned.counts["labelled"] + learned.counts["duplicates"] == 430
    assert learned.outcome == "gains"


def test_repeats_of_a_prompt_are_one_pair(log: Log, tmp_path: Path) -> None:
    def few(n: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
        prompts, strong, weak = traffic(n, seed)
        return [prompts[i // 4] + "!" * (i % 4) for i in range(n)], strong, weak

    learned = learn(log.calls(400, truth=few).label().url, tmp_path / "mine")
    assert learned.pairs <= 100
    assert learned.counts["duplicates"] >= 300


def test_failed_shadows_are_refused(log: Log, tmp_path: Path) -> None:
    log.calls(200).label()
    failed = [an_answer(1000 + i, "strong", "shadow", error="TimeoutError", text=None) for i in range(40)]
    log.database.write({"calls": [a_call(1000 + i, router="mf_vote") for i in range(40)], "answers": failed})
    with pytest.raises(DataError, match="of 240 shadow answers failed"):
        learn(log.url, tmp_path / "mine", router=load_router())


def test_next_week_is_about_what_is_new(log: Log, tmp_path: Path) -> None:
    log.calls(450).label()
    assert learn(log.url, tmp_path / "mine", draws=50).outcome == "gains"
    mine = load_router(tmp_path / "mine")
    log.calls(200, seed=5, router=mine).label(450)
    learned = learn(log.url, tmp_path / "mine")
    assert learned.outcome == "not yet"
    # what the router was trained on is left out
    assert learned.counts["seen"] >= 400
    assert learned.pairs <= 200


@pytest.mark.slow
def test_one_sided_feedback_teaches_where_the_log_was_explored(log: Log, tmp_path: Path) -> None:
    log.calls(6000, shadow=0.0, explore=0.1)
    sides = {row.call.id: row.call.side for row in log.database.outcomes()}
    scores = {"strong": log.strong, "weak": log.weak}
    log.database.add_feedback(
        Feedback(str(i), scores[sides[call_id(i)]][i], call_id=call_id(i)) for i in range(log.count)
    )
    learned = learn(log.url, tmp_path / "mine", draws=50)
    assert learned.one_sided
    assert learned.outcome == "gains"
    router = load_router(tmp_path / "mine")
    prompts, strong, weak = traffic(2000, 78)
    order = np.argsort(-router.win_rates(prompts))[:600]
    assert (strong - weak)[order].mean() > (strong - weak).mean() + 0.2


def test_one_sided_feedback_says_what_to_switch_on(log: Log, tmp_path: Path) -> None:
    log.calls(200, shadow=0.0)
    log.database.add_feedback(Feedback(str(i), 1.0, call_id=call_id(i)) for i in range(200))
    learned = learn(log.url, tmp_path / "mine")
    assert learned.outcome == "not yet"
    assert "set explore=0.05 and go on, or shadow=0.05" in " ".join(learned.notes)


def test_unknown_options_and_empty_logs_are_named(log: Log, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no option judges; it has"):
        learn(log.url, tmp_path / "mine", judges=None)  # type: ignore[call-arg]
    with pytest.raises(DataError, match="holds no calls"):
        learn(log.url, tmp_path / "mine")


# --- replay from the log ---


def test_replay_tells_what_another_router_would_have_scored(log: Log, tmp_path: Path) -> None:
    log.calls(3000, shadow=0.2).label()
    prompts = log.prompts

    class Hard(Router):
        name = "hard"

        def _win_rates(self, texts: list[str]) -> list[float]:
            return [0.9 if text.startswith(("Say", "Translate")) else 0.1 for text in texts]

    found = replay(log.database.outcomes(), router=Hard(), strong_fraction=SHARE)
    assert found.refusal is None
    assert found.quality is not None
    assert found.difference is not None
    strong, weak = np.array(log.strong), np.array(log.weak)
    hard = Hard().win_rates(prompts) >= 0.5
    truth = np.where(hard, strong, weak).mean()
    assert found.quality.low < truth < found.quality.high
    assert found.difference.low > 0
    assert found.cost is not None
    cost = np.where(hard, COSTS["strong"], COSTS["weak"]).mean()
    assert found.cost.value == pytest.approx(cost, rel=0.02)
    told = found.to_dict()
    assert set(told["quality"]) == set(told["difference"]) == {"value", "low", "high"}
    assert json.dumps(told)


def test_replay_of_pairs_alone_weights_by_the_chance_of_a_pair(log: Log) -> None:
    """Labels are on the pairs, a tenth of the calls: nothing else has a score."""
    log.calls(4000, shadow=0.1)
    pairs = [pair.call.id for pair in log.database.pairs()]
    log.database.add_labels(Label(i, "gold", log.strong[int(i, 16)], log.weak[int(i, 16)]) for i in pairs)
    found = replay(log.database.outcomes(), strong_fraction=0.6)
    assert found.refusal is None
    assert found.difference is not None
    calls = list(log.database.calls())
    rates = np.array([call.win_rate for call in calls])
    target = rates >= found.threshold
    in_use = np.array([call.side == "strong" for call in calls])
    truth = ((target.astype(float) - in_use) * (np.array(log.strong) - np.array(log.weak))).mean()
    assert found.difference.low <= truth <= found.difference.high
    assert found.scored == pytest.approx(0.1, abs=0.02)
    assert not found.notes


def test_replay_without_chance_is_refused_and_shows_no_figure(log: Log) -> None:
    log.calls(500, shadow=0.0).label()
    found = replay(log.database.outcomes(), strong_fraction=0.6)
    assert found.refusal is not None
    assert "no weighting can see what never happens" in found.refusal
    assert found.to_dict()["quality"] is None
    assert found.to_dict()["difference"] is None


def test_replay_is_about_calls_that_a_win_rate_decided(log: Log) -> None:
    log.calls(400, shadow=0.3)
    log.calls(50, seed=1, reason="forced")
    log.calls(20, seed=2, reason="win_rate", failover="strong")
    found = replay(log.database.outcomes(), strong_fraction=0.5)
    assert found.calls == 400
    assert found.left_out == {"forced": 50, "failover": 20}


def test_replay_leaves_out_a_week_that_was_observed_without_shadows(log: Log) -> None:
    log.calls(300, shadow=0.0, reason="observed")
    with pytest.raises(DataError, match=r"300 observed without a shadow.*with observe=, those that had a chance"):
        replay(log.database.outcomes(), strong_fraction=0.6)
    log.calls(600, seed=1, shadow=0.5).label()
    found = replay(log.database.outcomes(), strong_fraction=0.6)
    assert found.refusal is None
    assert found.left_out == {"observed without a shadow": 300}
    assert found.calls == 600


def test_replay_needs_one_policy_to_try(log: Log) -> None:
    log.calls(100)
    for options in ({}, {"strong_fraction": 0.2, "threshold": 0.5}):
        with pytest.raises(ConfigurationError, match="needs one of"):
            replay(log.database.outcomes(), **options)  # type: ignore[arg-type]
    log.calls(100, seed=1, router=load_router("random"))
    with pytest.raises(DataError, match="decided by 2 routers"):
        replay(log.database.outcomes(), strong_fraction=0.2)


def test_partial_feedback_is_called_a_sample(log: Log) -> None:
    log.calls(2000, shadow=0.0, explore=0.4)
    log.database.add_feedback(Feedback(str(i), 1.0, call_id=call_id(i)) for i in range(0, 2000, 3))
    found = replay(log.database.outcomes(), strong_fraction=0.5)
    assert "taken for a random sample" in " ".join(found.notes)
