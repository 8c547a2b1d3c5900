"""Structured extraction: an object out of a text, by the model that the text calls for.

Run it with ``python examples/llamaindex_extraction.py``; it needs no key (see llamaindex_stand_ins.py).
"""

from __future__ import annotations

from typing import Any

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llamaindex_stand_ins import models
from pydantic import BaseModel, Field

from llamaindex_routellm import RouteLLM, RouteLLMDecisionEvent

PROMPT = PromptTemplate("Extract the building from this text.\n{text}")
TEXTS = [
    "Thank you for the lovely day at the Harbour Bridge! They say it is 503 metres long and was opened in 1932.",
    "Prove from these notes how tall the old Macquarie Lighthouse is: the mason was paid for 26 metres, the plan of "
    "1883 shows the same, and if the keeper counted 130 steps of 20 centimetres each, evaluate who is right.",
]


class Decisions(BaseEventHandler):
    """Remembers the last decision: an object has no place for it."""

    last: dict[str, Any] = Field(default_factory=dict)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, RouteLLMDecisionEvent):
            self.last = event.decision


class Building(BaseModel):
    """A building."""

    name: str = Field(description="What it is called")
    metres: float = Field(description="Its size in metres")
    year: int = Field(description="When it was finished")


def main() -> None:
    strong, weak = models()
    # the instruction is the same every time: route on the text below it
    llm = RouteLLM(strong=strong, weak=weak, strong_fraction=0.3, route_on=lambda messages: _below(messages[-1]))
    decisions = Decisions()
    get_dispatcher().add_event_handler(decisions)
    for text in TEXTS:
        building = llm.structured_predict(Building, PROMPT, text=text)
        print(f"{text}\n  {decisions.last['model']}, win rate {decisions.last['win_rate']:.2f}: {building!r}\n")
    answer = llm.as_structured_llm(Building).chat([ChatMessage(content=TEXTS[0])])
    print(f"As a structured LLM: {answer.raw!r}")


def _below(message: ChatMessage) -> str:
    return (message.content or "").partition("\n")[2] or message.content or ""


if __name__ == "__main__":
    main()
