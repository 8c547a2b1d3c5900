"""Bulk scoring in Ray, Spark, Dask, `datasets`, DuckDB and multiprocessing: the same bits, and what it costs beyond.

python benchmarks/bulk.py [--prompts 200000] [--workers 2] [--engine NAME ...] [--json]

Each engine runs in a process of its own, on a parquet file of made-up prompts, scores it with `WinRates`, and must give
the win rates of plain ``router.win_rates``, bit for bit. Two CPU times of a prompt are compared with plain scoring in
the same process, before and after:

scorer   what `WinRates` takes in the workers, from the engine's batch to its result; the load of the router, once in
         each worker, is left out
all      the whole tree of processes, a JVM and Ray's daemons included, read from /proc: what a further prompt takes,
         the difference between runs over all prompts and over a quarter of them

What does not grow with the number of prompts is printed beside it, in seconds of CPU: the start of the engine and its
first run over the quarter, less what its prompts take. It contains the imports, a JVM, and a router in each worker. An
engine that is not installed is left out. The exit code is 1 where bits differ or the scorer takes over 1.1 times the
CPU time of plain scoring.
"""

# ruff: noqa: E402 - the number of threads has to be set before numpy is imported
from __future__ import annotations

import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
_CORE = str(Path(__file__).resolve().parent.parent / "core")
sys.path.insert(0, _CORE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_CORE, os.environ.get("PYTHONPATH", "")]))  # for all workers
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

import argparse
import importlib.util
import json
import multiprocessing
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from routellm_core import WinRates, load_router

BATCH = 4096
LIMIT = 1.1
Scores = Callable[[Path], np.ndarray]

_TEXT = """how do I write a function that reads lines from the large file and counts which words appear most often when
the text has punctuation numbers like 42 or 1999 explain why this approach is faster than sorting everything first given
an example with python code then compare memory use of both versions for data that does not fit into main memory please
calculate the probability that two people share a birthday if there are twenty students"""


def write_prompts(file: Path, count: int) -> None:
    """Prompts with the lengths of ordinary chat: a median of some twenty words and a long tail."""
    rng, words = random.Random(0), _TEXT.split()
    prompts = [
        " ".join(rng.choices(words, k=max(3, min(500, round(rng.lognormvariate(3.0, 1.1)))))) for _ in range(count)
    ]
    pq.write_table(pa.table({"id": range(count), "prompt": prompts}), file, row_group_size=BATCH)


class Timed(WinRates):
    """Writes down the CPU time of each call, in a file of its process."""

    folder = ""

    def __call__(self, batch: Any) -> Any:
        started = time.thread_time()
        scored = super().__call__(batch)
        seconds = time.thread_time() - started
        win_rates = scored if isinstance(scored, pd.Series | pa.Array | np.ndarray) else scored["win_rate"]
        with (Path(self.folder) / f"{os.getpid()}.times").open("a") as file:
            file.write(f"{len(win_rates)} {seconds}\n")
        return scored


def scorer_in(file: Path) -> Timed:
    scorer = Timed()
    scorer.folder = str(file.parent)
    return scorer


def scorer_us(folder: Path) -> float:
    """Microseconds of a prompt in all calls but the first of each process, which loads the router."""
    calls = [line.split() for file in folder.glob("*.times") for line in file.read_text().splitlines()[1:]]
    return 1e6 * sum(float(seconds) for _, seconds in calls) / sum(int(count) for count, _ in calls)


def cpu_seconds() -> float:
    """CPU time of this process and all its descendants, ended ones included."""
    children: dict[int, list[int]] = {}
    times: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        pid = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        times[pid] = sum(map(int, fields[11:15]))  # user and system, its own and of children waited for
    ticks, waiting = 0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        ticks += times.get(pid, 0)
        waiting += children.get(pid, [])
    return ticks / os.sysconf("SC_CLK_TCK")


def in_order(ids: Any, win_rates: Any) -> np.ndarray:
    return np.asarray(win_rates, dtype=np.float64)[np.argsort(np.asarray(ids), kind="stable")]


