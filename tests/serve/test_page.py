"""docs/serve.md says what is so: its code runs against a running server, and its settings are read."""

from __future__ import annotations

import re
import tomllib

import pytest

from routellm_core.serve import Controller
from routellm_core.serve.settings import server_of
from tests.support.examples import ROOT

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- needs [\w-]+ -->\n)?```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(("needs", "code"), BLOCKS, ids=["llamaindex" if needs else "plain" for needs, _ in BLOCKS])
def test_the_python_of_the_page_runs(place, needs, code, capsys, monkeypatch):
    if needs:
        pytest.importorskip("llama_index.llms.openai_like")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    exec(compile(code.replace("http://127.0.0.1:6060", place.origin), "docs/serve.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    if promised:
        assert said == promised
    elif "2 + 2" in code:
        assert "answer of big" in said[0]
    else:
        raise AssertionError("a block that shows nothing")


def test_the_settings_of_the_page_are_read():
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    server = server_of(tomllib.loads(block), {"APP_KEY": "a", "BATCH_KEY": "b", "OPENAI_API_KEY": "c"})
    assert server.app.routing.failover
    assert len(server.app.policy.limits) == 1


def test_the_share_of_the_authors_threshold_is_as_the_page_says():
    controller = Controller(routers=["mf"], strong_model="s", weak_model="w")
    share = controller.routers["mf"].calibration.strong_fraction(threshold=0.11593)  # type: ignore[union-attr]
    assert f"about {share:.0%}".replace("%", " %") in PAGE
