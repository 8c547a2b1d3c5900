"""The public surface, and what importing it does not pull in."""

from __future__ import annotations

import subprocess
import sys

import pytest

import langchain_routellm


def test_public_names_are_frozen() -> None:
    assert langchain_routellm.__all__ == [
        "ChatRouteLLM",
        "LangChainEmbedder",
        "RouteLLMDecisionModel",
        "RouteLLMMiddleware",
        "RouteLLMRunnable",
        "SavingsCallbackHandler",
        "VectorStoreBattles",
        "routing_decision",
        "routing_decisions",
    ]
    assert set(langchain_routellm.__all__) <= set(dir(langchain_routellm))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ChatRouteLM'"):
        langchain_routellm.ChatRouteLM  # noqa: B018


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_alone_loads_no_langchain() -> None:
    assert _run("import sys, langchain_routellm; print('langchain_core' in sys.modules)") == "False\n"


def test_the_chat_model_does_not_load_agents_or_a_provider() -> None:
    code = (
        "import sys; from langchain_routellm import ChatRouteLLM, RouteLLMRunnable\n"
        "print([m for m in ('langchain', 'langgraph', 'openai', 'torch') if m in sys.modules])"
    )
    assert _run(code) == "[]\n"


@pytest.mark.parametrize(
    ("name", "blocked", "extra"),
    [
        ("ChatRouteLLM", "langchain_core", "langchain"),
        ("RouteLLMRunnable", "langchain_core", "langchain"),
        ("RouteLLMMiddleware", "langchain", "agents"),
        ("RouteLLMMiddleware", "langchain_core", "agents"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(name: str, blocked: str, extra: str) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{blocked!r}] = None\n"
        "import langchain_routellm\n"
        "try:\n"
        f"    langchain_routellm.{name}\n"
        "except ImportError as exc:\n"
        "    print(type(exc).__name__, exc)\n"
    )
    out = _run(code)
    assert out.startswith("MissingExtraError")
    assert f"pip install 'routellm-adapters[{extra}]'" in out
