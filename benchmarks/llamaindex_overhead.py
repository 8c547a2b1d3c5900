"""What a routed LlamaIndex call costs beyond the model's own.

The wrapper stands around LlamaIndex's MockLLM, which answers at once, with callbacks and spans as a provider's class
has them; the router is a constant, so that only the wrapper is timed (`benchmarks/` has the routers' own times).
Prints the median of each way of calling, and what the wrapper adds to the bare model. No network, no key. ::

    python benchmarks/llamaindex_overhead.py --calls 2000
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate

from llamaindex_routellm import RouteLLM
from routellm_core import Router, RoutingPolicy
from routellm_core.routers.base import WinRates


class ConstantRouter(Router):
    """Says 0.5 to everything, at no cost."""

    name: ClassVar[str] = "constant"

    def _win_rates(self, prompts: list[str]) -> WinRates:
        return np.full(len(prompts), 0.5)

    async def _awin_rates(self, prompts: list[str]) -> WinRates:
        return self._win_rates(prompts)

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {"router": self.name}

    def _save(self, path: Path) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def _load(cls, path: Path, config: dict[str, Any], **options: Any) -> Router:
        raise NotImplementedError


Runner = Callable[[int], float]


def _sync(call: Callable[[str], Any]) -> Runner:
    def run(i: int) -> float:
        prompt = f"prompt {i % 100}"
        start = time.perf_counter()
        call(prompt)
        return time.perf_counter() - start

    return run


def _async(call: Callable[[str], Awaitable[Any]], loop: asyncio.AbstractEventLoop) -> Runner:
    async def timed(i: int) -> float:
        prompt = f"prompt {i % 100}"
        start = time.perf_counter()
        await call(prompt)
        return time.perf_counter() - start

    return lambda i: loop.run_until_complete(timed(i))


def measure(runners: dict[str, Runner], calls: int) -> dict[str, float]:
    """Median seconds of each, taken in turn so that a slow moment of the machine hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for i in range(calls // 10):
        for run in runners.values():
            run(i)
    gc.collect()
    gc.disable()
    try:
        for i in range(calls):
            for name, run in runners.items():
                times[name].append(run(i))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="calls per row (default 2000)")
    calls: int = parser.parse_args().calls
    model, other = MockLLM(max_tokens=8), MockLLM(max_tokens=8)
    policy = RoutingPolicy(ConstantRouter(), threshold=0.5)
    wrapped: dict[str, Any] = {
        "alone": model,
        "routed": RouteLLM(strong=model, weak=other, policy=policy),
        "failover": RouteLLM(strong=model, weak=other, policy=policy, failover=True),
    }
    template = PromptTemplate("Context: nothing. Query: {query_str}")
    loop = asyncio.new_event_loop()

    def chat(text: str) -> list[ChatMessage]:
        return [ChatMessage(role="user", content=text)]

    async def read(stream: Awaitable[Any]) -> list[Any]:
        return [piece async for piece in await stream]

    rows: dict[str, dict[str, Runner]] = {
        "complete": {n: _sync(lambda p, m=m: m.complete(p)) for n, m in wrapped.items()},
        "chat": {n: _sync(lambda p, m=m: m.chat(chat(p))) for n, m in wrapped.items()},
        "achat": {n: _async(lambda p, m=m: m.achat(chat(p)), loop) for n, m in wrapped.items()},
        "predict": {n: _sync(lambda p, m=m: m.predict(template, query_str=p)) for n, m in wrapped.items()},
        "stream_chat, 8 pieces": {n: _sync(lambda p, m=m: list(m.stream_chat(chat(p)))) for n, m in wrapped.items()},
        "astream_chat, 8 pieces": {
            n: _async(lambda p, m=m: read(m.astream_chat(chat(p))), loop) for n, m in wrapped.items()
        },
    }
    decide = measure({"decide": _sync(policy.decide)}, calls)["decide"] * 1e6
    print(f"deciding takes {decide:.1f} us a call (win rate from the policy's cache); 'adds' includes it")
    print("{:<24}{:>9}{:>14}{:>22}".format(f"median of {calls}, us", "alone", "routed adds", "with failover adds"))
    for title, runners in rows.items():
        found = measure(runners, calls)
        alone, routed, failover = (found[name] * 1e6 for name in wrapped)
        print(f"{title:<24}{alone:>9.1f}{routed - alone:>14.1f}{failover - alone:>22.1f}")
    loop.close()


if __name__ == "__main__":
    main()