@contextmanager
def plain(workers: int) -> Iterator[Scores]:
    router = load_router()

    def run(file: Path) -> np.ndarray:
        parts = [router.win_rates(batch["prompt"].to_pylist()) for batch in pq.ParquetFile(file).iter_batches(BATCH)]
        return np.concatenate(parts)

    yield run


@contextmanager
def with_multiprocessing(workers: int) -> Iterator[Scores]:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield lambda file: np.concatenate(list(pool.imap(scorer_in(file), batches(file))))


def batches(file: Path) -> Iterator[list[str]]:
    return (batch["prompt"].to_pylist() for batch in pq.ParquetFile(file).iter_batches(BATCH))


@contextmanager
def with_duckdb(workers: int) -> Iterator[Scores]:
    import duckdb

    # its types want an enum where its documentation gives a text
    connection: Any = duckdb.connect(config={"threads": workers})

    def run(file: Path) -> np.ndarray:
        connection.create_function("win_rate", scorer_in(file), ["VARCHAR"], "DOUBLE", type="arrow")
        found = connection.sql(f"SELECT id, win_rate(prompt) AS win_rate FROM '{file}'").fetchnumpy()
        connection.remove_function("win_rate")
        return in_order(found["id"], found["win_rate"])

    yield run


@contextmanager
def with_datasets(workers: int) -> Iterator[Scores]:
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()

    def run(file: Path) -> np.ndarray:
        rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(file.parent / "datasets"))
        # as arrow tables, prompts are handed over without a detour through lists, and written back as they are
        scored = rows.with_format("arrow").map(scorer_in(file), batched=True, batch_size=BATCH, num_proc=workers)
        return np.asarray(scored.data.column("win_rate"))

    yield run


@contextmanager
def with_dask(workers: int) -> Iterator[Scores]:
    import dask
    import dask.dataframe as dd

    def run(file: Path) -> np.ndarray:
        frame = dd.read_parquet(file, split_row_groups=True)
        scored = frame.map_partitions(scorer_in(file), meta={**frame.dtypes.to_dict(), "win_rate": "f8"})
        with dask.config.set(scheduler="processes", num_workers=workers):
            found = scored[["id", "win_rate"]].compute()
        return in_order(found["id"], found["win_rate"])

    yield run


