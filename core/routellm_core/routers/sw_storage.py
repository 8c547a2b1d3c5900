"""The battles of a similarity-weighted router: compact vectors of their prompts, in memory or mapped from a file."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.checks import damage_named, read_only
from routellm_core.embedders.base import FloatMatrix
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, DataError

Storage = Literal["float32", "float16", "int8"]

# Numbers of the rows that a product takes at once: as float32 1.8 MB, which stay in cache while each prompt of a batch
# is multiplied with them. Products take two prompts each: for those of up to a million multiplications numpy's BLAS has
# a kernel that reads the rows where they lie, which costs half as much per prompt as a product with one. Both numbers
# are part of the result, since the rounding of a product depends on its shape.
_BLOCK_NUMBERS = 450_000
_TOGETHER = 2
# A float16 row is an array of pairs, see `_paired`.
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<u4"), "int8": np.dtype("i1")}
_MAX_HEADER_BYTES = 1 << 20  # four tensors
_SAFETENSORS_DTYPES = {"F32": "<f4", "U32": "<u4", "I8": "|i1", "I64": "<i8"}


@dataclass(frozen=True)
class BattleStore:
    """n battles sorted by kind, with the directions of their prompts' vectors. It never changes.

    Attributes:
        dimension: d, the length of a prompt's vector.
        rows: The n directions as one of `DTYPES`: (n, d), or (n, d / 2 rounded up) pairs for "float16".
        scales: float32 (n,), the factor of each row, for "int8" alone; otherwise None.
        keys: int (m,), the kinds of battle, ascending; what a key means is up to the router.
        counts: int (m,), how many of the battles are of each kind.
        saved_digest: The digest that was saved with them, since hashing mapped rows would read them all; or None.
    """

    dimension: int
    rows: npt.NDArray[Any]
    scales: npt.NDArray[np.float32] | None
    keys: npt.NDArray[np.integer[Any]]
    counts: npt.NDArray[np.integer[Any]]
    saved_digest: str | None = None

    @classmethod
    def of(cls, matrix: npt.NDArray[Any], kinds: npt.NDArray[np.integer[Any]], dtype: Storage) -> BattleStore:
        """Store battles.

        Args:
            matrix: Numbers (n, d), the vector of each battle's prompt, in any scale.
            kinds: int (n,), the key of each battle's kind.
            dtype: How to store a direction.

        Raises:
            DataError: A vector is zero, NaN or infinite.
        """
        keys, counts = np.unique(kinds, return_counts=True)
        rows, scales = _stored(matrix, np.argsort(kinds, kind="stable"), dtype)
        return cls(matrix.shape[1], read_only(rows), None if scales is None else read_only(scales), keys, counts)

    @classmethod
    def mapped(cls, file: Path, dimension: Any, saved_digest: Any) -> BattleStore:
        """Map the battles that `save` wrote; nothing of the rows is read before it is used.

        Args:
            file: The safetensors file.
            dimension: d, as the config beside it says.
            saved_digest: Their digest, as the config says; anything but a text counts as not saved.

        Raises:
            CheckpointNotFoundError: There is no such file.
            CheckpointError: It is not readable, or its arrays do not fit together.
        """
        tensors = _mapped_tensors(file)
        rows, keys, counts, scales = (tensors.get(name) for name in ("embeddings", "keys", "counts", "scales"))
        if (
            type(dimension) is not int
            or dimension < 1
            or rows is None
            or keys is None
            or counts is None
            or rows.ndim != 2
            or rows.dtype not in DTYPES.values()
            or rows.shape[1] != (-(-dimension // 2) if rows.dtype == DTYPES["float16"] else dimension)
            or keys.dtype != np.int64
            or counts.dtype != np.int64
            or keys.ndim != 1
            or not keys.size
            or keys.shape != counts.shape
            or not ((counts >= 1) & (counts <= len(rows))).all()  # so that their sum cannot overflow
            or counts.sum() != len(rows)
            or (keys < 0).any()
            or (np.diff(keys) <= 0).any()
            or (scales is None) != (rows.dtype != DTYPES["int8"])
            or (scales is not None and (scales.dtype != np.float32 or scales.shape != (len(rows),)))
        ):
            raise CheckpointError(f"{file} does not fit its config.json: the checkpoint is damaged")
        known = saved_digest if isinstance(saved_digest, str) else None
        return cls(dimension, rows, scales, np.array(keys), np.array(counts), known)

    def save(self, file: Path) -> None:
        """Write the battles to `file`; it appears whole or not at all, and whoever has the old one mapped keeps it."""
        from safetensors.numpy import save_file

        tensors = {
            "embeddings": self.rows,
            "keys": self.keys.astype(np.int64),
            "counts": self.counts.astype(np.int64),
        }
        if self.scales is not None:
            tensors["scales"] = self.scales
        # A new file in place of the old one: this router, or another process, may have the old one mapped.
        partial = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, partial)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dtype(self) -> str:
        """How a direction is stored, a key of `DTYPES`."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.rows.dtype)

    @cached_property
    def starts(self) -> npt.NDArray[np.intp]:
        """int (m,), the position of the first battle of each kind."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.intp)

    def keys_at(self, positions: npt.NDArray[np.intp]) -> npt.NDArray[np.integer[Any]]:
        """The kinds of the battles at these positions."""
        return self.keys[np.searchsorted(self.starts, positions, side="right") - 1]

    @cached_property
    def digest(self) -> str:
        """Hex digest of the battles and their vectors."""
        if self.saved_digest is not None:
            return self.saved_digest
        digest = hashlib.sha256()
        for array in (self.rows, self.scales, self.keys, self.counts):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:32]

    def similarities(self, embeddings: FloatMatrix) -> npt.NDArray[np.float32]:
        """Cosines (b, n) of the vectors (b, d) of prompts with the stored rows; those of the zero vector are 0.

        Blocks of rows by pairs of prompts, not one large product: the rounding of a cosine then does not depend on how
        many prompts came together, and a block crosses the memory bus once for all of them.
        """
        count, n = len(embeddings), len(self.rows)
        norms = np.sqrt((embeddings.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        padded = -(-count // _TOGETHER) * _TOGETHER
        queries = np.zeros((padded, self.dimension + self.dimension % 2), dtype=np.float32)
        queries[:count, : self.dimension] = embeddings / np.where(norms > 0.0, norms, 1.0)
        halves = self.rows.dtype == DTYPES["float16"]
        parts = [queries[:, 1::2], queries[:, 0::2]] if halves else [queries[:, : self.dimension]]
        parts = [np.ascontiguousarray(part).reshape(-1, _TOGETHER, part.shape[1]) for part in parts]
        out = np.empty((padded, n), dtype=np.float32)
        pairs = out.reshape(-1, _TOGETHER, n)
        for start, blocks in self._blocks():
            # One product a pair: matmul does not join those of a stack.
            product = np.matmul(parts[0], blocks[0].T)
            if halves:
                product += np.matmul(parts[1], blocks[1].T)
            pairs[:, :, start : start + len(blocks[0])] = product
        if self.scales is not None:
            out *= self.scales
        return out[:count]

    def _blocks(self) -> Iterator[tuple[int, list[npt.NDArray[np.float32]]]]:
        """Blocks of rows as float32; where they have to be made they share one buffer.

        float16 rows come as two: their odd components, which are the rows themselves read as float32, and the even.
        """
        rows = self.rows
        height = _block_rows(rows.shape[1])
        made = rows.dtype != DTYPES["float32"]
        buffer = np.empty((min(height, len(rows)) if made else 0, rows.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), height):
            part = np.asarray(rows[start : start + height])
            block = buffer[: len(part)]
            if not made:
                # Reading it once in order brings the block into cache a third faster than the kernel does, which
                # follows many rows at a time.
                part.max()
                yield start, [part]
            elif rows.dtype == DTYPES["float16"]:
                np.left_shift(part, 16, out=block.view(np.uint32))
                yield start, [part.view(np.float32), block]
            else:
                np.copyto(block, part)
                yield start, [block]


def _block_rows(width: int) -> int:
    return max(1, _BLOCK_NUMBERS // width)


def _stored(
    matrix: npt.NDArray[Any], order: npt.NDArray[np.intp], dtype: Storage
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """Unit rows in `order` as `dtype`, block by block: no second copy of the matrix."""
    n, dimension = matrix.shape
    rows: npt.NDArray[Any] = np.empty((n, -(-dimension // 2) if dtype == "float16" else dimension), DTYPES[dtype])
    scales = np.empty(n, dtype=np.float32) if dtype == "int8" else None
    height = _block_rows(dimension)
    for start in range(0, n, height):
        index = order[start : start + height]
        block = matrix[index].astype(np.float64)
        # Scaled first: the square of a tiny or huge component would leave the range of a float.
        largest = np.abs(block).max(axis=1, keepdims=True)
        bad = ~np.isfinite(largest[:, 0]) | (largest[:, 0] == 0.0)
        if bad.any():
            i = int(index[bad][0])
            kind = "is a zero vector, which has no direction" if not matrix[i].any() else "holds NaN or infinite values"
            raise DataError(f"embeddings[{i}] {kind}: embed this battle's prompt again or drop the battle")
        block /= largest
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        if scales is not None:
            scale = np.abs(block).max(axis=1) / 127.0
            scales[start : start + len(index)] = scale
            block = np.rint(block / scale[:, None])
        rows[start : start + len(index)] = _paired(block) if dtype == "float16" else block
    return rows, scales


def _paired(block: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """Two components a word, as bfloat16: the even one in the lower half, the odd one in the upper.

    Read as a float32 a word is the odd component, with the bits of the even one as the end of its mantissa. The upper
    half is rounded with those bits in place, so the whole is as close to the component as a bfloat16 comes, and the
    rows serve as odd components without any conversion.
    """
    width = block.shape[1]
    single = np.zeros((len(block), width + width % 2), dtype=np.float32)
    single[:, :width] = block
    bits = single.view(np.uint32).astype(np.int64)
    lower = (bits[:, 0::2] + 0x8000) >> 16
    odd = bits[:, 1::2]
    sign, magnitude = odd & 0x80000000, odd & 0x7FFFFFFF
    upper = np.maximum((magnitude - lower + 0x8000) >> 16, 0) << 16
    return np.asarray(sign | upper | lower, dtype=np.uint32)


def _mapped_tensors(file: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file as read-only maps of it: nothing is read before it is used."""
    with damage_named(file, "is not a readable safetensors file of a sw_ranking router"):
        if not file.is_file():
            raise CheckpointNotFoundError(f"no {file.name} in {str(file.parent)!r}: not a saved sw_ranking router")
        size = file.stat().st_size
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(length)) if length <= min(size - 8, _MAX_HEADER_BYTES) else None
        if not isinstance(header, dict):
            raise ValueError("no header")
        tensors: dict[str, npt.NDArray[Any]] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, shape = np.dtype(_SAFETENSORS_DTYPES[entry["dtype"]]), tuple(map(int, entry["shape"]))
            begin, end = entry["data_offsets"]
            if end - begin != math.prod(shape) * dtype.itemsize or begin < 0 or 8 + length + end > size:
                raise ValueError(f"tensor {name} lies outside the file")
            tensors[name] = np.memmap(file, dtype, "r", 8 + length + begin, shape)
        return tensors
