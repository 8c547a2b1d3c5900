"""`train auto` beside the routers that it chooses from: APGR on MMLU's test rows after training on n gold rows.

    python benchmarks/auto_router.py --out FILE [--draws 10] [--rows 200 400 800 1500] [--minutes 4]

Needs the data (ROUTELLM_SHARED). Each draw takes other gold rows; all routers of a draw learn from the same ones. What
`auto` chooses by is inside these rows; the test rows measure alone. Each draw is written to FILE as soon as it is
measured, and a run passes over those that are there: with --minutes it stops after so long, to go on another time. The
tables at the end are of all draws in FILE: the mean with its 95 % interval over draws (Student's t), and what `auto` is
from the router with the best mean, draw by draw. There are 1,500 gold rows, so that of these there is one draw.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.data import Outcome
from routellm_core.embedders import Embedder, bundled_embedder
from routellm_core.evaluation import apgr, load_benchmark
from routellm_core.evaluation.benchmarks import Benchmark
from routellm_core.training import auto
from routellm_core.training.embedding_task import EmbeddingTask, PromptVectors

DATA = Path(os.environ.get("ROUTELLM_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
# Quantiles 0.975 of Student's t by degrees of freedom.
_T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


class KnownTexts:
    """The bundled embedder, which remembers: every candidate of every draw embeds the same test prompts."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, npt.NDArray[np.float32]] = {}
        self.dimension = embedder.dimension

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors (n, d)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._embedder.embed(new), strict=True))
        return np.stack([self._known[text] for text in texts])

    async def aembed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Like `embed`."""
        return self.embed(texts)


def measure(rows: int, draw: int, gold: Benchmark, test: Benchmark, embedder: KnownTexts) -> dict[str, Any]:
    """APGR of each candidate and of the chosen one, trained on this draw of gold rows."""
    records = [
        Outcome(prompt=prompt, scores={"strong": strong, "weak": weak})
        for prompt, strong, weak in zip(gold.prompts, gold.strong_scores, gold.weak_scores, strict=True)
    ]
    order = np.random.default_rng([rows, draw]).permutation(len(records))
    train = [records[i] for i in order[:rows]]
    vectors = PromptVectors(embedder, [record.prompt for record in train])
    task = EmbeddingTask(strong="strong", weak="weak", embedder=embedder, vectors=vectors)
    scores = {}
    for candidate in auto.CANDIDATES:
        router = candidate.fit(train, task).router
        scores[candidate.title] = apgr(router.win_rates(test.prompts), test.strong_scores, test.weak_scores)
    chosen = auto.choose(train, task)[0].title
    return {"rows": rows, "draw": draw, "apgr": {**scores, "auto": scores[chosen]}, "chosen": chosen}


def tables(found: Sequence[dict[str, Any]]) -> str:
    """The draws as Markdown."""
    lines = [
        "| rows | draws | mf | best sw_ranking | knn | auto | auto - best of mf and sw | chosen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rows in sorted({one["rows"] for one in found}):
        draws = [one for one in found if one["rows"] == rows]
        values = {name: np.array([one["apgr"][name] for one in draws]) for name in draws[0]["apgr"]}
        best_sw = max((n for n in values if n.startswith("sw_ranking")), key=lambda name: values[name].mean())
        best = max((best_sw, "mf"), key=lambda name: values[name].mean())
        chosen = Counter(one["chosen"] for one in draws)
        cells = [_interval(values[name]) for name in ("mf", best_sw, "knn", "auto")]
        cells[1] += f" ({best_sw.removeprefix('sw_ranking ')})"
        behind = _interval(values["auto"] - values[best], form="+.3f")
        names = ", ".join(f"{count} x {name}" for name, count in chosen.most_common())
        lines.append(f"| {rows} | {len(draws)} | {' | '.join(cells)} | {behind} | {names} |")
    return "\n".join(lines)


def _interval(values: npt.NDArray[np.float64], form: str = ".3f") -> str:
    mean = float(values.mean())
    if values.size < 2:
        return f"{mean:{form}}"
    half = _T.get(values.size - 1, 2.0) * float(values.std(ddof=1)) / float(np.sqrt(values.size))
    return f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 400, 800, 1500])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    begun = time.monotonic()
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    found = [json.loads(line) for line in lines]
    known = {(one["rows"], one["draw"]) for one in found}
    file = DATA / "benchmarks" / "mmlu.jsonl.gz"
    gold, test = (load_benchmark("mmlu", file, split=split) for split in ("gold", "test"))
    embedder = KnownTexts(bundled_embedder())
    for draw in range(given.draws):
        for rows in given.rows:
            is_again = draw > 0 and rows >= len(gold.prompts)
            if is_again or (rows, draw) in known or time.monotonic() - begun > 60.0 * given.minutes:
                continue
            found.append(measure(rows, draw, gold, test, embedder))
            with given.out.open("a", encoding="utf-8") as out:
                out.write(json.dumps(found[-1]) + "\n")
    print(f"APGR on {test.title}\n\n{tables(found)}")


if __name__ == "__main__":
    main()
