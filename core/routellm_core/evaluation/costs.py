"""What the calls of each model cost on the prompts of a benchmark: measured where that is known, else estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from routellm_core.errors import ConfigurationError
from routellm_core.evaluation.benchmarks import Benchmark
from routellm_core.policy.savings import Price
from routellm_core.statistics.metrics import Floats

# Input and output tokens of a call of which nothing is known.
USUAL_TOKENS = (500.0, 500.0)


@dataclass(frozen=True)
class Money:
    """What is known of prices.

    Attributes:
        prices: Price of each model by name.
        mean_tokens: Mean input and output tokens of a call; None: those of the rows that have tokens, or 500 + 500.
        currency: Name of the currency, for reports; empty when it was not named.
    """

    prices: Mapping[str, Price] = field(default_factory=dict)
    mean_tokens: tuple[float, float] | None = None
    currency: str = ""


@dataclass(frozen=True)
class CallCosts:
    """The costs of one model's calls.

    Attributes:
        costs: Cost (n,) of the call for each prompt.
        measured: Number of prompts whose cost is known, as money or as tokens with a price.
        assumed: What the cost of the other prompts is estimated from, in words; empty when there are none.
    """

    costs: Floats
    measured: int
    assumed: str

    def to_dict(self) -> dict[str, Any]:
        """Mean cost, and what it rests on, as JSON values."""
        return {"mean": float(self.costs.mean()), "measured": self.measured, "assumed": self.assumed}


def call_costs(benchmark: Benchmark, money: Money | None = None) -> dict[str, CallCosts]:
    """The costs of each model for which they are known or have a price.

    A row's own cost counts first, then its tokens at the model's price. The cost of a row that has neither is the price
    of the mean tokens of a call; for a model without a price, the mean cost of the rows whose cost is known.

    Args:
        benchmark: Prompts, with costs and tokens of calls where they are known.
        money: Prices and mean tokens; None: none are known.

    Returns:
        The costs by model; empty unless both models of the pair have them.

    Raises:
        ConfigurationError: There is a price for one model of the pair, and no cost of the other.
    """
    money = money or Money()
    found = {}
    for model in benchmark.scores:
        costs = _costs_of(benchmark, model, money.prices.get(model), money.mean_tokens)
        if costs is not None:
            found[model] = costs
    lacking = [model for model in (benchmark.strong, benchmark.weak) if model not in found]
    if lacking and money.prices:
        raise ConfigurationError(
            f"--price {lacking[0]}=IN/OUT is missing: costs need the prices of both models of the pair"
        )
    return {} if lacking else found


def _costs_of(
    benchmark: Benchmark, model: str, price: Price | None, mean_tokens: tuple[float, float] | None
) -> CallCosts | None:
    rows = len(benchmark.prompts)
    costs = np.array(benchmark.costs.get(model, np.full(rows, np.nan)))
    tokens = benchmark.tokens.get(model, np.full((rows, 2), np.nan))
    if price is not None:
        costs = np.where(np.isnan(costs), tokens @ [price.input, price.output] / 1e6, costs)
    known = np.isfinite(costs)
    measured = int(known.sum())
    if measured == rows:
        return CallCosts(costs, measured, "")
    if price is not None:
        seen = tokens[np.isfinite(tokens).all(axis=1)]
        usual = mean_tokens or (seen.mean(axis=0) if len(seen) else USUAL_TOKENS)
        costs[~known] = price.cost(*usual)
        return CallCosts(costs, measured, f"its price and {usual[0]:,.0f} + {usual[1]:,.0f} tokens a call")
    if not measured:
        return None
    costs[~known] = costs[known].mean()
    return CallCosts(costs, measured, "the mean of the rows whose cost is known")
