"""The Python of docs/local_models.md runs against two local servers, and the examples take their addresses."""

from __future__ import annotations

import re

import pytest

from tests.support.examples import ROOT, run_example
from tests.support.openai_server import OpenAIServer

PAGE = (ROOT / "docs" / "local_models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- needs [\w-]+ -->\n)?```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def servers():
    with OpenAIServer() as strong, OpenAIServer() as weak:
        yield strong, weak


@pytest.mark.parametrize(("needs", "code"), BLOCKS, ids=["langchain", "llamaindex"])
def test_the_page_runs(servers, needs, code, capsys):
    if needs:
        pytest.importorskip("llama_index.llms.openai_like")
    strong, weak = servers
    code = code.replace("http://127.0.0.1:8001/v1", strong.base_url).replace("http://127.0.0.1:8002/v1", weak.base_url)
    exec(compile(code, "docs/local_models.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert [request.body["model"] for request in weak.requests] == ["small"]


@pytest.mark.slow
def test_the_quickstart_asks_the_server_of_each_side(servers, tmp_path):
    strong, weak = servers
    said = run_example(
        "quickstart.py",
        cwd=tmp_path,
        ROUTELLM_STRONG_URL=strong.base_url,
        ROUTELLM_WEAK_URL=weak.base_url,
        ROUTELLM_STRONG="big-one",
        ROUTELLM_WEAK="small-one",
        ROUTELLM_WEAK_KEY="sk-weak",
    )
    assert "strong big-one, weak small-one" in said
    assert {request.body["model"] for request in strong.requests_for("/chat/completions")} == {"big-one"}
    assert {request.authorization for request in weak.requests_for("/chat/completions")} == {"Bearer sk-weak"}
