"""How often the intervals of a verdict contain the truth, on simulated prompts whose truth is known.

    python benchmarks/verdict_coverage.py --out FILE [--samples 400] [--minutes 4] [--write docs/evaluation.md]

Needs no data and no key. A cell is a kind of pair, a way to count costs, a chosen or a fixed threshold, and a number of
prompts. In each sample of a cell `verdict` judges fresh prompts; the truth is what its thresholds achieve on 400,000
others. Each cell is written to FILE as soon as it is measured, and a run passes over those that are there: with
--minutes it stops after so long, to go on another time. With --write the table replaces the one in that page.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import numpy.typing as npt

from routellm_core.evaluation.verdict import Verdict, _Case, verdict
from routellm_core.statistics.intervals import Estimate
from routellm_core.statistics.metrics import complementary as complementary_scores

Floats = npt.NDArray[np.float64]

HEADING = "### Coverage of the intervals"
COLUMNS = (
    "gain",
    "gain at the threshold",
    "saving",
    "against strong",
    "against weak",
    "bound of the loss",
    "quality",
    "cost",
    "share",
)
DRAWS = 200
# the saving is printed with a gain alone; a share of fewer than so many says nothing
FEWEST = 30
FIXED = 0.5
_FRESH = 400_000


class Sample(NamedTuple):
    """Prompts: win rates (n,), scores of both models (n,), and for --costs tokens the length (n,) of each call."""

    rates: Floats
    strong: Floats
    weak: Floats
    tokens: Floats


def _right(rng: np.random.Generator, chance: Floats) -> Floats:
    return (rng.random(chance.size) < chance).astype(float)


def a_strong_model(rng: np.random.Generator, n: int) -> Sample:
    """80 % against 65 % right; the router knows where the weak model fails."""
    rates = rng.random(n)
    weak = _right(rng, np.clip(0.65 - 0.4 * (rates - 0.5), 0, 1))
    return Sample(rates, _right(rng, np.full(n, 0.8)), weak, rng.lognormal(0, 0.7, n))


def no_skill(rng: np.random.Generator, n: int) -> Sample:
    """80 % against 65 % right; the router guesses."""
    return Sample(rng.random(n), _right(rng, np.full(n, 0.8)), _right(rng, np.full(n, 0.65)), rng.lognormal(0, 0.7, n))


def better_weak(rng: np.random.Generator, n: int) -> Sample:
    """The model named as the strong one is the worse one, 60 % against 70 % right; the router knows a little."""
    rates = rng.random(n)
    strong = _right(rng, np.clip(0.6 + 0.4 * (rates - 0.5), 0, 1))
    return Sample(rates, strong, _right(rng, np.full(n, 0.7)), rng.lognormal(0, 0.7, n))


def _two_kinds(rng: np.random.Generator, n: int, first_right: float, second_right: float) -> Sample:
    first = rng.random(n) < 0.5
    rates = np.clip(np.where(first, 0.6, 0.4) + rng.normal(0, 0.25, n), 0.001, 0.999)
    strong = _right(rng, np.where(first, first_right, 0.15))
    weak = _right(rng, np.where(first, 0.15, second_right))
    return Sample(rates, strong, weak, rng.lognormal(0, 0.7, n))


def complementary(rng: np.random.Generator, n: int) -> Sample:
    """Each model is right on its kind of prompts, 35 % against 34 % in all; the router knows a little of the kind."""
    return _two_kinds(rng, n, 0.55, 0.53)


def equally_good(rng: np.random.Generator, n: int) -> Sample:
    """The same, but which of the models is better is chance alone."""
    return _two_kinds(rng, n, 0.54, 0.54)


def judged(rng: np.random.Generator, n: int) -> Sample:
    """A judge's scores from 1 to 10, 8.3 against 7.3 in the mean; the router knows where the gap is large."""
    rates = rng.random(n)
    strong = np.clip(np.round(rng.normal(8.5, 1.5, n)), 1, 10)
    weak = np.clip(np.round(rng.normal(8.7 - 2.5 * rates, 2.0)), 1, 10)
    return Sample(rates, strong, weak, rng.lognormal(0, 0.7, n))


