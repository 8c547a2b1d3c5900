"""The examples in docs/langchain.md run as they stand, over scripted models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes_langchain import ScriptedChatModel

PAGE = Path(__file__).resolve().parents[2] / "docs" / "langchain.md"


def test_the_page_runs_top_to_bottom(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("langchain_openai.ChatOpenAI", ScriptedChatModel)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), names)
    assert len(blocks) == 13
    assert names["result"]["parsed"].name == "Ada"
    assert names["state"]["routellm"]["model"] == "weak"
    assert "strong share" in capsys.readouterr().out
