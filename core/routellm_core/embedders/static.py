"""StaticEmbedder: prompt vectors from a token table and surface features, with numpy alone."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from routellm_core.embedders.base import FloatMatrix
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError, PromptError

CONFIG_FILE = "config.json"
VOCAB_FILE = "vocab.txt"
WEIGHTS_FILE = "model.safetensors"

# A long prompt is read through a window: its first and its last characters. The question stands at one of the ends, and
# the window bounds the cost of a prompt of any length.
HEAD_CHARS = 800
TAIL_CHARS = 400

_LEXICON_TEXT = {
    "code": """code python javascript java html css sql function script program bug error class api json regex algorithm
        compile array loop variable implement debug query database server linux bash def import return print assert""",
    "maths": """equation solve calculate compute integral derivative theorem prove proof probability sum product matrix
        vector polynomial triangle angle radius square root prime integer integers fraction area volume ratio
        percent function graph formula equal equals frac sqrt""",
    "steps": """each every per total remaining left more less fewer half twice double triple times altogether
        spend spends cost costs earn earns sell sells buy buys pay pays many much average rate""",
    "time": "day days week weeks month months year years hour hours minute minutes second seconds dollars dollar cents",
    "science": """energy force mass velocity temperature pressure electron atom molecule acid cell protein gene
        dna current voltage circuit reaction species enzyme chemical theory hypothesis patient disease clinical""",
    "law": "court law defendant plaintiff statute contract liability constitution jurisdiction statements statement argument",
    "reason": """why because if then must explain analyze compare evaluate prove deduce infer logic logical puzzle reasoning
        assume suppose given therefore consider determine conclude""",
    "negation": "not except least false incorrect never no cannot neither without unless none",
    "creative": """story poem song lyrics essay blog email letter write rewrite creative character imagine novel joke
        haiku slogan headline advertisement roleplay pretend paragraph tweet post speech""",
    "transform": "summarize summary translate paraphrase list extract classify format convert table outline correct grammar",
    "chat": "hi hello hey thanks thank please ok okay yes yo sup bye welcome lol good morning",
    "person": "i me my you your we our us",
    "third": "he she his her they their him them",
    "wh": "what which who whom whose where when",
    "how": "how",
    "function": "the of and a in to is that for it as with on by at from be was are this an or",
}
_LEXICON_NAMES = tuple(_LEXICON_TEXT)
_LEXICON = {word: i for i, words in enumerate(_LEXICON_TEXT.values()) for word in words.split()}

_ASCII_WORDS = re.compile(r"[a-z0-9]+|[^\sa-z0-9]").findall
# CJK ideographs stand alone, as in BERT's tokenizer; elsewhere a word is a run of letters and digits.
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_UNICODE_WORDS = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+|[^\w\s]|_").findall
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*").findall
_OPTIONS = re.compile(r"\n\(?([A-J])[.):] ?([^\n]*)").findall
_SENTENCES = re.compile(r"[.!?](?=\s|$)").findall
_CODE_MARKS = re.compile(r"```|\bdef \w+\(|[;{}]\s*\n|\w\(\w*\)|</\w+>|\bimport \w+|==|!=|=>|->|::").findall
_LATEX = re.compile(r"\\[a-zA-Z\[\]()]|\$[^$\n]{1,80}\$").findall
_MAX_WORD_CHARS = 100
_CACHE_WORDS = 50_000

SURFACE_NAMES: tuple[str, ...] = (
    "log_chars",
    "log_words",
    "log_lines",
    "log_sentences",
    "long",
    "word_length",
    "type_ratio",
    "piece_ratio",
    "uppercase_share",
    "digit_share",
    "log_numbers",
    "big_number",
    "decimal",
    "log_operators",
    "equals",
    "log_brackets",
    "log_quotes",
    "log_commas",
    "question_marks",
    "ends_with_question",
    "exclamation",
    "colons",
    "percent_or_money",
    "blank",
    "log_latex",
    "log_code_marks",
    "non_ascii_share",
    "non_latin",
    *(f"words_{name}" for name in _LEXICON_NAMES),
    "choice",
    "choice_options",
    "choice_log_option_chars",
    "choice_numeric_options",
    "choice_log_stem_chars",
    "choice_log_chars",
    "code_log_chars",
    "problem",
    "problem_log_chars",
    "problem_log_sentences",
    "problem_log_numbers",
    "other_log_chars",
    "short",
)


def window(text: str) -> str:
    """The part of a prompt that is read: all of it, or its first 800 and last 400 characters."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return text[:HEAD_CHARS] + "\n" + text[-TAIL_CHARS:]


