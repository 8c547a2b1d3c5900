"""What routing is worth with two small real models: from an app's traffic to a router, and measured on new questions.

    python benchmarks/real_models_proof.py [--out DIR] [--folder DIR]

The models are those of ``examples/small_models.py``; they come from the package index, so that this needs a network
once and no key. 600 questions of three kinds are the traffic of an app that routes by the bundled router and has the
other model answer, too, in the background (``shadow=1``); `learn` makes a router from that log. 300 further questions,
which nothing has seen, say what it is worth: quality, cost and share of strong calls of always strong, always weak, a
random mix, the bundled router and the learned one, with 95 % intervals. All replies are kept on disk, so that a second
run takes seconds and says the same. It writes the table as Markdown, and the report as a page.

Prices are assumed, since nobody sells these models: 0.20 and 0.10 for a million tokens, by their parameters. A call of
the strong model costs more than twice as much, because its worked examples are read each time.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from small_models import (
    KINDS,
    STRONG,
    WEAK,
    NoModelsError,
    Question,
    RememberedReplies,
    chat_models,
    default_folder,
    questions,
    running,
)

from langchain_routellm import ChatRouteLLM
from routellm_core import Price, Shadow, TrafficLog, load_router
from routellm_core.data import Outcome
from routellm_core.data.records import Tokens
from routellm_core.evaluation.benchmarks import benchmark_of
from routellm_core.evaluation.costs import Money
from routellm_core.log import TrafficDatabase
from routellm_core.report import save_evaluation
from routellm_core.report.results import evaluate_priced
from routellm_core.routers import Router, RouterFolder
from routellm_core.training import learn

PRICES = {STRONG: Price(0.2, 0.2), WEAK: Price(0.1, 0.1)}
TRAFFIC, NEW = 600, 300
SHARE = 0.5
DRAWS = 10_000

Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description="What routing is worth with two small real models.")
    parser.add_argument("--out", type=Path, default=Path("proof"), help="folder for the table and the page")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where models and replies are kept")
    given = parser.parse_args()
    logging.getLogger("routellm_core").setLevel(logging.ERROR)  # of a share that misses, which online=True mends
    given.folder.mkdir(parents=True, exist_ok=True)
    made = questions(TRAFFIC + NEW)
    try:
        with running(given.folder) as servers:
            replies = RememberedReplies(given.folder / "replies.db")
            with httpx.Client(transport=replies, timeout=300) as client, tempfile.TemporaryDirectory() as place:
                models = chat_models(servers, http_client=client)
                learned = learned_from_traffic(models, made[:TRAFFIC], Path(place))
                outcomes = [outcome_of(question, models) for question in made[TRAFFIC:]]
    except NoModelsError as exc:
        raise SystemExit(f"skipped: {exc}") from None
    given.out.mkdir(parents=True, exist_ok=True)
    routers = {"learned": learned, "bundled": load_router()}
    text = comparison(made[TRAFFIC:], outcomes, routers)
    (given.out / "table.md").write_text(text, encoding="utf-8")
    print("\n" + text)
    report(outcomes, routers, given.out)


def learned_from_traffic(models: tuple[Any, Any], traffic: Sequence[Question], place: Path) -> Router:
    """The app: it routes, both models answer, and a router is learned from the log."""
    url, gold = f"sqlite:///{place}/traffic.db", {question.prompt: question for question in traffic}
    strong, weak = models
    log = TrafficLog(url, prices={"strong": PRICES[STRONG], "weak": PRICES[WEAK]})
    shadow = Shadow(1.0, concurrency=1, timeout=300)  # each server has one thread
    app = ChatRouteLLM(strong=strong, weak=weak, strong_fraction=SHARE, online=True, log=log, shadow=shadow)
    for i, question in enumerate(traffic):
        app.invoke(question.prompt)
        if sys.stderr.isatty():
            print(f"\r{i + 1} of {len(traffic)} calls", end="", file=sys.stderr, flush=True)
    log.flush()
    log.close()

    def grader(answer: str, right: None, prompt: str) -> float:
        return float(gold[prompt].is_right(answer))

    with TrafficDatabase(url) as database:
        found = learn(database, place / "router", grader=grader, strong_fraction=SHARE)
    print(f"learn: {found.sentence}")
    if found.outcome != "gains":
        raise SystemExit("learn recommends no router; there is nothing to compare")
    return RouterFolder(place / "router").load()


def outcome_of(question: Question, models: tuple[Any, Any]) -> Outcome:
    """Both models' answers to a question, graded, with their tokens."""
    answers = {name: model.invoke(question.prompt) for name, model in zip((STRONG, WEAK), models, strict=True)}
    return Outcome(
        prompt=question.prompt,
        scores={name: float(question.is_right(answer.text)) for name, answer in answers.items()},
        tokens={
            name: Tokens(input=answer.usage_metadata["input_tokens"], output=answer.usage_metadata["output_tokens"])
            for name, answer in answers.items()
        },
    )


