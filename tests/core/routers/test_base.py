"""load_router, the base's checks, random and matrix factorization."""

import asyncio
import json
import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from routellm_core import (
    Calibration,
    CheckpointError,
    CheckpointNotFoundError,
    ConfigurationError,
    PromptError,
    Router,
    RouterError,
    load_router,
)
from routellm_core.routers import MatrixFactorizationRouter, RandomRouter
from tests.support.shared import GOLDEN, golden_json, needs_golden

STRANGE = [
    "", " ", "a", "hi", "\x00", "\x00 nul \x00", "\ud800 lone \udfff", "שלום עולם", "​‍﻿", "日本語の質問です",
    "Докажи, что простых чисел бесконечно много.", "🙂" * 50, "\r\n\t", "<|endoftext|> [[1]]", "x" * 1_000_000,
    "word " * 200_000,
]  # fmt: skip


class HashEmbedder:
    """A deterministic vector per text; counts its calls."""

    def __init__(self, dimension=8):
        self.dimension = dimension
        self.calls = 0

    def embed(self, texts):
        self.calls += 1
        rows = [np.random.default_rng(abs(hash(t)) % 2**32).standard_normal(self.dimension) for t in texts]
        return np.array(rows, dtype=np.float32)

    async def aembed(self, texts):
        return self.embed(texts)


def small_mf(**changes):
    rng = np.random.default_rng(0)
    arguments = {
        "model_vectors": rng.standard_normal((3, 4)).astype(np.float32),
        "projection": rng.standard_normal((4, 8)).astype(np.float32),
        "output": rng.standard_normal(4).astype(np.float32),
        "models": ["a", "b", "c"],
        "strong": "a",
        "weak": "c",
        "embedder": HashEmbedder(),
    }
    return MatrixFactorizationRouter(**{**arguments, **changes})


@pytest.fixture(params=["random", "bundled", "mf"])
def router(request):
    return {"random": lambda: load_router("random", seed=3), "bundled": load_router, "mf": small_mf}[request.param]()


def test_every_string_gets_a_finite_win_rate(router):
    rates = router.win_rates(STRANGE)
    assert rates.shape == (len(STRANGE),)
    assert rates.dtype == np.float64
    assert ((rates >= 0) & (rates <= 1)).all()


@settings(max_examples=30)
@given(st.lists(st.text(max_size=200), min_size=1, max_size=12), st.randoms())
def test_batch_equals_single_async_equals_sync_and_order_does_not_matter(prompts, shuffler):
    for router in (load_router("random"), load_router(), small_mf()):
        rates = router.win_rates(prompts)
        assert rates.tolist() == [float(router.win_rates([p])[0]) for p in prompts]
        assert rates.tolist() == asyncio.run(router.awin_rates(prompts)).tolist()
        order = list(range(len(prompts)))
        shuffler.shuffle(order)
        assert router.win_rates([prompts[i] for i in order]).tolist() == rates[order].tolist()


@pytest.mark.parametrize("bad", [None, 7, b"x", "bare", [], [None], ["ok", b"x"], ["ok", 3], [["nested"]]])
async def test_what_is_no_prompt_is_one_clear_error(router, bad):
    with pytest.raises(PromptError, match="prompts"):
        router.win_rates(bad)
    with pytest.raises(PromptError, match="prompts"):
        await router.awin_rates(bad)


def test_save_and_load_give_the_same_bits(router, tmp_path):
    router.save_pretrained(tmp_path / "saved")
    options = {"embedder": router.embedder} if isinstance(getattr(router, "embedder", None), HashEmbedder) else {}
    for again in (
        Router.from_pretrained(tmp_path / "saved", **options),
        type(router).from_pretrained(tmp_path / "saved", **options),
        load_router(tmp_path / "saved", **options),
        load_router(router.name, tmp_path / "saved", **options),
    ):
        assert type(again) is type(router)
        assert again.win_rates(STRANGE).tolist() == router.win_rates(STRANGE).tolist()
        assert again.fingerprint == router.fingerprint
        assert again.calibration == router.calibration
    assert not [p for p in (tmp_path / "saved").rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".pickle"}]


