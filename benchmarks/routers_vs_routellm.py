"""Speed and memory of the routers beside the authors' package (routellm 0.2.0), on one thread.

    python benchmarks/routers_vs_routellm.py --make-env /tmp/routellm-env   # once: installs the package there
    python benchmarks/routers_vs_routellm.py --env /tmp/routellm-env [sw_ranking mf bert causal_llm]

Both sides run in processes of their own on the same data. Runs are interleaved, so that a busy moment of the machine
meets both, and the fastest of several is quoted. The embedding call is left out on both sides. Data are synthetic
(unit-norm rows around a few topics) or, for mf, bert and causal_llm, the tiny checkpoints of the golden values
(ROUTELLM_SHARED). The package has no batches: its time per prompt is the same for one prompt and for 64.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(os.environ.get("ROUTELLM_SHARED", ROOT.parent / "shared")) / "golden"
PACKAGE = "routellm==0.2.0"
# What its routers import; its own requirements also bring a web server and a model proxy.
NEEDS = ["torch", "transformers>=5,<6", "datasets", "pandas", "scikit-learn>=1.9,<1.10", "openai", "huggingface_hub"]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
DIMENSION = 1536
# dtype, bytes of a component, backend
SW_STORAGES = [("float32", 4, "numpy"), ("float16", 2, "numpy"), ("float16", 2, "torch"), ("int8", 1, "numpy")]


class Side:
    """A process that answers calls over its standard input and output."""

    def __init__(self, python: str, script: Path) -> None:
        paths = os.pathsep.join([str(ROOT / "core"), str(ROOT)]) if python == sys.executable else ""
        self.process = subprocess.Popen(
            [python, str(script), *(["--serve"] if script.samefile(__file__) else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": paths, "OPENAI_API_KEY": "not used", "HF_HUB_OFFLINE": "1"},
        )

    def call(self, function: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([function, arguments]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} failed in {function}{arguments}; run it by hand to see why")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def both(theirs: str) -> Iterator[tuple[Side, Side]]:
    ours, package = Side(sys.executable, Path(__file__)), Side(theirs, ROOT / "benchmarks" / "routellm_runner.py")
    try:
        yield ours, package
    finally:
        ours.close()
        package.close()


# ---- our side, in its own process -------------------------------------------------------------------------------

STATE: dict[str, Any] = {}


def _resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class _Ready:
    """An embedder whose vectors are ready: a prompt is the number of a row."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.dimension = rows, rows.shape[1]

    def embed(self, texts: Any) -> Any:
        return self.rows[[int(text) for text in texts]]

    async def aembed(self, texts: Any) -> Any:
        return self.embed(texts)


def sw_save(folder: str, dtype: Any) -> None:
    import numpy as np

    from routellm_core.routers import SimilarityWeightedRouter

    battles = [tuple(battle) for battle in json.loads(Path(folder, "battles.json").read_text())]
    rows = np.load(f"{folder}/embeddings.npy", mmap_mode="r")
    embedder = _Ready(np.load(f"{folder}/queries.npy"))
    router = SimilarityWeightedRouter(
        battles, rows, embedder=embedder, strong="m0", weak="m9", same_tier="routellm", dtype=dtype
    )
    router.save_pretrained(f"{folder}/{dtype}")


def sw_ranking(folder: str, dtype: str, backend: Any) -> dict[str, float]:
    import numpy as np

    from routellm_core.routers import SimilarityWeightedRouter

    embedder = _Ready(np.load(f"{folder}/queries.npy"))
    begin = time.perf_counter()
    STATE["router"] = SimilarityWeightedRouter.from_pretrained(f"{folder}/{dtype}", embedder=embedder, backend=backend)
    return {"load_seconds": time.perf_counter() - begin}


def mf(folder: str, queries: str) -> float:
    import numpy as np

    from routellm_core.routers import MatrixFactorizationRouter

    STATE["router"] = MatrixFactorizationRouter.from_pretrained(folder, embedder=_Ready(np.load(queries)))
    return _resident_mb()


def bert(folder: str) -> float:
    from routellm_core.routers import BERTRouter

    STATE["router"] = BERTRouter.from_pretrained(folder)
    return _resident_mb()


def causal(folder: str) -> float:
    from routellm_core.routers import CausalLLMRouter

    STATE["router"] = CausalLLMRouter.from_pretrained(folder)
    return _resident_mb()


def run(prompts: list[str]) -> dict[str, Any]:
    begin = time.perf_counter()
    rates = STATE["router"].win_rates(prompts)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "win_rates": rates.tolist(), "resident_mb": _resident_mb()}


