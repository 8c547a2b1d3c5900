r"""Numbers in prose: separators, units, fractions, LaTeX and number words.

Values are exact (`fractions.Fraction`). A number may have several readings: "1.234" is a decimal in English and a
thousand and more in German.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from routellm_core.labelling.reading.dates import dates_in

# Dimension -> spellings -> size. Plurals in -s are understood. Upper and lower case are alike.
_UNIT_TABLE: dict[str, dict[str, str]] = {
    "length": {
        "nm|nanometer|nanometre": "1/1000000000",
        "µm|um|micrometer|micrometre|micron": "1/1000000",
        "mm|millimeter|millimetre": "1/1000",
        "cm|centimeter|centimetre": "1/100",
        "m|meter|metre": "1",
        "km|kilometer|kilometre": "1000",
        "inch|inches": "127/5000",
        "ft|foot|feet": "381/1250",
        "yd|yard": "1143/1250",
        "mi|mile": "201168/125",
    },
    "area": {
        "cm^2|sq cm|square centimeter|square centimetre": "1/10000",
        "m^2|sq m|square meter|square metre": "1",
        "ha|hectare": "10000",
        "km^2|sq km|square kilometer|square kilometre": "1000000",
        "square mile|sq mi|mi^2": "40468564224/15625",
        "square foot|square feet|sq ft|ft^2": "145161/1562500",
    },
    "volume": {
        "ml|milliliter|millilitre|cm^3|cubic centimeter|cubic centimetre": "1/1000",
        "cl|centiliter|centilitre": "1/100",
        "l|liter|litre": "1",
        "m^3|cubic meter|cubic metre": "1000",
        "gallon": "473176473/125000000",
    },
    "mass": {
        "mg|milligram": "1/1000000",
        "g|gram|gramme": "1/1000",
        "kg|kilogram|kilo": "1",
        "tonne|metric ton": "1000",
        "lb|pound": "45359237/100000000",
        "oz|ounce": "45359237/1600000000",
    },
    "time": {
        "ms|millisecond": "1/1000",
        "s|sec|second": "1",
        "min|minute": "60",
        "h|hr|hour": "3600",
        "day": "86400",
        "week": "604800",
    },
    "month": {"month": "1"},
    "year": {"year|yr": "1", "decade": "10", "century|centuries": "100", "millennium|millennia": "1000"},
    "speed": {
        "km/s|kilometer per second|kilometre per second": "1000",
        "m/s|mps|meter per second|metre per second": "1",
        "km/h|kmh|kph|km per hour|kilometer per hour|kilometre per hour": "5/18",
        "mph|mile per hour": "1397/3125",
    },
    "acceleration": {"m/s^2|meter per second squared|metre per second squared": "1"},
    "celsius": {"°c|degree celsius|degree c|celsius": "1"},
    "fahrenheit": {"°f|degree fahrenheit|degree f|fahrenheit": "1"},
    "kelvin": {"kelvin|k": "1"},
    "data": {"kb|kilobyte": "1", "mb|megabyte": "1000", "gb|gigabyte": "1000000", "tb|terabyte": "1000000000"},
    "energy": {"j|joule": "1", "kj|kilojoule": "1000", "kcal|kilocalorie": "4184", "kwh|kilowatt-hour": "3600000"},
    "power": {"w|watt": "1", "kw|kilowatt": "1000", "megawatt": "1000000"},
    "dollar": {"$|usd|dollar": "1", "cent": "1/100"},
    "euro": {"€|eur|euro": "1"},
    "sterling": {"£|gbp": "1"},
    "yen": {"¥|jpy|yen": "1"},
    "rupee": {"₹|inr|rupee": "1"},
}
_UNITS = {
    spelling: (dimension, Fraction(size))
    for dimension, sizes in _UNIT_TABLE.items()
    for spellings, size in sizes.items()
    for spelling in spellings.split("|")
}
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "k": 10**3, "million": 10**6, "mn": 10**6, "m": 10**6, "billion": 10**9,
    "bn": 10**9, "b": 10**9, "trillion": 10**12, "dozen": 12,
}  # fmt: skip
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = {word: i for i, word in enumerate(_SMALL)} | {word: 10 * i for i, word in enumerate(_TENS, start=2)}
_WORD_SCALES = {name: _SCALES[name] for name in ("hundred", "thousand", "million", "billion", "trillion", "dozen")}

_NUMBER = re.compile(
    r"""
    (?<![\w.^/])(?<!\d:)             # not inside a word, a version, a power, a fraction or a time
    (?P<sign>(?<![\w)\]}])[-+])?
    (?P<currency>[$€£¥₹]\s?-?)?
    (?:
        (?P<whole>\d+)\s+(?P<part>\d+)/(?P<parts>[1-9]\d*)(?![\d/])
      | (?P<numerator>\d+(?:\.\d+)?)\s?/\s?(?P<denominator>[1-9]\d*(?:\.\d+)?)(?![\d/])
      | (?P<grouped>[1-9]\d{0,2}(?P<by>[,.'’ \u00a0\u2009\u202f])\d{3}(?:(?P=by)\d{3})*(?!\d))
        (?:(?P<point>[.,])(?P<tail>\d+)(?![\d,.]\d))?
      | (?P<plain>(?!\d+:\d)(?<!\d,)\d+,\d{1,2}(?![\d,])|0,\d+|\d+,\d{4,}(?!,)|\d+(?:\.\d+)?|\.\d+)
    )
    (?: \^\s?\{?(?P<raised>-?\d{1,2})(?!\d)\}? )?
    (?: [eE](?P<exponent>[-+]?\d+)(?!\w) | \s?[×x*]\s?10\s?\^\s?\{?(?P<power>[-+]?\d+)\}? )?
    (?: (?P<attached>(?-i:[kKMB]|bn|mn))(?!\w)
      | \s?-?\s?(?P<scale>hundred|thousand|million|billion|trillion|dozen)s?\b
    )?
    (?P<percent>\s?%|\s(?:percent|per\ cent|pct)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNIT_AFTER = re.compile(
    r"[\s~-]{0,2}([^\W\d_]+(?:\^[23])?(?:/[a-z]+(?:\^[23])?)?|°\s?[cf](?![a-z])|[€£¥₹])"
    r"(?:\s+([a-z]+))?(?:\s+([a-z]+))?(?:\s+([a-z]+))?",
    re.IGNORECASE,
)
_PARTS = {
    name + plural: size
    for size, names in {2: ("half",), 3: ("third",), 4: ("quarter", "fourth"), 5: ("fifth",), 6: ("sixth",),
                        8: ("eighth",), 10: ("tenth",), 100: ("hundredth",)}.items()
    for name in names for plural in ("", "s")
} | {"halves": 2}  # fmt: skip
_PART_NAMES = "|".join(sorted(_PARTS, key=len, reverse=True))
_PARTS_AFTER = re.compile(rf"[\s-]+({_PART_NAMES})\b", re.IGNORECASE)
_PART = re.compile(rf"(?:an?\s+({_PART_NAMES})|(half))\b", re.IGNORECASE)
_AND_A_HALF = re.compile(r"\s+and\s+a\s+half\b", re.IGNORECASE)
_PERCENT_AFTER = re.compile(r"\s+(?:percent|per\s+cent)\b", re.IGNORECASE)
_NEGATIVE = re.compile(r"\b(?:minus|negative)\s\Z", re.IGNORECASE)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_FRAC = re.compile(r"\\[dt]?frac\s*(?:\{\s*([^{}]*?)\s*\}|(\d))\s*(?:\{\s*([^{}]*?)\s*\}|(\d))")
# $x$, but not "$5 and $6"
_MATH = re.compile(r"(?<![\\$])\$(?=[^\s$])([^$\n]{0,500}?[^\s$\\])\$(?![\d$])")
_DECADE = re.compile(r"\d+0s")
_WRITTEN = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Quantity:
    """A number in a text.

    Attributes:
        values: Its readings, the likeliest first; never empty.
        unit: Dimension and size of its unit; None where it has none that is known.
        percent: Whether it is a percentage; the values then are the number before the sign.
        decimals: Digits after the decimal point; None for a fraction.
        start: Where it begins in the text as `plain_math` writes it.
        end: Where it ends, its unit included.
    """

    values: tuple[Fraction, ...]
    unit: tuple[str, Fraction] | None = None
    percent: bool = False
    decimals: int | None = 0
    start: int = 0
    end: int = 0

    def equals(self, gold: Quantity) -> bool:
        """Whether this number states the value of `gold`.

        A unit counts where both have one; a percentage equals the number before its sign and, against a number without
        the sign, its hundredth. A value with more decimals than `gold`, or a fraction, may round to it where `gold` has
        two decimals at least.
        """
        if self.unit is not None and gold.unit is not None:
            dimensions = {self.unit[0], gold.unit[0]}
            if len(dimensions) > 1 and dimensions != {"mass", "sterling"}:  # both have pounds
                return False
            factor = self.unit[1] / gold.unit[1] if len(dimensions) == 1 else Fraction(1)
        else:
            factor = Fraction(1)
        factors = [factor]
        if self.percent != gold.percent:
            factors.append(factor / 100 if self.percent else factor * 100)
        return any(
            value * by == gold.values[0] or self._rounds_to(value, by, gold) for value in self.values for by in factors
        )

    def _rounds_to(self, value: Fraction, by: Fraction, gold: Quantity) -> bool:
        if gold.decimals is None:  # a fraction against its decimals
            if self.decimals is None or self.decimals < 2:
                return False
            exact = gold.values[0] / by
            return value in (round(exact, self.decimals), Fraction(int(exact * 10**self.decimals), 10**self.decimals))
        finer = self.decimals is None or self.decimals > gold.decimals
        return gold.decimals >= 2 and finer and round(value * by, gold.decimals) == gold.values[0]


def plain_math(text: str) -> str:
    r"""Write LaTeX, superscripts, vulgar fractions and signs of a text in plain characters, such as 1/2 and 10^8."""
    if not text.isascii():
        text = "".join(_plain_character(c) for c in text)
        text = re.sub(r"(?<=[\w)])[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = re.sub(
        r"(?<![\\$])\$(?=[^\s$])([^$\n]*?[^\s$\\])\$(?![\d$])", r" \1 ", text.replace("$$", " ")
    )  # $x$ is math
    if "\\" in text or "{" in text:
        text = re.sub(r"\\[()\[\]]", " ", text)
        text = re.sub(r"\\(?:text|mathrm|textbf|mathbf|mbox|textit)\s*\{([^{}]*)\}", r" \1 ", text)
        text = _FRAC.sub(_plain_fraction, text)
        text = text.replace("{,}", ",")
        text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b", "°", text)
        text = re.sub(r"\\times\b|\\cdot\b", "×", text)
        text = re.sub(r"\\(?:left|right|displaystyle)\b|\\[!,;:]", "", text)
        text = re.sub(r"\\([%$])", r"\1", text)
    return re.sub(r"\b(?:minus|negative)\s+(?=\d)", "-", text, flags=re.IGNORECASE)


def _plain_character(character: str) -> str:
    if character in "−‒–":
        return "-"
    if character in "·⋅":
        return "×"
    if "<fraction>" in unicodedata.decomposition(character):
        return " " + unicodedata.normalize("NFKC", character).replace("⁄", "/")
    return character


def _plain_fraction(match: re.Match[str]) -> str:
    above, below = match[1] or match[2] or "", match[3] or match[4] or ""
    simple = re.compile(r"-?\d+(?:\.\d+)?")
    plain = simple.fullmatch(above) is not None and simple.fullmatch(below) is not None
    # a digit before it makes a mixed number, a sign before it belongs to it
    space = " " if match.string[: match.start()][-1:].isalnum() else ""
    return space + (f"{above}/{below} " if plain else f"({above})/({below}) ")


def quantities_in(text: str) -> list[Quantity]:
    """The numbers of a text that `plain_math` has written, in order; number words are not among them.

    A date gives its year, if it has one, and nothing else.
    """
    found = []
    masked = list(text)
    for mention in dates_in(text):
        masked[mention.start : mention.end] = " " * (mention.end - mention.start)
        year = mention.dates[0].year
        if year is not None:
            found.append(Quantity((Fraction(year),), start=mention.start, end=mention.end))
    rest = "".join(masked)
    # beyond some hundred digits a text means no number, and must not make us compute for minutes
    found += [_quantity(match, rest) for match in _NUMBER.finditer(rest) if match.end() - match.start() < 400]
    return sorted(found, key=lambda quantity: quantity.start)


def _quantity(match: re.Match[str], text: str) -> Quantity:
    groups = match.groupdict()
    values, decimals = _values(groups)
    if groups["raised"] is not None and any(values):
        values = [value ** int(groups["raised"]) for value in values]
    power = int(groups["exponent"] or groups["power"] or 0)
    factor = Fraction(_SCALES.get((groups["attached"] or groups["scale"] or "").lower(), 1))
    if 0 < abs(power) <= 400:
        factor *= Fraction(10) ** power
    if "-" in (groups["sign"] or "") + (groups["currency"] or ""):
        factor = -factor
    unit, end = (None, match.end()) if groups["percent"] else _unit_after(text, match.end())
    if groups["currency"]:
        unit = _UNITS[groups["currency"][0]]
    return Quantity(
        tuple(values if factor == 1 else (factor * value for value in values)),
        unit,
        percent=bool(groups["percent"]),
        decimals=decimals,
        start=match.start(),
        end=end,
    )


def _values(groups: dict[str, str | None]) -> tuple[list[Fraction], int | None]:
    """The readings of a number without sign and scale, and its decimals."""
    if groups["whole"] is not None:
        return [int(groups["whole"]) + Fraction(int(groups["part"] or 0), int(groups["parts"] or 1))], None
    if groups["numerator"] is not None:
        return [Fraction(groups["numerator"]) / Fraction(groups["denominator"] or 1)], None
    if groups["grouped"] is not None:
        by, tail = groups["by"] or "", groups["tail"]
        whole = groups["grouped"].replace(by, "")
        if tail is not None and groups["point"] == by:  # 1.234.5 is no number; its first part is
            tail = None
        if tail is not None:
            return [Fraction(f"{whole}.{tail}")], len(tail)
        parts = groups["grouped"].split(by)
        if by == "." and len(parts) == 2:
            return [Fraction(groups["grouped"]), Fraction(whole)], len(parts[1])
        if by == " ":
            return [Fraction(whole), Fraction(parts[-1])], 0
        return [Fraction(whole)], 0
    text = (groups["plain"] or "0").replace(",", ".")
    return [Fraction(text)], len(text.partition(".")[2])


def _unit_after(text: str, position: int) -> tuple[tuple[str, Fraction] | None, int]:
    """The unit that follows a number, and where it ends; the longest that is known."""
    match = _UNIT_AFTER.match(text, position)
    if match is None:
        return None, position
    words = [match[i].lower() for i in (1, 2, 3, 4) if match[i]]
    for count in range(len(words), 0, -1):
        unit = unit_of(" ".join(words[:count]))
        if unit is not None:
            return unit, match.end(count)
    return None, position


def unit_of(name: str) -> tuple[str, Fraction] | None:
    """Dimension and size of a unit by its name in lower case; None for an unknown one."""
    first, _, rest = re.sub(r"\s+", " ", name.replace("° ", "°")).partition(" ")
    singular = first.removesuffix("s") if len(first) > 2 else first
    for head in (first, singular):
        for tail in (rest, rest.removesuffix("s")):
            if (unit := _UNITS.get(f"{head} {tail}".strip())) is not None:
                return unit
    return None


def written_numbers_in(text: str) -> list[Quantity]:
    """The numbers of a text that are written in words, such as "one hundred and five" or "two thirds", in order."""
    found: list[Quantity] = []
    run: list[re.Match[str]] = []

    def close() -> None:
        while run and run[-1][0].lower() == "and":
            run.pop()
        if run:
            value = _written_value([word[0].lower() for word in run])
            found.append(_written_quantity(text, Fraction(value), start=run[0].start(), end=run[-1].end()))
        run.clear()

    for match in _WRITTEN.finditer(text):
        word = match[0].lower()
        joined = bool(run) and re.fullmatch(r"[\s-]*", text[run[-1].end() : match.start()]) is not None
        if not joined or not _continues(run[-1][0].lower(), word):
            close()
        if run or word in NUMBER_WORDS or word in _WORD_SCALES:
            run.append(match)
        elif (part := _PART.match(text, match.start())) is not None and not (found and match.start() < found[-1].end):
            found.append(
                Quantity(
                    (Fraction(1, _PARTS[(part[1] or part[2]).lower()]),),
                    decimals=None,
                    start=part.start(),
                    end=part.end(),
                )
            )
    close()
    return found


def _written_quantity(text: str, value: Fraction, *, start: int, end: int) -> Quantity:
    """The number in words, with what follows it: a fraction, a half, percent or a unit."""
    decimals: int | None = 0
    if (sign := _NEGATIVE.search(text[max(0, start - 10) : start])) is not None:
        value, start = -value, start - len(sign[0])
    if (part := _PARTS_AFTER.match(text, end)) is not None:
        value, end, decimals = value / _PARTS[part[1].lower()], part.end(), None
    elif (half := _AND_A_HALF.match(text, end)) is not None:
        value, end, decimals = value + Fraction(1, 2), half.end(), None
    if (percent := _PERCENT_AFTER.match(text, end)) is not None:
        return Quantity((value,), percent=True, decimals=decimals, start=start, end=percent.end())
    unit, end = _unit_after(text, end)
    return Quantity((value,), unit, decimals=decimals, start=start, end=end)


def _continues(last: str, word: str) -> bool:
    """Whether a word continues the number that ends in `last`, as in "twenty one" but not in "two three"."""
    if word in _WORD_SCALES:
        return last != "and"
    if word == "and":
        return last in _WORD_SCALES
    if word not in NUMBER_WORDS:
        return False
    return last in _WORD_SCALES or last == "and" or (last in _TENS and 0 < NUMBER_WORDS[word] < 10)


def _written_value(words: list[str]) -> int:
    total = current = 0
    for word in words:
        if word == "and":
            continue
        if word == "hundred":
            current = max(current, 1) * 100
        elif word in _WORD_SCALES:
            total, current = total + max(current, 1) * _WORD_SCALES[word], 0
        else:
            current += NUMBER_WORDS[word]
    return total + current


def quantity_of(text: str) -> Quantity | None:
    """The number that a text is, with a unit or with what is counted, and nothing else; None for any other text.

    "18", "$1,234.50", "12 km/h", "3/4", "seven" and "12 apples" are numbers; "21 Pilots" and "World War 2" are not.
    """
    plain = plain_math(text).strip().removesuffix(".").rstrip()
    numbers = quantities_in(plain)
    if len(numbers) == 1 and not dates_in(plain):
        before, after = plain[: numbers[0].start].strip(), plain[numbers[0].end :].strip()
        counted = re.fullmatch(r"(?:[a-zµ°]+(?:[ -][a-z]+){0,2})?", after)
        about = re.fullmatch(r"[~≈]?|about|approximately|approx\.?|around|roughly|nearly|circa", before, re.IGNORECASE)
        return numbers[0] if about and counted and not _DECADE.fullmatch(plain) else None
    written = [] if numbers else written_numbers_in(plain)
    if len(written) == 1 and (written[0].start, written[0].end) == (0, len(plain)):
        return written[0]
    return None
