"""What the card of the bundled router says that it can do: cross-validation, test splits, other pairs, attacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from default_router_recipe import (
    FOLDS,
    HEAD_SHARE,
    L2,
    PRO_MEAN,
    PRO_SPREAD,
    ROOT,
    STRONG,
    VOTE_BASE,
    WEAK,
    Scales,
    Source,
    assembled,
    fit_head,
    fold_of,
    gold,
    mean_score,
    on_the_heads_scale,
    out_of_fold,
    out_of_fold_votes,
    read_lines,
    read_rows,
    scores_of,
    votes,
)

sys.path.insert(0, str(ROOT / "benchmarks"))

import attack

from routellm_core import Router
from routellm_core.embedders.static import StaticEmbedder
from routellm_core.evaluation import apgr, evaluate_router
from routellm_core.routers.mf_vote import HeadAndVoteRouter
from routellm_core.statistics.sequential import gain_over_mix
from routellm_core.training.mf import fit_pair, pair_router

TRAINING_SEEDS = 5
# how much longer one prompt of a pair has to be to count as the longer one
LONGER = 1.3
# Pairs on MMLU-Pro with a clear gap; the first two are those of benchmarks/learning_loop.py.
PRO_PAIRS = (
    ("Meta-Llama-3_1-70B-Instruct", "Mixtral-8x7B-Instruct-v0.1"), ("gemini-1.5-pro-002", "gemma-7b"),
    ("gemini-1.5-pro-002", "Mixtral-8x7B-Instruct-v0.1"), ("DeepSeek-Coder-V2", "Mixtral-8x7B-Instruct-v0.1"),
    ("gemini-1.5-flash-002", "Meta-Llama-3_1-8B-Instruct"),
    ("Meta-Llama-3_1-70B-Instruct", "Meta-Llama-3_1-8B-Instruct"), ("DeepSeek-Coder-V2", "Qwen1.5-72B-Chat"),
    ("gemini-1.5-pro-002", "Phi-3-mini-4k-instruct"), ("Qwen1.5-110B", "Qwen1.5-7B-Chat"),
    ("jamba-1.5-large", "Mistral-7B-Instruct-v0.2"),
)  # fmt: skip


def test_sets() -> dict[str, tuple[list[str], np.ndarray, np.ndarray]]:
    sets = {}
    for name, file in (("MMLU", "mmlu"), ("GSM8K", "gsm8k"), ("MT-Bench", "mt_bench")):
        rows = gold(read_rows(f"benchmarks/{file}.jsonl.gz"), "test")
        prompts = [r["turns"][0] if "turns" in r else r["prompt"] for r in rows]
        sets[name] = prompts, scores_of(rows, STRONG), scores_of(rows, WEAK)
    return sets


def seed_routers(
    vectors: dict[str, np.ndarray], mixture: dict[str, Source], scales: Scales, embedder: StaticEmbedder
) -> list[HeadAndVoteRouter]:
    """Routers whose head and votes come from another random 90 % of the rows each."""
    found = []
    for seed in range(TRAINING_SEEDS):
        keep = {n: f != 0 for n, f in fold_of(mixture, FOLDS, 100 + seed).items()}
        rows = [row for row, kept in zip(mixture["mmlu_gold"].rows, keep["mmlu_gold"], strict=True) if kept]
        head = fit_head(vectors, mixture, keep)
        found.append(assembled(head, scales, embedder, vectors["mmlu_gold"][keep["mmlu_gold"]], rows))
    return found


def evaluate(router: HeadAndVoteRouter, of_seeds: Sequence[HeadAndVoteRouter]) -> dict[str, Any]:
    """The test splits, for the router and for those of the training seeds."""
    results = {}
    for name, (prompts, strong, weak) in test_sets().items():
        of_heads = [float(apgr(r.win_rates(prompts), strong, weak)) for r in of_seeds]
        results[name] = {"of_heads": of_heads, "evaluation": evaluate_router(router, prompts, strong, weak, seed=0)}
    return results


def vote_auc(router: Router, *, pair_only: bool) -> tuple[int, float, float, float]:
    """Chance that a chat whose vote went to the strong model scores above another, with its 95 % interval.

    The votes had no part in the training.
    """
    rows = read_rows("preferences/arena.jsonl.gz")
    if pair_only:
        rows = [r for r in rows if (r["strong"], r["weak"]) == (STRONG, WEAK)]
    rates = router.win_rates([r["turns"][0] for r in rows])
    wins = np.array([r["strong_wins"] for r in rows])
    rng = np.random.default_rng(0)
    draws = [_auc(rates[i], wins[i]) for i in (rng.integers(0, len(rows), len(rows)) for _ in range(500))]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return len(rows), _auc(rates, wins), float(low), float(high)


def _auc(rates: np.ndarray, wins: np.ndarray) -> float:
    order = np.sort(rates[~wins])
    if not (order.size and wins.any()):
        return float("nan")
    above = np.searchsorted(order, rates[wins], "left") + np.searchsorted(order, rates[wins], "right")
    return float(above.mean() / (2 * order.size))


def ordered(easier: np.ndarray, harder: np.ndarray) -> float:
    """Share of pairs in which the harder prompt scores higher; a tie counts as half."""
    return float(((harder > easier) + 0.5 * (harder == easier)).mean()) if len(easier) else float("nan")


def graded_order(scores: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Share of English pairs two grades apart in the right order: all of them, those whose harder one is shorter."""
    english = np.array([row["language"] == "en" for row in rows])
    grade = np.array([row["grade"] for row in rows])[english]
    length = np.log([len(row["prompt"]) for row in rows])[english]
    low, high = np.nonzero(grade[None, :] - grade[:, None] >= 2)
    shorter = length[high] < length[low] - np.log(LONGER)
    score = scores[english]
    return ordered(score[low], score[high]), ordered(score[low][shorter], score[high][shorter])


