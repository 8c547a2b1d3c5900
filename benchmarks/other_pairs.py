# ruff: noqa: E402 - the package is found beside this script, installed or not
"""The bundled router on pairs of models that it was not trained for, without retraining.

    python benchmarks/other_pairs.py [--write docs/evaluation.md]

Two tables. The paper's experiment, MT-Bench without retraining, with Claude 3 models against Llama 3 8B. And GSM8K over
all pairs of 41 models whose scores differ by at least five points, as a distribution of APGR. Prompt length stands
beside both. Only the test split is used, without contaminated rows; the data serve evaluation alone.
Data: ../shared/data or $ROUTELLM_SHARED/data. Half a minute.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from routellm_core import Router, load_router
from routellm_core.evaluation import apgr, evaluate_router, prompt_length

DATA = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared")) / "data"
HEADING, NEXT_HEADING = "## Other pairs of models", "## What the results say"
OPUS, SONNET, LLAMA = "claude-3-opus-20240229", "claude-3-5-sonnet-20240620", "meta-llama-3-8b-instruct"
LEAST_GAP = 0.05
# APGR on MT-Bench without retraining, as the paper reports it for pairs of its own
PAPER = [
    ("Claude 3 Opus / Claude 3 Sonnet", "paper: mf", "0.762"),
    ("", "paper: sw_ranking", "0.772"),
    ("Llama 3.1 70B / Llama 3.1 8B", "paper: mf", "0.738"),
    ("", "paper: sw_ranking", "0.767"),
]


def read_rows(name: str) -> list[dict[str, Any]]:
    """The test rows of a file, without contaminated ones."""
    with gzip.open(DATA / "pairs" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["split"] == "test" and not row.get("contaminated")]


def mt_bench(router: Router) -> list[tuple[str, str, str]]:
    """APGR with a 95 % interval, for each strong model against Llama 3 8B."""
    rows = read_rows("mt_bench_claude3_llama3")
    prompts = [row["turns"][0] for row in rows]
    out = []
    for strong in (OPUS, SONNET):
        sides = [np.array([row["scores"][model] for row in rows]) for model in (strong, LLAMA)]
        found = evaluate_router(router, prompts, *sides, seed=0)
        out.append((f"{strong} / {LLAMA}", "bundled", str(found.metrics["apgr"])))
        out += [("", name.replace("_", " "), str(found.baselines[name]["apgr"])) for name in found.baselines]
    return out


def gsm8k_pairs(win_rates: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """APGR for each pair of models with a clear gap."""
    rows = read_rows("gsm8k_41_models")
    rates = win_rates([row["prompt"] for row in rows])
    models = sorted(rows[0]["scores"])
    scores = {model: np.array([row["scores"][model] for row in rows], dtype=float) for model in models}
    return np.array(
        [
            float(apgr(rates, scores[strong], scores[weak]))
            for strong in models
            for weak in models
            if scores[strong].mean() - scores[weak].mean() >= LEAST_GAP
        ]
    )


def distribution(values: np.ndarray) -> list[str]:
    """Mean, quantiles and the share below guessing."""
    quantiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    return [f"{values.mean():.3f}", *(f"{q:.3f}" for q in quantiles), f"{(values < 0.5).mean():.0%}"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def numbers(router: Router) -> dict[str, Any]:
    """The rows of both tables; the model card has them, too."""
    router_pairs, length_pairs = gsm8k_pairs(router.win_rates), gsm8k_pairs(prompt_length)
    return {
        "mt_bench": [*mt_bench(router), *PAPER],
        "gsm8k": [("bundled", *distribution(router_pairs)), ("prompt length", *distribution(length_pairs))],
        "pairs": len(router_pairs),
        "prompts": len(read_rows("gsm8k_41_models")),
    }


def section(found: dict[str, Any]) -> str:
    """The Markdown section."""
    return "\n\n".join(
        [
            HEADING,
            "The bundled router was trained for gpt-4-1106-preview and Mixtral-8x7B. Does it serve other models "
            "without retraining? The paper asks this on MT-Bench, for two pairs of which no public judgements exist; "
            "its figures for those stand below ours. One command gives this section:",
            "```console\n$ python benchmarks/other_pairs.py --write docs/evaluation.md\n```",
            "MT-Bench, 72 questions, judged by GPT-4 at different dates by different people. APGR with 95 % intervals; "
            "of random routing, the range of guesses:",
            table(["pair", "router", "APGR"], found["mt_bench"]),
            f"GSM8K, {found['prompts']:,} test questions, {found['pairs']} pairs out of 41 models whose scores differ "
            f"by at least {100 * LEAST_GAP:.0f} points. The distribution of APGR over the pairs, which share models "
            "and so are not independent:",
            table(["router", "mean", "5 %", "25 %", "median", "75 %", "95 %", "below 0.5"], found["gsm8k"]),
            "On word problems its skill is that of the prompt's length, whatever the pair. Evaluate the bundled router "
            "on outcomes of your own models before you rely on it.",
        ]
    )


def main() -> None:
    """Print the section, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the section of this Markdown page")
    options = parser.parse_args()
    text = section(numbers(load_router()))
    if options.write is None:
        print(text)
        return
    page = options.write.read_text(encoding="utf-8")
    end = page.index(f"\n{NEXT_HEADING}") + 1
    start = page.index(f"\n{HEADING}") + 1 if f"\n{HEADING}" in page else end
    options.write.write_text(page[:start] + text + "\n\n" + page[end:], encoding="utf-8")


if __name__ == "__main__":
    main()
