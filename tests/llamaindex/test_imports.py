"""The package's public face, and what importing it does and does not bring in."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM

import llamaindex_routellm
from llamaindex_routellm import RouteLLM, RouteLLMSelector
from routellm_core.policy.options import DecisionOptions, RoutingOptions
from routellm_core.policy.routing import ROUTING_OPTIONS

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "core"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names() -> None:
    assert llamaindex_routellm.__all__ == [
        "LlamaIndexEmbedder",
        "Retrieval",
        "RouteLLM",
        "RouteLLMDecisionEvent",
        "RouteLLMSelector",
        "SavingsEventHandler",
        "VectorStoreBattles",
        "routing_decision",
        "routing_decisions",
    ]
    for name in llamaindex_routellm.__all__:
        assert getattr(llamaindex_routellm, name).__name__ == name
    with pytest.raises(AttributeError, match="RouteLLMSelektor"):
        llamaindex_routellm.RouteLLMSelektor  # noqa: B018


def test_without_llama_index_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["llama_index"] = None
try:
    from llamaindex_routellm import RouteLLM
except ImportError as exc:
    print(type(exc).__name__, exc)
"""
    assert python(code) == (
        "MissingExtraError llamaindex_routellm.RouteLLM needs an optional dependency. "
        "Install it with: pip install 'routellm-adapters[llamaindex]', or in a checkout of the repository: "
        "pip install '.[llamaindex]'"
    )


def test_another_missing_module_keeps_its_own_message() -> None:
    code = """
import sys
sys.modules["wrapt"] = None
try:
    from llamaindex_routellm import RouteLLM
except ImportError as exc:
    print(type(exc).__name__, "wrapt" in str(exc))
"""
    assert python(code) == "ModuleNotFoundError True"


def test_what_importing_brings_in() -> None:
    code = """
import sys
import llamaindex_routellm
print([name for name in ("llama_index", "pydantic", "torch") if name in sys.modules])
from llamaindex_routellm import *
unwanted = ("torch", "openai", "langchain_core", "langchain_routellm", "llama_index.llms.openai", "transformers")
unwanted += ("llama_index.core.agent.workflow",)
print([name for name in unwanted if name in sys.modules])
"""
    assert python(code) == "[]\n[]"


ASYNC_TWINS = [
    ("chat", "achat"),
    ("complete", "acomplete"),
    ("stream_chat", "astream_chat"),
    ("stream_complete", "astream_complete"),
    ("chat_with_tools", "achat_with_tools"),
    ("stream_chat_with_tools", "astream_chat_with_tools"),
    ("predict", "apredict"),
    ("stream", "astream"),
    ("structured_predict", "astructured_predict"),
    ("stream_structured_predict", "astream_structured_predict"),
]


@pytest.mark.parametrize(("sync", "twin"), ASYNC_TWINS)
def test_async_twins_take_the_same_arguments(sync: str, twin: str) -> None:
    def parameters(name: str) -> list[tuple[str, object]]:
        return [(p.name, p.default) for p in inspect.signature(getattr(RouteLLM, name)).parameters.values()]

    assert parameters(sync) == parameters(twin)


def test_every_way_into_an_llm_is_routed() -> None:
    # a method that a later LlamaIndex adds and that calls a model would slip past the router: look at it first
    known = {name for pair in ASYNC_TWINS for name in pair}
    built_on_these = {"predict_and_call", "apredict_and_call", "as_structured_llm", "get_tool_calls_from_response"}
    not_a_call = {"class_name", "convert_chat_messages", "metadata", "to_payload"}
    checks = {"check_callback_manager", "check_prompts", "set_completion_to_prompt", "set_messages_to_prompt"}
    public = {
        name
        for base in (*LLM.__mro__[:2], FunctionCallingLLM)
        for name in vars(base)
        if not name.startswith(("_", "model_"))
    }
    assert public <= known | built_on_these | not_a_call | checks
    assert known <= set(vars(RouteLLM))


def test_signatures_are_those_of_llama_index() -> None:
    known = [name for pair in ASYNC_TWINS for name in pair]

    def parameters(method: Any) -> list[tuple[str, Any, object]]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]

    for name in known:
        ours, theirs = getattr(RouteLLM, name), getattr(FunctionCallingLLM, name)
        assert parameters(ours) == parameters(theirs), name
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs), name
        assert ours.__name__ == name
        assert ours.__qualname__ == f"RouteLLM.{name}"
        assert ours.__doc__ not in (None, theirs.__doc__), name


@pytest.mark.parametrize("name", llamaindex_routellm.__all__)
def test_annotations_resolve_at_run_time(name: str) -> None:
    exported = getattr(llamaindex_routellm, name)
    get_type_hints(exported)
    if not inspect.isclass(exported):
        return
    for attribute, value in vars(exported).items():
        # pydantic's own begin with model_
        if attribute.startswith(("_", "model_")) and attribute != "__init__":
            continue
        method = value.fget if isinstance(value, property) else getattr(exported, attribute)
        if inspect.isroutine(method):
            assert "return" in get_type_hints(method), attribute


@pytest.mark.parametrize("cls", [RouteLLM, RouteLLMSelector])
def test_options_are_those_of_the_core_by_type_and_not_by_copy(cls: Any) -> None:
    described = {RouteLLM: RoutingOptions, RouteLLMSelector: DecisionOptions}[cls]
    assert get_args(get_type_hints(cls.__init__)["options"]) == (described,)
    parameters = inspect.signature(cls).parameters
    assert not set(parameters) & ROUTING_OPTIONS
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert all(f"        {name}: " in (cls.__doc__ or "") for name in parameters if name != "options")
    assert described.__name__ in (cls.__doc__ or "")
