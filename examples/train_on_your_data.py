"""Your own data -> your own router -> ChatRouteLLM, in seconds, with no key.

    python examples/train_on_your_data.py                     # a made-up help desk
    python examples/train_on_your_data.py --data outcomes.jsonl --strong gpt-4o --weak gpt-4o-mini

An outcomes file has one line a prompt: {"prompt": "...", "scores": {"gpt-4o": 1, "gpt-4o-mini": 0}}. Where do scores
come from? From right answers (`routellm label gold`), from a judge (`routellm label judge`), from your users' thumbs,
or from your own tests. See `stand_ins` for real models.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import stand_ins

from langchain_routellm import ChatRouteLLM, routing_decision
from routellm_core import load_router
from routellm_core.data import Outcome, read_preferences, write_records
from routellm_core.training import train_embedding_router

# A help desk's requests, and how often its cheap model handles each kind well; the expensive one manages 95 %. Only the
# desk's own data can tell that its invoice disputes are hard and its long order forms are easy.
KINDS = {
    "Invoice {n} is wrong, the discount of {m} percent is missing": 0.25,
    "Why was my refund for order {n} only {m} dollars?": 0.30,
    "Can two accounts share contract {n} after the merger?": 0.35,
    "Where is my parcel {n}?": 0.93,
    "Please write an order form for {m} chairs and {n} lamps, with quantities, prices, dates and a total": 0.94,
    "Translate this notice for customer {n}: the shop is closed for {m} days": 0.95,
    "Reset the password of account {n}": 0.96,
}


def made_up_outcomes(path: Path, rows: int = 600) -> None:
    """Write outcomes whose chance of success is known: a stand-in for your own file."""
    rng = random.Random(0)
    records = []
    for _ in range(rows):
        kind = rng.choice(list(KINDS))
        prompt = kind.format(n=rng.randrange(1000, 10000), m=rng.randrange(2, 90))
        scores = {"large": float(rng.random() < 0.95), "small": float(rng.random() < KINDS[kind])}
        records.append(Outcome(prompt=prompt, scores=scores))
    write_records(path, records)


def main() -> None:
    """Train, measure, save, load, route."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--strong", default="large")
    parser.add_argument("--weak", default="small")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = args.data
        if data is None:
            data = Path(folder) / "outcomes.jsonl"
            made_up_outcomes(data)
        out = args.out or Path(folder) / "my-router"

        # What `routellm train mf --data FILE --strong A --weak B --out DIR --folds 5` does.
        summary = train_embedding_router("mf", read_preferences(data), out, strong=args.strong, weak=args.weak, folds=5)
        print(f"trained on {summary.rows['train']} rows in {summary.seconds:.1f} s; measured on prompts not seen:\n")
        for row in summary.table():
            print("  " + "".join(f"{cell:<24}" for cell in row).rstrip())
        if summary.gain is not None:
            print(f"\nAPGR gained over the bundled default: {summary.gain.difference} (95 % interval)")

        print()
        strong, weak = stand_ins.models()
        llm = ChatRouteLLM(strong=strong, weak=weak, router=load_router(out), strong_fraction=0.4)
        for prompt in ("Invoice 4711 is wrong, the discount of 5 percent is missing", "Where is my parcel 4711?"):
            answer = llm.invoke(prompt)
            decision = routing_decision(answer)
            assert decision is not None
            print(f"{decision.model:<6}  win rate {decision.win_rate:.2f}  {prompt!r}\n        {answer.content}")


if __name__ == "__main__":
    main()
