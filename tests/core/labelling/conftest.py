"""The service that the tests of labelling call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.labelling.services import fair_judge
from tests.support.openai_server import OpenAIServer


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    """A server whose chat model judges fairly."""
    with OpenAIServer() as running:
        running.chat = fair_judge
        yield running
