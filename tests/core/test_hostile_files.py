"""Files that are damaged or made to harm: each ends in an error of the project that names the file."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from routellm_core.calibration import Calibration, OnlineCalibration
from routellm_core.data import AnsweredPrompt, Battle, Outcome, read_battles, read_outcomes, read_prompts, write_records
from routellm_core.data.files import WRITTEN_HEADERS
from routellm_core.embedders import CachedEmbedder, StaticEmbedder
from routellm_core.embedders.static import SURFACE_NAMES
from routellm_core.errors import CheckpointError, DataError, RouteLLMError
from routellm_core.labelling.journal import Journal, read_journal
from routellm_core.policy.limits import ShareLimit, SpendLimit
from routellm_core.policy.savings import Price
from routellm_core.routers import load_router
from routellm_core.routers.knn import KNNRouter
from routellm_core.routers.mf import MatrixFactorizationRouter
from routellm_core.routers.mf_vote import HeadAndVoteRouter
from routellm_core.routers.random import RandomRouter
from routellm_core.routers.sw_ranking import SimilarityWeightedRouter

PRICES = {"strong": Price(1, 1), "weak": Price(1, 1)}
HUGE = 10**400


class Two:
    """An embedder of two dimensions that counts its calls."""

    dimension: int | None = 2
    model = "two"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return np.array([[1.0 + len(text), 1.0] for text in texts], dtype=np.float32)

    async def aembed(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed(texts)


def _head() -> MatrixFactorizationRouter:
    return MatrixFactorizationRouter(
        np.eye(2, dtype=np.float32),
        None,
        np.ones(2, np.float32),
        models=["s", "w"],
        strong="s",
        weak="w",
        embedder=Two(),
    )


def _mf(folder: Path) -> None:
    _head().save_pretrained(folder)


def _mf_vote(folder: Path) -> None:
    HeadAndVoteRouter(
        _head(),
        np.eye(2, dtype=np.int8),
        [[1, 0], [0, 1]],
        feature=0,
        above=0.0,
        base=10.0,
        head_slope=1.0,
        vote_slope=1.0,
        intercept=0.0,
    ).save_pretrained(folder)


def _knn(folder: Path) -> None:
    KNNRouter(
        [[1, 0], [0, 1]], [[1, 0], [0, 1]], models=["s", "w"], strong="s", weak="w", embedder=Two()
    ).save_pretrained(folder)


def _sw(folder: Path) -> None:
    SimilarityWeightedRouter(
        [("s", "w", "model_a"), ("s", "w", "tie"), ("w", "s", "model_a")],
        [[1, 0], [0, 1], [1, 1]],
        embedder=Two(),
        strong="s",
        weak="w",
        num_tiers=2,
    ).save_pretrained(folder)


def _static(folder: Path) -> None:
    count = len(SURFACE_NAMES)
    table = np.ones((2, 3), np.int8)
    StaticEmbedder(
        ["a", "b"], table, scale=1.0, surface_mean=np.zeros(count), surface_std=np.ones(count)
    ).save_pretrained(folder)


def _calibration(file: Path) -> None:
    Calibration([0.25, 0.75], [1, 2]).save(file)


def _online(file: Path) -> None:
    OnlineCalibration([0.25, 0.75], 0.5, window=50).save(file)


def _spend(file: Path) -> None:
    file.write_text(json.dumps({"format": 1, "counts": {"": 0.5}, "period": "2000-01-01"}))


def _share(file: Path) -> None:
    file.write_text(json.dumps({"format": 1, "counts": {"ada": -0.5}}))


@dataclass(frozen=True)
class Kind:
    """How a kind of file is written and read; `file` is the one that gets damaged, below a folder of its own."""

    file: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    in_folder: bool = False  # write and read take the folder

    def place(self, folder: Path) -> Path:
        return folder if self.in_folder else folder / self.file

    def load(self, folder: Path) -> Any:
        return self.read(self.place(folder))


JSON_KINDS = {
    "calibration": Kind("c.json", _calibration, Calibration.load),
    "online": Kind("o.json", _online, OnlineCalibration.load),
    "random config": Kind("config.json", lambda f: RandomRouter().save_pretrained(f), load_router, in_folder=True),
    "mf config": Kind("config.json", _mf, lambda f: load_router("mf", f, embedder=Two()), in_folder=True),
    "mf_vote config": Kind(
        "config.json", _mf_vote, lambda f: load_router("mf_vote", f, embedder=Two()), in_folder=True
    ),
    "knn config": Kind("config.json", _knn, lambda f: load_router("knn", f, embedder=Two()), in_folder=True),
    "sw config": Kind("config.json", _sw, lambda f: load_router("sw_ranking", f, embedder=Two()), in_folder=True),
    "router's calibration": Kind(
        "calibration.json", lambda f: RandomRouter().save_pretrained(f), load_router, in_folder=True
    ),
    "static config": Kind("config.json", _static, StaticEmbedder.from_pretrained, in_folder=True),
    "spend limit": Kind("spend-day.json", _spend, lambda f: SpendLimit(1.0, prices=PRICES, store=f.parent)),
    "share limit": Kind(
        "share-user_id.json", _share, lambda f: ShareLimit("user_id", strong_fraction=0.5, store=f.parent)
    ),
}

ANY_DAMAGE: dict[str, bytes] = {
    "nested lists": b"[" * 200_000 + b"]" * 200_000,
    "nested objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "nested in a field": b'{"format": ' + b"[" * 900 + b"]" * 900 + b', "router": ' + b"[" * 900 + b"]" * 900 + b"}",
    "empty": b"",
    "cut off": b'{"format": 1, "values": [0.1',
    "no UTF-8": b'{"format": 1, "router": "\xff\xfe"}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "null": b"null",
    "a list": b"[1, 2, 3]",
    "a number of many digits": b'{"format": ' + b"9" * 10_000 + b"}",
    "NULs": b"\0" * 1000,
}


@pytest.fixture(params=JSON_KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return JSON_KINDS[request.param]


def refused(read: Callable[[], Any], *places: Path | str, error: type[RouteLLMError] = RouteLLMError) -> str:
    """Assert that reading ends in an error of the project that names the places; returns its message."""
    with pytest.raises(error) as caught:
        read()
    message = str(caught.value)
    for place in places:
        assert str(place) in message
    assert len(message) < 2000
    return message


def test_every_kind_loads_undamaged(tmp_path: Path, kind: Kind) -> None:
    kind.write(kind.place(tmp_path))
    kind.load(tmp_path)


@pytest.mark.parametrize("damage", ANY_DAMAGE)
def test_a_json_file_that_is_no_such_object(tmp_path: Path, kind: Kind, damage: str) -> None:
    kind.write(kind.place(tmp_path))
    (tmp_path / kind.file).write_bytes(ANY_DAMAGE[damage])
    refused(lambda: kind.load(tmp_path), tmp_path, Path(kind.file).stem, error=CheckpointError)


def test_a_folder_where_the_file_should_be(tmp_path: Path, kind: Kind) -> None:
    kind.write(kind.place(tmp_path))
    (tmp_path / kind.file).unlink()
    (tmp_path / kind.file).mkdir()
    refused(lambda: kind.load(tmp_path), tmp_path / kind.file, error=CheckpointError)


def test_a_pipe_where_the_file_should_be(tmp_path: Path, kind: Kind) -> None:
    kind.write(kind.place(tmp_path))
    (tmp_path / kind.file).unlink()
    os.mkfifo(tmp_path / kind.file)
    refused(lambda: kind.load(tmp_path), tmp_path / kind.file, error=CheckpointError)


def test_a_file_larger_than_any_such_file(tmp_path: Path, kind: Kind) -> None:
    kind.write(kind.place(tmp_path))
    with (tmp_path / kind.file).open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no room
    refused(lambda: kind.load(tmp_path), tmp_path / kind.file, "larger", error=CheckpointError)


@pytest.mark.parametrize("value", [2, 0, -1, "1", 1.5, True, None, [], {}, HUGE // 10**200])
def test_an_unknown_format(tmp_path: Path, kind: Kind, value: Any) -> None:
    kind.write(kind.place(tmp_path))
    file = tmp_path / kind.file
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": value}))
    refused(lambda: kind.load(tmp_path), tmp_path, Path(kind.file).stem, error=CheckpointError)


NAN, INF = float("nan"), float("inf")
FIELDS: dict[str, list[tuple[str, Any]]] = {
    "calibration": [
        *(("counts", value) for value in ([1.5, 2], [1, 2.0], [2**63, 1], [2**62, 2**62], [HUGE, 1], [0, 3], [-1, 4])),
        *(
            ("counts", value)
            for value in ("12", ["1", "2"], None, {}, [[1, 2]], [1], [None, 2], [NAN, 2], [True, True])
        ),
        *(("values", value) for value in (["0.1", "0.2"], [NAN, 0.5], [0.1, INF], [-0.1, 0.5], [0.5, 0.1], [0.5, 0.5])),
        *(("values", value) for value in (None, "x", {}, [[0.1, 0.2]], [], [None, 0.5], [{}, 0.5], [HUGE, 0.5])),
        *(("count", value) for value in (4, 2.5, "3", None, -3, HUGE)),
        *(("router", value) for value in (7, [], {}, True)),
        *(("fingerprint", value) for value in (7, [], {}, True)),
    ],
    "online": [
        *(("owed", value) for value in (1e300, -1e300, NAN, INF, "0", None, [], HUGE, True)),
        *(("observed", value) for value in (1.5, -1, "3", None, HUGE, 2**63, True, [])),
        *(("strong", value) for value in (5, 0.5, -1, "0", None, HUGE, [])),
        *(("window", value) for value in (10**12, 1.5, "50", None, [], 49, HUGE)),
        *(("strong_fraction", value) for value in (1.5, NAN, "x", None, [], HUGE)),
        *(("recent", value) for value in ([], None, "x" * 50, {}, [2.0] * 50, [NAN] * 50, ["0.5"] * 50, [HUGE] * 50)),
        *(("calibration", value) for value in (None, [], {}, 5, "x")),
    ],
    "mf config": [
        *(
            ("models", value)
            for value in ([1, 2], ["s", 2], "sw", None, {}, ["s", "s"], ["s"], [["s"], ["w"]], ["", "s"])
        ),
        *(("strong", value) for value in (1, None, [], {}, "x")),
        ("use_proj", "yes"),
        ("router", 7),
        ("router", ["mf"]),
    ],
    "mf_vote config": [
        *(("feature", value) for value in (2, -1, 0.0, "0", None, [], True, HUGE)),
        *(("base", value) for value in (1, 0, -1, "10", None, [], NAN, INF, HUGE)),
        *(("above", value) for value in ("0", None, NAN, INF)),
        *(("vote_slope", value) for value in (0, -1, "1", None, NAN)),
        *(("head_slope", value) for value in (-1, "1", None, NAN)),
        *(("intercept", value) for value in ("0", None, INF)),
    ],
    "knn config": [
        *(("models", value) for value in ([1, 2], "sw", None, {}, ["s", "s"], [["s"], ["w"]])),
        *(("weak", value) for value in (1, None, [], {}, "s")),
        *(("neighbors", value) for value in (0, 1.5, "2", None, [], NAN)),
        *(("tie_margin", value) for value in (-1, "0", None, [], NAN, INF, HUGE)),
    ],
    "sw config": [
        *(("dimension", value) for value in (3, 2.0, "2", None, True, -2, HUGE)),
        *(("num_tiers", value) for value in (0, 1.5, "2", None, HUGE, 2**62, True)),
        *(
            ("tiers", value)
            for value in ([], None, {"s": "0", "w": 1}, {"s": 0, "w": 9}, {"s": [], "w": 1}, {"s": 0.5, "w": 1})
        ),
        *(("ratings", value) for value in (None, [], {"s": 1}, {"s": "x", "w": 1}, {"s": NAN, "w": 1})),
        *(("base", value) for value in (1, "x", NAN, [], HUGE)),
        *(("strong", value) for value in (1, [], {}, "x", "w")),
    ],
    "random config": [("seed", value) for value in (1.5, "1", None, [], {}, True)],
    "static config": [
        *(("scale", value) for value in (0, -1, NAN, INF, "x", None, [], HUGE, True)),
        *(("shrinkage", value) for value in (-1, NAN, "x", None, [], HUGE)),
        *(("features", value) for value in (99, "1", None, [])),
        *(("embedder", value) for value in ("other", 1, None, [])),
        *(("fingerprint", value) for value in ("0" * 32, 1, None, [])),
    ],
    "spend limit": [
        *(
            ("counts", value)
            for value in (None, [], 5, "x", {"a": "1"}, {"a": NAN}, {"a": INF}, {"a": HUGE}, {"a": -1}, {"a": []})
        ),
        *(("period", value) for value in (None, 5, [], {})),
    ],
    "share limit": [
        ("counts", value) for value in (None, [], 5, {"a": "1"}, {"a": NAN}, {"a": 1e300}, {"a": HUGE}, {"a": True})
    ],
}


@pytest.mark.parametrize(("name", "key", "value"), [(name, *case) for name, cases in FIELDS.items() for case in cases])
def test_a_field_with_a_wrong_value(tmp_path: Path, name: str, key: str, value: Any) -> None:
    kind = JSON_KINDS[name]
    kind.write(kind.place(tmp_path))
    file = tmp_path / kind.file
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, key: value}))
    refused(lambda: kind.load(tmp_path), tmp_path)


WEIGHTS = "model.safetensors"


def _with(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        from safetensors.numpy import load_file

        tensors = {name: array.copy() for name, array in load_file(file).items()}
        change(tensors)
        save_file(tensors, file)

    return apply


def _each(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda tensors: tensors.update({name: np.ascontiguousarray(make(array)) for name, array in tensors.items()})


def _as_type(letters: str, size: int) -> Callable[[Path], None]:
    """Call all numbers of a file by another type, whose numbers have `size` bytes."""

    def apply(file: Path) -> None:
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        at = 0
        for name, entry in header.items():
            if name != "__metadata__":
                end = at + int(np.prod(entry["shape"])) * size
                header[name] = {"dtype": letters, "shape": entry["shape"], "data_offsets": [at, end]}
                at = end
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))

    return apply


def _header(text: bytes, length: int | None = None) -> Callable[[Path], None]:
    return lambda file: file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text)  # type: ignore[return-value]


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


WEIGHT_DAMAGE: dict[str, Callable[[Path], Any]] = {
    "fp8": _as_type("F8_E4M3", 1),
    "bf16": _as_type("BF16", 2),
    "complex": _as_type("C64", 8),
    "booleans": _as_type("BOOL", 1),
    "an unknown type": _as_type("F128", 16),
    "one axis less": _with(_each(np.ravel)),
    "one axis more": _with(_each(lambda array: array[None, None])),
    "nothing in them": _with(_each(lambda array: array[:0])),
    "other names": _with(lambda tensors: tensors.update({f"x{name}": tensors.pop(name) for name in list(tensors)})),
    "a folder": _folder,
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "cut in the header": lambda file: file.write_bytes(file.read_bytes()[:20]),
    "a pickle": lambda file: file.write_bytes(b"\x80\x04K\x01."),
    "a nested header": _header(b"[" * 200_000 + b"]" * 200_000),
    "nested objects in the header": _header(b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
    "a header of 2^63 bytes": _header(b"{}", 2**63),
    "a header that is a list": _header(b"[]"),
    "a tensor that is a number": _header(b'{"embeddings": 5, "P.weight": 5, "table": 5}'),
    "a negative shape": _header(
        b'{"embeddings": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}' + bytes(8)
    ),
    "an endless shape": _header(
        b'{"embeddings": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 8]}}' + bytes(8)
    ),
}


@pytest.mark.parametrize("damage", WEIGHT_DAMAGE)
@pytest.mark.parametrize("name", ["mf config", "knn config", "sw config", "static config"])
def test_damaged_weights(tmp_path: Path, name: str, damage: str) -> None:
    kind = JSON_KINDS[name]
    kind.write(tmp_path)
    WEIGHT_DAMAGE[damage](tmp_path / WEIGHTS)
    refused(lambda: kind.load(tmp_path), tmp_path)


@pytest.mark.parametrize("value", [NAN, INF, 1e300])
@pytest.mark.parametrize("name", ["mf config", "knn config", "static config"])
def test_weights_that_are_no_numbers(tmp_path: Path, name: str, value: float) -> None:
    kind = JSON_KINDS[name]
    kind.write(tmp_path)
    spoil = _each(lambda array: array if array.dtype == np.int8 else np.full_like(array, value, dtype=np.float64))
    _with(spoil)(tmp_path / WEIGHTS)
    refused(lambda: kind.load(tmp_path), tmp_path)


@pytest.mark.parametrize("counts", [[2**62, 2**62, 2**63 - 1], [4, -1], [0, 3], [2**63 - 1, 2]])
def test_counts_of_battles_that_contradict_or_overflow(tmp_path: Path, counts: list[int]) -> None:
    _sw(tmp_path)
    _with(lambda t: t.update(counts=np.array(counts[: len(t["counts"])] or counts, np.int64)))(tmp_path / WEIGHTS)
    refused(lambda: load_router("sw_ranking", tmp_path, embedder=Two()), tmp_path)


RECORD_DAMAGE: dict[str, bytes] = {
    **{name: ANY_DAMAGE[name] for name in ("nested lists", "nested objects", "empty", "cut off", "null", "NULs")},
    "names that are integers": b'{"prompt": 5, "model_a": 1, "model_b": 2, "winner": 3, "scores": {"a": "x"}}\n',
    "NaN": b'{"prompt": NaN, "scores": {"a": NaN}, "winner": NaN}\n',
    "half a gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\xff\xab",
    "a parquet file of four bytes": b"PAR1",
}


@pytest.mark.parametrize("damage", [*RECORD_DAMAGE, "a folder"])
@pytest.mark.parametrize("read", [read_battles, read_outcomes, read_prompts])
def test_records(tmp_path: Path, read: Callable[[Path], Any], damage: str) -> None:
    file = tmp_path / "records.jsonl"
    if damage == "a folder":
        file.mkdir()
    else:
        file.write_bytes(RECORD_DAMAGE[damage])

    def consume() -> None:
        records = read(file)
        if not list(records):  # an empty file is refused by whoever needs a record
            raise DataError(f"{file} is empty")

    refused(consume, file)


@pytest.mark.parametrize(
    "line", [ANY_DAMAGE["nested lists"], b"5", b"[]", b"{}", b'{"key": [], "value": null}', b"\xff"]
)
@pytest.mark.parametrize("read", [Journal, read_journal])
def test_journals(tmp_path: Path, read: Callable[[Path], Any], line: bytes) -> None:
    file = tmp_path / "journal"
    file.write_bytes(line + b"\n")
    refused(lambda: read(file), file, error=DataError)


@pytest.mark.parametrize("read", [Journal, read_journal])
def test_a_folder_as_a_journal(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    refused(lambda: read(tmp_path), tmp_path, error=DataError)


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "''-1", "\uff1d1", "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("text", [*FORMULAS, "'hello'", "it's = 1", "1 + 1"])
def test_a_cell_is_no_formula_and_reads_back_as_it_was(tmp_path: Path, text: str) -> None:
    file = tmp_path / "battles.csv"
    battle = Battle(prompt=text, model_a=f"{text}a", model_b=f"{text}b", winner="tie", source=text)
    write_records(file, [battle])
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    assert not [cell for row in rows for cell in row if cell[:1] in {*"=+-@\t\r\n\uff1d"} - {""}]
    assert list(read_battles(file)) == [battle]
    assert list(read_prompts(file)) == [text]


def test_cells_of_other_files_are_read_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text("prompt,note\n'-1 is odd,'=x\n")
    assert list(read_prompts(file)) == ["'-1 is odd"]


def test_the_headers_that_are_written_are_known() -> None:
    assert {tuple(kind.model_fields) for kind in (Battle, Outcome, AnsweredPrompt)} == WRITTEN_HEADERS


CACHE_DAMAGE = {
    "NaN": "UPDATE embeddings SET vector = x'0000c07f0000c07f'",
    "infinite": "UPDATE embeddings SET vector = x'0000807f0000807f'",
    "text": "UPDATE embeddings SET vector = 'eight ch'",
    "an integer": "UPDATE embeddings SET vector = 12345678",
    "a real": "UPDATE embeddings SET vector = 1.5",
    "too short": "UPDATE embeddings SET vector = x'00'",
    "empty": "UPDATE embeddings SET vector = x''",
    "too long": "UPDATE embeddings SET vector = zeroblob(12)",
    "another dimension": "UPDATE embeddings SET dimension = 3, vector = zeroblob(12)",
    "no dimension": "UPDATE embeddings SET dimension = 0, vector = x''",
    "a dimension of text": "UPDATE embeddings SET dimension = 'two'",
    "a negative dimension": "UPDATE embeddings SET dimension = -2",
    "no table": "DROP TABLE embeddings",
}


@pytest.mark.parametrize("damage", CACHE_DAMAGE)
@pytest.mark.parametrize("dimension", [2, None])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_damaged_cached_embedding_is_asked_for_anew(
    tmp_path: Path, damage: str, dimension: int | None, *, asynchronous: bool
) -> None:
    path = tmp_path / "c.db"
    inner = Two()
    inner.dimension = dimension
    cached = CachedEmbedder(inner, path)
    want = cached.embed(["a", "bb"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(CACHE_DAMAGE[damage])
    texts = ["a", "bb"]
    got = asyncio.run(cached.aembed(texts)) if asynchronous else cached.embed(texts)
    np.testing.assert_array_equal(got, want)
    assert inner.calls == [texts, texts]


@pytest.mark.parametrize("keep", [0, 10, 100, 5000])
def test_a_cache_file_that_was_cut_off_ends_no_call(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "c.db"
    cached = CachedEmbedder(Two(), path)
    want = cached.embed(["a"])
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    np.testing.assert_array_equal(cached.embed(["a"]), want)


def test_a_locked_cache_ends_no_call_and_its_wait_is_short(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    cached = CachedEmbedder(Two(), path)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert cached.embed(["a"]).shape == (1, 2)
        with closing(cached._connect()) as connection:
            (wait,) = connection.execute("PRAGMA busy_timeout").fetchone()
        holder.execute("ROLLBACK")
    assert 0 < wait < 1000
