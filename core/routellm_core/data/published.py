"""The published Arena battles and their embeddings: data sets in parquet or CSV, local or downloaded from the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.errors import CheckpointNotFoundError, DataError, MissingExtraError

PUBLISHED_BATTLES = ("lmsys/lmsys-arena-human-preference-55k", "routellm/gpt4_judge_battles")
PUBLISHED_EMBEDDINGS = ("routellm/arena_battles_embeddings", "routellm/gpt4_judge_battles_embeddings")
# The model that produced the published embeddings; the authors' factorizations were trained on it as well.
PUBLISHED_EMBEDDING_MODEL = "text-embedding-3-small"
# The published embeddings cover exactly the battles whose first turn has at least this many characters after strip.
MIN_PROMPT_CHARACTERS = 16

Source = str | Path


def read_published_battles(sources: Source | Sequence[Source]) -> list[tuple[str, str, str]]:
    """Read the battles that the published embeddings belong to.

    Data sets have the columns prompt (a JSON list of turns), model_a, model_b, winner_model_a, winner_model_b. Battles
    whose first turn has fewer than 16 characters after strip are skipped, since they have no embedding.

    Args:
        sources: Data sets in order; each is a parquet or CSV file, a directory of such files, or a hub id.

    Returns:
        (model_a, model_b, winner) of each battle; the winner is "model_a", "model_b" or "tie".

    Raises:
        MissingExtraError: pyarrow is not installed, or huggingface_hub for a hub id.
        CheckpointNotFoundError: A file or data set does not exist.
        DataError: A column is missing or a value malformed; the message names the file and the row.
    """
    return [battle for source in _listed(sources) for battle in _battles(source)]


def read_published_embeddings(sources: Source | Sequence[Source]) -> npt.NDArray[np.float32]:
    """Read the embeddings of battles, shape (n, d), from data sets with a column ``embeddings`` of lists of numbers.

    Arguments and errors are those of `read_published_battles`; vectors of different lengths also raise a `DataError`.
    """
    parts = [part for source in _listed(sources) for part in _embeddings(source)]
    if len({part.shape[1] for part in parts}) != 1:
        raise DataError(f"embeddings: expected vectors of one length, got {sorted({p.shape[1] for p in parts})}")
    return np.concatenate(parts)


def _listed(sources: Source | Sequence[Source]) -> list[Source]:
    return [sources] if isinstance(sources, str | Path) else list(sources)


def _battles(source: str | Path) -> Iterator[tuple[str, str, str]]:
    columns = ["prompt", "model_a", "model_b", "winner_model_a", "winner_model_b"]
    for file, table in _tables_of(source, columns):
        rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        for i, (prompt, model_a, model_b, won_a, won_b) in enumerate(rows):
            try:
                turns = json.loads(prompt)
                first = turns[0] or ""
                long_enough = len(first.strip()) >= MIN_PROMPT_CHARACTERS
            except (TypeError, ValueError, LookupError, AttributeError):
                raise DataError(f"{file}, row {i}: prompt is not a JSON list of strings") from None
            if long_enough:
                yield model_a, model_b, "model_a" if won_a == 1 else "model_b" if won_b == 1 else "tie"


def _embeddings(source: str | Path) -> Iterator[npt.NDArray[np.float32]]:
    for file, table in _tables_of(source, ["embeddings"]):
        for chunk in table.column("embeddings").chunks:
            if not len(chunk):
                continue
            try:
                flat = chunk.flatten().to_numpy(zero_copy_only=False)
                lengths = set(chunk.value_lengths().to_pylist())
            except (AttributeError, TypeError, ValueError) as exc:
                raise DataError(f"{file}: column embeddings is not a column of lists of numbers") from exc
            if len(lengths) != 1 or chunk.null_count or flat.dtype.kind != "f":
                raise DataError(f"{file}: column embeddings must hold lists of numbers, all of one length")
            yield flat.reshape(len(chunk), -1).astype(np.float32)


def _tables_of(source: str | Path, columns: list[str]) -> Iterator[tuple[Path, Any]]:
    """Each file of a data set, in order of name, as a pyarrow table of some columns."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import csv, parquet
    except ImportError:
        raise MissingExtraError("Reading battle data sets", "parquet") from None
    path = Path(source)
    if not path.exists():
        path = _downloaded(source)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in {".parquet", ".csv"})
    if not files:
        raise CheckpointNotFoundError(f"no parquet or csv file in {str(path)!r}")
    for file in files:
        try:
            if file.suffix == ".csv":
                table = csv.read_csv(
                    file,
                    parse_options=csv.ParseOptions(newlines_in_values=True),
                    convert_options=csv.ConvertOptions(include_columns=columns),
                )
            else:
                table = parquet.read_table(file, columns=columns)
        except (pyarrow.ArrowException, KeyError, OSError) as exc:
            raise DataError(f"{file} cannot be read with columns {', '.join(columns)}: {exc}") from exc
        lacking = [name for name in columns if name not in table.column_names]
        if lacking:
            raise DataError(f"{file} lacks the columns {', '.join(lacking)}")
        yield file, table


def _downloaded(source: str | Path) -> Path:
    if isinstance(source, Path) or source.count("/") != 1 or source.startswith((".", "/")):
        raise CheckpointNotFoundError(f"{str(source)!r}: no such file or directory, and not a hub id owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError(f"{source!r} is not a local path; loading it from the hub", "hub") from None
    try:
        # On this branch the hub keeps a parquet version of every data set, whatever format its owner uploaded.
        return Path(
            snapshot_download(
                source, repo_type="dataset", revision="refs/convert/parquet", allow_patterns=["*/train/*.parquet"]
            )
        )
    except Exception as exc:  # the hub client has a dozen error classes, and all mean that the download failed
        raise CheckpointNotFoundError(
            f"{source!r}: no such local path, and it cannot be downloaded from the hub ({type(exc).__name__}: {exc})"
        ) from exc
