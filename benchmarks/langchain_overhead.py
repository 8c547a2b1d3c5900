"""What a routed call costs beyond the model's own, next to LangChain's RunnableWithFallbacks.

Both wrappers stand around the same stand-in model, which answers at once; the router is a constant, so that only the
wrapper is timed (`benchmarks/` has the routers' own times). Prints the median of each, and what it adds to the bare
model. No network, no key. ::

    python benchmarks/langchain_overhead.py --calls 2000
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
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel

from langchain_routellm import ChatRouteLLM
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


class Handler(BaseCallbackHandler):
    """A callback that does nothing, as a tracing service would be attached."""


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
    model, other = FakeListChatModel(responses=["answer"]), FakeListChatModel(responses=["other"])
    routed = ChatRouteLLM(strong=model, weak=other, policy=RoutingPolicy(ConstantRouter(), threshold=0.5))
    fallbacks = model.with_fallbacks([other])
    wrapped: dict[str, Any] = {"model alone": model, "RunnableWithFallbacks": fallbacks, "ChatRouteLLM": routed}
    loop = asyncio.new_event_loop()
    traced: Any = {"callbacks": [Handler()]}
    rows: dict[str, dict[str, Runner]] = {
        "invoke": {n: _sync(lambda p, m=m: m.invoke(p)) for n, m in wrapped.items()},
        "invoke, one callback": {n: _sync(lambda p, m=m: m.invoke(p, traced)) for n, m in wrapped.items()},
        "ainvoke": {n: _async(lambda p, m=m: m.ainvoke(p), loop) for n, m in wrapped.items()},
        "stream": {n: _sync(lambda p, m=m: list(m.stream(p))) for n, m in wrapped.items()},
        "batch of 10": {n: _sync(lambda p, m=m: m.batch([p] * 10, {"max_concurrency": 1})) for n, m in wrapped.items()},
    }
    policy = routed.policy
    decide = measure({"decide": _sync(policy.decide)}, calls)["decide"] * 1e6
    print(f"deciding takes {decide:.1f} us a call (win rate from the policy's cache); routed adds includes it")
    header = ("median of " + str(calls) + ", us", "alone", "fallbacks adds", "routed adds", "without deciding")
    print("{:<24}{:>9}{:>16}{:>13}{:>18}".format(*header))
    for title, runners in rows.items():
        batch = "batch" in title
        found = measure(runners, max(calls // 10, 20) if batch else calls)
        alone, fallback, ours = (found[name] * 1e6 for name in wrapped)
        added = ours - alone
        print(f"{title:<24}{alone:>9.1f}{fallback - alone:>16.1f}{added:>13.1f}{added - decide:>18.1f}")
    loop.close()


if __name__ == "__main__":
    main()
