"""The Python blocks of docs/traffic.md run top to bottom, offline; its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from routellm_core.log import TrafficDatabase
from tests.support.examples import ROOT, run_example

# a server that is ended by a signal, after its lifespan: nothing that runs at a normal exit is run
SERVED = """
import asyncio
import os


async def serve():
    async with lifespan(None):
        await ChatRouteLLM(strong=gpt, weak=mini, strong_fraction=0.3, log=log).ainvoke("hi")


log = TrafficLog("sqlite:///served.db", flush_seconds=60.0)
asyncio.run(serve())
sys.stdout.flush()
os._exit(0)
"""
PAGE = (ROOT / "docs" / "traffic.md").read_text(encoding="utf-8")


def test_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 11
    script = tmp_path / "page.py"
    script.write_text("\n".join([*blocks, SERVED]), encoding="utf-8")
    observed, counts, versions = run_example(script, cwd=tmp_path).splitlines()
    assert observed == "strong observed"
    calls, _pairs, dropped = counts.split(" ", 2)
    assert (calls, dropped) == ("3", "{}")
    assert "in use: 0002-" in versions
    assert (tmp_path / "traffic.db").is_file()
    with TrafficDatabase(f"sqlite:///{tmp_path}/served.db") as database:
        assert database.summary().calls == 1


def test_the_commands_of_the_page_exist() -> None:
    from routellm_core.cli import build_app
    from tests.core.test_cli import _commands

    known = dict(_commands(build_app()))
    for line in re.findall(r"^routellm (.+)$", PAGE, flags=re.MULTILINE):
        words = tuple(line.split(" --")[0].split())
        options = {option for param in known[words].params for option in param.opts}
        assert set(re.findall(r"(?<!\S)--[\w-]+", line)) <= options, line
