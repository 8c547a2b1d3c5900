"""The static embedder: any str has a finite vector, a batch equals its rows, saved equals loaded."""

from __future__ import annotations

import json
import math
import re
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routellm_core.embedders.base import Embedder
from routellm_core.embedders.static import (
    SURFACE_NAMES,
    StaticEmbedder,
    bundled_embedder,
    surface_features,
    window,
    words_of,
)
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError, PromptError

ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "a\x00b",
    "\ud800",
    "word \udfff word",
    "\u200b\u200e\u202e",
    "שלום עולם, מה שלומך?",
    "مرحبا بالعالم",
    "你好，世界",
    "Привет",
    "😀" * 50,
    "x" * 1_000_000,
    "word " * 200_000,
    "\n" * 1_000_000,
    "$" * 5_000,
    "{" * 600 + " " * 600,
    "9" * 100_000,
    "e\u0301" * 300,
    "\r\n\u2028\u2029\x85",
]


def small(**options: object) -> StaticEmbedder:
    """An embedder of four wordpieces whose vectors can be worked out by hand."""
    settings_: dict[str, object] = {
        "scale": 0.5,
        "surface_mean": np.zeros(len(SURFACE_NAMES)),
        "surface_std": np.ones(len(SURFACE_NAMES)),
        "shrinkage": 2.0,
        **options,
    }
    table = np.array([[10, 0], [0, 20], [-4, 6], [127, -127]], dtype=np.int8)
    return StaticEmbedder(["prime", "sum", "##s", "hi"], table, **settings_)  # type: ignore[arg-type]


def test_is_an_embedder() -> None:
    embedder = small()
    assert isinstance(embedder, Embedder)
    assert embedder.dimension == 2 + len(SURFACE_NAMES) + 1
    assert embedder.embed(["hi"]).dtype == np.float32
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_text_part_is_the_shrunk_sum_of_its_rows() -> None:
    # "primes" is no wordpiece: prime + ##s; "zebra" is unknown and drops out
    vector = small().embed(["Primes sum zebra"])[0]
    expected = np.array([10 + 0 - 4, 0 + 20 + 6]) * 0.5 / (3 + 2)
    assert vector[:2] == pytest.approx(expected)
    assert vector[-1] == 1.0


def test_surface_part_is_standardised_and_clipped() -> None:
    plain = small(clip=100.0).embed(["hi " * 500])[0, 2:-1]
    raw = surface_features("hi " * 500, words_of(window("hi " * 500)), len(words_of(window("hi " * 500))))
    assert plain == pytest.approx(raw, rel=1e-6)
    assert np.abs(small(clip=1.5).embed(["hi " * 500])[0, 2:-1]).max() == 1.5


def test_in_a_word_problem_all_but_its_length_is_turned_down() -> None:
    text = (
        "Ann has 3 apples and buys 4 more, and her sister, who lives in another town, sends her a box with 12 apples "
        "for the cake that they bake together. How many prime apples does she have in total?"
    )
    full, turned = small().embed([text])[0], small(problem_rest=0.25).embed([text])[0]
    own = np.array([False, False, *(n.startswith("problem") for n in SURFACE_NAMES), True])
    assert turned[own] == pytest.approx(full[own])
    assert turned[~own] == pytest.approx(full[~own] * 0.25)
    other = "Tell me about apples."
    assert (small(problem_rest=0.25).embed([other]) == small().embed([other])).all()


def test_a_short_word_problem_is_nothing_but_one() -> None:
    texts = ["Ann has 3 apples and buys 4 more. How many has she?", "How many legs do 5 prime cats and 7 hens have?"]
    first, second = small(problem_rest=0.25).embed(texts)
    assert (first == second).all()
    own = np.array([False, False, *(n.startswith("problem") for n in SURFACE_NAMES), True])
    assert not first[~own].any()
    assert first[own].any()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What is it?\nA. one\nB. two\nC. three\nAnswer:", "choice"),
        ("def f(x):\n    return g(x) == h(x)\nf(1)", "code"),
        ("A shop sells 12 pens for $3 each and 5 books for $8 each. How much is that?", "problem"),
        ("Find $x^2 + 3x = 10$ for 2 < x < 5. How many are there?", "other"),
        ("Write a poem about autumn.", "other"),
        ("How many days are in a week?", "other"),
        ("We meet at 9, two of us late. " + "The weather was lovely and so was the food. " * 9 + "Who came?", "other"),
    ],
)
def test_kind_of_prompt(text: str, kind: str) -> None:
    values = dict(zip(SURFACE_NAMES, surface_features(text, words_of(text), 10), strict=True))
    found = next((k for k in ("choice", "code", "problem") if values[k]), "other")
    assert found == kind


