"""Routers whose battles or outcomes are in a vector store: the same win rates, one call a batch, and what can fail."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import Calibration, ConfigurationError, Router, RouterError, RoutingPolicy
from routellm_core.breaker import Breaker
from routellm_core.errors import CheckpointError, DataError
from routellm_core.routers import KNNRouter, SimilarityWeightedRouter
from routellm_core.routers.stores import Neighbor, embedded, rows_of, write_rows
from tests.support.battles import DIMENSION, ExactStore, WordsEmbedder, battles, outcomes, prompts, triples

OPTIONS: dict[str, Any] = {"strong": "large", "weak": "small", "num_tiers": 3, "base": 1000.0}
PAIR: dict[str, Any] = {"strong": "large", "weak": "small"}
# the zero vector is similar to no battle
PROMPTS = [*prompts(40, seed=99), "no numbers"]


def of_store(store: Any, **options: Any) -> SimilarityWeightedRouter:
    return SimilarityWeightedRouter.from_store(store, **{**OPTIONS, "nearest": 50, **options})


def in_memory(records: Any, **options: Any) -> SimilarityWeightedRouter:
    embedder = WordsEmbedder()
    return SimilarityWeightedRouter(
        triples(records),
        embedder.embed([b.prompt for b in records]),
        embedder=embedder,
        **{**OPTIONS, "nearest": 50, **options},
    )


@pytest.mark.parametrize("same_tier", ["ignore", "routellm"])
@pytest.mark.parametrize("nearest", [1, 50, 10_000])
def test_win_rates_are_those_of_the_battles_in_memory(nearest: int, same_tier: Any) -> None:
    records = battles()
    options = {"nearest": nearest, "same_tier": same_tier, "num_tiers": 2}
    stored, plain = of_store(ExactStore(records), **options), in_memory(records, **options)
    assert (stored.tiers, stored.ratings) == (plain.tiers, plain.ratings)
    assert stored.win_rates(PROMPTS) == pytest.approx(plain.win_rates(PROMPTS), abs=1e-6)


def test_battles_that_tie_at_place_k_all_count() -> None:
    # 12 battles about each prompt have the same vector, so place 50 lies within such a group
    records = [b.model_copy(update={"prompt": prompt}) for prompt in prompts(30, 5) for b in battles(12, len(prompt))]
    stored, plain = of_store(ExactStore(records)), in_memory(records)
    assert stored.win_rates(PROMPTS) == pytest.approx(plain.win_rates(PROMPTS), abs=1e-6)
    without = plain.win_rates(PROMPTS) - in_memory(records, nearest=60).win_rates(PROMPTS)
    assert np.abs(without).max() < 1e-9  # the 50th battle is one of the fifth group, which counts whole


def test_a_batch_is_one_call_and_async_calls_the_async_method() -> None:
    store = ExactStore(battles())
    router = of_store(store)
    rates = router.win_rates(PROMPTS)
    assert [call[:2] for call in store.calls] == [("search", 40)]  # not the zero vector
    assert (asyncio.run(router.awin_rates(PROMPTS)) == rates).all()
    assert [call[0] for call in store.calls] == ["search", "asearch"]
    RoutingPolicy(router, threshold=0.5).decide_batch(PROMPTS)
    assert len(store.calls) == 3
    router.win_rates(["no numbers", ""])
    assert len(store.calls) == 3


def test_a_knn_router_votes_by_the_nearest_outcomes() -> None:
    records = outcomes()
    router = KNNRouter.from_store(ExactStore(records), **PAIR, neighbors=20)
    vectors = embedded(WordsEmbedder(), list(rows_of(records)))
    voting = [r.scores.keys() >= {"large", "small"} and r.weight > 0 for r in records]
    labels = np.array([0.5 + np.sign(r.scores["large"] - r.scores.get("small", np.nan)) / 2 for r in records])
    weights = np.array([r.weight for r in records])
    prior = (weights[voting] @ labels[voting]) / weights[voting].sum()
    wanted = []
    for row in WordsEmbedder().embed(PROMPTS[:-1]):
        cosines = vectors @ (row / np.linalg.norm(row))
        near = [i for i in np.argsort(-cosines)[:20] if voting[i]]
        votes = np.clip(cosines[near], 0, None) * weights[near]
        wanted.append((votes @ labels[near] + prior) / (votes.sum() + 1))
    assert router.win_rates(PROMPTS) == pytest.approx([*wanted, prior], abs=1e-6)
    assert asyncio.run(router.awin_rates(PROMPTS)) == pytest.approx([*wanted, prior], abs=1e-6)


def test_the_tie_margin_and_the_pair_are_those_of_the_router() -> None:
    store = ExactStore(outcomes())
    base = KNNRouter.from_store(store, **PAIR)
    ties = KNNRouter.from_store(store, **PAIR, tie_margin=1.0)
    assert (ties.win_rates(PROMPTS) == 0.5).all()
    other = KNNRouter.from_store(store, strong="large", weak="other")
    assert len({base.fingerprint, ties.fingerprint, other.fingerprint}) == 3


def test_what_is_nearest_comes_from_the_store() -> None:
    records = battles()
    stored, plain = of_store(ExactStore(records)), in_memory(records)
    near, wanted = stored.nearest_battles(PROMPTS[0], 5), plain.nearest_battles(PROMPTS[0], 5)
    assert [b.similarity for b in near] == pytest.approx([b.similarity for b in wanted], abs=1e-6)
    assert [(b.first_tier, b.second_tier, b.outcome) for b in near] == [
        (b.first_tier, b.second_tier, b.outcome) for b in wanted
    ]
    shown = KNNRouter.from_store(ExactStore(outcomes()), **PAIR).nearest_outcomes(PROMPTS[0], 3)
    assert [s.similarity for s in shown] == sorted((s.similarity for s in shown), reverse=True)
    assert all(
        s.speaks_for == ["weak", "neither", "strong"][int(np.sign(s.strong_score - s.weak_score)) + 1] for s in shown
    )


@pytest.mark.parametrize("build", [of_store, lambda store: KNNRouter.from_store(store, **PAIR)])
def test_a_collection_that_grows_changes_the_fingerprint_and_the_calibration_says_so(build: Any) -> None:
    make = battles if build is of_store else outcomes
    store = ExactStore(make())
    router = build(store)
    calibration = Calibration.fit(router, PROMPTS)
    RoutingPolicy(router, strong_fraction=0.5, calibration=calibration)
    store.grow(make(1, seed=8))
    for grown in (router, build(store)):
        with pytest.raises(ConfigurationError, match="fingerprint"):
            RoutingPolicy(grown, strong_fraction=0.5, calibration=calibration)


@pytest.mark.parametrize("build", [of_store, lambda store: KNNRouter.from_store(store, **PAIR)])
def test_a_saved_router_finds_its_store_again(build: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = battles if build is of_store else outcomes
    router = build(ExactStore(make()))
    router.calibration = Calibration.fit(router, PROMPTS)
    router.save_pretrained(tmp_path)
    again = Router.from_pretrained(tmp_path, store=ExactStore(make(), known=False), embedder=WordsEmbedder())
    assert again.fingerprint == router.fingerprint
    assert (again.win_rates(PROMPTS) == router.win_rates(PROMPTS)).all()
    assert again.calibration is not None
    assert not caplog.records
    grown = Router.from_pretrained(tmp_path, store=ExactStore(make(301)), embedder=WordsEmbedder())
    assert grown.calibration is None
    assert "another state of the store" in caplog.text
    with pytest.raises(ConfigurationError, match="pass store="):
        Router.from_pretrained(tmp_path)


def test_a_store_is_refused_for_a_router_that_has_its_own_file(tmp_path: Path) -> None:
    in_memory(battles()).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="without store="):
        SimilarityWeightedRouter.from_pretrained(tmp_path, store=ExactStore(battles()), embedder=WordsEmbedder())


def test_a_backend_is_refused_for_a_router_whose_battles_are_in_a_store(tmp_path: Path) -> None:
    of_store(ExactStore(battles())).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"backend='torch'.*vector store"):
        SimilarityWeightedRouter.from_pretrained(tmp_path, store=ExactStore(battles()), backend="torch")


def test_damaged_counts_of_a_saved_router_are_named(tmp_path: Path) -> None:
    of_store(ExactStore(battles())).save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"counts": [', '"counts": [-1,'))
    with pytest.raises(CheckpointError, match="counts"):
        Router.from_pretrained(tmp_path, store=ExactStore(battles()), embedder=WordsEmbedder())


def test_battles_and_embedder_can_be_passed_where_the_store_does_not_know_them() -> None:
    records = battles()
    store = ExactStore(records, known=False)
    with pytest.raises(ConfigurationError, match="pass battles="):
        of_store(store, embedder=WordsEmbedder())
    with pytest.raises(ConfigurationError, match="pass embedder="):
        of_store(store, battles=triples(records))
    of_tuples = of_store(store, battles=triples(records), embedder=WordsEmbedder())
    of_records = of_store(store, battles=records, embedder=WordsEmbedder())
    assert of_tuples.fingerprint == of_records.fingerprint
    with pytest.raises(ConfigurationError, match="pass outcomes="):
        KNNRouter.from_store(ExactStore(outcomes(), known=False), **PAIR, embedder=WordsEmbedder())


def test_battles_of_a_model_that_is_new_are_left_out_until_the_router_is_built_again() -> None:
    records = battles()
    store = ExactStore(records)
    router = of_store(store, nearest=5)
    before = router.win_rates(PROMPTS)
    unknown = [b.model_copy(update={"model_a": "new"}) for b in battles(3, seed=4) if b.model_b != "new"]
    store.grow(unknown)
    assert np.abs(router.win_rates(PROMPTS) - before).max() < 0.5
    assert "new" in of_store(store).tiers
    store.search = lambda vectors, k: (  # type: ignore[method-assign]
        [[Neighbor(1.0, {"model_a": "new", "model_b": "x", "winner": "tie"})]] * len(vectors)
    )
    with pytest.raises(RouterError, match="build it again"):
        router.win_rates(PROMPTS[:1])


GOOD = {"model_a": "large", "model_b": "small", "winner": "model_a"}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "a NoneType for 1 vectors"),
        ([], "0 lists for 1 vectors"),
        ([[], []], "2 lists for 1 vectors"),
        ([[0.5]], "pairs"),
        ([[(0.5, GOOD, 1)]], "pairs"),
        ([[]], "empty"),
        ([[Neighbor(float("nan"), GOOD)]], "cosine"),
        ([[Neighbor(1.5, GOOD)]], "cosine"),
        ([[Neighbor("near", GOOD)]], "cosine"),  # type: ignore[arg-type]
        ([[Neighbor(0.5, {**GOOD, "winner": None})]], "not a battle"),
        ([[Neighbor(0.5, {**GOOD, "winner": "model_c"})]], "winner"),
        ([[Neighbor(0.5, {"scores": {"large": 1.0}})]], "KNNRouter"),
    ],
)
def test_what_a_store_returns_is_checked_and_no_win_rate_is_made_up(found: Any, message: str) -> None:
    store = ExactStore(battles())
    router = of_store(store)
    store.search = lambda vectors, k: found  # type: ignore[method-assign]
    with pytest.raises(RouterError, match=message):
        router.win_rates(PROMPTS[:1])
    decision = RoutingPolicy(router, threshold=0.1, on_error="weak").decide(PROMPTS[0])
    assert (decision.model, decision.reason, decision.win_rate) == ("weak", "error", None)


def test_a_malformed_outcome_is_an_error_of_the_router() -> None:
    for record in (GOOD, {"scores": "no json"}, {"scores": {"large": "x"}}, {"scores": {}, "weight": -1}):
        store = ExactStore(outcomes())
        router = KNNRouter.from_store(store, **PAIR)
        store.search = lambda vectors, k, record=record: [[Neighbor(0.5, record)]]  # type: ignore[method-assign, misc]
        with pytest.raises(RouterError, match="stored"):
            router.win_rates(PROMPTS[:1])


class Down(ExactStore):
    """A store that can be killed: then it refuses, or never answers."""

    def __init__(self) -> None:
        super().__init__(battles())
        self.hangs = self.refuses = False
        self.refused = 0
        self.released = threading.Event()

    def _found(self, vectors: Any, k: int) -> list[list[Neighbor]]:
        if self.refuses:
            self.refused += 1
            raise ConnectionRefusedError("secret address")
        return super()._found(vectors, k)

    def search(self, vectors: Any, k: int) -> list[list[Neighbor]]:
        if self.hangs:
            self.released.wait()
        return super().search(vectors, k)

    async def asearch(self, vectors: Any, k: int) -> list[list[Neighbor]]:
        if self.hangs:
            await asyncio.Event().wait()
        return await super().asearch(vectors, k)


def test_a_store_that_refuses_leaves_the_decision_to_on_error() -> None:
    store = Down()
    policy = RoutingPolicy(of_store(store), threshold=0.5, on_error="strong")
    assert policy.decide(PROMPTS[0]).reason == "win_rate"
    store.refuses = True
    decided = [*policy.decide_batch(PROMPTS[1:9]), asyncio.run(policy.adecide(PROMPTS[10]))]
    assert {(d.model, d.reason, d.win_rate) for d in decided} == {("strong", "error", None)}
    with pytest.raises(RouterError, match="Down failed") as failure:
        RoutingPolicy(policy.router, threshold=0.5, on_error="raise").decide(PROMPTS[11])
    assert "secret" not in str(failure.value)


def test_a_store_that_keeps_refusing_is_left_alone_for_a_while() -> None:
    store, now = Down(), [0.0]
    router = of_store(store)
    assert router._search is not None
    router._search.breaker = Breaker(failures=5, wait=1.0, longest=30.0, clock=lambda: now[0])
    policy = RoutingPolicy(router, threshold=0.5, on_error="weak")
    store.refuses = True
    decided = [policy.decide(prompt) for prompt in PROMPTS[:20]]
    decided += [asyncio.run(policy.adecide(prompt)) for prompt in PROMPTS[20:30]]
    assert {(d.model, d.reason) for d in decided} == {("weak", "error")}
    assert store.refused == 5
    store.refuses = False
    assert policy.decide(PROMPTS[30]).reason == "error"
    now[0] = 1.1
    assert policy.decide(PROMPTS[31]).reason == "win_rate"
    assert asyncio.run(policy.adecide(PROMPTS[32])).reason == "win_rate"


def test_a_policy_is_changed_while_its_store_is_down(caplog: pytest.LogCaptureFixture) -> None:
    class Unreachable(Down):
        @property
        def fingerprint(self) -> str:
            if self.refuses:
                raise ConnectionRefusedError("secret address")
            return super().fingerprint

    store = Unreachable()
    router = of_store(store)
    calibration = Calibration.from_win_rates(np.linspace(0, 1, 101), router=router.name, fingerprint=router.fingerprint)
    policy = RoutingPolicy(router, strong_fraction=0.5, calibration=calibration)
    known = policy.router_fingerprint
    store.refuses = True
    policy.replace(strong_fraction=0.1)
    policy.replace(calibration=calibration, strong_fraction=0.2)
    assert (policy.strong_fraction, policy.router_fingerprint) == (0.2, known)
    assert "secret" not in caplog.text
    with pytest.raises(ConfigurationError, match="used with router"):
        policy.replace(calibration=Calibration.from_win_rates([0.5], router="knn", fingerprint="another"))
    with pytest.raises(ConnectionRefusedError):  # nothing is known of a router that was never asked
        policy.replace(router=of_store(store))


def test_a_store_that_hangs_misses_the_deadline_and_then_counts_as_down() -> None:
    store = Down()
    router = of_store(store)
    policy = RoutingPolicy(router, threshold=0.5, on_error="weak", deadline=0.05)
    store.hangs = True
    try:
        decided = [policy.decide(prompt) for prompt in PROMPTS[:4]]
        assert {(d.model, d.reason, d.win_rate) for d in decided} == {("weak", "deadline", None)}
        decided = [asyncio.run(policy.adecide(prompt)) for prompt in PROMPTS[4:8]]
        assert {(d.model, d.reason) for d in decided} == {("weak", "deadline")}
    finally:
        store.released.set()


def test_the_store_and_its_settings_are_checked() -> None:
    store = ExactStore(battles())
    for bad in (object(), lambda vectors, k: []):
        with pytest.raises(ConfigurationError, match="PreferenceStore"):
            of_store(bad, battles=triples(battles()), embedder=WordsEmbedder())
    for nearest in (0, None, True, 2.5):
        with pytest.raises(ConfigurationError, match="nearest="):
            of_store(store, nearest=nearest)
    with pytest.raises(ConfigurationError, match="weak='nobody'"):
        of_store(store, weak="nobody")
    with pytest.raises(DataError, match="use KNNRouter"):
        of_store(ExactStore(outcomes()))
    with pytest.raises(DataError, match="SimilarityWeightedRouter"):
        KNNRouter.from_store(store, **PAIR)
    with pytest.raises(ConfigurationError, match="no stored outcome has scores of both"):
        KNNRouter.from_store(ExactStore(outcomes()), strong="large", weak="nobody")
    store.dimension = DIMENSION + 1
    with pytest.raises(ConfigurationError, match="dimensions"):
        of_store(store)


def test_rows_are_written_once_whatever_was_interrupted() -> None:
    records = [*battles(25), *battles(25)]  # each battle twice: both votes count
    written: dict[str, Any] = {}
    asked: list[int] = []

    def present(ids: list[str]) -> set[str]:
        asked.append(len(ids))
        return written.keys() & set(ids)

    def add(rows: Any) -> None:
        if len(written) == 20:
            raise ConnectionError
        written.update((row.id, row) for row in rows)

    with pytest.raises(ConnectionError):
        write_rows(rows_of(records), present=present, add=add, batch=10)
    assert len(written) == 20
    for row in list(rows_of(records))[20:23]:
        written[row.id] = row
    done: list[int] = []
    report = write_rows(rows_of(records), present=present, add=add, batch=10, progress=lambda n, _: done.append(n))
    assert (report.written, report.present) == (27, 23)
    assert len(written) == 50
    assert max(asked) == 10
    assert done == [10, 20, 30, 40, 50]
    with pytest.raises(DataError, match="two collections"):
        list(rows_of([*battles(1), *outcomes(1)]))
    with pytest.raises(DataError, match="zero vector"):
        embedded(WordsEmbedder(), list(rows_of([battles(1)[0].model_copy(update={"prompt": "x"})])))
