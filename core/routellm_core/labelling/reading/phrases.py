"""Phrases in prose: where an answer states a text, denies it or leaves it open, and where it refuses to answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from routellm_core.data.contamination import words_of
from routellm_core.labelling.reading.dates import ORDINAL_NUMBERS
from routellm_core.labelling.reading.quantities import NUMBER_WORDS
from routellm_core.policy.refusals import REFUSAL

_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_REFUSED = re.compile(
    REFUSAL.pattern + r"[^,.!?;\n]*?(?=\s+but\b|\s+however\b|[,.!?;\n]|\Z)", re.VERBOSE | re.IGNORECASE
)
_NEGATIONS = {
    "not", "never", "nor", "neither", "without", "unlike", "except", "excluding", "cannot", "isnt", "wasnt", "arent",
    "werent", "doesnt", "didnt", "dont", "cant", "couldnt", "wont", "hasnt", "havent",
}  # fmt: skip
_NEGATING_PAIRS = {
    ("instead", "of"), ("no", "longer"), ("opposite", "of"), ("reverse", "of"), ("contemporary", "of"),
}  # fmt: skip
# "Larger than Jupiter" and "rather than Jupiter" say that it is another; "none other than Jupiter" states it.
_NONE = {"none", "no", "nobody", "nothing"}
# "anything but Mercury"; "nothing but Mercury" states it.
_ALL_BUT = {"anything", "anyone", "anywhere", "everything", "everyone", "all", "any"}
# "Some say Lima, but it is Santiago": what others think is no answer where a contrast follows.
_OTHERS = {"some", "many", "most", "people", "others", "you"}
_THINK = {"think", "believe", "say", "guess", "assume", "suppose", "expect", "attribute", "credit", "claim", "name"}
_CONTRASTS = {"but", "however", "actually", "yet", "though"}
_MERELY = {"only", "just", "merely", "simply"}
_COPULAS = {"is", "was", "are", "were", "would", "has", "does", "did"}
_DENIALS = {"not", "never", "wrong", "incorrect", "false"}
# How far a negation reaches, in words of one clause.
_REACH = 4
_CLAUSE_END = re.compile(
    r"[,;:!?()\[\]\n—|]|\.(?=\s|\Z)|(?=\b(?:but|however|although|though|whereas|while)\b)", re.IGNORECASE
)
# "New York" does not state "York".
_NAME_HEADS = {"new", "north", "south", "east", "west", "northern", "southern", "papua", "equatorial"}
# Words that are written in several ways: numbers, ordinal numbers and the heads of names.
_ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}
_USUAL = {
    **{word: str(number) for word, number in NUMBER_WORDS.items()},
    **{word: f"{number}{_ENDINGS.get(number, 'th')}" for word, number in ORDINAL_NUMBERS.items()},
    "mt": "mount",
    "st": "saint",
}


class _Word(NamedTuple):
    text: str
    clause: int
    written: str
    asked: bool


def without_thinking(answer: str) -> str:
    """The answer without the thoughts that a reasoning model writes in front of it."""
    if "</think>" in answer and "<think>" not in answer:  # the opening tag is often part of the template
        answer = answer.rpartition("</think>")[2]
    return _THINKING.sub(" ", answer).strip()


def without_refusals(text: str) -> str:
    """A text without the clauses in which it refuses to answer."""
    return _REFUSED.sub(" ", text)


def normal_words(text: str) -> list[str]:
    """The words of a text without case, accents, punctuation and spacing; small number words are digits."""
    return [word.text for word in _words(text)]


def states(text: str, phrase: str) -> bool:
    """Whether a text holds a phrase and neither denies it nor offers it beside an alternative.

    Words are compared as `normal_words` gives them; the phrase has to stand in one piece.
    """
    return any(not _doubtful(words, start, end) for words, start, end in _places(text, phrase))


def mentions(text: str, phrase: str) -> bool:
    """Whether a text holds a phrase, whatever it says of it."""
    return next(_places(text, phrase), None) is not None


def _places(text: str, phrase: str) -> Iterator[tuple[list[_Word], int, int]]:
    """The words of a text with the beginning and the end of each place where it holds the phrase."""
    wanted = _words(phrase)
    if not wanted:
        if phrase.strip() and phrase.strip() in text:  # symbols have no words
            yield [], 0, 0
        return
    words = _words(text)
    for start in range(len(words) - len(wanted) + 1):
        end = start + len(wanted)
        *head, last = zip(wanted, words[start:end], strict=True)
        if all(one.text == other.text for one, other in head) and _alike(*last):
            # "US" is not "us"
            short = start + 1 == end and re.fullmatch(r"[A-Z]{2,3}", wanted[0].written) is not None
            if not short or words[start].written.isupper():
                yield words, start, end


def _alike(wanted: _Word, word: _Word) -> bool:
    """Whether two words are equal, or singular and plural of a common noun."""
    if wanted.text == word.text:
        return True
    shorter, longer = sorted((wanted.text, word.text), key=len)
    return wanted.written.islower() and len(shorter) > 2 and longer in (f"{shorter}s", f"{shorter}es")


def _doubtful(words: list[_Word], start: int, end: int) -> bool:
    if not words:
        return False
    if words[start].asked:  # a question that the text goes on to answer
        return True
    clause = words[start].clause
    match [word.text for word in words[max(0, start - 2) : start]]:
        case [every, "but"] if every in _ALL_BUT:
            return True
    before = [word for word in words[max(0, start - _REACH) : start] if word.clause == clause]
    after = [word.text for word in words[end : end + 3] if word.clause == words[end - 1].clause]
    texts = [word.text for word in before]
    names = before and words[start].written[:1].isupper() and before[-1].written[:1].isupper()
    if names and texts[-1] in _NAME_HEADS:
        return True
    ahead = [word.text for word in words[:start] if word.clause == clause]
    return _denied(texts, after) or _left_open(texts, after) or _thought_by_others(ahead, words[end:])


def _thought_by_others(before: list[str], after: list[_Word]) -> bool:
    thought = any(word in _OTHERS and not _THINK.isdisjoint(before[i + 1 : i + 4]) for i, word in enumerate(before))
    return thought and not _CONTRASTS.isdisjoint([*before, *(word.text for word in after)])


def _denied(before: list[str], after: list[str]) -> bool:
    for word, following in zip_longest(before, before[1:]):
        if word in _NEGATIONS and following not in _MERELY:
            return True
        if (word, following) in _NEGATING_PAIRS:
            return True
    if "than" in before and _NONE.isdisjoint(before):
        return True
    first, second = [*(word for word in after if word != "be"), "", ""][:2]
    if first in ("isnt", "wasnt"):
        return second not in _MERELY
    return first in _COPULAS and second in _DENIALS


def _left_open(before: list[str], after: list[str]) -> bool:
    # a clause that begins with "or" gives another name: "water, or H2O"
    return (len(before) > 1 and before[-1] == "or") or after[:1] == ["or"] or "either" in before or "whether" in before


def _words(text: str) -> list[_Word]:
    found: list[_Word] = []
    joined, begin = _joined(text), 0
    for number, end in enumerate([*_CLAUSE_END.finditer(joined), None]):
        clause = joined[begin:] if end is None else joined[begin : end.start()]
        asked = end is not None and end[0] == "?" and joined[end.end() :].strip() != ""
        for piece in clause.split():
            for word in words_of(piece):
                found.append(_Word(_USUAL.get(word, word), number, piece, asked))
        begin = begin if end is None else end.end()
    return found


def _joined(text: str) -> str:
    """A text whose abbreviations, numbers and names of one word are one word."""
    text = unicodedata.normalize("NFKC", text)
    # accents of Latin, Greek and Cyrillic letters; in other scripts such marks are vowels
    text = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text))
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"\b(?:[^\W\d_]\.\s?){2,}", lambda m: re.sub(r"[.\s]", "", m[0]) + " ", text)  # U.S., J. K. Rowling
    text = re.sub(r"(?<=\w)[’'ʼ]s\b", "", text)  # Newton's
    text = re.sub(r"(?<=\w)[’'ʼ`](?=\w)", "", text)  # O'Brien, isn't
    text = re.sub(r"(?<=\d)[,\u202f\u2009](?=\d{3}(?!\d))", "", text)  # 1,000
    text = re.sub(r"(?<=\d)\.(?=\d)", "·", text)
    text = re.sub(r"(?<=[A-Za-z])\+\+", "plusplus", re.sub(r"\b([A-Z])#", r"\1sharp", text))
    return re.sub(r"\s*&\s*", " and ", text)
