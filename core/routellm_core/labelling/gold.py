"""Gold labels: answers graded against a known right answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from routellm_core.data.contamination import words_of
from routellm_core.data.records import AnsweredPrompt, Outcome
from routellm_core.errors import ConfigurationError, DataError

GoldKind = Literal["auto", "choice", "number", "exact"]

# From the most explicit way to give a letter to the least; within a way the last mention counts. A lower-case letter
# counts in parentheses only: "a" is a word.
_CHOICE_PATTERNS = (
    re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*\(?([A-Za-z])\)?\s*\}"),
    re.compile(
        r"(?i:answer|choice|option)(?:\s+(?i:is|would\s+be|should\s+be)|\s*[:=])+\s*(?i:option|choice)?[\s*]*"
        r"(?:\(([A-Za-z])\)|([A-Z])(?![\w']))"
    ),
    re.compile(r"^\W*([A-Z])(?:[).:]|\W*$)"),
    re.compile(r"^\s*\**\(?([A-Z])\)?[.:]?\**\s*$", re.MULTILINE),
    re.compile(r"\(([A-Za-z])\)"),
)
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(rf"(?<![\w.])({_NUMBER})(?=\D|$)")
_MARKED_NUMBERS = (
    re.compile(rf"####\s*\$?\s*({_NUMBER})"),
    re.compile(rf"\\boxed\{{\s*\\?\$?\s*({_NUMBER})"),
    re.compile(rf"(?:answer|total)(?:\s+is|\s*[:=])+\s*\**\s*\\?\$?\s*({_NUMBER})", re.IGNORECASE),
)


def extract_choice(answer: str, letters: str = "ABCDEFGHIJ") -> str | None:
    """The option that a multiple-choice answer settles on, or None.

    Explicit forms go first (``\\boxed{B}``, "the answer is (B)"), then a letter that begins the answer or stands alone
    on a line; of several the last one counts, for that is where reasoning ends.
    """
    text = answer.strip()
    for pattern in _CHOICE_PATTERNS:
        found = [letter for m in pattern.finditer(text) if (letter := m[m.lastindex or 0].upper()) in letters]
        if found:
            return found[-1]
    return None


def extract_number(answer: str) -> Decimal | None:
    """The number that an answer settles on, or None.

    Explicit forms go first (after ``####``, in ``\\boxed{}``, after "the answer is"), then the last number there is.
    """
    text = answer.replace("\u2212", "-")
    for pattern in (*_MARKED_NUMBERS, _NUMBERS):
        for found in reversed(pattern.findall(text)):
            try:
                return Decimal(found.replace(",", ""))
            except InvalidOperation:  # an empty match, or a sign alone
                continue
    return None


def grade(answer: str, gold: str, kind: GoldKind = "auto") -> bool | None:
    """Whether an answer agrees with the right one.

    Args:
        answer: The model's answer, with any reasoning.
        gold: The right answer: a letter, a number (GSM8K's ``... #### 42`` will do), or a text.
        kind: ``"choice"`` compares letters, ``"number"`` numbers by value, ``"exact"`` all words (but for case,
            punctuation and spacing); ``"auto"`` takes the first of the three whose form `gold` has.

    Returns:
        True or False; None when no letter or number could be found in the answer.

    Raises:
        ConfigurationError: An unknown kind.
        DataError: `gold` has not the form that `kind` says.
    """
    if kind not in get_args(GoldKind):
        raise ConfigurationError(f"kind={kind!r}: expected one of {', '.join(get_args(GoldKind))}")
    right = gold.strip()
    letter = right.strip("().").upper()
    number = extract_number(right)
    is_choice = len(letter) == 1 and "A" <= letter <= "Z"
    is_number = number is not None and ("####" in right or re.fullmatch(rf"\$?\s*{_NUMBER}\s*%?", right) is not None)
    if kind == "auto":
        kind = "choice" if is_choice else "number" if is_number else "exact"
    if kind == "choice":
        if not is_choice:
            raise DataError("field 'gold': expected one letter for a multiple-choice question")
        given = extract_choice(answer, letters="ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter > "J" else "ABCDEFGHIJ")
        return None if given is None else given == letter
    if kind == "number":
        if number is None:
            raise DataError("field 'gold': expected a number")
        value = extract_number(answer)
        return None if value is None else value == number
    return words_of(answer) == words_of(right) if words_of(right) else answer.strip() == right


@dataclass
class GoldReport:
    """What gold labelling did.

    Attributes:
        rows: Rows labelled.
        unreadable: Answers, by model, in which no letter or number was found; they count as wrong.
        without_gold: Rows left out because they have no right answer, or none of that form.
        without_answers: Rows left out because they have no answers.
    """

    rows: int = 0
    unreadable: dict[str, int] = field(default_factory=dict)
    without_gold: int = 0
    without_answers: int = 0


def gold_outcomes(
    rows: Iterable[AnsweredPrompt], *, kind: GoldKind = "auto", report: GoldReport | None = None
) -> Iterator[Outcome]:
    """Score answers 1 where they agree with the right one and 0 where they do not, row by row.

    Args:
        rows: Prompts with `answers` and `gold`.
        kind: See `grade`.
        report: Where to count what was done and left out.

    Yields:
        An outcome for each row that has answers and a right one.
    """
    tally = report if report is not None else GoldReport()
    for row in rows:
        if not row.answers:
            tally.without_answers += 1
            continue
        try:
            if row.gold is None:
                raise DataError("field 'gold': missing")
            grades = {model: grade(answer, row.gold, kind) for model, answer in row.answers.items()}
        except DataError:
            tally.without_gold += 1
            continue
        for model, agrees in grades.items():
            if agrees is None:
                tally.unreadable[model] = tally.unreadable.get(model, 0) + 1
        tally.rows += 1
        yield Outcome(
            prompt=row.prompt,
            scores={model: float(agrees is True) for model, agrees in grades.items()},
            id=row.id,
            source=row.source or "gold",
            weight=row.weight,
        )
