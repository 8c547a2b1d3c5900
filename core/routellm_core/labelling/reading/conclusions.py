r"""Conclusions: the part of an answer in which it says what the answer is.

Explicit forms are, from the strongest to the weakest: ``<answer>...</answer>``, ``\boxed{...}``, ``#### ...``, and the
words "the answer is ..." or "Answer: ...".
"""

from __future__ import annotations

import re
from itertools import pairwise

from routellm_core.labelling.reading.quantities import (
    Quantity,
    plain_math,
    quantities_in,
    quantity_of,
    written_numbers_in,
)

_TAG = re.compile(r"<answer>(.{0,5000}?)</answer>", re.DOTALL | re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_ANSWER = re.compile(
    r"\banswer(?:\s+(?!is\b|was\b|would\b|should\b)\w+){0,6}?(?:\s+(?:is|was|would\s+be|should\s+be)\b|\s*[*_\"]*\s*[:=])+(?!\s+not\b)",
    re.IGNORECASE,
)
_TOTAL = re.compile(r"\btotal(?:\s+(?:is|was)\b|\s*[:=])+(?!\s+not\b)", re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_ENUMERATION = re.compile(
    r"^[ \t]*(?:(?:\*\*)?(?:step|part|question)\s+\d+[.:)]?|\d{1,2}[.)](?=\s+\S))", re.MULTILINE | re.IGNORECASE
)
_ASIDE = re.compile(r"\([^()]*\)")
_IN_YEAR = re.compile(
    r"\b(?:in|since|by|from|until|till|during|around|circa|year)\s+(?:1\d{3}|20\d{2})(?!\s*[\w.,]*\d|\s+[a-z]+s\b)",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:\bnot|n[’']t|\bnever|\brather\s+than|\binstead\s+of)\s+(?:(?:an?|the|exactly|equal\s+to|be)\s+)?\Z",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|\Z)")
_REASONING = re.compile(
    r"=|\d\s*[×*/+]\s*\d|\d\s+-\s+\d|\b(?:so|thus|therefore|hence|altogether|total|in\s+all|which\s+makes)\b",
    re.IGNORECASE,
)


def conclusion_of(text: str) -> str | None:
    """What an answer says after its last explicit form of a conclusion, to the end; None when it has no such form."""
    if tags := _TAG.findall(text):
        return str(tags[-1])
    if (boxed := _boxed(text)) is not None:
        return boxed
    if hashes := _HASHES.findall(text):
        return str(hashes[-1])
    if matches := list(_ANSWER.finditer(text)):
        rest = text[matches[-1].end() :]
        return rest if rest.strip(" \t\n*_:") else None
    return None


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed")
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin + 1 : position]
    return text[begin + 1 :]


def concluding_numbers(answer: str, *, like: Quantity | None = None) -> list[Quantity]:
    """The number that an answer concludes with; the candidates for it where that is not clear, and none without one.

    An explicit conclusion goes first, then a number in bold type, then the last number; the only sentence of an answer
    that does not reason may as well state it first. Numbers of steps, asides in parentheses and the days of dates count
    only where there are no others.

    Args:
        answer: The answer.
        like: The number that is looked for. Numbers with a unit of its kind go before others. Years ("in 1969") count
            only when it may be a year itself, and then go before others unless the answer reasons.
    """
    plain = plain_math(answer)
    reasons = _REASONING.search(plain) is not None
    if like is not None and not _is_year(like) and _IN_YEAR.search(plain):
        without = _IN_YEAR.sub(" ", plain)
        plain = without if _numbers(without, like) else plain
    conclusion = conclusion_of(plain)
    if conclusion is None and (totals := list(_TOTAL.finditer(plain))):
        conclusion = plain[totals[-1].end() :]
    if conclusion is not None:
        sentence = _SENTENCE_END.split(conclusion.strip(" \t\n*_:"))[0]
        if numbers := _numbers(sentence.rpartition("=")[2], like) or _numbers(sentence, like):
            return numbers[:1]
    for bold in _BOLD.findall(plain)[:-20:-1]:
        if (number := quantity_of(bold)) is not None:
            return [number]
    numbers = _numbers(plain, like)
    if reasons:
        return numbers[-1:]
    if like is not None and _is_year(like):
        numbers = [number for number in numbers if _is_year(number)] or numbers
    if len(numbers) > 1 and len(_SENTENCE_END.split(plain.strip(" \n.!?"))) == 1:
        return [numbers[-1], numbers[0]]
    return numbers[-1:]


def _numbers(text: str, like: Quantity | None = None) -> list[Quantity]:
    """The numbers of a text: outside of enumerations and asides, or else in these, or else written in words.

    Where some have the unit of `like`, these. Numbers that are denied ("not 42") or left open ("42 or 43") are none.
    """
    without_steps = _ENUMERATION.sub(" ", text)
    parts = list(dict.fromkeys((_ASIDE.sub(" ", without_steps), without_steps, text)))
    if like is not None and like.unit is not None:
        for part in parts:
            alike = [n for n in quantities_in(part) if n.unit is not None and n.unit[0] == like.unit[0]]
            if numbers := _stated(part, alike):
                return numbers
    for part in parts:
        if numbers := _stated(part, quantities_in(part)):
            return numbers
    written = _stated(text, written_numbers_in(text))
    return [n for n in written if text[n.start : n.end].lower() != "one"] or written


def _stated(text: str, numbers: list[Quantity]) -> list[Quantity]:
    open_ = {
        id(n) for pair in pairwise(numbers) for n in pair if text[pair[0].end : pair[1].start].strip().lower() == "or"
    }
    return [n for n in numbers if id(n) not in open_ and not _DENIED.search(text[max(0, n.start - 40) : n.start])]


def _is_year(number: Quantity) -> bool:
    value = number.values[0]
    return number.unit is None and not number.percent and value.denominator == 1 and 1000 <= value < 2100
