# ruff: noqa: E402 - the package is found beside this script, installed or not
"""Would a bank of other models' exam outcomes save own rows? Two new models are placed among 27 known ones by anchors.

    python benchmarks/anchors.py [--pairs N] [--seed N]

An anchor is an exam-like question on which both new models were scored. The share of anchors that a model gets right
says where it stands among the known models; the mean outcome of the known models near that place (a Gaussian kernel on
the logit of the accuracy) says how likely it is to get each question of the bank right. An mf head learns the
difference of the two from the bank's vectors, and routes prompts that were in no bank. (Placing by agreement with each
known model, by the likelihood of the outcomes one by one, and by ridge regression on the known models' outcomes were
tried on 12 pairs, some of them among those measured here: none was better than the plain accuracy.)

Pairs of models differ by at least 15 points on MMLU-Pro; neither is in the bank, nor is a question that is measured or
an own row. *like the bank*: the questions measured are from all of MMLU-Pro's fields; *other fields*: from three of its
nine, which the bank and the anchors lack. Own rows are of the kind that is measured: the `sw_ranking` that `train auto`
mostly chooses, and the correction of the bundled router that `learn` makes. The bundled router has seen MMLU-Pro's
questions without their options. *another exam*: the MMLU gold rows of gpt-4-1106-preview and Mixtral-8x7B, with all
gold rows as anchors and the whole bank. No row of a test split is read.

Intervals resample models, since pairs share them. Needs ../shared/data or $ROUTELLM_SHARED/data. About two minutes of
a free core with 24 pairs.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from routellm_core import load_router
from routellm_core.embedders import bundled_embedder
from routellm_core.evaluation import apgr
from routellm_core.routers.corrected import logits
from routellm_core.statistics.sequential import gain_over_mix
from routellm_core.training.correction import fit_correction, win_labels
from routellm_core.training.mf import fit_pair

DATA = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared")) / "data"
STRONG_FRACTION = 0.3
LEAST_GAP, LEAST_COMMON = 0.15, 4500
OTHER_FIELDS = 3
OWN_ROWS, ANCHORS = (100, 200, 400, 800), (25, 50, 100)
POOL, MEASURED = 800, 1200
KERNEL = 0.5  # in units of the logit of the accuracy
HEAD_L2 = 0.03
BASE = 1e3
RIVAL = "100 own rows, sw_ranking"
GOLD_PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def read_rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def logit(share: npt.ArrayLike) -> Floats:
    return np.asarray(np.log(share) - np.log1p(-np.asarray(share)))


def expected(outcomes: Floats, accuracy: float) -> Floats:
    """Chance of each bank question (n,) for a model of that accuracy, from the outcomes (n, models) of known ones."""
    away = logit(outcomes.mean(axis=0)) - logit(accuracy)
    weights = np.exp(-0.5 * (away / KERNEL) ** 2) + 1e-3
    return np.asarray(outcomes @ (weights / weights.sum()))


def smoothed(right: Floats) -> float:
    """Accuracy by Laplace's rule, so that no share is 0 or 1."""
    return float((right.sum() + 1.0) / (len(right) + 2.0))


def bank_head(vectors: Floats, outcomes: Floats, strong: float, weak: float) -> Floats:
    """The vector of an mf head for two models of these accuracies."""
    gain = expected(outcomes, strong) - expected(outcomes, weak)
    return np.asarray(fit_pair(vectors, (1.0 + gain) / 2.0, l2=HEAD_L2))


def own_vote(vectors: Floats, labels: Floats, queries: Floats) -> Floats:
    """Win rates by a similarity-weighted vote of own rows."""
    stored, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (vectors, queries))
    similarity = asked @ stored.T
    weights = BASE ** (similarity / np.maximum(similarity.max(axis=1, keepdims=True), 1e-9) - 1.0)
    return np.asarray(weights @ labels / weights.sum(axis=1))


def skill(scores: Floats, gain: Floats) -> tuple[float, float]:
    """APGR, and gain in points over the static mix at 30 % strong calls."""
    rates = 1.0 / (1.0 + np.exp(-(scores - scores.mean()) / scores.std()))
    return float(apgr(rates, gain, 0.0 * gain)), 100.0 * gain_over_mix(scores, gain, STRONG_FRACTION).value