def test_words_follow_berts_rules() -> None:
    assert words_of("Don't PANIC, it's 42!") == ["don", "'", "t", "panic", ",", "it", "'", "s", "42", "!"]
    assert words_of("Café naïve") == ["cafe", "naive"]
    assert words_of("中文 text") == ["中", "文", "text"]
    assert words_of("a\u200bb") == ["ab"]


TEXTS = st.text(st.sampled_from("aB9 \n\t;{}`<>/=!-:.,\x7f\x80éÉ\u0301\u200b日Ωẞ\U0001f600\ud800"), max_size=60)


@given(TEXTS)
def test_fast_counts_are_those_of_the_plain_ones(text: str) -> None:
    """Twins that look at each character: what is counted the fast way must be the same, or vectors change."""
    raw = dict(zip(SURFACE_NAMES, surface_features(text, words_of(text), 0), strict=True))
    size = len(text) or 1
    assert raw["uppercase_share"] == sum(c.isupper() for c in text) / size
    assert raw["non_ascii_share"] == sum(ord(c) > 127 for c in text) / size
    marks = len(re.findall(r"```|</|==|!=|=>|->|::|[;{}][ \t]*\n", text))
    assert raw["log_code_marks"] == math.log1p(marks + len(re.findall(r"(?<=\w)\(\w*\)", text)))
    decomposed = unicodedata.normalize("NFD", text.lower())
    kept = "".join(c for c in decomposed if (c.isascii() and c != "\x7f") or c.isspace() or not _is_mute(c))
    assert text.isascii() or words_of(text) == words_of(kept)


def _is_mute(c: str) -> bool:
    return unicodedata.category(c) == "Mn" or unicodedata.category(c)[0] == "C"


def test_a_long_prompt_is_read_at_both_ends() -> None:
    middle = "a" * 5000
    text = "b" * 800 + middle + "c" * 400
    assert window(text) == "b" * 800 + "\n" + "c" * 400
    assert window("short") == "short"


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_any_string_has_a_finite_vector(text: str) -> None:
    vector = bundled_embedder().embed([text])
    assert vector.shape == (1, bundled_embedder().dimension)
    assert np.isfinite(vector).all()


@settings(max_examples=150)
@given(st.lists(st.text(max_size=300), min_size=1, max_size=6))
def test_a_batch_equals_its_rows_bit_for_bit(texts: list[str]) -> None:
    embedder = bundled_embedder()
    batch = embedder.embed(texts)
    for i, text in enumerate(texts):
        assert batch[i].tobytes() == embedder.embed([text])[0].tobytes()


@pytest.mark.parametrize("shrinkage", [0.0, 2.0])
def test_many_texts_of_all_lengths_equal_their_rows_bit_for_bit(shrinkage: float) -> None:
    embedder = small(shrinkage=shrinkage)
    texts = [" ".join(["primes", "sum", "zebra", "hi"][k % 3 : k % 4 + 1] * (k % 53)) for k in range(700)] + ODD_TEXTS
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    for count in (63, 64, 65, len(texts)):
        assert embedder.embed(texts[-count:]).tobytes() == alone[-count:].tobytes()


async def test_async_equals_sync() -> None:
    embedder = bundled_embedder()
    assert (await embedder.aembed(["one", "two"]) == embedder.embed(["one", "two"])).all()


def test_threads_share_one_embedder() -> None:
    texts = [f"unknownword{i} prompt number {i} antidisestablishmentarianism{i}" for i in range(200)]
    alone = bundled_embedder().embed(texts)
    shared = StaticEmbedder.from_pretrained(_bundled_directory())
    found: list[np.ndarray] = []

    def work() -> None:
        found.append(shared.embed(texts))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all((vectors == alone).all() for vectors in found)


def greedy(word: str, vocabulary: set[str]) -> list[str]:
    """Longest-match wordpieces of a word as BERT's tokenizer has them, spelled out; none if a part is unknown."""
    pieces: list[str] = []
    while word:
        prefix = "##" if pieces else ""
        end = next((end for end in range(len(word), 0, -1) if prefix + word[:end] in vocabulary), 0)
        if not end:
            return []
        pieces.append(prefix + word[:end])
        word = word[end:]
    return pieces