def test_random_is_uniform_and_seeded():
    prompts = [f"prompt {i}" for i in range(20_000)]
    rates = RandomRouter().win_rates(prompts)
    assert abs(rates.mean() - 0.5) < 0.01
    assert abs((rates < 0.1).mean() - 0.1) < 0.01
    assert rates.tolist() == RandomRouter(0).win_rates(prompts).tolist()
    assert rates.tolist() != RandomRouter(1).win_rates(prompts).tolist()
    with pytest.raises(ConfigurationError, match=r"seed=0\.5"):
        RandomRouter(0.5)  # type: ignore[arg-type]


class GoldenEmbedder:
    dimension = 1536

    def __init__(self):
        self.prompts = golden_json("prompts.json")
        self.rows = np.load(GOLDEN / "prompt_embeddings.npz")["embeddings"].astype(np.float32)

    def embed(self, texts):
        return self.rows[[self.prompts.index(t) for t in texts]]

    async def aembed(self, texts):
        return self.embed(texts)


@needs_golden
def test_mf_agrees_with_the_authors_package():
    golden = golden_json("router_outputs.json")["mf"]
    embedder = GoldenEmbedder()
    router: Any = load_router("mf", GOLDEN / "mf", embedder=embedder)
    assert (router.strong, router.weak) == (golden["strong_model"], golden["weak_model"])
    np.testing.assert_allclose(router.win_rates(embedder.prompts), golden["win_rate"], rtol=0, atol=1e-6)
    for pair in golden["extra_pairs"]:
        other = load_router("mf", GOLDEN / "mf", embedder=embedder, strong=pair["strong"], weak=pair["weak"])
        prompts = embedder.prompts[: len(pair["win_rate"])]
        np.testing.assert_allclose(other.win_rates(prompts), pair["win_rate"], rtol=0, atol=1e-6)


def published_mf(path, dim=6, text_dim=8):
    """A checkpoint in the form of the authors': 64 model vectors without names, and what embeds is not said."""
    rng = np.random.default_rng(0)
    tensors = {
        "P.weight": rng.standard_normal((64, dim)).astype(np.float32),
        "text_proj.0.weight": rng.standard_normal((dim, text_dim)).astype(np.float32),
        "classifier.0.weight": rng.standard_normal((1, dim)).astype(np.float32),
    }
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    config = {"dim": dim, "num_models": 64, "text_dim": text_dim, "num_classes": 1, "use_proj": True}
    (path / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.parametrize("pair", [{}, {"strong": "gpt-4-0613", "weak": "alpaca-13b"}])
def test_the_published_form_names_the_models_of_the_arena_in_order(pair, tmp_path):
    tensors = published_mf(tmp_path / "published")
    embedder = HashEmbedder()
    router: Any = load_router("mf", tmp_path / "published", embedder=embedder, **pair)
    assert (router.strong, router.weak) == (
        pair.get("strong", "gpt-4-1106-preview"),
        pair.get("weak", "mixtral-8x7b-instruct-v0.1"),
    )
    assert router.models == tuple(sorted(router.models))  # the order of the rows
    prompts = ["one prompt", "another"]

    def delta(model):
        row = tensors["P.weight"][router.models.index(model)].astype(np.float64)
        return (embedder.embed(prompts) @ tensors["text_proj.0.weight"].T * row / np.linalg.norm(row)) @ tensors[
            "classifier.0.weight"
        ][0]

    want = 1 / (1 + np.exp(delta(router.weak) - delta(router.strong)))
    np.testing.assert_allclose(router.win_rates(prompts), want, rtol=1e-5)


def test_the_published_form_survives_our_saved_form(tmp_path):
    published_mf(tmp_path / "published")
    embedder, prompts = HashEmbedder(), ["one prompt", "another", ""]
    published: Any = load_router("mf", tmp_path / "published", embedder=embedder)
    published.save_pretrained(tmp_path / "ours")
    ours: Any = load_router("mf", tmp_path / "ours", embedder=embedder)
    assert ours.models == published.models
    assert ours.win_rates(prompts).tolist() == published.win_rates(prompts).tolist()


def test_mf_is_the_formula():
    router = small_mf()
    e = router.embedder.embed(["a prompt"])[0].astype(np.float64)

    def delta(i):
        p = router.model_vectors[i].astype(np.float64)
        return router.output @ (p / np.linalg.norm(p) * (router.projection @ e))

    expected = 1 / (1 + np.exp(-(delta(0) - delta(2))))
    assert router.win_rates(["a prompt"])[0] == pytest.approx(expected, abs=1e-12)
    mirrored = small_mf(strong="c", weak="a")
    assert mirrored.win_rates(["a prompt"])[0] == pytest.approx(1 - expected, abs=1e-12)
    assert small_mf(strong="a", weak="a").win_rates(["a prompt"])[0] == 0.5


def test_mf_embeds_a_batch_in_one_call():
    embedder = HashEmbedder()
    small_mf(embedder=embedder).win_rates([f"{i}" for i in range(100)])
    assert embedder.calls == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"strong": "nobody"}, "strong='nobody'"),
        ({"weak": "nobody"}, "weak='nobody'"),
        ({"models": ["a", "b"]}, "2 names"),
        ({"models": ["a", "b", "a"]}, "distinct"),
        ({"output": np.ones(5)}, "output"),
        ({"projection": np.ones((5, 8))}, "projection"),
        ({"output": np.array([1, 2, np.nan, 3])}, "output holds NaN"),
        ({"embedder": HashEmbedder(9)}, "HashEmbedder has 9 dimensions, but the mf router was trained with 8"),
        ({"embedder": object()}, "embed(texts)"),
    ],
)
def test_mf_refuses_what_does_not_fit(changes, named):
    with pytest.raises(ConfigurationError) as caught:
        small_mf(**changes)
    assert named in str(caught.value)


