"""Score a million prompts with Ray Data, on all cores; needs ``pip install "ray[data]"`` and no key.

Run it with ``python examples/bulk_ray.py``, with another number of made-up prompts, or with your own: ``python
examples/bulk_ray.py prompts.jsonl scored``, where each line has a field "prompt", writes parquet files to the folder
"scored". On a cluster, set ``RAY_ADDRESS``.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import ray

from routellm_core import RoutingPolicy, WinRates

COUNT = 1_000_000
STRONG_FRACTION = 0.3
BLOCKS = 8  # of made-up prompts; of files, Ray makes blocks of up to 128 MB


def made_up(batch: dict[str, Any]) -> dict[str, Any]:
    """Prompts that are all different, in the place of your own."""
    questions = (
        "What is {0} plus {1}?",
        "Prove that {0} divides {0} to the power of {1}.",
        "Tell me about the year {0}.",
    )
    prompts = [questions[i % 3].format(i, i % 97) for i in batch["id"].tolist()]
    return {"id": batch["id"], "prompt": np.array(prompts, dtype=object)}


def main(source: str = str(COUNT), out: str | None = None) -> None:
    if "RAY_ADDRESS" in os.environ:
        ray.init()
    else:
        ray.init("local", include_dashboard=False)
    if source.isdecimal():
        prompts = ray.data.range(int(source), override_num_blocks=BLOCKS).map_batches(made_up, batch_size=None)
    else:
        prompts = ray.data.read_json(source, lines=True)
    # An object, not the class, which would run in actors: Ray reads and scores a block in one task, and each process of
    # its pool loads the router once. Whole arrow blocks are scored as they are, without a detour through numpy.
    scored = prompts.map_batches(WinRates("mf"), batch_format="pyarrow", batch_size=None)
    started = time.perf_counter()
    if out is not None:
        scored.write_parquet(out)
        scored = ray.data.read_parquet(out)
    threshold = RoutingPolicy("mf", strong_fraction=STRONG_FRACTION).threshold
    count = strong = 0
    for batch in scored.select_columns(["win_rate"]).iter_batches(batch_size=65_536):
        count += len(batch["win_rate"])
        strong += int(np.sum(batch["win_rate"] >= threshold))
    seconds = time.perf_counter() - started
    print(f"{count:,} prompts in {seconds:.0f} s; {strong / count:.1%} strong at a threshold of {threshold:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