def one_pair(
    vectors: Floats, in_use: Floats, table: Floats, fields: npt.NDArray[np.str_], pair: tuple[int, int], seed: int
) -> dict[tuple[str, str], tuple[float, float]]:
    """Skill by (kind of questions, method) for one pair of models, held out of the bank."""
    rng = np.random.default_rng(seed)
    gain = table[:, pair[0]] - table[:, pair[1]]
    scored = np.isfinite(gain)
    others = np.delete(table, pair, axis=1)
    others = np.where(np.isnan(others), np.nanmean(others, axis=0), others)
    far = np.isin(fields, rng.permutation(np.unique(fields))[:OTHER_FIELDS])
    found = {}
    for label, mine, banked in (("like the bank", scored, np.ones_like(scored)), ("other fields", scored & far, ~far)):
        order = rng.permutation(np.flatnonzero(mine))
        pool, measured = order[:POOL], order[POOL : POOL + MEASURED]
        left = np.setdiff1d(np.flatnonzero(banked), order[: POOL + MEASURED])
        anchors = rng.permutation(left[scored[left]])
        for n in OWN_ROWS:
            rows, wins = pool[:n], win_labels(gain[pool[:n]], np.zeros(n))
            corrected = fit_correction(vectors[rows], in_use[rows], wins, traffic=vectors[pool])
            found[label, f"{n} own rows, sw_ranking"] = skill(
                own_vote(vectors[rows], wins, vectors[measured]), gain[measured]
            )
            found[label, f"{n} own rows, correction"] = skill(
                corrected.logits(vectors[measured], in_use[measured]), gain[measured]
            )
        found[label, "bundled router"] = skill(in_use[measured], gain[measured])
        for n in (0, *ANCHORS):
            # without anchors: a typical strong and a typical weak model of the bank
            at = (
                np.quantile(others.mean(axis=0), [0.85, 0.15])
                if n == 0
                else [smoothed(table[anchors[:n], model]) for model in pair]
            )
            head = bank_head(vectors[left], others[left], float(at[0]), float(at[1]))
            found[label, f"bank, {n} anchors"] = skill(vectors[measured] @ head, gain[measured])
    return found


def interval(pairs: list[tuple[int, int]], values: Floats, draws: int = 2000) -> str:
    """Mean over pairs with a 95 % interval that resamples models, since pairs share them."""
    rng = np.random.default_rng(0)
    models = np.unique(pairs)
    strong, weak = (np.searchsorted(models, [pair[side] for pair in pairs]) for side in (0, 1))
    means = []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, len(models), len(models)), minlength=len(models))
        weights = times[strong] * times[weak]
        if weights.any():
            means.append(np.average(values, weights=weights))
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def another_exam(vectors: Floats, table: Floats) -> str:
    """APGR of the bank on the MMLU gold rows, with its 95 % interval over rows."""
    rows = [r for r in read_rows("benchmarks/mmlu") if r["split"] == "gold" and not r["contaminated"]]
    strong, weak = (np.array([row["scores"][name] for row in rows], dtype=np.float64) for name in GOLD_PAIR)
    known = np.where(np.isnan(table), np.nanmean(table, axis=0), table)
    head = bank_head(vectors, known, smoothed(strong), smoothed(weak))
    scores, gain = bundled_embedder().embed([row["prompt"] for row in rows]) @ head, strong - weak
    rng = np.random.default_rng(0)
    draws = [skill(scores[i], gain[i])[0] for i in (rng.integers(0, len(rows), len(rows)) for _ in range(500))]
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{skill(scores, gain)[0]:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = read_rows("outcomes/mmlu_pro")
    models = sorted({model for row in rows for model in row["scores"]})
    table = np.array([[row["scores"].get(model, np.nan) for model in models] for row in rows], dtype=np.float64)
    prompts, fields = [row["prompt"] for row in rows], np.array([row["domain"] for row in rows])
    vectors = bundled_embedder().embed(prompts).astype(np.float64)
    in_use = logits(load_router().win_rates(prompts))
    accuracy, scored = np.nanmean(table, axis=0), np.isfinite(table)
    possible = [
        (strong, weak)
        for strong in range(len(models))
        for weak in range(len(models))
        if accuracy[strong] - accuracy[weak] > LEAST_GAP and (scored[:, strong] & scored[:, weak]).sum() > LEAST_COMMON
    ]
    chosen = np.random.default_rng(options.seed).permutation(len(possible))[: options.pairs]
    pairs = [possible[i] for i in chosen]
    found = [one_pair(vectors, in_use, table, fields, pair, options.seed + i) for i, pair in enumerate(pairs)]
    print(f"{len(pairs)} pairs of {len(possible)}, {len(rows):,} questions, vectors of {vectors.shape[1]}: ", end="")
    print(f"a bank of {len(rows) * (vectors.shape[1] + len(models) / 8) / 1e6:.2f} MB")
    print(
        "| questions | router | APGR | over 100 own rows | gain in points at 30 % strong calls |\n|---|---|---|---|---|"
    )
    for label, way in found[0]:
        of_pairs, rivals = (np.array([one[label, name] for one in found]) for name in (way, RIVAL))
        cells = (of_pairs[:, 0], of_pairs[:, 0] - rivals[:, 0], of_pairs[:, 1])
        print(f"| {label} | {way} | " + " | ".join(interval(pairs, values) for values in cells) + " |")
    print(f"another exam: APGR {another_exam(vectors, table)}")


if __name__ == "__main__":
    main()
