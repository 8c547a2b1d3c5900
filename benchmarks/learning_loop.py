# ruff: noqa: E402 - the package is found beside this script, installed or not
"""What the learning loop gains and how often it is right, on simulated traffic whose truth is known.

    python benchmarks/learning_loop.py [correction] [verdict] [replay] [one-sided] [learn] [--draws N] [--seed N]

Traffic is MMLU test (the pair that the bundled router was trained for) and MMLU-Pro (other pairs): prompts whose
scores by both models are known, with the bundled router in use at 30 % strong calls. The simulations hide what an app
would not see. They use test rows as a user's traffic; nothing of that flows into the bundled router.

The settings of the correction were chosen on the first two pairs, with seed 0. The strongest penalty of its delta was
chosen later, on their draws 1000 to 1059, by the gain from 100 pairs: of 30, 20, 15 and 10, the last gains most on
MMLU-Pro (1.09 points after .85 at 20), where the router in use gains nothing, and least on MMLU (2.64 after 2.88). A
second slope, on the head of the bundled router, gained no more at the same cost. The third pair and other seeds had no
part in either choice.

*correction*: gain over the static mix of the same share, from 100 to 800 pairs. *verdict*: how often a gain is found at
doublings of the pairs, and how often one is found where there is none. *replay*: how often the 95 % interval of a
replay holds the true difference. *one-sided*: a correction from scores of the answering model alone. *learn*: the
whole of `learn` on a log, where routers from nothing compete with the correction.

The data are in ../shared/data or $ROUTELLM_SHARED/data. All four take about ten minutes on a free core.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import gzip
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from routellm_core import load_router
from routellm_core.embedders import bundled_embedder
from routellm_core.evaluation import apgr
from routellm_core.log import TrafficDatabase
from routellm_core.log.cleaning import clean
from routellm_core.log.rows import Label
from routellm_core.routers.corrected import logits
from routellm_core.statistics import off_policy, sequential
from routellm_core.training import learn
from routellm_core.training.correction import fit_correction, out_of_fold_logits, win_labels
from routellm_core.training.mf import fit_pair

DATA = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared")) / "data"
STRONG_FRACTION = 0.3
PAIRS = {
    "MMLU": ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"),
    "MMLU-Pro": ("Meta-Llama-3_1-70B-Instruct", "Mixtral-8x7B-Instruct-v0.1"),
    "MMLU-Pro, third pair": ("gemini-1.5-pro-002", "gemma-7b"),
}
PAIR_COUNTS = (100, 200, 400, 800)
LOOKS = (400, 800, 1600)
UNSEEN = 3500
# logging, explore, shadow, calls
CELLS = [
    ("fixed", 0.05, 0.0, 500),
    ("fixed", 0.05, 0.0, 2000),
    ("fixed", 0.0, 0.05, 2000),
    ("moved", 0.05, 0.05, 2000),
    ("fixed", 0.05, 0.0, 10_000),
    ("near", 0.05, 0.0, 10_000),
    ("near", 0.05, 0.05, 10_000),
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Traffic:
    """n prompts with everything that a simulation may hide or show.

    Attributes:
        prompts: n texts.
        embeddings: (n, d) by the bundled embedder.
        strong: (n,) correctness of the strong model.
        weak: (n,) correctness of the weak model.
        win_rates: (n,) by the bundled router.
    """

    prompts: list[str]
    embeddings: Floats
    strong: Floats
    weak: Floats
    win_rates: Floats

    def __len__(self) -> int:
        return len(self.strong)


def load(which: str, *, split: str = "test") -> Traffic:
    """The traffic `which`; `split` matters for MMLU alone."""
    strong, weak = PAIRS[which]
    name = "benchmarks/mmlu" if which == "MMLU" else "outcomes/mmlu_pro"
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    if which == "MMLU":
        rows = [row for row in rows if row["split"] == split and not row["contaminated"]]
    rows = [row for row in rows if row["scores"].keys() >= {strong, weak}]
    prompts = [row["prompt"] for row in rows]
    return Traffic(
        prompts,
        bundled_embedder().embed(prompts).astype(np.float64),
        np.array([row["scores"][strong] for row in rows], dtype=np.float64),
        np.array([row["scores"][weak] for row in rows], dtype=np.float64),
        load_router().win_rates(prompts),
    )


def drawn(t: Traffic, pairs: int, draw: int) -> tuple[Ints, Ints]:
    """Positions of `pairs` random prompts to learn from, and of unseen ones to measure on."""
    order = np.random.default_rng(7 * pairs + draw).permutation(len(t))
    return order[:pairs], order[pairs : pairs + UNSEEN]


def correction(pairs: int, draw: int, t: Traffic) -> tuple[float, float]:
    """Gain in points of a correction from `pairs` random pairs on unseen prompts, and of the router in use there."""
    train, test = drawn(t, pairs, draw)
    z = logits(t.win_rates)
    fitted = fit_correction(t.embeddings[train], z[train], win_labels(t.strong[train], t.weak[train]))
    scores = fitted.logits(t.embeddings[test], z[test])
    difference = t.strong[test] - t.weak[test]
    learned, in_use = (
        100 * sequential.gain_over_mix(by, difference, STRONG_FRACTION).value for by in (scores, t.win_rates[test])
    )
    return learned, in_use


def verdicts(kind: str, t: Traffic, run: int) -> Iterator[bool]:
    """Whether a gain is found at each look of one run.

    `kind`: "correction"; "random" routes at random; "shuffled" learns a correction of labels that are dealt out anew.
    """
    rng = np.random.default_rng(1000 + run)
    rows = rng.permutation(len(t))[: LOOKS[-1]]
    difference = (t.strong - t.weak)[rows]
    if kind == "shuffled":
        difference = rng.permutation(difference)
    for count in LOOKS:
        if kind == "random":
            scores = rng.random(count)
        else:
            z, y = logits(t.win_rates[rows[:count]]), (1.0 + difference[:count]) / 2.0
            scores = out_of_fold_logits(t.embeddings[rows[:count]], z, y)
        yield sequential.finding(sequential.gain_over_mix(scores, difference[:count], STRONG_FRACTION)) == "gains"


def top(order: Floats, share: float) -> npt.NDArray[np.bool_]:
    """The rows with the highest `share` of an order."""
    return np.asarray(order >= np.quantile(order, 1 - share))


class ReplayTruth:
    """MMLU as traffic: the policy in use, other policies, and what they truly differ by."""

    def __init__(self) -> None:
        t, gold = load("MMLU"), load("MMLU", split="gold")
        own = t.embeddings @ fit_pair(gold.embeddings, win_labels(gold.strong, gold.weak))
        self.traffic, self.features = t, off_policy.principal_features(t.embeddings)
        self.rank = np.argsort(np.argsort(-t.win_rates)) / len(t)
        self.in_use = top(t.win_rates, STRONG_FRACTION)
        self.targets = {
            "same router, 20 %": top(t.win_rates, 0.2),
            "other router, 30 %": top(own, 0.3),
            "always strong": np.ones(len(t), bool),
            "reversed, 30 %": top(-t.win_rates, 0.3),
        }

    def replays(
        self, logging: str, explore: float, shadow: float, n: int, rng: np.random.Generator
    ) -> dict[str, tuple[off_policy.Difference, float]]:
        """One log of n calls; each target's replay, and its true difference.

        `logging`: "fixed" at 30 %; "moved" from 10 to 50 % over the period; "near" explores a quarter of the calls
        within ten ranks in a hundred of the threshold, and no others.
        """
        t, i = self.traffic, rng.integers(0, len(self.traffic), n)
        share = np.linspace(0.1, 0.5, n) if logging == "moved" else np.full(n, STRONG_FRACTION)
        base = t.win_rates[i] >= np.quantile(t.win_rates, 1 - share)
        near = np.where(np.abs(self.rank[i] - STRONG_FRACTION) < 0.1, 0.25, 0.0)
        e = near if logging == "near" else np.full(n, explore)
        p = base * (1 - e / 2) + ~base * e / 2
        is_strong, shadowed = rng.random(n) < p, rng.random(n) < shadow
        chances = off_policy.answer_chances(p, np.full(n, shadow))
        strong = off_policy.SideScores(is_strong | shadowed, chances[0], t.strong[i])
        weak = off_policy.SideScores(~is_strong | shadowed, chances[1], t.weak[i])
        out = {}
        for name, target in self.targets.items():
            found = off_policy.policy_difference(
                target[i], self.in_use[i], strong, weak, features=self.features[i], seed=int(rng.integers(1 << 31))
            )
            true = ((target.astype(float) - self.in_use) * (t.strong - t.weak)).mean()
            out[name] = (found, float(true))
        return out


def one_sided(t: Traffic, calls: int, explore: float, draw: int) -> float:
    """APGR on unseen prompts of a correction of a router without skill, from scores of the answering model alone."""
    rng = np.random.default_rng(draw)
    order = rng.permutation(len(t))
    i, test = rng.choice(order[UNSEEN:], calls), order[:UNSEEN]
    base = top(t.win_rates, STRONG_FRACTION)[i]
    p = base * (1 - explore / 2) + ~base * explore / 2
    is_strong = rng.random(calls) < p
    tau = off_policy.one_sided_differences(
        is_strong, p, np.where(is_strong, t.strong[i], t.weak[i]),
        features=off_policy.principal_features(t.embeddings[i]),
    )  # fmt: skip
    fitted = fit_correction(t.embeddings[i], np.zeros(calls), (1.0 + tau) / 2.0)
    return apgr(fitted.logits(t.embeddings[test], np.zeros(UNSEEN)), t.strong[test], t.weak[test])


def print_correction(draws: int, seed: int) -> None:
    print("| traffic | pairs | gain of the correction, points (10th percentile) | gain of the router in use |")
    print("|---|---|---|---|")
    for which in PAIRS:
        t = load(which)
        for pairs in PAIR_COUNTS:
            gains = np.array([correction(pairs, seed + draw, t) for draw in range(draws)])
            low = np.quantile(gains[:, 0], 0.1)
            print(
                f"| {which} | {pairs} | {gains[:, 0].mean():.2f} ({low:.2f}) | {gains[:, 1].mean():.2f} |", flush=True
            )


def print_verdicts(runs: int, seed: int) -> None:
    print("| traffic | learned from | runs | gain found by 400 pairs | 800 | 1,600 |\n|---|---|---|---|---|---|")
    for which in PAIRS:
        t = load(which)
        for kind, count in (("correction", runs), ("random", 400), ("shuffled", 2 * runs)):
            found = np.array([list(verdicts(kind, t, seed + run)) for run in range(count)])
            shares = np.logical_or.accumulate(found, axis=1).mean(axis=0)
            print(f"| {which} | {kind} | {count} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


def print_replay(draws: int, seed: int) -> None:
    truth = ReplayTruth()
    print(
        "| logging, explore, shadow | calls | target | effective deviations | half width, points | refused | covers |"
    )
    print("|---|---|---|---|---|---|---|")
    shown = []
    for logging, explore, shadow, n in CELLS:
        rng = np.random.default_rng(n + seed)
        runs = [truth.replays(logging, explore, shadow, n, rng) for _ in range(draws)]
        for name in truth.targets:
            found = [run[name] for run in runs]
            intervals = [(r.difference, true) for r, true in found if r.difference is not None]
            covers, half = "-", "-"
            if len(intervals) >= 20:
                share = float(np.mean([d.low <= true <= d.high for d, true in intervals]))
                shown.append(share)
                covers = f"{share:.3f} of {len(intervals)}"
                half = f"{100 * np.median([(d.high - d.low) / 2 for d, _ in intervals]):.1f}"
            deviations = np.mean([r.effective_deviations for r, _ in found])
            refused = np.mean([r.refusal is not None for r, _ in found])
            print(f"| {logging} {explore:g} {shadow:g} | {n} | {name} | {deviations:.0f} | {half} ", end="")
            print(f"| {refused:.2f} | {covers} |", flush=True)
    print(f"\nleast {min(shown):.3f}, mean {np.mean(shown):.3f} over {len(shown)} cells with 20 intervals or more")


def print_one_sided(draws: int, seed: int) -> None:
    print("| explore | scored calls | APGR on MMLU |\n|---|---|---|")
    t = load("MMLU")
    for explore, calls in ((0.1, 5000), (0.1, 10_000), (0.05, 10_000)):
        areas = [one_sided(t, calls, explore, seed + draw) for draw in range(draws)]
        print(f"| {explore} | {calls:,} | {np.mean(areas):.3f} |", flush=True)


def learned(pairs: int, draw: int, t: Traffic, folder: Path) -> tuple[str, str, float]:
    """The outcome of `learn` on a log of these pairs, the router it chose, and that router's gain on unseen prompts."""
    train, test = drawn(t, pairs, draw)
    address, router = f"sqlite:///{folder}/traffic.db", load_router()
    router.trained_on = None  # MMLU-Pro's questions, with other models' answers, are among what it has seen
    calls, answers, labels = [], [], []
    for number, i in enumerate(train):
        key, now = f"{number:032x}", 1e9 + number
        calls.append(
            clean("calls", {
                "id": key, "created": now, "prompt": t.prompts[i], "router": f"{router.name}:{router.fingerprint[:12]}",
                "win_rate": t.win_rates[i], "threshold": 0.5, "reason": "win_rate", "p_strong": 0.0, "p_shadow": 1.0,
                "side": "weak",
            })
        )  # fmt: skip
        for side, kind in (("weak", "routed"), ("strong", "shadow")):
            answers.append(
                clean("answers", {"call_id": key, "side": side, "created": now, "kind": kind, "model": side})
            )
        labels.append(Label(key, "gold", float(t.strong[i]), float(t.weak[i])))
    with TrafficDatabase(address, create=True) as database:
        database.write({"calls": calls, "answers": answers})
        database.add_labels(labels)
    found = learn(address, folder / "router", router=router, strong_fraction=STRONG_FRACTION, draws=20)
    if found.outcome != "gains":
        return found.outcome, found.candidate or "", math.nan
    unseen = load_router(folder / "router").win_rates([t.prompts[i] for i in test])
    gain = sequential.gain_over_mix(unseen, t.strong[test] - t.weak[test], STRONG_FRACTION)
    return found.outcome, found.candidate or "", 100 * gain.value


