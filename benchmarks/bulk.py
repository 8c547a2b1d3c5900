"""Bulk scoring in Ray, Spark, Dask, `datasets`, DuckDB and multiprocessing: the same bits, and what it costs beyond.

python benchmarks/bulk.py [--prompts 120000] [--workers 2] [--repeats 3] [--engine NAME ...] [--json]

Each engine runs in a process of its own, on parquet files of made-up prompts, scores them with `WinRates`, brings ids
and win rates back to this process, and must give the win rates of plain ``router.win_rates``, bit for bit. Two CPU
times of a prompt are compared with plain scoring, which reads the same files in batches, in one thread of this process:

scorer   what `WinRates` takes in the workers, from the engine's batch to its result; the load of the router, once in
         each worker, is left out
all      the whole tree of processes, a JVM and Ray's daemons included, read from /proc: what a further prompt takes,
         the difference between runs over all prompts and over a quarter of them

Plain scoring and the engine take turns; the figures are the median of the repeats, and for `all` their range as well.
What does not grow with the number of prompts is printed beside it, in seconds of CPU: each run, and the start of the
engine with a first run of each size, less what their prompts and runs take. The start contains the imports, a JVM
and its compilation of what it runs, and a router in each worker. An engine that is not installed is left out. The exit
code is 1 where bits differ or a further prompt takes over 1.1 times the CPU time of plain scoring.
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
FILES = 8
LIMIT = 1.1
Scores = Callable[[Path], np.ndarray]

_TEXT = """how do I write a function that reads lines from the large file and counts which words appear most often when
the text has punctuation numbers like 42 or 1999 explain why this approach is faster than sorting everything first given
an example with python code then compare memory use of both versions for data that does not fit into main memory please
calculate the probability that two people share a birthday if there are twenty students"""


def write_prompts(folder: Path, count: int) -> None:
    """Prompts with the lengths of ordinary chat: a median of some twenty words and a long tail."""
    rng, words = random.Random(0), _TEXT.split()
    prompts = [
        " ".join(rng.choices(words, k=max(3, min(500, round(rng.lognormvariate(3.0, 1.1)))))) for _ in range(count)
    ]
    folder.mkdir()
    for i, ids in enumerate(np.array_split(np.arange(count), FILES)):
        table = pa.table({"id": ids, "prompt": prompts[ids[0] : ids[-1] + 1]})
        pq.write_table(table, folder / f"part-{i}.parquet", row_group_size=BATCH)


def files_of(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("*.parquet")))


def batches(folder: Path) -> Iterator[list[str]]:
    for file in files_of(folder):
        for batch in pq.ParquetFile(file).iter_batches(BATCH):
            yield batch["prompt"].to_pylist()


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


def scorer_in(folder: Path) -> Timed:
    scorer = Timed()
    scorer.folder = str(folder.parent)
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

    def run(folder: Path) -> np.ndarray:
        return np.concatenate([router.win_rates(batch) for batch in batches(folder)])

    yield run


@contextmanager
def with_multiprocessing(workers: int) -> Iterator[Scores]:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield lambda folder: np.concatenate(list(pool.imap(scorer_in(folder), batches(folder))))


@contextmanager
def with_duckdb(workers: int) -> Iterator[Scores]:
    import duckdb

    # its types want an enum where its documentation gives a text
    connection: Any = duckdb.connect(config={"threads": workers})

    def run(folder: Path) -> np.ndarray:
        connection.create_function("win_rate", scorer_in(folder), ["VARCHAR"], "DOUBLE", type="arrow")
        found = connection.sql(f"SELECT id, win_rate(prompt) AS win_rate FROM '{folder}/*.parquet'").fetchnumpy()
        connection.remove_function("win_rate")
        return in_order(found["id"], found["win_rate"])

    yield run


@contextmanager
def with_datasets(workers: int) -> Iterator[Scores]:
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()

    def run(folder: Path) -> np.ndarray:
        rows = datasets.Dataset.from_parquet(files_of(folder), cache_dir=str(folder.parent / "datasets"))
        # as arrow tables, prompts are handed over without a detour through lists, and written back as they are
        scored = rows.with_format("arrow").map(scorer_in(folder), batched=True, batch_size=BATCH, num_proc=workers)
        return np.asarray(scored.data.column("win_rate"))

    yield run


@contextmanager
def with_dask(workers: int) -> Iterator[Scores]:
    import dask
    import dask.dataframe as dd

    def run(folder: Path) -> np.ndarray:
        frame = dd.read_parquet(folder, split_row_groups=True)
        scored = frame.map_partitions(scorer_in(folder), meta={**frame.dtypes.to_dict(), "win_rate": "f8"})
        with dask.config.set(scheduler="processes", num_workers=workers):
            found = scored[["id", "win_rate"]].compute()
        return in_order(found["id"], found["win_rate"])

    yield run


@contextmanager
def with_ray(workers: int) -> Iterator[Scores]:
    import ray

    # a cluster of its own, also beside another one on this machine
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def run(folder: Path) -> np.ndarray:
        # Ray reads up to 128 MB of files in one task; these are small, and one worker would score them all.
        size = sum(os.path.getsize(file) for file in files_of(folder))
        os.environ["RAY_DATA_PARQUET_BIN_PACKING_BYTES"] = str(size // workers)
        # An object, not the class, runs in Ray's pool of processes, which outlives a dataset: each loads its router
        # once. Ray reads and scores a whole block in one task, and an arrow block is handed over as it is.
        scored = ray.data.read_parquet(str(folder)).map_batches(
            scorer_in(folder), batch_format="pyarrow", batch_size=None
        )
        found = list(scored.select_columns(["id", "win_rate"]).iter_batches(batch_size=None))
        return in_order(*(np.concatenate([batch[name] for batch in found]) for name in ("id", "win_rate")))

    yield run
    ray.shutdown()


@contextmanager
def with_spark(workers: int) -> Iterator[Scores]:
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import arrow_udf
    from pyspark.sql.types import DoubleType

    builder = SparkSession.builder.master(f"local[{workers}]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
    spark = builder.config("spark.sql.execution.arrow.pyspark.enabled", "true").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")

    def run(folder: Path) -> np.ndarray:
        scorer = scorer_in(folder)

        def score(prompts: pa.Array) -> pa.Array:
            return scorer(prompts)

        win_rate = arrow_udf(score, DoubleType())
        scored = spark.read.parquet(str(folder))
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


def two_runs(
    run: Scores, small: Path, large: Path, expected: np.ndarray, spent: Callable[[], float] = cpu_seconds
) -> tuple[float, float]:
    """CPU seconds of a run over each folder; all win rates have to be the expected ones."""
    marks = [spent()]
    for folder in (small, large):
        found = run(folder)
        if not np.array_equal(found, expected[: len(found)]):
            raise DifferentBits
        marks.append(spent())
    return marks[1] - marks[0], marks[2] - marks[1]


class DifferentBits(Exception):
    """An engine's win rates are not those of plain scoring."""


