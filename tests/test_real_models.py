"""Two small real models: their questions and replies without them, and the whole way with them where that is wanted.

The whole way needs a network once, 450 MB and some minutes:
``ROUTELLM_REAL_MODELS=1 pytest tests/test_real_models.py``; ``ROUTELLM_MODELS`` names the folder that keeps the models.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.support.examples import ROOT
from tests.support.openai_server import ChatReply, Failure, OpenAIServer

sys.path.insert(0, str(ROOT / "examples"))

from small_models import Question, RememberedReplies, questions


def test_questions_are_different_and_the_same_for_a_seed() -> None:
    made = questions(300, seed=3)
    assert made == questions(300, seed=3)
    assert len({question.prompt for question in made}) == 300
    assert Counter(question.kind for question in made) == {"arithmetic": 100, "facts": 100, "text": 100}
    assert {question.prompt for question in made} != {question.prompt for question in questions(300, seed=4)}
    assert all(question.is_right(question.gold) for question in made)
    assert not any(question.is_right(other) for question in made for other in question.others)


@pytest.mark.parametrize(
    ("question", "answer", "right"),
    [
        (Question("facts", "What is the capital of Chile?", "Santiago"), "It is Santiago.", True),
        (Question("facts", "What is the capital of Chile?", "Santiago"), "Santiagos", False),
        (Question("arithmetic", "What is 1 + 1?", "2"), "1 + 1 = 2", True),
        (Question("arithmetic", "What is 1 + 1?", "2"), "12", False),
        (Question("arithmetic", "Which is larger?", "43", ("26",)), "43 is larger than 26.", True),
        (Question("arithmetic", "Which is larger?", "43", ("26",)), "26 is smaller than 43.", False),
        (Question("text", "Write the word house in capital letters.", "HOUSE"), "house", False),
        (Question("text", "Write the word house in capital letters.", "HOUSE"), "It is HOUSE", True),
        (Question("text", "The last word of a, b?", "b", ("a",)), "a, b", False),
    ],
)
def test_an_answer_is_right_where_it_holds_the_right_one_first(question: Question, answer: str, right: bool) -> None:
    assert question.is_right(answer) is right


def test_replies_are_remembered_whatever_the_port(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}
    replies = []
    for name in ("first", "second"):
        with OpenAIServer() as server:
            server.chat = lambda _, name=name: ChatReply(f"said by the {name}")  # type: ignore[misc]
            with httpx.Client(transport=RememberedReplies(tmp_path / "replies.db")) as client:
                url = f"{server.base_url}/chat/completions"
                if name == "first":
                    server.fail_next(Failure(status=500))
                    assert client.post(url, json=body).status_code == 500  # is not remembered
                replies += [client.post(url, json=body).json(), client.post(url, json={**body, "n": 1}).json()]
            asked = len(server.requests)
        assert asked == (3 if name == "first" else 0)
    assert replies[:2] == replies[2:]
    assert replies[0]["choices"][0]["message"]["content"] == "said by the first"


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("ROUTELLM_REAL_MODELS"), reason="opt-in: ROUTELLM_REAL_MODELS=1")
def test_the_whole_way_with_two_real_models() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "real_models.py"), "--questions", "240"],
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,  # only guards against hanging
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "core"), str(ROOT)])},
    )
    if done.stderr.startswith("skipped: ") or "\nskipped: " in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert "rows ->" in done.stdout
    assert done.stdout.count("by its server") == 4  # calls and tokens of both models, in LangChain and in LlamaIndex
