"""Glossary: English words in place of German, Spanish, French and Chinese ones, for an embedder that knows English."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from routellm_core.errors import ConfigurationError

LANGUAGES = ("German", "Spanish", "French", "Chinese")
# A longer word stands for a form that it begins with: this many characters at least, and at most so many more.
_STEM_CHARS, _ENDING_CHARS = 4, 5
_LONGEST_TERM = 4
_IDEOGRAPH = ("\u3400", "\u9fff")
_ENGLISH = frozenset(
    ("the", "of", "and", "is", "are", "what", "to", "that", "for", "with", "from", "how", "this", "it", "you", "your")
)


class Glossary:
    """Words of other languages, each with the English word that stands in for it.

    Which of the languages with Latin letters a text is in, if any, is decided by its words: that with the most forms
    that are no English words, if those outnumber the common English words. In such a text each known form, or a word
    that begins with one, becomes its English word; the others stay. Chinese terms are looked up anywhere, the longest
    first. An English text stays as it is.

    Args:
        forms: For each of `LANGUAGES`, the English word of each form, in lower case and without accents. A language may
            be missing.
        english: Words that are English, so that they say nothing about the language.

    Raises:
        ConfigurationError: A language is unknown.
    """

    def __init__(self, forms: Mapping[str, Mapping[str, str]], english: Iterable[str]) -> None:
        unknown = [name for name in forms if name not in LANGUAGES]
        if unknown:
            raise ConfigurationError(f"forms: language {unknown[0]!r:.80}; expected {', '.join(LANGUAGES)}")
        self.forms = {name: dict(forms.get(name, {})) for name in LANGUAGES}
        common = frozenset(english)
        self._terms = self.forms["Chinese"]
        self._marks = {name: frozenset(self.forms[name]) - common for name in LANGUAGES[:-1]}
        self._all_marks = frozenset(chain.from_iterable(self._marks.values()))

    def in_english(self, words: list[str], *, ascii_only: bool) -> list[str]:
        """The words with those of other languages replaced.

        Args:
            words: Words of a text in order, in lower case and without accents; each ideograph is a word.
            ascii_only: Whether the text has only ASCII characters, and so no Chinese.
        """
        if not ascii_only and self._terms:
            words = self._chinese(words)
        if self._all_marks.isdisjoint(words):
            return words
        distinct = set(words)
        hits, language = max((len(marks & distinct), name) for name, marks in self._marks.items())
        if hits <= len(_ENGLISH & distinct):
            return words
        forms = self.forms[language]
        return [forms.get(word) or self._by_stem(word, forms) for word in words]

    @staticmethod
    def _by_stem(word: str, forms: Mapping[str, str]) -> str:
        for end in range(len(word) - 1, max(_STEM_CHARS, len(word) - _ENDING_CHARS) - 1, -1):
            found = forms.get(word[:end])
            if found is not None:
                return found
        return word

    def _chinese(self, words: Sequence[str]) -> list[str]:
        out: list[str] = []
        start, first, last = 0, *_IDEOGRAPH
        while start < len(words):
            word = words[start]
            taken = 1
            if first <= word <= last:
                for size in range(min(_LONGEST_TERM, len(words) - start), 0, -1):
                    found = self._terms.get("".join(words[start : start + size]))
                    if found is not None:
                        word, taken = found, size
                        break
            out.append(word)
            start += taken
        return out

    def to_text(self) -> str:
        """One line for each English word: ``word: German | Spanish | French | Chinese``, forms between spaces."""
        lines: dict[str, list[list[str]]] = {}
        for at, name in enumerate(LANGUAGES):
            for form, word in self.forms[name].items():
                lines.setdefault(word, [[] for _ in LANGUAGES])[at].append(form)
        return "".join(f"{word}: {' | '.join(map(' '.join, cells))}\n" for word, cells in lines.items())

    @classmethod
    def of_text(cls, text: str, english: Iterable[str]) -> Glossary:
        """Read what `to_text` wrote; lines that start with ``#`` are comments.

        Raises:
            ConfigurationError: A line has another shape.
        """
        forms: dict[str, dict[str, str]] = {name: {} for name in LANGUAGES}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            word, colon, rest = line.partition(":")
            cells = rest.split("|")
            if not colon or not word.strip() or len(cells) != len(LANGUAGES):
                raise ConfigurationError(f"line {number} of the glossary: expected WORD: {' | '.join(LANGUAGES)}")
            for name, cell in zip(LANGUAGES, cells, strict=True):
                for form in cell.split():
                    forms[name].setdefault(form, word.strip())
        return cls(forms, english)
