"""The recipe of the bundled router: its data, embedder, head and vote. `build_default_router.py` runs it."""

# ruff: noqa: E402 - the number of threads has to be set before numpy is imported
from __future__ import annotations

import os

# One thread: the order of floating-point sums, and with it every byte, then does not depend on the number of cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from routellm_core.data import ContaminationIndex
from routellm_core.data.seen_prompts import SeenPrompts
from routellm_core.embedders.static import SURFACE_NAMES, StaticEmbedder, surface_features, window, words_of
from routellm_core.routers.knn import unit_rows
from routellm_core.routers.mf_vote import HeadAndVoteRouter, vote
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
PROBLEM_REST = 0.05

# --- the training mixture: weight of each source, whatever its number of rows
SOURCE_WEIGHTS = {
    "mmlu_gold": 1.0,
    "gsm8k_gold": 0.75,
    "mmlu_pro_bare": 2.0,
    "math_l5": 0.5,
    "crux": 1.5,
    "arena": 1.0,
    "short": 0.1,
    "graded": 1.2,
}
ARENA_GAIN = 0.05  # ordinary chat: the strong model is hardly ever needed
SHORT_GAIN = -0.05  # its first words alone: less still
# The graded prompts on the scale of a gain: (that of grade 3, step of a grade). Strong and weak models are known to
# differ most where the answer is computed (code, maths, logic), less in knowledge and little in open-ended writing.
GRADED_GAINS = {"computed": (0.30, 0.10), "knowledge": (0.12, 0.10), "open": (0.03, 0.05)}
COMPUTED_FIELDS = frozenset(
    [
        "mathematics", "probability", "statistics", "Python", "JavaScript", "SQL", "debugging", "algorithms", "shell",
        "logic puzzles", "everyday arithmetic", "unit conversion", "regular expressions", "tables", "dates and times",
        "JSON", "riddles", "games and chess",
    ]
)  # fmt: skip
OPEN_FIELDS = frozenset(
    [
        "literature", "ethics", "philosophy", "poetry", "history", "travel", "music", "sport", "planning", "psychology",
        "cooking", "creative writing", "role play", "e-mail drafting", "brainstorming", "small talk",
        "film and theatre", "art and design", "religion and myth", "rewriting", "customer support",
    ]
)  # fmt: skip
PRO_MEAN, PRO_SPREAD = 0.20, 0.15  # difficulty of MMLU-Pro questions on the scale of a gain
UNSCALED = ("short", "graded")  # sources of texts that were made up, which the scale of the features leaves out
L2 = 0.03
VOTE_BASE = 1e6
# The head's part in the win rate of questions with options; the rest is the vote's. Platt's regression on the gold rows
# gives the head 0.2; 0.3 is as good for a pair and exam of which rows vote, and better for others.
HEAD_SHARE = 0.3
FOLDS = 10
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
    rows: list[dict[str, Any]] = field(
        default_factory=list
    )  # what else is known of each prompt; of the gold rows and the graded ones


