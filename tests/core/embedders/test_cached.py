"""CachedEmbedder: what is asked, what is kept, and what happens when the file fails or is shared."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from routellm_core.embedders import CachedEmbedder, OpenAIEmbedder, embedder_config
from routellm_core.embedders import cached as cached_module
from routellm_core.errors import CheckpointError, ConfigurationError, RouterError
from tests.support.waiting import LIMIT


class Counting:
    """Vectors of ones times the text's length; remembers each call."""

    def __init__(self, dimension: int | None = 3, model: str = "m", size: int = 3) -> None:
        self.dimension = dimension
        self.model = model
        self.size = size
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return np.array([[float(len(t))] * self.size for t in texts], dtype=np.float32)

    async def aembed(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed(texts)


def test_misses_are_asked_once_in_one_call(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedEmbedder(inner, tmp_path / "deep" / "cache.db")
    first = cached.embed(["a", "bb", "a"])
    np.testing.assert_array_equal(first[:, 0], [1, 2, 1])
    np.testing.assert_array_equal(cached.embed(["ccc", "bb", "ccc", "a"])[:, 0], [3, 2, 3, 1])
    np.testing.assert_array_equal(asyncio.run(cached.aembed(["a", "dddd"]))[:, 0], [1, 4])
    assert inner.calls == [["a", "bb"], ["ccc"], ["dddd"]]
    assert first.dtype == np.float32
    assert cached.embed([]).shape == (0, 3)


@pytest.mark.parametrize("dimension", [3, None])
def test_a_new_process_finds_what_was_kept(tmp_path: Path, dimension: int | None) -> None:
    path = tmp_path / "c.db"
    texts = [f"{'x' * i}" for i in range(2000)] + ["", "\ud800", "\x00", "ü"]
    want = CachedEmbedder(Counting(dimension), path).embed(texts)
    again = Counting(dimension)
    np.testing.assert_array_equal(CachedEmbedder(again, path).embed(texts), want)
    assert again.calls == []


def test_models_and_dimensions_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    CachedEmbedder(Counting(), path).embed(["a"])
    for other in (Counting(model="n"), Counting(4, size=4)):
        assert CachedEmbedder(other, path).embed(["a"]).shape == (1, other.size)
        assert other.calls == [["a"]]
    named = Counting()
    CachedEmbedder(named, path, model="my own").embed(["a"])
    assert named.calls == [["a"]]


def test_openai_vectors_are_keyed_by_model_and_dimensions(tmp_path: Path) -> None:
    one = CachedEmbedder(OpenAIEmbedder(api_key="k", dimensions=8), tmp_path / "c.db")
    two = CachedEmbedder(OpenAIEmbedder(api_key="k", dimensions=9), tmp_path / "c.db")
    assert one.model != two.model
    assert embedder_config(one) == one.embedder.config()  # type: ignore[attr-defined]
    assert one.dimension == 8


def test_an_embedder_without_config_gives_none(tmp_path: Path) -> None:
    assert embedder_config(CachedEmbedder(Counting(), tmp_path / "c.db")) is None


def test_no_prompt_text_on_disk(tmp_path: Path) -> None:
    cached = CachedEmbedder(Counting(), tmp_path / "c.db")
    cached.embed(["the patient's name is Ada"])
    assert all(b"Ada" not in file.read_bytes() for file in tmp_path.iterdir())
    with sqlite3.connect(tmp_path / "c.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_threads_share_a_file(tmp_path: Path) -> None:
    cached = CachedEmbedder(Counting(), tmp_path / "c.db")
    batches = [[f"{'y' * (i % 7)}", f"{'y' * (i % 5)}"] for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(cached.embed, batches))
    for batch, rows in zip(batches, results, strict=True):
        np.testing.assert_array_equal(rows[:, 0], [len(t) for t in batch])


def _work(path: Path, start: int) -> float:
    # on a busy machine the other process may hold the file for longer than a call waits for it
    cached_module._BUSY_SECONDS = LIMIT
    cached = CachedEmbedder(Counting(), path)
    return float(sum(cached.embed(["z" * (start + i)])[0, 0] for i in range(30)))


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(_work, [(path, 0), (path, 10)])
        pool.close()
        pool.join()
    assert sums == [sum(range(30)), sum(range(10, 40))]
    inner = Counting()
    CachedEmbedder(inner, path).embed(["z" * i for i in range(40)])
    assert inner.calls == []


def test_a_file_that_fails_later_costs_the_caching_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.db"
    cached = CachedEmbedder(Counting(), path)
    for file in tmp_path.iterdir():
        file.unlink()
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(cached.embed(["hidden"])[:, 0], [6])
    assert "cannot be read" in caplog.text
    assert "hidden" not in caplog.text


def test_a_damaged_vector_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    inner = Counting()
    cached = CachedEmbedder(inner, path)
    cached.embed(["a"])
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE embeddings SET vector = x'00'")
    connection.close()
    np.testing.assert_array_equal(cached.embed(["a"])[:, 0], [1])
    assert inner.calls == [["a"], ["a"]]


def test_a_path_that_is_no_cache_fails_at_construction(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, " * 100)
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        CachedEmbedder(Counting(), file)
    with pytest.raises(CheckpointError):
        CachedEmbedder(Counting(), tmp_path)
    with pytest.raises(ConfigurationError, match="embed"):
        CachedEmbedder(object(), tmp_path / "c.db")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [np.ones((1, 3)), np.ones((2, 4)), np.full((2, 3), np.nan), None])
def test_a_wrong_answer_is_refused_and_not_kept(tmp_path: Path, wrong: object) -> None:
    inner = Counting()
    cached = CachedEmbedder(inner, tmp_path / "c.db")
    inner.embed = lambda texts: wrong  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(RouterError):
        cached.embed(["a", "b"])
    fresh = Counting()
    CachedEmbedder(fresh, tmp_path / "c.db").embed(["a"])
    assert fresh.calls == [["a"]]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_cached_vectors_of_another_length_are_asked_for_anew(tmp_path: Path, *, asynchronous: bool) -> None:
    path = tmp_path / "c.db"
    CachedEmbedder(Counting(None), path).embed(["a"])
    inner = Counting(None, size=5)
    cached = CachedEmbedder(inner, path)
    rows = asyncio.run(cached.aembed(["a", "b"])) if asynchronous else cached.embed(["a", "b"])
    assert rows.shape == (2, 5)
    assert inner.calls == [["b"], ["a"]]
    cached.embed(["a", "b"])
    assert len(inner.calls) == 2


def test_an_embedder_whose_vectors_change_length_is_refused(tmp_path: Path) -> None:
    inner = Counting(None)
    cached = CachedEmbedder(inner, tmp_path / "c.db")
    cached.embed(["a"])
    inner.size = 5
    with pytest.raises(RouterError, match="shape"):
        cached.embed(["b"])
