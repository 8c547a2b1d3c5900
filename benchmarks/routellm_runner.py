"""The authors' package behind a line protocol, in an environment of its own; started by routers_vs_routellm.py.

Each line of standard input is a JSON list [function, arguments]; each answer one JSON line. Nothing of the package is
changed but what cannot run offline: the embedding call returns a given vector, files come from a directory, and "cuda"
means the CPU.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from typing import Any

os.environ.setdefault("OPENAI_API_KEY", "not used")

import numpy as np
import pandas as pd
import torch
from routellm.routers import routers
from routellm.routers.causal_llm import llm_utils
from routellm.routers.matrix_factorization import model as mf_model
from routellm.routers.similarity_weighted import utils

STATE: dict[str, Any] = {}
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def answer_with(vector: list[float]) -> None:
    reply = types.SimpleNamespace(data=[types.SimpleNamespace(embedding=vector)])
    client = types.SimpleNamespace(embeddings=types.SimpleNamespace(create=lambda **options: reply))
    routers.OPENAI_CLIENT = mf_model.OPENAI_CLIENT = client


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def sw_ranking(folder: str) -> float:
    """The router as its constructor leaves it (which reads the hub only); float64 rows, as the package holds them."""
    with open(f"{folder}/battles.json") as file:
        frame = pd.DataFrame(json.load(file), columns=["model_a", "model_b", "winner"])
    router = routers.SWRankingRouter.__new__(routers.SWRankingRouter)
    router.strong_model, router.weak_model = "m0", "m9"
    router.embedding_model = "text-embedding-3-small"
    router.arena_conv_embedding = np.load(f"{folder}/embeddings.npy").astype(np.float64)
    router.model2tier = utils.compute_tiers(utils.compute_elo_mle_with_tie(frame), num_tiers=10)
    for column in ("model_a", "model_b"):
        frame[column] = frame[column].apply(lambda name: router.model2tier[name])
    router.arena_df = frame
    STATE["router"] = router
    STATE["queries"] = np.load(f"{folder}/queries.npy")
    return resident_mb()


def mf(folder: str, queries: str) -> float:
    router = routers.MatrixFactorizationRouter(folder)
    STATE["router"] = router
    STATE["queries"] = np.load(queries)
    return resident_mb()


def bert(folder: str) -> float:
    STATE["router"] = routers.BERTRouter(folder)
    return resident_mb()


def causal(folder: str) -> float:
    here = lambda method: lambda self, *a, **k: method(self, *("cpu" if x == "cuda" else x for x in a), **k)  # noqa: E731
    torch.Tensor.to = here(torch.Tensor.to)  # type: ignore[method-assign]
    torch.nn.Module.to = here(torch.nn.Module.to)  # type: ignore[method-assign]
    routers.hf_hub_download = lambda repo_id, filename: f"{repo_id}/{filename}"
    load = llm_utils.AutoTokenizer.from_pretrained
    llm_utils.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda name, **options: load(folder, **options))
    STATE["router"] = routers.CausalLLMRouter(folder)
    return resident_mb()


def run(prompts: list[str]) -> dict[str, Any]:
    """Seconds for the prompts, one after another as the package does it, and the win rates."""
    router, queries = STATE["router"], STATE.get("queries")
    rates, seconds = [], 0.0
    for prompt in prompts:
        if queries is not None:
            answer_with(queries[int(prompt)].tolist())
        begin = time.perf_counter()
        rates.append(float(router.calculate_strong_win_rate(prompt)))
        seconds += time.perf_counter() - begin
    return {"seconds": seconds, "win_rates": rates, "resident_mb": resident_mb()}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # the package prints
    for line in sys.stdin:
        function, arguments = json.loads(line)
        STATE.pop("queries", None) if function != "run" else None
        if function != "run":
            STATE.pop("router", None)
        print(json.dumps(globals()[function](*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
