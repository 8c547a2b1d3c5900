"""The LangChain examples run: without a key, offline, over stand-ins; and with a server, over real clients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.openai_server import ChatReply, OpenAIServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

# runs a script with every connection refused that is not to this machine (or, for "none", every one)
RUN = """
import runpy, socket, sys
real = socket.socket.connect
def connect(self, address):
    if sys.argv[1] == "none" or address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise AssertionError(f"the example connects to {address}")
    return real(self, address)
socket.socket.connect = connect
sys.path.insert(0, sys.argv[3])
runpy.run_path(sys.argv[2], run_name="__main__")
"""


def _run(name: str, typed: str = "", **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI", "ROUTELLM_STRONG", "ROUTELLM_WEAK"))}
    paths = os.pathsep.join([str(ROOT / "core"), str(ROOT), kept.get("PYTHONPATH", "")])
    allowed = "loopback" if environment else "none"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, allowed, str(EXAMPLES / name), str(EXAMPLES)],
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        env={**kept, "PYTHONPATH": paths, **environment},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SHOWN = {
    "langchain_chain.py": [
        "weak\n  [stand-in for the weak",
        "strong\n  [stand-in for the strong",
        "Forced to the strong",
    ],
    "langchain_rag.py": ["weak (win rate", "strong (win rate", "opened on 19 March 1932", "two pipelines"],
    "langchain_agent.py": ["It is sunny in Lisbon", "grows to 1425.76", "weak (win rate", "strong (win rate", "saved"],
    "langchain_structured.py": ["Order(customer='Anna Meyer', boxes=3)", "Order(customer='Carla Rossi', boxes=12)"],
    "langchain_batch.py": ["weak    0.", "strong  0.", "strong share 33.3%", "saved"],
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("langchain_*.py")} == {*SHOWN, "langchain_chat.py"}


@pytest.mark.parametrize("name", SHOWN)
def test_it_runs_with_no_key_and_no_network(name: str) -> None:
    out = _run(name)
    assert out.startswith("No OPENAI_API_KEY: STAND-INS answer")
    for text in SHOWN[name]:
        assert text in out


def test_the_chat_streams_sticks_and_obeys() -> None:
    hard = "Find all integer solutions of x^2 - 2 y^2 = 1 and prove that there are no others."
    out = _run("langchain_chat.py", f"hi there\n{hard}\nthanks\n/weak bye\n\n")
    marks = [line.split("]")[0].removeprefix("> [") for line in out.splitlines() if line.startswith("> [")]
    assert marks[0] == "weak, win_rate"
    assert marks[1] == "strong, win_rate"
    assert marks[2].startswith("strong, ")
    assert marks[3] == "weak, forced"
    assert "strong share 50.0%" in out


@pytest.mark.parametrize("name", [*SHOWN, "langchain_chat.py"])
def test_it_runs_with_real_clients(name: str) -> None:
    def chat(body: dict[str, object]) -> ChatReply:
        if name == "langchain_structured.py":
            return ChatReply('{"customer": "Anna", "boxes": 3}')
        return ChatReply(f"answer of {body['model']}")

    with OpenAIServer() as server:
        server.chat = chat
        out = _run(
            name,
            "hi\n\n",
            OPENAI_BASE_URL=server.base_url,
            ROUTELLM_STRONG="big-model",
            ROUTELLM_WEAK="small-model",
        )
        assert out.startswith("Real models: strong big-model, weak small-model")
        assert {request.authorization for request in server.requests} == {"Bearer none"}
        assert {request.body["model"] for request in server.requests} <= {"big-model", "small-model"}
        assert server.requests_for("chat/completions", "small-model")
