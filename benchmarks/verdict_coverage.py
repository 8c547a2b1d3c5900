"""How often the intervals of a verdict contain the truth, on simulated prompts whose truth is known.

    python benchmarks/verdict_coverage.py --out FILE [--samples 400] [--minutes 4] [--write docs/evaluation.md]

Needs no data and no key. A cell is a kind of pair, a way to count costs, a chosen or a fixed threshold, and a number of
prompts. In each sample of a cell `verdict` judges fresh prompts; the truth is what its thresholds achieve on 400,000
others. Each cell is written to FILE as soon as it is measured, and a run passes over those that are there with as many
samples: with --minutes it stops after so long, to go on another time, and --kinds, --costs and --prompts measure a few
cells with more samples. It prints which intervals contain the truth in less than 92 % or more than 98 % of a cell, and
not by chance. With --write the tables replace those in that page.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routellm_core.evaluation.verdict import Verdict, verdict
from routellm_core.statistics.intervals import Estimate
from routellm_core.statistics.metrics import complementary as complementary_scores

Floats = npt.NDArray[np.float64]

HEADINGS = ("### Coverage of the intervals", "#### Coverage in every cell")
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
# what the coverage of a 95 % interval should be
ALLOWED = (0.92, 0.98)
# A bound has one side, and where the policy is better than always strong, it cannot but hold; the threshold that is
# printed is not the one that was measured.
NOT_JUDGED = ("bound of the loss", "gain at the threshold")
DRAWS = 1000
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
        # whether every call costs the same
        self.same_cost = bool(np.ptp(costs) == 0.0)
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
        found = verdict(sample.rates, *scores, **given, draws=DRAWS, seed=i)
        truth = truths[complementary_scores(*scores)]
        printed_at = truth.at(found.threshold)
        measured = truth.at(*found.measured_thresholds)
        for name, estimate in intervals(found).items():
            if name == "cost" and truth.same_cost:
                continue  # known, not estimated
            true = printed_at["share"] if name == "share" else measured[name]
            printed[name] += 1
            covered[name] += estimate.low <= true <= estimate.high
        printed["gain at the threshold"] += 1
        covered["gain at the threshold"] += found.gain.low <= printed_at["gain"] <= found.gain.high
        printed["bound of the loss"] += 1
        covered["bound of the loss"] += -printed_at["against strong"] <= found.worst_loss
    cell = {"kind": kind, "costs": costs, "fixed": fixed, "prompts": prompts, "samples": samples}
    return {**cell, "covered": dict(covered), "printed": dict(printed)}


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


def summary(cells: Sequence[dict[str, Any]]) -> str:
    """For each interval its coverage over all cells, and the cells with the lowest and the highest one, as Markdown."""
    lines = ["| interval | verdicts | coverage | lowest cell | highest cell |", "|---|---:|---:|---|---|"]
    for name in COLUMNS:
        counts = [(c["covered"].get(name, 0), c["printed"].get(name, 0)) for c in cells]
        counts = [(covered, printed) for covered, printed in counts if printed >= FEWEST]
        if not counts:
            continue
        covered, printed = (sum(part) for part in zip(*counts, strict=True))
        ends = []
        for end in (min, max):
            hit, tried = end(counts, key=lambda count: count[0] / count[1])
            low, high = binomial_interval(hit, tried)
            ends.append(f"{100 * hit / tried:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        lines.append(f"| {name} | {printed:,} | {100 * covered / printed:.1f} | {' | '.join(ends)} |")
    return "\n".join(lines)


def outside(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The intervals whose coverage in a cell is less or more than `ALLOWED`, and not by chance."""
    out = []
    for cell in cells:
        for name in COLUMNS:
            covered, printed = cell["covered"].get(name, 0), cell["printed"].get(name, 0)
            if name in NOT_JUDGED or printed < FEWEST:
                continue
            low, high = binomial_interval(covered, printed)
            if high < ALLOWED[0] or low > ALLOWED[1]:
                threshold = "fixed" if cell["fixed"] else "chosen"
                place = f"{cell['kind']}, {cell['costs']}, {threshold}, {cell['prompts']} prompts"
                out.append(f"{name} ({place}): {covered} of {printed}, {100 * low:.1f} to {100 * high:.1f} %")
    return out


def binomial_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    middle = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * np.sqrt(successes * (1 - successes / trials) + z * z / 4)
    return float(middle - half), float(middle + half)


def write(page: Path, below: str, text: str) -> None:
    """Replace the first table below a heading of a page."""
    before, heading, rest = page.read_text(encoding="utf-8").partition(below)
    if not heading:
        raise SystemExit(f"{page} has no heading {below!r}")
    start = rest.index("\n| ") + 1
    end = rest.index("\n\n", start)
    page.write_text(before + heading + rest[:start] + text + rest[end:], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--prompts", type=int, nargs="+", default=[60, 300])
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--costs", choices=COSTS, nargs="+", default=list(COSTS))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--write", type=Path, help="the page with the tables")
    given = parser.parse_args()
    begun = time.monotonic()
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in map(json.loads, lines):
        key = (cell["kind"], cell["costs"], cell["fixed"], cell["prompts"])
        if key not in cells or cells[key]["samples"] < cell["samples"]:
            cells[key] = cell
    for key in product(given.kinds, given.costs, (False, True), given.prompts):
        measured = key in cells and cells[key]["samples"] >= given.samples
        if measured or time.monotonic() - begun > 60.0 * given.minutes:
            continue
        cells[key] = measure(*key, samples=given.samples)
        with given.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(cells[key]) + "\n")
    found = list(cells.values())
    print(table(found), summary(found), sep="\n\n")
    print(f"\noutside {ALLOWED[0]:.0%} to {ALLOWED[1]:.0%}, beyond chance:", *(outside(found) or ["none"]), sep="\n")
    if given.write is not None:
        for heading, text in zip(HEADINGS, (summary(found), table(found)), strict=True):
            write(given.write, heading, text)


if __name__ == "__main__":
    main()
