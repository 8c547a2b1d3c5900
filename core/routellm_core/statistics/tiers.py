"""Tiers: models grouped by rating, by the dynamic programme of the RouteLLM paper."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from routellm_core.errors import ConfigurationError, DataError

Name = TypeVar("Name", bound=Hashable)


def compute_tiers(ratings: Mapping[Name, float], num_tiers: int) -> dict[Name, int]:
    """Split models into tiers of adjacent ratings so that the sum of the tiers' variances is least; tier 0 is best.

    The sum is not weighted by tier size (section 4.1 of arXiv 2406.18665 as its authors' package computes it), so a far
    outlier tends to get a tier to itself. If several partitions have the same sum, the smallest first tiers win. With
    fewer models than tiers each model has a tier of its own and the numbers in between are unused: the best model is in
    tier 0, the worst in num_tiers - 1.

    Args:
        ratings: Rating of each of n >= 1 models, any order.
        num_tiers: Number of tiers, >= 1.

    Returns:
        Tier of each model, best model first.

    Raises:
        ConfigurationError: `num_tiers` is not a positive int.
        DataError: There are no models, or a rating is NaN or infinite.
    """
    if isinstance(num_tiers, bool) or not isinstance(num_tiers, int) or num_tiers < 1:
        raise ConfigurationError(f"num_tiers={num_tiers!r}: expected an int >= 1")
    if not ratings:
        raise DataError("ratings is empty: pass at least one model")
    names = sorted(ratings, key=lambda name: (-ratings[name], str(name)))
    values = np.array([ratings[name] for name in names], dtype=np.float64)
    if not np.isfinite(values).all():
        bad = names[int(np.flatnonzero(~np.isfinite(values))[0])]
        raise DataError(f"ratings[{bad!r}]={ratings[bad]}: expected a finite number")
    n = len(names)
    # variance[i, j]: of values[i..j]. np.var, not prefix sums: equal sums must compare as equal.
    variance = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            variance[i, j] = np.var(values[i : j + 1])
    best = variance[0].copy()
    splits: list[list[int]] = []
    for _ in range(1, num_tiers):
        split, cost = [0] * n, best.copy()
        for j in range(1, n):
            # The last tier holds l+1..j; argmin takes the first of equal values.
            sums = best[:j] + variance[1 : j + 1, j]
            split[j] = int(np.argmin(sums))
            cost[j] = sums[split[j]]
        cost[0] = 0.0
        best = cost
        splits.append(split)
    tiers: dict[Name, int] = {}
    last = n - 1
    starts = [0] * num_tiers
    for tier in range(num_tiers - 1, 0, -1):
        last = splits[tier - 1][last]
        starts[tier] = last + 1
    for tier, start in enumerate(starts):
        stop = starts[tier + 1] if tier + 1 < num_tiers else n
        for name in names[start:stop]:
            tiers.setdefault(name, tier)
    return tiers
