"""A batch of questions, one call of the router, and what it saved against always-strong.

``python examples/langchain_batch.py`` needs no key; see `stand_ins` for real models.
"""

from __future__ import annotations

from typing import Any

import stand_ins
from langchain_core.prompts import ChatPromptTemplate

from langchain_routellm import ChatRouteLLM, SavingsCallbackHandler, routing_decision
from routellm_core import Price

# money per million tokens; put your own models' prices here
PRICES = {"strong": Price(input=2.00, output=8.00), "weak": Price(input=0.10, output=0.40)}
QUESTIONS = [
    "hi",
    "What is the capital of Peru?",
    "Translate 'thank you' to Italian.",
    "Suggest a name for a grey kitten.",
    "Find all integer solutions of x^2 - 2 y^2 = 1 and prove that there are no others.",
    "Which is larger, e^pi or pi^e? Prove it without a calculator.",
]


def main() -> None:
    strong, weak = stand_ins.models()
    llm = ChatRouteLLM(strong=strong, weak=weak, strong_fraction=0.3, failover=True)
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | llm
    savings = SavingsCallbackHandler(PRICES)
    config: Any = {"callbacks": [savings], "max_concurrency": 4}
    answers = chain.batch([{"question": question} for question in QUESTIONS], config)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        decision = routing_decision(answer)
        assert decision is not None
        print(f"{decision.model:<6}  {decision.win_rate:.3f}  {question}")
    print("\n" + savings.table())


if __name__ == "__main__":
    main()
