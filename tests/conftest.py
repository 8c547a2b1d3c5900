"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

# Before numpy and torch are loaded. Small models gain nothing from more threads, and those of all the processes that
# run tests at once would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from tests.support.routers import HeldRouter

# How long an example takes says something about the machine, not about the code.
settings.register_profile("routellm", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("routellm")


@pytest.fixture
async def held_router() -> AsyncIterator[HeldRouter]:
    """A router that computes until the test releases it, at the latest when the test is over.

    Asynchronous, so that it is released before the event loop closes, which waits for its threads.
    """
    router = HeldRouter()
    yield router
    router.release()
