"""A dozen prompts, plainly easy to plainly hard, through a LangChain chain and a LlamaIndex query engine, routed.

Run it with ``python examples/quickstart.py``; it needs no key. With ``OPENAI_API_KEY``, or with ``ROUTELLM_STRONG_URL``
and ``ROUTELLM_WEAK_URL`` for local servers such as Ollama or vLLM, real models answer; ``ROUTELLM_STRONG`` and
``ROUTELLM_WEAK`` name them. Without, stand-ins answer, and say so. The router, its win rates and the threshold are the
real thing either way.
"""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Any

import llamaindex_stand_ins
import stand_ins
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from pydantic import Field

from langchain_routellm import ChatRouteLLM, SavingsCallbackHandler, routing_decision
from llamaindex_routellm import RouteLLM, RouteLLMDecisionEvent, SavingsEventHandler
from routellm_core import Price, RoutingPolicy, load_router

# US dollars per million tokens; put your own models' prices here.
PRICES = {"strong": Price(input=2.00, output=8.00), "weak": Price(input=0.10, output=0.40)}
STRONG_FRACTION = 0.3  # of ordinary traffic

PROMPTS = [
    "hi",
    "Thanks, that helped!",
    "What is the capital of France?",
    "Translate 'good morning' to Spanish.",
    "Write a short birthday wish for my sister.",
    "Give me three names for a black cat.",
    "Why is the sky blue? One sentence, please.",
    "A shop sells 3 pens for 2 dollars and 5 notebooks for 12 dollars. Ana buys 9 pens and 10 notebooks and pays with "
    "a 50 dollar note. The shop takes 10 percent off everything above 20 dollars. How much change does she get?",
    "Prove that there are infinitely many primes, and that there are infinitely many of the form 4k + 3.",
    "Given the recurrence T(n) = 3 T(n/4) + n log n, derive its asymptotic growth step by step, and prove the result "
    "by induction.",
    "A particle moves in the potential V(x) = a x^4 - b x^2 with a, b > 0. Find its equilibria, decide which are "
    "stable, and compute the frequency of small oscillations.",
    "Which of the following statements about monetary policy is incorrect, and why? (A) Open market purchases raise "
    "bank reserves. (B) A higher reserve requirement lowers the money multiplier. (C) A rise in the discount "
    "rate lowers the federal funds rate.",
]
QUESTIONS = [
    "When was the bridge opened?",
    "How far is the light seen?",
    "Explain step by step why two high tides are twelve hours and 25 minutes apart and not twelve hours, and compute "
    "the shift over a week.",
]


class Decisions(BaseEventHandler):
    """Remembers the last decision of a LlamaIndex call."""

    last: dict[str, Any] = Field(default_factory=dict)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, RouteLLMDecisionEvent):
            self.last = event.decision


def header(title: str) -> str:
    return f"{title}\n{'prompt':<48}  win rate  model   answer"


def row(prompt: str, win_rate: float, model: str, answer: str) -> str:
    cut_prompt, cut_answer = (textwrap.shorten(text, 48, placeholder=" …") for text in (prompt, answer))
    return f"{cut_prompt:<48}  {win_rate:8.3f}  {model:<6}  {cut_answer}"


def price_text(side: str) -> str:
    price = PRICES[side]
    return f"{price.input:.2f} / {price.output:.2f} ({side})"


def langchain(policy: RoutingPolicy) -> None:
    """prompt | ChatRouteLLM, as one batch: the router is asked once for all."""
    strong, weak = stand_ins.models()
    llm = ChatRouteLLM(strong=strong, weak=weak, policy=policy)
    chain = ChatPromptTemplate.from_messages([("system", "Answer briefly."), ("human", "{question}")]) | llm
    savings = SavingsCallbackHandler(PRICES)
    watches = [savings, stand_ins.Progress(len(PROMPTS))]
    answers = chain.batch([{"question": prompt} for prompt in PROMPTS], config={"callbacks": watches})
    print(header("LangChain: prompt | ChatRouteLLM"))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        decision = routing_decision(answer)
        assert decision is not None
        assert decision.win_rate is not None
        print(row(prompt, decision.win_rate, decision.model, str(answer.content)))
    print("\n" + savings.table() + "\n")


def llama_index(policy: RoutingPolicy) -> None:
    """A query engine over a few documents: routed on the question, not on the retrieved text."""
    strong, weak = llamaindex_stand_ins.models()
    decisions, savings = Decisions(), SavingsEventHandler(PRICES)
    get_dispatcher().add_event_handler(decisions)
    get_dispatcher().add_event_handler(savings)
    documents = SimpleDirectoryReader(str(Path(__file__).with_name("data"))).load_data()
    index = VectorStoreIndex.from_documents(documents, embed_model=llamaindex_stand_ins.WordEmbedding())
    engine = index.as_query_engine(llm=RouteLLM(strong=strong, weak=weak, policy=policy), similarity_top_k=2)
    print(header("LlamaIndex: index.as_query_engine(llm=RouteLLM)"))
    for question in [*PROMPTS, *QUESTIONS]:
        response = engine.query(question)
        print(row(question, decisions.last["win_rate"], decisions.last["model"], str(response)))
    print("\n" + savings.summary().table())


def main() -> None:
    started = time.perf_counter()
    policy = RoutingPolicy(load_router(), strong_fraction=STRONG_FRACTION)
    loaded = (time.perf_counter() - started) * 1e3
    print(
        f"Bundled router loaded in {loaded:.0f} ms: no key, no network. It is a start until you train on outcomes of "
        "your own: it tells easy from hard in tasks that have a right answer, not in general chat.\n"
        f"A call is strong when its win rate is at least "
        f"{policy.threshold:.3f}, which sends {STRONG_FRACTION:.0%} of ordinary prompts to the strong model. "
        "Nearly half of the prompts below are hard, so that their strong share is higher.\n"
        f"Costs are in US dollars, at {price_text('strong')} and {price_text('weak')} per million tokens in / out.\n"
    )
    langchain(policy)
    llama_index(policy)


if __name__ == "__main__":
    main()
