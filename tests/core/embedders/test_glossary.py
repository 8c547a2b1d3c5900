"""Glossary: which language a text is in, which words are replaced, and what English text keeps."""

from __future__ import annotations

import pytest

from routellm_core.embedders.glossary import LANGUAGES, Glossary
from routellm_core.embedders.static import bundled_embedder, surface_features, words_of
from routellm_core.errors import ConfigurationError

TEXT = """# a comment
prove: beweise | demuestra | prouve | 证明
the: der die das | el los | les | 的
number: zahl | numero | nombre | 数
infinite: unendlich | infinito | infini | 无限 无穷
because: weil | porque | car | 因为
"""
ENGLISH = ("the", "car", "die", "prove")


def in_english(text: str) -> list[str]:
    return Glossary.of_text(TEXT, ENGLISH).in_english(words_of(text), ascii_only=text.isascii())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Beweise das", ["prove", "the"]),
        ("Beweise: unendliche Zahlen", ["prove", ":", "infinite", "number"]),
        ("Demuestra los números", ["prove", "the", "number"]),
        ("Prouve, car les nombres", ["prove", ",", "because", "the", "number"]),
        ("证明有无穷的数", ["prove", "有", "infinite", "the", "number"]),
        ("The car will die", ["the", "car", "will", "die"]),
        ("Prove the car", ["prove", "the", "car"]),
        # one foreign word does not make an English text foreign, and a form that is no mark does not make one
        ("What is the Zahl of this, and how is it the car?", None),
        ("", []),
    ],
)
def test_words_of_a_foreign_text_become_english_ones(text: str, found: list[str] | None) -> None:
    assert in_english(text) == (words_of(text) if found is None else found)


def test_a_glossary_survives_its_text() -> None:
    glossary = Glossary.of_text(TEXT, ENGLISH)
    assert Glossary.of_text(glossary.to_text(), ENGLISH).forms == glossary.forms


@pytest.mark.parametrize("line", ["prove beweise", "prove: a | b | c", ": a | b | c | d", "x: a | b | c | d | e"])
def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(ConfigurationError, match="line 7 of the glossary"):
        Glossary.of_text(TEXT + line + "\n", ENGLISH)


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Klingon.*German"):
        Glossary({"Klingon": {}}, ENGLISH)


def test_the_bundled_glossary_has_every_language_and_only_known_english_words() -> None:
    embedder = bundled_embedder()
    glossary = embedder._glossary
    assert glossary is not None
    for language in LANGUAGES:
        assert len(glossary.forms[language]) >= 300
        for form, word in glossary.forms[language].items():
            assert embedder._ids([word]), word
            assert form == form.lower()
            assert words_of(form) == ([*form] if language == "Chinese" else [form])


@pytest.mark.parametrize(
    ("english", "translations"),
    [
        (
            "Prove that there are infinitely many prime numbers.",
            (
                "Beweise, dass es unendlich viele Primzahlen gibt.",
                "Démontre qu'il existe une infinité de nombres premiers.",
            ),
        ),
        (
            "What is the capital of France?",
            ("Was ist die Hauptstadt von Frankreich?", "¿Cuál es la capital de Francia?"),
        ),
    ],
)
def test_a_translation_has_a_vector_like_its_original(english: str, translations: tuple[str, ...]) -> None:
    embedder = bundled_embedder()
    unlike = "Suggest a colour for the curtains in my living room."
    d = embedder.text_dimension
    original, other, *found = embedder.embed([english, unlike, *translations])[:, :d]
    for vector in found:
        assert vector @ original > vector @ other


def test_an_ideograph_counts_like_three_letters() -> None:
    chinese, latin = "证明有无穷个素数", "x" * 24
    assert surface_features(chinese, words_of(chinese), 8)[0] == surface_features(latin, [latin], 1)[0]
