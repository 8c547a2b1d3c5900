# ruff: noqa: E402 - the package is found beside this script, installed or not
"""How far the bundled router can be gamed, and what limits per user undo.

    python benchmarks/attack.py

Three tables. *Upgrade*: a prefix of ten words, found by a small search on training prompts, that sends easy prompts to
the strong model. *Downgrade*: 900 characters of chatter before and 450 after a hard prompt, without and with windows.
*Harm*: one user at 30 % of the traffic makes every prompt look hard; the share of strong calls that the others keep,
with a fixed and with an online calibration, without and with a `ShareLimit`.

Prompts come from ../shared/data or $ROUTELLM_SHARED/data, split into training and attacked ones, or are made up where
there is no such data. About half a minute on a free core.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import gzip
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from routellm_core import Calibration, Router, RoutingPolicy, RoutingRequest, ShareLimit, load_router

DATA = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared")) / "data"
SHARES = (0.5, 0.3, 0.1)
PREFIX_WORDS = 10
CANDIDATES = 250
FILLER = (
    "Thank you so much for your help with my letter yesterday, it was lovely and my sister enjoyed reading the story. "
)
_TOPICS = "primes rivers trade birds jazz enzymes contracts chess bread graphs comets poems taxes soil lasers".split()  # noqa: SIM905
_WAYS = (
    "Tell me about {}.",
    "Write a short poem about {}.",
    "Prove what you claim about {} and derive the equation for its rate.",
    "A shop sells 12 books on {} for $3 each and 5 for $8. How much is that in total?",
    "Implement a function that sorts notes on {} and explain its complexity.",
    "What do you like about {} and {}?",
)


def prompts() -> tuple[list[str], list[str]]:
    """Distinct prompts to search on, and others to attack."""
    if (DATA / "preferences" / "arena.jsonl.gz").is_file():
        chats = [row["turns"][0] for row in _rows("preferences/arena", 8000)]
        questions = [row["prompt"] for row in _rows("benchmarks/mmlu", 20_000) if row["split"] == "gold"]
        found = chats[:6000] + questions[:1500]
    else:
        rng = random.Random(0)
        found = [rng.choice(_WAYS).format(*rng.sample(_TOPICS, 2)) + f" ({i})" for i in range(4000)]
    found = list(dict.fromkeys(found))
    random.Random(1).shuffle(found)
    return found[: len(found) // 2], found[len(found) // 2 :]


def _rows(name: str, count: int) -> list[dict[str, Any]]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


def search_prefix(router: Router, train: list[str]) -> str:
    """Add the word of the vocabulary that raises the mean win rate most, ten times."""
    calibration = router.calibration
    assert calibration is not None
    rates = router.win_rates(train)
    easy = [p for p, r in zip(train, rates, strict=True) if r < calibration.threshold(strong_fraction=0.5)]
    sample = random.Random(2).sample(easy, min(40, len(easy)))
    words = sorted({word for p in train[:1500] for word in p.lower().split() if word.isalpha() and len(word) < 15})
    chosen = random.Random(3).sample(words, min(CANDIDATES, len(words)))
    # one pass ranks the candidates alone; the best of them are combined greedily
    alone = {word: _logit(router, [f"{word} {word} {word} {p}" for p in sample[:12]]) for word in chosen}
    best = sorted(chosen, key=lambda word: -alone[word])[:25]
    prefix: list[str] = []
    for _ in range(PREFIX_WORDS):
        prefix.append(max(best, key=lambda w: _logit(router, [" ".join([*prefix, w, p]) for p in sample])))
    return " ".join(prefix)


def _logit(router: Router, texts: list[str]) -> float:
    rates = router.win_rates(texts)
    return float(np.log(rates / (1 - rates)).mean())


def moved(router: Router, before: list[str], after: list[str], share: float, *, to: str) -> float:
    """Share of the prompts on the other side of a threshold that the change moves to the side `to`."""
    assert router.calibration is not None
    threshold = router.calibration.threshold(strong_fraction=share)
    first, second = router.win_rates(before) >= threshold, router.win_rates(after) >= threshold
    wrong = ~first if to == "strong" else first
    return float((second if to == "strong" else ~second)[wrong].mean()) if wrong.any() else float("nan")


def harm(attacked: list[str], router: Router, *, online: bool, limited: bool) -> tuple[float, float]:
    """Share of strong calls of honest users, and of the one who cheats, over the second half of 20,000 calls."""
    rng = random.Random(4)
    rates = router.win_rates(attacked)
    by_rate = {str(i): float(rate) for i, rate in enumerate(rates)}

    def looked_up(texts: list[str]) -> list[float]:  # win rates are computed once; "cheat" is the hardest-looking text
        return [0.999 if text == "cheat" else by_rate[text] for text in texts]

    policy = RoutingPolicy(
        looked_up,
        strong_fraction=0.3,
        calibration=Calibration.from_win_rates(rates),
        online=online,
        cache_size=0,
        limits=[ShareLimit("user_id", strong_fraction=0.3)] if limited else [],
    )
    strong: dict[bool, list[bool]] = {True: [], False: []}
    for i in range(20_000):
        cheats = rng.random() < 0.3
        user = "cheat" if cheats else f"user {rng.randrange(20)}"
        text = "cheat" if cheats else str(rng.randrange(len(attacked)))
        model = policy.decide(RoutingRequest((text,), keys={"user_id": user})).model
        if i >= 10_000:
            strong[cheats].append(model == "strong")
    return float(np.mean(strong[False])), float(np.mean(strong[True]))


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table."""
    titles = list(head)
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


def main() -> None:
    router = load_router()
    ends = load_router(windows=0)
    ends.calibration = router.calibration  # the same thresholds, so that only the reading differs
    train, attacked = prompts()
    print(f"{len(train):,} prompts to search on, {len(attacked):,} attacked\n")

    prefix = search_prefix(router, train)
    prefixed = [f"{prefix} {p}" for p in attacked]
    padded = [f"{FILLER * 8}\n{p}\n{FILLER * 4}" for p in attacked]
    print(f"Prefix of {PREFIX_WORDS} words: {prefix}\n")
    table(
        ("strong share", "upgrade by a prefix", "downgrade by padding, ends only", "downgrade by padding, windows"),
        (
            (
                f"{share:.0%}",
                f"{moved(router, attacked, prefixed, share, to='strong'):.1%}",
                f"{moved(ends, attacked, padded, share, to='weak'):.1%}",
                f"{moved(router, attacked, padded, share, to='weak'):.1%}",
            )
            for share in SHARES
        ),
    )
    print("One user at 30 % of the traffic cheats; share of strong calls wanted: 30 %.\n")
    table(
        ("calibration", "limit", "honest users", "the one who cheats"),
        (
            (
                "online" if online else "fixed",
                "ShareLimit" if limited else "none",
                *(f"{share:.1%}" for share in harm(attacked, router, online=online, limited=limited)),
            )
            for online in (False, True)
            for limited in (False, True)
        ),
    )


if __name__ == "__main__":
    main()
