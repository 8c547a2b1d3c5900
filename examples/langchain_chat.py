"""A small chat in the terminal: answers stream in, and each says which model gives it.

A conversation that has gone to the strong model stays there until three easy turns in a row. ``/weak`` and
``/strong`` before a message choose the model for it; an empty line ends the chat.
``python examples/langchain_chat.py`` needs no key; see `stand_ins` for real models.
"""

from __future__ import annotations

import sys
from typing import Any

import stand_ins
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langchain_routellm import ChatRouteLLM, SavingsCallbackHandler, routing_decision
from routellm_core import Price, Stickiness


def main() -> None:
    strong, weak = stand_ins.models()
    llm = ChatRouteLLM(
        strong=strong, weak=weak, strong_fraction=0.3, lookback=2, sticky=Stickiness(release_after=3), failover=True
    )
    savings = SavingsCallbackHandler({"strong": Price(2.00, 8.00), "weak": Price(0.10, 0.40)})
    messages: list[BaseMessage] = [SystemMessage("You are a helpful assistant.")]
    while True:
        print("> ", end="", flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            break
        configurable = {"thread_id": "terminal"}
        command, _, rest = line.partition(" ")
        if command in ("/strong", "/weak"):
            configurable["routellm_force"], line = command[1:], rest
        config: Any = {"configurable": configurable, "callbacks": [savings]}
        messages.append(HumanMessage(line))
        answer = None
        for chunk in llm.stream(messages, config):
            decision = routing_decision(chunk)  # the first chunk tells
            if decision is not None:
                print(f"[{decision.model}, {decision.reason}] ", end="")
            print(chunk.text, end="", flush=True)
            answer = chunk if answer is None else answer + chunk
        print()
        if answer is not None:
            messages.append(answer)
    print("\n" + savings.table())


if __name__ == "__main__":
    main()
