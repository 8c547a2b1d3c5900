"""Duplicates within a set of prompts, and overlap of training prompts with an evaluation set."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routellm_core.errors import ConfigurationError

Hashes = npt.NDArray[np.uint64]

# A word is a run of letters and digits; in scripts without spaces each character is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+").findall
_SHINGLE = 3
# With fewer shingles than this, two texts share most of them by chance: only the whole text is compared.
_MIN_SHINGLES = 6
# A shingle in more evaluation prompts than this (and in 1 % of them) belongs to a template, not to a question.
_BOILERPLATE = 20
_BANDS, _ROWS = 20, 6


class Match(NamedTuple):
    """An evaluation prompt that a prompt repeats.

    Attributes:
        position: Position in the evaluation set, from 0.
        similarity: Share of the shorter text's three-word sequences that also occur in the other text, in [0, 1].
        exact: Whether the two are the same text except for case, punctuation and spacing.
    """

    position: int
    similarity: float
    exact: bool


class Duplicate(NamedTuple):
    """An earlier prompt that a prompt repeats.

    Attributes:
        position: Position of the earlier prompt in the order of `DuplicateFinder.add`, from 0.
        similarity: Estimated Jaccard similarity of the sets of three-word sequences, in [0, 1].
        exact: Whether the two are the same text except for case, punctuation and spacing.
    """

    position: int
    similarity: float
    exact: bool


def words_of(text: str) -> list[str]:
    """The words of a text, ignoring case, width, punctuation and spacing."""
    return _WORDS(unicodedata.normalize("NFKC", text).casefold())


def _key(words: list[str], text: str) -> bytes:
    # a text without words (symbols, emoji) is compared as a whole
    joined = " ".join(words) or "\0" + text.strip()
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def prompt_key(text: str) -> bytes:
    """16 bytes that are equal for prompts that differ only in case, punctuation and spacing."""
    return _key(words_of(text), text)


def _shingles(words: list[str]) -> Hashes:
    """Hashes of the distinct sequences of three words; empty if there are too few to tell texts apart."""
    count = len(words) - _SHINGLE + 1
    if count < _MIN_SHINGLES:
        return np.empty(0, np.uint64)
    parts = {
        hashlib.blake2b(" ".join(words[i : i + _SHINGLE]).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for i in range(count)
    }
    return np.frombuffer(b"".join(parts), np.uint64)


def _checked_threshold(threshold: float) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.0 < threshold <= 1.0:
        raise ConfigurationError(f"threshold={threshold!r}: expected a similarity > 0 and <= 1")
    return float(threshold)


class ContaminationIndex:
    """Finds prompts that repeat an evaluation prompt, whole, in part, or inside a longer text.

    Two prompts match if they have the same words, or if most three-word sequences of the shorter one occur in the
    other. A question is therefore detected inside a few-shot prompt, and a bare question in its multiple-choice form.
    Sequences that many evaluation prompts share (a template's instructions) do not count. Paraphrases are not detected.

    The search is exact, not sampled: an inverted index over the evaluation set takes about 200 bytes per word. Any
    number of prompts can be looked up; the cost of each is proportional to its length.

    Args:
        prompts: The evaluation set; read once.
        threshold: Minimum share of the shorter prompt's sequences that occur in the other, > 0 and <= 1.

    Raises:
        ConfigurationError: `threshold` is out of range.
    """

    def __init__(self, prompts: Iterable[str], *, threshold: float = 0.8) -> None:
        self.threshold = _checked_threshold(threshold)
        self._exact: dict[bytes, int] = {}
        found: list[Hashes] = []
        for i, prompt in enumerate(prompts):
            words = words_of(prompt)
            self._exact.setdefault(_key(words, prompt), i)
            found.append(_shingles(words))
        self.count = len(found)
        counts = Counter(h for hashes in found for h in hashes.tolist())
        limit = max(_BOILERPLATE, self.count // 100)
        self._boilerplate = frozenset(h for h, c in counts.items() if c > limit)
        del counts
        self._rows: dict[int, tuple[int, ...]] = {}
        self._sizes = np.zeros(self.count, np.int64)
        for i, hashes in enumerate(found):
            for h in hashes.tolist():
                if h not in self._boilerplate:
                    self._rows[h] = (*self._rows.get(h, ()), i)
                    self._sizes[i] += 1

    def match(self, prompt: str) -> Match | None:
        """Return the evaluation prompt that `prompt` overlaps with most, or None."""
        words = words_of(prompt)
        same = self._exact.get(_key(words, prompt))
        if same is not None:
            return Match(same, 1.0, True)
        shared: Counter[int] = Counter()
        size = 0
        for h in _shingles(words).tolist():
            if h not in self._boilerplate:
                size += 1
                shared.update(self._rows.get(h, ()))
        best: Match | None = None
        for i, count in shared.items():
            shorter = min(size, int(self._sizes[i]))
            if shorter < _MIN_SHINGLES:
                continue
            similarity = count / shorter
            if similarity >= self.threshold and (best is None or similarity > best.similarity):
                best = Match(i, similarity, False)
        return best


class DuplicateFinder:
    """Finds prompts that repeat an earlier one, among millions, by MinHash and locality-sensitive hashing.

    Exact repeats (ignoring case, punctuation and spacing) are always detected. Near repeats are compared by the Jaccard
    similarity of their three-word sequences, estimated from 120 hashes (standard error at most 0.05). The search
    considers 99.7 % of the pairs with similarity 0.8, and 92 % of those with 0.7. Prompts of fewer than eight words
    match only exactly. Memory: about 3 kB per distinct prompt.

    Args:
        threshold: Minimum similarity of a near duplicate, > 0 and <= 1; None detects only exact ones.

    Raises:
        ConfigurationError: `threshold` is out of range.
    """

    def __init__(self, *, threshold: float | None = 0.8) -> None:
        self.threshold = None if threshold is None else _checked_threshold(threshold)
        self.count = 0
        self._exact: dict[bytes, int] = {}
        self._signatures: dict[int, npt.NDArray[np.uint32]] = {}
        self._buckets: list[dict[bytes, int]] = [{} for _ in range(_BANDS)]
        rng = np.random.default_rng(20240626)  # fixed: the same prompts give the same answer in every run
        self._multiply = rng.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._add = rng.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64)

    def add(self, prompt: str) -> Duplicate | None:
        """Return the earlier prompt that `prompt` repeats, or None; a prompt that repeats none is added."""
        position = self.count
        self.count += 1
        words = words_of(prompt)
        earlier = self._exact.setdefault(_key(words, prompt), position)
        if earlier != position:
            return Duplicate(earlier, 1.0, True)
        hashes = _shingles(words)
        if self.threshold is None or not hashes.size:
            return None
        # multiply-shift hashing: the high bits of an odd multiple are a good hash of the value
        signature = np.empty(_BANDS * _ROWS, np.uint32)
        for start in range(0, signature.size, 40):  # bounds the table for very long prompts
            rows = slice(start, start + 40)
            table = hashes[None, :] * self._multiply[rows, None] + self._add[rows, None]
            signature[rows] = (table >> np.uint64(32)).astype(np.uint32).min(axis=1)
        bands = [band.tobytes() for band in signature.reshape(_BANDS, _ROWS)]
        near = {bucket[band] for bucket, band in zip(self._buckets, bands, strict=True) if band in bucket}
        best: Duplicate | None = None
        for i in sorted(near):
            similarity = float((self._signatures[i] == signature).mean())
            if similarity >= self.threshold and (best is None or similarity > best.similarity):
                best = Duplicate(i, similarity, False)
        if best is None:
            self._signatures[position] = signature
            for bucket, band in zip(self._buckets, bands, strict=True):
                bucket.setdefault(band, position)
        return best
