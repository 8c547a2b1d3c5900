"""Several training processes on this machine: what becomes of an error of one of them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from routellm_core import DataError
from routellm_core.errors import MissingExtraError, RouteLLMError
from routellm_core.training.processes import run_in_processes

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def fail_alone(error: str) -> None:
    """The first process fails; the second waits for it, for longer than any test may take."""
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(hours=1))
    if dist.get_rank() == 0:
        if error == "extra":
            raise MissingExtraError("This", "train")
        raise DataError("line 7 is malformed") if error == "data" else KeyError("a fault")
    dist.barrier()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("data", DataError, "^line 7 is malformed$"),
        ("extra", RouteLLMError, "^This needs an optional dependency"),
        ("fault", RuntimeError, "the training process of rank . failed"),
    ],
)
def test_an_error_of_one_process_ends_them_all_and_is_raised_here(
    error: str, kind: type[Exception], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(kind, match=message) as raised:
        run_in_processes(2, fail_alone, error)
    assert type(raised.value) is kind
    assert ("failed" in caplog.text) is (error == "fault")