@pytest.mark.parametrize("output", [np.ones((2, 8)), np.ones((1, 7)), np.full((1, 8), np.nan), "text", None])
def test_an_embedder_that_returns_nonsense_is_an_error_and_no_win_rate(output):
    embedder = HashEmbedder()
    embedder.embed = lambda texts: output  # type: ignore[method-assign]
    with pytest.raises(RouterError, match="HashEmbedder"):
        small_mf(embedder=embedder).win_rates(["x"])


def test_a_calibration_of_another_pair_is_left_behind(tmp_path):
    router = small_mf()
    router.calibration = Calibration.fit(router, ["a", "b", "c"])
    router.save_pretrained(tmp_path)
    assert load_router(tmp_path, embedder=router.embedder).calibration == router.calibration
    assert load_router(tmp_path, embedder=router.embedder, strong="b").calibration is None


def test_a_router_whose_embedder_is_not_in_its_config_asks_for_it(tmp_path):
    small_mf().save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="embedder="):
        load_router("mf", tmp_path)


def test_unknown_names_and_options():
    with pytest.raises(ConfigurationError, match=r"'nope'.*random, mf, sw_ranking, bert, causal_llm"):
        load_router("nope")
    with pytest.raises(ConfigurationError, match=r"'\./my-router'.*or a directory"):
        load_router("./my-router")
    for nothing in (None, "", 3, b"mf"):
        with pytest.raises(ConfigurationError, match="router name"):
            load_router(nothing)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not bundled"):
        load_router("bert")
    with pytest.raises(ConfigurationError, match="sed"):
        load_router("random", sed=1)
    with pytest.raises(ConfigurationError, match="nonsense"):
        load_router("mf", nonsense=1)


def test_missing_and_corrupt_checkpoints(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="no such directory"):
        load_router("mf", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        load_router("mf", "./nothing/at/all")
    with pytest.raises(CheckpointNotFoundError, match=r"config\.json"):
        load_router("mf", tmp_path)
    load_router("random").save_pretrained(tmp_path / "random")
    with pytest.raises(CheckpointError, match="'random' router, not 'mf'"):
        load_router("mf", tmp_path / "random")

    good = tmp_path / "good"
    small_mf().save_pretrained(good)
    for name, content, named in [
        ("config.json", b"{", "JSON"),
        ("config.json", b"[]", "object"),
        ("model.safetensors", b"", "safetensors"),
        ("model.safetensors", b"\x80\x04pickle" * 100, "safetensors"),
        ("model.safetensors", (good / "model.safetensors").read_bytes()[:-40], "safetensors"),
        ("calibration.json", b"{}", "calibration"),
    ]:
        bad = tmp_path / "bad"
        shutil.copytree(good, bad, dirs_exist_ok=True)
        (bad / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=named):
            load_router("mf", bad, embedder=HashEmbedder())
        shutil.rmtree(bad)


def test_pickled_weights_are_refused_with_the_reason(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"router": "mf", "models": ["a", "b"]}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointNotFoundError, match=r"pytorch_model\.bin.*can run code"):
        load_router("mf", tmp_path, embedder=HashEmbedder())
