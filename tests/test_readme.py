"""What the README says and shows: its main job, its Python blocks, its test command."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from routellm_core import Calibration, RoutingPolicy, load_router
from routellm_core.cli import main
from tests.support.examples import ROOT, run_example
from tests.support.openai_server import ChatReply, OpenAIServer

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_main_job_with_no_key_and_no_network(tmp_path: Path) -> None:
    output = run_example("quickstart.py", cwd=tmp_path)
    assert "STAND-INS answer" in output
    langchain, llama_index = output.split("LlamaIndex: index.as_query_engine")
    for part in (langchain, llama_index):
        rows = {m[1].strip(): (float(m[2]), m[3]) for m in re.finditer(r"(?m)^(.{48})  +(0\.\d{3})  (\w+)", part)}
        assert len(rows) >= 12
        assert rows["hi"][1] == "weak"
        assert {model for _, model in rows.values()} == {"weak", "strong"}
        assert min(rate for rate, model in rows.values() if model == "strong") > max(
            rate for rate, model in rows.values() if model == "weak"
        )
        assert "saved" in part
        assert "strong share" in part
    assert list(tmp_path.iterdir()) == []


def test_the_main_job_with_real_clients(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.chat = lambda body: ChatReply(f"said by {body['model']}")
        output = run_example(
            "quickstart.py",
            cwd=tmp_path,
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY="sk-test",
            ROUTELLM_STRONG="big",
            ROUTELLM_WEAK="small",
        )
        asked = [request.body["model"] for request in server.requests]
    assert "STAND-INS" not in output
    assert re.search(r"(?m)^hi .* weak +said by small", output)
    assert re.search(r"(?m)^Prove .* strong +said by big", output)
    assert set(asked) == {"big", "small"}
    assert len(asked) == 27  # 12 prompts in the chain, 15 in the query engine, each answered once


@pytest.mark.slow
def test_a_newcomer_gets_a_router_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (block,) = (found for found in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) if "train mf" in found)
    (app,) = (found for found in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "my-router" in found)
    (program, script, *words), *commands = (shlex.split(line, comments=True) for line in block.splitlines())
    assert program == "python"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr(sys, "argv", [script, *words])
    runpy.run_path(str(ROOT / script), run_name="__main__")
    printed = {"": capsys.readouterr().out}
    for program, command, *arguments in commands:
        assert program == "routellm"
        with pytest.raises(SystemExit) as done:
            main([command, *arguments])
        output = capsys.readouterr()
        assert done.value.code == 0, output.err
        printed[command] = output.out
    assert list(printed) == ["", "train", "evaluate", "calibrate"]
    assert "mf: Routing gains: at threshold" in printed["evaluate"]  # the help desk's prompts show what they need
    (tmp_path / "app.py").write_text(app, encoding="utf-8")
    run_example(tmp_path / "app.py", cwd=tmp_path)


@pytest.mark.parametrize("number", range(len(re.findall(r"```python\n", README))))
def test_the_python_blocks_run(number: int, tmp_path: Path) -> None:
    block = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[number]
    if "openai_like" in block:
        pytest.skip("needs pip install llama-index-llms-openai-like; tests/llamaindex/clients runs it")
    # the README's `index` is the reader's own
    setup = (
        "from llama_index.core import Document, MockEmbedding, VectorStoreIndex\n"
        "index = VectorStoreIndex.from_documents([Document(text='A page.')], embed_model=MockEmbedding(8))\n"
    )
    if "calibration.json" in block:
        load_router().save_pretrained(tmp_path / "my-router")
        Calibration.fit(load_router(tmp_path / "my-router"), ["hi", "Prove it."]).save(tmp_path / "calibration.json")
    script = tmp_path / "block.py"
    script.write_text((setup if "index." in block else "") + block, encoding="utf-8")
    with OpenAIServer() as server:
        # LlamaIndex's client has a variable of its own for the address
        addresses = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_BASE": server.base_url}
        run_example(script, cwd=tmp_path, OPENAI_API_KEY="sk-test", **addresses)
        if "OpenAI" in block:
            assert {r.body["model"] for r in server.requests} <= {"gpt-4.1", "gpt-4.1-mini"}
            assert server.requests


def test_the_prompt_that_the_readme_calls_hard_goes_to_the_strong_model() -> None:
    policy = RoutingPolicy(strong_fraction=0.3)
    assert README.count("Prove that the square root of 2 is irrational.") >= 4
    assert policy.decide("Prove that the square root of 2 is irrational.").model == "strong"
    assert policy.decide("hi").model == "weak"


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"<!-- test-command -->\n```bash\n(.*)\n```\n<!-- /test-command -->", README)
    assert command is not None
    assert command[1].startswith("python3 -m venv .venv-test && ")
    assert command[1].endswith(".venv-test/bin/pytest -n auto")
    assert "<!-- test-command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command[1] in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
