"""The Python of docs/tiers.md runs and prints what it says; its TOML and its command make the server of the page."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from routellm_core.serve.settings import server_of, tier_tables
from tests.support.examples import ROOT

PAGE = (ROOT / "docs" / "tiers.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_page_runs(capsys: Any) -> None:
    code = "\n".join(blocks("python"))
    exec(compile(code, "docs/tiers.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)


def test_the_file_and_the_command_are_one_server(tmp_path: Path) -> None:
    (toml,), (command,) = blocks("toml"), blocks("bash")
    words = shlex.split(command)
    given = {
        name: [b for a, b in itertools.pairwise(words) if a == f"--{name}"]
        for name in ("tier", "share", "tier-key-env")
    }
    tables = tier_tables(None, given["tier"], given["share"], given["tier-key-env"], [])
    assert tables == tomllib.loads(toml)["tiers"]
    app = server_of({"tiers": tables}, {"OPENAI_API_KEY": "sk-1"}).app
    assert app.levels.names == ("gpt-4.1", "gpt-4.1-mini", "small")
