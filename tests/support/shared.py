"""Where the golden values and data lie: beside a checkout, never in it."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("ROUTELLM_SHARED", Path(__file__).resolve().parents[3] / "shared"))
GOLDEN = SHARED / "golden"
DATA = SHARED / "data"

needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"golden values are not at {GOLDEN} (set ROUTELLM_SHARED)"
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"data is not at {DATA} (set ROUTELLM_SHARED)")


def golden_json(name: str) -> Any:
    """A parsed JSON file of the golden values."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Rows of a data file, such as ``benchmarks/mmlu``."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
