"""The Python of docs/cascade.md runs and prints what it says."""

from __future__ import annotations

import re

from tests.support.examples import ROOT


def test_the_page_runs(capsys):
    page = (ROOT / "docs" / "cascade.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    exec(compile(code, "docs/cascade.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
