"""The examples run as a user would run them: with no key and no network, and with real clients over loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.examples import run_example
from tests.support.openai_server import ChatReply, OpenAIServer

EXAMPLES = ["rag", "agent", "router_engine", "extraction"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_with_no_key_and_no_network(name: str, tmp_path: Path) -> None:
    output = run_example(f"llamaindex_{name}.py", cwd=tmp_path)
    assert "STAND-INS answer" in output
    assert "weak" in output
    assert "strong" in output
    assert list(tmp_path.iterdir()) == []
    if name == "rag":
        assert output.count("[stand-in for the") == 5
        assert "The Harbour Bridge was opened on 19 March 1932" in output
        assert "strong share" in output
    if name == "agent":
        assert "multiply({'a': 12, 'b': 7}) = 84" in output
        assert {line.split(": ")[1] for line in output.splitlines() if "steps went to" in line} <= {
            "weak, weak",
            "strong, strong",
        }
    if name == "router_engine":
        assert "Bicycles travel free of charge." in output
        assert "threshold" in output
    if name == "extraction":
        assert output.count("Building(name='Harbour Bridge', metres=503.0, year=1932)") == 2


@pytest.mark.parametrize("name", EXAMPLES)
def test_with_real_clients(name: str, tmp_path: Path) -> None:
    building = '{"name": "Bridge", "metres": 503, "year": 1932}'

    def answer(body: dict[str, object]) -> ChatReply:
        tools = body.get("tools")
        if isinstance(tools, list) and tools[0]["function"]["name"] == "Building":
            return ChatReply(tool_calls=[("Building", {"name": "Bridge", "metres": 503, "year": 1932})])
        return ChatReply(building if "response_format" in body else f"said by {body['model']}")

    with OpenAIServer() as server:
        server.chat = answer
        output = run_example(
            f"llamaindex_{name}.py",
            cwd=tmp_path,
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY="sk-test",
            ROUTELLM_STRONG="gpt-4.1",
            ROUTELLM_WEAK="a-local-model",
        )
        models = {request.body["model"] for request in server.requests}
    assert "stand-in" not in output.lower()
    assert "Real models: strong gpt-4.1, weak a-local-model" in output
    assert models == {"gpt-4.1", "a-local-model"}
    if name == "extraction":
        assert output.count("Building(name='Bridge', metres=503.0, year=1932)") == 3
    else:
        assert "said by a-local-model" in output
