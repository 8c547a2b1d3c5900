"""Prompts that a router was trained on, left out of its evaluation: on them it knows the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from routellm_core.errors import DataError
from routellm_core.evaluation.verdict import MIN_PROMPTS

if TYPE_CHECKING:
    from routellm_core.evaluation.benchmarks import Benchmark
    from routellm_core.routers.base import Router


def leave_out_seen(benchmark: Benchmark, routers: Mapping[str, Router]) -> Benchmark:
    """The benchmark without the prompts that any of the routers was trained on.

    All routers are measured on the same prompts, so that they can be compared. A prompt counts as seen when it differs
    from a training prompt in case, punctuation and spacing alone; paraphrases are not recognised.

    Args:
        benchmark: Prompts with scores.
        routers: The routers by name. One that does not know what it was trained on leaves nothing out.

    Raises:
        DataError: Too few prompts for a verdict are left.
    """
    keep = np.ones(len(benchmark.prompts), dtype=bool)
    seen: dict[str, int] = {}
    for name, router in routers.items():
        if router.trained_on is None:
            continue
        marked = router.trained_on.marks(benchmark.prompts)
        keep &= ~marked
        if marked.any():
            seen[name] = int(marked.sum())
    if not seen:
        return benchmark
    left = int(keep.sum())
    if left < MIN_PROMPTS:
        most = max(seen, key=lambda name: seen[name])
        raise DataError(
            f"{benchmark.name}: the router {most} was trained on {seen[most]:,} of these {keep.size:,} prompts, and on "
            f"the {left} others alone there is no verdict (at least {MIN_PROMPTS} are needed). Evaluate on other "
            "prompts. For its own data, routellm train has written a verdict on prompts that were held out, or scored "
            "out of fold with --folds, to the folder evaluation beside the router"
        )
    return benchmark.only(keep, seen=seen)
