"""StaticEmbedder: prompt vectors from a token table and surface features, with numpy alone."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from routellm_core.checks import (
    check_format,
    damage_named,
    is_number,
    read_file,
    read_json_object,
    read_only,
    read_tensors,
    shown,
)
from routellm_core.embedders.base import FloatMatrix
from routellm_core.embedders.glossary import Glossary
from routellm_core.errors import CheckpointError, ConfigurationError, PromptError
from routellm_core.workers import in_background

CONFIG_FILE = "config.json"
VOCAB_FILE = "vocab.txt"
WEIGHTS_FILE = "model.safetensors"
GLOSSARY_FILE = "glossary.txt"
FORMAT = 1
_MAX_VOCAB_BYTES = 64 * 1024 * 1024

# Increase this whenever a feature or the splitting into words changes: vectors of saved routers must not change
# silently.
FEATURES_VERSION = 2
# Of a long prompt, only the first and the last characters are read. The question is usually at one of the ends, and
# this bounds the cost of a prompt of any length.
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
    "number": """one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty
        hundred thousand third quarter dozen first""",
    "time": "day days week weeks month months year years hour hours minute minutes second seconds dollars dollar cents",
    "science": """energy force mass velocity temperature pressure electron atom molecule acid cell protein gene
        dna current voltage circuit reaction species enzyme chemical theory hypothesis patient disease clinical""",
    "law": """court law defendant plaintiff statute contract liability constitution jurisdiction statements statement
        argument""",
    "reason": """why because if then must explain analyze compare evaluate prove deduce infer logic logical puzzle
        reasoning assume suppose given therefore consider determine conclude""",
    "negation": "not except least false incorrect never no cannot neither without unless none",
    "creative": """story poem song lyrics essay blog email letter write rewrite creative character imagine novel joke
        haiku slogan headline advertisement roleplay pretend paragraph tweet post speech""",
    "transform": """summarize summary translate paraphrase list extract classify format convert table outline correct
        grammar""",
    "chat": "hi hello hey thanks thank please ok okay yes yo sup bye welcome lol good morning",
    "person": "i me my you your we our us",
    "third": "he she his her they their him them",
    "wh": "what which who whom whose where when",
    "how": "how",
    "function": "the of and a in to is that for it as with on by at from be was are this an or",
}
_LEXICON_NAMES = tuple(_LEXICON_TEXT)
_NUMBER, _STEPS, _SCIENCE, _LAW = map(_LEXICON_NAMES.index, ("number", "steps", "science", "law"))
_LEXICON = {word: i for i, words in enumerate(_LEXICON_TEXT.values()) for word in words.split()}

_ASCII_WORDS: Callable[[str], list[str]] = re.compile(r"[a-z0-9]+|[^\sa-z0-9]").findall
# Each CJK ideograph is a word, as in BERT's tokenizer; elsewhere a word is a run of letters and digits.
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_UNICODE_WORDS: Callable[[str], list[str]] = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+|[^\w\s]|_").findall
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*").findall
_OPTIONS = re.compile(r"\n\(?([A-J])[.):] ?([^\n]*)").findall
_SENTENCES = re.compile(r"[.!?](?=\s|$)").findall
_CODE_MARKS = re.compile(r"```|</|==|!=|=>|->|::|[;{}][ \t]*\n").findall
_UPPERCASE = re.compile(r"[A-Z]").findall
_NON_ASCII = re.compile(r"[^\x00-\x7f]").findall
# DEL, a control character, is included
_BEYOND_ASCII = re.compile(r"[^\x00-\x7e]+").sub
_CALLS = re.compile(r"(?<=\w)\(\w*\)").findall
# a command, or a formula between dollar signs; two prices in a sentence are not a formula
_LATEX = re.compile(r"\\[a-zA-Z\[\]()]|\$[a-zA-Z]\$|\$[^$\n\\^_=]{0,40}[\\^_=][^$\n]{0,80}\$").findall
_MAX_WORD_CHARS = 100
# Number of characters up to which `aembed` does not use a thread: about 2 ms.
_INLINE_CHARS = 10_000
# Number of rows of the table that are summed in one step: 2 MB of them stay in the processor's cache.
_ROWS_AT_ONCE = 4096
# Number of texts from which on the rows of several texts are summed in one step.
_MANY_TEXTS = 64
# The length of a word's next piece is bounded by its first characters, this many of them.
_REACH_CHARS = 3

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
    "code",
    "code_log_chars",
    "problem",
    "problem_log_chars",
    "other_log_chars",
    "short",
)
_PROBLEM, _PROBLEM_LENGTH = SURFACE_NAMES.index("problem"), SURFACE_NAMES.index("problem_log_chars")
# Of a word problem with fewer characters, nothing that was measured tells how hard it is, its length included.
_SHORT_PROBLEM = math.log1p(160)
# A word problem has at least so many quantities for each word, and twice as many where it does not ask how many or how
# much; a long message with a few numbers in it is no word problem.
_LEAST_DENSITY = 0.04
# An ideograph says about as much as so many letters.
_IDEOGRAPH_CHARS = 3
_IDEOGRAPHS = re.compile(f"[{_CJK}]").findall
_FULL_WIDTH = str.maketrans(
    {
        "？": "? ",
        "！": "! ",
        "。": ". ",
        "，": ", ",
        "、": ", ",
        "；": "; ",
        "：": ": ",
        "（": " (",
        "）": ") ",
        "％": "%",
    }
)
# Number of words, most frequent first, that say that a text is English, although other languages have them, too.
_COMMON_WORDS = 4000


def window(text: str) -> str:
    """Return the part of a prompt that is read: all of it, or its first 800 and last 400 characters."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return text[:HEAD_CHARS] + "\n" + text[-TAIL_CHARS:]