def read_rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(SHARED / "data" / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_lines(name: str) -> list[dict[str, Any]]:
    """A file of JSON lines beside this script."""
    return [json.loads(line) for line in (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()]


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

    glossary = (Path(__file__).parent / "default_router_glossary.txt").read_text(encoding="utf-8")
    plain = StaticEmbedder(
        vocabulary,
        table,
        scale=1.0,
        surface_mean=np.zeros(len(SURFACE_NAMES)),
        surface_std=np.ones(len(SURFACE_NAMES)),
        shrinkage=SHRINKAGE,
        problem_rest=PROBLEM_REST,
        glossary=glossary,
    )
    text = plain.embed(mixture["mmlu_gold"].prompts)[:, :TEXT_DIMENSION].astype(np.float64)
    scale = TEXT_LENGTH / float(np.sqrt((text**2).sum(axis=1).mean()))
    raw = [np.array([_raw_surface(plain, p) for p in s.prompts]) for n, s in mixture.items() if n not in UNSCALED]
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
        glossary=glossary,
        source="bundled",
    )


def _latin(piece: str) -> bool:
    return not any(c > "\u02ff" and not "\u2000" <= c <= "\u2bff" for c in piece)


def _raw_surface(embedder: StaticEmbedder, prompt: str) -> list[float]:
    words = words_of(window(prompt))
    if embedder._glossary is not None:
        words = embedder._glossary.in_english(words, ascii_only=prompt.isascii())
    return surface_features(prompt, words, len(embedder._ids(words)))


# ------------------------------------------------------------------------------------------------ data


def bare_question(prompt: str) -> str:
    """A multiple-choice prompt without its options."""
    stem = prompt.removesuffix("Answer:").rstrip()
    at = stem.find("\nA. ")
    return stem[:at] if at > 0 else stem


def gold(rows: Sequence[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    return [r for r in rows if r["split"] == split and not r["contaminated"]]


def scores_of(rows: Sequence[Mapping[str, Any]], model: str) -> np.ndarray:
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
        mixture[name] = Source([r["prompt"] for r in rows], gain, (gain > 0).astype(np.float64), rows)
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
    rows = [row for row in read_lines("graded_prompts.jsonl") if seen.match(row["prompt"]) is None]
    mixture["graded"] = Source([row["prompt"] for row in rows], np.array([graded_gain(row) for row in rows]), rows=rows)
    return mixture, held


def graded_gain(row: Mapping[str, Any]) -> float:
    """What a graded prompt's grade and field say of the strong model's gain."""
    domain = "computed" if row["field"] in COMPUTED_FIELDS else "open" if row["field"] in OPEN_FIELDS else "knowledge"
    mean, step = GRADED_GAINS[domain]
    return mean + step * (int(row["grade"]) - 3)


def seen_prompts(mixture: Mapping[str, Source]) -> SeenPrompts:
    """Fingerprints of all that the head is fitted on; of MMLU-Pro also as the questions stand in the data."""
    whole = [r["prompt"] for r in read_rows("outcomes/mmlu_pro.jsonl.gz")]
    return SeenPrompts.of([*whole, *(prompt for source in mixture.values() for prompt in source.prompts)])


# ------------------------------------------------------------------------------------------------ head and vote


def fit_head(
    vectors: dict[str, np.ndarray],
    mixture: dict[str, Source],
    keep: dict[str, np.ndarray],
    l2: float = L2,
    factors: Mapping[str, float] | None = None,
) -> np.ndarray:
    """The pair's vector, fitted to the rows of each source that `keep` marks: labels are (1 + gain) / 2.

    `factors` multiply the weights of sources; a source of weight 0 has no part.
    """
    weights = {n: SOURCE_WEIGHTS[n] * (factors or {}).get(n, 1.0) for n in mixture}
    used = [n for n, weight in weights.items() if weight]
    x = np.concatenate([vectors[n][keep[n]] for n in used])
    y = np.concatenate([(1.0 + mixture[n].gain[keep[n]]) / 2.0 for n in used])
    w = np.concatenate([np.full(keep[n].sum(), weights[n] / keep[n].sum()) for n in used])
    return fit_pair(x, y, weights=w, l2=l2)


def fold_of(mixture: dict[str, Source], folds: int, seed: int) -> dict[str, np.ndarray]:
    """Which fold each row is in: at random, but the graded prompts by field, translations beside their originals."""
    rng = np.random.default_rng(seed)
    found = {n: rng.permutation(len(s.prompts)) % folds for n, s in mixture.items()}
    if "graded" in mixture:
        fields = sorted({row["field"] for row in mixture["graded"].rows})
        fold = dict(zip(fields, rng.permutation(len(fields)) % folds, strict=True))
        found["graded"] = np.array([fold[row["field"]] for row in mixture["graded"].rows])
    return found


def out_of_fold(
    vectors: dict[str, np.ndarray],
    mixture: dict[str, Source],
    seed: int,
    l2: float = L2,
    factors: Mapping[str, float] | None = None,
    *,
    reworded: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Logits of each training row by a head that did not see it.

    `reworded` has other vectors for the rows of a source, which are scored in place of its own.
    """
    fold = fold_of(mixture, FOLDS, seed)
    scored = {**vectors, **(reworded or {})}
    logits = {n: np.zeros(len(s.prompts)) for n, s in mixture.items()}
    for k in range(FOLDS):
        head = fit_head(vectors, mixture, {n: f != k for n, f in fold.items()}, l2, factors)
        for n, f in fold.items():
            logits[n][f == k] = scored[n][f == k] @ head
    return logits


def quantized(vectors: np.ndarray) -> np.ndarray:
    """Vectors as int8, each row in a scale of its own: a cosine needs no scale."""
    scaled: np.ndarray = np.rint(127.0 * vectors / np.abs(vectors).max(axis=1, keepdims=True)).astype(np.int8)
    return scaled


def votes(stored: np.ndarray, labels: np.ndarray, queries: np.ndarray, base: float = VOTE_BASE) -> np.ndarray:
    """Logits of the votes of stored rows on other rows."""
    directions, y = unit_rows(quantized(stored)), labels.astype(np.float32)
    rates = np.array([vote(directions, y, query.astype(np.float32), base) for query in queries])
    return np.asarray(np.log(rates / (1.0 - rates)))


def out_of_fold_votes(vectors: np.ndarray, gain: np.ndarray, fold: np.ndarray, base: float = VOTE_BASE) -> np.ndarray:
    """Logits of each row's win rate by the votes of the other folds."""
    found = np.zeros(len(gain))
    for k in range(FOLDS):
        kept = fold != k
        found[~kept] = votes(vectors[kept], (1.0 + gain[kept]) / 2.0, vectors[~kept], base)
    return found


def on_the_heads_scale(
    vote_logits: np.ndarray, head_logits: np.ndarray, wins: np.ndarray, head_share: float = HEAD_SHARE
) -> tuple[float, float, float]:
    """Slopes of vote and head and the intercept, from logits of rows that neither had seen.

    Vote and head are weighed in units of their standard deviation; Platt's regression of `wins` on their sum gives the
    scale.
    """
    of_vote, of_head = (1.0 - head_share) / vote_logits.std(), head_share / head_logits.std()
    slope, intercept = platt(of_vote * vote_logits + of_head * head_logits, wins, np.ones(len(wins)))
    return float(slope * of_vote), float(slope * of_head), intercept


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


@dataclass(frozen=True)
class Scales:
    """What brings head and vote onto the scale of a win rate."""

    slope: float
    intercept: float
    vote_slope: float
    head_slope: float
    vote_intercept: float


def scales_of(vectors: dict[str, np.ndarray], mixture: dict[str, Source], seed: int = 0) -> Scales:
    """All scales, from logits of rows that neither head nor vote had seen."""
    logits = out_of_fold(vectors, mixture, seed)
    # each benchmark counts alike in the mixture on which the win rate is right on average
    names = ("mmlu_gold", "gsm8k_gold")
    slope, intercept = platt(
        np.concatenate([logits[n] for n in names]),
        np.concatenate([mixture[n].wins for n in names]),
        np.concatenate([np.full(len(logits[n]), 1 / len(logits[n])) for n in names]),
    )
    gold_rows = mixture["mmlu_gold"]
    assert gold_rows.wins is not None
    fold = fold_of(mixture, FOLDS, seed)["mmlu_gold"]
    voted = out_of_fold_votes(vectors["mmlu_gold"], gold_rows.gain, fold)
    return Scales(slope, intercept, *on_the_heads_scale(voted, slope * logits["mmlu_gold"] + intercept, gold_rows.wins))


def assembled(
    head: np.ndarray,
    scales: Scales,
    embedder: StaticEmbedder,
    gold_vectors: np.ndarray,
    gold_rows: Sequence[Mapping[str, Any]],
) -> HeadAndVoteRouter:
    """The router of a head and of the MMLU gold rows that vote."""
    # float32 in the file is what the router will compute with
    vector = rescaled(head, scales.slope, scales.intercept).astype(np.float32)
    choice = SURFACE_NAMES.index("choice")
    return HeadAndVoteRouter(
        pair_router(vector, strong=STRONG, weak=WEAK, embedder=embedder, windows=WINDOWS),
        quantized(gold_vectors),
        np.column_stack([scores_of(gold_rows, STRONG), scores_of(gold_rows, WEAK)]),
        feature=embedder.text_dimension + choice,
        # half way between the values of prompts with and without options
        above=float((0.5 - embedder._mean[choice]) / embedder._std[choice]),
        base=VOTE_BASE,
        head_slope=scales.head_slope,
        vote_slope=scales.vote_slope,
        intercept=scales.vote_intercept,
    )