KINDS: dict[str, Callable[[np.random.Generator, int], Sample]] = {
    "a strong model": a_strong_model,
    "no skill": no_skill,
    "better weak model": better_weak,
    "complementary": complementary,
    "equally good": equally_good,
    "judge's scores": judged,
}
COSTS = ("calls", "10 to 1", "5 to 5", "10 to 1 by length")


def costs_of(sample: Sample, name: str) -> dict[str, Any]:
    """The costs as `verdict` takes them; none for "calls"."""
    if name == "calls":
        return {}
    strong, weak = (10.0, 1.0) if name.startswith("10") else (5.0, 5.0)
    if name.endswith("length"):
        return {"strong_cost": strong * sample.tokens, "weak_cost": weak * sample.tokens}
    return {"strong_cost": strong, "weak_cost": weak}


class Truth:
    """What a threshold achieves on the fresh prompts of a kind.

    Args:
        fresh: Many prompts.
        strong_cost: Cost of a call of the strong model, a mean or (n,).
        weak_cost: The same for the weak model.
    """

    def __init__(self, fresh: Sample, strong_cost: npt.ArrayLike, weak_cost: npt.ArrayLike) -> None:
        order = np.argsort(fresh.rates)
        self._rates = fresh.rates[order]
        costs = [np.broadcast_to(cost, order.shape)[order] for cost in (strong_cost, weak_cost)]
        self._quality = _by_threshold(fresh.strong[order], fresh.weak[order])
        self._cost = _by_threshold(*costs)
        self._models = [
            (float(cost.mean()), float(score.mean()))
            for cost, score in zip(costs, (fresh.strong, fresh.weak), strict=True)
        ]

    def at(self, *thresholds: float) -> dict[str, float]:
        """The numbers that a verdict has intervals for, where each threshold routes as many prompts."""
        weak_calls = np.searchsorted(self._rates, thresholds)
        quality, cost = float(self._quality[weak_calls].mean()), float(self._cost[weak_calls].mean())
        (_, strong), (_, weak) = self._models
        (low_cost, low), (high_cost, high) = sorted(self._models)
        if high <= low or high_cost == low_cost:  # the best mix is a single model
            mix, mix_cost = max(high, low), low_cost
        else:
            mix = np.interp(cost, [low_cost, high_cost], [low, high])
            mix_cost = np.interp(quality, [low, high], [low_cost, high_cost])
        return {
            "share": 1.0 - float(weak_calls.mean()) / len(self._rates),
            "quality": quality,
            "cost": cost,
            "against strong": quality - strong,
            "against weak": quality - weak,
            "gain": quality - float(mix),
            "saving": 1.0 - cost / float(mix_cost) if mix_cost else np.nan,  # nothing to save on where the mix is free
        }


def _by_threshold(strong: Floats, weak: Floats) -> Floats:
    """The mean (n + 1,) where the first k prompts go to the weak model and the others to the strong one."""
    total = np.concatenate([[0.0], np.cumsum(weak)]) + np.concatenate([np.cumsum(strong[::-1])[::-1], [0.0]])
    return np.asarray(total / len(strong), dtype=np.float64)


