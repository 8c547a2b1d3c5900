"""Mutation testing: change one line of a room at a time, and list the changes that no test notices.

    python scripts/mutation_run.py checks.py policy/failover.py     # single files: minutes
    python scripts/mutation_run.py policy calibration statistics    # whole rooms: hours

A room is tested by its own tests, ``tests/core/ROOM``, without the slow ones. The files are changed in a copy of the
working tree, so the checkout is never touched, and a run can be stopped at any time. `cosmic-ray` makes the changes
(``pip install cosmic-ray``), and ``scripts/mutation.toml`` says which ones.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "scripts" / "mutation.toml"
PACKAGE = Path("core") / "routellm_core"


def targets(names: list[str]) -> list[tuple[Path, list[Path]]]:
    """The files to mutate, each with the tests to run, of rooms and single files; all relative to the root."""
    found = []
    for name in names:
        path = PACKAGE / name
        if not (ROOT / path).exists():
            raise SystemExit(f"{name}: no such room or file in {PACKAGE}")
        files = sorted((ROOT / path).rglob("*.py")) if (ROOT / path).is_dir() else [ROOT / path]
        for file in (file.relative_to(ROOT) for file in files if file.name != "__init__.py"):
            room = Path("tests") / "core" / file.relative_to(PACKAGE).parent
            own = room / f"test_{file.name}"
            # a file's own tests first, as they notice most; the rest of its room where they notice nothing
            tests = [own] * (ROOT / own).exists() + [room] * (file.parent != PACKAGE)
            if not tests:
                raise SystemExit(f"{file} has no tests: expected {own}")
            found.append((file, tests))
    return found


def work_copy(folder: Path) -> None:
    """Copy what the tests of the core need into `folder`."""
    for name in ("core", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", folder)
    if (ROOT / "shared").is_dir():
        (folder / "shared").symlink_to(ROOT / "shared")


def mutate(file: Path, tests: list[Path], folder: Path, deadline: float) -> list[dict[str, str]]:
    """Run all mutants of one file; returns one record for each: operator, line, outcome and diff."""
    command = f"{sys.executable} -m pytest -x -q -m 'not slow' -p no:cacheprovider {' '.join(map(str, tests))}"
    config, session = folder / "mutation.toml", folder / "session.sqlite"
    session.unlink(missing_ok=True)
    head = f'[cosmic-ray]\nmodule-path = "{file}"\ntest-command = "{command}"\n'
    config.write_text(CONFIG.read_text(encoding="utf-8").replace("[cosmic-ray]\n", head, 1), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(folder / "core")}

    def call(*arguments: str, timeout: float | None = None) -> str:
        try:
            return subprocess.run(
                arguments, cwd=folder, env=env, check=True, capture_output=True, text=True, timeout=timeout
            ).stdout
        except subprocess.CalledProcessError as exc:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{exc.stdout}\n{exc.stderr}") from exc
        except subprocess.TimeoutExpired:
            return ""

    cosmic_ray = (sys.executable, "-m", "cosmic_ray.cli")
    call(*shlex.split(command))  # tests that fail without a mutant would kill every mutant
    call(*cosmic_ray, "init", str(config), str(session))
    call(sys.executable, "-m", "cosmic_ray.tools.filters.operators_filter", str(session), str(config))
    call(*cosmic_ray, "exec", str(config), str(session), timeout=max(1.0, deadline - time.monotonic()))
    shutil.copy2(ROOT / file, folder / file)  # a run that was stopped leaves its last mutant
    found = []
    for line in call(*cosmic_ray, "dump", str(session)).splitlines():
        work, result = json.loads(line)
        mutation = work["mutations"][0]
        outcome = "not run" if result is None else result["test_outcome"] or result["worker_outcome"]
        if outcome != "skipped":
            at = f"{file}:{mutation['start_pos'][0]}"
            diff = "" if result is None else result["diff"] or ""
            found.append({"at": at, "operator": mutation["operator_name"], "outcome": str(outcome), "diff": diff})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="+", help="rooms (policy) or files (policy/failover.py) of the core")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    options = parser.parse_args()
    deadline = time.monotonic() + 60.0 * options.minutes
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work_copy(folder)
        for file, tests in targets(options.targets):
            found = mutate(file, tests, folder, deadline)
            counts = Counter(mutant["outcome"] for mutant in found)
            print(f"{file}: {', '.join(f'{n} {outcome}' for outcome, n in sorted(counts.items()))}", flush=True)
            for mutant in (m for m in found if m["outcome"] == "survived"):
                survivors += 1
                changed = [row for row in mutant["diff"].splitlines() if re.match(r"[+-](?![+-])", row)]
                print(f"  {mutant['at']}", *changed, sep="\n    ", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
