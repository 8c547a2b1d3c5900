"""What a routed call costs beyond the model's own, next to LangChain's RunnableWithFallbacks.

Both wrap the same stand-in model, which answers at once, and the router is a constant, so only the wrapper is timed
(`default_router_speed.py` times the bundled router). Prints the lower quartile of each, and what it adds to the bare
model. Both show a callback the same events: a run of the wrapper, and one of the model. RunnableWithFallbacks runs the
model outside of its own run when a single call brings the callback, which saves it something. Needs no network and no
key. ::

    python benchmarks/langchain_overhead.py --calls 2000
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from overhead import ConstantRouter, Runner, async_runner, quartiles, sync_runner

from langchain_routellm import ChatRouteLLM
from routellm_core import RoutingPolicy


class Handler(BaseCallbackHandler):
    """A callback that does nothing, attached like that of a tracing service."""


async def drained(model: Any, prompt: str, config: Any) -> list[Any]:
    return [chunk async for chunk in model.astream(prompt, config)]


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

    def rows_of(config: Any) -> dict[str, dict[str, Runner]]:
        one_by_one: Any = {"max_concurrency": 1, **(config or {})}
        return {
            "invoke": {n: sync_runner(lambda p, m=m: m.invoke(p, config)) for n, m in wrapped.items()},
            "ainvoke": {n: async_runner(lambda p, m=m: m.ainvoke(p, config), loop) for n, m in wrapped.items()},
            "stream": {n: sync_runner(lambda p, m=m: list(m.stream(p, config))) for n, m in wrapped.items()},
            "astream": {n: async_runner(lambda p, m=m: drained(m, p, config), loop) for n, m in wrapped.items()},
            "batch of 10": {n: sync_runner(lambda p, m=m: m.batch([p] * 10, one_by_one)) for n, m in wrapped.items()},
            "abatch of 10": {
                n: async_runner(lambda p, m=m: m.abatch([p] * 10, config), loop) for n, m in wrapped.items()
            },
        }

    rows = rows_of(None) | {f"{title}, one callback": row for title, row in rows_of(traced).items()}
    policy = routed.policy
    decide = quartiles({"decide": sync_runner(policy.decide)}, calls)["decide"] * 1e6
    print(f"deciding takes {decide:.1f} us a call (win rate from the policy's cache); routed adds includes it")
    header = ("quartile of " + str(calls) + ", us", "alone", "fallbacks adds", "routed adds", "without deciding")
    print("{:<28}{:>9}{:>16}{:>13}{:>18}".format(*header))
    for title, runners in rows.items():
        batch = "batch" in title
        found = quartiles(runners, max(calls // 10, 20) if batch else calls)
        alone, fallback, ours = (found[name] * 1e6 for name in wrapped)
        added = ours - alone
        print(f"{title:<28}{alone:>9.1f}{fallback - alone:>16.1f}{added:>13.1f}{added - decide:>18.1f}")
    loop.close()


if __name__ == "__main__":
    main()