def transient_mb(prompts: list[str]) -> float:
    """Most that a call allocates at once, as numpy and Python count it."""
    import tracemalloc

    tracemalloc.start()
    STATE["router"].win_rates(prompts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def bandwidth(megabytes: int) -> float:
    """Bytes a second of a plain sum over a float32 array of this size: what one thread can read."""
    import numpy as np

    array = np.ones(megabytes * 250_000, dtype=np.float32)
    best = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        array.max()  # the cheapest arithmetic of numpy: memory is the limit
        best = min(best, time.perf_counter() - begin)
    return array.nbytes / best


def serve() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        function, arguments = json.loads(line)
        print(json.dumps(globals()[function](*arguments)), file=answers, flush=True)


# ---- the comparisons --------------------------------------------------------------------------------------------


def fastest(calls: list[tuple[str, Side, list[str]]], rounds: int) -> dict[str, dict[str, Any]]:
    """Interleaved runs: for each label the fastest one's seconds, and the last answer."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for label, side, prompts in calls:
            answer = side.call("run", prompts)
            answer["seconds"] = min(answer["seconds"], best.get(label, answer)["seconds"])
            best[label] = answer
    return best


def make_battles(folder: Path, count: int) -> None:
    import numpy as np

    rng, dice = np.random.default_rng(0), random.Random(0)
    topics = rng.normal(size=(40, DIMENSION)).astype(np.float32)
    rows = np.empty((count, DIMENSION), dtype=np.float32)
    for start in range(0, count, 5000):
        part = rows[start : start + 5000]
        part[:] = 1.5 * topics[rng.integers(40, size=len(part))] + rng.normal(size=part.shape)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    queries = 1.5 * topics[rng.integers(40, size=64)] + rng.normal(size=(64, DIMENSION))
    np.save(folder / "embeddings.npy", rows)
    np.save(folder / "queries.npy", (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32))
    battles = []
    for _ in range(count):
        a, b = dice.sample(range(64), 2)
        won = dice.random() < 1.0 / (1.0 + 10.0 ** ((a - b) / 25.0))
        battles.append((f"m{a}", f"m{b}", "tie" if dice.random() < 0.25 else "model_a" if won else "model_b"))
    (folder / "battles.json").write_text(json.dumps(battles))


def compare_sw(theirs: str, rounds: int, counts: list[int]) -> Iterator[dict[str, Any]]:
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_battles(folder, count)
            writer = Side(sys.executable, Path(__file__))
            for dtype in ("float32", "float16", "int8"):
                writer.call("sw_save", name, dtype)
            speed = writer.call("bandwidth", count * DIMENSION * 4 // 10**6)
            writer.close()
            package = Side(theirs, ROOT / "benchmarks" / "routellm_runner.py")
            package.call("sw_ranking", name)
            batch = [str(i) for i in range(64)]
            for dtype, size, backend in SW_STORAGES:
                ours = Side(sys.executable, Path(__file__))
                loaded = ours.call("sw_ranking", name, dtype, backend)
                ours.call("run", ["1"])  # first use reads the file
                alone = ours.call("run", ["0"])["resident_mb"]
                calls = [("one", ours, ["0"]), ("theirs", package, ["0"]), ("batch", ours, batch)]
                best = fastest(calls, rounds)
                one, per_prompt = best["one"]["seconds"], best["batch"]["seconds"] / 64
                other = best["theirs"]["seconds"]
                yield {
                    "router": "sw_ranking",
                    "battles": count,
                    "storage": dtype,
                    "backend": backend,
                    "routellm_ms": other * 1e3,
                    "ours_one_ms": one * 1e3,
                    "ours_batch_ms_per_prompt": per_prompt * 1e3,
                    "times_faster_one": other / one,
                    "times_faster_batch": other / per_prompt,
                    "win_rate_difference": abs(best["one"]["win_rates"][0] - best["theirs"]["win_rates"][0]),
                    "load_seconds": loaded["load_seconds"],
                    "resident_mb": alone,
                    "routellm_resident_mb": best["theirs"]["resident_mb"],
                    "transient_mb_one": ours.call("transient_mb", ["0"]),
                    "matrix_mb": count * DIMENSION * size / 1e6,
                    "read_gb_per_s": count * DIMENSION * size / one / 1e9,
                    "memory_gb_per_s": speed / 1e9,
                    "share_of_bandwidth": count * DIMENSION * size / one / speed,
                }
                ours.close()
            package.close()


def compare_plain(theirs: str, rounds: int, router: str, setup: str, *arguments: Any) -> Iterator[dict[str, Any]]:
    prompts = [str(i % 52) for i in range(200)] if router == "mf" else mixed_prompts()
    prompts = prompts[:60] if router == "causal_llm" else prompts
    with both(theirs) as (ours, package):
        for side in (ours, package):
            side.call(setup, *arguments)
            side.call("run", prompts[:8])
        calls = [("one", ours, prompts[:1]), ("theirs one", package, prompts[:1])]
        one = fastest(calls, rounds * 4)
        # A run of seconds meets every busy moment of the machine: long ones are timed in parts.
        size = 4 if router == "causal_llm" else len(prompts)
        a: dict[str, Any] = {"seconds": 0.0, "win_rates": []}
        b: dict[str, Any] = {"seconds": 0.0, "win_rates": []}
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            best = fastest([("ours", ours, part), ("theirs", package, part)], rounds)
            for total, label in ((a, "ours"), (b, "theirs")):
                answer = best[label]
                answer["seconds"] += total["seconds"]
                answer["win_rates"] = total["win_rates"] + answer["win_rates"]
                total.update(answer)
        off = sorted(abs(x - y) for x, y in zip(a["win_rates"], b["win_rates"], strict=True))
        yield {
            "router": router,
            "checkpoint": Path(arguments[0]).name,
            "prompts": len(prompts),
            "routellm_ms_per_prompt": b["seconds"] / len(prompts) * 1e3,
            "ours_ms_per_prompt": a["seconds"] / len(prompts) * 1e3,
            "times_faster": b["seconds"] / a["seconds"],
            "ours_one_ms": one["one"]["seconds"] * 1e3,
            "routellm_one_ms": one["theirs one"]["seconds"] * 1e3,
            "times_faster_one": one["theirs one"]["seconds"] / one["one"]["seconds"],
            "median_win_rate_difference": off[len(off) // 2],
            "resident_mb": a["resident_mb"],
            "routellm_resident_mb": b["resident_mb"],
        }


def mixed_prompts() -> list[str]:
    """200 prompts from two words to some hundred."""
    words = "explain the why of a long winter in two lines or write code that sorts words by age".split()  # noqa: SIM905
    dice = random.Random(0)
    return [" ".join(dice.choices(words, k=min(180, int(dice.lognormvariate(3.0, 1.0)) + 2))) for _ in range(200)]


def long_prefix(folder: Path, name: str, label_scale: float = 1.0) -> Path:
    """A copy of the tiny checkpoint whose system text makes the common prefix about 300 tokens long.

    The checkpoint is random and mostly writes other tokens first. With its label rows scaled up it answers with a label
    at once, as a trained one does.
    """
    import torch
    from safetensors.torch import load_file, save_file

    target = folder / name
    shutil.copytree(GOLDEN / "causal_tiny", target, copy_function=shutil.copyfile)
    text = (target / "system_ft_v5.txt").read_text()
    (target / "system_ft_v5.txt").write_text(text + " " + " ".join(text.split()[:30]) * 2)
    tensors = load_file(target / "model.safetensors")
    with torch.no_grad():
        tensors["lm_head.weight"][-5:] *= label_scale
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def make_env(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *NEEDS], check=True)
    subprocess.run([*pip, "--no-deps", PACKAGE], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("routers", nargs="*", default=["sw_ranking", "mf", "bert", "causal_llm"])
    parser.add_argument("--env", type=Path, help="environment that has the authors' package")
    parser.add_argument("--make-env", type=Path, help="make that environment and stop")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--battles", type=int, nargs="*", default=[55_000, 110_000])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    if options.make_env:
        make_env(options.make_env)
        return
    if options.env is None:
        parser.error("--env is missing: make one with --make-env")
    theirs = str(options.env / "bin" / "python")
    with tempfile.TemporaryDirectory() as name:
        for router in options.routers:
            if router == "sw_ranking":
                results = compare_sw(theirs, options.rounds, options.battles)
            elif router == "mf":
                import numpy as np

                queries = Path(name) / "queries.npy"
                np.save(queries, np.load(GOLDEN / "prompt_embeddings.npz")["embeddings"].astype(np.float32))
                results = compare_plain(theirs, options.rounds, router, "mf", str(GOLDEN / "mf"), str(queries))
            elif router == "bert":
                results = compare_plain(theirs, options.rounds, router, "bert", str(GOLDEN / "bert_tiny"))
            elif router == "causal_llm":
                writes_on = long_prefix(Path(name), "label late")
                at_once = long_prefix(Path(name), "label at once", 8.0)
                results = chain.from_iterable(
                    compare_plain(theirs, options.rounds, router, "causal", str(path)) for path in (at_once, writes_on)
                )
            else:
                parser.error(f"unknown router {router!r}")
            for result in results:
                if options.json:
                    print(json.dumps(result), flush=True)
                else:
                    shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in result.items()}
                    print("\n".join(f"{key:28} {value}" for key, value in shown.items()), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