def measure(engine: str, folder: Path, workers: int, repeats: int) -> dict[str, Any]:
    """Figures of one engine, in this process."""
    small, large = folder / "small", folder / "large"
    with plain(1) as alone:
        expected = alone(large)
        fewer = sum(pq.read_metadata(file).num_rows for file in files_of(small))
        further = len(expected) - fewer
        started = cpu_seconds()
        with ENGINES[engine][0](workers) as scores:
            try:
                two_runs(scores, small, large, expected)
                start = cpu_seconds() - started
                pairs = []
                for _ in range(repeats):
                    # of this process alone: the engine's processes idle
                    pairs.append(two_runs(alone, small, large, expected, time.process_time))
                    pairs.append(two_runs(scores, small, large, expected))
            except DifferentBits:
                return {"engine": engine, "equal": False}
    prompt = [(of_large - of_small) / further for of_small, of_large in pairs]
    plain_s, engine_s, scorer = float(np.median(prompt[::2])), float(np.median(prompt[1::2])), scorer_us(folder)
    run_s = float(np.median([of_small for of_small, _ in pairs[1::2]])) - fewer * engine_s
    return {
        "engine": engine,
        "equal": True,
        "plain_us": 1e6 * plain_s,
        "scorer_us": scorer,
        "scorer_ratio": 1e-6 * scorer / plain_s,
        "all_us": 1e6 * engine_s,
        "all_ratios": sorted(
            of_engine / of_plain for of_plain, of_engine in zip(prompt[::2], prompt[1::2], strict=True)
        ),
        "run_s": run_s,
        "start_s": start - 2 * run_s - (fewer + len(expected)) * engine_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=120_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="may be given again; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:  # the process of one engine
        figures = measure(options.engine[0], options.folder, options.workers, options.repeats)
        (options.folder / f"{options.engine[0]}.json").write_text(json.dumps(figures))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_prompts(folder / "large", options.prompts)
        write_prompts(folder / "small", options.prompts // 4)  # the first quarter, by the same seed
        for engine in options.engine or ENGINES:
            for file in folder.glob("*.times"):
                file.unlink()
            needs = ENGINES[engine][1]
            if needs is not None and importlib.util.find_spec(needs) is None:
                print(f"{engine}: not installed, left out", file=sys.stderr)
                continue
            arguments = ["--engine", engine, "--in", str(folder)]
            arguments += ["--workers", str(options.workers), "--repeats", str(options.repeats)]
            ended = subprocess.run([sys.executable, __file__, *arguments], check=False, capture_output=True, text=True)
            if ended.returncode:
                print(ended.stderr, file=sys.stderr)
                return 1
            rows.append(json.loads((folder / f"{engine}.json").read_text()))
            if not options.json:
                show(rows[-1], heading=len(rows) == 1)
    if options.json:
        print(json.dumps(rows, indent=2))
    return int(any(not row["equal"] or np.median(row["all_ratios"]) > LIMIT for row in rows))


def show(row: dict[str, Any], *, heading: bool) -> None:
    if heading:
        print("                    us of CPU a further prompt (ratio)                      s of CPU")
        print("engine            plain      scorer            all, range            a run    start")
    if not row["equal"]:
        print(f"{row['engine']:16s}  THE BITS DIFFER", flush=True)
        return
    ratios = row["all_ratios"]
    scorer = f"{row['scorer_us']:6.1f} ({row['scorer_ratio']:4.2f})"
    every = f"{row['all_us']:6.1f} ({np.median(ratios):4.2f}, {ratios[0]:4.2f} to {ratios[-1]:4.2f})"
    print(
        f"{row['engine']:16s} {row['plain_us']:6.1f} {scorer} {every} {row['run_s']:8.2f} {row['start_s']:8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