def translations(scores: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Rank correlation of the translated prompts' scores with those of their English originals, by language."""
    by_group: dict[str, dict[str, float]] = {}
    for score, row in zip(scores, rows, strict=True):
        if "group" in row:
            by_group.setdefault(row["group"], {})[row["language"]] = float(score)
    found = {}
    for language in ("de", "es", "fr", "zh"):
        pairs = np.array([[v["en"], v[language]] for v in by_group.values() if "en" in v and language in v])
        ranks = pairs.argsort(axis=0).argsort(axis=0)
        found[language] = float(np.corrcoef(ranks[:, 0], ranks[:, 1])[0, 1])
    return found


def test_pairs(win_rates: Callable[[Sequence[str]], np.ndarray]) -> list[tuple[str, int, float]]:
    """The pairs that were written for the test alone: label, number, and share in the right order."""
    rows = read_lines("graded_pairs_test.jsonl")
    easier, harder = (win_rates([row[side] for row in rows]) for side in ("easier", "harder"))
    longer = np.array([row["longer"] for row in rows])
    found = [("all", len(rows), ordered(easier, harder))]
    for label, side in (("harder one longer", "harder"), ("harder one shorter", "easier"), ("same length", "same")):
        chosen = longer == side
        found.append((label, int(chosen.sum()), ordered(easier[chosen], harder[chosen])))
    return found


def settings_table(embedder: StaticEmbedder, mixture: dict[str, Source]) -> list[tuple[str, list[float]]]:
    """Cross-validated figures of the recipe, without each source, and with other settings, one change at a time.

    APGR on the gold rows of MMLU (by head and vote, by the head alone) and GSM8K; gain over the static mix in points on
    MMLU-Pro with its options, for two pairs of models and for ten; the share of graded pairs in the right order: all,
    and those whose harder prompt is the shorter; translations. A source that is left out is still scored.
    """
    pro = read_rows("outcomes/mmlu_pro.jsonl.gz")
    bare = mixture["mmlu_pro_bare"]
    pro_gain = PRO_MEAN + PRO_SPREAD * standardised(pro_gain_of(pro))
    swapped = {**mixture, "mmlu_pro_bare": Source(bare.prompts, pro_gain)}
    whole = {**mixture, "mmlu_pro_bare": Source([r["prompt"] for r in pro], bare.gain)}
    vectors = {n: embedder.embed(s.prompts).astype(np.float64) for n, s in mixture.items()}
    plain: dict[str, Any] = {"embedder": embedder, "mixture": mixture, "vectors": vectors}
    changes: list[tuple[str, dict[str, Any]]] = [("as shipped", plain)]
    changes += [(f"without {name}", {**plain, "without": name}) for name in mixture]
    changes += [
        ("MMLU-Pro: gain in place of difficulty", {**plain, "mixture": swapped}),
        ("MMLU-Pro: with its options", {**plain, "mixture": whole, "vectors": None}),
        ("graded: half the weight", {**plain, "factor": {"graded": 0.5}}),
        ("graded: twice the weight", {**plain, "factor": {"graded": 2.0}}),
        ("L2 / 4", {**plain, "l2": L2 / 4}),
        ("L2 × 4", {**plain, "l2": L2 * 4}),
        *((f"base of the vote: {base:,.0f}", {**plain, "base": base}) for base in (1e3, 1e9)),
        *((f"share of the head: {share}", {**plain, "head_share": share}) for share in (0.0, 0.2, 0.5, 0.8, 1.0)),
    ]
    for label, options in (
        ("word problems like other prompts (problem_rest = 1)", {"problem_rest": 1.0}),
        ("no glossary", {"glossary": None}),
    ):
        changes.append((label, {**plain, "embedder": changed_embedder(embedder, **options), "vectors": None}))
    table = []
    for label, change in changes:
        table.append((label, cross_validated(**change)))
        print(f"{label:55s} {' '.join(f'{value:.3f}' for value in table[-1][1])}", flush=True)
    return table


def cross_validated(
    embedder: StaticEmbedder,
    mixture: dict[str, Source],
    vectors: dict[str, np.ndarray] | None = None,
    *,
    l2: float = L2,
    base: float = VOTE_BASE,
    head_share: float = HEAD_SHARE,
    without: str | None = None,
    factor: Mapping[str, float] | None = None,
) -> list[float]:
    """The figures of one row of the settings table; `vectors` saves embedding the prompts."""
    vectors = vectors or {n: embedder.embed(s.prompts).astype(np.float64) for n, s in mixture.items()}
    factors = {**(factor or {}), **({without: 0.0} if without else {})}
    pro = read_rows("outcomes/mmlu_pro.jsonl.gz")
    with_options = embedder.embed([row["prompt"] for row in pro]).astype(np.float64)
    logits = out_of_fold(vectors, mixture, 0, l2, factors, reworded={"mmlu_pro_bare": with_options})
    source, of_head = mixture["mmlu_gold"], logits["mmlu_gold"]
    both, on_pro = of_head, logits["mmlu_pro_bare"]
    if without != "mmlu_gold":  # its rows are the ones that vote
        rows = vectors["mmlu_gold"]
        voted = out_of_fold_votes(rows, source.gain, fold_of(mixture, FOLDS, 0)["mmlu_gold"], base)
        assert source.wins is not None
        vote_slope, head_slope, _ = on_the_heads_scale(voted, of_head, source.wins, head_share)
        both = vote_slope * voted + head_slope * of_head
        on_pro = vote_slope * votes(rows, (1.0 + source.gain) / 2.0, with_options, base) + head_slope * on_pro
    graded = mixture["graded"].rows
    gains = pro_gains(on_pro, pro)
    return [
        gold_apgr(both, source),
        gold_apgr(of_head, source),
        gold_apgr(logits["gsm8k_gold"], mixture["gsm8k_gold"]),
        float(np.mean(gains[:2])),
        float(np.mean(gains)),
        *graded_order(logits["graded"], graded),
        float(np.mean(list(translations(logits["graded"], graded).values()))),
    ]


def gold_apgr(logits: np.ndarray, source: Source) -> float:
    return float(apgr(1 / (1 + np.exp(-logits)), source.gain, 0 * source.gain))


def pro_gains(logits: np.ndarray, rows: Sequence[dict[str, Any]]) -> list[float]:
    """Gain in points over the static mix at 30 % strong calls, for each of `PRO_PAIRS`."""
    found = []
    for pair in PRO_PAIRS:
        both = np.array([row["scores"].keys() >= set(pair) for row in rows])
        chosen = [row for row, scored in zip(rows, both, strict=True) if scored]
        difference = scores_of(chosen, pair[0]) - scores_of(chosen, pair[1])
        found.append(100 * gain_over_mix(logits[both], difference, 0.3).value)
    return found


def standardised(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean()) / values.std())


