"""Runs a script of examples/ as a user would: in its own process, with every connection refused but loopback's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# LlamaIndex looks at every attribute of a workflow's models, deprecated ones of pydantic too
_WARNINGS = ("-W", "error", "-W", "ignore:The `__fields", "-W", "ignore:Accessing the 'model_")

_GUARDED = """
import runpy, socket, sys
allowed, script, folder = sys.argv[1:4]
loopback = ("127.0.0.1", "::1", "localhost") if allowed == "loopback" else ()
connect, lookup = socket.socket.connect, socket.getaddrinfo
def guarded_connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in loopback:
        raise AssertionError(f"the script connects to {address}")
    return connect(self, address)
def guarded_lookup(host, *args, **kwargs):
    if host not in loopback:
        raise AssertionError(f"the script looks up {host}")
    return lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_lookup
sys.path.insert(0, folder)
sys.argv = [script]
runpy.run_path(script, run_name="__main__")
"""


def run_example(script: str | Path, *, cwd: Path, typed: str = "", **environment: str) -> str:
    """What the script prints; it may reach loopback only where `environment` names a server there.

    Warnings are errors in the script too. Its directory is `cwd`, so that what it leaves behind is seen.
    """
    done = _run(script, cwd, typed, environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_failing_example(script: str | Path, *, cwd: Path, **environment: str) -> str:
    """What a script that fails says on stderr; see `run_example`."""
    done = _run(script, cwd, "", environment)
    assert done.returncode != 0, done.stdout
    return done.stderr


def _run(script: str | Path, cwd: Path, typed: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "ROUTELLM_"))}
    paths = os.pathsep.join([str(ROOT / "core"), str(ROOT), kept.get("PYTHONPATH", "")])
    allowed = "loopback" if any(name.endswith("_URL") for name in environment) else "none"
    return subprocess.run(
        [
            sys.executable,
            *_WARNINGS,
            "-c",
            _GUARDED,
            allowed,
            str(ROOT / "examples" / script),
            str(ROOT / "examples"),
        ],
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        timeout=300,  # only guards against hanging
    )
