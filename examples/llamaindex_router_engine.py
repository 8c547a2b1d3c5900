"""Two whole pipelines: a weak model over one passage, or a strong model over four, chosen by the question.

Run it with ``python examples/llamaindex_router_engine.py``; it needs no key (see llamaindex_stand_ins.py).
"""

from __future__ import annotations

from pathlib import Path

from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.tools import QueryEngineTool
from llamaindex_stand_ins import WordEmbedding, models

from llamaindex_routellm import RouteLLMSelector

QUESTIONS = [
    "When was the lighthouse first lit?",
    "Do bicycles travel free?",
    "Analyze how lighthouse, ferries and bridge each answered the same problem, and argue which one aged best and why.",
]


def main() -> None:
    strong, weak = models()
    Settings.embed_model, Settings.llm = WordEmbedding(), weak
    folder = Path(__file__).with_name("data")
    index = VectorStoreIndex.from_documents(
        SimpleDirectoryReader(str(folder)).load_data(),
        transformations=[SentenceSplitter(chunk_size=256, chunk_overlap=0)],
    )

    quick = index.as_query_engine(llm=weak, similarity_top_k=1)
    thorough = index.as_query_engine(llm=strong, similarity_top_k=4, response_mode="tree_summarize")
    engine = RouterQueryEngine(
        selector=RouteLLMSelector(weak="quick", strong="thorough", strong_fraction=0.3),
        query_engine_tools=[
            QueryEngineTool.from_defaults(quick, name="quick", description="One passage, weak model"),
            QueryEngineTool.from_defaults(thorough, name="thorough", description="Four passages, strong model"),
        ],
    )
    for question in QUESTIONS:
        response = engine.query(question)
        metadata = response.metadata or {}
        print(f"Q: {question}\n   {metadata['selector_result'].reason}\nA: {response}\n")


if __name__ == "__main__":
    main()
