"""Right answers, read as one kind each: how an answer agrees with a letter, a number, a date, a text and so on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from routellm_core.data.contamination import words_of
from routellm_core.errors import DataError
from routellm_core.labelling.reading.choices import (
    chosen_by_text,
    extract_choice,
    extract_yes_no,
    options_in,
    yes_no_of,
)
from routellm_core.labelling.reading.conclusions import concluding_numbers, conclusion_of
from routellm_core.labelling.reading.dates import Date, DateMention, date_of, dates_in
from routellm_core.labelling.reading.expressions import is_expression, states_expression
from routellm_core.labelling.reading.phrases import mentions, normal_words, states
from routellm_core.labelling.reading.quantities import Quantity, plain_math, quantities_in, quantity_of

GoldKind = Literal["auto", "choice", "yes_no", "number", "date", "text", "exact"]


class GoldForm(Protocol):
    """A right answer, read as one kind."""

    @property
    def kind(self) -> str:
        """The kind, as `GoldKind` names it."""
        ...

    def agrees(self, answer: str) -> bool | None:
        """Whether an answer agrees; None when it contains no recognisable answer of this kind."""
        ...

    def mentioned(self, answer: str) -> bool:
        """Whether the right answer occurs in an answer at all."""
        ...


@dataclass(frozen=True)
class _Choice:
    letter: str
    options: dict[str, str]
    kind: str = "choice"

    def agrees(self, answer: str) -> bool | None:
        letters = self.options or ("ABCDEFGHIJ" if self.letter <= "J" else "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        chosen = extract_choice(answer, letters) or chosen_by_text(conclusion_of(answer) or answer, self.options)
        return None if chosen is None else chosen == self.letter

    def mentioned(self, answer: str) -> bool:
        return self.letter in self.options and mentions(answer, self.options[self.letter])


@dataclass(frozen=True)
class _YesNo:
    value: bool
    kind: str = "yes_no"

    def agrees(self, answer: str) -> bool | None:
        stated = extract_yes_no(answer)
        return None if stated is None else stated == self.value

    def mentioned(self, answer: str) -> bool:
        return False


@dataclass(frozen=True)
class _Number:
    value: Quantity
    kind: str = "number"

    def agrees(self, answer: str) -> bool | None:
        stated = concluding_numbers(answer, like=self.value)
        return any(number.equals(self.value) for number in stated) if stated else None

    def mentioned(self, answer: str) -> bool:
        return any(number.equals(self.value) for number in quantities_in(plain_math(answer)))


@dataclass(frozen=True)
class _Date:
    readings: tuple[Date, ...]
    kind: str = "date"

    def agrees(self, answer: str) -> bool | None:
        stated = dates_in(conclusion_of(answer) or answer) or dates_in(answer)
        return self._among(stated) if stated else None

    def mentioned(self, answer: str) -> bool:
        return self._among(dates_in(answer))

    def _among(self, stated: Iterable[DateMention]) -> bool:
        return any(gold.covers(date) for mention in stated for date in mention.dates for gold in self.readings)


@dataclass(frozen=True)
class _Expression:
    text: str
    kind: str = "text"

    def agrees(self, answer: str) -> bool | None:
        return states_expression(conclusion_of(answer) or answer, self.text) if answer.strip() else None

    def mentioned(self, answer: str) -> bool:
        return states_expression(answer, self.text)


@dataclass(frozen=True)
class _Text:
    text: str
    letter: str | None
    letters: str
    kind: str = "text"

    def agrees(self, answer: str) -> bool | None:
        if not answer.strip():
            return None
        if self.letter is not None and (chosen := extract_choice(answer, self.letters)) is not None:
            return chosen == self.letter
        if "".join(normal_words(answer)) == "".join(normal_words(self.text)) != "":
            return True
        return any(states(conclusion_of(answer) or answer, phrase) for phrase in self._phrases())

    def mentioned(self, answer: str) -> bool:
        return any(mentions(answer, phrase) for phrase in self._phrases())

    def _phrases(self) -> Iterator[str]:
        yield self.text
        words = normal_words(self.text)
        if len(words) > 1 and words[0] in ("the", "a", "an"):
            yield " ".join(words[1:])
        outside, bracket, _ = self.text.partition(" (")
        if bracket and self.text.rstrip().endswith(")"):
            yield outside


@dataclass(frozen=True)
class _Exact:
    text: str
    kind: str = "exact"

    def agrees(self, answer: str) -> bool | None:
        words = words_of(self.text)
        return words_of(answer) == words if words else answer.strip() == self.text

    def mentioned(self, answer: str) -> bool:
        return mentions(answer, self.text)


def form_of(gold: str, kind: GoldKind, prompt: str) -> GoldForm:
    """A right answer as the given kind, or as the first kind whose form it has.

    Raises:
        DataError: It does not have the form of `kind`.
    """
    right = gold.strip()
    if right.startswith("\\boxed{") and right.endswith("}"):
        right = (conclusion_of(right) or right).strip()
    options = options_in(prompt)
    letter = right.strip("().").upper()
    if kind in ("auto", "choice") and len(letter) == 1 and "A" <= letter <= "Z":
        return _Choice(letter, options if letter in options else {})
    if kind in ("auto", "yes_no") and (answer := yes_no_of(right)) is not None:
        return _YesNo(answer)
    if kind in ("auto", "number") and (number := _number_of(right, whole=kind == "auto")) is not None:
        return _Number(number)
    if kind in ("auto", "date") and (readings := date_of(right)) is not None:
        return _Date(readings)
    if kind == "exact":
        return _Exact(right)
    if kind in ("auto", "text") and right:
        if is_expression(right):
            return _Expression(right)
        own = next((name for name, text in options.items() if normal_words(text) == normal_words(right)), None)
        return _Text(right, own, "".join(options))
    expected = {"choice": "one letter", "yes_no": "yes, no, true or false", "number": "a number", "date": "a date"}
    raise DataError(f"field 'gold': expected {expected.get(kind, 'a text')} (kind={kind!r})")


def _number_of(right: str, *, whole: bool) -> Quantity | None:
    if not any(c.isnumeric() for c in right):  # a single word is compared as a text: "seven" may be a part of a name
        return quantity_of(right) if whole and len(normal_words(right)) > 1 else None
    if not whole or "####" in right:  # "####" ends the worked solutions of GSM8K
        return next(iter(concluding_numbers(right)), None)
    return quantity_of(right)
