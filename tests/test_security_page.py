"""The Python block of docs/security.md runs offline and prints what it promises."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.examples import ROOT, run_example


def test_the_security_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 1
    script = tmp_path / "page.py"
    script.write_text(blocks[0], encoding="utf-8")
    promised = re.findall(r"^print\(.*\)  # (.*)$", blocks[0], flags=re.MULTILINE)
    assert run_example(script, cwd=tmp_path).splitlines() == promised
