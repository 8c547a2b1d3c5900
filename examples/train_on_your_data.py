"""Your own data -> your own router -> ChatRouteLLM, in seconds, with no key.

    python examples/train_on_your_data.py                     # a made-up help desk
    python examples/train_on_your_data.py --data outcomes.jsonl --strong gpt-4o --weak gpt-4o-mini
    python examples/train_on_your_data.py --write .           # the help desk's files, to try `routellm train` with

An outcomes file has one line a prompt: {"prompt": "...", "scores": {"gpt-4o": 1, "gpt-4o-mini": 0}}. Where do scores
come from? From right answers (`routellm label gold`), from a judge (`routellm label judge`), from your users' thumbs,
or from your own tests. See `stand_ins` for real models.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
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


def made_up_outcomes(strong: str, weak: str, rows: int = 600) -> list[Outcome]:
    """Outcomes of distinct prompts whose chance of success is known: a stand-in for your own file."""
    rng = random.Random(0)
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < rows:
        kind = rng.choice(list(KINDS))
        prompt = kind.format(n=rng.randrange(1000, 10000), m=rng.randrange(2, 90))
        scores = {strong: float(rng.random() < 0.95), weak: float(rng.random() < KINDS[kind])}
        outcomes.setdefault(prompt, Outcome(prompt=prompt, scores=scores))
    return list(outcomes.values())


def write_files(folder: Path, strong: str, weak: str) -> None:
    """Write outcomes to train on, others to evaluate on, and prompts to calibrate on, and show the commands."""
    outcomes = made_up_outcomes(strong, weak, 1400)
    write_records(folder / "outcomes.jsonl", outcomes[:600])
    write_records(folder / "held_out.jsonl", outcomes[600:1000])
    prompts = [json.dumps({"prompt": outcome.prompt}) for outcome in outcomes[1000:]]
    (folder / "prompts.jsonl").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    print(f"wrote outcomes.jsonl, held_out.jsonl and prompts.jsonl, made up, to {folder}; next:\n")
    models = shlex.join(["--strong", strong, "--weak", weak])
    print(f"  routellm train mf --data {folder / 'outcomes.jsonl'} {models} --out my-router")
    print(f"  routellm evaluate --router my-router --data {folder / 'held_out.jsonl'} {models}")


def main() -> None:
    """Train, measure, save, load, route."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--strong", default="gpt-4.1")
    parser.add_argument("--weak", default="gpt-4.1-mini")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the help desk's files there and stop")
    args = parser.parse_args()
    if args.write is not None:
        write_files(args.write, args.strong, args.weak)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = args.data
        if data is None:
            data = Path(folder) / "outcomes.jsonl"
            write_records(data, made_up_outcomes(args.strong, args.weak))
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
