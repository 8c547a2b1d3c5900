"""Speed and memory of the bundled router on one core, beside the project's limits.

python benchmarks/default_router_speed.py [--json]

Prints the median time to score a prompt of 50 to 200,000 tokens alone and 1,000 prompts in one call, the time and
memory of loading, and the cost of ``import routellm_core`` beyond ``import numpy``. A prompt of more than 1,200
characters is also read in windows, so its cost grows with its length until all windows are in use, and then stays the
same: the figure "as long" compares the two longest prompts. Times are CPU times of the process, so that other work on
the machine matters less. The exit code is 1 if a limit is missed.
"""

# ruff: noqa: E402 - the number of threads has to be set before numpy is imported
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

CORE = Path(__file__).resolve().parent.parent / "core"
sys.path.insert(0, str(CORE))

LIMITS = {
    "one prompt of 50 tokens, us": 120.0,
    "one prompt of 500 tokens, us": 2500.0,
    "one prompt of 5,000 tokens, us": 10_000.0,
    "one prompt of 200,000 tokens, us": 12_000.0,
    "200,000 tokens against 5,000, times as long": 1.5,
    "1,000 prompts in one call, ms": 100.0,
    "loading, ms": 100.0,
    "memory added by loading, MB": 60.0,
    "import routellm_core beyond numpy, ms": 40.0,
}
HEAVY = ("torch", "openai", "langchain", "langchain_core", "llama_index", "pydantic", "transformers")

_LOAD = """
import json, os, sys, time, numpy
import routellm_core
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before, start = resident(), time.process_time()
router = routellm_core.load_router()
router.win_rates(["warm"])
print(json.dumps([(time.process_time() - start) * 1e3, (resident() - before) / 1e6]))
"""
_IMPORT = """
import json, sys, time, numpy
start = time.process_time()
import routellm_core
print(json.dumps([(time.process_time() - start) * 1e3, [m for m in sys.argv[1:] if m in sys.modules]]))
"""
# Words of everyday questions, of which prompts of any length are drawn; none comes from the data.
_TEXT = """how do I write a function that reads lines from the large file and counts which words appear most often when
the text has punctuation numbers like 42 or 1999 explain why this approach is faster than sorting everything first given
an example with python code then compare memory use of both versions for data that does not fit into main memory please
summarize the history of science economics music in three short paragraphs for my younger brother who studies biology
calculate the probability that two people share a birthday if there are twenty students"""


def prompt_of(tokens: int, rng: random.Random) -> str:
    """Text of about `tokens` tokens, in sentences."""
    words_of_text = _TEXT.split()
    words = [rng.choice(words_of_text) for _ in range(round(tokens * 0.92))]
    for at in range(12, len(words), 13):
        words[at] += rng.choice(".,?")
    return " ".join(words)


def median_of(action: Callable[[int], object], repeats: int) -> float:
    """Median CPU seconds of ``action(i)`` for i in range(repeats)."""
    times = []
    for i in range(repeats):
        start = time.process_time()
        action(i)
        times.append(time.process_time() - start)
    return statistics.median(times)


def in_new_process(code: str, arguments: Sequence[str] = ()) -> list[object]:
    out = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CORE)},
    )
    found: list[object] = json.loads(out.stdout)
    return found


def measure() -> dict[str, float]:
    """The figures by the names of `LIMITS`."""
    from routellm_core import load_router

    router = load_router()
    rng = random.Random(0)
    figures: dict[str, float] = {}
    for tokens, count in ((50, 400), (500, 100), (5_000, 40), (200_000, 10)):
        prompts = [prompt_of(tokens, rng) for _ in range(count)]
        router.win_rates(prompts[: count // 8])
        figures[f"one prompt of {tokens:,} tokens, us"] = 1e6 * median_of(
            lambda i, prompts=prompts: router.win_rates([prompts[i]]), len(prompts)
        )
    longest, long = (figures[f"one prompt of {tokens} tokens, us"] for tokens in ("200,000", "5,000"))
    figures["200,000 tokens against 5,000, times as long"] = longest / long
    # lengths of ordinary chat: a median of some twenty tokens and a long tail
    thousand = [prompt_of(max(3, min(500, round(rng.lognormvariate(3.2, 1.1)))), rng) for _ in range(1000)]
    figures["1,000 prompts in one call, ms"] = 1e3 * median_of(lambda i: router.win_rates(thousand), 7)
    loads = [in_new_process(_LOAD) for _ in range(7)]
    figures["loading, ms"] = statistics.median(float(str(load[0])) for load in loads)
    figures["memory added by loading, MB"] = statistics.median(float(str(load[1])) for load in loads)
    imports = [in_new_process(_IMPORT, HEAVY) for _ in range(9)]
    figures["import routellm_core beyond numpy, ms"] = statistics.median(float(str(i[0])) for i in imports)
    if imports[0][1]:
        raise SystemExit(f"import routellm_core loads {imports[0][1]}")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    figures = measure()
    if options.json:
        print(
            json.dumps({name: {"value": round(v, 1), "limit": LIMITS[name]} for name, v in figures.items()}, indent=2)
        )
    else:
        for name, value in figures.items():
            print(
                f"{name:44s} {value:8.1f}   limit {LIMITS[name]:7.1f}   {'ok' if value <= LIMITS[name] else 'MISSED'}"
            )
    return int(any(value > LIMITS[name] for name, value in figures.items()))


if __name__ == "__main__":
    sys.exit(main())
