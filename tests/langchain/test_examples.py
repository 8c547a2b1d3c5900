"""The LangChain examples run: without a key, offline, over stand-ins; and with a server, over real clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.examples import ROOT, run_example
from tests.support.openai_server import ChatReply, OpenAIServer

EXAMPLES = ROOT / "examples"

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
def test_it_runs_with_no_key_and_no_network(name: str, tmp_path: Path) -> None:
    out = run_example(name, cwd=tmp_path)
    assert out.startswith("No OPENAI_API_KEY: STAND-INS answer")
    for text in SHOWN[name]:
        assert text in out


def test_the_chat_streams_sticks_and_obeys(tmp_path: Path) -> None:
    hard = "Find all integer solutions of x^2 - 2 y^2 = 1 and prove that there are no others."
    out = run_example("langchain_chat.py", cwd=tmp_path, typed=f"hi there\n{hard}\nthanks\n/weak bye\n\n")
    marks = [line.split("]")[0].removeprefix("> [") for line in out.splitlines() if line.startswith("> [")]
    assert marks[0] == "weak, win_rate"
    assert marks[1] == "strong, win_rate"
    assert marks[2].startswith("strong, ")
    assert marks[3] == "weak, forced"
    assert "strong share 50.0%" in out


@pytest.mark.parametrize("name", [*SHOWN, "langchain_chat.py"])
def test_it_runs_with_real_clients(name: str, tmp_path: Path) -> None:
    def chat(body: dict[str, object]) -> ChatReply:
        if name == "langchain_structured.py":
            return ChatReply('{"customer": "Anna", "boxes": 3}')
        return ChatReply(f"answer of {body['model']}")

    with OpenAIServer() as server:
        server.chat = chat
        out = run_example(
            name,
            cwd=tmp_path,
            typed="hi\n\n",
            OPENAI_BASE_URL=server.base_url,
            ROUTELLM_STRONG="big-model",
            ROUTELLM_WEAK="small-model",
        )
        assert out.startswith("Real models: strong big-model, weak small-model")
        assert {request.authorization for request in server.requests} == {"Bearer none"}
        assert {request.body["model"] for request in server.requests} <= {"big-model", "small-model"}
        assert server.requests_for("chat/completions", "small-model")


@pytest.mark.slow
def test_an_app_learns_from_its_traffic_what_the_script_planted(tmp_path: Path) -> None:
    out = run_example("learn_from_traffic.py", cwd=tmp_path)
    assert "Use it: at 30% strong calls" in out
    shares = re.search(r"(\d+)% before, (\d+)% after", out)
    money = re.search(r"quality:\s+([\d.]+) \[([\d.]+), ([\d.]+)\]\s+measured from \d+ pairs, ([\d.]+) in truth", out)
    assert shares is not None
    assert money is not None
    assert int(shares[2]) < int(shares[1]) / 2
    found, low, high, truth = (float(number) for number in money.groups())
    assert low < found < high
    # Which calls are shadowed depends on random ids. The 95 % interval misses the truth in one run of twenty, and one
    # of three times its width in one of a hundred million.
    assert abs(found - truth) < 3 * (high - low) / 2
    assert high - low < truth * 1.2
