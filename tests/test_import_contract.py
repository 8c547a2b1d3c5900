"""The import contract of pyproject.toml: it holds, and each part of it fails where it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
OPEN_TO_ADAPTERS = {"errors", "checks", "forks", "workers", "embedders", "routers", "stores", "policy", "log"}
PACKAGES = {"routellm_core": "core", "langchain_routellm": ".", "llamaindex_routellm": "."}


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the packages below `root`, whatever is installed."""
    path = os.pathsep.join(str(root / parent) for parent in PACKAGES.values())
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        capture_output=True, text=True, check=False, cwd=root,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the three packages with the contract."""
    for package, parent in PACKAGES.items():
        shutil.copytree(
            ROOT / parent / package, tmp_path / parent / package, ignore=shutil.ignore_patterns("pretrained")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contract_holds() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_is_open_to_adapters_or_closed_to_them() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (doors,) = (contract for contract in contracts if contract["id"] == "doors")
    core = ROOT / "core" / "routellm_core"
    rooms = {path.stem for path in core.glob("*.py")} | {path.parent.name for path in core.glob("*/__init__.py")}
    closed = {module.removeprefix("routellm_core.") for module in doors["forbidden_modules"]}
    assert closed == rooms - OPEN_TO_ADAPTERS - {"__init__"}


@pytest.mark.parametrize(
    ("changes", "contract"),
    [
        pytest.param(
            {"core/routellm_core/statistics/new.py": "import routellm_core.policy"},
            "A room of the core imports from rooms below it only",
            id="upward",
        ),
        pytest.param(
            {"core/routellm_core/statistics/new.py": "def late():\n    import routellm_core.policy"},
            "A room of the core imports from rooms below it only",
            id="upward and lazy",
        ),
        pytest.param(
            {"core/routellm_core/attic.py": "import routellm_core.errors"},
            "A room of the core imports from rooms below it only",
            id="a room without a place",
        ),
        pytest.param(
            {"core/routellm_core/statistics/new.py": "import langchain_routellm"},
            "The core imports no adapter, an adapter never the other",
            id="core to adapter",
        ),
        pytest.param(
            {"langchain_routellm/new.py": "import llamaindex_routellm"},
            "The core imports no adapter, an adapter never the other",
            id="adapter to adapter",
        ),
        pytest.param(
            {"llamaindex_routellm/new.py": "import routellm_core.training"},
            "An adapter imports from the rooms that decide a call, and from no others",
            id="adapter to a room that is not its business",
        ),
        pytest.param(
            {"core/routellm_core/statistics/new.py": "def late():\n    import langchain_core"},
            "The core knows no framework",
            id="core to framework",
        ),
        pytest.param(
            {
                "core/routellm_core/statistics/new.py": "import routellm_core.statistics.newer",
                "core/routellm_core/statistics/newer.py": "def late():\n    import routellm_core.statistics.new",
            },
            "No package imports in a circle",
            id="cycle",
        ),
    ],
)
def test_a_forbidden_import_breaks_the_contract(checkout: Path, changes: dict[str, str], contract: str) -> None:
    for file, text in changes.items():
        assert not (checkout / file).exists()
        (checkout / file).write_text(text + "\n", encoding="utf-8")
    done = lint_imports(checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    # An arrow upward closes a circle as well
    assert contract in [line.split(" BROKEN")[0] for line in done.stdout.splitlines() if " BROKEN" in line]


def test_an_import_for_types_only_is_allowed(checkout: Path) -> None:
    (checkout / "core/routellm_core/statistics/new.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import routellm_core.policy\n", encoding="utf-8"
    )
    done = lint_imports(checkout)
    assert done.returncode == 0, done.stdout + done.stderr


def cycles(graph: grimp.ImportGraph) -> list[str]:
    """Every chain of imports that ends where it began.

    import-linter looks for cycles between siblings only: it misses a module that imports the package that it lies in.
    """
    found = []
    for importer in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(importer):
            chain = graph.find_shortest_chain(imported, importer)
            if chain:
                found.append(" -> ".join((importer, *chain)))
    return found


@pytest.fixture
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)


def test_no_chain_of_imports_ends_where_it_began(graph: grimp.ImportGraph) -> None:
    assert cycles(graph) == []


def test_a_module_that_imports_its_own_package_is_a_cycle(graph: grimp.ImportGraph) -> None:
    graph.add_import(importer="routellm_core.embedders.static", imported="routellm_core.embedders")
    assert "routellm_core.embedders -> routellm_core.embedders.static -> routellm_core.embedders" in cycles(graph)
