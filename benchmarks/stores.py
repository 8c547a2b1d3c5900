# ruff: noqa: E402 - the package is found beside this script, installed or not
"""Battles in vector stores: agreement with the battles in memory, APGR, and a store that is killed under traffic.

    python benchmarks/stores.py agreement [PROMPTS]   # each store whose client is installed
    python benchmarks/stores.py apgr exact            # MMLU test; 4 minutes on one core
    python benchmarks/stores.py apgr approximate      # the same with an index whose recall is about .95
    python benchmarks/stores.py killed [SECONDS [DEADLINE_MS]]

The battles are the 1,500 gold rows of MMLU, read by the bundled embedder, base 1000, k = 200. `agreement` compares win
rates with ``nearest=200`` of the router in memory and says what a prompt costs. `killed` runs a Milvus Lite server in a
process of its own and routes from threads and from an event loop with a deadline of 500 ms, while that process is
stopped (it hangs), and then, with a new one, killed (connections are refused). A thread that only sleeps for as long as
the deadline says how late this machine wakes anybody up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "core"), str(ROOT)]

import numpy as np

from routellm_core import RoutingPolicy
from routellm_core.data.convert import outcomes_to_battles
from routellm_core.data.records import Battle, Outcome
from routellm_core.embedders import bundled_embedder
from routellm_core.evaluation import apgr
from routellm_core.evaluation.benchmarks import STRONG, WEAK, Benchmark, load_benchmark
from routellm_core.routers import SimilarityWeightedRouter
from routellm_core.stores import MilvusBattles, store_records

DATA = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared")) / "data" / "benchmarks"
EMBEDDER = bundled_embedder()
OPTIONS: dict[str, Any] = {"strong": STRONG, "weak": WEAK, "num_tiers": 2, "base": 1000.0}
K = 200


def battles_of(benchmark: Benchmark) -> list[Battle]:
    """The benchmark's rows as battles of the pair."""
    scores = zip(benchmark.strong_scores.tolist(), benchmark.weak_scores.tolist(), strict=True)
    rows = [
        Outcome(prompt=prompt, scores={STRONG: strong, WEAK: weak})
        for prompt, (strong, weak) in zip(benchmark.prompts, scores, strict=True)
    ]
    return list(outcomes_to_battles(rows, pair=(STRONG, WEAK)))


def in_memory(battles: list[Battle], nearest: int | None) -> SimilarityWeightedRouter:
    """The router whose battles are its own."""
    triples = [(b.model_a, b.model_b, b.winner) for b in battles]
    vectors = EMBEDDER.embed([b.prompt for b in battles])
    return SimilarityWeightedRouter(triples, vectors, embedder=EMBEDDER, nearest=nearest, **OPTIONS)


def of_store(store: Any, battles: list[Battle]) -> SimilarityWeightedRouter:
    """The router whose battles are in a store."""
    return SimilarityWeightedRouter.from_store(store, battles=battles, embedder=EMBEDDER, nearest=K, **OPTIONS)