def pro_gain_of(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Gain of strong over weak models on MMLU-Pro."""
    strong = ("gemini-1.5-pro-002", "DeepSeek-Coder-V2", "gemini-1.5-flash-002", "Meta-Llama-3_1-70B-Instruct")
    weak = (
        "Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B-v0.1", "Phi-3-mini-4k-instruct", "Yi-34B", "Meta-Llama-3_1-8B",
        "Meta-Llama-3-8B", "Qwen1.5-72B-Chat", "Llama-2-70b-hf",
    )  # fmt: skip
    return np.asarray(mean_score(rows, strong) - mean_score(rows, weak))


def changed_embedder(embedder: StaticEmbedder, **options: Any) -> StaticEmbedder:
    settings: dict[str, Any] = {
        "table": embedder._table.astype(np.int8),
        "scale": embedder._scale,
        "surface_mean": embedder._mean,
        "surface_std": embedder._std,
        "shrinkage": embedder._shrinkage,
        "problem_rest": embedder._problem_rest,
        "glossary": embedder._glossary_text,
        **options,
    }
    return StaticEmbedder(embedder._vocabulary, settings.pop("table"), **settings)


def in_domain(embedder: StaticEmbedder, mixture: dict[str, Source]) -> float:
    """APGR on MMLU test of a router trained on the MMLU gold rows alone, as a user would on own rows."""
    source = mixture["mmlu_gold"]
    vector = fit_pair(embedder.embed(source.prompts), (1 + source.gain) / 2)
    prompts, strong, weak = test_sets()["MMLU"]
    return float(
        apgr(pair_router(vector, strong=STRONG, weak=WEAK, embedder=embedder).win_rates(prompts), strong, weak)
    )


def kinds_below_guessing(router: HeadAndVoteRouter, least: int = 100) -> list[tuple[str, int, str]]:
    """Subjects of MMLU's test split, and short word problems of GSM8K's, with an APGR below 0.5, the lowest first."""
    parts: list[tuple[str, list[dict[str, Any]]]] = []
    for name in ("mmlu", "gsm8k"):
        rows = gold(read_rows(f"benchmarks/{name}.jsonl.gz"), "test")
        domains = sorted({r["domain"] for r in rows})
        parts += [(f"{name}: {d}", [r for r in rows if r["domain"] == d]) for d in domains if len(domains) > 1]
        if name == "gsm8k":
            parts.append(("gsm8k: under 200 characters", [r for r in rows if len(r["prompt"]) < 200]))
    found = []
    for label, rows in parts:
        strong, weak = scores_of(rows, STRONG), scores_of(rows, WEAK)
        if len(rows) < least or strong.mean() - weak.mean() < 0.02:
            continue  # too few, or no gap to recover
        value = evaluate_router(router, [r["prompt"] for r in rows], strong, weak, seed=0).metrics["apgr"]
        if value.value < 0.5:
            found.append((value.value, label.replace("_", " "), len(rows), str(value)))
    return [(label, count, value) for _, label, count, value in sorted(found)]


def attack_rates(router: HeadAndVoteRouter) -> list[tuple[str, str]]:
    """Share of easy prompts that a prefix of ten words sends to strong, by the share of strong calls."""
    train, attacked = attack.prompts()
    prefix = attack.search_prefix(router, train)
    prefixed = [f"{prefix} {p}" for p in attacked]
    return [
        (f"{share:.0%}", f"{attack.moved(router, attacked, prefixed, share, to='strong'):.0%}")
        for share in attack.SHARES
    ]
