"""Every block of docs/own_router.md runs, offline and in processes of their own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support.examples import ROOT, run_example

BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
PROMISED = re.compile(r"^print\(.*\)  # (\[.*\]|\(.*\)|[\d.]+|weak|strong)(?:, .*)?$", re.MULTILINE)


def install(project: dict[str, object], site: Path) -> None:
    """Leave what pip would of a project table: a dist-info with its entry points."""
    info = site / f"{str(project['name']).replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"]
    assert isinstance(groups, dict)
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items()]
    (info / "entry_points.txt").write_text("".join(lines))


def command(line: str, cwd: Path) -> str:
    program, *arguments = shlex.split(line)
    assert program == "routellm"
    script = cwd.parent / "routellm"
    script.write_text("from routellm_core.cli import main\nmain()\n", encoding="utf-8")
    path = os.pathsep.join([str(ROOT / "core"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_of_the_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "own_router.md").read_text(encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    blocks = BLOCK.findall(page)
    assert {language for language, _ in blocks} == {"python", "bash", "toml"}
    assert len(blocks) == 14
    script = []
    for language, text in blocks:
        if language == "toml":
            install(tomllib.loads(text)["project"], work)
        elif language == "python" and (named := re.match(r"# (\w+\.py)\n", text)):
            (work / named[1]).write_text(text, encoding="utf-8")
        elif language == "python":
            script.append(text)
    (work / "page.py").write_text("\n".join(script), encoding="utf-8")
    output = run_example(work / "page.py", cwd=work).splitlines()
    promised = PROMISED.findall(page)
    assert len(promised) == 8
    assert [line for line in output if line in promised] == promised
    assert output[-2:] == ["keywords", "(1, 5)"]

    shown = [command(line, work) for language, text in blocks if language == "bash" for line in text.splitlines()]
    sides = [re.findall(r"(strong|weak)\s*$", table, re.MULTILINE) for table in shown]
    assert sides == [["weak", "weak"], ["strong", "weak"]]
