"""SimilarityWeightedRouter: golden values, laws, the saved form, the published data sets, and bad input."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routellm_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigurationError,
    DataError,
    MissingExtraError,
    RouterError,
)
from routellm_core.routers import SimilarityWeightedRouter, sw_storage
from routellm_core.routers.base import Router
from routellm_core.statistics.bradley_terry import bradley_terry_ratings
from tests.support.shared import GOLDEN, golden_json, needs_golden

STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"
Battle = tuple[str, str, str]


class Table:
    """Embeds a text as the row that a table has for it."""

    def __init__(self, rows: dict[str, Any], dimension: int | None = None) -> None:
        self.rows = rows
        self.dimension = dimension
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return np.array([self.rows[text] for text in texts], dtype=np.float32)

    async def aembed(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed(texts)


class Hashed:
    """Embeds a text as a random vector drawn from it; "" as the zero vector."""

    def __init__(self, dimension: int = 12) -> None:
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng([*text.encode()]).normal(size=self.dimension) * (text != "") for text in texts]
        return np.array(rows, dtype=np.float32)

    async def aembed(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed(texts)


def some_battles(count: int = 300, models: int = 6, seed: int = 0) -> tuple[list[Battle], np.ndarray]:
    rng = random.Random(seed)
    names = [f"m{i}" for i in range(models)]
    battles: list[Battle] = []
    for i in range(count):
        a, b = rng.sample(range(models), 2)
        won = rng.choices(["model_a", "model_b"], [2.0**-a, 2.0**-b])[0]
        battles.append((names[a], names[b], rng.choice([won, won, won, "tie", "tie (bothbad)"]) if i % 9 else "tie"))
    return battles, np.random.default_rng(seed).normal(size=(count, 12))


def some_router(**options: Any) -> SimilarityWeightedRouter:
    battles, embeddings = some_battles()
    given = {"embedder": Hashed(), "strong": "m0", "weak": "m4", "num_tiers": 4, **options}
    return SimilarityWeightedRouter(battles, embeddings, **given)


def golden_columns() -> dict[str, list[Any]]:
    with gzip.open(GOLDEN / "battles_2000.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


def golden_router(**options: Any) -> tuple[SimilarityWeightedRouter, list[str]]:
    columns = golden_columns()
    battles = [
        (a, b, "model_a" if won_a else "model_b" if won_b else "tie")
        for prompt, a, b, won_a, won_b in zip(
            *(columns[k] for k in ("prompt", "model_a", "model_b", "winner_model_a", "winner_model_b")), strict=True
        )
        if len(json.loads(prompt)[0].strip()) >= 16
    ]
    embeddings = np.load(GOLDEN / "battle_embeddings.npz")["embeddings"]
    return SimilarityWeightedRouter(
        battles, embeddings, embedder=golden_embedder(), strong=STRONG, weak=WEAK, **options
    ), golden_json("prompts.json")


def golden_embedder() -> Table:
    rows = np.load(GOLDEN / "prompt_embeddings.npz")["embeddings"]
    return Table(dict(zip(golden_json("prompts.json"), rows, strict=True)), 1536)


@needs_golden
@pytest.mark.parametrize(
    ("same_tier", "reference"),
    [("ignore", "win_rate_without_same_tier_battles"), ("routellm", "win_rate_tight_newton")],
)
def test_golden_win_rates(same_tier: str, reference: str) -> None:
    router, prompts = golden_router(same_tier=same_tier)
    golden = golden_json("router_outputs.json")["sw_ranking"]
    got = router.win_rates(prompts)
    assert np.abs(got - golden_json("sw_tight.json")[reference]).max() < 1e-7
    if same_tier == "routellm":
        assert np.abs(got - golden["win_rate"]).max() < 5e-4
    assert router.tiers == golden["model2tier"]
    # The package's solver stops early, by some points of rating where models met rarely.
    assert max(abs(router.ratings[name] - rating) for name, rating in golden["model_ratings"].items()) < 5.0
    singles = np.array([router.win_rates([prompt])[0] for prompt in prompts])
    np.testing.assert_array_equal(singles, got)


@pytest.mark.parametrize("same_tier", ["ignore", "routellm"])
def test_win_rates_are_those_of_the_definition(same_tier: Any) -> None:
    """Bradley-Terry ratings of the tiers, anew for each prompt, every battle with its own weight."""
    battles, embeddings = some_battles()
    router = some_router(same_tier=same_tier)
    prompts = ["a prompt", "another", "wholly different"]
    rows = embeddings.astype(np.float32).astype(np.float64)
    want = []
    for query in Hashed().embed(prompts).astype(np.float64):
        cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        of_tiers = [(str(router.tiers[a]), str(router.tiers[b]), winner) for a, b, winner in battles]
        weights = 10.0 * 10.0 ** (cosines / cosines.max())
        ratings = bradley_terry_ratings(of_tiers, weights, same_model=same_tier)
        gap = ratings[str(router.tiers["m0"])] - ratings[str(router.tiers["m4"])]
        want.append(1.0 - 1.0 / (1.0 + 10.0 ** (gap / 400.0)))
    got = router.win_rates(prompts)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.ptp(got) > 0.01


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-4), ("int8", 1e-3)])
@pytest.mark.parametrize("battles", ["random", pytest.param("golden", marks=needs_golden)])
def test_smaller_storage_stays_close(battles: str, dtype: Any, tolerance: float, tmp_path: Path) -> None:
    if battles == "golden":
        router, prompts = golden_router(dtype=dtype)
        want = golden_json("sw_tight.json")["win_rate_without_same_tier_battles"]
    else:
        # As many dimensions as real embeddings have: what rounding moves cancels out over them
        given, rng = some_battles(1000)[0], np.random.default_rng(0)
        rows, prompts = rng.normal(size=(1000, 1024)), ["one prompt", "two", "three"]
        router = SimilarityWeightedRouter(
            given, rows, embedder=Hashed(1024), strong="m0", weak="m4", num_tiers=4, dtype=dtype
        )
        want = SimilarityWeightedRouter(
            given, rows, embedder=Hashed(1024), strong="m0", weak="m4", num_tiers=4
        ).win_rates(prompts)
    got = router.win_rates(prompts)
    assert 0 < np.abs(got - want).max() < tolerance
    assert router.dtype == dtype
    np.testing.assert_array_equal([router.win_rates([p])[0] for p in prompts], got)
    router.save_pretrained(tmp_path)
    again = SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=router.embedder)
    np.testing.assert_array_equal(again.win_rates(prompts), got)
    assert again.dtype == dtype


def published_columns(count: int = 400) -> dict[str, list[Any]]:
    """Columns of a published data set: turns as JSON, a column a result; every fifth prompt is a short one."""
    rng = random.Random(0)
    pairs = [rng.sample((STRONG, WEAK, "m1", "m2", "m3"), 2) for _ in range(count)]
    results = rng.choices([(1, 0, 0), (0, 1, 0), (0, 0, 1)], k=count)
    prompts = [
        json.dumps(["hi" if i % 5 == 0 else f'a "longer" first turn, {i}\nin two lines', "a second turn"])
        for i in range(count)
    ]
    names = ("prompt", "model_a", "model_b", "winner_model_a", "winner_model_b", "winner_tie")
    rows = [(p, *pair, *result) for p, pair, result in zip(prompts, pairs, results, strict=True)]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_published_data_sets_are_read(suffix: str, tmp_path: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import csv, parquet

    columns = published_columns()
    kept = [len(json.loads(p)[0].strip()) >= 16 for p in columns["prompt"]]
    embeddings = np.random.default_rng(0).normal(size=(sum(kept), 12)).astype(np.float32)
    half = sum(kept[:180])
    for name, rows, vectors in (("one", slice(180), embeddings[:half]), ("two", slice(180, None), embeddings[half:])):
        table = pa.table({key: values[rows] for key, values in columns.items()} | {"other": ["x"] * len(kept[rows])})
        file = tmp_path / name / "data" / f"train.{suffix}"
        file.parent.mkdir(parents=True)
        parquet.write_table(table, file, row_group_size=100) if suffix == "parquet" else csv.write_csv(table, file)
        parquet.write_table(pa.table({"embeddings": list(vectors)}), tmp_path / f"{name}.parquet", row_group_size=77)
    router = SimilarityWeightedRouter.from_battles(
        [tmp_path / "one", tmp_path / "two"],
        [tmp_path / "one.parquet", tmp_path / "two.parquet"],
        embedder=Hashed(),
        same_tier="routellm",
    )
    won = zip(columns["winner_model_a"], columns["winner_model_b"], strict=True)
    winners = ["model_a" if a else "model_b" if b else "tie" for a, b in won]
    battles = zip(columns["model_a"], columns["model_b"], winners, kept, strict=True)
    direct = SimilarityWeightedRouter(
        [(a, b, winner) for a, b, winner, long_enough in battles if long_enough],
        embeddings,
        embedder=Hashed(),
        strong=STRONG,
        weak=WEAK,
        same_tier="routellm",
    )
    prompts = ["one prompt", "two", ""]
    np.testing.assert_array_equal(router.win_rates(prompts), direct.win_rates(prompts))
    with pytest.raises(DataError, match=r"144 battles have a first turn .* are 320 embeddings"):
        SimilarityWeightedRouter.from_battles(
            tmp_path / "one", [tmp_path / "one.parquet", tmp_path / "two.parquet"], embedder=Hashed()
        )


def test_malformed_data_sets(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    good: dict[str, Any] = {
        "prompt": ['["a prompt of sixteen characters"]', '["short", "a long second turn does not count"]'],
        "model_a": ["a", "b"],
        "model_b": ["b", "a"],
        "winner_model_a": [1, 0],
        "winner_model_b": [0, 1],
    }
    battles, vectors = tmp_path / "battles.parquet", tmp_path / "vectors.parquet"

    def read(columns: dict[str, Any], embeddings: Any) -> SimilarityWeightedRouter:
        parquet.write_table(pa.table(columns), battles)
        parquet.write_table(pa.table({"embeddings": embeddings}), vectors)
        options: dict[str, Any] = {"embedder": Hashed(2), "strong": "a", "weak": "b"}
        return SimilarityWeightedRouter.from_battles(battles, vectors, **options)

    assert read(good, [[1.0, 2.0]]).tiers == {"a": 0, "b": 9}
    with pytest.raises(DataError, match="row 1: prompt is not a JSON list"):
        read({**good, "prompt": [good["prompt"][0], "no json"]}, [[1.0, 2.0]])
    with pytest.raises(DataError, match="model_b"):
        read({k: v for k, v in good.items() if k != "model_b"}, [[1.0, 2.0]])
    for wrong in ([[1.0, 2.0], [1.0]], [[1.0, 2.0], None], [1.0], ["x"]):
        with pytest.raises(DataError, match="embeddings"):
            read(good, wrong)
    vectors.write_bytes(b"PAR1 not at all")
    with pytest.raises(DataError, match="vectors"):
        SimilarityWeightedRouter.from_battles(battles, vectors, embedder=Hashed(2))
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "nowhere", tmp_path / "empty", "./nowhere"):
        with pytest.raises(CheckpointNotFoundError, match=r"nowhere|empty"):
            SimilarityWeightedRouter.from_battles(missing, vectors, embedder=Hashed(2))


def test_published_data_sets_come_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot(repo: str, **options: Any) -> str:
        asked.append((repo, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(CheckpointNotFoundError, match="no parquet"):
        SimilarityWeightedRouter.from_battles(embedder=Hashed())
    assert asked[0][0] == "lmsys/lmsys-arena-human-preference-55k"
    assert asked[0][1]["repo_type"] == "dataset"
    assert asked[0][1]["allow_patterns"] == ["*/train/*.parquet"]


@settings(max_examples=40)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=12), st.randoms(), st.sampled_from([{}, {"nearest": 20}]))
def test_each_win_rate_depends_on_its_prompt_alone(prompts: list[str], rng: Any, options: dict[str, Any]) -> None:
    prompts = [prompt.encode("utf-8", "replace").decode() for prompt in prompts]
    router = some_router(**options)
    together = router.win_rates(prompts)
    assert ((together >= 0.0) & (together <= 1.0)).all()
    np.testing.assert_array_equal([router.win_rates([prompt])[0] for prompt in prompts], together)
    np.testing.assert_array_equal(asyncio.run(router.awin_rates(prompts)), together)
    order = rng.sample(range(len(prompts)), len(prompts))
    np.testing.assert_array_equal(router.win_rates([prompts[i] for i in order]), together[order])


def test_batches_beyond_a_chunk_and_matrices_beyond_a_block() -> None:
    battles, embeddings = some_battles(count=700)
    router = SimilarityWeightedRouter(battles, embeddings, embedder=Hashed(), strong="m0", weak="m4")
    prompts = [f"p{i}" for i in range(150)]
    got = router.win_rates(prompts)
    np.testing.assert_array_equal([router.win_rates([p])[0] for p in prompts], got)


def test_order_of_the_battles_and_scale_of_the_embeddings_do_not_matter() -> None:
    battles, embeddings = some_battles()
    prompts = [f"p{i}" for i in range(20)]
    want = some_router().win_rates(prompts)
    order = np.random.default_rng(1).permutation(len(battles))
    options: dict[str, Any] = {"embedder": Hashed(), "strong": "m0", "weak": "m4", "num_tiers": 4}
    mixed = SimilarityWeightedRouter([battles[i] for i in order], embeddings[order], **options)
    np.testing.assert_allclose(mixed.win_rates(prompts), want, atol=1e-9)
    for scale in (1e-30, 1e30):
        scaled = SimilarityWeightedRouter(battles, embeddings * scale, **options)
        np.testing.assert_allclose(scaled.win_rates(prompts), want, atol=1e-7)
    other = SimilarityWeightedRouter(battles, embeddings, **{**options, "strong": "m4", "weak": "m0"})
    np.testing.assert_allclose(other.win_rates(prompts), 1.0 - want, atol=1e-12)


def test_a_sharper_base_and_fewer_neighbours_follow_the_prompt_more() -> None:
    prompts = [f"p{i}" for i in range(60)]
    spreads = [some_router(**o).win_rates(prompts).std() for o in ({}, {"base": 1e4}, {"base": 1e300})]
    assert spreads == sorted(spreads)
    assert some_router(nearest=30).win_rates(prompts).std() > spreads[0]
    np.testing.assert_array_equal(
        some_router(nearest=300).win_rates(["a"]), some_router(nearest=10**6).win_rates(["a"])
    )
    for extreme in ({"nearest": 1}, {"base": 1e308}, {"base": 1e308, "nearest": 2}):
        assert np.isfinite(some_router(**extreme).win_rates(prompts)).all()


def test_a_prompt_that_is_like_nothing_weighs_all_battles_alike() -> None:
    router = some_router()
    zero = router.win_rates([""])[0]
    ratings, tiers = router.ratings, router.tiers
    assert 0.5 < zero < 1.0
    assert tiers["m0"] < tiers["m4"]
    assert ratings["m0"] > ratings["m4"]
    battles, _ = some_battles()
    opposite = SimilarityWeightedRouter(
        battles, np.ones((300, 2)), embedder=Table({"x": [-1, -1], "0": [0, 0]}), strong="m0", weak="m4", num_tiers=4
    ).win_rates(["x", "0"])
    assert opposite[0] == opposite[1] == pytest.approx(zero, abs=1e-12)


def test_strong_and_weak_in_one_tier_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        router = some_router(num_tiers=1)
    assert "in the same tier" in caplog.text
    np.testing.assert_array_equal(router.win_rates(["a", "b"]), 0.5)


def test_fewer_models_than_tiers_and_a_model_that_never_won() -> None:
    battles: list[Battle] = [("a", "b", "model_a")] * 5 + [("b", "c", "model_a")] * 5 + [("c", "b", "model_a")]
    embeddings = np.random.default_rng(0).normal(size=(11, 12))
    router = SimilarityWeightedRouter(battles, embeddings, embedder=Hashed(), strong="a", weak="c")
    rates = router.win_rates(["x", "y", ""])
    assert ((rates > 0.5) & (rates < 1.0)).all()
    assert router.tiers == {"a": 0, "b": 8, "c": 9}


def test_saved_form_round_trips_bit_for_bit(tmp_path: Path) -> None:
    prompts = [f"p{i}" for i in range(30)]
    router = some_router(same_tier="routellm", base=50.0, nearest=99)
    router.save_pretrained(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    for cls in (SimilarityWeightedRouter, Router):
        again = cls.from_pretrained(tmp_path, embedder=Hashed())
        np.testing.assert_array_equal(again.win_rates(prompts), router.win_rates(prompts))
        assert again.fingerprint == router.fingerprint
    assert isinstance(again, SimilarityWeightedRouter)
    assert isinstance(again.store.rows, np.memmap)
    # Saving over itself, while the old file is mapped.
    again.save_pretrained(tmp_path)
    np.testing.assert_array_equal(again.win_rates(prompts), router.win_rates(prompts))
    from safetensors.numpy import load_file

    assert set(load_file(tmp_path / "model.safetensors")) == {"embeddings", "keys", "counts"}
    other = SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=Hashed(), strong="m4", weak="m0", base=10.0)
    assert other.fingerprint != router.fingerprint
    assert other.base == 10.0
    with pytest.raises(ConfigurationError, match="embedder"):
        SimilarityWeightedRouter.from_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"12 .*|13 dimensions"):
        SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=Hashed(13))


def test_damaged_saved_forms(tmp_path: Path) -> None:
    some_router().save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    data, text = weights.read_bytes(), config.read_text()

    def load() -> None:
        SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=Hashed())

    for broken in (data[:-5], data[:4], b"", b"\xff" * 100, data[:8] + b"[]" + data[10:]):
        weights.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load()
    weights.unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"model\.safetensors"):
        load()
    weights.write_bytes(data)
    for change in ({"tiers": {"m0": 0, "m4": 1}}, {"tiers": 3}, {"num_tiers": 2}, {"num_tiers": 0}, {"num_tiers": "x"}):
        config.write_text(json.dumps({**json.loads(text), **change}))
        with pytest.raises(CheckpointError):
            load()
    config.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "ratings"}))
    with pytest.raises(CheckpointError, match=r"ratings.*from_battles"):
        load()


def test_loading_maps_the_rows_instead_of_reading_them(tmp_path: Path) -> None:
    battles, embeddings = some_battles(count=20_000)
    wide = np.tile(embeddings, (1, 32))
    SimilarityWeightedRouter(battles, wide, embedder=Hashed(384), strong="m0", weak="m4").save_pretrained(tmp_path)
    code = (
        "import sys, numpy as np\n"
        "from routellm_core.routers import SimilarityWeightedRouter\n"
        "def anonymous():\n"
        "    return sum(int(l.split()[1]) for l in open('/proc/self/smaps_rollup') if l.startswith('Anonymous:'))\n"
        "class E:\n"
        "    dimension = 384\n"
        "    def embed(self, texts): return np.ones((len(texts), 384), np.float32)\n"
        "r = SimilarityWeightedRouter.from_pretrained(sys.argv[1], embedder=E())\n"
        "before = anonymous()\n"
        "r.win_rates(['a'])\n"
        "print(anonymous() - before)\n"
    )
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs Linux to tell shared from private memory")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p), "OPENBLAS_NUM_THREADS": "1"},
    )
    # Of the 30 MB of rows none is copied for the call: pages of a mapped file are not anonymous.
    assert int(done.stdout) < 6_000


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"strong": "nobody"}, "strong='nobody'.*m0"),
    ({"weak": "nobody"}, "weak='nobody'"),
    ({"weak": "m0"}, "both 'm0'"),
    ({"num_tiers": 0}, "num_tiers=0"),
    ({"same_tier": "drop"}, "same_tier='drop'"),
    ({"dtype": "float64"}, "dtype='float64'"),
    ({"base": 1.0}, "base=1.0"),
    ({"base": float("nan")}, "base=nan"),
    ({"nearest": 0}, "nearest=0"),
    ({"nearest": 2.5}, "nearest=2.5"),
    ({"embedder": Hashed(5)}, "5 dimensions, .* 12"),
    ({"embedder": object()}, "embed"),
    ({"backend": "faiss"}, "backend='faiss'.*'numpy' or 'torch'"),
]


@pytest.mark.parametrize(("options", "words"), WRONG_OPTIONS, ids=[words for _, words in WRONG_OPTIONS])
def test_wrong_options_fail_at_construction(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        some_router(**options)


def spoilt(i: int, j: Any, value: float) -> np.ndarray:
    embeddings = some_battles()[1]
    embeddings[i, j] = value
    return embeddings


@pytest.mark.parametrize(
    ("embeddings", "words"),
    [
        (spoilt(7, 3, np.nan), r"embeddings\[7\].*NaN"),
        (spoilt(299, 0, np.inf), r"embeddings\[299\].*infinite"),
        (spoilt(4, slice(None), 0.0), r"embeddings\[4\].*zero vector"),
        (np.ones((299, 12)), r"\(299, 12\).*\(300, d\)"),
        (np.ones(300), r"\(300,\)"),
        (np.ones((300, 0)), r"\(300, 0\)"),
        (np.full((300, 2), "x"), "numbers"),
    ],
)
def test_bad_embeddings(embeddings: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        SimilarityWeightedRouter(some_battles()[0], embeddings, embedder=Hashed(), strong="m0", weak="m4")


@pytest.mark.parametrize(
    ("battles", "words"),
    [
        ([("a", "b", "a")], r"battles\[0\] has winner='a'"),
        ([("a", "b", "tie"), ("c", "d", "tie")], "2 groups"),
        ([("a", 3, "tie")], "3, a int"),
        ([], "empty"),
    ],
)
def test_bad_battles(battles: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        SimilarityWeightedRouter(battles, np.ones((len(battles), 2)), embedder=Hashed(2), strong="a", weak="b")


def test_only_battles_of_a_model_with_itself_leave_no_pair() -> None:
    with pytest.raises(ConfigurationError, match="weak='b'"):
        SimilarityWeightedRouter([("a", "a", "tie")], np.ones((1, 2)), embedder=Hashed(2), strong="a", weak="b")


@pytest.mark.parametrize(
    "wrong",
    [np.ones((1, 12)), np.ones((2, 11)), np.ones(12), np.full((2, 12), np.nan), np.full((2, 12), np.inf), None],
)
def test_an_embedder_that_returns_something_else(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    router = some_router()
    monkeypatch.setattr(Hashed, "embed", lambda self, texts: wrong)
    with pytest.raises(RouterError, match="Hashed"):
        router.win_rates(["a", "b"])
    with pytest.raises(RouterError, match="Hashed"):
        asyncio.run(router.awin_rates(["a", "b"]))


def test_an_embedder_of_unknown_dimension_is_checked_when_used() -> None:
    router = some_router(embedder=Table({"a": [1.0] * 12, "b": [1.0] * 11}))
    assert router.win_rates(["a"]).shape == (1,)
    with pytest.raises(RouterError, match=r"\(1, 11\)"):
        router.win_rates(["b"])


def test_a_batch_is_one_embedding_call() -> None:
    table = Table({f"p{i}": np.eye(12)[i % 12] for i in range(100)}, 12)
    some_router(embedder=table).win_rates([f"p{i}" for i in range(100)])
    assert [len(call) for call in table.calls] == [100]


def test_parquet_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"routellm-adapters\[parquet\]"):
        SimilarityWeightedRouter.from_battles(tmp_path, tmp_path, embedder=Hashed())


def test_pairs_hold_two_bfloat16() -> None:
    block = np.random.default_rng(0).normal(size=(200, 7)) * np.array([1.0, -1.0, 1e-3, 1e-6, 0.0, 1e-30, 1.0])
    words = sw_storage._paired(block)
    assert words.shape == (200, 4)
    odd, even = words.view(np.float32), (words << 16).view(np.float32)
    for got, want in ((odd[:, :3], block[:, 1::2]), (even, block[:, 0::2])):
        # Half of the last of 8 bits; next to nothing, beside components of unit rows, for an odd one close to zero.
        np.testing.assert_allclose(got, want, rtol=2.0**-8, atol=1e-38)
    assert (np.abs(odd[:, 3]) < 1e-38).all()


def test_an_odd_dimension_is_stored_in_every_way(tmp_path: Path) -> None:
    battles, embeddings = some_battles()
    prompts = [f"p{i}" for i in range(5)]
    options: dict[str, Any] = {"embedder": Hashed(11), "strong": "m0", "weak": "m4", "num_tiers": 4}
    want = SimilarityWeightedRouter(battles, embeddings[:, :11], **options).win_rates(prompts)
    for dtype in ("float16", "int8"):
        router = SimilarityWeightedRouter(battles, embeddings[:, :11], **options, dtype=dtype)
        np.testing.assert_allclose(router.win_rates(prompts), want, atol=5e-3)
        router.save_pretrained(tmp_path)
        again = SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=Hashed(11))
        np.testing.assert_array_equal(again.win_rates(prompts), router.win_rates(prompts))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_nearest_battles_are_those_of_the_most_similar_prompts(dtype: str) -> None:
    battles, embeddings = some_battles(60)
    router = SimilarityWeightedRouter(
        battles,
        embeddings,
        embedder=Hashed(),
        strong="m0",
        weak="m4",
        num_tiers=4,
        dtype=dtype,  # type: ignore[arg-type]
    )
    query = Hashed().embed(["which?"])[0]
    cosines = embeddings @ query / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(query)
    expected = []
    for i in np.argsort(-cosines)[:5]:
        a, b, winner = battles[i]
        first, second = router.tiers[a], router.tiers[b]
        outcome = {"model_a": "won", "model_b": "lost"}.get(winner, "tied")
        if first != second and (outcome == "lost" or (outcome == "tied" and first > second)):
            first, second, outcome = second, first, outcome.replace("lost", "won")
        expected.append((first, second, outcome))
    found = router.nearest_battles("which?", 5)
    assert [(b.first_tier, b.second_tier, b.outcome) for b in found] == expected
    np.testing.assert_allclose([b.similarity for b in found], np.sort(cosines)[::-1][:5], atol=2e-2)
    assert len(router.nearest_battles("which?", 1000)) == 60
    with pytest.raises(ConfigurationError, match="k=0"):
        router.nearest_battles("which?", 0)
    with pytest.raises(TypeError, match="expected str"):
        router.nearest_battles(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float16", 1e-6), ("int8", 1e-5)])
@needs_golden
def test_golden_win_rates_with_torch(dtype: Any, tolerance: float, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    by_numpy, prompts = golden_router(dtype=dtype)
    by_torch, _ = golden_router(dtype=dtype, backend="torch")
    got = by_torch.win_rates(prompts)
    assert 0.0 < np.abs(got - by_numpy.win_rates(prompts)).max() < tolerance
    np.testing.assert_array_equal([by_torch.win_rates([prompt])[0] for prompt in prompts], got)
    assert by_torch.fingerprint == by_numpy.fingerprint
    by_torch.save_pretrained(tmp_path)
    loaded = SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=by_torch.embedder, backend="torch")
    np.testing.assert_array_equal(loaded.win_rates(prompts), got)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("dimension", [11, 12])
def test_torch_compares_as_numpy_does(dtype: Any, dimension: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from routellm_core.routers import sw_torch

    monkeypatch.setattr(sw_torch, "_HEIGHT", 128)  # several blocks, the last one not full
    battles, embeddings = some_battles()
    options: dict[str, Any] = {"embedder": Hashed(dimension), "strong": "m0", "weak": "m4", "num_tiers": 4}
    by_numpy, by_torch = (
        SimilarityWeightedRouter(battles, embeddings[:, :dimension], **options, dtype=dtype, backend=backend)
        for backend in ("numpy", "torch")
    )
    prompts = ["", *(f"p{i}" for i in range(30)), "", *(f"p{i}" for i in range(30, 70))]
    got = by_torch.win_rates(prompts)
    np.testing.assert_allclose(got, by_numpy.win_rates(prompts), atol=2e-4)
    np.testing.assert_array_equal([by_torch.win_rates([prompt])[0] for prompt in prompts], got)
    np.testing.assert_array_equal(by_torch.win_rates(prompts[5:20]), got[5:20])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(by_torch)).win_rates(prompts), got)
    for one, other in zip(by_torch.nearest_battles("p1", 3), by_numpy.nearest_battles("p1", 3), strict=True):
        assert abs(one.similarity - other.similarity) < 1e-3


FORKED = """
import os, signal
import numpy as np
import torch
from routellm_core.routers.sw_storage import BattleStore
from routellm_core.routers.sw_torch import TorchProduct