def stores(battles: list[Battle], work: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each kind of store by name, and what writes and opens it; raises ModuleNotFoundError without its client."""

    def milvus() -> Any:
        store_records(battles, work / "flat.db", embedder=EMBEDDER)
        return MilvusBattles(work / "flat.db")

    def langchain(make: Callable[[Any], Any]) -> Any:
        from langchain_core.embeddings import Embeddings

        from langchain_routellm.stores import VectorStoreBattles
        from langchain_routellm.stores import store_records as write

        class Bundled(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                found: list[list[float]] = EMBEDDER.embed(texts).tolist()
                return found

            def embed_query(self, text: str) -> list[float]:
                return self.embed_documents([text])[0]

        store = make(Bundled())
        write(battles, store)
        return VectorStoreBattles(store)

    def langchain_memory(embeddings: Any) -> Any:
        from langchain_core.vectorstores import InMemoryVectorStore

        return InMemoryVectorStore(embeddings)

    def langchain_qdrant(embeddings: Any) -> Any:
        from langchain_qdrant import QdrantVectorStore  # type: ignore[import-not-found, unused-ignore]
        from qdrant_client import QdrantClient, models  # type: ignore[import-not-found, unused-ignore]

        client = QdrantClient(":memory:")
        size = models.VectorParams(size=EMBEDDER.dimension, distance=models.Distance.COSINE)
        client.create_collection("battles", vectors_config=size)
        return QdrantVectorStore(client, "battles", embeddings)

    def llamaindex(make: Callable[[], Any]) -> Any:
        from llama_index.core.base.embeddings.base import BaseEmbedding

        from llamaindex_routellm.stores import VectorStoreBattles
        from llamaindex_routellm.stores import store_records as write

        class Bundled(BaseEmbedding):
            def _get_text_embedding(self, text: str) -> list[float]:
                found: list[float] = EMBEDDER.embed([text])[0].tolist()
                return found

            def _get_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

        store = make()
        write(battles, store, Bundled())
        return VectorStoreBattles(store, Bundled())

    def llamaindex_simple() -> Any:
        from llama_index.core.vector_stores import SimpleVectorStore

        return SimpleVectorStore()

    def llamaindex_lancedb() -> Any:
        from llama_index.vector_stores.lancedb import LanceDBVectorStore  # type: ignore[import-not-found, import-untyped, unused-ignore]

        return LanceDBVectorStore(uri=str(work / "lance"), mode="create")

    yield "Milvus Lite", milvus
    yield "LangChain, in memory", lambda: langchain(langchain_memory)
    yield "LangChain, Qdrant local", lambda: langchain(langchain_qdrant)
    yield "LlamaIndex, SimpleVectorStore", lambda: llamaindex(llamaindex_simple)
    yield "LlamaIndex, LanceDB", lambda: llamaindex(llamaindex_lancedb)


def agreement(count: int) -> None:
    """Print how far the win rates of each store are from those of the battles in memory."""
    battles = battles_of(load_benchmark("mmlu", DATA, split="gold"))
    prompts = list(load_benchmark("mmlu", DATA).prompts[:count])
    plain = in_memory(battles, K)
    wanted = plain.win_rates(prompts)
    cosines = np.sort(plain.store.similarities(EMBEDDER.embed(prompts)), axis=1)[:, ::-1]
    gap = cosines[:, K - 1, None] - cosines[:, K:]
    at_edge = (np.abs(gap - 1e-6) < 3e-7).any(axis=1)
    print(f"{count} prompts, {at_edge.sum()} of them with a neighbour on the very edge of counting")
    with tempfile.TemporaryDirectory() as work:
        for name, make in stores(battles, Path(work)):
            try:
                router = of_store(make(), battles)
            except ModuleNotFoundError as exc:
                print(f"{name:32} {exc.name} is not installed")
                continue
            start = time.process_time()
            difference = np.abs(router.win_rates(prompts) - wanted)
            spent = (time.process_time() - start) / count
            print(
                f"{name:32} largest difference {difference[~at_edge].max():.1e} (on the edge "
                f"{difference[at_edge].max(initial=0.0):.1e}), {1e3 * spent:.1f} ms of CPU a prompt"
            )


def recall(store: MilvusBattles, vectors: Any, exact: Any) -> float:
    """Share of the true k nearest among those that a store returns."""
    limits = exact[:, K - 1] - 1e-6
    found = store.search(vectors, K)
    return float(
        np.mean(
            [
                np.mean([n.similarity >= limit for n in row]) * len(row) / K
                for row, limit in zip(found, limits, strict=True)
            ]
        )
    )


def apgr_table(*, approximate: bool) -> None:
    """Print APGR on MMLU test: all battles, the nearest 200, and these from an exact or an approximate index."""
    battles = battles_of(load_benchmark("mmlu", DATA, split="gold"))
    test = load_benchmark("mmlu", DATA)
    prompts = list(test.prompts)
    vectors = EMBEDDER.embed(prompts[:300])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = np.sort(in_memory(battles, None).store.similarities(vectors), axis=1)[:, ::-1]

    def show(name: str, router: SimilarityWeightedRouter) -> None:
        value = apgr(router.win_rates(prompts), test.strong_scores, test.weak_scores)
        print(f"{name:40} APGR {value:.4f}", flush=True)

    print(f"MMLU test, {len(prompts)} rows")
    show("in memory, all battles", in_memory(battles, None))
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "battles.db"
        if not approximate:
            show("in memory, nearest=200", in_memory(battles, K))
            store_records(battles, file, embedder=EMBEDDER)
            show("Milvus Lite, FLAT, nearest=200", of_store(MilvusBattles(file), battles))
            return
        store_records(battles, file, embedder=EMBEDDER, collection="cells", index="IVF_FLAT")
        from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]

        server_manager_instance.release_server(str(file))  # rows just written are searched without the index
        cells = [
            MilvusBattles(file, collection="cells", search_params={"nprobe": n}) for n in (20, 24, 26, 28, 30, 32, 40)
        ]
        shares = [recall(store, vectors, exact) for store in cells]
        print("recall by nprobe:", {s.search_params["nprobe"]: round(r, 3) for s, r in zip(cells, shares, strict=True)})
        best = int(np.argmin(np.abs(np.array(shares) - 0.95)))
        show(f"Milvus Lite, IVF_FLAT, recall {shares[best]:.3f}", of_store(cells[best], battles))


def server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a Milvus Lite server in a process of its own and return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit("the Milvus Lite server did not start")


def killed(seconds: float, deadline: float) -> None:
    """Print how long decisions take, and their reasons, before and after the store is stopped or killed."""
    battles = battles_of(load_benchmark("mmlu", DATA, split="gold"))
    prompts = list(load_benchmark("mmlu", DATA, split="gold").prompts)
    for how in (signal.SIGSTOP, signal.SIGKILL):
        with tempfile.TemporaryDirectory() as work:
            process, uri = server(Path(work) / "data.db")
            try:
                store_records(battles, uri, embedder=EMBEDDER)
                policy = RoutingPolicy(
                    of_store(MilvusBattles(uri), battles),
                    threshold=0.5,
                    deadline=deadline,
                    on_error="weak",
                    cache_size=0,
                )
                before, after, late = traffic(policy, prompts, seconds, partial(process.send_signal, how), deadline)
            finally:
                process.kill()
                process.wait()
        for name, taken in ((f"before {how.name}", before), (f"after {how.name}", after)):
            times = np.array([spent for spent, _ in taken]) * 1e3
            print(
                f"{name:16} {len(taken):6} decisions, {dict(Counter(reason for _, reason in taken))}; median "
                f"{np.median(times):.1f} ms, 99.9 % {np.quantile(times, 0.999):.1f} ms, longest {times.max():.1f} ms "
                f"(deadline {1e3 * deadline:.0f} ms)",
                flush=True,
            )
        print(f"a plain sleep of {1e3 * deadline:.0f} ms took up to {1e3 * late:.1f} ms more", flush=True)


def traffic(
    policy: RoutingPolicy, prompts: list[str], seconds: float, kill: Callable[[], None], deadline: float
) -> Any:
    """Route from two threads and an event loop.

    Returns (seconds, reason) of decisions that ended before and that began after, and how late a plain sleep ended.
    """
    late: list[float] = []
    taken: list[tuple[float, float, str]] = []
    end = time.monotonic() + 2 * seconds
    moment = time.monotonic() + seconds

    def threads(number: int) -> None:
        for i in range(number, 10**9):
            start = time.monotonic()
            if start > end:
                return
            decision = policy.decide(prompts[i % len(prompts)])
            taken.append((start, time.monotonic() - start, decision.reason))
            time.sleep(0.2)

    async def tasks() -> None:
        async def one(number: int) -> None:
            for i in range(number, 10**9):
                start = time.monotonic()
                if start > end:
                    return
                decision = await policy.adecide(prompts[i % len(prompts)])
                taken.append((start, time.monotonic() - start, decision.reason))
                await asyncio.sleep(0.2)

        await asyncio.gather(*(one(100 * n) for n in range(2)))

    def sleeps() -> None:
        while (start := time.monotonic()) < end:
            time.sleep(deadline)
            late.append(time.monotonic() - start - deadline)

    running = [threading.Thread(target=threads, args=(500 * n,)) for n in range(2)]
    running += [threading.Thread(target=lambda: asyncio.run(tasks())), threading.Thread(target=sleeps)]
    for thread in running:
        thread.start()
    time.sleep(max(0.0, moment - time.monotonic()))
    kill()
    for thread in running:
        thread.join()
    before = [(spent, reason) for start, spent, reason in taken if start + spent < moment]
    return before, [(spent, reason) for start, spent, reason in taken if start >= moment], max(late)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["agreement", *rest]:
            agreement(int(rest[0]) if rest else 500)
        case ["apgr", "exact" | "approximate" as index]:
            apgr_table(approximate=index == "approximate")
        case ["killed", *rest]:
            killed(float(rest[0]) if rest else 10.0, float(rest[1]) / 1e3 if rest[1:] else 0.5)
        case _:
            raise SystemExit(__doc__)
