"""`routellm calibrate`: win rates of your own traffic, and the thresholds that they give."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.commands.records import SkipBad, same_file, told_bad
from routellm_core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from routellm_core.calibration.distribution import Calibration
    from routellm_core.calibration.targets import Target
    from routellm_core.data.prompts import PromptReader
    from routellm_core.routers.base import Router

# Prompts scored at a time, so also what a run that is stopped loses at most.
_BATCH = 1024
_SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Win rates read back at once when the distribution is built: bounds the memory, however many prompts there are.
_CHUNK = 1 << 20
# How every calibration file begins, whichever version wrote it.
_CALIBRATION = re.compile(rb'\s*\{\s*"format":\s*\d+,\s*"router":')


def calibrate(
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts",
            "-p",
            help="Traffic, plain or gzip: JSON lines, CSV, text, or a LangSmith, Langfuse or OpenTelemetry export.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Calibration file to write.")] = Path(
        "calibration.json"
    ),
    router: Annotated[str, typer.Option("--router", "-r", help="Router: a name or a directory.")] = "mf",
    format: Annotated[str, typer.Option(help="auto, text, jsonl, json or csv.")] = "auto",
    field: Annotated[
        str | None, typer.Option(help="Field or column that holds the prompt, such as inputs.text.")
    ] = None,
    strong_fraction: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of strong calls to give a threshold for; may be given again.",
            show_default=", ".join(map(str, _SHARES)),
        ),
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Money for --calls calls; needs prices and --tokens.")] = None,
    calls: Annotated[float | None, typer.Option(help="How many calls the budget is for.", show_default="1")] = None,
    strong_price: Annotated[float | None, typer.Option(help="Money per million tokens of the strong model.")] = None,
    weak_price: Annotated[float | None, typer.Option(help="Money per million tokens of the weak model.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Mean tokens of a call.")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many prompts.", min=1)] = None,
    precision: Annotated[float, typer.Option(help="Wanted precision of a share: 0.02 is ±2 points.")] = 0.02,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew instead of going on where an earlier run stopped.")
    ] = False,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the thresholds as JSON, for a program.")] = False,
) -> None:
    """Calibrate a router on your own prompts: thresholds for a share of strong calls or a budget.

    The file is read as a stream. When a run is stopped, the same command goes on where it was.

    Example: routellm calibrate --prompts traffic.jsonl --strong-fraction 0.3 --output calibration.json
    """
    from routellm_core.calibration.distribution import Calibration
    from routellm_core.data.files import SkippedRows
    from routellm_core.data.prompts import read_prompts
    from routellm_core.routers import load_router

    money = {"--strong-price": strong_price, "--weak-price": weak_price, "--tokens": tokens}
    if budget is None:
        alone = [name for name, value in {**money, "--calls": calls}.items() if value is not None]
        if alone:
            raise ConfigurationError(f"{', '.join(alone)} without --budget: give --budget too, or leave them out")
    elif lacking := [name for name, value in money.items() if value is None]:
        raise ConfigurationError(f"--budget needs {', '.join(lacking)} too")

    budget_calls = 1.0 if calls is None else calls

    def targets_of(fitted: Calibration) -> list[Target]:
        found = [fitted.share_target(share, precision=precision) for share in strong_fraction or _SHARES]
        if budget is not None:
            prices: dict[str, Any] = {"strong_price": strong_price, "weak_price": weak_price, "tokens": tokens}
            found.append(fitted.budget_target(budget, calls=budget_calls, **prices))
        return found

    # what is wrong is better told before a million prompts are scored than after
    targets_of(Calibration.from_win_rates([0.5]))
    bad = SkippedRows() if skip_bad else None
    reader = read_prompts(prompts, format=format, field=field, skip_bad=bad)  # type: ignore[arg-type]  # checked there
    _check_output(output, prompts)
    with _scores_of_this_run(output, restart) as scores:
        found = load_router(router)
        try:
            count = _score(found, reader, output, scores, limit, restart)
        finally:
            if bad is not None:
                told_bad(bad)
        fitted = _distribution(_scores_file(output), found, count)
        targets = targets_of(fitted)
        fitted.condensed().save(output)
        scores.truncate(0)
    if as_json:
        print(
            json.dumps(
                {
                    "calibration": str(output),
                    "router": found.name,
                    "count": fitted.count,
                    "skipped": reader.skipped,
                    "malformed": bad.count if bad is not None else 0,
                    "targets": [t.to_dict() for t in targets],
                }
            )
        )
    else:
        _print(targets, fitted, reader, output, limit, budget_calls)


def _scores_file(output: Path) -> Path:
    return output.with_name(output.name + ".scores.part")


def _header_file(output: Path) -> Path:
    return output.with_name(output.name + ".header.part")


def _check_output(output: Path, prompts: Path) -> None:
    """Refuse an output that would replace the prompts or another file that is no calibration."""
    part = output.with_name(output.name + ".part")
    with _told_unwritable(output):
        for path in (output, part, _scores_file(output), _header_file(output)):
            if same_file(path, prompts):
                raise ConfigurationError(f"--output {output} would replace the prompts, {path}: give another --output")
        if output.is_dir():
            raise ConfigurationError(f"--output {output} is a folder: give a file in it, {output / 'calibration.json'}")
        if output.exists() and not output.is_file():
            raise ConfigurationError(f"--output {output} is no regular file: give another --output")
        if output.exists() and output.stat().st_size:
            with output.open("rb") as file:
                head = file.read(256)
            if not _CALIBRATION.match(head):
                begins = head[:40].decode("utf-8", "replace")
                raise ConfigurationError(
                    f"--output {output} exists and is no calibration, it begins with {begins!r}: "
                    "give another --output, or remove the file"
                )


@contextmanager
def _told_unwritable(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigurationError(
            f"--output {output} cannot be written ({exc.filename}: {exc.strerror}): give another --output"
        ) from exc


@contextmanager
def _scores_of_this_run(output: Path, restart: bool) -> Iterator[FileIO]:
    """The file of scores beside the output, for this run alone; removed at the end when it is empty."""
    path = _scores_file(output)
    with _told_unwritable(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path, output)
    with file:
        try:
            yield file
        except KeyboardInterrupt:
            done = _size(file) // 8
            if done:
                how = "The same command without --restart" if restart else "The same command"
                print(f"routellm: stopped, {done:,} prompts are scored. {how} goes on from there", file=sys.stderr)
            raise
        finally:
            empty = not _size(file)
            if os.name == "nt":
                file.close()  # Windows removes no open file; elsewhere it stays locked until it is gone
            if empty:
                path.unlink(missing_ok=True)
                _header_file(output).unlink(missing_ok=True)


def _locked(path: Path, output: Path) -> FileIO:
    """Open a file to append to, unbuffered, locked until it is closed or the process ends in any way."""
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
                f"--output {output}: another run is writing it; wait until it ends, or give another --output"
            ) from None
        except OSError:
            return file  # a file system without locks
        # a run that was just ending may have removed the file before it was locked
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _score(router: Router, reader: PromptReader, output: Path, scores: FileIO, limit: int | None, restart: bool) -> int:
    """Score the prompts into `scores`, going on where an earlier run stopped; returns how many of them count."""
    from routellm_core.checks import write_json
    from routellm_core.commands.progress import progress_bar

    header = _header_file(output)
    stat = reader.path.stat()
    # A win rate depends on its prompt alone, so scores of the same prompts by the same router can be taken over.
    run = {
        "prompts": str(reader.path.resolve()),
        "size": stat.st_size,
        "modified": stat.st_mtime_ns,
        "format": reader.format,
        "field": reader.field,
        "router": router.fingerprint,
    }
    done = 0
    if not restart and _size(scores) >= 8:
        begun = _read_json(header)
        if begun != run:
            of = f" of {begun['prompts']}" if isinstance(begun, dict) and "prompts" in begun else ""
            raise ConfigurationError(
                f"--output {output}: {_size(scores) // 8:,} prompts are scored there by an unfinished run{of}, with "
                "another file, router or options, or before the file changed; give another --output, or --restart to "
                "drop them"
            )
        done = _size(scores) // 8
    scores.truncate(done * 8)  # a run that was killed may have left half a number
    if not done:
        write_json(header, run)  # after the scores of another run are gone, lest they be taken for those of this one
    with progress_bar("calibrating", percent=True) as progress:
        # an earlier run may have scored more than this one is limited to
        taken = done if limit is None else min(done, limit)
        if done:
            less = f", of which --limit takes the first {taken:,}" if taken < done else ""
            print(f"routellm: going on after {done:,} prompts{less}; --restart starts anew", file=sys.stderr)
        items: Iterator[str] = iter(reader)
        for _ in islice(items, taken):
            pass
        while batch := list(islice(items, _BATCH if limit is None else min(_BATCH, limit - taken))):
            _append(scores, router.win_rates(batch).astype("<f8").tobytes())
            taken += len(batch)
            progress(reader.bytes_read, reader.total_bytes)
    if not taken:
        skipped = f"; {reader.skipped} records held none" if reader.skipped else ""
        raise DataError(f"{reader.path} holds no prompt{skipped}; --field names the one that does, --format its kind")
    return taken


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def _append(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as exc:  # a full disk: the error of a write does not know its file
        exc.filename = file.name
        raise


def _distribution(scores: Path, router: Router, count: int) -> Calibration:
    """The distribution of the first `count` win rates of a file, in bounded memory."""
    import numpy as np

    from routellm_core.calibration.distribution import Calibration

    merged: Calibration | None = None
    with scores.open("rb") as file:
        left = count
        while left > 0:
            rates: npt.NDArray[np.float64] = np.frombuffer(file.read(8 * min(left, _CHUNK)), dtype="<f8")
            left -= rates.size
            part = Calibration.from_win_rates(rates, router=router.name, fingerprint=router.fingerprint)
            merged = part if merged is None else _merge(merged, part)
            if merged.values.size > 2 * _CHUNK:
                merged = merged.condensed(_CHUNK)
    assert merged is not None
    return merged


def _merge(first: Calibration, second: Calibration) -> Calibration:
    import numpy as np

    values, where = np.unique(np.concatenate([first.values, second.values]), return_inverse=True)
    counts = np.zeros(values.size, dtype=np.int64)
    np.add.at(counts, where, np.concatenate([first.counts, second.counts]))
    return type(first)(values, counts, router=first.router, fingerprint=first.fingerprint)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _print(
    targets: list[Target], fitted: Calibration, reader: PromptReader, output: Path, limit: int | None, calls: float
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "threshold", "strong share", "interval", "held-out half"):
        table.add_column(name, justify="left" if name == "target" else "right")
    for target in (t for t in targets if t.kind != "budget"):
        table.add_row(
            f"{100 * target.wanted:.4g}% strong",
            target.threshold_text,
            f"{target.strong_fraction.value:.1%}",
            f"{target.realised.low:.1%} to {target.realised.high:.1%}",
            "–" if target.held_out is None else f"{target.held_out:.1%}",
        )
    console.print(table)
    for target in (t for t in targets if t.kind == "budget"):
        spent = [f"{calls * value:,.4g}" for value in (target.wanted, *astuple(target.realised))]
        for_calls = f"{calls:,g} calls" if calls != 1 else "a call"
        text = (
            f"a budget of {spent[0]} for {for_calls}: threshold {target.threshold_text}, "
            f"{target.strong_fraction.value:.1%} strong, costs {spent[1]} (interval {spent[2]} to {spent[3]})"
        )
        if target.threshold == 0.0 and target.reached:
            text += "; it pays for always strong"
        console.print(Text(text))
    skipped = f", {reader.skipped:,} records without a prompt passed over" if reader.skipped else ""
    prompts = f"{fitted.count:,} prompts" if fitted.count != limit else f"the first {limit:,} prompts (--limit)"
    console.print(Text(f"{prompts}{skipped}; written: {output}"))
    for message in dict.fromkeys(_warnings(targets)):
        console.print(Text(message, "yellow"))


def _warnings(targets: list[Target]) -> Iterator[str]:
    yield from (target.message for target in targets if not target.reached)
    needed = max((t.needed for t in targets if t.reached), default=0)  # the message of the others says it already
    if needed > targets[0].count:
        yield f"Too few prompts for the wanted precision: about {needed:,} would do."
