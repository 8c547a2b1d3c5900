"""Several training processes on one machine, by torch's launcher, and whether as many came as were asked for."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from typing import Any

from routellm_core.errors import MissingExtraError, RouteLLMError

logger = logging.getLogger(__name__)

# Where launchers say how many processes they start; the same names that accelerate reads.
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def is_launched() -> bool:
    """Whether a launcher such as torchrun has started this process as one of several."""
    return max(_world_sizes(), default=1) > 1


def run_in_processes(count: int, function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Call a function in several new processes of this machine that train together, as under ``torchrun``.

    An error that the user can mend, which all of them raise alike, is raised here once, without the report of the
    launcher that torchrun ends with.

    Args:
        count: Number of processes.
        function: A function at the top level of a module.
        *args: Its arguments, which can be pickled.
        **kwargs: Likewise.

    Raises:
        MissingExtraError: torch is not installed.
        RouteLLMError: The function raised an error of this class; it has the same message.
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
    try:
        errors = elastic_launch(config, _in_process)(function, args, kwargs)
    except ChildFailedError as exc:
        rank, _ = exc.get_first_failure()
        raise RuntimeError(f"the training process of rank {rank} failed; see above") from None
    for error in errors.values():
        if error is not None:
            raise RouteLLMError(error)


def _in_process(function: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Call the function; returns the message of an error that the user can mend, since not all of these pickle."""
    try:
        function(*args, **kwargs)
    except RouteLLMError as exc:
        return str(exc)
    return None


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