@settings(max_examples=300)
@given(st.text(alphabet="aabcdehiklmnoprstu", min_size=1, max_size=30))
def test_a_rare_word_is_the_sum_of_its_longest_pieces(word: str) -> None:
    embedder = bundled_embedder()
    row_of = {piece: row for row, piece in enumerate(embedder._vocabulary)}
    expected = [row_of[piece] for piece in greedy(word, set(row_of))]
    assert embedder._ids([word]) == expected


def test_nothing_of_a_text_stays_behind() -> None:
    embedder = StaticEmbedder.from_pretrained(_bundled_directory())

    def stored() -> list[int]:
        values = list(vars(embedder).values())
        return [len(value) for value in values if isinstance(value, dict | list | set | tuple)]

    before = stored()
    embedder.embed([f"xqzhvk{i} jwrtpl{i}" for i in range(2000)])
    assert stored() == before


@pytest.mark.parametrize("texts", ["bare", b"bytes", ["ok", None], [b"x"], [3]])
def test_what_is_no_text_is_refused(texts: object) -> None:
    with pytest.raises(PromptError):
        small().embed(texts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"clip": -1.0}, "clip"),
        ({"shrinkage": -1.0}, "shrinkage"),
        ({"problem_rest": 0.0}, "problem_rest"),
        ({"surface_std": np.zeros(len(SURFACE_NAMES))}, "surface_std"),
        ({"surface_mean": np.zeros(3)}, "surface_mean"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        small(**options)


def test_a_table_that_does_not_fit_is_refused() -> None:
    zeros, ones = np.zeros(len(SURFACE_NAMES)), np.ones(len(SURFACE_NAMES))
    with pytest.raises(ConfigurationError, match="table"):
        StaticEmbedder(["a"], np.zeros((2, 2), dtype=np.int8), scale=1.0, surface_mean=zeros, surface_std=ones)
    with pytest.raises(ConfigurationError, match="twice"):
        StaticEmbedder(["a", "a"], np.zeros((2, 2), dtype=np.int8), scale=1.0, surface_mean=zeros, surface_std=ones)


def test_saved_equals_loaded(tmp_path: Path) -> None:
    embedder = small(problem_rest=0.5)
    assert embedder.config()["source"] is None
    embedder.save_pretrained(tmp_path / "e")
    loaded = StaticEmbedder.from_pretrained(tmp_path / "e")
    texts = ["hi primes", "", "Ann has 3 apples and 4 more. How many in total?"]
    assert loaded.embed(texts).tobytes() == embedder.embed(texts).tobytes()
    assert loaded.fingerprint == embedder.fingerprint
    again = StaticEmbedder.from_config(json.loads(json.dumps(embedder.config())))
    assert again.fingerprint == embedder.fingerprint


def test_fingerprint_tells_embedders_apart() -> None:
    assert small().fingerprint == small().fingerprint
    assert len({small().fingerprint, small(scale=0.25).fingerprint, small(problem_rest=0.5).fingerprint}) == 3


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"no file .*config\.json"):
        StaticEmbedder.from_pretrained(tmp_path)
    small().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:40])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable safetensors file"):
        StaticEmbedder.from_pretrained(tmp_path)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        StaticEmbedder.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "features": 99}))
    with pytest.raises(CheckpointError, match="version"):
        StaticEmbedder.from_pretrained(tmp_path)


def test_config_of_an_unsaved_or_another_embedder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="embedder="):
        StaticEmbedder.from_config(small().config())
    config = bundled_embedder().config()
    assert config["source"] == "bundled"
    assert StaticEmbedder.from_config(config) is bundled_embedder()
    with pytest.raises(CheckpointError, match="fingerprint"):
        StaticEmbedder.from_config({**config, "fingerprint": "0" * 32})


def _bundled_directory() -> Path:
    import routellm_core

    return Path(routellm_core.__file__).parent / "pretrained" / "embedder"


def test_no_number_is_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = bundled_embedder()
    prompts = ["hi", "", "Ann buys 3 pens for 2 dollars each and 5 more for 1 dollar. How much does she spend?"]
    expected = embedder.embed(prompts)

    def fresh(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        # fresh memory may hold anything; here it always holds what no sum may touch, signalling NaNs
        memory = np.zeros(shape, dtype)
        memory.view(f"u{memory.itemsize}")[...] = {4: 0x7FA00000, 8: 0x7FF4000000000000}[memory.itemsize]
        return memory

    monkeypatch.setattr(np, "empty", fresh)
    with np.errstate(all="raise"):
        assert (embedder.embed(prompts) == expected).all()
