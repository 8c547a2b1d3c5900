"""Storage for the battles of a similarity-weighted router: compact prompt vectors, in memory or memory-mapped."""

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

# Numbers per block of rows in a product: 1.8 MB as float32, which stay in cache while each prompt of a batch is
# multiplied with them. Each product takes two prompts: for up to a million multiplications, numpy's BLAS has a kernel
# that reads the rows in place, which costs half as much per prompt as a product with one. Both numbers affect the
# result, since the rounding of a product depends on its shape.
_BLOCK_NUMBERS = 450_000
_TOGETHER = 2
# A float16 row is an array of pairs, see `_paired`.
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<u4"), "int8": np.dtype("i1")}
_MAX_HEADER_BYTES = 1 << 20  # four tensors
_SAFETENSORS_DTYPES = {"F32": "<f4", "U32": "<u4", "I8": "|i1", "I64": "<i8"}


@dataclass(frozen=True)
class BattleStore:
    """n battles sorted by kind, with the directions of their prompts' vectors; immutable.

    Attributes:
        dimension: d, the length of a prompt's vector.
        rows: The n directions as one of `DTYPES`: (n, d), or (n, d / 2 rounded up) pairs for "float16".
        scales: float32 (n,), the factor of each row, only for "int8"; otherwise None.
        keys: int (m,), the kinds of battle, ascending; the router defines what a key means.
        counts: int (m,), number of battles of each kind.
        saved_digest: The digest that was saved with the battles, because hashing mapped rows would read all of them; or
            None.
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
        """Map the battles that `save` wrote into memory; rows are only read when they are used.

        Args:
            file: The safetensors file.
            dimension: d, from the config beside the file.
            saved_digest: Their digest, from the config; anything but a str counts as not saved.

        Raises:
            CheckpointNotFoundError: The file does not exist.
            CheckpointError: The file cannot be read, or its arrays do not fit together.
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
        """Write the battles to `file`, completely or not at all; existing maps of the old file stay valid."""
        from safetensors.numpy import save_file

        tensors = {
            "embeddings": self.rows,
            "keys": self.keys.astype(np.int64),
            "counts": self.counts.astype(np.int64),
        }
        if self.scales is not None:
            tensors["scales"] = self.scales
        # Replace the old file by a new one: this router, or another process, may have the old one mapped.
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
        """How directions are stored, a key of `DTYPES`."""
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
        """A hex digest of the battles and their vectors."""
        if self.saved_digest is not None:
            return self.saved_digest
        digest = hashlib.sha256()
        for array in (self.rows, self.scales, self.keys, self.counts):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:32]

    def similarities(self, embeddings: FloatMatrix) -> npt.NDArray[np.float32]:
        """Return the cosines (b, n) of prompt vectors (b, d) with the stored rows; those of the zero vector are 0.

        The product is computed in blocks of rows and pairs of prompts: the rounding of a cosine then does not depend on
        the number of prompts in the batch, and a block is read from memory once for all of them.
        """
        count, n = len(embeddings), len(self.rows)
        padded = -(-count // _TOGETHER) * _TOGETHER
        queries = np.zeros((padded, self.dimension + self.dimension % 2), dtype=np.float32)
        queries[:count, : self.dimension] = self.unit_queries(embeddings)
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

    def unit_queries(self, embeddings: FloatMatrix) -> npt.NDArray[np.float32]:
        """Return prompt vectors (b, d) scaled to unit length; the zero vector remains zero."""
        norms = np.sqrt((embeddings.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        return np.asarray(embeddings / np.where(norms > 0.0, norms, 1.0), dtype=np.float32)

    def directions(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return the directions (m, d) of the rows from `start` up to `stop`, in an array of its own."""
        rows = np.asarray(self.rows[start:stop])
        if rows.dtype == DTYPES["float16"]:
            out = np.empty((len(rows), 2 * rows.shape[1]), dtype=np.float32)
            out[:, 0::2], out[:, 1::2] = (rows << 16).view(np.float32), rows.view(np.float32)
            return np.ascontiguousarray(out[:, : self.dimension])
        out = rows.astype(np.float32)
        if self.scales is not None:
            out *= self.scales[start:stop, None]
        return out

    def _blocks(self) -> Iterator[tuple[int, list[npt.NDArray[np.float32]]]]:
        """Yield blocks of rows as float32; blocks that have to be converted share one buffer.

        float16 rows are yielded as two blocks: the odd components, which are the rows themselves read as float32, and
        the even ones.
        """
        rows = self.rows
        height = _block_rows(rows.shape[1])
        made = rows.dtype != DTYPES["float32"]
        buffer = np.empty((min(height, len(rows)) if made else 0, rows.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), height):
            part = np.asarray(rows[start : start + height])
            block = buffer[: len(part)]
            if not made:
                # Reading the block once in order brings it into the cache a third faster than the kernel, which reads
                # many rows at a time.
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
    """Return unit rows in `order` as `dtype`, computed block by block without a second copy of the matrix."""
    n, dimension = matrix.shape
    rows: npt.NDArray[Any] = np.empty((n, -(-dimension // 2) if dtype == "float16" else dimension), DTYPES[dtype])
    scales = np.empty(n, dtype=np.float32) if dtype == "int8" else None
    height = _block_rows(dimension)
    for start in range(0, n, height):
        index = order[start : start + height]
        block = matrix[index].astype(np.float64)
        # Scale first: the square of a tiny or huge component would be outside the range of a float.
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
    """Pack two components per word, as bfloat16: the even one in the lower half, the odd one in the upper half.

    Read as a float32, a word is the odd component, with the bits of the even one at the end of its mantissa. The upper
    half is rounded with those bits in place, so the word is as close to the component as a bfloat16 can be, and the
    rows can be used as odd components without any conversion.
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
    """Return the tensors of a safetensors file as read-only memory maps; data are only read when they are used."""
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