@contextmanager
def with_ray(workers: int) -> Iterator[Scores]:
    import ray

    # a cluster of its own, also beside another one on this machine
    ray.init("local", num_cpus=workers + 1, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def run(file: Path) -> np.ndarray:
        # functions run in Ray's pool of processes, which outlives a dataset; so each loads its router once
        scored = ray.data.read_parquet(str(file), override_num_blocks=4 * workers).map_batches(
            scorer_in(file), batch_size=BATCH, num_cpus=0.9
        )
        found = list(scored.select_columns(["id", "win_rate"]).iter_batches(batch_size=None))
        return in_order(*(np.concatenate([batch[name] for batch in found]) for name in ("id", "win_rate")))

    yield run
    ray.shutdown()


@contextmanager
def with_spark(workers: int) -> Iterator[Scores]:
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import pandas_udf
    from pyspark.sql.types import DoubleType

    builder = SparkSession.builder.master(f"local[{workers}]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
    builder = builder.config("spark.sql.files.maxPartitionBytes", "1m")  # one file is read by both workers
    spark = builder.config("spark.sql.execution.arrow.pyspark.enabled", "true").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")

    def run(file: Path) -> np.ndarray:
        scorer = scorer_in(file)

        def score(prompts: pd.Series) -> pd.Series:
            return scorer(prompts)

        win_rate = pandas_udf(score, DoubleType())
        scored = spark.read.parquet(str(file))
        found = scored.select("id", win_rate("prompt").alias("win_rate")).toPandas()
        return in_order(found["id"], found["win_rate"])

    yield run
    spark.stop()


ENGINES = {
    "multiprocessing": (with_multiprocessing, None),
    "duckdb": (with_duckdb, "duckdb"),
    "datasets": (with_datasets, "datasets"),
    "dask": (with_dask, "dask"),
    "ray": (with_ray, "ray"),
    "spark": (with_spark, "pyspark"),
}


def marginal(
    run: Scores, small: Path, large: Path, expected: np.ndarray, spent: Callable[[], float] = cpu_seconds
) -> dict[str, Any]:
    """CPU and wall seconds of a further prompt, and whether all win rates are the expected ones."""
    equal, marks = True, [(spent(), time.perf_counter())]
    for file in (small, large):
        found = run(file)
        equal = equal and np.array_equal(found, expected[: len(found)])
        marks.append((spent(), time.perf_counter()))
    count = len(expected) - pq.read_metadata(small).num_rows
    (cpu, wall) = ((marks[2][i] - 2 * marks[1][i] + marks[0][i]) / count for i in (0, 1))
    return {"cpu_us": 1e6 * cpu, "wall_us": 1e6 * wall, "equal": bool(equal)}


def measure(engine: str, folder: Path, workers: int) -> dict[str, Any]:
    """Figures of one engine, in this process."""
    small, large = folder / "small.parquet", folder / "large.parquet"
    with plain(1) as scores:
        expected = scores(large)
        alone = [marginal(scores, small, large, expected, time.process_time)["cpu_us"]]
    started, cpu = time.perf_counter(), cpu_seconds()
    with ENGINES[engine][0](workers) as scores:
        scores(small)  # each worker loads its router
        first, cpu = time.perf_counter() - started, cpu_seconds() - cpu
        found = marginal(scores, small, large, expected)
        with plain(1) as again:
            # of this process alone: the engine's processes idle, and some end
            alone.append(marginal(again, small, large, expected, time.process_time)["cpu_us"])
    plain_us = float(np.mean(alone))
    scorer = scorer_us(folder)
    ratios = {"scorer_ratio": scorer / plain_us, "all_ratio": found["cpu_us"] / plain_us}
    start = {"first_s": first, "start_cpu_s": cpu - 1e-6 * found["cpu_us"] * pq.read_metadata(small).num_rows}
    return {"engine": engine, "plain_us": plain_us, "scorer_us": scorer, **found, **ratios, **start}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="may be given again; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:  # the process of one engine
        figures = measure(options.engine[0], options.folder, options.workers)
        (options.folder / f"{options.engine[0]}.json").write_text(json.dumps(figures))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_prompts(folder / "large.parquet", options.prompts)
        write_prompts(folder / "small.parquet", options.prompts // 4)  # the first quarter, by the same seed
        for engine in options.engine or ENGINES:
            for file in folder.glob("*.times"):
                file.unlink()
            needs = ENGINES[engine][1]
            if needs is not None and importlib.util.find_spec(needs) is None:
                print(f"{engine}: not installed, left out", file=sys.stderr)
                continue
            arguments = ["--engine", engine, "--in", str(folder), "--workers", str(options.workers)]
            ended = subprocess.run([sys.executable, __file__, *arguments], check=False, capture_output=True, text=True)
            if ended.returncode:
                print(ended.stderr, file=sys.stderr)
                return 1
            rows.append(json.loads((folder / f"{engine}.json").read_text()))
            if not options.json:
                show(rows[-1], heading=len(rows) == 1)
    if options.json:
        print(json.dumps(rows, indent=2))
    return int(any(not row["equal"] or row["scorer_ratio"] > LIMIT for row in rows))


def show(row: dict[str, Any], *, heading: bool) -> None:
    if heading:
        print("                           us of CPU a prompt                   us     first    start,")
        print("engine            bits    plain  scorer (ratio)    all (ratio)  wall   run, s  s of CPU")
    bits = "equal" if row["equal"] else "DIFFER"
    scorer = f"{row['scorer_us']:6.1f} ({row['scorer_ratio']:5.2f})"
    every = f"{row['cpu_us']:6.1f} ({row['all_ratio']:5.2f})"
    wall = f"{row['wall_us']:5.0f} {row['first_s']:8.1f} {row['start_cpu_s']:9.1f}"
    print(f"{row['engine']:16s}  {bits:6s} {row['plain_us']:6.1f}  {scorer} {every} {wall}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
