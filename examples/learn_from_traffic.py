"""From one model to a router that has learned from the app's own traffic: observe, shadow, learn, deploy.

    python examples/learn_from_traffic.py [calls, 3,000 by default]

An app for customers of a shop answers four kinds of question. Its cheap model fails on two of them, which nobody knows
yet. In the first fifth of the calls the strong model answers everything, and what routing would have done is logged; in
the next three fifths calls are routed by the bundled router, and the other side answers three in ten of them, too; then
`learn` says whether a router of the app's own is better, and the last fifth is routed by it. At the end the truth,
which the script planted, is compared with what the log has measured. It needs no key and takes under a minute.

With ``--real`` the answers come from the models of `stand_ins.models`, two small local ones for example (set
``OPENAI_BASE_URL``, ``ROUTELLM_STRONG`` and ``ROUTELLM_WEAK``); the truth is then what a grader can see: whether the
sum is right.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import stand_ins
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_routellm import ChatRouteLLM
from routellm_core import Price, Shadow, TrafficLog, load_router
from routellm_core.evaluation import replay
from routellm_core.log import TrafficDatabase
from routellm_core.routers import Router, RouterFolder
from routellm_core.training import learn

SHARE = 0.3
PRICES = {"strong": Price(2.0, 8.0), "weak": Price(0.4, 1.6)}
# What looks easy is hard for the weak model here, since it does not know the shop's rules; sums it can do.
HARD = {
    "returns": "Can I still return {thing} that I bought in {place} {b} weeks ago?",
    "guarantee": "Is {thing} that broke after {c} months covered by your guarantee?",
}
EASY = {
    "sum": "I order {b} parcels of {a} euros each to {place} with insurance of {c} euros. What do I pay in all?",
    "refund": "My order {n} for {a} euros was split into {b} equal parts and one came back. What is my refund?",
}
THINGS = ["a jacket", "a kettle", "a bicycle", "a lamp", "a tent", "a camera", "a drill", "a chair", "a watch"]
PLACES = "Lisbon Oslo Graz Porto Turku Ghent Split Bergen Cork Malmo".split()  # noqa: SIM905
# Chance of a right answer, by side and by whether the kind is hard.
RIGHT = {"strong": {True: 0.92, False: 0.95}, "weak": {True: 0.25, False: 0.93}}


def question(rng: random.Random) -> str:
    """One customer's question; three in ten are of a hard kind."""
    kinds = HARD if rng.random() < 0.3 else EASY
    template = kinds[rng.choice(sorted(kinds))]
    return template.format(
        n=rng.randint(10_000, 99_999), a=rng.randint(20, 900), b=rng.randint(2, 60), c=rng.randint(2, 40),
        place=rng.choice(PLACES), thing=rng.choice(THINGS),
    )  # fmt: skip


def is_right(side: str, text: str) -> bool:
    """The planted truth: the same question has the same answer by the same side, right or wrong."""
    hard = "guarantee" in text or "return" in text
    return random.Random(f"{side} {text}").random() < RIGHT[side][hard]


class PlantedModel(BaseChatModel):
    """Answers as the truth says: "right" or "wrong"."""

    side: str

    @property
    def _llm_type(self) -> str:
        return "planted"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        text = "right" if is_right(self.side, messages[-1].text) else "wrong"
        usage = UsageMetadata(input_tokens=220, output_tokens=310, total_tokens=530)
        message = AIMessage(text, usage_metadata=usage, response_metadata={"model_name": f"{self.side}-model"})
        return ChatResult(generations=[ChatGeneration(message=message)])


def planted_grader(answer: str, gold: None) -> float:
    """What the app can check of an answer; here the word that it consists of."""
    return float(answer == "right")


def numbers_grader(answer: str, gold: None, prompt: str) -> float:
    """For real models: whether an answer to a sum holds the sum; other questions have nothing to check."""
    a, b, c = (int(n) for n in re.findall(r"\d+", prompt)[-3:]) if "insurance" in prompt else (0, 0, 0)
    return float(not a or str(a * b + c) in answer.replace(",", ""))


def true_quality(sent: np.ndarray, texts: list[str]) -> float:
    """Share of right answers when these questions go to strong."""
    return float(np.mean([is_right("strong" if s else "weak", text) for s, text in zip(sent, texts, strict=True)]))


def share_at(router: Router, texts: list[str], quality: float) -> float:
    """The smallest share of strong calls at which the router's answers are this good."""
    order = np.argsort(-router.win_rates(texts), kind="stable")
    s, w = (np.array([is_right(side, text) for text in texts], dtype=float) for side in ("strong", "weak"))
    curve = (w.sum() + np.concatenate([[0.0], np.cumsum((s - w)[order])])) / len(texts)
    return float(np.argmax(curve >= quality) / len(texts)) if (curve >= quality).any() else 1.0


