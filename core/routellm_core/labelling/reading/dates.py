"""Dates in English prose and in numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_MONTH_NUMBERS = {name: i for i, full in enumerate(_MONTHS, start=1) for name in (full, full[:3])} | {"sept": 9}
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
    "twentieth", "twenty-first", "twenty-second", "twenty-third", "twenty-fourth", "twenty-fifth", "twenty-sixth",
    "twenty-seventh", "twenty-eighth", "twenty-ninth", "thirtieth", "thirty-first",
)  # fmt: skip
ORDINAL_NUMBERS = {name: i for i, name in enumerate(_ORDINALS, start=1)}

_MONTH = rf"(?P<month>(?:{'|'.join(sorted(_MONTH_NUMBERS, key=len, reverse=True))})\b\.?)"
_DAY = rf"(?P<day>(?:{'|'.join(sorted(_ORDINALS, key=len, reverse=True))}|\d{{1,2}}(?:st|nd|rd|th)?)\b)"
_YEAR = r"(?P<year>\d{4}\b)"
_FORMS = tuple(
    re.compile(rf"(?<![\w./-]){form}(?![\w/])", re.IGNORECASE)
    for form in (
        rf"{_MONTH}\s+(?:the\s+)?{_DAY},?\s+{_YEAR}",
        rf"{_DAY}\s+(?:day\s+)?(?:of\s+)?{_MONTH},?\s+(?:of\s+)?{_YEAR}",
        rf"{_MONTH},?\s+(?:of\s+)?{_YEAR}",
        rf"{_MONTH}\s+(?:the\s+)?{_DAY}",
        rf"{_DAY}\s+(?:day\s+)?(?:of\s+)?{_MONTH}",
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})(?:T[\d:.]+Z?)?",
        r"(?P<first>\d{1,2})(?P<separator>[-/.])(?P<second>\d{1,2})(?P=separator)(?P<year>\d{4})",
    )
)
# Most texts have no date; one look is cheaper than one for each form.
_ANY = re.compile(rf"\b(?:{'|'.join(_MONTH_NUMBERS)})\b|\d[-/.]\d{{1,2}}[-/.]\d", re.IGNORECASE)
_AROUND = re.compile(r"(?:on|in|the|(?:mon|tues|wednes|thurs|fri|satur|sun)day|,|\s)*", re.IGNORECASE)


@dataclass(frozen=True)
class Date:
    """A date, or what is stated of it."""

    year: int | None
    month: int
    day: int | None

    def covers(self, other: Date) -> bool:
        """Whether `other` states all that this date does, and the same."""
        return (
            self.month == other.month
            and (self.year is None or self.year == other.year)
            and (self.day is None or self.day == other.day)
        )


@dataclass(frozen=True)
class DateMention:
    """A date in a text.

    Attributes:
        dates: Its readings: 03/04/2020 has two.
        start: Where it begins.
        end: Where it ends.
    """

    dates: tuple[Date, ...]
    start: int
    end: int


def dates_in(text: str) -> list[DateMention]:
    """All dates of a text in order; a year alone is not one of them."""
    found: list[DateMention] = []
    for form in _FORMS if _ANY.search(text) else ():
        for match in form.finditer(text):
            if any(match.start() < other.end and other.start < match.end() for other in found):
                continue  # part of a longer form
            dates = tuple(_readings(match))
            if dates:
                found.append(DateMention(dates, match.start(), match.end()))
    return sorted(found, key=lambda mention: mention.start)


def date_of(text: str) -> tuple[Date, ...] | None:
    """The readings of a text that is one date and nothing else; None for any other text."""
    mentions = dates_in(text)
    if len(mentions) != 1:
        return None
    rest = text[: mentions[0].start] + " " + text[mentions[0].end :].rstrip(". ")
    return mentions[0].dates if _AROUND.fullmatch(rest) else None


def _readings(match: re.Match[str]) -> Iterator[Date]:
    groups = match.groupdict()
    year = None if groups.get("year") is None else int(groups["year"])
    candidates: list[tuple[int, int | None]]
    if groups.get("first"):
        first, second = int(groups["first"]), int(groups["second"])
        candidates = [(first, second), (second, first)] if first != second else [(first, second)]
    else:
        month = groups["month"].lower().rstrip(".")
        candidates = [(_MONTH_NUMBERS.get(month) or int(month), _day(groups.get("day")))]
    for month_number, day in candidates:
        if 1 <= month_number <= 12 and (day is None or 1 <= day <= 31):
            yield Date(year, month_number, day)


def _day(text: str | None) -> int | None:
    if text is None:
        return None
    return ORDINAL_NUMBERS.get(text.lower()) or int(re.sub(r"\D", "", text))
