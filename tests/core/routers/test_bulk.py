"""Win rates of whole columns: the same numbers in whatever form the batch comes, in this process and in others."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from routellm_core import ConfigurationError, DataError, Router, WinRates, load_router
from routellm_core.embedders import bundled_embedder
from tests.support.routers import ScriptedRouter
from tests.support.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = ["hi", "Prove that there are infinitely many primes.", "", "What is 2 + 2?", "¿Cómo estás?"]


@pytest.fixture(scope="module")
def expected():
    return load_router().win_rates(PROMPTS)


def same(found, expected) -> None:
    np.testing.assert_array_equal(np.asarray(found, dtype=np.float64), expected)


@pytest.mark.parametrize("make", [list, tuple, lambda p: np.array(p, dtype=object), np.array])
def test_a_list_or_an_array(make, expected):
    same(WinRates()(make(PROMPTS)), expected)


def test_a_dict_of_columns(expected):
    batch = {"prompt": np.array(PROMPTS), "id": [1, 2, 3, 4, 5]}
    found = WinRates()(batch)
    assert list(found) == ["prompt", "id", "win_rate"]
    assert "win_rate" not in batch
    same(found["win_rate"], expected)


def test_pandas(expected):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": PROMPTS, "id": range(5)}, index=list("abcde"))
    found = WinRates(column="text", to="p")(frame)
    assert list(found.columns) == ["text", "id", "p"]
    assert list(found.index) == list("abcde")
    same(found["p"], expected)
    series = WinRates()(frame["text"])
    assert (series.name, list(series.index)) == ("win_rate", list("abcde"))
    same(series, expected)
    for missing in (None, float("nan"), pandas.NA):
        same(WinRates()(pandas.Series([PROMPTS[0], missing], dtype=object)), [expected[0], np.nan])


def test_arrow(expected):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"prompt": PROMPTS})
    for batch in (table, table.to_batches()[0]):
        found = WinRates()(batch)
        assert type(found) is type(batch)
        same(found["win_rate"], expected)
    same(WinRates()(table["prompt"]), expected)
    assert WinRates()(pyarrow.array([PROMPTS[0], None])).to_pylist() == [expected[0], None]
    again = WinRates()(WinRates()(table))
    assert again.schema.names == ["prompt", "win_rate"]


def test_polars(expected):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"prompt": PROMPTS})
    same(WinRates()(frame)["win_rate"], expected)
    assert WinRates()(polars.Series([PROMPTS[0], None])).to_list() == [expected[0], None]


def test_duckdb(expected):
    duckdb = pytest.importorskip("duckdb")
    pyarrow = pytest.importorskip("pyarrow")
    with duckdb.connect() as connection:
        connection.create_function("win_rate", WinRates(), ["VARCHAR"], "DOUBLE", type="arrow")
        connection.register("prompts", pyarrow.table({"prompt": PROMPTS}))
        found = connection.execute("SELECT prompt, win_rate(prompt) FROM prompts").fetchall()
    same([value for _, value in sorted(found, key=lambda row: PROMPTS.index(row[0]))], expected)


def test_processes(expected):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(WinRates(), [PROMPTS[:2], PROMPTS[2:]])
    same(np.concatenate(found), expected)


def in_process(script: str, *words: str) -> str:
    path = os.pathsep.join([str(ROOT / "core"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(ROOT / script), *words]
    env = {**os.environ, "PYTHONPATH": path, "SPARK_LOCAL_IP": "127.0.0.1"}  # the machine's name may lead nowhere
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    assert done.stdout, done.stderr
    return done.stdout


def need(engine: str) -> None:
    pytest.importorskip("pyspark" if engine == "spark" else engine)
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs a Java runtime")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["multiprocessing", "duckdb", "dask", "datasets", "ray", "spark"])
def test_engines_that_are_installed(engine):
    need(engine)
    words = ["--engine", engine, "--prompts", "12000", "--repeats", "1", "--json"]
    (row,) = json.loads(in_process("benchmarks/bulk.py", *words))
    assert row["equal"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_examples_of_engines_that_are_installed(engine, tmp_path):
    need(engine)
    assert "3,000 prompts in" in in_process(f"examples/bulk_{engine}.py", "3000", str(tmp_path / "scored"))
    assert list((tmp_path / "scored").glob("*.parquet"))


def test_what_is_pickled_is_the_name():
    assert len(pickle.dumps(WinRates())) < 300
    own = pickle.loads(pickle.dumps(WinRates(ScriptedRouter())))
    same(own(["p=0.25"]), [0.25])


def test_a_router_is_loaded_once_a_process(monkeypatch):
    from routellm_core.routers import bulk

    loads = []
    monkeypatch.setattr(bulk, "_loaded", {})
    monkeypatch.setattr(bulk, "load_router", lambda *given: loads.append(given) or ScriptedRouter())
    for _ in range(3):
        WinRates("other")(["p=0.5"])
    assert loads == [("other", None)]


@pytest.mark.parametrize("in_python", [True, False])
def test_threads_take_turns_where_python_does_the_work(in_python):
    """DuckDB scores in several threads of one process; a router that waits for a server is not held up."""
    both, at_once = threading.Barrier(2), []

    class Waiting(Router):
        name = "waiting"
        embedder = bundled_embedder() if in_python else None

        def _win_rates(self, prompts):
            try:
                both.wait(0.5 if in_python else LIMIT)
                at_once.append(True)
            except threading.BrokenBarrierError:
                at_once.append(False)
            return np.full(len(prompts), 0.5)

    router = Waiting()
    score = WinRates(router)
    with ThreadPoolExecutor(2) as pool:
        rates = list(pool.map(score, [["a"], ["b"]]))
    assert [rate.tolist() for rate in rates] == [[0.5], [0.5]]
    assert at_once == [not in_python] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # from Python 3.12 on
def test_a_child_that_is_forked_while_a_thread_scores_can_score():
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Router):
        name = "slow"
        embedder = bundled_embedder()

        def _win_rates(self, prompts):
            if prompts == ["parent"]:
                begun.set()
                go_on.wait(LIMIT)
            return np.full(len(prompts), 0.5)

    router = Slow()
    score = WinRates(router)
    scoring = threading.Thread(target=score, args=(["parent"],))
    scoring.start()
    assert begun.wait(LIMIT)
    child = multiprocessing.get_context("fork").Process(target=score, args=(["child"],))
    child.start()
    child.join(LIMIT)
    alive = child.is_alive()
    child.kill()
    go_on.set()
    scoring.join()
    assert not alive
    assert child.exitcode == 0


def test_functions_stand_where_a_router_can():
    same(WinRates(lambda prompts: [0.5] * len(prompts))(["a", None, "b"]), [0.5, np.nan, 0.5])


def test_nothing_to_score():
    assert WinRates()([]).shape == (0,)
    same(WinRates()([None]), [np.nan])


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"text": ["a"]}, "'text'"),
        ({"prompt": [1]}, "each a str"),
        (3, "int"),
        ("one prompt", "str"),
        ([b"a"], "each a str"),
    ],
)
def test_what_cannot_be_scored_is_refused(batch, words):
    with pytest.raises(DataError, match=words):
        WinRates()(batch)


def test_arguments_are_checked():
    with pytest.raises(ConfigurationError, match="column=''"):
        WinRates(column="")
    with pytest.raises(ConfigurationError, match="source="):
        WinRates(ScriptedRouter(), "somewhere")
