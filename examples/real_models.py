"""The whole way with two small real models: answers, gold labels, a router, a verdict, then LangChain and LlamaIndex.

    python examples/real_models.py [--questions 240] [--folder DIR]

It needs a network once, for the packages of `small_models`, and no key. The first four steps are commands that anybody
would type; the answers are kept, so that a second run asks for none of them again. On a free core 240 questions take
some minutes. The last step compares the tokens that the savings have counted with those of the servers' own replies.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import llamaindex_stand_ins
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core import PromptTemplate, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from small_models import STRONG, WEAK, NoModelsError, Servers, chat_models, default_folder, questions, running

from langchain_routellm import ChatRouteLLM, SavingsCallbackHandler, routing_decision
from llamaindex_routellm import RouteLLM, SavingsEventHandler
from routellm_core import RoutingPolicy, load_router
from routellm_core.data import AnsweredPrompt, write_records
from routellm_core.policy.savings import SavingsSummary

PRICES = [f"--price={STRONG}=0.2/0.2", f"--price={WEAK}=0.1/0.1"]
SHARE = 0.5
QUESTIONS = ["When was the bridge opened?", "How far is the light seen?", "What is the tide?"]


def routellm(*arguments: str) -> None:
    """Run a command of the package, and show it."""
    print(f"\n$ routellm {shlex.join(arguments)}", flush=True)
    environment = {**os.environ, "OPENAI_API_KEY": "none"}  # a local server wants no key, the client does
    subprocess.run([sys.executable, "-m", "routellm_core.cli", *arguments], check=True, env=environment)


class ServersOwnCount:
    """Tokens by model as they stand in the servers' replies: to compare with what was counted from the answers."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.client = httpx.Client(event_hooks={"response": [self._count]}, timeout=120)

    def _count(self, response: httpx.Response) -> None:
        response.read()
        reply = json.loads(response.text)
        self.calls[reply["model"]] += 1
        self.read[reply["model"]] += reply["usage"]["prompt_tokens"]
        self.written[reply["model"]] += reply["usage"]["completion_tokens"]

    def check(self, summary: SavingsSummary) -> None:
        """Refuse a summary that differs."""
        for name, side in ((STRONG, summary.strong), (WEAK, summary.weak)):
            counted = (side.calls, side.input_tokens, side.output_tokens)
            own = (self.calls[name], self.read[name], self.written[name])
            print(f"{name}: {counted[0]} calls, {counted[1]} + {counted[2]} tokens; by its server {own}")
            if counted != own:
                raise SystemExit("the counts differ")


def answers_to_verdict(folder: Path, servers: Servers, count: int) -> Path:
    """Commands from questions to a router of one's own and its verdict on questions that it has not seen."""
    made = questions(count)
    rows = [AnsweredPrompt(prompt=question.prompt, gold=question.gold) for question in made]
    write_records(folder / "questions.jsonl", rows)
    models = ["--model", f"{STRONG}={servers.strong}", "--model", f"{WEAK}={servers.weak}"]
    answers, outcomes, router = (str(folder / name) for name in ("answers.jsonl", "outcomes.jsonl", "router"))
    # one call at a time: each server has one core
    settings = ["--temperature", "0", "--max-tokens", "24", "--concurrency", "1", *PRICES, "--yes"]
    routellm("label", "answer", "--data", str(folder / "questions.jsonl"), *models, *settings, "--out", answers)
    routellm("label", "gold", "--data", answers, "--out", outcomes)
    pair = ["--strong", STRONG, "--weak", WEAK]
    routellm("train", "auto", "--data", outcomes, *pair, *PRICES, "--folds", "5", "--out", router, "--overwrite")
    return Path(router)


def langchain(policy: RoutingPolicy, servers: Servers) -> None:
    """A chain over both servers, with more questions of the same kinds."""
    count = ServersOwnCount()
    strong, weak = chat_models(servers, http_client=count.client)
    llm = ChatRouteLLM(strong=strong, weak=weak, policy=policy)
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | llm
    savings = SavingsCallbackHandler()
    print("\nLangChain: prompt | ChatRouteLLM")
    for question in questions(12, seed=1):
        answer = chain.invoke({"question": question.prompt}, config={"callbacks": [savings]})
        decision = routing_decision(answer)
        assert decision is not None
        print(f"  {decision.model:<6}  {decision.win_rate:.2f}  {question.prompt}  {' '.join(answer.text.split())}")
    count.check(savings.summary())


def llama_index(policy: RoutingPolicy, servers: Servers) -> None:
    """A query engine over a few pages."""
    count, savings = ServersOwnCount(), SavingsEventHandler()
    get_dispatcher().add_event_handler(savings)
    models: Any = [
        llamaindex_stand_ins.compatible(model=name, api_base=url, api_key="none", http_client=count.client, timeout=120)
        for name, url in ((STRONG, servers.strong), (WEAK, servers.weak))
    ]
    documents = SimpleDirectoryReader(str(Path(__file__).with_name("data"))).load_data()
    index = VectorStoreIndex.from_documents(documents, embed_model=llamaindex_stand_ins.WordEmbedding())
    # LlamaIndex's own prompt is made for larger models: a base model has nothing to add after its last line
    brief = PromptTemplate("{context_str} {query_str}")
    llm = RouteLLM(strong=models[0], weak=models[1], policy=policy)
    engine = index.as_query_engine(llm=llm, similarity_top_k=1, text_qa_template=brief)
    print("\nLlamaIndex: index.as_query_engine(llm=RouteLLM)")
    for question in QUESTIONS:
        print(f"  {question}  {' '.join(str(engine.query(question)).split())}")
    count.check(savings.summary())


def main() -> None:
    parser = argparse.ArgumentParser(description="The whole way with two small real models.")
    parser.add_argument("--questions", type=int, default=240)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where models and answers are kept")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    try:
        with running(given.folder) as servers:
            router = answers_to_verdict(given.folder, servers, given.questions)
            policy = RoutingPolicy(load_router(router), strong_fraction=SHARE)
            langchain(policy, servers)
            llama_index(policy, servers)
    except NoModelsError as exc:
        raise SystemExit(f"skipped: {exc}") from None


if __name__ == "__main__":
    main()