def print_learn(draws: int, seed: int) -> None:
    print("| traffic | pairs | outcomes | chosen | gain where a router was written, points | of the correction alone |")
    print("|---|---|---|---|---|---|")
    for which in PAIRS:
        t = load(which)
        for pairs in (800, 1600):
            found, alone = [], []
            for draw in range(seed, seed + draws):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(learned(pairs, draw, t, Path(folder)))
                alone.append(correction(pairs, draw, t)[0])
            outcomes, chosen = (
                ", ".join(f"{name} {n}" for name, n in Counter(column).most_common())
                for column in list(zip(*found, strict=True))[:2]
            )
            gains = [gain for _, _, gain in found if not math.isnan(gain)]
            mean = f"{np.mean(gains):.2f}" if gains else "-"
            print(f"| {which} | {pairs:,} | {outcomes} | {chosen} | {mean} | {np.mean(alone):.2f} |", flush=True)


PARTS = {
    "correction": (print_correction, 20),
    "verdict": (print_verdicts, 100),
    "replay": (print_replay, 300),
    "one-sided": (print_one_sided, 10),
    "learn": (print_learn, 4),
}


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description="What the learning loop gains and how often it is right.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="tables; all by default")
    parser.add_argument("--draws", type=int, help="draws of each cell instead of the default")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the draws")
    given = parser.parse_args()
    for part in given.parts or PARTS:
        run, draws = PARTS[part]
        print(f"\n{part}, {given.draws or draws} draws from seed {given.seed} on\n")
        run(given.draws or draws, given.seed)


if __name__ == "__main__":
    main()
