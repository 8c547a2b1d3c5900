"""`train auto` beside the routers that it chooses from: APGR on MMLU's test rows after training on n gold rows.

    python benchmarks/auto_router.py [--draws 5] [--rows 200 400 800 1500]

Needs the data (ROUTELLM_SHARED). Each draw takes other gold rows; all routers of a draw learn from the same ones. What
`auto` chooses by is inside these rows; the test rows measure alone.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from routellm_core.data import Outcome
from routellm_core.embedders import bundled_embedder
from routellm_core.evaluation import apgr, load_benchmark
from routellm_core.training import auto
from routellm_core.training.embedding_task import EmbeddingTask, PromptVectors

DATA = Path(os.environ.get("ROUTELLM_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 400, 800, 1500])
    options = parser.parse_args()
    file = DATA / "benchmarks" / "mmlu.jsonl.gz"
    gold, test = (load_benchmark("mmlu", file, split=split) for split in ("gold", "test"))
    records = [
        Outcome(prompt=prompt, scores={"strong": strong, "weak": weak})
        for prompt, strong, weak in zip(gold.prompts, gold.strong_scores, gold.weak_scores, strict=True)
    ]
    embedder = bundled_embedder()
    vectors = PromptVectors(embedder, gold.prompts)
    task = EmbeddingTask(strong="strong", weak="weak", embedder=embedder, vectors=vectors)

    def measured(router: Any) -> float:
        return apgr(router.win_rates(test.prompts), test.strong_scores, test.weak_scores)

    print(f"APGR on {test.title}; mean of the draws")
    for rows in options.rows:
        found: dict[str, list[float]] = {}
        chosen: Counter[str] = Counter()
        for draw in range(1 if rows >= len(records) else options.draws):
            order = np.random.default_rng([rows, draw]).permutation(len(records))
            train = [records[i] for i in order[:rows]]
            scores = {c.title: measured(c.fit(train, task).router) for c in auto.CANDIDATES}
            best, _ = auto.choose(train, task)
            chosen[best.title] += 1
            for name, score in (*scores.items(), ("auto", scores[best.title])):
                found.setdefault(name, []).append(score)
        means = {name: round(float(np.mean(values)), 4) for name, values in found.items()}
        print(json.dumps({"rows": rows, "apgr": means, "chosen": chosen}), flush=True)


if __name__ == "__main__":
    main()
