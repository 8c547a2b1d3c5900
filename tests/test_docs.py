"""The Python blocks of docs/routers.md run top to bottom, offline."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.examples import ROOT, run_example


def test_the_routers_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "routers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    script = tmp_path / "page.py"
    script.write_text("\n".join([*blocks, "print(ranking.win_rates(['hi', 'Prove it.']).shape)"]), encoding="utf-8")
    assert run_example(script, cwd=tmp_path) == "(2,)\n"
    assert (tmp_path / "saved-router" / "model.safetensors").is_file()
