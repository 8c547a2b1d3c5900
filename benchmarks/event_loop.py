# ruff: noqa: E402 - the package is found beside this script, installed or not
"""How long routing holds the event loop up under a burst: 1,000 calls started at once.

    python benchmarks/event_loop.py

For the weak model alone, for ChatRouteLLM over the same model, and for the policy's decisions alone, it prints the
longest single step of the loop (one task's turn: what another task has to wait for at least) and the longest pass over
all tasks that are ready (with a thousand, a thousand turns of whatever they run), fastest of five. Prompts are 2
to 60 words, none twice, and nothing is cached, so every call is scored by the bundled router.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "core"), str(ROOT)]

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_routellm import ChatRouteLLM
from routellm_core import RoutingPolicy, load_router

WORDS = ["why", "prove", "that", "integral", "matrix", "cat", "hello", "write", "poem", "code", "function", "energy"]


class AsyncModel(FakeListChatModel):
    """Answers within the event loop: the base would hop to a thread, and threads would be what is measured."""

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.responses[0]))])


def prompts(count: int = 1000) -> list[str]:
    """Distinct prompts of 2 to 60 words."""
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 60))) + f" {i}" for i in range(count)]


async def burst(call: Callable[[str], Awaitable[Any]]) -> tuple[float, float, float]:
    """Longest step, longest pass and whole time of one burst, in ms."""
    longest = 0.0
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        nonlocal longest
        begin = time.perf_counter()
        run(handle)
        longest = max(longest, time.perf_counter() - begin)

    passes: list[float] = []

    async def watch() -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0)
            passes.append(time.perf_counter() - begin)

    texts = prompts()
    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    tasks = [asyncio.ensure_future(call(text)) for text in texts]
    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    begin = time.perf_counter()
    await asyncio.gather(*tasks)
    whole = time.perf_counter() - begin
    asyncio.Handle._run = run  # type: ignore[method-assign]
    watcher.cancel()
    return longest * 1e3, max(passes) * 1e3, whole * 1e3


def main() -> None:
    """Measure and print."""
    weak, strong = AsyncModel(responses=["w"]), AsyncModel(responses=["s"])
    router = load_router()

    def policy() -> RoutingPolicy:
        return RoutingPolicy(router, strong_fraction=0.3, cache_size=0)

    cases: dict[str, Callable[[], Callable[[str], Awaitable[Any]]]] = {
        "weak model alone": lambda: weak.ainvoke,
        "ChatRouteLLM": lambda: ChatRouteLLM(strong=strong, weak=weak, policy=policy()).ainvoke,
        "policy.adecide": lambda: policy().adecide,
    }
    print(f"{'1,000 calls at once, ms':<26}{'longest step':>14}{'longest pass':>14}{'whole':>10}")
    for name, make in cases.items():
        rounds = [asyncio.run(burst(make())) for _ in range(5)]
        print(f"{name:<26}" + "".join(f"{min(r[i] for r in rounds):>{14 if i < 2 else 10}.1f}" for i in range(3)))


if __name__ == "__main__":
    main()
