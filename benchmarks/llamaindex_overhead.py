"""What a routed LlamaIndex call costs beyond the model's own.

The wrapped model is LlamaIndex's MockLLM, which answers at once, with the callbacks and spans of a provider's class,
and the router is a constant, so only the wrapper is timed (`default_router_speed.py` times the bundled router). Prints
the lower quartile of each way of calling, and what the wrapper adds to the bare model. Needs no network and no key. ::

    python benchmarks/llamaindex_overhead.py --calls 2000
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from overhead import ConstantRouter, Runner, async_runner, quartiles, sync_runner

from llamaindex_routellm import RouteLLM
from routellm_core import RoutingPolicy


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
        "complete": {n: sync_runner(lambda p, m=m: m.complete(p)) for n, m in wrapped.items()},
        "chat": {n: sync_runner(lambda p, m=m: m.chat(chat(p))) for n, m in wrapped.items()},
        "achat": {n: async_runner(lambda p, m=m: m.achat(chat(p)), loop) for n, m in wrapped.items()},
        "predict": {n: sync_runner(lambda p, m=m: m.predict(template, query_str=p)) for n, m in wrapped.items()},
        "stream_chat, 8 pieces": {
            n: sync_runner(lambda p, m=m: list(m.stream_chat(chat(p)))) for n, m in wrapped.items()
        },
        "astream_chat, 8 pieces": {
            n: async_runner(lambda p, m=m: read(m.astream_chat(chat(p))), loop) for n, m in wrapped.items()
        },
    }
    decide = quartiles({"decide": sync_runner(policy.decide)}, calls)["decide"] * 1e6
    print(f"deciding takes {decide:.1f} us a call (win rate from the policy's cache); 'adds' includes it")
    print("{:<24}{:>9}{:>14}{:>22}".format(f"quartile of {calls}, us", "alone", "routed adds", "with failover adds"))
    for title, runners in rows.items():
        found = quartiles(runners, calls)
        alone, routed, failover = (found[name] * 1e6 for name in wrapped)
        print(f"{title:<24}{alone:>9.1f}{routed - alone:>14.1f}{failover - alone:>22.1f}")
    loop.close()


if __name__ == "__main__":
    main()
