"""docs/training.md and the example: what they show exists and runs."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from routellm_core.commands import data, label, train

ROOT = Path(__file__).resolve().parents[3]


def commands() -> list[str]:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [
        m[1] for line in lines if (m := re.search(r"(?:routellm|routellm_core\.cli) ((?:train|label|data) .*)", line))
    ]


@pytest.mark.parametrize("command", commands())
def test_every_option_of_the_page_exists(command: str) -> None:
    app = typer.Typer()
    for module in (train, label, data):
        app.add_typer(module.app)
    words = command.split()
    shown = CliRunner().invoke(app, [*words[:2], "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    options = [word for word in words if word.startswith("--")]
    assert options
    for option in options:
        assert re.search(rf"{option}\b", shown.stdout), option


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_core.language_models import FakeListChatModel

    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"{w} {i}", "scores": {"gpt-4o": 1, "gpt-4o-mini": int(w == "hi")}}
        for i in range(40)
        for w in ("hi", "prove")
    ]
    answers = [{"prompt": "p", "answers": {"gpt-4o": "one", "gpt-4o-mini": "two"}}]
    for name, lines in (("outcomes.jsonl", rows), ("answers.jsonl", answers)):
        Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    first = next(c for c in commands() if c.startswith("train mf"))
    result = CliRunner().invoke(train.app, first.split()[1:])
    assert result.exception is None
    model = FakeListChatModel(responses=["[[A]]", "[[B]]"])
    names: dict[str, Any] = {"gpt_4o": model, "gpt_4o_mini": model, "my_llm": model}
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "docs/training.md", "exec"), names)
    assert names["llm"].invoke("hi").response_metadata["routellm"]["router"] == "mf"
    assert names["report"].rows == 1
    assert names["summary"].folds == 5


def test_the_page_names_what_there_is() -> None:
    import routellm_core.data as data
    import routellm_core.labelling as labelling
    import routellm_core.training as training

    assert len(commands()) >= 10
    for module in (data, labelling, training):
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_the_example_trains_gains_and_routes(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["train_on_your_data.py"])
    monkeypatch.syspath_prepend(ROOT / "examples")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    runpy.run_path(str(ROOT / "examples" / "train_on_your_data.py"), run_name="__main__")
    text = capsys.readouterr().out
    gained = re.search(r"APGR gained over the bundled default: (-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text)
    assert gained is not None
    low, value, high = float(gained[2]), float(gained[1]), float(gained[3])
    assert low < value < high
    assert value > 0
    assert re.search(r"^strong +win rate .*Invoice", text, re.MULTILINE)
    assert re.search(r"^weak +win rate .*parcel", text, re.MULTILINE)
