"""Retrieval-augmented answers, routed on the question and not on the retrieved text.

The context stands in the system message, so the last human message, which is what is routed on, is the question
alone. A second chain routes between two whole pipelines: a hard question is worth more context, too.
``python examples/langchain_rag.py`` needs no key; see `stand_ins` for real models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import stand_ins
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_routellm import ChatRouteLLM, RouteLLMRunnable, routing_decision

QUESTIONS = [
    "When was the bridge opened?",
    "Derive step by step why the tides shift over a week, and compute by how many minutes.",
]
PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Answer from the context alone.\n\nContext:\n{context}"), ("human", "{question}")]
)


def shelf() -> InMemoryVectorStore:
    store = InMemoryVectorStore(stand_ins.WordEmbeddings())
    for path in sorted(Path(__file__).with_name("data").glob("*.*")):
        paragraphs = [p for p in path.read_text(encoding="utf-8").split("\n\n") if p.strip() and not p.startswith("#")]
        store.add_documents([Document(p, metadata={"source": path.name}) for p in paragraphs])
    return store


def pipeline(store: InMemoryVectorStore, model: Runnable[Any, Any], documents: int) -> Runnable[Any, Any]:
    def context(value: dict[str, Any]) -> str:
        found = store.similarity_search(value["question"], k=documents)
        return "\n\n".join(document.page_content for document in found)

    return RunnablePassthrough.assign(context=context) | PROMPT | model


def main() -> None:
    strong, weak = stand_ins.models()
    store = shelf()
    routes = {
        "one pipeline, routed model": pipeline(
            store, ChatRouteLLM(strong=strong, weak=weak, strong_fraction=0.3), documents=3
        ),
        "two pipelines, routed as a whole": RouteLLMRunnable(
            strong=pipeline(store, strong, documents=6),
            weak=pipeline(store, weak, documents=2),
            strong_fraction=0.3,
            route_on="question",
        ),
    }
    for title, chain in routes.items():
        print(title)
        for question in QUESTIONS:
            answer = chain.invoke({"question": question})
            decision = routing_decision(answer)
            assert decision is not None
            print(f"  {question}\n    {decision.model} (win rate {decision.win_rate:.3f}): {answer.text}")
        print()


if __name__ == "__main__":
    main()
