"""Retrieval helpers, which put a template around the question: what routes on the question all the same."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_classic.chains.hyde.base import HypotheticalDocumentEmbedder
from langchain_classic.retrievers.multi_query import DEFAULT_QUERY_PROMPT, LineListOutputParser, MultiQueryRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda

from langchain_routellm import ChatRouteLLM, RouteLLMRunnable
from tests.langchain.conftest import Services

QUESTION = "p=0.9 what is a prime?"


def _retriever() -> Any:
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents([Document("primes")])
    return store.as_retriever()


@pytest.mark.parametrize("how", ["metadata", "route_on", "runnable"])
def test_multi_query_routes_on_the_question(services: Services, how: str) -> None:
    config: Any = {}
    if how == "metadata":
        retriever = MultiQueryRetriever.from_llm(retriever=_retriever(), llm=services.llm())
        config = {"metadata": {"routellm_question": QUESTION}}
    elif how == "route_on":
        llm: Any = services.llm(route_on=lambda messages: messages[-1].text.rpartition("Original question: ")[2])
        retriever = MultiQueryRetriever.from_llm(retriever=_retriever(), llm=llm)
    else:
        sides: dict[str, Any] = {
            s: DEFAULT_QUERY_PROMPT | services.client(s) | LineListOutputParser() for s in ("strong", "weak")
        }
        chain = RouteLLMRunnable(**sides, router=services.router, threshold=0.7, route_on="question")
        retriever = MultiQueryRetriever(retriever=_retriever(), llm_chain=chain)
    assert retriever.invoke(QUESTION, config)
    assert services.router.prompts == [QUESTION]
    assert services.weak.requests == []


@pytest.mark.parametrize("how", ["route_on", "runnable"])
def test_hyde_routes_on_the_question(services: Services, how: str) -> None:
    """It hands no config on, so its question has to be found in the prompt or the input."""
    prompt = PromptTemplate.from_template("Write a passage that answers the question.\nQuestion: {question}\nPassage:")
    if how == "route_on":
        llm: Any = services.llm(
            route_on=lambda messages: messages[-1].text.partition("Question: ")[2].rpartition("\nPassage:")[0]
        )
        chain: Any = prompt | llm | StrOutputParser()
    else:
        sides: dict[str, Any] = {s: prompt | services.client(s) | StrOutputParser() for s in ("strong", "weak")}
        chain = RouteLLMRunnable(**sides, router=services.router, threshold=0.7, route_on="question")
    hyde = HypotheticalDocumentEmbedder(llm_chain=chain, base_embeddings=DeterministicFakeEmbedding(size=8))
    assert len(hyde.embed_query(QUESTION)) == 8
    assert services.router.prompts == [QUESTION]


async def test_the_question_in_the_metadata_counts_in_every_way_of_calling(services: Services) -> None:
    llm: ChatRouteLLM = services.llm()
    config: Any = {"metadata": {"routellm_question": QUESTION}}
    chain: Any = RunnableLambda(lambda text: f"p=0.1 a template around {text}") | llm
    chain.invoke("x", config)
    await chain.ainvoke("x", config)
    list(chain.stream("x", config))
    chain.batch(["x", "y"], config)
    llm.generate([[HumanMessage("p=0.1 x")]], metadata=config["metadata"])
    assert services.weak.requests == []
    assert set(services.router.prompts) == {QUESTION}
    # the question is for the router alone; no provider is sent it
    assert all(QUESTION not in str(request.body) for request in services.strong.requests)
