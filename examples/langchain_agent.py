"""An agent with tools whose model calls are routed once a run, with memory of the conversation.

``python examples/langchain_agent.py`` needs no key; see `stand_ins` for real models.
"""

from __future__ import annotations

from typing import Any

import stand_ins
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_routellm import RouteLLMMiddleware, SavingsCallbackHandler
from routellm_core import Price

TASKS = [
    "What is the weather in Lisbon?",
    "Compound 1000 at 3 percent for 12 years, derive the formula, and prove that it exceeds simple interest.",
    "Thanks!",
]


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}, 24 degrees."


@tool
def compound(amount: float, percent: float, years: int) -> str:
    """Money after years of compound interest."""
    return f"{amount:.2f} grows to {amount * (1 + percent / 100) ** years:.2f} in {years} years at {percent} percent."


def main() -> None:
    strong, weak = stand_ins.models()
    routing = RouteLLMMiddleware(strong=strong, weak=weak, strong_fraction=0.3, scope="run")
    agent: Any = create_agent(model=weak, tools=[weather, compound], middleware=[routing], checkpointer=InMemorySaver())
    savings = SavingsCallbackHandler({"strong": Price(2.00, 8.00), "weak": Price(0.10, 0.40)})
    config: Any = {"configurable": {"thread_id": "one"}, "callbacks": [savings]}
    for task in TASKS:
        state = agent.invoke({"messages": [("user", task)]}, config)
        decision = state["routellm"]
        steps = [m.name for m in state["messages"] if m.type == "tool"]
        print(f"{task}\n  {decision['model']} (win rate {decision['win_rate']:.3f}), tools so far: {steps}")
        print(f"  {state['messages'][-1].text}\n")
    print(savings.table())


if __name__ == "__main__":
    main()
