"""The code in docs/llamaindex.md runs as written, from top to bottom, over real HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from llama_index_instrumentation import get_dispatcher

from routellm_core.policy.routing import ROUTING_OPTIONS
from tests.support.openai_server import OpenAIServer

DOC = Path(__file__).resolve().parents[2] / "docs" / "llamaindex.md"
# the one for local models needs another client; tests/llamaindex/clients runs it
BLOCKS = [
    block
    for block in re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    if "openai_like" not in block
]


def test_the_code_of_the_guide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = get_dispatcher()
    handlers = list(root.event_handlers)
    names: dict[str, Any] = {}
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
        try:
            for block in BLOCKS:
                exec(compile(block, str(DOC), "exec"), names)
        finally:
            root.event_handlers = handlers
            for model in (names["llm"].strong, names["llm"].weak):
                model._get_client().close()
        asked = [(request.body["messages"][-1]["content"], request.body["model"]) for request in server.requests]
        forced, plain = [model for text, model in asked if text == "What is two plus two?"]
        assert (forced, plain) == ("gpt-4.1", "gpt-4.1-mini")
    assert names["response"].metadata["selector_result"].decision["router"] == "mf_vote"
    assert names["savings"].summary().strong.calls + names["savings"].summary().weak.calls == 1
    assert "strong share" in capsys.readouterr().out


def test_every_option_is_in_the_guide() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert [name for name in ROUTING_OPTIONS if name not in text] == []