torch.set_num_threads(2)
rows = np.eye(64, dtype=np.float32)[np.arange(10_000) % 64]
product = TorchProduct(BattleStore(64, rows, None, np.zeros(10_000, dtype=np.int16), np.ones(1, dtype=np.int64)))
before = product.similarities(rows[:64])
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if np.array_equal(product.similarities(rows[:64]), before) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_torch_compares_in_a_forked_child_too() -> None:
    pytest.importorskip("torch")
    # in a process of its own, which has no other threads
    done = subprocess.run([sys.executable, "-c", FORKED], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "0"


def test_a_missing_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"backend='torch'.*routellm-adapters\[bert\]"):
        some_router(backend="torch")


def test_a_torch_without_the_product_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def refuse(*given: Any) -> None:
        raise RuntimeError("Didn't find engine for operation\nand a long trace")

    monkeypatch.setattr(torch.ops.quantized, "linear_prepack_fp16", refuse)
    with pytest.raises(ConfigurationError, match=r"find engine for operation\).*'numpy'"):
        some_router(backend="torch")


@pytest.mark.parametrize(
    "option", [{"base": 0}, {"nearest": 0}, {"strong": ""}, {"weak": "m0"}, {"same_tier": ""}, {"backend": "x"}]
)
def test_options_of_loading_are_checked_too(option: dict[str, Any], tmp_path: Path) -> None:
    some_router().save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=next(iter(option)) if option != {"weak": "m0"} else "both 'm0'"):
        SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=Hashed(), **option)


