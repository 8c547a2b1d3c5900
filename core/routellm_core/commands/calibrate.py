"""`routellm calibrate`: win rates of your own traffic, and the thresholds that they give."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from routellm_core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from routellm_core.calibration import Calibration
    from routellm_core.evaluation.targets import Target
    from routellm_core.routers.base import Router
    from routellm_core.traffic import PromptReader

_BATCH = 4096
_SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Win rates read back at once when the distribution is built: bounds the memory, however many prompts there are.
_CHUNK = 1 << 20


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
    calls: Annotated[float, typer.Option(help="How many calls the budget is for.")] = 1.0,
    strong_price: Annotated[float | None, typer.Option(help="Money per million tokens of the strong model.")] = None,
    weak_price: Annotated[float | None, typer.Option(help="Money per million tokens of the weak model.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Mean tokens of a call.")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many prompts.", min=1)] = None,
    precision: Annotated[float, typer.Option(help="Wanted precision of a share: 0.02 is ±2 points.")] = 0.02,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew instead of going on where an earlier run stopped.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the thresholds as JSON, for a program.")] = False,
) -> None:
    """Calibrate a router on your own prompts: thresholds for a share of strong calls or a budget.

    The file is read as a stream. When a run is stopped, the same command goes on where it was.

    Example: routellm calibrate --prompts traffic.jsonl --strong-fraction 0.3 --output calibration.json
    """
    from routellm_core.calibration import Calibration
    from routellm_core.routers import load_router
    from routellm_core.traffic import read_prompts

    if budget is not None and (strong_price is None or weak_price is None or tokens is None):
        lacking = [
            name
            for name, value in (("--strong-price", strong_price), ("--weak-price", weak_price), ("--tokens", tokens))
            if value is None
        ]
        raise ConfigurationError(f"--budget needs {', '.join(lacking)} too")

    def targets_of(fitted: Calibration) -> list[Target]:
        found = [fitted.share_target(share, precision=precision) for share in strong_fraction or _SHARES]
        if budget is not None:
            money: dict[str, Any] = {"strong_price": strong_price, "weak_price": weak_price, "tokens": tokens}
            found.append(fitted.budget_target(budget, calls=calls, **money))
        return found

    targets_of(Calibration.from_win_rates([0.5]))  # a wrong option is better told before a million prompts than after
    reader = read_prompts(prompts, format=format, field=field)  # type: ignore[arg-type]  # checked there
    found = load_router(router)
    fitted = _fit(found, reader, output, limit, restart)
    targets = targets_of(fitted)
    fitted.condensed().save(output)
    _scores_file(output).unlink(missing_ok=True)
    _header_file(output).unlink(missing_ok=True)
    if as_json:
        print(
            json.dumps(
                {
                    "calibration": str(output),
                    "router": found.name,
                    "count": fitted.count,
                    "skipped": reader.skipped,
                    "targets": [t.to_dict() for t in targets],
                }
            )
        )
    else:
        _print(targets, fitted, reader, output)


def _scores_file(output: Path) -> Path:
    return output.with_name(output.name + ".scores.part")


def _header_file(output: Path) -> Path:
    return output.with_name(output.name + ".header.part")


def _fit(router: Router, reader: PromptReader, output: Path, limit: int | None, restart: bool) -> Calibration:
    """Score the prompts into a file beside the output, going on where an earlier run stopped, and count them up."""
    from routellm_core.commands.progress import progress_bar

    output.parent.mkdir(parents=True, exist_ok=True)
    scores, header = _scores_file(output), _header_file(output)
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
    if not restart and scores.is_file() and header.is_file() and _read_json(header) == run:
        done = scores.stat().st_size // 8
    header.write_text(json.dumps(run) + "\n", encoding="utf-8")
    with scores.open("r+b" if done else "wb") as file, progress_bar("calibrating", reader.total_bytes) as advance:
        file.truncate(done * 8)  # a run that was killed may have left half a number
        file.seek(done * 8)
        if done:
            print(f"routellm: going on after {done:,} prompts; --restart starts anew", file=sys.stderr)
        items: Iterator[str] = iter(reader)
        for _ in islice(items, done):
            pass
        position = 0
        # an earlier run may have scored more than this one is limited to
        while batch := list(islice(items, _BATCH if limit is None else max(0, min(_BATCH, limit - done)))):
            file.write(router.win_rates(batch).astype("<f8").tobytes())
            done += len(batch)
            advance(reader.bytes_read - position)
            position = reader.bytes_read
    if not done:
        scores.unlink()
        header.unlink()
        skipped = f"; {reader.skipped} records held none" if reader.skipped else ""
        raise DataError(f"{reader.path} holds no prompt{skipped}; --field names the one that does, --format its kind")
    return _distribution(scores, router, min(done, limit or done))


def _distribution(scores: Path, router: Router, count: int) -> Calibration:
    """The distribution of the first `count` win rates of a file, in bounded memory."""
    import numpy as np

    from routellm_core.calibration import Calibration

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


def _print(targets: list[Target], fitted: Calibration, reader: PromptReader, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "threshold", "strong share", "interval", "held-out half"):
        table.add_column(name, justify="left" if name == "target" else "right")
    for target in targets:
        money = target.kind == "budget"
        form = "{:.4g}" if money else "{:.1%}"
        share = target.strong_fraction
        table.add_row(
            f"{target.wanted:.4g} per call" if money else f"{target.wanted:.0%} strong",
            f"{target.threshold:.4f}",
            f"{share.value:.1%}",
            f"{form.format(target.realised.low)} to {form.format(target.realised.high)}",
            "–" if target.held_out is None else form.format(target.held_out),
        )
    console.print(table)
    skipped = f", {reader.skipped:,} records without a prompt passed over" if reader.skipped else ""
    console.print(Text(f"{fitted.count:,} prompts{skipped}; written: {output}"))
    for message in dict.fromkeys(_warnings(targets)):
        console.print(Text(message, "yellow"))


def _warnings(targets: list[Target]) -> Iterator[str]:
    yield from (target.message for target in targets if not target.reached)
    needed = max((t.needed for t in targets if t.reached), default=0)  # the message of the others says it already
    if needed > targets[0].count:
        yield f"Too few prompts for the wanted precision: about {needed:,} would do."
