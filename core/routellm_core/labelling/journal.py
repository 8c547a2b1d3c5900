"""The journal of paid calls: what has been paid for is never lost and never paid twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from routellm_core.errors import DataError

Entry = dict[str, Any]


def call_key(*parts: Any) -> str:
    """The name of a question in the journal: a hash of all that its answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()


class Journal:
    """A file with one line of JSON for each reply, which is flushed to the device before the reply is used.

    After a crash at any moment the journal holds every reply that had arrived; a line that was cut off is dropped. Keys
    are hashes (see `call_key`), so that no prompt can be read from the file. One process writes at a time.

    Args:
        path: The file; created when absent.

    Raises:
        DataError: The file is not a journal, or another process is writing it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except (OSError, ValueError) as exc:
            raise DataError(f"{self.path} cannot be opened as a journal of paid calls: {exc}") from exc
        try:
            _lock(self._file, self.path)
            self._file.seek(0)
            self._entries, end = _load(self._file, self.path)
            self._file.truncate(end)
        except BaseException:
            self._file.close()
            raise

    def keys(self) -> Iterable[str]:
        """All keys that the journal has an entry for."""
        return self._entries.keys()

    def entries(self, key: str) -> Sequence[Entry]:
        """The entries of `key` in the order in which they were written."""
        return tuple(self._entries.get(key, ()))

    def add(self, key: str, **values: Any) -> None:
        """Write JSON values under `key`; once this returns they survive a crash."""
        entry = {"key": key, **values}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._entries.setdefault(key, []).append(entry)

    def _take(self, others: Mapping[str, Sequence[Entry]]) -> int:
        """Add the entries of another journal that this one lacks, and return how many these were."""
        # compared before any is added: a journal may hold two equal replies, both paid for
        missing = [entry for key, theirs in others.items() for entry in theirs if entry not in self.entries(key)]
        self._file.writelines(json.dumps(entry).encode() + b"\n" for entry in missing)
        self._file.flush()
        os.fsync(self._file.fileno())
        for entry in missing:
            self._entries.setdefault(entry["key"], []).append(entry)
        return len(missing)

    def close(self) -> None:
        """Close the file, so that another process may write it."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def merge_journals(parts: Iterable[str | Path], path: str | Path) -> int:
    """Bring the journals of several runs, such as the shards of one, into a single one; merging again changes nothing.

    A run with the merged journal pays for nothing that any of these runs has paid for.

    Args:
        parts: The journals to read; a run may be writing them.
        path: The journal to add their entries to; created when absent.

    Returns:
        The number of entries that were added.

    Raises:
        DataError: A file does not exist or is not a journal, or a run is writing `path`.
    """
    found = []
    for part in parts:
        if not Path(part).is_file():
            raise DataError(f"{part}: no such file; expected the journal of a run, which is OUT.journal by default")
        found.append(read_journal(part))
    with Journal(path) as merged:
        return sum(merged._take(entries) for entries in found)


def read_journal(path: str | Path | None) -> dict[str, list[Entry]]:
    """The entries of a journal by key, also while another process writes it; empty when there is no such file.

    Raises:
        DataError: The file is not a journal.
    """
    if path is None:
        return {}
    try:
        with Path(path).open("rb") as file:
            return _load(file, Path(path))[0]
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise DataError(f"{path} cannot be read as a journal of paid calls: {exc.strerror}") from exc


def valid_value(entries: Iterable[Entry]) -> dict[str, Any] | None:
    """The value of the first usable reply among the entries of a key; None when there is none."""
    return next((entry["value"] for entry in entries if entry["value"] is not None), None)


def _load(lines: Iterable[bytes], path: Path) -> tuple[dict[str, list[Entry]], int]:
    """The entries by key, and where the last whole line ends."""
    entries: dict[str, list[Entry]] = {}
    end = 0
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        end += len(line)
        try:
            entry = json.loads(line)
            if not isinstance(entry["key"], str) or not isinstance(entry["value"], dict | None):
                raise TypeError(entry["key"])
            entries.setdefault(entry["key"], []).append(entry)
        except (ValueError, KeyError, TypeError, RecursionError, MemoryError):
            raise DataError(
                f"{path}: line {number}: not a line of a journal of paid calls; choose another file"
            ) from None
    return entries, end


def _lock(file: Any, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such lock: there the user must not start two runs on one journal
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DataError(f"{path}: another run is writing this journal; wait for it or choose another file") from None
