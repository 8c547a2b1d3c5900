"""Questions over a small folder of documents: easy ones go to the weak model, hard ones to the strong one.

Run it with ``python examples/llamaindex_rag.py``; it needs no key (see llamaindex_stand_ins.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.node_parser import SentenceSplitter
from llamaindex_stand_ins import WordEmbedding, models
from pydantic import Field

from llamaindex_routellm import RouteLLM, RouteLLMDecisionEvent, SavingsEventHandler
from routellm_core import Price

QUESTIONS = [
    "When was the bridge opened?",
    "How long does a ferry to the beach take?",
    "How far is the light seen?",
    "Compare how the bridge and the ferries competed, and derive by what share the passengers fell.",
    "Explain step by step why two high tides are twelve hours and 25 minutes apart and not twelve hours, and compute "
    "the shift over a week.",
]


class Decisions(BaseEventHandler):
    """Remembers the last decision, to print it beside the answer."""

    last: dict[str, Any] = Field(default_factory=dict)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, RouteLLMDecisionEvent):
            self.last = event.decision


def main() -> None:
    strong, weak = models()
    Settings.embed_model = WordEmbedding()
    Settings.llm = RouteLLM(strong=strong, weak=weak, strong_fraction=0.3)

    decisions = Decisions()
    savings = SavingsEventHandler({"strong": Price(2.00, 8.00), "weak": Price(0.40, 1.60)})
    get_dispatcher().add_event_handler(decisions)
    get_dispatcher().add_event_handler(savings)

    folder = Path(__file__).with_name("data")
    index = VectorStoreIndex.from_documents(
        SimpleDirectoryReader(str(folder)).load_data(),
        transformations=[SentenceSplitter(chunk_size=256, chunk_overlap=0)],
    )
    engine = index.as_query_engine(similarity_top_k=2)

    for question in QUESTIONS:
        response = engine.query(question)  # routed on the question, whatever the passages hold
        sources = ", ".join(sorted({node.metadata["file_name"] for node in response.source_nodes}))
        print(f"Q: {question}\n   {decisions.last['model']}, win rate {decisions.last['win_rate']:.2f}; from {sources}")
        print(f"A: {response}\n")
    print(savings.summary().table())


if __name__ == "__main__":
    main()
