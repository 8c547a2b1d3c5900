# ruff: noqa: E402 - the package is found beside this script, installed or not
"""The table of results: the bundled router and every router that can be trained here, beside the paper's.

    python benchmarks/results_table.py [--bert ENCODER] [--write docs/evaluation.md]

Trains mf, knn and sw_ranking over the bundled embedder on the `gold` rows of MMLU and GSM8K (1,700 rows, seconds), and
with --bert also a BERT router from an encoder on disk (minutes), then evaluates all on the test splits of MMLU, GSM8K
and MT-Bench and prints one Markdown section. No setting was chosen on a test split: mf and knn choose theirs by
cross-validation inside the training rows; sw_ranking's base was chosen by cross-validation on the MMLU gold rows;
BERT's learning rate is the customary one for small encoders. A causal LLM router needs a language model to start from.
Data: ../shared/data or $ROUTELLM_SHARED/data.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from routellm_core import Router, load_router
from routellm_core.evaluation import load_benchmark
from routellm_core.evaluation.report import evaluate_benchmark, markdown_table
from routellm_core.preference import Outcome
from routellm_core.training import train_embedding_router

STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"
DATA = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared")) / "data"
TRAINED: dict[str, dict[str, Any]] = {"mf": {}, "knn": {}, "sw_ranking": {"base": 1000.0}}
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


def routers(folder: Path, encoder: Path | None) -> dict[str, Router]:
    """The bundled router and those trained on the gold rows, by the name that the table gives them."""
    rows = gold_rows()
    found = {"mf (bundled)": load_router()}
    for kind, options in TRAINED.items():
        train_embedding_router(kind, rows, folder / kind, strong=STRONG, weak=WEAK, held_out=0.0, **options)
        found[f"{kind} (gold rows)"] = load_router(folder / kind)
    if encoder is not None:
        from routellm_core.training import FineTuning, train_bert

        train_bert(
            lambda: iter(rows),
            folder / "bert",
            base=encoder,
            strong=STRONG,
            weak=WEAK,
            how=FineTuning(epochs=3, learning_rate=5e-5),
            max_length=192,  # most questions are shorter, and minutes on a CPU stay minutes
            held_out=0.0,
        )
        found["bert (gold rows)"] = load_router("bert", folder / "bert")
    return found


def section(found: dict[str, Router]) -> str:
    """The Markdown section."""
    parts = [
        HEADING,
        "One command gives all of this section, with the data beside the checkout:",
        "```console\n$ python benchmarks/results_table.py --write docs/evaluation.md\n```",
        "The routers marked (gold rows) were trained on 1,500 rows of MMLU and 200 of GSM8K alone, in seconds, over "
        "the bundled embedder. None uses a service or a GPU; the published ones use OpenAI embeddings or a fine- "
        "tuned language model, and MMLU there includes the rows that are `gold` here. Brackets are 95 % intervals; "
        "of random routing, the range of guesses. A BERT router joins with `--bert ENCODER` (any encoder on disk; "
        "half an hour of one core for one of 22 million parameters); a causal LLM router is not here: it needs a "
        "language model to start from.",
    ]
    for name in ("mmlu", "gsm8k", "mt-bench"):
        benchmark = load_benchmark(name, DATA)
        result = evaluate_benchmark(benchmark, {label: r.win_rates(benchmark.prompts) for label, r in found.items()})
        parts += [f"### {result['title']}", markdown_table(result)]
        verdicts = [f"> **{router['name']}**: {router['verdict']['sentence']}" for router in result["routers"]]
        parts.append("\n>\n".join(verdicts))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Train, evaluate, print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bert", type=Path, metavar="ENCODER", help="directory of an encoder to fine-tune")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the section of this Markdown page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = section(routers(Path(folder), options.bert))
    if options.write is None:
        print(text)
        return
    page = options.write.read_text(encoding="utf-8")
    options.write.write_text(page[: page.index(f"\n{HEADING}") + 1] + text, encoding="utf-8")


if __name__ == "__main__":
    main()
