"""LangChain's own conformance suites, over scripted models: the wrapper in three set-ups, and the model as control."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_routellm import ChatRouteLLM
from tests.support.fakes_langchain import ScriptedChatModel

# the suites time two of their tests; here they only have to work
pytestmark = pytest.mark.benchmark(max_time=0.01, min_rounds=1)

# name of a set-up -> threshold; no win rate of the random router reaches 1
SETUPS = {"all_strong": 0.0, "all_weak": 1.0, "mixed": 0.5}


@pytest.fixture(autouse=True)
def _media_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suites fetch a picture, a recording and a PDF; any bytes do, since the scripted model does not look."""
    monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "routellm-adapters tests")
    monkeypatch.setattr(httpx, "get", lambda *args, **kwargs: SimpleNamespace(content=b"\x89PNG media"))


@pytest.fixture(autouse=True)
def _known_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load(allowed_objects="all")` knows langchain_core's own classes only; the suite offers no other way in."""
    ours = {
        ("langchain_routellm", "chat_model", "ChatRouteLLM"): ("langchain_routellm", "chat_model", "ChatRouteLLM"),
        ("langchain", "chat_models", "scripted", "ScriptedChatModel"): (
            "tests",
            "support",
            "fakes_langchain",
            "ScriptedChatModel",
        ),
    }
    module = import_module("langchain_core.load.load")
    monkeypatch.setattr(module, "_default_class_paths_cache", {})
    monkeypatch.setattr(module, "DEFAULT_NAMESPACES", [*module.DEFAULT_NAMESPACES, "tests", "langchain_routellm"])
    for key, path in ours.items():
        monkeypatch.setitem(module.ALL_SERIALIZABLE_MAPPINGS, key, path)


@pytest.fixture
def vcr() -> SimpleNamespace:
    """Stands for recorded HTTP traffic, of which a scripted model has none: the timed stream runs against it."""
    return SimpleNamespace(responses=["none needed"])


class _Scripted:
    """What the scripted model can do: everything that the suites ask about."""

    enable_vcr_tests = True

    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_audio_inputs = True
    supports_video_inputs = True
    supports_anthropic_inputs = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    returns_usage_metadata = True
    supports_model_override = True
    model_override_value = "another-model"
    chat_model_class: type[BaseChatModel] = ScriptedChatModel
    chat_model_params: dict[str, Any] = {"model": "control"}  # noqa: RUF012


def _routed(threshold: float) -> dict[str, Any]:
    return {
        "strong": ScriptedChatModel(model="strong-model"),
        "weak": ScriptedChatModel(model="weak-model"),
        "router": "random",
        "threshold": threshold,
    }


class TestControlUnit(_Scripted, ChatModelUnitTests):
    """The inner model alone."""


class TestControlIntegration(_Scripted, ChatModelIntegrationTests):
    """The inner model alone."""


class TestAllStrongUnit(_Scripted, ChatModelUnitTests):
    chat_model_class = ChatRouteLLM
    chat_model_params = _routed(SETUPS["all_strong"])


class TestAllStrongIntegration(_Scripted, ChatModelIntegrationTests):
    chat_model_class = ChatRouteLLM
    chat_model_params = _routed(SETUPS["all_strong"])


class TestAllWeakUnit(_Scripted, ChatModelUnitTests):
    chat_model_class = ChatRouteLLM
    chat_model_params = _routed(SETUPS["all_weak"])


class TestAllWeakIntegration(_Scripted, ChatModelIntegrationTests):
    chat_model_class = ChatRouteLLM
    chat_model_params = _routed(SETUPS["all_weak"])


class TestMixedUnit(_Scripted, ChatModelUnitTests):
    chat_model_class = ChatRouteLLM
    chat_model_params = _routed(SETUPS["mixed"])


class TestMixedIntegration(_Scripted, ChatModelIntegrationTests):
    chat_model_class = ChatRouteLLM
    chat_model_params = _routed(SETUPS["mixed"])


@pytest.mark.parametrize(("name", "sides"), [("all_strong", {"strong"}), ("all_weak", {"weak"})])
def test_a_set_up_uses_the_side_it_is_named_after(name: str, sides: set[str]) -> None:
    llm = ChatRouteLLM(**_routed(SETUPS[name]))
    answers: list[AIMessage] = llm.batch([f"prompt {i}" for i in range(20)])
    assert {a.response_metadata["routellm"]["model"] for a in answers} == sides


def test_the_mixed_set_up_uses_both_sides() -> None:
    llm = ChatRouteLLM(**_routed(SETUPS["mixed"]))
    answers = llm.batch([f"prompt {i}" for i in range(20)])
    assert {a.response_metadata["model_name"] for a in answers} == {"strong-model", "weak-model"}