def words_of(text: str) -> list[str]:
    """Split a text into lower-case words and single punctuation marks, without accents and invisible characters."""
    lowered = text.lower()
    if lowered.isascii():
        return _ASCII_WORDS(lowered)
    lowered = lowered.translate(_FULL_WIDTH)
    return _UNICODE_WORDS(_BEYOND_ASCII(_visible, unicodedata.normalize("NFD", lowered)))


def _visible(match: re.Match[str]) -> str:
    """Remove combining accents (Mn) and invisible characters.

    The latter are zero-width and control characters, lone surrogates, and private or unassigned ones (Cf, Cc, Cs, Co,
    Cn).
    """
    category = unicodedata.category
    return "".join(c for c in match[0] if c.isspace() or not ((kind := category(c)) == "Mn" or kind[0] == "C"))


def surface_features(text: str, words: Sequence[str], pieces: int) -> list[float]:
    """Return the raw surface features of a prompt, in the order of `SURFACE_NAMES`.

    Lengths and counts enter as log(1 + count); an ideograph counts as three characters, since it says as much. Each
    prompt is of one kind: multiple choice, code, word problem (a question, dense with quantities in figures or words,
    that is neither of the former and has no formula and hardly a word of science or law), or other. The
    ``KIND_log_...`` features give a linear head a separate slope of length for each kind: a long word problem is hard,
    a long chat message need not be. They are centred at a typical length of their kind, so that their variance is the
    variance within the kind. All word problems of fewer than 160 characters have the same length.

    Args:
        text: The whole prompt.
        words: `words_of` its `window`.
        pieces: Number of wordpieces that the words were split into.
    """
    log1p = math.log1p
    chars = len(text)
    seen = window(text)
    size = len(seen) or 1
    plain = seen.isascii()
    if not plain:
        chars += round(chars * len(_IDEOGRAPHS(seen)) / size * (_IDEOGRAPH_CHARS - 1))
        seen = seen.translate(_FULL_WIDTH)
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
    find = seen.count
    code_marks = _count_code_marks(seen) + find("def ") + find("import ")
    if "(" in seen:
        code_marks += len(_CALLS(seen))
    latex = len(_LATEX(seen)) if "\\" in seen or "$" in seen else 0
    choice = len(options) >= 2
    code = not choice and code_marks >= 3
    quantities = len(numbers) + lexicon[_NUMBER] + lexicon[_STEPS]
    problem = (
        quantities >= 3
        and len(numbers) + lexicon[_NUMBER] >= 2
        and not (choice or code or latex)
        and lexicon[_SCIENCE] + lexicon[_LAW] < 2
        and _asks_for_a_number(seen, quantities / (count + 1))
    )
    other = not (choice or code or problem)
    log_chars = log1p(chars)
    option_chars = sum(len(body) for _, body in options)
    stem_chars = max(chars - option_chars, 0)
    non_ascii = non_latin = 0
    if plain:
        uppercase = len(_UPPERCASE(seen))
    else:
        uppercase = sum(map(str.isupper, seen))
        beyond = _NON_ASCII(seen)
        non_ascii = len(beyond)
        non_latin = sum(c > "\u02ff" and not "\u2000" <= c <= "\u2bff" for c in beyond)
    stripped = seen.rstrip()
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
        uppercase / size,
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
        log1p(option_chars) - 4.5 if choice else 0.0,
        sum(1 for _, body in options if body[:1].isdigit() or body[1:2].isdigit()) / len(options) if choice else 0.0,
        log1p(stem_chars) - 5.0 if choice else 0.0,
        log_chars - 5.5 if choice else 0.0,
        1.0 if code else 0.0,
        log_chars - 6.0 if code else 0.0,
        1.0 if problem else 0.0,
        max(log_chars, _SHORT_PROBLEM) - 5.3 if problem else 0.0,
        log_chars - 4.5 if other else 0.0,
        1.0 / (1.0 + count),
    ]


