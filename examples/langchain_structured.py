"""Structured output, routed: each model fills the schema by its own means, and the raw answer keeps the decision.

``python examples/langchain_structured.py`` needs no key; see `stand_ins` for real models.
"""

from __future__ import annotations

from typing import Any

import stand_ins
from pydantic import BaseModel, Field

from langchain_routellm import ChatRouteLLM, routing_decision

ORDERS = [
    "Please send 3 boxes to Anna Meyer.",
    "Send Carla Rossi 12 boxes, unless her earlier order of 7 covers the need: work out which clauses of the contract "
    "apply, weigh them against each other and justify the quantity.",
]


class Order(BaseModel):
    """An order of boxes."""

    customer: str = Field(description="who gets it")
    boxes: int = Field(description="how many boxes")


def main() -> None:
    strong, weak = stand_ins.models()
    llm = ChatRouteLLM(strong=strong, weak=weak, strong_fraction=0.3)
    extract = llm.with_structured_output(Order, include_raw=True)
    # one call of the router for the whole batch
    results: list[Any] = extract.batch(ORDERS)
    for text, result in zip(ORDERS, results, strict=True):
        decision = routing_decision(result)
        assert decision is not None
        print(f"{text}\n  {decision.model} (win rate {decision.win_rate:.3f}): {result['parsed']!r}")


if __name__ == "__main__":
    main()