# --- measured ---


def comparison(made: Sequence[Question], outcomes: Sequence[Outcome], routers: dict[str, Router]) -> str:
    """The tables: what each policy scores and costs, what the learned router gains, and where the models differ."""
    prompts = [outcome.prompt for outcome in outcomes]
    score, cost = (
        np.array([[value(o, name) for name in (WEAK, STRONG)] for o in outcomes]) for value in (_score, _cost)
    )
    chances: dict[str, Floats] = {"always weak": np.zeros(len(prompts)), "always strong": np.ones(len(prompts))}
    for name, router in routers.items():
        rates = router.win_rates(prompts)
        # the calibration of the router, which no new question has decided
        assert router.calibration is not None
        threshold = router.calibration.threshold(strong_fraction=SHARE)
        chances[f"{name} router"] = (rates >= threshold).astype(float)
    learned = chances["learned router"]
    chances["random mix, same share"] = np.full(len(prompts), learned.mean())
    order = ("always strong", "always weak", "random mix, same share", "bundled router", "learned router")
    draws = np.random.default_rng(0).integers(0, len(prompts), (DRAWS, len(prompts)))
    quality, money = ({name: _mixed(table, chances[name]) for name in order} for table in (score, cost))
    lines = ["| policy | strong calls | right answers, % | money for 1,000 calls |", "|---|---|---|---|"]
    for name in order:
        right, spent = (_interval(values, draws) for values in (100.0 * quality[name], 1000.0 * money[name]))
        lines.append(f"| {name} | {chances[name].mean():.0%} | {right:.1f} | {spent:.4f} |")
    lines += ["", "| the learned router against | right answers, points | money saved, % |", "|---|---|---|"]
    for name in order[:-1]:
        better = _interval(100.0 * (quality["learned router"] - quality[name]), draws)
        saved = _interval(money["learned router"], draws, 100.0, money[name])
        lines.append(f"| {name} | {better:+.1f} | {saved:+.0f} |")
    lines += ["", "| kind | questions | strong right | weak right | either | learned router | its strong calls |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for kind in KINDS:
        rows = np.array([question.kind == kind for question in made])
        weak, strong = score[rows].mean(axis=0)
        either, routed, share = (v[rows].mean() for v in (score.max(axis=1), quality["learned router"], learned))
        lines.append(
            f"| {kind} | {rows.sum()} | {strong:.0%} | {weak:.0%} | {either:.0%} | {routed:.0%} | {share:.0%} |"
        )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Shown:
    """A figure with its 95 % interval, for a table."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def _interval(values: Floats, draws: npt.NDArray[np.int64], scale: float = 1.0, beside: Floats | None = None) -> _Shown:
    """The mean of values (n,), or by how much their sum is below that of others as a share; bootstrapped."""

    def figure(rows: Any) -> Any:
        mean = values[rows].mean(axis=-1)
        return scale * (mean if beside is None else 1.0 - mean / beside[rows].mean(axis=-1))

    low, high = np.quantile(figure(draws), (0.025, 0.975))
    return _Shown(float(figure(np.arange(values.size))), float(low), float(high))


def _score(outcome: Outcome, name: str) -> float:
    return outcome.scores[name]


def _cost(outcome: Outcome, name: str) -> float:
    used = outcome.tokens[name]
    return PRICES[name].cost(int(used.input or 0), int(used.output or 0))


def _mixed(table: Floats, chance: Floats) -> Floats:
    """Score or cost (n,) of each question when it goes to strong with this chance."""
    return np.asarray(table[:, 0] + chance * (table[:, 1] - table[:, 0]))


def report(outcomes: Sequence[Outcome], routers: dict[str, Router], out: Path) -> None:
    """The page that `routellm evaluate` makes of such outcomes, and its verdict."""
    benchmark = benchmark_of(outcomes, name="300 new questions", strong=STRONG, weak=WEAK)
    result = evaluate_priced(
        benchmark,
        {name: router.win_rates(list(benchmark.prompts)) for name, router in routers.items()},
        money=Money(PRICES),
        routers=routers,
        command="python benchmarks/real_models_proof.py",
    )
    for router in result["routers"]:
        print(f"{router['name']}: {router['verdict']['sentence']}")
    print(f"written: {', '.join(str(path) for path in [out / 'table.md', *save_evaluation([result], out)])}")


if __name__ == "__main__":
    main()
