"""An LCEL chain whose model is routed: prompt | ChatRouteLLM | parser.

``python examples/langchain_chain.py`` needs no key; see `stand_ins` for real models.
"""

from __future__ import annotations

import stand_ins
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_routellm import ChatRouteLLM, routing_decision

QUESTIONS = [
    "What is the capital of France?",
    "Prove that the square root of 2 is irrational, and generalise to every prime.",
]


def main() -> None:
    strong, weak = stand_ins.models()
    llm = ChatRouteLLM(strong=strong, weak=weak, strong_fraction=0.3)
    prompt = ChatPromptTemplate.from_messages([("system", "Answer briefly."), ("human", "{question}")])

    for question in QUESTIONS:
        answer = (prompt | llm).invoke({"question": question})
        decision = routing_decision(answer)
        assert decision is not None
        print(f"{question}\n  win rate {decision.win_rate:.3f}, threshold {decision.threshold:.3f}: {decision.model}")
        print(f"  {answer.text}\n")

    chain = prompt | llm | StrOutputParser()
    # a single call can be steered, whatever the router thinks
    steered = chain.invoke({"question": QUESTIONS[0]}, config={"configurable": {"routellm_force": "strong"}})
    print(f"Forced to the strong model:\n  {steered}")


if __name__ == "__main__":
    main()
