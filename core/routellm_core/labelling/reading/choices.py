"""Multiple choice and yes or no: the option that an answer settles on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from routellm_core.labelling.reading.phrases import normal_words, states

_LETTERS = "ABCDEFGHIJ"
_NOT_DENIED = r"(?!\s+(?:is|are|was|would\s+be)\s+(?:not|never|wrong|incorrect|false|n[o’']t)|\s+isn)"
_BETWEEN = r"(?:\s+(?:to|for|of|in|here|this|that|the|your|question|problem|choice|option|letter|therefore)){0,6}"

# From the most explicit way to name an option to the least; within a way the last mention counts, for that is where
# reasoning ends. A lower-case letter counts in parentheses only: "a" is a word.
_CHOICE_FORMS = (
    re.compile(r"\\boxed\{\s*(?:\\(?:text|mathrm|textbf)\{)?\s*\(?([A-Za-z])\)?[.:)]?\s*[^{}]*\}"),
    re.compile(
        rf"(?i:answer|choice|option){_BETWEEN}(?:\s+(?i:is|would\s+be|should\s+be)|\s*[*_]*\s*[:=])+[\s*_]*"
        r"(?i:option|choice|letter)?[\s*_:]*(?:\(([A-Za-z])\)|([A-Z])(?![\w'’])|([a-z])(?=[*_]*\s*(?:[.,;:!?)]|\Z)))"
    ),
    re.compile(r"\*\*[^\w*]{0,9}([A-Z])(?:[).:][^*]{0,200})?[^\w*]{0,9}\*\*"),
    re.compile(r"\A\W*(?:([A-Z])(?:[).:]|\W*\Z)|([a-z])(?:\)|\W*\Z))"),
    re.compile(r"^[ \t]*\**\(?([A-Z])\)?[.:]?\**[ \t]*$", re.MULTILINE),
    re.compile(
        r"(?i:\b(?:so|thus|therefore|hence|leaves|leaving)),?\s+(?i:it\s+is\s+|only\s+|option\s+)?\(?([A-Z])\)?(?=\W*\Z)"
    ),
    re.compile(rf"(?i:\bonly)\s+(?i:option\s+)?\(?([A-Z])\)?{_NOT_DENIED}\s+(?:is|works|fits|holds|remains|applies)\b"),
    re.compile(r"\(?\b([A-Z])\)?\s+is\s+(?:the\s+)?(?:most\s+)?(?:correct|right|best|true|answer|accurate)"),
    re.compile(
        rf"(?i:answer|choice|option|choose|pick|select|go\s+with|opt\s+for)\s+(?i:option\s+|choice\s+|letter\s+)?"
        rf"(?:\(([A-Za-z])\)|([A-Z])(?![\w'’])){_NOT_DENIED}"
    ),
    re.compile(r"\(([A-Za-z])\)"),
)
# "A" and "I" are words.
_LONE_LETTER = re.compile(
    r"(?<![A-Za-z0-9_'’.-])(?<!\b[Nn]ot )(?:([B-HJ-Z])|(A)(?!\s+(?!(?:and|or|is)\b)[a-z]))"
    r"(?![A-Za-z0-9_'’-])(?!\.[A-Za-z])"
)
_OPTION = re.compile(r"(?:^|\n|\s{2}|\t)\s{0,9}(?:\(([A-Z])\)|([A-Z])[).:])\s+(\S[^\n]*?)(?=\s{2,}\(?[A-Z][).]|\n|\Z)")

_YES_WORDS = {"yes": "yes", "yeah": "yes", "yep": "yes", "true": "yes", "no": "no", "nope": "no", "false": "no"}
_YES_WORDS_AND_JUDGEMENTS = {**_YES_WORDS, "correct": "yes", "right": "yes", "incorrect": "no", "wrong": "no"}
_YES_NO_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"\\boxed\{\W*(?:\\text\{)?\W*(yes|no|true|false)\b",
        rf"answer{_BETWEEN}(?:\s+(?:is|would\s+be|should\s+be)|\s*[*_\"]*\s*[:=])+[\s*_:\"'“]*(?:an?\s+\w+\s+)?(yes|no|true|false)\b",
        r"\*\*[^\w*]{0,9}(yes|no|true|false)\b[^\w*]{0,9}\*\*",
        r"\A\W*(yes|no|yeah|yep|nope|true|false|correct|incorrect|right|wrong)\b"
        r"(?=\s*[,.;:!?*)\n—–-]|\s*\Z|\s+(?:it|they|he|she|this|that|the|there|you|we|i|because|since)\b)",
        r"\A\W*((?:absolutely|definitely|certainly|of\s+course|indeed|not\s+at\s+all|never)(?:\s+not)?)\b",
        r"\b(?:statement|claim|sentence|that|this|it|which)\s*(?:is|[’']s)\s+(?:indeed\s+|actually\s+|therefore\s+)?"
        r"(not\s+(?:true|correct|right|false)|true|false|correct|incorrect|right|wrong)\b",
        r"(?:^|[.!?\n]\s{0,9}|\b(?:so|thus|therefore|hence),?\s+)(yes|no|true|false)\b(?=\s*[,.;:!?*)\n—–-]|\s*\Z)",
    )
)


def extract_choice(answer: str, letters: Iterable[str] = _LETTERS) -> str | None:
    """The option that a multiple-choice answer settles on, or None.

    Explicit forms go first (``\\boxed{B}``, "the answer is (B)"), then an emphasised letter, one that begins the answer
    or stands alone on a line, "B is correct", "option B", "(B)", and at last the only letter that the answer names. Of
    several mentions of one form the last one counts.
    """
    known = set(letters)
    text = answer.strip()
    for form in _CHOICE_FORMS:
        found = [letter for m in form.finditer(text) if (letter := m[m.lastindex or 0].upper()) in known]
        if found:
            return found[-1]
    lone = {letter for m in _LONE_LETTER.finditer(text) if (letter := m[1] or m[2]) in known}
    return lone.pop() if len(lone) == 1 else None


def options_in(prompt: str) -> dict[str, str]:
    """The options of a multiple-choice prompt, by their letters; empty unless they run from A without a gap."""
    options: dict[str, str] = {}
    for match in _OPTION.finditer(prompt):
        options.setdefault(match[1] or match[2], match[3].strip())
    expected = [chr(ord("A") + i) for i in range(len(options))]
    return options if len(options) > 1 and sorted(options) == expected else {}


def chosen_by_text(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the only option whose text an answer states; None when it states none or several."""
    stated = [letter for letter, text in options.items() if states(answer, text)]
    if len(stated) > 1:  # "Lake Victoria" states "Victoria", too
        longest = max(stated, key=lambda letter: len(normal_words(options[letter])))
        if all(states(options[longest], options[letter]) for letter in stated):
            return longest
        return None
    return stated[0] if stated else None


def extract_yes_no(answer: str) -> bool | None:
    """Whether an answer says yes (or true), or no (or false); None when it says neither."""
    text = answer.strip()
    for form in _YES_NO_FORMS:
        found = [re.sub(r"\s+", " ", m[1].lower()) for m in form.finditer(text)]
        if found:
            return _says_yes(found[-1])
    words = {word for word in normal_words(text) if word in _YES_WORDS}
    return True if words == {"yes"} else None  # "no" alone may belong to a noun


def _says_yes(words: str) -> bool:
    first, *rest = words.split()
    if first == "not" and rest != ["at", "all"]:
        return _YES_WORDS_AND_JUDGEMENTS[rest[0]] == "no"
    if first in ("not", "never") or rest[-1:] == ["not"]:
        return False
    return _YES_WORDS_AND_JUDGEMENTS.get(first, "yes") == "yes"


def yes_no_of(gold: str) -> bool | None:
    """Whether a gold answer is a yes or a no; None for any other text."""
    value = _YES_WORDS.get(gold.strip().strip(".!").lower())
    return None if value is None else value == "yes"