@pytest.mark.parametrize("options", [{}, {"nearest": 5}, {"base": 1000.0}, {"nearest": 3, "base": 1000.0}])
def test_the_tie_that_bounds_the_ratings_has_the_weight_of_an_average_battle(options: dict[str, Any]) -> None:
    # "a" won every battle, so only the tie with the fixed player keeps the ratings finite. By symmetry they are t and
    # -t, with t where the slope of the weighted log likelihood is zero: here found by bisection, not by the solver.
    rng = np.random.default_rng(3)
    embeddings = np.abs(rng.normal(size=(9, 12)))
    query = np.abs(rng.normal(size=12))
    router = SimilarityWeightedRouter(
        [("a", "b", "model_a")] * 9, embeddings, embedder=Table({"q": query}, 12), strong="a", weak="b", **options
    )
    cosines = embeddings @ query / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(query)
    weights = options.get("base", 10.0) ** (cosines / cosines.max())
    weights = np.sort(weights)[::-1][: options.get("nearest")]

    def slope(t: float) -> float:
        won = 1.0 / (1.0 + np.exp(-2.0 * t))
        against_fixed = 1.0 / (1.0 + np.exp(-t))
        # a tie is half a win and half a loss; the two models have one each
        return float(2.0 * weights.sum() * (1.0 - won) + 2.0 * weights.mean() * (0.5 - against_fixed))

    low, high = 0.0, 50.0
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if slope(middle) > 0.0 else (low, middle)
    assert router.win_rates(["q"])[0] == pytest.approx(1.0 / (1.0 + np.exp(-2.0 * low)), abs=1e-6)
