"""An agent workflow with a tool: routed on the person's task, and with one model all through the loop.

Run it with ``python examples/llamaindex_agent.py``; it needs no key (see llamaindex_stand_ins.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ToolCallResult
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llamaindex_stand_ins import models
from pydantic import Field

from llamaindex_routellm import RouteLLM, RouteLLMDecisionEvent

TASKS = [
    "Please multiply 12 by 7.",
    "Multiply 365 by 24, prove that the method works for any two integers, and discuss where it could overflow.",
]


def multiply(a: int, b: int) -> int:
    """Multiply two integers."""
    return a * b


class Sides(BaseEventHandler):
    """Collects which side each step of the agent went to."""

    seen: list[str] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, RouteLLMDecisionEvent):
            self.seen.append(event.decision["model"])


async def main() -> None:
    strong, weak = models()
    llm = RouteLLM(strong=strong, weak=weak, strong_fraction=0.3)
    sides = Sides()
    get_dispatcher().add_event_handler(sides)
    agent = FunctionAgent(
        name="calculator",
        description="Calculates",
        llm=llm,
        tools=[multiply],
        system_prompt="You calculate with tools.",
    )
    workflow = AgentWorkflow(agents=[agent], root_agent="calculator")
    for task in TASKS:
        sides.seen = []
        run = workflow.run(task)
        print(f"Task: {task}")
        async for event in run.stream_events():
            if isinstance(event, ToolCallResult):
                print(f"  {event.tool_name}({event.tool_kwargs}) = {event.tool_output.content}")
        print(f"  {await run}\n  steps went to: {', '.join(sides.seen)}\n")


if __name__ == "__main__":
    asyncio.run(main())
