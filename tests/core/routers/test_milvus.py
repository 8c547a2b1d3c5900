"""MilvusBattles in a file of Milvus Lite: writing, opening, searching, and every way in which that can fail."""

from __future__ import annotations

import asyncio
import copy
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import ConfigurationError, MissingExtraError, Router, RouterError, RoutingPolicy, cli
from routellm_core.data import write_records
from routellm_core.embedders import bundled_embedder
from routellm_core.errors import DataError
from routellm_core.routers import KNNRouter, SimilarityWeightedRouter, milvus
from routellm_core.stores import MilvusBattles, store_records
from tests.support.battles import DIMENSION, ExactStore, WordsEmbedder, battles, outcomes, prompts, triples

pymilvus = pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

PROMPTS = [*prompts(12, seed=99), "no numbers"]
OPTIONS: dict[str, Any] = {"strong": "large", "weak": "small", "num_tiers": 3, "base": 1000.0, "nearest": 50}
RECORDS = battles()


def release(uri: Path) -> None:
    from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]

    server_manager_instance.release_server(str(uri))


def command(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(argv))
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file with two collections, to copy."""
    uri = tmp_path_factory.mktemp("milvus") / "battles.db"
    store_records(RECORDS, uri, embedder=WordsEmbedder())
    store_records(outcomes(), uri, embedder=WordsEmbedder(), collection="outcomes")
    release(uri)
    return uri


@pytest.fixture
def uri(written: Path, tmp_path: Path) -> Iterator[Path]:
    """A file of its own for a test, closed afterwards."""
    copy = tmp_path / "battles.db"
    shutil.copytree(written, copy)
    yield copy
    release(copy)


def opened(uri: Path, **options: Any) -> MilvusBattles:
    return MilvusBattles(uri, **{"embedder": WordsEmbedder(), **options})


def test_win_rates_are_those_of_the_battles_in_memory(uri: Path) -> None:
    store = opened(uri)
    assert (len(store), store.dimension) == (400, DIMENSION)
    router = SimilarityWeightedRouter.from_store(store, **OPTIONS)
    embedder = WordsEmbedder()
    plain = SimilarityWeightedRouter(
        triples(RECORDS), embedder.embed([b.prompt for b in RECORDS]), embedder=embedder, **OPTIONS
    )
    rates = router.win_rates(PROMPTS)
    assert rates == pytest.approx(plain.win_rates(PROMPTS), abs=1e-6)
    assert asyncio.run(router.awin_rates(PROMPTS)) == pytest.approx(rates, abs=1e-6)
    assert asyncio.run(router.awin_rates(PROMPTS)) == pytest.approx(rates, abs=1e-6)  # on another event loop
    outcomes_of: dict[str, Any] = {"strong": "large", "weak": "small", "neighbors": 20}
    voted = KNNRouter.from_store(opened(uri, collection="outcomes"), **outcomes_of).win_rates(PROMPTS)
    assert voted == pytest.approx(
        KNNRouter.from_store(ExactStore(outcomes()), **outcomes_of).win_rates(PROMPTS), abs=1e-6
    )


def test_a_server_is_used_in_the_same_way(uri: Path) -> None:
    from milvus_lite.server_manager import server_manager_instance

    file = opened(uri)
    server = opened(server_manager_instance.start_and_get_uri(str(uri)))
    assert server.uri.startswith("http://127.0.0.1:")
    assert server.fingerprint == file.fingerprint
    assert Counter(map(str, server.records())) == Counter(map(str, file.records()))
    vectors = WordsEmbedder().embed(PROMPTS[:3])
    assert server.search(vectors, 5) == file.search(vectors, 5)
    assert asyncio.run(server.asearch(vectors, 5)) == file.search(vectors, 5)


def test_a_batch_is_one_search_of_the_asynchronous_client_too(uri: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    for client in (pymilvus.MilvusClient, pymilvus.AsyncMilvusClient):

        def counted(self: Any, *args: Any, search: Any = client.search, **kwargs: Any) -> Any:
            calls.append((type(self).__name__, len(kwargs["data"])))
            return search(self, *args, **kwargs)

        monkeypatch.setattr(client, "search", counted)
    router = SimilarityWeightedRouter.from_store(opened(uri), **OPTIONS)
    calls.clear()  # opening has searched a stored vector
    router.win_rates(PROMPTS)
    asyncio.run(router.awin_rates(PROMPTS))
    assert calls == [("MilvusClient", 12), ("AsyncMilvusClient", 12)]


def test_writing_goes_on_where_it_was_interrupted(uri: Path) -> None:
    class Counting(WordsEmbedder):
        texts = 0

        def embed(self, texts: Any) -> Any:
            self.texts += len(texts)
            return super().embed(texts)

        fingerprint = "the same"

    more = [*RECORDS, *battles(30, seed=6)]
    embedder = Counting()
    target: dict[str, Any] = {"collection": "again", "batch": 100}
    with pytest.raises(ZeroDivisionError):
        store_records(
            (1 / 0 if i == 250 else record for i, record in enumerate(more)),  # type: ignore[misc]
            uri,
            embedder=embedder,
            **target,
        )
    assert embedder.texts == 200
    done: list[tuple[int, int]] = []
    report = store_records(more, uri, embedder=embedder, **target, progress=lambda *at: done.append(at))
    assert (report.written, report.present) == (230, 200)
    assert embedder.texts == 430
    assert done[-1] == (430, 430)
    assert store_records(more, uri, embedder=embedder, **target).written == 0
    assert len(opened(uri, collection="again")) == 430


def test_a_collection_that_grows_or_changes_has_another_fingerprint(uri: Path) -> None:
    store = opened(uri)
    before = store.fingerprint
    assert opened(uri).fingerprint == before
    store_records(battles(1, seed=6), uri, embedder=WordsEmbedder())
    assert store.fingerprint != before
    grown = opened(uri)
    assert grown.fingerprint not in (before, store.fingerprint)
    client = pymilvus.MilvusClient(str(uri))
    row = client.query("battles", filter="", limit=1, output_fields=["*"])[0]
    client.upsert("battles", [{**row, "winner": "tie" if row["winner"] != "tie" else "model_a"}])
    assert len(opened(uri)) == len(grown)
    assert opened(uri).fingerprint != grown.fingerprint


def test_the_embedder_is_noted_in_the_collection_and_no_prompt_is_stored(tmp_path: Path) -> None:
    records = [b.model_copy(update={"prompt": f"a secret question, number {i}"}) for i, b in enumerate(RECORDS[:60])]
    uri = tmp_path / "words.db"
    store_records(records, uri, embedder=bundled_embedder())
    router = SimilarityWeightedRouter.from_store(MilvusBattles(uri), **OPTIONS)
    router.save_pretrained(tmp_path / "saved")
    assert "secret" not in (tmp_path / "saved" / "config.json").read_text()
    again = Router.from_pretrained(tmp_path / "saved")
    assert (again.win_rates(["a question"]) == router.win_rates(["a question"])).all()
    with pytest.raises(ConfigurationError, match="vectors of another embedder"):
        store_records(records, uri, embedder=WordsEmbedder())
    release(uri)
    assert not any(b"secret" in file.read_bytes() for file in uri.rglob("*") if file.is_file())


def test_the_command_writes_what_the_router_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, uri = tmp_path / "battles.jsonl", tmp_path / "cli.db"
    write_records(data, [b.model_copy(update={"prompt": f"question {i} of many"}) for i, b in enumerate(RECORDS[:50])])
    to = ["data", "store", "--data", str(data), "--to", f"milvus:{uri}", "--batch", "20"]
    code, out, _ = command(capsys, *to, "--json")
    assert (code, json.loads(out)["written"]) == (0, 50)
    assert "0 rows written, 50 were there" in command(capsys, *to)[1]
    assert len(MilvusBattles(uri)) == 50
    release(uri)
    code, _, err = command(capsys, "data", "store", "--data", str(data), "--to", "elsewhere")
    assert code == 2
    assert "milvus:FILE.db" in err


def test_a_killed_store_leaves_the_decision_to_on_error(uri: Path) -> None:
    store = opened(uri)
    router = SimilarityWeightedRouter.from_store(store, **OPTIONS)
    policy = RoutingPolicy(router, threshold=0.5, on_error="weak")
    assert policy.decide(PROMPTS[0]).reason == "win_rate"
    release(uri)
    store.timeout = 0.5  # pymilvus would ask the store that is gone for as long as it may
    decided = [policy.decide(PROMPTS[1]), asyncio.run(policy.adecide(PROMPTS[2]))]
    assert {(d.model, d.win_rate) for d in decided} == {("weak", None)}
    assert {d.reason for d in decided} <= {"error", "deadline"}
    with pytest.raises(RouterError, match="MilvusBattles"):
        RoutingPolicy(router, threshold=0.5, on_error="raise").decide(PROMPTS[3])


def test_only_one_process_at_a_time(uri: Path) -> None:
    opened(uri)
    code = f"from routellm_core.stores import MilvusBattles\nMilvusBattles({str(uri)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "ConfigurationError" in other.stderr
    assert "another process" in other.stderr


def collection(uri: Path, name: str, *, index: str = "FLAT", metric: str = "COSINE", **fields: Any) -> None:
    client = pymilvus.MilvusClient(str(uri))
    schema = client.create_schema(auto_id=True, enable_dynamic_field=False)
    schema.add_field("pk", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field("meaning", pymilvus.DataType.FLOAT_VECTOR, dim=2)
    for field in fields:
        schema.add_field(field, pymilvus.DataType.VARCHAR, max_length=100)
    params = client.prepare_index_params()
    params.add_index("meaning", index_type=index, metric_type=metric)
    client.create_collection(name, schema=schema, index_params=params)
    if fields:
        rows = [[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]]
        client.insert(name, [{"meaning": row, **fields} for row in rows])


BATTLE = {"model_a": "large", "model_b": "small", "winner": "model_a"}


def test_a_collection_of_your_own_needs_only_the_fields_and_the_metric(uri: Path) -> None:
    collection(uri, "mine", **BATTLE)
    store = MilvusBattles(uri, collection="mine")
    assert store.dimension == 2
    assert list(store.records()) == [BATTLE] * 3
    (found,) = store.search(np.array([[0.0, 1.0]], "f4"), 2)
    assert [n.similarity for n in found] == pytest.approx([1.0, 0.8])
    assert dict(found[0].record) == BATTLE
    with pytest.raises(ConfigurationError, match="not written by"):
        store_records(battles(1), uri, embedder=WordsEmbedder(), collection="mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "L2", **BATTLE}, "metric_type='L2'"),
        ({"metric": "IP", **BATTLE}, "metric_type='IP'"),
        ({"index": "AUTOINDEX", **BATTLE}, "create one with index_type='FLAT'"),
        ({"text": "x"}, "expected model_a"),
    ],
)
def test_an_unsuitable_collection_is_refused(uri: Path, options: Any, message: str) -> None:
    collection(uri, "mine", **options)
    with pytest.raises(ConfigurationError, match=message):
        MilvusBattles(uri, collection="mine")


def test_a_metric_that_is_not_what_it_says_is_noticed(uri: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pymilvus.MilvusClient.search

    def distances(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = real(self, *args, **kwargs)
        return [[{**hit, "distance": 1.0 - hit["distance"]} for hit in hits] for hits in found]

    monkeypatch.setattr(pymilvus.MilvusClient, "search", distances)
    with pytest.raises(ConfigurationError, match="of a stored vector with itself is"):
        opened(uri)


def test_what_cannot_be_opened_is_named(uri: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in (
        ({"uri": tmp_path / "nothing.db"}, "no such file"),
        ({"uri": tmp_path}, r"ends in \.db"),
        ({"uri": uri, "collection": "others"}, "it has: battles, outcomes"),
        ({"uri": uri, "timeout": None}, "timeout"),
        ({"uri": uri, "timeout": 0}, "timeout=0"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            MilvusBattles(**options)
    assert not (tmp_path / "nothing.db").exists()
    collection(uri, "empty")
    with pytest.raises(ConfigurationError, match="expected model_a"):
        MilvusBattles(uri, collection="empty")
    with pytest.raises(DataError, match="two collections"):
        store_records(outcomes(3), uri, embedder=WordsEmbedder())
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtraError, match="milvus"):
        MilvusBattles(uri)


@pytest.mark.parametrize(
    "uri", ["http://root:geheim@127.0.0.1:1", "https://root:ge/heim@127.0.0.1:1", "root:geheim@127.0.0.1:1"]
)
def test_a_password_in_an_address_is_refused_and_not_shown(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    for make in (
        lambda: MilvusBattles(uri),
        lambda: MilvusBattles.from_config({"uri": uri, "collection": "battles"}),
        lambda: store_records(RECORDS[:1], uri, embedder=WordsEmbedder()),
    ):
        with pytest.raises(ConfigurationError, match="pass token='user:password'") as caught:
            make()
        assert "heim" not in f"{caught.value!r} {caught.value.__cause__!r}"
    code, out, err = command(capsys, "data", "store", "--data", "none.jsonl", "--to", uri)
    assert code != 0
    assert "expected milvus:" in err
    assert "heim" not in out + err


def test_a_file_may_have_an_at_sign_in_its_name(uri: Path) -> None:
    file = uri.with_name("me@home.db")
    shutil.copytree(uri, file)
    assert len(opened(file)) == 400
    release(file)


def test_a_saved_router_keeps_the_timeout_and_search_parameters_of_its_store(uri: Path, tmp_path: Path) -> None:
    store = opened(uri, collection="outcomes", timeout=17.0, search_params={"ef": 64})
    KNNRouter.from_store(store, strong="large", weak="small").save_pretrained(tmp_path / "router")
    saved = json.loads((tmp_path / "router" / "config.json").read_text())["store"]
    store.close()
    again = MilvusBattles.from_config(saved)
    assert (again.timeout, again.search_params, again.collection) == (17.0, {"ef": 64}, "outcomes")
    assert again.config() == store.config()


def test_an_unpickled_store_connects_beside_the_event_loop(uri: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = pickle.loads(pickle.dumps(opened(uri)))
    connecting: list[int] = []
    connect = milvus.connect

    def noted(*args: Any) -> Any:
        connecting.append(threading.get_ident())
        return connect(*args)

    monkeypatch.setattr(milvus, "connect", noted)
    vectors = WordsEmbedder().embed(PROMPTS[:1])
    assert asyncio.run(again.asearch(vectors, 3)) == again.search(vectors, 3)
    assert len(connecting) == 1
    assert threading.get_ident() not in connecting


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # from Python 3.12 on
def test_a_forked_process_connects_anew(uri: Path) -> None:
    router = SimilarityWeightedRouter.from_store(opened(uri), **OPTIONS)
    wanted = router.win_rates(PROMPTS[:2]).tolist()
    fork = multiprocessing.get_context("fork")
    results: Any = fork.SimpleQueue()
    child = fork.Process(target=lambda: results.put(router.win_rates(PROMPTS[:2]).tolist()))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert results.get() == pytest.approx(wanted, abs=1e-6)
    assert router.win_rates(PROMPTS[:2]).tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_pickled_store_connects_anew_and_leaves_its_token_behind(uri: Path) -> None:
    store = opened(uri, token="root:secret")
    state = pickle.dumps(store)
    assert b"secret" not in state
    again = pickle.loads(state)
    vector = np.eye(1, DIMENSION, dtype=np.float32)
    assert again.search(vector, 3) == store.search(vector, 3)
    assert again.fingerprint == store.fingerprint
    assert copy.deepcopy(store) is store


def test_an_approximate_index_takes_its_parameters_for_a_search(uri: Path) -> None:
    store_records(RECORDS, uri, embedder=WordsEmbedder(), collection="cells", index="IVF_FLAT")
    release(uri)  # rows that have just been written are searched without the index
    vectors = WordsEmbedder().embed(PROMPTS[:-1])
    few, many = (
        opened(uri, collection="cells", search_params={"nprobe": nprobe}).search(vectors, 50) for nprobe in (2, 400)
    )
    wanted = opened(uri).search(vectors, 50)
    assert [[n.similarity for n in row] for row in many] == pytest.approx(
        np.array([[n.similarity for n in row] for row in wanted]), abs=1e-6
    )
    assert few != many


def test_closing_is_followed_by_a_new_connection(uri: Path) -> None:
    store = opened(uri)
    vector = np.eye(1, DIMENSION, dtype=np.float32)
    before = store.search(vector, 3)
    store.close()
    store.close()
    assert store.search(vector, 3) == before