def _asks_for_a_number(text: str, density: float) -> bool:
    """Whether a text with so many quantities for each word is a word problem rather than talk with numbers in it."""
    lowered = text.lower()
    if "how many" in lowered or "how much" in lowered:
        return density >= _LEAST_DENSITY
    return density >= 2 * _LEAST_DENSITY and "?" in text


def _count_code_marks(text: str) -> int:
    """Matches of `_CODE_MARKS`; ordinary text has none of the substrings, and searching for those is much faster."""
    if (
        "```" in text
        or "==" in text
        or "->" in text
        or "=>" in text
        or "!=" in text
        or "::" in text
        or "</" in text
        or ("\n" in text and (";" in text or "{" in text or "}" in text))
    ):
        return len(_CODE_MARKS(text))
    return 0


class StaticEmbedder:
    """Prompt vectors without a neural network: a sum of word vectors from a table, and surface features.

    A vector has three parts: the *text* part, ``scale * sum_i table[token_i] / (n + shrinkage)`` over the n known
    wordpieces, so that a very short prompt has little weight; the *surface* part, the features of `SURFACE_NAMES`
    standardised and clipped to [-clip, clip]; and the constant 1, which gives a matrix factorization over the vector an
    intercept. In the vector of a word problem, everything except the features named ``problem...`` is multiplied by
    `problem_rest`: its length says more about its difficulty than the subject of its story. In one of fewer than 160
    characters everything else is 0, so that all of them have the same vector: nothing that was measured tells which of
    them are hard. The rows of the table
    include their inverse-frequency weight (SIF, Arora et al. 2017), and the scale of the surface features is stored
    with the table, so embedding needs no statistics of the batch: each row depends on its text alone, bit for bit.

    Any str has a finite vector: empty, very long (it is read through a window of its first 800 and last 400
    characters; lengths are of the whole), lone surrogates, control characters, any language. The bundled table knows
    English words, and through its glossary some 2,000 forms of German, Spanish, French and Chinese; other text in Latin
    letters is read as fragments of words, and text in other scripts by its surface features alone.

    Args:
        vocabulary: The V distinct wordpieces, row by row; a piece inside a word starts with ``##``.
        table: int8 (V, d), the weighted token rows.
        scale: Float that turns a row of the table into its vector, > 0.
        surface_mean: Float (number of `SURFACE_NAMES`,), mean of the raw features.
        surface_std: Float (number of `SURFACE_NAMES`,), standard deviation of the raw features, > 0.
        shrinkage: Number of tokens at which the text part has half its weight, >= 0.
        problem_rest: Factor of the text part and the other surface features of a word problem, > 0.
        clip: Bound of the standardised features, > 0.
        glossary: Text of a `Glossary`: English words for those of other languages; the most frequent words of the
            vocabulary must come first. None: words stay as they are.
        source: Where `from_config` finds the embedder: a directory, or ``"bundled"``; None if it is not saved.

    Raises:
        ConfigurationError: Shapes do not fit, or a number is not finite or out of its range.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        table: npt.NDArray[np.int8],
        *,
        scale: float,
        surface_mean: npt.ArrayLike,
        surface_std: npt.ArrayLike,
        shrinkage: float = 12.0,
        problem_rest: float = 1.0,
        clip: float = 4.0,
        glossary: str | None = None,
        source: str | Path | None = None,
    ) -> None:
        self._vocabulary = tuple(vocabulary)
        self._rows = {piece: row for row, piece in enumerate(self._vocabulary)}
        rows = np.asarray(table)
        if rows.dtype != np.int8 or rows.ndim != 2 or len(rows) != len(self._vocabulary):
            raise ConfigurationError(
                f"table of type {rows.dtype} and shape {rows.shape} for {len(self._vocabulary)} wordpieces; expected "
                "int8 (number of wordpieces, d)"
            )
        if len(self._rows) != len(self._vocabulary):
            raise ConfigurationError("vocabulary contains a wordpiece twice; expected distinct wordpieces")
        mean = np.asarray(surface_mean, dtype=np.float64)
        std = np.asarray(surface_std, dtype=np.float64)
        for name, array in (("surface_mean", mean), ("surface_std", std)):
            if array.shape != (len(SURFACE_NAMES),) or not np.isfinite(array).all():
                raise ConfigurationError(f"{name} of shape {array.shape}: expected {len(SURFACE_NAMES)} finite numbers")
        for name, value in (
            ("scale", scale),
            ("clip", clip),
            ("problem_rest", problem_rest),
            ("surface_std", float(std.min())),
        ):
            if not is_number(value) or not value > 0:
                raise ConfigurationError(f"{name}={shown(value)}: expected a finite number above 0")
        if not is_number(shrinkage) or not shrinkage >= 0:
            raise ConfigurationError(f"shrinkage={shown(shrinkage)}: expected a finite number >= 0")
        self._scale, self._shrinkage, self._clip = float(scale), float(shrinkage), float(clip)
        self._problem_rest = float(problem_rest)
        self._mean, self._std = read_only(mean), read_only(std)
        self._source = None if source is None else str(source)
        self._glossary_text = glossary
        self._glossary = None if glossary is None else Glossary.of_text(glossary, self._vocabulary[:_COMMON_WORDS])
        self._fingerprint = self._digest(rows)
        own = [name.startswith("problem") for name in SURFACE_NAMES]
        rest = np.float32(self._problem_rest)
        factors = [np.full(rows.shape[1], rest), np.where(own, np.float32(1), rest), np.ones(1, dtype=np.float32)]
        self._problem_factors = read_only(np.concatenate(factors).astype(np.float32)[:-1])
        self._short_problem_factors = read_only(np.append(np.zeros(rows.shape[1]), own).astype(np.float32))
        # The float32 rows hold whole numbers, so their sum is exact in any order and does not depend on the batch. A
        # row of zeros behind them fills up the shorter texts where texts are summed together.
        self._padded = read_only(np.vstack([rows, np.zeros((1, rows.shape[1]))]).astype(np.float32))
        self._table = self._padded[:-1]
        # These tables make splitting a rare word cheap enough to do it every time. A cache of such words would be a
        # list of what users wrote (names, typing errors), and junk could fill it.
        self._inside = {piece[2:]: row for piece, row in self._rows.items() if piece.startswith("##")}
        self._reach, self._reach_inside = _reach(self._rows), _reach(self._inside)

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that determines the vectors."""
        return self._fingerprint

    @property
    def dimension(self) -> int:
        """Length of a vector: text, surface features and the constant 1."""
        return self.text_dimension + len(SURFACE_NAMES) + 1

    @property
    def text_dimension(self) -> int:
        """Length of the text part, which comes first."""
        return int(self._table.shape[1])

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed n texts as float32 (n, dimension); row i depends on text i alone, bit for bit.

        Raises:
            PromptError: `texts` is a bare string or contains something that is not a str.
        """
        if isinstance(texts, str | bytes):
            raise PromptError(
                f"texts={type(texts).__name__}: expected a sequence of strings; wrap a single string in a list"
            )
        count, d = len(texts), self.text_dimension
        out = np.empty((count, self.dimension), dtype=np.float32)
        surface = np.empty((count, len(SURFACE_NAMES)), dtype=np.float64)
        problems: list[int] = []
        short_problems: list[int] = []
        tokens: list[list[int]] = []
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise PromptError(f"texts[{i}] is {type(text).__name__}, expected str; decode or convert it first")
            words = words_of(window(text))
            if self._glossary is not None:
                words = self._glossary.in_english(words, ascii_only=text.isascii())
            ids = self._ids(words)
            surface[i] = features = surface_features(text, words, len(ids))
            if features[_PROBLEM]:
                (problems if features[_PROBLEM_LENGTH] > _SHORT_PROBLEM - 5.3 else short_problems).append(i)
            tokens.append(ids)
        self._sum_rows(tokens, out[:, :d])
        surface -= self._mean
        surface /= self._std
        np.minimum(np.maximum(surface, -self._clip, out=surface), self._clip, out=out[:, d:-1], casting="same_kind")
        out[:, -1] = 1.0
        if problems:
            out[problems, :-1] *= self._problem_factors
        if short_problems:
            out[short_problems, :-1] *= self._short_problem_factors
        return out

    async def aembed(self, texts: Sequence[str]) -> FloatMatrix:
        """Like `embed`; a few short prompts are embedded directly, in about a millisecond, and more in a thread."""
        # Switching to a thread costs more than embedding a prompt, and a thousand threads at a time block the event
        # loop for longer (through the interpreter's lock) than embedding the prompts in turn.
        if sum(min(len(text), HEAD_CHARS + TAIL_CHARS) for text in texts if isinstance(text, str)) <= _INLINE_CHARS:
            return self.embed(texts)
        return await in_background(self, lambda: self.embed(texts))

    def _sum_rows(self, tokens: list[list[int]], out: FloatMatrix) -> None:
        """Write the text part of each text into its row of `out`.

        numpy releases the interpreter's lock in each of its calls. With some calls for each text, threads that embed at
        the same time would hand the lock over at each text, and spend half as much again on that. So of many texts,
        those of a similar length are summed together.
        """
        counts = [len(ids) for ids in tokens]
        if len(tokens) < _MANY_TEXTS:
            for i, ids in enumerate(tokens):
                if ids:
                    factor = self._scale / (counts[i] + self._shrinkage)
                    np.multiply(np.add.reduce(self._table.take(ids, axis=0), axis=0), factor, out=out[i])
                else:
                    out[i] = 0.0
            return
        order = sorted(range(len(tokens)), key=counts.__getitem__, reverse=True)
        start = 0
        while start < len(order):
            longest = counts[order[start]]
            together = order[start : start + max(1, _ROWS_AT_ONCE // max(1, longest))]
            rows = np.array([tokens[i] + [-1] * (longest - counts[i]) for i in together], dtype=np.intp)
            out[together] = np.add.reduce(self._padded.take(rows, axis=0), axis=1)
            start += len(together)
        factors = self._scale / (np.maximum(counts, 1) + self._shrinkage)  # without tokens, the sum is 0
        out *= factors.astype(np.float32)[:, None]

    def _ids(self, words: Sequence[str]) -> list[int]:
        get = self._rows.get
        ids: list[int] = []
        for word in words:
            row = get(word)
            if row is None:
                ids += self._split(word)
            else:
                ids.append(row)
        return ids

    def _split(self, word: str) -> Sequence[int]:
        """Greedy longest-match wordpieces of a word; empty if a part of it is unknown, where BERT has [UNK]."""
        if len(word) > _MAX_WORD_CHARS:
            return ()
        pieces: list[int] = []
        get, reach, length, start = self._rows.get, self._reach.get, len(word), 0
        while start < length:
            longest = reach(word[start : start + _REACH_CHARS], _REACH_CHARS - 1)
            for end in range(min(length, start + longest), start, -1):
                row = get(word[start:end])
                if row is not None:
                    pieces.append(row)
                    start = end
                    break
            else:
                return ()
            get, reach = self._inside.get, self._reach_inside.get
        return pieces

    def _digest(self, table: npt.NDArray[np.int8]) -> str:
        import hashlib

        numbers = np.concatenate(
            [self._mean, self._std, [self._scale, self._shrinkage, self._problem_rest, self._clip]]
        )
        digest = hashlib.sha256(np.ascontiguousarray(table).data)
        digest.update("\n".join(self._vocabulary).encode("utf-8", "surrogatepass"))
        # the features are code, and a change of them changes the vectors
        digest.update(f"{table.shape}{FEATURES_VERSION}{','.join(SURFACE_NAMES)}".encode())
        digest.update(numbers.tobytes())
        if self._glossary_text is not None:
            digest.update(self._glossary_text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:32]

    def config(self) -> dict[str, Any]:
        """Return what a saved router stores about its embedder: JSON scalars from which `from_config` rebuilds it."""
        return {
            "type": "static",
            "source": self._source,
            "dimension": self.dimension,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Load the embedder that a saved config describes.

        Raises:
            ConfigurationError: The embedder was never saved, so it must be passed as ``embedder=``.
            CheckpointError: The embedder in that place is not the one that the router was trained with.
        """
        source = config.get("source")
        if not source:
            raise ConfigurationError(
                "the router was saved with a static embedder that was not in a directory; pass embedder=, the one it "
                "was trained with, or save that with save_pretrained before you train"
            )
        if not isinstance(source, str):
            raise ConfigurationError(f"source={shown(source)}: expected the directory of a static embedder")
        found = bundled_embedder() if source == "bundled" else cls.from_pretrained(source)
        wanted = config.get("fingerprint")
        if wanted is not None and wanted != found.fingerprint:
            raise CheckpointError(
                f"the static embedder in {source!r} has fingerprint {found.fingerprint}, the router was trained with "
                f"{wanted}: use the version of the package that saved the router, or train it again"
            )
        return found  # type: ignore[return-value]  # for the bundled embedder, a subclass gets the plain class

    def save_pretrained(self, directory: str | Path) -> None:
        """Write config.json, vocab.txt and model.safetensors; the loaded embedder has the same vectors, bit for bit."""
        from safetensors.numpy import save_file

        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        config = {
            "embedder": "static",
            "format": FORMAT,
            "scale": self._scale,
            "shrinkage": self._shrinkage,
            "problem_rest": self._problem_rest,
            "clip": self._clip,
            "features": FEATURES_VERSION,
            "fingerprint": self.fingerprint,
        }
        (path / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if self._glossary_text is not None:
            (path / GLOSSARY_FILE).write_text(self._glossary_text, encoding="utf-8")
        (path / VOCAB_FILE).write_text("".join(piece + "\n" for piece in self._vocabulary), encoding="utf-8")
        tensors: dict[str, npt.NDArray[Any]] = {
            "table": self._table.astype(np.int8),
            "surface_mean": self._mean,
            "surface_std": self._std,
        }
        save_file(tensors, path / WEIGHTS_FILE)
        if self._source is None:
            self._source = str(path.resolve())

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, source: str | None = None) -> Self:
        """Load an embedder that `save_pretrained` wrote.

        Args:
            directory: The directory.
            source: The location that `config` reports; default: `directory`.

        Raises:
            CheckpointNotFoundError: A file is missing.
            CheckpointError: A file is corrupt, or the files do not belong together.
        """
        path = Path(directory)
        needed = f"{str(path)!r} is not a saved static embedder"
        config = read_json_object(path / CONFIG_FILE, needed)
        check_format(config, FORMAT, f"{path / CONFIG_FILE}: static embedder")
        with damage_named(path, "does not hold a readable static embedder"):
            if config["embedder"] != "static" or config["features"] != FEATURES_VERSION:
                raise CheckpointError(
                    f"{path / CONFIG_FILE} says embedder {config['embedder']!r:.80} with features version "
                    f"{config['features']!r:.80}; this package reads 'static' with version {FEATURES_VERSION}"
                )
            pieces = read_file(path / VOCAB_FILE, needed, max_bytes=_MAX_VOCAB_BYTES).decode()
            # not splitlines(), which would also split at rare line separators that are wordpieces
            vocabulary = pieces.replace("\r\n", "\n").removesuffix("\n").split("\n")
            glossary = None
            if os.path.lexists(path / GLOSSARY_FILE):
                glossary = read_file(path / GLOSSARY_FILE, needed, max_bytes=_MAX_VOCAB_BYTES).decode()
            tensors = read_tensors(path / WEIGHTS_FILE, ("table", "surface_mean", "surface_std"), kinds="fi")
            found = cls(
                vocabulary,
                tensors["table"],
                scale=config["scale"],
                surface_mean=tensors["surface_mean"],
                surface_std=tensors["surface_std"],
                shrinkage=config["shrinkage"],
                problem_rest=config["problem_rest"],
                clip=config["clip"],
                glossary=None if glossary is None else glossary.replace("\r\n", "\n"),
                source=source or path,
            )
        if found.fingerprint != config.get("fingerprint"):
            raise CheckpointError(
                f"{str(path)!r} holds an embedder with fingerprint {found.fingerprint}, but its {CONFIG_FILE} says "
                f"{shown(config.get('fingerprint'))}: a file was changed or damaged"
            )
        return found


def _reach(pieces: Iterable[str]) -> dict[str, int]:
    """Length of the longest piece for each start; a start that is missing has no piece longer than itself."""
    longest: dict[str, int] = {}
    for piece in pieces:
        start = piece[:_REACH_CHARS]
        if len(piece) > longest.get(start, 0):
            longest[start] = len(piece)
    return longest


@functools.cache
def bundled_embedder() -> StaticEmbedder:
    """Return the embedder that comes with the package, loaded once; it needs no network and no key."""
    directory = files("routellm_core") / "pretrained" / "embedder"
    return StaticEmbedder.from_pretrained(Path(str(directory)), source="bundled")
