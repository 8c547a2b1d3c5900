"""Which prompts a router was trained on, as fingerprints that cannot be read back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from routellm_core.checks import read_only, read_tensors
from routellm_core.data.contamination import prompt_key

_TENSOR = "fingerprints"


class SeenPrompts:
    """The fingerprints of prompts: eight bytes each, equal for prompts that differ in case, punctuation and spacing.

    A prompt cannot be read from its fingerprint, but whoever has the prompt can find out whether it is among them. With
    a million fingerprints, one unseen prompt in ten trillion is taken for a seen one.

    Args:
        fingerprints: uint64 (n,), in any order; repeats count once.
    """

    def __init__(self, fingerprints: npt.ArrayLike = ()) -> None:
        self._fingerprints = read_only(np.unique(np.asarray(fingerprints, dtype=np.uint64)))

    @classmethod
    def of(cls, prompts: Iterable[str]) -> SeenPrompts:
        """The fingerprints of `prompts`, which are read once."""
        return cls(_fingerprints(prompts))

    def __len__(self) -> int:
        return int(self._fingerprints.size)

    def __or__(self, other: SeenPrompts) -> SeenPrompts:
        """The fingerprints of both."""
        return SeenPrompts(np.concatenate([self._fingerprints, other._fingerprints]))

    def marks(self, prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of n prompts are among them, (n,)."""
        return np.isin(_fingerprints(prompts), self._fingerprints)

    def save(self, path: str | Path) -> None:
        """Write them to a safetensors file."""
        from safetensors.numpy import save_file

        save_file({_TENSOR: self._fingerprints}, path)

    @classmethod
    def load(cls, path: str | Path) -> SeenPrompts:
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        return cls(read_tensors(Path(path), [_TENSOR], kinds="u")[_TENSOR])


def prompt_fingerprint(prompt: str) -> int:
    """The fingerprint of one prompt, below 2 ** 64."""
    return int.from_bytes(prompt_key(prompt)[:8], "little")


def _fingerprints(prompts: Iterable[str]) -> npt.NDArray[np.uint64]:
    return np.fromiter(map(prompt_fingerprint, prompts), dtype=np.uint64)