def main() -> None:
    """Run the app."""
    parser = argparse.ArgumentParser(description="An app learns its router from its own traffic.")
    parser.add_argument("calls", nargs="?", type=int, default=3000)
    parser.add_argument("--real", action="store_true", help="real models; see the docstring")
    given = parser.parse_args()
    logging.getLogger("routellm_core").setLevel(logging.ERROR)
    strong: BaseChatModel = PlantedModel(side="strong")
    weak: BaseChatModel = PlantedModel(side="weak")
    if given.real:
        strong, weak = stand_ins.models()
    with tempfile.TemporaryDirectory() as place:
        run(given.calls, strong, weak, Path(place), grader=numbers_grader if given.real else planted_grader)


def run(calls: int, strong: BaseChatModel, weak: BaseChatModel, place: Path, *, grader: Any) -> None:
    """The life of the app, with its log and its router in `place`."""
    rng = random.Random(0)
    url, folder = f"sqlite:///{place}/traffic.db", place / "my-router"
    log = TrafficLog(url, prices=PRICES)

    def serve(llm: ChatRouteLLM, count: int) -> list[str]:
        texts = [question(rng) for _ in range(count)]
        for text in texts:
            llm.invoke(text)
        log.flush()
        return texts

    print(f"Week 1: observe. {calls // 5} calls, all by the strong model; the log says what routing would have done.")
    serve(ChatRouteLLM(strong=strong, weak=weak, strong_fraction=SHARE, log=log, observe="strong"), calls // 5)

    print(f"Weeks 2 to 4: {3 * calls // 5} calls by the bundled router, {SHARE:.0%} strong; three in ten are shadowed.")
    begun = time.time()
    before = load_router()
    app = ChatRouteLLM(
        strong=strong, weak=weak, router=before, strong_fraction=SHARE, online=True, log=log, shadow=Shadow(0.3)
    )
    serve(app, 3 * calls // 5)

    with TrafficDatabase(url) as database:
        print("\nLearn:")
        learned = learn(database, folder, grader=grader, strong_fraction=SHARE, draws=200)
        print(f"  {learned.sentence}")
        print(f"  {learned.counts['new_labels']} pairs graded, {learned.counts.get('duplicates', 0)} duplicates.")
        if learned.outcome != "gains":
            return
        after = RouterFolder(folder).load()
        found = replay(database.outcomes(since=begun), router=after, strong_fraction=SHARE)
        if found.difference is not None:
            print(f"  On the log it would have scored {100 * found.difference.value:+.1f} points "
                  f"[{100 * found.difference.low:+.1f}, {100 * found.difference.high:+.1f}] more.")  # fmt: skip
        else:
            print(f"  Replay shows no figure: {found.refusal}.")

    print(f"\nWeek 5: deploy. {calls // 5} calls by the app's own router.")
    own = ChatRouteLLM(strong=strong, weak=weak, router=RouterFolder(folder), strong_fraction=SHARE, log=log)
    texts = serve(own, calls // 5)
    with TrafficDatabase(url) as database:
        newest = list(database.calls(newest_first=True, limit=len(texts)))
    sent = np.array([call.side == "strong" for call in reversed(newest)])
    log.close()
    if not isinstance(strong, PlantedModel):
        print(f"  {sent.mean():.0%} strong calls.")
        return

    fresh = [question(rng) for _ in range(4000)]
    quality = true_quality(np.argsort(np.argsort(-before.win_rates(fresh))) < SHARE * len(fresh), fresh)
    then, now = share_at(before, fresh, quality), share_at(after, fresh, quality)
    print(f"  {sent.mean():.0%} strong calls; {true_quality(sent, texts):.1%} of the answers are right.")
    print("\nThe truth, on 4,000 new questions:")
    print(f"  share of strong calls at equal quality ({quality:.1%} right): {then:.0%} before, {now:.0%} after")
    mix = true_quality(np.ones(len(fresh), bool), fresh), true_quality(np.zeros(len(fresh), bool), fresh)
    routed = true_quality(np.argsort(np.argsort(-after.win_rates(fresh))) < SHARE * len(fresh), fresh)
    true_saved = (routed - mix[1]) / (mix[0] - mix[1]) - SHARE
    price = (PRICES["strong"].cost(220, 310) - PRICES["weak"].cost(220, 310)) * 1000
    assert learned.saved_share is not None
    saved, low, high = (price * getattr(learned.saved_share, end) for end in ("value", "low", "high"))
    print(f"  saved per 1,000 calls against the static mix of the same quality: {saved:.2f} [{low:.2f}, {high:.2f}]")
    print(f"  measured from {learned.pairs} pairs, {true_saved * price:.2f} in truth")


if __name__ == "__main__":
    main()
