"""Clients and agents of others, in an environment of their own (see tests/langchain/README.md); elsewhere left out."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NEEDED = ("langchain_anthropic", "langchain_ollama", "langchain_google_genai", "langgraph_supervisor", "deepagents")

# CI runs this directory where all of it is installed; pytest fails where nothing is collected
collect_ignore_glob = ["test_*.py"] if any(find_spec(name) is None for name in NEEDED) else []


def pytest_itemcollected(item: pytest.Item) -> None:
    # the clients of Ollama and Google leave their connections to the garbage collector
    for kind in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
