"""The public surface, and what importing it does not cost."""

import os
import subprocess
import sys

import pytest

import routellm_core
import routellm_core.embedders
import routellm_core.errors
import routellm_core.routers
from routellm_core import MissingExtraError, RouteLLMError

HEAVY = [
    "torch",
    "transformers",
    "openai",
    "langchain",
    "langchain_core",
    "llama_index",
    "pydantic",
    "typer",
    "matplotlib",
    "jinja2",
    "sqlalchemy",
    "psycopg",
    "sqlite3",
    "asyncio",
]


def run(code: str, **env: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, env={**os.environ, **env},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import routellm_core",
        "import routellm_core.routers, routellm_core.embedders, routellm_core.evaluation",
        "from routellm_core import load_router; load_router().win_rates(['hi'])",
        "import langchain_routellm, llamaindex_routellm",
    ],
)
def test_importing_and_routing_loads_nothing_heavy(code):
    loaded = run(f"import sys\n{code}\nprint(sorted(set(sys.modules) & set({HEAVY!r})))")
    assert loaded == "[]"


# What a decision does not need is imported where it is used: each of these takes longer than most of our own modules.
LATER = [
    "asyncio",
    "concurrent.futures",
    "difflib",
    "importlib.metadata",
    "queue",
    "random",
    "routellm_core.calibration.online",
    "routellm_core.data",
    "routellm_core.embedders",
    "routellm_core.log",
    "routellm_core.policy.exploration",
    "routellm_core.policy.limits",
    "routellm_core.policy.options",
    "routellm_core.policy.savings",
    "routellm_core.policy.stickiness",
    "routellm_core.statistics",
    "sqlite3",
]


def test_importing_the_core_leaves_what_a_decision_does_not_need():
    loaded = run(
        "import sys, numpy; before = set(sys.modules); import routellm_core\n"
        f"print(sorted((set(sys.modules) - before) & set({LATER!r})))"
    )
    assert loaded == "[]"


def test_import_needs_no_environment():
    code = f"import sys; sys.path[:] = {sys.path!r}; import routellm_core; print('ok')"
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, env={}, check=False)
    assert result.stdout.strip() == "ok", result.stderr


def test_public_names():
    assert sorted(routellm_core.__all__) == [
        "Calibration", "CheckpointError", "CheckpointNotFoundError", "ConfigurationError", "DataError",
        "DeadlineError", "LimitError", "MissingExtraError", "OnlineCalibration", "Price", "PromptError",
        "RouteLLMError", "Router", "RouterError", "RouterFolder", "RoutingDecision", "RoutingPolicy", "RoutingRequest",
        "Shadow", "ShareLimit", "SpendLimit", "Stickiness", "TrafficLog", "WinRates", "load_router",
    ]  # fmt: skip
    for module in (routellm_core, routellm_core.routers, routellm_core.embedders):
        for name in module.__all__:
            assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = routellm_core.routers.Nothing
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = routellm_core.embedders.Nothing


def test_every_error_is_a_routellm_error_and_a_builtin_one():
    errors = [v for v in vars(routellm_core.errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(errors) > 5
    for error in errors:
        assert issubclass(error, RouteLLMError)
        if error is not RouteLLMError:
            assert issubclass(error, (ValueError, TypeError, RuntimeError, ImportError, OSError))


def test_a_missing_extra_gives_the_install_line():
    assert "pip install 'routellm-adapters[langchain]'" in str(MissingExtraError("ChatRouteLLM", "langchain"))


@pytest.mark.parametrize(
    ("missing", "code", "extra"),
    [
        ("langchain_core", "from langchain_routellm import ChatRouteLLM", "langchain"),
        ("langchain", "from langchain_routellm import RouteLLMMiddleware", "agents"),
        ("llama_index", "from llamaindex_routellm import RouteLLM", "llamaindex"),
        ("openai", "from routellm_core.embedders import OpenAIEmbedder; OpenAIEmbedder(api_key='x')", "openai"),
        ("torch", "from routellm_core import load_router; load_router('bert', '.')", "bert"),
        ("torch", "from routellm_core import load_router; load_router('causal_llm', '.')", "bert"),
        ("huggingface_hub", "from routellm_core import load_router; load_router('mf', 'owner/name')", "hub"),
        ("sqlalchemy", "from routellm_core import TrafficLog; TrafficLog('sqlite:///t.db')", "log"),
        ("sqlalchemy", "from routellm_core.log import TrafficDatabase", "log"),
        ("sqlalchemy", "from routellm_core.training import learn; learn('sqlite:///t.db', 'out')", "log"),
        ("psycopg", "from routellm_core import TrafficLog; TrafficLog('postgresql://h/d')", "log-postgres"),
        ("typer", "from routellm_core.cli import build_app; build_app()", "cli"),
    ],
)
def test_without_an_extra_its_parts_say_what_to_install(tmp_path, missing, code, extra):
    (tmp_path / "config.json").write_text("{}")
    program = f"""
import os, sys
os.chdir({str(tmp_path)!r})
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
try:
    exec({code!r})
except ImportError as exc:
    print(exc)
"""
    assert f"pip install 'routellm-adapters[{extra}]'" in run(program)


@pytest.mark.parametrize(
    "argv",
    [
        ["traffic", "summary", "--data", "sqlite:///t.db"],
        ["traffic", "summary", "--data", "sqlite:///t.db", "--by", "user"],
        ["traffic", "report", "--data", "sqlite:///t.db", "--out", "t.html"],
        ["traffic", "feedback", "--data", "scores.csv", "--out", "sqlite:///t.db"],
        ["learn", "--data", "sqlite:///t.db", "--out", "mine"],
        ["replay", "--data", "sqlite:///t.db"],
    ],
    ids=" ".join,
)
def test_commands_that_need_a_log_say_what_to_install(tmp_path, argv):
    (tmp_path / "scores.csv").write_text("call_id,score\na,1\n")
    program = f"""
import os, sys
os.chdir({str(tmp_path)!r})
sys.modules["sqlalchemy"] = None
from routellm_core.cli import main
main({argv!r})
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "pip install 'routellm-adapters[log]'" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