def measure(kind: str, costs: str, fixed: bool, prompts: int, samples: int) -> dict[str, Any]:
    """The coverage of a cell: for each interval, how many contain the truth, and how many were printed."""
    fresh = KINDS[kind](np.random.default_rng(12345), _FRESH)
    if costs == "calls":  # of complementary models a call of either counts
        truths = {both: Truth(fresh, 1.0, float(both)) for both in (False, True)}
    else:
        truths = {both: Truth(fresh, **costs_of(fresh, costs)) for both in (False, True)}
    covered, printed = Counter[str](), Counter[str]()
    for i in range(samples):
        seed = [*(ord(letter) for letter in f"{kind}/{costs}/{fixed}"), prompts, i]
        sample = KINDS[kind](np.random.default_rng(seed), prompts)
        scores = sample.strong, sample.weak
        given = {**costs_of(sample, costs), "threshold": FIXED if fixed else None}
        with chosen_thresholds() as thresholds:
            found = verdict(sample.rates, *scores, **given, draws=DRAWS, seed=i)
        truth = truths[complementary_scores(*scores)]
        printed_at = truth.at(found.threshold)
        # the numbers are measured on halves, each with the threshold that the other one has chosen
        measured = truth.at(*(thresholds[1:] or [FIXED]))
        for name, estimate in intervals(found).items():
            true = printed_at["share"] if name == "share" else measured[name]
            printed[name] += 1
            covered[name] += estimate.low <= true <= estimate.high
        printed["gain at the threshold"] += 1
        covered["gain at the threshold"] += found.gain.low <= printed_at["gain"] <= found.gain.high
        printed["bound of the loss"] += 1
        covered["bound of the loss"] += -printed_at["against strong"] <= found.worst_loss
    cell = {"kind": kind, "costs": costs, "fixed": fixed, "prompts": prompts, "samples": samples}
    return {**cell, "covered": dict(covered), "printed": dict(printed)}


@contextmanager
def chosen_thresholds() -> Iterator[list[float]]:
    """Notes the thresholds that `verdict` chooses meanwhile: on all prompts, then on each half."""
    chosen: list[float] = []
    choose = _Case.choose

    def noted(case: _Case, rows: npt.NDArray[np.intp]) -> float:
        chosen.append(choose(case, rows))
        return chosen[-1]

    with mock.patch.object(_Case, "choose", noted):
        yield chosen


def intervals(found: Verdict) -> dict[str, Estimate]:
    """The intervals of a verdict; that of the saving, only where the verdict prints it."""
    out = {
        "gain": found.gain,
        "against strong": found.differences["always_strong"],
        "against weak": found.differences["always_weak"],
        "quality": found.quality,
        "cost": found.cost,
        "share": found.strong_fraction,
    }
    return out if found.saving is None else {**out, "saving": found.saving}


def table(cells: Sequence[dict[str, Any]]) -> str:
    """The cells as Markdown, each number the share of intervals that contain the truth, in percent."""
    lines = [f"| pair | costs | threshold | prompts | {' | '.join(COLUMNS)} |", "|" + "---|" * (4 + len(COLUMNS))]
    order = list(product(KINDS, COSTS, (False, True)))
    for cell in sorted(cells, key=lambda c: (order.index((c["kind"], c["costs"], c["fixed"])), c["prompts"])):
        shown = []
        for name in COLUMNS:
            covered, printed = cell["covered"].get(name, 0), cell["printed"].get(name, 0)
            few = "" if printed == cell["samples"] else f" ({printed})"
            shown.append(f"{100 * covered / printed:.1f}{few}" if printed >= FEWEST else "")
        threshold = "fixed" if cell["fixed"] else "chosen"
        lines.append(f"| {cell['kind']} | {cell['costs']} | {threshold} | {cell['prompts']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Replace the table below `HEADING` in a page."""
    before, heading, rest = page.read_text(encoding="utf-8").partition(HEADING)
    if not heading:
        raise SystemExit(f"{page} has no heading {HEADING!r}")
    start = rest.index("\n| ") + 1
    end = rest.index("\n\n", start)
    page.write_text(before + heading + rest[:start] + text + rest[end:], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--prompts", type=int, nargs="+", default=[60, 300])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--write", type=Path, help="the page with the table")
    given = parser.parse_args()
    begun = time.monotonic()
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    cells = [json.loads(line) for line in lines]
    known = {(c["kind"], c["costs"], c["fixed"], c["prompts"]) for c in cells}
    wanted = list(product(KINDS, COSTS, (False, True), given.prompts))
    for cell in wanted:
        if cell in known or time.monotonic() - begun > 60.0 * given.minutes:
            continue
        cells.append(measure(*cell, samples=given.samples))
        with given.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(cells[-1]) + "\n")
    print(table(cells))
    if given.write is not None:
        write(given.write, table(cells))


if __name__ == "__main__":
    main()
