"""Several training processes on one machine, by torch's launcher, and whether as many came as were asked for."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from routellm_core import errors
from routellm_core.errors import MissingExtraError, RouteLLMError

logger = logging.getLogger(__name__)

# What the launcher logs of a process that failed.
_LAUNCHER_LOG = "torch.distributed.elastic.multiprocessing.api"

# Where launchers say how many processes they start; the same names that accelerate reads.
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def is_launched() -> bool:
    """Whether a launcher such as torchrun has started this process as one of several."""
    return max(_world_sizes(), default=1) > 1


@contextmanager
def errors_for_launcher() -> Iterator[None]:
    """Leave an error that the user can mend where torchrun reads what to report of a process.

    Its report is the last thing that torchrun prints, and ends with this message; otherwise it has only the exit code.
    """
    try:
        yield
    except RouteLLMError as exc:
        if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            # as torch's own ErrorHandler writes it, with the message in the place of a traceback
            extra = {"py_callstack": str(exc), "timestamp": str(int(time.time()))}
            report = {"message": {"message": str(exc), "extraInfo": extra}}
            Path(file).write_text(json.dumps(report), encoding="utf-8")
        raise


def run_in_processes(count: int, function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Call a function in several new processes of this machine that train together, as under ``torchrun``.

    An error that the user can mend is raised here once, without the report of the launcher that torchrun ends with;
    the processes that did not raise it, and may wait for the one that did, are stopped.

    Args:
        count: Number of processes.
        function: A function at the top level of a module.
        *args: Its arguments, which can be pickled.
        **kwargs: Likewise.

    Raises:
        MissingExtraError: torch is not installed.
        RouteLLMError: The function raised an error of this class; it has the same message and, but for
            `MissingExtraError`, the same class.
        RuntimeError: A process failed; its traceback is on stderr.
    """
    try:
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch
    except ImportError:
        raise MissingExtraError("Training in several processes", "train") from None
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any free port
        max_restarts=0,
        start_method="spawn",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def is_news(record: logging.LogRecord) -> bool:
            return not any(folder.glob("*.json"))

        log = logging.getLogger(_LAUNCHER_LOG)
        log.addFilter(is_news)
        try:
            elastic_launch(config, _in_process)(name, function, args, kwargs)
        except ChildFailedError as exc:
            if reported := sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):
                raise _read_error(reported[0]) from None
            rank, _ = exc.get_first_failure()
            raise RuntimeError(f"the training process of rank {rank} failed; see above") from None
        finally:
            log.removeFilter(is_news)


def _in_process(folder: str, function: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Call the function; an error that the user can mend is written to the folder, and ends the process.

    The launcher stops the other processes only when one of them fails.
    """
    try:
        function(*args, **kwargs)
    except RouteLLMError as exc:
        kind = next(cls for cls in type(exc).__mro__ if cls.__module__ == errors.__name__)
        file = Path(folder, f"{os.environ['RANK']}.json")
        part = file.with_suffix(".part")
        part.write_text(json.dumps([kind.__name__, str(exc)]), encoding="utf-8")
        part.replace(file)  # whole or not at all: the launcher may stop this process at any time
        raise SystemExit(1) from None


def _read_error(file: Path) -> RouteLLMError:
    """The error that a process has written."""
    name, message = json.loads(file.read_text(encoding="utf-8"))
    kind: type[RouteLLMError] = getattr(errors, name)
    # the class of a missing extra words its message itself
    return RouteLLMError(message) if kind is MissingExtraError else kind(message)


def _world_sizes() -> list[int]:
    """What launchers say in the environment."""
    return [int(size) for name in _WORLD_SIZES if (size := os.environ.get(name, "")).isdecimal()]


def warn_of_missing_processes(world_size: int) -> None:
    """Log a warning if the launcher was asked for more processes than train together."""
    sizes = _world_sizes()
    asked = str(max(sizes)) if sizes and max(sizes) > world_size else None
    # `accelerate launch` names an address for several processes, and with --cpu starts one, which has no rank
    if not sizes and "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        asked = "several"
    if asked is not None:
        logger.warning(
            "the launcher was asked for %s processes, but %d trains: start them with --processes N, or with torchrun "
            "--nproc-per-node N (accelerate launch --cpu starts a single one)",
            asked,
            world_size,
        )
