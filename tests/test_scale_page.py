"""The Python of docs/scale.md runs and prints what it says."""

from __future__ import annotations

import re

import pytest

from tests.support.examples import ROOT


def test_the_page_runs(capsys):
    pytest.importorskip("pandas")
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    exec(compile(code, "docs/scale.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
