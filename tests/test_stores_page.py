"""The Python blocks of docs/stores.md run top to bottom, offline."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.examples import ROOT, run_example

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_the_stores_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 4
    script = tmp_path / "page.py"
    shown = "print(policy.decide('Prove that 3 divides 9.').reason, len(store), len(simple.data.embedding_dict))"
    script.write_text("\n".join([*blocks, shown]), encoding="utf-8")
    assert run_example(script, cwd=tmp_path) == "win_rate 300 2\n"
