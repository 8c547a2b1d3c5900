# ruff: noqa: E402 - the package is found beside this script, installed or not
"""A million decisions: does memory stay flat, and the share of strong calls on target?

    python benchmarks/soak.py [DECISIONS]

Four threads decide for 300,000 users in conversations of four turns, with an online calibration, sticky conversations,
a `ShareLimit` and a `SpendLimit` for each user, both with counts in a file, and the usage of every call reported.
A tenth of the traffic is one user who makes every prompt look hard, and soon reaches the cap on money; the limits
remember 100,000 users, their default. Every tenth of the way it prints the memory of the process and the shares of
strong calls since the last line. Five to fifteen minutes.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "core"))

from routellm_core import Calibration, Price, ShareLimit, SpendLimit
from routellm_core.policy.routing import Routing

THREADS = 4
USERS = 300_000
TURNS = 4  # of a conversation
SHARE = 0.3
LINES = 10
PRICES = {"strong": Price(10.0, 30.0), "weak": Price(0.5, 1.5)}


def win_rates(prompts: list[str]) -> list[float]:
    """The win rate is the prompt: the soak is about what decides, not about a router."""
    return [float(prompt) for prompt in prompts]


def memory() -> float:
    """Megabytes that the process holds now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # the largest so far


class Tally:
    """What the threads have decided since it was last read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = {"honest": 0, "cheat": 0}
        self._strong = {"honest": 0, "cheat": 0}
        self.reasons: dict[str, int] = {}

    def add(self, user: str, model: str, reason: str) -> None:
        with self._lock:
            self._calls[user] += 1
            self._strong[user] += model == "strong"
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def shares(self) -> str:
        with self._lock:
            total = sum(self._strong.values()) / max(1, sum(self._calls.values()))
            of_users = (f"{user} {self._strong[user] / max(1, self._calls[user]):.1%}" for user in self._calls)
            line = f"strong {total:.1%} ({', '.join(of_users)})"
            self._calls, self._strong = dict.fromkeys(self._calls, 0), dict.fromkeys(self._calls, 0)
            return line


def work(routing: Routing, tally: Tally, seed: int, count: int) -> None:
    """Decide `count` calls in conversations; prompts get easier meanwhile, so that the threshold has to follow."""
    rng = random.Random(seed)
    for step in range(count):
        if step % TURNS == 0:
            cheats = rng.random() < 0.1
            user = "cheat" if cheats else str(rng.randrange(USERS))
            settings = routing.settings({"user_id": user, "thread_id": f"{seed}-{step}"})
        rate = 0.99 + rng.random() / 100 if cheats else rng.random() ** (1.0 + step / count)
        request = routing.request(settings, gap=lambda: None, texts=lambda rate=rate: f"{rate:.9f}")  # type: ignore[misc]
        decision = routing.decide(request, settings)
        routing.policy.spent(request, decision.model, 500, 300)
        tally.add("cheat" if cheats else "honest", decision.model, decision.reason)


def main() -> None:
    decisions = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        share = ShareLimit("user_id", strong_fraction=SHARE, store=folder)
        spend = SpendLimit(50.0, per="day", prices=PRICES, key="user_id", store=folder)
        routing = Routing.of(
            {
                "router": win_rates,
                "strong_fraction": SHARE,
                "calibration": Calibration.from_win_rates([(i + 0.5) / 1000 for i in range(1000)]),
                "online": True,
                "sticky": True,
                "limits": [share, spend],
            },
            owner="soak",
        )
        tally = Tally()
        began = time.perf_counter()
        for line in range(LINES):
            # the same amount of drift in each part
            threads = [
                threading.Thread(target=work, args=(routing, tally, THREADS * line + n, decisions // LINES // THREADS))
                for n in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            users = len(share.snapshot()["counts"])
            print(
                f"{(line + 1) * decisions // LINES:>9,} decisions  {memory():6.0f} MB  {tally.shares()}  "
                f"{users:,} users counted  cheat has spent {spend.spending('cheat'):.2f}",
                flush=True,
            )
        seconds = time.perf_counter() - began
        print(f"{decisions / seconds:,.0f} decisions a second; reasons: {tally.reasons}")


if __name__ == "__main__":
    main()
