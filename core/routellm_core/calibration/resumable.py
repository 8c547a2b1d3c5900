"""Calibration of a large prompt file: win rates are saved beside the output, so a run that stops early can continue."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from routellm_core.calibration.distribution import Calibration
from routellm_core.calibration.scoring import RouterLike, Scorer
from routellm_core.checks import Progress, checked_count, checked_flag, read_json_object, same_file, write_json
from routellm_core.data.prompts import PromptReader, read_prompts
from routellm_core.errors import CheckpointError, ConfigurationError

# Prompts scored at a time, so also what a run that is stopped loses at most.
_BATCH = 1024
# Win rates read back at once when the distribution is built: bounds the memory, however many prompts there are.
_CHUNK = 1 << 20
# How every calibration file begins, whichever version wrote it.
_CALIBRATION = re.compile(rb'\s*\{\s*"format":\s*\d+,\s*"router":')


def calibrate_file(
    router: RouterLike,
    prompts: str | Path | PromptReader,
    out: str | Path,
    *,
    limit: int | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """Calibrate a router on a file of prompts of any size; when interrupted, the same call continues.

    `ResumableCalibration` does the same in steps, and says which files it writes.

    Args:
        router: A router, an object with ``win_rates(prompts)``, or a function ``list[str] -> numbers``.
        prompts: The file, or what `routellm_core.data.read_prompts` made of it.
        out: The calibration file to write.
        limit: Number of prompts to read at most; None reads all.
        restart: Drop the scores of an unfinished run instead of continuing it.
        progress: Called after each batch with the bytes of the file that are read, and its size.

    Returns:
        The calibration, also saved to `out`.

    Raises:
        ConfigurationError: `out` must not or cannot be written, another run is writing it, or it holds the unfinished
            work of a different run.
        DataError: The file cannot be read, or contains no prompt.
        RouterError: The router failed. The prompts that it scored before are kept.
    """
    with ResumableCalibration(prompts, out, limit=limit, restart=restart) as run:
        return run.fit(router, progress=progress)


class ResumableCalibration:
    """One run that calibrates a router on a file of prompts, and can be stopped and continued.

    The prompts are read as a stream, in bounded memory. Their win rates are appended to ``OUT.scores.part``, and what
    they belong to is noted in ``OUT.header.part``. A run that ends early in any way leaves both, and the next one with
    the same file, options and router continues there. The file of scores is locked during the run, so that two runs
    never mix.

    Entering the context takes the lock and fails before any prompt is scored where `out` cannot be written, so a
    router that takes long to load is best loaded inside it.

    Args:
        prompts: The file, or what `routellm_core.data.read_prompts` made of it.
        out: The calibration file to write. An existing calibration is replaced; any other file that is not empty is
            left alone.
        limit: Number of prompts to read at most; None reads all.
        restart: Drop the scores of an unfinished run instead of continuing it.

    Attributes:
        scored: Number of prompts whose win rates are in the file of scores, of this and of an earlier run.

    Raises:
        ConfigurationError: A value is not allowed; `out` would replace the prompts or a file that is not a calibration,
            or cannot be written; or another run is writing it.
        DataError: There is no such file of prompts.
    """

    def __init__(
        self, prompts: str | Path | PromptReader, out: str | Path, *, limit: int | None = None, restart: bool = False
    ) -> None:
        self.reader = prompts if isinstance(prompts, PromptReader) else read_prompts(prompts)
        self.out = Path(out)
        self.limit = None if limit is None else checked_count(limit, "limit")
        self.restart = checked_flag(restart, "restart")
        self.scored = 0
        self._file: FileIO | None = None
        self._check_out()

    def _beside(self, ending: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{ending}")

    @property
    def _scores_path(self) -> Path:
        return self._beside("scores.part")

    @property
    def _header_path(self) -> Path:
        return self._beside("header.part")

    def _check_out(self) -> None:
        """Refuse an output that would replace the prompts, or another file that is not a calibration."""
        out, prompts = self.out, self.reader.path
        with self._unwritable_named():
            for path in (out, self._beside("part"), self._scores_path, self._header_path):
                if same_file(path, prompts):
                    raise ConfigurationError(f"out={out} would replace the prompts, {path}: give another file")
            if out.is_dir():
                raise ConfigurationError(f"out={out} is a folder: give a file in it, {out / 'calibration.json'}")
            if out.exists() and not out.is_file():
                raise ConfigurationError(f"out={out} is not a regular file: give another file")
            if out.exists() and out.stat().st_size:
                with out.open("rb") as file:
                    head = file.read(256)
                if not _CALIBRATION.match(head):
                    raise ConfigurationError(
                        f"out={out} exists and is not a calibration: give another file, or remove this one"
                    )

    @contextmanager
    def _unwritable_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ConfigurationError(
                f"out={self.out} cannot be written ({exc.filename}: {exc.strerror}): give another file"
            ) from exc

    def __enter__(self) -> Self:
        with self._unwritable_named():
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._locked()
        self.scored = self._size(self._file) // 8
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        file, self._file = self._file, None
        assert file is not None
        with file:
            empty = not self._size(file)
            if os.name == "nt":
                file.close()  # Windows removes no open file; elsewhere it stays locked until it is gone
            if empty:
                self._scores_path.unlink(missing_ok=True)
                self._header_path.unlink(missing_ok=True)

    def _locked(self) -> FileIO:
        """Open the scores to append to, unbuffered, locked until they are closed or the process ends in any way."""
        path = self._scores_path
        try:
            import fcntl
        except ImportError:  # Windows has no lock that ends with the process and still lets the file be read
            return FileIO(path, "a+")
        while True:
            file = FileIO(path, "a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise ConfigurationError(
                    f"out={self.out}: another run is writing it; wait until it ends, or give another file"
                ) from None
            except OSError:
                return file  # a file system without locks
            # a run that was just ending may have removed the file before it was locked
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            file.close()

    @staticmethod
    def _size(file: FileIO) -> int:
        return os.fstat(file.fileno()).st_size

    def fit(
        self,
        router: RouterLike,
        *,
        progress: Progress | None = None,
        on_resume: Callable[[int], None] | None = None,
    ) -> Calibration:
        """Score the prompts that are not scored yet, and write the calibration.

        Args:
            router: A router, an object with ``win_rates(prompts)``, or a function ``list[str] -> numbers``. Of routers
                without a fingerprint, those of the same name are taken for the same router when a run continues.
            progress: Called after each batch with the bytes of the file that are read, and its size.
            on_resume: Called before the first batch where an earlier run is continued, with the number of prompts
                that it has scored.

        Returns:
            The calibration. Of very many distinct win rates, the saved file has at most 10,000 and moves no share by
            more than 0.01 points; see `Calibration.condensed`.

        Raises:
            ConfigurationError: The scores are those of an unfinished run with another file, router or options.
            DataError: A record is malformed, or the file contains no prompt.
            RouterError: The router failed. The prompts that it scored before are kept.
        """
        if self._file is None:
            raise ConfigurationError("fit() works in the context of the run: with ResumableCalibration(...) as run")
        scorer = Scorer(router)
        resumed = self._resume(scorer, self._file)
        if resumed and on_resume is not None:
            on_resume(resumed)
        count = self._score(scorer, self._file, resumed, progress)
        fitted = _distribution(self._scores_path, scorer, count)
        fitted.condensed().save(self.out)
        self._file.truncate(0)
        return fitted

    def _score(self, scorer: Scorer, file: FileIO, resumed: int, progress: Progress | None) -> int:
        """Score the prompts after the first `resumed` into `file`; returns how many prompts count."""
        # an earlier run may have scored more than this one is limited to
        taken = resumed if self.limit is None else min(resumed, self.limit)
        reader, prompts = self.reader, iter(self.reader)
        try:
            for _ in islice(prompts, taken):
                pass
            while batch := list(islice(prompts, _BATCH if self.limit is None else min(_BATCH, self.limit - taken))):
                _append(file, scorer.win_rates(batch).astype("<f8").tobytes())
                taken += len(batch)
                self.scored = self._size(file) // 8
                if progress is not None:
                    progress(reader.bytes_read, reader.total_bytes)
        finally:
            if isinstance(prompts, Generator):
                prompts.close()  # a run that is stopped leaves no open file behind
        if not taken:
            raise reader.no_prompt()
        if progress is not None:
            progress(reader.total_bytes, reader.total_bytes)
        return taken

    def _resume(self, scorer: Scorer, file: FileIO) -> int:
        """Number of prompts that an earlier run of this same calibration has scored; else begin anew."""
        stat = self.reader.path.stat()
        # A win rate depends on its prompt alone, so scores of the same prompts by the same router can be taken over.
        run = {
            "prompts": str(self.reader.path.resolve()),
            "size": stat.st_size,
            "modified": stat.st_mtime_ns,
            "format": self.reader.format,
            "field": self.reader.field,
            "form": self.reader.form,
            "router": scorer.fingerprint,
        }
        done = 0 if self.restart else self._size(file) // 8
        if done and (begun := _read_json(self._header_path)) != run:
            of = f" of {begun['prompts']}" if isinstance(begun, dict) and "prompts" in begun else ""
            raise ConfigurationError(
                f"out={self.out}: {done:,} prompts are scored there by an unfinished run{of}, with another file, "
                "router or options, or before the file changed; give another file, or restart=True (--restart) to "
                "drop them"
            )
        file.truncate(done * 8)  # a run that was killed may have left half a number
        self.scored = done
        if not done:
            # only after the scores of another run are gone, so that they are never taken for those of this one
            write_json(self._header_path, run)
        return done


def _append(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as exc:  # a full disk: the error of a write does not know its file
        exc.filename = file.name
        raise


def _distribution(scores: Path, scorer: Scorer, count: int) -> Calibration:
    """The distribution of the first `count` win rates of a file, in bounded memory."""
    merged: Calibration | None = None
    with scores.open("rb") as file:
        left = count
        while left > 0:
            rates = np.frombuffer(file.read(8 * min(left, _CHUNK)), dtype="<f8")
            left -= rates.size
            part = Calibration.from_win_rates(rates, router=scorer.name, fingerprint=scorer.fingerprint)
            merged = part if merged is None else Calibration.merge([merged, part])
            if merged.values.size > 2 * _CHUNK:
                merged = merged.condensed(_CHUNK)
    assert merged is not None
    return merged


def _read_json(file: Path) -> Any:
    try:
        return read_json_object(file, "no run has begun there")
    except CheckpointError:
        return None