def words_of(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks, accents and invisible characters removed."""
    lowered = text.lower()
    if lowered.isascii():
        words: list[str] = _ASCII_WORDS(lowered)
        return words
    decomposed = unicodedata.normalize("NFD", lowered)
    category = unicodedata.category
    # Mn: combining accents. Cf, Cc, Cs, Co, Cn: zero-width, control, lone surrogates, private: no meaning to the table.
    kept = "".join(
        c if c < "\x7f" or c.isspace() or not ((kind := category(c)) == "Mn" or kind[0] == "C") else "" for c in decomposed
    )
    words = _UNICODE_WORDS(kept)
    return words


def surface_features(text: str, words: Sequence[str], pieces: int) -> list[float]:
    """Raw surface features of a prompt, in the order of `SURFACE_NAMES`.

    Lengths and counts enter as log(1 + count). A prompt is of one kind: multiple choice, code, word problem (three or
    more numbers, neither of the former), or other; the ``KIND_log_chars`` features let a linear head
    have its own slope of length for each kind, which one common slope cannot give (a long word problem is hard, a long chat
    message need not be).

    Args:
        text: The prompt, whole.
        words: `words_of` its `window`.
        pieces: Number of wordpieces that the words gave.
    """
    log1p = math.log1p
    chars = len(text)
    seen = window(text)
    size = len(seen) or 1
    count = len(words)
    lexicon = [0] * len(_LEXICON_NAMES)
    get = _LEXICON.get
    for word in words:
        category = get(word)
        if category is not None:
            lexicon[category] += 1
    options = _OPTIONS(seen) if "\nB" in seen or "\n(B" in seen else ()
    numbers = _NUMBERS(seen)
    sentences = len(_SENTENCES(seen))
    code_marks = len(_CODE_MARKS(seen))
    latex = len(_LATEX(seen)) if "\\" in seen or "$" in seen else 0
    choice = len(options) >= 2
    code = not choice and code_marks >= 3
    problem = not choice and not code and len(numbers) >= 3 and seen.isascii()
    other = not (choice or code or problem)
    log_chars = log1p(chars)
    option_chars = sum(len(body) for _, body in options)
    stem_chars = max(chars - option_chars, 0)
    ascii_only = seen.isascii()
    non_ascii = 0 if ascii_only else sum(c > "\x7f" for c in seen)
    non_latin = 0 if ascii_only else sum(c > "\u02ff" and not "\u2000" <= c <= "\u2bff" for c in seen)
    stripped = seen.rstrip()
    find = seen.count
    digits = sum(map(len, numbers))
    operators = find("+") + find("*") + find("/") + find("^") + find("<") + find(">")
    equals = find("=")
    quotes = find('"') + find("“") + find("`")
    questions = find("?")
    exclamations = find("!")
    return [
        log_chars,
        log1p(count),
        log1p(text.count("\n")),
        log1p(sentences),
        1.0 if chars > HEAD_CHARS + TAIL_CHARS else 0.0,
        sum(map(len, words)) / (count + 4),
        len(set(words)) / (count + 4),
        (pieces - count) / (count + 4),
        sum(map(str.isupper, seen)) / size,
        digits / size,
        log1p(len(numbers)),
        1.0 if any(len(n) > 3 for n in numbers) else 0.0,
        1.0 if any("." in n for n in numbers) else 0.0,
        log1p(operators),
        log1p(equals),
        log1p(find("(") + find("[") + find("{")),
        log1p(quotes),
        log1p(find(",")),
        log1p(questions),
        1.0 if stripped.endswith("?") else 0.0,
        log1p(exclamations),
        log1p(find(":")),
        1.0 if "%" in seen or "$" in seen or "€" in seen else 0.0,
        1.0 if "__" in seen else 0.0,
        log1p(latex),
        log1p(code_marks),
        non_ascii / size,
        1.0 if non_latin * 5 > size else 0.0,
        *[log1p(n) for n in lexicon],
        1.0 if choice else 0.0,
        float(len(options)),
        log1p(option_chars) if choice else 0.0,
        sum(1 for _, body in options if body[:1].isdigit() or body[1:2].isdigit()) / len(options) if choice else 0.0,
        log1p(stem_chars) if choice else 0.0,
        log_chars if choice else 0.0,
        log_chars if code else 0.0,
        1.0 if problem else 0.0,
        log_chars if problem else 0.0,
        log1p(sentences) if problem else 0.0,
        log1p(len(numbers)) if problem else 0.0,
        log_chars if other else 0.0,
        1.0 / (1.0 + count),
    ]
